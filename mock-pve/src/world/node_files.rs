//! The files of a node, by the paths that somebody logged in there would use.
//!
//! Purpose: `/var/lib/vz/…`, `/dev/pve/vm-…`, `/dev/zvol/…` and the scratch folders `/tmp`, `/var/tmp`, `/root` mean real
//! files of the state folder; anything else is none of a node's. A file that appears in a storage's folder is a volume.
//! Must not know: who is logged in. Start at [`World::node_file`].

use std::path::{Component, Path, PathBuf};

use super::config;
use super::firewall;
use super::state::{State, Storage, Volume, VolumeKey};
use super::volume::{Family, parse_name};
use super::{World, held};

/// Folders that are nobody's storage.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/root"];
/// Bytes that fit there.
const SCRATCH_ROOM: u64 = 100 << 30;

/// What a path of a node means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeFile {
    /// A block device: a volume that exists, of a fixed size.
    Device {
        /// The real file.
        real: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// A file or folder, which may not exist yet.
    File {
        /// Where it really is.
        real: PathBuf,
    },
    /// Something that can only be read.
    Text(String),
    /// `/dev/null`.
    Null,
    /// `/dev/zero`.
    Zero,
    /// The command's own input.
    Stdin,
    /// The command's own output.
    Stdout,
    /// The command's own error output.
    Stderr,
}

/// The path without `.`, `..` and doubled slashes; relative ones are below `/root`.
pub fn normal(path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in Path::new("/root").join(path).components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

fn below<'a>(path: &'a str, root: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(root.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

fn root_of(id: &str, storage: &Storage) -> Option<String> {
    (storage.family() == Family::Files)
        .then(|| storage.option("path").map_or_else(|| format!("/mnt/pve/{id}"), str::to_owned))
}

/// `/dev/mapper/pve-vm--100--disk--0` is `/dev/pve/vm-100-disk-0`.
fn unmapped(path: &str) -> String {
    let Some(name) = path.strip_prefix("/dev/mapper/") else { return path.to_owned() };
    let held = name.replace("--", "\0");
    match held.split_once('-') {
        Some((group, volume)) => format!("/dev/{}/{}", group.replace('\0', "-"), volume.replace('\0', "-")),
        None => path.to_owned(),
    }
}

/// The folder of a storage for each kind of content.
const CONTENT_FOLDERS: [(&str, &str); 7] = [
    ("iso", "template/iso"),
    ("vztmpl", "template/cache"),
    ("import", "import"),
    ("snippets", "snippets"),
    ("backup", "dump"),
    ("images", "images"),
    ("rootdir", "private"),
];

/// The folders that a storage has once it is used: its own, and those for its content, unless it is told not to make any
/// (pve-storage, PVE/Storage/Plugin.pm, `activate_storage`).
fn made_in(storage: &Storage) -> Vec<&'static str> {
    let forbidden = |name: &str| {
        storage.options.get(name).is_some_and(|value| value.as_u64() == Some(0) || value.as_str() == Some("0"))
    };
    let mut made = vec![""];
    if !forbidden("create-subdirs") && !forbidden("mkdir") {
        let kinds = storage.content();
        let has = |content: &str| kinds.contains(&content) || (content == "backup" && kinds.contains(&"rootdir"));
        made.extend(CONTENT_FOLDERS.iter().filter(|(content, _)| has(content)).map(|(_, folder)| *folder));
    }
    made
}

/// The volume name that a storage gives a file below its folder; a linked clone's also names its base.
fn name_of(relative: &str) -> Option<String> {
    let (content, name) = CONTENT_FOLDERS
        .iter()
        .filter(|(content, _)| *content != "rootdir")
        .find_map(|(content, folder)| Some((*content, below(relative, folder).filter(|name| !name.is_empty())?)))?;
    Some(if content == "images" { name.to_owned() } else { format!("{content}/{name}") })
}

impl State {
    /// The storage whose folder holds a path, with the rest of the path.
    fn storage_below<'a>(&self, node: &str, path: &'a str) -> Option<(String, &'a str)> {
        self.storages
            .iter()
            .filter(|(_, storage)| storage.on_node(node) && !storage.flag("disable"))
            .filter_map(|(id, storage)| {
                let root = root_of(id, storage)?;
                Some((root.len(), (id.clone(), below(path, &root)?)))
            })
            .max_by_key(|(length, _)| *length)
            .map(|(_, found)| found)
    }

    /// The volume whose path the node would show like that.
    pub fn volume_at(&self, node: &str, path: &str) -> Option<VolumeKey> {
        let path = unmapped(&normal(path));
        self.volumes.keys().find(|key| (key.node.is_empty() || key.node == node) && self.path_of(key) == path).cloned()
    }

    fn storage_folder(&self, dir: &Path, node: &str, id: &str) -> PathBuf {
        let shared = self.storages.get(id).is_some_and(Storage::shared);
        let place = if shared { "shared".to_owned() } else { format!("nodes/{node}") };
        dir.join(place).join(id)
    }

    /// A file of the firewall, where anything is said in it.
    fn firewall_file(&self, node: &str, path: &str) -> Option<String> {
        let rest = below(path, "/etc/pve")?;
        let key = if let Some(file) = rest.strip_prefix("firewall/") {
            match file.strip_suffix(".fw")? {
                "cluster" => String::new(),
                vmid => format!("vms/{}", vmid.parse::<u32>().ok()?),
            }
        } else if let Some(vnet) = rest.strip_prefix("sdn/firewall/") {
            format!("vnets/{}", vnet.strip_suffix(".fw")?)
        } else if rest == "local/host.fw" {
            format!("nodes/{node}")
        } else {
            rest.strip_suffix("/host.fw").filter(|at| at.starts_with("nodes/"))?.to_owned()
        };
        let firewall = self.firewalls.get(&key).cloned().unwrap_or_default();
        let options = if key.is_empty() { &self.firewall } else { &firewall.options };
        Some(firewall::text(options, &firewall)).filter(|text| !text.is_empty())
    }

    fn vm_config(&self, node: &str, path: &str) -> Option<String> {
        let rest = below(path, "/etc/pve")?;
        let (at, file) = match rest.strip_prefix("nodes/") {
            Some(rest) => {
                let (at, rest) = rest.split_once('/')?;
                (at, rest.strip_prefix("qemu-server/")?)
            }
            None => (node, rest.strip_prefix("qemu-server/")?),
        };
        let vmid: u32 = file.strip_suffix(".conf")?.parse().ok()?;
        Some(config::text(self.vm(at, vmid).ok()?))
    }
}

