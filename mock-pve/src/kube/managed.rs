//! Who set which field: `metadata.managedFields`, kept on every write, and server-side apply over it
//! (structured-merge-diff, merge/update.go; apimachinery, util/managedfields).

use serde_json::{Value, json};

use super::answer::Refusal;
use super::merge;
use super::paths::Paths;
use super::schema::Shape;
use http::StatusCode;

/// How somebody came to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// Who writes, and how.
#[derive(Clone, Debug)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) operation: Operation,
    /// The API version that the objects are written in.
    pub(super) version: String,
    pub(super) subresource: String,
}

#[derive(Clone, Debug)]
struct Record {
    by: Manager,
    time: String,
    paths: Paths,
}

/// All records of an object.
#[derive(Clone, Debug, Default)]
struct Records(Vec<Record>);

/// Fields that belong to nobody.
fn stripped(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(map) = value.as_object_mut() {
        map.remove("apiVersion");
        map.remove("kind");
        if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in [
                "name",
                "namespace",
                "uid",
                "creationTimestamp",
                "resourceVersion",
                "generation",
                "managedFields",
                "selfLink",
                "deletionTimestamp",
                "deletionGracePeriodSeconds",
                "clusterName",
            ] {
                metadata.remove(name);
            }
            if metadata.is_empty() {
                map.remove("metadata");
            }
        }
    }
    value
}

impl Records {
    fn of(object: &Value) -> Self {
        let list = object.pointer("/metadata/managedFields").and_then(Value::as_array).cloned().unwrap_or_default();
        let records = list.iter().filter_map(|entry| {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let operation = match entry["operation"].as_str()? {
                "Apply" => Operation::Apply,
                _ => Operation::Update,
            };
            let by = Manager {
                name: text("manager"),
                operation,
                version: text("apiVersion"),
                subresource: text("subresource"),
            };
            Some(Record { by, time: text("time"), paths: Paths::read(&entry["fieldsV1"]) })
        });
        Self(records.collect())
    }

    fn put(mut self, object: &mut Value) {
        self.0.retain(|record| !record.paths.is_empty());
        self.0.sort_by(|a, b| (a.by.operation, &a.time, &a.by.name).cmp(&(b.by.operation, &b.time, &b.by.name)));
        let list: Vec<Value> = self
            .0
            .iter()
            .map(|Record { by, time, paths }| {
                let mut entry = json!({ "manager": by.name, "operation": if by.operation == Operation::Apply { "Apply" }
                    else { "Update" }, "apiVersion": by.version, "time": time, "fieldsType": "FieldsV1",
                    "fieldsV1": paths.written() });
                if !by.subresource.is_empty() {
                    entry["subresource"] = json!(by.subresource);
                }
                entry
            })
            .collect();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            if list.is_empty() {
                metadata.remove("managedFields");
            } else {
                metadata.insert("managedFields".to_owned(), Value::Array(list));
            }
        }
    }
}

impl Manager {
    /// Whether two records are the same manager's: those who apply are known by their name alone.
    fn is(&self, other: &Self) -> bool {
        self.operation == other.operation
            && self.name == other.name
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.version == other.version)
    }

    /// As messages name it.
    fn shown(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if self.operation == Operation::Update {
            text = format!("{text} using {}", self.version);
        }
        text
    }
}

/// Notes in `new` who wrote what of it. A list that the writer emptied on purpose (`managedFields: [{}]`) is begun anew;
/// another one that he wrote counts, but for subresources.
pub(super) fn updated(old: Option<&Value>, new: &mut Value, by: &Manager, shape: &Shape, now: &str) {
    let reset = new.pointer("/metadata/managedFields").and_then(Value::as_array).is_some_and(|list| {
        list.is_empty() || matches!(list.as_slice(), [one] if one.as_object().is_some_and(serde_json::Map::is_empty))
    });
    let given = Records::of(new);
    let mut records = match old {
        Some(_) if !reset && by.subresource.is_empty() && !given.0.is_empty() => given,
        Some(old) if !reset => Records::of(old),
        _ => Records::default(),
    };
    if reset && old.is_some() {
        return Records::default().put(new);
    }
    let (before, after) = (old.map(stripped), stripped(new));
    let difference = merge::compare(before.as_ref(), Some(&after), shape);
    if difference.written.is_empty() && difference.removed.is_empty() {
        return records.put(new);
    }
    for record in &mut records.0 {
        record.paths.subtract(&difference.removed);
        if !record.by.is(by) {
            record.paths.subtract(&difference.written);
        }
    }
    match records.0.iter_mut().find(|record| record.by.is(by)) {
        Some(record) => {
            record.paths.union(&difference.written);
            record.paths.member = false;
            now.clone_into(&mut record.time);
        }
        None => records.0.push(Record { by: by.clone(), time: now.to_owned(), paths: difference.written }),
    }
    records.put(new);
}

