//! Where members keep what they know: in the EPHEMERAL partition of their machine's disk, or in memory for tests.
//!
//! Two places for a base with the lines behind it, used in turn: a base that was interrupted leaves the older one valid.
//! A third place holds an uploaded snapshot, which waits to be recovered from.

use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::replica::{Disk, Replica};
use crate::disk::{self, DiskError, Region};

const MAGIC: &[u8; 8] = b"ETCDB-1\n";
/// Magic, generation, length, SHA-256.
const HEADER: u64 = 8 + 8 + 8 + 32;
const PLACES: [u64; 2] = [0, 512 << 20];
const UPLOAD: u64 = 1 << 30;
/// Length and checksum before a line.
const LINE: u64 = 8;

/// Why a member's data can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeptError {
    /// The disk can't be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Reading or writing failed.
    #[error("the disk {path} can't be used")]
    Io {
        /// The disk's file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no partition for it.
    #[error("the disk has no EPHEMERAL partition")]
    NoPartition,
    /// What is there isn't a member's data.
    #[error("the member's data makes no sense")]
    Damaged,
    /// It doesn't fit.
    #[error("no space left on device")]
    Full,
}

/// The place on a machine's disk.
#[derive(Debug)]
pub struct Ephemeral {
    region: Region,
    path: PathBuf,
    /// Which place is in use.
    place: usize,
    generation: u64,
    base: u64,
    lines: u64,
}

impl Ephemeral {
    /// The place on that disk; what is there is replaced by the first base.
    pub fn on(path: &Path) -> Result<Self, KeptError> {
        let region = disk::ephemeral(path)?.ok_or(KeptError::NoPartition)?;
        let newest = newest(&region, path)?;
        let (place, generation) = newest.map_or((1, 0), |found| (found.place, found.generation));
        Ok(Self { region, path: path.to_owned(), place, generation, base: 0, lines: 0 })
    }

    /// A disk whose file was deleted isn't one any more, although it can still be written.
    fn check(&self) -> Result<(), KeptError> {
        let gone = |source| KeptError::Io { path: self.path.clone(), source };
        std::fs::metadata(&self.path).map_err(gone).map(|_| ())
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), KeptError> {
        if at + bytes.len() as u64 > self.region.bytes {
            return Err(KeptError::Full);
        }
        let failed = |source| KeptError::Io { path: self.path.clone(), source };
        self.region.file.write_all_at(bytes, self.region.start + at).map_err(failed)
    }
}

impl Disk for Ephemeral {
    fn base(&mut self, bytes: &[u8]) -> Result<(), KeptError> {
        self.check()?;
        if bytes.len() as u64 > PLACES[1] / 2 {
            return Err(KeptError::Full);
        }
        (self.place, self.generation) = (1 - self.place, self.generation + 1);
        let block = block(self.generation, bytes);
        self.write(&block, PLACES[self.place])?;
        (self.base, self.lines) = (block.len() as u64, 0);
        Ok(())
    }

    fn append(&mut self, lines: &[Vec<u8>]) -> Result<(), KeptError> {
        self.check()?;
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend(u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
            bytes.extend(checksum(self.generation, line).to_le_bytes());
            bytes.extend(line);
        }
        if self.base + self.lines + bytes.len() as u64 > PLACES[1] {
            return Err(KeptError::Full);
        }
        self.write(&bytes, PLACES[self.place] + self.base + self.lines)?;
        self.lines += bytes.len() as u64;
        Ok(())
    }

    fn written(&self) -> (u64, u64) {
        (self.base, self.lines)
    }
}

fn block(generation: u64, bytes: &[u8]) -> Vec<u8> {
    let mut block = MAGIC.to_vec();
    block.extend(generation.to_le_bytes());
    block.extend((bytes.len() as u64).to_le_bytes());
    block.extend(Sha256::digest(bytes));
    block.extend(bytes);
    block
}

/// Lines of an older base in the same place don't count.
fn checksum(generation: u64, line: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&generation.to_le_bytes());
    hasher.update(line);
    hasher.finalize()
}

struct Found {
    place: usize,
    generation: u64,
    base: Vec<u8>,
}

