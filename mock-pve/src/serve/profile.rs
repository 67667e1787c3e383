//! A seed from the profile of a Talos cluster: the cluster as it says it runs.
//!
//! Purpose: a double of one's own cluster with one flag. The profile is read here anew, in the little that is needed of
//! it: names, numbers, addresses and versions must be spelled out, nothing is looked up or counted up.
//! Must not know: how profiles are read elsewhere. Start at [`Profiled::load`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;
use serde_json::{Value, json};

use super::loopback::Loopback;
use crate::disk::Schematic;
use crate::world::seed::{
    ClusterSeed, Dial, FactorySeed, MachineRole, MachineSeed, NetworkSeed, NodeSeed, Seed, VmSeed,
};

/// Keys that the cluster's etcd holds beside Kubernetes' own.
const KEYS: u64 = 100;

/// Why a profile can't be played.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// It can't be read.
    #[error("can't read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is no profile.
    #[error("{} is malformed: {why}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where, and what was expected.
        why: String,
    },
    /// Something in it is not spelled out.
    #[error("{key}: {what}")]
    Open {
        /// The key path.
        key: String,
        /// What is missing.
        what: String,
    },
    /// No loopback network is free.
    #[error("no loopback network could be taken")]
    Loopback(#[source] std::io::Error),
}

/// A profile's seed, with what must be held while it is served.
#[derive(Debug)]
pub struct Profiled {
    /// The world.
    pub seed: Seed,
    /// The loopback networks that its addresses are mapped to; none when they are loopback themselves.
    pub networks: Vec<Loopback>,
}

#[derive(Deserialize)]
struct Profile {
    name: String,
    talos: Talos,
    network: Network,
    nodes: BTreeMap<String, Group>,
    template: Option<u32>,
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct Talos {
    version: String,
    kubernetes_version: String,
    config_dir: PathBuf,
    secrets_file: PathBuf,
    #[serde(default)]
    factory: Factory,
    vip: Option<Vip>,
}

#[derive(Default, Deserialize)]
struct Factory {
    schematic_id: Option<String>,
    #[serde(default)]
    extensions: Vec<String>,
}

#[derive(Deserialize)]
struct Vip {
    ip: IpAddr,
}

#[derive(Deserialize)]
struct Network {
    api_endpoint: String,
    gateway: Option<IpAddr>,
    prefix: Option<u8>,
    bridge: Option<String>,
    vlan: Option<u16>,
    pod_cidr: Option<IpNet>,
    service_cidr: Option<IpNet>,
}

#[derive(Deserialize)]
struct Group {
    count: u32,
    name_prefix: String,
    cores: u32,
    memory: u64,
    disk: String,
    #[serde(default)]
    assignments: Vec<Assignment>,
}

#[derive(Deserialize)]
struct Assignment {
    name: String,
    node: Option<String>,
    vmid: Option<u32>,
    ip: Option<IpAddr>,
    mac: Option<String>,
}

/// One VM with everything spelled out.
struct Machine<'a> {
    name: &'a str,
    node: &'a str,
    vmid: u32,
    ip: Ipv4Addr,
    mac: String,
    role: MachineRole,
    group: &'a Group,
}

fn open(key: impl Into<String>, what: impl Into<String>) -> ProfileError {
    ProfileError::Open { key: key.into(), what: what.into() }
}

fn v4(key: &str, address: IpAddr) -> Result<Ipv4Addr, ProfileError> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(open(key, format!("{address} is an IPv6 address, and only IPv4 networks can be played"))),
    }
}

fn slash_24(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 24).trunc()
}

