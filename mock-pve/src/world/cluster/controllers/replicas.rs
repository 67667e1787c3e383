//! Deployments and the replica sets under them.

use std::sync::Arc;

use serde_json::{Value, json};

use super::quotas::Made;
use super::{Desk, Entry, News, generation, is_available, objects, pods, replicas, template_hash};
use crate::world::cluster::pods::Rounding;

/// Who tells of deployments, and of their sets.
const DEPLOYMENTS: &str = "deployment-controller";
const SETS: &str = "replicaset-controller";
const REVISION: &str = "deployment.kubernetes.io/revision";

impl Desk<'_> {
    pub(super) fn deployments(&mut self) {
        for deployment in self.all("/registry/deployments/") {
            if !pods::is_going(&deployment.value) {
                self.deployment(&deployment);
            }
        }
    }

    fn deployment(&mut self, deployment: &Entry) {
        let namespace = pods::namespace(deployment).to_owned();
        let sets = self.owned(&format!("/registry/replicasets/{namespace}/"), deployment);
        let hash = template_hash(&deployment.value["spec"]["template"]);
        let current = sets.iter().find(|set| template_hash(&set.value["spec"]["template"]) == hash).cloned();
        let wanted = replicas(&deployment.value);
        let revision_of = |set: &Entry| -> u64 {
            set.value["metadata"]["annotations"][REVISION].as_str().and_then(|text| text.parse().ok()).unwrap_or(0)
        };
        let last = sets.iter().map(|set| revision_of(set)).max().unwrap_or(0);
        let paused = deployment.value["spec"]["paused"] == true;
        let Some(current) = current else {
            if !paused {
                let others: u64 = sets.iter().map(|set| replicas(&set.value)).sum();
                let room = (wanted + surge(&deployment.value, wanted)).saturating_sub(others);
                let first =
                    if is_recreated(&deployment.value) && others + running(&sets) > 0 { 0 } else { room.min(wanted) };
                self.new_set(deployment, &hash, last + 1, first);
            }
            self.deployment_status(deployment, None, &sets, last);
            return;
        };
        // Gone back to: what was an old one is the newest.
        if revision_of(&current) < last {
            let mut value = current.value.clone();
            value["metadata"]["annotations"][REVISION] = json!((last + 1).to_string());
            return self.round.update(&current, value);
        }
        let old: Vec<Arc<Entry>> = sets.iter().filter(|set| set.key != current.key).cloned().collect();
        if !paused || old.iter().all(|set| replicas(&set.value) == 0) {
            self.roll(deployment, &current, &old, wanted);
        }
        let limit = deployment.value.pointer("/spec/revisionHistoryLimit").and_then(Value::as_u64).unwrap_or(10);
        let mut spent: Vec<&Arc<Entry>> = old
            .iter()
            .filter(|set| replicas(&set.value) == 0 && pods::count(&set.value, "/status/replicas") == 0)
            .collect();
        spent.sort_by_key(|set| revision_of(set));
        let surplus = spent.len().saturating_sub(usize::try_from(limit).unwrap_or(10));
        spent.iter().take(surplus).for_each(|set| self.round.remove(set));
        self.deployment_status(deployment, Some(&current), &sets, revision_of(&current));
    }

    fn new_set(&mut self, deployment: &Entry, hash: &str, revision: u64, first: u64) {
        let namespace = pods::namespace(deployment).to_owned();
        let name = format!("{}-{hash}", deployment.name());
        let key = objects::key("replicasets", Some(&namespace), &name);
        let mut set = objects::namespaced("apps/v1", "ReplicaSet", Some(&namespace), &name, &self.uid("rs", &key));
        let spec = &deployment.value["spec"];
        let mut template = spec["template"].clone();
        let mut selector = spec["selector"].clone();
        for labels in [&mut template["metadata"], &mut selector] {
            let field = if labels.get("labels").is_some() { "labels" } else { "matchLabels" };
            if labels.is_object() {
                labels[field]["pod-template-hash"] = json!(hash);
            }
        }
        set["metadata"]["labels"] = template["metadata"]["labels"].clone();
        set["metadata"]["annotations"] = json!({ REVISION: revision.to_string(),
            "deployment.kubernetes.io/desired-replicas": replicas(&deployment.value).to_string(),
            "deployment.kubernetes.io/max-replicas":
                (replicas(&deployment.value) + surge(&deployment.value, replicas(&deployment.value))).to_string() });
        set["metadata"]["ownerReferences"] = json!([pods::reference(&deployment.value)]);
        set["metadata"]["generation"] = json!(1);
        set["spec"] = json!({ "replicas": first, "selector": selector, "template": template });
        set["status"] = json!({ "replicas": 0 });
        self.round.create(key, set);
        if first > 0 {
            self.round.tell(scaled(deployment, &name, 0, first));
        }
    }

    /// Moves replicas from old sets to the current one, within the bounds of the strategy.
    fn roll(&mut self, deployment: &Entry, current: &Entry, old: &[Arc<Entry>], wanted: u64) {
        let mut scale = |set: &Entry, to: u64| {
            if replicas(&set.value) != to {
                let mut value = set.value.clone();
                value["spec"]["replicas"] = json!(to);
                value["metadata"]["generation"] = json!(generation(&set.value) + 1);
                value["metadata"]["annotations"]["deployment.kubernetes.io/desired-replicas"] =
                    json!(wanted.to_string());
                self.round.update(set, value);
                self.round.tell(scaled(deployment, set.name(), replicas(&set.value), to));
            }
        };
        let has = replicas(&current.value);
        let others: u64 = old.iter().map(|set| replicas(&set.value)).sum();
        if others == 0 && (!is_recreated(&deployment.value) || running(old) == 0) {
            return scale(current, wanted);
        }
        if is_recreated(&deployment.value) {
            return old.iter().for_each(|set| scale(set, 0));
        }
        let surge = surge(&deployment.value, wanted);
        let unavailable = deployment.value.pointer("/spec/strategy/rollingUpdate/maxUnavailable").cloned();
        let mut unavailable = pods::share(&unavailable.unwrap_or(json!("25%")), wanted, Rounding::Down);
        if surge == 0 && unavailable == 0 {
            unavailable = 1;
        }
        let room = (wanted + surge).saturating_sub(has + others);
        scale(current, wanted.min(has + room));
        let available = |set: &Entry| pods::count(&set.value, "/status/availableReplicas");
        let least = wanted.saturating_sub(unavailable);
        let missing = has.saturating_sub(available(current));
        let mut spare = (has + others).saturating_sub(least + missing);
        for set in old {
            // Those that aren't available cost nothing.
            let now = replicas(&set.value);
            let down = spare.min(now);
            scale(set, now - down);
            spare -= down;
        }
    }

    fn deployment_status(&mut self, deployment: &Entry, current: Option<&Entry>, sets: &[Arc<Entry>], revision: u64) {
        let sum = |pointer: &str| -> u64 { sets.iter().map(|set| pods::count(&set.value, pointer)).sum() };
        let wanted = replicas(&deployment.value);
        let (all, ready, available) =
            (sum("/status/replicas"), sum("/status/readyReplicas"), sum("/status/availableReplicas"));
        let updated = current.map_or(0, |set| pods::count(&set.value, "/status/replicas"));
        let mut value = deployment.value.clone();
        let conditions = value["status"]["conditions"].take();
        let mut status = json!({ "observedGeneration": generation(&deployment.value) });
        for (name, number) in [
            ("replicas", all),
            ("updatedReplicas", updated),
            ("readyReplicas", ready),
            ("availableReplicas", available),
            ("unavailableReplicas", wanted.saturating_sub(available)),
        ] {
            if number > 0 {
                status[name] = json!(number);
            }
        }
        if conditions.is_array() {
            status["conditions"] = conditions;
        }
        value["status"] = status;
        let most = deployment.value.pointer("/spec/strategy/rollingUpdate/maxUnavailable").cloned().unwrap_or(json!(0));
        let least = wanted.saturating_sub(pods::share(&most, wanted, Rounding::Down));
        if available >= least {
            let why = ("MinimumReplicasAvailable", "Deployment has minimum availability.");
            set(&mut value, "Available", "True", why);
        } else {
            let why = ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.");
            set(&mut value, "Available", "False", why);
        }
        let name = current.map_or_else(|| deployment.name().to_owned(), |set| set.name().to_owned());
        let complete = current.is_some() && updated == wanted && all == wanted && available == wanted;
        let uid = pods::text(&deployment.value, "/metadata/uid");
        let progress = format!("progress {uid} {name} {all} {updated} {ready} {available}");
        if complete {
            let why = format!("ReplicaSet \"{name}\" has successfully progressed.");
            set(&mut value, "Progressing", "True", ("NewReplicaSetAvailable", &why));
        } else if current.is_some() {
            let deadline =
                deployment.value.pointer("/spec/progressDeadlineSeconds").and_then(Value::as_f64).unwrap_or(600.0);
            let since = self.memory.since(progress);
            let late = matches!(self.time, crate::world::cluster::view::Time::Runs(_))
                && self.round.due(self.time.passed(since, deadline));
            if late {
                let why = format!("ReplicaSet \"{name}\" has timed out progressing.");
                set(&mut value, "Progressing", "False", ("ProgressDeadlineExceeded", &why));
            } else {
                let why = format!("ReplicaSet \"{name}\" is progressing.");
                set(&mut value, "Progressing", "True", ("ReplicaSetUpdated", &why));
            }
        }
        if revision > 0 {
            if !value["metadata"]["annotations"].is_object() {
                value["metadata"]["annotations"] = json!({});
            }
            value["metadata"]["annotations"][REVISION] = json!(revision.to_string());
        }
        if value != deployment.value {
            self.round.update(deployment, value);
        }
    }

    pub(super) fn replicasets(&mut self) {
        for set in self.all("/registry/replicasets/") {
            if pods::is_going(&set.value) {
                continue;
            }
            let mine = self.owned(&format!("/registry/pods/{}/", pods::namespace(&set)), &set);
            let mut active: Vec<&Arc<Entry>> = mine.iter().filter(|pod| pods::is_active(&pod.value)).collect();
            let wanted = usize::try_from(replicas(&set.value)).unwrap_or(usize::MAX);
            // A set that wants more than fits anywhere must not fill the memory.
            for number in 0..wanted.saturating_sub(active.len()).min(500) {
                let template = set.value["spec"]["template"].clone();
                let pod = self.make_pod(&set, &template, number);
                if self.make(&set, SETS, pod) == Made::Refused {
                    break;
                }
            }
            // First those that aren't bound, aren't ready, or are the youngest.
            active.sort_by_key(|pod| {
                (!pods::node_of(&pod.value).is_empty(), pods::is_ready(&pod.value), std::cmp::Reverse(pod.created))
            });
            let surplus: Vec<Arc<Entry>> =
                active.iter().take(active.len().saturating_sub(wanted)).map(|pod| Arc::clone(pod)).collect();
            for pod in &surplus {
                self.terminate(pod);
                let why = format!("Deleted pod: {}", pod.name());
                self.round.tell(News::of(&set.value, SETS, "SuccessfulDelete", why));
            }
            let count = active.len();
            let ready = active.iter().filter(|pod| pods::is_ready(&pod.value)).count();
            let mut status = json!({ "replicas": count, "observedGeneration": generation(&set.value) });
            for (name, number) in
                [("fullyLabeledReplicas", count), ("readyReplicas", ready), ("availableReplicas", ready)]
            {
                if number > 0 {
                    status[name] = json!(number);
                }
            }
            debug_assert!(ready == active.iter().filter(|pod| is_available(pod)).count());
            self.set_status(&set, status);
        }
    }
}

