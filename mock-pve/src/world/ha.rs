//! High availability: who must run, and who sees to it.
//!
//! Purpose: the resources of the cluster's HA configuration and the manager that, round by round, makes VMs be what
//! their resource asks for: a VM that switched itself off is started again. Must not know: requests. Start at
//! [`World::keep_services`]. Rules after Proxmox VE 8.4 (PVE/HA/Manager.pm, PVE/API2/Qemu.pm).

use std::collections::BTreeMap;

use super::leaving::Leaving;
use super::lifecycle::{Lock, Shutdown, Stop};
use super::migrate::Migrate;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::State;
use super::{World, held};

/// Seconds of real life between two rounds of the local resource managers.
const ROUND: f64 = 10.0;
/// Seconds of real life after which a node that is gone counts as fenced.
const FENCED: f64 = 120.0;

/// What the manager knows of its services beyond their configuration.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: BTreeMap<u32, Service>,
    /// Nodes whose own manager ended because they go down, until they are back.
    pub(super) leaving: BTreeMap<String, Leaving>,
}

#[derive(Debug, Default)]
struct Service {
    failures: u64,
    moves: u64,
    failed: bool,
    task: Option<String>,
    timeout: Option<f64>,
    journey: Option<Journey>,
    lost: Option<f64>,
}

/// How a service goes to another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As it is: what runs runs on.
    Migrate,
    /// It is shut down, moved and started again.
    Relocate,
}

#[derive(Clone, Debug)]
struct Journey {
    target: String,
    way: Way,
}

impl Services {
    fn is_failed(&self, vmid: u32) -> bool {
        self.known.get(&vmid).is_some_and(|service| service.failed)
    }

    fn forget(&mut self, vmid: u32) {
        self.known.remove(&vmid);
    }
}

/// What is to be done with a service in a round.
enum Turn {
    Start,
    Stop(Option<f64>),
    Migrate(String),
    Recover(String),
}

impl State {
    /// The state that a resource asks for; `None`: the VM is no resource.
    pub fn ha_request(&self, vmid: u32) -> Option<&str> {
        let resource = self.ha.get(&format!("vm:{vmid}"))?;
        Some(resource.get("state").and_then(|state| state.as_str()).unwrap_or("started"))
    }

    /// Takes a service out of all rules; a rule that is about nothing then goes.
    pub fn forget_in_rules(&mut self, sid: &str) {
        let Some(rules) = self.sections.get_mut("ha/rules") else { return };
        rules.retain(|_, rule| {
            let named = rule.get("resources").and_then(serde_json::Value::as_str).unwrap_or_default();
            if !named.split([',', ';', ' ']).any(|one| one == sid) {
                return true;
            }
            let left: Vec<&str> = named.split([',', ';', ' ']).filter(|one| !one.is_empty() && *one != sid).collect();
            let left = left.join(",");
            let stays = !left.is_empty();
            rule.insert("resources".to_owned(), left.into());
            stays
        });
    }

    /// Whether the HA manager has a VM in its hands.
    pub fn is_ha_managed(&self, vmid: u32) -> bool {
        self.ha_request(vmid).is_some_and(|state| state != "ignored")
    }

    fn ha_number(&self, vmid: u32, key: &str) -> u64 {
        self.ha.get(&format!("vm:{vmid}")).and_then(|resource| resource.get(key)?.as_u64()).unwrap_or(1)
    }

    fn ha_set(&mut self, vmid: u32, state: &str) {
        if let Some(resource) = self.ha.get_mut(&format!("vm:{vmid}")) {
            resource.insert("state".to_owned(), state.into());
        }
    }
}

impl World {
    /// The manager's rounds, as long as the world lives.
    pub(super) fn keep_services(&self) {
        let weak = self.downgrade();
        let clock = self.clock().clone();
        tokio::spawn(async move {
            loop {
                clock.sleep(ROUND).await;
                let Some(world) = weak.upgrade() else { return };
                world.ha_round();
            }
        });
    }

    /// What the manager says of a service: `started`, `stopped`, `disabled`, `ignored`, `error` …
    pub fn ha_state(&self, state: &State, vmid: u32) -> String {
        let wanted = state.ha_request(vmid).unwrap_or("started");
        let running = state.vms.get(&vmid).is_some_and(|vm| vm.running.is_some());
        let lost = state.vms.get(&vmid).is_some_and(|vm| !state.is_online(&vm.node));
        let services = held(&self.0.services);
        let leaving = state.vms.get(&vmid).and_then(|vm| services.leaving.get(&vm.node));
        match wanted {
            "ignored" | "disabled" if !running => wanted.to_owned(),
            "ignored" => "ignored".to_owned(),
            _ if services.is_failed(vmid) => "error".to_owned(),
            _ if leaving == Some(&Leaving::Frozen) => "freeze".to_owned(),
            _ if lost => "fence".to_owned(),
            "started" if running => "started".to_owned(),
            "started" => "starting".to_owned(),
            _ if running => "request_stop".to_owned(),
            _ => "stopped".to_owned(),
        }
    }

