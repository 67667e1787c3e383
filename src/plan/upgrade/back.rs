//! The plan of a way back: machines reboot into the releases that they ran before, hop by hop, with the same gates as on the
//! way up.
//!
//! Talos keeps two releases on a disk, so one step back needs nothing from anywhere; every further one needs an installer.
//! What the other release is, the machine tells nobody; where a run of recast brought the present one, `past` knows, and the
//! result is compared with it.

use std::collections::BTreeSet;

use super::descent::{Descent, Fall, Way};
use super::gates::is_why;
use super::{Asked, By, SeenCluster};
use crate::plan::compatibility::etcd;
use crate::plan::observed::{Finding, Observed};
use crate::plan::path::{Hop, What};
use crate::plan::phases::back as phases;
use crate::plan::{Plan, Verb, Versions};
use crate::types::{MachineName, Role, SchematicId, Version};

/// The machines that go back and are not well.
pub type Unwell = BTreeSet<MachineName>;

/// What the profile was told by a run that is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wrote {
    /// Nothing: it did not come so far, or it is not a run that is taken back.
    #[default]
    Nothing,
    /// The version of Talos that it brought.
    Talos,
}

/// What goes back, and whither.
#[derive(Clone, Debug)]
pub struct Return<'a> {
    /// The machines, hop by hop.
    pub way: &'a Way,
    /// Those of them that are not well: they go first, since a budget may not let pods leave another while they are so.
    pub unwell: &'a Unwell,
    /// What the profile says of the run that is taken back.
    pub wrote: Wrote,
    /// Schematics that it put into the lock, and that nothing there needs afterwards.
    pub forgets: BTreeSet<SchematicId>,
    /// The Kubernetes that stays, where that run moved it: the profile is to say so.
    pub stays: Option<Version>,
}

impl Return<'_> {
    /// Whether every machine goes back.
    fn is_whole(&self, seen: &SeenCluster) -> bool {
        seen.members.iter().all(|seen| self.way.takes(&seen.member.name))
    }

    /// Whether the profile is to say what the machines run afterwards.
    pub fn is_told(&self, seen: &SeenCluster) -> bool {
        self.wrote == Wrote::Talos || self.is_whole(seen)
    }
}

/// The newest Kubernetes of any component or kubelet: in the middle of a move they differ, and its data are those of the
/// newest.
pub fn newest_kubernetes(seen: &SeenCluster) -> Option<Version> {
    seen.components.newest().into_iter().chain(seen.kubernetes.clone()).max()
}

/// What stands against it, beside what stands against any reboot.
pub fn findings(asked: &Asked, seen: &SeenCluster, way: &Way) -> Vec<Finding> {
    let mut found = way.refusals.clone();
    for descent in &way.descents {
        found.extend(against(asked, seen, descent));
    }
    found
}

/// What stands against one hop.
fn against(asked: &Asked, seen: &SeenCluster, descent: &Descent) -> Vec<Finding> {
    let mut found = Vec::new();
    let runs: BTreeSet<Version> = newest_kubernetes(seen).into_iter().chain(seen.kubernetes.clone()).collect();
    for fall in &descent.falls {
        let Fall { machine, version, from, .. } = fall;
        data(fall, &mut found);
        for kubernetes in runs.iter().filter(|runs| asked.table.runs(runs, version) == Some(false)) {
            found.push(Finding::refusal(
                format!("{machine} ran Talos {version} before, which does not run Kubernetes {kubernetes}"),
                "Kubernetes never goes back by a minor: restore a snapshot with `recast rebuild --restore FILE` instead",
            ));
        }
        if fall.by == By::Installer && asked.table.takes(version, from) == Some(false) {
            found.push(Finding::refusal(
                format!("the installer of Talos {version} takes no machine that runs {from}, as {machine} does"),
                "`recast rebuild --to` makes machines of any release",
            ));
        }
    }
    found
}

