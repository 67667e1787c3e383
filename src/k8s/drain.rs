//! Cordon, drain, uncordon.
//!
//! Purpose: keep new pods off a node with a mark that says who did so; evict what can be evicted, through the eviction
//! subresource, so that `PodDisruptionBudget`s hold; tell what is left and why; see volumes detached.
//! Must not know: how long is too long, what happens to the machine. Start reading at [`Client::drain_round`], which the
//! caller repeats until nothing is left: one round keeps no state, so that any round may be the first.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::apply::MERGE;
use super::client::{Call, Client, K8sError, PATIENCE};
use super::objects::escaped;
use super::pods::Pod;
pub use crate::types::Cordon;

/// The annotation that says which run keeps pods off a node.
pub const MARK: &str = "recast/cordoned-by";

/// Why a drain leaves a pod where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stays {
    /// It mirrors a static pod, which the API can't move.
    Mirror,
    /// Its `DaemonSet` would make it again on the same node.
    Daemon,
    /// It ran to its end.
    Finished,
}

/// Why a drain leaves this pod; none where it is evicted.
pub fn stays(pod: &Pod) -> Option<Stays> {
    if pod.is_mirror() {
        Some(Stays::Mirror)
    } else if pod.controller.as_deref() == Some("DaemonSet") {
        Some(Stays::Daemon)
    } else if pod.is_finished() {
        Some(Stays::Finished)
    } else {
        None
    }
}

/// How pods are made to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Evicted: a budget may say no.
    Evict,
    /// Deleted, with their own grace period: no budget is asked.
    Delete,
}

/// A pod that is still on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// `namespace/name`.
    pub pod: String,
    /// Why.
    pub why: Why,
}

/// Why a pod is still there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is on its way.
    Leaving,
    /// A budget says no, in the server's words.
    Budget(String),
    /// The server says no for another reason.
    Refused(String),
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.why {
            Why::Leaving => write!(f, "{} is terminating", self.pod),
            Why::Budget(why) | Why::Refused(why) => write!(f, "{} stays: {why}", self.pod),
        }
    }
}

#[derive(Deserialize)]
struct NodeObject {
    metadata: NodeMetadata,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeMetadata {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default)]
    unschedulable: bool,
}

impl NodeObject {
    fn cordon(&self) -> Cordon {
        match (self.spec.unschedulable, self.metadata.annotations.get(MARK)) {
            (false, _) => Cordon::Open,
            (true, Some(by)) => Cordon::Marked { by: by.clone() },
            (true, None) => Cordon::Theirs,
        }
    }
}

#[derive(Deserialize)]
struct Attachment {
    spec: AttachmentSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttachmentSpec {
    node_name: String,
    #[serde(default)]
    source: Source,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Source {
    persistent_volume_name: Option<String>,
}

#[derive(Deserialize)]
struct ClaimObject {
    metadata: ClaimMetadata,
    #[serde(default)]
    spec: ClaimSpec,
}

#[derive(Deserialize)]
struct ClaimMetadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: String,
}

fn node_path(name: &str) -> String {
    format!("/api/v1/nodes/{}", escaped(name))
}

impl Client {
    /// Whether a node takes new pods, and if not, by whom.
    pub async fn cordon_of(&self, node: &str) -> Result<Cordon, K8sError> {
        Ok(self.read::<NodeObject>(&node_path(node)).await?.cordon())
    }

    /// Keeps new pods off a node, marked with `by`. A mark of an earlier run becomes this one's; what somebody else
    /// cordoned is left as it is.
    pub async fn cordon(&self, node: &str, by: &str) -> Result<Cordon, K8sError> {
        let found: NodeObject = self.read(&node_path(node)).await?;
        match found.cordon() {
            Cordon::Theirs => return Ok(Cordon::Theirs),
            Cordon::Marked { by: marked } if marked == by => {}
            // Only what was just looked at is changed: a person may cordon it in the same moment.
            Cordon::Open | Cordon::Marked { .. } => {
                let version = &found.metadata.resource_version;
                let patch = json!({
                    "metadata": {"resourceVersion": version, "annotations": {MARK: by}},
                    "spec": {"unschedulable": true},
                });
                self.merge(&node_path(node), &patch).await?;
            }
        }
        Ok(Cordon::Marked { by: by.to_owned() })
    }

    /// Lets pods onto a node again that this program kept them off; what it says afterwards is how the node stays.
    pub async fn uncordon(&self, node: &str) -> Result<Cordon, K8sError> {
        let found: NodeObject = self.read(&node_path(node)).await?;
        if found.cordon() == Cordon::Theirs {
            return Ok(Cordon::Theirs);
        }
        // Somebody may have uncordoned it already: the mark goes in any case.
        if found.spec.unschedulable || found.metadata.annotations.contains_key(MARK) {
            let version = &found.metadata.resource_version;
            let patch = json!({
                "metadata": {"resourceVersion": version, "annotations": {MARK: null}},
                "spec": {"unschedulable": null},
            });
            self.merge(&node_path(node), &patch).await?;
        }
        Ok(Cordon::Open)
    }

