//! Verbs that take the place of talosctl's, with its flags: `config generate|patch|validate`, `secrets generate`.
//!
//! Purpose: `talosctl gen config NAME ENDPOINT …` becomes `recast config generate NAME ENDPOINT …` and nothing else in a
//! script changes. Their short flags are talosctl's (`-o` is a file, `-p` a patch), so they are parsed by themselves,
//! before the other verbs' flags are known, and by its parser's rules (`flags`, `list`).
//! Must not know: profiles, sites. Start reading at [`of`].
//!
//! # Where they differ from talosctl 1.13.9 on purpose
//! `generate`, of both groups:
//! - No comments are written: `--with-docs` and `--with-examples` are accepted and change nothing.
//! - Files are for their owner only (0600), since keys are in them.
//! - When one of several files is there, none is written; talosctl writes those before it.
//! - Without `--talos-version` the newest contract known here is written; the default installer and Kubernetes are those of the
//!   Talos version.
//! - A cluster without a name is told: talosctl can't use the talosconfig of one.
//! - A bundle is refused where Talos or Kubernetes would fail with it: an expired authority, a certificate of no authority, a
//!   key that is damaged or of another certificate, a certificate under another label, a bootstrap token or a 32-byte secret
//!   in another form, a value blanked out or encrypted. So is a configuration or PKI folder that doesn't give a whole
//!   bundle; talosctl writes one with holes.
//! - A bundle's authority may not be of RSA below 2048 bits, nor on a curve beside P-256, P-384 and P-521.
//! - `--persist` is known for Talos up to 1.12, as its own talosctl had it.
//!
//! - In a bundle `!!binary` stands for a text; talosctl takes any bytes.
//!
//! `patch`: `-o -` is stdout; talosctl writes a file of that name. What patches differ in, `talos::config::patch` says.
//!
//! `validate`: a control plane needs Talos' authority with its certificate, not the key alone. Expressions (CEL) are not
//! evaluated. Documents of Talos 1.14 are known. What is found goes to stderr.
//!
//! # And where nobody means it
//! - `-h` before the verb is help on the group, whatever follows; talosctl refuses the verb's own flags behind it. `--` before
//!   the verb is refused; talosctl shows help.
//! - Control characters, and bytes that are no UTF-8, are refused wherever a secrets file has them; talosctl doesn't look far
//!   behind the first document.

mod flags;
mod generate;
mod list;
pub(super) mod output;
mod patch;
pub(super) mod secrets;
mod validate;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use super::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::Contract;

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
    let group = word(1)?;
    let before = flags::before_verb(args.get(2..)?)?;
    let verb = word(2 + before)?;
    VERBS.iter().find(|(name, verbs)| *name == group && verbs.contains(&verb))?;
    let command = Words::command();
    let known = command.find_subcommand(group)?.find_subcommand(verb)?;
    let given: Vec<OsString> = args[2..2 + before].iter().chain(&args[3 + before..]).cloned().collect();
    let start = [&args[0], &args[1], &args[2 + before]].into_iter().cloned();
    let words: Vec<OsString> = start.chain(flags::spelled_out(known, &given)).collect();
    Some(run(words))
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

fn run(args: Vec<OsString>) -> Result<Done, Stop> {
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

/// A switch in any spelling that talosctl takes.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// The contract for what `--talos-version` says, and what to tell when that is newer than any known here.
fn contract(given: Option<&str>) -> Result<(Contract, Option<String>), Stop> {
    let Some(given) = given.filter(|version| !version.is_empty()) else { return Ok((Contract::NEWEST, None)) };
    let contract = Contract::nearest(given).map_err(|error| {
        Stop::because(ExitCode::Invalid, "--talos-version is none that can be generated for", &error)
    })?;
    let newer = contract == Contract::NEWEST && given.parse::<Contract>().is_err();
    let told = format!("Talos {given} is newer than what is known here: written as for {contract}, which it reads\n");
    Ok((contract, newer.then_some(told)))
}
