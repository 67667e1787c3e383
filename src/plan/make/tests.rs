use super::*;
use crate::plan::Step;
use crate::plan::lint::lint;
use crate::plan::sample::{seen, vm, wanted};

fn phases(plan: &Plan) -> Vec<&str> {
    plan.phases.iter().map(|phase| phase.name.as_str()).collect()
}

#[test]
fn a_rebuild_has_the_phases_of_the_design_in_order_and_breaks_no_rule() {
    let plan = make(&wanted(), &seen()).unwrap();
    assert_eq!(lint(&plan), []);
    let expected = [
        "check",
        "image",
        "template",
        "canary",
        "freeze",
        "retire",
        "provision",
        "configure",
        "bootstrap",
        "verify",
        "finish",
    ];
    assert_eq!(phases(&plan), expected);
    assert_eq!(plan.destroys.len(), 1);
    assert_eq!(plan.vms[0].replaces, Some(VmId(1100)));
    assert_eq!(plan.vms[0].mac, Some("BC:24:11:00:11:00".parse().unwrap()), "the MAC is taken over");
}

fn steps(plan: &Plan) -> Vec<&str> {
    plan.steps().map(|planned| planned.id.as_str()).collect()
}

#[test]
fn a_create_has_the_second_half_and_a_teardown_the_first() {
    let mut wanted = wanted();
    wanted.verb = Verb::Create;
    let mut none = seen();
    none.vms.clear();
    none.vmids.remove(&VmId(1100));
    let create = make(&wanted, &none).unwrap();
    assert_eq!(lint(&create), []);
    assert!(["freeze", "retire"].iter().all(|name| !phases(&create).contains(name)), "{:?}", phases(&create));
    assert_eq!((create.verb, create.destroys.len(), create.after.is_some()), (Verb::Create, 0, true));
    wanted.verb = Verb::Teardown;
    let teardown = make(&wanted, &seen()).unwrap();
    assert_eq!(lint(&teardown), []);
    assert_eq!(phases(&teardown), ["check", "freeze", "retire", "finish"]);
    assert_eq!((teardown.vms.len(), teardown.destroys.len(), teardown.after), (0, 1, None));
    assert_eq!(teardown.facts.free, []);
}

#[test]
fn a_teardown_that_keeps_the_data_saves_and_freezes_as_a_rebuild_does() {
    use crate::plan::errands::Errands;
    use crate::plan::sample::{keeping, seen_of_five};
    use crate::plan::step::Moment;
    let hooks = [(Moment::BeforeRetire, "true".to_owned())].into();
    let mut wanted = Wanted { errands: Errands { hooks, ..Errands::default() }, ..keeping() };
    let rebuild = make(&wanted, &seen_of_five()).unwrap();
    assert_eq!(lint(&rebuild), []);
    wanted.verb = Verb::Teardown;
    let teardown = make(&wanted, &seen_of_five()).unwrap();
    assert_eq!(lint(&teardown), []);
    assert_eq!(phases(&teardown), ["check", "backup", "freeze", "retire", "finish"]);
    let of = |plan: &Plan, name: &str| {
        let phase = plan.phases.iter().find(|phase| phase.name == name).unwrap();
        phase.steps.iter().map(|planned| planned.id.to_string()).collect::<Vec<_>>()
    };
    for phase in ["backup", "freeze", "retire"] {
        assert_eq!(of(&rebuild, phase), of(&teardown, phase));
    }
    assert!(of(&rebuild, "bootstrap").contains(&"bootstrap/data".to_owned()));
    assert_eq!(of(&rebuild, "freeze").last().map(String::as_str), Some("freeze/hook"));
}

