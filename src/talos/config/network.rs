//! The patch that gives one machine its name, its address and the shared one.
//!
//! The link is chosen by its MAC and never by its name: names change with extensions and images. Must not know: how
//! addresses were assigned.

use std::net::IpAddr;

use ipnet::IpNet;

use super::patch::Patch;
use super::yaml::{Map, Value};
use super::{Contract, Feature};
use crate::types::{Mac, Role};

/// A machine's network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The link's address.
    pub mac: Mac,
    /// The machine's addresses with their prefix length. None leaves the link to DHCP.
    pub addresses: Vec<IpNet>,
    /// The default gateway.
    pub gateway: Option<IpAddr>,
    /// Name servers.
    pub nameservers: Vec<IpAddr>,
    /// The link's MTU, if not the usual one.
    pub mtu: Option<u16>,
    /// The address that control planes share; workers don't get it.
    pub vip: Option<IpAddr>,
}

/// What is set for one machine beside what its cluster has.
pub(super) struct Own<'a> {
    /// Its host name, unless a patch of the user's sets one.
    pub(super) hostname: Option<&'a str>,
    pub(super) role: Role,
    pub(super) network: Option<&'a Network>,
    pub(super) contract: Contract,
}

impl Own<'_> {
    pub(super) fn patch(&self) -> Patch {
        let mut documents = Vec::new();
        let mut section = Map::new();
        match self.hostname {
            // Merged onto `auto: stable`: both keys are refused unless `auto` says off.
            Some(name) if self.contract.has(Feature::HostnameDocument) => {
                documents.push(document("HostnameConfig").with("auto", "off").with("hostname", name));
            }
            Some(name) => section.set("hostname", name),
            None => {}
        }
        if let Some(network) = self.network {
            section.set("interfaces", vec![Value::Map(interface(self.role, network))]);
            let servers = &network.nameservers;
            if servers.is_empty() {
                // DHCP or Talos' defaults name them.
            } else if self.contract.has(Feature::KubernetesDocuments) {
                // The resolver's document is always there since 1.14, and the old key conflicts with it.
                let servers: Vec<Value> =
                    servers.iter().map(|server| Map::new().with("address", server.to_string()).into()).collect();
                documents.push(document("ResolverConfig").with("nameservers", servers));
            } else {
                section.set("nameservers", texts(servers));
            }
        }
        if !section.is_empty() {
            documents.insert(0, Map::new().with("machine", Map::new().with("network", section)));
        }
        Patch::made("generated for the machine's network", documents)
    }
}

fn document(kind: &str) -> Map {
    Map::new().with("apiVersion", "v1alpha1").with("kind", kind)
}

fn texts<T: ToString>(values: &[T]) -> Value {
    Value::texts(values.iter().map(ToString::to_string))
}

fn interface(role: Role, network: &Network) -> Map {
    let mac = network.mac.to_string().to_lowercase();
    let is_static = !network.addresses.is_empty();
    let route = network.gateway.filter(|_| is_static).map(|gateway| {
        let everywhere = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
        vec![Value::Map(Map::new().with("network", everywhere).with("gateway", gateway.to_string()))]
    });
    let vip = network.vip.filter(|_| role == Role::ControlPlane);
    Map::new()
        .with("deviceSelector", Map::new().with("hardwareAddr", mac))
        .with_some("addresses", is_static.then(|| texts(&network.addresses)))
        .with_some("routes", route)
        .with_some("mtu", network.mtu)
        .with("dhcp", !is_static)
        .with_some("vip", vip.map(|vip| Map::new().with("ip", vip.to_string())))
}
