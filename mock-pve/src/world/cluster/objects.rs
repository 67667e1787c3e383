//! The objects that a cluster makes for itself, and those of its machines.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Etcd, EtcdError};

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
pub fn begin(etcd: &Etcd, seed: &str, kubernetes: &str) -> Result<(), EtcdError> {
    for name in ["default", "kube-node-lease", "kube-public", "kube-system"] {
        let mut object = namespaced("v1", "Namespace", None, name, seed);
        object["metadata"]["labels"] = json!({ "kubernetes.io/metadata.name": name });
        object["spec"] = json!({ "finalizers": ["kubernetes"] });
        object["status"] = json!({ "phase": "Active" });
        etcd.put(&key("namespaces", None, name), object, None)?;
    }
    let mut service = namespaced("v1", "Service", Some("default"), "kubernetes", seed);
    service["spec"] = json!({ "clusterIP": "10.96.0.1", "type": "ClusterIP",
        "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }] });
    etcd.put(&key("services", Some("default"), "kubernetes"), service, None)?;
    let mut dns = workload("Deployment", "coredns", "kube-dns", seed);
    dns["spec"]["replicas"] = json!(2);
    dns["spec"]["template"]["spec"] =
        json!({ "containers": [{ "name": "coredns", "image": "registry.k8s.io/coredns/coredns:v1.14.2" }] });
    dns["status"] = json!({ "replicas": 2, "readyReplicas": 2, "availableReplicas": 2, "updatedReplicas": 2,
        "observedGeneration": 1 });
    etcd.put(&key("deployments", Some("kube-system"), "coredns"), dns, None)?;
    for (name, app, image) in [
        ("kube-proxy", "kube-proxy", format!("registry.k8s.io/kube-proxy:v{kubernetes}")),
        ("kube-flannel", "flannel", "ghcr.io/siderolabs/flannel:v0.27.4".to_owned()),
    ] {
        let mut set = workload("DaemonSet", name, app, seed);
        set["spec"]["template"]["spec"] = json!({ "containers": [{ "name": name, "image": image }] });
        set["status"] = json!({ "observedGeneration": 1 });
        etcd.put(&key("daemonsets", Some("kube-system"), name), set, None)?;
    }
    Ok(())
}

fn workload(kind: &str, name: &str, app: &str, seed: &str) -> Value {
    let mut object = namespaced("apps/v1", kind, Some("kube-system"), name, seed);
    object["metadata"]["labels"] = json!({ "k8s-app": app });
    object["metadata"]["generation"] = json!(1);
    object["spec"] = json!({ "selector": { "matchLabels": { "k8s-app": app } },
        "template": { "metadata": { "labels": { "k8s-app": app } } } });
    object
}

fn namespaced(version: &str, kind: &str, namespace: Option<&str>, name: &str, seed: &str) -> Value {
    let mut metadata = json!({ "name": name, "creationTimestamp": now(),
        "uid": uid(&format!("{seed} {kind} {} {name}", namespace.unwrap_or_default())) });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    json!({ "apiVersion": version, "kind": kind, "metadata": metadata })
}

/// Writes a machine's node object: new, or with its status brought up to date.
pub fn put_node(etcd: &Etcd, facts: &NodeFacts, seed: &str) -> Result<(), EtcdError> {
    let path = key("minions", None, &facts.name);
    let mut node =
        etcd.get(&path).map_or_else(|| namespaced("v1", "Node", None, &facts.name, seed), |entry| entry.value);
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
        "machineID": facts.uuid.replace('-', ""),
        "operatingSystem": "linux",
        "osImage": format!("Talos ({})", facts.talos),
        "systemUUID": facts.uuid,
    });
    set_readiness(&mut node, facts.readiness);
    etcd.put(&path, node, None).map(|_| ())
}

/// Changes only the Ready condition of a node object, if it exists.
pub fn mark_node(etcd: &Etcd, name: &str, readiness: Readiness) -> Result<(), EtcdError> {
    let path = key("minions", None, name);
    let Some(entry) = etcd.get(&path) else { return Ok(()) };
    let mut node = entry.value;
    set_readiness(&mut node, readiness);
    etcd.put(&path, node, None).map(|_| ())
}

fn set_readiness(node: &mut Value, readiness: Readiness) {
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
    let others = ["MemoryPressure", "DiskPressure", "PIDPressure"].map(|kind| {
        json!({ "type": kind, "status": calm, "reason": "KubeletHasSufficient", "message": "",
            "lastHeartbeatTime": now(), "lastTransitionTime": since })
    });
    let mut conditions = others.to_vec();
    conditions.push(json!({ "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastHeartbeatTime": now(), "lastTransitionTime": since }));
    node["status"]["conditions"] = json!(conditions);
}

/// The static pods of a control plane.
pub fn put_static_pods(etcd: &Etcd, facts: &NodeFacts, seed: &str) -> Result<(), EtcdError> {
    for component in ["kube-apiserver", "kube-controller-manager", "kube-scheduler"] {
        let name = format!("{component}-{}", facts.name);
        let mut pod = namespaced("v1", "Pod", Some("kube-system"), &name, seed);
        pod["metadata"]["labels"] =
            json!({ "tier": "control-plane", "k8s-app": component, "app.kubernetes.io/name": component });
        pod["metadata"]["annotations"] = json!({ "kubernetes.io/config.source": "file",
            "kubernetes.io/config.mirror": "talos" });
        let image = format!("registry.k8s.io/{component}:v{}", facts.kubernetes);
        pod["spec"] = json!({ "nodeName": facts.name, "hostNetwork": true, "priorityClassName": "system-cluster-critical",
            "containers": [{ "name": component, "image": image }] });
        pod["status"] = json!({
            "phase": "Running", "hostIP": facts.address, "podIP": facts.address, "startTime": now(),
            "conditions": [{ "type": "Ready", "status": "True" }, { "type": "ContainersReady", "status": "True" }],
            "containerStatuses": [{ "name": component, "image": image, "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": now() } } }],
        });
        etcd.put(&key("pods", Some("kube-system"), &name), pod, None)?;
    }
    Ok(())
}

/// Brings the counts of the daemon sets up to the number of nodes that are ready.
pub fn count_daemons(etcd: &Etcd) -> Result<(), EtcdError> {
    let ready = etcd.list("/registry/minions/").0.iter().filter(|(_, entry)| is_ready(&entry.value)).count();
    for name in ["kube-proxy", "kube-flannel"] {
        let path = key("daemonsets", Some("kube-system"), name);
        let Some(entry) = etcd.get(&path) else { continue };
        let mut set = entry.value;
        let status = json!({ "currentNumberScheduled": ready, "desiredNumberScheduled": ready, "numberReady": ready,
            "numberAvailable": ready, "updatedNumberScheduled": ready, "numberMisscheduled": 0,
            "observedGeneration": 1 });
        if set["status"] != status {
            set["status"] = status;
            etcd.put(&path, set, None)?;
        }
    }
    Ok(())
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
