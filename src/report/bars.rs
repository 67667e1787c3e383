//! A run on a terminal: a line per running step that moves, and lasting lines above for what is over.
//!
//! Must not know: whether this is a terminal; on anything else indicatif draws nothing, and `cli` takes
//! [`Lines`](super::Lines).

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::colour::{Colour, Tone};
use super::text;
use crate::event::{Event, EventSink, Failure, How, Outcome};
use crate::types::StepId;

/// How often spinners turn.
const TICK: Duration = Duration::from_millis(120);

const SPINNER: &str = "  {spinner} {wide_msg} {elapsed}";
const BYTES: &str = "      {msg:8} [{bar:20}] {bytes} of {total_bytes}, {binary_bytes_per_sec}, {eta} left";
const BYTES_UNTIL_THE_END: &str = "      {msg:8} {bytes}, {binary_bytes_per_sec}";

/// Draws a run with bars on stderr.
pub struct Bars {
    multi: MultiProgress,
    colour: Colour,
    rows: Mutex<BTreeMap<StepId, Row>>,
}

struct Row {
    bar: ProgressBar,
    title: String,
    /// A line below it for each thing that moves, while bytes do.
    moving: Vec<(String, ProgressBar)>,
}

impl Bars {
    /// On stderr, at most ten times a second.
    pub fn stderr(colour: Colour) -> Self {
        Self::on(ProgressDrawTarget::stderr_with_hz(10), colour)
    }

    fn on(target: ProgressDrawTarget, colour: Colour) -> Self {
        Self { multi: MultiProgress::with_draw_target(target), colour, rows: Mutex::default() }
    }

    /// Runs `talk` (a question, a warning) with the bars out of the way.
    pub fn suspend<T>(&self, talk: impl FnOnce() -> T) -> T {
        self.multi.suspend(talk)
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<StepId, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, line: &str) {
        // Nobody is left to hear that a terminal is gone.
        let _ = self.multi.println(line);
    }

    fn begin(&self, step: &StepId, title: String) {
        let bar = self.multi.add(ProgressBar::no_length().with_style(style(SPINNER)).with_message(title.clone()));
        bar.enable_steady_tick(TICK);
        self.rows().insert(step.clone(), Row { bar, title, moving: Vec::new() });
    }

    /// Takes the step's line away and gives its title.
    fn end(&self, step: &StepId) -> String {
        let Some(row) = self.rows().remove(step) else { return step.to_string() };
        for bar in row.moving.iter().map(|(_, bar)| bar).chain([&row.bar]) {
            bar.finish_and_clear();
            self.multi.remove(bar);
        }
        row.title
    }

    fn message(&self, step: &StepId, of: impl FnOnce(&str) -> String) {
        if let Some(row) = self.rows().get_mut(step) {
            row.bar.set_message(of(&row.title));
        }
    }

    fn bytes(&self, step: &StepId, moved: &Moved<'_>) {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(step) else { return };
        let known = row.moving.iter().position(|(what, _)| what == moved.what);
        let index = known.unwrap_or_else(|| {
            let after = row.moving.last().map_or(&row.bar, |(_, bar)| bar);
            let shape = style(if moved.total.is_some() { BYTES } else { BYTES_UNTIL_THE_END });
            let bar = self.multi.insert_after(after, ProgressBar::no_length().with_style(shape));
            bar.set_message(moved.what.to_owned());
            // What was there already says nothing about the rate.
            bar.set_position(moved.cached);
            bar.reset_eta();
            row.moving.push((moved.what.to_owned(), bar));
            row.moving.len() - 1
        });
        let bar = &row.moving[index].1;
        if let Some(total) = moved.total {
            bar.set_length(total);
        }
        bar.set_position(moved.done);
    }

    fn closed(&self, outcome: Outcome) {
        for (_, row) in std::mem::take(&mut *self.rows()) {
            row.moving.iter().for_each(|(_, bar)| bar.finish_and_clear());
            row.bar.finish_and_clear();
        }
        let tone = if outcome == Outcome::Done { Tone::Good } else { Tone::Bad };
        self.say(&self.colour.paint(tone, &format!("Run {outcome}")));
    }
}

struct Moved<'a> {
    what: &'a str,
    done: u64,
    total: Option<u64>,
    cached: u64,
}

