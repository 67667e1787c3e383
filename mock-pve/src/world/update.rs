//! Changing a VM's config.
//!
//! Purpose: what `PUT` and `POST` of a config do: deletes, reverts, new values, disks, pending changes. Must not know:
//! how the request came. Start at [`World::check_update`], then [`World::apply_update`]. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, `update_vm_api`).

use super::World;
use super::config::{digest, keep_as_unused, volid};
use super::disks::Planned;
use super::drive;
use super::keys::{AT_ONCE, Change, depends_on_value, is_integer, normal_nic, normal_tags, stored};
use super::property::Properties;
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

/// Whether integers are written the way the config file's parser reads them back.
fn check_integers(set: &Config) -> Rule<()> {
    for (key, value) in set {
        if is_integer(key) && value.starts_with('+') {
            return Err(Refusal::failed(format!(
                "unable to parse value of '{key}' - type check ('integer') failed - got '{value}'\n"
            )));
        }
    }
    Ok(())
}

impl World {
    /// All checks that come before any work: parameters, rights, digest, lock. Says what disks are to be made.
    pub fn check_update(&self, caller: &Caller, node: &str, vmid: u32, update: &Update) -> Rule<Vec<Planned>> {
        let state = self.state();
        let vm = state.vm(node, vmid);
        let config = vm.as_ref().map(|vm| vm.config.clone()).unwrap_or_default();
        let mut planned = Vec::new();
        for (key, value) in &update.set {
            if drive::is_drive(key) {
                let plan = state.plan_disk(caller, (node, vmid), key, value, None)?;
                if matches!(plan.source, super::disks::Source::CloudInit { .. })
                    && let Some(other) = cloudinit_at(&config).filter(|other| other != key)
                {
                    return Err(Refusal::failed(format!(
                        "{key} - cloud-init drive is already attached at '{other}'\n"
                    )));
                }
                planned.push(plan);
            }
        }
        for key in update.delete.iter().filter(|key| !depends_on_value(key)) {
            let present = config.get(key).map_or("", String::as_str);
            state.check_key(caller, vmid, None, key, Change::Delete(present))?;
        }
        for (key, value) in &update.set {
            if !depends_on_value(key) {
                state.check_key(caller, vmid, None, key, Change::Set(value))?;
            }
            if drive::numbered(key).is_some_and(|(stem, _)| stem == "net") {
                let nic = drive::parse_nic(value);
                state.check_bridge(caller, nic.get("bridge"), nic.get("tag"))?;
            }
        }
        let vm = vm?;
        if let Some(given) = &update.digest
            && *given != digest(vm)
        {
            return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
        }
        if !update.skip_lock {
            check_lock(&vm.config)?;
        }
        check_balloon(&vm.config, &update.set)?;
        check_integers(&update.set)?;
        Ok(planned)
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
        let mut absent = Vec::new();
        {
            let state = self.state();
            let vm = state.vm(node, vmid)?;
            if let Some(given) = &update.digest
                && *given != digest(vm)
            {
                return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
            }
            if !update.skip_lock {
                check_lock(&vm.config)?;
            }
            check_values(&state, caller, vmid, update)?;
            let known = |key: &String| vm.config.contains_key(key) || vm.pending.contains_key(key);
            absent.extend(update.delete.iter().filter(|key| !known(key)).cloned());
        }
        self.revert(node, vmid, &update.revert)?;
        for key in absent {
            if let Some(work) = work {
                work.log(format!("cannot delete '{key}' - not set in current configuration!"));
            }
        }
        for key in &update.delete {
            self.delete_key(node, vmid, key, update.force)?;
        }
        let mut made = Vec::new();
        for plan in planned {
            let value = self.make_disk(work, node, vmid, plan).await?;
            made.push((plan.key.clone(), value));
        }
        for (key, value) in made {
            self.set_drive(node, vmid, &key, &value)?;
        }
        for (key, value) in update.set.iter().filter(|(key, _)| !drive::is_drive(key)) {
            self.set_key((node, vmid), key, value, update)?;
        }
        Ok(())
    }

    fn revert(&self, node: &str, vmid: u32, keys: &[String]) -> Rule<()> {
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        for key in keys {
            vm.pending.remove(key);
            vm.pending_delete.remove(key);
        }
        Ok(())
    }

    fn delete_key(&self, node: &str, vmid: u32, key: &str, force: bool) -> Rule<()> {
        let (value, protected, running) = {
            let state = self.state();
            let vm = state.vm(node, vmid)?;
            let value = vm.pending.get(key).or_else(|| vm.config.get(key)).cloned();
            (value, vm.config.get("protection").is_some_and(|flag| flag == "1"), vm.running.is_some())
        };
        let Some(value) = value else { return Ok(()) };
        if drive::is_unused(key) {
            if protected {
                return Err(Refusal::failed(format!(
                    "can't remove unused disk '{}' - protection mode enabled\n",
                    volid(&value).unwrap_or_default()
                )));
            }
            self.refuse_if_in_snapshot(node, vmid, &value)?;
            self.free_drive(node, vmid, &value)?;
            let mut state = self.state();
            state.vm_mut(node, vmid)?.config.remove(key);
            return Ok(());
        }
        if drive::is_drive(key) {
            if protected {
                return Err(Refusal::failed(format!("can't remove drive '{key}' - protection mode enabled\n")));
            }
            let is_cloudinit = volid(&value).is_some_and(|volid| drive::is_cloudinit(&volid));
            if force || is_cloudinit {
                self.refuse_if_in_snapshot(node, vmid, &value)?;
                self.free_drive(node, vmid, &value)?;
            }
            let mut state = self.state();
            let vm = state.vm_mut(node, vmid)?;
            vm.config.remove(key);
            vm.pending.remove(key);
            if !force && !is_cloudinit {
                keep_as_unused(&mut vm.config, vmid, &value);
            }
            remove_from_boot(vm, key);
            return Ok(());
        }
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        let net = drive::numbered(key).is_some_and(|(stem, _)| stem == "net");
        vm.pending.remove(key);
        if running && !net && !AT_ONCE.contains(&key) && !key.starts_with("ipconfig") {
            vm.pending_delete.insert(key.to_owned(), force);
        } else {
            vm.config.remove(key);
            if net {
                remove_from_boot(vm, key);
            }
        }
        Ok(())
    }

