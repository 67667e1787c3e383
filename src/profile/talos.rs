//! What a Talos cluster runs, and the files that its configurations come from.
//!
//! Must not know: VMs, and which releases there are. Start reading at [`Talos`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;

use super::schema;
use crate::types::{Role, SchematicId, VersionWish};

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
