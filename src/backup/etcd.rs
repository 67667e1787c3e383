//! What etcd keeps in its database: the store of all revisions, and what it knows of itself.
//!
//! Purpose: decodes the buckets of etcd 3.4 to 3.6 while a [`bolt`](super::bolt) walk shows them, and refuses what etcd
//! never writes. Nothing is kept but counts, digests of key names, and the few values that say whose data these are.
//! Must not know: files. Start reading at [`Reader`].
//!
//! Bucket `key` maps revisions (main and sub, 8 bytes each, big endian, `_` between; a `t` behind marks a deletion) to
//! `mvccpb.KeyValue`; a key's newest record says whether it lives. Bucket `meta` holds `consistent_index`, since 3.5
//! `term` and `confState`, since 3.6 `storageVersion`, and up to which revision was compacted
//! (go.etcd.io/etcd, server/storage/mvcc and server/storage/schema).

use std::collections::HashMap;

use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::bolt::{BoltError, Visit};
use super::crc32c::Crc32c;
use super::kubernetes::{self, Stored};

/// `mvccpb.KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) key: Vec<u8>,
    #[prost(int64, tag = "2")]
    pub(super) create_revision: i64,
    #[prost(int64, tag = "3")]
    pub(super) mod_revision: i64,
    #[prost(int64, tag = "4")]
    pub(super) version: i64,
    #[prost(bytes = "vec", tag = "5")]
    pub(super) value: Vec<u8>,
    #[prost(int64, tag = "6")]
    pub(super) lease: i64,
}

/// What can't be etcd's.
#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    /// The database below is damaged.
    #[error(transparent)]
    Bolt(#[from] BoltError),
    /// A sound database of something else.
    #[error("this is a bbolt database, but not etcd's: it has no bucket `{0}`")]
    Foreign(&'static str),
    /// A key of the store is no revision.
    #[error("the store holds a record whose revision {0} is none")]
    Revision(String),
    /// A record of the store can't be.
    #[error("the store's record of revision {revision} is damaged: {what}")]
    Record {
        /// Its main revision.
        revision: i64,
        /// How.
        what: &'static str,
    },
    /// A value that etcd keeps about itself can't be.
    #[error("etcd's `{key}` in the bucket `{bucket}` can't be read")]
    Value {
        /// The bucket.
        bucket: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The namespace that names the cluster can't be read.
    #[error("the namespace kube-system is damaged")]
    Namespace,
}

/// What an etcd database holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// The store's revision: of its newest record, or up to which it was compacted.
    pub revision: i64,
    /// The newest record's revision: what etcd's own tools call the revision.
    pub newest: i64,
    /// Up to which revision older records were removed; 0 for never.
    pub compacted: i64,
    /// Keys that live at the revision.
    pub keys: u64,
    /// Entries of all buckets: what etcd's own tools call total keys.
    pub entries: u64,
    /// CRC-32C over all buckets: what etcd's own tools call the hash.
    pub hash: u32,
    /// The last raft entry that was applied.
    pub consistent_index: Option<u64>,
    /// Its term; since etcd 3.5.
    pub term: Option<u64>,
    /// The cluster's etcd version, `3.5.0`.
    pub cluster_version: Option<String>,
    /// The storage's version, `3.6.0`; since etcd 3.6.
    pub storage_version: Option<String>,
    /// Names of the members.
    pub members: Vec<String>,
    /// How many leases there are.
    pub leases: u64,
    /// UID of the namespace kube-system.
    pub namespace_uid: Option<String>,
}

/// The buckets that matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bucket {
    Key,
    Meta,
    Cluster,
    Members,
    Lease,
    Other,
}

/// Takes in what a database holds.
pub struct Reader {
    contents: Contents,
    hash: Crc32c,
    bucket: Bucket,
    has_key: bool,
    has_meta: bool,
    /// Whether each key's newest record so far is a value. Names can be long and many: half a SHA-256 stands for each.
    lives: HashMap<[u8; 16], bool>,
    kube_system: Option<Vec<u8>>,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            contents: Contents::default(),
            hash: Crc32c::new(),
            bucket: Bucket::Other,
            has_key: false,
            has_meta: false,
            lives: HashMap::new(),
            kube_system: None,
        }
    }
}

impl Visit for Reader {
    type Error = EtcdError;

