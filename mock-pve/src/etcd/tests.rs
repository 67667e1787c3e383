//! What a cluster promises: nothing acknowledged is lost, nothing else appears, and its files are the original's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;

use super::live::Pace;
use super::raft::{Lag, Raft};
use super::replica::Replica;
use super::store::{EventKind, Store};
use super::{BadSnapshot, Change, Check, EtcdError, Member, Memory, Outcome, database, restore, with_trailer};

fn member(id: u64) -> Member {
    Member { id, name: format!("cp-{id}"), address: format!("10.0.0.{id}"), learner: false }
}

fn put(key: &str, value: &str) -> Change {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Change::Put { key, value, expected: None }
}

/// A cluster on disks in memory, and a clock that jumps.
struct World {
    raft: Raft,
    disks: BTreeMap<u64, Memory>,
    now: Duration,
}

impl World {
    fn of(members: u64) -> Self {
        let mut world = Self { raft: Raft::new(Pace(1.0), 7), disks: BTreeMap::new(), now: Duration::ZERO };
        let all: Vec<Member> = (1..=members).map(member).collect();
        for id in 1..=members {
            let disk = Memory::default();
            let at = (10, 2);
            Replica::seeded(9, "mark".into(), id, all.clone(), Store::default(), at, Box::new(disk.clone())).unwrap();
            world.disks.insert(id, disk);
            world.start(id);
        }
        world.pass(5.0);
        world
    }

    fn start(&mut self, id: u64) {
        let replica = self.disks[&id].read().unwrap();
        self.raft.start(replica);
    }

    fn pass(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
        self.raft.advance(self.now);
    }

    fn leader(&self) -> u64 {
        self.raft.leader().unwrap()
    }

    fn followers(&self) -> Vec<u64> {
        self.raft.running().filter(|id| Some(*id) != self.raft.leader()).collect()
    }

    /// Whether a write through `via` was acknowledged within a second.
    fn write(&mut self, via: u64, change: Change) -> Result<Outcome, EtcdError> {
        let (index, term) = self.raft.propose(change)?;
        self.pass(1.0);
        self.raft.outcome(via, index, term).unwrap_or(Err(EtcdError::Timeout))
    }

    fn value(&self, id: u64, key: &str) -> Option<String> {
        let kv = self.raft.replica(id)?.store().get(key.as_bytes())?;
        Some(String::from_utf8_lossy(&kv.value).into_owned())
    }
}

#[test]
fn revisions_count_every_change_and_conditions_are_kept() {
    let mut world = World::of(1);
    let on = |expected| Change::Put { key: Bytes::from("/a"), value: Bytes::from("1"), expected: Some(expected) };
    assert_eq!(world.write(1, on(0)), Ok(Outcome::Done(2)));
    assert_eq!(world.write(1, on(0)), Ok(Outcome::Conflict(2)));
    assert_eq!(world.write(1, on(2)), Ok(Outcome::Done(3)));
    let gone = Change::Delete { key: Bytes::from("/a"), expected: Some(3) };
    assert_eq!(world.write(1, gone.clone()), Ok(Outcome::Done(4)));
    assert_eq!(world.write(1, gone), Ok(Outcome::Conflict(0)));
    assert_eq!(world.write(1, on(0)), Ok(Outcome::Done(5)));
    let store = world.raft.replica(1).unwrap().store();
    let kinds: Vec<EventKind> = store.since(1).unwrap().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Created, EventKind::Modified, EventKind::Deleted, EventKind::Created]);
    let kv = store.get(b"/a").unwrap();
    assert_eq!((kv.created, kv.modified, kv.version), (5, 5, 1));
    world.write(1, Change::Compact(3)).unwrap();
    assert!(world.raft.replica(1).unwrap().store().since(2).is_none());
}

