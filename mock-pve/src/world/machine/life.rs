//! A machine's life: power on, boot, maintenance, configured, down again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use tokio::sync::mpsc;

use super::command::{Apply, Command, Restart, Turn};
use super::config::{ConfigError, MachineType, NodeConfig};
use super::event::What;
use super::faults::Fault;
use super::state::{Api, Machine, ServiceState, Stage};
use super::versions::Version;
use crate::disk::{self, DiskError, Keep};
use crate::world::script::Takes;
use crate::world::{GuestInfo, GuestInterface};

/// Whether a machine has to boot, or is up already when the world begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Real,
    Already,
}

/// How a boot ended.
pub(super) enum End {
    Reboot,
    PowerOff,
    /// It hangs: nothing but the plug helps.
    Dead,
}

/// Seconds that things take in real life.
const BOOT: f64 = 25.0;
const API: f64 = 2.0;
const API_SERVER: f64 = 8.0;
const TURN: f64 = 1.0;
/// Seconds until the firmware gives up on boot files that don't start.
const FALL_BACK: f64 = 15.0;

pub(super) type Commands = mpsc::UnboundedReceiver<Command>;

/// A machine from power on to power off.
pub(super) async fn live(machine: Machine, mut commands: Commands, mut pace: Pace) {
    loop {
        match (Boot { machine: machine.clone(), pace }).run(&mut commands).await {
            End::Reboot => {
                machine.room().leave(&machine);
                if machine.world().goes_wrong(machine.vmid(), Fault::NeverComesBack) {
                    machine.world().console(machine.vmid(), "kexec_core: Starting new kernel");
                    machine.update(|state| state.stage = Stage::Rebooting);
                    std::future::pending::<()>().await;
                }
            }
            End::PowerOff => {
                machine.world().console(machine.vmid(), "reboot: Power down");
                return machine.room().switched_off(&machine);
            }
            End::Dead => std::future::pending().await,
        }
        pace = Pace::Real;
    }
}

/// One boot of a machine.
pub(super) struct Boot {
    pub(super) machine: Machine,
    pace: Pace,
}

impl Boot {
    /// Whether things take their time; they don't for what is up when the world begins.
    pub(super) fn is_slow(&self) -> bool {
        self.pace == Pace::Real
    }

