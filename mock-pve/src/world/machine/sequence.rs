//! The ways down: what a machine does step by step before it reboots, switches off, forgets or becomes another version
//! (Talos, `internal/app/machined/pkg/runtime/v1alpha1/v1alpha1_sequencer.go`).

use std::sync::atomic::{AtomicUsize, Ordering};

use super::command::{Command, Restart, Upgrade, Wipe};
use super::config::MachineType;
use super::event::{Stopped, What};
use super::faults::Fault;
use super::install::{self, InstallError};
use super::life::{Boot, Commands, End, chain};
use super::state::{Api, ServiceState, Stage, State};
use super::versions::Version;
use crate::disk::{self, DiskError, Keep, Staged};
use crate::etcd::{self, Change};
use crate::world::script::Takes;

/// What a way down takes in all, about: scenarios make that longer or shorter.
const IN_ALL: f64 = 10.0;
/// Seconds that things take in real life.
const CLEANUP: f64 = 4.0;
const STOP: f64 = 3.0;
const SHORT: f64 = 0.3;
/// What the steps of a shutdown add up to.
const SHUTDOWN: f64 = 10.0;
const STOP_ALL: f64 = 1.5;
/// Talos reboots that long after a sequence failed.
const AFTER_FAILURE: f64 = 10.0;
const LEAVE_TRIES: usize = 60;

/// Linux' reboot commands.
const RESTART: i64 = 0x0123_4567;
const KEXEC: i64 = 0x4558_4543;
const POWER_OFF: i64 = 0x4321_fedc;

/// Name of the sequence behind a command, who asked for it, and the stage that goes with it.
fn named(command: &Command) -> Option<(&'static str, &str, Stage)> {
    match command {
        Command::Reboot { actor, .. } | Command::Rollback { actor } => Some(("reboot", actor, Stage::Rebooting)),
        Command::Shutdown { actor, .. } => Some(("shutdown", actor, Stage::ShuttingDown)),
        Command::Reset { actor, .. } => Some(("reset", actor, Stage::Resetting)),
        Command::Upgrade { actor, upgrade } if upgrade.stage => Some(("stageUpgrade", actor, Stage::Upgrading)),
        Command::Upgrade { actor, .. } => Some(("upgrade", actor, Stage::Upgrading)),
        Command::Apply { .. } | Command::Bootstrap(_) | Command::LeaveEtcd | Command::Service(..) => None,
    }
}

/// Whether a sequence may replace the one that runs.
fn takes_over(running: &Command, next: &Command) -> bool {
    match next {
        Command::Shutdown { .. } | Command::Rollback { .. } => true,
        Command::Reboot { .. } => matches!(running, Command::Reboot { .. } | Command::Reset { .. }),
        _ => false,
    }
}

impl Boot {
    /// The way down, whatever else comes meanwhile.
    pub(super) async fn down(&self, mut command: Command, commands: &mut Commands) -> End {
        loop {
            let next = tokio::select! {
                end = self.sequence(&command) => return end,
                next = self.taken_over(&command, commands) => next,
            };
            if let Some((name, actor, _)) = named(&command) {
                let why = "sequence was canceled by another sequence".to_owned();
                self.machine.happened(actor, What::SequenceError(name, Stopped::Canceled, why));
            }
            command = next;
        }
    }

    /// Refuses what comes while a sequence runs, until one comes that may take over.
    async fn taken_over(&self, running: &Command, commands: &mut Commands) -> Command {
        loop {
            let Some(next) = commands.recv().await else { return std::future::pending().await };
            if takes_over(running, &next) {
                return next;
            }
            if let Some((name, actor, _)) = named(&next) {
                let why = "sequence not started: locked".to_owned();
                self.machine.happened(actor, What::SequenceError(name, Stopped::Locked, why));
            }
        }
    }

    async fn sequence(&self, command: &Command) -> End {
        let Some((name, actor, stage)) = named(command) else { return End::Reboot };
        let run = Run::begin(self, name, actor, Some(stage));
        let reboots = matches!(command, Command::Reboot { .. } | Command::Upgrade { .. } | Command::Rollback { .. });
        if reboots && self.machine.world().goes_wrong(self.machine.vmid(), Fault::Hangs) {
            run.phase("cleanup", "stopAllPods", std::future::pending::<()>()).await;
        }
        match command {
            Command::Reboot { restart: Restart::Force, .. } => run.reboot(RESTART).await,
            Command::Reboot { restart, .. } => run.plain(*restart).await,
            Command::Rollback { .. } => run.plain(Restart::PowerCycle).await,
            Command::Upgrade { upgrade, .. } if upgrade.stage => run.stage(upgrade).await,
            Command::Upgrade { upgrade, .. } => run.upgrade(upgrade).await,
            Command::Shutdown { force, .. } => run.shutdown(*force).await,
            Command::Reset { graceful, wipe, reboot, .. } => run.reset(*graceful, wipe, *reboot).await,
            _ => End::Reboot,
        }
    }

