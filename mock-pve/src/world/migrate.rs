//! VMs that move to another node.
//!
//! Purpose: what stands against a migration, and the migration itself, with its disks: offline, or under a running
//! guest, who notices nothing. Must not know: requests. Start at [`World::migrate_vm`]. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm `migrate_vm`, PVE/QemuMigrate.pm).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::World;
use super::config::volid;
use super::disks::{blocking, snapshots_of};
use super::drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm, VolumeKey};
use super::update::check_lock;
use super::volume::{Family, parse_name};
use super::work::{Mode, Work};

/// A migration that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Migrate {
    /// Where to.
    pub target: String,
    /// Under a running guest.
    pub online: bool,
    /// Local disks of a running guest may move too.
    pub local_disks: bool,
    /// `1`, a storage, or pairs `from:to`.
    pub storages: Option<String>,
    /// Local devices don't matter.
    pub force: bool,
}

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

/// What is to be known before a migration.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The VM runs.
    pub running: bool,
    /// Nodes that have all its storages.
    pub allowed: Vec<String>,
    /// The others, with the storages they lack.
    pub refused: BTreeMap<String, BTreeSet<String>>,
    /// Disks that would have to move.
    pub disks: Vec<LocalDisk>,
    /// Devices of the node that are passed through.
    pub devices: Vec<String>,
}

