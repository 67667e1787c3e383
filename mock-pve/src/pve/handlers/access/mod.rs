//! `/access/…`: who may log in, and what he may do then.
//!
//! One file per part of the path; the rules follow Proxmox VE 8.4, PVE/API2/AccessControl.pm and its neighbours.

mod acl;
mod factors;
mod groups;
mod realms;
mod roles;
mod ticket;
mod tokens;
mod users;

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};

pub(in crate::pve) use self::acl::{acl, permissions, update_acl};
pub(in crate::pve) use self::factors::{
    add_factor, delete_factor, factor, factor_types, factors, factors_of, unlock_factors, update_factor,
};
pub(in crate::pve) use self::groups::{create_group, delete_group, group, groups, update_group};
pub(in crate::pve) use self::realms::{
    create_domain, delete_domain, domain, domains, openid_login, openid_url, sync_domain, update_domain,
};
pub(in crate::pve) use self::roles::{create_role, delete_role, role, roles, update_role};
pub(in crate::pve) use self::ticket::{password, ticket, ticket_page, vnc_ticket};
pub(in crate::pve) use self::tokens::{create_token, delete_token, token, tokens, update_token};
pub(in crate::pve) use self::users::{create_user, delete_user, update_user, user, users};

/// `GET /access`
pub(in crate::pve) fn index(_: &Call) -> Result {
    let names = ["users", "groups", "roles", "acl", "domains", "openid", "tfa", "ticket", "password"];
    Ok(names.iter().map(|name| json!({"subdir": name})).collect::<Vec<Value>>().into())
}

/// `GET /access/openid`
pub(in crate::pve) fn openid(_: &Call) -> Result {
    Ok(["login", "auth-url"].iter().map(|name| json!({"subdir": name})).collect::<Vec<Value>>().into())
}

/// The realm of a user.
fn realm_of(user: &str) -> &str {
    user.rsplit_once('@').map_or("", |(_, realm)| realm)
}

fn no_user(user: &str) -> Refusal {
    Refusal::failed(format!("no such user ('{user}')\n"))
}

fn no_token(user: &str, token: &str) -> Refusal {
    Refusal::failed(format!("no such token '{token}' for user '{user}'\n"))
}

/// Refuses an unknown user, or an unknown token of a known one.
fn check_token(state: &State, user: &str, token: &str) -> Rule<()> {
    let known = state.access.users.get(user).ok_or_else(|| no_user(user))?;
    if known.tokens.contains_key(token) { Ok(()) } else { Err(no_token(user, token)) }
}
