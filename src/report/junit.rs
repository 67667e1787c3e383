//! A report as JUnit XML, which CI systems show as tests: a suite per phase, a case per step and one for its gate.
//!
//! Must not know: how anything is done. Start reading at [`junit`]; the dialect is the one of Jenkins' `junit` plugin
//! and GitLab's and GitHub's readers: `testsuites/testsuite/testcase` with `failure`, `skipped` and `system-out`.

use std::fmt::Write as _;

use super::document::{Ending, Problem, new_causes};
use super::sheet::{PhaseRow, Report, Sheet, State, StepRow};
use crate::event::Failure;

/// The whole file.
pub fn junit(report: &Report<'_>) -> String {
    let sheet = Sheet::of(report);
    let mut suites: Vec<Suite> = sheet.phases.iter().map(|phase| of_phase(phase, &sheet)).collect();
    suites.extend(of_verb(&sheet));
    let total = |count: fn(&Suite) -> usize| suites.iter().map(count).sum::<usize>().to_string();
    let mut xml = Xml::default();
    let mut attributes = vec![
        ("name", format!("recast {}", sheet.subject())),
        ("tests", total(|suite| suite.cases.len())),
        ("failures", total(Suite::failures)),
        ("errors", "0".to_owned()),
        ("skipped", total(Suite::skipped)),
        ("time", time(sheet.end())),
    ];
    if let Some(since) = sheet.progress.and_then(|progress| progress.since) {
        attributes.push(("timestamp", since.strftime("%Y-%m-%dT%H:%M:%S").to_string()));
    }
    xml.open("testsuites", &attributes);
    for suite in &suites {
        suite.write(&mut xml);
    }
    xml.close();
    xml.text
}

struct Suite {
    name: String,
    seconds: f64,
    cases: Vec<Case>,
}

struct Case {
    class: String,
    name: String,
    seconds: f64,
    verdict: Verdict,
    /// What people read below the verdict.
    told: Vec<String>,
}

