//! Resources about the machine itself, its cluster as discovery sees it, and its hardware.

use std::time::SystemTime;

use serde_json::{Value, json};

use super::wire::Proto;
use super::{Item, Maker, Type, addresses, disk_name};
use crate::world::machine::{Identity, Machine, MachineType, Recipe, ServiceState, Stage, State, Status};

#[expect(clippy::too_many_lines, reason = "a table of resources, one arm each")]
pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let hardware = machine.hardware();
    match kind.name {
        "MachineStatuses.runtime.talos.dev" => vec![status(&maker, &machine.see(State::status))],
        "MachineTypes.config.talos.dev" => machine
            .see(State::machine_type)
            .map(|found| {
                let number = if found == MachineType::ControlPlane { 2 } else { 3 };
                maker.typed("machine-type", &json!(found.as_str()), Proto::default().number(1, number))
            })
            .into_iter()
            .collect(),
        "Members.cluster.talos.dev" => members(machine, &maker, Named::Member),
        "Affiliates.cluster.talos.dev" => members(machine, &maker, Named::Affiliate),
        "Identities.cluster.talos.dev" => {
            let one = |identity: Identity| {
                let id = identity.node_id();
                maker.typed("local", &json!({ "nodeId": id }), Proto::default().text(1, &id))
            };
            machine.see(|state| state.identity).map(one).into_iter().collect()
        }
        "Infos.cluster.talos.dev" => {
            let config = machine.see(|state| state.config.clone());
            let one = |config: std::sync::Arc<crate::world::machine::NodeConfig>| {
                let (id, name) = (config.str("/cluster/id").unwrap_or_default(), config.cluster_name());
                let value = json!({ "clusterId": id, "clusterName": name });
                maker.typed("current", &value, Proto::default().text(1, id).text(2, name))
            };
            config.map(one).into_iter().collect()
        }
        "ExtensionStatuses.runtime.talos.dev" => extensions(machine, &maker),
        "ImageFactorySchematics.runtime.talos.dev" => {
            let recipe = machine.see(|state| state.recipe.clone()).filter(|recipe| !recipe.schematic.is_empty());
            let one = |recipe: Recipe| {
                let value = json!({ "schematicId": recipe.schematic, "flavor": "community",
                    "apiUrl": "https://factory.talos.dev" });
                maker.typed("image-factory-schematic", &value, Proto::default().text(1, &recipe.schematic))
            };
            recipe.map(one).into_iter().collect()
        }
        "Versions.runtime.talos.dev" => {
            let tag = machine.see(|state| state.tag().to_owned());
            let proto = Proto::default().text(1, &tag).text(2, "Talos");
            vec![maker.typed("version", &json!({ "version": tag, "name": "Talos" }), proto)]
        }
        "BootIDs.runtime.talos.dev" => {
            let id = machine.see(|state| state.boot_id.clone());
            vec![maker.typed("boot-id", &json!({ "bootID": id }), Proto::default().text(1, &id))]
        }
        "BootedEntries.talos.dev" if hardware.bios == "ovmf" => {
            let entry = machine.see(|state| format!("Talos-{}.efi", state.tag()));
            vec![maker.typed("bootedentry", &json!({ "bootedEntry": entry }), Proto::default().text(1, &entry))]
        }
        "KernelCmdlines.runtime.talos.dev" => {
            let line = machine.see(command_line);
            vec![maker.typed("cmdline", &json!({ "cmdline": line }), Proto::default().text(1, &line))]
        }
        "MetaKeys.runtime.talos.dev" => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let all = machine.meta_tags();
            all.iter()
                .map(|(key, value)| maker.item(&format!("0x{key:02x}"), &json!({ "value": text(value) })))
                .collect()
        }
        "MetaLoads.runtime.talos.dev" => vec![maker.item("meta-loaded", &json!({ "done": true }))],
        "DevicesStatuses.runtime.talos.dev" => vec![maker.item("devices", &json!({ "ready": true }))],
        "ImageCacheConfigs.cri.talos.dev" => {
            let value = json!({ "status": "disabled", "copyStatus": "skipped", "roots": [] });
            vec![maker.item("image-cache", &value)]
        }
        "KernelModuleSpecs.runtime.talos.dev" | "KernelParamSpecs.runtime.talos.dev" => kernel(machine, &maker),
        "DiscoveryConfigs.cluster.talos.dev" | "KubeSpanConfigs.kubespan.talos.dev" => cluster_config(machine, &maker),
        "MountStatuses.runtime.talos.dev" if machine.see(|state| state.config.is_some()) => {
            let device = disk_name(machine);
            [("EPHEMERAL", "/var", 6), ("STATE", "/system/state", 5)]
                .map(|(id, target, part)| {
                    let source = format!("/dev/{device}{part}");
                    let value = json!({ "source": source, "target": target, "filesystemType": "xfs",
                        "options": [], "encrypted": false });
                    let proto = Proto::default().text(1, &source).text(2, target).text(3, "xfs");
                    maker.typed(id, &value, proto)
                })
                .into()
        }
        "SecurityStates.talos.dev" => {
            let value = json!({ "secureBoot": hardware.secure_boot, "ukiSigningKeyFingerprint": "",
                "pcrSigningKeyFingerprint": "", "selinuxState": "enabled, permissive",
                "bootedWithUKI": hardware.bios == "ovmf" });
            vec![maker.typed("securitystate", &value, Proto::default().flag(1, hardware.secure_boot))]
        }
        "PlatformMetadatas.talos.dev" => {
            let named = hardware.cloud_name.as_deref().unwrap_or_default();
            let value = json!({ "platform": "nocloud", "hostname": named, "instanceId": hardware.vmid.to_string() });
            let proto = Proto::default().text(1, "nocloud").text(2, named);
            vec![maker.typed("platformmetadata", &value, proto)]
        }
        "TimeStatuses.v1alpha1.talos.dev" => {
            let value = json!({ "synced": true, "epoch": 1, "syncDisabled": false });
            vec![maker.typed("node", &value, Proto::default().flag(1, true).number(2, 1))]
        }
        "SystemInformations.hardware.talos.dev" => {
            let chipset = if hardware.bios == "ovmf" { "pc-q35" } else { "pc-i440fx" };
            let value = json!({ "manufacturer": "QEMU", "productName": "Standard PC", "version": chipset,
                "uuid": hardware.uuid, "wakeUpType": "Power Switch" });
            let proto =
                Proto::default().text(1, "QEMU").text(2, "Standard PC").text(3, chipset).text(5, &hardware.uuid);
            vec![maker.typed("systeminformation", &value, proto)]
        }
        "Processors.hardware.talos.dev" => {
            let value = json!({ "manufacturer": "QEMU", "productName": hardware.cpu, "coreCount": hardware.cores,
                "threadCount": hardware.cores, "coreEnabled": hardware.cores });
            vec![maker.item("CPU-0", &value)]
        }
        "MemoryModules.hardware.talos.dev" => {
            let value = json!({ "manufacturer": "QEMU", "sizeMiB": hardware.memory_mib, "deviceLocator": "DIMM 0" });
            vec![maker.item("DIMM-0", &value)]
        }
        "MemoryStats.perf.talos.dev" => {
            let total = hardware.memory_mib * 1024 * 97 / 100;
            vec![maker.item("latest", &json!({ "used": total / 3, "total": total }))]
        }
        "CPUStats.perf.talos.dev" => {
            let up = machine.see(|state| SystemTime::now().duration_since(state.booted).unwrap_or_default());
            let busy = up.as_secs_f64() * 0.05;
            vec![maker.item("latest", &json!({ "cpuTotal": { "user": busy, "system": busy / 2.0 } }))]
        }
        "Services.v1alpha1.talos.dev" => services(machine, &maker),
        _ => Vec::new(),
    }
}

