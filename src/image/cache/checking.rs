//! A file that is read through on a thread of its own, while it grows.
//!
//! Must not know: what is checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::image::input::{Growth, Input};
use crate::image::part::Part;
use crate::image::walker::WalkError;
use crate::net::Meter;

/// How often it is told how far the decoder is.
const TELL: Duration = Duration::from_millis(100);

/// A file that is read through on a thread of its own, while it grows.
pub(super) struct Checking<T> {
    pub(super) growth: Arc<Growth>,
    task: JoinHandle<Result<T, WalkError>>,
    told: u64,
}

impl<T: Send + 'static> Checking<T> {
    pub(super) fn start(part: &Part, check: impl FnOnce(Input) -> Result<T, WalkError> + Send + 'static) -> Self {
        let (path, growth) = (part.path().to_owned(), part.growth());
        let opened = growth.clone();
        let task = spawn_blocking(move || {
            let input = Input::follow(&path, opened);
            check(input.map_err(|source| WalkError::Read { path, source })?)
        });
        Self { growth, task, told: 0 }
    }

    /// Of a file that is whole already.
    pub(super) fn of(
        path: PathBuf,
        bytes: u64,
        check: impl FnOnce(Input) -> Result<T, WalkError> + Send + 'static,
    ) -> Self {
        let growth = Arc::new(Growth::whole(bytes));
        let opened = growth.clone();
        let task = spawn_blocking(move || {
            let input = Input::follow(&path, opened);
            check(input.map_err(|source| WalkError::Read { path, source })?)
        });
        Self { growth, task, told: 0 }
    }

    /// Waits for something else, and tells meanwhile how far the reader is.
    pub(super) async fn told<O>(&mut self, other: impl Future<Output = O>, meter: &dyn Meter) -> O {
        let mut other = std::pin::pin!(other);
        loop {
            tokio::select! {
                biased;
                done = &mut other => return done,
                () = tokio::time::sleep(TELL) => self.tell(meter),
            }
        }
    }

    fn tell(&mut self, meter: &dyn Meter) {
        let read = self.growth.read();
        if read > self.told {
            meter.add(read - self.told);
            self.told = read;
        }
    }

    pub(super) async fn verdict(mut self, meter: &dyn Meter) -> Result<T, WalkError> {
        loop {
            tokio::select! {
                biased;
                done = &mut self.task => {
                    self.tell(meter);
                    return done.unwrap_or(Err(WalkError::GivenUp));
                }
                () = tokio::time::sleep(TELL) => self.tell(meter),
            }
        }
    }
}
