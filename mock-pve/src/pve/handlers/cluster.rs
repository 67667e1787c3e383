//! `/`, `/version`, `/cluster/…`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::views;
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::Refusal;

const REPOSITORY: &str = "2606ac850c3d9f61";

fn index(key: &str, names: &[&str]) -> Value {
    Value::Array(names.iter().map(|name| json!({key: name})).collect())
}

/// `GET /`
pub(in crate::pve) fn root(_: &Call) -> Result {
    Ok(index("subdir", &["version", "cluster", "nodes", "storage", "access", "pools"]).into())
}

/// `GET /cluster`
pub(in crate::pve) fn cluster_index(_: &Call) -> Result {
    let names = [
        "acme",
        "backup",
        "backup-info",
        "ceph",
        "config",
        "firewall",
        "ha",
        "jobs",
        "log",
        "mapping",
        "metrics",
        "notifications",
        "nextid",
        "options",
        "replication",
        "resources",
        "status",
        "tasks",
        "sdn",
    ];
    Ok(index("name", &names).into())
}

/// The version that is played.
pub(super) fn version_of(state: &State) -> Value {
    json!({"version": state.version, "release": state.release, "repoid": REPOSITORY})
}

/// `GET /version`, `GET N/version`
pub(in crate::pve) fn version(call: &Call) -> Result {
    Ok(version_of(&call.world.state()).into())
}

/// What `pveversion` prints.
pub(in crate::pve) fn manager_version(state: &State) -> String {
    format!("pve-manager/{}/{REPOSITORY}", state.version)
}

/// `GET /cluster/resources`
pub(in crate::pve) fn resources(call: &Call) -> Result {
    let state = call.world.state();
    let kind = call.params.text("type");
    let wants = |name: &str| kind.is_none_or(|kind| kind == name);
    let mut list = Vec::new();
    if kind.is_none() {
        for id in state.pools.keys() {
            if state.may(&call.caller, &format!("/pool/{id}"), &["Pool.Audit"]) {
                list.push(json!({"id": format!("/pool/{id}"), "type": "pool", "pool": id}));
            }
        }
    }
    if wants("vm") {
        for (vmid, vm) in &state.vms {
            if state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]) {
                list.push(Value::Object(views::resource(&state, *vmid, vm)));
            }
        }
    }
    if wants("node") {
        for (name, node) in &state.nodes {
            let mut entry = json!({
                "id": format!("node/{name}"), "type": "node", "node": name, "level": "",
                "status": views::node_status(&state, name), "cgroup-mode": 1,
            });
            if state.is_online(name) && state.may(&call.caller, &format!("/nodes/{name}"), &["Sys.Audit"]) {
                entry["maxcpu"] = json!(node.cpus);
                entry["cpu"] = json!(0.05);
                entry["maxmem"] = json!(node.memory);
                entry["mem"] = json!(views::node_memory(&state, name));
                entry["maxdisk"] = json!(100_u64 << 30);
                entry["disk"] = json!(8_u64 << 30);
                entry["uptime"] = json!(views::node_uptime(&call.world));
            }
            list.push(entry);
        }
    }
    if wants("storage") {
        for (id, storage) in &state.storages {
            if !views::sees_storage(&state, &call.caller, id) {
                continue;
            }
            for node in state.nodes.keys().filter(|node| storage.on_node(node)) {
                list.extend(views::storage_resource(&call.world, &state, node, id));
            }
        }
    }
    if wants("sdn") {
        for zone in &call.world.seed().sdn_zones {
            if let Some(zone) = zone.get("zone").and_then(Value::as_str) {
                for node in state.nodes.keys() {
                    if state.may_any(&call.caller, &format!("/sdn/zones/{zone}"), &["SDN.Audit"]) {
                        list.push(json!({
                            "id": format!("sdn/{node}/{zone}"), "type": "sdn", "sdn": zone, "node": node, "status": "ok",
                        }));
                    }
                }
            }
        }
    }
    Ok(list.into())
}

