//! `N/network`: interfaces, as the node has them and as it is to have them.
//!
//! A change waits in a file of its own until it is applied or taken back (Proxmox VE 8.4, PVE/API2/Network.pm).

mod changes;
mod file;

use serde_json::{Value, json};

use self::file::{Interface, find_hardware, parts, read_back, text};

use crate::pve::call::{Answer, Call, Result};
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Node;

fn node<'a>(state: &'a State, call: &Call) -> Rule<&'a Node> {
    let name = call.node();
    state.nodes.get(&name).ok_or_else(|| Refusal::failed(format!("no such cluster node '{name}'\n")))
}

/// The interfaces as they are to be.
fn planned(node: &Node) -> &Vec<Interface> {
    node.network_new.as_ref().unwrap_or(&node.network)
}

/// `GET N/network`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let node = node(&state, call)?;
    let wanted = call.params.text("type");
    let fits = |kind: &str| match wanted {
        None => true,
        Some("any_bridge" | "any_local_bridge") => kind == "bridge" || kind == "OVSBridge",
        Some(wanted) => wanted == kind,
    };
    let may_use = |iface: &str, kind: &str| {
        !kind.ends_with("ridge")
            || state.may_any(&call.caller, &format!("/sdn/zones/localnetwork/{iface}"), &["SDN.Audit", "SDN.Use"])
    };
    let list: Vec<Value> = planned(node)
        .iter()
        .filter(|one| fits(text(one, "type")) && may_use(text(one, "iface"), text(one, "type")))
        .cloned()
        .map(Value::Object)
        .collect();
    Ok(Answer { data: Value::Array(list), changes: changes::of(node), ..Answer::default() })
}

fn missing() -> Refusal {
    Refusal::param("iface", "interface does not exist")
}

/// `GET N/network/{iface}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    let found = planned(node(&state, call)?).iter().find(|one| text(one, "iface") == call.text("iface"));
    let mut shown = found.cloned().ok_or_else(missing)?;
    shown.remove("iface");
    Ok(shown.into())
}

/// How long a mask is, whichever way it is written.
fn bits_of(mask: &str) -> String {
    let dotted = mask.parse::<std::net::Ipv4Addr>();
    dotted.map_or_else(|_| mask.to_owned(), |mask| mask.to_bits().leading_ones().to_string())
}

/// What was given for an interface; addresses both ways.
fn given(call: &Call) -> Rule<Interface> {
    let mut interface = Interface::new();
    for key in call.params.0.keys().filter(|key| !["node", "iface", "delete"].contains(&key.as_str())) {
        interface.insert(key.clone(), json!(call.text(key)));
    }
    for six in ["", "6"] {
        let (cidr, address, netmask) = (format!("cidr{six}"), format!("address{six}"), format!("netmask{six}"));
        if let Some((host, prefix)) = call.params.text(&cidr).and_then(|cidr| cidr.split_once('/')) {
            if let Some(other) = [&address, &netmask].into_iter().find(|key| interface.contains_key(*key)) {
                return Err(Refusal::param(other, format!("{other} conflicts with {cidr}")));
            }
            interface.insert(address, json!(host));
            interface.insert(netmask, json!(prefix));
        } else if let (Some(host), Some(mask)) = (call.params.text(&address), call.params.text(&netmask)) {
            let bits = bits_of(mask);
            interface.insert(cidr, json!(format!("{host}/{bits}")));
            interface.insert(netmask, json!(bits));
        }
    }
    if let Some(vids) = call.params.text("bridge_vids")
        && !vids.is_empty()
        && parts(vids).next().is_none()
    {
        return Err(Refusal::param("bridge_vids", "VLAN list items are empty"));
    }
    Ok(interface)
}

/// Methods and families follow from the addresses.
fn complete(interface: &mut Interface) {
    let mut families = Vec::new();
    for (six, family) in [("", "inet"), ("6", "inet6")] {
        let has = interface.contains_key(&format!("address{six}"));
        interface.insert(format!("method{six}"), json!(if has { "static" } else { "manual" }));
        if has {
            families.push(family);
        }
    }
    if families.is_empty() {
        families.push("inet");
    }
    interface.insert("families".to_owned(), json!(families));
}

