//! The one JSON document that every verb prints with `-o json`, and that `report.json` is.
//!
//! Purpose: a versioned shape that scripts can rely on; its JSON Schema is `templates/document.schema.json`.
//! Must not know: how a verb is carried out. Start reading at [`Document`]; [`Work`] is what runs add.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

mod snapshot;

pub use snapshot::{Snapshot, SnapshotCopy, SnapshotHolds};

use super::fold::{PhaseDone, Progress, StepFailure};
use super::outputs::{self, Found};
use crate::event::{Class, Failure, Outcome};
use crate::plan::path::Hop;
use crate::plan::status::Status;
use crate::plan::step::OurVm;
use crate::plan::{Output, Plan, PlannedVm, Step, Versions};
use crate::types::{NodeName, RunId, Sha256, StepId, VmId};

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

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// What sort of problem.
    pub kind: Kind,
    /// What failed, a lower-case fragment.
    pub what: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// The step, or the place in a file.
    #[serde(rename = "where")]
    pub place: Option<String>,
}

/// What sort of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line, the profile or the site.
    Invalid,
    /// A gate.
    Refused,
    /// A step, or a verb that has no steps.
    Failed,
    /// The undo of a step.
    Undo,
    /// Worth knowing; nothing failed for it.
    Warning,
    /// A bug in recast.
    Internal,
}

impl Problem {
    /// A failure of this kind.
    pub fn new(kind: Kind, failure: &Failure) -> Self {
        let Failure { what, causes, hints } = failure.clone();
        Self { kind, what, causes, hints, place: None }
    }

    /// Its causes without those that say what stands above them already: many errors name their cause themselves.
    pub fn new_causes(&self) -> Vec<&str> {
        new_causes(&self.what, &self.causes)
    }

    /// With the place it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

/// Causes that add something to what was said before them.
pub(super) fn new_causes<'a>(what: &'a str, causes: &'a [String]) -> Vec<&'a str> {
    let mut above = what;
    let mut new = Vec::new();
    for cause in causes {
        if !cause.trim().is_empty() && !above.contains(cause.trim()) {
            new.push(cause.as_str());
            above = cause;
        }
    }
    new
}

impl Work {
    /// What else is to be known, sentences.
    pub(super) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(revisions) = self.window_revisions {
            remarks.push(format!(
                "Between the final snapshot and the end of the only control plane, etcd wrote at most {revisions} revisions"
            ));
        }
        for (what, names) in [("Node objects", &self.removed.nodes), ("etcd members", &self.removed.members)] {
            if !names.is_empty() {
                remarks.push(format!("Removed, as they belonged to no machine: {what} {}", names.join(", ")));
            }
        }
        remarks.extend(self.commit.as_ref().map(|id| format!("Committed as {id}")));
        remarks
    }
}

impl From<&StepFailure> for Problem {
    fn from(failed: &StepFailure) -> Self {
        let kind = match failed.class {
            Some(Class::Refused) => Kind::Refused,
            Some(Class::Transient | Class::Permanent | Class::Ambiguous) => Kind::Failed,
            None => Kind::Undo,
        };
        Self::new(kind, &failed.failure).at(failed.step.as_str())
    }
}

/// What a rebuild, create, rollback or upgrade adds.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Work {
    /// How long it was being run, over all its processes.
    pub seconds: f64,
    /// The phases that were begun, with their steps that are done.
    pub phases: Vec<PhaseDone>,
    /// How long the Kubernetes API did not answer, when that was measured.
    pub api_downtime_seconds: Option<f64>,
    /// How many requests were sent to Proxmox VE and for images, over all its processes.
    pub requests: u64,
    /// What ran before, and what the plan leads to.
    pub versions: BeforeAfter,
    /// The way of an upgrade, hop by hop, each with its reason.
    pub hops: Vec<Hop>,
    /// The proof of backup; none where there was nothing to back up, or it was not wanted.
    pub backup: Option<Backup>,
    /// Every proven snapshot of this run, in the order in which they were taken.
    pub backups: Vec<Proven>,
    /// How many revisions etcd wrote at most between the final snapshot and the end of the old cluster; only where one
    /// control plane made it impossible to freeze first.
    pub window_revisions: Option<u64>,
    /// The VMs that the plan leads to.
    pub vms: Vec<PlannedVm>,
    /// What etcd was restored from.
    pub restored: Option<Restored>,
    /// Old VMs that are gone.
    pub destroyed: Vec<VmRef>,
    /// Old VMs that were put aside.
    pub parked: Vec<VmRef>,
    /// VMs and templates that this run made and that are still there.
    pub created: Vec<VmRef>,
    /// Workloads that were ready before and are not after.
    pub regressions: Vec<String>,
    /// What came back with the data and belonged to no machine any more.
    pub removed: Removed,
    /// The commit of profile and lock.
    pub commit: Option<String>,
}

