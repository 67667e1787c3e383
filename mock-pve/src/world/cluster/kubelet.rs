//! A node's kubelet: pods that are bound to it start, stop, and start again after a boot.
//!
//! Mirrors of static pods are its machine's business; here they are only called ready again after they were given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use super::view::{Eyes, Round, Time, View};
use super::{Entry, objects, pods};
use crate::etcd::{Client, Store};

/// Seconds until a pod's containers run.
const START: f64 = 2.0;
/// Seconds until they are gone, unless they get less.
const STOP: f64 = 2.0;
/// Seconds that a container takes which is meant to end.
const RUN: f64 = 4.0;

/// Where a kubelet runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node.
    pub node: String,
    /// Its address.
    pub address: String,
    /// This boot: what ran in another doesn't run any more.
    pub boot_id: String,
}

/// A kubelet, with what it remembers.
#[derive(Debug)]
pub struct Kubelet {
    view: View,
    /// Since when something is as it is, by a name for it.
    since: BTreeMap<String, Instant>,
    asked: BTreeSet<String>,
    /// When there is something to do although nothing changed.
    next: Option<Instant>,
}

impl Kubelet {
    /// A node's kubelet.
    pub fn new(node: &str) -> Self {
        Self {
            view: View::new(Eyes::Node(node.to_owned())),
            since: BTreeMap::new(),
            asked: BTreeSet::new(),
            next: None,
        }
    }

    /// What it writes now.
    pub fn look(&mut self, client: &Client, place: &Place, broken: &[String], time: Time<'_>) -> Round {
        self.view.refresh(client);
        self.work(place, broken, time)
    }

    /// The same over a store that nobody else writes to.
    pub fn look_at(&mut self, store: &Store, place: &Place, broken: &[String], time: Time<'_>) -> Round {
        self.view.follow(store, (0, 1));
        self.work(place, broken, time)
    }

    /// Its own node object.
    pub fn node(&self) -> Option<&Entry> {
        self.view.list("/registry/minions/").next().map(AsRef::as_ref)
    }

    fn since(&mut self, name: String) -> Instant {
        self.asked.insert(name.clone());
        *self.since.entry(name).or_insert_with(Instant::now)
    }

    /// Looks at everything once more: not all of what was to be written is.
    pub fn again(&mut self) {
        self.view.again();
    }

    fn work(&mut self, place: &Place, broken: &[String], time: Time<'_>) -> Round {
        let due = self.next.is_some_and(|next| Instant::now() >= next);
        if !self.view.take_news() && !due {
            return Round { writes: Vec::new(), next: self.next };
        }
        let mut round = Round::default();
        let all: Vec<_> = self.view.list("/registry/pods/").cloned().collect();
        for pod in all.iter().filter(|pod| !pods::is_mirror(&pod.value)) {
            self.pod(pod, place, time, &mut round);
        }
        // Mirrors show what their machine says of static pods.
        for mirror in all.iter().filter(|pod| pods::is_mirror(&pod.value) && !broken.contains(&pod.key)) {
            if !pods::is_ready(&mirror.value) {
                let mut value = mirror.value.clone();
                pods::set_ready(&mut value, true);
                round.update(mirror, value);
            }
        }
        let asked = std::mem::take(&mut self.asked);
        self.since.retain(|name, _| asked.contains(name));
        self.next = round.next;
        round
    }

    fn pod(&mut self, pod: &Entry, place: &Place, time: Time<'_>, round: &mut Round) {
        let uid = pods::text(&pod.value, "/metadata/uid").to_owned();
        if pods::is_going(&pod.value) {
            let since = self.since(format!("going {uid}"));
            let grace = pod.value["metadata"]["deletionGracePeriodSeconds"].as_f64().unwrap_or(0.0);
            if !round.due(time.passed(since, STOP.min(grace))) {
                return;
            }
            if pod.value["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                round.remove(pod);
            }
            return;
        }
        if pods::is_over(&pod.value) {
            return;
        }
        let runs = runs(&pod.value, place);
        if !runs {
            let since = self.since(format!("starting {uid}"));
            if let Some(why) = unpullable(&pod.value) {
                return waiting(pod, place, "ImagePullBackOff", &why, round);
            }
            if round.due(time.passed(since, START)) {
                round.update(pod, started(&pod.value, place));
            } else if pod.value.pointer("/status/containerStatuses").is_none() {
                waiting(pod, place, "ContainerCreating", "", round);
            }
        } else if ends(&pod.value) {
            let since = self.since(format!("running {uid}"));
            if round.due(time.passed(since, RUN)) {
                round.update(pod, ended(&pod.value));
            }
        } else if !pods::is_ready(&pod.value) {
            // Somebody thought that the node was gone.
            let mut value = pod.value.clone();
            pods::set_ready(&mut value, true);
            round.update(pod, value);
        }
    }
}

/// The id of a pod's container in one boot.
fn container_id(pod: &Value, place: &Place) -> String {
    let of = format!("{} {}", pods::text(pod, "/metadata/uid"), place.boot_id);
    let id = objects::uid(&of).replace('-', "");
    format!("containerd://{id}{id}")
}

/// Whether a pod's containers were started in this boot.
fn runs(pod: &Value, place: &Place) -> bool {
    pods::text(pod, "/status/containerStatuses/0/containerID") == container_id(pod, place)
}

