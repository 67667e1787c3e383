//! Snapshots.
//!
//! Purpose: taking and deleting them. Whoever looks meanwhile finds the config locked and the snapshot's state in it, as
//! in the original, which holds the config's lock file only at both ends. Must not know: requests. Rules after Proxmox
//! VE 8.4 (PVE/AbstractConfig.pm, `snapshot_create` and its neighbours). Start at [`World::snapshot`].

use super::World;
use super::config::{keep_as_unused, volid};
use super::disks::{blocking, drive_keys, snapshots_of};
use super::drive;
use super::feature::Feature;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm, VolumeKey};
use super::stop::Words;
use super::update::check_lock;
use super::work::{Mode, Work};

/// What a VM that was kept with its memory ran as.
pub(super) const RUNNING: [(&str, &str); 2] = [
    ("runningmachine", "pc-i440fx-10.0+pve0"),
    ("runningcpu", "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep"),
];

/// Seconds that a storage takes for a snapshot of a volume, or for the end of one.
pub(super) const MOMENT: f64 = 0.2;

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

/// A snapshot that isn't there.
pub(super) fn missing(name: &str) -> Refusal {
    Refusal::failed(format!("snapshot '{name}' does not exist\n"))
}

/// Whether a VM's lock is that one.
pub(super) fn has_lock(vm: &Vm, lock: &str) -> bool {
    vm.config.get("lock").is_some_and(|known| known == lock)
}

impl State {
    /// What stands against a snapshot.
    fn check_snapshot(&self, node: &str, vmid: u32, new: &NewSnapshot) -> Rule<()> {
        let vm = self.vm(node, vmid)?;
        let config = &vm.config;
        if config.get("template").is_some_and(|flag| flag == "1") {
            return Err(Refusal::failed("you can't take a snapshot if it's a template\n"));
        }
        check_lock(config)?;
        let shares = |key: &String| drive::numbered(key).is_some_and(|(stem, _)| stem == "virtiofs");
        let blockers = [("amd-sev", config.contains_key("amd-sev")), ("virtiofs", config.keys().any(shares))];
        let blockers: Vec<&str> =
            blockers.into_iter().filter(|(_, is)| *is && new.memory).map(|(what, _)| what).collect();
        if !blockers.is_empty() {
            return Err(Refusal::failed(format!(
                "Cannot live-migrate, snapshot (with RAM), or hibernate a VM with: {}\n",
                blockers.join(", ")
            )));
        }
        if vm.snapshots.contains_key(&new.name) {
            return Err(Refusal::failed(format!("snapshot name '{}' already used\n", new.name)));
        }
        if !self.config_has(Feature::Snapshot, config, None)? {
            return Err(Refusal::failed("snapshot feature is not available\n"));
        }
        Ok(())
    }

    /// The disks of a config that are not CD-ROMs, with their volumes.
    pub(super) fn disks_of(&self, node: &str, config: &Config) -> Vec<(String, VolumeKey)> {
        let disks =
            drive_keys(config).into_iter().filter(|key| !drive::is_cdrom(&Properties::parse(&config[key], "file")));
        let found = disks.filter_map(|key| {
            let volume = self.volume_key(node, &volid(&config[&key])?)?;
            self.volumes.contains_key(&volume).then_some((key, volume))
        });
        found.collect()
    }
}