/// A proven snapshot of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Proven {
    /// What it was taken for: `before` or `final`.
    pub purpose: String,
    /// When.
    #[schemars(with = "String")]
    pub taken: Timestamp,
    /// From which control plane.
    pub machine: String,
    /// Size of the file.
    pub bytes: u64,
    /// What it holds, and where it lies.
    #[serde(flatten)]
    pub backup: Backup,
}

/// What was removed from the new cluster, since it belonged to no machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Removed {
    /// Node objects.
    pub nodes: Vec<String>,
    /// Members of etcd.
    pub members: Vec<String>,
}

/// Versions before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BeforeAfter {
    /// What ran, as far as it could be seen.
    pub before: Option<Versions>,
    /// What is to run; none after a teardown.
    pub after: Option<Versions>,
}

/// A proven etcd snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Backup {
    /// Etcd's revision in it.
    pub revision: u64,
    /// How many keys it holds.
    pub keys: u64,
    /// Its digest.
    pub sha256: Sha256,
    /// Where it lies.
    pub copies: Vec<String>,
    /// Whether it was taken when no write could be acknowledged any more.
    pub frozen: bool,
}

/// What etcd was restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Restored {
    /// The snapshot's revision.
    pub revision: u64,
    /// How many keys came back.
    pub keys: u64,
}

/// A VM or template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct VmRef {
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// Its PVE node.
    pub node: NodeName,
    /// Whether it is a template.
    pub template: bool,
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
        let retired = vms_of(plan, progress, |step| match step {
            Step::RetireVm { vm, .. } => Some(VmRef::new(&vm.node, vm.vmid, &vm.name)),
            _ => None,
        });
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
                destroyed: retired,
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

impl VmRef {
    fn new(node: &NodeName, vmid: VmId, name: &str) -> Self {
        Self { vmid, name: name.to_owned(), node: node.clone(), template: false }
    }

    fn ours(vm: &OurVm) -> Self {
        Self::new(&vm.node, vm.vmid, &vm.name)
    }
}

fn vms_of(plan: &Plan, progress: &Progress, of: impl Fn(&Step) -> Option<VmRef>) -> Vec<VmRef> {
    plan.steps()
        .filter(|planned| progress.done(&planned.id).is_some())
        .filter_map(|planned| of(&planned.step))
        .collect()
}

/// What was made, without what was only needed for a while.
pub(super) fn created(plan: &Plan, progress: &Progress) -> Vec<VmRef> {
    let gone = vms_of(plan, progress, |step| match step {
        Step::DeleteOurVm { vm } => Some(VmRef::ours(vm)),
        _ => None,
    });
    let mut made = vms_of(plan, progress, |step| match step {
        Step::CloneVm { vm, .. } => Some(VmRef::ours(vm)),
        Step::CreateTemplate { vm, .. } => Some(VmRef { template: true, ..VmRef::ours(vm) }),
        _ => None,
    });
    made.retain(|vm| !gone.iter().any(|other| (other.vmid, &other.node) == (vm.vmid, &vm.node)));
    made
}

/// The document's JSON Schema.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Document);
    schema.insert("title".to_owned(), "recast document".into());
    schema.to_value()
}

#[cfg(test)]
mod tests;
