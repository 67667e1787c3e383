//! Why a verb ends before or without being done, and the exit code it ends with.

use std::error::Error;

use crate::event::Failure;
use crate::exit::ExitCode;
use crate::plan::observed::{Finding, Severity};
use crate::profile::problem::{Problem, Problems};
use crate::report::document::{self, Kind};

/// An end that is not success: every problem at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The exit code.
    pub code: ExitCode,
    /// What is wrong.
    pub problems: Vec<Failure>,
    /// What is wrong in the user's files: each in `problems` as text with its place and the line, here in its parts.
    pub files: Vec<Problem>,
}

impl Stop {
    /// One problem without a deeper cause.
    pub fn new(code: ExitCode, what: impl Into<String>) -> Self {
        Self {
            code,
            problems: vec![Failure { what: what.into(), causes: Vec::new(), hints: Vec::new() }],
            files: Vec::new(),
        }
    }

    /// One problem with the chain of its causes.
    pub fn because(code: ExitCode, what: impl Into<String>, error: &(dyn Error + 'static)) -> Self {
        let mut stop = Self::new(code, what);
        let mut next = Some(error);
        while let Some(cause) = next {
            stop.problems[0].causes.push(cause.to_string());
            next = cause.source();
        }
        stop
    }

    /// The same for the document: what is wrong in a file has its place there apart from what is wrong.
    pub fn documented(&self, kind: Kind) -> Vec<document::Problem> {
        if self.files.len() != self.problems.len() {
            return self.problems.iter().map(|failure| document::Problem::new(kind, failure)).collect();
        }
        let of_file = |(problem, failure): (&Problem, &Failure)| {
            let place = [problem.place(), problem.key.clone()].into_iter().filter(|part| !part.is_empty());
            let place = place.collect::<Vec<_>>().join(": ");
            let failure = Failure { what: problem.what.clone(), ..failure.clone() };
            let documented = document::Problem::new(kind, &failure);
            if place.is_empty() { documented } else { documented.at(place) }
        };
        self.files.iter().zip(&self.problems).map(of_file).collect()
    }

    /// With one more thing to do next, for the last problem.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        if let Some(last) = self.problems.last_mut() {
            last.hints.push(hint.into());
        }
        self
    }

    /// The refusals among findings, as an end with exit code 4.
    pub fn refused(findings: &[Finding]) -> Self {
        let refusals = findings.iter().filter(|finding| finding.severity == Severity::Refusal);
        Self { code: ExitCode::Refused, problems: refusals.map(failure).collect(), files: Vec::new() }
    }
}

/// A finding in the form that reports carry.
pub fn failure(finding: &Finding) -> Failure {
    Failure {
        what: finding.what.clone(),
        causes: finding.causes.clone(),
        hints: finding.hint.iter().cloned().collect(),
    }
}

impl From<Problems> for Stop {
    fn from(problems: Problems) -> Self {
        problems.0.into()
    }
}

impl From<Vec<Problem>> for Stop {
    fn from(files: Vec<Problem>) -> Self {
        let problems = files.iter().map(|problem| Failure {
            what: Problem { hint: None, ..problem.clone() }.to_string(),
            causes: Vec::new(),
            hints: problem.hint.iter().cloned().collect(),
        });
        Self { code: ExitCode::Invalid, problems: problems.collect(), files }
    }
}
