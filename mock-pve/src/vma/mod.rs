//! What a backup archive of a VM looks like, byte by byte.
//!
//! Purpose: write and read the original's VMA format, packed or not, so that its own `vma` takes what is written here and
//! the other way round. Must not know: virtual machines, storages, protocols. It is given readers, writers and bytes.
//! Start at [`Header`], then `write.rs` and `read.rs`; `packing.rs` is what is wrapped around it.
//!
//! A header holds configs and the list of devices. Extents follow: 512 bytes that say of up to 59 clusters of 64 KiB which
//! of their 16 blocks are not all zero, then just these blocks. Numbers are big-endian but for the length of a blob.

mod lzop;
mod packing;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;

pub use packing::{Packing, pack, unpack};
pub use read::{Reader, Totals};
pub use write::Writer;

/// Bytes of a block: what is left out when it is all zero.
pub const BLOCK: usize = 4096;
/// Bytes of a cluster: what has one entry in an extent.
pub const CLUSTER: usize = 16 * BLOCK;
/// Bytes of the fixed part of the header.
const HEADER: usize = 12_288;
/// Bytes of an extent's header.
const EXTENT: usize = 512;
/// Clusters of an extent.
const PER_EXTENT: usize = 59;
/// Configs that a header has room for.
const CONFIGS: usize = 256;
/// Where things are in the header.
mod at {
    pub(super) const UUID: usize = 8;
    pub(super) const TIME: usize = 24;
    pub(super) const SUM: usize = 32;
    pub(super) const BLOBS: usize = 48;
    pub(super) const BLOBS_SIZE: usize = 52;
    pub(super) const SIZE: usize = 56;
    pub(super) const NAMES: usize = 2044;
    pub(super) const DATA: usize = 3068;
    pub(super) const DEVICES: usize = 4096;
    /// The same in an extent's header.
    pub(super) const EXTENT_SUM: usize = 24;
    pub(super) const INFOS: usize = 40;
}

/// What an archive says before its data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Its own id; every extent repeats it.
    pub uuid: [u8; 16],
    /// Unix time.
    pub ctime: u64,
    /// Configs by file name, in order.
    pub configs: Vec<(String, Vec<u8>)>,
    /// Devices by number, from 1.
    pub devices: BTreeMap<u8, Device>,
}

/// A disk in an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// `drive-scsi0`.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

impl Header {
    /// The contents of a config.
    pub fn config(&self, name: &str) -> Option<&[u8]> {
        self.configs.iter().find(|(known, _)| known == name).map(|(_, data)| data.as_slice())
    }
}

/// Why an archive can't be read. The texts are those of the original's `vma`.
#[derive(Debug, thiserror::Error)]
pub enum VmaError {
    /// It ends, or can't be read at all.
    #[error("{what} - {source}")]
    Io {
        /// What was read.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It isn't one, or it is damaged.
    #[error("{0}")]
    Broken(String),
}

#[cfg(test)]
mod tests;
