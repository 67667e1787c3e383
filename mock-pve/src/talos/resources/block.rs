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
        // Until 1.13 a refresh is asked for by those who changed a disk, and nobody does.
        "DiscoveryRefreshRequests.block.talos.dev" | "DiscoveryRefreshStatuses.block.talos.dev"
            if machine.see(|state| state.version().minor) >= 14 =>
        {
            vec![maker.typed("refresh", &json!({ "request": 1 }), Proto::default().number(1, 1))]
        }
        "DiscoveredVolumesStatuses.block.talos.dev" => {
            let proto = Proto::default().flag(1, true);
            vec![maker.typed("discovered-volumes-status", &json!({ "ready": true }), proto)]
        }
        "BlockDevices.block.talos.dev" => {
            let whole = json!({ "type": "disk", "major": 8, "minor": 0,
                "devicePath": format!("/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/{disk}"), "generation": 1 });
            let mut all = vec![maker.item(disk, &whole)];
            let labels = ["EFI", "BIOS", "BOOT", "META", "STATE", "EPHEMERAL"];
            all.extend(labels.iter().enumerate().take(if configured { 6 } else { 4 }).map(|(at, label)| {
                let part = format!("{disk}{}", at + 1);
                let value = json!({ "type": "partition", "major": 8, "minor": at + 1, "partitionName": label,
                    "partitionNumber": at + 1, "generation": 1, "parent": disk,
                    "devicePath": format!("/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/{disk}/{part}") });
                maker.item(&part, &value)
            }));
            all
        }
        "BlockSymlinks.block.talos.dev" => {
            let name = format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_drive-{}", hardware.disk_key);
            let parts = if configured { 6 } else { 4 };
            let whole = maker.item(disk, &json!({ "paths": [name] }));
            let each = (1..=parts)
                .map(|part| maker.item(&format!("{disk}{part}"), &json!({ "paths": [format!("{name}-part{part}")] })));
            std::iter::once(whole).chain(each).collect()
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
