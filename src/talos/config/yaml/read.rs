//! Reads YAML into values, with the line of every node.
//!
//! Must not know: what the documents mean. An error names a line and a column and never quotes the text, which may hold
//! secrets.

use std::collections::HashMap;
use std::fmt;

use granit_parser::{Event, Parser, ScalarStyle, Span};

use super::{Map, Number, Value, plain};

/// How many nodes a text may unfold to: aliases of aliases must not eat the memory.
const MOST_NODES: usize = 200_000;

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
    /// An alias to nothing, or to something that unfolds without end.
    #[error("line {line}: the alias has no usable target")]
    Alias {
        /// Its line.
        line: usize,
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

    fn of(span: &Span) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1 }
    }

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
}

/// All documents of `text` that have content, in order.
pub fn read(text: &str) -> Result<Vec<Document>, YamlError> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), nodes: 0 };
    let mut documents = Vec::new();
    while let Some((event, _)) = reader.next()? {
        if !matches!(event, Event::DocumentStart(..)) {
            continue;
        }
        let Some((event, span)) = reader.next()? else { break };
        if matches!(event, Event::DocumentEnd) {
            continue;
        }
        let mut marks = Marks::default();
        let spot = Spot::of(&span);
        let root = reader.node(event, span, "", &mut marks)?;
        if root != Value::Null {
            documents.push(Document { root, spot, marks });
        }
    }
    Ok(documents)
}

/// The only document of `text`.
pub fn one(text: &str) -> Result<Document, YamlError> {
    let mut documents = read(text)?;
    match (documents.pop(), documents.len()) {
        (Some(only), 0) => Ok(only),
        (last, others) => Err(YamlError::Count { count: others + usize::from(last.is_some()) }),
    }
}

struct Reader<'t> {
    events: Parser<'t, granit_parser::StrInput<'t>>,
    anchors: HashMap<usize, Value>,
    nodes: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, YamlError> {
        loop {
            match self.events.next() {
                None => return Ok(None),
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(found)) => return Ok(Some(found)),
                Some(Err(error)) => {
                    let at = error.marker();
                    let what = error.info().clone();
                    return Err(YamlError::Syntax { line: at.line(), column: at.col() + 1, what });
                }
            }
        }
    }

    fn inner(&mut self, line: usize) -> Result<(Event<'t>, Span), YamlError> {
        self.next()?.ok_or_else(|| YamlError::Syntax { line, column: 1, what: "the text ends too early".into() })
    }

    fn node(&mut self, event: Event<'t>, span: Span, path: &str, marks: &mut Marks) -> Result<Value, YamlError> {
        let line = span.start.line();
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            return Err(YamlError::Alias { line });
        }
        marks.0.entry(path.to_owned()).or_insert(Spot::of(&span));
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().and_then(|tag| tag.core_suffix().map(str::to_owned));
                (anchor, scalar(&text, style, tag.as_deref()))
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut list = Vec::new();
                loop {
                    let (event, span) = self.inner(line)?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let path = format!("{path}[{}]", list.len());
                    list.push(self.node(event, span, &path, marks)?);
                }
                (anchor, Value::List(list))
            }
            Event::MappingStart(_, anchor, _) => (anchor, Value::Map(self.mapping(line, path, marks)?)),
            Event::Alias(id) => {
                let value = self.anchors.get(&id).cloned().ok_or(YamlError::Alias { line })?;
                self.nodes += size(&value);
                (0, value)
            }
            _ => {
                return Err(YamlError::Syntax {
                    line,
                    column: span.start.col() + 1,
                    what: "a value is missing".into(),
                });
            }
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(&mut self, line: usize, path: &str, marks: &mut Marks) -> Result<Map, YamlError> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.inner(line)?;
            let line = span.start.line();
            let (key, style) = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, style, ..) => (text.into_owned(), style),
                Event::Alias(id) => match self.anchors.get(&id) {
                    Some(Value::Text(text)) => (text.clone(), ScalarStyle::DoubleQuoted),
                    _ => return Err(YamlError::Key { line }),
                },
                _ => return Err(YamlError::Key { line }),
            };
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            marks.0.insert(path.clone(), Spot::of(&span));
            let (event, span) = self.inner(line)?;
            let value = self.node(event, span, &path, marks)?;
            if key == "<<" && style == ScalarStyle::Plain {
                merged.push(value);
            } else if map.get(&key).is_some() {
                return Err(YamlError::Twice { line, key });
            } else {
                map.set(&key, value);
            }
        }
        for value in merged {
            let sources = if let Value::List(list) = value { list } else { vec![value] };
            for source in sources {
                let Value::Map(source) = source else { return Err(YamlError::Alias { line }) };
                for (key, value) in source {
                    if map.get(&key).is_none() {
                        map.set(&key, value);
                    }
                }
            }
        }
        Ok(map)
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Map(map) => 1 + map.iter().map(|(_, value)| size(value)).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Value {
    match tag {
        Some("str") => Value::Text(text.to_owned()),
        Some("int" | "float") => Number::parse(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
        Some("bool") => match plain::resolve(text) {
            value @ Value::Bool(_) => value,
            _ => Value::Text(text.to_owned()),
        },
        Some("null") => Value::Null,
        _ if style == ScalarStyle::Plain => plain::resolve(text),
        _ => Value::Text(text.to_owned()),
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
        assert!(matches!(read(&bomb), Err(YamlError::Alias { .. })));
    }
}
