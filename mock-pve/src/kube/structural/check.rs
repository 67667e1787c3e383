//! Whether a custom object is as its schema wants it, and in which words it isn't (kube-openapi, pkg/validation/errors).

use regex::Regex;
use serde_json::{Value, json};

use super::is;
use crate::kube::answer::Cause;

/// Names all that contradicts a schema.
pub(in crate::kube) fn check(object: &Value, schema: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    value(object, schema, "", &mut causes);
    causes
}

fn named(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_some_and(|one| one.fract() != 0.0) => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(path: &str, wanted: &str, found: &str) -> Cause {
    let message = format!("Invalid value: \"{found}\": {path} in body must be of type {wanted}: \"{found}\"");
    Cause { reason: "FieldValueTypeInvalid", message, field: path.to_owned() }
}

fn value(found: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if found.is_null() && is(schema, "nullable") {
        return;
    }
    let (kind, wanted) = (named(found), schema.get("type").and_then(Value::as_str));
    let fits = match wanted {
        _ if is(schema, "x-kubernetes-int-or-string") => kind == "integer" || kind == "string",
        None => true,
        Some("number") => kind == "number" || kind == "integer",
        Some(wanted) => kind == wanted,
    };
    if !fits {
        return causes.push(wrong_type(path, wanted.unwrap_or("integer,string"), kind));
    }
    if let Some(known) = schema.get("enum").and_then(Value::as_array).filter(|known| !known.contains(found)) {
        let known: Vec<String> =
            known.iter().map(|one| one.as_str().map_or_else(|| one.to_string(), str::to_owned)).collect();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        causes.push(Cause::unsupported(path, found, &known));
    }
    match found {
        Value::Object(map) => {
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
            {
                if !map.contains_key(name) {
                    causes.push(Cause::required(child(path, name), ""));
                }
            }
            counted(map.len(), "Properties", "properties", (found, schema), path, causes);
            for (name, value) in map {
                if let Some(schema) = super::field(schema, name) {
                    self::value(value, schema, &child(path, name), causes);
                }
            }
        }
        Value::Array(list) => {
            counted(list.len(), "Items", "items", (found, schema), path, causes);
            doubles(list, schema, path, causes);
            if let Some(items) = schema.get("items") {
                for (number, value) in list.iter().enumerate() {
                    self::value(value, items, &format!("{path}[{number}]"), causes);
                }
            }
        }
        Value::String(text) => string(text, schema, path, causes),
        Value::Number(_) => number(found, schema, path, causes),
        _ => {}
    }
    junctors(found, schema, path, causes);
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn limit(schema: &Value, name: &str) -> Option<usize> {
    schema.get(name)?.as_u64().and_then(|limit| usize::try_from(limit).ok())
}

/// How many items or properties there may be.
fn counted(count: usize, of: &str, unit: &str, (found, schema): (&Value, &Value), path: &str, causes: &mut Vec<Cause>) {
    if let Some(most) = limit(schema, &format!("max{of}")).filter(|most| count > *most) {
        let message = format!("Too many: {count}: must have at most {most} items");
        causes.push(Cause { reason: "FieldValueTooMany", message, field: path.to_owned() });
    }
    if let Some(least) = limit(schema, &format!("min{of}")).filter(|least| count < *least) {
        let why = format!("{path} in body should have at least {least} {unit}");
        causes.push(Cause::invalid(path, &if found.is_array() { json!(count) } else { found.clone() }, &why));
    }
}

/// Items of a set, and of a map by its keys, are there once.
fn doubles(list: &[Value], schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let keys: Vec<&str> = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => Vec::new(),
        Some("map") => {
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            keys.into_iter().flatten().filter_map(Value::as_str).collect()
        }
        _ => return,
    };
    let by = |item: &Value| match keys.as_slice() {
        [] => item.clone(),
        keys => keys.iter().filter_map(|key| Some(((*key).to_owned(), item.get(key)?.clone()))).collect(),
    };
    let mut seen: Vec<Value> = Vec::new();
    for (number, item) in list.iter().enumerate() {
        let by = by(item);
        if seen.contains(&by) {
            let (message, field) = (format!("Duplicate value: {by}"), format!("{path}[{number}]"));
            causes.push(Cause { reason: "FieldValueDuplicate", message, field });
        }
        seen.push(by);
    }
}

fn string(text: &str, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let length = text.chars().count();
    if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
        let message = format!("Too long: may not be more than {most} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", message, field: path.to_owned() });
    }
    let mut wrong = |why: String| causes.push(Cause::invalid(path, &json!(text), &format!("{path} in body {why}")));
    if let Some(least) = limit(schema, "minLength").filter(|least| length < *least) {
        wrong(format!("should be at least {least} chars long"));
    }
    // A pattern that can't be read is none; the original refuses the definition.
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
        && Regex::new(pattern).is_ok_and(|wanted| !wanted.is_match(text))
    {
        wrong(format!("should match '{pattern}'"));
    }
    let moment = schema.get("format").and_then(Value::as_str) == Some("date-time");
    if moment && text.parse::<jiff::Timestamp>().is_err() {
        causes.push(Cause {
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: \"{text}\": {path} in body must be of type date-time: \"{text}\""),
            field: path.to_owned(),
        });
    }
}