    fn refuse_if_in_snapshot(&self, node: &str, vmid: u32, value: &str) -> Rule<()> {
        let Some(volume) = volid(value) else { return Ok(()) };
        let state = self.state();
        let vm = state.vm(node, vmid)?;
        let held = vm
            .snapshots
            .values()
            .flatten()
            .any(|(key, value)| drive::is_drive(key) && volid(value).as_deref() == Some(volume.as_str()));
        if held {
            return Err(Refusal::failed(format!("unable to delete '{volume}' - volume is still in use (snapshot?)\n")));
        }
        Ok(())
    }

    fn set_drive(&self, node: &str, vmid: u32, key: &str, value: &str) -> Rule<()> {
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        let new = volid(value);
        let old = vm.config.insert(key.to_owned(), value.to_owned());
        vm.pending.remove(key);
        vm.pending_delete.remove(key);
        if let Some(new) = &new {
            vm.config.retain(|key, value| !(drive::is_unused(key) && value == new));
        }
        if let Some(old) = old
            && volid(&old) != new
        {
            keep_as_unused(&mut vm.config, vmid, &old);
        }
        // A new CD drive joins an explicit boot order; other disks have to be named (Proxmox VE 8.4, update_vm_api).
        let order = drive::boot_order(&vm.config);
        let explicit = vm.config.get("boot").is_some_and(|boot| boot.contains("order="));
        if explicit && drive::is_cdrom(&Properties::parse(value, "file")) && !order.iter().any(|device| device == key) {
            let mut order = order;
            order.push(key.to_owned());
            vm.config.insert("boot".to_owned(), format!("order={}", order.join(";")));
        }
        Ok(())
    }

    fn set_key(&self, (node, vmid): (&str, u32), key: &str, value: &str, update: &Update) -> Rule<()> {
        let mut state = self.state();
        let (stem, _) = drive::numbered(key).unwrap_or((key, 0));
        let value = match stem {
            "net" => {
                let mac = state.next_mac();
                drive::print_nic(&normal_nic(value, || mac))
            }
            _ if key == "tags" => normal_tags(value, state.tag_style()),
            _ if key == "vmgenid" && value == "1" => state.rng.uuid(),
            _ => value.to_owned(),
        };
        let vm = state.vm_mut(node, vmid)?;
        let mut value = value;
        if key == "boot" {
            let given = Properties::parse(&value, "legacy");
            let order = given.get("order").unwrap_or_default().to_owned();
            let order: Vec<&str> = order.split([';', ' ']).filter(|part| !part.is_empty()).collect();
            for device in &order {
                let there = vm.config.contains_key(*device)
                    || vm.pending.contains_key(*device)
                    || update.set.contains_key(*device);
                if !there || update.delete.iter().any(|gone| gone == device) {
                    return Err(Refusal::failed(format!("invalid bootorder: device '{device}' does not exist'\n")));
                }
            }
            if !order.is_empty() {
                // An order replaces what there was of the old way.
                value = format!("order={}", order.join(";"));
                vm.config.remove("bootdisk");
            }
        }
        let at_once = AT_ONCE.contains(&key) || stem == "net" || stem == "ipconfig";
        vm.pending_delete.remove(key);
        match stored(key, &value) {
            Some(value) if vm.running.is_some() && !at_once => {
                if vm.config.get(key) == Some(&value) {
                    vm.pending.remove(key);
                } else {
                    vm.pending.insert(key.to_owned(), value);
                }
            }
            Some(value) => {
                vm.config.insert(key.to_owned(), value);
            }
            None => {
                vm.config.remove(key);
            }
        }
        Ok(())
    }
}

/// The rights that depend on values: on the one there is, and on the new one.
fn check_values(state: &State, caller: &Caller, vmid: u32, update: &Update) -> Rule<()> {
    let Some(vm) = state.vms.get(&vmid) else { return Ok(()) };
    let present = |key: &String| vm.config.get(key).or_else(|| vm.pending.get(key));
    for key in update.delete.iter().filter(|key| depends_on_value(key)) {
        if let Some(value) = present(key) {
            state.check_key(caller, vmid, None, key, Change::Delete(value))?;
        }
    }
    for (key, value) in update.set.iter().filter(|(key, _)| depends_on_value(key)) {
        if let Some(old) = vm.config.get(key).filter(|_| key != "tags") {
            state.check_key(caller, vmid, None, key, Change::Set(old))?;
        }
        state.check_key(caller, vmid, None, key, Change::Set(value))?;
    }
    Ok(())
}

fn check_balloon(config: &Config, set: &Config) -> Rule<()> {
    let balloon = set.get("balloon").or_else(|| config.get("balloon")).and_then(|text| text.parse::<u64>().ok());
    if !set.contains_key("balloon") && !set.contains_key("memory") {
        return Ok(());
    }
    let memory = set.get("memory").or_else(|| config.get("memory"));
    let memory = drive::memory_mib(&memory.map(|text| ("memory".to_owned(), text.clone())).into_iter().collect());
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
    let text = if left.is_empty() { " ".to_owned() } else { format!("order={}", left.join(";")) };
    vm.config.insert("boot".to_owned(), text);
}
