//! Applying pending changes.
//!
//! Purpose: which changes reach a VM that runs and which wait until it is off. Must not know: how changes came to be
//! pending. Start at [`World::hot_plug`] and [`World::cold_plug`]. Rules after Proxmox VE 8.4 (PVE/QemuServer.pm,
//! `vmconfig_hotplug_pending`, `vmconfig_apply_pending`).

use std::collections::{BTreeMap, BTreeSet};

use super::World;
use super::cloudinit::note_change;
use super::config::volid;
use super::drive;
use super::keys::AT_ONCE;
use super::pending::{clean_up, forget_used};
use super::plan_disk::parse_drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, Vm};
use super::update::is_net;

/// Errors by key.
type Errors = BTreeMap<String, String>;

/// What can be plugged while a VM runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the original's")]
struct Features {
    network: bool,
    disk: bool,
    cpu: bool,
    memory: bool,
    usb: bool,
    cloudinit: bool,
}

impl Features {
    fn of(config: &Config) -> Self {
        let text = match config.get("hotplug").map(|text| text.trim()) {
            None | Some("1") => "network,disk,usb",
            Some("0") => "",
            Some(text) => text,
        };
        let has = |name: &str| text.split([',', ';', ' ']).any(|part| part == name);
        Self {
            network: has("network"),
            disk: has("disk"),
            cpu: has("cpu"),
            memory: has("memory"),
            usb: has("usb"),
            cloudinit: has("cloudinit"),
        }
    }
}

/// What becomes of a change while the VM runs.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is done.
    Done,
    /// It waits.
    Waits,
    /// A device is taken out first; the guest has to let go of it.
    Unplug,
    /// It failed.
    Failed(String),
}

fn takes_effect_at_once(key: &str) -> bool {
    AT_ONCE.contains(&key) || drive::numbered(key).is_some_and(|(stem, _)| stem == "ipconfig")
}

fn names(text: Option<&String>, word: &str) -> bool {
    text.is_some_and(|text| text.contains(word))
}

/// Whether a key can go while the VM runs.
fn fate_of_deletion(config: &Config, key: &str, can: Features) -> Fate {
    let when = |possible: bool, fate: Fate| if possible { fate } else { Fate::Waits };
    match key {
        "hotplug" => when(!names(config.get(key), "cpu") && !names(config.get(key), "memory"), Fate::Done),
        "tablet" => when(can.usb, Fate::Done),
        "vcpus" => when(can.cpu, Fate::Done),
        "memory" => when(can.memory, Fate::Done),
        "balloon" => when(config.get(key).is_none_or(|text| text != "0"), Fate::Done),
        "cpuunits" | "cpulimit" => Fate::Done,
        _ if takes_effect_at_once(key) => Fate::Done,
        _ if is_net(key) => when(can.network, Fate::Unplug),
        _ if drive::is_drive(key) => {
            let fixed = ["efidisk", "ide", "sata", "tpmstate"].iter().any(|bus| key.starts_with(bus));
            when(can.disk && !fixed, if boots_from(config, key) { unplug_boot_disk(key) } else { Fate::Unplug })
        }
        _ if usb(key) => when(can.usb && usb_guest(config), Fate::Unplug),
        _ => Fate::Waits,
    }
}

