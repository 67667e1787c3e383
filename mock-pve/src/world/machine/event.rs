//! What happens on a machine, in the terms of Talos' event stream (Talos, pkg/machinery/api/machine, `Event`).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::state::{ServiceState, Status};

/// Talos keeps about that many events.
const EVENTS: usize = 1000;

/// Something that happened on a machine.
#[derive(Clone, Debug)]
pub struct Happened {
    /// Sortable id, 20 characters.
    pub id: String,
    /// The API call behind it; empty when the machine did it by itself.
    pub actor: String,
    /// What.
    pub what: What,
    /// When.
    pub at: SystemTime,
}

/// Why a sequence didn't go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It failed.
    Fatal,
    /// Another one runs.
    Locked,
    /// Another one took over.
    Canceled,
}

/// Kinds of events.
#[derive(Clone, Debug)]
pub enum What {
    /// A sequence began (`true`) or ended.
    Sequence(&'static str, bool),
    /// A sequence didn't go through.
    SequenceError(&'static str, Stopped, String),
    /// A phase of a sequence began (`true`) or ended.
    Phase(String, bool),
    /// A task of a phase began (`true`) or ended.
    Task(String, bool),
    /// The machine's stage or readiness changed.
    Status(Status),
    /// A service changed its state or its health.
    Service(String, ServiceState, String, Option<bool>),
    /// The kernel is about to restart, with that command.
    Restart(i64),
    /// The configuration on the disk can't be read.
    ConfigLoad(String),
    /// The configuration on the disk is refused.
    ConfigValidation(String),
    /// The machine's name and addresses.
    Address(String, Vec<String>),
}

pub(super) fn push(events: &mut VecDeque<Happened>, actor: &str, what: What) {
    events.push_back(Happened { id: event_id(), actor: actor.to_owned(), what, at: SystemTime::now() });
    if events.len() > EVENTS {
        events.pop_front();
    }
}

/// A time-ordered id of 20 characters, 0-9 and a-v, as Talos' (xid).
pub fn event_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // 32 bits of time and 64 bits of count make 96 bits: 20 digits of base 32, the last one padded.
    let bits = (u128::from(seconds & 0xffff_ffff) << 64 | u128::from(count)) << 4;
    (0..20)
        .rev()
        .map(|digit| char::from(b"0123456789abcdefghijklmnopqrstuv"[(bits >> (digit * 5) & 31) as usize]))
        .collect()
}
