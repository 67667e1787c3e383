//! Plans of the way back: with the same care, and what is not well first.

use super::*;
use crate::plan::Verb;
use crate::plan::upgrade::back::{Return, Unwell, Wrote};
use crate::plan::upgrade::descent::{Descent, Fall, Way as Descents, of_nodes, of_run};
use crate::plan::upgrade::past::{Far, Past, Ran};
use crate::types::MachineName;

/// A look at a cluster about which this is said.
fn ill(complaints: &[Complaint]) -> Observed {
    let cluster = crate::plan::observed::SeenCluster { unhealthy: complaints.to_vec(), ..Default::default() };
    Observed { cluster: Some(cluster), ..Observed::default() }
}

/// What a way back of these machines asks for.
fn back_of(nodes: &[&str]) -> Asked {
    let nodes = nodes.iter().map(ToString::to_string).collect();
    Asked { bound: Bound::Back, nodes: Some(nodes), ..asked("1.13.9", "1.34.1") }
}

fn release(talos: &str) -> Release {
    Release { version: version(talos), schematic: OLD.into(), image: format!("i:{talos}") }
}

/// One hop: these machines go back to that, which their other slots hold.
fn hop(running: &SeenCluster, nodes: Option<&[String]>, talos: &str) -> Descents {
    let falls = running.chosen(nodes).map(|seen| Fall {
        machine: seen.member.name.clone(),
        role: seen.member.role,
        from: seen.version.clone(),
        leaves: seen.schematic.clone(),
        version: version(talos),
        to: Some(release(talos)),
        by: By::OtherSlot,
    });
    let descent = Descent { of: version("1.13.9"), falls: falls.collect() };
    Descents { descents: vec![descent], ..Descents::default() }
}

fn made(asked: &Asked, running: &SeenCluster, way: &Descents, unwell: &Unwell) -> Plan {
    let goes = Return { way, unwell, wrote: Wrote::Nothing, forgets: BTreeSet::new(), stays: None };
    let plan = back::make(asked, running, &goes).unwrap();
    assert_eq!(lint(&plan), []);
    plan
}

#[test]
fn what_somebody_else_cordoned_goes_nowhere_with_the_command_that_lifts_it() {
    for nodes in [&["cp-01"][..], &["worker-11"]] {
        let mut running = cluster(3, 1, "1.13.9");
        running.members[0].cordon = Cordon::Theirs;
        let found = gates::findings(&back_of(nodes), &ill(&[]), &running, &Here::default());
        let refusal = found.iter().find(|finding| finding.what.contains("cp-01 takes no new pods")).unwrap();
        assert_eq!(refusal.severity, Severity::Refusal);
        assert!(refusal.hint.as_ref().unwrap().ends_with("kubectl uncordon cp-01"), "{refusal:?}");
    }
}

#[test]
fn what_a_run_that_stopped_left_cordoned_takes_pods_again_before_the_cluster_is_found_well() {
    let mut running = cluster(3, 1, "1.13.9");
    running.members[3].cordon = marked();
    let asked = back_of(&["cp-01"]);
    let found = gates::findings(&asked, &ill(&[]), &running, &Here::default());
    assert!(found.iter().all(|finding| !finding.what.contains("takes no new pods")), "{found:?}");
    let unwell = back::unwell(&asked, &ill(&[]), &running);
    assert!(unwell.is_empty());
    let way = hop(&running, asked.nodes.as_deref(), "1.12.4");
    let plan = made(&asked, &running, &way, &unwell);
    let check = &plan.phases[0];
    let health = check.steps.last().unwrap();
    assert!(matches!(health.step, Step::AwaitHealthy { .. }), "{health:?}");
    assert!(health.after.contains(&StepId::new("check/worker-11/uncordon")), "{health:?}");

    // One that is not well and emptied next stays closed until it is back.
    running.members[0].cordon = marked();
    let unwell = Unwell::from([MachineName::new("cp-01")]);
    let plan = made(&asked, &running, &way, &unwell);
    let lifted = plan.phases[0].steps.iter().filter(|planned| matches!(planned.step, Step::UncordonNode { .. }));
    assert_eq!(lifted.map(|planned| planned.id.as_str()).collect::<Vec<_>>(), ["check/worker-11/uncordon"]);
}

