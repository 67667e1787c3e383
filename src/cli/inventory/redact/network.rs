//! Network interfaces of nodes.
//!
//! Must not know: VMs' cards.

use serde_json::{Map, Value, json};

use super::Redact;

/// Options of network interfaces that are kept as they are.
const INTERFACE: [&str; 18] = [
    "type",
    "method",
    "method6",
    "active",
    "autostart",
    "bridge_ports",
    "bridge_stp",
    "bridge_fd",
    "bridge_vlan_aware",
    "bridge_vids",
    "bond_mode",
    "families",
    "priority",
    "exists",
    "mtu",
    "netmask",
    "vlan-id",
    "slaves",
];

impl Redact {
    pub(super) fn interface(&mut self, real: Map<String, Value>) -> Map<String, Value> {
        let mut made = Map::new();
        for (key, value) in real {
            let text = value.as_str().unwrap_or_default();
            match key.as_str() {
                // Cards are called by their place on the board; bridges and vnets by people.
                "iface" if text.starts_with("en") || text.starts_with("eth") || text.starts_with("bond") => {
                    made.insert(key, value);
                }
                "iface" => {
                    let name = self.names.of("bridge", text);
                    made.insert(key, json!(name));
                }
                "cidr" | "cidr6" | "address" | "address6" | "gateway" | "gateway6" => {
                    if let Some(address) = self.address_text(text) {
                        made.insert(key, json!(address));
                    }
                }
                kept if INTERFACE.contains(&kept) => {
                    made.insert(key, value);
                }
                _ => {}
            }
        }
        made
    }
}
