//! One step, or one undo, from its first attempt to its end.
//!
//! Purpose: probe → apply, intent before and outcome after, retry by class. Start reading at [`Work::step`].
//! Must not know: other steps, phases.

use std::error::Error as _;

use super::book::{Book, Broken};
use super::cancel::{Cancel, Level};
use super::clock::Clock;
use super::cx::StepCx;
use super::error::{Class, StepError};
use super::retry::Retry;
use super::{Perform, Seen};
use crate::event::{Event, EventSink, Failure, How};
use crate::journal::Entry;
use crate::plan::{Output, Planned, Step};
use crate::types::{RunId, StepId};

/// How a step's future ended.
pub(super) enum End {
    /// Its effect is there (or, for an undo, gone).
    Done,
    /// It failed for good.
    Failed(Lost),
    /// The run was asked to stop before its end; how it stands is for a probe to find out.
    Parked,
}

/// A step that failed for good.
pub(super) struct Lost {
    pub(super) class: Class,
    pub(super) failure: Failure,
    /// The phase that its error wants opened again.
    pub(super) reopen: Option<String>,
}

/// What all steps of a run share.
pub(super) struct Work<'a, W> {
    pub(super) run: &'a RunId,
    pub(super) world: &'a W,
    pub(super) book: &'a Book<'a>,
    pub(super) clock: &'a dyn Clock,
    pub(super) events: &'a dyn EventSink,
    pub(super) cancel: &'a Cancel,
    pub(super) retry: Retry,
}

/// An attempt's error, with where it came from.
struct Setback {
    error: StepError,
    /// Whether `apply` was begun: then the error is about an effect, else only about a look.
    applied: bool,
}

