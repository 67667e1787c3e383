//! Standing still and going on.
//!
//! Purpose: pausing a VM, suspending it to disk, and both ways back. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/QemuServer.pm, `vm_suspend`, `vm_resume`).

use super::World;
use super::config::volid;
use super::disks::{Place, drive_keys};
use super::drive;
use super::lifecycle::Lock;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{State, Vm, VolumeKey};
use super::update::check_lock;
use super::volume::Family;
use super::work::Mode;

impl State {
    /// Where the memory of a VM goes that doesn't say it: shared before local, files before blocks.
    pub(super) fn memory_storage(&self, vm: &Vm) -> String {
        if let Some(storage) = vm.config.get("vmstatestorage") {
            return storage.clone();
        }
        let (mut shared, mut local) = (None, None);
        for key in drive_keys(&vm.config) {
            let volume = volid(&vm.config[&key]).unwrap_or_default();
            let Some((id, storage)) = VolumeKey::split(&volume).and_then(|(id, _)| Some((id, self.storages.get(id)?)))
            else {
                continue;
            };
            let best = if storage.shared() { &mut shared } else { &mut local };
            if best.is_none() || storage.family() == Family::Files {
                *best = Some(id.to_owned());
            }
        }
        shared.or(local).unwrap_or_else(|| "local".to_owned())
    }
}

fn is_locked(vm: &Vm, lock: &str) -> bool {
    vm.config.get("lock").is_some_and(|known| known == lock)
}

impl World {
    /// Makes a VM stand still. Says the UPID.
    pub fn pause_vm(&self, caller: &Caller, node: &str, vmid: u32, lock: Lock) -> Rule<String> {
        self.must_run(node, vmid)?;
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmpause", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let vm = state.vm_mut(&at, vmid)?;
            if !is_locked(vm, "backup") {
                lock.check(&vm.config)?;
            }
            if let Some(running) = &mut vm.running {
                running.paused = true;
            }
            Ok(())
        }))
    }

    /// Puts a VM's memory on a storage and switches it off. Says the UPID.
    pub fn suspend_vm(&self, caller: &Caller, node: &str, vmid: u32, storage: Option<String>) -> Rule<String> {
        self.must_run(node, vmid)?;
        let storage = {
            let state = self.state();
            if state.is_ha_managed(vmid) {
                return Err(Refusal::failed("Cannot suspend HA managed VM to disk\n"));
            }
            state.check(caller, &format!("/vms/{vmid}"), &["VM.Config.Disk"])?;
            let vm = state.vm(node, vmid)?;
            if vm.config.keys().any(|key| drive::numbered(key).is_some_and(|(stem, _)| stem == "hostpci")) {
                return Err(Refusal::failed(
                    "cannot suspend VM to disk due to passed-through PCI device(s), which lack the possibility to \
                     save/restore their internal state\n",
                ));
            }
            let storage = storage.unwrap_or_else(|| state.memory_storage(vm));
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            storage
        };
        self.tell(caller, "suspend", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmsuspend", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            {
                let state = world.state();
                let vm = state.vm(&at, vmid)?;
                if is_locked(vm, "backup") {
                    return Err(Refusal::failed("cannot suspend to disk during backup\n"));
                }
                check_lock(&vm.config)?;
            }
            let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
            let key = world.memory_volume((&at, vmid), &storage, &format!("suspend-{date}"))?;
            {
                let mut state = world.state();
                let config = &mut state.vm_mut(&at, vmid)?.config;
                config.insert("lock".to_owned(), "suspending".to_owned());
                config.insert("vmstate".to_owned(), key.volid());
                config.extend(super::snapshot::RUNNING.map(|(key, value)| (key.to_owned(), value.to_owned())));
            }
            world.clock().sleep(2.0).await;
            work.log("State saved, quitting");
            world.switch_off(vmid);
            world.state().vm_mut(&at, vmid)?.config.insert("lock".to_owned(), "suspended".to_owned());
            Ok(())
        }))
    }

    /// A volume for what is in a VM's memory, twice over.
    pub(super) fn memory_volume(&self, (node, vmid): (&str, u32), storage: &str, name: &str) -> Rule<VolumeKey> {
        let (memory, files) = {
            let state = self.state();
            let files = state.storage_on(storage, node)?.family() == Family::Files;
            (drive::memory_mib(&state.vm(node, vmid)?.config), files)
        };
        let stem = format!("vm-{vmid}-state-{name}");
        let name = if files { format!("{vmid}/{stem}.raw") } else { stem };
        self.allocate(&Place { node, storage, vmid }, "raw", (memory * 2 + 500) << 20, Some(&name))
    }

    /// Lets a VM go on, from where its memory is. Says the UPID.
    pub fn resume_vm(&self, caller: &Caller, node: &str, vmid: u32, lock: Lock) -> Rule<String> {
        let suspended = self.state().vm(node, vmid).is_ok_and(|vm| is_locked(vm, "suspended"));
        if !suspended {
            self.must_run(node, vmid)?;
        }
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmresume", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            if suspended {
                return world.start_work(&work, (&at, vmid), lock).await;
            }
            let mut state = world.state();
            let vm = state.vm_mut(&at, vmid)?;
            if !vm.running.as_ref().is_some_and(|running| running.paused) {
                return Ok(());
            }
            if !is_locked(vm, "backup") {
                lock.check(&vm.config)?;
            }
            drop(state);
            world.let_run(vmid);
            Ok(())
        }))
    }

    /// What was saved of a VM's memory is of no use once it runs again.
    pub(super) fn forget_memory(&self, vmid: u32) {
        let (node, value) = {
            let mut state = self.state();
            let Some(vm) = state.vms.get_mut(&vmid) else { return };
            for (key, _) in super::snapshot::RUNNING {
                vm.config.remove(key);
            }
            match vm.config.remove("vmstate") {
                Some(value) => (vm.node.clone(), value),
                None => return,
            }
        };
        // What can't be freed stays, as in the original.
        let _ = self.free_drive(&node, vmid, &value);
    }
}
