//! The loop: phases in order, their steps side by side.
//!
//! Purpose: starts what may run, lets running steps finish when one fails, undoes, parks. All steps run inside one
//! task; [`Perform`]'s futures need not be `Send`.
//! Must not know: what a step does. Start reading at [`Run::carry_out`].

use std::collections::BTreeSet;
use std::future;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::Perform;
use super::attempt::{End, Lost, Work};
use super::book::{Book, Broken};
use super::cancel::{Cancel, CancelledBy, GRACE, Level};
use super::clock::{Clock, Sleep};
use super::error::{Class, EngineError};
use super::retry::Retry;
use crate::event::{Event, EventSink, Failure, Outcome};
use crate::journal::{Entry, Journal, RunState, StepState, Todo};
use crate::plan::{Phase, Planned, Undo};
use crate::types::{RunId, StepId};

/// How often the Kubernetes API is asked whether it answers. The downtime in the report is this exact.
pub const API_PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// A plan's phases with all that is needed to carry them out.
pub struct Run<'a, W> {
    /// Its id.
    pub id: &'a RunId,
    /// The cluster, for events.
    pub cluster: &'a str,
    /// The verb, for events.
    pub verb: &'a str,
    /// What to do.
    pub phases: &'a [Phase],
    /// What performs it.
    pub world: &'a W,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Who hears about it.
    pub events: &'a dyn EventSink,
    /// Who may stop it.
    pub cancel: &'a Cancel,
    /// How often a step is tried.
    pub retry: Retry,
}

/// A step that failed for good, or whose undo did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedStep {
    /// The step.
    pub step: StepId,
    /// What may be done about it.
    pub class: Class,
    /// The error.
    pub failure: Failure,
    /// The phase that has to be opened again because of it.
    pub reopen: Option<String>,
}

impl FailedStep {
    fn new(step: &StepId, lost: Lost) -> Self {
        let Lost { class, failure, reopen } = lost;
        Self { step: step.clone(), class, failure, reopen }
    }
}

/// How often a run opens the same phase again before it gives up: whoever disturbs it has to be found by a person.
pub const MOST_REOPENINGS: u32 = 3;

/// How a run, or this stretch of it, ended.
pub struct Ended {
    /// In one word.
    pub outcome: Outcome,
    /// What failed, in the order in which it did.
    pub failures: Vec<FailedStep>,
    /// How long the Kubernetes API did not answer, over all stretches, when that was measured.
    pub api_downtime_seconds: Option<f64>,
    /// The journal, still locked.
    pub journal: Journal,
}

/// Why the loop can't go on.
enum Halt {
    Broken,
    Deadlock { phase: String, waiting: Vec<StepId> },
}

impl From<Broken> for Halt {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// What became of a phase or of an undo.
enum Stretch {
    Done,
    Failed,
    Cancelled,
}

impl<W: Perform> Run<'_, W> {
    /// Carries the plan out from where the journal says it stands, to its end or until it fails or is stopped.
    ///
    /// # Errors
    /// Only when the journal can't be written or the plan is circular; a step's failure is an [`Outcome`].
    pub async fn carry_out(&self, journal: Journal) -> Result<Ended, EngineError> {
        self.open(&journal);
        let book = Book::new(journal, self.clock);
        let mut failures = Vec::new();
        let halted = {
            let driving = pin!(self.drive(&book, &mut failures));
            let probing = pin!(self.watch_api(&book));
            match futures_util::future::select(driving, probing).await {
                futures_util::future::Either::Left((outcome, _)) => outcome,
                futures_util::future::Either::Right((never, _)) => match never {},
            }
        };
        self.close(book, halted, failures)
    }

    fn open(&self, journal: &Journal) {
        self.events.emit(Event::RunOpened {
            run: self.id.clone(),
            cluster: self.cluster.to_owned(),
            verb: self.verb.to_owned(),
            resumed: journal.is_resumed(),
        });
    }

