//! `N/vzdump`, `N/storage/{storage}/prunebackups`: backups, and what becomes of older ones.

use std::pin::Pin;

use serde_json::{Map, Value, json};

use super::backup::may_set;
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::backups::job::{Elsewhere, Guests, Job, Mode, Packing, Target};
use crate::world::backups::notes;
use crate::world::backups::prune::{Choice, Prunable};
use crate::world::backups::retention::Keep;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::VolumeKey;
use crate::world::volume::parse_name;
use crate::world::work::Work;

type Later = Pin<Box<dyn Future<Output = Result> + Send>>;

/// The storage that archives go to, unless they go to a folder.
fn storage(call: &Call) -> Option<&str> {
    let folder = call.params.text("dumpdir").is_some_and(|folder| !folder.is_empty());
    (!folder).then(|| call.params.text("storage").unwrap_or("local"))
}

fn is_set(call: &Call, key: &str) -> bool {
    !matches!(call.params.text(key), None | Some("" | "0"))
}

/// Rights that others than root need for what they ask.
fn check_rights(call: &Call, state: &State) -> Rule<()> {
    may_set(call, state)?;
    if call.caller.is_root() {
        return Ok(());
    }
    let fleecing = call.params.text("fleecing").map(|text| Properties::parse(text, "enabled"));
    if let Some(storage) = fleecing.as_ref().and_then(|fleecing| fleecing.get("storage")) {
        state.check(&call.caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    let retention = ["maxfiles", "prune-backups"].iter().any(|key| call.params.text(key).is_some());
    match storage(call).filter(|_| retention) {
        Some(storage) => state.check(&call.caller, &format!("/storage/{storage}"), &["Datastore.Allocate"]),
        None => Ok(()),
    }
}

fn check_params(call: &Call) -> Rule<()> {
    for key in ["all", "exclude", "pool"] {
        if is_set(call, key) && is_set(call, "vmid") {
            return Err(Refusal::param(key, "option conflicts with option 'vmid'"));
        }
    }
    if call.params.text("prune-backups").is_some() && call.params.text("maxfiles").is_some() {
        return Err(Refusal::param("prune-backups", "option conflicts with option 'maxfiles'"));
    }
    if let Some(Err(text)) = call.params.text("notes-template").map(notes::check) {
        return Err(Refusal::param("notes-template", text));
    }
    let all = is_set(call, "all") || (call.params.text("exclude").is_some() && !is_set(call, "pool"));
    if !all && !["stop", "pool", "vmid"].iter().any(|key| is_set(call, key)) {
        return Err(Refusal::param("vmid", "property is missing"));
    }
    Ok(())
}

fn numbers(call: &Call, key: &str) -> Vec<u32> {
    call.params.list(key).iter().filter_map(|text| text.parse().ok()).filter(|vmid| *vmid != 0).collect()
}

fn guests(call: &Call) -> Guests {
    if is_set(call, "pool") {
        Guests::Pool(call.text("pool").to_owned())
    } else if is_set(call, "vmid") {
        Guests::Listed(numbers(call, "vmid"))
    } else if is_set(call, "all") || call.params.text("exclude").is_some() {
        Guests::AllBut(numbers(call, "exclude"))
    } else {
        Guests::Nobody
    }
}

/// A word as a shell takes it.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.,/:=+@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\"'\"'"))
    }
}

/// The command that would have done the same.
fn command(call: &Call) -> String {
    const HIDDEN: &[&str] = &["id", "vmid", "starttime", "dow", "stdout", "enabled", "job-id"];
    let mut command = "vzdump".to_owned();
    for vmid in call.params.list("vmid") {
        command.push(' ');
        command.push_str(&vmid);
    }
    for key in call.params.0.keys().filter(|key| !HIDDEN.contains(&key.as_str())) {
        let value = if key == "exclude-path" { call.params.list(key) } else { vec![call.text(key).to_owned()] };
        for value in value.iter().filter(|value| !value.is_empty()) {
            command.push_str(" --");
            command.push_str(key);
            command.push(' ');
            command.push_str(&quoted(value));
        }
    }
    command
}

