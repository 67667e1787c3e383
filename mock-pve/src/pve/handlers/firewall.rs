//! `…/firewall`: options, rules and security groups of the cluster, a node, a VM, a virtual network.
//!
//! One set of methods for all levels: which one is meant is told by the parameters of the path (Proxmox VE 8.4,
//! PVE/API2/Firewall). A VM need not exist.

use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};

use crate::pve::call::{Answer, Call, Result};
use crate::world::State;
use crate::world::firewall::{Firewall, Group, Known, Level, MACROS, Object, verify};
use crate::world::refusal::{Refusal, Rule};

/// Which file a request is about.
pub(super) fn level(call: &Call) -> Level {
    if call.params.text("vmid").is_some() {
        Level::Vm
    } else if call.params.text("vnet").is_some() {
        Level::Vnet
    } else if call.params.text("node").is_some() {
        Level::Host
    } else if call.params.text("group").is_some() {
        Level::Group
    } else {
        Level::Cluster
    }
}

/// The key of that file in the world.
pub(super) fn file(call: &Call) -> String {
    match level(call) {
        Level::Vm => format!("vms/{}", call.vmid()),
        Level::Host => format!("nodes/{}", call.node()),
        Level::Vnet => format!("vnets/{}", call.text("vnet")),
        Level::Cluster | Level::Group => String::new(),
    }
}

/// What the file holds.
pub(super) fn load(state: &State, file: &str) -> Firewall {
    state.firewalls.get(file).cloned().unwrap_or_default()
}

/// Whether the caller may see, or change, what belongs to a virtual network; other levels are checked by their methods.
fn check_vnet(state: &State, call: &Call, rights: &[&str]) -> Rule<()> {
    if level(call) != Level::Vnet {
        return Ok(());
    }
    let vnet = call.text("vnet");
    let known = state.sections.get("sdn/vnets").and_then(|vnets| vnets.get(vnet));
    let known = known.ok_or_else(|| {
        Refusal::failed("invalid vnet specified at /usr/share/perl5/PVE/API2/Firewall/Helpers.pm line 50.\n")
    })?;
    let zone = known.get("zone").and_then(Value::as_str).unwrap_or_default();
    state.check_any(&call.caller, &format!("/sdn/zones/{zone}/{vnet}"), rights)
}

const SEE_VNET: &[&str] = &["SDN.Audit", "SDN.Allocate"];
const CHANGE_VNET: &[&str] = &["SDN.Allocate"];

