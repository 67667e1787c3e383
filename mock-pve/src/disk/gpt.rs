//! GUID partition tables (UEFI 2.10, chapter 5): protective MBR, header, entries, backup at the end.

#![expect(clippy::cast_possible_truncation, reason = "sizes of a partition table are small constants")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{DiskError, SECTOR};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const ENTRIES: u64 = 128;
const ENTRY_BYTES: u64 = 128;
const ENTRY_SECTORS: u64 = ENTRIES * ENTRY_BYTES / SECTOR;
const HEADER_BYTES: usize = 92;

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name, as Talos finds it: `EFI`, `BIOS`, `BOOT`, `META`, `STATE`, `EPHEMERAL`.
    pub label: String,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A whole table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The partitions in the table's order.
    pub partitions: Vec<Partition>,
    /// Where the disk ended when the table was written, in bytes. The disk may have grown since.
    pub end: u64,
}

impl Table {
    /// The partition with that label.
    pub fn find(&self, label: &'static str) -> Result<&Partition, DiskError> {
        self.partitions.iter().find(|found| found.label == label).ok_or(DiskError::NoPartition { label })
    }

    /// Writes protective MBR, primary and backup table onto a disk that ends at `self.end`.
    pub(super) fn write(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        let sectors = self.end / SECTOR;
        let put = |sector: u64, bytes: &[u8]| file.write_all_at(bytes, sector * SECTOR).map_err(DiskError::io(path));
        put(0, &protective_mbr(sectors))?;
        let entries = self.entries();
        put(1, &header(sectors, &entries, Copy::Primary))?;
        put(2, &entries)?;
        put(sectors - 1 - ENTRY_SECTORS, &entries)?;
        put(sectors - 1, &header(sectors, &entries, Copy::Backup))
    }

    /// Erases the backup of a table, which is about to be written elsewhere.
    pub(super) fn erase_backup(&self, file: &File, path: &Path) -> Result<(), DiskError> {
        let bytes = (ENTRY_SECTORS + 1) * SECTOR;
        let zeros = vec![0; usize::try_from(bytes).unwrap_or_default()];
        file.write_all_at(&zeros, self.end - bytes).map_err(DiskError::io(path))
    }

    fn entries(&self) -> Vec<u8> {
        let mut entries = Vec::with_capacity((ENTRIES * ENTRY_BYTES) as usize);
        for partition in &self.partitions {
            entries.extend(guid_bytes(type_of(&partition.label)));
            entries.extend(derived_guid(&partition.label));
            entries.extend((partition.start / SECTOR).to_le_bytes());
            entries.extend(((partition.start + partition.bytes) / SECTOR - 1).to_le_bytes());
            entries.extend(0_u64.to_le_bytes());
            let mut name = [0; 72];
            for (at, unit) in name.chunks_exact_mut(2).zip(partition.label.encode_utf16()) {
                at.copy_from_slice(&unit.to_le_bytes());
            }
            entries.extend(name);
        }
        entries.resize((ENTRIES * ENTRY_BYTES) as usize, 0);
        entries
    }

    /// Reads and checks the table of a disk of `bytes`: both copies must be whole and agree.
    pub(super) fn read(file: &File, path: &Path, bytes: u64) -> Result<Self, DiskError> {
        let get = |sector: u64, count: u64| {
            let mut buffer = vec![0; (count * SECTOR) as usize];
            file.read_exact_at(&mut buffer, sector * SECTOR).map_err(DiskError::io(path)).map(|()| buffer)
        };
        if bytes < 34 * SECTOR {
            return Err(DiskError::Short { bytes, needed: 34 * SECTOR });
        }
        let mbr = get(0, 1)?;
        if mbr[510..] != [0x55, 0xaa] || mbr[446 + 4] != 0xee {
            let found = if mbr.iter().all(|byte| *byte == 0) { "all zeros" } else { "something else" };
            return Err(DiskError::NoTable { found });
        }
        let primary = parse_header(&get(1, 1)?, 1).map_err(|why| DiskError::Table { which: "primary", why })?;
        let needed = (primary.other + 1) * SECTOR;
        if needed > bytes {
            return Err(DiskError::Short { bytes, needed });
        }
        let entries = get(primary.entries_at, ENTRY_SECTORS)?;
        check_entries(&primary, &entries).map_err(|why| DiskError::Table { which: "primary", why })?;
        let broken = |why| DiskError::Table { which: "backup", why };
        let backup = parse_header(&get(primary.other, 1)?, primary.other).map_err(broken)?;
        check_entries(&backup, &get(backup.entries_at, ENTRY_SECTORS)?).map_err(broken)?;
        if backup.entries_crc != primary.entries_crc {
            return Err(broken("it differs from the primary".to_owned()));
        }
        Ok(Self { partitions: parse_entries(&entries), end: needed })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Copy {
    Primary,
    Backup,
}

struct Header {
    other: u64,
    entries_at: u64,
    entries_crc: u32,
}

fn protective_mbr(sectors: u64) -> [u8; 512] {
    let mut mbr = [0; 512];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    mbr[446..454].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff]);
    mbr[454..458].copy_from_slice(&1_u32.to_le_bytes());
    mbr[458..462].copy_from_slice(&size.to_le_bytes());
    mbr[510..].copy_from_slice(&[0x55, 0xaa]);
    mbr
}

