//! The frame around the database: what lies behind it in a snapshot's file.
//!
//! Purpose: tells a snapshot of etcd's API, a database file that recast closed with a trailer of its own, and a bare or
//! cut file apart, by the file alone.
//!
//! - etcd's snapshot API sends the database and behind it the SHA-256 of it: a file of `512 n + 32` bytes
//!   (go.etcd.io/etcd, etcdutl/snapshot).
//! - A database file read from a machine's disk has no trailer. [`append_trailer`] adds one block of 512 bytes that says
//!   so ([`MARK`], zeros behind), then the SHA-256 of everything before it, the block included. The block lies behind the
//!   database's last page, where bbolt keeps free space anyway, so etcd's own restore takes such a file too, with its hash
//!   check on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::Digest as _;

use super::proof::{ProofError, Trailer};
use crate::types::Sha256;

/// How the block begins that marks a trailer of ours.
pub const MARK: &[u8] =
    b"recast: the SHA-256 behind this block was added by recast to a database file read from a machine's disk\n";

/// Bytes of that block, and what the size of every database is a multiple of.
pub const BLOCK: u64 = 512;

/// Bytes of a SHA-256.
const DIGEST: u64 = 32;

/// A snapshot file's parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Bytes in front of the SHA-256: what it covers.
    pub(super) covered: u64,
    /// Bytes of the database, perhaps with free space behind.
    pub(super) database: u64,
    /// The SHA-256 as it is stored.
    pub(super) stored: Sha256,
    /// Whose it is.
    pub(super) trailer: Trailer,
}

/// The parts of the file by its size and its last bytes; nothing is hashed.
pub(super) fn frame(file: &File, bytes: u64, path: &Path) -> Result<Frame, ProofError> {
    if bytes == 0 {
        return Err(ProofError::Empty { path: path.to_owned() });
    }
    if bytes % BLOCK != DIGEST || bytes < BLOCK {
        return Err(ProofError::NoTrailer { path: path.to_owned(), bytes });
    }
    let covered = bytes - DIGEST;
    let mut stored = [0; 32];
    file.read_exact_at(&mut stored, covered).map_err(ProofError::io("read", path))?;
    let mut block = [0; MARK.len()];
    file.read_exact_at(&mut block, covered - BLOCK).map_err(ProofError::io("read", path))?;
    let (trailer, database) = if block == MARK { (Trailer::Ours, covered - BLOCK) } else { (Trailer::Etcd, covered) };
    Ok(Frame { covered, database, stored: Sha256(stored), trailer })
}

/// The SHA-256 of the file's first `bytes` bytes, read in pieces.
pub(super) fn hash(file: &mut File, bytes: u64) -> io::Result<Sha256> {
    file.seek(SeekFrom::Start(0))?;
    let mut digest = sha2::Sha256::new();
    let mut left = bytes;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut buffer[..most]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                digest.update(&buffer[..read]);
                left -= read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Sha256(digest.finalize().into()))
}

/// Closes a database file that was read from a machine's disk with a trailer of ours, so that it can be proven, copied
/// and restored like a snapshot; the SHA-256. On disk when this returns. Blocking. It says nothing about the database:
/// [`prove`](super::prove) does.
pub fn append_trailer(path: &Path) -> Result<Sha256, ProofError> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(ProofError::io("open", path))?;
    let bytes = file.metadata().map_err(ProofError::io("read", path))?.len();
    if bytes == 0 {
        return Err(ProofError::Empty { path: path.to_owned() });
    }
    if bytes % BLOCK != 0 {
        return Err(ProofError::NotADatabase { path: path.to_owned(), bytes });
    }
    let mut block = MARK.to_vec();
    block.resize(usize::try_from(BLOCK).unwrap_or_default(), 0);
    file.seek(SeekFrom::End(0)).and_then(|_| file.write_all(&block)).map_err(ProofError::io("write", path))?;
    let digest = hash(&mut file, bytes + BLOCK).map_err(ProofError::io("read", path))?;
    file.seek(SeekFrom::End(0))
        .and_then(|_| file.write_all(&digest.0))
        .and_then(|()| file.sync_all())
        .map_err(ProofError::io("write", path))?;
    Ok(digest)
}
