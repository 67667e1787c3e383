//! Patches: merge (RFC 7386), strategic merge, JSON patch (RFC 6902), and apply.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::decode;
use super::schema::Shape;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Merge,
    Strategic,
    Json,
    /// Server-side apply, which `managed.rs` does.
    Apply,
}

impl Format {
    pub(super) fn of(content_type: &str) -> Option<Self> {
        Some(match content_type.split(';').next().unwrap_or_default().trim() {
            "application/merge-patch+json" => Self::Merge,
            "application/strategic-merge-patch+json" => Self::Strategic,
            "application/json-patch+json" => Self::Json,
            "application/apply-patch+yaml" | "application/apply-patch+json" => Self::Apply,
            _ => return None,
        })
    }
}

fn broken(why: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", why)
}

pub(super) fn parse(format: Format, body: &[u8]) -> Result<Value, Refusal> {
    let value: Value = if format == Format::Apply {
        decode::yaml(body)?
    } else {
        serde_json::from_slice(body).map_err(|error| broken(format!("error decoding patch: {error}")))?
    };
    let fits = if format == Format::Json { value.is_array() } else { value.is_object() };
    if fits { Ok(value) } else { Err(broken("error decoding patch: it has the wrong shape".to_owned())) }
}

/// Changes an object of that shape; server-side apply isn't a patch in this sense.
pub(super) fn apply(format: Format, into: &mut Value, patch: &Value, shape: &Shape) -> Result<(), Refusal> {
    match format {
        Format::Merge => merge(into, patch),
        Format::Strategic | Format::Apply => strategic(into, patch, shape),
        Format::Json => {
            for step in patch.as_array().into_iter().flatten() {
                step_by(into, step)?;
            }
        }
    }
    Ok(())
}

fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            remove(into, key);
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn remove(from: &mut Value, key: &str) {
    if let Some(object) = from.as_object_mut() {
        object.remove(key);
    }
}

/// Merges as the shape of the kind says: lists by the first of their keys (`patchMergeKey`), sets as sets.
fn strategic(into: &mut Value, patch: &Value, shape: &Shape) {
    match patch {
        Value::Object(map) if map.get("$patch") == Some(&json!("replace")) => {
            let mut new = patch.clone();
            remove(&mut new, "$patch");
            *into = new;
        }
        Value::Object(map) if map.get("$patch") == Some(&json!("delete")) => *into = json!({}),
        Value::Object(map) => {
            if !into.is_object() {
                *into = json!({});
            }
            for (key, value) in map {
                if value.is_null() {
                    remove(into, key);
                } else if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
                    if let Some(items) = into.get_mut(field).and_then(Value::as_array_mut) {
                        items.retain(|item| !value.as_array().is_some_and(|gone| gone.contains(item)));
                    }
                } else if key == "$retainKeys" {
                    let kept = value.as_array().cloned().unwrap_or_default();
                    if let Some(map) = into.as_object_mut() {
                        map.retain(|name, _| kept.iter().any(|one| one == name));
                    }
                } else if !key.starts_with('$') {
                    strategic(&mut into[key.as_str()], value, &shape.field(key).unwrap_or(Shape::Any));
                }
            }
            for (key, order) in
                map.iter().filter_map(|(key, value)| Some((key.strip_prefix("$setElementOrder/")?, value)))
            {
                set_order(&mut into[key], order, &shape.field(key).unwrap_or(Shape::Any));
            }
        }
        Value::Array(items) => match shape {
            Shape::Keyed(keys, item) => merge_items(into, items, keys.first().copied().unwrap_or_default(), item),
            Shape::Set(_) => {
                let mut all = into.as_array().cloned().unwrap_or_default();
                all.extend(items.iter().filter(|item| !all.contains(item)).cloned().collect::<Vec<_>>());
                *into = Value::Array(all);
            }
            _ => *into = patch.clone(),
        },
        other => *into = other.clone(),
    }
}

/// Puts the items that are named in the order in which they are.
fn set_order(list: &mut Value, order: &Value, shape: &Shape) {
    let (Some(items), Some(order)) = (list.as_array_mut(), order.as_array()) else { return };
    let by = match shape {
        Shape::Keyed(keys, _) => keys.first().copied(),
        _ => None,
    };
    let place = |item: &Value| {
        order.iter().position(|one| by.map_or(one == item, |by| one.get(by).is_some() && one.get(by) == item.get(by)))
    };
    items.sort_by_key(|item| place(item).unwrap_or(usize::MAX));
}