/// Whether a new value can be applied while the VM runs.
fn fate_of_value(config: &Config, key: &str, value: &str, can: Features) -> Fate {
    let when = |possible: bool, fate: Fate| if possible { fate } else { Fate::Waits };
    let old = config.get(key);
    match key {
        "hotplug" => {
            let keeps = |word: &str| !value.contains(word) && !names(old, word);
            when(keeps("memory") && keeps("cpu"), Fate::Done)
        }
        "tablet" => when(can.usb, Fate::Done),
        "vcpus" if can.cpu && value.parse::<u64>().is_ok_and(|cpus| cpus > most_cpus(config)) => {
            Fate::Failed("you can't add more vcpus than maxcpus\n".to_owned())
        }
        "vcpus" => when(can.cpu, Fate::Done),
        "memory" if can.memory && asked_memory(value) < STATIC_MEMORY => {
            let text = "memory can't be lower than 1024 MB at /usr/share/perl5/PVE/QemuServer/Memory.pm line 236.\n";
            Fate::Failed(text.to_owned())
        }
        "memory" => when(can.memory, Fate::Done),
        "balloon" => when(old.is_none_or(|old| old != "0") == (value != "0"), Fate::Done),
        "cpuunits" | "cpulimit" => Fate::Done,
        "agent" => when(old.is_some_and(|old| same_agent(old, value)), Fate::Done),
        _ if is_net(key) => fate_of_nic(old.map(String::as_str), value, can),
        "efidisk0" | "tpmstate0" => Fate::Waits,
        _ if drive::is_drive(key) => fate_of_drive(config, key, value, can),
        _ if usb(key) => when(can.usb && usb_guest(config), Fate::Done),
        _ => Fate::Waits,
    }
}

/// What a VM whose memory is plugged while it runs has at least, in MiB.
const STATIC_MEMORY: u64 = 1024;

fn asked_memory(value: &str) -> u64 {
    drive::memory_mib(&Config::from([("memory".to_owned(), value.to_owned())]))
}

/// All processors that a VM may ever have.
fn most_cpus(config: &Config) -> u64 {
    let number = |key: &str| config.get(key).and_then(|text| text.parse::<u64>().ok());
    number("sockets").or(number("smp")).unwrap_or(1).saturating_mul(number("cores").unwrap_or(1))
}

/// Refuses to start a VM that couldn't take memory while it runs, though it should (PVE/QemuServer/Memory.pm, `config`).
pub(super) fn check_memory(config: &Config) -> Rule<()> {
    if !Features::of(config).memory {
        return Ok(());
    }
    if config.get("numa").is_none_or(|flag| flag != "1") {
        return Err(Refusal::failed("NUMA needs to be enabled for memory hotplug\n"));
    }
    if drive::memory_mib(config) < STATIC_MEMORY {
        return Err(Refusal::failed(format!("minimum memory must be {STATIC_MEMORY}MB\n")));
    }
    Ok(())
}

fn usb(key: &str) -> bool {
    drive::numbered(key).is_some_and(|(stem, _)| stem == "usb")
}

/// Guests whose USB controller takes new devices.
fn usb_guest(config: &Config) -> bool {
    config.get("ostype").is_some_and(|ostype| ostype == "l26" || matches!(ostype.as_str(), "win8" | "win10" | "win11"))
}

fn boots_from(config: &Config, key: &str) -> bool {
    drive::boot_order(config).iter().any(|device| device == key)
}

fn unplug_boot_disk(key: &str) -> Fate {
    Fate::Failed(format!("can't unplug bootdisk '{key}'\n"))
}

/// Only whether cloned disks are trimmed may change.
fn same_agent(old: &str, new: &str) -> bool {
    let rest = |text: &str| {
        let mut agent = Properties::parse(text, "enabled");
        agent.remove("fstrim_cloned_disks");
        agent.print("")
    };
    rest(old) == rest(new)
}

fn fate_of_nic(old: Option<&str>, value: &str, can: Features) -> Fate {
    let Some(old) = old.map(drive::parse_nic) else {
        return if can.network { Fate::Done } else { Fate::Waits };
    };
    let new = drive::parse_nic(value);
    let same = |key: &str| old.get(key) == new.get(key);
    let stays = ["model", "macaddr", "queues", "mtu"].into_iter().all(same)
        && old.get("bridge").is_some()
        && new.get("bridge").is_some();
    match (stays, can.network) {
        (true, _) => Fate::Done,
        (false, true) => Fate::Unplug,
        (false, false) => Fate::Waits,
    }
}

