//! A node's kubelet: pods that are bound to it start, stop, and start again after a boot.
//!
//! Mirrors of static pods are its machine's business; here they are only called ready again after they were given up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use super::events::News;
use super::view::{Eyes, Round, Time, View};
use super::{Entry, objects, pods};
use crate::etcd::{Client, Store};

/// Seconds until a pod's containers run.
const START: f64 = 2.0;
/// Seconds until they are gone, unless they get less.
const STOP: f64 = 2.0;
/// Seconds that a container takes which is meant to end.
const RUN: f64 = 4.0;

/// What is told of containers on their way.
const PULLED: &str =
    "Successfully pulled image \"{image}\" in 1.2s (1.2s including waiting). Image size: 20000000 bytes.";
const PRESENT: &str = "Container image \"{image}\" already present on machine";
const BACK_OFF: &str = "Back-off pulling image \"{image}\"";
const CREATED: (&str, &str) = ("Created", "Created container: {}");
const STARTED: (&str, &str) = ("Started", "Started container {}");

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
    /// Whether its node was closed to new pods when it last looked.
    closed: Option<bool>,
    /// Its node is up since the world began: that pods start again in this boot is no news.
    quiet: bool,
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
            closed: None,
            quiet: false,
            next: None,
        }
    }

    /// The kubelet of a node that is up when the world begins.
    #[must_use]
    pub fn from_the_beginning(self) -> Self {
        Self { quiet: true, ..self }
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
            return Round { next: self.next, ..Round::default() };
        }
        let mut round = Round::default();
        self.door(place, &mut round);
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

    /// Tells when its node was closed to new pods, or opened again.
    fn door(&mut self, place: &Place, round: &mut Round) {
        let Some(node) = self.node() else { return };
        let closed = node.value.pointer("/spec/unschedulable") == Some(&json!(true));
        if self.closed.replace(closed).is_some_and(|before| before != closed) {
            let reason = if closed { "NodeNotSchedulable" } else { "NodeSchedulable" };
            round.news.push(News::of_node(&place.node, reason, format!("Node {} status is now: {reason}", place.node)));
        }
    }

    fn pod(&mut self, pod: &Entry, place: &Place, time: Time<'_>, round: &mut Round) {
        let uid = pods::text(&pod.value, "/metadata/uid").to_owned();
        if pods::is_going(&pod.value) {
            if !self.since.contains_key(&format!("going {uid}")) && runs(&pod.value, place) {
                each(&pod.value, place, &[("Killing", "Stopping container {}")], &mut round.news);
            }
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
                let mut news = Vec::new();
                if pods::text(&pod.value, "/status/containerStatuses/0/containerID").is_empty() {
                    each(&pod.value, place, &[("Pulled", PULLED), CREATED, STARTED], &mut news);
                } else if !self.quiet {
                    let why = "Pod sandbox changed, it will be killed and re-created.";
                    news.push(News::of(&pod.value, "kubelet", "SandboxChanged", why).on(&place.node));
                    each(&pod.value, place, &[("Pulled", PRESENT), CREATED, STARTED], &mut news);
                }
                for one in news {
                    round.tell(one);
                }
            } else if pod.value.pointer("/status/containerStatuses").is_none() {
                waiting(pod, place, "ContainerCreating", "", round);
            }
        } else if let Some(value) = debugged(&pod.value, place) {
            round.update(pod, value);
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

/// What a kubelet tells of each container: a reason, and words in which `{}` is its name and `{image}` its image.
fn each(pod: &Value, place: &Place, news: &[(&'static str, &str)], into: &mut Vec<News>) {
    for one in containers(pod) {
        let (name, image) = (pods::text(&one, "/name"), pods::text(&one, "/image"));
        into.extend(news.iter().map(|&(reason, words)| {
            let words = words.replace("{}", name).replace("{image}", image);
            News::of(pod, "kubelet", reason, words).on(&place.node).in_container(name)
        }));
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
        if reason == "ImagePullBackOff" {
            let mut news = Vec::new();
            each(&pod.value, place, &[("Pulling", "Pulling image \"{image}\""), ("BackOff", BACK_OFF)], &mut news);
            let mut failed = Vec::new();
            let error = message.split_once("ErrImagePull: ").map_or(message, |(_, error)| error);
            let error = format!("Failed to pull image \"{{image}}\": {error}");
            for why in [error.as_str(), "Error: ErrImagePull", "Error: ImagePullBackOff"] {
                each(&pod.value, place, &[("Failed", why)], &mut failed);
            }
            news.extend(failed.into_iter().map(News::warns));
            for one in news {
                round.tell(one);
            }
        }
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

/// A pod with the containers that somebody added to look into it, if there are any that don't run yet.
fn debugged(pod: &Value, place: &Place) -> Option<Value> {
    let wanted = pod.pointer("/spec/ephemeralContainers")?.as_array()?;
    let mut known = pod["status"]["ephemeralContainerStatuses"].as_array().cloned().unwrap_or_default();
    let before = known.len();
    for one in wanted {
        if known.iter().any(|status| status["name"] == one["name"]) {
            continue;
        }
        let id = objects::uid(&format!("{} {}", container_id(pod, place), one["name"])).replace('-', "");
        known.push(
            json!({ "name": one["name"], "image": one["image"], "imageID": "", "ready": false, "restartCount": 0,
            "containerID": format!("containerd://{id}{id}"), "lastState": {},
            "state": { "running": { "startedAt": objects::now() } } }),
        );
    }
    if known.len() == before {
        return None;
    }
    let mut pod = pod.clone();
    pod["status"]["ephemeralContainerStatuses"] = Value::Array(known);
    Some(pod)
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
