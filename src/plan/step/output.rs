//! What steps find out, for later steps and for the report.
//!
//! Must not know: secrets; it is journaled as it is.

use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::types::{MachineName, Sha256};

/// What a step found out that later steps or the report need. Journaled, so it must hold no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Output {
    /// Nothing beyond the fact that it is done.
    #[default]
    Nothing,
    /// An image that lies in the cache.
    Image {
        /// Digest of the file as fetched.
        sha256: Sha256,
        /// Its size in bytes.
        bytes: u64,
        /// Size of the disk in it, in bytes.
        disk_bytes: u64,
        /// Digest of the disk's content: the same for every encoding (`image::content`).
        content: Sha256,
    },
    /// Where a machine answers.
    Machine {
        /// Its address.
        address: IpAddr,
        /// Base64 of the SHA-256 over the public key of its maintenance certificate, when it was in maintenance.
        pin: Option<String>,
        /// Its boot id, when it was configured.
        boot_id: Option<String>,
    },
    /// What was saved of the old cluster.
    Before {
        /// The directory.
        dir: PathBuf,
        /// Ids of etcd's members, 16 hex digits each.
        members: Vec<String>,
    },
    /// A proven snapshot.
    Snapshot {
        /// The file.
        file: PathBuf,
        /// Digest of the database in it.
        sha256: Sha256,
        /// Size of the file in bytes.
        bytes: u64,
        /// Etcd's revision in it.
        revision: u64,
        /// Keys that are there at that revision.
        keys: u64,
        /// The UID of the namespace `kube-system`.
        namespace_uid: Option<String>,
        /// When it was taken.
        taken: Timestamp,
        /// From which machine.
        machine: MachineName,
        /// The last raft entry in it.
        #[serde(default)]
        ends_at: Option<u64>,
    },
    /// A second copy that was read back.
    Copy {
        /// Where it lies, for people.
        place: String,
    },
    /// The control plane that holds the last word of etcd.
    Kept {
        /// It.
        machine: MachineName,
        /// Where it answers.
        address: IpAddr,
        /// Its etcd member, 16 hex digits.
        member: String,
        /// The raft term in which it was the leader and quorum was taken away.
        term: u64,
        /// The last raft index that it applied, which is the last that was ever committed.
        index: u64,
        /// Whether it is the only member: then writes go on until it is shut down.
        alone: bool,
        /// Tasks that had ever started an old VM when the freeze began: any other one was started since.
        starts: Vec<String>,
    },
    /// What the only control plane wrote between its final snapshot and its shutdown.
    Window {
        /// Etcd's revisions, at most.
        revisions: u64,
    },
    /// What etcd was recovered from.
    Restored {
        /// The snapshot's revision.
        revision: u64,
        /// Keys that are there at that revision.
        keys: u64,
        /// The UID of the namespace `kube-system` in it.
        namespace_uid: Option<String>,
    },
    /// What came back with the data and belonged to no machine.
    Removed {
        /// Names of Node objects that were deleted.
        nodes: Vec<String>,
        /// Names of etcd members that were removed.
        members: Vec<String>,
    },
    /// What became of the bootstrap manifests.
    Manifests {
        /// Objects that were made, as `Kind namespace/name`.
        created: Vec<String>,
        /// Objects that were changed.
        changed: Vec<String>,
        /// Objects that were deleted, as they left the manifests.
        pruned: Vec<String>,
    },
    /// What is not as ready as it was before.
    Workloads {
        /// In words.
        regressions: Vec<String>,
    },
    /// A commit.
    Commit {
        /// Its id.
        id: String,
    },
}
