//! Where runs live: `<state>/<cluster>/runs/<run-id>/`.
//!
//! Purpose: the layout of the state directory, run ids, and files that are whole or absent. Directories are 0700 and
//! files 0600, as they name machines and addresses.
//! Must not know: what a plan says, nor what a record says, beyond whether a run is over.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::file::{self, JournalError, io_error};
use super::lock::{Break, ClusterLock, LockError};
use super::record::{Entry, Record};
use crate::event::Outcome;
use crate::plan::Plan;
use crate::types::RunId;

/// One cluster's part of the state directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    cluster: PathBuf,
}

impl StateDir {
    /// The part of `cluster` in the state directory `root`. Nothing is created yet.
    pub fn new(root: &Path, cluster: &str) -> Self {
        Self { cluster: root.join(cluster) }
    }

    /// Where the cluster's files are.
    pub fn path(&self) -> &Path {
        &self.cluster
    }

    /// A run's directory, whether it exists or not.
    pub fn run(&self, id: &RunId) -> RunDir {
        RunDir { id: id.clone(), path: self.cluster.join("runs").join(id.as_str()) }
    }

    /// An id for a run that begins `now`, free in this directory. Call it under the cluster's lock.
    pub fn new_run_id(&self, now: Timestamp) -> RunId {
        let start = now.strftime("%Y-%m-%dT%H-%M-%S").to_string();
        let numbered = |number: u32| RunId::new(if number == 1 { start.clone() } else { format!("{start}-{number}") });
        let mut number = 1;
        while self.run(&numbered(number)).path.exists() {
            number += 1;
        }
        numbered(number)
    }

    /// All runs, the newest first.
    pub fn list(&self) -> Result<Vec<RunDir>, JournalError> {
        let path = self.cluster.join("runs");
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error("list", &path)(error)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("list", &path))?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.path().is_dir()
            {
                found.push(RunDir { id: RunId::new(name), path: entry.path() });
            }
        }
        found.sort_by_cached_key(|run| std::cmp::Reverse(age_key(&run.id)));
        Ok(found)
    }

    /// The newest run that isn't done and had begun, unless one that `supersedes` all before it is newer and done. A
    /// damaged journal on the way is an error, not skipped.
    pub fn newest_unfinished(&self, supersedes: impl Fn(&RunDir) -> bool) -> Result<Option<RunDir>, JournalError> {
        for run in self.list()? {
            match run.status()? {
                RunStatus::Unfinished { .. } => return Ok(Some(run)),
                RunStatus::Done if supersedes(&run) => return Ok(None),
                RunStatus::Done | RunStatus::NotBegun => {}
            }
        }
        Ok(None)
    }

    /// The newest run that is done and `supersedes` all before it.
    pub fn newest_done(&self, supersedes: impl Fn(&RunDir) -> bool) -> Result<Option<RunDir>, JournalError> {
        for run in self.list()? {
            if run.status()? == RunStatus::Done && supersedes(&run) {
                return Ok(Some(run));
            }
        }
        Ok(None)
    }

    /// Takes the cluster's lock, to be held as long as a run goes on.
    pub fn lock(&self, holder: &str, taking: Break) -> Result<ClusterLock, LockError> {
        make_dir(&self.cluster).map_err(|error| LockError::Unusable { source: Box::new(error) })?;
        ClusterLock::take(&self.cluster.join("lock"), holder, taking)
    }
}

/// `2026-11-20T22-31-05-10` is younger than `…-05-9`.
fn age_key(id: &RunId) -> (String, u32) {
    let text = id.as_str();
    let (start, number) = text.split_at_checked("2026-11-20T22-31-05".len()).unwrap_or((text, ""));
    (start.to_owned(), number.trim_start_matches('-').parse().unwrap_or(1))
}

/// Whether a run is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// Its journal has no record: nothing was done.
    NotBegun,
    /// There is something left to do. `ended` is how its last stretch ended; `None` when it goes on or was killed.
    Unfinished {
        /// How.
        ended: Option<Outcome>,
    },
    /// Done.
    Done,
}

impl RunStatus {
    /// What these records of one run say.
    pub fn of(records: &[Record]) -> Self {
        if records.is_empty() {
            return Self::NotBegun;
        }
        let ended = records.iter().rev().find_map(|record| match record.entry {
            Entry::Closed { outcome } => Some(Some(outcome)),
            Entry::Cancelled { .. } => Some(Some(Outcome::Cancelled)),
            Entry::Resumed | Entry::Opened { .. } => Some(None),
            _ => None,
        });
        match ended.flatten() {
            Some(Outcome::Done) => Self::Done,
            ended => Self::Unfinished { ended },
        }
    }
}

