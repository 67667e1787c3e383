//! A rebuild whose process is killed, again and again, against a double in another process.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::site::{Cluster, Double, End, Folder, assert_deeds, plan};

/// A recast at work, whose events are read.
pub(crate) struct Recast {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Recast {
    pub(crate) fn start(mut command: Command, folder: &Folder) -> Self {
        let mut told = File::options().create(true).append(true).open(folder.path("told")).unwrap();
        std::io::Write::write_all(&mut told, b"-----\n").unwrap();
        let mut child = command.args(["--events", "-"]).stdout(Stdio::piped()).stderr(told).spawn().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, events }
    }

    /// Waits for that many events of the steps; the last of them. None when the run ends before.
    pub(crate) fn wait_for(&mut self, events: u64) -> Option<String> {
        let mut steps = self.events.by_ref().map_while(Result::ok).filter(|line| line.contains("step"));
        steps.nth(usize::try_from(events).unwrap())
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; the exit code, if it ended by itself.
    pub(crate) fn end(mut self) -> Option<i32> {
        let rest = self.events.by_ref().map_while(Result::ok);
        rest.for_each(drop);
        self.child.wait().unwrap().code()
    }
}

/// Random numbers from a seed that is told, so that a failure can be had again.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn new() -> Self {
        let given = std::env::var("RECAST_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(given.unwrap_or_else(|| u64::from(jiff::Timestamp::now().subsec_nanosecond().unsigned_abs())))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

pub(crate) fn told(folder: &Folder) -> String {
    std::fs::read_to_string(folder.path("told")).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_three_times_at_random_moments_it_ends_as_if_nothing_had_happened() {
    let folder = Folder::new();
    let double = Double::program(&folder, 50.0);
    let mut random = Random::new();
    let seed = random.0;
    let mut moments = Vec::new();
    for kill in 0..3 {
        let args = if kill == 0 { &Cluster::Single.rebuild()[..] } else { &["resume"][..] };
        let mut recast = Recast::start(folder.recast(double.site(), args), &folder);
        moments.push(recast.wait_for(random.below(20)));
        recast.kill();
        assert_eq!(recast.end(), None);
    }
    let recast = Recast::start(folder.recast(double.site(), &["resume"]), &folder);
    let code = recast.end();
    let story = format!("RECAST_TEST_SEED={seed}, killed after {moments:#?}\n{}", told(&folder));
    assert_eq!(code, Some(0), "{story}");
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(folder.cluster()), "{story}");
    assert_deeds(&double.deeds(), &plan(&folder.run()));
    // A run that is done is not begun again.
    assert_eq!(Recast::start(folder.recast(double.site(), &["resume"]), &folder).end(), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_end_it_parks_within_five_seconds_and_goes_on_later() {
    let folder = Folder::new();
    let double = Double::program(&folder, 50.0);
    let mut recast = Recast::start(folder.recast(double.site(), &Cluster::Single.rebuild()), &folder);
    let moment = recast.wait_for(15).unwrap();
    recast.signal("TERM");
    let since = Instant::now();
    let code = recast.end();
    let took = since.elapsed();
    assert_eq!(code, Some(7), "{moment}\n{}", told(&folder));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(told(&folder).contains("recast resume"), "{}", told(&folder));
    let resumed = Recast::start(folder.recast(double.site(), &["resume"]), &folder).end();
    assert_eq!(resumed, Some(0), "{}", told(&folder));
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(folder.cluster()));
    assert_deeds(&double.deeds(), &plan(&folder.run()));
}
