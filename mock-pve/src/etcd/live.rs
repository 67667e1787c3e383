//! A cluster in time: those who write wait for a majority, those who read wait for what was written before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::raft::{Lag, Raft};
use super::replica::Replica;
use super::store::Store;
use super::{Change, EtcdError, Member, Outcome, Status};

/// Seconds of real life after which a request without an answer is given up: five, and twice an election.
const PATIENCE: f64 = 7.0;
/// However fast time passes: a busy computer is no lost majority.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);

/// How many times faster than life time passes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace(pub f64);

impl Pace {
    /// How long that many seconds of real life take.
    pub fn scaled(self, seconds: f64) -> Duration {
        let scaled = (seconds / self.0).clamp(0.0, 1e9);
        if scaled.is_finite() { Duration::from_secs_f64(scaled) } else { Duration::ZERO }
    }
}

/// A cluster, shared by the machines that are its members. It lives as long as somebody holds it.
#[derive(Debug)]
pub struct Etcd {
    id: u64,
    mark: String,
    pace: Pace,
    began: Instant,
    raft: Mutex<Raft>,
    changes: watch::Sender<u64>,
    wake: Arc<Notify>,
}

/// A member as those see it who talk to it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The cluster.
    pub etcd: Arc<Etcd>,
    /// The member's id.
    pub id: u64,
}

impl Etcd {
    /// A cluster of which no member runs yet. Must be called inside a tokio runtime, which then moves its time.
    pub fn open(id: u64, mark: String, pace: Pace) -> Arc<Self> {
        let etcd = Arc::new(Self {
            id,
            mark,
            pace,
            began: Instant::now(),
            raft: Mutex::new(Raft::new(pace, id)),
            changes: watch::channel(0).0,
            wake: Arc::new(Notify::new()),
        });
        tokio::spawn(drive(Arc::downgrade(&etcd), etcd.wake.clone()));
        etcd
    }

    fn lock(&self) -> MutexGuard<'_, Raft> {
        self.raft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the cluster up to now, looks at it or changes it, and tells those who wait.
    fn with<T>(&self, work: impl FnOnce(&mut Raft) -> T) -> T {
        let (result, changes, moved) = {
            let mut raft = self.lock();
            let next = raft.next();
            raft.advance(self.began.elapsed());
            let result = work(&mut raft);
            raft.advance(self.began.elapsed());
            (result, raft.changes, raft.next() != next)
        };
        self.changes.send_if_modified(|known| std::mem::replace(known, changes) != changes);
        if moved {
            self.wake.notify_one();
        }
        result
    }

    /// The cluster's id.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whom members recognise each other by.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// A member runs (again), unless it was removed for ever.
    pub fn start(&self, replica: Replica) -> Result<(), EtcdError> {
        self.with(|raft| {
            if raft.is_removed(replica.id()) {
                return Err(EtcdError::NoMember);
            }
            raft.start(replica);
            Ok(())
        })
    }

    /// A member doesn't run any more; whether any still does.
    pub fn stop(&self, id: u64) -> bool {
        self.with(|raft| {
            raft.stop(id);
            raft.running().next().is_some()
        })
    }

    /// Ids of the members that run.
    pub fn running(&self) -> Vec<u64> {
        self.with(|raft| raft.running().collect())
    }

    /// Whether a member runs.
    pub fn runs(&self, id: u64) -> bool {
        self.with(|raft| raft.replica(id).is_some())
    }

    /// One member, to be asked.
    pub fn client(self: &Arc<Self>, id: u64) -> Client {
        Client { etcd: Arc::clone(self), id }
    }

    /// The leader, if there is one with a majority behind it.
    pub fn leader(&self) -> Option<u64> {
        self.with(|raft| raft.leader().filter(|_| raft.has_majority()))
    }

    /// All members, as the one knows who knows most.
    pub fn members(&self) -> Vec<Member> {
        self.with(|raft| raft.members())
    }

    /// Whether a member was removed for ever.
    pub fn is_removed(&self, id: u64) -> bool {
        self.with(|raft| raft.is_removed(id))
    }

    /// Tells of everything that somebody may wait for.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Makes a member slower than the others, from now on: a follower that lags.
    pub fn lag(&self, id: u64, lag: Lag) {
        self.with(|raft| raft.set_lag(id, lag));
    }

    /// Another member becomes leader now, in a new term; the one that is named, if it can. Says which.
    pub fn elect(&self, to: Option<u64>) -> Result<u64, EtcdError> {
        self.with(|raft| raft.hand_over(to))
    }

    /// Waits until `look` finds something, as long as requests wait.
    async fn wait<T>(&self, mut look: impl FnMut(&mut Raft) -> Option<T>) -> Option<T> {
        let until = tokio::time::Instant::now() + self.pace.scaled(PATIENCE).max(LEAST_PATIENCE);
        let mut changes = self.changes();
        loop {
            if let Some(found) = self.with(&mut look) {
                return Some(found);
            }
            if !matches!(tokio::time::timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return self.with(&mut look);
            }
        }
    }
}

