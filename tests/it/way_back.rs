//! The way back from a rebuild that deleted the old cluster: wherever it died, or although it ended well, `rollback` ends
//! with the old versions, the old data and the old profile.

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use mock_pve::world::deed::Origin;
use recast::k8s::{Client, apply::Applier, manifest};
use recast::talos::client::Machine;
use serde_json::Value;

use crate::crash::each;
use crate::kill::{Random, Recast, told};
use crate::site::{Cluster, Double, End, Folder, TALOS, VM};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// How many moments of a rebuild are tried, unless `RECAST_TEST_ALL_CUTS` is set.
const SAMPLE: usize = 4;

/// The Kubernetes API of the cluster that is there now.
pub(crate) async fn api(folder: &Folder, double: &Double) -> Client {
    let session = folder.session(double.site());
    let now = jiff::Timestamp::now();
    let access = recast::cli::carry_out::access(&session.secrets(now).unwrap(), now).unwrap();
    let address = match folder.cluster() {
        Cluster::Lab => "10.20.0.11",
        Cluster::Single | Cluster::SingleOverSsh => "192.168.178.41",
    };
    let machine = Machine::new(&session.connector, address, &access, Duration::from_secs(10)).unwrap();
    // The double answers before its machines do.
    let since = Instant::now();
    loop {
        match machine.kubeconfig().await {
            Ok(kubeconfig) => return Client::new(&session.connector, &kubeconfig).unwrap(),
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn write(client: &Client, name: &str) {
    let text =
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{a: b}}\n");
    let map = manifest::parse(&text).unwrap().remove(0);
    let since = Instant::now();
    while let Err(error) = Applier::new(client).apply(&map).await {
        assert!(since.elapsed() < Duration::from_secs(20), "{error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn exists(client: &Client, name: &str) -> bool {
    client.exists(&format!("/api/v1/namespaces/default/configmaps/{name}")).await.unwrap()
}

fn run(folder: &Folder, double: &Double, args: &[&str]) -> Output {
    folder.recast(double.site(), args).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What the way back must leave: the old machines' names and numbers with the old versions, and the old profile.
async fn assert_as_before(folder: &Folder, double: &Double, profile: &str, story: &str) {
    let end = End::of(folder, double.site()).await;
    let versions: Vec<&str> = end.versions.iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
    let (kubernetes, talos) = versions.split_last().unwrap();
    assert!(talos.iter().all(|version| *version == "1.12.4") && *kubernetes == "1.34.1", "{end:?}\n{story}");
    let expected = End::rebuilt(folder.cluster());
    let running = |end: &End| -> Vec<String> { end.vms.iter().filter(|vm| vm.ends_with("running")).cloned().collect() };
    assert_eq!(running(&end), running(&expected), "{story}");
    assert!(!end.vms.iter().any(|vm| vm.ends_with("stopped")), "{end:?}\n{story}");
    assert_eq!((&end.members, &end.uploads), (&expected.members, &expected.uploads), "{story}");
    assert_eq!(end.differing_secrets, Vec::<String>::new());
    assert_eq!(fs::read_to_string(folder.profile()).unwrap(), profile, "{story}");
    // There was no lock: what is in it is what the way back itself made.
    let lock = fs::read_to_string(folder.profile().with_extension("lock")).unwrap_or_default();
    assert!(!lock.contains(TALOS), "{lock}\n{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_disappointed_is_taken_back_with_data_and_profile() {
    let folder = Folder::of(Cluster::Lab);
    let double = Double::program(&folder, TIME_SCALE);
    let profile = fs::read_to_string(folder.profile()).unwrap();
    write(&api(&folder, &double).await, "from-before").await;
    let rebuilt = run(&folder, &double, &Cluster::Lab.rebuild());
    assert_eq!(rebuilt.status.code(), Some(0), "{}", text(&rebuilt));
    write(&api(&folder, &double).await, "from-after").await;

    // What the way back needs is kept, however few are asked for.
    let pruned = run(&folder, &double, &["snapshot", "prune", "--keep", "1", "--confirm", "lab"]);
    assert_eq!(pruned.status.code(), Some(0), "{}", text(&pruned));
    let kept = fs::read_dir(folder.path("cluster/lab")).unwrap().flatten();
    let kept: Vec<String> = kept.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    assert!(kept.iter().any(|name| name.starts_with("etcd-final-")), "{kept:?}");

    // It shows what it would destroy and what would be lost, and does nothing unasked.
    let deeds = double.deeds().len();
    let shown = run(&folder, &double, &["rollback", "--dry-run"]);
    assert_eq!(shown.status.code(), Some(2), "{}", text(&shown));
    let plan = String::from_utf8_lossy(&shown.stdout).into_owned();
    for words in ["rollback of cluster lab", "to Talos 1.12.4, Kubernetes 1.34.1", "DESTROYED"] {
        assert!(plan.contains(words), "{words}: {plan}");
    }
    let refused = run(&folder, &double, &["rollback"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("--confirm lab") && text(&refused).contains("is lost"), "{}", text(&refused));
    assert_eq!(double.deeds().len(), deeds);

    let back = run(&folder, &double, &["rollback", "--confirm", "lab"]);
    assert_eq!(back.status.code(), Some(0), "{}", text(&back));
    assert_as_before(&folder, &double, &profile, &text(&back)).await;
    let client = api(&folder, &double).await;
    assert!(exists(&client, "from-before").await && !exists(&client, "from-after").await);
    // What ran in between can be had back: a snapshot of it was saved.
    let saved = fs::read_dir(folder.path("cluster/lab")).unwrap().flatten();
    assert!(saved.into_iter().any(|file| file.file_name().to_string_lossy().starts_with("etcd-manual-")));
    // The rebuild can't be gone on with any more, and a way back leads back from nothing.
    assert_eq!(run(&folder, &double, &["resume"]).status.code(), Some(3));
    let again = run(&folder, &double, &["rollback", "--confirm", "lab"]);
    assert_eq!(again.status.code(), Some(4), "{}", text(&again));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_that_kept_nothing_can_not_be_taken_back() {
    let folder = Folder::new();
    let double = Double::program(&folder, TIME_SCALE);
    let rebuilt = run(&folder, &double, &[&Cluster::Single.rebuild()[..], &["--fresh"]].concat());
    assert_eq!(rebuilt.status.code(), Some(0), "{}", text(&rebuilt));
    let deeds = double.deeds().len();
    let refused = run(&folder, &double, &["rollback", "--confirm", "single"]);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused).contains("kept nothing of the cluster"), "{}", text(&refused));
    assert_eq!(double.deeds().len(), deeds);
}

/// What a run says when a step begins, or is done.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    event: String,
    step: String,
}

impl Moment {
    fn begun(step: &str) -> Self {
        Self { event: "step-started".to_owned(), step: step.to_owned() }
    }

    /// None for whatever else is said: how often a run tells what it waits for depends on the clock.
    fn of(line: &str) -> Option<Self> {
        let told: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| told[key].as_str().map(str::to_owned);
        let moment = Self { event: text("event")?, step: text("step")? };
        ["step-started", "step-finished"].contains(&moment.event.as_str()).then_some(moment)
    }

    fn is_of_a_delete(&self) -> bool {
        self.step.starts_with("retire/") && self.step.ends_with("/delete")
    }
}

/// What a run comes to, one after the other, until it ends.
fn moments(recast: &mut Recast) -> impl Iterator<Item = Moment> {
    std::iter::from_fn(move || recast.wait_for(0)).filter_map(|line| Moment::of(&line))
}

/// Kills a run at that moment, and says whether it came to it.
fn kill_at(mut recast: Recast, moment: &Moment) -> bool {
    let reached = moments(&mut recast).any(|at| at == *moment);
    recast.kill();
    recast.end();
    reached
}

/// What a rebuild that nothing disturbs comes to from its first delete on.
async fn undisturbed() -> Vec<Moment> {
    let folder = Folder::new();
    let double = Double::program(&folder, TIME_SCALE);
    write(&api(&folder, &double).await, "from-before").await;
    let mut recast = Recast::start(folder.recast(double.site(), &Cluster::Single.rebuild()), &folder);
    let all = moments(&mut recast).skip_while(|moment| !moment.is_of_a_delete()).collect();
    assert_eq!(recast.end(), Some(0), "{}", told(&folder));
    all
}

/// As many of them as are tried, evenly spread, and others with every seed.
fn sample(all: Vec<Moment>) -> Vec<Moment> {
    if std::env::var_os("RECAST_TEST_ALL_CUTS").is_some() {
        return all;
    }
    let stride = (all.len() / SAMPLE).max(1);
    let first = usize::try_from(Random::new().below(stride as u64)).unwrap();
    all.into_iter().skip(first).step_by(stride).take(SAMPLE).collect()
}

/// The machines that a cluster has before.
fn vms(cluster: Cluster) -> Vec<Option<u32>> {
    match cluster {
        Cluster::Single | Cluster::SingleOverSsh => vec![Some(VM)],
        Cluster::Lab => [1200, 1201, 1202, 1210, 1211].map(Some).to_vec(),
    }
}

/// The rebuild is killed at that moment; then it is taken back.
async fn killed_and_taken_back(cluster: Cluster, moment: &Moment) {
    let folder = Folder::of(cluster);
    let double = Double::program(&folder, TIME_SCALE);
    let profile = fs::read_to_string(folder.profile()).unwrap();
    write(&api(&folder, &double).await, "from-before").await;
    let recast = Recast::start(folder.recast(double.site(), &cluster.rebuild()), &folder);
    assert!(kill_at(recast, moment), "the run never came to {moment:?}\n{}", told(&folder));
    let back = run(&folder, &double, &["rollback", "--confirm", cluster.name()]);
    let story = format!("killed at {moment:?}\n{}", text(&back));
    assert_eq!(back.status.code(), Some(0), "{story}");
    assert_as_before(&folder, &double, &profile, &story).await;
    assert!(exists(&api(&folder, &double).await, "from-before").await, "{story}");
    // Nothing but the cluster's own machines and what the runs made was destroyed.
    let seeded = double.deeds().into_iter().filter(|deed| deed.what == "destroy" && deed.origin == Origin::Seeded);
    let mut seeded: Vec<Option<u32>> = seeded.map(|deed| deed.vmid).collect();
    seeded.sort_unstable();
    // Before the first delete was asked for, what was shut down is only started again.
    assert!(seeded.is_empty() || seeded == vms(cluster), "{seeded:?}\n{story}");
    // What is taken back is over; what only was started again may still go on.
    let resumed = if seeded.is_empty() { 0 } else { 3 };
    assert_eq!(run(&folder, &double, &["resume"]).status.code(), Some(resumed), "{story}");
}

#[test]
fn wherever_a_rebuild_dies_after_its_first_delete_it_is_taken_back() {
    let all = tokio::runtime::Runtime::new().unwrap().block_on(undisturbed());
    assert!(all.len() > SAMPLE, "{all:?}");
    each("cuts after the first delete", &sample(all), async |moment: &Moment| {
        killed_and_taken_back(Cluster::Single, moment).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_of_many_machines_that_dies_while_they_are_made_is_taken_back() {
    // Some are cloned then, and some run already.
    killed_and_taken_back(Cluster::Lab, &Moment::begun("provision/lab-worker-01/start")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_that_dies_while_machines_are_made_goes_on() {
    let folder = Folder::new();
    let double = Double::program(&folder, TIME_SCALE);
    let profile = fs::read_to_string(folder.profile()).unwrap();
    write(&api(&folder, &double).await, "from-before").await;
    let rebuilt = run(&folder, &double, &Cluster::Single.rebuild());
    assert_eq!(rebuilt.status.code(), Some(0), "{}", text(&rebuilt));
    write(&api(&folder, &double).await, "from-after").await;

    let back = Recast::start(folder.recast(double.site(), &["rollback", "--confirm", "single"]), &folder);
    let moment = Moment::begun("provision/single-cp-01/hardware");
    assert!(kill_at(back, &moment), "the way back never came to {moment:?}\n{}", told(&folder));
    let resumed = run(&folder, &double, &["resume"]);
    let story = format!("{}\n{}", told(&folder), text(&resumed));
    assert_eq!(resumed.status.code(), Some(0), "{story}");
    assert_as_before(&folder, &double, &profile, &story).await;
    let client = api(&folder, &double).await;
    assert!(exists(&client, "from-before").await && !exists(&client, "from-after").await, "{story}");
    // Then it is over.
    assert_eq!(run(&folder, &double, &["resume"]).status.code(), Some(3), "{story}");
}
