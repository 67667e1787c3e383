//! `/access/…`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::WRONG_PASSWORD;
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::access::{Acl, Privileges, Role, Token, User};
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;

/// `GET /access/ticket`
pub(in crate::pve) fn ticket_page(_: &Call) -> Result {
    Ok(().into())
}

/// Which privileges each part of the web interface asks for, and on which paths.
const GROUPS: &[(&str, &[&str], &[&str])] = &[
    ("vms", &["/vms"], &["VM.", "Permissions.Modify"]),
    ("storage", &["/storage"], &["Datastore.", "Permissions.Modify"]),
    ("access", &["/access", "/access/groups"], &["User.Modify", "Permissions.Modify", "Group.Allocate"]),
    ("nodes", &["/nodes"], &["Sys.", "Permissions.Modify"]),
    ("sdn", &["/sdn"], &["SDN.", "Permissions.Modify"]),
    ("dc", &["/"], &["Sys.Audit", "Sys.Modify", "SDN."]),
    ("mapping", &["/mapping"], &["Mapping.", "Permissions.Modify"]),
];

fn capabilities(state: &State, user: &str) -> Value {
    let mut cap = Map::new();
    for (group, paths, wanted) in GROUPS {
        let mut held = Map::new();
        for path in *paths {
            for privilege in state.privileges(user, path).into_keys() {
                if wanted.iter().any(|want| privilege.starts_with(want)) {
                    held.insert(privilege, json!(1));
                }
            }
        }
        cap.insert((*group).to_owned(), Value::Object(held));
    }
    Value::Object(cap)
}

/// `POST /access/ticket`
pub(in crate::pve) fn ticket(call: &Call) -> Result {
    let named = call.text("username");
    let user = match call.params.text("realm") {
        Some(realm) if !named.contains('@') => format!("{named}@{realm}"),
        _ => named.to_owned(),
    };
    let now = call.world.clock().unix();
    let password = call.text("password");
    let state = call.world.state();
    let known = state.access.users.get(&user).filter(|user| user.enable && (user.expire == 0 || user.expire > now));
    let right = known.is_some_and(|known| {
        (known.password.is_some() && known.password.as_deref() == Some(password) && !password.is_empty())
            || call.auth.user_of(password, now).as_deref() == Some(user.as_str())
    });
    if !right {
        return Err(Refusal::failed(WRONG_PASSWORD));
    }
    let mut answer = json!({
        "username": user, "ticket": call.auth.ticket(&user, now), "CSRFPreventionToken": call.auth.csrf(&user, now),
        "cap": capabilities(&state, &user),
    });
    if let Some(name) = &state.cluster_name
        && state.may(&Caller { identity: user }, "/", &["Sys.Audit"])
    {
        answer["clustername"] = json!(name);
    }
    Ok(answer.into())
}

/// `GET /access/domains`
pub(in crate::pve) fn domains(call: &Call) -> Result {
    let state = call.world.state();
    let list: Vec<Value> = state
        .access
        .realms
        .iter()
        .map(|(realm, options)| {
            let mut entry = options.clone();
            entry.insert("realm".to_owned(), json!(realm));
            Value::Object(entry)
        })
        .collect();
    Ok(list.into())
}

