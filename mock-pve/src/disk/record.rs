//! What a machine keeps on its own disk: its configuration in STATE, everything else in EPHEMERAL. A clone of the disk
//! carries them, its deletion loses them.

#![expect(clippy::cast_possible_truncation, reason = "the header's size is a small constant")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::gpt::{Partition, Table};
use super::{DiskError, EPHEMERAL_MIN, MIB};

const MAGIC: &[u8; 8] = b"KEPT-V1\n";
const HEADER: u64 = 8 + 8 + 32;
const STATE_BYTES: u64 = 100 * MIB;
/// What an identity has at the end of STATE.
const IDENTITY_BYTES: u64 = 4096;

/// What is kept, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The machine configuration, in STATE.
    Config,
    /// Who the machine is, in STATE.
    Identity,
}

impl Keep {
    fn label(self) -> &'static str {
        match self {
            Self::Config | Self::Identity => "STATE",
        }
    }

    /// First byte and length of its place in a partition, which some releases make no bigger than a MiB.
    fn place(self, partition: &Partition) -> (u64, u64) {
        let rest = partition.bytes.saturating_sub(IDENTITY_BYTES);
        match self {
            Self::Config => (partition.start, rest),
            Self::Identity => (partition.start + rest, IDENTITY_BYTES),
        }
    }
}

/// Makes STATE and EPHEMERAL (or grows the latter to the disk's end), as Talos does when it first has a configuration.
/// Doing it again changes nothing.
pub fn provision(path: &Path) -> Result<(), DiskError> {
    let (file, bytes) = open(path)?;
    let old = Table::read(&file, path, bytes)?;
    let meta = old.find("META")?;
    let state = match old.find("STATE") {
        Ok(state) => state.clone(),
        Err(_) => Partition { label: "STATE".to_owned(), start: meta.start + meta.bytes, bytes: STATE_BYTES },
    };
    let start = state.start + state.bytes;
    let end = bytes / MIB * MIB;
    let free = end.saturating_sub(start + MIB);
    if free < EPHEMERAL_MIN {
        return Err(DiskError::NoRoom { bytes, free });
    }
    let mut partitions: Vec<Partition> =
        old.partitions.iter().filter(|one| one.label != "STATE" && one.label != "EPHEMERAL").cloned().collect();
    partitions.push(state);
    partitions.push(Partition { label: "EPHEMERAL".to_owned(), start, bytes: free });
    let new = Table { partitions, end };
    if new == old {
        return Ok(());
    }
    old.erase_backup(&file, path)?;
    new.write(&file, path)
}

/// Reads what is kept; `None` when nothing is, also when the partition doesn't exist yet.
pub fn load(path: &Path, what: Keep) -> Result<Option<Vec<u8>>, DiskError> {
    let file = File::open(path).map_err(DiskError::io(path))?;
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    let table = Table::read(&file, path, bytes)?;
    let Ok(partition) = table.find(what.label()) else { return Ok(None) };
    let mut header = [0; HEADER as usize];
    let (start, room) = what.place(partition);
    file.read_exact_at(&mut header, start).map_err(DiskError::io(path))?;
    if header.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let broken = |why| DiskError::Record { label: what.label(), why };
    let rest = header.strip_prefix(MAGIC).ok_or_else(|| broken("it holds no file system"))?;
    let (length, expected) = rest.split_at(8);
    let length = length.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    if length > room.saturating_sub(HEADER) {
        return Err(broken("it is cut off"));
    }
    let mut kept = vec![0; usize::try_from(length).unwrap_or_default()];
    file.read_exact_at(&mut kept, start + HEADER).map_err(DiskError::io(path))?;
    if Sha256::digest(&kept)[..] == *expected { Ok(Some(kept)) } else { Err(broken("its checksum doesn't match")) }
}

/// Writes what is to be kept, replacing what was. The partition must exist ([`provision`]).
pub fn store(path: &Path, what: Keep, kept: &[u8]) -> Result<(), DiskError> {
    let (file, bytes) = open(path)?;
    let table = Table::read(&file, path, bytes)?;
    let (start, room) = what.place(table.find(what.label())?);
    if kept.len() as u64 > room.saturating_sub(HEADER) {
        return Err(DiskError::Record { label: what.label(), why: "no space left on device" });
    }
    let mut block = MAGIC.to_vec();
    block.extend((kept.len() as u64).to_le_bytes());
    block.extend(Sha256::digest(kept));
    block.extend(kept);
    file.write_all_at(&block, start).map_err(DiskError::io(path))
}

/// Forgets what is kept: a reset wiped the partition.
pub fn wipe(path: &Path, what: Keep) -> Result<(), DiskError> {
    let (file, bytes) = open(path)?;
    let table = Table::read(&file, path, bytes)?;
    let Ok(partition) = table.find(what.label()) else { return Ok(()) };
    file.write_all_at(&[0; HEADER as usize], what.place(partition).0).map_err(DiskError::io(path))
}

/// A partition that somebody else fills.
#[derive(Debug)]
pub struct Region {
    /// The disk.
    pub file: File,
    /// First byte of the partition.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
}

/// The EPHEMERAL partition; `None` before it was made.
pub fn ephemeral(path: &Path) -> Result<Option<Region>, DiskError> {
    let (file, bytes) = open(path)?;
    let table = Table::read(&file, path, bytes)?;
    let Ok(partition) = table.find("EPHEMERAL").cloned() else { return Ok(None) };
    Ok(Some(Region { file, start: partition.start, bytes: partition.bytes }))
}

/// Erases the partition table and the boot files' entry: the disk doesn't boot any more.
pub fn erase(path: &Path) -> Result<(), DiskError> {
    let (file, bytes) = open(path)?;
    if let Ok(table) = Table::read(&file, path, bytes) {
        table.erase_backup(&file, path)?;
    }
    file.write_all_at(&vec![0; 64 * 512], 0).map_err(DiskError::io(path))
}

/// The file must exist: a machine whose disk was deleted under it doesn't bring the file back.
fn open(path: &Path) -> Result<(File, u64), DiskError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(DiskError::io(path))?;
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    Ok((file, bytes))
}
