//! Tasks: what the original runs in worker processes.
//!
//! Purpose: real UPIDs, logs and states. Must not know: what the tasks do. Start at [`Tasks::begin`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many finished tasks are kept at least.
const KEPT: usize = 1000;

/// All tasks of all nodes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tasks {
    /// Tasks by UPID, in no order.
    pub by_upid: BTreeMap<String, Task>,
    next_pid: u32,
    next_order: u64,
}

/// One task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id.
    pub upid: String,
    /// The node it runs on.
    pub node: String,
    /// Process id.
    pub pid: u32,
    /// Kernel tick at which it started.
    pub pstart: u64,
    /// Unix time.
    pub starttime: u64,
    /// Worker type, `qmstart`.
    pub kind: String,
    /// Often a VMID; `%xx` escapes as in the UPID.
    pub id: String,
    /// `user@realm` or `user@realm!token`.
    pub user: String,
    /// Unix time; `None` while it runs.
    pub endtime: Option<u64>,
    /// `OK`, `WARNINGS: 1` or the error; `None` while it runs.
    pub status: Option<String>,
    /// Lines.
    pub log: Vec<String>,
    /// How many warnings it gave.
    pub warnings: u32,
    /// Position of its begin among all begins and ends.
    pub order: u64,
    /// Position of its end there; 0 while it runs.
    #[serde(default)]
    pub ended: u64,
}

impl Tasks {
    /// A process id that wasn't given out before.
    pub fn pid(&mut self) -> u32 {
        self.next_pid = self.next_pid.max(1000) + 1;
        self.next_pid
    }

    /// Registers a running task and says its UPID.
    pub fn begin(&mut self, node: &str, kind: &str, id: &str, user: &str, now: u64, ticks: u64) -> String {
        let pid = self.pid();
        self.next_order += 1;
        let id: String = id
            .chars()
            .map(|c| if c == ':' || c == '/' || c == '%' || c.is_whitespace() { escaped(c) } else { c.to_string() })
            .collect();
        let pstart = ticks & 0xf_ffff_ffff;
        let upid = format!("UPID:{node}:{pid:08X}:{pstart:08X}:{now:08X}:{kind}:{id}:{user}:");
        let task = Task {
            upid: upid.clone(),
            node: node.to_owned(),
            pid,
            pstart,
            starttime: now,
            kind: kind.to_owned(),
            id,
            user: user.to_owned(),
            endtime: None,
            status: None,
            log: Vec::new(),
            warnings: 0,
            order: self.next_order,
            ended: 0,
        };
        self.by_upid.insert(upid.clone(), task);
        self.forget();
        upid
    }

    /// Position of the last begin or end on a node.
    pub fn latest(&self, node: &str) -> u64 {
        let here = self.by_upid.values().filter(|task| task.node == node);
        here.map(|task| task.order.max(task.ended)).max().unwrap_or_default()
    }

    /// Drops the oldest finished tasks, as the index files of the original do.
    fn forget(&mut self) {
        if self.by_upid.len() <= 2 * KEPT {
            return;
        }
        let mut finished: Vec<(u64, String)> = self
            .by_upid
            .values()
            .filter(|task| task.status.is_some())
            .map(|task| (task.order, task.upid.clone()))
            .collect();
        finished.sort();
        let surplus = finished.len().saturating_sub(KEPT);
        for (_, upid) in finished.into_iter().take(surplus) {
            self.by_upid.remove(&upid);
        }
    }

    /// Adds a line to a task's log.
    pub fn log(&mut self, upid: &str, line: impl Into<String>) {
        if let Some(task) = self.by_upid.get_mut(upid) {
            task.log.extend(line.into().split('\n').map(str::to_owned));
        }
    }

    /// Adds to the last line of a task's log.
    pub fn amend(&mut self, upid: &str, more: &str) {
        if let Some(last) = self.by_upid.get_mut(upid).and_then(|task| task.log.last_mut()) {
            last.push_str(more);
        }
    }

    /// Adds a warning to a task's log.
    pub fn warn(&mut self, upid: &str, text: &str) {
        if let Some(task) = self.by_upid.get_mut(upid) {
            task.warnings += 1;
            task.log.push(format!("WARN: {text}"));
        }
    }

    /// A task's process is gone without a word of how it ended.
    pub fn vanish(&mut self, upid: &str, now: u64) {
        self.next_order += 1;
        if let Some(task) = self.by_upid.get_mut(upid).filter(|task| task.status.is_none()) {
            let nothing = task.log.is_empty();
            let status = if nothing { "unable to read tail (got 0 bytes)" } else { "unexpected status" };
            task.status = Some(status.to_owned());
            task.endtime = Some(now);
            task.ended = self.next_order;
        }
    }

    /// Ends a task as the original does: the last line of the log says how.
    pub fn end(&mut self, upid: &str, result: Result<(), &str>, now: u64) {
        self.next_order += 1;
        let Some(task) = self.by_upid.get_mut(upid).filter(|task| task.status.is_none()) else { return };
        let (line, status) = match result {
            Ok(()) if task.warnings > 0 => {
                (format!("TASK WARNINGS: {}", task.warnings), format!("WARNINGS: {}", task.warnings))
            }
            Ok(()) => ("TASK OK".to_owned(), "OK".to_owned()),
            Err(error) => {
                // One line, whatever it says.
                let error = error.strip_suffix('\n').unwrap_or(error).replace('\n', " ");
                (format!("TASK ERROR: {error}"), error)
            }
        };
        task.log.push(line);
        task.status = Some(status);
        task.endtime = Some(now);
        task.ended = self.next_order;
    }
}

fn escaped(c: char) -> String {
    let mut buffer = [0; 4];
    let bytes: Vec<String> = c.encode_utf8(&mut buffer).bytes().map(|byte| format!("%{byte:02x}")).collect();
    bytes.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_upid_has_nine_parts_and_the_log_ends_with_the_result() {
        let mut tasks = Tasks::default();
        let upid = tasks.begin("pve1", "imgdel", "a:b@vmstore", "ci@pve!full", 0x6B00_E8CA, 648_125);
        assert_eq!(upid.split(':').count(), 9, "{upid}");
        tasks.end(&upid, Err("it\nbroke\n"), 5);
        let task = &tasks.by_upid[&upid];
        assert_eq!(task.status.as_deref(), Some("it broke"));
        assert_eq!(task.log, ["TASK ERROR: it broke"]);
    }
}
