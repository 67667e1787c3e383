//! The folder that snapshots are kept in.
//!
//! Purpose: a snapshot's name appears only once the file behind it is whole, on disk and proven; a name that exists is
//! never written again; what is thrown away was counted first. Must not know: where the bytes come from, plans.
//! Start reading at [`Store::receive`].
//!
//! While it is received a file is called `<name>.part` and locked: a part that isn't locked is what a crash left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write as _};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tempfile::TempPath;
use tokio::sync::mpsc;

use super::file::append_trailer;
use super::name::{Purpose, SnapshotName};
use super::proof::{Proof, ProofError, prove};
use crate::net::Meter;

const PART: &str = ".part";

/// Chunks between the network and the disk.
const UNDER_WAY: usize = 256;

/// Why a snapshot could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("could not {doing} {}", path.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The disk, or the owner's share of it, is full.
    #[error("no space is left for {}: it got {written} bytes", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// How much of it there was space for.
        written: u64,
        /// As the system says it.
        #[source]
        source: io::Error,
    },
    /// Nothing is overwritten.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Another process writes it.
    #[error("another process is writing {}", path.display())]
    Busy {
        /// The part.
        path: PathBuf,
    },
    /// The sender failed.
    #[error("the snapshot broke off after {received} bytes")]
    Sender {
        /// How much had come.
        received: u64,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// What came is no snapshot that can be relied on; it was thrown away.
    #[error("what was received can't be relied on, and was thrown away")]
    Unproven(#[source] ProofError),
    /// A thread of this program ended early.
    #[error("writing {} was given up", path.display())]
    GivenUp {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    /// What to do next.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Full { path, .. } => {
                let folder = path.parent().unwrap_or(path).display();
                vec![format!("make room in {folder} (`recast snapshot prune`), or set backup.dir to another place")]
            }
            Self::Unproven(proof) => proof.hints(),
            _ => Vec::new(),
        }
    }
}

/// An error about a path; one about space says so.
pub(super) fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| {
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let written = fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or_default();
            return StoreError::Full { path, written, source };
        }
        StoreError::Disk { doing, path, source }
    }
}

/// A snapshot in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, taken apart.
    pub name: SnapshotName,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
}

/// What pruning would take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prunable {
    /// Snapshots, the oldest first.
    pub snapshots: Vec<Listed>,
    /// Parts that a crash left behind.
    pub parts: Vec<PathBuf>,
    /// Snapshots that can't be relied on. They don't count as kept, and are left for a person to look at.
    pub damaged: Vec<Listed>,
}

impl Prunable {
    /// Whether there is nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.parts.is_empty()
    }
}

/// What comes: a snapshot, or a database file that needs a trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    Snapshot,
    Database,
}

