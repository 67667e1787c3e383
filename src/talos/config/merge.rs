//! Strategic merge: a patch looks like the part of a configuration that it changes.
//!
//! Rules of siderolabs/talos pkg/machinery/config/merge/merge.go (v1.13.9): mappings merge, lists append, scalars replace,
//! an absent or empty plain value changes nothing; some lists and objects have rules of their own, which stand in the table
//! of shapes. Both sides were read by their types before.
//!
//! Applying a patch twice is not idempotent: a list patched twice has its entries twice. Must not know: where patches come
//! from.

use super::schema::shapes::{Elements, Entries, Field, Scalar, Type, fields};
use super::yaml::{Map, Marks, Sort, Spot, Value};
use super::{Url, UrlError};

/// A patch that does not fit its target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The two sides are of different kinds.
    #[error("{path} is {ours} and the patch gives {theirs}")]
    Mismatch {
        /// Where.
        path: String,
        /// What is there.
        ours: &'static str,
        /// What the patch has.
        theirs: &'static str,
    },
    /// A value that is there already, of a type whose values the real tool can't change.
    #[error("{path} is there already and no patch changes it; delete it in a patch before this one")]
    Fixed {
        /// Where.
        path: String,
    },
    /// Something to delete is not there.
    #[error("{path} is to be deleted and is not there; correct the path, or leave it out of the patch")]
    NothingToDelete {
        /// Where.
        path: String,
    },
    /// A delete that the real tool does not know: through a list, of a list of scalars, of the whole main document.
    #[error("{path} cannot be deleted by a patch")]
    Undeletable {
        /// Where.
        path: String,
    },
    /// Two URLs that can't be made one.
    #[error("{path} can't be merged with what is there")]
    Url {
        /// Where.
        path: String,
        /// Why.
        source: UrlError,
    },
    /// `$patch` with anything but `delete`.
    #[error("{path}: $patch must be delete")]
    Directive {
        /// Where.
        path: String,
    },
}

impl MergeError {
    /// Where in the patch stands what does not fit, or its nearest parent.
    pub(super) fn spot(&self, marks: &Marks) -> Option<Spot> {
        let path = match self {
            Self::Mismatch { path, .. }
            | Self::Fixed { path }
            | Self::NothingToDelete { path }
            | Self::Undeletable { path }
            | Self::Url { path, .. }
            | Self::Directive { path } => path,
        };
        // A delete's path has its elements as keys of their own.
        marks.spot(&path.replace(".[", "["))
    }
}

