//! Processes of a run: begun, killed at a record, dropped at an await, resumed.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use recast::engine::{Cancel, Ended, Outcome, Perform, Retry, Run};
use recast::event::{Event, EventSink, Unheard};
use recast::journal::{Entry, Journal, Log, Memory, Opening, Record};
use recast::plan::Phase;
use recast::types::{RunId, Sha256};

use super::world::{FastClock, World};

/// A log in memory whose process dies at the n-th append, before or after the record is safe.
struct Mortal {
    records: Memory,
    left: Option<(u32, Death)>,
    dead: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The record never reaches the disk.
    BeforeRecord,
    /// The record is on disk, nothing else happens.
    AfterRecord,
}

impl Log for Mortal {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(io::Error::other("dead"));
        }
        if let Some((left, death)) = &mut self.left {
            if *left == 0 {
                self.dead.store(true, Ordering::Relaxed);
                return match death {
                    Death::BeforeRecord => Err(io::Error::other("dead")),
                    Death::AfterRecord => self.records.append(record),
                };
            }
            *left -= 1;
        }
        self.records.append(record)
    }
}

pub(super) fn opening() -> Opening {
    Opening {
        run: RunId::from("2026-11-20T22-31-05"),
        tool: "0.1.0".to_owned(),
        at: "2026-11-20T22:31:05Z".parse().unwrap(),
    }
}

fn retry() -> Retry {
    Retry { attempts: 3, first: Duration::from_secs(1), longest: Duration::from_secs(2) }
}

/// One process's life: begins or resumes the run whose records `memory` holds. `None` when the process died: at an
/// append, or after `polls` polls.
pub(super) fn live(world: &World, memory: &Memory, death: Option<(u32, Death)>, polls: Option<u32>) -> Option<Outcome> {
    live_with(world, memory, death, polls, &Cancel::new(), &Unheard)
}

pub(super) fn live_with(
    world: &World,
    memory: &Memory,
    death: Option<(u32, Death)>,
    polls: Option<u32>,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Option<Outcome> {
    world.dead.store(false, Ordering::Relaxed);
    let log = Mortal { records: memory.clone(), left: death, dead: world.dead.clone() };
    let (path, plan) = (PathBuf::from("journal.jsonl"), Sha256::of(b"plan"));
    let journal = Journal::over(path, Box::new(log), memory.records(), plan, &world.phases, &opening()).ok()?;
    let clock = FastClock::default();
    let id = opening().run;
    let run = Run {
        id: &id,
        cluster: "lab",
        verb: "rebuild",
        phases: &world.phases,
        world,
        clock: &clock,
        events,
        cancel,
        retry: retry(),
    };
    let mut future = pin!(run.carry_out(journal));
    let mut polled = 0;
    let outcome = loop {
        if polls == Some(polled) || world.dead.load(Ordering::Relaxed) {
            break None;
        }
        assert!(polled < 10_000, "the run doesn't come to an end");
        polled += 1;
        if let Poll::Ready(ended) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            break ended.ok().map(|ended| ended.outcome);
        }
    };
    if world.dead.load(Ordering::Relaxed) { None } else { outcome }
}

/// One process that begins a run of whatever `world` is, and comes to its end.
pub(super) fn carried_out(
    world: &impl Perform,
    phases: &[Phase],
    clock: &FastClock,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Ended {
    let id = opening().run;
    let run = Run { id: &id, cluster: "lab", verb: "rebuild", phases, world, clock, events, cancel, retry: retry() };
    finish(run.carry_out(Journal::in_memory(phases, &opening()).unwrap())).unwrap()
}

/// Polls a future to its end, which must come.
fn finish<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(end) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return end;
        }
    }
    panic!("it doesn't come to an end");
}

pub(super) fn whole_run() -> Vec<Record> {
    let (world, memory) = (World::new(), Memory::default());
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("an undisturbed run");
    memory.records()
}

/// Resumes until done; the number of processes it took.
pub(super) fn resume_to_the_end(world: &World, memory: &Memory, what: &str) -> u32 {
    let is_done = |records: &[Record]| {
        matches!(records.last(), Some(Record { entry: Entry::Closed { outcome: Outcome::Done }, .. }))
    };
    if is_done(&memory.records()) {
        world.assert_right(what);
        return 0;
    }
    for process in 1..10 {
        if live(world, memory, None, None) == Some(Outcome::Done) {
            world.assert_right(what);
            return process;
        }
    }
    panic!("{what}: not done after ten resumes: {:#?}", memory.records().last());
}

#[derive(Default)]
pub(super) struct Heard(pub(super) Mutex<Vec<Event>>);

impl EventSink for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}
