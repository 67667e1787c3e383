//! What a drive's value asks for.
//!
//! Purpose: a new disk, an import, a cloud-init drive or a volume that exists, and all checks on it that come before any
//! work. Must not know: how volumes are made. Start at [`State::clean_drive`], then [`State::check_drive_access`]. Rules
//! after Proxmox VE 8.4 (PVE/API2/Qemu.pm, `check_drive_param`, `check_storage_access`; PVE/QemuServer/Drive.pm).

use super::config::volid;
use super::drive;
use super::property::{Properties, parse_size};
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, VolumeKey};
use super::update::cloudinit_at;
use super::volume::parse_name;

/// What a drive's value asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// No medium.
    Empty,
    /// A volume that exists.
    Existing(String),
    /// A new cloud-init drive.
    CloudInit {
        /// Where.
        storage: String,
    },
    /// A new volume.
    New {
        /// Where.
        storage: String,
        /// How big, in bytes.
        size: u64,
    },
    /// A new volume with the contents of another.
    Import {
        /// Where.
        storage: String,
        /// Volume id, or a path as the node would see it.
        from: String,
    },
}

/// A drive that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// `scsi0`.
    pub key: String,
    /// All its options.
    pub options: Properties,
    /// What is asked for.
    pub source: Source,
}

const SWITCHES: &[&str] = &[
    "backup",
    "detect_zeroes",
    "iothread",
    "pre-enrolled-keys",
    "replicate",
    "ro",
    "scsiblock",
    "shared",
    "snapshot",
    "ssd",
];

/// Options of a drive with aliases resolved and switches as 0 or 1.
pub fn parse_drive(text: &str) -> Properties {
    let mut drive = Properties::parse(text, "file");
    for (key, value) in &mut drive.parts {
        if key == "volume" {
            "file".clone_into(key);
        }
        if key.starts_with("bps") || key.starts_with("iops") {
            *key = key
                .strip_suffix("_length")
                .filter(|stem| !stem.ends_with("_max"))
                .map_or_else(|| key.clone(), |stem| format!("{stem}_max_length"));
        }
        if SWITCHES.contains(&key.as_str()) {
            *value = switch(value);
        }
    }
    drive
}

/// 0 or 1 of the words that property strings accept.
pub fn switch(value: &str) -> String {
    match value {
        _ if ["on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word)) => "1".to_owned(),
        _ if ["off", "no", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)) => "0".to_owned(),
        other => other.to_owned(),
    }
}

