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
mod fold;
mod members;
mod order;
mod plain;
mod properties;
mod read;
mod scan;
mod tagged;
mod texts;

use std::fmt;

pub use emit::{Layout, document, document_in, stream};
pub use read::{Document, Marks, Spot, YamlError, one, read, read_all};

/// A YAML node. Text in it may be secret: `Debug` shows shapes and keys only.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number or a date, with the text it was written as.
    Number(Number),
    /// A string.
    Text(String),
    /// A sequence.
    List(Vec<Value>),
    /// A mapping with string keys, in order.
    Map(Map),
}

/// What a number is to the real generator's library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A whole one.
    Whole,
    /// One with a fraction or an exponent, even if there is nothing behind its point.
    Fraction,
    /// A date, which is none but is told from texts as numbers are.
    Date,
}

/// A number as it was written; equal when the normal forms are equal.
#[derive(Clone)]
pub struct Number {
    raw: String,
    normal: String,
    sort: Sort,
}

impl Number {
    /// Reads `raw` as the YAML 1.1/1.2 mix that the real generator's library resolves; `None` when it is no number.
    pub fn parse(raw: &str) -> Option<Self> {
        plain::number(raw).map(|(normal, sort)| Self { raw: raw.to_owned(), normal, sort })
    }

    /// A date, as RFC 3339 has it.
    fn date(raw: &str, normal: String) -> Self {
        Self { raw: raw.to_owned(), normal, sort: Sort::Date }
    }

    /// What it is.
    pub fn sort(&self) -> Sort {
        self.sort
    }

    /// The number whose decimal form is `normal`, written as file modes are: `0o644`. Equal to the decimal one only in
    /// what it means, not in its form.
    pub fn octal(normal: &str) -> Option<Self> {
        let octal = |mode: u32| Self { raw: normal.to_owned(), normal: format!("{mode:#o}"), sort: Sort::Whole };
        normal.parse().ok().map(octal)
    }

    /// What it counts, if there is nothing behind its point.
    pub fn whole(&self) -> Option<i128> {
        match self.sort {
            Sort::Whole => self.normal.parse().ok(),
            Sort::Fraction => plain::whole(self.normal.parse().ok()?),
            Sort::Date => None,
        }
    }

    /// This one as JSON has it: whole where nothing is behind its point, unless it is very large. A date is a text there.
    pub fn in_json(&self) -> Option<Value> {
        match self.sort {
            Sort::Date => Some(Value::Text(self.normal.clone())),
            Sort::Whole if self.normal.starts_with("0o") => Self::parse(&self.normal).map(Value::Number),
            Sort::Whole => Some(Value::Number(self.clone())),
            Sort::Fraction => {
                let value: f64 = self.normal.parse().ok().filter(|value: &f64| value.is_finite())?;
                let text = if value.abs() < 1e21 { plain::whole(value).map(|whole| whole.to_string()) } else { None };
                Self::parse(&text.unwrap_or_else(|| self.normal.clone())).map(Value::Number)
            }
        }
    }

    /// As it stood in the source: what a string-typed field takes.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// As it is written: decimal, shortest form.
    pub fn normal(&self) -> &str {
        &self.normal
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.normal == other.normal
    }
}

/// What is unusual about a key of a mapping, as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// It is a number, a switch or a date.
    Foreign,
    /// It stands for an anchor.
    Alias,
    /// It is `<<`.
    Merge,
    /// It is `<<`, and no alias follows but what is merged itself.
    MergeHere,
    /// It is not there.
    Missing,
}

/// A mapping that keeps the order in which keys were put.
#[derive(Clone, Default)]
pub struct Map(Vec<(String, Value)>, Vec<Odd>);

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Map {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    fn note(&mut self, odd: Odd) {
        if !self.1.contains(&odd) {
            self.1.push(odd);
        }
    }

    /// This mapping with keys that are texts: what a number or a switch is written as.
    #[must_use]
    pub fn with_text_keys(self) -> Self {
        let text = |key: String| match plain::resolve(&key) {
            Value::Number(number) if number.sort() != Sort::Date => number.normal().to_owned(),
            Value::Bool(value) => value.to_string(),
            _ => key,
        };
        self.0.into_iter().map(|(key, value)| (text(key), value)).collect()
    }

    /// Whether a key was written in this unusual way.
    pub fn has(&self, odd: Odd) -> bool {
        self.1.contains(&odd)
    }

    /// This mapping with `key` set at its end.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.set(key, value);
        self
    }

    /// This mapping, with `key` set if there is a value for it.
    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl Into<Value>>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Sets `key` where it is, or at the end.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.get_mut(key) {
            Some(place) => *place = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(at).1)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Keys and values in order, the values to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.0.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// Sorts the keys, as free-form maps are written: numbers in them by what they count.
    pub fn sort(&mut self) {
        let mut sorted: Vec<(String, Value)> = Vec::with_capacity(self.0.len());
        for entry in self.0.drain(..) {
            let at = sorted.partition_point(|(key, _)| !order::is_before(&entry.0, key));
            sorted.insert(at, entry);
        }
        self.0 = sorted;
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl FromIterator<(String, Value)> for Map {
    fn from_iter<I: IntoIterator<Item = (String, Value)>>(pairs: I) -> Self {
        let mut map = Self::new();
        for (key, value) in pairs {
            map.set(&key, value);
        }
        map
    }
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
            Self::Bool(value) => write!(f, "{value}"),
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
        Self::Bool(value)
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