    fn work<'w>(&'w self, book: &'w Book<'w>) -> Work<'w, W> {
        Work {
            run: self.id,
            world: self.world,
            book,
            clock: self.clock,
            events: self.events,
            cancel: self.cancel,
            retry: self.retry,
        }
    }

    fn close(
        &self,
        book: Book<'_>,
        halted: Result<Outcome, Halt>,
        failures: Vec<FailedStep>,
    ) -> Result<Ended, EngineError> {
        let closed = halted.and_then(|outcome| {
            self.count(&book)?;
            if let (Outcome::Cancelled, by) = (outcome, self.cancel.by()) {
                book.append(Entry::Cancelled { by: by.unwrap_or(CancelledBy::Rollback) })?;
            }
            book.append(Entry::Closed { outcome })?;
            Ok(outcome)
        });
        let journal = book.close()?;
        let outcome = match closed {
            Ok(outcome) => outcome,
            Err(Halt::Deadlock { phase, waiting }) => return Err(EngineError::Deadlock { phase, waiting }),
            // A broken book gives its error when closed.
            Err(Halt::Broken) => Outcome::Failed,
        };
        let api_downtime_seconds = journal.downtime().seconds(self.clock.now());
        self.events.emit(Event::RunClosed { outcome, api_downtime_seconds });
        Ok(Ended { outcome, failures, api_downtime_seconds, journal })
    }

    /// Takes back what the phase that stopped did, or the freeze behind it, and leaves the run parked.
    ///
    /// # Errors
    /// As [`Run::carry_out`].
    pub async fn go_back(&self, journal: Journal, to: &str) -> Result<Ended, EngineError> {
        self.open(&journal);
        let book = Book::new(journal, self.clock);
        let mut failures = Vec::new();
        let halted = self.back(&book, to, &mut failures).await;
        self.close(book, halted, failures)
    }

    async fn back(&self, book: &Book<'_>, to: &str, failures: &mut Vec<FailedStep>) -> Result<Outcome, Halt> {
        let work = self.work(book);
        let mut undo = to_undo(book);
        if undo.is_empty() {
            let because = "it was asked for".to_owned();
            if book.with(|state| state.may_reopen(to).is_ok()) {
                book.append(Entry::Reopened { phase: to.to_owned(), because: because.clone() })?;
                self.events.emit(Event::PhaseReopened { phase: to.to_owned(), because });
                undo = to_undo(book);
            } else if let Some(current) = book.with(RunState::phase) {
                undo = book.with(|state| state.undoable(current));
            }
        }
        Ok(match self.undo(&work, &undo, failures).await? {
            Stretch::Done | Stretch::Cancelled => Outcome::Cancelled,
            Stretch::Failed => Outcome::Stuck,
        })
    }

    async fn drive(&self, book: &Book<'_>, failures: &mut Vec<FailedStep>) -> Result<Outcome, Halt> {
        let work = self.work(book);
        // An undo that an earlier process began, or that got stuck, comes first.
        match self.undo(&work, &to_undo(book), failures).await? {
            Stretch::Done => {}
            Stretch::Failed => return Ok(Outcome::Stuck),
            Stretch::Cancelled => return Ok(Outcome::Cancelled),
        }
        while let Some(index) = book.with(RunState::phase) {
            let phase = &self.phases[index];
            let begun = self.clock.elapsed();
            self.events.emit(Event::PhaseStarted { phase: phase.name.clone(), steps: phase.steps.len() });
            let before = failures.len();
            match self.forward(&work, phase, failures).await? {
                Stretch::Done => {
                    self.count(book)?;
                    let seconds = self.clock.elapsed().saturating_sub(begun).as_secs_f64();
                    self.events.emit(Event::PhaseFinished { phase: phase.name.clone(), seconds });
                }
                Stretch::Cancelled => return Ok(Outcome::Cancelled),
                Stretch::Failed if self.reopen(book, failures, before)? => {
                    match self.undo(&work, &to_undo(book), failures).await? {
                        Stretch::Done => {}
                        Stretch::Failed => return Ok(Outcome::Stuck),
                        Stretch::Cancelled => return Ok(Outcome::Cancelled),
                    }
                }
                Stretch::Failed => {
                    let refused = failures.iter().all(|failed| failed.class == Class::Refused);
                    let mut undo = book.with(|state| state.undoable(index));
                    if phase.goes_on() {
                        let failed = failures[before..].iter().flat_map(|failed| phase.chain(&failed.step));
                        let failed: BTreeSet<StepId> = failed.collect();
                        undo.retain(|step| failed.contains(step));
                    }
                    return Ok(match self.undo(&work, &undo, failures).await? {
                        Stretch::Done if refused => Outcome::Refused,
                        Stretch::Done => Outcome::Failed,
                        Stretch::Failed => Outcome::Stuck,
                        Stretch::Cancelled => Outcome::Cancelled,
                    });
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// Opens an earlier phase again, when that is what this phase's failures ask for and when it may be done.
    fn reopen(&self, book: &Book<'_>, failures: &mut Vec<FailedStep>, before: usize) -> Result<bool, Halt> {
        let asked: Vec<_> = failures[before..].iter().map(|failed| (failed.reopen.clone(), failed)).collect();
        let Some((Some(phase), first)) = asked.first() else { return Ok(false) };
        if asked.iter().any(|(other, _)| other.as_ref() != Some(phase)) {
            return Ok(false);
        }
        let again = book.with(|state| state.may_reopen(phase).is_ok() && state.reopenings(phase) < MOST_REOPENINGS);
        if !again {
            return Ok(false);
        }
        let because = first.failure.causes.first().unwrap_or(&first.failure.what).clone();
        book.append(Entry::Reopened { phase: phase.clone(), because: because.clone() })?;
        self.events.emit(Event::PhaseReopened { phase: phase.clone(), because });
        failures.truncate(before);
        Ok(true)
    }

    /// Runs a phase's steps until all are done, one has failed (then those that run are let finish), or the run is to
    /// stop.
    async fn forward(
        &self,
        work: &Work<'_, W>,
        phase: &Phase,
        failures: &mut Vec<FailedStep>,
    ) -> Result<Stretch, Halt> {
        let before = failures.len();
        let mut running = FuturesUnordered::new();
        let mut at_work: BTreeSet<StepId> = BTreeSet::new();
        let mut failed: BTreeSet<StepId> = BTreeSet::new();
        let mut stopping = Stop::new(self);
        loop {
            if (failures.len() == before || phase.goes_on()) && self.cancel.level() == Level::Run {
                for planned in Self::startable(work.book, phase, &at_work, &failed) {
                    at_work.insert(planned.id.clone());
                    running.push(async move { (&planned.id, work.step(planned).await) });
                }
            }
            if running.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                () = stopping.due() => return Ok(Stretch::Cancelled),
                Some((id, ended)) = running.next() => {
                    at_work.remove(id);
                    if let End::Failed(lost) = ended? {
                        failed.insert(id.clone());
                        failures.push(FailedStep::new(id, lost));
                    }
                }
            }
        }
        let waiting: Vec<StepId> = phase
            .steps
            .iter()
            .map(|planned| planned.id.clone())
            .filter(|id| !work.book.with(|state| matches!(state.step(id), Some(StepState::Succeeded { .. }))))
            .collect();
        if waiting.is_empty() {
            Ok(Stretch::Done)
        } else if self.cancel.level() > Level::Run {
            Ok(Stretch::Cancelled)
        } else if failures.len() > before {
            Ok(Stretch::Failed)
        } else {
            Err(Halt::Deadlock { phase: phase.name.clone(), waiting })
        }
    }

    /// The steps to start now, in the plan's order, as many as the phase's width leaves room for.
    fn startable<'p>(
        book: &Book<'_>,
        phase: &'p Phase,
        at_work: &BTreeSet<StepId>,
        failed: &BTreeSet<StepId>,
    ) -> Vec<&'p Planned> {
        let room = phase.width.max(1).saturating_sub(at_work.len());
        let next = book.with(RunState::next);
        next.iter()
            .filter(|todo| !at_work.contains(todo.step()) && !failed.contains(todo.step()))
            .filter_map(|todo| phase.steps.iter().find(|planned| planned.id == *todo.step()))
            .take(room)
            .collect()
    }

    /// Takes the effects of these steps back, one after another in this order. Stops at the first that can't be: what
    /// was done before it may stand on it.
    async fn undo(
        &self,
        work: &Work<'_, W>,
        steps: &[StepId],
        failures: &mut Vec<FailedStep>,
    ) -> Result<Stretch, Halt> {
        let mut stopping = Stop::new(self);
        for id in steps {
            let planned = self.phases.iter().flat_map(|phase| &phase.steps).find(|planned| planned.id == *id);
            let Some(Undo::By(by)) = planned.map(|planned| &planned.undo) else { continue };
            if self.cancel.level() > Level::Run {
                return Ok(Stretch::Cancelled);
            }
            let end = tokio::select! {
                biased;
                () = stopping.due() => return Ok(Stretch::Cancelled),
                end = work.undo(id, by) => end?,
            };
            match end {
                End::Done => {}
                End::Parked => return Ok(Stretch::Cancelled),
                End::Failed(lost) => {
                    failures.push(FailedStep::new(id, lost));
                    return Ok(Stretch::Failed);
                }
            }
        }
        Ok(Stretch::Done)
    }

    /// Journals how many requests were sent: the next process counts from zero.
    fn count(&self, book: &Book<'_>) -> Result<(), Halt> {
        match self.world.requests() {
            0 => Ok(()),
            sent => Ok(book.append(Entry::Requests { sent })?),
        }
    }

    /// Asks the Kubernetes API whether it answers, and journals changes.
    async fn watch_api(&self, book: &Book<'_>) -> std::convert::Infallible {
        while let Some(up) = self.world.api_up().await {
            if book.with(RunState::api_up) != Some(up) {
                if book.append(Entry::ApiProbe { up }).is_err() {
                    break;
                }
                self.events.emit(Event::ApiProbe { up });
            }
            self.clock.sleep(API_PROBE_INTERVAL).await;
        }
        future::pending().await
    }
}

