//! What stands in the way of an upgrade: a pure list, all of it at once.

use std::collections::{BTreeMap, BTreeSet};

use super::{Asked, Bound, Only, SeenCluster, SeenMember, Stage, bare};
use crate::plan::gates::{Here, kept, programs};
use crate::plan::kubernetes::{Hop as KubernetesHop, drain_gates, gates};
use crate::plan::observed::{Complaint, Finding, Observed};
use crate::plan::path::{Hop, NoPath, What};
use crate::types::{Cordon, MachineName, Role, SchematicId, Version};

/// The only platform whose installers recast asks for: what its own templates are.
const PLATFORM: &str = "nocloud";

/// Everything that can be found without knowing the way.
pub fn findings(asked: &Asked, seen: &Observed, running: &SeenCluster, here: &Here) -> Vec<Finding> {
    let mut found = seen.problems.clone();
    nodes(asked, &mut found);
    for (vmid, name, node) in &here.out_of_reach {
        found.push(Finding::refusal(
            format!("VM {vmid} ({name}) is on PVE node {node}, which is down"),
            "bring the node up first: a machine less may be one too many",
        ));
    }
    alive(asked, seen, running, &mut found);
    members(asked, running, &mut found);
    if asked.only != Only::Kubernetes {
        extensions(asked, running, &mut found);
        platforms(asked, running, &mut found);
    }
    programs(here, &mut found);
    if let Some(backup) = &here.backup {
        kept(backup, &mut found);
    }
    found
}

/// Why there is no way.
pub fn no_path(no: &NoPath) -> Finding {
    Finding::refusal(no.to_string(), no.hint())
}

