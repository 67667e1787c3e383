//! Puts tokens together to documents: nodes, anchors, aliases and merges.
//!
//! Must not know: what the documents mean.

use std::collections::HashMap;

use super::members::{Key, Members, Written};
use super::scan::{DEEPEST, Piece, Style, TOO_DEEP, Token};
use super::tagged::{OWN, is_null, scalar, wrong};
use super::{Document, Marks, Nothing, Odd, Spot, Value, YamlError};

/// How many nodes a text may unfold to: aliases of aliases must not eat the memory.
const MOST_NODES: usize = 200_000;

/// What an anchor leads to.
#[derive(Clone)]
enum Anchor {
    /// A node that is not at its end yet.
    Open(usize),
    /// The node, and how many the real library goes through to read it.
    Done(Value, usize),
}

/// Where a node may stand.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Block,
    /// As a mapping's key or value, where a list's dashes may stand under the key itself.
    Member,
    Flow,
}

/// What a node's tag and anchor are.
#[derive(Default)]
struct Properties {
    anchor: Option<String>,
    tag: Option<String>,
}

pub(super) struct Composer {
    tokens: std::vec::IntoIter<Token>,
    anchors: HashMap<String, Anchor>,
    handles: Vec<(String, String)>,
    marks: Marks,
    nothing: Nothing,
    drops_null_keys: bool,
    nodes: usize,
    depth: usize,
    /// How many nodes of this document the real library would have read by now, and how many of them behind an alias.
    read: usize,
    aliased: usize,
}

