//! The phases of an upgrade in place: check, backup, per hop of Talos pull, control planes, workers; then verify and finish.

use std::collections::BTreeMap;

use crate::plan::errands::Git;
use crate::plan::kubernetes::{Hop as KubernetesHop, Leftover};
use crate::plan::make::planned;
use crate::plan::path::Hop;
use crate::plan::step::{Contexts, ExpectedMachine, Moment};
use crate::plan::upgrade::make::{Riser, Stretch};
use crate::plan::upgrade::{Asked, Manner, Member, SeenCluster, Way};
use crate::plan::{Phase, Planned, Step, Versions};
use crate::types::{MachineName, Role, StepId, Version};

use super::{backup, kubernetes};

/// The phase in which what later hops need is pulled.
pub(super) const AHEAD: &str = "pull-ahead";

/// The step that fetches credentials for Kubernetes.
pub(super) const ACCESS: &str = "check/access";

/// The step that looked at a machine before anything was done to it.
pub(super) fn met(member: &Member) -> StepId {
    StepId::new(format!("check/{}", member.name))
}

/// All phases in order.
pub(in crate::plan) fn all(asked: &Asked, seen: &SeenCluster, stretches: &[Stretch], after: &Versions) -> Vec<Phase> {
    let mut check = check(seen);
    let etcd = spare(seen, stretches, &check.steps);
    check.steps.extend(etcd);
    let mut phases = vec![check, backup::of(&asked.keep, &seen.machines)];
    phases.extend(pulled_ahead(asked, seen, stretches));
    // The step that last saw which boot each machine is in.
    let mut boots: BTreeMap<MachineName, StepId> =
        seen.members.iter().map(|seen| (seen.member.name.clone(), met(&seen.member))).collect();
    for stretch in stretches {
        match stretch {
            Stretch::Os(hop, risers) if !risers.is_empty() => {
                phases.extend(os(asked, seen, hop, risers, &mut boots));
            }
            Stretch::Os(..) => {}
            Stretch::Kubernetes(hop, talos) => {
                phases.extend(kubernetes::phases(&kubernetes_hop(asked, seen, hop, talos)));
            }
        }
    }
    phases.push(verify(seen, stretches));
    phases.push(finish(asked, seen, stretches, after));
    phases
}

fn kubernetes_hop<'a>(asked: &Asked, seen: &'a SeenCluster, hop: &'a Hop, talos: &'a Version) -> KubernetesHop<'a> {
    let (from, to, steady, runs) = (&hop.from, &hop.to, asked.limits.steady, asked.table.carried(talos));
    KubernetesHop { seen: &seen.components, from, to, talos, steady, runs }
}

/// What later hops need, on every machine before the first hop: an image that can't be had must not be found out half-way.
/// Each hop pulls its own again, since Talos throws away what lies unused for a while.
fn pulled_ahead(asked: &Asked, seen: &SeenCluster, stretches: &[Stretch]) -> Option<Phase> {
    let mut steps = Vec::new();
    for stretch in stretches.iter().skip(1) {
        match stretch {
            Stretch::Os(hop, risers) => steps.extend(pulls(&format!("{AHEAD}/{}", hop.to), risers)),
            Stretch::Kubernetes(hop, talos) => {
                let hop = kubernetes_hop(asked, seen, hop, talos);
                steps.extend(kubernetes::pulls(&hop, &format!("{AHEAD}/{}", hop.label()), &[]));
            }
        }
    }
    (!steps.is_empty()).then(|| Phase { name: AHEAD.to_owned(), steps, width: 8 })
}

/// Every machine that rises pulls its installer.
fn pulls(prefix: &str, risers: &[Riser]) -> Vec<Planned> {
    let pull = |riser: &Riser| {
        let step = Step::PullInstaller { machine: riser.member.clone(), release: riser.to.clone() };
        planned(format!("{prefix}/{}", riser.member.name), step, &[])
    };
    risers.iter().map(pull).collect()
}

/// The plan's facts, credentials, and each machine as it is.
pub(super) fn looks(seen: &SeenCluster) -> Vec<Planned> {
    let facts = planned("check/facts", Step::ConfirmFacts, &[]);
    let controlplanes = members(seen, Some(Role::ControlPlane));
    let access = planned(ACCESS, Step::OpenAccess { controlplanes }, &[&facts.id]);
    let meet = seen.members.iter().map(|seen| {
        let step = Step::MeetMachine { machine: seen.member.clone(), version: seen.version.clone() };
        planned(met(&seen.member).as_str(), step, &[&facts.id])
    });
    let meet: Vec<Planned> = meet.collect();
    [facts, access].into_iter().chain(meet).collect()
}