/// `[storage:]number`.
fn new_disk(file: &str) -> Option<(Option<&str>, u64)> {
    let (storage, number) = match file.split_once(':') {
        Some((storage, number)) => (Some(storage), number),
        None => (None, file),
    };
    if storage.is_some_and(|storage| storage.is_empty() || storage.contains(['/', ' '])) {
        return None;
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let bytes = parse_size(&format!("{number}G"))?;
    // Whole KiB, rounded up.
    Some((storage, bytes.checked_next_multiple_of(1024)?))
}

/// What a drive's file asks for. A storage that isn't named is empty.
fn source_of(options: &Properties) -> Source {
    let file = options.get("file").unwrap_or_default();
    if file.is_empty() || file == "none" || file == "cdrom" {
        return Source::Empty;
    }
    if let Some(storage) = file.strip_suffix(":cloudinit").or((file == "cloudinit").then_some("")) {
        return Source::CloudInit { storage: storage.to_owned() };
    }
    match new_disk(file) {
        Some((storage, size)) => {
            let storage = storage.unwrap_or_default().to_owned();
            match options.get("import-from") {
                Some(from) => Source::Import { storage, from: from.to_owned() },
                None => Source::New { storage, size },
            }
        }
        None => Source::Existing(file.to_owned()),
    }
}

/// A drive as it was given, not checked at all.
pub fn raw_drive(key: &str, value: &str) -> Planned {
    let options = parse_drive(value);
    let source = source_of(&options);
    Planned { key: key.to_owned(), options, source }
}

impl Planned {
    /// The same on a storage that goes without saying.
    #[must_use]
    pub fn or_on(mut self, default: Option<&str>) -> Self {
        if let Source::New { storage, .. } | Source::Import { storage, .. } | Source::CloudInit { storage } =
            &mut self.source
            && storage.is_empty()
        {
            default.unwrap_or_default().clone_into(storage);
        }
        self
    }
}

/// Options that make no sense together.
fn contradicts(key: &str, options: &Properties) -> bool {
    let has = |name: &str| options.get(name).is_some_and(|value| !value.is_empty() && value != "0");
    let needs = [
        ("mbps_max", "mbps"),
        ("mbps_rd_max", "mbps_rd"),
        ("mbps_wr_max", "mbps_wr"),
        ("bps_max_length", "mbps_max"),
        ("bps_rd_max_length", "mbps_rd_max"),
        ("bps_wr_max_length", "mbps_wr_max"),
        ("iops_max_length", "iops_max"),
        ("iops_rd_max_length", "iops_rd_max"),
        ("iops_wr_max_length", "iops_wr_max"),
    ];
    let excludes = [("mbps_rd", "mbps"), ("mbps_wr", "mbps"), ("iops_rd", "iops"), ("iops_wr", "iops")];
    let disk_only = ["snapshot", "trans", "format", "heads", "secs", "cyls"];
    needs.iter().any(|(option, other)| has(option) && !has(other))
        || excludes.iter().any(|(option, other)| has(option) && has(other))
        || (drive::is_cdrom(options) && (disk_only.into_iter().any(has) || key.starts_with("virtio")))
        || options.get("size").is_some_and(|size| parse_size(size).is_none())
}

fn import_syntax() -> &'static str {
    "'import-from' requires special syntax - use <storage ID>:0,import-from=<source>"
}

fn no_storage() -> Refusal {
    Refusal::failed("no storage ID specified (and no default storage)\n")
}

fn only_root() -> Refusal {
    Refusal::failed("Only root can pass arbitrary filesystem paths. at /usr/share/perl5/PVE/Storage.pm line 581.\n")
}

impl State {
    /// Checks a drive's options; a path becomes the volume that it is.
    pub fn clean_drive(&self, node: &str, key: &str, value: &str) -> Rule<Planned> {
        let mut plan = raw_drive(key, value);
        if contradicts(key, &plan.options) {
            return Err(Refusal::param(key, "unable to parse drive options"));
        }
        if plan.options.get("import-from").is_some() {
            let size = new_disk(plan.options.get("file").unwrap_or_default()).map(|(_, size)| size);
            if size != Some(0) {
                return Err(Refusal::param(key, import_syntax()));
            }
            let needed: &[&str] = match key {
                "efidisk0" => &["efitype", "pre-enrolled-keys"],
                "tpmstate0" => &["version"],
                _ => &[],
            };
            if let Some(missing) = needed.iter().find(|name| plan.options.get(name).is_none()) {
                return Err(Refusal::param(key, format!("need to specify '{missing}' when using 'import-from'")));
            }
        }
        let file = plan.options.get("file").unwrap_or_default().to_owned();
        let plain = file == "none" || file == "cdrom" || file.starts_with("/dev/") || file.contains(':');
        if !plain && !file.chars().all(|c| c.is_ascii_digit()) {
            let found = self.volume_at(node, &file);
            let named = found.as_ref().and_then(|volume| {
                self.storages.get(&volume.storage).and_then(|storage| parse_name(storage, &volume.name).ok())
            });
            let (Some(volume), Some(named)) = (found, named) else {
                let text = format!("unable to associate path '{file}' to any storage");
                return Err(Refusal::param(key, text));
            };
            if named.content == "iso" && plan.options.get("media").is_none() {
                plan.options.set("media", "cdrom");
            }
            let media = plan.options.get("media").unwrap_or("disk").to_owned();
            let wanted = if media == "cdrom" { "iso" } else { "images" };
            if named.content != wanted {
                let text = format!("unexpected media type ({} != {wanted})\n", named.content);
                return Err(Refusal::param(key, text));
            }
            plan.options.set("file", volume.volid());
        }
        if (file == "none" || file == "cdrom") && plan.options.get("media").is_none() {
            plan.options.set("media", "cdrom");
        }
        plan.source = source_of(&plan.options);
        if let Source::Existing(file) = &plan.source
            && let Some((storage, name)) = VolumeKey::split(file)
        {
            let found = self.known_storage(storage)?;
            let named = parse_name(found, name).map_err(Refusal::Failed)?;
            if named.content == "iso" && !drive::is_cdrom(&plan.options) {
                return Err(Refusal::param(key, "explicit 'media=cdrom' is required for iso images"));
            }
        }
        Ok(plan)
    }

