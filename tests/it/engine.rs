//! Crash, fault and repeat tests, generated from a plan: the engine over a world that is a set of effects.
//!
//! A step's effect is its id in that set; its undo removes it. Applying a step whose effect is there, or whose
//! predecessors' effects are not, is what must never happen, and the world notes it.

mod cancelled;
mod faults;
mod harness;
mod killed;
mod plan;
mod reopened;
mod world;

use std::cell::Cell;
use std::path::PathBuf;

use recast::engine::{Cancel, Outcome, Perform, Seen, StepCx, StepError};
use recast::event::Event;
use recast::journal::{Entry, Journal, JournalError, Log, Memory, Record, RunState};
use recast::plan::{Output, Planned};
use recast::types::{Sha256, StepId};

use harness::{Heard, carried_out, live, opening, whole_run};
use plan::{ids, plan};
use world::{FastClock, World};

#[test]
fn an_undisturbed_run_applies_each_step_once_in_order() {
    let world = World::new();
    let memory = Memory::default();
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("undisturbed");
    assert!(world.applied.borrow().values().all(|times| *times == 1));
    let most = |phase: &str| {
        let (mut running, mut most) = (0_i32, 0);
        for record in memory.records() {
            match &record.entry {
                Entry::Started { step, .. } if step.as_str().starts_with(phase) => running += 1,
                Entry::Succeeded { step, .. } if step.as_str().starts_with(phase) => running -= 1,
                _ => {}
            }
            most = most.max(running);
        }
        most
    };
    assert_eq!((most("template"), most("provision")), (1, 2), "a phase's width bounds it");
}

#[test]
fn every_step_twice_changes_nothing() {
    let world = World::new();
    world.repeat.set(true);
    let memory = Memory::default();
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("each step repeated at once");
    // And once more from the start, over a world in which everything is there already.
    let again = Memory::default();
    assert_eq!(live(&world, &again, None, None), Some(Outcome::Done));
    world.assert_right("the whole run repeated");
    assert!(world.applied.borrow().values().all(|times| *times == 1));
    // Each single step done before.
    let mut cases = 2;
    for step in ids(&plan()) {
        let (world, memory) = (World::new(), Memory::default());
        live(&world, &memory, None, None);
        let cut: Vec<Record> = memory.records().into_iter().take_while(|r| !is_success(r, &step)).collect();
        let memory = memory_of(&cut);
        assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
        world.assert_right(&format!("{step} a second time"));
        assert!(world.applied.borrow().values().all(|times| *times == 1), "{step}");
        cases += 1;
    }
    println!("every step twice: {cases} cases");
}

fn is_success(record: &Record, id: &StepId) -> bool {
    matches!(&record.entry, Entry::Succeeded { step, .. } if step == id)
}

fn memory_of(records: &[Record]) -> Memory {
    let mut memory = Memory::default();
    for record in records {
        memory.append(record).unwrap();
    }
    memory
}

#[test]
fn a_plan_that_can_not_go_on_is_an_error() {
    let (world, memory) = (World { phases: plan(), ..World::default() }, Memory::default());
    let mut world = world;
    world.phases[0].steps[0].after = vec![StepId::from("template/seal")];
    world.phases[0].steps[1].after = vec![StepId::from("template/upload")];
    world.phases[0].steps[2].after = vec![StepId::from("template/upload")];
    assert_eq!(live(&world, &memory, None, None), None);
    assert!(memory.records().len() <= 1, "nothing was begun");
}

#[test]
fn the_api_downtime_is_measured_by_probes_and_journaled_on_changes() {
    struct Blinking(World, Cell<u32>);
    impl Perform for Blinking {
        async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
            self.0.probe(step, cx).await
        }
        async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
            self.0.apply(step, cx).await
        }
        async fn api_up(&self) -> Option<bool> {
            self.1.set(self.1.get() + 1);
            Some(!(5..9).contains(&self.1.get()))
        }
    }
    let world = Blinking(World::new(), Cell::new(0));
    let events = Heard::default();
    let ended = carried_out(&world, &world.0.phases, &FastClock::default(), &Cancel::new(), &events);
    let probes: Vec<bool> = events
        .0
        .lock()
        .unwrap()
        .iter()
        .filter_map(|e| if let Event::ApiProbe { up } = e { Some(*up) } else { None })
        .collect();
    assert_eq!(probes, [true, false, true]);
    let seconds = ended.api_downtime_seconds.unwrap();
    assert!((1.0..1.2).contains(&seconds), "four probes of 250 ms: {seconds}");
}

#[test]
fn any_cut_of_a_whole_journal_folds_and_names_what_to_do() {
    let records = whole_run();
    let phases = plan();
    for cut in 1..=records.len() {
        let mut state = RunState::new(&phases);
        for record in &records[..cut] {
            state.record(&record.entry).unwrap();
        }
        assert_eq!(state.next().is_empty(), state.is_complete(), "cut at {cut}");
    }
}

#[test]
fn a_finished_run_is_not_resumed() {
    let records = whole_run();
    let refused = Journal::over(
        PathBuf::from("journal.jsonl"),
        Box::new(Memory::default()),
        records,
        Sha256::of(b"plan"),
        &plan(),
        &opening(),
    );
    assert!(matches!(refused.err(), Some(JournalError::AlreadyDone { .. })));
}
