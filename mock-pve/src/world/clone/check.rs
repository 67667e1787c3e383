//! What stands against a clone.
//!
//! Purpose: all checks on a clone, in the original's order; they are made when it is asked for and again when it
//! begins. Must not know: how disks are copied. Start at [`State::check_clone`].

use super::super::disks::keys_by_bus;
use super::super::drive;
use super::super::feature::Feature;
use super::super::property::Properties;
use super::super::refusal::{Refusal, Rule};
use super::super::rights::Caller;
use super::super::state::{Config, State, Switch, VolumeKey};
use super::super::update::check_lock;
use super::NewClone;
use super::drives::Way;

/// When the checks are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Before anything exists.
    Asked,
    /// Under the locks; the new VM is registered.
    Begun,
}

/// A drive that is to be cloned.
#[derive(Clone, Debug)]
pub(super) struct DriveToClone {
    pub key: String,
    pub value: String,
    pub way: Way,
}

impl DriveToClone {
    /// Its volume.
    pub(super) fn volid(&self) -> String {
        super::super::config::volid(&self.value).unwrap_or_default()
    }

    /// Whether it is the cloud-init drive.
    pub(super) fn is_cloudinit(&self) -> bool {
        drive::is_cloudinit(&self.volid())
    }
}

/// What a checked clone is made of.
#[derive(Debug)]
pub(super) struct CheckedClone {
    /// The config that it begins with.
    pub config: Config,
    /// What the source's cloud-init drive holds in place of that.
    pub cloudinit: Config,
    /// What has volumes of its own.
    pub drives: Vec<DriveToClone>,
    /// The node it ends up on.
    pub target: String,
    /// Keys of the source that wait for a start.
    pub pending: Vec<String>,
}

impl State {
    /// Whether the source is on. It has to be on the node.
    pub(super) fn source_power(&self, new: &NewClone) -> Rule<Switch> {
        let vm = self.vms.get(&new.vmid).filter(|vm| vm.node == new.node).ok_or_else(|| {
            Refusal::failed(format!("unable to find configuration file for VM {} on node '{}'\n", new.vmid, new.node))
        })?;
        Ok(vm.switch())
    }

    /// All checks on a clone whose source runs or doesn't.
    pub(super) fn check_clone(
        &self,
        caller: &Caller,
        new: &NewClone,
        source: Switch,
        stage: Stage,
    ) -> Rule<CheckedClone> {
        let refuse = |text: String| Err(Refusal::failed(text));
        if let Some(pool) = new.pool.as_ref().filter(|pool| !self.pools.contains_key(*pool)) {
            return Err(Refusal::forbidden(format!("pool '{pool}' does not exist")));
        }
        let target = new.target.as_ref().filter(|target| *target != "localhost" && **target != new.node);
        if let Some(target) = target.filter(|target| !self.nodes.contains_key(*target)) {
            return refuse(format!("no such cluster node '{target}'\n"));
        }
        if let Some(storage) = &new.storage {
            let found = self.storage_on(storage, &new.node)?;
            if !found.holds("images") {
                return Err(Refusal::param("storage", format!("storage '{storage}' does not support vm images")));
            }
            if let Some(target) = target {
                self.storage_on(storage, target)?;
                if !found.shared() {
                    return refuse(format!("can't clone to non-shared storage '{storage}'\n"));
                }
            }
        }
        let vm = self.vm(&new.node, new.vmid)?;
        check_lock(&vm.config)?;
        if vm.switch() != source {
            return refuse("unexpected state change\n".to_owned());
        }
        let config = match &new.snapname {
            Some(name) => {
                let snapshot = vm.snapshots.get(name);
                snapshot.ok_or_else(|| Refusal::failed(format!("snapshot '{name}' does not exist\n")))?
            }
            None => &vm.config,
        };
        let template = vm.config.get("template").is_some_and(|flag| flag == "1");
        let way = if new.full.unwrap_or(!template) { Way::Full } else { Way::Linked };
        for (name, given) in [("storage", &new.storage), ("format", &new.format)] {
            if way == Way::Linked && given.is_some() {
                return refuse(format!("parameter '{name}' not allowed for linked clones\n"));
            }
        }
        let shared = self.check_clone_storages(caller, new.storage.as_deref(), config)?;
        self.check_mappings(caller, config)?;
        for (_, nic) in drive::nics(config) {
            self.check_bridge(caller, nic.get("bridge"), nic.get("tag"), nic.get("trunks"))?;
        }
        if let Some(target) = target.filter(|_| !shared) {
            return refuse(format!("can't clone VM to node '{target}' (VM uses local storage)\n"));
        }
        if stage == Stage::Asked && self.vms.get(&new.newid).is_some_and(|other| other.node == new.node) {
            return refuse(format!("unable to create VM {}: config file already exists\n", new.newid));
        }
        let drives = self.drives_to_clone(new, config, way, source)?;
        let mut pending: Vec<String> = vm.pending.keys().cloned().collect();
        if !vm.pending_delete.is_empty() {
            pending.push("delete".to_owned());
        }
        if new.snapname.is_some() {
            pending.clear();
        }
        let target = target.unwrap_or(&new.node).clone();
        let cloudinit = if new.snapname.is_some() { Config::new() } else { vm.cloudinit.clone() };
        Ok(CheckedClone { config: config.clone(), cloudinit, drives, target, pending })
    }

