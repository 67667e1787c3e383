//! From a plan to a drive.
//!
//! Purpose: makes the volume that a drive's value asks for (new, imported, cloud-init), and frees one that a drive
//! names. Must not know: which request it came with. Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm, `create_disks`).
//! Start at [`World::make_disk`].

use std::path::{Path, PathBuf};

use super::World;
use super::disks::{Copy, CopyOf, Place};
use super::drive;
use super::node_files::NodeFile;
use super::plan_disk::{Planned, Source};
use super::property::{Properties, print_size};
use super::refusal::{Refusal, Rule};
use super::state::{Config, Volume, VolumeKey};
use super::volume::Family;
use super::work::Work;

impl World {
    /// Makes what a checked drive asks for and says the value to store: a base volume, where the VM with that config is a
    /// template.
    pub async fn make_disk(
        &self,
        work: Option<&Work>,
        (node, vmid): (&str, u32),
        planned: &Planned,
        config: &Config,
    ) -> Rule<String> {
        let mut value = self.make_volume(work, (node, vmid), planned).await?;
        let based = match &planned.source {
            Source::New { .. } => true,
            Source::Import { from, .. } => VolumeKey::split(from).is_none(),
            Source::Empty | Source::Existing(_) => return Ok(value),
            Source::CloudInit { .. } => false,
        };
        if based && config.get("template").is_some_and(|flag| flag == "1") {
            match self.base_drive(work, node, &value) {
                Ok(base) => value = base,
                Err(refusal) => {
                    // What can't be freed stays, as in the original.
                    let _ = self.free_drive(node, vmid, &value);
                    return Err(refusal);
                }
            }
        }
        if let Some(work) = work {
            work.log(format!("{}: successfully created disk '{value}'", planned.key));
        }
        Ok(value)
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each kind of source")]
    async fn make_volume(&self, work: Option<&Work>, (node, vmid): (&str, u32), planned: &Planned) -> Rule<String> {
        let Planned { key, options, source } = planned;
        let mut stored = options.clone();
        let format = stored.get("format").map(str::to_owned);
        match source {
            Source::Empty => {
                stored.set("media", "cdrom");
                stored.remove("size");
                if stored.get("file") != Some("cdrom") {
                    stored.set("file", "none");
                }
                Ok(stored.print("file"))
            }
            Source::Existing(volid) => {
                let state = self.state();
                let Some((storage, _)) = VolumeKey::split(volid) else {
                    return Err(Refusal::failed(format!("volume {volid} does not exist\n")));
                };
                state.storage_on(storage, node)?;
                let volume = state.volume_key(node, volid).and_then(|key| state.volumes.get(&key));
                let known = volume.map(|volume| volume.format.as_str());
                if let (Some(wanted), Some(known)) = (&format, known)
                    && wanted != known
                {
                    return Err(Refusal::failed(format!(
                        "drive '{key}' - volume '{volid}' - 'format={wanted}' option different from storage format \
                         '{known}'\n"
                    )));
                }
                if key == "tpmstate0" && known.is_some_and(|known| known != "raw") {
                    let known = known.unwrap_or_default();
                    return Err(Refusal::failed(format!(
                        "tpmstate0: volume format is '{known}', only 'raw' is supported!\n"
                    )));
                }
                let Some(volume) = volume else {
                    return Err(Refusal::failed(format!("volume '{volid}' does not exist\n")));
                };
                if drive::is_cloudinit(volid) {
                    stored.set("media", "cdrom");
                    stored.remove("size");
                } else {
                    stored.set("size", print_size(volume.size));
                }
                Ok(stored.print("file"))
            }
            Source::CloudInit { storage } => {
                if storage.is_empty() {
                    return Err(Refusal::failed("no storage ID specified (and no default storage)\n"));
                }
                self.state().storage_on(storage, node)?;
                let place = Place { node, storage, vmid };
                let files =
                    self.state().storages.get(storage).map(super::state::Storage::family) == Some(Family::Files);
                let format = format.unwrap_or_else(|| if files { "qcow2" } else { "raw" }.to_owned());
                let name = if files && format == "raw" {
                    format!("{vmid}/vm-{vmid}-cloudinit.raw")
                } else if files {
                    format!("{vmid}/vm-{vmid}-cloudinit.{format}")
                } else {
                    format!("vm-{vmid}-cloudinit")
                };
                let made = self.allocate(&place, &format, CLOUD_INIT, Some(&name))?;
                self.log_made(work, &made, &format, CLOUD_INIT);
                stored.set("file", made.volid());
                stored.set("media", "cdrom");
                stored.remove("format");
                Ok(stored.print("file"))
            }
            Source::New { storage, size } => {
                let (default, efi) = {
                    let state = self.state();
                    let found = state.storage_on(storage, node)?;
                    (found.formats()[0].to_owned(), found.rounded(efi_size(stored.get("efitype"))))
                };
                let format = format.unwrap_or(default);
                let size = match key.as_str() {
                    "efidisk0" => efi,
                    "tpmstate0" => TPM_STATE,
                    _ => *size,
                };
                let format = if key == "tpmstate0" { "raw".to_owned() } else { format };
                let made = self.allocate(&Place { node, storage, vmid }, &format, size, None)?;
                self.log_made(work, &made, &format, size);
                if key == "efidisk0"
                    && stored.is_on("pre-enrolled-keys")
                    && let Some(work) = work
                {
                    let kind = if stored.get("efitype") == Some("4m") { "OVMF_VARS_4M" } else { "OVMF_VARS" };
                    let from = format!("/usr/share/pve-edk2-firmware//{kind}.ms.fd");
                    work.log(format!("INFO: reading raw edk2 varstore from {from}"));
                    work.log("INFO: var store range: 0x64 -> 0x40000");
                }
                stored.remove("format");
                stored.set("file", made.volid());
                stored.set("size", print_size(size));
                Ok(stored.print("file"))
            }
            Source::Import { storage, from } => {
                self.check_import_source(node, from)?;
                let source = self.import_source(node, from)?;
                let from_text = from.as_str();
                let from = match &source {
                    Found::Volume(key) => CopyOf::Volume(key),
                    Found::File(real) => CopyOf::File { real, shown: from },
                };
                let owner = self.drive_of_volume(node, &source);
                let managed = VolumeKey::split(from_text).is_some();
                let label = owner.as_ref().map_or_else(|| "drive ".to_owned(), |(_, key)| format!("drive {key} "));
                let live = owner.filter(|(vmid, _)| self.pid_of(*vmid).is_some());
                let blame = format!("cannot import from '{from_text}' - ");
                let copy = Copy {
                    from,
                    snapshot: None,
                    format: if key == "tpmstate0" { Some("raw") } else { format.as_deref() },
                    // What is no volume is not cloned but read in.
                    label: managed.then_some(label.as_str()),
                    blame: if managed { &blame } else { "" },
                    live: live.as_ref().map(|(_, key)| key.as_str()),
                    size: match key.as_str() {
                        "efidisk0" if managed => Some(efi_size(stored.get("efitype"))),
                        "tpmstate0" if managed => Some(TPM_STATE),
                        _ => None,
                    },
                };
                let made = self.copy_volume(work, &Place { node, storage, vmid }, &copy).await?;
                if let (Some((vmid, key)), Some(work)) = (live, work) {
                    self.part_from(work, vmid, &[key]);
                }
                let size = self.state().volumes.get(&made).map_or(0, |volume| volume.size);
                stored.remove("format");
                stored.remove("import-from");
                stored.set("file", made.volid());
                stored.set("size", print_size(size));
                Ok(stored.print("file"))
            }
        }
    }

    /// The VM and the drive that a volume is of.
    fn drive_of_volume(&self, node: &str, found: &Found) -> Option<(u32, String)> {
        let Found::Volume(key) = found else { return None };
        let state = self.state();
        let vmid = state.volumes.get(key)?.vmid?;
        let config = &state.vm(node, vmid).ok()?.config;
        let volid = key.volid();
        let drive = config.iter().find(|(key, value)| {
            drive::is_drive(key) && super::config::volid(value).as_deref() == Some(volid.as_str())
        })?;
        Some((vmid, drive.0.clone()))
    }

    /// What stands against an import of another VM's disk (Proxmox VE 8.4, `import_from_volid`).
    fn check_import_source(&self, node: &str, from: &str) -> Rule<()> {
        let state = self.state();
        let Some((storage, name)) = VolumeKey::split(from) else { return Ok(()) };
        let named = super::volume::parse_name(state.storage_on(storage, node)?, name).map_err(Refusal::Failed)?;
        if named.content != "images" {
            return Ok(());
        }
        let refuse = |text: String| Err(Refusal::failed(format!("cannot import from '{from}' - {text}\n")));
        if !state.volumes.contains_key(&state.key_on(node, storage, name)) {
            return refuse(format!("could not get size of {from}"));
        }
        if drive::is_cloudinit(from) {
            return refuse("cannot import from cloudinit disk".to_owned());
        }
        match named.vmid {
            Some(owner) if state.vms.get(&owner).is_some_and(|vm| vm.node != node) => {
                refuse(format!("owner VM {owner} not on local node"))
            }
            _ => Ok(()),
        }
    }

    /// What an import reads: a volume, or a file of the node.
    fn import_source(&self, node: &str, from: &str) -> Rule<Found> {
        let key = {
            let state = self.state();
            if from.starts_with('/') { state.volume_at(node, from) } else { state.volume_key(node, from) }
        };
        if let Some(key) = key {
            return Ok(Found::Volume(key));
        }
        match self.node_file(node, from) {
            Some(NodeFile::File { real, .. }) if real.is_file() => Ok(Found::File(real)),
            _ => Err(Refusal::failed(format!("can't find file '{from}'\n"))),
        }
    }

    /// Frees the volume of a drive's value, if there is one and it belongs to the VM.
    pub fn free_drive(&self, node: &str, vmid: u32, value: &str) -> Rule<()> {
        let drive = Properties::parse(value, "file");
        let Some(volid) = drive.get("file") else { return Ok(()) };
        if drive::is_cdrom(&drive) && !drive::is_cloudinit(volid) {
            return Ok(());
        }
        let key = {
            let state = self.state();
            let Some(key) = state.volume_key(node, volid) else { return Ok(()) };
            if state.volumes.get(&key).is_none_or(|volume| volume.vmid != Some(vmid)) {
                return Ok(());
            }
            key
        };
        self.free(&key)
    }
}

/// How big a new cloud-init drive is.
pub(super) const CLOUD_INIT: u64 = 4 << 20;
/// How big what a TPM keeps is.
pub(super) const TPM_STATE: u64 = 4 << 20;

/// Where the bytes of an import are.
enum Found {
    Volume(VolumeKey),
    File(PathBuf),
}

/// A file as if it were an uploaded volume: its format is what its first bytes say.
pub(super) fn found_file(real: &Path) -> Option<Volume> {
    use std::io::Read as _;
    let size = std::fs::metadata(real).ok()?.len();
    let mut magic = [0; 4];
    let length = std::fs::File::open(real).and_then(|mut file| file.read(&mut magic)).ok()?;
    let format = if length == 4 && &magic == b"QFI\xfb" { "qcow2" } else { "raw" };
    Some(Volume {
        content: "import".to_owned(),
        format: format.to_owned(),
        size,
        vmid: None,
        parent: None,
        ctime: 0,
        notes: None,
        protected: false,
        snapshots: std::collections::BTreeSet::new(),
    })
}

/// The size of what a UEFI firmware keeps: the vendor's file, whatever the disk that holds it is rounded to.
pub(super) fn efi_size(efitype: Option<&str>) -> u64 {
    if efitype == Some("4m") { 540_672 } else { 131_072 }
}
