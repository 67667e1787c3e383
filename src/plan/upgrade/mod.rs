//! Upgrades in place: what is asked for, what runs, and which machines go up in which hop.
//!
//! Purpose: the data that the upgrade's plan, steps and text share. The way itself is `plan::path`'s; `make` strings its
//! hops together, `gates` says what stands in the way.
//! Must not know: clients, files, clocks. Start reading at [`Asked`], then [`make::make`].

pub mod back;
pub mod descent;
pub mod gates;
pub mod make;
pub mod past;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::compatibility::Table;
use super::data::{Keep, OldMachine};
use super::errands::Errands;
pub use super::kubernetes::LiveMachine as Member;
use super::kubernetes::SeenKubernetes;
use super::path::Hops;
use super::wanted::Limits;
use super::{Data, FORMAT, Facts, Plan, PlannedVm, Verb, Versions};
use crate::types::{Cordon, Malformed, Role, RunId, SchematicId, Sha256, Version};

/// What a machine is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The Talos version.
    pub version: Version,
    /// What its image is made from.
    pub schematic: SchematicId,
    /// The installer's reference.
    pub image: String,
}

/// How a release comes onto a machine's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// By the call of releases before 1.13, which writes and reboots in one.
    Whole {
        /// Whether it must be told to keep the EPHEMERAL partition, with etcd's data: where the machine or the installer is
        /// of 1.7 or older, which wipe it otherwise.
        keep: bool,
        /// Whether it is written early in the next boot.
        staged: bool,
    },
    /// Written by the lifecycle service first; the reboot is a call of its own.
    Written,
}

impl Way {
    /// The way for a machine that runs `from` and gets the installer of `to`.
    pub fn of(from: &Version, to: &Version, stage: Stage) -> Self {
        let staged = stage == Stage::NextBoot;
        // The lifecycle service came with 1.13.0 and knows no staging; the older call is there until 1.18.
        if from.minor() >= (1, 13) && !staged {
            return Self::Written;
        }
        Self::Whole { keep: from.minor().min(to.minor()) <= (1, 7), staged }
    }
}

/// By what a machine goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// By the release that its other slot holds.
    #[default]
    OtherSlot,
    /// By the installer of the release before, as it goes up.
    Installer,
}

/// When a release is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// While the machine runs.
    #[default]
    Now,
    /// Early in the next boot, when nothing holds the disk.
    NextBoot,
}

/// How machines reboot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reboot {
    /// By kexec where possible.
    #[default]
    Default,
    /// Through the firmware.
    Powercycle,
}

/// Whether the kernel's log is kept while a machine goes down and comes up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KernelLog {
    /// It isn't.
    #[default]
    Unheard,
    /// It is kept with the run.
    Kept,
}

/// How a machine is taken down for another release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// How the release is written.
    pub way: Way,
    /// How it reboots.
    pub reboot: Reboot,
    /// Whether its kernel's log is kept.
    pub kernel_log: KernelLog,
}

/// How many workers may be down at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parallel {
    /// So many.
    Count(u32),
    /// So many of a hundred, rounded down, one at least.
    Percent(u32),
}

impl Default for Parallel {
    fn default() -> Self {
        Self::Count(1)
    }
}

impl Parallel {
    /// How many of `all`.
    pub fn of(self, all: usize) -> usize {
        let wanted = match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => all * percent as usize / 100,
        };
        wanted.clamp(1, all.max(1))
    }
}

impl FromStr for Parallel {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a number of workers such as 2, or a part of them such as 25%");
        let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(malformed);
        match text.strip_suffix('%') {
            Some(percent) => number(percent)
                .and_then(|percent| if percent <= 100 { Ok(Self::Percent(percent)) } else { Err(malformed()) }),
            None => number(text).map(Self::Count),
        }
    }
}

impl fmt::Display for Parallel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// What of the cluster is upgraded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Only {
    /// Talos and Kubernetes.
    #[default]
    Both,
    /// Talos.
    Os,
    /// Kubernetes.
    Kubernetes,
}

/// Which way machines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bound {
    /// To another release.
    Up,
    /// To the one before: a machine that is not well may be why.
    Back,
}

