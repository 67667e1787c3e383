//! Writing changes down as pending.
//!
//! Purpose: what an update leaves in `[PENDING]` before anything is applied, with the rights and refusals that depend on
//! the values. Must not know: how pending changes are applied. Start at [`Recording`]. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, `update_vm_api`; PVE/AbstractConfig.pm).

use std::collections::BTreeSet;

use super::World;
use super::config::{keep_as_unused, volid};
use super::crypt::{encrypted, salt_from};
use super::drive;
use super::keys::{Change, normal_nic, normal_tags, stored};
use super::plan_disk::{Planned, Source, parse_drive};
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{State, Vm};
use super::update::{Update, is_net, print_order};
use super::work::Work;

/// The release of QEMU that is played.
pub(super) const QEMU: &str = "10.0.2";

/// An update that is being written down.
pub(super) struct Recording<'a> {
    /// The world.
    pub world: &'a World,
    /// The task it is part of.
    pub work: Option<&'a Work>,
    /// Who asks.
    pub caller: &'a Caller,
    /// The VM's node.
    pub node: &'a str,
    /// The VM.
    pub vmid: u32,
    /// The explicit boot order, as it is to become.
    pub order: Vec<String>,
    /// Keys that were touched.
    pub touched: &'a mut BTreeSet<String>,
}

fn is_on(vm: &Vm, key: &str) -> bool {
    vm.config.get(key).is_some_and(|flag| flag == "1")
}

