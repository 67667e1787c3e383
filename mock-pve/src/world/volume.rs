//! Volumes: names, places, space.
//!
//! Purpose: which file a volume id means, what a new volume is called, how much a storage still holds. Must not know:
//! VM configs, tasks. Start at [`VolumeKey::parse`]. Naming follows Proxmox VE 8.4 (PVE/Storage/Plugin.pm).

use std::path::{Path, PathBuf};

use super::backups::names;
use super::state::{State, Storage, Volume, VolumeKey};
use super::storage_types::StorageType;

/// How a kind of storage works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Files: `dir`, `nfs`, `cifs`, `cephfs`, `btrfs`.
    Files,
    /// Block volumes: `lvmthin`, `zfspool`, `rbd`.
    Blocks,
    /// Thick LVM: block volumes without snapshots or bases.
    Thick,
    /// Backups only.
    Backups,
}

impl Storage {
    /// How it works.
    pub fn family(&self) -> Family {
        match self.kind.as_str() {
            "dir" | "nfs" | "cifs" | "cephfs" | "glusterfs" | "btrfs" => Family::Files,
            "lvm" | "iscsi" | "iscsidirect" => Family::Thick,
            "pbs" | "esxi" => Family::Backups,
            _ => Family::Blocks,
        }
    }

    /// Whether all nodes see the same contents.
    pub fn shared(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "nfs" | "cifs" | "cephfs" | "glusterfs" | "rbd" | "pbs" | "iscsi" | "iscsidirect" | "zfs" | "esxi"
        ) || self.flag("shared")
    }

    /// A 0/1 option.
    pub fn flag(&self, name: &str) -> bool {
        self.options.get(name).is_some_and(|value| value.as_u64() == Some(1) || value.as_str() == Some("1"))
    }

    /// A text option.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).and_then(|value| value.as_str())
    }

    /// The content types it is configured for.
    pub fn content(&self) -> Vec<&str> {
        match self.option("content") {
            Some(content) => content.split([',', ' ', ';']).filter(|part| !part.is_empty()).collect(),
            None => StorageType::of(&self.kind).map_or(&["images", "rootdir"][..], |known| known.default).to_vec(),
        }
    }

    /// Whether it is configured for a content type.
    pub fn holds(&self, content: &str) -> bool {
        self.content().contains(&content)
    }

    /// Whether it exists on a node.
    pub fn on_node(&self, node: &str) -> bool {
        self.option("nodes").is_none_or(|nodes| nodes.split([',', ' ']).any(|name| name == node))
    }

    /// Formats of images, the default one first.
    pub fn formats(&self) -> Vec<&str> {
        match self.family() {
            Family::Files => {
                let all = if self.kind == "btrfs" { ["raw", "raw", "raw"] } else { ["raw", "qcow2", "vmdk"] };
                let mut formats: Vec<&str> = self.option("format").into_iter().collect();
                for format in all {
                    if !formats.contains(&format) {
                        formats.push(format);
                    }
                }
                formats
            }
            _ => vec!["raw"],
        }
    }

    /// The size that a volume really gets when that much is asked for.
    pub fn rounded(&self, size: u64) -> u64 {
        let unit: u64 = match self.kind.as_str() {
            "lvm" | "lvmthin" => 4 << 20,
            "rbd" | "zfspool" | "zfs" => 1 << 20,
            _ => 512,
        };
        size.div_ceil(unit).saturating_mul(unit)
    }

    /// Whether the name of a linked clone says what it was cloned from.
    pub fn names_parents(&self) -> bool {
        matches!(self.family(), Family::Files | Family::Blocks) && !matches!(self.kind.as_str(), "lvmthin" | "btrfs")
    }
}

impl VolumeKey {
    /// Splits `storage:name`.
    pub fn split(volid: &str) -> Option<(&str, &str)> {
        let (storage, name) = volid.split_once(':')?;
        let letters = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        (storage.starts_with(|c: char| c.is_ascii_alphabetic()) && letters(storage) && !name.is_empty())
            .then_some((storage, name))
    }

    /// The volume id.
    pub fn volid(&self) -> String {
        format!("{}:{}", self.storage, self.name)
    }

    /// The last part of the name.
    pub fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

/// What a volume's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// `images`, `iso`, `vztmpl`, `import`, `snippets`, `backup`, `rootdir`.
    pub content: &'static str,
    /// Path below the storage.
    pub relative: String,
    /// The VM it belongs to.
    pub vmid: Option<u32>,
    /// Format by name.
    pub format: String,
    /// It is a base volume.
    pub base: bool,
    /// The base it was cloned from (name on the same storage).
    pub parent: Option<String>,
}

