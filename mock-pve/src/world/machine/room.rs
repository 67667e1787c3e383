//! All machines, and the power cable to each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::command::Command;
use super::config::MachineType;
use super::shares::Shares;
use super::state::{Api, Machine};
use super::{life, seeding};
use crate::disk;
use crate::etcd::Stop;
use crate::world::World;
use crate::world::power::{Boot, Power};

/// The machines of a world; clones are the same room.
#[derive(Clone)]
pub struct Room(Arc<Inner>);

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").finish_non_exhaustive()
    }
}

struct Inner {
    world: World,
    machines: Mutex<BTreeMap<u32, (Machine, AbortHandle)>>,
    shared: Mutex<Shares>,
    /// Machines that are up already when the world begins.
    warm: Mutex<BTreeSet<u32>>,
    changed: watch::Sender<u64>,
}

/// Ends all machines with the future that ran them.
struct Lights(Room);

impl Drop for Lights {
    fn drop(&mut self) {
        let machines = std::mem::take(&mut *held(&self.0.0.machines));
        for (machine, life) in machines.into_values() {
            life.abort();
            machine.world().stop_original(machine.vmid(), Stop::Cut);
        }
        self.0.touch();
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Room {
    /// A room without machines; [`Room::run`] brings them.
    pub fn new(world: World) -> Self {
        let changed = watch::channel(0).0;
        Self(Arc::new(Inner {
            world,
            machines: Mutex::default(),
            shared: Mutex::default(),
            warm: Mutex::default(),
            changed,
        }))
    }

    /// Fills the disks of the seeded machines: to be called before [`Room::run`]. Disks that boot already are kept.
    pub fn seed(&self) -> Result<(), seeding::SeedingError> {
        for one in &self.0.world.seed().machine_faults {
            self.0.world.machine_fault(one.vmid, one.fault);
        }
        let warm = if self.0.world.is_resumed() {
            // What runs ran on while nobody played it; what the seed said is long past.
            self.0.world.state().vms.iter().filter(|(_, vm)| vm.running.is_some()).map(|(vmid, _)| *vmid).collect()
        } else {
            seeding::seed(&self.0.world)?
        };
        held(&self.0.warm).extend(warm);
        Ok(())
    }

    /// Follows the power events of the world until it ends or the future is dropped, which ends all machines.
    pub async fn run(self) {
        let _lights = Lights(self.clone());
        let mut power = self.0.world.subscribe_power();
        while let Some(event) = power.recv().await {
            match event {
                Power::On(boot) => self.power_on(*boot),
                Power::Off { vmid } => self.power_off(vmid),
                Power::Shutdown { vmid } => {
                    if let Some(machine) = self.machine(vmid) {
                        machine.command(Command::Shutdown { actor: String::new(), force: true });
                    }
                }
            }
        }
    }

    fn power_on(&self, boot: Boot) {
        let vmid = boot.vmid;
        self.power_off(vmid);
        let world = &self.0.world;
        match &boot.disk {
            Some(path) if disk::is_partitioned(path) => {}
            Some(path) if disk::is_empty(path) => {
                world.console(vmid, "Booting from Hard Disk...");
                world.console(vmid, "Boot failed: not a bootable disk");
                return world.console(vmid, "No bootable device.");
            }
            Some(_) => return,
            None => return world.console(vmid, "No bootable device."),
        }
        let warm = held(&self.0.warm).remove(&vmid);
        let pace = if warm { life::Pace::Already } else { life::Pace::Real };
        let (machine, commands) = Machine::new(self.clone(), boot);
        let task = tokio::spawn(life::live(machine.clone(), commands, pace));
        held(&self.0.machines).insert(vmid, (machine, task.abort_handle()));
        self.touch();
    }

    fn power_off(&self, vmid: u32) {
        let Some((machine, life)) = held(&self.0.machines).remove(&vmid) else { return };
        life.abort();
        self.leave(&machine);
        self.touch();
    }

    /// A machine switched itself off.
    pub(super) fn switched_off(&self, machine: &Machine) {
        self.leave(machine);
        held(&self.0.machines).remove(&machine.vmid());
        self.touch();
        self.0.world.guest_powered_off(machine.vmid());
    }

    /// What stops when a machine goes down: its listeners, its etcd member.
    pub(super) fn leave(&self, machine: &Machine) {
        self.stop_member(machine);
        self.0.world.stop_original(machine.vmid(), Stop::Cut);
        held(&self.0.shared).abandon(machine.vmid());
        machine.update(|state| {
            state.api = Api::Silent;
            state.kubernetes = false;
            state.node_ready = false;
        });
    }

    /// The services stop one after the other, and hand over what they hold.
    pub(super) fn stop_services(&self, machine: &Machine) {
        machine.update(|state| state.kubernetes = false);
        self.release(machine.vmid(), &[]);
        self.stop_member(machine);
        self.0.world.stop_original(machine.vmid(), Stop::InOrder);
    }

    fn stop_member(&self, machine: &Machine) {
        if let Some(client) = machine.update(|state| state.membership.take()) {
            self.0.world.note_quorum(machine.vmid(), &client);
            self.0.world.stop_member(&client);
        }
    }

    /// Whether a machine is the one to answer on a shared address.
    pub(super) fn holds(&self, address: IpAddr, vmid: u32) -> bool {
        held(&self.0.shared).holds(address, vmid)
    }

    /// Whether an address is nobody's, and whoever had it hasn't been heard of for that time.
    pub(super) fn is_free(&self, address: IpAddr, patience: Duration) -> bool {
        held(&self.0.shared).is_free(address, patience)
    }

    /// Makes a machine the holder of an address, if that is free.
    pub(super) fn take(&self, address: IpAddr, vmid: u32, patience: Duration) -> bool {
        let taken = held(&self.0.shared).take(address, vmid, patience);
        if taken {
            self.touch();
        }
        taken
    }

    /// A machine holds no shared address but these any more.
    pub(super) fn release(&self, vmid: u32, kept: &[IpAddr]) {
        if held(&self.0.shared).release(vmid, kept) {
            self.touch();
        }
    }

    /// The shared addresses that a machine answers on.
    pub fn shared(&self, vmid: u32) -> Vec<IpAddr> {
        held(&self.0.shared).of(vmid)
    }

    /// The world.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// The machine in a VM, if that is on.
    pub fn machine(&self, vmid: u32) -> Option<Machine> {
        held(&self.0.machines).get(&vmid).map(|(machine, _)| machine.clone())
    }

    /// All machines that are on.
    pub fn machines(&self) -> Vec<Machine> {
        held(&self.0.machines).values().map(|(machine, _)| machine.clone()).collect()
    }

    /// The machine that is reachable under an address or host name.
    pub fn find(&self, name: &str) -> Option<Machine> {
        let address = name.parse::<IpAddr>().ok();
        self.machines().into_iter().find(|machine| {
            machine.see(|state| {
                state.api != Api::Silent
                    && address.map_or_else(
                        || [state.hostname(), state.full_hostname(), state.nodename()].iter().any(|one| one == name),
                        |wanted| state.addresses().any(|one| one == wanted),
                    )
            })
        })
    }

    /// All running machines that have the same cluster secrets as `mark` says.
    pub fn cluster(&self, mark: &str) -> Vec<Machine> {
        let same = |machine: &Machine| {
            machine.see(|state| {
                state.api == Api::Configured
                    && state.config.as_ref().is_some_and(|config| config.cluster_mark() == mark)
            })
        };
        self.machines().into_iter().filter(same).collect()
    }

    /// The control planes among them whose API server answers.
    pub fn api_servers(&self, mark: &str) -> Vec<Machine> {
        let serves = |machine: &Machine| {
            machine.see(|state| state.kubernetes && state.machine_type() == Some(MachineType::ControlPlane))
        };
        self.cluster(mark).into_iter().filter(serves).collect()
    }

    /// Tells of every change of any machine.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    pub(super) fn touch(&self) {
        self.0.changed.send_modify(|count| *count += 1);
    }
}
