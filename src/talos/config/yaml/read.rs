//! Reads YAML into values, with the line of every node.
//!
//! What is refused here is what Talos refuses to read, and what its library reads in a way that nobody means: see
//! [`mod@super`]. Must not know: what the documents mean. An error names a line and a column and never quotes the text,
//! which may hold secrets.

use std::collections::HashMap;
use std::fmt;

use super::Value;
use super::compose::Composer;
use super::scan::{scan, scan_first};

/// Text that is not the YAML it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// The text is no YAML.
    #[error("line {line}, column {column}: {what}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
        /// What the reader stumbled over.
        what: String,
    },
    /// A mapping has a key twice.
    #[error("line {line}: the key '{key}' is there twice")]
    Twice {
        /// The line of the second one.
        line: usize,
        /// The key.
        key: String,
    },
    /// A key that is not a scalar.
    #[error("line {line}: a key must be a string")]
    Key {
        /// Its line.
        line: usize,
    },
    /// A key that is nothing: the library drops it, and its value.
    #[error("line {line}: a key can't be null; quote it")]
    NullKey {
        /// Its line.
        line: usize,
    },
    /// An alias to nothing, or to what it stands in.
    #[error("line {line}: the alias has no usable target")]
    Alias {
        /// Its line.
        line: usize,
    },
    /// Aliases that unfold to nearly all there is: a node refuses them.
    #[error("line {line}: nearly everything comes from aliases of aliases: write it out, or use fewer of them")]
    Aliases {
        /// The line of the one that is too many.
        line: usize,
    },
    /// More than this program reads.
    #[error("line {line}: there are more than {most} values up to here: no configuration has so many")]
    TooMany {
        /// The line of the one that is too many.
        line: usize,
        /// How many there may be.
        most: usize,
    },
    /// One document was wanted.
    #[error("one document was expected, {count} are there")]
    Count {
        /// How many there are.
        count: usize,
    },
}

