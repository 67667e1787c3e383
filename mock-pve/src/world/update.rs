//! Changing a VM's config.
//!
//! Purpose: what `PUT` and `POST` of a config do: all checks first, then the change is written down as pending, then what
//! can be applied is. Must not know: how the request came. Start at [`World::check_update`], then
//! [`World::apply_update`]. Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm, `update_vm_api`).

use std::collections::BTreeSet;

use super::World;
use super::config::{digest, volid};
use super::drive;
use super::keys::{Change, depends_on_value};
use super::plan_disk::Planned;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm};
use super::work::Work;

/// A change of a config that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Update {
    /// New values.
    pub set: Config,
    /// Keys to delete.
    pub delete: Vec<String>,
    /// Keys whose pending change is to be dropped.
    pub revert: Vec<String>,
    /// Delete volumes too.
    pub force: bool,
    /// Only if the config is still that one.
    pub digest: Option<String>,
    /// Ignore the lock.
    pub skip_lock: bool,
}

/// `Configuration file … does not exist`.
pub fn no_config(node: &str, vmid: u32) -> Refusal {
    Refusal::failed(format!("Configuration file 'nodes/{node}/qemu-server/{vmid}.conf' does not exist\n"))
}

/// The lock refuses.
pub fn check_lock(config: &Config) -> Rule<()> {
    match config.get("lock") {
        Some(lock) => Err(Refusal::failed(format!("VM is locked ({lock})\n"))),
        None => Ok(()),
    }
}

impl State {
    /// A VM on a node.
    pub fn vm(&self, node: &str, vmid: u32) -> Rule<&Vm> {
        self.vms.get(&vmid).filter(|vm| vm.node == node).ok_or_else(|| no_config(node, vmid))
    }

    /// A VM on a node, to change it.
    pub fn vm_mut(&mut self, node: &str, vmid: u32) -> Rule<&mut Vm> {
        self.vms.get_mut(&vmid).filter(|vm| vm.node == node).ok_or_else(|| no_config(node, vmid))
    }

    /// The next made-up MAC.
    pub fn next_mac(&mut self) -> String {
        let prefix = self.options.get("mac_prefix").and_then(|prefix| prefix.as_str()).unwrap_or("BC:24:11").to_owned();
        self.rng.mac(&prefix)
    }
}

/// Whether a config is the one a change is for, and free.
fn check_state(vm: &Vm, update: &Update) -> Rule<()> {
    if let Some(given) = &update.digest
        && *given != digest(vm)
    {
        return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
    }
    if update.skip_lock || forgets_memory(vm, update) { Ok(()) } else { check_lock(&vm.config) }
}

/// Whether a suspended VM is to start from nothing: with its memory goes the lock.
fn forgets_memory(vm: &Vm, update: &Update) -> bool {
    update.delete.iter().any(|key| key == "vmstate") && vm.config.get("lock").is_some_and(|lock| lock == "suspended")
}

impl World {
    /// All checks that come before the VM's lock file is taken: parameters and rights. Says what disks are to be made.
    pub fn check_update(&self, caller: &Caller, node: &str, vmid: u32, update: &Update) -> Rule<Vec<Planned>> {
        let state = self.state();
        let config = state.vm(node, vmid).map(|vm| vm.config.clone()).unwrap_or_default();
        let drives = || update.set.iter().filter(|(key, _)| drive::is_drive(key));
        let mut planned = Vec::new();
        for (key, value) in drives() {
            let plan = state.clean_drive(node, key, value)?;
            state.check_replicable(vmid, &plan)?;
            planned.push(plan);
        }
        for key in update.delete.iter().filter(|key| !depends_on_value(key)) {
            let present = config.get(key).map_or("", String::as_str);
            state.check_key(caller, vmid, None, key, Change::Delete(present))?;
        }
        for (key, value) in update.set.iter().filter(|(key, _)| !depends_on_value(key)) {
            state.check_key(caller, vmid, None, key, Change::Set(value))?;
        }
        for plan in &planned {
            state.check_drive_access(caller, vmid, plan, None)?;
        }
        state.check_other_volumes(caller, vmid, &update.set)?;
        for (_, value) in update.set.iter().filter(|(key, _)| is_net(key)) {
            state.check_nic(caller, value)?;
        }
        Ok(planned)
    }

