//! Where the rehearsed machines are: their addresses, the network around them, what of it is mapped onto loopback.
//!
//! Purpose: a pure answer from the profile and its VMs. Every address is kept as the profile has it; what it leaves to
//! DHCP or DNS is chosen here. Must not know: the double, loopback networks. Start reading at [`Addresses::choose`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::profile::{Profile, WantedVm};
use crate::types::{MachineName, Role};

/// The network of a profile that names no address at all: reserved for documentation (RFC 5737), so nobody's own.
const NOWHERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);

/// The most addresses that the double's DHCP server has.
const LEASES: usize = 60;

/// Why a profile's addresses can't be rehearsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// An IPv6 address: loopback has only one.
    #[error("{what} {address} is an IPv6 address: a rehearsal maps IPv4 networks only")]
    V6 {
        /// Whose it is.
        what: String,
        /// The address.
        address: IpAddr,
    },
    /// There is no room for another machine.
    #[error("no address is free in {network}")]
    Full {
        /// Where.
        network: Ipv4Net,
    },
}

/// The addresses of a rehearsal, as the profile has them or as they were chosen for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Each machine's.
    pub machines: BTreeMap<MachineName, Ipv4Addr>,
    /// Where the Kubernetes API is reached; none in a profile without a cluster.
    pub endpoint: Option<Ipv4Addr>,
    /// The machines' network.
    pub subnet: Ipv4Net,
    /// Its router.
    pub gateway: Ipv4Addr,
    /// First and last address that machines without a configuration get.
    pub dhcp: [Ipv4Addr; 2],
    /// The networks in which something listens, to be mapped one by one.
    pub mapped: Vec<Ipv4Net>,
}

/// Free addresses of one /24.
struct Pool {
    network: Ipv4Net,
    taken: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Chooses what `profile` leaves open for its `vms`.
    pub fn choose(profile: &Profile, vms: &[WantedVm]) -> Result<Self, AddressError> {
        let mut machines = BTreeMap::new();
        for vm in vms {
            if let Some(address) = vm.address {
                machines.insert(vm.name.clone(), v4(vm.name.as_str(), address)?);
            }
        }
        let talos = profile.talos.as_ref();
        let vip = talos.and_then(|talos| talos.vip.as_ref()).map(|vip| v4("the VIP", vip.ip)).transpose()?;
        let host = profile.network.api_endpoint.as_ref().and_then(|endpoint| endpoint.host.parse::<IpAddr>().ok());
        let named = host.map(|host| v4("the API endpoint", host)).transpose()?;
        let gateway = profile.network.gateway.map(|gateway| v4("the gateway", gateway)).transpose()?;
        let scanned = match profile.address_discovery.subnet {
            Some(IpNet::V4(subnet)) => Some(subnet.network()),
            _ => None,
        };
        let first = vms.iter().find_map(|vm| machines.get(&vm.name)).copied();
        let base = slash_24(scanned.or(first).or(named).or(vip).or(gateway).unwrap_or(NOWHERE));
        let mut taken: BTreeSet<Ipv4Addr> = machines.values().copied().chain(vip).chain(named).chain(gateway).collect();
        taken.extend(profile.network.nameservers.iter().filter_map(|server| match server {
            IpAddr::V4(server) => Some(*server),
            IpAddr::V6(_) => None,
        }));
        let mut pool = Pool { network: base, taken };
        let gateway = match gateway {
            Some(gateway) => gateway,
            None => pool.take(1)?,
        };
        // A single control plane without an address of its own is what the endpoint leads to, by a DHCP reservation.
        let mut planes = vms.iter().filter(|vm| vm.role == Role::ControlPlane);
        if let (Some(plane), None, Some(named), None) = (planes.next(), planes.next(), named, vip)
            && !machines.values().any(|address| *address == named)
        {
            machines.entry(plane.name.clone()).or_insert(named);
        }
        for vm in vms {
            if !machines.contains_key(&vm.name) {
                machines.insert(vm.name.clone(), pool.take(10)?);
            }
        }
        let plane = vms.iter().find(|vm| vm.role == Role::ControlPlane).and_then(|vm| machines.get(&vm.name)).copied();
        let endpoint = talos.and_then(|_| named.or(vip).or(plane));
        let prefix = profile.network.prefix.filter(|prefix| *prefix <= 32);
        let subnet = prefix.and_then(|prefix| Ipv4Net::new(first.unwrap_or(gateway), prefix).ok());
        let listening = machines.values().copied().chain(endpoint).chain(vip).map(slash_24);
        let mapped: BTreeSet<Ipv4Net> = listening.chain([base]).collect();
        Ok(Self {
            endpoint,
            subnet: subnet.map_or(base, |subnet| subnet.trunc()),
            gateway,
            dhcp: pool.widest_gap().ok_or(AddressError::Full { network: base })?,
            mapped: mapped.into_iter().collect(),
            machines,
        })
    }
}