    /// One round over all services.
    fn ha_round(&self) {
        let turns: Vec<(u32, String, Turn)> = {
            let state = self.state();
            let mut services = held(&self.0.services);
            let Services { known, leaving } = &mut *services;
            known.retain(|vmid, _| state.ha.contains_key(&format!("vm:{vmid}")));
            if state.ha.is_empty() || !state.is_quorate() {
                return;
            }
            let vmids: Vec<u32> =
                state.ha.keys().filter_map(|sid| sid.strip_prefix("vm:")?.parse::<u32>().ok()).collect();
            vmids
                .into_iter()
                .filter_map(|vmid| {
                    let service = known.entry(vmid).or_default();
                    let node = state.vms.get(&vmid)?.node.clone();
                    // Nobody touches what is on a node that goes down, but to bring it elsewhere once it is off.
                    let touched = match leaving.get(&node) {
                        None => true,
                        Some(Leaving::Frozen) => false,
                        Some(Leaving::Given) => !state.is_online(&node),
                    };
                    let turn = if touched { self.turn(&state, vmid, service) } else { None };
                    Some((vmid, node, turn?))
                })
                .collect()
        };
        let root = Caller::root();
        for (vmid, node, turn) in turns {
            let upid = match turn {
                Turn::Start => Some(self.start_now(&root, &node, vmid, Lock::Respect)),
                Turn::Stop(Some(timeout)) if timeout <= 0.0 => Some(self.stop_now(&root, &node, vmid, Stop::default())),
                Turn::Stop(timeout) => {
                    let how = Shutdown { timeout: timeout.or(Some(60.0)), force: true, lock: Lock::Respect };
                    self.shutdown_now(&root, &node, vmid, how).ok()
                }
                Turn::Migrate(target) => {
                    // Local disks go along, and local devices are no reason to stay.
                    let online = self.pid_of(vmid).is_some();
                    let ask = Migrate { target, online, local_disks: true, storages: None, force: true };
                    self.migrate_now(&root, &node, vmid, ask).ok()
                }
                Turn::Recover(target) => {
                    // Only the config moves: what was on local storage stays behind, as in the original.
                    if let Some(vm) = self.state().vms.get_mut(&vmid) {
                        vm.node = target;
                    }
                    None
                }
            };
            if let Some(service) = held(&self.0.services).known.get_mut(&vmid) {
                service.task = upid;
            }
        }
    }

    fn turn(&self, state: &State, vmid: u32, service: &mut Service) -> Option<Turn> {
        let vm = state.vms.get(&vmid)?;
        let wanted = state.ha_request(vmid)?;
        if wanted == "ignored" {
            *service = Service::default();
            return None;
        }
        if let Some(upid) = &service.task {
            let status = state.tasks.by_upid.get(upid).map(|task| (task.kind.clone(), task.status.clone()));
            match status {
                Some((_, None)) => return None,
                Some((kind, Some(status))) if kind == "qmstart" && status != "OK" => service.failures += 1,
                _ => {}
            }
            service.task = None;
        }
        if wanted == "disabled" {
            (service.failed, service.failures, service.moves) = (false, 0, 0);
        }
        if !state.is_online(&vm.node) {
            let now = self.clock().elapsed();
            let since = *service.lost.get_or_insert(now);
            let other = state.nodes.keys().find(|name| state.is_online(name));
            return (wanted == "started" && now - since >= FENCED)
                .then(|| other.map(|name| Turn::Recover(name.clone())))?;
        }
        service.lost = None;
        if service.failed {
            return None;
        }
        let running = vm.running.is_some();
        if let Some(journey) = service.journey.take().filter(|journey| journey.target != vm.node) {
            if running && journey.way == Way::Relocate {
                service.journey = Some(journey);
                return Some(Turn::Stop(None));
            }
            return Some(Turn::Migrate(journey.target));
        }
        match (wanted, running) {
            ("started", true) => {
                (service.failures, service.moves) = (0, 0);
                None
            }
            ("started", false) if service.failures > state.ha_number(vmid, "max_restart") => {
                service.failures = 0;
                service.moves += 1;
                let other = state.nodes.keys().find(|name| **name != vm.node && state.is_online(name));
                match other {
                    Some(other) if service.moves <= state.ha_number(vmid, "max_relocate") => {
                        Some(Turn::Migrate(other.clone()))
                    }
                    _ => {
                        service.failed = true;
                        None
                    }
                }
            }
            ("started", false) => Some(Turn::Start),
            (_, true) => Some(Turn::Stop(service.timeout.take())),
            (_, false) => None,
        }
    }

