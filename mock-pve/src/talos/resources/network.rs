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
                .map(|(link, address)| (link, address.to_string(), "global"))
                .chain(std::iter::once(("lo".to_owned(), "127.0.0.1/8".to_owned(), "host")))
                .map(|(link, address, scope)| {
                    let value = json!({ "address": address, "linkName": link, "family": "inet4", "scope": scope,
                        "flags": "permanent" });
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
                    all.push(maker.item(&format!("inet4/{gateway}//1024"), &value));
                }
                for address in &link.addresses {
                    let network = address.trunc();
                    let value = json!({ "family": "inet4", "dst": network.to_string(), "src": address.addr().to_string(),
                        "gateway": "", "outLinkName": link.name, "table": "main", "priority": 0, "scope": "link",
                        "type": "unicast", "protocol": "kernel" });
                    all.push(maker.item(&format!("inet4//{network}/0"), &value));
                }
            }
            all
        }
        "NodeAddresses.net.talos.dev" => {
            let routed: Vec<String> =
                links.iter().flat_map(|link| link.addresses.iter().map(ToString::to_string)).collect();
            let shared =
                machine.room().shared(machine.vmid()).into_iter().map(|one| ipnet::IpNet::from(one).to_string());
            let current: Vec<String> = routed.iter().cloned().chain(shared).collect();
            let one = |id: &str, some: &[String]| maker.item(id, &json!({ "addresses": some, "sortAlgorithm": "v1" }));
            let mut all = vec![one("default", routed.get(..1).unwrap_or_default())];
            for (id, some) in [("accumulative", &current), ("current", &current), ("routed", &routed)] {
                all.push(one(id, some));
                // No address of a machine is one of a pod or a service.
                if machine.see(|state| state.config.is_some()) {
                    all.extend([one(&format!("{id}-no-k8s"), some), one(&format!("{id}-only-k8s"), &[])]);
                }
            }
            all
        }
        "HostnameStatuses.net.talos.dev" => {
            let name = machine.see(State::hostname);
            vec![maker.typed(
                "hostname",
                &json!({ "hostname": name, "domainname": "" }),
                Proto::default().text(1, &name),
            )]
        }
        "NetworkStatuses.net.talos.dev" => {
            let ready = links.iter().any(|link| !link.addresses.is_empty());
            let value = json!({ "addressReady": ready, "connectivityReady": ready, "hostnameReady": true,
                "etcFilesReady": true });
            let proto = Proto::default().flag(1, ready).flag(2, ready).flag(3, true).flag(4, true);
            vec![maker.typed("status", &value, proto)]
        }
        _ => settings(machine, &maker),
    }
}

/// What follows from the configuration alone.
fn settings(machine: &Machine, maker: &Maker) -> Vec<Item> {
    match maker.0.name {
        "ResolverStatuses.net.talos.dev" => {
            let servers = resolvers(configured(machine, "/machine/network/nameservers"));
            vec![maker.item("resolvers", &json!({ "dnsServers": servers, "searchDomains": [] }))]
        }
        "TimeServerStatuses.net.talos.dev" => {
            let servers = time_servers(configured(machine, "/machine/time/servers"));
            vec![maker.item("timeservers", &json!({ "timeServers": servers }))]
        }
        "NodeAddressSortAlgorithms.net.talos.dev" => vec![maker.item("default", &json!({ "algorithm": "v1" }))],
        "NodeAddressFilters.net.talos.dev" => {
            let mut inside = configured(machine, "/cluster/network/podSubnets");
            inside.extend(configured(machine, "/cluster/network/serviceSubnets"));
            if inside.is_empty() {
                return Vec::new();
            }
            vec![
                maker.item("no-k8s", &json!({ "includeSubnets": [], "excludeSubnets": inside })),
                maker.item("only-k8s", &json!({ "includeSubnets": inside, "excludeSubnets": [] })),
            ]
        }
        "HostDNSConfigs.net.talos.dev" => {
            let config = machine.see(|state| state.config.clone());
            let on = |name: &str| {
                let found =
                    config.as_ref().and_then(|one| one.main().pointer(&format!("/machine/features/hostDNS/{name}")));
                found.and_then(serde_json::Value::as_bool) == Some(true)
            };
            let enabled = on("enabled");
            let listen = if enabled { vec!["127.0.0.53:53"] } else { Vec::new() };
            let value = json!({ "enabled": enabled, "listenAddresses": listen,
                "resolveMemberNames": on("resolveMemberNames") });
            vec![maker.item("config", &value)]
        }
        _ => Vec::new(),
    }
}

fn configured(machine: &Machine, pointer: &str) -> Vec<String> {
    let config = machine.see(|state| state.config.clone());
    config.map(|config| config.strings(pointer)).unwrap_or_default()
}

/// The name servers, or those that Talos takes by itself.
pub(super) fn resolvers(configured: Vec<String>) -> Vec<String> {
    if configured.is_empty() { vec!["1.1.1.1".to_owned(), "8.8.8.8".to_owned()] } else { configured }
}

/// The same for time.
pub(super) fn time_servers(configured: Vec<String>) -> Vec<String> {
    if configured.is_empty() { vec!["time.cloudflare.com".to_owned()] } else { configured }
}
