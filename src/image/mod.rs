//! Disk images: which one, from where, whether it is whole, and in what shape it travels.
//!
//! Purpose: `schematic` names what an image is made from, `factory` asks the Image Factory about it, `cache` brings its
//! file here (through `source`) and keeps it, `walker` turns the file into the disk's non-zero content whatever its
//! encoding (`disk` picks the decoder: `xz_blocks` where it can, `xz_streams`, `zstd_frames`, gzip, qcow2 for the rest),
//! `talos_disk` says whether that is a Talos disk, `qcow2` gives the content the shape Proxmox VE imports, `sink` sends it
//! straight into a volume, `fanout` lets several of both take one reading.
//! Must not know: plans, steps, profiles, Proxmox VE's API, terminals. Progress goes to a [`crate::net::Meter`].
//! Start reading at `walker`: everything after the download stands on its stream of extents.
//!
//! Reading and hashing whole images is blocking work: functions that do it say so, and [`inspect`] and
//! [`Qcow2::prepare`] put it on a blocking thread themselves.

mod cache;
mod disk;
mod extensions;
mod factory;
mod fanout;
mod input;
mod inspect;
mod part;
mod qcow2;
mod schematic;
#[cfg(test)]
mod server;
mod sink;
mod sniff;
mod source;
mod talos_disk;
mod walker;
mod xz;
mod xz_blocks;
mod xz_stored;
mod xz_streams;
mod zstd_frames;

pub use cache::{Cache, Cached, Kept, Meters};
pub use extensions::{UnknownExtension, check_extensions};
pub use factory::{
    Arch, Boot, Build, Encoding, Extension, Factory, FactoryError, ImageHead, InstallerHead, Submitted, installer_name,
};
pub use fanout::{Chunks, Fanout, GivenUp};
pub use inspect::{ClusterMap, Inspected, inspect};
pub use qcow2::{Qcow2, Qcow2Error, Qcow2Stream};
pub use schematic::{
    Bootloader, Customization, DiskImage, EnrollKeys, Meta, NotLocal, Overlay, Schematic, SchematicError, SecureBoot,
    SystemExtensions,
};
pub use sink::{Destination, ExtentStream, Settled, Stored, Unwritten, extents, receiver};
pub use source::{FetchError, Wanted};
pub use talos_disk::NotTalos;
pub use walker::{Content, Extent, Limits, WalkError};
