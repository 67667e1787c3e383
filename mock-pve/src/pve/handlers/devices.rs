//! `N/disks/…` that change disks: the one there is holds the system, so there is none to take.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/Disks.pm, PVE/API2/Disks, PVE/Diskmanage.pm).

use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};

/// The disk of every node.
const SYSTEM: &str = "/dev/sda";

/// Refuses what isn't a disk of the node.
fn check_is_there(device: &str) -> Rule<()> {
    if device == SYSTEM || device.strip_prefix(SYSTEM).is_some_and(|rest| rest.parse::<u8>().is_ok()) {
        return Ok(());
    }
    if device.starts_with("/dev/") {
        return Err(Refusal::failed("not a valid block device\n"));
    }
    Err(Refusal::failed(format!("got unusual device path '{device}'\n")))
}

/// `POST N/disks/directory`, `…/lvm`, `…/lvmthin`, `…/zfs`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let named = call.params.list("devices").into_iter().next();
    let device = call.params.owned("device").or(named).unwrap_or_default();
    check_is_there(&device)?;
    Err(Refusal::failed(format!("device '{device}' is already in use\n")))
}

/// `POST N/disks/initgpt`
pub(in crate::pve) fn initialise(call: &Call) -> Result {
    let disk = call.text("disk");
    check_is_there(disk)?;
    let text =
        if disk == SYSTEM { format!("disk {disk} already in use\n") } else { format!("{disk} is a partition\n") };
    Err(Refusal::failed(text))
}

/// `PUT N/disks/wipedisk`
pub(in crate::pve) fn wipe(call: &Call) -> Result {
    let disk = call.text("disk");
    check_is_there(disk)?;
    let held = if disk == SYSTEM { format!("{SYSTEM}3") } else { disk.to_owned() };
    Err(Refusal::failed(format!("disk/partition '{held}' has a holder\n")))
}

/// `GET N/disks/zfs/{name}`
pub(in crate::pve) fn pool(call: &Call) -> Result {
    let name = call.text("name");
    Err(Refusal::failed(format!("command 'zpool status -P {name}' failed: exit code 1\n")))
}

/// `DELETE N/disks/…/{name}`: the task finds nothing of that name.
fn remove(call: &Call, kind: &str, text: String) -> Result {
    let node = call.node();
    let name = call.text("name");
    let upid = call.world.start_task(&call.caller, &node, kind, name, |_| async move { Err(Refusal::failed(text)) });
    Ok(upid.into())
}

/// `DELETE N/disks/directory/{name}`
pub(in crate::pve) fn remove_directory(call: &Call) -> Result {
    let unit = format!("mnt-pve-{}.mount", call.text("name").replace('-', "\\x2d"));
    remove(call, "dirremove", format!("command 'systemctl stop {unit}' failed: exit code 5\n"))
}

/// `DELETE N/disks/lvm/{name}`
pub(in crate::pve) fn remove_group(call: &Call) -> Result {
    remove(call, "lvmremove", format!("no such volume group '{}'\n", call.text("name")))
}

/// `DELETE N/disks/lvmthin/{name}`
pub(in crate::pve) fn remove_thin(call: &Call) -> Result {
    let (group, name) = (call.text("volume-group"), call.text("name"));
    remove(call, "lvmthinremove", format!("no such thin pool {group}/{name}\n"))
}

/// `DELETE N/disks/zfs/{name}`
pub(in crate::pve) fn remove_pool(call: &Call) -> Result {
    remove(call, "zfsremove", format!("command 'zpool destroy {}' failed: exit code 1\n", call.text("name")))
}
