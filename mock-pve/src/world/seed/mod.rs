//! What a world contains when it begins.
//!
//! Purpose: the seed file, as data. It accepts the conformance suite's initial state, and on top of it several nodes,
//! networks, machines and clusters. Must not know: how any of it is kept or run. Start at [`Seed`].

mod access;
mod cluster;
mod factory;
mod guest;
mod node;
mod storage;
mod usual;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::access::{AclSeed, GroupSeed, RealmSeed, TokenSeed, UserSeed};
pub use self::cluster::{ClusterSeed, MachineRole, MachineSeed};
pub use self::factory::FactorySeed;
pub use self::guest::{PoolSeed, VmSeed};
pub use self::node::{Dial, Emulates, NetworkSeed, NodeSeed};
pub use self::storage::{StorageSeed, VolumeSeed};

/// Why a seed can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// The file can't be read.
    #[error("can't read the seed {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not a seed.
    #[error("the seed {} is malformed", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Line, column and what was expected.
        #[source]
        source: serde_json::Error,
    },
}

/// The contents of a world at its beginning.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seed {
    /// Free text for readers of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The version that is emulated; `Options::pve` decides where it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emulates: Option<Emulates>,
    /// A single node; `nodes` is the general form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeSeed>,
    /// The nodes of the PVE cluster.
    pub nodes: Vec<NodeSeed>,
    /// Name of the PVE cluster; needed with several nodes, absent on a standalone one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_name: Option<String>,
    /// `/cluster/options` as the API shows them.
    pub cluster_options: Map<String, Value>,
    /// SDN zones, as the API shows them.
    pub sdn_zones: Vec<Value>,
    /// HA resources, as the API shows them.
    pub ha_resources: Vec<Map<String, Value>>,
    /// Replication jobs, as the API shows them.
    pub replication_jobs: Vec<Map<String, Value>>,
    /// Backup jobs, as the API shows them.
    pub backup_jobs: Vec<Map<String, Value>>,
    /// Cluster firewall options.
    pub firewall: Map<String, Value>,
    /// Login realms.
    pub realms: Vec<RealmSeed>,
    /// Users with their tokens.
    pub users: Vec<UserSeed>,
    /// User groups.
    pub groups: Vec<GroupSeed>,
    /// Roles made by the administrator: name → privileges.
    pub roles: BTreeMap<String, Vec<String>>,
    /// The roles that come with the version; ours are used where this is absent.
    pub builtin_roles: BTreeMap<String, Vec<String>>,
    /// Access control entries.
    pub acl: Vec<AclSeed>,
    /// Resource pools.
    pub pools: Vec<PoolSeed>,
    /// Virtual machines.
    pub vms: Vec<VmSeed>,
    /// Storages.
    pub storages: Vec<StorageSeed>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub storage_paths: Option<Value>,
    /// Volumes that exist beside those of VMs, such as uploaded images.
    pub volumes: Vec<VolumeSeed>,
    /// Free text about guests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Value>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limits: Option<Value>,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identities: Option<Value>,
    /// Values of the secrets that users and tokens name; the environment is asked for those that are not here.
    #[serde(skip_serializing)]
    pub secrets: BTreeMap<String, String>,
    /// Networks behind the bridges, with their DHCP ranges.
    pub networks: Vec<NetworkSeed>,
    /// Where machines' addresses really listen.
    pub dial: Vec<Dial>,
    /// Talos clusters that already run.
    pub clusters: Vec<ClusterSeed>,
    /// Which VM is which machine of which cluster.
    pub machines: Vec<MachineSeed>,
    /// What goes wrong on machines, once each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub machine_faults: Vec<super::machine::MachineFault>,
    /// What the Image Factory offers.
    pub factory: FactorySeed,
}

impl Seed {
    /// Reads a seed file.
    pub fn load(path: &Path) -> Result<Self, SeedError> {
        let text = std::fs::read_to_string(path).map_err(|source| SeedError::Read { path: path.to_owned(), source })?;
        serde_json::from_str(&text).map_err(|source| SeedError::Malformed { path: path.to_owned(), source })
    }

    /// The nodes, whichever way the file gives them.
    pub fn all_nodes(&self) -> Vec<NodeSeed> {
        let nodes: Vec<NodeSeed> = self.node.iter().chain(&self.nodes).cloned().collect();
        if nodes.is_empty() {
            vec![NodeSeed { name: "pve1".to_owned(), ip: Some([192, 0, 2, 2].into()), ..NodeSeed::default() }]
        } else {
            nodes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_is_refused_and_an_empty_seed_has_a_node() {
        assert!(serde_json::from_str::<Seed>(r#"{"storage": []}"#).is_err());
        let empty: Seed = serde_json::from_str("{}").unwrap();
        assert_eq!(empty.all_nodes()[0].name, "pve1");
    }
}
