//! Plans: what will be done, decided before anything is done.
//!
//! Purpose: `make` turns a profile and what was observed into a [`Plan`] that leaves no meaningful choice to the
//! engine; `lint` proves rules about any plan; `show` prints the object that will run.
//! Must not know: clients, files, clocks. Start reading at [`Plan`], then `make`.

pub mod allocate;
pub mod check;
pub mod compatibility;
pub mod data;
pub mod errands;
mod fates;
pub mod gates;
pub mod kubernetes;
pub mod lint;
pub mod make;
pub mod observed;
pub mod path;
mod phases;
pub mod provenance;
#[cfg(test)]
mod sample;
pub mod show;
pub mod sources;
pub mod status;
pub mod step;
pub mod upgrade;
pub mod wanted;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use data::Data;
pub use observed::Observed;
pub use step::{Output, Step};
pub use wanted::{Limits, PlannedVm, Wanted};

use crate::types::{NodeName, RunId, SchematicId, Sha256, StepId, StorageId, Version, VmId};
use step::VmIdentity;

/// Version of the plan's file format. A newer one is refused with both numbers named.
pub const FORMAT: u32 = 1;

/// All that a run will do. Saved before anything happens; a resume reads it back and does exactly this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Format version.
    pub format: u32,
    /// The verb that made it.
    pub verb: Verb,
    /// The run it belongs to.
    pub run: RunId,
    /// The cluster's name.
    pub cluster: String,
    /// Digest of the profile's text when it was made.
    pub profile: Sha256,
    /// Fingerprint of the secrets when it was made.
    pub secrets: Sha256,
    /// What configurations are made from, secrets and machines aside; none where nothing is configured.
    #[serde(default)]
    pub cluster_config: Option<ClusterConfig>,
    /// The Kubernetes endpoint of the cluster that is touched, a URL; none for a generic one.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// What must still be true when it is carried out.
    pub facts: Facts,
    /// The VMs that will run the cluster.
    pub vms: Vec<PlannedVm>,
    /// What is destroyed.
    pub destroys: Vec<VmIdentity>,
    /// What carries the tags and is kept, with the reason.
    pub keeps: Vec<Kept>,
    /// What becomes of things that hang on a VM that is destroyed: snapshots, HA, replication, further disks.
    #[serde(default)]
    pub fates: Vec<Fate>,
    /// How each new VM differs from the one that it replaces.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// How the image comes into each new template, and why so.
    #[serde(default)]
    pub ways: Vec<ImageWay>,
    /// The way of an upgrade, hop by hop, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hops: Vec<path::Hop>,
    /// Bytes to download.
    pub download_bytes: u64,
    /// Versions that run now, as far as they could be seen.
    pub before: Option<Versions>,
    /// Versions wanted; none where nothing is installed.
    #[serde(default)]
    pub after: Option<Versions>,
    /// Time limits.
    pub limits: Limits,
    /// What becomes of etcd's data.
    #[serde(default)]
    pub data: Data,
    /// The phases in order.
    pub phases: Vec<Phase>,
}

/// What made a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// `recast rebuild`.
    Rebuild,
    /// `recast create`.
    Create,
    /// `recast teardown`.
    Teardown,
    /// `recast template build`.
    TemplateBuild,
    /// `recast upgrade`.
    Upgrade,
    /// `recast rollback` of machines to the release that they ran before.
    GoBack,
    /// `recast rollback` of a rebuild that deleted something: the cluster of before is made anew.
    Rollback,
}

impl Verb {
    /// Whether templates are made and tried.
    pub fn makes_templates(self) -> bool {
        matches!(self, Self::Rebuild | Self::Create | Self::TemplateBuild | Self::Rollback)
    }

    /// Whether the old cluster goes.
    pub fn destroys(self) -> bool {
        matches!(self, Self::Rebuild | Self::Teardown | Self::Rollback)
    }

    /// Whether there is a new cluster afterwards.
    pub fn installs(self) -> bool {
        matches!(self, Self::Rebuild | Self::Create | Self::Rollback)
    }

    /// Whether the cluster's own machines are rebooted into another release.
    pub fn reboots(self) -> bool {
        matches!(self, Self::Upgrade | Self::GoBack)
    }
}