fn containers(pod: &Value) -> Vec<Value> {
    pod.pointer("/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default()
}

/// Why an image can't be had: `.invalid` is no registry's domain (RFC 6761).
fn unpullable(pod: &Value) -> Option<String> {
    containers(pod).iter().filter_map(|one| one["image"].as_str()).find_map(|image| {
        let host = image.split('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
        host.ends_with(".invalid").then(|| {
            format!("Back-off pulling image \"{image}\": ErrImagePull: failed to resolve reference \"{image}\": no such host")
        })
    })
}

fn waiting(pod: &Entry, place: &Place, reason: &str, message: &str, round: &mut Round) {
    let mut value = pod.value.clone();
    let statuses: Vec<Value> = containers(&value)
        .iter()
        .map(|one| {
            let mut state = json!({ "reason": reason });
            if !message.is_empty() {
                state["message"] = json!(message);
            }
            json!({ "name": one["name"], "image": one["image"], "imageID": "", "ready": false, "started": false,
                "restartCount": 0, "state": { "waiting": state }, "lastState": {} })
        })
        .collect();
    value["status"]["phase"] = json!("Pending");
    value["status"]["hostIP"] = json!(place.address);
    value["status"]["hostIPs"] = json!([{ "ip": place.address }]);
    if value["status"].get("startTime").is_none() {
        value["status"]["startTime"] = json!(objects::now());
    }
    value["status"]["containerStatuses"] = json!(statuses);
    let names: Vec<&str> = statuses.iter().filter_map(|one| one["name"].as_str()).collect();
    let why = format!("containers with unready status: [{}]", names.join(" "));
    pods::set_condition(&mut value, "Initialized", "True", "", "");
    pods::set_condition(&mut value, "Ready", "False", "ContainersNotReady", &why);
    pods::set_condition(&mut value, "ContainersReady", "False", "ContainersNotReady", &why);
    pods::set_condition(&mut value, "PodScheduled", "True", "", "");
    if value != pod.value {
        round.update(pod, value);
    }
}

/// A pod whose containers run since now.
fn started(pod: &Value, place: &Place) -> Value {
    let mut pod = pod.clone();
    let before = pod.pointer("/status/containerStatuses/0").cloned().unwrap_or_default();
    let restarts = before["restartCount"].as_u64().unwrap_or(0) + u64::from(before["containerID"].is_string());
    let id = container_id(&pod, place);
    let last = match &before["state"]["running"] {
        running if running.is_object() => json!({ "terminated": { "exitCode": 255, "reason": "Unknown",
            "startedAt": running["startedAt"], "finishedAt": objects::now(), "containerID": before["containerID"] } }),
        _ => json!({}),
    };
    let statuses: Vec<Value> = containers(&pod)
        .iter()
        .map(|one| {
            let image = one["image"].as_str().unwrap_or_default();
            let digest = objects::uid(image).replace('-', "");
            let name = image.rsplit_once('@').map_or(image, |(name, _)| name);
            json!({ "name": one["name"], "image": image, "imageID": format!("{name}@sha256:{digest}{digest}"),
                "containerID": id, "ready": true, "started": true, "restartCount": restarts, "lastState": last,
                "state": { "running": { "startedAt": objects::now() } } })
        })
        .collect();
    let host = pod["spec"]["hostNetwork"] == true;
    let ip = if host { place.address.clone() } else { pod_address(pods::text(&pod, "/metadata/uid")) };
    if !pod["status"].is_object() {
        pod["status"] = json!({});
    }
    let status = &mut pod["status"];
    status["phase"] = json!("Running");
    status["hostIP"] = json!(place.address);
    status["hostIPs"] = json!([{ "ip": place.address }]);
    status["podIP"] = json!(ip);
    status["podIPs"] = json!([{ "ip": ip }]);
    if status.get("startTime").is_none() {
        status["startTime"] = json!(objects::now());
    }
    status["containerStatuses"] = json!(statuses);
    if status.get("qosClass").is_none() {
        status["qosClass"] = json!("BestEffort");
    }
    pods::set_ready(&mut pod, true);
    pod
}

/// Whether a pod is one that ends.
fn ends(pod: &Value) -> bool {
    matches!(pods::text(pod, "/spec/restartPolicy"), "Never" | "OnFailure")
}

fn ended(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let failed = containers(&pod).iter().any(|one| one["command"] == json!(["false"]));
    let (phase, reason, code) = if failed { ("Failed", "Error", 1) } else { ("Succeeded", "Completed", 0) };
    pod["status"]["phase"] = json!(phase);
    for one in pod["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
        let since = one["state"]["running"]["startedAt"].clone();
        one["ready"] = json!(false);
        one["started"] = json!(false);
        one["state"] = json!({ "terminated": { "exitCode": code, "reason": reason, "startedAt": since,
            "finishedAt": objects::now(), "containerID": one["containerID"] } });
    }
    for kind in ["Ready", "ContainersReady"] {
        pods::set_condition(&mut pod, kind, "False", "PodCompleted", "");
    }
    pod
}

/// Some address in the pod network that follows from the pod.
fn pod_address(uid: &str) -> String {
    let sum = crc32fast::hash(uid.as_bytes()).to_be_bytes();
    format!("10.244.{}.{}", sum[0], sum[1].clamp(2, 254))
}

#[cfg(test)]
impl Place {
    pub(super) fn sample(node: &str) -> Self {
        Self { node: node.to_owned(), address: "10.0.0.1".to_owned(), boot_id: "boot".to_owned() }
    }
}
