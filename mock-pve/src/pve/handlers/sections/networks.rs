//! What an entry of the virtual networks needs of the others.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/Network/SDN, `on_update_hook`, `vnet_update_hook` and `on_delete_hook` of the
//! plugins).

use serde_json::{Value, json};

use super::kinds::{CONTROLLER, DNS, IPAM, VNET, ZONE};
use crate::world::refusal::{Refusal, Rule};
use crate::world::section_config::Entry;
use crate::world::{PveVersion, State};

/// Where the original's plugins lie: what they die of without a line end says so.
const FOLDER: &str = "/usr/share/perl5/PVE/Network/SDN";

fn died(text: &str, file: &str, line: u32) -> Refusal {
    Refusal::failed(format!("{text} at {FOLDER}/{file}.pm line {line}.\n"))
}

fn text<'a>(entry: &'a Entry, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn tag(entry: &Entry) -> Option<i64> {
    entry.get("tag").and_then(Value::as_i64)
}

fn others<'a>(state: &'a State, file: &str, id: &'a str) -> impl Iterator<Item = (&'a String, &'a Entry)> {
    state.sections.get(file).into_iter().flatten().filter(move |(other, _)| *other != id)
}

fn entry<'a>(state: &'a State, file: &str, id: &str) -> Option<&'a Entry> {
    state.sections.get(file)?.get(id)
}

fn has_subnets(state: &State, vnet: &str) -> bool {
    state.sections.get("sdn/subnets").into_iter().flatten().any(|(_, subnet)| text(subnet, "vnet") == vnet)
}

/// Refuses an entry as it is to be, and completes it.
pub(super) fn check(state: &mut State, file: &str, id: &str, new: &mut Entry, old: Option<&Entry>) -> Rule<()> {
    if file == ZONE.file {
        check_zone(state, id, new, old)
    } else if file == VNET.file {
        check_vnet(state, id, new, old)
    } else if file == CONTROLLER.file {
        let evpn = |entry: &Entry| text(entry, "type") == "evpn";
        if evpn(new) && others(state, file, id).any(|(_, other)| evpn(other)) {
            return Err(died("only 1 global evpn controller can be defined", "Controllers/EvpnPlugin", 396));
        }
        let ways = usize::from(new.contains_key("peers")) + usize::from(new.contains_key("fabric"));
        if evpn(new) && ways != 1 {
            return Err(died("must have exactly one of peers / fabric defined", "Controllers/EvpnPlugin", 496));
        }
        Ok(())
    } else {
        Ok(())
    }
}

fn check_zone(state: &mut State, id: &str, new: &mut Entry, old: Option<&Entry>) -> Rule<()> {
    if let Some(old) = old
        && text(old, "ipam") != text(new, "ipam")
        && others(state, "sdn/subnets", "").any(|(subnet, _)| subnet.starts_with(&format!("{id}-")))
    {
        return Err(Refusal::param("ipam", "can't change ipam if a subnet is already defined in this zone"));
    }
    for key in ["dns", "reversedns"] {
        let server = text(new, key);
        if !server.is_empty() && entry(state, DNS.file, server).is_none() {
            return Err(Refusal::param(key, format!("{server} don't exist")));
        }
    }
    if new.contains_key("dnszone") && !new.contains_key("dns") {
        return Err(Refusal::param("dnszone", "missing dns server"));
    }
    let ipam = text(new, "ipam");
    if !ipam.is_empty() && ipam != "pve" && entry(state, IPAM.file, ipam).is_none() {
        return Err(Refusal::param("ipam", format!("{ipam} not existing")));
    }
    match text(new, "type") {
        "vxlan" if state.pve == PveVersion::V9 => {
            if new.contains_key("peers") == new.contains_key("fabric") {
                let said = "must have exactly one of peers / fabric defined";
                return Err(Refusal::Params(["fabric", "peers"].map(|key| (key.to_owned(), said.to_owned())).into()));
            }
            Ok(())
        }
        "evpn" => check_evpn(state, id, new),
        _ => Ok(()),
    }
}

fn check_evpn(state: &mut State, id: &str, new: &mut Entry) -> Rule<()> {
    const FILE: &str = "Zones/EvpnPlugin";
    let controller = text(new, "controller");
    match entry(state, CONTROLLER.file, controller) {
        None => return Err(died(&format!("controller {controller} don't exist"), FILE, 311)),
        Some(known) if text(known, "type") != "evpn" => {
            return Err(died(&format!("{controller} is not a evpn controller type"), FILE, 313));
        }
        Some(_) => {}
    }
    let vrf = new.get("vrf-vxlan").cloned().unwrap_or_default();
    if let Some((other, _)) = others(state, ZONE.file, id).find(|(_, other)| other.get("vrf-vxlan") == Some(&vrf)) {
        return Err(died(&format!("vrf-vxlan {vrf} is already declared in {other}"), FILE, 323));
    }
    if !new.contains_key("mac") {
        let prefix = state.options.get("mac_prefix").and_then(Value::as_str).unwrap_or("BC:24:11").to_owned();
        new.insert("mac".to_owned(), json!(state.rng.mac(&prefix)));
    }
    Ok(())
}

