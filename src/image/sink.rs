//! A disk's content on its way straight into a volume on a node.
//!
//! Purpose: the stream that a receiver on the node takes, the receiver itself, and its answer. Must not know: how the
//! stream gets there, who allocates the volume.
//!
//! # The receiver
//!
//! `perl -e '…' recast-receive 2 PATH NAME BYTES holes|zeros FROM`: a Perl script of what every Proxmox VE node has (PVE
//! is Perl itself), handed over in the command, so that nothing is installed. PATH is what `pvesm path` said of the volume
//! that was just allocated, NAME the volume's own name, `vm-101-recast-<run>`, which nothing else has. It refuses (exit
//! code 2) any path in which that name is not a whole component, and one that is no file or block device, is mounted, in
//! use, or smaller than the disk. With `zeros`, everything between the extents is zeroed as well: a new thick LVM volume
//! holds what was there before. With `holes` the volume is new and reads as zeros. FROM is 0, or an offset that an earlier
//! receiver of the same volume told: everything before it is there.
//!
//! # What goes in, all numbers little-endian
//!
//! | | |
//! | --- | --- |
//! | head | `RECAST\0\x01`, u64 size of the disk |
//! | each extent, in ascending order | u64 offset (a multiple of 4096), u32 length (1 to 1 MiB), that many bytes |
//! | each extent that ends at FROM or before | u64 offset, u32 length with its highest bit set, no bytes |
//! | end | u64 number of extents, u32 0 |
//!
//! The end is sent only after the image's file was verified to its last byte. Without it the receiver ends with exit code
//! 3 and says nothing more. Extents may be written any number of times.
//!
//! # What comes out
//!
//! `recast-receive 2 at OFFSET BYTES`, every 32 MiB or so, when everything before OFFSET is on the disk (`fsync`), which
//! holds BYTES of content; and at the end
//! `recast-receive 2 stored EXTENTS BYTES DIGEST`, after `fsync`: all extents, those of earlier receivers too, were read
//! back from the disk, and the digest is the image's content digest (see `walker`) if and only if it is the same.

#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;

use bytes::Bytes;

use super::fanout::{Chunks, Fanout, GivenUp};
use super::qcow2::Qcow2Error;
use super::walker::{Content, Limits, walk};
use crate::types::Sha256;

/// The receiver.
const SCRIPT: &str = include_str!("../../templates/receive.pl");

/// The length of a record whose bytes are on the disk already.
const KEPT: u32 = 1 << 31;

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
    /// How much of the disk is there already.
    pub from: u64,
}

/// The command that receives a disk of this size.
pub fn receiver(to: Destination<'_>, content: &Content) -> String {
    let rest = match to.unwritten {
        Unwritten::Zeros => "holes",
        Unwritten::Garbage => "zeros",
    };
    let Destination { path, name, from, .. } = to;
    format!("perl -e '{SCRIPT}' recast-receive 2 {path} {name} {} {rest} {from}", content.disk_bytes)
}

/// How far a receiver says that it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// Everything before this offset is on the disk.
    pub offset: u64,
    /// So many bytes of content are.
    pub bytes: u64,
}

impl Settled {
    /// What the receiver said last; nothing where it said nothing.
    pub fn parse(answer: &str) -> Self {
        // A line that was cut off is none.
        let whole = answer.rfind('\n').map_or("", |end| &answer[..end]);
        let mut told = whole.lines().filter_map(|line| {
            let (offset, bytes) = line.strip_prefix("recast-receive 2 at ")?.split_once(' ')?;
            Some(Self { offset: offset.parse().ok()?, bytes: bytes.parse().ok()? })
        });
        told.next_back().unwrap_or_default()
    }
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
    /// Understands the receiver's last line; none when it is something else.
    pub fn parse(answer: &str) -> Option<Self> {
        let last = answer.strip_suffix('\n')?.rsplit('\n').next()?;
        let mut words = last.strip_prefix("recast-receive 2 stored ")?.split(' ');
        let _extents: u64 = words.next()?.parse().ok()?;
        let stored = Self { bytes: words.next()?.parse().ok()?, sha256: words.next()?.parse().ok()? };
        words.next().is_none().then_some(stored)
    }

    /// Whether it is the whole image.
    pub fn is(&self, content: &Content) -> bool {
        self.bytes == content.data_bytes && self.sha256 == content.sha256
    }
}

/// The receiver's stream of the image at `path`, for as many as take it at once. It has to be the image that was
/// inspected: otherwise reading fails before the end was sent.
pub fn extents(path: &Path, expected: Content, limits: Limits, takers: usize) -> Fanout {
    let path = path.to_owned();
    Fanout::new(takers, move |each| {
        let mut given_up = false;
        let emitted = emit(&path, expected, limits, |chunk| {
            each(chunk).map_err(|GivenUp| {
                given_up = true;
                Qcow2Error::GivenUp
            })
        });
        if given_up { Ok(()) } else { emitted.map_err(io::Error::other) }
    })
}

/// What one receiver reads. Decoding runs on a thread of its own, a few MiB ahead of whoever reads.
#[derive(Debug)]
pub struct ExtentStream {
    chunks: Chunks,
    current: Bytes,
    from: u64,
    begun: bool,
    gone: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl ExtentStream {
    /// A receiver's own reading; what lies before `from` is there already.
    pub fn of(fanout: &Fanout, from: u64) -> io::Result<Self> {
        let chunks = fanout.join()?;
        Ok(Self { chunks, current: Bytes::new(), from, begun: false, gone: std::sync::Arc::default() })
    }

    /// How many bytes of the disk's content went by, those that were there already included.
    pub fn gone(&self) -> std::sync::Arc<std::sync::atomic::AtomicU64> {
        self.gone.clone()
    }

    /// A record as this receiver is to get it.
    fn cut(&mut self, chunk: Bytes) -> Bytes {
        // The first chunk is the head, each other one a record.
        if !std::mem::replace(&mut self.begun, true) || chunk.len() <= 12 {
            return chunk;
        }
        let length = chunk.len() as u64 - 12;
        self.gone.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
        let offset = chunk.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        if offset + length > self.from {
            return chunk;
        }
        let mut kept = chunk[..8].to_vec();
        kept.extend_from_slice(&(KEPT | u32::try_from(length).unwrap_or(0)).to_le_bytes());
        kept.into()
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
            match self.chunks.next_chunk()? {
                Some(chunk) => self.current = self.cut(chunk),
                None => return Ok(0),
            }
        }
        let piece = self.current.split_to(buffer.len().min(self.current.len()));
        buffer[..piece.len()].copy_from_slice(&piece);
        Ok(piece.len())
    }
}
