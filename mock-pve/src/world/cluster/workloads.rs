//! What controllers, the scheduler and kubelets make of workloads: pods, and counts of them.
//!
//! Everything here is a function from what is there to what is to be written; who calls it, writes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Entry;
use super::objects::{self, Keyed};

/// What is there.
#[derive(Debug, Default)]
pub struct View {
    /// Node objects.
    pub nodes: Vec<Entry>,
    /// Pods.
    pub pods: Vec<Entry>,
    /// Deployments.
    pub deployments: Vec<Entry>,
    /// Daemon sets.
    pub daemonsets: Vec<Entry>,
    /// Stateful sets.
    pub statefulsets: Vec<Entry>,
}

/// A write that holds only if the object is still as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The object; `None`: it goes.
    pub value: Option<Value>,
    /// The revision it was seen at; 0: it must not exist.
    pub expected: u64,
}

impl View {
    /// Collects it with whatever lists objects by their prefix.
    pub fn of(list: impl Fn(&str) -> Vec<Entry>) -> Self {
        Self {
            nodes: list("/registry/minions/"),
            pods: list("/registry/pods/"),
            deployments: list("/registry/deployments/"),
            daemonsets: list("/registry/daemonsets/"),
            statefulsets: list("/registry/statefulsets/"),
        }
    }

    /// What the controllers write next; nothing when all is as it should be. `seed` makes UIDs.
    pub fn reconcile(&self, seed: &str) -> Vec<Write> {
        let mut writes = self.collect_garbage();
        for set in &self.daemonsets {
            let mine = self.owned(set);
            let nodes: Vec<&Entry> = self.nodes.iter().filter(|node| tolerates(set) || is_open(node)).collect();
            for node in &nodes {
                if !mine.iter().any(|pod| node_of(pod) == node.name()) {
                    writes.push(self.pod(set, "DaemonSet", node.name(), seed));
                }
            }
            let (desired, ready) = (nodes.len(), mine.iter().filter(|pod| is_ready(&pod.value)).count());
            let status = json!({ "currentNumberScheduled": mine.len(), "desiredNumberScheduled": desired,
                "numberReady": ready, "numberAvailable": ready, "updatedNumberScheduled": mine.len(),
                "numberMisscheduled": 0, "observedGeneration": set.value["metadata"]["generation"].as_u64().unwrap_or(1) });
            writes.extend(with_status(set, status));
        }
        for (sets, kind) in [(&self.deployments, "Deployment"), (&self.statefulsets, "StatefulSet")] {
            for set in sets {
                self.replicate(set, kind, seed, &mut writes);
            }
        }
        writes
    }

    fn replicate(&self, set: &Entry, kind: &str, seed: &str, writes: &mut Vec<Write>) {
        let mine = self.owned(set);
        let wanted = set.value.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
        let wanted = usize::try_from(wanted).unwrap_or_default();
        if mine.len() < wanted {
            let load = |node: &&Entry| self.pods.iter().filter(|pod| node_of(pod) == node.name()).count();
            let open = self.nodes.iter().filter(|node| is_open(node) && objects::is_ready(&node.value));
            // One at a time, so that the next one sees where this one went.
            if let Some(node) = open.min_by_key(|node| (mine.iter().any(|pod| node_of(pod) == node.name()), load(node)))
            {
                writes.push(self.pod(set, kind, node.name(), seed));
            }
        }
        for pod in mine.iter().skip(wanted) {
            writes.push(Write { key: pod.key.clone(), value: None, expected: pod.modified });
        }
        let ready = mine.iter().filter(|pod| is_ready(&pod.value)).count();
        let generation = set.value["metadata"]["generation"].as_u64().unwrap_or(1);
        let status = if kind == "Deployment" {
            let available = json!([{ "type": "Available", "status": if ready >= wanted { "True" } else { "False" } }]);
            json!({ "replicas": mine.len(), "readyReplicas": ready, "availableReplicas": ready,
                "updatedReplicas": mine.len(), "observedGeneration": generation, "conditions": available })
        } else {
            json!({ "replicas": mine.len(), "readyReplicas": ready, "currentReplicas": mine.len(),
                "updatedReplicas": mine.len(), "availableReplicas": ready, "observedGeneration": generation })
        };
        writes.extend(with_status(set, status));
    }

    /// Pods of nodes that aren't there go; pods of nodes that aren't heard of aren't ready.
    fn collect_garbage(&self) -> Vec<Write> {
        let mut writes = Vec::new();
        for pod in &self.pods {
            match self.nodes.iter().find(|node| node.name() == node_of(pod)) {
                None => writes.push(Write { key: pod.key.clone(), value: None, expected: pod.modified }),
                Some(node) if !objects::is_ready(&node.value) && is_ready(&pod.value) => {
                    let mut value = pod.value.clone();
                    set_ready(&mut value, false);
                    writes.push(Write { key: pod.key.clone(), value: Some(value), expected: pod.modified });
                }
                Some(_) => {}
            }
        }
        writes
    }

    /// The pods that a workload owns, by name.
    fn owned(&self, set: &Entry) -> Vec<&Entry> {
        let uid = &set.value["metadata"]["uid"];
        self.pods.iter().filter(|pod| &pod.value["metadata"]["ownerReferences"][0]["uid"] == uid).collect()
    }