/// What is asked for, made definite.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The run that will carry it out.
    pub run: RunId,
    /// The cluster's name.
    pub cluster: String,
    /// Digest of the profile's text.
    pub profile: Sha256,
    /// Fingerprint of the secrets.
    pub secrets: Sha256,
    /// The Kubernetes endpoint, a URL.
    pub endpoint: String,
    /// What shall run.
    pub wanted: Versions,
    /// The schematic that each role shall be made from.
    pub schematics: BTreeMap<Role, SchematicId>,
    /// What the schematics hold, as far as is known, by schematic.
    pub extensions: BTreeMap<SchematicId, BTreeSet<String>>,
    /// The YAML of the schematics that are wanted, as far as the factory tells, for the lock.
    pub recipes: BTreeMap<SchematicId, String>,
    /// Installers by schematic and version: those that the factory has, or was asked for.
    pub installers: Vec<Release>,
    /// The VMs.
    pub vms: Vec<PlannedVm>,
    /// Only these machines' Talos.
    pub nodes: Option<Vec<String>>,
    /// What is upgraded.
    pub only: Only,
    /// Which way machines go.
    pub bound: Bound,
    /// How many workers may be down at once.
    pub parallel: Parallel,
    /// When releases are written.
    pub stage: Stage,
    /// How machines reboot.
    pub reboot: Reboot,
    /// Whether kernel logs are kept.
    pub kernel_log: KernelLog,
    /// How many hops there may be.
    pub hops: Hops,
    /// What goes with what: the program's own table, with the user's over it.
    pub table: Table,
    /// Where snapshots go.
    pub keep: Keep,
    /// Time limits.
    pub limits: Limits,
    /// What is done for the user beside the cluster.
    pub errands: Errands,
    /// What the profile is to say in the end beside versions: values by key path.
    pub edits: BTreeMap<String, String>,
}

impl Asked {
    /// A plan of machines that stay the VMs that they are: no versions, hops and steps in it yet.
    fn plan(&self, verb: Verb, seen: &SeenCluster) -> Plan {
        Plan {
            format: FORMAT,
            verb,
            run: self.run.clone(),
            cluster: self.cluster.clone(),
            profile: self.profile,
            secrets: self.secrets,
            cluster_config: None,
            endpoint: Some(self.endpoint.clone()),
            facts: Facts { victims: seen.machines.iter().map(|old| old.vm.clone()).collect(), ..Facts::default() },
            destroys: Vec::new(),
            keeps: Vec::new(),
            fates: Vec::new(),
            changes: Vec::new(),
            ways: Vec::new(),
            hops: Vec::new(),
            download_bytes: 0,
            before: None,
            after: None,
            limits: self.limits,
            data: Data::Keep(self.keep.clone()),
            vms: self.vms.clone(),
            phases: Vec::new(),
        }
    }
}

/// A machine as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMember {
    /// It.
    pub member: Member,
    /// What it runs.
    pub version: Version,
    /// What its image was made from; none when it isn't the Image Factory's.
    pub schematic: Option<SchematicId>,
    /// Its extensions, without their publisher's name.
    pub extensions: BTreeSet<String>,
    /// `nocloud`, `metal` …
    pub platform: String,
    /// The version of its kubelet; none when its Node could not be read.
    pub kubelet: Option<Version>,
    /// Whether its Node takes new pods, and who keeps them off it.
    #[serde(default)]
    pub cordon: Cordon,
}

/// The cluster as it runs, beside what every plan sees.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenCluster {
    /// Its machines, in the profile's order.
    pub members: Vec<SeenMember>,
    /// Machines of the profile that could not be looked at, with the reason.
    pub silent: Vec<(String, String)>,
    /// The oldest Kubernetes of any component.
    pub kubernetes: Option<Version>,
    /// The machines with their VMs.
    pub machines: Vec<OldMachine>,
    /// What Kubernetes runs where; none where its API could not be looked at.
    #[serde(default)]
    pub components: SeenKubernetes,
}

impl SeenCluster {
    /// The machines that are asked about, or all.
    pub fn chosen<'a>(&'a self, nodes: Option<&'a [String]>) -> impl Iterator<Item = &'a SeenMember> {
        let chosen = move |seen: &&SeenMember| {
            nodes.is_none_or(|nodes| nodes.iter().any(|node| node == seen.member.name.as_str()))
        };
        self.members.iter().filter(chosen)
    }

    /// The control planes with their VMs.
    pub fn control(&self) -> Vec<OldMachine> {
        self.machines.iter().filter(|old| old.role == Role::ControlPlane).cloned().collect()
    }

    /// What runs: of each the oldest. None when nothing could be looked at.
    pub fn versions(&self, nodes: Option<&[String]>) -> Option<Versions> {
        let talos = self.chosen(nodes).map(|seen| &seen.version).min()?.clone();
        Some(Versions { talos, kubernetes: self.kubernetes.clone()? })
    }
}

impl Asked {
    /// The installer of a schematic and version.
    pub fn installer(&self, schematic: &SchematicId, version: &Version) -> Option<&Release> {
        self.installers.iter().find(|release| release.schematic == *schematic && release.version == *version)
    }

    /// The schematic that a machine shall have in the end.
    pub fn schematic_of(&self, role: Role) -> Option<&SchematicId> {
        self.schematics.get(&role)
    }
}

/// An extension's name without its publisher's.
pub fn bare(extension: &str) -> &str {
    extension.rsplit('/').next().unwrap_or(extension)
}
