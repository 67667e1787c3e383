//! Sets of paths into an object, as `fieldsV1` writes them (structured-merge-diff, fieldpath/serialize.go).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of paths: a tree whose steps are written `f:name`, `k:{…}`, `v:…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Paths {
    /// The path that leads here is in the set.
    pub(super) member: bool,
    pub(super) below: BTreeMap<String, Paths>,
}

impl Paths {
    /// Reads `fieldsV1`.
    pub(super) fn read(value: &Value) -> Self {
        let Some(map) = value.as_object() else { return Self { member: true, ..Self::default() } };
        let mut below = BTreeMap::new();
        for (step, value) in map.iter().filter(|(step, _)| *step != ".") {
            let inner = Self::read(value);
            let is_leaf = value.as_object().is_none_or(Map::is_empty);
            below.insert(step.clone(), Self { member: is_leaf || value.get(".").is_some(), ..inner });
        }
        Self { member: false, below }
    }

    /// Writes `fieldsV1`.
    pub(super) fn written(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.below.is_empty() {
            map.insert(".".to_owned(), json!({}));
        }
        for (step, below) in &self.below {
            map.insert(step.clone(), below.written());
        }
        Value::Object(map)
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.member && self.below.values().all(Self::is_empty)
    }

    pub(super) fn insert(&mut self, path: &[String]) {
        match path.split_first() {
            None => self.member = true,
            Some((step, rest)) => self.below.entry(step.clone()).or_default().insert(rest),
        }
    }

    pub(super) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (step, below) in &other.below {
            self.below.entry(step.clone()).or_default().union(below);
        }
    }

    /// Without the paths of another set.
    pub(super) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (step, below) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(below);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let below = self.below.iter().filter_map(|(step, mine)| {
            let both = mine.intersection(other.below.get(step)?);
            (!both.is_empty()).then(|| (step.clone(), both))
        });
        Self { member: self.member && other.member, below: below.collect() }
    }

    /// All paths, written as messages write them: `.spec.containers[name="a"].image`.
    pub(super) fn shown(&self) -> Vec<String> {
        let mut all = Vec::new();
        self.show("", &mut all);
        all
    }

    fn show(&self, path: &str, all: &mut Vec<String>) {
        if self.member {
            all.push(path.to_owned());
        }
        for (step, below) in &self.below {
            below.show(&format!("{path}{}", shown(step)), all);
        }
    }
}

fn shown(step: &str) -> String {
    match step.split_once(':') {
        Some(("f", name)) => format!(".{name}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let each: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", each.join(","))
        }
        Some(("v", value)) => format!("[={value}]"),
        Some((_, number)) => format!("[{number}]"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_and_written_as_kubernetes_does() {
        let text = json!({ "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
            "f:spec": { "f:containers": { "k:{\"name\":\"a\"}": { ".": {}, "f:image": {} } }, "f:finalizers": { "v:\"x\"": {} } } });
        let mut paths = Paths::read(&text);
        assert_eq!(paths.written(), text);
        assert_eq!(
            paths.shown(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image",
                ".spec.finalizers[=\"x\"]"
            ]
        );
        paths.subtract(&Paths::read(&json!({ "f:metadata": { "f:labels": { ".": {}, "f:app": {} } } })));
        assert!(!paths.below.contains_key("f:metadata"));
        let gone = paths.clone();
        paths.subtract(&gone);
        assert!(paths.is_empty());
    }
}
