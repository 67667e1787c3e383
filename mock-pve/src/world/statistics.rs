//! What the cluster knows late, and what the disk keeps.
//!
//! Purpose: the statistics round of every ten seconds, which alone tells `cluster/resources` names, states and
//! template flags; and the state file. Must not know: who asks.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::World;
use super::drive;
use super::state::{Seen, State, Vm};

/// Seconds of real life between two rounds (Proxmox VE 8.4, PVE/Service/pvestatd.pm).
const ROUND: f64 = 10.0;
/// How long changes are gathered before they are saved.
const MOMENT: Duration = Duration::from_millis(100);
/// How long nobody looks whether a world that doesn't change is still there.
const TURN: Duration = Duration::from_secs(30);

impl State {
    /// What a statistics round tells the cluster of a VM.
    fn told(&self, vmid: u32, vm: &Vm) -> Option<Seen> {
        // Nobody tells of the guests of a node that is down.
        if !self.is_online(&vm.node) {
            return None;
        }
        // A config that is still being made is nothing to tell of.
        if vm.config.get("lock").is_some_and(|lock| lock == "create" || lock == "clone") && vm.seen.is_none() {
            return None;
        }
        Some(Seen {
            name: vm.config.get("name").cloned().unwrap_or_else(|| format!("VM {vmid}")),
            running: vm.running.is_some(),
            template: vm.config.get("template").is_some_and(|flag| flag == "1"),
            maxdisk: drive::boot_disk_size(&vm.config),
            maxmem: drive::memory_mib(&vm.config) << 20,
            cpus: drive::cpus(&vm.config),
        })
    }

    /// What is new in this statistics round.
    fn news(&self) -> Vec<(u32, Option<Seen>)> {
        let all = self.vms.iter().map(|(vmid, vm)| (*vmid, self.told(*vmid, vm), &vm.seen));
        all.filter(|(_, told, seen)| told != *seen).map(|(vmid, told, _)| (vmid, told)).collect()
    }

    /// One statistics round: what it tells the cluster of each VM.
    pub fn broadcast(&mut self) {
        for (vmid, told) in self.news() {
            if let Some(vm) = self.vms.get_mut(&vmid) {
                vm.seen = told;
            }
        }
    }
}

impl World {
    pub(super) fn keep_statistics(&self) {
        self.state().broadcast();
        self.note_history();
        let weak = self.downgrade();
        let clock = self.clock().clone();
        tokio::spawn(async move {
            loop {
                clock.sleep(ROUND).await;
                let Some(world) = weak.upgrade() else { return };
                world.note_history();
                let mut state = world.state();
                // A round without news leaves nothing to save.
                if !state.news().is_empty() {
                    state.broadcast();
                }
            }
        });
    }

    /// Writes the state file a moment after the state begins to differ from it; while nothing changes, nothing is done.
    pub(super) fn keep_saving(&self) {
        let (weak, unsaved) = (self.downgrade(), Arc::clone(&self.0.unsaved));
        tokio::spawn(async move {
            loop {
                // The long turn only notices that the world is gone.
                let told = tokio::time::timeout(TURN, unsaved.notified()).await.is_ok();
                if told {
                    tokio::time::sleep(MOMENT).await;
                }
                let Some(world) = weak.upgrade() else { return };
                if world.take_changed()
                    && let Err(error) = world.save()
                {
                    tracing::warn!(dir = %world.dir().display(), %error, "the state can't be saved");
                }
            }
        });
    }

    /// Writes the state file now.
    pub fn save(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&*self.state())?;
        replace(&self.dir().join("state.json"), &text)
    }
}

fn replace(path: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let part = path.with_extension("json.part");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    std::io::Write::write_all(&mut file, text)?;
    std::fs::rename(part, path)
}
