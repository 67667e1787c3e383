//! Starting and stopping VMs.
//!
//! Purpose: the power operations, as tasks, with the original's refusals. Must not know: requests.
//! Rules after Proxmox VE 8.4 (PVE/QemuServer.pm, `vm_start`, `vm_stop`).

use super::World;
use super::disks::drive_keys;
use super::drive;
use super::hooks::Phase;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::Config;
use super::update::check_lock;
use super::work::{Mode, Work};

/// How a VM is to be stopped.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shutdown {
    /// Seconds of real life to wait for the guest.
    pub timeout: Option<f64>,
    /// Pull the plug when the time is up.
    pub force: bool,
    /// What becomes of the config's lock.
    pub lock: Lock,
}

/// Whether a config's lock stands in the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// It does.
    #[default]
    Respect,
    /// Root may go past it.
    Ignore,
}

impl Lock {
    /// Refuses a config that is locked.
    pub(super) fn check(self, config: &Config) -> Rule<()> {
        if self == Self::Ignore { Ok(()) } else { check_lock(config) }
    }
}

/// How the plug is pulled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stop {
    /// Shutdowns that wait are ended first.
    pub overrule: bool,
    /// What becomes of the config's lock.
    pub lock: Lock,
}

/// What whoever looks for a VM's process says of one that isn't there.
pub fn not_found(node: &str, vmid: u32) -> Refusal {
    Refusal::failed(format!("unable to find configuration file for VM {vmid} on node '{node}'\n"))
}

fn is_paused() -> Refusal {
    Refusal::failed("VM is paused - cannot shutdown\n")
}

/// A VM that is still there after the time that it was given.
fn still_running() -> Refusal {
    Refusal::failed("VM quit/powerdown failed - got timeout\n")
}

impl World {
    /// Starts a VM, or asks the HA manager to. Says the UPID.
    pub fn start_vm(&self, caller: &Caller, node: &str, vmid: u32, lock: Lock) -> String {
        if self.state().is_ha_managed(vmid) {
            return self.ha_start(caller, node, vmid);
        }
        self.start_now(caller, node, vmid, lock)
    }