/// The kernel's command line.
pub(in crate::talos) fn command_line(state: &State) -> String {
    let arguments = state.recipe.as_ref().map(|recipe| recipe.kernel_args.join(" ")).unwrap_or_default();
    let line = "talos.platform=nocloud console=tty1 init_on_alloc=1 slab_nomerge pti=on consoleblank=0";
    format!("{line} {arguments}").trim_end().to_owned()
}

fn status(maker: &Maker, status: &Status) -> Item {
    let unmet: Vec<Value> =
        status.unmet.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect();
    let value =
        json!({ "stage": status.stage.as_str(), "status": { "ready": status.ready, "unmetConditions": unmet } });
    let stage = match status.stage {
        Stage::Booting => 1,
        Stage::Installing => 2,
        Stage::Maintenance => 3,
        Stage::Running => 4,
        Stage::Rebooting => 5,
        Stage::ShuttingDown => 6,
        Stage::Resetting => 7,
        Stage::Upgrading => 8,
    };
    let conditions = status.unmet.iter().fold(Proto::default().flag(1, status.ready), |proto, (name, reason)| {
        proto.message(2, &Proto::default().text(1, name).text(2, reason))
    });
    maker.typed("machine", &value, Proto::default().number(1, stage).message(2, &conditions))
}

