//! From the parser's events to a tree.
//!
//! Must not know: what the keys mean. Start reading at [`document`].

use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Marker, Parser, ScalarStyle, Span, StrInput, StructureStyle};

use super::{Data, Entry, Node, Place, Style};

/// Nodes a document may unfold to; far beyond any profile, well below what aliases of aliases can grow to.
const MAX_NODES: usize = 100_000;
/// How deep collections may nest.
const MAX_DEPTH: usize = 64;

/// What ends the parsing, and where.
pub(super) struct Fault {
    pub(super) what: String,
    pub(super) place: Place,
}

/// The root of a document, and keys that occur twice in one mapping.
pub(super) fn document(text: &str) -> Result<(Node, Vec<(String, Place)>), Fault> {
    let parser = Parser::new_from_str(text);
    let mut builder = Builder { text, parser, anchors: HashMap::new(), nodes: 0, twice: Vec::new() };
    let root = builder.document()?;
    Ok((root, builder.twice))
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    twice: Vec<(String, Place)>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                Err(Fault { what: format!("not valid YAML: {}", error.info()), place: place(*error.marker()) })
            }
            None => Err(Fault { what: "not valid YAML: it ends too early".to_owned(), place: Place::default() }),
        }
    }

    fn document(&mut self) -> Result<Node, Fault> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::DocumentStart(..) if root.is_some() => {
                    let what = "a second document: one file holds one profile".to_owned();
                    return Err(Fault { what, place: place(span.start) });
                }
                Event::Scalar(..) | Event::MappingStart(..) | Event::SequenceStart(..) | Event::Alias(..) => {
                    root = Some(self.node(event, span, 0)?);
                }
                _ => {}
            }
        }
        let empty = || Fault { what: "the file is empty".to_owned(), place: Place { line: 1, column: 1 } };
        root.filter(|root| !root.is_null()).ok_or_else(empty)
    }

    /// The next event that belongs to a node, an end included.
    fn meaningful(&mut self) -> Result<(Event<'a>, Span), Fault> {
        loop {
            let (event, span) = self.next()?;
            if event.is_node() || matches!(event, Event::MappingEnd | Event::SequenceEnd) {
                return Ok((event, span));
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Fault> {
        let at = place(span.start);
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Fault { what: "too large or too deeply nested for a profile".to_owned(), place: at });
        }
        let bytes = self.offset(span.start)..self.offset(span.end);
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let style = match style {
                    ScalarStyle::Plain => Style::Plain,
                    ScalarStyle::SingleQuoted => Style::Single,
                    ScalarStyle::DoubleQuoted => Style::Double,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Folded,
                };
                (Node { data: Data::Scalar(text.into_owned()), style, place: at, bytes, borrowed: false }, anchor)
            }
            Event::SequenceStart(style, anchor, _) => {
                let mut items = Vec::new();
                let end = loop {
                    let (event, span) = self.meaningful()?;
                    if matches!(event, Event::SequenceEnd) {
                        break self.offset(span.end);
                    }
                    items.push(self.node(event, span, depth + 1)?);
                };
                (
                    Node {
                        data: Data::List(items),
                        style: layout(style),
                        place: at,
                        bytes: bytes.start..end,
                        borrowed: false,
                    },
                    anchor,
                )
            }
            Event::MappingStart(style, anchor, _) => {
                let (entries, end) = self.entries(depth)?;
                (
                    Node {
                        data: Data::Map(entries),
                        style: layout(style),
                        place: at,
                        bytes: bytes.start..end,
                        borrowed: false,
                    },
                    anchor,
                )
            }
            Event::Alias(anchor) => {
                let Some(found) = self.anchors.get(&anchor) else {
                    return Err(Fault { what: "an alias that refers to itself".to_owned(), place: at });
                };
                let mut node = found.clone();
                self.nodes += weight(&node);
                if self.nodes > MAX_NODES {
                    return Err(Fault { what: "too large for a profile".to_owned(), place: at });
                }
                borrow(&mut node, at);
                (node, 0)
            }
            _ => return Err(Fault { what: "not a value".to_owned(), place: at }),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn entries(&mut self, depth: usize) -> Result<(Vec<Entry>, usize), Fault> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.meaningful()?;
            if matches!(event, Event::MappingEnd) {
                let mut all = entries;
                for entry in merged {
                    let entry: Entry = entry;
                    if !all.iter().any(|known| known.name == entry.name) {
                        all.push(entry);
                    }
                }
                return Ok((all, self.offset(span.end)));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.meaningful()?;
            let value = self.node(event, span, depth + 1)?;
            let Data::Scalar(name) = key.data else {
                return Err(Fault { what: "a key must be a single word".to_owned(), place: key.place });
            };
            if name == "<<" && key.style == Style::Plain {
                merged.extend(merge(value)?);
                continue;
            }
            if entries.iter().any(|known| known.name == name) {
                self.twice.push((name.clone(), key.place));
            }
            entries.push(Entry { name, place: key.place, key: key.bytes, value });
        }
    }

    fn offset(&self, marker: Marker) -> usize {
        marker
            .byte_offset()
            .unwrap_or_else(|| self.text.char_indices().nth(marker.index()).map_or(self.text.len(), |(at, _)| at))
    }
}

/// The entries that `<<: *one` or `<<: [*one, *two]` brings in.
fn merge(value: Node) -> Result<Vec<Entry>, Fault> {
    let fault = |place| Fault { what: "`<<` takes a mapping or a list of mappings".to_owned(), place };
    let at = value.place;
    let maps = match value.data {
        Data::List(items) => items,
        _ => vec![value],
    };
    let mut all = Vec::new();
    for mut map in maps {
        borrow(&mut map, at);
        match map.data {
            Data::Map(entries) => all.extend(entries),
            _ => return Err(fault(at)),
        }
    }
    Ok(all)
}

fn weight(node: &Node) -> usize {
    match &node.data {
        Data::Scalar(_) => 1,
        Data::List(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Data::Map(entries) => 1 + entries.iter().map(|entry| weight(&entry.value)).sum::<usize>(),
    }
}

/// Marks a node as written elsewhere; messages about it point to where it is referred to.
fn borrow(node: &mut Node, at: Place) {
    (node.borrowed, node.place) = (true, at);
    match &mut node.data {
        Data::Scalar(_) => {}
        Data::List(items) => items.iter_mut().for_each(|item| borrow(item, at)),
        Data::Map(entries) => {
            for entry in entries {
                entry.place = at;
                borrow(&mut entry.value, at);
            }
        }
    }
}

fn layout(style: StructureStyle) -> Style {
    match style {
        StructureStyle::Block => Style::Block,
        StructureStyle::Flow => Style::Flow,
    }
}

fn place(marker: Marker) -> Place {
    Place { line: marker.line(), column: marker.col() + 1 }
}
