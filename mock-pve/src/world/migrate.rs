//! VMs that move to another node.
//!
//! Purpose: what stands against a migration, and the migration itself, with its disks: offline, or under a running
//! guest, who notices nothing. Must not know: requests, nor how a disk moves. Start at [`World::migrate_vm`]. Rules after
//! Proxmox VE 8.4 (PVE/API2/Qemu.pm `migrate_vm`, PVE/QemuMigrate.pm).

mod disks;
mod storages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::World;
use super::config::volid;
use super::drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::replication::Replicated;
use super::rights::Caller;
use super::state::{Config, VolumeKey};
use super::update::check_lock;
use super::work::{Mode, Work};
use disks::drives;
use storages::StorageMap;

pub use disks::LocalDisk;

/// A migration that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Migrate {
    /// Where to.
    pub target: String,
    /// Under a running guest.
    pub online: bool,
    /// Local disks of a running guest may move too.
    pub local_disks: bool,
    /// `1`, a storage, or pairs `from:to`.
    pub storages: Option<String>,
    /// Local devices don't matter.
    pub force: bool,
}

/// How a VM moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// While it is off.
    Offline,
    /// Under a running guest, who notices nothing.
    Live,
}

/// What is to be known before a migration.
#[derive(Clone, Debug, Default)]
pub struct Preconditions {
    /// The VM runs.
    pub running: bool,
    /// Nodes that have all its storages.
    pub allowed: Vec<String>,
    /// The others, with the storages they lack.
    pub refused: BTreeMap<String, BTreeSet<String>>,
    /// Disks that would have to move.
    pub disks: Vec<LocalDisk>,
    /// Devices of the node that are passed through.
    pub devices: Vec<String>,
}

fn devices(config: &Config) -> Vec<String> {
    config
        .iter()
        .filter(|(key, value)| match drive::numbered(key).map_or(key.as_str(), |(stem, _)| stem) {
            "hostpci" => !value.contains("mapping="),
            "usb" => !value.starts_with("spice") && !value.contains("mapping="),
            "serial" | "parallel" => *value != "socket",
            "ivshmem" => true,
            _ => false,
        })
        .map(|(key, _)| key.clone())
        .collect()
}

impl World {
    /// What is to be known before a migration.
    pub fn migration_preconditions(&self, node: &str, vmid: u32, target: Option<&str>) -> Rule<Preconditions> {
        let state = self.state();
        let vm = state.vm(node, vmid)?;
        if let Some(target) = target {
            state.check_node(target)?;
        }
        let mut found = Preconditions {
            running: vm.running.is_some(),
            disks: state.local_disks(vm).into_iter().map(|(disk, _)| disk).collect(),
            devices: devices(&vm.config),
            ..Preconditions::default()
        };
        let storages: BTreeSet<String> = drives(vm)
            .iter()
            .filter_map(|(_, value)| Some(VolumeKey::split(&volid(value)?)?.0.to_owned()))
            .filter(|storage| state.storages.contains_key(storage))
            .collect();
        for name in state.nodes.keys().filter(|name| *name != node && state.is_online(name)) {
            let missing: BTreeSet<String> =
                storages.iter().filter(|storage| state.storage_on(storage, name).is_err()).cloned().collect();
            if missing.is_empty() {
                found.allowed.push(name.clone());
            } else {
                found.refused.insert(name.clone(), missing);
            }
        }
        Ok(found)
    }

