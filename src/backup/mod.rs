//! Backups of etcd: read, proven, kept, copied, pruned.
//!
//! Purpose: a snapshot counts only once it was read back and understood. Its SHA-256 is recomputed, every page of the
//! database in it is reached by a reader of our own ([`bolt`]), etcd's own records are decoded ([`etcd`]), and what it
//! holds goes into a [`Proof`] that later phases compare with. [`Store`] receives, lists and prunes the files; [`copy`]
//! carries them elsewhere and reads them back.
//! Must not know: plans, clusters, who asks for a snapshot and why.
//! Start reading at [`proof::prove`], then [`store::Store::receive`].
//!
//! Snapshots hold every secret of a cluster: folders are 0700, files 0600.

pub mod bolt;
pub mod copy;
mod crc32c;
pub mod etcd;
pub mod file;
mod kubernetes;
pub mod name;
pub mod proof;
#[cfg(test)]
mod real_etcd;
pub mod store;
#[cfg(test)]
mod testing;

pub use copy::{Copied, Counts, Devices, Shell, Target};
pub use file::append_trailer;
pub use name::{Purpose, SnapshotName};
pub use proof::{Proof, ProofError, Trailer, prove};
pub use store::{Listed, Store, StoreError};
