//! Rules for plans that keep the old cluster's data: nothing is deleted without a proof that it can be had back.

use std::collections::BTreeSet;

use super::{Note, note};
use crate::plan::data::{Purpose, SnapshotFrom, SnapshotSource};
use crate::plan::{Data, Plan, Planned, Step, Undo};
use crate::types::{StepId, VmId};

pub(super) fn rules(plan: &Plan, notes: &mut Vec<Note>) {
    data_and_steps(plan, notes);
    if matches!(plan.data, Data::Keep(_)) && !plan.verb.reboots() {
        proofs(plan, notes);
        shutdowns(plan, notes);
        frozen(plan, notes);
    }
}

fn about_plan(notes: &mut Vec<Note>, what: &str) {
    notes.push(Note { about: "plan".to_owned(), what: what.to_owned() });
}

/// Etcd begins as the plan says that it does.
fn data_and_steps(plan: &Plan, notes: &mut Vec<Note>) {
    for planned in plan.steps() {
        match (&planned.step, &plan.data) {
            (Step::BootstrapEtcd { .. }, Data::Keep(_) | Data::Restore { .. }) => {
                note(notes, &planned.id, "etcd would begin empty although its data are to be had back");
            }
            (Step::RecoverEtcd { snapshot: SnapshotSource::Step(from), .. }, Data::Keep(_))
                if is_snapshot(plan, from, Purpose::Final) => {}
            (
                Step::RecoverEtcd { snapshot: SnapshotSource::File { path, sha256 }, .. },
                Data::Restore { file, proof },
            ) if path == file && *sha256 == proof.sha256 => {}
            (Step::RecoverEtcd { .. }, _) => {
                note(notes, &planned.id, "etcd would be recovered from another snapshot than the plan's");
            }
            _ => {}
        }
    }
}

fn find<'p>(plan: &'p Plan, id: &StepId) -> Option<&'p Planned> {
    plan.steps().find(|planned| planned.id == *id)
}

fn is_snapshot(plan: &Plan, id: &StepId, wanted: Purpose) -> bool {
    find(plan, id)
        .is_some_and(|planned| matches!(&planned.step, Step::SaveSnapshot { purpose, .. } if *purpose == wanted))
}

fn is_majority(plan: &Plan, id: &StepId) -> bool {
    find(plan, id).is_some_and(|planned| matches!(planned.step, Step::StopMajority { .. }))
}

/// The index of the phase of a step.
fn phase_of(plan: &Plan, id: &StepId) -> Option<usize> {
    plan.phases.iter().position(|phase| phase.steps.iter().any(|planned| planned.id == *id))
}

/// Whether `before` is done whenever `id` may begin.
fn comes_before(plan: &Plan, before: &StepId, id: &StepId) -> bool {
    let (Some(first), Some(second)) = (phase_of(plan, before), phase_of(plan, id)) else { return false };
    if first != second {
        return first < second;
    }
    let mut todo: Vec<&StepId> = vec![id];
    let mut seen: BTreeSet<&StepId> = BTreeSet::new();
    while let Some(next) = todo.pop() {
        for after in find(plan, next).into_iter().flat_map(|planned| &planned.after) {
            if after == before {
                return true;
            }
            if seen.insert(after) {
                todo.push(after);
            }
        }
    }
    false
}

/// One proof before the old cluster is touched, one when no write can be acknowledged any more, in that order.
fn proofs(plan: &Plan, notes: &mut Vec<Note>) {
    let Some(first) = only(plan, notes, "snapshot from before", |step| {
        matches!(step, Step::SaveSnapshot { purpose: Purpose::Before, from: SnapshotFrom::Leader(_), .. })
    }) else {
        return;
    };
    let Some(last) =
        only(plan, notes, "final snapshot", |step| matches!(step, Step::SaveSnapshot { purpose: Purpose::Final, .. }))
    else {
        return;
    };
    match &last.step {
        Step::SaveSnapshot { from: SnapshotFrom::Kept(kept), since: Some(since), .. }
            if is_majority(plan, kept) && comes_before(plan, kept, &last.id) && *since == first.id => {}
        _ => note(notes, &last.id, "the final snapshot does not follow the step that takes quorum away"),
    }
    for planned in plan.steps().filter(|planned| planned.step.is_destructive()) {
        if !comes_before(plan, &first.id, &planned.id) {
            note(notes, &planned.id, "it touches the old cluster before the proof of backup");
        }
    }
    if let Data::Keep(keep) = &plan.data
        && keep.require_copy
    {
        for of in [first, last] {
            let copied =
                |planned: &Planned| matches!(&planned.step, Step::CopySnapshot { snapshot, .. } if *snapshot == of.id);
            if !plan.steps().any(copied) {
                note(notes, &of.id, "no second copy of it is made, and one is required");
            }
        }
    }
}

