//! Machines: what their configurations are made from, where they are looked for, and what they must be in the end.
//!
//! Must not know: secrets; a patch is named by where it stands.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{Mac, MachineName, Role, SchematicId, Sha256, StepId, Version};

/// How the addresses of machines without a config are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// The machine answers on this address as soon as it boots (a DHCP reservation).
    Static(IpAddr),
    /// Ask the guest agent, through PVE, for the addresses of the NIC with the machine's MAC.
    Agent,
    /// Try every host of this network, in CIDR notation, on Talos' port.
    Scan(String),
}

/// Where a patch of a machine's configuration stands. Its text may hold a secret, so it is never in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PatchAt {
    /// In this file.
    File(PathBuf),
    /// In the profile, inline.
    Profile {
        /// The profile's file.
        profile: PathBuf,
        /// The index in `talos.config_patches`.
        index: usize,
    },
}

/// What a machine's configuration is made from, secrets aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Host name.
    pub name: MachineName,
    /// Machine type.
    pub role: Role,
    /// The NIC whose network is configured.
    pub mac: Mac,
    /// The static address with its prefix length, `192.168.178.41/24`; without one the machine stays on DHCP.
    pub address: Option<String>,
    /// Default route.
    pub gateway: Option<IpAddr>,
    /// DNS servers.
    pub nameservers: Vec<IpAddr>,
    /// Reference of its installer image, where it isn't the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<String>,
    /// The user's own patches for it, in the order in which they are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchAt>,
    /// The whole configuration, as an earlier run found it on the machine: nothing is generated or patched then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<PathBuf>,
    /// SHA-256 of the rendered configuration, so that a resumed run applies the very same one.
    pub digest: Sha256,
}

/// What a machine must be when all is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedMachine {
    /// Its name.
    pub machine: MachineName,
    /// The step that waited for it.
    pub at: StepId,
    /// The version it runs.
    pub version: Version,
    /// What its image was made from.
    pub schematic: SchematicId,
}
