//! All kinds in one `OpenAPI` 2 document, as JSON and as the protobuf that client-go asks for (kube-openapi,
//! `ToProtoBinary`; gnostic-models, openapiv2/OpenAPIv2.proto): helm looks at what it sends with it.
//!
//! Must not know: who asks. Start at [`document`].

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::openapi;

/// What protobuf's content type is called.
pub(super) const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// How clients still ask for it, with a sign that no content type may have.
const ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Whether protobuf is asked for.
pub(super) fn wants_protobuf(accept: &str) -> bool {
    [PROTOBUF, ASKED].iter().any(|name| accept.contains(name))
}

/// The document.
pub(super) fn document(kinds: &[Arc<Kind>]) -> Value {
    let mut definitions = Map::new();
    let mut known = std::collections::BTreeSet::new();
    for kind in kinds {
        let version = kind.api_version();
        if known.insert(version.clone()) {
            let of_version = kinds.iter().filter(|one| one.api_version() == version);
            let document = openapi::document(of_version);
            let schemas = document.pointer("/components/schemas").and_then(Value::as_object).cloned();
            for (name, schema) in schemas.into_iter().flatten() {
                let schema = older(&schema);
                // A type that several groups use may be a kind of one of them.
                let is_kind = schema.get("x-kubernetes-group-version-kind").is_some();
                if is_kind || !definitions.contains_key(&name) {
                    definitions.insert(name, schema);
                }
            }
        }
    }
    json!({ "swagger": "2.0", "info": { "title": "Kubernetes", "version": "unversioned" },
        "paths": older_paths(openapi::paths(kinds.iter())), "definitions": definitions })
}

/// A schema of `OpenAPI` 3 in the words of 2: references stand alone, and a choice is text.
fn older(schema: &Value) -> Value {
    let Some(map) = schema.as_object() else { return schema.clone() };
    if let Some(of) = map.get("allOf").and_then(|all| all.get(0)?.get("$ref")?.as_str()) {
        return json!({ "$ref": of.replace("/components/schemas/", "/definitions/") });
    }
    let mut found = Map::new();
    for (key, value) in map {
        match (key.as_str(), value) {
            ("$ref", Value::String(of)) => {
                found.insert(key.clone(), json!(of.replace("/components/schemas/", "/definitions/")));
            }
            ("oneOf" | "anyOf", _) => {
                if map.get("x-kubernetes-int-or-string").is_none() {
                    found.entry("type").or_insert_with(|| json!("string"));
                }
            }
            ("allOf" | "not" | "nullable" | "default", _) => {}
            ("properties", Value::Object(fields)) => {
                let fields: Map<_, _> = fields.iter().map(|(name, one)| (name.clone(), older(one))).collect();
                found.insert(key.clone(), Value::Object(fields));
            }
            ("items" | "additionalProperties", _) => {
                found.insert(key.clone(), older(value));
            }
            _ => {
                found.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(found)
}

/// Parameters say their type themselves.
fn older_paths(mut paths: Map<String, Value>) -> Map<String, Value> {
    let deeds = paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut);
    for parameter in deeds.filter_map(|deed| deed.get_mut("parameters")?.as_array_mut()).flatten() {
        if let Some(map) = parameter.as_object_mut() {
            map.remove("schema");
            map.insert("type".to_owned(), json!("string"));
        }
    }
    paths
}

/// A message that is being written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number > 0x7f {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn text(self, field: u64, value: Option<&Value>) -> Self {
        match value.and_then(Value::as_str) {
            Some(text) => self.bytes(field, text.as_bytes()),
            None => self,
        }
    }

    fn texts(self, field: u64, value: Option<&Value>) -> Self {
        let each = value.and_then(Value::as_array).into_iter().flatten();
        each.fold(self, |message, one| message.text(field, Some(one)))
    }

    fn message(self, field: u64, of: &Self) -> Self {
        self.bytes(field, &of.0)
    }

    /// An entry of a map that protobuf has as a list.
    fn named(self, field: u64, name: &str, of: &Self) -> Self {
        self.message(field, &Self::default().bytes(1, name.as_bytes()).message(2, of))
    }

    /// Everything that begins with `x-`.
    fn extensions(self, field: u64, of: &Value) -> Self {
        let all = of.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-"));
        all.fold(self, |message, (name, value)| message.named(field, name, &any(value)))
    }
}

/// Anything: as YAML, of which JSON is a part.
fn any(value: &Value) -> Message {
    Message::default().bytes(2, format!("{value}\n").as_bytes())
}