impl World {
    /// What a path of a node means; `None`: nothing of the node's that is played here.
    pub fn node_file(&self, node: &str, path: &str) -> Option<NodeFile> {
        let path = normal(path);
        match path.as_str() {
            "/dev/null" => return Some(NodeFile::Null),
            "/dev/zero" => return Some(NodeFile::Zero),
            "/dev/stdin" | "/dev/fd/0" | "/proc/self/fd/0" => return Some(NodeFile::Stdin),
            "/dev/stdout" | "/dev/fd/1" => return Some(NodeFile::Stdout),
            "/dev/stderr" | "/dev/fd/2" => return Some(NodeFile::Stderr),
            "/etc/hostname" => return Some(NodeFile::Text(format!("{node}\n"))),
            _ => {}
        }
        let state = self.state();
        if path.starts_with("/dev/") {
            let key = state.volume_at(node, &path)?;
            let size = state.volumes.get(&key)?.size;
            return Some(NodeFile::Device { real: state.file_of(self.dir(), &key), size });
        }
        if let Some(vmid) = ["/run", "/var/run"].iter().find_map(|run| below(&path, &format!("{run}/qemu-server"))) {
            let vm = state.vm(node, vmid.strip_suffix(".pid")?.parse().ok()?).ok()?;
            return vm.running.as_ref().map(|running| NodeFile::Text(format!("{}\n", running.pid)));
        }
        if path.starts_with("/etc/pve/") {
            let text = state.vm_config(node, &path).or_else(|| state.firewall_file(node, &path));
            return text.map(NodeFile::Text);
        }
        if let Some((id, rest)) = state.storage_below(node, &path) {
            let folder = state.storage_folder(self.dir(), node, &id);
            let own = state.storages.get(&id).map(made_in).unwrap_or_default();
            drop(state);
            for made in own {
                self.make_once(folder.join(made));
            }
            return Some(NodeFile::File { real: folder.join(rest) });
        }
        drop(state);
        let root = SCRATCH.iter().find(|root| below(&path, root).is_some())?;
        let scratch = self.dir().join("nodes").join(node).join(".root");
        self.make_once(scratch.join(&root[1..]));
        Some(NodeFile::File { real: scratch.join(&path[1..]) })
    }

    /// Makes a folder that is there before anybody looks; who removes it later is rid of it.
    fn make_once(&self, folder: PathBuf) {
        let mut made = held(&self.0.made);
        if !made.contains(&folder) {
            // One that can't be made is missing when it is used.
            let _ = std::fs::create_dir_all(&folder);
            made.insert(folder);
        }
    }

    /// How many bytes more fit where a file of the node is.
    pub fn room_at(&self, node: &str, path: &str) -> u64 {
        let path = normal(path);
        let state = self.state();
        let Some((id, _)) = state.storage_below(node, &path) else {
            return if SCRATCH.iter().any(|root| below(&path, root).is_some()) { SCRATCH_ROOM } else { 0 };
        };
        let capacity = state.storages.get(&id).map_or(0, |storage| storage.capacity);
        capacity.saturating_sub(state.used(self.dir(), node, &id))
    }

    /// The folders of a node that are played here; nothing is said of those above them.
    pub fn folders(&self, node: &str) -> Vec<String> {
        let state = self.state();
        let there = state.storages.iter().filter(|(_, storage)| storage.on_node(node) && !storage.flag("disable"));
        let storages = there.filter_map(|(id, storage)| root_of(id, storage));
        storages.chain(SCRATCH.map(str::to_owned)).collect()
    }

