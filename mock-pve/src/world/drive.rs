//! The hardware that a config describes.
//!
//! Purpose: which keys are disks and NICs, the boot order, and the machine a guest finds itself in. Must not know: how
//! configs are changed. Start at [`World::boot`].

use super::World;
use super::power::{Boot, CloudInit, Nic};
use super::property::Properties;
use super::state::{Config, State, Vm};

/// Splits `scsi12` into `scsi` and 12.
pub fn numbered(key: &str) -> Option<(&str, u32)> {
    let at = key.find(|c: char| c.is_ascii_digit())?;
    Some((&key[..at], key[at..].parse().ok()?))
}

/// Whether a key is a bus position, `efidisk0` or `tpmstate0`.
pub fn is_drive(key: &str) -> bool {
    match numbered(key) {
        Some((bus, number)) => match bus {
            "ide" => number <= 3,
            "sata" => number <= 5,
            "scsi" => number <= 30,
            "virtio" => number <= 15,
            "efidisk" | "tpmstate" => number == 0,
            _ => false,
        },
        None => false,
    }
}

/// Whether a key is `unusedN`.
pub fn is_unused(key: &str) -> bool {
    matches!(numbered(key), Some(("unused", number)) if number <= 255)
}

/// Whether a drive is a CD-ROM (a cloud-init drive is one).
pub fn is_cdrom(drive: &Properties) -> bool {
    drive.get("media") == Some("cdrom")
}

/// Whether a volume is a cloud-init drive by its name.
pub fn is_cloudinit(volid: &str) -> bool {
    volid.split(['/', ':']).any(|part| {
        let stem = part.split('.').next().unwrap_or_default();
        stem.strip_prefix("vm-")
            .and_then(|rest| rest.strip_suffix("-cloudinit"))
            .is_some_and(|id| !id.is_empty() && id.chars().all(|c| c.is_ascii_digit()))
    }) || volid.ends_with(":cloudinit")
        || volid == "cloudinit"
}