    /// An upgrade that was staged before the last reboot: nothing uses the disk yet.
    pub(super) async fn staged_upgrade(&self, staged: &Staged) -> End {
        let run = Run::begin(self, "install", "", Some(Stage::Installing));
        let upgrade = Upgrade {
            image: staged.image.clone(),
            recipe: staged.recipe.clone(),
            preserve: staged.preserve,
            stage: true,
            restart: Restart::Kexec,
        };
        if let Err(error) = run.phase("install", "install", run.install(&upgrade, install::From::Boot)).await {
            return run.failed(1, &error.to_string()).await;
        }
        run.phase("saveMeta", "flushMeta", async {}).await;
        run.phase("stopEverything", "stopAllServices", self.rest(STOP_ALL)).await;
        run.reboot(KEXEC).await
    }

    async fn rest(&self, seconds: f64) {
        let clock = self.machine.world().clock();
        clock.sleep(seconds * clock.takes(Takes::Shutdown, IN_ALL) / IN_ALL).await;
    }

    fn wipe(&self, wipe: &Wipe) -> Result<(), DiskError> {
        match wipe {
            Wipe::Disk => disk::erase(&self.path()),
            Wipe::Nothing => Ok(()),
            Wipe::Partitions(labels) => labels.iter().try_for_each(|label| match label.as_str() {
                "STATE" => {
                    [Keep::Config, Keep::Identity].into_iter().try_for_each(|what| disk::wipe(&self.path(), what))
                }
                "META" => {
                    let mut meta = disk::meta(&self.path())?;
                    (meta.staged, meta.tags) = (None, std::collections::BTreeMap::new());
                    disk::store_meta(&self.path(), &meta)
                }
                "EPHEMERAL" => self.wipe_ephemeral(),
                _ => Ok(()),
            }),
        }
    }

    fn wipe_ephemeral(&self) -> Result<(), DiskError> {
        self.machine.update(|state| state.images.clear());
        etcd::forget(&self.path()).map_err(|error| match error {
            etcd::KeptError::Disk(error) => error,
            _ => DiskError::Record { label: "EPHEMERAL", why: "it can't be wiped" },
        })
    }
}

/// A sequence that runs.
struct Run<'a> {
    boot: &'a Boot,
    name: &'static str,
    actor: &'a str,
    phases: AtomicUsize,
}

impl<'a> Run<'a> {
    fn begin(boot: &'a Boot, name: &'static str, actor: &'a str, stage: Option<Stage>) -> Self {
        let machine = &boot.machine;
        machine.happened(actor, What::Sequence(name, true));
        machine.update(|state| {
            state.sequence = Some(name);
            if let Some(stage) = stage {
                state.stage = stage;
            }
        });
        machine.says(&format!("[talos] {name} sequence: started"));
        Self { boot, name, actor, phases: AtomicUsize::new(0) }
    }

    /// One phase with one task.
    async fn phase<T>(&self, phase: &str, task: &str, work: impl Future<Output = T>) -> T {
        let machine = &self.boot.machine;
        self.phases.fetch_add(1, Ordering::Relaxed);
        machine.happened(self.actor, What::Phase(phase.to_owned(), true));
        machine.says(&format!("[talos] phase {phase} ({}): 1 tasks(s)", self.count()));
        machine.happened(self.actor, What::Task(task.to_owned(), true));
        machine.says(&format!("[talos] task {task} (1/1): starting"));
        let done = work.await;
        machine.happened(self.actor, What::Task(task.to_owned(), false));
        machine.says(&format!("[talos] task {task} (1/1): done"));
        machine.happened(self.actor, What::Phase(phase.to_owned(), false));
        done
    }

    fn count(&self) -> usize {
        self.phases.load(Ordering::Relaxed)
    }

    async fn short(&self, phase: &str, task: &str) {
        self.phase(phase, task, self.boot.rest(SHORT)).await;
    }

    /// Pods, services and mounts go, in that order.
    async fn stop_all(&self, restart: Option<Restart>) {
        self.short("denyNewServices", "denyNewServices").await;
        self.stop_services().await;
        self.short("umount", "unmountPodMounts").await;
        self.short("unmountBind", "unmountSystemDiskBindMounts").await;
        self.short("unmountSystem", "unmountEphemeralPartition").await;
        self.short("volumeFinalize", "teardownLifecycle").await;
        self.stop_everything().await;
        if restart == Some(Restart::Kexec) {
            self.short("kexec", "kexecPrepare").await;
        }
    }

