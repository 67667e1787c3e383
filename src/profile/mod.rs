//! Profile and site: what is wanted, and where.
//!
//! Purpose: read `<cluster>.yaml` and `site.yaml` into types that hold no surprises, say everything that is wrong at
//! once and where, expand a profile into the VMs it stands for, edit it without disturbing comments, keep its lock.
//! Must not know: what runs, clients, terminals; where a secret comes from is data here ([`SecretSource`]), fetching it
//! isn't. All file access is the two thin functions `load::profile_file` and `load::site_file`.
//! Start reading at [`Profile`] and [`Site`], then [`load`], [`expand`](mod@expand), `check`.

mod check;
pub mod edit;
pub mod expand;
pub mod load;
pub mod lock;
mod network;
pub mod problem;
pub mod quantity;
pub mod schema;
pub mod siblings;
mod site;
mod tree;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;

pub use expand::{Taken, WantedVm, expand};
pub use load::Loaded;
pub use network::{ApiEndpoint, Network};
pub use problem::{Problem, Problems, Severity};
pub use site::{
    Auth, Credential, CredentialError, Defaults, Dial, SecretSource, Site, SiteFactory, SiteNode, SshAccess, SshHost,
    Tls, VmIdRange, VmIdRanges,
};
pub use tree::Source;

use crate::types::{Mac, MachineName, NodeName, Role, SchematicId, VersionWish, VmId};

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
    /// How long is waited for what.
    #[schemars(with = "Option<Timeouts>")]
    pub timeouts: Timeouts,
    /// How long everything must stay healthy before a run counts as done; 30s by default.
    #[schemars(with = "Option<schema::DurationText>")]
    pub steady: Duration,
    /// The cluster's git repository, which Flux follows.
    pub flux: Option<Flux>,
}

impl Profile {
    /// The site file for a profile in `folder`.
    pub fn site_in(&self, folder: &Path) -> PathBuf {
        folder.join(self.site.as_deref().unwrap_or(Path::new("site.yaml")))
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

/// Versions, images and files of a Talos cluster.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Talos {
    /// The Talos version wanted: `1.13.9`, `1.13` or `latest`.
    #[schemars(with = "schema::VersionText")]
    pub version: VersionWish,
    /// The Kubernetes version wanted.
    #[schemars(with = "schema::VersionText")]
    pub kubernetes_version: VersionWish,
    /// Where the cluster's files live, relative to the profile's folder ([`Talos::config_dir_in`]).
    pub config_dir: PathBuf,
    /// The secrets bundle, relative to `config_dir` ([`Talos::secrets_file_in`]).
    pub secrets_file: PathBuf,
    /// Patches of single nodes, `<node_name>.yaml`, relative to `config_dir`.
    pub patches_dir: Option<PathBuf>,
    /// The address that control planes share.
    pub vip: Option<Vip>,
    /// What images are made from.
    #[schemars(with = "Option<Factory>")]
    pub factory: Factory,
    /// The disk that Talos is installed on; `/dev/sda` by default, where PVE's `scsi0` appears.
    #[schemars(with = "Option<String>")]
    pub install_disk: String,
}

impl Talos {
    /// `config_dir` for a profile in `folder`.
    pub fn config_dir_in(&self, folder: &Path) -> PathBuf {
        folder.join(&self.config_dir)
    }

    /// The secrets bundle for a profile in `folder`.
    pub fn secrets_file_in(&self, folder: &Path) -> PathBuf {
        self.config_dir_in(folder).join(&self.secrets_file)
    }

    /// The folder of patches, if there is one, for a profile in `folder`.
    pub fn patches_dir_in(&self, folder: &Path) -> Option<PathBuf> {
        Some(self.config_dir_in(folder).join(self.patches_dir.as_ref()?))
    }
}

/// The shared control plane address.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Vip {
    /// The interface that carries it, as Talos names it.
    pub interface: Option<String>,
    /// The address.
    pub ip: IpAddr,
}

/// What images are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Factory {
    /// The schematic; wins over `extensions`.
    #[schemars(with = "Option<schema::SchematicText>")]
    pub schematic_id: Option<SchematicId>,
    /// System extensions, `siderolabs/qemu-guest-agent` style.
    #[schemars(with = "Option<Vec<schema::ExtensionText>>")]
    pub extensions: Vec<String>,
    /// The Image Factory; the site's by default.
    pub url: Option<String>,
    /// Whether the images are signed for secure boot.
    #[schemars(with = "Option<bool>")]
    pub secureboot: bool,
    /// The machines' architecture.
    #[schemars(with = "Option<Arch>")]
    pub arch: Arch,
}

