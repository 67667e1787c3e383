//! `N/…`: what a node says of itself: services, packages, disks, devices, files.
//!
//! There is no machine below: what a fresh installation answers, and what was written is read back.

use serde_json::{Map, Value, json};

use crate::pve::call::{Answer, Call, Result};
use crate::world::history::{Consolidation, Frame, Subject};
use crate::world::property::Properties;
use crate::world::refusal::Refusal;
use crate::world::{PveVersion, State};

type Object = Map<String, Value>;

fn list(key: &str, names: &[&str]) -> Result {
    Ok(names.iter().map(|name| json!({key: name})).collect::<Vec<_>>().into())
}

fn nothing() -> Result {
    Ok(Vec::new().into())
}

/// `GET N/apt`
pub(in crate::pve) fn apt(_: &Call) -> Result {
    list("id", &["changelog", "repositories", "update", "versions"])
}

/// `GET N/apt/update`: nothing is to be updated.
pub(in crate::pve) fn updates(_: &Call) -> Result {
    nothing()
}

/// `GET N/apt/versions`
pub(in crate::pve) fn packages(call: &Call) -> Result {
    let state = call.world.state();
    let package = |name: &str, version: &str, more: Value| {
        let mut entry = json!({
            "Package": name, "Title": name, "Version": version, "OldVersion": version, "CurrentState": "Installed",
            "Origin": "Proxmox", "Priority": "optional", "Section": "admin", "Arch": "amd64", "Description": name,
        });
        if let (Some(entry), Some(more)) = (entry.as_object_mut(), more.as_object()) {
            entry.extend(more.clone());
        }
        entry
    };
    let running = super::cluster::manager_version(&state);
    let running = running.trim_start_matches("pve-manager/");
    let packages = vec![
        package("proxmox-ve", &format!("{}.0", state.release), json!({"RunningKernel": "6.8.12-1-pve"})),
        package("pve-manager", &state.version, json!({"ManagerVersion": running})),
        package("qemu-server", &state.release, json!({})),
    ];
    Ok(packages.into())
}

/// `GET N/capabilities`
pub(in crate::pve) fn capabilities(_: &Call) -> Result {
    list("name", &["qemu"])
}

/// `GET N/capabilities/qemu`
pub(in crate::pve) fn qemu_capabilities(_: &Call) -> Result {
    list("name", &["cpu", "machines"])
}

/// `GET N/capabilities/qemu/migration` (9)
pub(in crate::pve) fn migration_capabilities(_: &Call) -> Result {
    Ok(json!({"has-dbus-vmstate": 0}).into())
}

/// `GET N/certificates`
pub(in crate::pve) fn certificates(_: &Call) -> Result {
    list("name", &["acme", "custom", "info"])
}

/// `GET N/disks`
pub(in crate::pve) fn disks(_: &Call) -> Result {
    list("name", &["list", "initgpt", "smart", "lvm", "lvmthin", "directory", "wipedisk", "zfs"])
}

/// `GET N/disks/list`: one disk, which holds the system.
pub(in crate::pve) fn disk_list(call: &Call) -> Result {
    if call.params.text("type") == Some("unused") {
        return nothing();
    }
    let disk = json!({
        "devpath": "/dev/sda", "used": "LVM", "gpt": 1, "mounted": 0, "size": 107_374_182_400_u64, "osdid": -1,
        "osdid-list": null, "vendor": "QEMU", "model": "HARDDISK", "serial": "0", "wwn": "unknown",
        "health": "UNKNOWN", "type": "ssd", "rpm": 0, "wearout": "N/A", "by_id_link": "/dev/disk/by-id/scsi-0",
    });
    Ok(vec![disk].into())
}

/// `GET N/disks/smart`
pub(in crate::pve) fn smart(call: &Call) -> Result {
    if call.text("disk") != "/dev/sda" {
        return Err(Refusal::failed(format!("unable to get device info for '{}'\n", call.text("disk"))));
    }
    Ok(json!({"health": "UNKNOWN", "type": "text", "text": "\n"}).into())
}

/// `GET N/disks/lvm`
pub(in crate::pve) fn volume_groups(_: &Call) -> Result {
    Ok(json!({"leaf": 0, "children": []}).into())
}

