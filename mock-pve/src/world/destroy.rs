//! Destroying VMs.
//!
//! Purpose: what stands against it, which volumes and entries go with a VM, and what stays. Must not know: requests.
//! Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm, `destroy_vm`; PVE/QemuServer.pm, `destroy_vm`). Start at
//! [`World::destroy_vm`].

use super::World;
use super::config::volid;
use super::disks::keys_by_bus;
use super::drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, VolumeKey};
use super::update::check_lock;
use super::work::{Mode, Work};

/// What goes with a VM that is destroyed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Destroy {
    /// Related configurations too.
    pub purge: bool,
    /// Every volume with its number.
    pub unreferenced: bool,
    /// Ignore the lock.
    pub skip_lock: bool,
}

impl World {
    /// Checks and starts the destruction of a VM. Says the UPID.
    pub fn destroy_vm(&self, caller: &Caller, node: &str, vmid: u32, how: Destroy) -> Rule<String> {
        self.state().check_destroy(node, vmid, how)?;
        self.tell(caller, "destroy", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmdestroy", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            world.destroy_work(&work, &at, vmid, how).await
        }))
    }

    async fn destroy_work(&self, work: &Work, node: &str, vmid: u32, how: Destroy) -> Rule<()> {
        let values = {
            let state = self.state();
            state.check_destroy(node, vmid, how)?;
            let vm = state.vm(node, vmid)?;
            if !how.skip_lock && vm.config.get("lock").is_some_and(|lock| lock != "suspended") {
                check_lock(&vm.config)?;
            }
            if vm.config.get("template").is_some_and(|flag| flag == "1") {
                state.check_bases(node, &vm.config)?;
            }
            let kept = vm.snapshots.values().filter_map(|snapshot| snapshot.get("vmstate").cloned());
            volumes_of(&vm.config).into_iter().chain(kept).chain(volumes_of(&vm.pending)).collect::<Vec<_>>()
        };
        self.clock().sleep(0.5).await;
        for value in values {
            if let Err(refusal) = self.remove_drive(work, (node, vmid), &value) {
                let volid = volid(&value).unwrap_or_default();
                let text = format!("Could not remove disk '{volid}', check manually: {}", refusal.text());
                self.complain(work, text);
            }
        }
        if how.unreferenced {
            let left = self.state().unreferenced(node, vmid);
            for key in left {
                match self.free(&key) {
                    Ok(()) => self.log_removed(work, &key),
                    Err(refusal) => self.complain(work, refusal.text()),
                }
            }
        }
        let mut state = self.state();
        state.forget_access(vmid);
        if how.purge {
            state.tasks.log(work.upid(), format!("purging VM {vmid} from related configurations.."));
            state.replication.retain(|job| !is_guest(job, vmid));
            state.forget_in_backups(vmid);
            if state.ha.remove(&format!("vm:{vmid}")).is_some() {
                let line = format!("NOTE: removed VM {vmid} from HA resource configuration.");
                state.tasks.log(work.upid(), line);
                state.forget_in_rules(&format!("vm:{vmid}"));
            }
        }
        state.vms.remove(&vmid);
        Ok(())
    }

    /// What can't be freed stays; release 9 counts that as a warning.
    fn complain(&self, work: &Work, text: String) {
        if self.state().pve == super::PveVersion::V9 { work.warn(&text) } else { work.log(text) }
    }

    /// Frees the volume of a drive's value, if there is one and it belongs to the VM; the log says what the program
    /// that removes it prints.
    pub(super) fn remove_drive(&self, work: &Work, (node, vmid): (&str, u32), value: &str) -> Rule<()> {
        let key = {
            let state = self.state();
            let key = state.volume_key(node, &volid(value).unwrap_or_default());
            let key = key.filter(|key| state.volumes.get(key).is_some_and(|volume| volume.vmid == Some(vmid)));
            if let Some(key) = &key {
                state.storage_on(&key.storage, node)?;
            }
            key
        };
        self.free_drive(node, vmid, value)?;
        let gone = |key: &VolumeKey| !self.state().volumes.contains_key(key);
        if let Some(key) = key.filter(gone) {
            self.log_removed(work, &key);
        }
        Ok(())
    }

    fn log_removed(&self, work: &Work, key: &VolumeKey) {
        let logical = {
            let state = self.state();
            state.storages.get(&key.storage).is_some_and(|storage| matches!(storage.kind.as_str(), "lvm" | "lvmthin"))
        };
        if logical {
            work.log(format!("  Logical volume \"{}\" successfully removed.", key.file_name()));
        }
    }
}

