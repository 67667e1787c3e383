//! One recast per cluster at a time.
//!
//! Purpose: a lock file that the kernel releases when its process ends, with a line in it that says who holds it.
//! `--break-lock` is for network file systems whose locks outlive a crashed host.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Whether a lock that someone else holds is taken nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// It is respected.
    No,
    /// It is taken: a person said that its holder is gone.
    Yes,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Someone else works on this cluster.
    #[error("another recast works on this cluster: {holder} (it holds {})", path.display())]
    Held {
        /// What the holder wrote about itself.
        holder: String,
        /// The lock file.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("could not lock {}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The directory it lives in can't be made.
    #[error("could not prepare the state directory")]
    Unusable {
        /// The cause.
        source: Box<super::JournalError>,
    },
}

impl LockError {
    /// What to do next, sentences.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Held { .. } => vec![
                "Wait until it has ended, or stop it with Ctrl-C and `recast resume`.".to_owned(),
                "If its host is gone for good and the lock is on a network file system, add `--break-lock`.".to_owned(),
            ],
            Self::Io { .. } | Self::Unusable { .. } => Vec::new(),
        }
    }
}

/// The lock on a cluster; released when dropped.
#[derive(Debug)]
pub struct ClusterLock {
    file: File,
}

impl ClusterLock {
    /// Takes the lock at `path`, writing `holder` into it: `rebuild, run 2026-11-20T22-31-05, process 4711`.
    pub fn take(path: &Path, holder: &str, taking: Break) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        if taking == Break::Yes {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)
                .map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(path).unwrap_or_default();
                    let holder = holder.lines().next().unwrap_or("it did not say who it is").to_owned();
                    return Err(LockError::Held { holder, path: path.to_owned() });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            // Someone may have broken the lock between opening and locking: then this is no longer the file there.
            let ours = file.metadata().map_err(failed)?;
            let there = fs::metadata(path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                file.set_len(0).and_then(|()| writeln!(file, "{holder}")).map_err(failed)?;
                return Ok(Self { file });
            }
        }
    }
}

impl Drop for ClusterLock {
    fn drop(&mut self) {
        // The file stays: removing it would race with the next holder. Errors change nothing, closing it unlocks.
        let _ = self.file.set_len(0);
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_says_who_holds_it_and_can_be_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = ClusterLock::take(&path, "rebuild, run 1, process 4711", Break::No).unwrap();
        let refusal = ClusterLock::take(&path, "upgrade", Break::No).unwrap_err();
        assert!(refusal.to_string().contains("rebuild, run 1, process 4711"), "{refusal}");
        assert!(!refusal.hints().is_empty());
        let second = ClusterLock::take(&path, "upgrade, run 2", Break::Yes).unwrap();
        drop(first);
        let refusal = ClusterLock::take(&path, "third", Break::No).unwrap_err();
        assert!(refusal.to_string().contains("upgrade, run 2"), "{refusal}");
        drop(second);
        ClusterLock::take(&path, "third", Break::No).unwrap();
    }
}
