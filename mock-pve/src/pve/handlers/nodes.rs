//! `/nodes/…`, but for storages, tasks and VMs.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::views;
use crate::pve::call::{Call, Result};
use crate::pve::formats::CPU_MODELS;
use crate::world::PveVersion;
use crate::world::node_power::{Moving, NodeCommand, Starting, Stopping};
use crate::world::refusal::{Refusal, Rule};

/// `GET /nodes`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let nodes: Vec<Value> = state
        .nodes
        .iter()
        .map(|(name, node)| {
            let mut entry = json!({
                "id": format!("node/{name}"), "node": name, "type": "node", "level": "",
                "status": views::node_status(&state, name), "ssl_fingerprint": node.fingerprint,
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
            entry
        })
        .collect();
    Ok(nodes.into())
}

/// `GET N`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = [
        "aplinfo",
        "apt",
        "capabilities",
        "ceph",
        "certificates",
        "config",
        "disks",
        "dns",
        "firewall",
        "hardware",
        "hosts",
        "journal",
        "lxc",
        "migrateall",
        "netstat",
        "network",
        "qemu",
        "query-url-metadata",
        "replication",
        "report",
        "rrd",
        "rrddata",
        "scan",
        "services",
        "spiceshell",
        "startall",
        "status",
        "stopall",
        "storage",
        "subscription",
        "suspendall",
        "syslog",
        "tasks",
        "termproxy",
        "time",
        "version",
        "vncshell",
        "vzdump",
        "wakeonlan",
        "sdn",
    ];
    Ok(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

/// `GET N/status`
pub(in crate::pve) fn status(call: &Call) -> Result {
    Ok(status_of(call, &call.node()).into())
}

/// What a node says of its load and its machine.
pub(super) fn status_of(call: &Call, name: &str) -> Value {
    let state = call.world.state();
    let Some(node) = state.nodes.get(name) else { return Value::Null };
    let used = views::node_memory(&state, name);
    let (root, root_used) = (100_u64 << 30, 8_u64 << 30);
    let mut shown = json!({
        "uptime": views::node_uptime(&call.world), "idle": 0, "wait": 0.0002, "cpu": 0.05,
        "loadavg": ["0.25", "0.50", "0.54"],
        "memory": {"total": node.memory, "used": used, "free": node.memory.saturating_sub(used)},
        "swap": {"total": 0, "used": 0, "free": 0},
        "rootfs": {"total": root, "used": root_used, "free": root - root_used, "avail": root - root_used},
        "ksm": {"shared": 0},
        "cpuinfo": {
            "cpus": node.cpus, "cores": node.cpus, "sockets": 1, "model": "mock-pve", "mhz": "2400.000", "hvm": "1",
            "flags": "aes", "user_hz": 100,
        },
        "kversion": "Linux 6.8.12-1-pve #1 SMP", "pveversion": super::cluster::manager_version(&state),
        "current-kernel": {"sysname": "Linux", "release": "6.8.12-1-pve", "version": "#1 SMP", "machine": "x86_64"},
        "boot-info": {"mode": "efi", "secureboot": 0},
    });
    if state.pve == PveVersion::V9 {
        shown["memory"]["available"] = shown["memory"]["free"].clone();
    }
    shown
}

/// `POST N/status`
pub(in crate::pve) fn command(call: &Call) -> Result {
    let command = if call.text("command") == "reboot" { NodeCommand::Reboot } else { NodeCommand::Shutdown };
    call.world.power_node(&call.caller, &call.node(), command);
    Ok(().into())
}

/// The guests that are named, if the caller may do that with each; whoever names none needs the rights over all.
fn guests(call: &Call, right: &str, over_all: &[&str]) -> Rule<Option<BTreeSet<u32>>> {
    let named = call.params.list("vms");
    let state = call.world.state();
    if !state.may(&call.caller, "/", over_all) {
        if named.is_empty() {
            return Err(Refusal::forbidden(format!("/, {}", over_all.join(" && "))));
        }
        for vmid in &named {
            state.check(&call.caller, &format!("/vms/{vmid}"), &[right])?;
        }
    }
    let given = call.params.text("vms").is_some();
    Ok(given.then(|| named.iter().filter_map(|vmid| vmid.parse().ok()).collect()))
}

/// The guests that are named, if the caller may switch them.
fn switched(call: &Call) -> Rule<Option<BTreeSet<u32>>> {
    guests(call, "VM.PowerMgmt", &["VM.PowerMgmt"])
}

/// `POST N/startall`
pub(in crate::pve) fn start_all(call: &Call) -> Result {
    let which = if call.params.is_on("force") { Starting::Everything } else { Starting::OnBoot };
    Ok(call.world.start_all(&call.caller, &call.node(), switched(call)?, which).into())
}

/// `POST N/stopall`
pub(in crate::pve) fn stop_all(call: &Call) -> Result {
    let how = Stopping { timeout: call.params.number("timeout"), gently: call.params.text("force-stop") == Some("0") };
    Ok(call.world.stop_all(&call.caller, &call.node(), switched(call)?, how).into())
}

/// `POST N/suspendall`
pub(in crate::pve) fn suspend_all(call: &Call) -> Result {
    let only = guests(call, "VM.PowerMgmt", &["VM.PowerMgmt", "VM.Config.Disk"])?;
    Ok(call.world.suspend_all(&call.caller, &call.node(), only).into())
}

/// `POST N/migrateall`
pub(in crate::pve) fn migrate_all(call: &Call) -> Result {
    let only = guests(call, "VM.Migrate", &["VM.Migrate"])?;
    let (node, target) = (call.node(), call.text("target").to_owned());
    if target == node {
        return Err(Refusal::param("target", "target is local node."));
    }
    let at_once = {
        let state = call.world.state();
        state.check_quorum()?;
        state.check_node(&target)?;
        let set = state.max_workers();
        let asked = call.params.number("maxworkers").or_else(|| call.params.number("max-workers"));
        asked.or(set.and_then(|set| usize::try_from(set).ok())).filter(|most| *most > 0)
    };
    let at_once = at_once.ok_or_else(|| {
        Refusal::failed("either 'maxworkers' parameter or max_workers in datacenter.cfg must be set!\n")
    })?;
    let how = Moving { target, local_disks: call.params.is_on("with-local-disks"), at_once };
    Ok(call.world.migrate_all(&call.caller, &node, only, how).into())
}

/// `GET N/capabilities/qemu/cpu`
pub(in crate::pve) fn cpu_models(_: &Call) -> Result {
    let models = CPU_MODELS.iter().map(|(name, vendor)| json!({"name": name, "vendor": vendor, "custom": 0}));
    Ok(models.collect::<Vec<_>>().into())
}

/// `GET N/capabilities/qemu/machines`
pub(in crate::pve) fn machines(_: &Call) -> Result {
    let mut list = Vec::new();
    for version in ["10.0", "9.2+pve1", "9.2", "9.1", "9.0", "8.2", "8.1", "8.0"] {
        for (prefix, kind) in [("pc-i440fx", "i440fx"), ("pc-q35", "q35")] {
            list.push(json!({"id": format!("{prefix}-{version}"), "type": kind, "version": version}));
        }
    }
    Ok(list.into())
}

/// `GET N/lxc`
pub(in crate::pve) fn containers(_: &Call) -> Result {
    Ok(Vec::new().into())
}

/// Anything about one container: there are none.
pub(in crate::pve) fn no_container(call: &Call) -> Result {
    Err(Refusal::failed(format!(
        "Configuration file 'nodes/{}/lxc/{}.conf' does not exist\n",
        call.node(),
        call.vmid()
    )))
}
