//! `N/storage/{storage}/content`.

use std::pin::Pin;

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::pve::formats::check_format;
use crate::world::backups::names::archive;
use crate::world::disks::Place;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::{Volume, VolumeKey};
use crate::world::volume::{Family, Named, parse_name};
use crate::world::work::Work;
use crate::world::{State, qcow2};

type Later = Pin<Box<dyn Future<Output = Result> + Send>>;

/// `GET N/storage/{storage}/content`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let (node, id) = (call.node(), call.text("storage"));
    let storage = state.storage_on(id, &node)?;
    let wanted = call.params.text("content");
    let vmid = call.params.number::<u32>("vmid");
    let content = storage.content();
    let mut list = Vec::new();
    for (key, volume) in &state.volumes {
        let here = key.storage == id && (key.node.is_empty() || key.node == node);
        let of_guests = ["images", "rootdir", "backup"].contains(&volume.content.as_str());
        // Nobody lists files whose names begin with a dot.
        let hidden = storage.family() == Family::Files && key.file_name().starts_with('.');
        let skip = !here
            || hidden
            || wanted.is_some_and(|wanted| wanted != volume.content)
            || !content.contains(&volume.content.as_str())
            || (of_guests && vmid.is_some() && volume.vmid != vmid)
            || (matches!(volume.content.as_str(), "iso" | "vztmpl") && vmid.is_some());
        if skip {
            continue;
        }
        if state.check_volume(&call.caller, 0, &key.volid()).is_err() {
            continue;
        }
        list.push(entry(call, &state, key, volume));
    }
    Ok(list.into())
}

fn entry(call: &Call, state: &State, key: &VolumeKey, volume: &Volume) -> Value {
    let mut entry = json!({
        "volid": key.volid(), "content": volume.content, "format": volume.format, "size": volume.size,
        "ctime": volume.ctime,
    });
    if volume.content == "images" || volume.content == "rootdir" {
        entry["vmid"] = json!(volume.vmid);
        let files = state.storages.get(&key.storage).is_some_and(|storage| storage.family() == Family::Files);
        if files {
            entry["parent"] = json!(volume.parent.as_ref().map(|parent| format!("../{parent}")));
            entry["used"] = json!(state.occupied(call.world.dir(), key, volume));
        } else if let Some(parent) = &volume.parent {
            entry["parent"] = json!(format!("{parent}@__base__"));
        }
    }
    if volume.content == "backup" {
        let kind = archive(key.file_name()).map_or_else(|| "unknown".to_owned(), |named| named.kind);
        entry["subtype"] = json!(kind);
        if let Some(vmid) = volume.vmid {
            entry["vmid"] = json!(vmid);
        }
    }
    // A list shows the first line.
    if let Some(notes) = volume.notes.as_deref().and_then(|notes| notes.lines().next()) {
        entry["notes"] = json!(notes);
    }
    if volume.protected {
        entry["protected"] = json!(1);
    }
    entry
}

/// The volume that a path means: `storage:name`, or the name alone.
fn named(call: &Call, state: &State) -> Rule<(VolumeKey, Named)> {
    let (node, id) = (call.node(), call.text("storage"));
    let given = call.text("volume");
    let parsed = given.split_once(':');
    if parsed.is_some_and(|(storage, name)| name.is_empty() || check_format("pve-storage-id", storage).is_err()) {
        return Err(Refusal::param("volume", format!("unable to parse volume ID '{given}'\n")));
    }
    let name = match parsed {
        Some((storage, _)) if storage != id => {
            return Err(Refusal::param("volume", format!("storage ID mismatch ({storage} != {id})\n")));
        }
        Some((_, name)) => name,
        None => given,
    };
    let missing = || Refusal::failed(format!("storage '{id}' does not exist\n"));
    let storage = state.storages.get(id).ok_or_else(missing)?;
    let parsed = parse_name(storage, name).map_err(Refusal::Failed)?;
    Ok((state.key_on(&node, id, name), parsed))
}

