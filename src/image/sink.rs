//! A disk's content on its way straight into a volume on a node.
//!
//! Purpose: the stream that a receiver on the node takes, the receiver itself, and its answer. Must not know: how the
//! stream gets there, who allocates the volume.
//!
//! # The receiver
//!
//! `perl -e '…' recast-receive 1 PATH NAME BYTES holes|zeros`: a Perl script of what every Proxmox VE node has (PVE is
//! Perl itself), handed over in the command, so that nothing is installed. PATH is what `pvesm path` said of the volume
//! that was just allocated, NAME the volume's own name, `vm-101-recast-<run>`, which nothing else has. It refuses (exit
//! code 2) any path in which that name is not a whole component, and one that is no file or block device, is mounted, in
//! use, or smaller than the disk. With `zeros`, everything between the extents is zeroed as well: a new thick LVM volume
//! holds what was there before. With `holes` the volume is new and reads as zeros.
//!
//! # What goes in, all numbers little-endian
//!
//! | | |
//! | --- | --- |
//! | head | `RECAST\0\x01`, u64 size of the disk |
//! | each extent, in ascending order | u64 offset (a multiple of 4096), u32 length (1 to 1 MiB), that many bytes |
//! | end | u64 number of extents, u32 0 |
//!
//! The end is sent only after the image's file was verified to its last byte. Without it the receiver ends with exit code
//! 3 and says nothing. Extents may be written any number of times: a repetition starts from the beginning.
//!
//! # What comes out
//!
//! `recast-receive 1 stored EXTENTS BYTES DIGEST`, after `fsync`: what was written was read back from the disk, and the
//! digest is the image's content digest (see `walker`) if and only if it is the same.

use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc;

use bytes::Bytes;

use super::inspect::Inspected;
use super::qcow2::Qcow2Error;
use super::walker::{Content, Limits, walk};
use crate::types::Sha256;

/// The receiver.
const SCRIPT: &str = include_str!("../../templates/receive.pl");

/// Extents that may wait for the network, up to 1 MiB each.
const AHEAD: usize = 8;

/// What a new volume holds where nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// Zeros: thin volumes, new files.
    Zeros,
    /// What was on the disk before: thick LVM.
    Garbage,
}

/// Where a stream goes.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The volume's path on its node, in words that a shell leaves alone.
    pub path: &'a str,
    /// Its own name: a component of the path.
    pub name: &'a str,
    /// What is in it before.
    pub unwritten: Unwritten,
}

/// The command that receives a disk of this size.
pub fn receiver(to: Destination<'_>, content: &Content) -> String {
    let rest = match to.unwritten {
        Unwritten::Zeros => "holes",
        Unwritten::Garbage => "zeros",
    };
    format!("perl -e '{SCRIPT}' recast-receive 1 {} {} {} {rest}", to.path, to.name, content.disk_bytes)
}

/// What the receiver says that it stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Bytes in extents.
    pub bytes: u64,
    /// The content digest of what was read back.
    pub sha256: Sha256,
}

impl Stored {
    /// Understands the receiver's answer; none when it is something else.
    pub fn parse(answer: &str) -> Option<Self> {
        let mut words = answer.strip_prefix("recast-receive 1 stored ")?.strip_suffix('\n')?.split(' ');
        let _extents: u64 = words.next()?.parse().ok()?;
        let stored = Self { bytes: words.next()?.parse().ok()?, sha256: words.next()?.parse().ok()? };
        words.next().is_none().then_some(stored)
    }

    /// Whether it is the whole image.
    pub fn is(&self, content: &Content) -> bool {
        self.bytes == content.data_bytes && self.sha256 == content.sha256
    }
}

/// The stream for the receiver. Decoding runs on a thread of its own, at most 8 MiB ahead of whoever reads, and ends when
/// this is dropped.
#[derive(Debug)]
pub struct ExtentStream {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl ExtentStream {
    /// The stream of the image at `path`, which has to be the one that was inspected: otherwise reading fails before the
    /// end was sent.
    pub fn open(path: &Path, inspected: &Inspected, limits: Limits) -> Result<Self, Qcow2Error> {
        let (send, chunks) = mpsc::sync_channel(AHEAD);
        let (path, expected) = (path.to_owned(), inspected.content);
        let work = move || {
            let given_up = |_| Qcow2Error::GivenUp;
            if let Err(error) = emit(&path, expected, limits, |chunk| send.send(Ok(chunk)).map_err(given_up)) {
                // Nobody reads any more when it was given up.
                let _unread = send.send(Err(io::Error::other(error)));
            }
        };
        std::thread::Builder::new().name("extents".to_owned()).spawn(work).map_err(Qcow2Error::Thread)?;
        Ok(Self { chunks, current: Bytes::new() })
    }
}

/// Decodes the image and gives the stream's pieces to `each`, the end only after the verdict.
fn emit(
    path: &Path,
    expected: Content,
    limits: Limits,
    mut each: impl FnMut(Bytes) -> Result<(), Qcow2Error>,
) -> Result<(), Qcow2Error> {
    let mut head = b"RECAST\0\x01".to_vec();
    head.extend_from_slice(&expected.disk_bytes.to_le_bytes());
    each(head.into())?;
    let mut extents = 0_u64;
    let changed = |second: String| Qcow2Error::Changed { first: expected.sha256, second };
    let content = walk::<Qcow2Error>(path, limits, |extent| {
        let length = u32::try_from(extent.bytes.len()).map_err(|_| changed("a longer extent".to_owned()))?;
        let mut record = Vec::with_capacity(12 + extent.bytes.len());
        record.extend_from_slice(&extent.offset.to_le_bytes());
        record.extend_from_slice(&length.to_le_bytes());
        record.extend_from_slice(extent.bytes);
        extents += 1;
        each(record.into())
    })?;
    if content != expected {
        return Err(changed(content.sha256.to_string()));
    }
    let mut end = extents.to_le_bytes().to_vec();
    end.extend_from_slice(&0_u32.to_le_bytes());
    each(end.into())
}

impl Read for ExtentStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() {
            match self.chunks.recv() {
                Ok(chunk) => self.current = chunk?,
                Err(mpsc::RecvError) => return Ok(0),
            }
        }
        let piece = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::process::{Command, Output, Stdio};

