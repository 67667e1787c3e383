//! What a run says while it goes on: the only way anything below `cli` speaks to people.
//!
//! Purpose: one stream, many renderers (bars, plain lines, JSON lines, the summary). A past run is shown by feeding its
//! journal through the same renderers.
//! Must not know: terminals, files, clients.

use serde::{Deserialize, Serialize};

use crate::types::{RunId, StepId};

/// Where events go. Cheap to call from any task; must never block for long.
pub trait EventSink: Sync {
    /// Takes one event.
    fn emit(&self, event: Event);
}

/// How a step came to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Worth knowing, no step's failure: a warning, a fallback, a choice made.
    Notice {
        /// The text, a sentence.
        text: String,
    },
    /// The run stops being run.
    RunClosed {
        /// `done`, `failed`, `stuck`, `cancelled`, `refused`.
        outcome: String,
        /// How long the Kubernetes API did not answer, when that was measured.
        api_downtime_seconds: Option<f64>,
    },
}

/// An error that can be written down and read back by another process: what failed, why, what next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed, a lower-case fragment: `could not start VM 1102 on node pve2`.
    pub what: String,
    /// The chain of causes, outermost first, none repeated.
    pub causes: Vec<String>,
    /// What to do next, sentences.
    pub hints: Vec<String>,
}
