//! Nodes, their storages and networks, and what the cluster says about rights, HA, backup and replication.
//!
//! Purpose: the reads that `check` and the planner stand on. Lists leave out what the caller may not see, so an empty list
//! proves nothing: rights are asked for first. Must not know: what is wanted of a node.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::client::Pve;
use super::decode;
use super::encode::{Form, path};
use super::error::PveError;
use crate::types::{NodeName, StorageId, VmId};

/// A member of the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Its name.
    pub node: NodeName,
    /// `online`, `offline` or `unknown`.
    pub status: String,
    /// SHA-256 of its certificate: how a pinned connection learns the others' pins.
    #[serde(default)]
    pub ssl_fingerprint: Option<String>,
}

impl Node {
    /// Whether the cluster sees it.
    pub fn is_online(&self) -> bool {
        self.status == "online"
    }
}

/// A member's place in the cluster's network.
#[derive(Clone, Debug, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    #[serde(default)]
    pub ip: Option<String>,
    /// Whether it is the one that answered.
    #[serde(default, deserialize_with = "decode::flag")]
    pub local: bool,
    /// Whether the cluster sees it.
    #[serde(default, deserialize_with = "decode::flag")]
    pub online: bool,
}

/// What the cluster says of itself.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// Its name; a single node has none.
    pub name: Option<String>,
    /// Whether changes are possible.
    pub quorate: bool,
    /// Its members.
    pub members: Vec<Member>,
}

/// A node's load and memory.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeStatus {
    /// Seconds since its boot.
    #[serde(deserialize_with = "decode::int")]
    pub uptime: u64,
    /// Memory in bytes.
    pub memory: Usage,
    /// The root file system in bytes; an upload needs room there on its way.
    #[serde(default)]
    pub rootfs: Option<Usage>,
    cpuinfo: CpuInfo,
}

impl NodeStatus {
    /// Logical processors.
    pub fn cpus(&self) -> u64 {
        self.cpuinfo.cpus
    }
}

/// How much there is and how much of it is taken, in bytes.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Usage {
    /// All of it.
    #[serde(deserialize_with = "decode::int")]
    pub total: u64,
    /// What is taken.
    #[serde(deserialize_with = "decode::int")]
    pub used: u64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct CpuInfo {
    #[serde(deserialize_with = "decode::int")]
    cpus: u64,
}

/// A bridge, bond, card or vnet of a node.
#[derive(Clone, Debug, Deserialize)]
pub struct Interface {
    /// Its name.
    pub iface: String,
    /// `bridge`, `bond`, `eth`, `vnet` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether it is up.
    #[serde(default, deserialize_with = "decode::flag")]
    pub active: bool,
    /// Whether a bridge handles VLAN tags.
    #[serde(default, deserialize_with = "decode::flag")]
    pub bridge_vlan_aware: bool,
    /// Its address with prefix length.
    #[serde(default)]
    pub cidr: Option<String>,
}

/// A storage as one node has it now.
#[derive(Clone, Debug, Deserialize)]
pub struct NodeStorage {
    /// Its name.
    pub storage: StorageId,
    /// `dir`, `lvmthin`, `zfspool` …
    #[serde(rename = "type")]
    pub kind: String,
    /// What may lie on it, sorted.
    #[serde(default, deserialize_with = "decode::list")]
    pub content: Vec<String>,
    /// Whether it is the same on all nodes.
    #[serde(default, deserialize_with = "decode::flag")]
    pub shared: bool,
    /// Whether it isn't switched off.
    #[serde(default, deserialize_with = "decode::flag")]
    pub enabled: bool,
    /// Whether it works on this node.
    #[serde(default, deserialize_with = "decode::flag")]
    pub active: bool,
    /// Bytes in all.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub total: Option<u64>,
    /// Bytes free.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub avail: Option<u64>,
}

impl NodeStorage {
    /// Whether this content can be put there now.
    pub fn takes(&self, content: &str) -> bool {
        self.enabled && self.active && self.content.iter().any(|kind| kind == content)
    }
}

/// A storage as configured for the cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct StorageConfig {
    /// Its name.
    pub storage: StorageId,
    /// `dir`, `lvmthin`, `zfspool` …
    #[serde(rename = "type")]
    pub kind: String,
    /// What may lie on it, sorted.
    #[serde(default, deserialize_with = "decode::list")]
    pub content: Vec<String>,
    /// The nodes that have it; none named means all.
    #[serde(default, deserialize_with = "decode::list")]
    pub nodes: Vec<String>,
    /// Whether it is switched off.
    #[serde(default, deserialize_with = "decode::flag")]
    pub disable: bool,
    /// Directory of file storages.
    #[serde(default)]
    pub path: Option<String>,
}

/// An HA resource.
#[derive(Clone, Debug, Deserialize)]
pub struct HaResource {
    /// `vm:100`.
    pub sid: String,
    /// Requested state: `started`, `stopped`, `ignored` …
    #[serde(default)]
    pub state: Option<String>,
    /// Its group, before PVE 9.
    #[serde(default)]
    pub group: Option<String>,
    /// Restarts on a node before it is moved.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub max_restart: Option<u64>,
    /// Moves before it is given up.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub max_relocate: Option<u64>,
    /// A person's note.
    #[serde(default)]
    pub comment: Option<String>,
}

