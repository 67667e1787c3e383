//! Objects go: at once, gracefully, after what they own, or by eviction.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Cause, Refusal};
use super::ask::{Ask, Run};
use super::decode;
use super::kinds::Kind;
use super::list::{find, listed, shown};
use super::write::refuse;
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::{self, Entry, objects, pods};

/// Seconds after which a caller should try again when the budget's status isn't up to date.
const AGAIN: u64 = 10;

/// How an object is to go.
#[derive(Debug, Default)]
struct Options {
    grace: Option<u64>,
    policy: String,
    uid: Option<String>,
    version: Option<String>,
    run: Option<Run>,
}

fn options(ask: &Ask, body: &[u8]) -> Result<Options, Refusal> {
    let value = if body.is_empty() { json!({}) } else { decode::value(&ask.content_type, body)? };
    if !value.is_object() {
        return Err(Refusal::bad("couldn't get version/kind; json parse error: the body is no object"));
    }
    read_options(ask, &value)
}

fn read_options(ask: &Ask, value: &Value) -> Result<Options, Refusal> {
    ask.check("DeleteOptions")?;
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let given = value["gracePeriodSeconds"].as_i64().or_else(|| ask.flag("gracePeriodSeconds").parse().ok());
    let policy = text("/propagationPolicy").unwrap_or_else(|| ask.flag("propagationPolicy").to_owned());
    let mut causes = Vec::new();
    if !["", "Background", "Foreground", "Orphan"].contains(&policy.as_str()) {
        let known = ["Background", "Foreground", "Orphan"];
        causes.push(Cause::unsupported("propagationPolicy", &json!(policy), &known));
    }
    let dry: Vec<&Value> = value["dryRun"].as_array().into_iter().flatten().collect();
    if dry.iter().any(|one| **one != "All") {
        causes.push(Cause::unsupported("dryRun", &json!(dry), &["All"]));
    }
    if !causes.is_empty() {
        return Err(Refusal::invalid_as("DeleteOptions.meta.k8s.io", ("meta.k8s.io", "DeleteOptions"), "", &causes));
    }
    let policy = match value["orphanDependents"].as_bool() {
        Some(true) => "Orphan".to_owned(),
        _ => policy,
    };
    Ok(Options {
        // What is less than nothing counts as one second.
        grace: given.map(|seconds| u64::try_from(seconds).unwrap_or(1)),
        policy,
        uid: text("/preconditions/uid"),
        version: text("/preconditions/resourceVersion"),
        run: (!dry.is_empty()).then_some(Run::Dry),
    })
}

/// What became of an object.
enum Gone {
    Now,
    /// It is on its way.
    Going(Entry),
}

async fn remove(client: &Client, ask: &Ask, entry: &Entry, options: &Options) -> Result<Gone, Refusal> {
    let name = entry.name();
    let version = entry.modified.to_string();
    let uid = pods::text(&entry.value, "/metadata/uid");
    for (field, wanted, found) in [("UID", &options.uid, uid), ("ResourceVersion", &options.version, version.as_str())]
    {
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why =
                format!("Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {found}");
            return Err(Refusal::conflict(&ask.kind, name, &why));
        }
    }
    if ask.kind.kind == "Namespace" && ["default", "kube-system", "kube-public"].contains(&name) {
        let why = format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", why).with(ask.kind.details(name)));
    }
    let dry = ask.run() == Run::Dry || options.run == Some(Run::Dry);
    let new = going(ask, entry, options);
    if dry {
        return Ok(new.map_or(Gone::Now, |value| Gone::Going(Entry { value, ..entry.clone() })));
    }
    let failed = |error: EtcdError| match error {
        EtcdError::Conflict(_) => Refusal::modified(&ask.kind, name),
        other => refuse(&other),
    };
    let Some(value) = new else {
        client.delete(&entry.key, Some(entry.modified)).await.map_err(failed)?;
        return Ok(Gone::Now);
    };
    if value == entry.value {
        return Ok(Gone::Going(entry.clone()));
    }
    let modified = cluster::put(client, &entry.key, &value, Some(entry.modified)).await.map_err(failed)?;
    Ok(Gone::Going(Entry { value, modified, ..entry.clone() }))
}

