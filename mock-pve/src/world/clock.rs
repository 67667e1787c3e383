//! The one clock of the world.
//!
//! Purpose: everything that takes time in real life (a boot, a copy, a statistics round) waits here, so that one factor
//! speeds up all of it. Must not know: what is being waited for. Start at [`Clock::sleep`].
//!
//! Timestamps that leave the mock (task ids, tickets, certificates) are wall-clock time: clients compare them with
//! their own.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::script::{Script, Takes};

/// Waits and tells the time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock {
    scale: f64,
    began: Instant,
    script: Arc<OnceLock<Arc<dyn Script>>>,
}

impl Clock {
    /// A clock on which a wait of real life takes `1 / scale` of its time; anything not above zero counts as 1.
    pub fn new(scale: f64) -> Self {
        let scale = if scale.is_finite() && scale > 0.0 { scale } else { 1.0 };
        Self { scale, began: Instant::now(), script: Arc::default() }
    }

    /// How long a wait of that many seconds of real life takes here.
    pub fn scaled(&self, seconds_real: f64) -> Duration {
        let seconds = (seconds_real / self.scale).clamp(0.0, 86_400.0);
        if seconds.is_nan() { Duration::ZERO } else { Duration::from_secs_f64(seconds) }
    }

    /// Waits for what takes that many seconds in real life.
    pub async fn sleep(&self, seconds_real: f64) {
        tokio::time::sleep(self.scaled(seconds_real)).await;
    }

    /// Durations come from that script from now on, where it has an opinion.
    pub(super) fn follow(&self, script: Arc<dyn Script>) {
        // A second script was refused before.
        let _ = self.script.set(script);
    }

    /// Seconds of real life that something takes: what the script says, else `usual`.
    pub fn takes(&self, what: Takes, usual: f64) -> f64 {
        self.script.get().and_then(|script| script.takes(what)).unwrap_or(usual)
    }

    /// Seconds since 1970, wall clock.
    pub fn unix(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Seconds of real life that passed since the clock was made: what an uptime counts.
    pub fn elapsed(&self) -> f64 {
        self.began.elapsed().as_secs_f64() * self.scale
    }

    /// The factor given to [`Clock::new`].
    pub fn scale(&self) -> f64 {
        self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_divides_waits_and_nonsense_counts_as_one() {
        assert_eq!(Clock::new(20.0).scaled(10.0), Duration::from_millis(500));
        for nonsense in [0.0, -3.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Clock::new(nonsense).scaled(2.0), Duration::from_secs(2));
        }
    }
}
