//! Snapshots of etcd.
//!
//! Must not know: where they are kept.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::Subcommand;

/// `recast snapshot`.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Take one from a healthy control plane, prove it, and make the profile's second copies
    Save {
        /// Print what would be done and stop: exit 2
        #[arg(long)]
        dry_run: bool,
    },
    /// Prove files: the hash, every page, every record of etcd. Needs no profile and no network
    Verify {
        /// Snapshots
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List those in the profile's backup folder
    List,
    /// Delete old ones, but never what an unfinished run needs, or the way back from the last one
    Prune {
        /// How many of each purpose are kept [default: the profile's backup.keep]
        #[arg(long, value_name = "N", env = "RECAST_KEEP")]
        keep: Option<NonZeroU32>,
        /// Print what would be deleted and stop: exit 2 if there is anything
        #[arg(long)]
        dry_run: bool,
    },
}
