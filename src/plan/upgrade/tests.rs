//! Plans of upgrades, by example: a cluster of three and two, of one, and of two.

mod way_back;

use std::collections::BTreeMap;

use super::make::{make, way};
use super::*;
use crate::plan::compatibility::Table;
use crate::plan::data::CopyTo;
use crate::plan::gates::Here;
use crate::plan::lint::lint;
use crate::plan::observed::{Complaint, Observed, Severity};
use crate::plan::step::VmIdentity;
use crate::plan::{Plan, Step};
use crate::types::{StepId, VmId};

const OLD: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
const NEW: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
const RELEASED: &[&str] = &["1.11.6", "1.12.4", "1.12.11", "1.13.0", "1.13.9", "1.14.0"];

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn released() -> Vec<Version> {
    RELEASED.iter().map(|text| version(text)).collect()
}

fn member(number: u8, role: Role, talos: &str) -> SeenMember {
    let kind = if role == Role::ControlPlane { "cp" } else { "worker" };
    SeenMember {
        member: Member {
            name: format!("{kind}-{number:02}").as_str().into(),
            role,
            address: [10, 0, 0, number].into(),
        },
        version: version(talos),
        schematic: Some(OLD.into()),
        extensions: BTreeSet::new(),
        platform: "nocloud".to_owned(),
        kubelet: Some(version("1.34.1")),
        cordon: Cordon::Open,
    }
}

fn cluster(control: u8, workers: u8, talos: &str) -> SeenCluster {
    let control = (1..=control).map(|number| member(number, Role::ControlPlane, talos));
    let members: Vec<SeenMember> =
        control.chain((11..11 + workers).map(|number| member(number, Role::Worker, talos))).collect();
    let machines = members.iter().enumerate().map(|(index, seen)| OldMachine {
        vm: VmIdentity {
            node: "pve1".into(),
            vmid: VmId(1100 + u32::try_from(index).unwrap()),
            name: seen.member.name.to_string(),
            uuid: format!("5f3f1d0e-0000-4000-8000-{index:012}"),
            vmgenid: None,
            tags: vec!["talos".to_owned()],
            created: None,
            disks: BTreeMap::new(),
        },
        role: seen.member.role,
        address: Some(seen.member.address),
    });
    let machines = machines.collect();
    SeenCluster { members, silent: Vec::new(), kubernetes: Some(version("1.34.1")), machines, ..SeenCluster::default() }
}

fn asked(talos: &str, kubernetes: &str) -> Asked {
    let installers = RELEASED.iter().flat_map(|text| {
        [OLD, NEW].map(|schematic| Release {
            version: version(text),
            schematic: schematic.into(),
            image: format!("factory.example/nocloud-installer/{schematic}:v{text}"),
        })
    });
    Asked {
        run: "2026-11-21T12-00-00".into(),
        cluster: "lab".to_owned(),
        profile: Sha256::of(b"profile"),
        secrets: Sha256::of(b"secrets"),
        endpoint: "https://10.0.0.9:6443".to_owned(),
        wanted: Versions { talos: version(talos), kubernetes: version(kubernetes) },
        schematics: [(Role::ControlPlane, OLD.into()), (Role::Worker, OLD.into())].into(),
        extensions: BTreeMap::new(),
        recipes: BTreeMap::new(),
        installers: installers.collect(),
        vms: Vec::new(),
        nodes: None,
        only: Only::Both,
        bound: Bound::Up,
        parallel: Parallel::Count(1),
        stage: Stage::Now,
        reboot: Reboot::Default,
        kernel_log: KernelLog::Unheard,
        hops: Hops::Any,
        table: Table::built_in().clone(),
        keep: Keep { dir: "/b".into(), copies: vec![CopyTo::Path("/c".into())], max_age: 600, require_copy: false },
        limits: Limits { shutdown: 120, boot: 300, health: 600, task: 600, steady: 30, drain: 300 },
        errands: Errands::default(),
        edits: BTreeMap::new(),
    }
}

