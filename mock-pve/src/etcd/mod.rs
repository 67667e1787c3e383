//! etcd: members with a log and a store each, a leader among them, and files in the format of the original.
//!
//! Purpose: a cluster that loses nothing it acknowledged and nothing else. A write is acknowledged once a majority of the
//! voters has it in its log and on its disk; what a member remembers lives on its machine's disk and goes with it.
//! Must not know: machines, Kubernetes, HTTP, gRPC. It is given bytes, a path to a disk, and how much faster than life time
//! passes. Start at [`Etcd`], then `raft.rs` (who leads, what is committed), `replica.rs` (one member), `store.rs` (keys and
//! revisions), `bolt/` and `snapshot.rs` (the file format). [`Originals`] (`original/`) are processes of the real etcd, which
//! share nothing with the rest but the folder, and alone speak HTTP.

mod bolt;
mod kept;
mod live;
mod original;
mod raft;
mod replica;
mod snapshot;
mod store;
mod wire;

use serde::{Deserialize, Serialize};

pub use kept::{Ephemeral, KeptError, Memory, forget, keep_upload, kept_upload, read};
pub use live::{Client, Etcd, Pace};
pub use original::{
    Birth, Entry, Life, Listed, Original, Originals, Program, ProgramError, Said, Standing, Stop, Talk, TalkError,
};
pub use raft::Lag;
pub use replica::{Disk, Replica};
pub use snapshot::{BadSnapshot, Check, Written, database, restore, with_trailer};
pub use store::{Event, EventKind, Kv, Store};

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

/// What may be wrong with a member's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Its database reached its quota.
    NoSpace,
    /// Its data differs from the others'.
    Corrupt,
}

/// A change of what all members agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new leader's first entry.
    Nothing,
    /// A key gets a value. With `expected`, only if it is still at that revision (0: doesn't exist).
    Put {
        /// The key.
        key: bytes::Bytes,
        /// The value.
        value: bytes::Bytes,
        /// Revision that it must be at.
        expected: Option<u64>,
    },
    /// A key goes.
    Delete {
        /// The key.
        key: bytes::Bytes,
        /// Revision that it must be at.
        expected: Option<u64>,
    },
    /// Revisions before that one are forgotten.
    Compact(u64),
    /// A member joins without a vote.
    AddLearner(Member),
    /// A learner gets a vote.
    Promote(u64),
    /// A member goes, for ever.
    Remove(u64),
    /// A member says its name: it started.
    Publish {
        /// Its id.
        id: u64,
        /// Its name.
        name: String,
    },
    /// An alarm goes off, or is disarmed.
    Alarm {
        /// Whose.
        id: u64,
        /// Which.
        alarm: Alarm,
        /// It rings.
        on: bool,
    },
}

/// What became of a change, once it was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done; the revision since.
    Done(u64),
    /// The key isn't at the expected revision but at this one (0: doesn't exist).
    Conflict(u64),
    /// Nothing of that kind is there to be changed.
    Missing,
}

/// Why something was refused, or didn't come back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// Nobody leads: fewer than a majority of the members run, or an election is going on.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// A majority didn't answer in time. The write may have happened, or may yet.
    #[error("etcdserver: request timed out")]
    Timeout,
    /// Another member leads now. The write may have happened, or may not.
    #[error("etcdserver: leader changed")]
    LeaderChanged,
    /// The member that was asked doesn't run (any more).
    #[error("etcdserver: server stopped")]
    Stopped,
    /// The key was changed since.
    #[error("etcdserver: the key is at revision {0}")]
    Conflict(u64),
    /// There is no such member.
    #[error("etcdserver: member not found")]
    NoMember,
    /// The last member can't leave, nor one without whom the rest has no majority.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughMembers,
    /// One learner at a time.
    #[error("etcdserver: too many learner members in cluster")]
    TooManyLearners,
    /// A learner can't vote before it has what the leader has.
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    NotInSync,
    /// There is nobody to hand the leadership to.
    #[error("etcdserver: not enough members to hand the leadership to")]
    Alone,
}

/// A member's own view.
#[derive(Clone, Debug)]
pub struct Status {
    /// Whom it follows, or itself.
    pub leader: Option<u64>,
    /// raft term.
    pub term: u64,
    /// Index of the last entry that it knows to be committed.
    pub index: u64,
    /// Index of the last entry that its keys reflect.
    pub applied: u64,
    /// It has no vote.
    pub learner: bool,
    /// Revision of its keys.
    pub revision: u64,
    /// Number of its keys.
    pub keys: usize,
    /// Size of its database file.
    pub bytes: u64,
    /// Alarms that ring.
    pub alarms: Vec<(u64, Alarm)>,
}

#[cfg(test)]
mod tests;