/// Only those that run have a resource.
fn services(machine: &Machine, maker: &Maker) -> Vec<Item> {
    machine.see(|state| {
        let running = state.services.iter().filter(|(_, service)| service.state == ServiceState::Running);
        running
            .map(|(id, service)| {
                let (healthy, unknown) = (service.healthy == Some(true), service.healthy.is_none());
                let value = json!({ "running": true, "healthy": healthy, "unknown": unknown });
                maker.typed(id, &value, Proto::default().flag(1, true).flag(2, healthy).flag(3, unknown))
            })
            .collect()
    })
}

/// What a machine of the cluster is called by: its node, or who it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Named {
    Member,
    Affiliate,
}

fn members(machine: &Machine, maker: &Maker, named: Named) -> Vec<Item> {
    let config = machine.see(|state| state.config.clone()).filter(|config| config.discovery());
    let Some(config) = config else { return Vec::new() };
    let all = machine.room().cluster(&config.cluster_mark());
    let mut items: Vec<Item> = all
        .iter()
        .filter_map(|one| {
            one.see(|state| {
                let kind = state.machine_type()?;
                let (id, name) = (state.identity?.node_id(), state.full_hostname());
                let system = format!("Talos ({})", state.tag());
                let mut value = json!({ "nodeId": id, "addresses": addresses(state), "hostname": name,
                    "machineType": kind.as_str(), "operatingSystem": system });
                let mut proto = Proto::default().text(1, &id);
                for address in state.addresses() {
                    let octets = match address {
                        std::net::IpAddr::V4(address) => address.octets().to_vec(),
                        std::net::IpAddr::V6(address) => address.octets().to_vec(),
                    };
                    proto = proto.message(2, &Proto::default().bytes(1, &octets));
                }
                let number = if kind == MachineType::ControlPlane { 2 } else { 3 };
                let node = state.nodename();
                let (id, last) = match named {
                    Named::Member => (node, 6),
                    Named::Affiliate => {
                        value["nodename"] = json!(node);
                        proto = proto.text(4, &node);
                        (id, 8)
                    }
                };
                let at = if named == Named::Member { 4 } else { 6 };
                proto = proto.text(3, &name).text(5, &system).number(at, number);
                if kind == MachineType::ControlPlane {
                    value["controlPlane"] = json!({ "port": 6443 });
                    proto = proto.message(last, &Proto::default().number(1, 6443));
                }
                Some(maker.typed(&id, &value, proto))
            })
        })
        .collect();
    items.sort_by(|left, right| left.id.cmp(&right.id));
    items
}