    /// Starts a VM whoever manages it. Says the UPID.
    pub(super) fn start_now(&self, caller: &Caller, node: &str, vmid: u32, lock: Lock) -> String {
        let at = node.to_owned();
        self.start_task(caller, node, "qmstart", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            if world.goes_on_in_backup(&at, vmid)? {
                return Ok(());
            }
            world.start_work(&work, (&at, vmid), lock).await
        })
    }

    /// The steps of a start; what was suspended to disk comes back from there.
    pub(super) async fn start_work(&self, work: &Work, (node, vmid): (&str, u32), lock: Lock) -> Rule<()> {
        let is = |config: &Config, key: &str, value: &str| config.get(key).is_some_and(|known| known == value);
        let resumes = self
            .state()
            .vm(node, vmid)
            .is_ok_and(|vm| is(&vm.config, "lock", "suspended") || vm.config.contains_key("vmstate"));
        self.may_start(work, (node, vmid), lock)?;
        let config = self.state().vm(node, vmid)?.config.clone();
        if super::update::cloudinit_at(&config).is_some() {
            work.log("generating cloud-init ISO");
        }
        self.hook(work, (node, vmid), &config, Phase::PreStart)?;
        if resumes {
            work.log("Resuming suspended VM");
        }
        if is(&config, "bios", "ovmf") && !config.contains_key("efidisk0") {
            work.warn("no efidisk configured! Using temporary efivars disk.");
        }
        if let Some(memory) = config.get("vmstate") {
            work.log(format!("activating and using '{memory}' as vmstate"));
        }
        self.clock().sleep(0.8).await;
        self.switch_on(vmid);
        if resumes {
            work.log("Resumed VM, removing state");
        }
        self.hook(work, (node, vmid), &config, Phase::PostStart)
    }

    /// A VM that stands still while it is backed up goes on where it is: it needs no start. One that is off has a process
    /// then, which becomes its own.
    fn goes_on_in_backup(&self, node: &str, vmid: u32) -> Rule<bool> {
        {
            let mut state = self.state();
            let vm = state.vm_mut(node, vmid)?;
            if vm.config.get("lock").is_none_or(|lock| lock != "backup") {
                return Ok(false);
            }
            if let Some(running) = &mut vm.running {
                running.paused = false;
                return Ok(true);
            }
        }
        let waits = super::held(&self.0.prelaunched).remove(&vmid);
        if waits {
            self.switch_on(vmid);
        }
        Ok(waits)
    }

    pub(super) fn may_start(&self, work: &Work, (node, vmid): (&str, u32), lock: Lock) -> Rule<()> {
        let mut state = self.state();
        state.check_quorum()?;
        let vm = state.vm(node, vmid)?;
        if vm.config.get("template").is_some_and(|flag| flag == "1") {
            return Err(Refusal::failed("you can't start a vm if it's a template\n"));
        }
        let suspended = vm.config.get("lock").is_some_and(|lock| lock == "suspended");
        if !suspended {
            lock.check(&vm.config)?;
        }
        if vm.running.is_some() {
            return Err(Refusal::failed(format!("VM {vmid} already running\n")));
        }
        super::hotplug::check_memory(&vm.config)?;
        let bridges: Vec<(String, String)> = drive::nics(&vm.config)
            .into_iter()
            .filter_map(|(key, nic)| Some((key, nic.get("bridge")?.to_owned())))
            .collect();
        let volumes: Vec<String> = drive_keys(&vm.config)
            .iter()
            .filter_map(|key| super::config::volid(&vm.config[key]))
            .filter(|volid| volid != "none" && volid != "cdrom" && !volid.starts_with('/'))
            .collect();
        let known = |bridge: &str| {
            state.nodes.get(node).is_some_and(|node| {
                node.network.iter().any(|iface| iface.get("iface").and_then(|name| name.as_str()) == Some(bridge))
            }) || self.network(bridge).is_some()
        };
        if let Some((key, bridge)) = bridges.iter().find(|(_, bridge)| !known(bridge)) {
            let (script, tap) = ("/usr/libexec/qemu-server/pve-bridge", format!("tap{vmid}i{}", &key[3..]));
            let lines = [
                format!("bridge '{bridge}' does not exist"),
                format!(
                    "kvm: -netdev type=tap,id={key},ifname={tap},script={script},downscript={script}down: network \
                     script {script} failed with status 512"
                ),
            ];
            for line in lines {
                state.tasks.log(work.upid(), line);
            }
            return Err(Refusal::failed("start failed: QEMU exited with code 1\n"));
        }
        for volid in volumes {
            if state.volume_key(node, &volid).is_none_or(|key| !state.volumes.contains_key(&key)) {
                return Err(Refusal::failed(format!("volume '{volid}' does not exist\n")));
            }
        }
        if suspended && let Some(vm) = state.vms.get_mut(&vmid) {
            vm.config.remove("lock");
        }
        Ok(())
    }

    /// Pulls the plug of a VM, or asks the HA manager to. Says the UPID.
    pub fn stop_vm(&self, caller: &Caller, node: &str, vmid: u32, how: Stop) -> Rule<String> {
        if self.state().is_ha_managed(vmid) {
            if how.overrule {
                return Err(Refusal::param("overrule-shutdown", "Not applicable for HA resources."));
            }
            self.tell(caller, "stop", Some(vmid), None);
            return Ok(self.ha_stop(caller, node, vmid, 0.0));
        }
        Ok(self.stop_now(caller, node, vmid, how))
    }

    /// Pulls the plug of a VM whoever manages it. Says the UPID.
    pub(super) fn stop_now(&self, caller: &Caller, node: &str, vmid: u32, how: Stop) -> String {
        self.tell(caller, "stop", Some(vmid), None);
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "qmstop", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            if how.overrule {
                world.overrule_shutdowns(&who, &at, vmid, &work).await;
            }
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            if world.state().vm(&at, vmid).is_err() {
                return Err(not_found(&at, vmid));
            }
            if world.pid_of(vmid).is_some() {
                let config = world.state().vm(&at, vmid)?.config.clone();
                how.lock.check(&config)?;
                world.hook(&work, (&at, vmid), &config, Phase::PreStop)?;
                world.clock().sleep(0.5).await;
                world.switch_off(vmid);
            }
            Ok(())
        })
    }

    async fn overrule_shutdowns(&self, caller: &Caller, node: &str, vmid: u32, work: &Work) {
        let tasks: Vec<String> = {
            let state = self.state();
            let sees_all = state.may(caller, &format!("/nodes/{node}"), &["Sys.Modify"]);
            state
                .tasks
                .by_upid
                .values()
                .filter(|task| task.kind == "qmshutdown" && task.id == vmid.to_string() && task.status.is_none())
                .filter(|task| sees_all || task.user == caller.identity)
                .map(|task| task.upid.clone())
                .collect()
        };
        if tasks.is_empty() {
            return;
        }
        for upid in &tasks {
            self.stop_task(upid);
        }
        for upid in &tasks {
            self.task_end(upid, std::time::Duration::from_secs(5)).await;
        }
        work.log(format!("overruled qmshutdown tasks: {}", tasks.join(", ")));
    }

    /// Asks a VM to shut down, or the HA manager to see to it. Says the UPID.
    pub fn shutdown_vm(&self, caller: &Caller, node: &str, vmid: u32, how: Shutdown) -> Rule<String> {
        if self.state().is_ha_managed(vmid) {
            if self.is_paused(vmid) && !how.force {
                return Err(is_paused());
            }
            self.tell(caller, "shutdown", Some(vmid), None);
            return Ok(self.ha_stop(caller, node, vmid, how.timeout.unwrap_or(60.0)));
        }
        self.shutdown_now(caller, node, vmid, how)
    }

    /// Asks a VM to shut down whoever manages it. Says the UPID.
    pub(super) fn shutdown_now(&self, caller: &Caller, node: &str, vmid: u32, how: Shutdown) -> Rule<String> {
        let paused = self.is_paused(vmid);
        if paused && !how.force {
            return Err(is_paused());
        }
        self.tell(caller, "shutdown", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmshutdown", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let (config, runs) = {
                let state = world.state();
                let Ok(vm) = state.vm(&at, vmid) else { return Err(not_found(&at, vmid)) };
                (vm.config.clone(), vm.running.is_some())
            };
            if runs {
                how.lock.check(&config)?;
                world.hook(&work, (&at, vmid), &config, Phase::PreStop)?;
            }
            let startup = config
                .get("startup")
                .and_then(|text| Properties::parse(text, "order").get("down").and_then(|down| down.parse().ok()));
            let timeout = how.timeout.or(startup).unwrap_or(60.0);
            if paused {
                world.switch_off(vmid);
                return Ok(());
            }
            if world.shut_down(&work, vmid, &config, timeout).await {
                return Ok(());
            }
            if how.force {
                work.log("VM still running - terminating now with SIGTERM");
                world.clock().sleep(0.5).await;
                world.switch_off(vmid);
                return Ok(());
            }
            Err(still_running())
        }))
    }

    fn is_paused(&self, vmid: u32) -> bool {
        self.state().vms.get(&vmid).and_then(|vm| vm.running.as_ref()).is_some_and(|running| running.paused)
    }

    /// What is said of a VM that runs, and whose agent is to be asked and doesn't answer (qemu-server 8,
    /// PVE/QemuServer.pm, `qga_check_running`).
    pub(super) fn silent_agent(&self, vmid: u32, config: &Config) -> Option<String> {
        let answers = self.guest(vmid).is_some_and(|guest| guest.agent);
        (self.pid_of(vmid).is_some() && drive::agent_enabled(config) && !answers).then(|| {
            format!("QEMU Guest Agent is not running - VM {vmid} qmp command 'guest-ping' failed - got timeout")
        })
    }

    /// Asks a guest to shut down as part of a task. Whether the VM went off.
    async fn shut_down(&self, work: &Work, vmid: u32, config: &Config, seconds: f64) -> bool {
        if let Some(line) = self.silent_agent(vmid, config) {
            work.log(line);
        }
        self.ask_and_wait(vmid, seconds).await
    }

    /// Asks a guest to shut down, by its agent or else by the power button, and waits. Whether the VM went off.
    pub(super) async fn ask_and_wait(&self, vmid: u32, seconds: f64) -> bool {
        let Some(pid) = self.pid_of(vmid) else { return true };
        self.ask_to_shut_down(vmid);
        let deadline = tokio::time::Instant::now() + self.clock().scaled(seconds);
        loop {
            if self.pid_of(vmid) != Some(pid) {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    pub(super) fn must_run(&self, node: &str, vmid: u32) -> Rule<()> {
        let state = self.state();
        match state.vm(node, vmid) {
            Err(_) => Err(not_found(node, vmid)),
            Ok(vm) if vm.running.is_none() => Err(Refusal::failed(format!("VM {vmid} not running\n"))),
            Ok(_) => Ok(()),
        }
    }

    /// Hard reset. Says the UPID.
    pub fn reset_vm(&self, caller: &Caller, node: &str, vmid: u32, lock: Lock) -> Rule<String> {
        self.must_run(node, vmid)?;
        self.tell(caller, "reset", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmreset", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            lock.check(&world.state().vm(&at, vmid)?.config)?;
            world.reset(vmid);
            Ok(())
        }))
    }

    /// Shutdown and start again. Says the UPID.
    pub fn reboot_vm(&self, caller: &Caller, node: &str, vmid: u32, timeout: Option<f64>) -> Rule<String> {
        if self.is_paused(vmid) {
            return Err(is_paused());
        }
        self.must_run(node, vmid)?;
        self.tell(caller, "reboot", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmreboot", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            if world.pid_of(vmid).is_none() {
                return Ok(());
            }
            let config = world.state().vm(&at, vmid)?.config.clone();
            check_lock(&config)?;
            world.hook(&work, (&at, vmid), &config, Phase::PreStop)?;
            if !world.shut_down(&work, vmid, &config, timeout.unwrap_or(60.0)).await {
                return Err(still_running());
            }
            let later = world.clone();
            tokio::spawn(async move {
                later.clock().sleep(1.0).await;
                if later.state().vms.contains_key(&vmid) && later.pid_of(vmid).is_none() {
                    later.switch_on(vmid);
                }
            });
            Ok(())
        }))
    }
}
