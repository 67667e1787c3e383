//! Keys, values and all their revisions: etcd's MVCC store (etcd, server/storage/mvcc).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

/// A key with a value at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kv {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// Revision at which the key was made.
    pub created: u64,
    /// Revision at which it was last changed.
    pub modified: u64,
    /// How many times it was written since it was made.
    pub version: u64,
    /// The lease that it goes with; 0 for none.
    pub lease: i64,
}

/// What happened at a revision: main revision and number within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Bytes,
    /// The key as it was since; `None`: it was deleted.
    pub(super) now: Option<Arc<Kv>>,
    /// As it was before, unless that is forgotten.
    pub(super) before: Option<Arc<Kv>>,
}

/// Kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The key is new.
    Created,
    /// It has a new value.
    Modified,
    /// It is gone.
    Deleted,
}

/// A change, for watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Revision of the change.
    pub revision: u64,
    /// What happened.
    pub kind: EventKind,
    /// The key now; for a deletion as it was, unless that is forgotten.
    pub kv: Arc<Kv>,
    /// As it was before.
    pub before: Option<Arc<Kv>>,
}

/// All keys that a member knows.
#[derive(Clone, Debug)]
pub struct Store {
    revision: u64,
    compacted: u64,
    current: BTreeMap<Bytes, Arc<Kv>>,
    history: BTreeMap<(u64, u64), Record>,
}

impl Default for Store {
    /// A new store is at revision 1, as etcd's is.
    fn default() -> Self {
        Self { revision: 1, compacted: 0, current: BTreeMap::new(), history: BTreeMap::new() }
    }
}

impl Store {
    /// A store out of a history, oldest first; `None` when that isn't one.
    pub(super) fn from_history(
        revision: u64,
        compacted: u64,
        history: impl IntoIterator<Item = ((u64, u64), Bytes, Option<Kv>)>,
    ) -> Option<Self> {
        let mut store = Self { revision, compacted, current: BTreeMap::new(), history: BTreeMap::new() };
        for (at, key, now) in history {
            if store.history.last_key_value().is_some_and(|(last, _)| *last >= at) {
                return None;
            }
            let now = now.map(Arc::new);
            let before = match &now {
                Some(kv) => store.current.insert(key.clone(), kv.clone()),
                None => store.current.remove(&key),
            };
            store.history.insert(at, Record { key, now, before });
            store.revision = store.revision.max(at.0);
        }
        Some(store)
    }

    /// Revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The oldest revision that is remembered whole.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// Number of keys.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// A key.
    pub fn get(&self, key: &[u8]) -> Option<Arc<Kv>> {
        self.current.get(key).cloned()
    }

    /// All keys that begin so, in order.
    pub fn list(&self, prefix: &[u8]) -> Vec<Arc<Kv>> {
        let range = self.current.range(Bytes::copy_from_slice(prefix)..);
        range.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, kv)| kv.clone()).collect()
    }

    /// Everything that happened, oldest first.
    pub(super) fn history(&self) -> impl Iterator<Item = (&(u64, u64), &Record)> {
        self.history.iter()
    }

    /// Writes a key; the new revision.
    pub fn put(&mut self, key: Bytes, value: Bytes) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let before = self.current.get(&key).cloned();
        let (created, version) = before.as_ref().map_or((revision, 1), |kv| (kv.created, kv.version + 1));
        let kv = Arc::new(Kv { key: key.clone(), value, created, modified: revision, version, lease: 0 });
        self.current.insert(key.clone(), kv.clone());
        self.history.insert((revision, 0), Record { key, now: Some(kv), before });
        revision
    }

    /// Deletes a key; the new revision, or `None` when there is none.
    pub fn delete(&mut self, key: &[u8]) -> Option<u64> {
        let before = self.current.remove(key)?;
        self.revision += 1;
        self.history.insert((self.revision, 0), Record { key: before.key.clone(), now: None, before: Some(before) });
        Some(self.revision)
    }

    /// Forgets what happened at or before `revision` and isn't true any more. (The original also keeps what was true at
    /// exactly that revision, for reads of the past, which this store doesn't serve.)
    pub fn compact(&mut self, revision: u64) {
        if revision <= self.compacted || revision >= self.revision {
            return;
        }
        self.compacted = revision;
        let current = &self.current;
        self.history.retain(|at, record| {
            at.0 > revision || record.now.is_some() && current.get(&record.key) == record.now.as_ref()
        });
    }

    /// Changes after `revision`, oldest first; `None` when that is too long ago.
    pub fn since(&self, revision: u64) -> Option<Vec<Event>> {
        if revision < self.compacted {
            return None;
        }
        let range = self.history.range((revision + 1, 0)..);
        Some(range.filter_map(|(at, record)| event(at.0, record)).collect())
    }

    /// How many bytes keys and values of the whole history have.
    pub fn bytes(&self) -> u64 {
        let sizes = self
            .history
            .values()
            .map(|record| record.key.len() + 64 + record.now.as_ref().map_or(0, |kv| kv.value.len()));
        sizes.sum::<usize>() as u64
    }
}

fn event(revision: u64, record: &Record) -> Option<Event> {
    let (kind, kv) = match (&record.now, &record.before) {
        (Some(kv), _) if kv.version == 1 => (EventKind::Created, kv.clone()),
        (Some(kv), _) => (EventKind::Modified, kv.clone()),
        (None, Some(before)) => (EventKind::Deleted, before.clone()),
        (None, None) => return None,
    };
    Some(Event { revision, kind, kv, before: record.before.clone() })
}