/// A place in a text: line and column, both from 1; zeros are no place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Spot {
    /// Where a text begins.
    pub const START: Self = Self { line: 1, column: 1 };

    /// Whether this is a place at all.
    pub fn is_known(self) -> bool {
        self.line > 0
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// Where a document's nodes stand, by path (`machine.network.interfaces[0]`).
#[derive(Clone, Debug, Default)]
pub struct Marks(HashMap<String, Spot>);

impl Marks {
    /// Notes where a node stands, unless its key was noted.
    pub(super) fn note(&mut self, path: &str, spot: Spot) {
        self.0.entry(path.to_owned()).or_insert(spot);
    }

    /// Where the node at `path`, or its nearest parent, stands.
    pub fn spot(&self, path: &str) -> Option<Spot> {
        let mut path = path;
        loop {
            if let Some(spot) = self.0.get(path) {
                return Some(*spot);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// The line of the node at `path`, or of its nearest parent.
    pub fn line(&self, path: &str) -> Option<usize> {
        self.spot(path).map(|spot| spot.line)
    }
}

/// A document and where its nodes stand.
#[derive(Clone, Debug)]
pub struct Document {
    /// The content.
    pub root: Value,
    /// Where its first node stands.
    pub spot: Spot,
    /// Where its nodes stand.
    pub marks: Marks,
    /// How it comes that there is nothing in it, if so.
    pub nothing: Nothing,
}

/// What stands in a document without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Nothing {
    /// `null`, or not even that.
    #[default]
    Null,
    /// A text that the tag `!!null` is before: documents of it are passed over, and no type takes it.
    Tagged,
}

/// All documents of `text` that have content, in order.
pub fn read(text: &str) -> Result<Vec<Document>, YamlError> {
    Ok(read_all(text)?.into_iter().filter(|document| document.root != Value::Null).collect())
}

/// All documents of `text`, also those that have nothing in them.
pub fn read_all(text: &str) -> Result<Vec<Document>, YamlError> {
    Composer::new(scan(text)?).documents()
}

/// The first document of `text`, also when there is nothing in it. What follows it is not read, and of a key that is null
/// nothing is kept: so the real library reads into a type.
pub fn first(text: &str) -> Result<Option<Document>, YamlError> {
    let documents = Composer::new(scan_first(text)?).dropping_null_keys().documents()?;
    Ok(documents.into_iter().next())
}

/// The only document of `text`.
pub fn one(text: &str) -> Result<Document, YamlError> {
    let mut documents = read(text)?;
    match (documents.pop(), documents.len()) {
        (Some(only), 0) => Ok(only),
        (last, others) => Err(YamlError::Count { count: others + usize::from(last.is_some()) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_knows_its_place() {
        let documents = read("a: 1\n---\n# comment\nb:\n  - c: x\n    d: y\n").unwrap();
        assert_eq!(documents.len(), 2);
        assert_eq!(documents[1].marks.line("b[0].d"), Some(6));
        assert_eq!(documents[1].marks.spot("b[0].missing"), Some(Spot { line: 5, column: 5 }));
    }

    #[test]
    fn the_first_document_is_read_whatever_follows() {
        let root = |text: &str| first(text).map(|document| document.map(|document| document.root));
        let a = one("a: b\n").unwrap().root;
        for behind in
            ["---\n{broken\n", "...\nx: [\n", "---\nx: y: z\n", "---\n*x\n", "--- !x\n", "null: c\n", "? ~\n: {}\n"]
        {
            assert_eq!(root(&format!("a: b\n{behind}")), Ok(Some(a.clone())), "{behind}");
        }
        assert_eq!(root("%YAML 1.1\n--- # x\na: b\n---\n"), Ok(Some(a)));
        assert_eq!((root("---\n---\na: b\n"), root("# x\n")), (Ok(Some(Value::Null)), Ok(None)));
        assert!(root("a: b\n---\n\tx\n").is_err() && root("a: [b\n---\n").is_err());
    }

    #[test]
    fn errors_name_the_line_and_never_the_text() {
        let error = read("token: hush\nother: [hush}\n").unwrap_err();
        assert!(matches!(error, YamlError::Syntax { line: 2, .. }), "{error}");
        assert!(!error.to_string().contains("hush"));
        assert!(matches!(read("a: 1\na: 2\n"), Err(YamlError::Twice { line: 2, .. })));
    }

    #[test]
    fn aliases_unfold_but_not_without_end() {
        let root = one("a: &x {k: v}\nb:\n  <<: *x\n  l: 1\nc: *x\n").unwrap().root;
        assert_eq!(root.at(&["b", "k"]).and_then(Value::as_text), Some("v"));
        assert_eq!(root.at(&["c", "k"]).and_then(Value::as_text), Some("v"));
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let inner = format!("*a{}", level - 1);
            bomb = format!("{bomb}a{level}: &a{level} [{}]\n", vec![inner; 10].join(", "));
        }
        assert_eq!(read(&bomb).unwrap_err(), YamlError::Aliases { line: 4 });
        let list = |count: usize| format!("l:\n{}", "- x\n".repeat(count));
        assert_eq!(read(&list(250_000)).unwrap_err(), YamlError::TooMany { line: 199_999, most: 200_000 });
    }

    #[test]
    fn aliases_may_be_nearly_all_of_a_document() {
        let nested = |width: usize| {
            let first = format!("a: &a [{}]\n", vec!["x"; width].join(", "));
            let second = format!("b: &b [{}]\n", vec!["*a"; width].join(", "));
            format!("{first}{second}c: [{}]\n", vec!["*b"; width].join(", "))
        };
        assert!(read(&nested(12)).is_ok());
        assert_eq!(read(&nested(20)).unwrap_err(), YamlError::Aliases { line: 3 });
    }

    #[test]
    fn every_break_begins_a_line() {
        for end in ["\n", "\r", "\r\n", "\u{85}", "\u{2028}", "\u{2029}"] {
            let at = |text: &str| match read(&text.replace('\n', end)) {
                Err(YamlError::Syntax { line, column, .. }) => Some((line, column)),
                Err(YamlError::Twice { line, .. }) => Some((line, 0)),
                _ => None,
            };
            assert_eq!(at("a: b\n\nc: \"d\u{1}\"\n"), Some((3, 6)), "{end:?}");
            assert_eq!(at("a: b\n\nc: [\n"), Some((3, 4)), "{end:?}");
            assert_eq!(at("a: b\n# c\n\na: c\n"), Some((4, 0)), "{end:?}");
        }
    }

    #[test]
    fn a_mapping_of_many_keys_is_read_and_its_double_found() {
        let mut text: String = (0..60_000).map(|key| format!("k{key}: v\n")).collect();
        let root = one(&text).unwrap().root;
        assert_eq!(root.as_map().map(super::super::Map::len), Some(60_000));
        assert_eq!(root.at(&["k59999"]).and_then(Value::as_text), Some("v"));
        text.push_str("k30000: w\n");
        assert_eq!(read(&text).unwrap_err(), YamlError::Twice { line: 60_001, key: "k30000".to_owned() });
    }
}