/// The values of a config that name volumes: drives, detached disks, and where the memory is kept.
fn volumes_of(config: &Config) -> Vec<String> {
    let unused = (0..256).map(|number| format!("unused{number}")).chain(["vmstate".to_owned()]);
    keys_by_bus(config).into_iter().chain(unused).filter_map(|key| config.get(&key).cloned()).collect()
}

pub(super) fn is_guest(job: &serde_json::Map<String, serde_json::Value>, vmid: u32) -> bool {
    job.get("guest")
        .is_some_and(|guest| guest.as_u64() == Some(u64::from(vmid)) || guest.as_str() == Some(&vmid.to_string()))
}

impl State {
    /// What stands against destroying a VM.
    fn check_destroy(&self, node: &str, vmid: u32, how: Destroy) -> Rule<()> {
        let vm = self.vm(node, vmid)?;
        if vm.config.get("protection").is_some_and(|flag| flag == "1") {
            return Err(Refusal::failed(format!("can't remove VM {vmid} - protection mode enabled\n")));
        }
        if !how.purge && self.ha.contains_key(&format!("vm:{vmid}")) {
            return Err(Refusal::failed(format!(
                "unable to remove VM {vmid} - used in HA resources and purge parameter not set.\n"
            )));
        }
        if !how.purge
            && let Some(job) = self.replication.iter().find(|job| is_guest(job, vmid))
        {
            let id = job.get("id").and_then(|id| id.as_str()).unwrap_or_default();
            return Err(Refusal::failed(format!(
                "There is a replication job '{id}' for guest '{vmid}' - Please remove that first.\n"
            )));
        }
        if vm.running.is_some() {
            return Err(Refusal::failed(format!("VM {vmid} is running - destroy failed\n")));
        }
        Ok(())
    }

    /// A template stays as long as anything stands on it.
    fn check_bases(&self, node: &str, config: &Config) -> Rule<()> {
        for value in volumes_of(config) {
            let options = Properties::parse(&value, "file");
            let volid = options.get("file").unwrap_or_default();
            let used = || self.volume_key(node, volid).is_some_and(|key| self.has_clones(&key));
            if !drive::is_cdrom(&options) && used() {
                return Err(Refusal::failed(format!("base volume '{volid}' is still in use by linked cloned\n")));
            }
        }
        Ok(())
    }

    /// Volumes with a VM's number on the storages that a node can use for disks.
    fn unreferenced(&self, node: &str, vmid: u32) -> Vec<VolumeKey> {
        let usable = |key: &VolumeKey| {
            (key.node.is_empty() || key.node == node)
                && self.storage_on(&key.storage, node).is_ok_and(|storage| storage.holds("images"))
        };
        let owned = self.volumes.iter().filter(|(_, volume)| volume.content == "images" && volume.vmid == Some(vmid));
        owned.filter(|(key, _)| usable(key)).map(|(key, _)| key.clone()).collect()
    }

    /// Rights, pool and firewall go with a VM.
    fn forget_access(&mut self, vmid: u32) {
        let path = format!("/vms/{vmid}");
        self.access.acl.retain(|acl| acl.path != path);
        for pool in self.pools.values_mut() {
            pool.vms.remove(&vmid);
        }
        self.firewalls.remove(&format!("vms/{vmid}"));
    }

    fn forget_in_backups(&mut self, vmid: u32) {
        let id = vmid.to_string();
        for job in &mut self.backup {
            if let Some(list) = job.get("vmid").and_then(|list| list.as_str()) {
                let left: Vec<&str> = list.split(',').filter(|one| *one != id).collect();
                let left = serde_json::Value::String(left.join(","));
                job.insert("vmid".to_owned(), left);
            }
        }
        self.backup.retain(|job| job.get("vmid").and_then(|list| list.as_str()) != Some(""));
    }
}