    fn bucket(&mut self, name: &[u8]) -> Result<(), EtcdError> {
        self.hash.add(name);
        self.bucket = match name {
            b"key" => Bucket::Key,
            b"meta" => Bucket::Meta,
            b"cluster" => Bucket::Cluster,
            b"members" => Bucket::Members,
            b"lease" => Bucket::Lease,
            _ => Bucket::Other,
        };
        self.has_key |= self.bucket == Bucket::Key;
        self.has_meta |= self.bucket == Bucket::Meta;
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdError> {
        self.hash.add(key);
        self.hash.add(value);
        self.contents.entries += 1;
        match self.bucket {
            Bucket::Key => self.record(key, value),
            Bucket::Meta => self.meta(key, value),
            Bucket::Cluster if key == b"clusterVersion" => {
                self.contents.cluster_version = Some(version(value, "cluster", "clusterVersion")?);
                Ok(())
            }
            Bucket::Members => self.member(value),
            Bucket::Lease => {
                self.contents.leases += 1;
                if key.len() == 8 { Ok(()) } else { Err(EtcdError::Value { bucket: "lease", key: "id" }) }
            }
            Bucket::Cluster | Bucket::Other => Ok(()),
        }
    }
}

impl Reader {
    /// What was taken in, once everything was shown.
    pub fn finish(mut self) -> Result<Contents, EtcdError> {
        for (there, name) in [(self.has_key, "key"), (self.has_meta, "meta")] {
            if !there {
                return Err(EtcdError::Foreign(name));
            }
        }
        self.contents.keys = self.lives.values().filter(|lives| **lives).count() as u64;
        self.contents.hash = self.hash.value();
        // Everything up to there may have been deleted: etcd itself goes on from the compaction then.
        self.contents.revision = self.contents.newest.max(self.contents.compacted);
        self.contents.namespace_uid = match self.kube_system.as_deref().map(kubernetes::namespace) {
            Some(Stored::Uid(uid)) => Some(uid),
            Some(Stored::Damaged) => return Err(EtcdError::Namespace),
            Some(Stored::Opaque) | None => None,
        };
        Ok(self.contents)
    }

    /// One record of the store; they come in the order of their revisions.
    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdError> {
        let (revision, tombstone) = revision(key).ok_or_else(|| EtcdError::Revision(hex::encode(key)))?;
        let wrong = |what| EtcdError::Record { revision, what };
        if value.is_empty() && !tombstone {
            // `etcdutl snapshot restore --bump-revision` leaves such a record: a revision and nothing else.
            self.contents.newest = revision;
            return Ok(());
        }
        let record = KeyValue::decode(value).map_err(|_| wrong("it is no key and value"))?;
        if record.key.is_empty() {
            return Err(wrong("its key is empty"));
        }
        if tombstone {
            if (record.create_revision, record.mod_revision, record.version) != (0, 0, 0) || !record.value.is_empty() {
                return Err(wrong("it deletes and holds a value"));
            }
        } else {
            if record.mod_revision != revision {
                return Err(wrong("it names another revision"));
            }
            if record.create_revision < 1 || record.create_revision > revision || record.version < 1 {
                return Err(wrong("its key was never created"));
            }
            if record.version == 1 && record.create_revision != revision {
                return Err(wrong("its version and its creation disagree"));
            }
        }
        self.contents.newest = revision;
        self.lives.insert(digest(&record.key), !tombstone);
        if record.key == kubernetes::KUBE_SYSTEM {
            self.kube_system = (!tombstone).then_some(record.value);
        }
        Ok(())
    }

    fn meta(&mut self, key: &[u8], value: &[u8]) -> Result<(), EtcdError> {
        let wrong = |key| EtcdError::Value { bucket: "meta", key };
        let number = |key| value.try_into().map(u64::from_be_bytes).map_err(|_| wrong(key));
        match key {
            b"consistent_index" => self.contents.consistent_index = Some(number("consistent_index")?),
            b"term" => self.contents.term = Some(number("term")?),
            b"storageVersion" => {
                self.contents.storage_version = Some(version(value, "meta", "storageVersion")?);
            }
            b"confState" => {
                let state: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(value);
                state.map_err(|_| wrong("confState"))?;
            }
            b"scheduledCompactRev" | b"finishedCompactRev" => {
                let (compacted, _) = revision(value).ok_or_else(|| wrong("finishedCompactRev"))?;
                self.contents.compacted = self.contents.compacted.max(compacted);
            }
            _ => {}
        }
        Ok(())
    }

