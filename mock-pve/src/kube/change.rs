//! Objects are changed by patches, and by server-side apply.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::list::{as_asked, find, shown};
use super::managed::{self, Force, Operation};
use super::schema::Shape;
use super::write::{ATTEMPTS, Note, expected, insert, placed, refuse, replace};
use super::{decode, patch};
use crate::etcd::Client;
use crate::world::cluster::{Entry, objects, pods};

pub(super) async fn change(client: &Client, ask: &Ask, name: &str, given: &[u8]) -> Result<Answer, Refusal> {
    ask.check("PatchOptions")?;
    let unknown = || {
        let why = format!(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
             application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml (was {})",
            ask.content_type
        );
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", why)
    };
    let format = patch::Format::of(&ask.content_type).ok_or_else(unknown)?;
    if format == patch::Format::Strategic && ask.kind.custom.is_some() {
        return Err(unknown());
    }
    let patch = patch::parse(format, given)?;
    let pinned = if format == patch::Format::Json { None } else { expected(&patch)? };
    let shape = Shape::of(&ask.kind);
    for attempt in 1..=ATTEMPTS {
        let old = match find(client, ask, name) {
            Ok(old) => Some(old),
            Err(_) if format == patch::Format::Apply && ask.subresource.is_none() => None,
            Err(refusal) => return Err(refusal),
        };
        if pinned.is_some_and(|pinned| old.as_ref().is_some_and(|old| pinned != old.modified)) {
            return Err(Refusal::modified(&ask.kind, name));
        }
        let done = if format == patch::Format::Apply {
            apply(client, ask, name, &patch, old.as_ref()).await
        } else {
            let Some(old) = &old else { return Err(Refusal::not_found(&ask.kind, name)) };
            let mut new = old.value.clone();
            new["apiVersion"] = json!(ask.kind.api_version());
            new["metadata"]["resourceVersion"] = json!(old.modified.to_string());
            patch::apply(format, &mut new, &patch, &shape)?;
            let decoded = decode::object(new, &ask.kind, ask.strictness())?;
            let mut new = decoded.object;
            if expected(&new)?.is_some_and(|wanted| wanted != old.modified) {
                return Err(Refusal::modified(&ask.kind, name));
            }
            placed(ask, &mut new)?;
            let by = ask.manager(Operation::Update);
            replace(client, ask, old, new, Note::As(by)).await.map(|entry| (entry, decoded.warnings, StatusCode::OK))
        };
        match done {
            Err(refusal)
                if refusal.reason == "Conflict"
                    && refusal.details.as_ref().is_some_and(|one| one["causes"].is_null())
                    && pinned.is_none()
                    && attempt < ATTEMPTS =>
            {
                client.catch_up().await.map_err(|error| refuse(&error))?;
            }
            Err(refusal) => return Err(refusal),
            Ok((entry, warnings, code)) => {
                let answer = answer::json(code, &as_asked(shown(&entry, &ask.kind), ask));
                return Ok(answer::warn(answer, &warnings));
            }
        }
    }
    Err(Refusal::modified(&ask.kind, name))
}

/// Server-side apply.
async fn apply(
    client: &Client,
    ask: &Ask,
    name: &str,
    config: &Value,
    old: Option<&Entry>,
) -> Result<(Entry, Vec<String>, StatusCode), Refusal> {
    if config.pointer("/metadata/managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(Refusal::bad("metadata.managedFields must be nil"));
    }
    for field in ["apiVersion", "kind"] {
        if !config[field].is_string() {
            return Err(Refusal::bad("error applying patch: invalid object type: /, Kind="));
        }
    }
    let decoded = decode::object(config.clone(), &ask.kind, ask.strictness())?;
    let mut config = decoded.object;
    placed(ask, &mut config)?;
    if ask.subresource.is_none()
        && ask.kind.has("status")
        && let Some(map) = config.as_object_mut()
    {
        map.remove("status");
    }
    let by = ask.manager(Operation::Apply);
    let force = if ask.is("force") { Force::Yes } else { Force::No };
    let shape = Shape::of(&ask.kind);
    let Some(old) = old else {
        let mut bare =
            json!({ "apiVersion": ask.kind.api_version(), "kind": ask.kind.kind, "metadata": { "name": name } });
        if let Some(namespace) = &ask.namespace {
            bare["metadata"]["namespace"] = json!(namespace);
        }
        if let Some(prefix) = config["metadata"].get("generateName") {
            bare["metadata"]["generateName"] = prefix.clone();
        }
        let object = managed::applied(&bare, &config, &by, &shape, force, &objects::now())?;
        let entry = insert(client, ask, object, None).await?;
        return Ok((entry, decoded.warnings, StatusCode::CREATED));
    };
    if let Some(uid) = config["metadata"]["uid"].as_str().filter(|uid| !uid.is_empty())
        && old.value["metadata"]["uid"] != uid
    {
        let found = pods::text(&old.value, "/metadata/uid");
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
        return Err(Refusal::conflict(&ask.kind, name, &why));
    }
    let new = managed::applied(&old.value, &config, &by, &shape, force, &objects::now())?;
    let entry = replace(client, ask, old, new, Note::Done).await?;
    Ok((entry, decoded.warnings, StatusCode::OK))
}
