//! Stopping a run, in two levels.
//!
//! Purpose: the first Ctrl-C or SIGTERM parks (no step starts any more, running ones get [`GRACE`] to reach a safe
//! point, then they are dropped); the second stops now. The journal tells the truth in both cases.
//! Must not know: signals. `cli` calls [`Cancel::raise`] from its signal handlers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use crate::event::CancelledBy;

/// How long running steps may go on after the first request. Below the five seconds that people are promised, so that
/// the last records are written in time.
pub const GRACE: Duration = Duration::from_secs(4);

/// How urgently a run is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not at all.
    Run,
    /// Park: no step starts, running ones get a moment.
    Park,
    /// Now.
    Stop,
}

#[derive(Clone, Copy, Debug)]
struct Request {
    level: Level,
    by: Option<CancelledBy>,
}

/// Asks a run to stop; clones ask the same run.
#[derive(Clone, Debug)]
pub struct Cancel {
    request: Arc<watch::Sender<Request>>,
}

impl Cancel {
    /// Nobody asked yet.
    pub fn new() -> Self {
        Self { request: Arc::new(watch::Sender::new(Request { level: Level::Run, by: None })) }
    }

    /// Asks once more: first to park, then to stop.
    pub fn raise(&self, by: CancelledBy) {
        self.request.send_modify(|request| {
            request.level = if request.level == Level::Run { Level::Park } else { Level::Stop };
            request.by.get_or_insert(by);
        });
    }

    /// What is asked for now.
    pub fn level(&self) -> Level {
        self.request.borrow().level
    }

    /// Who asked first.
    pub fn by(&self) -> Option<CancelledBy> {
        self.request.borrow().by
    }

    /// Waits until at least `level` is asked for.
    pub async fn reached(&self, level: Level) {
        let mut watching = self.request.subscribe();
        // The sender lives as long as `self`, so this can't fail.
        let _ = watching.wait_for(|request| request.level >= level).await;
    }
}

impl Default for Cancel {
    fn default() -> Self {
        Self::new()
    }
}
