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
pub mod load;
pub mod lock;
mod network;
pub mod problem;
pub mod quantity;
pub mod schema;
pub mod siblings;
mod site;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;

pub use after::{Apply, Backup, Bootstrap, CopyTarget, Finish, Flux, Git, Hooks};
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
    /// The secrets bundle: a file relative to `config_dir`, or what a command prints.
    pub secrets_file: SecretsFile,
    /// Patches of single nodes, `<node_name>.yaml`, relative to `config_dir`.
    pub patches_dir: Option<PathBuf>,
    /// Patches of all machines or of one role's, applied in this order and before those of single nodes.
    #[schemars(with = "Option<Vec<ConfigPatch>>")]
    pub config_patches: Vec<ConfigPatch>,
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

    /// The secrets bundle for a profile in `folder`, where it is a file.
    pub fn secrets_file_in(&self, folder: &Path) -> Option<PathBuf> {
        match &self.secrets_file {
            SecretsFile::Path(path) => Some(self.config_dir_in(folder).join(path)),
            SecretsFile::Command(_) => None,
        }
    }

    /// The folder of patches, if there is one, for a profile in `folder`.
    pub fn patches_dir_in(&self, folder: &Path) -> Option<PathBuf> {
        Some(self.config_dir_in(folder).join(self.patches_dir.as_ref()?))
    }
}

/// Where a cluster's secrets bundle is kept.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "schema::SecretsFileText")]
pub enum SecretsFile {
    /// A file, relative to `config_dir`.
    Path(PathBuf),
    /// What this command, run by `sh -c` in the profile's folder, prints.
    Command(String),
}

/// A patch of machine configurations, in any form that `talosctl machineconfig patch` takes.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "schema::ConfigPatchText")]
pub struct ConfigPatch {
    /// Whose configurations.
    pub target: PatchTarget,
    /// The patch.
    pub source: PatchSource,
}

/// Whose configurations a patch is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PatchTarget {
    /// Everybody's.
    #[default]
    All,
    /// The control planes'.
    ControlPlane,
    /// The workers'.
    Worker,
}

impl PatchTarget {
    /// Whether it is for machines of this role.
    pub fn covers(self, role: Role) -> bool {
        matches!((self, role), (Self::All, _) | (Self::ControlPlane, Role::ControlPlane) | (Self::Worker, Role::Worker))
    }
}

/// Where a patch stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatchSource {
    /// In a file, relative to `config_dir`.
    File(PathBuf),
    /// In the profile.
    Inline(String),
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
    /// What these machines' images are made from, where it isn't `talos.factory`.
    pub factory: Option<Factory>,
    /// PVE configuration keys of each VM, in PVE's own syntax; `inherit` among them is no such key.
    #[schemars(with = "Option<schema::HardwareText>")]
    pub vm: BTreeMap<String, String>,
    /// What a new VM takes over from the one it replaces, `vm.inherit`; everything by default.
    #[schemars(skip)]
    pub inherit: BTreeSet<Inherit>,
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

/// Something that a new VM takes over from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inherit {
    /// The first NIC's address, unless the profile names one.
    Mac,
    /// All NICs as they are: bridge, VLAN, addresses of the others.
    Nics,
    /// Order and delays at the host's start.
    Startup,
    /// Whether the host starts it.
    Onboot,
    /// The pool it is in.
    Pool,
    /// Its firewall rules and options, and the flag of each NIC.
    Firewall,
    /// Its HA resource: state, group, limits.
    Ha,
    /// Tags beyond the profile's.
    Tags,
    /// The description, beside recast's own mark.
    Description,
}

impl Inherit {
    /// With the words of profiles.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("mac", Self::Mac),
        ("nics", Self::Nics),
        ("startup", Self::Startup),
        ("onboot", Self::Onboot),
        ("pool", Self::Pool),
        ("firewall", Self::Firewall),
        ("ha", Self::Ha),
        ("tags", Self::Tags),
        ("description", Self::Description),
    ];

    /// Everything, the default.
    pub fn all() -> BTreeSet<Self> {
        Self::ALL.iter().map(|(_, what)| *what).collect()
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
    /// PVE configuration keys of this VM, over the group's; `inherit` among them is no such key.
    #[schemars(with = "Option<schema::HardwareText>")]
    pub vm: BTreeMap<String, String>,
    /// What this VM takes over, instead of what the group says.
    #[schemars(skip)]
    pub inherit: Option<BTreeSet<Inherit>>,
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
#[schemars(rename_all = "kebab-case")]
pub enum DiscoveryMode {
    /// The assigned address first, then the guest agent, then a scan.
    #[default]
    Auto,
    /// Only the assigned address (DHCP reservations).
    Static,
    /// Only a scan.
    Scan,
    /// Only what the guest agent tells PVE.
    Agent,
    /// A cloud-init drive gives the machine its assigned address before it has a configuration.
    CloudInit,
}

/// Limits that stop a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Guards {
    /// The most VMs that one run may destroy; unlimited by default.
    pub max_destroy: Option<u32>,
    /// How old the proof of backup may be when the old cluster is stopped; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub snapshot_max_age: Duration,
    /// Whether a run is refused that has no second copy of its snapshot.
    #[schemars(with = "Option<bool>")]
    pub require_copy: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { max_destroy: None, snapshot_max_age: Duration::from_mins(10), require_copy: false }
    }
}

/// How images come to the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Transport {
    /// The first way that rights, versions and routes allow.
    #[default]
    Auto,
    /// The node fetches the factory's qcow2 itself, with a known digest (PVE 8.4 or later).
    Pull,
    /// Through the node's API (PVE 8.4 or later).
    Upload,
    /// Through SSH, straight into the volume.
    Ssh,
}

impl Transport {
    /// As files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pull => "pull",
            Self::Upload => "upload",
            Self::Ssh => "ssh",
        }
    }
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