    /// Checks a migration and starts it, or asks the HA manager to. Says the UPID.
    pub fn migrate_vm(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> Rule<String> {
        let ask = self.check_migration(caller, node, vmid, ask)?;
        if self.state().is_ha_managed(vmid) {
            return Ok(self.ha_migrate(caller, node, vmid, ask.target));
        }
        Ok(self.start_migration(caller, node, vmid, ask))
    }

    /// Migrates a VM whoever manages it. Says the UPID.
    pub(super) fn migrate_now(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> Rule<String> {
        let ask = self.check_migration(caller, node, vmid, ask)?;
        Ok(self.start_migration(caller, node, vmid, ask))
    }

    fn check_migration(&self, caller: &Caller, node: &str, vmid: u32, mut ask: Migrate) -> Rule<Migrate> {
        let state = self.state();
        if ask.target == node {
            return Err(Refusal::param("target", "target is local node."));
        }
        state.check_quorum()?;
        state.check_node(&ask.target)?;
        let vm = state.vm(node, vmid)?;
        check_lock(&vm.config)?;
        if vm.running.is_some() && !ask.online {
            return Err(Refusal::failed("can't migrate running VM without --online\n"));
        }
        ask.online &= vm.running.is_some();
        let map = StorageMap::parse(ask.storages.as_deref())?;
        if ask.storages.as_deref().is_some_and(|text| text != "1") {
            state.check(caller, &format!("/vms/{vmid}"), &["VM.Config.Disk"])?;
            for storage in map.targets() {
                state.check_target_storage(caller, storage, &ask.target)?;
            }
        } else {
            state.storages_on_target(vm, &ask.target)?;
        }
        Ok(ask)
    }

    fn start_migration(&self, caller: &Caller, node: &str, vmid: u32, ask: Migrate) -> String {
        let at = node.to_owned();
        self.start_task(caller, node, "qmigrate", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let began = tokio::time::Instant::now();
            let ip = world.state().nodes.get(&ask.target).map(|node| node.ip.clone()).unwrap_or_default();
            say(&work, &format!("starting migration of VM {vmid} to node '{}' ({ip})", ask.target));
            let result = world.migrate_work(&work, &at, vmid, &ask).await;
            let seconds = began.elapsed().as_secs();
            let duration = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
            match result {
                Ok(()) => {
                    say(&work, &format!("migration finished successfully (duration {duration})"));
                    Ok(())
                }
                Err(refusal) => {
                    let text = refusal.text();
                    say(&work, &format!("ERROR: migration aborted (duration {duration}): {text}"));
                    Err(Refusal::failed("migration aborted\n"))
                }
            }
        })
    }

    async fn migrate_work(&self, work: &Work, node: &str, vmid: u32, ask: &Migrate) -> Rule<()> {
        let way = if self.pid_of(vmid).is_some() { Way::Live } else { Way::Offline };
        self.check_replication(work, vmid, ask, way)?;
        let legs = self.scan(work, node, vmid, ask, way)?;
        self.set_lock(node, vmid, Some("migrate"))?;
        let moved = match self.replicate_to(work, vmid, &ask.target) {
            Ok(()) => self.move_disks(work, vmid, ask, &legs, way).await,
            Err(refusal) => Err(refusal),
        };
        let moved = match moved {
            Ok(moved) => moved,
            Err(refusal) => {
                self.set_lock(node, vmid, None)?;
                return Err(refusal);
            }
        };
        if way == Way::Live {
            say(work, "starting online/live migration on unix:/run/qemu-server/migrate.sock");
            // Memory goes over the wire, then the guest stands still for a moment.
            self.clock().sleep(4.0).await;
            say(work, "migration status: completed");
        }
        let mut state = self.state();
        let pid = (way == Way::Live).then(|| state.tasks.pid());
        let vm = state.vm_mut(node, vmid)?;
        for config in [&mut vm.config, &mut vm.pending].into_iter().chain(vm.snapshots.values_mut()) {
            renamed(config, &moved);
        }
        if let (Some(running), Some(pid)) = (&mut vm.running, pid) {
            running.pid = pid;
            renamed(&mut running.config, &moved);
        }
        vm.config.remove("lock");
        vm.node.clone_from(&ask.target);
        state.turn_replication(vmid, (node, &ask.target));
        Ok(())
    }

    /// What jobs of the guest stand against.
    fn check_replication(&self, work: &Work, vmid: u32, ask: &Migrate, way: Way) -> Rule<()> {
        let state = self.state();
        let target = &ask.target;
        match state.replicated(vmid, target) {
            Replicated::Here(id) if state.replication_goes(&id) => {
                Err(Refusal::failed("refusing to migrate replicated VM whose replication job is marked for removal\n"))
            }
            Replicated::Elsewhere if way == Way::Live && !ask.force => Err(Refusal::failed(format!(
                "Cannot live-migrate replicated VM to node '{target}' - not a replication target. Use 'force' to override.\n"
            ))),
            Replicated::Elsewhere if way == Way::Live => {
                drop(state);
                say(
                    work,
                    &format!(
                        "WARNING: Node '{target}' is not a replication target. Existing replication jobs will fail after migration!"
                    ),
                );
                Ok(())
            }
            Replicated::Nowhere | Replicated::Here(_) | Replicated::Elsewhere => Ok(()),
        }
    }

    /// Runs the job that copies to the node where the guest goes.
    fn replicate_to(&self, work: &Work, vmid: u32, target: &str) -> Rule<()> {
        let now = self.clock().unix();
        let mut state = self.state();
        let Replicated::Here(id) = state.replicated(vmid, target) else { return Ok(()) };
        let said = state.run_replication(&id, now)?;
        drop(state);
        say(work, "replicating disk images");
        for line in said {
            say(work, &line);
        }
        Ok(())
    }

    fn set_lock(&self, node: &str, vmid: u32, lock: Option<&str>) -> Rule<()> {
        let mut state = self.state();
        let vm = state.vm_mut(node, vmid)?;
        match lock {
            Some(lock) => vm.config.insert("lock".to_owned(), lock.to_owned()),
            None => vm.config.remove("lock"),
        };
        Ok(())
    }
}

fn renamed(config: &mut Config, moved: &BTreeMap<String, String>) {
    for (key, value) in config.iter_mut() {
        if !drive::is_drive(key) && !drive::is_unused(key) {
            continue;
        }
        let Some(new) = volid(value).and_then(|old| moved.get(&old)) else { continue };
        if drive::is_unused(key) {
            value.clone_from(new);
        } else {
            let mut options = Properties::parse(value, "file");
            options.set("file", new.clone());
            *value = options.print("file");
        }
    }
}

fn stamped(line: &str) -> String {
    let mut text = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S ").to_string();
    // Writing to a string can't fail.
    let _ = write!(text, "{line}");
    text
}

fn say(work: &Work, line: &str) {
    work.log(stamped(line));
}

#[cfg(test)]
mod tests;
