//! Cuts YAML into tokens, by the rules of the library that Talos reads with.
//!
//! A node refuses what that library refuses, so its limits are kept: keys stand on one line, tabs never indent, a block of
//! text has no tab in its margin. (go.yaml.in/yaml v4.0.0-rc.4.) Must not know: what the tokens make up.

use super::{Spot, YamlError, characters};
use characters::{is_anchor, is_blank, is_break, is_word};

/// How deep things may be nested: more is no configuration, and the stack ends somewhere.
pub(super) const DEEPEST: usize = 200;

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
}

/// A piece of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// `%YAML`, with its version.
    Version(u32, u32),
    /// `%TAG`: a handle and what it stands for.
    TagFor(String, String),
    DocumentStart,
    DocumentEnd,
    BlockList,
    BlockMap,
    BlockEnd,
    FlowList,
    FlowListEnd,
    FlowMap,
    FlowMapEnd,
    Entry,
    Comma,
    Key,
    Value,
    Alias(String),
    Anchor(String),
    /// A tag's handle and the rest.
    Tag(String, String),
    Scalar(String, Style),
    End,
}

/// A piece and where it begins.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) piece: Piece,
    pub(super) spot: Spot,
}

/// Where a key may have begun.
#[derive(Clone, Copy, Default)]
struct Candidate {
    required: bool,
    level: usize,
    token: usize,
    line: usize,
    column: usize,
}

/// All tokens of a text.
pub(super) fn scan(text: &str) -> Result<Vec<Token>, YamlError> {
    let mut scanner = Scanner::new(text)?;
    while scanner.next()? {}
    Ok(scanner.tokens)
}

/// The tokens of a text's first document. One token is looked for behind it, as the real library does; whatever else
/// there is need be no YAML.
pub(super) fn scan_first(text: &str) -> Result<Vec<Token>, YamlError> {
    let mut scanner = Scanner::new(text)?;
    let (mut seen, mut has_begun, mut end) = (0, false, None);
    while scanner.next()? {
        for (at, token) in scanner.tokens.iter().enumerate().skip(seen) {
            match token.piece {
                Piece::Version(..) | Piece::TagFor(..) => {}
                Piece::DocumentStart | Piece::DocumentEnd if has_begun => end = end.or(Some(at)),
                _ => has_begun = true,
            }
        }
        seen = scanner.tokens.len();
        if end.is_some_and(|end| end + 1 < seen) {
            break;
        }
    }
    scanner.tokens.truncate(end.unwrap_or(usize::MAX));
    Ok(scanner.tokens)
}

pub(super) struct Scanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
    column: usize,
    tokens: Vec<Token>,
    indent: isize,
    indents: Vec<isize>,
    /// How many brackets are open.
    level: usize,
    key_allowed: bool,
    candidate: Option<Candidate>,
    /// Whether the last candidate has to become a key.
    required: bool,
    outer: Vec<Candidate>,
}

impl Scanner {
    fn new(text: &str) -> Result<Self, YamlError> {
        Ok(Self {
            chars: characters::read(text)?,
            at: 0,
            line: 0,
            column: 0,
            tokens: Vec::new(),
            indent: -1,
            indents: Vec::new(),
            level: 0,
            key_allowed: true,
            candidate: None,
            required: false,
            outer: Vec::new(),
        })
    }

    pub(super) fn spot(&self) -> Spot {
        Spot { line: self.line + 1, column: self.column + 1 }
    }

    pub(super) fn wrong<T>(&self, what: &str) -> Result<T, YamlError> {
        let Spot { line, column } = self.spot();
        Err(YamlError::Syntax { line, column, what: what.to_owned() })
    }

