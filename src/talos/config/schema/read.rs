//! Reads a document as the real tool's types do: known keys only, each with a value of its kind, nulls taken out.
//!
//! Everything that is wrong is found at once. Must not know: where the text came from.

use super::scalar::raw;
use super::shapes::{Scalar, Type, field, fields};
use super::{Flaw, Reason, unknown};
use crate::talos::config::yaml::{Map, Odd, Sort, Value};

/// The mapping of this shape, with its values in the form they are written.
pub(super) fn shape(map: Map, name: &str, path: &str, flaws: &mut Vec<Flaw>) -> Map {
    let mut known = Map::new();
    if map.has(Odd::Merge) {
        flaws.push(flaw(path, "can't take part of its keys from elsewhere with <<: write them here"));
    }
    if map.has(Odd::Alias) {
        flaws.push(flaw(path, ALIAS));
    }
    for (key, value) in map {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match field(name, &key) {
            Some(field) => {
                if let Some(value) = read(value, &field.of, &path, flaws) {
                    known.set(&key, value);
                }
            }
            None if key == "$patch" => flaws.push(Flaw { path, reason: Reason::Directive }),
            None => {
                let reason = unknown(&key, fields(name).iter().map(|field| field.key));
                flaws.push(Flaw { path, reason });
            }
        }
    }
    known
}

const ALIAS: &str = "can't have an alias for a key: write the key";

fn flaw(path: &str, what: &str) -> Flaw {
    Flaw { path: path.to_owned(), reason: Reason::Value { what: what.to_owned() } }
}

fn read(value: Value, of: &'static Type, path: &str, flaws: &mut Vec<Flaw>) -> Option<Value> {
    let wrong = |flaws: &mut Vec<Flaw>, what: String| {
        flaws.push(Flaw { path: path.to_owned(), reason: Reason::Value { what } });
        None
    };
    if value == Value::Null {
        return None;
    }
    match (of, value) {
        (Type::Optional(inner), value) => read(value, inner, path, flaws),
        (Type::Scalar(scalar) | Type::Unit(scalar), value) => match scalar.read(value) {
            Ok(value) => Some(value),
            Err(what) => wrong(flaws, what),
        },
        // Its own keys are texts to a node, whatever they look like.
        (Type::Free, Value::Map(map)) => Some(free_map(map, path, flaws)),
        (Type::Argument, Value::List(list)) => {
            let texts: Result<Vec<String>, String> =
                list.iter().filter(|value| **value != Value::Null).map(raw).collect();
            match texts {
                Ok(texts) => Some(Value::texts(texts)),
                Err(what) => wrong(flaws, what),
            }
        }
        (Type::Argument, value) => match raw(&value) {
            Ok(text) => Some(Value::Text(text)),
            Err(_) => wrong(flaws, "must be a string or a list of strings".to_owned()),
        },
        (Type::Pem(keys), Value::Map(map)) => Some(Value::Map(pem(map, keys, path, flaws))),
        // What is nothing in a list of values is not there at all.
        (Type::List(inner, _), Value::List(list)) => Some(Value::List(
            list.into_iter()
                .enumerate()
                .filter(|(_, value)| {
                    *value != Value::Null
                        || !matches!(**inner, Type::Scalar(_) | Type::Unit(_) | Type::Shape(_) | Type::Free)
                })
                .map(|(at, value)| read(value, inner, &format!("{path}[{at}]"), flaws).unwrap_or_else(|| empty(inner)))
                .collect(),
        )),
        (Type::Map(..), Value::Map(map)) if map.has(Odd::Alias) => wrong(flaws, ALIAS.to_owned()),
        (Type::Map(..), Value::Map(map)) if map.has(Odd::MergeHere) => {
            wrong(flaws, "can take keys from an alias only with <<: write them here".to_owned())
        }
        (Type::Map(inner, _), Value::Map(map)) => Some(Value::Map(
            map.into_iter()
                .map(|(key, value)| {
                    let value = read(value, inner, &format!("{path}.{key}"), flaws);
                    (key, value.unwrap_or_else(|| empty(inner)))
                })
                .collect(),
        )),
        (Type::Shape(name), Value::Map(map)) => Some(Value::Map(shape(map, name, path, flaws))),
        (of, value) => {
            let wanted = if matches!(of, Type::List(..)) { "a list" } else { "a mapping" };
            wrong(flaws, format!("must be {wanted}, this is {}", value.kind()))
        }
    }
}

/// A certificate and a key: both are there once one is.
fn pem(map: Map, keys: &'static [&'static str], path: &str, flaws: &mut Vec<Flaw>) -> Map {
    let mut read = Map::new();
    for key in keys {
        read.set(key, "");
    }
    for (key, value) in map {
        let path = format!("{path}.{key}");
        if !keys.contains(&key.as_str()) {
            let reason = unknown(&key, keys.iter().copied());
            flaws.push(Flaw { path, reason });
        } else if value != Value::Null {
            let redacted = key == "key" && value.as_text() == Some("******");
            let scalar = if redacted { Scalar::Text } else { Scalar::Base64 };
            match scalar.read(value) {
                Ok(value) => read.set(&key, value),
                Err(what) => flaws.push(Flaw { path, reason: Reason::Value { what } }),
            }
        }
    }
    read
}

/// Free-form content: mappings are written with their keys sorted. Dates, and keys that are no texts, are refused: nodes
/// can't copy them.
fn free(value: Value, path: &str, flaws: &mut Vec<Flaw>) -> Value {
    match value {
        Value::Map(map) => {
            if map.has(Odd::Foreign) {
                flaws.push(flaw(path, "must have texts for its keys: quote them"));
            }
            free_map(map, path, flaws)
        }
        Value::List(list) => {
            let inner = |(at, value)| free(value, &format!("{path}[{at}]"), flaws);
            Value::List(list.into_iter().enumerate().map(inner).collect())
        }
        Value::Number(number) if number.sort() == Sort::Date => {
            flaws.push(flaw(path, "can't be a date: quote it"));
            Value::Null
        }
        other => other,
    }
}

fn free_map(map: Map, path: &str, flaws: &mut Vec<Flaw>) -> Value {
    let mut read = Map::new();
    for (key, value) in map {
        let value = free(value, &format!("{path}.{key}"), flaws);
        read.set(&key, value);
    }
    read.sort();
    Value::Map(read)
}

/// What a null among elements or entries becomes.
fn empty(of: &Type) -> Value {
    match of {
        Type::Scalar(scalar) | Type::Unit(scalar) => scalar.empty(),
        Type::Argument | Type::Optional(_) => Value::Null,
        Type::List(..) => Value::List(Vec::new()),
        Type::Free | Type::Pem(_) | Type::Map(..) | Type::Shape(_) => Value::Map(Map::new()),
    }
}