/// `GET /access/permissions`
pub(in crate::pve) fn permissions(call: &Call) -> Result {
    let state = call.world.state();
    let who = call.params.text("userid").unwrap_or(&call.caller.identity).to_owned();
    let own = who == call.caller.identity || who.split('!').next() == Some(call.caller.identity.as_str());
    if !own {
        state.check(&call.caller, "/access", &["Sys.Audit"])?;
    }
    let shown = |privileges: Privileges| -> Value {
        Value::Object(privileges.into_iter().map(|(name, propagate)| (name, json!(u8::from(propagate)))).collect())
    };
    if let Some(path) = call.params.text("path") {
        return Ok(json!({path: shown(state.privileges(&who, path))}).into());
    }
    let mut paths: BTreeSet<String> =
        ["/", "/access", "/access/groups", "/nodes", "/pool", "/sdn", "/storage", "/vms"].map(str::to_owned).into();
    paths.extend(state.access.acl.iter().map(|acl| acl.path.clone()));
    for (id, pool) in &state.pools {
        paths.insert(format!("/pool/{id}"));
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
    let all = state.may_any(&call.caller, "/access", &["Sys.Audit", "Permissions.Modify"]);
    let list: Vec<Value> = state
        .access
        .acl
        .iter()
        .filter(|acl| all || state.may(&call.caller, &acl.path, &["Permissions.Modify"]))
        .map(|acl| {
            json!({
                "path": acl.path, "type": acl.kind, "ugid": acl.ugid, "roleid": acl.roleid,
                "propagate": u8::from(acl.propagate),
            })
        })
        .collect();
    Ok(list.into())
}

fn acl_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    let number = |text: &&str| text.len() >= 3 && text.chars().all(|c| c.is_ascii_digit());
    path == "/"
        || match parts.as_slice() {
            ["access" | "nodes" | "pool" | "sdn" | "storage" | "vms" | "mapping"]
            | ["access", "groups" | "realm"]
            | ["sdn", "zones"]
            | ["access", "groups" | "realm", _]
            | ["nodes" | "storage", _] => true,

            ["vms", vmid] => number(vmid),
            ["pool", ..] => parts.len() <= 4,
            ["sdn", "zones", ..] => parts.len() <= 5,
            ["mapping", ..] => parts.len() <= 3,
            _ => false,
        }
}

/// `PUT /access/acl`
pub(in crate::pve) fn update_acl(call: &Call) -> Result {
    let given = call.text("path");
    let path = if given == "/" { given } else { given.trim_end_matches('/') };
    if !acl_path(path) {
        return Err(Refusal::param("path", format!("invalid ACL path '{path}'")));
    }
    let lists = [("users", "user"), ("groups", "group"), ("tokens", "token")];
    if lists.iter().all(|(name, _)| call.params.text(name).is_none()) {
        let text = "either 'users', 'groups' or 'tokens' is required.";
        return Err(Refusal::Params(lists.iter().map(|(name, _)| ((*name).to_owned(), text.to_owned())).collect()));
    }
    let failed = |text: String| Refusal::failed(format!("ACL update failed: {text}\n"));
    let propagate = call.params.text("propagate") != Some("0");
    let mut state = call.world.state();
    for role in call.params.list("roles") {
        if !state.access.roles.contains_key(&role) {
            return Err(failed(format!("role '{role}' does not exist")));
        }
        for (name, kind) in lists {
            for ugid in call.params.list(name) {
                let exists = match kind {
                    "user" => state.access.users.contains_key(&ugid),
                    "group" => state.access.groups.contains_key(&ugid),
                    _ => ugid.split_once('!').is_some_and(|(user, token)| {
                        state.access.users.get(user).is_some_and(|user| user.tokens.contains_key(token))
                    }),
                };
                if !exists {
                    return Err(failed(match kind {
                        "token" => match ugid.split_once('!') {
                            Some((user, token)) => format!("no such token '{token}' for user '{user}'"),
                            None => format!("no such token '{ugid}'"),
                        },
                        _ => format!("{kind} '{ugid}' does not exist"),
                    }));
                }
                state
                    .access
                    .acl
                    .retain(|acl| !(acl.path == path && acl.kind == kind && acl.ugid == ugid && acl.roleid == role));
                if !call.params.is_on("delete") {
                    state.access.acl.push(Acl {
                        path: path.to_owned(),
                        kind: kind.to_owned(),
                        ugid,
                        roleid: role.clone(),
                        propagate,
                    });
                }
            }
        }
    }
    Ok(().into())
}

fn realm_of(user: &str) -> &str {
    user.rsplit_once('@').map_or("", |(_, realm)| realm)
}

