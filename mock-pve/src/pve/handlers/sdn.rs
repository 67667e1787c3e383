//! `/cluster/sdn/vnets/{vnet}/subnets`, and what of the virtual networks is in force: `pending`, `running`, `PUT
//! /cluster/sdn`.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/Network/SDN/Subnets.pm, PVE/Network/SDN.pm).

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::sdn_lock;
use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::State;
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Sections;

type Object = Map<String, Value>;

const FILE: &str = "sdn/subnets";
const SEE: &[&str] = &["SDN.Audit", "SDN.Allocate"];
const CHANGE: &[&str] = &["SDN.Allocate"];

/// What is in force of a file.
pub(super) fn running(state: &State, file: &str) -> Sections {
    state.sections.get(&format!("running/{file}")).cloned().unwrap_or_default()
}

/// Lists as they are compared.
fn plain(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            let mut list: Vec<String> = list.iter().map(plain).collect();
            list.sort();
            list.join(",")
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is in force of an entry, and beside it what is to come.
fn pending_entry(running: Option<&Object>, present: Option<&Object>) -> Object {
    let (mut entry, mut pending) = (Object::new(), Object::new());
    let mut state = match (running, present) {
        (Some(_), None) => Some("deleted"),
        (None, Some(_)) => Some("new"),
        _ => None,
    };
    for (key, value) in running.into_iter().flatten() {
        entry.insert(key.clone(), value.clone());
        if let Some(present) = present {
            match present.get(key) {
                Some(other) if plain(other) == plain(value) => {}
                Some(_) => state = Some("changed"),
                None => {
                    pending.insert(key.clone(), json!("deleted"));
                    state = Some("changed");
                }
            }
        }
    }
    for (key, value) in present.into_iter().flatten() {
        let old = running.and_then(|running| running.get(key));
        if key == "type" || key == "vnet" {
            entry.insert(key.clone(), value.clone());
        } else if old.is_none_or(|old| plain(old) != plain(value)) {
            pending.insert(key.clone(), value.clone());
        }
        if running.is_some() && old.is_none() {
            state = Some("changed");
        }
    }
    if let Some(state) = state {
        entry.insert("state".to_owned(), json!(state));
        entry.insert("pending".to_owned(), json!(pending));
    }
    entry
}

/// A file as a request wants to see it.
pub(super) fn view(state: &State, call: &Call, file: &str) -> Sections {
    let present = || state.sections.get(file).cloned().unwrap_or_default();
    if call.params.is_on("pending") {
        let (running, present) = (running(state, file), present());
        let ids = running.keys().chain(present.keys());
        return ids.map(|id| (id.clone(), pending_entry(running.get(id), present.get(id)))).collect();
    }
    if call.params.is_on("running") { running(state, file) } else { present() }
}

/// `PUT /cluster/sdn`: what was written down is in force from now on.
pub(in crate::pve) fn apply(call: &Call) -> Result {
    {
        let mut state = call.world.state();
        state.check_quorum()?;
        sdn_lock::check(&state, call, "could not commit SDN config")?;
        state.apply_networks();
        sdn_lock::release_after(&mut state, call);
    }
    let node = call.local.clone();
    let upid = call.world.start_task(&call.caller, &node, "reloadnetworkall", "", |work| async move {
        work.log("reloading network configuration");
        Ok(())
    });
    Ok(upid.into())
}

/// The zone of the network in the path, if the caller may do that with it.
fn zone(state: &State, call: &Call, rights: &[&str]) -> Rule<String> {
    let vnet = call.text("vnet");
    let known = state.sections.get("sdn/vnets").and_then(|vnets| vnets.get(vnet));
    let known = known.ok_or_else(|| Refusal::failed(format!("sdn vnet '{vnet}' does not exist\n")))?;
    let zone = known.get("zone").and_then(Value::as_str).unwrap_or_default().to_owned();
    state.check_any(&call.caller, &format!("/sdn/zones/{zone}/{vnet}"), rights)?;
    Ok(zone)
}

fn digest(state: &State) -> String {
    digest_of(&serde_json::to_string(&state.sections.get(FILE)).unwrap_or_default())
}

/// Address and mask in an id `zone-192.0.2.0-24`.
fn parts(id: &str) -> (&str, &str, &str) {
    let mut parts = id.split('-');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

fn shown(state: &State, id: &str, entry: &Object) -> Value {
    let (zone, network, mask) = parts(id);
    let (cidr, digest) = (format!("{network}/{mask}"), digest(state));
    let mut entry = entry.clone();
    for (key, value) in [
        ("id", id),
        ("subnet", id),
        ("zone", zone),
        ("network", network),
        ("mask", mask),
        ("cidr", cidr.as_str()),
        ("digest", digest.as_str()),
    ] {
        entry.insert(key.to_owned(), json!(value));
    }
    let ranges = entry.get("dhcp-range").and_then(Value::as_array).cloned().unwrap_or_default();
    let apart = |text: &Value| {
        let parts = Properties::parse(text.as_str().unwrap_or_default(), "").parts;
        Value::Object(parts.into_iter().map(|(key, value)| (key, json!(value))).collect())
    };
    entry.insert("dhcp-range".to_owned(), ranges.iter().map(apart).collect());
    Value::Object(entry)
}

/// `GET …/subnets`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    zone(&state, call, SEE)?;
    let all = view(&state, call, FILE);
    let own = all.iter().filter(|(_, entry)| entry.get("vnet") == Some(&json!(call.text("vnet"))));
    Ok(own.map(|(id, entry)| shown(&state, id, entry)).collect::<Vec<_>>().into())
}

fn missing(id: &str) -> Refusal {
    Refusal::failed(format!("sdn subnet '{id}' does not exist\n"))
}

/// `GET …/subnets/{subnet}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    zone(&state, call, SEE)?;
    let id = call.text("subnet");
    let all = view(&state, call, FILE);
    let entry = all.get(id).ok_or_else(|| missing(id))?;
    if entry.get("vnet") != Some(&json!(call.text("vnet"))) {
        return Err(Refusal::param("vnet", "wrong vnet"));
    }
    Ok(shown(&state, id, entry).into())
}

