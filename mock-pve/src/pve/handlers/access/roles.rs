//! `/access/roles`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::access::Role;
use crate::world::refusal::{Refusal, Rule};

/// `GET /access/roles`
pub(in crate::pve) fn roles(call: &Call) -> Result {
    let state = call.world.state();
    let list = state.access.roles.iter().map(|(id, role)| {
        let privs: Vec<&str> = role.privs.iter().map(String::as_str).collect();
        json!({"roleid": id, "privs": privs.join(","), "special": u8::from(role.special)})
    });
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET /access/roles/{roleid}`
pub(in crate::pve) fn role(call: &Call) -> Result {
    let id = call.text("roleid");
    let state = call.world.state();
    let role = state.access.roles.get(id).ok_or_else(|| Refusal::failed(format!("role '{id}' does not exist\n")))?;
    let privs: Map<String, Value> = role.privs.iter().map(|name| (name.clone(), json!(1))).collect();
    Ok(privs.into())
}

fn known_privileges(call: &Call, state: &State) -> Rule<BTreeSet<String>> {
    let privs: BTreeSet<String> = call.params.list("privs").into_iter().collect();
    let unknown = privs.iter().find(|name| !crate::world::roles::exists(state.pve, name));
    match unknown {
        Some(name) => Err(Refusal::param("privs", format!("invalid format - invalid privilege '{name}'\n"))),
        None => Ok(privs),
    }
}

/// `POST /access/roles`
pub(in crate::pve) fn create_role(call: &Call) -> Result {
    let id = call.text("roleid").to_owned();
    let mut state = call.world.state();
    let privs = known_privileges(call, &state)?;
    if id.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("PVE")) {
        let text = "cannot use role ID starting with the (case-insensitive) 'PVE' namespace";
        return Err(Refusal::param("roleid", text));
    }
    if state.access.roles.contains_key(&id) {
        return Err(Refusal::failed(format!("create role failed: role '{id}' already exists\n")));
    }
    state.access.roles.insert(id, Role { special: false, privs });
    Ok(().into())
}

fn check_special(state: &State, id: &str, what: &str) -> Rule<()> {
    match state.access.roles.get(id) {
        Some(role) if role.special => Err(Refusal::failed(format!("auto-generated role '{id}' cannot be {what}\n"))),
        _ => Ok(()),
    }
}

/// `PUT /access/roles/{roleid}`
pub(in crate::pve) fn update_role(call: &Call) -> Result {
    let id = call.text("roleid").to_owned();
    let mut state = call.world.state();
    let privs = known_privileges(call, &state)?;
    check_special(&state, &id, "modified")?;
    let Some(role) = state.access.roles.get_mut(&id) else {
        return Err(Refusal::failed(format!("update role failed: role '{id}' does not exist\n")));
    };
    if call.params.is_on("append") {
        role.privs.extend(privs);
    } else {
        role.privs = privs;
    }
    Ok(().into())
}

/// `DELETE /access/roles/{roleid}`
pub(in crate::pve) fn delete_role(call: &Call) -> Result {
    let id = call.text("roleid");
    let mut state = call.world.state();
    check_special(&state, id, "deleted")?;
    if state.access.roles.remove(id).is_none() {
        return Err(Refusal::failed(format!("delete role failed: role '{id}' does not exist\n")));
    }
    // Entries that name it are dropped when the file is read the next time.
    state.access.acl.retain(|acl| acl.roleid != id);
    Ok(().into())
}
