//! The `scale` subresource: what has replicas, as their number.

use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::{Ask, Show};
use super::columns::ago;
use super::list::find;
use super::managed::Operation;
use super::schema::Shape;
use super::write::{Note, expected, replace};
use super::{decode, patch};
use crate::etcd::Client;
use crate::world::cluster::{Entry, pods};

/// `scale`: a deployment, replica or stateful set as the number of its pods.
pub(super) fn scale_of(entry: &Entry) -> Value {
    let object = &entry.value;
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    json!({ "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": { "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"],
            "uid": object["metadata"]["uid"], "creationTimestamp": object["metadata"]["creationTimestamp"],
            "resourceVersion": entry.modified.to_string() },
        "spec": { "replicas": object["spec"]["replicas"].as_u64().unwrap_or(0) },
        "status": { "replicas": pods::count(object, "/status/replicas"), "selector": selector.join(",") } })
}

/// A scale in the form that was asked for.
pub(super) fn shown(entry: &Entry, ask: &Ask) -> Value {
    let scale = scale_of(entry);
    if ask.shape != Show::Table {
        return scale;
    }
    let column = |name: &str, kind: &str| {
        json!({ "name": name, "type": kind, "format": if name == "Name" { "name" } else { "" },
        "description": "", "priority": 0 })
    };
    let cells = json!([
        scale["metadata"]["name"],
        scale["spec"]["replicas"],
        scale["status"]["replicas"],
        ago(scale["metadata"]["creationTimestamp"].as_str().unwrap_or_default())
    ]);
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": { "resourceVersion": entry.modified.to_string() },
        "columnDefinitions": [column("Name", "string"), column("Desired", "integer"), column("Available", "integer"),
            column("Age", "string")],
        "rows": [{ "cells": cells, "object": { "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": scale["metadata"] } }] })
}

/// Writes a scale: by update or by patch.
pub(super) async fn rescale(client: &Client, ask: &Ask, name: &str, given: &[u8]) -> Result<Answer, Refusal> {
    let entry = find(client, ask, name)?;
    let mut scale = scale_of(&entry);
    if ask.verb() == "patch" {
        let format = patch::Format::of(&ask.content_type).ok_or_else(Refusal::no_such_method)?;
        patch::apply(format, &mut scale, &patch::parse(format, given)?, &Shape::Deduced)?;
    } else {
        scale = decode::value(&ask.content_type, given)?;
    }
    if expected(&scale)?.is_some_and(|wanted| wanted != entry.modified) {
        return Err(Refusal::modified(&ask.kind, name));
    }
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let cause = answer::Cause::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(Refusal::invalid_as("Scale.autoscaling", ("autoscaling", "Scale"), name, &[cause]));
    }
    let mut new = entry.value.clone();
    new["spec"]["replicas"] = json!(replicas);
    let plain = Ask { subresource: None, ..ask.clone() };
    let by = ask.manager(Operation::Update);
    let entry = replace(client, &plain, &entry, new, Note::As(by)).await?;
    Ok(answer::ok(&scale_of(&entry)))
}