/// Merges a patch's document into the configuration's document of this shape.
pub(super) fn apply(target: &mut Map, patch: Map, shape: &'static str) -> Result<(), MergeError> {
    merge_shape(target, patch, shape, "")
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn merge_shape(target: &mut Map, mut patch: Map, shape: &'static str, path: &str) -> Result<(), MergeError> {
    for of in fields(shape) {
        match patch.remove(of.key) {
            Some(value) => merge_field(target, value, of, &join(path, of.key))?,
            None => blank(target, of),
        }
    }
    // What the table does not know was refused before.
    Ok(())
}

/// Some scalars merge together with their absence: a patch of anything beside them takes them away.
/// (siderolabs/talos pkg/machinery/cel/cel.go, `config/types/block/byte_size.go`)
fn blank(target: &mut Map, of: &Field) {
    match &of.of {
        Type::Unit(_) | Type::Scalar(Scalar::Bool) => {
            target.remove(of.key);
        }
        Type::Shape(name) => {
            if let Some(Value::Map(inner)) = target.get_mut(of.key) {
                for field in fields(name) {
                    blank(inner, field);
                }
            }
        }
        _ => {}
    }
}

fn merge_field(target: &mut Map, value: Value, of: &'static Field, path: &str) -> Result<(), MergeError> {
    match target.get_mut(of.key) {
        Some(old) if *old != Value::Null => {
            if of.replace {
                if !says_nothing(&value, &of.of) {
                    *old = value;
                }
                return Ok(());
            }
            node(old, value, &of.of, Absent::Keeps, path)
        }
        _ => {
            target.set(of.key, value);
            Ok(())
        }
    }
}

/// Whether an empty value changes something.
#[derive(Clone, Copy, PartialEq)]
enum Absent {
    /// Empty is absent.
    Keeps,
    /// The value may be absent, so that an empty one is meant.
    IsMeant,
}

fn says_nothing(value: &Value, of: &Type) -> bool {
    matches!(of, Type::Free | Type::Shape(_)) && value.as_map().is_some_and(Map::is_empty)
}

fn node(target: &mut Value, patch: Value, of: &'static Type, absent: Absent, path: &str) -> Result<(), MergeError> {
    match (of, target, patch) {
        (_, target, patch) if *target == Value::Null => {
            *target = patch;
            Ok(())
        }
        (Type::Optional(inner), target, patch) => node(target, patch, inner, Absent::IsMeant, path),
        (Type::Scalar(Scalar::Url), Value::Text(old), Value::Text(new)) => {
            let (Ok(mut url), Ok(other)) = (Url::parse(old), Url::parse(&new)) else {
                *old = new;
                return Ok(());
            };
            url.merge(other).map_err(|source| MergeError::Url { path: path.to_owned(), source })?;
            *old = url.to_string();
            Ok(())
        }
        (Type::Scalar(Scalar::DiskCondition), _, _) => Err(MergeError::Fixed { path: path.to_owned() }),
        // Next to a number of bytes a share is not seen.
        (Type::Scalar(Scalar::Share), target, patch) if is_share(&patch) && !is_share(target) => Ok(()),
        (Type::Scalar(scalar), target, patch) => {
            // Bytes are taken as they are, also none.
            let is_meant = matches!(scalar, Scalar::Bool | Scalar::Base64 | Scalar::Mac);
            if absent == Absent::IsMeant || is_meant || !(is_zero(&patch) || patch == scalar.empty()) {
                *target = patch;
            }
            Ok(())
        }
        (Type::Unit(_) | Type::Argument | Type::Pem(_), target, patch) => {
            *target = patch;
            Ok(())
        }
        (Type::Free, Value::Map(old), Value::Map(new)) => free_map(old, new, path),
        (Type::List(inner, elements), Value::List(old), Value::List(new)) => list(old, new, inner, elements, path),
        (Type::Map(inner, entries), Value::Map(old), Value::Map(new)) => {
            for (key, value) in new {
                match old.get_mut(&key) {
                    Some(place) if *entries == Entries::Merge => {
                        node(place, value, inner, Absent::Keeps, &join(path, &key))?;
                    }
                    _ => old.set(&key, value),
                }
            }
            Ok(())
        }
        (Type::Shape(name), Value::Map(old), Value::Map(new)) => merge_shape(old, new, name, path),
        (_, target, patch) => {
            Err(MergeError::Mismatch { path: path.to_owned(), ours: target.kind(), theirs: patch.kind() })
        }
    }
}

fn is_share(value: &Value) -> bool {
    value.as_text().is_some_and(|text| text.ends_with('%'))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.is_empty(),
        Value::Number(number) => matches!(number.normal(), "0" | "0o0" | "-0"),
        Value::Bool(flag) => !flag.is_on(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
    }
}

fn list(
    target: &mut Vec<Value>,
    patch: Vec<Value>,
    inner: &'static Type,
    elements: &Elements,
    path: &str,
) -> Result<(), MergeError> {
    let inner = if let Type::Optional(inner) = inner { inner } else { inner };
    for new in patch {
        match elements {
            Elements::Append => target.push(new),
            Elements::ReplaceBy(key) => match target.iter_mut().find(|old| old.at(&[key]) == new.at(&[key])) {
                Some(old) => *old = new,
                None => target.push(new),
            },
            Elements::MergeBy(keys) => {
                // With one key only, an element without it matches one without it; with a choice the next one counts.
                let set = |key: &&&str| keys.len() == 1 || new.at(&[key]).is_some_and(|value| !is_blank(value));
                let old = keys
                    .iter()
                    .find(set)
                    .and_then(|key| target.iter_mut().find(|old| old.at(&[key]) == new.at(&[key])));
                match old {
                    Some(old) => node(old, new, inner, Absent::Keeps, &format!("{path}[]"))?,
                    None => target.push(new),
                }
            }
        }
    }
    Ok(())
}

fn is_blank(value: &Value) -> bool {
    matches!(value, Value::Null) || value.as_text() == Some("")
}

/// Content without a type: mappings merge, lists append, scalars of the same type replace.
fn free_map(target: &mut Map, patch: Map, path: &str) -> Result<(), MergeError> {
    for (key, value) in patch {
        match target.get_mut(&key) {
            Some(old) if *old != Value::Null => free(old, value, &join(path, &key))?,
            _ => target.set(&key, value),
        }
    }
    Ok(())
}

fn free(target: &mut Value, patch: Value, path: &str) -> Result<(), MergeError> {
    // Numbers are of three types: with a fraction, whole, and whole but too large to have a sign.
    let sort = |value: &Value| match value {
        Value::Number(number) if number.sort() == Sort::Whole => {
            (true, number.whole().is_some_and(|whole| whole > i128::from(i64::MAX)))
        }
        _ => (false, false),
    };
    match (target, patch) {
        (Value::Map(old), Value::Map(new)) => free_map(old, new, path),
        (Value::List(old), Value::List(new)) => {
            old.extend(new);
            Ok(())
        }
        (Value::Text(old), Value::Text(new)) => {
            if !new.is_empty() {
                *old = new;
            }
            Ok(())
        }
        (Value::Bool(old), Value::Bool(new)) => {
            *old = new;
            Ok(())
        }
        (old @ Value::Number(_), new @ Value::Number(_)) if sort(old) == sort(&new) => {
            if !is_zero(&new) {
                *old = new;
            }
            Ok(())
        }
        (old, new) => Err(MergeError::Mismatch { path: path.to_owned(), ours: old.kind(), theirs: new.kind() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::super::yaml::{document, one};
    use super::*;

    fn merged(target: &str, patch: &str) -> Result<String, MergeError> {
        let read = |text: &str| {
            let Value::Map(map) = one(text).unwrap().root else { panic!("{text}") };
            schema::read_document("v1alpha1", map).unwrap()
        };
        let mut target = read(target);
        apply(&mut target, read(patch), "v1alpha1.Config")?;
        Ok(document(&Value::Map(target)))
    }

    #[test]
    fn each_rule_holds() {
        let cases = [
            ("machine: {token: a}\n", "machine: {token: b}\n", "machine:\n    token: b\n"),
            ("machine: {token: a}\n", "machine: {token: \"\"}\n", "machine:\n    token: a\n"),
            ("machine: {token: a}\n", "machine: {token: null}\n", "machine:\n    token: a\n"),
            ("debug: true\n", "debug: false\n", "debug: false\n"),
            (
                "machine: {features: {kubePrism: {port: 7445, enabled: true}}}\n",
                "machine: {features: {kubePrism: {port: 0}}}\n",
                "machine:\n    features:\n        kubePrism:\n            port: 7445\n            enabled: true\n",
            ),
            (
                "machine: {time: {bootTimeout: 1m}}\n",
                "machine: {time: {bootTimeout: 0s}}\n",
                "machine:\n    time:\n        bootTimeout: 1m0s\n",
            ),
            (
                "machine: {registries: {config: {r: {tls: {ca: YQ==}}}}}\n",
                "machine: {registries: {config: {r: {tls: {ca: \"\"}}}}}\n",
                "machine:\n    registries:\n        config:\n            r:\n                tls:\n                    ca: \"\"\n",
            ),
            (
                "machine: {certSANs: [a]}\n",
                "machine: {certSANs: [a, 1]}\n",
                "machine:\n    certSANs:\n        - a\n        - a\n        - \"1\"\n",
            ),
            ("machine: {certSANs: [a]}\n", "machine: {certSANs: []}\n", "machine:\n    certSANs:\n        - a\n"),
            (
                "machine: {sysctls: {a: x}}\n",
                "machine: {sysctls: {a: \"\", b: 1}}\n",
                "machine:\n    sysctls:\n        a: x\n        b: \"1\"\n",
            ),
            (
                "machine: {kubelet: {extraArgs: {a: x, b: [y]}}}\n",
                "machine: {kubelet: {extraArgs: {a: \"\", b: z}}}\n",
                "machine:\n    kubelet:\n        extraArgs:\n            a: \"\"\n            b: z\n",
            ),
            (
                "cluster: {network: {podSubnets: [a]}}\n",
                "cluster: {network: {podSubnets: [b]}}\n",
                "cluster:\n    network:\n        podSubnets:\n            - b\n",
            ),
            (
                "machine: {network: {interfaces: [{interface: eth0, mtu: 1}]}}\n",
                "machine: {network: {interfaces: [{interface: eth0, dhcp: true}, {interface: eth1}]}}\n",
                "machine:\n    network:\n        interfaces:\n            - interface: eth0\n              mtu: 1\n              dhcp: true\n            - interface: eth1\n",
            ),
            (
                "machine: {network: {interfaces: [{deviceSelector: {driver: a, physical: true}, mtu: 1}]}}\n",
                "machine: {network: {interfaces: [{deviceSelector: {driver: a, physical: true}, mtu: 2}]}}\n",
                "machine:\n    network:\n        interfaces:\n            - deviceSelector:\n                driver: a\n                physical: true\n              mtu: 2\n",
            ),
            (
                "cluster: {controlPlane: {endpoint: \"https://a:6443/x\"}}\n",
                "cluster: {controlPlane: {endpoint: \"https://b:6443\"}}\n",
                "cluster:\n    controlPlane:\n        endpoint: https://b:6443/x\n",
            ),
            (
                "machine: {ca: {crt: YQ==, key: Yg==}}\n",
                "machine: {ca: {crt: Yw==}}\n",
                "machine:\n    ca:\n        crt: Yw==\n        key: \"\"\n",
            ),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merged(target, patch).unwrap(), expected, "{target} + {patch}");
        }
    }

    #[test]
    fn free_content_of_two_kinds_does_not_merge() {
        let config = |inner: &str| format!("machine: {{kubelet: {{extraConfig: {{a: {inner}}}}}}}\n");
        let largest = "18446744073709551615";
        let pairs =
            [("1", "x"), ("1", "1.5"), ("[1]", "{b: 1}"), ("x", "true"), ("x", "null"), ("1", largest), (largest, "1")];
        for (ours, theirs) in pairs {
            assert!(merged(&config(ours), &config(theirs)).is_err(), "{ours} + {theirs}");
        }
        let error = merged(&config("[1]"), &config("{b: 1}")).unwrap_err().to_string();
        assert_eq!(error, "machine.kubelet.extraConfig.a is a list and the patch gives a mapping");
    }
}
