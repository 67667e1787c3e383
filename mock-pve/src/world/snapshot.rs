//! Snapshots.
//!
//! Purpose: taking them, rolling back to them, deleting them. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/AbstractConfig.pm, `snapshot_create` and its neighbours). Start at [`World::snapshot`].

use super::World;
use super::config::{keep_as_unused, volid};
use super::disks::{blocking, drive_keys, snapshots_of};
use super::drive;
use super::lifecycle::Lock;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, VolumeKey};
use super::update::check_lock;
use super::volume::Family;
use super::work::{Mode, Work};

/// What a VM that was kept with its memory ran as.
pub(super) const RUNNING: [(&str, &str); 2] = [
    ("runningmachine", "pc-i440fx-10.0+pve0"),
    ("runningcpu", "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep"),
];

/// A snapshot that is to be taken.
#[derive(Clone, Debug, Default)]
pub struct NewSnapshot {
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// With what is in memory, if the VM runs.
    pub memory: bool,
}

impl World {
    /// Whether a disk's volume can have snapshots.
    pub fn can_snapshot(&self, node: &str, value: &str) -> bool {
        let options = Properties::parse(value, "file");
        let volid = options.get("file").unwrap_or_default();
        if drive::is_cdrom(&options) && !drive::is_cloudinit(volid) {
            return true;
        }
        let state = self.state();
        let Some(key) = state.volume_key(node, volid) else { return true };
        let (Some(volume), Some(storage)) = (state.volumes.get(&key), state.storages.get(&key.storage)) else {
            return false;
        };
        match storage.family() {
            Family::Files => volume.format == "qcow2" || storage.kind == "btrfs",
            Family::Blocks => true,
            Family::Thick | Family::Backups => false,
        }
    }

