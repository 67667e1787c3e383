//! `/cluster/sdn/ipams/{ipam}/status`, `/cluster/sdn/vnets/{vnet}/ips`: which addresses of virtual networks are given out.
//!
//! The IPAM of the cluster itself keeps them, for networks that are in force; others are never asked. Rules after
//! libpve-network 0.11 (PVE/Network/SDN/Vnets.pm, Subnets.pm and Ipams/PVEPlugin.pm).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::sdn::running;
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

/// Where leases are kept: subnet → address → who has it.
const FILE: &str = "sdn/leases";
const SUBNETS: &str = "sdn/subnets";

fn text<'a>(entry: &'a Object, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The range in an id `zone-192.0.2.0-24`.
fn range(id: &str) -> String {
    let mut parts = id.split('-').skip(1);
    format!("{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

fn holds(id: &str, ip: IpAddr) -> bool {
    range(id).parse::<IpNet>().is_ok_and(|net| net.contains(&ip))
}

/// What is given out of a subnet: its gateway, and the leases.
fn leases(state: &State, id: &str, subnet: &Object) -> Object {
    let mut all = state.sections.get(FILE).and_then(|file| file.get(id)).cloned().unwrap_or_default();
    let gateway = text(subnet, "gateway");
    if !gateway.is_empty() && range(id).rsplit('/').next() != Some("32") {
        all.insert(gateway.to_owned(), json!({"gateway": 1}));
    }
    all
}

/// The zone of a network, as it is written down.
fn zone<'a>(state: &'a State, vnet: &str) -> Option<&'a Object> {
    let vnet = state.sections.get("sdn/vnets")?.get(vnet)?;
    state.sections.get("sdn/zones")?.get(text(vnet, "zone"))
}

/// The subnet of a network, of those in force, that an address lies in.
fn subnet_of(state: &State, vnet: &str, ip: IpAddr) -> Rule<(String, Object)> {
    let all = running(state, SUBNETS);
    let found = all.into_iter().find(|(id, subnet)| text(subnet, "vnet") == vnet && holds(id, ip));
    found.ok_or_else(|| {
        let at = "at /usr/share/perl5/PVE/Network/SDN/Subnets.pm line 205.\n";
        Refusal::failed(format!("can't find any subnet for ip {ip} {at}"))
    })
}

fn address(call: &Call) -> Rule<IpAddr> {
    let given = call.text("ip");
    given.parse().map_err(|_| Refusal::param("ip", "invalid format - value does not look like a valid IP address\n"))
}

/// Gives an address out.
fn give(state: &mut State, call: &Call, ip: IpAddr, vmid: Option<u64>) -> Rule<()> {
    let (id, subnet) = subnet_of(state, call.text("vnet"), ip)?;
    if zone(state, call.text("vnet")).is_none_or(|zone| text(zone, "ipam").is_empty()) {
        return Ok(());
    }
    if leases(state, &id, &subnet).contains_key(&ip.to_string()) {
        return Err(Refusal::failed(format!("IP '{ip}' already exist\n")));
    }
    let mut lease = json!({"mac": call.text("mac")});
    if let Some(vmid) = vmid {
        lease["vmid"] = json!(vmid.to_string());
    }
    let file = state.sections.entry(FILE.to_owned()).or_default();
    file.entry(id).or_default().insert(ip.to_string(), lease);
    Ok(())
}

/// Takes an address back.
fn take(state: &mut State, vnet: &str, ip: IpAddr) -> Rule<()> {
    let (id, subnet) = subnet_of(state, vnet, ip)?;
    if zone(state, vnet).is_none_or(|zone| text(zone, "ipam").is_empty()) {
        return Ok(());
    }
    if !leases(state, &id, &subnet).contains_key(&ip.to_string()) {
        return Err(Refusal::failed(format!("IP '{ip}' does not exist in IPAM DB\n")));
    }
    if let Some(own) = state.sections.get_mut(FILE).and_then(|file| file.get_mut(&id)) {
        own.remove(&ip.to_string());
    }
    Ok(())
}

/// `POST …/ips`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let ip = address(call)?;
    give(&mut call.world.state(), call, ip, None)?;
    Ok(().into())
}

/// `DELETE …/ips`
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let ip = address(call)?;
    take(&mut call.world.state(), call.text("vnet"), ip)
        .map_err(|refusal| Refusal::failed(format!("{}\n\n", refusal.text())))?;
    Ok(().into())
}

/// `PUT …/ips`: whoever has that MAC gets another address.
pub(in crate::pve) fn update(call: &Call) -> Result {
    let ip = address(call)?;
    let (vnet, mac) = (call.text("vnet"), call.text("mac"));
    let mut state = call.world.state();
    let served =
        zone(&state, vnet).is_some_and(|zone| !text(zone, "ipam").is_empty() && !text(zone, "dhcp").is_empty());
    let has = |lease: &Value| lease.get("mac").and_then(Value::as_str) == Some(mac);
    let own = state.sections.get(FILE).into_iter().flatten().flat_map(|(_, leases)| leases);
    let old = own
        .filter(|(_, lease)| served && has(lease))
        .filter_map(|(old, _)| old.parse::<IpAddr>().ok())
        .find(|old| old.is_ipv4() == ip.is_ipv4());
    if let Some(old) = old {
        take(&mut state, vnet, old)?;
    } else {
        subnet_of(&state, vnet, ip)?;
    }
    let vmid = call.params.number::<u64>("vmid");
    if let Err(refusal) = give(&mut state, call, ip, vmid) {
        if let Some(old) = old {
            give(&mut state, call, old, vmid)?;
        }
        return Err(Refusal::failed(format!("{}\n\n", refusal.text())));
    }
    Ok(().into())
}

/// `GET /cluster/sdn/ipams/{ipam}/status`
pub(in crate::pve) fn list(call: &Call) -> Result {
    if call.text("ipam") != "pve" {
        let at = "at /usr/share/perl5/PVE/API2/Network/SDN/Ipams.pm line 296.\n";
        return Err(Refusal::failed(format!("Currently only PVE IPAM is supported! {at}")));
    }
    let state = call.world.state();
    let (zones, subnets) = (running(&state, "sdn/zones"), running(&state, SUBNETS));
    let mut list = Vec::new();
    for (id, subnet) in &subnets {
        let (zone, vnet) = (id.split('-').next().unwrap_or_default(), text(subnet, "vnet"));
        let served = zones.get(zone).is_some_and(|zone| text(zone, "ipam") == "pve" && !text(zone, "dhcp").is_empty());
        let path = format!("/sdn/zones/{zone}/{vnet}");
        if !served || !state.may_any(&call.caller, &path, &["SDN.Audit", "SDN.Allocate"]) {
            continue;
        }
        for (ip, lease) in leases(&state, id, subnet) {
            let mut entry = lease;
            for (key, value) in [("zone", zone), ("subnet", range(id).as_str()), ("ip", ip.as_str()), ("vnet", vnet)] {
                entry[key] = json!(value);
            }
            list.push(entry);
        }
    }
    Ok(list.into())
}
