//! What each type of storage can be told and can hold.
//!
//! Purpose: the options of a type, which of them are fixed or required, and its content types. Must not know: requests,
//! volumes. Start at [`StorageType::of`]. Facts after Proxmox VE 8.4 (PVE/Storage/*Plugin.pm, `options` and
//! `plugindata`).

/// How an option may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Needed, and never changed.
    Fixed,
    /// Needed.
    Required,
    /// Neither.
    Optional,
    /// Not needed, and never changed.
    Once,
}

/// A type of storage.
#[derive(Clone, Copy, Debug)]
pub struct StorageType {
    fixed: &'static [&'static str],
    optional: &'static [&'static str],
    /// What it can hold.
    pub contents: &'static [&'static str],
    /// What it holds unless told otherwise.
    pub default: &'static [&'static str],
}

const COMMON: &[&str] = &["nodes", "disable", "content"];
const FILES: &[&str] = &[
    "content-dirs",
    "maxfiles",
    "prune-backups",
    "max-protected-backups",
    "format",
    "mkdir",
    "create-base-path",
    "create-subdirs",
    "bwlimit",
    "preallocation",
];
const ALL: &[&str] = &["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "none", "import"];
const SHARED: &[&str] = &["images", "rootdir", "vztmpl", "iso", "backup", "snippets", "import"];
const GLUSTER: &[&str] = &["images", "vztmpl", "iso", "backup", "snippets", "import"];
const GUESTS: &[&str] = &["images", "rootdir"];

impl StorageType {
    /// The type of that name.
    pub fn of(kind: &str) -> Option<Self> {
        let of = |fixed, optional, contents, default| Self { fixed, optional, contents, default };
        Some(match kind {
            "dir" => of(&["path"], &["shared", "is_mountpoint"], ALL, GUESTS),
            "btrfs" => of(&["path"], &["shared", "is_mountpoint", "nocow"], ALL, GUESTS),
            "nfs" => of(&["path", "server", "export"], &["options"], SHARED, &["images"]),
            "cifs" => of(
                &["path", "server", "share"],
                &["subdir", "username", "password", "domain", "smbversion", "options"],
                SHARED,
                &["images"],
            ),
            "cephfs" => of(
                &["path"],
                &["monhost", "subdir", "options", "username", "fuse", "keyring", "fs-name"],
                &["vztmpl", "iso", "backup", "snippets", "import"],
                &["backup"],
            ),
            "glusterfs" => of(&["path", "volume"], &["server", "server2", "transport"], GLUSTER, &["images"]),
            "lvm" => of(
                &["vgname"],
                &["shared", "saferemove", "saferemove_throughput", "tagged_only", "bwlimit"],
                GUESTS,
                &["images"],
            ),
            "lvmthin" => of(&["thinpool", "vgname"], &["bwlimit"], GUESTS, GUESTS),
            "zfspool" => of(&["pool"], &["blocksize", "sparse", "bwlimit", "mountpoint"], GUESTS, GUESTS),
            "zfs" => of(
                &["iscsiprovider", "target", "portal", "pool", "blocksize"],
                &["nowritecache", "sparse", "comstar_hg", "comstar_tg", "lio_tpg", "bwlimit", "zfs-base-path"],
                &["images"],
                &["images"],
            ),
            "rbd" => of(
                &[],
                &["monhost", "pool", "data-pool", "namespace", "username", "krbd", "keyring", "bwlimit"],
                GUESTS,
                &["images"],
            ),
            "iscsi" | "iscsidirect" => of(&["portal", "target"], &["bwlimit"], &["images", "none"], &["images"]),
            "pbs" => of(
                &["server", "datastore"],
                &[
                    "namespace",
                    "port",
                    "username",
                    "password",
                    "encryption-key",
                    "master-pubkey",
                    "maxfiles",
                    "prune-backups",
                    "max-protected-backups",
                    "fingerprint",
                ],
                &["backup", "none"],
                &["backup"],
            ),
            "esxi" => of(&[], &["shared", "password", "skip-cert-verification", "port"], &["import"], &["import"]),
            _ => return None,
        })
    }

    /// How an option may be used with a type; `None`: the type has no such.
    pub fn usage(kind: &str, option: &str) -> Option<Use> {
        let known = Self::of(kind)?;
        let files = match kind {
            "btrfs" => !["content-dirs", "bwlimit"].contains(&option),
            "cephfs" => option != "preallocation",
            "glusterfs" => option != "content-dirs",
            _ => matches!(kind, "dir" | "nfs" | "cifs"),
        };
        if known.fixed.contains(&option) {
            Some(Use::Fixed)
        } else if kind == "esxi" && ["server", "username"].contains(&option) {
            Some(Use::Required)
        } else if kind == "lvm" && option == "base" {
            Some(Use::Once)
        } else if COMMON.contains(&option) || known.optional.contains(&option) || (files && FILES.contains(&option)) {
            Some(Use::Optional)
        } else {
            None
        }
    }

    /// Whether an option is kept where only root reads it, and never shown.
    pub fn is_secret(kind: &str, option: &str) -> bool {
        match option {
            "password" => matches!(kind, "cifs" | "pbs" | "esxi"),
            "keyring" => matches!(kind, "cephfs" | "rbd"),
            "encryption-key" | "master-pubkey" => kind == "pbs",
            _ => false,
        }
    }

    /// Options without which there is no such storage. Where a share is mounted goes without saying.
    pub fn required(kind: &str) -> Vec<&'static str> {
        let mounted = matches!(kind, "nfs" | "cifs" | "cephfs" | "glusterfs");
        let fixed = Self::of(kind).map_or(&[][..], |known| known.fixed);
        let esxi: &[&str] = if kind == "esxi" { &["server", "username"] } else { &[] };
        let mut names: Vec<&str> =
            fixed.iter().chain(esxi).copied().filter(|name| !mounted || *name != "path").collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_types() {
        assert_eq!(StorageType::usage("dir", "path"), Some(Use::Fixed));
        assert_eq!(StorageType::usage("dir", "preallocation"), Some(Use::Optional));
        assert_eq!(StorageType::usage("btrfs", "preallocation"), Some(Use::Optional));
        for (kind, option) in [("btrfs", "bwlimit"), ("cephfs", "preallocation"), ("glusterfs", "content-dirs")] {
            assert_eq!(StorageType::usage(kind, option), None, "{kind} {option}");
        }
        assert!(StorageType::is_secret("cifs", "password") && !StorageType::is_secret("dir", "password"));
        assert_eq!(StorageType::usage("lvmthin", "path"), None);
        assert_eq!(StorageType::usage("lvmthin", "shared"), None);
        assert_eq!(StorageType::required("nfs"), ["export", "server"]);
        assert_eq!(StorageType::required("lvmthin"), ["thinpool", "vgname"]);
    }
}
