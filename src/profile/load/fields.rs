//! Reads keys of a mapping one by one and notes everything that is wrong on the way.
//!
//! Purpose: a reader that asks for each key it knows gets types, messages and the list of known keys from one place;
//! what nobody asked for is an unknown key. Nothing stops at the first problem.
//! Must not know: which keys there are. Start reading at [`Fields`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use crate::profile::problem::{Problem, Severity};
use crate::profile::quantity;
use crate::profile::tree::{Data, Node, Source, holds_password};

/// What is said of keys that the design names and this version doesn't have.
const UNSUPPORTED: &str = "this key is not supported by this version of recast";

/// Collects problems of one file.
pub(in crate::profile) struct Log<'a> {
    source: &'a Source,
    /// What could not be read.
    problems: RefCell<Vec<Problem>>,
    /// What was read and breaks a rule.
    broken: RefCell<Vec<Problem>>,
}

impl<'a> Log<'a> {
    pub(in crate::profile) fn new(source: &'a Source) -> Self {
        Self { source, problems: RefCell::new(source.twice().to_vec()), broken: RefCell::default() }
    }

    /// The whole file as a mapping.
    pub(super) fn root(&self) -> Fields<'_> {
        Value { log: self, node: self.source.root(), path: String::new() }.fields()
    }

    fn push(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Adds a problem that a rule found, unless the key it is about could not even be read.
    pub(in crate::profile) fn rule(&self, problem: Problem) {
        if !self.spoilt(&problem.key) {
            self.broken.borrow_mut().push(self.source.place(problem));
        }
    }

    /// Whether a key, something in it or something around it could not be read.
    pub(in crate::profile) fn spoilt(&self, key: &str) -> bool {
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            outer.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        let errors = self.problems.borrow();
        let mut errors = errors.iter().filter(|known| known.severity == Severity::Error);
        errors.any(|known| within(key, &known.key) || within(&known.key, key))
    }

    /// All problems by place: errors, then what only warns.
    pub(in crate::profile) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        let mut problems = self.problems.into_inner();
        problems.extend(self.broken.into_inner());
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.into_iter().partition(|problem| problem.severity == Severity::Error)
    }
}

/// The keys of one mapping.
pub(super) struct Fields<'a> {
    log: &'a Log<'a>,
    /// Absent when the value is no mapping, which has been noted.
    node: Option<&'a Node>,
    path: String,
    known: Vec<&'static str>,
    refused: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// The value of `key`, unless it is absent or null.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.known.push(key);
        let entry = self.node?.get(key).filter(|entry| !entry.value.is_null())?;
        Some(Value { log: self.log, node: &entry.value, path: join(&self.path, key) })
    }

    /// Reads `key` when it is there.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(|value| read(&value))
    }

    /// Reads `key`; its absence is a problem.
    pub(super) fn required<T>(&mut self, key: &'static str, read: impl FnOnce(&Value<'a>) -> Option<T>) -> Option<T> {
        let value = self.get(key);
        if value.is_none()
            && let Some(node) = self.node
        {
            let problem = Problem::at(join(&self.path, key), "this key is missing");
            self.log.push(self.log.source.set(problem, node.place));
        }
        value.and_then(|value| read(&value))
    }

    /// Names keys that a later version will know.
    pub(super) fn refuse(&mut self, keys: &[&'static str]) {
        self.refused.extend(keys);
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        let Some(Node { data: Data::Map(entries), .. }) = self.node else { return };
        for entry in entries.iter().filter(|entry| !self.known.contains(&entry.name.as_str())) {
            let key = join(&self.path, &entry.name);
            let problem = if self.refused.contains(&entry.name.as_str()) {
                Problem::at(key, UNSUPPORTED).hinted("remove it, or use a version that supports it")
            } else {
                let hint = match nearest(&entry.name, &self.known) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("known here: {}", self.known.join(", ")),
                };
                Problem::at(key, "unknown key").hinted(hint)
            };
            self.log.push(self.log.source.set(problem, entry.place));
        }
    }

    /// All entries, for mappings whose keys are free.
    pub(super) fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let Some(Node { data: Data::Map(entries), .. }) = self.node else { return Vec::new() };
        let value = |entry: &'a crate::profile::tree::Entry| {
            let value = Value { log: self.log, node: &entry.value, path: join(&self.path, &entry.name) };
            (entry.name.as_str(), value)
        };
        entries.iter().map(value).collect()
    }
}

