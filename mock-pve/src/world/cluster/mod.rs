//! etcd, as far as a client of Talos or Kubernetes can tell: members, a leader, a term, keys with revisions.
//!
//! Purpose: hold what a cluster remembers, and write it to the members' disks before anyone is told that it was
//! accepted. A member that comes back from its disk, or is a clone of it, remembers the same. Must not know: HTTP, gRPC,
//! what the objects mean. Start at [`Etcd`]; `objects.rs` are the objects that Kubernetes makes for itself.

pub mod objects;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::disk::{self, DiskError, Keep};

/// How many past changes a watch can still be told of.
const HISTORY: usize = 2000;

/// One etcd member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its machine's host name; empty until it started for the first time.
    pub name: String,
    /// Its machine's address.
    pub address: String,
    /// It doesn't vote yet.
    pub learner: bool,
}

/// A key's value and its revisions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The object.
    pub value: Value,
    /// Revision at which the key was made.
    pub created: u64,
    /// Revision at which it was last changed.
    pub modified: u64,
}

/// What a member has on its disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Data {
    /// Id of the etcd cluster.
    pub cluster_id: u64,
    /// Whom members recognise each other by ([`crate::world::machine::NodeConfig::etcd_mark`]).
    pub mark: String,
    /// The members.
    pub members: Vec<Member>,
    /// The leader's member id.
    pub leader: u64,
    /// raft term.
    pub term: u64,
    /// raft index of the last entry.
    pub index: u64,
    /// Revision of the last change.
    pub revision: u64,
    /// The keys.
    pub keys: BTreeMap<String, Entry>,
}

/// What one disk holds: the data, and which member it belongs to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OnDisk {
    /// The member whose disk it is.
    pub member: u64,
    /// Its data.
    pub data: Data,
}

/// A change, for watches.
#[derive(Clone, Debug)]
pub struct Change {
    /// Revision of the change.
    pub revision: u64,
    /// Which key.
    pub key: String,
    /// The entry now; for a deletion the entry as it was.
    pub entry: Entry,
    /// What happened.
    pub kind: ChangeKind,
}

/// Kinds of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// The key is new.
    Created,
    /// It has a new value.
    Modified,
    /// It is gone.
    Deleted,
}

/// Why a write or a membership change was refused.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// Fewer than a majority of members run.
    #[error("etcdserver: no leader")]
    NoQuorum,
    /// The key was changed since.
    #[error("etcdserver: the key was changed, it is at revision {0}")]
    Conflict(u64),
    /// There is no such member.
    #[error("etcdserver: member not found")]
    NoMember,
    /// The last member can't leave.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    LastMember,
}

/// A live etcd cluster, shared by the machines that are its members.
#[derive(Debug)]
pub struct Etcd {
    inner: Mutex<Inner>,
    revision: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    data: Data,
    /// Members that run, with their disks; an empty path for one without.
    started: BTreeMap<u64, PathBuf>,
    history: VecDeque<Change>,
}

impl Etcd {
    /// A new cluster with one member that isn't started yet; `cluster_id` and `member.id` come from the caller's source
    /// of chance.
    pub fn bootstrap(cluster_id: u64, mark: String, member: Member) -> Data {
        Data {
            cluster_id,
            mark,
            leader: member.id,
            members: vec![member],
            term: 2,
            index: 8,
            revision: 1,
            keys: BTreeMap::new(),
        }
    }

