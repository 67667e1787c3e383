//! Made-up names, addresses, MACs, serials and notes in the place of the real ones.
//!
//! Purpose: an inventory that can be shown to anybody and still behaves like the site: the same thing becomes the same
//! thing everywhere, numbers and hardware stay. What isn't known to be harmless goes. Pure. Start reading at [`redact`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use mock_pve::world::seed::{Seed, StorageSeed, VmSeed};
use serde_json::{Map, Value, json};

/// Names that say nothing about a site.
const USUAL: [&str; 12] = [
    "local",
    "local-lvm",
    "local-zfs",
    "talos",
    "template",
    "controlplane",
    "worker",
    "vmbr0",
    "vmbr1",
    "vmbr2",
    "vmbr3",
    "localnetwork",
];
/// Keys of a VM that are kept as they are: hardware and behaviour.
const KEPT: [&str; 34] = [
    "acpi",
    "agent",
    "arch",
    "autostart",
    "balloon",
    "bios",
    "boot",
    "cores",
    "cpu",
    "cpulimit",
    "cpuunits",
    "freeze",
    "hotplug",
    "keephugepages",
    "kvm",
    "localtime",
    "lock",
    "machine",
    "memory",
    "meta",
    "numa",
    "onboot",
    "ostype",
    "protection",
    "reboot",
    "rng0",
    "scsihw",
    "shares",
    "sockets",
    "startup",
    "tablet",
    "template",
    "vcpus",
    "vga",
];
/// The same with a number behind.
const NUMBERED: [&str; 5] = ["hostpci", "numa", "serial", "parallel", "usb"];
/// Keys of drives and network cards whose values are text of somebody's.
const DRIVES: [&str; 8] = ["scsi", "virtio", "sata", "ide", "efidisk", "tpmstate", "unused", "vmstate"];
/// Options of storages that are kept as they are.
const STORAGE: [&str; 14] = [
    "content",
    "shared",
    "disable",
    "format",
    "preallocation",
    "sparse",
    "thinpool",
    "vgname",
    "krbd",
    "maxfiles",
    "prune-backups",
    "mkdir",
    "is_mountpoint",
    "snapshot-as-volume-chain",
];
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

/// What an inventory looks like to anybody.
pub fn redact(seed: Seed) -> Seed {
    let mut names = Names::default();
    // In the order of the file, so that numbers follow it.
    for node in &seed.nodes {
        names.of("node", &node.name);
    }
    for storage in &seed.storages {
        names.of("storage", &storage.storage);
    }
    Redact { names }.seed(seed)
}

/// Made-up names by kind and real name.
#[derive(Default)]
struct Names {
    known: BTreeMap<(&'static str, String), String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Names {
    fn next(&mut self, kind: &'static str) -> u32 {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        *count
    }

    fn made(&mut self, kind: &'static str, real: &str, make: impl FnOnce(u32) -> String) -> String {
        let key = (kind, real.to_owned());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let made = make(self.next(kind));
        self.known.insert(key, made.clone());
        made
    }

    fn of(&mut self, kind: &'static str, real: &str) -> String {
        if real.is_empty() || USUAL.contains(&real) {
            return real.to_owned();
        }
        self.made(kind, real, |number| format!("{kind}-{number}"))
    }
}

struct Redact {
    names: Names,
}

impl Redact {
    fn seed(&mut self, seed: Seed) -> Seed {
        Seed {
            description: Some("written by recast inventory --redact".to_owned()),
            nodes: seed
                .nodes
                .into_iter()
                .map(|mut node| {
                    node.name = self.names.of("node", &node.name);
                    node.ip = node.ip.map(|ip| self.address(ip));
                    node.network = node.network.into_iter().map(|one| self.interface(one)).collect();
                    node
                })
                .collect(),
            cluster_name: seed.cluster_name.map(|name| self.names.of("cluster", &name)),
            cluster_options: seed
                .cluster_options
                .into_iter()
                .filter(|(key, _)| ["keyboard", "migration", "ha", "next-id", "mac_prefix"].contains(&key.as_str()))
                .filter(|(key, _)| key != "migration")
                .collect(),
            sdn_zones: Vec::new(),
            ha_resources: seed.ha_resources.into_iter().map(|one| self.job(one)).collect(),
            replication_jobs: seed.replication_jobs.into_iter().map(|one| self.job(one)).collect(),
            backup_jobs: seed.backup_jobs.into_iter().map(|one| self.job(one)).collect(),
            pools: seed
                .pools
                .into_iter()
                .map(|mut pool| {
                    pool.poolid = self.names.of("pool", &pool.poolid);
                    pool.comment = None;
                    pool.storages = pool.storages.iter().map(|id| self.names.of("storage", id)).collect();
                    pool
                })
                .collect(),
            vms: seed.vms.into_iter().map(|vm| self.vm(vm)).collect(),
            storages: seed.storages.into_iter().map(|storage| self.storage(storage)).collect(),
            volumes: seed
                .volumes
                .into_iter()
                .map(|mut volume| {
                    volume.volid = self.volume(&volume.volid);
                    volume.node = volume.node.map(|node| self.names.of("node", &node));
                    volume
                })
                .collect(),
            guest: seed.guest.map(|guest| self.guests(guest)),
            networks: seed
                .networks
                .into_iter()
                .map(|mut network| {
                    network.bridge = self.names.of("bridge", &network.bridge);
                    network.subnet = self.net(network.subnet);
                    network.gateway = network.gateway.map(|ip| self.address(ip));
                    network
                })
                .collect(),
            // Users, roles and rights are the double's own from the start.
            ..seed
        }
    }

