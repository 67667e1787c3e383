//! All guests of a node away from it: to another node, or to disk.
//!
//! Purpose: `migrateall` and `suspendall`. Must not know: requests. Start at [`World::migrate_all`]. Rules after Proxmox
//! VE 8.4 (PVE/API2/Nodes.pm).

use std::collections::BTreeSet;

use super::Turn;
use crate::world::World;
use crate::world::migrate::Migrate;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::State;

/// How the guests of a node move.
#[derive(Clone, Debug)]
pub struct Moving {
    /// Where to.
    pub target: String,
    /// Disks that only this node has move along, under running guests too.
    pub local_disks: bool,
    /// How many at once.
    pub at_once: usize,
}

impl State {
    /// All guests of a node, in the original's order: by their numbers as text.
    fn all_guests(&self, node: &str, only: Option<&BTreeSet<u32>>) -> Vec<u32> {
        let here = self.vms.iter().filter(|(vmid, vm)| vm.node == node && only.is_none_or(|only| only.contains(*vmid)));
        let mut guests: Vec<u32> = here.map(|(vmid, _)| *vmid).collect();
        guests.sort_by_key(ToString::to_string);
        guests
    }

    /// How many guests are worked on at once, if the datacenter says so.
    pub fn max_workers(&self) -> Option<u64> {
        let set = self.options.get("max_workers")?;
        set.as_u64().or_else(|| set.as_str()?.parse().ok())
    }

    /// How many guests are worked on at once, where nobody says so.
    fn workers(&self, node: &str) -> usize {
        let set = self.max_workers();
        let cpus = self.nodes.get(node).map_or(1, |node| u64::from(node.cpus));
        usize::try_from(set.unwrap_or(cpus)).unwrap_or(usize::MAX).max(1)
    }
}

impl World {
    /// Why a guest can't move; nothing: it can.
    fn stands_against(&self, node: &str, vmid: u32, how: &Moving) -> Rule<String> {
        use std::fmt::Write as _;
        let found = self.migration_preconditions(node, vmid, Some(&how.target))?;
        let mut reasons = String::new();
        let mut add = |what: &str, names: Vec<&str>| {
            // Writing to a text can't fail.
            let _ = write!(reasons, "\n  Has {what}: {}", names.join(", "));
        };
        if found.running && !how.local_disks && !found.disks.is_empty() {
            add("local disks", found.disks.iter().map(|disk| disk.volid.as_str()).collect());
        }
        if !found.devices.is_empty() {
            add("local resources", found.devices.iter().map(String::as_str).collect());
        }
        if let Some(missing) = found.refused.get(&how.target).filter(|_| !found.running) {
            add("unavailable storages", missing.iter().map(String::as_str).collect());
        }
        Ok(reasons)
    }

    /// Moves guests of a node to another. Says the UPID.
    pub fn migrate_all(&self, caller: &Caller, node: &str, only: Option<BTreeSet<u32>>, how: Moving) -> String {
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "migrateall", "", |work| async move {
            let world = work.world().clone();
            let guests = world.state().all_guests(&at, only.as_ref());
            if guests.is_empty() {
                work.log("no virtual guests matched, nothing to do..");
                return Ok(());
            }
            let (mut running, mut started) = (Vec::new(), 0);
            for vmid in guests {
                let check = format!("Check VM {vmid}: ");
                match world.stands_against(&at, vmid, &how) {
                    Ok(reasons) if reasons.is_empty() => work.log(format!("{check}precondition check passed")),
                    Ok(reasons) => {
                        work.log(format!("{check}skip VM {vmid} - precondition check failed:"));
                        reasons.lines().skip(1).for_each(|line| work.log(line));
                        continue;
                    }
                    Err(refusal) => {
                        work.log(format!("{check}{}", refusal.text()));
                        continue;
                    }
                }
                work.log(format!("Migrating VM {vmid}"));
                let ask = Migrate {
                    target: how.target.clone(),
                    online: world.pid_of(vmid).is_some(),
                    local_disks: how.local_disks,
                    ..Migrate::default()
                };
                match world.migrate_vm(&who, &at, vmid, ask) {
                    Ok(upid) => {
                        started += 1;
                        running.push(upid);
                    }
                    Err(refusal) => work.log(refusal.text()),
                }
                world.wait_for(&mut running, how.at_once.saturating_sub(1)).await;
            }
            world.wait_for(&mut running, 0).await;
            if started == 0 {
                return Err(Refusal::failed("no migrations worker started...\n"));
            }
            work.log(format!("All jobs finished, used {started} workers in total."));
            Ok(())
        })
    }

    /// Writes guests of a node that run to disk. Says the UPID.
    pub fn suspend_all(&self, caller: &Caller, node: &str, only: Option<BTreeSet<u32>>) -> String {
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "suspendall", "", |work| async move {
            let world = work.world().clone();
            let (mut turns, at_once) = {
                let state = world.state();
                (state.turns(&at, only.as_ref()), state.workers(&at))
            };
            turns.reverse();
            let (mut order, mut running) = (None, Vec::new());
            for Turn { order: now, vmid, .. } in turns {
                world.wait_for(&mut running, if order == Some(now) { at_once - 1 } else { 0 }).await;
                order = Some(now);
                if world.pid_of(vmid).is_none() {
                    work.log(format!("VM {vmid} not running, skipping suspension"));
                    continue;
                }
                work.log(format!("Suspending VM {vmid}"));
                match world.suspend_vm(&who, &at, vmid, None) {
                    Ok(upid) => running.push(upid),
                    Err(refusal) => work.log(refusal.text()),
                }
            }
            world.wait_for(&mut running, 0).await;
            Ok(())
        })
    }
}
