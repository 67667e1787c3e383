//! Disks that grow, move and change their owner; snapshots.
//!
//! Purpose: resize, move, reassign, snapshot, rollback. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, PVE/AbstractConfig.pm).

use super::World;
use super::config::{digest, keep_as_unused, volid};
use super::disks::{Copy, CopyOf, Place};
use super::drive;
use super::lifecycle::Lock;
use super::property::{Properties, parse_size, print_size};
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, VolumeKey};
use super::update::{Update, check_lock, remove_from_boot};
use super::volume::{Family, parse_name};
use super::work::Mode;

/// A disk that moves to another storage or format.
#[derive(Clone, Debug, Default)]
pub struct Move {
    /// The disk's key.
    pub disk: String,
    /// Where to.
    pub storage: String,
    /// Into which format.
    pub format: Option<String>,
    /// Free the old volume.
    pub delete: bool,
    /// Only if the config is still that one.
    pub digest: Option<String>,
}

/// A disk that is to grow.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// The disk's key.
    pub disk: String,
    /// The new size, or `+` and how much more.
    pub size: String,
    /// Only if the config is still that one.
    pub digest: Option<String>,
    /// What becomes of the config's lock.
    pub lock: Lock,
}

/// A disk that gets another owner.
#[derive(Clone, Debug, Default)]
pub struct Reassign {
    /// The disk's key.
    pub disk: String,
    /// The new owner.
    pub target: u32,
    /// Its key there; the same when absent.
    pub target_disk: Option<String>,
    /// Only if the source's config is still that one.
    pub digest: Option<String>,
    /// Only if the target's config is still that one.
    pub target_digest: Option<String>,
}

const MODIFIED: &str = "detected modified configuration - file changed by other user? Try again.\n";

