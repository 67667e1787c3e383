//! Making, copying and freeing volumes.
//!
//! Purpose: an empty volume, a full copy of another, the end of one, and the space that they take. Must not know:
//! drives, requests. Start at [`World::allocate`]. Rules after Proxmox VE 8.4 (PVE/Storage/Plugin.pm,
//! PVE/QemuServer.pm, `clone_disk`).

use std::path::{Path, PathBuf};

use super::World;
use super::drive;
use super::qcow2;
use super::refusal::{Refusal, Rule};
use super::state::{Config, State, Volume, VolumeKey};
use super::volume::{Family, parse_name};
use super::work::Work;

/// What `qemu-img create` prints.
pub fn formatting(path: &str, format: &str, size: u64) -> String {
    match format {
        "qcow2" => format!(
            "Formatting '{path}', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata \
             compression_type=zlib size={size} lazy_refcounts=off refcount_bits=16"
        ),
        "raw" => format!("Formatting '{path}', fmt=raw size={size} preallocation=off"),
        other => format!("Formatting '{path}', fmt={other} size={size} compat6=off hwversion=undefined"),
    }
}

fn human(bytes: u64) -> String {
    let units = [("B", 0), ("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let (unit, shift) = units.into_iter().rev().find(|(_, shift)| bytes >> shift > 0).unwrap_or(("B", 0));
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

impl State {
    /// The storage has to exist and to be enabled and be on the node.
    pub fn storage_on(&self, storage: &str, node: &str) -> Rule<&super::state::Storage> {
        let found = self
            .storages
            .get(storage)
            .ok_or_else(|| Refusal::failed(format!("storage '{storage}' does not exist\n")))?;
        if found.flag("disable") {
            return Err(Refusal::failed(format!("storage '{storage}' is disabled\n")));
        }
        if !found.on_node(node) {
            return Err(Refusal::failed(format!("storage '{storage}' is not available on node '{node}'\n")));
        }
        Ok(found)
    }
}

/// Where a new volume goes and what it is called.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: &'a str,
    /// The storage.
    pub storage: &'a str,
    /// The VM that will own it.
    pub vmid: u32,
}

/// What a copy is made of.
#[derive(Clone, Copy, Debug)]
pub enum CopyOf<'a> {
    /// A volume.
    Volume(&'a VolumeKey),
    /// A file of the node that is no volume.
    File {
        /// Where it really is.
        real: &'a Path,
        /// What the node calls it.
        shown: &'a str,
    },
}

/// A copy of a volume that is to be made.
#[derive(Clone, Debug)]
pub struct Copy<'a> {
    /// What is copied.
    pub from: CopyOf<'a>,
    /// The snapshot of it, if not its present state.
    pub snapshot: Option<&'a str>,
    /// Format wanted; the source's where the target can.
    pub format: Option<&'a str>,
    /// What the log calls it: `drive scsi0 `, or `drive `; nothing, where a file is read in that is no volume.
    pub label: Option<&'a str>,
    /// What stands before the text of a failure.
    pub blame: &'a str,
    /// How big the copy is to be, if that doesn't depend on the source.
    pub size: Option<u64>,
    /// The drive it is, when a guest writes to it meanwhile.
    pub live: Option<&'a str>,
}

impl World {
    /// Makes an empty volume.
    pub fn allocate(&self, place: &Place<'_>, format: &str, size: u64, name: Option<&str>) -> Rule<VolumeKey> {
        let mut state = self.state();
        let storage = state.storage_on(place.storage, place.node)?;
        let (family, capacity) = (storage.family(), storage.capacity);
        let size = storage.rounded(size);
        let name = name.map_or_else(|| state.free_name(place.node, place.storage, place.vmid, format), str::to_owned);
        let key = state.key_on(place.node, place.storage, &name);
        let storage = state.storage_on(place.storage, place.node)?;
        let named = parse_name(storage, &name).map_err(Refusal::Failed)?;
        if state.volumes.contains_key(&key) {
            let path = state.path_of(&key);
            return Err(Refusal::failed(format!("disk image '{path}' already exists\n")));
        }
        let used = state.used(self.dir(), place.node, place.storage);
        if family != Family::Files && used.saturating_add(if family == Family::Thick { size } else { 0 }) > capacity {
            let group = storage.option("vgname").unwrap_or(place.storage);
            return Err(Refusal::failed(format!(
                "lvcreate '{group}/{}' error:   Volume group \"{group}\" has insufficient free space ({} extents): {} \
                 required.\n",
                key.file_name(),
                capacity.saturating_sub(used) >> 22,
                size >> 22
            )));
        }
        let path = state.file_of(self.dir(), &key);
        if path.is_symlink() {
            // A disk that moved away under its guest left it; creating through it would empty that disk.
            let _ = std::fs::remove_file(&path);
        }
        let made = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::File::create(&path))
            .and_then(|file| file.set_len(size));
        made.map_err(|error| Refusal::failed(format!("unable to create image: {error}\n")))?;
        let now = self.clock().unix();
        state.volumes.insert(
            key.clone(),
            Volume {
                content: named.content.to_owned(),
                format: format.to_owned(),
                size,
                vmid: named.vmid,
                parent: named.parent,
                ctime: now,
                notes: None,
                protected: false,
                snapshots: std::collections::BTreeSet::new(),
            },
        );
        Ok(key)
    }

    /// Frees a volume: `Err` is the text of what stands against it.
    pub fn free(&self, key: &VolumeKey) -> Rule<()> {
        let mut state = self.state();
        if state.has_clones(key) {
            return Err(Refusal::failed(format!("base volume '{}' is still in use by linked clones\n", key.name)));
        }
        let path = state.file_of(self.dir(), key);
        state.volumes.remove(key);
        drop(state);
        // A file that is gone already is as good as one that goes now.
        let _ = std::fs::remove_file(&path);
        let _ = std::fs::remove_dir_all(snapshots_of(&path));
        Ok(())
    }

    /// Real bytes that are left on a storage.
    pub fn available(&self, node: &str, storage: &str) -> u64 {
        let state = self.state();
        let capacity = state.storages.get(storage).map_or(0, |storage| storage.capacity);
        capacity.saturating_sub(state.used(self.dir(), node, storage))
    }

    /// Makes a full copy of a volume for a VM.
    pub async fn copy_volume(&self, work: Option<&Work>, place: &Place<'_>, copy: &Copy<'_>) -> Rule<VolumeKey> {
        let (source, volume, formats, shown_from, called) = {
            let state = self.state();
            let storage = state.storage_on(place.storage, place.node)?;
            let formats: Vec<String> = storage.formats().into_iter().map(str::to_owned).collect();
            match copy.from {
                CopyOf::Volume(key) => {
                    let volume = state.volumes.get(key).cloned();
                    (state.file_of(self.dir(), key), volume, formats, state.path_of(key), key.volid())
                }
                CopyOf::File { real, shown } => {
                    (real.to_owned(), super::make_disk::found_file(real), formats, shown.to_owned(), shown.to_owned())
                }
            }
        };
        let Some(volume) = volume else {
            return Err(Refusal::failed(format!("failed to stat '{shown_from}'\n")));
        };
        let source = copy.snapshot.map_or_else(|| source.clone(), |name| snapshots_of(&source).join(name));
        // A file that is no volume gives no hint at a format.
        let hint = if copy.label.is_some() { volume.format.as_str() } else { "" };
        let format = copied_format(&formats, hint, copy.format);
        if let (None, Some(wanted), Some(work)) = (copy.label, copy.format, work)
            && wanted != format
        {
            work.log(format!("format '{wanted}' is not supported by the target storage - using '{format}' instead"));
        }
        let info = image_info(work, &volume, (&source, &shown_from)).await?;
        if let (Some(work), Some(label)) = (work, copy.label) {
            work.log(format!("create full clone of {label}({called})"));
        }
        let size = copy.size.unwrap_or(info.virtual_size);
        let blamed = |refusal: Refusal| Refusal::failed(format!("{}{}\n", copy.blame, refusal.text()));
        let target = self.allocate(place, &format, size, None).map_err(blamed)?;
        let (target_path, shown, whole) = {
            let state = self.state();
            let whole = state.volumes.get(&target).map_or(size, |volume| volume.size);
            (state.file_of(self.dir(), &target), state.path_of(&target), whole)
        };
        self.log_made(work, &target, &format, size);
        if let Some(work) = work {
            let total = human(info.virtual_size);
            match copy.live {
                Some(key) => work.log(format!("drive mirror is starting for drive-{key}")),
                None => work.log(format!("transferred 0.0 B of {total} (0.00%)")),
            }
        }
        // Real storages copy some hundred megabytes a second; nothing takes longer than what a big disk does.
        #[expect(clippy::cast_precision_loss, reason = "a duration")]
        let seconds = (info.virtual_size as f64 / 268_435_456.0).min(20.0);
        let seconds = self.clock().takes(super::script::Takes::Copy(info.virtual_size), seconds);
        let room = self.available(place.node, place.storage);
        let copying = async {
            self.clock().sleep(seconds).await;
            blocking(move || convert_or_copy(&info, &source, (&target_path, whole), room)).await
        };
        let copied = match work {
            Some(work) => work.program(None, copying).await.unwrap_or_else(|words| Err(std::io::Error::other(words))),
            None => copying.await,
        };
        if let Err(error) = copied {
            // The half-made copy goes; what failed is the copy.
            let _ = self.free(&target);
            let what = if let (Some(key), Some(work)) = (copy.live, work) {
                work.log(format!("drive-{key}: Cancelling block job"));
                work.log(format!("drive-{key}: Done."));
                "block job (mirror) error".to_owned()
            } else {
                let named = copy.snapshot.filter(|_| volume.format == "qcow2");
                let named = named.map_or_else(String::new, |name| format!(" -l 'snapshot.name={name}'"));
                let (from, zeroed) = (&volume.format, self.zeroed_prefix(place.storage));
                format!(
                    "copy failed: command '/usr/bin/qemu-img convert -p -n{named} -f {from} -O {format} {shown_from} \
                     {zeroed}{shown}' failed"
                )
            };
            return Err(Refusal::failed(format!("{}{what}: {error}\n", copy.blame)));
        }
        if let Some(work) = work {
            let total = human(self.state().volumes.get(&target).map_or(0, |volume| volume.size));
            match copy.live {
                Some(key) => {
                    work.log(format!("drive-{key}: transferred {total} of {total} (100.00%) in 1s, ready"));
                    work.log("all 'mirror' jobs are ready");
                }
                None => work.log(format!("transferred {total} of {total} (100.00%)")),
            }
        }
        Ok(target)
    }
}

