//! Steps that fail, what is undone then, and what is tried again.

use recast::engine::{Cancel, Class, Outcome, Perform, Seen, StepCx, StepError};
use recast::event::Event;
use recast::journal::{Entry, Memory};
use recast::plan::{Output, Planned, Step, Undo};
use recast::types::StepId;

use super::harness::{Heard, carried_out, live, resume_to_the_end};
use super::killed::resume_or_done;
use super::plan::{ids, plan, planned, vm};
use super::world::{FAULTS, FastClock, Fault, World};

#[test]
fn every_step_failed_once_in_every_way_ends_the_same() {
    let mut cases = 0;
    for step in ids(&plan()) {
        for fault in FAULTS {
            let (world, memory) = (World::new(), Memory::default());
            world.faults.borrow_mut().insert(step.clone(), fault);
            let outcome = live(&world, &memory, None, None).unwrap();
            let (Fault::Probe(class) | Fault::Before(class) | Fault::After(class)) = fault;
            let expected = match class {
                Class::Transient | Class::Ambiguous => Outcome::Done,
                Class::Permanent => Outcome::Failed,
                Class::Refused => Outcome::Refused,
            };
            assert_eq!(outcome, expected, "{step} {fault:?}");
            assert!(world.faults.borrow().is_empty(), "{step} {fault:?} was never reached");
            if outcome != Outcome::Done {
                assert_undone(&world, &memory, &step);
            }
            resume_or_done(&world, &memory, Some(outcome), &format!("{step} {fault:?}"));
            cases += 1;
        }
    }
    println!("every step failed once with each class: {cases} cases");
}

/// After a failure nothing undoable of the failed step's phase is left.
fn assert_undone(world: &World, memory: &Memory, failed: &StepId) {
    let phase = world.phases.iter().find(|phase| phase.steps.iter().any(|planned| planned.id == *failed)).unwrap();
    let mut undone = Vec::new();
    for record in memory.records() {
        if let Entry::UndoStarted { step } = record.entry {
            undone.push(step);
        }
    }
    for planned in phase.steps.iter().filter(|planned| matches!(planned.undo, Undo::By(_))) {
        assert!(!world.effects.borrow().contains(&planned.id), "{} was left after {failed} failed", planned.id);
    }
    if phase.width == 1 {
        let order: Vec<usize> =
            undone.iter().map(|id| phase.steps.iter().position(|planned| planned.id == *id).unwrap()).collect();
        assert!(order.is_sorted_by(|a, b| a > b), "undone in order {undone:?}");
    }
}

#[test]
fn templates_side_by_side_hold_each_other_back_in_nothing() {
    let chain = |node: &str, vmid: u32| {
        let id = |what: &str| format!("template/{node}/{what}");
        let undo = || Undo::By(Box::new(Step::DeleteOurVm { vm: vm(vmid) }));
        vec![
            planned(&id("upload"), Step::ConfirmFacts, &[], undo()),
            planned(&id("create"), Step::StartVm { vm: vm(vmid) }, &[&id("upload")], undo()),
            planned(&id("seal"), Step::StartVm { vm: vm(vmid) }, &[&id("create")], Undo::Nothing),
        ]
    };
    let mut phases = plan();
    phases[0].steps = [chain("pve1", 901), chain("pve2", 902), chain("pve3", 903)].concat();
    phases[0].width = 4;
    for what in ["upload", "create", "seal"] {
        for fault in [Fault::Before(Class::Permanent), Fault::After(Class::Permanent)] {
            let (world, memory) = (World { phases: phases.clone(), ..World::default() }, Memory::default());
            world.faults.borrow_mut().insert(StepId::from(format!("template/pve2/{what}").as_str()), fault);
            assert_eq!(live(&world, &memory, None, None), Some(Outcome::Failed));
            let there: Vec<String> = world.effects.borrow().iter().map(ToString::to_string).collect();
            let expected =
                ["pve1", "pve3"].map(|node| ["create", "seal", "upload"].map(|s| format!("template/{node}/{s}")));
            assert_eq!(there, expected.concat(), "{what} {fault:?}: the others are done, and nothing of pve2 is left");
            resume_to_the_end(&world, &memory, "after one node failed");
            // What was right was not made again.
            assert_eq!(world.applied.borrow()[&StepId::from("template/pve1/create")], 1);
        }
    }
}

#[test]
fn an_undo_that_fails_is_stuck_until_a_resume_gets_it_done() {
    let (world, memory) = (World::new(), Memory::default());
    world.faults.borrow_mut().insert(StepId::from("template/seal"), Fault::Before(Class::Permanent));
    world.stuck.borrow_mut().insert(StepId::from("template/create"));
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Stuck));
    assert!(
        world.effects.borrow().contains(&StepId::from("template/upload")),
        "nothing before the stuck undo is undone"
    );
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("after a stuck undo");
}

#[test]
fn retries_come_to_an_end_and_are_told() {
    struct Stubborn(World);
    impl Perform for Stubborn {
        async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
            self.0.faults.borrow_mut().insert(StepId::from("retire/101"), Fault::Before(Class::Transient));
            self.0.probe(step, cx).await
        }
        async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
            self.0.apply(step, cx).await
        }
    }
    let world = Stubborn(World::new());
    let events = Heard::default();
    let ended = carried_out(&world, &world.0.phases, &FastClock::default(), &Cancel::new(), &events);
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(ended.failures[0].failure.causes, ["Transient"]);
    assert_eq!(ended.failures[0].failure.hints, ["Try something else."]);
    let retries = events.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
    assert_eq!(retries, 2, "three attempts have two pauses");
}
