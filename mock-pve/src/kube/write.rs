//! Objects are made and replaced: create, update, and the subresources that are written.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::{Ask, Run};
use super::fill::{begin, complete, inherit, keep};
use super::kinds::Kind;
use super::list::{as_asked, find, shown};
use super::managed::{self, Operation};
use super::schema::Shape;
use super::{decode, quota, validate};
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::{self, Entry, objects, pods};

/// How often a change without a resource version is tried again when somebody else was faster.
pub(super) const ATTEMPTS: u32 = 5;

/// An error of etcd as the API server passes it on.
pub(super) fn refuse(error: &EtcdError) -> Refusal {
    match error {
        EtcdError::Conflict(_) => Refusal::new(StatusCode::CONFLICT, "Conflict", error.to_string()),
        other => Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", other.to_string()),
    }
}

pub(super) fn expected(object: &Value) -> Result<Option<u64>, Refusal> {
    match object.pointer("/metadata/resourceVersion").and_then(Value::as_str) {
        None | Some("") => Ok(None),
        Some(text) => super::list::version(text).map(Some),
    }
}

/// A body as an object of the asked kind, in the asked namespace and with the asked name.
fn body(ask: &Ask, body: &[u8]) -> Result<decode::Decoded, Refusal> {
    let value = decode::value(&ask.content_type, body)?;
    let mut decoded = decode::object(value, &ask.kind, ask.strictness())?;
    placed(ask, &mut decoded.object)?;
    Ok(decoded)
}

pub(super) fn placed(ask: &Ask, object: &mut Value) -> Result<(), Refusal> {
    let given = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default().to_owned();
    match &ask.namespace {
        Some(namespace) if given.is_empty() || given == *namespace => {
            object["metadata"]["namespace"] = json!(namespace);
        }
        Some(_) => {
            let why = "the namespace of the provided object does not match the namespace sent on the request";
            return Err(Refusal::bad(why));
        }
        None => {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("namespace");
            }
        }
    }
    if let Some(name) = &ask.name {
        let given = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && given != name {
            return Err(Refusal::bad(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
        object["metadata"]["name"] = json!(name);
    }
    Ok(())
}

pub(super) async fn create(client: &Client, ask: &Ask, given: &[u8]) -> Result<Answer, Refusal> {
    ask.check("CreateOptions")?;
    let decoded = body(ask, given)?;
    let entry = insert(client, ask, decoded.object, Some(Operation::Update)).await?;
    let answer = answer::json(StatusCode::CREATED, &as_asked(shown(&entry, &ask.kind), ask));
    Ok(answer::warn(answer, &decoded.warnings))
}

/// A new object; its fields are noted as the caller's unless they are already.
pub(super) async fn insert(
    client: &Client,
    ask: &Ask,
    mut object: Value,
    note: Option<Operation>,
) -> Result<Entry, Refusal> {
    if expected(&object)?.is_some_and(|version| version > 0) {
        return Err(Refusal::bad("resourceVersion should not be set on objects to be created"));
    }
    let (index, revision) = client.status().map(|status| (status.index, status.revision)).unwrap_or_default();
    let chance = format!("{:016x} {index} {revision} {}", client.etcd.id(), jiff::Timestamp::now().as_nanosecond());
    let name = match object.pointer("/metadata/name").and_then(Value::as_str).filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => {
            match object.pointer("/metadata/generateName").and_then(Value::as_str).filter(|prefix| !prefix.is_empty()) {
                Some(prefix) => format!("{}{}", prefix.chars().take(58).collect::<String>(), pods::suffix(&chance, 5)),
                None => String::new(),
            }
        }
    };
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(name);
    metadata["creationTimestamp"] = json!(objects::now());
    metadata["uid"] = json!(objects::uid(&format!("{chance} {} {name}", ask.kind.plural)));
    for field in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"] {
        if let Some(map) = metadata.as_object_mut() {
            map.remove(field);
        }
    }
    if ask.kind.generations {
        metadata["generation"] = json!(1);
    }
    if let Some(namespace) = &ask.namespace {
        let found = cluster::get(client, &objects::key("namespaces", None, namespace));
        let Some(found) = found else {
            let why = format!("namespaces \"{namespace}\" not found");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", why)
                .with(json!({ "name": namespace, "kind": "namespaces" })));
        };
        if pods::is_going(&found.value) && ask.kind.plural != "events" {
            let why = format!(
                "{} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
                ask.kind.qualified()
            );
            let mut details = ask.kind.details(&name);
            details["causes"] = json!([{ "reason": "NamespaceTerminating", "field": "metadata.namespace",
                "message": format!("namespace {namespace} is being terminated") }]);
            return Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", why).with(details));
        }
    }
    begin(&mut object, &ask.kind);
    if ask.kind.plural == "certificatesigningrequests" && object["spec"].is_object() {
        // Who asks is who asked, whatever he says.
        object["spec"]["username"] = json!(ask.user.name);
        object["spec"]["groups"] = json!(ask.user.groups);
    }
    complete(&mut object, &ask.kind);
    validate::check(&ask.kind, &object, None)?;
    quota::admit(client, ask, &object, None)?;
    if note.is_some() {
        let by = ask.manager(Operation::Update);
        managed::updated(None, &mut object, &by, &Shape::of(&ask.kind), &objects::now());
    }
    let key = ask.key(&name);
    if ask.run() == Run::Dry {
        if cluster::get(client, &key).is_some() {
            return Err(exists(&ask.kind, &name));
        }
        return Ok(Entry { key, value: object, created: 0, modified: 0 });
    }
    let revision = cluster::put(client, &key, &object, Some(0)).await.map_err(|error| match error {
        EtcdError::Conflict(_) => exists(&ask.kind, &name),
        other => refuse(&other),
    })?;
    Ok(Entry { key, value: object, created: revision, modified: revision })
}

