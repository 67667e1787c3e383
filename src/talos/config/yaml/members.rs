//! The members of a mapping as they are read: no key twice, and what is merged last.
//!
//! Must not know: tokens.

use std::collections::HashSet;

use super::tagged::wrong;
use super::{Map, Odd, Spot, Value, YamlError};

/// How a node is written.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Written {
    Here,
    AsAlias,
}

/// A mapping's key as it was written.
pub(super) struct Key {
    pub(super) text: String,
    pub(super) alias: Option<String>,
    pub(super) odd: Option<Odd>,
    pub(super) spot: Spot,
}

impl Key {
    /// The one that is missing.
    pub(super) fn null(spot: Spot) -> Self {
        Self { text: String::new(), alias: None, odd: Some(Odd::Missing), spot }
    }
}

/// A mapping's members as they are read.
#[derive(Default)]
pub(super) struct Members {
    /// The names of aliases, or else the keys: none may be there twice.
    pub(super) entries: HashSet<(Option<String>, String)>,
    map: Map,
    merged: Vec<Value>,
}

impl Members {
    pub(super) fn put(&mut self, key: Key, value: Value, written: Written) -> Result<(), YamlError> {
        let Key { text, alias, odd, spot } = key;
        if odd == Some(Odd::Missing) {
            return Err(YamlError::NullKey { line: spot.line });
        }
        if !self.entries.insert((alias, text.clone())) {
            return Err(YamlError::Twice { line: spot.line, key: text });
        }
        if let Some(odd) = odd {
            self.map.note(odd);
        }
        if odd == Some(Odd::Merge) && written == Written::Here {
            self.map.note(Odd::MergeHere);
        }
        if odd == Some(Odd::Merge) {
            self.merged.push(value);
        } else {
            self.map.set(&text, value);
        }
        Ok(())
    }

    pub(super) fn map(self, spot: Spot) -> Result<Value, YamlError> {
        let Self { mut map, merged, .. } = self;
        for value in merged {
            let sources = if let Value::List(list) = value { list } else { vec![value] };
            for source in sources {
                let Value::Map(source) = source else { return wrong(spot, "<< takes a mapping, or a list of them") };
                for (key, value) in source {
                    if map.get(&key).is_none() {
                        map.set(&key, value);
                    }
                }
            }
        }
        Ok(Value::Map(map))
    }
}
