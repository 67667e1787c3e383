//! Phase `retire`: the old machines are deleted.

use super::freeze::{FINAL, KEPT};
use crate::plan::fates::forgets;
use crate::plan::make::{Draft, irreversible, planned};
use crate::plan::{Data, Phase, Planned, Step};
use crate::types::StepId;

/// Looks once more whether all is as it was frozen, deletes the old machines and confirms on all nodes that they are
/// gone.
pub(in crate::plan) fn retire(draft: &Draft<'_>) -> Option<Phase> {
    if draft.victims.is_empty() {
        return None;
    }
    let frozen = matches!(draft.wanted.data, Data::Keep(_)).then(|| {
        let step = Step::ConfirmFrozen { kept: KEPT.into(), snapshot: FINAL.into() };
        planned("retire/frozen", step, &[])
    });
    let after: Vec<&StepId> = frozen.iter().map(|planned| &planned.id).collect();
    let deletes: Vec<Planned> = draft
        .victims
        .iter()
        .map(|old| {
            let step = Step::RetireVm { vm: old.identity.clone(), purge: forgets(old) };
            irreversible(planned(format!("retire/{}/delete", old.identity.name), step, &after), "its disks are gone")
        })
        .collect();
    let ids: Vec<&StepId> = deletes.iter().map(|step| &step.id).collect();
    let vmids = draft.victims.iter().map(|old| old.identity.vmid).collect();
    let gone = planned("retire/gone", Step::ConfirmGone { vmids }, &ids);
    let steps = frozen.iter().chain(&deletes).chain([&gone]).cloned().collect();
    Some(Phase { name: "retire".to_owned(), steps, width: 4 })
}
