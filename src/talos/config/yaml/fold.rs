//! Long lines, broken at their spaces as kubectl's library breaks them.
//!
//! Must not know: which style a text is written in.

use super::characters::is_break;

/// Behind this column a line is broken at its next space.
const WIDTH: usize = 80;

/// How a style breaks a line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    None,
    Single,
    /// With a backslash before a space that would begin the next line.
    Double,
}

/// A text, as it stands in quotes or without, broken into lines of this indent; `column` is where it begins.
pub(super) fn lines(text: &str, quotes: Quotes, column: usize, indent: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    let (mut out, mut column, mut after_space) = (String::with_capacity(text.len()), column, false);
    for (at, &c) in chars.iter().enumerate() {
        if is_break(c) {
            out.push(c);
            (column, after_space) = (0, false);
            continue;
        }
        if out.ends_with(is_break) {
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        }
        let inner = quotes == Quotes::None || (at > 0 && at + 1 < chars.len());
        let before_space = chars.get(at + 1) == Some(&' ');
        let breaks = c == ' ' && inner && !after_space && column > WIDTH && (quotes == Quotes::Double || !before_space);
        if breaks {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
            if before_space {
                out.push('\\');
                column += 1;
            }
        } else {
            out.push(c);
            column += 1;
        }
        after_space = c == ' ';
    }
    out
}

/// A text with Unicode's line separators in it as it stands in quotes: what follows one is indented.
pub(super) fn indented(text: &str, indent: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if out.ends_with(is_break) && !is_break(c) {
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push(c);
    }
    out
}