/// Keys that name ports.
const PORTS: &[&str] = &["bridge_ports", "ovs_ports", "slaves", "ovs_bonds"];

/// Ports and the way out belong to one interface.
fn check_others(all: &[Interface], name: &str, new: &Interface) -> Rule<()> {
    let others = || all.iter().filter(|one| text(one, "iface") != name);
    for (key, what) in [("gateway", "Default gateway"), ("gateway6", "Default ipv6 gateway")] {
        let taken = others().find(|other| new.contains_key(key) && other.contains_key(key));
        if let Some(other) = taken {
            return Err(Refusal::param(key, format!("{what} already exists on interface '{}'.", text(other, "iface"))));
        }
    }
    let ports = |one: &Interface| -> Vec<String> {
        PORTS.iter().flat_map(|key| parts(text(one, key))).map(str::to_owned).collect()
    };
    let named = PORTS.iter().find(|key| new.contains_key(**key)).copied().unwrap_or("bridge_ports");
    for port in ports(new) {
        if let Some(other) = others().find(|other| ports(other).contains(&port)) {
            let text = format!("{port} is already used on interface '{}'.", text(other, "iface"));
            return Err(Refusal::param(named, text));
        }
    }
    Ok(())
}

/// Changes the plan; all of it or nothing.
fn change(call: &Call, edit: impl FnOnce(&mut Vec<Interface>) -> Rule<()>) -> Result {
    let mut state = call.world.state();
    let mut plan = planned(node(&state, call)?).clone();
    edit(&mut plan)?;
    find_hardware(&mut plan);
    if let Some(node) = state.nodes.get_mut(&call.node()) {
        node.network_new = Some(plan);
    }
    Ok(().into())
}

/// `POST N/network`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let name = call.text("iface").to_owned();
    change(call, |plan| {
        if plan.iter().any(|one| text(one, "iface") == name) {
            return Err(Refusal::param("iface", "interface already exists"));
        }
        let mut new = given(call)?;
        check_others(plan, &name, &new)?;
        if text(&new, "type").starts_with("OVS") {
            return Err(Refusal::failed("Open VSwitch is not installed (need package 'openvswitch-switch')\n"));
        }
        complete(&mut new);
        new.insert("iface".to_owned(), json!(name));
        let last = plan.iter().filter_map(|one| one.get("priority")?.as_u64()).max();
        new.insert("priority".to_owned(), json!(last.unwrap_or(2) + 1));
        plan.push(read_back(&new));
        Ok(())
    })
}

/// `PUT N/network/{iface}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let name = call.text("iface").to_owned();
    change(call, |plan| {
        let others = plan.clone();
        let known = plan.iter_mut().find(|one| text(one, "iface") == name).ok_or_else(missing)?;
        for key in call.params.list("delete") {
            known.remove(&key);
            if let Some(six) = key.strip_prefix("cidr") {
                known.remove(&format!("address{six}"));
                known.remove(&format!("netmask{six}"));
            }
        }
        let mut new = given(call)?;
        check_others(&others, &name, &new)?;
        complete(&mut new);
        known.extend(new);
        *known = read_back(known);
        Ok(())
    })
}

/// `DELETE N/network/{iface}`
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let name = call.text("iface").to_owned();
    change(call, |plan| {
        let at = plan.iter().position(|one| text(one, "iface") == name).ok_or_else(missing)?;
        plan.remove(at);
        Ok(())
    })
}

/// `DELETE N/network`
pub(in crate::pve) fn revert(call: &Call) -> Result {
    if let Some(node) = call.world.state().nodes.get_mut(&call.node()) {
        node.network_new = None;
    }
    Ok(().into())
}

/// `PUT N/network`
pub(in crate::pve) fn reload(call: &Call) -> Result {
    let name = call.node();
    let at = name.clone();
    let upid = call.world.start_task(&call.caller, &name, "srvreload", "networking", |work| async move {
        work.world().clock().sleep(1.0).await;
        let mut state = work.world().state();
        if let Some(node) = state.nodes.get_mut(&at)
            && let Some(mut plan) = node.network_new.take()
        {
            for interface in &mut plan {
                interface.insert("active".to_owned(), json!(1));
            }
            node.network = plan;
        }
        Ok(())
    });
    Ok(upid.into())
}