impl Composer {
    /// `tokens` end with [`Piece::End`].
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        Self {
            tokens: tokens.into_iter(),
            anchors: HashMap::new(),
            handles: Vec::new(),
            marks: Marks::default(),
            nothing: Nothing::default(),
            drops_null_keys: false,
            nodes: 0,
            depth: 0,
            read: 0,
            aliased: 0,
        }
    }

    /// One that passes over keys that are null, with their values, and does not refuse them.
    pub(super) fn dropping_null_keys(self) -> Self {
        Self { drops_null_keys: true, ..self }
    }

    fn peek(&self) -> &Piece {
        self.tokens.as_slice().first().map_or(&Piece::End, |token| &token.piece)
    }

    fn spot(&self) -> Spot {
        self.tokens.as_slice().first().map_or(Spot::START, |token| token.spot)
    }

    /// Goes over the next token, if it is this one.
    fn passes(&mut self, piece: &Piece) -> bool {
        let is_there = self.peek() == piece;
        if is_there {
            self.tokens.next();
        }
        is_there
    }

    /// All documents, also those without content.
    pub(super) fn documents(mut self) -> Result<Vec<Document>, YamlError> {
        let mut documents = Vec::new();
        loop {
            let is_first = documents.is_empty();
            if !is_first {
                while self.passes(&Piece::DocumentEnd) {}
            }
            if *self.peek() == Piece::End {
                return Ok(documents);
            }
            let is_marked = matches!(self.peek(), Piece::Version(..) | Piece::TagFor(..) | Piece::DocumentStart);
            self.directives()?;
            if (is_marked || !is_first) && !self.passes(&Piece::DocumentStart) {
                return wrong(self.spot(), "a document begins with --- here");
            }
            let spot = self.spot();
            (self.read, self.aliased) = (0, 0);
            let is_empty = matches!(
                self.peek(),
                Piece::Version(..) | Piece::TagFor(..) | Piece::DocumentStart | Piece::DocumentEnd | Piece::End
            );
            let root = if is_marked && is_empty { Value::Null } else { self.node(Place::Block, "")? };
            self.passes(&Piece::DocumentEnd);
            let (marks, nothing) = (std::mem::take(&mut self.marks), std::mem::take(&mut self.nothing));
            documents.push(Document { root, spot, marks, nothing });
        }
    }

    fn directives(&mut self) -> Result<(), YamlError> {
        self.handles.clear();
        let mut has_version = false;
        loop {
            let spot = self.spot();
            match self.peek().clone() {
                Piece::Version(..) if has_version => return wrong(spot, "%YAML is there twice"),
                Piece::Version(1, 1) => has_version = true,
                Piece::Version(..) => {
                    return wrong(spot, "Talos reads YAML 1.1 only: leave the line with %YAML out");
                }
                Piece::TagFor(handle, _) if self.handles.iter().any(|(known, _)| *known == handle) => {
                    return wrong(spot, "%TAG is there twice for one handle");
                }
                Piece::TagFor(handle, prefix) => self.handles.push((handle, prefix)),
                _ => break,
            }
            self.tokens.next();
        }
        // The first of a handle counts.
        self.handles.push(("!".to_owned(), "!".to_owned()));
        self.handles.push(("!!".to_owned(), OWN.to_owned()));
        Ok(())
    }

    fn node(&mut self, place: Place, path: &str) -> Result<Value, YamlError> {
        let spot = self.spot();
        self.marks.note(path, spot);
        self.count(spot, 1)?;
        let before = self.read;
        self.read += 1;
        if let Piece::Alias(name) = self.peek() {
            let name = name.clone();
            self.tokens.next();
            return self.alias(&name, spot);
        }
        let properties = self.properties()?;
        // An anchor is known from its beginning on, so that an inner one of its name takes its place.
        let id = self.nodes;
        if let Some(anchor) = &properties.anchor {
            self.anchors.insert(anchor.clone(), Anchor::Open(id));
        }
        self.depth += 1;
        if self.depth > DEEPEST {
            return wrong(spot, TOO_DEEP);
        }
        let value = self.content(place, path, &properties, spot)?;
        self.depth -= 1;
        if properties.anchor.is_some() {
            // It is kept twice from here on.
            self.count(spot, size(&value))?;
        }
        if let Some(place) = properties.anchor.and_then(|anchor| self.anchors.get_mut(&anchor))
            && matches!(place, Anchor::Open(open) if *open == id)
        {
            *place = Anchor::Done(value.clone(), self.read - before);
        }
        Ok(value)
    }

    fn content(
        &mut self,
        place: Place,
        path: &str,
        Properties { anchor, tag }: &Properties,
        spot: Spot,
    ) -> Result<Value, YamlError> {
        let tag = tag.as_deref();
        let is_block = place != Place::Flow;
        match self.peek() {
            Piece::Entry if place == Place::Member => self.dashes(path),
            Piece::Scalar(..) => match self.tokens.next() {
                Some(Token { piece: Piece::Scalar(text, style), .. }) => match scalar(text, style, tag, spot) {
                    // Nobody reads a document that says that it is nothing.
                    Err(_) if self.depth == 1 && is_null(tag) => {
                        self.nothing = Nothing::Tagged;
                        Ok(Value::Null)
                    }
                    read => read,
                },
                _ => Ok(Value::Null),
            },
            Piece::FlowList => self.flow_list(path),
            Piece::FlowMap => self.flow_map(path),
            Piece::BlockList if is_block => {
                self.tokens.next();
                let list = self.dashes(path)?;
                if self.passes(&Piece::BlockEnd) { Ok(list) } else { wrong(self.spot(), "a list goes on with '- '") }
            }
            Piece::BlockMap if is_block => self.block_map(path),
            _ if tag.is_some() || anchor.is_some() => scalar(String::new(), Style::Plain, tag, spot),
            _ => wrong(spot, "a value is missing"),
        }
    }

    fn properties(&mut self) -> Result<Properties, YamlError> {
        let mut found = Properties::default();
        loop {
            let spot = self.spot();
            match self.peek().clone() {
                Piece::Anchor(name) if found.anchor.is_none() => found.anchor = Some(name),
                Piece::Tag(handle, rest) if found.tag.is_none() => {
                    let prefix = self.handles.iter().find(|(known, _)| *known == handle).map(|(_, prefix)| prefix);
                    let whole = match prefix {
                        Some(prefix) => format!("{prefix}{rest}"),
                        None if handle.is_empty() => rest,
                        None => return wrong(spot, "no %TAG says what the tag's handle is"),
                    };
                    found.tag = Some(whole);
                }
                _ => return Ok(found),
            }
            self.tokens.next();
        }
    }

    fn alias(&mut self, name: &str, spot: Spot) -> Result<Value, YamlError> {
        let Some(Anchor::Done(value, read)) = self.anchors.get(name).cloned() else {
            return Err(YamlError::Alias { line: spot.line });
        };
        self.read += read;
        self.aliased += read;
        // Its bounds against what unfolds without end: 99 of 100 once there are more than a thousand.
        if self.aliased > 100 && self.read > 1000 && self.aliased * 100 > self.read * 99 {
            return Err(YamlError::Aliases { line: spot.line });
        }
        if self.depth + depth(&value) > DEEPEST {
            return wrong(spot, TOO_DEEP);
        }
        self.count(spot, size(&value))?;
        Ok(value)
    }

    fn count(&mut self, spot: Spot, nodes: usize) -> Result<(), YamlError> {
        self.nodes += nodes;
        let too_many = YamlError::TooMany { line: spot.line, most: MOST_NODES };
        if self.nodes > MOST_NODES { Err(too_many) } else { Ok(()) }
    }

    /// The entries of a block list.
    fn dashes(&mut self, path: &str) -> Result<Value, YamlError> {
        let mut list = Vec::new();
        while self.passes(&Piece::Entry) {
            let path = format!("{path}[{}]", list.len());
            let is_empty = matches!(self.peek(), Piece::Entry | Piece::Key | Piece::Value | Piece::BlockEnd);
            list.push(if is_empty { Value::Null } else { self.node(Place::Block, &path)? });
        }
        Ok(Value::List(list))
    }

    fn block_map(&mut self, path: &str) -> Result<Value, YamlError> {
        let mut members = Members::default();
        self.tokens.next();
        loop {
            let spot = self.spot();
            if self.passes(&Piece::BlockEnd) {
                return members.map(spot);
            }
            if !self.passes(&Piece::Key) {
                return wrong(spot, "a key is missing, or its indent is not that of the keys before");
            }
            let ends = |piece: &Piece| matches!(piece, Piece::Key | Piece::Value | Piece::BlockEnd);
            let key = if ends(self.peek()) { Key::null(spot) } else { self.key(Place::Member)? };
            let path = self.member(&key, path);
            let has_value = self.passes(&Piece::Value) && !ends(self.peek());
            let written = self.written();
            let value = if has_value { self.node(Place::Member, &path)? } else { Value::Null };
            self.put(&mut members, key, value, written)?;
        }
    }

    fn put(&self, members: &mut Members, key: Key, value: Value, written: Written) -> Result<(), YamlError> {
        let is_dropped = self.drops_null_keys && key.odd == Some(Odd::Missing);
        if is_dropped { Ok(()) } else { members.put(key, value, written) }
    }

    fn flow_map(&mut self, path: &str) -> Result<Value, YamlError> {
        let mut members = Members::default();
        let opened = self.spot();
        self.tokens.next();
        let mut is_first = true;
        loop {
            self.goes_on(opened)?;
            let spot = self.spot();
            if self.passes(&Piece::FlowMapEnd) {
                return members.map(spot);
            }
            if !std::mem::take(&mut is_first) {
                if !self.passes(&Piece::Comma) {
                    return wrong(spot, "a ',' or '}' is missing");
                }
                if self.passes(&Piece::FlowMapEnd) {
                    return members.map(spot);
                }
            }
            let ends = |piece: &Piece| matches!(piece, Piece::Comma | Piece::FlowMapEnd);
            let is_pair = self.passes(&Piece::Key);
            let is_bare = is_pair && (ends(self.peek()) || *self.peek() == Piece::Value);
            let key = if is_bare { Key::null(spot) } else { self.key(Place::Flow)? };
            let path = self.member(&key, path);
            let has_value = is_pair && self.passes(&Piece::Value) && !ends(self.peek());
            let written = self.written();
            let value = if has_value { self.node(Place::Flow, &path)? } else { Value::Null };
            self.put(&mut members, key, value, written)?;
        }
    }

    fn flow_list(&mut self, path: &str) -> Result<Value, YamlError> {
        let mut list = Vec::new();
        let opened = self.spot();
        self.tokens.next();
        loop {
            self.goes_on(opened)?;
            let spot = self.spot();
            if self.passes(&Piece::FlowListEnd) {
                return Ok(Value::List(list));
            }
            if !list.is_empty() {
                if !self.passes(&Piece::Comma) {
                    return wrong(spot, "a ',' or ']' is missing");
                }
                if self.passes(&Piece::FlowListEnd) {
                    return Ok(Value::List(list));
                }
            }
            let path = format!("{path}[{}]", list.len());
            let value = if self.passes(&Piece::Key) { self.pair(&path, spot)? } else { self.node(Place::Flow, &path)? };
            list.push(value);
        }
    }

    /// Refuses a bracket that the text, or its document, ends in.
    fn goes_on(&self, opened: Spot) -> Result<(), YamlError> {
        match self.peek() {
            Piece::End | Piece::DocumentStart | Piece::DocumentEnd => wrong(opened, "unclosed bracket"),
            _ => Ok(()),
        }
    }

    /// A mapping of one key, without braces in a list.
    fn pair(&mut self, path: &str, spot: Spot) -> Result<Value, YamlError> {
        let mut members = Members::default();
        let ends = |piece: &Piece| matches!(piece, Piece::Comma | Piece::FlowListEnd);
        if ends(self.peek()) || *self.peek() == Piece::Value {
            return wrong(spot, "a key is missing");
        }
        let key = self.key(Place::Flow)?;
        let path = self.member(&key, path);
        let has_value = self.passes(&Piece::Value) && !ends(self.peek());
        let written = self.written();
        let value = if has_value { self.node(Place::Flow, &path)? } else { Value::Null };
        self.put(&mut members, key, value, written)?;
        members.map(spot)
    }

    /// The path of a mapping's member, whose key's place is noted.
    fn member(&mut self, key: &Key, path: &str) -> String {
        let path = if path.is_empty() { key.text.clone() } else { format!("{path}.{}", key.text) };
        self.marks.note(&path, key.spot);
        path
    }

    /// How the next node is written.
    fn written(&self) -> Written {
        if matches!(self.peek(), Piece::Alias(_)) { Written::AsAlias } else { Written::Here }
    }

    fn key(&mut self, place: Place) -> Result<Key, YamlError> {
        let spot = self.spot();
        if let Piece::Alias(name) = self.peek().clone() {
            self.tokens.next();
            let Value::Text(text) = self.alias(&name, spot)? else { return Err(YamlError::Key { line: spot.line }) };
            return Ok(Key { text, alias: Some(name), odd: Some(Odd::Alias), spot });
        }
        let Properties { anchor, tag } = self.properties()?;
        let is_empty = (tag.is_some() || anchor.is_some()) && !matches!(self.peek(), Piece::Scalar(..));
        let (text, style) = match self.peek().clone() {
            Piece::Scalar(text, style) => {
                self.tokens.next();
                (text, style)
            }
            Piece::FlowList | Piece::FlowMap | Piece::BlockList | Piece::BlockMap | Piece::Entry => {
                return Err(YamlError::Key { line: spot.line });
            }
            _ if is_empty => (String::new(), Style::Plain),
            _ => {
                return wrong(
                    self.spot(),
                    if place == Place::Flow { "a key is missing" } else { "a value is missing" },
                );
            }
        };
        self.count(spot, 1)?;
        self.read += 1;
        let short = tag.as_deref().and_then(|tag| tag.strip_prefix(OWN));
        let is_merge = short == Some("merge") || (text == "<<" && style == Style::Plain && tag.is_none());
        let value =
            if is_merge { Value::Text(text.clone()) } else { scalar(text.clone(), style, tag.as_deref(), spot)? };
        if let Some(anchor) = anchor {
            self.anchors.insert(anchor, Anchor::Done(value.clone(), 1));
        }
        // A tag may say that another text is meant.
        let text = value.as_text().map_or(text, str::to_owned);
        let odd = match value {
            _ if is_merge => Some(Odd::Merge),
            Value::Text(_) => None,
            Value::Null => Some(Odd::Missing),
            _ => Some(Odd::Foreign),
        };
        Ok(Key { text, alias: None, odd, spot })
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Map(map) => 1 + map.iter().map(|(key, value)| key.len() / 64 + size(value)).sum::<usize>(),
        // What is long counts as many: an alias costs its bytes.
        Value::Text(text) => 1 + text.len() / 64,
        _ => 1,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::List(list) => 1 + list.iter().map(depth).max().unwrap_or_default(),
        Value::Map(map) => 1 + map.iter().map(|(_, value)| depth(value)).max().unwrap_or_default(),
        _ => 1,
    }
}