impl HaResource {
    /// The VM it is about, unless it is a container's.
    pub fn vmid(&self) -> Option<VmId> {
        self.sid.strip_prefix("vm:")?.parse().ok().map(VmId)
    }
}

/// A replication job.
#[derive(Clone, Debug, Deserialize)]
pub struct ReplicationJob {
    /// `100-0`.
    pub id: String,
    #[serde(deserialize_with = "decode::int")]
    guest: u64,
    /// The node it copies to.
    pub target: NodeName,
}

impl ReplicationJob {
    /// The guest it copies.
    pub fn vmid(&self) -> Option<VmId> {
        u32::try_from(self.guest).ok().map(VmId)
    }
}

/// A backup job.
#[derive(Clone, Debug, Deserialize)]
pub struct BackupJob {
    /// Its id.
    pub id: String,
    /// Guests it names, if it names any.
    #[serde(default, deserialize_with = "decode::list")]
    vmid: Vec<String>,
    /// Whether it takes all guests.
    #[serde(default, deserialize_with = "decode::flag")]
    pub all: bool,
    /// The pool it takes.
    #[serde(default)]
    pub pool: Option<String>,
}

impl BackupJob {
    /// Whether it names this guest.
    pub fn names(&self, vmid: VmId) -> bool {
        self.vmid.iter().any(|named| *named == vmid.to_string())
    }
}

/// What a caller may do on one ACL path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub BTreeSet<String>);

impl Rights {
    /// Whether it includes a privilege.
    pub fn has(&self, privilege: &str) -> bool {
        self.0.contains(privilege)
    }

    /// Which of these privileges are missing.
    pub fn missing<'a>(&self, wanted: &[&'a str]) -> Vec<&'a str> {
        wanted.iter().copied().filter(|privilege| !self.has(privilege)).collect()
    }
}

impl Pve {
    /// The members of the cluster.
    pub async fn nodes(&self) -> Result<Vec<Node>, PveError> {
        self.get("/nodes", &Form::new()).await
    }

    /// Quorum and addresses. Needs `Sys.Audit` on `/`.
    pub async fn cluster_status(&self) -> Result<ClusterStatus, PveError> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "lowercase")]
        enum Entry {
            Cluster {
                name: String,
                #[serde(default, deserialize_with = "decode::flag")]
                quorate: bool,
            },
            Node(Member),
        }
        let entries: Vec<Entry> = self.get("/cluster/status", &Form::new()).await?;
        // A single node has no cluster entry, and nobody to lose quorum with.
        let mut status = ClusterStatus { name: None, quorate: true, members: Vec::new() };
        for entry in entries {
            match entry {
                Entry::Cluster { name, quorate } => (status.name, status.quorate) = (Some(name), quorate),
                Entry::Node(member) => status.members.push(member),
            }
        }
        Ok(status)
    }

    /// A node's load and memory. Needs `Sys.Audit` on the node.
    pub async fn node_status(&self, node: &NodeName) -> Result<NodeStatus, PveError> {
        self.get(&path(&["nodes", node.as_str(), "status"]), &Form::new()).await
    }

    /// A node's bridges, vnets included where the caller may use them.
    pub async fn bridges(&self, node: &NodeName) -> Result<Vec<Interface>, PveError> {
        self.get(&path(&["nodes", node.as_str(), "network"]), &Form::new().with("type", "any_bridge")).await
    }

    /// The storages of a node as they are now, as far as the caller may see them.
    pub async fn node_storages(&self, node: &NodeName) -> Result<Vec<NodeStorage>, PveError> {
        self.get(&path(&["nodes", node.as_str(), "storage"]), &Form::new()).await
    }

    /// The storages as configured.
    pub async fn storage_configs(&self) -> Result<Vec<StorageConfig>, PveError> {
        self.get("/storage", &Form::new()).await
    }

    /// What the caller may do on an ACL path, which need not exist yet.
    pub async fn rights(&self, acl_path: &str) -> Result<Rights, PveError> {
        // A value is the propagate flag: a privilege is held when its key is there, also with 0.
        type Privileges = serde_json::Map<String, serde_json::Value>;
        let query = Form::new().with("path", acl_path);
        let mut paths: BTreeMap<String, Privileges> = self.get("/access/permissions", &query).await?;
        Ok(Rights(paths.remove(acl_path).unwrap_or_default().into_iter().map(|(privilege, _)| privilege).collect()))
    }

    /// All HA resources. Needs `Sys.Audit` on `/`.
    pub async fn ha_resources(&self) -> Result<Vec<HaResource>, PveError> {
        self.get("/cluster/ha/resources", &Form::new()).await
    }

    /// All replication jobs that the caller may see.
    pub async fn replication_jobs(&self) -> Result<Vec<ReplicationJob>, PveError> {
        self.get("/cluster/replication", &Form::new()).await
    }

    /// All backup jobs. Needs `Sys.Audit` on `/`.
    pub async fn backup_jobs(&self) -> Result<Vec<BackupJob>, PveError> {
        self.get("/cluster/backup", &Form::new()).await
    }
}
