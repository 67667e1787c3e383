//! The one Kubernetes object that is looked into: the namespace `kube-system`, whose UID names a cluster.
//!
//! The API server stores protobuf in an envelope (`k8s\0`, then `runtime.Unknown`), or JSON where it was told to; what it
//! encrypts begins with `k8s:enc:`. Namespaces are not encrypted by Talos' defaults.

use prost::Message;

/// Where the API server keeps the namespace, under its default prefix.
pub(super) const KUBE_SYSTEM: &[u8] = b"/registry/namespaces/kube-system";

const ENVELOPE: &[u8] = b"k8s\0";

/// `k8s.io/apimachinery/pkg/runtime`: `Unknown`.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

/// `k8s.io/apimachinery/pkg/runtime`: `TypeMeta`.
#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

/// `k8s.io/api/core/v1`: `Namespace`.
#[derive(Clone, PartialEq, Message)]
struct Namespace {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

/// `k8s.io/apimachinery/pkg/apis/meta/v1`: `ObjectMeta`.
#[derive(Clone, PartialEq, Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "5")]
    uid: String,
}

/// What a stored namespace says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// Its UID.
    Uid(String),
    /// It is encrypted, or in a shape that came after this program.
    Opaque,
    /// It is in a known shape and can't be read.
    Damaged,
}

/// Reads a stored namespace.
pub(super) fn namespace(value: &[u8]) -> Stored {
    let uid = if let Some(envelope) = value.strip_prefix(ENVELOPE) {
        of_envelope(envelope)
    } else if value.first() == Some(&b'{') {
        of_json(value)
    } else {
        return Stored::Opaque;
    };
    uid.filter(|uid| !uid.is_empty()).map_or(Stored::Damaged, Stored::Uid)
}

fn of_envelope(envelope: &[u8]) -> Option<String> {
    let unknown = Unknown::decode(envelope).ok()?;
    unknown.type_meta.filter(|meta| meta.kind == "Namespace")?;
    Some(Namespace::decode(&*unknown.raw).ok()?.metadata?.uid)
}

fn of_json(value: &[u8]) -> Option<String> {
    let object: serde_json::Value = serde_json::from_slice(value).ok()?;
    object.pointer("/metadata/uid")?.as_str().map(str::to_owned)
}

#[cfg(test)]
pub(super) fn stored_namespace(uid: &str) -> Vec<u8> {
    let metadata = ObjectMeta { name: "kube-system".to_owned(), uid: uid.to_owned() };
    let type_meta = TypeMeta { api_version: "v1".to_owned(), kind: "Namespace".to_owned() };
    let raw = Namespace { metadata: Some(metadata) }.encode_to_vec();
    [ENVELOPE, &Unknown { type_meta: Some(type_meta), raw }.encode_to_vec()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0b0f7f5e-7a3d-4a3f-9a55-1d1f4f1f2c11";

    #[test]
    fn both_shapes_and_what_is_neither() {
        let uid = Stored::Uid(UID.to_owned());
        assert_eq!(namespace(&stored_namespace(UID)), uid);
        let json =
            format!(r#"{{"kind":"Namespace","apiVersion":"v1","metadata":{{"name":"kube-system","uid":"{UID}"}}}}"#);
        assert_eq!(namespace(json.as_bytes()), uid);
        assert_eq!(namespace(b"k8s:enc:secretbox:v1:key:\x01\x02"), Stored::Opaque);
        assert_eq!(namespace(b""), Stored::Opaque);
        assert_eq!(namespace(b"{}"), Stored::Damaged);
        assert_eq!(namespace(&stored_namespace(UID)[..40]), Stored::Damaged);
        assert_eq!(namespace(&stored_namespace("")), Stored::Damaged);
    }

    /// The beginning of what a Kubernetes 1.34 API server stored, with the fields of its own order.
    #[test]
    fn a_namespace_with_labels_and_status() {
        let mut raw = Vec::new();
        let metadata = {
            let mut bytes = vec![0x0a, 11];
            bytes.extend(b"kube-system");
            bytes.extend([0x12, 0, 0x1a, 0, 0x22, 0, 0x2a, 36]);
            bytes.extend(UID.as_bytes());
            bytes.extend([0x32, 0, 0x38, 0, 0x42, 8, 0x08, 0xe1, 0x9f, 0x8c, 0xc9, 0x06, 0x10, 0]);
            bytes
        };
        raw.push(0x0a);
        raw.push(u8::try_from(metadata.len()).unwrap());
        raw.extend(&metadata);
        raw.extend([0x12, 12, 0x0a, 10]);
        raw.extend(b"kubernetes");
        raw.extend([0x1a, 8, 0x0a, 6]);
        raw.extend(b"Active");
        let mut value = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12".to_vec();
        value.push(u8::try_from(raw.len()).unwrap());
        value.extend(&raw);
        value.extend([0x1a, 0, 0x22, 0]);
        assert_eq!(namespace(&value), Stored::Uid(UID.to_owned()));
    }
}
