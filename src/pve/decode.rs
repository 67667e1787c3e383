//! PVE's types on the wire, read leniently.
//!
//! Purpose: Perl gives numbers as strings and booleans as `0`, `1`, `"1"` or by absence, differently by version and by how
//! a value came about (PVE 8.4: `nextid` is a string, `memory` is one too). These functions are for serde's
//! `deserialize_with`. Must not know: which endpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

/// A whole number, given as a number or a string.
pub fn int<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let value = Value::deserialize(from)?;
    as_int(&value).ok_or_else(|| D::Error::custom(format!("expected a whole number, got {value}")))
}

/// A whole number that may be missing; what isn't one counts as missing.
pub fn maybe_int<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    Ok(as_int(&Value::deserialize(from)?))
}

/// A number with a fraction; 0 when missing.
pub fn float<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Number(number) => number.as_f64().unwrap_or_default(),
        Value::String(text) => text.parse().unwrap_or_default(),
        _ => 0.0,
    })
}

/// A boolean in any of PVE's spellings; absent, empty and null are false.
pub fn flag<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Ok(as_flag(&Value::deserialize(from)?))
}

/// As [`flag`], telling absence apart.
pub fn maybe_flag<'de, D: Deserializer<'de>>(from: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(if value.is_null() { None } else { Some(as_flag(&value)) })
}

/// Text, also when it came as a number.
pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(as_text(&Value::deserialize(from)?))
}

/// Text that may be missing.
pub fn maybe_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(if value.is_null() { None } else { Some(as_text(&value)) })
}

/// A comma-separated list in no particular order.
pub fn list<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let mut items: Vec<String> = match Value::deserialize(from)? {
        Value::String(text) => text.split([',', ';', ' ']).filter(|item| !item.is_empty()).map(str::to_owned).collect(),
        Value::Array(items) => items.iter().map(as_text).collect(),
        _ => Vec::new(),
    };
    items.sort();
    Ok(items)
}

/// A list that a call without a result gives as null or as something else.
pub fn array_or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either<T> {
        Items(Vec<T>),
        Else(serde::de::IgnoredAny),
    }
    Ok(match Either::deserialize(from)? {
        Either::Items(items) => items,
        Either::Else(_) => Vec::new(),
    })
}

/// A map of texts, whatever the values' types.
pub fn texts(map: &serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), as_text(value))).collect()
}

/// A whole number in any spelling; a fraction is cut.
pub fn as_int(value: &Value) -> Option<u64> {
    match value {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "Perl prints large integers as floats; what doesn't fit saturates"
        )]
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(|float| float as u64)),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// A boolean in any spelling (PVE/JSONSchema.pm `parse_boolean`).
pub fn as_flag(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => crate::property::is_on(text),
        _ => false,
    }
}

/// Any scalar as PVE would print it.
pub fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => u8::from(*flag).to_string(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[derive(Deserialize)]
    struct Row {
        #[serde(deserialize_with = "int")]
        id: u64,
        #[serde(default, deserialize_with = "flag")]
        on: bool,
        #[serde(default, deserialize_with = "list")]
        content: Vec<String>,
        #[serde(default, deserialize_with = "maybe_int")]
        uptime: Option<u64>,
    }

    #[test]
    fn every_spelling_of_perl_is_read() {
        for id in [json!(103), json!("103"), json!(103.0)] {
            let row: Row = serde_json::from_value(json!({ "id": id })).unwrap();
            assert_eq!((row.id, row.on, row.uptime), (103, false, None));
        }
        for (on, meant) in [
            (json!(1), true),
            (json!("1"), true),
            (json!(true), true),
            (json!(0), false),
            (json!("0"), false),
            (json!(""), false),
            (json!(null), false),
        ] {
            let row: Row = serde_json::from_value(json!({ "id": 1, "on": on })).unwrap();
            assert_eq!(row.on, meant, "{on}");
        }
        let row: Row = serde_json::from_value(json!({ "id": 1, "content": "rootdir,images", "uptime": null })).unwrap();
        assert_eq!(row.content, ["images", "rootdir"]);
        assert!(serde_json::from_value::<Row>(json!({ "id": "x" })).is_err());
    }
}
