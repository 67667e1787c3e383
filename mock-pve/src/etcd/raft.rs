//! Who leads, what is committed, and when a member hears of it (raft, as etcd uses it: with pre-votes, so that a member
//! without a majority doesn't raise the term; with a leader that steps down when it lost its majority).
//!
//! All members that run are here, and all messages among them are events in time; nothing here waits or reads a clock.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::live::Pace;
use super::replica::Replica;
use super::{Change, EtcdError, Member, Outcome, Status};

/// Seconds of real life until a follower has an entry on its disk, and until it hears that it is committed.
const REPLICATION: f64 = 0.01;
/// Seconds without a leader until the next one is elected; also how long a leader believes in itself without a majority.
const ELECTION: f64 = 1.5;

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) change: Change,
}

/// How much slower than the others a member is, in seconds of real life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// Until it has an entry.
    pub receive: f64,
    /// Until its keys reflect what it knows to be committed.
    pub apply: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A follower gets the leader's entries up to an index, and hears what is committed.
    Deliver { to: u64, term: u64, upto: u64, commit: u64 },
    /// A member applies what it knew to be committed.
    Apply { on: u64, upto: u64 },
    /// The members look for a leader.
    Elect { round: u64 },
    /// The leader looks whether a majority still answers.
    Check { round: u64 },
}

/// The members that run, and what is under way between them.
#[derive(Debug)]
pub(super) struct Raft {
    pace: Pace,
    now: Duration,
    replicas: BTreeMap<u64, Replica>,
    leader: Option<u64>,
    /// How far the leader knows each follower to be.
    matched: BTreeMap<u64, u64>,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    count: u64,
    lag: BTreeMap<u64, Lag>,
    /// Elections and checks of earlier rounds don't count.
    round: u64,
    waiting: Option<bool>,
    chance: u64,
    /// Who becomes leader at the next election, if it can.
    wanted: Option<u64>,
    /// Rises with everything that somebody may wait for.
    pub(super) changes: u64,
    /// Members that were removed while they ran.
    pub(super) expelled: VecDeque<u64>,
}

impl Raft {
    pub(super) fn new(pace: Pace, chance: u64) -> Self {
        Self {
            pace,
            now: Duration::ZERO,
            replicas: BTreeMap::new(),
            leader: None,
            matched: BTreeMap::new(),
            events: BinaryHeap::new(),
            count: 0,
            lag: BTreeMap::new(),
            round: 0,
            waiting: None,
            chance,
            wanted: None,
            changes: 0,
            expelled: VecDeque::new(),
        }
    }

    /// When something happens next.
    pub(super) fn next(&self) -> Option<Duration> {
        self.events.peek().map(|Reverse((at, _, _))| *at)
    }

