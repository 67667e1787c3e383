//! The small loop that carries a plan out.
//!
//! Purpose: start what may run, write intent before and outcome after, retry by error class, undo, park on cancel.
//! Must not know: clients, what a step does. Start reading at [`Perform`], then `run`.

pub mod error;

use crate::plan::{Output, Planned};

/// What a step may use of the run it belongs to.
pub struct StepCx<'a> {
    _run: std::marker::PhantomData<&'a ()>,
}
pub use error::{Class, StepError};

/// What a look at the world showed about a step's effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It isn't there: `apply` is needed.
    Missing,
    /// It is there already.
    Done(Output),
}

/// Performs one step against the world: the only seam the engine knows.
///
/// `steps::World` is the real one; engine tests script their own.
#[expect(async_fn_in_trait, reason = "the loop drives steps inside one task and never needs their futures to be Send")]
pub trait Perform {
    /// Looks, without changing anything, whether the step's effect is already there.
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError>;

    /// Makes the effect happen and confirms it. Called only when `probe` said it is missing.
    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError>;
}
