//! What a run does for its user beside the cluster itself: hooks, what is applied at bootstrap, git, Flux.
//!
//! Must not know: files, programs. Start reading at [`Errands`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::step::{Manifests, Moment};

/// What the profile asks for, with files and folders found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errands {
    /// Commands at points of the run.
    pub hooks: BTreeMap<Moment, String>,
    /// What is done to the new cluster before its nodes must be Ready, in this order.
    pub apply: Vec<Apply>,
    /// Commit profile and lock.
    pub git: Option<Git>,
    /// Bootstrap Flux where it isn't there.
    pub flux: Option<Flux>,
}

/// One thing that is done to the new cluster before its nodes must be Ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Apply {
    /// These are applied.
    Manifests(Manifests),
    /// This is run.
    Command(String),
}

/// The commit at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Git {
    /// Here only.
    Commit,
    /// And at the upstream.
    Push,
}

/// Where Flux takes the cluster's manifests from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flux {
    /// The repository's URL.
    pub repo: String,
    /// The cluster's folder in it.
    pub path: String,
    /// The branch.
    pub branch: Option<String>,
    /// Secrets encrypted with SOPS that Flux needs before it can read its repository.
    pub secrets: Vec<PathBuf>,
}

impl Errands {
    /// Programs that will be needed and what for.
    pub fn programs(&self) -> Vec<(&'static str, &'static str)> {
        let mut needed = Vec::new();
        if self.git.is_some() {
            needed.push(("git", "finish.git commits the profile"));
        }
        if let Some(flux) = &self.flux {
            needed.push(("flux", "finish.flux bootstraps Flux"));
            if !flux.secrets.is_empty() {
                needed.push(("sops", "the secrets that Flux needs are encrypted with it"));
            }
        }
        needed
    }
}
