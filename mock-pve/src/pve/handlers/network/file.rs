//! `/etc/network/interfaces`: what is written of an interface, and what is read of it again.
//!
//! Nothing is kept that the file doesn't hold, and what it holds is text (Proxmox VE 8.4, PVE/INotify.pm). Must not know:
//! requests. Start at [`read_back`].

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

/// An interface as the API shows it.
pub(super) type Interface = Map<String, Value>;

/// Keys that no line of an interface's own says, or that are lines of another name.
const APART: &[&str] = &[
    "active",
    "address",
    "address6",
    "autostart",
    "cidr",
    "cidr6",
    "comments",
    "comments6",
    "exists",
    "families",
    "gateway",
    "gateway6",
    "iface",
    "method",
    "method6",
    "netmask",
    "netmask6",
    "options",
    "options6",
    "priority",
    "type",
];
/// Keys of bridges and bonds, which have their own lines.
const OWN: &[&str] = &[
    "bond-primary",
    "bond_miimon",
    "bond_mode",
    "bond_xmit_hash_policy",
    "bridge_fd",
    "bridge_ports",
    "bridge_stp",
    "bridge_vids",
    "bridge_vlan_aware",
    "slaves",
];

/// A text of an interface; empty where there is none.
pub(super) fn text<'a>(interface: &'a Interface, key: &str) -> &'a str {
    interface.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The parts of a list of ports or VLANs.
pub(super) fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ';', ' ', '\t', '\n']).filter(|part| !part.is_empty())
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn ports(list: &str) -> String {
    let mut ports: Vec<&str> = parts(list).filter(|port| *port != "none").collect();
    ports.sort_unstable();
    ports.dedup();
    ports.join(" ")
}

/// The interface after it was written and read.
pub(super) fn read_back(given: &Interface) -> Interface {
    let mut read = Interface::new();
    for (key, value) in given {
        if OWN.contains(&key.as_str()) || key == "vlan-id" {
            continue;
        }
        if ["active", "exists", "families", "options", "options6", "priority", "vxlan-remoteip"].contains(&key.as_str())
        {
            read.insert(key.clone(), value.clone());
            continue;
        }
        let value = plain(value);
        // What is false isn't written.
        if !["", "0"].contains(&value.as_str()) {
            read.insert(key.clone(), json!(value));
        }
    }
    let mut set = |key: &str, value: Value| {
        read.insert(key.to_owned(), value);
    };
    if given.get("autostart").is_some_and(|value| plain(value) != "0") {
        set("autostart", json!(1));
    }
    let own = |key: &str| given.get(key).map(plain).filter(|value| !value.is_empty());
    match text(given, "type") {
        "bridge" => {
            let stp = own("bridge_stp").is_some_and(|stp| matches!(stp.as_str(), "on" | "yes"));
            let delay = own("bridge_fd").unwrap_or_else(|| "0".to_owned());
            set("bridge_ports", json!(ports(text(given, "bridge_ports"))));
            set("bridge_stp", json!(if stp { "on" } else { "off" }));
            if !stp || delay.parse::<f64>().is_ok_and(|delay| (2.0..=30.0).contains(&delay)) {
                set("bridge_fd", json!(delay));
            }
            if given.contains_key("bridge_vlan_aware") {
                let vids = own("bridge_vids").unwrap_or_else(|| "2-4094".to_owned());
                set("bridge_vlan_aware", json!(1));
                set("bridge_vids", json!(parts(&vids).collect::<Vec<_>>().join(" ")));
            }
        }
        "bond" => {
            let mode = own("bond_mode").unwrap_or_else(|| "balance-rr".to_owned());
            set("slaves", json!(ports(text(given, "slaves"))));
            set("bond_miimon", json!(own("bond_miimon").unwrap_or_else(|| "100".to_owned())));
            let policy = own("bond_xmit_hash_policy").filter(|_| matches!(mode.as_str(), "balance-xor" | "802.3ad"));
            if let Some(policy) = policy {
                set("bond_xmit_hash_policy", json!(policy));
            }
            if let Some(primary) = own("bond-primary").filter(|_| mode == "active-backup") {
                set("bond-primary", json!(primary));
            }
            set("bond_mode", json!(mode));
        }
        "vlan" => {
            // The name says it, where it does.
            let name = text(given, "iface");
            let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let (device, number) = match name.rsplit_once('.').filter(|(_, number)| digits(number)) {
                Some((device, number)) => (Some(device), Some(number)),
                None => (None, name.strip_prefix("vlan").filter(|number| digits(number))),
            };
            if let Some(number) = number.map(str::to_owned).or_else(|| own("vlan-id")) {
                set("vlan-id", json!(number));
            }
            if let Some(device) = device.filter(|_| own("vlan-raw-device").is_none()) {
                set("vlan-raw-device", json!(device));
            }
        }
        _ => {}
    }
    let families = given.get("families").and_then(Value::as_array);
    // Each family has a block of its own, with its addresses.
    for (six, family) in [("", "inet"), ("6", "inet6")] {
        if families.is_some_and(|families| !families.contains(&json!(family))) {
            for key in ["address", "netmask", "cidr", "gateway"] {
                read.remove(&format!("{key}{six}"));
            }
        }
    }
    let comments: String = text(given, "comments").lines().flat_map(|line| [line, "\n"]).collect();
    if comments.is_empty() || families.is_some_and(|families| !families.contains(&json!("inet"))) {
        read.remove("comments");
    } else {
        read.insert("comments".to_owned(), json!(comments));
    }
    read
}