impl EventSink for Bars {
    fn emit(&self, event: Event) {
        let colour = self.colour;
        match event {
            Event::RunOpened { run, cluster, verb, resumed } => {
                let goes_on = if resumed { ", resumed" } else { "" };
                self.say(&colour.paint(Tone::Strong, &format!("Run {run}: {verb} of {cluster}{goes_on}")));
            }
            Event::PhaseStarted { phase, .. } => self.say(&colour.paint(Tone::Strong, &phase)),
            Event::PhaseFinished { phase, seconds } => {
                self.say(&colour.paint(Tone::Faint, &format!("{phase} took {}", text::seconds(seconds))));
            }
            Event::PhaseReopened { phase, because } => {
                self.say(&colour.paint(Tone::Warn, &format!("{phase} begins again: {because}")));
            }
            Event::StepStarted { step, title } => self.begin(&step, title),
            Event::Undoing { step, title } => self.begin(&step, format!("undo: {title}")),
            Event::Bytes { step, what, done, total, cached } => {
                self.bytes(&step, &Moved { what: &what, done, total, cached });
            }
            Event::Waiting { step, on, last } => self.message(&step, |title| {
                let last = last.map(|last| format!(" ({last})")).unwrap_or_default();
                format!("{title} · waits for {on}{last}")
            }),
            Event::Retrying { step, attempt, in_seconds, because } => self.message(&step, |title| {
                format!("{title} · attempt {attempt} in {}: {because}", text::seconds(in_seconds))
            }),
            Event::StepFinished { step, how, seconds } => {
                let how = match how {
                    How::Applied => "",
                    How::AlreadyDone => "was already done, ",
                    How::Skipped => "not needed, ",
                };
                let tail = colour.paint(Tone::Faint, &format!("{how}{}", text::seconds(seconds)));
                let title = self.end(&step);
                self.say(&format!("  {} {title}  {tail}", colour.paint(Tone::Good, "✓")));
            }
            Event::Undone { step, seconds } => {
                let title = self.end(&step);
                let tail = colour.paint(Tone::Faint, &text::seconds(seconds));
                self.say(&format!("  {} {title}  {tail}", colour.paint(Tone::Good, "✓")));
            }
            Event::StepFailed { step, failure, .. } | Event::UndoFailed { step, failure } => {
                let title = self.end(&step);
                self.say(&format!("  {} {title}: {}", colour.paint(Tone::Bad, "✗"), first_line(&failure)));
            }
            Event::ApiProbe { up } => {
                let (mark, verb) = if up {
                    (colour.paint(Tone::Good, "↑"), "answers")
                } else {
                    (colour.paint(Tone::Warn, "↓"), "does not answer")
                };
                self.say(&format!("  {mark} the Kubernetes API {verb}"));
            }
            Event::Parking { by, grace_seconds } => {
                let grace = text::seconds(grace_seconds);
                let line = format!("{by}: no step starts any more, running ones get {grace} (once more: stop now)");
                self.say(&colour.paint(Tone::Warn, &line));
            }
            Event::Notice { text } => self.say(&format!("  {} {text}", colour.paint(Tone::Warn, "!"))),
            Event::RunClosed { outcome, .. } => self.closed(outcome),
        }
    }
}

/// The whole of it is told at the end.
fn first_line(failure: &Failure) -> &str {
    failure.what.lines().next().unwrap_or_default()
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test draws each of them.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .progress_chars("━╸ ")
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use indicatif::TermLike;

    use super::super::sample;
    use super::*;

    /// A terminal that remembers all that was ever written.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl Paper {
        fn text(&self) -> String {
            self.0.lock().unwrap().clone()
        }
    }

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            120
        }
        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }
        fn write_line(&self, line: &str) -> io::Result<()> {
            self.write_str(line)?;
            self.write_str("\n")
        }
        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }
        fn clear_line(&self) -> io::Result<()> {
            Ok(())
        }
        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn templates_are_valid() {
        for template in [SPINNER, BYTES, BYTES_UNTIL_THE_END] {
            ProgressStyle::with_template(template).unwrap();
        }
    }

    #[test]
    fn what_is_over_stays_and_nothing_is_left_running() {
        let paper = Paper::default();
        let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
        let bars = Bars::on(target, Colour::Off);
        for (_, event) in sample::failed_events() {
            bars.emit(event);
        }
        let text = paper.text();
        for line in [
            "Run 2026-11-20T22-31-05: rebuild of single",
            "  ✓ fetch Talos v1.13.9 (ce4c9805)  4.3 s",
            "image took 4.3 s",
            "  ✓ create VM 900  was already done, 0.1 s",
            "  ✗ start VM 1101 (single-cp-01): could not start VM 1101 on node pve1",
            "  ✓ undo: delete VM 900  0.5 s",
            "Run failed",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(bars.rows().is_empty());
    }
}