/// Whether somebody else's fields may be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Yes,
    No,
}

/// What an object becomes when somebody applies a configuration. `live` is an object without fields when there is none.
pub(super) fn applied(
    live: &Value,
    config: &Value,
    by: &Manager,
    shape: &Shape,
    force: Force,
    now: &str,
) -> Result<Value, Refusal> {
    let mut records = Records::of(live);
    // Objects from before anybody kept records.
    if records.0.is_empty() && live.pointer("/metadata/uid").is_some() {
        let paths = merge::claimed(&stripped(live), shape);
        let name = "before-first-apply".to_owned();
        let by =
            Manager { name, operation: Operation::Update, version: by.version.clone(), subresource: String::new() };
        records.0.push(Record { by, time: now.to_owned(), paths });
    }
    let before = stripped(live);
    let config = stripped(config);
    let claims = merge::claimed(&config, shape);
    let mut after = before.clone();
    merge::merge(&mut after, &config, shape);
    let last = records.0.iter().find(|record| record.by.is(by)).map(|record| record.paths.clone());
    if let Some(last) = &last {
        let mut kept = claims.clone();
        for record in records.0.iter().filter(|record| !record.by.is(by)) {
            kept.union(&record.paths);
        }
        merge::prune(&mut after, shape, last, Some(&kept));
    }
    let difference = merge::compare(Some(&before), Some(&after), shape);
    let conflicts: Vec<(Manager, Paths)> = records
        .0
        .iter()
        .filter(|record| !record.by.is(by))
        .map(|record| (record.by.clone(), record.paths.intersection(&difference.written)))
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    if force == Force::No && !conflicts.is_empty() {
        return Err(refused(&conflicts));
    }
    for record in &mut records.0 {
        if !record.by.is(by) {
            record.paths.subtract(&difference.written);
            record.paths.subtract(&difference.removed);
        }
    }
    match records.0.iter_mut().find(|record| record.by.is(by)) {
        Some(record) => {
            if record.paths != claims || record.by.version != by.version || !difference.written.is_empty() {
                now.clone_into(&mut record.time);
            }
            (record.paths, record.by) = (claims, by.clone());
        }
        None => records.0.push(Record { by: by.clone(), time: now.to_owned(), paths: claims }),
    }
    // What belongs to nobody comes back.
    let mut object = live.clone();
    if let (Some(object), Some(after)) = (object.as_object_mut(), after.as_object()) {
        object.retain(|name, _| ["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        for (name, value) in after.iter().filter(|(name, _)| *name != "metadata") {
            object.insert(name.clone(), value.clone());
        }
        let kept = stripped(live);
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in kept["metadata"].as_object().into_iter().flatten().map(|(name, _)| name) {
                metadata.remove(name);
            }
            for (name, value) in after.get("metadata").and_then(Value::as_object).into_iter().flatten() {
                metadata.insert(name.clone(), value.clone());
            }
        }
    }
    records.put(&mut object);
    Ok(object)
}

