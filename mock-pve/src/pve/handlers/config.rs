//! `Q/config`, `Q/pending`, `Q/unlink`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::pin::Pin;
use std::time::Duration;

use serde_json::{Value, json};

use super::PATH_KEYS;
use super::views;
use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::PveVersion;
use crate::world::drive;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Config;
use crate::world::update::Update;
use crate::world::work::Mode;

type Later = Pin<Box<dyn Future<Output = Result> + Send>>;

/// `GET Q/config`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    let vm = state.vm(&call.node(), call.vmid())?;
    let snapshot = call.params.text("snapshot");
    if snapshot.is_some() && call.params.is_on("current") {
        let text = "cannot use 'snapshot' parameter with 'current'";
        return Err(Refusal::Params(["snapshot", "current"].map(|key| (key.to_owned(), text.to_owned())).into()));
    }
    if let Some(name) = snapshot {
        let config =
            vm.snapshots.get(name).ok_or_else(|| Refusal::failed(format!("snapshot '{name}' does not exist\n")))?;
        return Ok(views::config(vm, config).into());
    }
    if call.params.is_on("current") {
        return Ok(views::config(vm, &vm.config).into());
    }
    let mut config = vm.config.clone();
    config.extend(vm.pending.clone());
    for key in vm.pending_delete.keys() {
        config.remove(key);
    }
    Ok(views::config(vm, &config).into())
}

/// `GET Q/pending`
pub(in crate::pve) fn pending(call: &Call) -> Result {
    let state = call.world.state();
    let vm = state.vm(&call.node(), call.vmid())?;
    let keys: BTreeSet<&String> = vm.config.keys().chain(vm.pending.keys()).collect();
    let mut list: Vec<Value> = keys
        .into_iter()
        .map(|key| {
            let mut entry = json!({"key": key});
            if let Some(value) = vm.config.get(key) {
                entry["value"] = views::typed(key, value);
            }
            if let Some(value) = vm.pending.get(key) {
                entry["pending"] = views::typed(key, value);
            }
            if let Some(force) = vm.pending_delete.get(key) {
                entry["delete"] = json!(if *force { 2 } else { 1 });
            }
            entry
        })
        .collect();
    list.push(json!({"key": "digest", "value": crate::world::config::digest(vm)}));
    Ok(list.into())
}

/// Whether a key can be deleted or reverted: any that a config can hold.
fn is_option(key: &str) -> bool {
    const SINGLE: &[&str] = &[
        "acpi",
        "affinity",
        "agent",
        "amd-sev",
        "arch",
        "args",
        "autostart",
        "balloon",
        "bios",
        "boot",
        "bootdisk",
        "cdrom",
        "cicustom",
        "cipassword",
        "citype",
        "ciupgrade",
        "ciuser",
        "cores",
        "cpu",
        "cpulimit",
        "cpuunits",
        "description",
        "freeze",
        "hookscript",
        "hotplug",
        "hugepages",
        "ivshmem",
        "keephugepages",
        "keyboard",
        "kvm",
        "localtime",
        "lock",
        "machine",
        "memory",
        "meta",
        "migrate_downtime",
        "migrate_speed",
        "name",
        "nameserver",
        "numa",
        "onboot",
        "ostype",
        "parent",
        "protection",
        "reboot",
        "runningcpu",
        "runningmachine",
        "scsihw",
        "searchdomain",
        "shares",
        "smp",
        "snaptime",
        "sockets",
        "spice_enhancements",
        "sshkeys",
        "startdate",
        "startup",
        "tablet",
        "tags",
        "tdf",
        "template",
        "vcpus",
        "vga",
        "vmgenid",
        "vmstate",
        "vmstatestorage",
        "watchdog",
    ];
    let numbered = |(stem, number): (&str, u32)| {
        let known = match stem {
            "unused" => number <= 255,
            "net" | "ipconfig" => number <= 31,
            "hostpci" => number <= 15,
            "usb" => number <= 13,
            "virtiofs" => number <= 9,
            "numa" => number <= 7,
            "serial" => number <= 3,
            "parallel" => number <= 2,
            "audio" | "rng" => number == 0,
            "smbios" => number == 1,
            _ => drive::is_drive(key),
        };
        known && key == format!("{stem}{number}")
    };
    SINGLE.contains(&key) || drive::numbered(key).is_some_and(numbered)
}

/// Every line is a public key: a type that is known, and a blob that begins with it.
pub(super) fn check_ssh_keys(encoded: &str) -> Rule<()> {
    use base64::Engine as _;
    let text = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy().into_owned();
    let is_key = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.windows(2).any(|pair| {
            let known = ["ssh-", "ecdsa-sha2-", "sk-"].iter().any(|start| pair[0].starts_with(start));
            let blob = base64::engine::general_purpose::STANDARD.decode(pair[1]).unwrap_or_default();
            let length = blob.get(..4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes);
            known
                && length.and_then(|length| usize::try_from(length).ok()) == Some(pair[0].len())
                && blob[4..].starts_with(pair[0].as_bytes())
        })
    };
    if text.lines().filter(|line| !line.trim().is_empty()).all(is_key) {
        return Ok(());
    }
    Err(Refusal::failed("SSH public key validation error\n"))
}