/// Rules are verified against the cluster's file and their own.
pub(super) fn verified(state: &State, call: &Call, rule: &mut Object) -> Rule<()> {
    let cluster = load(state, "");
    let local = load(state, &file(call));
    let local = matches!(level(call), Level::Vm | Level::Host | Level::Vnet).then_some(&local);
    verify(rule, level(call), Known { cluster: &cluster, local })
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn hashed(sha: &mut Sha1, entry: &Object) {
    for (key, value) in entry {
        sha.update(format!("{key}:{}\n", plain(value)));
    }
}

/// The digest of a list, as all its entries carry it.
pub(super) fn list_digest(list: &[Object]) -> String {
    let mut sha = Sha1::new();
    for entry in list {
        hashed(&mut sha, entry);
    }
    hex::encode(sha.finalize())
}

/// A list whose entries carry its digest.
pub(super) fn with_digest(list: &[Object]) -> Vec<Value> {
    let digest = list_digest(list);
    let shown = list.iter().map(|entry| {
        let mut entry = entry.clone();
        entry.insert("digest".to_owned(), json!(digest));
        Value::Object(entry)
    });
    shown.collect()
}

/// Refuses when the client saw something else.
pub(super) fn assert_unchanged(call: &Call, digest: &str) -> Rule<()> {
    match call.params.text("digest") {
        Some(wanted) if !wanted.is_empty() && wanted != digest => {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            Err(Refusal::failed(text))
        }
        _ => Ok(()),
    }
}

fn names(list: &[&str]) -> Result {
    Ok(list.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

/// `GET …/firewall`
pub(in crate::pve) fn index(call: &Call) -> Result {
    match level(call) {
        Level::Vm => names(&["rules", "aliases", "ipset", "refs", "options"]),
        Level::Host => names(&["rules", "options", "log"]),
        Level::Vnet => names(&["rules", "options"]),
        _ => names(&["aliases", "rules", "options", "groups", "ipset", "macros", "refs"]),
    }
}

/// `GET /cluster/firewall/macros`
pub(in crate::pve) fn macros(_: &Call) -> Result {
    Ok(MACROS.iter().map(|name| json!({"macro": name, "descr": name})).collect::<Vec<_>>().into())
}

/// `GET …/firewall/log`: nothing is ever filtered.
pub(in crate::pve) fn log(_: &Call) -> Result {
    Ok(Answer { data: json!([{"n": 1, "t": "no content"}]), total: Some(1), ..Answer::default() })
}

fn option_names(level: Level) -> &'static [&'static str] {
    match level {
        Level::Vm => &[
            "enable",
            "dhcp",
            "ndp",
            "radv",
            "macfilter",
            "ipfilter",
            "policy_in",
            "policy_out",
            "log_level_in",
            "log_level_out",
        ],
        Level::Host => &[
            "enable",
            "log_level_in",
            "log_level_out",
            "log_level_forward",
            "tcp_flags_log_level",
            "smurf_log_level",
            "nosmurfs",
            "tcpflags",
            "nf_conntrack_allow_invalid",
            "nf_conntrack_helpers",
            "nf_conntrack_max",
            "nf_conntrack_tcp_timeout_established",
            "nf_conntrack_tcp_timeout_syn_recv",
            "ndp",
            "log_nf_conntrack",
            "nftables",
            "protection_synflood",
            "protection_synflood_rate",
            "protection_synflood_burst",
        ],
        Level::Vnet => &["enable", "policy_forward", "log_level_forward"],
        _ => &["enable", "ebtables", "policy_in", "policy_out", "policy_forward", "log_ratelimit"],
    }
}

fn options_of(state: &State, call: &Call) -> Object {
    match level(call) {
        Level::Cluster | Level::Group => state.firewall.clone(),
        Level::Vm | Level::Host | Level::Vnet => load(state, &file(call)).options,
    }
}

/// `GET …/firewall/options`
pub(in crate::pve) fn options(call: &Call) -> Result {
    let state = call.world.state();
    check_vnet(&state, call, SEE_VNET)?;
    let mut shown = options_of(&state, call);
    let digest = list_digest(std::slice::from_ref(&shown));
    shown.insert("digest".to_owned(), json!(digest));
    Ok(shown.into())
}

/// `PUT …/firewall/options`
pub(in crate::pve) fn set_options(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, CHANGE_VNET)?;
    let mut options = options_of(&state, call);
    assert_unchanged(call, &list_digest(std::slice::from_ref(&options)))?;
    let known = option_names(level(call));
    for name in call.params.list("delete") {
        if !known.contains(&name.as_str()) {
            return Err(Refusal::param("delete", format!("no such option '{name}'")));
        }
        options.remove(&name);
    }
    for name in known {
        let Some(text) = call.params.text(name) else { continue };
        let value = match (*name, text.parse::<u64>()) {
            // A number above one is the moment from which it holds.
            ("enable", Ok(number)) if number > 1 && level(call) == Level::Cluster => json!(call.world.clock().unix()),
            (name, Ok(number)) if name != "log_ratelimit" => json!(number),
            _ => json!(text),
        };
        options.insert((*name).to_owned(), value);
    }
    match level(call) {
        Level::Cluster | Level::Group => state.firewall = options,
        Level::Vm | Level::Host | Level::Vnet => state.firewalls.entry(file(call)).or_default().options = options,
    }
    Ok(().into())
}

/// Runs with the rules that a request is about.
fn rules_of<T>(state: &mut State, call: &Call, run: impl FnOnce(&mut Vec<Object>) -> Rule<T>) -> Rule<T> {
    let firewall = state.firewalls.entry(file(call)).or_default();
    if level(call) != Level::Group {
        return run(&mut firewall.rules);
    }
    let name = call.text("group");
    match firewall.groups.get_mut(name) {
        Some(group) => run(&mut group.rules),
        None => Err(Refusal::failed(format!("no such security group '{name}'\n"))),
    }
}

fn position(call: &Call, rules: &[Object]) -> Rule<usize> {
    let at = call.params.number::<usize>("pos").unwrap_or(usize::MAX);
    if at < rules.len() {
        return Ok(at);
    }
    Err(Refusal::failed(format!("no rule at position {}\n", call.text("pos"))))
}

/// `GET …/firewall/rules`, `GET /cluster/firewall/groups/{group}`
pub(in crate::pve) fn rules(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, SEE_VNET)?;
    let mut list = rules_of(&mut state, call, |rules| Ok(with_digest(rules)))?;
    for (at, rule) in list.iter_mut().enumerate() {
        rule["pos"] = json!(at);
    }
    Ok(list.into())
}

/// `GET …/firewall/rules/{pos}`
pub(in crate::pve) fn rule(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, SEE_VNET)?;
    let mut rule = rules_of(&mut state, call, |rules| {
        let at = position(call, rules)?;
        Ok(with_digest(rules).swap_remove(at))
    })?;
    // As it was asked for: a text.
    rule["pos"] = json!(call.text("pos"));
    Ok(rule.into())
}

const PROPERTIES: &[&str] = &[
    "action",
    "type",
    "enable",
    "macro",
    "iface",
    "source",
    "dest",
    "proto",
    "dport",
    "sport",
    "comment",
    "log",
    "icmp-type",
];

fn take_over(call: &Call, rule: &mut Object) {
    for key in PROPERTIES {
        match call.params.text(key) {
            None => {}
            Some("" | "-") => {
                rule.remove(*key);
            }
            Some(text) if *key == "enable" => {
                rule.insert("enable".to_owned(), json!(u8::from(text != "0")));
            }
            Some(text) => {
                rule.insert((*key).to_owned(), json!(text));
            }
        }
    }
}

