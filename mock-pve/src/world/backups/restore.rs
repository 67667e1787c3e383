//! From an archive back to a VM.
//!
//! Purpose: all checks on a restore, and its task. An existing VM is only overwritten when that was asked for, and when it
//! is stopped, unlocked and not protected. Must not know: requests. Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm,
//! `create_vm`, PVE/QemuServer.pm, `restore_vma_archive`). Start at [`World::restore_vm`].

use std::collections::BTreeMap;

pub use super::conf::Identity;

use super::bring::Coming;
use super::source::{Source, apart, config_text, header_of};
use super::{conf, names};
use crate::vma::{Header, Packing, VmaError};
use crate::world::World;
use crate::world::drive;
use crate::world::lifecycle::Lock;
use crate::world::plan_disk::parse_drive;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::{Config, State, Vm, VolumeKey};
use crate::world::stop::Words;
use crate::world::update::{check_lock, is_net};
use crate::world::work::{Mode, Work};

/// A restore that is asked for.
#[derive(Clone, Debug)]
pub struct NewRestore {
    /// Where.
    pub node: String,
    /// The VM's number.
    pub vmid: u32,
    /// The archive: a volume, or a path of the node.
    pub archive: String,
    /// Config keys that are to be others than in the archive.
    pub set: Config,
    /// Where the disks go, if not where they were.
    pub storage: Option<String>,
    /// Pool.
    pub pool: Option<String>,
    /// Whether a VM that exists may be overwritten.
    pub force: bool,
    /// Whether MACs and the like become new ones.
    pub identity: Identity,
    /// Whether it is to run while its disks come.
    pub live: bool,
    /// Start it afterwards.
    pub start: bool,
}

impl State {
    fn check_restore(&self, caller: &Caller, new: &NewRestore) -> Rule<()> {
        let vmid = new.vmid;
        let allowed = self.check_place(caller, vmid, (new.pool.as_deref(), new.storage.as_deref()))?;
        let here = self.vms.get(&vmid).is_some_and(|vm| vm.node == new.node);
        let overwrites = new.force && here && self.may(caller, &format!("/vms/{vmid}"), &["VM.Backup"]);
        if !allowed && !overwrites {
            return Err(Refusal::forbidden(""));
        }
        if let Some(key) = new.set.keys().find(|key| drive::is_drive(key)) {
            return Err(Refusal::param(key, "option conflicts with option 'archive'"));
        }
        if new.archive == "-" {
            return Err(Refusal::failed("pipe requires cli environment\n"));
        }
        self.check_archive(caller, Some(vmid), &new.archive)
    }

    /// What the caller needs for what a restored VM will hold.
    fn check_restored(&self, caller: &Caller, header: &Header, new: &NewRestore) -> Rule<()> {
        let text = config_text(header);
        let values = conf::values(&text);
        let mut merged: Config = values.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        merged.extend(new.set.clone());
        for (_, value) in merged.iter().filter(|(key, _)| is_net(key)) {
            self.check_nic(caller, value)?;
        }
        self.check_mappings(caller, &merged)
    }