/// One value with its key path.
pub(super) struct Value<'a> {
    log: &'a Log<'a>,
    node: &'a Node,
    path: String,
}

impl<'a> Value<'a> {
    /// Notes that this value is wrong.
    pub(super) fn problem(&self, what: impl Into<String>) {
        self.note(Problem::at(self.path.clone(), what));
    }

    /// Notes something about this value that stops nothing, and what to do about it.
    pub(super) fn warning(&self, what: &str, hint: &str) {
        self.note(Problem::at(self.path.clone(), what).hinted(hint).warning());
    }

    fn note(&self, problem: Problem) {
        self.log.push(self.log.source.set(problem, self.node.place));
    }

    fn expected<T>(&self, what: &str) -> Option<T> {
        self.problem(format!("expected {what}, found {}", self.node.kind()));
        None
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self.node.data, Data::Scalar(_))
    }

    /// A scalar as it is written, numbers included.
    fn scalar(&self) -> Option<&'a str> {
        match &self.node.data {
            Data::Scalar(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<String> {
        match self.scalar() {
            Some("") => {
                self.problem("this is empty");
                None
            }
            Some(text) => Some(text.to_owned()),
            None => self.expected("text"),
        }
    }

    /// A scalar in a form that says itself what it expected.
    pub(super) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(error.to_string());
                None
            }
        }
    }

    /// A scalar that must be `what`, a noun phrase.
    pub(super) fn a<T>(&self, what: &str, read: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text()?;
        let value = read(&text);
        if value.is_none() {
            let shown = if holds_password(&text) { "this".to_owned() } else { format!("'{text}'") };
            self.problem(format!("{shown} is not {what}"));
        }
        value
    }

    pub(super) fn number<T: FromStr>(&self) -> Option<T> {
        self.a("a whole number", |text| text.parse().ok())
    }

    pub(super) fn flag(&self) -> Option<bool> {
        self.a("true or false", |text| match text {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        })
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        self.a(quantity::A_DURATION, quantity::duration)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, of: &[(&str, T)]) -> Option<T> {
        let words: Vec<&str> = of.iter().map(|(word, _)| *word).collect();
        self.a(&format!("one of {}", words.join(", ")), |text| {
            of.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
        })
    }

    /// A list; items that can't be read are noted and left out.
    pub(super) fn list<T>(&self, read: impl Fn(&Value<'a>) -> Option<T>) -> Option<Vec<T>> {
        let Data::List(items) = &self.node.data else { return self.expected("a list") };
        let item = |(index, node)| read(&Value { log: self.log, node, path: format!("{}[{index}]", self.path) });
        Some(items.iter().enumerate().filter_map(item).collect())
    }

    /// Free keys with scalar values, those of `others` left out.
    pub(super) fn scalars(&self, others: &[&'static str]) -> Option<BTreeMap<String, String>> {
        let fields = self.fields();
        fields.node?;
        let mut found = BTreeMap::new();
        for (key, value) in fields.entries() {
            if !others.contains(&key)
                && let Some(text) = value.text()
            {
                found.insert(key.to_owned(), text);
            }
        }
        Some(found)
    }

    /// What stands under `key`, if this is a mapping that has it.
    pub(super) fn at(&self, key: &str) -> Option<Value<'a>> {
        let entry = self.node.get(key).filter(|entry| !entry.value.is_null())?;
        Some(Value { log: self.log, node: &entry.value, path: join(&self.path, key) })
    }

    /// The keys of a mapping.
    pub(super) fn fields(&self) -> Fields<'a> {
        let node = matches!(self.node.data, Data::Map(_)).then_some(self.node);
        if node.is_none() {
            self.expected::<()>("a mapping");
        }
        Fields { log: self.log, node, path: self.path.clone(), known: Vec::new(), refused: Vec::new() }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The known key that was most likely meant.
fn nearest<'k>(given: &str, known: &[&'k str]) -> Option<&'k str> {
    let score =
        |key: &str| strsim::normalized_damerau_levenshtein(given, key).max(strsim::jaro_winkler(given, key) - 0.15);
    let best = known.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b)))?;
    (score(best) >= 0.6).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_offered_only_when_it_is_near() {
        let known = ["kubernetes_version", "version", "secrets_file", "vip"];
        assert_eq!(nearest("kubernetesVersion", &known), Some("kubernetes_version"));
        assert_eq!(nearest("verison", &known), Some("version"));
        assert_eq!(nearest("secret_file", &known), Some("secrets_file"));
        assert_eq!(nearest("colour", &known), None);
    }
}