/// What an object becomes on its way out; `None`: nothing.
fn going(ask: &Ask, entry: &Entry, options: &Options) -> Option<Value> {
    let mut value = entry.value.clone();
    let mut finalizers = value["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    let add = match options.policy.as_str() {
        "Foreground" => Some("foregroundDeletion"),
        "Orphan" => Some("orphan"),
        _ => None,
    };
    if let Some(add) = add.filter(|add| !finalizers.iter().any(|one| one == add)) {
        finalizers.push(json!(add));
    }
    let waits = !finalizers.is_empty() || value["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    if ask.kind.kind == "Pod" {
        return match pods::terminated(&value, options.grace) {
            Some(mut new) => {
                if !finalizers.is_empty() {
                    new["metadata"]["finalizers"] = Value::Array(finalizers);
                }
                Some(new)
            }
            None if finalizers.is_empty() => None,
            None => {
                mark(&mut value, finalizers);
                Some(value)
            }
        };
    }
    if !waits {
        return None;
    }
    mark(&mut value, finalizers);
    if ask.kind.kind == "Namespace" {
        value["status"]["phase"] = json!("Terminating");
    }
    Some(value)
}

fn mark(value: &mut Value, finalizers: Vec<Value>) {
    if !pods::is_going(value) {
        value["metadata"]["deletionTimestamp"] = json!(objects::now());
    }
    value["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    if !finalizers.is_empty() {
        value["metadata"]["finalizers"] = Value::Array(finalizers);
    }
}

/// Whether who deletes an object is told the object, and not only that it went (Kubernetes, pkg/registry,
/// `ReturnDeletedObject`; `OpenAPI` says which).
fn tells_what_went(kind: &Kind) -> bool {
    match kind.group.as_str() {
        "" => [
            "PersistentVolume",
            "PersistentVolumeClaim",
            "Pod",
            "PodTemplate",
            "ResourceQuota",
            "Service",
            "ServiceAccount",
        ]
        .contains(&kind.kind.as_str()),
        "storage.k8s.io" => kind.kind != "CSIStorageCapacity",
        "resource.k8s.io" => kind.kind != "DeviceTaintRule",
        _ => false,
    }
}

pub(super) async fn delete(client: &Client, ask: &Ask, name: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let options = options(ask, body)?;
    // What changes meanwhile is looked at again, unless the caller said which one he means.
    for attempt in 1..=5 {
        let entry = find(client, ask, name)?;
        match remove(client, ask, &entry, &options).await {
            Err(refusal)
                if refusal.reason == "Conflict"
                    && options.version.is_none()
                    && options.uid.is_none()
                    && attempt < 5 =>
            {
                client.catch_up().await.map_err(|error| refuse(&error))?;
            }
            Err(refusal) => return Err(refusal),
            Ok(Gone::Going(entry)) => return Ok(answer::ok(&shown(&entry, &ask.kind))),
            Ok(Gone::Now) if tells_what_went(&ask.kind) => return Ok(answer::ok(&shown(&entry, &ask.kind))),
            Ok(Gone::Now) => {
                let mut details = ask.kind.details(name);
                details["uid"] = entry.value["metadata"]["uid"].clone();
                let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "details": details });
                return Ok(answer::ok(&status));
            }
        }
    }
    Err(Refusal::modified(&ask.kind, name))
}

