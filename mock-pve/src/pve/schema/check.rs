//! The checks.
//!
//! Purpose: the original's order of checks and its texts (Proxmox VE 8.4, PVE/JSONSchema.pm). Must not know: what methods
//! do. Start at [`parameters`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::Method;
use super::kind::Type;
use crate::pve::formats::{Format, check_cpu, check_format, check_retention};
use crate::pve::params::{Params, Value as Given};
use crate::world::PveVersion;

/// What is wrong, by parameter.
type Errors = BTreeMap<String, String>;

const UNDEFINED: &str = "property is not defined in schema and the schema does not allow additional properties";

/// Checks all parameters. Lists given as arrays become text; the errors are by parameter.
pub(in crate::pve) fn parameters(method: &Method, params: &mut Params) -> Result<(), Errors> {
    let mut errors = Errors::new();
    for (name, value) in &mut params.0 {
        if let Some(known) = method.lookup(name) {
            if let Given::List(list) = value
                && known.is_list()
            {
                *value = Given::Text(list.join(","));
            }
            if let Given::Text(text) = value
                && known.kind.as_deref() == Some("array")
            {
                *value = Given::List(vec![std::mem::take(text)]);
            }
        }
    }
    for (name, known) in &method.params {
        if name.ends_with("[n]") {
            continue;
        }
        match params.0.get(name).filter(|value| **value != Given::Nothing) {
            Some(value) => check_value(name, known, value, &mut errors),
            None if !known.is_optional() => {
                errors.insert(name.clone(), "property is missing and it is not optional".to_owned());
            }
            None => {}
        }
    }
    for (name, value) in &params.0 {
        match method.lookup(name) {
            Some(known) => {
                if !method.params.contains_key(name) {
                    check_value(name, known, value, &mut errors);
                }
                if let Some(needed) = &known.requires
                    && params.0.get(needed).is_none_or(|value| *value == Given::Nothing)
                {
                    add(&mut errors, needed, format!("missing property - '{name}' requires this property"));
                }
            }
            None if method.open => {}
            None => {
                let path = if name.is_empty() { "_root" } else { name.as_str() };
                errors.insert(path.to_owned(), UNDEFINED.to_owned());
            }
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Several texts on one key are joined by a backslash and an `n`.
fn add(errors: &mut Errors, path: &str, text: impl Into<String>) {
    let text = text.into();
    errors
        .entry(path.to_owned())
        .and_modify(|known| {
            known.push_str("\\n");
            known.push_str(&text);
        })
        .or_insert(text);
}

fn check_value(path: &str, known: &Type, value: &Given, errors: &mut Errors) {
    let kind = known.kind.as_deref().unwrap_or("string");
    match value {
        Given::Text(text) => check_text(path, known, kind, text, errors),
        Given::List(list) if kind == "array" => {
            for (item, at) in list.iter().zip(0..) {
                if let Some(items) = &known.items {
                    let kind = items.kind.as_deref().unwrap_or("string");
                    check_text(&format!("{path}[{at}]"), items, kind, item, errors);
                }
            }
        }
        Given::List(_) | Given::Object if matches!(kind, "array" | "object") => {
            add(errors, path, format!("type check ('{kind}') failed"));
        }
        Given::List(_) => add(errors, path, format!("type check ('{kind}') failed - got ARRAY")),
        Given::Object => add(errors, path, format!("type check ('{kind}') failed - got HASH")),
        Given::Flag(_) if matches!(kind, "array" | "object") => {
            add(errors, path, format!("type check ('{kind}') failed"));
        }
        Given::Flag(_) if kind != "boolean" => {
            add(errors, path, format!("type check ('{kind}') failed - got JSON::PP::Boolean"));
        }
        Given::Flag(_) | Given::Nothing => {}
    }
}

fn check_text(path: &str, known: &Type, kind: &str, text: &str, errors: &mut Errors) {
    let fits = match kind {
        "boolean" => text == "0" || text == "1",
        "integer" => is_integer(text),
        "number" => is_number(text),
        "array" | "object" | "null" => false,
        _ => true,
    };
    if !fits {
        add(errors, path, format!("type check ('{kind}') failed - got '{text}'"));
        return;
    }
    if let Some(parts) = &known.parts {
        let special = match &known.format {
            Some(Value::String(name)) if name == "pve-vm-cpu-conf" => Some(Format::Cpu(PveVersion::V8)),
            Some(Value::String(name)) if name == "pve-vm-cpu-conf-9" => Some(Format::Cpu(PveVersion::V9)),
            Some(Value::String(name)) if name == "prune-backups" => Some(Format::Retention),
            _ => None,
        };
        if let Err(error) = check_properties(path, parts, text, special) {
            add(errors, path, format!("invalid format - {error}"));
            return;
        }
    } else if let Some(Value::String(format)) = &known.format
        && let Err(error) = check_format(format, text)
    {
        add(errors, path, format!("invalid format - {error}"));
        return;
    }
    if known.regex().is_some_and(|regex| !regex.is_match(text)) {
        add(errors, path, "value does not match the regex pattern");
        return;
    }
    let length = text.chars().count();
    if let Some(most) = known.max_length.filter(|most| length > *most) {
        add(errors, path, format!("value may only be {most} characters long"));
        return;
    }
    if let Some(least) = known.min_length.filter(|least| length < *least) {
        add(errors, path, format!("value must be at least {least} characters long"));
        return;
    }
    if matches!(kind, "integer" | "number")
        && let Ok(number) = text.parse::<f64>()
    {
        if let Some(most) = known.maximum.filter(|most| number > *most) {
            add(errors, path, format!("value must have a maximum value of {most}"));
            return;
        }
        if let Some(least) = known.minimum.filter(|least| number < *least) {
            add(errors, path, format!("value must have a minimum value of {least}"));
            return;
        }
    }
    if let Some(words) = &known.words
        && !words.iter().any(|word| word == text)
    {
        add(errors, path, format!("value '{text}' does not have a value in the enumeration '{}'", words.join(", ")));
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

fn is_number(text: &str) -> bool {
    let fine = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
    text.chars().all(fine) && text.chars().any(|c| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
}

/// Checks a property string: `Err` is the text after `invalid format - `.
fn check_properties(
    path: &str,
    parts: &BTreeMap<String, Type>,
    text: &str,
    special: Option<Format>,
) -> Result<(), String> {
    let default_key = parts.iter().find(|(_, part)| part.default_key.is_some()).map(|(name, _)| name.as_str());
    let mut given: BTreeMap<String, String> = BTreeMap::new();
    let mut bare = false;
    for piece in text.split(',').filter(|piece| !piece.trim().is_empty()) {
        let duplicate = |key: &str| Err(format!("duplicate key in comma-separated list property: {key}\n"));
        let (mut key, mut value) = match piece.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key.to_owned(), value.to_owned()),
            Some(_) => return Err("missing key in comma-separated list property\n".to_owned()),
            // What has no key is taken as it is: only switches with a name know other words than 0 and 1.
            None => match default_key {
                // A value that counts as nothing gives way to one without a key, once.
                Some(key) if bare || given.get(key).is_some_and(|value| value != "0") => return duplicate(key),
                Some(key) => {
                    bare = true;
                    given.insert(key.to_owned(), piece.to_owned());
                    continue;
                }
                None => return Err("value without key, but schema does not define a default key\n".to_owned()),
            },
        };
        if given.contains_key(&key) {
            return duplicate(&key);
        }
        if let Some(Type { alias: Some(alias), key_alias, .. }) = parts.get(&key) {
            if let Some(other) = key_alias
                && given.insert(other.clone(), key.clone()).is_some()
            {
                return Err(format!("key alias '{other}' is already defined\n"));
            }
            key.clone_from(alias);
        }
        if parts.get(&key).is_some_and(Type::is_switch) {
            value = match value.to_ascii_lowercase().as_str() {
                "on" | "yes" | "true" => "1".to_owned(),
                "off" | "no" | "false" => "0".to_owned(),
                _ => value,
            };
        }
        // The second name of a key has the last word.
        given.insert(key, value);
    }
    let mut errors = Errors::new();
    for (name, part) in parts.iter().filter(|(_, part)| part.alias.is_none()) {
        let at = format!("{path}.{name}");
        match given.get(name) {
            Some(value) => {
                check_text(&at, part, part.kind.as_deref().unwrap_or("string"), value, &mut errors);
                if let Some(needed) = &part.requires
                    && !given.contains_key(needed)
                {
                    let text = format!("missing property - '{at}' requires this property");
                    add(&mut errors, &format!("{path}.{needed}"), text);
                }
            }
            None if !part.is_optional() => {
                errors.insert(at, "property is missing and it is not optional".to_owned());
            }
            None => {}
        }
    }
    for name in given.keys().filter(|name| !parts.contains_key(*name)) {
        errors.insert(format!("{path}.{name}"), UNDEFINED.to_owned());
    }
    if errors.is_empty() {
        return match special {
            Some(Format::Cpu(pve)) => check_cpu(pve, &given),
            Some(Format::Retention) => check_retention(&given),
            None => Ok(()),
        };
    }
    let lines: Vec<String> = errors.iter().map(|(at, text)| format!("{at}: {text}\n")).collect();
    Err(format!("format error\n{}", lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pve::schema::Schema;

    fn check(method: &str, path: &str, params: &[(&str, &str)]) -> Errors {
        let schema = Schema::load(PveVersion::V8).unwrap();
        let mut params =
            Params(params.iter().map(|(name, value)| ((*name).to_owned(), Given::Text((*value).to_owned()))).collect());
        parameters(schema.method(method, path).unwrap(), &mut params).err().unwrap_or_default()
    }

    #[test]
    fn texts_are_the_originals() {
        let update = |name, value| {
            check("PUT", "/nodes/{node}/qemu/{vmid}/config", &[("node", "pve1"), ("vmid", "100"), (name, value)])
                .remove(name)
                .unwrap_or_default()
        };
        for (name, value, text) in [
            ("nonsense", "1", UNDEFINED),
            ("cores", "many", "type check ('integer') failed - got 'many'"),
            ("cores", "0", "value must have a minimum value of 1"),
            ("onboot", "true", "type check ('boolean') failed - got 'true'"),
            ("bios", "x", "value 'x' does not have a value in the enumeration 'seabios, ovmf'"),
            ("name", "under_score", "invalid format - value does not look like a valid DNS name\n"),
            ("net32", "virtio", UNDEFINED),
            (
                "net0",
                "virtio,e1000,bridge=b",
                "invalid format - duplicate key in comma-separated list property: model\n",
            ),
            (
                "net0",
                "virtio=01:00:00:00:00:00,bridge=b",
                "invalid format - format error\nnet0.macaddr: invalid format - value does not look like a valid unicast MAC address\n\n",
            ),
            (
                "ipconfig1",
                "gw=192.0.2.1",
                "invalid format - format error\nipconfig1.ip: missing property - 'ipconfig1.gw' requires this property\n",
            ),
            ("memory", "8", "invalid format - format error\nmemory.current: value must have a minimum value of 16\n"),
            ("scsi0", "local-lvm:8,ssd=on,iothread=yes", ""),
            ("tags", "a;b!", "invalid format - invalid characters in tag\n"),
        ] {
            assert_eq!(update(name, value), text, "{name}={value}");
        }
    }
}
