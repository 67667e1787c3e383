//! Crash, fault and repeat tests, generated from the plan of a rebuild: the real steps against a double. All of them on
//! one node with one control plane, without the data and with them, and a sample on the lab's three.
//!
//! `engine.rs` does the same to the engine alone; here a machine must boot in the end. Each case has a double of its own.
//! The journal is in memory: what its file survives is `journal.rs`'s and `kill.rs`'s affair.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mock_pve::world::deed::Origin;
use tempfile::TempDir;
use tokio::sync::Notify;

use recast::cli::args::Wishes;
use recast::cli::carry_out;
use recast::cli::prepare::{DataWish, Order, prepare};
use recast::engine::clock::Sleep;
use recast::engine::{Cancel, Class, Clock, Outcome, Perform, RealClock, Retry, Run, Seen, StepCx, StepError};
use recast::event::{How, Unheard};
use recast::journal::{Entry, Journal, JournalError, Log, Memory, Opening, Record, StateDir};
use recast::plan::{Data, Output, Plan, Planned, Verb};
use recast::steps::World;
use recast::types::{Sha256, StepId};

use crate::kill::Random;
use crate::site::{Cluster, Double, End, Folder, KUBERNETES, TALOS, assert_deeds, secrets};
use crate::way_back;

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 200.0;

/// How many cases go on at once. They mostly wait.
const AT_ONCE: usize = 8;

/// How many journal cuts are tried on the lab, whose rebuild has several hundred.
const SAMPLE: usize = 20;

/// How many journal cuts are tried where the data are kept, unless `RECAST_TEST_ALL_CUTS` is set.
const KEPT_CUTS: usize = 16;

/// How many faults are tried where the data are kept, unless `RECAST_TEST_ALL_CUTS` is set.
const KEPT_FAULTS: usize = 24;

/// The phases that are others, or do other things, where the data are kept.
const KEEPING: [&str; 5] = ["backup/", "freeze/", "retire/", "bootstrap/", "verify/"];

/// What is in the old cluster before anything begins.
const FROM_BEFORE: &str = "from-before";

/// Longer than any life of these runs; a run that waits longer waits for something that never comes.
const TOO_LONG: Duration = Duration::from_mins(4);

/// A clock whose seconds are short for waits. Time limits shrink with them.
struct Fast(RealClock);

impl Fast {
    const FACTOR: u32 = 4;
}

impl Clock for Fast {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed() * Self::FACTOR
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        self.0.sleep(duration / Self::FACTOR)
    }
}

// ------------------------------------------------------------------------------------------------------ a case

/// A planned run with its double.
pub(crate) struct Case {
    // First, so that it writes nothing any more when its folder goes.
    pub(crate) double: Double,
    pub(crate) folder: Folder,
    pub(crate) plan: Plan,
    run: PathBuf,
    pub(crate) log: Memory,
    images: PathBuf,
}

/// How one process of a run came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Outcome(Outcome),
    /// It was killed.
    Death,
}

impl Case {
    /// The factory's images, which are the same in every case, are taken from `images` and kept there.
    async fn new(images: &Path, cluster: Cluster, data: &DataWish) -> Self {
        let folder = Folder::of(cluster);
        link_files(images, &folder.path("double/factory/images"));
        let double = Double::here(&folder, TIME_SCALE).await;
        if *data == DataWish::Keep {
            way_back::write(&way_back::api(&folder, &double).await, FROM_BEFORE).await;
        }
        let session = folder.session(double.site());
        let now = Timestamp::now();
        let state = StateDir::new(&folder.state(), cluster.name());
        let wishes = Wishes {
            to: Some(TALOS.parse().unwrap()),
            kubernetes: Some(KUBERNETES.parse().unwrap()),
            ..Wishes::default()
        };
        let order = Order { verb: Verb::Rebuild, wishes, data: data.clone(), back: None };
        let prepared = prepare(&session, &order, state.new_run_id(now), now).await;
        let prepared = prepared.unwrap_or_else(|stop| panic!("{stop:?}"));
        let plan = prepared.plan.unwrap_or_else(|| panic!("{:#?}", prepared.findings));
        Self { images: images.to_owned(), ..Self::of(folder, double, plan) }
    }

