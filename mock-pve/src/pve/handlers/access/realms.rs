//! `/access/domains`.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::config::digest_of;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

/// What a realm must have, by type.
fn required(kind: &str) -> &'static [&'static str] {
    match kind {
        "ldap" => &["base_dn", "server1", "user_attr"],
        "ad" => &["domain", "server1"],
        "openid" => &["client-id", "issuer-url"],
        _ => &[],
    }
}

/// Whether a realm of a type can have an option.
fn allowed(kind: &str, key: &str) -> bool {
    const DIRECTORY: &[&str] = &[
        "server1",
        "server2",
        "base_dn",
        "bind_dn",
        "password",
        "user_attr",
        "port",
        "secure",
        "sslversion",
        "tfa",
        "verify",
        "capath",
        "cert",
        "certkey",
        "filter",
        "sync_attributes",
        "user_classes",
        "group_dn",
        "group_name_attr",
        "group_filter",
        "group_classes",
        "sync-defaults-options",
        "mode",
        "case-sensitive",
    ];
    const OPENID: &[&str] = &[
        "issuer-url",
        "client-id",
        "client-key",
        "autocreate",
        "username-claim",
        "groups-claim",
        "groups-autocreate",
        "groups-overwrite",
        "prompt",
        "scopes",
        "acr-values",
        "query-userinfo",
    ];
    matches!(key, "default" | "comment" | "type")
        || match kind {
            "ldap" => DIRECTORY.contains(&key),
            "ad" => DIRECTORY.contains(&key) || key == "domain",
            "openid" => OPENID.contains(&key),
            _ => key == "tfa",
        }
}

/// Parameters that aren't options.
const CONTROL: &[&str] = &["realm", "type", "delete", "digest", "check-connection", "password"];

fn digest(state: &State) -> String {
    digest_of(&serde_json::to_string(&state.access.realms).unwrap_or_default())
}

/// `GET /access/domains`
pub(in crate::pve) fn domains(call: &Call) -> Result {
    let state = call.world.state();
    let list: Vec<Value> = state
        .access
        .realms
        .iter()
        .map(|(realm, options)| {
            let mut entry = json!({"realm": realm, "type": options.get("type")});
            for key in ["comment", "default"] {
                if let Some(value) = options.get(key).filter(|value| **value != json!(0) && **value != json!("")) {
                    entry[key] = value.clone();
                }
            }
            entry
        })
        .collect();
    Ok(list.into())
}

/// `GET /access/domains/{realm}`
pub(in crate::pve) fn domain(call: &Call) -> Result {
    let realm = call.text("realm");
    let state = call.world.state();
    let found = state.access.realms.get(realm);
    let mut shown = found.cloned().ok_or_else(|| Refusal::failed(format!("domain '{realm}' does not exist\n")))?;
    shown.insert("digest".to_owned(), json!(digest(&state)));
    Ok(shown.into())
}

fn options(call: &Call, kind: &str) -> Rule<Object> {
    let mut options = Object::new();
    for key in call.params.0.keys().filter(|key| !CONTROL.contains(&key.as_str())) {
        if !allowed(kind, key) {
            return Err(Refusal::failed(format!("unexpected property '{key}'\n")));
        }
        options.insert(key.clone(), call.read_back(key));
    }
    Ok(options)
}

fn set(state: &mut State, realm: &str, options: Object) {
    if options.get("default") == Some(&json!(1)) {
        for other in state.access.realms.values_mut() {
            other.remove("default");
        }
    }
    let kept = state.access.realms.entry(realm.to_owned()).or_default();
    kept.extend(options);
    // A line without a value is none.
    kept.retain(|_, value| *value != "");
}

fn prefixed(prefix: &'static str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| match refusal {
        Refusal::Failed(text) => Refusal::failed(format!("{prefix}: {text}")),
        other => other,
    }
}

fn check_connection(call: &Call, kind: &str) -> Rule<()> {
    if call.params.text("check-connection").is_some() && kind != "ldap" && kind != "ad" {
        let text = "'check-connection' parameter can only be set for realms of type 'ldap' or 'ad'\n";
        return Err(Refusal::failed(text));
    }
    Ok(())
}

/// `POST /access/domains`
pub(in crate::pve) fn create_domain(call: &Call) -> Result {
    let (realm, kind) = (call.text("realm"), call.text("type"));
    let mut state = call.world.state();
    let new = || -> Rule<Object> {
        let refuse = |text: String| Err(Refusal::failed(text));
        if state.access.realms.contains_key(realm) {
            return refuse(format!("domain '{realm}' already exists\n"));
        }
        if matches!(realm, "pam" | "pve") {
            return refuse(format!("unable to use reserved name '{realm}'\n"));
        }
        if matches!(kind, "pam" | "pve") {
            return refuse(format!("unable to create builtin type '{kind}'\n"));
        }
        check_connection(call, kind)?;
        let mut new = options(call, kind)?;
        if let Some(missing) = required(kind).iter().find(|key| !new.contains_key(**key)) {
            return refuse(format!("missing value for required option '{missing}'\n"));
        }
        new.insert("type".to_owned(), json!(kind));
        Ok(new)
    };
    let new = new().map_err(prefixed("add auth server failed"))?;
    set(&mut state, realm, new);
    Ok(().into())
}

