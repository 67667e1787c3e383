//! The backup of one VM.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::conf::{self, Disk};
use super::grip::{After, Grip};
use super::job::{Job, Mode, Place};
use super::write::{Order, write};
use super::{duration, names, rendered, speed};
use crate::vma::{Device, Header, Packing};
use crate::world::World;
use crate::world::disks::blocking;
use crate::world::drive;
use crate::world::firewall;
use crate::world::plan_disk::parse_drive;
use crate::world::property::{parse_size, print_size};
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::script::Takes;
use crate::world::state::Vm;
use crate::world::update::check_lock;
use crate::world::work::{Mode as Sharing, Work};

/// A backup that is being made.
pub(super) struct Dump<'a> {
    pub(super) work: &'a Work,
    pub(super) who: &'a Caller,
    pub(super) job: &'a Job,
    pub(super) place: &'a Place,
    pub(super) vmid: u32,
    /// Lines of its own log.
    lines: Vec<String>,
    /// Where that log goes.
    log: Option<PathBuf>,
}

/// What an archive is called before it is whole: the last part of its name is another one.
fn partial(stem: &str, packing: Packing) -> String {
    if packing == Packing::Plain { format!("{stem}.dat") } else { format!("{stem}.vma.dat") }
}

/// Writes it off the async threads; nothing is left of it if nobody waits for it any more.
async fn write_apart(order: Order) -> std::io::Result<u64> {
    blocking(move || {
        let done = write(&order);
        if order.stop.load(Ordering::Relaxed) {
            let _ = std::fs::remove_file(&order.target);
        }
        done
    })
    .await
}

/// A disk with the file behind it.
struct Found {
    disk: Disk,
    real: PathBuf,
    size: u64,
}

impl<'a> Dump<'a> {
    pub(super) fn new(work: &'a Work, who: &'a Caller, job: &'a Job, place: &'a Place, vmid: u32) -> Self {
        Self { work, who, job, place, vmid, lines: Vec::new(), log: None }
    }

