//! What a generated configuration depends on besides the secrets: the flags of the real `gen config`, and the options
//! that only its library has.
//!
//! Must not know: documents or profiles.

use std::net::IpAddr;

use super::{Contract, Feature, Url, UrlError};

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
    #[error("the endpoint '{given}' must be a URL such as https://{suggested}: {why}")]
    Endpoint {
        /// As given.
        given: String,
        /// What was probably meant, without the scheme.
        suggested: String,
        /// What is wrong with it.
        why: String,
    },
    /// A mirror without its registry or its URL.
    #[error("the registry mirror '{given}' must be HOST=URL, such as docker.io=https://mirror.example.org")]
    Mirror {
        /// As given.
        given: String,
    },
    /// A mirror whose URL is none, where the contract has documents for mirrors.
    #[error("the registry mirror '{given}' has no URL such as https://mirror.example.org")]
    MirrorUrl {
        /// As given.
        given: String,
        /// What is wrong with it.
        source: UrlError,
    },
}

impl Input {
    /// The real generator's defaults for a cluster: disk `/dev/sda`, flannel, discovery on, no installer image.
    ///
    /// # Errors
    /// When the endpoint is no https URL.
    pub fn new(name: &str, endpoint: &str, contract: Contract, kubernetes: &str) -> Result<Self, InputError> {
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
        let malformed = || InputError::Mirror { given: masked(spelled) };
        let (host, url) = spelled.split_once('=').ok_or_else(malformed)?;
        if self.contract.has(Feature::RegistryDocuments) {
            let unread = |source| InputError::MirrorUrl { given: masked(spelled), source };
            Url::parse(url).map_err(unread)?;
        }
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

/// A URL as it may be told: a password in it stays hidden.
fn masked(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme + 3 <= at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        _ => url.to_owned(),
    }
}

/// The host of an endpoint that the real generator takes.
fn host(endpoint: &str) -> Result<String, InputError> {
    let refused = |why: String| {
        let bare = endpoint.trim().split_once("://").map_or(endpoint.trim(), |(_, rest)| rest).trim_end_matches('/');
        let bare = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
        let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let suggested = match bare.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => format!("[{address}]:6443"),
            _ if bare.is_empty() => "10.0.0.10:6443".to_owned(),
            _ if has_port => bare.to_owned(),
            _ => format!("{bare}:6443"),
        };
        InputError::Endpoint { given: masked(endpoint), suggested, why }
    };
    let url = Url::parse(endpoint).map_err(|error| refused(error.to_string()))?;
    match url.scheme() {
        "https" => {}
        "" => return Err(refused("it has no scheme".to_owned())),
        _ => return Err(refused("its scheme must be https".to_owned())),
    }
    let host = url.hostname();
    if host.is_empty() {
        return Err(refused("it has no host".to_owned()));
    }
    if url.port().is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(refused("its port must be from 1 to 65535".to_owned()));
    }
    Ok(host)
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
            ("https://[fe80::1%25eth0]:6443", "fe80::1%eth0"),
            ("HTTPS://user:pw@ü.example.org:/path?x#y", "ü.example.org"),
            ("https://a<b>c", "a<b>c"),
        ];
        for (endpoint, host) in hosts {
            assert_eq!(Input::new("c", endpoint, contract, "1.35.0").unwrap().endpoint_host(), host);
        }
        let ports = ["https://10.0.0.1:99999", "https://[fd00::1]:0"];
        for endpoint in ["http://10.0.0.1:6443", "10.0.0.1", "https://", "https://a b", ""].into_iter().chain(ports) {
            assert!(Input::new("c", endpoint, contract, "1.35.0").is_err(), "{endpoint}");
        }
        for (given, told) in [
            ("10.0.0.1", "https://10.0.0.1:6443: it has no scheme"),
            ("http://h:6443", "https://h:6443: its scheme must be https"),
            ("https://fd00::1", "https://[fd00::1]:6443: its port is no number; "),
            ("https://:6443", "it has no host"),
        ] {
            let error = Input::new("c", given, contract, "1.35.0").unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn mirrors_are_gathered_by_host_and_their_urls_read_where_they_are_documents() {
        let mut input = Input::new("c", "https://h", Contract::minor(13), "1.35.0").unwrap();
        for mirror in ["b=https://1", "a=https://2", "b=https://3=4"] {
            input.add_mirror(mirror).unwrap();
        }
        let hosts: Vec<_> = input.mirrors.iter().map(|mirror| (mirror.host.as_str(), mirror.endpoints.len())).collect();
        assert_eq!(hosts, [("b", 2), ("a", 1)]);
        assert!(input.add_mirror("docker.io").is_err() && input.add_mirror("docker.io=127.0.0.1:5000").is_err());
        let mut older = Input::new("c", "https://h", Contract::minor(11), "1.35.0").unwrap();
        older.add_mirror("docker.io=127.0.0.1:5000").unwrap();
    }
}
