//! A run as plain lines, for logs and for people without a terminal.
//!
//! Purpose: one line where something begins, ends or goes wrong, and now and then one in between.
//! Must not know: where the lines go.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};

use super::colour::{Colour, Tone};
use super::throttle::Throttle;
use super::{Now, text};
use crate::event::{Event, EventSink, Failure, How, Outcome};
use crate::types::StepId;

/// How often a step's bytes are told.
const BYTES_EVERY: SignedDuration = SignedDuration::from_secs(2);
/// How often it is told that a step waits for something else.
const WAITING_EVERY: SignedDuration = SignedDuration::from_secs(5);
/// Transfers below this size are told only by the line that says that their step is done.
const TINY: u64 = 4 << 20;

/// Writes a line per event worth one. Write errors are ignored: nobody is left to hear of them.
pub struct Lines<W> {
    now: Now,
    page: Mutex<Page<W>>,
}

struct Page<W> {
    out: W,
    colour: Colour,
    steps: BTreeMap<StepId, Shown>,
    bytes: Throttle,
    waiting: Throttle,
}

/// What is known of a step that runs.
struct Shown {
    title: String,
    waits: Option<(String, Option<String>)>,
    /// By what moves, in the order in which it began.
    moved: Vec<Moved>,
}

impl Shown {
    fn of(title: &str) -> Self {
        Self { title: title.to_owned(), waits: None, moved: Vec::new() }
    }
}

struct Moved {
    since: Timestamp,
    what: String,
    done: u64,
    cached: u64,
}

impl<W: Write + Send> Lines<W> {
    /// Into `out`; `now` is for rates and for not telling too often.
    pub fn new(out: W, colour: Colour, now: Now) -> Self {
        let page = Page {
            out,
            colour,
            steps: BTreeMap::new(),
            bytes: Throttle::new(BYTES_EVERY),
            waiting: Throttle::new(WAITING_EVERY),
        };
        Self { now, page: Mutex::new(page) }
    }

    /// What was written into.
    pub fn into_inner(self) -> W {
        self.page.into_inner().unwrap_or_else(PoisonError::into_inner).out
    }

    /// Shows one event as of a moment: how a past run is shown.
    pub fn show(&self, at: Timestamp, event: &Event) {
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = page.line(at, event) {
            let _ = writeln!(page.out, "{line}").and_then(|()| page.out.flush());
        }
    }
}

impl<W: Write + Send> EventSink for Lines<W> {
    fn emit(&self, event: Event) {
        self.show((self.now)(), &event);
    }
}

impl<W> Page<W> {
    fn line(&mut self, at: Timestamp, event: &Event) -> Option<String> {
        let colour = self.colour;
        let line = match event {
            Event::RunOpened { run, cluster, verb, resumed } => {
                let goes_on = if *resumed { ", resumed" } else { "" };
                colour.paint(Tone::Strong, &format!("Run {run}: {verb} of {cluster}{goes_on}"))
            }
            Event::PhaseStarted { phase, steps } => {
                format!("{} ({})", colour.paint(Tone::Strong, phase), text::count(*steps, "step"))
            }
            Event::PhaseFinished { phase, seconds } => {
                format!("{} is done, {}", colour.paint(Tone::Strong, phase), text::seconds(*seconds))
            }
            Event::StepStarted { step, title } => {
                self.steps.insert(step.clone(), Shown::of(title));
                format!("  · {title}")
            }
            Event::PhaseReopened { phase, because } => {
                colour.paint(Tone::Warn, &format!("{phase} begins again: {because}"))
            }
            Event::Bytes { step, what, done, total, cached } => {
                let moved = Bytes { what, done: *done, total: *total, cached: *cached };
                return self.bytes(at, step, &moved);
            }
            Event::Waiting { step, on, last } => return self.waiting(at, step, on, last.as_deref()),
            Event::Retrying { step, attempt, in_seconds, because } => {
                let title = self.title(step);
                let when =
                    if *in_seconds > 0.0 { format!(" in {}", text::seconds(*in_seconds)) } else { String::new() };
                let retry = colour.paint(Tone::Warn, &format!("attempt {attempt} follows{when}"));
                format!("  ↻ {title}: {retry}: {because}")
            }
            Event::StepFinished { step, how, seconds } => self.finished(step, *how, *seconds),
            Event::StepFailed { step, failure, .. } => {
                let shown = self.end(step);
                format!("  {} {}: {}", colour.paint(Tone::Bad, "✗"), shown.title, in_line(failure))
            }
            Event::Undoing { step, title } => {
                self.steps.insert(step.clone(), Shown::of(title));
                format!("  ↶ undo: {title}")
            }
            Event::Undone { step, seconds } => {
                let shown = self.end(step);
                format!("  {} undone: {}, {}", colour.paint(Tone::Good, "✓"), shown.title, text::seconds(*seconds))
            }
            Event::UndoFailed { step, failure } => {
                let shown = self.end(step);
                format!("  {} undo: {}: {}", colour.paint(Tone::Bad, "✗"), shown.title, in_line(failure))
            }
            Event::ApiProbe { up: true } => format!("  {} the Kubernetes API answers", colour.paint(Tone::Good, "↑")),
            Event::ApiProbe { up: false } => {
                format!("  {} the Kubernetes API does not answer", colour.paint(Tone::Warn, "↓"))
            }
            Event::Parking { by, grace_seconds } => colour.paint(
                Tone::Warn,
                &format!(
                    "{by}: no step starts any more, running ones get {} (once more: stop now)",
                    text::seconds(*grace_seconds)
                ),
            ),
            Event::Notice { text } => format!("  {} {text}", colour.paint(Tone::Warn, "!")),
            Event::RunClosed { outcome, api_downtime_seconds } => {
                let tone = if *outcome == Outcome::Done { Tone::Good } else { Tone::Bad };
                let down = api_downtime_seconds
                    .map(|down| format!(", the Kubernetes API was down for {}", text::seconds(down)))
                    .unwrap_or_default();
                format!("Run {}{down}", colour.paint(tone, outcome.word()))
            }
        };
        Some(line)
    }