/// Whether the hardware has it, a VLAN takes from the device below it: of a bridge that is unknown, and a device that nobody
/// knows isn't there.
pub(super) fn find_hardware(plan: &mut [Interface]) {
    // By name, so that a VLAN comes before those upon it.
    let mut order: Vec<usize> = (0..plan.len()).collect();
    order.sort_by_key(|at| text(&plan[*at], "iface"));
    for at in order {
        if text(&plan[at], "type") == "vlan" {
            let below = plan.iter().find(|one| text(one, "iface") == text(&plan[at], "vlan-raw-device"));
            let exists = below.map_or(json!(0), |device| device.get("exists").cloned().unwrap_or_default());
            plan[at].insert("exists".to_owned(), exists);
        }
    }
}

/// The lines of an interface.
pub(super) fn stanza(interface: &Interface) -> String {
    let name = text(interface, "iface");
    let mut lines = String::new();
    // Writing to a string can't fail; here and below.
    if interface.contains_key("autostart") {
        let _ = writeln!(lines, "auto {name}");
    }
    let families = interface.get("families").and_then(Value::as_array).cloned().unwrap_or_else(|| vec![json!("inet")]);
    for (number, family) in families.iter().enumerate() {
        let family = family.as_str().unwrap_or_default();
        let six = family.trim_start_matches("inet");
        let _ = writeln!(lines, "iface {name} {family} {}", text(interface, &format!("method{six}")));
        for (key, word) in [("cidr", "address"), ("gateway", "gateway")] {
            let value = text(interface, &format!("{key}{six}"));
            if !value.is_empty() {
                let _ = writeln!(lines, "\t{word} {value}");
            }
        }
        if number > 0 {
            continue;
        }
        for (key, value) in interface.iter().filter(|(key, _)| !APART.contains(&key.as_str())) {
            let value = match (key.as_str(), plain(value)) {
                ("bridge_vlan_aware", _) => "yes".to_owned(),
                ("bridge_ports" | "slaves", value) if value.is_empty() => "none".to_owned(),
                (_, value) => value,
            };
            let word = if key == "slaves" { "bond-slaves".to_owned() } else { key.replace('_', "-") };
            let _ = writeln!(lines, "\t{word} {value}");
        }
        for line in text(interface, "comments").lines() {
            let _ = writeln!(lines, "#{line}");
        }
    }
    lines.push('\n');
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_the_file_holds() {
        let read = |value: Value| Value::Object(read_back(value.as_object().unwrap()));
        for (given, expected) in [
            (
                json!({"type": "bridge", "iface": "vmbr1", "bridge_ports": "eno2,eno1", "mtu": "1500", "autostart": "1",
                    "bridge_vlan_aware": "1", "comments": "inside", "bridge_fd": ""}),
                json!({"type": "bridge", "iface": "vmbr1", "bridge_ports": "eno1 eno2", "mtu": "1500", "autostart": 1,
                    "bridge_vlan_aware": 1, "bridge_vids": "2-4094", "comments": "inside\n", "bridge_stp": "off",
                    "bridge_fd": "0"}),
            ),
            (
                json!({"type": "bridge", "iface": "vmbr1", "bridge_stp": "on", "bridge_fd": "1", "bridge_vids": "3",
                    "autostart": "0"}),
                json!({"type": "bridge", "iface": "vmbr1", "bridge_ports": "", "bridge_stp": "on"}),
            ),
            (
                json!({"type": "vlan", "iface": "vlan7", "vlan-id": "9", "vlan-raw-device": "eno1"}),
                json!({"type": "vlan", "iface": "vlan7", "vlan-id": "7", "vlan-raw-device": "eno1"}),
            ),
            (
                json!({"type": "vlan", "iface": "eno1.8"}),
                json!({"type": "vlan", "iface": "eno1.8", "vlan-id": "8", "vlan-raw-device": "eno1"}),
            ),
            (
                json!({"type": "bond", "iface": "bond0", "slaves": "eno2 eno1", "bond_xmit_hash_policy": "layer2",
                    "bond-primary": "eno1"}),
                json!({"type": "bond", "iface": "bond0", "slaves": "eno1 eno2", "bond_mode": "balance-rr",
                    "bond_miimon": "100"}),
            ),
        ] {
            assert_eq!(read(given), expected);
            assert_eq!(read(expected.clone()), expected, "once more is the same");
        }
    }

    #[test]
    fn a_vlan_exists_as_the_device_below_it() {
        let one = |name: &str, kind: &str, below: &str, exists: Value| {
            let mut made = Interface::new();
            made.extend([("iface".to_owned(), json!(name)), ("type".to_owned(), json!(kind))]);
            made.extend([("vlan-raw-device".to_owned(), json!(below)), ("exists".to_owned(), exists)]);
            made
        };
        let mut plan = vec![one("eno1", "eth", "", json!(1)), one("vmbr0", "bridge", "", Value::Null)];
        let vlans = [
            ("eno1.8", "eno1", json!(1)),
            ("eno1.8.9", "eno1.8", json!(1)),
            ("vlan3", "vmbr0", Value::Null),
            ("vlan4", "eno9", json!(0)),
        ];
        // Those upon others come first in the list.
        plan.extend(vlans.iter().rev().map(|(name, below, _)| one(name, "vlan", below, json!("unset"))));
        find_hardware(&mut plan);
        for (name, _, exists) in vlans {
            let found = plan.iter().find(|one| text(one, "iface") == name).unwrap();
            assert_eq!(found["exists"], exists, "{name}");
        }
    }
}
