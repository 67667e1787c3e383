//! A machine's resources, made from its state when somebody asks.

use prost::Message as _;
use serde_json::{Value, json};

use super::proto::cosi::resource as api;
use crate::world::machine::{Machine, MachineType, ServiceState, State};

/// A resource type.
pub(super) struct Type {
    pub(super) name: &'static str,
    pub(super) namespace: &'static str,
    pub(super) display: &'static str,
    aliases: &'static [&'static str],
    columns: &'static [(&'static str, &'static str)],
    pub(super) sensitive: bool,
    /// First minor of Talos that has it.
    pub(super) since: u32,
}

/// A resource.
pub(super) struct Item {
    pub(super) kind: &'static str,
    pub(super) namespace: &'static str,
    pub(super) id: String,
    pub(super) yaml: String,
    pub(super) proto: Vec<u8>,
}

const NAMESPACES: &[&str] = &[
    "cluster",
    "config",
    "controlplane",
    "cri",
    "etcd",
    "files",
    "hardware",
    "k8s",
    "meta",
    "network",
    "network-config",
    "perf",
    "runtime",
    "secrets",
];

macro_rules! kind {
    ($name:literal, $namespace:literal, $display:literal, $aliases:expr, $columns:expr, $since:literal) => {
        Type {
            name: $name,
            namespace: $namespace,
            display: $display,
            aliases: &$aliases,
            columns: &$columns,
            sensitive: false,
            since: $since,
        }
    };
}