#[test]
fn a_write_is_acknowledged_once_a_majority_has_it_on_its_disk_and_not_before() {
    let mut world = World::of(3);
    let leader = world.leader();
    let [slow, slower] = world.followers()[..] else { panic!() };
    for id in [slow, slower] {
        world.raft.set_lag(id, Lag { receive: 30.0, apply: 0.0 });
    }
    world.pass(60.0);
    let (index, term) = world.raft.propose(put("/a", "1")).unwrap();
    world.pass(29.0);
    assert_eq!(world.raft.outcome(leader, index, term), None);
    assert_eq!(world.value(leader, "/a"), None);
    world.raft.set_lag(slow, Lag::default());
    world.pass(0.05);
    assert_eq!(world.raft.outcome(leader, index, term), Some(Ok(Outcome::Done(2))));
    for id in [leader, slow] {
        let kept = world.disks[&id].read().unwrap();
        assert_eq!(kept.last(), index, "member {id} said that it has what isn't on its disk");
    }
    let behind = world.raft.status(slower).unwrap();
    assert!(behind.index < index && behind.term == term, "{behind:?}");
    world.pass(60.0);
    assert_eq!(world.raft.status(slower).unwrap().applied, index);
}

#[test]
fn a_member_that_applies_late_says_so() {
    let mut world = World::of(3);
    let leader = world.leader();
    world.raft.set_lag(leader, Lag { receive: 0.0, apply: 20.0 });
    world.write(leader, put("/a", "1")).unwrap_err();
    let status = world.raft.status(leader).unwrap();
    assert!(status.applied < status.index, "{status:?}");
    world.pass(30.0);
    let status = world.raft.status(leader).unwrap();
    assert_eq!(status.applied, status.index);
}

#[test]
fn without_a_majority_nothing_is_acknowledged_read_or_elected_and_the_term_stays() {
    let mut world = World::of(3);
    let leader = world.leader();
    let before = world.raft.status(leader).unwrap();
    for id in world.followers() {
        world.raft.stop(id);
    }
    assert_eq!(world.raft.read_index(), Err(EtcdError::NoLeader));
    // It believes in itself for a while, and takes what it can't have acknowledged.
    assert_eq!(world.write(leader, put("/a", "1")), Err(EtcdError::Timeout));
    world.pass(10.0);
    assert_eq!(world.write(leader, put("/a", "2")), Err(EtcdError::NoLeader));
    let after = world.raft.status(leader).unwrap();
    assert_eq!(
        (after.leader, after.term, after.index, after.applied),
        (None, before.term, before.index, before.applied)
    );
    assert_eq!(world.value(leader, "/a"), None);
    let snapshot = restore(&database(world.raft.replica(leader).unwrap(), "3.6.5").bytes, Check::Skip).unwrap();
    assert_eq!((snapshot.len(), snapshot.revision()), (0, 1));
}

#[test]
fn a_lost_leader_is_replaced_in_a_new_term_by_one_who_has_everything() {
    let mut world = World::of(3);
    let old = world.leader();
    let term = world.raft.status(old).unwrap().term;
    let [behind, ahead] = world.followers()[..] else { panic!() };
    world.raft.set_lag(behind, Lag { receive: 1000.0, apply: 0.0 });
    assert_eq!(world.write(old, put("/a", "1")), Ok(Outcome::Done(2)));
    world.raft.stop(old);
    assert_eq!(world.raft.leader(), None);
    world.pass(0.5);
    assert_eq!(world.raft.leader(), None, "an election takes its time");
    world.raft.set_lag(behind, Lag::default());
    world.pass(5.0);
    assert_eq!(world.leader(), ahead);
    assert!(world.raft.status(ahead).unwrap().term > term);
    assert_eq!(world.value(ahead, "/a").as_deref(), Some("1"));
    world.pass(1.0);
    assert_eq!(world.value(behind, "/a").as_deref(), Some("1"));
    // The old one comes back as a follower, with what it missed.
    world.write(ahead, put("/b", "2")).unwrap();
    world.start(old);
    world.pass(1.0);
    assert_eq!((world.leader(), world.value(old, "/b").as_deref()), (ahead, Some("2")));
}

