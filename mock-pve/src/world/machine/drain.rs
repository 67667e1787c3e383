//! A node is emptied before its machine goes down, and opened again once it is back: what machined does by itself in the
//! legacy upgrade, a graceful reset and a shutdown.

use std::time::Instant;

use serde_json::{Value, json};

use super::life::Boot;
use super::state::{Machine, State};
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::{self, Entry, objects, pods};

/// Talos waits that long for pods to go.
const PATIENCE: f64 = 300.0;
/// Seconds between two attempts at a pod that its budget protects.
const RETRY: f64 = 5.0;
/// Seconds that a pod's processes take to end.
const GRACE: f64 = 2.0;
/// Who closed the node (Talos, pkg/machinery/constants).
const CORDONED: &str = "talos.dev/cordoned";

impl Boot {
    /// Closes the node to new pods and evicts those it has, as far as budgets allow: what stays only warns.
    pub(super) async fn drain(&self) {
        let machine = &self.machine;
        let name = machine.see(State::nodename);
        let Some(client) = self.any_api() else {
            return machine.says("[talos] node can't be drained: the API server doesn't answer");
        };
        if let Err(error) = cordon(&client, &name).await {
            return machine.says(&format!("[talos] node can't be cordoned: {error}"));
        }
        machine.says(&format!("[talos] cordoned node {name}"));
        let clock = machine.world().clock();
        let (began, patience) = (Instant::now(), clock.scaled(PATIENCE));
        loop {
            let mut blocked = Vec::new();
            for pod in pods_to_evict(&client, &name) {
                if is_protected(&client, &pod) {
                    blocked.push(pod.name().to_owned());
                    continue;
                }
                clock.sleep(GRACE).await;
                let _ = client.delete(&pod.key, Some(pod.modified)).await;
            }
            if blocked.is_empty() && pods_to_evict(&client, &name).is_empty() {
                return machine.says(&format!("[talos] drained node {name}"));
            }
            if began.elapsed() >= patience {
                let why = "Cannot evict pod as it would violate the pod's disruption budget.";
                return machine.says(&format!("[talos] WARNING: failed to evict {}: {why}", blocked.join(", ")));
            }
            clock.sleep(RETRY).await;
        }
    }

    /// Opens the node again, if it was Talos that closed it.
    pub(super) async fn uncordon(&self, client: &Client) -> Result<(), EtcdError> {
        let name = self.machine.see(State::nodename);
        let key = objects::key("minions", None, &name);
        let Some(mut node) = cluster::get(client, &key) else { return Ok(()) };
        let annotations = node.value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut);
        if annotations.and_then(|map| map.remove(CORDONED)).is_none() {
            return Ok(());
        }
        if let Some(spec) = node.value.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("unschedulable");
            if let Some(taints) = spec.get_mut("taints").and_then(Value::as_array_mut) {
                taints.retain(|taint| taint["key"] != "node.kubernetes.io/unschedulable");
            }
        }
        cluster::put(client, &key, &node.value, Some(node.modified)).await?;
        self.machine.says(&format!("[talos] uncordoned node {name}"));
        Ok(())
    }

    /// etcd behind any API server of this machine's cluster.
    pub(super) fn any_api(&self) -> Option<Client> {
        any_api(&self.machine)
    }
}

/// etcd behind any API server of a machine's cluster, its own first.
pub(super) fn any_api(machine: &Machine) -> Option<Client> {
    let own = machine.see(|state| state.membership.clone().filter(|_| state.kubernetes));
    if let Some(own) = own.filter(Client::is_healthy) {
        return Some(own);
    }
    let mark = machine.see(|state| state.config.as_ref().map(|config| config.cluster_mark()))?;
    let servers = machine.room().api_servers(&mark);
    servers.iter().filter_map(|one| one.see(|state| state.membership.clone())).find(Client::is_healthy)
}

async fn cordon(client: &Client, name: &str) -> Result<(), EtcdError> {
    let key = objects::key("minions", None, name);
    for _ in 0..5 {
        let Some(mut node) = cluster::get(client, &key) else { return Ok(()) };
        if node.value.pointer("/spec/unschedulable") == Some(&json!(true)) {
            return Ok(());
        }
        node.value["spec"]["unschedulable"] = json!(true);
        node.value["metadata"]["annotations"][CORDONED] = json!("true");
        match cluster::put(client, &key, &node.value, Some(node.modified)).await {
            Err(EtcdError::Conflict(_)) => {}
            done => return done.map(|_| ()),
        }
    }
    Ok(())
}

/// Pods of a node that go elsewhere: not those of the node itself, nor those that every node has.
fn pods_to_evict(client: &Client, node: &str) -> Vec<Entry> {
    let all = cluster::list(client, "/registry/pods/").0;
    let stays = |pod: &Entry| {
        let mirror = pod.value.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some();
        let owner = pod.value.pointer("/metadata/ownerReferences/0/kind").and_then(Value::as_str);
        let over = pod.value.pointer("/status/phase").and_then(Value::as_str);
        mirror || owner == Some("DaemonSet") || matches!(over, Some("Succeeded" | "Failed"))
    };
    all.into_iter()
        .filter(|pod| pod.value.pointer("/spec/nodeName").and_then(Value::as_str) == Some(node) && !stays(pod))
        .collect()
}

/// Whether a disruption budget keeps the pod where it is.
fn is_protected(client: &Client, pod: &Entry) -> bool {
    let namespace = pod.value["metadata"]["namespace"].as_str().unwrap_or("default").to_owned();
    let all = cluster::list(client, &format!("/registry/pods/{namespace}/")).0;
    let budgets = cluster::list(client, &format!("/registry/poddisruptionbudgets/{namespace}/")).0;
    budgets.iter().filter(|budget| selects(budget, pod)).any(|budget| {
        let mine: Vec<&Entry> = all.iter().filter(|pod| selects(budget, pod)).collect();
        let healthy = mine.iter().filter(|pod| objects::is_ready(&pod.value)).count();
        let count = |value: &Value| -> Option<usize> {
            match value.as_str().and_then(|text| text.strip_suffix('%')) {
                Some(percent) => Some((mine.len() * percent.parse::<usize>().ok()?).div_ceil(100)),
                None => usize::try_from(value.as_u64()?).ok(),
            }
        };
        let spec = &budget.value["spec"];
        let needed = count(&spec["minAvailable"])
            .or_else(|| Some(mine.len().saturating_sub(count(&spec["maxUnavailable"])?)))
            .unwrap_or(0);
        objects::is_ready(&pod.value) && healthy <= needed
    })
}

fn selects(budget: &Entry, pod: &Entry) -> bool {
    let selector = &budget.value["spec"]["selector"];
    !selector.is_null() && pods::matches(selector, &pod.value["metadata"]["labels"])
}