impl World {
    /// What stands before the target of a copy on a storage whose new volumes hold nothing.
    fn zeroed_prefix(&self, storage: &str) -> &'static str {
        let thick = self.state().storages.get(storage).is_none_or(|known| known.family() == Family::Thick);
        if thick { "" } else { "zeroinit:" }
    }
}

/// The format of a copy: the one wanted, else the source's, else the storage's own.
pub(super) fn copied_format(known: &[String], source: &str, wanted: Option<&str>) -> String {
    let format = wanted.unwrap_or(source);
    let supported = known.iter().find(|known| *known == format).or(known.first());
    supported.map_or_else(|| "raw".to_owned(), String::clone)
}

impl World {
    /// What the programs that make a volume print.
    pub(super) fn log_made(&self, work: Option<&Work>, key: &VolumeKey, format: &str, size: u64) {
        let Some(work) = work else { return };
        let (shown, kind) = {
            let state = self.state();
            (state.path_of(key), state.storages.get(&key.storage).map(|found| (found.family(), found.kind.clone())))
        };
        match kind.as_ref().map(|(family, kind)| (*family, kind.as_str())) {
            Some((Family::Files, "btrfs")) if format == "raw" => {}
            Some((Family::Files, _)) => work.log(formatting(&shown, format, size)),
            Some((_, "lvm" | "lvmthin")) => work.log(format!("  Logical volume \"{}\" created.", key.file_name())),
            _ => {}
        }
    }