pub(super) const TYPES: &[Type] = &[
    kind!(
        "AddressStatuses.net.talos.dev",
        "network",
        "AddressStatus",
        ["addresses", "addressstatus", "addressstatuses"],
        [("Address", "{.address}"), ("Link", "{.linkName}")],
        0
    ),
    kind!(
        "DiscoveredVolumes.block.talos.dev",
        "runtime",
        "DiscoveredVolume",
        ["dv", "discoveredvolume", "discoveredvolumes"],
        [("Size", "{.prettySize}"), ("Label", "{.partitionLabel}")],
        7
    ),
    kind!(
        "Disks.block.talos.dev",
        "runtime",
        "Disk",
        ["disk", "disks"],
        [("Size", "{.pretty_size}"), ("Model", "{.model}")],
        8
    ),
    kind!(
        "EtcdMembers.etcd.talos.dev",
        "etcd",
        "EtcdMember",
        ["etcdmember", "etcdmembers"],
        [("ID", "{.memberID}")],
        0
    ),
    kind!(
        "ExtensionStatuses.runtime.talos.dev",
        "runtime",
        "ExtensionStatus",
        ["extensions", "extensionstatus", "extensionstatuses"],
        [("Name", "{.metadata.name}"), ("Version", "{.metadata.version}")],
        0
    ),
    kind!(
        "HostnameStatuses.net.talos.dev",
        "network",
        "HostnameStatus",
        ["hostname", "hostnamestatus", "hostnamestatuses"],
        [("Hostname", "{.hostname}")],
        0
    ),
    kind!(
        "LinkStatuses.net.talos.dev",
        "network",
        "LinkStatus",
        ["link", "links", "linkstatus", "linkstatuses"],
        [("Oper State", "{.operationalState}"), ("Hardware Addr", "{.hardwareAddr}")],
        0
    ),
    Type {
        name: "MachineConfigs.config.talos.dev",
        namespace: "config",
        display: "MachineConfig",
        aliases: &["mc", "machineconfig", "machineconfigs"],
        columns: &[],
        sensitive: true,
        since: 0,
    },
    kind!(
        "MachineStatuses.runtime.talos.dev",
        "runtime",
        "MachineStatus",
        ["machinestatus", "machinestatuses"],
        [("Stage", "{.stage}"), ("Ready", "{.status.ready}")],
        0
    ),
    kind!(
        "MachineTypes.config.talos.dev",
        "config",
        "MachineType",
        ["machinetype", "machinetypes"],
        [("Type", "{}")],
        0
    ),
    kind!(
        "Members.cluster.talos.dev",
        "cluster",
        "Member",
        ["member", "members"],
        [
            ("Hostname", "{.hostname}"),
            ("Machine Type", "{.machineType}"),
            ("OS", "{.operatingSystem}"),
            ("Addresses", "{.addresses}")
        ],
        0
    ),
    kind!("Namespaces.meta.cosi.dev", "meta", "Namespace", ["ns", "namespace", "namespaces"], [], 0),
    kind!(
        "NodeAddresses.net.talos.dev",
        "network",
        "NodeAddress",
        ["nodeaddress", "nodeaddresses"],
        [("Addresses", "{.addresses}")],
        0
    ),
    kind!(
        "Nodenames.kubernetes.talos.dev",
        "k8s",
        "Nodename",
        ["nodename", "nodenames"],
        [("Nodename", "{.nodename}")],
        0
    ),
    kind!(
        "NodeStatuses.kubernetes.talos.dev",
        "k8s",
        "NodeStatus",
        ["nodestatus", "nodestatuses"],
        [("Ready", "{.nodeReady}")],
        0
    ),
    kind!(
        "PlatformMetadatas.talos.dev",
        "runtime",
        "PlatformMetadata",
        ["platformmetadata", "platformmetadatas"],
        [("Platform", "{.platform}")],
        0
    ),
    kind!(
        "ResourceDefinitions.meta.cosi.dev",
        "meta",
        "ResourceDefinition",
        ["rd", "rds", "resourcedefinition", "resourcedefinitions", "api-resources"],
        [("Aliases", "{.aliases[:]}")],
        0
    ),
    kind!(
        "SecurityStates.talos.dev",
        "runtime",
        "SecurityState",
        ["securitystate", "securitystates"],
        [("SecureBoot", "{.secureBoot}")],
        0
    ),
    kind!(
        "Services.v1alpha1.talos.dev",
        "runtime",
        "Service",
        ["svc", "service", "services"],
        [("Running", "{.running}"), ("Healthy", "{.healthy}")],
        0
    ),
    kind!(
        "StaticPodStatuses.kubernetes.talos.dev",
        "k8s",
        "StaticPodStatus",
        ["podstatus", "staticpodstatus", "staticpodstatuses"],
        [("Ready", "{.conditions[0].status}")],
        0
    ),
    kind!(
        "SystemDisks.block.talos.dev",
        "runtime",
        "SystemDisk",
        ["systemdisk", "systemdisks"],
        [("Disk", "{.diskID}")],
        8
    ),
    kind!(
        "SystemInformations.hardware.talos.dev",
        "hardware",
        "SystemInformation",
        ["systeminformation", "systeminformations"],
        [("Manufacturer", "{.manufacturer}"), ("UUID", "{.uuid}")],
        0
    ),
    kind!(
        "TimeStatuses.v1alpha1.talos.dev",
        "runtime",
        "TimeStatus",
        ["timestatus", "timestatuses"],
        [("Synced", "{.synced}")],
        0
    ),
    kind!("Versions.runtime.talos.dev", "runtime", "Version", ["version", "versions"], [("Version", "{.version}")], 10),
    kind!(
        "VolumeStatuses.block.talos.dev",
        "runtime",
        "VolumeStatus",
        ["volumestatus", "volumestatuses"],
        [("Phase", "{.phase}"), ("Size", "{.prettySize}")],
        8
    ),
];

/// The type with that name, if this Talos has it.
pub(super) fn kind_of(machine: &Machine, name: &str) -> Option<&'static Type> {
    let minor = machine.see(|state| state.version().minor);
    TYPES.iter().find(|kind| kind.name == name && kind.since <= minor)
}

/// Whether there is such a namespace.
pub(super) fn is_namespace(name: &str) -> bool {
    NAMESPACES.contains(&name)
}

