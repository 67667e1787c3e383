//! What objects must be like, as far as it is noticed before anything runs (Kubernetes, pkg/apis/*/validation).

use serde_json::{Value, json};

use super::answer::{Cause, Refusal};
use super::cron;
use super::kinds::Kind;
use super::select::{is_label, is_label_key, is_label_value, is_subdomain};
use super::structural;
use crate::world::cluster::pods;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                         start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
                         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
                     with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
                     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const KEY: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
                   character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                   '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and \
                     end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                     '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Refuses an object that can't be right; `old` is what it was.
pub(super) fn check(kind: &Kind, object: &Value, old: Option<&Value>) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    metadata(kind, object, &mut causes);
    let spec = &object["spec"];
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "Pod") => {
            pod(spec, "spec", &mut causes);
            if let Some(old) = old {
                pod_update(object, old, &mut causes);
            }
        }
        ("apps", "Deployment" | "DaemonSet" | "StatefulSet" | "ReplicaSet") => workload(spec, old, &mut causes),
        ("batch", "Job") => {
            template(&spec["template"], &mut causes);
            let policy = spec.pointer("/template/spec/restartPolicy");
            if policy == Some(&json!("Always")) {
                let known = ["OnFailure", "Never"];
                causes.push(Cause::unsupported("spec.template.spec.restartPolicy", &json!("Always"), &known));
            }
        }
        ("batch", "CronJob") => {
            let schedule = spec["schedule"].as_str().unwrap_or_default();
            if schedule.is_empty() {
                causes.push(Cause::required("spec.schedule", ""));
            } else if let Err(why) = cron::check(schedule) {
                causes.push(Cause::invalid("spec.schedule", &json!(schedule), &why));
            }
        }
        ("", "ConfigMap" | "Secret") => data(object, old, &mut causes),
        ("", "Service") => service(spec, old, &mut causes),
        ("policy", "PodDisruptionBudget")
            if spec.get("minAvailable").is_some() && spec.get("maxUnavailable").is_some() =>
        {
            causes.push(Cause::invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set"));
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            if object["roleRef"]["name"].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required("roleRef.name", ""));
            }
            if old.is_some_and(|old| old["roleRef"] != object["roleRef"]) {
                causes.push(Cause::invalid("roleRef", &object["roleRef"], "cannot change roleRef"));
            }
        }
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object, &mut causes),
        _ => {}
    }
    if let Some(schema) = structural::schema(kind) {
        // What was wrong already and didn't change is let be.
        let known = old.map(|old| structural::check(old, schema)).unwrap_or_default();
        causes.extend(structural::check(object, schema).into_iter().filter(|cause| !known.contains(cause)));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid(kind, pods::text(object, "/metadata/name"), &causes))
}

fn metadata(kind: &Kind, object: &Value, causes: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or_default();
    let given = json!(name);
    let free = kind.group == "rbac.authorization.k8s.io" || kind.group == "apiregistration.k8s.io";
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if free {
        if name.contains(['/', '%']) || [".", ".."].contains(&name) {
            causes.push(Cause::invalid("metadata.name", &given, "may not contain '/' or '%'"));
        }
    } else if matches!(kind.kind.as_str(), "Namespace" | "Service") {
        if !is_label(name) || name.len() > 63 {
            causes.push(Cause::invalid("metadata.name", &given, LABEL));
        }
    } else if !is_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", &given, SUBDOMAIN));
    }
    for (key, value) in metadata["labels"].as_object().into_iter().flatten() {
        if !is_label_key(key) {
            causes.push(Cause::invalid("metadata.labels", &json!(key), KEY));
        }
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid("metadata.labels", value, VALUE));
        }
    }
    for (key, _) in metadata["annotations"].as_object().into_iter().flatten() {
        if !is_label_key(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(key), KEY));
        }
    }
}

fn pod(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = spec["containers"].as_array().cloned().unwrap_or_default();
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let volumes: Vec<&Value> = spec["volumes"].as_array().into_iter().flatten().map(|volume| &volume["name"]).collect();
    let mut names: Vec<&str> = Vec::new();
    for (number, container) in containers.iter().enumerate() {
        let at = format!("{path}.containers[{number}]");
        let name = container["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        } else if !is_label(name) || name.len() > 63 || name.contains('.') {
            causes.push(Cause::invalid(format!("{at}.name"), &json!(name), LABEL));
        } else if names.contains(&name) {
            causes.push(Cause {
                reason: "FieldValueDuplicate",
                message: format!("Duplicate value: \"{name}\""),
                field: format!("{at}.name"),
            });
        }
        names.push(name);
        if container["image"].as_str().unwrap_or_default().trim().is_empty() {
            causes.push(Cause::required(format!("{at}.image"), ""));
        }
        for (mount, one) in container["volumeMounts"].as_array().into_iter().flatten().enumerate() {
            if !volumes.contains(&&one["name"]) {
                let field = format!("{at}.volumeMounts[{mount}].name");
                causes.push(Cause {
                    reason: "FieldValueNotFound",
                    message: format!("Not found: {}", one["name"]),
                    field,
                });
            }
        }
        for (port, one) in container["ports"].as_array().into_iter().flatten().enumerate() {
            if !one["containerPort"].as_u64().is_some_and(|number| (1..=65535).contains(&number)) {
                let field = format!("{at}.ports[{port}].containerPort");
                causes.push(Cause::invalid(field, &one["containerPort"], "must be between 1 and 65535, inclusive"));
            }
        }
    }
    let policy = spec["restartPolicy"].as_str().unwrap_or("Always");
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        let known = ["Always", "OnFailure", "Never"];
        causes.push(Cause::unsupported(format!("{path}.restartPolicy"), &json!(policy), &known));
    }
}