fn exists(kind: &Kind, name: &str) -> Refusal {
    let why = format!("{} \"{name}\" already exists", kind.qualified());
    Refusal::new(StatusCode::CONFLICT, "AlreadyExists", why).with(kind.details(name))
}

/// Whether an update makes an object of a kind that isn't there yet (`AllowCreateOnUpdate`).
fn may_begin(kind: &Kind) -> bool {
    match kind.group.as_str() {
        "" => ["Endpoints", "Event", "LimitRange", "Service"].contains(&kind.kind.as_str()),
        "rbac.authorization.k8s.io" => true,
        "coordination.k8s.io" | "discovery.k8s.io" => kind.custom.is_none(),
        "scheduling.k8s.io" => kind.kind == "PriorityClass",
        _ => false,
    }
}

pub(super) async fn update(client: &Client, ask: &Ask, name: &str, given: &[u8]) -> Result<Answer, Refusal> {
    ask.check("UpdateOptions")?;
    let decoded = body(ask, given)?;
    let wanted = expected(&decoded.object)?;
    for attempt in 1..=ATTEMPTS {
        let old = match find(client, ask, name) {
            Ok(old) => old,
            Err(_) if ask.subresource.is_none() && may_begin(&ask.kind) => {
                let entry = insert(client, ask, decoded.object, Some(Operation::Update)).await?;
                let answer = answer::json(StatusCode::CREATED, &as_asked(shown(&entry, &ask.kind), ask));
                return Ok(answer::warn(answer, &decoded.warnings));
            }
            Err(refusal) => return Err(refusal),
        };
        if wanted.is_some_and(|wanted| wanted != old.modified) {
            return Err(Refusal::modified(&ask.kind, name));
        }
        let by = ask.manager(Operation::Update);
        match replace(client, ask, &old, decoded.object.clone(), Note::As(by)).await {
            Err(refusal) if refusal.reason == "Conflict" && wanted.is_none() && attempt < ATTEMPTS => {
                client.catch_up().await.map_err(|error| refuse(&error))?;
            }
            Err(refusal) => return Err(refusal),
            Ok(entry) => {
                return Ok(answer::warn(answer::ok(&as_asked(shown(&entry, &ask.kind), ask)), &decoded.warnings));
            }
        }
    }
    Err(Refusal::modified(&ask.kind, name))
}

/// Whether it is to be noted who wrote what.
pub(super) enum Note {
    As(managed::Manager),
    Done,
}