fn owner(file: &str) -> Option<(u32, bool)> {
    let (rest, base) = match file.strip_prefix("vm-") {
        Some(rest) => (rest, false),
        None => match file.strip_prefix("base-") {
            Some(rest) => (rest, true),
            None => (file.strip_prefix("subvol-")?, false),
        },
    };
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    rest[digits.len()..].starts_with('-').then(|| digits.parse().ok().map(|vmid| (vmid, base)))?
}

/// Understands a volume's name, as the storage's plugin does. `Err` is the original's text.
pub fn parse_name(storage: &Storage, name: &str) -> Result<Named, String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension).to_owned();
    if storage.family() == Family::Files {
        let refuse = || Err(format!("unable to parse directory volume name '{name}'\n"));
        for (prefix, content, folder) in [
            ("iso/", "iso", "template/iso"),
            ("vztmpl/", "vztmpl", "template/cache"),
            ("import/", "import", "import"),
            ("snippets/", "snippets", "snippets"),
            ("backup/", "backup", "dump"),
        ] {
            if let Some(rest) = name.strip_prefix(prefix) {
                let lower = extension.to_ascii_lowercase();
                let fits = match content {
                    "iso" => lower == "iso" || lower == "img",
                    "import" => matches!(extension.as_str(), "ova" | "ovf" | "qcow2" | "raw" | "vmdk"),
                    "vztmpl" => matches!(lower.as_str(), "gz" | "xz" | "zst" | "bz2"),
                    "backup" => names::extension(rest).is_some(),
                    _ => true,
                };
                if rest.is_empty() || rest.contains('/') || !fits {
                    return refuse();
                }
                let format = match content {
                    "iso" => "iso".to_owned(),
                    "vztmpl" => format!("t{}", if lower == "zst" { "zst" } else { &lower }),
                    "snippets" => "snippet".to_owned(),
                    "backup" => names::extension(rest).unwrap_or_default().to_owned(),
                    _ => extension.clone(),
                };
                return Ok(Named {
                    content,
                    relative: format!("{folder}/{rest}"),
                    vmid: names::owner(rest).filter(|_| content == "backup"),
                    format,
                    base: false,
                    parent: None,
                });
            }
        }
        let parts: Vec<&str> = name.split('/').collect();
        let numbered = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        let formats = ["raw", "qcow2", "vmdk", "subvol"];
        let (parent, folder) = match parts.as_slice() {
            [folder, _] if numbered(folder) => (None, *folder),
            [base_folder, base, folder, _] if numbered(base_folder) && numbered(folder) => {
                (Some(format!("{base_folder}/{base}")), *folder)
            }
            _ => return refuse(),
        };
        if !formats.contains(&extension.as_str()) {
            return Err(format!("unable to parse volume filename '{file}'\n"));
        }
        let Ok(vmid) = folder.parse::<u32>() else { return refuse() };
        let base = owner(file).is_some_and(|(_, base)| base);
        return Ok(Named {
            content: "images",
            relative: format!("images/{folder}/{file}"),
            vmid: Some(vmid),
            format: extension,
            base,
            parent,
        });
    }
    let what = match storage.kind.as_str() {
        "zfspool" | "zfs" => "zfs",
        "rbd" => "rbd",
        _ => "lvm",
    };
    let parts: Vec<&str> = name.split('/').collect();
    let (parent, file) = match parts.as_slice() {
        [file] => (None, *file),
        [base, file] if base.starts_with("base-") && what != "lvm" => (Some((*base).to_owned()), *file),
        _ => return Err(format!("unable to parse {what} volume name '{name}'\n")),
    };
    match owner(file) {
        Some((vmid, base)) => Ok(Named {
            content: "images",
            relative: file.to_owned(),
            vmid: Some(vmid),
            format: "raw".to_owned(),
            base,
            parent,
        }),
        None => Err(format!("unable to parse {what} volume name '{name}'\n")),
    }
}

/// The path that the original would show for a volume.
pub fn shown_path(id: &str, storage: &Storage, named: &Named) -> String {
    match storage.family() {
        Family::Files => {
            let root = storage.option("path").map_or_else(|| format!("/mnt/pve/{id}"), str::to_owned);
            format!("{root}/{}", named.relative)
        }
        _ => match storage.kind.as_str() {
            "zfspool" | "zfs" => format!("/dev/zvol/{}/{}", storage.option("pool").unwrap_or(id), named.relative),
            "rbd" => format!("rbd:{}/{}", storage.option("pool").unwrap_or(id), named.relative),
            _ => format!("/dev/{}/{}", storage.option("vgname").unwrap_or(id), named.relative),
        },
    }
}

