//! The volumes of a machine with a configuration, and what is mounted where: the partitions of the system disk, and since
//! Talos 1.10 the folders and overlays below `/var` too.

use serde_json::{Value, json};

use super::wire::Proto;
use super::{Item, Maker, Type, disk_name, pretty};
use crate::world::machine::{Machine, MachineType};

/// The types that are made here.
pub(super) const NAMES: [&str; 7] = [
    "MountRequests.block.talos.dev",
    "MountStatuses.block.talos.dev",
    "VolumeConfigs.block.talos.dev",
    "VolumeLifecycles.block.talos.dev",
    "VolumeMountRequests.block.talos.dev",
    "VolumeMountStatuses.block.talos.dev",
    "VolumeStatuses.block.talos.dev",
];

/// The first minor of Talos whose folders are volumes.
const FOLDERS: u32 = 10;
const WHO: &str = "sequencer";

/// A volume that lies in another: its name, the volume above, and its mode.
struct Folder(&'static str, &'static str, u32);

/// Talos' own, those above first.
const OWN: [Folder; 14] = [
    Folder("/var/log", "EPHEMERAL", 0o755),
    Folder("/var/log/audit", "/var/log", 0o700),
    Folder("/var/log/audit/kube", "/var/log/audit", 0o700),
    Folder("/var/log/containers", "/var/log", 0o755),
    Folder("/var/log/pods", "/var/log", 0o755),
    Folder("/var/lib", "EPHEMERAL", 0o700),
    Folder("ETCD", "/var/lib", 0o700),
    Folder("/var/lib/containerd", "/var/lib", 0),
    Folder("/var/lib/kubelet", "/var/lib", 0o700),
    Folder("/var/lib/cni", "/var/lib", 0o700),
    Folder("/var/lib/kubelet/seccomp", "/var/lib/kubelet", 0o700),
    Folder("/var/lib/kubelet/seccomp/profiles", "/var/lib/kubelet/seccomp", 0o700),
    Folder("/var/mnt", "EPHEMERAL", 0o755),
    Folder("/var/run/lock", "/var/run", 0o755),
];

/// What is laid over read-only folders of the system.
const OVERLAYS: [&str; 4] = ["/etc/cni", "/etc/kubernetes", "/opt", "/usr/libexec/kubernetes"];

/// What a volume is: `partition`, `directory`, `symlink`, `overlay`, and where it is mounted.
struct Volume {
    id: String,
    kind: &'static str,
    parent: &'static str,
    target: String,
    mode: u32,
}

/// A path in the tree of folders, with the volume's name where that is no path.
fn path(folder: &Folder) -> String {
    match folder.0 {
        "ETCD" => "/var/lib/etcd".to_owned(),
        other => other.to_owned(),
    }
}

/// All volumes but the partitions.
fn inner(machine: &Machine) -> Vec<Volume> {
    let (configured, minor) = machine.see(|state| (state.config.is_some(), state.version().minor));
    if !configured || minor < FOLDERS {
        return Vec::new();
    }
    let link =
        Volume { id: "/var/run".to_owned(), kind: "symlink", parent: "", target: "/var/run".to_owned(), mode: 0 };
    let folders = OWN.iter().map(|folder| Volume {
        id: folder.0.to_owned(),
        kind: "directory",
        parent: folder.1,
        target: path(folder),
        mode: folder.2,
    });
    let overlays = OVERLAYS.iter().map(|path| Volume {
        id: (*path).to_owned(),
        kind: "overlay",
        parent: "EPHEMERAL",
        target: (*path).to_owned(),
        mode: 0o755,
    });
    std::iter::once(link).chain(folders).chain(overlays).collect()
}

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let configured = machine.see(|state| state.config.is_some());
    match kind.name {
        "VolumeStatuses.block.talos.dev" => statuses(machine, &maker),
        "VolumeConfigs.block.talos.dev" => configs(machine, &maker),
        "VolumeLifecycles.block.talos.dev" => vec![maker.item("volumes", &json!({}))],
        _ if !configured => Vec::new(),
        "MountRequests.block.talos.dev" => {
            mounted(machine).iter().map(|volume| maker.item(&volume.id, &request(machine, volume))).collect()
        }
        "MountStatuses.block.talos.dev" => mounted(machine).iter().map(|one| mount(machine, &maker, one)).collect(),
        "VolumeMountRequests.block.talos.dev" | "VolumeMountStatuses.block.talos.dev" => requested(machine, &maker),
        _ => Vec::new(),
    }
}

