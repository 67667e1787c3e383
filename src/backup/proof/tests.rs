use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt as _;

use proptest::prelude::{any, prop};
use proptest::proptest;

use super::*;
use crate::backup::append_trailer;
use crate::backup::testing::{FIXTURES, Kept, PAGE, SNAPSHOT, UID, closed, kept, with_checksums};

fn database() -> &'static [u8] {
    &SNAPSHOT[..SNAPSHOT.len() - 32]
}

/// The fixtures' expectations are what `generate.sh` printed: etcd's own count, and `etcdctl snapshot status`.
#[test]
fn snapshots_of_real_etcds() {
    for (version, bytes) in FIXTURES {
        let found = examine(&kept(bytes).path).unwrap();
        let Proof { sha256, revision, keys, consistent_index, term, namespace_uid, cluster_version, trailer, .. } =
            found.proof;
        assert_eq!((revision, keys, trailer), (49, 40, Trailer::Etcd), "{version}");
        assert_eq!(sha256.0, bytes[bytes.len() - 32..]);
        assert_eq!(namespace_uid.as_deref(), Some(UID));
        assert!(consistent_index.is_some_and(|index| index > 49));
        assert_eq!(cluster_version.unwrap(), format!("{}.0", version.trim_start_matches("etcd-")));
        assert_eq!(found.contents.members, ["cp-1"]);
        assert_eq!((found.contents.leases, found.contents.compacted), (1, 20));
        let (total_keys, hash) = match version {
            "etcd-3.4" => (55, 3_341_757_238),
            _ => (58, 3_281_806_380),
        };
        assert_eq!((found.contents.entries, term.is_some()), (total_keys, version != "etcd-3.4"));
        assert_eq!(found.contents.hash, hash);
        assert_eq!(found.database_bytes + 32, bytes.len() as u64);
    }
}

/// Flips bits of one byte and puts it back.
struct Flipping {
    file: fs::File,
    kept: Kept,
    bytes: Vec<u8>,
}

impl Flipping {
    fn new(bytes: &[u8]) -> Self {
        let kept = kept(bytes);
        let file = fs::OpenOptions::new().write(true).open(&kept.path).unwrap();
        Self { file, kept, bytes: bytes.to_vec() }
    }

    fn with(&self, at: usize, byte: u8) -> Result<Proof, ProofError> {
        self.file.write_all_at(&[byte], at as u64).unwrap();
        let proof = prove(&self.kept.path);
        self.file.write_all_at(&self.bytes[at..=at], at as u64).unwrap();
        proof
    }
}

#[test]
fn damage_at_any_byte_is_found() {
    let flipping = Flipping::new(SNAPSHOT);
    for (at, byte) in SNAPSHOT.iter().enumerate() {
        let bit = 1 << (at % 8);
        assert!(flipping.with(at, byte ^ bit).is_err(), "byte {at} was flipped and nobody saw it");
    }
    assert!(prove(&flipping.kept.path).is_ok());
}

/// Pages in use with how many elements they have, found by the simplest possible way through a database that is sound.
fn pages_in_use() -> Vec<(usize, usize, bool)> {
    let word = |at: usize| usize::try_from(u64::from_le_bytes(database()[at..at + 8].try_into().unwrap())).unwrap();
    let half = |at: usize| usize::try_from(u32::from_le_bytes(database()[at..at + 4].try_into().unwrap())).unwrap();
    let mut found = Vec::new();
    let mut next = vec![(word(16 + 16), true)];
    while let Some((page, of_buckets)) = next.pop() {
        let at = page * PAGE;
        let (is_leaf, count) =
            (database()[at + 8] == 2, usize::from(database()[at + 10]) + 256 * usize::from(database()[at + 11]));
        found.push((at, count, is_leaf));
        for element in (0..count).map(|index| at + 16 + 16 * index) {
            if !is_leaf {
                next.push((word(element + 8), of_buckets));
            } else if of_buckets {
                let root = word(element + half(element + 4) + half(element + 8));
                next.extend((root != 0).then_some((root, false)));
            }
        }
    }
    found
}