/// `GET N/disks/lvmthin`, `…/zfs`, `…/directory`
pub(in crate::pve) fn no_pools(_: &Call) -> Result {
    nothing()
}

/// `GET N/hardware`
pub(in crate::pve) fn hardware(_: &Call) -> Result {
    list("type", &["pci", "usb"])
}

/// `GET N/hardware/pci`, `…/usb`: nothing that could be passed through.
pub(in crate::pve) fn devices(_: &Call) -> Result {
    nothing()
}

/// A file of the node in the path, as it was written.
pub(super) fn section<'a>(state: &'a State, call: &Call, name: &str) -> Option<&'a Object> {
    state.sections.get(&format!("nodes/{}", call.node())).and_then(|files| files.get(name))
}

/// Writes a file of the node in the path.
pub(super) fn write(call: &Call, name: &str, file: Object) {
    let mut state = call.world.state();
    state.sections.entry(format!("nodes/{}", call.node())).or_default().insert(name.to_owned(), file);
}

/// `GET N/syslog`: nothing was ever logged.
pub(in crate::pve) fn syslog(_: &Call) -> Result {
    Ok(Answer { data: json!([{"n": 1, "t": "no content"}]), total: Some(1), ..Answer::default() })
}

/// `GET N/journal`
pub(in crate::pve) fn journal(_: &Call) -> Result {
    nothing()
}

/// `GET N/netstat`
pub(in crate::pve) fn netstat(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let mut shown = Vec::new();
    for (vmid, vm) in state.vms.iter().filter(|(_, vm)| vm.node == node && vm.running.is_some()) {
        for (key, _) in crate::world::drive::nics(&vm.config) {
            shown.push(json!({"vmid": vmid.to_string(), "dev": key, "in": "0", "out": "0"}));
        }
    }
    Ok(shown.into())
}

/// `GET N/report`
pub(in crate::pve) fn report(call: &Call) -> Result {
    let state = call.world.state();
    Ok(format!("{}\n\n==== {} ====\n", super::cluster::manager_version(&state), call.node()).into())
}

/// `GET …/rrddata`
pub(in crate::pve) fn history(call: &Call) -> Result {
    let (subject, kind, name) = if let Some(storage) = call.params.text("storage") {
        let node = call.node();
        let name = format!("{node}/{storage}");
        (Subject::Storage(node, storage.to_owned()), "storage", name)
    } else if call.params.text("vmid").is_some() {
        (Subject::Vm(call.vmid()), "vm", call.vmid().to_string())
    } else {
        (Subject::Node(call.node()), "node", call.node())
    };
    if !call.world.has_history(&subject) {
        let folder = match call.world.state().pve {
            PveVersion::V8 => format!("pve2-{kind}"),
            PveVersion::V9 => format!("pve-{kind}-9.0"),
        };
        let text = format!("RRD error: opening '/var/lib/rrdcached/db/{folder}/{name}': No such file or directory\n");
        return Err(Refusal::failed(text));
    }
    let frame = match call.text("timeframe") {
        "hour" => Frame::Hour,
        "day" => Frame::Day,
        "week" => Frame::Week,
        "month" => Frame::Month,
        "year" => Frame::Year,
        _ => Frame::Decade,
    };
    let how = if call.params.text("cf") == Some("MAX") { Consolidation::Most } else { Consolidation::Average };
    Ok(call.world.series(&subject, frame, how).into())
}

/// `POST N/wakeonlan`
pub(in crate::pve) fn wake(call: &Call) -> Result {
    let node = call.node();
    if node == call.local {
        let named = call.text("node");
        return Err(Refusal::failed(format!("'{named}' is local node, cannot wake my self!\n")));
    }
    let config = section(&call.world.state(), call, "config").cloned().unwrap_or_default();
    let given = Properties::parse(config.get("wakeonlan").and_then(Value::as_str).unwrap_or_default(), "mac");
    let Some(mac) = given.get("mac") else {
        return Err(Refusal::failed(format!("No wake on LAN MAC address defined for '{node}'!\n")));
    };
    call.world.wake_node(&node);
    Ok(mac.to_owned().into())
}
