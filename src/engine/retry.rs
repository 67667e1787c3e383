//! How often, and after which pause, a failed attempt is repeated.
//!
//! Purpose: retry is policy in this one place, by error class; the loop only asks. An ambiguous error is counted like a
//! transient one, but what follows it is always a probe, never a blind repetition.
//! Must not know: what failed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::event::Class;
use crate::types::StepId;

/// The policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Most attempts of one step in one process. Clients repeat single reads themselves; this is for whole steps.
    pub attempts: u32,
    /// Pause before the second attempt; doubled for each further one.
    pub first: Duration,
    /// Longest pause.
    pub longest: Duration,
}

impl Default for Retry {
    /// Five attempts over about half a minute: long enough for a PVE node's API daemon to restart, short enough that a
    /// person who watches doesn't wonder.
    fn default() -> Self {
        Self { attempts: 5, first: Duration::from_secs(1), longest: Duration::from_secs(15) }
    }
}

impl Retry {
    /// Tries each step once.
    pub const NEVER: Self = Self { attempts: 1, first: Duration::ZERO, longest: Duration::ZERO };

    /// The pause before the next attempt after `attempt` attempts ended in `class`; `None` when that was enough.
    ///
    /// The pause lies between half and all of the full one. It depends on step and attempt only, so that steps that
    /// failed together don't come back together and a test sees the same pause each time.
    pub fn pause(&self, class: Class, attempt: u32, step: &StepId) -> Option<Duration> {
        match class {
            Class::Permanent | Class::Refused => None,
            Class::Transient | Class::Ambiguous if attempt >= self.attempts => None,
            Class::Transient | Class::Ambiguous => {
                let doublings = attempt.saturating_sub(1).min(16);
                let full = self.first.saturating_mul(1 << doublings).min(self.longest);
                let mut hasher = DefaultHasher::new();
                (step.as_str(), attempt).hash(&mut hasher);
                let share = u32::try_from(hasher.finish() % 1000).unwrap_or_default();
                Some(full / 2 + full / 2 * share / 1000)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_may_go_away_are_retried() {
        let (retry, step) = (Retry::default(), StepId::from("a"));
        for class in [Class::Permanent, Class::Refused] {
            assert_eq!(retry.pause(class, 1, &step), None);
        }
        for class in [Class::Transient, Class::Ambiguous] {
            assert!(retry.pause(class, 4, &step).is_some());
            assert_eq!(retry.pause(class, 5, &step), None);
        }
    }

    #[test]
    fn pauses_grow_to_their_limit_and_differ_between_steps() {
        let retry = Retry { attempts: 100, first: Duration::from_secs(1), longest: Duration::from_secs(15) };
        for (attempt, full) in [(1, 1), (2, 2), (4, 8), (5, 15), (60, 15)] {
            let pause = retry.pause(Class::Transient, attempt, &StepId::from("a")).unwrap();
            let full = Duration::from_secs(full);
            assert!(full / 2 <= pause && pause <= full, "attempt {attempt}: {pause:?}");
        }
        let pause = |step: &str| retry.pause(Class::Transient, 1, &StepId::from(step));
        assert_ne!(pause("provision/cp-1/start"), pause("provision/cp-2/start"));
    }
}
