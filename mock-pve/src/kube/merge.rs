//! Server-side apply's arithmetic: which fields an object has, how two objects differ, what one becomes with another's
//! fields, or without some (structured-merge-diff, typed/{tofieldset,compare,merge,remove}.go).

use serde_json::{Map, Value};

use super::paths::Paths;
use super::schema::{Presence, Shape};

/// The fields that an applied configuration claims.
pub(super) fn claimed(value: &Value, shape: &Shape) -> Paths {
    let mut all = Paths::default();
    claim(value, shape, &mut all);
    all
}

fn claim(value: &Value, shape: &Shape, into: &mut Paths) {
    if shape.is_whole(value) {
        into.member = true;
        return;
    }
    match value {
        Value::Object(map) => {
            // Keys of maps belong to whoever names them, fields of types only as far as there is something in them.
            let is_type = matches!(shape, Shape::Named(..));
            for (name, value) in map {
                let Some(shape) = shape.field(name) else { continue };
                let below = into.below.entry(format!("f:{name}")).or_default();
                claim(value, &shape, below);
                below.member |= !is_type || value.is_null() || value.as_object().is_some_and(Map::is_empty);
            }
        }
        Value::Array(list) => {
            let items = shape.items();
            for item in list {
                let Some(step) = shape.item(item) else { continue };
                let below = into.below.entry(step).or_default();
                if item.is_object() {
                    claim(item, &items, below);
                }
                below.member = true;
            }
        }
        _ => into.member = true,
    }
}

/// How an object differs from what it was.
#[derive(Debug, Default)]
pub(super) struct Difference {
    /// Fields that are new or have another value.
    pub(super) written: Paths,
    /// Fields that are gone.
    pub(super) removed: Paths,
}

pub(super) fn compare(old: Option<&Value>, new: Option<&Value>, shape: &Shape) -> Difference {
    let mut difference = Difference::default();
    differ((old, new), shape, &mut Vec::new(), &mut difference);
    difference
}

fn differ((old, new): (Option<&Value>, Option<&Value>), shape: &Shape, path: &mut Vec<String>, into: &mut Difference) {
    let whole = old.or(new).is_none_or(|value| shape.is_whole(value)) || new.is_some_and(|value| shape.is_whole(value));
    if whole {
        match (old, new) {
            (Some(old), Some(new)) if old == new => {}
            (_, Some(_)) => into.written.insert(path),
            (Some(_), None) => into.removed.insert(path),
            (None, None) => {}
        }
        return;
    }
    let always = matches!(shape, Shape::Named(_, Presence::Always));
    match (old, new) {
        (None, Some(_)) if !path.is_empty() && !always => into.written.insert(path),
        (Some(_), None) if !path.is_empty() && !always => into.removed.insert(path),
        _ => {}
    }
    let map = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    if old.or(new).is_some_and(Value::is_array) {
        let items = shape.items();
        let keyed = |list: &[Value]| -> Vec<(String, Value)> {
            list.iter().filter_map(|item| Some((shape.item(item)?, item.clone()))).collect()
        };
        let (old, new) = (keyed(&list(old)), keyed(&list(new)));
        for (step, item) in &new {
            let before = old.iter().find(|(known, _)| known == step).map(|(_, item)| item);
            path.push(step.clone());
            if before.is_none() {
                into.written.insert(path);
            }
            if item.is_object() {
                differ((before, Some(item)), &items, path, into);
            }
            path.pop();
        }
        for (step, _) in old.iter().filter(|(step, _)| !new.iter().any(|(known, _)| known == step)) {
            path.push(step.clone());
            into.removed.insert(path);
            path.pop();
        }
        return;
    }
    let (old, new) = (map(old), map(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let Some(shape) = shape.field(name) else { continue };
        path.push(format!("f:{name}"));
        differ((old.get(name), new.get(name)), &shape, path, into);
        path.pop();
    }
}

/// An object with another's fields on top.
pub(super) fn merge(live: &mut Value, applied: &Value, shape: &Shape) {
    if shape.is_whole(applied) || shape.is_whole(live) {
        *live = applied.clone();
        return;
    }
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) => {
            for (name, value) in applied {
                let shape = shape.field(name).unwrap_or(Shape::Any);
                match live.get_mut(name) {
                    Some(known) => merge(known, value, &shape),
                    None => {
                        live.insert(name.clone(), value.clone());
                    }
                }
            }
        }
        (Value::Array(live), Value::Array(applied)) => {
            let items = shape.items();
            for value in applied {
                let step = shape.item(value);
                match live.iter_mut().find(|known| step.is_some() && shape.item(known) == step) {
                    Some(known) if value.is_object() => merge(known, value, &items),
                    Some(_) => {}
                    None => live.push(value.clone()),
                }
            }
        }
        (live, applied) => *live = applied.clone(),
    }
}