fn fate_of_drive(config: &Config, key: &str, value: &str, can: Features) -> Fate {
    let new = parse_drive(value);
    let Some(old) = config.get(key).map(|old| parse_drive(old)) else {
        let fixed = key.starts_with("ide") || key.starts_with("sata");
        return if can.disk && !fixed { Fate::Done } else { Fate::Waits };
    };
    if drive::is_cdrom(&old) != drive::is_cdrom(&new) {
        return Fate::Failed("unable to change media type\n".to_owned());
    }
    if drive::is_cdrom(&old) {
        return Fate::Done;
    }
    if old.get("file") == new.get("file") {
        let fixed = ["aio", "discard", "iothread", "queues", "product", "cache", "ssd", "vendor", "ro"];
        return if fixed.into_iter().all(|key| old.get(key) == new.get(key)) { Fate::Done } else { Fate::Waits };
    }
    match (can.disk, boots_from(config, key)) {
        (false, _) => Fate::Waits,
        (true, true) => unplug_boot_disk(key),
        (true, false) if key.starts_with("ide") || key.starts_with("sata") => {
            Fate::Failed(format!("can't unplug device '{key}'\n"))
        }
        (true, false) => Fate::Unplug,
    }
}

/// What the guest has to let go of: a disk with a controller of its own goes with that.
fn device(config: &Config, key: &str) -> Option<String> {
    let (bus, number) = drive::numbered(key)?;
    match bus {
        "scsi" if config.get("scsihw").is_some_and(|kind| kind == "virtio-scsi-single") => {
            Some(format!("virtioscsi{number}"))
        }
        // A disk of many on one controller needs nobody's consent.
        "scsi" => None,
        _ => Some(key.to_owned()),
    }
}

impl World {
    /// Applies what a running VM can take of the touched keys; the rest stays pending. Says what failed.
    pub(super) async fn hot_plug(&self, caller: &Caller, node: &str, vmid: u32, touched: &BTreeSet<String>) -> Errors {
        let mut errors = Errors::new();
        let (deletions, values, can) = {
            let mut state = self.state();
            let Ok(vm) = state.vm_mut(node, vmid) else { return errors };
            let fast: Vec<String> = vm.pending.keys().filter(|key| takes_effect_at_once(key)).cloned().collect();
            for key in fast {
                commit(vm, &key);
            }
            let deletions: Vec<(String, bool)> = vm
                .pending_delete
                .iter()
                .filter(|(key, _)| touched.contains(*key))
                .map(|(key, force)| (key.clone(), *force))
                .collect();
            let values: Vec<(String, String)> = vm
                .pending
                .iter()
                .filter(|(key, _)| touched.contains(*key))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect();
            (deletions, values, Features::of(&vm.config))
        };
        for (key, force) in deletions {
            let Some(config) = self.config_of(node, vmid) else { return errors };
            let fate = self.let_go(vmid, &config, &key, fate_of_deletion(&config, &key, can)).await;
            let done = match fate {
                Fate::Done | Fate::Unplug => {
                    self.drop_key(caller, node, vmid, &key, force).map_err(|no| full_text(&no))
                }
                Fate::Waits => continue,
                Fate::Failed(text) => Err(text),
            };
            if let Err(text) = done {
                errors.insert(key, format!("hotplug problem - {text}"));
            }
        }
        for (key, value) in values {
            let Some(config) = self.config_of(node, vmid) else { return errors };
            let mut fate = fate_of_value(&config, &key, &value, can);
            if is_net(&key) && matches!(fate, Fate::Done | Fate::Unplug) && !self.has_bridge(node, &value) {
                fate = Fate::Failed(format!(
                    "VM {vmid} qmp command 'netdev_add' failed - network script \
                     /usr/libexec/qemu-server/pve-bridge-hotplug failed with status 512\n"
                ));
            }
            match self.let_go(vmid, &config, &key, fate).await {
                Fate::Done | Fate::Unplug => self.take_value(node, vmid, &key, &value),
                Fate::Waits => {}
                Fate::Failed(text) => {
                    errors.insert(key, format!("hotplug problem - {text}"));
                }
            }
        }
        if can.cloudinit
            && let Ok(vm) = self.state().vm_mut(node, vmid)
            && super::update::cloudinit_at(&vm.config).is_some()
        {
            // The drive is made anew at once.
            vm.cloudinit.clear();
        }
        errors
    }