fn merge_items(into: &mut Value, items: &[Value], by: &str, shape: &Shape) {
    if items.iter().any(|item| item["$patch"] == "replace") {
        *into = items.iter().filter(|item| item["$patch"] != "replace").cloned().collect();
        return;
    }
    let mut all = into.as_array().cloned().unwrap_or_default();
    for item in items {
        let same = |known: &Value| known.get(by).is_some() && known.get(by) == item.get(by);
        if item["$patch"] == "delete" {
            all.retain(|known| !same(known));
        } else if let Some(known) = all.iter_mut().find(|known| same(known)) {
            strategic(known, item, shape);
        } else {
            let mut new = json!({});
            strategic(&mut new, item, shape);
            all.push(if item.is_object() { new } else { item.clone() });
        }
    }
    *into = Value::Array(all);
}

/// One step of a JSON patch. Kubernetes doesn't say which one didn't fit, nor why.
fn step_by(into: &mut Value, step: &Value) -> Result<(), Refusal> {
    let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
    let (path, from) = (text("path"), text("from"));
    let value = step.get("value").cloned().unwrap_or_default();
    let done = match text("op") {
        "test" => (into.pointer(path) == Some(&value)).then_some(()),
        "add" => add(into, path, value),
        "replace" => into.pointer_mut(path).map(|found| *found = value),
        "remove" => take(into, path).map(|_| ()),
        "move" => take(into, from).and_then(|moved| add(into, path, moved)),
        "copy" => into.pointer(from).cloned().and_then(|copied| add(into, path, copied)),
        _ => None,
    };
    done.ok_or_else(|| {
        let why = "the server rejected our request due to an error in our request";
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why).with(json!({}))
    })
}

fn parent<'a>(of: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((of.pointer_mut(parent)?, last.replace("~1", "/").replace("~0", "~")))
}

fn add(into: &mut Value, path: &str, value: Value) -> Option<()> {
    if path.is_empty() {
        *into = value;
        return Some(());
    }
    match parent(into, path)? {
        (Value::Object(map), key) => {
            map.insert(key, value);
        }
        (Value::Array(list), key) if key == "-" => list.push(value),
        (Value::Array(list), key) => {
            let at = key.parse::<usize>().ok().filter(|at| *at <= list.len())?;
            list.insert(at, value);
        }
        _ => return None,
    }
    Some(())
}

fn take(from: &mut Value, path: &str) -> Option<Value> {
    match parent(from, path)? {
        (Value::Object(map), key) => map.remove(&key),
        (Value::Array(list), key) => {
            let at = key.parse::<usize>().ok().filter(|at| *at < list.len())?;
            Some(list.remove(at))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_do_what_their_formats_say() {
        let pod = json!({ "metadata": { "finalizers": ["a"], "labels": { "x": "1", "y": "2" } },
            "spec": { "containers": [{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }],
                "taints": [{ "key": "k" }] } });
        let cases = [
            (
                "merge-patch+json",
                json!({ "metadata": { "labels": { "x": null } }, "spec": { "containers": [] } }),
                json!([["a"], { "y": "2" }, [], [{ "key": "k" }]]),
            ),
            (
                "strategic-merge-patch+json",
                json!({ "metadata": { "finalizers": ["b"] },
                    "spec": { "containers": [{ "name": "b", "image": "2" }], "taints": [] } }),
                json!([["a", "b"], { "x": "1", "y": "2" },
                    [{ "name": "a", "image": "1" }, { "name": "b", "image": "2" }], []]),
            ),
            (
                "json-patch+json",
                json!([{ "op": "test", "path": "/metadata/labels/x", "value": "1" },
                    { "op": "remove", "path": "/metadata/labels/x" },
                    { "op": "add", "path": "/spec/taints/-", "value": { "key": "l" } },
                    { "op": "remove", "path": "/spec/containers/0" }]),
                json!([["a"], { "y": "2" }, [{ "name": "b", "image": "1" }], [{ "key": "k" }, { "key": "l" }]]),
            ),
        ];
        for (kind, patch, wanted) in cases {
            let format = Format::of(&format!("application/{kind}")).unwrap();
            let mut found = pod.clone();
            let shape = Shape::Named("core.Pod", crate::kube::schema::Presence::Always);
            apply(format, &mut found, &parse(format, patch.to_string().as_bytes()).unwrap(), &shape).unwrap();
            let parts = ["/metadata/finalizers", "/metadata/labels", "/spec/containers", "/spec/taints"];
            let found: Vec<Value> = parts.iter().map(|part| found.pointer(part).unwrap().clone()).collect();
            assert_eq!(json!(found), wanted, "{kind}");
        }
        assert!(step_by(&mut json!({}), &json!({ "op": "test", "path": "/a", "value": 1 })).is_err());
    }
}
