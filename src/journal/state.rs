//! A run's state: a pure fold over its records.
//!
//! Purpose: one transition table for the live run and for replay. [`RunState::record`] is the only code that changes a
//! state; [`RunState::next`] says what may be done now.
//! Must not know: files, clocks, how a step is performed. Start reading at [`RunState::record`].

mod words;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use words::{Life, StepState, Todo};

use super::record::Entry;
use crate::event::{Class, Outcome};
use crate::plan::{Output, Phase, Undo};
use crate::types::StepId;

/// A record that can't follow those before it. In a journal from disk it means damage, in a live run a bug.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalTransition {
    /// It names a step that the plan hasn't got.
    #[error("'{entry}' names step {step}, which the plan hasn't got")]
    UnknownStep {
        /// The entry's name.
        entry: &'static str,
        /// The step.
        step: StepId,
    },
    /// The step is in a state that the entry can't follow.
    #[error("'{entry}' can't follow while step {step} is {state}")]
    Step {
        /// The entry's name.
        entry: &'static str,
        /// The step.
        step: StepId,
        /// The state's name.
        state: &'static str,
    },
    /// The step waits for another one, or for an undo.
    #[error("step {step} can't start before {before} is done")]
    TooEarly {
        /// The step.
        step: StepId,
        /// What has to come first.
        before: StepId,
    },
    /// The phase can't be opened again.
    #[error("phase '{phase}' can't be opened again: {because}")]
    Reopening {
        /// The phase.
        phase: String,
        /// Why not.
        because: String,
    },
    /// The run is in a state that the entry can't follow.
    #[error("'{entry}' can't follow while the run is {life}")]
    Run {
        /// The entry's name.
        entry: &'static str,
        /// The state's name.
        life: &'static str,
    },
}

#[derive(Clone, Debug)]
struct Slot {
    id: StepId,
    phase: usize,
    after: Vec<StepId>,
    undoable: bool,
    /// What it did can't be taken back.
    irreversible: bool,
    /// It only looks, and its answer grows old.
    gate: bool,
    state: StepState,
    attempts: u32,
    /// When it was begun last, as a count of begun steps: undo goes backwards along it.
    begun: u64,
}

/// All that the records of one run say, for one plan.
#[derive(Clone, Debug)]
pub struct RunState {
    life: Life,
    slots: Vec<Slot>,
    at: BTreeMap<StepId, usize>,
    outputs: Arc<BTreeMap<StepId, Output>>,
    begun: u64,
    api_up: Option<bool>,
    phases: Vec<String>,
    /// How often each phase was opened again since the run was resumed last, by its index.
    reopened: BTreeMap<usize, u32>,
}

impl RunState {
    /// The state before the first record of a run of these phases.
    pub fn new(phases: &[Phase]) -> Self {
        let slots: Vec<Slot> = phases
            .iter()
            .enumerate()
            .flat_map(|(phase, group)| group.steps.iter().map(move |planned| (phase, planned)))
            .map(|(phase, planned)| Slot {
                id: planned.id.clone(),
                phase,
                after: planned.after.clone(),
                undoable: matches!(planned.undo, Undo::By(_)),
                irreversible: matches!(planned.undo, Undo::Irreversible { .. }),
                gate: planned.step.is_gate(),
                state: StepState::Pending,
                attempts: 0,
                begun: 0,
            })
            .collect();
        let at = slots.iter().enumerate().map(|(index, slot)| (slot.id.clone(), index)).collect();
        let (outputs, reopened) = (Arc::default(), BTreeMap::new());
        let phases = phases.iter().map(|phase| phase.name.clone()).collect();
        Self { life: Life::New, slots, at, outputs, begun: 0, api_up: None, phases, reopened }
    }

    /// Where the run stands as a whole.
    pub fn life(&self) -> Life {
        self.life
    }

    /// Where a step stands; `None` when the plan hasn't got it.
    pub fn step(&self, id: &StepId) -> Option<&StepState> {
        self.at.get(id).map(|index| &self.slots[*index].state)
    }

    /// Every step with its state, in the plan's order.
    pub fn steps(&self) -> impl Iterator<Item = (&StepId, &StepState)> {
        self.slots.iter().map(|slot| (&slot.id, &slot.state))
    }

