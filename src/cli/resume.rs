//! `recast resume`: the plan and the journal of a run say all that is needed to go on.

use super::args::{Global, Resume};
use super::carry_out::{Begin, carry_out};
use super::rebuild::{belongs, parse, pending};
use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{JournalError, RunDir, RunStatus, StateDir};
use crate::plan::Verb;
use crate::types::RunId;

/// `recast resume`.
pub async fn resume(global: &Global, asked: &Resume, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let dir = unfinished(&session, asked)?;
    let bytes = dir.plan_bytes().map_err(|error| {
        Stop::because(ExitCode::Failed, format!("the plan of run {} can't be read", dir.id()), &error)
    })?;
    let plan = parse(&String::from_utf8_lossy(&bytes))?;
    belongs(&plan, &session)?;
    let secrets = session.secrets(jiff::Timestamp::now())?;
    if plan.secrets != secrets.fingerprint() {
        return Err(Stop::new(
            ExitCode::Refused,
            format!("the secrets are not those that run {} was begun with", plan.run),
        )
        .hinted("put the old secrets file back"));
    }
    // A way back is planned with the profile of before, not with the one that is there.
    if plan.profile != session.profile_digest() && plan.verb != Verb::Rollback {
        let text = format!(
            "warning: the profile was edited since run {} was planned; the plan is carried out as it was\n",
            plan.run
        );
        surroundings.console.tell(&text);
    }
    if asked.dry_run {
        return Ok(pending(&plan, &[], &session));
    }
    Box::pin(carry_out(&session, plan, secrets, Begin::Again, surroundings)).await
}

/// The run that was named, or the newest that is not done.
pub(super) fn unfinished(session: &Session, asked: &Resume) -> Result<RunDir, Stop> {
    let cluster = &session.profile.value.name;
    let state = StateDir::new(&session.state_root(), cluster);
    let unreadable =
        |error: &crate::journal::JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    if let Some(id) = &asked.run {
        let dir = state.run(id);
        if !dir.path().exists() {
            return Err(Stop::new(ExitCode::Invalid, format!("cluster {cluster} has no run {id}"))
                .hinted("`recast runs list` shows them"));
        }
        if dir.status().map_err(|error| unreadable(&error))? == RunStatus::Done {
            return Err(Stop::new(ExitCode::Invalid, format!("run {id} is done: nothing is left to go on with")));
        }
        if let Some(newer) = superseded(&state, &dir).map_err(|error| unreadable(&error))? {
            return Err(Stop::new(
                ExitCode::Refused,
                format!("run {newer} came after run {id}, is done, and left another cluster, or other releases on it"),
            )
            .hinted("there is nothing to go on with: make a new plan"));
        }
        if let Some(newer) = taken_back(&state, &dir).map_err(|error| unreadable(&error))? {
            return Err(Stop::new(
                ExitCode::Refused,
                format!("run {newer} came after run {id}, takes machines back, and is not done"),
            )
            .hinted(format!(
                "`recast resume {newer}` goes on with it; what run {id} brought is no ground to go on from"
            )));
        }
        return Ok(dir);
    }
    let newest = state.newest_unfinished(left_another).map_err(|error| unreadable(&error))?;
    newest.ok_or_else(|| Stop::new(ExitCode::Invalid, format!("cluster {cluster} has no unfinished run")))
}

/// Whether a run, once it is done, leaves nothing to go on with in those before it: the cluster is another, or its
/// machines run another release than those plans knew.
pub(super) fn left_another(run: &RunDir) -> bool {
    run.plan().is_ok_and(|plan| plan.verb.destroys() || plan.verb.installs() || plan.verb.reboots())
}

/// The way back that came after this run and is not done: it may have taken machines from where this run left them.
fn taken_back(state: &StateDir, dir: &RunDir) -> Result<Option<RunId>, JournalError> {
    let is_back = |run: &RunDir| run.plan().is_ok_and(|plan| plan.verb == Verb::GoBack);
    for run in state.list()? {
        if run.id() == dir.id() {
            break;
        }
        if is_back(&run) && matches!(run.status()?, RunStatus::Unfinished { .. }) {
            return Ok(Some(run.id().clone()));
        }
    }
    Ok(None)
}

/// The run that came after this one, is done, and left another cluster or other releases.
fn superseded(state: &StateDir, dir: &RunDir) -> Result<Option<RunId>, JournalError> {
    let newest = state.newest_done(left_another)?;
    let runs = state.list()?;
    let place = |id: &RunId| runs.iter().position(|run| run.id() == id);
    Ok(newest.filter(|newest| place(newest.id()) < place(dir.id())).map(|newest| newest.id().clone()))
}
