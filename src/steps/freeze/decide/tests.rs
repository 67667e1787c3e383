use super::*;

const NAMES: [&str; 5] = ["cp-1", "cp-2", "cp-3", "cp-4", "cp-5"];

fn id(number: u64) -> u64 {
    0xC0 + number
}

fn members(count: u64) -> Vec<Voter> {
    (1..=count)
        .zip(NAMES)
        .map(|(number, name)| Voter { id: id(number), name: name.to_owned(), learner: false })
        .collect()
}

/// Member `number` of `count`, which follows `cp-1` in term 7 and has applied all of 100 entries.
fn said(number: u64, count: u64) -> Said {
    Said {
        id: id(number),
        leader: id(1),
        term: 7,
        committed: 100,
        applied: 100,
        learner: false,
        errors: Vec::new(),
        members: Some(members(count)),
    }
}

fn all(count: u64) -> Vec<Seat> {
    (1..=count)
        .zip(NAMES)
        .map(|(number, name)| Seat { name: name.to_owned(), voice: Voice::Says(said(number, count)) })
        .collect()
}

fn ids(count: u64) -> BTreeSet<u64> {
    (1..=count).map(id).collect()
}

fn promise() -> Promise {
    Promise { name: "cp-1".to_owned(), id: id(1), term: 7, applied: 100 }
}

struct Scene {
    seats: Vec<Seat>,
    stopped: BTreeSet<String>,
    promise: Option<Promise>,
    alarms: Vec<String>,
}

impl Scene {
    fn of(count: u64) -> Self {
        Self { seats: all(count), stopped: BTreeSet::new(), promise: None, alarms: Vec::new() }
    }

    /// The same after these were shut down by us.
    fn without(mut self, names: &[&str]) -> Self {
        for name in names {
            self.seat(name).voice = Voice::Off;
            self.stopped.insert((*name).to_owned());
        }
        self
    }

    /// Quorum was taken away while `cp-1` led.
    fn broken(mut self) -> Self {
        self.promise = Some(promise());
        let Voice::Says(kept) = &mut self.seat("cp-1").voice else { unreachable!() };
        kept.leader = 0;
        kept.errors = vec!["etcdserver: no leader".to_owned()];
        kept.members = None;
        self
    }

    fn seat(&mut self, name: &str) -> &mut Seat {
        self.seats.iter_mut().find(|seat| seat.name == name).unwrap()
    }

    fn say(&mut self, name: &str, change: impl FnOnce(&mut Said)) {
        if let Voice::Says(said) = &mut self.seat(name).voice {
            change(said);
        }
    }

    fn everyone(&mut self, change: impl Fn(&mut Said)) {
        for seat in &mut self.seats {
            if let Voice::Says(said) = &mut seat.voice {
                change(said);
            }
        }
    }

    fn next(&self) -> Move {
        let members = ids(self.seats.len() as u64);
        let known =
            Known { members: &members, alarms: &self.alarms, stopped: &self.stopped, promise: self.promise.as_ref() };
        next(&self.seats, &known)
    }
}

fn stop(name: &str) -> Move {
    Move::Stop(name.to_owned())
}

#[test]
fn control_planes_go_one_by_one_and_the_leader_stays() {
    assert_eq!(Scene::of(1).next(), Move::Alone(promise()));
    assert_eq!(Scene::of(2).next(), Move::Break("cp-2".to_owned(), promise()));
    assert_eq!(Scene::of(3).next(), stop("cp-3"));
    assert_eq!(Scene::of(3).without(&["cp-3"]).next(), Move::Break("cp-2".to_owned(), promise()));
    assert_eq!(Scene::of(3).without(&["cp-2", "cp-3"]).broken().next(), Move::Frozen(promise(), 100));
    let five = Scene::of(5).without(&["cp-4", "cp-5"]);
    assert_eq!(five.next(), Move::Break("cp-3".to_owned(), promise()));
    let five = Scene::of(5).without(&["cp-3", "cp-4", "cp-5"]).broken();
    assert_eq!(five.next(), stop("cp-2"), "without quorum the rest goes too");
    assert_eq!(Scene::of(4).without(&["cp-4"]).next(), Move::Break("cp-3".to_owned(), promise()));
}

#[test]
fn a_follower_that_lags_goes_first_and_is_never_kept() {
    let mut scene = Scene::of(3);
    scene.say("cp-2", |said| (said.applied, said.committed) = (40, 40));
    assert_eq!(scene.next(), stop("cp-2"));
    let mut scene = Scene::of(3).without(&["cp-3"]);
    scene.say("cp-2", |said| (said.applied, said.committed) = (40, 40));
    assert_eq!(scene.next(), Move::Break("cp-2".to_owned(), promise()), "the leader has all of it");
}

