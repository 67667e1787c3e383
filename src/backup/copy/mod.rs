//! Second copies of a snapshot, elsewhere, each read back.
//!
//! Purpose: a copy counts once its bytes came back from where they were put and have the snapshot's own SHA-256, and if
//! it doesn't share a device with the first. Nothing is ever overwritten: a copy that is there already with the same bytes
//! is fine, with others it is an error. Must not know: who needs copies, SSH ([`Shell`] is what a remote one goes through).
//! Start reading at [`copy()`].

mod folder;
mod shell;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::file;
use super::store::{StoreError, disk};
use crate::types::Sha256;

pub use shell::{Local, Ran, Shell, ShellError};

/// The variable that tells a command the snapshot's name.
pub const NAME_VARIABLE: &str = "RECAST_SNAPSHOT";

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// A folder, perhaps of a mounted disk.
    Path(PathBuf),
    /// Commands of this machine's shell: `save` is given the snapshot on its input, `read` writes it to its output. Both
    /// find its name in `RECAST_SNAPSHOT`.
    Command {
        /// Puts it away.
        save: String,
        /// Brings it back; without it a copy can't be proven and doesn't count.
        read: Option<String>,
    },
    /// A folder of another machine.
    Ssh {
        /// `user@host`, as the profile says it.
        host: String,
        /// The folder; relative to the user's home unless absolute.
        path: String,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(folder) => write!(f, "{}", folder.display()),
            Self::Command { save, .. } => write!(f, "`{save}`"),
            Self::Ssh { host, path } => write!(f, "{host}:{path}"),
        }
    }
}

/// Whether a folder on the snapshot's own device is a second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// No: one disk fails once.
    Compare,
    /// Yes: in a rehearsal, whose folders stand for devices.
    AllDiffer,
}

/// Whether a copy is as good as a second place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counts {
    /// It was read back from elsewhere.
    Yes,
    /// It was read back, from the device that the snapshot lies on.
    SameDevice,
    /// There is no way to read it back.
    NotReadBack,
}

/// A copy that was made, or found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Where it is, for people.
    pub place: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of the whole file, as `sha256sum` prints it.
    pub sha256: Sha256,
    /// Whether it counts.
    pub counts: Counts,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The snapshot itself, or the folder of a copy.
    #[error(transparent)]
    Disk(#[from] StoreError),
    /// A command could not be run.
    #[error("could not {doing} the copy at {place}")]
    Shell {
        /// `save` or `read back`.
        doing: &'static str,
        /// Where.
        place: String,
        /// Why.
        #[source]
        source: ShellError,
    },
    /// A command failed.
    #[error("could not {doing} the copy at {place}: the command ended with {status}{}", told(stderr))]
    Failed {
        /// `save` or `read back`.
        doing: &'static str,
        /// Where.
        place: String,
        /// Its exit code.
        status: i32,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// What came back are other bytes.
    #[error(
        "the copy at {place} is not the snapshot: it has {found_bytes} bytes with SHA-256 {found}, the snapshot has {bytes} with {expected}"
    )]
    Differs {
        /// Where.
        place: String,
        /// Bytes of the snapshot.
        bytes: u64,
        /// Its SHA-256.
        expected: Sha256,
        /// Bytes that came back, at most one too many.
        found_bytes: u64,
        /// Their SHA-256.
        found: Sha256,
    },
    /// Nothing leads to the target's machine.
    #[error("there is no connection to {0}")]
    NoShell(String),
    /// A thread of this program ended early.
    #[error("the copy at {0} was given up")]
    GivenUp(String),
}

impl CopyError {
    /// What to do next.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Disk(error) => error.hints(),
            Self::Differs { place, .. } => {
                vec![format!("look at {place} and move away what is there; recast overwrites no copy")]
            }
            _ => Vec::new(),
        }
    }
}

/// What a command said, for the end of a sentence.
fn told(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(" and said: {stderr}") }
}

/// What is being copied: the snapshot with what its copies must be.
struct Original {
    path: PathBuf,
    name: String,
    bytes: u64,
    sha256: Sha256,
}