/// An object gets a new value, as far as the subresource that was asked for goes.
pub(super) async fn replace(
    client: &Client,
    ask: &Ask,
    old: &Entry,
    mut new: Value,
    note: Note,
) -> Result<Entry, Refusal> {
    let kind = &ask.kind;
    let name = old.name();
    let given = new["metadata"]["uid"].as_str().unwrap_or_default();
    let uid = old.value["metadata"]["uid"].as_str().unwrap_or_default();
    if !given.is_empty() && given != uid {
        let why = format!("Precondition failed: UID in precondition: {given}, UID in object meta: {uid}");
        return Err(Refusal::conflict(kind, name, &why));
    }
    new = as_far_as_goes(ask, old, new);
    keep(&mut new, &old.value);
    inherit(&mut new, &old.value, kind);
    complete(&mut new, kind);
    validate::check(kind, &new, Some(&old.value))?;
    quota::admit(client, ask, &new, Some(&old.value))?;
    if kind.generations && specified(&new) != specified(&old.value) {
        new["metadata"]["generation"] = json!(pods::count(&old.value, "/metadata/generation") + 1);
    }
    if let Note::As(by) = note {
        managed::updated(Some(&old.value), &mut new, &by, &Shape::of(kind), &objects::now());
    }
    let unchanged = same(&new, &old.value);
    if unchanged || ask.run() == Run::Dry {
        // Kubernetes writes nothing when nothing changes.
        let value = if unchanged { old.value.clone() } else { new };
        return Ok(Entry { value, ..old.clone() });
    }
    let gone = pods::is_going(&new)
        && new["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && new["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty)
        && (kind.kind != "Pod" || pods::count(&new, "/metadata/deletionGracePeriodSeconds") == 0);
    let written = if gone {
        client.delete(&old.key, Some(old.modified)).await
    } else {
        cluster::put(client, &old.key, &new, Some(old.modified)).await
    };
    let revision = written.map_err(|error| match error {
        EtcdError::Conflict(_) => Refusal::modified(kind, name),
        other => refuse(&other),
    })?;
    Ok(Entry { value: new, modified: revision, ..old.clone() })
}

/// Of a new value, what the subresource that was asked for may change; the rest stays.
fn as_far_as_goes(ask: &Ask, old: &Entry, mut new: Value) -> Value {
    let kind = &ask.kind;
    match ask.subresource.as_deref() {
        Some("status" | "approval") => {
            let status = new["status"].take();
            let managed = new["metadata"]["managedFields"].take();
            new = old.value.clone();
            if status.is_null() {
                if let Some(map) = new.as_object_mut() {
                    map.remove("status");
                }
            } else {
                new["status"] = status;
            }
            if kind.plural == "certificatesigningrequests" {
                for one in new.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
                    if one.is_object() && !one["lastTransitionTime"].is_string() {
                        one["lastTransitionTime"] = json!(objects::now());
                    }
                }
            }
            if !managed.is_null() {
                new["metadata"]["managedFields"] = managed;
            }
        }
        Some("ephemeralcontainers") => {
            let added = new["spec"]["ephemeralContainers"].take();
            let managed = new["metadata"]["managedFields"].take();
            new = old.value.clone();
            if added.is_array() {
                new["spec"]["ephemeralContainers"] = added;
            }
            if !managed.is_null() {
                new["metadata"]["managedFields"] = managed;
            }
        }
        Some("finalize") => {
            let finalizers = new["spec"]["finalizers"].take();
            new = old.value.clone();
            new["spec"]["finalizers"] = if finalizers.is_array() { finalizers } else { json!([]) };
        }
        _ if kind.has("status") => match old.value.get("status") {
            Some(status) => new["status"] = status.clone(),
            None => {
                if let Some(map) = new.as_object_mut() {
                    map.remove("status");
                }
            }
        },
        _ => {}
    }
    if ask.subresource.is_none() && kind.kind == "Pod" && new["spec"].is_object() {
        // Only by their own way.
        match old.value["spec"].get("ephemeralContainers") {
            Some(known) => new["spec"]["ephemeralContainers"] = known.clone(),
            None => {
                if let Some(spec) = new["spec"].as_object_mut() {
                    spec.remove("ephemeralContainers");
                }
            }
        }
    }
    if ask.subresource.as_deref() != Some("finalize") && kind.kind == "Namespace" {
        new["spec"] = old.value["spec"].clone();
    }
    new
}

/// Whether two objects are the same but for when their fields were set.
fn same(one: &Value, other: &Value) -> bool {
    let timeless = |object: &Value| {
        let mut object = object.clone();
        for entry in object.pointer_mut("/metadata/managedFields").and_then(Value::as_array_mut).into_iter().flatten() {
            entry["time"] = Value::Null;
        }
        object
    };
    one == other || timeless(one) == timeless(other)
}

/// What a specification is: all but metadata and status.
fn specified(object: &Value) -> Map<String, Value> {
    let mut map = object.as_object().cloned().unwrap_or_default();
    map.remove("metadata");
    map.remove("status");
    map
}
