//! `/`, `/version`, `/cluster/…`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::views;
use crate::pve::call::{Call, Result};
use crate::world::refusal::Refusal;
use crate::world::tasks::Task;
use crate::world::{PveVersion, State};

const REPOSITORY: &str = "2606ac850c3d9f61";

fn index(key: &str, names: &[&str]) -> Value {
    Value::Array(names.iter().map(|name| json!({key: name})).collect())
}

/// `GET /`
pub(in crate::pve) fn root(_: &Call) -> Result {
    Ok(index("subdir", &["version", "cluster", "nodes", "storage", "access", "pools"]).into())
}

/// `GET /cluster`
pub(in crate::pve) fn cluster_index(call: &Call) -> Result {
    let mut names = vec![
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
    if call.world.state().pve == PveVersion::V9 {
        names.extend(["bulk-action", "qemu"]);
    }
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
                list.push(pool(&state, id));
            }
        }
    }
    if wants("vm") {
        for (vmid, vm) in &state.vms {
            if !state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]) {
                continue;
            }
            let mut entry = views::resource(&state, *vmid, vm);
            // Whoever may not see a pool doesn't hear what is in it.
            let pool = entry.get("pool").and_then(Value::as_str).map(|pool| format!("/pool/{pool}"));
            if pool.is_some_and(|path| !state.may(&call.caller, &path, &["Pool.Audit"])) {
                entry.remove("pool");
            }
            if entry.contains_key("hastate") {
                entry.insert("hastate".to_owned(), json!(call.world.ha_state(&state, *vmid)));
            }
            list.push(Value::Object(entry));
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
            if !state.ha.is_empty() {
                entry["hastate"] = json!(if state.is_online(name) { "online" } else { "unknown" });
            }
            list.push(entry);
        }
    }
    if wants("storage") {
        for (id, storage) in &state.storages {
            if storage.flag("disable") || !state.may(&call.caller, &format!("/storage/{id}"), &["Datastore.Audit"]) {
                continue;
            }
            for node in state.nodes.keys().filter(|node| storage.on_node(node)) {
                list.extend(views::storage_resource(&call.world, &state, node, id));
            }
        }
    }
    // Release 9 tells of zones as networks, and only those who ask for everything.
    let tells_zones = match state.pve {
        PveVersion::V8 => wants("sdn"),
        PveVersion::V9 => kind.is_none(),
    };
    if tells_zones {
        list.extend(zones(call, &state));
    }
    Ok(list.into())
}

/// A pool, with what its running members take.
fn pool(state: &State, id: &str) -> Value {
    let mut entry = json!({"id": format!("/pool/{id}"), "type": "pool", "pool": id});
    let members = state.pools.get(id).into_iter().flat_map(|pool| &pool.vms);
    let seen = members.filter_map(|vmid| Some(views::resource(state, *vmid, state.vms.get(vmid)?)));
    let sum = |list: &[Map<String, Value>], key: &str| {
        list.iter().filter_map(|vm| vm.get(key).and_then(Value::as_u64)).sum::<u64>()
    };
    let running: Vec<Map<String, Value>> =
        seen.filter(|vm| vm.get("uptime").and_then(Value::as_u64).is_some_and(|uptime| uptime > 0)).collect();
    if !running.is_empty() {
        for key in ["mem", "maxmem", "cpu", "maxcpu"] {
            entry[key] = json!(sum(&running, key));
        }
        entry["uptime"] = json!(running.iter().filter_map(|vm| vm.get("uptime")?.as_u64()).max());
    }
    entry
}

