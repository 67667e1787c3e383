//! One member: its log, what it promised, and its keys as far as it applied the log.
//!
//! Every change of the log or of a promise is on the disk before the method returns: what a member said it has, it has.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;

use super::kept::KeptError;
use super::raft::Entry;
use super::store::Store;
use super::wire::{Hard, KeptAlarm, KeptEntry, KeptLine, KeptMember, KeptState};
use super::{Alarm, Change, EtcdError, Member, Outcome};

/// The log on the disk is folded into a new base when it is longer than the base and than this.
const FOLD: u64 = 1 << 20;
/// How many outcomes are remembered for those who wait for them.
const OUTCOMES: usize = 10_000;

/// Where a member keeps what it knows.
pub trait Disk: Send + std::fmt::Debug {
    /// Replaces everything.
    fn base(&mut self, bytes: &[u8]) -> Result<(), KeptError>;
    /// Adds lines to it.
    fn append(&mut self, lines: &[Vec<u8>]) -> Result<(), KeptError>;
    /// Bytes of the base, and of what was added since.
    fn written(&self) -> (u64, u64);
}

/// What a member's log led to.
#[derive(Clone, Debug, Default)]
pub(super) struct Applied {
    pub(super) store: Store,
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) removed: BTreeSet<u64>,
    pub(super) alarms: BTreeSet<(u64, Alarm)>,
}

/// A member that runs.
#[derive(Debug)]
pub struct Replica {
    pub(super) id: u64,
    pub(super) cluster: u64,
    pub(super) mark: String,
    pub(super) term: u64,
    vote: u64,
    /// Index and term of the entry right before the log.
    base: (u64, u64),
    log: VecDeque<Arc<Entry>>,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) state: Applied,
    outcomes: VecDeque<(u64, u64, Outcome)>,
    disk: Box<dyn Disk>,
}

impl Replica {
    /// The only member of a new cluster, with these keys. As the original, it begins with an entry for itself.
    pub fn first(
        cluster: u64,
        mark: String,
        member: Member,
        store: Store,
        disk: Box<dyn Disk>,
    ) -> Result<Self, KeptError> {
        Self::seeded(cluster, mark, member.id, vec![member], store, (1, 1), disk)
    }

    /// A member of a cluster that has lived for a while: all its members are made with the same `at` (index and term of
    /// the last entry).
    pub fn seeded(
        cluster: u64,
        mark: String,
        id: u64,
        members: Vec<Member>,
        store: Store,
        at: (u64, u64),
        disk: Box<dyn Disk>,
    ) -> Result<Self, KeptError> {
        let members = members.into_iter().map(|member| (member.id, member)).collect();
        let state = Applied { store, members, ..Applied::default() };
        let mut replica = Self {
            id,
            cluster,
            mark,
            term: at.1,
            vote: 0,
            base: at,
            log: VecDeque::new(),
            commit: at.0,
            applied: at.0,
            state,
            outcomes: VecDeque::new(),
            disk,
        };
        replica.fold()?;
        Ok(replica)
    }

    /// A member that was added and knows nothing yet.
    pub fn joining(cluster: u64, mark: String, id: u64, disk: Box<dyn Disk>) -> Result<Self, KeptError> {
        Self::seeded(cluster, mark, id, Vec::new(), Store::default(), (0, 0), disk)
    }

