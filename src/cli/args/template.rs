//! Templates, and the images that they are made from.
//!
//! Must not know: which there are.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Wishes;

/// `recast template`.
#[derive(Debug, Subcommand)]
pub enum Template {
    /// Make the templates that the profile's nodes need, and try each with a canary; nothing else is touched
    Build(TemplateBuild),
    /// List the templates that recast made, on all nodes
    List,
    /// Delete old templates of this cluster's runs; never one with linked clones, nor one that recast did not make
    Prune(TemplatePrune),
    /// List or delete the image files that are kept on this computer
    #[command(subcommand)]
    Cache(TemplateCache),
}

/// `recast template prune`.
#[derive(Debug, Args)]
pub struct TemplatePrune {
    /// How many of each node and schematic are kept
    #[arg(long, value_name = "N", default_value_t = crate::cli::template::prune::KEEP, env = "RECAST_KEEP")]
    pub keep: NonZeroU32,
    /// Also those on storages that keep no record of linked clones (LVM-thin, btrfs)
    #[arg(long)]
    pub unrecorded: bool,
    /// Print what would be deleted and stop: exit 2 if there is anything
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast template cache`.
#[derive(Debug, Subcommand)]
pub enum TemplateCache {
    /// List them, the one used last first
    List,
    /// Delete those that were not used for longest, or all
    Prune {
        /// Until so many MiB are left [default: 0]
        #[arg(long, value_name = "MIB")]
        to: Option<u64>,
        /// Print what would be deleted and stop: exit 2 if there is anything
        #[arg(long)]
        dry_run: bool,
    },
}

/// `recast template build`.
#[derive(Debug, Args)]
pub struct TemplateBuild {
    /// What to make them from.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}
