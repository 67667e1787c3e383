//! Nodes that fail, and what their cluster can still do.
//!
//! Purpose: a node that lost its power or that hangs, its return, and quorum: without a majority of nodes nothing in the
//! cluster's file system can be written. Must not know: requests. Start at [`World::take_down`]. Rules after Proxmox VE
//! 8.4 (PVE/Cluster.pm, `check_cfs_quorum`).

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::World;
use super::consoles::Said;
use super::node_power::Starting;
use super::power::Power;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::State;

/// What is wrong with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outage {
    /// No power: its guests are gone, its API refuses connections, the cluster has lost a vote.
    Off,
    /// Its API accepts connections and never answers; its guests and its vote are still there.
    Hangs,
}

impl State {
    /// Whether a node takes part in the cluster.
    pub fn is_online(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|node| node.outage != Some(Outage::Off))
    }

    /// What is wrong with a node, if anything.
    pub fn outage(&self, node: &str) -> Option<Outage> {
        self.nodes.get(node).and_then(|node| node.outage)
    }

    /// Whether more than half of the nodes are there.
    pub fn is_quorate(&self) -> bool {
        let online = self.nodes.keys().filter(|name| self.is_online(name)).count();
        online * 2 > self.nodes.len()
    }

    /// Refuses whatever writes to the cluster's file system while it has no quorum.
    pub fn check_quorum(&self) -> Rule<()> {
        if self.is_quorate() { Ok(()) } else { Err(Refusal::failed("cluster not ready - no quorum?\n")) }
    }

    /// A node that the cluster doesn't have.
    pub fn check_node(&self, node: &str) -> Rule<()> {
        if self.nodes.contains_key(node) {
            Ok(())
        } else {
            Err(Refusal::failed(format!("no such cluster node '{node}'\n")))
        }
    }
}

impl World {
    /// Takes a node down. Says whether there is such a node.
    pub fn take_down(&self, name: &str, outage: Outage) -> bool {
        let now = self.clock().unix();
        let (guests, tasks) = {
            let mut state = self.state();
            let Some(node) = state.nodes.get_mut(name) else { return false };
            node.outage = Some(outage);
            if outage == Outage::Hangs {
                (Vec::new(), Vec::new())
            } else {
                let mut guests = Vec::new();
                for (vmid, vm) in state.vms.iter_mut().filter(|(_, vm)| vm.node == name) {
                    vm.seen = None;
                    if vm.running.take().is_some() {
                        guests.push(*vmid);
                    }
                }
                let mut tasks = Vec::new();
                for task in state.tasks.by_upid.values_mut() {
                    if task.node == name && task.status.is_none() {
                        task.status = Some("unexpected status".to_owned());
                        task.endtime = Some(now);
                        tasks.push(task.upid.clone());
                    }
                }
                (guests, tasks)
            }
        };
        for upid in tasks {
            self.kill_task(&upid);
        }
        for vmid in guests {
            self.gone_off(vmid);
            self.set_guest(vmid, None);
            self.emit(&Power::Off { vmid });
        }
        self.0.members.send_modify(|turn| *turn += 1);
        true
    }

    /// Brings a node back. VMs with `onboot` start a little later. Says whether there is such a node.
    pub fn bring_up(&self, name: &str) -> bool {
        let was = {
            let mut state = self.state();
            let Some(node) = state.nodes.get_mut(name) else { return false };
            node.outage.take()
        };
        self.take_services_back(name);
        self.0.members.send_modify(|turn| *turn += 1);
        if was == Some(Outage::Off) {
            let (world, name) = (self.downgrade(), name.to_owned());
            let clock = self.clock().clone();
            tokio::spawn(async move {
                clock.sleep(10.0).await;
                if let Some(world) = world.upgrade() {
                    world.start_all(&Caller::root(), &name, None, Starting::OnBoot);
                }
            });
        }
        true
    }

    /// Tells of every node that goes down or comes back.
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.0.members.subscribe()
    }

    /// Who looks at the serial port of a VM that is off has seen its last line. Links that were left behind by disks that
    /// moved under a running guest are of no use to it.
    pub(super) fn gone_off(&self, vmid: u32) {
        self.0.consoles.tell(Said::Off(vmid));
        let trails = self.state().vms.get_mut(&vmid).map(|vm| std::mem::take(&mut vm.trails)).unwrap_or_default();
        for trail in trails {
            if trail.is_symlink() {
                // A link that is gone already is as good as one that goes now.
                let _ = std::fs::remove_file(trail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::world::seed::{NodeSeed, Seed, VmSeed};
    use crate::world::{PveVersion, Settings};

    fn cluster(dir: &std::path::Path) -> World {
        let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
        let seed = Seed {
            nodes: vec![node("pve1"), node("pve2"), node("pve3")],
            cluster_name: Some("lab".to_owned()),
            vms: vec![VmSeed {
                vmid: 100,
                node: Some("pve2".to_owned()),
                status: Some("running".to_owned()),
                config: BTreeMap::from([("onboot".to_owned(), serde_json::json!(1))]),
                ..VmSeed::default()
            }],
            ..Seed::single_node()
        };
        let settings = Settings { dir: dir.to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        World::new(seed, settings).unwrap()
    }

    #[tokio::test]
    async fn a_node_without_power_takes_its_guests_along_and_they_return_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let world = cluster(dir.path());
        assert!(world.pid_of(100).is_some() && world.state().is_quorate());
        assert!(world.take_down("pve2", Outage::Off));
        assert!(world.pid_of(100).is_none() && world.state().is_quorate() && !world.state().is_online("pve2"));
        world.state().broadcast();
        assert_eq!(world.state().vms[&100].seen, None, "nobody tells of the guests of a node that is down");
        world.take_down("pve3", Outage::Off);
        assert_eq!(world.state().check_quorum().unwrap_err().text(), "cluster not ready - no quorum?");
        world.bring_up("pve3");
        world.bring_up("pve2");
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while world.pid_of(100).is_none() {
            assert!(tokio::time::Instant::now() < deadline, "onboot is ignored");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(!world.take_down("pve9", Outage::Off));
    }

    #[tokio::test]
    async fn a_node_that_hangs_keeps_its_vote_and_its_guests() {
        let dir = tempfile::tempdir().unwrap();
        let world = cluster(dir.path());
        world.take_down("pve2", Outage::Hangs);
        assert!(world.pid_of(100).is_some() && world.state().is_online("pve2"));
    }
}
