//! Resources about the kernel of a machine, and what it finds on the buses of a virtual machine.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Item, Maker, Type};
use crate::talos::containers;
use crate::world::machine::{Machine, NodeConfig};

/// The types that are made here.
pub(super) const NAMES: [&str; 13] = [
    "AdjtimeStatuses.v1alpha1.talos.dev",
    "APIServiceConfigs.runtime.talos.dev",
    "CPUCores.hardware.talos.dev",
    "EthernetStatuses.net.talos.dev",
    "KernelModuleStatuses.runtime.talos.dev",
    "KernelParamDefaultSpecs.runtime.talos.dev",
    "KernelParamStatuses.runtime.talos.dev",
    "LoadedKernelModules.runtime.talos.dev",
    "PCIDevices.hardware.talos.dev",
    "RoutingRuleStatuses.net.talos.dev",
    "SBOMItems.talos.dev",
    "ServicePIDs.runtime.talos.dev",
    "UniqueMachineTokens.runtime.talos.dev",
];

/// The parameters that Talos sets by itself, and what the kernel would have taken.
const PARAMETERS: &[(&str, &str, &str)] = &[
    ("proc.sys.dev.tty.ldisc_autoload", "0", "1"),
    ("proc.sys.fs.aio-max-nr", "1048576", "65536"),
    ("proc.sys.fs.inotify.max_user_instances", "8192", "128"),
    ("proc.sys.fs.protected_fifos", "2", "0"),
    ("proc.sys.fs.protected_hardlinks", "1", "0"),
    ("proc.sys.fs.protected_regular", "2", "0"),
    ("proc.sys.fs.protected_symlinks", "1", "0"),
    ("proc.sys.fs.suid_dumpable", "0", "0"),
    ("proc.sys.kernel.ctrl-alt-del", "0", "0"),
    ("proc.sys.kernel.dmesg_restrict", "1", "1"),
    ("proc.sys.kernel.kptr_restrict", "2", "0"),
    ("proc.sys.kernel.panic", "10", "0"),
    ("proc.sys.kernel.perf_event_paranoid", "3", "2"),
    ("proc.sys.kernel.pid_max", "262144", "32768"),
    ("proc.sys.kernel.randomize_va_space", "2", "2"),
    ("proc.sys.kernel.unprivileged_bpf_disabled", "1", "2"),
    ("proc.sys.kernel.yama.ptrace_scope", "2", "1"),
    ("proc.sys.net.bridge.bridge-nf-call-ip6tables", "1", "1"),
    ("proc.sys.net.bridge.bridge-nf-call-iptables", "1", "1"),
    ("proc.sys.net.core.bpf_jit_harden", "2", "0"),
    ("proc.sys.net.ipv4.icmp_echo_ignore_broadcasts", "1", "1"),
    ("proc.sys.net.ipv4.icmp_ignore_bogus_error_responses", "1", "1"),
    ("proc.sys.net.ipv4.ip_forward", "1", "0"),
    ("proc.sys.net.ipv4.ip_local_reserved_ports", "50000,50001", ""),
    ("proc.sys.net.ipv4.tcp_keepalive_intvl", "60", "75"),
    ("proc.sys.net.ipv4.tcp_keepalive_time", "600", "7200"),
    ("proc.sys.net.ipv6.conf.default.accept_ra", "2", "1"),
    ("proc.sys.net.ipv6.conf.default.forwarding", "1", "0"),
    ("proc.sys.user.max_user_namespaces", "0", "15000"),
    ("proc.sys.vm.overcommit_memory", "1", "0"),
    ("proc.sys.vm.unprivileged_userfaultfd", "0", "0"),
];

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let config = machine.see(|state| state.config.clone());
    match kind.name {
        "KernelParamDefaultSpecs.runtime.talos.dev" => PARAMETERS
            .iter()
            .map(|(name, value, _)| maker.item(name, &json!({ "value": value, "ignoreErrors": false })))
            .collect(),
        "KernelParamStatuses.runtime.talos.dev" => parameters(&maker, config.as_deref()),
        "KernelModuleStatuses.runtime.talos.dev" | "LoadedKernelModules.runtime.talos.dev" => {
            config.map(|config| modules(&maker, &config)).unwrap_or_default()
        }
        "PCIDevices.hardware.talos.dev" => {
            devices(machine).iter().map(|one| maker.item(&format!("0000:{}", one.at), &one.value())).collect()
        }
        "CPUCores.hardware.talos.dev" => (0..machine.hardware().cores)
            .map(|core| {
                let value = json!({ "socket": 0, "coreID": core, "modelName": machine.hardware().cpu,
                    "logicalCPUs": [core] });
                maker.item(&format!("0-{core}"), &value)
            })
            .collect(),
        "EthernetStatuses.net.talos.dev" => {
            let links = machine.see(|state| state.links.clone());
            let one = |name: &str, up: bool| {
                let value = json!({ "linkState": up, "port": "Other", "duplex": "Unknown",
                    "rings": { "rx-max": 256, "tx-max": 256, "rx": 256, "tx": 256 },
                    "features": { "tx-checksum-ip-generic": "on", "tx-scatter-gather": "on", "rx-checksum": "on [fixed]" },
                    "channels": { "combined-max": 1, "combined": 1 } });
                maker.item(name, &value)
            };
            links.iter().map(|link| one(&link.name, link.up)).collect()
        }
        "RoutingRuleStatuses.net.talos.dev" => rules(&maker),
        "SBOMItems.talos.dev" => bill(machine, &maker),
        "ServicePIDs.runtime.talos.dev" => (1000_u32..)
            .step_by(7)
            .zip(containers::running(machine))
            .filter(|(_, one)| one.is_service())
            .map(|(pid, one)| maker.item(&one.name, &json!({ "pid": pid, "mountNamespace": "" })))
            .collect(),
        "APIServiceConfigs.runtime.talos.dev" => {
            let waits = config.is_none();
            let address = machine.see(crate::world::machine::State::address).filter(|_| waits);
            let listen = address.map_or_else(|| ":50000".to_owned(), |address| format!("{address}:50000"));
            let value = json!({ "listenAddress": listen, "nodeRoutingDisabled": waits, "readonlyRoleMode": waits,
                "skipVerifyingClientCert": waits });
            vec![maker.item("api", &value)]
        }
        "UniqueMachineTokens.runtime.talos.dev" => {
            vec![maker.item("unique-machine-token", &json!({ "token": "" }))]
        }
        "AdjtimeStatuses.v1alpha1.talos.dev" => {
            let value = json!({ "offset": "-123.4µs", "frequencyAdjustmentRatio": 1.000_001, "maxError": "16.5ms",
                "estError": "0s", "status": "STA_PLL | STA_NANO", "constant": 2, "syncStatus": true, "state": "TIME_OK" });
            vec![maker.item("node", &value)]
        }
        _ => Vec::new(),
    }
}