fn number(found: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = found.as_f64() else { return };
    let mut wrong = |why: String| causes.push(Cause::invalid(path, found, &format!("{path} in body should be {why}")));
    let bound = |name: &str| Some((schema.get(name)?, schema.get(name)?.as_f64()?));
    if let Some((shown, least)) = bound("minimum") {
        if is(schema, "exclusiveMinimum") && number <= least {
            wrong(format!("greater than {shown}"));
        } else if number < least {
            wrong(format!("greater than or equal to {shown}"));
        }
    }
    if let Some((shown, most)) = bound("maximum") {
        if is(schema, "exclusiveMaximum") && number >= most {
            wrong(format!("less than {shown}"));
        } else if number > most {
            wrong(format!("less than or equal to {shown}"));
        }
    }
    if let Some((shown, part)) = bound("multipleOf").filter(|(_, part)| *part > 0.0)
        && (number / part).fract() != 0.0
    {
        wrong(format!("a multiple of {shown}"));
    }
}

/// Schemas of which all, some, one or none must fit.
fn junctors(found: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let list = |name: &str| schema.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let fits = |schema: &Value| {
        let mut causes = Vec::new();
        value(found, schema, path, &mut causes);
        causes.is_empty()
    };
    let mut wrong = |why: &str| causes.push(Cause::invalid("<nil>", &json!(""), &format!("\"{path}\" must {why}")));
    let all = list("allOf");
    if !all.iter().all(fits) {
        wrong("validate all the schemas (allOf)");
    }
    let any = list("anyOf");
    if !any.is_empty() && !any.iter().any(fits) {
        wrong("validate at least one schema (anyOf)");
    }
    let one = list("oneOf");
    match one.iter().filter(|schema| fits(schema)).count() {
        0 if !one.is_empty() => wrong("validate one and only one schema (oneOf). Found none valid"),
        count if count > 1 => {
            wrong(&format!("validate one and only one schema (oneOf). Found {count} valid alternatives"));
        }
        _ => {}
    }
    if schema.get("not").is_some_and(fits) {
        wrong("not validate the schema (not)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a value at `spec.v` that has that schema.
    fn said(schema: &Value, found: &Value) -> String {
        let schema =
            json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": { "v": schema } } } });
        let causes = check(&json!({ "spec": { "v": found } }), &schema);
        causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_contradicts_a_schema_is_named_in_the_original_words() {
        let names = json!({ "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["n"],
            "items": { "type": "object", "required": ["n"] } });
        for (schema, found, expected) in [
            (json!({ "type": "integer" }), json!(3), ""),
            (json!({ "type": "integer" }), json!(3.0), ""),
            (json!({ "type": "string", "nullable": true }), json!(null), ""),
            (
                json!({ "type": "integer" }),
                json!("x"),
                "spec.v: Invalid value: \"string\": spec.v in body must be of type integer: \"string\"",
            ),
            (
                json!({ "type": "integer", "maximum": 10 }),
                json!(15),
                "spec.v: Invalid value: 15: spec.v in body should be less than or equal to 10",
            ),
            (
                json!({ "type": "number", "minimum": 0, "exclusiveMinimum": true }),
                json!(0),
                "spec.v: Invalid value: 0: spec.v in body should be greater than 0",
            ),
            (
                json!({ "type": "string", "pattern": "^a+$" }),
                json!("b"),
                "spec.v: Invalid value: \"b\": spec.v in body should match '^a+$'",
            ),
            (
                json!({ "type": "string", "enum": ["on", "off"] }),
                json!("up"),
                "spec.v: Unsupported value: \"up\": supported values: \"on\", \"off\"",
            ),
            (
                json!({ "type": "string", "maxLength": 2 }),
                json!("abc"),
                "spec.v: Too long: may not be more than 2 bytes",
            ),
            (json!({ "type": "object", "required": ["a"] }), json!({}), "spec.v.a: Required value"),
            (
                json!({ "type": "array", "minItems": 2 }),
                json!([1]),
                "spec.v: Invalid value: 1: spec.v in body should have at least 2 items",
            ),
            (names, json!([{ "n": 1 }, { "n": 1 }]), "spec.v[1]: Duplicate value: {\"n\":1}"),
            (json!({ "x-kubernetes-int-or-string": true }), json!("10%"), ""),
            (
                json!({ "type": "object", "oneOf": [{ "required": ["a"] }, { "required": ["b"] }] }),
                json!({ "a": 1, "b": 2 }),
                "<nil>: Invalid value: \"\": \"spec.v\" must validate one and only one schema (oneOf). Found 2 valid \
                 alternatives",
            ),
        ] {
            assert_eq!(said(&schema, &found), expected, "{schema} {found}");
        }
    }
}
