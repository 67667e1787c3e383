//! Which other machines an API reaches now: one that didn't answer isn't tried again at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::state::Machine;

/// gRPC's backoff as apid sets it: the first wait in seconds, by how much each is longer, and the longest.
const FIRST: f64 = 1.0;
const LONGER: f64 = 1.6;
const LONGEST: f64 = 15.0;
/// Seconds after which a machine that nobody asked for counts as one that was never tried.
const FORGOTTEN: f64 = 60.0;

/// What a machine does when it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It answers.
    Answers,
    /// It doesn't.
    Silent,
}

/// The machines that didn't answer: how often, and when they are tried again.
#[derive(Debug, Default)]
pub(super) struct Dials(BTreeMap<String, (i32, Instant)>);

impl Dials {
    /// Whether a machine is reached; `scaled` makes seconds durations of this world.
    fn reaches(&mut self, name: &str, peer: Peer, now: Instant, scaled: impl Fn(f64) -> Duration) -> bool {
        let (times, next) = self.0.get(name).copied().unwrap_or((0, now));
        if now < next {
            return false;
        }
        if peer == Peer::Answers {
            self.0.remove(name);
        } else {
            // Whom nobody asks for is forgotten.
            self.0.retain(|_, (_, next)| now < *next + scaled(FORGOTTEN));
            let wait = (FIRST * LONGER.powi(times)).min(LONGEST);
            self.0.insert(name.to_owned(), (times.saturating_add(1).min(32), now + scaled(wait)));
        }
        peer == Peer::Answers
    }
}

impl Machine {
    /// Whether its API reaches the one of `name`. Who comes back is noticed only at the next try.
    pub fn reaches(&self, name: &str, peer: Peer) -> bool {
        let clock = self.world().clock();
        self.dials().reaches(name, peer, Instant::now(), |seconds| clock.scaled(seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_did_not_answer_is_tried_again_later_and_later() {
        let (mut dials, began) = (Dials::default(), Instant::now());
        let mut at = |seconds: f64, answers| {
            dials.reaches(
                "a",
                if answers { Peer::Answers } else { Peer::Silent },
                began + Duration::from_secs_f64(seconds),
                Duration::from_secs_f64,
            )
        };
        assert!(at(0.0, true));
        assert!(!at(0.0, false));
        // It is back, and nobody has noticed.
        assert!(!at(0.9, true));
        assert!(!at(1.1, false));
        assert!(!at(2.6, true) && at(2.8, true));
        // That is forgotten then.
        assert!(!at(3.0, false) && at(4.1, true));
        let mut now = 10.0;
        for _ in 0..40 {
            assert!(!at(now, false));
            now += 15.1;
        }
        assert!(at(now, true), "no wait is longer than that");
    }
}
