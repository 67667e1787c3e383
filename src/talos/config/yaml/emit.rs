//! Writes values as the real generator does: 4 spaces, lists indented under their key, nothing folded.
//!
//! Layout and quoting follow go.yaml.in/yaml v4 (emitter.go, representer.go), and gopkg.in/yaml.v2 for kubectl's layout, so
//! that files can be compared byte for byte. Must not know: how values are read.

use super::fold::{self, Quotes};
use super::{Map, Value, plain};

/// Keys longer than this, in bytes, stand behind a `?`.
const LONGEST_KEY: usize = 128;

/// Keys of documents whose values are enumerations with `on` or `off` among them (`HostnameConfig`, `BondConfig`): since
/// 1.14 the real writer quotes those otherwise than strings.
const ENUMERATIONS: [&str; 2] = ["auto", "adLACPActive"];

/// How far things are indented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// 4 spaces, lists indented under their key: Talos' files.
    Talos,
    /// The same as Talos up to 1.13 writes it: enumerations are quoted as all strings are.
    EarlierTalos,
    /// 2 spaces, lists flush with their key: kubectl's files.
    Kubectl,
}

/// One document in Talos' layout, with a newline at its end.
pub fn document(value: &Value) -> String {
    document_in(value, Layout::Talos)
}

/// One document, with a newline at its end.
pub fn document_in(value: &Value, layout: Layout) -> String {
    let mut out = String::new();
    match value {
        Value::Map(map) if !map.is_empty() => write_map(&mut out, map, 0, (First::Fresh, layout)),
        Value::List(list) if !list.is_empty() => write_list(&mut out, list, 0, layout),
        scalar => {
            write_leaf(&mut out, scalar, Block { indent: layout.step(), parent: 0, layout });
            end_line(&mut out);
        }
    }
    out
}

/// Several documents with `---` between them.
pub fn stream<'a>(documents: impl IntoIterator<Item = &'a Value>) -> String {
    documents.into_iter().map(document).collect::<Vec<_>>().join("---\n")
}

/// Whether the first key of a mapping stands at the start of a line or behind `- `.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Fresh,
    BehindDash,
}

impl Layout {
    fn step(self) -> usize {
        match self {
            Self::Talos | Self::EarlierTalos => 4,
            Self::Kubectl => 2,
        }
    }

    /// The next indent inside a mapping: up to the next multiple of the step.
    fn deeper(self, indent: usize) -> usize {
        let step = self.step();
        step * ((indent + step) / step)
    }

    /// The indent of a list under a key at `indent`.
    fn list(self, indent: usize) -> usize {
        match self {
            Self::Talos | Self::EarlierTalos => self.deeper(indent),
            Self::Kubectl => indent,
        }
    }
}

/// Where the lines of a literal text begin, and where its parent does.
#[derive(Clone, Copy)]
struct Block {
    indent: usize,
    parent: usize,
    layout: Layout,
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Ends a line, unless a text did with a break of its own.
fn end_line(out: &mut String) {
    if !out.ends_with(is_break) {
        out.push('\n');
    }
}

fn write_map(out: &mut String, map: &Map, indent: usize, (first, layout): (First, Layout)) {
    for (at, (key, value)) in map.iter().enumerate() {
        if at > 0 || first == First::Fresh {
            pad(out, indent);
        }
        let deeper = layout.deeper(indent);
        let block = Block { indent: deeper, parent: indent, layout };
        if key.len() > LONGEST_KEY || key.contains(is_break) {
            write_behind_mark(out, key, value, block);
            continue;
        }
        write_inline(out, key, None);
        out.push(':');
        match value {
            Value::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                write_map(out, inner, deeper, (First::Fresh, layout));
            }
            Value::List(inner) if !inner.is_empty() => {
                out.push('\n');
                write_list(out, inner, layout.list(indent), layout);
            }
            Value::Text(text)
                if layout == Layout::Talos
                    && indent == 0
                    && ENUMERATIONS.contains(&key)
                    && plain::is_old_bool(text) =>
            {
                out.extend([" '", text.as_str(), "'\n"]);
            }
            leaf => {
                out.push(' ');
                write_leaf(out, leaf, block);
                end_line(out);
            }
        }
    }
}

/// A key that is too long for a line of its own, or has several lines: `? key`, and below it `: value`.
fn write_behind_mark(out: &mut String, key: &str, value: &Value, block: Block) {
    let Block { indent, parent, layout } = block;
    out.push_str("? ");
    if key.contains('\n') {
        write_lines(out, key, block);
    } else {
        write_inline(out, key, Some(block));
    }
    end_line(out);
    pad(out, parent);
    out.push(':');
    let mut inner = String::new();
    match value {
        Value::Map(map) if !map.is_empty() => write_map(&mut inner, map, indent, (First::Fresh, layout)),
        Value::List(list) if !list.is_empty() => write_list(&mut inner, list, indent, layout),
        leaf => {
            out.push(' ');
            write_leaf(out, leaf, block);
            end_line(out);
            return;
        }
    }
    // What is nested begins behind the colon, in the column of its other lines.
    pad(out, indent - parent - 1);
    out.push_str(inner.trim_start_matches(' '));
}