    /// A member as its disk remembers it; `None` when that makes no sense.
    pub(super) fn load(base: &[u8], lines: &[Vec<u8>], disk: Box<dyn Disk>) -> Option<Self> {
        let mut kept = KeptState::decode(base).ok()?;
        let state = Applied {
            store: kept.store()?,
            members: kept.members.into_iter().map(KeptMember::member).map(|member| (member.id, member)).collect(),
            removed: kept.removed.into_iter().collect(),
            alarms: kept.alarms.iter().map(|kept| (kept.id, kept.alarm())).collect(),
        };
        let mut replica = Self {
            id: kept.id,
            cluster: kept.cluster,
            mark: kept.mark,
            term: kept.term,
            vote: kept.vote,
            base: (kept.index, kept.index_term),
            log: VecDeque::new(),
            commit: kept.index,
            applied: kept.index,
            state,
            outcomes: VecDeque::new(),
            disk,
        };
        for line in lines {
            let line = KeptLine::decode(&line[..]).ok()?;
            if let Some(entry) = line.entry {
                let entry = entry.entry()?;
                replica.cut(entry.index);
                if entry.index != replica.last() + 1 {
                    return None;
                }
                replica.log.push_back(Arc::new(entry));
            }
            if let Some(hard) = line.hard {
                (replica.term, replica.vote) = (hard.term, hard.vote);
                replica.commit = replica.commit.max(hard.commit.min(replica.last()));
            }
        }
        replica.apply_up_to(replica.commit);
        Some(replica)
    }

    /// Its id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The cluster's id.
    pub fn cluster(&self) -> u64 {
        self.cluster
    }

    /// Whom members recognise each other by.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Its keys.
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// The members, as it knows them.
    pub fn members(&self) -> Vec<Member> {
        self.state.members.values().cloned().collect()
    }

    /// Index of the last entry.
    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.log.len() as u64
    }

    /// The term of an entry that is still in the log, or right before it.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        self.entry(index).map(|entry| entry.term)
    }

    pub(super) fn entry(&self, index: u64) -> Option<&Arc<Entry>> {
        let at = index.checked_sub(self.base.0 + 1)?;
        self.log.get(usize::try_from(at).ok()?)
    }

    /// Index right before the log.
    pub(super) fn begins(&self) -> u64 {
        self.base.0
    }

    /// How far its log is: the newer term wins, then the longer log.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.term_at(self.last()).unwrap_or_default(), self.last())
    }

    /// What became of an entry; `None` when it isn't applied yet, an error when another took its place.
    pub(super) fn outcome(&self, index: u64, term: u64) -> Option<Result<Outcome, EtcdError>> {
        if self.applied < index {
            return None;
        }
        let at = self.outcomes.partition_point(|known| known.0 < index);
        let known = self.outcomes.get(at).filter(|known| (known.0, known.1) == (index, term));
        Some(known.map(|known| known.2).ok_or(EtcdError::LeaderChanged))
    }

    /// Forgets entries from `index` on, in memory; the next line on the disk says the same.
    fn cut(&mut self, index: u64) {
        let keep = index.saturating_sub(self.base.0 + 1);
        self.log.truncate(usize::try_from(keep).unwrap_or_default());
    }

    /// Takes entries that follow each other, in place of what was there.
    pub(super) fn take(&mut self, entries: Vec<Arc<Entry>>) -> Result<(), KeptError> {
        let Some(first) = entries.first() else { return Ok(()) };
        self.cut(first.index);
        let lines: Vec<Vec<u8>> = entries.iter().map(entry_line).collect();
        self.disk.append(&lines)?;
        self.log.extend(entries);
        Ok(())
    }

    /// Takes all that another member has applied, in place of everything.
    pub(super) fn install(&mut self, other: &Self) -> Result<(), KeptError> {
        let term = other.term_at(other.applied).unwrap_or(other.term);
        self.state = other.state.clone();
        (self.base, self.commit, self.applied) = ((other.applied, term), other.applied, other.applied);
        self.log.clear();
        self.fold()
    }

    /// A new term, and who got this member's vote in it.
    pub(super) fn promise(&mut self, term: u64, vote: u64) -> Result<(), KeptError> {
        (self.term, self.vote) = (term, vote);
        self.hard()
    }

    fn hard(&mut self) -> Result<(), KeptError> {
        let hard = Hard { term: self.term, vote: self.vote, commit: self.commit };
        self.disk.append(&[KeptLine { entry: None, hard: Some(hard) }.encode_to_vec()])
    }

    /// It learns that all up to `index` is committed.
    pub(super) fn learn(&mut self, index: u64) -> Result<(), KeptError> {
        let commit = index.min(self.last());
        if commit > self.commit {
            self.commit = commit;
            self.hard()?;
        }
        Ok(())
    }

    /// Applies what is committed, up to an index.
    pub(super) fn apply(&mut self, upto: u64) -> Result<(), KeptError> {
        self.apply_up_to(upto.min(self.commit));
        let (base, log) = self.disk.written();
        if log > FOLD.max(base) { self.fold() } else { Ok(()) }
    }

    fn apply_up_to(&mut self, index: u64) {
        while self.applied < index {
            let Some(entry) = self.entry(self.applied + 1).cloned() else { return };
            let outcome = self.state.apply(&entry.change);
            self.outcomes.push_back((entry.index, entry.term, outcome));
            if self.outcomes.len() > OUTCOMES {
                self.outcomes.pop_front();
            }
            self.applied = entry.index;
        }
    }

    /// Writes a new base: all that was applied. The log behind it stays.
    fn fold(&mut self) -> Result<(), KeptError> {
        let term = self.term_at(self.applied).unwrap_or(self.base.1);
        let mut kept = KeptState {
            cluster: self.cluster,
            mark: self.mark.clone(),
            id: self.id,
            term: self.term,
            vote: self.vote,
            index: self.applied,
            index_term: term,
            members: self.state.members.values().map(KeptMember::of).collect(),
            removed: self.state.removed.iter().copied().collect(),
            alarms: self.state.alarms.iter().map(|(id, alarm)| KeptAlarm::of(*id, *alarm)).collect(),
            ..KeptState::default()
        };
        kept.set_store(&self.state.store);
        let old = usize::try_from(self.applied - self.base.0).unwrap_or_default();
        self.log.drain(..old.min(self.log.len()));
        self.base = (self.applied, term);
        self.disk.base(&kept.encode_to_vec())?;
        let lines: Vec<Vec<u8>> = self.log.iter().map(entry_line).collect();
        self.disk.append(&lines)?;
        self.hard()
    }
}