/// A folder of snapshots.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The folder, made if it isn't there (0700). An existing one keeps its mode. Blocking, briefly.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        make_folder(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a snapshot of this name lies, or would.
    pub fn path_of(&self, name: &SnapshotName) -> PathBuf {
        self.folder.join(name.to_string())
    }

    /// Takes in a snapshot as etcd's API sends it: written to `.part`, brought to disk, proven, and only then given its
    /// name. What can't be proven is thrown away.
    pub async fn receive<E: Error + Send + Sync + 'static>(
        &self,
        name: &SnapshotName,
        chunks: impl Stream<Item = Result<Bytes, E>>,
        meter: &dyn Meter,
    ) -> Result<(PathBuf, Proof), StoreError> {
        self.take_in(name, chunks, meter, Comes::Snapshot).await
    }

    /// As [`Store::receive`], of etcd's database file itself, which has no trailer: it gets one of ours.
    pub async fn receive_database<E: Error + Send + Sync + 'static>(
        &self,
        name: &SnapshotName,
        chunks: impl Stream<Item = Result<Bytes, E>>,
        meter: &dyn Meter,
    ) -> Result<(PathBuf, Proof), StoreError> {
        self.take_in(name, chunks, meter, Comes::Database).await
    }

    async fn take_in<E: Error + Send + Sync + 'static>(
        &self,
        name: &SnapshotName,
        chunks: impl Stream<Item = Result<Bytes, E>>,
        meter: &dyn Meter,
        comes: Comes,
    ) -> Result<(PathBuf, Proof), StoreError> {
        let path = self.path_of(name);
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists { path });
        }
        let part = Part::create(&path)?;
        let (send, receive) = mpsc::channel(UNDER_WAY);
        // The part goes away with whoever drops it: a cancelled run leaves nothing behind.
        let writing = tokio::task::spawn_blocking(move || part.write(receive));
        let fed = feed(chunks, meter, send).await;
        let given_up = || StoreError::GivenUp { path: path.clone() };
        // The disk's error is the cause where both sides fail.
        let part = writing.await.map_err(|_| given_up())??;
        fed?;
        let target = path.clone();
        let proving = tokio::task::spawn_blocking(move || part.publish(&target, comes));
        let proof = proving.await.map_err(|_| given_up())??;
        Ok((path, proof))
    }

    /// The snapshots, the newest first. Other files are nobody's business. Blocking, briefly.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let mut found = Vec::new();
        for (path, file_name) in self.entries()? {
            let Ok(name) = file_name.parse::<SnapshotName>() else { continue };
            let metadata = fs::symlink_metadata(&path).map_err(disk("read", &path))?;
            if metadata.is_file() {
                found.push(Listed { name, path, bytes: metadata.len() });
            }
        }
        found.sort_by(|a, b| (b.name.taken, &b.path).cmp(&(a.name.taken, &a.path)));
        Ok(found)
    }

    /// What [`Store::prune`] would take away: what is beyond the newest `keep` of each purpose, and not `needed`. Each is
    /// read whole: clusters that share a folder are told apart by what is inside, and what can't be proven neither counts
    /// as kept nor is taken away. Blocking, about a second per 200 MB.
    pub fn prunable(&self, keep: NonZeroU32, needed: &BTreeSet<PathBuf>) -> Result<Prunable, StoreError> {
        let needed: BTreeSet<PathBuf> = needed.iter().map(|path| same(path)).collect();
        let mut found = Prunable::default();
        let mut kept: BTreeMap<(Purpose, Option<String>), u32> = BTreeMap::new();
        for listed in self.list()? {
            let Ok(proof) = prove(&listed.path) else {
                found.damaged.push(listed);
                continue;
            };
            let kept = kept.entry((listed.name.purpose, proof.namespace_uid)).or_default();
            if *kept < keep.get() {
                *kept += 1;
            } else if !needed.contains(&same(&listed.path)) {
                found.snapshots.push(listed);
            }
        }
        found.snapshots.reverse();
        for (path, file_name) in self.entries()? {
            let name = file_name.strip_suffix(PART).map(str::parse::<SnapshotName>);
            if matches!(name, Some(Ok(_))) && is_abandoned(&path)? {
                found.parts.push(path);
            }
        }
        Ok(found)
    }

    /// Takes away what [`Store::prunable`] names; what it took. Blocking.
    pub fn prune(&self, keep: NonZeroU32, needed: &BTreeSet<PathBuf>) -> Result<Prunable, StoreError> {
        let found = self.prunable(keep, needed)?;
        self.remove(&found)?;
        Ok(found)
    }

    /// Takes away exactly these; one that is gone already is fine. Blocking.
    pub fn remove(&self, these: &Prunable) -> Result<(), StoreError> {
        for path in these.snapshots.iter().map(|listed| &listed.path).chain(&these.parts) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk("remove", path)(error)),
                _ => {}
            }
        }
        sync_folder(&self.folder)
    }

    fn entries(&self) -> Result<Vec<(PathBuf, String)>, StoreError> {
        let failed = || disk("list", &self.folder);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            if let Ok(name) = entry.file_name().into_string() {
                found.push((entry.path(), name));
            }
        }
        found.sort();
        Ok(found)
    }
}

