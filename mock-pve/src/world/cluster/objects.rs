//! The objects that a cluster makes for itself, and those of its machines.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::manifests::{self, Ingredients};
use super::{defaults, pods, roles};

/// An object and the key it belongs under.
pub type Keyed = (String, Value);

/// A node object's ingredients.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// It runs the control plane.
    pub control_plane: bool,
    /// Ordinary pods may not run on it.
    pub tainted: bool,
    /// Talos' version with the `v`.
    pub talos: String,
    /// Kubernetes' version without the `v`.
    pub kubernetes: String,
    /// This boot's id.
    pub boot_id: String,
    /// What `/etc/machine-id` says.
    pub machine_id: String,
    /// SMBIOS UUID.
    pub uuid: String,
    /// Virtual CPUs.
    pub cores: u32,
    /// Memory.
    pub memory_mib: u64,
    /// The kubelet's verdict.
    pub readiness: Readiness,
}

/// A node's Ready condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// True.
    Ready,
    /// False: the kubelet runs, the network isn't there yet.
    NotReady,
    /// Unknown: the kubelet hasn't been heard of.
    Unknown,
}

/// The key of an object.
pub fn key(resource: &str, namespace: Option<&str>, name: &str) -> String {
    match namespace {
        Some(namespace) => format!("/registry/{resource}/{namespace}/{name}"),
        None => format!("/registry/{resource}/{name}"),
    }
}

/// Where objects of a kind are kept: the first part of their key, and whether they are in namespaces.
fn stored(kind: &str) -> (String, bool) {
    let plural = match kind {
        "Node" => "minions".to_owned(),
        "Service" => "services/specs".to_owned(),
        "Endpoints" => "services/endpoints".to_owned(),
        "Ingress" => "ingress".to_owned(),
        "CustomResourceDefinition" => "apiextensions.k8s.io/customresourcedefinitions".to_owned(),
        "APIService" => "apiregistration.k8s.io/apiservices".to_owned(),
        kind => match kind.to_lowercase() {
            name if name.ends_with("class") => format!("{name}es"),
            name if name.ends_with("policy") => format!("{}ies", name.trim_end_matches('y')),
            name => format!("{name}s"),
        },
    };
    let everywhere = [
        "Namespace",
        "Node",
        "PersistentVolume",
        "StorageClass",
        "ClusterRole",
        "ClusterRoleBinding",
        "PriorityClass",
        "CustomResourceDefinition",
        "APIService",
        "VolumeAttachment",
        "CSINode",
        "CSIDriver",
        "IngressClass",
        "RuntimeClass",
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
        "CertificateSigningRequest",
    ];
    (plural, !everywhere.contains(&kind))
}

/// The key of an object that is known only by itself; without a namespace it is in `default`, if it has to be in one.
pub fn place(object: &Value) -> String {
    let (resource, namespaced) = stored(pods::text(object, "/kind"));
    let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default");
    key(&resource, namespaced.then_some(namespace), pods::text(object, "/metadata/name"))
}

/// An object out of a seed, as it would be had somebody applied it; `None` when kind or name are missing.
pub fn given(manifest: &Value, seed: &str) -> Option<Keyed> {
    let mut object = manifest.clone();
    if !object["metadata"].is_object()
        || ["/apiVersion", "/kind", "/metadata/name"].iter().any(|part| pods::text(&object, part).is_empty())
    {
        return None;
    }
    let at = place(&object);
    if stored(pods::text(&object, "/kind")).1 && object["metadata"].get("namespace").is_none() {
        object["metadata"]["namespace"] = json!("default");
    }
    object["metadata"]["uid"] = json!(uid(&format!("{seed} {at}")));
    object["metadata"]["creationTimestamp"] = json!(now());
    object["metadata"]["generation"] = json!(1);
    if object["kind"] == "Namespace" {
        object["spec"] = json!({ "finalizers": ["kubernetes"] });
        object["status"] = json!({ "phase": "Active" });
    }
    defaults::complete(&mut object);
    if object["kind"] == "Pod" {
        pods::admitted(&mut object);
    }
    Some((at, object))
}

