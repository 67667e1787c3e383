//! What a run has done so far, folded from its events, live or replayed.
//!
//! Purpose: the numbers of the report: which step was done how and in how many seconds, which failed, how long the API
//! was down. A resumed run counts as one: seconds of all its processes are summed, `how` is of the last success.
//! Must not know: how it is shown. Start reading at [`Fold::take`].

mod progress;
mod recorder;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use jiff::Timestamp;

pub use progress::{PhaseDone, Progress, StepBegun, StepDone, StepFailure};
pub use recorder::Recorder;

use super::replay::{between, replay};
use crate::event::{Class, Event, Failure, How, Outcome};
use crate::journal::{Downtime, Entry, Record};
use crate::plan::{Phase, Plan, Planned};
use crate::types::StepId;

/// What a journal's records say about a run of this plan.
pub fn progress_of(plan: &Plan, records: &[Record]) -> Progress {
    let mut fold = Fold::new(&plan.phases);
    fold.take_all(plan, records);
    fold.progress()
}

#[derive(Clone, Debug)]
struct PhaseSlot {
    name: String,
    start: Option<f64>,
    begun: Option<Timestamp>,
    seconds: Option<f64>,
    steps: Vec<StepSlot>,
}

#[derive(Clone, Debug)]
struct StepSlot {
    id: StepId,
    start: Option<f64>,
    /// It looks again when its phase begins once more.
    gate: bool,
    /// Begun, and neither done, failed nor undone.
    open: bool,
    /// Since when, in this process.
    begun: Option<Timestamp>,
    seconds: f64,
    how: Option<How>,
}

/// Adds events up.
#[derive(Clone, Debug)]
pub struct Fold {
    phases: Vec<PhaseSlot>,
    outcome: Option<Outcome>,
    failures: Vec<StepFailure>,
    undone: BTreeSet<StepId>,
    downtime: Downtime,
    api_down: Vec<(f64, Option<f64>)>,
    resumed: Vec<f64>,
    told_downtime: Option<f64>,
    api_up: Option<bool>,
    notices: Vec<String>,
    since: Option<Timestamp>,
    opened: Option<Timestamp>,
    last: Option<Timestamp>,
    seconds: f64,
}

impl Fold {
    /// Before the first event of a run of these phases.
    pub fn new(phases: &[Phase]) -> Self {
        let slot = |planned: &Planned| StepSlot {
            id: planned.id.clone(),
            start: None,
            gate: planned.step.is_gate(),
            open: false,
            begun: None,
            seconds: 0.0,
            how: None,
        };
        let phases = phases
            .iter()
            .map(|phase| PhaseSlot {
                name: phase.name.clone(),
                start: None,
                begun: None,
                seconds: None,
                steps: phase.steps.iter().map(slot).collect(),
            })
            .collect();
        Self {
            phases,
            outcome: None,
            failures: Vec::new(),
            undone: BTreeSet::new(),
            downtime: Downtime::default(),
            api_down: Vec::new(),
            resumed: Vec::new(),
            told_downtime: None,
            api_up: None,
            notices: Vec::new(),
            since: None,
            opened: None,
            last: None,
            seconds: 0.0,
        }
    }

    /// Takes what a journal says, as the events it stands for.
    pub fn take_all(&mut self, plan: &Plan, records: &[Record]) {
        for stamped in replay(plan, records) {
            self.take(stamped.at, &stamped.event);
        }
    }

    /// Takes one event.
    pub fn take(&mut self, at: Timestamp, event: &Event) {
        if matches!(event, Event::RunOpened { .. }) {
            // A killed process told of no end: what it had begun went on until its last event.
            let until = self.last.unwrap_or(at);
            self.pause(until);
            if self.last.is_some() {
                self.resumed.push(self.seconds);
            }
            self.since.get_or_insert(at);
            (self.opened, self.outcome, self.told_downtime) = (Some(at), None, None);
            self.failures.clear();
        }
        self.last = self.last.max(Some(at));
        let clock = self.clock(at);
        match event {
            Event::PhaseStarted { phase, .. } => {
                if let Some(slot) = self.phase(phase) {
                    slot.start.get_or_insert(clock);
                    slot.begun = Some(at);
                    slot.seconds.get_or_insert(0.0);
                }
            }
            Event::PhaseFinished { phase, seconds } => {
                if let Some(slot) = self.phase(phase) {
                    slot.begun = None;
                    *slot.seconds.get_or_insert(0.0) += seconds;
                }
            }
            Event::PhaseReopened { phase, .. } => self.reopened(phase),
            Event::StepStarted { step, .. } => {
                self.failures.retain(|failed| failed.step != *step);
                self.undone.remove(step);
                if let Some(slot) = self.step(step) {
                    slot.start.get_or_insert(clock);
                    (slot.open, slot.begun, slot.how) = (true, Some(at), None);
                }
            }
            Event::StepFinished { step, how, seconds } => {
                if let Some(slot) = self.step(step) {
                    (slot.open, slot.begun, slot.how) = (false, None, Some(*how));
                    slot.seconds += seconds;
                }
            }
            Event::StepFailed { step, class, failure } => {
                if let Some(slot) = self.step(step) {
                    slot.open = false;
                    slot.seconds += slot.begun.take().map_or(0.0, |since| between(since, at));
                }
                self.fail(step, Some(*class), failure);
            }
            Event::Undoing { step, .. } => self.failures.retain(|failed| failed.step != *step || !failed.is_undo()),
            Event::Undone { step, .. } => self.undone(step),
            Event::UndoFailed { step, failure } => self.fail(step, None, failure),
            Event::ApiProbe { up } => {
                self.api_up = Some(*up);
                self.probed(*up, clock);
                self.downtime.take(&Record { seq: 0, at, entry: Entry::ApiProbe { up: *up } });
            }
            Event::Notice { text } => self.notices.push(text.clone()),
            Event::RunClosed { outcome, api_downtime_seconds } => {
                self.pause(at);
                (self.outcome, self.told_downtime) = (Some(*outcome), *api_downtime_seconds);
            }
            Event::RunOpened { .. }
            | Event::Bytes { .. }
            | Event::Waiting { .. }
            | Event::Retrying { .. }
            | Event::Parking { .. } => {}
        }
    }

