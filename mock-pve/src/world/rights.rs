//! What an identity may do, pools taken into account.
//!
//! Purpose: the checks that the original makes in code (Proxmox VE 8.4, PVE/RPCEnvironment.pm). Must not know: how the
//! identity was established. Start at [`State::check`].

use std::collections::BTreeMap;

use super::access::Privileges;
use super::refusal::{Refusal, Rule};
use super::state::State;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// `user@realm` or `user@realm!token`.
    pub identity: String,
}

impl Caller {
    /// The login that may do everything: what runs on a node itself is root's.
    pub fn root() -> Self {
        Self { identity: "root@pam".to_owned() }
    }

    /// Only the login itself; a token of root isn't root.
    pub fn is_root(&self) -> bool {
        self.identity == "root@pam"
    }

    /// The user without the token.
    pub fn user(&self) -> &str {
        self.identity.split('!').next().unwrap_or_default()
    }
}

impl State {
    /// All privileges of an identity on a path.
    pub fn privileges(&self, identity: &str, path: &str) -> Privileges {
        let all = || -> Privileges { self.access.all_privileges().into_iter().map(|name| (name, true)).collect() };
        if identity == "root@pam" {
            return all();
        }
        if normal_path(path).is_empty() {
            return Privileges::new();
        }
        let Some((user, token)) = identity.split_once('!') else {
            return self.access.privileges_of(&self.roles(identity, "user", path));
        };
        let Some(token) = self.access.users.get(user).and_then(|user| user.tokens.get(token)) else {
            return Privileges::new();
        };
        let owner = if user == "root@pam" { all() } else { self.access.privileges_of(&self.roles(user, "user", path)) };
        if !token.privsep {
            return owner;
        }
        let own = self.access.privileges_of(&self.roles(identity, "token", path));
        own.into_iter()
            .filter_map(|(name, propagate)| owner.get(&name).map(|also| (name, propagate && *also)))
            .collect()
    }

    /// The roles of a user or token on a path, those of the pool that holds it included.
    fn roles(&self, ugid: &str, kind: &str, path: &str) -> BTreeMap<String, bool> {
        let mut roles = self.access.roles_on(ugid, kind, path);
        let pool = self.pools.iter().find(|(_, pool)| match path.rsplit_once('/') {
            Some(("/vms", vmid)) => vmid.parse().is_ok_and(|vmid| pool.vms.contains(&vmid)),
            Some(("/storage", storage)) => pool.storages.contains(storage),
            _ => false,
        });
        let Some((pool, _)) = pool else { return roles };
        if roles.contains_key("NoAccess") {
            return roles;
        }
        let by_pool = self.access.roles_on(ugid, kind, &format!("/pool/{pool}"));
        if by_pool.contains_key("NoAccess") {
            return BTreeMap::from([("NoAccess".to_owned(), false)]);
        }
        for role in by_pool.into_keys() {
            roles.entry(role).or_insert(false);
        }
        roles
    }

    /// Whether all of these privileges are held on a path.
    pub fn may(&self, caller: &Caller, path: &str, privileges: &[&str]) -> bool {
        let held = self.privileges(&caller.identity, path);
        privileges.iter().all(|name| held.contains_key(*name))
    }

    /// Whether any of these privileges is held on a path.
    pub fn may_any(&self, caller: &Caller, path: &str, privileges: &[&str]) -> bool {
        let held = self.privileges(&caller.identity, path);
        privileges.iter().any(|name| held.contains_key(*name))
    }

    /// Refuses unless all privileges are held.
    pub fn check(&self, caller: &Caller, path: &str, privileges: &[&str]) -> Rule<()> {
        let held = self.privileges(&caller.identity, path);
        match privileges.iter().find(|name| !held.contains_key(**name)) {
            Some(missing) => Err(Refusal::forbidden(format!("{}, {missing}", normal_path(path)))),
            None => Ok(()),
        }
    }

    /// Refuses unless any privilege is held.
    pub fn check_any(&self, caller: &Caller, path: &str, privileges: &[&str]) -> Rule<()> {
        if self.may_any(caller, path, privileges) {
            return Ok(());
        }
        Err(Refusal::forbidden(format!("{}, {}", normal_path(path), privileges.join("|"))))
    }

    /// Refuses unless `SDN.Use` is held on a bridge.
    pub fn check_bridge(&self, caller: &Caller, bridge: Option<&str>, tag: Option<&str>) -> Rule<()> {
        if caller.is_root() {
            return Ok(());
        }
        let Some(bridge) = bridge else { return Err(Refusal::failed("no sdn vnet ID specified\n")) };
        let path = format!("/sdn/zones/localnetwork/{bridge}");
        match tag {
            Some(tag) => self.check(caller, &format!("{path}/{tag}"), &["SDN.Use"]),
            None => self.check(caller, &path, &["SDN.Use"]),
        }
    }
}

/// A path with one slash between its parts and none at its end; `None`: it can't be one.
pub fn normalized(path: &str) -> Option<String> {
    if path.is_empty() || path == "0" {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let path = format!("/{}", parts.join("/"));
    let fine = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.chars().all(fine).then_some(path)
}

/// The path as the original prints it: nothing, where it isn't one.
pub fn normal_path(path: &str) -> &str {
    let fine = |c: char| c.is_ascii_alphanumeric() || "/._@-".contains(c);
    if path.starts_with('/') && path.chars().all(fine) { path } else { "" }
}
