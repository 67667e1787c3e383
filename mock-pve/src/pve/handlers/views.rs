//! VMs, storages and nodes as lists show them.

use serde_json::{Map, Value, json};

use crate::world::config::digest;
use crate::world::drive;
use crate::world::keys::is_integer;
use crate::world::property::Properties;
use crate::world::rights::Caller;
use crate::world::state::{Config, Vm};
use crate::world::{PveVersion, State, World};

/// How much a VM's entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pve) enum Detail {
    /// The list.
    Brief,
    /// The list with `full=1`.
    Full,
    /// `status/current`.
    Current,
}

/// How long a guest waited for what it needs, of late; release 9 tells.
const PRESSURES: [&str; 6] = [
    "pressurecpufull",
    "pressurecpusome",
    "pressureiofull",
    "pressureiosome",
    "pressurememoryfull",
    "pressurememorysome",
];

/// A VM's entry.
pub(in crate::pve) fn vm(world: &World, state: &State, vmid: u32, vm: &Vm, detail: Detail) -> Map<String, Value> {
    let config = vm.running.as_ref().map_or(&vm.config, |running| &running.config);
    let mut entry = Map::new();
    let mut put = |key: &str, value: Value| {
        entry.insert(key.to_owned(), value);
    };
    put("vmid", json!(vmid));
    put("name", json!(name(vmid, &vm.config)));
    put("status", json!(if vm.running.is_some() { "running" } else { "stopped" }));
    let most = state.nodes.get(&vm.node).map_or(1, |node| node.cpus);
    // Virtual CPUs that are named count as they are.
    let cpus = if config.contains_key("vcpus") { u64::MAX } else { u64::from(most) };
    put("cpus", json!(drive::cpus(config).min(cpus)));
    put("maxmem", json!(drive::memory_mib(config) << 20));
    put("maxdisk", json!(drive::boot_disk_size(&vm.config)));
    for key in ["disk", "cpu", "netin", "netout"] {
        put(key, json!(0));
    }
    put("mem", json!(vm.running.as_ref().map_or(0, |_| drive::memory_mib(config) << 18)));
    put("uptime", json!(uptime(world, vm)));
    if state.pve == PveVersion::V9 {
        put("memhost", json!(vm.running.as_ref().map_or(0, |_| drive::memory_mib(config) << 18)));
        for key in PRESSURES.iter().filter(|_| vm.running.is_some()) {
            put(key, json!(0));
        }
    }
    if let Some(balloon) = config.get("balloon").and_then(|text| text.parse::<u64>().ok()).filter(|size| *size > 0) {
        put("balloon_min", json!(balloon << 20));
        put("shares", json!(config.get("shares").and_then(|text| text.parse::<u64>().ok()).unwrap_or(1000)));
    }
    if let Some(running) = &vm.running {
        put("pid", json!(running.pid));
    }
    if vm.config.get("template").is_some_and(|flag| flag == "1") {
        put("template", json!(1));
    }
    for key in ["lock", "tags"] {
        if let Some(value) = vm.config.get(key) {
            put(key, json!(value));
        }
    }
    if vm.config.keys().any(|key| drive::numbered(key).is_some_and(|(stem, _)| stem == "serial")) {
        put("serial", json!(1));
    }
    if detail != Detail::Brief {
        let state = match &vm.running {
            None => "stopped",
            Some(running) if running.prelaunch => "prelaunch",
            Some(running) if running.paused => "paused",
            Some(_) => "running",
        };
        put("qmpstatus", json!(state));
        let nics = drive::nics(config);
        if vm.running.is_some() && !nics.is_empty() {
            let nics: Map<String, Value> = nics
                .into_iter()
                .map(|(key, _)| (format!("tap{vmid}i{}", &key[3..]), json!({"netin": 0, "netout": 0})))
                .collect();
            put("nics", Value::Object(nics));
        }
    }
    if detail == Detail::Current {
        let managed = state.ha.get(&format!("vm:{vmid}"));
        put(
            "ha",
            match managed {
                Some(resource) => {
                    json!({"managed": 1, "state": resource.get("state").cloned().unwrap_or(json!("started"))})
                }
                None => json!({"managed": 0}),
            },
        );
        if let Some(vga) = vm.config.get("vga") {
            let vga = Properties::parse(vga, "type");
            if vga.get("type").is_some_and(|kind| kind.starts_with("virtio") || kind.starts_with("qxl")) {
                put("spice", json!(1));
            }
            put("clipboard", json!(vga.get("clipboard")));
        }
        if drive::agent_enabled(&vm.config) {
            put("agent", json!(1));
        }
    }
    entry
}

