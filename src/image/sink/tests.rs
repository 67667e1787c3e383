use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output, Stdio};

use super::*;
use crate::image::walker::WalkError;
use crate::image::walker::tests::{file, odd_disk, xz};

const NAME: &str = "vm-101-recast-2026-11-21T08-00-00";

/// A folder with a volume.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new(held: &[u8]) -> Option<Self> {
        if !real_parts::is_here("perl", "-v") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), held).unwrap();
        Some(Self { dir })
    }

    fn receive(&self, command: &str, stream: &[u8]) -> Output {
        let input = file(stream);
        Command::new("sh")
            .args(["-c", &command.replace("DIR", &self.dir.path().display().to_string())])
            .stdin(Stdio::from(input.reopen().unwrap()))
            .output()
            .unwrap()
    }

    fn volume(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join(NAME)).unwrap()
    }
}

fn command_from(content: &Content, unwritten: Unwritten, from: u64) -> String {
    receiver(Destination { path: &format!("DIR/{NAME}"), name: NAME, unwritten, from }, content)
}

fn command(content: &Content, unwritten: Unwritten) -> String {
    command_from(content, unwritten, 0)
}

fn content_of(path: &Path) -> Content {
    walk::<WalkError>(path, Limits::default(), |_| Ok(())).unwrap()
}

fn stream_from(path: &Path, content: &Content, from: u64) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let fanout = extents(path, *content, Limits::default(), 1);
    ExtentStream::of(&fanout, from)?.read_to_end(&mut all).map(|_| all)
}

fn stream(path: &Path, content: &Content) -> io::Result<Vec<u8>> {
    stream_from(path, content, 0)
}

/// 40 MiB without a zero, so that the receiver settles on the way.
fn full_disk() -> Vec<u8> {
    (0..40 << 20).map(|index: u32| 1 | index.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect()
}

#[test]
fn a_receiver_goes_on_where_the_one_before_it_was_cut_off() {
    let mut disk = full_disk();
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let image = file(&disk);
    let content = content_of(image.path());
    let all = stream(image.path(), &content).unwrap();
    let Some(node) = Node::new(&vec![0x77; disk.len()]) else { return };
    let cut = node.receive(&command(&content, Unwritten::Garbage), &all[..all.len() - 1000]);
    let said = String::from_utf8(cut.stdout).unwrap();
    let settled = Settled::parse(&said).offset;
    assert!(cut.status.code() == Some(3) && settled >= 32 << 20, "{said}");
    assert_eq!(Stored::parse(&said), None);
    let rest = stream_from(image.path(), &content, settled).unwrap();
    assert!(rest.len() as u64 <= all.len() as u64 - settled, "what is there is not sent again");
    let done = node.receive(&command_from(&content, Unwritten::Garbage, settled), &rest);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(Stored::parse(&said).unwrap().is(&content), "{said} {}", String::from_utf8_lossy(&done.stderr));
    assert!(node.volume() == disk);
    // What was there is read back as well: a byte of it that changed is found.
    let mut damaged = disk.clone();
    damaged[5000] ^= 1;
    let Some(node) = Node::new(&damaged) else { return };
    let done = node.receive(&command_from(&content, Unwritten::Garbage, settled), &rest);
    let said = String::from_utf8(done.stdout).unwrap();
    assert!(!Stored::parse(&said).unwrap().is(&content), "{said}");
    // Bytes that are said to be there and were not settled are refused.
    let done = node.receive(&command_from(&content, Unwritten::Garbage, 4096), &rest);
    assert_eq!((done.status.code(), done.stdout.len()), (Some(2), 0));
}

#[test]
fn a_killed_receiver_and_a_full_disk_are_never_an_answer() {
    let disk = full_disk();
    let image = file(&disk);
    let content = content_of_any(&disk);
    let Some(node) = Node::new(&vec![0; disk.len()]) else { return };
    let all = raw_stream(&disk, &content);
    drop(image);
    // A limit on the size of files stands for a disk that is full: the volume is there, and writing to it fails.
    let limited = format!("ulimit -f 20000; trap '' XFSZ; {}", command(&content, Unwritten::Zeros));
    let done = node.receive(&limited, &all);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.code() == Some(2) && said.contains("File too large"), "{:?} {said}", done.status);
    let killed = format!("{} & sleep 0.1; kill -9 $!; wait $!", command(&content, Unwritten::Zeros));
    let done = node.receive(&killed, &all);
    assert_eq!(Stored::parse(&String::from_utf8(done.stdout).unwrap()), None);
}

fn content_of_any(disk: &[u8]) -> Content {
    let mut bootable = disk.to_vec();
    bootable[510..512].copy_from_slice(&[0x55, 0xaa]);
    content_of(file(&bootable).path())
}

