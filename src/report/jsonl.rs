//! A run as JSON lines, for programs: `{"format":1,"at":"…","event":"step-started",…}`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::Now;
use super::throttle::Throttle;
use crate::event::{Event, EventSink, Stamped};
use crate::types::StepId;

/// How often a step's bytes and waits are told: five times a second.
const EVERY: SignedDuration = SignedDuration::from_millis(200);

/// Writes every event as one line, flushed. Bytes and waits of a step pass at most five times a second; the last of
/// them is always written before the step's end.
pub struct JsonLines<W> {
    now: Now,
    page: Mutex<Page<W>>,
}

struct Page<W> {
    out: W,
    bytes: Throttle,
    waiting: Throttle,
    /// What is not told yet: bytes by what moves, and what is waited for.
    held: BTreeMap<StepId, (BTreeMap<String, Stamped>, Option<Stamped>)>,
    error: Option<io::Error>,
}

impl<W: Write + Send> JsonLines<W> {
    /// Into `out`.
    pub fn new(out: W, now: Now) -> Self {
        let (bytes, waiting) = (Throttle::new(EVERY), Throttle::new(EVERY));
        Self { now, page: Mutex::new(Page { out, bytes, waiting, held: BTreeMap::new(), error: None }) }
    }

    /// Writes one event as of a moment: how a past run is shown.
    pub fn show(&self, at: Timestamp, event: Event) {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).take(Stamped::new(at, event));
    }

    /// The first error of a write, once: no line was written after it.
    pub fn take_error(&self) -> Option<io::Error> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner).error.take()
    }

    /// What was written into.
    pub fn into_inner(self) -> W {
        self.page.into_inner().unwrap_or_else(PoisonError::into_inner).out
    }
}

impl<W: Write + Send> EventSink for JsonLines<W> {
    fn emit(&self, event: Event) {
        self.show((self.now)(), event);
    }
}

impl<W: Write> Page<W> {
    fn take(&mut self, stamped: Stamped) {
        match &stamped.event {
            Event::Bytes { step, what, .. } => {
                let held = &mut self.held.entry(step.clone()).or_default().0;
                if self.bytes.admits(&StepId::new(format!("{step} {what}")), stamped.at) {
                    held.remove(what);
                } else {
                    held.insert(what.clone(), stamped);
                    return;
                }
            }
            Event::Waiting { step, .. } => {
                let held = &mut self.held.entry(step.clone()).or_default().1;
                if self.waiting.admits(step, stamped.at) {
                    *held = None;
                } else {
                    *held = Some(stamped);
                    return;
                }
            }
            Event::StepFinished { step, .. }
            | Event::StepFailed { step, .. }
            | Event::Retrying { step, .. }
            | Event::Undone { step, .. }
            | Event::UndoFailed { step, .. } => {
                let step = step.clone();
                self.release(&step);
            }
            Event::RunClosed { .. } => {
                let steps: Vec<StepId> = self.held.keys().cloned().collect();
                for step in &steps {
                    self.release(step);
                }
            }
            _ => {}
        }
        self.write(&stamped);
    }

    /// Writes what was held back of a step, oldest first.
    fn release(&mut self, step: &StepId) {
        let (bytes, waiting) = self.held.remove(step).unwrap_or_default();
        let mut held: Vec<Stamped> = bytes.into_values().chain(waiting).collect();
        held.sort_by_key(|stamped| stamped.at);
        for stamped in &held {
            self.write(stamped);
        }
        self.bytes.forget(step);
        self.waiting.forget(step);
    }

    fn write(&mut self, stamped: &Stamped) {
        if self.error.is_some() {
            return;
        }
        let written = serde_json::to_string(stamped)
            .map_err(io::Error::from)
            .and_then(|line| writeln!(self.out, "{line}"))
            .and_then(|()| self.out.flush());
        self.error = written.err();
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;
    use crate::event::How;

    #[test]
    fn lines_are_stamped_events_that_can_be_read_back() {
        let lines = JsonLines::new(Vec::new(), sample::at(0));
        let events = sample::failed_events();
        for (millis, event) in &events {
            lines.show(sample::moment(*millis), event.clone());
        }
        let text = String::from_utf8(lines.into_inner()).unwrap();
        let first = text.lines().next().unwrap();
        insta::assert_snapshot!(first, @r#"{"format":1,"at":"2026-11-20T22:31:05Z","event":"run-opened","run":"2026-11-20T22-31-05","cluster":"single","verb":"rebuild","resumed":false}"#);
        let read: Vec<Event> = text.lines().map(|line| serde_json::from_str::<Stamped>(line).unwrap().event).collect();
        let told: Vec<Event> = events.into_iter().map(|(_, event)| event).collect();
        assert_eq!(read, told);
    }

    #[test]
    fn bytes_pass_five_times_a_second_and_the_last_before_the_end() {
        let lines = JsonLines::new(Vec::new(), sample::at(0));
        let step = StepId::new("image/fetch");
        for tick in 0..100 {
            let done = u64::try_from(tick).unwrap();
            let event = Event::Bytes { step: step.clone(), what: "download".into(), done, total: None, cached: 0 };
            lines.show(sample::moment(tick * 10), event);
        }
        lines.show(sample::moment(1000), Event::StepFinished { step, how: How::Applied, seconds: 1.0 });
        let text = String::from_utf8(lines.into_inner()).unwrap();
        let done: Vec<u64> = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["done"].as_u64())
            .collect();
        assert_eq!(done, [0, 20, 40, 60, 80, 99]);
    }

    #[test]
    fn a_full_disk_is_told_once() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = JsonLines::new(Full, sample::at(0));
        lines.show(sample::moment(0), Event::ApiProbe { up: true });
        assert_eq!(lines.take_error().map(|error| error.kind()), Some(io::ErrorKind::StorageFull));
    }
}
