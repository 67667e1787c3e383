//! A VM's configuration as PVE keeps it.
//!
//! Purpose: the raw keys, and questions about them answered in types. Compare parsed values, never texts: PVE stores most
//! property strings exactly as they were sent. Pure. Must not know: HTTP.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::decode;
use crate::property::{self, BootOrder, Disk, Nic, Properties, Tags};
use crate::types::{Mac, VolumeId};

/// The configuration of one VM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmConfig {
    /// Every key with its value in PVE's own syntax; a key that isn't there has its default.
    pub keys: BTreeMap<String, String>,
    /// Changes with every change of the configuration; send it along to change only what was read.
    pub digest: String,
}

impl From<Map<String, Value>> for VmConfig {
    fn from(data: Map<String, Value>) -> Self {
        let mut keys = decode::texts(&data);
        let digest = keys.remove("digest").unwrap_or_default();
        Self { keys, digest }
    }
}

impl VmConfig {
    /// A key's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// Whether a boolean key is set and on.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(property::is_on)
    }

    /// Its name; PVE shows `VM <id>` for those without.
    pub fn name(&self) -> Option<&str> {
        self.get("name")
    }

    /// Its tags.
    pub fn tags(&self) -> Tags {
        Tags::parse(self.get("tags").unwrap_or_default())
    }

    /// Its notes. The API gives them as plain text; only the file on the node is percent-encoded.
    pub fn description(&self) -> &str {
        self.get("description").unwrap_or_default()
    }

    /// The first line of the notes that begins with `prefix`.
    pub fn note(&self, prefix: &str) -> Option<&str> {
        self.description().lines().map(str::trim).find(|line| line.starts_with(prefix))
    }

    /// Whether it is a template. The only trustworthy place to ask: lists lag behind or leave it out.
    pub fn is_template(&self) -> bool {
        self.is_on("template")
    }

    /// Whether deletion is forbidden.
    pub fn is_protected(&self) -> bool {
        self.is_on("protection")
    }

    /// The lock on the configuration: `backup`, `clone` …
    pub fn lock(&self) -> Option<&str> {
        self.get("lock")
    }

    /// Its SMBIOS UUID, lower case.
    pub fn smbios_uuid(&self) -> Option<String> {
        self.properties("smbios1")?.get("uuid").map(str::to_lowercase)
    }

    /// Its generation id, lower case.
    pub fn vmgenid(&self) -> Option<String> {
        self.get("vmgenid").map(str::to_lowercase)
    }

    /// Unix seconds of its creation; VMs made by very old versions have none.
    pub fn created(&self) -> Option<u64> {
        self.properties("meta")?.get("ctime")?.parse().ok()
    }

    /// Memory in MiB, 512 when unset.
    pub fn memory_mib(&self) -> u64 {
        let current = self.properties("memory").and_then(|memory| {
            memory.bare.as_deref().or_else(|| memory.get("current")).and_then(|mib| mib.parse().ok())
        });
        current.unwrap_or(512)
    }

    /// Cores of all sockets, 1 when unset.
    pub fn cores(&self) -> u64 {
        let number = |key: &str| self.get(key).and_then(|value| value.parse().ok()).unwrap_or(1_u64);
        number("cores") * number("sockets")
    }

    /// What it boots from.
    pub fn boot_order(&self) -> BootOrder {
        self.get("boot").and_then(|boot| boot.parse().ok()).unwrap_or_default()
    }

    /// Every drive by key: disks, CD-ROMs, EFI and TPM state, and the detached (`unused0` …). A drive that can't be parsed
    /// is kept with its whole text as file, so that nothing that may hold data goes unseen.
    pub fn drives(&self) -> BTreeMap<String, Disk> {
        let drives = self.keys.iter().filter(|(key, _)| property::is_drive(key));
        drives
            .map(|(key, value)| {
                let parsed = value.parse();
                (key.clone(), parsed.unwrap_or_else(|_| Disk { file: value.clone(), options: BTreeMap::new() }))
            })
            .collect()
    }

    /// The volumes it owns or refers to, by key, CD-ROM images left out and the cloud-init drive included.
    pub fn volumes(&self) -> BTreeMap<String, VolumeId> {
        let drives = self.drives().into_iter().filter(|(_, drive)| !drive.holds_medium());
        drives.filter_map(|(key, drive)| drive.volume().map(|volume| (key, volume))).collect()
    }

    /// Its network devices by key (`net0` …).
    pub fn nics(&self) -> BTreeMap<String, Nic> {
        let nics = self.keys.iter().filter(|(key, _)| property::is_nic(key));
        nics.filter_map(|(key, value)| value.parse().ok().map(|nic| (key.clone(), nic))).collect()
    }

    /// Whether one of its network devices has this address.
    pub fn has_mac(&self, mac: Mac) -> bool {
        self.nics().values().any(|nic| nic.mac == Some(mac))
    }

    fn properties(&self, key: &str) -> Option<Properties> {
        self.get(key)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(data: Value) -> VmConfig {
        let Value::Object(map) = data else { panic!("a map") };
        map.into()
    }

    #[test]
    fn identity_and_drives_are_read_from_the_raw_keys() {
        let config = config(json!({
            "name": "single-cp-01", "digest": "f7c5", "memory": "2048", "cores": 2, "sockets": 1, "scsihw": "virtio-scsi-single",
            "tags": "talos;lab", "description": "first line\nrecast: run=r step=s cluster=c\n", "template": 1, "boot": "order=scsi0;ide2",
            "scsi0": "local-lvm:base-9000-disk-1,size=10G", "ide2": "local-lvm:vm-9000-cloudinit,media=cdrom",
            "ide0": "local:iso/x.iso,media=cdrom,size=100M", "efidisk0": "local-lvm:base-9000-disk-0,efitype=4m,size=4M",
            "unused0": "local-lvm:vm-9000-disk-7", "net0": "virtio=BC:24:11:84:19:03,bridge=vmbr0",
            "smbios1": "uuid=E43C2C36-35d3-4ac8-bfb0-5ee26fab36ec", "vmgenid": "e9f95bc2-fed2-48ff-b525-fe87dd104538",
            "meta": "creation-qemu=10.0.2,ctime=1795218566", "lock": "clone",
        }));
        assert!(config.is_template() && !config.is_protected());
        assert_eq!(config.digest, "f7c5");
        assert_eq!(config.smbios_uuid().as_deref(), Some("e43c2c36-35d3-4ac8-bfb0-5ee26fab36ec"));
        assert_eq!(
            (config.created(), config.lock(), config.memory_mib(), config.cores()),
            (Some(1_795_218_566), Some("clone"), 2048, 2)
        );
        assert_eq!(config.note("recast: "), Some("recast: run=r step=s cluster=c"));
        assert_eq!(config.boot_order().0, ["scsi0", "ide2"]);
        assert_eq!(config.volumes().keys().collect::<Vec<_>>(), ["efidisk0", "ide2", "scsi0", "unused0"]);
        assert_eq!(config.drives().len(), 5);
        assert!(config.has_mac("BC:24:11:84:19:03".parse().unwrap()));
    }

    #[test]
    fn absent_keys_have_their_defaults_and_odd_drives_are_kept() {
        let config = config(json!({ "scsi1": "a:b,size=1G,size=2G", "memory": 4096 }));
        assert_eq!((config.memory_mib(), config.cores(), config.is_template()), (4096, 1, false));
        assert!(config.drives().contains_key("scsi1"));
    }
}
