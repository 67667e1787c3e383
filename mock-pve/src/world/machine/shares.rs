//! Who answers on the shared addresses of clusters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Who has a shared address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    /// That machine, until it gives it back or goes down: however little processor time there is to say so again.
    On(u32),
    /// One that went down then, without a word.
    Gone(Instant),
}

/// The shared addresses that somebody has or had.
#[derive(Debug, Default)]
pub(super) struct Shares(BTreeMap<IpAddr, Holder>);

impl Shares {
    /// The addresses that a machine answers on.
    pub(super) fn of(&self, vmid: u32) -> Vec<IpAddr> {
        self.0.iter().filter(|(_, holder)| **holder == Holder::On(vmid)).map(|(address, _)| *address).collect()
    }

    /// Whether a machine is the one to answer on an address.
    pub(super) fn holds(&self, address: IpAddr, vmid: u32) -> bool {
        self.0.get(&address) == Some(&Holder::On(vmid))
    }

    /// Whether an address is nobody's, and whoever had it hasn't been heard of for `patience`.
    pub(super) fn is_free(&self, address: IpAddr, patience: Duration) -> bool {
        match self.0.get(&address) {
            None => true,
            Some(Holder::On(_)) => false,
            Some(Holder::Gone(since)) => since.elapsed() >= patience,
        }
    }

    /// Makes a machine the holder of an address, if that is free.
    pub(super) fn take(&mut self, address: IpAddr, vmid: u32, patience: Duration) -> bool {
        let is_free = self.is_free(address, patience);
        if is_free {
            self.0.insert(address, Holder::On(vmid));
        }
        is_free
    }

    /// A machine holds none but these any more; whether that changed anything.
    pub(super) fn release(&mut self, vmid: u32, kept: &[IpAddr]) -> bool {
        let before = self.0.len();
        self.0.retain(|address, holder| *holder != Holder::On(vmid) || kept.contains(address));
        self.0.len() != before
    }

    /// A machine went down without a word: what it held isn't anybody's, and stays so until that is noticed.
    pub(super) fn abandon(&mut self, vmid: u32) {
        for holder in self.0.values_mut().filter(|holder| **holder == Holder::On(vmid)) {
            *holder = Holder::Gone(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_is_on_keeps_its_address_however_late_it_looks() {
        let (address, other) = (IpAddr::from([10, 0, 0, 9]), IpAddr::from([10, 0, 0, 8]));
        let (soon, never) = (Duration::ZERO, Duration::from_hours(1));
        let mut shares = Shares::default();
        assert!(shares.take(address, 1, soon) && shares.take(other, 1, soon));
        // Nobody waits any time, and still it isn't free.
        assert!(!shares.is_free(address, soon) && !shares.take(address, 2, soon));
        assert!(shares.holds(address, 1) && shares.of(1) == [other, address] && shares.of(2).is_empty());
        // A configuration without one of them.
        assert!(shares.release(1, &[address]) && !shares.release(1, &[address]));
        assert!(shares.is_free(other, never) && shares.holds(address, 1));
        // The plug is pulled: that has to be noticed first.
        shares.abandon(1);
        assert!(shares.of(1).is_empty() && !shares.take(address, 2, never));
        assert!(shares.take(address, 2, soon) && shares.of(2) == [address]);
        // Given back, it is free at once.
        assert!(shares.release(2, &[]) && shares.take(address, 1, never));
    }
}
