//! The looks before and after the freeze: is it the cluster that was planned, and is it still as it was frozen?

use std::fmt::Write as _;

use super::look::{Changed, control};
use super::{PHASE, kept};
use crate::engine::{StepCx, StepError};
use crate::plan::data::{OldMachine, Purpose};
use crate::plan::step::VmIdentity;
use crate::plan::{Data, Output, Step};
use crate::pve::PveError;
use crate::steps::World;
use crate::steps::classify::{refused, wrong};
use crate::types::StepId;

/// What is to be done about a cluster that does not hold still.
const NEVERTHELESS: &str = "nothing more is deleted";

impl World {
    /// The old cluster is all there, the one that was planned, and its etcd is sound: nothing was touched so far.
    pub(in crate::steps) async fn confirm_old(
        &self,
        machines: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "look whether the old cluster is all there and sound";
        let vms: Vec<VmIdentity> = machines.iter().map(|old| old.vm.clone()).collect();
        let mut wrong_with = Vec::new();
        for (vm, changed) in vms.iter().zip(self.changed(doing, &vms).await?) {
            match changed {
                Changed::Not => {
                    if self.is_stopped(vm).await? {
                        wrong_with.push(format!("VM {} ({}) is stopped", vm.vmid, vm.name));
                    }
                }
                Changed::Gone => wrong_with.push(format!("VM {} ({}) is gone", vm.vmid, vm.name)),
                Changed::Other(ways) => {
                    wrong_with.push(format!("VM {} ({}): {}", vm.vmid, vm.name, ways.join("; ")));
                }
            }
        }
        if !wrong_with.is_empty() {
            return Err(refused(doing, wrong_with.join("; "))
                .hinted("put it right and resume, or make a new plan: the old cluster was not touched"));
        }
        let members = self.members_before(cx).ok_or_else(|| wrong(doing, "etcd's members were not saved before"))?;
        self.sound(doing, &control(machines), Some(&members), cx).await?;
        Ok(Output::Nothing)
    }

    /// The proof of backup is young enough; else the phase that makes it is opened again.
    pub(in crate::steps) fn confirm_proof(
        snapshot: &StepId,
        max_age: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "look at the proof of backup";
        let Some(Output::Snapshot { taken, file, .. }) = cx.output_of(snapshot) else {
            return Err(wrong(doing, format!("{snapshot} has saved nothing")));
        };
        let age = cx.now().duration_since(*taken).as_secs();
        if age.unsigned_abs() <= max_age && file.is_file() {
            return Ok(Output::Nothing);
        }
        let what = if file.is_file() {
            format!("the snapshot of the backup is {age} s old, and {max_age} s are allowed")
        } else {
            format!("the snapshot of the backup is not at {} any more", file.display())
        };
        Err(refused(doing, what).reopening("backup"))
    }

    /// All is as it was frozen.
    pub(in crate::steps) async fn confirm_frozen(&self, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.still_frozen("look whether the old cluster is still frozen", cx).await.map(|()| Output::Nothing)
    }

    /// Whether nobody started, changed or replaced an old VM since the freeze: all of them are looked at, whichever is
    /// about to be deleted. Where something was, the freeze is opened again; once something is gone, the run stops.
    pub(in crate::steps) async fn still_frozen(&self, doing: &str, cx: &StepCx<'_>) -> Result<(), StepError> {
        let Data::Keep(_) = self.plan.data else { return Ok(()) };
        let majority = self.plan.steps().find(|planned| matches!(planned.step, Step::StopMajority { .. }));
        let majority = majority.ok_or_else(|| wrong(doing, "the plan froze nothing"))?;
        let kept = kept(doing, &majority.id, cx)?;
        let victims = &self.plan.facts.victims;
        let (mut found, mut gone, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for (vm, changed) in victims.iter().zip(self.changed(doing, victims).await?) {
            let label = format!("VM {} ({})", vm.vmid, vm.name);
            match changed {
                Changed::Gone => {
                    gone.push(label);
                    continue;
                }
                Changed::Other(ways) => found.push(format!("{label}: {}", ways.join("; "))),
                Changed::Not => {}
            }
            match self.is_stopped(vm).await {
                Ok(true) => {}
                Ok(false) => found.push(format!("{label} runs: someone started it after it was shut down")),
                // Between the two looks its own step has deleted it: VMs are deleted side by side.
                Err(error) if error.source.downcast_ref::<PveError>().is_some_and(|why| why.is_missing_vm(vm.vmid)) => {
                    gone.push(label);
                    continue;
                }
                Err(error) => return Err(error),
            }
            left.push(vm.clone());
        }
        for task in self.starts(&left).await? {
            if !kept.starts.contains(&task) {
                found.push(format!("a task started a VM after the freeze ({task})"));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        let mut what = found.join("; ");
        if gone.is_empty() {
            return Err(refused(doing, what).reopening(PHASE).hinted("find out who did that before you resume"));
        }
        let _ = write!(what, "; deleted already: {}", gone.join(", "));
        let mut error = refused(doing, what).hinted(format!(
            "{NEVERTHELESS}: look what the VMs that are left hold. Those that are not needed can be deleted by hand; then \
             resume goes on"
        ));
        if let Some(place) = self.final_snapshot(cx) {
            error = error.hinted(place);
        }
        Err(error)
    }

    /// Where the last word of etcd lies, in words.
    fn final_snapshot(&self, cx: &StepCx<'_>) -> Option<String> {
        let is_final = |step: &Step| matches!(step, Step::SaveSnapshot { purpose: Purpose::Final, .. });
        let step = self.plan.steps().find(|planned| is_final(&planned.step))?;
        match cx.output_of(&step.id)? {
            Output::Snapshot { file, revision, keys, .. } => {
                Some(format!("the final snapshot is {} (revision {revision}, {keys} keys)", file.display()))
            }
            _ => None,
        }
    }
}
