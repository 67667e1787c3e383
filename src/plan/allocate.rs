//! Numbers and addresses that a plan hands out.
//!
//! Purpose: everything a run creates has its identity fixed in the plan, so that a repeated step finds its own work.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::types::{Mac, RunId, Sha256, VmId};

/// Hands out the lowest free guest numbers of a range, each once.
#[derive(Debug)]
pub struct Numbers {
    range: RangeInclusive<u32>,
    taken: BTreeSet<VmId>,
}

impl Numbers {
    /// Numbers of `range` except those in `taken`.
    pub fn new(range: RangeInclusive<u32>, taken: BTreeSet<VmId>) -> Self {
        Self { range, taken }
    }

    /// The next free number; none when the range is full.
    pub fn take(&mut self) -> Option<VmId> {
        let free = self.range.clone().map(VmId).find(|vmid| !self.taken.contains(vmid))?;
        self.taken.insert(free);
        Some(free)
    }
}

/// A MAC for something this run creates: PVE's own prefix, the rest from run and purpose, so that it is the same in
/// every repetition and different from that of any other run.
pub fn mac(run: &RunId, purpose: &str) -> Mac {
    let digest = Sha256::of(format!("{run}/{purpose}").as_bytes());
    Mac([0xBC, 0x24, 0x11, digest.0[0], digest.0[1], digest.0[2]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_lowest_free_ones_until_the_range_is_full() {
        let mut numbers = Numbers::new(100..=103, [VmId(100), VmId(102)].into());
        assert_eq!((numbers.take(), numbers.take(), numbers.take()), (Some(VmId(101)), Some(VmId(103)), None));
    }

    #[test]
    fn macs_differ_by_run_and_purpose() {
        let of = |run: &str, purpose: &str| mac(&run.into(), purpose);
        assert_eq!(of("a", "x"), of("a", "x"));
        assert_ne!(of("a", "x"), of("b", "x"));
        assert_ne!(of("a", "x"), of("a", "y"));
    }
}