    fn config_of(&self, node: &str, vmid: u32) -> Option<Config> {
        self.state().vm(node, vmid).ok().map(|vm| vm.config.clone())
    }

    /// Waits for the guest where a device is to be taken out: one that runs no system never answers.
    async fn let_go(&self, vmid: u32, config: &Config, key: &str, fate: Fate) -> Fate {
        let Some(device) = device(config, key).filter(|_| fate == Fate::Unplug) else { return fate };
        let another =
            || self.boot(vmid).and_then(|boot| boot.disk).is_some_and(|disk| super::guest::boots_another(&disk));
        if self.guest(vmid).is_some() || another() {
            return fate;
        }
        self.clock().sleep(5.0).await;
        Fate::Failed(format!("error on hot-unplugging device '{device}'\n"))
    }

    fn has_bridge(&self, node: &str, nic: &str) -> bool {
        let nic = drive::parse_nic(nic);
        let Some(bridge) = nic.get("bridge") else { return true };
        let known = self.state().nodes.get(node).is_some_and(|node| {
            node.network.iter().any(|iface| iface.get("iface").and_then(|name| name.as_str()) == Some(bridge))
        });
        known || self.network(bridge).is_some()
    }

    /// Makes a deletion true: a disk is detached or, if so wanted, freed.
    fn drop_key(&self, caller: &Caller, node: &str, vmid: u32, key: &str, force: bool) -> Rule<()> {
        let value = self.state().vm(node, vmid)?.config.get(key).cloned();
        if let Some(value) = value.filter(|_| drive::is_drive(key)) {
            if force {
                self.state().check(caller, &format!("/vms/{vmid}"), &["VM.Config.Disk"])?;
                self.deallocate(caller, node, vmid, key, &value)?;
            } else {
                self.register_unused(node, vmid, &value);
            }
        }
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        vm.pending_delete.remove(key);
        let old = vm.config.remove(key);
        if let Some(running) = &mut vm.running {
            running.config.remove(key);
            note_change(vm, key, old.as_deref(), None);
        }
        Ok(())
    }

    /// Makes a pending value true; the volume of a disk that it replaces is kept.
    fn take_value(&self, node: &str, vmid: u32, key: &str, value: &str) {
        let old = self.state().vm(node, vmid).ok().and_then(|vm| vm.config.get(key).cloned());
        if let Some(old) = old.filter(|_| drive::is_drive(key))
            && volid(&old) != volid(value)
        {
            self.register_unused(node, vmid, &old);
        }
        let mut state = self.state();
        if let Ok(vm) = state.vm_mut(node, vmid) {
            commit(vm, key);
            forget_used(vm);
        }
    }

    /// Applies all that is pending to a VM that is off. Says what failed.
    pub(super) fn cold_plug(&self, caller: &Caller, node: &str, vmid: u32) -> Errors {
        let mut errors = Errors::new();
        let deletions = match self.state().vm(node, vmid) {
            Ok(vm) => vm.pending_delete.clone(),
            Err(_) => return errors,
        };
        for (key, force) in deletions {
            if let Err(refusal) = self.drop_key(caller, node, vmid, &key, force) {
                errors.insert(key.clone(), format!("unable to apply pending change {key} : {}", full_text(&refusal)));
            }
        }
        let values = {
            let mut state = self.state();
            let Ok(vm) = state.vm_mut(node, vmid) else { return errors };
            clean_up(vm);
            vm.pending.clone()
        };
        for (key, value) in values {
            self.take_value(node, vmid, &key, &value);
        }
        let mut state = self.state();
        if let Ok(vm) = state.vm_mut(node, vmid) {
            old_processors(&mut vm.config);
            forget_used(vm);
        }
        errors
    }

