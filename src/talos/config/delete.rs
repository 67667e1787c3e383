//! `$patch: delete` in a patch: what is taken out of a configuration before the rest of the patch is merged.
//!
//! Rules of siderolabs/talos `pkg/machinery/config/configloader/internal/decoder/{delete,selector}.go` (v1.13.9): a whole
//! document, a key at a path of mappings, or an element of a list, chosen by its first other key. Must not know: merging.

use super::merge::MergeError;
use super::schema::shapes::{Type, field};
use super::yaml::{Map, Value};

/// The key that deletes instead of merging.
pub(super) const DIRECTIVE: &str = "$patch";

/// Something to take out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Delete {
    path: Vec<String>,
    /// The key and the value, as text, that choose an element of the list at the path.
    element: Option<(String, String)>,
}

impl Delete {
    /// A key at a path, or the whole document at none.
    pub(super) fn of(path: Vec<String>) -> Self {
        Self { path, element: None }
    }

    /// The same at another path.
    pub(super) fn with_path(&self, path: Vec<String>) -> Self {
        Self { path, ..self.clone() }
    }

    /// Whether the document itself goes.
    pub(super) fn is_whole(&self) -> bool {
        self.path.is_empty()
    }

    /// The keys that lead to it.
    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    /// What chooses an element of the list at the path.
    pub(super) fn element(&self) -> Option<&(String, String)> {
        self.element.as_ref()
    }

    fn shown(&self) -> String {
        let path = self.path.join(".");
        self.element.as_ref().map_or_else(|| path.clone(), |(key, _)| format!("{path}[{key}]"))
    }

    /// Takes it out of a document of this shape.
    pub(super) fn apply(&self, target: &mut Map, shape: &'static str) -> Result<(), MergeError> {
        let nothing = || MergeError::NothingToDelete { path: self.shown() };
        let (last, parents) =
            self.path.split_last().ok_or_else(|| MergeError::Undeletable { path: "the main document".into() })?;
        let mut place = Some(Place::Shape(shape));
        let mut map = Some(target);
        for key in parents {
            let is_always_there = place.as_ref().is_some_and(|place| place.holds_always(key));
            place = place.and_then(|place| place.inner(key));
            map = match map.and_then(|map| map.get_mut(key)).and_then(Value::as_map_mut) {
                Some(inner) => Some(inner),
                None if is_always_there && self.element.is_none() => None,
                None => return Err(nothing()),
            };
        }
        let Some(map) = map else {
            return if knows(place.as_ref(), last) { Ok(()) } else { Err(nothing()) };
        };
        if let Some((selector, wanted)) = &self.element {
            // Nothing is chosen by what is base64.
            if matches!(&place, Some(Place::Shape(shape)) if field(shape, last).is_some_and(|field| is_pem(&field.of)))
            {
                return Err(nothing());
            }
            let Some(Value::List(list)) = map.get_mut(last) else { return Err(nothing()) };
            let at = list.iter().position(|element| chosen(element, selector, wanted)).ok_or_else(nothing)?;
            list.remove(at);
            return Ok(());
        }
        // A key that the types know may be absent already; one of the user's choice may not.
        if map.remove(last).is_none() && !knows(place.as_ref(), last) { Err(nothing()) } else { Ok(()) }
    }
}

/// Whether the types know a key.
fn knows(place: Option<&Place>, key: &str) -> bool {
    matches!(place, Some(Place::Shape(shape)) if field(shape, key).is_some())
}

/// Whether a list's elements, or what may be absent, are of PEM.
fn is_pem(of: &Type) -> bool {
    match of {
        Type::Optional(inner) | Type::List(inner, _) => is_pem(inner),
        of => matches!(of, Type::Pem(_)),
    }
}

