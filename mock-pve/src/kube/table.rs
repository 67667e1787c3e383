//! Objects as lines to print: what `kubectl get` asks the server for.

use serde_json::{Value, json};

use super::kinds::Kind;
use crate::world::cluster::objects;

/// A column: its name, and what stands there; those after the first wide one are only for `-o wide`.
type Column = (&'static str, fn(&Value) -> String);

fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => "<none>".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn number(object: &Value, pointer: &str) -> String {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0).to_string()
}

fn age(object: &Value) -> String {
    let since = text(object, "/metadata/creationTimestamp").parse::<jiff::Timestamp>();
    let Ok(since) = since else { return "<unknown>".to_owned() };
    let seconds = jiff::Timestamp::now().duration_since(since).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn node_status(node: &Value) -> String {
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready");
    let word = if objects::is_ready(node) { "Ready" } else { "NotReady" };
    let word = if ready.is_none() { "Unknown" } else { word };
    let cordoned = node.pointer("/spec/unschedulable") == Some(&json!(true));
    if cordoned { format!("{word},SchedulingDisabled") } else { word.to_owned() }
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn pod_ready(pod: &Value) -> String {
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    format!("{}/{all}", if objects::is_ready(pod) { ready.filter(|one| one["ready"] == true).count() } else { 0 })
}

fn replicas(object: &Value) -> String {
    format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas"))
}

fn columns(kind: &Kind) -> (Vec<Column>, Vec<Column>) {
    match kind.plural {
        "nodes" => (
            vec![
                ("Status", node_status),
                ("Roles", roles),
                ("Age", age),
                ("Version", |node| text(node, "/status/nodeInfo/kubeletVersion")),
            ],
            vec![
                ("Internal-IP", |node| text(node, "/status/addresses/0/address")),
                ("External-IP", |_| "<none>".to_owned()),
                ("OS-Image", |node| text(node, "/status/nodeInfo/osImage")),
                ("Kernel-Version", |node| text(node, "/status/nodeInfo/kernelVersion")),
                ("Container-Runtime", |node| text(node, "/status/nodeInfo/containerRuntimeVersion")),
            ],
        ),
        "pods" => (
            vec![
                ("Ready", pod_ready),
                ("Status", |pod| text(pod, "/status/phase")),
                ("Restarts", |pod| number(pod, "/status/containerStatuses/0/restartCount")),
                ("Age", age),
            ],
            vec![("IP", |pod| text(pod, "/status/podIP")), ("Node", |pod| text(pod, "/spec/nodeName"))],
        ),
        "deployments" => (
            vec![
                ("Ready", replicas),
                ("Up-to-date", |object| number(object, "/status/updatedReplicas")),
                ("Available", |object| number(object, "/status/availableReplicas")),
                ("Age", age),
            ],
            Vec::new(),
        ),
        "statefulsets" => (vec![("Ready", replicas), ("Age", age)], Vec::new()),
        "daemonsets" => (
            vec![
                ("Desired", |object| number(object, "/status/desiredNumberScheduled")),
                ("Current", |object| number(object, "/status/currentNumberScheduled")),
                ("Ready", |object| number(object, "/status/numberReady")),
                ("Up-to-date", |object| number(object, "/status/updatedNumberScheduled")),
                ("Available", |object| number(object, "/status/numberAvailable")),
                ("Age", age),
            ],
            Vec::new(),
        ),
        "namespaces" => (vec![("Status", |object| text(object, "/status/phase")), ("Age", age)], Vec::new()),
        "configmaps" | "secrets" => (
            vec![
                ("Data", |object| object["data"].as_object().map_or(0, serde_json::Map::len).to_string()),
                ("Age", age),
            ],
            Vec::new(),
        ),
        _ => (vec![("Age", age)], Vec::new()),
    }
}

fn table(objects: &[Value], kind: &Kind, version: &Value) -> Value {
    let (narrow, wide) = columns(kind);
    let column = |name: &str, priority: u32| {
        json!({ "name": name, "type": "string", "format": if name == "Name" { "name" } else { "" }, "description": "",
            "priority": priority })
    };
    let mut definitions = vec![column("Name", 0)];
    definitions.extend(narrow.iter().map(|(name, _)| column(name, 0)));
    definitions.extend(wide.iter().map(|(name, _)| column(name, 1)));
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells = vec![text(object, "/metadata/name")];
            cells.extend(narrow.iter().chain(&wide).map(|(_, cell)| cell(object)));
            let partial = json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
                "metadata": object["metadata"] });
            json!({ "cells": cells, "object": partial })
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": version },
        "columnDefinitions": definitions, "rows": rows })
}

pub(super) fn of_list(list: &Value, kind: &Kind) -> Value {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    table(&items, kind, &list["metadata"]["resourceVersion"])
}

pub(super) fn of_one(object: &Value, kind: &Kind) -> Value {
    table(std::slice::from_ref(object), kind, &object["metadata"]["resourceVersion"])
}
