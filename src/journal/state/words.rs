//! Where a run and its steps stand, and what may be done next, in words.

use crate::event::{Class, Failure, How, Outcome};
use crate::types::StepId;

/// Where a run stands as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// No record yet.
    New,
    /// Being run, or its process was killed.
    Open,
    /// Parked; only the closing record is missing.
    Cancelled,
    /// Not being run any more.
    Closed(Outcome),
}

impl Life {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::New => "not opened",
            Self::Open => "open",
            Self::Cancelled => "cancelled",
            Self::Closed(_) => "closed",
        }
    }
}

/// Where a step stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepState {
    /// Nothing was tried.
    Pending,
    /// It was begun, and how it went is unknown unless this process is at it.
    Started {
        /// The attempt.
        attempt: u32,
        /// The PVE task it started last.
        handle: Option<String>,
    },
    /// Its effect is there.
    Succeeded {
        /// How it came to be done.
        how: How,
    },
    /// The last attempt failed.
    Failed {
        /// The attempt.
        attempt: u32,
        /// What may be done about it.
        class: Class,
        /// The error.
        failure: Failure,
        /// The PVE task it started last, when its outcome is unknown.
        handle: Option<String>,
    },
    /// Its effect is being taken back; how that went is unknown unless this process is at it.
    Undoing {
        /// The PVE task that the undo started last.
        handle: Option<String>,
    },
    /// Its effect could not be taken back.
    UndoFailed {
        /// The error.
        failure: Failure,
    },
    /// Its effect was taken back: it is to be done anew.
    Undone,
}

impl StepState {
    /// A word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started { .. } => "started",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Undoing { .. } => "being undone",
            Self::UndoFailed { .. } => "stuck in its undo",
            Self::Undone => "undone",
        }
    }
}

/// What may be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Begin this step.
    Start(StepId),
    /// This step started a PVE task whose outcome is unknown: look at that first.
    Reattach(StepId, String),
    /// This step was begun, and its outcome is unknown: look before anything else.
    Probe(StepId),
    /// Take this step's effect back, before anything else.
    Undo(StepId),
}

impl Todo {
    /// The step it is about.
    pub fn step(&self) -> &StepId {
        match self {
            Self::Start(step) | Self::Reattach(step, _) | Self::Probe(step) | Self::Undo(step) => step,
        }
    }
}
