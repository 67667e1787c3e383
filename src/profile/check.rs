//! Rules that a profile or site must keep beyond the form of its keys.
//!
//! Purpose: everything that can be known wrong from the files alone, before anything is asked of PVE. A rule about a key
//! that could not be read stays silent: that problem has been noted.
//! Must not know: what runs. Start reading at [`profile`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;

use super::load::Log;
use super::problem::Problem;
use super::{Assignment, Backup, DiscoveryMode, Group, Kind, Profile, Site, StartVmId};
use crate::types::{Role, VmId};

/// PVE configuration keys that recast sets itself, and where a profile says them.
const OWNED: &[(&str, &str)] = &[
    ("vmid", "`start_vmid` or an assignment"),
    ("name", "`name_prefix` or an assignment"),
    ("cores", "`cores`"),
    ("memory", "`memory`"),
    ("tags", "`tags`"),
    ("scsi0", "`disk`"),
    ("net0", "`network` and an assignment's `mac`"),
    ("boot", "recast: it boots from scsi0"),
    ("efidisk0", "recast"),
    ("template", "recast"),
    ("description", "recast"),
    ("digest", "recast"),
    ("lock", "recast"),
];

/// Tags that tell no cluster from another: templates carry the first two, every VM of a role the others.
const COMMON_TAGS: &[&str] = &["talos", "template", "controlplane", "worker"];

pub(super) fn profile(profile: &Profile, file: &str, log: &Log<'_>) {
    name(profile, file, log);
    tags(profile, log);
    match profile.kind {
        Kind::Talos => talos(profile, log),
        Kind::Generic => {
            let present = [
                ("talos", profile.talos.is_some()),
                ("flux", profile.flux.is_some()),
                ("backup", profile.backup != Backup::default()),
                ("bootstrap", !profile.bootstrap.apply.is_empty()),
            ];
            for (key, present) in present {
                if present {
                    log.rule(Problem::at(key, "has no effect in a profile of type generic").warning());
                }
            }
        }
    }
    for (role, key, group) in profile.nodes.iter() {
        self::group(role, &format!("nodes.{key}"), group, log);
    }
    if profile.nodes.iter().all(|(_, _, group)| group.count == 0) {
        log.rule(Problem::at("nodes", "there are no VMs in it"));
    }
    unique(profile, log);
    networks(profile, log);
    addresses(profile, log);
    if let Some(template) = profile.template {
        vmid(template, "template", log);
    }
    around(profile, log);
    if profile.guards.max_destroy == Some(0) {
        log.rule(Problem::at("guards.max_destroy", "0 would stop every rebuild").hinted("leave it out for no limit"));
    }
}

/// Backups, what follows bootstrap, and what needs another key beside it.
fn around(profile: &Profile, log: &Log<'_>) {
    if profile.guards.require_copy && profile.backup.copies.is_empty() && !log.spoilt("backup") {
        log.rule(Problem::at("guards.require_copy", "no copy is configured").hinted("say where in `backup.copies`"));
    }
    if profile.guards.snapshot_max_age.is_zero() {
        log.rule(Problem::at("guards.snapshot_max_age", "no proof of backup would ever be new enough"));
    }
    if profile.backup.keep == Some(0) {
        log.rule(Problem::at("backup.keep", "0 would keep nothing").hinted("leave it out to keep all"));
    }
    if profile.finish.git.is_some_and(|git| git.push && !git.commit) {
        log.rule(Problem::at("finish.git.push", "there is nothing to push without `commit`"));
    }
    if profile.finish.flux && profile.flux.is_none() && !log.spoilt("flux") {
        log.rule(Problem::at("finish.flux", "needs `flux` to say which repository"));
    }
    if profile.address_discovery.mode == DiscoveryMode::CloudInit {
        let unaddressed: Vec<String> = profile
            .nodes
            .iter()
            .flat_map(|(_, _, group)| (0..group.count).map(move |index| (group, group.member(index))))
            .filter(|(group, name)| group.assignment(name).is_none_or(|it| it.ip.is_none()))
            .map(|(_, name)| name.to_string())
            .collect();
        let mode = "address_discovery.mode";
        if !unaddressed.is_empty() {
            let who = unaddressed.join(", ");
            log.rule(
                Problem::at(mode, format!("cloud-init can't give {who} an address"))
                    .hinted("give each machine an `ip` in its assignment"),
            );
        }
        if profile.network.prefix.is_none() && !log.spoilt("network.prefix") {
            log.rule(Problem::at(mode, "cloud-init needs `network.prefix` and `network.gateway`"));
        }
    }
}

