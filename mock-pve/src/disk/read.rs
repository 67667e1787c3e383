//! The verdict on a disk, from its bytes alone.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::build::{MAGIC, MARKER_BYTES};
use super::gpt::Table;
use super::slots::{Meta, Slot, parse_meta};
use super::{DiskError, MIB, Marker};

/// A disk that boots.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What the image says about itself.
    pub marker: Marker,
    /// Its partitions.
    pub table: Table,
    /// Size of the disk now, in bytes.
    pub bytes: u64,
    /// What its META says.
    pub meta: Meta,
}

/// Whether a disk has a GUID partition table's protective first sector: the least that makes it look bootable.
pub fn is_partitioned(path: &Path) -> bool {
    let mut sector = [0; 512];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut sector, 0));
    read.is_ok() && sector[510..] == [0x55, 0xaa] && sector[446 + 4] == 0xee
}

/// Whether a disk's first sector is all zeros.
pub fn is_empty(path: &Path) -> bool {
    let mut sector = [0; 512];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut sector, 0));
    read.is_ok() && sector.iter().all(|byte| *byte == 0)
}

/// Reads partition table, marker and data of the disk at `path` and checks every checksum. The disk may be larger than
/// the image it came from.
pub fn read(path: &Path) -> Result<Verified, DiskError> {
    let file = File::open(path).map_err(DiskError::io(path))?;
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    let table = Table::read(&file, path, bytes)?;
    for label in ["EFI", "BIOS", "BOOT", "META"] {
        table.find(label)?;
    }
    let meta = parse_meta(&file, path, table.find("META")?)?;
    let marker = read_slot(&file, path, &table, meta.boot)?;
    boots(&file, path, &marker)?;
    Ok(Verified { marker, table, bytes, meta })
}

/// The entry of what is in a slot.
pub(super) fn read_slot(file: &File, path: &Path, table: &Table, slot: Slot) -> Result<Marker, DiskError> {
    read_marker(file, path, slot.start(table.find("BOOT")?))
}

/// Checks the boot files behind an entry.
pub(super) fn boots(file: &File, path: &Path, marker: &Marker) -> Result<(), DiskError> {
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    let mut digest = Sha256::new();
    let mut buffer = Vec::new();
    for (offset, length) in &marker.extents {
        if *length > 64 * MIB || offset.saturating_add(*length) > bytes {
            return Err(DiskError::Boot { why: format!("a file lies at {offset}, behind the end") });
        }
        buffer.resize(usize::try_from(*length).unwrap_or_default(), 0);
        file.read_exact_at(&mut buffer, *offset).map_err(DiskError::io(path))?;
        digest.update(&buffer);
    }
    let found = hex::encode(digest.finalize());
    if found == marker.sha256 {
        return Ok(());
    }
    Err(DiskError::Data { expected: marker.sha256.clone(), found })
}

fn read_marker(file: &File, path: &Path, at: u64) -> Result<Marker, DiskError> {
    let mut block = vec![0; usize::try_from(MARKER_BYTES).unwrap_or_default()];
    file.read_exact_at(&mut block, at).map_err(DiskError::io(path))?;
    let wrong = |why: &str| DiskError::Boot { why: why.to_owned() };
    let Some(rest) = block.strip_prefix(MAGIC) else {
        let empty = block.iter().all(|byte| *byte == 0);
        return Err(wrong(if empty { "it is all zeros" } else { "there is no boot loader" }));
    };
    let (length, rest) = rest.split_at(4);
    let length = length.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    let (expected, rest) = rest.split_at(32);
    let json = rest.get(..length).ok_or_else(|| wrong("its boot loader entry is cut off"))?;
    if Sha256::digest(json)[..] != *expected {
        return Err(wrong("its boot loader entry is damaged"));
    }
    serde_json::from_slice(json).map_err(|_| wrong("its boot loader entry makes no sense"))
}
