//! Reads the content of a qcow2 image in the order of the disk.
//!
//! Purpose: the factory's `.qcow2`, which a node can fetch itself, is read here once to know what is in it. Reads what
//! `qemu-img convert -O qcow2` writes: uncompressed clusters, nothing behind or beside the file. What is more than that
//! is refused by name. A qcow2 has no checks of its own: only a digest of the file proves it.
//!
//! The format: QEMU, docs/interop/qcow2.rst.

use std::io;

use super::super::input::Input;

/// Offsets in table entries.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const READS_AS_ZERO: u64 = 1;
/// Entries of the first table: enough for 32 GiB in clusters of 512 bytes, more is hostile.
const MOST_TABLES: u64 = 1 << 20;

/// Why an image is not read.
#[derive(Debug, thiserror::Error)]
pub(in crate::image) enum ReadError {
    /// The file could not be read.
    #[error("could not read it")]
    Read(#[source] io::Error),
    /// It contradicts itself.
    #[error("{0}")]
    Damaged(&'static str),
    /// It is more than what is read.
    #[error("{0}")]
    Refused(&'static str),
}

/// A qcow2 file and where in its disk the reader is.
pub(in crate::image) struct Qcow2Reader {
    input: Input,
    cluster: u64,
    disk_bytes: u64,
    tables: Vec<u64>,
    /// The table that is open, with its number.
    open: Option<(usize, Vec<u64>)>,
    at: u64,
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

impl Qcow2Reader {
    /// Reads header and first table.
    pub(in crate::image) fn open(input: Input, limit: u64) -> Result<Self, ReadError> {
        let mut header = [0; 104];
        let read = input.fill_at(&mut header, 0).map_err(ReadError::Read)?;
        if read < 72 {
            return Err(ReadError::Damaged("it ends within its header"));
        }
        let version = number(&header[4..8]);
        if !matches!(version, 2 | 3) || (version == 3 && read < 104) {
            return Err(ReadError::Refused("its version is not known"));
        }
        let bits = number(&header[20..24]);
        if !(9..=21).contains(&bits) {
            return Err(ReadError::Damaged("its cluster size is none"));
        }
        if number(&header[8..16]) != 0 {
            return Err(ReadError::Refused("it has a backing file"));
        }
        if number(&header[32..36]) != 0 {
            return Err(ReadError::Refused("it is encrypted"));
        }
        // Dirty, corrupt, an external data file, another compression, extended tables.
        if version == 3 && number(&header[72..80]) != 0 {
            return Err(ReadError::Refused("it uses features beyond a plain image"));
        }
        let (cluster, disk_bytes) = (1 << bits, number(&header[24..32]));
        if disk_bytes > limit {
            return Err(ReadError::Refused("its disk is larger than allowed"));
        }
        let per_table = cluster / 8;
        let needed = disk_bytes.div_ceil(cluster).div_ceil(per_table);
        let (entries, at) = (number(&header[36..40]), number(&header[40..48]));
        if entries < needed || needed > MOST_TABLES || !at.is_multiple_of(cluster) || at == 0 {
            return Err(ReadError::Damaged("its first table does not cover its disk"));
        }
        let mut reader = Self { input, cluster, disk_bytes, tables: Vec::new(), open: None, at: 0 };
        reader.tables = reader.table(at, needed)?;
        Ok(reader)
    }

    fn table(&self, at: u64, entries: u64) -> Result<Vec<u64>, ReadError> {
        let mut bytes = vec![0; usize::try_from(entries * 8).unwrap_or(0)];
        if self.input.fill_at(&mut bytes, at).map_err(ReadError::Read)? < bytes.len() {
            return Err(ReadError::Damaged("a table lies beyond its end"));
        }
        Ok(bytes.chunks_exact(8).map(number).collect())
    }

    /// Where the cluster of the disk that is read next lies in the file; none when it is zeros.
    fn place(&mut self) -> Result<Option<u64>, ReadError> {
        let index = self.at / self.cluster;
        let per_table = self.cluster / 8;
        let split = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let (table, slot) = (split(index / per_table), split(index % per_table));
        let offset = self.tables.get(table).copied().unwrap_or(0) & OFFSET;
        if offset == 0 {
            return Ok(None);
        }
        if self.open.as_ref().is_none_or(|(open, _)| *open != table) {
            if !offset.is_multiple_of(self.cluster) {
                return Err(ReadError::Damaged("a table is not where clusters are"));
            }
            self.open = Some((table, self.table(offset, per_table)?));
        }
        let entry = self.open.as_ref().and_then(|(_, entries)| entries.get(slot).copied()).unwrap_or(0);
        if entry & COMPRESSED != 0 {
            return Err(ReadError::Refused("it has compressed clusters"));
        }
        match entry & OFFSET {
            _ if entry & READS_AS_ZERO != 0 => Ok(None),
            0 => Ok(None),
            offset if !offset.is_multiple_of(self.cluster) => {
                Err(ReadError::Damaged("a cluster is not where clusters are"))
            }
            offset => Ok(Some(offset)),
        }
    }

    /// How many bytes from here on are known to be zeros, whole clusters; they are skipped.
    pub(in crate::image) fn zeros(&mut self) -> Result<u64, ReadError> {
        let from = self.at;
        while self.at < self.disk_bytes
            && self.at.is_multiple_of(self.cluster)
            && self.disk_bytes - self.at >= self.cluster
            && self.place()?.is_none()
        {
            self.at += self.cluster;
        }
        Ok(self.at - from)
    }

    /// Reads into `out` and says how many bytes; 0 at the end of the disk.
    pub(in crate::image) fn read(&mut self, out: &mut [u8]) -> Result<usize, ReadError> {
        let within = self.at % self.cluster;
        let left = (self.cluster - within).min(self.disk_bytes - self.at);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let out = &mut out[..length];
        match self.place()? {
            _ if length == 0 => {}
            None => out.fill(0),
            Some(offset) => {
                // QEMU leaves the file's last cluster short where the disk ends in it.
                let read = self.input.fill_at(out, offset + within).map_err(ReadError::Read)?;
                if read < length && (read == 0 || self.at + (length as u64) < self.disk_bytes) {
                    return Err(ReadError::Damaged("a cluster lies beyond its end"));
                }
                out[read..].fill(0);
            }
        }
        self.at += length as u64;
        Ok(length)
    }
}