    fn title(&self, step: &StepId) -> String {
        self.steps.get(step).map_or_else(|| step.to_string(), |shown| shown.title.clone())
    }

    fn end(&mut self, step: &StepId) -> Shown {
        self.waiting.forget(step);
        let shown = self.steps.remove(step).unwrap_or_else(|| Shown::of(step.as_str()));
        for moved in &shown.moved {
            self.bytes.forget(&StepId::new(format!("{step} {}", moved.what)));
        }
        shown
    }

    fn finished(&mut self, step: &StepId, how: How, seconds: f64) -> String {
        let shown = self.end(step);
        // What came or went first stands for all of it.
        let moved = shown
            .moved
            .iter()
            .find(|moved| moved.done > moved.cached)
            .map(|moved| format!(", {} {}", moved.what, text::bytes(moved.done - moved.cached)))
            .unwrap_or_default();
        let how = match how {
            How::Applied => "",
            How::AlreadyDone => ", was already done",
            How::Skipped => ", not needed",
        };
        let mark = self.colour.paint(Tone::Good, "✓");
        let tail = self.colour.paint(Tone::Faint, &format!("{how}{moved}, {}", text::seconds(seconds)));
        format!("  {mark} {}{tail}", shown.title)
    }

    fn bytes(&mut self, at: Timestamp, step: &StepId, now: &Bytes<'_>) -> Option<String> {
        let shown = self.steps.entry(step.clone()).or_insert_with(|| Shown::of(step.as_str()));
        // Download and decode of one image go on side by side: each has its own rate and its own interval.
        let of = StepId::new(format!("{step} {}", now.what));
        let at_first = Moved { since: at, what: now.what.to_owned(), done: 0, cached: 0 };
        let index = shown.moved.iter().position(|moved| moved.what == now.what).unwrap_or_else(|| {
            shown.moved.push(at_first);
            shown.moved.len() - 1
        });
        let moved = &mut shown.moved[index];
        (moved.done, moved.cached) = (now.done, now.cached);
        // What was there when this transfer began says nothing about its rate.
        let since = moved.since;
        self.bytes.begin(&of, at);
        if now.total.unwrap_or(now.done) < TINY || !self.bytes.admits(&of, at) {
            return None;
        }
        let fresh = now.done.saturating_sub(now.cached);
        let rate = text::rate(fresh, at.duration_since(since).as_secs_f64()).filter(|rate| *rate > 0);
        let mut line = format!("    {}: {} {}", self.title(step), now.what, text::bytes(now.done));
        if let Some(total) = now.total {
            let _ = write!(line, " of {}", text::bytes(total));
        }
        if let Some(rate) = rate {
            let _ = write!(line, ", {}/s", text::bytes(rate));
            if let Some(total) = now.total.filter(|total| *total > now.done) {
                #[expect(clippy::cast_precision_loss, reason = "an estimate")]
                let left = (total - now.done) as f64 / rate as f64;
                let _ = write!(line, ", {} left", text::seconds(left));
            }
        }
        Some(line)
    }