    /// A cluster as a disk remembers it. No member runs yet.
    pub fn from_data(data: Data) -> Self {
        let (revision, _) = watch::channel(data.revision);
        let inner = Inner { data, started: BTreeMap::new(), history: VecDeque::new() };
        Self { inner: Mutex::new(inner), revision }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything but the keys, and the number of those.
    pub fn summary(&self) -> Summary {
        let inner = self.lock();
        let data = &inner.data;
        Summary {
            cluster_id: data.cluster_id,
            mark: data.mark.clone(),
            members: data.members.clone(),
            started: inner.started.keys().copied().collect(),
            leader: inner.has_quorum().then_some(data.leader),
            term: data.term,
            index: data.index,
            revision: data.revision,
            keys: data.keys.len(),
            bytes: data.keys.values().map(|entry| entry.value.to_string().len() as u64).sum(),
        }
    }

    /// The member on that disk runs (again). A member that remembers more than the cluster does, while too few run to
    /// have accepted anything since, brings what it knows.
    pub fn start(&self, on_disk: OnDisk, disk: PathBuf) {
        let mut inner = self.lock();
        if !inner.has_quorum() && on_disk.data.revision > inner.data.revision {
            inner.data = on_disk.data;
        }
        let had = inner.has_quorum();
        inner.started.insert(on_disk.member, disk);
        inner.elect(had);
        inner.save();
        let revision = inner.data.revision;
        drop(inner);
        self.revision.send_replace(revision);
    }

    /// The member doesn't run any more.
    pub fn stop(&self, member: u64) {
        let mut inner = self.lock();
        let had = inner.has_quorum();
        inner.started.remove(&member);
        inner.elect(had);
        inner.save();
    }

    /// A new member joins and runs at once.
    pub fn join(&self, member: Member, disk: PathBuf) -> Result<(), EtcdError> {
        let mut inner = self.lock();
        if !inner.has_quorum() {
            return Err(EtcdError::NoQuorum);
        }
        inner.started.insert(member.id, disk);
        inner.data.members.push(member);
        inner.data.index += 2;
        inner.save();
        Ok(())
    }

    /// Takes a member out of the cluster.
    pub fn remove(&self, member: u64) -> Result<(), EtcdError> {
        let mut inner = self.lock();
        if !inner.has_quorum() {
            return Err(EtcdError::NoQuorum);
        }
        if !inner.data.members.iter().any(|known| known.id == member) {
            return Err(EtcdError::NoMember);
        }
        if inner.data.members.len() == 1 {
            return Err(EtcdError::LastMember);
        }
        inner.data.members.retain(|known| known.id != member);
        inner.data.index += 1;
        inner.started.remove(&member);
        inner.elect(true);
        inner.save();
        Ok(())
    }

    /// Another member becomes leader; its name, or `None` when there is no other or `member` doesn't lead.
    pub fn forfeit(&self, member: u64) -> Result<Option<String>, EtcdError> {
        let mut inner = self.lock();
        if inner.data.members.len() == 1 {
            return Err(EtcdError::LastMember);
        }
        if inner.data.leader != member {
            return Ok(None);
        }
        let next = inner.started.keys().copied().find(|id| *id != member).ok_or(EtcdError::NoQuorum)?;
        inner.data.leader = next;
        inner.data.term += 1;
        inner.data.index += 1;
        inner.save();
        Ok(inner.data.members.iter().find(|known| known.id == next).map(|known| known.name.clone()))
    }

    /// A copy of all that it remembers.
    pub fn data(&self) -> Data {
        self.lock().data.clone()
    }

    /// Whether a majority runs.
    pub fn has_quorum(&self) -> bool {
        self.lock().has_quorum()
    }

    /// A key's entry.
    pub fn get(&self, key: &str) -> Option<Entry> {
        self.lock().data.keys.get(key).cloned()
    }

    /// All entries whose key begins so, and the revision of that view.
    pub fn list(&self, prefix: &str) -> (Vec<(String, Entry)>, u64) {
        let inner = self.lock();
        let range = inner.data.keys.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        (range.map(|(key, entry)| (key.clone(), entry.clone())).collect(), inner.data.revision)
    }

    /// Writes a key. With `expected`, only if it is still at that revision (0: doesn't exist).
    pub fn put(&self, key: &str, value: Value, expected: Option<u64>) -> Result<u64, EtcdError> {
        self.change(key, expected, Some(value))
    }

    /// Deletes a key; its revision then.
    pub fn delete(&self, key: &str, expected: Option<u64>) -> Result<u64, EtcdError> {
        self.change(key, expected, None)
    }

    fn change(&self, key: &str, expected: Option<u64>, value: Option<Value>) -> Result<u64, EtcdError> {
        let mut inner = self.lock();
        if !inner.has_quorum() {
            return Err(EtcdError::NoQuorum);
        }
        let found = inner.data.keys.get(key).map_or(0, |entry| entry.modified);
        if expected.is_some_and(|expected| expected != found) {
            return Err(EtcdError::Conflict(found));
        }
        if value.is_none() && found == 0 {
            return Ok(inner.data.revision);
        }
        let revision = inner.apply(key, value);
        inner.save();
        drop(inner);
        self.revision.send_replace(revision);
        Ok(revision)
    }

    /// Changes after `revision`, oldest first; `None` when that is too long ago.
    pub fn since(&self, revision: u64) -> Option<Vec<Change>> {
        let inner = self.lock();
        let oldest = inner.history.front().map_or(inner.data.revision + 1, |change| change.revision);
        if revision + 1 < oldest && revision < inner.data.revision {
            return None;
        }
        Some(inner.history.iter().filter(|change| change.revision > revision).cloned().collect())
    }

    /// Tells of new revisions.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

/// A cluster's state without its keys.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Id of the etcd cluster.
    pub cluster_id: u64,
    /// Whom members recognise each other by.
    pub mark: String,
    /// The members.
    pub members: Vec<Member>,
    /// Ids of those that run.
    pub started: Vec<u64>,
    /// The leader, if a majority runs.
    pub leader: Option<u64>,
    /// raft term.
    pub term: u64,
    /// raft index.
    pub index: u64,
    /// Revision of the last change.
    pub revision: u64,
    /// Number of keys.
    pub keys: usize,
    /// Their size.
    pub bytes: u64,
}

impl Inner {
    fn has_quorum(&self) -> bool {
        let voters: Vec<u64> =
            self.data.members.iter().filter(|member| !member.learner).map(|member| member.id).collect();
        voters.iter().filter(|id| self.started.contains_key(id)).count() > voters.len() / 2
    }

