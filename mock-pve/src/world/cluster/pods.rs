//! What is true of pods whoever looks: which node, how ready, how they go, and what their templates make of them.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{Entry, objects};

/// Letters that generated names have (apimachinery, util/rand: no vowels, nothing that looks alike).
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A suffix of so many letters that follows from a text.
pub fn suffix(of: &str, letters: usize) -> String {
    let digest = Sha256::digest(of);
    digest.iter().cycle().take(letters).map(|byte| char::from(SAFE[usize::from(*byte) % SAFE.len()])).collect()
}

/// The node that a pod is bound to; empty: none yet.
pub fn node_of(pod: &Value) -> &str {
    pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default()
}

/// A text of an object, or nothing.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A count of an object, or 0.
pub fn count(object: &Value, pointer: &str) -> u64 {
    object.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// It is on its way out.
pub fn is_going(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// It ended by itself.
pub fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// It runs or will.
pub fn is_active(pod: &Value) -> bool {
    !is_going(pod) && !is_over(pod)
}

/// Whether a pod mirrors a static one.
pub fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some()
}

/// Whether labels are what a selector wants. A selector without anything wants all.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    let by_labels = selector["matchLabels"].as_object().into_iter().flatten();
    let by_terms = selector["matchExpressions"].as_array().into_iter().flatten();
    by_labels.into_iter().all(|(key, value)| labels.get(key) == Some(value))
        && by_terms.into_iter().all(|term| fits(term, labels))
}

/// Whether labels fit one expression of a selector.
pub fn fits(term: &Value, labels: &Value) -> bool {
    let found = labels.get(term["key"].as_str().unwrap_or_default());
    let listed = || term["values"].as_array().is_some_and(|values| found.is_some_and(|found| values.contains(found)));
    let number = |value: Option<&Value>| value.and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok());
    let than = || Some((number(found)?, number(term["values"].get(0))?));
    match term["operator"].as_str().unwrap_or_default() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => than().is_some_and(|(found, limit)| found > limit),
        "Lt" => than().is_some_and(|(found, limit)| found < limit),
        _ => false,
    }
}

/// The UID of the controller that owns an object.
pub fn owner(object: &Value) -> Option<&Value> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Whether an object is controlled by another.
pub fn is_owned_by(object: &Value, other: &Value) -> bool {
    owner(object).is_some_and(|owner| owner["uid"].is_string() && owner["uid"] == other["metadata"]["uid"])
}

/// A reference to a controller.
pub fn reference(owner: &Value) -> Value {
    json!({ "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true })
}

/// What becomes of a pod when it is deleted: what is to be written, or `None` when it goes at once
/// (Kubernetes, pkg/registry/core/pod/strategy.go, `CheckGracefulDelete`).
pub fn terminated(pod: &Value, grace: Option<u64>) -> Option<Value> {
    let usual = pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    let bound = !node_of(pod).is_empty();
    let grace = if bound && !is_over(pod) && !is_mirror(pod) { grace.unwrap_or(usual) } else { 0 };
    if is_going(pod) {
        let known = count(pod, "/metadata/deletionGracePeriodSeconds");
        if grace >= known && grace > 0 {
            return Some(pod.clone());
        }
    }
    if grace == 0 {
        return None;
    }
    let mut pod = pod.clone();
    let until = jiff::Timestamp::now().as_second().saturating_add_unsigned(grace);
    let until = jiff::Timestamp::from_second(until).unwrap_or_else(|_| jiff::Timestamp::now());
    pod["metadata"]["deletionTimestamp"] = json!(until.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    Some(pod)
}

/// A new pod out of a template, as its controller makes it.
pub fn from_template(owner: &Value, template: &Value, name: &str, uid: &str) -> Value {
    let mut metadata = Map::new();
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("namespace".to_owned(), owner["metadata"]["namespace"].clone());
    metadata.insert("uid".to_owned(), json!(uid));
    metadata.insert("creationTimestamp".to_owned(), json!(objects::now()));
    metadata.insert("ownerReferences".to_owned(), json!([reference(owner)]));
    let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] });
    super::defaults::complete(&mut pod);
    admitted(&mut pod);
    pod
}