    fn member(&mut self, value: &[u8]) -> Result<(), EtcdError> {
        #[derive(Deserialize)]
        struct Member {
            #[serde(default)]
            name: String,
        }
        let member: Member =
            serde_json::from_slice(value).map_err(|_| EtcdError::Value { bucket: "members", key: "member" })?;
        self.contents.members.push(member.name);
        Ok(())
    }
}

/// Main revision, and whether it marks a deletion. None for what is no revision.
fn revision(key: &[u8]) -> Option<(i64, bool)> {
    let tombstone = match key.len() {
        17 => false,
        18 if key[17] == b't' => true,
        _ => return None,
    };
    let main = i64::from_be_bytes(key[..8].try_into().ok()?);
    let sub = i64::from_be_bytes(key[9..17].try_into().ok()?);
    (key[8] == b'_' && main >= 0 && sub >= 0).then_some((main, tombstone))
}

/// A version as etcd spells it, with nothing around.
fn version(value: &[u8], bucket: &'static str, key: &'static str) -> Result<String, EtcdError> {
    let text = std::str::from_utf8(value).ok();
    text.filter(|text| semver::Version::parse(text).is_ok()).map(str::to_owned).ok_or(EtcdError::Value { bucket, key })
}

fn digest(key: &[u8]) -> [u8; 16] {
    let whole: [u8; 32] = sha2::Sha256::digest(key).into();
    std::array::from_fn(|index| whole[index])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rev(main: i64, sub: i64, mark: &str) -> Vec<u8> {
        [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark.as_bytes()].concat()
    }

    fn put(key: &str, create: i64, revision: i64, version: i64) -> Vec<u8> {
        let (key, value) = (key.as_bytes().to_vec(), b"value".to_vec());
        KeyValue { key, create_revision: create, mod_revision: revision, version, value, lease: 0 }.encode_to_vec()
    }

    fn delete(key: &str) -> Vec<u8> {
        KeyValue { key: key.as_bytes().to_vec(), ..KeyValue::default() }.encode_to_vec()
    }

    type Buckets<'a> = &'a [(&'a str, Vec<(Vec<u8>, Vec<u8>)>)];

    fn read(buckets: Buckets<'_>) -> Result<Contents, EtcdError> {
        let mut reader = Reader::default();
        for (name, entries) in buckets {
            reader.bucket(name.as_bytes())?;
            for (key, value) in entries {
                reader.entry(key, value)?;
            }
        }
        reader.finish()
    }

    #[test]
    fn a_keys_newest_record_says_whether_it_lives() {
        let store = vec![
            (rev(2, 0, ""), put("a", 2, 2, 1)),
            (rev(3, 0, ""), put("b", 3, 3, 1)),
            (rev(3, 1, ""), put("c", 3, 3, 1)),
            (rev(4, 0, ""), put("a", 2, 4, 2)),
            (rev(5, 0, "t"), delete("b")),
            (rev(5, 1, "t"), delete("c")),
            (rev(6, 0, ""), put("c", 6, 6, 1)),
        ];
        let found = read(&[("key", store), ("meta", vec![])]).unwrap();
        assert_eq!((found.keys, found.revision, found.entries), (2, 6, 7));
    }

    /// etcd 3.6 writes all of these.
    #[test]
    fn what_etcd_knows_of_itself() {
        let found = read(&[
            ("cluster", vec![(b"clusterVersion".to_vec(), b"3.6.0".to_vec())]),
            ("key", vec![(rev(2, 0, "t"), delete("gone"))]),
            ("lease", vec![(7_i64.to_be_bytes().to_vec(), vec![8, 7, 16, 60])]),
            ("members", vec![(b"8e9e05c52164694d".to_vec(), br#"{"id":10276657743932975437,"name":"cp-1"}"#.to_vec())]),
            (
                "meta",
                vec![
                    (b"confState".to_vec(), br#"{"voters":[1],"auto_leave":false}"#.to_vec()),
                    (b"consistent_index".to_vec(), 41_u64.to_be_bytes().to_vec()),
                    (b"finishedCompactRev".to_vec(), rev(9, 0, "")),
                    (b"storageVersion".to_vec(), b"3.6.0".to_vec()),
                    (b"term".to_vec(), 3_u64.to_be_bytes().to_vec()),
                ],
            ),
        ])
        .unwrap();
        assert_eq!((found.consistent_index, found.term, found.leases), (Some(41), Some(3), 1));
        assert_eq!((found.revision, found.compacted, found.keys), (9, 9, 0), "all up to the compaction was deleted");
        assert_eq!(found.cluster_version.as_deref(), Some("3.6.0"));
        assert_eq!(found.storage_version.as_deref(), Some("3.6.0"));
        assert_eq!(found.members, ["cp-1"]);
    }

    #[test]
    fn what_etcd_never_writes_is_refused() {
        let store = |key: Vec<u8>, value: Vec<u8>| read(&[("key", vec![(key, value)]), ("meta", vec![])]);
        let refused = |key, value| store(key, value).unwrap_err().to_string();
        assert!(refused(rev(2, 0, "x"), put("a", 2, 2, 1)).contains("is none"));
        assert!(refused(rev(-2, 0, ""), put("a", 2, 2, 1)).contains("is none"));
        assert!(refused(rev(2, 0, ""), put("a", 2, 3, 1)).contains("another revision"));
        assert!(refused(rev(2, 0, ""), put("a", 3, 2, 1)).contains("never created"));
        assert!(refused(rev(2, 0, ""), put("a", 1, 2, 1)).contains("disagree"));
        assert!(refused(rev(2, 0, ""), vec![0xFF; 9]).contains("no key and value"));
        assert!(refused(rev(2, 0, "t"), put("a", 2, 2, 1)).contains("deletes"));
        assert!(refused(rev(2, 0, ""), put("", 2, 2, 1)).contains("empty"));
        assert!(matches!(read(&[("key", vec![])]), Err(EtcdError::Foreign("meta"))));
        let index = vec![(b"consistent_index".to_vec(), vec![1, 2])];
        assert!(matches!(read(&[("key", vec![]), ("meta", index)]), Err(EtcdError::Value { .. })));
    }
}
