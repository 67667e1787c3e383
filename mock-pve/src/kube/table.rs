//! Objects as lines to print: what `kubectl get` asks the server for.

use serde_json::{Value, json};

use super::columns::{Cell, Column, ago, columns, text};
use super::kinds::Kind;

fn cell(column: &Column, object: &Value) -> Value {
    match &column.cell {
        Cell::Made(make) => make(object),
        Cell::Path(path, true) => {
            object.pointer(path).and_then(Value::as_str).map_or(Value::Null, |since| json!(ago(since)))
        }
        Cell::Path(path, false) => object.pointer(path).cloned().unwrap_or_default(),
    }
}

fn table(objects: &[Value], kind: &Kind, metadata: &Value, include: &str) -> Value {
    let columns = columns(kind);
    // Names of events tell nobody anything.
    let first = (kind.plural != "events").then(|| {
        json!({ "name": "Name", "type": "string", "format": "name", "description": "Name must be unique within a \
            namespace.", "priority": 0 })
    });
    let names = first.is_some();
    let mut definitions: Vec<Value> = first.into_iter().collect();
    definitions.extend(columns.iter().map(|column| {
        json!({ "name": column.name, "type": column.kind, "format": "", "description": "", "priority": column.priority })
    }));
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut cells: Vec<Value> =
                names.then(|| json!(text(object, "/metadata/name"))).into_iter().collect();
            cells.extend(columns.iter().map(|column| cell(column, object)));
            let shown = match include {
                "None" => Value::Null,
                "Object" => object.clone(),
                _ => json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] }),
            };
            json!({ "cells": cells, "object": shown })
        })
        .collect();
    json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": definitions, "rows": rows })
}

pub(super) fn of_list(objects: &[Value], kind: &Kind, metadata: &Value, include: &str) -> Value {
    table(objects, kind, metadata, include)
}

pub(super) fn of_one(object: &Value, kind: &Kind, include: &str) -> Value {
    let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
    if object["metadata"].get("uid").is_none() {
        // A bookmark has no line.
        return table(&[], kind, &metadata, include);
    }
    table(std::slice::from_ref(object), kind, &metadata, include)
}