/// Hands the sender's chunks to the writer until either has enough.
async fn feed<E: Error + Send + Sync + 'static>(
    chunks: impl Stream<Item = Result<Bytes, E>>,
    meter: &dyn Meter,
    to: mpsc::Sender<Bytes>,
) -> Result<(), StoreError> {
    tokio::pin!(chunks);
    let mut received = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| StoreError::Sender { received, source: Box::new(error) })?;
        received += chunk.len() as u64;
        meter.add(chunk.len() as u64);
        // A writer that is gone says why itself.
        if to.send(chunk).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// A file that has no name of its own yet; it goes away unless it is published.
pub(super) struct Part {
    path: TempPath,
    file: File,
}

impl Part {
    /// A new, locked file beside its later name, for its owner only. One that a crash left behind is replaced.
    pub(super) fn create(target: &Path) -> Result<Self, StoreError> {
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(PART);
        let path = target.with_file_name(name);
        if path.symlink_metadata().is_ok() {
            if !is_abandoned(&path)? {
                return Err(StoreError::Busy { path });
            }
            fs::remove_file(&path).map_err(disk("remove", &path))?;
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(disk("create", &path))?;
        match file.try_lock() {
            // Some network filesystems have no locks; the name alone keeps others away there.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy { path }),
        }
        let path = TempPath::try_from_path(&path).map_err(disk("create", &path))?;
        Ok(Self { path, file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Writes chunks until there are no more. Blocking; they come from an async task.
    fn write(self, mut chunks: mpsc::Receiver<Bytes>) -> Result<Self, StoreError> {
        let mut to = BufWriter::with_capacity(256 << 10, &self.file);
        while let Some(chunk) = chunks.blocking_recv() {
            to.write_all(&chunk).map_err(disk("write", &self.path))?;
        }
        to.flush().map_err(disk("write", &self.path))?;
        drop(to);
        Ok(self)
    }

    /// Brings it to disk, proves it, gives it its name.
    fn publish(self, target: &Path, comes: Comes) -> Result<Proof, StoreError> {
        self.file.sync_all().map_err(disk("write", &self.path))?;
        if comes == Comes::Database {
            append_trailer(&self.path).map_err(unproven)?;
        }
        let proof = prove(&self.path).map_err(unproven)?;
        self.rename(target)?;
        Ok(proof)
    }

    /// Gives it its name unless that exists, and brings the name to disk.
    pub(super) fn rename(self, target: &Path) -> Result<(), StoreError> {
        let Self { path, file } = self;
        path.persist_noclobber(target).map_err(|error| match error.error.kind() {
            io::ErrorKind::AlreadyExists => StoreError::Exists { path: target.to_owned() },
            _ => disk("rename to", target)(error.error),
        })?;
        drop(file);
        sync_folder(parent(target))
    }
}

/// The disk's own trouble is not the snapshot's.
fn unproven(error: ProofError) -> StoreError {
    match error {
        ProofError::Io { doing, path, source } => disk(doing, &path)(source),
        error => StoreError::Unproven(error),
    }
}

/// Whether nobody holds the lock of a part.
fn is_abandoned(path: &Path) -> Result<bool, StoreError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(disk("open", path)(error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(disk("lock", path)(error)),
    }
}

/// A path in the one spelling that can be compared.
fn same(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes a folder and those above it, for their owner only; new names are on disk when this returns.
pub(super) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    let missing: Vec<&Path> = folder.ancestors().take_while(|it| !it.as_os_str().is_empty() && !it.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(disk("create", folder))?;
    missing.iter().try_for_each(|made| sync_folder(parent(made)))
}

/// Makes the names in a folder survive a power cut.
pub(super) fn sync_folder(folder: &Path) -> Result<(), StoreError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk("write", folder))
}

#[cfg(test)]
mod tests;
