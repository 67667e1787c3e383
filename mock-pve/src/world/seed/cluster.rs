//! Talos clusters.
//!
//! Purpose: clusters that already run, and which VMs are their machines, as a seed has them. Must not know: how any of
//! it is kept.

use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A Talos cluster that already runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSeed {
    /// Its name.
    pub name: String,
    /// Talos version without `v`.
    pub talos: String,
    /// Kubernetes version without `v`.
    pub kubernetes: String,
    /// The Kubernetes endpoint, `https://192.168.178.41:6443`.
    pub endpoint: String,
    /// Schematic ID of the machines, 64 hex digits.
    pub schematic: String,
    /// The `secrets.yaml` of the cluster.
    pub secrets_file: PathBuf,
    /// Pod network; Talos' default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<IpNet>,
    /// Service network; Talos' default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_cidr: Option<IpNet>,
    /// How many keys its etcd holds beside those of Kubernetes itself.
    #[serde(default)]
    pub keys: u64,
    /// What runs in it besides: Kubernetes objects (deployments, disruption budgets, volumes …) as in a manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workloads: Vec<Map<String, Value>>,
}

/// A VM that is a machine of a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSeed {
    /// The VM.
    pub vmid: u32,
    /// The cluster's name.
    pub cluster: String,
    /// `controlplane` or `worker`.
    pub role: MachineRole,
    /// Host name.
    pub name: String,
    /// Address and prefix length.
    pub address: IpNet,
}

/// What a machine does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MachineRole {
    /// Runs etcd and the Kubernetes API.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}
