//! JSON patches (RFC 6902): lists of operations on paths.
//!
//! They work on a configuration of one document only, as the real tool has it; from contract 1.12 on there are always
//! more. Where the real tool's library (evanphx/json-patch 5.9.11, its root package) is more lenient than the standard,
//! this is too: `replace` of a key that isn't there adds it, a negative index counts from a list's end, a `test` for null
//! holds where nothing is, and a value that is missing is null. Must not know: where patches come from.

use super::json::{self, Controls, Keys};
use super::yaml::{Map, Marks, Spot, Value};

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    verb: Verb,
    path: Pointer,
    /// What becomes of control characters that are still there at the end, once this was done.
    controls: Controls,
}

#[derive(Clone, Debug)]
enum Verb {
    Add(Value),
    Remove,
    Replace(Value),
    Move(Pointer),
    Copy(Pointer),
    Test(Value),
}

/// An operation that cannot be read or carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperationError {
    /// It lacks a key, or has an unknown verb.
    #[error("{spot}, operation {at}: {why}")]
    Malformed {
        /// Where it stands.
        spot: Spot,
        /// Which one, from 1.
        at: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// Its path, or the path it takes from, leads nowhere.
    #[error("{spot}: there is nothing at {path}; correct the path, or add its parents first")]
    Nowhere {
        /// Where the operation says the path.
        spot: Spot,
        /// The path.
        path: String,
    },
    /// Something else than a mapping in place of everything.
    #[error("{spot}: a whole configuration is replaced by a mapping only")]
    Whole {
        /// Where the operation says the path.
        spot: Spot,
    },
    /// A `test` that does not hold.
    #[error("{spot}: the test at {path} does not hold; correct its value, or leave it out")]
    Test {
        /// Where the operation says the path.
        spot: Spot,
        /// The path.
        path: String,
    },
}

/// A path: `/cluster/extraManifests/-`.
#[derive(Clone, Debug)]
struct Pointer {
    /// Where it stands in the patch.
    spot: Spot,
    text: String,
    keys: Vec<String>,
}

impl Pointer {
    fn parse(text: &str, spot: Spot) -> Option<Self> {
        if !text.is_empty() && !text.starts_with('/') {
            return None;
        }
        let keys = text.split('/').skip(1).map(|key| key.replace("~1", "/").replace("~0", "~")).collect();
        Some(Self { spot, text: text.to_owned(), keys })
    }

    fn nowhere(&self) -> OperationError {
        OperationError::Nowhere { spot: self.spot, path: self.text.clone() }
    }

    /// What is there; nothing for a key that its mapping lacks.
    fn find<'a>(&self, root: &'a mut Value) -> Result<Option<&'a mut Value>, OperationError> {
        let (parent, key) = self.parent(root)?;
        match &*parent {
            Value::Map(_) => {}
            Value::List(list) if index(key, list.len()).is_some_and(|at| at < list.len()) => {}
            _ => return Err(self.nowhere()),
        }
        Ok(child(parent, key))
    }

    /// The container that holds the last key, and that key. The whole document has none.
    fn parent<'a>(&self, root: &'a mut Value) -> Result<(&'a mut Value, &str), OperationError> {
        let (last, parents) = self.keys.split_last().ok_or_else(|| self.nowhere())?;
        let parent = parents.iter().try_fold(root, |value, key| child(value, key)).ok_or_else(|| self.nowhere())?;
        Ok((parent, last))
    }
}

fn child<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    match value {
        Value::Map(map) => map.get_mut(key),
        Value::List(list) => {
            let at = index(key, list.len())?;
            list.get_mut(at)
        }
        _ => None,
    }
}

/// A list's index; a negative one counts from its end.
fn index(key: &str, len: usize) -> Option<usize> {
    let at: i64 = key.parse().ok()?;
    let len = i64::try_from(len).ok()?;
    usize::try_from(if at < 0 { at + len } else { at }).ok()
}

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Its numbers stay as they are written, its control characters are escapes.
    Json,
    /// The same, with control characters as they are.
    RawJson,
    /// What it has is brought to JSON.
    Yaml,
}

/// Reads the operations of a patch; `marks` are those of its document.
pub(super) fn parse(list: &[Value], marks: &Marks, form: Form) -> Result<Vec<Operation>, OperationError> {
    list.iter()
        .enumerate()
        .map(|(at, operation)| {
            let here = format!("[{at}]");
            parse_one(operation, &here, marks, form).map_err(|why| {
                let spot = marks.spot(&here).unwrap_or(Spot::START);
                OperationError::Malformed { spot, at: at + 1, why }
            })
        })
        .collect()
}