/// `GET N/storage/{storage}/content/{volume}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    let (key, _) = named(call, &state)?;
    state.check_volume(&call.caller, 0, &key.volid())?;
    let Some(volume) = state.volumes.get(&key) else {
        return Err(Refusal::failed(format!("volume_size_info on '{}' failed - no format\n", key.volid())));
    };
    let file = state.file_of(call.world.dir(), &key);
    let size = if volume.content == "import" {
        qcow2::info(&file).map_or(volume.size, |info| info.virtual_size)
    } else {
        volume.size
    };
    if size == 0 && volume.format != "subvol" {
        return Err(Refusal::failed(format!("volume '{}' has size zero\n", key.volid())));
    }
    let mut entry = json!({
        "path": state.path_of(&key), "size": size, "used": state.occupied(call.world.dir(), &key, volume),
        "format": if matches!(volume.content.as_str(), "iso" | "backup") { "raw" } else { volume.format.as_str() },
    });
    if let Some(notes) = &volume.notes {
        entry["notes"] = json!(notes);
    }
    if volume.protected {
        entry["protected"] = json!(1);
    }
    Ok(entry.into())
}

/// `PUT N/storage/{storage}/content/{volume}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let state = call.world.state();
    let (key, parsed) = named(call, &state)?;
    state.check_volume(&call.caller, 0, &key.volid())?;
    let files = state.storages.get(&key.storage).is_some_and(|storage| storage.family() == Family::Files);
    let (notes, protected) = (call.params.owned("notes"), call.params.text("protected").map(|flag| flag == "1"));
    if parsed.content != "backup" {
        let refuse = |text: &str| Err(Refusal::failed(format!("{text}\n")));
        match (&notes, protected) {
            (Some(_), _) if files => return refuse("only backups can have notes"),
            (None, Some(_)) if files => return refuse("only backups support attribute 'protected'"),
            (Some(_), _) | (None, Some(_)) => {
                let kind = state.storages.get(&key.storage).map_or("", |storage| storage.kind.as_str());
                let name = if notes.is_some() { "notes" } else { "protected" };
                return refuse(&format!("attribute '{name}' is not supported for storage type '{kind}'"));
            }
            (None, None) => {}
        }
    }
    if notes.is_none() && protected.is_none() {
        return Ok(().into());
    }
    if protected == Some(true) {
        state.check_protected(&call.caller, &call.node(), &key)?;
    }
    drop(state);
    call.world.describe_backup(&key, notes.as_deref(), protected)?;
    Ok(().into())
}

/// `POST N/storage/{storage}/content`
pub(in crate::pve) fn allocate(call: &Call) -> Result {
    let (node, id, vmid) = (call.node(), call.text("storage"), call.vmid());
    // Whoever gives no name gets one.
    let filename = Some(call.text("filename")).filter(|name| !matches!(*name, "" | "0"));
    let size = call.text("size");
    let bytes = if size.ends_with(|c: char| c.is_ascii_digit()) {
        size.parse::<u64>().ok().and_then(|kib| kib.checked_mul(1024))
    } else {
        crate::world::property::parse_size(size)
    };
    let bytes = bytes.ok_or_else(|| Refusal::param("size", "value does not match the regex pattern"))?;
    let extension = filename.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    let by_name = extension.filter(|extension| ["raw", "qcow2", "vmdk"].contains(extension));
    if let (Some(by_name), Some(given)) = (by_name, call.params.text("format"))
        && by_name != given
    {
        return Err(Refusal::param("format", format!("different storage formats ({given} != {by_name})")));
    }
    let (files, default) = {
        let state = call.world.state();
        let storage = state.storage_on(id, &node)?;
        (storage.family() == Family::Files, storage.formats()[0].to_owned())
    };
    let format = by_name.or(call.params.text("format")).unwrap_or(&default).to_owned();
    if !files && format != "raw" {
        return Err(Refusal::failed(format!("unsupported format '{format}'\n")));
    }
    if let Some(filename) = filename {
        let wrong = if files { wrong_file(filename, &format) } else { wrong_block(filename, vmid) };
        if let Some(text) = wrong {
            return Err(Refusal::failed(format!("{text}\n")));
        }
    }
    if format == "subvol" && bytes != 0 {
        return Err(Refusal::failed("storage does not support subvol quotas\n"));
    }
    let name = filename.map(|name| if files { format!("{vmid}/{name}") } else { name.to_owned() });
    let key = call.world.allocate(&Place { node: &node, storage: id, vmid }, &format, bytes, name.as_deref())?;
    Ok(key.volid().into())
}

