//! `machine.network.interfaces` of the main document.

use super::Check;
use crate::talos::config::yaml::Value;
use crate::types::Role;

/// Whether a key holds something.
fn holds(value: &Value, key: &str) -> bool {
    match value.at(&[key]) {
        None | Some(Value::Null) => false,
        Some(Value::Text(text)) => !text.is_empty(),
        Some(Value::List(list)) => !list.is_empty(),
        Some(Value::Map(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

pub(super) fn interfaces(check: &mut Check<'_>, role: Option<Role>) {
    let all = check.list("machine.network.interfaces");
    for (at, interface) in all.iter().enumerate() {
        let path = format!("machine.network.interfaces[{at}]");
        match (holds(interface, "interface"), holds(interface, "deviceSelector")) {
            (true, true) => check.error(&path, "interface and deviceSelector exclude each other: keep one"),
            (false, false) => check.error(&path, "needs interface, or a deviceSelector that says something"),
            _ => {}
        }
        if holds(interface, "bond") && holds(interface, "bridge") {
            check.error(&path, "bond and bridge exclude each other");
        }
        link(check, interface, &path, role);
        let vlans = interface.at(&["vlans"]).and_then(Value::as_list).unwrap_or_default();
        for (number, vlan) in vlans.iter().enumerate() {
            link(check, vlan, &format!("{path}.vlans[{number}]"), role);
        }
    }
    members(check, all);
}

/// What an interface and a VLAN have in common.
fn link(check: &mut Check<'_>, link: &Value, path: &str, role: Option<Role>) {
    if holds(link, "cidr") {
        check.warning(&format!("{path}.cidr"), "is deprecated: use addresses");
        if holds(link, "addresses") {
            check.error(path, "cidr and addresses exclude each other");
        }
    }
    let addresses = link.at(&["addresses"]).and_then(Value::as_list).unwrap_or_default();
    for (number, address) in addresses.iter().enumerate() {
        let text = address.as_text().unwrap_or_default();
        let bare = text.split('/').next().unwrap_or(text);
        if bare.parse::<std::net::IpAddr>().is_err() || (text.contains('/') && text.parse::<ipnet::IpNet>().is_err()) {
            check.error(&format!("{path}.addresses[{number}]"), format!("'{text}' is no address"));
        }
    }
    let routes = link.at(&["routes"]).and_then(Value::as_list).unwrap_or_default();
    for (number, route) in routes.iter().enumerate() {
        let at = format!("{path}.routes[{number}]");
        if !holds(route, "network") && !holds(route, "gateway") {
            check.error(&at, "needs a network or a gateway");
        }
        for (key, is_network) in [("network", true), ("gateway", false), ("source", false)] {
            let Some(text) = route.at(&[key]).and_then(Value::as_text).filter(|text| !text.is_empty()) else {
                continue;
            };
            let good = if is_network {
                text.parse::<ipnet::IpNet>().is_ok()
            } else {
                text.parse::<std::net::IpAddr>().is_ok()
            };
            if !good {
                check.error(
                    &format!("{at}.{key}"),
                    format!("'{text}' is no {}", if is_network { "network" } else { "address" }),
                );
            }
        }
    }
    if holds(link, "vip") {
        if role == Some(Role::Worker) {
            check.error(&format!("{path}.vip"), "a shared address is for control planes only");
        }
        let ip = link.at(&["vip", "ip"]).and_then(Value::as_text).unwrap_or_default();
        if ip.parse::<std::net::IpAddr>().is_err() {
            check.error(&format!("{path}.vip.ip"), format!("'{ip}' is no address"));
        }
    }
}

/// An interface that is enslaved belongs to one master and has no addresses of its own.
fn members(check: &mut Check<'_>, all: &[Value]) {
    let mut masters: std::collections::BTreeMap<&str, &str> = std::collections::BTreeMap::new();
    for (at, interface) in all.iter().enumerate() {
        let name = interface.at(&["interface"]).and_then(Value::as_text).unwrap_or_default();
        for kind in ["bond", "bridge"] {
            let members = interface.at(&[kind, "interfaces"]).and_then(Value::as_list).unwrap_or_default();
            for member in members.iter().filter_map(Value::as_text) {
                if let Some(other) = masters.insert(member, name).filter(|other| *other != name) {
                    let path = format!("machine.network.interfaces[{at}].{kind}");
                    check.error(&path, format!("{member} belongs to {other} already"));
                }
            }
        }
    }
    for (at, interface) in all.iter().enumerate() {
        let name = interface.at(&["interface"]).and_then(Value::as_text).unwrap_or_default();
        if let Some(master) = masters.get(name)
            && (holds(interface, "addresses") || holds(interface, "cidr"))
        {
            let path = format!("machine.network.interfaces[{at}].addresses");
            check.error(&path, format!("{name} is part of {master} and can't have addresses of its own"));
        }
    }
}