    /// The character some places ahead; NUL behind the end.
    pub(super) fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.chars.len()
    }

    /// Whether a break, or the end, is some places ahead.
    pub(super) fn ends_line(&self, ahead: usize) -> bool {
        self.at + ahead >= self.chars.len() || is_break(self.peek(ahead))
    }

    /// Whether a blank, a break or the end is some places ahead.
    pub(super) fn ends_word(&self, ahead: usize) -> bool {
        self.ends_line(ahead) || is_blank(self.peek(ahead))
    }

    pub(super) fn skip(&mut self) {
        self.at += 1;
        self.column += 1;
    }

    pub(super) fn take(&mut self) -> char {
        let c = self.peek(0);
        self.skip();
        c
    }

    /// Takes a line break, as what it means.
    pub(super) fn take_break(&mut self) -> char {
        let c = self.peek(0);
        if self.is_end() {
            return '\n';
        }
        self.at += if c == '\r' && self.peek(1) == '\n' { 2 } else { 1 };
        self.line += 1;
        self.column = 0;
        if matches!(c, '\u{2028}' | '\u{2029}') { c } else { '\n' }
    }

    pub(super) fn column(&self) -> usize {
        self.column
    }

    pub(super) fn indent(&self) -> isize {
        self.indent
    }

    pub(super) fn is_flow(&self) -> bool {
        self.level > 0
    }

    pub(super) fn allow_key(&mut self) {
        self.key_allowed = true;
    }

    /// Whether `---` or `...` stands here, alone at the start of a line.
    pub(super) fn at_document_mark(&self) -> bool {
        let three = |c| (0..3).all(|ahead| self.peek(ahead) == c);
        self.column == 0 && (three('-') || three('.')) && self.ends_word(3)
    }

    fn push(&mut self, piece: Piece) {
        let spot = self.spot();
        self.tokens.push(Token { piece, spot });
    }

    /// A mark of so many characters.
    fn mark(&mut self, piece: Piece, length: usize) {
        self.push(piece);
        for _ in 0..length {
            self.skip();
        }
    }

    /// Scans the next token; nothing is left when there is none.
    fn next(&mut self) -> Result<bool, YamlError> {
        self.pass_blanks();
        self.dedent(isize::try_from(self.column).unwrap_or(isize::MAX));
        if self.is_end() {
            self.dedent(-1);
            self.forget_key()?;
            self.push(Piece::End);
            return Ok(false);
        }
        let c = self.peek(0);
        if self.column == 0 && c == '%' {
            self.leave_document()?;
            let spot = self.spot();
            let piece = super::properties::directive(self)?;
            self.tokens.push(Token { piece, spot });
        } else if self.at_document_mark() {
            self.leave_document()?;
            self.mark(if c == '-' { Piece::DocumentStart } else { Piece::DocumentEnd }, 3);
        } else {
            self.node(c)?;
        }
        Ok(true)
    }

    fn node(&mut self, c: char) -> Result<(), YamlError> {
        match c {
            '[' => self.open(Piece::FlowList),
            '{' => self.open(Piece::FlowMap),
            ']' => self.close(Piece::FlowListEnd),
            '}' => self.close(Piece::FlowMapEnd),
            ',' => {
                self.forget_key()?;
                self.key_allowed = true;
                self.mark(Piece::Comma, 1);
                Ok(())
            }
            '-' if self.ends_word(1) => self.entry(),
            '?' if self.ends_word(1) => self.key(),
            ':' if (self.is_flow() && !self.begins_list_entry()) || self.ends_word(1) => self.value(),
            '*' | '&' => {
                self.may_be_key()?;
                self.key_allowed = false;
                self.anchor(c)
            }
            '!' => {
                self.may_be_key()?;
                self.key_allowed = false;
                let spot = self.spot();
                let piece = super::properties::tag(self)?;
                self.tokens.push(Token { piece, spot });
                Ok(())
            }
            '|' | '>' if !self.is_flow() => {
                self.forget_key()?;
                self.key_allowed = true;
                self.scalar(super::texts::block, Style::Quoted)
            }
            '\'' | '"' => {
                self.may_be_key()?;
                self.key_allowed = false;
                self.scalar(|scanner| super::texts::quoted(scanner, c), Style::Quoted)
            }
            _ if self.begins_plain(c) => {
                self.may_be_key()?;
                self.key_allowed = false;
                self.scalar(super::texts::plain, Style::Plain)
            }
            '\t' => self.wrong("a tab can't indent: use spaces"),
            _ => self.wrong("this character can't begin a value: quote the text"),
        }
    }

    fn begins_plain(&self, c: char) -> bool {
        match c {
            '-' => !is_blank(self.peek(1)),
            '?' | ':' => !self.ends_word(1),
            ' ' | '\t' | ',' | '[' | ']' | '{' | '}' | '#' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@'
            | '`' => false,
            _ => true,
        }
    }

    fn scalar(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<String, YamlError>,
        style: Style,
    ) -> Result<(), YamlError> {
        let spot = self.spot();
        let text = take(self)?;
        self.tokens.push(Token { piece: Piece::Scalar(text, style), spot });
        Ok(())
    }

    /// Goes over blanks, comments and breaks.
    fn pass_blanks(&mut self) {
        loop {
            let tabs = self.is_flow() || !self.key_allowed;
            while self.peek(0) == ' ' || (tabs && self.peek(0) == '\t') {
                self.skip();
            }
            if self.peek(0) == '#' {
                while !self.ends_line(0) {
                    self.skip();
                }
            }
            if self.is_end() || !is_break(self.peek(0)) {
                return;
            }
            self.take_break();
            if !self.is_flow() {
                self.key_allowed = true;
            }
        }
    }

    fn leave_document(&mut self) -> Result<(), YamlError> {
        self.dedent(-1);
        self.forget_key()?;
        self.key_allowed = false;
        Ok(())
    }

    fn dedent(&mut self, column: isize) {
        if self.is_flow() {
            return;
        }
        while self.indent > column {
            self.push(Piece::BlockEnd);
            self.indent = self.indents.pop().unwrap_or(-1);
        }
    }

    /// Begins a block collection, if this column is deeper than the one around it.
    fn deepen(&mut self, column: usize, token: usize, piece: Piece, spot: Spot) -> Result<(), YamlError> {
        let column = isize::try_from(column).unwrap_or(isize::MAX);
        if self.is_flow() || self.indent >= column {
            return Ok(());
        }
        self.indents.push(self.indent);
        self.indent = column;
        self.tokens.insert(token, Token { piece, spot });
        if self.indents.len() > DEEPEST { self.wrong(TOO_DEEP) } else { Ok(()) }
    }

    fn may_be_key(&mut self) -> Result<(), YamlError> {
        if self.key_allowed {
            let required = !self.is_flow() && isize::try_from(self.column).is_ok_and(|column| column == self.indent);
            self.forget_key()?;
            self.required = required;
            self.candidate = Some(Candidate {
                required,
                level: self.level,
                token: self.tokens.len(),
                line: self.line,
                column: self.column,
            });
        }
        Ok(())
    }

    fn forget_key(&mut self) -> Result<(), YamlError> {
        if self.required {
            return self.wrong("a ':' is missing behind the key before");
        }
        self.candidate = None;
        Ok(())
    }

    fn open(&mut self, piece: Piece) -> Result<(), YamlError> {
        self.may_be_key()?;
        self.level += 1;
        if self.level > DEEPEST {
            return self.wrong(TOO_DEEP);
        }
        self.outer.extend(self.candidate.take());
        self.required = false;
        self.key_allowed = true;
        self.mark(piece, 1);
        Ok(())
    }

    fn close(&mut self, piece: Piece) -> Result<(), YamlError> {
        self.forget_key()?;
        if self.level > 0 {
            self.level -= 1;
            if self.outer.last().is_some_and(|outer| outer.level == self.level) {
                self.candidate = self.outer.pop();
                self.required = self.candidate.is_some_and(|candidate| candidate.required);
            }
        }
        self.key_allowed = false;
        self.mark(piece, 1);
        Ok(())
    }

    fn entry(&mut self) -> Result<(), YamlError> {
        if !self.is_flow() {
            if !self.key_allowed {
                return self.wrong("a list can't begin here");
            }
            self.deepen(self.column, self.tokens.len(), Piece::BlockList, self.spot())?;
        }
        self.forget_key()?;
        self.key_allowed = true;
        self.mark(Piece::Entry, 1);
        Ok(())
    }

    fn key(&mut self) -> Result<(), YamlError> {
        if !self.is_flow() {
            if !self.key_allowed {
                return self.wrong("a key can't begin here");
            }
            self.deepen(self.column, self.tokens.len(), Piece::BlockMap, self.spot())?;
        }
        self.forget_key()?;
        self.key_allowed = !self.is_flow();
        self.mark(Piece::Key, 1);
        Ok(())
    }

    fn value(&mut self) -> Result<(), YamlError> {
        let candidate = self.candidate.filter(|candidate| candidate.line == self.line);
        if let Some(Candidate { token, line, column, .. }) = candidate {
            let spot = Spot { line: line + 1, column: column + 1 };
            self.tokens.insert(token, Token { piece: Piece::Key, spot });
            self.deepen(column, token, Piece::BlockMap, spot)?;
            self.candidate = None;
            self.required = false;
            self.key_allowed = false;
        } else {
            if !self.is_flow() {
                if !self.key_allowed {
                    return self.wrong("a value with a ':' can't stand here: quote the text, or begin a new line");
                }
                self.deepen(self.column, self.tokens.len(), Piece::BlockMap, self.spot())?;
            }
            self.key_allowed = !self.is_flow();
        }
        self.mark(Piece::Value, 1);
        Ok(())
    }

    /// Whether an entry of a list in brackets begins here.
    fn begins_list_entry(&self) -> bool {
        matches!(self.tokens.last(), Some(Token { piece: Piece::Comma | Piece::FlowList, .. }))
    }

    fn anchor(&mut self, c: char) -> Result<(), YamlError> {
        let spot = self.spot();
        self.skip();
        let mut name = String::new();
        while is_anchor(self.peek(0)) {
            name.push(self.take());
        }
        let ends = self.ends_word(0) || matches!(self.peek(0), '?' | ':' | ',' | ']' | '}' | '%' | '@' | '`');
        if name.is_empty() || !ends {
            return self.wrong("an anchor's name is letters and digits");
        }
        let piece = if c == '*' { Piece::Alias(name) } else { Piece::Anchor(name) };
        self.tokens.push(Token { piece, spot });
        Ok(())
    }

    /// Takes letters, digits, `-` and `_`.
    pub(super) fn take_word(&mut self, into: &mut String) {
        while is_word(self.peek(0)) {
            into.push(self.take());
        }
    }
}

/// Why something is too deep.
pub(super) const TOO_DEEP: &str = "this is nested too deep";