/// The rules that every kernel begins with: the table of local addresses before the others.
fn rules(maker: &Maker) -> Vec<Item> {
    let tables = [("inet4", 0, "local"), ("inet4", 32_766, "main"), ("inet4", 32_767, "default")];
    let six = [("inet6", 0, "local"), ("inet6", 32_766, "main")];
    let one = |(family, priority, table): (&str, u32, &str)| {
        let value = json!({ "family": family, "src": "", "dst": "", "table": table, "priority": priority,
            "action": "unicast" });
        maker.item(&format!("{family}/{priority:05}"), &value)
    };
    tables.into_iter().chain(six).map(one).collect()
}

/// The software in the image, as far as its versions are known: Talos, its kernel, and the extensions.
fn bill(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let (tag, kernel, recipe) = machine.see(|state| (state.tag().to_owned(), state.kernel(), state.recipe.clone()));
    let one = |name: &str, version: &str, license: &str, extension: bool| {
        let mut value = json!({ "name": name, "version": version });
        if !license.is_empty() {
            value["license"] = json!(license);
        }
        if extension {
            value["extension"] = json!(true);
        }
        maker.item(name, &value)
    };
    let kernel = kernel.trim_end_matches("-talos");
    let mut all = vec![one("Talos", &tag, "MPL-2.0", false), one("kernel", kernel, "GPL-2.0-only", false)];
    let extensions = recipe.iter().flat_map(|recipe| &recipe.extensions);
    all.extend(extensions.map(|added| one(added.name.trim_start_matches("siderolabs/"), &added.version, "", true)));
    all
}

/// What the configuration sets comes before what Talos sets.
fn parameters(maker: &Maker, config: Option<&NodeConfig>) -> Vec<Item> {
    let mut all: BTreeMap<String, (String, &str)> =
        PARAMETERS.iter().map(|(name, now, before)| ((*name).to_owned(), ((*now).to_owned(), *before))).collect();
    let wanted = [("/machine/sysctls", "proc.sys"), ("/machine/sysfs", "sys")];
    for (pointer, prefix) in wanted {
        let map = config.and_then(|config| config.main().pointer(pointer)).and_then(Value::as_object);
        for (name, value) in map.into_iter().flatten() {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            all.entry(format!("{prefix}.{name}")).or_default().0 = value;
        }
    }
    all.iter()
        .map(|(name, (current, before))| {
            maker.item(name, &json!({ "current": current, "default": before, "unsupported": false }))
        })
        .collect()
}