fn minutes(call: &Call, key: &str, default: u32) -> f64 {
    f64::from(call.params.number::<u32>(key).unwrap_or(default))
}

fn keep(call: &Call) -> Option<Keep> {
    let by_count = || call.params.number("maxfiles").map(Keep::of_count);
    call.params.text("prune-backups").map(Keep::parse).or_else(by_count)
}

/// How archives are packed, and the command for it (pve-manager, PVE/VZDump.pm, `compressor_info`).
fn packing(call: &Call) -> (Packing, String) {
    let half_of_all = || {
        let cpus = call.world.state().nodes.get(&call.node()).map_or(1, |node| node.cpus);
        cpus.div_ceil(2)
    };
    match call.params.text("compress") {
        None | Some("0") => (Packing::Plain, "cat".to_owned()),
        Some("gzip") => {
            let command = match call.params.number::<u32>("pigz") {
                None | Some(0) => "gzip --rsyncable".to_owned(),
                Some(1) => format!("pigz -p {} --rsyncable", half_of_all()),
                Some(threads) => format!("pigz -p {threads} --rsyncable"),
            };
            (Packing::Gzip, command)
        }
        Some("zstd") => {
            let threads = match call.params.number::<u32>("zstd").unwrap_or(1) {
                0 => half_of_all(),
                threads => threads,
            };
            (Packing::Zstd, format!("zstd --threads={threads}"))
        }
        Some(_) => (Packing::Lzop, "lzop".to_owned()),
    }
}

/// `POST N/vzdump`
pub(in crate::pve) fn create(call: Call) -> Later {
    Box::pin(async move {
        if is_set(&call, "stdout") {
            return Err(Refusal::param("stdout", "option is only allowed on the command line interface."));
        }
        check_rights(&call, &call.world.state())?;
        check_params(&call)?;
        let (packing, packer) = packing(&call);
        let job = Job {
            node: call.node(),
            guests: guests(&call),
            elsewhere: if is_set(&call, "job-id") { Elsewhere::Told } else { Elsewhere::Silent },
            mode: match call.params.text("mode") {
                Some("stop") => Mode::Stop,
                Some("suspend") => Mode::Suspend,
                _ => Mode::Snapshot,
            },
            target: match storage(&call).map(str::to_owned) {
                storage if ["storage", "dumpdir"].iter().all(|key| call.params.0.contains_key(*key)) => {
                    Target::Both(storage)
                }
                Some(storage) => Target::Storage(storage),
                None => Target::Folder(call.text("dumpdir").to_owned()),
            },
            packing,
            packer,
            notes: call.params.owned("notes-template"),
            protected: call.params.is_on("protected"),
            keep: keep(&call),
            remove: call.params.text("remove") != Some("0"),
            stop: call.params.is_on("stop"),
            command: command(&call),
            bwlimit: call.params.number("bwlimit"),
            ionice: call.params.number("ionice").unwrap_or(7),
            stopwait: minutes(&call, "stopwait", 10),
            lockwait: minutes(&call, "lockwait", 180),
            tmpdir: call.params.owned("tmpdir").filter(|path| !path.is_empty()),
            script: call.params.owned("script").filter(|path| !path.is_empty()),
        };
        let world = call.world.clone();
        Ok(world.back_up(&call.caller, job).await?.into())
    })
}

