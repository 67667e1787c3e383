//! How long the Kubernetes API did not answer, from the probe records.

use jiff::Timestamp;

use super::record::{Entry, Record};

/// Adds up the time between an `api-probe` record that says down and the next one that says up, across stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Downtime {
    measured: bool,
    down_since: Option<Timestamp>,
    seconds: f64,
}

impl Downtime {
    /// Takes one record.
    pub fn take(&mut self, record: &Record) {
        let Entry::ApiProbe { up } = record.entry else { return };
        self.measured = true;
        match (up, self.down_since) {
            (false, None) => self.down_since = Some(record.at),
            (true, Some(since)) => {
                self.seconds += record.at.duration_since(since).as_secs_f64();
                self.down_since = None;
            }
            (true, None) | (false, Some(_)) => {}
        }
    }

    /// The sum in seconds as of `now`; `None` when it was never measured.
    pub fn seconds(&self, now: Timestamp) -> Option<f64> {
        let open = self.down_since.map_or(0.0, |since| now.duration_since(since).as_secs_f64());
        self.measured.then_some(self.seconds + open.max(0.0))
    }
}