fn planned(asked: &Asked, seen: &SeenCluster) -> Plan {
    let hops = way(asked, seen, &released()).unwrap();
    let plan = make(asked, seen, &hops).unwrap();
    assert_eq!(lint(&plan), []);
    plan
}

fn phases(plan: &Plan) -> Vec<(&str, usize)> {
    plan.phases.iter().map(|phase| (phase.name.as_str(), phase.width)).collect()
}

/// Who reboots, in the plan's order, and into what.
fn reboots(plan: &Plan) -> Vec<String> {
    let reboots = plan.steps().filter_map(|planned| match &planned.step {
        Step::UpgradeMachine { machine, from, release, .. } => {
            Some(format!("{} {from} -> {}", machine.name, release.version))
        }
        _ => None,
    });
    reboots.collect()
}

#[test]
fn a_hop_pulls_everywhere_then_takes_control_planes_one_by_one_then_workers() {
    let asked = Asked { only: Only::Os, parallel: Parallel::Percent(50), ..asked("1.13.9", "1.34.1") };
    let plan = planned(&asked, &cluster(3, 4, "1.12.4"));
    assert_eq!(
        phases(&plan),
        [
            ("check", 8),
            ("backup", 4),
            ("pull-1.13.9", 8),
            ("controlplanes-1.13.9", 1),
            ("workers-1.13.9", 2),
            ("verify", 1),
            ("finish", 1),
        ]
    );
    let last = plan.phases[0].steps.last().unwrap();
    assert!(matches!(&last.step, Step::ConfirmEtcd { control } if control.len() == 3), "{last:?}");
    assert_eq!(last.after, [StepId::new("check/health")]);
    assert_eq!(plan.phases[2].steps.len(), 7, "all machines pull before the first goes down");
    let order = reboots(&plan);
    assert_eq!(order[..3], ["cp-01 1.12.4 -> 1.13.9", "cp-02 1.12.4 -> 1.13.9", "cp-03 1.12.4 -> 1.13.9"]);
    assert_eq!(order.len(), 7);
    assert_eq!(plan.verb.to_string(), "upgrade");
    assert!(plan.destroys.is_empty() && plan.facts.victims.len() == 7);
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn several_hops_stand_on_the_boot_of_the_one_before() {
    let asked = Asked { only: Only::Os, ..asked("1.13.9", "1.34.1") };
    let plan = planned(&asked, &cluster(1, 0, "1.11.6"));
    assert_eq!(reboots(&plan), ["cp-01 1.11.6 -> 1.12.11", "cp-01 1.12.11 -> 1.13.9"]);
    let before: Vec<&str> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::UpgradeMachine { before, .. } => Some(before.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(before, ["check/cp-01", "controlplanes-1.12.11/cp-01/upgrade"]);
    let drains = plan.steps().filter(|planned| planned.id.as_str().ends_with("/drain")).count();
    assert_eq!(drains, 0, "nobody could take its pods");
}

#[test]
fn a_machine_that_is_further_already_is_left_alone() {
    let mut seen = cluster(3, 0, "1.12.4");
    seen.members[0].version = version("1.13.9");
    let plan = planned(&Asked { only: Only::Os, ..asked("1.13.9", "1.34.1") }, &seen);
    assert_eq!(reboots(&plan), ["cp-02 1.12.4 -> 1.13.9", "cp-03 1.12.4 -> 1.13.9"]);
    for seen in &mut seen.members {
        seen.version = version("1.13.9");
    }
    let plan = planned(&Asked { only: Only::Os, ..asked("1.13.9", "1.34.1") }, &seen);
    assert!(plan.phases.is_empty(), "nothing to do");
}

#[test]
fn another_schematic_alone_is_a_hop_of_its_own_and_comes_with_the_last_one_otherwise() {
    let other = Asked {
        schematics: [(Role::ControlPlane, NEW.into()), (Role::Worker, OLD.into())].into(),
        only: Only::Os,
        ..asked("1.12.4", "1.34.1")
    };
    let plan = planned(&other, &cluster(3, 1, "1.12.4"));
    assert_eq!(reboots(&plan), ["cp-01 1.12.4 -> 1.12.4", "cp-02 1.12.4 -> 1.12.4", "cp-03 1.12.4 -> 1.12.4"]);
    assert_eq!(plan.hops[0].because, "the schematic changes, not the version");
    let plan = planned(&Asked { wanted: asked("1.14.0", "1.34.1").wanted, ..other }, &cluster(1, 0, "1.12.4"));
    let schematics: Vec<&str> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::UpgradeMachine { release, .. } => Some(release.schematic.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(schematics, [OLD, NEW], "between, it keeps what it is made from");
}

#[test]
fn the_way_of_writing_follows_what_runs() {
    let way = |from: &str, to: &str, stage| Way::of(&from.parse().unwrap(), &to.parse().unwrap(), stage);
    assert_eq!(way("1.7.7", "1.8.3", Stage::Now), Way::Whole { keep: true, staged: false });
    assert_eq!(way("1.8.0", "1.9.5", Stage::Now), Way::Whole { keep: false, staged: false });
    assert_eq!(way("1.8.0", "1.7.7", Stage::Now), Way::Whole { keep: true, staged: false }, "the installer wipes");
    assert_eq!(way("1.12.11", "1.13.0", Stage::NextBoot), Way::Whole { keep: false, staged: true });
    assert_eq!(way("1.13.0", "1.13.9", Stage::Now), Way::Written);
    assert_eq!(way("1.13.0", "1.13.9", Stage::NextBoot), Way::Whole { keep: false, staged: true });
}

#[test]
fn only_some_machines_leave_the_profile_as_it_is() {
    let asked = Asked { nodes: Some(vec!["worker-11".to_owned()]), ..asked("1.13.9", "1.35.0") };
    let plan = planned(&asked, &cluster(3, 2, "1.12.4"));
    assert_eq!(reboots(&plan), ["worker-11 1.12.4 -> 1.13.9"]);
    assert_eq!(plan.after.as_ref().unwrap().talos, version("1.12.4"), "the oldest names the cluster");
    let of_the_whole = |step: &Step| matches!(step, Step::EditProfile { .. } | Step::ConfirmEtcd { .. });
    assert!(!plan.steps().any(|planned| of_the_whole(&planned.step)));
}

#[test]
fn workers_at_once_are_a_number_or_a_part() {
    let of = |text: &str, all: usize| text.parse::<Parallel>().map(|parallel| parallel.of(all));
    assert_eq!((of("2", 4).unwrap(), of("25%", 4).unwrap(), of("10%", 4).unwrap(), of("9", 4).unwrap()), (2, 1, 1, 4));
    assert!(of("0", 4).is_err() && of("101%", 4).is_err() && of("x", 4).is_err());
}

type Spoil = fn(&mut Asked, &mut SeenCluster, &mut Observed);

#[test]
fn what_stands_in_the_way_is_named() {
    let cases: &[(Spoil, &str)] = &[
        (|asked, _, _| asked.nodes = Some(vec!["cp-09".to_owned()]), "cp-09 is no machine of the profile"),
        (|_, running, _| running.members.truncate(2), "etcd has two members"),
        (|_, _, seen| seen.cluster = None, "no machine of cluster lab answers"),
        (
            |_, _, seen| {
                let complaint = Complaint::of_cluster("etcd has no space left");
                seen.cluster.as_mut().unwrap().unhealthy.push(complaint);
            },
            "the running cluster is not healthy: etcd has no space left",
        ),
        (
            |_, _, seen| seen.cluster.as_mut().unwrap().differing_secrets.push("the Talos CA".to_owned()),
            "the Talos CA of the running cluster is another than the secrets file's",
        ),
        (
            |_, running, _| running.silent.push(("cp-03".to_owned(), "refused".to_owned())),
            "cp-03 could not be looked at: refused",
        ),
        (|_, running, _| running.members[0].cordon = Cordon::Theirs, "Kubernetes node cp-01 takes no new pods"),
        (|_, running, _| running.members[0].cordon = marked(), "Kubernetes node cp-01 takes no new pods"),
        (|_, running, _| running.members[0].platform = "metal".to_owned(), "for the platform metal"),
        (
            |asked, running, _| {
                asked.schematics.insert(Role::ControlPlane, NEW.into());
                asked.extensions.insert(NEW.into(), ["siderolabs/iscsi-tools".to_owned()].into());
                running.members[0].extensions = ["qemu-guest-agent".to_owned(), "iscsi-tools".to_owned()].into();
            },
            "would take qemu-guest-agent from cp-01",
        ),
    ];
    for (spoil, words) in cases {
        let (mut asked, mut running) = (asked("1.13.9", "1.34.1"), cluster(3, 0, "1.12.4"));
        let mut seen = Observed { cluster: Some(crate::plan::observed::SeenCluster::default()), ..Observed::default() };
        assert_eq!(gates::findings(&asked, &seen, &running, &Here::default()), []);
        spoil(&mut asked, &mut running, &mut seen);
        let found = gates::findings(&asked, &seen, &running, &Here::default());
        let refusal = found.iter().find(|finding| finding.what.contains(words));
        let refusal = refusal.unwrap_or_else(|| panic!("{words}: {found:?}"));
        assert_eq!(refusal.severity, Severity::Refusal);
        assert!(refusal.hint.as_ref().is_some_and(|hint| !hint.is_empty()), "{words}");
    }
}

/// By a run that stopped.
fn marked() -> Cordon {
    Cordon::Marked { by: "2026-11-20T12-00-00".to_owned() }
}

#[test]
fn the_only_control_plane_goes_with_a_warning() {
    let seen = Observed { cluster: Some(crate::plan::observed::SeenCluster::default()), ..Observed::default() };
    let found = gates::findings(&asked("1.13.9", "1.34.1"), &seen, &cluster(1, 0, "1.12.4"), &Here::default());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
}

#[test]
fn a_machine_that_is_newer_than_wanted_is_no_reason_to_go_down() {
    let mut running = cluster(3, 0, "1.12.4");
    running.members[2].version = version("1.13.9");
    let asked = asked("1.13.0", "1.34.1");
    let hops = way(&asked, &running, &released()).unwrap();
    let found = gates::on_the_way(&asked, &running, &hops);
    assert_eq!(found[0].what, "cp-03 runs Talos 1.13.9 already, which is newer than 1.13.0");
}

#[test]
fn spoiled_plans_break_a_rule() {
    type Case = (&'static str, fn(&mut Plan), &'static str);
    let cases: &[Case] = &[
        ("two at once", |plan| plan.phases[3].width = 2, "one at a time"),
        ("no proof", |plan| drop(plan.phases.remove(1)), "before the proof of backup"),
        ("no pull", |plan| drop(plan.phases.remove(2)), "not pulled before it goes down"),
        (
            "not steady",
            |plan| plan.phases[3].steps.retain(|planned| !matches!(planned.step, Step::AwaitUpgraded { .. })),
            "is steady again",
        ),
        (
            "twice",
            |plan| {
                let mut again = plan.phases[3].clone();
                again.name = "again".to_owned();
                plan.phases.push(again);
            },
            "goes there twice",
        ),
        ("as a rebuild", |plan| plan.verb = crate::plan::Verb::Rebuild, "reboots no machine"),
    ];
    for (name, spoil, words) in cases {
        let mut plan = planned(&Asked { only: Only::Os, ..asked("1.13.9", "1.34.1") }, &cluster(3, 0, "1.12.4"));
        spoil(&mut plan);
        let notes = lint(&plan);
        assert!(notes.iter().any(|note| note.what.contains(words)), "{name}: {notes:?}");
    }
}
