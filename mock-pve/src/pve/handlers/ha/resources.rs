//! `/cluster/ha/resources`.

use serde_json::json;

use super::{Object, check_delete, check_digest, check_type, number, prefixed, with_digest};
use crate::pve::call::{Call, Result};
use crate::world::ha::Way;
use crate::world::refusal::{Refusal, Rule};
use crate::world::{PveVersion, State};

/// `GET /cluster/ha/resources`
pub(in crate::pve) fn resources(call: &Call) -> Result {
    let state = call.world.state();
    Ok(state.ha.values().map(|entry| with_digest(&state.ha, entry)).collect::<Vec<_>>().into())
}

/// What is meant by a service id: a bare number is that of a guest that exists.
fn service_id(call: &Call) -> Rule<String> {
    let sid = call.text("sid");
    if let Ok(vmid) = sid.parse::<u32>() {
        if !call.world.state().vms.contains_key(&vmid) {
            let text = format!("unable do detect SID from VMID - VM/CT {vmid} does not exist\n");
            return Err(Refusal::failed(text));
        }
        return Ok(format!("vm:{vmid}"));
    }
    match sid.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(sid.to_owned()),
        _ => Err(Refusal::failed(format!("unable to parse service id '{sid}'\n"))),
    }
}

/// `GET /cluster/ha/resources/{sid}`
pub(in crate::pve) fn resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let state = call.world.state();
    match state.ha.get(&sid) {
        Some(resource) => Ok(with_digest(&state.ha, resource).into()),
        None => Err(Refusal::failed(format!("no such resource '{sid}'\n"))),
    }
}

/// `POST /cluster/ha/resources`
pub(in crate::pve) fn create_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let (kind, name) = sid.split_once(':').unwrap_or_default();
    check_type(call, kind)?;
    if !matches!(kind, "vm" | "ct") {
        return Err(Refusal::failed(format!("unknown section type '{kind}'\n")));
    }
    if name.len() < 2 || name.starts_with('0') || !name.chars().all(|c| c.is_ascii_digit()) {
        return Err(Refusal::failed("invalid VMID\n"));
    }
    let mut state = call.world.state();
    check_group(call, &state)?;
    if !state.vms.contains_key(&number(&sid)) || kind == "ct" {
        return Err(Refusal::failed(format!("resource '{sid}' does not exist in cluster\n")));
    }
    if state.ha.contains_key(&sid) {
        return Err(Refusal::failed(format!("create resource failed: resource ID '{sid}' already defined\n")));
    }
    let mut resource = json!({"sid": sid, "type": "vm"}).as_object().cloned().unwrap_or_default();
    set_resource(call, &mut resource);
    state.ha.insert(sid.clone(), resource);
    drop(state);
    call.world.forget_service(number(&sid));
    Ok(().into())
}

fn check_group(call: &Call, state: &State) -> Rule<()> {
    match call.params.text("group") {
        Some(_) if state.pve == PveVersion::V9 => {
            Err(Refusal::failed("invalid parameter 'group': ha groups have been migrated to rules\n"))
        }
        // A new resource may name a group that is yet to come.
        Some(group)
            if call.params.text("sid").is_some_and(|sid| state.ha.contains_key(sid))
                && !state.ha_groups.contains_key(group) =>
        {
            Err(Refusal::failed(format!("HA group '{group}' does not exist\n")))
        }
        _ => Ok(()),
    }
}

fn set_resource(call: &Call, resource: &mut Object) {
    for key in ["state", "max_restart", "max_relocate", "comment", "group", "failback"] {
        if let Some(value) = call.params.text(key) {
            let value = if value == "enabled" { "started" } else { value };
            let number = value.parse::<i64>().ok().filter(|_| !matches!(key, "comment" | "group" | "state"));
            let value = number.map_or_else(|| json!(value), |number| json!(number));
            resource.insert(key.to_owned(), value);
        }
    }
}

/// `PUT /cluster/ha/resources/{sid}`
pub(in crate::pve) fn update_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    check_type(call, sid.split(':').next().unwrap_or_default())?;
    let mut state = call.world.state();
    check_group(call, &state)?;
    let failed = prefixed("update resources config failed");
    check_digest(call, &state.ha).map_err(&failed)?;
    let Some(resource) = state.ha.get_mut(&sid) else {
        return Err(failed(Refusal::failed(format!("no such resource '{sid}'\n"))));
    };
    let known = ["state", "group", "max_restart", "max_relocate", "comment", "failback"];
    let delete = check_delete(call, &known, &[]).map_err(failed)?;
    set_resource(call, resource);
    for key in delete {
        resource.remove(&key);
    }
    Ok(().into())
}

/// `DELETE /cluster/ha/resources/{sid}`
pub(in crate::pve) fn delete_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    {
        let mut state = call.world.state();
        if state.ha.remove(&sid).is_none() {
            return Err(Refusal::failed(format!("cannot delete service '{sid}', not HA managed!\n")));
        }
        if call.params.text("purge") != Some("0") {
            state.forget_in_rules(&sid);
        }
    }
    call.world.forget_service(number(&sid));
    Ok(().into())
}

/// `POST /cluster/ha/resources/{sid}/migrate`
pub(in crate::pve) fn migrate_resource(call: &Call) -> Result {
    ask(call, Way::Migrate)
}

/// `POST /cluster/ha/resources/{sid}/relocate`
pub(in crate::pve) fn relocate_resource(call: &Call) -> Result {
    ask(call, Way::Relocate)
}

fn ask(call: &Call, way: Way) -> Result {
    let sid = service_id(call)?;
    let target = call.text("node").to_owned();
    {
        let state = call.world.state();
        state.check_node(&target)?;
        if !state.ha.contains_key(&sid) {
            return Err(Refusal::failed(format!("resource '{sid}' is not HA managed\n")));
        }
    }
    call.world.ask_ha_migration(number(&sid), target.clone(), way);
    Ok(json!({"sid": sid, "requested-node": target}).into())
}
