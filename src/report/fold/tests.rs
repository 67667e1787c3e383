use super::*;
use crate::event::EventSink as _;
use crate::report::sample::{self, Journal};

fn progress(journal: &Journal) -> Progress {
    progress_of(&sample::plan(), &journal.0)
}

fn phases(progress: &Progress) -> Vec<(&str, f64, usize, usize)> {
    progress.phases.iter().map(|phase| (phase.name.as_str(), phase.seconds, phase.steps.len(), phase.left)).collect()
}

#[test]
fn a_failed_run_tells_what_is_done_and_what_failed() {
    let failed = progress(&Journal::stopped());
    assert_eq!(failed.outcome, Some(Outcome::Failed));
    assert_eq!(
        phases(&failed),
        [
            ("image", 1.0, 1, 0),
            ("template", 1.0, 1, 0),
            ("canary", 3.0, 2, 0),
            ("retire", 1.0, 1, 0),
            ("provision", 4.0, 1, 1)
        ]
    );
    assert_eq!(failed.failures.len(), 1);
    assert_eq!(failed.failures[0].step.as_str(), "provision/single-cp-01/start");
    assert!(failed.unknown.is_empty());
}

#[test]
fn a_resumed_run_counts_as_one() {
    let done = progress(&Journal::complete());
    // The second between the two processes doesn't count.
    assert_eq!((done.outcome, done.failures.len(), done.seconds), (Some(Outcome::Done), 0, 21.0));
    // From the probe that said down, across the stop.
    assert_eq!(done.api_downtime_seconds, Some(11.0));
    let start = done.done(&"provision/single-cp-01/start".into()).unwrap();
    assert_eq!((start.how, start.seconds), (How::Applied, 2.0), "one second failing, one succeeding");
}

#[test]
fn a_killed_runs_last_step_is_unknown_and_its_time_ends_with_its_last_record() {
    let killed = Journal::opened().done("image/fetch").started("template/create");
    assert_eq!(progress(&killed).unknown, ["template/create".into()]);
    let twice = progress(&killed.and(Entry::Resumed).and(Entry::ApiProbe { up: true }));
    assert_eq!((twice.outcome, twice.unknown.len(), twice.seconds), (None, 1, 4.0));
}

#[test]
fn an_undone_step_is_not_done_and_a_retried_one_has_not_failed() {
    let id: StepId = "template/create".into();
    let undone = Journal::opened()
        .done("image/fetch")
        .done("template/create")
        .and(Entry::UndoStarted { step: id.clone() })
        .and(Entry::UndoFinished { step: id.clone() });
    assert!(progress(&undone).done(&id).is_none());
    let retried = Journal::opened().started("image/fetch").failed("image/fetch", Class::Transient);
    assert_eq!(progress(&retried).failures.len(), 1);
    let retried = progress(&retried.done("image/fetch"));
    assert_eq!((retried.failures.len(), retried.phases[0].steps[0].seconds), (0, 3.0));
}

#[test]
fn a_live_run_and_its_replay_come_to_the_same() {
    let (plan, journal) = (sample::plan(), Journal::complete());
    let events = replay(&plan, &journal.0);
    let mut live = Fold::new(&plan.phases);
    for stamped in &events {
        live.take(stamped.at, &stamped.event);
    }
    assert_eq!(live.progress(), progress(&journal));
    // A resume's recorder knows the earlier records and hears the rest.
    let (earlier, _) = journal.0.split_at(Journal::stopped().0.len());
    let recorder = Recorder::new(&plan, earlier, sample::at(22_000));
    for stamped in replay(&plan, &journal.0).into_iter().skip(replay(&plan, earlier).len()) {
        recorder.emit(stamped.event);
    }
    let resumed = recorder.progress();
    let start = resumed.done(&"provision/single-cp-01/start".into()).unwrap();
    assert_eq!((resumed.outcome, start.seconds), (Some(Outcome::Done), 2.0));
}
