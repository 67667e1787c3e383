//! What a generated configuration depends on besides the secrets: the flags of the real `gen config`, and the options
//! that only its library has.
//!
//! Must not know: documents or profiles.

use http::Uri;

use super::Contract;

/// An option that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Self::On
    }
}

/// Which container network a cluster begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cni {
    /// Talos' own, flannel.
    Flannel,
    /// None: something installed later brings it.
    None,
    /// The manifests at these URLs.
    Custom(Vec<String>),
}

/// A registry and the mirrors that are asked before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry's host, `docker.io`.
    pub host: String,
    /// URLs, asked in this order.
    pub endpoints: Vec<String>,
}

/// What to do with a bundle that still has the encryption secret of contracts before 1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyEncryption {
    /// Write it where the node reads it: without it a restored etcd cannot be read.
    Keep,
    /// Do as the real generator does: it forgets the secret up to contract 1.13 and calls it `secretbox` in 1.14.
    AsGenerator,
}

/// Everything that shapes a configuration besides the secrets, the role and patches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The cluster's name.
    pub cluster_name: String,
    /// The URL under which the Kubernetes API is reached: `https://host[:port]`.
    pub endpoint: String,
    /// Which Talos version's configuration to write: that of the template that boots.
    pub contract: Contract,
    /// The Kubernetes version without `v`.
    pub kubernetes: String,
    /// The disk to install to; nothing leaves it out.
    pub install_disk: Option<String>,
    /// The installer's image reference; nothing leaves it out.
    pub install_image: Option<String>,
    /// Kernel arguments for the installer: only up to contract 1.13, and only where GRUB boots.
    pub extra_kernel_args: Vec<String>,
    /// More names and addresses for the certificates of Talos' and Kubernetes' API.
    pub extra_sans: Vec<String>,
    /// The cluster's DNS domain.
    pub dns_domain: String,
    /// Networks of pods.
    pub pod_subnets: Vec<String>,
    /// Networks of services.
    pub service_subnets: Vec<String>,
    /// The container network.
    pub cni: Cni,
    /// Registry mirrors, one entry a host.
    pub mirrors: Vec<Mirror>,
    /// Whether machines find each other through the discovery service.
    pub discovery: Switch,
    /// Whether `KubeSpan` connects the machines.
    pub kubespan: Switch,
    /// The `persist` key; a node since 1.6 refuses `Off`.
    pub persist: Switch,
    /// Whether pods may run on control planes.
    pub schedule_on_control_planes: Switch,
    /// The port on which control planes serve the Kubernetes API, if not 6443.
    pub local_api_port: Option<u16>,
    /// The local port of the Kubernetes API's load balancer (contract 1.6 and later).
    pub kubeprism_port: u16,
    /// Kernel parameters.
    pub sysctls: Vec<(String, String)>,
    /// What to do with an encryption secret from before contract 1.3.
    pub legacy_encryption: LegacyEncryption,
}

/// An option's value that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The endpoint is no https URL.
    #[error("the endpoint '{given}' must be a URL such as https://{suggested}")]
    Endpoint {
        /// As given.
        given: String,
        /// What was probably meant, without the scheme.
        suggested: String,
    },
    /// A mirror without its registry or its URL.
    #[error("the registry mirror '{given}' must be HOST=URL, such as docker.io=https://mirror.example.org")]
    Mirror {
        /// As given.
        given: String,
    },
    /// The cluster has no name.
    #[error("the cluster needs a name")]
    Name,
}

impl Input {
    /// The real generator's defaults for a cluster: disk `/dev/sda`, flannel, discovery on, no installer image.
    ///
    /// # Errors
    /// When the name is empty or the endpoint no https URL.
    pub fn new(name: &str, endpoint: &str, contract: Contract, kubernetes: &str) -> Result<Self, InputError> {
        if name.is_empty() {
            return Err(InputError::Name);
        }
        host(endpoint)?;
        Ok(Self {
            cluster_name: name.to_owned(),
            endpoint: endpoint.to_owned(),
            contract,
            kubernetes: kubernetes.strip_prefix('v').unwrap_or(kubernetes).to_owned(),
            install_disk: Some("/dev/sda".into()),
            install_image: None,
            extra_kernel_args: Vec::new(),
            extra_sans: Vec::new(),
            dns_domain: "cluster.local".into(),
            pod_subnets: vec!["10.244.0.0/16".into()],
            service_subnets: vec!["10.96.0.0/12".into()],
            cni: Cni::Flannel,
            mirrors: Vec::new(),
            discovery: Switch::On,
            kubespan: Switch::Off,
            persist: Switch::On,
            schedule_on_control_planes: Switch::Off,
            local_api_port: None,
            kubeprism_port: 7445,
            sysctls: Vec::new(),
            legacy_encryption: LegacyEncryption::Keep,
        })
    }

    /// Adds a mirror spelled `HOST=URL`; several of one host are asked one after the other.
    pub fn add_mirror(&mut self, spelled: &str) -> Result<(), InputError> {
        let malformed = || InputError::Mirror { given: spelled.to_owned() };
        let (host, url) = spelled.split_once('=').ok_or_else(malformed)?;
        match self.mirrors.iter_mut().find(|mirror| mirror.host == host) {
            Some(mirror) => mirror.endpoints.push(url.to_owned()),
            None => self.mirrors.push(Mirror { host: host.to_owned(), endpoints: vec![url.to_owned()] }),
        }
        Ok(())
    }

    /// The endpoint's host, without brackets or port.
    pub fn endpoint_host(&self) -> String {
        host(&self.endpoint).unwrap_or_default()
    }
}

fn host(endpoint: &str) -> Result<String, InputError> {
    let refused = || {
        let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).trim_end_matches('/');
        let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let suggested = if has_port { bare.to_owned() } else { format!("{bare}:6443") };
        InputError::Endpoint { given: endpoint.to_owned(), suggested }
    };
    let uri: Uri = endpoint.parse().map_err(|_| refused())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refused)?;
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    // An empty port is none.
    let port = place.strip_prefix(host).and_then(|rest| rest.strip_prefix(':')).filter(|port| !port.is_empty());
    let reachable = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if uri.scheme_str() != Some("https") || !reachable {
        return Err(refused());
    }
    Ok(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_https_urls() {
        let contract = Contract::NEWEST;
        let hosts = [
            ("https://10.0.0.1:6443", "10.0.0.1"),
            ("https://k8s.example.org", "k8s.example.org"),
            ("https://[fd00::1]:6443", "fd00::1"),
        ];
        for (endpoint, host) in hosts {
            assert_eq!(Input::new("c", endpoint, contract, "1.35.0").unwrap().endpoint_host(), host);
        }
        let ports = ["https://10.0.0.1:99999", "https://[fd00::1]:0"];
        for endpoint in ["http://10.0.0.1:6443", "10.0.0.1", "https://", "https://a b", ""].into_iter().chain(ports) {
            assert!(Input::new("c", endpoint, contract, "1.35.0").is_err(), "{endpoint}");
        }
        let error = Input::new("c", "10.0.0.1", contract, "1.35.0").unwrap_err();
        assert!(error.to_string().ends_with("https://10.0.0.1:6443"), "{error}");
    }
}
