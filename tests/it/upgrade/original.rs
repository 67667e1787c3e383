//! Upgrades over the real etcd: it keeps taking writes while its members go down one after the other, and loses none that
//! it acknowledged.
//!
//! Every control plane of the double runs Debian's etcd under its member. Without that program the tests say that they are
//! skipped (and fail where `RECAST_REQUIRE_REAL_PARTS` is set).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use mock_pve::etcd::{Life, Stop, Talk};
use mock_pve::serve::{self, Options};
use recast::net::Silent;
use tokio::sync::watch;

use super::{LAB, Scene, Shape};
use crate::site::{Cluster, Double, Folder};

/// Control planes only.
const THREE: Shape = Shape { workers: 0, ..LAB };

/// Their VMs, their names, and their addresses in the profile.
const SEATS: [(u32, &str, &str); 3] =
    [(1200, "lab-cp-01", "10.20.0.11"), (1201, "lab-cp-02", "10.20.0.12"), (1202, "lab-cp-03", "10.20.0.13")];

/// Between two writes of one writer.
const PACE: Duration = Duration::from_millis(20);

/// Until a writer turns to another member.
const PATIENCE: Duration = Duration::from_secs(1);

/// The original and its client, where they are installed.
fn program() -> Option<PathBuf> {
    let here = real_parts::is_here("etcd", "--version") && real_parts::is_here("etcdctl", "version");
    here.then(|| PathBuf::from("etcd"))
}

impl Scene {
    /// Where a machine of the profile really listens.
    fn dialled(&self, address: &str) -> IpAddr {
        let address: IpAddr = address.parse().unwrap();
        self.double.ready.machines.iter().find(|one| one.address == address).unwrap().dialled
    }

    fn talks(&self) -> Vec<Talk> {
        SEATS.iter().map(|(_, _, address)| Talk::at(self.dialled(address))).collect()
    }

    fn lives(&self) -> Vec<Life> {
        self.double.world().etcd_lives()
    }

