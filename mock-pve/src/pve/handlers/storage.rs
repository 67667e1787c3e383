//! `/storage` and `N/storage/…`, but for content.

use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use super::views::sees_storage;
use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Storage;
use crate::world::storage_types::{StorageType, Use};
use crate::world::{PveVersion, State};

fn digest(state: &State) -> String {
    let text: Vec<String> = state
        .storages
        .iter()
        .map(|(id, storage)| format!("{}: {id} {}", storage.kind, Value::Object(storage.options.clone())))
        .collect();
    hex::encode(Sha1::digest(text.join("\n").as_bytes()))
}

fn entry(state: &State, id: &str, storage: &Storage) -> Value {
    let mut entry = storage.options.clone();
    entry.insert("storage".to_owned(), json!(id));
    entry.insert("type".to_owned(), json!(storage.kind));
    entry.insert("digest".to_owned(), json!(digest(state)));
    if storage.shared() {
        entry.insert("shared".to_owned(), json!(1));
    }
    Value::Object(entry)
}

/// `GET /storage`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let list = state
        .storages
        .iter()
        .filter(|(id, _)| sees_storage(&state, &call.caller, id))
        .filter(|(_, storage)| call.params.text("type").is_none_or(|kind| kind == storage.kind))
        .map(|(id, storage)| entry(&state, id, storage));
    Ok(list.collect::<Vec<_>>().into())
}

fn missing(id: &str) -> Refusal {
    Refusal::failed(format!("storage '{id}' does not exist\n"))
}

/// `GET /storage/{storage}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("storage");
    let storage = state.storages.get(id).ok_or_else(|| missing(id))?;
    Ok(entry(&state, id, storage).into())
}

fn options(call: &Call, kind: &str) -> Rule<Map<String, Value>> {
    let mut options = Map::new();
    for key in
        call.params.0.keys().filter(|key| !["storage", "type", "delete", "digest", "nodes"].contains(&key.as_str()))
    {
        if StorageType::usage(kind, key).is_none() {
            return Err(Refusal::failed(format!("unexpected property '{key}'\n")));
        }
        let text = call.text(key);
        if StorageType::is_secret(kind, key) {
            continue;
        }
        let value = if key == "content" { json!(content_of(kind, text)?) } else { call.read_back(key) };
        options.insert(key.clone(), value);
    }
    if let Some(nodes) = call.params.text("nodes").filter(|nodes| !nodes.is_empty()) {
        options.insert("nodes".to_owned(), json!(nodes));
    }
    Ok(options)
}

/// What a type can't hold is left out.
fn content_of(kind: &str, text: &str) -> Rule<String> {
    let known = StorageType::of(kind).map_or(&[][..], |known| known.contents);
    let mut list: Vec<&str> = Vec::new();
    for part in text.split([',', ';', ' ']).filter(|part| known.contains(part)) {
        if !list.contains(&part) {
            list.push(part);
        }
    }
    if list.contains(&"none") && list.len() > 1 {
        return Err(Refusal::failed("unable to combine 'none' with other content types\n"));
    }
    if list.is_empty() && !known.contains(&"none") {
        return Err(Refusal::failed("storage does not support content type 'none'\n"));
    }
    Ok(if list.is_empty() { "none".to_owned() } else { list.join(",") })
}

/// A folder as it is kept: one slash between its parts, none at its end (PVE/Storage/DirPlugin.pm, `check_config`).
fn folder(path: &str) -> Rule<String> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "-/_.@".contains(c);
    if path.len() < 2 || !path.starts_with('/') || !path.chars().all(fine) {
        return Err(Refusal::failed(format!("illegal path for directory storage: {path}\n")));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    Ok(format!("/{}", parts.join("/")))
}

/// What has no value isn't written down, nor is a storage that isn't disabled (PVE/SectionConfig.pm, `write_config`).
fn forget_silent(options: &mut Map<String, Value>) {
    options.retain(|key, value| value.as_str() != Some("") && !(key == "disable" && *value == json!(0)));
}

/// `POST /storage`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let (id, kind) = (call.text("storage").to_owned(), call.text("type").to_owned());
    let mut options = options(call, &kind)?;
    if let Some(name) = StorageType::required(&kind).iter().find(|name| !options.contains_key(**name)) {
        return Err(Refusal::failed(format!("missing value for required option '{name}'\n")));
    }
    if matches!(kind.as_str(), "dir" | "btrfs") {
        let path = folder(call.text("path"))?;
        options.insert("path".to_owned(), json!(path));
    }
    forget_silent(&mut options);
    if StorageType::usage(&kind, "path").is_some() {
        options.entry("path").or_insert_with(|| json!(format!("/mnt/pve/{id}")));
    }
    let mut state = call.world.state();
    if state.storages.contains_key(&id) {
        return Err(Refusal::failed(format!("create storage failed: storage ID '{id}' already defined\n")));
    }
    state.storages.insert(id.clone(), Storage { kind: kind.clone(), options, capacity: 500 << 30 });
    Ok(json!({"storage": id, "type": kind}).into())
}

