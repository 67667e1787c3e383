//! A snapshot of etcd in a document.

use schemars::JsonSchema;
use serde::Serialize;

use crate::types::{RunId, Sha256};

/// A snapshot's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Snapshot {
    /// Where it lies.
    pub file: String,
    /// Its size, when there is such a file.
    pub bytes: Option<u64>,
    /// What its name says it was taken for: `before`, `final` or `manual`.
    pub purpose: Option<String>,
    /// When, in UTC, by its name.
    pub taken: Option<String>,
    /// By which run, by its name.
    pub run: Option<RunId>,
    /// Unfinished runs that need it.
    pub needed_by: Vec<RunId>,
    /// What it was found to hold; none when it wasn't read, or can't be relied on.
    pub holds: Option<SnapshotHolds>,
    /// Its copies elsewhere that this verb made.
    pub copies: Vec<SnapshotCopy>,
}

/// What a proven snapshot holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotHolds {
    /// The SHA-256 in its trailer.
    pub sha256: Sha256,
    /// Who made that trailer: `etcd`, or `ours` for a database file that recast closed.
    pub trailer: String,
    /// etcd's revision.
    pub revision: i64,
    /// Up to which revision it was compacted; 0 for never.
    pub compacted: i64,
    /// Keys that live at the revision.
    pub keys: u64,
    /// Leases.
    pub leases: u64,
    /// UID of the namespace kube-system: whose data these are.
    pub namespace_uid: Option<String>,
    /// The cluster's etcd version.
    pub etcd: Option<String>,
    /// Names of etcd's members.
    pub members: Vec<String>,
    /// The last raft entry that was applied.
    pub consistent_index: Option<u64>,
    /// Its term.
    pub term: Option<u64>,
    /// What `etcdctl snapshot status` calls hash.
    pub hash: String,
    /// What it calls total keys.
    pub total_keys: u64,
    /// What it calls total size.
    pub total_size: u64,
}

/// A copy elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SnapshotCopy {
    /// Where.
    pub place: String,
    /// SHA-256 of the whole file, as `sha256sum` prints it.
    pub sha256: Sha256,
    /// Whether it is a second place: `yes`, `same-device` or `not-read-back`.
    pub counts: String,
}
