//! Verbs that take the place of talosctl's, with its flags: `config generate|patch|validate`, `secrets generate`.
//!
//! Purpose: `talosctl gen config NAME ENDPOINT …` becomes `recast config generate NAME ENDPOINT …` and nothing else in a
//! script changes. Their short flags are talosctl's (`-o` is a file, `-p` a patch), so they are parsed by themselves,
//! before the other verbs' flags are known. They write no comments: `--with-docs` and `--with-examples` are accepted and
//! change nothing.
//! Must not know: profiles, sites. Start reading at [`of`].

mod generate;
mod output;
mod patch;
pub(super) mod secrets;
mod validate;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::stop::Stop;
use crate::exit::ExitCode;

/// The words that begin a command line of these.
const VERBS: [(&str, &[&str]); 2] = [("config", &["generate", "patch", "validate"]), ("secrets", &["generate"])];

/// The command line of one of these verbs.
#[derive(Debug, Parser)]
#[command(name = "recast", max_term_width = 120, disable_help_subcommand = true, args_override_self = true)]
struct Words {
    #[command(subcommand)]
    verb: Group,
}

#[derive(Debug, Subcommand)]
enum Group {
    /// Machine configurations
    #[command(subcommand)]
    Config(Config),
    /// The secrets of a cluster
    #[command(subcommand)]
    Secrets(Secrets),
}

/// `recast config`.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Generate machine configurations, as talosctl gen config does
    Generate(Box<generate::Generate>),
    /// Patch a machine configuration, as talosctl machineconfig patch does
    Patch(patch::Patch),
    /// Check a machine configuration, as talosctl validate does
    Validate(validate::Validate),
}

/// `recast secrets`.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Generate a secrets bundle, as talosctl gen secrets does
    Generate(secrets::Generate),
}

/// What such a verb ends with.
#[derive(Debug, Default)]
pub struct Done {
    /// For stdout.
    pub data: String,
    /// For people.
    pub told: String,
}

/// Does the verb, if the command line is one of these; `args` begins with the program's name.
pub fn of(args: &[OsString]) -> Option<Result<Done, Stop>> {
    let word = |at: usize| args.get(at).and_then(|arg| arg.to_str());
    let (group, verb) = (word(1)?, word(2)?);
    VERBS.iter().find(|(name, verbs)| *name == group && verbs.contains(&verb))?;
    Some(run(args))
}

/// Why a command line that is none of these was not taken: an unknown verb, or flags before the group.
pub fn misplaced(group: &str, words: &[String]) -> Stop {
    let mut verbs = VERBS.iter().find(|(name, _)| *name == group).map(|(_, verbs)| verbs.join("|")).unwrap_or_default();
    verbs.push_str(if group == "config" { "|render|diff|check" } else { "|import|fingerprint" });
    let given =
        words.first().map_or_else(|| "no verb is named".to_owned(), |word| format!("'{word}' can't follow here"));
    Stop::new(ExitCode::Invalid, format!("recast {group}: {given}"))
        .hinted(format!("it is `recast {group} {verbs}`; those with talosctl's flags have none before"))
}

fn run(args: &[OsString]) -> Result<Done, Stop> {
    let matches = match Words::command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) if !error.use_stderr() => {
            return Ok(Done { data: error.render().to_string(), told: String::new() });
        }
        Err(error) => {
            let text = error.render().to_string();
            return Err(Stop::new(ExitCode::Invalid, text.trim_end().trim_start_matches("error: ").to_owned()));
        }
    };
    let words = Words::from_arg_matches(&matches)
        .map_err(|error| Stop::because(ExitCode::Invalid, "the command line can't be understood", &error))?;
    match words.verb {
        Group::Config(Config::Generate(asked)) => asked.run(),
        Group::Config(Config::Patch(asked)) => asked.run(),
        Group::Config(Config::Validate(asked)) => asked.run(),
        Group::Secrets(Secrets::Generate(asked)) => asked.run(),
    }
}