    /// How often a step was begun so far.
    pub fn attempts(&self, id: &StepId) -> u32 {
        self.at.get(id).map_or(0, |index| self.slots[*index].attempts)
    }

    /// The task that a step (or its undo) started and whose outcome is unknown.
    pub fn handle(&self, id: &StepId) -> Option<&str> {
        match self.step(id)? {
            StepState::Started { handle, .. } | StepState::Failed { handle, .. } | StepState::Undoing { handle } => {
                handle.as_deref()
            }
            _ => None,
        }
    }

    /// What the steps done so far found out.
    pub fn outputs(&self) -> &Arc<BTreeMap<StepId, Output>> {
        &self.outputs
    }

    /// Whether the Kubernetes API answered when it was last asked; `None` when it never was.
    pub fn api_up(&self) -> Option<bool> {
        self.api_up
    }

    /// Whether every step is done.
    pub fn is_complete(&self) -> bool {
        self.slots.iter().all(|slot| matches!(slot.state, StepState::Succeeded { .. }))
    }

    /// Steps of the phase with this index that were begun and can be undone, in the order to undo them.
    pub fn undoable(&self, phase: usize) -> Vec<StepId> {
        let mut begun: Vec<&Slot> = self
            .slots
            .iter()
            .filter(|slot| slot.phase == phase && slot.undoable)
            .filter(|slot| !matches!(slot.state, StepState::Pending | StepState::Undone))
            .collect();
        begun.sort_by_key(|slot| std::cmp::Reverse(slot.begun));
        begun.into_iter().map(|slot| slot.id.clone()).collect()
    }

    /// How often the phase of this name was opened again since the run was resumed last.
    pub fn reopenings(&self, phase: &str) -> u32 {
        let index = self.phases.iter().position(|name| name == phase);
        index.and_then(|index| self.reopened.get(&index)).copied().unwrap_or_default()
    }

    /// Whether this phase, which was begun, may be opened again. Nothing that was destroyed comes back, so a phase
    /// before that can't be had once more.
    pub fn may_reopen(&self, phase: &str) -> Result<(), IllegalTransition> {
        self.reopenable(phase).map(drop)
    }

    fn reopenable(&self, phase: &str) -> Result<usize, IllegalTransition> {
        let no = |because: String| IllegalTransition::Reopening { phase: phase.to_owned(), because };
        let index = self.phases.iter().position(|name| name == phase);
        let index = index.ok_or_else(|| no("the plan hasn't got it".to_owned()))?;
        if self.phase().is_none_or(|current| current < index) {
            return Err(no("the run is not in it, nor just behind it".to_owned()));
        }
        let mut later = self.slots.iter().filter(|slot| slot.phase >= index);
        let gone = |slot: &&Slot| slot.irreversible && matches!(slot.state, StepState::Succeeded { .. });
        match later.find(gone) {
            Some(slot) => Err(no(format!("{} can't be taken back", slot.id))),
            None => Ok(index),
        }
    }

    /// What may be done now, in the plan's order. A step that this process is at is listed too.
    ///
    /// An undo that was begun comes before anything else. Then the first phase that isn't done; in it every step that
    /// isn't done and whose `after` are.
    pub fn next(&self) -> Vec<Todo> {
        let mut undoing: Vec<&Slot> = self.slots.iter().filter(|slot| is_in_undo(&slot.state)).collect();
        if !undoing.is_empty() {
            undoing.sort_by_key(|slot| std::cmp::Reverse(slot.begun));
            return undoing.into_iter().map(|slot| Todo::Undo(slot.id.clone())).collect();
        }
        let Some(phase) = self.phase() else { return Vec::new() };
        self.slots
            .iter()
            .filter(|slot| slot.phase == phase && slot.after.iter().all(|id| self.is_done(id)))
            .filter_map(|slot| {
                let id = slot.id.clone();
                match &slot.state {
                    StepState::Started { handle: Some(upid), .. } | StepState::Failed { handle: Some(upid), .. } => {
                        Some(Todo::Reattach(id, upid.clone()))
                    }
                    StepState::Started { .. } | StepState::Failed { class: Class::Ambiguous, .. } => {
                        Some(Todo::Probe(id))
                    }
                    StepState::Pending | StepState::Undone | StepState::Failed { .. } => Some(Todo::Start(id)),
                    StepState::Succeeded { .. } | StepState::Undoing { .. } | StepState::UndoFailed { .. } => None,
                }
            })
            .collect()
    }

