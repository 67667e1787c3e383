//! Storages and volumes.
//!
//! Must not know: who uses them.

use mock_pve::world::seed::StorageSeed;
use serde_json::{Map, json};

use super::Redact;

/// Options of storages that are kept as they are.
const STORAGE: [&str; 14] = [
    "content",
    "shared",
    "disable",
    "format",
    "preallocation",
    "sparse",
    "thinpool",
    "vgname",
    "krbd",
    "maxfiles",
    "prune-backups",
    "mkdir",
    "is_mountpoint",
    "snapshot-as-volume-chain",
];

impl Redact {
    pub(super) fn storage(&mut self, mut storage: StorageSeed) -> StorageSeed {
        storage.storage = self.names.of("storage", &storage.storage);
        let name = storage.storage.clone();
        let mut options = Map::new();
        for (key, value) in std::mem::take(&mut storage.options) {
            let text = value.as_str().unwrap_or_default();
            let value = match key.as_str() {
                "path" if text == "/var/lib/vz" => value,
                "path" | "export" | "mountpoint" => json!(format!("/mnt/{name}")),
                "share" | "datastore" | "pool" | "fs-name" | "volume" => json!(name),
                "server" | "portal" => json!(self.host(text)),
                "nodes" => {
                    let nodes: Vec<String> = text.split(',').map(|node| self.names.of("node", node)).collect();
                    json!(nodes.join(","))
                }
                kept if STORAGE.contains(&kept) => value,
                _ => continue,
            };
            options.insert(key, value);
        }
        storage.options = options;
        storage
    }

    /// A volume's name: what PVE made of a VM's number stays, what people called a file goes.
    pub(super) fn volume(&mut self, real: &str) -> String {
        let Some((storage, name)) = real.split_once(':') else { return real.to_owned() };
        let storage = self.names.of("storage", storage);
        let made: Vec<String> = name
            .split('/')
            .map(|part| {
                let by_number = ["vm-", "base-", "subvol-"].iter().any(|prefix| part.starts_with(prefix))
                    || part.chars().all(|letter| letter.is_ascii_digit())
                    || ["iso", "vztmpl", "import", "snippets", "backup"].contains(&part);
                if by_number && !part.contains("state-") {
                    return part.to_owned();
                }
                let (_, extension) = part.split_once('.').unwrap_or_default();
                let extension = extension.rsplit('.').next().unwrap_or_default();
                self.names.made("file", part, |number| format!("file-{number}.{extension}"))
            })
            .collect();
        format!("{storage}:{}", made.join("/"))
    }
}