    /// A new pod of a workload on a node.
    fn pod(&self, set: &Entry, kind: &str, node: &str, seed: &str) -> Write {
        let namespace = set.value["metadata"]["namespace"].as_str().unwrap_or("default");
        let place = |name: &str| objects::key("pods", Some(namespace), name);
        let taken = |name: &str| self.pods.iter().any(|pod| pod.key == place(name));
        let name = if kind == "StatefulSet" {
            (0..=self.pods.len())
                .map(|number| format!("{}-{number}", set.name()))
                .find(|name| !taken(name))
                .unwrap_or_default()
        } else {
            let revision = set.modified + self.pods.iter().map(|pod| pod.modified).max().unwrap_or(0);
            let suffix = &objects::uid(&format!("{seed} {node} {revision} {}", set.name()))[..5];
            format!("{}-{suffix}", set.name())
        };
        let mut pod = objects::namespaced("v1", "Pod", Some(namespace), &name, &format!("{seed} {}", set.modified));
        pod["metadata"]["labels"] = set.value.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
        pod["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": kind, "name": set.name(),
            "uid": set.value["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true }]);
        pod["spec"] = set.value.pointer("/spec/template/spec").cloned().unwrap_or_default();
        pod["spec"]["nodeName"] = json!(node);
        pod["status"] = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "True" }] });
        Write { key: place(&name), value: Some(pod), expected: 0 }
    }

    /// What a node's kubelet writes about its pods: those that it hasn't started since it booted run now.
    pub fn started(&self, node: &str, address: &str, running: &mut BTreeSet<String>) -> Vec<Write> {
        let mut writes = Vec::new();
        for pod in self.pods.iter().filter(|pod| node_of(pod) == node) {
            let uid = pod.value["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
            if running.contains(&uid) && is_ready(&pod.value) {
                continue;
            }
            let restarts = pod.value.pointer("/status/containerStatuses/0/restartCount").and_then(Value::as_u64);
            let restarts = match restarts {
                Some(count) if running.contains(&uid) => count,
                Some(count) => count + 1,
                None => 0,
            };
            running.insert(uid);
            let mut value = pod.value.clone();
            let containers = value.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
            let statuses: Vec<Value> = containers
                .iter()
                .map(|container| {
                    json!({ "name": container["name"], "image": container["image"], "ready": true,
                        "restartCount": restarts, "state": { "running": { "startedAt": objects::now() } } })
                })
                .collect();
            let ip = pod_ip(&pod.key);
            value["status"] = json!({ "phase": "Running", "hostIP": address, "podIP": ip, "podIPs": [{ "ip": ip }],
                "startTime": objects::now(), "containerStatuses": statuses });
            set_ready(&mut value, true);
            writes.push(Write { key: pod.key.clone(), value: Some(value), expected: pod.modified });
        }
        writes
    }
}

/// Some address in the pod network that follows from the pod's key.
fn pod_ip(key: &str) -> String {
    let sum = crc32fast::hash(key.as_bytes()).to_be_bytes();
    format!("10.244.{}.{}", sum[0], sum[1].max(1))
}

fn with_status(set: &Entry, status: Value) -> Option<Write> {
    if set.value["status"] == status {
        return None;
    }
    let mut value = set.value.clone();
    value["status"] = status;
    Some(Write { key: set.key.clone(), value: Some(value), expected: set.modified })
}

fn node_of(pod: &Entry) -> &str {
    pod.value.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default()
}

/// Whether a pod says Ready.
pub fn is_ready(pod: &Value) -> bool {
    objects::is_ready(pod)
}

fn set_ready(pod: &mut Value, ready: bool) {
    let status = if ready { "True" } else { "False" };
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|kind| {
        let status = if ["ContainersReady", "Ready"].contains(&kind) { status } else { "True" };
        json!({ "type": kind, "status": status, "lastTransitionTime": objects::now() })
    });
    pod["status"]["conditions"] = json!(conditions);
}

/// Ordinary pods may go there.
fn is_open(node: &Entry) -> bool {
    let taints = node.value.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten();
    let closed = taints.filter(|taint| taint["effect"] != "PreferNoSchedule").count() > 0;
    !closed && node.value.pointer("/spec/unschedulable") != Some(&json!(true))
}

/// Its pods go everywhere, cordoned or not.
fn tolerates(set: &Entry) -> bool {
    let tolerations = set.value.pointer("/spec/template/spec/tolerations").and_then(Value::as_array);
    tolerations.into_iter().flatten().any(|one| one["operator"] == "Exists" && one.get("key").is_none())
}

/// Lets controllers and kubelets work on a store until nothing changes: how a cluster looks that has lived for a while.
pub fn live(store: &mut crate::etcd::Store, addresses: &[(String, String)], seed: &str) {
    let mut running = BTreeSet::new();
    for _ in 0..100 {
        let view = View::of(|prefix| super::listed(store, prefix));
        let mut writes = view.reconcile(seed);
        for (node, address) in addresses {
            writes.extend(view.started(node, address, &mut running));
        }
        if writes.is_empty() {
            return;
        }
        for write in writes {
            let key = bytes::Bytes::from(write.key);
            match write.value {
                Some(value) => {
                    store.put(key, super::values::encode(&value));
                }
                None => {
                    store.delete(&key);
                }
            }
        }
    }
}

/// Puts objects into a store.
pub fn fill(store: &mut crate::etcd::Store, objects: impl IntoIterator<Item = Keyed>) {
    for (key, value) in objects {
        store.put(bytes::Bytes::from(key), super::values::encode(&value));
    }
}
