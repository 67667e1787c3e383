//! What a user hangs into a run, and what of a user's own files it touches.
//!
//! Must not know: what the commands, manifests and files say.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::Sha256;

/// A point of a run at which the user may hang something in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Everything is proven and the old cluster is frozen; nothing is destroyed yet.
    BeforeRetire,
    /// The new cluster's API answers.
    AfterBootstrap,
    /// Everything is verified.
    Finished,
    /// The run failed.
    Failed,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::BeforeRetire => "before_retire",
            Self::AfterBootstrap => "after_bootstrap",
            Self::Finished => "finished",
            Self::Failed => "failed",
        })
    }
}

/// Where Kubernetes manifests are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manifests {
    /// Files, in this order.
    Files(Vec<ManifestFile>),
    /// A URL.
    Url(String),
}

/// A file of manifests as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// It.
    pub path: PathBuf,
    /// Digest of its text: a run applies what was planned.
    pub sha256: Sha256,
}

/// Contexts of one cluster in a user's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contexts {
    /// Those that stand beside the current one, such as `admin@lab-1`, which talosctl made when the name was taken.
    Superseded,
    /// All: the cluster is gone.
    All,
}