fn given(call: &Call) -> Object {
    let control = ["subnet", "digest", "delete", "lock-token"];
    let keys = call.params.0.iter().filter(|(key, _)| !control.contains(&key.as_str()));
    let values = keys.map(|(key, value)| {
        let value = match value {
            Given::List(list) => json!(list),
            _ if key == "snat" => json!(u8::from(call.params.is_on("snat"))),
            _ => json!(call.text(key)),
        };
        (key.clone(), value)
    });
    values.collect()
}

/// Refuses gateways and ranges that don't lie in their subnet.
fn check(state: &State, id: &str, entry: &Object) -> Rule<()> {
    let (_, network, mask) = parts(id);
    let cidr = format!("{network}/{mask}");
    let vnet = entry.get("vnet").and_then(Value::as_str).unwrap_or_default();
    let known = state.sections.get("sdn/vnets").and_then(|vnets| vnets.get(vnet));
    if known.is_some_and(|vnet| vnet.get("vlanaware").is_some_and(|flag| plain(flag) == "1")) {
        return Err(Refusal::param("vnet", "you can't add a subnet on a vlanaware vnet"));
    }
    let net: IpNet = cidr
        .parse()
        .map_err(|_| Refusal::param("subnet", "invalid format - value does not look like a valid CIDR network\n"))?;
    let inside = |text: &str| text.parse::<IpAddr>().is_ok_and(|ip| net.contains(&ip));
    let gateway = entry.get("gateway").and_then(Value::as_str).filter(|gateway| !gateway.is_empty());
    // Between two points the gateway lies outside.
    if let Some(gateway) = gateway.filter(|gateway| !inside(gateway) && mask != "32") {
        return Err(Refusal::param("gateway", format!("{gateway} is not in subnet {cidr}")));
    }
    let wrong = |text: String| Err(Refusal::param("dhcp-range", text));
    let mut before: Vec<(IpAddr, IpAddr)> = Vec::new();
    for text in entry.get("dhcp-range").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        let range = Properties::parse(text, "");
        let mut ends = Vec::new();
        for name in ["start-address", "end-address"] {
            let end = range.get(name).unwrap_or_default();
            let Ok(ip) = end.parse::<IpAddr>() else { return wrong(format!("{name} is not a valid IP {end}")) };
            ends.push((name, end, ip));
        }
        let (start, end) = (ends[0].2, ends[1].2);
        if start > end {
            return wrong(format!("start-address {start} must be smaller than end-address {end}"));
        }
        if let Some((name, text, _)) = ends.iter().find(|(_, text, _)| !inside(text)) {
            return wrong(format!("{name} {text} is not in subnet {cidr}"));
        }
        if before.iter().any(|(from, to)| *from <= end && start <= *to) {
            return wrong("dhcp ranges must not overlap".to_owned());
        }
        before.push((start, end));
    }
    Ok(())
}

