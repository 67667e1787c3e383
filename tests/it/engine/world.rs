//! A world without machines: effects are names in a set, and its clock passes at once.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use jiff::Timestamp;

use recast::engine::clock::Sleep;
use recast::engine::{Class, Clock, Perform, Seen, StepCx, StepError};
use recast::plan::{Output, Phase, Planned};
use recast::types::StepId;

use super::plan::{ids, plan};

/// A clock on which waiting takes no time, only a turn.
#[derive(Default)]
pub(super) struct FastClock {
    millis: AtomicU64,
}

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        "2026-11-20T22:31:05Z".parse::<Timestamp>().unwrap() + self.elapsed()
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.millis.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(async move {
            turn().await;
            self.millis.fetch_add(u64::try_from(duration.as_millis()).unwrap(), Ordering::Relaxed);
        })
    }
}

/// Gives way once.
async fn turn() {
    let mut given = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut given, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// What goes wrong in `apply` (or `probe`), once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// `probe` fails.
    Probe(Class),
    /// `apply` fails before it did anything.
    Before(Class),
    /// `apply` fails although its effect came true.
    After(Class),
}

pub(super) const FAULTS: [Fault; 11] = [
    Fault::Probe(Class::Transient),
    Fault::Probe(Class::Ambiguous),
    Fault::Probe(Class::Permanent),
    Fault::Probe(Class::Refused),
    Fault::Before(Class::Transient),
    Fault::Before(Class::Ambiguous),
    Fault::Before(Class::Permanent),
    Fault::Before(Class::Refused),
    Fault::After(Class::Ambiguous),
    Fault::After(Class::Permanent),
    Fault::After(Class::Refused),
];

/// What there is, and what must not have happened.
#[derive(Default)]
pub(super) struct World {
    pub(super) effects: RefCell<BTreeSet<StepId>>,
    /// Tasks that were started and have not come to their end: like PVE's, they go on when the caller dies.
    pub(super) tasks: RefCell<BTreeMap<String, StepId>>,
    pub(super) started_tasks: Cell<u32>,
    pub(super) applied: RefCell<BTreeMap<StepId, u32>>,
    pub(super) offences: RefCell<Vec<String>>,
    pub(super) faults: RefCell<BTreeMap<StepId, Fault>>,
    /// Steps that ask that often for the phase `template` to be opened again, instead of being applied.
    pub(super) reopen: RefCell<BTreeMap<StepId, u32>>,
    /// Steps whose undo fails, once.
    pub(super) stuck: RefCell<BTreeSet<StepId>>,
    /// Steps that are performed twice each time.
    pub(super) repeat: Cell<bool>,
    /// Set once the process is dead: nothing reaches the world any more.
    pub(super) dead: Arc<AtomicBool>,
    pub(super) phases: Vec<Phase>,
}

impl World {
    pub(super) fn new() -> Self {
        Self { phases: plan(), ..Self::default() }
    }

