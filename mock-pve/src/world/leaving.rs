//! Services of a node that goes down because it is told to.
//!
//! Purpose: what becomes of a node's HA services when it is shut down or rebooted: they are stopped and stay where they
//! are, or are stopped and come up elsewhere, or move away before. Must not know: requests. Start at
//! [`World::let_services_go`]. Rules after Proxmox VE 8.4 (PVE/HA/LRM.pm, `shutdown_request`).

use std::time::Duration;

use serde_json::Value;

use super::lifecycle::{Lock, Shutdown};
use super::migrate::Migrate;
use super::node_power::NodeCommand;
use super::property::Properties;
use super::rights::Caller;
use super::state::State;
use super::{World, held};

/// How long a move away may take.
const LONG: Duration = Duration::from_hours(2);

/// What becomes of the services of a node that goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    /// They wait for the node.
    Frozen,
    /// They come up elsewhere once the node counts as fenced.
    Given,
}

/// What is done before they are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    leaving: Leaving,
    moves: bool,
}

impl State {
    /// What the cluster's options say of a node that goes down.
    fn shutdown_policy(&self, command: NodeCommand) -> Policy {
        let named = match self.options.get("ha") {
            Some(Value::Object(parts)) => parts.get("shutdown_policy").and_then(Value::as_str).map(str::to_owned),
            Some(Value::String(text)) => Properties::parse(text, "").get("shutdown_policy").map(str::to_owned),
            _ => None,
        };
        let conditional = if command == NodeCommand::Reboot { Leaving::Frozen } else { Leaving::Given };
        match named.as_deref() {
            Some("freeze") => Policy { leaving: Leaving::Frozen, moves: false },
            Some("failover") => Policy { leaving: Leaving::Given, moves: false },
            Some("migrate") => Policy { leaving: Leaving::Given, moves: true },
            _ => Policy { leaving: conditional, moves: false },
        }
    }

    /// The services of a node that run.
    fn running_services(&self, node: &str) -> Vec<u32> {
        let all = self.vms.iter().filter(|(_, vm)| vm.node == node && vm.running.is_some());
        all.filter(|(vmid, _)| self.is_ha_managed(**vmid)).map(|(vmid, _)| *vmid).collect()
    }
}

impl World {
    /// Ends the services of a node that goes down. They stay wanted, and nobody starts them there before it is back.
    pub(super) async fn let_services_go(&self, node: &str, command: NodeCommand) {
        let root = Caller::root();
        let policy = self.state().shutdown_policy(command);
        held(&self.0.services).leaving.insert(node.to_owned(), policy.leaving);
        if policy.moves {
            let moving = self.state().running_services(node);
            for vmid in moving {
                let target = {
                    let state = self.state();
                    let services = held(&self.0.services);
                    let stays = |name: &&String| state.is_online(name) && !services.leaving.contains_key(*name);
                    state.nodes.keys().find(stays).cloned()
                };
                let Some(target) = target else { break };
                let ask = Migrate { target, online: true, ..Migrate::default() };
                if let Ok(upid) = self.migrate_now(&root, node, vmid, ask) {
                    self.task_end(&upid, LONG).await;
                }
            }
        }
        let how = Shutdown { timeout: Some(60.0), force: true, lock: Lock::Respect };
        let services = self.state().running_services(node);
        let stops: Vec<String> =
            services.into_iter().filter_map(|vmid| self.shutdown_now(&root, node, vmid, how).ok()).collect();
        for upid in stops {
            self.task_end(&upid, LONG).await;
        }
    }

    /// A node is back: its own manager sees to its services again.
    pub(super) fn take_services_back(&self, node: &str) {
        held(&self.0.services).leaving.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::seed::{NodeSeed, Seed, VmSeed};
    use crate::world::{PveVersion, Settings};

    fn world(dir: &std::path::Path) -> World {
        let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
        let resource = serde_json::json!({"sid": "vm:100", "type": "vm", "state": "started"});
        let seed = Seed {
            nodes: vec![node("pve1"), node("pve2"), node("pve3")],
            cluster_name: Some("lab".to_owned()),
            vms: vec![VmSeed {
                vmid: 100,
                node: Some("pve2".to_owned()),
                status: Some("running".to_owned()),
                ..VmSeed::default()
            }],
            ha_resources: resource.as_object().cloned().into_iter().collect(),
            ..Seed::single_node()
        };
        let settings = Settings { dir: dir.to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        World::new(seed, settings).unwrap()
    }

    /// Runs of the VM's start on its node.
    fn starts(world: &World) -> usize {
        world.state().tasks.by_upid.values().filter(|task| task.kind == "qmstart").count()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_service_of_a_node_that_goes_off_starts_elsewhere_and_never_there() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        world.power_node(&Caller::root(), "pve2", NodeCommand::Shutdown);
        until("the node stays", || !world.state().is_online("pve2")).await;
        assert_eq!(starts(&world), 0, "it was started on a node that was going down");
        assert_eq!(world.ha_state(&world.state(), 100), "fence");
        until("nobody takes it", || world.state().vms[&100].node != "pve2" && world.pid_of(100).is_some()).await;
    }

    #[tokio::test]
    async fn a_service_of_a_node_that_reboots_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        world.power_node(&Caller::root(), "pve2", NodeCommand::Reboot);
        until("the node stays", || !world.state().is_online("pve2")).await;
        assert_eq!(world.ha_state(&world.state(), 100), "freeze");
        until("it doesn't come back", || world.pid_of(100).is_some()).await;
        assert!(world.state().is_online("pve2") && world.state().vms[&100].node == "pve2");
    }

    #[test]
    fn the_options_say_what_becomes_of_services() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let world = world(dir.path());
        let mut state = world.state();
        let cases = [
            ("conditional", Leaving::Given, Leaving::Frozen, false),
            ("freeze", Leaving::Frozen, Leaving::Frozen, false),
            ("failover", Leaving::Given, Leaving::Given, false),
            ("migrate", Leaving::Given, Leaving::Given, true),
        ];
        for (named, off, reboot, moves) in cases {
            for option in [serde_json::json!({"shutdown_policy": named}), format!("shutdown_policy={named}").into()] {
                state.options.insert("ha".to_owned(), option);
                assert_eq!(state.shutdown_policy(NodeCommand::Shutdown), Policy { leaving: off, moves }, "{named}");
                assert_eq!(state.shutdown_policy(NodeCommand::Reboot), Policy { leaving: reboot, moves }, "{named}");
            }
        }
    }
}
