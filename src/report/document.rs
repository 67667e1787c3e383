//! The one JSON document that every verb prints with `-o json`, and that `report.json` is.
//!
//! Purpose: a versioned shape that scripts can rely on; its JSON Schema is `templates/document.schema.json`.
//! Must not know: how a verb is carried out. Start reading at [`Document`]; [`Work`] is what runs add.

mod problem;
mod snapshot;
#[cfg(test)]
mod tests;
mod work;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

pub(super) use problem::new_causes;
pub use problem::{Kind, Problem};
pub use snapshot::{Snapshot, SnapshotCopy, SnapshotHolds};
pub use work::{Backup, BeforeAfter, Proven, Removed, Restored, VmRef, Work};
use work::{created, destroyed};

use super::fold::Progress;
use super::outputs::{self, Found};
use crate::event::{Failure, Outcome};
use crate::plan::status::Status;
use crate::plan::{Output, Plan};
use crate::types::{RunId, StepId};

/// Version of the document's format. It grows when a reader of the old one would be misled; new fields don't count.
pub const FORMAT: u32 = 1;

/// What a verb did, or why it did not.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Document {
    /// Format version.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// The verb: `rebuild`, `check` …
    pub verb: String,
    /// The cluster, when it was known.
    pub cluster: Option<String>,
    /// The run, when there is one.
    pub run: Option<RunId>,
    /// How it ended.
    pub outcome: Ending,
    /// Whether `recast resume` goes on from here.
    pub resumable: bool,
    /// What is wrong, everything at once.
    pub problems: Vec<Problem>,
    /// What was done to a cluster; only of verbs that do something to one.
    #[serde(flatten)]
    pub work: Option<Work>,
    /// Snapshots of etcd; only of the verbs about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Vec<Snapshot>>,
    /// How a cluster stands; only of `status`.
    #[serde(flatten)]
    pub status: Option<Status>,
    /// The verb's own data.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// All that was asked for is done.
    Done,
    /// A dry run: there are changes to make.
    Pending,
    /// A gate said no: preflight, drift, proof of backup, identity.
    Refused,
    /// Something failed.
    Failed,
    /// An undo failed: a person is needed.
    Stuck,
    /// Parked by a person or a signal.
    Cancelled,
    /// The command line, the profile or the site is invalid. Nothing was touched.
    Invalid,
}

impl Ending {
    /// The word of the document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Pending => "pending",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Stuck => "stuck",
            Self::Cancelled => "cancelled",
            Self::Invalid => "invalid",
        }
    }
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Failed => Self::Failed,
            Outcome::Refused => Self::Refused,
            Outcome::Stuck => Self::Stuck,
            Outcome::Cancelled => Self::Cancelled,
        }
    }
}

/// What a run's document is made from.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What was done of it; [`Progress::default`] for a dry run.
    pub progress: &'a Progress,
    /// How it ended; none = as the progress says.
    pub ending: Option<Ending>,
    /// Requests sent so far.
    pub requests: u64,
    /// The proof of backup.
    pub backup: Option<Backup>,
    /// What etcd was restored from.
    pub restored: Option<Restored>,
    /// Workloads that were ready before and are not after.
    pub regressions: Vec<String>,
    /// What else the steps found out.
    pub found: Found,
    /// Problems beyond the failed steps, findings for example.
    pub problems: Vec<Problem>,
}

impl<'a> Input<'a> {
    /// The plan and what was done of it, and nothing else.
    pub fn new(plan: &'a Plan, progress: &'a Progress) -> Self {
        Self {
            plan,
            progress,
            ending: None,
            requests: 0,
            backup: None,
            restored: None,
            regressions: Vec::new(),
            found: Found::default(),
            problems: Vec::new(),
        }
    }

    /// With what the run's steps found out: the proof of backup, what was restored.
    #[must_use]
    pub fn with_outputs(self, outputs: &BTreeMap<StepId, Output>) -> Self {
        outputs::told(self, outputs)
    }
}

impl Document {
    /// Of a verb without a run.
    pub fn of_verb(verb: impl Into<String>, cluster: Option<&str>, outcome: Ending) -> Self {
        Self {
            format: FORMAT,
            verb: verb.into(),
            cluster: cluster.map(str::to_owned),
            run: None,
            outcome,
            resumable: false,
            problems: Vec::new(),
            work: None,
            snapshots: None,
            status: None,
            extra: Map::new(),
        }
    }

    /// Of a run, or of its dry run.
    pub fn of_run(input: Input<'_>) -> Self {
        let Input { plan, progress, ending, requests, backup, restored, regressions, found, problems } = input;
        // A run that was not closed was killed, or is being run: what can be said is that it isn't done.
        let outcome = ending.or_else(|| progress.outcome.map(Ending::from)).unwrap_or(Ending::Failed);
        let mut all: Vec<Problem> = progress.failures.iter().map(Problem::from).collect();
        all.extend(problems);
        if ending.is_none() && progress.outcome.is_none() {
            all.push(unclosed(plan));
        }
        Self {
            run: Some(plan.run.clone()),
            resumable: begun(progress) && !matches!(outcome, Ending::Done | Ending::Pending | Ending::Invalid),
            problems: all,
            work: Some(Work {
                seconds: progress.seconds,
                phases: progress.phases.clone(),
                api_downtime_seconds: progress.api_downtime_seconds,
                requests,
                versions: BeforeAfter { before: plan.before.clone(), after: plan.after.clone() },
                hops: plan.hops.clone(),
                backup,
                backups: found.backups,
                window_revisions: found.window_revisions,
                vms: plan.vms.clone(),
                restored,
                destroyed: destroyed(plan, progress),
                parked: Vec::new(),
                created: created(plan, progress),
                regressions,
                removed: found.removed,
                commit: found.commit,
            }),
            ..Self::of_verb(plan.verb.to_string(), Some(&plan.cluster), outcome)
        }
    }

    /// With these problems too.
    #[must_use]
    pub fn with_problems(mut self, problems: impl IntoIterator<Item = Problem>) -> Self {
        self.problems.extend(problems);
        self
    }

    /// With how the cluster stands.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// With a field of the verb's own. Fields of this type's names are not replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.to_owned(), value);
        self
    }

    /// With the snapshots it is about.
    #[must_use]
    pub fn with_snapshots(mut self, snapshots: Vec<Snapshot>) -> Self {
        self.snapshots = Some(snapshots);
        self
    }

    /// As text, with a line end.
    pub fn to_json(&self) -> String {
        // Strings as keys and numbers that are finite: nothing here can fail to serialise.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

fn begun(progress: &Progress) -> bool {
    progress.outcome.is_some() || !progress.phases.is_empty()
}

fn unclosed(plan: &Plan) -> Problem {
    let failure = Failure {
        what: format!("run {} was not brought to an end", plan.run),
        causes: vec!["its process was killed, or is still at it".to_owned()],
        hints: Vec::new(),
    };
    Problem::new(Kind::Failed, &failure)
}

/// The document's JSON Schema.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document);
    schema.insert("title".to_owned(), "recast document".into());
    schema.to_value()
}
