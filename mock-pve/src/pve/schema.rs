//! Parameter checking.
//!
//! Purpose: the types, formats and bounds of every parameter (`schema/parameters.json`), and the original's texts and
//! order of checks (Proxmox VE 8.4, PVE/JSONSchema.pm). Must not know: what methods do. Start at [`Schema::check`].

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::formats::{Format, check_format};
use super::params::{Params, Value as Given};
use crate::world::PveVersion;
use crate::world::property::{Properties, is_true};

type Errors = BTreeMap<String, String>;

/// Verb, path, releases (`89`), rules, and the parameters with the number of their type.
type Row = (String, String, String, Rules, BTreeMap<String, usize>);

/// All methods of both releases.
#[derive(Debug, Deserialize)]
struct File {
    named: BTreeMap<String, BTreeMap<String, Type>>,
    types: Vec<Type>,
    methods: Vec<Row>,
}

/// A parameter or a part of a property string.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Type {
    #[serde(rename = "type")]
    kind: Option<String>,
    optional: Option<Value>,
    #[serde(rename = "enum")]
    words: Option<Vec<String>>,
    pattern: Option<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    requires: Option<String>,
    format: Option<Value>,
    #[serde(rename = "default_key")]
    default_key: Option<Value>,
    alias: Option<String>,
    key_alias: Option<String>,
    items: Option<Box<Type>>,
    #[serde(skip)]
    parts: Option<BTreeMap<String, Type>>,
    /// What the pattern is, once it was asked for: compiling all of them takes longer than everything else of a start.
    #[serde(skip)]
    regex: OnceLock<Option<Regex>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rules {
    perm: Value,
    token: Option<u8>,
    open: Option<u8>,
}

/// What is known of one method.
#[derive(Debug)]
pub(super) struct Method {
    /// Parameters by name; `net[n]` is `net` with numbers.
    params: BTreeMap<String, Type>,
    /// Parameters that are not known are let through.
    open: bool,
    /// Who may call it.
    pub perm: Value,
    /// API tokens may call it.
    pub token: bool,
}

/// All methods of one release.
#[derive(Debug)]
pub(super) struct Schema {
    methods: BTreeMap<(String, String), Arc<Method>>,
}

impl Type {
    fn prepare(&mut self, named: &BTreeMap<String, BTreeMap<String, Type>>) {
        match &self.format {
            Some(Value::Object(parts)) => {
                self.parts = serde_json::from_value(Value::Object(parts.clone())).ok();
                self.format = None;
            }
            Some(Value::String(name)) => {
                if let Some(parts) = named.get(name) {
                    self.parts = Some(parts.clone());
                }
            }
            _ => {}
        }
        for part in self.parts.iter_mut().flat_map(BTreeMap::values_mut) {
            part.prepare(named);
        }
        if let Some(items) = &mut self.items {
            items.prepare(named);
        }
    }

    /// A pattern that isn't one for us is not checked; a test makes sure that there is none.
    fn regex(&self) -> Option<&Regex> {
        let made = || self.pattern.as_deref().and_then(|pattern| Regex::new(&format!("^(?:{pattern})$")).ok());
        self.regex.get_or_init(made).as_ref()
    }

    /// The privileges and CPU flags that exist depend on the release.
    fn of_release(&mut self, pve: PveVersion) {
        if pve == PveVersion::V9
            && let Some(Value::String(name)) = &mut self.format
        {
            *name = name.replace("pve-priv", "pve-priv-9").replace("pve-vm-cpu-conf", "pve-vm-cpu-conf-9");
        }
    }

    fn is_optional(&self) -> bool {
        self.optional
            .as_ref()
            .is_some_and(|flag| flag.as_u64() == Some(1) || flag.as_str() == Some("1") || *flag == Value::Bool(true))
    }

    fn number(&self, text: &str) -> Value {
        match self.kind.as_deref() {
            Some("boolean") => Value::from(u8::from(is_true(text))),
            Some("integer") => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
            Some("number") => {
                let whole = text.parse::<i64>().map(Value::from);
                whole.or_else(|_| text.parse::<f64>().map(Value::from)).unwrap_or_else(|_| Value::from(text))
            }
            _ => Value::from(text),
        }
    }

    fn is_list(&self) -> bool {
        matches!(&self.format, Some(Value::String(name)) if name.ends_with("-list"))
    }
}

/// Highest number of a repeated key.
fn highest(stem: &str) -> u32 {
    match stem {
        "ide" | "serial" => 3,
        "sata" => 5,
        "scsi" => 30,
        "virtio" | "hostpci" => 15,
        "net" | "ipconfig" => 31,
        "parallel" => 2,
        "usb" => 13,
        "numa" => 7,
        "virtiofs" => 9,
        _ => 255,
    }
}

