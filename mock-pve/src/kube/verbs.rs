//! What becomes of objects.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::kinds::Kind;
use super::{patch, table, watch};
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::workloads::is_ready;
use crate::world::cluster::{self, Entry, objects, values};

/// How often a patch without a resource version is tried again when somebody else was faster.
const ATTEMPTS: u32 = 5;

pub(super) async fn perform(client: &Client, ask: &Ask, body: &[u8]) -> Result<Answer, Refusal> {
    // Only a list or watch that says that old news will do isn't asked of the majority.
    let stale = ask.method == Method::GET && ask.name.is_none() && ask.flag("resourceVersion") == "0";
    let resumed = ["true", "1"].contains(&ask.flag("watch")) && !ask.flag("resourceVersion").is_empty();
    if !stale && !resumed {
        client.catch_up().await.map_err(|error| refuse(&error))?;
    }
    match (&ask.method, &ask.name) {
        (&Method::GET, None) if ["true", "1"].contains(&ask.flag("watch")) => watch::watch(client, ask),
        (&Method::GET, None) => {
            let all = list(client, ask);
            Ok(answer::json(StatusCode::OK, &if ask.table { table::of_list(&all, ask.kind) } else { all }))
        }
        (&Method::GET, Some(name)) => {
            let object = shown(&find(client, ask, name)?, ask.kind);
            Ok(answer::json(StatusCode::OK, &if ask.table { table::of_one(&object, ask.kind) } else { object }))
        }
        (&Method::POST, None) => create(client, ask, parse(body)?).await,
        (&Method::POST, Some(name)) if ask.subresource.as_deref() == Some("eviction") => evict(client, ask, name).await,
        (&Method::PUT, Some(name)) => {
            let entry = find(client, ask, name)?;
            let new = parse(body)?;
            let expected = version(&new);
            replace(client, ask, &entry, new, expected).await
        }
        (&Method::PATCH, Some(name)) => change(client, ask, name, body).await,
        (&Method::DELETE, Some(name)) => delete(client, ask, name, body).await,
        _ => {
            let why = "the server does not allow this method on the requested resource";
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", why))
        }
    }
}

fn version(object: &Value) -> Option<u64> {
    object.pointer("/metadata/resourceVersion").and_then(Value::as_str)?.parse().ok()
}

fn find(client: &Client, ask: &Ask, name: &str) -> Result<Entry, Refusal> {
    cluster::get(client, &ask.key(name)).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", ask.kind.qualified()))
    })
}

/// An object with its kind and resource version.
pub(super) fn shown(entry: &Entry, kind: &Kind) -> Value {
    let mut object = entry.value.clone();
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object["metadata"]["resourceVersion"] = json!(entry.modified.to_string());
    object
}

fn list(client: &Client, ask: &Ask) -> Value {
    let (entries, revision) = cluster::list(client, &ask.prefix());
    let items: Vec<Value> =
        entries.iter().map(|entry| shown(entry, ask.kind)).filter(|object| ask.wants(object)).collect();
    json!({ "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
        "metadata": { "resourceVersion": revision.to_string() }, "items": items })
}

async fn create(client: &Client, ask: &Ask, mut object: Value) -> Result<Answer, Refusal> {
    let given = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let (index, revision) = client.status().map(|status| (status.index, status.revision)).unwrap_or_default();
    let chance = format!("{:016x} {index} {revision}", client.etcd.id());
    let name = given.or_else(|| {
        let prefix = object.pointer("/metadata/generateName")?.as_str()?;
        Some(format!("{prefix}{}", &objects::uid(&chance)[..5]))
    });
    let name = name.ok_or_else(|| {
        let why = format!(
            "{} \"\" is invalid: metadata.name: Required value: name or generateName is required",
            ask.kind.kind
        );
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why)
    })?;
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(name);
    metadata["creationTimestamp"] = json!(objects::now());
    metadata["uid"] = json!(objects::uid(&format!("{chance} {} {name}", ask.kind.plural)));
    if let Some(namespace) = &ask.namespace {
        metadata["namespace"] = json!(namespace);
        if cluster::get(client, &objects::key("namespaces", None, namespace)).is_none() {
            let why = format!("namespaces \"{namespace}\" not found");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", why));
        }
    }
    if ask.kind.plural == "namespaces" {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
        object["status"] = json!({ "phase": "Active" });
    }
    complete(&mut object, ask.kind);
    if !ask.flag("dryRun").is_empty() {
        return Ok(answer::json(StatusCode::CREATED, &object));
    }
    let key = ask.key(&name);
    let revision = cluster::put(client, &key, &object, Some(0)).await.map_err(|error| match error {
        EtcdError::Conflict(_) => {
            let why = format!("{} \"{name}\" already exists", ask.kind.qualified());
            Refusal::new(StatusCode::CONFLICT, "AlreadyExists", why)
        }
        other => refuse(&other),
    })?;
    let entry = Entry { key, value: object, created: revision, modified: revision };
    Ok(answer::json(StatusCode::CREATED, &shown(&entry, ask.kind)))
}

/// What is stored says its kind, and not its version.
fn complete(object: &mut Value, kind: &Kind) {
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
}

async fn replace(
    client: &Client,
    ask: &Ask,
    old: &Entry,
    mut new: Value,
    expected: Option<u64>,
) -> Result<Answer, Refusal> {
    for field in ["uid", "creationTimestamp", "name", "namespace"] {
        if let Some(kept) = old.value["metadata"].get(field) {
            new["metadata"][field] = kept.clone();
        }
    }
    complete(&mut new, ask.kind);
    let unchanged = new == old.value && expected.is_none_or(|expected| expected == old.modified);
    if unchanged || !ask.flag("dryRun").is_empty() {
        // Kubernetes writes nothing when nothing changes.
        let entry = Entry { value: new, ..old.clone() };
        return Ok(answer::json(StatusCode::OK, &shown(&entry, ask.kind)));
    }
    let revision = cluster::put(client, &old.key, &new, expected).await.map_err(|error| match error {
        EtcdError::Conflict(_) => conflict(ask, old.name()),
        other => refuse(&other),
    })?;
    let entry = Entry { value: new, modified: revision, ..old.clone() };
    Ok(answer::json(StatusCode::OK, &shown(&entry, ask.kind)))
}

