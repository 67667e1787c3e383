//! Which machine goes back to what, hop by hop: the last one first, and by what.
//!
//! Must not know: gates, phases, where installers come from.

use super::past::{Past, Ran};
use super::{By, Release, SeenCluster, SeenMember};
use crate::plan::observed::Finding;
use crate::plan::{Plan, Step};
use crate::types::{MachineName, Role, SchematicId, StepId, Version};

/// One machine's step back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fall {
    /// The machine.
    pub machine: MachineName,
    /// What it is.
    pub role: Role,
    /// What it runs before the step.
    pub from: Version,
    /// What its image is made from before, where that is known.
    pub leaves: Option<SchematicId>,
    /// The version that it goes back to.
    pub version: Version,
    /// The release; none where only its version is known.
    pub to: Option<Release>,
    /// By what.
    pub by: By,
}

/// One hop, taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descent {
    /// The version that machines came to by the hop; where one is taken back by name, the newest of them.
    pub of: Version,
    /// The machines, in the profile's order.
    pub falls: Vec<Fall>,
}

/// A machine that stays what it is: something newer was written beside it, which its next boot would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stay {
    /// The machine.
    pub machine: MachineName,
    /// What it runs, and is to boot again.
    pub release: Release,
}

/// The installer of what a machine of a role ran.
pub type Installer<'a> = dyn Fn(Role, &SchematicId, &Version) -> Option<Release> + 'a;

/// Hops, and why machines can't go back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The last hop first.
    pub descents: Vec<Descent>,
    /// Machines on which what they run is written once more.
    pub stays: Vec<Stay>,
    /// What stands against it.
    pub refusals: Vec<Finding>,
}

impl Way {
    /// All machines that go back.
    pub fn falls(&self) -> impl Iterator<Item = &Fall> {
        self.descents.iter().flat_map(|descent| &descent.falls)
    }

    /// Where a machine ends; none where it stays.
    pub fn end(&self, machine: &MachineName) -> Option<&Fall> {
        self.falls().filter(|fall| fall.machine == *machine).last()
    }

    /// Whether a machine goes back.
    pub fn takes(&self, machine: &MachineName) -> bool {
        self.end(machine).is_some()
    }
}

fn fall(seen: &SeenMember, now: &Ran, before: &Ran, by: By, installer: &Installer<'_>) -> Result<Fall, Finding> {
    let Ran { version, schematic } = before;
    let name = &seen.member.name;
    let to = schematic.as_ref().and_then(|schematic| installer(seen.member.role, schematic, version));
    if to.is_none() && (by == By::Installer || *version == now.version) {
        return Err(Finding::refusal(
            format!("{name} ran Talos {version} before, and no run of recast knows which schematic that was made from"),
            "an installer is asked for by its schematic: `recast rebuild --to` makes machines of any release",
        ));
    }
    Ok(Fall {
        machine: name.clone(),
        role: seen.member.role,
        from: now.version.clone(),
        leaves: now.schematic.clone(),
        version: version.clone(),
        to,
        by,
    })
}

/// By the other slot only where it holds just that.
fn by(other: Option<&Ran>, before: &Ran) -> By {
    if other == Some(before) { By::OtherSlot } else { By::Installer }
}

/// The machines with these names, each by one release.
pub fn of_nodes(nodes: &[String], seen: &SeenCluster, past: &Past, installer: &Installer<'_>) -> Way {
    let mut way = Way::default();
    let mut falls = Vec::new();
    for seen in seen.chosen(Some(nodes)) {
        let other = past.other_slot(seen);
        let Some(before) = past.before(seen) else {
            way.refusals.push(nothing_older(seen, other));
            continue;
        };
        let now = Ran { version: seen.version.clone(), schematic: seen.schematic.clone() };
        match fall(seen, &now, before, by(other, before), installer) {
            Ok(fall) => falls.push(fall),
            Err(refusal) => way.refusals.push(refusal),
        }
    }
    if let Some(of) = falls.iter().map(|fall| fall.from.clone()).max() {
        way.descents.push(Descent { of, falls });
    }
    way
}

