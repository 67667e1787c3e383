//! Phases `freeze` and `retire`: the old machines are shut down, then deleted.

use crate::plan::make::{Draft, irreversible, planned};
use crate::plan::{Phase, Step};
use crate::types::StepId;

/// Shuts the old machines down, workers first. Nothing to do where none is there.
pub(in crate::plan) fn freeze(draft: &Draft<'_>) -> Option<Phase> {
    let mut steps = Vec::new();
    let mut before: Option<StepId> = None;
    for old in &draft.victims {
        let vm = old.identity.clone();
        let address = draft.wanted.vms.iter().find(|vm| vm.name == old.identity.name).and_then(|vm| vm.address);
        let step = Step::ShutdownMachine { vm, address, grace: draft.wanted.limits.shutdown };
        let planned =
            planned(format!("freeze/{}/shutdown", old.identity.name), step, &before.iter().collect::<Vec<_>>());
        before = Some(planned.id.clone());
        steps.push(planned);
    }
    (!steps.is_empty()).then(|| Phase { name: "freeze".to_owned(), steps, width: 1 })
}

/// Deletes the old machines and confirms on all nodes that they are gone.
pub(in crate::plan) fn retire(draft: &Draft<'_>) -> Option<Phase> {
    let mut steps: Vec<_> = draft
        .victims
        .iter()
        .map(|old| {
            let step = Step::RetireVm { vm: old.identity.clone() };
            irreversible(planned(format!("retire/{}/delete", old.identity.name), step, &[]), "its disks are gone")
        })
        .collect();
    if steps.is_empty() {
        return None;
    }
    let ids: Vec<_> = steps.iter().map(|step| step.id.clone()).collect();
    let vmids = draft.victims.iter().map(|old| old.identity.vmid).collect();
    steps.push(planned("retire/gone", Step::ConfirmGone { vmids }, &ids.iter().collect::<Vec<_>>()));
    Some(Phase { name: "retire".to_owned(), steps, width: 4 })
}
