//! What was seen of the Kubernetes that runs: images, arguments and versions by machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Component, LiveMachine, image};
use crate::types::{MachineName, Role, Version};

/// Kubernetes as it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenKubernetes {
    /// The machines, control planes first, each role by name.
    pub machines: Vec<SeenMachine>,
    /// The lowest version of any control plane component or kube-proxy pod. Kubelets don't count: they may lag behind.
    pub lowest: Option<Version>,
    /// How many objects there are of kinds that some later version no longer serves, by `resource.version.group`.
    pub objects: BTreeMap<String, u64>,
    /// What will hold up or prevent the eviction of pods, by node.
    pub blockers: Vec<Blocker>,
    /// Objects of the bootstrap manifests' inventory that are in no manifest any more, by its keys: a hop deletes them.
    #[serde(default)]
    pub left_manifests: Vec<String>,
    /// What the manifests of a version would change, a line each, as far as the server could be asked.
    #[serde(default)]
    pub manifest_changes: BTreeMap<Version, Vec<String>>,
    /// What could not be looked at.
    pub unseen: Vec<String>,
}

/// What Kubernetes runs on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenMachine {
    /// It.
    pub machine: LiveMachine,
    /// Its Talos.
    pub talos: Version,
    /// The name of its Kubernetes node.
    pub node: String,
    /// The version that its kubelet reported to the API.
    pub kubelet: Option<Version>,
    /// The image of each component that its configuration leads to.
    pub images: BTreeMap<Component, String>,
    /// The arguments of each component.
    pub args: BTreeMap<Component, Vec<String>>,
    /// Components that its configuration switches off.
    pub disabled: BTreeSet<Component>,
    /// Whether a configuration other than the active one waits for its next boot.
    pub staged: bool,
}

impl SeenMachine {
    /// The image of a component in another version; the component's usual one where none was seen.
    pub fn image(&self, component: Component, version: &Version) -> String {
        image::retagged(self.images.get(&component).map_or(component.repository(), String::as_str), version)
    }
}

/// Something that stands in the way of a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocker {
    /// The node.
    pub node: String,
    /// `namespace/name` of the pod.
    pub pod: String,
    /// In words: which `PodDisruptionBudget`, and by how much.
    pub why: String,
    /// Whether it never goes away by itself: then draining the node is hopeless.
    pub hopeless: bool,
}

impl SeenKubernetes {
    /// Whether a component or a kubelet is older than this version, as after an upgrade that was given up half way: the
    /// lowest version of the control plane doesn't tell.
    pub fn lags(&self, version: &Version) -> bool {
        self.machines.iter().any(|seen| {
            let images = seen.images.values().filter_map(|image| image::version_of(image));
            images.chain(seen.kubelet.clone()).any(|found| found < *version)
        })
    }

    /// The newest version of any component or kubelet.
    pub fn newest(&self) -> Option<Version> {
        let of = |seen: &SeenMachine| {
            let images = seen.images.values().filter_map(|image| image::version_of(image));
            images.chain(seen.kubelet.clone()).max()
        };
        self.machines.iter().filter_map(of).max()
    }

    /// Machines of a role.
    pub fn of(&self, role: Role) -> impl Iterator<Item = &SeenMachine> {
        self.machines.iter().filter(move |seen| seen.machine.role == role)
    }

    /// The machine of that name.
    pub fn named(&self, name: &MachineName) -> Option<&SeenMachine> {
        self.machines.iter().find(|seen| seen.machine.name == *name)
    }
}
