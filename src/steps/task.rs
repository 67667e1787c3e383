//! PVE tasks inside steps: handle journaled first, then awaited; the verdict is never the whole truth.

use std::time::Duration;

use super::World;
use super::classify::{by_pve, wrong};
use crate::engine::{StepCx, StepError};
use crate::pve::{Ended, PveError, Upid, Wait};

/// How often a task's status is read: fast enough for short tasks, and a rehearsal's are short.
const POLL: Duration = Duration::from_millis(250);

impl World {
    fn wait(&self) -> Wait {
        Wait { poll: POLL, within: Duration::from_secs(self.plan.limits.task) }
    }
}

/// Journals a task that was just started, then waits for its end.
pub(super) async fn finish(world: &World, doing: String, upid: &Upid, cx: &StepCx<'_>) -> Result<(), StepError> {
    cx.handle(upid.as_str())?;
    match world.pve.wait(upid, world.wait()).await {
        Ok(Ended::Ok) => Ok(()),
        Ok(Ended::Warnings(lines)) => {
            for line in lines {
                cx.notice(format!("{doing}: {line}"));
            }
            Ok(())
        }
        Err(error) => Err(by_pve(doing, error)),
    }
}

/// Waits for the end of a task that an earlier attempt started, whatever its verdict: the caller looks at the world next.
pub(super) async fn settle(world: &World, upid: &str, cx: &StepCx<'_>) -> Result<(), StepError> {
    let upid: Upid = upid.parse().map_err(|error| wrong("read a task's id", format!("{error}")))?;
    cx.waiting("a task that an earlier attempt started", None);
    match world.pve.wait(&upid, world.wait()).await {
        Ok(_) | Err(PveError::Task(_) | PveError::NotFound { .. }) => Ok(()),
        Err(error) => Err(by_pve(format!("wait for the {} task of an earlier attempt", upid.kind), error)),
    }
}