    /// All that a linearizable read by etcd's own client finds of the writers' keys.
    fn read_back(&self) -> BTreeMap<String, String> {
        let endpoint = format!("http://{}", SocketAddr::new(self.dialled(SEATS[0].2), 2379));
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoint, "--consistency", "l", "get", "--prefix", "writes/"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        lines.chunks(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }
}

/// Writes one key after the other until it is over, each until some member acknowledged it: key, value, and when.
async fn write(writer: usize, talks: Vec<Talk>, over: watch::Receiver<bool>) -> Vec<(String, String, Instant)> {
    let (mut acknowledged, mut via) = (Vec::new(), writer);
    let mut pace = tokio::time::interval(PACE);
    while !*over.borrow() {
        pace.tick().await;
        let number = acknowledged.len();
        let (key, value) = (format!("writes/{writer}/{number:06}"), format!("{writer} wrote {number}"));
        let put = talks[via % talks.len()].put(&key, &value);
        match tokio::time::timeout(PATIENCE, put).await {
            Ok(Ok(())) => acknowledged.push((key, value, Instant::now())),
            // Whether it was written nobody knows: the same again, by another member.
            _ => via += 1,
        }
    }
    acknowledged
}

/// When each seat had no process that served, after its first one did: from the end of one to the first answer of the next.
fn downs(lives: &[Life]) -> Vec<(Instant, Instant, u32)> {
    let mut downs = Vec::new();
    for (seat, _, _) in SEATS {
        let mut since = None;
        for life in lives.iter().filter(|life| life.seat == seat) {
            if let (Some(since), Some(served)) = (since, life.served) {
                downs.push((since, served, seat));
            }
            // One that never served ends nothing.
            since = if life.served.is_some() { life.till } else { since };
        }
        assert_eq!(since, None, "seat {seat} is down at the end: {lives:#?}");
    }
    downs.sort();
    downs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_no_etcd_is_refused_before_anything_begins_and_without_one_none_runs() {
    let folder = tempfile::tempdir().unwrap();
    for (program, why) in [("/nowhere/etcd", "can't be started as etcd"), ("/bin/echo", "is not etcd")] {
        let state = folder.path().join("state");
        let options = Options { etcd: Some(program.into()), state: Some(state.clone()), ..Options::default() };
        let error = serve::start(options).await.unwrap_err();
        let told = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(told.starts_with("there is no etcd: ") && told.contains(program) && told.contains(why), "{told}");
        assert!(!state.exists(), "{program}");
    }

    let scene = Scene::begin(THREE).await;
    assert!(scene.double.world().originals().is_none() && scene.lives().is_empty());
    assert!(!scene.double.world().dir().join("etcd").exists());
    for talk in scene.talks() {
        assert!(talk.status().await.is_err(), "{talk:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_recovered_where_a_snapshot_would_lack_what_the_real_etcd_holds() {
    let Some(program) = program() else { return };
    let scene = Scene::over(Shape { control: 1, ..THREE }, program).await;
    let machine = scene.machine(SEATS[0].2);
    let error = machine.etcd_recover(&b"a snapshot"[..], &Silent).await.unwrap_err();
    assert!(!error.is_transient(), "{error}");
    assert!(error.to_string().contains("Rehearse this without --etcd"), "{error}");
    // A snapshot itself is no harm: an upgrade takes one, and goes on.
    assert!(machine.etcd_snapshot().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_three_keeps_the_real_etcd_writing_and_loses_nothing_acknowledged() {
    let Some(program) = program() else { return };
    let scene = Scene::over(THREE, program).await;
    let talks = scene.talks();
    let first: BTreeMap<u32, u32> = scene.lives().iter().map(|life| (life.seat, life.pid)).collect();
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), SEATS.map(|(seat, _, _)| seat));

    let (stop, over) = watch::channel(false);
    let writers: Vec<_> = (0..3).map(|writer| tokio::spawn(write(writer, talks.clone(), over.clone()))).collect();
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    stop.send(true).unwrap();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert_eq!((code, &document["outcome"]), (0, &"done".into()), "{story}\n{document:#}");
    scene.assert_runs("1.13.9", "1.34.1", &story).await;

    // Nothing that was acknowledged is lost.
    let found = scene.read_back();
    for (key, value, _) in &acknowledged {
        assert_eq!(found.get(key), Some(value), "{key}\n{story}");
    }

    // Every process was asked to end, and another one came.
    let lives = scene.lives();
    for (seat, pid) in &first {
        let old = lives.iter().find(|life| life.pid == *pid).unwrap();
        let new = lives.iter().rfind(|life| life.seat == *seat).unwrap();
        assert_eq!(old.told, Some(Stop::InOrder), "{lives:#?}\n{story}");
        assert!(new.pid != *pid && new.served.is_some() && new.till.is_none(), "{lives:#?}\n{story}");
    }

    // One at a time; and while each was down, and between each two, there were writes.
    let downs = downs(&lives);
    assert_eq!(downs.iter().map(|(_, _, seat)| *seat).collect::<BTreeSet<u32>>().len(), 3, "{lives:#?}\n{story}");
    let written = |from: Instant, till: Instant| acknowledged.iter().any(|(_, _, at)| (from..till).contains(at));
    for (since, served, seat) in &downs {
        assert!(written(*since, *served), "nothing was written while {seat} was down: {lives:#?}\n{story}");
    }
    for pair in downs.windows(2) {
        let ((_, served, one), (since, _, other)) = (pair[0], pair[1]);
        assert!(served <= since, "{one} and {other} were down at once: {lives:#?}\n{story}");
        assert!(written(served, since), "nothing was written between {one} and {other}: {lives:#?}\n{story}");
    }

    // The cluster is whole.
    for talk in &talks {
        assert!(talk.get("writes/0/000000").await.unwrap().is_some(), "{story}");
        let members = talk.members().await.unwrap();
        assert!(members.len() == 3 && members.iter().all(|one| !one.name.is_empty() && !one.learner), "{members:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_talos_tells_of_etcd_and_its_leadership_is_the_real_ones() {
    let Some(program) = program() else { return };
    let scene = Scene::over(THREE, program).await;
    let leader = async || {
        let mut found = Vec::new();
        for ((_, name, address), talk) in SEATS.into_iter().zip(scene.talks()) {
            let said = talk.status().await.unwrap();
            if said.leader == said.id {
                found.push((name, address, said.term));
            }
        }
        (found.len() == 1).then(|| found[0])
    };
    let (_, address, term) = leader().await.unwrap();
    let own = scene.machine(address).etcd_status().await.unwrap().id;
    for (_, _, other) in SEATS {
        let status = scene.machine(other).etcd_status().await.unwrap();
        assert_eq!((status.leader, status.term, status.leader == status.id), (own, term, other == address), "{other}");
        assert!(status.errors.is_empty() && !status.is_learner, "{status:?}");
    }
    let next = scene.machine(address).etcd_forfeit_leadership().await.unwrap().unwrap();
    let led = async || leader().await.is_some_and(|(_, at, _)| at != address);
    scene.until_async("another one leads", led).await;
    let (name, _, newer) = leader().await.unwrap();
    assert!(next == name && newer > term, "{next}, {name}: {term}, {newer}");

    // A plug that is pulled takes the process with it, and etcd on the machine isn't well before the next one is.
    let before = scene.lives();
    scene.plug(1202, super::Plug::Out).await;
    let pid = before.iter().rfind(|life| life.seat == 1202).unwrap().pid;
    let ended = || scene.lives().iter().any(|life| life.pid == pid && life.till.is_some());
    scene.until("the process ended", ended).await;
    assert!(scene.lives().iter().any(|life| life.pid == pid && life.told == Some(Stop::Cut)));
    scene.plug(1202, super::Plug::In).await;
    scene.settled(THREE).await;
    let last = scene.lives().into_iter().rfind(|life| life.seat == 1202).unwrap();
    assert!(last.pid != pid && last.served.is_some(), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_outlives_a_double_that_is_killed() {
    let Some(program) = program() else { return };
    let folder = Folder::of(Cluster::Lab);
    let double = Double::program_over(&folder, 100.0, program.to_str().unwrap());
    let dialled = |name: &str| double.ready.machines.iter().find(|one| one.name == name).unwrap().dialled;
    let addresses = ["lab-cp-01", "lab-cp-02", "lab-cp-03"].map(dialled);
    for address in addresses {
        let since = Instant::now();
        while Talk::at(address).get("anything").await.is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "no etcd answers at {address}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // By SIGKILL: it can't clean up.
    drop(double);
    for address in addresses {
        let since = Instant::now();
        while TcpListener::bind((address, 2379)).is_err() {
            assert!(since.elapsed() < Duration::from_secs(30), "an etcd is left at {address}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert!(folder.path("double/etcd/1200/data/member").exists());
}
