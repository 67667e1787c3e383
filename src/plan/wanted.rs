//! What the profile, the site and the command line ask for, resolved: the planner's other input.
//!
//! Purpose: all wishes made definite (versions exact, names and numbers spelled out) before planning starts.
//! Must not know: files, clients.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::ClusterConfig;
use super::step::{Discovery, Hardware, MachineSpec};
use crate::types::{Mac, MachineName, NodeName, Role, RunId, SchematicId, Sha256, StorageId, Version, VmId};

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
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
    /// Where templates and canaries get their numbers.
    pub template_ids: RangeInclusive<u32>,
    /// How machines without a config are found.
    pub discovery: Vec<Discovery>,
    /// Time limits.
    pub limits: Limits,
    /// Most VMs that may be destroyed.
    pub max_destroy: Option<u32>,
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