impl std::fmt::Display for Verb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Rebuild => "rebuild",
            Self::Create => "create",
            Self::Teardown => "teardown",
            Self::TemplateBuild => "template build",
            Self::Upgrade => "upgrade",
            Self::GoBack | Self::Rollback => "rollback",
        })
    }
}

/// Talos and Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Versions {
    /// Talos.
    #[schemars(with = "String")]
    pub talos: Version,
    /// Kubernetes.
    #[schemars(with = "String")]
    pub kubernetes: Version,
}

/// What all machines' configurations share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The Kubernetes endpoint, a URL.
    pub endpoint: String,
    /// Pod network.
    pub pod_cidr: String,
    /// Service network.
    pub service_cidr: String,
    /// System disk.
    pub install_disk: String,
    /// Schematic of the image.
    pub schematic: SchematicId,
    /// Reference of the installer image that belongs to it.
    pub installer: String,
    /// MTU of the machines' first link, where it isn't the usual one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The shared address of the control planes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
}

/// What the plan stands on: read again right before the first change, and whenever a saved plan is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The VMs to retire, as they were.
    pub victims: Vec<VmIdentity>,
    /// Numbers that must be free, those of the victims aside.
    pub free: Vec<VmId>,
    /// Templates that are used as they are.
    pub templates: BTreeMap<VmId, NodeName>,
    /// Storages that are written to, by node.
    pub storages: Vec<(NodeName, StorageId)>,
}

/// How the image comes into a new template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageWay {
    /// The template's node.
    pub node: NodeName,
    /// Its number.
    pub template: VmId,
    /// A clause about it: `uploaded to local`.
    pub how: String,
    /// Why this way: `the node takes uploads`.
    pub because: String,
}

/// What becomes of something that hangs on a VM that is destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// The VM.
    pub vmid: VmId,
    /// A clause about it: `snapshots before-upgrade are deleted with it`.
    pub what: String,
}

/// A configuration key that a new VM has otherwise than the one that it replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The new VM's name.
    pub vm: String,
    /// The key.
    pub key: String,
    /// The old VM's value; none when it had none.
    pub old: Option<String>,
    /// The new VM's value; none when it has none.
    pub new: Option<String>,
}

/// Something that carries the cluster's tags and stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// Why it stays.
    pub because: String,
}

impl Plan {
    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Planned> {
        self.phases.iter().flat_map(|phase| &phase.steps)
    }
}

/// A named group of steps with a gate at its end: the next phase starts only when all its steps are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phase {
    /// One of the design's names: `check`, `image`, `template` …
    pub name: String,
    /// In order.
    pub steps: Vec<Planned>,
    /// How many steps may run at once; 1 = one after another.
    pub width: usize,
}

impl Phase {
    /// Whether a step that fails holds back only what comes after it: templates on different nodes don't stand on each
    /// other.
    pub fn goes_on(&self) -> bool {
        self.name == "template" && self.width > 1
    }

    /// The steps that this one comes after, and it.
    pub fn chain(&self, id: &StepId) -> std::collections::BTreeSet<StepId> {
        let mut chain = std::collections::BTreeSet::from([id.clone()]);
        loop {
            let before: Vec<StepId> = self
                .steps
                .iter()
                .filter(|planned| chain.contains(&planned.id))
                .flat_map(|planned| planned.after.iter().cloned())
                .collect();
            let known = chain.len();
            chain.extend(before);
            if chain.len() == known {
                return chain;
            }
        }
    }
}

/// A step in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Planned {
    /// Unique in the plan.
    pub id: StepId,
    /// What to do.
    pub step: Step,
    /// Steps of the same phase that must be done first.
    pub after: Vec<StepId>,
    /// How it is undone when its phase fails.
    pub undo: Undo,
}

/// What becomes of a step's effect when a later step of the same phase fails for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// It left nothing behind, or what it left is harmless and a resume finds it again.
    Nothing,
    /// This step takes it back; afterwards a resume does the original step anew.
    By(Box<Step>),
    /// It can't be taken back.
    Irreversible {
        /// Why, for the plan's text.
        because: String,
    },
}
