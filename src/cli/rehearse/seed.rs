//! The world that a rehearsal begins in: the profile's cluster, running as the profile says it runs.
//!
//! Purpose: a pure function from what is known to the double's seed. Must not know: files, sockets, the double's inside.
//! Start reading at [`seed`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use mock_pve::world::seed::{
    AclSeed, ClusterSeed, Dial as DialSeed, FactorySeed, MachineRole, MachineSeed, NetworkSeed, NodeSeed, PoolSeed,
    Seed, StorageSeed, TokenSeed, UserSeed, VmSeed,
};
use serde_json::{Map, Value, json};

use super::addresses::Addresses;
use super::place::Place;
use super::releases::Made;
use crate::plan::Versions;
use crate::profile::{Dial, Profile, Talos, WantedVm};
use crate::types::{Mac, NodeName, Role, Sha256, StorageId, Version, VmId};

/// The user whose token the rehearsal uses.
pub const USER: &str = "recast@pve";
/// That token's name.
pub const TOKEN: &str = "rehearsal";

/// Hardware of all VMs, before the site's and the profile's own keys.
const HARDWARE: &str = include_str!("../../../templates/vm-hardware.json");

/// The extension that is the guest agent.
const AGENT: &str = "siderolabs/qemu-guest-agent";

/// The file-based storage that every PVE node has.
const LOCAL: &str = "local";

/// How many keys a running cluster's etcd holds beside Kubernetes' own.
const KEYS: u64 = 100;

/// Disk of a template, in GiB: that of the image, rounded up.
const TEMPLATE_GIB: u64 = 2;

/// What each path of the access control list is given for: the rights that a rebuild needs and no others. Those that a
/// PVE version doesn't know are left out by the double.
const RIGHTS: &[(&str, &str, u8, &[&str])] = &[
    (
        "/vms",
        "RecastVMs",
        1,
        &[
            "VM.Allocate",
            "VM.Audit",
            "VM.Clone",
            "VM.Config.CDROM",
            "VM.Config.CPU",
            "VM.Config.Cloudinit",
            "VM.Config.Disk",
            "VM.Config.HWType",
            "VM.Config.Memory",
            "VM.Config.Network",
            "VM.Config.Options",
            "VM.GuestAgent.Audit",
            "VM.Monitor",
            "VM.PowerMgmt",
        ],
    ),
    (
        "/storage",
        "RecastStorage",
        1,
        &["Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"],
    ),
    ("/nodes", "RecastNodes", 1, &["Sys.AccessNetwork", "Sys.Audit"]),
    ("/sdn/zones", "RecastNetwork", 1, &["SDN.Audit", "SDN.Use"]),
    ("/mapping/pci", "RecastDevices", 1, &["Mapping.Use"]),
    ("/", "RecastCluster", 0, &["Sys.Audit", "Sys.Console"]),
];

/// Whether the cluster is there when the rehearsal begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// It runs.
    Running,
    /// Only its template is there: for verbs that make it.
    TemplateOnly,
}

/// Everything that decides a seed.
#[derive(Debug)]
pub struct Plot<'a> {
    /// The profile.
    pub profile: &'a Profile,
    /// Nodes, defaults, ranges.
    pub place: &'a Place,
    /// The profile's VMs, expanded with nothing taken.
    pub vms: &'a [WantedVm],
    /// Their addresses.
    pub addresses: &'a Addresses,
    /// Where addresses are mapped to.
    pub dial: &'a [Dial],
    /// The cluster, in a profile that has one.
    pub cluster: Option<Cluster<'a>>,
    /// Whether it runs.
    pub contents: Contents,
}

/// What a Talos cluster adds.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// The profile's.
    pub talos: &'a Talos,
    /// What runs now.
    pub versions: &'a Versions,
    /// What its machines are made from.
    pub schematic: &'a Made,
    /// The releases that the factory has.
    pub releases: &'a [Version],
    /// The throw-away secrets.
    pub secrets_file: &'a std::path::Path,
    /// Its Kubernetes API, with scheme and port.
    pub endpoint: String,
}

