//! `/access/ticket`, `/access/vncticket`, `/access/password`.

use serde_json::{Map, Value, json};

use super::super::WRONG_PASSWORD;
use super::factors::{answers, challenge};
use super::{no_user, realm_of};
use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::access::User;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::{Caller, normalized};

/// `GET /access/ticket`
pub(in crate::pve) fn ticket_page(_: &Call) -> Result {
    Ok(().into())
}

/// What the privileges of each part of the web interface begin with.
const GROUPS: &[(&str, &[&str])] = &[
    ("vms", &["VM.", "Permissions.Modify"]),
    ("access", &["User.", "Group.", "Permissions.Modify"]),
    ("storage", &["Datastore.", "Permissions.Modify"]),
    ("nodes", &["Sys.", "Permissions.Modify"]),
    ("sdn", &["SDN.", "Permissions.Modify"]),
    ("dc", &["Sys.Audit", "Sys.Modify", "SDN."]),
    ("mapping", &["Mapping.", "Permissions.Modify"]),
];

fn capabilities(state: &State, user: &str) -> Value {
    let mut cap: Map<String, Value> = GROUPS.iter().map(|(group, _)| ((*group).to_owned(), json!({}))).collect();
    let mut paths = state.access.acl_paths();
    for path in ["/", "/nodes", "/access/groups", "/vms", "/storage", "/sdn", "/mapping"] {
        paths.insert(path.to_owned());
    }
    for path in paths {
        let top = path.split('/').nth(1).filter(|top| !top.is_empty()).unwrap_or("dc");
        for privilege in state.privileges(user, &path).into_keys() {
            let parts: &[&str] = match top {
                "pool" if privilege.starts_with("VM.") => &["vms"],
                "pool" if privilege.starts_with("Datastore.") => &["storage"],
                "pool" if privilege == "Permissions.Modify" => &["storage", "vms"],
                "pool" => &[],
                other => match GROUPS.iter().find(|(group, _)| *group == other) {
                    Some((group, wanted)) if wanted.iter().any(|want| privilege.starts_with(want)) => {
                        std::slice::from_ref(group)
                    }
                    _ => &[],
                },
            };
            for part in parts {
                cap[*part][privilege.as_str()] = json!(1);
            }
        }
    }
    Value::Object(cap)
}

fn usable(user: &User, now: u64) -> bool {
    user.enable && (user.expire == 0 || user.expire >= now)
}

/// `POST /access/ticket`
pub(in crate::pve) fn ticket(call: &Call) -> Result {
    let mut user = call.text("username").to_owned();
    if let Some(realm) = call.params.text("realm").filter(|realm| !realm.is_empty()) {
        user = format!("{user}@{realm}");
    }
    let now = call.world.clock().unix();
    let password = call.text("password");
    let mut state = call.world.state();
    let wrong = || Refusal::failed(WRONG_PASSWORD);
    let known = state.access.users.get(&user).filter(|user| usable(user, now)).ok_or_else(wrong)?;
    if call.params.text("otp").is_some() && call.params.text("tfa-challenge").is_some() {
        return Err(wrong());
    }
    let by_ticket = call.auth.user_of(password, now);
    let caller = Caller { identity: user.clone() };
    let mut answer = json!({"username": user});
    if let (Some(path), Some(privs)) = (call.params.text("path"), call.params.text("privs")) {
        // Only asks whether somebody may do something.
        let known = by_ticket.as_deref() == Some(user.as_str()) || known.has_password(password);
        let wanted = call.params.list("privs");
        let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
        let may = normalized(path).is_some_and(|path| state.may(&caller, &path, &wanted));
        if !known || privs.is_empty() || wanted.is_empty() || !may {
            return Err(wrong());
        }
    } else {
        let by_ticket = by_ticket.is_some_and(|owner| owner == user || owner == "root@pam");
        if let Some(asked) = call.params.text("tfa-challenge") {
            let fresh = call.auth.may_answer(asked, &user, now);
            if !fresh || !answers(&mut state, &user, password, now) {
                return Err(wrong());
            }
        } else if !by_ticket {
            if !known.has_password(password) {
                return Err(wrong());
            }
            if let Some(asked) = challenge(&state, &user) {
                answer["ticket"] = json!(call.auth.question(&asked, &user, now));
                answer["CSRFPreventionToken"] = json!(call.auth.csrf(&user, now));
                answer["NeedTFA"] = json!(1);
                return Ok(answer.into());
            }
        }
        answer["ticket"] = json!(call.auth.ticket(&user, now));
        answer["CSRFPreventionToken"] = json!(call.auth.csrf(&user, now));
    }
    answer["cap"] = capabilities(&state, &user);
    if let Some(name) = &state.cluster_name
        && state.may(&caller, "/", &["Sys.Audit"])
    {
        answer["clustername"] = json!(name);
    }
    Ok(answer.into())
}

/// `POST /access/vncticket`
pub(in crate::pve) fn vnc_ticket(call: &Call) -> Result {
    let wrong = || Refusal::failed(WRONG_PASSWORD);
    let path = normalized(call.text("path")).ok_or_else(wrong)?;
    let caller = Caller { identity: call.text("authid").to_owned() };
    let port = call.params.text("port").map(|port| format!(":{port}")).unwrap_or_default();
    let who = format!("{}:{path}{port}", caller.identity);
    let privileges = call.params.list("privs");
    let wanted: Vec<&str> = privileges.iter().map(String::as_str).collect();
    let may = !wanted.is_empty() && call.world.state().may(&caller, &path, &wanted);
    if !may || !call.auth.may_view(call.text("vncticket"), &who, call.world.clock().unix()) {
        return Err(wrong());
    }
    Ok(().into())
}

/// The world's way of setting a password; `Err` is the text of the realm.
pub(super) fn store_password(state: &mut State, user: &str, password: &str) -> Rule<()> {
    let realm = realm_of(user);
    let kind = state.access.realms.get(realm).and_then(|realm| realm.get("type")).and_then(Value::as_str);
    match kind {
        None => return Err(Refusal::failed(format!("auth domain '{realm}' does not exist\n"))),
        Some("pve") => {}
        // Users of the system itself: there is only one.
        Some("pam") if user == "root@pam" => {}
        Some("pam") => return Err(Refusal::failed("change password failed: exit code 6\n")),
        Some(_) => {
            let text = "can't set password on auth type '".to_owned() + kind.unwrap_or_default() + "'\n";
            return Err(Refusal::failed(text));
        }
    }
    if let Some(known) = state.access.users.get_mut(user) {
        known.password = Some(password.to_owned());
    }
    Ok(())
}

/// `PUT /access/password`
pub(in crate::pve) fn password(call: &Call) -> Result {
    let user = call.text("userid").to_owned();
    let mut state = call.world.state();
    if !state.access.users.contains_key(&user) {
        return Err(no_user(&user));
    }
    if !call.caller.is_root() {
        if user == "root@pam" {
            return Err(Refusal::forbidden(""));
        }
        let Some(confirmation) = call.params.text("confirmation-password") else {
            return Err(Refusal::param("confirmation-password", "password is required to modify user"));
        };
        let own = state.access.users.get(&call.caller.identity);
        if !own.is_some_and(|own| own.has_password(confirmation)) {
            return Err(Refusal::failed("invalid credentials\n"));
        }
        if user != call.caller.identity && realm_of(&user) == "pam" {
            return Err(Refusal::forbidden(""));
        }
    }
    store_password(&mut state, &user, call.text("password"))?;
    Ok(().into())
}