/// What admission adds to every pod: its account, its priority, and how long it stays on a node that fails
/// (`DefaultTolerationSeconds`).
pub fn admitted(pod: &mut Value) {
    let mirror = is_mirror(pod);
    let Some(spec) = pod.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec.get("serviceAccountName").is_none() {
        spec["serviceAccountName"] = json!("default");
        spec["serviceAccount"] = json!("default");
    }
    if spec.get("enableServiceLinks").is_none() {
        spec["enableServiceLinks"] = json!(true);
    }
    let priority = match spec["priorityClassName"].as_str() {
        Some("system-node-critical") => 2_000_001_000,
        Some("system-cluster-critical") => 2_000_000_000,
        _ => 0,
    };
    if spec.get("priority").is_none() {
        spec["priority"] = json!(priority);
        spec["preemptionPolicy"] = json!("PreemptLowerPriority");
    }
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let taint = json!({ "key": key, "effect": "NoExecute" });
        if !tolerations.iter().any(|one| tolerates(one, &taint)) {
            tolerations
                .push(json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 }));
        }
    }
    spec["tolerations"] = Value::Array(tolerations);
    if spec["automountServiceAccountToken"] != false && !mirror {
        mount_token(pod);
    }
    if pod.get("status").is_none() {
        pod["status"] = json!({ "phase": "Pending", "qosClass": quality(&pod["spec"]) });
    }
}

/// Where containers find their account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Every container finds its account's token, unless it has something else there (`ServiceAccount` admission).
fn mount_token(pod: &mut Value) {
    let volume = format!("kube-api-access-{}", suffix(&format!("token {}", text(pod, "/metadata/uid")), 5));
    let mut mounts = false;
    for list in ["initContainers", "containers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            let mut all = container["volumeMounts"].as_array().cloned().unwrap_or_default();
            if container.is_object() && !all.iter().any(|one| one["mountPath"] == TOKEN) {
                all.push(json!({ "name": volume, "mountPath": TOKEN, "readOnly": true }));
                container["volumeMounts"] = Value::Array(all);
                mounts = true;
            }
        }
    }
    if mounts {
        let mut all = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
        all.push(json!({ "name": volume, "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "expirationSeconds": 3607, "path": "token" } },
            { "configMap": { "name": "kube-root-ca.crt", "items": [{ "key": "ca.crt", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "namespace",
                "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.namespace" } }] } }] } }));
        pod["spec"]["volumes"] = Value::Array(all);
    }
}

/// How a pod is treated when its node runs short (Kubernetes, pkg/apis/core/helper/qos).
fn quality(spec: &Value) -> &'static str {
    let containers =
        ["initContainers", "containers"].iter().flat_map(|list| spec[*list].as_array().into_iter().flatten());
    let (mut any, mut all) = (false, true);
    for container in containers {
        let (limits, requests) = (&container["resources"]["limits"], &container["resources"]["requests"]);
        for name in ["cpu", "memory"] {
            any |= limits.get(name).is_some() || requests.get(name).is_some();
            all &= limits.get(name).is_some() && requests.get(name) == limits.get(name);
        }
    }
    match (any, all) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// Whether a toleration is for a taint.
pub fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let same = |field: &str| {
        let wanted = toleration[field].as_str().unwrap_or_default();
        wanted.is_empty() || wanted == taint[field].as_str().unwrap_or_default()
    };
    let value = || toleration["value"].as_str().unwrap_or_default() == taint["value"].as_str().unwrap_or_default();
    same("effect") && same("key") && (toleration["operator"] == "Exists" || value())
}

/// Sets one condition of an object's status, and when it last changed; whether anything is different.
pub fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) -> bool {
    let mut all = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let old = all.iter().position(|one| one["type"] == kind);
    let known = old.map(|at| all[at].clone()).unwrap_or_default();
    if known["status"] == status
        && known["reason"].as_str().unwrap_or_default() == reason
        && known["message"].as_str().unwrap_or_default() == message
    {
        return false;
    }
    let since = if known["status"] == status { known["lastTransitionTime"].clone() } else { json!(objects::now()) };
    let mut new = json!({ "type": kind, "status": status, "lastTransitionTime": since });
    for (name, value) in [("reason", reason), ("message", message)] {
        if !value.is_empty() {
            new[name] = json!(value);
        }
    }
    match old {
        Some(at) => all[at] = new,
        None => all.push(new),
    }
    if !object["status"].is_object() {
        object["status"] = json!({});
    }
    object["status"]["conditions"] = Value::Array(all);
    true
}