/// Storages of the source and where their volumes go.
#[derive(Debug, Default)]
struct StorageMap {
    default: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl StorageMap {
    fn parse(text: Option<&str>) -> Rule<Self> {
        let mut map = Self::default();
        let Some(text) = text.filter(|text| *text != "1") else { return Ok(map) };
        for part in text.split([',', ';', ' ']).filter(|part| !part.is_empty()) {
            let doubled = match part.split_once(':') {
                Some((from, to)) => map.pairs.insert(from.to_owned(), to.to_owned()).is_some(),
                None => map.default.replace(part.to_owned()).is_some(),
            };
            if doubled {
                return Err(Refusal::param(
                    "targetstorage",
                    format!("failed to parse storage map: duplicate mapping for storage '{part}'\n"),
                ));
            }
        }
        Ok(map)
    }

    fn of<'a>(&'a self, storage: &'a str) -> &'a str {
        self.pairs.get(storage).or(self.default.as_ref()).map_or(storage, String::as_str)
    }

    fn targets(&self) -> impl Iterator<Item = &String> {
        self.pairs.values().chain(&self.default)
    }
}

/// One volume that moves.
struct Leg {
    from: VolumeKey,
    /// Storage on the target.
    storage: String,
    size: u64,
}

/// All drives of a VM with whether they are detached: config, pending changes, snapshots.
fn drives(vm: &Vm) -> Vec<(String, String)> {
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

fn devices(config: &Config) -> Vec<String> {
    config
        .iter()
        .filter(|(key, value)| match drive::numbered(key).map_or(key.as_str(), |(stem, _)| stem) {
            "hostpci" => !value.contains("mapping="),
            "usb" => !value.starts_with("spice") && !value.contains("mapping="),
            "serial" | "parallel" => *value != "socket",
            "ivshmem" => true,
            _ => false,
        })
        .map(|(key, _)| key.clone())
        .collect()
}

impl State {
    /// The disks of a VM that only its node has.
    fn local_disks(&self, vm: &Vm) -> Vec<(LocalDisk, VolumeKey)> {
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

    /// Every storage of the VM has to be on the target.
    fn storages_on_target(&self, vm: &Vm, target: &str) -> Rule<()> {
        for (_, value) in drives(vm) {
            let Some(volid) = volid(&value) else { continue };
            if let Some((storage, _)) = VolumeKey::split(&volid)
                && self.storages.contains_key(storage)
            {
                self.storage_on(storage, target)?;
            }
        }
        Ok(())
    }

    fn check_target_storage(&self, caller: &Caller, storage: &str, target: &str) -> Rule<()> {
        let found = self.storage_on(storage, target)?;
        self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        if !found.holds("images") {
            return Err(Refusal::failed(format!("storage '{storage}' does not support vm images\n")));
        }
        Ok(())
    }
}

impl World {
    /// What is to be known before a migration.
    pub fn migration_preconditions(&self, node: &str, vmid: u32, target: Option<&str>) -> Rule<Preconditions> {
        let state = self.state();
        let vm = state.vm(node, vmid)?;
        if let Some(target) = target {
            state.check_node(target)?;
        }
        let mut found = Preconditions {
            running: vm.running.is_some(),
            disks: state.local_disks(vm).into_iter().map(|(disk, _)| disk).collect(),
            devices: devices(&vm.config),
            ..Preconditions::default()
        };
        let storages: BTreeSet<String> = drives(vm)
            .iter()
            .filter_map(|(_, value)| Some(VolumeKey::split(&volid(value)?)?.0.to_owned()))
            .filter(|storage| state.storages.contains_key(storage))
            .collect();
        for name in state.nodes.keys().filter(|name| *name != node && state.is_online(name)) {
            let missing: BTreeSet<String> =
                storages.iter().filter(|storage| state.storage_on(storage, name).is_err()).cloned().collect();
            if missing.is_empty() {
                found.allowed.push(name.clone());
            } else {
                found.refused.insert(name.clone(), missing);
            }
        }
        Ok(found)
    }

    /// Checks a migration and starts it, or asks the HA manager to. Says the UPID.
    pub fn migrate_vm(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> Rule<String> {
        let ask = self.check_migration(caller, node, vmid, ask)?;
        if self.state().is_ha_managed(vmid) {
            return Ok(self.ha_migrate(caller, node, vmid, ask.target));
        }
        Ok(self.start_migration(caller, node, vmid, ask))
    }

    /// Migrates a VM whoever manages it. Says the UPID.
    pub(super) fn migrate_now(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> Rule<String> {
        let ask = self.check_migration(caller, node, vmid, ask)?;
        Ok(self.start_migration(caller, node, vmid, ask))
    }

    fn check_migration(&self, caller: &Caller, node: &str, vmid: u32, mut ask: Migrate) -> Rule<Migrate> {
        let state = self.state();
        if ask.target == node {
            return Err(Refusal::param("target", "target is local node."));
        }
        state.check_quorum()?;
        state.check_node(&ask.target)?;
        let vm = state.vm(node, vmid)?;
        check_lock(&vm.config)?;
        if vm.running.is_some() && !ask.online {
            return Err(Refusal::failed("can't migrate running VM without --online\n"));
        }
        ask.online &= vm.running.is_some();
        let map = StorageMap::parse(ask.storages.as_deref())?;
        if ask.storages.as_deref().is_some_and(|text| text != "1") {
            state.check(caller, &format!("/vms/{vmid}"), &["VM.Config.Disk"])?;
            for storage in map.targets() {
                state.check_target_storage(caller, storage, &ask.target)?;
            }
        } else {
            state.storages_on_target(vm, &ask.target)?;
        }
        Ok(ask)
    }

    fn start_migration(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> String {
        let at = node.to_owned();
        self.start_task(caller, node, "qmigrate", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let began = tokio::time::Instant::now();
            let ip = world.state().nodes.get(&ask.target).map(|node| node.ip.clone()).unwrap_or_default();
            say(&work, &format!("starting migration of VM {vmid} to node '{}' ({ip})", ask.target));
            let result = world.migrate_work(&work, &at, vmid, &ask).await;
            let seconds = began.elapsed().as_secs();
            let duration = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            match result {
                Ok(()) => {
                    say(&work, &format!("migration finished successfully (duration {duration})"));
                    Ok(())
                }
                Err(refusal) => {
                    let text = refusal.text();
                    say(&work, &format!("ERROR: migration aborted (duration {duration}): {text}"));
                    Err(Refusal::failed("migration aborted\n"))
                }
            }
        })
    }

    async fn migrate_work(&self, work: &Work, node: &str, vmid: u32, ask: &Migrate) -> Rule<()> {
        let online = self.pid_of(vmid).is_some();
        let legs = self.scan(work, node, vmid, ask, online)?;
        self.set_lock(node, vmid, Some("migrate"))?;
        let moved = self.move_disks(work, vmid, ask, &legs, online).await;
        let moved = match moved {
            Ok(moved) => moved,
            Err(refusal) => {
                self.set_lock(node, vmid, None)?;
                return Err(refusal);
            }
        };
        if online {
            say(work, "starting online/live migration on unix:/run/qemu-server/migrate.sock");
            // Memory goes over the wire, then the guest stands still for a moment.
            self.clock().sleep(4.0).await;
            say(work, "migration status: completed");
        }
        let mut state = self.state();
        let pid = online.then(|| state.tasks.pid());
        let vm = state.vm_mut(node, vmid)?;
        for config in [&mut vm.config, &mut vm.pending].into_iter().chain(vm.snapshots.values_mut()) {
            renamed(config, &moved);
        }
        if let (Some(running), Some(pid)) = (&mut vm.running, pid) {
            running.pid = pid;
            renamed(&mut running.config, &moved);
        }
        vm.config.remove("lock");
        vm.node.clone_from(&ask.target);
        Ok(())
    }

    fn set_lock(&self, node: &str, vmid: u32, lock: Option<&str>) -> Rule<()> {
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        match lock {
            Some(lock) => vm.config.insert("lock".to_owned(), lock.to_owned()),
            None => vm.config.remove("lock"),
        };
        Ok(())
    }

    /// The volumes that move, or what stands against it.
    fn scan(&self, work: &Work, node: &str, vmid: u32, ask: &Migrate, online: bool) -> Rule<Vec<Leg>> {
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
        if !passed.is_empty() && (online || !ask.force) {
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
            match state.stands_against(vmid, &disk, &key, (&storage, &ask.target), online && !ask.local_disks) {
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
    async fn move_disks(
        &self,
        work: &Work,
        vmid: u32,
        ask: &Migrate,
        legs: &[Leg],
        online: bool,
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
            let to = self.move_volume(vmid, leg, &ask.target, online).await?;
            say(work, &format!("volume '{}' is '{}' on the target", leg.from.volid(), to.volid()));
            moved.insert(leg.from.volid(), to.volid());
        }
        Ok(moved)
    }

    async fn move_volume(&self, vmid: u32, leg: &Leg, target: &str, online: bool) -> Rule<VolumeKey> {
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
            if online {
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
        if online && let Some(vm) = state.vms.get_mut(&vmid) {
            vm.trails.retain(|trail| *trail != place);
            vm.trails.push(source);
        }
        Ok(to)
    }
}

impl State {
    fn stands_against(
        &self,
        vmid: u32,
        disk: &LocalDisk,
        key: &VolumeKey,
        (storage, target): (&str, &str),
        live_only: bool,
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
        if live_only && !generated && !disk.unused {
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
        match self.storage_on(storage, target) {
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
        let files = |storage: &super::state::Storage| storage.family() == Family::Files;
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

fn renamed(config: &mut Config, moved: &BTreeMap<String, String>) {
    for (key, value) in config.iter_mut() {
        if !drive::is_drive(key) && !drive::is_unused(key) {
            continue;
        }
        let Some(new) = volid(value).and_then(|old| moved.get(&old)) else { continue };
        if drive::is_unused(key) {
            value.clone_from(new);
        } else {
            let mut options = Properties::parse(value, "file");
            options.set("file", new.clone());
            *value = options.print("file");
        }
    }
}

fn stamped(line: &str) -> String {
    let mut text = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S ").to_string();
    // Writing to a string can't fail.
    let _ = write!(text, "{line}");
    text
}

fn say(work: &Work, line: &str) {
    work.log(stamped(line));
}

#[cfg(test)]
mod tests;