#[test]
fn whoever_leads_now_is_kept() {
    let mut scene = Scene::of(3);
    scene.everyone(|said| (said.leader, said.term) = (id(3), 8));
    assert_eq!(scene.next(), stop("cp-2"));
    let mut scene = scene.without(&["cp-2"]);
    let kept = Promise { name: "cp-3".to_owned(), id: id(3), term: 8, applied: 100 };
    assert_eq!(scene.next(), Move::Break("cp-1".to_owned(), kept));
    // The leader changes again before anything was decided.
    scene.everyone(|said| (said.leader, said.term) = (id(1), 9));
    let kept = Promise { term: 9, ..promise() };
    assert_eq!(scene.next(), Move::Break("cp-3".to_owned(), kept));
}

/// A way to disturb three running control planes, of which `without` are down already, and the move it must lead to.
type Case = (&'static str, &'static [&'static str], fn(&mut Scene), fn(&Move) -> bool);

#[test]
fn nothing_is_stopped_while_anything_is_odd() {
    let wait = |found: &Move| matches!(found, Move::Wait(_));
    let refuse = |found: &Move| matches!(found, Move::Refuse(_));
    let again = |found: &Move| matches!(found, Move::StartAgain(_));
    let table: &[Case] = &[
        ("no leader", &[], |scene| scene.everyone(|said| said.leader = 0), wait),
        ("one without a leader", &[], |scene| scene.say("cp-3", |said| said.leader = 0), wait),
        ("two leaders", &["cp-3"], |scene| scene.say("cp-2", |said| said.leader = id(2)), wait),
        ("two terms", &["cp-3"], |scene| scene.say("cp-2", |said| said.term = 8), wait),
        ("led by one that is off", &["cp-3"], |scene| scene.everyone(|said| said.leader = id(3)), wait),
        ("hung", &[], |scene| scene.seat("cp-2").voice = Voice::Silent("no answer".to_owned()), wait),
        ("hung leader", &["cp-3"], |scene| scene.seat("cp-1").voice = Voice::Silent("no answer".to_owned()), wait),
        (
            "learner",
            &[],
            |scene| {
                scene.everyone(|said| said.members.as_mut().unwrap()[1].learner = true);
            },
            refuse,
        ),
        (
            "unstarted learner",
            &[],
            |scene| {
                scene.everyone(|said| {
                    let members = said.members.as_mut().unwrap();
                    members.push(Voter { id: 9, name: String::new(), learner: true });
                });
            },
            refuse,
        ),
        (
            "stranger",
            &[],
            |scene| {
                scene.say("cp-1", |said| {
                    said.members.as_mut().unwrap().push(Voter { id: 9, name: "other".to_owned(), learner: false });
                });
            },
            refuse,
        ),
        ("member missing", &[], |scene| scene.everyone(|said| drop(said.members.as_mut().unwrap().pop())), refuse),
        ("no list", &[], |scene| scene.say("cp-2", |said| said.members = None), refuse),
        (
            "replaced member",
            &[],
            |scene| {
                scene.everyone(|said| said.members.as_mut().unwrap()[2].id = 99);
            },
            refuse,
        ),
        ("wrong seat", &[], |scene| scene.say("cp-2", |said| said.id = id(3)), refuse),
        ("alarm", &[], |scene| scene.alarms.push("cp-1 has no space".to_owned()), refuse),
        ("complaint", &[], |scene| scene.say("cp-1", |said| said.errors.push("CORRUPT".to_owned())), refuse),
        ("HA restarts one", &["cp-3"], |scene| scene.seat("cp-3").voice = Voice::Says(said(3, 3)), again),
        (
            "HA restarts one, still booting",
            &["cp-3"],
            |scene| {
                scene.seat("cp-3").voice = Voice::Silent("booting".to_owned());
            },
            again,
        ),
        (
            "quorum already gone",
            &[],
            |scene| {
                for name in ["cp-2", "cp-3"] {
                    scene.seat(name).voice = Voice::Off;
                }
            },
            again,
        ),
        ("all off", &["cp-1", "cp-2", "cp-3"], |_| {}, again),
    ];
    for (name, without, disturb, expected) in table {
        let mut scene = Scene::of(3).without(without);
        disturb(&mut scene);
        let found = scene.next();
        assert!(expected(&found), "{name}: {found:?}");
    }
}

#[test]
fn without_quorum_the_kept_member_must_be_what_it_was() {
    let wait = |found: &Move| matches!(found, Move::Wait(_));
    let refuse = |found: &Move| matches!(found, Move::Refuse(_));
    let again = |found: &Move| matches!(found, Move::StartAgain(_));
    let frozen = |found: &Move| matches!(found, Move::Frozen(_, 103));
    let table: &[Case] = &[
        (
            "it applied the rest",
            &[],
            |scene| {
                scene.say("cp-1", |said| (said.applied, said.committed) = (103, 103));
            },
            frozen,
        ),
        (
            "it still leads",
            &[],
            |scene| {
                scene.say("cp-1", |said| (said.leader, said.applied, said.committed) = (id(1), 103, 103));
            },
            frozen,
        ),
        ("not applied yet", &[], |scene| scene.say("cp-1", |said| said.committed = 103), wait),
        ("other term", &[], |scene| scene.say("cp-1", |said| said.term = 8), again),
        ("earlier term", &[], |scene| scene.say("cp-1", |said| said.term = 6), again),
        ("follows another", &[], |scene| scene.say("cp-1", |said| said.leader = id(2)), again),
        (
            "went back",
            &[],
            |scene| {
                scene.say("cp-1", |said| (said.applied, said.committed) = (99, 99));
            },
            again,
        ),
        ("another member", &[], |scene| scene.say("cp-1", |said| said.id = 9), again),
        ("kept one stopped", &[], |scene| scene.seat("cp-1").voice = Voice::Off, again),
        ("kept one hung", &[], |scene| scene.seat("cp-1").voice = Voice::Silent("no answer".to_owned()), wait),
        ("corrupt", &[], |scene| scene.say("cp-1", |said| said.errors.push("CORRUPT".to_owned())), refuse),
        ("another one runs again", &[], |scene| scene.seat("cp-2").voice = Voice::Says(said(2, 3)), again),
        ("another one boots", &[], |scene| scene.seat("cp-3").voice = Voice::Silent("booting".to_owned()), again),
    ];
    for (name, _, disturb, expected) in table {
        let mut scene = Scene::of(3).without(&["cp-2", "cp-3"]).broken();
        disturb(&mut scene);
        let found = scene.next();
        assert!(expected(&found), "{name}: {found:?}");
    }
}

fn frozen_said() -> Said {
    Said { leader: 0, members: None, applied: 103, committed: 103, ..said(1, 3) }
}

/// A snapshot's evidence, and what it must be found worth.
type Row<'a> = (&'a str, Evidence<'a>, &'a dyn Fn(&Worth) -> bool);

#[test]
fn a_final_snapshot_ends_with_the_last_entry_that_was_ever_committed() {
    let (promise, after) = (promise(), frozen_said());
    let sound = || Evidence {
        promise: &promise,
        last: Some(103),
        after: &after,
        way: Way::Api,
        ends_at: Some((103, Some(7))),
        revision: 900,
        revision_before: 880,
        cluster: (Some("uid"), Some("uid")),
    };
    let refused = |worth: &Worth| matches!(worth, Worth::Refused(_));
    let broken = |worth: &Worth| matches!(worth, Worth::Broken(_));
    let early = |worth: &Worth| matches!(worth, Worth::TooEarly(_));
    let last = |worth: &Worth| *worth == Worth::Final;
    let went_on = Said { applied: 104, committed: 104, ..frozen_said() };
    let committed_more = Said { committed: 104, ..frozen_said() };
    let other_term = Said { term: 8, ..frozen_said() };
    let table: Vec<Row<'_>> = vec![
        ("sound", sound(), &last),
        ("same revision", Evidence { revision_before: 900, ..sound() }, &last),
        ("as a file", Evidence { way: Way::File, ..sound() }, &last),
        ("without an index, by etcd itself", Evidence { ends_at: None, ..sound() }, &last),
        ("without an index, as a file", Evidence { ends_at: None, way: Way::File, ..sound() }, &refused),
        ("older than the backup", Evidence { revision: 879, ..sound() }, &refused),
        ("other cluster", Evidence { cluster: (Some("uid"), Some("other")), ..sound() }, &refused),
        ("no cluster", Evidence { cluster: (Some("uid"), None), ..sound() }, &refused),
        ("not written out yet", Evidence { ends_at: Some((102, Some(7))), ..sound() }, &early),
        ("more than there can be", Evidence { ends_at: Some((104, Some(7))), ..sound() }, &broken),
        ("later term", Evidence { ends_at: Some((103, Some(8))), ..sound() }, &broken),
        ("went on meanwhile", Evidence { after: &went_on, ..sound() }, &broken),
        ("committed meanwhile", Evidence { after: &committed_more, ..sound() }, &broken),
        ("other term meanwhile", Evidence { after: &other_term, ..sound() }, &broken),
        (
            "the only member goes on",
            Evidence { last: None, after: &went_on, ends_at: Some((101, None)), ..sound() },
            &last,
        ),
        ("the only member, too old", Evidence { last: None, ends_at: Some((99, None)), ..sound() }, &early),
    ];
    for (name, evidence, expected) in table {
        let worth = judge(&evidence);
        assert!(expected(&worth), "{name}: {worth:?}");
    }
}
