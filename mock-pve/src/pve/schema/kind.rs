//! What a parameter may be.
//!
//! Purpose: type, format and bounds of one parameter or of one part of a property string, as `schema/parameters.json` has
//! them. Must not know: methods, errors. Start at [`Type`].

use std::collections::BTreeMap;
use std::sync::OnceLock;

use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::world::PveVersion;
use crate::world::property::is_true;

/// A parameter or a part of a property string.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Type {
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) optional: Option<Value>,
    #[serde(rename = "enum")]
    pub(super) words: Option<Vec<String>>,
    pub(super) pattern: Option<String>,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    pub(super) requires: Option<String>,
    pub(super) format: Option<Value>,
    #[serde(rename = "default_key")]
    pub(super) default_key: Option<Value>,
    pub(super) alias: Option<String>,
    pub(super) key_alias: Option<String>,
    pub(super) items: Option<Box<Type>>,
    #[serde(skip)]
    pub(super) parts: Option<BTreeMap<String, Type>>,
    /// What the pattern is, once it was asked for: compiling all of them takes longer than everything else of a start.
    #[serde(skip)]
    regex: OnceLock<Option<Regex>>,
}

impl Type {
    /// Finds the parts of its property string.
    pub(super) fn prepare(&mut self, named: &BTreeMap<String, BTreeMap<String, Type>>) {
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
    pub(super) fn regex(&self) -> Option<&Regex> {
        let made = || self.pattern.as_deref().and_then(|pattern| Regex::new(&format!("^(?:{pattern})$")).ok());
        self.regex.get_or_init(made).as_ref()
    }

    /// The privileges and CPU flags that exist depend on the release.
    pub(super) fn of_release(&mut self, pve: PveVersion) {
        if pve == PveVersion::V9
            && let Some(Value::String(name)) = &mut self.format
        {
            *name = name.replace("pve-priv", "pve-priv-9").replace("pve-vm-cpu-conf", "pve-vm-cpu-conf-9");
        }
    }

    /// It may be left out.
    pub(super) fn is_optional(&self) -> bool {
        self.optional
            .as_ref()
            .is_some_and(|flag| flag.as_u64() == Some(1) || flag.as_str() == Some("1") || *flag == Value::Bool(true))
    }

    /// What a config file's reader makes of a text.
    pub(super) fn value(&self, text: &str) -> Value {
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

    /// A switch: 0 or 1.
    pub(super) fn is_switch(&self) -> bool {
        self.kind.as_deref() == Some("boolean")
    }

    /// Its text is a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(&self.format, Some(Value::String(name)) if name.ends_with("-list"))
    }
}
