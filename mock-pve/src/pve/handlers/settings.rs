//! `N/dns`, `N/time`, `N/hosts`, `N/config`: a node's own files, written and read again.
//!
//! What is shown is what the file's reader makes of what its writer wrote (pve-common 8, PVE/INotify.pm; pve-manager 8,
//! PVE/NodeConfig.pm).

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde_json::{Map, Value, json};

use super::host::{section, write};
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::cloudinit::Resolver;
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

fn changed() -> Refusal {
    Refusal::failed("detected modified configuration - file changed by other user? Try again.\n")
}

/// `GET N/dns`
pub(in crate::pve) fn dns(call: &Call) -> Result {
    let state = call.world.state();
    let shown = section(&state, call, "dns").cloned();
    Ok(shown.map_or_else(|| json!({"dns1": "192.0.2.1"}), Value::Object).into())
}

/// How the node resolves names.
pub(super) fn resolver(state: &State, call: &Call) -> Resolver {
    let shown = section(state, call, "dns");
    let text = |key: &str| shown.and_then(|shown| shown.get(key)?.as_str()).filter(|text| !text.is_empty());
    let servers: Vec<String> = ["dns1", "dns2", "dns3"].into_iter().filter_map(text).map(str::to_owned).collect();
    let search = text("search").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let servers = if shown.is_none() { vec!["192.0.2.1".to_owned()] } else { servers };
    Resolver { search, servers }
}

/// `PUT N/dns`: the file knows servers by their order only, and one domain to search in.
pub(in crate::pve) fn set_dns(call: &Call) -> Result {
    let mut file = Object::new();
    let search = call.text("search").lines().next().unwrap_or_default();
    if let Some(first) = search.split_whitespace().next().filter(|_| search != "0") {
        file.insert("search".to_owned(), json!(first));
    }
    let mut servers: Vec<&str> = Vec::new();
    for server in ["dns1", "dns2", "dns3"].into_iter().filter_map(|key| call.params.text(key)) {
        if !["", "0.0.0.0"].contains(&server) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    let numbered = servers.iter().zip(1..).map(|(server, number)| (format!("dns{number}"), json!(server)));
    file.extend(numbered);
    write(call, "dns", file);
    Ok(().into())
}

/// `GET N/time`
pub(in crate::pve) fn time(call: &Call) -> Result {
    let now = call.world.clock().unix();
    let state = call.world.state();
    let zone = section(&state, call, "time").and_then(|file| file.get("timezone")?.as_str()).unwrap_or("UTC");
    let known = TimeZoneDatabase::bundled().get(zone).unwrap_or(TimeZone::UTC);
    let moment = i64::try_from(now).ok().and_then(|now| jiff::Timestamp::from_second(now).ok());
    let ahead = moment.map_or(0, |moment| known.to_offset(moment).seconds());
    Ok(json!({"timezone": zone, "time": now, "localtime": now.saturating_add_signed(ahead.into())}).into())
}

/// `PUT N/time`
pub(in crate::pve) fn set_time(call: &Call) -> Result {
    let zone = call.text("timezone");
    if !TimeZoneDatabase::bundled().available().any(|known| known.as_str() == zone) {
        return Err(Refusal::param("timezone", "No such timezone"));
    }
    write(call, "time", Object::from_iter([("timezone".to_owned(), json!(zone))]));
    Ok(().into())
}

fn hosts_text(state: &State, call: &Call) -> String {
    let written = section(state, call, "hosts").and_then(|file| file.get("data")).and_then(Value::as_str);
    written.map_or_else(
        || {
            let node = call.node();
            let ip = state.nodes.get(&node).map_or("127.0.1.1", |node| node.ip.as_str());
            format!("127.0.0.1 localhost\n{ip} {node}.example.com {node}\n")
        },
        str::to_owned,
    )
}

/// Every line is a remark, blank, or an address with names.
fn check_hosts(text: &str) -> Rule<()> {
    let refuse = |what: String| Err(Refusal::param("data", what));
    for line in text.split('\n') {
        if line.trim_start().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let mut words = line.split(char::is_whitespace);
        let ip = words.next().unwrap_or_default();
        if ip.parse::<IpAddr>().is_err() {
            return refuse(format!("Invalid IP '{ip}'"));
        }
        let plain = |name: &str| name.chars().all(|letter| letter.is_ascii_alphanumeric() || ".-".contains(letter));
        if let Some(name) = words.find(|name| !name.is_empty() && !plain(name)) {
            return refuse(format!("Invalid Hostname '{name}'"));
        }
    }
    Ok(())
}

/// `GET N/hosts`
pub(in crate::pve) fn hosts(call: &Call) -> Result {
    let text = hosts_text(&call.world.state(), call);
    Ok(json!({"digest": digest_of(&text), "data": text}).into())
}

/// `POST N/hosts`
pub(in crate::pve) fn set_hosts(call: &Call) -> Result {
    let known = digest_of(&hosts_text(&call.world.state(), call));
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != known) {
        return Err(changed());
    }
    check_hosts(call.text("data"))?;
    write(call, "hosts", Object::from_iter([("data".to_owned(), json!(call.text("data")))]));
    Ok(().into())
}

