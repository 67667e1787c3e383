//! Stateful sets: pods with numbers, one after the other.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Desk, Entry, News, generation, is_available, objects, pods, replicas, template_hash};

/// Who tells of stateful sets.
const ORDERED: &str = "statefulset-controller";

impl Desk<'_> {
    pub(super) fn statefulsets(&mut self) {
        for set in self.all("/registry/statefulsets/") {
            if !pods::is_going(&set.value) {
                self.statefulset(&set);
            }
        }
    }

    fn statefulset(&mut self, set: &Entry) {
        let hash = template_hash(&set.value["spec"]["template"]);
        self.revision(set, &hash);
        let update = format!("{}-{hash}", set.name());
        let namespace = pods::namespace(set).to_owned();
        let mine = self.owned(&format!("/registry/pods/{namespace}/"), set);
        let wanted = replicas(&set.value).min(500);
        let number = |pod: &Entry| pod.name().rsplit('-').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        let parallel = set.value["spec"]["podManagementPolicy"] == "Parallel";
        let mut settled = true;
        for ordinal in 0..wanted {
            let found = mine.iter().find(|pod| number(pod) == ordinal);
            match found {
                Some(pod) if pods::is_over(&pod.value) => self.round.remove(pod),
                Some(pod) if is_available(pod) => continue,
                Some(_) => {}
                None => self.numbered(set, ordinal, &update),
            }
            settled = false;
            if !parallel {
                break;
            }
        }
        let mut surplus: Vec<&Arc<Entry>> = mine.iter().filter(|pod| number(pod) >= wanted).collect();
        surplus.sort_by_key(|pod| std::cmp::Reverse(number(pod)));
        for pod in surplus {
            settled = false;
            self.end_numbered(set, pod);
            if !parallel {
                break;
            }
        }
        let of_revision = |pod: &Entry| pods::text(&pod.value, "/metadata/labels/controller-revision-hash").to_owned();
        let rolling = set.value.pointer("/spec/updateStrategy/type").is_none_or(|kind| kind == "RollingUpdate");
        if settled && rolling {
            let first =
                set.value.pointer("/spec/updateStrategy/rollingUpdate/partition").and_then(Value::as_u64).unwrap_or(0);
            let mut old: Vec<&Arc<Entry>> =
                mine.iter().filter(|pod| number(pod) >= first && of_revision(pod) != update).collect();
            old.sort_by_key(|pod| std::cmp::Reverse(number(pod)));
            if let Some(pod) = old.first() {
                self.end_numbered(set, pod);
            }
        }
        let active: Vec<&Arc<Entry>> = mine.iter().filter(|pod| pods::is_active(&pod.value)).collect();
        let ready = active.iter().filter(|pod| pods::is_ready(&pod.value)).count();
        let updated = active.iter().filter(|pod| of_revision(pod) == update).count();
        let known = pods::text(&set.value, "/status/currentRevision").to_owned();
        let current = if updated == active.len() || known.is_empty() { update.clone() } else { known };
        let mut status = json!({ "replicas": active.len(), "availableReplicas": ready, "collisionCount": 0,
            "currentRevision": current, "updateRevision": update, "observedGeneration": generation(&set.value) });
        let of_current = active.iter().filter(|pod| of_revision(pod) == current).count();
        for (name, number) in [("readyReplicas", ready), ("updatedReplicas", updated), ("currentReplicas", of_current)]
        {
            if number > 0 {
                status[name] = json!(number);
            }
        }
        self.set_status(set, status);
    }

    fn numbered(&mut self, set: &Entry, ordinal: u64, revision: &str) {
        let namespace = pods::namespace(set).to_owned();
        let name = format!("{}-{ordinal}", set.name());
        let key = objects::key("pods", Some(&namespace), &name);
        let mut template = set.value["spec"]["template"].clone();
        for claim in set.value["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten() {
            let volume = pods::text(claim, "/metadata/name").to_owned();
            let claimed = format!("{volume}-{name}");
            let place = objects::key("persistentvolumeclaims", Some(&namespace), &claimed);
            if self.view.get(&place).is_none() {
                let uid = self.uid("pvc", &place);
                let mut value = objects::namespaced("v1", "PersistentVolumeClaim", Some(&namespace), &claimed, &uid);
                value["metadata"]["labels"] = set.value["spec"]["selector"]["matchLabels"].clone();
                value["spec"] = claim["spec"].clone();
                value["status"] = json!({ "phase": "Pending" });
                self.round.create(place, value);
            }
            let mut volumes = template["spec"]["volumes"].as_array().cloned().unwrap_or_default();
            volumes.retain(|known| known["name"] != volume);
            volumes.push(json!({ "name": volume, "persistentVolumeClaim": { "claimName": claimed } }));
            template["spec"]["volumes"] = Value::Array(volumes);
        }
        let uid = self.uid("Pod", &key);
        let mut pod = pods::from_template(&set.value, &template, &name, &uid);
        if !pod["metadata"]["labels"].is_object() {
            pod["metadata"]["labels"] = json!({});
        }
        let labels = &mut pod["metadata"]["labels"];
        labels["controller-revision-hash"] = json!(revision);
        labels["statefulset.kubernetes.io/pod-name"] = json!(name);
        labels["apps.kubernetes.io/pod-index"] = json!(ordinal.to_string());
        pod["metadata"]["generateName"] = json!(format!("{}-", set.name()));
        pod["spec"]["hostname"] = json!(name);
        pod["spec"]["subdomain"] = set.value["spec"]["serviceName"].clone();
        if let Err(why) = self.has_room(set, &pod) {
            let why = format!("create Pod {name} in StatefulSet {} failed error: {why}", set.name());
            return self.round.news.push(News::of(&set.value, ORDERED, "FailedCreate", why).warns());
        }
        self.round.create(key, pod);
        let why = format!("create Pod {name} in StatefulSet {} successful", set.name());
        self.round.tell(News::of(&set.value, ORDERED, "SuccessfulCreate", why));
    }

    fn end_numbered(&mut self, set: &Entry, pod: &Entry) {
        if pods::is_going(&pod.value) {
            return;
        }
        self.terminate(pod);
        let why = format!("delete Pod {} in StatefulSet {} successful", pod.name(), set.name());
        self.round.tell(News::of(&set.value, ORDERED, "SuccessfulDelete", why));
    }
}
