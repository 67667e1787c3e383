//! Disks that change their owner.
//!
//! Purpose: gives a disk to another VM on the same node: its volume gets another name, the configs follow. Must not
//! know: requests. Start at [`World::reassign_disk`].

use super::super::World;
use super::super::config::{digest, volid};
use super::super::drive;
use super::super::feature::Feature;
use super::super::property::Properties;
use super::super::refusal::{Refusal, Rule};
use super::super::rights::Caller;
use super::super::state::{Config, State, VolumeKey};
use super::super::update::{Update, check_lock, remove_from_boot};
use super::super::work::Mode;
use super::MODIFIED;

/// A disk that gets another owner.
#[derive(Clone, Debug, Default)]
pub struct Reassign {
    /// The disk's key.
    pub disk: String,
    /// The new owner.
    pub target: u32,
    /// Its key there; the same when absent.
    pub target_disk: Option<String>,
    /// Only if the source's config is still that one.
    pub digest: Option<String>,
    /// Only if the target's config is still that one.
    pub target_digest: Option<String>,
}

impl World {
    /// Gives a disk to another VM. Says the UPID.
    pub fn reassign_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Reassign) -> Rule<String> {
        let target_key = ask.target_disk.clone().unwrap_or_else(|| ask.disk.clone());
        {
            let state = self.state();
            state.check(caller, &format!("/vms/{}", ask.target), &["VM.Config.Disk"])?;
            if ask.target == vmid {
                let text = "must be different than source VMID to reassign disk";
                return Err(Refusal::param("target-vmid", text));
            }
            let volid = state.check_reassign((node, vmid), &ask, &target_key)?;
            let storage = VolumeKey::split(&volid).map_or("", |(storage, _)| storage);
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        let id = format!("{vmid}-{}>{}-{target_key}", ask.disk, ask.target);
        let (at, who) = (node.to_owned(), caller.clone());
        Ok(self.start_task(caller, node, "qmmove", &id, |work| async move {
            let world = work.world().clone();
            let _source = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let _target = work.flock(ask.target, Mode::Exclusive, 10.0).await?;
            let volid = world.state().check_reassign((&at, vmid), &ask, &target_key)?;
            work.log(format!("moving disk '{}' from VM '{vmid}' to '{}'", ask.disk, ask.target));
            let new = world.give_volume(&at, &volid, ask.target)?;
            let value = {
                let mut state = world.state();
                let source = state.vm_mut(&at, vmid)?;
                if drive::named_order(&source.config).contains(&ask.disk) {
                    let line = format!("removing disk '{}' from boot order config", ask.disk);
                    remove_from_boot(source, &ask.disk);
                    state.tasks.log(work.upid(), line);
                }
                let source = state.vm_mut(&at, vmid)?;
                let mut options = Properties::parse(&source.config.remove(&ask.disk).unwrap_or_default(), "file");
                options.set("file", new.volid());
                options.print("file")
            };
            work.log(format!("removing disk '{}' from VM '{vmid}' config", ask.disk));
            if drive::is_unused(&target_key) {
                world.state().vm_mut(&at, ask.target)?.config.insert(target_key, new.volid());
                return Ok(());
            }
            let set = Config::from([(target_key.clone(), value.clone())]);
            let update = Update { set, digest: ask.target_digest.clone(), ..Update::default() };
            let planned = world.check_update(&who, &at, ask.target, &update)?;
            world.check_config(&at, ask.target, &update, &planned)?;
            work.log(format!("update VM {}: -{target_key} {value}", ask.target));
            world.apply_update(None, &who, (&at, ask.target), &update, &planned).await
        }))
    }

    /// Renames a volume to one of another VM.
    fn give_volume(&self, node: &str, volid: &str, target: u32) -> Rule<VolumeKey> {
        let mut state = self.state();
        let gone = || Refusal::failed(format!("volume '{volid}' does not exist\n"));
        let old = state.volume_key(node, volid).ok_or_else(gone)?;
        let mut volume = state.volumes.get(&old).cloned().ok_or_else(gone)?;
        let name = state.free_name(node, &old.storage, target, &volume.format);
        let name = volume.parent.as_ref().map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
        let new = VolumeKey { name, ..old.clone() };
        let (from, to) = (state.file_of(self.dir(), &old), state.file_of(self.dir(), &new));
        to.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| std::fs::rename(&from, &to))
            .map_err(|error| Refusal::failed(format!("rename failed: {error}\n")))?;
        volume.vmid = Some(target);
        state.volumes.remove(&old);
        state.volumes.insert(new.clone(), volume);
        Ok(new)
    }
}

