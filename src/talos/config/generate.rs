//! Generates the documents of one machine.
//!
//! The keys, their order and their defaults are those of siderolabs/talos pkg/machinery/config/generate/*.go
//! (v1.14.0-rc.1). Contracts up to 1.13 are here, the documents of 1.14 in `documents.rs`. Must not know: patches.

use secrecy::ExposeSecret;

use super::documents;
use super::yaml::{Map, Value};
use super::{Cni, Config, Feature, Input, LegacyEncryption};
use crate::talos::secrets::{Encryption, KeyPair, Secrets};
use crate::types::Role;

/// The label that keeps load balancers outside the cluster away from control planes.
pub(super) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The documents of a machine of this role.
pub fn generate(secrets: &Secrets, input: &Input, role: Role) -> Config {
    let task = Task { secrets, input, role };
    let mut config = Config::default();
    if input.contract.has(Feature::KubernetesDocuments) {
        config.push(documents::base(&task));
        for document in documents::of_1_14(&task) {
            config.push(document);
        }
    } else {
        config.push(task.base());
        if input.contract.has(Feature::RegistryDocuments) {
            for document in documents::mirrors(&task) {
                config.push(document);
            }
        }
        if input.contract.has(Feature::HostnameDocument) {
            config.push(documents::hostname());
        }
        if input.contract.has(Feature::NetworkDocuments) && input.kubespan.is_on() {
            config.push(documents::kubespan());
        }
    }
    config
}

/// What is being generated.
pub(super) struct Task<'a> {
    pub(super) secrets: &'a Secrets,
    pub(super) input: &'a Input,
    pub(super) role: Role,
}

