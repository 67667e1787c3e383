//! Runs that are told to stop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use recast::engine::{Cancel, CancelledBy, Clock, Outcome, Perform, Seen, StepCx, StepError};
use recast::event::{Event, EventSink, Unheard};
use recast::journal::{Entry, Memory, StepState};
use recast::plan::{Output, Planned};

use super::harness::{carried_out, live_with, resume_to_the_end};
use super::plan::plan;
use super::world::{FastClock, World};

/// Raises a stop when the n-th event comes by.
struct StopAt<'a> {
    cancel: &'a Cancel,
    left: AtomicU64,
    times: u32,
}

impl EventSink for StopAt<'_> {
    fn emit(&self, _: Event) {
        if self.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            for _ in 0..self.times {
                self.cancel.raise(CancelledBy::Interrupt);
            }
        }
    }
}

#[test]
fn cancelled_at_every_event_it_parks_and_resumes() {
    let mut cases = 0;
    for times in [1, 2] {
        for event in 0.. {
            let (world, memory, cancel) = (World::new(), Memory::default(), Cancel::new());
            let events = StopAt { cancel: &cancel, left: AtomicU64::new(event), times };
            let outcome = live_with(&world, &memory, None, None, &cancel, &events);
            if outcome == Some(Outcome::Done) {
                break;
            }
            assert_eq!(outcome, Some(Outcome::Cancelled));
            let records = memory.records();
            let [.., before, last] = &records[..] else { panic!("too short") };
            assert!(matches!(before.entry, Entry::Cancelled { by: CancelledBy::Interrupt }), "{before:?}");
            assert!(matches!(last.entry, Entry::Closed { outcome: Outcome::Cancelled }), "{last:?}");
            resume_to_the_end(&world, &memory, &format!("cancelled at event {event}"));
            cases += 1;
        }
    }
    println!("cancelled at every event, once and twice: {cases} cases");
}

/// A step that never ends is dropped when the grace is over, and before it by a second request.
#[test]
fn a_step_that_does_not_end_is_dropped_after_the_grace() {
    struct Endless<'a>(&'a Cancel);
    impl Perform for Endless<'_> {
        async fn probe(&self, _: &Planned, _: &StepCx<'_>) -> Result<Seen, StepError> {
            Ok(Seen::Missing)
        }
        async fn apply(&self, _: &Planned, _: &StepCx<'_>) -> Result<Output, StepError> {
            self.0.raise(CancelledBy::Terminate);
            std::future::pending().await
        }
    }
    let (phases, clock, cancel) = (plan(), FastClock::default(), Cancel::new());
    let ended = carried_out(&Endless(&cancel), &phases, &clock, &cancel, &Unheard);
    assert_eq!(ended.outcome, Outcome::Cancelled);
    let passed = clock.elapsed();
    assert!(Duration::from_secs(4) <= passed && passed < Duration::from_secs(5), "{passed:?}");
    let first = &phases[0].steps[0].id;
    assert!(matches!(ended.journal.state().step(first), Some(StepState::Started { .. })));
}