    /// Changes an object by a merge patch.
    pub(super) async fn merge(&self, path: &str, patch: &Value) -> Result<(), K8sError> {
        let body = Some((MERGE, patch.to_string().into_bytes()));
        self.call(Call { method: Method::PATCH, path, body, patience: PATIENCE }).await.map(drop)
    }

    /// Asks every pod of the node that can go, and isn't going yet, to go. What was there to go; nothing when only such pods
    /// were there that stay anyway: one looks again before one believes that a pod has gone.
    pub async fn drain_round(&self, node: &str, way: Way) -> Result<Vec<Left>, K8sError> {
        let mut left = Vec::new();
        for pod in self.pods_on(node).await?.iter().filter(|pod| stays(pod).is_none()) {
            let why = if pod.deleting { Why::Leaving } else { self.send_away(pod, way).await? };
            left.push(Left { pod: pod.full_name(), why });
        }
        Ok(left)
    }

    async fn send_away(&self, pod: &Pod, way: Way) -> Result<Why, K8sError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", escaped(&pod.namespace), escaped(&pod.name));
        // Another pod of the same name is not the one that was looked at.
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": pod.uid}});
        let (method, path, body) = match way {
            Way::Evict => {
                let eviction = json!({
                    "apiVersion": "policy/v1",
                    "kind": "Eviction",
                    "metadata": {"name": pod.name, "namespace": pod.namespace},
                    "deleteOptions": options,
                });
                (Method::POST, format!("{path}/eviction"), eviction)
            }
            Way::Delete => (Method::DELETE, path, options),
        };
        let body = Some(("application/json", body.to_string().into_bytes()));
        match self.call(Call { method, path: &path, body, patience: PATIENCE }).await {
            // Gone already, or its UID is another one's by now: the next look tells.
            Ok(_) | Err(K8sError::Status { status: 404 | 409, .. }) => Ok(Why::Leaving),
            // Not now: a budget has nothing to give (eviction.go answers with 429 and names it).
            Err(K8sError::Status { status: 429, message, .. }) => Ok(Why::Budget(message)),
            // A namespace that ends lets nothing be created in it, not even an eviction.
            Err(K8sError::Status { status: 403, message, .. }) => Ok(Why::Refused(message)),
            // Several budgets over one pod are an internal error to the server.
            Err(K8sError::Status { status: 500, message, .. }) if message.contains("PodDisruptionBudget") => {
                Ok(Why::Refused(message))
            }
            Err(error) => Err(error),
        }
    }

    /// Volumes that are attached to the node and needed by no pod that stays on it: `PersistentVolume` names.
    pub async fn volumes_to_detach(&self, node: &str) -> Result<BTreeSet<String>, K8sError> {
        let attachments: Vec<Attachment> = self.list_served("/apis/storage.k8s.io/v1/volumeattachments").await?;
        let here = attachments.into_iter().filter(|attachment| attachment.spec.node_name == node);
        let mut volumes: BTreeSet<String> = here.filter_map(|found| found.spec.source.persistent_volume_name).collect();
        if volumes.is_empty() {
            return Ok(volumes);
        }
        let pods = self.pods_on(node).await?;
        let staying = pods.iter().filter(|pod| matches!(stays(pod), Some(Stays::Daemon | Stays::Mirror)));
        let claims: BTreeSet<(&str, &str)> =
            staying.flat_map(|pod| pod.claims.iter().map(|claim| (pod.namespace.as_str(), claim.as_str()))).collect();
        if !claims.is_empty() {
            let all: Vec<ClaimObject> = self.list("/api/v1/persistentvolumeclaims").await?;
            let kept = all
                .iter()
                .filter(|claim| claims.contains(&(claim.metadata.namespace.as_str(), claim.metadata.name.as_str())));
            for claim in kept {
                volumes.remove(&claim.spec.volume_name);
            }
        }
        Ok(volumes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_daemon_and_finished_pods_stay_and_all_others_go() {
        let pod = |controller: Option<&str>, phase: &str| Pod {
            controller: controller.map(str::to_owned),
            phase: phase.to_owned(),
            ..Pod::default()
        };
        for (pod, expected) in [
            (pod(Some("ReplicaSet"), "Running"), None),
            (pod(Some("StatefulSet"), "Pending"), None),
            (pod(Some("Job"), "Running"), None),
            (pod(None, "Running"), None),
            (pod(Some("Job"), "Succeeded"), Some(Stays::Finished)),
            (pod(None, "Failed"), Some(Stays::Finished)),
            (pod(Some("DaemonSet"), "Running"), Some(Stays::Daemon)),
            // The owner of a mirror pod is its Node.
            (
                Pod {
                    annotations: BTreeMap::from([("kubernetes.io/config.mirror".to_owned(), "0123".to_owned())]),
                    ..pod(Some("Node"), "Running")
                },
                Some(Stays::Mirror),
            ),
        ] {
            assert_eq!(stays(&pod), expected, "{pod:?}");
        }
    }
}
