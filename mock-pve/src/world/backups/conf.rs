//! A VM's config as an archive holds it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use percent_encoding::percent_decode_str;

use crate::world::config;
use crate::world::drive;
use crate::world::plan_disk::parse_drive;
use crate::world::property::Properties;
use crate::world::state::{Config, State, Vm};
use crate::world::update::cloudinit_at;

/// A disk that goes into an archive.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    /// `scsi0`.
    pub key: String,
    /// `drive-scsi0`.
    pub device: String,
    /// The storage it was on.
    pub storage: String,
    /// `raw`.
    pub format: String,
}

/// Whether MACs and the like become new ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// They stay.
    Same,
    /// A VM of its own.
    Unique,
}

/// The config that goes into an archive, with the lines that tell of what does not.
pub(super) fn kept(vm: &Vm, disks: &[Disk]) -> (String, Vec<String>) {
    let mut said: Vec<String> = Vec::new();
    let mut config = vm.config.clone();
    config.retain(|key, value| {
        if drive::is_unused(key) {
            said.push(format!("skip unused drive '{value}' (not included into backup)"));
        }
        !drive::is_unused(key) && key != "lock" && key != "parent"
    });
    let mut text = config::text(&Vm { config, ..Vm::default() });
    for Disk { key, device, storage, format } in disks {
        // Writing to a string can't fail.
        let _ = writeln!(text, "#qmdump#map:{key}:{device}:{storage}:{format}:");
    }
    if !vm.cloudinit.is_empty() && cloudinit_at(&vm.config).is_some() {
        said.push("special config section found (not included into backup)".to_owned());
    }
    if !vm.snapshots.is_empty() {
        said.push("snapshots found (not included into backup)".to_owned());
    }
    if !vm.pending.is_empty() || !vm.pending_delete.is_empty() {
        said.push("pending configuration changes found (not included into backup)".to_owned());
    }
    (text, said)
}

/// The disks that a kept config tells of.
pub(super) fn disks(text: &str) -> Vec<Disk> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("#qmdump#map:"));
    let found = lines.filter_map(|line| {
        let parts: Vec<&str> = line.split(':').collect();
        let [key, device, storage, format, ""] = parts[..] else { return None };
        let format = if format.is_empty() { "raw" } else { format };
        let text = str::to_owned;
        Some(Disk { key: text(key), device: text(device), storage: text(storage), format: text(format) })
    });
    found.collect()
}

/// The values that a kept config has, without what is only said beside them.
pub(super) fn values(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().take_while(|line| !line.starts_with('['));
    lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(": ")).collect()
}

/// The config that a restored VM has: its drives are those of `made`.
pub(super) fn restored(state: &mut State, text: &str, made: &BTreeMap<String, String>, identity: Identity) -> Config {
    let unique = identity == Identity::Unique;
    let mut config = Config::new();
    let mut description: Vec<String> = Vec::new();
    for line in text.lines().take_while(|line| !line.starts_with('[')) {
        if line.starts_with("#qmdump#") || line.starts_with("#vzdump#") {
            continue;
        }
        if let Some(words) = line.strip_prefix('#') {
            description.push(percent_decode_str(words).decode_utf8_lossy().into_owned());
            continue;
        }
        let Some((key, value)) = line.split_once(':').map(|(key, value)| (key, value.trim())) else { continue };
        if key == "lock" || key == "parent" || drive::is_unused(key) {
            continue;
        }
        let value = match (key, drive::numbered(key)) {
            (_, Some(("net", _))) if unique => {
                let mut nic = drive::parse_nic(value);
                nic.set("macaddr", state.next_mac());
                drive::print_nic(&nic)
            }
            ("vmgenid", _) if value != "0" => state.rng.uuid(),
            ("smbios1", _) if unique => {
                let mut smbios = Properties::parse(value, "uuid");
                smbios.set("uuid", state.rng.uuid());
                smbios.print("")
            }
            _ if drive::is_drive(key) => {
                let mut options = parse_drive(value);
                if options.get("backup") == Some("0") {
                    // A line behind a hash is part of the description.
                    description.push(line.to_owned());
                    continue;
                }
                if let Some(volid) = made.get(key) {
                    options.remove("format");
                    options.set("file", volid.clone());
                    options.print("file")
                } else {
                    value.to_owned()
                }
            }
            _ => value.to_owned(),
        };
        config.insert(key.to_owned(), value);
    }
    if !description.is_empty() {
        config.insert("description".to_owned(), description.join("\n"));
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(lines: &[(&str, &str)]) -> Vm {
        let config = lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Vm { config, ..Vm::default() }
    }

    #[test]
    fn a_kept_config_says_where_its_disks_were_and_nothing_of_locks() {
        let mut vm = vm(&[
            ("cores", "2"),
            ("description", "a: b"),
            ("lock", "backup"),
            ("parent", "s1"),
            ("scsi0", "local-lvm:vm-100-disk-0,size=8G"),
            ("unused0", "local-lvm:vm-100-disk-1"),
        ]);
        vm.snapshots.insert("s1".to_owned(), Config::new());
        let disk = Disk {
            key: "scsi0".to_owned(),
            device: "drive-scsi0".to_owned(),
            storage: "local-lvm".to_owned(),
            format: "raw".to_owned(),
        };
        let (text, said) = kept(&vm, &[disk]);
        assert_eq!(
            text,
            "#a: b\ncores: 2\nscsi0: local-lvm:vm-100-disk-0,size=8G\n#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:\n"
        );
        assert_eq!(
            said,
            [
                "skip unused drive 'local-lvm:vm-100-disk-1' (not included into backup)",
                "snapshots found (not included into backup)"
            ]
        );
        let back = disks(&text);
        assert_eq!((back.len(), back[0].key.as_str(), back[0].storage.as_str()), (1, "scsi0", "local-lvm"));
        assert_eq!(values(&text)[0], ("cores", "2"));
    }
}
