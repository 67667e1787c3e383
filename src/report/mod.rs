//! Shows runs: to people on a terminal or in a log, to programs as JSON.
//!
//! Purpose: every renderer is an [`EventSink`] or a pure function of a [`Plan`](crate::plan::Plan) and a [`Progress`].
//! A past run goes through the same renderers: [`Replay`] turns its journal into the events it had.
//! Must not know: engine, clients, files other than a report's own; who decides which renderer is used (`cli` does).
//! Start reading at [`Progress`], then [`document`] and [`summary`]. While a run goes on: [`Bars`], [`Lines`],
//! [`JsonLines`]. For those who were not there: [`Report`], as [`junit`], [`markdown`] and [`html`].

mod bars;
mod colour;
pub mod document;
mod files;
mod fold;
mod gate;
mod html;
mod jsonl;
mod junit;
mod lines;
mod markdown;
mod outputs;
pub mod problem;
mod replay;
mod sheet;
mod standing;
pub mod status;
pub mod summary;
mod text;
mod throttle;

#[cfg(test)]
mod sample;

pub use bars::Bars;
pub use colour::Colour;
pub use document::Document;
pub use files::{ReportError, write_report, write_whole};
pub use fold::{Fold, PhaseDone, Progress, Recorder, StepBegun, StepDone, StepFailure, progress_of};
pub use html::html;
pub use jsonl::JsonLines;
pub use junit::junit;
pub use lines::Lines;
pub use markdown::markdown;
pub use replay::{Replay, replay};
pub use sheet::{Report, Told};
pub use summary::Summary;

use jiff::Timestamp;

use crate::event::{Event, EventSink};

/// What tells renderers the time: [`Timestamp::now`], or a test's own idea of it.
pub type Now = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The wall clock.
pub fn wall_clock() -> Now {
    Box::new(Timestamp::now)
}

/// Passes every event to several sinks, in order.
#[derive(Default)]
pub struct Fanout<'a> {
    sinks: Vec<Box<dyn EventSink + 'a>>,
}

impl<'a> Fanout<'a> {
    /// Passes to nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// And to this one. A sink that is needed afterwards (a [`Recorder`]) goes in as a reference.
    #[must_use]
    pub fn and(mut self, sink: impl EventSink + 'a) -> Self {
        self.sinks.push(Box::new(sink));
        self
    }
}

impl EventSink for Fanout<'_> {
    fn emit(&self, event: Event) {
        if let Some((last, others)) = self.sinks.split_last() {
            for sink in others {
                sink.emit(event.clone());
            }
            last.emit(event);
        }
    }
}
