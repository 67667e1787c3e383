//! A machine configuration, as a Talos of some version reads it: several YAML documents, strict about what it doesn't
//! know.

use std::net::IpAddr;

use base64::Engine as _;
use ipnet::IpNet;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::versions::{self, Version};
use super::{config_documents, config_fold};
use crate::world::cluster::manifests::Ingredients;

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It isn't YAML, or has parts that this Talos doesn't know.
    #[error("{0}")]
    Parse(String),
    /// It is understood and can't be right.
    #[error("1 error occurred:\n\t* {0}\n\n")]
    Invalid(String),
}

/// What the machine does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineType {
    /// Runs etcd and the Kubernetes API.
    ControlPlane,
    /// Runs workloads.
    Worker,
}

impl MachineType {
    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
        }
    }
}

/// A certificate authority out of a configuration: PEM texts; the key is empty on workers.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// A configuration that was understood.
#[derive(Clone)]
pub struct NodeConfig {
    text: String,
    main: Value,
    documents: Vec<Value>,
    is_whole: bool,
}

impl std::fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeConfig").finish_non_exhaustive()
    }
}

impl NodeConfig {
    /// Reads `text` as Talos `version` would.
    pub fn parse(text: &[u8], version: Version) -> Result<Self, ConfigError> {
        let broken = |what: String| ConfigError::Parse(what);
        let text = std::str::from_utf8(text).map_err(|error| broken(format!("yaml: {error}")))?;
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(text).map_err(|error| broken(format!("yaml: {}", first_line(&error))))?;
        let documents = documents.into_iter().filter(|document| !document.is_null());
        let (mut main, others) = config_documents::sorted(documents, text, version).map_err(broken)?;
        if main.len() > 1 {
            return Err(broken("duplicate v1alpha1.Config".to_owned()));
        }
        let main = main.pop();
        let is_whole = main.is_some();
        let main = config_fold::whole(main.unwrap_or_default(), &others);
        let config = Self { text: text.to_owned(), main, documents: others, is_whole };
        config.validate(version)?;
        Ok(config)
    }

    fn validate(&self, version: Version) -> Result<(), ConfigError> {
        let invalid = |what: &str| Err(ConfigError::Invalid(what.to_owned()));
        if let Some(document) = self.document("HostnameConfig") {
            config_documents::check_hostname(document).map_err(ConfigError::Invalid)?;
        }
        if !self.is_whole {
            return Ok(());
        }
        if self.str("/version") != Some("v1alpha1") {
            return invalid("config version is required: v1alpha1");
        }
        if !matches!(self.str("/machine/type"), Some("controlplane" | "worker")) {
            return invalid(&format!("unknown machine type: {}", self.str("/machine/type").unwrap_or_default()));
        }
        if self.str("/machine/token").unwrap_or_default().is_empty() {
            return invalid("machine token is required");
        }
        let control_plane = self.machine_type() == MachineType::ControlPlane;
        let os = self.os_ca();
        if os.certificate.is_empty() || control_plane && os.key.is_empty() {
            return invalid("trusted CA is required on the machine (.machine.ca)");
        }
        if control_plane {
            for (path, what) in [("/cluster/ca", "cluster CA"), ("/cluster/etcd/ca", "etcd CA")] {
                if self.authority(path).key.is_empty() {
                    return invalid(&format!("{what} key is required on control plane nodes"));
                }
            }
        }
        if !self.endpoint().starts_with("https://") {
            return invalid("cluster controlplane endpoint is required");
        }
        if self.document("HostnameConfig").is_some() {
            if self.str("/machine/network/hostname").is_some() {
                return invalid("static hostname is already set in v1alpha1 config");
            }
            if self.main.pointer("/machine/features/stableHostname") == Some(&Value::Bool(true)) {
                return invalid("stable hostname is already set in v1alpha1 config");
            }
        }
        if let Some(kubernetes) = self.kubernetes()
            && let Err(why) = versions::check_kubernetes(version, &kubernetes)
        {
            return invalid(&why);
        }
        Ok(())
    }

    /// The text as it was applied.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it has the v1alpha1 document, without which no machine leaves maintenance mode.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// A string of the v1alpha1 document, by JSON pointer.
    pub fn str(&self, pointer: &str) -> Option<&str> {
        self.main.pointer(pointer)?.as_str()
    }

    /// The v1alpha1 document.
    pub fn main(&self) -> &Value {
        &self.main
    }

