//! Virtual machines and pools.
//!
//! Purpose: what runs on the nodes, and how it is grouped, as a seed has it. Must not know: how any of it is kept.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A virtual machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VmSeed {
    /// Its number.
    pub vmid: u32,
    /// The node it is on; the first one when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its name; `config.name` does the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `running` or `stopped` (when absent).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The lines of its config file; volumes it names are made, empty, in the size that `size=` says.
    pub config: BTreeMap<String, Value>,
}

/// A resource pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PoolSeed {
    /// Its id.
    pub poolid: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Members: VMIDs.
    #[serde(default)]
    pub vms: Vec<u32>,
    /// Members: storages.
    #[serde(default)]
    pub storages: Vec<String>,
}
