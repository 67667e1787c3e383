//! What the API server fills in where an object says nothing (Kubernetes, pkg/apis/*/v1/defaults.go).
//!
//! Filling in twice changes nothing the second time: a manifest that is sent again equals what is there.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

fn or_insert(object: &mut Value, name: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        map.entry(name).or_insert(value);
    }
}

fn each<'a>(object: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    object.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Fills in an object of any kind.
pub fn complete(object: &mut Value) {
    let kind = object["kind"].as_str().unwrap_or_default().to_owned();
    let group =
        object["apiVersion"].as_str().unwrap_or_default().split_once('/').map_or("", |(group, _)| group).to_owned();
    match (group.as_str(), kind.as_str()) {
        ("", "Pod") => {
            if let Some(spec) = object.get_mut("spec") {
                pod(spec);
                for list in ["/initContainers", "/containers"] {
                    each(spec, list).for_each(requested);
                }
            }
        }
        ("", "PodTemplate") => template(object, "/template"),
        ("", "ReplicationController") => template(object, "/spec/template"),
        ("", "Namespace") => {
            let name = object["metadata"]["name"].clone();
            if let Some(metadata) = object.get_mut("metadata").filter(|_| name.is_string()) {
                or_insert(metadata, "labels", json!({}));
                metadata["labels"]["kubernetes.io/metadata.name"] = name;
            }
        }
        ("", "Service") => service(object),
        ("", "Secret") => or_insert(object, "type", json!("Opaque")),
        ("", "PersistentVolumeClaim") => {
            if let Some(spec) = object.get_mut("spec") {
                or_insert(spec, "volumeMode", json!("Filesystem"));
            }
        }
        ("", "PersistentVolume") => {
            if let Some(spec) = object.get_mut("spec") {
                or_insert(spec, "volumeMode", json!("Filesystem"));
                or_insert(spec, "persistentVolumeReclaimPolicy", json!("Retain"));
            }
        }
        ("apps", _) => workload(object, &kind),
        ("batch", "Job") => {
            if let Some(spec) = object.get_mut("spec") {
                job(spec);
            }
        }
        ("batch", "CronJob") => {
            if let Some(spec) = object.get_mut("spec") {
                or_insert(spec, "concurrencyPolicy", json!("Allow"));
                or_insert(spec, "suspend", json!(false));
                or_insert(spec, "successfulJobsHistoryLimit", json!(3));
                or_insert(spec, "failedJobsHistoryLimit", json!(1));
                if let Some(job_spec) = spec.pointer_mut("/jobTemplate/spec") {
                    template_at(job_spec, "/template");
                }
            }
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            if let Some(role) = object.get_mut("roleRef") {
                or_insert(role, "apiGroup", json!("rbac.authorization.k8s.io"));
            }
            for subject in each(object, "/subjects") {
                if subject["kind"] != "ServiceAccount" {
                    or_insert(subject, "apiGroup", json!("rbac.authorization.k8s.io"));
                }
            }
        }
        ("storage.k8s.io", "StorageClass") => {
            or_insert(object, "reclaimPolicy", json!("Delete"));
            or_insert(object, "volumeBindingMode", json!("Immediate"));
        }
        ("scheduling.k8s.io", "PriorityClass") => or_insert(object, "preemptionPolicy", json!("PreemptLowerPriority")),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("networking.k8s.io", "NetworkPolicy") => {
            let egress = object.pointer("/spec/egress").is_some();
            if let Some(spec) = object.get_mut("spec") {
                or_insert(spec, "policyTypes", if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) });
            }
        }
        _ => {}
    }
}

fn template(object: &mut Value, pointer: &str) {
    template_at(object, pointer);
}

fn template_at(object: &mut Value, pointer: &str) {
    if let Some(template) = object.pointer_mut(pointer) {
        or_insert(template, "metadata", json!({}));
        if let Some(spec) = template.get_mut("spec") {
            pod(spec);
        }
    }
}