    /// The index of the first phase with a step that isn't done.
    pub fn phase(&self) -> Option<usize> {
        self.slots.iter().find(|slot| !matches!(slot.state, StepState::Succeeded { .. })).map(|slot| slot.phase)
    }

    /// Takes one entry: the transition table. Nothing changes when it is illegal.
    pub fn record(&mut self, entry: &Entry) -> Result<(), IllegalTransition> {
        let illegal = |life: Life| Err(IllegalTransition::Run { entry: entry.name(), life: life.name() });
        match (self.life, entry) {
            (Life::New, Entry::Opened { .. }) => self.life = Life::Open,
            // A killed process leaves `Open`, a parked one whose end was cut off `Cancelled`.
            (Life::Open | Life::Cancelled | Life::Closed(_), Entry::Resumed)
                if self.life != Life::Closed(Outcome::Done) =>
            {
                self.life = Life::Open;
                self.reopened.clear();
                self.look_again();
            }
            (Life::Open, Entry::Reopened { phase, .. }) => {
                let index = self.reopenable(phase)?;
                self.reopen(index);
            }
            (Life::Open, Entry::Cancelled { .. }) => self.life = Life::Cancelled,
            (Life::Cancelled, Entry::Closed { outcome: Outcome::Cancelled }) => {
                self.life = Life::Closed(Outcome::Cancelled);
            }
            (Life::Open, Entry::Closed { outcome }) => match outcome {
                Outcome::Done if !self.is_complete() => return illegal(self.life),
                Outcome::Cancelled => return illegal(self.life),
                outcome => self.life = Life::Closed(*outcome),
            },
            (Life::Open, Entry::ApiProbe { up }) => self.api_up = Some(*up),
            (Life::Open, Entry::Requests { .. }) => {}
            (Life::Open, entry) => match entry.step() {
                Some(step) => self.record_step(step, entry)?,
                None => return illegal(self.life),
            },
            (life, _) => return illegal(life),
        }
        Ok(())
    }

    fn record_step(&mut self, id: &StepId, entry: &Entry) -> Result<(), IllegalTransition> {
        let Some(&index) = self.at.get(id) else {
            return Err(IllegalTransition::UnknownStep { entry: entry.name(), step: id.clone() });
        };
        let slot = &self.slots[index];
        let next = match (slot.state.clone(), entry) {
            (
                StepState::Pending | StepState::Undone | StepState::Started { .. } | StepState::Failed { .. },
                Entry::Started { attempt, .. },
            ) => {
                if let Some(before) = self.blocker(slot) {
                    return Err(IllegalTransition::TooEarly { step: id.clone(), before });
                }
                // A task whose outcome is unknown stays attached until the step is done or failed for good.
                StepState::Started { attempt: *attempt, handle: self.handle(id).map(str::to_owned) }
            }
            (StepState::Started { attempt, .. }, Entry::Handle { upid, .. }) => {
                StepState::Started { attempt, handle: Some(upid.clone()) }
            }
            (StepState::Started { .. }, Entry::Succeeded { how, .. }) => StepState::Succeeded { how: *how },
            (StepState::Started { attempt, handle }, Entry::Failed { failure, class, .. }) => StepState::Failed {
                attempt,
                class: *class,
                failure: failure.clone(),
                handle: handle.filter(|_| *class == Class::Ambiguous),
            },
            (
                StepState::Started { .. } | StepState::Succeeded { .. } | StepState::Failed { .. },
                Entry::UndoStarted { .. },
            ) if slot.undoable => StepState::Undoing { handle: None },
            (StepState::Undoing { handle }, Entry::UndoStarted { .. }) => StepState::Undoing { handle },
            (StepState::UndoFailed { .. }, Entry::UndoStarted { .. }) => StepState::Undoing { handle: None },
            (StepState::Undoing { .. }, Entry::Handle { upid, .. }) => {
                StepState::Undoing { handle: Some(upid.clone()) }
            }
            (StepState::Undoing { .. }, Entry::UndoFinished { .. }) => StepState::Undone,
            (StepState::Undoing { .. }, Entry::UndoFailed { failure, .. }) => {
                StepState::UndoFailed { failure: failure.clone() }
            }
            (state, _) => {
                return Err(IllegalTransition::Step { entry: entry.name(), step: id.clone(), state: state.name() });
            }
        };
        self.enter(index, next, entry);
        Ok(())
    }