/// `PUT /access/domains/{realm}`
pub(in crate::pve) fn update_domain(call: &Call) -> Result {
    let realm = call.text("realm");
    let mut state = call.world.state();
    let failed = prefixed("update auth server failed");
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest(&state)) {
        let text = "detected modified configuration - file changed by other user? Try again.\n";
        return Err(failed(Refusal::failed(text)));
    }
    let Some(known) = state.access.realms.get(realm) else {
        return Err(failed(Refusal::failed(format!("domain '{realm}' does not exist\n"))));
    };
    let kind = known.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    check_connection(call, &kind).map_err(&failed)?;
    let delete = call.params.list("delete");
    let changes = options(call, &kind);
    if delete.is_empty()
        && call.params.text("password").is_none()
        && call.params.0.keys().all(|key| CONTROL.contains(&key.as_str()))
    {
        return Err(failed(Refusal::failed("no options specified\n")));
    }
    let changes = changes.map_err(failed)?;
    if let Some(known) = state.access.realms.get_mut(realm) {
        for key in &delete {
            known.remove(key);
        }
    }
    set(&mut state, realm, changes);
    Ok(().into())
}

/// `DELETE /access/domains/{realm}`
pub(in crate::pve) fn delete_domain(call: &Call) -> Result {
    let realm = call.text("realm");
    let mut state = call.world.state();
    let removed = state.access.realms.remove(realm);
    let removed = removed.ok_or_else(|| {
        Refusal::failed(format!("delete auth server failed: authentication domain '{realm}' does not exist\n"))
    })?;
    if matches!(realm, "pam" | "pve") {
        // The two that are built in come back by themselves, without what was said of them.
        let kind = removed.get("type").cloned().unwrap_or(Value::Null);
        let comment =
            if realm == "pam" { "Linux PAM standard authentication" } else { "Proxmox VE authentication server" };
        let fresh = json!({"type": kind, "comment": comment}).as_object().cloned().unwrap_or_default();
        state.access.realms.insert(realm.to_owned(), fresh);
    }
    Ok(().into())
}

/// `POST /access/domains/{realm}/sync`: the directory is asked by a task, and can't be reached from here.
pub(in crate::pve) fn sync_domain(call: &Call) -> Result {
    let realm = call.text("realm").to_owned();
    let state = call.world.state();
    let known = state.access.realms.get(&realm).cloned();
    drop(state);
    let known = known.ok_or_else(|| Refusal::param("realm", "Realm does not exist."))?;
    let text = |key: &str| known.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = text("type");
    if kind != "ldap" && kind != "ad" {
        let text = format!("Cannot sync realm type '{kind}'! Only LDAP/AD realms can be synced.\n");
        return Err(Refusal::failed(text));
    }
    let usual = Properties::parse(text("sync-defaults-options"), "");
    if call.params.text("scope").is_none() && usual.get("scope").is_none() {
        let text = "Not passed as parameter and not defined in realm default sync options.";
        return Err(Refusal::param("scope", text));
    }
    let dry = call.params.is_on("dry-run");
    let kind = if dry { "auth-realm-sync-test" } else { "auth-realm-sync" };
    let server = text("server1").to_owned();
    let id = realm.clone();
    let upid = call.world.start_task(&call.caller, &call.local, kind, &id, |work| async move {
        let test = if dry { "(dry test run) " } else { "" };
        work.log(format!("{test}starting sync for realm {realm}"));
        Err(Refusal::failed(format!("unable to connect to any LDAP server: {server}: Connection refused\n")))
    });
    Ok(upid.into())
}

/// `POST /access/openid/auth-url`: whoever issues identities can't be reached from here.
pub(in crate::pve) fn openid_url(call: &Call) -> Result {
    let realm = call.text("realm");
    let state = call.world.state();
    let known = state.access.realms.get(realm);
    let known = known.ok_or_else(|| Refusal::failed(format!("authentication domain '{realm}' does not exist\n")))?;
    let text = |key: &str| known.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("type") != "openid" {
        return Err(Refusal::failed(format!("wrong realm type ({} != openid)\n", text("type"))));
    }
    let issuer = text("issuer-url").trim_end_matches('/');
    let url = format!("{issuer}/.well-known/openid-configuration");
    Err(Refusal::failed(format!("Request failed: {url}: Connection Failed: Connect error: Connection refused\n")))
}

/// `POST /access/openid/login`: nobody was sent anywhere, so nobody comes back.
pub(in crate::pve) fn openid_login(_: &Call) -> Result {
    Err(Refusal::failed(super::super::WRONG_PASSWORD))
}