/// The world of a plot.
pub fn seed(plot: &Plot<'_>) -> Seed {
    let running = plot.contents == Contents::Running;
    let machines_of_pool = || if running { plot.vms.iter().map(|vm| vm.vmid.0).collect() } else { Vec::new() };
    let mut vms: Vec<VmSeed> = plot.profile.template.map(|vmid| template(plot, vmid)).into_iter().collect();
    if running {
        vms.extend(plot.vms.iter().map(|vm| machine_vm(plot, vm)));
    }
    let several = plot.place.nodes.len() > 1;
    Seed {
        description: Some(format!("rehearsal of {}", plot.profile.name)),
        nodes: plot.place.nodes.iter().map(|name| node(plot, name)).collect(),
        cluster_name: several.then(|| "rehearsal".to_owned()),
        users: vec![UserSeed {
            userid: USER.to_owned(),
            tokens: vec![TokenSeed { tokenid: TOKEN.to_owned(), privsep: Some(0), ..TokenSeed::default() }],
            ..UserSeed::default()
        }],
        roles: RIGHTS
            .iter()
            .map(|(_, role, _, rights)| ((*role).to_owned(), rights.iter().map(|right| (*right).to_owned()).collect()))
            .collect(),
        acl: acl(plot),
        pools: plot
            .place
            .defaults
            .pool
            .iter()
            .map(|pool| PoolSeed { poolid: pool.clone(), vms: machines_of_pool(), ..PoolSeed::default() })
            .collect(),
        vms,
        storages: storages(plot),
        networks: vec![NetworkSeed {
            bridge: bridge(plot),
            subnet: plot.addresses.subnet.into(),
            gateway: Some(plot.addresses.gateway.into()),
            dhcp: Some(plot.addresses.dhcp.map(IpAddr::from)),
        }],
        dial: plot.dial.iter().map(|dial| DialSeed { from: dial.from, to: dial.to }).collect(),
        clusters: plot.cluster.iter().filter(|_| running).map(|cluster| cluster_seed(plot, cluster)).collect(),
        machines: if running && plot.cluster.is_some() { machines(plot) } else { Vec::new() },
        factory: plot.cluster.as_ref().map_or_else(FactorySeed::default, |cluster| FactorySeed {
            talos_versions: cluster.releases.iter().map(ToString::to_string).collect(),
            schematics: cluster.schematic.yaml.iter().cloned().collect(),
        }),
        ..Seed::default()
    }
}

fn acl(plot: &Plot<'_>) -> Vec<AclSeed> {
    let entry = |path: &str, role: &str, propagate| AclSeed {
        path: path.to_owned(),
        kind: "user".to_owned(),
        ugid: USER.to_owned(),
        roleid: role.to_owned(),
        propagate,
    };
    let mut entries: Vec<AclSeed> =
        RIGHTS.iter().map(|(path, role, propagate, _)| entry(path, role, *propagate)).collect();
    entries.extend(plot.place.defaults.pool.iter().map(|pool| entry(&format!("/pool/{pool}"), "RecastVMs", 1)));
    entries
}

fn bridge(plot: &Plot<'_>) -> String {
    plot.profile.network.bridge.clone().unwrap_or_else(|| plot.place.defaults.bridge.clone())
}

/// A node with every bridge that a VM is plugged into, and twice the room that the profile's VMs need.
fn node(plot: &Plot<'_>, name: &NodeName) -> NodeSeed {
    let own = || plot.vms.iter().filter(|vm| vm.node == *name);
    let mut bridges = BTreeSet::from([bridge(plot), plot.place.defaults.bridge.clone()]);
    for (_, value) in plot.vms.iter().flat_map(|vm| &vm.vm).filter(|(key, _)| key.starts_with("net")) {
        bridges.extend(value.split(',').filter_map(|part| part.strip_prefix("bridge=")).map(str::to_owned));
    }
    NodeSeed {
        name: name.to_string(),
        cpus: Some(own().map(|vm| vm.cores).max().unwrap_or(0).max(16)),
        memory_mb: Some((own().map(|vm| vm.memory_mb).sum::<u64>() * 2).max(65_536)),
        network: bridges.iter().map(|bridge| interface(bridge)).collect(),
        ..NodeSeed::default()
    }
}