    /// What the events so far come to.
    pub fn progress(&self) -> Progress {
        let mut now = self.clone();
        let steps = self.phases.iter().flat_map(|phase| &phase.steps);
        let unknown = steps.filter(|slot| slot.open).map(|slot| slot.id.clone()).collect();
        if let Some(last) = now.last {
            now.pause(last);
        }
        Progress {
            phases: now.phases.iter().filter_map(PhaseSlot::done).collect(),
            outcome: now.outcome,
            failures: now.failures,
            unknown,
            undone: now.undone,
            api_downtime_seconds: now
                .told_downtime
                .or_else(|| now.last.and_then(|last| now.downtime.seconds(last)))
                .map(millis),
            api_up: now.api_up,
            notices: now.notices,
            seconds: millis(now.seconds),
            since: now.since,
            begun: now.phases.iter().flat_map(|phase| &phase.steps).filter_map(StepSlot::begun).collect(),
            api_down: now.api_down.iter().map(|(from, until)| (millis(*from), until.map(millis))).collect(),
            resumed: now.resumed.into_iter().map(millis).collect(),
        }
    }

    /// Seconds of the run: those in which some process was at it.
    fn clock(&self, at: Timestamp) -> f64 {
        self.seconds + self.opened.map_or(0.0, |since| between(since, at))
    }

    fn probed(&mut self, up: bool, clock: f64) {
        match (up, self.api_down.last_mut()) {
            (true, Some((_, until @ None))) => *until = Some(clock),
            (true, _) | (false, Some((_, None))) => {}
            (false, _) => self.api_down.push((clock, None)),
        }
    }

    /// Adds the time of what goes on, as of `until`: nothing counts between two processes.
    fn pause(&mut self, until: Timestamp) {
        for phase in &mut self.phases {
            if let Some(since) = phase.begun.take() {
                *phase.seconds.get_or_insert(0.0) += between(since, until);
            }
            for step in &mut phase.steps {
                step.seconds += step.begun.take().map_or(0.0, |since| between(since, until));
            }
        }
        self.seconds += self.opened.take().map_or(0.0, |since| between(since, until));
    }

    /// What came after an undone step in its phase is looked at anew, as the journal's state has it.
    fn undone(&mut self, id: &StepId) {
        self.undone.insert(id.clone());
        let Some(phase) = self.phases.iter_mut().find(|phase| phase.steps.iter().any(|slot| slot.id == *id)) else {
            return;
        };
        let undone = phase.steps.iter().position(|slot| slot.id == *id).unwrap_or_default();
        for (index, slot) in phase.steps.iter_mut().enumerate() {
            if index >= undone || slot.gate {
                slot.how = None;
            }
            if index == undone {
                (slot.open, slot.begun) = (false, None);
            }
        }
    }

    /// From this phase on nothing counts as done; what asked for it did not fail.
    fn reopened(&mut self, name: &str) {
        let from = self.phases.iter().position(|phase| phase.name == name).unwrap_or(self.phases.len());
        for slot in self.phases[from..].iter_mut().flat_map(|phase| &mut phase.steps) {
            slot.how = None;
            self.failures.retain(|failed| failed.step != slot.id);
        }
    }

    fn fail(&mut self, step: &StepId, class: Option<Class>, failure: &Failure) {
        self.failures.push(StepFailure { step: step.clone(), class, failure: failure.clone() });
    }

    fn phase(&mut self, name: &str) -> Option<&mut PhaseSlot> {
        self.phases.iter_mut().find(|phase| phase.name == name)
    }

    fn step(&mut self, id: &StepId) -> Option<&mut StepSlot> {
        self.phases.iter_mut().flat_map(|phase| &mut phase.steps).find(|slot| slot.id == *id)
    }
}

impl PhaseSlot {
    fn done(&self) -> Option<PhaseDone> {
        let done = |slot: &StepSlot| {
            let (id, start, seconds) = (slot.id.clone(), slot.start(), millis(slot.seconds));
            slot.how.map(|how| StepDone { id, how, start, seconds })
        };
        let steps: Vec<StepDone> = self.steps.iter().filter_map(done).collect();
        let left = self.steps.len() - steps.len();
        self.seconds.map(|seconds| PhaseDone {
            name: self.name.clone(),
            start: millis(self.start.unwrap_or_default()),
            seconds: millis(seconds),
            steps,
            left,
        })
    }
}

impl StepSlot {
    fn start(&self) -> f64 {
        millis(self.start.unwrap_or_default())
    }

    fn begun(&self) -> Option<StepBegun> {
        let begun = StepBegun { id: self.id.clone(), start: self.start(), seconds: millis(self.seconds) };
        (self.start.is_some() && self.how.is_none()).then_some(begun)
    }
}

/// Seconds to the millisecond: more is noise in a document.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
