//! What differs between an object and what a dry run would make of it.

use serde_json::{Map, Value};

/// What the server writes itself.
const SERVERS: [&str; 10] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "finalizers",
    "selfLink",
    "ownerReferences",
];

/// A line for each value that differs; of Secrets only where.
pub(super) fn differences(live: &Value, tried: &Value) -> Vec<String> {
    let (live, tried) = (normal(live), normal(tried));
    let mut lines = Vec::new();
    let shown = if tried["kind"] == "Secret" { Shown::Places } else { Shown::Values };
    compare("", Some(&live), Some(&tried), shown, &mut lines);
    lines
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Values,
    Places,
}

fn normal(object: &Value) -> Value {
    let mut object = object.clone();
    let Some(map) = object.as_object_mut() else { return object };
    map.remove("status");
    if map.get("kind").and_then(Value::as_str) == Some("ServiceAccount") {
        // The token controller of old versions adds them.
        map.remove("secrets");
    }
    if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
        for key in SERVERS {
            metadata.remove(key);
        }
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| !key.contains("kubernetes.io/"));
        }
        for key in ["annotations", "labels"] {
            if metadata.get(key).and_then(Value::as_object).is_some_and(Map::is_empty) {
                metadata.remove(key);
            }
        }
    }
    object
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, shown: Shown, lines: &mut Vec<String>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&inner, old.get(key), new.get(key), shown, lines);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => {
            for at in 0..old.len().max(new.len()) {
                compare(&format!("{path}[{at}]"), old.get(at), new.get(at), shown, lines);
            }
        }
        (old, new) if old.unwrap_or(&Value::Null) == new.unwrap_or(&Value::Null) => {}
        (old, new) if shown == Shown::Values => {
            let text = |value: Option<&Value>| match value {
                None | Some(Value::Null) => "nothing".to_owned(),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            lines.push(format!("{path}: {} → {}", text(old), text(new)));
        }
        _ => lines.push(format!("{path} differs")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_somebody_wrote_counts() {
        let live = json!({
            "kind": "DaemonSet",
            "metadata": {"name": "a", "uid": "1", "resourceVersion": "7", "generation": 2, "managedFields": [1],
                         "annotations": {"deprecated.daemonset.template.generation": "1", "deployment.kubernetes.io/revision": "3"}},
            "spec": {"image": "a:v1", "list": [1, 2]},
            "status": {"x": 1},
        });
        let mut tried = live.clone();
        tried["metadata"]["resourceVersion"] = json!("8");
        tried["metadata"]["annotations"].as_object_mut().unwrap().remove("deployment.kubernetes.io/revision");
        tried["status"] = json!(null);
        assert_eq!(differences(&live, &tried), Vec::<String>::new());
        tried["spec"]["image"] = json!("a:v2");
        tried["spec"]["list"] = json!([1]);
        tried["metadata"]["labels"] = json!({"k": "v"});
        assert_eq!(
            differences(&live, &tried),
            ["metadata.labels: nothing → {\"k\":\"v\"}", "spec.image: a:v1 → a:v2", "spec.list[1]: 2 → nothing"]
        );
    }

    #[test]
    fn values_of_secrets_are_not_shown() {
        let secret = |value: &str| json!({"kind": "Secret", "metadata": {"name": "a"}, "data": {"token": value}});
        assert_eq!(differences(&secret("b2xk"), &secret("bmV3")), ["data.token differs"]);
    }
}
