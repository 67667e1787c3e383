//! The journal as the loop and its steps share it.
//!
//! Must not know: what is journaled, or why.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clock::Clock;
use crate::journal::{Entry, Journal, JournalError, RunState};

/// A step's handle could not be journaled. The cause is with the run.
#[derive(Debug, thiserror::Error)]
#[error("the journal can't be written")]
pub(super) struct Broken;

struct Pages {
    journal: Journal,
    /// The first error of the journal: nothing is written after it, and the run ends with it.
    broken: Option<JournalError>,
}

/// The journal, its state, and the clock that stamps records.
pub(super) struct Book<'a> {
    pages: Mutex<Pages>,
    clock: &'a dyn Clock,
}

impl<'a> Book<'a> {
    pub(super) fn new(journal: Journal, clock: &'a dyn Clock) -> Self {
        Self { pages: Mutex::new(Pages { journal, broken: None }), clock }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes one record; it is on disk when this returns.
    pub(super) fn append(&self, entry: Entry) -> Result<(), Broken> {
        let mut pages = self.pages();
        if pages.broken.is_some() {
            return Err(Broken);
        }
        match pages.journal.append(self.clock.now(), entry) {
            Ok(()) => Ok(()),
            Err(error) => {
                pages.broken = Some(error);
                Err(Broken)
            }
        }
    }

    /// Looks at the state.
    pub(super) fn with<T>(&self, look: impl FnOnce(&RunState) -> T) -> T {
        look(self.pages().journal.state())
    }

    pub(super) fn is_broken(&self) -> bool {
        self.pages().broken.is_some()
    }

    /// The journal back, or what broke it.
    pub(super) fn close(self) -> Result<Journal, JournalError> {
        let pages = self.pages.into_inner().unwrap_or_else(PoisonError::into_inner);
        pages.broken.map_or(Ok(pages.journal), Err)
    }
}