impl Task<'_> {
    pub(super) fn has(&self, feature: Feature) -> bool {
        self.input.contract.has(feature)
    }

    pub(super) fn is_control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }

    /// `value` on control planes, nothing on workers.
    fn on_control_plane<T>(&self, value: impl FnOnce() -> T) -> Option<T> {
        self.is_control_plane().then(value)
    }

    /// A certificate with its key, which stays away from workers.
    pub(super) fn authority(&self, pair: &KeyPair) -> Map {
        let key = if self.is_control_plane() { pair.key().expose_secret() } else { "" };
        Map::new().with("crt", pair.certificate()).with("key", key)
    }

    /// A component's image; without a version there is none.
    pub(super) fn image(&self, repository: &str) -> String {
        match self.input.kubernetes.as_str() {
            "" => String::new(),
            version => format!("{repository}:v{version}"),
        }
    }

    pub(super) fn sysctls(&self) -> Option<Map> {
        let mut sysctls: Map =
            self.input.sysctls.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
        sysctls.sort();
        (!sysctls.is_empty()).then_some(sysctls)
    }

    fn base(&self) -> Map {
        Map::new()
            .with("version", "v1alpha1")
            .with("debug", false)
            .with("persist", self.input.persist.is_on())
            .with("machine", self.machine())
            .with("cluster", self.cluster())
    }

    fn machine(&self) -> Map {
        let kubelet = Map::new()
            .with("image", self.image("ghcr.io/siderolabs/kubelet"))
            .with_some("defaultRuntimeSeccompProfileEnabled", self.has(Feature::StableHostname).then_some(true))
            .with_some("disableManifestsDirectory", self.has(Feature::Secretbox).then_some(true));
        let node_labels = self.is_control_plane() && self.has(Feature::ExcludeFromLoadBalancers);
        let documents = self.has(Feature::RegistryDocuments);
        Map::new()
            .with("type", self.role.to_string())
            .with("token", self.secrets.trustd_token().expose_secret())
            .with("ca", self.authority(self.secrets.talos()))
            .with("certSANs", Value::texts(&self.input.extra_sans))
            .with("kubelet", kubelet)
            .with_some("network", self.network())
            .with("install", self.install())
            .with_some("sysctls", self.sysctls())
            .with_some("registries", (!documents).then(|| self.registries()).flatten())
            .with("features", self.features())
            .with_some("nodeLabels", node_labels.then(|| Map::new().with(EXCLUDE_LABEL, "")))
    }

    fn network(&self) -> Option<Map> {
        let kubespan = self.input.kubespan.is_on().then(|| Map::new().with("enabled", true));
        (!self.has(Feature::NetworkDocuments)).then(|| Map::new().with_some("kubespan", kubespan))
    }

    fn install(&self) -> Map {
        let arguments = &self.input.extra_kernel_args;
        let grub = self.has(Feature::GrubUkiCmdline).then_some(true);
        Map::new()
            .with_some("disk", self.input.install_disk.as_deref())
            .with_some("extraKernelArgs", (!arguments.is_empty()).then(|| Value::texts(arguments)))
            .with_some("image", self.input.install_image.as_deref())
            .with("wipe", false)
            .with_some("grubUseUKICmdline", grub)
    }

    fn features(&self) -> Map {
        let mut features = Map::new();
        if !self.has(Feature::LockedFeatures) {
            features = features
                .with("rbac", true)
                .with_some("stableHostname", self.has(Feature::StableHostname).then_some(true))
                .with_some("apidCheckExtKeyUsage", self.has(Feature::Secretbox).then_some(true));
        }
        let prism = || Map::new().with("enabled", true).with("port", self.input.kubeprism_port);
        let forward = self.has(Feature::ForwardKubeDns).then_some(true);
        let dns = || Map::new().with("enabled", true).with_some("forwardKubeDNSToHost", forward);
        features
            .with_some("diskQuotaSupport", self.has(Feature::DiskQuota).then_some(true))
            .with_some("kubePrism", self.has(Feature::KubePrism).then(prism))
            .with_some("hostDNS", self.has(Feature::HostDns).then(dns))
    }

    fn cluster(&self) -> Map {
        let named = self.is_control_plane() || self.has(Feature::WorkerClusterName);
        let component = |name: &str| Map::new().with("image", self.image(&format!("registry.k8s.io/{name}")));
        let key = |key: &secrecy::SecretString| Map::new().with("key", key.expose_secret());
        let by_kubernetes = Map::new().with_some("disabled", self.has(Feature::StableHostname).then_some(true));
        let discovery = Map::new()
            .with("enabled", self.input.discovery.is_on())
            .with("registries", Map::new().with("kubernetes", by_kubernetes).with("service", Map::new()));
        let port = self.on_control_plane(|| self.input.local_api_port).flatten();
        let (encryption, encryption_secret) = self.encryption();
        let scheduling = self.is_control_plane() && self.input.schedule_on_control_planes.is_on();
        Map::new()
            .with("id", self.secrets.cluster_id().expose_secret())
            .with("secret", self.secrets.cluster_secret().expose_secret())
            .with(
                "controlPlane",
                Map::new().with("endpoint", self.input.endpoint.as_str()).with_some("localAPIServerPort", port),
            )
            .with_some("clusterName", named.then_some(self.input.cluster_name.as_str()))
            .with("network", self.cluster_network())
            .with("token", self.secrets.bootstrap_token().expose_secret())
            .with_some(encryption, encryption_secret)
            .with("ca", self.authority(self.secrets.kubernetes()))
            .with_some("aggregatorCA", self.on_control_plane(|| self.authority(self.secrets.aggregator())))
            .with_some("serviceAccount", self.on_control_plane(|| key(self.secrets.service_account())))
            .with_some("apiServer", self.on_control_plane(|| self.api_server()))
            .with_some("controllerManager", self.on_control_plane(|| component("kube-controller-manager")))
            .with_some("proxy", self.on_control_plane(|| component("kube-proxy")))
            .with_some("scheduler", self.on_control_plane(|| component("kube-scheduler")))
            .with("discovery", discovery)
            .with_some("etcd", self.on_control_plane(|| Map::new().with("ca", self.authority(self.secrets.etcd()))))
            .with_some("allowSchedulingOnControlPlanes", scheduling.then_some(true))
    }

    /// Which key the encryption secret stands under, and the secret where it is written.
    fn encryption(&self) -> (&'static str, Option<&str>) {
        let kept = self.input.legacy_encryption == LegacyEncryption::Keep;
        let secretbox = self.has(Feature::Secretbox);
        let (key, secret) = match self.secrets.encryption() {
            Encryption::Secretbox(secret) => ("secretboxEncryptionSecret", (kept || secretbox).then_some(secret)),
            Encryption::AesCbc(secret) => ("aescbcEncryptionSecret", (kept || !secretbox).then_some(secret)),
        };
        (key, secret.filter(|_| self.is_control_plane()).map(ExposeSecret::expose_secret))
    }

    fn cluster_network(&self) -> Map {
        let cni = match &self.input.cni {
            Cni::Flannel => None,
            Cni::None => Some(Map::new().with("name", "none")),
            Cni::Custom(urls) => Some(Map::new().with("name", "custom").with("urls", Value::texts(urls))),
        };
        Map::new()
            .with_some("cni", cni)
            .with("dnsDomain", self.input.dns_domain.as_str())
            .with("podSubnets", Value::texts(&self.input.pod_subnets))
            .with("serviceSubnets", Value::texts(&self.input.service_subnets))
    }

    fn api_server(&self) -> Map {
        let lean = self.has(Feature::LeanApiServer);
        let mut names = Vec::new();
        if !lean {
            names.push(self.input.endpoint_host());
        }
        names.extend(self.input.extra_sans.iter().cloned());
        let admission =
            || vec![Value::Map(Map::new().with("name", "PodSecurity").with("configuration", pod_security()))];
        Map::new()
            .with("image", self.image("registry.k8s.io/kube-apiserver"))
            .with_some("certSANs", (!names.is_empty()).then(|| Value::texts(names)))
            .with_some("disablePodSecurityPolicy", (!lean).then_some(true))
            .with_some("admissionControl", self.has(Feature::PodSecurity).then(admission))
            .with_some("auditPolicy", self.has(Feature::Secretbox).then(audit_policy))
    }

    fn registries(&self) -> Option<Map> {
        let mut hosts = Map::new();
        // The one contract from the time when Kubernetes' images moved.
        if self.has(Feature::StableHostname) && !self.has(Feature::Secretbox) {
            let endpoints = Value::texts(["https://registry.k8s.io", "https://k8s.gcr.io"]);
            hosts.set("k8s.gcr.io", Map::new().with("endpoints", endpoints));
        }
        for mirror in &self.input.mirrors {
            hosts.set(&mirror.host, Map::new().with("endpoints", Value::texts(&mirror.endpoints)));
        }
        hosts.sort();
        (!hosts.is_empty()).then(|| Map::new().with("mirrors", hosts))
    }
}

/// The default configuration of the `PodSecurity` admission plugin.
pub(super) fn pod_security() -> Map {
    let mut defaults = Map::new();
    for (mode, level) in [("audit", "restricted"), ("enforce", "baseline"), ("warn", "restricted")] {
        defaults = defaults.with(mode, level).with(&format!("{mode}-version"), "latest");
    }
    let exemptions = Map::new()
        .with("namespaces", Value::texts(["kube-system"]))
        .with("runtimeClasses", Vec::new())
        .with("usernames", Vec::new());
    Map::new()
        .with("apiVersion", "pod-security.admission.config.k8s.io/v1alpha1")
        .with("defaults", defaults)
        .with("exemptions", exemptions)
        .with("kind", "PodSecurityConfiguration")
}

/// The default audit policy: metadata of everything.
pub(super) fn audit_policy() -> Map {
    Map::new()
        .with("apiVersion", "audit.k8s.io/v1")
        .with("kind", "Policy")
        .with("rules", vec![Map::new().with("level", "Metadata").into()])
}
