//! A VM in the hands of its backup.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::world::{World, held};

/// What a VM is to be when its backup is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// As it is.
    Same,
    /// Going on.
    Resume,
    /// Started again.
    Start,
}

/// Gives a VM back, however its backup ends: unlocked, running if it ran, and without a half-made archive.
pub(super) struct Grip {
    world: World,
    vmid: u32,
    pub(super) after: After,
    /// What the mode did to the guest, once it did: it is looked after at the very end.
    pub(super) mode: After,
    /// Unix time since which the guest stands still, until that is told.
    pub(super) since: Option<u64>,
    pub(super) partial: PathBuf,
    pub(super) stop: Arc<AtomicBool>,
    holds: bool,
}

impl Grip {
    /// Of a VM that was just locked.
    pub(super) fn new(world: World, vmid: u32, partial: PathBuf) -> Self {
        let (after, mode) = (After::Same, After::Same);
        Self { world, vmid, after, mode, since: None, partial, stop: Arc::default(), holds: true }
    }

    /// Lets the VM go on.
    pub(super) fn go_on(&mut self) {
        match std::mem::replace(&mut self.after, After::Same) {
            After::Same => {}
            After::Resume => {
                if let Some(running) = self.world.state().vms.get_mut(&self.vmid).and_then(|vm| vm.running.as_mut()) {
                    running.paused = false;
                }
            }
            After::Start => {
                if self.world.pid_of(self.vmid).is_none() {
                    self.world.switch_on(self.vmid);
                }
            }
        }
    }

    /// A process without a guest reads the disks: who starts the VM meanwhile finds it there.
    pub(super) fn begin_process(&self) {
        held(&self.world.0.prelaunched).insert(self.vmid);
    }

    /// That process is of no more use.
    pub(super) fn end_process(&self) {
        held(&self.world.0.prelaunched).remove(&self.vmid);
    }

    /// Nobody's any more.
    pub(super) fn unlock(&mut self) {
        if !std::mem::take(&mut self.holds) {
            return;
        }
        if let Some(vm) = self.world.state().vms.get_mut(&self.vmid)
            && vm.config.get("lock").is_some_and(|lock| lock == "backup")
        {
            vm.config.remove("lock");
        }
    }
}

impl Drop for Grip {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.end_process();
        let is_out = {
            let state = self.world.state();
            state.vms.get(&self.vmid).is_none_or(|vm| !state.is_online(&vm.node))
        };
        if is_out {
            // A node without power tidies nothing up: the lock and the half archive are found afterwards.
            return;
        }
        self.unlock();
        self.go_on();
        // A whole archive was renamed.
        let _ = std::fs::remove_file(&self.partial);
    }
}
