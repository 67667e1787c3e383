//! `N/services/…`: the services of a node, which run until they are stopped.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::Refusal;

const SERVICES: &[(&str, &str)] = &[
    ("chrony", "chrony, an NTP client/server"),
    ("corosync", "Corosync Cluster Engine"),
    ("cron", "Regular background program processing daemon"),
    ("ksmtuned", "Kernel Samepage Merging (KSM) Tuning Daemon"),
    ("postfix", "Postfix Mail Transport Agent (instance -)"),
    ("pve-cluster", "The Proxmox VE cluster filesystem"),
    ("pve-firewall", "Proxmox VE firewall"),
    ("pve-ha-crm", "PVE Cluster HA Resource Manager Daemon"),
    ("pve-ha-lrm", "PVE Local HA Resource Manager Daemon"),
    ("pvedaemon", "PVE API Daemon"),
    ("pvefw-logger", "Proxmox VE firewall logger"),
    ("pveproxy", "PVE API Proxy Server"),
    ("pvescheduler", "Proxmox VE scheduler"),
    ("pvestatd", "PVE Status Daemon"),
    ("spiceproxy", "PVE SPICE Proxy Server"),
    ("sshd", "OpenBSD Secure Shell server"),
    ("systemd-journald", "Journal Service"),
    ("systemd-timesyncd", "systemd-timesyncd"),
];

/// Where it is kept which services of a node were stopped.
fn stopped(node: &str) -> String {
    format!("services/{node}")
}

fn entry(state: &State, node: &str, name: &str, description: &str) -> Value {
    let absent = matches!(name, "systemd-timesyncd") || (name == "corosync" && state.cluster_name.is_none());
    let is_stopped = state.sections.get(&stopped(node)).is_some_and(|names| names.contains_key(name));
    let (active, unit, now) = match (absent, is_stopped) {
        (true, _) => ("inactive", "not-found", "dead"),
        (false, true) => ("inactive", "enabled", "dead"),
        (false, false) => ("active", "enabled", "running"),
    };
    json!({
        "service": name, "name": name, "desc": description, "state": now, "active-state": active, "unit-state": unit,
    })
}

/// `GET N/services`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    Ok(SERVICES.iter().map(|(name, what)| entry(&state, &node, name, what)).collect::<Vec<_>>().into())
}

/// `GET N/services/{service}`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = ["state", "start", "stop", "restart", "reload"];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Vec<_>>().into())
}

/// `GET N/services/{service}/state`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let name = call.text("service");
    let what = SERVICES.iter().find(|(known, _)| *known == name).map_or(name, |(_, what)| what);
    Ok(entry(&call.world.state(), &call.node(), name, what).into())
}

/// Tells a service something. What the API itself stands on can't be stopped.
fn command(call: &Call, command: &str) -> Result {
    const ESSENTIAL: [&str; 3] = ["pveproxy", "pvedaemon", "pve-cluster"];
    let (kind, stops) = (format!("srv{command}"), command == "stop");
    let (node, service) = (call.node(), call.text("service").to_owned());
    let file = stopped(&node);
    let upid = call.world.start_task(&call.caller, &node, &kind, call.text("service"), |work| async move {
        if stops && ESSENTIAL.contains(&service.as_str()) {
            let text = format!("invalid service cmd '{service} stop': refusing to stop essential service!\n");
            return Err(Refusal::failed(text));
        }
        let mut state = work.world().state();
        let names = state.sections.entry(file).or_default();
        if stops {
            names.insert(service, Map::new());
        } else {
            names.remove(&service);
        }
        Ok(())
    });
    Ok(upid.into())
}

/// `POST N/services/{service}/start`
pub(in crate::pve) fn start(call: &Call) -> Result {
    command(call, "start")
}

/// `POST N/services/{service}/stop`
pub(in crate::pve) fn stop(call: &Call) -> Result {
    command(call, "stop")
}

/// `POST N/services/{service}/restart`
pub(in crate::pve) fn restart(call: &Call) -> Result {
    command(call, "restart")
}

/// `POST N/services/{service}/reload`
pub(in crate::pve) fn reload(call: &Call) -> Result {
    command(call, "reload")
}
