//! `N/qemu`: lists, creation, cloning, disks, snapshots.

use serde_json::{Value, json};

use super::PATH_KEYS;
use super::views::{self, Detail};
use crate::pve::call::{Call, Result};
use crate::world::backups::restore::{Identity, NewRestore};
use crate::world::clone::NewClone;
use crate::world::config::digest;
use crate::world::create::NewVm;
use crate::world::destroy::Destroy;
use crate::world::disks::drive_keys;
use crate::world::feature::Feature;
use crate::world::lifecycle::{Lock, not_found};
use crate::world::refusal::Refusal;
use crate::world::reshape::{Move, Reassign, Resize};
use crate::world::rollback::Then;
use crate::world::snapshot::NewSnapshot;

/// `GET N/qemu`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let detail = if call.params.is_on("full") { Detail::Full } else { Detail::Brief };
    let list = state
        .vms
        .iter()
        .filter(|(vmid, vm)| vm.node == node && state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]))
        .map(|(vmid, vm)| Value::Object(views::vm(&call.world, &state, *vmid, vm, detail)));
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET Q`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = [
        "config",
        "cloudinit",
        "pending",
        "status",
        "unlink",
        "vncproxy",
        "termproxy",
        "migrate",
        "resize",
        "move",
        "rrd",
        "rrddata",
        "monitor",
        "agent",
        "snapshot",
        "spiceproxy",
        "sendkey",
        "firewall",
        "mtunnel",
        "remote_migrate",
    ];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Vec<_>>().into())
}

/// What the old name of a drive stands for.
pub(super) fn cdrom(value: &str) -> String {
    if value.contains("media=") { value.to_owned() } else { format!("{value},media=cdrom") }
}

/// `POST N/qemu`
pub(in crate::pve) fn create(call: &Call) -> Result {
    const OTHER: &[&str] = &[
        "pool",
        "storage",
        "start",
        "bwlimit",
        "archive",
        "force",
        "unique",
        "live-restore",
        "import-working-storage",
        "ha-managed",
        "skiplock",
    ];
    if let Some(keys) = call.params.text("sshkeys") {
        super::config::check_ssh_keys(keys)?;
    }
    let set = call
        .params
        .0
        .keys()
        .filter(|key| !PATH_KEYS.contains(&key.as_str()) && !OTHER.contains(&key.as_str()))
        .map(|key| match key.as_str() {
            "cdrom" => ("ide2".to_owned(), cdrom(call.text(key))),
            _ => (key.clone(), call.text(key).to_owned()),
        })
        .collect();
    if let Some(archive) = call.params.owned("archive").filter(|text| !text.is_empty()) {
        let new = NewRestore {
            node: call.node(),
            vmid: call.vmid(),
            archive,
            set,
            storage: call.params.owned("storage"),
            pool: call.params.owned("pool"),
            force: call.params.is_on("force"),
            identity: if call.params.is_on("unique") { Identity::Unique } else { Identity::Same },
            live: call.params.is_on("live-restore"),
            start: call.params.is_on("start"),
        };
        return Ok(call.world.restore_vm(&call.caller, new)?.into());
    }
    let new = NewVm {
        node: call.node(),
        vmid: call.vmid(),
        set,
        pool: call.params.owned("pool"),
        storage: call.params.owned("storage"),
        start: call.params.is_on("start"),
        ha_managed: call.params.is_on("ha-managed"),
    };
    Ok(call.world.create_vm(&call.caller, new)?.into())
}

/// `DELETE Q`
pub(in crate::pve) fn destroy(call: &Call) -> Result {
    call.root_only(&["skiplock"])?;
    let how = Destroy {
        purge: call.params.is_on("purge"),
        unreferenced: call.params.is_on("destroy-unreferenced-disks"),
        skip_lock: call.params.is_on("skiplock"),
    };
    Ok(call.world.destroy_vm(&call.caller, &call.node(), call.vmid(), how)?.into())
}

/// `POST Q/clone`
pub(in crate::pve) fn clone(call: &Call) -> Result {
    let new = NewClone {
        node: call.node(),
        vmid: call.vmid(),
        newid: call.params.number("newid").unwrap_or_default(),
        name: call.params.owned("name"),
        description: call.params.owned("description"),
        pool: call.params.owned("pool"),
        full: call.params.text("full").map(|full| full == "1"),
        storage: call.params.owned("storage"),
        format: call.params.owned("format"),
        snapname: call.params.owned("snapname"),
        target: call.params.owned("target"),
    };
    Ok(call.world.clone_vm(&call.caller, new)?.into())
}

/// `POST Q/template`
pub(in crate::pve) fn template(call: &Call) -> Result {
    Ok(call.world.make_template(&call.caller, &call.node(), call.vmid(), call.params.owned("disk"))?.into())
}

/// `PUT Q/resize`
pub(in crate::pve) fn resize(call: &Call) -> Result {
    call.root_only(&["skiplock"])?;
    let ask = Resize {
        disk: call.text("disk").to_owned(),
        size: call.text("size").to_owned(),
        digest: call.params.owned("digest"),
        lock: if call.params.is_on("skiplock") { Lock::Ignore } else { Lock::Respect },
    };
    Ok(call.world.resize_disk(&call.caller, &call.node(), call.vmid(), ask).into())
}

/// `POST Q/move_disk`
pub(in crate::pve) fn move_disk(call: &Call) -> Result {
    let (storage, target) = (call.params.owned("storage"), call.params.number::<u32>("target-vmid"));
    let both = |text: &str| {
        Refusal::Params([("storage", text), ("target-vmid", text)].map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    };
    match (storage, target) {
        (Some(_), Some(_)) => Err(both("either set 'storage' or 'target-vmid', but not both")),
        (None, None) => Err(both("both 'storage' and 'target-vmid' missing, either needs to be set")),
        (Some(storage), None) => {
            let ask = Move {
                disk: call.text("disk").to_owned(),
                storage,
                format: call.params.owned("format"),
                delete: call.params.is_on("delete"),
                digest: call.params.owned("digest"),
            };
            Ok(call.world.move_disk(&call.caller, &call.node(), call.vmid(), ask)?.into())
        }
        (None, Some(target)) => {
            let ask = Reassign {
                disk: call.text("disk").to_owned(),
                target,
                target_disk: call.params.owned("target-disk"),
                digest: call.params.owned("digest"),
                target_digest: call.params.owned("target-digest"),
            };
            Ok(call.world.reassign_disk(&call.caller, &call.node(), call.vmid(), ask)?.into())
        }
    }
}

/// `GET Q/feature`
pub(in crate::pve) fn feature(call: &Call) -> Result {
    let node = call.node();
    let (config, nodes) = {
        let state = call.world.state();
        let vm = state.vm(&node, call.vmid()).map_err(|_| not_found(&node, call.vmid()))?;
        let config = match call.params.text("snapname") {
            Some(name) => vm
                .snapshots
                .get(name)
                .cloned()
                .ok_or_else(|| Refusal::failed(format!("snapshot '{name}' does not exist\n")))?,
            None => vm.config.clone(),
        };
        let storages: Vec<_> = drive_keys(&config)
            .iter()
            .filter_map(|key| crate::world::config::volid(&config[key]))
            .filter_map(|volid| state.storages.get(volid.split(':').next().unwrap_or_default()).cloned())
            .collect();
        let nodes: Vec<String> = state
            .nodes
            .keys()
            .filter(|name| **name == node || storages.iter().all(|storage| storage.shared() && storage.on_node(name)))
            .cloned()
            .collect();
        (config, nodes)
    };
    let has = match Feature::named(call.text("feature")) {
        Some(feature) => call.world.state().config_has(feature, &config, call.params.text("snapname"))?,
        None => true,
    };
    Ok(json!({"hasFeature": u8::from(has), "nodes": nodes}).into())
}

/// `GET Q/snapshot`
pub(in crate::pve) fn snapshots(call: &Call) -> Result {
    let state = call.world.state();
    let vm = state.vm(&call.node(), call.vmid())?;
    let mut list: Vec<Value> = vm
        .snapshots
        .iter()
        .map(|(name, config)| {
            let time = config.get("snaptime").and_then(|time| time.parse::<u64>().ok());
            let mut entry = json!({
                "name": name, "vmstate": u8::from(config.contains_key("vmstate")),
                "description": config.get("description").cloned().unwrap_or_default(),
                "snaptime": time.unwrap_or_default(),
            });
            for key in ["parent", "snapstate"] {
                if let Some(value) = config.get(key) {
                    entry[key] = json!(value);
                }
            }
            entry
        })
        .collect();
    let mut current = json!({
        "name": "current", "description": "You are here!", "digest": digest(vm),
        "running": u8::from(vm.running.is_some()),
    });
    if let Some(parent) = vm.config.get("parent") {
        current["parent"] = json!(parent);
    }
    list.push(current);
    Ok(list.into())
}

/// `POST Q/snapshot`
pub(in crate::pve) fn snapshot(call: &Call) -> Result {
    let new = NewSnapshot {
        name: call.text("snapname").to_owned(),
        description: call.params.owned("description"),
        memory: call.params.is_on("vmstate"),
    };
    Ok(call.world.snapshot(&call.caller, &call.node(), call.vmid(), new)?.into())
}

/// `GET Q/snapshot/{snapname}`
pub(in crate::pve) fn snapshot_index(_: &Call) -> Result {
    Ok(vec![json!({"cmd": "rollback"}), json!({"cmd": "config"})].into())
}

fn no_snapshot(name: &str) -> Refusal {
    Refusal::failed(format!("snapshot '{name}' does not exist\n"))
}

/// `GET Q/snapshot/{snapname}/config`
pub(in crate::pve) fn snapshot_config(call: &Call) -> Result {
    let state = call.world.state();
    let name = call.text("snapname");
    let vm = state.vm(&call.node(), call.vmid())?;
    let config = vm.snapshots.get(name).ok_or_else(|| no_snapshot(name))?;
    let mut shown = views::config(vm, config);
    shown.remove("digest");
    Ok(shown.into())
}

/// `PUT Q/snapshot/{snapname}/config`
pub(in crate::pve) fn describe_snapshot(call: &Call) -> Result {
    // Whoever says nothing isn't listened to.
    let Some(text) = call.params.text("description") else { return Ok(().into()) };
    let mut state = call.world.state();
    let name = call.text("snapname");
    let vm = state.vm_mut(&call.node(), call.vmid())?;
    crate::world::update::check_lock(&vm.config)?;
    let config = vm.snapshots.get_mut(name).ok_or_else(|| no_snapshot(name))?;
    config.remove("description");
    if let Some(text) = crate::world::keys::stored("description", text)? {
        config.insert("description".to_owned(), text);
    }
    Ok(().into())
}

/// `POST Q/snapshot/{snapname}/rollback`
pub(in crate::pve) fn rollback(call: &Call) -> Result {
    let then = if call.params.is_on("start") { Then::Start } else { Then::Stay };
    Ok(call.world.rollback(&call.caller, &call.node(), call.vmid(), call.text("snapname"), then)?.into())
}

/// `DELETE Q/snapshot/{snapname}`
pub(in crate::pve) fn delete_snapshot(call: &Call) -> Result {
    Ok(call.world.delete_snapshot(&call.caller, &call.node(), call.vmid(), call.text("snapname"))?.into())
}