/// Where the hash has been made to fit, structure alone must show the damage: in both meta pages, in the headers and
/// elements of every page in use. What lies beyond, a value's inside or a free page, only the hash can protect.
#[test]
fn damaged_structure_is_found_even_under_a_hash_that_fits() {
    let mut structure: BTreeSet<usize> = (0..80).chain(PAGE..PAGE + 80).collect();
    let mut last_sizes = BTreeSet::new();
    let pages = pages_in_use();
    assert!(pages.iter().any(|(_, _, is_leaf)| !is_leaf) && pages.len() > 4, "the fixture has branches and leaves");
    for (at, count, is_leaf) in pages {
        structure.extend(at..at + 16 + 16 * count);
        if is_leaf {
            // How long a page's last value is, only its content can say.
            let last = at + 16 + 16 * count;
            last_sizes.extend(last - 4..last);
        }
    }
    let folder = kept(b"").folder;
    let path = folder.path().join("changed.snapshot");
    let mut accepted = Vec::new();
    for at in structure {
        let mut changed = database().to_vec();
        changed[at] ^= 1 << (at % 8);
        fs::write(&path, closed(&changed)).unwrap();
        if prove(&path).is_ok() && !last_sizes.contains(&at) {
            accepted.push((at / PAGE, at % PAGE));
        }
    }
    assert_eq!(accepted, [], "(page, byte) whose damage nobody saw");
}

#[test]
fn a_cut_is_found_at_every_page_with_and_without_a_hash_that_fits() {
    for bytes in (0..SNAPSHOT.len()).step_by(512).chain([1, 31, 32, 33, SNAPSHOT.len() - 1]) {
        assert!(prove(&kept(&SNAPSHOT[..bytes]).path).is_err(), "cut after {bytes} bytes");
    }
    for bytes in (0..database().len()).step_by(PAGE) {
        let cut = kept(&closed(&database()[..bytes]));
        assert!(prove(&cut.path).is_err(), "cut after {bytes} bytes, with a new hash");
        assert!(examine_database(&kept(&database()[..bytes]).path).is_err());
    }
}

#[test]
fn refusals_say_what_the_file_is() {
    let told = |bytes: &[u8]| {
        let error = prove(&kept(bytes).path).unwrap_err();
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        (format!("{error}"), cause)
    };
    assert!(told(b"").0.ends_with("is empty"));
    assert!(told(database()).0.contains("does not end with a SHA-256"));
    assert!(told(&closed(&[0; 8192])).1.contains("no bbolt database"));
    let mut altered = SNAPSHOT.to_vec();
    altered[5000] ^= 1;
    assert!(told(&altered).0.contains("its SHA-256 is"));
    let foreign = crate::backup::testing::database(2, None, &[crate::backup::testing::leaf(2, &[])]);
    assert!(told(&closed(&foreign)).1.contains("not etcd's"));
}

#[test]
fn a_database_file_gets_a_trailer_that_says_whose_it_is() {
    let kept = kept(database());
    assert_eq!(examine_database(&kept.path).unwrap().keys, 40);
    let digest = append_trailer(&kept.path).unwrap();
    let proof = prove(&kept.path).unwrap();
    assert_eq!((proof.trailer, proof.sha256, proof.keys), (Trailer::Ours, digest, 40));
    assert_eq!(proof.bytes, SNAPSHOT.len() as u64 + 512);
    assert!(append_trailer(&kept.path).is_err(), "not twice");
    let mut bytes = fs::read(&kept.path).unwrap();
    for at in [database().len() + 3, database().len() + 300] {
        bytes[at] ^= 1;
        fs::write(&kept.path, &bytes).unwrap();
        assert!(prove(&kept.path).is_err(), "the block is covered too");
        bytes[at] ^= 1;
    }
}

/// Free space behind the database, as bbolt leaves it when it grows a file ahead of its needs.
#[test]
fn a_database_file_may_be_longer_than_its_database() {
    let grown = kept(&[database(), &[0; 3 * PAGE]].concat());
    append_trailer(&grown.path).unwrap();
    assert_eq!(prove(&grown.path).unwrap().keys, 40);
}

proptest! {
    /// Whatever the bytes are: an answer, in time, without a panic.
    #[test]
    fn hostile_files_are_answered(
        changes in prop::collection::vec((0..SNAPSHOT.len() - 32, any::<u8>()), 1..60),
        words in prop::collection::vec((0..(SNAPSHOT.len() - 32) / 8, 0_u64..20), 0..30),
        sound_metas in any::<bool>(),
    ) {
        let mut bytes = database().to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        for (at, word) in words {
            bytes[8 * at..8 * at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if sound_metas {
            with_checksums(&mut bytes);
        }
        let _ = prove(&kept(&closed(&bytes)).path);
    }

    #[test]
    fn noise_is_answered(
        noise in prop::collection::vec(any::<u8>(), 0..40_000),
        head in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = database().to_vec();
        let from = bytes.len() - noise.len().min(bytes.len() - 2 * PAGE);
        let length = bytes.len() - from;
        bytes[from..].copy_from_slice(&noise[..length]);
        for page in (2 * PAGE..bytes.len()).step_by(PAGE) {
            bytes[page + 16..page + 16 + head.len()].copy_from_slice(&head);
        }
        let _ = prove(&kept(&closed(&bytes)).path);
    }
}