/// One run's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunDir {
    id: RunId,
    path: PathBuf,
}

impl RunDir {
    /// The run.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `plan.json`.
    pub fn plan_file(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// `journal.jsonl`.
    pub fn journal_file(&self) -> PathBuf {
        self.path.join("journal.jsonl")
    }

    /// The plan as it was saved.
    pub fn plan_bytes(&self) -> Result<Vec<u8>, JournalError> {
        let path = self.plan_file();
        fs::read(&path).map_err(io_error("read", &path))
    }

    /// The plan.
    pub fn plan(&self) -> Result<Plan, JournalError> {
        let unread = |source| JournalError::NoPlan { path: self.plan_file(), source };
        serde_json::from_slice(&self.plan_bytes()?).map_err(unread)
    }

    /// The journal's records; none when the run had not begun.
    pub fn records(&self) -> Result<Vec<Record>, JournalError> {
        match file::read(&self.journal_file()) {
            Err(JournalError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Whether it is over.
    pub fn status(&self) -> Result<RunStatus, JournalError> {
        Ok(RunStatus::of(&self.records()?))
    }

    /// Puts another file into the run's directory (`observed.json`, `report.json`), whole or not at all.
    pub fn save(&self, name: &str, content: &[u8]) -> Result<PathBuf, JournalError> {
        let path = self.path.join(name);
        publish(&path, content)?;
        Ok(path)
    }

    /// A folder in the run's directory, made where it isn't there.
    pub fn folder(&self, name: &str) -> Result<Self, JournalError> {
        let folder = Self { id: self.id.clone(), path: self.path.join(name) };
        folder.make()?;
        Ok(folder)
    }

    /// Creates the directory and those above it; each new one is on disk when this returns.
    pub fn make(&self) -> Result<(), JournalError> {
        make_dir(&self.path)
    }
}

fn make_dir(path: &Path) -> Result<(), JournalError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("create", path))?;
    for parent in missing.iter().filter_map(|dir| dir.parent()) {
        sync_dir(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })?;
    }
    Ok(())
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_dir(path: &Path) -> Result<(), JournalError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync", path))
}

/// Writes a file so that it is there with all its content or not at all, also after a power cut.
pub(super) fn publish(path: &Path, content: &[u8]) -> Result<(), JournalError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io_error("create", &temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(io_error("write", &temporary))?;
    fs::rename(&temporary, path).map_err(io_error("rename to", path))?;
    path.parent().map_or(Ok(()), sync_dir)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn run_ids_are_free_and_sort_by_age() {
        let root = tempfile::tempdir().unwrap();
        let state = StateDir::new(root.path(), "lab");
        assert_eq!(state.list().unwrap(), []);
        let now = at("2026-11-20T22:31:05.7Z");
        let ids: Vec<String> = (0..11)
            .map(|_| {
                let id = state.new_run_id(now);
                state.run(&id).make().unwrap();
                id.as_str().to_owned()
            })
            .collect();
        assert_eq!(&ids[..2], ["2026-11-20T22-31-05", "2026-11-20T22-31-05-2"]);
        let newest: Vec<RunId> = state.list().unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(newest.first().unwrap().as_str(), "2026-11-20T22-31-05-11");
        assert_eq!(newest.last().unwrap().as_str(), "2026-11-20T22-31-05");
        assert_eq!(state.newest_unfinished(|_| true).unwrap(), None, "none of them has begun");
    }

    #[test]
    fn only_the_owner_may_look_into_a_run() {
        let root = tempfile::tempdir().unwrap();
        let run = StateDir::new(root.path(), "lab").run(&RunId::from("2026-11-20T22-31-05"));
        run.make().unwrap();
        let file = run.save("report.json", b"{}").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(run.path()), mode(&file)), (0o700, 0o600));
        assert_eq!(fs::read(file).unwrap(), b"{}");
    }

    #[test]
    fn a_plan_that_is_none_is_told_with_its_file() {
        let root = tempfile::tempdir().unwrap();
        let run = StateDir::new(root.path(), "lab").run(&RunId::from("2026-11-20T22-31-05"));
        run.make().unwrap();
        assert!(matches!(run.plan(), Err(JournalError::Io { .. })), "there is none");
        let file = run.save("plan.json", b"{}").unwrap();
        let error = run.plan().unwrap_err();
        assert_eq!(error.to_string(), format!("{} is not a plan", file.display()));
        assert!(error.hints().iter().any(|hint| hint.contains("original plan.json")));
    }
}
