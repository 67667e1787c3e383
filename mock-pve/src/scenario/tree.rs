//! A YAML document whose parts know where they stand.
//!
//! Must not know: what the keys mean. Start at [`parse`].

use std::collections::BTreeMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput};

use super::Problem;

/// How deep a scenario may nest, and how many parts it may have.
const DEEPEST: usize = 32;
const MOST: usize = 100_000;

/// Line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A part of a document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) data: Data,
}

#[derive(Clone, Debug)]
pub(super) enum Data {
    /// Text, and whether it was quoted.
    Text(String, bool),
    List(Vec<Node>),
    Map(Vec<(String, At, Node)>),
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.data {
            Data::Map(entries) => entries.iter().find(|(name, ..)| name == key).map(|(_, _, value)| value),
            _ => None,
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text, _) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn entries(&self) -> &[(String, At, Node)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Nothing was written, or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.data, Data::Text(text, false) if ["", "~", "null"].contains(&text.as_str()))
    }

    /// A whole number, unquoted.
    pub(super) fn integer(&self) -> Option<u64> {
        match &self.data {
            Data::Text(text, false) => text.parse().ok(),
            _ => None,
        }
    }
}

/// The document in a text. Keys that occur twice are problems.
pub(super) fn parse(text: &str) -> Result<Node, Problem> {
    let mut builder = Builder { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), count: 0 };
    let mut root = None;
    loop {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) if root.is_some() => {
                return Err(problem(span, "a second document: one file holds one scenario"));
            }
            event if event.is_node() => root = Some(builder.node(event, span, 0)?),
            _ => {}
        }
    }
    // An empty file is a scenario in which nothing goes wrong.
    let empty = Node { at: At { line: 1, column: 1 }, data: Data::Map(Vec::new()) };
    Ok(root.filter(|root| !root.is_null()).unwrap_or(empty))
}

fn at(marker: Marker) -> At {
    At { line: marker.line(), column: marker.col() + 1 }
}

fn problem(span: Span, what: impl Into<String>) -> Problem {
    let At { line, column } = at(span.start);
    Problem { line, column, what: what.into(), hint: None }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: BTreeMap<usize, Node>,
    count: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let At { line, column } = at(*error.marker());
                Err(Problem { line, column, what: format!("not valid YAML: {}", error.info()), hint: None })
            }
            None => Err(Problem { line: 1, column: 1, what: "not valid YAML: it ends too early".into(), hint: None }),
        }
    }

    fn inner(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            let (event, span) = self.next()?;
            if event.is_node() || matches!(event, Event::MappingEnd | Event::SequenceEnd) {
                return Ok((event, span));
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        self.count += 1;
        if depth > DEEPEST || self.count > MOST {
            return Err(problem(span, "too large or too deeply nested for a scenario"));
        }
        let (data, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (Data::Text(text.into_owned(), style != ScalarStyle::Plain), anchor)
            }
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.inner()?;
                    if matches!(event, Event::SequenceEnd) {
                        break (Data::List(items), anchor);
                    }
                    items.push(self.node(event, span, depth + 1)?);
                }
            }
            Event::MappingStart(_, anchor, _) => {
                let mut entries: Vec<(String, At, Node)> = Vec::new();
                loop {
                    let (event, key_span) = self.inner()?;
                    let key = match event {
                        Event::MappingEnd => break (Data::Map(entries), anchor),
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => return Err(problem(key_span, "a key must be plain text")),
                    };
                    if entries.iter().any(|(known, ..)| *known == key) {
                        return Err(problem(key_span, format!("`{key}` is there twice")));
                    }
                    let (event, span) = self.inner()?;
                    let value = self.node(event, span, depth + 1)?;
                    entries.push((key, at(key_span.start), value));
                }
            }
            Event::Alias(anchor) => match self.anchors.get(&anchor) {
                // Anchors hold whole parts: what they unfold to counts each time.
                Some(node) => {
                    self.count += weight(node);
                    return Ok(node.clone());
                }
                None => return Err(problem(span, "an alias that refers to nothing before it")),
            },
            _ => return Err(problem(span, "not valid YAML here")),
        };
        let node = Node { at: at(span.start), data };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

fn weight(node: &Node) -> usize {
    match &node.data {
        Data::Text(..) => 1,
        Data::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|(_, _, value)| weight(value)).sum::<usize>(),
    }
}
