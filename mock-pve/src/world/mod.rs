//! The world: nodes, storages, volumes, virtual machines, tasks, users, and the rules that hold among them.
//!
//! Purpose: everything that is true of a PVE installation whatever protocol asks. No I/O but the state folder, all
//! waiting through one [`clock::Clock`]. Must not know: HTTP, gRPC or any other protocol. Start at [`World`].

pub mod access;
pub mod backups;
mod begin;
pub mod calendar;
pub mod clock;
pub mod clone;
pub mod cloudinit;
pub mod cluster;
pub mod config;
pub mod consoles;
pub mod create;
mod crypt;
pub mod deed;
pub mod destroy;
pub mod disks;
pub mod drive;
pub mod feature;
pub mod firewall;
mod guest;
pub mod guest_shell;
pub mod ha;
pub mod history;
mod hooks;
mod hotplug;
pub mod keys;
mod leaving;
pub mod lifecycle;
pub mod machine;
mod make_disk;
pub mod members;
pub mod migrate;
pub mod monitor;
pub mod network;
pub mod node_files;
pub mod node_power;
mod pending;
pub mod plan_disk;
pub mod power;
mod power_rules;
pub mod processes;
pub mod property;
pub mod qcow2;
pub mod refusal;
pub mod replication;
pub mod reshape;
pub mod rights;
pub mod rng;
pub mod roles;
pub mod rollback;
pub mod script;
pub mod section_config;
pub mod seed;
pub mod snapshot;
pub mod sparse;
pub mod state;
mod statistics;
mod stop;
pub mod storage_types;
mod suspend;
pub mod tasks;
mod template;
pub mod update;
pub mod volume;
pub mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use ipnet::IpNet;
use tokio::sync::{Notify, RwLock, mpsc, watch};

pub use self::begin::SEED;
pub use self::network::Lease;
pub use self::state::{PveVersion, State};

use self::clock::Clock;
use self::deed::Deed;
use self::network::Networks;
use self::power::{CloudInit, Nic, Power};
use self::seed::{NetworkSeed, Seed};

/// Why a world can't begin.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// The state folder can't be used.
    #[error("can't use {}", path.display())]
    Folder {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The seed contradicts itself.
    #[error("the seed can't be used: {what}")]
    Seed {
        /// What is wrong.
        what: String,
    },
    /// The saved state can't be understood.
    #[error("the state in {} can't be read", path.display())]
    Saved {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
}

/// How a world behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The state folder; made when absent.
    pub dir: PathBuf,
    /// What delays are divided by.
    pub time_scale: f64,
    /// Seed of everything random.
    pub rng_seed: u64,
    /// The release that is played, unless the seed names one.
    pub pve: PveVersion,
}

/// What a guest agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestInfo {
    /// The agent answers.
    pub agent: bool,
    /// Host name.
    pub hostname: String,
    /// Interfaces.
    pub interfaces: Vec<GuestInterface>,
}

/// A network interface, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestInterface {
    /// `eth0`.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Addresses.
    pub addresses: Vec<IpNet>,
}

/// A handle on the world. Clones are the same world.
#[derive(Clone, Debug)]
pub struct World(Arc<Inner>);

/// A handle that doesn't keep the world alive.
#[derive(Clone, Debug)]
pub struct WeakWorld(Weak<Inner>);

impl WeakWorld {
    /// The world, if anyone still holds it.
    pub fn upgrade(&self) -> Option<World> {
        self.0.upgrade().map(World)
    }
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    dir: PathBuf,
    seed: Seed,
    state: Mutex<State>,
    /// The state may differ from what was saved, and who is told when it begins to.
    changed: AtomicBool,
    unsaved: Arc<Notify>,
    /// The state folder had a whole world in it.
    resumed: bool,
    networks: Mutex<Networks>,
    shells: Mutex<BTreeMap<u32, guest_shell::Shell>>,
    guests: Mutex<BTreeMap<u32, GuestInfo>>,
    power: Mutex<Vec<mpsc::UnboundedSender<Power>>>,
    flocks: Mutex<HashMap<u32, Arc<RwLock<()>>>>,
    /// One backup at a time on every node.
    dumps: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Folders that using a storage, or logging in, made.
    made: Mutex<BTreeSet<PathBuf>>,
    /// Told when backup jobs change.
    rescheduled: Notify,
    /// VMs that are off and have a process that reads their disks for a backup.
    prelaunched: Mutex<BTreeSet<u32>>,
    stops: Mutex<HashMap<String, Arc<stop::Stop>>>,
    ended: Notify,
    deeds: Mutex<Vec<mpsc::UnboundedSender<Deed>>>,
    consoles: consoles::Consoles,
    etcds: cluster::Etcds,
    talos: machine::Shared,
    /// Counts nodes that went down or came back.
    members: watch::Sender<u64>,
    services: Mutex<ha::Services>,
    history: Mutex<history::History>,
    script: OnceLock<Arc<dyn script::Script>>,
    answers: Mutex<Vec<mpsc::UnboundedSender<script::Answered>>>,
}

/// The data of a world, locked. Whoever can change it is taken to have done so.
#[derive(Debug)]
pub struct Held<'a> {
    state: MutexGuard<'a, State>,
    changed: &'a AtomicBool,
    unsaved: &'a Notify,
}