    pub(super) async fn sleep(&self, seconds: f64) {
        if self.pace == Pace::Real {
            self.machine.world().clock().sleep(seconds).await;
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.machine.hardware().disk.clone().unwrap_or_default()
    }

    async fn run(&self, commands: &mut Commands) -> End {
        let machine = &self.machine;
        machine.update(|state| {
            (state.stage, state.api) = (Stage::Booting, Api::Silent);
            (state.kubernetes, state.node_ready, state.bootstrapping) = (false, false, None);
            (state.config, state.partial, state.identity, state.recipe) = (None, None, None, None);
            (state.sequence, state.busy, state.staged, state.kubelet, state.sick) = (None, None, None, None, false);
            state.services.clear();
            state.static_pods.clear();
            state.events.clear();
            state.dmesg.clear();
        });
        let hardware = machine.hardware();
        machine.world().console(machine.vmid(), &format!("{}: Booting from {}", hardware.bios, hardware.disk_key));
        self.sleep(machine.world().clock().takes(Takes::Boot, BOOT)).await;
        let (disk, config) = match self.load().await {
            Ok(found) => found,
            Err(why) => {
                machine.world().console(machine.vmid(), &format!("Boot failed: {why}"));
                if self.fall_back() {
                    self.sleep(FALL_BACK).await;
                    return End::Reboot;
                }
                machine.world().console(machine.vmid(), "No bootable device.");
                return End::Dead;
            }
        };
        self.kernel(&disk);
        let config = config.and_then(|text| match NodeConfig::parse(&text, Version::of(&disk.marker.recipe.version)) {
            Ok(config) => Some(Arc::new(config)),
            Err(error) => {
                machine.says(&format!("[talos] failed to load config from STATE: {error}"));
                machine.happened(
                    "",
                    match &error {
                        ConfigError::Parse(why) => What::ConfigLoad(why.clone()),
                        ConfigError::Invalid(why) => What::ConfigValidation(why.clone()),
                    },
                );
                None
            }
        });
        machine.happened("", What::Sequence("initialize", true));
        machine.happened("", What::Sequence("initialize", false));
        if let Some(staged) = disk.meta.staged.clone() {
            // Whatever becomes of it: the boot after this one doesn't try again.
            self.unstage();
            return self.staged_upgrade(&staged).await;
        }
        let (config, over) = match config {
            Some(config) => (config, None),
            None => match self.maintenance(commands).await {
                Ok(found) => found,
                Err(end) => return end,
            },
        };
        self.configured(config, over, commands).await
    }

    /// Waits for a configuration; one that is only tried comes with its end.
    async fn maintenance(&self, commands: &mut Commands) -> Result<(Arc<NodeConfig>, Option<Instant>), End> {
        let machine = &self.machine;
        for id in ["machined", "containerd", "udevd"] {
            machine.service(id, ServiceState::Running, None, "Service started");
        }
        machine.update(|state| {
            (state.stage, state.api) = (Stage::Maintenance, Api::Maintenance);
            state.generation += 1;
        });
        machine.says("[talos] this machine is reachable at:");
        for address in machine.see(|state| state.addresses().collect::<Vec<_>>()) {
            machine.says(&format!("[talos] \t{address}"));
        }
        self.tell_agent();
        // What counts again, and when, after a part that is only tried.
        let mut trial: Option<(Instant, Option<Arc<NodeConfig>>)> = None;
        loop {
            let command = tokio::select! {
                command = commands.recv() => command,
                () = until(trial.as_ref().map(|(over, _)| *over)) => {
                    machine.says("[talos] rolling back the configuration: it was only tried");
                    self.take_part(trial.take().and_then(|(_, old)| old));
                    continue;
                }
            };
            match command {
                None => return Err(End::Dead),
                Some(Command::Apply { config, when }) if !config.is_whole() => {
                    let old = trial.take().map_or_else(|| machine.see(|state| state.partial.clone()), |(_, old)| old);
                    if let Apply::Try(seconds) = when {
                        trial = Some((from_now(seconds), old));
                    }
                    if when != Apply::Staged {
                        self.take_part(Some(config));
                    }
                }
                Some(Command::Apply { config, when }) => {
                    let over = if let Apply::Try(seconds) = when { Some(from_now(seconds)) } else { None };
                    let kept = if over.is_some() { disk::provision(&self.path()) } else { self.keep(&config) };
                    if let Err(error) = kept {
                        machine.says(&format!("[talos] {}", chain(&error)));
                        continue;
                    }
                    if when == Apply::Staged {
                        // It is there for the next boot.
                        continue;
                    }
                    machine.update(|state| (state.stage, state.api) = (Stage::Booting, Api::Silent));
                    return Ok((config, over));
                }
                Some(Command::Bootstrap(_) | Command::LeaveEtcd | Command::Service(..)) => {}
                Some(other) => return Err(self.down(other, commands).await),
            }
        }
    }

    /// A configuration without its main document: links and name follow it, and maintenance mode goes on. Nothing is kept
    /// of it, since there is no STATE yet.
    fn take_part(&self, config: Option<Arc<NodeConfig>>) {
        let links = self.links(config.as_deref());
        self.machine.update(|state| (state.links, state.partial) = (links, config));
        self.tell_agent();
    }

    /// Makes the partitions and keeps the configuration on the disk.
    fn keep(&self, config: &NodeConfig) -> Result<(), DiskError> {
        disk::provision(&self.path())?;
        disk::store(&self.path(), Keep::Config, config.text().as_bytes())
    }

    /// What the guest agent says, when the image has one.
    pub(super) fn tell_agent(&self) {
        let machine = &self.machine;
        let (agent, hostname, links) = machine.see(|state| {
            let extensions = state.recipe.iter().flat_map(|recipe| &recipe.extensions);
            let agent = extensions.into_iter().any(|one| one.name == "siderolabs/qemu-guest-agent");
            (agent, state.hostname(), state.links.clone())
        });
        if !agent {
            return;
        }
        if machine.see(|state| !state.services.contains_key("ext-qemu-guest-agent")) {
            machine.service("ext-qemu-guest-agent", ServiceState::Running, None, "Started task ext-qemu-guest-agent");
        }
        // A shared address is one more of the first card.
        let shared = machine.room().shared(machine.vmid()).into_iter().map(IpNet::from);
        let local: Vec<_> = ["127.0.0.1/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect();
        let mut interfaces =
            vec![GuestInterface { name: "lo".to_owned(), mac: "00:00:00:00:00:00".to_owned(), addresses: local }];
        interfaces.extend(links.into_iter().map(|link| GuestInterface {
            name: link.name,
            mac: link.mac,
            addresses: link.addresses,
        }));
        if let Some(first) = interfaces.get_mut(1) {
            first.addresses.extend(shared);
        }
        machine.world().set_guest(machine.vmid(), Some(GuestInfo { agent: true, hostname, interfaces }));
    }

    /// `over`: when it ends that the first configuration is tried.
    async fn configured(&self, mut config: Arc<NodeConfig>, over: Option<Instant>, commands: &mut Commands) -> End {
        let machine = &self.machine;
        self.identify();
        // What comes back, and when, after a configuration that is only tried; there may have been none before.
        let mut trial: Option<(Instant, Option<Arc<NodeConfig>>)> = over.map(|over| (over, None));
        loop {
            let links = self.links(Some(&config));
            machine.update(|state| {
                state.links = links;
                (state.config, state.partial) = (Some(config.clone()), None);
                state.busy = None;
            });
            let over = trial.as_ref().map(|(over, _)| *over);
            let command = tokio::select! {
                never = self.work(&config) => match never {},
                command = next(commands, machine) => command,
                () = until(over) => {
                    if let Some((_, old)) = trial.take() {
                        machine.says("[talos] rolling back the configuration: it was only tried");
                        let Some(old) = old else {
                            // Maintenance mode again; the original gets there without a reboot.
                            let reboot = Command::Reboot { actor: String::new(), restart: Restart::Kexec };
                            return self.down(reboot, commands).await;
                        };
                        config = old;
                    }
                    continue;
                }
            };
            match command {
                None => return End::Dead,
                Some(Command::Apply { config: new, when }) => {
                    let persists = !matches!(when, Apply::Try(_));
                    if persists && let Err(error) = self.keep(&new) {
                        machine.says(&format!("[talos] {}", chain(&error)));
                    }
                    match when {
                        Apply::Now => (config, trial) = (new, None),
                        Apply::Try(seconds) => {
                            let back = trial.map_or(Some(config), |(_, old)| old);
                            trial = Some((from_now(seconds), back));
                            config = new;
                        }
                        Apply::Staged => {
                            machine.update(|state| state.staged = Some(new));
                        }
                        Apply::Reboot => {
                            machine.update(|state| state.busy = None);
                            let reboot = Command::Reboot { actor: String::new(), restart: Restart::Kexec };
                            return self.down(reboot, commands).await;
                        }
                    }
                    if persists && when != Apply::Staged {
                        machine.update(|state| state.staged = None);
                    }
                }
                Some(Command::Bootstrap(_)) => {}
                Some(Command::LeaveEtcd) => self.leave_etcd().await,
                Some(Command::Service(id, turn)) => self.turn(&id, turn).await,
                Some(other) => return self.down(other, commands).await,
            }
        }
    }

    /// Starts or stops a service because somebody asked for it.
    async fn turn(&self, id: &str, turn: Turn) {
        let machine = &self.machine;
        if turn != Turn::On {
            machine.service(id, ServiceState::Stopping, None, "Service stopping");
            if id == "etcd" {
                machine.room().stop_services(machine);
                machine.world().original_gone(machine.vmid()).await;
            }
            machine.world().clock().sleep(TURN).await;
            machine.service(id, ServiceState::Finished, None, "Service finished successfully");
        }
        if turn == Turn::Off {
            return;
        }
        match id {
            // These start by themselves once they are found stopped.
            "kubelet" => machine.update(|state| state.kubelet = None),
            "etcd" => machine.update(|state| {
                state.services.remove("etcd");
            }),
            _ => {
                machine.service(id, ServiceState::Preparing, None, "Running pre state");
                machine.service(id, ServiceState::Running, Some(true), "Health check successful");
            }
        }
    }

    /// All that a configured machine does until it is told otherwise. After a new configuration it runs again from
    /// the beginning and finds everything up.
    async fn work(&self, config: &NodeConfig) -> std::convert::Infallible {
        let machine = &self.machine;
        let fresh = machine.see(|state| state.api != Api::Configured);
        if fresh {
            machine.happened("", What::Sequence("boot", true));
            // Without a name there is no certificate for its API.
            while machine.see(|state| state.named().is_none()) {
                self.wait().await;
            }
            let (name, addresses) =
                machine.see(|state| (state.full_hostname(), state.addresses().map(|one| one.to_string()).collect()));
            machine.happened("", What::Address(name, addresses));
            for id in ["machined", "containerd", "udevd", "syslogd"] {
                machine.service(id, ServiceState::Running, Some(true), "Health check successful");
            }
            self.sleep(API).await;
            machine.service("apid", ServiceState::Running, Some(true), "Health check successful");
            machine.update(|state| {
                state.api = Api::Configured;
                state.generation += 1;
            });
            self.tell_agent();
            machine.service("cri", ServiceState::Running, Some(true), "Health check successful");
        }
        if config.machine_type() == MachineType::ControlPlane {
            tokio::select! {
                never = self.kubelet(config) => never,
                never = self.lead(config) => never,
                never = self.watch_etcd() => never,
                never = self.share(config) => never,
            }
        } else {
            self.kubelet(config).await
        }
    }

    /// The kubelet, and the node it speaks for.
    async fn kubelet(&self, config: &NodeConfig) -> std::convert::Infallible {
        self.start_kubelet(config).await;
        self.node(config).await
    }

    /// etcd and the API server, then whatever of the control plane changes.
    async fn lead(&self, config: &NodeConfig) -> std::convert::Infallible {
        let machine = &self.machine;
        let starts = machine.see(|state| state.static_pods.is_empty());
        if machine.see(|state| state.membership.is_none()) {
            machine.service("trustd", ServiceState::Running, Some(true), "Health check successful");
            self.etcd(config).await;
        }
        if starts {
            self.sleep(API_SERVER).await;
        }
        if machine.see(|state| !state.kubernetes && state.static_pods.is_empty()) {
            while let Err(error) = self.control_plane(config).await {
                tracing::debug!(%error, "the API server can't start yet");
                machine.update(|state| state.static_pods.clear());
                self.wait().await;
            }
        } else if machine.see(|state| !state.kubernetes && state.static_pods.values().all(|pod| pod.ready)) {
            // etcd was away for a while.
            machine.update(|state| state.kubernetes = true);
        }
        self.render(config).await
    }

    /// Waits a little for what depends on others; never no time at all.
    pub(super) async fn wait(&self) {
        self.machine.world().clock().sleep(1.0).await;
    }
}

/// The moment in so many seconds.
fn from_now(seconds: f64) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds.clamp(0.0, 1e6))
}

/// Until that moment; for ever without one.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

/// The next command; a bootstrap only leaves its note for the task that waits for it.
async fn next(commands: &mut Commands, machine: &Machine) -> Option<Command> {
    loop {
        match commands.recv().await? {
            Command::Bootstrap(how) => machine.update(|state| state.bootstrapping = Some(how)),
            other => return Some(other),
        }
    }
}

/// A number by chance, never 0.
pub(super) fn chance(world: &crate::world::World) -> u64 {
    let uuid = world.random_uuid().replace('-', "");
    u64::from_str_radix(uuid.get(..16).unwrap_or_default(), 16).unwrap_or(1).max(1)
}

/// An error with its causes, for a console.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
