//! The plan of a way back: machines reboot into the release that they ran before, with the same gates as on the way up.
//!
//! Talos keeps two releases on a disk, so one step back needs nothing from anywhere. What that other release is, the machine
//! tells nobody; where a run of recast brought the present one, its plan knows, and the result is compared with it.

use std::collections::{BTreeMap, BTreeSet};

use super::gates::is_why;
use super::{Asked, Release, SeenCluster, SeenMember};
use crate::plan::compatibility::etcd;
use crate::plan::observed::{Finding, Observed};
use crate::plan::phases::upgrade as phases;
use crate::plan::{Plan, Verb, Versions};
use crate::types::{MachineName, Role};

/// What machines ran before, as far as a run of this program knows.
pub type Before = BTreeMap<MachineName, Release>;

/// The machines that go back and are not well.
pub type Unwell = BTreeSet<MachineName>;

/// What goes back, and whither.
#[derive(Clone, Copy, Debug)]
pub struct Return<'a> {
    /// The machines.
    pub machines: &'a [&'a SeenMember],
    /// What they ran before.
    pub before: &'a Before,
    /// Those of them that are not well: they go first, since a budget may not let pods leave another while they are so.
    pub unwell: &'a Unwell,
}

/// What stands against it, beside what stands against any reboot.
pub fn findings(asked: &Asked, seen: &SeenCluster, before: &Before) -> Vec<Finding> {
    let mut found = Vec::new();
    for seen in seen.chosen(asked.nodes.as_deref()) {
        let name = &seen.member.name;
        let Some(release) = before.get(name) else {
            found.push(Finding::warning(
                format!("no run of recast knows what {name} ran before Talos {}", seen.version),
                "the machine itself knows; what it runs afterwards is only looked at, not compared",
            ));
            continue;
        };
        data(seen, release, &mut found);
        let kubernetes = &asked.wanted.kubernetes;
        if asked.table.runs(kubernetes, &release.version) == Some(false) {
            found.push(Finding::refusal(
                format!("{name} ran Talos {} before, which does not run Kubernetes {kubernetes}", release.version),
                "Kubernetes never goes back by a minor: restore a snapshot with `recast rebuild --restore FILE` instead",
            ));
        }
    }
    found
}

/// etcd's data go up with it, and an older etcd can't read them.
fn data(seen: &SeenMember, release: &Release, found: &mut Vec<Finding>) {
    if seen.member.role != Role::ControlPlane {
        return;
    }
    let (Some(now), Some(then)) = (etcd(&seen.version), etcd(&release.version)) else { return };
    if then < now {
        found.push(Finding::refusal(
            format!(
                "{} ran Talos {} before, whose etcd {}.{} can't read the data of etcd {}.{}",
                seen.member.name, release.version, then.0, then.1, now.0, now.1
            ),
            "go back with `recast rebuild --to` and the snapshot that the upgrade's run took: --restore FILE",
        ));
    }
}

/// The machines that are not well, of those that go back.
pub fn unwell(asked: &Asked, seen: &Observed, running: &SeenCluster) -> Unwell {
    let complaints = seen.cluster.iter().flat_map(|cluster| &cluster.unhealthy);
    let why = complaints.filter(|complaint| is_why(asked, running, complaint));
    why.filter_map(|complaint| complaint.machine.clone()).collect()
}

/// Makes the plan. Where a machine that goes back is `unwell`, the cluster's health is only waited for afterwards.
pub fn make(asked: &Asked, seen: &SeenCluster, before: &Before, unwell: &Unwell) -> Option<Plan> {
    let now = seen.versions(None)?;
    let chosen: Vec<&SeenMember> = seen.chosen(asked.nodes.as_deref()).collect();
    // What the cluster is afterwards: its oldest machine's release, as far as it is known.
    let after = seen.members.iter().map(|other| match before.get(&other.member.name) {
        Some(release) if chosen.iter().any(|seen| seen.member.name == other.member.name) => release.version.clone(),
        _ => other.version.clone(),
    });
    let known = chosen.iter().all(|seen| before.contains_key(&seen.member.name));
    let after = after.min().filter(|_| known).map(|talos| Versions { talos, kubernetes: now.kubernetes.clone() });
    let phases = phases::back(asked, seen, &Return { machines: &chosen, before, unwell }, after.as_ref());
    Some(Plan { before: Some(now), after, phases, ..asked.plan(Verb::GoBack, seen) })
}