impl Deref for Held<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut State {
        if !self.changed.swap(true, Ordering::Relaxed) {
            self.unsaved.notify_one();
        }
        &mut self.state
    }
}

/// A poisoned lock means a panic elsewhere; the data is still the best there is.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A handle for background work, which ends with the world.
    pub fn downgrade(&self) -> WeakWorld {
        WeakWorld(Arc::downgrade(&self.0))
    }

    /// The clock that all waiting goes through.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The state folder.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Whether it goes on from what its state folder held.
    pub fn is_resumed(&self) -> bool {
        self.0.resumed
    }

    /// What the world began with.
    pub fn seed(&self) -> &Seed {
        &self.0.seed
    }

    /// The data, locked. Never hold it across an await.
    pub fn state(&self) -> Held<'_> {
        Held { state: held(&self.0.state), changed: &self.0.changed, unsaved: &self.0.unsaved }
    }

    /// Whether anything may have changed since this was asked last.
    fn take_changed(&self) -> bool {
        self.0.changed.swap(false, Ordering::Relaxed)
    }

    /// All power events from now on, beginning with `On` for every VM that runs.
    pub fn subscribe_power(&self) -> mpsc::UnboundedReceiver<Power> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let running: Vec<u32> =
            self.state().vms.iter().filter(|(_, vm)| vm.running.is_some()).map(|(vmid, _)| *vmid).collect();
        let mut subscribers = held(&self.0.power);
        for boot in running.into_iter().filter_map(|vmid| self.boot(vmid)) {
            // The receiver is still here.
            let _ = sender.send(Power::On(Box::new(boot)));
        }
        subscribers.push(sender);
        receiver
    }

    fn emit(&self, power: &Power) {
        held(&self.0.power).retain(|subscriber| subscriber.send(power.clone()).is_ok());
    }

    /// What the guest agent of a VM says; `None`: there is no agent (any more).
    pub fn set_guest(&self, vmid: u32, info: Option<GuestInfo>) {
        let mut guests = held(&self.0.guests);
        if let Some(info) = info {
            guests.insert(vmid, info)
        } else {
            held(&self.0.shells).remove(&vmid);
            guests.remove(&vmid)
        };
    }

    /// What the guest agent last said.
    pub fn guest(&self, vmid: u32) -> Option<GuestInfo> {
        held(&self.0.guests).get(&vmid).cloned()
    }

    /// Where the serial console of a VM is written.
    pub fn console_path(&self, vmid: u32) -> PathBuf {
        self.0.dir.join("console").join(format!("{vmid}.log"))
    }

    /// Adds a line to the serial console of a VM.
    pub fn console(&self, vmid: u32, line: &str) {
        let path = self.console_path(vmid);
        let written = std::fs::create_dir_all(self.0.dir.join("console"))
            .and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(&path))
            .and_then(|mut file| writeln!(file, "{line}"));
        if let Err(error) = written {
            tracing::warn!(vmid, %error, "the console log can't be written");
        }
        self.0.consoles.tell(consoles::Said::Line(vmid, line.to_owned()));
    }

    /// The address that DHCP gives a MAC on a bridge.
    pub fn lease(&self, bridge: &str, mac: &str) -> Option<Lease> {
        let seen: BTreeSet<IpAddr> = held(&self.0.guests)
            .values()
            .flat_map(|guest| &guest.interfaces)
            .filter(|interface| !interface.mac.eq_ignore_ascii_case(mac))
            .flat_map(|interface| interface.addresses.iter().map(IpNet::addr))
            .collect();
        {
            let mut networks = held(&self.0.networks);
            networks.avoid(seen);
            if let Some(lease) = networks.lease(bridge, mac) {
                return Some(lease);
            }
        }
        // A full range: what VMs had that are gone has run out.
        let living: BTreeSet<String> = {
            let state = self.state();
            let nics = state.vms.values().flat_map(|vm| drive::nics(&vm.config));
            nics.filter_map(|(_, nic)| nic.get("macaddr").map(str::to_ascii_uppercase)).collect()
        };
        let mut networks = held(&self.0.networks);
        networks.release(|mac| !living.contains(mac));
        networks.lease(bridge, mac)
    }

    /// The address that a network card comes up with before anybody configures it: what its cloud-init drive says, else
    /// what DHCP gives.
    pub fn first_address(&self, nic: &Nic) -> Option<Lease> {
        match &nic.cloud_init {
            None | Some(CloudInit::Dhcp) => self.lease(&nic.bridge, &nic.mac),
            Some(CloudInit::Nothing) => None,
            Some(CloudInit::Static { address, gateway }) => Some(Lease { address: *address, gateway: *gateway }),
        }
    }

    /// The network behind a bridge.
    pub fn network(&self, bridge: &str) -> Option<NetworkSeed> {
        held(&self.0.networks).behind(bridge).cloned()
    }

    /// Where an address really listens.
    pub fn dial_map(&self, address: IpAddr) -> IpAddr {
        held(&self.0.networks).dial_map(address)
    }

    /// A UUID that depends on the seed of chance.
    pub fn random_uuid(&self) -> String {
        self.state().rng.uuid()
    }
}
