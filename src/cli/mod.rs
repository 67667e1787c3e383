//! The command line: one file per verb, and what they share.
//!
//! Purpose: reads arguments, environment and files, wires the layers below together, writes to the terminal and turns
//! every end into an exit code. Nothing below this module prints.
//! Start reading at [`dispatch`], then at the verb's file.

pub mod args;
pub mod carry_out;
pub mod check;
pub mod confirm;
pub mod console;
pub mod env;
pub mod log;
pub mod offline;
pub mod prepare;
pub mod rebuild;
pub mod rehearse;
pub mod resume;
pub mod runs;
pub mod session;
pub mod stop;

use std::ffi::OsString;
use std::process::ExitCode as ProcessCode;

use clap::Parser as _;

use crate::engine::{Cancel, CancelledBy};
use crate::exit::ExitCode;
use crate::net::Reach;
use crate::report::document::{Ending, Kind, Problem};
use crate::report::{Colour, Document, problem, write_report};
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
        place: Place { env, reach: Reach::Anywhere },
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
    let name = verb.name();
    let cluster =
        global.profile.as_deref().and_then(|path| path.file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    let done = match verb {
        Verb::Rebuild(asked) => Box::pin(rebuild::rebuild(&global, &asked, surroundings)).await,
        Verb::Apply(asked) => Box::pin(rebuild::apply(&global, &asked, surroundings)).await,
        Verb::Resume(asked) => Box::pin(resume::resume(&global, &asked, surroundings)).await,
        Verb::Check(wishes) => Box::pin(check::check(&global, &wishes, surroundings)).await,
        Verb::Runs(asked) => runs::runs(&global, &asked, surroundings),
        Verb::Rehearse(asked) => Box::pin(rehearse::rehearse(&global, asked, surroundings)).await,
        Verb::Schematic(asked) => offline::schematic(&asked),
        Verb::Schema { of } => Ok(offline::schema(of)),
        Verb::Completions { shell } => Ok(offline::completions(shell)),
        Verb::Man => offline::man(),
    };
    done.unwrap_or_else(|stop| stopped(name, cluster.as_deref(), &stop, &global, surroundings))
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
    let problems = stop.problems.iter().map(|failure| Problem::new(kind, failure));
    let document = Document::of_verb(verb, cluster, ending).with_problems(problems);
    if let Some(dir) = &global.report_dir {
        keep_report(dir, &document, &problem::text(&stop.problems, None, Colour::Off), surroundings);
    }
    Answer { code: stop.code, document, text: String::new() }
}

/// Writes the report's files; a report that can't be written is no reason to fail.
fn keep_report(dir: &std::path::Path, document: &Document, text: &str, surroundings: &Surroundings) {
    if let Err(error) = write_report(dir, document, text) {
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
            Self::Rebuild(_) => "rebuild",
            Self::Apply(_) => "apply",
            Self::Resume(_) => "resume",
            Self::Check(_) => "check",
            Self::Runs(_) => "runs",
            Self::Rehearse(_) => "rehearse",
            Self::Schematic(_) => "schematic",
            Self::Schema { .. } => "schema",
            Self::Completions { .. } => "completions",
            Self::Man => "man",
        }
    }
}
