//! `recast rollback`: what a run did to the old cluster is taken back, as long as nothing was deleted.

use super::args::{Global, Resume, Rollback};
use super::carry_out::{Begin, carry_out};
use super::rebuild::{belongs, parse, pending};
use super::resume::unfinished;
use super::session::Session;
use super::stop::Stop;
use super::upgrade::back::{self, Then};
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{RunDir, RunState, StateDir, StepState};
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
    let dir = unfinished(&session, &Resume { run: asked.run.clone(), dry_run: asked.dry_run })?;
    let unreadable = |error: &crate::journal::JournalError| {
        Stop::because(ExitCode::Failed, format!("run {} can't be read", dir.id()), error)
    };
    let bytes = dir.plan_bytes().map_err(|error| unreadable(&error))?;
    let plan = parse(&String::from_utf8_lossy(&bytes))?;
    belongs(&plan, &session)?;
    let mut state = RunState::new(&plan.phases);
    for record in dir.records().map_err(|error| unreadable(&error))? {
        // A journal that makes no sense is refused when it is opened.
        let _ = state.record(&record.entry);
    }
    let gone = gone(&plan, &state);
    if !gone.is_empty() {
        let resume = super::carry_out::resume_command(&session, &plan);
        return Err(Stop::new(ExitCode::Refused, format!("there is no way back any more: {}", gone.join(", ")))
            .hinted(format!("go on with `{resume}`: the new cluster gets the data of the final snapshot")));
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
    let unreadable =
        |error: &crate::journal::JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    let dir = match &asked.run {
        Some(id) => Some(state.run(id)).filter(|dir| dir.path().exists()),
        None => state.newest_unfinished().map_err(|error| unreadable(&error))?,
    };
    let Some(dir) = dir else { return Ok(None) };
    let Ok(bytes) = dir.plan_bytes() else { return Ok(None) };
    let plan = serde_json::from_slice::<Plan>(&bytes).ok().filter(|plan| plan.verb == Verb::Upgrade);
    if let Some(plan) = &plan {
        belongs(plan, session)?;
    }
    Ok(plan.map(|plan| (dir, plan)))
}

/// What was done that can't be taken back, in words.
fn gone(plan: &Plan, state: &RunState) -> Vec<String> {
    let done = |id| matches!(state.step(id), Some(StepState::Succeeded { .. }));
    let irreversible = plan.steps().filter(|planned| matches!(planned.undo, Undo::Irreversible { .. }));
    irreversible.filter(|planned| done(&planned.id)).map(|planned| planned.id.to_string()).collect()
}
