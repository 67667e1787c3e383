//! The documents that say what an old key says, to be shown: what a translation writes for it, with secrets masked.
//!
//! Must not know: who shows them.

use super::translate::translate;
use super::{Finding, NOTHING_TO_DELETE, Patch};
use crate::talos::config::Contract;
use crate::talos::config::delete::{DIRECTIVE, Delete};
use crate::talos::config::diff::masked;
use crate::talos::config::patch::Part;
use crate::talos::config::yaml::{Map, Value, stream};
use crate::types::Role;

/// What takes an old key's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// The documents, as YAML.
    pub documents: String,
    /// What becomes of the rest of the key's value.
    pub rest: Rest,
}

/// What a translation leaves of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing.
    Nothing,
    /// Some of it, or all: it has no translation.
    Stays,
}

/// What a translation for a machine of `role` writes in the place of what `finding` is about; none where the finding is
/// not about a key of this patch's main document.
pub fn replacement(
    patch: &Patch,
    finding: &Finding,
    (contract, role): (Contract, Role),
    is_secret: &dyn Fn(&str) -> bool,
) -> Option<Replacement> {
    if patch.origin() != finding.origin || finding.document != "v1alpha1" || finding.path.is_empty() {
        return None;
    }
    let mut main = patch.parts().iter().filter(|part| part.kind.name == "v1alpha1");
    let only = main.find_map(|part| only(part, finding).filter(|_| part.spot_of(&finding.path) == finding.spot))?;
    let translated = translate(&[patch.with_parts(vec![only])], contract, role);
    let (left, made) = translated.first()?.parts().split_first()?;
    let documents: Vec<Value> = made.iter().map(|part| masked(&written(part), is_secret)).collect();
    let is_left = left.content().is_some() || !left.deletes().is_empty();
    Some(Replacement { documents: stream(&documents), rest: if is_left { Rest::Stays } else { Rest::Nothing } })
}

/// The part with nothing but what a finding is about: a value, or what is taken out.
fn only(part: &Part, finding: &Finding) -> Option<Part> {
    if finding.what == NOTHING_TO_DELETE {
        let deletes = part.deletes().iter().filter(|delete| delete.path().join(".") == finding.path);
        let deletes: Vec<Delete> = deletes.cloned().collect();
        return (!deletes.is_empty()).then(|| part.with_content(None).with_deletes(deletes));
    }
    let keys: Vec<&str> = finding.path.split('.').collect();
    let value = part.at(&keys)?;
    let only = keys.iter().rev().fold(value.clone(), |value, key| Map::new().with(key, value).into());
    Some(part.with_content(only.as_map().cloned()).with_deletes(Vec::new()))
}

/// What a patch still says below the key of a finding: after a translation, what has none.
pub fn left(patch: &Patch, finding: &Finding) -> Vec<String> {
    if patch.origin() != finding.origin || finding.document != "v1alpha1" {
        return Vec::new();
    }
    let keys: Vec<&str> = finding.path.split('.').collect();
    let main = patch.parts().iter().filter(|part| part.kind.name == "v1alpha1");
    let below = main.filter_map(|part| part.at(&keys)?.as_map()).flat_map(Map::keys);
    below.map(|key| format!("{}.{key}", finding.path)).collect()
}

/// A part of a patch as it is written in a file.
fn written(part: &Part) -> Value {
    let mut document = part.content().cloned().unwrap_or_else(|| {
        let named = Map::new().with("apiVersion", "v1alpha1").with("kind", part.kind.name);
        named.with_some("name", part.name())
    });
    for delete in part.deletes() {
        gone(&mut document, delete.path(), delete);
    }
    document.into()
}

/// Writes a delete at its path.
fn gone(map: &mut Map, path: &[String], delete: &Delete) {
    let Some((key, rest)) = path.split_first() else {
        map.set(DIRECTIVE, "delete");
        return;
    };
    if let (true, Some((selector, wanted))) = (rest.is_empty(), delete.element()) {
        let element = Map::new().with(selector, wanted.as_str()).with(DIRECTIVE, "delete");
        let before = map.get(key).and_then(Value::as_list).unwrap_or_default();
        map.set(key, [before, &[Value::Map(element)]].concat());
        return;
    }
    if map.get(key).and_then(Value::as_map).is_none() {
        map.set(key, Map::new());
    }
    if let Some(inner) = map.get_mut(key).and_then(Value::as_map_mut) {
        gone(inner, rest, delete);
    }
}
