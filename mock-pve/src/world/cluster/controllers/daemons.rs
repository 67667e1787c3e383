//! Daemon sets: one pod on every node that will have it.

use std::sync::Arc;

use serde_json::{Value, json};

use super::quotas::Made;
use super::{Desk, Entry, News, generation, is_available, objects, pods, schedule, template_hash};
use crate::world::cluster::pods::Rounding;

/// Who tells of daemon sets.
const DAEMONS: &str = "daemonset-controller";

impl Desk<'_> {
    pub(super) fn daemonsets(&mut self) {
        for set in self.all("/registry/daemonsets/") {
            if !pods::is_going(&set.value) {
                self.daemonset(&set);
            }
        }
    }

    fn daemonset(&mut self, set: &Entry) {
        let hash = template_hash(&set.value["spec"]["template"]);
        self.revision(set, &hash);
        let mine = self.owned(&format!("/registry/pods/{}/", pods::namespace(set)), set);
        let template = template(&set.value, &hash);
        let all: Vec<Value> = self.nodes_known().iter().map(|node| node.value.clone()).collect();
        let nodes: Vec<String> = all
            .iter()
            .filter(|node| schedule::may_run(&template["spec"], node, schedule::Who::Daemon))
            .map(|node| pods::text(node, "/metadata/name").to_owned())
            .collect();
        for (number, node) in nodes.iter().enumerate() {
            if mine.iter().any(|pod| pods::node_of(&pod.value) == node && !pods::is_over(&pod.value)) {
                continue;
            }
            let mut template = template.clone();
            // What the original leaves to the scheduler: the pod is for one node.
            template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] = json!({
                "nodeSelectorTerms": [{ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] }] });
            let (key, mut pod) = self.make_pod(set, &template, number);
            pod["spec"]["nodeName"] = json!(node);
            pods::set_condition(&mut pod, "PodScheduled", "True", "", "");
            if self.make(set, DAEMONS, (key, pod)) == Made::Refused {
                break;
            }
        }
        for pod in mine.iter().filter(|pod| pods::is_active(&pod.value)) {
            if !nodes.iter().any(|node| pods::node_of(&pod.value) == node) {
                self.end_daemon(set, pod);
            }
        }
        let here: Vec<&Arc<Entry>> = mine
            .iter()
            .filter(|pod| pods::is_active(&pod.value) && nodes.iter().any(|node| pods::node_of(&pod.value) == node))
            .collect();
        let is_new = |pod: &Entry| pod.value["metadata"]["labels"]["controller-revision-hash"] == hash;
        let available = here.iter().filter(|pod| is_available(pod)).count();
        if set.value.pointer("/spec/updateStrategy/type").is_none_or(|kind| kind == "RollingUpdate") {
            let most =
                set.value.pointer("/spec/updateStrategy/rollingUpdate/maxUnavailable").cloned().unwrap_or(json!(1));
            let most = usize::try_from(pods::share(&most, nodes.len() as u64, Rounding::Up)).unwrap_or(1).max(1);
            let mut room = most.saturating_sub(nodes.len() - available.min(nodes.len()));
            for pod in here.iter().filter(|pod| !is_new(pod)) {
                // Those that don't work cost nothing.
                if is_available(pod) {
                    if room == 0 {
                        continue;
                    }
                    room -= 1;
                }
                self.end_daemon(set, pod);
            }
        }
        let misplaced = mine.iter().filter(|pod| pods::is_active(&pod.value)).count() - here.len();
        let ready = here.iter().filter(|pod| pods::is_ready(&pod.value)).count();
        let updated = here.iter().filter(|pod| is_new(pod)).count();
        let mut status = json!({ "currentNumberScheduled": here.len(), "desiredNumberScheduled": nodes.len(),
            "numberMisscheduled": misplaced, "numberReady": ready, "observedGeneration": generation(&set.value) });
        for (name, number) in [
            ("updatedNumberScheduled", updated),
            ("numberAvailable", available),
            ("numberUnavailable", nodes.len().saturating_sub(available)),
        ] {
            if number > 0 {
                status[name] = json!(number);
            }
        }
        self.set_status(set, status);
    }

    fn end_daemon(&mut self, set: &Entry, pod: &Entry) {
        self.terminate(pod);
        let why = format!("Deleted pod: {}", pod.name());
        self.round.tell(News::of(&set.value, DAEMONS, "SuccessfulDelete", why));
    }

    /// Remembers a template that was once wanted, for the way back.
    pub(super) fn revision(&mut self, set: &Entry, hash: &str) {
        let namespace = pods::namespace(set).to_owned();
        let prefix = format!("/registry/controllerrevisions/{namespace}/");
        let known = self.owned(&prefix, set);
        let last = known.iter().map(|one| pods::count(&one.value, "/revision")).max().unwrap_or(0);
        let name = format!("{}-{hash}", set.name());
        if let Some(found) = known.iter().find(|one| one.name() == name) {
            if pods::count(&found.value, "/revision") < last {
                let mut value = found.value.clone();
                value["revision"] = json!(last + 1);
                self.round.update(found, value);
            }
            return;
        }
        let key = objects::key("controllerrevisions", Some(&namespace), &name);
        let mut revision =
            objects::namespaced("apps/v1", "ControllerRevision", Some(&namespace), &name, &self.uid("cr", &key));
        let mut template = set.value["spec"]["template"].clone();
        if template.is_object() {
            template["$patch"] = json!("replace");
        }
        revision["metadata"]["labels"] = set.value["spec"]["template"]["metadata"]["labels"].clone();
        if !revision["metadata"]["labels"].is_object() {
            revision["metadata"]["labels"] = json!({});
        }
        revision["metadata"]["labels"]["controller-revision-hash"] = json!(hash);
        revision["metadata"]["ownerReferences"] = json!([pods::reference(&set.value)]);
        revision["data"] = json!({ "spec": { "template": template } });
        revision["revision"] = json!(last + 1);
        self.round.create(key, revision);
    }
}

/// A set's template with what the controller adds: its digest, and tolerations for nodes that aren't quite well.
fn template(set: &Value, hash: &str) -> Value {
    let mut template = set["spec"]["template"].clone();
    if !template.is_object() {
        template = json!({});
    }
    for name in ["metadata", "spec"] {
        if !template[name].is_object() {
            template[name] = json!({});
        }
    }
    if !template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"] = json!({});
    }
    template["metadata"]["labels"]["controller-revision-hash"] = json!(hash);
    let mut tolerations = template["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let host = template["spec"]["hostNetwork"] == true;
    for (key, effect) in [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
        ("network-unavailable", "NoSchedule"),
    ] {
        let one = json!({ "key": format!("node.kubernetes.io/{key}"), "operator": "Exists", "effect": effect });
        if (key != "network-unavailable" || host) && !tolerations.contains(&one) {
            tolerations.push(one);
        }
    }
    template["spec"]["tolerations"] = Value::Array(tolerations);
    template
}
