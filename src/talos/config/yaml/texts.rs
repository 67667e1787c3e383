//! Scalars: plain, quoted, and blocks behind `|` and `>`.
//!
//! Must not know: what a scalar means.

use super::YamlError;
use super::characters::{is_blank, is_break};
use super::scan::Scanner;

/// Line breaks met on the way to the next word.
#[derive(Default)]
struct Gap {
    blanks: String,
    first: Option<char>,
    more: String,
}

impl Gap {
    fn take(&mut self, scanner: &mut Scanner) {
        if is_break(scanner.peek(0)) {
            let taken = scanner.take_break();
            if self.first.is_some() {
                self.more.push(taken);
            } else {
                self.blanks.clear();
                self.first = Some(taken);
            }
        } else if self.first.is_some() {
            scanner.skip();
        } else {
            self.blanks.push(scanner.take());
        }
    }

    /// What it is folded to.
    fn fold(&mut self, into: &mut String) {
        match self.first.take() {
            Some('\n') if self.more.is_empty() => into.push(' '),
            Some('\n') => into.push_str(&self.more),
            Some(other) => {
                into.push(other);
                into.push_str(&self.more);
            }
            None => into.push_str(&self.blanks),
        }
        self.blanks.clear();
        self.more.clear();
    }
}

/// A plain scalar.
pub(super) fn plain(scanner: &mut Scanner) -> Result<String, YamlError> {
    let (mut text, mut gap) = (String::new(), Gap::default());
    let least = usize::try_from(scanner.indent() + 1).unwrap_or_default();
    loop {
        if scanner.at_document_mark() || scanner.peek(0) == '#' {
            break;
        }
        while !scanner.ends_word(0) {
            let c = scanner.peek(0);
            let ends = (c == ':' && scanner.ends_word(1))
                || (scanner.is_flow()
                    && (matches!(c, ',' | '[' | ']' | '{' | '}') || (c == '?' && scanner.ends_word(1))));
            if ends {
                break;
            }
            gap.fold(&mut text);
            text.push(scanner.take());
        }
        if scanner.is_end() || !(is_blank(scanner.peek(0)) || is_break(scanner.peek(0))) {
            break;
        }
        while !scanner.is_end() && (is_blank(scanner.peek(0)) || is_break(scanner.peek(0))) {
            if scanner.peek(0) == '\t' && gap.first.is_some() && scanner.column() < least {
                return scanner.wrong("a tab can't indent: use spaces");
            }
            gap.take(scanner);
        }
        if !scanner.is_flow() && scanner.column() < least {
            break;
        }
    }
    if gap.first.is_some() {
        scanner.allow_key();
    }
    Ok(text)
}

/// A scalar in these quotes; the scanner stands before the first.
pub(super) fn quoted(scanner: &mut Scanner, quote: char) -> Result<String, YamlError> {
    scanner.skip();
    let mut text = String::new();
    loop {
        if scanner.at_document_mark() {
            return scanner.wrong("a document can't begin in quotes: the one before is not closed");
        }
        if scanner.is_end() {
            return scanner.wrong("the text ends in quotes");
        }
        let mut gap = Gap::default();
        let mut escaped_break = false;
        while !scanner.ends_word(0) {
            let c = scanner.peek(0);
            if c == quote {
                if quote == '\'' && scanner.peek(1) == '\'' {
                    scanner.skip();
                    text.push(scanner.take());
                    continue;
                }
                break;
            }
            if c == '\\' && quote == '"' {
                scanner.skip();
                if !scanner.is_end() && is_break(scanner.peek(0)) {
                    scanner.take_break();
                    escaped_break = true;
                    break;
                }
                text.push(escape(scanner)?);
            } else {
                text.push(scanner.take());
            }
        }
        if scanner.peek(0) == quote {
            scanner.skip();
            return Ok(text);
        }
        if escaped_break {
            // What was broken on purpose is joined without a space.
            let mut breaks = String::new();
            while !scanner.is_end() && (is_blank(scanner.peek(0)) || is_break(scanner.peek(0))) {
                if is_break(scanner.peek(0)) {
                    breaks.push(scanner.take_break());
                } else {
                    scanner.skip();
                }
            }
            text.push_str(&breaks);
            continue;
        }
        while !scanner.is_end() && (is_blank(scanner.peek(0)) || is_break(scanner.peek(0))) {
            gap.take(scanner);
        }
        gap.fold(&mut text);
    }
}

