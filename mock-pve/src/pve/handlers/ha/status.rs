//! `/cluster/ha`, `/cluster/ha/status/…`.

use serde_json::json;

use super::{Object, number};
use crate::pve::call::{Call, Result};
use crate::world::{PveVersion, State};

/// `GET /cluster/ha`
pub(in crate::pve) fn index(call: &Call) -> Result {
    let last = if call.world.state().pve == PveVersion::V9 { "rules" } else { "groups" };
    let names = ["status", "resources", last];
    Ok(names.iter().map(|name| json!({"id": name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/ha/status`
pub(in crate::pve) fn status_index(_: &Call) -> Result {
    Ok(["current", "manager_status"].iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

fn master(state: &State) -> String {
    state.nodes.keys().find(|name| state.is_online(name)).cloned().unwrap_or_default()
}

/// `GET /cluster/ha/status/current`
pub(in crate::pve) fn status(call: &Call) -> Result {
    let state = call.world.state();
    let quorate = state.is_quorate();
    let mut list = vec![json!({
        "id": "quorum", "type": "quorum", "node": call.local, "quorate": u8::from(quorate),
        "status": if quorate { "OK" } else { "No quorum on node" },
    })];
    let now = call.world.clock().unix();
    if !state.ha.is_empty() {
        let master = master(&state);
        list.push(json!({
            "id": "master", "type": "master", "node": master, "timestamp": now, "status": format!("{master} (active, {})", clock()),
        }));
        for name in state.nodes.keys() {
            let busy = state.vms.iter().any(|(vmid, vm)| vm.node == *name && state.is_ha_managed(*vmid));
            let mood = match (state.is_online(name), busy) {
                (false, _) => "old timestamp - dead?",
                (true, true) => "active",
                (true, false) => "idle",
            };
            list.push(json!({
                "id": format!("lrm:{name}"), "type": "lrm", "node": name, "timestamp": now,
                "status": format!("{name} ({mood}, {})", clock()),
            }));
        }
    }
    for (sid, resource) in &state.ha {
        let vmid = number(sid);
        let node = state.vms.get(&vmid).map(|vm| vm.node.clone()).unwrap_or_default();
        let wanted = state.ha_request(vmid).unwrap_or("started").to_owned();
        let shown = call.world.ha_state(&state, vmid);
        let crm = match shown.as_str() {
            "starting" => "started",
            "disabled" => "stopped",
            other => other,
        };
        let mut entry = json!({
            "id": format!("service:{sid}"), "type": "service", "sid": sid, "node": node, "state": shown,
            "request_state": wanted, "crm_state": crm, "status": format!("{sid} ({node}, {shown})"),
        });
        for key in ["max_restart", "max_relocate", "group", "failback", "comment"] {
            if let Some(value) = resource.get(key) {
                entry[key] = value.clone();
            }
        }
        list.push(entry);
    }
    Ok(list.into())
}

fn clock() -> String {
    jiff::Timestamp::now().strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// `GET /cluster/ha/status/manager_status`
pub(in crate::pve) fn manager(call: &Call) -> Result {
    let state = call.world.state();
    let nodes: Object = state
        .nodes
        .keys()
        .map(|name| (name.clone(), json!(if state.is_online(name) { "online" } else { "unknown" })))
        .collect();
    let services: Object = state
        .ha
        .keys()
        .map(|sid| {
            let vmid = number(sid);
            let node = state.vms.get(&vmid).map(|vm| vm.node.clone()).unwrap_or_default();
            (sid.clone(), json!({"node": node, "state": call.world.ha_state(&state, vmid)}))
        })
        .collect();
    Ok(json!({
        "manager_status": {
            "master_node": master(&state), "node_status": nodes, "service_status": services,
            "timestamp": call.world.clock().unix(),
        },
        "quorum": {"node": call.local, "quorate": u8::from(state.is_quorate())},
    })
    .into())
}