/// All resources of a type.
#[expect(clippy::too_many_lines, reason = "a table of resources, one arm each")]
pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let item = |id: &str, value: Value| Item {
        kind: kind.name,
        namespace: kind.namespace,
        id: id.to_owned(),
        yaml: serde_saphyr::to_string(&value).unwrap_or_default(),
        proto: Vec::new(),
    };
    let configured = |found: Option<Vec<Item>>| found.unwrap_or_default();
    let hardware = machine.hardware();
    let disk_name = if hardware.disk_key.starts_with("virtio") { "vda" } else { "sda" };
    match kind.name {
        "ResourceDefinitions.meta.cosi.dev" => {
            let minor = machine.see(|state| state.version().minor);
            TYPES.iter().filter(|one| one.since <= minor).map(definition).collect()
        }
        "Namespaces.meta.cosi.dev" => {
            NAMESPACES.iter().map(|name| item(name, json!({ "description": format!("{name} resources") }))).collect()
        }
        "MachineStatuses.runtime.talos.dev" => {
            let status = machine.see(State::status);
            let unmet: Vec<Value> =
                status.unmet.iter().map(|(name, reason)| json!({ "name": name, "reason": reason })).collect();
            let status_value = json!({ "ready": status.ready, "unmetConditions": unmet });
            vec![item("machine", json!({ "stage": status.stage.as_str(), "status": status_value }))]
        }
        "MachineConfigs.config.talos.dev" => {
            let text = machine.see(|state| state.config.as_ref().map(|config| config.text().to_owned()));
            let version = machine.see(|state| state.version().minor);
            let ids: &[&str] = if version >= 10 { &["persistent", "v1alpha1"] } else { &["v1alpha1"] };
            configured(text.map(|text| ids.iter().map(|id| machine_config(kind, id, &text)).collect()))
        }
        "MachineTypes.config.talos.dev" => {
            let found = machine.see(State::machine_type);
            configured(found.map(|found| vec![item("machine-type", json!(found.as_str()))]))
        }
        "Members.cluster.talos.dev" => members(machine).into_iter().map(|(id, value)| item(&id, value)).collect(),
        "ExtensionStatuses.runtime.talos.dev" => extensions(machine).map(|(id, value)| item(&id, value)).collect(),
        "Versions.runtime.talos.dev" => {
            vec![item("version", json!({ "version": machine.see(|state| state.tag().to_owned()), "name": "Talos" }))]
        }
        "SecurityStates.talos.dev" => {
            vec![item(
                "securitystate",
                json!({ "secureBoot": hardware.secure_boot, "bootedWithUKI": hardware.bios == "ovmf" }),
            )]
        }
        "PlatformMetadatas.talos.dev" => {
            vec![item("platformmetadata", json!({ "platform": "nocloud", "hostname": hardware.name }))]
        }
        "TimeStatuses.v1alpha1.talos.dev" => {
            vec![item("node", json!({ "synced": true, "epoch": 1, "syncDisabled": false }))]
        }
        "SystemInformations.hardware.talos.dev" => {
            let machine_type = if hardware.bios == "ovmf" { "pc-q35" } else { "pc-i440fx" };
            vec![item(
                "systeminformation",
                json!({ "manufacturer": "QEMU", "productName": "Standard PC",
                "version": machine_type, "uuid": hardware.uuid, "wakeUpType": "Power Switch" }),
            )]
        }
        "Disks.block.talos.dev" => {
            let bytes = machine.see(|state| state.disk_bytes);
            vec![item(
                disk_name,
                json!({ "dev_path": format!("/dev/{disk_name}"), "size": bytes,
                "pretty_size": pretty(bytes), "io_size": 512, "sector_size": 512, "readonly": false, "cdrom": false,
                "model": "QEMU HARDDISK", "serial": format!("drive-{}", hardware.disk_key), "transport": "virtio",
                "rotational": false }),
            )]
        }
        "SystemDisks.block.talos.dev" => {
            vec![item("system-disk", json!({ "diskID": disk_name, "devPath": format!("/dev/{disk_name}") }))]
        }
        "VolumeStatuses.block.talos.dev" => {
            let (bytes, ready) = machine.see(|state| (state.disk_bytes, state.config.is_some()));
            let size = bytes.saturating_sub(300 << 20);
            let phase = |up: bool| if up { "ready" } else { "missing" };
            [("EPHEMERAL", size, ready), ("META", 1 << 20, true), ("STATE", 100 << 20, ready)]
                .map(|(id, size, up)| item(id, json!({ "phase": phase(up), "size": size, "prettySize": pretty(size) })))
                .into()
        }
        "DiscoveredVolumes.block.talos.dev" => {
            let labels = ["EFI", "BIOS", "BOOT", "META", "STATE", "EPHEMERAL"];
            let count = if machine.see(|state| state.config.is_some()) { 6 } else { 4 };
            let labels = labels.iter().take(count).enumerate();
            labels
                .map(|(at, label)| {
                    let device = format!("{disk_name}{}", at + 1);
                    item(
                        &device,
                        json!({ "devPath": format!("/dev/{device}"), "partitionLabel": label,
                        "partitionIndex": at + 1, "parent": disk_name, "type": "partition" }),
                    )
                })
                .collect()
        }
        "LinkStatuses.net.talos.dev" => {
            let links = machine.see(|state| state.links.clone());
            let mut all = vec![item(
                "lo",
                json!({ "index": 1, "type": "loopback", "hardwareAddr": "00:00:00:00:00:00",
                "operationalState": "unknown", "linkState": true, "kind": "" }),
            )];
            all.extend(links.iter().enumerate().map(|(at, link)| {
                item(
                    &link.name,
                    json!({ "index": at + 2, "type": "ether", "hardwareAddr": link.mac,
                    "permanentAddr": link.mac, "mtu": 1500, "kind": "", "driver": "virtio_net", "linkState": link.up,
                    "operationalState": if link.up { "up" } else { "down" }, "speedMbit": 4_294_967_295_u32 }),
                )
            }));
            all
        }
        "AddressStatuses.net.talos.dev" => {
            let links = machine.see(|state| state.links.clone());
            let each = links.iter().flat_map(|link| link.addresses.iter().map(move |address| (link, address)));
            each.map(|(link, address)| {
                item(
                    &format!("{}/{address}", link.name),
                    json!({ "address": address.to_string(),
                    "linkName": link.name, "family": "inet4", "scope": "global" }),
                )
            })
            .collect()
        }
        "NodeAddresses.net.talos.dev" => {
            let addresses: Vec<String> = machine.see(|state| {
                state.links.iter().flat_map(|link| link.addresses.iter().map(ToString::to_string)).collect()
            });
            ["accumulative", "current", "default", "routed"]
                .iter()
                .map(|id| {
                    let some =
                        if *id == "default" { addresses.iter().take(1).cloned().collect() } else { addresses.clone() };
                    item(id, json!({ "addresses": some, "sortAlgorithm": "v1" }))
                })
                .collect()
        }
        "HostnameStatuses.net.talos.dev" => {
            vec![item("hostname", json!({ "hostname": machine.see(State::hostname), "domainname": "" }))]
        }
        "Services.v1alpha1.talos.dev" => machine.see(|state| {
            let each = state.services.iter();
            each.map(|(id, service)| {
                item(
                    id,
                    json!({ "running": service.state == ServiceState::Running,
                    "healthy": service.healthy == Some(true), "unknown": service.healthy.is_none() }),
                )
            })
            .collect()
        }),
        _ => in_kubernetes(machine, kind, &item),
    }
}

