//! Phases that do not hold any more and are done anew.

use recast::engine::Outcome;
use recast::journal::{Entry, Memory};
use recast::types::StepId;

use super::harness::{Death, live, resume_to_the_end};
use super::world::World;

fn reopening(step: &str, times: u32) -> (World, Memory) {
    let world = World::new();
    world.reopen.borrow_mut().insert(StepId::from(step), times);
    (world, Memory::default())
}

#[test]
fn a_phase_that_does_not_hold_any_more_is_undone_and_done_anew() {
    let (world, memory) = reopening("retire/101", 2);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("reopened twice");
    let count = |is: fn(&Entry) -> bool| memory.records().iter().filter(|record| is(&record.entry)).count();
    assert_eq!(count(|entry| matches!(entry, Entry::Reopened { .. })), 2);
    assert_eq!(world.applied.borrow()[&StepId::from("template/create")], 3);
    assert_eq!(world.applied.borrow()[&StepId::from("retire/101")], 1);
}

#[test]
fn somebody_who_disturbs_for_ever_ends_the_run() {
    let (world, memory) = reopening("retire/101", 99);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Refused));
    let asked = 99 - world.reopen.borrow()[&StepId::from("retire/101")];
    assert_eq!(asked, recast::engine::MOST_REOPENINGS + 1);
    world.reopen.borrow_mut().clear();
    resume_to_the_end(&world, &memory, "after it was left alone");
}

#[test]
fn nothing_is_done_anew_once_something_was_destroyed() {
    let (world, memory) = reopening("provision/cp-1/clone", 1);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Refused));
    assert!(!memory.records().iter().any(|record| matches!(record.entry, Entry::Reopened { .. })));
    resume_to_the_end(&world, &memory, "refused after the retirement");
}

#[test]
fn killed_at_every_record_of_a_reopened_run_it_resumes_to_the_same_end() {
    let (world, memory) = reopening("retire/101", 1);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    let records = u32::try_from(memory.records().len()).unwrap();
    for death in [Death::BeforeRecord, Death::AfterRecord] {
        for at in 0..records {
            let (world, memory) = reopening("retire/101", 1);
            assert_eq!(live(&world, &memory, Some((at, death)), None), None);
            world.finish_tasks();
            resume_to_the_end(&world, &memory, &format!("reopened, killed at record {at} ({death:?})"));
        }
    }
    println!("killed at every record of a reopened run: {} cases", records * 2);
}