/// All of that, and the cluster is well.
fn check(seen: &SeenCluster) -> Phase {
    let mut steps = looks(seen);
    let meet: Vec<StepId> = seen.members.iter().map(|seen| met(&seen.member)).collect();
    steps.push(health(seen, "check/health", &meet.iter().collect::<Vec<_>>()));
    Phase { name: "check".to_owned(), steps, width: 8 }
}

/// Etcd can spare a control plane, where one goes down; after all other checks.
fn spare(seen: &SeenCluster, stretches: &[Stretch], checks: &[Planned]) -> Option<Planned> {
    let control = |riser: &Riser| riser.member.role == Role::ControlPlane;
    let reboots = |stretch: &Stretch| matches!(stretch, Stretch::Os(_, risers) if risers.iter().any(control));
    let after: Vec<&StepId> = checks.last().map(|planned| &planned.id).into_iter().collect();
    let step = Step::ConfirmEtcd { control: seen.control() };
    stretches.iter().any(reboots).then(|| planned("check/etcd", step, &after))
}

/// Talos' own health checks of the whole cluster.
pub(super) fn health(seen: &SeenCluster, id: &str, after: &[&StepId]) -> Planned {
    let of = |role: Role| members(seen, Some(role)).iter().map(met).collect();
    planned(id, Step::AwaitHealthy { controlplanes: of(Role::ControlPlane), workers: of(Role::Worker) }, after)
}

fn members(seen: &SeenCluster, role: Option<Role>) -> Vec<Member> {
    let of = seen.members.iter().filter(|seen| role.is_none_or(|role| seen.member.role == role));
    of.map(|seen| seen.member.clone()).collect()
}

/// One hop of Talos: the installer on every machine that rises, before the first of them goes down; then control planes
/// one by one, then workers.
fn os(
    asked: &Asked,
    seen: &SeenCluster,
    hop: &Hop,
    risers: &[Riser],
    boots: &mut BTreeMap<MachineName, StepId>,
) -> Vec<Phase> {
    let label = &hop.to;
    let name = format!("pull-{label}");
    let pull = Phase { steps: pulls(&name, risers), name, width: 8 };
    let mut phases = vec![pull];
    for (name, role) in [("controlplanes", Role::ControlPlane), ("workers", Role::Worker)] {
        let of: Vec<&Riser> = risers.iter().filter(|riser| riser.member.role == role).collect();
        if of.is_empty() {
            continue;
        }
        let name = format!("{name}-{label}");
        let width = match role {
            Role::ControlPlane => 1,
            Role::Worker => {
                asked.parallel.of(seen.members.iter().filter(|seen| seen.member.role == Role::Worker).count())
            }
        };
        let steps = of.into_iter().flat_map(|riser| rise(asked, seen, &name, riser, boots)).collect();
        phases.push(Phase { name, steps, width });
    }
    phases
}

/// One machine, from the release on its disk to its node that is steady again. Each step stands on the one before.
fn rise(
    asked: &Asked,
    seen: &SeenCluster,
    phase: &str,
    riser: &Riser,
    boots: &mut BTreeMap<MachineName, StepId>,
) -> Vec<Planned> {
    let Riser { member, from, leaves, to } = riser;
    let manner =
        Manner { way: Way::of(from, &to.version, asked.stage), reboot: asked.reboot, kernel_log: asked.kernel_log };
    let id = |what: &str| format!("{phase}/{}/{what}", member.name);
    let mut steps: Vec<Planned> = Vec::new();
    let mut push = |what: &str, step: Step| {
        let after: Vec<StepId> = steps.last().map(|planned| planned.id.clone()).into_iter().collect();
        steps.push(planned(id(what), step, &after.iter().collect::<Vec<_>>()));
    };
    if manner.way == Way::Written {
        push("write", Step::WriteRelease { machine: member.clone(), release: to.clone() });
    }
    let drain = drains(asked, seen);
    for step in emptied(asked, seen, member, &id) {
        push(step.id.as_str().rsplit('/').next().unwrap_or_default(), step.step);
    }
    let upgrade = Step::UpgradeMachine {
        machine: member.clone(),
        before: boots.get(&member.name).cloned().unwrap_or_else(|| met(member)),
        from: from.clone(),
        leaves: leaves.clone(),
        release: to.clone(),
        manner,
        control: seen.control(),
        drain,
    };
    push("upgrade", upgrade);
    let upgraded = StepId::new(id("upgrade"));
    boots.insert(member.name.clone(), upgraded.clone());
    if let Some(last) = steps.pop() {
        steps.extend(settled(asked, seen, member, &id, last));
    }
    steps
}

/// Its pods leave, where another machine could take them.
pub(super) fn emptied(asked: &Asked, seen: &SeenCluster, member: &Member, id: &dyn Fn(&str) -> String) -> Vec<Planned> {
    let Some(within) = drains(asked, seen) else { return Vec::new() };
    let cordon = planned(id("cordon"), Step::CordonNode { machine: member.clone() }, &[]);
    let drain = Step::DrainNode { machine: member.clone(), within, leftover: Leftover::Stay };
    let drain = planned(id("drain"), drain, &[&cordon.id]);
    vec![cordon, drain]
}