    /// What needs EPHEMERAL: kubelet, etcd, the container runtime.
    async fn stop_services(&self) {
        let stop = async {
            let machine = &self.boot.machine;
            for id in ["kubelet", "etcd", "cri", "trustd"] {
                if machine.see(|state| state.services.get(id).is_some_and(|one| one.state == ServiceState::Running)) {
                    machine.service(id, ServiceState::Stopping, None, "Service stopping");
                }
            }
            machine.room().stop_services(machine);
            self.boot.rest(STOP).await;
            machine.world().original_gone(machine.vmid()).await;
            for id in ["kubelet", "etcd", "cri", "trustd"] {
                if machine.see(|state| state.services.get(id).is_some_and(|one| one.state == ServiceState::Stopping)) {
                    machine.service(id, ServiceState::Finished, None, "Service finished successfully");
                }
            }
        };
        self.phase("stopServices", "stopServicesForUpgrade", stop).await;
    }

    async fn stop_everything(&self) {
        self.phase("stopEverything", "stopAllServices", self.boot.rest(STOP_ALL)).await;
    }

    async fn clean_up(&self, task: &str) {
        self.phase("cleanup", task, self.boot.rest(CLEANUP)).await;
        self.short("dbus", "stopDBus").await;
    }

    async fn reboot(&self, with: i64) -> End {
        let machine = &self.boot.machine;
        self.phase("reboot", "reboot", async { machine.happened(self.actor, What::Restart(with)) }).await;
        self.gone();
        End::Reboot
    }

    async fn power_off(&self) -> End {
        let machine = &self.boot.machine;
        self.phase("shutdown", "shutdown", async { machine.happened(self.actor, What::Restart(POWER_OFF)) }).await;
        self.gone();
        End::PowerOff
    }

    fn gone(&self) {
        let machine = &self.boot.machine;
        machine.world().set_guest(machine.vmid(), None);
        machine.update(|state| state.sequence = None);
    }

    async fn plain(&self, restart: Restart) -> End {
        self.clean_up("stopAllPods").await;
        self.stop_all(Some(restart)).await;
        self.reboot(if restart == Restart::Kexec { KEXEC } else { RESTART }).await
    }

    async fn shutdown(&self, force: bool) -> End {
        self.short("storeShutdown", "storeShutdown").await;
        if !force && self.registers() {
            self.phase("drain", "cordonAndDrainNode", self.boot.drain()).await;
        }
        // What a scenario makes it longer by.
        let clock = self.boot.machine.world().clock();
        self.boot.rest((clock.takes(Takes::Shutdown, SHUTDOWN) - SHUTDOWN).max(0.0)).await;
        self.clean_up("stopAllPods").await;
        self.stop_all(None).await;
        self.power_off().await
    }

    fn registers(&self) -> bool {
        self.boot.machine.see(|state| state.config.as_ref().is_some_and(|config| !config.skips_node()))
    }

    async fn reset(&self, graceful: bool, wipe: &Wipe, reboot: bool) -> End {
        let (boot, machine) = (self.boot, &self.boot.machine);
        if graceful && self.registers() {
            self.phase("drain", "cordonAndDrainNode", boot.drain()).await;
        }
        self.clean_up(if graceful { "removeAllPods" } else { "stopAllPods" }).await;
        if graceful && machine.see(State::machine_type) == Some(MachineType::ControlPlane) {
            let left = self.phase("leave", "leaveEtcd", self.leave_etcd()).await;
            if let Err(why) = left {
                return self.failed(self.count(), &why).await;
            }
        }
        self.stop_all(None).await;
        machine.room().leave(machine);
        let (phase, task) = match wipe {
            Wipe::Disk => ("reset", "resetSystemDisk"),
            Wipe::Partitions(_) => ("resetSpec", "resetSystemDiskSpec"),
            Wipe::Nothing => ("resetUserDisks", "resetUserDisks"),
        };
        self.phase(phase, task, async {
            if let Err(error) = boot.wipe(wipe) {
                machine.says(&format!("[talos] reset failed: {}", chain(&error)));
            }
            if wipe.takes_ephemeral() {
                machine.world().forget_original(machine.vmid()).await;
            }
        })
        .await;
        if reboot { self.reboot(RESTART).await } else { self.power_off().await }
    }