/// The partitions that hold filesystems, with the number of the partition and the mount point.
const PARTITIONS: [(&str, u32, &str); 2] = [("EPHEMERAL", 6, "/var"), ("STATE", 5, "/system/state")];

/// What is mounted: the two partitions, and what lies in them.
fn mounted(machine: &Machine) -> Vec<Volume> {
    let partitions = PARTITIONS.iter().map(|(id, _, target)| Volume {
        id: (*id).to_owned(),
        kind: "partition",
        parent: "",
        target: (*target).to_owned(),
        mode: 0o755,
    });
    // Only a control plane keeps a database.
    let etcd = machine.see(|state| state.machine_type() == Some(MachineType::ControlPlane));
    let inner = inner(machine).into_iter().filter(|volume| etcd || volume.id != "ETCD");
    partitions.chain(inner).collect()
}

fn requester(volume: &Volume) -> &'static str {
    match volume.id.as_str() {
        "ETCD" => "etcd",
        "/var/lib/kubelet" => "kubelet",
        _ => WHO,
    }
}

fn request(machine: &Machine, volume: &Volume) -> Value {
    let minor = machine.see(|state| state.version().minor);
    let who = requester(volume);
    // Until 1.10 the name began with a capital.
    let parent = if minor < 11 { "ParentID" } else { "parentID" };
    json!({ "volumeID": volume.id, parent: volume.parent, "readOnly": false, "detached": false,
        "requesters": [who], "requesterIDs": [format!("{who}/{}", volume.id)] })
}

/// Where a mounted volume comes from.
fn source(machine: &Machine, volume: &Volume) -> String {
    let partition = PARTITIONS.iter().find(|(id, ..)| *id == volume.id);
    match partition {
        Some((_, number, _)) => format!("/dev/{}{number}", disk_name(machine)),
        None if volume.kind == "directory" => volume.target.clone(),
        None => String::new(),
    }
}

fn mount(machine: &Machine, maker: &Maker, volume: &Volume) -> Item {
    let filesystem = if volume.kind == "partition" { "xfs" } else { "none" };
    let value = json!({ "spec": request(machine, volume), "source": source(machine, volume), "target": volume.target,
        "filesystem": filesystem, "readOnly": false, "projectQuotaSupport": false, "detached": false });
    maker.item(&volume.id, &value)
}

/// One for everybody who wants a volume mounted, and, as a status, what they got.
fn requested(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let done = maker.0.name.starts_with("VolumeMountStatuses");
    let one = |volume: &Volume| {
        let who = requester(volume);
        let mut value = json!({ "volumeID": volume.id, "requester": who, "readOnly": false, "detached": false,
            "disableAccessTime": false, "secure": false });
        if done {
            value["target"] = json!(volume.target);
        }
        maker.item(&format!("{who}/{}", volume.id), &value)
    };
    mounted(machine).iter().map(one).collect()
}