/// Sets all conditions that say whether a pod is ready.
pub fn set_ready(pod: &mut Value, ready: bool) {
    let word = if ready { "True" } else { "False" };
    set_condition(pod, "PodReadyToStartContainers", "True", "", "");
    set_condition(pod, "Initialized", "True", "", "");
    set_condition(pod, "Ready", word, "", "");
    set_condition(pod, "ContainersReady", word, "", "");
    set_condition(pod, "PodScheduled", "True", "", "");
}

/// Whether a pod says Ready.
pub fn is_ready(pod: &Value) -> bool {
    objects::is_ready(pod)
}

/// Pods whom a node's taints drive out, and after how many seconds: `None` never.
pub fn driven_out(pod: &Value, node: &Value) -> Option<f64> {
    let taints = node["spec"]["taints"].as_array().into_iter().flatten().filter(|taint| taint["effect"] == "NoExecute");
    let tolerations = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    let mut least: Option<f64> = None;
    for taint in taints {
        let mine: Vec<&Value> = tolerations.iter().filter(|one| tolerates(one, taint)).collect();
        let seconds = if mine.is_empty() {
            Some(0.0)
        } else {
            // The shortest of those that have an end.
            mine.iter().filter_map(|one| one["tolerationSeconds"].as_f64()).reduce(f64::min)
        };
        least = match (least, seconds) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    least
}

/// How many of `all` a number or percentage is.
pub fn share(value: &Value, all: u64, round_up: Rounding) -> u64 {
    match value {
        Value::Number(number) => number.as_u64().unwrap_or(0),
        Value::String(text) => {
            let percent = text.trim_end_matches('%').parse::<u64>().unwrap_or(0).min(100_000);
            match round_up {
                Rounding::Up => (all * percent).div_ceil(100),
                Rounding::Down => all * percent / 100,
            }
        }
        _ => 0,
    }
}

/// Which way a share is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the next whole number.
    Up,
    /// To the one before.
    Down,
}

/// An object's namespace.
pub fn namespace(object: &Entry) -> &str {
    object.value.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_tolerations_and_shares_mean_what_kubernetes_means() {
        let labels = json!({ "app": "a", "tier": "x" });
        let selector = json!({ "matchLabels": { "app": "a" }, "matchExpressions": [
            { "key": "tier", "operator": "In", "values": ["x", "y"] }, { "key": "gone", "operator": "DoesNotExist" }] });
        assert!(matches(&selector, &labels));
        assert!(!matches(&selector, &json!({ "app": "a" })));
        let taint = json!({ "key": "k", "value": "v", "effect": "NoSchedule" });
        assert!(tolerates(&json!({ "operator": "Exists" }), &taint));
        assert!(tolerates(&json!({ "key": "k", "value": "v" }), &taint));
        assert!(!tolerates(&json!({ "key": "k", "operator": "Exists", "effect": "NoExecute" }), &taint));
        assert_eq!((share(&json!("25%"), 2, Rounding::Up), share(&json!("25%"), 2, Rounding::Down)), (1, 0));
        assert_eq!(share(&json!(3), 2, Rounding::Up), 3);
    }

    #[test]
    fn a_bound_pod_goes_gracefully_and_others_at_once() {
        let pod =
            json!({ "metadata": { "name": "a" }, "spec": { "nodeName": "n", "terminationGracePeriodSeconds": 5 } });
        let going = terminated(&pod, None).unwrap();
        assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 5);
        assert!(is_going(&going));
        assert_eq!(terminated(&pod, Some(0)), None);
        assert_eq!(terminated(&json!({ "metadata": {}, "spec": {} }), None), None);
        // A second wish shortens the wait and never makes it longer.
        assert_eq!(terminated(&going, Some(60)), Some(going.clone()));
        assert_eq!(terminated(&going, Some(1)).unwrap()["metadata"]["deletionGracePeriodSeconds"], 1);
    }
}
