//! PVE's tasks: their names, and waiting for their end.
//!
//! Purpose: a [`Upid`] names a task for ever; [`Pve::wait`] follows it on the node that runs it. Must not know: what the
//! task was for. A lost poll says nothing about the task, so resets and 595 to 599 are waited out.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::client::Pve;
use super::decode;
use super::encode::{Form, path};
use super::error::{Missing, PveError, TaskFailure};
use crate::types::{Malformed, NodeName, VmId};

/// How long a task may be unknown after it was started (it is registered a moment after its name is given out).
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// How many lines of its log a failure carries.
const TAIL: usize = 20;

/// A task's name: `UPID:pve1:000007DF:000508AF:6B00DC5C:qmstart:100:ci@pve!full:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upid {
    text: String,
    /// The node that runs it.
    pub node: NodeName,
    /// Unix seconds of its start.
    pub started: u64,
    /// `qmstart`, `qmclone`, `imgcopy` …
    pub kind: String,
    /// What it is about: often a VMID, sometimes empty.
    pub id: String,
    /// Who started it.
    pub user: String,
}

impl Upid {
    /// The name as PVE gave it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The VM it is about, where its id is a number.
    pub fn vmid(&self) -> Option<VmId> {
        self.id.parse().ok().map(VmId)
    }
}

impl FromStr for Upid {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a task id (UPID:node:…:)");
        let hex = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
            u64::from_str_radix(part, 16).ok().filter(|_| lengths.contains(&part.len())).ok_or_else(malformed)
        };
        let ["UPID", node, pid, pstart, started, kind, id, user, ""] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(malformed());
        };
        if [node, kind, user].contains(&"") {
            return Err(malformed());
        }
        hex(pid, 8..=8)?;
        hex(pstart, 8..=9)?;
        Ok(Self {
            text: text.to_owned(),
            node: node.into(),
            started: hex(started, 8..=8)?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            user: user.to_owned(),
        })
    }
}

impl TryFrom<String> for Upid {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Upid> for String {
    fn from(upid: Upid) -> Self {
        upid.text
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How to wait for a task.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Time between looks.
    pub poll: Duration,
    /// Time until [`PveError::TaskTimeout`].
    pub within: Duration,
}

/// How a task ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Without a word.
    Ok,
    /// With warnings, which is a success; the lines of its log that warn.
    Warnings(Vec<String>),
}

/// A task's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// It runs.
    Running,
    /// It has ended, with this exit text: `OK`, `WARNINGS: 1`, or an error.
    Stopped(String),
}

/// A task in a list.
#[derive(Clone, Debug, Deserialize)]
pub struct TaskEntry {
    /// Its name.
    pub upid: Upid,
    /// Its exit text; `RUNNING` or nothing while it runs.
    #[serde(default)]
    pub status: Option<String>,
    /// Unix seconds of its end.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub endtime: Option<u64>,
}

impl TaskEntry {
    /// Whether it still ran when the list was made.
    pub fn is_running(&self) -> bool {
        self.endtime.is_none()
    }
}

#[derive(Deserialize)]
struct Status {
    status: String,
    #[serde(default)]
    exitstatus: Option<String>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default, deserialize_with = "decode::text")]
    t: String,
}

#[derive(Deserialize)]
struct Lines(#[serde(deserialize_with = "decode::array_or_nothing")] Vec<Line>);

/// Whether an exit text is a success (PVE/UPID.pm `status_is_error`: `OK` and `WARNINGS: n`).
fn is_success(exit: &str) -> bool {
    exit == "OK" || has_warnings(exit)
}

fn has_warnings(exit: &str) -> bool {
    exit.strip_prefix("WARNINGS: ").is_some_and(|count| !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit()))
}

/// How soon a task's status is read again at first.
const FIRST_LOOK: Duration = Duration::from_millis(50);

impl Pve {
    /// What a task is doing.
    pub async fn task(&self, upid: &Upid) -> Result<TaskState, PveError> {
        let at = path(&["nodes", upid.node.as_str(), "tasks", upid.as_str(), "status"]);
        let Status { status, exitstatus } = self.get(&at, &Form::new()).await?;
        Ok(if status == "stopped" {
            TaskState::Stopped(exitstatus.unwrap_or_else(|| "unexpected status".to_owned()))
        } else {
            TaskState::Running
        })
    }

    /// The last `tail` lines of a task's log. A task that is unknown has none.
    pub async fn task_log(&self, upid: &Upid, tail: usize) -> Result<Vec<String>, PveError> {
        let at = path(&["nodes", upid.node.as_str(), "tasks", upid.as_str(), "log"]);
        // `limit=0` gives all of it; the default is the first 50 lines, and the verdict stands in the last.
        let Lines(lines) = self.get(&at, &Form::new().with("limit", 0)).await?;
        let skip = lines.len().saturating_sub(tail);
        Ok(lines.into_iter().skip(skip).map(|line| line.t).collect())
    }