fn in_kubernetes(machine: &Machine, kind: &Type, item: &dyn Fn(&str, Value) -> Item) -> Vec<Item> {
    let Some(found) = machine.see(State::machine_type) else { return Vec::new() };
    let name = machine.see(State::hostname);
    let control_plane = found == MachineType::ControlPlane;
    match kind.name {
        "Nodenames.kubernetes.talos.dev" => {
            vec![item("nodename", json!({ "nodename": name, "hostnameVersion": "1", "skipNodeRegistration": false }))]
        }
        "NodeStatuses.kubernetes.talos.dev" => {
            let ready = machine.see(|state| state.node_ready);
            vec![item(&name, json!({ "nodename": name, "nodeReady": ready, "unschedulable": false }))]
        }
        "EtcdMembers.etcd.talos.dev" => {
            let id = machine.see(|state| state.membership.as_ref().map(|membership| membership.id));
            id.map(|id| item("local", json!({ "memberID": format!("{id:016x}") }))).into_iter().collect()
        }
        "StaticPodStatuses.kubernetes.talos.dev" if control_plane && machine.see(|state| state.kubernetes) => {
            ["kube-apiserver", "kube-controller-manager", "kube-scheduler"]
                .iter()
                .map(|component| {
                    let ready = json!([{ "type": "Ready", "status": "True" }]);
                    let status = json!({ "phase": "Running", "conditions": ready });
                    item(&format!("kube-system/{component}-{name}"), status)
                })
                .collect()
        }
        _ => Vec::new(),
    }
}

fn members(machine: &Machine) -> Vec<(String, Value)> {
    let Some(config) = machine.see(|state| state.config.clone()).filter(|config| config.discovery()) else {
        return Vec::new();
    };
    let mut all: Vec<(String, Value)> = machine
        .room()
        .cluster(&config.cluster_mark())
        .iter()
        .filter_map(|one| {
            one.see(|state| {
                let kind = state.machine_type()?;
                let addresses: Vec<String> = state.addresses().map(|address| address.to_string()).collect();
                let mut value = json!({
                    "nodeId": one.hardware().uuid.replace('-', ""),
                    "addresses": addresses,
                    "hostname": state.hostname(),
                    "machineType": kind.as_str(),
                    "operatingSystem": format!("Talos ({})", state.tag()),
                });
                if kind == MachineType::ControlPlane {
                    value["controlPlane"] = json!({ "port": 6443 });
                }
                Some((state.hostname(), value))
            })
        })
        .collect();
    all.sort_by(|left, right| left.0.cmp(&right.0));
    all
}