pub(super) async fn delete_all(client: &Client, ask: &Ask, body: &[u8]) -> Result<Answer, Refusal> {
    let options = options(ask, body)?;
    let (entries, revision) = cluster::list(client, &ask.prefix());
    let mut items = Vec::new();
    for entry in entries {
        let object = shown(&entry, &ask.kind);
        if !ask.wants(&object) {
            continue;
        }
        match remove(client, ask, &entry, &options).await {
            Ok(_) => items.push(listed(object, &ask.kind)),
            Err(refusal) if refusal.reason == "Conflict" => {}
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(answer::ok(&json!({ "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
        "metadata": { "resourceVersion": revision.to_string() }, "items": items })))
}

/// Deletes a pod if the disruption budgets let it go (Kubernetes, pkg/registry/core/pod/storage/eviction.go).
pub(super) async fn evict(client: &Client, ask: &Ask, name: &str, body: &[u8]) -> Result<Answer, Refusal> {
    ask.check("CreateOptions")?;
    let eviction = decode::value(&ask.content_type, body)?;
    let (version, kind) = (pods::text(&eviction, "/apiVersion"), pods::text(&eviction, "/kind"));
    if !["", "policy/v1"].contains(&version) || !["", "Eviction"].contains(&kind) {
        let why = format!(
            "no kind \"{kind}\" is registered for version \"{version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\""
        );
        return Err(Refusal::bad(why));
    }
    let given = pods::text(&eviction, "/metadata/name");
    if !given.is_empty() && given != name {
        return Err(Refusal::bad(format!("name in URL does not match name in Eviction object: name in URL {name}")));
    }
    let wanted = eviction.get("deleteOptions").filter(|value| value.is_object()).cloned().unwrap_or(json!({}));
    let options = read_options(ask, &wanted)?;
    let dry = ask.run() == Run::Dry || options.run == Some(Run::Dry);
    for _ in 0..5 {
        let entry = find(client, ask, name)?;
        let pod = &entry.value;
        let free = pods::is_over(pod) || pods::is_going(pod) || pods::text(pod, "/status/phase") == "Pending";
        if !free
            && let Some((budget, status)) = allowed(client, &entry)?
            && !dry
        {
            let written = cluster::put(client, &budget.key, &status, Some(budget.modified)).await;
            if matches!(written, Err(EtcdError::Conflict(_))) {
                client.catch_up().await.map_err(|error| refuse(&error))?;
                continue;
            }
            written.map_err(|error| refuse(&error))?;
        }
        let plain = Ask { subresource: None, ..ask.clone() };
        match remove(client, &plain, &entry, &options).await {
            Err(refusal) if refusal.reason == "Conflict" && options.uid.is_none() && options.version.is_none() => {
                client.catch_up().await.map_err(|error| refuse(&error))?;
            }
            Err(refusal) => return Err(refusal),
            Ok(_) => {
                let status =
                    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
                return Ok(answer::json(StatusCode::CREATED, &status));
            }
        }
    }
    Err(protected(AGAIN, &format!("The disruption budget of {name} is still being processed by the server.")))
}

fn protected(seconds: u64, why: &str) -> Refusal {
    let mut details = json!({ "causes": [{ "reason": "DisruptionBudget", "message": why }] });
    if seconds > 0 {
        details["retryAfterSeconds"] = json!(seconds);
    }
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message).with(details)
}

/// The budget that a pod is under, with what it becomes when the pod goes; `None` when none counts for it.
fn allowed(client: &Client, pod: &Entry) -> Result<Option<(Entry, Value)>, Refusal> {
    let prefix = format!("/registry/poddisruptionbudgets/{}/", pods::namespace(pod));
    let covers = |budget: &Entry| {
        let selector = &budget.value["spec"]["selector"];
        !selector.is_null() && pods::matches(selector, &pod.value["metadata"]["labels"])
    };
    let mut budgets: Vec<Entry> = cluster::list(client, &prefix).0.into_iter().filter(covers).collect();
    if budgets.len() > 1 {
        let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", why));
    }
    let Some(budget) = budgets.pop() else { return Ok(None) };
    let name = budget.name().to_owned();
    let count = |pointer: &str| pods::count(&budget.value, pointer);
    let policy = pods::text(&budget.value, "/spec/unhealthyPodEvictionPolicy");
    if !pods::is_ready(&pod.value) {
        let healthy =
            count("/status/currentHealthy") >= count("/status/desiredHealthy") && count("/status/desiredHealthy") > 0;
        if policy == "AlwaysAllow" || healthy {
            return Ok(None);
        }
    }
    if count("/status/observedGeneration") < count("/metadata/generation") {
        return Err(protected(AGAIN, &format!("The disruption budget {name} is still being processed by the server.")));
    }
    if count("/status/disruptionsAllowed") == 0 {
        let why = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            count("/status/desiredHealthy"),
            count("/status/currentHealthy")
        );
        return Err(protected(0, &why));
    }
    let mut value = budget.value.clone();
    value["status"]["disruptionsAllowed"] = json!(count("/status/disruptionsAllowed") - 1);
    value["status"]["disruptedPods"][pod.name()] = json!(objects::now());
    if count("/status/disruptionsAllowed") == 1 {
        pods::set_condition(&mut value, "DisruptionAllowed", "False", "InsufficientPods", "");
    }
    Ok(Some((budget, value)))
}
