//! A cluster's addresses and networks.
//!
//! Must not know: VMs, how the values are read. Start reading at [`Network`].

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;

use super::schema;

/// Addresses and networks.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Network {
    /// Where the Kubernetes API is reached: an address or a host, with or without a port. Required for type `talos`.
    #[schemars(with = "Option<String>")]
    pub api_endpoint: Option<ApiEndpoint>,
    /// The pods' network; Talos' own default is 10.244.0.0/16.
    #[schemars(with = "Option<schema::CidrText>")]
    pub pod_cidr: IpNet,
    /// The services' network; Talos' own default is 10.96.0.0/12.
    #[schemars(with = "Option<schema::CidrText>")]
    pub service_cidr: IpNet,
    /// The machines' default route.
    pub gateway: Option<IpAddr>,
    /// Prefix length of the machines' addresses.
    pub prefix: Option<u8>,
    /// The machines' DNS servers.
    #[schemars(with = "Option<Vec<IpAddr>>")]
    pub nameservers: Vec<IpAddr>,
    /// The bridge of the first NIC; the site's default otherwise.
    pub bridge: Option<String>,
    /// VLAN tag of the first NIC.
    pub vlan: Option<u16>,
    /// MTU of the machines' first NIC.
    pub mtu: Option<u16>,
}

impl Network {
    /// The network that the machines' addresses are in, as far as `gateway` and `prefix` tell.
    pub fn subnet(&self) -> Option<IpNet> {
        Some(IpNet::new(self.gateway?, self.prefix?).ok()?.trunc())
    }
}

impl Default for Network {
    fn default() -> Self {
        let net = |a, b, length| IpNet::V4(ipnet::Ipv4Net::new_assert([a, b, 0, 0].into(), length));
        Self {
            api_endpoint: None,
            pod_cidr: net(10, 244, 16),
            service_cidr: net(10, 96, 12),
            gateway: None,
            prefix: None,
            nameservers: Vec::new(),
            bridge: None,
            vlan: None,
            mtu: None,
        }
    }
}

/// Where the Kubernetes API is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiEndpoint {
    /// An address (IPv6 without brackets) or a host name.
    pub host: String,
    /// 6443 unless written otherwise.
    pub port: u16,
}

impl ApiEndpoint {
    /// As kubeconfigs and machine configurations have it: `https://192.168.178.50:6443`.
    pub fn url(&self) -> String {
        format!("https://{self}")
    }
}

impl fmt::Display for ApiEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
