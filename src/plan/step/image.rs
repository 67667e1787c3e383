//! The image and where it goes: what is fetched, and the volumes that a run allocates for it.
//!
//! Must not know: how bytes get there.

use serde::{Deserialize, Serialize};

use crate::types::{NodeName, SchematicId, Sha256, Version, VmId, VolumeId};

/// One disk image of the Image Factory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it is fetched.
    pub url: String,
    /// What it was made from.
    pub schematic: SchematicId,
    /// The Talos version in it.
    pub version: Version,
    /// The digest of the bytes at the URL, when the lock has one. Without it the first download is pinned.
    pub sha256: Option<Sha256>,
    /// Size at the URL as a HEAD answered.
    pub bytes: u64,
}

/// A volume that this run allocates itself. Its name holds the run's id: whoever finds it knows whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVolume {
    /// The node it is reached from.
    pub node: NodeName,
    /// The VM it is meant for, which need not exist yet.
    pub vmid: VmId,
    /// Its id: `local-lvm:vm-101-recast-<run>`, `local:101/vm-101-recast-<run>.raw`.
    pub volume: VolumeId,
}

impl NodeVolume {
    /// The storage it lies on.
    pub fn storage(&self) -> &str {
        self.volume.as_str().split(':').next().unwrap_or_default()
    }

    /// Its name as `pvesm alloc` takes it: without storage and folder.
    pub fn name(&self) -> &str {
        self.volume.as_str().rsplit(['/', ':']).next().unwrap_or_default()
    }
}

/// What a new volume holds where nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unwritten {
    /// Zeros: thin volumes, new files.
    Zeros,
    /// What was on the disk before: thick LVM.
    Garbage,
}
