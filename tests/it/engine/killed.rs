//! Runs that die: at any record, at any await, while they fail, again and again.

use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use recast::engine::{Class, Outcome};
use recast::journal::Memory;

use super::harness::{Death, live, resume_to_the_end, whole_run};
use super::plan::{ids, plan};
use super::world::{FAULTS, Fault, World};

#[test]
fn killed_at_every_record_it_resumes_to_the_same_end() {
    let records = u32::try_from(whole_run().len()).unwrap();
    let mut cases = 0;
    for death in [Death::BeforeRecord, Death::AfterRecord] {
        for at in 0..records {
            for orphans in [true, false] {
                let (world, memory) = (World::new(), Memory::default());
                assert_eq!(live(&world, &memory, Some((at, death)), None), None);
                // PVE's tasks go on without us: they end before the resume, or while it looks at them. One whose handle
                // was lost with its record can only be found by its effect.
                if orphans || death == Death::BeforeRecord {
                    world.finish_tasks();
                }
                resume_to_the_end(&world, &memory, &format!("killed at record {at} ({death:?})"));
                cases += 1;
            }
        }
    }
    println!("killed at every journal record: {cases} cases over {records} records");
}

#[test]
fn dropped_at_every_await_it_resumes_to_the_same_end() {
    let mut cases = 0;
    for polls in 0.. {
        let (world, memory) = (World::new(), Memory::default());
        let outcome = live(&world, &memory, None, Some(polls));
        resume_or_done(&world, &memory, outcome, &format!("dropped after poll {polls}"));
        cases += 1;
        if outcome.is_some() {
            break;
        }
    }
    println!("dropped at every await: {cases} cases");
}

pub(super) fn resume_or_done(world: &World, memory: &Memory, outcome: Option<Outcome>, what: &str) {
    if outcome == Some(Outcome::Done) {
        world.assert_right(what);
    } else {
        resume_to_the_end(world, memory, what);
    }
}

#[test]
fn every_failing_run_killed_at_every_record_still_ends_the_same() {
    let mut cases = 0;
    for step in ids(&plan()) {
        let (world, memory) = (World::new(), Memory::default());
        world.faults.borrow_mut().insert(step.clone(), Fault::After(Class::Permanent));
        assert_eq!(live(&world, &memory, None, None), Some(Outcome::Failed));
        let records = u32::try_from(memory.records().len()).unwrap();
        for at in 0..records {
            let (world, memory) = (World::new(), Memory::default());
            world.faults.borrow_mut().insert(step.clone(), Fault::After(Class::Permanent));
            assert_eq!(live(&world, &memory, Some((at, Death::AfterRecord)), None), None);
            resume_to_the_end(&world, &memory, &format!("{step} failed, killed at record {at}"));
            cases += 1;
        }
    }
    println!("failing runs (with undo) killed at every record: {cases} cases");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Kills a run several times in a row at arbitrary records, with arbitrary faults on the way.
    #[test]
    fn killed_again_and_again(
        kills in proptest::collection::vec((0_u32..40, proptest::bool::ANY), 0..6),
        faults in proptest::collection::btree_map(0_usize..16, 0_usize..11, 0..5),
    ) {
        let (world, memory) = (World::new(), Memory::default());
        let steps = ids(&plan());
        for (step, fault) in faults {
            world.faults.borrow_mut().insert(steps[step % steps.len()].clone(), FAULTS[fault]);
        }
        for (at, written) in kills {
            let death = if written { Death::AfterRecord } else { Death::BeforeRecord };
            if live(&world, &memory, Some((at, death)), None) == Some(Outcome::Done) {
                break;
            }
            if death == Death::BeforeRecord {
                world.finish_tasks();
            }
        }
        resume_to_the_end(&world, &memory, "killed again and again");
        prop_assert_eq!(world.offences.borrow().len(), 0);
    }
}
