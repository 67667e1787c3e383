//! What a node or a VM is asked to do with somebody who isn't here: package servers, the shop, other clusters, backup
//! servers.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/APT.pm, PVE/API2/Subscription.pm, PVE/API2/Storage/FileRestore.pm,
//! PVE/API2/Qemu.pm).

use serde_json::{Map, Value, json};

use super::host::{section, write};
use crate::pve::call::{Call, Result};
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::Refusal;

type Object = Map<String, Value>;

/// Where a node's key is kept.
const KEY: &str = "subscription";
const SHOP: &str = "https://www.proxmox.com/en/proxmox-virtual-environment/pricing";

/// `POST N/apt/update`: nothing is newer than what is installed.
pub(in crate::pve) fn update_packages(call: &Call) -> Result {
    let quiet = call.params.is_on("quiet");
    let work = |work: crate::world::work::Work| async move {
        work.log("starting apt-get update");
        if !quiet {
            for line in ["Hit:1 http://security.debian.org/debian-security", "Hit:2 http://ftp.debian.org/debian"] {
                work.log(line);
            }
            work.log("Reading package lists...");
        }
        Ok(())
    };
    Ok(call.world.start_task(&call.caller, &call.node(), "aptupdate", "", work).into())
}

/// `GET N/apt/changelog`: there is no list to look it up in.
pub(in crate::pve) fn changelog(call: &Call) -> Result {
    Ok(format!("E: Unable to locate package {}\nRC: 100", call.text("name")).into())
}

/// What identifies a node to the shop.
fn server_id(node: &str) -> String {
    digest_of(node)[..32].to_ascii_uppercase()
}

/// `GET N/subscription`
pub(in crate::pve) fn subscription(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let audits = state.may(&call.caller, &format!("/nodes/{node}"), &["Sys.Audit"]);
    let mut shown = json!({"url": SHOP});
    match section(&state, call, KEY) {
        None => {
            shown["status"] = json!("notfound");
            shown["message"] = json!("There is no subscription key");
        }
        Some(known) => {
            let told = |key: &&String| audits || ["status", "message"].contains(&key.as_str());
            for key in known.keys().filter(told) {
                shown[key] = known[key].clone();
            }
            if audits {
                shown["sockets"] = json!(1);
            }
        }
    }
    if audits {
        shown["serverid"] = json!(server_id(&node));
    }
    Ok(shown.into())
}

/// The level and the sockets in a key such as `pve2c-0123456789`.
fn level_of(key: &str) -> Option<(char, u32)> {
    let (sockets, level) = key.strip_prefix("pve")?.split('-').next()?.split_at_checked(1)?;
    Some((level.chars().next()?, sockets.parse().ok()?))
}

/// `PUT N/subscription`: the key is kept; whether it is worth anything nobody can say.
pub(in crate::pve) fn set_subscription(call: &Call) -> Result {
    let key = call.text("key").trim().to_owned();
    let (level, sockets) = level_of(&key).ok_or_else(|| Refusal::failed("Wrong subscription key format\n"))?;
    if sockets == 0 {
        return Err(Refusal::failed("wrong number of sockets (0 < 1)\n"));
    }
    let kept = json!({
        "status": "new", "key": key, "level": level.to_string(), "checktime": call.world.clock().unix(),
        "message": "subscription information not checked yet",
    });
    write(call, KEY, kept.as_object().cloned().unwrap_or_default());
    Ok(().into())
}

/// `POST N/subscription`
pub(in crate::pve) fn check_subscription(call: &Call) -> Result {
    let state = call.world.state();
    let fresh = |known: &Object| {
        let checked = known.get("checktime").and_then(Value::as_u64).unwrap_or_default();
        call.world.clock().unix() < checked + 24 * 3600
    };
    match section(&state, call, KEY) {
        None => Ok(().into()),
        Some(known) if !call.params.is_on("force") && fresh(known) => Ok(().into()),
        Some(_) => Err(Refusal::failed("Connection to the subscription server failed: Connection refused\n")),
    }
}

/// `DELETE N/subscription`: of none, too.
pub(in crate::pve) fn delete_subscription(call: &Call) -> Result {
    let mut state = call.world.state();
    if let Some(files) = state.sections.get_mut(&format!("nodes/{}", call.node())) {
        files.remove(KEY);
    }
    Ok(().into())
}

/// `GET N/storage/{storage}/file-restore/…`
pub(in crate::pve) fn restore_files(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("storage");
    let storage = state.storages.get(id);
    let storage = storage.ok_or_else(|| Refusal::failed(format!("storage '{id}' does not exist\n")))?;
    state.check_any(&call.caller, &format!("/storage/{id}"), &["Datastore.AllocateSpace", "Datastore.Audit"])?;
    if storage.kind != "pbs" {
        return Err(Refusal::param("storage", "Only PBS storages supported for file-restore."));
    }
    let server = storage.option("server").unwrap_or_default();
    Err(Refusal::failed(format!("error trying to connect: tcp connect error: {server}: Connection refused\n")))
}

/// `POST Q/remote_migrate`: the other cluster doesn't answer.
pub(in crate::pve) fn migrate_away(call: &Call) -> Result {
    let vmid = call.vmid();
    let state = call.world.state();
    let vm = state.vm(&call.node(), vmid)?;
    if vm.config.contains_key("lock") {
        let lock = vm.config.get("lock").map(String::as_str).unwrap_or_default();
        return Err(Refusal::failed(format!("VM is locked ({lock})\n")));
    }
    if state.ha.contains_key(&format!("vm:{vmid}")) {
        return Err(Refusal::failed("cannot migrate HA-managed VM to remote cluster\n"));
    }
    if vm.running.is_some() && !call.params.is_on("online") {
        return Err(Refusal::failed("can't migrate running VM without --online\n"));
    }
    let endpoint = Properties::parse(call.text("target-endpoint"), "");
    let host = endpoint.get("host").unwrap_or_default();
    if endpoint.get("apitoken").is_none() || host.is_empty() {
        return Err(Refusal::param("target-endpoint", "invalid format - property is missing and it is not optional\n"));
    }
    let port = endpoint.get("port").unwrap_or("8006");
    Err(Refusal::failed(format!("Can't connect to {host}:{port} (Connection refused)\n")))
}
