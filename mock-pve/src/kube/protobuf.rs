//! Bodies in Kubernetes' protobuf, which typed clients prefer (client-go since 0.33: `kubectl create`, `auth can-i`).
//!
//! `protobuf.fields` says which number is which field of which message, one message a line, as facts out of kubernetes/api's
//! `generated.proto`: `s`tring, `i`nteger, `b`oolean, bytes as `x`, another message by its name; `*` in front is a list, `%` a
//! map from strings, `<` a message whose fields are its parent's.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine as _;
use serde_json::{Map, Value, json};

const ENVELOPE: &[u8] = b"k8s\0";
/// Messages don't lie deeper in each other than that.
const DEEPEST: u32 = 40;

/// Numbers that mean nothing when they are 0: the clients write them always.
const NO_ZERO: [&str; 10] = [
    "hostPort",
    "nodePort",
    "healthCheckNodePort",
    "timeoutSeconds",
    "periodSeconds",
    "successThreshold",
    "failureThreshold",
    "initialDelaySeconds",
    "generation",
    "minReadySeconds",
];
/// The same for what is false.
const NO_FALSE: [&str; 11] = [
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "stdinOnce",
    "tty",
    "readOnly",
    "unschedulable",
    "paused",
    "publishNotReadyAddresses",
    "denied",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Many {
    One,
    List,
    Map,
    Inline,
}

struct Field {
    name: &'static str,
    many: Many,
    of: &'static str,
}

type Message = HashMap<u64, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let field = |text: &'static str| {
        let mut words = text.split(' ');
        let (number, name, of) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let (many, of) = match of.as_bytes().first()? {
            b'*' => (Many::List, &of[1..]),
            b'%' => (Many::Map, &of[1..]),
            b'<' => (Many::Inline, &of[1..]),
            _ => (Many::One, of),
        };
        Some((number, Field { name, many, of }))
    };
    let line = |line: &'static str| {
        let (name, fields) = line.split_once(": ")?;
        Some((name, fields.split(", ").filter_map(field).collect()))
    };
    include_str!("protobuf.fields").lines().filter_map(line).collect()
});

/// A value on the wire.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order; it ends with `None` where it is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn all(mut self) -> Option<Vec<(u64, Wire<'a>)>> {
        let mut found = Vec::new();
        while !self.0.is_empty() {
            let tag = self.varint()?;
            let wire = match tag & 7 {
                0 => Wire::Number(self.varint()?),
                1 => Wire::Number(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
                2 => {
                    let count = usize::try_from(self.varint()?).ok()?;
                    Wire::Bytes(self.take(count)?)
                }
                5 => Wire::Number(u32::from_le_bytes(self.take(4)?.try_into().ok()?).into()),
                _ => return None,
            };
            found.push((tag >> 3, wire));
        }
        Some(found)
    }
}

