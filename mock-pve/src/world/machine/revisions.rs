//! How often things changed that a machine shows, counted from look to look.

use std::collections::BTreeMap;
use std::time::SystemTime;

/// What a machine has shown since it booted.
#[derive(Default)]
pub(super) struct Revisions {
    boot: String,
    seen: BTreeMap<String, Revision>,
}

/// How often something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revision {
    digest: [u8; 32],
    /// 1 for what never changed.
    pub count: u64,
    /// When it was last seen to have changed.
    pub at: SystemTime,
}

impl Revisions {
    /// Which revision of `what` a content is, in the boot of that id and time.
    pub(super) fn of(&mut self, what: &str, digest: [u8; 32], (boot, booted): (String, SystemTime)) -> Revision {
        if self.boot != boot {
            *self = Self { boot, seen: BTreeMap::new() };
        }
        let first = Revision { digest, count: 1, at: booted };
        let seen = self.seen.entry(what.to_owned()).or_insert(first);
        if seen.digest != digest {
            *seen = Revision { digest, count: seen.count + 1, at: SystemTime::now() };
        }
        *seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_counted_until_the_next_boot() {
        let mut all = Revisions::default();
        let boot = |id: &str| (id.to_owned(), SystemTime::UNIX_EPOCH);
        assert_eq!(all.of("a", [0; 32], boot("1")).count, 1);
        assert_eq!(all.of("a", [0; 32], boot("1")).at, SystemTime::UNIX_EPOCH);
        assert_eq!(all.of("a", [1; 32], boot("1")).count, 2);
        assert_eq!(all.of("b", [1; 32], boot("1")).count, 1);
        assert_eq!(all.of("a", [1; 32], boot("2")).count, 1);
    }
}
