//! What a Talos disk looks like, byte by byte.
//!
//! Purpose: make disks that are like the Image Factory's in all that a pipeline touches (a GPT, few extents of data in
//! much nothing, the same bytes for the same request) and judge, from bytes alone, whether a disk would boot.
//! Must not know: virtual machines, clusters, protocols. It is given paths and bytes.
//! Start reading at [`Recipe`], then `build.rs` (image from recipe) and `read.rs` (verdict from image); `record.rs` is
//! what a running machine keeps on its disk, `slots.rs` its two boot slots, `registry.rs` which images can be had.
//!
//! The image is 256 MiB with 16 MiB of data where the real one is 4247 MiB with some 250 MiB of data (Talos 1.11 and
//! later): the shape counts here, not the weight.

mod build;
pub mod catalogue;
mod gpt;
mod noise;
mod read;
mod record;
mod registry;
mod schematic;
mod slots;

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use build::build;
pub use catalogue::NotAvailable;
pub use gpt::{Partition, Table};
pub use read::{Verified, is_empty, is_partitioned, read};
pub use record::{Keep, Region, ephemeral, erase, load, provision, store, wipe};
pub use registry::{NoImage, NoInstaller, Reference, Registry, default_versions};
pub use schematic::{BadSchematic, Schematic, Signing};
pub use slots::{Meta, Slot, Staged, install, meta, slot, slot_boots, spoil, store_meta};

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes of a sector: what GPT counts in.
pub const SECTOR: u64 = 512;
/// Size of every image that [`build`] makes.
pub const IMAGE_BYTES: u64 = 256 * MIB;
/// The smallest EPHEMERAL partition that Talos will make (its volume provisioning asks for 2 GiB).
pub const EPHEMERAL_MIN: u64 = 2 << 30;

/// A system extension inside an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// The name as a schematic spells it, `siderolabs/qemu-guest-agent`.
    pub name: String,
    /// Its own version, which isn't Talos'.
    pub version: String,
    /// Who made it.
    pub author: String,
    /// One line on what it does.
    pub description: String,
}

/// All that decides an image's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// Talos' version with the `v`: `v1.13.9`.
    pub version: String,
    /// The schematic's id, 64 hex digits.
    pub schematic: String,
    /// What the schematic adds.
    pub extensions: Vec<Extension>,
    /// `extraKernelArgs` of the schematic.
    pub kernel_args: Vec<String>,
    /// Whether the boot files are signed for Secure Boot.
    pub signed: bool,
}

/// What an image says about itself, at the beginning of its BOOT partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// What it was made from.
    pub recipe: Recipe,
    /// Where the data lies, in order: offset and length in bytes.
    pub extents: Vec<(u64, u64)>,
    /// SHA-256 over the bytes of all extents in that order, in hex.
    pub sha256: String,
}

/// Why a disk would not boot, or could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The file can't be used at all.
    #[error("the disk {path} can't be used")]
    Io {
        /// The disk's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing on the disk.
    #[error("the first sector holds no partition table (it is {found})")]
    NoTable {
        /// What is there instead.
        found: &'static str,
    },
    /// The partition table is damaged.
    #[error("the {which} partition table is broken: {why}")]
    Table {
        /// `primary` or `backup`.
        which: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The disk is shorter than its partition table says.
    #[error("the disk ends at byte {bytes}, its partition table at byte {needed}: it was cut off")]
    Short {
        /// Bytes of the disk.
        bytes: u64,
        /// Bytes that the table needs.
        needed: u64,
    },
    /// A partition that Talos needs is absent.
    #[error("there is no partition {label}")]
    NoPartition {
        /// The label looked for.
        label: &'static str,
    },
    /// The boot files aren't Talos'.
    #[error("the boot partition is not readable: {why}")]
    Boot {
        /// What was found.
        why: String,
    },
    /// The data isn't what was shipped.
    #[error("the boot files are damaged: their SHA-256 is {found}, not {expected}")]
    Data {
        /// As the image says.
        expected: String,
        /// As the bytes are.
        found: String,
    },
    /// What a machine kept on its disk is damaged.
    #[error("the {label} partition is damaged: {why}")]
    Record {
        /// The partition.
        label: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The disk has no room for what Talos makes on first boot.
    #[error("the disk of {bytes} bytes leaves {free} bytes for EPHEMERAL, which needs at least {EPHEMERAL_MIN}")]
    NoRoom {
        /// Bytes of the disk.
        bytes: u64,
        /// What would be left.
        free: u64,
    },
}

impl DiskError {
    /// For `map_err` after a file operation on `path`.
    fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// The minor of a version text, `13` of `v1.13.9`; 0 when it has none.
pub fn minor(version: &str) -> u32 {
    version.trim_start_matches('v').split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests;
