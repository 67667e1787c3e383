//! How a cluster stands, beside how its profile wants it: what `recast status` shows.
//!
//! Purpose: one serialisable picture, and the pure comparison that finds what is unwell and what has drifted.
//! Must not know: clients. `observe::status` fills it. Start reading at [`Status`], then [`Status::judge`].

mod judge;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use judge::Judge;

use crate::types::{NodeName, Role, SchematicId, Version, VersionWish, VmId};

/// The observed state of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Status {
    /// The nodes of Proxmox VE.
    pub hosts: Vec<Host>,
    /// The profile's machines, and VMs that carry its tags without being one.
    pub machines: Vec<Machine>,
    /// Etcd; absent when no control plane answers, and for clusters that aren't Talos'.
    pub etcd: Option<Etcd>,
    /// The Kubernetes API; absent for clusters that aren't Talos'.
    pub kubernetes: Option<Kubernetes>,
    /// What is not as it should be in a healthy cluster, sentences.
    pub unwell: Vec<String>,
    /// What is not as the profile wants it.
    pub drift: Vec<Drift>,
}

/// A node of Proxmox VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub name: NodeName,
    /// Whether it takes part.
    pub online: bool,
}

/// A machine and its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its role, by the profile or by its tag.
    pub role: Option<Role>,
    /// Its VM; none when there is none.
    pub vm: Option<Vm>,
    /// Where it should answer, or was found.
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// What it says itself; none when it does not answer, or is no Talos machine.
    pub talos: Option<Talos>,
    /// Why it does not answer.
    pub silence: Option<String>,
}

/// A VM, as Proxmox VE has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Vm {
    /// Its number.
    pub vmid: VmId,
    /// Where it lives.
    pub node: NodeName,
    /// `running`, `stopped` …
    pub power: String,
    /// Virtual CPUs.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Size of the boot disk in GiB, when it is known.
    pub disk_gib: Option<u64>,
    /// Whether it carries all tags of the profile.
    pub tagged: bool,
}

/// What a Talos machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Talos {
    /// Its version.
    #[schemars(with = "String")]
    pub version: Version,
    /// The schematic of its image, when the Image Factory made it.
    pub schematic: Option<SchematicId>,
    /// `running`, `booting` …
    pub stage: Option<String>,
    /// What keeps it from being ready.
    pub unmet: Vec<String>,
}

/// Etcd, as its members see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Etcd {
    /// The host names of its members.
    pub members: Vec<String>,
    /// The leader, when all members that answer name the same one.
    pub leader: Option<String>,
    /// Members that don't vote (yet).
    pub learners: Vec<String>,
    /// Alarms and errors of members.
    pub errors: Vec<String>,
}

/// The Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Kubernetes {
    /// Where it is to be found.
    pub endpoint: String,
    /// Its version; none when it does not answer.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// Its nodes; none when they could not be listed.
    pub nodes: Option<Vec<KubernetesNode>>,
    /// Why it does not answer.
    pub silence: Option<String>,
}

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KubernetesNode {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why it is not.
    pub because: Option<String>,
    /// Version of its kubelet.
    pub kubelet: String,
    /// Whether new pods are kept off it.
    pub cordoned: bool,
}

/// Something that is not as the profile wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Drift {
    /// The machine, or the cluster's part.
    pub about: String,
    /// What of it: `Talos`, `node`, `cores` …
    pub what: String,
    /// As it is.
    pub seen: String,
    /// As the profile wants it.
    pub wanted: String,
}

/// What the profile asks for, as far as it can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The machines.
    pub machines: Vec<WantedMachine>,
    /// Talos; none for clusters that aren't Talos'.
    pub talos: Option<VersionWish>,
    /// Kubernetes; none for clusters that aren't Talos'.
    pub kubernetes: Option<VersionWish>,
}

/// One machine of the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMachine {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its number, when the profile fixes it.
    pub vmid: Option<VmId>,
    /// Its node, when the profile fixes it.
    pub node: Option<NodeName>,
    /// Virtual CPUs.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Boot disk in GiB.
    pub disk_gib: u64,
    /// The schematic of its image, when the profile decides it.
    pub schematic: Option<SchematicId>,
}

impl Status {
    /// Fills `unwell` and `drift` from the rest.
    #[must_use]
    pub fn judge(mut self, wanted: &Wanted) -> Self {
        let mut judge = Judge { wanted, unwell: Vec::new(), drift: Vec::new() };
        judge.hosts(&self.hosts);
        for machine in &self.machines {
            judge.machine(machine);
        }
        for missing in wanted.machines.iter().filter(|want| !self.machines.iter().any(|seen| seen.name == want.name)) {
            judge.drifted(&missing.name, "VM", "missing", "one");
        }
        if wanted.talos.is_some() {
            judge.etcd(self.etcd.as_ref());
        }
        if let Some(kubernetes) = &self.kubernetes {
            judge.kubernetes(kubernetes);
        }
        self.unwell.extend(judge.unwell);
        self.drift.extend(judge.drift);
        self
    }
}