    fn waiting(&mut self, at: Timestamp, step: &StepId, on: &str, last: Option<&str>) -> Option<String> {
        let shown = self.steps.entry(step.clone()).or_insert_with(|| Shown::of(step.as_str()));
        let waits = (on.to_owned(), last.map(str::to_owned));
        if shown.waits.as_ref() == Some(&waits) || !self.waiting.admits(step, at) {
            return None;
        }
        shown.waits = Some(waits);
        let last = last.map(|last| format!(" ({last})")).unwrap_or_default();
        Some(format!("    {}: waits for {on}{last}", self.title(step)))
    }
}

struct Bytes<'a> {
    what: &'a str,
    done: u64,
    total: Option<u64>,
    cached: u64,
}

/// What failed and why, in one line; the whole of it is told at the end.
fn in_line(failure: &Failure) -> String {
    let innermost = failure.causes.last().filter(|cause| !failure.what.contains(cause.as_str()));
    let whole = innermost.map_or_else(|| failure.what.clone(), |cause| format!("{}: {cause}", failure.what));
    whole.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn shown(events: &[(i64, Event)]) -> String {
        let lines = Lines::new(Vec::new(), Colour::Off, sample::at(0));
        for (millis, event) in events {
            lines.show(sample::moment(*millis), event);
        }
        String::from_utf8(lines.into_inner()).unwrap()
    }

    fn bytes(done: u64, total: u64) -> Event {
        Event::Bytes { step: "image/fetch".into(), what: "download".into(), done, total: Some(total), cached: 0 }
    }

    fn waiting(last: &str) -> Event {
        Event::Waiting { step: "boot".into(), on: "the API".into(), last: Some(last.into()) }
    }

    #[test]
    fn a_failed_run_reads_as_a_log() {
        insta::assert_snapshot!(shown(&sample::failed_events()), @r#"
        Run 2026-11-20T22-31-05: rebuild of single
        image (1 step)
          · fetch Talos v1.13.9 (ce4c9805)
            fetch Talos v1.13.9 (ce4c9805): download 40.0 MiB of 100.0 MiB, 20.0 MiB/s, 3.0 s left
            fetch Talos v1.13.9 (ce4c9805): download 100.0 MiB of 100.0 MiB, 24.4 MiB/s
          ! The lock has no digest for this image: it is pinned now.
          ✓ fetch Talos v1.13.9 (ce4c9805), download 100.0 MiB, 4.3 s
        image is done, 4.3 s
        template (1 step)
          · create VM 900
          ✓ create VM 900, was already done, 0.1 s
        template is done, 0.1 s
          ↓ the Kubernetes API does not answer
          · start VM 1101 (single-cp-01)
            start VM 1101 (single-cp-01): waits for task qmstart
          ↻ start VM 1101 (single-cp-01): attempt 2 follows in 1.5 s: connection reset
          ✗ start VM 1101 (single-cp-01): could not start VM 1101 on node pve1: no space left
          ↶ undo: delete VM 900
          ✓ undone: delete VM 900, 0.5 s
        Run failed, the Kubernetes API was down for 4.5 s
        "#);
    }

    #[test]
    fn bytes_are_told_every_two_seconds_and_tiny_transfers_never() {
        let events: Vec<(i64, Event)> = (0_u32..50)
            .map(|tick| (i64::from(tick) * 100, bytes(u64::from(tick) << 20, 64 << 20)))
            .chain((0_u32..50).map(|tick| (6000 + i64::from(tick) * 100, bytes(u64::from(tick), 1 << 20))))
            .collect();
        assert_eq!(
            shown(&events),
            "    image/fetch: download 20.0 MiB of 64.0 MiB, 10.0 MiB/s, 4.4 s left\n    image/fetch: download 40.0 MiB of 64.0 MiB, 10.0 MiB/s, 2.4 s left\n"
        );
    }

    #[test]
    fn waiting_is_told_at_once_and_its_changes_every_five_seconds() {
        let events = [(0, "refused"), (1000, "refused"), (2000, "reset"), (5000, "reset"), (11000, "reset")];
        let events: Vec<(i64, Event)> = events.map(|(at, last)| (at, waiting(last))).into();
        assert_eq!(shown(&events), "    boot: waits for the API (refused)\n    boot: waits for the API (reset)\n");
    }
}