fn statuses(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let device = format!("/dev/{}", disk_name(machine));
    let (bytes, configured) = machine.see(|state| (state.disk_bytes, state.config.is_some()));
    let size = bytes.saturating_sub(300 << 20);
    let partitions = [("EPHEMERAL", size, 6), ("META", 1 << 20, 4), ("STATE", 100 << 20, 5)];
    let partitions = partitions.map(|(id, size, part)| {
        let up = configured || id == "META";
        let (phase, number) = if up { ("ready", 6) } else { ("missing", 2) };
        let location = if up { format!("{device}{part}") } else { String::new() };
        let mut value = json!({ "phase": phase, "type": "partition", "location": location,
            "partitionIndex": part, "parentLocation": device, "size": size, "prettySize": pretty(size),
            "filesystem": if id == "META" { "none" } else { "xfs" } });
        if let Some((.., target)) = PARTITIONS.iter().find(|(one, ..)| *one == id) {
            value["mountSpec"] = json!({ "targetPath": target, "selinuxLabel": "", "projectQuotaSupport": false });
        }
        let proto = Proto::default().number(1, number).text(2, &location).number(9, size);
        maker.typed(id, &value, proto)
    });
    let inner = inner(machine).into_iter().map(|volume| {
        let mut mount = json!({ "targetPath": volume.target.rsplit('/').next().unwrap_or_default(),
            "selinuxLabel": "", "projectQuotaSupport": false, "parentId": volume.parent, "fileMode": volume.mode });
        let number = match volume.kind {
            "directory" => 3,
            "symlink" => 4,
            _ => 5,
        };
        if volume.kind != "directory" {
            mount["targetPath"] = json!(volume.target);
        }
        let value = json!({ "phase": "ready", "type": volume.kind, "parentID": volume.parent, "mountSpec": mount });
        maker.typed(&volume.id, &value, Proto::default().number(1, 6).number(16, number))
    });
    partitions.into_iter().chain(inner).collect()
}

fn configs(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let (configured, minor) = machine.see(|state| (state.config.is_some(), state.version().minor));
    let labelled = |label: &str| format!("volume.partition_label == \"{label}\"");
    let meta = json!({ "type": "partition", "provisioning": {},
        "locator": { "match": format!("{} && volume.name in [\"\", \"talosmeta\"] && volume.size == 1048576u", labelled("META")) } });
    let mut all = vec![maker.item("META", &meta)];
    if !configured {
        let state = json!({ "type": "partition", "provisioning": {},
            "locator": { "match": format!("{} && volume.name != \"\"", labelled("STATE")) },
            "mount": { "targetPath": "/system/state" } });
        all.push(maker.item("STATE", &state));
        return all;
    }
    for (id, _, target) in PARTITIONS {
        let grows = id == "EPHEMERAL";
        let (least, most) = if grows { (2_u64 << 30, 0_u64) } else { (100 << 20, 100 << 20) };
        let value = json!({ "type": "partition",
            "provisioning": { "wave": -1, "diskSelector": { "match": "system_disk" },
                "partitionSpec": { "minSize": least, "maxSize": most, "grow": grows, "label": id,
                    "typeUUID": "0FC63DAF-8483-4772-8E79-3D69D8477DE4" },
                "filesystemSpec": { "type": "xfs", "label": id } },
            "locator": { "match": labelled(id) }, "mount": { "targetPath": target } });
        all.push(maker.item(id, &value));
    }
    let inner = inner(machine).into_iter().filter(|_| minor >= FOLDERS);
    all.extend(inner.map(|volume| {
        let value = json!({ "parentId": if volume.kind == "overlay" { volume.parent } else { "" },
            "type": volume.kind, "provisioning": {}, "locator": {},
            "mount": { "targetPath": volume.target, "parentId": volume.parent, "fileMode": volume.mode } });
        maker.item(&volume.id, &value)
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_lies_in_a_volume_that_comes_before_it() {
        let mut seen = vec!["EPHEMERAL", "/var/run"];
        for folder in &OWN {
            assert!(seen.contains(&folder.1), "{}", folder.0);
            let above = OWN.iter().find(|one| one.0 == folder.1).map_or("/var".to_owned(), path);
            let rest = path(folder).strip_prefix(&above).map(str::to_owned).unwrap();
            assert!(rest.starts_with('/'), "{}", folder.0);
            seen.push(folder.0);
        }
    }
}
