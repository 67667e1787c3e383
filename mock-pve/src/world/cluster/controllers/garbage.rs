//! The garbage collector: what nobody owns any more goes, and owners wait for what they own when they were asked to.

use serde_json::{Value, json};

use super::{Desk, Entry, objects, pods};

/// Where objects of a kind are, for those that own others.
fn stored(kind: &str) -> Option<(&'static str, bool)> {
    Some(match kind {
        "Pod" => ("pods", true),
        "Node" => ("minions", false),
        "Namespace" => ("namespaces", false),
        "ConfigMap" => ("configmaps", true),
        "Secret" => ("secrets", true),
        "Service" => ("services/specs", true),
        "ServiceAccount" => ("serviceaccounts", true),
        "Deployment" => ("deployments", true),
        "ReplicaSet" => ("replicasets", true),
        "StatefulSet" => ("statefulsets", true),
        "DaemonSet" => ("daemonsets", true),
        "Job" => ("jobs", true),
        "CronJob" => ("cronjobs", true),
        "PersistentVolumeClaim" => ("persistentvolumeclaims", true),
        "CustomResourceDefinition" => ("apiextensions.k8s.io/customresourcedefinitions", false),
        _ => return None,
    })
}

impl Desk<'_> {
    pub(super) fn garbage(&mut self) {
        let owned: Vec<_> =
            self.view.all().filter(|entry| entry.value["metadata"]["ownerReferences"].is_array()).cloned().collect();
        // Mirrors come and go with their kubelet.
        for entry in owned.iter().filter(|entry| !pods::is_mirror(&entry.value)) {
            let owners = entry.value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let found: Vec<Option<Entry>> = owners.iter().map(|owner| self.owner(entry, owner)).collect();
            if !owners.is_empty() && found.iter().all(|owner| owner.as_ref().is_none_or(is_leaving)) {
                // Who is waited for waits for its own.
                let awaited = found.iter().any(Option::is_some);
                let has_own = owned.iter().any(|one| pods::is_owned_by(&one.value, &entry.value));
                self.discard(entry, (awaited && has_own).then_some("foregroundDeletion"));
            }
        }
        let waiting: Vec<_> = self
            .view
            .all()
            .filter(|entry| pods::is_going(&entry.value) && entry.value["metadata"]["finalizers"].is_array())
            .cloned()
            .collect();
        for entry in waiting {
            self.finish(&entry, &owned);
        }
    }

    /// The owner behind a reference; one that can't be looked up counts as there.
    fn owner(&self, entry: &Entry, reference: &Value) -> Option<Entry> {
        let name = reference["name"].as_str().unwrap_or_default();
        let kind = reference["kind"].as_str().unwrap_or_default();
        let namespace = entry.value["metadata"]["namespace"].as_str();
        let unknown = || Entry { key: String::new(), value: json!({ "metadata": {} }), created: 0, modified: 0 };
        let key = if let Some((resource, namespaced)) = stored(kind) {
            objects::key(resource, namespace.filter(|_| namespaced), name)
        } else {
            let group =
                reference["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
            let definitions = "/registry/apiextensions.k8s.io/customresourcedefinitions/";
            let found = self.view.list(definitions).find(|one| {
                Some(pods::text(&one.value, "/spec/group")) == group
                    && pods::text(&one.value, "/spec/names/kind") == kind
            });
            let Some(found) = found else { return Some(unknown()) };
            let namespaced = found.value["spec"]["scope"] == "Namespaced";
            let resource = format!("{}/{}", group.unwrap_or_default(), pods::text(&found.value, "/spec/names/plural"));
            objects::key(&resource, namespace.filter(|_| namespaced), name)
        };
        (self.look_up)(&key).into_iter().find(|owner| owner.value["metadata"]["uid"] == reference["uid"])
    }

    /// An object goes, or gets ready to go: once it has the finalizer of those who wait.
    fn discard(&mut self, entry: &Entry, waits: Option<&str>) {
        if pods::is_going(&entry.value) {
            return;
        }
        let mut finalizers = entry.value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        finalizers.extend(waits.map(|name| json!(name)));
        if entry.key.starts_with("/registry/pods/") {
            self.terminate(entry);
        } else if finalizers.is_empty() {
            self.round.remove(entry);
        } else {
            let mut value = entry.value.clone();
            value["metadata"]["deletionTimestamp"] = json!(objects::now());
            value["metadata"]["deletionGracePeriodSeconds"] = json!(0);
            value["metadata"]["finalizers"] = Value::Array(finalizers);
            self.round.update(entry, value);
        }
    }

    /// An owner that waits for what it owns, or leaves it behind.
    fn finish(&mut self, entry: &Entry, owned: &[std::sync::Arc<Entry>]) {
        let finalizers = entry.value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let mine: Vec<_> = owned
            .iter()
            .filter(|one| {
                let owners = one.value["metadata"]["ownerReferences"].as_array().into_iter().flatten();
                owners.into_iter().any(|owner| owner["uid"] == entry.value["metadata"]["uid"])
            })
            .collect();
        let done = if finalizers.contains(&json!("orphan")) {
            for one in &mine {
                let mut value = one.value.clone();
                let mut owners = value["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
                owners.retain(|owner| owner["uid"] != entry.value["metadata"]["uid"]);
                if owners.is_empty() {
                    if let Some(metadata) = value["metadata"].as_object_mut() {
                        metadata.remove("ownerReferences");
                    }
                } else {
                    value["metadata"]["ownerReferences"] = Value::Array(owners);
                }
                self.round.update(one, value);
            }
            mine.is_empty().then_some("orphan")
        } else if finalizers.contains(&json!("foregroundDeletion")) {
            mine.is_empty().then_some("foregroundDeletion")
        } else {
            None
        };
        if let Some(done) = done {
            let left: Vec<&Value> = finalizers.iter().filter(|one| *one != done).collect();
            if left.is_empty() {
                self.round.remove(entry);
            } else {
                let mut value = entry.value.clone();
                value["metadata"]["finalizers"] = json!(left);
                self.round.update(entry, value);
            }
        }
    }
}

/// It only waits for what it owns.
fn is_leaving(owner: &Entry) -> bool {
    let finalizers = owner.value["metadata"]["finalizers"].as_array();
    pods::is_going(&owner.value) && finalizers.is_some_and(|all| all.contains(&json!("foregroundDeletion")))
}
