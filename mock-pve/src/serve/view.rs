//! The world for people: what is there, without a secret.
//!
//! Purpose: one document that the page shows, `mock-pve inspect` prints, and tests compare. What a state folder holds is
//! enough for it; what only lives (machines, etcd) comes on top. Must not know: how it is shown. Start at [`document`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::world::machine::{MachineType, Room};
use crate::world::state::{State, Vm};
use crate::world::{World, drive};

/// Tasks that are shown, newest first.
const TASKS: usize = 50;
/// Configuration keys whose values are nobody's business.
const SECRET: [&str; 1] = ["cipassword"];

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// What changes while one looks.
    Overview,
    /// Configurations, volumes, users and rights as well.
    Everything,
}

/// What a state says.
pub fn document(state: &State, dir: &Path, depth: Depth) -> Value {
    let node = |(name, node): (&String, &crate::world::state::Node)| {
        json!({
            "name": name, "ip": node.ip, "online": state.is_online(name), "outage": node.outage,
            "cpus": node.cpus, "memory_mib": node.memory >> 20,
            "vms": state.vms.values().filter(|vm| vm.node == *name).count(),
            "running": state.vms.values().filter(|vm| vm.node == *name && vm.running.is_some()).count(),
        })
    };
    let mut document = json!({
        "format": 1,
        "pve": state.version,
        "cluster": state.cluster_name,
        "quorate": state.is_quorate(),
        "nodes": state.nodes.iter().map(node).collect::<Vec<_>>(),
        "storages": storages(state, dir),
        "vms": state.vms.iter().map(|(vmid, one)| vm(*vmid, one, depth)).collect::<Vec<_>>(),
        "tasks": tasks(state),
    });
    if depth == Depth::Everything {
        let volume = |(key, volume): (&crate::world::state::VolumeKey, &crate::world::state::Volume)| {
            json!({
                "volid": key.volid(), "node": key.node, "content": volume.content, "format": volume.format,
                "size": volume.size, "occupied": state.occupied(dir, key, volume), "vmid": volume.vmid,
                "parent": volume.parent,
            })
        };
        let user = |(name, user): (&String, &crate::world::access::User)| {
            json!({
                "userid": name, "enable": user.enable, "groups": user.groups,
                "tokens": user.tokens.keys().collect::<Vec<_>>(),
            })
        };
        document["volumes"] = state.volumes.iter().map(volume).collect();
        document["users"] = state.access.users.iter().map(user).collect();
        document["ha"] = json!(state.ha);
    }
    document
}

fn storages(state: &State, dir: &Path) -> Vec<Value> {
    let mut used: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (key, volume) in &state.volumes {
        *used.entry((&key.storage, &key.node)).or_default() += state.occupied(dir, key, volume);
    }
    let mut all = Vec::new();
    for (id, storage) in &state.storages {
        let nodes: Vec<&str> = if storage.shared() {
            vec![""]
        } else {
            state.nodes.keys().map(String::as_str).filter(|node| storage.on_node(node)).collect()
        };
        for node in nodes {
            all.push(json!({
                "storage": id, "node": node, "type": storage.kind, "capacity": storage.capacity,
                "used": used.get(&(id.as_str(), node)).copied().unwrap_or_default(),
            }));
        }
    }
    all
}