    /// A plan that was made of this.
    pub(crate) fn of(folder: Folder, double: Double, plan: Plan) -> Self {
        let run = StateDir::new(&folder.state(), folder.cluster().name()).run(&plan.run);
        run.make().unwrap();
        let run = run.path().to_owned();
        Self { double, folder, plan, run, log: Memory::default(), images: PathBuf::new() }
    }

    /// All that a new process would make anew.
    pub(crate) fn world(&self) -> World {
        let session = self.folder.session(self.double.site());
        let secrets = session.secrets(Timestamp::now()).unwrap();
        carry_out::world(&session, self.plan.clone(), secrets, &self.run).unwrap_or_else(|stop| panic!("{stop:?}"))
    }

    /// Whether the old cluster's data are kept.
    fn keeps(&self) -> bool {
        matches!(self.plan.data, Data::Keep(_))
    }

    /// Begins the run, or goes on with it, until it ends or is killed.
    pub(crate) async fn live(&self, world: &impl Perform, log: Box<dyn Log>, death: &Death) -> Ending {
        let opening = Opening { run: self.plan.run.clone(), tool: "recast test".to_owned(), at: Timestamp::now() };
        let (path, digest) = (PathBuf::from("(memory)"), Sha256::of(b"the plan"));
        let journal = match Journal::over(path, log, self.log.records(), digest, &self.plan.phases, &opening) {
            Ok(journal) => journal,
            Err(JournalError::AlreadyDone { .. }) => return Ending::Outcome(Outcome::Done),
            Err(_) if death.is_over() => return Ending::Death,
            Err(error) => panic!("{error}: {}", self.story()),
        };
        let (clock, cancel, verb) = (Fast(RealClock::new()), Cancel::new(), self.plan.verb.to_string());
        let run = Run {
            id: &self.plan.run,
            cluster: &self.plan.cluster,
            verb: &verb,
            phases: &self.plan.phases,
            world,
            clock: &clock,
            events: &Unheard,
            cancel: &cancel,
            retry: Retry { first: Duration::from_millis(40), ..Retry::default() },
        };
        tokio::select! {
            biased;
            () = death.comes() => Ending::Death,
            () = tokio::time::sleep(TOO_LONG) => panic!("it hangs: {}", self.story()),
            ended = run.carry_out(journal) => match ended {
                Ok(ended) => Ending::Outcome(ended.outcome),
                Err(_) if death.is_over() => Ending::Death,
                Err(error) => panic!("{error}: {}", self.story()),
            },
        }
    }

    /// Goes on to the end as if nothing had been wrong.
    pub(crate) async fn resume(&self) -> Ending {
        self.live(&self.world(), Box::new(self.log.clone()), &Death::default()).await
    }

    /// Goes on to the end, and looks whether it is the right one. Where data are kept, a freeze that did not succeed
    /// may first give the old cluster back.
    async fn go_on(&self, what: &str) {
        let mut ending = self.resume().await;
        if self.is_given_back(&ending) {
            self.assert_given_back(what).await;
            ending = self.resume().await;
        }
        assert_eq!(ending, Ending::Outcome(Outcome::Done), "{what}: {}", self.story());
        self.assert_rebuilt(what).await;
    }

    /// Whether a process of this run ended in a freeze: then the old cluster must be there as it was.
    fn is_given_back(&self, ending: &Ending) -> bool {
        let records = self.log.records();
        let begun = records.iter().rev().find_map(|record| match &record.entry {
            Entry::Started { step, .. } => Some(step),
            _ => None,
        });
        let freezing = begun.is_some_and(|step| step.as_str().starts_with("freeze/"));
        self.keeps() && freezing && matches!(ending, Ending::Outcome(Outcome::Failed | Outcome::Refused))
    }

