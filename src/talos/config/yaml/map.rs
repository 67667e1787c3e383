//! Mappings: keys in the order they were put, found in one step however many there are.
//!
//! Must not know: how they are written or read.

use std::collections::HashMap;

use super::{Sort, Value, order, plain};

/// Up to so many keys are looked through one by one: nearly every mapping is that small.
const FEW: usize = 16;

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
pub struct Map {
    entries: Vec<(String, Value)>,
    odd: Vec<Odd>,
    /// Where each key is among the entries; empty while there are few.
    places: HashMap<String, usize>,
}

impl PartialEq for Map {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Map {
    /// An empty mapping.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn note(&mut self, odd: Odd) {
        if !self.odd.contains(&odd) {
            self.odd.push(odd);
        }
    }

    /// Where a key is.
    fn place(&self, key: &str) -> Option<usize> {
        if self.places.is_empty() {
            self.entries.iter().position(|(name, _)| name == key)
        } else {
            self.places.get(key).copied()
        }
    }

    /// Notes again where all keys are, if there are more than a few.
    fn number(&mut self) {
        self.places.clear();
        if self.entries.len() > FEW {
            self.places.extend(self.entries.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)));
        }
    }

    /// This mapping with keys that are texts: what a number or a switch is on its way to JSON. Nothing where one is too
    /// large.
    pub fn with_text_keys(self) -> Option<Self> {
        let text = |key: String| match plain::resolve(&key) {
            _ if key == "-0" => Some("0".to_owned()),
            Value::Number(number) if number.sort() == Sort::Fraction => Some(plain::short(number.normal())),
            Value::Number(number) if number.sort() == Sort::Whole => {
                number.whole().filter(|whole| i64::try_from(*whole).is_ok()).map(|whole| whole.to_string())
            }
            Value::Bool(value) => Some(value.to_string()),
            _ => Some(key),
        };
        self.entries.into_iter().map(|(key, value)| Some((text(key)?, value))).collect()
    }

    /// Whether a key was written in this unusual way.
    pub fn has(&self, odd: Odd) -> bool {
        self.odd.contains(&odd)
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
        if let Some(at) = self.place(key) {
            self.entries[at].1 = value;
            return;
        }
        self.entries.push((key.to_owned(), value));
        if self.places.is_empty() {
            self.number();
        } else {
            self.places.insert(key.to_owned(), self.places.len());
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.place(key)?;
        let (_, value) = self.entries.remove(at);
        if self.entries.len() > FEW {
            self.places.remove(key);
            self.places.values_mut().filter(|place| **place > at).for_each(|place| *place -= 1);
        } else {
            self.places.clear();
        }
        Some(value)
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.place(key).map(|at| &self.entries[at].1)
    }

    /// The value of `key`, to change.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.place(key).map(|at| &mut self.entries[at].1)
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Keys and values in order, the values to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut Value)> {
        self.entries.iter_mut().map(|(key, value)| (key.as_str(), value))
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(key, _)| key.as_str())
    }

    /// Sorts the keys, as free-form maps are written: numbers in them by what they count.
    pub fn sort(&mut self) {
        let keys: Vec<Vec<char>> = self.entries.iter().map(|(key, _)| key.chars().collect()).collect();
        let mut sorted: Vec<usize> = Vec::with_capacity(keys.len());
        for (at, key) in keys.iter().enumerate() {
            let place = sorted.partition_point(|other| !order::is_before(key, &keys[*other]));
            sorted.insert(place, at);
        }
        let mut entries: Vec<Option<(String, Value)>> = self.entries.drain(..).map(Some).collect();
        self.entries.extend(sorted.into_iter().filter_map(|at| entries[at].take()));
        self.number();
    }
}

impl IntoIterator for Map {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn map(keys: impl Iterator<Item = u32>) -> Map {
        keys.map(|key| (format!("k{key}"), Value::from(key))).collect()
    }

    #[test]
    fn keys_stay_in_order_and_are_found_however_many_there_are() {
        for count in [0, 1, 15, 16, 17, 18, 100] {
            let mut many = map((0..count).rev());
            assert_eq!(u32::try_from(many.len()), Ok(count));
            assert!(many.keys().zip((0..count).rev()).all(|(key, wanted)| key == format!("k{wanted}")));
            assert!((0..count).all(|key| many.get(&format!("k{key}")) == Some(&Value::from(key))), "{count}");
            many.sort();
            assert_eq!(many, map(0..count));
            assert!((0..count).all(|key| many.get(&format!("k{key}")) == Some(&Value::from(key))), "{count}");
        }
    }

    #[test]
    fn what_is_set_again_stays_where_it_was_and_what_goes_is_gone() {
        for count in [3, 16, 17, 18, 40] {
            let mut many = map(0..count);
            many.set("k1", "new");
            assert_eq!(many.iter().nth(1), Some(("k1", &Value::from("new"))));
            assert_eq!(many.remove("k0"), Some(Value::from(0_u32)));
            assert_eq!((many.remove("k0"), many.get("k0")), (None, None));
            assert_eq!(many.iter().next(), Some(("k1", &Value::from("new"))));
            many.set("k0", true);
            assert_eq!(many.keys().last(), Some("k0"));
            assert!((2..count).all(|key| many.get(&format!("k{key}")) == Some(&Value::from(key))), "{count}");
        }
    }
}
