//! The shapes of kinds as `OpenAPI` 3 describes them: what `kubectl explain` shows, and by what clients merge lists
//! (apimachinery and kube-openapi, the `x-kubernetes-…` extensions).
//!
//! Must not know: who asks. Start at [`document`].

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::schema::{Shape, Type};

/// Types that are no objects, as all descriptions know them.
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const NUMBER_OR_TEXT: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const METADATA: &str = "meta.ObjectMeta";

/// Lists whose items keep only the keys that a patch names, and an object like that (`patchStrategy: retainKeys`).
const RETAINED: [(&str, &str); 4] = [
    ("core.PodSpec", "volumes"),
    ("core.PodSpec", "resourceClaims"),
    ("core.PodStatus", "resourceClaimStatuses"),
    ("apps.v1.DeploymentSpec", "strategy"),
];
/// Lists that are told apart by the server alone: patches replace them.
const REPLACED: [(&str, &str); 8] = [
    ("batch.v1.PodFailurePolicyOnExitCodesRequirement", "values"),
    ("batch.v1.UncountedTerminatedPods", "failed"),
    ("batch.v1.UncountedTerminatedPods", "succeeded"),
    ("certificates.v1.CertificateSigningRequestStatus", "conditions"),
    ("core.ContainerRestartRuleOnExitCodes", "values"),
    ("core.ResourceRequirements", "claims"),
    ("discovery.v1.Endpoint", "addresses"),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes"),
];

/// A group's version: its kinds, where they are, and all types that they are made of.
pub(super) fn document<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>> + Clone) -> Value {
    let mut schemas: Map<String, Value> = Map::new();
    let mut types: BTreeMap<&str, &Type> = BTreeMap::new();
    for kind in kinds.clone() {
        let shape = Shape::of(kind);
        if let Some(version) = &kind.custom {
            types.extend(Shape::Named(METADATA, super::schema::Presence::Always).with_all());
            schemas.insert(custom_name(kind), custom(kind, version));
        } else {
            types.extend(shape.with_all());
        }
    }
    for (name, found) in types {
        schemas.insert(public(name), described(name, found));
    }
    for kind in kinds.clone().filter(|kind| kind.custom.is_none()) {
        if let Shape::Named(name, _) = Shape::of(kind)
            && let Some(schema) = schemas.get_mut(&public(name))
        {
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
        }
    }
    schemas.insert(QUANTITY.to_owned(), json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }));
    let either = json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] });
    schemas.insert(NUMBER_OR_TEXT.to_owned(), either);
    schemas.insert(TIME.to_owned(), json!({ "type": "string", "format": "date-time" }));
    json!({ "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "unversioned" }, "paths": paths(kinds),
        "components": { "schemas": schemas } })
}

fn gvk(kind: &Kind) -> Value {
    json!({ "group": kind.group, "version": kind.version, "kind": kind.kind })
}

/// Where the objects of kinds are, and that the server looks at the fields of what it is sent.
pub(super) fn paths<'a>(kinds: impl Iterator<Item = &'a Arc<Kind>>) -> Map<String, Value> {
    let query = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let mut all = Map::new();
    for kind in kinds {
        let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let deed = |action: &str| {
            json!({ "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk(kind),
                "responses": { "200": { "description": "OK" } } })
        };
        let mut patch = deed("patch");
        patch["parameters"] = json!([query("dryRun"), query("fieldValidation")]);
        let root = format!("/{}/{namespace}{}", super::discovery::root(kind), kind.plural);
        if kind.is_stored() {
            all.insert(format!("{root}/{{name}}"), json!({ "get": deed("get"), "patch": patch }));
            all.insert(root, json!({ "get": deed("list"), "post": deed("post") }));
        } else {
            all.insert(root, json!({ "post": deed("post") }));
        }
    }
    all
}

