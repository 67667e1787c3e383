//! Nodes that aren't heard of, their taints, and the pods that have to leave them; namespaces.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Desk, Memory, News, View, objects, pods};
use crate::world::cluster::objects::Readiness;
use crate::world::cluster::view::Time;

/// Who tells of nodes, and of pods that have to leave them.
const NODES: &str = "node-controller";
const TAINTS: &str = "taint-eviction-controller";
/// Seconds that the node controller waits before it calls a node unknown.
const GRACE: f64 = 40.0;
/// However fast time passes: a busy computer delays kubelets.
const LEAST_GRACE: Duration = Duration::from_secs(4);

/// The taints that the node controller sets itself.
const OWN_TAINTS: [&str; 3] =
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/unschedulable"];

/// Remembers which leases were renewed.
pub(super) fn hear(view: &View, memory: &mut Memory) {
    let nodes: Vec<&str> = view.list("/registry/minions/").map(|node| node.name()).collect();
    memory.heard.retain(|name, _| nodes.contains(&name.as_str()));
    for name in nodes {
        let lease = view.get(&objects::key("leases", Some("kube-node-lease"), name)).map_or(0, |lease| lease.modified);
        match memory.heard.get_mut(name) {
            Some(known) if known.0 == lease => {}
            Some(known) => *known = (lease, Instant::now()),
            None => {
                memory.heard.insert(name.to_owned(), (lease, Instant::now()));
                memory.fresh.push(name.to_owned());
            }
        }
    }
}

impl Desk<'_> {
    pub(super) fn nodes(&mut self) {
        let nodes = self.all("/registry/minions/");
        let fresh = std::mem::take(&mut self.memory.fresh);
        for node in nodes.iter().filter(|node| fresh.iter().any(|name| name == node.name())) {
            let name = node.name();
            let why = format!("Node {name} event: Registered Node {name} in Controller");
            self.round.news.push(News::of(&node.value, NODES, "RegisteredNode", why));
        }
        for node in &nodes {
            let known = self.memory.heard.get(node.name()).copied().unwrap_or((0, Instant::now()));
            let mut value = node.value.clone();
            if let Time::Runs(clock) = self.time
                && condition(&value) != "Unknown"
                && !condition(&value).is_empty()
            {
                let silent = self.time.waited(known.1, clock.scaled(GRACE).max(LEAST_GRACE));
                if self.round.due(silent) {
                    objects::set_readiness(&mut value, Readiness::Unknown);
                }
            }
            set_taints(&mut value);
            if value != node.value {
                let lost = condition(&value) == "Unknown" && condition(&node.value) == "True";
                self.round.update(node, value);
                if lost {
                    let why = format!("Node {} status is now: NodeNotReady", node.name());
                    self.round.tell(News::of(&node.value, NODES, "NodeNotReady", why));
                }
            }
            self.leave(node);
        }
        self.orphans(&nodes);
    }

    /// Pods of a node that isn't ready aren't either, and leave it when their patience is over.
    fn leave(&mut self, node: &super::Entry) {
        let ready = objects::is_ready(&node.value);
        if ready && node.value.pointer("/spec/taints").is_none() {
            return;
        }
        let all: Vec<_> =
            self.view.list("/registry/pods/").filter(|pod| pods::node_of(&pod.value) == node.name()).cloned().collect();
        for pod in all {
            if let Some(seconds) = pods::driven_out(&pod.value, &node.value)
                && !pods::is_going(&pod.value)
            {
                let uid = pods::text(&pod.value, "/metadata/uid");
                let since = self.memory.since(format!("driven {uid}"));
                if self.round.due(self.time.passed(since, seconds)) {
                    self.terminate(&pod);
                    let why = format!("Marking for deletion Pod {}/{}", pods::namespace(&pod), pod.name());
                    self.round.tell(News::of(&pod.value, TAINTS, "TaintManagerEviction", why));
                    continue;
                }
            }
            if condition(&node.value) == "Unknown" && pods::is_ready(&pod.value) {
                let mut value = pod.value.clone();
                pods::set_condition(&mut value, "Ready", "False", "NodeNotReady", "Node is not ready");
                self.round.update(&pod, value);
                self.round.tell(News::of(&pod.value, NODES, "NodeNotReady", "Node is not ready").warns());
            }
        }
    }

    /// Pods that are bound to a node that isn't there go (`PodGC`).
    fn orphans(&mut self, nodes: &[std::sync::Arc<super::Entry>]) {
        let lost: Vec<_> = self
            .view
            .list("/registry/pods/")
            .filter(|pod| {
                let node = pods::node_of(&pod.value);
                !node.is_empty() && !nodes.iter().any(|known| known.name() == node)
            })
            .cloned()
            .collect();
        for pod in &lost {
            self.round.remove(pod);
        }
    }

    /// Every namespace has an account and knows the CA; one that is being deleted is emptied first.
    pub(super) fn namespaces(&mut self, authority: &str) {
        for namespace in self.all("/registry/namespaces/") {
            let name = namespace.name();
            if pods::is_going(&namespace.value) {
                self.empty(&namespace);
                continue;
            }
            let account = objects::key("serviceaccounts", Some(name), "default");
            if self.view.get(&account).is_none() {
                let value = objects::namespaced("v1", "ServiceAccount", Some(name), "default", &self.uid("sa", name));
                self.round.create(account, value);
            }
            let map = objects::key("configmaps", Some(name), "kube-root-ca.crt");
            let known = (self.look_up)(&map).into_iter().next();
            match known.filter(|_| !authority.is_empty()) {
                Some(known) if known.value["data"]["ca.crt"] != authority => {
                    let mut value = known.value.clone();
                    value["data"]["ca.crt"] = json!(authority);
                    self.round.update(&known, value);
                }
                Some(_) => {}
                None if authority.is_empty() => {}
                None => {
                    let data = json!({ "ca.crt": authority });
                    let value = objects::config_map(name, "kube-root-ca.crt", data, &self.uid("ca", name));
                    self.round.create(map, value);
                }
            }
        }
    }

    fn empty(&mut self, namespace: &super::Entry) {
        let name = namespace.name();
        let all = (self.look_up)("/registry/");
        let inside = all.into_iter().filter(|entry| {
            let mut parts = entry.key.rsplit('/').skip(1);
            parts.next() == Some(name) && parts.count() >= 3 && pods::text(&entry.value, "/metadata/namespace") == name
        });
        let mut any = false;
        for entry in inside {
            any = true;
            if pods::is_going(&entry.value) {
                continue;
            }
            if entry.key.starts_with("/registry/pods/") {
                self.terminate(&entry);
            } else if entry.value["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
                let mut value = entry.value.clone();
                value["metadata"]["deletionTimestamp"] = json!(objects::now());
                value["metadata"]["deletionGracePeriodSeconds"] = json!(0);
                self.round.update(&entry, value);
            } else {
                self.round.remove(&entry);
            }
        }
        if any {
            // What nobody watches makes no news when it is gone.
            self.round.wake(Instant::now() + Duration::from_millis(500));
            return;
        }
        let finalizers = |pointer: &str| {
            namespace.value.pointer(pointer).and_then(Value::as_array).is_some_and(|all| !all.is_empty())
        };
        if finalizers("/metadata/finalizers") && finalizers("/spec/finalizers") {
            let mut value = namespace.value.clone();
            value["spec"]["finalizers"] = json!([]);
            self.round.update(namespace, value);
        } else if !finalizers("/metadata/finalizers") {
            self.round.remove(namespace);
        }
    }
}

