//! Disks that grow, move and change their owner; snapshots.
//!
//! Purpose: resize, move, reassign, snapshot, rollback. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, PVE/AbstractConfig.pm).

use super::World;
use super::config::{digest, keep_as_unused, volid};
use super::disks::{Copy, CopyOf, Place};
use super::drive;
use super::property::{Properties, parse_size, print_size};
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, VolumeKey};
use super::update::{check_lock, remove_from_boot};
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
    pub fn resize_disk(
        &self,
        caller: &Caller,
        node: &str,
        vmid: u32,
        disk: &str,
        size: &str,
        wanted: Option<String>,
    ) -> String {
        let (at, disk, size, who) = (node.to_owned(), disk.to_owned(), size.to_owned(), caller.clone());
        self.start_task(caller, node, "resize", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = world.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let vm = state.vm(&at, vmid)?;
            if wanted.is_some_and(|wanted| wanted != digest(vm)) {
                return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
            }
            check_lock(&vm.config)?;
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
        {
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
            let Some(old) = state.volume_key(node, volid) else {
                return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
            };
            let format = state.volumes.get(&old).map(|volume| volume.format.clone());
            let same_format = ask.format.as_ref().is_none_or(|wanted| format.as_ref() == Some(wanted));
            if old.storage == ask.storage && same_format {
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
        }
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmmove", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = world.flock(vmid, Mode::Exclusive, 10.0).await?;
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
            let copy =
                Copy { from: CopyOf::Volume(&old), snapshot: None, format: ask.format.as_deref(), label: &label };
            let new = world
                .copy_volume(Some(&work), &place, &copy)
                .await
                .map_err(|refusal| Refusal::failed(format!("storage migration failed: {}", refusal.text())))?;
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
                work.warn(&refusal.text());
            }
            Ok(())
        }))
    }

    #[expect(clippy::too_many_lines, reason = "checks in the original's order")]
    /// Gives a disk to another VM. Says the UPID.
    pub fn reassign_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Reassign) -> Rule<String> {
        let target_key = ask.target_disk.clone().unwrap_or_else(|| ask.disk.clone());
        if ask.target == vmid {
            return Err(Refusal::param("target-vmid", "must be different than source VMID to reassign disk"));
        }
        {
            let state = self.state();
            state.check(caller, &format!("/vms/{}", ask.target), &["VM.Config.Disk"])?;
            let Some(target) = state.vms.get(&ask.target) else {
                return Err(Refusal::failed(format!("could not find target VM {}\n", ask.target)));
            };
            let source = state.vm(node, vmid)?;
            if target.node != node {
                return Err(Refusal::failed(format!(
                    "Both VMs need to be on the same node ({node} != {})\n",
                    target.node
                )));
            }
            check_lock(&source.config)?;
            check_lock(&target.config)?;
            let template = |config: &Config| config.get("template").is_some_and(|flag| flag == "1");
            if template(&source.config) || template(&target.config) {
                return Err(Refusal::failed("Can't move disks from or to template VMs\n"));
            }
            if ask.digest.as_ref().is_some_and(|wanted| *wanted != digest(source)) {
                return Err(Refusal::failed(format!("VM {vmid}: {MODIFIED}")));
            }
            if ask.target_digest.as_ref().is_some_and(|wanted| *wanted != digest(target)) {
                return Err(Refusal::failed(format!("VM {}: {MODIFIED}", ask.target)));
            }
            let Some(value) = source.config.get(&ask.disk) else {
                return Err(Refusal::failed(format!("Disk '{}' for VM '{vmid}' does not exist\n", ask.disk)));
            };
            if target.config.contains_key(&target_key) {
                return Err(Refusal::failed(format!(
                    "Target disk key '{target_key}' is already in use for VM '{}'\n",
                    ask.target
                )));
            }
            let options = Properties::parse(value, "file");
            let volid = options.get("file").unwrap_or_default();
            if drive::is_cdrom(&options) {
                return Err(Refusal::failed(format!("Can't move {} since it is a CDROM\n", ask.disk)));
            }
            if source.running.is_some() && !drive::is_unused(&ask.disk) {
                return Err(Refusal::failed(
                    "Cannot move disk to another VM while the source VM is running - detach first\n",
                ));
            }
            let held =
                source.snapshots.values().flatten().any(|(_, value)| self::volid(value).as_deref() == Some(volid));
            if held {
                return Err(Refusal::failed(
                    "Can't reassign disk used by a snapshot or template of the source VM\n".to_owned(),
                ));
            }
            let storage = VolumeKey::split(volid).map_or("", |(storage, _)| storage);
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        let id = format!("{vmid}-{}>{}-{target_key}", ask.disk, ask.target);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmmove", &id, |work| async move {
            let world = work.world().clone();
            let _source = world.flock(vmid, Mode::Exclusive, 10.0).await?;
            let _target = world.flock(ask.target, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let log = |state: &mut State, line: String| state.tasks.log(work.upid(), line);
            log(&mut state, format!("moving disk '{}' from VM '{vmid}' to '{}'", ask.disk, ask.target));
            let value = state.vm(&at, vmid)?.config.get(&ask.disk).cloned().unwrap_or_default();
            let mut options = Properties::parse(&value, "file");
            let Some(old) = state.volume_key(&at, options.get("file").unwrap_or_default()) else {
                return Err(Refusal::failed(format!("disk '{}' does not exist\n", ask.disk)));
            };
            let Some(mut volume) = state.volumes.get(&old).cloned() else {
                return Err(Refusal::failed(format!("volume '{}' does not exist\n", old.volid())));
            };
            let name = state.free_name(&at, &old.storage, ask.target, &volume.format);
            let name = volume.parent.as_ref().map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
            let new = VolumeKey { name, ..old.clone() };
            let (from, to) = (state.file_of(world.dir(), &old), state.file_of(world.dir(), &new));
            to.parent()
                .map_or(Ok(()), std::fs::create_dir_all)
                .and_then(|()| std::fs::rename(&from, &to))
                .map_err(|error| Refusal::failed(format!("rename failed: {error}\n")))?;
            volume.vmid = Some(ask.target);
            let size = volume.size;
            state.volumes.remove(&old);
            state.volumes.insert(new.clone(), volume);
            log(&mut state, format!("removing disk '{}' from VM '{vmid}' config", ask.disk));
            {
                let source = state.vm_mut(&at, vmid)?;
                source.config.remove(&ask.disk);
                remove_from_boot(source, &ask.disk);
            }
            options.set("file", new.volid());
            let shown = if drive::is_unused(&target_key) { new.volid() } else { options.print("file") };
            log(&mut state, format!("update VM {}: -{target_key} {shown}", ask.target));
            let stored = if drive::is_unused(&target_key) {
                shown
            } else {
                options.set("size", print_size(size));
                options.print("file")
            };
            state.vm_mut(&at, ask.target)?.config.insert(target_key, stored);
            Ok(())
        }))
    }
}
