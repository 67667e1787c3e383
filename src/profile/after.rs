//! What a profile wants around the VMs themselves: backups, hooks, and what comes after bootstrap.
//!
//! Must not know: how any of it is carried out. Start reading at [`Backup`] and [`Finish`].

use std::path::PathBuf;

use schemars::JsonSchema;

/// Where etcd's snapshots go.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Backup {
    /// The folder, relative to the profile's; `talos.config_dir` by default.
    #[schemars(with = "Option<String>")]
    pub dir: Option<PathBuf>,
    /// Second copies, each read back after it was written.
    #[schemars(with = "Option<Vec<CopyTarget>>")]
    pub copies: Vec<CopyTarget>,
    /// How many snapshots of each purpose are kept; all by default.
    pub keep: Option<u32>,
}

/// Where a second copy of a snapshot goes.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase", deny_unknown_fields)]
pub enum CopyTarget {
    /// A folder on another device, relative to the profile's.
    Path(#[schemars(with = "String")] PathBuf),
    /// A folder on another machine, reached with the site's `ssh` access.
    Ssh {
        /// `host`, `user@host` or `user@host:port`.
        host: String,
        /// The folder there.
        path: String,
    },
    /// Commands of your own, run by `sh -c` in the profile's folder. The snapshot's name is in `RECAST_SNAPSHOT`.
    Command {
        /// Takes the snapshot on its stdin.
        save: String,
        /// Prints it again; without this command the copy can't be verified and doesn't count as one.
        read: Option<String>,
    },
}

/// What is done to the new cluster before its nodes must be Ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Bootstrap {
    /// In this order: a CNI, an approver of certificates, and the like.
    #[schemars(with = "Option<Vec<Apply>>")]
    pub apply: Vec<Apply>,
}

/// One thing to apply to the new cluster.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Apply {
    /// Kubernetes manifests: a file or folder relative to the profile's folder, or a URL.
    Manifests(String),
    /// A command, run by `sh -c` in the profile's folder with `KUBECONFIG` set to the new cluster's.
    Command(String),
}

/// Commands at points of a run, run by `sh -c` in the profile's folder with the run as JSON on stdin. One that fails
/// stops the run there.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Hooks {
    /// Everything is proven and the old cluster is frozen; nothing is destroyed yet.
    pub before_retire: Option<String>,
    /// The new cluster's API answers.
    pub after_bootstrap: Option<String>,
    /// Everything is verified.
    pub finished: Option<String>,
    /// The run failed.
    pub failed: Option<String>,
}

/// What is done when everything is verified.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Finish {
    /// Commits the edited profile and its lock.
    pub git: Option<Git>,
    /// Bootstraps Flux from `flux`, where it isn't there.
    #[schemars(with = "Option<bool>")]
    pub flux: bool,
}

/// What becomes of the edited profile and its lock in their git repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Git {
    /// They are committed; true.
    #[schemars(with = "Option<bool>")]
    pub commit: bool,
    /// The commit is pushed; false.
    #[schemars(with = "Option<bool>")]
    pub push: bool,
}

/// The cluster's git repository, which Flux follows.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Flux {
    /// Its URL.
    pub repo: String,
    /// The cluster's folder in it.
    pub path: String,
    /// The branch.
    pub branch: Option<String>,
}