fn read_block(region: &Region, path: &Path, at: u64) -> Result<Option<(u64, Vec<u8>)>, KeptError> {
    let failed = |source| KeptError::Io { path: path.to_owned(), source };
    let mut header = [0; 56];
    region.file.read_exact_at(&mut header, region.start + at).map_err(failed)?;
    let number = |from: usize| header[from..from + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
    let (generation, length) = (number(8), number(16));
    if header[..8] != MAGIC[..] || length > PLACES[1] {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    region.file.read_exact_at(&mut bytes, region.start + at + HEADER).map_err(failed)?;
    Ok((Sha256::digest(&bytes)[..] == header[24..]).then_some((generation, bytes)))
}

fn newest(region: &Region, path: &Path) -> Result<Option<Found>, KeptError> {
    let mut best: Option<Found> = None;
    for (place, at) in PLACES.iter().enumerate() {
        if let Some((generation, base)) = read_block(region, path, *at)?
            && best.as_ref().is_none_or(|best| best.generation < generation)
        {
            best = Some(Found { place, generation, base });
        }
    }
    Ok(best)
}

/// The member whose data is on that disk; `None` when it never was a member's.
pub fn read(path: &Path) -> Result<Option<Replica>, KeptError> {
    let Some(region) = disk::ephemeral(path)? else { return Ok(None) };
    let Some(found) = newest(&region, path)? else { return Ok(None) };
    let failed = |source| KeptError::Io { path: path.to_owned(), source };
    let base = HEADER + found.base.len() as u64;
    let (mut lines, mut length) = (Vec::new(), 0_u64);
    loop {
        let at = region.start + PLACES[found.place] + base + length;
        let mut head = [0; 8];
        if region.file.read_exact_at(&mut head, at).is_err() {
            break;
        }
        let (size, sum) = head.split_at(4);
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0_u32, |value, byte| value << 8 | u32::from(*byte));
        let size = u64::from(number(size));
        if size == 0 || base + length + LINE + size > PLACES[1] {
            break;
        }
        let mut line = vec![0; usize::try_from(size).unwrap_or_default()];
        region.file.read_exact_at(&mut line, at + LINE).map_err(failed)?;
        if checksum(found.generation, &line) != number(sum) {
            break;
        }
        lines.push(line);
        length += LINE + size;
    }
    let Found { place, generation, base: bytes } = found;
    let disk = Ephemeral { region, path: path.to_owned(), place, generation, base, lines: length };
    Replica::load(&bytes, &lines, Box::new(disk)).map(Some).ok_or(KeptError::Damaged)
}

/// Forgets a member's data and an upload: the directory is empty again.
pub fn forget(path: &Path) -> Result<(), KeptError> {
    let Some(region) = disk::ephemeral(path)? else { return Ok(()) };
    for at in PLACES.iter().chain([&UPLOAD]) {
        let failed = |source| KeptError::Io { path: path.to_owned(), source };
        region.file.write_all_at(&[0; 56], region.start + at).map_err(failed)?;
    }
    Ok(())
}

/// Keeps an uploaded snapshot, or none any more.
pub fn keep_upload(path: &Path, upload: Option<&[u8]>) -> Result<(), KeptError> {
    let region = disk::ephemeral(path)?.ok_or(KeptError::NoPartition)?;
    let block = upload.map_or_else(|| vec![0; 56], |bytes| block(1, bytes));
    if UPLOAD + block.len() as u64 > region.bytes {
        return Err(KeptError::Full);
    }
    let failed = |source| KeptError::Io { path: path.to_owned(), source };
    region.file.write_all_at(&block, region.start + UPLOAD).map_err(failed)
}

/// The uploaded snapshot, if there is one.
pub fn kept_upload(path: &Path) -> Result<Option<Vec<u8>>, KeptError> {
    let Some(region) = disk::ephemeral(path)? else { return Ok(None) };
    Ok(read_block(&region, path, UPLOAD)?.map(|(_, bytes)| bytes))
}

/// A disk in memory: what tests keep when a member stops.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Lines>>);

/// A base and the lines behind it.
type Lines = (Vec<u8>, Vec<Vec<u8>>);

impl Memory {
    fn held(&self) -> std::sync::MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The member whose data it holds.
    pub fn read(&self) -> Option<Replica> {
        let (base, lines) = self.held().clone();
        Replica::load(&base, &lines, Box::new(self.clone()))
    }
}

impl Disk for Memory {
    fn base(&mut self, bytes: &[u8]) -> Result<(), KeptError> {
        *self.held() = (bytes.to_vec(), Vec::new());
        Ok(())
    }

    fn append(&mut self, lines: &[Vec<u8>]) -> Result<(), KeptError> {
        self.held().1.extend_from_slice(lines);
        Ok(())
    }

    fn written(&self) -> (u64, u64) {
        let held = self.held();
        (held.0.len() as u64, held.1.iter().map(Vec::len).sum::<usize>() as u64)
    }
}
