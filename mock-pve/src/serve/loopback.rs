//! Loopback networks for machines whose own addresses aren't loopback.
//!
//! Purpose: two mocks at once must not listen on the same addresses. A lock file holds a 127.A.B.0/24 for as long as the
//! value lives; the kernel releases it even after a crash. Whoever rehearses uses the same names of lock files.
//! Must not know: what listens.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net};

use crate::world::seed::Seed;

/// 127.64.0.0 to 127.127.255.0.
const NETWORKS: u32 = 64 * 256;

/// A /24 that nobody else holds while this value lives.
#[derive(Debug)]
pub struct Loopback {
    network: Ipv4Net,
    _lock: File,
}

impl Loopback {
    /// Takes a free one; `start` spreads those who ask at the same time.
    pub fn take(dir: &Path, start: u32) -> io::Result<Self> {
        for offset in 0..NETWORKS {
            let [_, _, high, low] = (start.wrapping_add(offset) % NETWORKS).to_be_bytes();
            let address = Ipv4Addr::new(127, 64 + high, low, 0);
            let path = dir.join(format!("recast-rehearsal-{address}.lock"));
            let file = match OpenOptions::new().create(true).write(true).truncate(false).open(path) {
                Ok(file) => file,
                // Another user's.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => continue,
                Err(error) => return Err(error),
            };
            match file.try_lock() {
                Ok(()) => return Ok(Self { network: Ipv4Net::new_assert(address, 24), _lock: file }),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "every loopback network is in use"))
    }

    /// Takes the networks that a seed's addresses are mapped to, as a mock does that was stopped and goes on.
    pub fn hold(dir: &Path, seed: &Seed) -> io::Result<Vec<Self>> {
        let wanted = seed.dial.iter().filter_map(|dial| match dial.to {
            IpNet::V4(to) if to.prefix_len() == 24 && (64..128).contains(&to.network().octets()[1]) => Some(to),
            _ => None,
        });
        wanted
            .map(|network| {
                let path = dir.join(format!("recast-rehearsal-{}.lock", network.network()));
                let file = OpenOptions::new().create(true).write(true).truncate(false).open(path)?;
                match file.try_lock() {
                    Ok(()) => Ok(Self { network, _lock: file }),
                    Err(TryLockError::WouldBlock) => {
                        let why = format!("somebody else uses {network}, which the kept world is mapped to");
                        Err(io::Error::new(io::ErrorKind::AddrInUse, why))
                    }
                    Err(TryLockError::Error(error)) => Err(error),
                }
            })
            .collect()
    }

    /// `127.A.B.0/24`.
    pub fn net(&self) -> Ipv4Net {
        self.network
    }

    /// `127.A.B`, what its addresses begin with.
    pub fn base(&self) -> String {
        let [first, second, third, _] = self.network.network().octets();
        format!("{first}.{second}.{third}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_held_until_its_holder_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let first = Loopback::take(dir.path(), 16_383).unwrap();
        let second = Loopback::take(dir.path(), 16_383).unwrap();
        assert_eq!(
            (first.net().to_string(), second.net().to_string()),
            ("127.127.255.0/24".into(), "127.64.0.0/24".into())
        );
        assert_eq!((first.base(), second.base()), ("127.127.255".into(), "127.64.0".into()));
        drop(first);
        assert_eq!(Loopback::take(dir.path(), 16_383).unwrap().net().to_string(), "127.127.255.0/24");
    }
}