/// Takes the fields of `last` out of an object, except those that `kept` has, or has something below.
pub(super) fn prune(value: &mut Value, shape: &Shape, last: &Paths, kept: Option<&Paths>) {
    match value {
        Value::Object(map) => {
            for (step, gone) in &last.below {
                let Some(name) = step.strip_prefix("f:") else { continue };
                let kept = kept.and_then(|kept| kept.below.get(step));
                let Some(inner) = map.get_mut(name) else { continue };
                if kept.is_none_or(Paths::is_empty) && gone.member {
                    map.remove(name);
                    continue;
                }
                let shape = shape.field(name).unwrap_or(Shape::Any);
                let was_empty = is_empty(inner);
                prune(inner, &shape, gone, kept);
                if is_empty(inner) && !was_empty && !kept.is_some_and(|kept| kept.member) {
                    map.remove(name);
                }
            }
        }
        Value::Array(list) => {
            let items = shape.items();
            list.retain_mut(|item| {
                let Some(step) = shape.item(item) else { return true };
                let Some(gone) = last.below.get(&step) else { return true };
                let kept = kept.and_then(|kept| kept.below.get(&step));
                if kept.is_none_or(Paths::is_empty) && gone.member {
                    return false;
                }
                prune(item, &items, gone, kept);
                true
            });
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_some_and(Map::is_empty) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POD: Shape = Shape::Named("core.Pod", Presence::Always);

    #[test]
    fn an_applied_configuration_claims_its_leaves_and_list_items() {
        let pod = json!({ "metadata": { "labels": { "a": "b" } },
            "spec": { "containers": [{ "name": "c", "image": "i", "ports": [{ "containerPort": 80 }], "args": ["x"] }] } });
        assert_eq!(
            claimed(&pod, &POD).written(),
            json!({ "f:metadata": { "f:labels": { "f:a": {} } },
                "f:spec": { "f:containers": { "k:{\"name\":\"c\"}": { ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:ports": { "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {} } } } } } })
        );
    }

    #[test]
    fn a_comparison_names_what_was_written_and_what_is_gone() {
        let old = json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
        let new = json!({ "metadata": { "labels": { "a": "1", "c": "3" } }, "spec": { "containers": [{ "name": "c", "image": "j" }] } });
        let found = compare(Some(&old), Some(&new), &POD);
        assert_eq!(found.written.shown(), [".metadata.labels.c", ".spec.containers[name=\"c\"].image"]);
        assert_eq!(found.removed.shown(), [".metadata.labels.b"]);
        let created = compare(None, Some(&new), &POD).written.written();
        assert_eq!(created["f:metadata"], json!({ "f:labels": { ".": {}, "f:a": {}, "f:c": {} } }));
    }

    #[test]
    fn merging_keeps_what_others_have_and_pruning_takes_what_nobody_wants_any_more() {
        let mut live = json!({ "metadata": { "labels": { "mine": "1", "yours": "2" } },
            "spec": { "containers": [{ "name": "a", "image": "1", "imagePullPolicy": "Always" }, { "name": "b", "image": "1" }] } });
        let applied =
            json!({ "metadata": { "labels": {} }, "spec": { "containers": [{ "name": "a", "image": "2" }] } });
        merge(&mut live, &applied, &POD);
        assert_eq!(live["spec"]["containers"][0], json!({ "name": "a", "image": "2", "imagePullPolicy": "Always" }));
        let last = claimed(
            &json!({ "metadata": { "labels": { "mine": "1" } },
                "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }] } }),
            &POD,
        );
        prune(&mut live, &POD, &last, Some(&claimed(&applied, &POD)));
        assert_eq!(live["metadata"]["labels"], json!({ "yours": "2" }));
        assert_eq!(live["spec"]["containers"].as_array().map(Vec::len), Some(1));
    }
}