/// A machine architecture, spelled as the Image Factory does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    #[default]
    Amd64,
    /// 64-bit ARM.
    Arm64,
}

impl Arch {
    /// As image names have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The VMs, by role.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Groups {
    /// Control planes.
    pub controlplane: Option<Group>,
    /// Workers.
    pub workers: Option<Group>,
}

impl Groups {
    /// The groups with their role and their key, control planes first.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &'static str, &Group)> {
        let control = self.controlplane.iter().map(|group| (Role::ControlPlane, "controlplane", group));
        control.chain(self.workers.iter().map(|group| (Role::Worker, "workers", group)))
    }
}

/// VMs of one role.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: u32,
    /// Names are this and a number of two digits from 01.
    pub name_prefix: String,
    /// Cores of each.
    pub cores: u32,
    /// Memory of each, in MB as PVE counts them (MiB).
    #[schemars(rename = "memory")]
    pub memory_mb: u64,
    /// Size of each one's boot disk.
    #[schemars(rename = "disk", with = "schema::DiskText")]
    pub disk_gib: u64,
    /// Where VMIDs start; `auto` (the default) takes the lowest that are free.
    #[schemars(with = "Option<schema::StartText>")]
    pub start_vmid: StartVmId,
    /// How VMs are distributed over the site's nodes; `spread` by default.
    #[schemars(with = "Option<Placement>")]
    pub placement: Placement,
    /// What is fixed for single VMs.
    #[schemars(with = "Option<Vec<Assignment>>")]
    pub assignments: Vec<Assignment>,
    /// PVE configuration keys of each VM, in PVE's own syntax.
    #[schemars(with = "Option<BTreeMap<String, schema::ScalarText>>")]
    pub vm: BTreeMap<String, String>,
}

impl Group {
    /// The name of the VM with this index, from 0.
    pub fn member(&self, index: u32) -> MachineName {
        MachineName::new(format!("{}{:02}", self.name_prefix, index + 1))
    }

    /// The assignment of a name.
    pub fn assignment(&self, name: &MachineName) -> Option<&Assignment> {
        self.assignments.iter().find(|assignment| assignment.name == *name)
    }
}

/// Where a group's VMIDs start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartVmId {
    /// At this one.
    At(VmId),
    /// At the lowest free one of the site's range.
    #[default]
    Auto,
}

/// How a group's VMs are distributed over the site's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Placement {
    /// Round-robin in the site's order.
    #[default]
    Spread,
    /// The first node that has room.
    Pack,
}

/// What is fixed for one VM; what is absent follows the group's rules.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Assignment {
    /// One of the group's names.
    pub name: MachineName,
    /// The PVE node.
    pub node: Option<NodeName>,
    /// The VMID.
    pub vmid: Option<VmId>,
    /// The static address; without one it is discovered.
    pub ip: Option<IpAddr>,
    /// The first NIC's address.
    #[schemars(with = "Option<schema::MacText>")]
    pub mac: Option<Mac>,
    /// PVE configuration keys of this VM, over the group's.
    #[schemars(with = "Option<BTreeMap<String, schema::ScalarText>>")]
    pub vm: BTreeMap<String, String>,
}

/// How machines without a configuration are found.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AddressDiscovery {
    /// The way; `auto` by default.
    #[schemars(with = "Option<DiscoveryMode>")]
    pub mode: DiscoveryMode,
    /// The network to scan; the machines' own by default.
    #[schemars(with = "Option<schema::CidrText>")]
    pub subnet: Option<IpNet>,
}

/// A way to find machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum DiscoveryMode {
    /// The assigned address first, then a scan.
    #[default]
    Auto,
    /// Only the assigned address (DHCP reservations).
    Static,
    /// Only a scan.
    Scan,
}

/// Limits that stop a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Guards {
    /// The most VMs that one run may destroy; unlimited by default.
    pub max_destroy: Option<u32>,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Timeouts {
    /// For a guest to shut down before it is stopped; 120s.
    #[schemars(with = "Option<schema::DurationText>")]
    pub shutdown: Duration,
    /// For a machine to answer after it was started; 5m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub boot: Duration,
    /// For the cluster to become healthy; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub health: Duration,
    /// For a node to be drained; 5m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub drain: Duration,
    /// For a PVE task; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub task: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self { shutdown: minutes(2), boot: minutes(5), health: minutes(10), drain: minutes(5), task: minutes(10) }
    }
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