impl Profiled {
    /// Reads a profile and takes the loopback networks it needs, with lock files in `locks`.
    pub fn load(path: &Path, locks: &Path) -> Result<Self, ProfileError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ProfileError::Read { path: path.to_owned(), source })?;
        let profile: Profile = serde_saphyr::from_str(&text)
            .map_err(|error| ProfileError::Malformed { path: path.to_owned(), why: error.to_string() })?;
        let machines = machines(&profile)?;
        let endpoint = Endpoint::parse(&profile.network.api_endpoint)?;
        let vip = profile.talos.vip.as_ref().map(|vip| v4("talos.vip.ip", vip.ip)).transpose()?;
        let addresses = machines.iter().map(|machine| machine.ip).chain([endpoint.address]).chain(vip);
        let mut listening: BTreeSet<Ipv4Net> = addresses.map(slash_24).collect();
        listening.retain(|network| !network.network().is_loopback());
        let mut networks = Vec::new();
        let mut dial = Vec::new();
        for from in listening {
            let held = Loopback::take(locks, std::process::id()).map_err(ProfileError::Loopback)?;
            dial.push(Dial { from: from.into(), to: held.net().into() });
            networks.push(held);
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        Ok(Self { seed: seed(&profile, &machines, &endpoint, vip, folder, dial)?, networks })
    }
}

/// `host`, `host:port`, as an address.
struct Endpoint {
    address: Ipv4Addr,
    port: u16,
}

impl Endpoint {
    fn parse(text: &str) -> Result<Self, ProfileError> {
        let key = "network.api_endpoint";
        let (host, port) = text.split_once(':').unwrap_or((text, "6443"));
        let address = host.parse().map_err(|_| open(key, format!("'{host}' must be an IPv4 address here")))?;
        let port = port.parse().map_err(|_| open(key, format!("'{port}' is no port")))?;
        Ok(Self { address, port })
    }
}

fn machines(profile: &Profile) -> Result<Vec<Machine<'_>>, ProfileError> {
    let mut found = Vec::new();
    for (key, group) in &profile.nodes {
        let role = match key.as_str() {
            "controlplane" => MachineRole::ControlPlane,
            "workers" => MachineRole::Worker,
            _ => return Err(open(format!("nodes.{key}"), "expected `controlplane` or `workers`")),
        };
        for number in 1..=group.count {
            let name = format!("{}{number:02}", group.name_prefix);
            let key = format!("nodes.{key}.assignments");
            let assigned = group.assignments.iter().find(|assignment| assignment.name == name);
            let Some(assigned) = assigned else {
                return Err(open(key, format!("{name} is missing: node, vmid and ip must be spelled out")));
            };
            let needed = |what: &str| open(key.clone(), format!("{name} has no `{what}`: it must be spelled out"));
            let ip = v4(&key, assigned.ip.ok_or_else(|| needed("ip"))?)?;
            found.push(Machine {
                name: &assigned.name,
                node: assigned.node.as_deref().ok_or_else(|| needed("node"))?,
                vmid: assigned.vmid.ok_or_else(|| needed("vmid"))?,
                mac: assigned.mac.clone().unwrap_or_else(|| mac_of(ip)),
                ip,
                role,
                group,
            });
        }
    }
    if found.is_empty() {
        return Err(open("nodes", "there are no machines in it"));
    }
    Ok(found)
}

/// The prefix of PVE's own MACs, and the address behind it.
fn mac_of(ip: Ipv4Addr) -> String {
    let [_, b, c, d] = ip.octets();
    format!("BC:24:11:{b:02X}:{c:02X}:{d:02X}")
}

/// Exactly three numbers, without the `v`.
fn version(key: &str, text: &str) -> Result<String, ProfileError> {
    let bare = text.strip_prefix('v').unwrap_or(text);
    let numbers = bare.split('.').filter(|part| part.starts_with(|c: char| c.is_ascii_digit())).count();
    if numbers == 3 { Ok(bare.to_owned()) } else { Err(open(key, format!("'{text}' must be exact, as in 1.13.9"))) }
}