    async fn alive(&self) {
        turn().await;
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    fn error(class: Class) -> StepError {
        StepError::new(class, "do it", io::Error::other(format!("{class:?}"))).hinted("Try something else.")
    }

    fn fault(&self, step: &StepId, fits: impl Fn(Fault) -> bool) -> Option<Class> {
        let mut faults = self.faults.borrow_mut();
        let fault = faults.get(step).copied().filter(|fault| fits(*fault))?;
        faults.remove(step);
        let (Fault::Probe(class) | Fault::Before(class) | Fault::After(class)) = fault;
        Some(class)
    }

    /// What must be there before `step` is applied: its phase's earlier steps it names, or all when the phase's width
    /// is 1, and all of earlier phases.
    fn stands(&self, step: &StepId) -> bool {
        let effects = self.effects.borrow();
        for phase in &self.phases {
            if let Some(at) = phase.steps.iter().position(|planned| planned.id == *step) {
                let before = &phase.steps[..if phase.width == 1 { at } else { 0 }];
                return phase.steps[at].after.iter().all(|id| effects.contains(id))
                    && before.iter().all(|planned| effects.contains(&planned.id));
            }
            if !phase.steps.iter().all(|planned| effects.contains(&planned.id)) {
                return false;
            }
        }
        false
    }

    /// The effect comes true, as the end of a task that nobody may be waiting for any more.
    fn finish_task(&self, upid: &str) {
        if let Some(step) = self.tasks.borrow_mut().remove(upid) {
            if let Some(undone) = step.as_str().strip_suffix("/undo") {
                // A VM that is deleted takes with it what was set on it.
                let phase =
                    self.phases.iter().find(|phase| phase.steps.iter().any(|p| p.id.as_str() == undone)).unwrap();
                let at = phase.steps.iter().position(|planned| planned.id.as_str() == undone).unwrap();
                let mut gone = BTreeSet::from([StepId::from(undone)]);
                for planned in &phase.steps[at..] {
                    if planned.after.iter().any(|id| gone.contains(id)) || phase.width == 1 {
                        gone.insert(planned.id.clone());
                    }
                }
                self.effects.borrow_mut().retain(|effect| !gone.contains(effect));
            } else {
                if !self.stands(&step) {
                    self.offences.borrow_mut().push(format!("{step} came true without what it stands on"));
                }
                if !self.effects.borrow_mut().insert(step.clone()) {
                    self.offences.borrow_mut().push(format!("{step} came true twice"));
                }
            }
        }
    }

    /// Tasks go on whether or not a client lives.
    pub(super) fn finish_tasks(&self) {
        let open: Vec<String> = self.tasks.borrow().keys().cloned().collect();
        for upid in open {
            self.finish_task(&upid);
        }
    }

    fn is_there(&self, planned: &Planned) -> bool {
        match planned.id.as_str().strip_suffix("/undo") {
            Some(undone) => !self.effects.borrow().contains(&StepId::from(undone)),
            None => self.effects.borrow().contains(&planned.id),
        }
    }

    pub(super) fn assert_right(&self, what: &str) {
        assert!(self.offences.borrow().is_empty(), "{what}: {:?}", self.offences.borrow());
        let all: BTreeSet<StepId> = ids(&self.phases).into_iter().collect();
        assert_eq!(*self.effects.borrow(), all, "{what}");
        assert!(self.tasks.borrow().is_empty(), "{what}: a task was never waited for");
    }

    async fn apply_once(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.alive().await;
        if let Some(left) = self.reopen.borrow_mut().get_mut(&step.id).filter(|left| **left > 0) {
            *left -= 1;
            return Err(Self::error(Class::Refused).reopening("template"));
        }
        if let Some(class) = self.fault(&step.id, |fault| matches!(fault, Fault::Before(_))) {
            return Err(Self::error(class));
        }
        if self.is_there(step) {
            self.offences.borrow_mut().push(format!("{} applied although it was there", step.id));
        }
        *self.applied.borrow_mut().entry(step.id.clone()).or_default() += 1;
        let number = self.started_tasks.get() + 1;
        self.started_tasks.set(number);
        let upid = format!("UPID:pve1:{number:08X}:{}:", step.id);
        self.tasks.borrow_mut().insert(upid.clone(), step.id.clone());
        cx.handle(&upid)?;
        self.alive().await;
        self.finish_task(&upid);
        self.alive().await;
        if let Some(class) = self.fault(&step.id, |fault| matches!(fault, Fault::After(_))) {
            return Err(Self::error(class));
        }
        Ok(Output::Nothing)
    }
}

impl Perform for World {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        self.alive().await;
        if let Some(class) = self.fault(&step.id, |fault| matches!(fault, Fault::Probe(_))) {
            return Err(Self::error(class));
        }
        if step.id.as_str().ends_with("/undo") && self.stuck.borrow_mut().remove(cx.step()) {
            return Err(Self::error(Class::Permanent));
        }
        if let Some(upid) = cx.attached() {
            self.finish_task(upid);
        }
        self.alive().await;
        Ok(if self.is_there(step) { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let done = self.apply_once(step, cx).await?;
        if self.repeat.get()
            && let Seen::Missing = self.probe(step, cx).await?
        {
            self.offences.borrow_mut().push(format!("{} was missing right after it was applied", step.id));
        }
        Ok(done)
    }
}