/// The status of a node's Ready condition; nothing when it has none.
fn condition(node: &Value) -> &str {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    conditions.filter(|one| one["type"] == "Ready").find_map(|one| one["status"].as_str()).unwrap_or_default()
}

fn set_taints(node: &mut Value) {
    let cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match condition(node) {
        "False" => wanted.extend([(OWN_TAINTS[0], "NoSchedule"), (OWN_TAINTS[0], "NoExecute")]),
        "Unknown" => wanted.extend([(OWN_TAINTS[1], "NoSchedule"), (OWN_TAINTS[1], "NoExecute")]),
        _ => {}
    }
    if cordoned {
        wanted.push((OWN_TAINTS[2], "NoSchedule"));
    }
    let mut taints = node.pointer("/spec/taints").and_then(Value::as_array).cloned().unwrap_or_default();
    let is = |taint: &Value, (key, effect): (&str, &str)| taint["key"] == key && taint["effect"] == effect;
    taints.retain(|taint| !OWN_TAINTS.contains(&pods::text(taint, "/key")) || wanted.iter().any(|one| is(taint, *one)));
    for one in wanted {
        if !taints.iter().any(|taint| is(taint, one)) {
            taints.push(json!({ "key": one.0, "effect": one.1, "timeAdded": objects::now() }));
        }
    }
    if !node["spec"].is_object() {
        node["spec"] = json!({});
    }
    if taints.is_empty() {
        if let Some(spec) = node["spec"].as_object_mut() {
            spec.remove("taints");
        }
    } else {
        node["spec"]["taints"] = Value::Array(taints);
    }
}