    /// Refuses a disk of a VM with replication jobs that can't be replicated.
    pub fn check_replicable(&self, vmid: u32, plan: &Planned) -> Rule<()> {
        let is_replicated =
            self.replication.iter().any(|job| super::destroy::is_guest(job, vmid) && job.get("remove_job").is_none());
        let file = plan.options.get("file").unwrap_or_default();
        if !is_replicated
            || file.is_empty()
            || plan.options.get("replicate") == Some("0")
            || drive::is_cdrom(&plan.options)
        {
            return Ok(());
        }
        let Some((storage, name)) = VolumeKey::split(file) else {
            return Err(Refusal::failed("cannot add non-managed/pass-through volume to a replicated VM\n"));
        };
        let found = self.known_storage(storage)?;
        if name == "cloudinit" || found.kind == "zfspool" || found.shared() {
            return Ok(());
        }
        Err(Refusal::failed("cannot add non-replicatable volume to a replicated VM\n"))
    }

    fn known_storage(&self, storage: &str) -> Rule<&super::state::Storage> {
        let found = self.storages.get(storage);
        found.ok_or_else(|| Refusal::failed(format!("storage '{storage}' does not exist\n")))
    }

    /// Refuses a drive on what the caller may not use.
    pub fn check_drive_access(
        &self,
        caller: &Caller,
        vmid: u32,
        plan: &Planned,
        default_storage: Option<&str>,
    ) -> Rule<()> {
        if contradicts(&plan.key, &plan.options) {
            // What can't be read is refused later on, whatever it names.
            return Ok(());
        }
        match &plan.source {
            Source::Empty if plan.options.get("file") == Some("cdrom") => self.check(caller, "/", &["Sys.Console"])?,
            Source::Empty | Source::CloudInit { .. } => {}
            Source::New { .. } | Source::Import { .. } if drive::is_cdrom(&plan.options) => {
                // No CD-ROM is ever made: the number is looked for as a volume.
                self.check_volume(caller, vmid, plan.options.get("file").unwrap_or_default())?;
            }
            Source::New { storage, .. } | Source::Import { storage, .. } => {
                let storage = Some(storage.as_str()).filter(|name| !name.is_empty()).or(default_storage);
                let storage = storage.ok_or_else(no_storage)?;
                self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
                if !self.known_storage(storage)?.holds("images") {
                    return Err(Refusal::param("storage", format!("storage '{storage}' does not support vm images")));
                }
            }
            Source::Existing(file) => {
                self.check_volume(caller, vmid, file)?;
                if let Some((storage, name)) = VolumeKey::split(file) {
                    let named = parse_name(self.known_storage(storage)?, name).map_err(Refusal::Failed)?;
                    if named.content != "images" && named.content != "iso" {
                        return Err(Refusal::param(&plan.key, "content type needs to be 'images' or 'iso'"));
                    }
                }
            }
        }
        match plan.options.get("import-from") {
            Some(from) => self.check_import(caller, vmid, &plan.key, from),
            None => Ok(()),
        }
    }

