//! Resources about disks and volumes.

use serde_json::json;

use super::wire::Proto;
use super::{Item, Maker, Type, disk_name, pretty};
use crate::world::machine::Machine;

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    let (hardware, disk) = (machine.hardware(), disk_name(machine));
    let (bytes, configured) = machine.see(|state| (state.disk_bytes, state.config.is_some()));
    let device = format!("/dev/{disk}");
    match kind.name {
        "Disks.block.talos.dev" => {
            let value = json!({ "dev_path": device, "size": bytes, "pretty_size": pretty(bytes), "io_size": 512,
                "sector_size": 512, "readonly": false, "cdrom": false, "model": "QEMU HARDDISK",
                "serial": format!("drive-{}", hardware.disk_key), "transport": "virtio", "rotational": false });
            let proto = Proto::default()
                .number(1, bytes)
                .number(2, 512)
                .number(3, 512)
                .text(5, "QEMU HARDDISK")
                .text(11, "virtio")
                .text(14, &device)
                .text(15, &pretty(bytes));
            vec![maker.typed(disk, &value, proto)]
        }
        "SystemDisks.block.talos.dev" => {
            let proto = Proto::default().text(1, disk).text(2, &device);
            vec![maker.typed("system-disk", &json!({ "diskID": disk, "devPath": device }), proto)]
        }
        "UserDiskConfigStatuses.block.talos.dev" if configured => {
            vec![maker.item("user-disks", &json!({ "ready": true, "tornDown": false }))]
        }
        "VolumeMountStatuses.block.talos.dev" if configured => {
            let one = |volume: &str, requester: &str, target: &str| {
                let value = json!({ "volumeID": volume, "requester": requester, "target": target, "readOnly": false,
                    "detached": false, "disableAccessTime": false, "secure": false });
                maker.item(&format!("{requester}/{volume}"), &value)
            };
            vec![one("EPHEMERAL", "sequencer", "/var"), one("STATE", "sequencer", "/system/state")]
        }
        "VolumeStatuses.block.talos.dev" => {
            let size = bytes.saturating_sub(300 << 20);
            let each = [("EPHEMERAL", size, 6), ("META", 1 << 20, 4), ("STATE", 100 << 20, 5)];
            each.map(|(id, size, part)| {
                let up = configured || id == "META";
                let (phase, number) = if up { ("ready", 6) } else { ("missing", 2) };
                let location = if up { format!("{device}{part}") } else { String::new() };
                let value = json!({ "type": "partition", "phase": phase, "location": location, "size": size,
                    "prettySize": pretty(size), "filesystem": if id == "META" { "none" } else { "xfs" } });
                let proto = Proto::default().number(1, number).text(2, &location).number(9, size);
                maker.typed(id, &value, proto)
            })
            .into()
        }
        "DiscoveredVolumes.block.talos.dev" => {
            let parts = [
                ("EFI", 96_u64, "vfat"),
                ("BIOS", 1, ""),
                ("BOOT", 100, "xfs"),
                ("META", 1, "talosmeta"),
                ("STATE", 100, "xfs"),
                ("EPHEMERAL", 0, "xfs"),
            ];
            let whole = json!({ "dev_path": device, "size": bytes, "pretty_size": pretty(bytes), "type": "disk",
                "name": "gpt", "label": "", "partition_label": "" });
            let mut all = vec![maker.item(disk, &whole)];
            all.extend(parts.iter().enumerate().take(if configured { 6 } else { 4 }).map(
                |(at, (label, mib, system))| {
                    let size = if *mib == 0 { bytes.saturating_sub(300 << 20) } else { mib << 20 };
                    let part = format!("{disk}{}", at + 1);
                    let value = json!({ "dev_path": format!("/dev/{part}"), "size": size, "pretty_size": pretty(size),
                    "name": system, "label": "", "partition_label": label, "partition_index": at + 1, "parent": disk,
                    "type": "partition" });
                    maker.item(&part, &value)
                },
            ));
            all
        }
        _ => Vec::new(),
    }
}