impl<W: Perform> Work<'_, W> {
    /// Performs a step until it is done or has failed for good.
    pub(super) async fn step(&self, planned: &Planned) -> Result<End, Broken> {
        let id = &planned.id;
        let begun = self.clock.elapsed();
        self.events.emit(Event::StepStarted { step: id.clone(), title: planned.step.title() });
        let mut sent = false;
        for round in 1.. {
            let attempt = self.book.with(|state| state.attempts(id)) + 1;
            self.book.append(Entry::Started { step: id.clone(), attempt })?;
            let setback = match self.attempt(id, planned).await {
                Ok((output, how)) => {
                    // After an ambiguous error the probe found what this run had sent.
                    let how = if sent && how == How::AlreadyDone { How::Applied } else { how };
                    self.book.append(Entry::Succeeded { step: id.clone(), output, how })?;
                    let seconds = self.clock.elapsed().saturating_sub(begun).as_secs_f64();
                    self.events.emit(Event::StepFinished { step: id.clone(), how, seconds });
                    return Ok(End::Done);
                }
                Err(setback) => setback,
            };
            let (class, failure) = self.judge(id, &setback);
            sent |= setback.applied && class == Class::Ambiguous;
            if self.is_stopping(id, &setback.error)? {
                return Ok(End::Parked);
            }
            let Some(pause) = self.retry.pause(class, round, id) else {
                self.book.append(Entry::Failed { step: id.clone(), failure: failure.clone(), class })?;
                self.events.emit(Event::StepFailed { step: id.clone(), class, failure: failure.clone() });
                return Ok(End::Failed(Lost { class, failure, reopen: setback.error.reopen }));
            };
            // An ambiguous attempt stays `started` in the journal: its outcome is unknown until the next probe.
            if class == Class::Transient {
                self.book.append(Entry::Failed { step: id.clone(), failure, class })?;
            }
            if !self.pause(id, round + 1, pause, &setback.error).await {
                return Ok(End::Parked);
            }
        }
        Ok(End::Parked)
    }

    /// Takes a step's effect back. `By`'s step is performed under the undone step's name in the journal.
    pub(super) async fn undo(&self, id: &StepId, by: &Step) -> Result<End, Broken> {
        let planned = Planned {
            id: StepId::new(format!("{id}/undo")),
            step: by.clone(),
            after: Vec::new(),
            undo: crate::plan::Undo::Nothing,
        };
        let begun = self.clock.elapsed();
        self.events.emit(Event::Undoing { step: id.clone(), title: by.title() });
        for round in 1.. {
            self.book.append(Entry::UndoStarted { step: id.clone() })?;
            let Err(setback) = self.attempt(id, &planned).await else {
                self.book.append(Entry::UndoFinished { step: id.clone() })?;
                let seconds = self.clock.elapsed().saturating_sub(begun).as_secs_f64();
                self.events.emit(Event::Undone { step: id.clone(), seconds });
                return Ok(End::Done);
            };
            let (class, failure) = self.judge(id, &setback);
            if self.is_stopping(id, &setback.error)? {
                return Ok(End::Parked);
            }
            let Some(pause) = self.retry.pause(class, round, id) else {
                self.book.append(Entry::UndoFailed { step: id.clone(), failure: failure.clone() })?;
                self.events.emit(Event::UndoFailed { step: id.clone(), failure: failure.clone() });
                return Ok(End::Failed(Lost { class, failure, reopen: setback.error.reopen }));
            };
            if class == Class::Transient {
                self.book.append(Entry::UndoFailed { step: id.clone(), failure })?;
            }
            if !self.pause(id, round + 1, pause, &setback.error).await {
                return Ok(End::Parked);
            }
        }
        Ok(End::Parked)
    }

    async fn attempt(&self, id: &StepId, planned: &Planned) -> Result<(Output, How), Setback> {
        let (attached, outputs) =
            self.book.with(|state| (state.handle(id).map(str::to_owned), state.outputs().clone()));
        let cx = StepCx {
            step: id.clone(),
            run: self.run,
            attached,
            outputs,
            book: self.book,
            events: self.events,
            clock: self.clock,
            cancel: self.cancel,
        };
        let seen = self.world.probe(planned, &cx).await.map_err(|error| Setback { error, applied: false })?;
        match seen {
            Seen::Done(output) => Ok((output, How::AlreadyDone)),
            Seen::NotNeeded => Ok((Output::Nothing, How::Skipped)),
            Seen::Missing => match self.world.apply(planned, &cx).await {
                Ok(output) => Ok((output, How::Applied)),
                Err(error) => Err(Setback { error, applied: true }),
            },
        }
    }

    /// The class that counts, and the error in a form that survives the process. A look that failed says nothing about
    /// a task that was started before it: that task stays attached.
    fn judge(&self, id: &StepId, setback: &Setback) -> (Class, Failure) {
        let attached = self.book.with(|state| state.handle(id).is_some());
        let class = match setback.error.class {
            Class::Transient if !setback.applied && attached => Class::Ambiguous,
            class => class,
        };
        (class, setback.error.to_failure())
    }

    /// Whether the run ends here rather than trying again; what the step said about it is told, not journaled.
    fn is_stopping(&self, id: &StepId, error: &StepError) -> Result<bool, Broken> {
        if self.book.is_broken() {
            return Err(Broken);
        }
        let stopping = self.cancel.level() > Level::Run;
        if stopping {
            self.events.emit(Event::Notice { text: format!("{id} was parked: {}.", because(error)) });
        }
        Ok(stopping)
    }

    /// Waits before the next attempt; `false` when the run was asked to stop meanwhile.
    async fn pause(&self, id: &StepId, attempt: u32, pause: std::time::Duration, error: &StepError) -> bool {
        let in_seconds = pause.as_secs_f64();
        self.events.emit(Event::Retrying { step: id.clone(), attempt, in_seconds, because: because(error) });
        tokio::select! {
            biased;
            () = self.cancel.reached(Level::Park) => false,
            () = self.clock.sleep(pause) => true,
        }
    }
}

/// What failed, and the innermost cause: enough for a line.
fn because(error: &StepError) -> String {
    let mut innermost = error.source();
    while let Some(deeper) = innermost.and_then(std::error::Error::source) {
        innermost = Some(deeper);
    }
    innermost.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