/// The extensions, and the factory's own one that names the schematic.
fn extensions(machine: &Machine) -> impl Iterator<Item = (String, Value)> {
    let recipe = machine.see(|state| state.recipe.clone());
    let schematic = recipe.iter().map(|recipe| {
        let metadata = json!({ "name": "schematic", "version": recipe.schematic, "author": "Image Factory",
            "description": "Virtual extension which specifies the schematic of the image built with Image Factory.",
            "extraInfo": "customization: {}\n" });
        json!({ "image": "", "metadata": metadata })
    });
    let others = recipe.iter().flat_map(|recipe| &recipe.extensions).map(|one| {
        let metadata = json!({ "name": one.name.trim_start_matches("siderolabs/"), "version": one.version,
            "author": one.author, "description": one.description,
            "compatibility": { "talos": { "version": ">= v1.0.0" } } });
        json!({ "image": format!("{}-{}.sqsh", one.name.replace('/', "-"), one.version), "metadata": metadata })
    });
    let all: Vec<Value> = others.chain(schematic).collect();
    all.into_iter().enumerate().map(|(at, value)| (at.to_string(), value))
}

/// Its YAML is a string that holds the configuration.
fn machine_config(kind: &Type, id: &str, text: &str) -> Item {
    let indented: Vec<String> =
        text.lines().map(|line| if line.is_empty() { String::new() } else { format!("    {line}") }).collect();
    Item {
        kind: kind.name,
        namespace: kind.namespace,
        id: id.to_owned(),
        yaml: format!("|\n{}\n", indented.join("\n")),
        proto: field_one(text.as_bytes()),
    }
}

/// A protobuf message whose field 1 holds bytes.
fn field_one(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    prost::encoding::bytes::encode(1, &bytes.to_vec(), &mut out);
    out
}

fn definition(kind: &Type) -> Item {
    let lower = kind.name.to_lowercase();
    let mut all: Vec<String> = kind.aliases.iter().map(|alias| (*alias).to_owned()).collect();
    // `members.cluster`, `members.cluster.talos`: every shorter form of the id.
    let mut rest = lower.as_str();
    while let Some((shorter, _)) = rest.rsplit_once('.') {
        if shorter.contains('.') {
            all.push(shorter.to_owned());
        }
        rest = shorter;
    }
    let columns = kind.columns.iter();
    let print_columns = columns.clone().map(|(name, path)| api::resource_definition_spec::PrintColumn {
        name: (*name).to_owned(),
        json_path: (*path).to_owned(),
    });
    let sensitivity = if kind.sensitive {
        api::resource_definition_spec::Sensitivity::Sensitive
    } else {
        api::resource_definition_spec::Sensitivity::NonSensitive
    };
    let spec = api::ResourceDefinitionSpec {
        resource_type: kind.name.to_owned(),
        display_type: kind.display.to_owned(),
        default_namespace: kind.namespace.to_owned(),
        aliases: kind.aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        all_aliases: all.clone(),
        print_columns: print_columns.collect(),
        sensitivity: sensitivity.into(),
    };
    let columns: Vec<Value> = columns.map(|(name, path)| json!({ "name": name, "jsonPath": path })).collect();
    let yaml = json!({ "type": kind.name, "displayType": kind.display, "defaultNamespace": kind.namespace,
        "aliases": kind.aliases, "allAliases": all, "printColumns": columns,
        "sensitivity": if kind.sensitive { "sensitive" } else { "" } });
    Item {
        kind: "ResourceDefinitions.meta.cosi.dev",
        namespace: "meta",
        id: lower,
        yaml: serde_saphyr::to_string(&yaml).unwrap_or_default(),
        proto: spec.encode_to_vec(),
    }
}

fn pretty(bytes: u64) -> String {
    let gigabytes = bytes / 1_000_000_000;
    if gigabytes > 0 { format!("{gigabytes} GB") } else { format!("{} MB", bytes / 1_000_000) }
}