/// The steps whose effects are to be taken back before anything else.
fn to_undo(book: &Book<'_>) -> Vec<StepId> {
    let next = book.with(RunState::next);
    next.into_iter().filter_map(|todo| if let Todo::Undo(step) = todo { Some(step) } else { None }).collect()
}

/// When running steps are to be dropped: [`GRACE`] after the first request, at once after the second.
struct Stop<'a> {
    cancel: &'a Cancel,
    clock: &'a dyn Clock,
    events: &'a dyn EventSink,
    grace: Option<Sleep<'a>>,
}

impl<'a> Stop<'a> {
    fn new<W>(run: &Run<'a, W>) -> Self {
        Self { cancel: run.cancel, clock: run.clock, events: run.events, grace: None }
    }

    /// Waits for that moment. May be dropped and called again: the grace goes on.
    async fn due(&mut self) {
        if self.grace.is_none() {
            self.cancel.reached(Level::Park).await;
            if let (Level::Park, Some(by)) = (self.cancel.level(), self.cancel.by()) {
                self.events.emit(Event::Parking { by, grace_seconds: GRACE.as_secs_f64() });
            }
        }
        let clock = self.clock;
        let grace = self.grace.get_or_insert_with(|| clock.sleep(GRACE));
        tokio::select! {
            biased;
            () = self.cancel.reached(Level::Stop) => {}
            () = grace => {}
        }
    }
}