/// `POST …/firewall/rules`, `POST /cluster/firewall/groups/{group}`: a new rule comes first, and is off unless told.
pub(in crate::pve) fn create_rule(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, CHANGE_VNET)?;
    rules_of(&mut state, call, |_| Ok(()))?;
    let mut rule = Object::new();
    take_over(call, &mut rule);
    verified(&state, call, &mut rule)?;
    rule.entry("enable").or_insert(json!(0));
    rules_of(&mut state, call, |rules| {
        rules.insert(0, rule);
        Ok(())
    })?;
    Ok(().into())
}

/// `PUT …/firewall/rules/{pos}`
pub(in crate::pve) fn update_rule(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, CHANGE_VNET)?;
    let (at, mut rule) = rules_of(&mut state, call, |rules| {
        assert_unchanged(call, &list_digest(rules))?;
        let at = position(call, rules)?;
        Ok((at, rules[at].clone()))
    })?;
    if let Some(to) = call.params.number::<usize>("moveto").filter(|to| *to != at) {
        rules_of(&mut state, call, |rules| {
            let rule = rules.remove(at);
            // Where it goes is counted with it still in its place.
            let to = if to > at { to - 1 } else { to };
            rules.insert(to.min(rules.len()), rule);
            Ok(())
        })?;
        return Ok(().into());
    }
    take_over(call, &mut rule);
    for key in call.params.list("delete") {
        if !PROPERTIES.contains(&key.as_str()) {
            return Err(Refusal::param("delete", format!("no such property ('{key}')")));
        }
        if key == "type" || key == "action" {
            return Err(Refusal::param("delete", format!("unable to delete required property '{key}'")));
        }
        rule.remove(&key);
    }
    verified(&state, call, &mut rule)?;
    rule.entry("enable").or_insert(json!(0));
    rules_of(&mut state, call, |rules| {
        rules[at] = rule;
        Ok(())
    })?;
    Ok(().into())
}

/// `DELETE …/firewall/rules/{pos}`
pub(in crate::pve) fn delete_rule(call: &Call) -> Result {
    let mut state = call.world.state();
    check_vnet(&state, call, CHANGE_VNET)?;
    rules_of(&mut state, call, |rules| {
        assert_unchanged(call, &list_digest(rules))?;
        let at = position(call, rules)?;
        rules.remove(at);
        Ok(())
    })?;
    Ok(().into())
}

fn group_list(firewall: &Firewall) -> Vec<Object> {
    let list = firewall.groups.iter().map(|(name, group)| {
        let mut entry = Object::new();
        entry.insert("group".to_owned(), json!(name));
        if let Some(comment) = &group.comment {
            entry.insert("comment".to_owned(), json!(comment));
        }
        entry
    });
    list.collect()
}

/// `GET /cluster/firewall/groups`
pub(in crate::pve) fn groups(call: &Call) -> Result {
    Ok(with_digest(&group_list(&load(&call.world.state(), ""))).into())
}

/// `POST /cluster/firewall/groups`: makes one, or renames one.
pub(in crate::pve) fn create_group(call: &Call) -> Result {
    let name = call.text("group").to_owned();
    let comment = call.params.owned("comment").filter(|text| !text.is_empty());
    let mut state = call.world.state();
    let firewall = state.firewalls.entry(String::new()).or_default();
    let Some(old) = call.params.owned("rename") else {
        if firewall.groups.contains_key(&name) {
            return Err(Refusal::param("group", format!("Security group '{name}' already exists")));
        }
        firewall.groups.insert(name, Group { comment, rules: Vec::new() });
        return Ok(().into());
    };
    assert_unchanged(call, &list_digest(&group_list(firewall)))?;
    if !firewall.groups.contains_key(&old) {
        return Err(Refusal::param("group", format!("Security group '{old}' does not exist")));
    }
    if old != name && firewall.groups.contains_key(&name) {
        return Err(Refusal::param("group", format!("Security group '{name}' does already exist")));
    }
    let mut group = firewall.groups.remove(&old).unwrap_or_default();
    if call.params.text("comment").is_some() {
        group.comment = comment;
    }
    firewall.groups.insert(name.clone(), group);
    let all = state.firewalls.values_mut().flat_map(|firewall| &mut firewall.rules);
    for rule in all.filter(|rule| rule.get("type") == Some(&json!("group")) && rule.get("action") == Some(&json!(old)))
    {
        rule.insert("action".to_owned(), json!(name));
    }
    Ok(().into())
}

/// `DELETE /cluster/firewall/groups/{group}`
pub(in crate::pve) fn delete_group(call: &Call) -> Result {
    let name = call.text("group");
    let mut state = call.world.state();
    let groups = &mut state.firewalls.entry(String::new()).or_default().groups;
    match groups.get(name) {
        None => Err(Refusal::failed(format!("no such security group '{name}'\n"))),
        Some(group) if !group.rules.is_empty() => {
            Err(Refusal::failed(format!("Security group '{name}' is not empty\n")))
        }
        Some(_) => {
            groups.remove(name);
            Ok(().into())
        }
    }
}
