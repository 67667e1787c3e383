//! Gives a disk's content the shape of a qcow2 file, without ever having that file.
//!
//! Purpose: Proxmox VE imports qcow2 by API (8.4 and later) and a qcow2 ships only the data: 216 MB instead of 4453 MB
//! for a Talos 1.13 disk. An upload needs its exact length and, so that the server verifies it, its SHA-256 before the
//! first byte. Both follow from the map of a first reading: `layout` places everything, `stream` decodes again and emits
//! the file in order, and makes sure at the end that it read the same content as before.
//! Must not know: HTTP, Proxmox VE.
//!
//! The format: QEMU's `docs/interop/qcow2.txt`, version 3, 64 KiB clusters, 16-bit reference counts, nothing optional.

mod layout;
mod read;
mod stream;

pub(super) use read::{Qcow2Reader, ReadError};
pub use stream::{Qcow2, Qcow2Error, Qcow2Stream};

#[cfg(test)]
mod readback;
