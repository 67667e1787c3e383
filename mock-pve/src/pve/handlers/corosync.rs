//! `/cluster/config`: the nodes that are a cluster, as corosync's configuration has them.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/ClusterConfig.pm, PVE/Corosync.pm). Nobody joins from outside: there is no other
//! world.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::Refusal;
use crate::world::state::Sections;

/// Where links are kept that were named.
const FILE: &str = "corosync";

/// What corosync's configuration says of a node.
fn member(state: &State, name: &str) -> Map<String, Value> {
    let node = state.nodes.get(name);
    let (id, ip) = (node.map_or(0, |node| node.id), node.map_or("", |node| node.ip.as_str()));
    let entry = json!({"name": name, "nodeid": id.to_string(), "quorum_votes": "1", "ring0_addr": ip});
    let mut entry = entry.as_object().cloned().unwrap_or_default();
    let named = state.sections.get(FILE).and_then(|nodes| nodes.get(name));
    entry.extend(named.cloned().unwrap_or_default());
    entry
}

/// What corosync's configuration says of the protocol; nothing where there is no cluster.
fn totem_of(state: &State) -> Value {
    let Some(cluster) = &state.cluster_name else { return Value::Null };
    json!({
        "cluster_name": cluster, "config_version": state.nodes.len().to_string(), "version": "2", "secauth": "on",
        "ip_version": "ipv4-6", "link_mode": "passive", "interface": {"0": {"linknumber": "0"}},
    })
}

/// `GET /cluster/config/totem`
pub(in crate::pve) fn totem(call: &Call) -> Result {
    Ok(totem_of(&call.world.state()).into())
}

/// `GET /cluster/config/qdevice`: there is none.
pub(in crate::pve) fn qdevice(_: &Call) -> Result {
    Ok(json!({}).into())
}

/// `GET /cluster/config`
pub(in crate::pve) fn config(_: &Call) -> Result {
    let names = ["nodes", "totem", "join", "qdevice", "apiversion"];
    Ok(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/config/nodes`
pub(in crate::pve) fn config_nodes(call: &Call) -> Result {
    let state = call.world.state();
    if state.cluster_name.is_none() {
        return Ok(Vec::new().into());
    }
    let list = state.nodes.keys().map(|name| {
        let mut entry = member(&state, name);
        entry.insert("node".to_owned(), json!(name));
        Value::Object(entry)
    });
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET /cluster/config/apiversion`
pub(in crate::pve) fn config_version(_: &Call) -> Result {
    Ok(json!(1).into())
}

/// `GET /cluster/config/join`
pub(in crate::pve) fn join(call: &Call) -> Result {
    let state = call.world.state();
    let Some(cluster) = &state.cluster_name else {
        return Err(Refusal::failed("node is not in a cluster, no join info available!\n"));
    };
    let nodes = state.nodes.iter().map(|(name, node)| {
        let mut entry = member(&state, name);
        entry.insert("pve_addr".to_owned(), json!(node.ip));
        entry.insert("pve_fp".to_owned(), json!(node.fingerprint));
        Value::Object(entry)
    });
    let nodes: Vec<Value> = nodes.collect();
    Ok(json!({
        "config_digest": digest_of(cluster), "nodelist": nodes, "preferred_node": call.local,
        "totem": totem_of(&state),
    })
    .into())
}

/// `POST /cluster/config`: a node by itself becomes a cluster of one.
pub(in crate::pve) fn create(call: &Call) -> Result {
    let name = call.text("clustername").to_owned();
    if call.world.state().cluster_name.is_some() {
        return Err(Refusal::failed("cluster config '/etc/pve/corosync.conf' already exists\n"));
    }
    let id = call.params.number("nodeid").unwrap_or(1);
    let mut links = Map::new();
    for number in 0..8 {
        if let Some(link) = call.params.text(&format!("link{number}")) {
            let address = Properties::parse(link, "address").get("address").unwrap_or_default().to_owned();
            links.insert(format!("ring{number}_addr"), json!(address));
        }
    }
    if let Some(votes) = call.params.text("votes") {
        links.insert("quorum_votes".to_owned(), json!(votes));
    }
    let (node, made) = (call.local.clone(), name.clone());
    let upid = call.world.start_task(&call.caller, &call.local, "clustercreate", &name, |work| async move {
        work.log("Writing corosync config to /etc/pve/corosync.conf");
        {
            let mut state = work.world().state();
            state.cluster_name = Some(made);
            if let Some(node) = state.nodes.get_mut(&node) {
                node.id = id;
            }
            state.sections.insert(FILE.to_owned(), Sections::from([(node, links)]));
        }
        work.log("Restart corosync and cluster filesystem");
        Ok(())
    });
    Ok(upid.into())
}
