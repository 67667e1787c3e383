//! The phases of a way back from upgrades in place: check, backup, per hop what has to be pulled, control planes, workers; then
//! verify and finish. Machines that are not well go first in every hop, in phases of their own; and one that an earlier hop
//! left unwell takes its first step before all others, since nothing else may go down while it is so.

use std::collections::BTreeMap;

use crate::plan::make::planned;
use crate::plan::upgrade::back::Return;
use crate::plan::upgrade::descent::{Descent, Fall};
use crate::plan::upgrade::{Asked, By, Manner, Member, SeenCluster, Way};
use crate::plan::{Phase, Planned, Step, Versions};
use crate::types::{Cordon, MachineName, Role, StepId};

use super::backup;
use super::upgrade::{ACCESS, AHEAD, drains, emptied, health, looks, met, settled};

/// A machine with its step back.
type Faller<'a> = (&'a Member, &'a Fall);

/// All phases in order.
pub(in crate::plan) fn all(asked: &Asked, seen: &SeenCluster, goes: &Return<'_>, after: &Versions) -> Vec<Phase> {
    let mut phases = vec![check(asked, seen, goes), backup::of(&asked.keep, &seen.machines)];
    phases.extend(rewrite(seen, goes));
    let descents = &goes.way.descents;
    let fallers: Vec<Vec<Faller<'_>>> = descents.iter().map(|descent| fallers(seen, descent)).collect();
    let label = |descent: &Descent| if descents.len() > 1 { format!("-from-{}", descent.of) } else { String::new() };
    // An image that can't be had must not be found out half-way. Each hop pulls its own again, since Talos throws away what
    // lies unused for a while. A machine that is not well pulls when it is back.
    let ahead = descents.iter().zip(&fallers).skip(1).flat_map(|(descent, fallers)| {
        let well = fallers.iter().copied().filter(|(member, _)| !goes.unwell.contains(&member.name));
        pulls(&format!("{AHEAD}/{}", descent.of), well)
    });
    let ahead: Vec<Planned> = ahead.collect();
    if !ahead.is_empty() {
        phases.push(Phase { name: AHEAD.to_owned(), steps: ahead, width: 8 });
    }
    // The step that last saw which boot each machine is in.
    let mut boots: BTreeMap<MachineName, StepId> =
        seen.members.iter().map(|seen| (seen.member.name.clone(), met(&seen.member))).collect();
    let late = late(goes, &fallers);
    for (descent, first) in descents.iter().zip(&late) {
        phases.extend(hop(asked, seen, goes, first, &format!("-first{}", label(descent)), &mut boots));
    }
    for ((descent, fallers), first) in descents.iter().zip(&fallers).zip(&late) {
        let is_first = |member: &Member| first.iter().any(|(other, _)| other.name == member.name);
        let rest: Vec<Faller<'_>> = fallers.iter().copied().filter(|(member, _)| !is_first(member)).collect();
        phases.extend(hop(asked, seen, goes, &rest, &label(descent), &mut boots));
    }
    let health = health(seen, "verify/health", &[]);
    let workloads = planned("verify/workloads", Step::CompareWorkloads, &[&health.id]);
    phases.push(Phase { name: "verify".to_owned(), steps: vec![health, workloads], width: 1 });
    phases.push(finish(asked, seen, goes, after));
    phases
}

/// Of each hop, the machines that are not well and take no step in a later one: behind the first, they would have to wait
/// for machines that may not go down before they are well.
fn late<'a>(goes: &Return<'_>, fallers: &[Vec<Faller<'a>>]) -> Vec<Vec<Faller<'a>>> {
    let takes = |all: &[Faller<'a>], name: &MachineName| all.iter().any(|(member, _)| member.name == *name);
    let of = |(place, all): (usize, &Vec<Faller<'a>>)| {
        let is_late = |member: &Member| {
            let before = fallers[..place].iter().any(|all| takes(all, &member.name));
            place > 0 && goes.unwell.contains(&member.name) && !before
        };
        all.iter().copied().filter(|(member, _)| is_late(member)).collect()
    };
    fallers.iter().enumerate().map(of).collect()
}

fn fallers<'a>(seen: &'a SeenCluster, descent: &'a Descent) -> Vec<Faller<'a>> {
    let of = |fall: &'a Fall| {
        let seen = seen.members.iter().find(|seen| seen.member.name == fall.machine)?;
        Some((&seen.member, fall))
    };
    descent.falls.iter().filter_map(of).collect()
}

/// The plan's facts, and the cluster is well. What a run that stopped left cordoned takes pods again first, since Talos' health
/// checks don't pass a node that doesn't; where a machine that goes back is not well, the cluster can't be.
fn check(asked: &Asked, seen: &SeenCluster, goes: &Return<'_>) -> Phase {
    let mut steps = looks(seen);
    let mut after: Vec<StepId> = seen.members.iter().map(|seen| met(&seen.member)).collect();
    for left in seen.members.iter().filter(|seen| matches!(seen.cordon, Cordon::Marked { .. })) {
        let name = &left.member.name;
        // It is emptied next, and let in again when it is back.
        if goes.unwell.contains(name) && drains(asked, seen).is_some() {
            continue;
        }
        let step = Step::UncordonNode { machine: left.member.clone() };
        let lift = planned(format!("check/{name}/uncordon"), step, &[&StepId::new(ACCESS), &met(&left.member)]);
        after.push(lift.id.clone());
        steps.push(lift);
    }
    if goes.unwell.is_empty() {
        steps.push(health(seen, "check/health", &after.iter().collect::<Vec<_>>()));
    }
    Phase { name: "check".to_owned(), steps, width: 8 }
}

/// What machines run that stay is written again, over what was to come: it is what their next boot takes.
fn rewrite(seen: &SeenCluster, goes: &Return<'_>) -> Option<Phase> {
    let name = "keep";
    let steps = goes.way.stays.iter().filter_map(|stay| {
        let member = &seen.members.iter().find(|seen| seen.member.name == stay.machine)?.member;
        let release = &stay.release;
        let pull = Step::PullInstaller { machine: member.clone(), release: release.clone() };
        let pull = planned(format!("{name}/{}/pull", member.name), pull, &[]);
        let write = Step::WriteRelease { machine: member.clone(), release: release.clone() };
        let write = planned(format!("{name}/{}/write", member.name), write, &[&pull.id]);
        Some([pull, write])
    });
    let steps: Vec<Planned> = steps.flatten().collect();
    (!steps.is_empty()).then(|| Phase { name: name.to_owned(), steps, width: 1 })
}

/// The installers of those that go by one.
fn pulls<'a>(prefix: &str, fallers: impl Iterator<Item = Faller<'a>>) -> Vec<Planned> {
    let pull = |(member, fall): Faller<'a>| {
        let release = fall.to.clone().filter(|_| fall.by == By::Installer)?;
        let step = Step::PullInstaller { machine: member.clone(), release };
        Some(planned(format!("{prefix}/{}", member.name), step, &[]))
    };
    fallers.filter_map(pull).collect()
}