#[test]
fn machines_that_are_not_well_go_back_before_the_others_and_control_planes_one_by_one() {
    let asked = Asked { nodes: None, parallel: Parallel::Count(3), ..back_of(&[]) };
    let running = cluster(3, 3, "1.13.9");
    let seen = ill(&["worker-12", "cp-03", "worker-12"].map(|name| Complaint::of(name, "it is booting")));
    let unwell = back::unwell(&asked, &seen, &running);
    let plan = made(&asked, &running, &hop(&running, None, "1.12.4"), &unwell);
    let order: Vec<&str> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::RollBackMachine { machine, .. } => Some(machine.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["cp-03", "worker-12", "cp-01", "cp-02", "worker-11", "worker-13"]);
    let expected = [
        ("check", 8),
        ("backup", 4),
        ("unwell-controlplanes-back", 1),
        ("unwell-workers-back", 1),
        ("controlplanes-back", 1),
        ("workers-back", 2),
        ("verify", 1),
        ("finish", 1),
    ];
    assert_eq!(phases(&plan), expected);
    assert!(!plan.phases[0].steps.iter().any(|planned| matches!(planned.step, Step::AwaitHealthy { .. })));
}

#[test]
fn a_machine_that_goes_back_may_be_unwell_and_no_other() {
    let back = back_of(&["cp-01"]);
    let mut running = cluster(3, 0, "1.13.9");
    running.members[0].cordon = marked();
    let severities = |asked: &Asked, seen: &Observed| -> Vec<Severity> {
        let found = gates::findings(asked, seen, &running, &Here::default());
        // There are no VMs here.
        let about = found.iter().filter(|finding| !finding.what.contains("is no machine of the profile"));
        about.map(|finding| finding.severity).collect()
    };
    let why = ill(&[Complaint::of("cp-01", "cp-01 is booting")]);
    assert_eq!(severities(&back, &why), [Severity::Warning]);
    assert_eq!(back::unwell(&back, &why, &running), back::Unwell::from([MachineName::new("cp-01")]));
    let others = [
        Complaint::of("cp-02", "cp-02 is booting"),
        // That a text names it says nothing.
        Complaint::of("cp-011", "cp-011 does not reach cp-01"),
        Complaint::of_cluster("etcd has no space left, says cp-01"),
    ];
    for other in others {
        let seen = ill(&[other]);
        assert_eq!(severities(&back, &seen), [Severity::Refusal], "{seen:?}");
        assert!(back::unwell(&back, &seen, &running).is_empty(), "{seen:?}");
    }
    let up = Asked { bound: Bound::Up, ..back };
    assert_eq!(severities(&up, &why), [Severity::Refusal, Severity::Refusal]);
}

#[test]
fn the_way_back_takes_the_same_care() {
    let asked = Asked { parallel: Parallel::Count(2), ..asked("1.13.9", "1.34.1") };
    let running = cluster(3, 2, "1.13.9");
    let way = hop(&running, None, "1.12.4");
    let plan = made(&asked, &running, &way, &Unwell::new());
    let names: Vec<(&str, usize)> = phases(&plan);
    assert_eq!(
        names,
        [("check", 8), ("backup", 4), ("controlplanes-back", 1), ("workers-back", 2), ("verify", 1), ("finish", 1)]
    );
    assert_eq!(plan.after.as_ref().unwrap().talos, version("1.12.4"));
    assert_eq!(set(&plan), ["talos.version: 1.12.4"]);
    assert_eq!(back::findings(&asked, &running, &way), []);
    // A part of the machines is not what the profile speaks of.
    let some = Asked { nodes: Some(vec!["worker-11".to_owned()]), ..asked };
    let way = hop(&running, some.nodes.as_deref(), "1.12.4");
    assert_eq!(set(&made(&some, &running, &way, &Unwell::new())), [""; 0]);
}

/// What the profile is told.
fn set(plan: &Plan) -> Vec<String> {
    let set = plan.steps().filter_map(|planned| match &planned.step {
        Step::EditProfile { set } => Some(set.iter().map(|(key, value)| format!("{key}: {value}"))),
        _ => None,
    });
    set.flatten().collect()
}

#[test]
fn control_planes_do_not_go_back_over_an_etcd_minor_nor_below_what_kubernetes_needs() {
    let asked = asked("1.14.0", "1.36.3");
    let runs =
        |control: u8, talos: &str| SeenCluster { kubernetes: Some(version("1.36.3")), ..cluster(control, 1, talos) };
    let running = runs(3, "1.14.0");
    let found = back::findings(&asked, &running, &hop(&running, None, "1.13.9"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].what.contains("whose etcd 3.6 can't read the data of etcd 3.7"));
    let running = runs(0, "1.13.9");
    let found = back::findings(&asked, &running, &hop(&running, None, "1.12.11"));
    assert!(found[0].what.contains("does not run Kubernetes 1.36.3"), "{found:?}");
}