fn write_list(out: &mut String, list: &[Value], indent: usize, layout: Layout) {
    for (at, value) in list.iter().enumerate() {
        if at > 0 || !out.ends_with("- ") {
            pad(out, indent);
        }
        out.push_str("- ");
        // Inside a list the first indent only skips the dash.
        match value {
            Value::Map(inner) if !inner.is_empty() => write_map(out, inner, indent + 2, (First::BehindDash, layout)),
            Value::List(inner) if !inner.is_empty() => write_list(out, inner, indent + 2, layout),
            leaf => {
                write_leaf(out, leaf, Block { indent: indent + 2, parent: indent, layout });
                end_line(out);
            }
        }
    }
}

fn write_leaf(out: &mut String, value: &Value, block: Block) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(flag) => out.push_str(flag.normal()),
        Value::Number(number) => out.push_str(number.normal()),
        Value::List(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
        Value::Text(text) if text.contains('\n') => write_lines(out, text, block),
        Value::Text(text) => write_inline(out, text, Some(block)),
    }
}

/// A text with line breaks.
fn write_lines(out: &mut String, text: &str, block: Block) {
    let allowed = match block.layout {
        // A text of blanks only is written in quotes.
        Layout::Talos | Layout::EarlierTalos => !text.chars().all(char::is_whitespace),
        Layout::Kubectl => !text.contains('\t'),
    };
    // What readers would take otherwise is written in quotes; the real writer does not know better.
    let first = text.trim_start_matches(is_break);
    let misread = first.starts_with('\t')
        || (block.layout != Layout::Kubectl && text.starts_with(is_break) && first.starts_with(' '));
    if allowed && !misread && text.contains('\n') && Shape::of(text).block_allowed {
        write_literal(out, text, block);
    } else {
        write_quoted(out, text, Some(block));
    }
}

/// A text in a line; as a value (not a key) kubectl's layout may break it into several.
fn write_inline(out: &mut String, text: &str, block: Option<Block>) {
    let shape = Shape::of(text);
    let folds = block.filter(|block| block.layout == Layout::Kubectl);
    let column = column(out);
    let folded = |text: &str, quotes, column| match (folds, block) {
        (Some(block), _) => fold::lines(text, quotes, column, block.indent),
        (None, Some(block)) => fold::indented(text, block.indent),
        (None, None) => text.to_owned(),
    };
    // That library knows no merges when it writes.
    let is_plain = plain::stays_text(text) || (folds.is_some() && text == "<<");
    if !is_plain {
        write_quoted(out, text, block);
    } else if shape.plain_allowed {
        out.push_str(&folded(text, Quotes::None, column));
    } else if shape.single_allowed {
        out.push('\'');
        out.push_str(&folded(&text.replace('\'', "''"), Quotes::Single, column + 1));
        out.push('\'');
    } else {
        write_quoted(out, text, block);
    }
}

/// A text in double quotes.
fn write_quoted(out: &mut String, text: &str, block: Option<Block>) {
    let column = column(out);
    let mut inner = escaped(text);
    if let Some(block) = block.filter(|block| block.layout == Layout::Kubectl) {
        inner = fold::lines(&inner, Quotes::Double, column + 1, block.indent);
    }
    out.extend(["\"", inner.as_str(), "\""]);
}

/// How much of the last line is written.
fn column(out: &str) -> usize {
    out.chars().rev().take_while(|c| *c != '\n').count()
}

fn write_literal(out: &mut String, text: &str, block: Block) {
    out.push('|');
    if text.starts_with(' ') || (block.layout == Layout::Kubectl && text.starts_with(is_break)) {
        // Not always the step: readers count from the parent. (The real writer doesn't: its lists are read otherwise.)
        out.push_str(&(block.indent - block.parent).to_string());
    }
    match text.strip_suffix(is_break) {
        None => out.push('-'),
        Some(before) if before.is_empty() || before.ends_with(is_break) => out.push('+'),
        Some(_) => {}
    }
    out.push('\n');
    let mut fresh = true;
    for c in text.chars() {
        if fresh && !is_break(c) {
            pad(out, block.indent);
        }
        out.push(c);
        fresh = is_break(c);
    }
}

/// A text as it stands in double quotes.
fn escaped(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    // Behind a byte order mark the real writer takes every character for one.
    let hides = text.starts_with('\u{feff}');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\0' => out.push_str("\\0"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0b' => out.push_str("\\v"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\x1b' => out.push_str("\\e"),
            '\u{85}' => out.push_str("\\N"),
            '\u{a0}' if hides => out.push_str("\\_"),
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            c if is_printable(c) && !hides => out.push(c),
            c if u32::from(c) <= 0xff => write!(out, "\\x{:02X}", u32::from(c)).unwrap_or_default(),
            c if u32::from(c) <= 0xffff => write!(out, "\\u{:04X}", u32::from(c)).unwrap_or_default(),
            c => write!(out, "\\U{:08X}", u32::from(c)).unwrap_or_default(),
        }
    }
    out
}