fn interface(bridge: &str) -> Map<String, Value> {
    let interface = json!({
        "iface": bridge, "type": "bridge", "method": "manual", "method6": "manual", "active": 1, "autostart": 1,
        "bridge_ports": "", "bridge_stp": "off", "bridge_fd": "0", "bridge_vlan_aware": 1, "families": ["inet"],
        "priority": 3,
    });
    interface.as_object().cloned().unwrap_or_default()
}

fn storages(plot: &Plot<'_>) -> Vec<StorageSeed> {
    let images = &plot.place.defaults.storage;
    let disks: u64 = plot.vms.iter().map(|vm| vm.disk_gib).sum();
    #[expect(clippy::cast_precision_loss, reason = "gibibytes")]
    let capacity = (disks * 4).max(500) as f64;
    let storage = |name: &str, kind: &str, options: Value| StorageSeed {
        storage: name.to_owned(),
        kind: kind.to_owned(),
        capacity_gib: Some(capacity),
        options: options.as_object().cloned().unwrap_or_default(),
    };
    let files = "backup,import,iso,snippets,vztmpl";
    if images.as_str() == LOCAL {
        return vec![storage(LOCAL, "dir", json!({"path": "/var/lib/vz", "content": format!("{files},images")}))];
    }
    vec![
        storage(LOCAL, "dir", json!({"path": "/var/lib/vz", "content": files})),
        storage(images.as_str(), "lvmthin", json!({"vgname": "pve", "thinpool": "data", "content": "images,rootdir"})),
    ]
}

/// A volume's id, as PVE names it on this kind of storage.
fn volume(storage: &StorageId, vmid: VmId, name: &str) -> String {
    if storage.as_str() == LOCAL { format!("{storage}:{vmid}/{name}.raw") } else { format!("{storage}:{name}") }
}

/// What every VM has, by the site's defaults.
fn hardware(plot: &Plot<'_>) -> BTreeMap<String, Value> {
    let defaults = &plot.place.defaults;
    let mut config: BTreeMap<String, Value> = serde_json::from_str(HARDWARE).unwrap_or_default();
    for (key, value) in [
        ("bios", &defaults.bios),
        ("machine", &defaults.machine),
        ("cpu", &defaults.cpu),
        ("scsihw", &defaults.scsihw),
        ("ostype", &defaults.ostype),
    ] {
        config.insert(key.to_owned(), json!(value));
    }
    // A cluster without the agent runs with its channel off: otherwise every shutdown would wait for it.
    let has_agent = |cluster: &Cluster<'_>| cluster.schematic.yaml.as_ref().is_some_and(|yaml| yaml.contains(AGENT));
    if defaults.agent && plot.cluster.as_ref().is_none_or(has_agent) {
        config.insert("agent".to_owned(), json!("enabled=1"));
    }
    config.insert("boot".to_owned(), json!("order=scsi0"));
    config
}

/// The disks of a VM: `kind` is `vm`, or `base` for a template.
fn disks(plot: &Plot<'_>, kind: &str, vmid: VmId, gib: u64) -> BTreeMap<String, Value> {
    let storage = &plot.place.defaults.storage;
    let named = |number: u32| volume(storage, vmid, &format!("{kind}-{vmid}-disk-{number}"));
    let mut disks = BTreeMap::new();
    let mut next = 0;
    if plot.place.defaults.bios == "ovmf" {
        let efi = format!("{},efitype=4m,pre-enrolled-keys=0,size=4M", named(next));
        disks.insert("efidisk0".to_owned(), json!(efi));
        next += 1;
    }
    disks.insert("scsi0".to_owned(), json!(format!("{},discard=on,iothread=1,size={gib}G,ssd=1", named(next))));
    disks
}

fn nic(plot: &Plot<'_>, mac: Mac) -> String {
    let vlan = plot.profile.network.vlan.or(plot.place.defaults.vlan);
    let tag = vlan.map_or_else(String::new, |vlan| format!(",tag={vlan}"));
    format!("virtio={mac},bridge={}{tag}", bridge(plot))
}