    pub(super) fn world(&self) -> &'a World {
        self.work.world()
    }

    fn note(&mut self, level: &str, text: &str) {
        let now = names::shown(self.world().clock().unix());
        self.lines.extend(text.lines().map(|line| format!("{now} {level}: {line}")));
    }

    pub(super) fn info(&mut self, text: &str) {
        self.note("INFO", text);
        for line in text.lines() {
            self.work.log(format!("INFO: {line}"));
        }
    }

    pub(super) fn error(&mut self, text: &str) {
        self.note("ERROR", text);
        for line in text.lines() {
            self.work.log(format!("ERROR: {line}"));
        }
    }

    pub(super) fn warn(&mut self, text: &str) {
        self.note("WARN", text);
        for line in text.lines() {
            self.work.warn(line);
        }
    }

    /// Writes the log beside the archive.
    pub(super) fn keep_log(&self) {
        let Some(path) = &self.log else { return };
        let text = format!("{}\n", self.lines.join("\n"));
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(path, text));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "the log of a backup can't be written");
        }
    }

    /// Makes the backup.
    pub(super) async fn run(&mut self) -> Rule<()> {
        let (world, vmid, job) = (self.world(), self.vmid, self.job);
        let Some(vm) = world.state().vms.get(&vmid).cloned() else {
            return Err(Refusal::failed(format!("unable to find VM '{vmid}'\n")));
        };
        let wanted = world.state().ha.get(&format!("vm:{vmid}")).and_then(|service| service.get("state").cloned());
        if job.mode == Mode::Stop && wanted.is_some_and(|state| state == "started") {
            return Err(Refusal::failed(
                "Cannot execute a backup with stop mode on a HA managed and enabled Service. Use snapshot mode or disable \
                 the Service.\n",
            ));
        }
        self.check_limits()?;
        let stem = self.free_stem().await;
        self.log = Some(self.place.real.join(format!("{stem}.log")));
        self.info(&format!("Starting Backup of VM {vmid} (qemu)"));
        self.work.log(format!("INFO: Backup started at {}", names::shown(world.clock().unix())));
        let runs = vm.running.is_some();
        self.info(&format!("status = {}", if runs { "running" } else { "stopped" }));
        let mode = if runs { job.mode } else { Mode::Stop };
        let mut grip = self.lock(&stem).await?;
        let done = self.locked(&mut grip, mode, &stem).await;
        self.give_back(&mut grip);
        done
    }

    /// The part of it in which nobody else has the VM.
    async fn locked(&mut self, grip: &mut Grip, mode: Mode, stem: &str) -> Rule<()> {
        let (world, vmid, job) = (self.world(), self.vmid, self.job);
        // Whoever held the lock may have changed it.
        let vm = world.state().vm(&job.node, vmid)?.clone();
        let runs = vm.running.is_some();
        let found = if mode == Mode::Snapshot { Some(self.prepare(&vm)?) } else { None };
        self.info(&format!("backup mode: {}", mode.name()));
        if let Some(limit) = job.bwlimit.filter(|limit| *limit > 0) {
            self.info(&format!("bandwidth limit: {limit} KiB/s"));
        }
        self.info(&format!("ionice priority: {}", job.ionice));
        let found = match found {
            Some(found) => found,
            None => self.prepare(&vm)?,
        };
        let paused = vm.running.as_ref().is_some_and(|running| running.paused);
        if runs && mode == Mode::Stop {
            self.info("stopping virtual guest");
            grip.since = Some(world.clock().unix());
            world.tell(self.who, "shutdown", Some(vmid), None);
            if let Some(line) = world.silent_agent(vmid, &vm.config) {
                self.info(&line);
            }
            if !world.ask_and_wait(vmid, job.stopwait * 60.0).await {
                let seconds = job.stopwait * 60.0;
                let text = format!("command 'qm shutdown {vmid} --skiplock --keepActive --timeout {seconds}' failed");
                return Err(Refusal::failed(format!("{text}: exit code 255\n")));
            }
            (grip.after, grip.mode) = (After::Start, After::Start);
        } else if runs && mode == Mode::Suspend {
            self.info("suspending guest");
            grip.since = Some(world.clock().unix());
            grip.mode = After::Resume;
            if !paused && let Some(running) = world.state().vm_mut(&job.node, vmid)?.running.as_mut() {
                running.paused = true;
                grip.after = After::Resume;
            }
        }
        let disks: Vec<Disk> = found.iter().map(|found| found.disk.clone()).collect();
        // What was pending may have come true when it stopped.
        let (text, said) = conf::kept(world.state().vm(&job.node, vmid)?, &disks);
        for line in said {
            self.info(&line);
        }
        let file = names::file(stem, job.packing);
        self.info(&format!("creating vzdump archive '{}/{file}'", self.place.shown));
        self.archive(&vm, mode, grip, (text, found)).await?;
        let key = self.put(grip, &file)?;
        if let Some(key) = &key {
            self.describe(key, &vm)?;
        }
        self.remove_older()
    }

    /// Unlocks the VM, and lets a guest that its mode stopped go on if it does not yet.
    fn give_back(&mut self, grip: &mut Grip) {
        grip.unlock();
        match std::mem::replace(&mut grip.mode, After::Same) {
            After::Same => return,
            After::Resume => self.info("resume vm"),
            After::Start if self.world().pid_of(self.vmid).is_none() => self.info("restarting vm"),
            After::Start => {}
        }
        grip.go_on();
        if let Some(since) = grip.since.take() {
            let seconds = self.world().clock().unix().saturating_sub(since);
            let seconds = if seconds == 0 { "<1".to_owned() } else { seconds.to_string() };
            self.info(&format!("guest is online again after {seconds} seconds"));
        }
    }

    /// Lets a guest go on whose disks may change again.
    fn resume(&mut self, vm: &Vm, grip: &mut Grip) {
        if vm.running.as_ref().is_none_or(|running| running.paused) {
            return;
        }
        let since = grip.since.take().map(|since| self.world().clock().unix().saturating_sub(since));
        let since = since.map_or_else(String::new, |seconds| format!(" after {seconds} seconds"));
        self.info(&format!("resuming VM again{since}"));
        grip.go_on();
    }

    /// A name that no archive has: a time is good for one of them.
    async fn free_stem(&self) -> String {
        loop {
            let stem = names::stem(self.vmid, self.world().clock().unix());
            let taken =
                Packing::ALL.into_iter().any(|packing| self.place.real.join(names::file(&stem, packing)).exists());
            if !taken {
                return stem;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    async fn lock(&self, stem: &str) -> Rule<Grip> {
        let (world, vmid) = (self.world(), self.vmid);
        let _flock = world.flock(vmid, Sharing::Exclusive, 10.0).await?;
        let mut state = world.state();
        let vm = state.vm_mut(&self.job.node, vmid)?;
        check_lock(&vm.config)?;
        vm.config.insert("lock".to_owned(), "backup".to_owned());
        let partial = self.place.real.join(partial(stem, self.job.packing));
        Ok(Grip::new(world.clone(), vmid, partial))
    }

    /// Looks at the disks, and tells which of them go along.
    fn prepare(&mut self, vm: &Vm) -> Rule<Vec<Found>> {
        if let Some(name) = vm.config.get("name") {
            self.info(&format!("VM Name: {name}"));
        }
        let ovmf = vm.config.get("bios").is_some_and(|bios| bios == "ovmf");
        let mut found = Vec::new();
        for key in drive::disk_keys().chain(["efidisk0".to_owned(), "tpmstate0".to_owned()]) {
            let Some(value) = vm.config.get(&key) else { continue };
            let options = parse_drive(value);
            let volid = options.get("file").unwrap_or_default().to_owned();
            if drive::is_cdrom(&options) {
                continue;
            }
            if key == "efidisk0" && !ovmf {
                self.info(&format!("exclude disk '{key}' '{volid}' (efidisk but no OMVF BIOS)"));
                continue;
            }
            if options.get("backup") == Some("0") {
                self.info(&format!("exclude disk '{key}' '{volid}' (backup=no)"));
                continue;
            }
            let size = options
                .get("size")
                .and_then(parse_size)
                .map_or_else(String::new, |size| format!(" {}", print_size(size)));
            self.info(&format!("include disk '{key}' '{volid}'{size}"));
            let state = self.world().state();
            let volume = state.volume_key(&vm.node, &volid);
            let Some((at, volume)) = volume.as_ref().and_then(|at| Some((at, state.volumes.get(at)?))) else {
                return Err(Refusal::failed(format!(
                    "cannot determine size of volume '{volid}' - volume '{volid}' does not exist\n"
                )));
            };
            let device = if key == "tpmstate0" { "drive-tpmstate0-backup".to_owned() } else { format!("drive-{key}") };
            let (storage, format) = (at.storage.clone(), volume.format.clone());
            let (real, size) = (state.file_of(self.world().dir(), at), volume.size);
            found.push(Found { disk: Disk { key, device, storage, format }, real, size });
        }
        found.sort_by(|one, other| one.disk.key.cmp(&other.disk.key));
        Ok(found)
    }

    fn header(&self, text: String, found: &[Found]) -> Header {
        let world = self.world();
        let mut uuid = [0; 16];
        // A made-up id is always of that form.
        let _ = hex::decode_to_slice(world.random_uuid().replace('-', ""), &mut uuid);
        let mut configs = vec![("qemu-server.conf".to_owned(), text.into_bytes())];
        let file = world.state().firewalls.get(&format!("vms/{}", self.vmid)).cloned().unwrap_or_default();
        let rules = firewall::text(&file.options, &file);
        if !rules.is_empty() {
            configs.push(("qemu-server.fw".to_owned(), rules.into_bytes()));
        }
        let device = |found: &Found| Device { name: found.disk.device.clone(), size: found.size };
        let devices = (1..).zip(found).map(|(number, found)| (number, device(found))).collect();
        Header { uuid, ctime: world.clock().unix(), configs, devices }
    }

    /// Writes the archive, and lets the guest go on as soon as its bytes are safe.
    async fn archive(&mut self, vm: &Vm, mode: Mode, grip: &mut Grip, (text, found): (String, Vec<Found>)) -> Rule<()> {
        let (world, work) = (self.world(), self.work);
        let header = self.header(text, &found);
        let total: u64 = found.iter().map(|found| found.size).sum();
        let room = match &self.place.storage {
            Some(storage) => world.available(&self.job.node, storage),
            None => u64::MAX,
        };
        let order = Order {
            target: grip.partial.clone(),
            room,
            packing: self.job.packing,
            header,
            disks: (1..).zip(&found).map(|(number, found)| (number, found.real.clone(), found.size)).collect(),
            stop: Arc::clone(&grip.stop),
        };
        if found.is_empty() {
            return self.archive_config(order).await;
        }
        if world.pid_of(self.vmid).is_none() {
            self.info("starting kvm to execute backup task");
            grip.begin_process();
        }
        if found.iter().any(|found| found.disk.key == "tpmstate0") {
            self.info("attaching TPM drive to QEMU for backup");
        }
        let thaw = mode != Mode::Stop && self.freeze(vm);
        let written = work.program(None, write_apart(order)).await;
        if thaw {
            self.info("issuing guest-agent 'fs-thaw' command");
        }
        self.info(&format!("started backup task '{}'", world.random_uuid()));
        self.resume(vm, grip);
        let done = match written {
            Ok(Ok(zeros)) => work.program(None, self.take_time(total, zeros)).await.map_err(str::to_owned),
            Ok(Err(error)) => Err(format!("vma_queue_write: write error - {error}")),
            Err(words) => Err(words.to_owned()),
        };
        if let Err(error) = &done {
            self.error(error);
            self.info("aborting backup job");
            self.resume(vm, grip);
        }
        if vm.running.is_none() {
            grip.end_process();
            self.info(if world.pid_of(self.vmid).is_none() {
                "stopping kvm after backup task"
            } else {
                "kvm status changed after backup ('running') - keep VM running"
            });
        }
        done.map_err(|error| Refusal::failed(format!("{error}\n")))
    }

    /// An archive of a VM without disks: no process of its own is needed.
    async fn archive_config(&mut self, order: Order) -> Rule<()> {
        self.info("backup contains no disks");
        self.info("starting diskless backup");
        let file = order.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let folder = format!("{}/{}.tmp", self.place.shown, file.split('.').next().unwrap_or_default());
        let rules =
            order.header.config("qemu-server.fw").map_or_else(String::new, |_| format!(" -c {folder}/qemu-server.fw"));
        let start = format!("/usr/bin/vma create -v -c {folder}/qemu-server.conf{rules}");
        let out = format!("exec:{} > {}/{file}", self.job.packer, self.place.shown);
        self.info(&format!("{start} {out}"));
        let why = match self.work.program(None, write_apart(order)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(_)) => "exit code 1",
            Err(words) => words,
        };
        Err(Refusal::failed(format!("command '{start} '{out}'' failed: {why}\n")))
    }

    /// Takes as long as the original would, and tells of it.
    async fn take_time(&mut self, total: u64, zeros: u64) {
        let world = self.world();
        #[expect(clippy::cast_precision_loss, reason = "a duration")]
        let seconds = (total as f64 / 268_435_456.0).min(20.0);
        let seconds = world.clock().takes(Takes::Copy(total), seconds);
        world.clock().sleep(seconds).await;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
        let seconds = seconds.max(0.0) as u64;
        let (all, used) = (rendered(total, 1), total.saturating_sub(zeros));
        self.info(&format!(
            "100% ({all} of {all}) in {}, read: {}, write: {}",
            duration(seconds),
            speed(total, seconds),
            speed(used, seconds)
        ));
        if zeros > 0 {
            self.info(&format!(
                "backup is sparse: {} ({}%) total zero data",
                rendered(zeros, 2),
                zeros * 100 / total.max(1)
            ));
        }
        let all = rendered(total, 2);
        self.info(&match seconds {
            0 => format!("transferred {all} in <1 seconds"),
            _ => format!("transferred {all} in {seconds} seconds ({})", speed(total, seconds)),
        });
    }

    /// Lets the guest's own agent write everything out, if it has one that may. Whether it did.
    fn freeze(&mut self, vm: &Vm) -> bool {
        let paused = vm.running.as_ref().is_none_or(|running| running.paused);
        let Some(agent) = vm.config.get("agent").filter(|_| !paused) else { return false };
        if !drive::agent_enabled(&vm.config) || !self.world().guest(self.vmid).is_some_and(|guest| guest.agent) {
            self.info("skipping guest-agent 'fs-freeze', agent configured but not running?");
            return false;
        }
        let agent = crate::world::property::Properties::parse(agent, "enabled");
        if agent.get("freeze-fs-on-backup").is_some() && !agent.is_on("freeze-fs-on-backup") {
            self.info("skipping guest-agent 'fs-freeze', disabled in VM options");
            return false;
        }
        self.info("issuing guest-agent 'fs-freeze' command");
        true
    }
}
