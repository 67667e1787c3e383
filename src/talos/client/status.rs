//! What a machine says about itself: stage, readiness, extensions, links, hardware.
//!
//! Purpose: the decoded resources both kinds of clients read. Must not know: how they are fetched beyond a [`Link`].

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::TalosError;
use super::cosi::{Kind, Resource};
use super::link::Link;
use crate::types::{Mac, SchematicId, Version};

/// How far a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// On its way up.
    Booting,
    /// Writing itself to a disk.
    Installing,
    /// Waiting for a config.
    Maintenance,
    /// Up; on a control plane only once etcd was bootstrapped.
    Running,
    /// On its way down, to come back.
    Rebooting,
    /// On its way down.
    #[serde(alias = "shutting down", alias = "shuttingDown")]
    ShuttingDown,
    /// Being wiped.
    Resetting,
    /// Being upgraded.
    Upgrading,
    /// Anything else.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Booting => "booting",
            Self::Installing => "installing",
            Self::Maintenance => "maintenance",
            Self::Running => "running",
            Self::Rebooting => "rebooting",
            Self::ShuttingDown => "shutting down",
            Self::Resetting => "resetting",
            Self::Upgrading => "upgrading",
            Self::Unknown => "unknown",
        })
    }
}

/// A condition that keeps a machine from being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// `services`, `network`, `static pods` …
    pub name: String,
    /// In the machine's words: `etcd not running`.
    pub reason: String,
}

/// A machine's stage and whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineStatus {
    /// How far it is.
    pub stage: Stage,
    /// Means something only while booting and running; other stages say `true` without looking.
    pub ready: bool,
    /// What is missing.
    pub unmet: Vec<Unmet>,
}

impl MachineStatus {
    /// Up, with everything it looks after healthy.
    pub fn is_up(&self) -> bool {
        self.stage == Stage::Running && self.ready
    }
}

/// A system extension of the image a machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// `qemu-guest-agent` …
    pub name: String,
    /// Its own version.
    pub version: String,
}

/// The extensions of a machine, and the schematic its image was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions {
    /// In the order of their names, without the schematic's pseudo-extension.
    pub installed: Vec<Extension>,
    /// None when the image isn't the Image Factory's.
    pub schematic: Option<SchematicId>,
}

/// A physical network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkLink {
    /// `eth0`, `ens18`, `enx…`
    pub name: String,
    /// The address burnt in, where the driver tells it apart, else the one in use.
    pub mac: Mac,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct StatusSpec {
    stage: Stage,
    #[serde(default)]
    status: ReadySpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadySpec {
    #[serde(default)]
    ready: bool,
    #[serde(default)]
    unmet_conditions: Option<Vec<Unmet>>,
}

#[derive(Deserialize)]
struct ExtensionSpec {
    metadata: Extension,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LinkSpec {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    hardware_addr: String,
    #[serde(default)]
    permanent_addr: String,
}

#[derive(Deserialize)]
struct SystemSpec {
    #[serde(default)]
    uuid: String,
}

#[derive(Deserialize)]
struct VersionSpec {
    version: String,
}

impl Link {
    /// `None` before the machine wrote its first status.
    pub(super) async fn machine_status(&self) -> Result<Option<MachineStatus>, TalosError> {
        let Some(resource) = self.get(Kind::MACHINE_STATUS, "machine").await? else { return Ok(None) };
        let spec: StatusSpec = resource.spec()?;
        let unmet = spec.status.unmet_conditions.unwrap_or_default();
        Ok(Some(MachineStatus { stage: spec.stage, ready: spec.status.ready, unmet }))
    }

    pub(super) async fn extensions(&self) -> Result<Extensions, TalosError> {
        sorted_extensions(&self.list(Kind::EXTENSION_STATUS).await?)
    }

    pub(super) async fn network_links(&self) -> Result<Vec<NetworkLink>, TalosError> {
        physical_links(&self.list(Kind::LINK_STATUS).await?)
    }

    /// The SMBIOS UUID, lower case: the VM's uuid. `None` while the machine hasn't read its tables.
    pub(super) async fn system_uuid(&self) -> Result<Option<String>, TalosError> {
        let Some(resource) = self.get(Kind::SYSTEM_INFORMATION, "systeminformation").await? else { return Ok(None) };
        let uuid = resource.spec::<SystemSpec>()?.uuid.to_lowercase();
        Ok(Some(uuid).filter(|uuid| !uuid.is_empty()))
    }

    /// The version as a resource (1.10 and later), `None` where there is no such resource.
    pub(super) async fn version_resource(&self) -> Result<Option<Version>, TalosError> {
        let resource = match self.get(Kind::VERSION, "version").await {
            Ok(Some(resource)) => resource,
            Ok(None) | Err(TalosError::UnknownResource { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = resource.spec::<VersionSpec>()?.version;
        text.parse().map(Some).map_err(|_| self.answer_is(Kind::VERSION.name, "something that isn't a version"))
    }
}

/// The Image Factory marks its images with an extension named `schematic` whose version is the schematic's id.
fn sorted_extensions(resources: &[Resource]) -> Result<Extensions, TalosError> {
    let mut installed = BTreeMap::new();
    let mut schematic = None;
    for resource in resources {
        let Extension { name, version } = resource.spec::<ExtensionSpec>()?.metadata;
        if name == "schematic" {
            schematic = Some(SchematicId::new(version));
        } else {
            installed.insert(name, version);
        }
    }
    let installed = installed.into_iter().map(|(name, version)| Extension { name, version }).collect();
    Ok(Extensions { installed, schematic })
}

/// Links with hardware behind them: bonds, bridges, VLANs and the like have a kind, loopback has another type.
fn physical_links(resources: &[Resource]) -> Result<Vec<NetworkLink>, TalosError> {
    let mut links = Vec::new();
    for resource in resources {
        let spec: LinkSpec = resource.spec()?;
        if spec.r#type != "ether" || !spec.kind.is_empty() {
            continue;
        }
        let burnt_in = spec.permanent_addr.parse().ok().filter(|mac: &Mac| mac.0 != [0; 6]);
        if let Some(mac) = burnt_in.or_else(|| spec.hardware_addr.parse().ok()) {
            links.push(NetworkLink { name: resource.id.clone(), mac });
        }
    }
    links.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(links)
}