fn vm(vmid: u32, vm: &Vm, depth: Depth) -> Value {
    let get = |key: &str| vm.config.get(key).map(String::as_str);
    let mut shown = json!({
        "vmid": vmid,
        "name": get("name"),
        "node": vm.node,
        "status": match &vm.running {
            Some(running) if running.paused => "paused",
            Some(_) => "running",
            None => "stopped",
        },
        "template": get("template") == Some("1"),
        "lock": get("lock"),
        "tags": get("tags"),
        "cores": drive::cpus(&vm.config),
        "memory_mib": drive::memory_mib(&vm.config),
        "origin": if vm.seeded { "seeded" } else { "created" },
    });
    if depth == Depth::Everything {
        let hidden = |(key, value): (&String, &String)| {
            let value = if SECRET.contains(&key.as_str()) { "**********" } else { value };
            (key.clone(), json!(value))
        };
        shown["config"] = Value::Object(vm.config.iter().map(hidden).collect::<Map<_, _>>());
        shown["pending"] = Value::Object(vm.pending.iter().map(hidden).collect::<Map<_, _>>());
        shown["snapshots"] = json!(vm.snapshots.keys().collect::<Vec<_>>());
    }
    shown
}

fn tasks(state: &State) -> Vec<Value> {
    let mut tasks: Vec<_> = state.tasks.by_upid.values().collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.order));
    let shown = tasks.into_iter().take(TASKS).map(|task| {
        json!({
            "upid": task.upid, "node": task.node, "type": task.kind, "id": task.id, "user": task.user,
            "start": task.starttime, "end": task.endtime, "status": task.status,
            "last": task.log.last(),
        })
    });
    shown.collect()
}

/// What only lives: machines and the etcd among them.
pub fn living(world: &World, room: &Room) -> (Value, Value) {
    let machines = room.machines().into_iter().map(|machine| {
        let (vmid, node) = (machine.vmid(), machine.hardware().node.clone());
        machine.see(|state| {
            let status = state.status();
            json!({
                "vmid": vmid, "node": node, "name": state.hostname(),
                "role": match state.machine_type() {
                    Some(MachineType::ControlPlane) => "controlplane",
                    Some(MachineType::Worker) => "worker",
                    None => "",
                },
                "stage": status.stage.as_str(), "ready": status.ready,
                "unmet": status.unmet.iter().map(|(name, why)| format!("{name}: {why}")).collect::<Vec<_>>(),
                "address": state.address(), "talos": state.tag(),
                "kubernetes": state.config.as_ref().and_then(|config| config.kubernetes()),
                "api_server": state.kubernetes, "node_ready": state.node_ready,
            })
        })
    });
    let etcd = world.etcds().into_iter().map(|etcd| {
        let leader = etcd.leader();
        let members = etcd.members().into_iter().map(|member| {
            json!({
                "id": format!("{:016x}", member.id), "name": member.name, "learner": member.learner,
                "runs": etcd.runs(member.id), "leader": leader == Some(member.id),
            })
        });
        let view = leader.and_then(|id| etcd.client(id).status());
        json!({
            "id": format!("{:016x}", etcd.id()), "members": members.collect::<Vec<_>>(),
            "term": view.as_ref().map(|view| view.term), "revision": view.as_ref().map(|view| view.revision),
            "keys": view.map(|view| view.keys),
        })
    });
    (machines.collect(), etcd.collect())
}

