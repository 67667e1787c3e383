//! Virtual machines: those that a run makes, those that it destroys, and what tells one from another.
//!
//! Must not know: what runs in them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{NodeName, VmId, VolumeId};

/// PVE configuration keys with their values in PVE's own syntax (qemu-server, `PVE/QemuServer.pm`).
pub type Hardware = BTreeMap<String, String>;

/// A VM that this run makes, or that an earlier run of recast made: recognised by its mark, never by its number alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OurVm {
    /// The PVE host it lives on.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// The line in its description that proves that this run made it: `recast: run=… step=… cluster=…`.
    pub mark: String,
}

/// All that tells one VM from another that took its number: compared with what runs right before anything is destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmIdentity {
    /// The PVE host it lives on.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// The VM generation id, where it has one.
    pub vmgenid: Option<String>,
    /// Its tags, lower case, sorted.
    pub tags: Vec<String>,
    /// `ctime` of the `meta` key: Unix seconds of its creation.
    pub created: Option<u64>,
    /// Every volume it refers to, by config key (`scsi0`, `efidisk0`, `unused0` …).
    pub disks: BTreeMap<String, VolumeId>,
}

/// How the HA manager looks after a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaCare {
    /// Requested state: `started`, `stopped`, `disabled`, `ignored`.
    pub state: String,
    /// Its group, before PVE 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Restarts on a node before it is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart: Option<u64>,
    /// Moves before it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_relocate: Option<u64>,
    /// A person's note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}