    /// A new leader when the old one is gone or a majority came together again.
    fn elect(&mut self, had_quorum: bool) {
        if self.has_quorum() && !(had_quorum && self.started.contains_key(&self.data.leader)) {
            let stays = self.started.contains_key(&self.data.leader);
            if let Some(first) = self.started.keys().next().filter(|_| !stays) {
                self.data.leader = *first;
            }
            self.data.term += 1;
            self.data.index += 1;
        }
    }

    fn apply(&mut self, key: &str, value: Option<Value>) -> u64 {
        self.data.revision += 1;
        self.data.index += 1;
        let revision = self.data.revision;
        let old = self.data.keys.remove(key);
        let (entry, kind) = match (value, old) {
            (Some(value), old) => {
                let kind = if old.is_some() { ChangeKind::Modified } else { ChangeKind::Created };
                let created = old.map_or(revision, |old| old.created);
                let entry = Entry { value, created, modified: revision };
                self.data.keys.insert(key.to_owned(), entry.clone());
                (Some(entry), kind)
            }
            (None, old) => (old.map(|old| Entry { modified: revision, ..old }), ChangeKind::Deleted),
        };
        if let Some(entry) = entry {
            self.history.push_back(Change { revision, key: key.to_owned(), entry, kind });
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        revision
    }

    /// Writes the data to the disks of all members that run.
    fn save(&self) {
        for (member, path) in self.started.iter().filter(|(_, path)| !path.as_os_str().is_empty()) {
            if let Err(error) = write(path, &OnDisk { member: *member, data: self.data.clone() }) {
                tracing::debug!(member, error = &error as &dyn std::error::Error, "a member's disk is gone");
            }
        }
    }
}

/// What a disk remembers; `None` when it never was a member's.
pub fn read(path: &std::path::Path) -> Result<Option<OnDisk>, DiskError> {
    let Some(kept) = disk::load(path, Keep::Etcd)? else { return Ok(None) };
    let broken = |_| DiskError::Record { label: "EPHEMERAL", why: "etcd's data makes no sense" };
    serde_json::from_slice(&kept).map(Some).map_err(broken)
}

/// Writes what a member remembers to its disk.
pub fn write(path: &std::path::Path, data: &OnDisk) -> Result<(), DiskError> {
    let broken = |_| DiskError::Record { label: "EPHEMERAL", why: "etcd's data can't be written" };
    disk::store(path, Keep::Etcd, &serde_json::to_vec(data).map_err(broken)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn member(id: u64) -> Member {
        Member { id, name: format!("cp-{id}"), address: format!("10.0.0.{id}"), learner: false }
    }

    fn cluster(members: u64) -> Etcd {
        let mut data = Etcd::bootstrap(7, "mark".to_owned(), member(1));
        data.members.extend((2..=members).map(member));
        let etcd = Etcd::from_data(data.clone());
        for id in 1..=members {
            etcd.start(OnDisk { member: id, data: data.clone() }, PathBuf::from("/nowhere"));
        }
        etcd
    }

    #[test]
    fn revisions_count_every_change_and_stale_writes_conflict() {
        let etcd = cluster(1);
        assert_eq!(etcd.put("/a", json!(1), Some(0)).unwrap(), 2);
        assert_eq!(etcd.put("/a", json!(2), Some(2)).unwrap(), 3);
        assert!(matches!(etcd.put("/a", json!(3), Some(2)), Err(EtcdError::Conflict(3))));
        let entry = etcd.get("/a").unwrap();
        assert_eq!((entry.created, entry.modified), (2, 3));
        assert_eq!(etcd.delete("/a", None).unwrap(), 4);
        assert_eq!(etcd.since(1).unwrap().len(), 3);
        assert!(etcd.since(1).unwrap().last().unwrap().kind == ChangeKind::Deleted);
    }

    #[test]
    fn without_a_majority_nothing_is_accepted_and_a_lost_leader_is_replaced_in_a_new_term() {
        let etcd = cluster(3);
        let before = etcd.summary();
        etcd.stop(before.leader.unwrap());
        let after = etcd.summary();
        assert!(after.leader.is_some() && after.leader != before.leader && after.term > before.term);
        etcd.put("/a", json!(1), None).unwrap();
        etcd.stop(after.leader.unwrap());
        assert!(matches!(etcd.put("/a", json!(2), None), Err(EtcdError::NoQuorum)));
        assert_eq!(etcd.summary().leader, None);
        assert!(matches!(cluster(1).remove(1), Err(EtcdError::LastMember)));
    }
}
