//! How a member's log and state look on its disk: protobuf, as in the original, but messages of this double's own.

use bytes::Bytes;
use prost::Message;

use super::raft::Entry;
use super::store::{Kv, Store};
use super::{Alarm, Change, Member};

/// mvccpb.KeyValue (etcd, api/mvccpb/kv.proto): also the values in a snapshot's `key` bucket.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) key: Bytes,
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub(super) value: Bytes,
    #[prost(int64, tag = "6")]
    pub(super) lease: i64,
}

impl KeyValue {
    pub(super) fn of(kv: &Kv) -> Self {
        Self {
            key: kv.key.clone(),
            create_revision: signed(kv.created),
            mod_revision: signed(kv.modified),
            version: signed(kv.version),
            value: kv.value.clone(),
            lease: kv.lease,
        }
    }

    pub(super) fn kv(self) -> Kv {
        Kv {
            key: self.key,
            value: self.value,
            created: unsigned(self.create_revision),
            modified: unsigned(self.mod_revision),
            version: unsigned(self.version),
            lease: self.lease,
        }
    }
}

pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptMember {
    #[prost(fixed64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    address: String,
    #[prost(bool, tag = "4")]
    learner: bool,
}

impl KeptMember {
    pub(super) fn of(member: &Member) -> Self {
        let Member { id, name, address, learner } = member.clone();
        Self { id, name, address, learner }
    }