#[test]
fn what_a_leader_could_not_acknowledge_is_gone_when_the_others_went_on_without_it() {
    let mut world = World::of(3);
    let old = world.leader();
    for id in world.followers() {
        world.raft.set_lag(id, Lag { receive: 1000.0, apply: 0.0 });
    }
    assert_eq!(world.write(old, put("/lost", "1")), Err(EtcdError::Timeout));
    world.raft.stop(old);
    for id in world.followers() {
        world.raft.set_lag(id, Lag::default());
    }
    world.pass(5.0);
    let new = world.leader();
    assert_eq!(world.write(new, put("/kept", "2")), Ok(Outcome::Done(2)));
    world.start(old);
    world.pass(1.0);
    assert_eq!((world.value(old, "/lost"), world.value(old, "/kept").as_deref()), (None, Some("2")));
    let kept = world.disks[&old].read().unwrap();
    assert_eq!((kept.store().len(), kept.store().revision()), (1, 2));
}

#[test]
fn leadership_moves_when_asked_and_elections_can_be_forced() {
    let mut world = World::of(3);
    let old = world.leader();
    let term = world.raft.status(old).unwrap().term;
    let wanted = world.followers()[1];
    assert_eq!(world.raft.hand_over(Some(wanted)), Ok(wanted));
    assert_eq!((world.leader(), world.raft.status(wanted).unwrap().term), (wanted, term + 1));
    assert_ne!(world.raft.hand_over(None).unwrap(), wanted);
    assert_eq!(World::of(1).raft.hand_over(None), Err(EtcdError::Alone));
}

#[test]
fn members_join_as_learners_and_leave_for_ever() {
    let mut world = World::of(1);
    for number in 0..50 {
        world.write(1, put(&format!("/{number}"), "x")).unwrap();
    }
    for id in [2, 3] {
        let new = Member { name: String::new(), learner: true, ..member(id) };
        world.raft.admit(&Change::AddLearner(new.clone())).unwrap();
        world.write(1, Change::AddLearner(new.clone())).unwrap();
        assert_eq!(world.raft.admit(&Change::AddLearner(new)), Err(EtcdError::TooManyLearners));
        assert_eq!(world.raft.admit(&Change::Promote(id)), Err(EtcdError::NotInSync));
        let disk = Memory::default();
        world.raft.start(Replica::joining(9, "mark".into(), id, Box::new(disk.clone())).unwrap());
        world.disks.insert(id, disk);
        world.pass(1.0);
        assert!(world.raft.status(id).unwrap().learner);
        world.raft.admit(&Change::Promote(id)).unwrap();
        world.write(1, Change::Promote(id)).unwrap();
        world.write(1, Change::Publish { id, name: format!("cp-{id}") }).unwrap();
    }
    world.pass(1.0);
    assert_eq!(world.raft.members(), [member(1), member(2), member(3)]);
    assert_eq!(world.value(3, "/49").as_deref(), Some("x"));
    // Two of three are a majority.
    world.raft.stop(1);
    world.pass(5.0);
    let leader = world.leader();
    assert_eq!(world.write(leader, put("/more", "y")), Ok(Outcome::Done(52)));
    let other = if leader == 2 { 3 } else { 2 };
    assert_eq!(world.raft.admit(&Change::Remove(other)), Err(EtcdError::NotEnoughMembers));
    world.raft.admit(&Change::Remove(1)).unwrap();
    world.write(leader, Change::Remove(1)).unwrap();
    assert!(world.raft.is_removed(1));
    assert_eq!(world.raft.admit(&Change::Remove(1)), Err(EtcdError::NoMember));
}