    /// The guest stands still for the moment in which copies of its disks become another VM's.
    pub(super) fn part_from(&self, work: &Work, vmid: u32, keys: &[String]) {
        let config = self.state().vms.get(&vmid).map(|vm| vm.config.clone()).unwrap_or_default();
        let silent = self.silent_agent(vmid, &config);
        let answers = drive::agent_enabled(&config) && silent.is_none();
        if let Some(line) = silent {
            work.log(line);
        }
        work.log(if answers { "freeze filesystem" } else { "suspend vm" });
        for key in keys {
            work.log(format!("drive-{key}: Cancelling block job"));
        }
        for key in keys {
            work.log(format!("drive-{key}: Done."));
        }
        work.log(if answers { "unfreeze filesystem" } else { "resume vm" });
    }
}

/// Where the snapshots of a volume are kept.
pub fn snapshots_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".snapshots");
    PathBuf::from(name)
}

/// What a guest would see of a volume. Uploads hold the image as it came; all other volumes are raw inside.
async fn image_info(work: Option<&Work>, volume: &Volume, (path, shown): (&Path, &str)) -> Rule<qcow2::Info> {
    if volume.content == "import" && volume.format == "qcow2" {
        let path = path.to_owned();
        let info = blocking(move || qcow2::info(&path)).await;
        return match info {
            Ok(info) if info.backing => {
                Err(Refusal::failed(format!("backing file not allowed for untrusted image '{shown}'!\n")))
            }
            Ok(info) if info.format == "qcow2" => Ok(info),
            _ => {
                if let Some(work) = work {
                    work.log(format!(
                        "command '/usr/bin/qemu-img info '--output=json' {shown} -f qcow2' failed: exit code 1"
                    ));
                }
                Err(Refusal::failed(format!("qemu-img: Could not open '{shown}': Image is not in qcow2 format\n")))
            }
        };
    }
    Ok(qcow2::Info { format: "raw", virtual_size: volume.size, backing: false })
}

/// Fills a volume of that size with what a guest sees of an image.
fn convert_or_copy(info: &qcow2::Info, from: &Path, (to, size): (&Path, u64), room: u64) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata(from)?.blocks() * 512 > room {
        return Err(std::io::Error::new(std::io::ErrorKind::StorageFull, "exit code 1"));
    }
    if info.format == "qcow2" {
        // The volume as it is now: by the end its path may be another's.
        let volume = std::fs::OpenOptions::new().write(true).open(to)?;
        qcow2::convert(from, to)?;
        return volume.set_len(size);
    }
    qcow2::sparse_copy(from, to, size)
}

/// Runs file work off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

/// The keys of a config that name volumes, in the order in which the original goes through buses.
pub fn keys_by_bus(config: &Config) -> Vec<String> {
    let others = ["efidisk0", "tpmstate0"].map(str::to_owned);
    drive::disk_keys().chain(others).filter(|key| config.contains_key(key)).collect()
}

/// The keys of a config that name volumes, in the order in which they are made.
pub fn drive_keys(config: &Config) -> Vec<String> {
    config.keys().filter(|key| drive::is_drive(key)).cloned().collect()
}