    /// The journal, to be read by a person.
    pub(crate) fn story(&self) -> String {
        let lines = self.log.records().into_iter().map(|record| serde_json::to_string(&record).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn assert_rebuilt(&self, what: &str) {
        let end = End::of(&self.folder, self.double.site()).await;
        assert_eq!(end, End::rebuilt(self.folder.cluster()), "{what}: {}", self.story());
        assert_deeds(&self.double.deeds(), &self.plan);
        if self.keeps() {
            self.assert_nothing_lost(what).await;
        }
        link_files(&self.folder.path("double/factory/images"), &self.images);
    }

    /// The old cluster runs with all that it held, and nothing of it was destroyed.
    async fn assert_given_back(&self, what: &str) {
        let end = End::of(&self.folder, self.double.site()).await;
        let rebuilt = End::rebuilt(self.folder.cluster());
        let story = format!("{what}: {end:#?}\n{}", self.story());
        let running =
            |end: &End| -> Vec<String> { end.vms.iter().filter(|vm| vm.ends_with("running")).cloned().collect() };
        assert_eq!(running(&end), running(&rebuilt), "{story}");
        let old = end.versions.iter().filter(|line| line.ends_with(" 1.12.4") || *line == "kubernetes 1.34.1");
        assert_eq!((old.count(), &end.members), (rebuilt.versions.len(), &rebuilt.members), "{story}");
        let deeds = self.double.deeds();
        let destroyed = deeds.iter().any(|deed| deed.what == "destroy" && deed.origin == Origin::Seeded);
        assert!(!destroyed, "{deeds:?}\n{story}");
        self.assert_nothing_lost(what).await;
    }

    /// What was in the old cluster is in the one that is there now.
    async fn assert_nothing_lost(&self, what: &str) {
        let client = way_back::api(&self.folder, &self.double).await;
        assert!(way_back::exists(&client, FROM_BEFORE).await, "{what}: {}", self.story());
    }
}

/// Gives the files of one folder to another one as well.
fn link_files(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_file() && !target.exists() {
            // Another case may just have done it.
            let _linked = fs::hard_link(&path, &target);
        }
    }
}

/// Runs every case, a few at a time, each on a runtime of its own. Panics with all that failed.
#[expect(clippy::print_stdout, reason = "the counts are what a reader of the test's output wants to know")]
pub(crate) fn each<T: Sync + std::fmt::Debug>(what: &str, cases: &[T], test: impl AsyncFn(&T) + Sync) {
    secrets();
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(test(case));
                        runtime.shutdown_background();
                    }));
                    if done.is_err() {
                        failed.lock().unwrap().push(format!("{case:?}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let (cases, seconds) = (cases.len(), since.elapsed().as_secs_f64());
    println!("{what}: {cases} cases, {} failed, {seconds:.0} s", failed.len());
    assert!(failed.is_empty(), "{what}: {failed:#?}");
}

// ----------------------------------------------------------------------------------------------------- crashes

/// The end of a process.
#[derive(Clone, Default)]
pub(crate) struct Death {
    over: Arc<AtomicBool>,
    news: Arc<Notify>,
}

impl Death {
    fn strike(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.news.notify_one();
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    async fn comes(&self) {
        self.news.notified().await;
    }
}

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// That many records are on disk, and nothing happens after the last of them.
    After(usize),
    /// That many records are on disk, and what the next one would have said has happened.
    InsteadOf(usize),
}

/// A journal that is cut.
pub(crate) struct CutLog {
    pub(crate) kept: Memory,
    pub(crate) cut: Cut,
    pub(crate) death: Death,
}

impl Log for CutLog {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let dead = || io::Error::other("the process is dead");
        let held = self.kept.records().len();
        match self.cut {
            _ if self.death.is_over() => return Err(dead()),
            Cut::InsteadOf(number) if held == number => {
                self.death.strike();
                return Err(dead());
            }
            _ => self.kept.append(record)?,
        }
        if self.cut == Cut::After(held + 1) {
            self.death.strike();
        }
        Ok(())
    }
}

/// The world of a process that dies: nothing is begun after that.
pub(crate) struct Mortal {
    pub(crate) world: World,
    pub(crate) death: Death,
}

impl Perform for Mortal {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        if self.death.is_over() {
            std::future::pending::<()>().await;
        }
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.world.apply(step, cx).await
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

/// The journal of a run that nothing disturbs.
fn undisturbed(images: &TempDir, cluster: Cluster, data: &DataWish) -> Vec<Record> {
    let records = Mutex::new(Vec::new());
    each("undisturbed", &[()], async |()| {
        let case = Case::new(images.path(), cluster, data).await;
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{}", case.story());
        case.assert_rebuilt("undisturbed").await;
        *records.lock().unwrap() = case.log.records();
    });
    records.into_inner().unwrap()
}

/// The steps that had something to do.
fn applied(records: &[Record]) -> BTreeSet<StepId> {
    let applied = records.iter().filter_map(|record| match &record.entry {
        Entry::Succeeded { step, how: How::Applied, .. } => Some(step.clone()),
        _ => None,
    });
    applied.collect()
}

/// Every record as the last one; and every record that tells of something done, lost.
///
/// Where nothing happens between two records, a cut behind the first is one behind the second to the world: those are
/// left out, unless `RECAST_TEST_ALL_CUTS` is set.
pub(crate) fn cuts(records: &[Record]) -> Vec<Cut> {
    let all = std::env::var_os("RECAST_TEST_ALL_CUTS").is_some();
    let mut cuts = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let told = matches!(record.entry, Entry::Handle { .. } | Entry::Succeeded { .. });
        if told {
            cuts.push(Cut::InsteadOf(index));
        }
        if all || matches!(record.entry, Entry::Started { .. } | Entry::Handle { .. } | Entry::Closed { .. }) {
            cuts.push(Cut::After(index + 1));
        }
    }
    cuts
}

/// So many of these, evenly spread, and others with every seed.
fn spread<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let stride = all.len().div_ceil(most).max(1);
    let first = usize::try_from(Random::new().below(stride as u64)).unwrap();
    all.into_iter().skip(first).step_by(stride).collect()
}

