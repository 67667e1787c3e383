//! `/cluster/ha/groups`.

use serde_json::{Value, json};

use super::{Object, check_delete, check_digest, check_type, prefixed, with_digest};
use crate::pve::call::{Call, Result};
use crate::world::PveVersion;
use crate::world::refusal::{Refusal, Rule};

/// There are no groups any more from release 9 on.
fn refuse_groups(call: &Call, doing: &str) -> Rule<()> {
    if call.world.state().pve == PveVersion::V9 {
        return Err(Refusal::failed(format!("cannot {doing}: ha groups have been migrated to rules\n")));
    }
    Ok(())
}

/// `GET /cluster/ha/groups`
pub(in crate::pve) fn groups(call: &Call) -> Result {
    refuse_groups(call, "index groups")?;
    let state = call.world.state();
    Ok(state.ha_groups.values().map(|entry| with_digest(&state.ha_groups, entry)).collect::<Vec<_>>().into())
}

fn no_group(name: &str) -> Refusal {
    Refusal::failed(format!("no such ha group '{name}'\n"))
}

/// `GET /cluster/ha/groups/{group}`
pub(in crate::pve) fn group(call: &Call) -> Result {
    refuse_groups(call, "read group")?;
    let state = call.world.state();
    let name = call.text("group");
    let found = state.ha_groups.get(name).ok_or_else(|| no_group(name))?;
    Ok(with_digest(&state.ha_groups, found).into())
}

fn set_group(call: &Call, group: &mut Object) {
    for key in ["comment", "nodes"] {
        if let Some(value) = call.params.text(key) {
            group.insert(key.to_owned(), json!(value));
        }
    }
    for key in ["nofailback", "restricted"] {
        if let Some(value) = call.params.number::<u8>(key) {
            group.insert(key.to_owned(), json!(value));
        }
    }
}

/// `POST /cluster/ha/groups`
pub(in crate::pve) fn create_group(call: &Call) -> Result {
    refuse_groups(call, "create group")?;
    check_type(call, "group")?;
    let name = call.text("group").to_owned();
    let mut state = call.world.state();
    if state.ha_groups.contains_key(&name) {
        return Err(Refusal::failed(format!("create ha group failed: ha group ID '{name}' already defined\n")));
    }
    let mut group = json!({"group": name, "type": "group"}).as_object().cloned().unwrap_or_default();
    set_group(call, &mut group);
    state.ha_groups.insert(name, group);
    Ok(().into())
}

/// `PUT /cluster/ha/groups/{group}`
pub(in crate::pve) fn update_group(call: &Call) -> Result {
    refuse_groups(call, "update group")?;
    let mut state = call.world.state();
    let name = call.text("group");
    let failed = prefixed("update ha group failed");
    check_digest(call, &state.ha_groups).map_err(&failed)?;
    let group = state.ha_groups.get_mut(name).ok_or_else(|| failed(no_group(name)))?;
    let delete = check_delete(call, &["comment", "nofailback", "restricted"], &["nodes"]).map_err(failed)?;
    set_group(call, group);
    for key in delete {
        group.remove(&key);
    }
    Ok(().into())
}

/// `DELETE /cluster/ha/groups/{group}`
pub(in crate::pve) fn delete_group(call: &Call) -> Result {
    refuse_groups(call, "delete group")?;
    let mut state = call.world.state();
    let name = call.text("group");
    let used = state.ha.iter().find(|(_, entry)| entry.get("group").and_then(Value::as_str) == Some(name));
    if let Some((sid, _)) = used {
        return Err(Refusal::failed(format!("delete ha group failed: ha group is used by service '{sid}'\n")));
    }
    state.ha_groups.remove(name);
    Ok(().into())
}
