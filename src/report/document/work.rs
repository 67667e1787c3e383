//! What a run adds to the document: what was made, destroyed, saved and restored, and how long it took.
//!
//! Must not know: how it is shown.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::plan::path::Hop;
use crate::plan::step::OurVm;
use crate::plan::{Plan, PlannedVm, Step, Versions};
use crate::report::fold::{PhaseDone, Progress};
use crate::types::{NodeName, Sha256, VmId};

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

impl Work {
    /// What else is to be known, sentences.
    pub(in crate::report) fn remarks(&self) -> Vec<String> {
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

/// The old VMs that are gone.
pub(super) fn destroyed(plan: &Plan, progress: &Progress) -> Vec<VmRef> {
    vms_of(plan, progress, |step| match step {
        Step::RetireVm { vm, .. } => Some(VmRef::new(&vm.node, vm.vmid, &vm.name)),
        _ => None,
    })
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
