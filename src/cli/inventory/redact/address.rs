//! Made-up addresses, MACs and UUIDs.
//!
//! Must not know: where they stand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::Redact;

impl Redact {
    /// Neighbours stay neighbours: every /24 becomes one of 198.18.0.0/15 (RFC 2544), with the same last octet.
    pub(super) fn address(&mut self, real: IpAddr) -> IpAddr {
        match real {
            _ if real.is_loopback() || real.is_unspecified() => real,
            IpAddr::V4(real) => {
                let [a, b, c, host] = real.octets();
                let number = self.names.made("subnet", &format!("{a}.{b}.{c}"), |number| number.to_string());
                let [_, _, high, low] = number.parse::<u32>().unwrap_or_default().to_be_bytes();
                IpAddr::V4(Ipv4Addr::new(198, 18 + (high & 1), low, host))
            }
            IpAddr::V6(real) => {
                let number = self.names.made("address6", &real.to_string(), |number| number.to_string());
                let low = number.parse::<u32>().unwrap_or_default();
                IpAddr::V6(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(low)))
            }
        }
    }

    pub(super) fn net(&mut self, real: IpNet) -> IpNet {
        let made = self.address(real.addr());
        IpNet::new(made, real.prefix_len()).unwrap_or(real)
    }

    /// An address with or without a prefix length; anything else is left to the caller.
    pub(super) fn address_text(&mut self, real: &str) -> Option<String> {
        if let Ok(net) = real.parse::<IpNet>() {
            return Some(self.net(net).to_string());
        }
        real.parse().ok().map(|address| self.address(address).to_string())
    }

    pub(super) fn mac(&mut self, real: &str) -> String {
        self.names.made("mac", &real.to_uppercase(), |number| {
            let [_, high, middle, low] = number.to_be_bytes();
            format!("BC:24:11:{high:02X}:{middle:02X}:{low:02X}")
        })
    }

    pub(super) fn uuid(&mut self, real: &str) -> String {
        self.names.made("uuid", &real.to_lowercase(), |number| format!("00000000-0000-4000-8000-{number:012x}"))
    }

    /// An address or a name.
    pub(super) fn host(&mut self, real: &str) -> String {
        self.address_text(real).unwrap_or_else(|| self.names.of("host", real))
    }
}