/// `GET N/vzdump/defaults`
pub(in crate::pve) fn defaults(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.params.text("storage").unwrap_or("local");
    let rights = ["Datastore.Audit", "Datastore.AllocateSpace"];
    state.check_any(&call.caller, &format!("/storage/{id}"), &rights)?;
    let missing = || Refusal::failed(format!("storage '{id}' does not exist\n"));
    let storage = state.storages.get(id).ok_or_else(missing)?;
    if !storage.holds("backup") {
        let text = format!("can't use storage '{id}' for backups - wrong content type\n");
        return Err(Refusal::failed(text));
    }
    let mut shown = Map::new();
    for (key, value) in [
        ("all", json!(0)),
        ("bwlimit", json!(0)),
        ("compress", json!("0")),
        ("fleecing", json!({"enabled": 0})),
        ("ionice", json!(7)),
        ("lockwait", json!(180)),
        ("mailnotification", json!("always")),
        ("mode", json!("snapshot")),
        ("notification-mode", json!("auto")),
        ("performance", json!({"max-workers": 16, "pbs-entries-max": 1_048_576})),
        ("pigz", json!(0)),
        ("prune-backups", json!(storage.option("prune-backups").unwrap_or("keep-all=1"))),
        ("quiet", json!(0)),
        ("remove", json!(1)),
        ("stdexcludes", json!(1)),
        ("stop", json!(0)),
        ("stopwait", json!(10)),
        ("storage", json!(id)),
        ("zstd", json!(1)),
    ] {
        shown.insert(key.to_owned(), value);
    }
    let key = state.key_on(&call.node(), id, "backup/vzdump-qemu-100.vma");
    let path = state.path_of(&key);
    if let Some((folder, _)) = path.rsplit_once('/') {
        shown.insert("dumpdir".to_owned(), json!(folder));
    }
    if !state.may(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Audit"]) {
        shown.remove("dumpdir");
        shown.remove("ionice");
    }
    Ok(shown.into())
}

/// `GET N/vzdump/extractconfig`
pub(in crate::pve) fn extract(call: &Call) -> Result {
    let volume = call.text("volume");
    {
        let state = call.world.state();
        state.check_archive(&call.caller, None, volume)?;
        let owner = VolumeKey::split(volume).and_then(|(storage, name)| {
            parse_name(state.storages.get(storage)?, name).ok().and_then(|named| named.vmid)
        });
        if let Some(owner) = owner {
            state.check(&call.caller, &format!("/vms/{owner}"), &["VM.Backup"])?;
        }
    }
    Ok(call.world.archived_config(&call.node(), volume)?.into())
}

fn choice(call: &Call) -> Choice {
    Choice { vmid: call.params.number("vmid"), kind: call.params.owned("type") }
}

fn shown(backup: &Prunable) -> Value {
    let mut entry = json!({
        "volid": backup.key.volid(), "ctime": backup.ctime, "mark": backup.mark.name(), "type": backup.kind,
    });
    if let Some(vmid) = backup.vmid {
        entry["vmid"] = json!(vmid);
    }
    entry
}

/// `GET N/storage/{storage}/prunebackups`: what would go.
pub(in crate::pve) fn prunable(call: &Call) -> Result {
    let keep = call.params.text("prune-backups").map(Keep::parse);
    let state = call.world.state();
    let list = state.prunable(&call.node(), call.text("storage"), keep.as_ref(), &choice(call))?;
    Ok(list.iter().map(shown).collect::<Vec<_>>().into())
}

/// `DELETE N/storage/{storage}/prunebackups`
pub(in crate::pve) fn prune(call: &Call) -> Result {
    let (node, id, choice) = (call.node(), call.text("storage").to_owned(), choice(call));
    let path = format!("/storage/{id}");
    {
        let state = call.world.state();
        match choice.vmid {
            Some(vmid) => {
                state.check(&call.caller, &path, &["Datastore.AllocateSpace"])?;
                state.check(&call.caller, &format!("/vms/{vmid}"), &["VM.Backup"])?;
            }
            None => state.check(&call.caller, &path, &["Datastore.Allocate"])?,
        }
    }
    let keep = call.params.text("prune-backups").map(Keep::parse);
    call.world.tell(&call.caller, "prune", choice.vmid, Some(&id));
    let task = choice.vmid.map_or_else(|| id.clone(), |vmid| format!("{vmid}@{id}"));
    let at = node.clone();
    let upid = call.world.start_task(&call.caller, &node, "prunebackups", &task, |work: Work| async move {
        let world = work.world().clone();
        world.prune(&at, &id, keep.as_ref(), &choice, |line| work.log(line)).map(|_| ())
    });
    Ok(upid.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_need_it() {
        assert_eq!(
            (quoted("local"), quoted("{{vmid}}"), quoted("it's")),
            ("local".into(), "'{{vmid}}'".into(), "'it'\"'\"'s'".into())
        );
    }
}
