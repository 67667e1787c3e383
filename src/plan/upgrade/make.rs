//! The plan of an upgrade: check, backup, then hop after hop, verify, finish.
//!
//! Must not know: clients, clocks, files. What a hop of Talos consists of is in `phases::upgrade`, of Kubernetes in
//! `phases::kubernetes`.

use std::collections::BTreeMap;

use super::{Asked, Member, Only, Release, SeenCluster, SeenMember};
use crate::plan::compatibility::Minor;
use crate::plan::path::{self, Hop, NoPath, Question, What};
use crate::plan::phases::upgrade as phases;
use crate::plan::{Plan, Verb, Versions};
use crate::types::{SchematicId, Version};

/// A machine that goes up in a hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Riser {
    /// It.
    pub member: Member,
    /// What it runs before.
    pub from: Version,
    /// What its image is made from before, where that is known.
    pub leaves: Option<SchematicId>,
    /// What it is to run.
    pub to: Release,
}

/// A hop with the machines that take part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Talos on these machines, control planes first.
    Os(Hop, Vec<Riser>),
    /// Kubernetes on the whole cluster, whose oldest machine runs this Talos then.
    Kubernetes(Hop, Version),
}

/// Why no plan could be made; what `gates` finds is found there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// There is no way.
    #[error(transparent)]
    NoPath(#[from] NoPath),
    /// Nothing could be looked at.
    #[error("the cluster's versions are not known")]
    Unseen,
    /// There is no installer.
    #[error("the installer of Talos {version} with schematic {schematic} is not known")]
    NoInstaller {
        /// The version.
        version: Version,
        /// The schematic.
        schematic: SchematicId,
    },
}

/// What shall run in the end: what isn't to be touched stays as it is.
pub fn target(asked: &Asked, now: &Versions) -> Versions {
    match asked.only {
        Only::Both if asked.nodes.is_some() => {
            Versions { talos: asked.wanted.talos.clone(), kubernetes: now.kubernetes.clone() }
        }
        Only::Both => asked.wanted.clone(),
        Only::Os => Versions { talos: asked.wanted.talos.clone(), kubernetes: now.kubernetes.clone() },
        Only::Kubernetes => Versions { talos: now.talos.clone(), kubernetes: asked.wanted.kubernetes.clone() },
    }
}

/// The hops, those that only change a schematic included.
pub fn way(asked: &Asked, seen: &SeenCluster, released: &[Version]) -> Result<Vec<Hop>, UpgradeError> {
    let nodes = asked.nodes.as_deref();
    let now = seen.versions(nodes).ok_or(UpgradeError::Unseen)?;
    let wanted = target(asked, &now);
    let question =
        Question { table: &asked.table, released, now: now.clone(), wanted: wanted.clone(), hops: asked.hops };
    let mut hops = path::find(&question)?;
    if !hops.iter().any(|hop| hop.what == What::Kubernetes)
        && asked.only != Only::Os
        && nodes.is_none()
        && seen.components.lags(&wanted.kubernetes)
    {
        let to = wanted.kubernetes.clone();
        let because = "some components or kubelets are older still".to_owned();
        hops.insert(0, Hop { what: What::Kubernetes, from: to.clone(), to, because });
    }
    let rises = hops.iter().any(|hop| hop.what == What::Os);
    let other = |seen: &SeenMember| {
        seen.version <= wanted.talos && asked.schematic_of(seen.member.role) != seen.schematic.as_ref()
    };
    if !rises && asked.only != Only::Kubernetes && seen.chosen(nodes).any(other) {
        let to = wanted.talos;
        hops.push(Hop {
            what: What::Os,
            from: to.clone(),
            to,
            because: "the schematic changes, not the version".to_owned(),
        });
    }
    Ok(hops)
}

/// Installers that the hops need, by schematic and version.
pub fn needed(asked: &Asked, seen: &SeenCluster, hops: &[Hop]) -> Vec<(SchematicId, Version)> {
    let mut needed = Vec::new();
    for (_, members) in risers(asked, seen, hops) {
        for Rising { schematic, version, .. } in members {
            if !needed.contains(&(schematic.clone(), version.clone())) {
                needed.push((schematic, version));
            }
        }
    }
    needed
}

