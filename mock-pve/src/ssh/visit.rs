//! One visit to a node: whether somebody is still there, and how much runs for them at once.
//!
//! Purpose: what would repeat or wait without end ends with whoever wanted it, and no command takes more of the machine than
//! a node's limits would give it. Must not know: commands, SSH. Start at [`Visit::inner`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::thread::{Builder, JoinHandle};

use tokio_util::sync::{CancellationToken, DropGuard};

/// Threads that run at once for one visit.
const MOST: usize = 100;
/// The stack of each, in bytes: several times what the deepest shell takes without optimisation.
const STACK: usize = 16 << 20;

/// Exit code of what ended because nobody was there any more: as after SIGHUP.
const DESERTED: u8 = 129;

/// A session, or one line that somebody typed. Clones are the same visit.
#[derive(Clone, Debug, Default)]
pub(super) struct Visit {
    ends: CancellationToken,
    /// The exit code of what was cut short; 0: nothing was.
    cut: Arc<AtomicU8>,
    running: Arc<AtomicUsize>,
}

impl Visit {
    /// A visit that ends with this one, or before.
    pub(super) fn inner(&self) -> Self {
        Self { ends: self.ends.child_token(), ..Self::default() }
    }

    /// Nobody is there any more. Commands that follow each other still do, as on a node; what repeats or waits ends.
    pub(super) fn end(&self) {
        self.ends.cancel();
    }

    /// Ends it when the value is dropped.
    pub(super) fn end_with(&self) -> DropGuard {
        self.ends.clone().drop_guard()
    }

    /// Nothing more begins; says whether that is news. `code` is the exit code of what was running.
    pub(super) fn cut(&self, code: u8) -> bool {
        let first = self.cut.compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        self.ends.cancel();
        first
    }

    /// The exit code of what was cut short, after which nothing more begins.
    pub(super) fn is_cut(&self) -> Option<u8> {
        Some(self.cut.load(Ordering::Relaxed)).filter(|code| *code != 0)
    }

    /// Whether it ended; whoever only looks cuts nothing short.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_cancelled()
    }

    /// Whether what would go on without end ends here. Then nothing that comes after it begins: what it waited for didn't
    /// happen.
    pub(super) fn breaks(&self) -> bool {
        let over = self.is_over();
        if over {
            self.cut(DESERTED);
        }
        over
    }

    /// Waits for its end.
    pub(super) async fn over(&self) {
        self.ends.cancelled().await;
    }

    /// Runs something on a thread of its own; `None`: there are too many.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        let place = Place(Arc::clone(&self.running));
        if place.0.fetch_add(1, Ordering::Relaxed) >= MOST {
            return None;
        }
        let work = move || {
            let made = work();
            drop(place);
            made
        };
        Builder::new().stack_size(STACK).spawn(work).ok()
    }
}

/// The place of a thread; free again when it is dropped, also by a panic.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
