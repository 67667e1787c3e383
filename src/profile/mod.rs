//! Profile and site: what is wanted, and where.
//!
//! Purpose: read `<cluster>.yaml` and `site.yaml` into types that hold no surprises, say everything that is wrong at
//! once and where, expand a profile into the VMs it stands for, edit it without disturbing comments, keep its lock.
//! Must not know: what runs, clients, terminals; where a secret comes from is data here ([`SecretSource`]), fetching it
//! isn't. All file access is the two thin functions `load::profile_file` and `load::site_file`.
//! Start reading at [`Profile`] and [`Site`], then [`load`], [`expand`](mod@expand), `check`.

mod after;
mod check;
pub mod edit;
pub mod expand;
mod groups;
pub mod load;
pub mod lock;
mod manner;
mod network;
pub mod problem;
pub mod quantity;
pub mod schema;
pub mod siblings;
mod site;
mod talos;
mod tree;

use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::JsonSchema;

pub use after::{Apply, Backup, Bootstrap, CopyTarget, Finish, Flux, Git, Hooks};
pub use expand::{Taken, WantedVm, expand};
pub use groups::{Assignment, Group, Groups, Inherit, Placement, StartVmId};
pub use load::Loaded;
pub use manner::{AddressDiscovery, DiscoveryMode, Guards, Timeouts, Transport};
pub use network::{ApiEndpoint, Network};
pub use problem::{Problem, Problems, Severity};
pub use site::{
    Auth, Credential, CredentialError, Defaults, Dial, SecretSource, Site, SiteFactory, SiteNode, SshAccess, SshHost,
    Tls, VmIdRange, VmIdRanges,
};
pub use talos::{Arch, ConfigPatch, Factory, PatchSource, PatchTarget, SecretsFile, Talos, Vip};
pub use tree::Source;

use crate::types::VmId;

/// One cluster, as its users wrote it down. Optional keys hold their defaults.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Profile {
    /// The cluster's name; equals the file's name without `.yaml`.
    pub name: String,
    /// `talos`, or `generic` for VMs without a cluster.
    #[schemars(rename = "type")]
    pub kind: Kind,
    /// The site file, relative to the profile's folder; `site.yaml` beside the profile by default.
    #[schemars(with = "Option<String>")]
    pub site: Option<PathBuf>,
    /// What the machines run; required for type `talos`.
    pub talos: Option<Talos>,
    /// Addresses and networks.
    #[schemars(with = "Option<Network>")]
    pub network: Network,
    /// The VMs, by role.
    pub nodes: Groups,
    /// The template's VMID: the first one; the lock knows those of other nodes.
    pub template: Option<VmId>,
    /// Tags of every VM; a VM belongs to the cluster when it carries all of them. The role is appended as a tag.
    pub tags: Vec<String>,
    /// How machines without a configuration are found.
    #[schemars(with = "Option<AddressDiscovery>")]
    pub address_discovery: AddressDiscovery,
    /// Limits that stop a run.
    #[schemars(with = "Option<Guards>")]
    pub guards: Guards,
    /// How a rebuild treats the old VMs.
    #[schemars(with = "Option<Strategy>")]
    pub strategy: Strategy,
    /// How images come to the nodes; the site's `defaults.transport` otherwise.
    pub transport: Option<Transport>,
    /// Where etcd's snapshots go.
    #[schemars(with = "Option<Backup>")]
    pub backup: Backup,
    /// How long is waited for what.
    #[schemars(with = "Option<Timeouts>")]
    pub timeouts: Timeouts,
    /// How long everything must stay healthy before a run counts as done; 30s by default.
    #[schemars(with = "Option<schema::DurationText>")]
    pub steady: Duration,
    /// What is done to the new cluster before its nodes must be Ready.
    #[schemars(with = "Option<Bootstrap>")]
    pub bootstrap: Bootstrap,
    /// Commands of your own at points of a run.
    #[schemars(with = "Option<Hooks>")]
    pub hooks: Hooks,
    /// What is done when everything is verified.
    #[schemars(with = "Option<Finish>")]
    pub finish: Finish,
    /// The cluster's git repository, which Flux follows.
    pub flux: Option<Flux>,
}

impl Profile {
    /// The site file for a profile in `folder`.
    pub fn site_in(&self, folder: &Path) -> PathBuf {
        folder.join(self.site.as_deref().unwrap_or(Path::new("site.yaml")))
    }

    /// Where etcd's snapshots go, for a profile in `folder`: `backup.dir`, else beside the cluster's files.
    pub fn backup_dir_in(&self, folder: &Path) -> PathBuf {
        match (&self.backup.dir, &self.talos) {
            (Some(dir), _) => folder.join(dir),
            (None, Some(talos)) => talos.config_dir_in(folder),
            (None, None) => folder.to_owned(),
        }
    }
}

/// What a profile is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Kind {
    /// A Talos cluster.
    Talos,
    /// VMs only: create, teardown, status.
    Generic,
}

/// What a rebuild does with the old VMs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Strategy {
    /// They are deleted.
    #[default]
    Replace,
}