/// A document as a terminal shows it.
pub fn text(document: &Value) -> String {
    let word = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    };
    let mut shown = String::new();
    let cluster =
        document["cluster"].as_str().map_or_else(|| "standalone".to_owned(), |name| format!("cluster {name}"));
    let quorum = if document["quorate"] == false { ", no quorum" } else { "" };
    // Writing to a string can't fail; here and below.
    let _ = writeln!(shown, "Proxmox VE {} ({cluster}{quorum})", word(&document["pve"]));
    let mut table = |title: &str, key: &str, heads: &[&str], row: &dyn Fn(&Value) -> Vec<String>| {
        let Some(items) = document[key].as_array().filter(|items| !items.is_empty()) else { return };
        let rows: Vec<Vec<String>> = items.iter().map(row).collect();
        let mut widths: Vec<usize> = heads.iter().map(|head| head.len()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let cells = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect::<Vec<_>>();
            format!("  {}", cells.join("  ").trim_end())
        };
        let _ = writeln!(shown, "\n{title}");
        let _ = writeln!(shown, "{}", line(&mut heads.iter().copied()));
        for row in &rows {
            let _ = writeln!(shown, "{}", line(&mut row.iter().map(String::as_str)));
        }
    };
    let flag = |value: &Value, yes: &str, no: &str| if *value == true { yes.to_owned() } else { no.to_owned() };
    table("Nodes", "nodes", &["NAME", "STATE", "CPUS", "MEMORY", "VMS", "RUNNING"], &|node| {
        let state = node["outage"].as_str().map_or("online", |outage| if outage == "off" { "off" } else { "hangs" });
        let memory = format!("{} MiB", node["memory_mib"]);
        vec![
            word(&node["name"]),
            state.to_owned(),
            word(&node["cpus"]),
            memory,
            word(&node["vms"]),
            word(&node["running"]),
        ]
    });
    table("Storages", "storages", &["STORAGE", "NODE", "TYPE", "USED", "OF"], &|storage| {
        let size = |value: &Value| human(value.as_u64().unwrap_or_default());
        vec![
            word(&storage["storage"]),
            word(&storage["node"]),
            word(&storage["type"]),
            size(&storage["used"]),
            size(&storage["capacity"]),
        ]
    });
    table("VMs", "vms", &["VMID", "NAME", "NODE", "STATUS", "FROM", "TAGS"], &|vm| {
        let mut status = if vm["template"] == true { "template".to_owned() } else { word(&vm["status"]) };
        if let Some(lock) = vm["lock"].as_str() {
            status = format!("{status} ({lock})");
        }
        vec![word(&vm["vmid"]), word(&vm["name"]), word(&vm["node"]), status, word(&vm["origin"]), word(&vm["tags"])]
    });
    table(
        "Machines",
        "machines",
        &["VMID", "NAME", "ROLE", "STAGE", "READY", "ADDRESS", "TALOS", "KUBERNETES"],
        &|one| {
            let ready = flag(&one["ready"], "yes", "no");
            let texts = ["vmid", "name", "role", "stage"].map(|key| word(&one[key]));
            let rest = ["address", "talos", "kubernetes"].map(|key| word(&one[key]));
            texts.into_iter().chain([ready]).chain(rest).collect()
        },
    );
    for etcd in document["etcd"].as_array().into_iter().flatten() {
        let members = etcd["members"].as_array().into_iter().flatten().map(|member| {
            let state = if member["runs"] == true { "" } else { " (down)" };
            format!("{}{}{state}", word(&member["name"]), if member["leader"] == true { " (leads)" } else { "" })
        });
        let members: Vec<String> = members.collect();
        let at = (word(&etcd["revision"]), word(&etcd["keys"]));
        let _ = writeln!(shown, "\netcd: {}; revision {}, {} keys", members.join(", "), at.0, at.1);
    }
    let mut table = |title: &str, key: &str, heads: &[&str], keys: &[&str], most: usize| {
        let Some(items) = document[key].as_array().filter(|items| !items.is_empty()) else { return };
        let _ = writeln!(shown, "\n{title}");
        let _ = writeln!(shown, "  {}", heads.join("  "));
        for item in items.iter().take(most) {
            let cells: Vec<String> = keys.iter().map(|key| word(&item[*key])).collect();
            let _ = writeln!(shown, "  {}", cells.join("  ").trim_end());
        }
    };
    table("Scenario", "scenario", &["NAME", "MATCHED", "HAPPENED"], &["name", "matched", "happened", "failed"], 100);
    table("Tasks", "tasks", &["NODE", "TYPE", "ID", "USER", "STATUS"], &["node", "type", "id", "user", "status"], 15);
    table("Destructive acts", "deeds", &["WHAT", "VM", "NAME", "WHO"], &["what", "vmid", "name", "who"], 15);
    shown
}

#[expect(clippy::cast_precision_loss, reason = "shown to one digit")]
fn human(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", units[unit]) }
}
