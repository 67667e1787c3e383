//! Reads our qcow2 files back, with a small reader of our own and with QEMU's.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use futures_util::StreamExt as _;

use super::super::inspect::ClusterMap;
use super::super::inspect::{Inspected, read_through};
use super::super::talos_disk::tests::disk;
use super::super::walker::tests::{file, xz};
use super::super::walker::{Limits, WalkError, walk};
use super::stream::{Qcow2, Qcow2Error, Qcow2Stream};
use crate::types::Sha256;

fn be(file: &[u8], at: usize, length: usize) -> u64 {
    file[at..at + length].iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn at(value: u64) -> usize {
    usize::try_from(value).unwrap()
}

/// Size of the disk in a qcow2 file and its allocated clusters by offset; every reference count is checked against the
/// references found.
fn read_qcow2(file: &[u8]) -> (u64, BTreeMap<u64, Vec<u8>>) {
    const CLUSTER: u64 = 65536;
    assert_eq!(&file[..8], b"QFI\xfb\0\0\0\x03");
    assert_eq!(file.len() % 65536, 0);
    let mut references: BTreeMap<u64, u64> = BTreeMap::new();
    let mut refer = |offset: u64| *references.entry(offset / CLUSTER).or_default() += 1;
    refer(0);
    let (size, l1_entries, l1) = (be(file, 24, 8), be(file, 36, 4), be(file, 40, 8));
    let (table, table_clusters) = (be(file, 48, 8), be(file, 56, 4));
    let mut clusters = BTreeMap::new();
    refer(l1);
    for index in 0..l1_entries {
        let entry = be(file, at(l1 + index * 8), 8);
        if entry == 0 {
            continue;
        }
        assert_eq!(entry >> 63, 1);
        let l2 = entry & !(1 << 63);
        refer(l2);
        for slot in 0..8192 {
            let entry = be(file, at(l2 + slot * 8), 8);
            if entry != 0 {
                assert_eq!(entry >> 63, 1);
                let from = entry & !(1 << 63);
                refer(from);
                clusters.insert((index * 8192 + slot) * CLUSTER, file[at(from)..at(from) + 65536].to_vec());
            }
        }
    }
    for index in 0..table_clusters {
        refer(table + index * CLUSTER);
    }
    let mut counted = BTreeMap::new();
    for slot in 0..table_clusters * 8192 {
        let block = be(file, at(table + slot * 8), 8);
        if block != 0 {
            refer(block);
            for cluster in 0..32768 {
                let count = be(file, at(block + cluster * 2), 2);
                if count != 0 {
                    counted.insert(slot * 32768 + cluster, count);
                }
            }
        }
    }
    assert_eq!(counted, references);
    assert_eq!(references.len() as u64 * CLUSTER, file.len() as u64, "the file has clusters that nothing refers to");
    (size, clusters)
}

/// What a disk with this data is as clusters; the last one is filled up with zeros.
fn as_clusters(runs: &[(u64, Vec<u8>)]) -> BTreeMap<u64, Vec<u8>> {
    let mut clusters: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (from, bytes) in runs {
        for (offset, byte) in (*from..).zip(bytes).filter(|(_, byte)| **byte != 0) {
            let cluster = clusters.entry(offset / 65536 * 65536).or_insert_with(|| vec![0; 65536]);
            cluster[at(offset % 65536)] = *byte;
        }
    }
    clusters
}

fn collect(qcow2: &Qcow2) -> Result<Vec<u8>, Qcow2Error> {
    let mut file = Vec::new();
    qcow2.emit(|chunk| {
        file.extend_from_slice(&chunk);
        Ok(())
    })?;
    Ok(file)
}

fn prepare(path: &Path) -> Result<Qcow2, Qcow2Error> {
    let inspected = read_through(path, Limits::default())?;
    Qcow2::prepare_blocking(path.to_owned(), inspected, Limits::default())
}

/// The same for disks that aren't Talos'.
fn prepare_any(path: &Path) -> Qcow2 {
    let mut clusters = ClusterMap::default();
    let content = walk::<WalkError>(path, Limits::default(), |extent| {
        clusters.mark(extent);
        Ok(())
    });
    let inspected = Inspected { content: content.unwrap(), clusters };
    Qcow2::prepare_blocking(path.to_owned(), inspected, Limits::default()).unwrap()
}

#[tokio::test]
async fn the_stream_is_a_qcow2_of_the_disk_with_the_announced_length_and_digest() {
    let disk = disk(8, &["EFI", "BIOS", "BOOT", "META"]);
    let image = file(&xz(&disk));
    let inspected = super::super::inspect(image.path(), Limits::default()).await.unwrap();
    let qcow2 = Qcow2::prepare(image.path(), inspected, Limits::default()).await.unwrap();
    let mut sent = Vec::new();
    let mut stream = Qcow2Stream::of(&qcow2.fanout(1)).unwrap();
    while let Some(chunk) = stream.next().await {
        sent.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(sent.len() as u64, qcow2.file_bytes());
    assert_eq!(Sha256::of(&sent), qcow2.sha256());
    assert!(read_qcow2(&sent) == (disk.len() as u64, as_clusters(&[(0, disk)])));
}

#[test]
fn disks_across_several_tables_read_back_equal() {
    // 1.1 GiB takes three L2 tables, of which the middle one has no entry; the end is no multiple of a cluster.
    let size = (1100 << 20) + 512;
    let pattern = |length: u8| (1..=length).cycle().take(5 * usize::from(length)).collect::<Vec<u8>>();
    let runs = [(510, vec![0x55, 0xaa]), (65_000, pattern(200)), (1 << 30, pattern(250)), (size - 500, pattern(100))];
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(size).unwrap();
    for (offset, bytes) in &runs {
        sparse.as_file().write_all_at(bytes, *offset).unwrap();
    }
    let file = collect(&prepare_any(sparse.path())).unwrap();
    assert!(read_qcow2(&file) == (size, as_clusters(&runs)));
}

#[test]
fn an_image_that_changed_after_its_inspection_ends_in_an_error_before_its_end() {
    let mut disk = disk(8, &["EFI", "META"]);
    let image = file(&disk);
    let qcow2 = prepare(image.path()).unwrap();
    for at in [(1 << 20) + 5, (3 << 20) + 5] {
        disk[at] ^= 0xff;
        std::fs::write(image.path(), &disk).unwrap();
        let mut sent = 0;
        let failed = qcow2.emit(|chunk| {
            sent += chunk.len() as u64;
            Ok(())
        });
        assert!(matches!(failed, Err(Qcow2Error::Changed { .. })), "{failed:?}");
        assert!(sent < qcow2.file_bytes());
        disk[at] ^= 0xff;
    }
}

#[test]
fn a_reader_that_leaves_ends_the_thread() {
    let image = file(&disk(8, &["EFI", "META"]));
    let qcow2 = prepare(image.path()).unwrap();
    assert!(matches!(qcow2.emit(|_| Err(Qcow2Error::GivenUp)), Err(Qcow2Error::GivenUp)));
}

#[test]
fn qemu_finds_no_fault_and_converts_it_back_to_the_disk() {
    if !real_parts::is_here("qemu-img", "--version") {
        return;
    }
    let disk = disk(40, &["EFI", "BIOS", "BOOT", "META"]);
    let image = file(&xz(&disk));
    let folder = tempfile::tempdir().unwrap();
    let (qcow2, raw) = (folder.path().join("disk.qcow2"), folder.path().join("disk.raw"));
    std::fs::write(&qcow2, collect(&prepare(image.path()).unwrap()).unwrap()).unwrap();
    let qemu_img = |arguments: &[&str]| {
        let done = Command::new("qemu-img").args(arguments).arg(&qcow2).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    assert!(qemu_img(&["check"]).contains("No errors were found"));
    let info: serde_json::Value = serde_json::from_str(&qemu_img(&["info", "--output=json"])).unwrap();
    assert_eq!((info["format"].as_str(), info["virtual-size"].as_u64()), (Some("qcow2"), Some(40 << 20)));
    let done = Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&qcow2).arg(&raw).status().unwrap();
    assert!(done.success());
    assert!(std::fs::read(&raw).unwrap() == disk);
}

#[test]
fn our_files_and_those_of_qemu_are_read_as_the_same_disk() {
    let disk = disk(40, &["EFI", "BIOS", "BOOT", "META"]);
    let image = file(&disk);
    let expected = read_through(image.path(), Limits::default()).unwrap();
    let ours = file(&collect(&prepare(image.path()).unwrap()).unwrap());
    assert_eq!(read_through(ours.path(), Limits::default()).unwrap(), expected);
    if !real_parts::is_here("qemu-img", "--version") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for options in ["cluster_size=8192", "cluster_size=65536,compat=0.10", "cluster_size=2M"] {
        let qcow2 = folder.path().join("theirs.qcow2");
        let mut made = Command::new("qemu-img");
        made.args(["convert", "-f", "raw", "-O", "qcow2", "-o", options]);
        assert!(made.arg(image.path()).arg(&qcow2).status().unwrap().success());
        assert_eq!(read_through(&qcow2, Limits::default()).unwrap(), expected, "{options}");
    }
    for (options, why) in [(["-c", "-O"], "compressed"), (["-B", "theirs.qcow2"], "backing")] {
        let qcow2 = folder.path().join("refused.qcow2");
        let mut command = Command::new("qemu-img");
        command.current_dir(folder.path()).arg("convert").args(["-f", "raw"]).args(options);
        if options[0] == "-B" {
            command.args(["-F", "qcow2", "-O"]);
        }
        assert!(command.arg("qcow2").arg(image.path()).arg(&qcow2).status().unwrap().success());
        let refused = read_through(&qcow2, Limits::default()).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}
