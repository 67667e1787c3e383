//! `machine.network` of the main document.

use std::collections::BTreeMap;

use super::Check;
use super::scalars::{
    holds, is_32_bytes, is_address_or_network, is_host_with_port, is_subnet_filter, list, number, text, texts,
};
use crate::talos::config::yaml::Value;
use crate::types::Role;

/// The section's interfaces.
pub(super) fn interfaces(check: &mut Check<'_>, role: Option<Role>) {
    let all = check.list("machine.network.interfaces");
    let masters = masters(check, all);
    for (at, interface) in all.iter().enumerate() {
        let path = format!("machine.network.interfaces[{at}]");
        if role == Some(Role::Worker) {
            vips(check, interface, &path);
        }
        if interface.at(&["bond"]).is_some() && interface.at(&["bridge"]).is_some() {
            check.error(&path, "bond and bridge exclude each other");
        }
        if interface.at(&["ignore"]) != Some(&true.into()) {
            device(check, interface, &path);
            addressing(check, interface, &path, &masters);
            routes(check, interface, &path);
        }
    }
}

fn vips(check: &mut Check<'_>, interface: &Value, path: &str) {
    let vlans = list(interface, &["vlans"]).iter().enumerate();
    let links = vlans.map(|(at, vlan)| (format!("{path}.vlans[{at}]"), vlan));
    for (path, link) in std::iter::once((path.to_owned(), interface)).chain(links) {
        if link.at(&["vip"]).is_some() {
            check.error(&format!("{path}.vip"), "a shared address is for control planes only");
        }
    }
}

fn device(check: &mut Check<'_>, interface: &Value, path: &str) {
    match (holds(interface, "interface"), interface.at(&["deviceSelector"])) {
        (true, Some(_)) => check.error(path, "interface and deviceSelector exclude each other: keep one"),
        (false, None) => check.error(path, "needs interface, or a deviceSelector"),
        _ => {}
    }
    if interface.at(&["deviceSelector"]).is_some() && !holds(interface, "deviceSelector") {
        check.error(&format!("{path}.deviceSelector"), "is empty");
    }
    if let Some(own) = interface.at(&["bond"]) {
        bond(check, own, &format!("{path}.bond"));
    }
    if let Some(own) = interface.at(&["wireguard"]) {
        wireguard(check, own, &format!("{path}.wireguard"));
    }
    for (number, vlan) in list(interface, &["vlans"]).iter().enumerate() {
        addresses(check, vlan, &format!("{path}.vlans[{number}]"));
    }
}

/// Modes of bonds (drivers/net/bonding), and options of bonds with the modes that have them.
const MODES: [&str; 7] =
    ["balance-rr", "active-backup", "balance-xor", "broadcast", "802.3ad", "balance-tlb", "balance-alb"];
const OPTIONS: &[(&str, &[&str])] = &[
    ("lacpRate", &["802.3ad"]),
    ("adActorSysPrio", &["802.3ad"]),
    ("adUserPortKey", &["802.3ad"]),
    ("arpValidate", &["balance-rr", "active-backup", "balance-xor", "broadcast"]),
    ("arpInterval", &["balance-rr", "active-backup", "balance-xor", "broadcast"]),
    ("primary", &["active-backup", "balance-tlb", "balance-alb"]),
    ("tlbDynamicLb", &["balance-tlb", "balance-alb"]),
];
const CHOICES: &[(&str, &str)] = &[
    ("xmitHashPolicy", "layer2|layer3+4|layer2+3|encap2+3|encap3+4"),
    ("lacpRate", "slow|fast"),
    ("arpValidate", "none|active|backup|all|filter|filter-active|filter-backup"),
    ("arpAllTargets", "any|all"),
    ("primaryReselect", "always|better|failure"),
    ("failOverMac", "none|active|follow"),
    ("adSelect", "stable|bandwidth|count"),
];

fn bond(check: &mut Check<'_>, bond: &Value, path: &str) {
    let mode = text(bond, &["mode"]);
    if !mode.is_empty() && !MODES.contains(&mode) {
        check.error(&format!("{path}.mode"), format!("unknown mode '{mode}': {}", MODES.join(", ")));
    }
    let mode = if mode.is_empty() { MODES[0] } else { mode };
    for (key, choices) in CHOICES {
        let given = text(bond, &[key]);
        if !given.is_empty() && !choices.split('|').any(|choice| choice == given) {
            check.error(&format!("{path}.{key}"), format!("must be one of {}", choices.replace('|', ", ")));
        }
    }
    let is_set =
        |key: &str| holds(bond, key) && !matches!(bond.at(&[key]), Some(Value::Number(n)) if n.normal() == "0");
    for (key, modes) in OPTIONS {
        if is_set(key) && !modes.contains(&mode) {
            check.error(&format!("{path}.{key}"), format!("is not for mode {mode}, but for {}", modes.join(", ")));
        }
    }
    if number(bond.at(&["packetsPerSlave"])) > 1 && mode != MODES[0] {
        check.error(&format!("{path}.packetsPerSlave"), format!("is not for mode {mode}, but for {}", MODES[0]));
    }
    for key in ["arpIPTarget", "adActorSystem"] {
        if is_set(key) {
            check.error(&format!("{path}.{key}"), "is not supported");
        }
    }
    let interval = number(bond.at(&["miimon"]));
    for key in ["updelay", "downdelay"] {
        let delay = number(bond.at(&[key]));
        if (interval == 0 && delay != 0) || (interval != 0 && delay % interval != 0) {
            check.error(&format!("{path}.{key}"), "must be a multiple of miimon");
        }
    }
    if holds(bond, "interfaces") && holds(bond, "deviceSelectors") {
        check.error(path, "interfaces and deviceSelectors exclude each other");
    }
}