fn header(sectors: u64, entries: &[u8], copy: Copy) -> Vec<u8> {
    let (own, other, entries_at) = match copy {
        Copy::Primary => (1, sectors - 1, 2),
        Copy::Backup => (sectors - 1, 1, sectors - 1 - ENTRY_SECTORS),
    };
    let mut header = Vec::with_capacity(512);
    header.extend(SIGNATURE);
    header.extend(0x0001_0000_u32.to_le_bytes());
    header.extend((HEADER_BYTES as u32).to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    header.extend(0_u32.to_le_bytes());
    for sector in [own, other, 2 + ENTRY_SECTORS, sectors - 2 - ENTRY_SECTORS] {
        header.extend(sector.to_le_bytes());
    }
    header.extend(derived_guid("disk"));
    header.extend(entries_at.to_le_bytes());
    header.extend((ENTRIES as u32).to_le_bytes());
    header.extend((ENTRY_BYTES as u32).to_le_bytes());
    header.extend(crc32fast::hash(entries).to_le_bytes());
    let crc = crc32fast::hash(&header);
    header[16..20].copy_from_slice(&crc.to_le_bytes());
    header.resize(512, 0);
    header
}

fn parse_header(sector: &[u8], at: u64) -> Result<Header, String> {
    if &sector[..8] != SIGNATURE {
        return Err("it doesn't begin with EFI PART".to_owned());
    }
    let mut covered = sector[..HEADER_BYTES].to_vec();
    covered[16..20].fill(0);
    let (found, expected) = (crc32fast::hash(&covered), u32_at(sector, 16));
    if found != expected {
        return Err(format!("its checksum is {found:08x}, not {expected:08x}"));
    }
    if u64_at(sector, 24) != at {
        return Err(format!("it says it lies in sector {}, it lies in {at}", u64_at(sector, 24)));
    }
    Ok(Header { other: u64_at(sector, 32), entries_at: u64_at(sector, 72), entries_crc: u32_at(sector, 88) })
}

fn check_entries(header: &Header, entries: &[u8]) -> Result<(), String> {
    let found = crc32fast::hash(entries);
    if found == header.entries_crc {
        return Ok(());
    }
    Err(format!("the checksum of its entries is {found:08x}, not {:08x}", header.entries_crc))
}

fn parse_entries(entries: &[u8]) -> Vec<Partition> {
    entries
        .chunks_exact(ENTRY_BYTES as usize)
        .filter(|entry| entry[..16].iter().any(|byte| *byte != 0))
        .map(|entry| {
            let name: Vec<u16> = entry[56..]
                .chunks_exact(2)
                .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
                .take_while(|unit| *unit != 0)
                .collect();
            let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
            Partition {
                label: String::from_utf16_lossy(&name),
                start: first.saturating_mul(SECTOR),
                bytes: last.saturating_add(1).saturating_sub(first).saturating_mul(SECTOR),
            }
        })
        .collect()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn type_of(label: &str) -> &'static str {
    match label {
        "EFI" => "c12a7328f81f11d2ba4b00a0c93ec93b",
        "BIOS" => "2168614864496e6f744e656564454649",
        _ => "0fc63daf848347728e793d69d8477de4",
    }
}

/// A GUID as it lies on a disk: its first three groups are little-endian.
fn guid_bytes(hex: &str) -> [u8; 16] {
    let mut guid = [0; 16];
    // The texts above are 32 hex digits.
    let _ = hex::decode_to_slice(hex, &mut guid);
    guid[..4].reverse();
    guid[4..6].reverse();
    guid[6..8].reverse();
    guid
}

/// Talos' imager derives GUIDs from labels, so that images are reproducible; two clones carry the same.
fn derived_guid(label: &str) -> [u8; 16] {
    let digest = Sha256::digest(label.as_bytes());
    let mut guid = [0; 16];
    guid.copy_from_slice(&digest[..16]);
    guid[7] = guid[7] & 0x0f | 0x40;
    guid[8] = guid[8] & 0x3f | 0x80;
    guid
}
