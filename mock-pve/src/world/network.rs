//! The networks behind the bridges.
//!
//! Purpose: hand out addresses like a DHCP server would (always the same one to the same MAC) and say where an address
//! really listens. Must not know: machines or protocols. Start at [`Networks::lease`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::seed::{Dial, NetworkSeed};

/// What a DHCP server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address with its prefix length.
    pub address: IpNet,
    /// The router.
    pub gateway: Option<IpAddr>,
}

/// All networks and the leases that were given out.
#[derive(Debug, Default)]
pub struct Networks {
    behind: Vec<NetworkSeed>,
    dial: Vec<Dial>,
    reserved: BTreeSet<IpAddr>,
    leases: BTreeMap<(String, String), IpAddr>,
    held: BTreeSet<IpAddr>,
}

impl Networks {
    /// Networks with nobody in them. `reserved` addresses are never leased.
    pub fn new(networks: Vec<NetworkSeed>, dial: Vec<Dial>, reserved: BTreeSet<IpAddr>) -> Self {
        Self { behind: networks, dial, reserved, leases: BTreeMap::new(), held: BTreeSet::new() }
    }

    /// The network behind a bridge.
    pub fn behind(&self, bridge: &str) -> Option<&NetworkSeed> {
        self.behind.iter().find(|network| network.bridge == bridge)
    }

    /// The address of a MAC on a bridge: the one it had before, else one that depends on the MAC as long as it is free.
    /// `None`: no DHCP there, or the range is used up.
    pub fn lease(&mut self, bridge: &str, mac: &str) -> Option<Lease> {
        let network = self.behind.iter().find(|network| network.bridge == bridge)?;
        let Some([IpAddr::V4(first), IpAddr::V4(last)]) = network.dhcp else { return None };
        let key = (bridge.to_owned(), mac.to_ascii_uppercase());
        let lease = |address: IpAddr| {
            let address = IpNet::new(address, network.subnet.prefix_len()).ok()?;
            Some(Lease { address, gateway: network.gateway })
        };
        if let Some(address) = self.leases.get(&key) {
            return lease(*address);
        }
        let (first, last) = (u32::from(first), u32::from(last));
        let count = last.checked_sub(first)?.saturating_add(1);
        let wish = key.1.bytes().fold(5381_u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte)) % count;
        let taken: BTreeSet<IpAddr> = self
            .leases
            .values()
            .copied()
            .chain(self.reserved.iter().copied())
            .chain(self.held.iter().copied())
            .collect();
        let address = (0..count)
            .map(|step| IpAddr::V4(Ipv4Addr::from(first + (wish + step) % count)))
            .find(|address| !taken.contains(address))?;
        self.leases.insert(key, address);
        lease(address)
    }

    /// Addresses that machines were seen to have, whoever gave them: nobody else gets one of them.
    pub fn avoid(&mut self, held: BTreeSet<IpAddr>) {
        self.held = held;
    }

    /// Takes back the leases of MACs that `gone` says are in use no more.
    pub fn release(&mut self, gone: impl Fn(&str) -> bool) {
        self.leases.retain(|(_, mac), _| !gone(mac));
    }

    /// Where an address really listens: itself, unless a `dial` entry holds it.
    pub fn dial_map(&self, address: IpAddr) -> IpAddr {
        for Dial { from, to } in &self.dial {
            if let (IpAddr::V4(given), IpNet::V4(from), IpNet::V4(to)) = (address, from, to)
                && from.contains(&given)
            {
                let host = u32::from(given) & u32::from(from.hostmask());
                return IpAddr::V4(Ipv4Addr::from(u32::from(to.network()) | host));
            }
        }
        address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(last: &str) -> Networks {
        Networks::new(
            vec![NetworkSeed {
                bridge: "vmbr0".to_owned(),
                subnet: "192.168.178.0/24".parse().unwrap(),
                gateway: Some("192.168.178.1".parse().unwrap()),
                dhcp: Some(["192.168.178.200".parse().unwrap(), last.parse().unwrap()]),
            }],
            vec![Dial { from: "192.168.178.0/24".parse().unwrap(), to: "127.31.7.0/24".parse().unwrap() }],
            BTreeSet::from(["192.168.178.201".parse().unwrap()]),
        )
    }

    #[test]
    fn a_mac_keeps_its_address_and_a_full_range_gives_none() {
        let mut networks = networks("192.168.178.202");
        let first = networks.lease("vmbr0", "bc:24:11:00:00:01").unwrap();
        assert_eq!(networks.lease("vmbr0", "BC:24:11:00:00:01"), Some(first.clone()));
        let second = networks.lease("vmbr0", "BC:24:11:00:00:02").unwrap();
        assert_ne!(first, second);
        assert_eq!(networks.lease("vmbr0", "BC:24:11:00:00:03"), None, "the third address is reserved");
        assert_eq!(networks.lease("vmbr9", "BC:24:11:00:00:01"), None);
        networks.avoid(BTreeSet::from([first.address.addr()]));
        networks.release(|mac| mac.ends_with("01"));
        assert_eq!(networks.lease("vmbr0", "BC:24:11:00:00:03"), None, "somebody has set it by hand");
        networks.avoid(BTreeSet::new());
        assert_eq!(networks.lease("vmbr0", "BC:24:11:00:00:03").unwrap().address, first.address);
    }

    #[test]
    fn dialling_keeps_the_host_bits() {
        let networks = networks("192.168.178.250");
        assert_eq!(networks.dial_map("192.168.178.41".parse().unwrap()), "127.31.7.41".parse::<IpAddr>().unwrap());
        assert_eq!(networks.dial_map("10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