/// The one step of a kind; notes where there is none or several.
fn only<'p>(plan: &'p Plan, notes: &mut Vec<Note>, what: &str, is: impl Fn(&Step) -> bool) -> Option<&'p Planned> {
    let mut found = plan.steps().filter(|planned| is(&planned.step));
    match (found.next(), found.next()) {
        (Some(one), None) => Some(one),
        (None, _) => {
            about_plan(notes, &format!("nothing makes the {what}"));
            None
        }
        (Some(_), Some(_)) => {
            about_plan(notes, &format!("several steps make the {what}"));
            None
        }
    }
}

/// Control planes go down only where etcd's leader is kept, and whatever goes down can be started again.
fn shutdowns(plan: &Plan, notes: &mut Vec<Note>) {
    let control: BTreeSet<VmId> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::StopMajority { machines, .. } => Some(machines.iter().map(|machine| machine.vm.vmid)),
            _ => None,
        })
        .flatten()
        .collect();
    for planned in plan.steps() {
        let down: Vec<VmId> = match &planned.step {
            Step::ShutdownMachine { vm, .. } => vec![vm.vmid],
            Step::StopMajority { machines, .. } | Step::ShutdownKept { machines, .. } => {
                machines.iter().map(|machine| machine.vm.vmid).collect()
            }
            _ => continue,
        };
        if matches!(planned.step, Step::ShutdownMachine { .. }) && down.iter().any(|vmid| control.contains(vmid)) {
            note(notes, &planned.id, "a control plane would go down without a look at etcd");
        }
        let back: Vec<VmId> = match &planned.undo {
            Undo::By(undo) => match &**undo {
                Step::StartOld { machines } => machines.iter().map(|machine| machine.vm.vmid).collect(),
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        if !down.iter().all(|vmid| back.contains(vmid)) {
            note(notes, &planned.id, "its undo does not start what it shuts down");
        }
    }
}

/// Nothing is deleted before the final proof, the last shutdown, and one more look at everything.
fn frozen(plan: &Plan, notes: &mut Vec<Note>) {
    let look = plan.steps().find(|planned| matches!(planned.step, Step::ConfirmFrozen { .. }));
    let stopped = |planned: &&Planned| matches!(planned.step, Step::ShutdownKept { .. } | Step::ShutdownMachine { .. });
    if let Some(look) = look {
        for planned in plan.steps().filter(stopped) {
            if !comes_before(plan, &planned.id, &look.id) {
                note(notes, &look.id, format!("it looks before {} is done", planned.id));
            }
        }
        if let Step::ConfirmFrozen { snapshot, kept } = &look.step
            && !(is_snapshot(plan, snapshot, Purpose::Final) && is_majority(plan, kept))
        {
            note(notes, &look.id, "it does not stand on the final snapshot");
        }
    }
    for planned in plan.steps().filter(|planned| matches!(planned.step, Step::RetireVm { .. })) {
        if !look.is_some_and(|look| comes_before(plan, &look.id, &planned.id)) {
            note(notes, &planned.id, "it deletes without a look whether the old cluster is still frozen");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::lint;
    use super::*;
    use crate::plan::make::make;
    use crate::plan::sample::{keeping, seen_of_five};

    /// A way to spoil a sane plan, and a word of the note it must lead to.
    type Case = (&'static str, fn(&mut Plan), &'static str);

    fn step<'p>(plan: &'p mut Plan, id: &str) -> &'p mut Planned {
        plan.phases.iter_mut().flat_map(|phase| &mut phase.steps).find(|planned| planned.id.as_str() == id).unwrap()
    }

    fn drop_step(plan: &mut Plan, id: &str) {
        for phase in &mut plan.phases {
            phase.steps.retain(|planned| planned.id.as_str() != id);
            for planned in &mut phase.steps {
                planned.after.retain(|after| after.as_str() != id);
            }
        }
    }

    const SPOILED: &[Case] = &[
        (
            "no backup",
            |plan| plan.phases.retain(|phase| phase.name != "backup"),
            "nothing makes the snapshot from before",
        ),
        ("no final snapshot", |plan| drop_step(plan, "freeze/snapshot"), "nothing makes the final snapshot"),
        ("no look", |plan| drop_step(plan, "retire/frozen"), "without a look whether"),
        ("quorum kept", |plan| drop_step(plan, "freeze/majority"), "takes quorum away"),
        ("too early", |plan| step(plan, "freeze/snapshot").after.clear(), "takes quorum away"),
        (
            "from before",
            |plan| {
                let id = "bootstrap/etcd";
                if let Step::RecoverEtcd { snapshot, .. } = &mut step(plan, id).step {
                    *snapshot = SnapshotSource::Step("backup/snapshot".into());
                }
            },
            "from another snapshot than the plan's",
        ),
        (
            "empty etcd",
            |plan| {
                let planned = step(plan, "bootstrap/etcd");
                if let Step::RecoverEtcd { machine, at, .. } = planned.step.clone() {
                    planned.step = Step::BootstrapEtcd { machine, at };
                }
            },
            "would begin empty",
        ),
        ("no way back", |plan| step(plan, "freeze/majority").undo = Undo::Nothing, "does not start what it shuts down"),
        (
            "half a way back",
            |plan| {
                if let Undo::By(undo) = &mut step(plan, "freeze/majority").undo
                    && let Step::StartOld { machines } = &mut **undo
                {
                    machines.pop();
                }
            },
            "does not start what it shuts down",
        ),
        (
            "control plane as a worker",
            |plan| {
                let Step::StopMajority { machines, grace, .. } = step(plan, "freeze/majority").step.clone() else {
                    return;
                };
                step(plan, "freeze/lab-worker-01/shutdown").step =
                    Step::ShutdownMachine { vm: machines[0].vm.clone(), address: None, grace };
            },
            "without a look at etcd",
        ),
        (
            "looks too early",
            |plan| {
                let look = step(plan, "retire/frozen").clone();
                drop_step(plan, "retire/frozen");
                let freeze = plan.phases.iter_mut().find(|phase| phase.name == "freeze").unwrap();
                freeze.steps.push(look);
            },
            "it looks before",
        ),
        (
            "copy required",
            |plan| {
                if let Data::Keep(keep) = &mut plan.data {
                    keep.require_copy = true;
                }
            },
            "no second copy",
        ),
        (
            "touched too early",
            |plan| {
                let freeze = plan.phases.iter().position(|phase| phase.name == "freeze").unwrap();
                plan.phases.swap(freeze, freeze - 1);
            },
            "before the proof of backup",
        ),
    ];

    #[test]
    fn each_plan_that_could_lose_data_is_noticed() {
        for (name, spoil, word) in SPOILED {
            let mut plan = make(&keeping(), &seen_of_five()).unwrap();
            assert_eq!(lint(&plan), []);
            spoil(&mut plan);
            let notes = lint(&plan);
            assert!(notes.iter().any(|note| note.what.contains(word)), "{name}: {notes:#?}");
        }
    }

    #[test]
    fn a_rebuild_that_keeps_data_has_its_steps_in_the_order_of_the_design() {
        let plan = make(&keeping(), &seen_of_five()).unwrap();
        let of = |name: &str| -> Vec<String> {
            let phase = plan.phases.iter().find(|phase| phase.name == name).unwrap();
            phase.steps.iter().map(|planned| planned.id.to_string()).collect()
        };
        assert_eq!(of("backup"), ["backup/state", "backup/snapshot"]);
        assert_eq!(
            of("freeze"),
            [
                "freeze/proof",
                "freeze/sound",
                "freeze/ha",
                "freeze/lab-worker-01/shutdown",
                "freeze/lab-worker-02/shutdown",
                "freeze/majority",
                "freeze/snapshot",
                "freeze/kept"
            ]
        );
        assert_eq!(of("retire")[0], "retire/frozen");
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