impl Applied {
    pub(super) fn voters(&self) -> impl Iterator<Item = u64> + '_ {
        self.members.values().filter(|member| !member.learner).map(|member| member.id)
    }

    fn apply(&mut self, change: &Change) -> Outcome {
        let at = |store: &Store, key: &[u8]| store.get(key).map_or(0, |kv| kv.modified);
        match change {
            Change::Put { key, expected, .. } | Change::Delete { key, expected }
                if expected.is_some_and(|expected| expected != at(&self.store, key)) =>
            {
                return Outcome::Conflict(at(&self.store, key));
            }
            Change::Put { key, value, .. } => {
                self.store.put(key.clone(), value.clone());
            }
            Change::Delete { key, .. } => {
                if self.store.delete(key).is_none() {
                    return Outcome::Missing;
                }
            }
            Change::Compact(revision) => self.store.compact(*revision),
            Change::AddLearner(member) => {
                self.members.insert(member.id, member.clone());
            }
            Change::Promote(id) => match self.members.get_mut(id) {
                Some(member) => member.learner = false,
                None => return Outcome::Missing,
            },
            Change::Remove(id) => {
                if self.members.remove(id).is_none() {
                    return Outcome::Missing;
                }
                self.removed.insert(*id);
                self.alarms.retain(|alarm| alarm.0 != *id);
            }
            Change::Publish { id, name } => match self.members.get_mut(id) {
                Some(member) => member.name.clone_from(name),
                None => return Outcome::Missing,
            },
            Change::Alarm { id, alarm, on: true } => {
                self.alarms.insert((*id, *alarm));
            }
            Change::Alarm { id, alarm, on: false } => {
                if !self.alarms.remove(&(*id, *alarm)) {
                    return Outcome::Missing;
                }
            }
            Change::Nothing => {}
        }
        Outcome::Done(self.store.revision())
    }
}

fn entry_line(entry: &Arc<Entry>) -> Vec<u8> {
    KeptLine { entry: Some(KeptEntry::of(entry)), hard: None }.encode_to_vec()
}
