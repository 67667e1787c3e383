//! What a world contains when it begins.
//!
//! Purpose: the seed file, as data. It accepts the conformance suite's initial state, and on top of it several nodes,
//! networks, machines and clusters. Must not know: how any of it is kept or run. Start at [`Seed`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// A login realm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RealmSeed {
    /// Its id.
    pub realm: String,
    /// `pam`, `pve`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Shown in the login form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserSeed {
    /// `name@realm`.
    pub userid: String,
    /// 0 locks the user out; 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable: Option<u8>,
    /// Unix time; 0 is never.
    pub expire: u64,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Name of a secret (upper-case letters, digits and `_`), or the password itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Groups it is in.
    pub groups: Vec<String>,
    /// Its API tokens.
    pub tokens: Vec<TokenSeed>,
}

/// An API token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenSeed {
    /// The part after `!`.
    pub tokenid: String,
    /// 1: only rights given to the token itself. 1 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub privsep: Option<u8>,
    /// Unix time; 0 is never.
    pub expire: u64,
    /// Free text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Name of a secret, or the secret itself; made up when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// A group of users.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct GroupSeed {
    /// Its id.
    pub groupid: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// An access control entry.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AclSeed {
    /// `/`, `/vms/100`, …
    pub path: String,
    /// `user`, `group` or `token`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is for.
    pub ugid: String,
    /// What it gives.
    pub roleid: String,
    /// 1: holds below the path too. 1 when absent.
    #[serde(default = "one")]
    pub propagate: u8,
}

fn one() -> u8 {
    1
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

/// What the Image Factory offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactorySeed {
    /// Talos versions without `v`, oldest first.
    pub talos_versions: Vec<String>,
    /// Schematics that are known from the start, as YAML.
    pub schematics: Vec<String>,
}

impl Default for FactorySeed {
    fn default() -> Self {
        let versions = [
            "1.5.5",
            "1.6.8",
            "1.7.7",
            "1.8.4",
            "1.9.6",
            "1.10.9",
            "1.11.0",
            "1.11.6",
            "1.12.0",
            "1.12.1",
            "1.12.2",
            "1.12.3",
            "1.12.4",
            "1.12.5",
            "1.12.6",
            "1.12.11",
            "1.13.0",
            "1.13.1",
            "1.13.2",
            "1.13.3",
            "1.13.4",
            "1.13.5",
            "1.13.6",
            "1.13.7",
            "1.13.8",
            "1.13.9",
            "1.14.0-rc.1",
        ];
        Self { talos_versions: versions.map(str::to_owned).to_vec(), schematics: Vec::new() }
    }
}

impl Seed {
    /// Reads a seed file.
    pub fn load(path: &Path) -> Result<Self, SeedError> {
        let text = std::fs::read_to_string(path).map_err(|source| SeedError::Read { path: path.to_owned(), source })?;
        serde_json::from_str(&text).map_err(|source| SeedError::Malformed { path: path.to_owned(), source })
    }

    /// One node with the usual storages and a user `recast@pve` whose token `ci` has a role made for rebuilding.
    pub fn single_node() -> Self {
        let storage = |name: &str, kind: &str, options: Value| StorageSeed {
            storage: name.to_owned(),
            kind: kind.to_owned(),
            capacity_gib: None,
            options: options.as_object().cloned().unwrap_or_default(),
        };
        Self {
            nodes: vec![NodeSeed { name: "pve1".to_owned(), ip: Some([192, 0, 2, 2].into()), ..NodeSeed::default() }],
            realms: vec![
                RealmSeed {
                    realm: "pam".to_owned(),
                    kind: "pam".to_owned(),
                    comment: Some("Linux PAM standard authentication".to_owned()),
                },
                RealmSeed {
                    realm: "pve".to_owned(),
                    kind: "pve".to_owned(),
                    comment: Some("Proxmox VE authentication server".to_owned()),
                },
            ],
            users: vec![
                UserSeed {
                    userid: "root@pam".to_owned(),
                    password: Some("PVE_PASSWORD".to_owned()),
                    ..UserSeed::default()
                },
                UserSeed {
                    userid: "recast@pve".to_owned(),
                    tokens: vec![TokenSeed { tokenid: "ci".to_owned(), privsep: Some(0), ..TokenSeed::default() }],
                    ..UserSeed::default()
                },
            ],
            roles: BTreeMap::from([("TalosRebuild".to_owned(), REBUILD_PRIVILEGES.map(str::to_owned).to_vec())]),
            acl: vec![AclSeed {
                path: "/".to_owned(),
                kind: "user".to_owned(),
                ugid: "recast@pve".to_owned(),
                roleid: "TalosRebuild".to_owned(),
                propagate: 1,
            }],
            storages: vec![
                storage(
                    "local",
                    "dir",
                    serde_json::json!({"path": "/var/lib/vz", "content": "backup,import,iso,snippets,vztmpl"}),
                ),
                storage(
                    "local-lvm",
                    "lvmthin",
                    serde_json::json!({"vgname": "pve", "thinpool": "data", "content": "images,rootdir"}),
                ),
            ],
            ..Self::default()
        }
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

/// Privileges of the role made for rebuilding clusters.
const REBUILD_PRIVILEGES: [&str; 25] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Pool.Audit",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

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