/// A run from one Talos to another, of which these steps were begun and came so far.
fn ran(running: &SeenCluster, to: &str, came: &dyn Fn(&StepId) -> Option<Far>) -> (Plan, Past) {
    let asked = Asked { only: Only::Os, ..asked(to, "1.34.1") };
    let plan = planned(&asked, running);
    (plan.clone(), after(Past::default(), &plan, came))
}

fn after(mut past: Past, plan: &Plan, came: &dyn Fn(&StepId) -> Option<Far>) -> Past {
    for planned in plan.steps() {
        if let Some(far) = came(&planned.id) {
            past.add(&planned.step, far);
        }
    }
    past
}

#[expect(clippy::unnecessary_wraps, reason = "it answers what is asked of any run's steps")]
fn all(_: &StepId) -> Option<Far> {
    Some(Far::Done)
}

/// Each hop back, as `machine from -> to` with what brings it.
fn falls(way: &Descents) -> Vec<Vec<String>> {
    let told = |fall: &Fall| format!("{} {} -> {} {:?}", fall.machine, fall.from, fall.version, fall.by);
    way.descents.iter().map(|descent| descent.falls.iter().map(told).collect()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "it answers what is asked of any source of installers")]
fn installer(_: Role, schematic: &SchematicId, talos: &Version) -> Option<Release> {
    Some(Release { schematic: schematic.clone(), ..release(&talos.to_string()) })
}

#[test]
fn a_run_of_several_hops_is_taken_back_the_last_one_first_and_only_that_by_the_disks() {
    let before = cluster(3, 1, "1.11.6");
    let (run, past) = ran(&before, "1.13.9", &all);
    let running = cluster(3, 1, "1.13.9");
    let way = of_run(&run, &|_| true, &running, &past, &installer);
    assert_eq!(way.refusals, []);
    let told = falls(&way);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0][0], "cp-01 1.13.9 -> 1.12.11 OtherSlot");
    assert_eq!(told[1][3], "worker-11 1.12.11 -> 1.11.6 Installer");
    let asked = Asked { only: Only::Os, bound: Bound::Back, ..asked("1.13.9", "1.34.1") };
    assert_eq!(back::findings(&asked, &running, &way), []);
    let plan = made(&asked, &running, &way, &Unwell::new());
    let expected = [
        ("check", 8),
        ("backup", 4),
        ("pull-ahead", 8),
        ("controlplanes-back-from-1.13.9", 1),
        ("workers-back-from-1.13.9", 1),
        ("pull-back-from-1.12.11", 8),
        ("controlplanes-back-from-1.12.11", 1),
        ("workers-back-from-1.12.11", 1),
        ("verify", 1),
        ("finish", 1),
    ];
    assert_eq!(phases(&plan), expected);
    assert_eq!(plan.phases[2].steps.len(), 4, "all machines have what later hops need before the first goes down");
    assert_eq!((plan.verb, set(&plan)), (Verb::GoBack, vec!["talos.version: 1.11.6".to_owned()]));
    let hops: Vec<String> = plan.hops.iter().map(|hop| format!("{} -> {}", hop.from, hop.to)).collect();
    assert_eq!(hops, ["1.13.9 -> 1.12.11", "1.12.11 -> 1.11.6"]);
    let boots = plan.steps().filter_map(|planned| match &planned.step {
        Step::RollBackMachine { machine, before, .. } if machine.name.as_str() == "cp-01" => Some(before.as_str()),
        _ => None,
    });
    assert_eq!(boots.collect::<Vec<_>>(), ["check/cp-01", "controlplanes-back-from-1.13.9/cp-01/back"]);
    // From 1.13 on an installer writes first, and the reboot is a call of its own.
    let written = plan.steps().filter(|planned| matches!(planned.step, Step::WriteRelease { .. })).count();
    assert_eq!(written, 0, "the second hop begins at 1.12");
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_run_that_died_is_taken_back_from_where_each_machine_stands() {
    let (run, _) = ran(&cluster(2, 1, "1.11.6"), "1.13.9", &all);
    // All made the first hop; of the second, cp-01 went and cp-02 was being written.
    let came = |step: &StepId| match step.as_str() {
        "controlplanes-1.13.9/cp-02/upgrade" => Some(Far::Begun),
        step if step.contains("-1.12.11/") || step.starts_with("controlplanes-1.13.9/cp-01/") => Some(Far::Done),
        _ => None,
    };
    let past = after(Past::default(), &run, &came);
    let mut running = cluster(2, 1, "1.12.11");
    running.members[0].version = version("1.13.9");
    let way = of_run(&run, &|step| came(step).is_some(), &running, &past, &installer);
    assert_eq!(way.refusals, []);
    assert_eq!(
        falls(&way),
        [
            vec!["cp-01 1.13.9 -> 1.12.11 OtherSlot"],
            vec![
                "cp-01 1.12.11 -> 1.11.6 Installer",
                // Nobody knows how much of the newer one lies there.
                "cp-02 1.12.11 -> 1.11.6 Installer",
                "worker-11 1.12.11 -> 1.11.6 OtherSlot",
            ],
        ]
    );
    // While cp-02 is not well, cp-01 may not go down: it steps first, though its hop comes later.
    let plan = made(&back_of(&[]), &running, &way, &Unwell::from(["cp-02".into()]));
    let reboots = plan.steps().filter_map(|planned| match &planned.step {
        Step::RollBackMachine { machine, from, .. } => Some(format!("{} {from}", machine.name)),
        _ => None,
    });
    assert_eq!(reboots.collect::<Vec<_>>(), ["cp-02 1.12.11", "cp-01 1.13.9", "cp-01 1.12.11", "worker-11 1.12.11"]);
    // One that is where the run found it stays; one that went elsewhere stops all.
    running.members[2].version = version("1.11.6");
    let way = of_run(&run, &|step| came(step).is_some(), &running, &past, &installer);
    assert!(way.refusals.is_empty() && !way.takes(&MachineName::new("worker-11")), "{way:?}");
    running.members[2].version = version("1.14.0");
    let way = of_run(&run, &|step| came(step).is_some(), &running, &past, &installer);
    assert!(way.refusals[0].what.contains("worker-11 runs Talos 1.14.0"), "{way:?}");
    assert!(way.refusals[0].what.contains("did not bring it there"), "{way:?}");
}