/// What is wrong with the name of a file that is to be a volume.
fn wrong_file(name: &str, format: &str) -> Option<String> {
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    match extension.filter(|extension| ["raw", "qcow2", "vmdk", "subvol"].contains(extension)) {
        Some(known) if !name.contains('/') && !name.contains(char::is_whitespace) && !name.starts_with('.') => (known
            != format)
            .then(|| format!("illegal name '{name}' - wrong extension for format ('{known} != '{format}')")),
        _ => Some(format!("unable to parse volume filename '{name}'")),
    }
}

/// What is wrong with the name of a volume that is no file.
fn wrong_block(name: &str, vmid: u32) -> Option<String> {
    (!name.starts_with(&format!("vm-{vmid}-"))).then(|| format!("illegal name '{name}' - should be 'vm-{vmid}-*'"))
}

/// `DELETE N/storage/{storage}/content/{volume}`
pub(in crate::pve) fn free(call: Call) -> Later {
    Box::pin(async move {
        let node = call.node();
        let (key, parsed) = {
            let state = call.world.state();
            let (key, parsed) = named(&call, &state)?;
            let path = format!("/storage/{}", key.storage);
            match parsed.vmid.filter(|_| parsed.content == "backup") {
                Some(owner) => {
                    state.check(&call.caller, &path, &["Datastore.AllocateSpace"])?;
                    state.check(&call.caller, &format!("/vms/{owner}"), &["VM.Backup"])?;
                }
                None => state.check(&call.caller, &path, &["Datastore.Allocate"])?,
            }
            (key, parsed)
        };
        call.world.tell(&call.caller, "free-volume", parsed.vmid, Some(&key.volid()));
        let id = match parsed.vmid {
            Some(vmid) => format!("{vmid}@{}", key.storage),
            None => key.storage.clone(),
        };
        let at = node.clone();
        let work = |work: Work| async move { free_work(&work, &at, &key) };
        let upid = call.world.start_task(&call.caller, &node, "imgdel", &id, work);
        let Some(delay) = call.params.number::<u64>("delay") else { return Ok(upid.into()) };
        match call.world.task_end(&upid, std::time::Duration::from_secs(delay)).await {
            Some(status) if status == "OK" => Ok(().into()),
            Some(status) => Err(Refusal::failed(status)),
            None => Ok(upid.into()),
        }
    })
}

fn free_work(work: &Work, node: &str, key: &VolumeKey) -> Rule<()> {
    let (there, shown, files) = {
        let state = work.world().state();
        state.storage_on(&key.storage, node)?;
        if state.volumes.get(key).is_some_and(|volume| volume.protected) {
            let text = format!("cannot remove protected volume '{}' on '{}'\n", key.name, key.storage);
            return Err(Refusal::failed(text));
        }
        let files = state.storages.get(&key.storage).is_some_and(|storage| storage.family() == Family::Files);
        (state.volumes.contains_key(key), state.path_of(key), files)
    };
    let volume = work.world().state().volumes.get(key).cloned();
    if volume.is_some_and(|volume| volume.content == "backup") {
        work.world().remove_backup(key)?;
    } else {
        work.world().free(key)?;
    }
    if !there && files {
        work.log(format!("disk image '{shown}' does not exist"));
    }
    if there && !files {
        work.log(format!("  Logical volume \"{}\" successfully removed.", key.file_name()));
    }
    work.log(format!("Removed volume '{}'", key.volid()));
    Ok(())
}
