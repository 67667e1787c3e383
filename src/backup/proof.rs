//! The proof of a backup: a snapshot's file read whole and understood.
//!
//! Purpose: [`prove`] is the one judge of snapshots, for those just received, those copied back and those named by
//! people. Its order: the frame, the SHA-256 over every byte, every page of the database, every record of etcd's store.
//! Must not know: where a snapshot came from.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::bolt::Database;
use super::etcd::{Contents, EtcdError, Reader};
use super::file::{frame, hash};
use crate::types::Sha256;

/// What a finished snapshot file was found to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// The SHA-256 in the file's trailer, recomputed: of everything before it.
    pub sha256: Sha256,
    /// Bytes of the file, trailer included.
    pub bytes: u64,
    /// The store's revision.
    pub revision: i64,
    /// Keys that live at the revision.
    pub keys: u64,
    /// The last raft entry that was applied.
    pub consistent_index: Option<u64>,
    /// Its term; since etcd 3.5.
    pub term: Option<u64>,
    /// UID of the namespace kube-system: whose data these are.
    pub namespace_uid: Option<String>,
    /// The cluster's etcd version, `3.5.0`.
    pub cluster_version: Option<String>,
    /// Who made the trailer.
    pub trailer: Trailer,
}

/// Who made the SHA-256 at the end of a snapshot's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trailer {
    /// etcd's snapshot API.
    Etcd,
    /// recast, behind a database file that was read from a machine's disk.
    Ours,
}

/// A proof, and what is worth knowing beyond it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// The proof.
    pub proof: Proof,
    /// Everything that was found.
    pub contents: Contents,
    /// Bytes of the database's pages.
    pub database_bytes: u64,
}

/// Why a file is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The file can't be read or written.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{} is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Its end is no SHA-256.
    #[error("{} ({bytes} bytes) does not end with a SHA-256: it was cut off, or is a bare copy of a database file", path.display())]
    NoTrailer {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// No database file has this size.
    #[error("{} ({bytes} bytes) is no database file: those have whole pages", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The SHA-256 of its bytes is another.
    #[error("{} is damaged: its SHA-256 is {computed}, and its trailer says {stored}", path.display())]
    Altered {
        /// The file.
        path: PathBuf,
        /// As stored.
        stored: Sha256,
        /// As computed.
        computed: Sha256,
    },
    /// The hash is right and the database is not.
    #[error("{} holds no sound etcd database", path.display())]
    Unsound {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: EtcdError,
    },
}

impl ProofError {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    /// What to do next.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { .. } => Vec::new(),
            Self::Unsound { source: EtcdError::Foreign(_), .. } => vec!["is this the right file?".to_owned()],
            _ => vec!["take another snapshot, or use another copy; this one can't be relied on".to_owned()],
        }
    }
}

/// Reads a finished snapshot file whole. Blocking; about a second per 200 MB.
pub fn prove(path: &Path) -> Result<Proof, ProofError> {
    examine(path).map(|examined| examined.proof)
}

/// As [`prove`], with everything that was found.
pub fn examine(path: &Path) -> Result<Examined, ProofError> {
    let mut file = File::open(path).map_err(ProofError::io("open", path))?;
    let metadata = file.metadata().map_err(ProofError::io("read", path))?;
    if !metadata.is_file() {
        return Err(ProofError::io("read", path)(io::Error::other("it is no regular file")));
    }
    let bytes = metadata.len();
    let frame = frame(&file, bytes, path)?;
    let computed = hash(&mut file, frame.covered).map_err(ProofError::io("read", path))?;
    if computed != frame.stored {
        return Err(ProofError::Altered { path: path.to_owned(), stored: frame.stored, computed });
    }
    let (contents, database_bytes) =
        read_database(file, frame.database).map_err(|source| ProofError::Unsound { path: path.to_owned(), source })?;
    let proof = Proof {
        sha256: computed,
        bytes,
        revision: contents.revision,
        keys: contents.keys,
        consistent_index: contents.consistent_index,
        term: contents.term,
        namespace_uid: contents.namespace_uid.clone(),
        cluster_version: contents.cluster_version.clone(),
        trailer: frame.trailer,
    };
    Ok(Examined { proof, contents, database_bytes })
}

/// Reads a bare database file, without a trailer, as far as its structure can tell. Blocking.
pub fn examine_database(path: &Path) -> Result<Contents, ProofError> {
    let file = File::open(path).map_err(ProofError::io("open", path))?;
    let bytes = file.metadata().map_err(ProofError::io("read", path))?.len();
    let found = read_database(file, bytes).map_err(|source| ProofError::Unsound { path: path.to_owned(), source })?;
    Ok(found.0)
}

fn read_database(file: File, bytes: u64) -> Result<(Contents, u64), EtcdError> {
    let database = Database::open(file, bytes)?;
    let mut reader = Reader::default();
    database.walk(&mut reader)?;
    Ok((reader.finish()?, database.bytes()))
}

#[cfg(test)]
mod tests;
