//! Permission rules, as data.
//!
//! Purpose: evaluates the `check` expressions of the method table (Proxmox VE 8.4, PVE/RPCEnvironment.pm,
//! `exec_api2_perm_check`). Must not know: methods. Start at [`check`].

use serde_json::Value;

use super::params::Params;
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;

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
                _ => refuse("user != root@pam"),
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
        "perm-modify" => may_change_rights(state, caller, &fill(word(1), params)),
        "userid-param" => match word(1) {
            "self" if params.text("userid") == Some(caller.identity.as_str()) => Ok(()),
            "Realm.AllocateUser" => {
                let realm = params.text("userid").and_then(|user| user.rsplit_once('@')).map_or("", |(_, realm)| realm);
                state.check(caller, &format!("/access/realm/{realm}"), &["Realm.AllocateUser"])
            }
            _ => refuse(""),
        },
        "userid-group" => {
            let privileges: Vec<&str> =
                expression.get(1).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            if state.may_any(caller, "/access/groups", &privileges) {
                return Ok(());
            }
            let groups = params.text("userid").and_then(|user| state.access.users.get(user)).map(|user| &user.groups);
            let by_group = groups
                .into_iter()
                .flatten()
                .any(|group| state.may_any(caller, &format!("/access/groups/{group}"), &privileges));
            if by_group { Ok(()) } else { state.check_any(caller, "/access/groups", &privileges) }
        }
        _ => refuse(""),
    }
}

/// `Permissions.Modify`, or what stands in for it below `/vms`, `/storage` and `/pool`.
fn may_change_rights(state: &State, caller: &Caller, path: &str) -> Rule<()> {
    let instead = if path.starts_with("/storage") {
        Some("Datastore.Allocate")
    } else if path.starts_with("/pool/") {
        Some("Pool.Allocate")
    } else if path.starts_with("/vms/") {
        Some("VM.Allocate")
    } else {
        None
    };
    if instead.is_some_and(|privilege| state.may(caller, path, &[privilege])) {
        return Ok(());
    }
    state.check(caller, path, &["Permissions.Modify"])
}