/// The object in a body; `None` where it isn't protobuf, or no message that is known here.
pub(super) fn decode(body: &[u8]) -> Option<Value> {
    let mut kind = (String::new(), String::new());
    let mut raw: &[u8] = &[];
    for (number, wire) in Fields(body.strip_prefix(ENVELOPE)?).all()? {
        match (number, wire) {
            (1, Wire::Bytes(bytes)) => {
                for (number, wire) in Fields(bytes).all()? {
                    match (number, wire) {
                        (1, Wire::Bytes(text)) => kind.0 = String::from_utf8(text.to_vec()).ok()?,
                        (2, Wire::Bytes(text)) => kind.1 = String::from_utf8(text.to_vec()).ok()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let (group, version) = kind.0.rsplit_once('/').unwrap_or(("core", &kind.0));
    let package = format!("{}/{version}", group.split('.').next().unwrap_or_default());
    let mut value = message(&kind.1, &package, raw, 0)?;
    value["apiVersion"] = json!(kind.0);
    value["kind"] = json!(kind.1);
    Some(value)
}

fn message(name: &str, package: &str, bytes: &[u8], depth: u32) -> Option<Value> {
    if depth > DEEPEST {
        return None;
    }
    let fields = Fields(bytes).all()?;
    let text = |wanted: u64| {
        let found = fields.iter().rev().find_map(|(number, wire)| match wire {
            Wire::Bytes(text) if *number == wanted => std::str::from_utf8(text).ok(),
            _ => None,
        });
        found.unwrap_or_default()
    };
    let number = |wanted: u64| {
        let found = fields.iter().rev().find_map(|(number, wire)| match wire {
            Wire::Number(value) if *number == wanted => Some(*value),
            _ => None,
        });
        found.unwrap_or_default().cast_signed()
    };
    match name {
        "Time" | "MicroTime" if fields.is_empty() => return Some(Value::Null),
        "Time" | "MicroTime" => {
            let time = jiff::Timestamp::new(number(1), i32::try_from(number(2)).ok()?).ok()?;
            let format = if name == "Time" { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S.%6fZ" };
            return Some(json!(time.strftime(format).to_string()));
        }
        "Quantity" => return Some(json!(text(1))),
        "IntOrString" => return Some(if number(1) == 0 { json!(number(2)) } else { json!(text(3)) }),
        "RawExtension" | "FieldsV1" => return serde_json::from_str(text(1)).ok(),
        _ => {}
    }
    let full = format!("{package}.{name}");
    let (known, package) = if let Some(known) = MESSAGES.get(full.as_str()) {
        (known, package)
    } else {
        // A message of all packages, or of another one.
        (MESSAGES.get(name)?, name.rsplit_once('.').map_or(package, |(package, _)| package))
    };
    let mut object = Map::new();
    for (number, wire) in &fields {
        let Some(field) = known.get(number) else { continue };
        let key = field.name;
        match field.many {
            Many::One => {
                let value = one(field.of, package, wire, depth)?;
                if !means_nothing(key, &value) {
                    object.insert(key.to_owned(), value);
                }
            }
            Many::List => {
                let value = one(field.of, package, wire, depth)?;
                let list = object.entry(key).or_insert_with(|| json!([]));
                list.as_array_mut()?.push(value);
            }
            Many::Map => {
                let Wire::Bytes(entry) = wire else { return None };
                let (mut name, mut value) = (String::new(), None);
                for (number, wire) in Fields(entry).all()? {
                    match (number, &wire) {
                        (1, Wire::Bytes(text)) => name = String::from_utf8(text.to_vec()).ok()?,
                        (2, wire) => value = Some(one(field.of, package, wire, depth)?),
                        _ => {}
                    }
                }
                object.entry(key).or_insert_with(|| json!({}))[name] = value.unwrap_or_else(|| json!(""));
            }
            Many::Inline => {
                if let Value::Object(inner) = one(field.of, package, wire, depth)? {
                    object.extend(inner);
                }
            }
        }
    }
    // A list by another name.
    if name.ends_with("ExtraValue") {
        return Some(object.remove("items").unwrap_or_else(|| json!([])));
    }
    Some(Value::Object(object))
}

fn one(of: &str, package: &str, wire: &Wire<'_>, depth: u32) -> Option<Value> {
    match (of, wire) {
        ("s", Wire::Bytes(text)) => Some(json!(std::str::from_utf8(text).ok()?)),
        ("x", Wire::Bytes(bytes)) => Some(json!(base64::engine::general_purpose::STANDARD.encode(bytes))),
        ("i", Wire::Number(number)) => Some(json!(number.cast_signed())),
        ("d", Wire::Number(number)) => Some(json!(f64::from_bits(*number))),
        ("b", Wire::Number(number)) => Some(json!(*number != 0)),
        (of, Wire::Bytes(bytes)) => message(of, package, bytes, depth + 1),
        _ => None,
    }
}

/// What the clients write for a field that isn't set.
fn means_nothing(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && key != "storageClassName",
        Value::Number(number) => number.as_i64() == Some(0) && NO_ZERO.contains(&key),
        Value::Bool(flag) => !flag && NO_FALSE.contains(&key),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut number: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
            number >>= 7;
        }
        bytes.push(u8::try_from(number).unwrap());
        bytes
    }

    fn bytes(number: u64, content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [varint(number << 3 | 2), varint(content.len() as u64), content.to_vec()].concat()
    }

    fn count(number: u64, value: u64) -> Vec<u8> {
        [varint(number << 3), varint(value)].concat()
    }

    fn body(version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let kind = [bytes(1, version), bytes(2, kind)].concat();
        [b"k8s\0".to_vec(), bytes(1, kind), bytes(2, raw), bytes(3, ""), bytes(4, "")].concat()
    }

    fn job() -> Vec<u8> {
        let volume = [bytes(1, "scratch"), bytes(2, bytes(2, ""))].concat();
        let limit = [bytes(1, "memory"), bytes(2, bytes(1, "64Mi"))].concat();
        let port = [bytes(1, ""), count(2, 0), count(3, 8080), bytes(4, "TCP")].concat();
        let container = [
            bytes(1, "main"),
            bytes(2, "registry.example/job:1"),
            bytes(3, "run"),
            bytes(6, port),
            bytes(8, bytes(1, limit)),
        ]
        .concat();
        let pod = [bytes(1, volume), bytes(2, container), bytes(3, "Never"), count(11, 0)].concat();
        let template = [bytes(1, bytes(8, "")), bytes(2, pod)].concat();
        let metadata = [bytes(1, "once"), bytes(3, ""), bytes(8, "")].concat();
        let spec = [bytes(6, template), count(7, 0)].concat();
        body("batch/v1", "Job", &[bytes(1, metadata), bytes(2, spec), bytes(3, "")].concat())
    }

    #[test]
    fn an_object_has_the_fields_that_were_set() {
        let wanted = json!({ "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": "once" }, "status": {},
            "spec": { "backoffLimit": 0, "template": { "metadata": {}, "spec": {
                "volumes": [{ "name": "scratch", "emptyDir": {} }], "restartPolicy": "Never",
                "containers": [{ "name": "main", "image": "registry.example/job:1", "command": ["run"],
                    "ports": [{ "containerPort": 8080, "protocol": "TCP" }],
                    "resources": { "limits": { "memory": "64Mi" } } }] } } } });
        assert_eq!(decode(&job()).unwrap(), wanted);
        let asked = [bytes(2, "delete"), bytes(4, ""), bytes(5, "nodes")].concat();
        let review = body("authorization.k8s.io/v1", "SelfSubjectAccessReview", &bytes(2, bytes(1, asked)));
        let wanted = json!({ "verb": "delete", "resource": "nodes" });
        // 4 is the group's version.
        assert_eq!(decode(&review).unwrap()["spec"]["resourceAttributes"], wanted);
        let options = [count(1, 0), bytes(4, "Background")].concat();
        let wanted = json!({ "apiVersion": "policy/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Background" });
        assert_eq!(decode(&body("policy/v1", "DeleteOptions", &options)).unwrap(), wanted);
    }

    #[test]
    fn nonsense_is_no_object() {
        let whole = job();
        for cut in 0..whole.len() {
            let _ = decode(&whole[..cut]);
            let mut bent = whole.clone();
            bent[cut] ^= 0x55;
            let _ = decode(&bent);
        }
        assert_eq!(decode(b"k8s\0"), None);
        assert_eq!(decode(&body("v1", "Toaster", &[])), None);
        let deep = (0..5000).fold(Vec::new(), |inner, _| bytes(1, inner));
        assert_eq!(decode(&body("v1", "Pod", &deep)), None);
    }
}