/// The same, or all of them if `RECAST_TEST_ALL_CUTS` is set.
fn sample<T>(all: Vec<T>, most: usize) -> Vec<T> {
    if std::env::var_os("RECAST_TEST_ALL_CUTS").is_some() { all } else { spread(all, most) }
}

/// Whether such a step is what the last record before a cut, or the first one behind it, is about.
fn is_near(records: &[Record], cut: Cut, wanted: impl Fn(&StepId) -> bool) -> bool {
    let (Cut::After(next) | Cut::InsteadOf(next)) = cut;
    let near = [next.checked_sub(1), Some(next)].into_iter().flatten();
    let steps = near.filter_map(|index| records.get(index)?.entry.step());
    steps.into_iter().any(wanted)
}

/// Whether it matters to this step that the data are kept.
fn is_keeping(step: &StepId) -> bool {
    KEEPING.iter().any(|phase| step.as_str().starts_with(phase))
}

#[test]
fn killed_at_any_record_a_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Fresh);
    let cuts = cuts(&records);
    println!("{} records", records.len());
    cut_at_each(&images, Cluster::Single, &DataWish::Fresh, &cuts);
}

/// The rest of the plan is the same, and killed above.
#[test]
fn killed_while_the_data_are_kept_a_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Keep);
    let mut cuts = cuts(&records);
    cuts.retain(|cut| is_near(&records, *cut, is_keeping));
    println!("{} records, {} cuts where data are kept", records.len(), cuts.len());
    assert!(cuts.len() > KEPT_CUTS, "{cuts:?}");
    cut_at_each(&images, Cluster::Single, &DataWish::Keep, &sample(cuts, KEPT_CUTS));
}

#[test]
fn killed_at_a_sample_of_records_the_labs_rebuild_goes_on_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Lab, &DataWish::Keep);
    let cuts = cuts(&records);
    println!("{} records", records.len());
    cut_at_each(&images, Cluster::Lab, &DataWish::Keep, &spread(cuts, SAMPLE));
}

/// The rest of the plan is the same, and killed above.
#[test]
fn killed_at_any_record_an_image_over_ssh_gets_to_the_same_end() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::SingleOverSsh, &DataWish::Fresh);
    let mut cuts = cuts(&records);
    cuts.retain(|cut| is_near(&records, *cut, |step| step.as_str().starts_with("template/")));
    assert!(cuts.len() > 8, "{cuts:?}");
    cut_at_each(&images, Cluster::SingleOverSsh, &DataWish::Fresh, &cuts);
}

