//! Where a run that stopped leaves the old cluster, in sentences.
//!
//! Must not know: what comes after. Start reading at [`old_cluster`].

use super::fold::Progress;
use super::text;
use crate::plan::step::VmIdentity;
use crate::plan::{Data, Plan, Planned, Step, Verb};

/// What became of the old machines, by the steps that stop and delete them; `resume` is the command that goes on.
pub(super) fn old_cluster(plan: &Plan, progress: &Progress, resume: Option<&str>) -> Vec<String> {
    let begun = |planned: &&Planned| {
        progress.done(&planned.id).is_some()
            || progress.unknown.contains(&planned.id)
            || progress.failures.iter().any(|failed| failed.step == planned.id)
    };
    let undone = |planned: &Planned| progress.undone.contains(&planned.id);
    let there = |planned: &&Planned| !undone(planned);
    let touched: Vec<&Step> = plan.steps().filter(begun).filter(there).map(|planned| &planned.step).collect();
    let untouched = !touched.iter().any(|step| step.is_destructive());
    if untouched && plan.steps().any(|planned| planned.step.is_destructive() && undone(planned)) {
        return vec!["The old cluster was started again.".to_owned()];
    }
    if !plan.destroys.is_empty() && untouched {
        return vec!["The old cluster has not been touched.".to_owned()];
    }
    let retiring =
        |vm: &VmIdentity| touched.iter().any(|step| matches!(step, Step::RetireVm { vm: old, .. } if old == vm));
    let stopping = |vm: &VmIdentity| {
        touched.iter().any(|step| match step {
            Step::ShutdownMachine { vm: old, .. } => old == vm,
            Step::StopMajority { machines, .. } | Step::ShutdownKept { machines, .. } => {
                machines.iter().any(|old| old.vm == *vm)
            }
            _ => false,
        })
    };
    let gone = |vm: &VmIdentity| {
        plan.steps().any(|planned| {
            progress.done(&planned.id).is_some()
                && matches!(&planned.step, Step::RetireVm { vm: old, .. } if old.vmid == vm.vmid)
        })
    };
    let left: Vec<&VmIdentity> = plan.destroys.iter().filter(|vm| !gone(vm)).collect();
    let mut lines = Vec::new();
    for vm in &left {
        let state = match (retiring(vm), stopping(vm)) {
            (true, _) => "was to be deleted, and may be gone",
            (false, true) => "is there, shut down or about to be",
            (false, false) => "is there, untouched",
        };
        lines.push(format!("Old VM {} ({}) on {} {state}", vm.vmid, vm.name, vm.node));
    }
    let whole = left.len() == plan.destroys.len() && !left.iter().any(|vm| retiring(vm));
    // What was shut down can be started, what was deleted with its data saved can be made anew.
    let kept = plan.verb == Verb::Rebuild && matches!(plan.data, Data::Keep(_));
    if (whole && left.iter().any(|vm| stopping(vm))) || (!whole && kept) {
        // It takes what the command that goes on does.
        let resume = resume.map_or_else(|| format!("recast resume {}", plan.run), str::to_owned);
        let back = resume.replacen("recast resume", "recast rollback", 1);
        lines.push(format!("The way back to the old cluster: {back}"));
    }
    lines
}

/// Whether the Kubernetes API answers, and for how long it did not.
pub(super) fn api(progress: &Progress) -> Option<String> {
    let down = text::seconds(progress.api_downtime_seconds?);
    Some(if progress.api_up? {
        format!("The Kubernetes API answers; it was down for {down}")
    } else {
        format!("The Kubernetes API is down, for {down} when the run ended")
    })
}
