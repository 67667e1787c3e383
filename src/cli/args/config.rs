//! Machine configurations, the verbs of talosctl aside.
//!
//! Must not know: how one is rendered.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::types::Version;

/// `recast config`; the verbs with talosctl's flags are parsed by `dropin`, before these.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write the configuration of every machine of the profile, and a talosconfig
    Render(Render),
    /// Compare what would be rendered with what the machines have; secrets are masked; exit 2 when they differ
    Diff(DiffConfig),
    /// Check the configurations as a machine would, and what the version means for the patches
    Check(CheckConfig),
    /// What `dropin` would have parsed, had it stood first.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Old keys in patches.
#[derive(Clone, Copy, Debug, Args)]
pub struct Migrate {
    /// Write keys that moved to documents as those documents, instead of refusing the patches that have them
    #[arg(long)]
    pub migrate: bool,
}

/// Other versions than the profile's, whose configurations would be.
#[derive(Clone, Debug, Default, Args)]
pub struct Target {
    /// For this Talos version [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<Version>,
    /// For this Kubernetes version [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<Version>,
}

/// `recast config diff`.
#[derive(Debug, Args)]
pub struct DiffConfig {
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}

/// `recast config render`.
#[derive(Debug, Args)]
pub struct Render {
    /// Where to [default: `clusterconfig` in the profile's `config_dir`]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}

/// `recast config check`.
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// The Talos version that runs [default: the profile's when another is asked for, else that of the lock's templates]
    #[arg(long, value_name = "VERSION", env = "RECAST_FROM")]
    pub from: Option<Version>,
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}
