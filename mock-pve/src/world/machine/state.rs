//! One machine as others see it.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use ipnet::IpNet;
use tokio::sync::{mpsc, watch};

use super::command::{Bootstrap, Command};
use super::config::{MachineType, NodeConfig};
use super::dials::Dials;
use super::event::{Happened, What, push};
use super::identity::Identity;
use super::leaves::Leaves;
use super::revisions::{Revision, Revisions};
use super::room::Room;
use super::versions::{self, Version};
use crate::disk::{Recipe, Slot};
use crate::etcd::Client;
use crate::world::World;
use crate::world::power::Boot;

/// The static pods of a control plane.
pub const COMPONENTS: [&str; 3] = ["kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Stages of a machine, as Talos' machine status names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// On its way up.
    Booting,
    /// Up, without a configuration.
    Maintenance,
    /// Up.
    Running,
    /// Writing another version to its disk.
    Upgrading,
    /// The same, at the beginning of a boot.
    Installing,
    /// On its way down and up again.
    Rebooting,
    /// On its way down.
    ShuttingDown,
    /// Wiping itself.
    Resetting,
}

impl Stage {
    /// As resources spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Maintenance => "maintenance",
            Self::Running => "running",
            Self::Upgrading => "upgrading",
            Self::Installing => "installing",
            Self::Rebooting => "rebooting",
            Self::ShuttingDown => "shutting down",
            Self::Resetting => "resetting",
        }
    }
}

/// Which API listens on port 50000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// None: not up, or restarting.
    Silent,
    /// The one that asks for no certificate.
    Maintenance,
    /// The one with mutual TLS.
    Configured,
}

/// States of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// Waits for a condition.
    Waiting,
    /// Fetches its image, or waits to be told how to begin.
    Preparing,
    /// Its process starts.
    Starting,
    /// Runs.
    Running,
    /// Its process is told to end.
    Stopping,
    /// Stopped on purpose.
    Finished,
    /// Stopped by an error.
    Failed,
}

impl ServiceState {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Finished => "Finished",
            Self::Failed => "Failed",
        }
    }
}

/// A service of a machine.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its state now.
    pub state: ServiceState,
    /// Its health check's verdict; services without one say `None`.
    pub healthy: Option<bool>,
    /// All its states so far, oldest first, with what was said and when.
    pub events: Vec<(ServiceState, String, SystemTime)>,
}

/// A network card as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// `eth0`: images for nocloud boot with `net.ifnames=0`.
    pub name: String,
    /// Hardware address, lower case.
    pub mac: String,
    /// The cable is plugged in.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// The router.
    pub gateway: Option<IpAddr>,
}

/// Stage, readiness, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The stage.
    pub stage: Stage,
    /// Nothing is missing.
    pub ready: bool,
    /// What is missing: name, reason.
    pub unmet: Vec<(&'static str, String)>,
}

