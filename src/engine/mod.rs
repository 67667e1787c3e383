//! The small loop that carries a plan out.
//!
//! Purpose: start what may run, write intent before and outcome after, retry by error class, undo, park on cancel.
//! Must not know: clients, what a step does. Start reading at [`Perform`], then [`Run`].

mod attempt;
mod book;
pub mod cancel;
pub mod clock;
mod cx;
pub mod error;
pub mod retry;
mod run;

pub use cancel::{Cancel, CancelledBy};
pub use clock::{Clock, RealClock};
pub use cx::{Counter, StepCx};
pub use error::{Class, EngineError, StepError};
pub use retry::Retry;
pub use run::{API_PROBE_INTERVAL, Ended, FailedStep, MOST_REOPENINGS, Run};

pub use crate::event::Outcome;
use crate::plan::{Output, Planned};

/// What a look at the world showed about a step's effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It isn't there: `apply` is needed.
    Missing,
    /// It is there already.
    Done(Output),
    /// The plan's circumstances don't need it: nothing is applied, and the step counts as skipped.
    NotNeeded,
}

/// Performs one step against the world: the only seam the engine knows.
///
/// `steps::World` is the real one; engine tests script their own. An undo is performed through the same two functions:
/// its `Planned` holds the undoing step, and its id is the undone step's with `/undo` behind it.
///
/// A future of either function may be dropped at any await (a parked run, a killed process); the next run of the step
/// begins with `probe`.
#[expect(async_fn_in_trait, reason = "the loop drives steps inside one task and never needs their futures to be Send")]
pub trait Perform {
    /// Looks, without changing anything, whether the step's effect is already there. Called before every `apply`, so
    /// also after one whose outcome is unknown: [`StepCx::attached`] then names the PVE task to look at.
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError>;

    /// Makes the effect happen and confirms it. Called only when `probe` said it is missing.
    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError>;

    /// Whether the cluster's Kubernetes API answers right now (`/readyz`), for the downtime in the report; asked every
    /// [`API_PROBE_INTERVAL`] while the run goes on. `None` says that there is nothing to measure and ends the
    /// asking.
    async fn api_up(&self) -> Option<bool> {
        None
    }

    /// How many requests this process has sent so far, for the report.
    fn requests(&self) -> u64 {
        0
    }
}