    /// Takes note of a file that got another name, and tells of the volume that it was, and of the one that it replaced.
    pub fn moved_file(&self, node: &str, from: &str, to: &str) {
        if normal(from) == normal(to) {
            return;
        }
        self.tell_of_file(node, from, "remove-file");
        self.tell_of_file(node, to, "overwrite");
        self.notice_file(node, from);
        self.notice_file(node, to);
    }

    /// Takes note of a file that was written or removed: what lies in a storage's folder under a fitting name is a
    /// volume of it.
    pub fn notice_file(&self, node: &str, path: &str) {
        let path = normal(path);
        let mut state = self.state();
        if path.starts_with("/dev/") {
            return;
        }
        let Some((id, rest)) = state.storage_below(node, &path) else { return };
        let known = state.volume_at(node, &path);
        let real = state.storage_folder(self.dir(), node, &id).join(rest);
        let length = std::fs::metadata(&real).ok().filter(std::fs::Metadata::is_file).map(|meta| meta.len());
        match (known, length) {
            (Some(key), None) => {
                state.volumes.remove(&key);
            }
            (Some(key), Some(length)) => {
                if let Some(volume) = state.volumes.get_mut(&key) {
                    volume.size = length;
                }
            }
            (None, Some(length)) => {
                let Some(name) = name_of(rest) else { return };
                let Some(storage) = state.storages.get(&id) else { return };
                let Ok(named) = parse_name(storage, &name) else { return };
                let key = state.key_on(node, &id, &name);
                let volume = Volume {
                    content: named.content.to_owned(),
                    format: named.format,
                    size: length,
                    vmid: named.vmid,
                    parent: named.parent,
                    ctime: self.clock().unix(),
                    notes: None,
                    protected: false,
                    snapshots: std::collections::BTreeSet::new(),
                };
                state.volumes.insert(key, volume);
            }
            (None, None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::seed::{Seed, VolumeSeed};
    use crate::world::{PveVersion, Settings};

    #[tokio::test]
    async fn paths_mean_files_of_the_state_folder_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let volume = |volid: &str, content: &str| VolumeSeed {
            volid: volid.to_owned(),
            content: content.to_owned(),
            format: "raw".to_owned(),
            virtual_size: 1 << 20,
            ..VolumeSeed::default()
        };
        let seed = Seed { volumes: vec![volume("local-lvm:vm-100-disk-0", "images")], ..Seed::single_node() };
        let settings = Settings { dir: dir.path().to_owned(), time_scale: 1.0, rng_seed: 1, pve: PveVersion::V8 };
        let world = World::new(seed, settings).unwrap();
        let device = world.node_file("pve1", "/dev/pve/vm-100-disk-0").unwrap();
        assert_eq!(Some(&device), world.node_file("pve1", "/dev/mapper/pve-vm--100--disk--0").as_ref());
        assert!(matches!(device, NodeFile::Device { size: 1_048_576, .. }), "{device:?}");
        let Some(NodeFile::File { real, .. }) = world.node_file("pve1", "/var/lib/vz/import/../import//x.raw") else {
            panic!("no file")
        };
        assert_eq!(real, dir.path().join("nodes/pve1/local/import/x.raw"));
        for foreign in
            ["/etc/passwd", "/dev/sda", "/dev/pve/vm-101-disk-0", "/var/lib/vz/../../../etc/shadow", "/home/x"]
        {
            assert_eq!(world.node_file("pve1", foreign), None, "{foreign}");
        }
        std::fs::create_dir_all(real.parent().unwrap()).unwrap();
        std::fs::write(&real, [0; 7]).unwrap();
        world.notice_file("pve1", "/var/lib/vz/import/x.raw");
        let key = world.state().volume_key("pve1", "local:import/x.raw").unwrap();
        assert_eq!(world.state().volumes[&key].size, 7);
        std::fs::remove_file(&real).unwrap();
        world.notice_file("pve1", "/var/lib/vz/import/x.raw");
        assert!(!world.state().volumes.contains_key(&key));

        // A look makes nothing that was removed, and a storage makes no folders where it mustn't.
        let folder = |name: &str| dir.path().join("nodes/pve1").join(name);
        std::fs::remove_dir_all(folder("local/template/iso")).unwrap();
        world.node_file("pve1", "/var/lib/vz/template/iso/x.iso");
        assert!(!folder("local/template/iso").exists());
        let mut bare = world.state().storages["local"].clone();
        bare.options.extend([("path".to_owned(), "/srv/bare".into()), ("create-subdirs".to_owned(), 0.into())]);
        world.state().storages.insert("bare".to_owned(), bare);
        world.node_file("pve1", "/srv/bare/x");
        assert_eq!(std::fs::read_dir(folder("bare")).unwrap().count(), 0);
    }
}