    /// The member leaves the cluster, which has to let it.
    async fn leave_etcd(&self) -> Result<(), String> {
        let machine = &self.boot.machine;
        let Some(client) = machine.see(|state| state.membership.clone()) else { return Ok(()) };
        let _ = client.forfeit();
        if let Err(error) = machine.forfeit_original(&client).await {
            tracing::debug!(%error, "the original keeps its leadership");
        }
        let mut last = String::new();
        let mut out = false;
        for _ in 0..LEAVE_TRIES {
            // Once is enough: who was removed answers nothing more.
            if !out && let Err(error) = machine.remove_original(&client, client.id).await {
                last = error.to_string();
                self.boot.rest(5.0).await;
                continue;
            }
            out = true;
            match client.change(Change::Remove(client.id)).await {
                Ok(_) => {
                    machine.says("[talos] left etcd");
                    return Ok(());
                }
                Err(error @ etcd::EtcdError::NotEnoughMembers) => {
                    return Err(format!("failed to leave cluster: {error}"));
                }
                Err(error) => last = error.to_string(),
            }
            self.boot.rest(5.0).await;
        }
        Err(format!("failed to leave cluster: {last}"))
    }

    async fn stage(&self, upgrade: &Upgrade) -> End {
        let path = self.boot.path();
        let staged =
            Staged { image: upgrade.image.clone(), recipe: upgrade.recipe.clone(), preserve: upgrade.preserve };
        let kept = disk::meta(&path).and_then(|mut meta| {
            meta.staged = Some(staged);
            disk::store_meta(&path, &meta)
        });
        if let Err(error) = kept {
            return self.failed(1, &chain(&error)).await;
        }
        self.plain(upgrade.restart).await
    }

    async fn upgrade(&self, upgrade: &Upgrade) -> End {
        let (boot, machine) = (self.boot, &self.boot.machine);
        let wipes = machine.see(|state| state.version().wipes_on_upgrade()) && !upgrade.preserve;
        // A newer machine tells an older installer to keep nothing, unless it was told to keep it.
        let installer_wipes = Version::of(&upgrade.recipe.version).wipes_on_upgrade() && !upgrade.preserve;
        if self.registers() {
            self.phase("drain", "cordonAndDrainNode", boot.drain()).await;
        }
        self.clean_up(if wipes { "removeAllPods" } else { "stopAllPods" }).await;
        if wipes && machine.see(State::machine_type) == Some(MachineType::ControlPlane) {
            let left = self.phase("leave", "leaveEtcd", self.leave_etcd()).await;
            if let Err(why) = left {
                return self.failed(self.count(), &why).await;
            }
        }
        self.stop_services().await;
        self.short("unmount", "unmountPodMounts").await;
        self.short("unmountBind", "unmountSystemDiskBindMounts").await;
        self.short("unmountSystem", "unmountEphemeralPartition").await;
        self.short("volumeFinalize", "teardownLifecycle").await;
        let installed = self.phase("upgrade", "upgrade", self.install(upgrade, install::From::Running)).await;
        if let Err(error) = installed {
            return self.failed(self.count(), &error.to_string()).await;
        }
        if wipes || installer_wipes {
            if let Err(error) = boot.wipe_ephemeral() {
                machine.says(&format!("[talos] {}", chain(&error)));
            }
            machine.world().forget_original(machine.vmid()).await;
        }
        self.short("meta", "reloadMeta").await;
        if upgrade.restart == Restart::Kexec {
            self.short("kexec", "kexecPrepare").await;
        }
        self.stop_everything().await;
        self.reboot(if upgrade.restart == Restart::Kexec { KEXEC } else { RESTART }).await
    }

    async fn install(&self, upgrade: &Upgrade, from: install::From) -> Result<(), InstallError> {
        let machine = &self.boot.machine;
        let say = |line: &str| machine.says(&format!("[talos] [installer] {line}"));
        machine.install_from(from, &upgrade.recipe, say).await
    }

    /// A sequence that fails ends in a reboot into what booted last.
    async fn failed(&self, phase: usize, why: &str) -> End {
        let machine = &self.boot.machine;
        let name = self.name;
        let error = format!("sequence failed: error running phase {phase} in {name} sequence: task 1/1: failed, {why}");
        machine.happened(self.actor, What::SequenceError(name, Stopped::Fatal, error.clone()));
        machine.says(&format!("[talos] {error}"));
        machine.says(&format!("[talos] rebooting in {AFTER_FAILURE} seconds"));
        self.boot.rest(AFTER_FAILURE).await;
        machine.room().stop_services(machine);
        machine.world().original_gone(machine.vmid()).await;
        machine.update(|state| state.api = Api::Silent);
        machine.happened(self.actor, What::Restart(RESTART));
        self.gone();
        End::Reboot
    }
}