fn asked(call: &Call, delete_key: &str) -> Rule<Update> {
    const CONTROL: &[&str] =
        &["delete", "revert", "force", "digest", "skiplock", "background_delay", "idlist", "import-working-storage"];
    call.root_only(&["skiplock"])?;
    let set: Config = call
        .params
        .0
        .keys()
        .filter(|key| !PATH_KEYS.contains(&key.as_str()) && !CONTROL.contains(&key.as_str()))
        .map(|key| match key.as_str() {
            "cdrom" => ("ide2".to_owned(), super::vms::cdrom(call.text(key))),
            _ => (key.clone(), call.text(key).to_owned()),
        })
        .collect();
    let revert = call.params.list("revert");
    if let Some(keys) = set.get("sshkeys") {
        check_ssh_keys(keys)?;
    }
    if set.is_empty() && revert.is_empty() && call.params.text(delete_key).is_none_or(str::is_empty) {
        return Err(Refusal::failed("no options specified\n"));
    }
    let nine = call.world.state().pve == PveVersion::V9;
    let is_option = |key: &str| is_option(key) || (nine && matches!(key, "allow-ksm" | "intel-tdx"));
    for key in &revert {
        if !is_option(key) {
            return Err(Refusal::param("revert", format!("unknown option '{key}'")));
        }
        if set.contains_key(key) {
            return Err(Refusal::param(
                "delete",
                format!("you can't use '-{key}' and -revert {key}' at the same time"),
            ));
        }
    }
    let delete: Vec<String> = call
        .params
        .list(delete_key)
        .into_iter()
        .map(|key| if key == "cdrom" { "ide2".to_owned() } else { key })
        .collect();
    for key in &delete {
        if set.contains_key(key) {
            return Err(Refusal::param(
                "delete",
                format!("you can't use '-{key}' and -delete {key}' at the same time"),
            ));
        }
        if revert.contains(key) {
            return Err(Refusal::param(
                "revert",
                format!("you can't use '-delete {key}' and -revert {key}' at the same time"),
            ));
        }
        if !is_option(key) {
            return Err(Refusal::param("delete", format!("unknown option '{key}'")));
        }
    }
    if let Some(script) = set.get("hookscript") {
        let fine = call.world.check_hookscript(&call.node(), script);
        fine.map_err(|refusal| Refusal::param("hookscript", refusal.to_string()))?;
    }
    // A description may be nothing; anything else can't be written into a config then.
    let nothing = |key: &&String| call.params.0.get(*key) == Some(&Given::Nothing) && *key != "description";
    if let Some(key) = set.keys().find(nothing) {
        return Err(Refusal::failed(format!("unable to parse value of '{key}' - got undefined value\n")));
    }
    Ok(Update {
        set,
        delete,
        revert,
        force: call.params.is_on("force"),
        digest: call.params.owned("digest"),
        skip_lock: call.params.is_on("skiplock"),
    })
}

fn now(call: Call, delete_key: &'static str) -> Later {
    Box::pin(async move {
        let update = asked(&call, delete_key)?;
        let (node, vmid) = (call.node(), call.vmid());
        let planned = call.world.check_update(&call.caller, &node, vmid, &update)?;
        let _flock = call.world.flock(vmid, Mode::Exclusive, 10.0).await?;
        call.world.check_config(&node, vmid, &update, &planned)?;
        tell_of_disks(&call, &update);
        call.world.apply_update(None, &call.caller, (&node, vmid), &update, &planned).await?;
        Ok(().into())
    })
}

/// Freed volumes are deeds.
fn tell_of_disks(call: &Call, update: &Update) {
    for key in &update.delete {
        if drive::is_unused(key) || (update.force && drive::is_drive(key)) {
            call.world.tell(&call.caller, "destroy-disk", Some(call.vmid()), Some(key));
        }
    }
}

/// `PUT Q/config`
pub(in crate::pve) fn put(call: Call) -> Later {
    now(call, "delete")
}

/// `PUT Q/unlink`
pub(in crate::pve) fn unlink(call: Call) -> Later {
    now(call, "idlist")
}

/// `POST Q/config`
pub(in crate::pve) fn post(call: Call) -> Later {
    Box::pin(async move {
        let update = asked(&call, "delete")?;
        let (node, vmid) = (call.node(), call.vmid());
        let planned = call.world.check_update(&call.caller, &node, vmid, &update)?;
        // The worker has it from the one that was asked (qemu-server 8, PVE/API2/Qemu.pm, `update_vm_api`).
        let flock = call.world.flock(vmid, Mode::Exclusive, 10.0).await?;
        call.world.check_config(&node, vmid, &update, &planned)?;
        tell_of_disks(&call, &update);
        let mut line = format!("update VM {vmid}:");
        let lists = [("delete", &update.delete), ("revert", &update.revert)];
        let mut given: Vec<(String, String)> = update.set.clone().into_iter().collect();
        given.extend(
            lists.iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| ((*key).to_owned(), list.join(","))),
        );
        let switches = [("force", update.force), ("skiplock", update.skip_lock)];
        given.extend(switches.iter().filter(|(_, on)| *on).map(|(key, _)| ((*key).to_owned(), "1".to_owned())));
        given.sort();
        for (key, value) in given {
            let value = if key == "cipassword" { "<hidden>" } else { &value };
            // Writing to a string can't fail.
            let _ = write!(line, " -{key} {value}");
        }
        let (at, who) = (node.clone(), call.caller.clone());
        let upid = call.world.start_task(&call.caller, &node, "qmconfig", &vmid.to_string(), |work| async move {
            let _flock = flock;
            work.log(line);
            let world = work.world().clone();
            world.apply_update(Some(&work), &who, (&at, vmid), &update, &planned).await
        });
        let Some(delay) = call.params.number::<u64>("background_delay") else { return Ok(upid.into()) };
        match call.world.task_end(&upid, Duration::from_secs(delay)).await {
            Some(status) if status == "OK" || status.starts_with("WARNINGS") => Ok(().into()),
            Some(status) => Err(Refusal::failed(format!("failed to update VM {vmid}: {status}\n"))),
            None => Ok(upid.into()),
        }
    })
}
