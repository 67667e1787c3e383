//! What a machine's network is to be: the specifications behind the statuses of `network.rs`.

use serde_json::json;

use super::{Item, Maker, Type};
use crate::world::machine::{Hostname, Link, Machine, NodeConfig, State};

/// Who said so.
#[derive(Clone, Copy)]
enum Layer {
    /// Talos itself.
    Default,
    /// The configuration.
    Configuration,
}

impl Layer {
    /// The configuration's, where it says anything.
    fn of<T: ?Sized>(said: Option<&T>) -> Self {
        if said.is_some() { Self::Configuration } else { Self::Default }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Configuration => "configuration",
        }
    }
}

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let (links, config) = machine.see(|state| (state.links.clone(), state.config.clone()));
    let config = config.as_deref();
    match kind.name {
        "AddressSpecs.net.talos.dev" => addresses(machine, &maker, &links, config),
        "LinkSpecs.net.talos.dev" => {
            let one = |name: &str, kind: &str, layer: &str| {
                let value = json!({ "name": name, "logical": false, "up": true, "mtu": 0, "kind": "", "type": kind,
                    "layer": layer });
                maker.item(name, &value)
            };
            let cards =
                links.iter().map(|link| one(&link.name, "ether", Layer::of(fixed(config, link).as_ref()).name()));
            std::iter::once(one("lo", "loopback", "default")).chain(cards).collect()
        }
        "RouteSpecs.net.talos.dev" => links
            .iter()
            .filter(|link| !link.addresses.is_empty())
            .filter_map(|link| {
                let gateway = link.gateway?;
                let by = if fixed(config, link).is_some() { "configuration" } else { "operator" };
                let value = json!({ "family": "inet4", "dst": "", "src": "", "gateway": gateway.to_string(),
                    "outLinkName": link.name, "table": "main", "priority": 1024, "scope": "global",
                    "type": "unicast", "flags": "", "protocol": "static", "layer": by });
                Some(maker.item(&format!("inet4/{gateway}//1024"), &value))
            })
            .collect(),
        "OperatorSpecs.net.talos.dev" => operators(&maker, &links, config),
        "HostnameSpecs.net.talos.dev" => {
            let one = |Hostname { name, domain, layer }: Hostname| {
                maker.item("hostname", &json!({ "hostname": name, "domainname": domain, "layer": layer.as_str() }))
            };
            machine.see(State::named).map(one).into_iter().collect()
        }
        "ResolverSpecs.net.talos.dev" => {
            let set = configured(config, "/machine/network/nameservers");
            let by = Layer::of(set.first()).name();
            vec![maker.item("resolvers", &json!({ "dnsServers": super::network::resolvers(set), "layer": by }))]
        }
        "TimeServerSpecs.net.talos.dev" => {
            let set = configured(config, "/machine/time/servers");
            let by = Layer::of(set.first()).name();
            vec![maker.item("timeservers", &json!({ "timeServers": super::network::time_servers(set), "layer": by }))]
        }
        // Probes, aliases of links and rules for routes are asked for by documents that change nothing here.
        _ => Vec::new(),
    }
}

fn configured(config: Option<&NodeConfig>, pointer: &str) -> Vec<String> {
    config.map(|config| config.strings(pointer)).unwrap_or_default()
}

/// The address that the configuration gives the link.
fn fixed(config: Option<&NodeConfig>, link: &Link) -> Option<ipnet::IpNet> {
    config.and_then(|config| config.addresses(&link.name, &link.mac).into_iter().next())
}

fn addresses(machine: &Machine, maker: &Maker, links: &[Link], config: Option<&NodeConfig>) -> Vec<Item> {
    let one = |link: &str, address: &str, scope: &str, layer: &str| {
        let value = json!({ "address": address, "linkName": link, "family": "inet4", "scope": scope,
            "flags": "permanent", "layer": layer });
        maker.item(&format!("{link}/{address}"), &value)
    };
    let mut all = vec![one("lo", "127.0.0.1/8", "host", "default")];
    for link in links {
        let by = if fixed(config, link).is_some() { "configuration" } else { "operator" };
        all.extend(link.addresses.iter().map(|address| one(&link.name, &address.to_string(), "global", by)));
    }
    let shared = machine.room().shared(machine.vmid()).into_iter().map(ipnet::IpNet::from);
    let first = links.first().map_or("", |link| link.name.as_str());
    all.extend(shared.map(|address| one(first, &address.to_string(), "global", "operator")));
    all
}

/// What gets addresses at run time: clients of DHCP, and the elections for shared addresses.
fn operators(maker: &Maker, links: &[Link], config: Option<&NodeConfig>) -> Vec<Item> {
    let asks = |link: &&Link| config.is_none_or(|config| config.dhcp(&link.name, &link.mac));
    let mut all: Vec<Item> = links
        .iter()
        .filter(asks)
        .map(|link| {
            let value = json!({ "operator": "dhcp4", "linkName": link.name, "requireUp": true,
                "dhcp4": { "routeMetric": 1024 }, "layer": Layer::of(config).name() });
            maker.item(&format!("dhcp4/{}", link.name), &value)
        })
        .collect();
    if let (Some(config), Some(first)) = (config, links.first()) {
        all.extend(config.shared_addresses().into_iter().map(|address| {
            let value = json!({ "operator": "vip", "linkName": first.name, "requireUp": true,
                "vip": { "ip": address.to_string(), "gratuitousARP": true }, "layer": "configuration" });
            maker.item(&format!("vip/{}/{address}", first.name), &value)
        }));
    }
    all
}
