//! The one JSON document that every verb prints with `-o json`, and that `report.json` is.
//!
//! Purpose: a versioned shape that scripts can rely on; its JSON Schema is `templates/document.schema.json`.
//! Must not know: how a verb is carried out. Start reading at [`Document`]; [`Work`] is what runs add.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::fold::{PhaseDone, Progress, StepFailure};
use crate::event::{Class, Failure, Outcome};
use crate::plan::step::OurVm;
use crate::plan::{Plan, PlannedVm, Step, Versions};
use crate::types::{NodeName, RunId, Sha256, VmId};

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

    /// With the place it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
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
    /// The phases that were begun, with their steps that are done.
    pub phases: Vec<PhaseDone>,
    /// How long the Kubernetes API did not answer, when that was measured.
    pub api_downtime_seconds: Option<f64>,
    /// How many requests were sent, to all APIs together.
    pub requests: u64,
    /// What ran before, and what the plan leads to.
    pub versions: BeforeAfter,
    /// The proof of backup; none where there was nothing to back up, or it was not wanted.
    pub backup: Option<Backup>,
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
}

/// Versions before and after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BeforeAfter {
    /// What ran, as far as it could be seen.
    pub before: Option<Versions>,
    /// What is to run.
    pub after: Versions,
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
            problems: Vec::new(),
        }
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
            extra: Map::new(),
        }
    }

    /// Of a run, or of its dry run.
    pub fn of_run(input: Input<'_>) -> Self {
        let Input { plan, progress, ending, requests, backup, restored, regressions, problems } = input;
        // A run that was not closed was killed, or is being run: what can be said is that it isn't done.
        let outcome = ending.or_else(|| progress.outcome.map(Ending::from)).unwrap_or(Ending::Failed);
        let mut all: Vec<Problem> = progress.failures.iter().map(Problem::from).collect();
        all.extend(problems);
        if ending.is_none() && progress.outcome.is_none() {
            all.push(unclosed(plan));
        }
        let retired = vms_of(plan, progress, |step| match step {
            Step::RetireVm { vm } => Some(VmRef::new(&vm.node, vm.vmid, &vm.name)),
            _ => None,
        });
        Self {
            run: Some(plan.run.clone()),
            resumable: begun(progress) && !matches!(outcome, Ending::Done | Ending::Pending | Ending::Invalid),
            problems: all,
            work: Some(Work {
                phases: progress.phases.clone(),
                api_downtime_seconds: progress.api_downtime_seconds,
                requests,
                versions: BeforeAfter { before: plan.before.clone(), after: plan.after.clone() },
                backup,
                vms: plan.vms.clone(),
                restored,
                destroyed: retired,
                parked: Vec::new(),
                created: created(plan, progress),
                regressions,
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

    /// With a field of the verb's own. Fields of this type's names are not replaced.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.extra.insert(name.to_owned(), value);
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