/// The reboot, and what follows it: pods may come again, and the node stays Ready.
pub(super) fn settled(
    asked: &Asked,
    seen: &SeenCluster,
    member: &Member,
    id: &dyn Fn(&str) -> String,
    reboot: Planned,
) -> Vec<Planned> {
    let steady = Step::AwaitUpgraded {
        machine: member.clone(),
        upgraded: reboot.id.clone(),
        control: seen.control(),
        steady: asked.limits.steady,
    };
    if drains(asked, seen).is_none() {
        let steady = planned(id("steady"), steady, &[&reboot.id]);
        return vec![reboot, steady];
    }
    let uncordon = planned(id("uncordon"), Step::UncordonNode { machine: member.clone() }, &[&reboot.id]);
    let steady = planned(id("steady"), steady, &[&uncordon.id]);
    vec![reboot, uncordon, steady]
}

/// How long a drain may take; none where no other machine could take the pods.
pub(super) fn drains(asked: &Asked, seen: &SeenCluster) -> Option<u64> {
    (seen.members.len() > 1).then_some(asked.limits.drain)
}

/// What the machines say of themselves, Talos' health checks, and what ran before.
fn verify(seen: &SeenCluster, stretches: &[Stretch]) -> Phase {
    let health = health(seen, "verify/health", &[]);
    let mut last = BTreeMap::new();
    for stretch in stretches {
        if let Stretch::Os(_, risers) = stretch {
            last.extend(risers.iter().map(|riser| (riser.member.name.clone(), riser)));
        }
    }
    let machines: Vec<ExpectedMachine> = seen
        .members
        .iter()
        .filter_map(|seen| last.get(&seen.member.name))
        .map(|riser| ExpectedMachine {
            machine: riser.member.name.clone(),
            at: met(&riser.member),
            version: riser.to.version.clone(),
            schematic: riser.to.schematic.clone(),
        })
        .collect();
    let mut steps = vec![health];
    if !machines.is_empty() {
        steps.push(planned("verify/machines", Step::ConfirmMachines { machines }, &[&steps[0].id]));
    }
    let last: Vec<StepId> = steps.last().map(|planned| planned.id.clone()).into_iter().collect();
    steps.push(planned("verify/workloads", Step::CompareWorkloads, &last.iter().collect::<Vec<_>>()));
    Phase { name: "verify".to_owned(), steps, width: 1 }
}

/// Profile, lock and talosconfig say what runs now.
fn finish(asked: &Asked, seen: &SeenCluster, stretches: &[Stretch], after: &Versions) -> Phase {
    let mut steps: Vec<Planned> = Vec::new();
    let mut push = |id: &str, step: Step| {
        let before: Vec<StepId> = steps.last().map(|planned| planned.id.clone()).into_iter().collect();
        steps.push(planned(id, step, &before.iter().collect::<Vec<_>>()));
    };
    let mut set = BTreeMap::new();
    // A cluster of which only a part was upgraded is not what the profile would say.
    if asked.nodes.is_none() {
        set.insert("talos.version".to_owned(), after.talos.to_string());
        set.insert("talos.kubernetes_version".to_owned(), after.kubernetes.to_string());
        set.extend(asked.edits.clone());
    }
    if !set.is_empty() {
        push("finish/profile", Step::EditProfile { set });
    }
    let rises = stretches.iter().any(|stretch| matches!(stretch, Stretch::Os(..)));
    if rises && !asked.recipes.is_empty() {
        push("finish/lock", Step::LockSchematics { schematics: asked.recipes.clone() });
    }
    if let Some(first) = members(seen, Some(Role::ControlPlane)).first() {
        push("finish/access", Step::SaveAccess { machine: first.name.clone(), at: met(first) });
    }
    push("finish/contexts", Step::CleanContexts { which: Contexts::Superseded });
    if let Some(git) = asked.errands.git.filter(|_| asked.nodes.is_none()) {
        let message = if rises {
            format!("feat(talos): upgrade to Talos {}", after.talos.tag())
        } else {
            format!("feat(talos): upgrade to Kubernetes {}", after.kubernetes.tag())
        };
        push("finish/commit", Step::CommitFiles { message, push: git == Git::Push });
    }
    push("finish/talosctl", Step::CompareTalosctl { version: after.talos.clone() });
    if let Some(command) = asked.errands.hooks.get(&Moment::Finished) {
        push("finish/hook", Step::RunHook { moment: Moment::Finished, command: command.clone() });
    }
    Phase { name: "finish".to_owned(), steps, width: 1 }
}