/// Those that the configuration asks for; a virtual machine's own are built into the kernel.
fn modules(maker: &Maker, config: &NodeConfig) -> Vec<Item> {
    let wanted = config.main().pointer("/machine/kernel/modules").and_then(Value::as_array);
    let names = wanted.into_iter().flatten().filter_map(|module| module.get("name")?.as_str());
    let status = maker.0.name.starts_with("KernelModuleStatuses");
    names
        .map(|name| {
            let name = name.replace('-', "_");
            let mut value = json!({ "size": 65536, "referenceCount": 0, "state": "Live",
                "address": "0x0000000000000000" });
            if status {
                value["type"] = json!("loadable");
                value["state"] = json!("live");
            }
            maker.item(&name, &value)
        })
        .collect()
}

/// A device on the PCI bus.
struct Device {
    /// `00:05.0`.
    at: String,
    /// Class and subclass, with their names.
    class: (u8, u8, &'static str, &'static str),
    vendor: (u16, &'static str),
    product: (u16, &'static str),
    driver: &'static str,
}

impl Device {
    fn value(&self) -> Value {
        let (class, vendor, product) = (self.class, self.vendor, self.product);
        let mut value = json!({ "class": class.2, "subclass": class.3, "vendor": vendor.1, "product": product.1,
            "class_id": format!("{:#04x}", class.0), "subclass_id": format!("{:#04x}", class.1),
            "vendor_id": format!("{:#06x}", vendor.0), "product_id": format!("{:#06x}", product.0) });
        if !self.driver.is_empty() {
            value["driver"] = json!(self.driver);
        }
        value
    }

    /// Its slot as the kernel counts: eight for each.
    fn number(&self) -> u32 {
        let slot = self.at.split([':', '.']).nth(1).and_then(|slot| u32::from_str_radix(slot, 16).ok());
        slot.unwrap_or_default() * 8
    }
}

/// The devices as `/proc/bus/pci/devices` lists them: number, vendor and product, interrupt, seven addresses and seven
/// sizes, driver.
pub(in crate::talos) fn bus(machine: &Machine) -> String {
    let nowhere = format!("\t{:>16}", 0).repeat(14);
    let line = |one: &Device| {
        format!("{:04x}\t{:04x}{:04x}\tb{nowhere}\t{}\n", one.number(), one.vendor.0, one.product.0, one.driver)
    };
    devices(machine).iter().map(line).collect()
}

/// What QEMU puts on the bus.
fn devices(machine: &Machine) -> Vec<Device> {
    let hardware = machine.hardware();
    let one = |at: String, class, vendor, product, driver| Device { at, class, vendor, product, driver };
    let intel = (0x8086, "Intel Corporation");
    let virtio = (0x1af4, "Red Hat, Inc.");
    let host = if hardware.bios == "ovmf" {
        (0x29c0, "82G33/G31/P35/P31 Express DRAM Controller")
    } else {
        (0x1237, "440FX - 82441FX PMC [Natoma]")
    };
    let isa = if hardware.bios == "ovmf" {
        (0x2918, "82801IB (ICH9) LPC Interface Controller")
    } else {
        (0x7000, "82371SB PIIX3 ISA [Natoma/Triton II]")
    };
    let storage =
        if hardware.disk_key.starts_with("virtio") { (0x1001, "Virtio block device") } else { (0x1004, "Virtio SCSI") };
    let mut all = vec![
        one("00:00.0".to_owned(), (6, 0, "Bridge", "Host bridge"), intel, host, ""),
        one("00:01.0".to_owned(), (6, 1, "Bridge", "ISA bridge"), intel, isa, ""),
        one(
            "00:02.0".to_owned(),
            (3, 0, "Display controller", "VGA compatible controller"),
            (0x1234, ""),
            (0x1111, ""),
            "bochs-drm",
        ),
        one(
            "00:05.0".to_owned(),
            (1, 0, "Mass storage controller", "SCSI storage controller"),
            virtio,
            storage,
            "virtio-pci",
        ),
    ];
    let cards = (0x12_u32..).zip(&hardware.nics).map(|(slot, _)| {
        let network = (2, 0, "Network controller", "Ethernet controller");
        one(format!("00:{slot:02x}.0"), network, virtio, (0x1000, "Virtio network device"), "virtio-pci")
    });
    all.extend(cards);
    all
}
