//! A sink that keeps what a run has done so far.

use std::sync::{Mutex, PoisonError};

use super::{Fold, Progress};
use crate::event::{Event, EventSink};
use crate::journal::Record;
use crate::plan::Plan;
use crate::report::Now;

/// A sink that keeps what a run has done so far.
pub struct Recorder {
    now: Now,
    fold: Mutex<Fold>,
}

impl Recorder {
    /// For a run of this plan whose earlier processes left these records (none for a new run).
    pub fn new(plan: &Plan, earlier: &[Record], now: Now) -> Self {
        let mut fold = Fold::new(&plan.phases);
        fold.take_all(plan, earlier);
        Self { now, fold: Mutex::new(fold) }
    }

    /// What was done so far.
    pub fn progress(&self) -> Progress {
        self.fold.lock().unwrap_or_else(PoisonError::into_inner).progress()
    }
}

impl EventSink for Recorder {
    fn emit(&self, event: Event) {
        let now = (self.now)();
        self.fold.lock().unwrap_or_else(PoisonError::into_inner).take(now, &event);
    }
}