fn raw_stream(disk: &[u8], content: &Content) -> Vec<u8> {
    let mut bootable = disk.to_vec();
    bootable[510..512].copy_from_slice(&[0x55, 0xaa]);
    stream(file(&bootable).path(), content).unwrap()
}

#[test]
fn the_receiver_stores_the_disk_and_proves_it() {
    let disk = odd_disk();
    let image = file(&xz(&disk));
    let content = content_of(image.path());
    let all = stream(image.path(), &content).unwrap();
    assert!(all.len() < 70_000, "zeros are not sent: {}", all.len());
    let garbage = vec![0xa5; disk.len() + 1024];
    for (unwritten, held) in [(Unwritten::Zeros, vec![0; disk.len()]), (Unwritten::Garbage, garbage)] {
        let Some(node) = Node::new(&held) else { return };
        let command = command(&content, unwritten);
        // Twice: a repetition is as good as the first time.
        for _ in 0..2 {
            let done = node.receive(&command, &all);
            let said = String::from_utf8(done.stdout).unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            assert!(Stored::parse(&said).unwrap().is(&content), "{said}");
            assert!(node.volume()[..disk.len()] == disk);
        }
    }
}

#[test]
fn a_stream_without_its_end_is_no_disk() {
    let image = file(&odd_disk());
    let content = content_of(image.path());
    let all = stream(image.path(), &content).unwrap();
    let Some(node) = Node::new(&vec![0; odd_disk().len()]) else { return };
    let command = command(&content, Unwritten::Zeros);
    for cut in [0, 7, 20, all.len() / 2, all.len() - 1] {
        let done = node.receive(&command, &all[..cut]);
        assert_eq!((done.status.code(), done.stdout.len()), (Some(3), 0), "{cut}");
    }
}

#[test]
fn only_the_volume_that_was_allocated_is_written_to() {
    let image = file(&odd_disk());
    let content = content_of(image.path());
    let all = stream(image.path(), &content).unwrap();
    let full = vec![7; odd_disk().len()];
    let right = command(&content, Unwritten::Zeros);
    let mut damaged = all.clone();
    damaged[0] ^= 1;
    let at = |path: &str, name: &str| {
        right.replace(&format!("DIR/{NAME} {NAME}"), &format!("{path} {name}")).replace("0.1)", "0.001)")
    };
    for (command, stream, what) in [
        (at("DIR/vm-102-disk-0", NAME), &all, "is not the place"),
        (at("DIR/vm-102-disk-0", "vm-102-disk-0"), &all, "no volume of a run"),
        (at(&format!("rbd:pool/{NAME}"), NAME), &all, "is not the place"),
        (at(&format!("DIR/../x/{NAME}"), NAME), &all, "is not the place"),
        (at(&format!("DIR/{NAME}-other"), NAME), &all, "is not the place"),
        (at(&format!("DIR/none/{NAME}"), NAME), &all, "no file or device"),
        (right.replace("receive 2", "receive 3"), &all, "not known"),
        (right.clone(), &damaged, "no disk of"),
    ] {
        let Some(node) = Node::new(&full) else { return };
        let done = node.receive(&command, stream);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(2) && said.contains(what), "{what}: {:?} {said}", done.status);
        assert!(node.volume() == full, "{what}");
    }
    let Some(small) = Node::new(&[0; 4096]) else { return };
    let done = small.receive(&right, &all);
    assert!(String::from_utf8_lossy(&done.stderr).contains("has 4096 bytes"));
}

#[test]
fn an_image_that_changed_since_it_was_inspected_never_gets_its_end() {
    let image = file(&odd_disk());
    let content = content_of(image.path());
    image.as_file().write_all_at(&[0xff], 100_001).unwrap();
    assert!(stream(image.path(), &content).unwrap_err().to_string().contains("changed between two readings"));
}

#[test]
fn answers_are_read_strictly() {
    let digest = "0".repeat(64);
    assert!(Stored::parse(&format!("recast-receive 2 stored 3 5 {digest}\n")).is_some());
    for wrong in ["", "recast-receive 2 stored 3 5\n", "recast-receive 1 stored 3 5 00\n", "motd\n"] {
        assert_eq!(Stored::parse(wrong), None);
    }
    assert_eq!(Stored::parse(&format!("recast-receive 2 stored 3 5 {digest}")), None, "cut");
    let told = "recast-receive 2 at 4096 4096\nrecast-receive 2 at 8192 5000\nrecast-receive 2 at 99 1";
    assert_eq!(Settled::parse(told), Settled { offset: 8192, bytes: 5000 });
    assert_eq!(Settled::parse(""), Settled::default());
    assert!(!SCRIPT.contains('\''), "it is handed over between single quotes");
}
