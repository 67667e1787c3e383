//! A small ordered YAML value, read and written the way the real generator's library does.
//!
//! Purpose: keep the order of keys and the exact text of scalars, so that documents can be compared and diffed byte for
//! byte. Must not know: what a machine configuration is. Start with [`Value`], then [`read()`], whose steps are [`scan`],
//! [`compose`] and [`plain`], and [`emit`].
//!
//! The reader keeps the limits of go.yaml.in/yaml v4.0.0-rc.4, because a node has them: YAML 1.1 only, keys on one line, no
//! tab in an indent or a block's margin, no merges and aliases for keys where keys are known (that is for the shapes to
//! say). It has limits of its own in depth and size.

mod characters;
mod compose;
mod emit;
mod flag;
mod fold;
mod map;
mod members;
mod number;
mod order;
mod plain;
mod properties;
mod read;
mod scan;
mod tagged;
mod texts;

use std::fmt;

pub use emit::{Layout, document, document_in, stream};
pub use flag::Flag;
pub use map::{Map, Odd};
pub use number::{Number, Sort};
pub use read::{Document, Marks, Nothing, Spot, YamlError, first, one, read, read_all};

/// A YAML node. Text in it may be secret: `Debug` shows shapes and keys only.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`, with the text it was written as.
    Bool(Flag),
    /// A number or a date, with the text it was written as.
    Number(Number),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping with string keys, in order.
    Map(Map),
}

impl Value {
    /// A list of strings.
    pub fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| Self::Text(text.as_ref().to_owned())).collect())
    }

    /// The mapping, if this is one.
    pub fn as_map(&self) -> Option<&Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The mapping to change, if this is one.
    pub fn as_map_mut(&mut self) -> Option<&mut Map> {
        if let Self::Map(map) = self { Some(map) } else { None }
    }

    /// The string, if this is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The list, if this is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        if let Self::List(list) = self { Some(list) } else { None }
    }

    /// The node under a path of mapping keys.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.as_map()?.get(key))
    }

    /// What kind of node this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Number(number) if number.sort == Sort::Date => "a date",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    /// This value with every null of a mapping taken out, as comparisons want it.
    #[must_use]
    pub fn without_nulls(&self) -> Self {
        match self {
            Self::Map(map) => Self::Map(
                map.iter()
                    .filter(|(_, value)| **value != Self::Null)
                    .map(|(key, value)| (key.to_owned(), value.without_nulls()))
                    .collect(),
            ),
            Self::List(list) => Self::List(list.iter().map(Self::without_nulls).collect()),
            other => other.clone(),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => write!(f, "{flag}"),
            Self::Number(_) => f.write_str("number"),
            Self::Text(_) => f.write_str("text"),
            Self::List(list) => f.debug_list().entries(list).finish(),
            Self::Map(map) => map.fmt(f),
        }
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value.into())
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        let text = value.to_string();
        Self::Number(Number { raw: text.clone(), normal: text, sort: Sort::Whole })
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        u32::from(value).into()
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Self::Map(map)
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Self::List(list)
    }
}