    pub(super) fn member(self) -> Member {
        Member { id: self.id, name: self.name, address: self.address, learner: self.learner }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptEvent {
    #[prost(uint64, tag = "1")]
    main: u64,
    #[prost(uint64, tag = "2")]
    sub: u64,
    /// Of a deletion only the key is set.
    #[prost(message, optional, tag = "3")]
    kv: Option<KeyValue>,
    #[prost(bool, tag = "4")]
    deleted: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptAlarm {
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    #[prost(uint32, tag = "2")]
    alarm: u32,
}

impl KeptAlarm {
    pub(super) fn of(id: u64, alarm: Alarm) -> Self {
        Self { id, alarm: alarm_number(alarm) }
    }

    pub(super) fn alarm(&self) -> Alarm {
        alarm_of(self.alarm)
    }
}

fn alarm_number(alarm: Alarm) -> u32 {
    match alarm {
        Alarm::NoSpace => 1,
        Alarm::Corrupt => 2,
    }
}

fn alarm_of(number: u32) -> Alarm {
    if number == 2 { Alarm::Corrupt } else { Alarm::NoSpace }
}

/// All that a member knew at one index.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptState {
    #[prost(fixed64, tag = "1")]
    pub(super) cluster: u64,
    #[prost(string, tag = "2")]
    pub(super) mark: String,
    #[prost(fixed64, tag = "3")]
    pub(super) id: u64,
    #[prost(uint64, tag = "4")]
    pub(super) term: u64,
    #[prost(fixed64, tag = "5")]
    pub(super) vote: u64,
    #[prost(uint64, tag = "6")]
    pub(super) index: u64,
    #[prost(uint64, tag = "7")]
    pub(super) index_term: u64,
    #[prost(message, repeated, tag = "8")]
    pub(super) members: Vec<KeptMember>,
    #[prost(fixed64, repeated, tag = "9")]
    pub(super) removed: Vec<u64>,
    #[prost(message, repeated, tag = "10")]
    pub(super) alarms: Vec<KeptAlarm>,
    #[prost(uint64, tag = "11")]
    pub(super) revision: u64,
    #[prost(uint64, tag = "12")]
    pub(super) compacted: u64,
    #[prost(message, repeated, tag = "13")]
    pub(super) events: Vec<KeptEvent>,
}

impl KeptState {
    pub(super) fn set_store(&mut self, store: &Store) {
        (self.revision, self.compacted) = (store.revision(), store.compacted());
        let events = store.history().map(|((main, sub), record)| {
            let kv = match &record.now {
                Some(kv) => KeyValue::of(kv),
                None => KeyValue { key: record.key.clone(), ..KeyValue::default() },
            };
            KeptEvent { main: *main, sub: *sub, kv: Some(kv), deleted: record.now.is_none() }
        });
        self.events = events.collect();
    }

    pub(super) fn store(&mut self) -> Option<Store> {
        let events = std::mem::take(&mut self.events).into_iter().map(|event| {
            let kv = event.kv.unwrap_or_default().kv();
            ((event.main, event.sub), kv.key.clone(), (!event.deleted).then_some(kv))
        });
        Store::from_history(self.revision, self.compacted, events)
    }
}

/// A line of a member's log on its disk: an entry, or what it promised and learned since.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptLine {
    #[prost(message, optional, tag = "1")]
    pub(super) entry: Option<KeptEntry>,
    #[prost(message, optional, tag = "2")]
    pub(super) hard: Option<Hard>,
}

/// raft's hard state.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct Hard {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) vote: u64,
    #[prost(uint64, tag = "3")]
    pub(super) commit: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeptEntry {
    #[prost(uint64, tag = "1")]
    index: u64,
    #[prost(uint64, tag = "2")]
    term: u64,
    #[prost(uint32, tag = "3")]
    kind: u32,
    #[prost(bytes = "bytes", tag = "4")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
    #[prost(uint64, optional, tag = "6")]
    expected: Option<u64>,
    #[prost(fixed64, tag = "7")]
    id: u64,
    #[prost(message, optional, tag = "8")]
    member: Option<KeptMember>,
    #[prost(string, tag = "9")]
    name: String,
    #[prost(uint32, tag = "10")]
    alarm: u32,
    #[prost(bool, tag = "11")]
    on: bool,
}

impl KeptEntry {
    pub(super) fn of(entry: &Entry) -> Self {
        let kept = Self { index: entry.index, term: entry.term, ..Self::default() };
        match entry.change.clone() {
            Change::Nothing => kept,
            Change::Put { key, value, expected } => Self { kind: 1, key, value, expected, ..kept },
            Change::Delete { key, expected } => Self { kind: 2, key, expected, ..kept },
            Change::Compact(id) => Self { kind: 3, id, ..kept },
            Change::AddLearner(member) => Self { kind: 4, member: Some(KeptMember::of(&member)), ..kept },
            Change::Promote(id) => Self { kind: 5, id, ..kept },
            Change::Remove(id) => Self { kind: 6, id, ..kept },
            Change::Publish { id, name } => Self { kind: 7, id, name, ..kept },
            Change::Alarm { id, alarm, on } => Self { kind: 8, id, alarm: alarm_number(alarm), on, ..kept },
        }
    }

    pub(super) fn entry(self) -> Option<Entry> {
        let change = match self.kind {
            0 => Change::Nothing,
            1 => Change::Put { key: self.key, value: self.value, expected: self.expected },
            2 => Change::Delete { key: self.key, expected: self.expected },
            3 => Change::Compact(self.id),
            4 => Change::AddLearner(self.member?.member()),
            5 => Change::Promote(self.id),
            6 => Change::Remove(self.id),
            7 => Change::Publish { id: self.id, name: self.name },
            8 => Change::Alarm { id: self.id, alarm: alarm_of(self.alarm), on: self.on },
            _ => return None,
        };
        Some(Entry { index: self.index, term: self.term, change })
    }
}

/// etcdserverpb.AlarmMember, which the `alarm` bucket has as keys.
#[derive(Clone, PartialEq, Message)]
struct AlarmMember {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(uint32, tag = "2")]
    alarm: u32,
}

pub(super) fn alarm_key(id: u64, alarm: Alarm) -> Vec<u8> {
    AlarmMember { id, alarm: alarm_number(alarm) }.encode_to_vec()
}