    /// Asks the manager to start a VM. Says the UPID of the request, which is done at once.
    pub(super) fn ha_start(&self, caller: &Caller, node: &str, vmid: u32) -> String {
        self.start_task(caller, node, "hastart", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            work.log(format!("Requesting HA start for VM {vmid}"));
            world.check_service(vmid)?;
            world.state().ha_set(vmid, "started");
            Ok(())
        })
    }

    /// Asks the manager to stop a VM; no time means: pull the plug. Says the UPID of the request.
    pub(super) fn ha_stop(&self, caller: &Caller, node: &str, vmid: u32, timeout: f64) -> String {
        self.start_task(caller, node, "hastop", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            work.log(format!("Requesting HA stop for VM {vmid}"));
            world.check_service(vmid)?;
            let mut state = world.state();
            state.ha_set(vmid, "stopped");
            held(&world.0.services).known.entry(vmid).or_default().timeout = Some(timeout);
            Ok(())
        })
    }

    /// Asks the manager to move a VM. Says the UPID of the request.
    pub(super) fn ha_migrate(&self, caller: &Caller, node: &str, vmid: u32, target: String) -> String {
        self.start_task(caller, node, "hamigrate", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            work.log(format!("Requesting HA migration for VM {vmid} to node {target}"));
            world.check_service(vmid)?;
            world.ask_ha_migration(vmid, target, Way::Migrate);
            Ok(())
        })
    }

    /// Notes that a service is to move; the next round sees to it.
    pub fn ask_ha_migration(&self, vmid: u32, target: String, way: Way) {
        held(&self.0.services).known.entry(vmid).or_default().journey = Some(Journey { target, way });
    }

    fn check_service(&self, vmid: u32) -> Rule<()> {
        let state = self.state();
        state.check_quorum()?;
        if !state.ha.contains_key(&format!("vm:{vmid}")) {
            return Err(Refusal::failed(format!("no such resource 'vm:{vmid}'\n")));
        }
        if held(&self.0.services).is_failed(vmid) {
            return Err(Refusal::failed(format!(
                "service 'vm:{vmid}' in error state, must be disabled and fixed first\n"
            )));
        }
        Ok(())
    }

    /// A resource that is configured anew begins without a past.
    pub fn forget_service(&self, vmid: u32) {
        held(&self.0.services).forget(vmid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::seed::{Seed, VmSeed};
    use crate::world::{PveVersion, Settings};

    fn world(dir: &std::path::Path) -> World {
        let seed = Seed {
            vms: vec![VmSeed { vmid: 100, status: Some("running".to_owned()), ..VmSeed::default() }],
            ha_resources: vec![
                serde_json::json!({"sid": "vm:100", "type": "vm", "state": "started"}).as_object().cloned().unwrap(),
            ],
            ..Seed::single_node()
        };
        let settings = Settings { dir: dir.to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        World::new(seed, settings).unwrap()
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
        while !holds() {
            assert!(tokio::time::Instant::now() < deadline, "{what}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn a_vm_that_switched_itself_off_is_started_again_unless_it_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        let before = world.pid_of(100);
        world.guest_powered_off(100);
        until("it stays off", || world.pid_of(100).is_some_and(|pid| Some(pid) != before)).await;
        world.state().ha_set(100, "ignored");
        world.guest_powered_off(100);
        tokio::time::sleep(std::time::Duration::from_millis(400)).await;
        assert_eq!(world.pid_of(100), None, "ignored means: hands off");
    }

    #[tokio::test]
    async fn stopping_a_managed_vm_only_asks_and_it_stays_off() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        let root = Caller::root();
        let upid = world.stop_vm(&root, "pve1", 100, Stop::default()).unwrap();
        assert!(upid.contains(":hastop:100:"), "{upid}");
        let refused = world.stop_vm(&root, "pve1", 100, Stop { overrule: true, ..Stop::default() }).unwrap_err();
        assert!(matches!(refused, Refusal::Params(_)), "{refused:?}");
        until("it runs on", || world.pid_of(100).is_none()).await;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        assert!(world.pid_of(100).is_none() && world.state().ha_request(100) == Some("stopped"));
        let upid = world.start_vm(&root, "pve1", 100, Lock::Respect);
        assert!(upid.contains(":hastart:100:"), "{upid}");
        until("it stays off", || world.pid_of(100).is_some()).await;
    }

    #[tokio::test]
    async fn a_service_that_cannot_start_ends_in_error_until_it_is_disabled() {
        let dir = tempfile::tempdir().unwrap();
        let world = world(dir.path());
        world.state().vms.get_mut(&100).unwrap().config.insert("lock".to_owned(), "backup".to_owned());
        world.guest_powered_off(100);
        until("it is no error", || world.ha_state(&world.state(), 100) == "error").await;
        world.state().ha_set(100, "disabled");
        until("it is still an error", || world.ha_state(&world.state(), 100) == "disabled").await;
    }
}