#[test]
fn by_name_a_machine_goes_back_by_one_release_each_time_and_never_forward() {
    let (run, past) = ran(&cluster(1, 1, "1.11.6"), "1.13.9", &all);
    let nodes = ["worker-11".to_owned()];
    let mut running = cluster(1, 1, "1.13.9");
    let way = of_nodes(&nodes, &running, &past, &installer);
    assert_eq!(falls(&way), [["worker-11 1.13.9 -> 1.12.11 OtherSlot"]]);
    let asked = back_of(&["worker-11"]);
    let plan = made(&asked, &running, &way, &Unwell::new());

    running.members[1].version = version("1.12.11");
    let past = after(past, &plan, &all);
    let way = of_nodes(&nodes, &running, &past, &installer);
    assert_eq!(falls(&way), [["worker-11 1.12.11 -> 1.11.6 Installer"]], "the other slot holds the newer one");
    let plan = made(&asked, &running, &way, &Unwell::new());

    running.members[1].version = version("1.11.6");
    let past = after(past, &plan, &all);
    let way = of_nodes(&nodes, &running, &past, &installer);
    assert_eq!(way.descents, []);
    let refusal = &way.refusals[0];
    assert!(refusal.what.contains("no run of recast knows a release that worker-11 ran before Talos 1.11.6"));
    assert!(refusal.what.contains("its other slot holds Talos 1.12.11"), "{refusal:?}");

    // What all of the run takes back begins where each machine stands.
    let mut running = cluster(1, 1, "1.13.9");
    running.members[1].version = version("1.11.6");
    let way = of_run(&run, &|_| true, &running, &past, &installer);
    assert_eq!(falls(&way), [["cp-01 1.13.9 -> 1.12.11 OtherSlot"], ["cp-01 1.12.11 -> 1.11.6 Installer"]]);
}

