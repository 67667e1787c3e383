//! Users, tokens, roles and rights.
//!
//! Purpose: who may do what where, with propagation, groups, pools and privilege separation as the original computes
//! them (Proxmox VE 8.4, PVE/AccessControl.pm and PVE/RPCEnvironment.pm). Must not know: tickets, headers. Start at
//! [`Access::roles_on`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// All of user.cfg.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Access {
    /// Realms by id, with their options.
    pub realms: BTreeMap<String, Map<String, Value>>,
    /// Users by id.
    pub users: BTreeMap<String, User>,
    /// Groups by id: the comment.
    pub groups: BTreeMap<String, Option<String>>,
    /// Roles by id, those of the version included.
    pub roles: BTreeMap<String, Role>,
    /// ACL entries.
    pub acl: Vec<Acl>,
}

/// A user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct User {
    /// May log in.
    pub enable: bool,
    /// Unix time, 0 never.
    pub expire: u64,
    /// Free text and names, by key.
    pub details: BTreeMap<String, String>,
    /// The password, where it has one.
    pub password: Option<String>,
    /// Groups.
    pub groups: BTreeSet<String>,
    /// Tokens by id.
    pub tokens: BTreeMap<String, Token>,
}

impl User {
    /// Whether that is the password; nobody has an empty one.
    pub fn has_password(&self, password: &str) -> bool {
        !password.is_empty() && self.password.as_deref() == Some(password)
    }
}

/// An API token.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Token {
    /// Only has rights given to itself.
    pub privsep: bool,
    /// Unix time, 0 never.
    pub expire: u64,
    /// Free text.
    pub comment: Option<String>,
    /// Its secret.
    pub secret: String,
}

/// A role.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Role {
    /// Comes with the version.
    pub special: bool,
    /// What it gives.
    pub privs: BTreeSet<String>,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acl {
    /// Where.
    pub path: String,
    /// `user`, `group`, `token`.
    pub kind: String,
    /// Whom.
    pub ugid: String,
    /// What.
    pub roleid: String,
    /// Below too.
    pub propagate: bool,
}

/// Privilege → whether it propagates.
pub type Privileges = BTreeMap<String, bool>;

impl Access {
    /// The roles of a user or token on a path: role → propagates. The nearest path wins; on one path an entry for the
    /// user beats entries for his groups, and `NoAccess` beats all others.
    pub fn roles_on(&self, ugid: &str, kind: &str, path: &str) -> BTreeMap<String, bool> {
        let groups = self.users.get(ugid).map(|user| &user.groups);
        let mut roles: BTreeMap<String, bool> = BTreeMap::new();
        for level in levels(path) {
            let last = level == path;
            let pick = |kind: &str, matches: &dyn Fn(&str) -> bool| -> BTreeMap<String, bool> {
                self.acl
                    .iter()
                    .filter(|acl| acl.kind == kind && acl.path == level && matches(&acl.ugid))
                    .filter(|acl| last || acl.propagate)
                    .map(|acl| (acl.roleid.clone(), acl.propagate))
                    .collect()
            };
            let mut here = pick(kind, &|id| id == ugid);
            if here.is_empty() && kind == "user" {
                here = pick("group", &|id| groups.is_some_and(|groups| groups.contains(id)));
            }
            if let Some(propagate) = here.get("NoAccess") {
                roles = BTreeMap::from([("NoAccess".to_owned(), *propagate)]);
            } else if !here.is_empty() {
                roles = here;
            }
        }
        roles
    }

    /// What some roles give: a privilege propagates when any role that has it does.
    pub fn privileges_of(&self, roles: &BTreeMap<String, bool>) -> Privileges {
        let mut all = Privileges::new();
        for (role, propagate) in roles {
            for privilege in self.roles.get(role).into_iter().flat_map(|role| &role.privs) {
                *all.entry(privilege.clone()).or_insert(false) |= propagate;
            }
        }
        all
    }

    /// Every path that has an entry, and all above it.
    pub fn acl_paths(&self) -> BTreeSet<String> {
        self.acl.iter().flat_map(|acl| levels(&acl.path)).map(str::to_owned).collect()
    }

    /// Every privilege that exists.
    pub fn all_privileges(&self) -> BTreeSet<String> {
        self.roles.get("Administrator").map(|role| role.privs.clone()).unwrap_or_default()
    }
}

/// `/`, `/a`, `/a/b` of `/a/b`.
fn levels(path: &str) -> Vec<&str> {
    let mut levels = vec!["/"];
    if path != "/" {
        levels.extend(path.match_indices('/').skip(1).map(|(at, _)| &path[..at]));
        levels.push(path);
    }
    levels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(path: &str, kind: &str, ugid: &str, roleid: &str, propagate: bool) -> Acl {
        Acl { path: path.into(), kind: kind.into(), ugid: ugid.into(), roleid: roleid.into(), propagate }
    }

    #[test]
    fn the_nearest_path_wins() {
        let role = |privs: &[&str]| Role { special: true, privs: privs.iter().map(|p| (*p).to_owned()).collect() };
        let access = Access {
            users: BTreeMap::from([(
                "a@pve".to_owned(),
                User {
                    tokens: BTreeMap::from([("t".to_owned(), Token { privsep: true, ..Token::default() })]),
                    ..User::default()
                },
            )]),
            roles: BTreeMap::from([
                ("R".to_owned(), role(&["VM.Audit", "VM.Clone"])),
                ("S".to_owned(), role(&["VM.Audit"])),
                ("NoAccess".to_owned(), role(&[])),
            ]),
            acl: vec![
                acl("/", "user", "a@pve", "R", true),
                acl("/vms/9", "user", "a@pve", "NoAccess", true),
                acl("/vms", "token", "a@pve!t", "S", false),
            ],
            ..Access::default()
        };
        let on = |ugid: &str, kind: &str, path: &str| access.privileges_of(&access.roles_on(ugid, kind, path));
        assert!(on("a@pve", "user", "/vms/8").contains_key("VM.Clone"));
        assert!(on("a@pve", "user", "/vms/9").is_empty());
        assert_eq!(on("a@pve!t", "token", "/vms").keys().collect::<Vec<_>>(), ["VM.Audit"]);
        assert!(on("a@pve!t", "token", "/vms/8").is_empty(), "the entry does not propagate");
        assert_eq!(access.acl_paths().into_iter().collect::<Vec<_>>(), ["/", "/vms", "/vms/9"]);
    }
}
