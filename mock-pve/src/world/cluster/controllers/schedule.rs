//! The scheduler: which node a pod goes to, or why it goes nowhere; and volumes that wait for their claims.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Desk, Entry, News, objects, pods};

/// Who tells where pods go.
const SCHEDULER: &str = "default-scheduler";

/// On whose behalf nodes are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// The scheduler's: the pod must fit today.
    Scheduler,
    /// A daemon set's: the pod stays through bad days.
    Daemon,
}

/// Whether a node takes pods of a specification, as far as selectors and taints go.
pub(super) fn may_run(spec: &Value, node: &Value, who: Who) -> bool {
    unfit(spec, node, who).is_none()
}

fn unfit(spec: &Value, node: &Value, who: Who) -> Option<String> {
    let labels = &node["metadata"]["labels"];
    let tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    let tolerated = |taint: &Value| tolerations.iter().any(|one| pods::tolerates(one, taint));
    let cordoned = json!({ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" });
    if who == Who::Scheduler && node["spec"]["unschedulable"] == true && !tolerated(&cordoned) {
        return Some("node(s) were unschedulable".to_owned());
    }
    let selector = spec["nodeSelector"].as_object().into_iter().flatten();
    let affinity = spec.pointer("/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution");
    if !selector.into_iter().all(|(key, value)| labels.get(key) == Some(value)) || !chosen(affinity, node) {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    let taints = node["spec"]["taints"].as_array().into_iter().flatten();
    let mut closed = taints.filter(|taint| taint["effect"] != "PreferNoSchedule" && !tolerated(taint));
    closed.next().map(|taint| {
        let value = taint["value"].as_str().map_or(String::new(), |value| format!(" {value}"));
        format!("node(s) had untolerated taint {{{}:{value}}}", taint["key"].as_str().unwrap_or_default())
    })
}

/// Whether any of a node selector's terms fits a node.
fn chosen(selector: Option<&Value>, node: &Value) -> bool {
    let Some(terms) = selector.and_then(|selector| selector["nodeSelectorTerms"].as_array()) else { return true };
    terms.iter().any(|term| {
        let labels = term["matchExpressions"].as_array().into_iter().flatten();
        let fields = term["matchFields"].as_array().into_iter().flatten();
        let own = json!({ "metadata.name": node["metadata"]["name"] });
        labels.into_iter().all(|one| pods::fits(one, &node["metadata"]["labels"]))
            && fields.into_iter().all(|one| pods::fits(one, &own))
    })
}

impl Desk<'_> {
    pub(super) fn schedule(&mut self) {
        let waiting: Vec<_> = self
            .view
            .list("/registry/pods/")
            .filter(|pod| pods::node_of(&pod.value).is_empty() && pods::is_active(&pod.value))
            .filter(|pod| matches!(pods::text(&pod.value, "/spec/schedulerName"), "default-scheduler" | ""))
            .filter(|pod| pod.value["spec"]["schedulingGates"].as_array().is_none_or(Vec::is_empty))
            .cloned()
            .collect();
        if waiting.is_empty() {
            return;
        }
        let nodes: Vec<Entry> = self.nodes_known().into_iter().cloned().collect();
        let mut placed: Vec<(String, Value)> = self
            .view
            .list("/registry/pods/")
            .filter(|pod| !pods::node_of(&pod.value).is_empty() && !pods::is_over(&pod.value))
            .map(|pod| (pods::node_of(&pod.value).to_owned(), pod.value.clone()))
            .collect();
        for pod in waiting {
            let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
            let mut best: Option<((usize, usize), &str)> = None;
            for node in &nodes {
                if let Some(why) = self.refused(&pod.value, &node.value, &placed) {
                    *reasons.entry(why).or_default() += 1;
                    continue;
                }
                let here = placed.iter().filter(|(name, _)| name == node.name());
                let siblings = here.clone().filter(|(_, other)| same_owner(other, &pod.value)).count();
                let score = (siblings, here.count());
                if best.is_none_or(|(known, _)| score < known) {
                    best = Some((score, node.name()));
                }
            }
            let mut value = pod.value.clone();
            let news = if let Some((_, node)) = best {
                value["spec"]["nodeName"] = json!(node);
                pods::set_condition(&mut value, "PodScheduled", "True", "", "");
                placed.push((node.to_owned(), value.clone()));
                let why = format!("Successfully assigned {}/{} to {node}", pods::namespace(&pod), pod.name());
                News::of(&pod.value, SCHEDULER, "Scheduled", why).doing("Binding")
            } else {
                let each: Vec<String> = reasons.iter().map(|(why, count)| format!("{count} {why}")).collect();
                let why = format!("0/{} nodes are available: {}.", nodes.len(), each.join(", "));
                pods::set_condition(&mut value, "PodScheduled", "False", "Unschedulable", &why);
                News::of(&pod.value, SCHEDULER, "FailedScheduling", why).doing("Scheduling").warns()
            };
            if value != pod.value {
                self.round.update(&pod, value);
                self.round.tell(news);
            }
        }
    }

    fn refused(&self, pod: &Value, node: &Value, placed: &[(String, Value)]) -> Option<String> {
        let spec = &pod["spec"];
        if let Some(why) = unfit(spec, node, Who::Scheduler) {
            return Some(why);
        }
        let name = pods::text(node, "/metadata/name");
        let here = || placed.iter().filter(|(node, _)| node == name).map(|(_, pod)| pod);
        let room = node.pointer("/status/allocatable/pods").and_then(Value::as_str).and_then(|text| text.parse().ok());
        if here().count() >= room.unwrap_or(110) {
            return Some("Too many pods".to_owned());
        }
        for (resource, word) in [("cpu", "cpu"), ("memory", "memory")] {
            let has = node["status"]["allocatable"][resource].as_str().map(quantity);
            let used: f64 = here().map(|pod| requested(&pod["spec"], resource)).sum();
            if has.is_some_and(|has| used + requested(spec, resource) > has + 1e-6) {
                return Some(format!("Insufficient {word}"));
            }
        }
        let apart = spec.pointer("/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution");
        for term in apart.and_then(Value::as_array).into_iter().flatten() {
            let topology = term["topologyKey"].as_str().unwrap_or_default();
            let mine = &node["metadata"]["labels"][topology];
            let near = |other: &str| {
                other == name
                    || self
                        .view
                        .get(&objects::key("minions", None, other))
                        .is_some_and(|other| mine.is_string() && &other.value["metadata"]["labels"][topology] == mine)
            };
            let meant = |other: &Value| {
                other["metadata"]["namespace"] == pod["metadata"]["namespace"]
                    && pods::matches(&term["labelSelector"], &other["metadata"]["labels"])
            };
            if placed.iter().any(|(node, other)| meant(other) && near(node)) {
                return Some("node(s) didn't match pod anti-affinity rules".to_owned());
            }
        }
        self.volumes_refuse(pod, node)
    }

    fn volumes_refuse(&self, pod: &Value, node: &Value) -> Option<String> {
        let namespace = pods::text(pod, "/metadata/namespace");
        let claims = pod["spec"]["volumes"].as_array().into_iter().flatten();
        for claim in claims.filter_map(|volume| volume.pointer("/persistentVolumeClaim/claimName")?.as_str()) {
            let key = objects::key("persistentvolumeclaims", Some(namespace), claim);
            let Some(found) = self.view.get(&key) else {
                return Some(format!("persistentvolumeclaim \"{claim}\" not found"));
            };
            let volume = pods::text(&found.value, "/spec/volumeName");
            let Some(volume) = self.view.get(&objects::key("persistentvolumes", None, volume)) else {
                return Some("pod has unbound immediate PersistentVolumeClaims".to_owned());
            };
            if !chosen(volume.value.pointer("/spec/nodeAffinity/required"), node) {
                return Some("node(s) had volume node affinity conflict".to_owned());
            }
        }
        None
    }

    /// Claims find volumes that fit them.
    pub(super) fn volumes(&mut self) {
        let volumes = self.all("/registry/persistentvolumes/");
        let mut taken: Vec<String> = Vec::new();
        for claim in self.all("/registry/persistentvolumeclaims/") {
            if pods::text(&claim.value, "/status/phase") == "Bound" || pods::is_going(&claim.value) {
                continue;
            }
            let class = |object: &Value| pods::text(object, "/spec/storageClassName").to_owned();
            let wanted = quantity(pods::text(&claim.value, "/spec/resources/requests/storage"));
            let named = pods::text(&claim.value, "/spec/volumeName");
            let found = volumes.iter().find(|volume| {
                let to = &volume.value["spec"]["claimRef"];
                let mine = to["name"] == claim.name() && to["namespace"] == pods::namespace(&claim);
                let free = to.is_null()
                    && class(&volume.value) == class(&claim.value)
                    && (named.is_empty() || named == volume.name())
                    && quantity(pods::text(&volume.value, "/spec/capacity/storage")) >= wanted;
                (mine || free) && !taken.contains(&volume.key)
            });
            let Some(volume) = found else {
                let uid = pods::text(&claim.value, "/metadata/uid");
                if claim.value["status"]["phase"].is_null() {
                    self.set_status(&claim, json!({ "phase": "Pending" }));
                }
                if class(&claim.value).is_empty() && self.memory.is_new(format!("unbound {uid}")) {
                    let why = "no persistent volumes available for this claim and no storage class is set";
                    let by = "persistentvolume-controller";
                    self.round.news.push(News::of(&claim.value, by, "FailedBinding", why));
                }
                continue;
            };
            taken.push(volume.key.clone());
            let mut value = claim.value.clone();
            value["spec"]["volumeName"] = json!(volume.name());
            value["status"] = json!({ "phase": "Bound", "capacity": volume.value["spec"]["capacity"],
                "accessModes": volume.value["spec"]["accessModes"] });
            self.round.update(&claim, value);
            let mut value = volume.value.clone();
            value["spec"]["claimRef"] = json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim.name(),
                "namespace": pods::namespace(&claim), "uid": claim.value["metadata"]["uid"] });
            value["status"] = json!({ "phase": "Bound" });
            self.round.update(volume, value);
        }
        for volume in volumes.iter().filter(|volume| !taken.contains(&volume.key)) {
            let to = &volume.value["spec"]["claimRef"];
            let key = objects::key(
                "persistentvolumeclaims",
                to["namespace"].as_str(),
                to["name"].as_str().unwrap_or_default(),
            );
            let phase = if to["uid"].is_null() {
                "Available"
            } else if self.view.get(&key).is_some_and(|claim| claim.value["metadata"]["uid"] == to["uid"]) {
                "Bound"
            } else {
                "Released"
            };
            if volume.value["status"]["phase"] != phase {
                self.set_status(volume, json!({ "phase": phase }));
            }
        }
    }
}

fn same_owner(one: &Value, other: &Value) -> bool {
    matches!((pods::owner(one), pods::owner(other)), (Some(one), Some(other)) if one["uid"] == other["uid"])
}

fn requested(spec: &Value, resource: &str) -> f64 {
    let containers = spec["containers"].as_array().into_iter().flatten();
    containers.filter_map(|one| one["resources"]["requests"][resource].as_str()).map(quantity).sum()
}

/// A quantity as a number: `250m`, `4`, `512Mi`, `2G`.
pub(super) fn quantity(text: &str) -> f64 {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        _ => 1.0,
    };
    number.parse::<f64>().unwrap_or(0.0) * factor
}
