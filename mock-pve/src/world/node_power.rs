//! All guests of a node at once, and the node itself.
//!
//! Purpose: `startall` and `stopall`, and a node's own shutdown and reboot, which begin with the latter; a node that is
//! woken. Must not know: requests. Start at [`World::power_node`]. Rules after Proxmox VE 8.4 (PVE/API2/Nodes.pm).

mod away;

use std::collections::BTreeSet;
use std::time::Duration;

pub use self::away::Moving;

use super::World;
use super::lifecycle::{Lock, Shutdown};
use super::members::Outage;
use super::property::Properties;
use super::rights::Caller;
use super::state::State;

/// Seconds that a guest gets to go off when all of them do.
const GRACE: f64 = 180.0;
/// Seconds between the last guest's end and the node's.
const LAST_STEPS: f64 = 5.0;
/// Seconds from power to an API that answers.
const BOOT: f64 = 60.0;
/// No task of a guest takes longer.
const LONG: Duration = Duration::from_hours(2);

/// What a node is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeCommand {
    /// Off and on again.
    Reboot,
    /// Off.
    Shutdown,
}

/// Which guests start when all of them do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Starting {
    /// Those that are to run whenever the node does.
    OnBoot,
    /// The others, too.
    Everything,
}

/// How guests stop when all of them do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stopping {
    /// Seconds of real life for each guest.
    pub timeout: Option<f64>,
    /// Ends the task of a guest that doesn't go off, in place of the guest.
    pub gently: bool,
}

/// A guest, and when it has its turn.
struct Turn {
    order: u64,
    vmid: u32,
    startup: Properties,
}

impl State {
    /// The guests of a node in the order in which they start. Templates don't, and the HA manager's own only when named.
    fn turns(&self, node: &str, only: Option<&BTreeSet<u32>>) -> Vec<Turn> {
        let mut turns: Vec<Turn> = self
            .vms
            .iter()
            .filter(|(vmid, vm)| {
                vm.node == node
                    && vm.config.get("template").is_none_or(|flag| flag != "1")
                    && only.map_or_else(|| !self.is_ha_managed(**vmid), |only| only.contains(*vmid))
            })
            .map(|(vmid, vm)| {
                let startup = Properties::parse(vm.config.get("startup").map_or("", String::as_str), "order");
                let order = startup.get("order").and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
                Turn { order, vmid: *vmid, startup }
            })
            .collect();
        turns.sort_by_key(|turn| (turn.order, turn.vmid));
        turns
    }
}

