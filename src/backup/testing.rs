//! What the tests of this module share: snapshots of real etcds, and databases laid out by hand.

use std::fs;
use std::path::{Path, PathBuf};

use super::name::{Purpose, SnapshotName};
use crate::types::Sha256;

/// Snapshots that real etcds made; `tests/fixtures/etcd/generate.sh` says how.
pub(super) const FIXTURES: [(&str, &[u8]); 2] = [
    ("etcd-3.4", include_bytes!("../../tests/fixtures/etcd/etcd-3.4.snapshot")),
    ("etcd-3.6", include_bytes!("../../tests/fixtures/etcd/etcd-3.6.snapshot")),
];

/// The first of them, and its UID of kube-system.
pub(super) const SNAPSHOT: &[u8] = FIXTURES[0].1;
pub(super) const UID: &str = "0b0f7f5e-7a3d-4a3f-9a55-1d1f4f1f2c11";

/// Bytes of a page in them.
pub(super) const PAGE: usize = 4096;

/// With a trailer that fits, whatever the bytes are.
pub(super) fn closed(database: &[u8]) -> Vec<u8> {
    [database, &Sha256::of(database).0].concat()
}

/// Both meta pages' checksums made right again.
pub(super) fn with_checksums(database: &mut [u8]) {
    for page in [0, PAGE] {
        if let Some(meta) = database.get_mut(page + 16..page + 80) {
            let sum = meta[..56]
                .iter()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
            meta[56..].copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// A file in a folder of its own.
pub(super) struct Kept {
    pub(super) folder: tempfile::TempDir,
    pub(super) path: PathBuf,
}

pub(super) fn kept(bytes: &[u8]) -> Kept {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name(1).to_string());
    fs::write(&path, bytes).unwrap();
    Kept { folder, path }
}

/// A name, the later the higher the second.
pub(super) fn name(second: i64) -> SnapshotName {
    let taken = jiff::Timestamp::from_second(1_795_000_000 + second).unwrap();
    SnapshotName { purpose: Purpose::Manual, taken, run: None }
}

/// The names in a folder.
pub(super) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A page with elements of 16 bytes, whose data follow in order.
fn page(id: u64, flags: u16, elements: &[([u32; 2], Vec<u8>)], element: impl Fn(u32, [u32; 2]) -> [u8; 16]) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(flags.to_le_bytes());
    bytes.extend(u16::try_from(elements.len()).unwrap().to_le_bytes());
    bytes.extend([0; 4]);
    let mut at = 16 * u32::try_from(elements.len()).unwrap();
    let mut data: Vec<u8> = Vec::new();
    for (index, (facts, content)) in (0_u32..).zip(elements) {
        bytes.extend(element(at - 16 * index, *facts));
        at += u32::try_from(content.len()).unwrap();
        data.extend(content);
    }
    bytes.extend(data);
    bytes
}

fn words(words: [u32; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, word) in words.iter().enumerate() {
        bytes[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A leaf page; a key that begins with `bucket:` holds one.
pub(super) fn leaf(id: u64, entries: &[(&[u8], Vec<u8>)]) -> Vec<u8> {
    let elements: Vec<([u32; 2], Vec<u8>)> = entries
        .iter()
        .map(|(key, value)| {
            let sizes = [u32::try_from(key.len()).unwrap(), u32::try_from(value.len()).unwrap()];
            (sizes, [*key, value].concat())
        })
        .collect();
    page(id, 2, &elements, |position, [key, value]| words([0, position, key, value]))
}

/// A leaf page whose values are buckets with these root pages.
pub(super) fn buckets(id: u64, roots: &[(&[u8], u64)]) -> Vec<u8> {
    let entries: Vec<(&[u8], Vec<u8>)> =
        roots.iter().map(|(name, root)| (*name, [root.to_le_bytes(), [0; 8]].concat())).collect();
    let mut bytes = leaf(id, &entries);
    for index in 0..entries.len() {
        bytes[16 + 16 * index] = 1;
    }
    bytes
}

/// A branch page.
pub(super) fn branch(id: u64, children: &[(&[u8], u64)]) -> Vec<u8> {
    let elements: Vec<([u32; 2], Vec<u8>)> =
        children.iter().map(|(key, _)| ([u32::try_from(key.len()).unwrap(), 0], key.to_vec())).collect();
    let mut bytes = page(id, 1, &elements, |position, [key, _]| words([position, key, 0, 0]));
    for (index, (_, child)) in children.iter().enumerate() {
        bytes[16 + 16 * index + 8..16 + 16 * index + 16].copy_from_slice(&child.to_le_bytes());
    }
    bytes
}

/// A page of the list of free pages.
pub(super) fn free(id: u64, pages: &[u64]) -> Vec<u8> {
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend(0x10_u16.to_le_bytes());
    bytes.extend(u16::try_from(pages.len()).unwrap().to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(pages.iter().flat_map(|page| page.to_le_bytes()));
    bytes
}

/// A database of these pages, from page 2 on.
pub(super) fn database(root: u64, freelist: Option<u64>, pages: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..2_u64 {
        let mut meta = number.to_le_bytes().to_vec();
        meta.extend(words([4, 0, 0xED0C_DAED, 2]));
        meta.extend(u32::try_from(PAGE).unwrap().to_le_bytes());
        meta.extend(0_u32.to_le_bytes());
        for word in [root, 0, freelist.unwrap_or(u64::MAX), 2 + pages.len() as u64, 7 + number, 0] {
            meta.extend(word.to_le_bytes());
        }
        meta.resize(PAGE, 0);
        bytes.extend(meta);
    }
    for page in pages {
        let mut page = page.clone();
        page.resize(PAGE, 0);
        bytes.extend(page);
    }
    with_checksums(&mut bytes);
    bytes
}
