//! Errors of steps, as the engine sees them.
//!
//! Must not know: clients. `steps::classify` builds these from the clients' errors.

use std::error::Error;

pub use crate::event::Class;
use crate::event::Failure;

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
    /// The phase to open again, where what it established no longer holds. The engine does so only when nothing was
    /// destroyed since, and not for ever.
    pub reopen: Option<String>,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl StepError {
    /// An error of `class` while trying to `doing`.
    pub fn new(class: Class, doing: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { class, doing: doing.into(), hints: Vec::new(), reopen: None, source: source.into() }
    }

    /// With a phase that is to be opened again because of it.
    #[must_use]
    pub fn reopening(mut self, phase: impl Into<String>) -> Self {
        self.reopen = Some(phase.into());
        self
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

/// Why a run could not be carried on: not a step's failure, the machinery's.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The journal could not be written. Nothing was done after that.
    #[error("could not journal the run")]
    Journal(#[from] crate::journal::JournalError),
    /// No step can start although the plan is not done: its `after` links form a circle or leave the phase.
    #[error("no step of phase '{phase}' can start; {} wait for steps that never come", waiting.len())]
    Deadlock {
        /// The phase.
        phase: String,
        /// The steps that wait.
        waiting: Vec<crate::types::StepId>,
    },
}
