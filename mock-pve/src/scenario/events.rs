//! What happens without being asked for.
//!
//! Purpose: waits until an event is due and carries it out, as somebody else would who works with the same installation.
//! Must not know: HTTP; calls of the PVE API go through [`Hands`]. Start at [`play`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Due, Engine, Happens, VmName};
use crate::etcd::Lag;
use crate::world::WeakWorld;
use crate::world::World;
use crate::world::members::Outage;

/// How long a deed's task may take: nothing real takes longer.
const TASK: Duration = Duration::from_mins(2);

/// Somebody who works with the installation: calls of the PVE API as root.
pub trait Hands: Send + Sync + 'static {
    /// Calls a method; the answer's data, or the message of a refusal.
    fn call(
        &self,
        verb: &str,
        path: &str,
        with: BTreeMap<String, String>,
    ) -> impl Future<Output = Result<serde_json::Value, String>> + Send;
}

/// Carries out the events of a scenario until the world ends.
pub async fn play(engine: Engine, world: WeakWorld, hands: impl Hands) {
    let hands = Arc::new(hands);
    let mut running = tokio::task::JoinSet::new();
    let Some(mut due) = engine.due() else { return };
    for (number, event) in engine.events().iter().enumerate() {
        if let Due::At(seconds) = event.when {
            running.spawn(happen(engine.clone(), world.clone(), hands.clone(), number, seconds));
        }
    }
    loop {
        tokio::select! {
            Some(number) = due.recv() => {
                let wait = match engine.events().get(number).map(|event| &event.when) {
                    Some(Due::After { wait, .. }) => *wait,
                    _ => 0.0,
                };
                running.spawn(happen(engine.clone(), world.clone(), hands.clone(), number, wait));
            }
            Some(_) = running.join_next() => {}
        }
    }
}

async fn happen(engine: Engine, weak: WeakWorld, hands: Arc<impl Hands>, number: usize, wait: f64) {
    let Some(clock) = weak.upgrade().map(|world| world.clock().clone()) else { return };
    clock.sleep(wait).await;
    let (Some(world), Some(event)) = (weak.upgrade(), engine.events().get(number)) else { return };
    let how = carry_out(&world, hands.as_ref(), &event.deed).await;
    match &how {
        Ok(()) => tracing::info!(name = event.name, "an event of the scenario"),
        Err(why) => tracing::warn!(name = event.name, why, "an event of the scenario couldn't happen"),
    }
    engine.ended(number, how);
}

async fn carry_out(world: &World, hands: &impl Hands, deed: &Happens) -> Result<(), String> {
    let node = |known: bool, name: &str| if known { Ok(()) } else { Err(format!("there is no node {name}")) };
    match deed {
        Happens::NodeDies(name) => node(world.take_down(name, Outage::Off), name),
        Happens::NodeHangs(name) => node(world.take_down(name, Outage::Hangs), name),
        Happens::NodeReturns(name) => node(world.bring_up(name), name),
        Happens::VmVanishes(vm) => {
            let place = find(world, vm)?;
            if place.running {
                call(world, hands, "POST", &format!("{}/status/stop", place.path()), BTreeMap::new()).await?;
            }
            call(world, hands, "DELETE", &place.path(), BTreeMap::new()).await
        }
        Happens::VmStarts(vm) => {
            let place = find(world, vm)?;
            call(world, hands, "POST", &format!("{}/status/start", place.path()), BTreeMap::new()).await
        }
        Happens::VmStops(vm) => {
            let place = find(world, vm)?;
            call(world, hands, "POST", &format!("{}/status/stop", place.path()), BTreeMap::new()).await
        }
        Happens::VmChanges { vm, set } => {
            let place = find(world, vm)?;
            call(world, hands, "POST", &format!("{}/config", place.path()), set.clone()).await
        }
        Happens::MachinePowersOff(vm) => {
            let place = find(world, vm)?;
            world.ask_to_shut_down(place.vmid);
            Ok(())
        }
        Happens::MachineFails { vm, fault } => {
            world.machine_fault(find(world, vm)?.vmid, *fault);
            Ok(())
        }
        Happens::EtcdLeaderMoves(to) => etcd_leader(world, to),
        Happens::EtcdLags { member, receive, apply } => {
            let mut found = false;
            for etcd in world.etcds() {
                for one in etcd.members().into_iter().filter(|one| one.name == *member) {
                    etcd.lag(one.id, Lag { receive: *receive, apply: *apply });
                    found = true;
                }
            }
            if found { Ok(()) } else { Err(format!("no member of etcd is called {member}")) }
        }
        Happens::Request { verb, path, with } => call(world, hands, verb, path, with.clone()).await,
    }
}

fn etcd_leader(world: &World, to: &str) -> Result<(), String> {
    let etcds = world.etcds();
    if to == "away" {
        let [etcd] = etcds.as_slice() else { return Err(format!("{} etcd clusters run", etcds.len())) };
        return etcd.elect(None).map(|_| ()).map_err(|error| error.to_string());
    }
    for etcd in etcds {
        if let Some(member) = etcd.members().into_iter().find(|member| member.name == to) {
            return etcd.elect(Some(member.id)).map(|_| ()).map_err(|error| error.to_string());
        }
    }
    Err(format!("no member of etcd is called {to}"))
}

/// A VM's place.
struct Place {
    vmid: u32,
    node: String,
    running: bool,
}

impl Place {
    fn path(&self) -> String {
        format!("/nodes/{}/qemu/{}", self.node, self.vmid)
    }
}

fn find(world: &World, wanted: &VmName) -> Result<Place, String> {
    let state = world.state();
    let found = state.vms.iter().find(|(vmid, vm)| match wanted {
        VmName::Number(number) => *vmid == number,
        VmName::Name(name) => vm.config.get("name") == Some(name),
    });
    found
        .map(|(vmid, vm)| Place { vmid: *vmid, node: vm.node.clone(), running: vm.running.is_some() })
        .ok_or_else(|| format!("there is no VM {wanted}"))
}

/// Calls a method and waits for its task.
async fn call(
    world: &World,
    hands: &impl Hands,
    verb: &str,
    path: &str,
    with: BTreeMap<String, String>,
) -> Result<(), String> {
    let answer = hands.call(verb, path, with).await?;
    let Some(upid) = answer.as_str().filter(|text| text.starts_with("UPID:")) else { return Ok(()) };
    match world.task_end(upid, TASK).await {
        Some(status) if status == "OK" || status.starts_with("WARNINGS") => Ok(()),
        Some(status) => Err(status),
        None => Err("its task doesn't end".to_owned()),
    }
}
