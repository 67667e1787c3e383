//! VM configs as text.
//!
//! Purpose: the config file's text and digest, detached disks. Must not know: requests, storages. Start at
//! [`digest`]. File layout after Proxmox VE 8.4 (PVE/QemuServer.pm, `write_vm_config`).

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

use super::drive;
use super::property::Properties;
use super::state::{Config, Vm};

/// The volume of a drive's value.
pub fn volid(value: &str) -> Option<String> {
    Properties::parse(value, "file").get("file").map(str::to_owned)
}

/// Puts a drive's volume under the next free `unusedN`, if it belongs to the VM and is no CD-ROM.
pub fn keep_as_unused(config: &mut Config, vmid: u32, value: &str) -> Option<String> {
    let parsed = Properties::parse(value, "file");
    let volid = parsed.get("file")?;
    if drive::is_cdrom(&parsed) || !owned(volid, vmid) {
        return None;
    }
    if let Some((key, _)) = config.iter().find(|(key, value)| drive::is_unused(key) && *value == volid) {
        return Some(key.clone());
    }
    let key = (0..256).map(|n| format!("unused{n}")).find(|key| !config.contains_key(key))?;
    config.insert(key.clone(), volid.to_owned());
    Some(key)
}

/// Whether a volume's name says that it belongs to a VM.
pub fn owned(volid: &str, vmid: u32) -> bool {
    let file = volid.rsplit(['/', ':']).next().unwrap_or_default();
    [format!("vm-{vmid}-"), format!("base-{vmid}-")].iter().any(|prefix| file.starts_with(prefix.as_str()))
}

/// The config file's text.
pub fn text(vm: &Vm) -> String {
    let mut text = String::new();
    section(&mut text, &vm.config);
    if !vm.pending.is_empty() || !vm.pending_delete.is_empty() {
        text.push_str("\n[PENDING]\n");
        if !vm.pending_delete.is_empty() {
            let keys: Vec<String> = vm
                .pending_delete
                .iter()
                .map(|(key, force)| if *force { format!("!{key}") } else { key.clone() })
                .collect();
            // Writing to a string can't fail; here and below.
            let _ = writeln!(text, "delete: {}", keys.join(","));
        }
        section(&mut text, &vm.pending);
    }
    if !vm.cloudinit.is_empty() && super::update::cloudinit_at(&vm.config).is_some() {
        text.push_str("\n[special:cloudinit]\n");
        section(&mut text, &vm.cloudinit);
    }
    for (name, snapshot) in &vm.snapshots {
        let _ = write!(text, "\n[{name}]\n");
        section(&mut text, snapshot);
    }
    text
}

fn section(text: &mut String, config: &Config) {
    if let Some(description) = config.get("description") {
        for line in description.lines() {
            let _ = writeln!(text, "#{line}");
        }
    }
    for (key, value) in config.iter().filter(|(key, _)| *key != "description") {
        let _ = writeln!(text, "{key}: {value}");
    }
}

/// SHA-1 of the text: any change alters it.
pub fn digest(vm: &Vm) -> String {
    digest_of(&text(vm))
}

/// SHA-1 of any text.
pub fn digest_of(text: &str) -> String {
    hex::encode(Sha1::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detached_disk_becomes_unused_once_and_a_foreign_one_does_not() {
        let mut config = Config::new();
        assert_eq!(keep_as_unused(&mut config, 100, "l:vm-100-disk-0,size=1G").as_deref(), Some("unused0"));
        assert_eq!(keep_as_unused(&mut config, 100, "l:vm-100-disk-0").as_deref(), Some("unused0"));
        assert_eq!(keep_as_unused(&mut config, 100, "l:vm-101-disk-0"), None);
        assert_eq!(keep_as_unused(&mut config, 100, "l:vm-100-cloudinit,media=cdrom"), None);
    }

    #[test]
    fn every_change_alters_the_digest() {
        let mut vm = Vm::default();
        let before = digest(&vm);
        vm.pending.insert("memory".to_owned(), "1024".to_owned());
        assert_ne!(digest(&vm), before);
    }
}