impl State {
    /// What stands against giving a disk away; says its volume.
    fn check_reassign(&self, (node, vmid): (&str, u32), ask: &Reassign, target_key: &str) -> Rule<String> {
        let refuse = |text: String| Err(Refusal::failed(text));
        let Some(source) = self.vms.get(&vmid) else { return refuse(format!("could not find VM {vmid}\n")) };
        let Some(target) = self.vms.get(&ask.target) else {
            return refuse(format!("could not find target VM {}\n", ask.target));
        };
        if source.node != target.node {
            let (from, to) = (&source.node, &target.node);
            return refuse(format!("Both VMs need to be on the same node ({from} != {to})\n"));
        }
        let source = self.vm(node, vmid)?;
        check_lock(&source.config)?;
        check_lock(&target.config)?;
        let template = |config: &Config| config.get("template").is_some_and(|flag| flag == "1");
        if template(&source.config) || template(&target.config) {
            return refuse("Can't move disks from or to template VMs\n".to_owned());
        }
        for (id, vm, wanted) in [(vmid, source, &ask.digest), (ask.target, target, &ask.target_digest)] {
            if wanted.as_ref().is_some_and(|wanted| *wanted != digest(vm)) {
                return refuse(format!("VM {id}: {MODIFIED}"));
            }
        }
        let Some(value) = source.config.get(&ask.disk) else {
            return refuse(format!("Disk '{}' for VM '{vmid}' does not exist\n", ask.disk));
        };
        if target.config.contains_key(target_key) {
            return refuse(format!("Target disk key '{target_key}' is already in use for VM '{}'\n", ask.target));
        }
        let options = Properties::parse(value, "file");
        let volid = options.get("file").unwrap_or_default();
        if drive::is_cdrom(&options) && !drive::is_cloudinit(volid) {
            return refuse("CD drive contents can't be moved to another VM\n".to_owned());
        }
        if VolumeKey::split(volid).is_none() {
            return refuse(format!("Volume '{volid}' not managed by PVE\n"));
        }
        let names = |(key, value): (&String, &String)| {
            let other = Properties::parse(value, "file");
            drive::is_drive(key) && !drive::is_cdrom(&other) && self::volid(value).as_deref() == Some(volid)
        };
        let held = source.config.iter().filter(|(key, _)| **key != ask.disk).any(names)
            || source.snapshots.values().flatten().any(names);
        if held {
            return refuse("Can't move disk used by a snapshot to another VM\n".to_owned());
        }
        if !self.has_feature(Feature::Rename, volid, None)? {
            return refuse("Storage does not support moving of this disk to another VM\n".to_owned());
        }
        if source.running.is_some() && !drive::is_unused(&ask.disk) {
            return refuse("Cannot move disk to another VM while the source VM is running - detach first\n".to_owned());
        }
        let unknown: Vec<&str> =
            options.parts.iter().map(|(name, _)| name.as_str()).filter(|name| !fits(target_key, name)).collect();
        if !unknown.is_empty() && !drive::is_unused(target_key) {
            let lines: String = unknown.iter().map(|name| format!("{name}: {NOT_DEFINED}\n")).collect();
            return refuse(format!("failed to parse source disk for target disk format - format error\n{lines}\n"));
        }
        Ok(volid.to_owned())
    }
}

const NOT_DEFINED: &str = "property is not defined in schema and the schema does not allow additional properties";

/// Whether a drive at a key can have an option.
fn fits(key: &str, option: &str) -> bool {
    let bus = drive::numbered(key).map_or("", |(bus, _)| bus);
    match option {
        "file" | "volume" | "size" | "format" => true,
        "efitype" | "pre-enrolled-keys" | "ms-cert" => bus == "efidisk",
        "version" => bus == "tpmstate",
        _ if bus == "efidisk" || bus == "tpmstate" => false,
        "iothread" | "ro" => bus == "scsi" || bus == "virtio",
        "queues" | "scsiblock" | "product" | "vendor" => bus == "scsi",
        "ssd" | "wwn" => bus != "virtio",
        "model" => bus == "ide",
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn not_every_bus_takes_every_option() {
        for (key, option, can) in [
            ("virtio0", "ssd", false),
            ("scsi0", "ssd", true),
            ("ide0", "iothread", false),
            ("virtio1", "iothread", true),
            ("efidisk0", "discard", false),
            ("scsi3", "efitype", false),
            ("sata0", "size", true),
        ] {
            assert_eq!(fits(key, option), can, "{key} {option}");
        }
    }
}