    /// The first other document of that kind.
    pub fn document(&self, kind: &str) -> Option<&Value> {
        self.documents.iter().find(|document| document.get("kind").and_then(Value::as_str) == Some(kind))
    }

    /// All other documents of that kind.
    fn documents_of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.documents.iter().filter(move |document| document.get("kind").and_then(Value::as_str) == Some(kind))
    }

    /// What the machine is.
    pub fn machine_type(&self) -> MachineType {
        match self.str("/machine/type") {
            Some("controlplane" | "init") => MachineType::ControlPlane,
            _ => MachineType::Worker,
        }
    }

    /// The CA behind the Talos API.
    pub fn os_ca(&self) -> Authority {
        self.authority("/machine/ca")
    }

    /// The CA behind the Kubernetes API.
    pub fn kubernetes_ca(&self) -> Authority {
        self.authority("/cluster/ca")
    }

    /// Certificates of more authorities whose callers the Talos API takes.
    pub fn accepted_authorities(&self) -> Vec<String> {
        self.accepted("/machine/acceptedCAs")
    }

    /// Certificates of all authorities whose callers the Kubernetes API takes: the issuing one comes first.
    pub fn kubernetes_authorities(&self) -> Vec<String> {
        let own = self.kubernetes_ca().certificate;
        std::iter::once(own).chain(self.accepted("/cluster/acceptedCAs")).filter(|one| !one.is_empty()).collect()
    }

    fn accepted(&self, pointer: &str) -> Vec<String> {
        let list = self.main.pointer(pointer).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|one| Some(decode(one.get("crt")?.as_str()?))).collect()
    }

    /// The CA behind etcd's members and clients.
    pub fn etcd_ca(&self) -> Authority {
        self.authority("/cluster/etcd/ca")
    }

    /// The CA behind what the Kubernetes API hands on to other servers.
    pub fn aggregator_ca(&self) -> Authority {
        self.authority("/cluster/aggregatorCA")
    }

    fn authority(&self, pointer: &str) -> Authority {
        let part = |name: &str| decode(self.str(&format!("{pointer}/{name}")).unwrap_or_default());
        Authority { certificate: part("crt"), key: part("key") }
    }

    /// The Kubernetes endpoint, `https://…:6443`.
    pub fn endpoint(&self) -> &str {
        self.str("/cluster/controlPlane/endpoint").unwrap_or_default()
    }

    /// The endpoint's host.
    pub fn endpoint_host(&self) -> &str {
        let rest = self.endpoint().trim_start_matches("https://").split('/').next().unwrap_or_default();
        rest.rsplit_once(':').map_or(rest, |(host, _)| host).trim_matches(['[', ']'])
    }

    /// The cluster's name.
    pub fn cluster_name(&self) -> &str {
        self.str("/cluster/clusterName").unwrap_or("talos-default")
    }

    /// Kubernetes' version without `v`, from the kubelet's image.
    pub fn kubernetes(&self) -> Option<String> {
        let document = self.document("KubeletConfig").and_then(|one| one.get("image")?.as_str());
        let image = document.or_else(|| self.str("/machine/kubelet/image"))?;
        let tag = image.split('@').next()?.rsplit_once(':')?.1.trim_start_matches('v');
        Some(tag.trim_end_matches("-fat").trim_end_matches("-slim").to_owned())
    }

    /// The image that a component of the control plane, the kubelet or kube-proxy runs; Talos' own choice when the
    /// configuration says nothing.
    pub fn image(&self, component: &str, talos: Version) -> String {
        let (kind, path) = match component {
            "kube-apiserver" => ("KubeAPIServerConfig", "/cluster/apiServer/image"),
            "kube-controller-manager" => ("KubeControllerManagerConfig", "/cluster/controllerManager/image"),
            "kube-scheduler" => ("KubeSchedulerConfig", "/cluster/scheduler/image"),
            "kube-proxy" => ("KubeProxyConfig", "/cluster/proxy/image"),
            _ => ("KubeletConfig", "/machine/kubelet/image"),
        };
        let document = self.document(kind).and_then(|one| one.get("image")?.as_str());
        let found = document.or_else(|| self.str(path)).filter(|image| !image.is_empty());
        found.map_or_else(
            || {
                let repository = if component == "kubelet" { "ghcr.io/siderolabs" } else { "registry.k8s.io" };
                format!("{repository}/{component}:v{}", versions::default_kubernetes(talos))
            },
            str::to_owned,
        )
    }

    /// The extra arguments of a component, by name.
    pub fn extra_args(&self, component: &str) -> Vec<(String, String)> {
        let path = match component {
            "kube-apiserver" => "/cluster/apiServer/extraArgs",
            "kube-controller-manager" => "/cluster/controllerManager/extraArgs",
            "kube-scheduler" => "/cluster/scheduler/extraArgs",
            "kube-proxy" => "/cluster/proxy/extraArgs",
            _ => "/machine/kubelet/extraArgs",
        };
        let map = self.main.pointer(path).and_then(Value::as_object);
        map.into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
            .collect()
    }

    /// The manifests that stand in the configuration: the name of each, and its objects.
    pub fn inline_manifests(&self) -> Vec<(String, Vec<Value>)> {
        let list = self.main.pointer("/cluster/inlineManifests").and_then(Value::as_array);
        list.into_iter()
            .flatten()
            .filter_map(|one| {
                let documents: Vec<Value> = serde_saphyr::from_multiple(one.get("contents")?.as_str()?).ok()?;
                let name = one.get("name")?.as_str()?.to_owned();
                Some((name, documents.into_iter().filter(Value::is_object).collect()))
            })
            .collect()
    }

    /// What the bootstrap manifests are made of.
    pub fn ingredients(&self, version: Version) -> Ingredients {
        let pods = self.strings("/cluster/network/podSubnets").into_iter().next();
        let kubernetes = self.kubernetes().unwrap_or_else(|| versions::default_kubernetes(version).to_owned());
        Ingredients {
            talos: version.minor,
            proxy: self.has_proxy().then(|| self.image("kube-proxy", version)),
            kubernetes,
            cluster: self.cluster_name().to_owned(),
            endpoint: self.endpoint().to_owned(),
            pods: pods.unwrap_or_else(|| "10.244.0.0/16".to_owned()),
            flannel: self.str("/cluster/network/cni/name").is_none_or(|name| name == "flannel"),
            token: self.str("/cluster/token").unwrap_or_default().to_owned(),
        }
    }

    /// Whether the cluster has kube-proxy.
    pub fn has_proxy(&self) -> bool {
        self.main.pointer("/cluster/proxy/disabled").and_then(Value::as_bool) != Some(true)
    }

    /// Whether a control plane runs that component.
    pub fn runs(&self, component: &str) -> bool {
        let part = match component {
            "kube-controller-manager" => "controllerManager",
            "kube-scheduler" => "scheduler",
            _ => return true,
        };
        let pointer = format!("/machine/controlPlane/{part}/disabled");
        self.main.pointer(&pointer).and_then(Value::as_bool) != Some(true)
    }

    /// Whether this machine registers no node.
    pub fn skips_node(&self) -> bool {
        self.main.pointer("/machine/kubelet/skipNodeRegistration").and_then(Value::as_bool) == Some(true)
    }

    /// All documents but the first, with their kinds.
    pub fn documents(&self) -> &[Value] {
        &self.documents
    }

    /// A static host name.
    pub fn hostname(&self) -> Option<&str> {
        self.str("/machine/network/hostname")
            .or_else(|| self.document("HostnameConfig")?.get("hostname")?.as_str())
            .filter(|name| !name.is_empty())
    }

    /// What tells members of one cluster from strangers: a digest over cluster id, cluster secret and etcd CA.
    pub fn cluster_mark(&self) -> String {
        let parts = ["/cluster/id", "/cluster/secret"].map(|part| self.str(part).unwrap_or_default());
        hex::encode(Sha256::digest(parts.join("\n")))
    }

    /// A digest of the etcd CA: members with another one can't talk to each other.
    pub fn etcd_mark(&self) -> String {
        hex::encode(Sha256::digest(self.authority("/cluster/etcd/ca").certificate))
    }

    /// Whether machines of the cluster find each other through discovery.
    pub fn discovery(&self) -> bool {
        let on = |pointer: &str| self.main.pointer(pointer).and_then(Value::as_bool);
        let disabled = |registry: &str| on(&format!("/cluster/discovery/registries/{registry}/disabled")) == Some(true);
        on("/cluster/discovery/enabled") == Some(true) && !(disabled("service") && disabled("kubernetes"))
    }

    /// Whether ordinary pods may run on control planes.
    pub fn schedules_on_control_planes(&self) -> bool {
        let on = |pointer: &str| self.main.pointer(pointer).and_then(Value::as_bool) == Some(true);
        on("/cluster/allowSchedulingOnControlPlanes") || on("/cluster/allowSchedulingOnMasters")
    }

    /// Names and addresses that the Talos API's certificate must carry besides the machine's own.
    pub fn api_names(&self) -> Vec<String> {
        self.strings("/machine/certSANs")
    }

    /// The same for the Kubernetes API.
    pub fn kubernetes_names(&self) -> Vec<String> {
        let mut names = self.strings("/cluster/apiServer/certSANs");
        names.push(self.endpoint_host().to_owned());
        names
    }

    /// All that the API server is called in its cluster (Talos, `KubernetesCertSANsController`): also by the first address
    /// of each network of services.
    pub fn api_server_names(&self) -> Vec<String> {
        let mut names = self.kubernetes_names();
        let domain = self.str("/cluster/network/dnsDomain").unwrap_or("cluster.local");
        names.extend(["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned));
        names.push(format!("kubernetes.default.svc.{domain}"));
        let mut subnets = self.strings("/cluster/network/serviceSubnets");
        if subnets.is_empty() {
            subnets.push("10.96.0.0/12".to_owned());
        }
        let first = |subnet: &String| subnet.parse::<IpNet>().ok()?.hosts().next();
        names.extend(subnets.iter().filter_map(first).map(|address| address.to_string()));
        names
    }

    /// A list of strings, by JSON pointer.
    pub fn strings(&self, pointer: &str) -> Vec<String> {
        let list = self.main.pointer(pointer).and_then(Value::as_array);
        list.map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect()).unwrap_or_default()
    }

    /// The static addresses that the configuration gives to a link.
    pub fn addresses(&self, name: &str, mac: &str) -> Vec<IpNet> {
        let mut found = Vec::new();
        for interface in self.interfaces() {
            if is_link(interface, name, mac) {
                let single = interface.get("cidr").into_iter();
                let list = interface.get("addresses").and_then(Value::as_array).into_iter().flatten();
                found.extend(single.chain(list).filter_map(Value::as_str).filter_map(network));
            }
        }
        for link in self.documents_of("LinkConfig") {
            if link.get("name").and_then(Value::as_str) == Some(name) {
                let list = link.get("addresses").and_then(Value::as_array).into_iter().flatten();
                found.extend(list.filter_map(|entry| entry.get("address")?.as_str()).filter_map(network));
            }
        }
        found
    }

    /// Whether the link takes an address by DHCP: when the configuration says so, or says nothing about it.
    pub fn dhcp(&self, name: &str, mac: &str) -> bool {
        let mut mentioned = false;
        for interface in self.interfaces().filter(|interface| is_link(interface, name, mac)) {
            mentioned = true;
            if interface.get("dhcp").and_then(Value::as_bool) == Some(true) {
                return true;
            }
        }
        let named = |kind| self.documents_of(kind).any(|one| one.get("name").and_then(Value::as_str) == Some(name));
        named("DHCPv4Config") || !mentioned && !named("LinkConfig")
    }

    /// Shared addresses that control planes hold in turn.
    pub fn shared_addresses(&self) -> Vec<IpAddr> {
        let old = self.interfaces().filter_map(|interface| interface.pointer("/vip/ip")?.as_str()?.parse().ok());
        let new = self.documents_of("Layer2VIPConfig").filter_map(|one| one.get("name")?.as_str()?.parse().ok());
        old.chain(new).collect()
    }

    fn interfaces(&self) -> impl Iterator<Item = &Value> {
        self.main.pointer("/machine/network/interfaces").and_then(Value::as_array).into_iter().flatten()
    }
}

fn is_link(interface: &Value, name: &str, mac: &str) -> bool {
    if let Some(wanted) = interface.get("interface").and_then(Value::as_str) {
        return wanted == name;
    }
    let Some(selector) = interface.get("deviceSelector") else { return false };
    let wanted = selector.get("hardwareAddr").or_else(|| selector.get("permanentAddr")).and_then(Value::as_str);
    match wanted {
        Some(wanted) => wanted.eq_ignore_ascii_case(mac),
        None => selector.get("physical").and_then(Value::as_bool) == Some(true) || selector.get("driver").is_some(),
    }
}

/// `10.0.0.5/24`, or a bare address as a network of its own.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn decode(text: &str) -> String {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

fn first_line(error: &impl ToString) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
