//! Storages and volumes.
//!
//! Purpose: where disks and images are, as a seed has it. Must not know: how any of it is kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A storage, with its options as in `storage.cfg`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StorageSeed {
    /// Its id.
    pub storage: String,
    /// `dir`, `lvmthin`, `lvm`, `zfspool`, `nfs`, `cifs`, `btrfs`, `rbd`, `pbs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How much it holds, in GiB; 500 when absent. Of our own: the original asks the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity_gib: Option<f64>,
    /// Everything else, as the API shows it.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// A volume.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeSeed {
    /// Its id, `local:iso/x.iso`.
    pub volid: String,
    /// The node whose copy of a local storage holds it; the first one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `images`, `import`, `iso`, …
    pub content: String,
    /// `raw`, `qcow2`, `iso`, …
    pub format: String,
    /// Size that a guest would see, in bytes.
    pub virtual_size: u64,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