impl World {
    /// Grows a disk. Says the UPID; all refusals are the task's.
    pub fn resize_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Resize) -> String {
        let Resize { disk, size, digest: wanted, lock } = ask;
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "resize", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let vm = state.vm(&at, vmid)?;
            if wanted.is_some_and(|wanted| wanted != digest(vm)) {
                return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
            }
            lock.check(&vm.config)?;
            let Some(value) = vm.config.get(&disk).cloned() else {
                return Err(Refusal::failed(format!("disk '{disk}' does not exist\n")));
            };
            let mut options = Properties::parse(&value, "file");
            let volid = options.get("file").unwrap_or_default().to_owned();
            let Some((storage, _)) = VolumeKey::split(&volid) else {
                return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
            };
            if drive::is_cdrom(&options) {
                return Err(Refusal::failed("you can't resize a cdrom\n"));
            }
            state.check(&who, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            let key = state.key_on(&at, storage, VolumeKey::split(&volid).map_or("", |(_, name)| name));
            let Some(volume) = state.volumes.get(&key).cloned() else {
                return Err(Refusal::failed(format!("volume '{volid}' does not exist\n")));
            };
            let new = match size.strip_prefix('+') {
                Some(more) => volume.size.saturating_add(parse_size(more).unwrap_or(0)),
                None => parse_size(&size).unwrap_or(0),
            };
            let new = new.div_ceil(1024) * 1024;
            if new < volume.size {
                return Err(Refusal::failed("shrinking disks is not supported\n"));
            }
            if new == volume.size {
                return Ok(());
            }
            let family = state.storages.get(&key.storage).map(super::state::Storage::family);
            let base = state
                .storages
                .get(&key.storage)
                .and_then(|storage| parse_name(storage, &key.name).ok())
                .is_some_and(|named| named.base);
            if base && family == Some(Family::Files) {
                return Err(Refusal::failed(format!(
                    "command '/usr/bin/qemu-img resize -f {} {} {new}' failed: exit code 1\n",
                    volume.format,
                    state.path_of(&key)
                )));
            }
            let path = state.file_of(world.dir(), &key);
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(new))
                .map_err(|error| Refusal::failed(format!("resize failed: {error}\n")))?;
            if family == Some(Family::Files) {
                state.tasks.log(work.upid(), "Image resized.");
            }
            if let Some(volume) = state.volumes.get_mut(&key) {
                volume.size = new;
            }
            options.set("size", print_size(new));
            state.vm_mut(&at, vmid)?.config.insert(disk, options.print("file"));
            Ok(())
        })
    }

    /// Moves a disk to another storage or format. Says the UPID.
    pub fn move_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Move) -> Rule<String> {
        let in_snapshot = {
            let state = self.state();
            state.check(caller, &format!("/storage/{}", ask.storage), &["Datastore.AllocateSpace"])?;
            let vm = state.vm(node, vmid)?;
            check_lock(&vm.config)?;
            if ask.digest.as_ref().is_some_and(|wanted| *wanted != digest(vm)) {
                return Err(Refusal::failed(MODIFIED));
            }
            let Some(value) = vm.config.get(&ask.disk) else {
                return Err(Refusal::failed(format!("disk '{}' does not exist\n", ask.disk)));
            };
            let options = Properties::parse(value, "file");
            let volid = options.get("file").unwrap_or_default();
            if drive::is_cdrom(&options) && !drive::is_cloudinit(volid) {
                return Err(Refusal::failed("you can't move a cdrom\n"));
            }
            let Some((storage, name)) = VolumeKey::split(volid) else {
                return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
            };
            let extension = name.rsplit_once('.').map(|(_, extension)| extension);
            let known = extension.filter(|extension| ["raw", "qcow2", "vmdk"].contains(extension));
            let same_format = ask.format.as_deref().is_none_or(|wanted| known.is_none_or(|known| known == wanted));
            if storage == ask.storage && same_format {
                return Err(Refusal::failed("you can't move to the same storage with same format\n"));
            }
            let found = state.storage_on(&ask.storage, node)?;
            if !found.holds("images") {
                return Err(Refusal::param("storage", format!("storage '{}' does not support vm images", ask.storage)));
            }
            let in_snapshot = vm.snapshots.values().any(|config| {
                config.iter().any(|(key, value)| drive::is_drive(key) && self::volid(value).as_deref() == Some(volid))
            });
            if in_snapshot && ask.delete {
                return Err(Refusal::failed("you can't move a disk with snapshots and delete the source\n"));
            }
            in_snapshot
        };
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmmove", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            if in_snapshot {
                work.log("moving disk with snapshots, snapshots will not be moved!");
            }
            let (old, template, mut options, value) = {
                let state = world.state();
                let vm = state.vm(&at, vmid)?;
                let value = vm.config.get(&ask.disk).cloned().unwrap_or_default();
                let options = Properties::parse(&value, "file");
                let Some(key) = state.volume_key(&at, options.get("file").unwrap_or_default()) else {
                    return Err(Refusal::failed(format!("disk '{}' does not exist\n", ask.disk)));
                };
                (key, vm.config.get("template").is_some_and(|flag| flag == "1"), options, value)
            };
            let place = Place { node: &at, storage: &ask.storage, vmid };
            let label = format!("drive {} ", ask.disk);
            let plugged = world.pid_of(vmid).is_some() && drive::is_drive(&ask.disk);
            let live = plugged.then_some(ask.disk.as_str());
            let copy =
                Copy { from: CopyOf::Volume(&old), snapshot: None, format: ask.format.as_deref(), label: &label, live };
            let new = world
                .copy_volume(Some(&work), &place, &copy)
                .await
                .map_err(|refusal| Refusal::failed(format!("storage migration failed: {}", refusal.text())))?;
            if let Some(key) = live {
                work.log(format!("drive-{key}: Completing block job..."));
                work.log(format!("drive-{key}: Completed successfully."));
                work.log(format!("drive-{key}: mirror-job finished"));
            }
            {
                let mut state = world.state();
                let size = state.volumes.get(&new).map_or(0, |volume| volume.size);
                options.set("file", new.volid());
                options.set("size", print_size(size));
                let vm = state.vm_mut(&at, vmid)?;
                vm.config.insert(ask.disk.clone(), options.print("file"));
                if !ask.delete {
                    keep_as_unused(&mut vm.config, vmid, &value);
                }
            }
            if template {
                world.make_base(&at, vmid, &ask.disk)?;
            }
            if ask.delete
                && let Err(refusal) = world.free_drive(&at, vmid, &value)
            {
                work.log(refusal.text());
            }
            Ok(())
        }))
    }

    /// Gives a disk to another VM. Says the UPID.
    pub fn reassign_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Reassign) -> Rule<String> {
        let target_key = ask.target_disk.clone().unwrap_or_else(|| ask.disk.clone());
        {
            let state = self.state();
            state.check(caller, &format!("/vms/{}", ask.target), &["VM.Config.Disk"])?;
            if ask.target == vmid {
                let text = "must be different than source VMID to reassign disk";
                return Err(Refusal::param("target-vmid", text));
            }
            let volid = state.check_reassign((node, vmid), &ask, &target_key)?;
            let storage = VolumeKey::split(&volid).map_or("", |(storage, _)| storage);
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        let id = format!("{vmid}-{}>{}-{target_key}", ask.disk, ask.target);
        let (at, who) = (node.to_owned(), caller.clone());
        Ok(self.start_task(caller, node, "qmmove", &id, |work| async move {
            let world = work.world().clone();
            let _source = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let _target = work.flock(ask.target, Mode::Exclusive, 10.0).await?;
            let volid = world.state().check_reassign((&at, vmid), &ask, &target_key)?;
            work.log(format!("moving disk '{}' from VM '{vmid}' to '{}'", ask.disk, ask.target));
            let new = world.give_volume(&at, &volid, ask.target)?;
            let value = {
                let mut state = world.state();
                let source = state.vm_mut(&at, vmid)?;
                if drive::named_order(&source.config).contains(&ask.disk) {
                    let line = format!("removing disk '{}' from boot order config", ask.disk);
                    remove_from_boot(source, &ask.disk);
                    state.tasks.log(work.upid(), line);
                }
                let source = state.vm_mut(&at, vmid)?;
                let mut options = Properties::parse(&source.config.remove(&ask.disk).unwrap_or_default(), "file");
                options.set("file", new.volid());
                options.print("file")
            };
            work.log(format!("removing disk '{}' from VM '{vmid}' config", ask.disk));
            if drive::is_unused(&target_key) {
                world.state().vm_mut(&at, ask.target)?.config.insert(target_key, new.volid());
                return Ok(());
            }
            let set = Config::from([(target_key.clone(), value.clone())]);
            let update = Update { set, digest: ask.target_digest.clone(), ..Update::default() };
            let planned = world.check_update(&who, &at, ask.target, &update)?;
            work.log(format!("update VM {}: -{target_key} {value}", ask.target));
            world.apply_update(None, &who, (&at, ask.target), &update, &planned).await
        }))
    }

    /// Renames a volume to one of another VM.
    fn give_volume(&self, node: &str, volid: &str, target: u32) -> Rule<VolumeKey> {
        let mut state = self.state();
        let gone = || Refusal::failed(format!("volume '{volid}' does not exist\n"));
        let old = state.volume_key(node, volid).ok_or_else(gone)?;
        let mut volume = state.volumes.get(&old).cloned().ok_or_else(gone)?;
        let name = state.free_name(node, &old.storage, target, &volume.format);
        let name = volume.parent.as_ref().map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
        let new = VolumeKey { name, ..old.clone() };
        let (from, to) = (state.file_of(self.dir(), &old), state.file_of(self.dir(), &new));
        to.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::rename(&from, &to))
            .map_err(|error| Refusal::failed(format!("rename failed: {error}\n")))?;
        volume.vmid = Some(target);
        state.volumes.remove(&old);
        state.volumes.insert(new.clone(), volume);
        Ok(new)
    }
}

