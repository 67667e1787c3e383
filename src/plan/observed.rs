//! What was seen before planning: the planner's only knowledge of the world.
//!
//! Purpose: a serialisable photograph. With the profile it makes any bug report replayable in a unit test.
//! Must not know: clients. `observe` fills it; `make` and `check` read it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::data::HaState;
use super::step::{HaCare, Hardware, Image, VmIdentity};
use crate::types::{MachineName, NodeName, Role, SchematicId, Sha256, StorageId, Version, VmId};

/// Everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The PVE nodes.
    pub nodes: Vec<SeenNode>,
    /// The storages, as each node sees them.
    pub storages: Vec<SeenStorage>,
    /// Every guest id in use in the PVE cluster, containers included.
    pub vmids: BTreeSet<VmId>,
    /// The VMs that carry all tags of the profile, or that its names or numbers stand for.
    pub vms: Vec<SeenVm>,
    /// The templates that carry a recast provenance line.
    pub templates: Vec<SeenTemplate>,
    /// Half-made VMs that an earlier run of this cluster left behind, by their mark.
    pub leftovers: Vec<Leftover>,
    /// The images to fetch, as a HEAD answered; one is absent when the factory refused it (then `problems` says so).
    #[serde(default)]
    pub images: Vec<Image>,
    /// The same disks in the encoding that nodes can fetch themselves (`.qcow2`), where that was looked at.
    #[serde(default)]
    pub pulls: Vec<Image>,
    /// Schematics whose images only UEFI can boot (`bootloader: sd-boot`, or Secure Boot).
    #[serde(default)]
    pub uefi_only: BTreeSet<SchematicId>,
    /// The YAML of the schematics, as far as the factory tells, for the lock.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recipes: BTreeMap<SchematicId, String>,
    /// The nodes that were asked whether they reach the factory, with what speaks against it.
    #[serde(default)]
    pub routes: BTreeMap<NodeName, Option<String>>,
    /// Whether the credentials may migrate VMs.
    #[serde(default)]
    pub may_migrate: bool,
    /// The running cluster; absent when none answers.
    pub cluster: Option<SeenCluster>,
    /// Who asked: `user@realm` or `user@realm!token`.
    #[serde(default)]
    pub caller: String,
    /// What the HA manager was told to do with the VMs that make room.
    #[serde(default)]
    pub ha: Vec<HaState>,
    /// The nodes that the site says something about SSH to, and that may have to be used that way, with what speaks against
    /// it.
    #[serde(default)]
    pub shells: BTreeMap<NodeName, Option<Finding>>,
    /// Privileges that the plan needs and the credentials lack.
    pub missing_rights: Vec<MissingRight>,
    /// What could not be seen, or was seen to be wrong, in words: each refuses the run.
    pub problems: Vec<Finding>,
}

impl Observed {
    /// The image of a schematic, if the factory has it.
    pub fn image_of(&self, schematic: &SchematicId) -> Option<&Image> {
        self.images.iter().find(|image| image.schematic == *schematic)
    }

    /// The image of a schematic in the encoding that nodes can fetch themselves, if that was looked at and is there.
    pub fn pull_of(&self, schematic: &SchematicId) -> Option<&Image> {
        self.pulls.iter().find(|image| image.schematic == *schematic)
    }

    /// A storage as a node sees it.
    pub fn storage(&self, node: &NodeName, id: &StorageId) -> Option<&SeenStorage> {
        self.storages.iter().find(|storage| storage.node == *node && storage.id == *id)
    }
}

/// A PVE node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNode {
    /// Its name.
    pub name: NodeName,
    /// Whether it takes part.
    pub online: bool,
    /// Its PVE version, `8.4.21`.
    pub version: String,
    /// Memory in MiB.
    pub memory_mb: u64,
}

/// A storage on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenStorage {
    /// The node that sees it.
    pub node: NodeName,
    /// Its id.
    pub id: StorageId,
    /// `dir`, `lvmthin` …
    pub kind: String,
    /// What it may hold: `images`, `import` …
    pub content: BTreeSet<String>,
    /// Whether all nodes see the same.
    pub shared: bool,
    /// Enabled and active.
    pub usable: bool,
    /// Free bytes.
    pub free: u64,
}

/// How a VM came to be in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// By the name or the number in the profile.
    Profile,
    /// By recast's own mark for this cluster.
    Mark,
    /// Only by its tags: a stranger.
    No,
}

