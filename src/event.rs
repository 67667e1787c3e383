//! What a run says while it goes on: the only way anything below `cli` speaks to people.
//!
//! Purpose: one stream, many renderers (bars, plain lines, JSON lines, the summary). A past run is shown by feeding its
//! journal through the same renderers.
//! Must not know: terminals, files, clients.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::types::{RunId, StepId};

/// Version of the JSON lines' format.
pub const FORMAT: u32 = 1;

/// Where events go. Cheap to call from any task; must never block for long.
pub trait EventSink: Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

impl<S: EventSink + ?Sized> EventSink for &S {
    fn emit(&self, event: Event) {
        (**self).emit(event);
    }
}

/// Takes every event and shows none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unheard;

impl EventSink for Unheard {
    fn emit(&self, _: Event) {}
}

/// How a run, or one stretch of it, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every step is done.
    Done,
    /// A step failed for good; what could be undone was undone.
    Failed,
    /// A gate said no: the world is not what the plan was made for.
    Refused,
    /// An undo failed. A person is needed.
    Stuck,
    /// Parked by a person or a signal.
    Cancelled,
}

impl Outcome {
    /// Whether `resume` can go on from here.
    pub fn is_resumable(self) -> bool {
        self != Self::Done
    }

    /// The word that documents, journals and people see.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Stuck => "stuck",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// What may be done about a step's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
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

/// Who asked for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CancelledBy {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM: a service manager or a CI system.
    Terminate,
    /// `recast rollback`: what could be taken back was.
    Rollback,
}

impl std::fmt::Display for CancelledBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Interrupt => "Ctrl-C",
            Self::Terminate => "SIGTERM",
            Self::Rollback => "rollback",
        })
    }
}

/// How a step came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// This run did it.
    Applied,
    /// It was found done.
    AlreadyDone,
    /// It was not needed.
    Skipped,
}

/// One thing that happened. JSON lines carry it as `{"format":1,"at":…,"event":"step-started",…}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A run begins or goes on.
    RunOpened {
        /// Its id.
        run: RunId,
        /// The cluster.
        cluster: String,
        /// The verb.
        verb: String,
        /// Whether it goes on after a stop.
        resumed: bool,
    },
    /// A phase begins.
    PhaseStarted {
        /// Its name.
        phase: String,
        /// How many steps it has.
        steps: usize,
    },
    /// A phase is over.
    PhaseFinished {
        /// Its name.
        phase: String,
        /// How long it took.
        seconds: f64,
    },
    /// A phase that was done is to be done anew, and those after it.
    PhaseReopened {
        /// Its name.
        phase: String,
        /// What was found.
        because: String,
    },
    /// A step begins.
    StepStarted {
        /// Its id.
        step: StepId,
        /// Its title.
        title: String,
    },
    /// Bytes moved on behalf of a step.
    Bytes {
        /// The step.
        step: StepId,
        /// What moves: `download`, `upload` …
        what: String,
        /// So far.
        done: u64,
        /// In all, when known.
        total: Option<u64>,
        /// Of `done`, what was already there (a resumed download).
        cached: u64,
    },
    /// A step waits for a condition.
    Waiting {
        /// The step.
        step: StepId,
        /// For what.
        on: String,
        /// What the last look saw, where it helps.
        last: Option<String>,
    },
    /// A step is tried again.
    Retrying {
        /// The step.
        step: StepId,
        /// Which attempt comes next, from 2.
        attempt: u32,
        /// In how many seconds.
        in_seconds: f64,
        /// Why.
        because: String,
    },
    /// A step is done.
    StepFinished {
        /// Its id.
        step: StepId,
        /// How it came to be done.
        how: How,
        /// How long it took.
        seconds: f64,
    },
    /// A step failed for good.
    StepFailed {
        /// Its id.
        step: StepId,
        /// What may be done about it.
        class: Class,
        /// The error, causes and hints.
        failure: Failure,
    },
    /// A step's effect is taken back.
    Undoing {
        /// The step whose effect it is.
        step: StepId,
        /// What is done.
        title: String,
    },
    /// A step's effect is gone again.
    Undone {
        /// The step whose effect it was.
        step: StepId,
        /// How long that took.
        seconds: f64,
    },
    /// A step's effect could not be taken back.
    UndoFailed {
        /// The step whose effect it is.
        step: StepId,
        /// The error, causes and hints.
        failure: Failure,
    },
    /// The Kubernetes API began or ceased to answer.
    ApiProbe {
        /// Whether it answers.
        up: bool,
    },
    /// A stop was asked for: no step starts any more, running ones get a moment to reach a safe point.
    Parking {
        /// By whom.
        by: CancelledBy,
        /// How many seconds running steps get.
        grace_seconds: f64,
    },
    /// Worth knowing, no step's failure: a warning, a fallback, a choice made.
    Notice {
        /// The text, a sentence.
        text: String,
    },
    /// The run stops being run.
    RunClosed {
        /// How it ended.
        outcome: Outcome,
        /// How long the Kubernetes API did not answer, when that was measured.
        api_downtime_seconds: Option<f64>,
    },
}

/// An event with the moment it happened: one JSON line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stamped {
    /// Format version, [`FORMAT`].
    pub format: u32,
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Stamped {
    /// The event as of `at`.
    pub fn new(at: Timestamp, event: Event) -> Self {
        Self { format: FORMAT, at, event }
    }
}

/// An error that can be written down and read back by another process: what failed, why, what next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What failed, a lower-case fragment: `could not start VM 1102 on node pve2`.
    pub what: String,
    /// The chain of causes, outermost first, none repeated.
    pub causes: Vec<String>,
    /// What to do next, sentences.
    pub hints: Vec<String>,
}
