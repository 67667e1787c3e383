//! `/access/users/{userid}/token`.

use serde_json::{Value, json};

use super::{check_token, no_user};
use crate::pve::call::{Call, Result};
use crate::world::access::Token;
use crate::world::refusal::Refusal;

/// What is shown of a token: never its secret.
pub(super) fn entry(name: Option<&String>, token: &Token) -> Value {
    let mut entry = json!({"privsep": u8::from(token.privsep), "expire": token.expire});
    if let Some(name) = name {
        entry["tokenid"] = json!(name);
    }
    if let Some(comment) = &token.comment {
        entry["comment"] = json!(comment);
    }
    entry
}

/// `GET /access/users/{userid}/token`
pub(in crate::pve) fn tokens(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("userid");
    let user = state.access.users.get(id).ok_or_else(|| no_user(id))?;
    Ok(user.tokens.iter().map(|(name, token)| entry(Some(name), token)).collect::<Vec<_>>().into())
}

/// `GET /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn token(call: &Call) -> Result {
    let state = call.world.state();
    check_token(&state, call.text("userid"), call.text("tokenid"))?;
    let token = state.access.users.get(call.text("userid")).and_then(|user| user.tokens.get(call.text("tokenid")));
    Ok(token.map_or(Value::Null, |token| entry(None, token)).into())
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
        comment: call.kept("comment"),
        secret: secret.clone(),
    };
    let mut info = json!({"privsep": call.params.text("privsep").map_or(json!(1), |text| json!(text))});
    if let Some(expire) = call.params.text("expire") {
        info["expire"] = json!(expire);
    }
    if let Some(comment) = call.params.text("comment").filter(|text| !text.is_empty()) {
        info["comment"] = json!(comment);
    }
    user.tokens.insert(name.clone(), token);
    Ok(json!({"full-tokenid": format!("{user_id}!{name}"), "value": secret, "info": info}).into())
}

/// `PUT /access/users/{userid}/token/{tokenid}`
pub(in crate::pve) fn update_token(call: &Call) -> Result {
    let mut state = call.world.state();
    check_token(&state, call.text("userid"), call.text("tokenid"))?;
    let delete = call.params.list("delete");
    if let Some(key) = delete.iter().find(|key| *key != "comment") {
        return Err(Refusal::param("delete", format!("unknown option '{key}'")));
    }
    let user = state.access.users.get_mut(call.text("userid"));
    let Some(token) = user.and_then(|user| user.tokens.get_mut(call.text("tokenid"))) else { return Ok(().into()) };
    if let Some(privsep) = call.params.text("privsep") {
        token.privsep = privsep == "1";
    }
    if let Some(expire) = call.params.number("expire") {
        token.expire = expire;
    }
    if call.params.text("comment").is_some_and(|text| !text.is_empty()) {
        token.comment = call.kept("comment");
    }
    if !delete.is_empty() {
        token.comment = None;
    }
    let mut entry = entry(None, token);
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
    let (user, name) = (call.text("userid"), call.text("tokenid"));
    let mut state = call.world.state();
    check_token(&state, user, name)?;
    if let Some(user) = state.access.users.get_mut(user) {
        user.tokens.remove(name);
    }
    let id = format!("{user}!{name}");
    state.access.acl.retain(|acl| acl.ugid != id);
    Ok(().into())
}