impl State {
    /// The key of a volume as seen from a node; the storage has to exist.
    pub fn volume_key(&self, node: &str, volid: &str) -> Option<VolumeKey> {
        let (storage, name) = VolumeKey::split(volid)?;
        Some(self.key_on(node, storage, name))
    }

    /// The key of `name` on a storage as seen from a node.
    pub fn key_on(&self, node: &str, storage: &str, name: &str) -> VolumeKey {
        let shared = self.storages.get(storage).is_some_and(Storage::shared);
        VolumeKey {
            storage: storage.to_owned(),
            node: if shared { String::new() } else { node.to_owned() },
            name: name.to_owned(),
        }
    }

    /// The real file behind a volume.
    pub fn file_of(&self, dir: &Path, key: &VolumeKey) -> PathBuf {
        let place = if key.node.is_empty() { "shared".to_owned() } else { format!("nodes/{}", key.node) };
        let relative = self
            .storages
            .get(&key.storage)
            .and_then(|storage| parse_name(storage, &key.name).ok())
            .map_or_else(|| key.name.replace('/', "_"), |named| named.relative);
        dir.join(place).join(&key.storage).join(relative)
    }

    /// The path that the original would show.
    pub fn path_of(&self, key: &VolumeKey) -> String {
        self.storages
            .get(&key.storage)
            .and_then(|storage| Some(shown_path(&key.storage, storage, &parse_name(storage, &key.name).ok()?)))
            .unwrap_or_default()
    }

    /// The lowest free `vm-<vmid>-disk-<n>` of a VM on a storage, with folder and extension where it has them.
    pub fn free_name(&self, node: &str, storage: &str, vmid: u32, format: &str) -> String {
        let files = self.storages.get(storage).is_some_and(|storage| storage.family() == Family::Files);
        let taken = |stem: &str| {
            self.volumes.keys().any(|key| {
                key.storage == storage
                    && (key.node.is_empty() || key.node == node)
                    && key.file_name().split('.').next() == Some(stem)
            })
        };
        let number =
            (0..u32::MAX).find(|n| !taken(&format!("vm-{vmid}-disk-{n}")) && !taken(&format!("base-{vmid}-disk-{n}")));
        let stem = format!("vm-{vmid}-disk-{}", number.unwrap_or_default());
        if files { format!("{vmid}/{stem}.{format}") } else { stem }
    }

    /// Bytes in use on a storage, as seen from a node. Thin storages count what was promised.
    pub fn used(&self, dir: &Path, node: &str, storage: &str) -> u64 {
        self.volumes
            .iter()
            .filter(|(key, _)| key.storage == storage && (key.node.is_empty() || key.node == node))
            .map(|(key, volume)| self.occupied(dir, key, volume))
            .sum()
    }

    /// Bytes that a volume really takes.
    pub fn occupied(&self, dir: &Path, key: &VolumeKey, volume: &Volume) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        match self.storages.get(&key.storage).map(Storage::family) {
            Some(Family::Thick) => volume.size,
            _ => std::fs::metadata(self.file_of(dir, key)).map_or(0, |meta| meta.blocks() * 512),
        }
    }

    /// Whether anything is a linked clone of a volume.
    pub fn has_clones(&self, key: &VolumeKey) -> bool {
        let names = self.storages.get(&key.storage).is_some_and(Storage::names_parents);
        names
            && self.volumes.iter().any(|(other, volume)| {
                other.storage == key.storage
                    && other.node == key.node
                    && volume.parent.as_deref().map(last_two) == Some(last_two(&key.name))
            })
    }
}

/// A base is the same whatever it was cloned from itself.
fn last_two(name: &str) -> String {
    let parts: Vec<&str> = name.rsplit('/').take(2).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage(kind: &str) -> Storage {
        Storage { kind: kind.to_owned(), options: serde_json::Map::new(), capacity: 0 }
    }

    #[test]
    fn names_say_owner_base_and_parent() {
        let dir = storage("dir");
        let clone = parse_name(&dir, "9000/base-9000-disk-0.raw/101/vm-101-disk-0.qcow2").unwrap();
        assert_eq!((clone.vmid, clone.format.as_str()), (Some(101), "qcow2"));
        assert_eq!(clone.parent.as_deref(), Some("9000/base-9000-disk-0.raw"));
        assert!(parse_name(&dir, "import/x.img").is_err());
        assert!(parse_name(&dir, "100/../../etc.raw").is_err());
        assert!(parse_name(&storage("lvmthin"), "base-9000-disk-0").unwrap().base);
        assert_eq!(
            parse_name(&storage("zfspool"), "base-9000-disk-0/vm-101-disk-0").unwrap().parent.as_deref(),
            Some("base-9000-disk-0")
        );
    }
}