/// What a node's config shows: a file has notes, even if they are none, and a digest; no file has neither.
fn shown(state: &State, call: &Call) -> Object {
    let mut shown = section(state, call, "config").cloned().unwrap_or_default();
    if !shown.is_empty() {
        let digest = digest_of(&serde_json::to_string(&shown).unwrap_or_default());
        shown.entry("description".to_owned()).or_insert(json!(""));
        shown.insert("digest".to_owned(), json!(digest));
    }
    shown
}

/// `GET N/config`
pub(in crate::pve) fn config(call: &Call) -> Result {
    let mut shown = shown(&call.world.state(), call);
    if let Some(key) = call.params.text("property") {
        shown.retain(|known, _| known == key);
    }
    Ok(shown.into())
}

/// A node orders each name once, by plugins that are there.
fn check_domains(state: &State, file: &Object) -> Rule<()> {
    let text = |key: &str| file.get(key).and_then(Value::as_str);
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let account = Properties::parse(text("acme").unwrap_or_default(), "account");
    for domain in account.get("domains").unwrap_or_default().split(';').filter(|domain| !domain.is_empty()) {
        let domain = domain.to_lowercase();
        if known.insert(domain.clone(), "acme".to_owned()).is_some() {
            return Err(Refusal::failed(format!("duplicate domain '{domain}' in ACME config properties\n")));
        }
    }
    let plugins = state.sections.get("acme/plugins");
    for key in (0..=5).map(|number| format!("acmedomain{number}")) {
        let Some(given) = text(&key).map(|text| Properties::parse(text, "domain")) else { continue };
        let domain = given.get("domain").unwrap_or_default().to_lowercase();
        if let Some(other) = known.get(&domain) {
            let text = format!("duplicate domain '{domain}' in ACME config properties '{key}' and '{other}'\n");
            return Err(Refusal::failed(text));
        }
        let plugin = given.get("plugin").unwrap_or("standalone");
        if plugin != "standalone" && !plugins.is_some_and(|plugins| plugins.contains_key(plugin)) {
            return Err(Refusal::failed(format!("plugin '{plugin}' for domain '{domain}' not found!\n")));
        }
        known.insert(domain, key);
    }
    Ok(())
}

/// `PUT N/config`
pub(in crate::pve) fn set_config(call: &Call) -> Result {
    let mut file = {
        let state = call.world.state();
        let digest = shown(&state, call).get("digest").and_then(Value::as_str).map(str::to_owned);
        let wanted = call.params.text("digest").filter(|wanted| !wanted.is_empty());
        if wanted.zip(digest).is_some_and(|(wanted, known)| wanted != known) {
            return Err(changed());
        }
        section(&state, call, "config").cloned().unwrap_or_default()
    };
    for key in call.params.0.keys().filter(|key| !["node", "delete", "digest"].contains(&key.as_str())) {
        let text = call.text(key);
        if key == "description" {
            // It is a remark of the file, which has whole lines; one without any is none.
            let lines = text.trim_end_matches('\n').lines();
            let notes: String = lines.flat_map(|line| [line.trim_end(), "\n"]).collect();
            file.remove(key);
            if !notes.is_empty() {
                file.insert(key.clone(), json!(notes));
            }
        } else {
            file.insert(key.clone(), json!(text));
        }
    }
    for key in call.params.list("delete") {
        file.remove(&key);
    }
    check_domains(&call.world.state(), &file)?;
    write(call, "config", file);
    Ok(().into())
}