/// etcd's data go up with it, and an older etcd can't read them.
fn data(fall: &Fall, found: &mut Vec<Finding>) {
    if fall.role != Role::ControlPlane {
        return;
    }
    let (Some(now), Some(then)) = (etcd(&fall.from), etcd(&fall.version)) else { return };
    if then < now {
        found.push(Finding::refusal(
            format!(
                "{} ran Talos {} before, whose etcd {}.{} can't read the data of etcd {}.{}",
                fall.machine, fall.version, then.0, then.1, now.0, now.1
            ),
            "go back with `recast rebuild --to` and the snapshot that the upgrade's run took: --restore FILE",
        ));
    }
}

/// How far back nothing stands against, of several hops, with the commands that go there.
pub fn as_far_as(asked: &Asked, seen: &SeenCluster, way: &Way) -> Option<Finding> {
    let free = way.descents.iter().take_while(|descent| against(asked, seen, descent).is_empty());
    let free: Vec<&Descent> = free.collect();
    if free.len() == way.descents.len() {
        return None;
    }
    let last = free.last()?.falls.iter().map(|fall| &fall.version).min()?;
    let commands: Vec<String> = free
        .iter()
        .map(|descent| {
            let names: Vec<&str> = descent.falls.iter().map(|fall| fall.machine.as_str()).collect();
            format!("`recast rollback --nodes {}`", names.join(","))
        })
        .collect();
    Some(Finding::refusal(
        format!("not all of the way back can be gone; nothing stands against it as far as Talos {last}"),
        format!("that far, one hop at a time: {}", commands.join(", then ")),
    ))
}

/// The machines that are not well, of those that go back.
pub fn unwell(asked: &Asked, seen: &Observed, running: &SeenCluster) -> Unwell {
    let complaints = seen.cluster.iter().flat_map(|cluster| &cluster.unhealthy);
    let why = complaints.filter(|complaint| is_why(asked, running, complaint));
    why.filter_map(|complaint| complaint.machine.clone()).collect()
}

/// Makes the plan. Where a machine that goes back is unwell, the cluster's health is only waited for afterwards.
pub fn make(asked: &Asked, seen: &SeenCluster, goes: &Return<'_>) -> Option<Plan> {
    let now = seen.versions(None)?;
    // What the cluster is afterwards: its oldest machine's release.
    let ends = seen.members.iter().map(|seen| match goes.way.end(&seen.member.name) {
        Some(fall) => fall.version.clone(),
        None => seen.version.clone(),
    });
    let kubernetes = goes.stays.clone().unwrap_or_else(|| now.kubernetes.clone());
    let after = Versions { talos: ends.min()?, kubernetes };
    let phases = phases::all(asked, seen, goes, &after);
    let hops = hops(&goes.way.descents);
    Some(Plan { before: Some(now), after: Some(after), hops, phases, ..asked.plan(Verb::GoBack, seen) })
}

/// Several hops, in words; one says all of itself in the machines' table.
fn hops(descents: &[Descent]) -> Vec<Hop> {
    if descents.len() < 2 {
        return Vec::new();
    }
    let hop = |descent: &Descent| {
        let to = descent.falls.iter().map(|fall| &fall.version).min()?.clone();
        let by = |by: By| {
            let of = descent.falls.iter().filter(|fall| fall.by == by);
            of.map(|fall| fall.machine.as_str()).collect::<Vec<_>>().join(", ")
        };
        let because = match (by(By::OtherSlot).as_str(), by(By::Installer).as_str()) {
            (_, "") => "the other slot of each disk holds it".to_owned(),
            ("", _) => "by its installer: a disk keeps one release beside the one that runs".to_owned(),
            (kept, installed) => format!("the other slot of {kept} holds it; {installed} by its installer"),
        };
        Some(Hop { what: What::Os, from: descent.of.clone(), to, because })
    };
    descents.iter().filter_map(hop).collect()
}
