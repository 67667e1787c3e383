//! Errors of steps, as the engine sees them.
//!
//! Must not know: clients. `steps::classify` builds these from the clients' errors.

use std::error::Error;

use crate::event::Failure;

/// What may be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing happened, and the same call may work a moment later.
    Transient,
    /// The same call would fail again. The run stops here, resumable.
    Permanent,
    /// It was sent, and no answer came: only a probe can tell.
    Ambiguous,
    /// A gate said no: what is there is not what the plan was made for. Exit code 4.
    Refused,
}

/// Why a step did not get done.
#[derive(Debug, thiserror::Error)]
#[error("could not {doing}")]
pub struct StepError {
    /// What may be done about it.
    pub class: Class,
    /// What was tried, an infinitive: `start VM 1102 on node pve2`.
    pub doing: String,
    /// What to do next, sentences.
    pub hints: Vec<String>,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl StepError {
    /// An error of `class` while trying to `doing`.
    pub fn new(class: Class, doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, doing: doing.into(), hints: Vec::new(), source: source.into() }
    }

    /// With one more thing to do next.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// In a form that survives the process.
    pub fn to_failure(&self) -> Failure {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn Error + 'static)> = self.source();
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Failure { what: self.to_string(), causes, hints: self.hints.clone() }
    }
}