enum Verdict {
    Passed,
    Failed { kind: &'static str, message: String, detail: String },
    Skipped(String),
}

fn of_phase(phase: &PhaseRow<'_>, sheet: &Sheet<'_>) -> Suite {
    let class = format!("{}.{}", sheet.document.cluster.as_deref().unwrap_or("recast"), phase.name);
    let mut cases: Vec<Case> = phase.steps.iter().map(|step| of_step(step, &class)).collect();
    let verdict = match (phase.state, phase.hindrance()) {
        (_, None) => Verdict::Passed,
        (State::Refused, Some(why)) => {
            Verdict::Failed { kind: "gate", message: format!("the gate does not hold: {why}"), detail: String::new() }
        }
        (_, Some(why)) => Verdict::Skipped(format!("not looked at: {why}")),
    };
    let name = format!("gate: {}", phase.gate);
    cases.push(Case { class, name, seconds: 0.0, verdict, told: Vec::new() });
    Suite { name: phase.name.to_owned(), seconds: phase.seconds.unwrap_or_default(), cases }
}

fn of_step(step: &StepRow<'_>, class: &str) -> Case {
    let mut told = vec![format!("step: {}", step.id)];
    let verdict = match (step.state, step.failure) {
        (_, Some(failed)) => {
            told.extend(hints(&failed.failure.hints));
            let kind = match (failed.is_undo(), step.state) {
                (true, _) => "undo",
                (false, State::Refused) => "gate",
                (false, _) => "step",
            };
            failure(kind, &failed.failure)
        }
        (State::Unknown, None) => Verdict::Skipped("it was begun, and its outcome is unknown".to_owned()),
        (State::Waiting, None) => Verdict::Skipped("not done".to_owned()),
        (state, None) => {
            told.push(format!("how: {}", state.word()));
            Verdict::Passed
        }
    };
    Case { class: class.to_owned(), name: step.title.clone(), seconds: step.seconds, verdict, told }
}

/// What is known beyond the steps: refusals before a run, a run that was killed, and warnings.
fn of_verb(sheet: &Sheet<'_>) -> Option<Suite> {
    let (problems, warnings) = sheet.problems();
    let of_a_step = |problem: &&Problem| {
        let place = problem.place.as_deref();
        sheet.phases.iter().flat_map(|phase| &phase.steps).any(|step| step.failure.is_some() && place == Some(step.id))
    };
    let class = sheet.document.cluster.clone().unwrap_or_else(|| "recast".to_owned());
    let mut cases: Vec<Case> = problems
        .into_iter()
        .filter(|problem| !of_a_step(problem))
        .map(|problem| {
            let mut told: Vec<String> = problem.place.iter().map(|place| format!("where: {place}")).collect();
            told.extend(hints(&problem.hints));
            let verdict = Verdict::Failed {
                kind: sheet.document.outcome.word(),
                message: problem.what.clone(),
                detail: problem.new_causes().join("\n"),
            };
            Case { class: class.clone(), name: first_line(&problem.what), seconds: 0.0, verdict, told }
        })
        .collect();
    if cases.is_empty() && sheet.phases.is_empty() || !warnings.is_empty() {
        let verdict = match sheet.document.outcome {
            Ending::Done | Ending::Pending => Verdict::Passed,
            ending => Verdict::Skipped(ending.word().to_owned()),
        };
        let mut told: Vec<String> = Vec::new();
        told.extend(sheet.state());
        for warning in warnings {
            told.push(format!("warning: {}", warning.what));
            told.extend(hints(&warning.hints));
        }
        cases.push(Case { class, name: sheet.subject(), seconds: 0.0, verdict, told });
    }
    (!cases.is_empty()).then(|| Suite { name: sheet.document.verb.clone(), seconds: 0.0, cases })
}

fn failure(kind: &'static str, failure: &Failure) -> Verdict {
    Verdict::Failed {
        kind,
        message: failure.what.clone(),
        detail: new_causes(&failure.what, &failure.causes).join("\n"),
    }
}

fn hints(hints: &[String]) -> impl Iterator<Item = String> {
    hints.iter().map(|hint| format!("hint: {hint}"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn time(seconds: f64) -> String {
    format!("{seconds:.3}")
}

impl Suite {
    fn failures(&self) -> usize {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed { .. })).count()
    }

    fn skipped(&self) -> usize {
        self.cases.iter().filter(|case| matches!(case.verdict, Verdict::Skipped(_))).count()
    }

    fn write(&self, xml: &mut Xml) {
        xml.open(
            "testsuite",
            &[
                ("name", self.name.clone()),
                ("tests", self.cases.len().to_string()),
                ("failures", self.failures().to_string()),
                ("errors", "0".to_owned()),
                ("skipped", self.skipped().to_string()),
                ("time", time(self.seconds)),
            ],
        );
        for case in &self.cases {
            case.write(xml);
        }
        xml.close();
    }
}

impl Case {
    fn write(&self, xml: &mut Xml) {
        xml.open(
            "testcase",
            &[("classname", self.class.clone()), ("name", self.name.clone()), ("time", time(self.seconds))],
        );
        match &self.verdict {
            Verdict::Passed => {}
            Verdict::Failed { kind, message, detail } => {
                xml.leaf("failure", &[("message", message.clone()), ("type", (*kind).to_owned())], detail);
            }
            Verdict::Skipped(why) => xml.leaf("skipped", &[("message", why.clone())], ""),
        }
        if !self.told.is_empty() {
            xml.leaf("system-out", &[], &self.told.join("\n"));
        }
        xml.close();
    }
}

/// XML that is well-formed whatever goes in.
struct Xml {
    text: String,
    open: Vec<&'static str>,
}

impl Default for Xml {
    fn default() -> Self {
        Self { text: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned(), open: Vec::new() }
    }
}

impl Xml {
    fn tag(&mut self, name: &str, attributes: &[(&str, String)]) {
        let indent = "  ".repeat(self.open.len());
        let _ = write!(self.text, "{indent}<{name}");
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"{}\"", escaped(value));
        }
    }

    fn open(&mut self, name: &'static str, attributes: &[(&str, String)]) {
        self.tag(name, attributes);
        self.text += ">\n";
        self.open.push(name);
    }

    fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            let _ = writeln!(self.text, "{}</{name}>", "  ".repeat(self.open.len()));
        }
    }

    fn leaf(&mut self, name: &str, attributes: &[(&str, String)], text: &str) {
        self.tag(name, attributes);
        if text.is_empty() {
            self.text += "/>\n";
        } else {
            // Line ends in elements stay what they are.
            let _ = writeln!(self.text, ">{}</{name}>", escaped(text).replace("&#10;", "\n"));
        }
    }
}

/// Text for elements and attributes. What XML 1.0 can't hold at all (control characters) becomes a replacement
/// character; line ends in attributes would be read as spaces.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            '\n' => out += "&#10;",
            '\t' => out += "&#9;",
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() && c != '\u{85}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
