//! A case: a planned run with a double of its own, and what must hold of both in the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use mock_pve::world::deed::Origin;

use recast::cli::args::Wishes;
use recast::cli::carry_out;
use recast::cli::prepare::{DataWish, Order, prepare};
use recast::engine::clock::Sleep;
use recast::engine::{Cancel, Clock, Outcome, Perform, RealClock, Retry, Run};
use recast::event::Unheard;
use recast::journal::{Entry, Journal, JournalError, Log, Memory, Opening, StateDir};
use recast::plan::{Data, Plan, Verb};
use recast::steps::World;
use recast::types::Sha256;

use super::Death;
use crate::site::{Cluster, Double, End, Folder, KUBERNETES, TALOS, assert_deeds};
use crate::way_back;

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 200.0;

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
    pub(super) async fn new(images: &Path, cluster: Cluster, data: &DataWish) -> Self {
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
    pub(super) async fn go_on(&self, what: &str) {
        let mut ending = self.resume().await;
        if self.is_given_back(&ending) {
            self.assert_given_back(what).await;
            ending = self.resume().await;
        }
        assert_eq!(ending, Ending::Outcome(Outcome::Done), "{what}: {}", self.story());
        self.assert_rebuilt(what).await;
    }

    /// Whether a process of this run ended in a freeze: then the old cluster must be there as it was.
    pub(super) fn is_given_back(&self, ending: &Ending) -> bool {
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

    pub(super) async fn assert_rebuilt(&self, what: &str) {
        let end = End::of(&self.folder, self.double.site()).await;
        assert_eq!(end, End::rebuilt(self.folder.cluster()), "{what}: {}", self.story());
        assert_deeds(&self.double.deeds(), &self.plan);
        if self.keeps() {
            self.assert_nothing_lost(what).await;
        }
        link_files(&self.folder.path("double/factory/images"), &self.images);
    }

    /// The old cluster runs with all that it held, and nothing of it was destroyed.
    pub(super) async fn assert_given_back(&self, what: &str) {
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
