//! At most so often per step.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::types::StepId;

/// Lets one event per step and interval through. Its time is the wall clock's: when that is set back, the next event
/// passes.
#[derive(Debug)]
pub(super) struct Throttle {
    every: SignedDuration,
    last: BTreeMap<StepId, Timestamp>,
}

impl Throttle {
    pub(super) fn new(every: SignedDuration) -> Self {
        Self { every, last: BTreeMap::new() }
    }

    /// Whether an event of this step may pass now; if so, the next interval begins.
    pub(super) fn admits(&mut self, step: &StepId, now: Timestamp) -> bool {
        let due = self.last.get(step).is_none_or(|last| now.duration_since(*last).abs() >= self.every);
        if due {
            self.last.insert(step.clone(), now);
        }
        due
    }

    /// Begins an interval without letting anything through.
    pub(super) fn begin(&mut self, step: &StepId, now: Timestamp) {
        self.last.entry(step.clone()).or_insert(now);
    }

    pub(super) fn forget(&mut self, step: &StepId) {
        self.last.remove(step);
    }
}