fn workload(object: &mut Value, kind: &str) {
    template_at(object, "/spec/template");
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    match kind {
        "Deployment" => {
            or_insert(spec, "replicas", json!(1));
            or_insert(spec, "strategy", json!({}));
            or_insert(spec, "revisionHistoryLimit", json!(10));
            or_insert(spec, "progressDeadlineSeconds", json!(600));
            or_insert(&mut spec["strategy"], "type", json!("RollingUpdate"));
            if spec["strategy"]["type"] == "RollingUpdate" {
                or_insert(&mut spec["strategy"], "rollingUpdate", json!({}));
                or_insert(&mut spec["strategy"]["rollingUpdate"], "maxSurge", json!("25%"));
                or_insert(&mut spec["strategy"]["rollingUpdate"], "maxUnavailable", json!("25%"));
            }
        }
        "ReplicaSet" => or_insert(spec, "replicas", json!(1)),
        "DaemonSet" => {
            or_insert(spec, "revisionHistoryLimit", json!(10));
            or_insert(spec, "updateStrategy", json!({}));
            or_insert(&mut spec["updateStrategy"], "type", json!("RollingUpdate"));
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                or_insert(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
                or_insert(&mut spec["updateStrategy"]["rollingUpdate"], "maxSurge", json!(0));
                or_insert(&mut spec["updateStrategy"]["rollingUpdate"], "maxUnavailable", json!(1));
            }
        }
        "StatefulSet" => {
            or_insert(spec, "replicas", json!(1));
            or_insert(spec, "podManagementPolicy", json!("OrderedReady"));
            or_insert(spec, "revisionHistoryLimit", json!(10));
            or_insert(
                spec,
                "persistentVolumeClaimRetentionPolicy",
                json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
            );
            or_insert(spec, "updateStrategy", json!({}));
            or_insert(&mut spec["updateStrategy"], "type", json!("RollingUpdate"));
            if spec["updateStrategy"]["type"] == "RollingUpdate" {
                or_insert(&mut spec["updateStrategy"], "rollingUpdate", json!({}));
                or_insert(&mut spec["updateStrategy"]["rollingUpdate"], "partition", json!(0));
            }
            for claim in each(spec, "/volumeClaimTemplates") {
                or_insert(claim, "apiVersion", json!("v1"));
                or_insert(claim, "kind", json!("PersistentVolumeClaim"));
                or_insert(claim, "status", json!({ "phase": "Pending" }));
                if let Some(spec) = claim.get_mut("spec") {
                    or_insert(spec, "volumeMode", json!("Filesystem"));
                }
            }
        }
        _ => {}
    }
}

fn job(spec: &mut Value) {
    template_at(spec, "/template");
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        or_insert(spec, "completions", json!(1));
    }
    or_insert(spec, "parallelism", json!(1));
    or_insert(spec, "backoffLimit", json!(6));
    or_insert(spec, "completionMode", json!("NonIndexed"));
    or_insert(spec, "suspend", json!(false));
    or_insert(spec, "manualSelector", json!(false));
    or_insert(spec, "podReplacementPolicy", json!("TerminatingOrFailed"));
}

/// A pod's specification.
fn pod(spec: &mut Value) {
    or_insert(spec, "restartPolicy", json!("Always"));
    or_insert(spec, "terminationGracePeriodSeconds", json!(30));
    or_insert(spec, "dnsPolicy", json!("ClusterFirst"));
    or_insert(spec, "securityContext", json!({}));
    or_insert(spec, "schedulerName", json!("default-scheduler"));
    let account = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).cloned();
    if let Some(account) = account {
        or_insert(spec, "serviceAccountName", account.clone());
        or_insert(spec, "serviceAccount", account);
    }
    let host = spec["hostNetwork"] == true;
    for list in ["/initContainers", "/containers", "/ephemeralContainers"] {
        for container in each(spec, list) {
            self::container(container, host);
        }
    }
    for volume in each(spec, "/volumes") {
        for (kind, name, default) in [
            ("configMap", "defaultMode", json!(420)),
            ("secret", "defaultMode", json!(420)),
            ("projected", "defaultMode", json!(420)),
            ("downwardAPI", "defaultMode", json!(420)),
            ("hostPath", "type", json!("")),
        ] {
            if let Some(source) = volume.get_mut(kind) {
                or_insert(source, name, default);
            }
        }
        let sources = [
            "configMap",
            "secret",
            "projected",
            "downwardAPI",
            "hostPath",
            "persistentVolumeClaim",
            "csi",
            "nfs",
            "iscsi",
            "ephemeral",
            "emptyDir",
            "image",
            "fc",
            "rbd",
            "cephfs",
            "flexVolume",
        ];
        if volume.is_object() && !sources.iter().any(|source| volume.get(source).is_some()) {
            volume["emptyDir"] = json!({});
        }
    }
}

fn container(container: &mut Value, host: bool) {
    let image = container["image"].as_str().unwrap_or_default();
    let tag = image.rsplit('/').next().unwrap_or_default().split_once(':').map_or("", |(_, tag)| tag);
    let latest = !image.contains('@') && (tag.is_empty() || tag == "latest");
    or_insert(container, "imagePullPolicy", json!(if latest { "Always" } else { "IfNotPresent" }));
    or_insert(container, "terminationMessagePath", json!("/dev/termination-log"));
    or_insert(container, "terminationMessagePolicy", json!("File"));
    or_insert(container, "resources", json!({}));
    for port in each(container, "/ports") {
        or_insert(port, "protocol", json!("TCP"));
        let number = port["containerPort"].clone();
        if host && number.is_number() {
            or_insert(port, "hostPort", number);
        }
    }
    for variable in each(container, "/env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            or_insert(field, "apiVersion", json!("v1"));
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            for (name, value) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                or_insert(probe, name, json!(value));
            }
            if let Some(http) = probe.get_mut("httpGet") {
                or_insert(http, "scheme", json!("HTTP"));
                or_insert(http, "path", json!("/"));
            }
        }
    }
}