fn cut_at_each(images: &TempDir, cluster: Cluster, data: &DataWish, cuts: &[Cut]) {
    each("journal cuts", cuts, async |cut| {
        let case = Case::new(images.path(), cluster, data).await;
        let death = Death::default();
        let log = CutLog { kept: case.log.clone(), cut: *cut, death: death.clone() };
        let world = Mortal { world: case.world(), death: death.clone() };
        let first = case.live(&world, Box::new(log), &death).await;
        drop(world);
        // How often the Kubernetes API is seen to come and go is a matter of moments: the last cuts may come too late.
        let ended = first == Ending::Outcome(Outcome::Done) || case.is_given_back(&first);
        assert!(first == Ending::Death || ended, "{first:?}: {}", case.story());
        case.go_on(&format!("{cut:?}")).await;
    });
}

// ------------------------------------------------------------------------------------------------------ faults

/// Where a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// While it looks.
    Probe,
    /// Before it does anything.
    Before,
    /// After all is done.
    After,
}

/// Every step fails once, in one way.
struct Faulty<'a> {
    world: World,
    /// Only steps whose ids begin so fail.
    steps: &'a str,
    place: Place,
    class: Class,
    failed: RefCell<BTreeSet<StepId>>,
}

impl Faulty<'_> {
    /// The fault, if this is the place and the step's turn. What takes a step back doesn't fail: a run that can't be
    /// taken back is stuck by design.
    fn fault(&self, place: Place, step: &Planned) -> Result<(), StepError> {
        let id = step.id.as_str();
        let due = place == self.place && id.starts_with(self.steps) && !id.ends_with("/undo");
        if due && self.failed.borrow_mut().insert(step.id.clone()) {
            return Err(StepError::new(self.class, format!("do {}", step.id), "the test wants it"));
        }
        Ok(())
    }
}

impl Perform for Faulty<'_> {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        self.fault(Place::Probe, step)?;
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.fault(Place::Before, step)?;
        let output = self.world.apply(step, cx).await?;
        self.fault(Place::After, step)?;
        Ok(output)
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

#[test]
fn every_step_may_fail_once_in_every_way() {
    fail_once_in_every_way(Cluster::Single, "");
}

#[test]
fn every_step_of_an_image_over_ssh_may_fail_once_in_every_way() {
    fail_once_in_every_way(Cluster::SingleOverSsh, "template/");
}

/// Every way in which a step may fail.
fn ways_to_fail() -> Vec<(Class, Place)> {
    let classes = [Class::Transient, Class::Permanent, Class::Ambiguous, Class::Refused];
    let places = [Place::Probe, Place::Before, Place::After];
    classes.into_iter().flat_map(|class| places.map(|place| (class, place))).collect()
}

/// One step fails once, in one way.
#[derive(Debug)]
struct Fault {
    step: StepId,
    class: Class,
    place: Place,
}

/// Each by itself: what a failure gives back depends on how far the run was.
#[test]
fn any_step_may_fail_once_where_the_data_are_kept() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Keep);
    let applied = applied(&records);
    let done: BTreeSet<&StepId> = records.iter().filter_map(|record| record.entry.step()).collect();
    let mut faults = Vec::new();
    for (class, place) in ways_to_fail() {
        let steps = done.iter().filter(|step| is_keeping(step));
        // What there is nothing to do about is never applied, so it can't fail there.
        let steps = steps.filter(|step| place == Place::Probe || applied.contains(**step));
        faults.extend(steps.map(|step| Fault { step: (*step).clone(), class, place }));
    }
    println!("{} faults where data are kept", faults.len());
    assert!(faults.len() > 10 * ways_to_fail().len(), "{faults:?}");
    each("faults", &sample(faults, KEPT_FAULTS), async |fault| {
        let Fault { step, class, place } = fault;
        let what = format!("{fault:?}");
        let case = Case::new(images.path(), Cluster::Single, &DataWish::Keep).await;
        let world = Faulty {
            world: case.world(),
            steps: step.as_str(),
            place: *place,
            class: *class,
            failed: RefCell::default(),
        };
        let first = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
        assert!(world.failed.borrow().contains(step), "{what}: {}", case.story());
        drop(world);
        let failed = matches!(first, Ending::Outcome(Outcome::Failed | Outcome::Refused));
        assert!(failed || first == Ending::Outcome(Outcome::Done), "{what}: {first:?}: {}", case.story());
        // Until the first delete is about to begin, a failure leaves the old cluster as it was.
        if failed && ["backup/", "freeze/"].iter().any(|phase| step.as_str().starts_with(phase)) {
            case.assert_given_back(&what).await;
        }
        case.go_on(&what).await;
    });
}