fn wireguard(check: &mut Check<'_>, tunnel: &Value, path: &str) {
    if !is_32_bytes(text(tunnel, &["privateKey"])) {
        check.error(&format!("{path}.privateKey"), "must be a WireGuard key: 32 bytes in base64");
    }
    for (at, peer) in list(tunnel, &["peers"]).iter().enumerate() {
        let path = format!("{path}.peers[{at}]");
        if !is_32_bytes(text(peer, &["publicKey"])) {
            check.error(&format!("{path}.publicKey"), "must be a WireGuard key: 32 bytes in base64");
        }
        if holds(peer, "endpoint") && !is_host_with_port(text(peer, &["endpoint"])) {
            check.error(&format!("{path}.endpoint"), "must be an address with a port");
        }
        for (at, network) in texts(list(peer, &["allowedIPs"])) {
            if network.parse::<ipnet::IpNet>().is_err() {
                check.error(&format!("{path}.allowedIPs[{at}]"), format!("'{network}' is no network"));
            }
        }
    }
}

/// What an interface and a VLAN have in common.
fn addresses(check: &mut Check<'_>, link: &Value, path: &str) {
    if holds(link, "cidr") {
        if holds(link, "addresses") {
            check.error(path, "cidr and addresses exclude each other");
        }
        if !is_address_or_network(text(link, &["cidr"])) {
            check.error(&format!("{path}.cidr"), "is no address");
        }
    }
    for (at, address) in list(link, &["addresses"]).iter().enumerate() {
        let address = address.as_text().unwrap_or_default();
        if !is_address_or_network(address) {
            check.error(&format!("{path}.addresses[{at}]"), format!("'{address}' is no address"));
        }
    }
}

fn addressing(check: &mut Check<'_>, interface: &Value, path: &str, masters: &BTreeMap<&str, &str>) {
    addresses(check, interface, path);
    if holds(interface, "cidr") {
        check.warning(&format!("{path}.cidr"), "is deprecated: use addresses");
    }
    let name = text(interface, &["interface"]);
    let own = holds(interface, "addresses") || holds(interface, "cidr") || interface.at(&["vip"]).is_some();
    if let Some(master) = masters.get(name)
        && (own || interface.at(&["dhcp"]) == Some(&true.into()))
    {
        check.error(path, format!("{name} is part of {master} and can't have addresses of its own"));
    }
    if interface.at(&["vip"]).is_some() {
        let ip = text(interface, &["vip", "ip"]);
        if ip.parse::<std::net::IpAddr>().is_err() {
            check.error(&format!("{path}.vip.ip"), format!("'{ip}' is no address"));
        }
    }
}

fn routes(check: &mut Check<'_>, interface: &Value, path: &str) {
    for (number, route) in list(interface, &["routes"]).iter().enumerate() {
        let at = format!("{path}.routes[{number}]");
        if !holds(route, "network") && !holds(route, "gateway") {
            check.error(&at, "needs a network or a gateway");
        }
        for (key, is_network) in [("network", true), ("gateway", false), ("source", false)] {
            let text = text(route, &[key]);
            let good = if is_network {
                text.parse::<ipnet::IpNet>().is_ok()
            } else {
                text.parse::<std::net::IpAddr>().is_ok()
            };
            if !text.is_empty() && !good {
                let wanted = if is_network { "network" } else { "address" };
                check.error(&format!("{at}.{key}"), format!("'{text}' is no {wanted}"));
            }
        }
    }
}

/// Interfaces that are part of another, which one that is; each may be part of one only.
fn masters<'a>(check: &mut Check<'_>, all: &'a [Value]) -> BTreeMap<&'a str, &'a str> {
    let mut masters: BTreeMap<&str, &str> = BTreeMap::new();
    for (at, interface) in all.iter().enumerate() {
        let name = text(interface, &["interface"]);
        let kind = if interface.at(&["bridge"]).is_some() { "bridge" } else { "bond" };
        for (_, member) in texts(list(interface, &[kind, "interfaces"])) {
            if let Some(other) = masters.insert(member, name).filter(|other| *other != name) {
                let path = format!("machine.network.interfaces[{at}].{kind}");
                check.error(&path, format!("{member} belongs to {other} already"));
            }
        }
    }
    masters
}

/// `machine.network.kubespan`.
pub(super) fn kubespan(check: &mut Check<'_>) {
    if !check.is_true("machine.network.kubespan.enabled") {
        return;
    }
    // From contract 1.14 on, documents say who the cluster is.
    if check.at("cluster.discovery").is_some() || check.at("cluster.controlPlane").is_some() {
        if !check.is_true("cluster.discovery.enabled") {
            check.error("machine.network.kubespan", "needs cluster discovery");
        }
        for key in ["cluster.id", "cluster.secret"] {
            if check.text(key).is_none() {
                check.error(key, "KubeSpan needs it");
            }
        }
    }
    let mtu = number(check.at("machine.network.kubespan.mtu"));
    if mtu != 0 && mtu < 1280 {
        check.error("machine.network.kubespan.mtu", "must be at least 1280");
    }
    filters(check, "machine.network.kubespan.filters.endpoints");
    let path = "machine.network.kubespan.filters.excludeAdvertisedNetworks";
    for (at, network) in texts(check.list(path)) {
        if network.parse::<ipnet::IpNet>().is_err() {
            check.error(&format!("{path}[{at}]"), format!("'{network}' is no network"));
        }
    }
}

/// A list of addresses and networks, some of which are left out.
pub(super) fn filters(check: &mut Check<'_>, path: &str) {
    for (at, filter) in texts(check.list(path)) {
        if !is_subnet_filter(filter) {
            check.error(&format!("{path}[{at}]"), format!("'{filter}' is no address or network"));
        }
    }
}