/// `GET /access/users`
pub(in crate::pve) fn users(call: &Call) -> Result {
    let state = call.world.state();
    let all = state.may_any(&call.caller, "/access/groups", &["User.Modify", "Sys.Audit"]);
    let list: Vec<Value> = state
        .access
        .users
        .iter()
        .filter(|(id, _)| all || **id == call.caller.identity)
        .map(|(id, user)| {
            let mut entry = json!({
                "userid": id, "enable": u8::from(user.enable), "expire": user.expire,
                "realm-type": state.access.realms.get(realm_of(id)).and_then(|realm| realm.get("type")),
            });
            for (key, value) in &user.details {
                entry[key] = json!(value);
            }
            if call.params.is_on("full") {
                entry["groups"] = json!(user.groups.iter().cloned().collect::<Vec<_>>().join(","));
                entry["tokens"] =
                    Value::Array(user.tokens.iter().map(|(name, token)| token_entry(Some(name), token)).collect());
            }
            entry
        })
        .collect();
    Ok(list.into())
}

fn no_user(user: &str) -> Refusal {
    Refusal::failed(format!("no such user ('{user}')\n"))
}

/// `GET /access/users/{userid}`
pub(in crate::pve) fn user(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("userid");
    let user = state.access.users.get(id).ok_or_else(|| no_user(id))?;
    let tokens: Map<String, Value> =
        user.tokens.iter().map(|(name, token)| (name.clone(), token_entry(None, token))).collect();
    let mut entry = json!({
        "enable": u8::from(user.enable), "expire": user.expire, "email": "", "groups": user.groups,
        "tokens": if tokens.is_empty() { Value::Null } else { Value::Object(tokens) },
    });
    for (key, value) in &user.details {
        entry[key] = json!(value);
    }
    Ok(entry.into())
}

const DETAILS: [&str; 5] = ["comment", "email", "firstname", "lastname", "keys"];

/// `POST /access/users`
pub(in crate::pve) fn create_user(call: &Call) -> Result {
    let id = call.text("userid").to_owned();
    let mut state = call.world.state();
    if state.access.users.contains_key(&id) {
        return Err(Refusal::failed(format!("create user failed: user '{id}' already exists\n")));
    }
    let mut user = User { enable: true, ..User::default() };
    set_user(call, &mut user);
    user.password = call.params.owned("password");
    state.access.users.insert(id, user);
    Ok(().into())
}

fn set_user(call: &Call, user: &mut User) {
    if let Some(enable) = call.params.text("enable") {
        user.enable = enable == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        user.expire = expire;
    }
    for key in DETAILS {
        if let Some(value) = call.params.text(key) {
            user.details.insert(key.to_owned(), value.to_owned());
        }
    }
    if call.params.text("groups").is_some() {
        let groups = call.params.list("groups");
        if !call.params.is_on("append") {
            user.groups.clear();
        }
        user.groups.extend(groups);
    }
}

/// `PUT /access/users/{userid}`
pub(in crate::pve) fn update_user(call: &Call) -> Result {
    let id = call.text("userid");
    let mut state = call.world.state();
    let user = state.access.users.get_mut(id).ok_or_else(|| no_user(id))?;
    set_user(call, user);
    Ok(().into())
}

/// `DELETE /access/users/{userid}`
pub(in crate::pve) fn delete_user(call: &Call) -> Result {
    let id = call.text("userid");
    let mut state = call.world.state();
    state.access.users.remove(id);
    let tokens = format!("{id}!");
    state.access.acl.retain(|acl| acl.ugid != id && !acl.ugid.starts_with(&tokens));
    Ok(().into())
}

fn token_entry(name: Option<&String>, token: &Token) -> Value {
    let mut entry = json!({"privsep": u8::from(token.privsep), "expire": token.expire});
    if let Some(name) = name {
        entry["tokenid"] = json!(name);
    }
    if let Some(comment) = &token.comment {
        entry["comment"] = json!(comment);
    }
    entry
}

fn no_token(call: &Call) -> Refusal {
    Refusal::failed(format!("no such token '{}' for user '{}'\n", call.text("tokenid"), call.text("userid")))
}

