//! What a world contains when nobody says otherwise.
//!
//! Purpose: one node, its storages, and a user for programs that rebuild clusters. Must not know: how any of it is
//! kept.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AclSeed, NodeSeed, RealmSeed, Seed, StorageSeed, TokenSeed, UserSeed};

impl Seed {
    /// One node with the usual storages and a user `recast@pve` whose token `ci` has a role made for rebuilding.
    pub fn single_node() -> Self {
        let storage = |name: &str, kind: &str, options: Value| StorageSeed {
            storage: name.to_owned(),
            kind: kind.to_owned(),
            capacity_gib: None,
            options: options.as_object().cloned().unwrap_or_default(),
        };
        Self {
            nodes: vec![NodeSeed { name: "pve1".to_owned(), ip: Some([192, 0, 2, 2].into()), ..NodeSeed::default() }],
            realms: vec![
                RealmSeed {
                    realm: "pam".to_owned(),
                    kind: "pam".to_owned(),
                    comment: Some("Linux PAM standard authentication".to_owned()),
                },
                RealmSeed {
                    realm: "pve".to_owned(),
                    kind: "pve".to_owned(),
                    comment: Some("Proxmox VE authentication server".to_owned()),
                },
            ],
            users: vec![
                UserSeed {
                    userid: "root@pam".to_owned(),
                    password: Some("PVE_PASSWORD".to_owned()),
                    ..UserSeed::default()
                },
                UserSeed {
                    userid: "recast@pve".to_owned(),
                    tokens: vec![TokenSeed { tokenid: "ci".to_owned(), privsep: Some(0), ..TokenSeed::default() }],
                    ..UserSeed::default()
                },
            ],
            roles: BTreeMap::from([("TalosRebuild".to_owned(), REBUILD_PRIVILEGES.map(str::to_owned).to_vec())]),
            acl: vec![AclSeed {
                path: "/".to_owned(),
                kind: "user".to_owned(),
                ugid: "recast@pve".to_owned(),
                roleid: "TalosRebuild".to_owned(),
                propagate: 1,
            }],
            storages: vec![
                storage(
                    "local",
                    "dir",
                    serde_json::json!({"path": "/var/lib/vz", "content": "backup,import,iso,snippets,vztmpl"}),
                ),
                storage(
                    "local-lvm",
                    "lvmthin",
                    serde_json::json!({"vgname": "pve", "thinpool": "data", "content": "images,rootdir"}),
                ),
            ],
            ..Self::default()
        }
    }
}

/// Privileges of the role made for rebuilding clusters.
const REBUILD_PRIVILEGES: [&str; 25] = [
    "Datastore.Allocate",
    "Datastore.AllocateSpace",
    "Datastore.AllocateTemplate",
    "Datastore.Audit",
    "Pool.Audit",
    "SDN.Audit",
    "SDN.Use",
    "Sys.AccessNetwork",
    "Sys.Audit",
    "Sys.Console",
    "VM.Allocate",
    "VM.Audit",
    "VM.Clone",
    "VM.Config.CDROM",
    "VM.Config.CPU",
    "VM.Config.Cloudinit",
    "VM.Config.Disk",
    "VM.Config.HWType",
    "VM.Config.Memory",
    "VM.Config.Network",
    "VM.Config.Options",
    "VM.Migrate",
    "VM.PowerMgmt",
    "VM.Snapshot",
    "VM.Snapshot.Rollback",
];
