//! Which keys a machine configuration may have, at any depth; `schema/talos-config.txt` lists them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use serde_json::{Map, Value};

const TEXT: &str = include_str!("../../../schema/talos-config.txt");
/// The type of the whole document.
const ROOT: &str = "Config";

/// What lies below a field, and the first minor of Talos that has it.
struct Field {
    of: &'static str,
    since: u32,
}

/// The fields of a type.
type Fields = BTreeMap<&'static str, Field>;

static TYPES: LazyLock<BTreeMap<&'static str, Fields>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let mut words = line.split(' ').filter(|word| !word.is_empty());
            let name = words.next()?;
            Some((name, words.map(field).collect()))
        })
        .collect()
});

fn field(word: &'static str) -> (&'static str, Field) {
    let (name, of) = word.split_once(':').unwrap_or((word, ""));
    let (name, since) = name.split_once('@').unwrap_or((name, "0"));
    (name, Field { of, since: since.parse().unwrap_or_default() })
}

/// The keys of the document that Talos of that minor doesn't know, with what lies below them, as YAML in Go's way.
pub(super) fn unknown(document: &Value, minor: u32) -> Option<String> {
    let found = strangers(document, ROOT, minor)?;
    let mut text = String::new();
    write(&mut text, &found, 0);
    Some(text)
}

/// The part of a value that a type hasn't.
fn strangers(value: &Value, of: &str, minor: u32) -> Option<Value> {
    if let Some(item) = of.strip_prefix('*') {
        let found: Vec<Value> = value.as_array()?.iter().filter_map(|one| strangers(one, item, minor)).collect();
        return (!found.is_empty()).then_some(Value::Array(found));
    }
    let item = of.strip_prefix('%');
    let fields = TYPES.get(of);
    if item.is_none() && fields.is_none() {
        return None;
    }
    let found: Map<String, Value> = value
        .as_object()?
        .iter()
        .filter_map(|(key, value)| {
            let known = || fields?.get(key.as_str()).filter(|field| field.since <= minor).map(|field| field.of);
            let below = item.or_else(known);
            let found = below.map_or_else(|| Some(value.clone()), |below| strangers(value, below, minor))?;
            Some((key.clone(), found))
        })
        .collect();
    (!found.is_empty()).then_some(Value::Object(found))
}

/// Go's YAML: four spaces, lists below their key.
fn write(text: &mut String, value: &Value, depth: usize) {
    let margin = " ".repeat(depth * 4);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let _ = write!(text, "{margin}{key}:");
                below(text, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut inner = String::new();
                write(&mut inner, item, 0);
                let lines = inner.lines().enumerate();
                for (number, line) in lines {
                    let dash = if number == 0 { "- " } else { "  " };
                    let _ = writeln!(text, "{margin}{dash}{line}");
                }
            }
        }
        other => {
            let _ = writeln!(text, "{margin}{}", scalar(other));
        }
    }
}

/// What follows a key.
fn below(text: &mut String, value: &Value, depth: usize) {
    let is_empty = value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty);
    if is_empty || !(value.is_object() || value.is_array()) {
        let _ = writeln!(text, " {}", scalar(value));
    } else {
        text.push('\n');
        write(text, value, depth + 1);
    }
}

fn scalar(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_type_that_is_named_is_there() {
        for (name, fields) in TYPES.iter() {
            for (field, Field { of, .. }) in fields {
                let of = of.trim_start_matches(['*', '%']);
                assert!(of.is_empty() || TYPES.contains_key(of), "{name}.{field}: {of}");
            }
        }
    }

    #[test]
    fn strangers_are_found_at_any_depth() {
        let right = json!({ "version": "v1alpha1", "machine": { "type": "worker", "ca": { "crt": "x", "whatever": 1 },
            "kubelet": { "image": "x", "extraConfig": { "anything": { "goes": 1 } }, "extraArgs": { "v": "4" } },
            "network": { "interfaces": [{ "interface": "eth0", "dhcp": true }] },
            "registries": { "mirrors": { "docker.io": { "endpoints": ["https://a"] } } } } });
        assert_eq!(unknown(&right, 13), None);
        let wrong = json!({ "machine": { "kubelet": { "imag": "x" },
            "network": { "interfaces": [{ "interface": "eth0" }, { "dhcpp": true, "speed": [] }] },
            "registries": { "mirrors": { "docker.io": { "endpoint": { "a": 1 } } } } }, "debugg": true });
        let text = "debugg: true\nmachine:\n    kubelet:\n        imag: x\n    network:\n        interfaces:\n            - \
                    dhcpp: true\n              speed: []\n    registries:\n        mirrors:\n            docker.io:\n                \
                    endpoint:\n                    a: 1\n";
        assert_eq!(unknown(&wrong, 13).unwrap(), text);
    }

    #[test]
    fn a_version_knows_what_it_has() {
        let cached = json!({ "machine": { "features": { "imageCache": { "localEnabled": true }, "rbac": true } } });
        assert_eq!(unknown(&cached, 9), None);
        let text = "machine:\n    features:\n        imageCache:\n            localEnabled: true\n";
        assert_eq!(unknown(&cached, 8).unwrap(), text);
    }
}
