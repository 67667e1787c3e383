//! `Q/cloudinit`.

use serde_json::{Value, json};

use super::settings::resolver;
use super::views;
use crate::pve::call::{Call, Result};
use crate::world::cloudinit::{ADDED, Drive, OPTIONS};
use crate::world::update::{check_lock, cloudinit_at};

/// `GET Q/cloudinit`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let vm = state.vm(&call.node(), call.vmid())?;
    let typed = |key: &str, value: &String| views::typed(key, value);
    let added: Vec<&str> = vm.cloudinit.get(ADDED).map_or("", String::as_str).split(',').collect();
    let mut list: Vec<Value> = Vec::new();
    for key in added.iter().filter(|key| !key.is_empty()) {
        list.push(json!({"key": key, "pending": vm.config.get(*key).map(|value| typed(key, value))}));
    }
    for key in OPTIONS.iter().filter(|key| !added.contains(key)) {
        // What is off is not worth a line.
        let Some(value) = vm.config.get(*key).filter(|value| *value != "0") else { continue };
        list.push(match vm.cloudinit.get(*key) {
            Some(old) => json!({"key": key, "value": typed(key, old), "pending": typed(key, value)}),
            None => json!({"key": key, "value": typed(key, value)}),
        });
    }
    let gone = vm.cloudinit.keys().filter(|key| *key != ADDED && !vm.config.contains_key(*key));
    list.extend(gone.map(|key| json!({"key": key, "delete": 1})));
    Ok(list.into())
}

/// `PUT Q/cloudinit`
pub(in crate::pve) fn regenerate(call: &Call) -> Result {
    let mut state = call.world.state();
    let vm = state.vm_mut(&call.node(), call.vmid())?;
    check_lock(&vm.config)?;
    if cloudinit_at(&vm.config).is_some() {
        vm.cloudinit.clear();
    }
    Ok(().into())
}

/// `GET Q/cloudinit/dump`
pub(in crate::pve) fn dump(call: &Call) -> Result {
    let state = call.world.state();
    let config = &state.vm(&call.node(), call.vmid())?.config;
    // The original asks for the right on a path that no VM has: only what comes from above counts.
    let masked = !state.may(&call.caller, "/vms/vmid", &["VM.Config.Cloudinit"]);
    let drive = Drive { vmid: call.vmid(), config, node: resolver(&state, call), masked };
    let text = match call.text("type") {
        "network" => drive.network(),
        "meta" => drive.meta(),
        _ => drive.user(),
    };
    Ok(text.into())
}