    /// Neighbours stay neighbours: every /24 becomes one of 198.18.0.0/15 (RFC 2544), with the same last octet.
    fn address(&mut self, real: IpAddr) -> IpAddr {
        match real {
            _ if real.is_loopback() || real.is_unspecified() => real,
            IpAddr::V4(real) => {
                let [a, b, c, host] = real.octets();
                let number = self.names.made("subnet", &format!("{a}.{b}.{c}"), |number| number.to_string());
                let [_, _, high, low] = number.parse::<u32>().unwrap_or_default().to_be_bytes();
                IpAddr::V4(Ipv4Addr::new(198, 18 + (high & 1), low, host))
            }
            IpAddr::V6(real) => {
                let number = self.names.made("address6", &real.to_string(), |number| number.to_string());
                let low = number.parse::<u32>().unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(low)))
            }
        }
    }

    fn net(&mut self, real: IpNet) -> IpNet {
        let made = self.address(real.addr());
        IpNet::new(made, real.prefix_len()).unwrap_or(real)
    }

    /// An address with or without a prefix length; anything else is left to the caller.
    fn address_text(&mut self, real: &str) -> Option<String> {
        if let Ok(net) = real.parse::<IpNet>() {
            return Some(self.net(net).to_string());
        }
        real.parse().ok().map(|address| self.address(address).to_string())
    }

    fn mac(&mut self, real: &str) -> String {
        self.names.made("mac", &real.to_uppercase(), |number| {
            let [_, high, middle, low] = number.to_be_bytes();
            format!("BC:24:11:{high:02X}:{middle:02X}:{low:02X}")
        })
    }

    fn uuid(&mut self, real: &str) -> String {
        self.names.made("uuid", &real.to_lowercase(), |number| format!("00000000-0000-4000-8000-{number:012x}"))
    }

    fn interface(&mut self, real: Map<String, Value>) -> Map<String, Value> {
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

    /// Jobs and resources: what they are about stays, what was written about them goes.
    fn job(&mut self, real: Map<String, Value>) -> Map<String, Value> {
        let mut made = Map::new();
        for (key, value) in real {
            let name = |this: &mut Self, kind| json!(this.names.of(kind, value.as_str().unwrap_or_default()));
            let value = match key.as_str() {
                "node" | "target" | "source" => name(self, "node"),
                "storage" => name(self, "storage"),
                "pool" => name(self, "pool"),
                "group" => name(self, "group"),
                "id" | "sid" | "state" | "type" | "guest" | "jobnum" | "schedule" | "enabled" | "all" | "vmid"
                | "mode" | "compress" | "max_restart" | "max_relocate" | "rate" | "disable" | "prune-backups" => value,
                _ => continue,
            };
            made.insert(key, value);
        }
        made
    }

    fn storage(&mut self, mut storage: StorageSeed) -> StorageSeed {
        storage.storage = self.names.of("storage", &storage.storage);
        let name = storage.storage.clone();
        let mut options = Map::new();
        for (key, value) in std::mem::take(&mut storage.options) {
            let text = value.as_str().unwrap_or_default();
            let value = match key.as_str() {
                "path" if text == "/var/lib/vz" => value,
                "path" | "export" | "mountpoint" => json!(format!("/mnt/{name}")),
                "share" | "datastore" | "pool" | "fs-name" | "volume" => json!(name),
                "server" | "portal" => json!(self.host(text)),
                "nodes" => {
                    let nodes: Vec<String> = text.split(',').map(|node| self.names.of("node", node)).collect();
                    json!(nodes.join(","))
                }
                kept if STORAGE.contains(&kept) => value,
                _ => continue,
            };
            options.insert(key, value);
        }
        storage.options = options;
        storage
    }

    fn host(&mut self, real: &str) -> String {
        self.address_text(real).unwrap_or_else(|| self.names.of("host", real))
    }

    /// A volume's name: what PVE made of a VM's number stays, what people called a file goes.
    fn volume(&mut self, real: &str) -> String {
        let Some((storage, name)) = real.split_once(':') else { return real.to_owned() };
        let storage = self.names.of("storage", storage);
        let made: Vec<String> = name
            .split('/')
            .map(|part| {
                let by_number = ["vm-", "base-", "subvol-"].iter().any(|prefix| part.starts_with(prefix))
                    || part.chars().all(|letter| letter.is_ascii_digit())
                    || ["iso", "vztmpl", "import", "snippets", "backup"].contains(&part);
                if by_number && !part.contains("state-") {
                    return part.to_owned();
                }
                let (_, extension) = part.split_once('.').unwrap_or_default();
                let extension = extension.rsplit('.').next().unwrap_or_default();
                self.names.made("file", part, |number| format!("file-{number}.{extension}"))
            })
            .collect();
        format!("{storage}:{}", made.join("/"))
    }

    fn vm(&mut self, mut vm: VmSeed) -> VmSeed {
        vm.node = vm.node.map(|node| self.names.of("node", &node));
        vm.name = None;
        let config = std::mem::take(&mut vm.config);
        for (key, value) in config {
            let text = value.as_str().unwrap_or_default();
            let bare = key.trim_end_matches(|letter: char| letter.is_ascii_digit());
            let is_numbered = bare.len() < key.len();
            let made = match key.as_str() {
                "name" => Some(format!("vm-{}", vm.vmid)),
                "description" => Some("redacted".to_owned()),
                "smbios1" => part(text, "uuid").map(|uuid| format!("uuid={}", self.uuid(uuid))),
                "vmgenid" => Some(self.uuid(text)),
                "tags" => {
                    let tags = text.split([';', ',', ' ']).filter(|tag| !tag.is_empty());
                    Some(tags.map(|tag| self.names.of("tag", tag)).collect::<Vec<_>>().join(";"))
                }
                "hookscript" | "args" | "cicustom" | "ciuser" | "sshkeys" | "nameserver" | "searchdomain" => None,
                kept if KEPT.contains(&kept) => Some(text.to_owned()),
                _ if is_numbered && bare == "net" => Some(self.nic(text)),
                _ if is_numbered && bare == "ipconfig" => Some(self.ip_config(text)),
                _ if is_numbered && DRIVES.contains(&bare) => Some(self.drive(text)),
                _ if is_numbered && NUMBERED.contains(&bare) => {
                    Some(pairs(text).filter(|(key, _)| *key != "mapping").map(joined).collect::<Vec<_>>().join(","))
                        .filter(|made| !made.is_empty())
                }
                _ => None,
            };
            if let Some(made) = made {
                vm.config.insert(key, Value::String(made));
            }
        }
        vm
    }

    fn nic(&mut self, real: &str) -> String {
        let made = pairs(real).map(|(key, value)| {
            let value = match key {
                "bridge" => self.names.of("bridge", value),
                _ if value.len() == 17 && value.split(':').count() == 6 => self.mac(value),
                _ => value.to_owned(),
            };
            format!("{key}={value}")
        });
        made.collect::<Vec<_>>().join(",")
    }

    fn ip_config(&mut self, real: &str) -> String {
        let made = pairs(real).map(|(key, value)| {
            let value = self.address_text(value).unwrap_or_else(|| value.to_owned());
            format!("{key}={value}")
        });
        made.collect::<Vec<_>>().join(",")
    }

    fn drive(&mut self, real: &str) -> String {
        let made = pairs(real).filter_map(|(key, value)| match key {
            "" | "file" | "volume" if value.contains(':') => Some(joined((key, &self.volume(value)))),
            "" if value == "none" || value == "cdrom" => Some(value.to_owned()),
            // A path or a device of the node.
            "" => Some("none".to_owned()),
            "serial" => {
                Some(format!("serial={}", self.names.made("serial", value, |number| format!("serial-{number}"))))
            }
            "wwn" | "model" => None,
            _ => Some(format!("{key}={value}")),
        });
        made.collect::<Vec<_>>().join(",")
    }

    fn guests(&mut self, real: Value) -> Value {
        let Value::Object(real) = real else { return Value::Null };
        let mut made = Map::new();
        for (key, facts) in real {
            let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
            let name = self.host(&text("hostname"));
            let shown = json!({
                "address": self.host(&text("address")), "hostname": name, "context": self.names.of("context", &text("context")),
                "talos": facts["talos"], "kubernetes": facts["kubernetes"], "role": facts["role"],
            });
            made.insert(if key.parse::<u32>().is_ok() { key } else { self.host(&key) }, shown);
        }
        Value::Object(made)
    }
}

