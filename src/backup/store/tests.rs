use std::os::unix::fs::PermissionsExt as _;

use futures_util::stream;

use super::*;
use crate::backup::testing::{PAGE, SNAPSHOT, UID, closed, kept, name, names};
use crate::net::meter::Silent;

fn chunks(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, io::Error>> + use<> {
    let chunks: Vec<Bytes> = bytes.chunks(1024).map(Bytes::copy_from_slice).collect();
    stream::iter(chunks.into_iter().map(Ok))
}

fn keep(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_snapshot_is_received_proven_and_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("new/backups");
    let store = Store::open(&folder).unwrap();
    let (path, proof) = store.receive(&name(1), chunks(SNAPSHOT), &Silent).await.unwrap();
    assert_eq!((proof.bytes, proof.keys), (SNAPSHOT.len() as u64, 40));
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    assert_eq!(names(&folder), [name(1).to_string()]);
    assert_eq!(store.list().unwrap(), [Listed { name: name(1), path: path.clone(), bytes: proof.bytes }]);

    let again = store.receive(&name(1), chunks(b"else"), &Silent).await;
    assert!(matches!(again, Err(StoreError::Exists { .. })), "nothing is overwritten");
    assert_eq!(fs::read(&path).unwrap(), SNAPSHOT);
}

#[tokio::test]
async fn a_database_file_is_received_with_a_trailer_of_ours() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let (_, proof) = store.receive_database(&name(1), chunks(&SNAPSHOT[..SNAPSHOT.len() - 32]), &Silent).await.unwrap();
    assert_eq!((proof.trailer, proof.keys), (crate::backup::Trailer::Ours, 40));
    let refused = store.receive_database(&name(2), chunks(SNAPSHOT), &Silent).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unproven(ProofError::NotADatabase { .. })));
}

#[tokio::test]
async fn what_cannot_be_proven_leaves_nothing_behind() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let cut = store.receive(&name(1), chunks(&SNAPSHOT[..8 * PAGE]), &Silent).await.unwrap_err();
    assert!(matches!(cut, StoreError::Unproven(ProofError::NoTrailer { .. })));
    let empty = store.receive(&name(1), chunks(b""), &Silent).await.unwrap_err();
    assert!(matches!(empty, StoreError::Unproven(ProofError::Empty { .. })));
    let broken = stream::iter([Ok(Bytes::from_static(SNAPSHOT)), Err(io::Error::other("reset by peer"))]);
    let broken = store.receive(&name(1), broken, &Silent).await.unwrap_err();
    assert!(matches!(broken, StoreError::Sender { received, .. } if received == SNAPSHOT.len() as u64));
    assert_eq!(names(root.path()), [""; 0]);
}

#[tokio::test]
async fn a_part_of_a_crash_is_replaced_and_one_in_use_is_not() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let part = root.path().join(format!("{}.part", name(1)));
    fs::write(&part, b"half").unwrap();
    let held = File::open(&part).unwrap();
    held.lock().unwrap();
    let busy = store.receive(&name(1), chunks(SNAPSHOT), &Silent).await.unwrap_err();
    assert!(matches!(busy, StoreError::Busy { .. }));
    assert!(store.prunable(keep(1), &BTreeSet::new()).unwrap().is_empty(), "somebody is at it");
    drop(held);
    assert_eq!(store.prunable(keep(1), &BTreeSet::new()).unwrap().parts, [part]);
    store.receive(&name(1), chunks(SNAPSHOT), &Silent).await.unwrap();
    assert_eq!(names(root.path()), [name(1).to_string()]);
}

#[test]
fn pruning_keeps_the_newest_good_ones_and_what_is_needed() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let paths: Vec<PathBuf> = (0..6).map(|second| store.path_of(&name(second))).collect();
    for path in &paths {
        fs::write(path, SNAPSHOT).unwrap();
    }
    fs::write(&paths[5], b"").unwrap();
    fs::write(root.path().join("etcd-by-hand.snapshot"), b"mine").unwrap();
    let needed = BTreeSet::from([root.path().join(".").join(name(1).to_string())]);

    let found = store.prunable(keep(2), &needed).unwrap();
    let pruned: Vec<PathBuf> = found.snapshots.iter().map(|listed| listed.path.clone()).collect();
    assert_eq!(pruned, [paths[0].clone(), paths[2].clone()], "the oldest first, the needed one not");
    assert_eq!(found.damaged[0].path, paths[5], "a damaged one isn't counted as kept");
    assert_eq!(names(root.path()).len(), 7, "looking takes nothing away");

    assert_eq!(store.prune(keep(2), &needed).unwrap(), found);
    assert_eq!(store.list().unwrap().len(), 4);
    assert!(store.prune(keep(2), &needed).unwrap().is_empty());
}

#[test]
fn purposes_and_clusters_are_counted_apart() {
    let root = tempfile::tempdir().unwrap();
    let store = Store::open(root.path()).unwrap();
    let uid = SNAPSHOT.windows(UID.len()).position(|window| window == UID.as_bytes()).unwrap();
    let mut other = SNAPSHOT[..SNAPSHOT.len() - 32].to_vec();
    other[uid] ^= 1;
    let other = closed(&other);
    let before = |second| SnapshotName { purpose: Purpose::Before, ..name(second) };
    for (name, content) in
        [(name(1), SNAPSHOT), (name(2), &other), (before(3), SNAPSHOT), (name(4), SNAPSHOT), (before(5), SNAPSHOT)]
    {
        fs::write(store.path_of(&name), content).unwrap();
    }
    let found = store.prunable(keep(1), &BTreeSet::new()).unwrap();
    let names: Vec<SnapshotName> = found.snapshots.into_iter().map(|listed| listed.name).collect();
    assert_eq!(names, [name(1), before(3)], "the other cluster's only one stays");
}

#[test]
fn a_full_disk_is_named() {
    let full = OpenOptions::new().write(true).open("/dev/full").and_then(|mut full| full.write_all(b"x")).unwrap_err();
    let error = disk("write", Path::new("/backups/etcd.snapshot.part"))(full);
    assert_eq!(error.to_string(), "no space is left for /backups/etcd.snapshot.part: it got 0 bytes");
    assert!(error.hints()[0].contains("/backups (`recast snapshot prune`)"));
}

#[test]
fn renaming_never_overwrites() {
    let there = kept(SNAPSHOT);
    let part = Part::create(&there.path).unwrap();
    assert!(matches!(part.rename(&there.path), Err(StoreError::Exists { .. })));
    assert_eq!(names(there.folder.path()).len(), 1, "and the part is gone");
}