/// What the keys of a mapping are.
enum Place {
    Shape(&'static str),
    Keys(&'static Type),
    Free,
}

impl Place {
    /// Whether a key's mapping is there even where it is not written.
    fn holds_always(&self, key: &str) -> bool {
        matches!(self, Self::Shape(shape) if field(shape, key).is_some_and(|field| matches!(field.of, Type::Shape(_))))
    }

    fn inner(self, key: &str) -> Option<Self> {
        match self {
            Self::Shape(shape) => Self::of(&field(shape, key)?.of),
            Self::Keys(of) => Self::of(of),
            Self::Free => Some(Self::Free),
        }
    }

    fn of(of: &'static Type) -> Option<Self> {
        match of {
            Type::Optional(inner) => Self::of(inner),
            Type::Shape(name) => Some(Self::Shape(name)),
            Type::Map(inner, _) => Some(Self::Keys(inner)),
            Type::Free => Some(Self::Free),
            _ => None,
        }
    }
}

/// Selectors compare texts and what is written like one; numbers and switches choose nothing.
fn chosen(element: &Value, selector: &str, wanted: &str) -> bool {
    element.at(&[selector]).is_some_and(|value| match value {
        Value::Text(text) => text == wanted,
        _ => false,
    }) || (wanted.is_empty() && element.as_map().is_some_and(|map| map.get(selector).is_none()))
}

/// Takes the deletes out of a patch's document. `None` is left when nothing else is in it.
pub(super) fn extract(mut root: Value) -> Result<(Vec<Delete>, Option<Value>), MergeError> {
    let mut found = Vec::new();
    let mut path = Vec::new();
    let gone = walk(&mut root, Inside::Document, &mut path, &mut found)?;
    let left = !gone && (found.is_empty() || !is_only_named(&root));
    Ok((found, left.then_some(root)))
}

#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Document,
    Map,
    List,
}

/// Whether the node goes out of the patch: it deletes, or nothing is left in it.
fn walk(
    value: &mut Value,
    inside: Inside,
    path: &mut Vec<String>,
    found: &mut Vec<Delete>,
) -> Result<bool, MergeError> {
    match value {
        Value::Map(map) => {
            let keys: Vec<String> = map.keys().map(str::to_owned).collect();
            let element =
                map.iter().find(|(key, _)| *key != DIRECTIVE).map(|(key, value)| (key.to_owned(), text(value)));
            for key in keys {
                if key == DIRECTIVE {
                    match map.get(&key).and_then(Value::as_text) {
                        Some("delete") => {}
                        _ => return Err(MergeError::Directive { path: path.join(".") }),
                    }
                    if inside == Inside::List {
                        let list = &path[..path.len().saturating_sub(1)];
                        let element = element.ok_or_else(|| undeletable(list))?;
                        push(list, Some(element), found)?;
                    } else {
                        push(path, None, found)?;
                    }
                    return Ok(true);
                }
                path.push(key.clone());
                let gone = match map.get_mut(&key) {
                    Some(inner) => walk(inner, Inside::Map, path, found)?,
                    None => false,
                };
                path.pop();
                if gone {
                    map.remove(&key);
                    if map.is_empty() {
                        return Ok(true);
                    }
                }
            }
            Ok(false)
        }
        Value::List(list) => {
            for (at, mut element) in std::mem::take(list).into_iter().enumerate() {
                path.push(format!("[{at}]"));
                let gone = walk(&mut element, Inside::List, path, found)?;
                path.pop();
                if !gone {
                    list.push(element);
                }
            }
            // A list that was empty from the start says so; one that only deleted says nothing more.
            Ok(list.is_empty() && found.iter().any(|delete| delete.path.starts_with(path)))
        }
        _ => Ok(false),
    }
}

fn undeletable(path: &[String]) -> MergeError {
    MergeError::Undeletable { path: path.join(".") }
}

fn push(path: &[String], element: Option<(String, String)>, found: &mut Vec<Delete>) -> Result<(), MergeError> {
    if path.iter().any(|key| key.starts_with('[')) {
        return Err(undeletable(path));
    }
    found.push(Delete { path: path.to_vec(), element });
    Ok(())
}

fn text(value: &Value) -> String {
    match value {
        Value::Number(number) => number.raw().to_owned(),
        Value::Bool(flag) => flag.raw().to_owned(),
        Value::Text(text) => text.clone(),
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

/// Whether a document of a patch says nothing, and is passed over.
pub(super) fn is_nothing(root: &Value) -> bool {
    is_only_named(root)
        && root
            .as_map()
            .is_some_and(|map| map.iter().all(|(_, value)| value.as_map().is_none() && value.as_list().is_none()))
}

/// Whether a document only says which one it is. (Not `apiVersion`, as the real tool has it.)
fn is_only_named(root: &Value) -> bool {
    root.as_map().is_some_and(|map| map.keys().all(|key| matches!(key, "version" | "kind" | "name")))
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{document, one};
    use super::*;

    fn deleted(target: &str, patch: &str) -> Result<String, MergeError> {
        let mut target = one(target).unwrap().root;
        let (deletes, left) = extract(one(patch).unwrap().root)?;
        for delete in &deletes {
            delete.apply(target.as_map_mut().unwrap(), "v1alpha1.Config")?;
        }
        Ok(format!("{}+ {}", document(&target), left.map_or_else(|| "nothing\n".to_owned(), |left| document(&left))))
    }

    #[test]
    fn keys_and_elements_go_and_the_rest_of_the_patch_stays() {
        let network = "machine: {network: {hostname: a, interfaces: [{interface: x}, {interface: w}]}}\n";
        let cases = [
            (
                "machine: {network: {hostname: {$patch: delete}}}\n",
                "machine:\n    network:\n        interfaces:\n            - interface: x\n            - interface: w\n+ nothing\n",
            ),
            (
                "machine: {network: {interfaces: [{interface: x, $patch: delete}, {interface: z}]}}\n",
                "machine:\n    network:\n        hostname: a\n        interfaces:\n            - interface: w\n+ machine:\n    network:\n        interfaces:\n            - interface: z\n",
            ),
            (
                "machine: {network: {searchDomains: {$patch: delete}}}\n",
                "machine:\n    network:\n        hostname: a\n        interfaces:\n            - interface: x\n            - interface: w\n+ nothing\n",
            ),
        ];
        for (patch, expected) in cases {
            assert_eq!(deleted(network, patch).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn what_is_not_there_or_cannot_go_is_told() {
        let error = |patch| deleted("machine: {sysctls: {a: b}, udev: {}}\n", patch).unwrap_err().to_string();
        assert_eq!(
            error("machine: {sysctls: {c: {$patch: delete}}}\n"),
            "machine.sysctls.c is to be deleted and is not there; correct the path, or leave it out of the patch"
        );
        assert_eq!(
            error("machine: {network: {hostname: {$patch: delete}}}\n"),
            "machine.network.hostname is to be deleted and is not there; correct the path, or leave it out of the patch"
        );
        assert_eq!(
            error("machine: {network: {interfaces: [{interface: x, mtu: {$patch: delete}}]}}\n"),
            "machine.network.interfaces.[0].mtu cannot be deleted by a patch"
        );
        assert_eq!(error("machine: {sysctls: {a: {$patch: keep}}}\n"), "machine.sysctls.a: $patch must be delete");
        assert_eq!(error("$patch: delete\n"), "the main document cannot be deleted by a patch");
    }
}