/// Time as Kubernetes writes it.
pub fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A UUID that follows from a text.
pub fn uid(of: &str) -> String {
    let digest = hex::encode(Sha256::digest(of));
    format!("{}-{}-4{}-8{}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[17..20], &digest[20..32])
}

/// What every new cluster holds once its first API server ran. `seed` makes the UIDs: two clusters differ in them.
pub fn begin(seed: &str, of: &Ingredients) -> Vec<Keyed> {
    let mut all = Vec::new();
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let mut object = namespaced("v1", "Namespace", None, name, seed);
        object["metadata"]["labels"] = json!({ "kubernetes.io/metadata.name": name });
        object["spec"] = json!({ "finalizers": ["kubernetes"] });
        object["status"] = json!({ "phase": "Active" });
        all.push((key("namespaces", None, name), object));
    }
    let mut service = namespaced("v1", "Service", Some("default"), "kubernetes", seed);
    service["metadata"]["labels"] = json!({ "component": "apiserver", "provider": "kubernetes" });
    service["spec"] = json!({ "clusterIP": "10.96.0.1", "type": "ClusterIP",
        "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }] });
    defaults::complete(&mut service);
    all.push((key("services/specs", Some("default"), "kubernetes"), service));
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        let mut object = namespaced("scheduling.k8s.io/v1", "PriorityClass", None, name, seed);
        object["value"] = json!(value);
        object["description"] = json!(format!("Used for {} critical pods.", name.trim_end_matches("-critical")));
        object["metadata"]["generation"] = json!(1);
        defaults::complete(&mut object);
        all.push((key("priorityclasses", None, name), object));
    }
    for group in GROUPS {
        let (version, group) = group.split_once('.').unwrap_or((group, ""));
        let name = format!("{version}.{group}");
        let mut object = namespaced("apiregistration.k8s.io/v1", "APIService", None, &name, seed);
        object["metadata"]["labels"] = json!({ "kube-aggregator.kubernetes.io/automanaged": "onstart" });
        object["spec"] = json!({ "version": version, "groupPriorityMinimum": 17000, "versionPriority": 15 });
        if !group.is_empty() {
            object["spec"]["group"] = json!(group);
        }
        object["status"] = json!({ "conditions": [{ "type": "Available", "status": "True", "reason": "Local",
            "message": "Local APIServices are always available", "lastTransitionTime": now() }] });
        all.push((key("apiregistration.k8s.io/apiservices", None, &name), object));
    }
    all.extend(roles::all(seed));
    all.extend(manifests::missing(of, seed, |_| None));
    all
}

/// The versions of the groups that an API server serves itself.
const GROUPS: &[&str] = &[
    "v1.",
    "v1.admissionregistration.k8s.io",
    "v1.apiextensions.k8s.io",
    "v1.apps",
    "v1.authentication.k8s.io",
    "v1.authorization.k8s.io",
    "v2.autoscaling",
    "v1.batch",
    "v1.certificates.k8s.io",
    "v1.coordination.k8s.io",
    "v1.discovery.k8s.io",
    "v1.events.k8s.io",
    "v1.networking.k8s.io",
    "v1.node.k8s.io",
    "v1.policy",
    "v1.rbac.authorization.k8s.io",
    "v1.scheduling.k8s.io",
    "v1.storage.k8s.io",
];

/// What users put into the cluster: a deployment with a disruption budget, and a stateful set.
pub fn users(seed: &str) -> Vec<Keyed> {
    let mut budget = namespaced("policy/v1", "PodDisruptionBudget", Some("default"), "web", seed);
    budget["metadata"]["generation"] = json!(1);
    budget["spec"] = json!({ "minAvailable": 1, "selector": { "matchLabels": { "k8s-app": "web" } } });
    let mut set = workload("StatefulSet", ("default", "store"), "store", "registry.k8s.io/pause:3.10", seed);
    set["spec"]["replicas"] = json!(1);
    set["spec"]["serviceName"] = json!("store");
    vec![
        deployment("default", "web", "web", (2, "registry.k8s.io/pause:3.10"), seed),
        (key("poddisruptionbudgets", Some("default"), "web"), budget),
        (key("statefulsets", Some("default"), "store"), set),
    ]
}

/// A deployment of one container.
pub fn deployment(namespace: &str, name: &str, app: &str, (replicas, image): (u64, &str), seed: &str) -> Keyed {
    let mut object = workload("Deployment", (namespace, name), app, image, seed);
    object["spec"]["replicas"] = json!(replicas);
    (key("deployments", Some(namespace), name), object)
}

pub(super) fn workload(kind: &str, (namespace, name): (&str, &str), app: &str, image: &str, seed: &str) -> Value {
    let mut object = namespaced("apps/v1", kind, Some(namespace), name, seed);
    object["metadata"]["labels"] = json!({ "k8s-app": app });
    object["metadata"]["generation"] = json!(1);
    object["spec"] = json!({ "selector": { "matchLabels": { "k8s-app": app } },
        "template": { "metadata": { "labels": { "k8s-app": app } },
            "spec": { "containers": [{ "name": name, "image": image }] } } });
    object["status"] = json!({ "observedGeneration": 1 });
    defaults::complete(&mut object);
    object
}

pub(super) fn namespaced(version: &str, kind: &str, namespace: Option<&str>, name: &str, seed: &str) -> Value {
    let mut metadata = json!({ "name": name, "creationTimestamp": now(),
        "uid": uid(&format!("{seed} {kind} {} {name}", namespace.unwrap_or_default())) });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata })
}

