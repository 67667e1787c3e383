//! Back to a snapshot.
//!
//! Purpose: what stands against it, the disks' way back, and the config that comes of it. Whoever looks meanwhile finds
//! the config locked; what fails on the way leaves it so, as in the original. Must not know: requests. Rules after
//! Proxmox VE 8.4 (PVE/AbstractConfig.pm, `snapshot_rollback`). Start at [`World::rollback`].

use super::World;
use super::config::volid;
use super::disks::{blocking, drive_keys, snapshots_of};
use super::drive;
use super::lifecycle::Lock;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::snapshot::{MOMENT, has_lock, missing};
use super::state::{Config, State, Vm};
use super::update::check_lock;
use super::work::{Mode, Work};

/// What becomes of a VM that went back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays as the snapshot leaves it.
    Stay,
    /// It is started.
    Start,
}

impl State {
    /// What stands against going back to a snapshot. Says what that holds.
    fn check_rollback(&self, node: &str, vmid: u32, name: &str) -> Rule<Config> {
        let vm = self.vm(node, vmid)?;
        if vm.config.get("template").is_some_and(|flag| flag == "1") {
            return Err(Refusal::failed("you can't rollback if vm is a template\n"));
        }
        let snapshot = vm.snapshots.get(name).ok_or_else(|| missing(name))?;
        for (_, volume) in self.disks_of(node, snapshot) {
            let kind = self.storages.get(&volume.storage).map_or("", |storage| storage.kind.as_str());
            if !matches!(kind, "zfspool" | "zfs") {
                continue;
            }
            let kept = self.volumes.get(&volume).map(|volume| volume.snapshots.clone()).unwrap_or_default();
            let volid = volume.volid();
            if !kept.contains(name) {
                let text = format!("can't rollback, snapshot '{name}' does not exist on '{volid}'\n");
                return Err(Refusal::failed(text));
            }
            if kept.iter().any(|other| other != name && came_later(vm, name, other)) {
                let text = format!("can't rollback, '{name}' is not most recent snapshot on '{volid}'\n");
                return Err(Refusal::failed(text));
            }
        }
        if let Some(state) = snapshot.get("snapstate") {
            return Err(Refusal::failed(format!("unable to rollback to incomplete snapshot (snapstate = {state})\n")));
        }
        check_lock(&vm.config)?;
        Ok(snapshot.clone())
    }
}