fn refused(conflicts: &[(Manager, Paths)]) -> Refusal {
    let mut each: Vec<(String, String)> = Vec::new();
    for (manager, paths) in conflicts {
        each.extend(paths.shown().into_iter().map(|path| (manager.shown(), path)));
    }
    let causes: Vec<Value> = each
        .iter()
        .map(|(manager, path)| {
            json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": path })
        })
        .collect();
    let message = if let [(manager, path)] = each.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {manager}: {path}")
    } else {
        let mut managers: Vec<&String> = each.iter().map(|(manager, _)| manager).collect();
        managers.sort();
        managers.dedup();
        let mut lines = Vec::new();
        for manager in managers {
            lines.push(format!("conflicts with {manager}:"));
            lines.extend(each.iter().filter(|(by, _)| by == manager).map(|(_, path)| format!("- {path}")));
        }
        format!("Apply failed with {} conflicts: {}", each.len(), lines.join("\n"))
    };
    Refusal::new(StatusCode::CONFLICT, "Conflict", message).with(json!({ "causes": causes }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::schema::Presence;

    const MAP: Shape = Shape::Named("core.ConfigMap", Presence::Always);

    fn by(name: &str, operation: Operation) -> Manager {
        Manager { name: name.to_owned(), operation, version: "v1".to_owned(), subresource: String::new() }
    }

    #[test]
    fn records_that_somebody_wrote_count() {
        let bare = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
        let config = json!({ "metadata": { "name": "a" }, "data": { "a": "1" } });
        let old = applied(&bare, &config, &by("kubectl", Operation::Apply), &MAP, Force::No, "T1").unwrap();
        // What kubectl does to objects that were applied by the client before they are by the server.
        let mut new = old.clone();
        new["metadata"]["managedFields"][0]["manager"] = json!("flux");
        updated(Some(&old), &mut new, &by("kubectl", Operation::Update), &MAP, "T2");
        assert_eq!(new["metadata"]["managedFields"][0]["manager"], "flux");
        assert_eq!(new["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
        // A status is no place for it.
        let mut status = by("kubelet", Operation::Update);
        "status".clone_into(&mut status.subresource);
        updated(Some(&old), &mut new, &status, &MAP, "T3");
        assert_eq!(new["metadata"]["managedFields"][0]["manager"], "kubectl");
    }

    #[test]
    fn fields_have_owners_and_conflicts_name_them() {
        let bare = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
        let talos = by("talos", Operation::Apply);
        let config = |data: Value| json!({ "metadata": { "name": "a" }, "data": data });
        let first = applied(&bare, &config(json!({ "a": "1", "b": "1" })), &talos, &MAP, Force::No, "T1").unwrap();
        assert_eq!(first["metadata"]["managedFields"][0]["fieldsV1"], json!({ "f:data": { "f:a": {}, "f:b": {} } }));
        // Somebody edits one of them, and is its owner then.
        let mut edited = first.clone();
        edited["metadata"]["uid"] = json!("x");
        edited["data"]["a"] = json!("2");
        updated(Some(&first), &mut edited, &by("kubectl-edit", Operation::Update), &MAP, "T2");
        let error = applied(&edited, &config(json!({ "a": "1" })), &talos, &MAP, Force::No, "T3").unwrap_err();
        assert_eq!(error.message, "Apply failed with 1 conflict: conflict with \"kubectl-edit\" using v1: .data.a");
        assert_eq!(error.details.unwrap()["causes"][0]["reason"], "FieldManagerConflict");
        // With force it is taken over; what isn't applied any more goes.
        let forced = applied(&edited, &config(json!({ "a": "1" })), &talos, &MAP, Force::Yes, "T3").unwrap();
        assert_eq!(forced["data"], json!({ "a": "1" }));
        assert_eq!(forced["metadata"]["managedFields"].as_array().map(Vec::len), Some(1));
        // The same value is no conflict: both own it.
        let both = applied(&forced, &config(json!({ "a": "1" })), &by("flux", Operation::Apply), &MAP, Force::No, "T4")
            .unwrap();
        assert_eq!(both["metadata"]["managedFields"].as_array().map(Vec::len), Some(2));
        let left = applied(&both, &config(json!({})), &talos, &MAP, Force::No, "T5").unwrap();
        assert_eq!(left["data"], json!({ "a": "1" }));
        // Nothing changed: not even the time.
        let again =
            applied(&left, &config(json!({ "a": "1" })), &by("flux", Operation::Apply), &MAP, Force::No, "T6").unwrap();
        assert_eq!(again, left);
    }
}
