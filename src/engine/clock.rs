//! Time, as the engine and its steps see it.
//!
//! Purpose: every wait and every timestamp of a run goes through [`Clock`], so that tests decide how time passes.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A wait in progress.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// What time it is, and waiting.
pub trait Clock: Sync {
    /// The time of day, for records.
    fn now(&self) -> Timestamp;

    /// Time that passed since some fixed moment, for measuring; never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration) -> Sleep<'_>;
}

/// The machine's clock and tokio's timer.
#[derive(Clone, Copy, Debug)]
pub struct RealClock {
    since: Instant,
}

impl RealClock {
    /// Starts measuring now.
    pub fn new() -> Self {
        Self { since: Instant::now() }
    }
}

impl Default for RealClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RealClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(duration))
    }
}