fn set(object: &mut Value, kind: &str, status: &str, (reason, message): (&str, &str)) {
    if pods::set_condition(object, kind, status, reason, message)
        && let Some(all) = object["status"]["conditions"].as_array_mut()
        && let Some(one) = all.iter_mut().find(|one| one["type"] == kind)
    {
        one["lastUpdateTime"] = json!(objects::now());
    }
}

/// What is told of a deployment one of whose sets gets another number.
fn scaled(deployment: &Entry, set: &str, from: u64, to: u64) -> News {
    let way = if to > from { "up" } else { "down" };
    let why = format!("Scaled {way} replica set {set} from {from} to {to}");
    News::of(&deployment.value, DEPLOYMENTS, "ScalingReplicaSet", why)
}

fn is_recreated(deployment: &Value) -> bool {
    deployment.pointer("/spec/strategy/type").is_some_and(|kind| kind == "Recreate")
}

fn surge(deployment: &Value, wanted: u64) -> u64 {
    let most = deployment.pointer("/spec/strategy/rollingUpdate/maxSurge");
    most.map_or(0, |most| pods::share(most, wanted, Rounding::Up))
}

/// Pods that sets still have.
fn running(sets: &[Arc<Entry>]) -> u64 {
    sets.iter().map(|set| pods::count(&set.value, "/status/replicas")).sum()
}
