//! What a step may use of the run it belongs to.
//!
//! Purpose: the few things a step gets from the engine: journaling a task's handle, earlier outputs, events, time, and
//! the news that it should come to an end. `Send` and `Sync`, so that meters on other threads can report through it.
//! Must not know: what a step does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use super::book::Book;
use super::cancel::{Cancel, Level};
use super::clock::{Clock, Sleep};
use super::error::StepError;
use crate::event::{Class, Event, EventSink};
use crate::journal::Entry;
use crate::plan::Output;
use crate::types::{RunId, StepId};

/// What one attempt of a step may use of its run.
pub struct StepCx<'a> {
    pub(super) step: StepId,
    pub(super) run: &'a RunId,
    pub(super) attached: Option<String>,
    pub(super) outputs: Arc<BTreeMap<StepId, Output>>,
    pub(super) book: &'a Book<'a>,
    pub(super) events: &'a dyn EventSink,
    pub(super) clock: &'a dyn Clock,
    pub(super) cancel: &'a Cancel,
}

impl StepCx<'_> {
    /// The step. For an undo it is the step whose effect is taken back.
    pub fn step(&self) -> &StepId {
        &self.step
    }

    /// The run, as marks name it.
    pub fn run_id(&self) -> &RunId {
        self.run
    }

    /// Journals a PVE task that this step has just started; returns once that is on disk. To be called before the task
    /// is waited for: a resumed run then finds it in [`StepCx::attached`].
    ///
    /// # Errors
    /// When the journal can't be written; the run ends with that.
    pub fn handle(&self, upid: &str) -> Result<(), StepError> {
        let entry = Entry::Handle { step: self.step.clone(), upid: upid.to_owned() };
        self.book
            .append(entry)
            .map_err(|broken| StepError::new(Class::Ambiguous, format!("journal the task {upid}"), broken))
    }

    /// The PVE task that an earlier attempt started and whose outcome is unknown. To be waited for, or found ended,
    /// before the probe is believed and before anything is started again.
    pub fn attached(&self) -> Option<&str> {
        self.attached.as_deref()
    }

    /// What an earlier step found out; `None` when it isn't done.
    pub fn output_of(&self, step: &StepId) -> Option<&Output> {
        self.outputs.get(step)
    }

    /// Tells how many bytes moved: `what` is `download`, `upload` …, `cached` is the part of `done` that was there
    /// already. May be called often; renderers throttle.
    pub fn bytes(&self, what: &str, done: u64, total: Option<u64>, cached: u64) {
        self.events.emit(Event::Bytes { step: self.step.clone(), what: what.to_owned(), done, total, cached });
    }

    /// Counts bytes for [`StepCx::bytes`], from any thread.
    pub fn counter(&self, what: &str) -> Counter<'_> {
        Counter {
            cx: self,
            what: what.to_owned(),
            done: AtomicU64::new(0),
            cached: AtomicU64::new(0),
            total: Mutex::default(),
        }
    }

    /// Tells what is waited for, and what the last look saw.
    pub fn waiting(&self, on: &str, last: Option<&str>) {
        self.events.emit(Event::Waiting { step: self.step.clone(), on: on.to_owned(), last: last.map(str::to_owned) });
    }

    /// Tells something worth knowing: a warning, a fallback, a choice made. A sentence.
    pub fn notice(&self, text: impl Into<String>) {
        self.events.emit(Event::Notice { text: text.into() });
    }

    /// Whether the run is asked to stop: a good moment to return an error from a safe point. What a step returns then
    /// is not counted as its failure, and a resume probes it.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.level() > Level::Run
    }

    /// Waits until the run is asked to stop.
    pub async fn cancelled(&self) {
        self.cancel.reached(Level::Park).await;
    }

    /// Waits, by the run's clock.
    pub fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.clock.sleep(duration)
    }

    /// Time since some fixed moment, for time limits.
    pub fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Counts bytes that move on behalf of a step and tells the run's events.
pub struct Counter<'a> {
    cx: &'a StepCx<'a>,
    what: String,
    done: AtomicU64,
    cached: AtomicU64,
    total: Mutex<Option<u64>>,
}

impl Counter<'_> {
    /// That many more bytes moved.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    /// That many bytes were there already; they count as done.
    pub fn cached(&self, bytes: u64) {
        self.cached.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes);
    }

    /// The total, once known.
    pub fn total(&self, bytes: u64) {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        self.tell();
    }

    fn tell(&self) {
        let total = *self.total.lock().unwrap_or_else(PoisonError::into_inner);
        let (done, cached) = (self.done.load(Ordering::Relaxed), self.cached.load(Ordering::Relaxed));
        self.cx.bytes(&self.what, done, total, cached);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meters_on_other_threads_may_report_through_it() {
        fn crosses_threads<T: Send + Sync>() {}
        crosses_threads::<StepCx<'_>>();
        crosses_threads::<Counter<'_>>();
    }
}