/// All that is true of a machine now.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own that a machine reports")]
pub struct State {
    /// The stage.
    pub stage: Stage,
    /// Which API it serves; a new `generation` means a new listener with a new certificate.
    pub api: Api,
    /// Counts listeners.
    pub generation: u64,
    /// Changes with every boot.
    pub boot_id: String,
    /// When this boot began.
    pub booted: SystemTime,
    /// What it booted.
    pub recipe: Option<Recipe>,
    /// Its configuration.
    pub config: Option<Arc<NodeConfig>>,
    /// What it was given in maintenance mode of a configuration that doesn't say all yet.
    pub partial: Option<Arc<NodeConfig>>,
    /// Who it is, once it has STATE.
    pub identity: Option<Identity>,
    /// What the platform calls it.
    pub platform_name: Option<String>,
    /// Its network cards.
    pub links: Vec<Link>,
    /// Its services.
    pub services: BTreeMap<String, Service>,
    /// What happened since it booted.
    pub events: VecDeque<Happened>,
    /// The kernel's log: when, what.
    pub dmesg: Vec<(SystemTime, String)>,
    /// Its place in etcd.
    pub membership: Option<Client>,
    /// Its API server answers.
    pub kubernetes: bool,
    /// Its node object says Ready.
    pub node_ready: bool,
    /// Somebody bootstraps it.
    pub bootstrapping: Option<Bootstrap>,
    /// Size of its system disk.
    pub disk_bytes: u64,
    /// The slot it booted.
    pub slot: Slot,
    /// The sequence that runs now, if it is one that takes the machine down.
    pub sequence: Option<&'static str>,
    /// Somebody writes boot files, or applies a configuration.
    pub busy: Option<&'static str>,
    /// A configuration that counts from the next boot on.
    pub staged: Option<Arc<NodeConfig>>,
    /// The image that the kubelet runs, once it does.
    pub kubelet: Option<String>,
    /// The name of the node that the kubelet was started for.
    pub kubelet_node: String,
    /// Certificates of the authorities that it was started with.
    pub kubelet_trusts: Vec<String>,
    /// Its static pods by component, as they were rendered last.
    pub static_pods: BTreeMap<&'static str, StaticPod>,
    /// The images it pulled: namespace, name.
    pub images: BTreeMap<(&'static str, String), Pulled>,
    /// It boots, and doesn't get ready.
    pub sick: bool,
    /// Whether its API has come to listen since it got its power.
    pub listens: bool,
    /// It booted what an upgrade brought, and wasn't ready yet.
    pub unproven: bool,
}

/// A static pod of a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPod {
    /// Its image.
    pub image: String,
    /// Its extra arguments: name, value.
    pub args: Vec<(String, String)>,
    /// Counts its configurations.
    pub version: u64,
    /// Its container runs and answers.
    pub ready: bool,
}

/// An image in a machine's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub bytes: i64,
    /// When it was pulled.
    pub at: SystemTime,
}

/// A machine; clones are the same one.
#[derive(Clone)]
pub struct Machine(Arc<Inner>);

struct Inner {
    boot: Boot,
    room: Room,
    state: Mutex<State>,
    commands: mpsc::UnboundedSender<Command>,
    changed: watch::Sender<u64>,
    revisions: Mutex<Revisions>,
    leaves: Mutex<Leaves>,
    dials: Mutex<Dials>,
}

impl Machine {
    pub(super) fn new(room: Room, boot: Boot) -> (Self, mpsc::UnboundedReceiver<Command>) {
        let (commands, receiver) = mpsc::unbounded_channel();
        let state = State {
            stage: Stage::Booting,
            api: Api::Silent,
            generation: 0,
            boot_id: String::new(),
            booted: SystemTime::now(),
            recipe: None,
            config: None,
            partial: None,
            identity: None,
            platform_name: boot.cloud_name.clone(),
            links: Vec::new(),
            services: BTreeMap::new(),
            events: VecDeque::new(),
            dmesg: Vec::new(),
            membership: None,
            kubernetes: false,
            node_ready: false,
            bootstrapping: None,
            disk_bytes: 0,
            slot: Slot::A,
            sequence: None,
            busy: None,
            staged: None,
            kubelet: None,
            kubelet_node: String::new(),
            kubelet_trusts: Vec::new(),
            static_pods: BTreeMap::new(),
            images: BTreeMap::new(),
            sick: false,
            listens: false,
            unproven: false,
        };
        let inner = Inner {
            boot,
            room,
            state: Mutex::new(state),
            commands,
            changed: watch::channel(0).0,
            revisions: Mutex::default(),
            leaves: Mutex::default(),
            dials: Mutex::default(),
        };
        (Self(Arc::new(inner)), receiver)
    }

    /// Its hardware.
    pub fn hardware(&self) -> &Boot {
        &self.0.boot
    }

    /// Its VM's number.
    pub fn vmid(&self) -> u32 {
        self.0.boot.vmid
    }

    /// The room it stands in.
    pub fn room(&self) -> &Room {
        &self.0.room
    }

    /// The world around it.
    pub fn world(&self) -> &World {
        self.0.room.world()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state.
    pub fn see<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state and tells everybody.
    pub fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = {
            let mut state = self.lock();
            let before = state.status();
            let result = change(&mut state);
            let after = state.status();
            if before != after {
                push(&mut state.events, "", What::Status(after));
            }
            result
        };
        self.0.changed.send_modify(|count| *count += 1);
        self.0.room.touch();
        result
    }

