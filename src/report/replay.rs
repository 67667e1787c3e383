//! The events that a journal's records stand for.
//!
//! Purpose: a past run is shown by the renderers of a live one. What was never journaled (bytes, waits, notices) is
//! missing; what was, carries the moment of its record.
//! Must not know: files.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::event::{Class, Event, Failure, Stamped};
use crate::journal::{Downtime, Entry, Record, RunState};
use crate::plan::{Plan, Planned, Undo};
use crate::types::StepId;

/// Turns records into events, one by one, in the journal's order.
pub struct Replay<'a> {
    plan: &'a Plan,
    state: RunState,
    downtime: Downtime,
    /// The phase that goes on, with its begin in this stretch.
    phase: Option<(usize, Timestamp)>,
    /// Steps and undos that go on, with their begin in this stretch.
    begun: BTreeMap<StepId, Timestamp>,
    /// Attempts that may be followed by another one; if none follows, the step has failed.
    open: BTreeMap<StepId, (Timestamp, Failure)>,
}

/// All events of a journal's records. Records that can't follow each other are taken as they come: who read the journal
/// has checked it.
pub fn replay(plan: &Plan, records: &[Record]) -> Vec<Stamped> {
    let mut replay = Replay::new(plan);
    let mut events: Vec<Stamped> = records.iter().flat_map(|record| replay.take(record)).collect();
    events.extend(replay.finish());
    events
}

impl<'a> Replay<'a> {
    /// Before the first record of a run of this plan.
    pub fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            state: RunState::new(&plan.phases),
            downtime: Downtime::default(),
            phase: None,
            begun: BTreeMap::new(),
            open: BTreeMap::new(),
        }
    }

    /// The events that the next record stands for; often none, sometimes two.
    pub fn take(&mut self, record: &Record) -> Vec<Stamped> {
        let mut events = Vec::new();
        let at = record.at;
        // An illegal record changes no state, and is shown nevertheless.
        let _ = self.state.record(&record.entry);
        self.downtime.take(record);
        match &record.entry {
            Entry::Opened { .. } => events.push(self.opened(at, false)),
            Entry::Resumed => {
                events.extend(self.finish());
                (self.phase, self.begun) = (None, BTreeMap::new());
                events.push(self.opened(at, true));
            }
            Entry::Started { step, attempt } => {
                events.extend(self.phase_of(step, at));
                events.push(Stamped::new(at, self.started(step, *attempt, at)));
            }
            Entry::Succeeded { step, how, .. } => {
                let seconds = self.took(step, at);
                events.push(Stamped::new(at, Event::StepFinished { step: step.clone(), how: *how, seconds }));
                events.extend(self.phase_done(at));
            }
            Entry::Failed { step, failure, class: Class::Transient } => {
                self.open.insert(step.clone(), (at, failure.clone()));
            }
            Entry::Failed { step, failure, class } => {
                self.begun.remove(step);
                events.push(failed(at, step, *class, failure));
            }
            Entry::UndoStarted { step } => {
                events.extend(self.finish());
                self.begun.entry(step.clone()).or_insert(at);
                let title = self.planned(step).map_or_else(|| step.to_string(), undo_title);
                events.push(Stamped::new(at, Event::Undoing { step: step.clone(), title }));
            }
            Entry::UndoFinished { step } => {
                let seconds = self.took(step, at);
                events.push(Stamped::new(at, Event::Undone { step: step.clone(), seconds }));
            }
            Entry::UndoFailed { step, failure } => {
                let (step, failure) = (step.clone(), failure.clone());
                events.push(Stamped::new(at, Event::UndoFailed { step, failure }));
            }
            Entry::Reopened { phase, because } => {
                events.extend(self.finish());
                self.phase = None;
                let (phase, because) = (phase.clone(), because.clone());
                events.push(Stamped::new(at, Event::PhaseReopened { phase, because }));
            }
            Entry::ApiProbe { up } => events.push(Stamped::new(at, Event::ApiProbe { up: *up })),
            Entry::Cancelled { by } => {
                events.push(Stamped::new(at, Event::Parking { by: *by, grace_seconds: 0.0 }));
            }
            Entry::Closed { outcome } => {
                events.extend(self.finish());
                let api_downtime_seconds = self.downtime.seconds(at);
                events.push(Stamped::new(at, Event::RunClosed { outcome: *outcome, api_downtime_seconds }));
            }
            Entry::Handle { .. } | Entry::Requests { .. } => {}
        }
        events
    }

    /// After the last record: failed attempts that nothing followed.
    pub fn finish(&mut self) -> Vec<Stamped> {
        let open = std::mem::take(&mut self.open);
        open.into_iter()
            .map(|(step, (at, failure))| {
                self.begun.remove(&step);
                failed(at, &step, Class::Transient, &failure)
            })
            .collect()
    }

    fn opened(&self, at: Timestamp, resumed: bool) -> Stamped {
        let Plan { run, cluster, verb, .. } = self.plan;
        let (run, cluster, verb) = (run.clone(), cluster.clone(), verb.to_string());
        Stamped::new(at, Event::RunOpened { run, cluster, verb, resumed })
    }

    fn started(&mut self, step: &StepId, attempt: u32, at: Timestamp) -> Event {
        let again = self.begun.contains_key(step);
        self.begun.entry(step.clone()).or_insert(at);
        if !again {
            let title = self.planned(step).map_or_else(|| step.to_string(), |planned| planned.step.title());
            return Event::StepStarted { step: step.clone(), title };
        }
        let (since, because) = match self.open.remove(step) {
            Some((since, failure)) => (since, failure.causes.last().cloned().unwrap_or(failure.what)),
            None => (at, "no answer came".to_owned()),
        };
        Event::Retrying { step: step.clone(), attempt, in_seconds: between(since, at), because }
    }

    fn phase_of(&mut self, step: &StepId, at: Timestamp) -> Option<Stamped> {
        let has = |planned: &Planned| planned.id == *step;
        let index = self.plan.phases.iter().position(|phase| phase.steps.iter().any(has))?;
        if self.phase.is_some_and(|(current, _)| current == index) {
            return None;
        }
        self.phase = Some((index, at));
        let phase = &self.plan.phases[index];
        Some(Stamped::new(at, Event::PhaseStarted { phase: phase.name.clone(), steps: phase.steps.len() }))
    }

    fn phase_done(&mut self, at: Timestamp) -> Option<Stamped> {
        let (index, since) = self.phase?;
        if self.state.phase().is_some_and(|first| first <= index) {
            return None;
        }
        self.phase = None;
        let phase = self.plan.phases[index].name.clone();
        Some(Stamped::new(at, Event::PhaseFinished { phase, seconds: between(since, at) }))
    }

    fn took(&mut self, step: &StepId, at: Timestamp) -> f64 {
        self.open.remove(step);
        self.begun.remove(step).map_or(0.0, |since| between(since, at))
    }

    fn planned(&self, step: &StepId) -> Option<&'a Planned> {
        self.plan.steps().find(|planned| planned.id == *step)
    }
}

fn undo_title(planned: &Planned) -> String {
    match &planned.undo {
        Undo::By(step) => step.title(),
        Undo::Nothing | Undo::Irreversible { .. } => planned.step.title(),
    }
}

fn failed(at: Timestamp, step: &StepId, class: Class, failure: &Failure) -> Stamped {
    Stamped::new(at, Event::StepFailed { step: step.clone(), class, failure: failure.clone() })
}

/// Seconds between two moments, never negative: a clock may have been set back.
pub(super) fn between(since: Timestamp, until: Timestamp) -> f64 {
    until.duration_since(since).as_secs_f64().max(0.0)
}
