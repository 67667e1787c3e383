//! Documents about the network.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Check;
use super::network::filters;
use super::scalars::{holds, is_32_bytes, number, text};
use crate::talos::config::yaml::Value;

/// Checks one, if it is about the network.
pub(super) fn document(check: &mut Check<'_>) {
    match check.kind {
        "LinkConfig" | "DummyLinkConfig" | "BridgeConfig" | "VethConfig" => common(check),
        "BondConfig" => bond(check),
        "VLANConfig" => vlan(check),
        "VRFConfig" => vrf(check),
        "WireguardConfig" => wireguard(check),
        "DHCPv4Config" | "DHCPv6Config" => dhcp(check),
        "Layer2VIPConfig" | "HCloudVIPConfig" => vip(check),
        "BlackholeRouteConfig" => {
            name_is(check, "a network", |name| name.contains('/') && name.parse::<IpNet>().is_ok());
        }
        "RoutingRuleConfig" => routing_rule(check),
        "StaticHostConfig" => {
            name_is(check, "an address", |name| name.parse::<IpAddr>().is_ok());
            if check.list("hostnames").is_empty() {
                check.error("hostnames", "is missing");
            }
        }
        "NetworkRuleConfig" => rule(check),
        "KubeSpanConfig" => kubespan(check),
        "TimeSyncConfig" if check.at("ntp").is_some() && check.at("ptp").is_some() => {
            check.error("ptp", "excludes ntp: keep one");
        }
        "LinkAliasConfig" => alias(check),
        "TCPProbeConfig" if check.text("endpoint").is_none() => check.error("endpoint", "is missing"),
        "HostnameConfig" => hostname(check),
        _ => {}
    }
}

/// A rule's name is its priority, of which some are the kernel's own.
fn routing_rule(check: &mut Check<'_>) {
    name_is(check, "a priority from 1 to 32765, except 32500", |name| {
        let digits = name.bytes().all(|byte| byte.is_ascii_digit());
        digits && name.parse::<u32>().is_ok_and(|priority| ![0, 32500, 32766, 32767].contains(&priority))
    });
    let action = check.text("action").unwrap_or("unspec");
    if check.text("table").is_none_or(|table| table == "unspec") && ["unspec", "unicast"].contains(&action) {
        check.error("table", "is missing: it may be only for another action than unicast");
    }
    if number(check.at("fwMask")) != 0 && number(check.at("fwMark")) == 0 {
        check.error("fwMask", "needs fwMark");
    }
}

fn name_is(check: &mut Check<'_>, what: &str, good: impl Fn(&str) -> bool) {
    if let Some(name) = check.text("name").filter(|name| !good(name)) {
        check.error("name", format!("'{name}' must be {what}"));
    }
}

/// What all links have: addresses and routes.
fn common(check: &mut Check<'_>) {
    let unspecified = |address: &str| {
        let bare = address.split('/').next().unwrap_or_default();
        bare.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified())
    };
    for (at, address) in check.list("addresses").iter().enumerate() {
        let given = text(address, &["address"]);
        if given.is_empty() || unspecified(given) {
            check.error(&format!("addresses[{at}].address"), "must be an address with its prefix length");
        }
    }
    for (at, route) in check.list("routes").iter().enumerate() {
        for (key, what) in [("destination", "a network"), ("gateway", "an address"), ("source", "an address")] {
            if unspecified(text(route, &[key])) {
                check.error(&format!("routes[{at}].{key}"), format!("must be {what}; leave it out for the default"));
            }
        }
    }
}

fn bond(check: &mut Check<'_>) {
    if check.list("links").is_empty() {
        check.error("links", "is missing: a bond needs one at least");
    }
    if check.text("bondMode").is_none() {
        check.error("bondMode", "is missing");
    }
    common(check);
}

fn vlan(check: &mut Check<'_>) {
    if !(1..=4094).contains(&number(check.at("vlanID"))) {
        check.error("vlanID", "must be a number from 1 to 4094");
    }
    if check.text("parent").is_none() {
        check.error("parent", "is missing: the link that it lies on");
    }
    common(check);
}

fn vrf(check: &mut Check<'_>) {
    if check.text("table").is_none_or(|table| ["unspec", "local", "main", "default"].contains(&table)) {
        check.error("table", "must be a routing table of its own");
    }
    common(check);
}

fn wireguard(check: &mut Check<'_>) {
    const KEY: &str = "must be a WireGuard key: 32 bytes in base64";
    if !check.text("privateKey").is_some_and(is_32_bytes) {
        check.error("privateKey", KEY);
    }
    if !(0..=65535).contains(&number(check.at("listenPort"))) {
        check.error("listenPort", "must be a port");
    }
    for (at, peer) in check.list("peers").iter().enumerate() {
        if !is_32_bytes(text(peer, &["publicKey"])) {
            check.error(&format!("peers[{at}].publicKey"), KEY);
        }
        if holds(peer, "presharedKey") && !is_32_bytes(text(peer, &["presharedKey"])) {
            check.error(&format!("peers[{at}].presharedKey"), KEY);
        }
    }
    common(check);
}

