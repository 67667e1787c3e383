//! `N/…`: what a node says of itself: services, packages, disks, devices, files.
//!
//! There is no machine below: what a fresh installation answers, and what was written is read back.

use serde_json::{Map, Value, json};

use crate::pve::call::{Answer, Call, Result};
use crate::world::cloudinit::Resolver;
use crate::world::config::digest_of;
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

fn changed() -> Refusal {
    Refusal::failed("detected modified configuration - file changed by other user? Try again.\n")
}

/// `GET N/dns`
pub(in crate::pve) fn dns(call: &Call) -> Result {
    let state = call.world.state();
    let shown = section(&state, call, "dns").cloned();
    Ok(shown.map_or_else(|| json!({"dns1": "192.0.2.1"}), Value::Object).into())
}

/// How the node resolves names.
pub(super) fn resolver(state: &State, call: &Call) -> Resolver {
    let shown = section(state, call, "dns");
    let text = |key: &str| shown.and_then(|shown| shown.get(key)?.as_str()).filter(|text| !text.is_empty());
    let servers: Vec<String> = ["dns1", "dns2", "dns3"].into_iter().filter_map(text).map(str::to_owned).collect();
    let search = text("search").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let servers = if shown.is_none() { vec!["192.0.2.1".to_owned()] } else { servers };
    Resolver { search, servers }
}

/// `PUT N/dns`
pub(in crate::pve) fn set_dns(call: &Call) -> Result {
    let keys = ["search", "dns1", "dns2", "dns3"];
    let file = keys.iter().filter_map(|key| Some(((*key).to_owned(), json!(call.params.text(key)?)))).collect();
    write(call, "dns", file);
    Ok(().into())
}

/// `GET N/time`
pub(in crate::pve) fn time(call: &Call) -> Result {
    let now = call.world.clock().unix();
    let state = call.world.state();
    let zone = section(&state, call, "time").and_then(|file| file.get("timezone")).cloned();
    Ok(json!({"timezone": zone.unwrap_or(json!("UTC")), "time": now, "localtime": now}).into())
}

/// `PUT N/time`
pub(in crate::pve) fn set_time(call: &Call) -> Result {
    let zone = call.text("timezone");
    let plain = zone.contains('/') || ["UTC", "GMT", "EST", "CET", "MST", "HST", "EET", "WET", "MET"].contains(&zone);
    if !plain || zone.chars().any(|c| !(c.is_ascii_alphanumeric() || "/_+-".contains(c))) {
        return Err(Refusal::failed(format!("invalid timezone '{zone}'\n")));
    }
    write(call, "time", Object::from_iter([("timezone".to_owned(), json!(zone))]));
    Ok(().into())
}

fn hosts_text(state: &State, call: &Call) -> String {
    let written = section(state, call, "hosts").and_then(|file| file.get("data")).and_then(Value::as_str);
    written.map_or_else(
        || {
            let node = call.node();
            let ip = state.nodes.get(&node).map_or("127.0.1.1", |node| node.ip.as_str());
            format!("127.0.0.1 localhost\n{ip} {node}.example.com {node}\n")
        },
        str::to_owned,
    )
}

/// `GET N/hosts`
pub(in crate::pve) fn hosts(call: &Call) -> Result {
    let text = hosts_text(&call.world.state(), call);
    Ok(json!({"digest": digest_of(&text), "data": text}).into())
}

/// `POST N/hosts`
pub(in crate::pve) fn set_hosts(call: &Call) -> Result {
    let known = digest_of(&hosts_text(&call.world.state(), call));
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != known) {
        return Err(changed());
    }
    write(call, "hosts", Object::from_iter([("data".to_owned(), json!(call.text("data")))]));
    Ok(().into())
}

/// `GET N/config`
pub(in crate::pve) fn config(call: &Call) -> Result {
    let state = call.world.state();
    let mut shown = section(&state, call, "config").cloned().unwrap_or_default();
    let digest = digest_of(&serde_json::to_string(&shown).unwrap_or_default());
    shown.insert("digest".to_owned(), json!(digest));
    if let Some(key) = call.params.text("property") {
        shown.retain(|known, _| known == key);
    }
    Ok(shown.into())
}

/// `PUT N/config`
pub(in crate::pve) fn set_config(call: &Call) -> Result {
    let mut file = section(&call.world.state(), call, "config").cloned().unwrap_or_default();
    let digest = digest_of(&serde_json::to_string(&file).unwrap_or_default());
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest) {
        return Err(changed());
    }
    for key in call.params.0.keys().filter(|key| !["node", "delete", "digest"].contains(&key.as_str())) {
        let text = call.text(key);
        let number = (key == "startall-onboot-delay").then(|| text.parse::<u64>().ok()).flatten();
        let value = match number {
            Some(number) => json!(number),
            // It is a comment of the file, which has whole lines; one without any is none.
            None if key == "description" => {
                json!(text.trim_end_matches('\n').lines().flat_map(|line| [line, "\n"]).collect::<String>())
            }
            None => json!(text),
        };
        if value == json!("") && key == "description" {
            file.remove(key);
        } else {
            file.insert(key.clone(), value);
        }
    }
    for key in call.params.list("delete") {
        file.remove(&key);
    }
    write(call, "config", file);
    Ok(().into())
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
