//! Rules that hold for every plan, whoever made it.
//!
//! Purpose: separates "the planner works" from "this plan is sane". Run after each `make`, on every resumed run and on
//! every saved plan that is to be applied. A plan with a note is never carried out.

mod keeping;
mod upgrades;

use std::collections::{BTreeMap, BTreeSet};

use super::data::{SnapshotFrom, SnapshotSource};
use super::{Plan, Step, Undo, Verb};
use crate::types::{StepId, VmId};

/// A rule that a plan breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{about}: {what}")]
pub struct Note {
    /// The step, or the whole plan.
    pub about: String,
    /// What is wrong.
    pub what: String,
}

/// Everything that is wrong with `plan`; empty for a sane one.
pub fn lint(plan: &Plan) -> Vec<Note> {
    let mut notes = Vec::new();
    order(plan, &mut notes);
    destruction(plan, &mut notes);
    numbers(plan, &mut notes);
    bootstrap(plan, &mut notes);
    keeping::rules(plan, &mut notes);
    upgrades::rules(plan, &mut notes);
    notes
}

fn note(notes: &mut Vec<Note>, about: &StepId, what: impl Into<String>) {
    notes.push(Note { about: about.to_string(), what: what.into() });
}

/// Ids are unique, and whatever a step refers to comes before it.
fn order(plan: &Plan, notes: &mut Vec<Note>) {
    let mut earlier: BTreeSet<&StepId> = BTreeSet::new();
    for phase in &plan.phases {
        if phase.width == 0 {
            notes.push(Note { about: phase.name.clone(), what: "no step of it may ever run (width 0)".to_owned() });
        }
        for planned in &phase.steps {
            for after in planned.after.iter().chain(references(&planned.step)) {
                if !earlier.contains(after) {
                    note(notes, &planned.id, format!("it refers to {after}, which does not come before it"));
                }
            }
            if !earlier.insert(&planned.id) {
                note(notes, &planned.id, "two steps have this id");
            }
        }
    }
}

/// The steps whose output a step reads.
fn references(step: &Step) -> Vec<&StepId> {
    match step {
        Step::UploadImage { fetched, .. }
        | Step::AllocateVolume { fetched, .. }
        | Step::StreamImage { fetched, .. } => vec![fetched],
        Step::PullImage { fetched, .. } | Step::WriteLock { fetched, .. } => fetched.iter().collect(),
        Step::ProveCanary { found, .. } | Step::ApplyConfig { found, .. } | Step::AwaitMachine { found, .. } => {
            vec![found]
        }
        Step::RecoverEtcd { at, snapshot: SnapshotSource::Step(snapshot), .. } => vec![at, snapshot],
        Step::RecoverEtcd { at, .. }
        | Step::BootstrapEtcd { at, .. }
        | Step::SaveAccess { at, .. }
        | Step::RemoveStale { at, .. } => vec![at],
        Step::SaveSnapshot { from: SnapshotFrom::Kept(kept), since, .. } => since.iter().chain([kept]).collect(),
        Step::SaveSnapshot { since, .. } => since.iter().collect(),
        Step::CopySnapshot { snapshot, .. } | Step::ConfirmProof { snapshot, .. } => vec![snapshot],
        Step::StopMajority { members, .. } => vec![members],
        Step::ShutdownKept { kept, snapshot, .. } | Step::ConfirmFrozen { kept, snapshot } => vec![kept, snapshot],
        Step::ConfirmData { restored } => vec![restored],
        Step::UpgradeMachine { before, .. } | Step::RollBackMachine { before, .. } => vec![before],
        Step::AwaitUpgraded { upgraded, .. } => vec![upgraded],
        Step::ConfirmMachines { machines } => machines.iter().map(|machine| &machine.at).collect(),
        Step::AwaitHealthy { controlplanes, workers } => controlplanes.iter().chain(workers).collect(),
        _ => Vec::new(),
    }
}

/// Nothing is destroyed that is not announced, and nothing before a canary was proved.
fn destruction(plan: &Plan, notes: &mut Vec<Note>) {
    // A teardown replaces nothing: there is nothing to prove.
    let mut proved = plan.verb == Verb::Teardown;
    let mut gone = BTreeSet::new();
    for planned in plan.steps() {
        match &planned.step {
            Step::ProveCanary { .. } => proved = true,
            Step::StopMajority { machines, .. } | Step::ShutdownKept { machines, .. } => {
                for vm in machines.iter().map(|machine| &machine.vm).filter(|vm| !plan.destroys.contains(vm)) {
                    note(notes, &planned.id, format!("VM {} is not announced as destroyed", vm.vmid));
                }
                if !proved {
                    note(notes, &planned.id, "it touches the old cluster before a canary was proved");
                }
            }
            Step::ShutdownMachine { vm, .. } | Step::RetireVm { vm, .. } => {
                if !plan.destroys.contains(vm) || !plan.facts.victims.contains(vm) {
                    note(notes, &planned.id, format!("VM {} is not announced as destroyed", vm.vmid));
                }
                if !proved {
                    note(notes, &planned.id, "it touches the old cluster before a canary was proved");
                }
                if matches!(planned.step, Step::RetireVm { .. }) {
                    gone.insert(vm.vmid);
                    if !matches!(planned.undo, Undo::Irreversible { .. }) {
                        note(notes, &planned.id, "a delete must be marked as irreversible");
                    }
                }
            }
            _ => {}
        }
        if let Undo::By(undo) = &planned.undo
            && undo.is_destructive()
        {
            note(notes, &planned.id, "its undo would destroy something that the run did not make");
        }
    }
    for announced in &plan.destroys {
        if !gone.contains(&announced.vmid) {
            notes.push(Note {
                about: "plan".to_owned(),
                what: format!("VM {} is announced as destroyed and no step does it", announced.vmid),
            });
        }
    }
}