impl State {
    /// What stands against giving a disk away; says its volume.
    fn check_reassign(&self, (node, vmid): (&str, u32), ask: &Reassign, target_key: &str) -> Rule<String> {
        let refuse = |text: String| Err(Refusal::failed(text));
        let Some(source) = self.vms.get(&vmid) else { return refuse(format!("could not find VM {vmid}\n")) };
        let Some(target) = self.vms.get(&ask.target) else {
            return refuse(format!("could not find target VM {}\n", ask.target));
        };
        if source.node != target.node {
            let (from, to) = (&source.node, &target.node);
            return refuse(format!("Both VMs need to be on the same node ({from} != {to})\n"));
        }
        let source = self.vm(node, vmid)?;
        check_lock(&source.config)?;
        check_lock(&target.config)?;
        let template = |config: &Config| config.get("template").is_some_and(|flag| flag == "1");
        if template(&source.config) || template(&target.config) {
            return refuse("Can't move disks from or to template VMs\n".to_owned());
        }
        for (id, vm, wanted) in [(vmid, source, &ask.digest), (ask.target, target, &ask.target_digest)] {
            if wanted.as_ref().is_some_and(|wanted| *wanted != digest(vm)) {
                return refuse(format!("VM {id}: {MODIFIED}"));
            }
        }
        let Some(value) = source.config.get(&ask.disk) else {
            return refuse(format!("Disk '{}' for VM '{vmid}' does not exist\n", ask.disk));
        };
        if target.config.contains_key(target_key) {
            return refuse(format!("Target disk key '{target_key}' is already in use for VM '{}'\n", ask.target));
        }
        let options = Properties::parse(value, "file");
        let volid = options.get("file").unwrap_or_default();
        if drive::is_cdrom(&options) && !drive::is_cloudinit(volid) {
            return refuse("CD drive contents can't be moved to another VM\n".to_owned());
        }
        let Some(volume) = self.volume_key(node, volid).filter(|_| VolumeKey::split(volid).is_some()) else {
            return refuse(format!("Volume '{volid}' not managed by PVE\n"));
        };
        let held = source.snapshots.values().flatten().any(|(_, value)| self::volid(value).as_deref() == Some(volid));
        if held {
            return refuse("Can't move disk used by a snapshot to another VM\n".to_owned());
        }
        let renames = self.storages.get(&volume.storage).is_some_and(|storage| {
            !["iscsidirect", "iscsi", "zfs"].contains(&storage.kind.as_str()) && !drive::is_cloudinit(volid)
        });
        if !renames {
            return refuse("Storage does not support moving of this disk to another VM\n".to_owned());
        }
        if source.running.is_some() && !drive::is_unused(&ask.disk) {
            return refuse("Cannot move disk to another VM while the source VM is running - detach first\n".to_owned());
        }
        Ok(volid.to_owned())
    }
}
