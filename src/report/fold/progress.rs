//! What a run has done so far, as numbers.
//!
//! Must not know: what they were made from.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::event::{Class, Failure, How, Outcome};
use crate::types::StepId;

/// What a run has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// The phases that were begun, in the plan's order.
    pub phases: Vec<PhaseDone>,
    /// How it ended; none while it is being run, and of a run whose process was killed.
    pub outcome: Option<Outcome>,
    /// What failed since it was opened or resumed last, in the order in which it did.
    pub failures: Vec<StepFailure>,
    /// Steps that were begun and neither done nor failed: how they stand is for a probe to find out.
    pub unknown: Vec<StepId>,
    /// Steps whose effects were taken back, and that were not begun since.
    pub undone: BTreeSet<StepId>,
    /// How long the Kubernetes API did not answer, when that was measured.
    pub api_downtime_seconds: Option<f64>,
    /// Whether it answered when it was last asked.
    pub api_up: Option<bool>,
    /// Notices of this process; they aren't journaled.
    pub notices: Vec<String>,
    /// How long it was being run, over all its processes.
    pub seconds: f64,
    /// When it was opened first.
    pub since: Option<Timestamp>,
    /// Steps that were begun and aren't done, in the plan's order.
    pub begun: Vec<StepBegun>,
    /// When the Kubernetes API did not answer: from, and until (none = when it was last asked, it still did not).
    pub api_down: Vec<(f64, Option<f64>)>,
    /// When the run was resumed.
    pub resumed: Vec<f64>,
}

/// A step that was begun and isn't done: it failed, was undone, or its outcome is unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct StepBegun {
    /// Its id.
    pub id: StepId,
    /// When it was begun first, in seconds of the run.
    pub start: f64,
    /// How long it took so far.
    pub seconds: f64,
}

/// A phase, as far as it came.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct PhaseDone {
    /// Its name.
    pub name: String,
    /// When it was begun first, in seconds of the run. The time between two processes doesn't count.
    pub start: f64,
    /// How long it took, undone and repeated work included.
    pub seconds: f64,
    /// Its steps that are done, in the plan's order.
    pub steps: Vec<StepDone>,
    /// How many of its steps aren't done.
    #[serde(skip)]
    pub left: usize,
}

/// A step that is done.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct StepDone {
    /// Its id.
    pub id: StepId,
    /// How it came to be done.
    pub how: How,
    /// When it was begun first, in seconds of the run.
    pub start: f64,
    /// How long it took, failed attempts included.
    pub seconds: f64,
}

/// A step that failed for good, or whose undo did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// The step.
    pub step: StepId,
    /// What may be done about it; none for an undo.
    pub class: Option<Class>,
    /// The error.
    pub failure: Failure,
}

impl StepFailure {
    /// Whether it was the undo that failed.
    pub fn is_undo(&self) -> bool {
        self.class.is_none()
    }
}

impl Progress {
    /// A step that is done; `None` when it isn't.
    pub fn done(&self, id: &StepId) -> Option<&StepDone> {
        self.phases.iter().flat_map(|phase| &phase.steps).find(|step| step.id == *id)
    }
}