    /// Takes a snapshot. Says the UPID.
    pub fn snapshot(&self, caller: &Caller, node: &str, vmid: u32, new: NewSnapshot) -> Rule<String> {
        let NewSnapshot { name, description, memory } = new;
        let reserved = if name.eq_ignore_ascii_case("pending") { "pending" } else { "current" };
        if name == "current" || reserved == "pending" {
            return Err(Refusal::failed(format!("unable to use snapshot name '{reserved}' (reserved name)\n")));
        }
        self.state().vm(node, vmid)?;
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmsnapshot", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut config = world.state().vm(&at, vmid)?.config.clone();
            if config.get("template").is_some_and(|flag| flag == "1") {
                return Err(Refusal::failed("you can't take a snapshot if it's a template\n"));
            }
            check_lock(&config)?;
            if world.state().vm(&at, vmid)?.snapshots.contains_key(&name) {
                return Err(Refusal::failed(format!("snapshot name '{name}' already used\n")));
            }
            if drive_keys(&config).iter().any(|key| !world.can_snapshot(&at, &config[key])) {
                return Err(Refusal::failed("snapshot feature is not available\n"));
            }
            let memory = if memory { world.save_memory(&work, (&at, vmid), &name).await? } else { None };
            for (key, volume) in world.disks_of(&at, &config) {
                work.log(format!("snapshotting 'drive-{key}' ({})", volume.volid()));
                let path = world.state().file_of(world.dir(), &volume);
                let target = snapshots_of(&path).join(&name);
                let size = world.state().volumes.get(&volume).map_or(0, |volume| volume.size);
                if let Err(error) = blocking(move || super::qcow2::sparse_copy(&path, &target, size)).await {
                    // No snapshot names it.
                    if let Some(memory) = &memory {
                        world.free_drive(&at, vmid, &memory.volid())?;
                    }
                    return Err(Refusal::failed(format!("snapshot failed: {error}\n")));
                }
                if let Some(volume) = world.state().volumes.get_mut(&volume) {
                    volume.snapshots.insert(name.clone());
                }
            }
            let now = world.clock().unix();
            let mut state = world.state();
            let vm = state.vm_mut(&at, vmid)?;
            config.remove("description");
            config.retain(|key, _| !drive::is_unused(key));
            if let Some(text) = description.as_deref().and_then(|text| super::keys::stored("description", text)) {
                config.insert("description".to_owned(), text);
            }
            config.insert("snaptime".to_owned(), now.to_string());
            if let Some(memory) = memory {
                config.insert("vmstate".to_owned(), memory.volid());
                config.extend(RUNNING.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
            vm.snapshots.insert(name.clone(), config);
            vm.config.insert("parent".to_owned(), name);
            Ok(())
        }))
    }

    /// Keeps what is in the memory of a VM, if it runs. Says where.
    async fn save_memory(&self, work: &Work, (node, vmid): (&str, u32), name: &str) -> Rule<Option<VolumeKey>> {
        let storage = {
            let state = self.state();
            let vm = state.vm(node, vmid)?;
            if vm.running.is_none() {
                return Ok(None);
            }
            state.memory_storage(vm)
        };
        let key = self.memory_volume((node, vmid), &storage, name)?;
        work.log(format!("saving VM state and RAM using storage '{storage}'"));
        self.clock().sleep(1.0).await;
        let saved = drive::memory_mib(&self.state().vm(node, vmid)?.config) / 4;
        work.log(format!("completed saving the VM state in 1s, saved {saved}.00 MiB"));
        Ok(Some(key))
    }

    /// The disks of a config that are not CD-ROMs, with their volumes.
    fn disks_of(&self, node: &str, config: &Config) -> Vec<(String, VolumeKey)> {
        let state = self.state();
        drive_keys(config)
            .into_iter()
            .filter(|key| {
                let options = Properties::parse(&config[key], "file");
                !drive::is_cdrom(&options) || options.get("file").is_some_and(drive::is_cloudinit)
            })
            .filter_map(|key| {
                let volume = state.volume_key(node, &volid(&config[&key])?)?;
                state.volumes.contains_key(&volume).then_some((key, volume))
            })
            .collect()
    }

    /// Goes back to a snapshot. Says the UPID.
    pub fn rollback(&self, caller: &Caller, node: &str, vmid: u32, name: &str, start: Option<()>) -> Rule<String> {
        self.tell(caller, "rollback", Some(vmid), Some(name));
        let (at, name, who) = (node.to_owned(), name.to_owned(), caller.clone());
        Ok(self.start_task(caller, node, "qmrollback", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let snapshot = {
                let state = world.state();
                let vm = state.vm(&at, vmid)?;
                if vm.config.get("template").is_some_and(|flag| flag == "1") {
                    return Err(Refusal::failed("you can't rollback if vm is a template\n"));
                }
                let Some(snapshot) = vm.snapshots.get(&name).cloned() else {
                    return Err(Refusal::failed(format!("snapshot '{name}' does not exist\n")));
                };
                check_lock(&vm.config)?;
                snapshot
            };
            world.switch_off(vmid);
            for (_, volume) in world.disks_of(&at, &snapshot) {
                let path = world.state().file_of(world.dir(), &volume);
                let source = snapshots_of(&path).join(&name);
                let size = std::fs::metadata(&source).map_or(0, |meta| meta.len());
                if source.exists() {
                    blocking(move || super::qcow2::sparse_copy(&source, &path, size))
                        .await
                        .map_err(|error| Refusal::failed(format!("rollback failed: {error}\n")))?;
                    if let Some(volume) = world.state().volumes.get_mut(&volume) {
                        volume.size = size;
                    }
                }
            }
            let remembers = snapshot.contains_key("vmstate");
            {
                let mut state = world.state();
                let genid = state.rng.uuid();
                let vm = state.vm_mut(&at, vmid)?;
                let description = vm.config.remove("description");
                let mut config = snapshot;
                for key in ["snaptime", "description", "vmstate", "runningmachine", "runningcpu"] {
                    config.remove(key);
                }
                if let Some(description) = description {
                    config.insert("description".to_owned(), description);
                }
                if config.contains_key("vmgenid") {
                    config.insert("vmgenid".to_owned(), genid);
                }
                let in_use: Vec<String> = drive_keys(&config).iter().filter_map(|key| volid(&config[key])).collect();
                for (key, value) in vm.config.iter().filter(|(key, _)| drive::is_unused(key)) {
                    if !in_use.contains(value) {
                        config.insert(key.clone(), value.clone());
                    }
                }
                // What was attached since is not lost.
                for key in drive_keys(&vm.config) {
                    let value = &vm.config[&key];
                    if volid(value).is_some_and(|volid| !in_use.contains(&volid)) {
                        keep_as_unused(&mut config, vmid, value);
                    }
                }
                config.insert("parent".to_owned(), name);
                vm.config = config;
                vm.pending.clear();
                vm.pending_delete.clear();
            }
            if remembers {
                world.may_start(&work, (&at, vmid), Lock::Respect)?;
                world.clock().sleep(0.8).await;
                world.switch_on(vmid);
            }
            drop(flock);
            if start.is_some() && world.pid_of(vmid).is_none() {
                world.start_vm(&who, &at, vmid, Lock::Respect);
            }
            Ok(())
        }))
    }

    /// Deletes a snapshot. Says the UPID.
    pub fn delete_snapshot(&self, caller: &Caller, node: &str, vmid: u32, name: &str) -> Rule<String> {
        self.tell(caller, "delete-snapshot", Some(vmid), Some(name));
        let (at, name) = (node.to_owned(), name.to_owned());
        Ok(self.start_task(caller, node, "qmdelsnapshot", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let config = {
                let state = world.state();
                let vm = state.vm(&at, vmid)?;
                let Some(snapshot) = vm.snapshots.get(&name).cloned() else {
                    return Err(Refusal::failed(format!("snapshot '{name}' does not exist\n")));
                };
                check_lock(&vm.config)?;
                if vm.config.get("template").is_some_and(|flag| flag == "1") {
                    return Err(Refusal::failed("you can't delete a snapshot if vm is a template\n"));
                }
                snapshot
            };
            if let Some(memory) = config.get("vmstate") {
                world.free_drive(&at, vmid, memory)?;
            }
            for (_, volume) in world.disks_of(&at, &config) {
                let mut state = world.state();
                let path = state.file_of(world.dir(), &volume);
                // A snapshot that is gone already is as good as one that goes now.
                let _ = std::fs::remove_file(snapshots_of(&path).join(&name));
                if let Some(volume) = state.volumes.get_mut(&volume) {
                    volume.snapshots.remove(&name);
                }
            }
            let mut state = world.state();
            let vm = state.vm_mut(&at, vmid)?;
            let Some(gone) = vm.snapshots.remove(&name) else { return Ok(()) };
            let in_use: Vec<String> = drive_keys(&vm.config).iter().filter_map(|key| volid(&vm.config[key])).collect();
            for key in drive_keys(&gone) {
                if volid(&gone[&key]).is_some_and(|volid| !in_use.contains(&volid)) {
                    keep_as_unused(&mut vm.config, vmid, &gone[&key]);
                }
            }
            for config in vm.snapshots.values_mut().chain([&mut vm.config]) {
                if config.get("parent") == Some(&name) {
                    match gone.get("parent") {
                        Some(parent) => config.insert("parent".to_owned(), parent.clone()),
                        None => config.remove("parent"),
                    };
                }
            }
            Ok(())
        }))
    }
}
