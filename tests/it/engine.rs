//! Crash, fault and repeat tests, generated from a plan: the engine over a world that is a set of effects.
//!
//! A step's effect is its id in that set; its undo removes it. Applying a step whose effect is there, or whose
//! predecessors' effects are not, is what must never happen, and the world notes it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::{ProptestConfig, prop_assert_eq, proptest};

use recast::engine::clock::Sleep;
use recast::engine::{Cancel, CancelledBy, Class, Clock, Outcome, Perform, Retry, Run, Seen, StepCx, StepError};
use recast::event::{Event, EventSink, Unheard};
use recast::journal::{Entry, Journal, JournalError, Log, Memory, Opening, Record, RunState, StepState};
use recast::plan::step::OurVm;
use recast::plan::{Output, Phase, Planned, Step, Undo};
use recast::types::{NodeName, RunId, Sha256, StepId, StorageId, VmId};

// ---------------------------------------------------------------------------------------------------- the plan

fn vm(vmid: u32) -> OurVm {
    let name = format!("vm-{vmid}");
    OurVm { node: NodeName::from("pve1"), vmid: VmId(vmid), name: name.clone(), mark: format!("recast: step={name}") }
}

fn planned(id: &str, step: Step, after: &[&str], undo: Undo) -> Planned {
    Planned { id: StepId::from(id), step, after: after.iter().map(|id| StepId::from(*id)).collect(), undo }
}

/// Four phases: undoable ones one by one, machines side by side with links between their steps, an irreversible end.
fn plan() -> Vec<Phase> {
    let remove = || Step::RemoveUpload {
        node: NodeName::from("pve1"),
        storage: StorageId::from("local"),
        file: "talos.qcow2".to_owned(),
    };
    let delete = |vmid| Undo::By(Box::new(Step::DeleteOurVm { vm: vm(vmid) }));
    let template = vec![
        planned("template/upload", Step::ConfirmFacts, &[], Undo::By(Box::new(remove()))),
        planned("template/create", Step::StartVm { vm: vm(900) }, &[], delete(900)),
        planned(
            "template/hardware",
            Step::GrowDisk { vm: vm(900), disk: "scsi0".to_owned(), gib: 8 },
            &[],
            Undo::Nothing,
        ),
        planned("template/seal", Step::StartVm { vm: vm(900) }, &["template/create"], Undo::Nothing),
    ];
    let retire = vec![planned(
        "retire/101",
        Step::ConfirmGone { vmids: vec![VmId(101)] },
        &[],
        Undo::Irreversible { because: "its disks are gone".to_owned() },
    )];
    let mut provision = Vec::new();
    for (name, vmid) in [("cp-1", 201), ("cp-2", 202), ("worker-1", 203)] {
        let clone = format!("provision/{name}/clone");
        let size = format!("provision/{name}/size");
        provision.push(planned(&clone, Step::StartVm { vm: vm(vmid) }, &[], delete(vmid)));
        let grow = Step::GrowDisk { vm: vm(vmid), disk: "scsi0".to_owned(), gib: 20 };
        provision.push(planned(&size, grow, &[&clone], Undo::Nothing));
        let start = format!("provision/{name}/start");
        provision.push(planned(&start, Step::StartVm { vm: vm(vmid) }, &[&size], Undo::Nothing));
    }
    let finish = vec![
        planned("finish/profile", Step::EditProfile { set: BTreeMap::new() }, &[], Undo::Nothing),
        planned("finish/gone", Step::ConfirmGone { vmids: vec![VmId(101)] }, &[], Undo::Nothing),
    ];
    let phase = |name: &str, width, steps| Phase { name: name.to_owned(), steps, width };
    vec![
        phase("template", 1, template),
        phase("retire", 1, retire),
        phase("provision", 2, provision),
        phase("finish", 1, finish),
    ]
}

fn ids(phases: &[Phase]) -> Vec<StepId> {
    phases.iter().flat_map(|phase| &phase.steps).map(|planned| planned.id.clone()).collect()
}

// --------------------------------------------------------------------------------------------------- the world