impl Original {
    fn read(path: &Path) -> Result<Self, StoreError> {
        let mut file = File::open(path).map_err(disk("open", path))?;
        let bytes = file.metadata().map_err(disk("read", path))?.len();
        let sha256 = file::hash(&mut file, bytes).map_err(disk("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { path: path.to_owned(), name, bytes, sha256 })
    }

    /// A sink for what comes back.
    fn sink(&self) -> ReadBack {
        ReadBack { digest: sha2::Sha256::new(), bytes: 0, most: self.bytes }
    }

    /// Whether what came back is this.
    fn compare(&self, place: &str, back: ReadBack, counts: Counts) -> Result<Copied, CopyError> {
        let (found, found_bytes) = (Sha256(back.digest.finalize().into()), back.bytes);
        if (found, found_bytes) == (self.sha256, self.bytes) {
            return Ok(Copied { place: place.to_owned(), bytes: self.bytes, sha256: self.sha256, counts });
        }
        let (expected, bytes) = (self.sha256, self.bytes);
        Err(CopyError::Differs { place: place.to_owned(), bytes, expected, found_bytes, found })
    }
}

/// Hashes what comes back, and has enough once it is longer than it should be.
struct ReadBack {
    digest: sha2::Sha256,
    bytes: u64,
    most: u64,
}

impl ReadBack {
    fn is_too_long(&self) -> bool {
        self.bytes > self.most
    }
}

impl Write for ReadBack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_too_long() {
            return Err(io::Error::other("more comes back than was put there"));
        }
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What to do at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Put a copy there and read it back.
    Make,
    /// Read back the one that is there.
    Find,
}

/// What copies go through.
#[derive(Debug)]
pub struct Way<'a, L, R> {
    /// Whether folders are compared by device.
    pub devices: Devices,
    /// This machine's shell.
    pub local: &'a L,
    /// The target's machine, for [`Target::Ssh`].
    pub remote: Option<&'a R>,
}

/// Copies a finished snapshot to a target under its own name and reads it back. Doing it again is fine.
pub async fn copy<L: Shell, R: Shell>(
    snapshot: &Path,
    target: &Target,
    way: Way<'_, L, R>,
) -> Result<Copied, CopyError> {
    go(snapshot, target, way, Ask::Make).await
}

/// Reads back the copy that is at a target.
pub async fn verify<L: Shell, R: Shell>(
    snapshot: &Path,
    target: &Target,
    way: Way<'_, L, R>,
) -> Result<Copied, CopyError> {
    go(snapshot, target, way, Ask::Find).await
}

async fn go<L: Shell, R: Shell>(
    snapshot: &Path,
    target: &Target,
    way: Way<'_, L, R>,
    ask: Ask,
) -> Result<Copied, CopyError> {
    let given_up = |_| CopyError::GivenUp(target.to_string());
    let path = snapshot.to_owned();
    let original = tokio::task::spawn_blocking(move || Original::read(&path)).await.map_err(given_up)??;
    match target {
        Target::Path(folder) => {
            let (folder, devices) = (folder.clone(), way.devices);
            let copied = tokio::task::spawn_blocking(move || folder::copy(&original, &folder, devices, ask));
            copied.await.map_err(given_up)?
        }
        Target::Command { save, read } => {
            let place = target.to_string();
            let at = shell::At { shell: way.local, place: &place };
            if ask == Ask::Make {
                at.save(&original, save).await?;
            }
            if let Some(read) = read {
                return at.read_back(&original, read).await;
            }
            let Original { bytes, sha256, .. } = original;
            Ok(Copied { place, bytes, sha256, counts: Counts::NotReadBack })
        }
        Target::Ssh { host, path } => {
            let commands = shell::Remote::new(path, &original.name);
            let place = format!("{host}:{}", commands.file());
            let shell = way.remote.ok_or_else(|| CopyError::NoShell(host.clone()))?;
            let at = shell::At { shell, place: &place };
            if ask == Ask::Make {
                at.save(&original, &commands.save()).await?;
            }
            at.read_back(&original, &commands.read()).await
        }
    }
}

#[cfg(test)]
mod tests;