fn name(profile: &Profile, file: &str, log: &Log<'_>) {
    if !is_label(&profile.name) {
        log.rule(Problem::at("name", format!("'{}' is not a name: letters, digits and dashes", profile.name)));
    }
    let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    if stem != profile.name {
        log.rule(
            Problem::at("name", format!("'{}' is not the file's name", profile.name))
                .hinted(format!("name it `{stem}`, or the file `{}.yaml`", profile.name)),
        );
    }
}

fn tags(profile: &Profile, log: &Log<'_>) {
    let mut seen = BTreeSet::new();
    for (index, tag) in profile.tags.iter().enumerate() {
        let key = format!("tags[{index}]");
        // (pve-common, JSONSchema.pm: pve-tag)
        let valid = tag
            .chars()
            .enumerate()
            .all(|(at, c)| c.is_ascii_alphanumeric() || c == '_' || at > 0 && matches!(c, '-' | '+' | '.'));
        if !valid {
            log.rule(Problem::at(key.clone(), format!("'{tag}' is not a tag that PVE takes")));
        }
        if !seen.insert(tag.to_ascii_lowercase()) {
            log.rule(Problem::at(key.clone(), format!("'{tag}' occurs twice")).warning());
        }
        if ["controlplane", "worker"].contains(&tag.as_str()) {
            log.rule(Problem::at(key, format!("'{tag}' is appended by role; here it is on every VM")).warning());
        }
    }
    if seen.is_empty() {
        log.rule(Problem::at("tags", "there must be at least one: tags say which VMs belong to the cluster"));
    } else if seen.iter().all(|tag| COMMON_TAGS.contains(&tag.as_str())) {
        log.rule(
            Problem::at("tags", "none of these is the cluster's own")
                .hinted(format!("add one that no other cluster has, such as `{}`", profile.name)),
        );
    }
}

fn talos(profile: &Profile, log: &Log<'_>) {
    if profile.talos.is_none() {
        log.rule(Problem::at("talos", "this key is missing: a profile of type talos needs it"));
    }
    if profile.network.api_endpoint.is_none() {
        log.rule(Problem::at("network.api_endpoint", "this key is missing: a profile of type talos needs it"));
    }
    match profile.nodes.controlplane.as_ref().map_or(0, |group| group.count) {
        0 => log.rule(Problem::at("nodes.controlplane.count", "a cluster needs at least one control plane")),
        even if even % 2 == 0 => log.rule(
            Problem::at(
                "nodes.controlplane.count",
                format!("{even} control planes bear no more losses than {}", even - 1),
            )
            .warning(),
        ),
        _ => {}
    }
    if let Some(factory) = profile.talos.as_ref().map(|talos| &talos.factory)
        && factory.schematic_id.is_none()
        && factory.extensions.is_empty()
    {
        log.rule(
            Problem::at("talos.factory", "neither `schematic_id` nor `extensions`: images come without a guest agent")
                .warning(),
        );
    }
}

fn group(role: Role, path: &str, group: &Group, log: &Log<'_>) {
    let at = |key: &str| format!("{path}.{key}");
    if group.count > 99 {
        log.rule(Problem::at(at("count"), "more than 99: names have two digits"));
        return;
    }
    let longest = group.member(0);
    if !is_label(longest.as_str()) || group.name_prefix.contains('.') {
        log.rule(
            Problem::at(at("name_prefix"), format!("'{longest}' would not be a host name"))
                .hinted("lower-case letters, digits and dashes, at most 63 with the number"),
        );
    }
    if group.cores == 0 {
        log.rule(Problem::at(at("cores"), "there must be at least one"));
    }
    if group.memory_mb < 16 {
        log.rule(Problem::at(at("memory"), "less than PVE allows: it is counted in MB"));
    } else if role == Role::ControlPlane && group.memory_mb < 2048 {
        log.rule(Problem::at(at("memory"), "less than the 2048 MB that Talos asks of a control plane").warning());
    }
    if let StartVmId::At(start) = group.start_vmid {
        vmid(start, &at("start_vmid"), log);
    }
    hardware(&group.vm, &at("vm"), log);
    let known = !log.spoilt(&at("count")) && !log.spoilt(&at("name_prefix"));
    let names: Vec<_> = (0..group.count).map(|index| group.member(index)).collect();
    for (index, assignment) in group.assignments.iter().enumerate() {
        let at = |key: &str| format!("{path}.assignments[{index}].{key}");
        if known && !names.contains(&assignment.name) {
            let names = match (names.first(), names.last()) {
                (Some(first), Some(last)) if first != last => format!("the group's names are {first} to {last}"),
                (Some(only), _) => format!("the group's only name is {only}"),
                _ => "the group's count is 0".to_owned(),
            };
            log.rule(
                Problem::at(at("name"), format!("'{}' is not a name of this group", assignment.name)).hinted(names),
            );
        }
        if let Some(id) = assignment.vmid {
            vmid(id, &at("vmid"), log);
        }
        if assignment.mac.is_some_and(|mac| mac.0[0] & 1 == 1) {
            log.rule(Problem::at(at("mac"), "this is a multicast address"));
        }
        hardware(&assignment.vm, &at("vm"), log);
    }
}