    /// The disks that an archive's config tells of, where they may go.
    fn coming(&self, caller: &Caller, node: &str, header: &Header, new: &NewRestore) -> Rule<Vec<Coming>> {
        let text = config_text(header);
        let may_hold = |storage: &str| {
            let missing = || Refusal::failed(format!("storage '{storage}' does not exist\n"));
            if !self.storages.get(storage).ok_or_else(missing)?.holds("images") {
                let text = format!("Content type 'images' is not available on storage '{storage}'\n");
                return Err(Refusal::failed(text));
            }
            self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            self.storage_on(storage, node).map(|_| ())
        };
        let mut coming = Vec::new();
        for disk in conf::disks(&text) {
            let found = header.devices.iter().find(|(_, device)| device.name == disk.device);
            let Some((number, device)) = found else {
                let text = format!("archive does not contain data for drive '{}'\n", disk.key);
                return Err(Refusal::failed(text));
            };
            let told = Some(disk.storage).filter(|storage| !storage.is_empty());
            let storage = new.storage.clone().or(told).unwrap_or_else(|| "local".to_owned());
            may_hold(&storage)?;
            let (key, name, size) = (disk.key, device.name.clone(), device.size);
            coming.push(Coming { key, device: Some(*number), name, storage, format: disk.format, size });
        }
        for (key, value) in conf::values(&text) {
            let options = parse_drive(value);
            let file = options.get("file").unwrap_or_default();
            if !drive::is_drive(key) || !drive::is_cloudinit(file) {
                continue;
            }
            let told = VolumeKey::split(file).map(|(storage, _)| storage.to_owned());
            let storage = new.storage.clone().or(told).unwrap_or_default();
            may_hold(&storage)?;
            let format = file.rsplit_once('.').map_or("raw", |(_, format)| format).to_owned();
            let key = key.to_owned();
            coming.push(Coming { key, device: None, name: String::new(), storage, format, size: 4 << 20 });
        }
        let known = |name: &str| coming.iter().any(|coming| coming.name == name);
        if let Some(device) = header.devices.values().find(|device| !known(&device.name)) {
            let text = format!("found no device mapping information for device '{}'\n", device.name);
            return Err(Refusal::failed(text));
        }
        coming.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(coming)
    }
}

