//! Processes that die: at a record of their journal, with nothing begun after that.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use recast::engine::{Perform, Seen, StepCx, StepError};
use recast::journal::{Log, Memory, Record};
use recast::plan::{Output, Planned};
use recast::steps::World;

/// The end of a process.
#[derive(Clone, Default)]
pub(crate) struct Death {
    over: Arc<AtomicBool>,
    news: Arc<Notify>,
}

impl Death {
    fn strike(&self) {
        self.over.store(true, Ordering::SeqCst);
        self.news.notify_one();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) async fn comes(&self) {
        self.news.notified().await;
    }
}

/// When a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// That many records are on disk, and nothing happens after the last of them.
    After(usize),
    /// That many records are on disk, and what the next one would have said has happened.
    InsteadOf(usize),
}

/// A journal that is cut.
pub(crate) struct CutLog {
    pub(crate) kept: Memory,
    pub(crate) cut: Cut,
    pub(crate) death: Death,
}

impl Log for CutLog {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let dead = || io::Error::other("the process is dead");
        let held = self.kept.records().len();
        match self.cut {
            _ if self.death.is_over() => return Err(dead()),
            Cut::InsteadOf(number) if held == number => {
                self.death.strike();
                return Err(dead());
            }
            _ => self.kept.append(record)?,
        }
        if self.cut == Cut::After(held + 1) {
            self.death.strike();
        }
        Ok(())
    }
}

/// The world of a process that dies: nothing is begun after that.
pub(crate) struct Mortal {
    pub(crate) world: World,
    pub(crate) death: Death,
}

impl Perform for Mortal {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        if self.death.is_over() {
            std::future::pending::<()>().await;
        }
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.world.apply(step, cx).await
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}