fn parse_one(operation: &Value, here: &str, marks: &Marks, form: Form) -> Result<Operation, &'static str> {
    let pointer = |key: &str, why| {
        let spot = marks.spot(&format!("{here}.{key}")).unwrap_or(Spot::START);
        operation.at(&[key]).and_then(Value::as_text).and_then(|text| Pointer::parse(text, spot)).ok_or(why)
    };
    let path = pointer("path", "'path' must be a path such as /machine/type")?;
    let from = || pointer("from", "'from' must be a path such as /machine/type");
    let value = || {
        let mut value = operation.at(&["value"]).cloned().unwrap_or(Value::Null);
        let fits = form != Form::Yaml || json::convert(&mut value, Keys::Texts);
        fits.then_some(value).ok_or("'value' has something in it that JSON has not: quote it")
    };
    let written = || value().map(written);
    let verb = match operation.at(&["op"]).and_then(Value::as_text) {
        Some("add") => Verb::Add(written()?),
        Some("remove") => Verb::Remove,
        Some("replace") => Verb::Replace(written()?),
        Some("move") => Verb::Move(from()?),
        Some("copy") => Verb::Copy(from()?),
        Some("test") => Verb::Test(value()?),
        _ => return Err("'op' must be add, remove, replace, move, copy or test"),
    };
    // Only escapes in a value of JSON stay escapes.
    let brings = match &verb {
        Verb::Add(value) | Verb::Replace(value) => form != Form::Json && json::has_controls(value),
        Verb::Remove | Verb::Move(_) | Verb::Copy(_) | Verb::Test(_) => false,
    };
    let puts = !matches!(verb, Verb::Remove | Verb::Test(_));
    let names = puts && path.keys.last().is_some_and(|key| key.contains(json::is_control_in_key));
    Ok(Operation { verb, path, controls: if brings || names { Controls::Refused } else { Controls::Taken } })
}

impl Operation {
    /// Where it changes something.
    pub(super) fn path(&self) -> &str {
        &self.path.text
    }

    /// Whether it brings control characters that are not read again, where they stay.
    pub(super) fn brings_controls(&self) -> bool {
        self.controls == Controls::Refused
    }

    /// Where it says so.
    pub(super) fn spot(&self) -> Spot {
        self.path.spot
    }

    /// The keys to what it writes, and the value.
    pub(super) fn writes(&self) -> Option<(&[String], &Value)> {
        match &self.verb {
            Verb::Add(value) | Verb::Replace(value) => Some((&self.path.keys, value)),
            _ => None,
        }
    }

    /// The keys to what it takes out.
    pub(super) fn takes(&self) -> Option<&[String]> {
        match &self.verb {
            Verb::Remove => Some(&self.path.keys),
            Verb::Move(from) => Some(&from.keys),
            _ => None,
        }
    }
}

/// Carries out all operations, in order.
pub(super) fn apply(root: &mut Value, operations: &[Operation]) -> Result<(), OperationError> {
    for Operation { verb, path, .. } in operations {
        match verb {
            Verb::Add(value) => add(root, path, value.clone())?,
            Verb::Remove => {
                remove(root, path)?;
            }
            Verb::Replace(value) => replace(root, path, value.clone())?,
            Verb::Move(from) => {
                let value = remove(root, from)?;
                add(root, path, value)?;
            }
            Verb::Copy(from) => {
                let value = from.find(root)?.cloned().unwrap_or(Value::Null);
                add(root, path, value)?;
            }
            Verb::Test(value) => {
                let there = if path.keys.is_empty() { Some(&mut *root) } else { path.find(root)? };
                if !same(there.as_deref().unwrap_or(&Value::Null), value) {
                    return Err(OperationError::Test { spot: path.spot, path: path.text.clone() });
                }
            }
        }
    }
    Ok(())
}

/// Whether two values are the same to a test: the order of keys says nothing, and `1` is not `1.0`.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Map(one), Value::Map(other)) => {
            let has = |(key, value): (&str, &Value)| other.get(key).is_some_and(|other| same(value, other));
            one.len() == other.len() && one.iter().all(has)
        }
        (Value::List(one), Value::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Number(one), Value::Number(other)) => one == other && one.sort() == other.sort(),
        _ => one == other,
    }
}

fn replace(root: &mut Value, path: &Pointer, value: Value) -> Result<(), OperationError> {
    if path.keys.is_empty() {
        value.as_map().ok_or(OperationError::Whole { spot: path.spot })?;
        *root = value;
        return Ok(());
    }
    let (parent, key) = path.parent(root)?;
    if let Value::Map(map) = parent {
        map.set(key, value);
        return Ok(());
    }
    *child(parent, key).ok_or_else(|| path.nowhere())? = value;
    Ok(())
}

