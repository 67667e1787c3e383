//! VMs: hardware stays, what people wrote about them goes.
//!
//! Must not know: what other things of a site are called.

use mock_pve::world::seed::VmSeed;
use serde_json::Value;

use super::Redact;

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

impl Redact {
    pub(super) fn vm(&mut self, mut vm: VmSeed) -> VmSeed {
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
