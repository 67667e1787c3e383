//! What the gates judge: what was seen from this computer, beside the site and the cluster.
//!
//! Must not know: how it is looked at, and what is refused.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::plan::observed::Finding;
use crate::types::{NodeName, Version, VmId};

/// What was seen from this computer, beside the site and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// What becomes of etcd's data.
    pub data: Source,
    /// Rules between this profile and those beside it that are broken.
    pub siblings: Vec<Finding>,
    /// VMs of the cluster on nodes that are down: nothing can be read or done there.
    pub out_of_reach: Vec<(VmId, String, NodeName)>,
    /// What recast needs while the cluster is away, and where it is.
    pub services: Vec<Service>,
    /// Programs that will be needed and aren't there, with what for.
    pub missing_programs: Vec<(String, String)>,
    /// The profile's repository, where it is to be committed.
    pub repository: Option<Repository>,
    /// Where snapshots go, when there will be any.
    pub backup: Option<Backup>,
}

/// Where the new cluster's data come from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// Nowhere, or there is no new cluster and nothing is saved.
    #[default]
    Nothing,
    /// The running cluster.
    Running,
    /// A snapshot file.
    File(Snapshot),
}

/// A snapshot file.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// It.
    pub file: PathBuf,
    /// What its proof found wrong, with hints.
    pub damage: Option<(String, Vec<String>)>,
    /// The UID of `kube-system` in it.
    pub namespace_uid: Option<String>,
    /// etcd's own version of the cluster in it, `3.6.0`.
    pub etcd: Option<String>,
    /// The Kubernetes that wrote it, as far as is known.
    pub kubernetes: Option<Version>,
}

/// Something that recast needs while the cluster is away.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is: `Proxmox VE`, `the Image Factory`.
    pub what: String,
    /// Where it is; any of these will do.
    pub hosts: Vec<Host>,
}

/// A host with its addresses.
#[derive(Clone, Debug)]
pub struct Host {
    /// As it is written.
    pub name: String,
    /// What it resolves to; none when it doesn't.
    pub addresses: Vec<IpAddr>,
}

/// The repository that the profile is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repository {
    /// There is none.
    Missing,
    /// The profile in it is as it was committed.
    Clean,
    /// Profile or lock have changes that aren't committed.
    Changed,
}

/// Where snapshots go.
#[derive(Clone, Debug, Default)]
pub struct Backup {
    /// The folder.
    pub dir: PathBuf,
    /// Why nothing can be written there.
    pub unusable: Option<String>,
    /// Free bytes there, where that is known.
    pub free: Option<u64>,
    /// Size of etcd's database, where that is known.
    pub database: Option<u64>,
    /// The second copies.
    pub copies: Vec<SecondCopy>,
    /// Whether a run without one is refused.
    pub required: bool,
}

/// Where a second copy goes.
#[derive(Clone, Debug)]
pub struct SecondCopy {
    /// It, for people.
    pub place: String,
    /// Why it can't be used, or doesn't count.
    pub state: CopyState,
}

/// Whether a second copy counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// It does, or will show when it is written.
    Counts,
    /// It lies on the same device as the first.
    SameDevice,
    /// Nothing can read it back.
    Unreadable,
    /// Nothing can be written there.
    Unusable(String),
}