#[expect(clippy::print_stdout, reason = "the counts are what a reader of the test's output wants to know")]
fn fail_once_in_every_way(cluster: Cluster, steps: &'static str) {
    let images = tempfile::tempdir().unwrap();
    let applied = applied(&undisturbed(&images, cluster, &DataWish::Fresh));
    let ways = ways_to_fail();
    let faults = AtomicUsize::new(0);
    each("ways to fail", &ways, async |&(class, place)| {
        let case = Case::new(images.path(), cluster, &DataWish::Fresh).await;
        let mut failed = BTreeSet::new();
        let mut ending = None;
        // Each process of the run meets at least one new fault, or is the last.
        for _ in 0..=case.plan.steps().count() {
            let world = Faulty { world: case.world(), steps, place, class, failed: RefCell::new(failed) };
            let lived = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
            failed = world.failed.into_inner();
            let done = lived == Ending::Outcome(Outcome::Done);
            ending = Some(lived);
            if done || matches!(ending, Some(Ending::Outcome(Outcome::Stuck))) {
                break;
            }
        }
        assert_eq!(ending, Some(Ending::Outcome(Outcome::Done)), "{class:?} {place:?}: {}", case.story());
        // What there is nothing to do about is never applied, so it can't fail there.
        let idle = |planned: &Planned| place != Place::Probe && !applied.contains(&planned.id);
        let meant = || case.plan.steps().filter(|planned| planned.id.as_str().starts_with(steps) && !idle(planned));
        let met = meant().filter(|planned| failed.contains(&planned.id)).count();
        assert_eq!(met, meant().count());
        faults.fetch_add(met, Ordering::Relaxed);
        case.assert_rebuilt(&format!("{class:?} {place:?}")).await;
    });
    println!("faults: {}", faults.into_inner());
}

// ----------------------------------------------------------------------------------------------------- repeats

/// Performs every step twice, each time as the engine does: look, and apply if it is missing.
struct Twice {
    world: World,
    applied: RefCell<BTreeMap<StepId, u32>>,
}

impl Perform for Twice {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let first = self.world.apply(step, cx).await?;
        *self.applied.borrow_mut().entry(step.id.clone()).or_default() += 1;
        match self.world.probe(step, cx).await? {
            Seen::NotNeeded => Ok(first),
            Seen::Done(output) => Ok(output),
            Seen::Missing => {
                *self.applied.borrow_mut().entry(step.id.clone()).or_default() += 1;
                self.world.apply(step, cx).await
            }
        }
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

#[test]
fn every_step_may_be_done_twice() {
    let images = tempfile::tempdir().unwrap();
    let cases = [
        (Cluster::Single, DataWish::Fresh),
        (Cluster::SingleOverSsh, DataWish::Fresh),
        (Cluster::Single, DataWish::Keep),
    ];
    each("every step twice", &cases, async |(cluster, data)| {
        let case = Case::new(images.path(), *cluster, data).await;
        let world = Twice { world: case.world(), applied: RefCell::default() };
        let ending = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
        assert_eq!(ending, Ending::Outcome(Outcome::Done), "{}", case.story());
        case.assert_rebuilt("twice").await;
        let done = applied(&case.log.records());
        let applied = world.applied.into_inner();
        assert_eq!(applied.keys().cloned().collect::<BTreeSet<_>>(), done);
        assert!(done.len() + 3 > case.plan.steps().count(), "{done:?}");
        // What looks done when it is done isn't done again; the rest only looks, or is the same when done again.
        let twice: Vec<&StepId> = applied.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
        println!("applied twice: {twice:?}");
    });
}