impl Recording<'_> {
    /// Marks a key for deletion. A detached disk that is unused already is freed at once.
    pub(super) fn delete(&mut self, key: &str, force: bool) -> Rule<()> {
        self.touched.insert(key.to_owned());
        let (node, vmid) = (self.node, self.vmid);
        let (value, was_pending, protected) = {
            let mut state = self.world.state();
            let vm = state.vm_mut(node, vmid)?;
            let Some(value) = vm.config.get(key).or_else(|| vm.pending.get(key)).cloned() else {
                drop(state);
                self.touched.remove(key);
                if let Some(work) = self.work {
                    work.log(format!("cannot delete '{key}' - not set in current configuration!"));
                }
                return Ok(());
            };
            let was_pending = vm.pending.get(key).cloned();
            (value, was_pending, is_on(vm, "protection"))
        };
        if drive::is_unused(key) {
            return self.delete_unused(key, &value, protected);
        }
        if key == "vmstate" {
            return self.delete_memory(&value, protected);
        }
        if drive::is_drive(key) && protected {
            return Err(Refusal::failed(format!("can't remove drive '{key}' - protection mode enabled\n")));
        }
        {
            let state = self.world.state();
            if key == "tags" {
                state.check_tags(self.caller, vmid, &value, "")?;
            } else if super::keys::depends_on_value(key) {
                state.check_key(self.caller, vmid, None, key, Change::Delete(&value))?;
            } else if is_net(key) {
                state.check_nic(self.caller, &value)?;
            }
        }
        if let Some(value) = was_pending.filter(|_| drive::is_drive(key)) {
            self.world.register_unused(node, vmid, &value);
        }
        let mut state = self.world.state();
        let vm = state.vm_mut(node, vmid)?;
        vm.pending.remove(key);
        if self.order.iter().any(|device| device == key) {
            self.order.retain(|device| device != key);
            vm.pending.insert("boot".to_owned(), print_order(&self.order));
            self.touched.insert("boot".to_owned());
        }
        if key == "tags" {
            vm.config.remove(key);
        } else {
            vm.pending_delete.insert(key.to_owned(), force);
        }
        Ok(())
    }

    fn delete_unused(&self, key: &str, value: &str, protected: bool) -> Rule<()> {
        if protected {
            return Err(Refusal::failed(format!(
                "can't remove unused disk '{}' - protection mode enabled\n",
                volid(value).unwrap_or_default()
            )));
        }
        self.world.state().check(self.caller, &format!("/vms/{}", self.vmid), &["VM.Config.Disk"])?;
        self.world.deallocate(self.caller, self.node, self.vmid, key, value)?;
        self.world.state().vm_mut(self.node, self.vmid)?.config.remove(key);
        Ok(())
    }

    fn delete_memory(&self, value: &str, protected: bool) -> Rule<()> {
        if protected {
            return Err(Refusal::failed(format!("can't remove vmstate '{value}' - protection mode enabled\n")));
        }
        self.world.deallocate(self.caller, self.node, self.vmid, "vmstate", value)?;
        self.world.state().vm_mut(self.node, self.vmid)?.config.remove("vmstate");
        Ok(())
    }

    /// Makes what a drive asks for and writes it down.
    pub(super) async fn set_drive(&mut self, plan: &Planned) -> Rule<()> {
        let (key, node, vmid) = (plan.key.as_str(), self.node, self.vmid);
        self.touched.insert(key.to_owned());
        let pending = {
            let state = self.world.state();
            let vm = state.vm(node, vmid)?;
            let pending = vm.pending.get(key).cloned();
            let new = plan.options.print("file");
            if pending.as_ref() == Some(&new) {
                return Ok(());
            }
            if let Some(old) = vm.config.get(key) {
                state.check_key(self.caller, vmid, None, key, Change::Set(old))?;
                if key == "tpmstate0" {
                    keep_tpm_version(old, &plan.options)?;
                }
            }
            state.check_key(self.caller, vmid, None, key, Change::Set(&new))?;
            pending
        };
        if let Some(pending) = pending {
            self.world.register_unused(node, vmid, &pending);
        }
        let config = self.world.state().vm(node, vmid)?.config.clone();
        self.world.state().check_second_cloudinit(&config, plan)?;
        let value = self.world.make_disk(self.work, (node, vmid), plan, &config).await?;
        let mut state = self.world.state();
        let vm = state.vm_mut(node, vmid)?;
        let cdrom = matches!(plan.source, Source::Empty) || plan.options.get("media") == Some("cdrom");
        let cloudinit = volid(&value).is_some_and(|volid| drive::is_cloudinit(&volid));
        vm.pending.insert(key.to_owned(), value);
        vm.pending_delete.remove(key);
        // A new CD drive joins an explicit boot order; other disks have to be named.
        if cdrom && !cloudinit && !self.order.is_empty() && !self.order.iter().any(|device| device == key) {
            self.order.push(key.to_owned());
            vm.pending.insert("boot".to_owned(), print_order(&self.order));
            self.touched.insert("boot".to_owned());
        }
        forget_used(vm);
        Ok(())
    }

    /// Writes a value down.
    pub(super) fn set(&mut self, key: &str, value: &str, update: &Update) -> Rule<()> {
        self.touched.insert(key.to_owned());
        let vmid = self.vmid;
        let mut state = self.world.state();
        let vm = state.vm(self.node, vmid)?;
        if vm.pending.get(key).is_some_and(|pending| pending == value) {
            return Ok(());
        }
        let old = vm.config.get(key).cloned();
        if key == "tags" {
            state.check_tags(self.caller, vmid, old.as_deref().unwrap_or_default(), value)?;
        } else if super::keys::depends_on_value(key) {
            if let Some(old) = &old {
                state.check_key(self.caller, vmid, None, key, Change::Set(old))?;
            }
            state.check_key(self.caller, vmid, None, key, Change::Set(value))?;
        } else if let Some(old) = &old {
            if is_net(key) {
                state.check_nic(self.caller, old)?;
            } else if key == "rng0" {
                state.check_key(self.caller, vmid, None, key, Change::Set(old))?;
            }
        }
        let mut value = state.made_value(key, value)?;
        let windows = key == "ostype" && is_windows(&value);
        let salt = if key == "cipassword" { salt_from(&state.rng.uuid()) } else { String::new() };
        let vm = state.vm_mut(self.node, vmid)?;
        if key == "boot" {
            value = ordered(vm, value, update)?;
        }
        let explicit = update.set.contains_key("machine")
            || vm.pending.contains_key("machine")
            || self.touched.contains("machine");
        if windows && !explicit {
            let machine = vm.config.get("machine").cloned().unwrap_or_default();
            if let Some(pinned) = pinned_machine(&machine) {
                vm.pending.insert("machine".to_owned(), pinned);
            }
        }
        vm.pending_delete.remove(key);
        let windows = vm.config.get("ostype").is_some_and(|ostype| is_windows(ostype));
        if key == "cipassword" && !windows {
            vm.config.insert(key.to_owned(), encrypted(&value, &salt));
            return Ok(());
        }
        match stored(key, &value)? {
            Some(value) if key == "cipassword" => {
                vm.config.insert(key.to_owned(), value);
            }
            Some(value) => {
                vm.pending.insert(key.to_owned(), value);
            }
            None => {
                vm.pending.remove(key);
                vm.config.remove(key);
            }
        }
        Ok(())
    }
}

