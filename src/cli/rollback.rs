//! `recast rollback`: back to what was before a run. What it did to the old cluster is undone, as long as nothing was
//! deleted; after that the cluster of before is made anew, which is `way_back.rs`' affair.

use super::args::{Global, Resume, Rollback};
use super::carry_out::{Begin, carry_out};
use super::rebuild::{belongs, parse, pending};
use super::resume::{left_another, unfinished};
use super::session::Session;
use super::stop::Stop;
use super::upgrade::back::{self, Then};
use super::way_back::way_back;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{JournalError, RunDir, RunState, RunStatus, StateDir, StepState};
use crate::plan::{Plan, Undo, Verb};
use crate::report::document::Ending;

/// `recast rollback`.
pub async fn rollback(global: &Global, asked: &Rollback, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let then = if asked.dry_run { Then::Show } else { Then::Do };
    if let Some(nodes) = &asked.nodes {
        return Box::pin(back::nodes(global, nodes, then, surroundings)).await;
    }
    let session = Session::open(&surroundings.place, global)?;
    if let Some((dir, plan)) = upgrade_of(&session, asked)? {
        return Box::pin(back::run(&session, &dir, &plan, then, surroundings)).await;
    }
    let asked = &Resume { run: asked.run.clone(), dry_run: asked.dry_run };
    let dir = run(&session, asked)?;
    let unreadable =
        |error: &JournalError| Stop::because(ExitCode::Failed, format!("run {} can't be read", dir.id()), error);
    let bytes = dir.plan_bytes().map_err(|error| unreadable(&error))?;
    let plan = parse(&String::from_utf8_lossy(&bytes))?;
    belongs(&plan, &session)?;
    let records = dir.records().map_err(|error| unreadable(&error))?;
    let mut state = RunState::new(&plan.phases);
    for record in &records {
        // A journal that makes no sense is refused when it is opened.
        let _ = state.record(&record.entry);
    }
    if plan.verb == Verb::GoBack && RunStatus::of(&records) != RunStatus::Done {
        let why = format!("run {} is itself a way back, and is not done", plan.run);
        let hint = format!("`recast resume {}` goes on with it; another run is taken back by its name", plan.run);
        return Err(Stop::new(ExitCode::Refused, why).hinted(hint));
    }
    if RunStatus::of(&records) == RunStatus::Done || !gone(&plan, &state).is_empty() {
        return Box::pin(way_back(global, asked, (&dir, &plan, &state), surroundings)).await;
    }
    let secrets = session.secrets(jiff::Timestamp::now())?;
    if asked.dry_run {
        return Ok(pending(&plan, &[], &session));
    }
    let mut answer = Box::pin(carry_out(&session, plan, secrets, Begin::Back, surroundings)).await?;
    if answer.code == ExitCode::Cancelled && surroundings.cancel.by().is_none() {
        answer.code = ExitCode::Done;
        answer.document.outcome = Ending::Done;
    }
    "rollback".clone_into(&mut answer.document.verb);
    Ok(answer)
}

/// The run that is meant, where it is an upgrade's: one that is done can be taken back, too.
fn upgrade_of(session: &Session, asked: &Rollback) -> Result<Option<(RunDir, Plan)>, Stop> {
    let state = StateDir::new(&session.state_root(), &session.profile.value.name);
    let unreadable = |error: &JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    let dir = if let Some(id) = &asked.run {
        Some(state.run(id)).filter(|dir| dir.path().exists())
    } else {
        let unfinished = state.newest_unfinished(left_another).map_err(|error| unreadable(&error))?;
        match unfinished {
            Some(dir) => Some(dir),
            None => state.newest_done(left_another).map_err(|error| unreadable(&error))?,
        }
    };
    let Some(dir) = dir else { return Ok(None) };
    let plan = dir.plan().ok().filter(|plan| plan.verb == Verb::Upgrade);
    if let Some(plan) = &plan {
        belongs(plan, session)?;
    }
    Ok(plan.map(|plan| (dir, plan)))
}

/// The run to go back from: the one that was named, else the newest unfinished one, else the one that made the cluster.
fn run(session: &Session, asked: &Resume) -> Result<RunDir, Stop> {
    let cluster = &session.profile.value.name;
    let state = StateDir::new(&session.state_root(), cluster);
    let unreadable = |error: &JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    if let Some(id) = &asked.run
        && state.run(id).path().exists()
        && state.run(id).status().map_err(|error| unreadable(&error))? == RunStatus::Done
    {
        return Ok(state.run(id));
    }
    if asked.run.is_none() && state.newest_unfinished(left_another).map_err(|error| unreadable(&error))?.is_none() {
        let newest = state.newest_done(left_another).map_err(|error| unreadable(&error))?;
        return newest
            .ok_or_else(|| Stop::new(ExitCode::Invalid, format!("cluster {cluster} has no run to go back from")));
    }
    unfinished(session, asked)
}

/// What was done that can't be undone, or begun without anybody knowing how it went.
fn gone(plan: &Plan, state: &RunState) -> Vec<String> {
    let done = |id| match state.step(id) {
        Some(StepState::Succeeded { .. } | StepState::Started { .. }) => true,
        Some(StepState::Failed { handle, .. }) => handle.is_some(),
        _ => false,
    };
    let irreversible = plan.steps().filter(|planned| matches!(planned.undo, Undo::Irreversible { .. }));
    irreversible.filter(|planned| done(&planned.id)).map(|planned| planned.id.to_string()).collect()
}