impl World {
    /// Starts guests of a node one after the other. Says the UPID.
    pub fn start_all(&self, caller: &Caller, node: &str, only: Option<BTreeSet<u32>>, which: Starting) -> String {
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "startall", "", |work| async move {
            let world = work.world().clone();
            if !world.state().is_quorate() {
                work.log("waiting for quorum ...");
                while !world.state().is_quorate() {
                    world.clock().sleep(1.0).await;
                }
                work.log("got quorum");
            }
            let (turns, left_over) = {
                let mut state = world.state();
                let mut left_over = Vec::new();
                for (vmid, vm) in state.vms.iter_mut().filter(|(_, vm)| vm.node == at) {
                    if vm.config.get("lock").is_some_and(|lock| lock == "backup") {
                        vm.config.remove("lock");
                        left_over.push(*vmid);
                    }
                }
                (state.turns(&at, only.as_ref()), left_over)
            };
            for vmid in left_over {
                work.log(format!("removed left over backup lock from '{vmid}'!"));
            }
            for Turn { vmid, startup, .. } in turns {
                world.state().check_quorum()?;
                let wanted = which == Starting::Everything
                    || world
                        .state()
                        .vm(&at, vmid)
                        .is_ok_and(|vm| vm.config.get("onboot").is_some_and(|flag| flag == "1"));
                if !wanted || world.pid_of(vmid).is_some() {
                    continue;
                }
                work.log(format!("Starting VM {vmid}"));
                let upid = world.start_vm(&who, &at, vmid, Lock::Respect);
                let status = world.task_end(&upid, LONG).await.unwrap_or_default();
                if status == "OK" || status.starts_with("WARNINGS") {
                    let up = startup.get("up").and_then(|text| text.parse::<u32>().ok());
                    if let Some(up) = up.filter(|up| *up > 0) {
                        work.log(format!("Waiting for {up} seconds (startup delay)"));
                    }
                    world.clock().sleep(f64::from(up.unwrap_or(3))).await;
                } else {
                    work.log(format!("Starting VM {vmid} failed: {status}"));
                }
            }
            Ok(())
        })
    }

    /// Stops guests of a node, those that start last first. Says the UPID.
    pub fn stop_all(&self, caller: &Caller, node: &str, only: Option<BTreeSet<u32>>, how: Stopping) -> String {
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "stopall", "", |work| async move {
            let world = work.world().clone();
            let (mut turns, at_once) = {
                let state = world.state();
                let set = state.max_workers();
                let cpus = state.nodes.get(&at).map_or(1, |node| u64::from(node.cpus));
                (state.turns(&at, only.as_ref()), set.unwrap_or(cpus).max(1))
            };
            turns.reverse();
            let mut order = None;
            let mut running: Vec<String> = Vec::new();
            for Turn { order: now, vmid, startup } in turns {
                let room = if order == Some(now) { usize::try_from(at_once - 1).unwrap_or(usize::MAX) } else { 0 };
                world.wait_for(&mut running, room).await;
                order = Some(now);
                if world.pid_of(vmid).is_none() {
                    continue;
                }
                let down = startup.get("down").and_then(|text| text.parse().ok());
                let timeout: f64 = down.or(how.timeout).unwrap_or(GRACE);
                work.log(format!("Stopping VM {vmid} (timeout = {timeout} seconds)"));
                let shutdown = Shutdown { timeout: Some(timeout), force: !how.gently, lock: Lock::Respect };
                match world.shutdown_vm(&who, &at, vmid, shutdown) {
                    Ok(upid) => running.push(upid),
                    Err(refusal) => work.log(refusal.text()),
                }
            }
            world.wait_for(&mut running, 0).await;
            Ok(())
        })
    }

    /// Waits, oldest first, until no more than that many of the tasks are left.
    async fn wait_for(&self, tasks: &mut Vec<String>, left: usize) {
        while tasks.len() > left {
            let upid = tasks.remove(0);
            self.task_end(&upid, LONG).await;
        }
    }

    /// Tells a node to go down. It answers for two more seconds, then its guests are asked to go off.
    pub fn power_node(&self, caller: &Caller, node: &str, command: NodeCommand) {
        let what = match command {
            NodeCommand::Reboot => "node-reboot",
            NodeCommand::Shutdown => "node-shutdown",
        };
        self.tell(caller, what, None, Some(node));
        let (weak, clock, node) = (self.downgrade(), self.clock().clone(), node.to_owned());
        tokio::spawn(async move {
            clock.sleep(2.0).await;
            let Some(world) = weak.upgrade() else { return };
            world.go_down(&node, command).await;
            drop(world);
            if command == NodeCommand::Reboot {
                clock.sleep(BOOT).await;
                if let Some(world) = weak.upgrade() {
                    world.bring_up(&node);
                }
            }
        });
    }

    /// Ends what runs on a node, and the node.
    async fn go_down(&self, node: &str, command: NodeCommand) {
        let root = Caller::root();
        let upid = self.stop_all(&root, node, None, Stopping::default());
        self.task_end(&upid, LONG).await;
        self.clock().sleep(LAST_STEPS).await;
        // The HA manager's own are its affair.
        self.let_services_go(node, command).await;
        self.take_down(node, Outage::Off);
    }

    /// A packet that wakes a node reaches it: one that was off boots.
    pub fn wake_node(&self, node: &str) {
        if self.state().outage(node) != Some(Outage::Off) {
            return;
        }
        let (weak, clock, node) = (self.downgrade(), self.clock().clone(), node.to_owned());
        tokio::spawn(async move {
            clock.sleep(BOOT).await;
            if let Some(world) = weak.upgrade() {
                world.bring_up(&node);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::seed::{Seed, VmSeed};
    use crate::world::{PveVersion, Settings};

    #[tokio::test]
    async fn guests_have_their_turns_and_templates_none() {
        let dir = tempfile::tempdir().unwrap();
        let vm = |vmid, config: &[(&str, &str)]| VmSeed {
            vmid,
            config: config
                .iter()
                .map(|(key, value)| ((*key).to_owned(), serde_json::json!(value)))
                .collect::<BTreeMap<_, _>>(),
            ..VmSeed::default()
        };
        let vms = vec![
            vm(100, &[]),
            vm(101, &[("startup", "order=2,up=5")]),
            vm(102, &[("startup", "1")]),
            vm(103, &[("template", "1")]),
        ];
        let seed = Seed { vms, ..Seed::single_node() };
        let settings = Settings { dir: dir.path().to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        let world = World::new(seed, settings).unwrap();
        let state = world.state();
        let vmids = |only: Option<&BTreeSet<u32>>| -> Vec<u32> {
            state.turns("pve1", only).iter().map(|turn| turn.vmid).collect()
        };
        assert_eq!(vmids(None), [102, 101, 100]);
        assert_eq!(vmids(Some(&BTreeSet::from([100, 103]))), [100]);
        assert_eq!(vmids(Some(&BTreeSet::new())), Vec::<u32>::new());
    }
}