    /// What the caller needs for the volumes of a source (`check_storage_access_clone`). Says whether all nodes see all
    /// of them.
    fn check_clone_storages(&self, caller: &Caller, storage: Option<&str>, config: &Config) -> Rule<bool> {
        let mut shared = true;
        for key in keys_by_bus(config) {
            let options = Properties::parse(&config[&key], "file");
            let volid = options.get("file").unwrap_or_default();
            let cdrom = drive::is_cdrom(&options);
            if volid.is_empty() || volid == "none" {
                continue;
            }
            if cdrom && volid == "cdrom" {
                self.check(caller, "/", &["Sys.Console"])?;
                continue;
            }
            let Some((own, _)) = VolumeKey::split(volid) else {
                return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
            };
            let Some(found) = self.storages.get(own) else {
                return Err(Refusal::failed(format!("storage '{own}' does not exist\n")));
            };
            shared &= found.shared();
            if !cdrom {
                self.check(caller, &format!("/storage/{}", storage.unwrap_or(own)), &["Datastore.AllocateSpace"])?;
            }
        }
        if let Some(storage) = config.get("vmstatestorage") {
            self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        Ok(shared)
    }

    /// What the caller needs for the devices of a source.
    pub(in crate::world) fn check_mappings(&self, caller: &Caller, config: &Config) -> Rule<()> {
        for (key, value) in config {
            let stem = drive::numbered(key).map_or("", |(stem, _)| stem);
            if stem != "usb" && stem != "hostpci" {
                continue;
            }
            let device = Properties::parse(value, "host");
            match (device.get("host"), device.get("mapping")) {
                (Some(host), _) if stem == "usb" && host.eq_ignore_ascii_case("spice") => {}
                (Some(_), _) if caller.is_root() => {}
                (Some(_), _) => {
                    let what = if stem == "usb" { "real devices" } else { "non-mapped devices" };
                    return Err(Refusal::failed(format!("only root can set '{key}' config for {what}\n")));
                }
                (None, Some(name)) => {
                    let kind = if stem == "usb" { "usb" } else { "pci" };
                    self.check(caller, &format!("/mapping/{kind}/{name}"), &["Mapping.Use"])?;
                }
                (None, None) => return Err(Refusal::failed("either 'host' or 'mapping' must be set.\n")),
            }
        }
        Ok(())
    }

    /// Which drives of a source are copied and which are linked, or why it can't be done.
    fn drives_to_clone(&self, new: &NewClone, config: &Config, all: Way, source: Switch) -> Rule<Vec<DriveToClone>> {
        let snapshot = new.snapname.as_deref();
        let mut drives = Vec::new();
        for (key, value) in config.iter().filter(|(key, _)| drive::is_drive(key)) {
            if all == Way::Full && source == Switch::On && snapshot.is_none() && key == "tpmstate0" {
                return Err(Refusal::failed("cannot clone TPM state while VM is running\n"));
            }
            let options = Properties::parse(value, "file");
            let volid = options.get("file").unwrap_or_default();
            let cloudinit = drive::is_cloudinit(volid);
            if drive::is_cdrom(&options) && !cloudinit {
                continue;
            }
            let way = if cloudinit || key == "tpmstate0" { Way::Full } else { all };
            let (feature, word) = match way {
                Way::Full => (Feature::Copy, "Full"),
                Way::Linked => (Feature::Clone, "Linked"),
            };
            if !self.has_feature(feature, volid, snapshot)? {
                let of = if snapshot.is_some() { "a snapshot of " } else { "" };
                let text = format!("{word} clone feature is not supported for {of}'{volid}' ({key})\n");
                return Err(Refusal::failed(text));
            }
            drives.push(DriveToClone { key: key.clone(), value: value.clone(), way });
        }
        Ok(drives)
    }

    /// The volumes of a source have to be there; a cloud-init drive is made anew.
    pub(super) fn check_sources(&self, node: &str, drives: &[DriveToClone]) -> Rule<()> {
        for drive in drives.iter().filter(|drive| !drive.is_cloudinit()) {
            let volid = drive.volid();
            let Some(key) = self.volume_key(node, &volid) else { continue };
            let storage = self.storage_on(&key.storage, node)?;
            if !self.volumes.contains_key(&key) {
                let text = match (storage.kind.as_str(), storage.option("vgname")) {
                    ("lvmthin", Some(group)) => format!("no such logical volume {group}/{}\n", key.name),
                    _ => format!("volume '{volid}' does not exist\n"),
                };
                return Err(Refusal::failed(text));
            }
        }
        Ok(())
    }
}
