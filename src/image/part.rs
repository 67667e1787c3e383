//! A download that isn't whole yet, and the right to work on it.
//!
//! Purpose: bytes survive a cut, a crash and a restart of the machine; two processes never write the same file.
//! Must not know: networks.
//!
//! Beside `<key>.part` lies `<key>.json` with what is known of the whole, written before the first byte, and `<key>.lock`,
//! which is locked for as long as a [`Part`] lives and never deleted (deleting it would let two processes in).

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::input::Growth;
use super::source::FetchError;
use crate::types::Sha256;

/// How often a lock that another process holds is tried.
const LOCK_POLL: Duration = Duration::from_millis(100);

/// What is known of the whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) total: Option<u64>,
    pub(super) etag: Option<String>,
}

/// The right to work on one download; ends when dropped.
pub(super) struct Lock {
    _file: File,
}

/// Waits for the right to work on the download `key` in `folder`.
pub(super) async fn lock(folder: &Path, key: &str) -> Result<Lock, FetchError> {
    fs::create_dir_all(folder).map_err(failed("create", folder))?;
    let path = folder.join(format!("{key}.lock"));
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open", &path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
    }
}

/// A download that isn't whole yet.
pub(super) struct Part {
    path: PathBuf,
    known_path: PathBuf,
    file: File,
    digest: sha2::Sha256,
    bytes: u64,
    known: Known,
    growth: Arc<Growth>,
    _lock: Lock,
}

impl Drop for Part {
    fn drop(&mut self) {
        // Whoever decodes what came so far must not wait for ever.
        self.growth.void();
    }
}

impl Part {
    /// Takes up what is there, hashing it. Blocking.
    pub(super) fn open(folder: &Path, key: &str, lock: Lock) -> Result<Self, FetchError> {
        let path = folder.join(format!("{key}.part"));
        let known_path = folder.join(format!("{key}.json"));
        let known = fs::read(&known_path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        let mut digest = sha2::Sha256::new();
        let mut bytes = 0;
        if known.is_some() {
            bytes = hash(&mut file, &mut digest).map_err(failed("read", &path))?;
        }
        let growth = Arc::new(Growth::default());
        growth.reach(bytes);
        let known = known.unwrap_or_default();
        let mut part = Self { path, known_path, file, digest, bytes, known, growth, _lock: lock };
        if part.known.total.is_some_and(|total| part.bytes > total) || part.bytes == 0 {
            part.restart(Known::default())?;
        }
        Ok(part)
    }

    /// How many bytes are here.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is known of the whole.
    pub(super) fn known(&self) -> &Known {
        &self.known
    }

    /// How far it has come, for who reads it meanwhile.
    pub(super) fn growth(&self) -> Arc<Growth> {
        self.growth.clone()
    }

    /// That was all of it.
    pub(super) fn finish(&self) {
        self.growth.finish();
    }

    /// Begins anew.
    pub(super) fn restart(&mut self, known: Known) -> Result<(), FetchError> {
        if self.bytes > 0 {
            self.growth.void();
            self.growth = Arc::default();
        }
        self.file.set_len(0).map_err(failed("empty", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed("empty", &self.path))?;
        self.digest = sha2::Sha256::new();
        self.bytes = 0;
        self.known = known;
        let text = serde_json::to_vec(&self.known).unwrap_or_default();
        fs::write(&self.known_path, text).map_err(failed("write", &self.known_path))
    }

    /// Appends chunks until there are no more. Blocking; the chunks come from an async task.
    pub(super) fn append(mut self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Self, FetchError> {
        while let Some(chunk) = chunks.blocking_recv() {
            self.file.write_all(&chunk).map_err(failed("write", &self.path))?;
            self.digest.update(&chunk);
            self.bytes += chunk.len() as u64;
            self.growth.reach(self.bytes);
        }
        Ok(self)
    }

    /// The digest of what is here.
    pub(super) fn sha256(&self) -> Sha256 {
        Sha256(self.digest.clone().finalize().into())
    }

    /// Where it lies until it is published.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it visible under its final name, which is the digest of its bytes. Blocking. It is not forced to the disk, which
    /// takes time and gains nothing: every use hashes it first, so that what a power cut took is noticed and fetched again.
    pub(super) fn publish(self, target: &Path) -> Result<(), FetchError> {
        let folder = target.parent().unwrap_or(target);
        fs::create_dir_all(folder).map_err(failed("create", folder))?;
        fs::rename(&self.path, target).map_err(failed("rename", &self.path))?;
        remove(&self.known_path)
    }

    /// Leaves nothing behind.
    pub(super) fn discard(self) -> Result<(), FetchError> {
        remove(&self.path)?;
        remove(&self.known_path)
    }
}

/// Hashes a file from its beginning and says how long it is. Blocking.
pub(super) fn hash(file: &mut File, digest: &mut sha2::Sha256) -> std::io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut bytes = 0;
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(read) => {
                digest.update(&buffer[..read]);
                bytes += read as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove(path: &Path) -> Result<(), FetchError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}

/// An error about a path.
pub(super) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Disk { doing, path, source }
}
