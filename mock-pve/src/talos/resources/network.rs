//! Resources about the network.

use ipnet::IpNet;
use serde_json::json;

use super::wire::Proto;
use super::{Item, Maker, Type};
use crate::world::machine::{Hostname, Link, Machine, State};

// The kernel's numbers.
const INET4: u64 = 2;
const LOOPBACK: u64 = 772;
const ETHER: u64 = 1;
const PERMANENT: u64 = 0x80;
const LINK: u64 = 253;
const HOST: u64 = 254;
const MAIN: u64 = 254;
const UNICAST: u64 = 1;
const KERNEL: u64 = 2;
const STATIC: u64 = 4;

/// The octets of a card's address.
fn mac(text: &str) -> Vec<u8> {
    text.split(':').filter_map(|part| u8::from_str_radix(part, 16).ok()).collect()
}

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let links = machine.see(|state| state.links.clone());
    match kind.name {
        "LinkStatuses.net.talos.dev" => {
            let lo = json!({ "index": 1, "type": "loopback", "hardwareAddr": "00:00:00:00:00:00", "mtu": 65536,
                "operationalState": "unknown", "linkState": true, "kind": "" });
            let proto =
                Proto::default().number(1, 1).number(2, LOOPBACK).bytes(5, &[0; 6]).number(7, 65536).flag(22, true);
            let mut all = vec![maker.typed("lo", &lo, proto)];
            all.extend(links.iter().enumerate().map(|(at, link)| {
                let value = json!({ "index": at + 2, "type": "ether", "hardwareAddr": link.mac,
                    "permanentAddr": link.mac, "mtu": 1500, "kind": "", "driver": "virtio_net", "linkState": link.up,
                    "operationalState": if link.up { "up" } else { "down" }, "speedMbit": 4_294_967_295_u32 });
                let state = if link.up { 6 } else { 2 };
                let proto = Proto::default()
                    .number(1, at as u64 + 2)
                    .number(2, ETHER)
                    .bytes(5, &mac(&link.mac))
                    .number(7, 1500)
                    .number(10, state)
                    .text(15, "virtio_net")
                    .flag(22, link.up)
                    .bytes(30, &mac(&link.mac));
                maker.typed(&link.name, &value, proto)
            }));
            all
        }
        "HardwareAddresses.net.talos.dev" => {
            let first = links.first().map(|link| json!({ "name": link.name, "hardwareAddr": link.mac }));
            first.map(|value| maker.item("first", &value)).into_iter().collect()
        }
        "AddressStatuses.net.talos.dev" => {
            let shared = machine.room().shared(machine.vmid()).into_iter().map(IpNet::from);
            let first = links.first().map(|link| link.name.clone()).unwrap_or_default();
            let own = links.iter().flat_map(|link| link.addresses.iter().map(|address| (link.name.clone(), *address)));
            let local = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::LOCALHOST, 8);
            own.chain(shared.map(|address| (first.clone(), address)))
                .map(|(link, address)| (link, address, "global"))
                .chain(std::iter::once(("lo".to_owned(), local.into(), "host")))
                .map(|(link, address, scope)| {
                    let value = json!({ "address": address.to_string(), "linkName": link, "family": "inet4",
                        "scope": scope, "flags": "permanent" });
                    let number = if scope == "host" { HOST } else { 0 };
                    let proto = Proto::default()
                        .prefix(1, address)
                        .text(7, &link)
                        .number(8, INET4)
                        .number(9, number)
                        .number(10, PERMANENT);
                    maker.typed(&format!("{link}/{address}"), &value, proto)
                })
                .collect()
        }
        "RouteStatuses.net.talos.dev" => routes(&links, &maker),
        "NodeAddresses.net.talos.dev" => node_addresses(machine, &links, &maker),
        "HostnameStatuses.net.talos.dev" => {
            let one = |Hostname { name, domain, .. }: Hostname| {
                let value = json!({ "hostname": name, "domainname": domain });
                maker.typed("hostname", &value, Proto::default().text(1, &name).text(2, &domain))
            };
            machine.see(State::named).map(one).into_iter().collect()
        }
        "NetworkStatuses.net.talos.dev" => {
            let ready = links.iter().any(|link| !link.addresses.is_empty());
            let named = machine.see(|state| state.named().is_some());
            let value = json!({ "addressReady": ready, "connectivityReady": ready, "hostnameReady": named,
                "etcFilesReady": true });
            let proto = Proto::default().flag(1, ready).flag(2, ready).flag(3, named).flag(4, true);
            vec![maker.typed("status", &value, proto)]
        }
        _ => settings(machine, &maker),
    }
}