/// Whether a snapshot was taken on the way on from another one.
fn came_later(vm: &Vm, name: &str, other: &str) -> bool {
    let mut at = other;
    // No chain is longer than there are snapshots.
    for _ in 0..=vm.snapshots.len() {
        match vm.snapshots.get(at).and_then(|snapshot| snapshot.get("parent")) {
            Some(parent) if parent == name => return true,
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

/// The config of a VM that goes back: its description and what nobody uses stay, what was attached since is kept.
fn gone_back(present: &Config, snapshot: &Config, name: &str) -> Config {
    let mut config = snapshot.clone();
    for key in ["snaptime", "description", "vmstate", "runningmachine", "runningcpu"] {
        config.remove(key);
    }
    if let Some(description) = present.get("description") {
        config.insert("description".to_owned(), description.clone());
    }
    let in_use: Vec<String> = drive_keys(&config).iter().filter_map(|key| volid(&config[key])).collect();
    let unused = present.iter().filter(|(key, value)| drive::is_unused(key) && !in_use.contains(value));
    config.extend(unused.map(|(key, value)| (key.clone(), value.clone())));
    for key in drive_keys(present) {
        let options = Properties::parse(&present[&key], "file");
        let file = options.get("file").unwrap_or_default().to_owned();
        if (drive::is_cdrom(&options) && !drive::is_cloudinit(&file)) || in_use.contains(&file) {
            continue;
        }
        let known = config.iter().any(|(key, value)| drive::is_unused(key) && *value == file);
        let free = (0..256).map(|number| format!("unused{number}")).find(|key| !config.contains_key(key));
        if let Some(key) = free.filter(|_| !known) {
            config.insert(key, file);
        }
    }
    config.insert("parent".to_owned(), name.to_owned());
    config
}

impl World {
    /// Goes back to a snapshot. Says the UPID.
    pub fn rollback(&self, caller: &Caller, node: &str, vmid: u32, name: &str, then: Then) -> Rule<String> {
        self.tell(caller, "rollback", Some(vmid), Some(name));
        let (at, name, who) = (node.to_owned(), name.to_owned(), caller.clone());
        Ok(self.start_task(caller, node, "qmrollback", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let snapshot = {
                let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
                let snapshot = world.state().check_rollback(&at, vmid, &name)?;
                world.switch_off(vmid);
                world.state().vm_mut(&at, vmid)?.config.insert("lock".to_owned(), "rollback".to_owned());
                snapshot
            };
            world.bring_disks_back(&at, &snapshot, &name).await?;
            world.finish_rollback(&work, (&at, vmid), &name, &snapshot).await?;
            if then == Then::Start && world.pid_of(vmid).is_none() {
                world.start_vm(&who, &at, vmid, Lock::Respect);
            }
            Ok(())
        }))
    }

    async fn bring_disks_back(&self, node: &str, snapshot: &Config, name: &str) -> Rule<()> {
        let disks = self.state().disks_of(node, snapshot);
        for (_, volume) in disks {
            self.clock().sleep(MOMENT).await;
            let path = self.state().file_of(self.dir(), &volume);
            let source = snapshots_of(&path).join(name);
            if !source.exists() {
                continue;
            }
            let size = std::fs::metadata(&source).map_or(0, |meta| meta.len());
            blocking(move || super::qcow2::sparse_copy(&source, &path, size))
                .await
                .map_err(|error| Refusal::failed(format!("rollback failed: {error}\n")))?;
            if let Some(volume) = self.state().volumes.get_mut(&volume) {
                volume.size = size;
            }
        }
        Ok(())
    }

    /// Puts the snapshot's config in the place of the present one, and lets a guest go on whose memory was kept.
    async fn finish_rollback(&self, work: &Work, (node, vmid): (&str, u32), name: &str, snapshot: &Config) -> Rule<()> {
        let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
        {
            let mut state = self.state();
            let genid = state.rng.uuid();
            let vm = state.vm_mut(node, vmid)?;
            if vm.running.is_some() {
                return Err(Refusal::failed(format!("unable to rollback vm {vmid}: vm is running\n")));
            }
            if !has_lock(vm, "rollback") {
                return Err(Refusal::failed("got wrong lock\n"));
            }
            let mut config = gone_back(&vm.config, snapshot, name);
            if config.contains_key("vmgenid") {
                config.insert("vmgenid".to_owned(), genid);
            }
            vm.config = config;
            vm.pending.clear();
            vm.pending_delete.clear();
            vm.cloudinit.clear();
        }
        if snapshot.contains_key("vmstate") {
            self.may_start(work, (node, vmid), Lock::Respect)?;
            self.clock().sleep(0.8).await;
            self.switch_on(vmid);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &[(&str, &str)]) -> Config {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_was_attached_since_is_not_lost() {
        let present = config(&[
            ("description", "now"),
            ("ide2", "l:vm-9-cloudinit,media=cdrom"),
            ("scsi0", "l:vm-9-disk-0,size=1G"),
            ("scsi1", "l:vm-9-disk-1,size=1G"),
            ("unused0", "l:vm-9-disk-2"),
        ]);
        let snapshot =
            config(&[("description", "then"), ("scsi0", "l:vm-9-disk-0,size=1G"), ("scsi2", "l:vm-9-disk-2")]);
        let expected = config(&[
            ("description", "now"),
            ("parent", "one"),
            ("scsi0", "l:vm-9-disk-0,size=1G"),
            ("scsi2", "l:vm-9-disk-2"),
            ("unused0", "l:vm-9-cloudinit"),
            ("unused1", "l:vm-9-disk-1"),
        ]);
        assert_eq!(gone_back(&present, &snapshot, "one"), expected);
    }
}
