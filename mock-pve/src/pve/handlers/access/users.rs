//! `/access/users`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::ticket::store_password;
use super::tokens::entry as token_entry;
use super::{no_user, realm_of};
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::access::User;
use crate::world::refusal::{Refusal, Rule};

const DETAILS: [&str; 5] = ["firstname", "lastname", "email", "comment", "keys"];

/// What is kept of a user. An empty address shows only where something is written behind it in the file.
fn entry(user: &User) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("enable".to_owned(), json!(u8::from(user.enable)));
    entry.insert("expire".to_owned(), json!(user.expire));
    let detail = |key: &str| user.details.get(key).filter(|text| !text.is_empty());
    for key in DETAILS {
        if let Some(text) = detail(key) {
            entry.insert(key.to_owned(), json!(text));
        }
    }
    if detail("comment").is_some() || detail("keys").is_some() {
        entry.entry("email").or_insert(json!(""));
    }
    entry
}

/// The users that share a group with one that the caller may manage.
fn managed(call: &Call, state: &State) -> BTreeSet<String> {
    let wanted = ["User.Modify", "Sys.Audit"];
    state
        .access
        .users
        .iter()
        .filter(|(_, user)| {
            user.groups.iter().any(|group| state.may_any(&call.caller, &format!("/access/groups/{group}"), &wanted))
        })
        .map(|(id, _)| id.clone())
        .collect()
}

/// `GET /access/users`
pub(in crate::pve) fn users(call: &Call) -> Result {
    let state = call.world.state();
    let all = state.may_any(&call.caller, "/access/groups", &["User.Modify", "Sys.Audit"]);
    let managed = managed(call, &state);
    let mut list = Vec::new();
    for (id, user) in &state.access.users {
        let seen = all || *id == call.caller.identity || managed.contains(id);
        let wanted = call.params.text("enabled").is_none_or(|enabled| (enabled == "1") == user.enable);
        if !seen || !wanted {
            continue;
        }
        let mut entry = entry(user);
        entry.insert("userid".to_owned(), json!(id));
        if let Some(kind) = state.access.realms.get(realm_of(id)).and_then(|realm| realm.get("type")) {
            entry.insert("realm-type".to_owned(), kind.clone());
        }
        if call.params.is_on("full") {
            entry.insert("groups".to_owned(), json!(user.groups.iter().cloned().collect::<Vec<_>>().join(",")));
            let tokens: Vec<Value> = user.tokens.iter().map(|(name, token)| token_entry(Some(name), token)).collect();
            entry.insert("tokens".to_owned(), if tokens.is_empty() { Value::Null } else { Value::Array(tokens) });
        }
        list.push(Value::Object(entry));
    }
    Ok(list.into())
}

/// `GET /access/users/{userid}`
pub(in crate::pve) fn user(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("userid");
    let user = state.access.users.get(id).ok_or_else(|| no_user(id))?;
    let tokens: Map<String, Value> =
        user.tokens.iter().map(|(name, token)| (name.clone(), token_entry(None, token))).collect();
    let mut entry = entry(user);
    entry.insert("groups".to_owned(), json!(user.groups));
    entry.insert("tokens".to_owned(), if tokens.is_empty() { Value::Null } else { Value::Object(tokens) });
    Ok(entry.into())
}

/// Takes over what was given; `Err` names a group that isn't there.
fn set_user(call: &Call, state: &State, user: &mut User) -> Rule<()> {
    if let Some(enable) = call.params.text("enable") {
        user.enable = enable == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        user.expire = expire;
    }
    if call.params.text("groups").is_some() {
        if !call.params.is_on("append") {
            user.groups.clear();
        }
        for group in call.params.list("groups") {
            if !state.access.groups.contains_key(&group) {
                return Err(Refusal::failed(format!("no such group '{group}'\n")));
            }
            user.groups.insert(group);
        }
    }
    for key in DETAILS {
        if let Some(value) = call.params.text(key) {
            user.details.insert(key.to_owned(), value.trim().to_owned());
        }
    }
    Ok(())
}

fn prefixed(prefix: &str, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Failed(text) => Refusal::failed(format!("{prefix}: {text}")),
        other => other,
    }
}

/// `POST /access/users`
pub(in crate::pve) fn create_user(call: &Call) -> Result {
    let id = call.text("userid").to_owned();
    let mut state = call.world.state();
    let failed = |refusal| prefixed("create user failed", refusal);
    if state.access.users.contains_key(&id) {
        return Err(failed(Refusal::failed(format!("user '{id}' already exists\n"))));
    }
    let mut user = User { enable: true, ..User::default() };
    let password = call.params.owned("password");
    if let Some(password) = &password {
        store_password(&mut state, &id, password).map_err(failed)?;
        user.password = Some(password.clone());
    }
    set_user(call, &state, &mut user).map_err(failed)?;
    state.access.users.insert(id, user);
    Ok(().into())
}

/// `PUT /access/users/{userid}`
pub(in crate::pve) fn update_user(call: &Call) -> Result {
    let id = call.text("userid");
    let mut state = call.world.state();
    let failed = |refusal| prefixed("update user failed", refusal);
    let mut user = state.access.users.get(id).cloned().ok_or_else(|| failed(no_user(id)))?;
    set_user(call, &state, &mut user).map_err(failed)?;
    state.access.users.insert(id.to_owned(), user);
    Ok(().into())
}

/// `DELETE /access/users/{userid}`: of nobody, too.
pub(in crate::pve) fn delete_user(call: &Call) -> Result {
    let id = call.text("userid");
    let mut state = call.world.state();
    let removed = state.access.users.remove(id);
    if let Some(root) = removed.filter(|_| id == "root@pam") {
        // Root is always there; only what was said of him goes.
        let root = User { enable: true, password: root.password, ..User::default() };
        state.access.users.insert(id.to_owned(), root);
    }
    if let Some(factors) = state.sections.get_mut("tfa") {
        factors.remove(id);
    }
    let tokens = format!("{id}!");
    state.access.acl.retain(|acl| acl.ugid != id && !acl.ugid.starts_with(&tokens));
    Ok(().into())
}
