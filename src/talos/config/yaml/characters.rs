//! The characters of YAML: which there may be, and which are what.
//!
//! Must not know: tokens.

use super::{Spot, YamlError};

/// The characters of a text, without the mark of its encoding; control characters are none of YAML's.
pub(super) fn read(text: &str) -> Result<Vec<char>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut spot = Spot::START;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let fits = matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        if !fits {
            let what = "a control character can't stand here: write it as an escape in quotes".to_owned();
            return Err(YamlError::Syntax { line: spot.line, column: spot.column, what });
        }
        // Two of them are one break.
        if is_break(c) && !(c == '\r' && chars.peek() == Some(&'\n')) {
            spot = Spot { line: spot.line + 1, column: 1 };
        } else {
            spot.column += 1;
        }
    }
    Ok(text.chars().collect())
}

pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

pub(super) fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What may be in an anchor's name.
pub(super) fn is_anchor(c: char) -> bool {
    c.is_ascii_graphic() && !matches!(c, ':' | '[' | ']' | '{' | '}' | ',')
}

/// What may be in the name of a directive, or of a tag's handle.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// What may be in a tag; brackets and commas only between `<` and `>`.
pub(super) fn is_tag(c: char) -> bool {
    is_word(c)
        || matches!(
            c,
            ';' | '/' | '?' | ':' | '@' | '&' | '=' | '+' | '$' | '.' | '!' | '~' | '*' | '\'' | '(' | ')' | '%'
        )
}
