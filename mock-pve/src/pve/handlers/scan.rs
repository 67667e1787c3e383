//! `N/scan/…`: what a node finds that could become a storage.
//!
//! What the world's own storages stand on is there; any other server doesn't answer (Proxmox VE 8.4,
//! PVE/API2/Storage/Scan.pm, PVE/Storage.pm).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::Refusal;
use crate::world::state::Storage;

/// `GET N/scan`
pub(in crate::pve) fn index(call: &Call) -> Result {
    let mut names = vec!["cifs", "iscsi", "lvm", "nfs", "pbs", "zfs"];
    if call.world.state().pve == crate::world::PveVersion::V8 {
        names.insert(1, "glusterfs");
    }
    Ok(names.iter().map(|name| json!({"method": name})).collect::<Vec<_>>().into())
}

fn of<'a>(state: &'a State, node: &'a str, kinds: &'a [&'a str]) -> impl Iterator<Item = (&'a String, &'a Storage)> {
    state.storages.iter().filter(move |(_, storage)| kinds.contains(&storage.kind.as_str()) && storage.on_node(node))
}

/// What storages on a server say of it under a key.
fn on_server(state: &State, server: &str, kinds: &[&str], key: &str) -> Vec<String> {
    let mut found: Vec<String> = state
        .storages
        .values()
        .filter(|storage| kinds.contains(&storage.kind.as_str()) && storage.option("server") == Some(server))
        .filter_map(|storage| storage.option(key).map(str::to_owned))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// `GET N/scan/nfs`
pub(in crate::pve) fn nfs(call: &Call) -> Result {
    let server = call.text("server");
    let exports = on_server(&call.world.state(), server, &["nfs"], "export");
    if exports.is_empty() {
        let command = format!("/sbin/showmount --no-headers --exports {server}");
        return Err(Refusal::failed(format!("command '{command}' failed: exit code 1\n")));
    }
    Ok(exports.iter().map(|path| json!({"path": path, "options": "*"})).collect::<Vec<_>>().into())
}

/// `GET N/scan/glusterfs`
pub(in crate::pve) fn gluster(call: &Call) -> Result {
    let server = call.text("server");
    let volumes = on_server(&call.world.state(), server, &["glusterfs"], "volume");
    if volumes.is_empty() {
        let command = format!("/sbin/showmount --no-headers --exports {server}");
        return Err(Refusal::failed(format!("command '{command}' failed: exit code 1\n")));
    }
    Ok(volumes.iter().map(|name| json!({"volname": name})).collect::<Vec<_>>().into())
}

/// `GET N/scan/cifs`
pub(in crate::pve) fn cifs(call: &Call) -> Result {
    let server = call.text("server");
    let shares = on_server(&call.world.state(), server, &["cifs"], "share");
    if shares.is_empty() {
        let text = format!("do_connect: Connection to {server} failed (Error NT_STATUS_CONNECTION_REFUSED)\n");
        return Err(Refusal::failed(text));
    }
    Ok(shares.iter().map(|name| json!({"share": name, "description": ""})).collect::<Vec<_>>().into())
}

/// `GET N/scan/pbs`
pub(in crate::pve) fn pbs(call: &Call) -> Result {
    let server = call.text("server");
    let stores = on_server(&call.world.state(), server, &["pbs"], "datastore");
    if stores.is_empty() {
        let port = call.params.number::<u16>("port").unwrap_or(8007);
        return Err(Refusal::failed(format!("Can't connect to {server}:{port} (Connection refused)\n")));
    }
    Ok(stores.iter().map(|name| json!({"store": name, "comment": ""})).collect::<Vec<_>>().into())
}

/// `GET N/scan/iscsi`
pub(in crate::pve) fn iscsi(call: &Call) -> Result {
    let portal = call.text("portal");
    let whole = if portal.contains(':') { portal.to_owned() } else { format!("{portal}:3260") };
    let (node, state) = (call.node(), call.world.state());
    let mut found: BTreeMap<&str, Value> = BTreeMap::new();
    for (_, storage) in of(&state, &node, &["iscsi", "iscsidirect", "zfs"]) {
        let there = storage.option("portal").is_some_and(|known| known == portal || known == whole);
        if let Some(target) = storage.option("target").filter(|_| there) {
            found.insert(target, json!({"target": target, "portal": whole}));
        }
    }
    if found.is_empty() {
        let command = format!("/usr/bin/iscsiadm --mode discovery --type sendtargets --portal {whole}");
        return Err(Refusal::failed(format!("command '{command}' failed: exit code 21\n")));
    }
    Ok(found.into_values().collect::<Vec<_>>().into())
}

/// Size and what is taken of a storage on a node.
fn room(call: &Call, state: &State, id: &str, storage: &Storage) -> (u64, u64) {
    let used = state.used(call.world.dir(), &call.node(), id).min(storage.capacity);
    (storage.capacity, storage.capacity - used)
}

/// `GET N/scan/lvm`
pub(in crate::pve) fn lvm(call: &Call) -> Result {
    let state = call.world.state();
    let mut groups: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let node = call.node();
    for (id, storage) in of(&state, &node, &["lvm", "lvmthin"]) {
        let (size, free) = room(call, &state, id, storage);
        // A pool takes its room from the group whether anything is in it or not.
        let free = if storage.kind == "lvm" { free } else { 0 };
        let group = groups.entry(storage.option("vgname").unwrap_or("pve")).or_default();
        *group = (group.0 + size, group.1 + free);
    }
    let list = groups.into_iter().map(|(vg, (size, free))| json!({"vg": vg, "size": size, "free": free, "lvcount": 1}));
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET N/scan/lvmthin`
pub(in crate::pve) fn lvmthin(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let own = of(&state, &node, &["lvmthin"]).filter(|(_, storage)| storage.option("vgname") == Some(call.text("vg")));
    let list = own.map(|(id, storage)| {
        let (size, free) = room(call, &state, id, storage);
        json!({
            "lv": storage.option("thinpool"), "lv_size": size, "used": size - free, "lv_type": "t", "lv_state": "a",
            "pool_lv": "", "tags": "", "metadata_size": size / 1000, "metadata_used": (size - free) / 1000,
        })
    });
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET N/scan/zfs`
pub(in crate::pve) fn zfs(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let list = of(&state, &node, &["zfspool"]).map(|(id, storage)| {
        let (size, free) = room(call, &state, id, storage);
        json!({"pool": storage.option("pool"), "size": size, "free": free})
    });
    Ok(list.collect::<Vec<_>>().into())
}
