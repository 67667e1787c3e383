//! `/access/groups`.

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::Refusal;

fn members(state: &State, group: &str) -> Vec<String> {
    state.access.users.iter().filter(|(_, user)| user.groups.contains(group)).map(|(id, _)| id.clone()).collect()
}

fn missing(group: &str, doing: &str) -> Refusal {
    Refusal::failed(format!("{doing}group '{group}' does not exist\n"))
}

/// `GET /access/groups`
pub(in crate::pve) fn groups(call: &Call) -> Result {
    let state = call.world.state();
    let wanted = ["User.Modify", "Sys.Audit", "Group.Allocate"];
    let list = state
        .access
        .groups
        .iter()
        .filter(|(id, _)| state.may_any(&call.caller, &format!("/access/groups/{id}"), &wanted))
        .map(|(id, comment)| {
            let mut entry = json!({"groupid": id, "users": members(&state, id).join(",")});
            if let Some(comment) = comment {
                entry["comment"] = json!(comment);
            }
            entry
        });
    Ok(list.collect::<Vec<Value>>().into())
}

/// `POST /access/groups`
pub(in crate::pve) fn create_group(call: &Call) -> Result {
    let id = call.text("groupid").to_owned();
    let mut state = call.world.state();
    if state.access.groups.contains_key(&id) {
        return Err(Refusal::failed(format!("create group failed: group '{id}' already exists\n")));
    }
    state.access.groups.insert(id, call.kept("comment"));
    Ok(().into())
}

/// `GET /access/groups/{groupid}`
pub(in crate::pve) fn group(call: &Call) -> Result {
    let id = call.text("groupid");
    let state = call.world.state();
    let comment = state.access.groups.get(id).ok_or_else(|| missing(id, ""))?;
    let mut entry = json!({"members": members(&state, id)});
    if let Some(comment) = comment {
        entry["comment"] = json!(comment);
    }
    Ok(entry.into())
}

/// `PUT /access/groups/{groupid}`
pub(in crate::pve) fn update_group(call: &Call) -> Result {
    let id = call.text("groupid");
    let mut state = call.world.state();
    let group = state.access.groups.get_mut(id).ok_or_else(|| missing(id, "update group failed: "))?;
    if call.params.text("comment").is_some() {
        *group = call.kept("comment");
    }
    Ok(().into())
}

/// `DELETE /access/groups/{groupid}`
pub(in crate::pve) fn delete_group(call: &Call) -> Result {
    let id = call.text("groupid");
    let mut state = call.world.state();
    state.access.groups.remove(id).ok_or_else(|| missing(id, "delete group failed: "))?;
    for user in state.access.users.values_mut() {
        user.groups.remove(id);
    }
    state.access.acl.retain(|acl| !(acl.kind == "group" && acl.ugid == id));
    Ok(().into())
}