fn schema(of: &Value) -> Message {
    let mut message = Message::default()
        .text(1, of.get("$ref"))
        .text(2, of.get("format"))
        .text(4, of.get("description"))
        .text(13, of.get("pattern"))
        .texts(19, of.get("required"));
    for one in of.get("enum").and_then(Value::as_array).into_iter().flatten() {
        message = message.message(20, &any(one));
    }
    if let Some(more) = of.get("additionalProperties") {
        let more = match more {
            Value::Bool(true) => Message::default().flag(2),
            Value::Object(_) => Message::default().message(1, &schema(more)),
            _ => Message::default(),
        };
        message = message.message(21, &more);
    }
    if of.get("type").is_some() {
        message = message.message(22, &Message::default().text(1, of.get("type")));
    }
    if let Some(items) = of.get("items") {
        message = message.message(23, &Message::default().message(1, &schema(items)));
    }
    if let Some(fields) = of.get("properties").and_then(Value::as_object) {
        message = message.message(25, &named_schemas(fields));
    }
    message.extensions(31, of)
}

impl Message {
    fn flag(mut self, field: u64) -> Self {
        self.varint(field << 3);
        self.varint(1);
        self
    }
}

fn named_schemas(map: &Map<String, Value>) -> Message {
    map.iter().fold(Message::default(), |message, (name, one)| message.named(1, name, &schema(one)))
}

fn operation(of: &Value) -> Message {
    let mut message = Message::default();
    for one in of.get("parameters").and_then(Value::as_array).into_iter().flatten() {
        let query = Message::default().text(2, one.get("in")).text(4, one.get("name")).text(6, one.get("type"));
        let parameter = Message::default().message(2, &Message::default().message(3, &query));
        message = message.message(8, &Message::default().message(1, &parameter));
    }
    let mut responses = Message::default();
    for (code, one) in of.get("responses").and_then(Value::as_object).into_iter().flatten() {
        let response = Message::default().text(1, one.get("description"));
        responses = responses.named(1, code, &Message::default().message(1, &response));
    }
    message.message(9, &responses).extensions(13, of)
}

/// The same document as protobuf.
pub(super) fn protobuf(document: &Value) -> Vec<u8> {
    let info = &document["info"];
    let mut paths = Message::default();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        let mut message = Message::default();
        for (field, verb) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
            if let Some(found) = item.get(verb) {
                message = message.message(field, &operation(found));
            }
        }
        paths = paths.named(2, path, &message);
    }
    let none = Map::new();
    let message = Message::default()
        .text(1, document.get("swagger"))
        .message(2, &Message::default().text(1, info.get("title")).text(2, info.get("version")))
        .message(8, &paths)
        .message(9, &named_schemas(document["definitions"].as_object().unwrap_or(&none)));
    message.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::kinds;

    #[test]
    fn all_references_lead_somewhere_and_kinds_are_told() {
        let document = document(kinds::builtin());
        let text = document.to_string();
        let definitions = document["definitions"].as_object().unwrap();
        for part in text.split("\"#/definitions/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(definitions.contains_key(name), "{name}");
        }
        assert!(!text.contains("oneOf") && !text.contains("allOf") && !text.contains("/components/"));
        let deployment = &definitions["io.k8s.api.apps.v1.Deployment"];
        assert_eq!(deployment["x-kubernetes-group-version-kind"][0]["kind"], "Deployment");
    }

    #[test]
    fn protobuf_has_the_numbers_of_the_original() {
        let document = json!({ "swagger": "2.0", "info": { "title": "T", "version": "v" }, "paths": {},
            "definitions": { "a": { "type": "object", "required": ["b"], "x-c": 1,
                "properties": { "b": { "$ref": "#" } } } } });
        let schema = [
            &[0x9a, 0x01, 1][..],
            b"b",
            &[0xb2, 0x01, 8, 10, 6],
            b"object",
            &[0xca, 0x01, 10, 10, 8, 10, 1],
            b"b",
            &[18, 3, 10, 1],
            b"#",
            &[0xfa, 0x01, 11, 10, 3],
            b"x-c",
            &[18, 4, 18, 2],
            b"1\n",
        ];
        let schema = schema.concat();
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let named = [&[10, 1][..], b"a", &[18, length(&schema)], &schema].concat();
        let all = [
            &[10, 3][..],
            b"2.0",
            &[18, 6, 10, 1],
            b"T",
            &[18, 1],
            b"v",
            &[66, 0, 74, length(&named) + 2, 10, length(&named)],
            &named,
        ];
        assert_eq!(protobuf(&document), all.concat());
    }
}