    /// Which revision of `what` this content is, counted from look to look since it booted.
    pub fn revision(&self, what: &str, digest: [u8; 32]) -> Revision {
        let boot = self.see(|state| (state.boot_id.clone(), state.booted));
        self.0.revisions.lock().unwrap_or_else(PoisonError::into_inner).of(what, digest, boot)
    }

    /// The certificates it made.
    pub(super) fn leaves(&self) -> MutexGuard<'_, Leaves> {
        self.0.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom its API has tried to reach.
    pub(super) fn dials(&self) -> MutexGuard<'_, Dials> {
        self.0.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change of the state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Gives it something to do.
    pub fn command(&self, command: Command) {
        // A machine whose life is over has nobody to listen.
        let _ = self.0.commands.send(command);
    }

    /// Remembers an event.
    pub fn happened(&self, actor: &str, what: What) {
        self.update(|state| push(&mut state.events, actor, what));
    }

    /// A line of the kernel's log and of the serial console.
    pub fn says(&self, line: &str) {
        self.update(|state| state.dmesg.push((SystemTime::now(), line.to_owned())));
        self.world().console(self.vmid(), line);
    }

    /// A service has a new state.
    pub fn service(&self, id: &str, to: ServiceState, healthy: Option<bool>, message: &str) {
        self.update(|state| {
            let service = state.services.entry(id.to_owned()).or_insert_with(|| Service {
                state: to,
                healthy: None,
                events: Vec::new(),
            });
            (service.state, service.healthy) = (to, healthy);
            service.events.push((to, message.to_owned(), SystemTime::now()));
            push(&mut state.events, "", What::Service(id.to_owned(), to, message.to_owned(), healthy));
        });
        self.world().console(self.vmid(), &format!("[talos] service[{id}]({}): {message}", to.as_str()));
    }
}

impl State {
    /// Talos' version of what it booted, for comparing.
    pub fn version(&self) -> Version {
        Version::of(self.tag())
    }

    /// Talos' version with the `v`.
    pub fn tag(&self) -> &str {
        self.recipe.as_ref().map_or("", |recipe| &recipe.version)
    }

    /// The version of its kernel, as `uname -r` has it.
    pub fn kernel(&self) -> String {
        versions::kernel(self.version())
    }

    /// Its first address.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses().next()
    }

    /// All its addresses.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.links.iter().flat_map(|link| link.addresses.iter().map(IpNet::addr))
    }

    /// What it is, once it has a configuration.
    pub fn machine_type(&self) -> Option<MachineType> {
        self.config.as_ref().map(|config| config.machine_type())
    }

    /// Stage and readiness, as Talos' machine status computes them.
    pub fn status(&self) -> Status {
        let mut unmet = Vec::new();
        if matches!(self.stage, Stage::Booting | Stage::Running) && self.config.is_some() {
            let control_plane = self.machine_type() == Some(MachineType::ControlPlane);
            let expected: &[&str] = if control_plane {
                &["apid", "etcd", "kubelet", "machined", "trustd"]
            } else {
                &["apid", "kubelet", "machined"]
            };
            let down: Vec<String> = expected
                .iter()
                .filter(|id| {
                    !self
                        .services
                        .get(**id)
                        .is_some_and(|service| service.state == ServiceState::Running && service.healthy != Some(false))
                })
                .map(|id| format!("{id} not running"))
                .collect();
            if !down.is_empty() {
                unmet.push(("services", down.join(", ")));
            }
            if control_plane && (!self.kubernetes || self.static_pods.values().any(|pod| !pod.ready)) {
                let down: Vec<String> = COMPONENTS
                    .iter()
                    .filter(|name| !self.kubernetes || self.static_pods.get(*name).is_some_and(|pod| !pod.ready))
                    .map(|name| format!("kube-system/{name}-{} not ready", self.nodename()))
                    .collect();
                unmet.push(("staticPods", down.join(", ")));
            }
            if !self.node_ready {
                unmet.push(("nodeReady", format!("node \"{}\" status is not available yet", self.nodename())));
            }
        }
        Status { stage: self.stage, ready: unmet.is_empty(), unmet }
    }
}