    /// The same at a start or a stop, where nobody hears of failures.
    pub(super) fn apply_pending(&self, vmid: u32) {
        let node = self.state().vms.get(&vmid).map(|vm| vm.node.clone());
        if let Some(node) = node {
            for (key, error) in self.cold_plug(&Caller::root(), &node, vmid) {
                tracing::debug!(vmid, key, error, "a pending change stays");
            }
        }
    }
}

/// A text with the line end that it has where it is said.
fn full_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Failed(text) => text.clone(),
        other => other.text(),
    }
}

/// A pending value becomes the config's, and the running VM's.
fn commit(vm: &mut Vm, key: &str) {
    let Some(value) = vm.pending.remove(key) else { return };
    let old = vm.config.insert(key.to_owned(), value.clone());
    if let Some(running) = &mut vm.running {
        running.config.insert(key.to_owned(), value.clone());
        note_change(vm, key, old.as_deref(), Some(&value));
    }
}

/// The number of processors of old has become the number of sockets.
pub(super) fn old_processors(config: &mut Config) {
    let Some(number) = config.remove("smp") else { return };
    if !config.contains_key("sockets") {
        config.remove("cores");
        config.insert("sockets".to_owned(), number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &[(&str, &str)]) -> Config {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_a_running_vm_takes() {
        let lines = config(&[
            ("scsi0", "l:vm-1-disk-0,size=1G"),
            ("scsi1", "l:vm-1-disk-1,size=1G"),
            ("ide2", "none,media=cdrom"),
            ("boot", "order=scsi0"),
            ("net0", "virtio=02:00:00:00:00:01,bridge=vmbr0"),
            ("agent", "1"),
        ]);
        let can = Features::of(&lines);
        let value = |key: &str, value: &str| fate_of_value(&lines, key, value, can);
        assert_eq!(value("cores", "4"), Fate::Waits);
        assert_eq!(value("memory", "2048"), Fate::Waits);
        assert_eq!(value("cpulimit", "2"), Fate::Done);
        assert_eq!(value("scsi2", "l:vm-1-disk-2,size=1G"), Fate::Done);
        assert_eq!(value("sata0", "l:vm-1-disk-2,size=1G"), Fate::Waits);
        assert_eq!(value("ide2", "l:iso/x.iso,media=cdrom"), Fate::Done);
        assert_eq!(value("ide2", "l:vm-1-disk-3"), Fate::Failed("unable to change media type\n".to_owned()));
        assert_eq!(value("scsi1", "l:vm-1-disk-1,discard=on,size=1G"), Fate::Waits);
        assert_eq!(value("scsi1", "l:vm-1-disk-1,mbps=10,size=1G"), Fate::Done);
        assert_eq!(value("scsi1", "l:vm-1-disk-9,size=1G"), Fate::Unplug);
        assert_eq!(value("scsi0", "l:vm-1-disk-9,size=1G"), unplug_boot_disk("scsi0"));
        assert_eq!(value("net0", "virtio=02:00:00:00:00:01,bridge=vmbr1,tag=5"), Fate::Done);
        assert_eq!(value("net0", "e1000=02:00:00:00:00:01,bridge=vmbr0"), Fate::Unplug);
        assert_eq!(value("agent", "enabled=1,fstrim_cloned_disks=1"), Fate::Done);
        assert_eq!(value("agent", "0"), Fate::Waits);
        let gone = |key: &str| fate_of_deletion(&lines, key, can);
        assert_eq!(gone("scsi1"), Fate::Unplug);
        assert_eq!(gone("ide2"), Fate::Waits);
        assert_eq!(gone("serial0"), Fate::Waits);
        let none = Features::of(&config(&[("hotplug", "0")]));
        assert_eq!(fate_of_deletion(&lines, "net0", none), Fate::Waits);
    }

    #[test]
    fn the_number_of_processors_becomes_sockets() {
        let mut lines = config(&[("smp", "4"), ("cores", "2")]);
        old_processors(&mut lines);
        assert_eq!(lines, config(&[("sockets", "4")]));
    }
}
