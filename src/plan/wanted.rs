//! What the profile, the site and the command line ask for, resolved: the planner's other input.
//!
//! Purpose: all wishes made definite (versions exact, names and numbers spelled out) before planning starts.
//! Must not know: files, clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::data::Data;
use super::errands::Errands;
use super::step::{Discovery, Hardware, MachineSpec};
use super::{ClusterConfig, Verb};
use crate::profile::{Inherit, Transport};
use crate::property;
use crate::types::{Mac, MachineName, Malformed, NodeName, Role, RunId, SchematicId, Sha256, StorageId, Version, VmId};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is asked for.
    pub verb: Verb,
    /// The run that will carry it out.
    pub run: RunId,
    /// The cluster's name.
    pub cluster: String,
    /// Digest of the profile's text, to notice edits before a resume.
    pub profile: Sha256,
    /// Fingerprint of the secrets: a resume with others is refused.
    pub secrets: Sha256,
    /// Talos version.
    pub talos: Version,
    /// Kubernetes version.
    pub kubernetes: Version,
    /// Schematic of the image.
    pub schematic: SchematicId,
    /// Extensions that the schematic holds, as far as known: `siderolabs/qemu-guest-agent`.
    pub extensions: Vec<String>,
    /// Roles whose machines are made from something else.
    pub others: BTreeMap<Role, OtherImage>,
    /// What all machines' configurations share.
    pub config: ClusterConfig,
    /// Tags of every VM of the cluster.
    pub tags: Vec<String>,
    /// The VMs.
    pub vms: Vec<PlannedVm>,
    /// Configuration inputs by machine.
    pub machines: BTreeMap<MachineName, MachineSpec>,
    /// Storage for disks.
    pub storage: StorageId,
    /// Bridge for NICs whose network is not taken over from an old VM, with `tag=` and the like appended.
    pub nic: String,
    /// Hardware of all VMs, in PVE's keys.
    pub hardware: Hardware,
    /// Further PVE keys by VM, from the profile.
    pub extra: BTreeMap<String, Hardware>,
    /// What each VM takes over from the one it replaces; one that isn't named takes over everything.
    pub inherit: BTreeMap<String, BTreeSet<Inherit>>,
    /// The pool of VMs that take none over.
    pub pool: Option<String>,
    /// How images come to the nodes.
    pub transport: Transport,
    /// Where templates and canaries get their numbers.
    pub template_ids: RangeInclusive<u32>,
    /// How machines without a config are found.
    pub discovery: Vec<Discovery>,
    /// How canaries are found, which have no address of their own.
    pub canary_discovery: Vec<Discovery>,
    /// Whether a cloud-init drive gives machines their address before they have a config.
    pub cloud_init: bool,
    /// Time limits.
    pub limits: Limits,
    /// Most VMs that may be destroyed.
    pub max_destroy: Option<u32>,
    /// What becomes of etcd's data.
    pub data: Data,
    /// The folder in which an earlier run kept profile and lock, which are to be as they were then.
    pub before: Option<PathBuf>,
    /// What is done for the user beside the cluster.
    pub errands: Errands,
    /// Disks beyond the system's that may be destroyed with their VM.
    pub destroy_disks: BTreeSet<DoomedDisk>,
}

/// What machines of a role are made from, where it isn't what the others are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherImage {
    /// Schematic of the image.
    pub schematic: SchematicId,
    /// Hardware of their VMs, in PVE's keys.
    pub hardware: Hardware,
}

impl Wanted {
    /// The schematic of a role's machines.
    pub fn schematic_of(&self, role: Role) -> &SchematicId {
        self.others.get(&role).map_or(&self.schematic, |other| &other.schematic)
    }

    /// The hardware of VMs made from a schematic.
    pub fn hardware_of(&self, schematic: &SchematicId) -> &Hardware {
        let other = self.others.values().find(|other| other.schematic == *schematic);
        other.filter(|_| *schematic != self.schematic).map_or(&self.hardware, |other| &other.hardware)
    }

    /// Whether a VM takes something over from the one it replaces.
    pub fn inherits(&self, vm: &str, what: Inherit) -> bool {
        self.inherit.get(vm).is_none_or(|all| all.contains(&what))
    }
}

/// A disk that may be destroyed although it holds more than the system: `1110:scsi1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DoomedDisk {
    /// The VM.
    pub vmid: VmId,
    /// The key of its configuration.
    pub key: String,
}

impl std::fmt::Display for DoomedDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.vmid, self.key)
    }
}

impl FromStr for DoomedDisk {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a VMID and a disk of it such as 1110:scsi1");
        let (vmid, key) = text.split_once(':').ok_or_else(malformed)?;
        let vmid = vmid.parse().map_err(|_| malformed())?;
        if property::is_drive(key) { Ok(Self { vmid: VmId(vmid), key: key.to_owned() }) } else { Err(malformed()) }
    }
}

/// Time limits, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// A clean shutdown, before the plug is pulled.
    pub shutdown: u64,
    /// From power on until an API answers.
    pub boot: u64,
    /// Until the cluster is healthy.
    pub health: u64,
    /// A PVE task.
    pub task: u64,
    /// How long nodes must stay Ready.
    pub steady: u64,
    /// Draining a node.
    #[serde(default = "drain")]
    pub drain: u64,
}

/// What plans say that were made before drains had a limit.
fn drain() -> u64 {
    300
}

/// One VM of the cluster, as the profile wants it: a row of the plan's table and of `vms[]` in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct PlannedVm {
    /// Name of VM, machine and Kubernetes node.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Number.
    pub vmid: VmId,
    /// PVE node.
    pub node: NodeName,
    /// Address; none = discovered.
    pub address: Option<IpAddr>,
    /// Virtual CPUs.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Boot disk in GiB.
    pub disk_gib: u64,
    /// MAC of the first NIC; none asked for = taken over from the old VM, else made for the run.
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// The VM it replaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<VmId>,
}
