//! The processes of a node that somebody may send a signal: guests and tasks.
//!
//! Purpose: what becomes of them then. Must not know: who sends it. Start at [`World::send_signal`].

use super::World;
use super::rights::Caller;

/// A signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nothing but the question whether there is such a process.
    Nothing,
    /// A wish that it end; it tidies up.
    Terminate,
    /// An end in the middle of what it does.
    Kill,
}

enum Process {
    Guest(u32),
    Task(String),
}

impl World {
    fn process(&self, node: &str, pid: u32) -> Option<Process> {
        let state = self.state();
        let is_it = |vm: &super::state::Vm| vm.running.as_ref().is_some_and(|running| running.pid == pid);
        if let Some((vmid, _)) = state.vms.iter().find(|(_, vm)| vm.node == node && is_it(vm)) {
            return Some(Process::Guest(*vmid));
        }
        let mut tasks = state.tasks.by_upid.values();
        let task = tasks.find(|task| task.node == node && task.pid == pid && task.status.is_none());
        task.map(|task| Process::Task(task.upid.clone()))
    }

    /// Sends a signal to a process of a node. Whether there is such a one.
    pub fn send_signal(&self, node: &str, pid: u32, signal: Signal) -> bool {
        match (self.process(node, pid), signal) {
            (None, _) => return false,
            (Some(_), Signal::Nothing) => {}
            (Some(Process::Guest(vmid)), _) => {
                self.tell(&Caller::root(), "stop", Some(vmid), Some("kill"));
                self.switch_off(vmid);
            }
            (Some(Process::Task(upid)), Signal::Terminate) => self.stop_task(&upid),
            (Some(Process::Task(upid)), Signal::Kill) => self.kill_task(&upid),
        }
        true
    }
}