fn v4(what: &str, address: IpAddr) -> Result<Ipv4Addr, AddressError> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(AddressError::V6 { what: what.to_owned(), address }),
    }
}

fn slash_24(address: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(address, 24).trunc()
}

impl Pool {
    /// The lowest free address whose last number is at least `from`.
    fn take(&mut self, from: usize) -> Result<Ipv4Addr, AddressError> {
        let full = AddressError::Full { network: self.network };
        let free = self.network.hosts().skip(from - 1).find(|host| !self.taken.contains(host)).ok_or(full)?;
        self.taken.insert(free);
        Ok(free)
    }

    /// The end of the longest run of free addresses.
    fn widest_gap(&self) -> Option<[Ipv4Addr; 2]> {
        let hosts: Vec<Ipv4Addr> = self.network.hosts().collect();
        let gaps = hosts.split(|host| self.taken.contains(host));
        let widest = gaps.max_by_key(|gap| gap.len())?;
        let end = &widest[widest.len().saturating_sub(LEASES)..];
        Some([*end.first()?, *end.last()?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Taken, expand, load};

    fn choose(network: &str, controlplane: &str, workers: &str) -> Result<Addresses, AddressError> {
        let text = format!(
            "name: x\ntype: talos\ntags: [x]\ntemplate: 101\n\
             talos: {{version: 1.13.9, kubernetes_version: 1.35.0, config_dir: x, secrets_file: s.yaml}}\n\
             network: {network}\nnodes:\n  \
             controlplane: {{count: {controlplane}, name_prefix: cp-, cores: 2, memory: 4096, disk: 32G}}\n  \
             workers: {{count: {workers}, name_prefix: w-, cores: 2, memory: 4096, disk: 32G}}\n"
        );
        let profile = load::profile("x.yaml", &text).unwrap_or_else(|problems| panic!("{problems}")).value;
        let site = load::site("site.yaml", "endpoints: [a]\nnodes: [{name: a}]\n").unwrap().value;
        Addresses::choose(&profile, &expand(&profile, &site, &Taken::default()).unwrap())
    }

    fn text(addresses: &Addresses) -> Vec<String> {
        addresses.machines.iter().map(|(name, address)| format!("{name} {address}")).collect()
    }

    #[test]
    fn machines_without_addresses_get_some_and_the_only_control_plane_gets_the_endpoint() {
        let found = choose("{api_endpoint: 192.168.178.70}", "1", "2").unwrap();
        assert_eq!(text(&found), ["cp-01 192.168.178.70", "w-01 192.168.178.10", "w-02 192.168.178.11"]);
        assert_eq!(found.gateway.to_string(), "192.168.178.1");
        assert_eq!(found.dhcp.map(|address| address.to_string()), ["192.168.178.195", "192.168.178.254"]);
        assert_eq!(found.mapped.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.168.178.0/24"]);
    }

    #[test]
    fn a_named_endpoint_is_the_first_control_plane() {
        let assigned = "3, assignments: [{name: cp-01, ip: 10.1.2.3}, {name: cp-02, ip: 10.1.3.3}]";
        let found = choose("{api_endpoint: k8s.example.org, gateway: 10.1.0.1, prefix: 16}", assigned, "0").unwrap();
        assert_eq!(found.endpoint, Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(found.subnet.to_string(), "10.1.0.0/16");
        assert_eq!(found.mapped.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.2.0/24", "10.1.3.0/24"]);
        let found = choose("{api_endpoint: k8s.example.org}", "3", "1").unwrap();
        assert_eq!(
            found.endpoint,
            Some(Ipv4Addr::new(192, 0, 2, 10)),
            "and where nothing is known, it's nobody's network"
        );
    }

    #[test]
    fn ipv6_is_refused_by_name() {
        let assigned = "1, assignments: [{name: cp-01, ip: \"fd00::1\"}]";
        let refusal = choose("{api_endpoint: k8s.example.org}", assigned, "0").unwrap_err();
        assert!(refusal.to_string().starts_with("cp-01 fd00::1 is an IPv6 address"), "{refusal}");
    }
}