/// The devices in boot order.
pub fn boot_order(config: &Config) -> Vec<String> {
    if let Some(boot) = config.get("boot") {
        let boot = Properties::parse(boot, "legacy");
        if let Some(order) = boot.get("order") {
            return order.split([';', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect();
        }
        if let Some(legacy) = boot.get("legacy") {
            return legacy_order(config, legacy);
        }
        return Vec::new();
    }
    legacy_order(config, "cdn")
}

/// The devices of an order that names them; nothing, where the old letters hold.
pub fn named_order(config: &Config) -> Vec<String> {
    let named = config.get("boot").is_some_and(|boot| Properties::parse(boot, "legacy").get("order").is_some());
    if named { boot_order(config) } else { Vec::new() }
}

fn legacy_order(config: &Config, letters: &str) -> Vec<String> {
    let mut order = Vec::new();
    for letter in letters.chars() {
        match letter {
            'c' => {
                order.extend(config.get("bootdisk").cloned().or_else(|| first_disk(config)));
            }
            'd' => order.extend(first_cdrom(config)),
            'n' => order.extend(nics(config).into_iter().next().map(|(key, _)| key)),
            _ => {}
        }
    }
    order
}

/// Bus positions in the order in which the original looks for a disk to boot.
pub fn disk_keys() -> impl Iterator<Item = String> {
    [("ide", 4), ("scsi", 31), ("virtio", 16), ("sata", 6)]
        .into_iter()
        .flat_map(|(bus, count)| (0..count).map(move |number| format!("{bus}{number}")))
}

/// The first disk that isn't a CD-ROM.
pub fn first_disk(config: &Config) -> Option<String> {
    disk_keys().find(|key| config.get(key).is_some_and(|text| !is_cdrom(&Properties::parse(text, "file"))))
}

/// The first CD-ROM.
pub fn first_cdrom(config: &Config) -> Option<String> {
    disk_keys().find(|key| {
        config.get(key).is_some_and(|text| {
            let drive = Properties::parse(text, "file");
            is_cdrom(&drive) && !drive.get("file").is_some_and(is_cloudinit)
        })
    })
}

/// Whether there is a cloud-init drive.
fn has_cloud_init(config: &Config) -> bool {
    let is_one = |value: &str| Properties::parse(value, "file").get("file").is_some_and(is_cloudinit);
    config.iter().any(|(key, value)| is_drive(key) && is_one(value))
}

/// What a cloud-init drive for Linux says of the guest's name, where its user data is PVE's own.
fn cloud_name(config: &Config, vmid: u32) -> Option<String> {
    let of_others = |custom: &String| Properties::parse(custom, "").get("user").is_some();
    let nocloud = config.get("citype").is_none_or(|kind| kind == "nocloud");
    if !has_cloud_init(config) || !nocloud || config.get("cicustom").is_some_and(of_others) {
        return None;
    }
    let name = config.get("name").map_or_else(|| format!("VM{vmid}"), String::clone);
    Some(name.split('.').next().unwrap_or_default().to_owned())
}

/// What the cloud-init drive says of `netN`, if there is one.
fn cloud_init(config: &Config, net: &str) -> Option<CloudInit> {
    if !has_cloud_init(config) {
        return None;
    }
    let (_, number) = numbered(net)?;
    let ip = Properties::parse(config.get(&format!("ipconfig{number}")).map_or("", String::as_str), "");
    Some(match ip.get("ip") {
        Some("dhcp") => CloudInit::Dhcp,
        Some(address) => match address.parse() {
            Ok(address) => {
                CloudInit::Static { address, gateway: ip.get("gw").and_then(|gateway| gateway.parse().ok()) }
            }
            Err(_) => CloudInit::Nothing,
        },
        None => CloudInit::Nothing,
    })
}

/// `netN` in order.
pub fn nics(config: &Config) -> Vec<(String, Properties)> {
    (0..32)
        .filter_map(|number| {
            let key = format!("net{number}");
            let value = config.get(&key)?;
            Some((key, parse_nic(value)))
        })
        .collect()
}

/// NIC models that the original knows.
pub const NIC_MODELS: &[&str] = &[
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];

/// A NIC with `model` and `macaddr` whichever way it was written.
pub fn parse_nic(text: &str) -> Properties {
    let mut nic = Properties::parse(text, "model");
    for (key, value) in nic.parts.clone() {
        if NIC_MODELS.contains(&key.as_str()) {
            nic.remove(&key);
            nic.set("model", key);
            nic.set("macaddr", value);
        }
    }
    nic
}

/// A NIC the way it is stored: `virtio=MAC,bridge=vmbr0`.
pub fn print_nic(nic: &Properties) -> String {
    let model = nic.get("model").unwrap_or("virtio");
    let mut rest = nic.clone();
    rest.remove("model");
    let mac = rest.remove("macaddr");
    let head = mac.map_or_else(|| model.to_owned(), |mac| format!("{model}={mac}"));
    let tail = rest.print("");
    if tail.is_empty() { head } else { format!("{head},{tail}") }
}

/// Size of the first disk in boot order, in bytes; what lists call `maxdisk`.
pub fn boot_disk_size(config: &Config) -> u64 {
    boot_order(config)
        .into_iter()
        .find_map(|key| {
            let drive = Properties::parse(config.get(&key)?, "file");
            if !is_drive(&key) || is_cdrom(&drive) {
                return None;
            }
            drive.get("size").and_then(super::property::parse_size)
        })
        .unwrap_or(0)
}

/// Virtual CPUs: `vcpus`, else sockets × cores.
pub fn cpus(config: &Config) -> u64 {
    let number = |key: &str| config.get(key).and_then(|text| text.parse::<u64>().ok());
    number("vcpus").unwrap_or_else(|| number("sockets").unwrap_or(1).saturating_mul(number("cores").unwrap_or(1)))
}

/// Memory in MiB.
pub fn memory_mib(config: &Config) -> u64 {
    config
        .get("memory")
        .and_then(|text| Properties::parse(text, "current").get("current").and_then(|text| text.parse().ok()))
        .unwrap_or(512)
}

/// Whether the config enables the guest agent.
pub fn agent_enabled(config: &Config) -> bool {
    config.get("agent").is_some_and(|text| Properties::parse(text, "enabled").is_on("enabled"))
}

impl State {
    /// The hardware of a VM as its guest would find it.
    pub fn hardware(&self, dir: &std::path::Path, vmid: u32, vm: &Vm) -> Boot {
        let config = &vm.config;
        let text = |key: &str, default: &str| config.get(key).map_or_else(|| default.to_owned(), String::clone);
        let disk = boot_order(config).into_iter().find_map(|key| {
            let drive = Properties::parse(config.get(&key)?, "file");
            if !is_drive(&key) || is_cdrom(&drive) {
                return None;
            }
            let volume = self.volume_key(&vm.node, drive.get("file")?)?;
            self.volumes.contains_key(&volume).then(|| (key, self.file_of(dir, &volume)))
        });
        let (disk_key, disk) = disk.map_or((String::new(), None), |(key, path)| (key, Some(path)));
        let uuid = config
            .get("smbios1")
            .and_then(|text| Properties::parse(text, "uuid").get("uuid").map(str::to_ascii_lowercase))
            .unwrap_or_default();
        let efi = config.get("efidisk0").map(|text| Properties::parse(text, "file"));
        Boot {
            node: vm.node.clone(),
            vmid,
            name: text("name", &format!("VM {vmid}")),
            cloud_name: cloud_name(config, vmid),
            uuid,
            nics: nics(config)
                .into_iter()
                .map(|(key, nic)| Nic {
                    cloud_init: cloud_init(config, &key),
                    mac: nic.get("macaddr").unwrap_or_default().to_ascii_uppercase(),
                    bridge: nic.get("bridge").unwrap_or_default().to_owned(),
                    link_up: !nic.is_on("link_down"),
                })
                .collect(),
            disk,
            disk_key,
            bios: text("bios", "seabios"),
            cpu: config
                .get("cpu")
                .and_then(|cpu| Properties::parse(cpu, "cputype").get("cputype").map(str::to_owned))
                .unwrap_or_else(|| "kvm64".to_owned()),
            scsihw: text("scsihw", "lsi"),
            cores: u32::try_from(cpus(config)).unwrap_or(u32::MAX),
            memory_mib: memory_mib(config),
            secure_boot: efi.is_some_and(|efi| efi.is_on("pre-enrolled-keys")),
        }
    }
}

impl World {
    /// The hardware of a VM, running or not.
    pub fn boot(&self, vmid: u32) -> Option<Boot> {
        let state = self.state();
        let vm = state.vms.get(&vmid)?;
        Some(state.hardware(self.dir(), vmid, vm))
    }

    /// The VM that has a NIC with that MAC.
    pub fn vm_of_mac(&self, mac: &str) -> Option<u32> {
        let state = self.state();
        let found = state.vms.iter().find(|(_, vm)| {
            nics(&vm.config).iter().any(|(_, nic)| nic.get("macaddr").is_some_and(|own| own.eq_ignore_ascii_case(mac)))
        });
        found.map(|(vmid, _)| *vmid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &[(&str, &str)]) -> Config {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_boot_order_is_explicit_or_the_old_letters() {
        let disks = [("scsi0", "l:vm-1-disk-0,size=8G"), ("ide2", "none,media=cdrom"), ("net0", "virtio=A,bridge=b")];
        let mut lines = config(&disks);
        assert_eq!(boot_order(&lines), ["scsi0", "ide2", "net0"]);
        lines.insert("boot".to_owned(), "order=net0;scsi0".to_owned());
        assert_eq!(boot_order(&lines), ["net0", "scsi0"]);
        assert_eq!(boot_disk_size(&lines), 8 << 30);
        lines.insert("boot".to_owned(), String::new());
        assert!(boot_order(&lines).is_empty());
    }

    #[test]
    fn a_cloud_init_drive_says_which_address_a_card_has() {
        let mut lines = config(&[("net0", "virtio=A,bridge=b"), ("ipconfig0", "gw=10.0.0.1,ip=10.0.0.5/24")]);
        assert_eq!(cloud_init(&lines, "net0"), None, "without a drive nobody reads it");
        lines.insert("ide2".to_owned(), "local-lvm:vm-100-cloudinit,media=cdrom".to_owned());
        let (address, gateway) = ("10.0.0.5/24".parse().unwrap(), "10.0.0.1".parse().ok());
        assert_eq!(cloud_init(&lines, "net0"), Some(CloudInit::Static { address, gateway }));
        assert_eq!(cloud_init(&lines, "net1"), Some(CloudInit::Nothing));
        lines.insert("ipconfig0".to_owned(), "ip=dhcp".to_owned());
        assert_eq!(cloud_init(&lines, "net0"), Some(CloudInit::Dhcp));
    }

    #[test]
    fn nics_are_stored_with_the_model_first() {
        let nic = parse_nic("model=virtio,macaddr=BC:24:11:00:00:01,firewall=1,bridge=vmbr0");
        assert_eq!(print_nic(&nic), "virtio=BC:24:11:00:00:01,bridge=vmbr0,firewall=1");
        assert_eq!(parse_nic("e1000=BC:24:11:00:00:01,bridge=vmbr0").get("model"), Some("e1000"));
    }
}
