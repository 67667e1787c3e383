//! A loopback network of its own for each rehearsal.
//!
//! Purpose: machines listen on fixed ports, so two rehearsals at once need different addresses. A lock file holds a
//! 127.A.B.0/24 for as long as the process lives; the kernel releases it even after a crash.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::Ipv4Net;

/// Second octets that rehearsals draw from. 127.0.0.0/16 is everyone's, 127.20.0.0/24 belongs to the lab profile.
const SECOND: std::ops::RangeInclusive<u8> = 64..=127;

/// A /24 that nobody else holds while this value lives.
#[derive(Debug)]
pub struct Subnet {
    network: Ipv4Addr,
    _lock: File,
}

impl Subnet {
    /// Takes a free one, with the lock files in `dir`. `start` spreads concurrent rehearsals.
    pub fn take(dir: &Path, start: u32) -> io::Result<Self> {
        let size = (u32::from(*SECOND.end()) - u32::from(*SECOND.start()) + 1) * 256;
        for offset in 0..size {
            let n = (start.wrapping_add(offset)) % size;
            let [_, _, high, low] = n.to_be_bytes();
            let network = Ipv4Addr::new(127, SECOND.start() + high, low, 0);
            let path = dir.join(format!("recast-rehearsal-{network}.lock"));
            let file = match OpenOptions::new().create(true).write(true).truncate(false).open(path) {
                Ok(file) => file,
                // Another user's: Linux lets nobody else write to it in a folder like /tmp (`fs.protected_regular`).
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => return Ok(Self { network, _lock: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every loopback network for rehearsals is in use"))
    }

    /// `127.A.B.0/24`.
    pub fn net(&self) -> Ipv4Net {
        Ipv4Net::new_assert(self.network, 24)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_rehearsals_never_share_a_network() {
        let dir = tempfile::tempdir().unwrap();
        let first = Subnet::take(dir.path(), 7).unwrap();
        let second = Subnet::take(dir.path(), 7).unwrap();
        assert_ne!(first.net(), second.net());
        let freed = first.net();
        drop(first);
        assert_eq!(Subnet::take(dir.path(), 7).unwrap().net(), freed);
    }
}