impl World {
    /// Checks a restore, locks the VM and starts the task. Says the UPID.
    pub fn restore_vm(&self, caller: &Caller, new: NewRestore) -> Rule<String> {
        let (vmid, node) = (new.vmid, new.node.clone());
        let emsg = format!("unable to restore VM {vmid} -");
        self.state().check_restore(caller, &new)?;
        let source = self.find_archive(&node, &new.archive)?;
        let existed = {
            let mut state = self.state();
            state.check_settings(caller, vmid, (new.pool.as_deref(), new.storage.as_deref()), &new.set)?;
            let known = state.vms.get(&vmid).map(|vm| vm.node.clone());
            if let Some(at) = known.as_ref().filter(|at| !new.force || **at != node) {
                return Err(Refusal::failed(format!("{emsg} VM {vmid} already exists on node '{at}'\n")));
            }
            let vm = state.vms.entry(vmid).or_insert_with(|| Vm { node: node.clone(), ..Vm::default() });
            check_lock(&vm.config).map_err(|refusal| Refusal::failed(format!("{emsg} {}\n", refusal.text())))?;
            vm.config.insert("lock".to_owned(), "create".to_owned());
            known.is_some()
        };
        if existed {
            self.tell(caller, "restore", Some(vmid), Some(&new.archive));
        }
        let who = caller.clone();
        Ok(self.start_task(caller, &node, "qmrestore", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let restoring = world.restore_work(&work, &who, &new, &source, &emsg);
            let result = work.attempt(Words::Task, restoring).await;
            if result.is_err() {
                // The config stays, also one that was made for this: it only loses its lock.
                let mut state = world.state();
                let own = |vm: &&mut Vm| vm.config.get("lock").is_some_and(|lock| lock == "create");
                match state.vms.get_mut(&vmid).filter(own) {
                    Some(vm) => drop(vm.config.remove("lock")),
                    None => state.tasks.log(work.upid(), "no lock found trying to remove 'create' lock"),
                }
                drop(state);
                work.log(format!(
                    "error before or during data restore, some or all disks were not completely restored. VM {vmid} state \
                     is NOT cleaned up."
                ));
                return result;
            }
            if new.start {
                work.log("Execute autostart");
                world.start_vm(&who, &new.node, vmid, Lock::Respect);
            }
            Ok(())
        }))
    }

    async fn restore_work(&self, work: &Work, who: &Caller, new: &NewRestore, source: &Source, emsg: &str) -> Rule<()> {
        let (node, vmid) = (new.node.as_str(), new.vmid);
        if work.is_doomed() {
            return Err(Refusal::failed("interrupted\n"));
        }
        {
            let state = self.state();
            let old = state.vm(node, vmid)?;
            if old.config.get("protection").is_some_and(|flag| flag == "1") {
                return Err(Refusal::failed(format!("{emsg} - protection mode enabled\n")));
            }
            if old.running.is_some() {
                return Err(Refusal::failed(format!("{emsg} vm is running\n")));
            }
        }
        let _flock = work.flock(vmid, Mode::Exclusive, 1.0).await?;
        if VolumeKey::split(&new.archive).is_some() {
            // A first look, which only refuses: the second one is under way.
            let from = source.clone();
            match apart(move || header_of(&from)).await {
                Ok(header) => self.state().check_restored(who, &header, new)?,
                Err(error) => {
                    let why = format!("Failed to extract config from VMA archive: vma: {error}");
                    work.log(format!("Could not extract backed up config: {why}"));
                    work.log("Skipping early checks!");
                }
            }
        }
        if new.live {
            return Err(Refusal::failed(
                "live-restore is only compatible with backup images from a Proxmox Backup Server\n",
            ));
        }
        let extraction = Extraction::new(source, self.state().tasks.pid());
        work.log(format!("restore vma archive: {}", extraction.command));
        let from = source.clone();
        let header = work.program(Some(Words::Signal), apart(move || header_of(&from))).await;
        let header = extraction.ended(work, header)?;
        for (name, data) in &header.configs {
            work.log(format!("CFG: size: {} name: {name}", data.len()));
        }
        for (number, device) in &header.devices {
            work.log(format!("DEV: dev_id={number} size: {} devname: {}", device.size, device.name));
        }
        work.log(format!("CTIME: {}", names::moment(header.ctime).strftime("%a %b %e %H:%M:%S %Y")));
        let refused = |refusal: Refusal| extraction.failed(refusal.text());
        let coming = self.state().coming(who, node, &header, new).map_err(refused)?;
        self.clear_old(work, node, vmid, &coming)?;
        let mut made = BTreeMap::new();
        let mut done = self.make_room(work, (node, vmid), &coming, &mut made).map_err(refused);
        if done.is_ok() {
            let pouring = self.pour_into(work, source, &coming, &made);
            done = extraction.ended(work, work.program(Some(Words::Signal), pouring).await);
        }
        if let Err(refusal) = done {
            self.drop_made(work, &made);
            return Err(refusal);
        }
        self.state().check_restored(who, &header, new)?;
        self.finish_restore(work, new, &header, &coming, &made)
    }
}

/// The program that takes an archive apart.
struct Extraction {
    command: String,
}

impl Extraction {
    fn new(source: &Source, pid: u32) -> Self {
        let folder = format!("/var/tmp/vzdumptmp{pid}");
        let input = if source.packing == Packing::Plain { source.shown.as_str() } else { "-" };
        let mut command = format!("vma extract -v -r {folder}.fifo {input} {folder}");
        if let Some(unpacker) = source.packing.unpacker() {
            command = format!("{unpacker} {} | {command}", source.shown);
        }
        Self { command }
    }

    /// How it ended: by itself, by its own fault, or because somebody stopped the task.
    fn ended<T>(&self, work: &Work, end: Result<Result<T, VmaError>, &'static str>) -> Rule<T> {
        let why = match end {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(error)) => {
                work.log(format!("vma: {error}"));
                "exit code 1"
            }
            Err(words) => words,
        };
        Err(self.failed(why))
    }

    /// What it fails with: also what stands against the disks is said while it runs.
    fn failed(&self, why: impl std::fmt::Display) -> Refusal {
        let shell = if self.command.contains(" | ") { "set -o pipefail && " } else { "" };
        Refusal::failed(format!("command '{shell}{}' failed: {why}\n", self.command))
    }
}
