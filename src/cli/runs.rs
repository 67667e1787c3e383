//! `recast runs`: what was done, from the journals.

use std::fmt::Write as _;
use std::fs;

use super::args::{Global, Runs};
use super::session::{profile, state_root};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{JournalError, RunDir, RunStatus, StateDir};
use crate::report::document::{Ending, Input};
use crate::report::{Colour, Document, Summary, progress_of};
use crate::types::RunId;

fn unreadable(error: &JournalError) -> Stop {
    error.hints().into_iter().fold(Stop::because(ExitCode::Failed, "the runs can't be read", error), Stop::hinted)
}

/// `recast runs`.
pub fn runs(global: &Global, asked: &Runs, surroundings: &Surroundings) -> Result<Answer, Stop> {
    // Journals are read from disk: no credentials are fetched for that, and no site is needed.
    let (_, profile) = profile(global)?;
    let cluster = profile.value.name;
    let state = StateDir::new(&state_root(&surroundings.place, global), &cluster);
    let mut document = Document::of_verb("runs", Some(&cluster), Ending::Done);
    let text = match asked {
        Runs::List => list(&state, &mut document)?,
        Runs::Show { run } => show(&find(&state, run)?, &mut document)?,
        Runs::Report { run } => report(&find(&state, run)?)?,
    };
    Ok(Answer { code: ExitCode::Done, document, text })
}

fn find(state: &StateDir, run: &RunId) -> Result<RunDir, Stop> {
    let dir = state.run(run);
    if dir.path().exists() {
        return Ok(dir);
    }
    Err(Stop::new(ExitCode::Invalid, format!("there is no run {run}")).hinted("`recast runs list` shows them"))
}

fn word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::NotBegun => "not begun",
        RunStatus::Done => "done",
        RunStatus::Unfinished { ended: Some(outcome) } => outcome.word(),
        RunStatus::Unfinished { ended: None } => "running or killed",
    }
}

fn list(state: &StateDir, document: &mut Document) -> Result<String, Stop> {
    let mut text = String::new();
    let mut rows = Vec::new();
    for dir in state.list().map_err(|error| unreadable(&error))? {
        let status = word(dir.status().map_err(|error| unreadable(&error))?);
        let _ = writeln!(text, "{}  {status}", dir.id());
        rows.push(serde_json::json!({ "run": dir.id(), "status": status }));
    }
    document.extra.insert("runs".to_owned(), rows.into());
    Ok(text)
}

fn show(dir: &RunDir, document: &mut Document) -> Result<String, Stop> {
    let records = dir.records().map_err(|error| unreadable(&error))?;
    let plan = super::rebuild::parse(&String::from_utf8_lossy(&dir.plan_bytes().map_err(|error| unreadable(&error))?))?;
    let progress = progress_of(&plan, &records);
    let of_run = Document::of_run(Input::new(&plan, &progress));
    let summary = Summary { document: &of_run, plan: &plan, progress: &progress, resume: None, colour: Colour::Off };
    let status = word(dir.status().map_err(|error| unreadable(&error))?);
    let text = format!("run {} of {}: {status}\n{}", dir.id(), plan.cluster, summary.text());
    (document.run, document.work) = (of_run.run, of_run.work);
    Ok(text)
}

fn report(dir: &RunDir) -> Result<String, Stop> {
    let path = dir.path().join("report.txt");
    fs::read_to_string(&path).map_err(|error| {
        Stop::because(ExitCode::Failed, format!("run {} has no report yet", dir.id()), &error)
            .hinted("resume it, or look at `recast runs show`")
    })
}