impl State {
    /// What a value becomes before it is stored.
    fn made_value(&mut self, key: &str, value: &str) -> Rule<String> {
        Ok(match key {
            _ if is_net(key) => {
                let mac = self.next_mac();
                drive::print_nic(&normal_nic(value, || mac))
            }
            "tags" => normal_tags(value, self.tag_style()),
            "vmgenid" if value == "1" => self.rng.uuid(),
            "cpuunits" => clamped_units(value),
            "vga" => check_clipboard(value)?.to_owned(),
            "machine" => check_iommu(value)?.to_owned(),
            _ => value.to_owned(),
        })
    }
}

/// Control groups know no more than that (PVE/CGroup.pm, `clamp_cpu_shares`).
pub(super) fn clamped_units(value: &str) -> String {
    if value.parse::<u64>().is_ok_and(|units| units > 10_000) { "10000".to_owned() } else { value.to_owned() }
}

/// A clipboard needs a display that has one.
pub(super) fn check_clipboard(vga: &str) -> Rule<&str> {
    let given = Properties::parse(vga, "type");
    let shows = |kind: &str| ["std", "cirrus", "vmware", "virtio", "qxl"].iter().any(|known| kind.starts_with(known));
    match given.get("type") {
        Some(kind) if given.get("clipboard") == Some("vnc") && !shows(kind) => {
            Err(Refusal::failed(format!("vga type {kind} is not compatible with VNC clipboard\n")))
        }
        _ => Ok(vga),
    }
}

/// Intel's IOMMU is part of one chipset.
pub(super) fn check_iommu(machine: &str) -> Rule<&str> {
    let given = Properties::parse(machine, "type");
    let q35 = given.get("type").is_some_and(|kind| kind.contains("q35"));
    if given.get("viommu") == Some("intel") && !q35 {
        return Err(Refusal::failed("to use Intel vIOMMU please set the machine type to q35\n"));
    }
    Ok(machine)
}

/// Whether an OS type is a Windows.
pub(super) fn is_windows(ostype: &str) -> bool {
    ostype.starts_with('w') && ostype != "other"
}

/// The machine that a Windows guest is nailed to, unless it is already; other parts are kept.
pub(super) fn pinned_machine(machine: &str) -> Option<String> {
    let mut given = Properties::parse(machine, "type");
    let release = QEMU.rsplit_once('.').map_or(QEMU, |(release, _)| release);
    let pinned = match given.get("type") {
        None | Some("pc") => format!("pc-i440fx-{release}"),
        Some("q35") => format!("pc-q35-{release}"),
        Some("virt") => format!("virt-{release}"),
        Some(_) => return None,
    };
    given.set("type", pinned);
    Some(given.print("type"))
}