fn prefixed(what: &str, refusal: &Refusal) -> Refusal {
    refusal.within(&format!("{what} sdn subnet object failed"))
}

/// Writes a subnet down; a text that is empty isn't written.
fn write(state: &mut State, id: String, mut entry: Object) {
    entry.retain(|_, value| value.as_str() != Some(""));
    state.sections.entry(FILE.to_owned()).or_default().insert(id, entry);
}

/// `POST …/subnets`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let mut state = call.world.state();
    let zone = zone(&state, call, CHANGE)?;
    sdn_lock::check(&state, call, "create sdn subnet object failed")?;
    let id = format!("{zone}-{}", call.text("subnet").replace('/', "-"));
    if state.sections.get(FILE).is_some_and(|file| file.contains_key(&id)) {
        let text = format!("sdn subnet object ID '{id}' already defined\n");
        return Err(prefixed("create", &Refusal::failed(text)));
    }
    let entry = given(call);
    check(&state, &id, &entry).map_err(|refusal| prefixed("create", &refusal))?;
    write(&mut state, id, entry);
    Ok(().into())
}

/// `PUT …/subnets/{subnet}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let mut state = call.world.state();
    zone(&state, call, CHANGE)?;
    sdn_lock::check(&state, call, "update sdn subnet object failed")?;
    let id = call.text("subnet");
    let known = state.sections.get(FILE).and_then(|file| file.get(id)).cloned();
    let mut entry = known.ok_or_else(|| prefixed("update", &missing(id)))?;
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest(&state)) {
        let text = "detected modified configuration - file changed by other user? Try again.\n";
        return Err(prefixed("update", &Refusal::failed(text)));
    }
    for key in call.params.list("delete") {
        if key == "type" || key == "vnet" {
            return Err(prefixed("update", &Refusal::failed(format!("unable to delete required option '{key}'\n"))));
        }
        entry.remove(&key);
    }
    entry.extend(given(call));
    check(&state, id, &entry).map_err(|refusal| prefixed("update", &refusal))?;
    write(&mut state, id.to_owned(), entry);
    Ok(().into())
}

/// `DELETE …/subnets/{subnet}`: of none, too.
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let mut state = call.world.state();
    zone(&state, call, CHANGE)?;
    sdn_lock::check(&state, call, "delete sdn subnet object failed")?;
    if let Some(file) = state.sections.get_mut(FILE) {
        file.remove(call.text("subnet"));
    }
    Ok(().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_come_stands_beside_what_is() {
        let object = |value: Value| value.as_object().cloned().unwrap();
        let old = object(json!({"type": "simple", "mtu": 1500, "nodes": "a"}));
        let new = object(json!({"type": "simple", "mtu": 9000, "ipam": "pve"}));
        let entry = |running, present| Value::Object(pending_entry(running, present));
        assert_eq!(
            entry(Some(&old), Some(&new)),
            json!({
                "type": "simple", "mtu": 1500, "nodes": "a", "state": "changed",
                "pending": {"mtu": 9000, "nodes": "deleted", "ipam": "pve"},
            })
        );
        assert_eq!(entry(Some(&old), Some(&old)), Value::Object(old.clone()));
        assert_eq!(
            entry(None, Some(&old)),
            json!({"type": "simple", "state": "new", "pending": {"mtu": 1500, "nodes": "a"}})
        );
        assert_eq!(entry(Some(&old), None)["state"], "deleted");
    }
}