/// One hop back, by the other slot where that holds it and by the installer otherwise.
fn hop(
    asked: &Asked,
    seen: &SeenCluster,
    goes: &Return<'_>,
    fallers: &[Faller<'_>],
    label: &str,
    boots: &mut BTreeMap<MachineName, StepId>,
) -> Vec<Phase> {
    let mut phases = Vec::new();
    let name = format!("pull-back{label}");
    let steps = pulls(&name, fallers.iter().copied());
    if !steps.is_empty() {
        phases.push(Phase { name, steps, width: 8 });
    }
    let (unwell, well): (Vec<Faller<'_>>, Vec<Faller<'_>>) =
        fallers.iter().copied().partition(|(member, _)| goes.unwell.contains(&member.name));
    let turns = [
        ("unwell-controlplanes-back", Role::ControlPlane, &unwell),
        ("unwell-workers-back", Role::Worker, &unwell),
        ("controlplanes-back", Role::ControlPlane, &well),
        ("workers-back", Role::Worker, &well),
    ];
    for (name, role, all) in turns {
        let of: Vec<Faller<'_>> = all.iter().copied().filter(|(member, _)| member.role == role).collect();
        if of.is_empty() {
            continue;
        }
        let name = format!("{name}{label}");
        let width = if role == Role::ControlPlane { 1 } else { asked.parallel.of(of.len()) };
        let steps = of.into_iter().flat_map(|faller| fall(asked, seen, &name, faller, boots)).collect();
        phases.push(Phase { name, steps, width });
    }
    phases
}

/// One machine, back and steady.
fn fall(
    asked: &Asked,
    seen: &SeenCluster,
    phase: &str,
    (member, fall): Faller<'_>,
    boots: &mut BTreeMap<MachineName, StepId>,
) -> Vec<Planned> {
    let way = Way::of(&fall.from, &fall.version, asked.stage);
    let manner = Manner { way, reboot: asked.reboot, kernel_log: asked.kernel_log };
    let id = |what: &str| format!("{phase}/{}/{what}", member.name);
    let mut steps = Vec::new();
    if let (By::Installer, Way::Written, Some(release)) = (fall.by, manner.way, &fall.to) {
        let step = Step::WriteRelease { machine: member.clone(), release: release.clone() };
        steps.push(planned(id("write"), step, &[]));
    }
    for mut emptied in emptied(asked, seen, member, &id) {
        if emptied.after.is_empty() {
            emptied.after.extend(steps.last().map(|planned: &Planned| planned.id.clone()));
        }
        steps.push(emptied);
    }
    let step = Step::RollBackMachine {
        machine: member.clone(),
        before: boots.get(&member.name).cloned().unwrap_or_else(|| met(member)),
        from: fall.from.clone(),
        leaves: fall.leaves.clone(),
        release: fall.to.clone(),
        by: fall.by,
        manner,
        control: seen.control(),
        drain: drains(asked, seen),
    };
    let last: Vec<&StepId> = steps.last().map(|planned: &Planned| &planned.id).into_iter().collect();
    let back = planned(id("back"), step, &last);
    boots.insert(member.name.clone(), back.id.clone());
    steps.extend(settled(asked, seen, member, &id, back));
    steps
}

/// The profile says what runs now: the Talos of before, and a Kubernetes that stayed; the lock is as before the run.
fn finish(asked: &Asked, seen: &SeenCluster, goes: &Return<'_>, after: &Versions) -> Phase {
    let mut set = BTreeMap::new();
    if goes.is_told(seen) {
        set.insert("talos.version".to_owned(), after.talos.to_string());
        set.extend(asked.edits.clone());
    }
    if let Some(stays) = &goes.stays {
        set.insert("talos.kubernetes_version".to_owned(), stays.to_string());
    }
    let mut steps = Vec::new();
    if !set.is_empty() {
        steps.push(planned("finish/profile", Step::EditProfile { set }, &[]));
    }
    if !goes.forgets.is_empty() {
        let step = Step::ForgetSchematics { schematics: goes.forgets.clone() };
        let last: Vec<&StepId> = steps.last().map(|planned: &Planned| &planned.id).into_iter().collect();
        let forget = planned("finish/lock", step, &last);
        steps.push(forget);
    }
    Phase { name: "finish".to_owned(), steps, width: 1 }
}