/// Every number that is created is free by the plan's own facts, or freed earlier; clones come from known templates.
fn numbers(plan: &Plan, notes: &mut Vec<Note>) {
    let mut free: BTreeSet<VmId> = plan.facts.free.iter().copied().collect();
    let mut made: BTreeMap<VmId, &str> = BTreeMap::new();
    let mut allocated = BTreeSet::new();
    let mut templates: BTreeSet<VmId> = plan.facts.templates.keys().copied().collect();
    for planned in plan.steps() {
        match &planned.step {
            Step::ConfirmGone { vmids } => free.extend(vmids),
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => {
                if !free.remove(&vm.vmid) {
                    note(notes, &planned.id, format!("number {} is not known to be free at this point", vm.vmid));
                }
                made.insert(vm.vmid, &vm.mark);
                if let Step::CloneVm { template, .. } = &planned.step
                    && !templates.contains(template)
                {
                    note(notes, &planned.id, format!("{template} is no template that this plan knows"));
                }
            }
            Step::AllocateVolume { volume, .. } => {
                allocated.insert(&volume.volume);
                if !volume.name().contains(&format!("recast-{}", plan.run)) {
                    note(notes, &planned.id, format!("{} does not carry this run's id", volume.volume));
                }
            }
            Step::StreamImage { volume, .. } | Step::FreeVolume { volume } if !allocated.contains(&volume.volume) => {
                note(notes, &planned.id, format!("{} was not allocated by an earlier step", volume.volume));
            }
            Step::SealTemplate { vm, .. } => {
                templates.insert(vm.vmid);
            }
            Step::SetHardware { vm, .. }
            | Step::SetFirewall { vm, .. }
            | Step::AddHa { vm, .. }
            | Step::MigrateVm { vm, .. }
            | Step::GrowDisk { vm, .. }
            | Step::StartVm { vm }
                if made.get(&vm.vmid) != Some(&vm.mark.as_str()) =>
            {
                note(notes, &planned.id, format!("VM {} was not made by an earlier step", vm.vmid));
            }
            Step::DeleteOurVm { vm } => {
                if templates.contains(&vm.vmid) {
                    note(notes, &planned.id, format!("VM {} is a template by now", vm.vmid));
                }
                if !vm.mark.starts_with("recast: run=") {
                    note(notes, &planned.id, format!("VM {} carries no mark of recast", vm.vmid));
                }
                made.remove(&vm.vmid);
                free.insert(vm.vmid);
            }
            _ => {}
        }
    }
}

/// etcd is bootstrapped exactly once, and by a teardown never.
fn bootstrap(plan: &Plan, notes: &mut Vec<Note>) {
    let begins = |step: &Step| matches!(step, Step::BootstrapEtcd { .. } | Step::RecoverEtcd { .. });
    let times = plan.steps().filter(|planned| begins(&planned.step)).count();
    let wanted = usize::from(plan.verb.installs());
    if times != wanted {
        notes.push(Note { about: "plan".to_owned(), what: format!("etcd would be bootstrapped {times} times") });
    }
}

#[cfg(test)]
mod tests {
    use super::super::make::make;
    use super::super::sample::{seen, wanted};
    use super::*;

    /// A way to spoil a sane plan, and a word of the note it must lead to.
    type Case = (&'static str, fn(&mut Plan), &'static str);

    fn drop_phase(plan: &mut Plan, name: &str) {
        plan.phases.retain(|phase| phase.name != name);
    }

    const SPOILED: &[Case] = &[
        ("no canary", |plan| drop_phase(plan, "canary"), "before a canary was proved"),
        ("not announced", |plan| plan.destroys.clear(), "not announced"),
        ("announced in vain", |plan| drop_phase(plan, "retire"), "no step does it"),
        ("other identity", |plan| plan.destroys[0].uuid = "other".into(), "not announced"),
        ("foreign number", |plan| plan.facts.free.clear(), "not known to be free"),
        ("too early", |plan| plan.phases.swap(5, 6), "not known to be free"),
        (
            "twice",
            |plan| {
                let again = plan.phases[8].clone();
                plan.phases.push(again);
            },
            "bootstrapped 2 times",
        ),
        ("never", |plan| drop_phase(plan, "bootstrap"), "bootstrapped 0 times"),
        ("dangling", |plan| drop_phase(plan, "image"), "refers to image/fetch"),
        (
            "template deleted",
            |plan| {
                let undo = plan
                    .steps()
                    .find_map(|planned| match &planned.undo {
                        Undo::By(undo) if matches!(**undo, Step::DeleteOurVm { .. }) => Some((**undo).clone()),
                        _ => None,
                    })
                    .unwrap();
                let last = plan.phases.last_mut().unwrap();
                last.steps[0].step = undo;
            },
            "is a template by now",
        ),
        (
            "undo that destroys",
            |plan| {
                let retire =
                    plan.steps().find(|planned| matches!(planned.step, Step::RetireVm { .. })).unwrap().step.clone();
                plan.phases[1].steps[0].undo = Undo::By(Box::new(retire));
            },
            "its undo would destroy",
        ),
    ];

    #[test]
    fn each_spoiled_plan_is_noticed() {
        for (name, spoil, word) in SPOILED {
            let mut plan = make(&wanted(), &seen()).unwrap();
            assert_eq!(lint(&plan), []);
            spoil(&mut plan);
            let notes = lint(&plan);
            assert!(notes.iter().any(|note| note.what.contains(word)), "{name}: {notes:?}");
        }
    }
}
