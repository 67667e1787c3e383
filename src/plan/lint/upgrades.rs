//! Rules for plans that reboot the cluster's own machines: quorum survives, the proof comes first, nothing goes twice.

use std::collections::BTreeSet;

use super::{Note, note};
use crate::plan::data::Purpose;
use crate::plan::upgrade::{By, Member, Release, Way};
use crate::plan::{Plan, Planned, Step};
use crate::types::{MachineName, Role, SchematicId, StepId, Version};

/// What a step reboots, into what, and by what.
struct Goes<'p> {
    machine: &'p Member,
    release: Option<&'p Release>,
    by: By,
}

fn goes(step: &Step) -> Option<Goes<'_>> {
    match step {
        Step::UpgradeMachine { machine, release, .. } => {
            Some(Goes { machine, release: Some(release), by: By::Installer })
        }
        Step::RollBackMachine { machine, release, by, .. } => {
            Some(Goes { machine, release: release.as_ref(), by: *by })
        }
        _ => None,
    }
}

pub(super) fn rules(plan: &Plan, notes: &mut Vec<Note>) {
    if !plan.verb.reboots() {
        for planned in plan.steps().filter(|planned| goes(&planned.step).is_some()) {
            note(notes, &planned.id, format!("a {} reboots no machine of the cluster", plan.verb));
        }
        return;
    }
    if plan.steps().any(|planned| matches!(planned.step, Step::RetireVm { .. } | Step::CloneVm { .. })) {
        notes.push(Note { about: "plan".to_owned(), what: format!("a {} makes or deletes no VM", plan.verb) });
    }
    before(plan, notes);
    one_by_one(plan, notes);
    once(plan, notes);
    downwards(plan, notes);
}

/// A proof of backup is there, and the machine was looked at, before the first one goes down.
fn before(plan: &Plan, notes: &mut Vec<Note>) {
    let mut proved = false;
    let mut pulled: BTreeSet<(&MachineName, &Version, &SchematicId)> = BTreeSet::new();
    let mut watched: BTreeSet<&StepId> = BTreeSet::new();
    for phase in &plan.phases {
        for Planned { id, step, .. } in &phase.steps {
            match step {
                Step::MeetMachine { .. } => drop(watched.insert(id)),
                Step::PullInstaller { machine, release } => {
                    pulled.insert((&machine.name, &release.version, &release.schematic));
                }
                Step::UpgradeMachine { before, .. } | Step::RollBackMachine { before, .. } => {
                    if !watched.contains(before) {
                        note(notes, id, format!("{before} does not say which boot it was in"));
                    }
                    watched.insert(id);
                }
                _ => {}
            }
            let Some(goes) = goes(step) else { continue };
            let has = |release: &Release| pulled.contains(&(&goes.machine.name, &release.version, &release.schematic));
            if goes.by == By::Installer && !goes.release.is_some_and(has) {
                note(notes, id, "its installer is not pulled before it goes down");
            }
            if !proved {
                note(notes, id, "it goes down before the proof of backup");
            }
        }
        let proves = |planned: &Planned| matches!(planned.step, Step::SaveSnapshot { purpose: Purpose::Before, .. });
        proved |= phase.steps.iter().any(proves);
    }
}

/// Never two control planes at once, and no worker beside one; each is steady before the next goes down.
fn one_by_one(plan: &Plan, notes: &mut Vec<Note>) {
    for phase in &plan.phases {
        let roles: BTreeSet<Role> =
            phase.steps.iter().filter_map(|planned| goes(&planned.step)).map(|goes| goes.machine.role).collect();
        if roles.contains(&Role::ControlPlane) && (phase.width != 1 || roles.len() > 1) {
            let what = "control planes go down one at a time, and with nothing else".to_owned();
            notes.push(Note { about: phase.name.clone(), what });
        }
        let mut down: Option<&StepId> = None;
        for Planned { id, step, .. } in &phase.steps {
            if let Some(goes) = goes(step) {
                if let Some(other) = down.filter(|_| goes.machine.role == Role::ControlPlane) {
                    note(notes, id, format!("it goes down before the machine of {other} is steady again"));
                }
                down = Some(id);
            }
            if let Step::AwaitUpgraded { upgraded, .. } = step
                && down == Some(upgraded)
            {
                down = None;
            }
        }
    }
}

/// No machine goes to the same release twice.
fn once(plan: &Plan, notes: &mut Vec<Note>) {
    let mut seen = BTreeSet::new();
    for planned in plan.steps() {
        let Some(Goes { machine, release, .. }) = goes(&planned.step) else { continue };
        let to = release.map(|release| (release.version.clone(), release.schematic.clone()));
        if !seen.insert((&machine.name, to)) {
            note(notes, &planned.id, format!("{} goes there twice", machine.name));
        }
    }
}

/// A way back never brings a machine forward, and never loses what is on it.
fn downwards(plan: &Plan, notes: &mut Vec<Note>) {
    for planned in plan.steps() {
        if let Step::RollBackMachine { machine, release: Some(release), by: By::Installer, manner, .. } = &planned.step
            && release.version.minor() <= (1, 7)
            && matches!(manner.way, Way::Whole { keep: false, .. })
        {
            let what = format!("the installer of Talos {} would wipe {}'s data", release.version, machine.name);
            note(notes, &planned.id, what);
        }
        if let Step::RollBackMachine { machine, from, release: Some(release), .. } = &planned.step
            && release.version > *from
        {
            let what = format!("{} runs Talos {from}, and {} is no way back from it", machine.name, release.version);
            note(notes, &planned.id, what);
        }
    }
}