/// The extensions, and the factory's own one that names the schematic.
fn extensions(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let recipe = machine.see(|state| state.recipe.clone());
    let schematic = recipe.iter().filter(|recipe| !recipe.schematic.is_empty()).map(|recipe| {
        let known = machine.world().registry().schematic(&recipe.schematic);
        let extra = known.map_or_else(|| "customization: {}\n".to_owned(), |known| known.canonical());
        json!({ "image": "", "metadata": { "name": "schematic", "version": recipe.schematic, "author": "Image Factory",
            "description": "Virtual extension which specifies the schematic of the image built with Image Factory.",
            "extraInfo": extra } })
    });
    let others = recipe.iter().flat_map(|recipe| &recipe.extensions).map(|one| {
        json!({ "image": format!("{}-{}.sqsh", one.name.replace('/', "-"), one.version),
            "metadata": { "name": one.name.trim_start_matches("siderolabs/"), "version": one.version,
                "author": one.author, "description": one.description,
                "compatibility": { "talos": { "version": ">= v1.0.0" } } } })
    });
    let all: Vec<Value> = others.chain(schematic).collect();
    all.iter()
        .enumerate()
        .map(|(at, value)| {
            let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let metadata = Proto::default()
                .text(1, text("/metadata/name"))
                .text(2, text("/metadata/version"))
                .text(3, text("/metadata/author"))
                .text(4, text("/metadata/description"))
                .text(6, text("/metadata/extraInfo"));
            maker.typed(&at.to_string(), value, Proto::default().text(1, text("/image")).message(2, &metadata))
        })
        .collect()
}

/// What the configuration asks of the kernel.
fn kernel(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    if maker.0.name.starts_with("KernelModuleSpecs") {
        let modules = config.main().pointer("/machine/kernel/modules").and_then(Value::as_array);
        let one = |module: &Value| {
            let name = module.get("name")?.as_str()?;
            let parameters = module.get("parameters").cloned().unwrap_or_else(|| json!([]));
            Some(maker.item(name, &json!({ "string": name, "parameters": parameters })))
        };
        return modules.into_iter().flatten().filter_map(one).collect();
    }
    let of = |pointer: &str, prefix: &'static str| {
        let map = config.main().pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
        map.into_iter().map(move |(name, value)| (format!("{prefix}.{name}"), value))
    };
    of("/machine/sysctls", "proc.sys")
        .chain(of("/machine/sysfs", "sys"))
        .map(|(name, value)| maker.item(&name, &json!({ "value": value, "ignoreErrors": false })))
        .collect()
}

/// How the machines of the cluster find each other, and whether `KubeSpan` joins them.
fn cluster_config(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let text = |pointer: &str| config.str(pointer).unwrap_or_default().to_owned();
    let on = |pointer: &str| config.main().pointer(pointer).and_then(Value::as_bool) == Some(true);
    let (id, value) = if maker.0.name.starts_with("DiscoveryConfigs") {
        let registry =
            |name: &str| config.discovery() && !on(&format!("/cluster/discovery/registries/{name}/disabled"));
        let endpoint = config.str("/cluster/discovery/registries/service/endpoint");
        let endpoint = endpoint.unwrap_or("https://discovery.talos.dev/").trim_start_matches("https://");
        let endpoint = endpoint.trim_end_matches('/');
        let endpoint = if endpoint.contains(':') { endpoint.to_owned() } else { format!("{endpoint}:443") };
        let value = json!({ "discoveryEnabled": config.discovery(), "registryKubernetesEnabled": registry("kubernetes"),
            "registryServiceEnabled": registry("service"), "serviceEndpoint": endpoint,
            "serviceEncryptionKey": text("/cluster/secret"), "serviceClusterID": text("/cluster/id") });
        ("cluster", value)
    } else {
        let value = json!({ "enabled": on("/machine/network/kubespan/enabled"), "clusterId": text("/cluster/id"),
            "sharedSecret": text("/cluster/secret"), "forceRouting": false, "advertiseKubernetesNetworks": false,
            "harvestExtraEndpoints": false });
        ("kubespan", value)
    };
    vec![maker.item(id, &value)]
}
