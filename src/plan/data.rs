//! What becomes of etcd's data, and what the steps that save and restore it talk about.
//!
//! Must not know: clients, files, clocks. Start reading at [`Data`].

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::step::VmIdentity;
use crate::types::{Role, Sha256, StepId, VmId};

/// What becomes of the old cluster's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Data {
    /// None of it is kept: no backup, a new and empty etcd.
    #[default]
    Fresh,
    /// All of it: proven before anything is touched, frozen, saved once more, and restored from that.
    Keep(Keep),
    /// None of it; the new cluster starts from this snapshot file.
    Restore {
        /// The file.
        file: PathBuf,
        /// What was found in it when the plan was made.
        proof: Proven,
    },
}

/// Where snapshots go, and how old a proof may be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// The directory of snapshots.
    pub dir: PathBuf,
    /// Second copies.
    pub copies: Vec<CopyTo>,
    /// Seconds after which the snapshot from before is taken once more.
    pub max_age: u64,
    /// Whether a plan without a second copy is refused.
    pub require_copy: bool,
}

/// Where a second copy of a snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CopyTo {
    /// A directory on another device.
    Path(PathBuf),
    /// A directory on another host.
    Ssh {
        /// The host.
        host: String,
        /// The directory there.
        path: String,
    },
    /// A command that gets the snapshot on stdin.
    Command {
        /// It.
        save: String,
        /// One that writes the copy to stdout again.
        read: Option<String>,
    },
}

impl std::fmt::Display for CopyTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Ssh { host, path } => write!(f, "{host}:{path}"),
            Self::Command { save, .. } => write!(f, "command '{save}'"),
        }
    }
}

/// What a proof found in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Digest of the database, which is the file without its trailer.
    pub sha256: Sha256,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Etcd's revision.
    pub revision: u64,
    /// Keys that are there at that revision.
    pub keys: u64,
    /// The UID of the namespace `kube-system`: which cluster it is of.
    pub namespace_uid: Option<String>,
}

/// What a snapshot is taken for; part of its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The proof of backup, before the old cluster is touched.
    Before,
    /// What the new cluster starts from, when no write can be acknowledged any more.
    Final,
}

impl std::fmt::Display for Purpose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Before => "before",
            Self::Final => "final",
        })
    }
}

/// Which machine a snapshot is taken from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotFrom {
    /// Etcd's leader among these.
    Leader(Vec<OldMachine>),
    /// The one that this step kept.
    Kept(StepId),
}

/// What etcd is recovered from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotSource {
    /// What this step saved.
    Step(StepId),
    /// A file that was proven when the plan was made.
    File {
        /// It.
        path: PathBuf,
        /// Digest of the database in it.
        sha256: Sha256,
    },
}

/// A machine of the old cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OldMachine {
    /// Its VM.
    pub vm: VmIdentity,
    /// What it is in the cluster.
    pub role: Role,
    /// Where it answers, where known.
    pub address: Option<IpAddr>,
}

/// What the HA manager was told to do with a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaState {
    /// The VM.
    pub vmid: VmId,
    /// `started`, `stopped`, `disabled` …
    pub state: String,
}
