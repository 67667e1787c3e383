//! Plans: what will be done, decided before anything is done.
//!
//! Purpose: `make` turns a profile and what was observed into a [`Plan`] that leaves no meaningful choice to the
//! engine; `lint` proves rules about any plan; `show` prints the object that will run.
//! Must not know: clients, files, clocks. Start reading at [`Plan`], then `make`.

pub mod step;

use serde::{Deserialize, Serialize};

pub use step::{Output, Step};

use crate::types::StepId;

/// A named group of steps with a gate at its end: the next phase starts only when all its steps are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// One of the design's names: `check`, `image`, `template` …
    pub name: String,
    /// In order.
    pub steps: Vec<Planned>,
    /// How many steps may run at once; 1 = one after another.
    pub width: usize,
}

/// A step in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Unique in the plan.
    pub id: StepId,
    /// What to do.
    pub step: Step,
    /// Steps of the same phase that must be done first.
    pub after: Vec<StepId>,
    /// How it is undone when its phase fails.
    pub undo: Undo,
}

/// What becomes of a step's effect when a later step of the same phase fails for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// It left nothing behind, or what it left is harmless and a resume finds it again.
    Nothing,
    /// This step takes it back; afterwards a resume does the original step anew.
    By(Box<Step>),
    /// It can't be taken back.
    Irreversible {
        /// Why, for the plan's text.
        because: String,
    },
}
