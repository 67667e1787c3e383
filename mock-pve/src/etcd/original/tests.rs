//! Processes of the original etcd: who isn't one, what a seat does in its life, how another joins and leaves.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{Birth, Entry, Original, Originals, Program, ProgramError, Stop};

const FIRST: u32 = 1;
const SECOND: u32 = 2;

/// The original, where it is installed.
async fn program() -> Option<Program> {
    let found = Program::find(Path::new("etcd")).await;
    if let Err(error) = &found {
        real_parts::skipped(&error.to_string());
    }
    found.ok()
}

/// An address of this process alone, below those that rehearsals and doubles take.
fn address(test: u8, seat: u32) -> IpAddr {
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let host = test * 16 + u8::try_from(seat).unwrap();
    IpAddr::V4(Ipv4Addr::new(127, 32 + (middle ^ high) % 30, low, host))
}

fn birth(test: u8, seat: u32, entry: Entry, all: &[u32]) -> Birth {
    let name = |seat: &u32| format!("m{seat}");
    Birth {
        token: format!("test-{test}"),
        name: name(&seat),
        address: address(test, seat),
        all: all.iter().map(|seat| (name(seat), address(test, *seat))).collect(),
        entry,
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn well(originals: &Originals, seat: u32) -> Original {
    until("a process answers", || originals.get(seat).is_some_and(|one| one.is_healthy())).await;
    originals.get(seat).unwrap()
}

#[tokio::test]
async fn a_program_that_is_not_there_or_is_not_etcd_is_refused_by_name() {
    let absent = Program::find(Path::new("/nowhere/etcd")).await.unwrap_err();
    assert!(matches!(absent, ProgramError::Start { .. }) && absent.to_string().contains("/nowhere/etcd"), "{absent}");
    let other = Program::find(Path::new("/bin/echo")).await.unwrap_err();
    assert!(matches!(other, ProgramError::Other { .. }) && other.to_string().contains("/bin/echo"), "{other}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seat_keeps_its_data_over_a_stop_a_cut_and_a_crash_until_it_is_forgotten() {
    let Some(program) = program().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let originals = Originals::new(program, folder.path().to_owned());
    let begin = || originals.begin(FIRST, birth(1, FIRST, Entry::First, &[FIRST]));
    begin();
    let talk = well(&originals, FIRST).await.talk();
    talk.put("kept", "yes").await.unwrap();
    for how in [Stop::InOrder, Stop::Cut] {
        originals.stop(FIRST, how);
        assert!(originals.get(FIRST).is_none(), "{how:?}");
        // Who comes back at once waits for who was there before.
        begin();
        well(&originals, FIRST).await;
        assert_eq!(talk.get("kept").await.unwrap().as_deref(), Some("yes"), "{how:?}");
    }
    // One that crashes comes back by itself.
    let last = originals.lives().last().unwrap().pid;
    let killed = std::process::Command::new("sh").args(["-c", "kill -s KILL \"$0\"", &last.to_string()]).status();
    assert!(killed.unwrap().success());
    until("it crashed", || originals.lives().iter().any(|life| life.pid == last && life.till.is_some())).await;
    until("another came", || originals.lives().last().is_some_and(|life| life.served.is_some() && life.pid != last))
        .await;
    assert_eq!(talk.get("kept").await.unwrap().as_deref(), Some("yes"));

    originals.forget(FIRST).await;
    assert!(originals.lives().iter().all(|life| life.till.is_some()));
    let told: Vec<Option<Stop>> = originals.lives().iter().map(|life| life.told).collect();
    assert_eq!(told, [Some(Stop::InOrder), Some(Stop::Cut), None, Some(Stop::Cut)]);
    begin();
    well(&originals, FIRST).await;
    assert_eq!(talk.get("kept").await.unwrap(), None);
    originals.cut();
    originals.all_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_gets_a_vote_can_lead_leaves_and_joins_again() {
    let Some(program) = program().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let originals = Originals::new(program, folder.path().to_owned());
    originals.begin(FIRST, birth(2, FIRST, Entry::First, &[FIRST]));
    let first = well(&originals, FIRST).await;
    first.talk().put("before", "it joined").await.unwrap();
    assert_eq!(first.forfeit().await.unwrap(), None, "there is nobody else");
    for _ in 0..2 {
        originals.begin(SECOND, birth(2, SECOND, Entry::Joins, &[FIRST, SECOND]));
        let second = well(&originals, SECOND).await;
        assert!(second.votes());
        assert_eq!(second.talk().get("before").await.unwrap().as_deref(), Some("it joined"));
        let members = first.talk().members().await.unwrap();
        let names: Vec<(&str, bool)> = members.iter().map(|one| (one.name.as_str(), one.learner)).collect();
        assert!(names.len() == 2 && names.contains(&("m1", false)) && names.contains(&("m2", false)), "{names:?}");

        // The leadership goes to the other one and back.
        assert_eq!(second.forfeit().await.unwrap(), None);
        assert_eq!(first.forfeit().await.unwrap(), Some(address(2, SECOND)));
        let said = second.talk().status().await.unwrap();
        assert_eq!(said.leader, said.id);
        assert_eq!(second.forfeit().await.unwrap(), Some(address(2, FIRST)));

        first.remove(address(2, SECOND)).await.unwrap();
        first.remove(address(2, SECOND)).await.unwrap();
        originals.forget(SECOND).await;
        assert_eq!(first.talk().members().await.unwrap().len(), 1);
    }
    originals.cut();
    originals.all_gone().await;
}