/// A VM that concerns the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVm {
    /// What tells it from others.
    pub identity: VmIdentity,
    /// Carries all tags of the profile.
    pub tagged: bool,
    /// Is a template.
    pub template: bool,
    /// How it is known.
    pub known: Known,
    /// Its role, by tag or by the profile's name.
    pub role: Option<Role>,
    /// Is running.
    pub running: bool,
    /// Its configuration, all keys.
    pub config: Hardware,
    /// The pool it is in.
    pub pool: Option<String>,
    /// What the HA manager was told about it, if it is managed.
    #[serde(default)]
    pub ha: Option<HaCare>,
    /// Ids and targets of its replication jobs: `1100-0 to pve2`.
    #[serde(default)]
    pub replicas: Vec<String>,
    /// Ids of backup jobs that name it.
    #[serde(default)]
    pub backup_jobs: Vec<String>,
    /// Names of its snapshots.
    #[serde(default)]
    pub snapshots: Vec<String>,
    /// Its own firewall, where a NIC of it has one.
    #[serde(default)]
    pub firewall: Option<SeenFirewall>,
}

/// A VM's own firewall, in PVE's keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenFirewall {
    /// `enable`, `policy_in` and the like.
    pub options: Hardware,
    /// Rules from the first to the last.
    pub rules: Vec<Hardware>,
}

/// A `PersistentVolume` that lives on a machine's own disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVolume {
    /// Its name.
    pub name: String,
    /// The path on the machine.
    pub path: String,
    /// Machines that its affinity names; none for one that is wherever its pod is.
    pub machines: BTreeSet<String>,
    /// `namespace/name` of its claim.
    pub claim: Option<String>,
}

/// A template that some run of recast made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenTemplate {
    /// Where it lives.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// The mark in its description.
    pub mark: String,
    /// The fingerprint in its description.
    pub fingerprint: Sha256,
    /// Whether a canary cloned from it was found right.
    #[serde(default)]
    pub proved: bool,
}

/// Something that an earlier run made and did not finish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Where it lives.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// Its mark.
    pub mark: String,
}

/// The cluster as its own APIs show it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCluster {
    /// Talos version by machine name.
    pub talos: BTreeMap<String, Version>,
    /// Version of the Kubernetes API server.
    pub kubernetes: Option<Version>,
    /// Schematic by machine name.
    pub schematic: BTreeMap<String, SchematicId>,
    /// Host names of etcd's members.
    pub members: Vec<String>,
    /// What its secrets have in common with the secrets file: every difference, named.
    pub differing_secrets: Vec<String>,
    /// What its health checks complain about.
    pub unhealthy: Vec<Complaint>,
    /// The volumes that live on machines' own disks; none when its Kubernetes API could not be asked.
    #[serde(default)]
    pub local_volumes: Option<Vec<SeenVolume>>,
    /// The UID of `kube-system`: which cluster it is.
    #[serde(default)]
    pub namespace_uid: Option<String>,
    /// Addresses of its Services.
    #[serde(default)]
    pub services: BTreeSet<IpAddr>,
    /// The largest of its etcd databases, in bytes.
    #[serde(default)]
    pub database_bytes: Option<u64>,
}

/// Something about a running cluster that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Complaint {
    /// The machine that it is about; none when it is about the cluster.
    pub machine: Option<MachineName>,
    /// What is wrong, a lower-case fragment.
    pub what: String,
}

impl Complaint {
    /// About one machine.
    pub fn of(machine: &str, what: impl Into<String>) -> Self {
        Self { machine: Some(MachineName::new(machine)), what: what.into() }
    }

    /// About the cluster as a whole.
    pub fn of_cluster(what: impl Into<String>) -> Self {
        Self { machine: None, what: what.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.what)
    }
}

/// A privilege that is needed and not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MissingRight {
    /// The ACL path.
    pub path: String,
    /// The privilege.
    pub privilege: String,
    /// What needs it.
    pub why: String,
    /// What is held there: a new entry of the access list hides what was inherited, so it has to repeat this.
    pub held: BTreeSet<String>,
}

/// Something that stands in the way, or should be known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stops the run.
    pub severity: Severity,
    /// What is wrong, a lower-case fragment.
    pub what: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What to do about it, a sentence.
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Shown; the run goes on.
    Warning,
    /// The run is refused.
    Refusal,
}

impl Finding {
    /// Something that refuses the run.
    pub fn refusal(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Refusal, what: what.into(), causes: Vec::new(), hint: Some(hint.into()) }
    }

    /// Something to know.
    pub fn warning(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), causes: Vec::new(), hint: Some(hint.into()) }
    }

    /// With the chain of causes behind it.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }
}
