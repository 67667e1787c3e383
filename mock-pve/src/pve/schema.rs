//! Parameters.
//!
//! Purpose: every method of the original with its parameters (`schema/parameters.json`). Must not know: what methods do.
//! Start at [`Schema`].

pub(super) mod check;
mod kind;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use self::kind::Type;
use crate::world::PveVersion;
use crate::world::property::{Properties, is_true};

/// Verb, path, releases (`89`), rules, and the parameters with the number of their type.
type Row = (String, String, String, Rules, BTreeMap<String, usize>);

/// All methods of both releases.
#[derive(Debug, Deserialize)]
struct File {
    named: BTreeMap<String, BTreeMap<String, Type>>,
    types: Vec<Type>,
    methods: Vec<Row>,
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

    /// A parameter as a config file's reader gives it: what is a switch or a number there is one.
    pub(super) fn read_back(&self, name: &str, text: &str) -> Value {
        self.lookup(name).map_or_else(|| Value::from(text), |known| known.value(text))
    }

    /// The same of an option that is taken apart; there only switches are numbers.
    pub(super) fn taken_apart(&self, name: &str, text: &str, default_key: &str) -> Value {
        let Some(known) = self.lookup(name) else { return Value::from(text) };
        let parts = Properties::parse(text, default_key).parts.into_iter().map(|(name, value)| {
            let part = known.parts.as_ref().and_then(|parts| parts.get(&name));
            let is_switch = part.is_some_and(Type::is_switch);
            let read = if is_switch { Value::from(u8::from(is_true(&value))) } else { Value::from(value) };
            (name, read)
        });
        Value::Object(parts.collect())
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
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    #[test]
    fn every_pattern_of_the_table_is_a_regex() {
        let File { named, types, .. } = serde_json::from_str(include_str!("../../schema/parameters.json")).unwrap();
        let patterns = types.iter().chain(named.values().flat_map(BTreeMap::values));
        for pattern in patterns.filter_map(|known| known.pattern.as_deref()) {
            assert!(Regex::new(pattern).is_ok(), "{pattern}");
        }
    }
}