/// A MAC with PVE's own prefix, the same in every rehearsal of this VM.
fn mac(plot: &Plot<'_>, name: &str) -> Mac {
    let digest = Sha256::of(format!("rehearsal/{}/{name}", plot.profile.name).as_bytes());
    Mac([0xBC, 0x24, 0x11, digest.0[0], digest.0[1], digest.0[2]])
}

/// The template that an earlier hand made: nothing of ours is written on it.
fn template(plot: &Plot<'_>, vmid: VmId) -> VmSeed {
    let version = plot.cluster.as_ref().map(|cluster| cluster.versions.talos.to_string().replace('.', "-"));
    let name = version.map_or_else(|| format!("{}-template", plot.profile.name), |version| format!("talos-{version}"));
    let mut config = hardware(plot);
    config.extend(disks(plot, "base", vmid, TEMPLATE_GIB));
    config.insert("template".to_owned(), json!(1));
    config.insert("cores".to_owned(), json!(2));
    config.insert("memory".to_owned(), json!("2048"));
    config.insert("net0".to_owned(), json!(nic(plot, mac(plot, "template"))));
    let tags = if plot.cluster.is_some() { "talos;template" } else { "template" };
    config.insert("tags".to_owned(), json!(tags));
    let first = plot.vms.first().map(|vm| &vm.node).or(plot.place.nodes.first());
    VmSeed { vmid: vmid.0, node: first.map(ToString::to_string), name: Some(name), status: None, config }
}

fn machine_vm(plot: &Plot<'_>, vm: &WantedVm) -> VmSeed {
    let mut config = hardware(plot);
    config.extend(disks(plot, "vm", vm.vmid, vm.disk_gib));
    config.insert("cores".to_owned(), json!(vm.cores));
    config.insert("memory".to_owned(), json!(vm.memory_mb.to_string()));
    let mac = vm.mac.unwrap_or_else(|| mac(plot, vm.name.as_str()));
    config.insert("net0".to_owned(), json!(nic(plot, mac)));
    // PVE keeps tags in lower case and sorted.
    let mut tags: BTreeSet<String> = plot.profile.tags.iter().map(|tag| tag.to_lowercase()).collect();
    tags.insert(vm.role.to_string());
    config.insert("tags".to_owned(), json!(tags.into_iter().collect::<Vec<_>>().join(";")));
    // The profile's drives are orders to make one (`local-lvm:32`), not volumes that are there.
    config.extend(vm.vm.iter().filter(|(key, _)| !is_drive(key)).map(|(key, value)| (key.clone(), json!(value))));
    VmSeed {
        vmid: vm.vmid.0,
        node: Some(vm.node.to_string()),
        name: Some(vm.name.to_string()),
        status: Some("running".to_owned()),
        config,
    }
}

fn is_drive(key: &str) -> bool {
    let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
    bus != key && ["scsi", "virtio", "sata", "ide", "efidisk", "tpmstate", "unused"].contains(&bus)
}

fn cluster_seed(plot: &Plot<'_>, cluster: &Cluster<'_>) -> ClusterSeed {
    ClusterSeed {
        name: plot.profile.name.clone(),
        talos: cluster.versions.talos.to_string(),
        kubernetes: cluster.versions.kubernetes.to_string(),
        endpoint: cluster.endpoint.clone(),
        schematic: cluster.schematic.id.to_string(),
        secrets_file: cluster.secrets_file.to_owned(),
        pod_cidr: Some(plot.profile.network.pod_cidr),
        service_cidr: Some(plot.profile.network.service_cidr),
        keys: KEYS,
        workloads: Vec::new(),
    }
}

fn machines(plot: &Plot<'_>) -> Vec<MachineSeed> {
    let prefix = plot.addresses.subnet.prefix_len();
    let address = |vm: &WantedVm| Ipv4Net::new(*plot.addresses.machines.get(&vm.name)?, prefix).ok().map(IpNet::from);
    plot.vms
        .iter()
        .filter_map(|vm| {
            Some(MachineSeed {
                vmid: vm.vmid.0,
                cluster: plot.profile.name.clone(),
                role: match vm.role {
                    Role::ControlPlane => MachineRole::ControlPlane,
                    Role::Worker => MachineRole::Worker,
                },
                name: vm.name.to_string(),
                address: address(vm)?,
            })
        })
        .collect()
}
