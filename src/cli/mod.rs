//! The command line: one file per verb, and what they share.
//!
//! Purpose: reads arguments, environment and files, wires the layers below together, writes to the terminal and turns
//! every end into an exit code. Nothing below this module prints.
//! Start reading at [`dispatch`], then at the verb's file.

pub mod args;
pub mod carry_out;
pub mod check;
pub mod config;
pub mod confirm;
pub mod console;
pub mod create;
pub mod dropin;
pub mod env;
pub mod here;
pub mod init;
pub mod inventory;
pub mod log;
pub mod offline;
pub mod patches;
pub mod prepare;
pub mod rebuild;
pub mod rehearse;
pub mod resume;
pub mod rollback;
pub mod runs;
pub mod secrets;
pub mod session;
pub mod snapshot;
mod sops;
pub mod ssh;
pub mod status;
pub mod stop;
pub mod teardown;
pub mod template;
pub mod upgrade;
mod waiting;
pub mod way_back;

use std::ffi::OsString;
use std::process::ExitCode as ProcessCode;

use clap::Parser as _;

use crate::command::Mode;
use crate::engine::{Cancel, CancelledBy};
use crate::exit::ExitCode;
use crate::net::Reach;
use crate::report::document::{Ending, Kind};
use crate::report::{Colour, Document, Report, problem, write_report};
use args::{Cli, OutputFormat, Verb};
use console::Console;
use env::Env;
use session::Place;
use stop::Stop;

/// What a verb ends with.
pub struct Answer {
    /// The exit code.
    pub code: ExitCode,
    /// What `-o json` prints.
    pub document: Document,
    /// What stdout carries otherwise: data only.
    pub text: String,
}

/// Everything that surrounds a verb.
#[derive(Clone)]
pub struct Surroundings {
    /// Where it runs.
    pub place: Place,
    /// What it speaks through.
    pub console: Console,
    /// How it is told to stop.
    pub cancel: Cancel,
}

/// The program.
pub fn main() -> ProcessCode {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().enable_all().build() else {
        return ExitCode::Internal.into();
    };
    let env = Env::of_process();
    let surroundings = Surroundings {
        place: Place { env, reach: Reach::Anywhere, commands: Mode::Run },
        console: Console::of_process(),
        cancel: Cancel::new(),
    };
    let code = runtime.block_on(async {
        tokio::spawn(listen_for_signals(surroundings.cancel.clone()));
        run(std::env::args_os().collect(), surroundings).await
    });
    // A blocking read of an abandoned connection must not hold the process.
    runtime.shutdown_background();
    code.into()
}

/// The first Ctrl-C or SIGTERM parks the run, the second stops it.
async fn listen_for_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    loop {
        tokio::select! {
            Some(()) = interrupt.recv() => cancel.raise(CancelledBy::Interrupt),
            Some(()) = terminate.recv() => cancel.raise(CancelledBy::Terminate),
            else => return,
        }
    }
}

/// Parses a command line and does what it says.
pub async fn run(args: Vec<OsString>, surroundings: Surroundings) -> ExitCode {
    if let Some(done) = dropin::of(&args) {
        return match done {
            Ok(done) => {
                surroundings.console.tell(&done.told);
                surroundings.console.data(&done.data);
                ExitCode::Done
            }
            Err(stop) => {
                surroundings.console.tell(&problem::text(&stop.problems, None, Colour::Off));
                stop.code
            }
        };
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string();
            return if error.use_stderr() {
                surroundings.console.tell(&text);
                ExitCode::Invalid
            } else {
                surroundings.console.data(&text);
                ExitCode::Done
            };
        }
    };
    log::start(&cli.global.log_level);
    let format = cli.global.output;
    let answer = Box::pin(dispatch(cli, &surroundings)).await;
    match format {
        OutputFormat::Json => surroundings.console.data(&answer.document.to_json()),
        OutputFormat::Text => surroundings.console.data(&answer.text),
    }
    answer.code
}