fn is_printable(c: char) -> bool {
    // What needs four bytes in UTF-8 is written as an escape.
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Which styles a scalar allows.
struct Shape {
    plain_allowed: bool,
    single_allowed: bool,
    block_allowed: bool,
}

impl Shape {
    fn of(text: &str) -> Self {
        if text.is_empty() {
            return Self { plain_allowed: true, single_allowed: true, block_allowed: false };
        }
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut tab, mut breaks) = (false, false, false);
        let (mut break_space, mut space_break) = (false, false);
        let (mut after_space, mut after_break, mut after_blank) = (false, false, true);
        let chars: Vec<char> = text.chars().collect();
        for (at, &c) in chars.iter().enumerate() {
            let before_blank = chars.get(at + 1).is_none_or(|next| matches!(next, ' ' | '\t') || is_break(*next));
            indicators |= match c {
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => at == 0,
                '?' | '-' => at == 0 && before_blank,
                ':' => before_blank,
                '#' => after_blank,
                _ => false,
            };
            tab |= c == '\t';
            special |= c != '\t' && !is_printable(c);
            if c == ' ' {
                break_space |= after_break;
                (after_space, after_break) = (true, false);
            } else if is_break(c) {
                breaks = true;
                space_break |= after_space;
                (after_space, after_break) = (false, true);
            } else {
                (after_space, after_break) = (false, false);
            }
            after_blank = matches!(c, ' ' | '\t') || is_break(c);
        }
        let edge = |c: Option<&char>| c.is_some_and(|c| *c == ' ' || is_break(*c));
        let edges = edge(chars.first()) || edge(chars.last());
        let odd = break_space || space_break || tab || special;
        Self {
            plain_allowed: !(edges || odd || breaks || indicators),
            single_allowed: !odd,
            block_allowed: !(chars.last() == Some(&' ') || space_break || special),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::one;
    use super::*;

    fn emitted(text: &str) -> String {
        document(&Value::Map(Map::new().with("k", text)))
    }

    #[test]
    fn strings_are_quoted_as_the_real_writer_quotes_them() {
        let cases = [
            ("", "k: \"\"\n"),
            ("plain text", "k: plain text\n"),
            ("# no", "k: '# no'\n"),
            ("*", "k: '*'\n"),
            ("fc00::", "k: 'fc00::'\n"),
            ("it's: here", "k: 'it''s: here'\n"),
            ("yes", "k: \"yes\"\n"),
            ("😀", "k: \"\\U0001F600\"\n"),
            ("\u{a0}\t", "k: \"\u{a0}\\t\"\n"),
            ("\u{feff}a\tb c", "k: \"\\uFEFF\\x61\\t\\x62\\x20\\x63\"\n"),
            ("a\u{2028}b", "k: 'a\u{2028}    b'\n"),
            ("a\n\u{2028}b\n", "k: |\n    a\n\u{2028}    b\n"),
            ("a\nb\u{2028}", "k: |\n    a\n    b\u{2028}"),
            ("a\n\u{2028}", "k: |+\n    a\n\u{2028}"),
            ("a\u{2028}\n", "k: |+\n    a\u{2028}\n"),
            ("12", "k: \"12\"\n"),
            ("a\tb", "k: \"a\\tb\"\n"),
            ("a\nb\n", "k: |\n    a\n    b\n"),
            ("a\nb", "k: |-\n    a\n    b\n"),
            ("a\n\nb\n\n", "k: |+\n    a\n\n    b\n\n"),
            ("a \nb\n", "k: \"a \\nb\\n\"\n"),
            ("disk.dev_path == \"/dev/sda\"", "k: disk.dev_path == \"/dev/sda\"\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(emitted(text), expected);
            assert_eq!(one(expected).unwrap().root.at(&["k"]).and_then(Value::as_text), Some(text), "{expected}");
        }
    }

    #[test]
    fn lists_and_maps_nest_as_the_real_writer_nests_them() {
        let text = "config:\n    resources:\n        - providers:\n            - secretbox:\n                keys:\n                    - name: key2\n                      secret: x\n          resources:\n            - secrets\n    pems:\n        - |\n          a\n          b\n    none: []\n    empty: {}\n";
        assert_eq!(document(&one(text).unwrap().root), text);
    }

    proptest::proptest! {
        #[test]
        fn every_string_is_read_back_as_it_was(
            text in "[ -~\n\té😀\u{85}\u{2028}]{0,24}",
            key in "[a-z0-9:#.'\"-]{1,8}",
        ) {
            for layout in [Layout::Talos, Layout::Kubectl] {
                let inner = Map::new().with(&key, text.as_str());
                let list = vec![Value::from(text.as_str()), Value::Map(inner.clone()), Value::List(vec![text.as_str().into()])];
                let value = Value::Map(Map::new().with("list", list).with("map", inner));
                let written = document_in(&value, layout);
                let read = one(&written);
                proptest::prop_assert!(read.as_ref().is_ok_and(|read| read.root == value), "{layout:?}: {written:?}\n{read:?}");
            }
        }
    }
}