/// A clock on which waiting takes no time, only a turn.
#[derive(Default)]
struct FastClock {
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
enum Fault {
    /// `probe` fails.
    Probe(Class),
    /// `apply` fails before it did anything.
    Before(Class),
    /// `apply` fails although its effect came true.
    After(Class),
}

const FAULTS: [Fault; 11] = [
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
struct World {
    effects: RefCell<BTreeSet<StepId>>,
    /// Tasks that were started and have not come to their end: like PVE's, they go on when the caller dies.
    tasks: RefCell<BTreeMap<String, StepId>>,
    started_tasks: Cell<u32>,
    applied: RefCell<BTreeMap<StepId, u32>>,
    offences: RefCell<Vec<String>>,
    faults: RefCell<BTreeMap<StepId, Fault>>,
    /// Steps that ask that often for the phase `template` to be opened again, instead of being applied.
    reopen: RefCell<BTreeMap<StepId, u32>>,
    /// Steps whose undo fails, once.
    stuck: RefCell<BTreeSet<StepId>>,
    /// Steps that are performed twice each time.
    repeat: Cell<bool>,
    /// Set once the process is dead: nothing reaches the world any more.
    dead: Arc<AtomicBool>,
    phases: Vec<Phase>,
}

impl World {
    fn new() -> Self {
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
    fn finish_tasks(&self) {
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

    fn assert_right(&self, what: &str) {
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

// ------------------------------------------------------------------------------------------------- the harness

/// A log in memory whose process dies at the n-th append, before or after the record is safe.
struct Mortal {
    records: Memory,
    left: Option<(u32, Death)>,
    dead: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
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

fn opening() -> Opening {
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
fn live(world: &World, memory: &Memory, death: Option<(u32, Death)>, polls: Option<u32>) -> Option<Outcome> {
    live_with(world, memory, death, polls, &Cancel::new(), &Unheard)
}

fn live_with(
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

fn whole_run() -> Vec<Record> {
    let (world, memory) = (World::new(), Memory::default());
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("an undisturbed run");
    memory.records()
}

/// Resumes until done; the number of processes it took.
fn resume_to_the_end(world: &World, memory: &Memory, what: &str) -> u32 {
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

// --------------------------------------------------------------------------------------------------- the tests

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
fn killed_at_every_record_it_resumes_to_the_same_end() {
    let records = u32::try_from(whole_run().len()).unwrap();
    let mut cases = 0;
    for death in [Death::BeforeRecord, Death::AfterRecord] {
        for at in 0..records {
            for orphans in [true, false] {
                let (world, memory) = (World::new(), Memory::default());
                assert_eq!(live(&world, &memory, Some((at, death)), None), None);
                // PVE's tasks go on without us: they end before the resume, or while it looks at them. One whose handle
                // was lost with its record can only be found by its effect.
                if orphans || death == Death::BeforeRecord {
                    world.finish_tasks();
                }
                resume_to_the_end(&world, &memory, &format!("killed at record {at} ({death:?})"));
                cases += 1;
            }
        }
    }
    println!("killed at every journal record: {cases} cases over {records} records");
}

#[test]
fn dropped_at_every_await_it_resumes_to_the_same_end() {
    let mut cases = 0;
    for polls in 0.. {
        let (world, memory) = (World::new(), Memory::default());
        let outcome = live(&world, &memory, None, Some(polls));
        resume_or_done(&world, &memory, outcome, &format!("dropped after poll {polls}"));
        cases += 1;
        if outcome.is_some() {
            break;
        }
    }
    println!("dropped at every await: {cases} cases");
}

fn resume_or_done(world: &World, memory: &Memory, outcome: Option<Outcome>, what: &str) {
    if outcome == Some(Outcome::Done) {
        world.assert_right(what);
    } else {
        resume_to_the_end(world, memory, what);
    }
}

#[test]
fn every_step_failed_once_in_every_way_ends_the_same() {
    let mut cases = 0;
    for step in ids(&plan()) {
        for fault in FAULTS {
            let (world, memory) = (World::new(), Memory::default());
            world.faults.borrow_mut().insert(step.clone(), fault);
            let outcome = live(&world, &memory, None, None).unwrap();
            let (Fault::Probe(class) | Fault::Before(class) | Fault::After(class)) = fault;
            let expected = match class {
                Class::Transient | Class::Ambiguous => Outcome::Done,
                Class::Permanent => Outcome::Failed,
                Class::Refused => Outcome::Refused,
            };
            assert_eq!(outcome, expected, "{step} {fault:?}");
            assert!(world.faults.borrow().is_empty(), "{step} {fault:?} was never reached");
            if outcome != Outcome::Done {
                assert_undone(&world, &memory, &step);
            }
            resume_or_done(&world, &memory, Some(outcome), &format!("{step} {fault:?}"));
            cases += 1;
        }
    }
    println!("every step failed once with each class: {cases} cases");
}

/// After a failure nothing undoable of the failed step's phase is left.
fn assert_undone(world: &World, memory: &Memory, failed: &StepId) {
    let phase = world.phases.iter().find(|phase| phase.steps.iter().any(|planned| planned.id == *failed)).unwrap();
    let mut undone = Vec::new();
    for record in memory.records() {
        if let Entry::UndoStarted { step } = record.entry {
            undone.push(step);
        }
    }
    for planned in phase.steps.iter().filter(|planned| matches!(planned.undo, Undo::By(_))) {
        assert!(!world.effects.borrow().contains(&planned.id), "{} was left after {failed} failed", planned.id);
    }
    if phase.width == 1 {
        let order: Vec<usize> =
            undone.iter().map(|id| phase.steps.iter().position(|planned| planned.id == *id).unwrap()).collect();
        assert!(order.is_sorted_by(|a, b| a > b), "undone in order {undone:?}");
    }
}

#[test]
fn templates_side_by_side_hold_each_other_back_in_nothing() {
    let chain = |node: &str, vmid: u32| {
        let id = |what: &str| format!("template/{node}/{what}");
        let undo = || Undo::By(Box::new(Step::DeleteOurVm { vm: vm(vmid) }));
        vec![
            planned(&id("upload"), Step::ConfirmFacts, &[], undo()),
            planned(&id("create"), Step::StartVm { vm: vm(vmid) }, &[&id("upload")], undo()),
            planned(&id("seal"), Step::StartVm { vm: vm(vmid) }, &[&id("create")], Undo::Nothing),
        ]
    };
    let mut phases = plan();
    phases[0].steps = [chain("pve1", 901), chain("pve2", 902), chain("pve3", 903)].concat();
    phases[0].width = 4;
    for what in ["upload", "create", "seal"] {
        for fault in [Fault::Before(Class::Permanent), Fault::After(Class::Permanent)] {
            let (world, memory) = (World { phases: phases.clone(), ..World::default() }, Memory::default());
            world.faults.borrow_mut().insert(StepId::from(format!("template/pve2/{what}").as_str()), fault);
            assert_eq!(live(&world, &memory, None, None), Some(Outcome::Failed));
            let there: Vec<String> = world.effects.borrow().iter().map(ToString::to_string).collect();
            let expected =
                ["pve1", "pve3"].map(|node| ["create", "seal", "upload"].map(|s| format!("template/{node}/{s}")));
            assert_eq!(there, expected.concat(), "{what} {fault:?}: the others are done, and nothing of pve2 is left");
            resume_to_the_end(&world, &memory, "after one node failed");
            // What was right was not made again.
            assert_eq!(world.applied.borrow()[&StepId::from("template/pve1/create")], 1);
        }
    }
}

fn reopening(step: &str, times: u32) -> (World, Memory) {
    let world = World::new();
    world.reopen.borrow_mut().insert(StepId::from(step), times);
    (world, Memory::default())
}

#[test]
fn a_phase_that_does_not_hold_any_more_is_undone_and_done_anew() {
    let (world, memory) = reopening("retire/101", 2);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("reopened twice");
    let count = |is: fn(&Entry) -> bool| memory.records().iter().filter(|record| is(&record.entry)).count();
    assert_eq!(count(|entry| matches!(entry, Entry::Reopened { .. })), 2);
    assert_eq!(world.applied.borrow()[&StepId::from("template/create")], 3);
    assert_eq!(world.applied.borrow()[&StepId::from("retire/101")], 1);
}

#[test]
fn somebody_who_disturbs_for_ever_ends_the_run() {
    let (world, memory) = reopening("retire/101", 99);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Refused));
    let asked = 99 - world.reopen.borrow()[&StepId::from("retire/101")];
    assert_eq!(asked, recast::engine::MOST_REOPENINGS + 1);
    world.reopen.borrow_mut().clear();
    resume_to_the_end(&world, &memory, "after it was left alone");
}

#[test]
fn nothing_is_done_anew_once_something_was_destroyed() {
    let (world, memory) = reopening("provision/cp-1/clone", 1);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Refused));
    assert!(!memory.records().iter().any(|record| matches!(record.entry, Entry::Reopened { .. })));
    resume_to_the_end(&world, &memory, "refused after the retirement");
}

#[test]
fn killed_at_every_record_of_a_reopened_run_it_resumes_to_the_same_end() {
    let (world, memory) = reopening("retire/101", 1);
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    let records = u32::try_from(memory.records().len()).unwrap();
    for death in [Death::BeforeRecord, Death::AfterRecord] {
        for at in 0..records {
            let (world, memory) = reopening("retire/101", 1);
            assert_eq!(live(&world, &memory, Some((at, death)), None), None);
            world.finish_tasks();
            resume_to_the_end(&world, &memory, &format!("reopened, killed at record {at} ({death:?})"));
        }
    }
    println!("killed at every record of a reopened run: {} cases", records * 2);
}

#[test]
fn every_failing_run_killed_at_every_record_still_ends_the_same() {
    let mut cases = 0;
    for step in ids(&plan()) {
        let (world, memory) = (World::new(), Memory::default());
        world.faults.borrow_mut().insert(step.clone(), Fault::After(Class::Permanent));
        assert_eq!(live(&world, &memory, None, None), Some(Outcome::Failed));
        let records = u32::try_from(memory.records().len()).unwrap();
        for at in 0..records {
            let (world, memory) = (World::new(), Memory::default());
            world.faults.borrow_mut().insert(step.clone(), Fault::After(Class::Permanent));
            assert_eq!(live(&world, &memory, Some((at, Death::AfterRecord)), None), None);
            resume_to_the_end(&world, &memory, &format!("{step} failed, killed at record {at}"));
            cases += 1;
        }
    }
    println!("failing runs (with undo) killed at every record: {cases} cases");
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
fn an_undo_that_fails_is_stuck_until_a_resume_gets_it_done() {
    let (world, memory) = (World::new(), Memory::default());
    world.faults.borrow_mut().insert(StepId::from("template/seal"), Fault::Before(Class::Permanent));
    world.stuck.borrow_mut().insert(StepId::from("template/create"));
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Stuck));
    assert!(
        world.effects.borrow().contains(&StepId::from("template/upload")),
        "nothing before the stuck undo is undone"
    );
    assert_eq!(live(&world, &memory, None, None), Some(Outcome::Done));
    world.assert_right("after a stuck undo");
}

#[test]
fn retries_come_to_an_end_and_are_told() {
    struct Stubborn(World);
    impl Perform for Stubborn {
        async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
            self.0.faults.borrow_mut().insert(StepId::from("retire/101"), Fault::Before(Class::Transient));
            self.0.probe(step, cx).await
        }
        async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
            self.0.apply(step, cx).await
        }
    }
    let world = Stubborn(World::new());
    let (clock, cancel, events, id) = (FastClock::default(), Cancel::new(), Heard::default(), opening().run);
    let run = Run {
        id: &id,
        cluster: "lab",
        verb: "rebuild",
        phases: &world.0.phases,
        world: &world,
        clock: &clock,
        events: &events,
        cancel: &cancel,
        retry: retry(),
    };
    let journal = Journal::in_memory(&world.0.phases, &opening()).unwrap();
    let ended = finish(run.carry_out(journal)).unwrap();
    assert_eq!(ended.outcome, Outcome::Failed);
    assert_eq!(ended.failures[0].failure.causes, ["Transient"]);
    assert_eq!(ended.failures[0].failure.hints, ["Try something else."]);
    let retries = events.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
    assert_eq!(retries, 2, "three attempts have two pauses");
}

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl EventSink for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

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
    let (phases, clock, cancel, id) = (plan(), FastClock::default(), Cancel::new(), opening().run);
    let world = Endless(&cancel);
    let run = Run {
        id: &id,
        cluster: "lab",
        verb: "rebuild",
        phases: &phases,
        world: &world,
        clock: &clock,
        events: &Unheard,
        cancel: &cancel,
        retry: retry(),
    };
    let ended = finish(run.carry_out(Journal::in_memory(&phases, &opening()).unwrap())).unwrap();
    assert_eq!(ended.outcome, Outcome::Cancelled);
    let passed = clock.elapsed();
    assert!(Duration::from_secs(4) <= passed && passed < Duration::from_secs(5), "{passed:?}");
    let first = &phases[0].steps[0].id;
    assert!(matches!(ended.journal.state().step(first), Some(StepState::Started { .. })));
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
    let (clock, cancel, events, id) = (FastClock::default(), Cancel::new(), Heard::default(), opening().run);
    let run = Run {
        id: &id,
        cluster: "lab",
        verb: "rebuild",
        phases: &world.0.phases,
        world: &world,
        clock: &clock,
        events: &events,
        cancel: &cancel,
        retry: retry(),
    };
    let ended = finish(run.carry_out(Journal::in_memory(&world.0.phases, &opening()).unwrap())).unwrap();
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

// ------------------------------------------------------------------------------------- journals as such

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Kills a run several times in a row at arbitrary records, with arbitrary faults on the way.
    #[test]
    fn killed_again_and_again(
        kills in proptest::collection::vec((0_u32..40, proptest::bool::ANY), 0..6),
        faults in proptest::collection::btree_map(0_usize..16, 0_usize..11, 0..5),
    ) {
        let (world, memory) = (World::new(), Memory::default());
        let steps = ids(&plan());
        for (step, fault) in faults {
            world.faults.borrow_mut().insert(steps[step % steps.len()].clone(), FAULTS[fault]);
        }
        for (at, written) in kills {
            let death = if written { Death::AfterRecord } else { Death::BeforeRecord };
            if live(&world, &memory, Some((at, death)), None) == Some(Outcome::Done) {
                break;
            }
            if death == Death::BeforeRecord {
                world.finish_tasks();
            }
        }
        resume_to_the_end(&world, &memory, "killed again and again");
        prop_assert_eq!(world.offences.borrow().len(), 0);
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
