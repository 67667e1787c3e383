//! The disks that move with a VM.
//!
//! Purpose: which ones only its node has, what stands against their move, and what they are called where they land.
//! Must not know: the VM's lock and its configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::storages::StorageMap;
use super::{Migrate, Way, devices, say, stamped};
use crate::world::World;
use crate::world::config::volid;
use crate::world::disks::{blocking, snapshots_of};
use crate::world::drive;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::{State, Storage, Vm, VolumeKey};
use crate::world::update::check_lock;
use crate::world::volume::{Family, parse_name};
use crate::world::work::Work;

/// A disk that only this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalDisk {
    /// Its volume.
    pub volid: String,
    /// Bytes.
    pub size: u64,
    /// It is a CD-ROM's image.
    pub cdrom: bool,
    /// It is detached.
    pub unused: bool,
}

/// One volume that moves.
pub(super) struct Leg {
    from: VolumeKey,
    /// Storage on the target.
    storage: String,
    size: u64,
}

/// All drives of a VM with whether they are detached: config, pending changes, snapshots.
pub(super) fn drives(vm: &Vm) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    [&vm.config, &vm.pending]
        .into_iter()
        .chain(vm.snapshots.values())
        .flatten()
        .filter(|(key, _)| drive::is_drive(key) || drive::is_unused(key))
        .filter(|(_, value)| volid(value).is_some_and(|volid| seen.insert(volid)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

impl State {
    /// The disks of a VM that only its node has.
    pub(super) fn local_disks(&self, vm: &Vm) -> Vec<(LocalDisk, VolumeKey)> {
        drives(vm)
            .into_iter()
            .filter_map(|(key, value)| {
                let options = Properties::parse(&value, "file");
                let volume = self.volume_key(&vm.node, options.get("file")?)?;
                let storage = self.storages.get(&volume.storage)?;
                if storage.shared() || options.is_on("shared") {
                    return None;
                }
                let disk = LocalDisk {
                    volid: volume.volid(),
                    size: self.volumes.get(&volume).map_or(0, |volume| volume.size),
                    cdrom: drive::is_cdrom(&options),
                    unused: drive::is_unused(&key),
                };
                Some((disk, volume))
            })
            .collect()
    }

    fn stands_against(
        &self,
        vmid: u32,
        disk: &LocalDisk,
        key: &VolumeKey,
        storage: &str,
        (ask, way): (&Migrate, Way),
    ) -> Option<String> {
        let generated = drive::is_cloudinit(&disk.volid);
        if disk.cdrom && !generated {
            return Some("local cdrom image".to_owned());
        }
        let Some(volume) = self.volumes.get(key) else {
            return Some(format!("volume '{}' does not exist", disk.volid));
        };
        let owner = volume.vmid.unwrap_or_default();
        if owner != vmid {
            return Some(format!("owned by other VM (owner = VM {owner})"));
        }
        if way == Way::Live && !ask.local_disks && !generated && !disk.unused {
            return Some("can't live migrate attached local disks without with-local-disks option".to_owned());
        }
        let kind = self.storages.get(&key.storage).map_or("", |storage| storage.kind.as_str());
        if !volume.snapshots.is_empty() && kind != "zfspool" && volume.format != "qcow2" {
            return Some("non-migratable snapshot exists".to_owned());
        }
        if self.has_clones(key) {
            return Some("referenced by linked clone(s)".to_owned());
        }
        if let Some(base) = &volume.parent {
            return Some(format!("it is a linked clone of '{base}'"));
        }
        match self.storage_on(storage, &ask.target) {
            Err(refusal) => Some(refusal.text()),
            Ok(found) if !found.holds("images") => {
                Some(format!("content type 'images' is not available on storage '{storage}'"))
            }
            Ok(_) => None,
        }
    }

    /// What a volume is called on the target: the same where that is possible and free.
    fn landing(&self, leg: &Leg, target: &str, vmid: u32) -> VolumeKey {
        let (Some(old), Some(new)) = (self.storages.get(&leg.from.storage), self.storages.get(&leg.storage)) else {
            return self.key_on(target, &leg.storage, &leg.from.name);
        };
        let files = |storage: &Storage| storage.family() == Family::Files;
        let same = self.key_on(target, &leg.storage, &leg.from.name);
        if files(old) == files(new) && !self.volumes.contains_key(&same) {
            return same;
        }
        let format = self.volumes.get(&leg.from).map_or("raw", |volume| volume.format.as_str());
        let format = if new.formats().contains(&format) { format } else { "raw" };
        let stem = leg.from.file_name().split('.').next().unwrap_or_default();
        let named = if files(new) { format!("{vmid}/{stem}.{format}") } else { stem.to_owned() };
        let wish = self.key_on(target, &leg.storage, &named);
        if self.volumes.contains_key(&wish) {
            self.key_on(target, &leg.storage, &self.free_name(target, &leg.storage, vmid, format))
        } else {
            wish
        }
    }
}

impl World {
    /// The volumes that move, or what stands against it.
    pub(super) fn scan(&self, work: &Work, node: &str, vmid: u32, ask: &Migrate, way: Way) -> Rule<Vec<Leg>> {
        let mut state = self.state();
        let vm = state.vm(node, vmid)?.clone();
        check_lock(&vm.config)?;
        if !state.is_online(&ask.target) {
            return Err(Refusal::failed(format!(
                "Can't connect to destination address using public key of node '{}'\n",
                ask.target
            )));
        }
        let passed = devices(&vm.config);
        if !passed.is_empty() && (way == Way::Live || !ask.force) {
            return Err(Refusal::failed(format!("can't migrate VM which uses local devices: {}\n", passed.join(", "))));
        }
        let map = StorageMap::parse(ask.storages.as_deref())?;
        let mut legs = Vec::new();
        let mut lines = Vec::new();
        let mut errors = Vec::new();
        for (disk, key) in state.local_disks(&vm) {
            let generated = drive::is_cloudinit(&disk.volid);
            lines.push(match (generated, disk.unused) {
                (true, _) => format!("found generated disk '{}' (in current VM config)", disk.volid),
                (_, true) => format!("found local, unused disk '{}' (in current VM config)", disk.volid),
                (_, false) => format!("found local disk '{}' (attached)", disk.volid),
            });
            let storage = map.of(&key.storage).to_owned();
            match state.stands_against(vmid, &disk, &key, &storage, (ask, way)) {
                Some(why) => errors.push(format!("can't migrate local disk '{}': {why}", disk.volid)),
                None => legs.push(Leg { from: key, storage, size: disk.size }),
            }
        }
        for line in lines.iter().chain(&errors) {
            let stamped = stamped(line);
            state.tasks.log(work.upid(), stamped);
        }
        if errors.is_empty() {
            return Ok(legs);
        }
        Err(Refusal::failed("Problem found while scanning volumes - can't migrate VM - check log\n"))
    }

    /// Moves the files. Says which volume became which.
    pub(super) async fn move_disks(
        &self,
        work: &Work,
        vmid: u32,
        ask: &Migrate,
        legs: &[Leg],
        way: Way,
    ) -> Rule<BTreeMap<String, String>> {
        let mut moved = BTreeMap::new();
        for leg in legs {
            // A network copies some hundred megabytes a second; a big disk takes no longer than that.
            #[expect(clippy::cast_precision_loss, reason = "a duration")]
            let seconds = (leg.size as f64 / 134_217_728.0).min(30.0);
            self.clock().sleep(seconds).await;
            if !self.state().is_online(&ask.target) {
                return Err(Refusal::failed(format!("storage migration for '{}' failed\n", leg.from.volid())));
            }
            let to = self.move_volume(vmid, leg, &ask.target, way).await?;
            say(work, &format!("volume '{}' is '{}' on the target", leg.from.volid(), to.volid()));
            moved.insert(leg.from.volid(), to.volid());
        }
        Ok(moved)
    }

    async fn move_volume(&self, vmid: u32, leg: &Leg, target: &str, way: Way) -> Rule<VolumeKey> {
        let (to, source, place) = {
            let state = self.state();
            let to = state.landing(leg, target, vmid);
            let place = state.file_of(self.dir(), &to);
            (to, state.file_of(self.dir(), &leg.from), place)
        };
        let (from, into) = (source.clone(), place.clone());
        blocking(move || {
            std::fs::create_dir_all(into.parent().unwrap_or(&into))?;
            std::fs::rename(&from, &into)?;
            let snapshots = snapshots_of(&from);
            if snapshots.exists() {
                std::fs::rename(snapshots, snapshots_of(&into))?;
            }
            if way == Way::Live {
                // The guest has its disk open by the former path until it is off.
                std::os::unix::fs::symlink(&into, &from)?;
            }
            Ok(())
        })
        .await
        .map_err(|error| Refusal::failed(format!("storage migration for '{}' failed - {error}\n", leg.from.volid())))?;
        let mut state = self.state();
        if let Some(mut volume) = state.volumes.remove(&leg.from) {
            volume.ctime = self.clock().unix();
            if let Some(named) = state.storages.get(&to.storage).and_then(|found| parse_name(found, &to.name).ok()) {
                volume.format = named.format;
            }
            state.volumes.insert(to.clone(), volume);
        }
        if way == Way::Live
            && let Some(vm) = state.vms.get_mut(&vmid)
        {
            vm.trails.retain(|trail| *trail != place);
            vm.trails.push(source);
        }
        Ok(to)
    }
}
