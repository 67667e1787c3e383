//! Kubernetes of a running cluster: what it is made of, and what one hop to another version has to do.
//!
//! Purpose: the vocabulary of the steps that move Kubernetes, and the pure judgements before them: is the hop possible at
//! all, what does the new version no longer know, what keeps a node from being drained.
//! Must not know: clients, files, clocks. Start reading at [`Hop`]; its steps are in `phases/kubernetes`.

mod gates;
pub mod image;
pub mod removed;
pub mod seen;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use gates::{drain_gates, gates};
pub use seen::{Blocker, SeenKubernetes, SeenMachine};

use super::compatibility::Runs;
use crate::types::{MachineName, Role, Version};

/// A machine of the cluster as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveMachine {
    /// Its name.
    pub name: MachineName,
    /// What it is in the cluster.
    pub role: Role,
    /// Where its Talos API answers.
    pub address: IpAddr,
}

/// A part of Kubernetes that Talos runs by an image in the machine's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Component {
    /// `kube-apiserver`.
    ApiServer,
    /// `kube-controller-manager`.
    ControllerManager,
    /// `kube-scheduler`.
    Scheduler,
    /// `kube-proxy`, a `DaemonSet` among the cluster's manifests.
    Proxy,
    /// `kubelet`, a service of the machine.
    Kubelet,
}

impl Component {
    /// Those that run as static pods of control planes, in the order in which they are moved: Kubernetes allows nothing to
    /// be newer than the API server (Kubernetes' version skew policy).
    pub const STATIC_PODS: [Self; 3] = [Self::ApiServer, Self::ControllerManager, Self::Scheduler];

    /// Its name, which is also the id of its resources and the label of its pods.
    pub fn name(self) -> &'static str {
        match self {
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Proxy => "kube-proxy",
            Self::Kubelet => "kubelet",
        }
    }

    /// The repository of its image where the configuration names none (Talos, `pkg/machinery/constants`).
    pub fn repository(self) -> &'static str {
        match self {
            Self::ApiServer => "registry.k8s.io/kube-apiserver",
            Self::ControllerManager => "registry.k8s.io/kube-controller-manager",
            Self::Scheduler => "registry.k8s.io/kube-scheduler",
            Self::Proxy => "registry.k8s.io/kube-proxy",
            Self::Kubelet => "ghcr.io/siderolabs/kubelet",
        }
    }
}

impl std::fmt::Display for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Which of a machine's image stores an image is pulled into: those of pods and those of the machine's own services are
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageStore {
    /// Of pods (`k8s.io`).
    Pods,
    /// Of services (`system`): the kubelet's.
    System,
}

/// An image to be on a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeImage {
    /// Its reference.
    pub reference: String,
    /// Where it is needed.
    pub store: ImageStore,
}

/// What happens to pods that are still there when the time to drain a node is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leftover {
    /// They stay, and the run stops with their names.
    #[default]
    Stay,
    /// They are deleted, whatever a `PodDisruptionBudget` says. Only when asked for.
    Delete,
}

/// How the bootstrap manifests reach the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ManifestWay {
    /// By whole objects, as machines before Talos 1.13 do: nothing is ever deleted.
    Put,
    /// By server-side apply, with an inventory of what belongs to them: what left the manifests is deleted.
    Apply,
}

impl ManifestWay {
    /// The way of a cluster whose oldest machine runs this Talos. Server-side apply against an older one would change who
    /// owns the objects' fields.
    pub fn of(oldest: &Version) -> Self {
        if oldest.minor() >= (1, 13) { Self::Apply } else { Self::Put }
    }
}

/// One step of Kubernetes from one version to the next.
#[derive(Clone, Copy, Debug)]
pub struct Hop<'a> {
    /// What runs, as it was seen when the plan is made.
    pub seen: &'a SeenKubernetes,
    /// The version before the hop: the lowest of any control plane component.
    pub from: &'a Version,
    /// The version after it.
    pub to: &'a Version,
    /// The oldest Talos of any machine when the hop is made.
    pub talos: &'a Version,
    /// Seconds that all nodes must stay Ready afterwards.
    pub steady: u64,
    /// What the user's own compatibility table says of that Talos, where it says something of its own.
    pub runs: Option<Runs>,
}

impl Hop<'_> {
    /// What the hop's phases and steps are called after: unique in a plan of several hops.
    pub fn label(&self) -> String {
        format!("kubernetes-{}", self.to)
    }
}