/// `PUT /storage/{storage}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let id = call.text("storage").to_owned();
    let failed = |text: &str| Refusal::failed(format!("update storage failed: {text}\n"));
    let mut state = call.world.state();
    let now = digest(&state);
    if call.params.text("digest").is_some_and(|given| given != now) {
        return Err(failed("detected modified configuration - file changed by other user? Try again."));
    }
    let kind = state.storages.get(&id).map(|storage| storage.kind.clone());
    let kind = kind.ok_or_else(|| failed(&format!("storage '{id}' does not exist")))?;
    let fixed = |key: &&String| matches!(StorageType::usage(&kind, key), Some(Use::Fixed | Use::Once));
    if let Some(key) = call.params.0.keys().find(fixed) {
        return Err(failed(&format!("can't change value of fixed parameter '{key}'")));
    }
    let options = options(call, &kind).map_err(|refusal| failed(&refusal.text()))?;
    let delete = call.params.list("delete");
    for key in &delete {
        let text = match StorageType::usage(&kind, key) {
            None => format!("no such option '{key}'"),
            Some(Use::Fixed | Use::Required) => format!("unable to delete required option '{key}'"),
            Some(Use::Once) => format!("unable to delete fixed option '{key}'"),
            Some(Use::Optional) if options.contains_key(key) => {
                format!("cannot set and delete property '{key}' at the same time!")
            }
            Some(Use::Optional) => continue,
        };
        return Err(failed(&text));
    }
    let Some(storage) = state.storages.get_mut(&id) else { return Err(missing(&id)) };
    storage.options.extend(options);
    if call.params.text("nodes").is_some_and(str::is_empty) {
        storage.options.remove("nodes");
    }
    for key in delete {
        storage.options.remove(&key);
    }
    forget_silent(&mut storage.options);
    Ok(json!({"storage": id, "type": kind}).into())
}

/// `DELETE /storage/{storage}`
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let id = call.text("storage").to_owned();
    {
        let mut state = call.world.state();
        if !state.storages.contains_key(&id) {
            return Err(Refusal::failed(format!("delete storage failed: storage '{id}' does not exist\n")));
        }
        let base = format!("{id}:");
        if state.storages.values().any(|other| other.option("base").is_some_and(|on| on.starts_with(&base))) {
            let text = "delete storage failed: can't remove storage - storage is used as base of another storage\n";
            return Err(Refusal::failed(text));
        }
        state.storages.remove(&id);
        // The data stays where it is; nobody can name it any more.
        state.volumes.retain(|key, _| key.storage != id);
        let path = format!("/storage/{id}");
        state.access.acl.retain(|acl| acl.path != path);
        for pool in state.pools.values_mut() {
            pool.storages.remove(&id);
        }
    }
    call.world.tell(&call.caller, "delete-storage", None, Some(&id));
    Ok(().into())
}

fn status_of(call: &Call, state: &State, node: &str, id: &str, storage: &Storage) -> Map<String, Value> {
    let enabled = !storage.flag("disable") && storage.on_node(node);
    let (total, used) =
        if enabled { (storage.capacity, state.used(call.world.dir(), node, id).min(storage.capacity)) } else { (0, 0) };
    json!({
        "type": storage.kind, "content": storage.content().join(","), "shared": u8::from(storage.shared()),
        "enabled": u8::from(enabled), "active": u8::from(enabled), "total": total, "used": used,
        "avail": total - used,
    })
    .as_object()
    .cloned()
    .unwrap_or_default()
}

/// `GET N/storage`
pub(in crate::pve) fn on_node(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let wanted = call.params.list("content");
    // Whoever asks for contents gets only what can be used here.
    let fits = |storage: &Storage| {
        let content = storage.content();
        call.params.text("content").is_none()
            || (wanted.iter().any(|want| content.contains(&want.as_str()))
                && storage.on_node(&node)
                && !storage.flag("disable"))
    };
    if let Some(id) = call.params.text("storage")
        && !state.storages.get(id).is_some_and(fits)
    {
        return Err(Refusal::param("storage", "No such storage."));
    }
    let target = call.params.text("target").filter(|target| *target != node && *target != "localhost");
    let mut list = Vec::new();
    for (id, storage) in &state.storages {
        let reaches = |target: &str| storage.shared() && storage.on_node(&node) && storage.on_node(target);
        let skip = !fits(storage)
            || call.params.text("storage").is_some_and(|only| only != id)
            || !sees_storage(&state, &call.caller, id)
            || (call.params.is_on("enabled") && storage.flag("disable"))
            || target.is_some_and(|target| !reaches(target));
        if skip {
            continue;
        }
        let mut entry = status_of(call, &state, &node, id, storage);
        entry.insert("storage".to_owned(), json!(id));
        let total = entry.get("total").and_then(Value::as_u64).unwrap_or(0);
        if total > 0 {
            let used = entry.get("used").and_then(Value::as_u64).unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "a fraction")]
            let fraction = used as f64 / total as f64;
            entry.insert("used_fraction".to_owned(), json!(fraction));
        }
        if call.params.is_on("format") && storage.on_node(&node) && !storage.flag("disable") {
            let formats = storage.formats();
            let mut map: Map<String, Value> = formats.iter().map(|name| ((*name).to_owned(), json!(1))).collect();
            if storage.kind == "dir" || storage.kind == "zfspool" || storage.kind == "btrfs" {
                map.insert("subvol".to_owned(), json!(1));
            }
            if state.pve == PveVersion::V9 {
                let supported: Vec<&String> = map.keys().collect();
                entry.insert("formats".to_owned(), json!({"supported": supported, "default": formats[0]}));
            }
            entry.insert("format".to_owned(), json!([map, formats[0]]));
        }
        list.push(Value::Object(entry));
    }
    Ok(list.into())
}

/// `GET N/storage/{storage}`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = [
        "content",
        "download-url",
        "file-restore",
        "import-metadata",
        "prunebackups",
        "rrd",
        "rrddata",
        "status",
        "upload",
    ];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Vec<_>>().into())
}

/// `GET N/storage/{storage}/status`
pub(in crate::pve) fn status(call: &Call) -> Result {
    let state = call.world.state();
    let (node, id) = (call.node(), call.text("storage").to_owned());
    let storage = state.storages.get(&id).ok_or_else(|| Refusal::param("storage", "No such storage."))?;
    Ok(status_of(call, &state, &node, &id, storage).into())
}
