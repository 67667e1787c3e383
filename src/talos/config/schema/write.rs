//! Brings a document into the form the real tool writes: keys in order, what is empty left out or written as its type
//! wants it.
//!
//! Must not know: whether the content makes sense.

use super::shapes::{Type, fields};
use crate::talos::config::yaml::{Map, Number, Value};

/// The mapping of this shape as it is written.
pub(super) fn shape(map: &mut Map, name: &str) {
    let mut old = std::mem::take(map);
    for field in fields(name) {
        let mut value = old.remove(field.key);
        if let Some(value) = &mut value {
            arrange(value, &field.of);
        }
        match value {
            Some(value) if field.always || !leaves_out(&value, &field.of) => map.set(field.key, value),
            None if field.always => map.set(field.key, absent(&field.of)),
            Some(_) | None => {}
        }
    }
    for (key, value) in old {
        map.set(&key, value);
    }
}

/// The mapping of this shape on its way out: flags' values have no quotes for the sake of readers of YAML 1.1.
pub(super) fn bare(map: &mut Map, name: &str) {
    for field in fields(name) {
        if let Some(value) = map.get_mut(field.key) {
            bare_value(value, &field.of);
        }
    }
}

fn bare_value(value: &mut Value, of: &Type) {
    match (of, value) {
        (Type::Optional(inner), value) => bare_value(value, inner),
        (Type::List(inner, _), Value::List(list)) => list.iter_mut().for_each(|value| bare_value(value, inner)),
        (Type::Map(inner, _), Value::Map(map)) => map.iter_mut().for_each(|(_, value)| bare_value(value, inner)),
        (Type::Argument, Value::List(list)) => list.iter_mut().for_each(|value| bare_value(value, of)),
        (Type::Argument, value) => {
            if let Some(number) = value.as_text().and_then(Number::bare) {
                *value = Value::Number(number);
            }
        }
        (Type::Shape(name), Value::Map(map)) => bare(map, name),
        _ => {}
    }
}

fn arrange(value: &mut Value, of: &Type) {
    match (of, value) {
        (Type::Optional(inner), value) => arrange(value, inner),
        (Type::List(inner, _), Value::List(list)) => list.iter_mut().for_each(|value| arrange(value, inner)),
        (Type::Map(inner, _), Value::Map(map)) => {
            map.sort();
            map.iter_mut().for_each(|(_, value)| arrange(value, inner));
        }
        (Type::Free, value) => super::sort_value(value),
        (Type::Argument, value) if value.as_text() == Some("") => *value = Value::Null,
        (Type::Shape(name), Value::Map(map)) => shape(map, name),
        _ => {}
    }
}

/// Whether an optional key with this value is left out.
fn leaves_out(value: &Value, of: &Type) -> bool {
    match of {
        // What may be absent is written when it is there, even if it is empty.
        Type::Optional(_) => *value == Value::Null,
        Type::List(..) | Type::Map(..) | Type::Free => is_empty(value),
        // A shape is left out when nothing at all was said in it.
        Type::Shape(name) => value
            .as_map()
            .is_some_and(|map| encrypts_nothing(name, map) || fields(name).iter().all(|field| is_unset(map, field))),
        Type::Scalar(scalar) | Type::Unit(scalar) => {
            is_empty(value) || *value == scalar.empty() || *value == Value::Null
        }
        Type::Argument | Type::Pem(_) => false,
    }
}

/// Whether this is an encryption without a provider and keys, which is none whatever else it says.
fn encrypts_nothing(shape: &str, map: &Map) -> bool {
    let is_none = |value: &Value| is_empty(value) || value.as_text() == Some("none");
    shape == "block.EncryptionSpec" && ["provider", "keys"].iter().all(|key| map.get(key).is_none_or(is_none))
}

fn is_unset(map: &Map, field: &super::shapes::Field) -> bool {
    map.get(field.key).is_none_or(|value| match &field.of {
        Type::List(..) => false,
        of => leaves_out(value, of),
    })
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Text(text) => text.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Map(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// What is written for a key that nobody set.
fn absent(of: &Type) -> Value {
    match of {
        Type::Scalar(scalar) | Type::Unit(scalar) => scalar.empty(),
        Type::List(..) => Value::List(Vec::new()),
        Type::Optional(_) => Value::Null,
        Type::Shape(name) => {
            let mut map = Map::new();
            shape(&mut map, name);
            Value::Map(map)
        }
        Type::Free | Type::Argument | Type::Pem(_) | Type::Map(..) => Value::Map(Map::new()),
    }
}