/// `key=value` parts; what has no key is under the empty one.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split(',').filter(|part| !part.is_empty()).map(|part| part.split_once('=').unwrap_or(("", part)))
}

fn joined((key, value): (&str, &str)) -> String {
    if key.is_empty() { value.to_owned() } else { format!("{key}={value}") }
}

fn part<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    pairs(text).find(|(key, _)| *key == wanted).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn real() -> Seed {
        serde_json::from_value(json!({
            "nodes": [
                {"name": "zeus", "ip": "10.1.2.3", "network": [
                    {"iface": "vmbr0", "type": "bridge", "cidr": "10.1.2.3/24", "gateway": "10.1.2.1", "comments": "rack 7"},
                    {"iface": "customers", "type": "vnet"},
                ]},
                {"name": "hera", "ip": "10.1.2.4"},
            ],
            "cluster_name": "acme-prod",
            "ha_resources": [{"sid": "vm:100", "state": "started", "comment": "call Bob"}],
            "pools": [{"poolid": "acme", "comment": "for Bob", "vms": [100], "storages": ["nas-acme"]}],
            "storages": [
                {"storage": "local", "type": "dir", "path": "/var/lib/vz", "content": "iso"},
                {"storage": "nas-acme", "type": "nfs", "server": "nas.acme.example", "export": "/export/acme", "nodes": "zeus,hera",
                 "content": "images", "username": "bob"},
            ],
            "volumes": [{"volid": "local:iso/acme-secret.iso", "node": "zeus", "content": "iso", "format": "iso", "virtual_size": 9}],
            "vms": [{"vmid": 100, "node": "hera", "status": "running", "config": {
                "name": "acme-db", "description": "Bob's", "cores": "4", "tags": "acme;talos", "args": "-acme",
                "net0": "virtio=DE:AD:BE:EF:00:01,bridge=customers,tag=7", "ipconfig0": "gw=10.1.2.1,ip=10.1.2.50/24",
                "scsi0": "nas-acme:100/vm-100-disk-0.qcow2,serial=ACME1,size=8G", "ide2": "local:iso/acme-secret.iso,media=cdrom",
                "smbios1": "uuid=11111111-2222-3333-4444-555555555555,serial=QUNNRQ==", "vmgenid":
                "11111111-2222-3333-4444-666666666666", "sshkeys": "ssh-ed25519 AAAA bob", "hostpci0": "mapping=acme,pcie=1",
            }}],
            "guest": {"100": {"hostname": "acme-db", "address": "10.1.2.50", "talos": "1.12.4", "role": "worker", "context": "acme"}},
        }))
        .unwrap()
    }

    #[test]
    fn nothing_of_the_site_is_left_and_the_same_thing_is_the_same_everywhere() {
        let made = redact(real());
        let text = serde_json::to_string(&made).unwrap().to_lowercase();
        for word in ["acme", "bob", "zeus", "hera", "customers", "10.1.2", "dead", "de:ad", "1111-", "rack", "nas."] {
            assert!(!text.contains(word), "{word} is left: {text}");
        }
        let vm = &made.vms[0];
        assert_eq!((vm.node.as_deref(), vm.config["cores"].as_str()), (Some("node-2"), Some("4")));
        assert_eq!(vm.config["net0"], "virtio=BC:24:11:00:00:01,bridge=bridge-1,tag=7");
        assert_eq!(vm.config["scsi0"], "storage-1:100/vm-100-disk-0.qcow2,serial=serial-1,size=8G");
        assert_eq!(vm.config["ide2"], "local:iso/file-1.iso,media=cdrom");
        assert_eq!(made.volumes[0].volid, "local:iso/file-1.iso");
        assert_eq!(vm.config["ipconfig0"], "gw=198.18.1.1,ip=198.18.1.50/24");
        assert_eq!(vm.config["tags"], "tag-1;talos");
        assert_eq!(vm.config["hostpci0"], "pcie=1");
        assert_eq!(made.nodes[0].ip.unwrap().to_string(), "198.18.1.3");
        assert_eq!(made.nodes[0].network[1]["iface"], "bridge-1");
        assert_eq!(made.storages[1].options["nodes"], "node-1,node-2");
        assert_eq!(made.pools[0].storages, ["storage-1"]);
        assert_eq!(made.guest.unwrap()["100"]["address"], "198.18.1.50");
    }
}