/// Names that are no machines.
fn nodes(asked: &Asked, found: &mut Vec<Finding>) {
    let Some(nodes) = &asked.nodes else { return };
    let known: BTreeSet<&str> = asked.vms.iter().map(|vm| vm.name.as_str()).collect();
    for stranger in nodes.iter().filter(|node| !known.contains(node.as_str())) {
        found.push(Finding::refusal(
            format!("{stranger} is no machine of the profile"),
            format!("its machines are {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
        ));
    }
    if asked.only == Only::Kubernetes {
        found.push(Finding::refusal(
            "Kubernetes is upgraded on the whole cluster, and --nodes names some machines",
            "leave --nodes out",
        ));
    }
}

/// The cluster answers, is the one whose secrets these are, and is well.
fn alive(asked: &Asked, seen: &Observed, running: &SeenCluster, found: &mut Vec<Finding>) {
    let Some(cluster) = &seen.cluster else {
        found.push(Finding::refusal(
            format!("no machine of cluster {} answers", asked.cluster),
            "an upgrade needs a running cluster; `recast status` shows what can be seen",
        ));
        return;
    };
    for part in &cluster.differing_secrets {
        found.push(Finding::refusal(
            format!("{part} of the running cluster is another than the secrets file's"),
            "use the secrets.yaml that the cluster was made with",
        ));
    }
    for complaint in &cluster.unhealthy {
        let what = format!("the running cluster is not healthy: {complaint}");
        found.push(if is_why(asked, running, complaint) {
            Finding::warning(what, "that machine goes back")
        } else {
            Finding::refusal(
                what,
                "mend it first: a machine that goes down takes a part of the redundancy that is left",
            )
        });
    }
    for (name, why) in running.silent.iter().filter(|(name, _)| !tells(&cluster.unhealthy, name)) {
        found.push(Finding::refusal(
            format!("{name} could not be looked at: {why}"),
            "every machine of the profile must answer before one of them goes down",
        ));
    }
    if running.kubernetes.is_none() && !running.members.is_empty() {
        found.push(Finding::refusal(
            "the version of Kubernetes could not be read",
            "bring its API up first; `recast status` shows what can be seen",
        ));
    }
    cordons(asked, running, found);
}

/// Nodes that take no new pods: Talos' health checks don't pass them. What a run of ours left so, a way back lifts first.
fn cordons(asked: &Asked, running: &SeenCluster, found: &mut Vec<Finding>) {
    for seen in &running.members {
        let name = &seen.member.name;
        let hint = match (&seen.cordon, asked.bound) {
            (Cordon::Open, _) | (Cordon::Marked { .. }, Bound::Back) => continue,
            (Cordon::Marked { by }, Bound::Up) => format!(
                "run {by} cordoned it and did not get further: `recast resume {by}` goes on with it; where that is over, \
                 kubectl uncordon {name}"
            ),
            (Cordon::Theirs, _) => {
                format!("somebody cordoned it, no run of recast: when it may work again, kubectl uncordon {name}")
            }
        };
        found.push(Finding::refusal(format!("Kubernetes node {name} takes no new pods"), hint));
    }
}

/// Whether a complaint is about a machine that goes back: it may be why.
pub(super) fn is_why(asked: &Asked, running: &SeenCluster, complaint: &Complaint) -> bool {
    let goes = |name: &MachineName| running.chosen(asked.nodes.as_deref()).any(|seen| seen.member.name == *name);
    asked.bound == Bound::Back && complaint.machine.as_ref().is_some_and(goes)
}

fn tells(complaints: &[Complaint], name: &str) -> bool {
    complaints.iter().any(|complaint| complaint.machine.as_ref().is_some_and(|machine| machine.as_str() == name))
}

/// The control planes are etcd's members, and taking one down leaves a quorum, or there is none to lose.
fn members(asked: &Asked, running: &SeenCluster, found: &mut Vec<Finding>) {
    let control: Vec<&SeenMember> =
        running.members.iter().filter(|seen| seen.member.role == Role::ControlPlane).collect();
    let reboots = asked.only != Only::Kubernetes;
    match control.len() {
        2 if reboots => found.push(Finding::refusal(
            "etcd has two members: when one of them reboots, the other has no quorum, and nothing can be written",
            "add a third control plane, or remove one; with one the API is away while it reboots, and nothing is lost",
        )),
        1 if reboots => found.push(Finding::warning(
            format!(
                "{} is the only control plane: the Kubernetes API is away while it reboots",
                control[0].member.name
            ),
            "three control planes go up without that",
        )),
        _ => {}
    }
}

/// A schematic that lacks what a machine has now takes a driver or an agent away.
fn extensions(asked: &Asked, running: &SeenCluster, found: &mut Vec<Finding>) {
    let mut losers: BTreeMap<(&SchematicId, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for seen in running.chosen(asked.nodes.as_deref()) {
        let Some(schematic) = asked.schematic_of(seen.member.role) else { continue };
        if seen.schematic.as_ref() == Some(schematic) {
            continue;
        }
        let Some(holds) = asked.extensions.get(schematic) else { continue };
        let holds: BTreeSet<&str> = holds.iter().map(|name| bare(name)).collect();
        let dropped: Vec<&str> =
            seen.extensions.iter().map(String::as_str).filter(|name| !holds.contains(bare(name))).collect();
        if !dropped.is_empty() {
            losers.entry((schematic, dropped)).or_default().push(seen.member.name.as_str());
        }
    }
    for ((schematic, dropped), machines) in losers {
        found.push(Finding::refusal(
            format!("schematic {schematic} would take {} from {}", dropped.join(", "), machines.join(", ")),
            "name them too with --extensions or in talos.factory.extensions; what nobody needs any more goes with \
             `recast rebuild`",
        ));
    }
}

/// An installer carries its platform's kernel command line (from 1.10 on): another platform's would change the machine.
fn platforms(asked: &Asked, running: &SeenCluster, found: &mut Vec<Finding>) {
    for seen in running.chosen(asked.nodes.as_deref()).filter(|seen| seen.platform != PLATFORM) {
        found.push(Finding::refusal(
            format!(
                "{} runs Talos for the platform {}, and recast asks for installers for {PLATFORM}",
                seen.member.name, seen.platform
            ),
            "`recast rebuild` makes machines of the right platform; or upgrade this one with talosctl",
        ));
    }
    if asked.stage == Stage::NextBoot {
        for seen in running.chosen(asked.nodes.as_deref()).filter(|seen| seen.version.minor() >= (1, 18)) {
            found.push(Finding::refusal(
                format!("{} runs Talos {}, which can't stage an upgrade", seen.member.name, seen.version),
                "leave --stage out",
            ));
        }
    }
}

/// What can be found once the way is known.
pub fn on_the_way(asked: &Asked, running: &SeenCluster, hops: &[Hop]) -> Vec<Finding> {
    let mut found = Vec::new();
    kubernetes(asked, running, hops, &mut found);
    let last = hops.iter().rev().find(|hop| hop.what == What::Os).map(|hop| &hop.to);
    let Some(last) = last else { return found };
    for seen in running.chosen(asked.nodes.as_deref()).filter(|seen| seen.version > *last) {
        found.push(Finding::refusal(
            format!("{} runs Talos {} already, which is newer than {last}", seen.member.name, seen.version),
            "ask for that version, or go back with `recast rollback --nodes`",
        ));
    }
    if asked.nodes.is_some() {
        left_behind(asked, running, last, &mut found);
    }
    found
}

/// What each hop of Kubernetes no longer knows, and what will never leave a node that has to be drained.
fn kubernetes(asked: &Asked, running: &SeenCluster, hops: &[Hop], found: &mut Vec<Finding>) {
    let mut talos = running.members.iter().map(|seen| &seen.version).min();
    let seen = &running.components;
    for hop in hops {
        match (hop.what, talos) {
            (What::Kubernetes, Some(talos)) => {
                let (from, to, steady, runs) = (&hop.from, &hop.to, asked.limits.steady, asked.table.carried(talos));
                for finding in gates(&KubernetesHop { seen, from, to, talos, steady, runs }) {
                    // Each hop looks at the same machines.
                    if !found.contains(&finding) {
                        found.push(finding);
                    }
                }
            }
            _ => talos = Some(&hop.to),
        }
    }
    let rises = hops.iter().any(|hop| hop.what == What::Os);
    if rises && running.members.len() > 1 {
        let chosen: BTreeSet<&str> =
            running.chosen(asked.nodes.as_deref()).map(|seen| seen.member.name.as_str()).collect();
        let drained = |node: &str| {
            let machine = seen.machines.iter().find(|seen| seen.node == node);
            chosen.contains(machine.map_or(node, |seen| seen.machine.name.as_str()))
        };
        found.extend(drain_gates(seen, drained));
    }
}

/// Machines that are left out stay behind; more than a minor apart nobody tests.
fn left_behind(asked: &Asked, running: &SeenCluster, last: &Version, found: &mut Vec<Finding>) {
    let nodes = asked.nodes.as_deref().unwrap_or_default();
    let left: Vec<String> = running
        .members
        .iter()
        .filter(|seen| {
            !nodes.iter().any(|node| node == seen.member.name.as_str()) && seen.version.minor() < last.minor()
        })
        .map(|seen| format!("{} ({})", seen.member.name, seen.version))
        .collect();
    if !left.is_empty() {
        found.push(Finding::warning(
            format!("left behind with an older Talos: {}", left.join(", ")),
            "upgrade them soon: machines of one cluster are only tested together with the same Talos",
        ));
    }
}