/// Does the verb. An end that is not success is told on stderr and becomes a document as well.
pub async fn dispatch(cli: Cli, surroundings: &Surroundings) -> Answer {
    let Cli { global, verb } = cli;
    if global.events.as_deref() == Some("-") && global.output == OutputFormat::Json {
        let stop = Stop::new(ExitCode::Invalid, "--events - and -o json both want stdout")
            .hinted("write the events to a file, or leave out -o json");
        return stopped(verb.name(), None, &stop, &global, surroundings);
    }
    let (name, looks) = (verb.name(), matches!(verb, Verb::Check(_) | Verb::Status));
    let cluster =
        global.profile.as_deref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let done = match verb {
        Verb::Init(asked) => Box::pin(init::init(&global, &asked, surroundings)).await,
        Verb::Rebuild(asked) => Box::pin(rebuild::rebuild(&global, &asked, surroundings)).await,
        Verb::Upgrade(asked) => Box::pin(upgrade::upgrade(&global, &asked, surroundings)).await,
        Verb::Create(asked) => Box::pin(create::create(&global, &asked, surroundings)).await,
        Verb::Teardown(asked) => Box::pin(teardown::teardown(&global, &asked, surroundings)).await,
        Verb::Apply(asked) => Box::pin(rebuild::apply(&global, &asked, surroundings)).await,
        Verb::Resume(asked) => Box::pin(resume::resume(&global, &asked, surroundings)).await,
        Verb::Rollback(asked) => Box::pin(rollback::rollback(&global, &asked, surroundings)).await,
        Verb::Check(wishes) => Box::pin(check::check(&global, &wishes, surroundings)).await,
        Verb::Snapshot(asked) => Box::pin(snapshot::snapshot(&global, &asked, surroundings)).await,
        Verb::Status => Box::pin(status::status(&global, surroundings)).await,
        Verb::Inventory(asked) => Box::pin(inventory::inventory(&global, &asked, surroundings)).await,
        Verb::Runs(asked) => runs::runs(&global, &asked, surroundings),
        Verb::Template(asked) => Box::pin(template::template(&global, &asked, surroundings)).await,
        Verb::Rehearse(asked) => Box::pin(rehearse::rehearse(&global, asked, surroundings)).await,
        Verb::Config(asked) => Box::pin(config::config(&global, &asked, surroundings)).await,
        Verb::Secrets(asked) => Box::pin(secrets::secrets(&global, &asked, surroundings)).await,
        Verb::Schematic(asked) => Box::pin(offline::schematic(&global, &asked, surroundings)).await,
        Verb::Schema { of } => Ok(offline::schema(of)),
        Verb::Completions { shell } => Ok(offline::completions(shell)),
        Verb::Man => offline::man(),
    };
    match done {
        Ok(answer) => {
            // A run has written its own report, with all that it knows.
            if let Some(dir) = global.report_dir.as_ref().filter(|_| looks || answer.code == ExitCode::Pending) {
                let report = Report { document: &answer.document, run: None, resume: None };
                keep_report(dir, &report, &answer.text, surroundings);
            }
            answer
        }
        Err(stop) => stopped(name, cluster.as_deref(), &stop, &global, surroundings),
    }
}

/// An end before anything was done.
fn stopped(
    verb: &str,
    cluster: Option<&str>,
    stop: &Stop,
    global: &args::Global,
    surroundings: &Surroundings,
) -> Answer {
    surroundings.console.tell(&problem::text(&stop.problems, None, surroundings.colour(global)));
    let (ending, kind) = match stop.code {
        ExitCode::Invalid => (Ending::Invalid, Kind::Invalid),
        ExitCode::Refused => (Ending::Refused, Kind::Refused),
        ExitCode::Cancelled => (Ending::Cancelled, Kind::Failed),
        ExitCode::Internal => (Ending::Failed, Kind::Internal),
        _ => (Ending::Failed, Kind::Failed),
    };
    let document = Document::of_verb(verb, cluster, ending).with_problems(stop.documented(kind));
    if let Some(dir) = &global.report_dir {
        let report = Report { document: &document, run: None, resume: None };
        keep_report(dir, &report, &problem::text(&stop.problems, None, Colour::Off), surroundings);
    }
    Answer { code: stop.code, document, text: String::new() }
}

/// Writes the report's files; a report that can't be written is no reason to fail.
fn keep_report(dir: &std::path::Path, report: &Report<'_>, text: &str, surroundings: &Surroundings) {
    if let Err(error) = write_report(dir, report, text) {
        let told = format!("the report could not be written to {}: {error}", dir.display());
        surroundings.console.tell(&problem::warning(&told, Colour::Off));
    }
}

impl Surroundings {
    /// Whether to colour what people see.
    pub fn colour(&self, global: &args::Global) -> Colour {
        if self.console.is_coloured(global, &self.place.env) { Colour::On } else { Colour::Off }
    }
}

impl Verb {
    /// As it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Init(_) => "init",
            Self::Rebuild(_) => "rebuild",
            Self::Upgrade(_) => "upgrade",
            Self::Create(_) => "create",
            Self::Teardown(_) => "teardown",
            Self::Apply(_) => "apply",
            Self::Resume(_) => "resume",
            Self::Rollback(_) => "rollback",
            Self::Check(_) => "check",
            Self::Snapshot(_) => "snapshot",
            Self::Status => "status",
            Self::Inventory(_) => "inventory",
            Self::Runs(_) => "runs",
            Self::Template(_) => "template",
            Self::Rehearse(_) => "rehearse",
            Self::Config(_) => "config",
            Self::Secrets(_) => "secrets",
            Self::Schematic(_) => "schematic",
            Self::Schema { .. } => "schema",
            Self::Completions { .. } => "completions",
            Self::Man => "man",
        }
    }
}