impl World {
    /// Takes a snapshot. Says the UPID.
    pub fn snapshot(&self, caller: &Caller, node: &str, vmid: u32, new: NewSnapshot) -> Rule<String> {
        let reserved = if new.name.eq_ignore_ascii_case("pending") { "pending" } else { "current" };
        if new.name == "current" || reserved == "pending" {
            return Err(Refusal::failed(format!("unable to use snapshot name '{reserved}' (reserved name)\n")));
        }
        self.state().vm(node, vmid)?;
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmsnapshot", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let config = world.begin_snapshot(&work, (&at, vmid), &new).await?;
            let mut taken = Vec::new();
            let taking = world.take(&work, (&at, vmid), &new.name, &config, &mut taken);
            if let Err(refusal) = work.attempt(Words::Task, taking).await {
                work.log("snapshot create failed: starting cleanup");
                world.take_back(&work, (&at, vmid), &new.name, &taken);
                return Err(Refusal::failed(format!("{}\n\n", refusal.text())));
            }
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let vm = state.vm_mut(&at, vmid)?;
            if !has_lock(vm, "snapshot") {
                return Err(Refusal::failed("missing snapshot lock\n"));
            }
            let snapshot = vm.snapshots.get_mut(&new.name).ok_or_else(|| missing(&new.name))?;
            if snapshot.remove("snapstate").is_none_or(|known| known != "prepare") {
                return Err(Refusal::failed("wrong snapshot state\n"));
            }
            vm.config.remove("lock");
            vm.config.insert("parent".to_owned(), new.name);
            Ok(())
        }))
    }

    /// Checks a snapshot, locks the config and writes the snapshot down. Says the config that is kept.
    async fn begin_snapshot(&self, work: &Work, (node, vmid): (&str, u32), new: &NewSnapshot) -> Rule<Config> {
        let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
        let storage = {
            let state = self.state();
            state.check_snapshot(node, vmid, new)?;
            let vm = state.vm(node, vmid)?;
            (new.memory && vm.running.is_some()).then(|| state.memory_storage(vm))
        };
        let memory = storage.map(|storage| self.memory_volume((node, vmid), &storage, &new.name)).transpose()?;
        let now = self.clock().unix();
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        let mut config = vm.config.clone();
        config.retain(|key, _| !drive::is_unused(key) && key != "description");
        config.insert("snapstate".to_owned(), "prepare".to_owned());
        config.insert("snaptime".to_owned(), now.to_string());
        if let Some(Ok(Some(text))) = new.description.as_deref().map(|text| super::keys::stored("description", text)) {
            config.insert("description".to_owned(), text);
        }
        if let Some(memory) = memory {
            config.insert("vmstate".to_owned(), memory.volid());
            config.extend(RUNNING.map(|(key, value)| (key.to_owned(), value.to_owned())));
        }
        vm.snapshots.insert(new.name.clone(), config.clone());
        vm.config.insert("lock".to_owned(), "snapshot".to_owned());
        Ok(config)
    }

    /// Keeps the memory, if it is to be, and what the disks hold; what was done is told even where something failed.
    async fn take(
        &self,
        work: &Work,
        (node, vmid): (&str, u32),
        name: &str,
        config: &Config,
        taken: &mut Vec<VolumeKey>,
    ) -> Rule<()> {
        if let Some((storage, _)) = config.get("vmstate").and_then(|memory| VolumeKey::split(memory)) {
            work.log(format!("saving VM state and RAM using storage '{storage}'"));
            self.clock().sleep(1.0).await;
            let saved = drive::memory_mib(&self.state().vm(node, vmid)?.config) / 4;
            work.log(format!("completed saving the VM state in 1s, saved {saved}.00 MiB"));
        }
        let disks = self.state().disks_of(node, config);
        for (key, volume) in disks {
            work.log(format!("snapshotting 'drive-{key}' ({})", volume.volid()));
            self.clock().sleep(MOMENT).await;
            let (path, size) = {
                let state = self.state();
                (state.file_of(self.dir(), &volume), state.volumes.get(&volume).map_or(0, |volume| volume.size))
            };
            let target = snapshots_of(&path).join(name);
            taken.push(volume.clone());
            let copied = blocking(move || super::qcow2::sparse_copy(&path, &target, size)).await;
            copied.map_err(|error| Refusal::failed(format!("snapshot failed: {error}\n")))?;
            if let Some(volume) = self.state().volumes.get_mut(&volume) {
                volume.snapshots.insert(name.to_owned());
            }
        }
        Ok(())
    }

    /// Nothing is left of a snapshot that failed, nor of its lock.
    fn take_back(&self, work: &Work, (node, vmid): (&str, u32), name: &str, taken: &[VolumeKey]) {
        let memory = {
            let state = self.state();
            state.vm(node, vmid).ok().and_then(|vm| vm.snapshots.get(name)?.get("vmstate").cloned())
        };
        if let Some(Err(refusal)) = memory.map(|memory| self.free_drive(node, vmid, &memory)) {
            work.log(refusal.text());
        }
        for volume in taken {
            self.drop_snapshot(volume, name);
        }
        if let Ok(vm) = self.state().vm_mut(node, vmid) {
            vm.snapshots.remove(name);
            if has_lock(vm, "snapshot") {
                vm.config.remove("lock");
            }
        }
    }

    /// A volume no longer holds what it held then.
    fn drop_snapshot(&self, volume: &VolumeKey, name: &str) {
        let mut state = self.state();
        let path = state.file_of(self.dir(), volume);
        // A snapshot that is gone already is as good as one that goes now.
        let _ = std::fs::remove_file(snapshots_of(&path).join(name));
        if let Some(volume) = state.volumes.get_mut(volume) {
            volume.snapshots.remove(name);
        }
    }

    /// Deletes a snapshot. Says the UPID.
    pub fn delete_snapshot(&self, caller: &Caller, node: &str, vmid: u32, name: &str) -> Rule<String> {
        self.tell(caller, "delete-snapshot", Some(vmid), Some(name));
        let (at, name) = (node.to_owned(), name.to_owned());
        Ok(self.start_task(caller, node, "qmdelsnapshot", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let config = world.begin_deletion(&work, (&at, vmid), &name).await?;
            if let Some(memory) = config.get("vmstate") {
                world.free_drive(&at, vmid, memory)?;
                world.state().change_snapshot((&at, vmid), &name, |snapshot| drop(snapshot.remove("vmstate")))?;
            }
            let disks = world.state().disks_of(&at, &config);
            for (key, volume) in disks {
                world.clock().sleep(MOMENT).await;
                world.drop_snapshot(&volume, &name);
                world.state().change_snapshot((&at, vmid), &name, |snapshot| {
                    if let Some(value) = snapshot.remove(&key) {
                        keep_as_unused(snapshot, vmid, &value);
                    }
                })?;
            }
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            state.change_snapshot((&at, vmid), &name, |_| {})?;
            let vm = state.vm_mut(&at, vmid)?;
            vm.config.remove("lock");
            vm.snapshots.remove(&name);
            let in_use: Vec<String> = drive_keys(&vm.config).iter().filter_map(|key| volid(&vm.config[key])).collect();
            for key in drive_keys(&config) {
                if volid(&config[&key]).is_some_and(|volid| !in_use.contains(&volid)) {
                    keep_as_unused(&mut vm.config, vmid, &config[&key]);
                }
            }
            for other in vm.snapshots.values_mut().chain([&mut vm.config]) {
                if other.get("parent") == Some(&name) {
                    match config.get("parent") {
                        Some(parent) => other.insert("parent".to_owned(), parent.clone()),
                        None => other.remove("parent"),
                    };
                }
            }
            Ok(())
        }))
    }

    /// Locks the config for the end of a snapshot. Says what the snapshot holds.
    async fn begin_deletion(&self, work: &Work, (node, vmid): (&str, u32), name: &str) -> Rule<Config> {
        if !self.state().vm(node, vmid)?.snapshots.contains_key(name) {
            return Err(missing(name));
        }
        let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        check_lock(&vm.config)?;
        vm.config.insert("lock".to_owned(), "snapshot-delete".to_owned());
        if vm.config.get("template").is_some_and(|flag| flag == "1") {
            return Err(Refusal::failed("you can't delete a snapshot if vm is a template\n"));
        }
        let snapshot = vm.snapshots.get_mut(name).ok_or_else(|| missing(name))?;
        let config = snapshot.clone();
        snapshot.insert("snapstate".to_owned(), "delete".to_owned());
        Ok(config)
    }
}

impl State {
    /// Changes a snapshot that is being deleted.
    fn change_snapshot(&mut self, (node, vmid): (&str, u32), name: &str, change: impl FnOnce(&mut Config)) -> Rule<()> {
        let vm = self.vm_mut(node, vmid)?;
        if !has_lock(vm, "snapshot-delete") {
            return Err(Refusal::failed("encountered invalid lock, expected 'snapshot-delete'\n"));
        }
        change(vm.snapshots.get_mut(name).ok_or_else(|| missing(name))?);
        Ok(())
    }
}
