//! One line of the journal.
//!
//! Purpose: the words of the intent log, as JSON lines that every later version can read
//! (`tests/golden/journals/v1` and `v2` hold samples that must parse for ever).
//! Must not know: files.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::event::{CancelledBy, Class, Failure, How, Outcome};
use crate::plan::Output;
use crate::types::{RunId, Sha256, StepId};

/// Version of the journal's format. A journal of a newer format is refused with both versions named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JournalFormat(pub u32);

impl JournalFormat {
    /// What this program writes, and the newest it reads.
    ///
    /// 2: phases may be opened again, and outputs tell of snapshots.
    pub const CURRENT: Self = Self(2);
}

impl std::fmt::Display for JournalFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(&self.0, f)
    }
}

/// An entry in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 0 without a gap.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// What it says.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a record says. Holds no secret: journals get pasted into issues.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "entry", rename_all = "kebab-case")]
pub enum Entry {
    /// The first record: the run exists, and this is its plan.
    Opened {
        /// The journal's format.
        format: JournalFormat,
        /// The program's version.
        tool: String,
        /// SHA-256 of `plan.json` beside it.
        plan: Sha256,
        /// The run.
        run: RunId,
    },
    /// A step is about to be probed and, if need be, applied.
    Started {
        /// The step.
        step: StepId,
        /// Counts the attempts of the whole run, from 1.
        attempt: u32,
    },
    /// A PVE task was started on behalf of a step (or of its undo). Written before it is waited for.
    Handle {
        /// The step.
        step: StepId,
        /// The task.
        upid: String,
    },
    /// A step's effect is there.
    Succeeded {
        /// The step.
        step: StepId,
        /// What later steps need of it.
        output: Output,
        /// How it came to be done.
        how: How,
    },
    /// An attempt failed.
    Failed {
        /// The step.
        step: StepId,
        /// The error.
        failure: Failure,
        /// What may be done about it.
        class: Class,
    },
    /// A step's effect is about to be taken back.
    UndoStarted {
        /// The step whose effect it is.
        step: StepId,
    },
    /// A step's effect is gone: it is to be done anew.
    UndoFinished {
        /// The step whose effect it was.
        step: StepId,
    },
    /// A step's effect could not be taken back.
    UndoFailed {
        /// The step whose effect it is.
        step: StepId,
        /// The error.
        failure: Failure,
    },
    /// A phase that was done, and those after it, are to be done anew: what it established no longer holds. What its
    /// steps did and can be undone is undone first. Never once something was destroyed.
    Reopened {
        /// The phase.
        phase: String,
        /// What was found, a sentence's fragment.
        because: String,
    },
    /// The run was parked.
    Cancelled {
        /// By whom.
        by: CancelledBy,
    },
    /// The run goes on, perhaps in another process.
    Resumed,
    /// The Kubernetes API began or ceased to answer; written on changes only.
    ApiProbe {
        /// Whether it answers.
        up: bool,
    },
    /// How many requests this process has sent so far; written at the end of a phase and before a stop.
    Requests {
        /// So many.
        sent: u64,
    },
    /// The run stops being run.
    Closed {
        /// How it ended.
        outcome: Outcome,
    },
}

impl Entry {
    /// The step it is about, if it is about one.
    pub fn step(&self) -> Option<&StepId> {
        match self {
            Self::Started { step, .. }
            | Self::Handle { step, .. }
            | Self::Succeeded { step, .. }
            | Self::Failed { step, .. }
            | Self::UndoStarted { step }
            | Self::UndoFinished { step }
            | Self::UndoFailed { step, .. } => Some(step),
            Self::Opened { .. }
            | Self::Cancelled { .. }
            | Self::Resumed
            | Self::Reopened { .. }
            | Self::ApiProbe { .. }
            | Self::Requests { .. }
            | Self::Closed { .. } => None,
        }
    }

    /// Its name as journaled.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Opened { .. } => "opened",
            Self::Started { .. } => "started",
            Self::Handle { .. } => "handle",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::UndoStarted { .. } => "undo-started",
            Self::UndoFinished { .. } => "undo-finished",
            Self::UndoFailed { .. } => "undo-failed",
            Self::Reopened { .. } => "reopened",
            Self::Cancelled { .. } => "cancelled",
            Self::Resumed => "resumed",
            Self::ApiProbe { .. } => "api-probe",
            Self::Requests { .. } => "requests",
            Self::Closed { .. } => "closed",
        }
    }
}
