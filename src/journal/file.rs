//! The journal on disk: JSON lines, each on disk before the next thing happens.
//!
//! Purpose: append and fsync; one process per run; a torn last line is what a power cut leaves and is cut off, any
//! other damage is an error that names line and file.
//! Must not know: what a record means beyond the fold's verdict. Start reading at [`Journal::append`].

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;

use super::downtime::Downtime;
use super::record::{Entry, JournalFormat, Record};
use super::runs::{self, RunDir};
use super::state::{IllegalTransition, Life, RunState};
use crate::event::Outcome;
use crate::plan::Phase;
use crate::types::{RunId, Sha256};

/// Why a journal can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system said no.
    #[error("could not {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Another process runs this run.
    #[error("run {run} is being run by another process (it holds {})", path.display())]
    Locked {
        /// The run.
        run: RunId,
        /// The journal.
        path: PathBuf,
    },
    /// A line that isn't a record.
    #[error("{} is damaged in line {line}", path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A line is missing or doubled.
    #[error("{} is damaged in line {line}: record {found} where {expected} was due", path.display())]
    OutOfOrder {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The number that the line has.
        found: u64,
        /// The number that was due.
        expected: u64,
    },
    /// A record that can't follow those before it.
    #[error("{} makes no sense in line {line}", path.display())]
    Illegal {
        /// The journal.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Why not.
        source: IllegalTransition,
    },
    /// It was written by a newer program.
    #[error("{} has journal format {found}, this program reads up to {known}", path.display())]
    Newer {
        /// The journal.
        path: PathBuf,
        /// The format it has.
        found: JournalFormat,
        /// The newest that can be read.
        known: JournalFormat,
    },
    /// The plan beside it is not the one that it was opened with.
    #[error("{} belongs to plan {journaled}, but plan.json beside it is {found}", path.display())]
    OtherPlan {
        /// The journal.
        path: PathBuf,
        /// Digest in the first record.
        journaled: Sha256,
        /// Digest of the file.
        found: Sha256,
    },
    /// The plan beside it can't be read.
    #[error("{} is not a plan", path.display())]
    NoPlan {
        /// The plan's file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is nothing left to do.
    #[error("run {run} is done")]
    AlreadyDone {
        /// The run.
        run: RunId,
    },
}

impl JournalError {
    /// What to do next, sentences.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Locked { run, .. } => {
                vec![format!("Wait until that process has ended, or stop it with Ctrl-C; then `recast resume {run}`.")]
            }
            Self::Newer { .. } => vec!["Go on with the recast version that began the run, or a newer one.".to_owned()],
            Self::Damaged { path, .. } | Self::OutOfOrder { path, .. } | Self::Illegal { path, .. } => vec![format!(
                "Nothing is resumed from a damaged journal. Restore {} from a backup, or begin a new run: it looks at \
                 the cluster anew.",
                path.display()
            )],
            Self::OtherPlan { .. } => vec!["Put the run's original plan.json back.".to_owned()],
            Self::NoPlan { .. } => vec![
                "Put the run's original plan.json back; what a newer recast began, go on with that one.".to_owned(),
            ],
            Self::Io { .. } | Self::AlreadyDone { .. } => Vec::new(),
        }
    }
}

pub(super) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    let path = path.to_owned();
    move |source| JournalError::Io { doing, path, source }
}

/// Where records are kept. What is appended is safe from a crash when `append` returns.
pub trait Log: Send {
    /// Adds a record.
    fn append(&mut self, record: &Record) -> io::Result<()>;
}

/// Records in memory, for tests and for work that is not worth a run directory. Clones share the records.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Vec<Record>>>);

impl Memory {
    /// All records so far.
    pub fn records(&self) -> Vec<Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Log for Memory {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.clone());
        Ok(())
    }
}

struct FileLog {
    /// Holds the lock as long as it is open.
    file: File,
}

impl Log for FileLog {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.file.sync_data()
    }
}

/// Who opens a journal, and for what.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The run.
    pub run: RunId,
    /// This program's version.
    pub tool: String,
    /// Now.
    pub at: Timestamp,
}

/// A run's journal with the state it adds up to.
pub struct Journal {
    path: PathBuf,
    log: Box<dyn Log>,
    next: u64,
    state: RunState,
    downtime: Downtime,
    resumed: bool,
}

