//! Where connections really go: networks mapped onto other networks, host bits kept.
//!
//! Purpose: `192.168.178.41` stays the name of a machine in TLS, SANs and everything shown, while the connection goes to
//! `127.31.7.41`. Must not know: sockets, names, ports. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// A rule that can't be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// One side isn't a network.
    #[error("'{given}' is not a network in CIDR notation, such as 192.168.178.0/24")]
    NotANetwork {
        /// The text as given.
        given: String,
    },
    /// Host bits can only be kept between networks of one size and family.
    #[error("{from} and {to} differ in size or family, so hosts can't be mapped one to one")]
    Unequal {
        /// The network in the names.
        from: IpNet,
        /// The network behind them.
        to: IpNet,
    },
}

/// An ordered list of mappings; the first network that contains an address decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DialMap {
    rules: Vec<(IpNet, IpNet)>,
}

impl DialMap {
    /// A map from pairs of CIDR texts, `from` first.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, DialError> {
        let mut map = Self::default();
        for (from, to) in pairs {
            map.push(network(from)?, network(to)?)?;
        }
        Ok(map)
    }

    /// Adds a mapping behind the others.
    pub fn push(&mut self, from: IpNet, to: IpNet) -> Result<(), DialError> {
        let (from, to) = (from.trunc(), to.trunc());
        if from.max_prefix_len() != to.max_prefix_len() || from.prefix_len() != to.prefix_len() {
            return Err(DialError::Unequal { from, to });
        }
        self.rules.push((from, to));
        Ok(())
    }

    /// The address to connect to when asked for `address`.
    pub fn target(&self, address: IpAddr) -> IpAddr {
        self.mapped(address).unwrap_or(address)
    }

    /// As [`Self::target`], `None` where no rule speaks of the address.
    pub fn mapped(&self, address: IpAddr) -> Option<IpAddr> {
        let (from, to) = self.rules.iter().find(|(from, _)| from.contains(&address))?;
        Some(match (address, from.hostmask(), to.network()) {
            (IpAddr::V4(host), IpAddr::V4(mask), IpAddr::V4(base)) => {
                IpAddr::V4(Ipv4Addr::from_bits((host.to_bits() & mask.to_bits()) | base.to_bits()))
            }
            (IpAddr::V6(host), IpAddr::V6(mask), IpAddr::V6(base)) => {
                IpAddr::V6(Ipv6Addr::from_bits((host.to_bits() & mask.to_bits()) | base.to_bits()))
            }
            // `push` lets only pairs of one family in.
            _ => address,
        })
    }

    /// Whether there is no mapping at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

fn network(text: &str) -> Result<IpNet, DialError> {
    text.parse().map_err(|_| DialError::NotANetwork { given: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_bits_are_kept_and_the_first_rule_decides() {
        let map = DialMap::parse([
            ("192.168.178.40/32", "127.0.0.9/32"),
            ("192.168.178.0/24", "127.31.7.0/24"),
            ("fd00::/64", "::/64"),
        ])
        .unwrap();
        for (asked, dialled) in [
            ("192.168.178.41", "127.31.7.41"),
            ("192.168.178.40", "127.0.0.9"),
            ("192.168.179.41", "192.168.179.41"),
            ("fd00::1", "::1"),
        ] {
            assert_eq!(map.target(asked.parse().unwrap()), dialled.parse::<IpAddr>().unwrap(), "{asked}");
        }
        assert_eq!(map.mapped("10.0.0.1".parse().unwrap()), None);
    }

    #[test]
    fn networks_must_match_in_size_and_family() {
        assert!(matches!(DialMap::parse([("10.0.0.0/16", "127.0.0.0/24")]), Err(DialError::Unequal { .. })));
        assert!(matches!(DialMap::parse([("10.0.0.0/24", "::/24")]), Err(DialError::Unequal { .. })));
        assert!(matches!(DialMap::parse([("10.0.0.1", "127.0.0.0/24")]), Err(DialError::NotANetwork { .. })));
    }
}