/// To the router, and to the network around each address.
fn routes(links: &[Link], maker: &Maker) -> Vec<Item> {
    let mut all = Vec::new();
    for link in links {
        if let Some(gateway) = link.gateway.filter(|_| !link.addresses.is_empty()) {
            let value = json!({ "family": "inet4", "dst": "", "src": "", "gateway": gateway.to_string(),
                "outLinkName": link.name, "table": "main", "priority": 1024, "scope": "global",
                "type": "unicast", "protocol": "static" });
            let proto = Proto::default()
                .number(1, INET4)
                .address(4, gateway)
                .text(6, &link.name)
                .number(7, MAIN)
                .number(8, 1024)
                .number(10, UNICAST)
                .number(12, STATIC);
            all.push(maker.typed(&format!("inet4/{gateway}//1024"), &value, proto));
        }
        for address in &link.addresses {
            let network = address.trunc();
            let value = json!({ "family": "inet4", "dst": network.to_string(), "src": address.addr().to_string(),
                "gateway": "", "outLinkName": link.name, "table": "main", "priority": 0, "scope": "link",
                "type": "unicast", "protocol": "kernel" });
            let proto = Proto::default()
                .number(1, INET4)
                .prefix(2, network)
                .address(3, address.addr())
                .text(6, &link.name)
                .number(7, MAIN)
                .number(9, LINK)
                .number(10, UNICAST)
                .number(12, KERNEL);
            all.push(maker.typed(&format!("inet4//{network}/0"), &value, proto));
        }
    }
    all
}

/// The addresses that the machine has, had, and tells others.
fn node_addresses(machine: &Machine, links: &[Link], maker: &Maker) -> Vec<Item> {
    let routed: Vec<IpNet> = links.iter().flat_map(|link| link.addresses.iter().copied()).collect();
    let shared = machine.room().shared(machine.vmid()).into_iter().map(IpNet::from);
    let current: Vec<IpNet> = routed.iter().copied().chain(shared).collect();
    let one = |id: &str, some: &[IpNet]| {
        let texts: Vec<String> = some.iter().map(ToString::to_string).collect();
        let proto = some.iter().fold(Proto::default(), |proto, address| proto.prefix(1, *address));
        maker.typed(id, &json!({ "addresses": texts, "sortAlgorithm": "v1" }), proto)
    };
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

/// What follows from the configuration alone.
fn settings(machine: &Machine, maker: &Maker) -> Vec<Item> {
    match maker.0.name {
        "ResolverStatuses.net.talos.dev" => {
            let servers = resolvers(configured(machine, "/machine/network/nameservers"));
            let addresses = servers.iter().filter_map(|server| server.parse::<std::net::IpAddr>().ok());
            let proto = addresses.fold(Proto::default(), |proto, address| proto.address(1, address));
            vec![maker.typed("resolvers", &json!({ "dnsServers": servers, "searchDomains": [] }), proto)]
        }
        "TimeServerStatuses.net.talos.dev" => {
            let servers = time_servers(configured(machine, "/machine/time/servers"));
            let proto = Proto::default().texts(1, servers.iter().map(String::as_str));
            vec![maker.typed("timeservers", &json!({ "timeServers": servers }), proto)]
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
