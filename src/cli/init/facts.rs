//! From what runs to what a profile says of it.
//!
//! Purpose: pure. Everything that a profile can't say, or that two machines disagree about, is a problem (it stops, all at
//! once) or a note (it is told). Must not know: how any of it was read, or how it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use secrecy::ExposeSecret as _;

use super::look::{Found, Seen, problem};
use super::view::View;
use crate::event::Failure;
use crate::profile::Defaults;
use crate::pve::Properties;
use crate::talos::config::Config;
use crate::types::{Mac, MachineName, NodeName, Role, SchematicId, Version, VmId};

/// Keys of a VM that a profile keeps as they are, beside those that it has words of its own for.
const KEPT: &[&str] = &["affinity", "args", "cpulimit", "cpuunits", "hugepages", "numa", "rng0", "vga", "watchdog"];
const KEPT_NUMBERED: &[&str] = &["hostpci", "numa", "usb"];

/// What a VM has where its configuration says nothing (Proxmox VE, PVE/QemuServer.pm).
const UNSAID: [(&str, &str); 5] =
    [("bios", "seabios"), ("machine", "pc"), ("cpu", "kvm64"), ("scsihw", "lsi"), ("ostype", "other")];

/// Everything that the profile says.
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) talos: Version,
    pub(super) kubernetes: Version,
    /// As the profile has it: without scheme.
    pub(super) endpoint: String,
    pub(super) pod_cidr: Option<IpNet>,
    pub(super) service_cidr: Option<IpNet>,
    pub(super) vip: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) prefix: Option<u8>,
    pub(super) nameservers: Vec<IpAddr>,
    pub(super) mtu: Option<u16>,
    pub(super) bridge: Option<String>,
    pub(super) vlan: Option<u16>,
    pub(super) install_disk: Option<String>,
    pub(super) factory: Factory,
    pub(super) groups: Vec<Group>,
    pub(super) template: Option<VmId>,
    pub(super) tags: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// What images are made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Factory {
    pub(super) schematic: Option<SchematicId>,
    pub(super) extensions: Vec<String>,
    pub(super) arm: bool,
}

/// VMs of one role.
pub(super) struct Group {
    pub(super) key: &'static str,
    pub(super) prefix: String,
    pub(super) cores: u64,
    pub(super) memory: u64,
    pub(super) disk_gib: u64,
    /// Where it isn't that of the first group.
    pub(super) factory: Option<Factory>,
    pub(super) vm: BTreeMap<String, String>,
    pub(super) rows: Vec<Row>,
}

/// One VM.
pub(super) struct Row {
    pub(super) name: MachineName,
    pub(super) node: NodeName,
    pub(super) vmid: VmId,
    pub(super) ip: Option<IpAddr>,
    pub(super) mac: Option<Mac>,
    pub(super) vm: BTreeMap<String, String>,
}

/// A VM with its machine's configuration read.
pub(super) struct Read<'a> {
    pub(super) seen: &'a Seen,
    pub(super) view: View,
}

/// Reads the configurations; a VM whose machine has one that can't be read is a problem.
pub(super) fn read<'a>(found: &'a Found, problems: &mut Vec<Failure>) -> Vec<Read<'a>> {
    let mut read = Vec::new();
    for seen in &found.vms {
        match Config::parse(seen.machine.config.expose_secret()) {
            Ok(config) if !config.documents().is_empty() => read.push(Read { seen, view: View(config) }),
            Ok(_) | Err(_) => problems.push(problem(
                format!("the machine in {} has no configuration that can be read", seen.shown()),
                "look at it with talosctl get machineconfig; a machine in maintenance has none yet",
            )),
        }
    }
    read
}