fn dhcp(check: &mut Check<'_>) {
    let duid = check.text("clientIdentifier") == Some("duid");
    match (duid, check.text("duidRaw").is_some()) {
        (true, false) => check.error("duidRaw", "is missing: clientIdentifier is duid"),
        (false, true) => check.error("duidRaw", "needs clientIdentifier: duid"),
        _ => {}
    }
}

fn vip(check: &mut Check<'_>) {
    name_is(check, "an address", |name| name.parse::<IpAddr>().is_ok());
    if check.text("link").is_none() {
        check.error("link", "is missing: the link that carries the address");
    }
    if check.kind == "HCloudVIPConfig" && check.text("apiToken").is_none() {
        check.error("apiToken", "is missing");
    }
}

fn rule(check: &mut Check<'_>) {
    let ports = check.list("portSelector.ports");
    if ports.is_empty() {
        return check.error("portSelector.ports", "is missing");
    }
    let mut ranges: Vec<(u16, u16, usize)> =
        ports.iter().enumerate().filter_map(|(at, port)| range(port).map(|(low, high)| (low, high, at))).collect();
    ranges.sort_unstable();
    for (low, high, at) in ranges.iter().copied().filter(|(low, high, _)| low > high) {
        check.error(&format!("portSelector.ports[{at}]"), format!("{low}-{high} is no range"));
    }
    for pair in ranges.windows(2).filter(|pair| pair[1].0 <= pair[0].1) {
        check.error(&format!("portSelector.ports[{}]", pair[1].2), "overlaps with another one");
    }
    for (at, source) in check.list("ingress").iter().enumerate() {
        if text(source, &["subnet"]).is_empty() {
            check.error(&format!("ingress[{at}].subnet"), "is missing");
        }
    }
}

fn range(port: &Value) -> Option<(u16, u16)> {
    if let Value::Number(number) = port {
        return number.normal().parse().ok().map(|port| (port, port));
    }
    let (low, high) = port.as_text()?.split_once('-')?;
    Some((low.parse().ok()?, high.parse().ok()?))
}

fn kubespan(check: &mut Check<'_>) {
    if check.at("mtu").is_some() && number(check.at("mtu")) < 1280 {
        check.error("mtu", "must be at least 1280");
    }
    filters(check, "filters.endpoints");
}

fn alias(check: &mut Check<'_>) {
    name_is(check, "a name, or one that ends with %d", |name| match name.split_once('%') {
        Some((prefix, suffix)) => suffix == "d" && !prefix.is_empty(),
        None => true,
    });
    if check.text("selector.match").is_none() {
        check.error("selector.match", "is missing");
    }
}

fn hostname(check: &mut Check<'_>) {
    match (check.text("auto"), check.text("hostname")) {
        (None, None) => check.error("", "needs auto or hostname"),
        (None | Some("off"), Some(_)) | (Some("stable" | "off"), None) => {}
        (Some(_), Some(_)) => check.error("hostname", "excludes auto: say auto: off, or leave hostname out"),
        (Some(other), None) => check.error("auto", format!("'{other}' is for Talos itself: say stable or off")),
    }
    if let Some(name) = check.text("hostname") {
        let label = name.split('.').next().unwrap_or_default();
        if name.len() > 253 || label.is_empty() || label.len() > 63 {
            check.error("hostname", "is too long, or begins with a dot");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Mode, validate};

    /// What is wrong with a document beside a main one that is there.
    fn wrong(document: &str) -> Vec<String> {
        let text = format!("apiVersion: v1alpha1\n{document}");
        let found = validate(&text, Mode::Cloud).unwrap();
        found.errors.iter().map(|finding| format!("{} {}", finding.spot.line, finding.path)).collect()
    }

    #[test]
    fn each_document_of_the_network_is_checked_where_it_is_wrong() {
        let cases: [(&str, &[&str]); 12] = [
            ("kind: BondConfig\nname: bond0\nlinks: [a]\nbondMode: 802.3ad\n", &[]),
            ("kind: BondConfig\nname: bond0\n", &["1 links", "1 bondMode"]),
            ("kind: VLANConfig\nname: v\nvlanID: 4095\nparent: eth0\n", &["4 vlanID"]),
            ("kind: LinkConfig\nname: e\naddresses:\n  - address: 0.0.0.0/0\n", &["5 addresses[0].address"]),
            ("kind: Layer2VIPConfig\nname: vip\nlink: e\n", &["3 name"]),
            ("kind: StaticHostConfig\nname: 10.0.0.1\n", &["1 hostnames"]),
            (
                "kind: NetworkRuleConfig\nname: r\nportSelector: {ports: [10-20, 15], protocol: tcp}\ningress: []\n",
                &["4 portSelector.ports[1]"],
            ),
            ("kind: DHCPv4Config\nname: e\nclientIdentifier: duid\n", &["1 duidRaw"]),
            ("kind: HostnameConfig\nauto: stable\nhostname: a\n", &["4 hostname"]),
            ("kind: HostnameConfig\nauto: talos-addr\n", &["3 auto"]),
            ("kind: HostnameConfig\nauto: off\nhostname: a\n", &[]),
            ("kind: LinkAliasConfig\nname: a%x\nselector: {match: \"true\"}\n", &["3 name"]),
        ];
        for (document, expected) in cases {
            assert_eq!(wrong(document), expected, "{document}");
        }
    }
}