/// A machine on its way up.
struct Rising {
    member: Member,
    from: Version,
    leaves: Option<SchematicId>,
    schematic: SchematicId,
    version: Version,
}

/// Which machine goes to which version and schematic, hop by hop. One that is further already is left out: nothing is
/// upgraded twice. Between, machines keep what they are made from; the last hop gives them what is wanted.
fn risers<'h>(asked: &Asked, seen: &SeenCluster, hops: &'h [Hop]) -> Vec<(&'h Hop, Vec<Rising>)> {
    let mut runs: BTreeMap<&str, (Version, Option<SchematicId>)> = seen
        .members
        .iter()
        .map(|seen| (seen.member.name.as_str(), (seen.version.clone(), seen.schematic.clone())))
        .collect();
    let last = hops.iter().rposition(|hop| hop.what == What::Os);
    let mut all = Vec::new();
    for (index, hop) in hops.iter().enumerate() {
        let mut members = Vec::new();
        if hop.what == What::Os {
            for seen in seen.chosen(asked.nodes.as_deref()) {
                let Some(wanted) = asked.schematic_of(seen.member.role) else { continue };
                let Some((now, made_from)) = runs.get_mut(seen.member.name.as_str()) else { continue };
                let is_last = Some(index) == last;
                let further = if is_last { *now >= hop.to } else { Minor::from(&*now) >= Minor::from(&hop.to) };
                let other = is_last && *now <= hop.to && seen.schematic.as_ref() != Some(wanted);
                if further && !other {
                    continue;
                }
                let schematic = if is_last { wanted } else { seen.schematic.as_ref().unwrap_or(wanted) };
                members.push(Rising {
                    member: seen.member.clone(),
                    from: now.clone(),
                    leaves: made_from.replace(schematic.clone()),
                    schematic: schematic.clone(),
                    version: hop.to.clone(),
                });
                now.clone_from(&hop.to);
            }
        }
        members.sort_by_key(|rising| rising.member.role);
        all.push((hop, members));
    }
    all
}

/// The hops with their machines and installers.
pub fn stretches(asked: &Asked, seen: &SeenCluster, hops: &[Hop]) -> Result<Vec<Stretch>, UpgradeError> {
    let mut stretches = Vec::new();
    let mut talos = seen.versions(None).ok_or(UpgradeError::Unseen)?.talos;
    for (hop, members) in risers(asked, seen, hops) {
        if hop.what == What::Kubernetes {
            stretches.push(Stretch::Kubernetes(hop.clone(), talos.clone()));
            continue;
        }
        // Without `--nodes` every machine is there afterwards.
        talos.clone_from(&hop.to);
        let mut all = Vec::new();
        for Rising { member, from, leaves, schematic, version } in members {
            let to = asked.installer(&schematic, &version).cloned();
            let to = to.ok_or(UpgradeError::NoInstaller { version, schematic })?;
            all.push(Riser { member, from, leaves, to });
        }
        stretches.push(Stretch::Os(hop.clone(), all));
    }
    Ok(stretches)
}

/// Makes the plan. Without hops it has no phase that changes anything.
pub fn make(asked: &Asked, seen: &SeenCluster, hops: &[Hop]) -> Result<Plan, UpgradeError> {
    let now = seen.versions(None).ok_or(UpgradeError::Unseen)?;
    let stretches = stretches(asked, seen, hops)?;
    let mut after = target(asked, &now);
    if asked.nodes.is_some() {
        // What is left out keeps the cluster where its oldest machine is.
        let others = seen.members.iter().filter(|seen| !chosen(asked, seen)).map(|seen| &seen.version);
        after.talos = others.chain([&after.talos]).min().cloned().unwrap_or(after.talos);
    }
    let phases = if stretches.is_empty() { Vec::new() } else { phases::all(asked, seen, &stretches, &after) };
    Ok(Plan { hops: hops.to_vec(), before: Some(now), after: Some(after), phases, ..asked.plan(Verb::Upgrade, seen) })
}

fn chosen(asked: &Asked, seen: &SeenMember) -> bool {
    asked.nodes.as_ref().is_none_or(|nodes| nodes.iter().any(|node| node == seen.member.name.as_str()))
}