#[test]
fn nothing_acknowledged_is_lost_whatever_stops_and_starts() {
    for seed in 1..=20_u64 {
        let mut world = World::of(3);
        let mut chance = seed;
        let mut roll = |sides: u32| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u32::try_from(chance >> 33).unwrap() % sides
        };
        let mut acknowledged = BTreeSet::new();
        let mut waiting: Vec<(String, u64, u64)> = Vec::new();
        for step in 0..400 {
            let id = u64::from(roll(3)) + 1;
            match roll(12) {
                0 => {
                    world.raft.stop(id);
                }
                1 | 2 if world.raft.replica(id).is_none() => world.start(id),
                3 => world.raft.set_lag(id, Lag { receive: f64::from(roll(40)) / 10.0, apply: 0.0 }),
                4 => {
                    let _ = world.raft.hand_over(None);
                }
                _ => {
                    let key = format!("/{step}");
                    if let Ok((index, term)) = world.raft.propose(put(&key, "x")) {
                        waiting.push((key, index, term));
                    }
                }
            }
            world.pass(f64::from(roll(20)) / 10.0);
            if let Some(leader) = world.raft.leader() {
                waiting.retain(|(key, index, term)| match world.raft.outcome(leader, *index, *term) {
                    Some(Ok(_)) => {
                        acknowledged.insert(key.clone());
                        false
                    }
                    Some(Err(_)) => false,
                    None => true,
                });
            }
        }
        for id in 1..=3 {
            world.raft.stop(id);
            world.start(id);
            world.raft.set_lag(id, Lag::default());
        }
        world.pass(10.0);
        assert!(acknowledged.len() > 20, "seed {seed}: {}", acknowledged.len());
        let stores: Vec<Vec<String>> = (1..=3)
            .map(|id| {
                let kvs = world.raft.replica(id).unwrap().store().list(b"/");
                kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
            })
            .collect();
        assert!(stores.iter().all(|store| *store == stores[0]), "seed {seed}: members differ");
        let lost: Vec<&String> = acknowledged.iter().filter(|key| !stores[0].contains(key)).collect();
        assert!(lost.is_empty(), "seed {seed}: {lost:?}");
    }
}

#[test]
fn a_long_log_is_folded_and_a_member_that_missed_it_gets_the_whole_state() {
    let mut world = World::of(3);
    let leader = world.leader();
    let away = world.followers()[0];
    world.raft.stop(away);
    let large = "x".repeat(100_000);
    for number in 0..40 {
        world.write(leader, put(&format!("/{}", number % 5), &large)).unwrap();
    }
    assert!(world.raft.replica(leader).unwrap().begins() > 20);
    world.start(away);
    world.pass(1.0);
    assert_eq!(world.value(away, "/4").map(|value| value.len()), Some(100_000));
    let kept = world.disks[&away].read().unwrap();
    assert_eq!((kept.store().len(), kept.store().revision()), (5, 41));
}

/// A member with keys of all sizes, some deleted, some overwritten.
fn filled() -> World {
    let mut world = World::of(3);
    let leader = world.leader();
    for number in 0..600 {
        let value = "v".repeat(if number % 100 == 7 { 20_000 } else { number % 50 });
        world.write(leader, put(&format!("/registry/configmaps/default/{number:04}"), &value)).unwrap();
    }
    for number in (0..600).step_by(3) {
        let key = Bytes::from(format!("/registry/configmaps/default/{number:04}"));
        world.write(leader, Change::Delete { key, expected: None }).unwrap();
    }
    world.write(leader, put("/registry/configmaps/default/0001", "again")).unwrap();
    world
}

#[test]
fn a_snapshot_holds_what_the_store_holds_and_damage_is_found() {
    let world = filled();
    let replica = world.raft.replica(world.leader()).unwrap();
    let snapshot = with_trailer(database(replica, "3.6.5").bytes);
    assert_eq!(snapshot.len() % 512, 32);
    let store = restore(&snapshot, Check::Hash).unwrap();
    assert_eq!((store.revision(), store.len()), (replica.store().revision(), replica.store().len()));
    assert_eq!(store.list(b""), replica.store().list(b""));
    let mut altered = snapshot.clone();
    altered[20_000] ^= 1;
    assert!(matches!(restore(&altered, Check::Hash), Err(BadSnapshot::Hash { .. })));
    let cut = &snapshot[..snapshot.len() - 32];
    assert!(matches!(restore(cut, Check::Hash), Err(BadSnapshot::NoHash)));
    assert_eq!(restore(cut, Check::Skip).unwrap().len(), store.len());
    assert!(restore(&snapshot[..snapshot.len() / 2], Check::Skip).is_err());
    assert!(restore(b"nothing of the kind", Check::Skip).is_err());
}

