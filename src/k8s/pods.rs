//! Pods, as far as drains and static pods need them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::client::{Client, K8sError};
use super::objects::escaped;

/// The annotation of a pod that only mirrors what a kubelet runs from a file (Kubernetes, `pkg/kubelet/types`).
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another one under the same name is another pod.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// The kind of the controller that would make it again; none for a pod that nobody makes again.
    pub controller: Option<String>,
    /// The node that it was given to; empty before.
    pub node: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    pub phase: String,
    /// Whether its Ready condition is True.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Image by container, as its spec has them.
    pub images: BTreeMap<String, String>,
    /// Addresses of the host that it runs on.
    pub host_addresses: Vec<String>,
    /// Names of the claims whose volumes it uses.
    pub claims: Vec<String>,
    /// What its containers say while they don't run.
    pub trouble: Option<String>,
}

impl Pod {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether it mirrors a static pod.
    pub fn is_mirror(&self) -> bool {
        self.annotations.contains_key(MIRROR)
    }

    /// Whether it ran to its end.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
    deletion_timestamp: Option<String>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    #[serde(default)]
    controller: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    node_name: String,
    containers: Vec<Container>,
    volumes: Vec<Volume>,
}

#[derive(Deserialize)]
struct Container {
    name: String,
    #[serde(default)]
    image: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Volume {
    name: String,
    persistent_volume_claim: Option<Claim>,
    ephemeral: Option<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    claim_name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: String,
    conditions: Vec<Condition>,
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Vec<HostIp>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct HostIp {
    ip: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Reason>,
    terminated: Option<Reason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
    message: String,
}

impl From<Object> for Pod {
    fn from(object: Object) -> Self {
        let Object { metadata, spec, status } = object;
        let claims = spec.volumes.into_iter().filter_map(|volume| match volume.persistent_volume_claim {
            Some(claim) => Some(claim.claim_name),
            // A claim of the pod's own is called after both (Kubernetes, "generic ephemeral volumes").
            None => volume.ephemeral.map(|_| format!("{}-{}", metadata.name, volume.name)),
        });
        let claims = claims.collect();
        let mut host_addresses: Vec<String> = status.host_ips.into_iter().map(|host| host.ip).collect();
        host_addresses.extend(status.host_ip);
        host_addresses.sort();
        host_addresses.dedup();
        let trouble = status.container_statuses.into_iter().find_map(|container| {
            let State { waiting, terminated } = container.state;
            waiting
                .or(terminated)
                .map(|why| if why.message.is_empty() { why.reason } else { format!("{}: {}", why.reason, why.message) })
        });
        Self {
            controller: metadata.owner_references.into_iter().find(|owner| owner.controller).map(|owner| owner.kind),
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: metadata.labels,
            annotations: metadata.annotations,
            node: spec.node_name,
            phase: status.phase,
            ready: status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True"),
            deleting: metadata.deletion_timestamp.is_some(),
            images: spec.containers.into_iter().map(|container| (container.name, container.image)).collect(),
            host_addresses,
            claims,
            trouble: trouble.filter(|text| !text.is_empty()),
        }
    }
}

impl Client {
    /// All pods of a node.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>, K8sError> {
        let path = format!("/api/v1/pods?fieldSelector={}", escaped(&format!("spec.nodeName={node}")));
        let objects: Vec<Object> = self.list(&path).await?;
        // A server that doesn't know the selector would answer with all of them.
        Ok(objects.into_iter().map(Pod::from).filter(|pod| pod.node == node).collect())
    }

    /// All pods.
    pub async fn pods(&self) -> Result<Vec<Pod>, K8sError> {
        let objects: Vec<Object> = self.list("/api/v1/pods").await?;
        Ok(objects.into_iter().map(Pod::from).collect())
    }

    /// All pods of a namespace.
    pub async fn pods_in(&self, namespace: &str) -> Result<Vec<Pod>, K8sError> {
        let objects: Vec<Object> = self.list(&format!("/api/v1/namespaces/{}/pods", escaped(namespace))).await?;
        Ok(objects.into_iter().map(Pod::from).collect())
    }

    /// One pod; none when it isn't there.
    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, K8sError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", escaped(namespace), escaped(name));
        match self.read::<Object>(&path).await {
            Ok(object) => Ok(Some(object.into())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_shows_who_makes_it_where_it_runs_and_what_it_waits_for() {
        let text = r#"{"metadata":{"name":"web-0","namespace":"shop","uid":"u","labels":{"app":"web"},
            "ownerReferences":[{"kind":"Thing","name":"x"},{"kind":"StatefulSet","name":"web","controller":true}]},
            "spec":{"nodeName":"w-01","containers":[{"name":"web","image":"web:1"}],"volumes":[
              {"name":"data","persistentVolumeClaim":{"claimName":"data-web-0"}},{"name":"scratch","ephemeral":{}},
              {"name":"tmp","emptyDir":{}}]},
            "status":{"phase":"Pending","hostIP":"10.0.0.1","hostIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}],
              "conditions":[{"type":"Ready","status":"False"}],
              "containerStatuses":[{"state":{"waiting":{"reason":"CrashLoopBackOff","message":"back-off"}}}]}}"#;
        let pod = Pod::from(serde_json::from_str::<Object>(text).unwrap());
        assert_eq!((pod.full_name().as_str(), pod.controller.as_deref()), ("shop/web-0", Some("StatefulSet")));
        assert_eq!(pod.claims, ["data-web-0", "web-0-scratch"]);
        assert_eq!(pod.host_addresses, ["10.0.0.1", "fd00::1"]);
        assert_eq!(pod.trouble.as_deref(), Some("CrashLoopBackOff: back-off"));
        assert!(!pod.ready && !pod.deleting && !pod.is_mirror() && !pod.is_finished());
    }
}