/// What a pod's container is limited to, it requests; a template doesn't say so.
fn requested(container: &mut Value) {
    let limits = container.pointer("/resources/limits").and_then(Value::as_object).cloned().unwrap_or_default();
    if !limits.is_empty() {
        or_insert(&mut container["resources"], "requests", json!({}));
        for (name, value) in limits {
            or_insert(&mut container["resources"]["requests"], &name, value);
        }
    }
}

/// An address among a cluster's services that follows from a name.
pub fn service_address(namespace: &str, name: &str) -> String {
    let digest = Sha256::digest(format!("{namespace}/{name}"));
    format!("10.{}.{}.{}", 96 + digest[0] % 16, digest[1], digest[2].clamp(11, 254))
}

fn service(object: &mut Value) {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let address = service_address(&text("/metadata/namespace"), &text("/metadata/name"));
    let named = !text("/metadata/name").is_empty();
    or_insert(object, "spec", json!({}));
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    or_insert(spec, "type", json!("ClusterIP"));
    or_insert(spec, "sessionAffinity", json!("None"));
    let external = spec["type"] == "ExternalName";
    if !external && named {
        if spec["clusterIP"] == "" {
            spec["clusterIP"] = json!(address);
        }
        or_insert(spec, "clusterIP", json!(address));
        let first = spec["clusterIP"].clone();
        or_insert(spec, "clusterIPs", json!([first]));
        or_insert(spec, "internalTrafficPolicy", json!("Cluster"));
        or_insert(spec, "ipFamilies", json!(["IPv4"]));
        or_insert(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    let balanced = spec["type"] == "LoadBalancer";
    let open = balanced || spec["type"] == "NodePort";
    if open {
        or_insert(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if balanced {
        or_insert(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    let seed = Sha256::digest(address.as_bytes());
    for (number, port) in each(spec, "/ports").enumerate() {
        or_insert(port, "protocol", json!("TCP"));
        let same = port["port"].clone();
        or_insert(port, "targetPort", same);
        if open {
            let offset = u64::from(seed[3]) * 10 + number as u64;
            or_insert(port, "nodePort", json!(30000 + offset % 2768));
        }
    }
    or_insert(object, "status", json!({ "loadBalancer": {} }));
}

fn webhooks(object: &mut Value) {
    let mutating = object["kind"] == "MutatingWebhookConfiguration";
    for webhook in each(object, "/webhooks") {
        or_insert(webhook, "failurePolicy", json!("Fail"));
        or_insert(webhook, "matchPolicy", json!("Equivalent"));
        or_insert(webhook, "namespaceSelector", json!({}));
        or_insert(webhook, "objectSelector", json!({}));
        or_insert(webhook, "timeoutSeconds", json!(10));
        if mutating {
            or_insert(webhook, "reinvocationPolicy", json!("Never"));
        }
        for rule in each(webhook, "/rules") {
            or_insert(rule, "scope", json!("*"));
        }
        if let Some(service) = webhook.pointer_mut("/clientConfig/service") {
            or_insert(service, "port", json!(443));
        }
    }
}

fn definition(object: &mut Value) {
    if let Some(names) = object.pointer_mut("/spec/names").filter(|names| names.is_object()) {
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        or_insert(names, "singular", json!(kind.to_lowercase()));
        or_insert(names, "listKind", json!(format!("{kind}List")));
    }
    if let Some(spec) = object.get_mut("spec") {
        or_insert(spec, "conversion", json!({ "strategy": "None" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_in_twice_is_filling_in_once() {
        let container = json!({ "name": "a", "image": "registry:5000/a", "ports": [{ "containerPort": 80 }],
            "readinessProbe": { "httpGet": { "port": 80 } }, "resources": { "limits": { "cpu": "1" } } });
        let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [container],
            "volumes": [{ "name": "v" }, { "name": "h", "hostPath": { "path": "/" } }] } });
        for (version, kind) in
            [("apps/v1", "Deployment"), ("apps/v1", "DaemonSet"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job")]
        {
            let mut object = json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "a" },
                "spec": { "template": template } });
            complete(&mut object);
            let once = object.clone();
            complete(&mut object);
            assert_eq!(object, once);
            let pod = &once["spec"]["template"]["spec"];
            assert_eq!(pod["restartPolicy"], "Always");
            assert_eq!(pod["containers"][0]["imagePullPolicy"], "Always");
            assert!(pod["containers"][0]["resources"].get("requests").is_none());
            let mut one = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a" }, "spec": pod });
            complete(&mut one);
            assert_eq!(one["spec"]["containers"][0]["resources"]["requests"]["cpu"], "1");
            assert_eq!(pod["volumes"][0], json!({ "name": "v", "emptyDir": {} }));
        }
        let mut service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a", "namespace": "b" },
            "spec": { "ports": [{ "port": 80 }] } });
        complete(&mut service);
        assert_eq!(service["spec"]["ports"][0], json!({ "port": 80, "protocol": "TCP", "targetPort": 80 }));
        assert!(service["spec"]["clusterIP"].as_str().is_some_and(|address| address.starts_with("10.")));
        complete(&mut json!({ "apiVersion": "apps/v1", "kind": "Deployment", "spec": [] }));
    }
}
