//! Changes single values of a profile's text and leaves every other byte as it is.
//!
//! Purpose: after a rebuild the profile says what runs now, and its owner's comments, order and spacing stay.
//! Works on the byte ranges of the parsed tree; the result is parsed again before it is handed out.
//! Must not know: what the keys mean. Start reading at [`edit`].

use std::collections::BTreeMap;

use super::problem::Problems;
use super::tree::{Data, Node, Segment, Source, Style, segments};

/// Why a value could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text is not YAML.
    #[error("the file can't be edited")]
    Unreadable(#[source] Problems),
    /// Something on the way to the key is no mapping, or a list has no such item.
    #[error("`{0}` can't be set: what stands there has no such place")]
    NoSuchPlace(String),
    /// The value is a mapping or list.
    #[error("`{0}` is not a single value")]
    NotScalar(String),
    /// The value is written elsewhere and shared.
    #[error("`{0}` comes from an alias: change it by hand where it is defined")]
    Shared(String),
    /// The edited text would not say what it should; the file was left alone.
    #[error("`{0}` can't be set without disturbing the rest of the file")]
    Unsafe(String),
}

/// Sets scalars by key path (`talos.version`, `nodes.workers.assignments[0].vmid`). Quoting style is kept; a key that is
/// missing is added at the end of its mapping, and an item right behind a list's last at its end. Values that are set
/// already change nothing.
pub fn edit(text: &str, changes: &[(&str, &str)]) -> Result<String, EditError> {
    let mut text = text.to_owned();
    for (path, value) in changes {
        text = set(&text, path, value)?;
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Source, EditError> {
    let unreadable = |problems| EditError::Unreadable(Problems(problems));
    let source = Source::parse("", text).map_err(EditError::Unreadable)?;
    if source.twice().is_empty() { Ok(source) } else { Err(unreadable(source.twice().to_vec())) }
}

fn set(text: &str, path: &str, value: &str) -> Result<String, EditError> {
    let source = parse(text)?;
    let segments = segments(path);
    let mut node = source.root();
    for (depth, segment) in segments.iter().enumerate() {
        if node.borrowed {
            return Err(EditError::Shared(path.to_owned()));
        }
        let next = match (segment, &node.data) {
            (Segment::Key(key), Data::Map(_)) => match node.get(key) {
                // A key without a value, which can't be walked into: the value goes behind the colon.
                Some(entry) if entry.value.is_null() && depth + 1 == segments.len() => {
                    let range = match &entry.value.bytes {
                        written if !written.is_empty() => written.clone(),
                        _ => {
                            let colon =
                                text[entry.key.end..].find(':').ok_or_else(|| EditError::Unsafe(path.into()))?;
                            let at = entry.key.end + colon + 1;
                            at..at
                        }
                    };
                    let lead = if range.is_empty() { " " } else { "" };
                    let written = format!("{lead}{}", scalar(value, Style::Plain));
                    return proven(&source, splice(text, range, &written), path, value);
                }
                Some(entry) => &entry.value,
                None => return proven(&source, add(text, node, &segments[depth..], value, path)?, path, value),
            },
            (Segment::Index(index), Data::List(items)) => match items.get(*index) {
                Some(item) => item,
                None if *index == items.len() && depth + 1 == segments.len() => {
                    return proven(&source, append(text, node, items, value, path)?, path, value);
                }
                None => return Err(EditError::NoSuchPlace(path.to_owned())),
            },
            _ => return Err(EditError::NoSuchPlace(path.to_owned())),
        };
        node = next;
    }
    match &node.data {
        _ if node.borrowed => Err(EditError::Shared(path.to_owned())),
        Data::Scalar(current) if current == value => Ok(text.to_owned()),
        // An item of a list that says something else is somebody's: it came there since the edit was planned.
        Data::Scalar(_) if matches!(segments.last(), Some(Segment::Index(_))) => {
            Err(EditError::Unsafe(path.to_owned()))
        }
        Data::Scalar(_) => proven(&source, splice(text, node.bytes.clone(), &scalar(value, node.style)), path, value),
        _ => Err(EditError::NotScalar(path.to_owned())),
    }
}

fn splice(text: &str, range: std::ops::Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..range.start], &text[range.end..])
}

