//! `recast rollback`: what a run did to the old cluster is taken back, as long as nothing was deleted.

use super::args::{Global, Resume};
use super::carry_out::{Begin, carry_out};
use super::rebuild::{belongs, parse, pending};
use super::resume::unfinished;
use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{RunState, StepState};
use crate::plan::{Plan, Undo};
use crate::report::document::Ending;

/// `recast rollback`.
pub async fn rollback(global: &Global, asked: &Resume, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let dir = unfinished(&session, asked)?;
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

/// What was done that can't be taken back, in words.
fn gone(plan: &Plan, state: &RunState) -> Vec<String> {
    let done = |id| matches!(state.step(id), Some(StepState::Succeeded { .. }));
    let irreversible = plan.steps().filter(|planned| matches!(planned.undo, Undo::Irreversible { .. }));
    irreversible.filter(|planned| done(&planned.id)).map(|planned| planned.id.to_string()).collect()
}