    /// All checks that come before any work and need the VM's lock file: digest, lock, what else the config holds.
    pub fn check_config(&self, node: &str, vmid: u32, update: &Update, planned: &[Planned]) -> Rule<()> {
        let state = self.state();
        let vm = state.vm(node, vmid)?;
        check_state(vm, update)?;
        check_balloon(vm, &update.set)?;
        planned.iter().try_for_each(|plan| state.check_second_cloudinit(&vm.config, plan))
    }

    /// Does the update. The caller holds the VM's lock file.
    pub async fn apply_update(
        &self,
        work: Option<&Work>,
        caller: &Caller,
        (node, vmid): (&str, u32),
        update: &Update,
        planned: &[Planned],
    ) -> Rule<()> {
        let mut update = update.clone();
        let mut planned = planned.to_vec();
        {
            let state = self.state();
            let vm = state.vm(node, vmid)?;
            check_state(vm, &update)?;
            if update.delete.iter().any(|key| key == "vmstate") {
                if forgets_memory(vm, &update) {
                    update.delete.push("lock".to_owned());
                }
                let kept = ["runningmachine", "runningcpu"].into_iter().filter(|key| vm.config.contains_key(*key));
                update.delete.extend(kept.map(str::to_owned));
            }
            for key in std::mem::take(&mut update.revert) {
                // The present value comes back in place of the pending one; what was only pending goes.
                match vm.config.get(&key) {
                    Some(value) => {
                        if drive::is_drive(&key) {
                            planned.push(state.clean_drive(node, &key, value)?);
                        }
                        update.set.insert(key, value.clone());
                    }
                    None if vm.pending.contains_key(&key) => update.delete.push(key),
                    None => {}
                }
            }
        }
        let mut touched = BTreeSet::new();
        let order = drive::named_order(&self.state().vm(node, vmid)?.config);
        let mut record =
            super::pending::Recording { world: self, work, caller, node, vmid, order, touched: &mut touched };
        for key in &update.delete {
            record.delete(key, update.force)?;
        }
        for plan in &planned {
            record.set_drive(plan).await?;
        }
        for (key, value) in update.set.iter().filter(|(key, _)| !drive::is_drive(key)) {
            record.set(key, value, &update)?;
        }
        let running = {
            let mut state = self.state();
            let vm = state.vm_mut(node, vmid)?;
            super::pending::clean_up(vm);
            if vm.pending.is_empty() && vm.pending_delete.is_empty() {
                return Ok(());
            }
            vm.running.is_some()
        };
        let errors = if running {
            self.hot_plug(caller, node, vmid, &touched).await
        } else {
            self.cold_plug(caller, node, vmid)
        };
        if errors.is_empty() { Ok(()) } else { Err(Refusal::Params(errors)) }
    }
}

/// `netN`.
pub(super) fn is_net(key: &str) -> bool {
    drive::numbered(key).is_some_and(|(stem, _)| stem == "net")
}

fn check_balloon(vm: &Vm, set: &Config) -> Rule<()> {
    if !set.contains_key("balloon") && !set.contains_key("memory") {
        return Ok(());
    }
    let present = |key: &str| set.get(key).or_else(|| vm.pending.get(key)).or_else(|| vm.config.get(key));
    let balloon = present("balloon").and_then(|text| text.parse::<u64>().ok());
    let memory = present("memory").map(|text| ("memory".to_owned(), text.clone()));
    let memory = drive::memory_mib(&memory.into_iter().collect());
    if balloon.is_some_and(|balloon| balloon > memory) {
        return Err(Refusal::failed("balloon value too large (must be smaller than assigned memory)\n"));
    }
    Ok(())
}

/// The key of the cloud-init drive.
pub fn cloudinit_at(config: &Config) -> Option<String> {
    config
        .iter()
        .find(|(key, value)| drive::is_drive(key) && volid(value).is_some_and(|volid| drive::is_cloudinit(&volid)))
        .map(|(key, _)| key.clone())
}

/// A device that is gone is in no boot order.
pub fn remove_from_boot(vm: &mut Vm, key: &str) {
    let Some(boot) = vm.config.get("boot") else { return };
    if !boot.contains("order=") {
        return;
    }
    let left: Vec<String> = drive::boot_order(&vm.config).into_iter().filter(|device| device != key).collect();
    vm.config.insert("boot".to_owned(), print_order(&left));
}

/// A boot order as the config holds it; an empty one reads back as a blank.
pub(super) fn print_order(devices: &[String]) -> String {
    if devices.is_empty() { " ".to_owned() } else { format!("order={}", devices.join(";")) }
}
