//! `Q/status/…`, `Q/sendkey`, `Q/monitor`, `Q/migrate`.

use std::pin::Pin;

use serde_json::{Map, Value, json};

use super::views::{self, Detail};
use crate::pve::call::{Call, Result};
use crate::world::PveVersion;
use crate::world::lifecycle::{Lock, Shutdown, Stop};
use crate::world::migrate::Migrate;
use crate::world::refusal::Refusal;
use crate::world::work::Mode;

const ROOT_ONLY: &[&str] = &[
    "skiplock",
    "stateuri",
    "migratedfrom",
    "migration_type",
    "migration_network",
    "targetstorage",
    "force-cpu",
    "keepActive",
    "nocheck",
];

/// Root may go past a lock.
fn lock(call: &Call) -> Lock {
    if call.params.is_on("skiplock") { Lock::Ignore } else { Lock::Respect }
}

/// `GET Q/status`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = ["current", "start", "stop", "reset", "shutdown", "suspend", "reboot"];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Vec<_>>().into())
}

/// `GET Q/status/current`
pub(in crate::pve) fn current(call: &Call) -> Result {
    let state = call.world.state();
    let vm = state.vm(&call.node(), call.vmid())?;
    Ok(views::vm(&call.world, &state, call.vmid(), vm, Detail::Current).into())
}

/// `POST Q/status/start`
pub(in crate::pve) fn start(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    if call.params.text("targetstorage").is_some_and(|pairs| !pairs.is_empty())
        && call.params.text("migratedfrom").is_none()
    {
        return Err(Refusal::param("targetstorage", "targetstorage can only by used with migratedfrom."));
    }
    call.world.state().check_quorum()?;
    Ok(call.world.start_vm(&call.caller, &call.node(), call.vmid(), lock(call)).into())
}

/// `POST Q/status/stop`
pub(in crate::pve) fn stop(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    let how = Stop { overrule: call.params.is_on("overrule-shutdown"), lock: lock(call) };
    Ok(call.world.stop_vm(&call.caller, &call.node(), call.vmid(), how)?.into())
}

/// `POST Q/status/shutdown`
pub(in crate::pve) fn shutdown(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    let (timeout, force) = (call.params.number("timeout"), call.params.is_on("forceStop"));
    let how = Shutdown { timeout, force, lock: lock(call) };
    Ok(call.world.shutdown_vm(&call.caller, &call.node(), call.vmid(), how)?.into())
}

/// `POST Q/status/reset`
pub(in crate::pve) fn reset(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    Ok(call.world.reset_vm(&call.caller, &call.node(), call.vmid(), lock(call))?.into())
}

/// `POST Q/status/reboot`
pub(in crate::pve) fn reboot(call: &Call) -> Result {
    let timeout = call.params.number("timeout");
    Ok(call.world.reboot_vm(&call.caller, &call.node(), call.vmid(), timeout)?.into())
}

/// `POST Q/status/suspend`
pub(in crate::pve) fn suspend(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    let (caller, node, vmid) = (&call.caller, call.node(), call.vmid());
    if call.params.is_on("todisk") {
        return Ok(call.world.suspend_vm(caller, &node, vmid, call.params.owned("statestorage"))?.into());
    }
    Ok(call.world.pause_vm(caller, &node, vmid, lock(call))?.into())
}

/// `POST Q/status/resume`
pub(in crate::pve) fn resume(call: &Call) -> Result {
    call.root_only(ROOT_ONLY)?;
    Ok(call.world.resume_vm(&call.caller, &call.node(), call.vmid(), lock(call))?.into())
}

/// `PUT Q/sendkey`
pub(in crate::pve) fn send_key(call: Call) -> Pin<Box<dyn Future<Output = Result> + Send>> {
    Box::pin(async move {
        call.root_only(&["skiplock"])?;
        let (node, vmid) = (call.node(), call.vmid());
        let _flock = call.world.flock(vmid, Mode::Exclusive, 10.0).await?;
        call.world.send_key(&node, vmid, call.text("key"))?;
        Ok(().into())
    })
}

/// `POST Q/monitor`. Whoever only looks needs no more rights; release 9 asks by command, and for root where it doesn't
/// know.
pub(in crate::pve) fn monitor(call: &Call) -> Result {
    const SAFE: &[&str] = &["cont", "c", "stop", "sendkey", "system_powerdown", "system_reset", "quit", "q"];
    let (node, vmid, line) = (call.node(), call.vmid(), call.text("command"));
    let words: Vec<&str> = line.split_whitespace().collect();
    let looks = words.first() == Some(&"info") || words == ["help"];
    {
        let state = call.world.state();
        let nine = state.pve == PveVersion::V9;
        match words.first() {
            None if nine => return Err(Refusal::failed(format!("unexpected command '{line}'\n"))),
            Some(name) if nine && !looks && !SAFE.contains(name) && !call.caller.is_root() => {
                let text = format!(
                    "command '{name}' non-existent or not assigned a required permission yet, limiting to root user\n"
                );
                return Err(Refusal::failed(text));
            }
            _ if !looks => state.check(&call.caller, "/", &["Sys.Modify"])?,
            _ => {}
        }
        state.vm(&node, vmid)?;
    }
    Ok(call.world.monitor(&node, vmid, line).unwrap_or_else(|refusal| format!("ERROR: {refusal}")).into())
}

/// `GET Q/migrate`
pub(in crate::pve) fn preconditions(call: &Call) -> Result {
    let found = call.world.migration_preconditions(&call.node(), call.vmid(), call.params.text("target"))?;
    let disks: Vec<Value> = found
        .disks
        .iter()
        .map(|disk| {
            json!({
                "volid": disk.volid, "size": disk.size, "cdrom": u8::from(disk.cdrom),
                "is_unused": u8::from(disk.unused), "is_attached": u8::from(!disk.unused),
            })
        })
        .collect();
    let mut shown = json!({
        "running": u8::from(found.running), "local_disks": disks, "local_resources": found.devices,
        "mapped-resources": [], "mapped-resource-info": {},
    });
    // Only an offline migration depends on which storages there are.
    if !found.running {
        shown["allowed_nodes"] = json!(found.allowed);
        let refused: Map<String, Value> = found
            .refused
            .iter()
            .map(|(node, storages)| (node.clone(), json!({"unavailable_storages": storages})))
            .collect();
        shown["not_allowed_nodes"] = Value::Object(refused);
    }
    Ok(shown.into())
}

/// `POST Q/migrate`
pub(in crate::pve) fn migrate(call: &Call) -> Result {
    call.root_only(&["force", "migration_type", "migration_network"])?;
    let ask = Migrate {
        target: call.text("target").to_owned(),
        online: call.params.is_on("online"),
        local_disks: call.params.is_on("with-local-disks"),
        storages: call.params.owned("targetstorage"),
        force: call.params.is_on("force"),
    };
    Ok(call.world.migrate_vm(&call.caller, &call.node(), call.vmid(), ask)?.into())
}
