//! `/access/acl`, `/access/permissions`.

use serde_json::{Map, Value, json};

use super::check_token;
use crate::pve::call::{Call, Result};
use crate::pve::permission::may_change_rights;
use crate::world::State;
use crate::world::access::{Acl, Privileges};
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::normalized;

/// `GET /access/permissions`
pub(in crate::pve) fn permissions(call: &Call) -> Result {
    let state = call.world.state();
    let who = call.params.text("userid").unwrap_or(&call.caller.identity).to_owned();
    let own =
        who == call.caller.identity || who.split_once('!').is_some_and(|(owner, _)| owner == call.caller.identity);
    if !own {
        state.check(&call.caller, "/access", &["Sys.Audit"])?;
    }
    let shown = |privileges: Privileges| -> Value {
        Value::Object(privileges.into_iter().map(|(name, propagate)| (name, json!(u8::from(propagate)))).collect())
    };
    if let Some(path) = call.params.text("path").filter(|path| !path.is_empty() && *path != "0") {
        return Ok(json!({path: shown(state.privileges(&who, path))}).into());
    }
    let mut paths = state.access.acl_paths();
    for path in ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"] {
        paths.insert(path.to_owned());
    }
    for pool in state.pools.values() {
        paths.extend(pool.vms.iter().map(|vmid| format!("/vms/{vmid}")));
        paths.extend(pool.storages.iter().map(|storage| format!("/storage/{storage}")));
    }
    let map: Map<String, Value> = paths
        .into_iter()
        .filter_map(|path| {
            let privileges = state.privileges(&who, &path);
            (!privileges.is_empty()).then(|| (path, shown(privileges)))
        })
        .collect();
    Ok(map.into())
}

/// `GET /access/acl`
pub(in crate::pve) fn acl(call: &Call) -> Result {
    let state = call.world.state();
    let all = state.may(&call.caller, "/access", &["Sys.Audit"]);
    let list: Vec<Value> = state
        .access
        .acl
        .iter()
        .filter(|acl| all || may_change_rights(&state, &call.caller, &acl.path).is_ok())
        .map(|acl| {
            json!({
                "path": acl.path, "type": acl.kind, "ugid": acl.ugid, "roleid": acl.roleid,
                "propagate": u8::from(acl.propagate),
            })
        })
        .collect();
    Ok(list.into())
}

/// Whether a path is one that rights can be given on.
fn acl_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric());
    let dashes = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    let number = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && !text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit())
    };
    path == "/"
        || match parts.as_slice() {
            ["access" | "nodes" | "pool" | "sdn" | "storage" | "vms" | "mapping"]
            | ["access", "groups" | "realm"]
            | ["access", "groups" | "realm", _]
            | ["nodes" | "storage" | "mapping" | "pool", _]
            | ["mapping" | "pool", _, _]
            | ["sdn", "controllers" | "dns" | "ipams" | "zones"]
            | ["sdn", "zones", _]
            | ["sdn", "zones", _, _]
            | ["pool", _, _, _] => true,
            ["vms", vmid] => number(vmid, 3, usize::MAX),
            ["sdn", "controllers", id] => dashes(id),
            ["sdn", "dns" | "ipams", id] => plain(id),
            ["sdn", "zones", _, _, tag] => number(tag, 1, 4),
            _ => false,
        }
}

/// Who isn't allowed to change all rights hands out none that he doesn't hold himself.
fn check_superset(call: &Call, held: &Privileges, state: &State, role: &str, propagate: bool) -> Rule<()> {
    if held.contains_key("Permissions.Modify") {
        return Ok(());
    }
    let delete = call.params.is_on("delete");
    let verb = if delete { "remove" } else { "add" };
    for name in state.access.roles.get(role).into_iter().flat_map(|role| &role.privs) {
        match held.get(name) {
            None => {
                let text =
                    format!("Cannot {verb} role '{role}' - requires 'Permissions.Modify' or superset of privileges.");
                return Err(Refusal::param("role", text));
            }
            Some(also) if propagate && !also && !delete => {
                let text = format!(
                    "Cannot {verb} role '{role}' with propagation - requires 'Permissions.Modify' or propagated \
                     superset of privileges."
                );
                return Err(Refusal::param("role", text));
            }
            Some(_) => {}
        }
    }
    if role == "NoAccess" {
        return Err(Refusal::param("role", format!("Cannot {verb} role '{role}' - requires 'Permissions.Modify'")));
    }
    Ok(())
}

fn check_subject(state: &State, kind: &str, ugid: &str) -> Rule<()> {
    let exists = match kind {
        "user" => state.access.users.contains_key(ugid),
        "group" => state.access.groups.contains_key(ugid),
        _ => {
            let (user, token) = ugid.split_once('!').unwrap_or((ugid, ""));
            return check_token(state, user, token);
        }
    };
    if exists { Ok(()) } else { Err(Refusal::failed(format!("{kind} '{ugid}' does not exist\n"))) }
}

/// `PUT /access/acl`
pub(in crate::pve) fn update_acl(call: &Call) -> Result {
    const LISTS: [(&str, &str); 3] = [("groups", "group"), ("users", "user"), ("tokens", "token")];
    let given = call.text("path");
    if LISTS.iter().all(|(name, _)| call.params.text(name).is_none_or(str::is_empty)) {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        return Err(Refusal::Params(LISTS.iter().map(|(name, _)| ((*name).to_owned(), text.to_owned())).collect()));
    }
    let delete = call.params.is_on("delete");
    let path = normalized(given).filter(|path| delete || acl_path(path));
    let path = path.ok_or_else(|| Refusal::param("path", format!("invalid ACL path '{given}'")))?;
    let propagate = call.params.text("propagate") != Some("0");
    let failed = |refusal: Refusal| match refusal {
        // What was wrong with a parameter is a text by the time it comes out of the lock.
        Refusal::Params(_) => Refusal::failed(format!("ACL update failed: {}\n", refusal.text())),
        other => Refusal::failed(format!("ACL update failed: {other}")),
    };
    let mut state = call.world.state();
    let held = state.privileges(&call.caller.identity, &path);
    // Nothing is kept of a change that fails halfway.
    let mut entries = state.access.acl.clone();
    for role in call.params.list("roles") {
        if !state.access.roles.contains_key(&role) {
            return Err(failed(Refusal::failed(format!("role '{role}' does not exist\n"))));
        }
        check_superset(call, &held, &state, &role, propagate).map_err(failed)?;
        for (name, kind) in LISTS {
            for ugid in call.params.list(name) {
                check_subject(&state, kind, &ugid).map_err(failed)?;
                entries.retain(|acl| !(acl.path == path && acl.kind == kind && acl.ugid == ugid && acl.roleid == role));
                if !delete {
                    let (path, kind, roleid) = (path.clone(), kind.to_owned(), role.clone());
                    entries.push(Acl { path, kind, ugid, roleid, propagate });
                }
            }
        }
    }
    state.access.acl = entries;
    Ok(().into())
}

#[cfg(test)]
mod tests {
    use super::acl_path;

    #[test]
    fn rights_are_given_on_known_paths_only() {
        for path in ["/", "/vms/100", "/pool/a/b/c", "/sdn/zones/z/vnet/12", "/access/realm/pve", "/mapping/pci/gpu"] {
            assert!(acl_path(path), "{path}");
        }
        for path in ["/vms/99", "/vms/0100", "/foo", "/pool/a/b/c/d", "/sdn/zones/z/v/0", "/vms/100/x", "/nodes/a/b"] {
            assert!(!acl_path(path), "{path}");
        }
    }
}
