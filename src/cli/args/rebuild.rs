//! Verbs that make a cluster or take one away: rebuild, create, teardown.
//!
//! Must not know: where a profile and its site stand, and what they say.

use std::path::PathBuf;

use clap::Args;

use super::schematic::SchematicWish;
use crate::plan::wanted::DoomedDisk;
use crate::types::VersionWish;

/// What the new cluster shall be.
#[derive(Clone, Debug, Default, Args)]
pub struct Wishes {
    /// Talos version: 1.13.9, 1.13 or latest [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<VersionWish>,
    /// Kubernetes version, with its patch: 1.35.0 [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<VersionWish>,
    /// What images are made from.
    #[command(flatten)]
    pub made_from: SchematicWish,
    /// A disk, or the local volumes on one, that may be destroyed with its VM; may be given more than once
    #[arg(long = "destroy-disk", value_name = "VMID:KEY")]
    pub destroy_disks: Vec<DoomedDisk>,
}

/// `recast rebuild`.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// What to rebuild to.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Start from this snapshot instead of the running cluster's data, which is lost
    #[arg(long, value_name = "FILE", conflicts_with = "fresh")]
    pub restore: Option<PathBuf>,
    /// Keep nothing of the old cluster's data: no backup, a new empty etcd
    #[arg(long)]
    pub fresh: bool,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast create`.
#[derive(Debug, Args)]
pub struct Create {
    /// What to create.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Bring back the cluster that this snapshot is of
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast teardown`.
#[derive(Debug, Args)]
pub struct Teardown {
    /// Without a backup: everything is lost
    #[arg(long)]
    pub force: bool,
    /// A disk, or the local volumes on one, that may be destroyed with its VM; may be given more than once
    #[arg(long = "destroy-disk", value_name = "VMID:KEY")]
    pub destroy_disks: Vec<DoomedDisk>,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}
