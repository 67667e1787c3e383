//! What an identity may do, pools taken into account.
//!
//! Purpose: the checks that the original makes in code (Proxmox VE 8.4, PVE/RPCEnvironment.pm). Must not know: how the
//! identity was established. Start at [`State::check`].

use std::collections::{BTreeMap, BTreeSet};

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

    /// Refuses unless `SDN.Use` is held on a bridge, or on each VLAN of it that is used.
    pub fn check_bridge(
        &self,
        caller: &Caller,
        bridge: Option<&str>,
        tag: Option<&str>,
        trunks: Option<&str>,
    ) -> Rule<()> {
        if caller.is_root() {
            return Ok(());
        }
        let Some(bridge) = bridge else { return Err(Refusal::failed("no sdn vnet ID specified\n")) };
        let vnet = self.sections.get("sdn/vnets").and_then(|vnets| vnets.get(bridge));
        let zone = vnet.and_then(|vnet| vnet.get("zone")?.as_str()).unwrap_or("localnetwork");
        let path = format!("/sdn/zones/{zone}/{bridge}");
        let on = |tag: &str| self.check(caller, &format!("{path}/{tag}"), &["SDN.Use"]);
        tag.into_iter().try_for_each(on)?;
        trunk_tags(trunks.unwrap_or_default()).iter().try_for_each(|tag| on(tag))?;
        if tag.is_none() && trunks.is_none() { self.check(caller, &path, &["SDN.Use"]) } else { Ok(()) }
    }

    /// Refuses a change of tags that takes more than the right to set options (PVE/GuestHelpers.pm).
    pub fn check_tags(&self, caller: &Caller, vmid: u32, old: &str, new: &str) -> Rule<()> {
        self.check(caller, &format!("/vms/{vmid}"), &["VM.Config.Options"])?;
        if caller.is_root() || self.may(caller, "/", &["Sys.Modify"]) {
            return Ok(());
        }
        let split = |text: &str| -> BTreeMap<String, u32> {
            let mut tags = BTreeMap::new();
            for tag in text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()) {
                *tags.entry(tag.to_owned()).or_default() += 1;
            }
            tags
        };
        let (old, new) = (split(old), split(new));
        let registered = Self::tag_list(self.options.get("registered-tags"));
        let (mode, _) = self.tag_access();
        let allowed = self.allowed_tags(caller);
        for tag in old.keys().chain(new.keys()).filter(|tag| old.get(*tag) != new.get(*tag)) {
            if (mode != "free" && !allowed.contains(tag)) || registered.contains(tag) {
                return Err(Refusal::forbidden(format!("/, Sys.Modify for modifying tag '{tag}'")));
            }
        }
        Ok(())
    }

    /// Who may use which tags, and those that everybody may.
    fn tag_access(&self) -> (String, Vec<String>) {
        let access = self.options.get("user-tag-access");
        let part = |key: &str| match access {
            Some(serde_json::Value::String(text)) => super::property::Properties::parse(text, "")
                .get(key)
                .map(|text| serde_json::Value::from(text.to_owned())),
            other => other.and_then(|access| access.get(key).cloned()),
        };
        let mode = part("user-allow").and_then(|mode| mode.as_str().map(str::to_owned)).unwrap_or("free".to_owned());
        (mode, Self::tag_list(part("user-allow-list").as_ref()))
    }

    /// The tags that exist for a caller (PVE/GuestHelpers.pm, `get_allowed_tags`).
    pub fn allowed_tags(&self, caller: &Caller) -> BTreeSet<String> {
        let privileged = caller.is_root() || self.may(caller, "/", &["Sys.Modify"]);
        let (mode, list) = self.tag_access();
        let registered = Self::tag_list(self.options.get("registered-tags"));
        let mut allowed = BTreeSet::new();
        if mode != "none" || privileged {
            allowed.extend(list);
        }
        if mode == "free" || mode == "existing" || privileged {
            let sees = |vmid: &u32| privileged || self.may(caller, &format!("/vms/{vmid}"), &["VM.Audit"]);
            let tags = self.vms.iter().filter(|(vmid, _)| sees(vmid)).filter_map(|(_, vm)| vm.config.get("tags"));
            let each = tags.flat_map(|tags| tags.split([';', ',', ' '])).filter(|tag| !tag.is_empty());
            allowed.extend(each.map(str::to_owned));
        }
        if privileged {
            allowed.extend(registered);
        } else {
            allowed.retain(|tag| !registered.contains(tag));
        }
        allowed
    }

    fn tag_list(value: Option<&serde_json::Value>) -> Vec<String> {
        match value {
            Some(serde_json::Value::Array(list)) => {
                list.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
            }
            Some(serde_json::Value::String(text)) => {
                text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_owned).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// The VLANs of `2;5-7`.
fn trunk_tags(trunks: &str) -> Vec<String> {
    let mut tags = Vec::new();
    for part in trunks.split([';', ' ']).filter(|part| !part.is_empty()) {
        match part.split_once('-').map(|(from, to)| (from.parse::<u32>(), to.parse::<u32>())) {
            Some((Ok(from), Ok(to))) => tags.extend((from..=to.min(4094)).map(|tag| tag.to_string())),
            _ => tags.push(part.to_owned()),
        }
    }
    tags
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