/// Whether the original is here.
fn original() -> bool {
    real_parts::is_here("etcd", "--version") && real_parts::is_here("etcdctl", "version")
}

fn etcdctl(arguments: &[&str]) -> String {
    let output = Command::new("etcdctl").env("ETCDCTL_API", "3").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// An etcd that runs, and how to reach it.
struct Running(std::process::Child, String);

impl Running {
    fn on(data: &Path) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (client, peer) = (format!("http://127.0.0.1:{}", free()), format!("http://127.0.0.1:{}", free()));
        let mut command = Command::new("etcd");
        command.args(["--name", "m1", "--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("m1={peer}"), "--log-level", "error"]);
        command.arg("--data-dir").arg(data).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let running = Self(command.spawn().unwrap(), client);
        for _ in 0..200 {
            let health = Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &running.1, "endpoint", "health"])
                .output();
            if health.unwrap().status.success() {
                return running;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("etcd doesn't answer");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_original_accepts_our_snapshot_restores_it_and_serves_what_was_in_it() {
    if !original() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("our.snapshot"), folder.path().join("data"));
    let world = filled();
    let replica = world.raft.replica(world.leader()).unwrap();
    std::fs::write(&file, with_trailer(database(replica, "3.6.5").bytes)).unwrap();
    let file = file.to_str().unwrap();
    let status: serde_json::Value =
        serde_json::from_str(&etcdctl(&["snapshot", "status", file, "-w", "json"])).unwrap();
    assert_eq!(status["revision"], replica.store().revision());
    etcdctl(&[
        "snapshot",
        "restore",
        file,
        "--name",
        "m1",
        "--data-dir",
        data.to_str().unwrap(),
        "--initial-cluster",
        "m1=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls",
        "http://127.0.0.1:2380",
    ]);
    let running = Running::on(&data);
    let listed = etcdctl(&["--endpoints", &running.1, "get", "--prefix", "/registry/", "--keys-only"]);
    assert_eq!(listed.lines().filter(|line| !line.is_empty()).count(), replica.store().len());
    let value = etcdctl(&["--endpoints", &running.1, "get", "/registry/configmaps/default/0001", "--print-value-only"]);
    assert_eq!(value, "again\n");
    let large = etcdctl(&["--endpoints", &running.1, "get", "/registry/configmaps/default/0107", "--print-value-only"]);
    assert_eq!(large.len(), 20_001);
}

#[test]
fn a_snapshot_of_the_original_is_restored_with_all_its_keys_and_revisions() {
    if !original() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("real.snapshot");
    let running = Running::on(&folder.path().join("data"));
    let call = |arguments: &[&str]| etcdctl(&[&["--endpoints", &running.1], arguments].concat());
    for number in 0..40 {
        call(&["put", &format!("/registry/configmaps/default/{number}"), &"y".repeat(number * 300)]);
    }
    call(&["del", "/registry/configmaps/default/3"]);
    call(&["put", "/registry/configmaps/default/5", "again"]);
    call(&["snapshot", "save", file.to_str().unwrap()]);
    let snapshot = std::fs::read(&file).unwrap();
    let store = restore(&snapshot, Check::Hash).unwrap();
    assert_eq!((store.len(), store.revision()), (39, 43));
    let kv = store.get(b"/registry/configmaps/default/5").unwrap();
    assert_eq!((&kv.value[..], kv.version, kv.modified), (&b"again"[..], 2, 43));
    assert_eq!(store.get(b"/registry/configmaps/default/39").unwrap().value.len(), 39 * 300);
}
