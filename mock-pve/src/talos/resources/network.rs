//! Resources about the network.

use serde_json::json;

use super::wire::Proto;
use super::{Item, Maker, Type};
use crate::world::machine::{Machine, State};

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let links = machine.see(|state| state.links.clone());
    match kind.name {
        "LinkStatuses.net.talos.dev" => {
            let lo = json!({ "index": 1, "type": "loopback", "hardwareAddr": "00:00:00:00:00:00", "mtu": 65536,
                "operationalState": "unknown", "linkState": true, "kind": "" });
            let mut all = vec![maker.item("lo", &lo)];
            all.extend(links.iter().enumerate().map(|(at, link)| {
                let value = json!({ "index": at + 2, "type": "ether", "hardwareAddr": link.mac,
                    "permanentAddr": link.mac, "mtu": 1500, "kind": "", "driver": "virtio_net", "linkState": link.up,
                    "operationalState": if link.up { "up" } else { "down" }, "speedMbit": 4_294_967_295_u32 });
                maker.item(&link.name, &value)
            }));
            all
        }
        "HardwareAddresses.net.talos.dev" => {
            let first = links.first().map(|link| json!({ "name": link.name, "hardwareAddr": link.mac }));
            first.map(|value| maker.item("first", &value)).into_iter().collect()
        }
        "AddressStatuses.net.talos.dev" => {
            let shared = machine.room().shared(machine.vmid()).into_iter().map(ipnet::IpNet::from);
            let first = links.first().map(|link| link.name.clone()).unwrap_or_default();
            let own = links.iter().flat_map(|link| link.addresses.iter().map(|address| (link.name.clone(), *address)));
            own.chain(shared.map(|address| (first.clone(), address)))
                .map(|(link, address)| {
                    let value = json!({ "address": address.to_string(), "linkName": link, "family": "inet4",
                        "scope": "global", "flags": "permanent" });
                    maker.item(&format!("{link}/{address}"), &value)
                })
                .collect()
        }
        "RouteStatuses.net.talos.dev" => {
            let mut all = Vec::new();
            for link in &links {
                if let Some(gateway) = link.gateway.filter(|_| !link.addresses.is_empty()) {
                    let value = json!({ "family": "inet4", "dst": "", "src": "", "gateway": gateway.to_string(),
                        "outLinkName": link.name, "table": "main", "priority": 1024, "scope": "global",
                        "type": "unicast", "protocol": "static" });
                    all.push(maker.item(&format!("{}/inet4/{gateway}//1024", link.name), &value));
                }
                for address in &link.addresses {
                    let network = address.trunc();
                    let value = json!({ "family": "inet4", "dst": network.to_string(), "src": address.addr().to_string(),
                        "gateway": "", "outLinkName": link.name, "table": "main", "priority": 0, "scope": "link",
                        "type": "unicast", "protocol": "kernel" });
                    all.push(maker.item(&format!("{}/inet4//{network}/0", link.name), &value));
                }
            }
            all
        }
        "NodeAddresses.net.talos.dev" => {
            let addresses: Vec<String> =
                links.iter().flat_map(|link| link.addresses.iter().map(ToString::to_string)).collect();
            let each = ["accumulative", "current", "default", "routed"].into_iter();
            each.map(|id| {
                let some = if id == "default" { addresses.get(..1).unwrap_or_default() } else { addresses.as_slice() };
                maker.item(id, &json!({ "addresses": some, "sortAlgorithm": "v1" }))
            })
            .collect()
        }
        "HostnameStatuses.net.talos.dev" => {
            let name = machine.see(State::hostname);
            vec![maker.typed("hostname", &json!({ "hostname": name, "domainname": "" }), Proto::default().text(1, &name))]
        }
        "NetworkStatuses.net.talos.dev" => {
            let ready = links.iter().any(|link| !link.addresses.is_empty());
            let value = json!({ "addressReady": ready, "connectivityReady": ready, "hostnameReady": true,
                "etcFilesReady": true });
            let proto = Proto::default().flag(1, ready).flag(2, ready).flag(3, true).flag(4, true);
            vec![maker.typed("status", &value, proto)]
        }
        "ResolverStatuses.net.talos.dev" => {
            let config = machine.see(|state| state.config.clone());
            let servers = config.map(|config| config.strings("/machine/network/nameservers")).unwrap_or_default();
            let servers = if servers.is_empty() { vec!["1.1.1.1".to_owned(), "8.8.8.8".to_owned()] } else { servers };
            vec![maker.item("resolvers", &json!({ "dnsServers": servers, "searchDomains": [] }))]
        }
        "TimeServerStatuses.net.talos.dev" => {
            let config = machine.see(|state| state.config.clone());
            let servers = config.map(|config| config.strings("/machine/time/servers")).unwrap_or_default();
            let servers = if servers.is_empty() { vec!["time.cloudflare.com".to_owned()] } else { servers };
            vec![maker.item("timeservers", &json!({ "timeServers": servers }))]
        }
        _ => Vec::new(),
    }
}
