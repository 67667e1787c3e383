//! Nodes and networks.
//!
//! Purpose: the members of a PVE cluster, and what is behind their bridges, as a seed has them. Must not know: how any
//! of it is kept.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The emulated version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Emulates {
    /// `8.4.21`.
    pub version: String,
    /// `8.4`.
    pub release: String,
    /// Name of the node that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// One node of the PVE cluster.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeSeed {
    /// Its name.
    pub name: String,
    /// Its address, as shown; nothing listens there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Whether it is in no cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standalone: Option<bool>,
    /// Logical CPUs; 16 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory in MiB; 65536 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// `N/network` as the API shows it; one bridge `vmbr0` when absent.
    pub network: Vec<Map<String, Value>>,
}

/// The network behind a bridge.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSeed {
    /// The bridge.
    pub bridge: String,
    /// Its addresses.
    pub subnet: IpNet,
    /// The router.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// First and last address that DHCP gives out; no DHCP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dhcp: Option<[IpAddr; 2]>,
}

/// Connections to `from` really go to `to`; the host bits are kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dial {
    /// What everything is called and shown.
    pub from: IpNet,
    /// Where it listens.
    pub to: IpNet,
}
