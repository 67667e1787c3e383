//! Plans of the way back: with the same care, and what is not well first.

use super::*;
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
    let plan = back::make(&asked, &running, &back::Before::new(), &unwell).unwrap();
    assert_eq!(lint(&plan), []);
    let check = &plan.phases[0];
    let health = check.steps.last().unwrap();
    assert!(matches!(health.step, Step::AwaitHealthy { .. }), "{health:?}");
    assert!(health.after.contains(&StepId::new("check/worker-11/uncordon")), "{health:?}");

    // One that is not well and emptied next stays closed until it is back.
    running.members[0].cordon = marked();
    let unwell = back::Unwell::from([MachineName::new("cp-01")]);
    let plan = back::make(&asked, &running, &back::Before::new(), &unwell).unwrap();
    let lifted = plan.phases[0].steps.iter().filter(|planned| matches!(planned.step, Step::UncordonNode { .. }));
    assert_eq!(lifted.map(|planned| planned.id.as_str()).collect::<Vec<_>>(), ["check/worker-11/uncordon"]);
}

#[test]
fn machines_that_are_not_well_go_back_before_the_others_and_control_planes_one_by_one() {
    let asked = Asked { nodes: None, parallel: Parallel::Count(3), ..back_of(&[]) };
    let running = cluster(3, 3, "1.13.9");
    let seen = ill(&["worker-12", "cp-03", "worker-12"].map(|name| Complaint::of(name, "it is booting")));
    let unwell = back::unwell(&asked, &seen, &running);
    let plan = back::make(&asked, &running, &back::Before::new(), &unwell).unwrap();
    assert_eq!(lint(&plan), []);
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
    let before: back::Before = running
        .members
        .iter()
        .map(|seen| (seen.member.name.clone(), asked.installer(&OLD.into(), &version("1.12.4")).unwrap().clone()))
        .collect();
    let plan = back::make(&asked, &running, &before, &back::Unwell::new()).unwrap();
    assert_eq!(lint(&plan), []);
    let names: Vec<(&str, usize)> = phases(&plan);
    assert_eq!(
        names,
        [("check", 8), ("backup", 4), ("controlplanes-back", 1), ("workers-back", 2), ("verify", 1), ("finish", 1)]
    );
    assert_eq!(plan.after.as_ref().unwrap().talos, version("1.12.4"));
    assert_eq!(back::findings(&asked, &running, &before), []);
    let some = Asked { nodes: Some(vec!["worker-11".to_owned()]), ..asked.clone() };
    let plan = back::make(&some, &running, &back::Before::new(), &back::Unwell::new()).unwrap();
    assert_eq!(lint(&plan), []);
    assert_eq!(plan.after, None, "nobody knows");
    assert_eq!(back::findings(&some, &running, &back::Before::new()).len(), 1);
}

#[test]
fn control_planes_do_not_go_back_over_an_etcd_minor_nor_below_what_kubernetes_needs() {
    let asked = asked("1.14.0", "1.36.3");
    let running = cluster(3, 1, "1.14.0");
    let release = |talos: &str| Release { version: version(talos), schematic: OLD.into(), image: "i".to_owned() };
    let all = |talos: &str| -> back::Before {
        running.members.iter().map(|seen| (seen.member.name.clone(), release(talos))).collect()
    };
    let found = back::findings(&asked, &running, &all("1.13.9"));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].what.contains("whose etcd 3.6 can't read the data of etcd 3.7"));
    let found = back::findings(&asked, &cluster(0, 1, "1.13.9"), &all("1.12.11"));
    assert!(found[0].what.contains("does not run Kubernetes 1.36.3"), "{found:?}");
}
