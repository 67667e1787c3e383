//! Says whether a disk's partition table is that of a Talos image.
//!
//! Purpose: an image of another system, or a disk whose end is missing, is refused before a template is made of it, not
//! when its first clone fails to boot. Looks at the protective MBR, both GPT headers with their CRC32s and the partition
//! names; never at file systems.
//! Must not know: containers, files.

use super::walker::Extent;

/// How much of the beginning is kept: MBR, header and 128 entries take 34 sectors of 512 bytes, or 6 of 4096.
const HEAD: usize = 64 << 10;

/// The sector sizes a factory image can have (`customization.diskImage.sectorSize`).
const SECTORS: [usize; 2] = [512, 4096];

/// Why a disk isn't taken for a Talos disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTalos {
    /// The first sector is not a boot sector.
    #[error("it has no boot sector")]
    NoBootSector,
    /// No GUID partition table behind it.
    #[error("it has no GUID partition table")]
    NoTable,
    /// A checksum in the partition table doesn't match.
    #[error("its partition table is damaged ({0})")]
    Damaged(&'static str),
    /// The table ends elsewhere than the disk.
    #[error("its partition table was made for {expected} bytes, the disk has {found}")]
    WrongSize {
        /// Where the table says the disk ends.
        expected: u64,
        /// Where it ends.
        found: u64,
    },
    /// The partitions are not those of Talos.
    #[error("its partitions are {}; a Talos image has META and EFI or BOOT", names.join(", "))]
    Partitions {
        /// The names found.
        names: Vec<String>,
    },
}

/// Collects what is needed while the extents go by.
pub(super) struct Probe {
    head: Vec<u8>,
    backup: Option<Backup>,
}

struct Backup {
    offset: u64,
    header: Vec<u8>,
}

impl Probe {
    pub(super) fn new() -> Self {
        Self { head: vec![0; HEAD], backup: None }
    }

    /// Takes the next extent; they come in ascending order.
    pub(super) fn see(&mut self, extent: Extent<'_>) {
        copy(extent, 0, &mut self.head);
        if extent.offset + extent.bytes.len() as u64 > HEAD as u64 {
            if self.backup.is_none() {
                self.backup = Table::find(&self.head)
                    .ok()
                    .map(|table| Backup { offset: table.backup, header: vec![0; table.sector] });
            }
            if let Some(backup) = &mut self.backup {
                copy(extent, backup.offset, &mut backup.header);
            }
        }
    }

    /// The verdict, once all extents of a disk of `disk_bytes` were seen.
    pub(super) fn verdict(&self, disk_bytes: u64) -> Result<(), NotTalos> {
        if self.head[510..512] != [0x55, 0xaa] {
            return Err(NotTalos::NoBootSector);
        }
        let table = Table::find(&self.head)?;
        let expected = table.backup + table.sector as u64;
        if expected != disk_bytes {
            return Err(NotTalos::WrongSize { expected, found: disk_bytes });
        }
        let names = table.partitions(&self.head)?;
        let backup = self.backup.as_ref().ok_or(NotTalos::Damaged("no backup header"))?;
        header_is_sound(&backup.header).map_err(|_| NotTalos::Damaged("backup header"))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        if has("META") && (has("EFI") || has("BOOT")) { Ok(()) } else { Err(NotTalos::Partitions { names }) }
    }
}

/// Copies what an extent has of the disk's range from `from` that is `target.len()` long.
fn copy(extent: Extent<'_>, from: u64, target: &mut [u8]) {
    let end = extent.offset + extent.bytes.len() as u64;
    let (start, stop) = (extent.offset.max(from), end.min(from + target.len() as u64));
    let index = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(usize::MAX);
    if start < stop {
        target[index(start, from)..index(stop, from)]
            .copy_from_slice(&extent.bytes[index(start, extent.offset)..index(stop, extent.offset)]);
    }
}

struct Table {
    sector: usize,
    /// Offset of the backup header in bytes.
    backup: u64,
    entries: std::ops::Range<usize>,
    entry_size: usize,
    entries_crc: u32,
}

impl Table {
    fn find(head: &[u8]) -> Result<Self, NotTalos> {
        let sector = SECTORS.into_iter().find(|sector| head[*sector..].starts_with(b"EFI PART"));
        let sector = sector.ok_or(NotTalos::NoTable)?;
        let header = &head[sector..2 * sector];
        header_is_sound(header)?;
        let damaged = NotTalos::Damaged("primary header");
        let bytes = |lba: u64| lba.checked_mul(sector as u64).ok_or_else(|| damaged.clone());
        let (count, entry_size) = (le32(header, 80) as usize, le32(header, 84) as usize);
        let start = usize::try_from(bytes(le64(header, 72))?).map_err(|_| damaged.clone())?;
        let end = count.checked_mul(entry_size).and_then(|length| start.checked_add(length));
        match end {
            Some(end) if entry_size >= 128 && end <= head.len() => Ok(Self {
                sector,
                backup: bytes(le64(header, 32))?,
                entries: start..end,
                entry_size,
                entries_crc: le32(header, 88),
            }),
            _ => Err(damaged),
        }
    }