fn hardware(vm: &BTreeMap<String, String>, path: &str, log: &Log<'_>) {
    for key in vm.keys() {
        if let Some((_, place)) = OWNED.iter().find(|(owned, _)| owned == key) {
            log.rule(Problem::at(format!("{path}.{key}"), format!("this is set by {place}")));
        } else if !key.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-') {
            log.rule(Problem::at(format!("{path}.{key}"), "this is no configuration key of PVE"));
        }
    }
}

fn vmid(vmid: VmId, path: &str, log: &Log<'_>) {
    if !(100..=999_999_999).contains(&vmid.0) {
        log.rule(Problem::at(path, format!("{vmid} is not a VMID: they go from 100 to 999999999")));
    }
}

pub(super) fn assignments(profile: &Profile) -> impl Iterator<Item = (String, &Assignment)> {
    profile.nodes.iter().flat_map(|(_, key, group)| {
        let path = move |index| format!("nodes.{key}.assignments[{index}]");
        group.assignments.iter().enumerate().map(move |(index, assignment)| (path(index), assignment))
    })
}

/// What may be given to one VM only: names, VMIDs, MAC addresses. Addresses are among [`addresses`].
fn unique(profile: &Profile, log: &Log<'_>) {
    let mut first: BTreeMap<String, String> = BTreeMap::new();
    let mut once = |what: &str, value: String, path: String| {
        if let Some(other) = first.insert(format!("{what} {value}"), path.clone()) {
            let problem = Problem::at(path, format!("{what} {value} is also that of {other}"));
            log.rule(problem.hinted("each machine needs one of its own"));
        }
    };
    if let Some(template) = profile.template {
        once("VMID", template.to_string(), "template".to_owned());
    }
    for (path, assignment) in assignments(profile) {
        once("name", assignment.name.to_string(), format!("{path}.name"));
        if let Some(vmid) = assignment.vmid {
            once("VMID", vmid.to_string(), format!("{path}.vmid"));
        }
        if let Some(mac) = assignment.mac {
            once("MAC address", mac.to_string(), format!("{path}.mac"));
        }
    }
    if let (Some(control), Some(workers)) = (&profile.nodes.controlplane, &profile.nodes.workers)
        && control.name_prefix == workers.name_prefix
        && control.count > 0
        && workers.count > 0
    {
        log.rule(Problem::at("nodes.workers.name_prefix", "the control planes have the same names"));
    }
    overlap(profile, log);
}

/// Ids that two groups count up to: neither would get what it says.
fn overlap(profile: &Profile, log: &Log<'_>) {
    let (Some(control), Some(workers)) = (&profile.nodes.controlplane, &profile.nodes.workers) else { return };
    let range = |group: &Group| match group.start_vmid {
        StartVmId::At(start) if group.count > 0 && group.assignments.len() < group.count as usize => {
            let rest = group.count - u32::try_from(group.assignments.len()).unwrap_or_default();
            Some((start.0, start.0.saturating_add(rest - 1)))
        }
        _ => None,
    };
    if let (Some(a), Some(b)) = (range(control), range(workers))
        && a.0 <= b.1
        && b.0 <= a.1
    {
        log.rule(
            Problem::at(
                "nodes.workers.start_vmid",
                format!("VMIDs {} to {} overlap the control planes' {} to {}", b.0, b.1, a.0, a.1),
            )
            .hinted(format!("start at {} or above", a.1 + 1)),
        );
    }
}

