//! Switching VMs on and off.
//!
//! Purpose: what a start, a stop and a guest that switches itself off do to a VM. Must not know: tasks and requests.

use super::World;
use super::power::Power;
use super::state::Runtime;

impl World {
    /// The process id of a VM that runs; a new one after every start.
    pub fn pid_of(&self, vmid: u32) -> Option<u32> {
        self.state().vms.get(&vmid)?.running.as_ref().map(|running| running.pid)
    }

    /// Applies pending changes and switches a VM on. The caller has checked that it may.
    pub fn switch_on(&self, vmid: u32) {
        let since = self.clock().elapsed();
        self.forget_memory(vmid);
        self.apply_pending(vmid);
        let boot = {
            let mut state = self.state();
            let pid = state.tasks.pid();
            let Some(vm) = state.vms.get_mut(&vmid) else { return };
            vm.cloudinit.clear();
            let frozen = vm.config.get("freeze").is_some_and(|flag| flag == "1");
            vm.running = Some(Runtime { pid, since, paused: frozen, prelaunch: frozen, config: vm.config.clone() });
            if frozen {
                return;
            }
            let Some(vm) = state.vms.get(&vmid) else { return };
            state.hardware(self.dir(), vmid, vm)
        };
        self.emit(&Power::On(Box::new(boot)));
    }

    /// Lets the processors of a VM run; one that was frozen from its start boots.
    pub(super) fn let_run(&self, vmid: u32) {
        let first = {
            let mut state = self.state();
            let Some(running) = state.vms.get_mut(&vmid).and_then(|vm| vm.running.as_mut()) else { return };
            running.paused = false;
            std::mem::take(&mut running.prelaunch)
        };
        if let Some(boot) = self.boot(vmid).filter(|_| first) {
            self.emit(&Power::On(Box::new(boot)));
        }
    }

    /// Pulls the plug.
    pub fn switch_off(&self, vmid: u32) {
        let was_on = {
            let mut state = self.state();
            state.vms.get_mut(&vmid).and_then(|vm| vm.running.take()).is_some()
        };
        self.apply_pending(vmid);
        if was_on {
            self.gone_off(vmid);
            self.set_guest(vmid, None);
            self.emit(&Power::Off { vmid });
        }
    }

    /// Presses the power button, or asks the agent.
    pub fn ask_to_shut_down(&self, vmid: u32) {
        self.emit(&Power::Shutdown { vmid });
    }

    /// A hard reset: off and on again, the process stays.
    pub fn reset(&self, vmid: u32) {
        let running = self.state().vms.get(&vmid).and_then(|vm| vm.running.as_ref().map(|running| running.prelaunch));
        if running == Some(true) {
            return;
        }
        self.set_guest(vmid, None);
        self.emit(&Power::Off { vmid });
        if let Some(boot) = self.boot(vmid) {
            self.emit(&Power::On(Box::new(boot)));
        }
    }

    /// The guest switched itself off.
    pub fn guest_powered_off(&self, vmid: u32) {
        {
            let mut state = self.state();
            if let Some(vm) = state.vms.get_mut(&vmid) {
                vm.running = None;
            }
        }
        self.apply_pending(vmid);
        self.gone_off(vmid);
        self.set_guest(vmid, None);
    }
}