/// A boot order names devices that exist; it replaces what there was of the old way.
fn ordered(vm: &mut Vm, value: String, update: &Update) -> Rule<String> {
    let given = Properties::parse(&value, "legacy");
    let order = given.get("order").unwrap_or_default();
    let order: Vec<String> = order.split([';', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect();
    for device in &order {
        let there =
            vm.config.contains_key(device) || vm.pending.contains_key(device) || update.set.contains_key(device);
        if !there || update.delete.contains(device) {
            return Err(Refusal::failed(format!("invalid bootorder: device '{device}' does not exist'\n")));
        }
    }
    if order.is_empty() {
        return Ok(value);
    }
    if vm.config.contains_key("bootdisk") {
        vm.pending_delete.insert("bootdisk".to_owned(), false);
    }
    Ok(print_order(&order))
}

fn keep_tpm_version(old: &str, new: &Properties) -> Rule<()> {
    let old = parse_drive(old);
    let version = |drive: &Properties| drive.get("version").unwrap_or("v1.2").to_owned();
    if old.get("file") == new.get("file") && version(&old) != version(new) {
        return Err(Refusal::failed("cannot change TPM state version after creation\n"));
    }
    Ok(())
}

/// Volumes that a drive uses are not unused.
pub(super) fn forget_used(vm: &mut Vm) {
    let used: BTreeSet<String> = vm
        .config
        .iter()
        .chain(&vm.pending)
        .filter(|(key, _)| drive::is_drive(key))
        .filter_map(|(_, value)| volid(value))
        .collect();
    vm.config.retain(|key, value| !(drive::is_unused(key) && used.contains(value.as_str())));
}

/// Drops pending changes that change nothing.
pub(super) fn clean_up(vm: &mut Vm) {
    let Vm { config, pending, pending_delete, .. } = vm;
    pending.retain(|key, value| config.get(key) != Some(value));
    pending_delete.retain(|key, _| config.contains_key(key));
}

impl World {
    /// Keeps the volume of a drive that lost its place; a cloud-init drive is made anew whenever it is needed.
    pub(super) fn register_unused(&self, node: &str, vmid: u32, value: &str) {
        let Some(volume) = volid(value) else { return };
        if drive::is_cloudinit(&volume) {
            // What can't be freed stays, as in the original.
            let _ = self.free_drive(node, vmid, value);
            return;
        }
        let mut state = self.state();
        if let Ok(vm) = state.vm_mut(node, vmid) {
            keep_as_unused(&mut vm.config, vmid, value);
        }
    }

    /// Frees the volume of a drive, if the VM owns it and nothing else uses it.
    pub(super) fn deallocate(&self, caller: &Caller, node: &str, vmid: u32, key: &str, value: &str) -> Rule<()> {
        let parsed = Properties::parse(value, "file");
        let volume = parsed.get("file").unwrap_or_default();
        if (drive::is_cdrom(&parsed) && !drive::is_cloudinit(volume)) || !super::config::owned(volume, vmid) {
            return Ok(());
        }
        {
            let state = self.state();
            let storage = volume.split(':').next().unwrap_or_default();
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            let vm = state.vm(node, vmid)?;
            let uses = |name: &String, value: &String| drive::is_drive(name) && volid(value).as_deref() == Some(volume);
            let held = vm.snapshots.values().flatten().any(|(name, value)| uses(name, value))
                || vm.config.iter().any(|(name, value)| name != key && uses(name, value));
            if held {
                return Err(Refusal::failed(format!(
                    "unable to delete '{volume}' - volume is still in use (snapshot?)\n"
                )));
            }
        }
        self.free_drive(node, vmid, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_guests_are_nailed_to_a_machine() {
        assert_eq!(pinned_machine("").as_deref(), Some("pc-i440fx-10.0"));
        assert_eq!(pinned_machine("q35,viommu=virtio").as_deref(), Some("pc-q35-10.0,viommu=virtio"));
        assert_eq!(pinned_machine("pc-q35-9.0"), None);
        assert!(is_windows("win11") && is_windows("wxp") && is_windows("w2k8") && !is_windows("l26"));
    }

    #[test]
    fn displays_and_machines_have_to_fit_together() {
        assert!(check_clipboard("qxl2,clipboard=vnc").is_ok());
        assert!(check_clipboard("serial0,clipboard=vnc").is_err());
        assert!(check_iommu("q35,viommu=intel").is_ok());
        assert!(check_iommu("viommu=intel").is_err());
    }

    #[test]
    fn a_change_to_what_is_there_is_none() {
        let mut vm = Vm::default();
        vm.config.insert("cores".to_owned(), "2".to_owned());
        vm.pending.insert("cores".to_owned(), "2".to_owned());
        vm.pending.insert("memory".to_owned(), "1024".to_owned());
        vm.pending_delete.insert("agent".to_owned(), false);
        clean_up(&mut vm);
        assert_eq!(vm.pending.keys().collect::<Vec<_>>(), ["memory"]);
        assert!(vm.pending_delete.is_empty());
    }
}