impl Method {
    fn lookup(&self, name: &str) -> Option<&Type> {
        if let Some(found) = self.params.get(name) {
            return Some(found);
        }
        let at = name.find(|c: char| c.is_ascii_digit())?;
        let (stem, number) = name.split_at(at);
        let plain = number == "0" || !number.starts_with('0');
        let number: u32 = number.parse().ok()?;
        (plain && number <= highest(stem)).then(|| self.params.get(&format!("{stem}[n]")))?
    }

    /// A parameter as a config file's reader gives it: what is a switch or a number there is one, and `default_key` says
    /// that the option is taken apart.
    pub(super) fn read_back(&self, name: &str, text: &str, default_key: Option<&str>) -> Value {
        let Some(known) = self.lookup(name) else { return Value::from(text) };
        match default_key {
            None => known.number(text),
            Some(default_key) => {
                let parts = Properties::parse(text, default_key).parts.into_iter().map(|(name, value)| {
                    let kind = known.parts.as_ref().and_then(|parts| parts.get(&name));
                    let value = match kind.filter(|kind| kind.kind.as_deref() == Some("boolean")) {
                        Some(_) => Value::from(u8::from(is_true(&value))),
                        None => Value::from(value),
                    };
                    (name, value)
                });
                Value::Object(parts.collect())
            }
        }
    }

    /// Whether the method has such a parameter.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.lookup(name).is_some()
    }
}

impl Schema {
    /// Reads our table for one release.
    pub(super) fn load(pve: PveVersion) -> Result<Self, serde_json::Error> {
        let File { named, mut types, methods } = serde_json::from_str(include_str!("../../schema/parameters.json"))?;
        for one in &mut types {
            one.prepare(&named);
            one.of_release(pve);
        }
        let release = if pve == PveVersion::V8 { '8' } else { '9' };
        let methods = methods
            .into_iter()
            .filter(|(_, _, releases, _, _)| releases.contains(release))
            .map(|(method, path, _, rules, params)| {
                let params = params.into_iter().filter_map(|(name, at)| Some((name, types.get(at)?.clone()))).collect();
                let known =
                    Method { params, open: rules.open == Some(1), perm: rules.perm, token: rules.token != Some(0) };
                ((method, path), Arc::new(known))
            })
            .collect();
        Ok(Self { methods })
    }

    /// The words that a parameter can be.
    pub(super) fn words(pve: PveVersion, (verb, path): (&str, &str), parameter: &str) -> Vec<String> {
        let schema = Self::load(pve).ok();
        let method = schema.as_ref().and_then(|schema| schema.method(verb, path));
        method.and_then(|method| method.lookup(parameter)?.words.clone()).unwrap_or_default()
    }

    /// The pattern of a method that is known, but may not be played.
    pub(super) fn patterns(&self, method: &str) -> impl Iterator<Item = &str> {
        self.methods.keys().filter(move |(verb, _)| verb == method).map(|(_, path)| path.as_str())
    }

    /// A method of this release.
    pub(super) fn method(&self, method: &str, path: &str) -> Option<&Arc<Method>> {
        self.methods.get(&(method.to_owned(), path.to_owned()))
    }

    /// Checks all parameters. Lists given as arrays become text; the errors are by parameter.
    pub(super) fn check(method: &Method, params: &mut Params) -> Result<(), Errors> {
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
}

const UNDEFINED: &str = "property is not defined in schema and the schema does not allow additional properties";

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
    for piece in text.split(',').filter(|piece| !piece.trim().is_empty()) {
        let duplicate = |key: &str| Err(format!("duplicate key in comma-separated list property: {key}\n"));
        let (mut key, mut value) = match piece.split_once('=') {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key.to_owned(), value.to_owned()),
            Some(_) => return Err("missing key in comma-separated list property\n".to_owned()),
            // What has no key is taken as it is: only switches with a name know other words than 0 and 1.
            None => match default_key {
                Some(key) if given.contains_key(key) => return duplicate(key),
                Some(key) => {
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
        if parts.get(&key).is_some_and(|part| part.kind.as_deref() == Some("boolean")) {
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
            Some(Format::Cpu(pve)) => super::formats::check_cpu(pve, &given),
            None => Ok(()),
        };
    }
    let lines: Vec<String> = errors.iter().map(|(at, text)| format!("{at}: {text}\n")).collect();
    Err(format!("format error\n{}", lines.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, params: &[(&str, &str)]) -> Errors {
        let schema = Schema::load(PveVersion::V8).unwrap();
        let mut params =
            Params(params.iter().map(|(name, value)| ((*name).to_owned(), Given::Text((*value).to_owned()))).collect());
        Schema::check(schema.method(method, path).unwrap(), &mut params).err().unwrap_or_default()
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

    #[test]
    fn every_pattern_of_the_table_is_a_regex() {
        let File { named, types, .. } = serde_json::from_str(include_str!("../../schema/parameters.json")).unwrap();
        let patterns = types.iter().chain(named.values().flat_map(BTreeMap::values));
        for pattern in patterns.filter_map(|known| known.pattern.as_deref()) {
            assert!(Regex::new(pattern).is_ok(), "{pattern}");
        }
    }
}
