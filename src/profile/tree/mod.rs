//! A YAML document as a tree that knows where each of its parts stands.
//!
//! Purpose: messages with line and column, and edits that touch nothing but one value. Scalars stay text: `1.10` is a
//! version here, never the number 1.1.
//! Must not know: profiles. Start reading at [`Source::parse`].

mod build;

use std::ops::Range;

use super::problem::{Problem, Problems};

/// A place in the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Single,
    Double,
    /// `|` and `>`.
    Folded,
    /// `[…]`, `{…}`.
    Flow,
    /// Indented collections.
    Block,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) key: Range<usize>,
    pub(super) value: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) data: Data,
    pub(super) style: Style,
    pub(super) place: Place,
    /// Bytes of the value in the text; of a block collection only the start is exact.
    pub(super) bytes: Range<usize>,
    /// Whether it is written elsewhere and only referred to here (`*alias`, `<<`).
    pub(super) borrowed: bool,
}

impl Node {
    /// Whether nothing was written, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Scalar(text)
            if self.style == Style::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    pub(super) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|entry| entry.name == key),
            _ => None,
        }
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.data {
            Data::Scalar(_) if self.is_null() => "nothing",
            Data::Scalar(_) => "a single value",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }
}

/// A parsed file: its name, its text and where everything stands in it.
#[derive(Clone)]
pub struct Source {
    file: String,
    text: String,
    root: Node,
    secrets: Vec<Range<usize>>,
    twice: Vec<Problem>,
}

impl std::fmt::Debug for Source {
    /// The file's name only: a site's text may hold a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Source {
    /// Parses one YAML document. The first problem of its syntax ends it.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let (root, twice) = match build::document(text) {
            Ok(built) => built,
            Err(fault) => {
                let mut problem = Problem::at("", fault.what);
                file.clone_into(&mut problem.file);
                (problem.line, problem.column) = (fault.place.line, fault.place.column);
                // Without a tree nobody can tell what on this line is a secret.
                problem.snippet =
                    line_of(text, fault.place.line).filter(|line| !may_hold_secret(line)).map(str::to_owned);
                return Err(Problems(vec![problem]));
            }
        };
        let mut secrets = Vec::new();
        collect_secrets(&root, Shown::Yes, &mut secrets);
        let mut source = Self { file: file.to_owned(), text: text.to_owned(), root, secrets, twice: Vec::new() };
        let problem = |(name, place)| source.set(Problem::at(name, "this key occurs twice in one mapping"), place);
        source.twice = twice.into_iter().map(problem).collect();
        Ok(source)
    }

    /// Keys that occur twice in one mapping; of such, the first one is read.
    pub(super) fn twice(&self) -> &[Problem] {
        &self.twice
    }

    /// The file's name for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn root(&self) -> &Node {
        &self.root
    }

    /// Fills in file, line, column and snippet of a problem from its key path, going up to the nearest key that exists.
    #[must_use]
    pub fn place(&self, problem: Problem) -> Problem {
        let place = self.find(&problem.key);
        self.set(problem, place)
    }

    pub(super) fn set(&self, mut problem: Problem, place: Place) -> Problem {
        problem.file.clone_from(&self.file);
        (problem.line, problem.column) = (place.line, place.column);
        problem.snippet = self.snippet(place.line);
        problem
    }

    /// Where the value of a key path stands, or the nearest of its parents.
    fn find(&self, path: &str) -> Place {
        let mut node = &self.root;
        let mut place = node.place;
        for segment in segments(path) {
            let next = match (segment, &node.data) {
                (Segment::Key(key), Data::Map(_)) => node.get(key).map(|entry| {
                    (
                        &entry.value,
                        if entry.value.is_null() || matches!(entry.value.data, Data::Map(_)) {
                            entry.place
                        } else {
                            entry.value.place
                        },
                    )
                }),
                (Segment::Index(index), Data::List(items)) => items.get(index).map(|item| (item, item.place)),
                _ => None,
            };
            let Some((found, at)) = next else { return place };
            (node, place) = (found, at);
        }
        place
    }

    fn snippet(&self, line: usize) -> Option<String> {
        let found = line_of(&self.text, line)?;
        let start = found.as_ptr() as usize - self.text.as_ptr() as usize;
        Some(
            found
                .char_indices()
                .map(|(at, c)| if self.secrets.iter().any(|range| range.contains(&(start + at))) { '*' } else { c })
                .collect(),
        )
    }
}

/// A part of a key path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    Key(&'a str),
    Index(usize),
}