fn networks(profile: &Profile, log: &Log<'_>) {
    let network = &profile.network;
    let longest = |address: Option<IpAddr>| if address.is_some_and(|ip| ip.is_ipv6()) { 128 } else { 32 };
    if network.prefix.is_some_and(|prefix| prefix == 0 || prefix > longest(network.gateway)) {
        log.rule(Problem::at("network.prefix", "this is not a prefix length"));
    }
    if network.gateway.is_some() && network.prefix.is_none() && !log.spoilt("network.prefix") {
        log.rule(
            Problem::at("network.gateway", "needs `network.prefix` beside it").hinted("`prefix: 24` for 255.255.255.0"),
        );
    }
    if network.vlan.is_some_and(|vlan| !(1..=4094).contains(&vlan)) {
        log.rule(Problem::at("network.vlan", "VLAN tags go from 1 to 4094"));
    }
    if network.mtu.is_some_and(|mtu| mtu < 576) {
        log.rule(Problem::at("network.mtu", "this is too small for IP"));
    }
    let pods = ("network.pod_cidr", network.pod_cidr);
    let services = ("network.service_cidr", network.service_cidr);
    let mut known: Vec<(&str, IpNet)> = vec![pods, services];
    known.extend(network.subnet().map(|subnet| ("network.gateway", subnet)));
    for (path, net) in [pods, services] {
        if net != net.trunc() {
            log.rule(
                Problem::at(path, format!("{net} has host bits set")).hinted(format!("the network is {}", net.trunc())),
            );
        }
    }
    for (index, (path, net)) in known.iter().enumerate() {
        for (other, theirs) in &known[..index] {
            if overlaps(net, theirs) {
                log.rule(Problem::at(*path, format!("{} overlaps {theirs} of {other}", net.trunc())));
            }
        }
    }
    let scanned = profile.address_discovery.subnet;
    if scanned.is_some_and(|subnet| subnet.max_prefix_len() - subnet.prefix_len() > 16) {
        log.rule(Problem::at("address_discovery.subnet", "too large to scan: 65536 addresses at most"));
    }
}

/// Addresses are the machines', the gateway's and the shared one: each once, and all in the machines' network.
fn addresses(profile: &Profile, log: &Log<'_>) {
    let network = &profile.network;
    let subnet = network.subnet();
    let mut taken: BTreeMap<IpAddr, String> = BTreeMap::new();
    let mut check = |address: IpAddr, path: String| {
        if let Some(subnet) = subnet {
            if !subnet.contains(&address) {
                log.rule(
                    Problem::at(path.clone(), format!("{address} is not in {subnet}"))
                        .hinted("the network is that of `network.gateway` and `network.prefix`"),
                );
            } else if subnet.prefix_len() < subnet.max_prefix_len() - 1
                && (address == subnet.network() || address == subnet.broadcast() && address.is_ipv4())
            {
                log.rule(Problem::at(path.clone(), format!("{address} is no host's address in {subnet}")));
            }
        }
        for (key, net) in [("pod_cidr", network.pod_cidr), ("service_cidr", network.service_cidr)] {
            if net.contains(&address) {
                log.rule(Problem::at(path.clone(), format!("{address} is in {net} of network.{key}")));
            }
        }
        if let Some(other) = taken.insert(address, path.clone()) {
            let problem = Problem::at(path, format!("address {address} is also that of {other}"));
            log.rule(problem.hinted("each machine needs one of its own"));
        }
    };
    if let Some(gateway) = network.gateway {
        check(gateway, "network.gateway".to_owned());
    }
    if let Some(vip) = profile.talos.as_ref().and_then(|talos| talos.vip.as_ref()) {
        check(vip.ip, "talos.vip.ip".to_owned());
    }
    for (path, assignment) in assignments(profile) {
        if let Some(ip) = assignment.ip {
            check(ip, format!("{path}.ip"));
        }
    }
}

pub(super) fn site(site: &Site, log: &Log<'_>) {
    if site.endpoints.is_empty() {
        log.rule(Problem::at("endpoints", "there must be at least one"));
    }
    if site.nodes.is_empty() {
        log.rule(Problem::at("nodes", "there must be at least one"));
    }
    if let Some(registry) = site.factory.registry.as_ref().filter(|registry| registry.contains("://")) {
        let problem = Problem::at("factory.registry", format!("'{registry}' is a URL, not a registry's host"));
        log.rule(problem.hinted("image references have no scheme: registry.example.org:5000"));
    }
    let mut names = BTreeSet::new();
    for (index, node) in site.nodes.iter().enumerate() {
        if !names.insert(&node.name) {
            log.rule(Problem::at(format!("nodes[{index}].name"), format!("'{}' occurs twice", node.name)));
        }
    }
    let ranges = &site.vmid_ranges;
    if ranges.templates.first <= ranges.vms.last && ranges.vms.first <= ranges.templates.last {
        log.rule(Problem::at("vmid_ranges.vms", "overlaps `vmid_ranges.templates`"));
    }
    for (index, dial) in site.dial.iter().enumerate() {
        let same =
            dial.from.prefix_len() == dial.to.prefix_len() && dial.from.addr().is_ipv4() == dial.to.addr().is_ipv4();
        if !same {
            log.rule(Problem::at(format!("dial[{index}]"), "`from` and `to` must be networks of one size and family"));
        }
        let earlier = site.dial[..index].iter().any(|other| overlaps(&other.from, &dial.from));
        if earlier {
            log.rule(Problem::at(format!("dial[{index}].from"), format!("{} is mapped above already", dial.from)));
        }
    }
}

pub(super) fn overlaps(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// A DNS label, as host names and PVE's VM names need it.
fn is_label(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}