/// A machine's node object: new, or the old one with its status brought up to date.
pub fn node(old: Option<Value>, facts: &NodeFacts, seed: &str) -> Keyed {
    let path = key("minions", None, &facts.name);
    let mut node = old.unwrap_or_else(|| namespaced("v1", "Node", None, &facts.name, seed));
    let control_plane = "node-role.kubernetes.io/control-plane";
    let labels = &mut node["metadata"]["labels"];
    for (label, value) in [
        ("beta.kubernetes.io/arch", "amd64"),
        ("beta.kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("kubernetes.io/hostname", facts.name.as_str()),
        ("kubernetes.io/os", "linux"),
    ] {
        labels[label] = json!(value);
    }
    if facts.control_plane {
        labels[control_plane] = json!("");
    }
    node["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] = json!("0");
    node["metadata"]["annotations"]["volumes.kubernetes.io/controller-managed-attach-detach"] = json!("true");
    node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] = json!(10_250);
    if facts.tainted && node.pointer("/spec/taints").is_none() {
        node["spec"]["taints"] = json!([{ "key": control_plane, "effect": "NoSchedule" }]);
    }
    if node.get("spec").is_none() {
        node["spec"] = json!({});
    }
    let resources = json!({ "cpu": facts.cores.to_string(), "memory": format!("{}Ki", facts.memory_mib * 1024),
        "pods": "110", "ephemeral-storage": "40000000Ki" });
    node["status"]["capacity"] = resources.clone();
    node["status"]["allocatable"] = resources;
    node["status"]["addresses"] =
        json!([{ "type": "InternalIP", "address": facts.address }, { "type": "Hostname", "address": facts.name }]);
    node["status"]["nodeInfo"] = json!({
        "architecture": "amd64",
        "bootID": facts.boot_id,
        "containerRuntimeVersion": "containerd://2.1.6",
        "kernelVersion": "6.12.57-talos",
        "kubeProxyVersion": format!("v{}", facts.kubernetes),
        "kubeletVersion": format!("v{}", facts.kubernetes),
        "machineID": facts.machine_id,
        "operatingSystem": "linux",
        "osImage": format!("Talos ({})", facts.talos),
        "systemUUID": facts.uuid,
    });
    set_readiness(&mut node, facts.readiness);
    (path, node)
}

/// Where the API servers are.
pub fn endpoints(addresses: &[String], seed: &str) -> Keyed {
    let mut object = namespaced("v1", "Endpoints", Some("default"), "kubernetes", seed);
    let each: Vec<Value> = addresses.iter().map(|address| json!({ "ip": address })).collect();
    object["subsets"] = json!([{ "addresses": each, "ports": [{ "name": "https", "port": 6443, "protocol": "TCP" }] }]);
    (key("services/endpoints", Some("default"), "kubernetes"), object)
}

/// Sets the Ready condition of a node object.
pub fn set_readiness(node: &mut Value, readiness: Readiness) {
    let (status, reason, message) = match readiness {
        Readiness::Ready => ("True", "KubeletReady", "kubelet is posting ready status"),
        Readiness::NotReady => (
            "False",
            "KubeletNotReady",
            "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady",
        ),
        Readiness::Unknown => ("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status."),
    };
    let old = node.pointer("/status/conditions").and_then(Value::as_array).and_then(|conditions| {
        conditions.iter().find(|condition| condition["type"] == "Ready" && condition["status"] == status).cloned()
    });
    let since = old.and_then(|old| old["lastTransitionTime"].as_str().map(str::to_owned)).unwrap_or_else(now);
    let calm = if readiness == Readiness::Unknown { "Unknown" } else { "False" };
    let others = [
        ("MemoryPressure", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ]
    .map(|(kind, why, text)| {
        let (why, text) = if readiness == Readiness::Unknown { (reason, message) } else { (why, text) };
        json!({ "type": kind, "status": calm, "reason": why, "message": text, "lastHeartbeatTime": now(),
            "lastTransitionTime": since })
    });
    let mut conditions = others.to_vec();
    conditions.push(json!({ "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now(), "lastTransitionTime": since }));
    node["status"]["conditions"] = json!(conditions);
}

/// The static pods of a control plane.
pub fn static_pods(facts: &NodeFacts, seed: &str) -> Vec<Keyed> {
    let mut all = Vec::new();
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let name = format!("{component}-{}", facts.name);
        let mut pod = namespaced("v1", "Pod", Some("kube-system"), &name, seed);
        pod["metadata"]["labels"] = json!({ "tier": "control-plane", "k8s-app": component, "component": component,
            "app.kubernetes.io/name": component, "app.kubernetes.io/component": "control-plane",
            "app.kubernetes.io/version": format!("v{}", facts.kubernetes), "app.kubernetes.io/managed-by": "Talos" });
        pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.source": "file",
            "kubernetes.io/config.mirror": "talos", "kubernetes.io/config.seen": now() });
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Node", "name": facts.name,
            "uid": uid(&format!("{seed} Node  {}", facts.name)), "controller": true }]);
        let image = format!("registry.k8s.io/{component}:v{}", facts.kubernetes);
        pod["spec"] = json!({ "nodeName": facts.name, "hostNetwork": true, "priorityClassName": "system-cluster-critical",
            "tolerations": [{ "operator": "Exists", "effect": "NoExecute" }],
            "containers": [{ "name": component, "image": image, "command": [format!("/usr/local/bin/{component}")] }] });
        defaults::complete(&mut pod);
        pods::admitted(&mut pod);
        pod["status"] = json!({
            "phase": "Running", "hostIP": facts.address, "podIP": facts.address, "startTime": now(),
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
            "containerStatuses": [{ "name": component, "image": image, "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": now() } } }],
        });
        all.push((key("pods", Some("kube-system"), &name), pod));
    }
    all
}

/// Whether a node object says Ready.
pub fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// A config map, for seeding.
pub fn config_map(namespace: &str, name: &str, data: Value, seed: &str) -> Value {
    let mut object = namespaced("v1", "ConfigMap", Some(namespace), name, seed);
    object["data"] = data;
    object
}

#[cfg(test)]
impl NodeFacts {
    pub(super) fn sample() -> Self {
        Self {
            name: "node".to_owned(),
            address: "10.0.0.1".to_owned(),
            control_plane: false,
            tainted: false,
            talos: "v1.13.9".to_owned(),
            kubernetes: "1.35.0".to_owned(),
            boot_id: "boot".to_owned(),
            machine_id: "machine".to_owned(),
            uuid: "uuid".to_owned(),
            cores: 4,
            memory_mib: 8192,
            readiness: Readiness::Ready,
        }
    }
}
