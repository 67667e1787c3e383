//! Patches: merge (RFC 7386), strategic merge, JSON patch (RFC 6902), and apply.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;

/// How a patch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Merge,
    Strategic,
    Json,
    /// Server-side apply: what is given is merged, with force; who owns which field isn't kept.
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
        let text = std::str::from_utf8(body).map_err(|error| broken(error.to_string()))?;
        serde_saphyr::from_str(text).map_err(|error| broken(error.to_string()))?
    } else {
        serde_json::from_slice(body).map_err(|error| broken(error.to_string()))?
    };
    let fits = if format == Format::Json { value.is_array() } else { value.is_object() };
    if fits { Ok(value) } else { Err(broken("the patch has the wrong shape".to_owned())) }
}

pub(super) fn apply(format: Format, into: &mut Value, patch: &Value) -> Result<(), Refusal> {
    match format {
        Format::Merge => merge(into, patch),
        Format::Strategic | Format::Apply => strategic(into, patch, ""),
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

/// By what the items of a list are told apart (`patchMergeKey` of the API's types); `None`: the list is one value.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" | "secrets" => "name",
        "conditions" | "addresses" => "type",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "ownerReferences" => "uid",
        "hostAliases" => "ip",
        _ => return None,
    })
}

fn strategic(into: &mut Value, patch: &Value, list: &str) {
    match patch {
        Value::Object(map) if map.get("$patch") == Some(&json!("replace")) => {
            let mut new = patch.clone();
            remove(&mut new, "$patch");
            *into = new;
        }
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
                } else if !key.starts_with('$') {
                    strategic(&mut into[key.as_str()], value, key);
                }
            }
        }
        Value::Array(items) => match merge_key(list) {
            Some(by) => merge_items(into, items, by),
            // Of the plain lists only this one is merged.
            None if list == "finalizers" => {
                let mut all = into.as_array().cloned().unwrap_or_default();
                all.extend(items.iter().filter(|item| !all.contains(item)).cloned().collect::<Vec<_>>());
                *into = Value::Array(all);
            }
            None => *into = patch.clone(),
        },
        other => *into = other.clone(),
    }
}

fn merge_items(into: &mut Value, items: &[Value], by: &str) {
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
            strategic(known, item, "");
        } else {
            all.push(item.clone());
        }
    }
    *into = Value::Array(all);
}

fn step_by(into: &mut Value, step: &Value) -> Result<(), Refusal> {
    let invalid = |why: &str| {
        let why = format!("the server rejected our request due to an error in our request: {why}");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why)
    };
    let text = |name: &str| step.get(name).and_then(Value::as_str).unwrap_or_default();
    let (path, from) = (text("path"), text("from"));
    let value = step.get("value").cloned().unwrap_or_default();
    match text("op") {
        "test" if into.pointer(path) == Some(&value) => Ok(()),
        "test" => Err(invalid(&format!("testing path {path} failed"))),
        "add" => add(into, path, value).ok_or_else(|| invalid(&format!("add operation does not apply: {path}"))),
        "replace" => match into.pointer_mut(path) {
            Some(found) => {
                *found = value;
                Ok(())
            }
            None => Err(invalid(&format!("replace operation does not apply: {path} is missing"))),
        },
        "remove" => {
            take(into, path).map(|_| ()).ok_or_else(|| invalid(&format!("remove operation does not apply: {path}")))
        }
        "move" => {
            let moved = take(into, from).ok_or_else(|| invalid(&format!("move operation does not apply: {from}")))?;
            add(into, path, moved).ok_or_else(|| invalid(&format!("move operation does not apply: {path}")))
        }
        "copy" => {
            let copied = into.pointer(from).cloned();
            let copied = copied.ok_or_else(|| invalid(&format!("copy operation does not apply: {from}")))?;
            add(into, path, copied).ok_or_else(|| invalid(&format!("copy operation does not apply: {path}")))
        }
        other => Err(invalid(&format!("unexpected kind: {other}"))),
    }
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
            apply(format, &mut found, &parse(format, patch.to_string().as_bytes()).ok().unwrap()).ok().unwrap();
            let parts = ["/metadata/finalizers", "/metadata/labels", "/spec/containers", "/spec/taints"];
            let found: Vec<Value> = parts.iter().map(|part| found.pointer(part).unwrap().clone()).collect();
            assert_eq!(json!(found), wanted, "{kind}");
        }
        assert!(step_by(&mut json!({}), &json!({ "op": "test", "path": "/a", "value": 1 })).is_err());
    }
}
