//! The page's timeline: phases and steps as bars over the run's seconds, the Kubernetes API's downtime as a band.
//!
//! Bars are placed by percentages in CSS variables: they scale with the page, and every one stands beside its title and
//! its seconds as text.

use std::fmt::Write as _;

use super::super::sheet::{PhaseRow, Sheet, State, StepRow};
use super::super::text;
use super::{escaped, glyph, lines};

/// Up to so many steps all phases are unfolded; above, only those that did not end well.
const UNFOLDED: usize = 12;

/// The section; nothing without phases.
pub(super) fn timeline(sheet: &Sheet<'_>, out: &mut String) {
    if sheet.phases.is_empty() {
        return;
    }
    let axis = Axis { end: sheet.end().max(0.001) };
    let steps: usize = sheet.phases.iter().map(|phase| phase.steps.len()).sum();
    out.push_str("<section aria-labelledby=\"timeline\">\n<h2 id=\"timeline\">Phases</h2>\n<div class=\"timeline\">\n");
    axis.ticks(out);
    bands(sheet, &axis, out);
    out.push_str("<ol class=\"phases\">\n");
    for phase in &sheet.phases {
        let open = steps <= UNFOLDED || !(phase.state.holds() || phase.state == State::Waiting);
        of_phase(phase, &axis, open, out);
    }
    out.push_str("</ol>\n</div>\n");
    legend(sheet, out);
    out.push_str("</section>\n");
}

struct Axis {
    end: f64,
}

impl Axis {
    /// A share of the width, in percent.
    fn at(&self, second: f64) -> f64 {
        (second / self.end * 100.0).clamp(0.0, 100.0)
    }

    /// From here so far; never so narrow that it can't be seen.
    fn span(&self, start: f64, seconds: f64) -> String {
        let from = self.at(start).min(99.5);
        let width = self.at(seconds).max(0.3).min(100.0 - from);
        format!("--from:{from:.3};--len:{width:.3}")
    }

    /// Round seconds, a handful of them.
    fn ticks(&self, out: &mut String) {
        const STEPS: [f64; 14] =
            [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0];
        let step = STEPS.into_iter().find(|step| self.end / step <= 6.0).unwrap_or(self.end / 6.0);
        out.push_str("<div class=\"axis\" aria-hidden=\"true\">");
        let mut second = 0.0;
        while second <= self.end {
            let _ = write!(out, "<span style=\"--from:{:.3}\">{}</span>", self.at(second), tick(second));
            second += step;
        }
        out.push_str("</div>\n");
    }
}

/// `30 s`, `2 min`, `1:30 min`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds, never negative")]
fn tick(second: f64) -> String {
    let whole = second.round() as u64;
    match (whole / 60, whole % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, 0) => format!("{minutes} min"),
        (minutes, seconds) => format!("{minutes}:{seconds:02}"),
    }
}

/// When the Kubernetes API was down, and where the run went on in another process.
fn bands(sheet: &Sheet<'_>, axis: &Axis, out: &mut String) {
    let Some(progress) = sheet.progress else { return };
    for (from, until) in &progress.api_down {
        let until = until.unwrap_or(sheet.end());
        let _ = writeln!(
            out,
            "<div class=\"band\" style=\"{}\" aria-hidden=\"true\"></div>",
            axis.span(*from, (until - from).max(0.0))
        );
    }
    for resumed in &progress.resumed {
        let from = axis.at(*resumed);
        let _ = writeln!(out, "<div class=\"seam\" style=\"--from:{from:.3}\" aria-hidden=\"true\"></div>");
    }
}

fn of_phase(phase: &PhaseRow<'_>, axis: &Axis, open: bool, out: &mut String) {
    let open = if open { " open=\"open\"" } else { "" };
    let destructive = if phase.steps.iter().any(|step| step.destructive) { " destructive" } else { "" };
    let _ = write!(out, "<li class=\"phase {}{destructive}\"><details{open}><summary>", class(phase.state));
    row(phase.state, phase.name, "", axis, phase.start, phase.seconds, out);
    out.push_str("</summary>\n<ol class=\"steps\">\n");
    for step in &phase.steps {
        of_step(step, axis, out);
    }
    let why = phase.hindrance().map(|why| format!(": {}", escaped(&why))).unwrap_or_default();
    let verdict = if phase.state.holds() { "holds" } else { "does not hold" };
    let sign = if phase.state.holds() { "✓" } else { "·" };
    let _ = writeln!(
        out,
        "</ol>\n<p class=\"gate\"><span class=\"sign\" aria-hidden=\"true\">{sign}</span> <span>gate {verdict}{why} \
         <q>{}</q></span></p>\n</details></li>",
        phase.gate
    );
}

