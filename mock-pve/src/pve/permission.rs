//! Permission rules, as data.
//!
//! Purpose: evaluates the `check` expressions of the method table (Proxmox VE 8.4, PVE/RPCEnvironment.pm,
//! `exec_api2_perm_check`). Must not know: methods. Start at [`check`].

use serde_json::Value;

use super::params::Params;
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::{Caller, normalized};

fn refuse(what: &str) -> Rule<()> {
    Err(Refusal::forbidden(what))
}

/// Refuses a caller that a method's rule doesn't allow.
pub(super) fn check(state: &State, caller: &Caller, rule: &Value, params: &Params) -> Rule<()> {
    if caller.is_root() {
        return Ok(());
    }
    match rule {
        Value::Object(rule) => match rule.get("user").and_then(Value::as_str) {
            Some("all" | "world") => Ok(()),
            _ => match rule.get("check") {
                Some(Value::Array(expression)) => evaluate(state, caller, expression, params),
                _ => refuse(""),
            },
        },
        _ => refuse("user != root@pam"),
    }
}

/// `{vmid}` and the like, filled in; `None`: the parameter is missing.
fn fill(template: &str, params: &Params) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        path.push_str(before);
        path.push_str(params.text(name).unwrap_or_default());
        rest = after;
    }
    path.push_str(rest);
    path
}

fn evaluate(state: &State, caller: &Caller, expression: &[Value], params: &Params) -> Rule<()> {
    let word = |at: usize| expression.get(at).and_then(Value::as_str).unwrap_or_default();
    let nested = || expression.iter().skip(1).filter_map(Value::as_array);
    match word(0) {
        "and" => nested().try_for_each(|part| evaluate(state, caller, part, params)),
        "or" => {
            if nested().any(|part| evaluate(state, caller, part, params).is_ok()) {
                Ok(())
            } else {
                refuse("")
            }
        }
        "perm" => {
            let options: Vec<&Value> = expression.iter().skip(3).collect();
            let option =
                |name: &str| options.windows(2).find(|pair| pair[0].as_str() == Some(name)).map(|pair| pair[1]);
            if let Some(needed) = option("require_param").and_then(Value::as_str)
                && params.text(needed).is_none()
            {
                return refuse("");
            }
            let path = fill(word(1), params);
            let privileges: Vec<&str> =
                expression.get(2).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            if option("any").is_some() || options.iter().any(|one| one.as_str() == Some("any")) {
                state.check_any(caller, &path, &privileges)
            } else {
                state.check(caller, &path, &privileges)
            }
        }
        // A path that can't be one is refused by the method itself.
        "perm-modify" => match normalized(&fill(word(1), params)) {
            Some(path) => may_change_rights(state, caller, &path),
            None => Ok(()),
        },
        "userid-param" => {
            let user = params.text("userid").unwrap_or_default();
            let realm = user_realm(user)?;
            match word(1) {
                "self" if !state.access.users.contains_key(user) => Err(no_user(user)),
                "self" if user == caller.identity => Ok(()),
                "Realm.AllocateUser" => state.check(caller, &format!("/access/realm/{realm}"), &["Realm.AllocateUser"]),
                _ => refuse(""),
            }
        }
        "userid-group" => by_group(state, caller, expression, params),
        _ => refuse(""),
    }
}

fn no_user(user: &str) -> Refusal {
    Refusal::failed(format!("no such user ('{user}')\n"))
}

/// The realm of a user id; `Err`: it isn't one.
fn user_realm(user: &str) -> Rule<&str> {
    if user.len() < 3 {
        return Err(Refusal::failed(format!("user name '{user}' is too short\n")));
    }
    match user.rsplit_once('@') {
        Some((name, realm)) if !name.is_empty() && !name.contains([' ', ':', '/']) => Ok(realm),
        _ => Err(Refusal::failed(format!("value '{user}' does not look like a valid user name\n"))),
    }
}

/// Rights over a user come from rights over the groups he is in, or is to be in.
fn by_group(state: &State, caller: &Caller, expression: &[Value], params: &Params) -> Rule<()> {
    let names: Vec<&str> =
        expression.get(1).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let groups_param = (expression.get(2).and_then(Value::as_str) == Some("groups_param"))
        .then(|| expression.get(3).and_then(Value::as_str).unwrap_or_default());
    let existing = groups_param != Some("create");
    let user = params.text("userid").unwrap_or_default();
    if existing && !state.access.users.contains_key(user) {
        return Err(no_user(user));
    }
    if state.may_any(caller, "/access/groups", &names) {
        return Ok(());
    }
    let may = |group: &str| {
        state.access.groups.contains_key(group) && state.may_any(caller, &format!("/access/groups/{group}"), &names)
    };
    if groups_param.is_some() {
        let wanted = params.list("groups");
        if wanted.is_empty() {
            return refuse(&format!("/access/groups, {}", names.join("|")));
        }
        if let Some(group) = wanted.iter().find(|group| !may(group)) {
            return refuse(&format!("/access/groups/{group}, {}", names.join("|")));
        }
    }
    let groups = state.access.users.get(user).into_iter().flat_map(|user| &user.groups);
    if existing && !groups.into_iter().any(|group| may(group)) {
        return refuse("");
    }
    Ok(())
}

/// `Permissions.Modify`, or what stands in for it below `/vms`, `/storage` and `/pool`.
pub(super) fn may_change_rights(state: &State, caller: &Caller, path: &str) -> Rule<()> {
    let below = |start: &str| path.strip_prefix(start).is_some_and(|rest| !rest.is_empty());
    let mut privileges = vec!["Permissions.Modify"];
    if below("/storage/") {
        privileges.push("Datastore.Allocate");
    } else if below("/vms/") {
        privileges.push("VM.Allocate");
    } else if below("/pool/") {
        privileges.push("Pool.Allocate");
    }
    state.check_any(caller, path, &privileges)
}
