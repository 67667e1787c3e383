//! What namespaces may hold at most: how much an object uses, and whether a quota has room for it (Kubernetes,
//! apiserver's admission plugin resourcequota, `CheckRequest`; pkg/quota/v1/evaluator/core).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::amount::Amount;
use super::pods;

/// How much of what, by the names that quotas use.
pub type Amounts = BTreeMap<String, Amount>;

/// Names that quotas count pods by.
const OF_PODS: [&str; 11] = [
    "count/pods",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Of those, the ones that every container has to say once a quota counts them.
const REQUIRED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];
/// Kinds that are also counted by their name alone.
const PLAIN: [&str; 6] =
    ["configmaps", "persistentvolumeclaims", "replicationcontrollers", "resourcequotas", "secrets", "services"];
const COMPUTED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The quantities of a map.
fn amounts(map: &Value) -> Amounts {
    let map = map.as_object().into_iter().flatten();
    map.filter_map(|(name, value)| Some((name.clone(), Amount::of(value)?))).collect()
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let known = sum.entry(name.clone()).or_default();
        *known = *known + *amount;
    }
}

/// How much an object of `resource` uses; that is `deployments.apps`, `pods`.
pub fn usage(resource: &str, object: &Value) -> Amounts {
    let mut found = Amounts::from([(format!("count/{resource}"), Amount::count(1))]);
    if PLAIN.contains(&resource) {
        found.insert(resource.to_owned(), Amount::count(1));
    }
    let spec = &object["spec"];
    match resource {
        "pods" if !pods::is_over(object) => {
            found.insert("pods".to_owned(), Amount::count(1));
            found.extend(computed(spec, ""));
            found.extend(computed(spec, "requests."));
            found.extend(computed(spec, "limits."));
        }
        "services" => {
            let all = spec["ports"].as_array().map_or(0, Vec::len);
            let (balancers, ports) = match spec["type"].as_str() {
                Some("NodePort") => (0, all),
                Some("LoadBalancer") => (1, all),
                _ => (0, 0),
            };
            found.insert("services.loadbalancers".to_owned(), Amount::count(balancers));
            found.insert("services.nodeports".to_owned(), Amount::count(ports));
        }
        "persistentvolumeclaims" => {
            let storage = Amount::of(&spec["resources"]["requests"]["storage"]);
            let class = spec["storageClassName"].as_str().map(|class| format!("{class}.storageclass.storage.k8s.io/"));
            found.extend(storage.map(|storage| ("requests.storage".to_owned(), storage)));
            if let Some(class) = class {
                found.insert(format!("{class}persistentvolumeclaims"), Amount::count(1));
                found.extend(storage.map(|storage| (format!("{class}requests.storage"), storage)));
            }
        }
        _ => {}
    }
    found
}

/// What a pod's containers ask for together, or one that runs before them alone if that is more.
fn computed(spec: &Value, prefix: &str) -> Amounts {
    let side = if prefix == "limits." { "limits" } else { "requests" };
    let mut found = Amounts::new();
    for name in COMPUTED {
        let of = |list: &str| -> Vec<Amount> {
            let each = spec[list].as_array().into_iter().flatten();
            each.filter_map(|one| Amount::of(&one["resources"][side][name])).collect()
        };
        let (together, before) = (of("containers"), of("initContainers"));
        let all = together.iter().copied().reduce(|sum, one| sum + one);
        if let Some(most) = all.into_iter().chain(before).reduce(|most, one| if one > most { one } else { most }) {
            let over = Amount::of(&spec["overhead"][name]).unwrap_or_default();
            found.insert(format!("{prefix}{name}"), most + over);
        }
    }
    found
}

/// Whether a quota is about an object: its scopes, which only pods have.
fn is_about(quota: &Value, resource: &str, object: &Value) -> bool {
    let spec = &quota["spec"];
    let plain = spec["scopes"].as_array().into_iter().flatten();
    let mut all: Vec<Value> = plain.map(|scope| json!({ "scopeName": scope, "operator": "Exists" })).collect();
    all.extend(spec["scopeSelector"]["matchExpressions"].as_array().into_iter().flatten().cloned());
    all.iter().all(|scope| resource == "pods" && is_in(scope, object))
}