/// What stands for another character; the scanner stands behind the `\`.
fn escape(scanner: &mut Scanner) -> Result<char, YamlError> {
    let digits = match scanner.peek(0) {
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c => {
            let meant = match c {
                '0' => '\0',
                'a' => '\x07',
                'b' => '\x08',
                't' | '\t' => '\t',
                'n' => '\n',
                'v' => '\x0b',
                'f' => '\x0c',
                'r' => '\r',
                'e' => '\x1b',
                ' ' | '"' | '\'' | '\\' => c,
                'N' => '\u{85}',
                '_' => '\u{a0}',
                'L' => '\u{2028}',
                'P' => '\u{2029}',
                _ => return scanner.wrong("there is no such escape: write \\\\ for a backslash"),
            };
            scanner.skip();
            return Ok(meant);
        }
    };
    let number = (1..=digits).try_fold(0_u32, |number, at| {
        let digit = scanner.peek(at).to_digit(16)?;
        number.checked_mul(16)?.checked_add(digit)
    });
    let Some(meant) = number.and_then(char::from_u32) else {
        return scanner.wrong("the escape is no character");
    };
    (0..=digits).for_each(|_| scanner.skip());
    Ok(meant)
}

/// What becomes of the breaks at a block's end.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    One,
    None,
    All,
}

/// A block; the scanner stands before its `|` or `>`.
pub(super) fn block(scanner: &mut Scanner) -> Result<String, YamlError> {
    let folds = scanner.take() == '>';
    let (mut tail, mut wanted) = (Tail::One, None);
    for _ in 0..2 {
        let c = scanner.peek(0);
        match c {
            '+' | '-' if tail == Tail::One => {
                tail = if c == '+' { Tail::All } else { Tail::None };
                scanner.skip();
            }
            '0' if wanted.is_none() => return scanner.wrong("a block is indented by one space at least"),
            '1'..='9' if wanted.is_none() => {
                wanted = c.to_digit(10).and_then(|digit| isize::try_from(digit).ok());
                scanner.skip();
            }
            _ => {}
        }
    }
    while is_blank(scanner.peek(0)) {
        scanner.skip();
    }
    if scanner.peek(0) == '#' {
        while !scanner.ends_line(0) {
            scanner.skip();
        }
    }
    if !scanner.ends_line(0) {
        return scanner.wrong("only a comment may follow | or > in its line");
    }
    if !scanner.is_end() {
        scanner.take_break();
    }
    let indent = wanted.map(|wanted| scanner.indent().max(0) + wanted).and_then(|indent| usize::try_from(indent).ok());
    let (mut text, mut held, mut breaks) = (String::new(), String::new(), String::new());
    let indent = margin(scanner, indent, &mut breaks)?;
    let mut was_indented = false;
    while scanner.column() == indent && !scanner.is_end() {
        let is_indented = is_blank(scanner.peek(0));
        if folds && !was_indented && !is_indented && held.starts_with('\n') {
            if breaks.is_empty() {
                text.push(' ');
            }
        } else {
            text.push_str(&held);
        }
        held.clear();
        text.push_str(&breaks);
        breaks.clear();
        was_indented = is_indented;
        while !scanner.ends_line(0) {
            text.push(scanner.take());
        }
        if !scanner.is_end() {
            held.push(scanner.take_break());
        }
        margin(scanner, Some(indent), &mut breaks)?;
    }
    if tail != Tail::None {
        text.push_str(&held);
    }
    if tail == Tail::All {
        text.push_str(&breaks);
    }
    Ok(text)
}

/// Goes over a block's margin and its empty lines; says how wide the margin is.
fn margin(scanner: &mut Scanner, indent: Option<usize>, breaks: &mut String) -> Result<usize, YamlError> {
    let mut widest = 0;
    loop {
        let inside = |scanner: &Scanner| indent.is_none_or(|indent| scanner.column() < indent);
        while inside(scanner) && scanner.peek(0) == ' ' {
            scanner.skip();
        }
        widest = widest.max(scanner.column());
        if inside(scanner) && scanner.peek(0) == '\t' {
            return scanner.wrong("a tab can't indent: use spaces");
        }
        if scanner.is_end() || !is_break(scanner.peek(0)) {
            break;
        }
        breaks.push(scanner.take_break());
    }
    let least = usize::try_from(scanner.indent() + 1).unwrap_or_default().max(1);
    Ok(indent.unwrap_or(widest.max(least)))
}
