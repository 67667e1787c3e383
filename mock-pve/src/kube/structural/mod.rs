//! Custom objects by their definitions' schemas: what those don't know is dropped, what they prescribe is filled in, and
//! what contradicts them is refused (Kubernetes, apiextensions-apiserver, pkg/apiserver/schema and pkg/apiserver/validation).
//!
//! Rules in CEL (`x-kubernetes-validations`) and formats other than `date-time` aren't looked at.

mod check;

use serde_json::{Map, Value};

use super::kinds::Kind;

pub(super) use check::check;

/// The schema of a custom kind's version.
pub(super) fn schema(kind: &Kind) -> Option<&Value> {
    kind.custom.as_ref()?.pointer("/schema/openAPIV3Schema")
}

/// What every object has, whatever its schema says.
const OWN: [&str; 3] = ["apiVersion", "kind", "metadata"];

fn is(schema: &Value, name: &str) -> bool {
    schema.get(name) == Some(&Value::Bool(true))
}

/// The schema of a field: its own, or the one of all others.
fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let own = schema.get("properties").and_then(|all| all.get(name));
    own.or_else(|| schema.get("additionalProperties").filter(|others| others.is_object()))
}

/// Drops the fields that a schema doesn't know, and names them.
pub(super) fn prune(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut dropped = Vec::new();
    drop_unknown(object, schema, "", Level::Object, &mut dropped);
    dropped
}

/// Whether a value is an object of Kubernetes, with what all of those have, or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Object,
    Part,
}

fn drop_unknown(value: &mut Value, schema: &Value, path: &str, level: Level, dropped: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keeps = is(schema, "x-kubernetes-preserve-unknown-fields")
                || schema.get("additionalProperties").is_some_and(|others| *others != Value::Bool(false));
            let whole = level == Level::Object || is(schema, "x-kubernetes-embedded-resource");
            map.retain(|name, value| {
                let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                if whole && OWN.contains(&name.as_str()) {
                    return true;
                }
                match field(schema, name) {
                    Some(schema) => drop_unknown(value, schema, &below, Level::Part, dropped),
                    None if keeps => {}
                    None => {
                        dropped.push(below);
                        return false;
                    }
                }
                true
            });
        }
        Value::Array(list) => {
            let Some(items) = schema.get("items") else { return };
            for (number, value) in list.iter_mut().enumerate() {
                drop_unknown(value, items, &format!("{path}[{number}]"), Level::Part, dropped);
            }
        }
        _ => {}
    }
}

/// Fills in what is missing and has a default; a null where none may be counts as missing.
pub(super) fn fill(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            let own = schema.get("properties").and_then(Value::as_object);
            for (name, schema) in own.into_iter().flatten() {
                let void = map.get(name).is_none_or(|value| value.is_null() && !is(schema, "nullable"));
                match schema.get("default") {
                    Some(default) if void => {
                        map.insert(name.clone(), default.clone());
                    }
                    None if void => {
                        map.remove(name);
                    }
                    _ => {}
                }
            }
            below(map, schema);
        }
        Value::Array(list) => {
            let Some(items) = schema.get("items") else { return };
            for value in list {
                fill(value, items);
            }
        }
        _ => {}
    }
}

fn below(map: &mut Map<String, Value>, schema: &Value) {
    for (name, value) in map.iter_mut() {
        if let Some(schema) = field(schema, name) {
            fill(value, schema);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_schema_does_not_know_goes_and_what_it_prescribes_comes() {
        let schema = json!({ "type": "object", "properties": {
            "spec": { "type": "object", "properties": {
                "masts": { "type": "integer", "default": 1 },
                "rig": { "type": "object", "default": {}, "properties": { "sails": { "type": "string", "default": "white" } } },
                "crew": { "type": "array", "items": { "type": "object", "properties": { "name": { "type": "string" } } } },
                "cargo": { "type": "object", "additionalProperties": { "type": "object",
                    "properties": { "tons": { "type": "number" } } } },
                "log": { "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": { "page": { "type": "object", "properties": {} } } },
                "note": { "type": "string", "nullable": true } } } } });
        let mut boat = json!({ "apiVersion": "sea/v1", "kind": "Boat", "metadata": { "name": "one" }, "flag": "red",
            "spec": { "masts": null, "crew": [{ "name": "Jim", "age": 12 }], "cargo": { "rum": { "tons": 2, "price": 3 } },
                "log": { "day": 1, "page": { "torn": true } }, "note": null } });
        let mut dropped = prune(&mut boat, &schema);
        dropped.sort();
        assert_eq!(dropped, ["flag", "spec.cargo.rum.price", "spec.crew[0].age", "spec.log.page.torn"]);
        fill(&mut boat, &schema);
        assert_eq!(
            boat,
            json!({ "apiVersion": "sea/v1", "kind": "Boat", "metadata": { "name": "one" },
            "spec": { "masts": 1, "rig": { "sails": "white" }, "crew": [{ "name": "Jim" }],
                "cargo": { "rum": { "tons": 2 } }, "log": { "day": 1, "page": {} }, "note": null } })
        );
    }
}