/// The name of a type in descriptions.
fn public(name: &str) -> String {
    match name.split_once('.') {
        Some(("meta", name)) => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"),
        Some(("core", name)) => format!("io.k8s.api.core.v1.{name}"),
        Some(("apiextensions", name)) => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{name}")
        }
        Some(("apiregistration", name)) => format!("io.k8s.kube-aggregator.pkg.apis.apiregistration.{name}"),
        _ => format!("io.k8s.api.{name}"),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A type with its fields.
fn described(name: &str, found: &Type) -> Value {
    let fields: Map<String, Value> =
        found.fields.iter().map(|(field, shape)| ((*field).to_owned(), described_field(name, field, shape))).collect();
    let mut schema = json!({ "type": "object", "properties": fields });
    if !found.required.is_empty() {
        schema["required"] = json!(found.required);
    }
    if found.whole {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    schema
}

fn described_field(of: &str, field: &str, shape: &Shape) -> Value {
    let mut schema = value(field, shape);
    if schema.get("$ref").is_some() {
        schema = json!({ "allOf": [schema] });
    }
    if let Shape::Named(_, super::schema::Presence::Always) = shape {
        schema["default"] = json!({});
    }
    let retained = RETAINED.contains(&(of, field));
    if REPLACED.contains(&(of, field)) {
        return schema;
    }
    match shape {
        Shape::Keyed(keys, _) => {
            schema["x-kubernetes-patch-merge-key"] = json!(keys.first());
            schema["x-kubernetes-patch-strategy"] = json!(if retained { "merge,retainKeys" } else { "merge" });
        }
        Shape::Set(_) => schema["x-kubernetes-patch-strategy"] = json!("merge"),
        _ if retained => schema["x-kubernetes-patch-strategy"] = json!("retainKeys"),
        _ => {}
    }
    schema
}

/// What a field, an item or a map's value holds.
fn value(field: &str, shape: &Shape) -> Value {
    match shape {
        Shape::Text(None) => json!({ "type": "string" }),
        Shape::Text(Some(default)) => json!({ "type": "string", "default": default }),
        Shape::Number => json!({ "type": "integer" }),
        Shape::Truth => json!({ "type": "boolean" }),
        Shape::Quantity => reference(QUANTITY),
        Shape::NumberOrText => reference(NUMBER_OR_TEXT),
        Shape::Any
            if ["Time", "Timestamp", "At", "Added"].iter().any(|end| field.ends_with(end)) || field == "time" =>
        {
            reference(TIME)
        }
        Shape::Any | Shape::Deduced | Shape::Custom => json!({ "type": "object" }),
        Shape::Named(name, _) => reference(&public(name)),
        Shape::List(item) => {
            json!({ "type": "array", "items": item_of(item), "x-kubernetes-list-type": "atomic" })
        }
        Shape::Set(item) => json!({ "type": "array", "items": item_of(item), "x-kubernetes-list-type": "set" }),
        Shape::Keyed(keys, item) => {
            json!({ "type": "array", "items": item_of(item), "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": keys })
        }
        Shape::Map(item) => json!({ "type": "object", "additionalProperties": item_of(item) }),
        Shape::WholeMap(item) => {
            json!({ "type": "object", "additionalProperties": item_of(item), "x-kubernetes-map-type": "atomic" })
        }
    }
}

fn item_of(shape: &Shape) -> Value {
    let schema = value("", shape);
    if schema.get("$ref").is_some() { json!({ "allOf": [schema], "default": {} }) } else { schema }
}

/// The name of a custom kind in descriptions: its group's, read backwards.
fn custom_name(kind: &Kind) -> String {
    let mut parts: Vec<&str> = kind.group.split('.').rev().collect();
    parts.extend([kind.version.as_str(), kind.kind.as_str()]);
    parts.join(".")
}

/// A custom kind as its definition describes it, with what all objects have.
fn custom(kind: &Kind, version: &Value) -> Value {
    let given = version.pointer("/schema/openAPIV3Schema").filter(|one| one.is_object());
    let mut schema = given.cloned().unwrap_or_else(|| json!({ "type": "object" }));
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for name in ["apiVersion", "kind"] {
        schema["properties"][name] = json!({ "type": "string" });
    }
    schema["properties"]["metadata"] = json!({ "allOf": [reference(&public(METADATA))] });
    schema["x-kubernetes-group-version-kind"] = json!([gvk(kind)]);
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::kinds;

    fn of(group: &str) -> Value {
        document(kinds::builtin().iter().filter(|kind| kind.group == group))
    }

    #[test]
    fn every_reference_leads_to_a_schema_and_every_kind_has_one() {
        fn look(value: &Value, schemas: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                        let name = name.rsplit('/').next().unwrap();
                        assert!(schemas.get(name).is_some(), "{name}");
                    }
                    map.values().for_each(|one| look(one, schemas));
                }
                Value::Array(list) => list.iter().for_each(|one| look(one, schemas)),
                _ => {}
            }
        }
        for kind in kinds::builtin().iter().filter(|kind| kind.is_stored()) {
            let document = of(&kind.group);
            let schemas = &document["components"]["schemas"];
            look(schemas, schemas);
            let mine = json!([gvk(kind)]);
            let found = schemas.as_object().unwrap().values();
            assert!(found.into_iter().any(|one| one["x-kubernetes-group-version-kind"] == mine), "{}", kind.kind);
        }
    }

    #[test]
    fn lists_say_how_they_are_merged() {
        let document = of("");
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        assert_eq!(spec["required"], json!(["containers"]));
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["properties"]["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert!(spec["properties"]["tolerations"].get("x-kubernetes-patch-strategy").is_none());
    }
}
