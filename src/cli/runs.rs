//! `recast runs`: what was done, from the journals.

use std::fmt::Write as _;
use std::path::Path;

use super::args::{Global, ReportOf, Runs};
use super::session::{profile, state_root};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{self, JournalError, RunDir, RunState, RunStatus, StateDir};
use crate::plan::Plan;
use crate::report::document::{Ending, Input};
use crate::report::summary::resume_command;
use crate::report::{
    Colour, Document, Progress, Report, ReportError, Summary, Told, html, junit, markdown, progress_of, write_whole,
};
use crate::types::RunId;

fn unreadable(error: &JournalError) -> Stop {
    error.hints().into_iter().fold(Stop::because(ExitCode::Failed, "the runs can't be read", error), Stop::hinted)
}

/// `recast runs`.
pub fn runs(global: &Global, asked: &Runs, surroundings: &Surroundings) -> Result<Answer, Stop> {
    // Journals are read from disk: no credentials are fetched for that, and no site is needed.
    let (path, profile) = profile(global)?;
    let cluster = profile.value.name;
    let state = StateDir::new(&state_root(&surroundings.place, global), &cluster);
    let mut document = Document::of_verb("runs", Some(&cluster), Ending::Done);
    let text = match asked {
        Runs::List => list(&state, &mut document)?,
        Runs::Show { run } => show(&Past::read(&find(&state, run)?, &path)?, &mut document),
        Runs::Report(asked) => report(&Past::read(&find(&state, &asked.run)?, &path)?, asked, &mut document)?,
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

/// A run as its plan and its journal tell it: also one that was killed.
struct Past {
    plan: Plan,
    progress: Progress,
    document: Document,
    status: RunStatus,
    resume: String,
}

impl Past {
    fn read(dir: &RunDir, profile: &Path) -> Result<Self, Stop> {
        let records = dir.records().map_err(|error| unreadable(&error))?;
        let plan = dir.plan_bytes().map_err(|error| unreadable(&error))?;
        let plan = super::rebuild::parse(&String::from_utf8_lossy(&plan))?;
        let progress = progress_of(&plan, &records);
        let requests = journal::requests(&records);
        let mut state = RunState::new(&plan.phases);
        for record in &records {
            // The journal was checked when it was read.
            let _ = state.record(&record.entry);
        }
        let input = Input { requests, ..Input::new(&plan, &progress) }.with_outputs(state.outputs());
        let document = Document::of_run(input);
        let resume = resume_command(&plan.run, &profile.display().to_string());
        Ok(Self { document, status: RunStatus::of(&records), plan, progress, resume })
    }

    fn report(&self) -> Report<'_> {
        let Self { document, plan, progress, resume, .. } = self;
        Report { document, run: Some(Told { plan, progress }), resume: Some(resume) }
    }

    fn summary(&self) -> String {
        let Self { document, plan, progress, resume, .. } = self;
        Summary { document, plan, progress, resume: Some(resume), colour: Colour::Off }.text()
    }
}

fn show(past: &Past, document: &mut Document) -> String {
    (document.run, document.work) = (past.document.run.clone(), past.document.work.clone());
    let Past { plan, status, .. } = past;
    format!("run {} of {}: {}\n{}", plan.run, plan.cluster, word(*status), past.summary())
}

/// One of the report's formats.
type Format = fn(&Report<'_>) -> String;

/// Makes the report anew: every format, for a run of any age and however it ended.
fn report(past: &Past, asked: &ReportOf, document: &mut Document) -> Result<String, Stop> {
    let unwritable = |error: &ReportError| Stop::because(ExitCode::Failed, "the report can't be written", error);
    let files: [(&Option<_>, Format); 3] = [(&asked.html, html), (&asked.junit, junit), (&asked.markdown, markdown)];
    for (path, format) in files {
        if let Some(path) = path {
            write_whole(path, &format(&past.report())).map_err(|error| unwritable(&error))?;
        }
    }
    (document.run, document.work) = (past.document.run.clone(), past.document.work.clone());
    Ok(past.summary())
}