/// A VM's name, or what stands for it.
pub(in crate::pve) fn name(vmid: u32, config: &Config) -> String {
    config.get("name").cloned().unwrap_or_else(|| format!("VM {vmid}"))
}

fn uptime(world: &World, vm: &Vm) -> u64 {
    let seconds = vm.running.as_ref().map_or(0.0, |running| (world.clock().elapsed() - running.since).max(0.0));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, not years")]
    let seconds = seconds as u64;
    seconds
}

/// A config value with its type.
pub(in crate::pve) fn typed(key: &str, value: &str) -> Value {
    if key == "cipassword" {
        return json!("**********");
    }
    if is_integer(key)
        && let Ok(number) = value.trim().parse::<i64>()
    {
        return json!(number);
    }
    json!(value)
}

/// A whole config, with its digest.
pub(in crate::pve) fn config(vm: &Vm, lines: &Config) -> Map<String, Value> {
    let mut shown: Map<String, Value> = lines.iter().map(|(key, value)| (key.clone(), typed(key, value))).collect();
    shown.insert("digest".to_owned(), json!(digest(vm)));
    shown
}

/// A VM's entry in the cluster's resources.
pub(in crate::pve) fn resource(state: &State, vmid: u32, vm: &Vm) -> Map<String, Value> {
    let mut entry =
        json!({"id": format!("qemu/{vmid}"), "type": "qemu", "vmid": vmid, "node": vm.node, "status": "unknown"});
    if let Some(seen) = &vm.seen {
        entry["status"] = json!(if seen.running { "running" } else { "stopped" });
        entry["name"] = json!(seen.name);
        entry["template"] = json!(u8::from(seen.template));
        entry["maxcpu"] = json!(seen.cpus);
        entry["maxmem"] = json!(seen.maxmem);
        entry["maxdisk"] = json!(seen.maxdisk);
        for key in ["cpu", "disk", "diskread", "diskwrite", "netin", "netout"] {
            entry[key] = json!(0);
        }
        entry["mem"] = json!(if seen.running { seen.maxmem / 4 } else { 0 });
        entry["uptime"] = json!(u8::from(seen.running));
        if state.pve == PveVersion::V9 {
            entry["memhost"] = entry["mem"].clone();
        }
    }
    for key in ["lock", "tags"] {
        if let Some(value) = vm.config.get(key) {
            entry[key] = json!(value);
        }
    }
    if let Some((pool, _)) = state.pools.iter().find(|(_, pool)| pool.vms.contains(&vmid)) {
        entry["pool"] = json!(pool);
    }
    if let Some(resource) = state.ha.get(&format!("vm:{vmid}")) {
        entry["hastate"] = resource.get("state").cloned().unwrap_or(json!("started"));
    }
    entry.as_object().cloned().unwrap_or_default()
}

/// A storage's entry in the cluster's resources.
pub(in crate::pve) fn storage_resource(world: &World, state: &State, node: &str, id: &str) -> Option<Value> {
    let storage = state.storages.get(id)?;
    let disabled = storage.flag("disable") || !state.is_online(node);
    Some(json!({
        "id": format!("storage/{node}/{id}"), "type": "storage", "storage": id, "node": node,
        "plugintype": storage.kind, "status": if disabled { "unknown" } else { "available" },
        "shared": u8::from(storage.shared()), "content": storage.content().join(","),
        "maxdisk": if disabled { 0 } else { storage.capacity }, "disk": state.used(world.dir(), node, id),
    }))
}

/// Whether a storage may be seen.
pub(in crate::pve) fn sees_storage(state: &State, caller: &Caller, id: &str) -> bool {
    state.may_any(caller, &format!("/storage/{id}"), &["Datastore.Audit", "Datastore.AllocateSpace"])
}

/// Uptime of the nodes: as if the world had been switched on an hour before it began.
pub(in crate::pve) fn node_uptime(world: &World) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, not years")]
    let seconds = world.clock().elapsed() as u64;
    3600 + seconds
}

/// Memory that a node's VMs take.
pub(in crate::pve) fn node_memory(state: &State, node: &str) -> u64 {
    state.memory_used(node)
}

/// `online` or `offline`.
pub(in crate::pve) fn node_status(state: &State, node: &str) -> &'static str {
    if state.is_online(node) { "online" } else { "offline" }
}
