//! A member's database as a file of the original's format, and back (etcd, server/storage/schema; etcdutl, snapshot).

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::bolt::{self, BadBolt};
use super::replica::Replica;
use super::store::Store;
use super::wire::KeyValue;

/// A revision as a key: eight bytes, an underscore, eight bytes; of a deletion with a `t` behind it.
const REVISION: usize = 17;
const DELETED: u8 = b't';
const TRAILER: usize = 32;

/// Why a snapshot can't be restored.
#[derive(Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// It ends with no checksum, and nobody said that it needs none.
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    /// It isn't what was saved.
    #[error("expected sha256 {expected}, got {found}")]
    Hash {
        /// As its end says.
        expected: String,
        /// As its bytes are.
        found: String,
    },
    /// It is no database.
    #[error("failed to open the database")]
    Bolt(#[from] BadBolt),
    /// It is a database of something else.
    #[error("the database has no bucket {0}")]
    NoBucket(&'static str),
    /// Its keys make no sense.
    #[error("the key bucket is damaged at revision {0}")]
    Damaged(u64),
}

/// Whether a restore looks at the checksum at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// It must be there and right.
    Hash,
    /// There may be none.
    Skip,
}

/// A written database.
#[derive(Clone, Debug)]
pub struct Written {
    /// The file.
    pub bytes: Vec<u8>,
    /// Revision of its keys.
    pub revision: u64,
}

fn revision(main: u64, sub: u64, deleted: bool) -> Vec<u8> {
    let mut key = main.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend(sub.to_be_bytes());
    if deleted {
        key.push(DELETED);
    }
    key
}

/// The database of a member that runs etcd `version` (`3.6.5`): what lies in `member/snap/db`.
pub fn database(replica: &Replica, version: &str) -> Written {
    let state = &replica.state;
    let text = |text: &str| text.as_bytes().to_vec();
    let (minor, _) = version.rsplit_once('.').unwrap_or((version, ""));
    let keys = state.store.history().map(|((main, sub), record)| {
        let value = match &record.now {
            Some(kv) => KeyValue::of(kv),
            None => KeyValue { key: record.key.clone(), ..KeyValue::default() },
        };
        (revision(*main, *sub, record.now.is_none()), value.encode_to_vec())
    });
    let voters: Vec<u64> = state.voters().collect();
    let learners: Vec<u64> = state.members.values().filter(|member| member.learner).map(|member| member.id).collect();
    let state_of = if learners.is_empty() {
        json!({ "voters": voters, "auto_leave": false })
    } else {
        json!({ "voters": voters, "learners": learners, "auto_leave": false })
    };
    let term = replica.term_at(replica.applied).unwrap_or(replica.term);
    let mut meta = BTreeMap::from([
        (text("confState"), state_of.to_string().into_bytes()),
        (text("consistent_index"), replica.applied.to_be_bytes().to_vec()),
        (text("term"), term.to_be_bytes().to_vec()),
    ]);
    if state.store.compacted() > 0 {
        for name in ["finishedCompactRev", "scheduledCompactRev"] {
            meta.insert(text(name), revision(state.store.compacted(), 0, false));
        }
    }
    if minor != "3.4" && minor != "3.5" {
        meta.insert(text("storageVersion"), text(&format!("{minor}.0")));
    }
    let mut members: Vec<(Vec<u8>, Vec<u8>)> = state
        .members
        .values()
        .map(|member| {
            let mut value = json!({ "id": member.id, "peerURLs": [format!("https://{}:2380", member.address)] });
            if member.learner {
                value["isLearner"] = json!(true);
            }
            if !member.name.is_empty() {
                value["name"] = json!(member.name);
                value["clientURLs"] = json!([format!("https://{}:2379", member.address)]);
            }
            (text(&format!("{:x}", member.id)), value.to_string().into_bytes())
        })
        .collect();
    members.sort();
    let mut removed: Vec<(Vec<u8>, Vec<u8>)> =
        state.removed.iter().map(|id| (text(&format!("{id:x}")), text("removed"))).collect();
    removed.sort();
    // etcdserverpb.AlarmMember: member id and alarm, as the key.
    let mut alarms: Vec<(Vec<u8>, Vec<u8>)> =
        state.alarms.iter().map(|(id, alarm)| (super::wire::alarm_key(*id, *alarm), Vec::new())).collect();
    alarms.sort();
    let cluster = vec![
        (text("clusterVersion"), text(&format!("{minor}.0"))),
        (text("downgrade"), json!({ "target-version": "", "enabled": false }).to_string().into_bytes()),
    ];
    let buckets = vec![
        ("alarm", alarms),
        ("auth", vec![(text("authRevision"), 1_u64.to_be_bytes().to_vec())]),
        ("authRoles", Vec::new()),
        ("authUsers", Vec::new()),
        ("cluster", cluster),
        ("key", keys.collect()),
        ("lease", Vec::new()),
        ("members", members),
        ("members_removed", removed),
        ("meta", meta.into_iter().collect()),
    ];
    Written { bytes: bolt::write(buckets, replica.applied + 2), revision: state.store.revision() }
}

/// The database with its checksum behind it, as a snapshot is sent.
pub fn with_trailer(mut database: Vec<u8>) -> Vec<u8> {
    let digest = Sha256::digest(&database);
    database.extend(digest);
    database
}

/// What `etcdutl snapshot restore` takes from a file: the keys. Members, leases and the log's place are made anew.
pub fn restore(file: &[u8], check: Check) -> Result<Store, BadSnapshot> {
    // A database is a whole number of pages; what is over is the checksum.
    let has_hash = file.len() % 512 == TRAILER;
    if check == Check::Hash && !has_hash {
        return Err(BadSnapshot::NoHash);
    }
    let (database, trailer) = file.split_at(if has_hash { file.len() - TRAILER } else { file.len() });
    if check == Check::Hash {
        let found = Sha256::digest(database);
        if found[..] != *trailer {
            return Err(BadSnapshot::Hash { expected: hex::encode(trailer), found: hex::encode(found) });
        }
    }
    let mut buckets = bolt::read(database)?;
    let keys = buckets.remove("key").ok_or(BadSnapshot::NoBucket("key"))?;
    let meta: BTreeMap<Vec<u8>, Vec<u8>> =
        buckets.remove("meta").ok_or(BadSnapshot::NoBucket("meta"))?.into_iter().collect();
    let main = |key: &[u8]| key.get(..8).map(|bytes| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
    let compacted = meta.get(&b"finishedCompactRev"[..]).and_then(|key| main(key)).unwrap_or(0);
    let mut history = Vec::new();
    let mut last = 0;
    for (key, value) in keys {
        let damaged = || BadSnapshot::Damaged(last);
        if key.len() < REVISION || key[8] != b'_' {
            return Err(damaged());
        }
        let (at, sub) = (main(&key).ok_or_else(damaged)?, main(&key[9..]).ok_or_else(damaged)?);
        let kv = KeyValue::decode(Bytes::from(value)).map_err(|_| damaged())?;
        let deleted = key.get(REVISION) == Some(&DELETED);
        last = at;
        history.push(((at, sub), kv.key.clone(), (!deleted).then(|| kv.kv())));
    }
    let store = Store::from_history(last.max(1), compacted, history).ok_or(BadSnapshot::Damaged(last))?;
    Ok(store)
}