    fn enter(&mut self, index: usize, next: StepState, entry: &Entry) {
        let id = self.slots[index].id.clone();
        match (&next, entry) {
            (StepState::Started { .. }, Entry::Started { attempt, .. }) => {
                self.begun += 1;
                self.slots[index].begun = self.begun;
                self.slots[index].attempts = *attempt;
            }
            (StepState::Succeeded { .. }, Entry::Succeeded { output, .. }) => {
                Arc::make_mut(&mut self.outputs).insert(id, output.clone());
            }
            (StepState::Undoing { .. }, _) => {
                Arc::make_mut(&mut self.outputs).remove(&id);
            }
            (StepState::Undone, _) => self.forget_successors(index),
            _ => {}
        }
        self.slots[index].state = next;
    }

    /// What came after an undone step may have lost what it stood on (hardware set on a VM that is gone again): it is
    /// looked at anew, which costs one probe where the effect is still there. Gates look again in any case: they let
    /// this phase begin, and it begins once more.
    fn forget_successors(&mut self, undone: usize) {
        let phase = self.slots[undone].phase;
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.phase == phase) {
            if (index > undone || slot.gate) && matches!(slot.state, StepState::Succeeded { .. }) {
                slot.state = StepState::Pending;
                Arc::make_mut(&mut self.outputs).remove(&slot.id);
            }
        }
    }

    /// A gate that nothing was built on yet looks again in each process: its answer is as old as the one before.
    fn look_again(&mut self) {
        let Some(phase) = self.phase() else { return };
        let begun = |slot: &Slot| !matches!(slot.state, StepState::Pending | StepState::Undone);
        if self.slots.iter().any(|slot| slot.phase == phase && !slot.gate && begun(slot)) {
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.phase == phase && slot.gate) {
            if matches!(slot.state, StepState::Succeeded { .. }) {
                slot.state = StepState::Pending;
                Arc::make_mut(&mut self.outputs).remove(&slot.id);
            }
        }
    }

    /// From this phase on nothing counts as done. What can be undone and was begun is to be undone, before anything else:
    /// so a process that is killed here goes on with that.
    fn reopen(&mut self, phase: usize) {
        *self.reopened.entry(phase).or_default() += 1;
        for slot in self.slots.iter_mut().filter(|slot| slot.phase >= phase) {
            slot.state = match &slot.state {
                StepState::Pending | StepState::Undone | StepState::Undoing { .. } | StepState::UndoFailed { .. } => {
                    continue;
                }
                _ if slot.undoable => StepState::Undoing { handle: None },
                StepState::Succeeded { .. } => StepState::Pending,
                state => state.clone(),
            };
            Arc::make_mut(&mut self.outputs).remove(&slot.id);
        }
    }

    fn is_done(&self, id: &StepId) -> bool {
        matches!(self.step(id), Some(StepState::Succeeded { .. }))
    }

    /// What has to come before this step may start: an undo, a step of an earlier phase, or one of its `after`.
    fn blocker(&self, slot: &Slot) -> Option<StepId> {
        let earlier = |other: &&Slot| other.phase < slot.phase && !matches!(other.state, StepState::Succeeded { .. });
        let undo = self.slots.iter().find(|other| is_in_undo(&other.state));
        let blocking = undo.or_else(|| self.slots.iter().find(earlier)).map(|other| other.id.clone());
        blocking.or_else(|| slot.after.iter().find(|id| !self.is_done(id)).cloned())
    }
}

fn is_in_undo(state: &StepState) -> bool {
    matches!(state, StepState::Undoing { .. } | StepState::UndoFailed { .. })
}
