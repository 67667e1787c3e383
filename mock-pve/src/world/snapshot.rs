//! Snapshots.
//!
//! Purpose: taking them, rolling back to them, deleting them. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/AbstractConfig.pm, `snapshot_create` and its neighbours). Start at [`World::snapshot`].

use super::World;
use super::config::volid;
use super::disks::{blocking, drive_keys, snapshots_of};
use super::drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, VolumeKey};
use super::update::check_lock;
use super::volume::Family;
use super::work::Mode;

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
    pub fn snapshot(
        &self,
        caller: &Caller,
        node: &str,
        vmid: u32,
        name: &str,
        description: Option<String>,
    ) -> Rule<String> {
        if name == "current" || name == "pending" {
            return Err(Refusal::failed(format!("unable to use snapshot name '{name}' (reserved name)\n")));
        }
        self.state().vm(node, vmid)?;
        let (at, name) = (node.to_owned(), name.to_owned());
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
            for (key, volume) in world.disks_of(&at, &config) {
                work.log(format!("snapshotting 'drive-{key}' ({})", volume.volid()));
                let path = world.state().file_of(world.dir(), &volume);
                let target = snapshots_of(&path).join(&name);
                let size = world.state().volumes.get(&volume).map_or(0, |volume| volume.size);
                blocking(move || super::qcow2::sparse_copy(&path, &target, size))
                    .await
                    .map_err(|error| Refusal::failed(format!("snapshot failed: {error}\n")))?;
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
            vm.snapshots.insert(name.clone(), config);
            vm.config.insert("parent".to_owned(), name);
            Ok(())
        }))
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
                let Some(snapshot) = vm.snapshots.get(&name).cloned() else {
                    return Err(Refusal::failed(format!("snapshot '{name}' does not exist\n")));
                };
                if vm.config.get("template").is_some_and(|flag| flag == "1") {
                    return Err(Refusal::failed("you can't rollback if vm is a template\n"));
                }
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
            {
                let mut state = world.state();
                let genid = state.rng.uuid();
                let vm = state.vm_mut(&at, vmid)?;
                let description = vm.config.remove("description");
                let mut config = snapshot;
                config.remove("snaptime");
                config.remove("description");
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
                config.insert("parent".to_owned(), name);
                vm.config = config;
                vm.pending.clear();
                vm.pending_delete.clear();
            }
            drop(flock);
            if start.is_some() {
                world.start_vm(&who, &at, vmid, super::lifecycle::Lock::Respect);
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
                snapshot
            };
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
