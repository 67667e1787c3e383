//! What the server adds to an object by itself: how it begins, what is filled in, what a caller can't change or leaves alone
//! (Kubernetes, pkg/registry, the strategies' `PrepareForCreate` and `PrepareForUpdate`).

use serde_json::{Map, Value, json};

use super::events;
use super::kinds::Kind;
use super::structural;
use crate::world::cluster::{defaults, objects, pods};

/// What a new object of a kind begins with.
pub(super) fn begin(object: &mut Value, kind: &Kind) {
    if kind.has("status")
        && let Some(map) = object.as_object_mut()
    {
        map.remove("status");
    }
    if let Some(status) = empty_status(kind) {
        object["status"] = status;
    }
    match kind.kind.as_str() {
        "Namespace" => {
            object["spec"] = json!({ "finalizers": ["kubernetes"] });
            object["status"] = json!({ "phase": "Active" });
        }
        "Pod" => {
            defaults::complete(object);
            pods::admitted(object);
        }
        "Job" => {
            let uid = object["metadata"]["uid"].clone();
            let name = object["metadata"]["name"].clone();
            if object["spec"].is_object() && object["spec"].get("selector").is_none() {
                let labels = json!({ "batch.kubernetes.io/controller-uid": uid, "batch.kubernetes.io/job-name": name,
                    "controller-uid": uid, "job-name": name });
                for (key, value) in labels.as_object().into_iter().flatten() {
                    object["spec"]["template"]["metadata"]["labels"][key] = value.clone();
                }
                object["spec"]["selector"] = json!({ "matchLabels": { "batch.kubernetes.io/controller-uid": uid } });
            }
        }
        "CustomResourceDefinition" => {
            object["status"] = json!({ "acceptedNames": object["spec"]["names"], "storedVersions": object["spec"]["versions"]
                    .as_array().into_iter().flatten().filter(|one| one["storage"] == true).map(|one| one["name"].clone())
                    .collect::<Vec<_>>(),
                "conditions": [
                    { "type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
                        "lastTransitionTime": objects::now() },
                    { "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                        "message": "the initial names have been accepted", "lastTransitionTime": objects::now() }] });
        }
        "PersistentVolume" | "PersistentVolumeClaim" => object["status"] = json!({ "phase": "Pending" }),
        _ => {}
    }
}

/// The status that an object has before anybody wrote one: what Go writes of a structure that isn't left out.
fn empty_status(kind: &Kind) -> Option<Value> {
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("apps", "Deployment")
        | ("batch", "Job" | "CronJob")
        | ("", "ResourceQuota")
        | ("certificates.k8s.io", "CertificateSigningRequest")
        | ("flowcontrol.apiserver.k8s.io", "FlowSchema" | "PriorityLevelConfiguration") => json!({}),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => json!({ "replicas": 0 }),
        ("apps", "StatefulSet") => json!({ "replicas": 0, "availableReplicas": 0 }),
        ("apps", "DaemonSet") => json!({ "currentNumberScheduled": 0, "desiredNumberScheduled": 0,
            "numberMisscheduled": 0, "numberReady": 0 }),
        ("policy", "PodDisruptionBudget") => json!({ "currentHealthy": 0, "desiredHealthy": 0,
            "disruptionsAllowed": 0, "expectedPods": 0 }),
        ("autoscaling", "HorizontalPodAutoscaler") => json!({ "currentMetrics": null, "desiredReplicas": 0 }),
        ("networking.k8s.io", "Ingress") => json!({ "loadBalancer": {} }),
        _ => return None,
    })
}

/// What is stored says its kind, is filled in, and doesn't say its version.
pub(super) fn complete(object: &mut Value, kind: &Kind) {
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    if kind.kind == "Secret" {
        use base64::Engine as _;
        let given = object.as_object_mut().and_then(|map| map.remove("stringData"));
        for (key, value) in given.as_ref().and_then(Value::as_object).into_iter().flatten() {
            let text = value.as_str().unwrap_or_default();
            object["data"][key] = json!(base64::engine::general_purpose::STANDARD.encode(text));
        }
    }
    if kind.plural == "events" {
        events::convert(object, "");
        object["apiVersion"] = json!("v1");
    }
    match structural::schema(kind) {
        Some(schema) => structural::fill(object, schema),
        None if kind.custom.is_none() => defaults::complete(object),
        None => {}
    }
}

/// What a caller can't change.
pub(super) fn keep(new: &mut Value, old: &Value) {
    let Some(metadata) = new["metadata"].as_object_mut() else { return };
    for field in [
        "uid",
        "creationTimestamp",
        "name",
        "namespace",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ] {
        match old["metadata"].get(field) {
            Some(kept) => metadata.insert(field.to_owned(), kept.clone()),
            None => metadata.remove(field),
        };
    }
    metadata.remove("selfLink");
    for empty in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let is_empty = metadata.get(empty).is_some_and(|value| {
            value.is_null()
                || value.as_object().is_some_and(Map::is_empty)
                || value.as_array().is_some_and(Vec::is_empty)
        });
        if is_empty {
            metadata.remove(empty);
        }
    }
}

/// What the server once chose stays when a caller says nothing about it.
pub(super) fn inherit(new: &mut Value, old: &Value, kind: &Kind) {
    let fields: &[&str] = match kind.kind.as_str() {
        "Service" => &["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "healthCheckNodePort"],
        "PersistentVolumeClaim" => &["volumeName", "storageClassName"],
        "Job" => &["selector"],
        "Pod" => &[
            "nodeName",
            "serviceAccountName",
            "serviceAccount",
            "tolerations",
            "priority",
            "preemptionPolicy",
            "enableServiceLinks",
        ],
        _ => &[],
    };
    for field in fields {
        let given = new.pointer(&format!("/spec/{field}")).is_some_and(|value| !value.is_null() && *value != "");
        if let (false, Some(kept)) = (given, old["spec"].get(field)) {
            new["spec"][field] = kept.clone();
        }
    }
    if kind.kind == "ServiceAccount"
        && new.get("secrets").is_none()
        && let Some(secrets) = old.get("secrets")
    {
        new["secrets"] = secrets.clone();
    }
}