fn seed(
    profile: &Profile,
    machines: &[Machine<'_>],
    endpoint: &Endpoint,
    vip: Option<Ipv4Addr>,
    folder: &Path,
    dial: Vec<Dial>,
) -> Result<Seed, ProfileError> {
    let talos = version("talos.version", &profile.talos.version)?;
    let kubernetes = version("talos.kubernetes_version", &profile.talos.kubernetes_version)?;
    let schematic = schematic(&profile.talos.factory)?;
    let base = Seed::single_node();
    let nodes: BTreeSet<&str> = machines.iter().map(|machine| machine.node).collect();
    let bridge = profile.network.bridge.clone().unwrap_or_else(|| "vmbr0".to_owned());
    let network = network(profile, machines, endpoint, vip, &bridge)?;
    let prefix = network.subnet.prefix_len();
    let template = profile.template.map(|vmid| template(vmid, machines[0].node, &talos));
    let mut factory = FactorySeed::default();
    if !factory.talos_versions.contains(&talos) {
        factory.talos_versions.push(talos.clone());
    }
    factory.schematics.extend(schematic.contents);
    Ok(Seed {
        description: Some(format!("the cluster of profile {}", profile.name)),
        cluster_name: (nodes.len() > 1).then(|| "mock".to_owned()),
        nodes: nodes.into_iter().map(|name| node(name, &bridge)).collect(),
        vms: template.into_iter().chain(machines.iter().map(|machine| vm(profile, machine, &bridge))).collect(),
        machines: machines
            .iter()
            .map(|machine| MachineSeed {
                vmid: machine.vmid,
                cluster: profile.name.clone(),
                role: machine.role,
                name: machine.name.to_owned(),
                address: Ipv4Net::new(machine.ip, prefix).unwrap_or(Ipv4Net::from(machine.ip)).into(),
            })
            .collect(),
        clusters: vec![ClusterSeed {
            name: profile.name.clone(),
            talos,
            kubernetes,
            endpoint: format!("https://{}:{}", endpoint.address, endpoint.port),
            schematic: schematic.id,
            secrets_file: folder.join(&profile.talos.config_dir).join(&profile.talos.secrets_file),
            pod_cidr: profile.network.pod_cidr,
            service_cidr: profile.network.service_cidr,
            keys: KEYS,
            workloads: Vec::new(),
        }],
        networks: vec![network],
        dial,
        factory,
        ..base
    })
}

struct Made {
    id: String,
    contents: Option<String>,
}

fn schematic(factory: &Factory) -> Result<Made, ProfileError> {
    let mut names = factory.extensions.clone();
    names.sort();
    names.dedup();
    let listed = json!({"customization": {"systemExtensions": {"officialExtensions": names}}}).to_string();
    // JSON is YAML.
    let listed = Schematic::parse(&listed).map_err(|error| open("talos.factory.extensions", error.to_string()))?;
    Ok(match &factory.schematic_id {
        Some(id) if *id != listed.id() => Made { id: id.clone(), contents: None },
        _ => Made { id: listed.id(), contents: Some(listed.canonical()) },
    })
}

/// The machines' network. DHCP has the longest run of addresses that nobody has, so that new machines come up.
fn network(
    profile: &Profile,
    machines: &[Machine<'_>],
    endpoint: &Endpoint,
    vip: Option<Ipv4Addr>,
    bridge: &str,
) -> Result<NetworkSeed, ProfileError> {
    let around = slash_24(machines[0].ip);
    let gateway = match profile.network.gateway {
        Some(gateway) => Some(v4("network.gateway", gateway)?),
        None => None,
    };
    let mut taken: BTreeSet<Ipv4Addr> = machines.iter().map(|machine| machine.ip).collect();
    taken.extend(gateway.into_iter().chain(vip).chain([endpoint.address]));
    let hosts: Vec<Ipv4Addr> = around.hosts().collect();
    let free = hosts.split(|host| taken.contains(host)).max_by_key(|gap| gap.len()).unwrap_or_default();
    let dhcp = free.first().zip(free.last()).map(|(first, last)| [IpAddr::from(*first), IpAddr::from(*last)]);
    let prefix = profile.network.prefix.unwrap_or(24);
    let subnet = Ipv4Net::new(machines[0].ip, prefix).map_err(|_| open("network.prefix", "must be at most 32"))?;
    Ok(NetworkSeed { bridge: bridge.to_owned(), subnet: subnet.trunc().into(), gateway: gateway.map(Into::into), dhcp })
}

fn node(name: &str, bridge: &str) -> NodeSeed {
    let interface = json!({
        "iface": bridge, "type": "bridge", "method": "manual", "method6": "manual", "active": 1, "autostart": 1,
        "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0", "bridge_vlan_aware": 1, "families": ["inet"],
        "priority": 3,
    });
    NodeSeed {
        name: name.to_owned(),
        memory_mb: Some(262_144),
        network: interface.as_object().cloned().into_iter().collect(),
        ..NodeSeed::default()
    }
}

/// What all its VMs have.
fn hardware(kind: &str, vmid: u32, size: &str, cores: u32, memory: u64) -> BTreeMap<String, Value> {
    let disk = |number: u32| format!("local-lvm:{kind}-{vmid}-disk-{number}");
    let keys = [
        ("agent", json!("enabled=1")),
        ("balloon", json!("0")),
        ("bios", json!("ovmf")),
        ("boot", json!("order=scsi0")),
        ("cores", json!(cores)),
        ("cpu", json!("host")),
        ("efidisk0", json!(format!("{},efitype=4m,pre-enrolled-keys=0,size=4M", disk(0)))),
        ("machine", json!("q35")),
        ("memory", json!(memory.to_string())),
        ("ostype", json!("l26")),
        ("scsi0", json!(format!("{},discard=on,iothread=1,size={size},ssd=1", disk(1)))),
        ("scsihw", json!("virtio-scsi-single")),
        ("serial0", json!("socket")),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn template(vmid: u32, node: &str, talos: &str) -> VmSeed {
    let mut config = hardware("base", vmid, "2G", 2, 2048);
    config.insert("template".to_owned(), json!(1));
    config.insert("tags".to_owned(), json!("talos;template"));
    let name = format!("talos-{}", talos.replace('.', "-"));
    VmSeed { vmid, node: Some(node.to_owned()), name: Some(name), status: None, config }
}

fn vm(profile: &Profile, machine: &Machine<'_>, bridge: &str) -> VmSeed {
    let group = machine.group;
    let mut config = hardware("vm", machine.vmid, &size(&group.disk), group.cores, group.memory);
    let tag = profile.network.vlan.map_or_else(String::new, |vlan| format!(",tag={vlan}"));
    config.insert("net0".to_owned(), json!(format!("virtio={},bridge={bridge}{tag}", machine.mac.to_uppercase())));
    let role = match machine.role {
        MachineRole::ControlPlane => "controlplane",
        MachineRole::Worker => "worker",
    };
    let mut tags: BTreeSet<String> = profile.tags.iter().map(|tag| tag.to_lowercase()).collect();
    tags.insert(role.to_owned());
    config.insert("tags".to_owned(), json!(tags.into_iter().collect::<Vec<_>>().join(";")));
    VmSeed {
        vmid: machine.vmid,
        node: Some(machine.node.to_owned()),
        name: Some(machine.name.to_owned()),
        status: Some("running".to_owned()),
        config,
    }
}

/// `32GiB` as PVE writes it: `32G`.
fn size(disk: &str) -> String {
    disk.strip_suffix("iB").unwrap_or(disk).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(assignments: &str, network: &str) -> Result<Profiled, ProfileError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.yaml");
        let text = format!(
            "name: x\ntype: talos\ntalos: {{version: \"1.12.4\", kubernetes_version: v1.34.1, config_dir: conf, \
             secrets_file: s.yaml, factory: {{extensions: [siderolabs/qemu-guest-agent]}}}}\nnetwork: {network}\n\
             nodes:\n  controlplane: {{count: 1, name_prefix: x-, cores: 2, memory: 4096, disk: 32G, \
             assignments: [{assignments}]}}\ntemplate: 101\ntags: [talos, x]\n"
        );
        std::fs::write(&path, text).unwrap();
        Profiled::load(&path, dir.path())
    }

    #[test]
    fn the_cluster_runs_as_its_profile_says() {
        let network = "{api_endpoint: \"192.168.178.41:6443\", gateway: 192.168.178.1, prefix: 24}";
        let loaded = load("{name: x-01, node: pve1, vmid: 1100, ip: 192.168.178.41}", network).unwrap();
        let seed = loaded.seed;
        assert_eq!(seed.vms.iter().map(|vm| vm.vmid).collect::<Vec<_>>(), [101, 1100]);
        assert_eq!(seed.vms[1].config["tags"], "controlplane;talos;x");
        assert_eq!(seed.vms[1].config["net0"], "virtio=BC:24:11:A8:B2:29,bridge=vmbr0");
        let cluster = &seed.clusters[0];
        assert_eq!((cluster.talos.as_str(), cluster.kubernetes.as_str()), ("1.12.4", "1.34.1"));
        assert_eq!(cluster.schematic, "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515");
        assert!(cluster.secrets_file.ends_with("conf/s.yaml"));
        assert_eq!(seed.dial[0].to, IpNet::from(loaded.networks[0].net()));
        assert!(seed.users.iter().any(|user| user.userid == "recast@pve"));
    }

    #[test]
    fn loopback_addresses_are_served_as_they_are() {
        let loaded =
            load("{name: x-01, node: pve1, vmid: 1100, ip: 127.20.0.11}", "{api_endpoint: 127.20.0.10}").unwrap();
        assert!(loaded.seed.dial.is_empty() && loaded.networks.is_empty());
        assert_eq!(loaded.seed.clusters[0].endpoint, "https://127.20.0.10:6443");
    }

    #[test]
    fn every_node_that_is_named_is_in_the_cluster_and_new_machines_get_other_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lab.yaml");
        let text = "name: lab\ntalos: {version: 1.12.4, kubernetes_version: 1.34.1, config_dir: lab, secrets_file: s.yaml, \
                    vip: {interface: eth0, ip: 127.20.0.10}}\nnetwork: {api_endpoint: \"127.20.0.10:6443\"}\nnodes:\n  \
                    controlplane: {count: 3, name_prefix: cp-, cores: 2, memory: 4096, disk: 32G, assignments: [\
                    {name: cp-01, node: pve1, vmid: 1200, ip: 127.20.0.11}, \
                    {name: cp-02, node: pve2, vmid: 1201, ip: 127.20.0.12}, \
                    {name: cp-03, node: pve3, vmid: 1202, ip: 127.20.0.13}]}\ntags: [lab]\n";
        std::fs::write(&path, text).unwrap();
        let Profiled { seed, networks } = Profiled::load(&path, dir.path()).unwrap();
        assert!(networks.is_empty() && seed.cluster_name.is_some());
        assert_eq!(seed.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["pve1", "pve2", "pve3"]);
        assert_eq!(seed.vms[1].node.as_deref(), Some("pve2"));
        let [first, last] = seed.networks[0].dhcp.unwrap();
        assert!(first > "127.20.0.13".parse::<IpAddr>().unwrap() && last > first, "{first} {last}");
    }

    #[test]
    fn what_is_not_spelled_out_is_named() {
        let network = "{api_endpoint: 192.168.178.41}";
        let cases = [
            ("", network, "nodes.controlplane.assignments: x-01 is missing"),
            ("{name: x-01, vmid: 1100, ip: 10.0.0.1}", network, "x-01 has no `node`"),
            ("{name: x-01, node: pve1, ip: 10.0.0.1}", network, "x-01 has no `vmid`"),
            ("{name: x-01, node: pve1, vmid: 1100}", network, "x-01 has no `ip`"),
            ("{name: x-01, node: pve1, vmid: 1100, ip: \"fd00::1\"}", network, "fd00::1 is an IPv6 address"),
            (
                "{name: x-01, node: pve1, vmid: 1100, ip: 10.0.0.1}",
                "{api_endpoint: k8s.example.org}",
                "'k8s.example.org' must be",
            ),
        ];
        for (assignments, network, expected) in cases {
            let error = load(assignments, network).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
        assert!(version("talos.version", "1.13").unwrap_err().to_string().contains("must be exact"));
    }
}