/// The parts of `nodes.workers.assignments[0].vmid`.
pub(super) fn segments(path: &str) -> Vec<Segment<'_>> {
    let mut found = Vec::new();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let mut pieces = part.split('[');
        if let Some(key) = pieces.next().filter(|key| !key.is_empty()) {
            found.push(Segment::Key(key));
        }
        found.extend(pieces.filter_map(|piece| piece.strip_suffix(']')?.parse().ok().map(Segment::Index)));
    }
    found
}

fn line_of(text: &str, line: usize) -> Option<&str> {
    text.lines().nth(line.checked_sub(1)?)
}

fn may_hold_secret(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    ["secret", "token", "password", "auth", "="].iter().any(|word| lower.contains(word))
}

/// Whether a text is a URL with a password: `scheme://user:password@host`.
pub(super) fn holds_password(text: &str) -> bool {
    let user = text.split_once("://").and_then(|(_, rest)| rest.split_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
}

#[derive(Clone, Copy, PartialEq)]
enum Shown {
    Yes,
    No,
}

/// Marks values that must not be quoted in messages: everything under a key that sounds like a secret, except what
/// only says where the secret is kept.
fn collect_secrets(node: &Node, shown: Shown, found: &mut Vec<Range<usize>>) {
    match &node.data {
        Data::Scalar(_) => {
            if shown == Shown::No || matches!(&node.data, Data::Scalar(text) if holds_password(text)) {
                found.push(node.bytes.clone());
            }
        }
        Data::List(items) => items.iter().for_each(|item| collect_secrets(item, shown, found)),
        Data::Map(entries) => {
            for entry in entries {
                let name = entry.name.to_ascii_lowercase();
                let below = match name.as_str() {
                    "secrets_file" | "env" | "file" | "command" | "id" | "name" | "host_key" => Shown::Yes,
                    _ if ["auth", "token", "secret", "password", "passwd"].iter().any(|word| name.contains(word)) => {
                        Shown::No
                    }
                    _ => shown,
                };
                collect_secrets(&entry.value, below, found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Source {
        Source::parse("t.yaml", text).unwrap()
    }

    #[test]
    fn scalars_stay_text_and_know_their_bytes() {
        let text = "a: 1.10 # c\nb: {ü: \"x\", d: 'y'}\n";
        let source = parse(text);
        let bytes = |node: &Node| text[node.bytes.clone()].to_owned();
        let b = &source.root.get("b").unwrap().value;
        assert!(matches!(&source.root.get("a").unwrap().value.data, Data::Scalar(text) if text == "1.10"));
        assert_eq!(bytes(&source.root.get("a").unwrap().value), "1.10");
        assert_eq!(bytes(b), "{ü: \"x\", d: 'y'}");
        assert_eq!(bytes(&b.get("ü").unwrap().value), "\"x\"");
        assert_eq!(bytes(&b.get("d").unwrap().value), "'y'");
    }

    #[test]
    fn anchors_and_merges_are_unfolded_and_bounded() {
        let source = parse("base: &b {cores: 2, disk: 1G}\nw: {<<: *b, cores: 4}\n");
        let w = &source.root.get("w").unwrap().value;
        assert!(matches!(&w.get("cores").unwrap().value.data, Data::Scalar(text) if text == "4"));
        assert!(w.get("disk").unwrap().value.borrowed);
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..8 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            bomb = format!("{bomb}a{level}: &a{level} [{previous}]\n");
        }
        assert!(Source::parse("t.yaml", &bomb).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn secrets_are_blanked_in_snippets_and_unparsed_lines_are_not_quoted() {
        let source = parse("auth: {token: {id: a@pve!x, secret: s3cret, oops: more}}\n");
        let shown = source.place(Problem::at("auth.token.oops", "unknown key")).snippet.unwrap();
        assert_eq!(shown, "auth: {token: {id: a@pve!x, secret: ******, oops: ****}}");
        let broken = Source::parse("t.yaml", "auth: {token: {secret: s3cret\n").unwrap_err();
        assert!(!broken.to_string().contains("s3cret"), "{broken}");
        assert!(!format!("{source:?}").contains("s3cret"));
    }

    #[test]
    fn a_key_that_occurs_twice_is_a_problem_with_its_place() {
        let source = parse("a: 1\nb: {c: 1, c: 2}\na: 2\n");
        let places: Vec<_> = source.twice().iter().map(|problem| (problem.line, problem.column)).collect();
        assert_eq!(places, [(2, 11), (3, 1)]);
    }
}