fn check_vnet(state: &State, id: &str, new: &Entry, old: Option<&Entry>) -> Rule<()> {
    let zone = text(new, "zone");
    if let Some(old) = old
        && text(old, "zone") != zone
        && has_subnets(state, id)
    {
        return Err(Refusal::param("zone", "can't change zone if subnets exist"));
    }
    let Some(known) = entry(state, ZONE.file, zone) else {
        // There is no zone whose type could be looked at.
        let line = if old.is_some() { 301 } else { 232 };
        let file = "/usr/share/perl5/PVE/API2/Network/SDN/Vnets.pm";
        return Err(Refusal::failed(format!("cannot lookup undefined type! at {file} line {line}.\n")));
    };
    let wrong = |said: String| Err(Refusal::param("tag", said));
    let (own, kind) = (tag(new), text(known, "type"));
    let mut inside = others(state, VNET.file, id).filter(|(_, other)| text(other, "zone") == zone);
    match (kind, own) {
        ("simple", Some(_)) => return wrong("vlan tag is not allowed on simple zone".to_owned()),
        ("vlan", None) => return wrong("missing vlan tag".to_owned()),
        ("vxlan" | "evpn", None) => return wrong("missing vxlan tag".to_owned()),
        ("vlan", Some(tag)) if tag > 4096 => return wrong("vlan tag max value is 4096".to_owned()),
        ("qinq", Some(tag)) if tag > 4096 => return wrong("VLAN tag maximal value is 4096".to_owned()),
        ("vxlan" | "evpn", Some(tag)) if tag > 16_777_216 => {
            return wrong("vxlan tag max value is 16777216".to_owned());
        }
        ("vlan", Some(own)) => {
            if let Some((other, _)) = inside.find(|(_, other)| tag(other) == Some(own)) {
                return wrong(format!("tag {own} already exist in vnet {other}"));
            }
        }
        ("qinq", _) => {
            let same = inside.find(|(_, other)| tag(other) == own);
            match (own, same) {
                (Some(own), Some((other, _))) => {
                    return wrong(format!("tag {own} already exist in zone {zone} vnet {other}"));
                }
                (None, Some((other, _))) => {
                    return wrong(format!("tag-less vnet already exists in zone {zone} vnet {other}"));
                }
                (_, None) => {}
            }
        }
        ("vxlan" | "evpn", Some(own)) => {
            if kind == "evpn" && new.get("vlanaware") == Some(&json!(1)) {
                return Err(Refusal::param("vlan-aware", "vlan-aware option can't be enabled with evpn"));
            }
            let tunnel = |zone: &str| {
                entry(state, ZONE.file, zone).is_some_and(|zone| matches!(text(zone, "type"), "vxlan" | "evpn"))
            };
            let mut all = others(state, VNET.file, id).filter(|(_, other)| tunnel(text(other, "zone")));
            if let Some((other, entry)) = all.find(|(_, other)| tag(other) == Some(own)) {
                let there = text(entry, "zone");
                return wrong(format!("vxlan tag {own} already exist in vnet {other} in zone {there} "));
            }
        }
        _ => {}
    }
    if new.get("vlanaware") == Some(&json!(1)) && has_subnets(state, id) {
        return Err(Refusal::param("vlanaware", "vlanaware vnet is not compatible with subnets"));
    }
    Ok(())
}

/// Refuses to delete what is in use.
pub(super) fn check_unused(state: &State, file: &str, id: &str) -> Rule<()> {
    if file == ZONE.file {
        let used = others(state, VNET.file, "").find(|(_, vnet)| text(vnet, "zone") == id);
        if let Some((vnet, _)) = used {
            return Err(died(&format!("zone {id} is used by vnet {vnet}"), "Zones/Plugin", 158));
        }
    } else if file == CONTROLLER.file {
        let used = others(state, ZONE.file, "").find(|(_, zone)| text(zone, "controller") == id);
        if let Some((zone, _)) = used {
            return Err(died(&format!("controller {id} is used by {zone}"), "Controllers/EvpnPlugin", 380));
        }
    } else if file == VNET.file && has_subnets(state, id) {
        return Err(Refusal::param("vnet", "Can't delete vnet if subnets exists"));
    }
    Ok(())
}