#[test]
fn hooks_and_what_is_applied_stand_where_they_belong() {
    use crate::plan::errands::{Apply, Errands, Flux, Git};
    use crate::plan::step::Moment;
    let mut wanted = wanted();
    let moments = [Moment::BeforeRetire, Moment::AfterBootstrap, Moment::Finished];
    wanted.errands = Errands {
        hooks: moments.into_iter().map(|moment| (moment, format!("./{moment}"))).collect(),
        apply: vec![Apply::Command("helm install cilium".to_owned())],
        git: Some(Git::Push),
        flux: Some(Flux { repo: "r".to_owned(), path: "p".to_owned(), branch: None, secrets: Vec::new() }),
    };
    let plan = make(&wanted, &seen()).unwrap();
    assert_eq!(lint(&plan), []);
    let ids = steps(&plan);
    let at = |id: &str| ids.iter().position(|found| *found == id).unwrap_or_else(|| panic!("{id} in {ids:?}"));
    let order = [
        "freeze/single-cp-01/shutdown",
        "freeze/hook",
        "retire/single-cp-01/delete",
        "bootstrap/access",
        "bootstrap/apply-1",
        "bootstrap/hook",
        "verify/stale",
        "verify/health",
        "finish/profile",
        "finish/lock",
        "finish/contexts",
        "finish/commit",
        "finish/flux",
        "finish/hook",
    ];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{ids:?}");
    let commit = plan.steps().find(|planned| planned.id.as_str() == "finish/commit").unwrap();
    let message = "feat(talos): upgrade to Talos v1.13.9".to_owned();
    assert_eq!(commit.step, Step::CommitFiles { message, push: true });
    assert!(commit.after.iter().any(|id| id.as_str() == "finish/lock"));
    wanted.verb = Verb::Teardown;
    let teardown = make(&wanted, &seen()).unwrap();
    let ids = steps(&teardown);
    assert!(ids.ends_with(&["finish/contexts", "finish/hook"]) && ids.contains(&"freeze/hook"), "{ids:?}");
}

#[test]
fn the_same_input_makes_the_same_plan() {
    assert_eq!(make(&wanted(), &seen()).unwrap(), make(&wanted(), &seen()).unwrap());
}

#[test]
fn a_plan_survives_being_written_down() {
    let plan = make(&wanted(), &seen()).unwrap();
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}

#[test]
fn a_template_with_the_same_fingerprint_is_used_again() {
    let mut seen = seen();
    let first = make(&wanted(), &seen).unwrap();
    let fingerprint = first
        .steps()
        .find_map(|planned| match &planned.step {
            Step::SealTemplate { fingerprint, .. } => Some(*fingerprint),
            _ => None,
        })
        .unwrap();
    let mark = "recast: run=x step=template/pve1/create cluster=other".to_owned();
    let name = "talos-1-13-9".to_owned();
    seen.vmids.insert(VmId(102));
    seen.templates = vec![crate::plan::observed::SeenTemplate {
        node: "pve1".into(),
        vmid: VmId(102),
        name,
        mark,
        fingerprint,
        proved: true,
    }];
    let plan = make(&wanted(), &seen).unwrap();
    assert_eq!(lint(&plan), []);
    assert!(!phases(&plan).contains(&"image"), "nothing to fetch");
    assert_eq!(plan.facts.templates, [(VmId(102), "pve1".into())].into());
}

#[test]
fn without_an_old_cluster_nothing_is_frozen_or_retired() {
    let mut seen = seen();
    seen.vms.clear();
    seen.vmids.remove(&VmId(1100));
    let plan = make(&wanted(), &seen).unwrap();
    assert_eq!(lint(&plan), []);
    assert!(!phases(&plan).contains(&"retire"));
    assert_eq!(plan.destroys, []);
}

#[test]
fn numbers_handed_out_avoid_those_in_use_and_those_of_the_profile() {
    let mut wanted = wanted();
    wanted.template_ids = 100..=104;
    wanted.vms[0].vmid = VmId(100);
    let mut seen = seen();
    seen.vms.clear();
    let plan = make(&wanted, &seen).unwrap();
    let made: Vec<VmId> = plan.facts.free.iter().copied().filter(|vmid| *vmid != VmId(100)).collect();
    assert_eq!(made, [VmId(102), VmId(103)]);
    wanted.template_ids = 100..=102;
    assert_eq!(make(&wanted, &seen), Err(PlanError::NoNumber { from: 100, to: 102 }));
}

#[test]
fn a_second_old_machine_is_retired_after_the_workers() {
    let mut seen = seen();
    let mut worker = vm(1110, "single-worker-01", &["single", "talos", "worker"]);
    worker.role = Some(crate::types::Role::Worker);
    seen.vms.insert(0, vm(1101, "single-cp-02", &["controlplane", "single", "talos"]));
    seen.vms.push(worker);
    let plan = make(&wanted(), &seen).unwrap();
    assert_eq!(lint(&plan), []);
    let names: Vec<&str> = plan.destroys.iter().map(|vm| vm.name.as_str()).collect();
    assert_eq!(names, ["single-worker-01", "single-cp-01", "single-cp-02"]);
}