fn of_step(step: &StepRow<'_>, axis: &Axis, out: &mut String) {
    let destructive = if step.destructive { " destructive" } else { "" };
    let _ = write!(out, "<li class=\"step {}{destructive}\">", class(step.state));
    let seconds = step.start.map(|_| step.seconds);
    row(step.state, &step.title, step.id, axis, step.start, seconds, out);
    if let Some(failed) = step.failure {
        let _ = write!(out, "<p class=\"why\">{}</p>", lines(&failed.failure.what));
    }
    out.push_str("</li>\n");
}

/// Sign and title, bar, seconds.
fn row(state: State, title: &str, id: &str, axis: &Axis, start: Option<f64>, seconds: Option<f64>, out: &mut String) {
    let tip = if id.is_empty() { String::new() } else { format!(" title=\"{}\"", escaped(id)) };
    let bar = start.zip(seconds).map_or_else(String::new, |(start, seconds)| {
        format!("<span class=\"bar\" style=\"{}\"></span>", axis.span(start, seconds))
    });
    let lasted = seconds.map_or_else(|| "–".to_owned(), text::seconds);
    let _ = write!(
        out,
        "<span class=\"row\"><span class=\"name\"{tip}><span class=\"sign\" aria-hidden=\"true\">{}</span><span>{}\
         <span class=\"hidden\"> ({})</span></span></span><span class=\"track\">{bar}</span><span class=\"lasted\">{lasted}</span></span>",
        glyph(state),
        escaped(title),
        state.word()
    );
}

fn class(state: State) -> &'static str {
    match state {
        State::Done => "done",
        State::Already | State::NotNeeded => "already",
        State::Failed => "failed",
        State::Refused => "refused",
        State::Unknown => "unknown",
        State::Waiting => "waiting",
    }
}

fn legend(sheet: &Sheet<'_>, out: &mut String) {
    let has =
        |state: fn(State) -> bool| sheet.phases.iter().flat_map(|phase| &phase.steps).any(|step| state(step.state));
    let mut parts = vec![("bar done", "✓ done".to_owned())];
    if has(|state| matches!(state, State::Already | State::NotNeeded)) {
        parts.push(("bar already", "= found done, – not needed".to_owned()));
    }
    if sheet.phases.iter().flat_map(|phase| &phase.steps).any(|step| step.destructive) {
        parts.push(("bar destructive", "stops or deletes what was there before".to_owned()));
    }
    if has(|state| matches!(state, State::Failed | State::Refused)) {
        parts.push(("bar failed", "✗ failed, ⊘ refused by a gate".to_owned()));
    }
    if has(|state| state == State::Unknown) {
        parts.push(("bar unknown", "? begun, outcome unknown".to_owned()));
    }
    let down = sheet.work.and_then(|work| work.api_downtime_seconds).filter(|seconds| *seconds > 0.0);
    if let Some(down) = down {
        parts.push(("swatch", format!("Kubernetes API down, {}", text::seconds(down))));
    }
    if sheet.progress.is_some_and(|progress| !progress.resumed.is_empty()) {
        parts.push(("stitch", "resumed; the time between is left out".to_owned()));
    }
    parts.push(("chevron", "select a phase to see its steps".to_owned()));
    out.push_str("<ul class=\"legend\">");
    for (class, what) in parts {
        let _ = write!(out, "<li><span class=\"{class}\" aria-hidden=\"true\"></span> {}</li>", escaped(&what));
    }
    out.push_str("</ul>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stay_on_the_axis_whatever_a_clock_says() {
        let axis = Axis { end: 7.1 };
        assert_eq!(axis.span(0.0, 7.1), "--from:0.000;--len:100.000");
        assert_eq!(axis.span(7.1, 0.0), "--from:99.500;--len:0.300");
        assert_eq!(axis.span(9.0, 3.0), "--from:99.500;--len:0.500");
        assert_eq!(axis.span(-1.0, 0.0), "--from:0.000;--len:0.300");
    }

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |end: f64| {
            let mut out = String::new();
            Axis { end }.ticks(&mut out);
            (out.matches("<span").count(), out)
        };
        for end in [0.001, 0.4, 7.1, 59.0, 95.0, 600.0, 4000.0, 90_000.0] {
            assert!((1..=8).contains(&ticks(end).0), "{end}: {:?}", ticks(end));
        }
        assert!(ticks(95.0).1.contains("1:00") || ticks(95.0).1.contains("1 min"));
        assert_eq!((tick(5.0), tick(120.0), tick(90.0)), ("5 s".to_owned(), "2 min".to_owned(), "1:30".to_owned()));
    }
}