impl Journal {
    /// Begins a run: makes its directory, puts the plan there for good, then opens the journal with the plan's digest
    /// as its first record. Nothing else of the run may happen before this has returned.
    pub fn create(dir: &RunDir, plan: &[u8], phases: &[Phase], opening: &Opening) -> Result<Self, JournalError> {
        dir.make()?;
        runs::publish(&dir.plan_file(), plan)?;
        let path = dir.journal_file();
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("create", &path))?;
        lock(&file, &path, &opening.run)?;
        runs::sync_dir(dir.path())?;
        Self::over(path, Box::new(FileLog { file }), Vec::new(), Sha256::of(plan), phases, opening)
    }

    /// Takes a run up again: locks it, checks that the plan is the one it was opened with, cuts off a torn last line,
    /// and writes `resumed`. `plan` is the content of [`RunDir::plan_file`].
    pub fn resume(dir: &RunDir, plan: &[u8], phases: &[Phase], opening: &Opening) -> Result<Self, JournalError> {
        let path = dir.journal_file();
        // A process killed between plan and journal leaves no journal: nothing had happened, so it begins now.
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(io_error("open", &path))?;
        lock(&file, &path, &opening.run)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut file, &mut bytes).map_err(io_error("read", &path))?;
        let content = parse(&path, &bytes)?;
        match content.tail {
            Tail::Whole => {}
            Tail::Torn { keep } => {
                tracing::warn!(path = %path.display(), keep, of = bytes.len(), "cut a torn last line off the journal");
                file.set_len(keep).map_err(io_error("truncate", &path))?;
                file.seek(SeekFrom::End(0)).map_err(io_error("truncate", &path))?;
            }
            Tail::Unended => file.write_all(b"\n").map_err(io_error("write", &path))?,
        }
        file.sync_all().map_err(io_error("sync", &path))?;
        runs::sync_dir(dir.path())?;
        Self::over(path, Box::new(FileLog { file }), content.records, Sha256::of(plan), phases, opening)
    }

    /// A run without a directory.
    pub fn in_memory(phases: &[Phase], opening: &Opening) -> Result<Self, JournalError> {
        let log = Box::new(Memory::default());
        Self::over(PathBuf::from("(memory)"), log, Vec::new(), Sha256::of(b""), phases, opening)
    }

    /// A journal that continues `records` and adds to `log`, which holds them already; `path` is for messages. Adds
    /// the `opened` or `resumed` record.
    pub fn over(
        path: PathBuf,
        log: Box<dyn Log>,
        records: Vec<Record>,
        plan: Sha256,
        phases: &[Phase],
        opening: &Opening,
    ) -> Result<Self, JournalError> {
        let resumed = !records.is_empty();
        let state = RunState::new(phases);
        let mut journal = Self { path, log, next: 0, state, downtime: Downtime::default(), resumed };
        for record in records {
            journal.replay(&record, plan)?;
        }
        if journal.state.life() == Life::Closed(Outcome::Done) {
            return Err(JournalError::AlreadyDone { run: opening.run.clone() });
        }
        let entry = if resumed {
            Entry::Resumed
        } else {
            let format = JournalFormat::CURRENT;
            Entry::Opened { format, tool: opening.tool.clone(), plan, run: opening.run.clone() }
        };
        journal.append(opening.at, entry)?;
        Ok(journal)
    }

    fn replay(&mut self, record: &Record, found: Sha256) -> Result<(), JournalError> {
        let line = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_add(1);
        if record.seq != self.next {
            let (found, expected) = (record.seq, self.next);
            return Err(JournalError::OutOfOrder { path: self.path.clone(), line, found, expected });
        }
        if let Entry::Opened { plan: journaled, .. } = record.entry
            && journaled != found
        {
            return Err(JournalError::OtherPlan { path: self.path.clone(), journaled, found });
        }
        self.take(record)
    }

    /// Adds an entry. It is on disk when this returns; after an error the journal must not be used further.
    pub fn append(&mut self, at: Timestamp, entry: Entry) -> Result<(), JournalError> {
        let record = Record { seq: self.next, at, entry };
        self.take(&record)?;
        self.log.append(&record).map_err(io_error("append to", &self.path))
    }

    fn take(&mut self, record: &Record) -> Result<(), JournalError> {
        let line = usize::try_from(self.next).unwrap_or(usize::MAX).saturating_add(1);
        self.state.record(&record.entry).map_err(|source| JournalError::Illegal {
            path: self.path.clone(),
            line,
            source,
        })?;
        self.downtime.take(record);
        self.next += 1;
        Ok(())
    }

    /// What all records so far add up to.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// How long the Kubernetes API did not answer so far.
    pub fn downtime(&self) -> Downtime {
        self.downtime
    }

    /// Whether this process took up a run that another one had begun.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }
}

fn lock(file: &File, path: &Path, run: &RunId) -> Result<(), JournalError> {
    file.try_lock().map_err(|refusal| match refusal {
        TryLockError::WouldBlock => JournalError::Locked { run: run.clone(), path: path.to_owned() },
        TryLockError::Error(source) => JournalError::Io { doing: "lock", path: path.to_owned(), source },
    })
}

/// All whole records of a journal, without locking or changing it; for showing a run, perhaps while it goes on.
pub fn read(path: &Path) -> Result<Vec<Record>, JournalError> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    Ok(parse(path, &bytes)?.records)
}

struct Content {
    records: Vec<Record>,
    tail: Tail,
}

enum Tail {
    /// The last line is whole.
    Whole,
    /// The last line is a record, only its newline is missing. It is kept: what it says may have come true.
    Unended,
    /// The last line is the beginning of a record.
    Torn { keep: u64 },
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Content, JournalError> {
    let mut records = Vec::new();
    let mut tail = Tail::Whole;
    let mut at = 0;
    for (index, line) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if index == 0 {
            refuse_newer(path, line)?;
        }
        match (serde_json::from_slice(line), line.ends_with(b"\n")) {
            (Ok(record), ended) => {
                records.push(record);
                tail = if ended { Tail::Whole } else { Tail::Unended };
            }
            (Err(_), false) => tail = Tail::Torn { keep: at },
            (Err(source), true) => {
                return Err(JournalError::Damaged { path: path.to_owned(), line: index + 1, source });
            }
        }
        at += line.len() as u64;
    }
    Ok(Content { records, tail })
}

/// Looks at the format alone, as nothing else of a newer format may be understood.
fn refuse_newer(path: &Path, first: &[u8]) -> Result<(), JournalError> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: JournalFormat,
    }
    match serde_json::from_slice(first) {
        Ok(Head { format: found }) if found > JournalFormat::CURRENT => {
            Err(JournalError::Newer { path: path.to_owned(), found, known: JournalFormat::CURRENT })
        }
        _ => Ok(()),
    }
}
