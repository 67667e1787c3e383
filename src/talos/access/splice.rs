//! Changes the text of a YAML file in place, so that comments and order of everything else stay.
//!
//! An edit on lines is tried; its result is read back, and when it doesn't say what it should (flow style, JSON, odd
//! indentation) the file is written anew from its values instead. Must not know: what the file is for.

use crate::talos::config::yaml::{Document, Layout, Value, document_in, one};

/// One change of a file.
pub(super) enum Edit<'a> {
    /// The scalar under a key at the top.
    Scalar {
        /// The key.
        key: &'a str,
        /// Its new text.
        value: &'a str,
    },
    /// An element of the list, or an entry of the mapping, under a key at the top: replaced, or put at its end.
    Put {
        /// The key at the top.
        key: &'a str,
        /// The element that is replaced: `[2]` of a list, `.name` of a mapping. Nothing appends.
        at: Option<String>,
        /// The element as a list of one, or a mapping of one.
        content: Value,
    },
    /// An element goes.
    Remove {
        /// The key at the top.
        key: &'a str,
        /// The element, as for [`Put`](Self::Put).
        at: String,
    },
}

/// `text` after one edit, if that gives `wanted`; else `wanted` written anew.
pub(super) fn edit(text: &str, edit: &Edit<'_>, wanted: &Value, layout: Layout) -> String {
    let spliced = one(text).ok().and_then(|document| splice(text, &document, edit, layout));
    match spliced {
        Some(spliced) if one(&spliced).is_ok_and(|document| document.root == *wanted) => spliced,
        _ => document_in(wanted, layout),
    }
}

fn splice(text: &str, document: &Document, edit: &Edit<'_>, layout: Layout) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let line_of = |path: &str| document.marks.line(path).filter(|line| *line > 0).map(|line| line - 1);
    match edit {
        Edit::Scalar { key, value } => {
            let entry = Value::Map(crate::talos::config::yaml::Map::new().with(key, *value));
            let entry = document_in(&entry, layout).trim_end().to_owned();
            match document.root.at(&[key]) {
                Some(_) => {
                    let line = lines.get_mut(line_of(key)?)?;
                    let comment = line.find(" #").map(|at| line[at..].to_owned()).unwrap_or_default();
                    *line = format!("{entry}{comment}");
                }
                None => lines.push(entry),
            }
        }
        Edit::Put { key, at, content } => {
            let place = document.root.at(&[key]);
            let (range, indent) = match (at, place) {
                (Some(at), _) => {
                    let start = line_of(&format!("{key}{at}"))?;
                    (block(&lines, start), indent(&lines[start]))
                }
                (None, Some(place)) => {
                    let last = line_of(&format!("{key}{}", last_child(place)?))?;
                    let end = block(&lines, last).end;
                    (end..end, indent(&lines[last]))
                }
                _ => return None,
            };
            let margin = " ".repeat(indent);
            let block = document_in(content, layout);
            lines.splice(range, block.lines().map(|line| format!("{margin}{line}")));
        }
        Edit::Remove { key, at } => {
            if size(document.root.at(&[key])?)? < 2 {
                return None;
            }
            let start = line_of(&format!("{key}{at}"))?;
            lines.drain(block(&lines, start));
        }
    }
    Some(lines.join("\n") + "\n")
}

fn size(value: &Value) -> Option<usize> {
    match value {
        Value::List(list) => Some(list.len()),
        Value::Map(map) => Some(map.len()),
        _ => None,
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The last element of a list, the last entry of a mapping.
fn last_child(value: &Value) -> Option<String> {
    match value {
        Value::List(list) => Some(format!("[{}]", list.len().checked_sub(1)?)),
        Value::Map(map) => map.keys().last().map(|key| format!(".{key}")),
        _ => None,
    }
}

/// The lines of the element that begins at `start`: up to the next line that isn't further in.
fn block(lines: &[String], start: usize) -> std::ops::Range<usize> {
    let own = indent(&lines[start]);
    let is_blank = |at: usize| lines[at].trim().is_empty();
    // The value of a long key stands below it, behind a colon of its own.
    let is_value =
        |at: usize| indent(&lines[at]) == own && matches!(lines[at].trim_start().as_bytes(), [b':', b' ', ..]);
    let is_next = |at: &usize| !is_blank(*at) && indent(&lines[*at]) <= own && !is_value(*at);
    let mut end = (start + 1..lines.len()).find(is_next).unwrap_or(lines.len());
    while end > start + 1 && is_blank(end - 1) {
        end -= 1;
    }
    start..end
}