    fn partitions(&self, head: &[u8]) -> Result<Vec<String>, NotTalos> {
        let entries = &head[self.entries.clone()];
        if crc32fast::hash(entries) != self.entries_crc {
            return Err(NotTalos::Damaged("entries"));
        }
        let used = entries.chunks_exact(self.entry_size).filter(|entry| entry[..16] != [0; 16]);
        Ok(used
            .map(|entry| {
                let units: Vec<u16> =
                    entry[56..128].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
                String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned()
            })
            .collect())
    }
}

fn header_is_sound(header: &[u8]) -> Result<(), NotTalos> {
    let damaged = NotTalos::Damaged("primary header");
    let length = le32(header, 12) as usize;
    if !header.starts_with(b"EFI PART") || !(92..=header.len()).contains(&length) {
        return Err(damaged);
    }
    // The checksum is computed with its own field as zero (UEFI 2.10, 5.3.2).
    let mut plain = header[..length].to_vec();
    plain[16..20].fill(0);
    if crc32fast::hash(&plain) == le32(header, 16) { Ok(()) } else { Err(damaged) }
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A disk of `mib` MiB with these partitions of 1 MiB each and a little data in the first.
    pub(crate) fn disk(mib: usize, names: &[&str]) -> Vec<u8> {
        let mut disk = vec![0; mib << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut entries = vec![0; 128 * 128];
        for (index, name) in names.iter().enumerate() {
            let entry = &mut entries[index * 128..][..128];
            entry[..16].fill(0xa5);
            entry[16..32].fill(u8::try_from(index).unwrap() + 1);
            entry[32..40].copy_from_slice(&(2048 * (index as u64 + 1)).to_le_bytes());
            entry[40..48].copy_from_slice(&(2048 * (index as u64 + 2) - 1).to_le_bytes());
            for (at, unit) in name.encode_utf16().enumerate() {
                entry[56 + 2 * at..][..2].copy_from_slice(&unit.to_le_bytes());
            }
        }
        let last = (disk.len() / 512 - 1) as u64;
        for (mine, other, table) in [(1, last, 2), (last, 1, last - 32)] {
            let mut header = vec![0; 512];
            header[..8].copy_from_slice(b"EFI PART");
            header[8..12].copy_from_slice(&[0, 0, 1, 0]);
            header[12..16].copy_from_slice(&92_u32.to_le_bytes());
            header[24..32].copy_from_slice(&mine.to_le_bytes());
            header[32..40].copy_from_slice(&other.to_le_bytes());
            header[40..48].copy_from_slice(&34_u64.to_le_bytes());
            header[48..56].copy_from_slice(&(last - 33).to_le_bytes());
            header[72..80].copy_from_slice(&table.to_le_bytes());
            header[80..84].copy_from_slice(&128_u32.to_le_bytes());
            header[84..88].copy_from_slice(&128_u32.to_le_bytes());
            header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
            let crc = crc32fast::hash(&header[..92]);
            header[16..20].copy_from_slice(&crc.to_le_bytes());
            let place = |lba: u64| usize::try_from(lba).unwrap() * 512;
            disk[place(mine)..][..512].copy_from_slice(&header);
            disk[place(table)..][..entries.len()].copy_from_slice(&entries);
        }
        for (index, byte) in disk[1 << 20..(1 << 20) + 200_000].iter_mut().enumerate() {
            *byte = u8::try_from(index % 241).unwrap() + 1;
        }
        disk
    }

    fn judge(disk: &[u8]) -> Result<(), NotTalos> {
        let mut probe = Probe::new();
        for (index, bytes) in disk.chunks(4096).enumerate() {
            if bytes.iter().any(|byte| *byte != 0) {
                probe.see(Extent { offset: index as u64 * 4096, bytes });
            }
        }
        probe.verdict(disk.len() as u64)
    }

    #[test]
    fn talos_disks_of_every_bootloader_pass() {
        for names in [&["EFI", "BIOS", "BOOT", "META"][..], &["EFI", "META"]] {
            assert_eq!(judge(&disk(8, names)), Ok(()));
        }
    }

    #[test]
    fn other_disks_are_refused_with_the_reason() {
        let good = disk(8, &["EFI", "META"]);
        let with = |at: usize, value: u8| {
            let mut disk = good.clone();
            disk[at] = value;
            judge(&disk).unwrap_err()
        };
        assert_eq!(with(510, 0), NotTalos::NoBootSector);
        assert_eq!(with(512, 0), NotTalos::NoTable);
        assert_eq!(with(512 + 60, 9), NotTalos::Damaged("primary header"));
        assert_eq!(with(1024 + 56, b'X'), NotTalos::Damaged("entries"));
        assert_eq!(with(good.len() - 512, 0), NotTalos::Damaged("backup header"));
        assert!(matches!(judge(&good[..7 << 20]), Err(NotTalos::WrongSize { .. })));
        assert_eq!(
            judge(&disk(8, &["EFI System", "root"])),
            Err(NotTalos::Partitions { names: vec!["EFI System".to_owned(), "root".to_owned()] })
        );
    }
}