/// Adds `rest` (a key, or a key in keys that are missing too) to a mapping.
fn add(text: &str, map: &Node, rest: &[Segment<'_>], value: &str, path: &str) -> Result<String, EditError> {
    let mut keys = Vec::new();
    for segment in rest {
        match segment {
            Segment::Key(key) => keys.push(*key),
            Segment::Index(_) => return Err(EditError::NoSuchPlace(path.to_owned())),
        }
    }
    let Data::Map(entries) = &map.data else { return Err(EditError::NoSuchPlace(path.to_owned())) };
    let own = |entry: &&super::tree::Entry| !entry.value.borrowed || entry.place != map.place;
    let last = entries.iter().filter(own).max_by_key(|entry| entry.key.start);
    let value = scalar(value, Style::Plain);
    if map.style == Style::Flow {
        let (at, separator) = flow_end(text, map);
        let nested = keys[..keys.len() - 1].iter().fold(String::new(), |nested, key| nested + key + ": {");
        let closing = "}".repeat(keys.len() - 1);
        let added = format!("{separator}{nested}{}: {value}{closing}", keys[keys.len() - 1]);
        return Ok(splice(text, at..at, &added));
    }
    let last = last.ok_or_else(|| EditError::Unsafe(path.to_owned()))?;
    let indent = entries.iter().map(|entry| entry.place.column).min().unwrap_or(1) - 1;
    let at = line_end(text, deep_end(&last.value).max(last.key.end));
    let newline = newline(text);
    let mut added = String::new();
    for (depth, key) in keys.iter().enumerate() {
        let lead = " ".repeat(indent + 2 * depth);
        let value = if depth + 1 == keys.len() { format!(" {value}") } else { String::new() };
        for part in [newline, &lead, key, ":", &value] {
            added.push_str(part);
        }
    }
    Ok(splice(text, at..at, &added))
}

/// Adds an item behind the last of a list.
fn append(text: &str, list: &Node, items: &[Node], value: &str, path: &str) -> Result<String, EditError> {
    let style = items.last().map_or(Style::Plain, |last| last.style);
    let value = scalar(value, style);
    if list.style == Style::Flow {
        let (at, separator) = flow_end(text, list);
        return Ok(splice(text, at..at, &format!("{separator}{value}")));
    }
    let failed = || EditError::Unsafe(path.to_owned());
    let last = items.last().filter(|last| matches!(last.data, Data::Scalar(_))).ok_or_else(failed)?;
    let line = text[..last.bytes.start].rfind('\n').map_or(0, |newline| newline + 1);
    let lead = &text[line..last.bytes.start];
    if lead.trim() != "-" {
        return Err(failed());
    }
    let at = line_end(text, last.bytes.end);
    Ok(splice(text, at..at, &format!("{}{lead}{value}", newline(text))))
}

/// Where something can be added to a `[…]` or `{…}`, and what has to stand before it.
fn flow_end(text: &str, node: &Node) -> (usize, &'static str) {
    let inside = text[node.bytes.start + 1..node.bytes.end - 1].trim_end();
    let separator = if inside.is_empty() {
        ""
    } else if inside.ends_with(',') {
        " "
    } else {
        ", "
    };
    (node.bytes.start + 1 + inside.len(), separator)
}

/// The end of the line on which the value that ends at `end` stands, comment included.
fn line_end(text: &str, end: usize) -> usize {
    let end = text[..end].trim_end().len();
    text[end..].find('\n').map_or(text.len(), |newline| {
        let line = end + newline;
        if text[..line].ends_with('\r') { line - 1 } else { line }
    })
}

/// How lines end in a text.
fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Where a value's last byte is: a block collection ends with its last item.
fn deep_end(node: &Node) -> usize {
    if node.style != Style::Block {
        return node.bytes.end;
    }
    match &node.data {
        Data::Scalar(_) => node.bytes.end,
        Data::List(items) => items.iter().map(deep_end).max().unwrap_or(node.bytes.end),
        Data::Map(entries) => {
            entries.iter().map(|entry| deep_end(&entry.value).max(entry.key.end)).max().unwrap_or(node.bytes.end)
        }
    }
}

/// A scalar in the style that the old one had, as far as the new value allows it.
fn scalar(value: &str, style: Style) -> String {
    match style {
        Style::Single if !value.contains(char::is_control) => format!("'{}'", value.replace('\'', "''")),
        Style::Plain if is_plain(value) => value.to_owned(),
        _ => {
            // JSON strings are YAML double-quoted scalars.
            serde_json::Value::from(value).to_string()
        }
    }
}

/// Whether a value may stand without quotes, and still be text to readers that make numbers of `1.10`.
fn is_plain(value: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_./+-".contains(c);
    let word =
        ["", "~", "null", "true", "false", "yes", "no", "on", "off"].contains(&value.to_ascii_lowercase().as_str());
    let fraction = value.parse::<f64>().is_ok() && value.parse::<i64>().is_err();
    let padded_number = value.len() > 1 && value.starts_with('0') && value.bytes().all(|c| c.is_ascii_digit());
    value.chars().all(safe) && !word && !fraction && !padded_number && !value.starts_with(['-', '.'])
}

/// Hands out the edited text only when it says what the old one said, but for this one value.
fn proven(before: &Source, text: String, path: &str, value: &str) -> Result<String, EditError> {
    let failed = || EditError::Unsafe(path.to_owned());
    let after = parse(&text).map_err(|_| failed())?;
    let (mut expected, mut found) = (BTreeMap::new(), BTreeMap::new());
    said(before.root(), String::new(), &mut expected);
    said(after.root(), String::new(), &mut found);
    expected.insert(path.to_owned(), value.to_owned());
    if expected == found { Ok(text) } else { Err(failed()) }
}

/// Every scalar of a document by key path.
fn said(node: &Node, path: String, found: &mut BTreeMap<String, String>) {
    match &node.data {
        Data::Scalar(text) => {
            found.insert(path, text.clone());
        }
        Data::List(items) => {
            for (index, item) in items.iter().enumerate() {
                said(item, format!("{path}[{index}]"), found);
            }
        }
        Data::Map(entries) => {
            for entry in entries {
                let dot = if path.is_empty() { "" } else { "." };
                said(&entry.value, format!("{path}{dot}{}", entry.name), found);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_changes_and_its_quotes_stay() {
        let cases = [
            ("a:   \"1.12.4\"   # keep\nb: 2\n", "a", "1.13.9", "a:   \"1.13.9\"   # keep\nb: 2\n"),
            ("a: '1.12'\r\nb: 2\r\n", "a", "1.13", "a: '1.13'\r\nb: 2\r\n"),
            ("a: 1.12.4 # c", "a", "1.13.9", "a: 1.13.9 # c"),
            ("a: 1.12 # c\n", "a", "1.10", "a: \"1.10\" # c\n"),
            ("t: {v: \"1\", k: 1.35.0}\n", "t.k", "1.36.0", "t: {v: \"1\", k: 1.36.0}\n"),
            ("n:\n  - {id: 1}\n  - id: 2 # two\n", "n[1].id", "7", "n:\n  - {id: 1}\n  - id: 7 # two\n"),
            ("a: # nothing yet\nb: 1\n", "a", "9001", "a: 9001 # nothing yet\nb: 1\n"),
            ("a: ~\n", "a", "x: y", "a: \"x: y\"\n"),
            ("a: 'x'\n", "a", "it's", "a: 'it''s'\n"),
        ];
        for (text, path, value, expected) in cases {
            assert_eq!(edit(text, &[(path, value)]).unwrap(), expected, "{path} in {text:?}");
        }
    }

    #[test]
    fn a_missing_key_goes_to_the_end_of_its_mapping() {
        let cases = [
            ("a: 1 # one\n\n# b follows\nb: 2\n", "c", "a: 1 # one\n\n# b follows\nb: 2\nc: 9\n"),
            ("t:\n  v: 1 # one\n\n# next\nn: 2\n", "t.k", "t:\n  v: 1 # one\n  k: 9\n\n# next\nn: 2\n"),
            (
                "t:\n    l:\n      - 1\n      - {x: 2} # x\nn: 2\n",
                "t.k",
                "t:\n    l:\n      - 1\n      - {x: 2} # x\n    k: 9\nn: 2\n",
            ),
            ("t: {v: 1}\n", "t.k", "t: {v: 1, k: 9}\n"),
            ("t: { v: 1, }\n", "t.f.k", "t: { v: 1, f: {k: 9} }\n"),
            ("t: {}\n", "t.k", "t: {k: 9}\n"),
            ("t:\n  v: 1", "t.f.k", "t:\n  v: 1\n  f:\n    k: 9"),
            ("t:\n  v: 1\r\nn: 2\r\n", "t.k", "t:\n  v: 1\r\n  k: 9\r\nn: 2\r\n"),
            ("t:\n  s: |\n    x\n    y\nn: 2\n", "t.k", "t:\n  s: |\n    x\n    y\n  k: 9\nn: 2\n"),
        ];
        for (text, path, expected) in cases {
            assert_eq!(edit(text, &[(path, "9")]).unwrap(), expected, "{path} in {text:?}");
        }
    }

    #[test]
    fn an_item_goes_behind_the_last_of_its_list() {
        let cases = [
            ("t: {l: [a/x]}\nn: 2\n", "t.l[1]", "t: {l: [a/x, 9]}\nn: 2\n"),
            ("l: [\"a/x\"]\n", "l[1]", "l: [\"a/x\", \"9\"]\n"),
            ("l: []\n", "l[0]", "l: [9]\n"),
            (
                "t:\n  l:\n    - a/x # one\n    - 'a/y' # two\n\n# n follows\nn: 2\n",
                "t.l[2]",
                "t:\n  l:\n    - a/x # one\n    - 'a/y' # two\n    - '9'\n\n# n follows\nn: 2\n",
            ),
            ("t:\n  l:\n  - a/x\nn: 2\n", "t.l[1]", "t:\n  l:\n  - a/x\n  - 9\nn: 2\n"),
            ("l:\r\n  - a/x\r\n", "l[1]", "l:\r\n  - a/x\r\n  - 9\r\n"),
        ];
        for (text, path, expected) in cases {
            assert_eq!(edit(text, &[(path, "9")]).unwrap(), expected, "{path} in {text:?}");
        }
        for (text, path) in [("l:\n  - a: 1\n", "l[1]"), ("l: [a]\n", "l[2]"), ("b: &b [1]\nl: *b\n", "l[1]")] {
            assert!(edit(text, &[(path, "9")]).is_err(), "{path} in {text:?}");
        }
    }

    #[test]
    fn what_is_shared_or_no_scalar_is_left_alone() {
        let text = "base: &b {cores: 2}\nw: *b\nm: {<<: *b, x: 1}\nl: [1]\n";
        assert!(matches!(edit(text, &[("w.cores", "4")]), Err(EditError::Shared(_))));
        assert!(matches!(edit(text, &[("m.cores", "4")]), Err(EditError::Shared(_))));
        assert!(matches!(edit(text, &[("l", "4")]), Err(EditError::NotScalar(_))));
        assert!(matches!(edit(text, &[("l[3]", "4")]), Err(EditError::NoSuchPlace(_))));
        assert!(matches!(edit(text, &[("l.x", "4")]), Err(EditError::NoSuchPlace(_))));
        assert_eq!(edit(text, &[("m.x", "1")]).unwrap(), text);
        assert_eq!(edit(text, &[("m.y", "4")]).unwrap(), text.replace("x: 1}", "x: 1, y: 4}"));
    }

    #[test]
    fn profiles_of_users_keep_every_other_byte() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/profiles");
        for name in ["full", "auto", "minimal", "spread"] {
            let text = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
            let changes = [("talos.version", "1.13.9"), ("talos.kubernetes_version", "1.36.1"), ("template", "9001")];
            let edited = edit(&text, &changes).unwrap();
            let differing: Vec<(&str, &str)> = text.lines().zip(edited.lines()).filter(|(a, b)| a != b).collect();
            assert_eq!(text.lines().count(), edited.lines().count());
            assert!(differing.len() <= 3, "{differing:?}");
            let restored =
                edited.replace("1.13.9", &first(&text, "version: \"")).replace("9001", &first(&text, "template: "));
            assert_eq!(restored.replace("1.36.1", &first(&text, "kubernetes_version: \"")), text);
        }
    }

    /// What follows `after` in the text, up to a quote or line end.
    fn first(text: &str, after: &str) -> String {
        let rest = &text[text.find(after).unwrap() + after.len()..];
        rest.split(['"', '\n']).next().unwrap().to_owned()
    }
}