/// `GET /cluster/status`
pub(in crate::pve) fn status(call: &Call) -> Result {
    let state = call.world.state();
    let mut list = Vec::new();
    if let Some(name) = &state.cluster_name {
        list.push(json!({
            "type": "cluster", "id": "cluster", "name": name, "nodes": state.nodes.len(),
            "quorate": u8::from(state.is_quorate()), "version": state.nodes.len(),
        }));
    }
    for (name, node) in &state.nodes {
        list.push(json!({
            "type": "node", "id": format!("node/{name}"), "name": name, "nodeid": node.id, "ip": node.ip,
            "local": u8::from(*name == call.local), "online": u8::from(state.is_online(name)), "level": "",
        }));
    }
    Ok(list.into())
}

/// `GET /cluster/nextid`
pub(in crate::pve) fn next_id(call: &Call) -> Result {
    let state = call.world.state();
    if let Some(vmid) = call.params.number::<u32>("vmid") {
        if state.vms.contains_key(&vmid) {
            return Err(Refusal::param("vmid", format!("VM {vmid} already exists")));
        }
        return Ok(vmid.to_string().into());
    }
    let bound = |key: &str, default: u32| {
        let range = state.options.get("next-id");
        let from_map = range.and_then(|range| range.get(key)).cloned();
        let from_text = range
            .and_then(Value::as_str)
            .and_then(|text| text.split(',').find_map(|part| part.strip_prefix(&format!("{key}="))))
            .map(|text| json!(text));
        from_map
            .or(from_text)
            .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()))
            .and_then(|value| u32::try_from(value).ok())
            .unwrap_or(default)
    };
    let (lower, upper) = (bound("lower", 100), bound("upper", 1_000_000));
    match (lower..upper).find(|vmid| !state.vms.contains_key(vmid)) {
        Some(vmid) => Ok(vmid.to_string().into()),
        None => Err(Refusal::failed(format!("unable to get any free VMID in range [{lower}, {upper}]\n"))),
    }
}

/// `GET /cluster/options`
pub(in crate::pve) fn options(call: &Call) -> Result {
    let state = call.world.state();
    let tags: BTreeSet<&str> = state
        .vms
        .iter()
        .filter(|(vmid, _)| state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]))
        .filter_map(|(_, vm)| vm.config.get("tags"))
        .flat_map(|tags| tags.split([';', ',', ' ']))
        .filter(|tag| !tag.is_empty())
        .collect();
    let mut shown = Map::new();
    if state.may(&call.caller, "/", &["Sys.Audit"]) {
        shown.clone_from(&state.options);
        shown.entry("description".to_owned()).or_insert(json!(""));
    } else {
        for key in ["tag-style", "registered-tags", "user-tag-access"] {
            if let Some(value) = state.options.get(key) {
                shown.insert(key.to_owned(), value.clone());
            }
        }
    }
    shown.insert("allowed-tags".to_owned(), json!(tags));
    Ok(shown.into())
}

/// `PUT /cluster/options`
pub(in crate::pve) fn set_options(call: &Call) -> Result {
    let mut state = call.world.state();
    for key in call.params.list("delete") {
        state.options.remove(&key);
    }
    let keys: Vec<String> = call.params.0.keys().filter(|key| *key != "delete").cloned().collect();
    for key in keys {
        let value = json!(call.text(&key));
        state.options.insert(key, value);
    }
    Ok(().into())
}

/// `GET /cluster/tasks`
pub(in crate::pve) fn tasks(call: &Call) -> Result {
    let state = call.world.state();
    let mut tasks: Vec<_> =
        state.tasks.by_upid.values().filter(|task| super::tasks::sees(&state, &call.caller, task)).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.order));
    let list: Vec<Value> = tasks
        .into_iter()
        .take(25 * state.nodes.len().max(1))
        .map(|task| {
            let mut entry = super::tasks::entry(task);
            entry.remove("pid");
            entry.remove("pstart");
            entry.insert("saved".to_owned(), json!(if task.status.is_some() { "1" } else { "0" }));
            Value::Object(entry)
        })
        .collect();
    Ok(list.into())
}
