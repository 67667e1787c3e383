//! The verb that changes a cluster where it stands.
//!
//! Must not know: which hops there are.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};

use super::Wishes;
use super::schematic::SchematicWish;
use crate::plan::upgrade::Parallel;
use crate::types::VersionWish;

/// `recast upgrade`.
#[derive(Debug, Args)]
#[command(mut_arg("schematic", |schematic| {
    schematic.help("Image Factory schematic [default: the profile's, else what each machine is made from]")
}))]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Upgrade {
    /// Talos version: 1.13.9, 1.13 or latest [default: the profile's, or what runs if that is newer]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<VersionWish>,
    /// Kubernetes version: 1.35.0, 1.35 or latest [default: the profile's, or what runs if that is newer]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<VersionWish>,
    /// Upgrade Talos alone, or Kubernetes alone
    #[arg(long, value_name = "WHAT", env = "RECAST_ONLY")]
    pub only: Option<OnlyWhat>,
    /// What the machines are made from.
    #[command(flatten)]
    pub made_from: SchematicWish,
    /// Write Talos early in the next boot, when nothing holds the disk; each machine reboots twice
    #[arg(long, env = "RECAST_STAGE")]
    pub stage: bool,
    /// How machines reboot: by kexec where possible, or through the firmware
    #[arg(long, value_name = "MODE", default_value = "default", env = "RECAST_REBOOT_MODE")]
    pub reboot_mode: RebootHow,
    /// Upgrade the Talos of these machines only
    #[arg(long, value_name = "A,B", value_delimiter = ',', env = "RECAST_NODES", value_parser = NonEmptyStringValueParser::new())]
    pub nodes: Option<Vec<String>>,
    /// How many workers may be down at once: a number or a percentage [default: 1]
    #[arg(long, value_name = "N|P%", env = "RECAST_MAX_PARALLEL")]
    pub max_parallel: Option<Parallel>,
    /// Refuse where a minor version between would have to be gone through
    #[arg(long, env = "RECAST_NO_HOPS")]
    pub no_hops: bool,
    /// What releases take that this recast doesn't know yet, over its own table
    #[arg(long, value_name = "FILE", env = "RECAST_COMPATIBILITY")]
    pub compatibility: Option<PathBuf>,
    /// Keep the kernel's log of each machine while it goes down and comes up, in the run's folder
    #[arg(long, env = "RECAST_DEBUG")]
    pub debug: bool,
    /// Print every hop with its reason, and the plan, and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
}

impl Upgrade {
    /// Versions, and what the machines are made from.
    pub fn wishes(&self) -> Wishes {
        Wishes {
            to: self.to.clone(),
            kubernetes: self.kubernetes.clone(),
            made_from: self.made_from.clone(),
            destroy_disks: Vec::new(),
        }
    }
}

/// What alone is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnlyWhat {
    /// Talos.
    Os,
    /// Kubernetes.
    Kubernetes,
}

/// How machines reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RebootHow {
    /// By kexec where possible.
    Default,
    /// Through the firmware.
    Powercycle,
}