    /// Waits for a task's end, on the node that runs it. Dropping the wait leaves the task alone.
    pub async fn wait(&self, upid: &Upid, wait: Wait) -> Result<Ended, PveError> {
        let since = Instant::now();
        // Most tasks are short: the first looks come soon, later ones as asked for.
        let mut pause = wait.poll.min(FIRST_LOOK);
        loop {
            match self.task(upid).await {
                Ok(TaskState::Stopped(exit)) => return self.verdict(upid, exit).await,
                Ok(TaskState::Running) => {}
                Err(PveError::NotFound { what: Missing::Task, .. }) if since.elapsed() < UNKNOWN_FOR => {}
                Err(error) if error.is_transient() => {
                    tracing::debug!(upid = upid.as_str(), error = %error, "could not look at the task");
                }
                Err(error) => return Err(error),
            }
            if since.elapsed() >= wait.within {
                return Err(PveError::TaskTimeout { upid: Box::new(upid.clone()), seconds: wait.within.as_secs() });
            }
            sleep(pause).await;
            pause = wait.poll.min(pause * 5 / 4);
        }
    }

    async fn verdict(&self, upid: &Upid, exit: String) -> Result<Ended, PveError> {
        if exit == "OK" {
            return Ok(Ended::Ok);
        }
        // Nodes throw old logs away, so it is read now; without it the exit text still stands.
        let warned = is_success(&exit);
        let log = self.task_log(upid, if warned { usize::MAX } else { TAIL }).await.unwrap_or_default();
        if warned {
            return Ok(Ended::Warnings(log.into_iter().filter(|line| line.starts_with("WARN")).collect()));
        }
        let meaning = PveError::from_text(500, exit.clone());
        Err(PveError::Task(Box::new(TaskFailure { upid: upid.clone(), exit, meaning, log })))
    }

    /// The tasks of a node that still run, for one VM or for all.
    pub async fn running_tasks(&self, node: &NodeName, vmid: Option<VmId>) -> Result<Vec<TaskEntry>, PveError> {
        let query = Form::new().with("source", "active").with_some("vmid", vmid);
        let listed: Vec<TaskEntry> = self.get(&path(&["nodes", node.as_str(), "tasks"]), &query).await?;
        Ok(listed.into_iter().filter(TaskEntry::is_running).collect())
    }

    /// The tasks of a VM that began at `since` (Unix seconds) or later, ended or not, newest first.
    pub async fn tasks_since(&self, node: &NodeName, vmid: VmId, since: u64) -> Result<Vec<TaskEntry>, PveError> {
        let query = Form::new().with("source", "all").with("vmid", vmid).with("since", since).with("limit", 500);
        self.get(&path(&["nodes", node.as_str(), "tasks"]), &query).await
    }

    /// Asks a task to stop.
    pub async fn stop_task(&self, upid: &Upid) -> Result<(), PveError> {
        let at = path(&["nodes", upid.node.as_str(), "tasks", upid.as_str()]);
        self.delete::<Option<serde::de::IgnoredAny>>(&at, &Form::new()).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn task_ids_are_parsed_and_given_back_unchanged() {
        for (text, kind, id) in [
            ("UPID:pve1:000007DF:000508AF:6B00DC5C:qmshutdown:100:ci@pve!full:", "qmshutdown", "100"),
            ("UPID:pve1:000010BD:00053CB8:6B00DCE1:imgcopy::ci@pve!full:", "imgcopy", ""),
            (
                "UPID:pve-2:0000ABCD:012345678:65A0B1C2:qmmove:100-scsi0>101-scsi1:root@pam:",
                "qmmove",
                "100-scsi0>101-scsi1",
            ),
        ] {
            let upid: Upid = text.parse().unwrap();
            assert_eq!((upid.to_string().as_str(), upid.kind.as_str(), upid.id.as_str()), (text, kind, id));
        }
        let upid: Upid = "UPID:pve1:000007DF:000508AF:6B00DC5C:qmstart:100:root@pam:".parse().unwrap();
        assert_eq!((upid.vmid(), upid.started, upid.node), (Some(VmId(100)), 0x6B00_DC5C, "pve1".into()));
        for wrong in [
            "",
            "UPID:pve1:7DF:000508AF:6B00DC5C:qmstart:100:root@pam:",
            "UPID:pve1:000007DF:000508AF:6B00DC5C:qmstart:100:root@pam",
        ] {
            assert!(wrong.parse::<Upid>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_ok_and_counted_warnings_are_success() {
        for (exit, good) in
            [("OK", true), ("WARNINGS: 3", true), ("WARNINGS: ", false), ("unexpected status", false), ("OK.", false)]
        {
            assert_eq!(is_success(exit), good, "{exit}");
        }
    }
}