    use super::super::inspect::ClusterMap;
    use super::super::walker::WalkError;
    use super::super::walker::tests::{file, odd_disk, xz};
    use super::*;

    const NAME: &str = "vm-101-recast-2026-11-21T08-00-00";

    /// A folder with a volume.
    struct Node {
        dir: tempfile::TempDir,
    }

    impl Node {
        fn new(held: &[u8]) -> Option<Self> {
            if Command::new("perl").arg("-v").output().is_err() {
                assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "perl is required and not here");
                eprintln!("skipped: perl is not installed");
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

    fn command(content: &Content, unwritten: Unwritten) -> String {
        receiver(Destination { path: &format!("DIR/{NAME}"), name: NAME, unwritten }, content)
    }

    fn inspect_any(path: &Path) -> Inspected {
        let mut clusters = ClusterMap::default();
        let content = walk::<WalkError>(path, Limits::default(), |extent| {
            clusters.mark(extent);
            Ok(())
        });
        Inspected { content: content.unwrap(), clusters }
    }

    fn stream(path: &Path, inspected: &Inspected) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        ExtentStream::open(path, inspected, Limits::default()).unwrap().read_to_end(&mut all).map(|_| all)
    }

    #[test]
    fn the_receiver_stores_the_disk_and_proves_it() {
        let disk = odd_disk();
        let image = file(&xz(&disk));
        let inspected = inspect_any(image.path());
        let all = stream(image.path(), &inspected).unwrap();
        assert!(all.len() < 70_000, "zeros are not sent: {}", all.len());
        let garbage = vec![0xa5; disk.len() + 1024];
        for (unwritten, held) in [(Unwritten::Zeros, vec![0; disk.len()]), (Unwritten::Garbage, garbage)] {
            let Some(node) = Node::new(&held) else { return };
            let command = command(&inspected.content, unwritten);
            // Twice: a repetition is as good as the first time.
            for _ in 0..2 {
                let done = node.receive(&command, &all);
                let said = String::from_utf8(done.stdout).unwrap();
                assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
                assert!(Stored::parse(&said).unwrap().is(&inspected.content), "{said}");
                assert!(node.volume()[..disk.len()] == disk);
            }
        }
    }

    #[test]
    fn a_stream_without_its_end_is_no_disk() {
        let image = file(&odd_disk());
        let inspected = inspect_any(image.path());
        let all = stream(image.path(), &inspected).unwrap();
        let Some(node) = Node::new(&vec![0; odd_disk().len()]) else { return };
        let command = command(&inspected.content, Unwritten::Zeros);
        for cut in [0, 7, 20, all.len() / 2, all.len() - 1] {
            let done = node.receive(&command, &all[..cut]);
            assert_eq!((done.status.code(), done.stdout.len()), (Some(3), 0), "{cut}");
        }
    }

    #[test]
    fn only_the_volume_that_was_allocated_is_written_to() {
        let image = file(&odd_disk());
        let inspected = inspect_any(image.path());
        let all = stream(image.path(), &inspected).unwrap();
        let full = vec![7; odd_disk().len()];
        let right = command(&inspected.content, Unwritten::Zeros);
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
            (right.replace("receive 1", "receive 2"), &all, "not known"),
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
        let inspected = inspect_any(image.path());
        image.as_file().write_all_at(&[0xff], 100_001).unwrap();
        assert!(stream(image.path(), &inspected).unwrap_err().to_string().contains("changed between two readings"));
    }

    #[test]
    fn answers_are_read_strictly() {
        let digest = "0".repeat(64);
        assert!(Stored::parse(&format!("recast-receive 1 stored 3 5 {digest}\n")).is_some());
        for wrong in ["", "recast-receive 1 stored 3 5\n", "recast-receive 2 stored 3 5 00\n", "motd\n"] {
            assert_eq!(Stored::parse(wrong), None);
        }
        assert_eq!(Stored::parse(&format!("recast-receive 1 stored 3 5 {digest}")), None, "cut");
        assert!(!SCRIPT.contains('\''), "it is handed over between single quotes");
    }
}
