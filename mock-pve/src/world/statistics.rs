//! What the cluster knows late, and what the disk keeps.
//!
//! Purpose: the statistics round of every ten seconds, which alone tells `cluster/resources` names, states and
//! template flags; and the state file. Must not know: who asks.

use std::path::{Path, PathBuf};

use super::World;
use super::drive;
use super::state::{Seen, State};

/// Seconds of real life between two rounds (Proxmox VE 8.4, PVE/Service/pvestatd.pm).
const ROUND: f64 = 10.0;

impl State {
    /// One statistics round: what it tells the cluster of each VM.
    pub fn broadcast(&mut self) {
        for (vmid, vm) in &mut self.vms {
            // A config that is still being made is nothing to tell of.
            if vm.config.get("lock").is_some_and(|lock| lock == "create" || lock == "clone") && vm.seen.is_none() {
                continue;
            }
            vm.seen = Some(Seen {
                name: vm.config.get("name").cloned().unwrap_or_else(|| format!("VM {vmid}")),
                running: vm.running.is_some(),
                template: vm.config.get("template").is_some_and(|flag| flag == "1"),
                maxdisk: drive::boot_disk_size(&vm.config),
                maxmem: drive::memory_mib(&vm.config) << 20,
                cpus: drive::cpus(&vm.config),
            });
        }
    }
}

impl World {
    pub(super) fn keep_statistics(&self) {
        self.state().broadcast();
        let weak = self.downgrade();
        let clock = self.clock().clone();
        tokio::spawn(async move {
            loop {
                clock.sleep(ROUND).await;
                let Some(world) = weak.upgrade() else { return };
                world.state().broadcast();
            }
        });
    }

    /// Writes the state file whenever the state differs from it, at most once a second.
    pub(super) fn keep_saving(&self, path: PathBuf) {
        let weak = self.downgrade();
        tokio::spawn(async move {
            let mut last = Vec::new();
            loop {
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                let Some(world) = weak.upgrade() else { return };
                let Ok(text) = serde_json::to_vec(&*world.state()) else { return };
                if text == last {
                    continue;
                }
                if let Err(error) = replace(&path, &text) {
                    tracing::warn!(path = %path.display(), %error, "the state can't be saved");
                }
                last = text;
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