    /// Refuses a volume that the caller may not use for a VM (PVE/Storage.pm, `check_volume_access`).
    pub fn check_volume(&self, caller: &Caller, vmid: u32, file: &str) -> Rule<()> {
        let Some((storage, name)) = VolumeKey::split(file) else {
            return if caller.is_root() { Ok(()) } else { Err(only_root()) };
        };
        let named = parse_name(self.known_storage(storage)?, name).map_err(Refusal::Failed)?;
        let path = format!("/storage/{storage}");
        if self.may(caller, &path, &["Datastore.Allocate"]) {
            return Ok(());
        }
        match (named.content, named.vmid) {
            ("iso" | "vztmpl" | "import", _) => {
                self.check_any(caller, &path, &["Datastore.AllocateSpace", "Datastore.Audit"])
            }
            (_, Some(owner)) if owner == vmid => Ok(()),
            ("backup", Some(owner)) => {
                self.check(caller, &path, &["Datastore.AllocateSpace"])?;
                self.check(caller, &format!("/vms/{owner}"), &["VM.Backup"])
            }
            ("images" | "rootdir", Some(owner)) => {
                self.check(caller, &path, &["Datastore.Audit"])?;
                self.check(caller, &format!("/vms/{owner}"), &["VM.Config.Disk"])
            }
            _ => Err(Refusal::failed(format!("missing privileges to access {file}\n"))),
        }
    }

    fn check_import(&self, caller: &Caller, vmid: u32, key: &str, from: &str) -> Rule<()> {
        let Some((storage, name)) = VolumeKey::split(from) else { return self.check_volume(caller, vmid, from) };
        let named = parse_name(self.known_storage(storage)?, name).map_err(Refusal::Failed)?;
        if named.content != "images" && named.content != "import" {
            let text = format!("{from} has wrong type '{}' - needs to be 'images' or 'import'", named.content);
            return Err(Refusal::param(key, text));
        }
        match named.vmid {
            Some(owner) => self.check(caller, &format!("/vms/{owner}"), &["VM.Clone"]),
            None => self.check_volume(caller, vmid, from),
        }
    }

    /// Volumes that aren't drives: detached disks, and where the memory of a suspended VM goes.
    pub fn check_other_volumes(&self, caller: &Caller, vmid: u32, set: &Config) -> Rule<()> {
        for (key, value) in set.iter().filter(|(key, _)| drive::is_unused(key)) {
            let file = volid(value).unwrap_or_default();
            if VolumeKey::split(&file).is_none() {
                return Err(Refusal::param(key, format!("not a valid volid: {file}")));
            }
            let (storage, name) = VolumeKey::split(&file).unwrap_or_default();
            let named = parse_name(self.known_storage(storage)?, name).map_err(Refusal::Failed)?;
            if named.content != "images" {
                let text = format!("unable to use volume {file} - content type needs to be 'images'\n");
                return Err(Refusal::failed(text));
            }
            self.check_volume(caller, vmid, &file)?;
        }
        match set.get("vmstatestorage") {
            Some(storage) => self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"]),
            None => Ok(()),
        }
    }

    /// There is one cloud-init drive at most.
    pub fn check_second_cloudinit(&self, config: &Config, plan: &Planned) -> Rule<()> {
        let is_one = match &plan.source {
            Source::CloudInit { .. } => true,
            Source::Existing(file) => drive::is_cloudinit(file),
            _ => false,
        };
        match cloudinit_at(config).filter(|other| is_one && *other != plan.key) {
            Some(other) => {
                let text = format!("{} - cloud-init drive is already attached at '{other}'\n", plan.key);
                Err(Refusal::failed(text))
            }
            None => Ok(()),
        }
    }

    /// Refuses a NIC on a bridge that the caller may not use.
    pub fn check_nic(&self, caller: &Caller, value: &str) -> Rule<()> {
        let nic = drive::parse_nic(value);
        self.check_bridge(caller, nic.get("bridge"), nic.get("tag"), nic.get("trunks"))
    }
}