impl Client {
    /// Has a change made, and waits until a majority has it and this member applied it.
    pub async fn change(&self, change: Change) -> Result<u64, EtcdError> {
        let (etcd, via) = (&self.etcd, self.id);
        let proposed = etcd.wait(|raft| {
            if raft.replica(via).is_none() {
                return Some(Err(EtcdError::Stopped));
            }
            match raft.admit(&change).and_then(|()| raft.propose(change.clone())) {
                Err(EtcdError::NoLeader) => None,
                other => Some(other),
            }
        });
        let (index, term) = proposed.await.unwrap_or(Err(EtcdError::Timeout))?;
        let outcome = etcd.wait(|raft| raft.outcome(via, index, term)).await;
        // A member that removed itself isn't there to say so.
        if let (Change::Remove(id), Some(Err(EtcdError::Stopped))) = (&change, &outcome)
            && *id == via
            && etcd.is_removed(via)
        {
            return Ok(0);
        }
        match outcome.unwrap_or(Err(EtcdError::Timeout))? {
            Outcome::Done(revision) => Ok(revision),
            Outcome::Conflict(found) => Err(EtcdError::Conflict(found)),
            Outcome::Missing => match change {
                Change::Delete { .. } | Change::Alarm { .. } => Ok(0),
                _ => Err(EtcdError::NoMember),
            },
        }
    }

    /// Writes a key. With `expected`, only if it is still at that revision (0: doesn't exist). The revision since.
    pub async fn put(&self, key: &str, value: Bytes, expected: Option<u64>) -> Result<u64, EtcdError> {
        self.change(Change::Put { key: Bytes::copy_from_slice(key.as_bytes()), value, expected }).await
    }

    /// Deletes a key; 0 when there was none.
    pub async fn delete(&self, key: &str, expected: Option<u64>) -> Result<u64, EtcdError> {
        self.change(Change::Delete { key: Bytes::copy_from_slice(key.as_bytes()), expected }).await
    }

    /// Waits until this member knows all that was acknowledged before.
    pub async fn catch_up(&self) -> Result<(), EtcdError> {
        let (etcd, via) = (&self.etcd, self.id);
        let mut index = None;
        let caught = etcd.wait(|raft| {
            let Some(replica) = raft.replica(via) else { return Some(Err(EtcdError::Stopped)) };
            let applied = replica.applied;
            if index.is_none() {
                index = raft.read_index().ok();
            }
            index.filter(|index| *index <= applied).map(|_| Ok(()))
        });
        caught.await.unwrap_or(Err(EtcdError::Timeout))
    }

    /// Looks at this member's keys as they are, without asking the others; `None` when it doesn't run.
    pub fn view<T>(&self, look: impl FnOnce(&Store) -> T) -> Option<T> {
        self.etcd.with(|raft| raft.replica(self.id).map(|replica| look(replica.store())))
    }

    /// Looks at the member itself.
    pub fn replica<T>(&self, look: impl FnOnce(&Replica) -> T) -> Option<T> {
        self.etcd.with(|raft| raft.replica(self.id).map(look))
    }

    /// The member's own view of the cluster; `None` when it doesn't run.
    pub fn status(&self) -> Option<Status> {
        self.etcd.with(|raft| raft.status(self.id))
    }

    /// The members, as this one knows them.
    pub fn members(&self) -> Vec<Member> {
        self.replica(Replica::members).unwrap_or_default()
    }

    /// Whether this member can write and read now: it runs, and somebody leads a majority.
    pub fn is_healthy(&self) -> bool {
        self.etcd.with(|raft| raft.replica(self.id).is_some() && raft.read_index().is_ok())
    }

    /// Hands the leadership to another member, whose name it says; `None` when this one doesn't lead.
    pub fn forfeit(&self) -> Result<Option<String>, EtcdError> {
        self.etcd.with(|raft| {
            if raft.members().len() < 2 {
                return Err(EtcdError::Alone);
            }
            if raft.leader() != Some(self.id) {
                return Ok(None);
            }
            let next = raft.hand_over(None)?;
            Ok(raft.members().into_iter().find(|member| member.id == next).map(|member| member.name))
        })
    }
}

/// Moves a cluster's time until nobody holds the cluster.
async fn drive(etcd: Weak<Etcd>, wake: Arc<Notify>) {
    loop {
        let Some(held) = etcd.upgrade() else { return };
        let next = held.with(|raft| raft.next());
        let at = next.map(|next| tokio::time::Instant::from_std(held.began + next));
        drop(held);
        let turn = tokio::time::Instant::now() + Duration::from_secs(1);
        tokio::select! {
            () = tokio::time::sleep_until(at.unwrap_or(turn).min(turn)) => {}
            () = wake.notified() => {}
        }
    }
}