fn is_in(scope: &Value, pod: &Value) -> bool {
    let terminates = pod["spec"]["activeDeadlineSeconds"].as_i64().is_some_and(|seconds| seconds >= 0);
    let best_effort = pods::text(pod, "/status/qosClass") == "BestEffort";
    let class = pods::text(pod, "/spec/priorityClassName");
    let is_listed = || scope["values"].as_array().into_iter().flatten().any(|one| *one == class);
    match (scope["scopeName"].as_str().unwrap_or_default(), scope["operator"].as_str().unwrap_or_default()) {
        ("Terminating", _) => terminates,
        ("NotTerminating", _) => !terminates,
        ("BestEffort", _) => best_effort,
        ("NotBestEffort", _) => !best_effort,
        ("PriorityClass", "Exists") => !class.is_empty(),
        ("PriorityClass", "DoesNotExist") => class.is_empty(),
        ("PriorityClass", "In") => !class.is_empty() && is_listed(),
        ("PriorityClass", "NotIn") => !is_listed(),
        _ => false,
    }
}

/// What containers leave unsaid although a quota counts it, in the original's words.
fn unsaid(names: &BTreeSet<&str>, pod: &Value) -> Option<String> {
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let lists = ["containers", "initContainers"].map(|list| pod["spec"][list].as_array());
    for container in lists.into_iter().flatten().flatten() {
        for name in REQUIRED.into_iter().filter(|name| names.contains(name)) {
            let (side, of) = name.split_once('.').unwrap_or(("requests", name));
            if container["resources"][side].get(of).is_none() {
                missing.entry(name).or_default().insert(container["name"].as_str().unwrap_or_default());
            }
        }
    }
    let joined = |containers: &BTreeSet<&str>| containers.iter().copied().collect::<Vec<_>>().join(",");
    let each: Vec<String> =
        missing.iter().map(|(name, containers)| format!("{name} for: {}", joined(containers))).collect();
    (!each.is_empty()).then(|| format!("must specify {}", each.join("; ")))
}

/// Refuses an object for which a quota has no room; `there` is what the namespace has of its kind.
pub fn check(quota: &Value, resource: &str, new: &Value, old: Option<&Value>, there: &[Value]) -> Result<(), String> {
    let hard = amounts(&quota["spec"]["hard"]);
    let mine = usage(resource, new);
    let counts = |name: &str| if resource == "pods" { OF_PODS.contains(&name) } else { mine.contains_key(name) };
    let names: BTreeSet<&str> = hard.keys().map(String::as_str).filter(|name| counts(name)).collect();
    if names.is_empty() || !is_about(quota, resource, new) {
        return Ok(());
    }
    let name = pods::text(quota, "/metadata/name");
    if resource == "pods"
        && let Some(why) = unsaid(&names, new)
    {
        return Err(format!("failed quota: {name}: {why}"));
    }
    let before = old.filter(|old| is_about(quota, resource, old)).map(|old| usage(resource, old)).unwrap_or_default();
    let used = used(quota, resource, there);
    let of = |map: &Amounts, name: &str| map.get(name).copied().unwrap_or_default();
    let mut exceeded: [Vec<String>; 3] = Default::default();
    for name in names {
        let more = of(&mine, name).beyond(of(&before, name));
        let (used, limit) = (of(&used, name), of(&hard, name));
        if more > Amount::default() && used + more > limit {
            for (list, amount) in exceeded.iter_mut().zip([more, used, limit]) {
                list.push(format!("{name}={amount}"));
            }
        }
    }
    let [requested, used, limited] = exceeded.map(|list| list.join(","));
    if requested.is_empty() {
        return Ok(());
    }
    Err(format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}"))
}

/// What objects of a kind use of a quota together.
fn used(quota: &Value, resource: &str, there: &[Value]) -> Amounts {
    let mut sum = Amounts::new();
    for object in there.iter().filter(|object| is_about(quota, resource, object)) {
        add(&mut sum, &usage(resource, object));
    }
    sum
}

/// A quota's status: what it allows, and how much of that is used; `list` gives what is below a prefix of keys.
pub fn status(quota: &Value, list: impl Fn(&str) -> Vec<Value>) -> Value {
    let namespace = pods::text(quota, "/metadata/namespace");
    let hard = amounts(&quota["spec"]["hard"]);
    let mut found = Amounts::new();
    for resource in hard.keys().filter_map(|name| counted(name)).collect::<BTreeSet<&str>>() {
        add(&mut found, &used(quota, resource, &list(&prefix(resource, namespace))));
    }
    let none = Amount::default();
    let text = |of: &dyn Fn(&str) -> Amount| -> Value {
        hard.keys().map(|name| (name.clone(), json!(of(name).to_string()))).collect::<serde_json::Map<_, _>>().into()
    };
    json!({ "hard": text(&|name| hard[name]), "used": text(&|name| found.get(name).copied().unwrap_or(none)) })
}