/// `GET /access/users/{userid}/token`
pub(in crate::pve) fn tokens(call: &Call) -> Result {
    let state = call.world.state();
    let tokens = state.access.users.get(call.text("userid")).map(|user| &user.tokens);
    let list = tokens.into_iter().flatten().map(|(name, token)| token_entry(Some(name), token));
    Ok(list.collect::<Vec<_>>().into())
}

/// `GET /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn token(call: &Call) -> Result {
    let state = call.world.state();
    let token = state.access.users.get(call.text("userid")).and_then(|user| user.tokens.get(call.text("tokenid")));
    token.map(|token| token_entry(None, token).into()).ok_or_else(|| no_token(call))
}

/// `POST /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn create_token(call: &Call) -> Result {
    let (user_id, name) = (call.text("userid").to_owned(), call.text("tokenid").to_owned());
    let mut state = call.world.state();
    let secret = state.rng.uuid();
    let user = state.access.users.get_mut(&user_id).ok_or_else(|| no_user(&user_id))?;
    if user.tokens.contains_key(&name) {
        return Err(Refusal::param("tokenid", "Token already exists."));
    }
    let token = Token {
        privsep: call.params.text("privsep") != Some("0"),
        expire: call.params.number("expire").unwrap_or(0),
        comment: call.params.owned("comment"),
        secret: secret.clone(),
    };
    let mut info = json!({"privsep": call.params.text("privsep").map_or(json!(1), |text| json!(text))});
    for key in ["comment", "expire"] {
        if let Some(value) = call.params.text(key) {
            info[key] = json!(value);
        }
    }
    user.tokens.insert(name.clone(), token);
    Ok(json!({"full-tokenid": format!("{user_id}!{name}"), "value": secret, "info": info}).into())
}

/// `PUT /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn update_token(call: &Call) -> Result {
    let mut state = call.world.state();
    let token = state
        .access
        .users
        .get_mut(call.text("userid"))
        .and_then(|user| user.tokens.get_mut(call.text("tokenid")))
        .ok_or_else(|| no_token(call))?;
    if let Some(privsep) = call.params.text("privsep") {
        token.privsep = privsep == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        token.expire = expire;
    }
    if let Some(comment) = call.params.owned("comment") {
        token.comment = Some(comment);
    }
    let mut entry = token_entry(None, token);
    // What was just set comes back as it was sent: a text.
    for key in ["privsep", "expire"] {
        if let Some(value) = call.params.text(key) {
            entry[key] = json!(value);
        }
    }
    Ok(entry.into())
}

/// `DELETE /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn delete_token(call: &Call) -> Result {
    let mut state = call.world.state();
    let removed =
        state.access.users.get_mut(call.text("userid")).and_then(|user| user.tokens.remove(call.text("tokenid")));
    if removed.is_none() {
        return Err(no_token(call));
    }
    let id = format!("{}!{}", call.text("userid"), call.text("tokenid"));
    state.access.acl.retain(|acl| acl.ugid != id);
    Ok(().into())
}

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
    if state.access.roles.contains_key(&id) {
        return Err(Refusal::failed(format!("create role failed: role '{id}' already exists\n")));
    }
    state.access.roles.insert(id, Role { special: false, privs });
    Ok(().into())
}

/// `PUT /access/roles/{roleid}`
pub(in crate::pve) fn update_role(call: &Call) -> Result {
    let id = call.text("roleid").to_owned();
    let mut state = call.world.state();
    let privs = known_privileges(call, &state)?;
    let Some(role) = state.access.roles.get_mut(&id) else {
        return Err(Refusal::failed(format!("update role failed: role '{id}' does not exist\n")));
    };
    if role.special {
        return Err(Refusal::failed(format!("update role failed: auto-generated role '{id}' cannot be modified\n")));
    }
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
    match state.access.roles.get(id) {
        None => Err(Refusal::failed(format!("delete role failed: role '{id}' does not exist\n"))),
        Some(role) if role.special => {
            Err(Refusal::failed(format!("delete role failed: auto-generated role '{id}' cannot be deleted\n")))
        }
        Some(_) => {
            state.access.roles.remove(id);
            state.access.acl.retain(|acl| acl.roleid != id);
            Ok(().into())
        }
    }
}
