//! What an identity may do, pools taken into account.
//!
//! Purpose: the checks that the original makes in code (Proxmox VE 8.4, PVE/RPCEnvironment.pm). Must not know: how the
//! identity was established. Start at [`State::check`].

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
        if normal_path(path).is_empty() && identity != "root@pam" {
            return Privileges::new();
        }
        let mut privileges = self.access.privileges_on(identity, path);
        let pool = self.pools.iter().find(|(_, pool)| match path.rsplit_once('/') {
            Some(("/vms", vmid)) => vmid.parse().is_ok_and(|vmid| pool.vms.contains(&vmid)),
            Some(("/storage", storage)) => pool.storages.contains(storage),
            _ => false,
        });
        if let Some((pool, _)) = pool {
            for (privilege, _) in self.access.privileges_on(identity, &format!("/pool/{pool}")) {
                privileges.entry(privilege).or_insert(false);
            }
        }
        privileges
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

/// The path as the original prints it: nothing, where it isn't one.
pub fn normal_path(path: &str) -> &str {
    let fine = |c: char| c.is_ascii_alphanumeric() || "/._@-".contains(c);
    if path.starts_with('/') && path.chars().all(fine) { path } else { "" }
}