fn conflict(ask: &Ask, name: &str) -> Refusal {
    let why = format!(
        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the \
         latest version and try again",
        ask.kind.qualified()
    );
    Refusal::new(StatusCode::CONFLICT, "Conflict", why)
}

async fn change(client: &Client, ask: &Ask, name: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let unknown = || {
        let why = format!("the body of the request was in an unknown format - {}", ask.content_type);
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", why)
    };
    let format = patch::Format::of(&ask.content_type).ok_or_else(unknown)?;
    let given = patch::parse(format, body)?;
    let pinned = version(&given);
    for attempt in 1..=ATTEMPTS {
        let entry = match find(client, ask, name) {
            Ok(entry) => entry,
            Err(_) if format == patch::Format::Apply => {
                let mut object = given.clone();
                if !object["metadata"].is_object() {
                    object["metadata"] = json!({});
                }
                object["metadata"]["name"] = json!(name);
                return create(client, ask, object).await;
            }
            Err(refusal) => return Err(refusal),
        };
        if pinned.is_some_and(|pinned| pinned != entry.modified) {
            return Err(conflict(ask, name));
        }
        let mut new = entry.value.clone();
        patch::apply(format, &mut new, &given)?;
        match replace(client, ask, &entry, new, Some(entry.modified)).await {
            Err(refusal) if refusal.code == StatusCode::CONFLICT && pinned.is_none() && attempt < ATTEMPTS => {
                client.catch_up().await.map_err(|error| refuse(&error))?;
            }
            other => return other,
        }
    }
    Err(conflict(ask, name))
}

async fn delete(client: &Client, ask: &Ask, name: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let entry = find(client, ask, name)?;
    let options: Value = serde_json::from_slice(body).unwrap_or_default();
    let preconditions =
        [("uid", &entry.value["metadata"]["uid"]), ("resourceVersion", &json!(entry.modified.to_string()))];
    for (field, found) in preconditions {
        let wanted = &options["preconditions"][field];
        if wanted.is_string() && wanted != found {
            let why = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the {field} in the precondition ({wanted}) does not match \
                 the {field} in record ({found})",
                ask.kind.qualified()
            );
            return Err(Refusal::new(StatusCode::CONFLICT, "Conflict", why));
        }
    }
    if ask.flag("dryRun").is_empty() {
        client.delete(&entry.key, Some(entry.modified)).await.map_err(|error| match error {
            EtcdError::Conflict(_) => conflict(ask, name),
            other => refuse(&other),
        })?;
    }
    let details = json!({ "name": name, "kind": ask.kind.plural, "uid": entry.value["metadata"]["uid"] });
    let status =
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
    Ok(answer::json(StatusCode::OK, &status))
}

/// Deletes a pod unless a disruption budget has nothing to spare.
async fn evict(client: &Client, ask: &Ask, name: &str) -> Result<Answer, Refusal> {
    let entry = find(client, ask, name)?;
    let namespace = ask.namespace.as_deref().unwrap_or("default");
    let pods = cluster::list(client, &format!("/registry/pods/{namespace}/")).0;
    for budget in cluster::list(client, &format!("/registry/poddisruptionbudgets/{namespace}/")).0 {
        let Some(labels) = budget.value.pointer("/spec/selector/matchLabels").and_then(Value::as_object) else {
            continue;
        };
        let covers =
            |pod: &Entry| labels.iter().all(|(key, value)| pod.value["metadata"]["labels"].get(key) == Some(value));
        if !covers(&entry) || !is_ready(&entry.value) {
            continue;
        }
        let healthy = pods.iter().filter(|pod| covers(pod) && is_ready(&pod.value)).count() as u64;
        let least =
            match (budget.value["spec"]["minAvailable"].as_u64(), budget.value["spec"]["maxUnavailable"].as_u64()) {
                (Some(least), _) => least,
                (None, Some(most)) => (pods.iter().filter(|pod| covers(pod)).count() as u64).saturating_sub(most),
                (None, None) => 0,
            };
        if healthy <= least {
            let why = "Cannot evict pod as it would violate the pod's disruption budget.";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", why));
        }
    }
    client.delete(&entry.key, Some(entry.modified)).await.map_err(|error| match error {
        EtcdError::Conflict(_) => conflict(ask, name),
        other => refuse(&other),
    })?;
    Ok(answer::json(StatusCode::CREATED, &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })))
}

/// An error of etcd as the API server passes it on.
pub(super) fn refuse(error: &EtcdError) -> Refusal {
    match error {
        EtcdError::Conflict(_) => Refusal::new(StatusCode::CONFLICT, "Conflict", error.to_string()),
        other => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", other.to_string()),
    }
}

/// A body in JSON, or in protobuf for the kinds that are known in it.
fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let broken = |why: String| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", why);
    let value = if body.starts_with(b"k8s\0") {
        let unknown =
            "the body of the request was in an unknown format - accepted media types include: application/json";
        values::decode(body)
            .ok_or_else(|| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", unknown))?
    } else {
        serde_json::from_slice(body).map_err(|error| broken(error.to_string()))?
    };
    if value.is_object() { Ok(value) } else { Err(broken("the body is no object".to_owned())) }
}