/// The cluster's facts; `defaults` are the site's.
pub(super) fn facts(
    read: &[Read<'_>],
    found: &Found,
    tags: &[String],
    defaults: &Defaults,
    problems: &mut Vec<Failure>,
) -> Option<Facts> {
    one_cluster(read, problems);
    let planes: Vec<&Read<'_>> = read.iter().filter(|one| one.view.role() == Role::ControlPlane).collect();
    let Some(plane) = planes.first() else {
        let hint = "the tags must be on the control planes too: the secrets are taken over from one";
        problems.push(problem("none of the VMs is a control plane", hint));
        return None;
    };
    let mut notes = Vec::new();
    let talos = one_version(read, problems);
    let kubernetes =
        plane.view.version("cluster.apiServer.image", "KubeAPIServerConfig").or_else(|| plane.view.kubelet());
    if kubernetes.is_none() {
        problems.push(problem(
            format!("the Kubernetes version of {} can't be told from its configuration", plane.seen.shown()),
            "the image of kube-apiserver or kubelet must have a version for its tag",
        ));
    }
    for one in read {
        if let (Some(kubelet), Some(wanted)) = (one.view.kubelet(), &kubernetes)
            && kubelet != *wanted
        {
            notes.push(format!("{} runs kubelet {kubelet}, the API servers {wanted}", one.seen.shown()));
        }
    }
    let (name, endpoint) = (plane.view.cluster(), plane.view.endpoint());
    let (Some(name), Some(endpoint)) = (name, endpoint) else {
        problems.push(problem(
            format!("the configuration of {} names no cluster or endpoint", plane.seen.shown()),
            "it must have cluster.clusterName and cluster.controlPlane.endpoint",
        ));
        return None;
    };
    let vip = planes.iter().find_map(|one| one.view.vip());
    let addresses: Vec<Option<IpNet>> = read.iter().map(|one| static_address(one, vip)).collect();
    let prefixes: BTreeSet<u8> = addresses.iter().flatten().map(IpNet::prefix_len).collect();
    let gateways: BTreeSet<IpAddr> = read.iter().filter_map(|one| one.view.gateway()).collect();
    let prefix = prefixes.first().copied().filter(|_| prefixes.len() == 1);
    let gateway = gateways.first().copied().filter(|_| gateways.len() == 1 && prefix.is_some());
    let mut groups = Vec::new();
    for (role, key) in [(Role::ControlPlane, "controlplane"), (Role::Worker, "workers")] {
        let members: Vec<&Read<'_>> = read.iter().filter(|one| one.view.role() == role).collect();
        if !members.is_empty() {
            groups.extend(group(key, &members, vip, defaults, problems, &mut notes));
        }
    }
    let factory = groups.first().and_then(|group| group.factory.clone()).unwrap_or_default();
    for group in &mut groups {
        group.factory = group.factory.take().filter(|own| *own != factory);
    }
    let nic = plane.seen.config.nics().get("net0").cloned();
    let bridge = nic.as_ref().and_then(|nic| nic.bridge()).map(str::to_owned);
    Some(Facts {
        name: name.to_owned(),
        kubernetes: kubernetes?,
        endpoint: endpoint.trim_start_matches("https://").trim_end_matches('/').to_owned(),
        pod_cidr: plane.view.subnet("cluster.network.podSubnets", "podSubnets"),
        service_cidr: plane.view.subnet("cluster.network.serviceSubnets", "serviceSubnets"),
        vip,
        gateway,
        prefix,
        nameservers: common(read.iter().map(|one| one.view.nameservers())).unwrap_or_default(),
        mtu: common(read.iter().map(|one| one.view.mtu())).flatten(),
        bridge: bridge.filter(|bridge| *bridge != defaults.bridge),
        vlan: nic.as_ref().and_then(crate::pve::Nic::tag).filter(|tag| defaults.vlan != Some(*tag)),
        install_disk: plane.view.install_disk().filter(|disk| disk.starts_with("/dev/")).map(str::to_owned),
        factory,
        groups,
        template: template(found, &talos?),
        tags: tags.to_vec(),
        notes,
        talos: talos_of(read)?,
    })
}

/// The one value, where all have it.
fn common<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Option<T> {
    let mut values = values.into_iter();
    let first = values.next()?;
    values.all(|other| other == first).then_some(first)
}

fn talos_of(read: &[Read<'_>]) -> Option<Version> {
    read.first().map(|one| one.seen.machine.release.clone())
}

/// All machines have one identity: two clusters can't share a profile.
fn one_cluster(read: &[Read<'_>], problems: &mut Vec<Failure>) {
    let mut clusters: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in read {
        let place = clusters.entry(one.view.id().unwrap_or_default()).or_default();
        let name = one.view.cluster().map_or_else(String::new, |name| format!(" of cluster {name}"));
        place.push(format!("{}{name}", one.seen.shown()));
    }
    if clusters.len() > 1 {
        let mut stop = problem(
            "the VMs with the tags are of several clusters",
            "a profile is one cluster: name tags that only its VMs have",
        );
        stop.causes = clusters.into_values().map(|members| members.join(", ")).collect();
        problems.push(stop);
    }
}

fn one_version(read: &[Read<'_>], problems: &mut Vec<Failure>) -> Option<Version> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in read {
        versions.entry(one.seen.machine.release.to_string()).or_default().push(one.seen.shown());
    }
    if versions.len() > 1 {
        let mut stop = problem(
            "the machines run different versions of Talos",
            "a profile has one: finish the upgrade that is under way, with talosctl upgrade",
        );
        stop.causes =
            versions.into_iter().map(|(version, members)| format!("{version}: {}", members.join(", "))).collect();
        problems.push(stop);
        return None;
    }
    talos_of(read)
}

/// The static address that the machine is known by.
fn static_address(one: &Read<'_>, vip: Option<IpAddr>) -> Option<IpNet> {
    let all = one.view.addresses();
    let reached = all.iter().find(|address| one.seen.machine.addresses.contains(&address.addr()));
    reached.or_else(|| all.iter().find(|address| Some(address.addr()) != vip)).copied()
}

fn group(
    key: &'static str,
    members: &[&Read<'_>],
    vip: Option<IpAddr>,
    defaults: &Defaults,
    problems: &mut Vec<Failure>,
    notes: &mut Vec<String>,
) -> Option<Group> {
    let prefix = prefix(key, members, problems)?;
    let config = |one: &&&Read<'_>| one.seen.config.clone();
    let cores = largest("cores", members, |one| one.seen.config.cores(), notes);
    let memory = largest("MB of memory", members, |one| one.seen.config.memory_mib(), notes);
    let disk_gib = largest("GiB of disk", members, |one| disk_gib(one.seen), notes);
    let factories: Vec<Factory> = members.iter().map(|one| factory(one.seen)).collect();
    let factory = factories.first().cloned();
    for (one, other) in members.iter().zip(&factories) {
        if Some(other) != factory.as_ref() {
            notes.push(format!(
                "{} runs another schematic or other extensions than {}: a rebuild gives all {key} the latter's",
                one.seen.shown(),
                members[0].seen.shown()
            ));
        }
    }
    let kept: Vec<BTreeMap<String, String>> = members.iter().map(|one| hardware(&config(&one), defaults)).collect();
    let shared: BTreeMap<String, String> = kept.first().map_or_else(BTreeMap::new, |first| {
        let everywhere = |(key, value): &(&String, &String)| kept.iter().all(|one| one.get(*key) == Some(*value));
        first.iter().filter(everywhere).map(|(key, value)| (key.clone(), value.clone())).collect()
    });
    let mut rows: Vec<Row> = members
        .iter()
        .zip(kept)
        .map(|(one, mut own)| {
            own.retain(|key, value| shared.get(key) != Some(value));
            let reached = one.seen.machine.addresses.iter().find(|address| Some(**address) != vip).copied();
            Row {
                name: MachineName::new(one.seen.machine.hostname.clone()),
                node: one.seen.at.node.clone(),
                vmid: one.seen.at.vmid,
                ip: static_address(one, vip).map(|address| address.addr()).or(reached),
                mac: one.seen.mac(),
                vm: own,
            }
        })
        .collect();
    rows.sort_by(|one, other| one.name.cmp(&other.name));
    for one in members {
        let vm = one.seen.config.name().unwrap_or_default();
        if vm != one.seen.machine.hostname {
            notes.push(format!(
                "VM {} is called {vm}, its machine {}: new VMs are called like their machines",
                one.seen.at.vmid, one.seen.machine.hostname
            ));
        }
    }
    Some(Group { key, prefix, cores, memory, disk_gib, factory, vm: shared, rows })
}

/// What all of a group's names begin with; they count up from 01.
fn prefix(key: &str, members: &[&Read<'_>], problems: &mut Vec<Failure>) -> Option<String> {
    let names: BTreeSet<String> = members.iter().map(|one| one.seen.machine.hostname.clone()).collect();
    let prefix = names.first().and_then(|first| first.strip_suffix("01")).map(str::to_owned);
    let counted = prefix
        .as_ref()
        .is_some_and(|prefix| (1..=members.len()).all(|number| names.contains(&format!("{prefix}{number:02}"))));
    if counted {
        return prefix;
    }
    let shown: Vec<&str> = names.iter().map(String::as_str).collect();
    problems.push(problem(
        format!("a profile can't name the {key}: {}", shown.join(", ")),
        "its machines are named by a prefix and 01, 02 … without a gap; give the machines such host names first",
    ));
    None
}

/// The largest of what the members have: nothing is made smaller. Who has less is told.
fn largest(what: &str, members: &[&Read<'_>], of: impl Fn(&Read<'_>) -> u64, notes: &mut Vec<String>) -> u64 {
    let most = members.iter().map(|one| of(one)).max().unwrap_or_default();
    for one in members {
        let has = of(one);
        if has != most {
            notes.push(format!("{} has {has} {what}, a profile has one number for all: {most}", one.seen.shown()));
        }
    }
    most
}

fn disk_gib(seen: &Seen) -> u64 {
    let drives = seen.config.drives();
    let boot = seen.config.boot_order().0.into_iter().find(|key| drives.contains_key(key));
    let boot = boot.as_deref().unwrap_or("scsi0");
    let bytes = drives.get(boot).and_then(crate::pve::Disk::size).unwrap_or_default();
    bytes.div_ceil(1 << 30).max(1)
}

fn factory(seen: &Seen) -> Factory {
    let machine = &seen.machine;
    let plain = |name: &&String| name.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    let mut extensions: Vec<String> =
        machine.extensions.iter().filter(plain).map(|name| format!("siderolabs/{name}")).collect();
    extensions.sort();
    extensions.dedup();
    Factory { schematic: machine.schematic.clone(), extensions, arm: machine.arch == "arm64" }
}

/// What a VM has beyond the site's defaults.
fn hardware(config: &crate::pve::VmConfig, defaults: &Defaults) -> BTreeMap<String, String> {
    let number = |key: &str, prefix: &str| key.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u8>().is_ok());
    let numbered = |key: &str| KEPT_NUMBERED.iter().any(|prefix| number(key, prefix));
    let kept = config.keys.iter().filter(|(key, _)| KEPT.contains(&key.as_str()) || numbered(key));
    let mut own: BTreeMap<String, String> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    let usual = [&defaults.bios, &defaults.machine, &defaults.cpu, &defaults.scsihw, &defaults.ostype];
    for ((key, unsaid), usual) in UNSAID.into_iter().zip(usual) {
        let value = config.get(key).unwrap_or(unsaid);
        if value != usual {
            own.insert(key.to_owned(), value.to_owned());
        }
    }
    own
}

/// The template of this version, if one can be told.
fn template(found: &Found, talos: &Version) -> Option<VmId> {
    let (dots, dashes) = (talos.to_string(), talos.to_string().replace('.', "-"));
    let talks = |template: &&super::look::Template| {
        template.name.to_lowercase().contains("talos") || template.tags.contains("talos")
    };
    let of_version = |template: &&super::look::Template| {
        let name = &template.name;
        name.contains(&dashes) || name.contains(&dots) || template.notes.contains(&format!("talos={dots} "))
    };
    found.templates.iter().filter(talks).find(of_version).map(|template| template.vmid)
}

/// The site's defaults: what most of the VMs have.
pub(super) fn defaults(found: &Found) -> Defaults {
    let usual = Defaults::default();
    let most = |of: &dyn Fn(&Seen) -> Option<String>, otherwise: &str| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for value in found.vms.iter().filter_map(of) {
            *counts.entry(value).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map_or_else(|| otherwise.to_owned(), |(value, _)| value)
    };
    let key = |key: &'static str, otherwise: &str| {
        let unsaid = UNSAID.iter().find(|(name, _)| *name == key).map_or("", |(_, value)| *value);
        most(&|seen| Some(seen.config.get(key).unwrap_or(unsaid).to_owned()), otherwise)
    };
    let storage = |seen: &Seen| Some(seen.config.drives().get("scsi0")?.storage()?.to_string());
    let bridge = |seen: &Seen| Some(seen.config.nics().get("net0")?.bridge()?.to_owned());
    let agents = found.vms.iter().filter(|seen| {
        let agent: Option<Properties> = seen.config.get("agent").and_then(|agent| agent.parse().ok());
        agent.is_some_and(|agent| agent.bare.as_deref() == Some("1") || agent.is_on("enabled"))
    });
    Defaults {
        storage: most(&storage, usual.storage.as_str()).as_str().into(),
        bridge: most(&bridge, &usual.bridge),
        bios: key("bios", &usual.bios),
        machine: key("machine", &usual.machine),
        cpu: key("cpu", &usual.cpu),
        scsihw: key("scsihw", &usual.scsihw),
        ostype: key("ostype", &usual.ostype),
        agent: agents.count() * 2 >= found.vms.len(),
        ..usual
    }
}