/// The kind of objects that a quota counts by that name.
fn counted(name: &str) -> Option<&str> {
    match name {
        _ if OF_PODS.contains(&name) => Some("pods"),
        _ if PLAIN.contains(&name) => Some(name),
        "services.nodeports" | "services.loadbalancers" => Some("services"),
        "requests.storage" => Some("persistentvolumeclaims"),
        _ if name.contains(".storageclass.storage.k8s.io/") => Some("persistentvolumeclaims"),
        _ => name.strip_prefix("count/"),
    }
}

/// Where the objects of a kind lie: Kubernetes' own by the kind alone, others by their group.
fn prefix(resource: &str, namespace: &str) -> String {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    match plural {
        "services" if group.is_empty() => format!("/registry/services/specs/{namespace}/"),
        "endpoints" if group.is_empty() => format!("/registry/services/endpoints/{namespace}/"),
        "replicationcontrollers" if group.is_empty() => format!("/registry/controllers/{namespace}/"),
        "ingresses" if group == "networking.k8s.io" => format!("/registry/ingress/{namespace}/"),
        _ if group.contains('.') && !group.ends_with(".k8s.io") => format!("/registry/{group}/{plural}/{namespace}/"),
        _ => format!("/registry/{plural}/{namespace}/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: &Value) -> Value {
        json!({ "metadata": { "name": "q", "namespace": "n" }, "spec": { "hard": hard } })
    }

    fn pod(cpu: &str, memory: &str) -> Value {
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c",
            "resources": { "requests": { "cpu": cpu, "memory": memory } } }] } })
    }

    #[test]
    fn what_goes_beyond_is_refused_in_the_originals_words() {
        let two = [json!({}), json!({})];
        let maps = quota(&json!({ "configmaps": "2", "count/deployments.apps": "1" }));
        let said = check(&maps, "configmaps", &json!({}), None, &two).unwrap_err();
        assert_eq!(said, "exceeded quota: q, requested: configmaps=1, used: configmaps=2, limited: configmaps=2");
        let said = check(&maps, "deployments.apps", &json!({}), None, &two[..1]).unwrap_err();
        assert!(said.ends_with("limited: count/deployments.apps=1"), "{said}");
        assert_eq!(check(&maps, "secrets", &json!({}), None, &two), Ok(()));
        let of_pods = quota(&json!({ "requests.cpu": "1", "memory": "1Gi", "pods": "3" }));
        let there = [pod("600m", "512Mi")];
        let said = check(&of_pods, "pods", &pod("500m", "768Mi"), None, &there).unwrap_err();
        assert_eq!(
            said,
            "exceeded quota: q, requested: memory=768Mi,requests.cpu=500m, used: memory=512Mi,requests.cpu=600m, limited: \
             memory=1Gi,requests.cpu=1"
        );
        assert_eq!(check(&of_pods, "pods", &pod("400m", "512Mi"), None, &there), Ok(()));
        let bare = json!({ "spec": { "containers": [{ "name": "b" }, { "name": "a" }] } });
        let said = check(&of_pods, "pods", &bare, None, &[]).unwrap_err();
        assert_eq!(said, "failed quota: q: must specify memory for: a,b; requests.cpu for: a,b");
        let ports = |kind: &str| json!({ "spec": { "type": kind, "ports": [{ "port": 1 }, { "port": 2 }] } });
        let balanced = quota(&json!({ "services.nodeports": "1", "services": "1" }));
        let said = check(&balanced, "services", &ports("NodePort"), Some(&ports("ClusterIP")), &[]).unwrap_err();
        assert!(said.contains("requested: services.nodeports=2"), "{said}");
        let mut scoped = quota(&json!({ "pods": "0" }));
        scoped["spec"]["scopes"] = json!(["Terminating"]);
        assert_eq!(check(&scoped, "pods", &pod("1", "1"), None, &[]), Ok(()));
    }

    #[test]
    fn a_status_says_what_is_used() {
        let quota = quota(&json!({ "pods": "2", "limits.cpu": "4", "count/widgets.example.org": "1" }));
        let status = status(&quota, |prefix| match prefix {
            "/registry/pods/n/" => vec![pod("1", "1Gi"), json!({ "status": { "phase": "Failed" } })],
            "/registry/example.org/widgets/n/" => vec![json!({})],
            _ => Vec::new(),
        });
        assert_eq!(status["used"], json!({ "pods": "1", "limits.cpu": "0", "count/widgets.example.org": "1" }));
        assert_eq!(status["hard"]["limits.cpu"], "4");
    }
}