/// The zones as each node has them.
fn zones(call: &Call, state: &State) -> Vec<Value> {
    let seeded = call.world.seed().sdn_zones.iter().filter_map(|zone| zone.get("zone").and_then(Value::as_str));
    let applied = super::sdn::running(state, "sdn/zones");
    let written = applied.keys().map(String::as_str);
    // The nodes' own bridges are in one that is always there.
    let zones: BTreeSet<&str> = seeded.chain(written).chain(["localnetwork"]).collect();
    let seen = zones.into_iter().filter(|zone| state.may(&call.caller, &format!("/sdn/zones/{zone}"), &["SDN.Audit"]));
    let entry = |zone: &str, node: &str| match state.pve {
        PveVersion::V8 => {
            json!({"id": format!("sdn/{node}/{zone}"), "type": "sdn", "sdn": zone, "node": node, "status": "ok"})
        }
        PveVersion::V9 => json!({
            "id": format!("network/{node}/zone/{zone}"), "type": "network", "network": zone, "network-type": "zone",
            "node": node, "status": "ok",
        }),
    };
    seen.flat_map(|zone| state.nodes.keys().map(move |node| entry(zone, node))).collect()
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

/// `GET /cluster/tasks`
pub(in crate::pve) fn tasks(call: &Call) -> Result {
    let state = call.world.state();
    let all = state.may(&call.caller, "/", &["Sys.Audit"]);
    // Whoever asks with a token is not the user that is looked for.
    let is_own = |task: &Task| task.user.split('!').next() == Some(call.caller.identity.as_str());
    let mut tasks: Vec<_> = state.tasks.by_upid.values().filter(|task| all || is_own(task)).collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.order));
    let latest: BTreeMap<&str, u64> =
        state.nodes.keys().map(|node| (node.as_str(), state.tasks.latest(node))).collect();
    let list = tasks.into_iter().take(25 * state.nodes.len().max(1)).map(|task| {
        let mut entry = super::tasks::entry(task);
        entry.remove("pstart");
        // Nodes tell each other of what they have just learnt as it is, of the rest as their file has it
        // (pve-common, PVE/RESTEnvironment.pm, `active_workers`).
        let just_now = latest.get(task.node.as_str()).is_some_and(|latest| task.order.max(task.ended) == *latest);
        let saved = match (task.status.is_some(), just_now) {
            (false, true) => None,
            (false, false) => Some(json!("0")),
            (true, true) => Some(json!(1)),
            (true, false) => Some(json!("1")),
        };
        if task.status.is_some() {
            entry.remove("pid");
        }
        if let Some(saved) = saved {
            entry.insert("saved".to_owned(), saved);
        }
        Value::Object(entry)
    });
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET /cluster/log`: what tasks began and ended is all that is logged.
pub(in crate::pve) fn log(call: &Call) -> Result {
    let state = call.world.state();
    let all = state.may(&call.caller, "/", &["Sys.Syslog"]);
    let mut tasks: Vec<_> =
        state.tasks.by_upid.iter().filter(|(_, task)| all || task.user == call.caller.identity).collect();
    tasks.sort_by_key(|(_, task)| std::cmp::Reverse(task.order));
    let most = call.params.number::<usize>("max").unwrap_or(50);
    let list: Vec<Value> = tasks
        .into_iter()
        .take(most)
        .enumerate()
        .map(|(at, (upid, task))| {
            let what = match &task.status {
                None => format!("starting task {upid}"),
                Some(status) => format!("end task {upid} {status}"),
            };
            json!({
                "uid": at + 1, "id": format!("{}:{}", at + 1, call.local), "time": task.starttime, "pri": 6,
                "tag": "pvedaemon", "pid": task.pid, "node": call.local, "user": task.user, "msg": what,
            })
        })
        .collect();
    Ok(list.into())
}

/// An index of what is below a path.
pub(in crate::pve) fn jobs(_: &Call) -> Result {
    Ok(index("subdir", &["schedule-analyze", "realm-sync"]).into())
}

/// Lists of what this world has none of.
pub(in crate::pve) fn none(_: &Call) -> Result {
    Ok(Vec::new().into())
}

/// `GET /cluster/metrics`
pub(in crate::pve) fn metrics(_: &Call) -> Result {
    Ok(index("subdir", &["server", "export"]).into())
}

/// `GET /cluster/mapping`
pub(in crate::pve) fn mapping(_: &Call) -> Result {
    Ok(index("name", &["pci", "usb", "dir"]).into())
}

/// `GET /cluster/sdn`
pub(in crate::pve) fn sdn(_: &Call) -> Result {
    Ok(index("id", &["vnets", "zones", "controllers", "ipams", "dns"]).into())
}

/// `GET N/sdn`
pub(in crate::pve) fn node_sdn(_: &Call) -> Result {
    Ok(index("id", &["zones"]).into())
}

/// `GET N/sdn/zones`
pub(in crate::pve) fn node_zones(call: &Call) -> Result {
    let state = call.world.state();
    let zones = super::sdn::running(&state, "sdn/zones");
    let list = zones
        .iter()
        .filter(|(zone, _)| state.may_any(&call.caller, &format!("/sdn/zones/{zone}"), &["SDN.Audit", "SDN.Allocate"]))
        .map(|(zone, _)| json!({"zone": zone, "status": "available"}));
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET N/sdn/zones/{zone}/content`
pub(in crate::pve) fn zone_content(call: &Call) -> Result {
    let zone = call.text("zone");
    let state = call.world.state();
    let vnets = super::sdn::running(&state, "sdn/vnets");
    let list = vnets
        .iter()
        .filter(|(_, vnet)| vnet.get("zone").and_then(Value::as_str) == Some(zone))
        .filter(|(vnet, _)| {
            state.may_any(&call.caller, &format!("/sdn/zones/{zone}/{vnet}"), &["SDN.Audit", "SDN.Use", "SDN.Allocate"])
        })
        .map(|(vnet, _)| json!({"vnet": vnet, "status": "available"}));
    Ok(list.collect::<Vec<_>>().into())
}