fn nothing_older(seen: &SeenMember, other: Option<&Ran>) -> Finding {
    let (name, version) = (&seen.member.name, &seen.version);
    let holds = match other {
        Some(other) => format!("its other slot holds Talos {}, which is what it was taken back from", other.version),
        None => "what its other slot holds, newer or older, the machine tells nobody".to_owned(),
    };
    Finding::refusal(
        format!("no run of recast knows a release that {name} ran before Talos {version}; {holds}"),
        format!(
            "`recast rebuild --to` makes machines of any release; `talosctl -n {} rollback` boots the other slot, \
             whatever it is and without these gates",
            seen.member.address
        ),
    )
}

/// What a run took a machine through: the hop's place, and from what to what.
fn trail<'p>(
    run: &'p Plan,
    hops: &[&Version],
    begun: &dyn Fn(&StepId) -> bool,
    machine: &MachineName,
) -> Vec<(usize, Ran, &'p Release)> {
    let went = run.steps().filter_map(|planned| match &planned.step {
        Step::UpgradeMachine { machine: member, from, leaves, release, .. }
            if member.name == *machine && begun(&planned.id) =>
        {
            let hop = hops.iter().position(|version| **version == release.version)?;
            Some((hop, Ran { version: from.clone(), schematic: leaves.clone() }, release))
        }
        _ => None,
    });
    went.collect()
}

/// All that a run moved, from where each machine stands now to where the run found it. `begun` says which of its steps were.
pub fn of_run(
    run: &Plan,
    begun: &dyn Fn(&StepId) -> bool,
    seen: &SeenCluster,
    past: &Past,
    installer: &Installer<'_>,
) -> Way {
    let mut hops: Vec<&Version> = Vec::new();
    for planned in run.steps() {
        if let Step::UpgradeMachine { release, .. } = &planned.step
            && !hops.contains(&&release.version)
        {
            hops.push(&release.version);
        }
    }
    let mut way = Way::default();
    let mut falls: Vec<Vec<Fall>> = vec![Vec::new(); hops.len()];
    for seen in &seen.members {
        let trail = trail(run, &hops, begun, &seen.member.name);
        let touched =
            |step: &Step| matches!(step, Step::WriteRelease { machine, .. } if machine.name == seen.member.name);
        if run.steps().any(|planned| touched(&planned.step) && begun(&planned.id)) {
            way.stays.extend(stay(seen, past, installer));
        }
        let Some((_, first, _)) = trail.first() else { continue };
        let Some(stands) = trail.iter().rposition(|(.., to)| Ran::of(to).is_run_by(seen)) else {
            if !first.is_run_by(seen) {
                way.refusals.push(elsewhere(run, seen));
            }
            continue;
        };
        for (place, (hop, before, to)) in trail.iter().enumerate().take(stands + 1).rev() {
            // What a machine leaves stays in the other slot: below the first hop nothing else is there.
            let by = if place == stands { by(past.other_slot(seen), before) } else { By::Installer };
            match fall(seen, &Ran::of(to), before, by, installer) {
                Ok(fall) => falls[*hop].push(fall),
                Err(refusal) => way.refusals.push(refusal),
            }
        }
    }
    // One that goes back boots what it is told to.
    way.stays.retain(|stay| !falls.iter().flatten().any(|fall| fall.machine == stay.machine));
    let descents = hops.into_iter().zip(falls).rev().filter(|(_, falls)| !falls.is_empty());
    way.descents = descents.map(|(of, falls)| Descent { of: of.clone(), falls }).collect();
    way
}

/// What a machine runs, where something else waits beside it.
fn stay(seen: &SeenMember, past: &Past, installer: &Installer<'_>) -> Option<Stay> {
    past.waits(seen)?;
    let release = installer(seen.member.role, seen.schematic.as_ref()?, &seen.version)?;
    Some(Stay { machine: seen.member.name.clone(), release })
}

fn elsewhere(run: &Plan, seen: &SeenMember) -> Finding {
    Finding::refusal(
        format!("{} runs Talos {}, and run {} did not bring it there", seen.member.name, seen.version, run.run),
        "take a later run back first: `recast runs list` names them, and `recast rollback` alone means the newest",
    )
}
