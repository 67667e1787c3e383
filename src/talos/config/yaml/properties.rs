//! Directives and tags: `%YAML`, `%TAG`, `!!str`.
//!
//! Must not know: what a tag means.

use super::YamlError;
use super::characters::{is_blank, is_tag};
use super::scan::{Piece, Scanner};

/// Scans a directive; the scanner stands before its `%`.
pub(super) fn directive(scanner: &mut Scanner) -> Result<Piece, YamlError> {
    scanner.skip();
    let mut name = String::new();
    scanner.take_word(&mut name);
    if name.is_empty() || !scanner.ends_word(0) {
        return scanner.wrong("a directive is %YAML or %TAG");
    }
    let piece = match name.as_str() {
        "YAML" => {
            skip_blanks(scanner);
            let major = number(scanner)?;
            if scanner.peek(0) != '.' {
                return scanner.wrong("%YAML needs a version such as 1.1");
            }
            scanner.skip();
            Piece::Version(major, number(scanner)?)
        }
        "TAG" => {
            skip_blanks(scanner);
            let handle = handle(scanner)?;
            if !(handle == "!" || handle.len() > 1 && handle.ends_with('!')) || !is_blank(scanner.peek(0)) {
                return scanner.wrong("%TAG needs a handle such as !a! and a prefix");
            }
            skip_blanks(scanner);
            let prefix = uri(scanner, Brackets::Allowed)?;
            if prefix.is_empty() || !scanner.ends_word(0) {
                return scanner.wrong("%TAG needs a handle such as !a! and a prefix");
            }
            Piece::TagFor(handle, prefix)
        }
        _ => return scanner.wrong("a directive is %YAML or %TAG"),
    };
    skip_blanks(scanner);
    if scanner.peek(0) == '#' {
        while !scanner.ends_line(0) {
            scanner.skip();
        }
    }
    if !scanner.ends_line(0) {
        return scanner.wrong("nothing may follow a directive in its line");
    }
    if !scanner.is_end() {
        scanner.take_break();
    }
    Ok(piece)
}

/// Scans a tag; the scanner stands before its `!`.
pub(super) fn tag(scanner: &mut Scanner) -> Result<Piece, YamlError> {
    let (first, rest) = if scanner.peek(1) == '<' {
        scanner.skip();
        scanner.skip();
        let whole = uri(scanner, Brackets::Allowed)?;
        if whole.is_empty() || scanner.peek(0) != '>' {
            return scanner.wrong("a tag that begins with !< ends with >");
        }
        scanner.skip();
        (String::new(), whole)
    } else {
        let handle = handle(scanner)?;
        let rest = uri(scanner, Brackets::Refused)?;
        if handle.len() > 1 && handle.ends_with('!') {
            if rest.is_empty() {
                return scanner.wrong("something is missing behind the tag's handle");
            }
            (handle, rest)
        } else {
            match format!("{}{rest}", &handle[1..]) {
                // A lonely `!`.
                suffix if suffix.is_empty() => (String::new(), "!".to_owned()),
                suffix => ("!".to_owned(), suffix),
            }
        }
    };
    if scanner.ends_word(0) { Ok(Piece::Tag(first, rest)) } else { scanner.wrong("a tag ends with a space") }
}

#[derive(Clone, Copy, PartialEq)]
enum Brackets {
    Allowed,
    Refused,
}

fn handle(scanner: &mut Scanner) -> Result<String, YamlError> {
    if scanner.peek(0) != '!' {
        return scanner.wrong("a tag begins with !");
    }
    let mut handle = String::from(scanner.take());
    scanner.take_word(&mut handle);
    if scanner.peek(0) == '!' {
        handle.push(scanner.take());
    }
    Ok(handle)
}

fn uri(scanner: &mut Scanner, brackets: Brackets) -> Result<String, YamlError> {
    let mut bytes = Vec::new();
    loop {
        let c = scanner.peek(0);
        let fits = is_tag(c) || (brackets == Brackets::Allowed && matches!(c, ',' | '[' | ']' | '{' | '}'));
        if !fits {
            break;
        }
        if c == '%' {
            let digits = [scanner.peek(1), scanner.peek(2)].map(|c| c.to_digit(16));
            let [Some(high), Some(low)] = digits else { return scanner.wrong("% in a tag needs two hex digits") };
            bytes.extend(u8::try_from(high * 16 + low));
            (0..3).for_each(|_| scanner.skip());
        } else {
            bytes.extend(scanner.take().to_string().into_bytes());
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => scanner.wrong("the tag is no UTF-8"),
    }
}

fn number(scanner: &mut Scanner) -> Result<u32, YamlError> {
    let mut digits = String::new();
    while scanner.peek(0).is_ascii_digit() {
        digits.push(scanner.take());
    }
    match digits.parse() {
        Ok(number) if digits.len() <= 2 => Ok(number),
        _ => scanner.wrong("%YAML needs a version such as 1.1"),
    }
}

fn skip_blanks(scanner: &mut Scanner) {
    while is_blank(scanner.peek(0)) {
        scanner.skip();
    }
}