fn add(root: &mut Value, path: &Pointer, value: Value) -> Result<(), OperationError> {
    let (parent, key) = path.parent(root)?;
    match parent {
        Value::Map(map) => map.set(key, value),
        Value::List(list) => {
            // Here a negative index counts from the end of the list as it will be.
            let len = list.len() + usize::from(key.starts_with('-'));
            let at = if key == "-" { Some(list.len()) } else { index(key, len).filter(|at| *at <= list.len()) };
            list.insert(at.ok_or_else(|| path.nowhere())?, value);
        }
        _ => return Err(path.nowhere()),
    }
    Ok(())
}

fn remove(root: &mut Value, path: &Pointer) -> Result<Value, OperationError> {
    let (parent, key) = path.parent(root)?;
    let gone = match parent {
        Value::Map(map) => map.remove(key),
        Value::List(list) => index(key, list.len()).filter(|at| *at < list.len()).map(|at| list.remove(at)),
        _ => None,
    };
    gone.ok_or_else(|| path.nowhere())
}

/// A value of a JSON text whose numbers are written as they are when the whole text was.
fn written(value: Value) -> Value {
    match value {
        Value::Map(map) => Value::Map(map.into_iter().map(|(key, value)| (key, written(value))).collect()),
        Value::List(list) => Value::List(list.into_iter().map(written).collect()),
        Value::Number(number) => Value::Number(number.of_json()),
        other => other,
    }
}

/// Whether a patch's document is a list of operations.
pub(super) fn is_patch(value: &Value) -> bool {
    value.as_list().is_some_and(|list| list.iter().all(|element| element.as_map().is_some_and(has_verb)))
}

fn has_verb(map: &Map) -> bool {
    map.get("op").is_some()
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{document, one};
    use super::*;

    fn patched(root: &str, patch: &str) -> Result<String, OperationError> {
        let mut root = one(root).unwrap().root;
        let patch = one(patch).unwrap();
        apply(&mut root, &parse(patch.root.as_list().unwrap(), &patch.marks, Form::Yaml)?)?;
        Ok(document(&root))
    }

    #[test]
    fn operations_do_what_the_standard_says() {
        let cases = [
            ("[{op: add, path: /a/x, value: 1}]", "a:\n    k: 0\n    x: 1\nl:\n    - 1\n    - 2\n"),
            ("[{op: add, path: /a/x}]", "a:\n    k: 0\n    x: null\nl:\n    - 1\n    - 2\n"),
            ("[{op: add, path: /l/-, value: 3}]", "a:\n    k: 0\nl:\n    - 1\n    - 2\n    - 3\n"),
            ("[{op: add, path: /l/0, value: 3}]", "a:\n    k: 0\nl:\n    - 3\n    - 1\n    - 2\n"),
            ("[{op: remove, path: /a}]", "l:\n    - 1\n    - 2\n"),
            ("[{op: replace, path: /a/k, value: 5}]", "a:\n    k: 5\nl:\n    - 1\n    - 2\n"),
            ("[{op: move, from: /a/k, path: /a/b~1c}]", "a:\n    b/c: 0\nl:\n    - 1\n    - 2\n"),
            ("[{op: copy, from: /l/1, path: /l/-}]", "a:\n    k: 0\nl:\n    - 1\n    - 2\n    - 2\n"),
            ("[{op: test, path: /l/0, value: 1}]", "a:\n    k: 0\nl:\n    - 1\n    - 2\n"),
        ];
        for (patch, expected) in cases {
            assert_eq!(patched("a: {k: 0}\nl: [1, 2]\n", patch).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_told() {
        let cases = [
            (
                "[{op: remove, path: /b}]",
                "line 1, column 15: there is nothing at /b; correct the path, or add its parents first",
            ),
            (
                "- op: replace\n  path: /l/2\n  value: 1\n",
                "line 2, column 3: there is nothing at /l/2; correct the path, or add its parents first",
            ),
            (
                "- {op: remove, path: /a}\n- {op: add, path: /b/c, value: 1}\n",
                "line 2, column 13: there is nothing at /b/c; correct the path, or add its parents first",
            ),
            (
                "[{op: move, path: /a, from: /b}]",
                "line 1, column 23: there is nothing at /b; correct the path, or add its parents first",
            ),
            (
                "[{op: test, path: /l/0, value: 2}]",
                "line 1, column 13: the test at /l/0 does not hold; correct its value, or leave it out",
            ),
            (
                "[{op: turn, path: /l}]",
                "line 1, column 2, operation 1: 'op' must be add, remove, replace, move, copy or test",
            ),
            (
                "[{op: add, path: l, value: 1}]",
                "line 1, column 2, operation 1: 'path' must be a path such as /machine/type",
            ),
            (
                "[{op: add, path: /l, value: .inf}]",
                "line 1, column 2, operation 1: 'value' has something in it that JSON has not: quote it",
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(patched("a: 1\nl: [1, 2]\n", patch).unwrap_err().to_string(), expected, "{patch}");
        }
    }
}