#[test]
fn what_was_written_and_not_kept_is_no_release_to_go_back_by() {
    let (_, past) = ran(&cluster(1, 0, "1.12.4"), "1.12.11", &all);
    let running = cluster(1, 0, "1.12.11");
    let seen = &running.members[0];
    assert_eq!(past.other_slot(seen), Some(&Ran { version: version("1.12.4"), schematic: Some(OLD.into()) }));
    // A later run wrote beside it, and the machine fell back, or was never told to reboot.
    for last in ["/write", "/upgrade"] {
        let later = planned(&Asked { only: Only::Os, ..asked("1.14.0", "1.34.1") }, &cluster(1, 0, "1.13.9"));
        let came = |step: &StepId| step.as_str().ends_with(last).then_some(Far::Begun);
        let past = after(past.clone(), &later, &came);
        assert_eq!(past.other_slot(seen), None, "{last}");
        assert_eq!(past.before(seen).unwrap().version, version("1.12.4"), "{last}");
    }
    // What waits to be booted is written over, where the machine is to stay.
    let later = planned(&Asked { only: Only::Os, ..asked("1.13.9", "1.34.1") }, &cluster(1, 0, "1.13.0"));
    let came = |step: &StepId| step.as_str().ends_with("/write").then_some(Far::Done);
    let waits = after(Past::default(), &later, &came);
    let stays = cluster(1, 0, "1.13.0");
    let way = of_run(&later, &|step| came(step).is_some(), &stays, &waits, &installer);
    assert_eq!((way.descents.len(), way.stays[0].release.version.clone()), (0, version("1.13.0")));
    let plan = made(&back_of(&[]), &stays, &way, &Unwell::new());
    let written = plan.steps().filter_map(|planned| match &planned.step {
        Step::WriteRelease { release, .. } => Some(release.version.clone()),
        _ => None,
    });
    assert_eq!(written.collect::<Vec<_>>(), [version("1.13.0")]);
    let kept = after(waits, &plan, &all);
    assert_eq!(of_run(&later, &|step| came(step).is_some(), &stays, &kept, &installer), Descents::default());
    // Nobody knows what a machine went through that was made anew.
    let mut past = past;
    let anew = Step::BootstrapEtcd { machine: "cp-01".into(), at: StepId::new("x") };
    past.add(&anew, Far::Begun);
    assert!(past.before(seen).is_some());
    past.add(&anew, Far::Done);
    assert_eq!((past.before(seen), past.other_slot(seen)), (None, None));
}

#[test]
fn as_far_back_as_kubernetes_and_etcd_allow_is_told_with_its_commands() {
    let (run, past) = ran(&cluster(1, 1, "1.11.6"), "1.13.9", &all);
    let running = SeenCluster { kubernetes: Some(version("1.35.4")), ..cluster(1, 1, "1.13.9") };
    let way = of_run(&run, &|_| true, &running, &past, &installer);
    let asked = asked("1.13.9", "1.35.4");
    let found = back::findings(&asked, &running, &way);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].what.contains("cp-01 ran Talos 1.11.6 before, which does not run Kubernetes 1.35.4"), "{found:?}");
    let far = back::as_far_as(&asked, &running, &way).unwrap();
    assert!(far.what.contains("as far as Talos 1.12.11"), "{far:?}");
    assert!(far.hint.unwrap().ends_with("one hop at a time: `recast rollback --nodes cp-01,worker-11`"));
    // Not a single hop, or all of them.
    for kubernetes in ["1.36.3", "1.34.1"] {
        let running = SeenCluster { kubernetes: Some(version(kubernetes)), ..running.clone() };
        assert_eq!(back::as_far_as(&asked, &running, &way), None, "{kubernetes}");
    }
}

#[test]
fn a_kubernetes_that_stays_is_told_to_the_profile() {
    let running = SeenCluster { kubernetes: Some(version("1.35.4")), ..cluster(1, 1, "1.13.9") };
    let asked = asked("1.13.9", "1.34.1");
    let (way, unwell) = (hop(&running, Some(&["cp-01".to_owned()]), "1.12.11"), Unwell::new());
    let stays = Some(version("1.35.4"));
    let (wrote, forgets) = (Wrote::Nothing, BTreeSet::new());
    let part = Return { way: &way, unwell: &unwell, wrote, forgets, stays };
    let plan = back::make(&asked, &running, &part).unwrap();
    assert_eq!(set(&plan), ["talos.kubernetes_version: 1.35.4"]);
    let told = Return { wrote: Wrote::Talos, ..part };
    let plan = back::make(&asked, &running, &told).unwrap();
    assert_eq!(set(&plan), ["talos.kubernetes_version: 1.35.4", "talos.version: 1.12.11"]);
    assert_eq!(plan.after.unwrap(), Versions { talos: version("1.12.11"), kubernetes: version("1.35.4") });
}
