//! The privileges and roles that come with a release.
//!
//! Purpose: the built-in roles of Proxmox VE 8.4 and 9.1 (PVE/AccessControl.pm). Must not know: who has them.

use std::collections::BTreeMap;

use super::state::PveVersion;

/// Privileges of 8.4.
const PRIVILEGES: &[&str] = &[
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Group.Allocate",
    "Mapping.Audit",
    "Mapping.Modify",
    "Mapping.Use",
    "Permissions.Modify",
    "Pool.Allocate",
    "Pool.Audit",
    "Realm.Allocate",
    "Realm.AllocateUser",
    "SDN.Allocate",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
    "Sys.Syslog",
    "User.Modify",
    "VM.Allocate",
    "VM.Audit",
    "VM.Backup",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Console",
    "VM.Migrate",
    "VM.Monitor",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];

/// Privileges that 9 has in place of `VM.Monitor`.
const SINCE_9: &[&str] = &[
    "VM.GuestAgent.Audit",
    "VM.GuestAgent.FileRead",
    "VM.GuestAgent.FileSystemMgmt",
    "VM.GuestAgent.FileWrite",
    "VM.GuestAgent.Unrestricted",
    "VM.Replicate",
];

/// Roles that are made of some of them; `Administrator` has all, `NoAccess` none.
const ROLES: &[(&str, &[&str])] = &[
    ("PVEAuditor", &["Datastore.Audit", "Mapping.Audit", "Pool.Audit", "SDN.Audit", "Sys.Audit", "VM.Audit"]),
    (
        "PVEDatastoreAdmin",
        &["Datastore.Allocate", "Datastore.AllocateSpace", "Datastore.AllocateTemplate", "Datastore.Audit"],
    ),
    ("PVEDatastoreUser", &["Datastore.AllocateSpace", "Datastore.Audit"]),
    ("PVEMappingAdmin", &["Mapping.Audit", "Mapping.Modify", "Mapping.Use"]),
    ("PVEMappingUser", &["Mapping.Audit", "Mapping.Use"]),
    ("PVEPoolAdmin", &["Pool.Allocate", "Pool.Audit"]),
    ("PVEPoolUser", &["Pool.Audit"]),
    ("PVESDNAdmin", &["SDN.Allocate", "SDN.Audit", "SDN.Use"]),
    ("PVESDNUser", &["SDN.Audit", "SDN.Use"]),
    ("PVESysAdmin", &["Sys.Audit", "Sys.Console", "Sys.Syslog"]),
    ("PVETemplateUser", &["VM.Audit", "VM.Clone"]),
    ("PVEUserAdmin", &["Group.Allocate", "Realm.AllocateUser", "User.Modify"]),
    (
        "PVEVMAdmin",
        &[
            "VM.Allocate",
            "VM.Audit",
            "VM.Backup",
            "VM.Clone",
            "VM.Config.CDROM",
            "VM.Config.CPU",
            "VM.Config.Cloudinit",
            "VM.Config.Disk",
            "VM.Config.HWType",
            "VM.Config.Memory",
            "VM.Config.Network",
            "VM.Config.Options",
            "VM.Console",
            "VM.Migrate",
            "VM.Monitor",
            "VM.PowerMgmt",
            "VM.Snapshot",
            "VM.Snapshot.Rollback",
        ],
    ),
    ("PVEVMUser", &["VM.Audit", "VM.Backup", "VM.Config.CDROM", "VM.Config.Cloudinit", "VM.Console", "VM.PowerMgmt"]),
];

/// What `PVEAdmin` lacks.
const ADMIN_LACKS: &[&str] = &[
    "Mapping.Modify",
    "Permissions.Modify",
    "Realm.Allocate",
    "Sys.AccessNetwork",
    "Sys.Incoming",
    "Sys.Modify",
    "Sys.PowerMgmt",
];

/// Which roles have the privileges that are new in 9, besides those that have all.
const ROLES_SINCE_9: &[(&str, &[&str])] = &[
    ("PVEAuditor", &["VM.GuestAgent.Audit"]),
    ("PVEVMAdmin", SINCE_9),
    (
        "PVEVMUser",
        &["VM.GuestAgent.Audit", "VM.GuestAgent.FileRead", "VM.GuestAgent.FileSystemMgmt", "VM.GuestAgent.FileWrite"],
    ),
];

/// All privileges of a release.
pub fn privileges(pve: PveVersion) -> Vec<&'static str> {
    let old = PRIVILEGES.iter().copied().filter(|name| pve == PveVersion::V8 || *name != "VM.Monitor");
    let new = SINCE_9.iter().copied().filter(|_| pve == PveVersion::V9);
    old.chain(new).collect()
}

/// Whether a release knows a privilege.
pub fn exists(pve: PveVersion, name: &str) -> bool {
    privileges(pve).contains(&name)
}

/// The roles of a release.
pub fn builtin(pve: PveVersion) -> BTreeMap<String, Vec<String>> {
    let own = |names: &mut dyn Iterator<Item = &'static str>| names.map(str::to_owned).collect::<Vec<_>>();
    let all = privileges(pve);
    let mut roles: BTreeMap<String, Vec<String>> = ROLES
        .iter()
        .map(|(role, names)| {
            let new = ROLES_SINCE_9.iter().filter(|(with, _)| pve == PveVersion::V9 && with == role);
            let new = new.flat_map(|(_, names)| names.iter().copied());
            let mut names = names.iter().copied().filter(|name| exists(pve, name)).chain(new);
            ((*role).to_owned(), own(&mut names))
        })
        .collect();
    roles.insert("Administrator".to_owned(), own(&mut all.iter().copied()));
    roles.insert("NoAccess".to_owned(), Vec::new());
    roles.insert("PVEAdmin".to_owned(), own(&mut all.iter().copied().filter(|name| !ADMIN_LACKS.contains(name))));
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_has_agent_privileges_in_place_of_monitor() {
        assert!(exists(PveVersion::V8, "VM.Monitor") && !exists(PveVersion::V9, "VM.Monitor"));
        let nine = builtin(PveVersion::V9);
        let has = |role: &str, name: &str| nine[role].iter().any(|held| held == name);
        for (role, name, held) in [
            ("PVEVMAdmin", "VM.GuestAgent.Unrestricted", true),
            ("PVEVMAdmin", "VM.Replicate", true),
            ("PVEAdmin", "VM.GuestAgent.Unrestricted", true),
            ("PVEAdmin", "Permissions.Modify", false),
            ("PVEVMUser", "VM.GuestAgent.FileWrite", true),
            ("PVEVMUser", "VM.GuestAgent.Unrestricted", false),
            ("PVEAuditor", "VM.GuestAgent.Audit", true),
            ("PVEAuditor", "VM.GuestAgent.FileRead", false),
            ("PVETemplateUser", "VM.GuestAgent.Audit", false),
        ] {
            assert_eq!(has(role, name), held, "{role} {name}");
        }
        assert!(!builtin(PveVersion::V8)["PVEAuditor"].iter().any(|name| name.contains("GuestAgent")));
    }
}
