//! How objects are stored: as JSON, or as Kubernetes does by default, as protobuf in an envelope that begins with `k8s`
//! and a zero (kubernetes/apimachinery, pkg/runtime/serializer/protobuf; api/core/v1/generated.proto).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value, json};

const ENVELOPE: &[u8; 4] = b"k8s\0";

/// runtime.Unknown.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    kind: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
    #[prost(string, tag = "3")]
    encoding: String,
    #[prost(string, tag = "4")]
    content_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    generate_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(int64, tag = "7")]
    generation: i64,
    #[prost(message, optional, tag = "8")]
    created: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "14")]
    finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Namespace {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(message, optional, tag = "2")]
    spec: Option<NamespaceSpec>,
    #[prost(message, optional, tag = "3")]
    status: Option<NamespaceStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceSpec {
    #[prost(string, repeated, tag = "1")]
    finalizers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NamespaceStatus {
    #[prost(string, tag = "1")]
    phase: String,
}

#[derive(Clone, PartialEq, Message)]
struct ConfigMap {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(bool, optional, tag = "4")]
    immutable: Option<bool>,
}

/// What is stored for an object. Kinds that are known here, and objects of theirs that lose nothing by it, become
/// protobuf; the rest is JSON.
pub fn encode(value: &Value) -> Bytes {
    let envelope = protobuf(value).filter(|bytes| decode(bytes).as_ref() == Some(value));
    Bytes::from(envelope.unwrap_or_else(|| value.to_string().into_bytes()))
}

/// The object that is stored so; `None` when it is in a form that isn't known here (another kind's protobuf, encrypted).
pub fn decode(bytes: &[u8]) -> Option<Value> {
    let Some(rest) = bytes.strip_prefix(ENVELOPE) else { return serde_json::from_slice(bytes).ok() };
    let unknown = Unknown::decode(rest).ok()?;
    let kind = unknown.kind?;
    let mut value = match (kind.version.as_str(), kind.kind.as_str()) {
        ("v1", "Namespace") => {
            let found = Namespace::decode(&unknown.raw[..]).ok()?;
            let finalizers = found.spec.unwrap_or_default().finalizers;
            let spec = if finalizers.is_empty() { json!({}) } else { json!({ "finalizers": finalizers }) };
            json!({ "metadata": metadata(found.metadata.unwrap_or_default()), "spec": spec,
                "status": { "phase": found.status.unwrap_or_default().phase } })
        }
        ("v1", "ConfigMap") => {
            let found = ConfigMap::decode(&unknown.raw[..]).ok()?;
            let mut value = json!({ "metadata": metadata(found.metadata.unwrap_or_default()) });
            if !found.data.is_empty() {
                value["data"] = json!(found.data);
            }
            if let Some(immutable) = found.immutable {
                value["immutable"] = json!(immutable);
            }
            value
        }
        _ => return None,
    };
    value["apiVersion"] = json!(kind.version);
    value["kind"] = json!(kind.kind);
    Some(value)
}

fn protobuf(value: &Value) -> Option<Vec<u8>> {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let raw = match (version.as_str(), kind.as_str()) {
        ("v1", "Namespace") => Namespace {
            metadata: Some(object_meta(value.get("metadata")?)?),
            spec: Some(NamespaceSpec { finalizers: strings(value.pointer("/spec/finalizers")) }),
            status: Some(NamespaceStatus { phase: text("/status/phase") }),
        }
        .encode_to_vec(),
        ("v1", "ConfigMap") => ConfigMap {
            metadata: Some(object_meta(value.get("metadata")?)?),
            data: texts(value.get("data")),
            immutable: value.get("immutable").and_then(Value::as_bool),
        }
        .encode_to_vec(),
        _ => return None,
    };
    let kind = Some(TypeMeta { version, kind });
    let unknown = Unknown { kind, raw, encoding: String::new(), content_type: String::new() };
    Some([ENVELOPE, &unknown.encode_to_vec()[..]].concat())
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn texts(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn object_meta(value: &Value) -> Option<ObjectMeta> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let created = match value.get("creationTimestamp").and_then(Value::as_str) {
        Some(created) => Some(Time { seconds: created.parse::<jiff::Timestamp>().ok()?.as_second(), nanos: 0 }),
        None => None,
    };
    Some(ObjectMeta {
        name: text("name"),
        generate_name: text("generateName"),
        namespace: text("namespace"),
        uid: text("uid"),
        generation: value.get("generation").and_then(Value::as_i64).unwrap_or_default(),
        created,
        labels: texts(value.get("labels")),
        annotations: texts(value.get("annotations")),
        finalizers: strings(value.get("finalizers")),
    })
}

fn metadata(meta: ObjectMeta) -> Value {
    let mut value = Map::new();
    let texts =
        [("name", meta.name), ("generateName", meta.generate_name), ("namespace", meta.namespace), ("uid", meta.uid)];
    value.extend(
        texts.into_iter().filter(|(_, text)| !text.is_empty()).map(|(key, text)| (key.to_owned(), json!(text))),
    );
    if meta.generation != 0 {
        value.insert("generation".to_owned(), json!(meta.generation));
    }
    if let Some(created) = meta.created.and_then(|time| jiff::Timestamp::from_second(time.seconds).ok()) {
        value.insert("creationTimestamp".to_owned(), json!(created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    for (key, map) in [("labels", meta.labels), ("annotations", meta.annotations)] {
        if !map.is_empty() {
            value.insert(key.to_owned(), json!(map));
        }
    }
    if !meta.finalizers.is_empty() {
        value.insert("finalizers".to_owned(), json!(meta.finalizers));
    }
    Value::Object(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_protobuf_can_hold_is_stored_in_the_envelope_and_the_rest_loses_nothing() {
        let metadata = json!({ "name": "kube-system", "uid": "7b2c1a52-0000-4000-8000-000000000001",
            "creationTimestamp": "2026-01-02T03:04:05Z", "labels": { "kubernetes.io/metadata.name": "kube-system" } });
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata,
            "spec": { "finalizers": ["kubernetes"] }, "status": { "phase": "Active" } });
        let stored = encode(&namespace);
        assert!(stored.starts_with(b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12"), "{stored:?}");
        assert_eq!(decode(&stored).unwrap(), namespace);
        let mut owned = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" },
            "data": { "key": "value" } });
        assert!(encode(&owned).starts_with(b"k8s\0"));
        owned["metadata"]["ownerReferences"] = json!([{ "name": "b" }]);
        assert!(encode(&owned).starts_with(b"{"));
        assert_eq!(decode(&encode(&owned)).unwrap(), owned);
        assert_eq!(decode(b"k8s:enc:secretbox:v1:key1:nonsense"), None);
    }
}