    /// Everything that happens until `now`.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(Reverse((at, _, event))) = self.events.peek().copied() {
            if at > now {
                break;
            }
            self.events.pop();
            self.now = self.now.max(at);
            self.happen(event);
            self.settle();
        }
        self.now = self.now.max(now);
    }

    fn after(&mut self, seconds: f64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((self.now + self.pace.scaled(seconds), self.count, event)));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { to, term, upto, commit } => self.deliver(to, term, upto, commit),
            Event::Apply { on, upto } => {
                let applied = self.replicas.get_mut(&on).map(|replica| replica.apply(upto));
                if applied.is_some_and(|applied| applied.is_err()) {
                    self.stop(on);
                }
                self.changes += 1;
                self.expel();
            }
            Event::Elect { round } if round == self.round => {
                self.waiting = None;
                self.elect();
            }
            Event::Check { round } if round == self.round => {
                self.waiting = None;
                self.lead(None);
            }
            Event::Elect { .. } | Event::Check { .. } => {}
        }
    }

    /// A member runs (again).
    pub(super) fn start(&mut self, replica: Replica) {
        let id = replica.id();
        self.replicas.insert(id, replica);
        self.matched.remove(&id);
        self.tell(id);
        self.changes += 1;
        self.settle();
    }

    /// A member doesn't run any more. What it has is on its disk.
    pub(super) fn stop(&mut self, id: u64) -> Option<Replica> {
        let stopped = self.replicas.remove(&id);
        self.matched.remove(&id);
        if self.leader == Some(id) {
            self.lead(None);
        }
        self.changes += 1;
        self.settle();
        stopped
    }

    pub(super) fn replica(&self, id: u64) -> Option<&Replica> {
        self.replicas.get(&id)
    }

    pub(super) fn running(&self) -> impl Iterator<Item = u64> + '_ {
        self.replicas.keys().copied()
    }

    pub(super) fn leader(&self) -> Option<u64> {
        self.leader
    }

    /// The member who knows most.
    pub(super) fn best(&self) -> Option<&Replica> {
        let known = |replica: &&Replica| (!replica.state.members.is_empty(), replica.progress(), Reverse(replica.id()));
        self.leader.and_then(|leader| self.replicas.get(&leader)).or_else(|| self.replicas.values().max_by_key(known))
    }

    /// Whether a majority of the voters runs.
    pub(super) fn has_majority(&self) -> bool {
        let Some(best) = self.best() else { return false };
        let (mut all, mut up) = (0, 0);
        for id in best.state.voters() {
            all += 1;
            up += usize::from(self.replicas.contains_key(&id));
        }
        up > all / 2
    }

    pub(super) fn set_lag(&mut self, id: u64, lag: Lag) {
        self.lag.insert(id, lag);
        self.tell(id);
        if let Some(upto) = self.replicas.get(&id).map(|replica| replica.commit) {
            self.after(lag.apply, Event::Apply { on: id, upto });
        }
    }

    fn lag(&self, id: u64) -> Lag {
        self.lag.get(&id).copied().unwrap_or_default()
    }

    /// Adds a change to the leader's log; its index and term.
    pub(super) fn propose(&mut self, change: Change) -> Result<(u64, u64), EtcdError> {
        let id = self.leader.ok_or(EtcdError::NoLeader)?;
        let leader = self.replicas.get_mut(&id).ok_or(EtcdError::NoLeader)?;
        let (index, term) = (leader.last() + 1, leader.term);
        if leader.take(vec![Arc::new(Entry { index, term, change })]).is_err() {
            self.stop(id);
            return Err(EtcdError::LeaderChanged);
        }
        let others: Vec<u64> = self.running().filter(|other| *other != id).collect();
        for other in others {
            self.tell(other);
        }
        self.commit();
        self.settle();
        Ok((index, term))
    }

    /// Sends a member all that the leader has now.
    fn tell(&mut self, to: u64) {
        let Some(leader) = self.leader.filter(|leader| *leader != to) else { return };
        let Some(leader) = self.replicas.get(&leader) else { return };
        let event = Event::Deliver { to, term: leader.term, upto: leader.last(), commit: leader.commit };
        self.after(REPLICATION + self.lag(to).receive, event);
    }

    fn deliver(&mut self, to: u64, term: u64, upto: u64, commit: u64) {
        let Some(id) = self.leader.filter(|leader| *leader != to) else { return };
        let Some(mut follower) = self.replicas.remove(&to) else { return };
        let Some(leader) = self.replicas.get(&id).filter(|leader| leader.term == term) else {
            self.replicas.insert(to, follower);
            return;
        };
        let knew = follower.commit;
        let synced = sync(&mut follower, leader, upto.min(leader.last()), commit);
        let learned = follower.commit;
        self.replicas.insert(to, follower);
        match synced {
            Ok(upto) => {
                let known = self.matched.entry(to).or_default();
                *known = (*known).max(upto);
                if learned > knew {
                    let wait = self.lag(to).apply;
                    if wait > 0.0 {
                        self.after(wait, Event::Apply { on: to, upto: learned });
                    } else {
                        self.happen(Event::Apply { on: to, upto: learned });
                    }
                }
                self.commit();
            }
            Err(_) => {
                self.stop(to);
            }
        }
    }

    /// The leader counts who has what.
    fn commit(&mut self) {
        let Some(id) = self.leader else { return };
        let Some(leader) = self.replicas.get_mut(&id) else { return };
        let mut has: Vec<u64> = leader
            .state
            .voters()
            .map(|voter| if voter == id { leader.last() } else { self.matched.get(&voter).copied().unwrap_or(0) })
            .collect();
        has.sort_unstable_by_key(|index| Reverse(*index));
        let Some(index) = has.get(has.len() / 2).copied() else { return };
        // Entries of earlier terms count only together with one of this term (raft, 5.4.2).
        if index <= leader.commit || leader.term_at(index) != Some(leader.term) {
            return;
        }
        let learned = leader.learn(index);
        if learned.is_err() {
            self.stop(id);
            return;
        }
        let wait = self.lag(id).apply;
        if wait > 0.0 {
            self.after(wait, Event::Apply { on: id, upto: index });
        } else {
            self.happen(Event::Apply { on: id, upto: index });
        }
        self.changes += 1;
        let others: Vec<u64> = self.running().filter(|other| *other != id).collect();
        for other in others {
            self.tell(other);
        }
    }

    /// Members that the cluster doesn't have any more stop.
    fn expel(&mut self) {
        let Some(best) = self.best() else { return };
        let gone: Vec<u64> = self.running().filter(|id| best.state.removed.contains(id)).collect();
        for id in gone {
            self.expelled.push_back(id);
            self.replicas.remove(&id);
            self.matched.remove(&id);
            if self.leader == Some(id) {
                self.lead(None);
            }
        }
    }

    fn lead(&mut self, leader: Option<u64>) {
        self.leader = leader;
        self.matched.clear();
        (self.round, self.waiting) = (self.round + 1, None);
        self.changes += 1;
    }

    /// Begins to wait for an election or for the end of a leader without majority, or stops waiting.
    fn settle(&mut self) {
        let majority = self.has_majority();
        let needed = match self.leader {
            None if majority => Some(true),
            Some(_) if !majority => Some(false),
            _ => None,
        };
        if needed == self.waiting {
            return;
        }
        self.round += 1;
        self.waiting = needed;
        let round = self.round;
        match needed {
            // A single member needs nobody's vote.
            Some(true) => {
                let alone = self.best().is_some_and(|best| best.state.voters().count() == 1);
                self.after(if alone { ELECTION / 10.0 } else { ELECTION }, Event::Elect { round });
            }
            Some(false) => self.after(ELECTION, Event::Check { round }),
            None => {}
        }
    }

    /// The member with the newest log wins; among equals, chance or who is wanted.
    fn elect(&mut self) {
        if self.leader.is_some() || !self.has_majority() {
            return;
        }
        let Some(best) = self.best() else { return };
        let voters: Vec<u64> = best.state.voters().filter(|id| self.replicas.contains_key(id)).collect();
        let most = voters.iter().filter_map(|id| self.replicas.get(id)).map(Replica::progress).max();
        let mut able: Vec<u64> = voters.clone();
        able.retain(|id| self.replicas.get(id).map(Replica::progress) == most);
        self.chance = self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = usize::try_from(self.chance >> 33).unwrap_or(0).checked_rem(able.len()).unwrap_or(0);
        let wanted = self.wanted.take().filter(|wanted| able.contains(wanted));
        let Some(winner) = wanted.or_else(|| able.get(pick).copied()) else { return };
        let term = self.replicas.values().map(|replica| replica.term).max().unwrap_or(0) + 1;
        let mut broken = Vec::new();
        for id in &voters {
            if let Some(replica) = self.replicas.get_mut(id)
                && replica.promise(term, winner).is_err()
            {
                broken.push(*id);
            }
        }
        if broken.is_empty() {
            self.lead(Some(winner));
            let _ = self.propose(Change::Nothing);
        } else {
            for id in broken {
                self.stop(id);
            }
        }
    }

    /// Another member becomes leader in a new term, now; the one that is named if it has a vote and runs.
    pub(super) fn hand_over(&mut self, to: Option<u64>) -> Result<u64, EtcdError> {
        let id = self.leader.ok_or(EtcdError::NoLeader)?;
        let leader = self.replicas.get(&id).ok_or(EtcdError::NoLeader)?;
        let others: Vec<u64> =
            leader.state.voters().filter(|other| *other != id && self.replicas.contains_key(other)).collect();
        let (term, upto, commit) = (leader.term, leader.last(), leader.commit);
        let most = |other: &&u64| (self.matched.get(*other).copied(), Reverse(**other));
        let chosen = match to {
            Some(to) => others.iter().find(|other| **other == to).copied(),
            None => others.iter().max_by_key(most).copied(),
        };
        let chosen = chosen.ok_or(EtcdError::Alone)?;
        // The leader sends what is missing before it tells the other to campaign.
        self.deliver(chosen, term, upto, commit);
        self.lead(None);
        self.wanted = Some(chosen);
        self.elect();
        self.settle();
        self.leader.ok_or(EtcdError::NoLeader)
    }

    /// Whether a member may be changed so, by the rules that need no log.
    pub(super) fn admit(&self, change: &Change) -> Result<(), EtcdError> {
        let leader = self.leader.and_then(|leader| self.replicas.get(&leader)).ok_or(EtcdError::NoLeader)?;
        let members = &leader.state.members;
        match change {
            Change::AddLearner(_) if members.values().any(|member| member.learner) => Err(EtcdError::TooManyLearners),
            Change::Promote(id) => {
                let known = members.get(id).ok_or(EtcdError::NoMember)?;
                let has = self.matched.get(id).copied().unwrap_or(0);
                // 90 % of the leader's log, says the original.
                if known.learner && has < leader.commit * 9 / 10 { Err(EtcdError::NotInSync) } else { Ok(()) }
            }
            Change::Remove(id) => {
                let known = members.get(id).ok_or(EtcdError::NoMember)?;
                let rest: Vec<u64> = leader.state.voters().filter(|voter| voter != id).collect();
                let up = rest.iter().filter(|voter| self.replicas.contains_key(voter)).count();
                if known.learner || up > rest.len() / 2 { Ok(()) } else { Err(EtcdError::NotEnoughMembers) }
            }
            _ => Ok(()),
        }
    }

    /// What became of a proposal, as `via` sees it.
    pub(super) fn outcome(&self, via: u64, index: u64, term: u64) -> Option<Result<Outcome, EtcdError>> {
        let Some(replica) = self.replicas.get(&via) else { return Some(Err(EtcdError::Stopped)) };
        replica.outcome(index, term)
    }

    /// The index that a member must have applied before it may answer a read of now.
    pub(super) fn read_index(&self) -> Result<u64, EtcdError> {
        let leader = self.leader.and_then(|leader| self.replicas.get(&leader)).ok_or(EtcdError::NoLeader)?;
        // A leader knows what is committed once an entry of its own term is.
        let knows = leader.term_at(leader.commit) == Some(leader.term);
        if knows && self.has_majority() { Ok(leader.commit) } else { Err(EtcdError::NoLeader) }
    }

    pub(super) fn members(&self) -> Vec<Member> {
        self.best().map(Replica::members).unwrap_or_default()
    }

    pub(super) fn is_removed(&self, id: u64) -> bool {
        self.best().is_some_and(|best| best.state.removed.contains(&id))
    }

    pub(super) fn status(&self, id: u64) -> Option<Status> {
        let replica = self.replicas.get(&id)?;
        Some(Status {
            leader: self.leader,
            term: replica.term,
            index: replica.commit,
            applied: replica.applied,
            learner: replica.state.members.get(&id).is_some_and(|member| member.learner),
            revision: replica.state.store.revision(),
            keys: replica.state.store.len(),
            bytes: replica.state.store.bytes(),
            alarms: replica.state.alarms.iter().copied().collect(),
        })
    }
}

/// Makes a follower's log the leader's up to an index; up to which it is then.
fn sync(follower: &mut Replica, leader: &Replica, upto: u64, commit: u64) -> Result<u64, super::KeptError> {
    if follower.term < leader.term {
        follower.promise(leader.term, leader.id())?;
    }
    if leader.begins() > follower.last() {
        follower.install(leader)?;
    }
    let mut common = follower.last().min(upto);
    while common > follower.begins() && common > leader.begins() && follower.term_at(common) != leader.term_at(common) {
        common -= 1;
    }
    let common = common.max(leader.begins());
    let missing: Vec<_> = (common + 1..=upto).filter_map(|index| leader.entry(index).cloned()).collect();
    follower.take(missing)?;
    let upto = upto.max(follower.begins());
    follower.learn(commit.min(upto))?;
    Ok(upto)
}