/// Of a pod that exists only little may change.
fn pod_update(object: &Value, old: &Value, causes: &mut Vec<Cause>) {
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        for list in ["containers", "initContainers"] {
            for one in spec[list].as_array_mut().into_iter().flatten() {
                one["image"] = Value::Null;
            }
        }
        if let Some(map) = spec.as_object_mut() {
            for name in [
                "activeDeadlineSeconds",
                "tolerations",
                "terminationGracePeriodSeconds",
                "initContainers",
                "ephemeralContainers",
            ] {
                map.remove(name);
            }
        }
        spec
    };
    if fixed(object) != fixed(old) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                   `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        causes.push(Cause::forbidden("spec", why));
    }
}

fn template(template: &Value, causes: &mut Vec<Cause>) {
    pod(&template["spec"], "spec.template.spec", causes);
}

fn workload(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let selector = &spec["selector"];
    let empty = ["matchLabels", "matchExpressions"].iter().all(|part| {
        selector[part].as_object().is_none_or(serde_json::Map::is_empty)
            && selector[part].as_array().is_none_or(Vec::is_empty)
    });
    if selector.is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if empty {
        causes.push(Cause::invalid("spec.selector", selector, "empty selector is invalid for deployment"));
    }
    let labels = &spec["template"]["metadata"]["labels"];
    if !selector.is_null() && !empty && !pods::matches(selector, labels) {
        let shown = if labels.is_null() { json!({}) } else { labels.clone() };
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &shown,
            "`selector` does not match template `labels`",
        ));
    }
    if spec["replicas"].as_i64().is_some_and(|number| number < 0) {
        causes.push(Cause::invalid("spec.replicas", &spec["replicas"], "must be greater than or equal to 0"));
    }
    template(&spec["template"], causes);
    if spec.pointer("/template/spec/restartPolicy").is_some_and(|policy| *policy != "Always") {
        let given = spec["template"]["spec"]["restartPolicy"].clone();
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", &given, &["Always"]));
    }
    if old.is_some_and(|old| old["spec"]["selector"] != *selector) {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
}

fn data(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    for field in ["data", "binaryData"] {
        for (key, _) in object[field].as_object().into_iter().flatten() {
            let fine = !key.is_empty()
                && key.len() <= 253
                && ![".", ".."].contains(&key.as_str())
                && key.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
            if !fine {
                let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
                           'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), why));
            }
        }
    }
    if let Some(old) = old.filter(|old| old["immutable"] == true) {
        for field in ["data", "binaryData", "immutable"] {
            if old[field] != object[field] {
                causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
            }
        }
    }
    if let Some(old) = old.filter(|old| old["kind"] == "Secret" && old["type"] != object["type"]) {
        let _ = old;
        causes.push(Cause::invalid("type", &object["type"], "field is immutable"));
    }
}

fn service(spec: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let headless = spec["clusterIP"] == "None";
    if spec["ports"].as_array().is_none_or(Vec::is_empty) && !headless && spec["type"] != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (number, port) in spec["ports"].as_array().into_iter().flatten().enumerate() {
        if !port["port"].as_u64().is_some_and(|port| (1..=65535).contains(&port)) {
            let field = format!("spec.ports[{number}].port");
            causes.push(Cause::invalid(field, &port["port"], "must be between 1 and 65535, inclusive"));
        }
    }
    if let Some(before) = old.map(|old| &old["spec"])
        && before["clusterIP"].is_string()
        && before["clusterIP"] != spec["clusterIP"]
        && before["type"] != "ExternalName"
    {
        causes.push(Cause::invalid("spec.clusterIPs[0]", &json!([spec["clusterIP"]]), "may not change once set"));
    }
}

fn definition(object: &Value, causes: &mut Vec<Cause>) {
    let spec = &object["spec"];
    let text = |pointer: &str| spec.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for (pointer, field) in
        [("/group", "spec.group"), ("/names/plural", "spec.names.plural"), ("/names/kind", "spec.names.kind")]
    {
        if text(pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let expected = format!("{}.{}", text("/names/plural"), text("/group"));
    if pods::text(object, "/metadata/name") != expected {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object["metadata"]["name"], why));
    }
    if !["Namespaced", "Cluster"].contains(&text("/scope")) {
        causes.push(Cause::unsupported("spec.scope", &spec["scope"], &["Cluster", "Namespaced"]));
    }
    let versions = spec["versions"].as_array().cloned().unwrap_or_default();
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &json!("versions"),
            "must have exactly one version marked as storage version",
        ));
    }
    for (number, version) in versions.iter().enumerate() {
        if !version.is_object() || version["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.versions[{number}].name"), ""));
        }
        if !version.pointer("/schema/openAPIV3Schema").is_some_and(Value::is_object) {
            causes.push(Cause::required(
                format!("spec.versions[{number}].schema.openAPIV3Schema"),
                "schemas are required",
            ));
        }
    }
}
