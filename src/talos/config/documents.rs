//! The documents beside `v1alpha1`: a few since contract 1.12, nearly everything since 1.14.
//!
//! Order and fields as siderolabs/talos pkg/machinery/config/generate/{generate,kubernetes}.go (v1.14.0-rc.1) writes
//! them. Must not know: patches.

use secrecy::ExposeSecret as _;

use super::generate::{EXCLUDE_LABEL, Task, audit_policy, pod_security};
use super::yaml::{Map, Value};
use super::{Cni, LegacyEncryption};
use crate::talos::secrets::{Encryption, KeyPair};

/// The discovery service that machines know without another.
pub(super) const DISCOVERY: &str = "https://discovery.talos.dev/";

const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A document of `kind` without fields.
fn kind(kind: &str) -> Map {
    Map::new().with("apiVersion", "v1alpha1").with("kind", kind)
}

pub(super) fn hostname() -> Map {
    kind("HostnameConfig").with("auto", "stable")
}

pub(super) fn kubespan() -> Map {
    kind("KubeSpanConfig").with("enabled", true)
}

/// A document for each mirrored registry, by name.
pub(super) fn mirrors(task: &Task<'_>) -> Vec<Map> {
    let mut mirrors: Vec<_> = task.input.mirrors.iter().collect();
    mirrors.sort_by(|a, b| a.host.cmp(&b.host));
    mirrors
        .into_iter()
        .map(|mirror| {
            let endpoints: Vec<Value> =
                mirror.endpoints.iter().map(|url| Map::new().with("url", url.as_str()).into()).collect();
            kind("RegistryMirrorConfig").with("name", mirror.host.as_str()).with("endpoints", endpoints)
        })
        .collect()
}

/// The `v1alpha1` document of contract 1.14: what is left of it.
pub(super) fn base(task: &Task<'_>) -> Map {
    let secrets = task.secrets;
    let machine = Map::new()
        .with("type", task.role.to_string())
        .with("token", secrets.trustd_token().expose_secret())
        .with("ca", task.authority(secrets.talos()))
        .with("certSANs", Value::texts(&task.input.extra_sans))
        .with("features", Map::new().with("diskQuotaSupport", true));
    let etcd = task.is_control_plane().then(|| Map::new().with("ca", task.authority(secrets.etcd())));
    let cluster = Map::new().with("token", secrets.bootstrap_token().expose_secret()).with_some("etcd", etcd);
    Map::new()
        .with("version", "v1alpha1")
        .with("debug", false)
        .with("persist", task.input.persist.is_on())
        .with("machine", machine)
        .with("cluster", cluster)
}

/// All documents of contract 1.14 after `v1alpha1`, in the generator's order.
pub(super) fn of_1_14(task: &Task<'_>) -> Vec<Map> {
    let mut documents = Vec::new();
    if task.input.discovery.is_on() {
        documents.push(kind("DiscoveryServiceConfig").with("name", "default").with("endpoint", DISCOVERY));
    }
    documents.push(
        kind("DiscoveryIdentityConfig")
            .with("clusterID", task.secrets.cluster_id().expose_secret())
            .with("clusterSecret", task.secrets.cluster_secret().expose_secret()),
    );
    documents.extend(install(task));
    let dns = Map::new().with("enabled", true).with("forwardKubeDNSToHost", true);
    documents.push(kind("ResolverConfig").with("hostDNS", dns));
    documents.extend(task.sysctls().map(|sysctls| kind("SysctlConfig").with("params", sysctls)));
    documents.push(kind("VolumeConfig").with("name", "EPHEMERAL").with("mount", Map::new().with("secure", true)));
    documents.push(kind("FilesystemTrimConfig").with("interval", "168h0m0s"));
    documents.push(kind("SecurityProfileConfig").with("workloadIsolation", true));
    documents.extend(mirrors(task));
    documents.push(hostname());
    if task.input.kubespan.is_on() {
        documents.push(kubespan());
    }
    documents.extend(node(task));
    if task.is_control_plane() {
        documents.extend(control_plane(task));
    }
    documents
}

fn install(task: &Task<'_>) -> Option<Map> {
    let disk = task.input.install_disk.as_deref()?;
    let installer = Map::new().with_some("image", task.input.install_image.as_deref());
    // The selector is a CEL expression; its strings are quoted as JSON's.
    let selector = Map::new().with("match", format!("disk.dev_path == {}", serde_json::Value::from(disk)));
    Some(
        kind("UnattendedInstallConfig")
            .with_some("installer", (!installer.is_empty()).then_some(installer))
            .with("provisioning", Map::new().with("diskSelector", selector).with("wipe", false)),
    )
}

/// Kubernetes on every machine.
fn node(task: &Task<'_>) -> Vec<Map> {
    let input = task.input;
    let mut node = kind("KubeNodeConfig").with("nodeIP", Map::new());
    if task.is_control_plane() {
        node.set("labels", Map::new().with(CONTROL_PLANE, "").with(EXCLUDE_LABEL, ""));
        if !input.schedule_on_control_planes.is_on() {
            node.set("taints", Map::new().with(CONTROL_PLANE, "NoSchedule"));
        }
    }
    let authority = kind("KubeAPIServerCAConfig");
    let authority = if task.is_control_plane() {
        authority.with("issuingCA", pem_pair(task.secrets.kubernetes()))
    } else {
        authority.with("acceptedCAs", Value::texts([task.secrets.kubernetes().certificate_pem()]))
    };
    vec![
        kind("KubeClusterConfig")
            .with("clusterName", input.cluster_name.as_str())
            .with("endpoint", input.endpoint.as_str()),
        node,
        kind("KubeletConfig")
            .with("image", task.image("ghcr.io/siderolabs/kubelet"))
            .with("config", Map::new())
            .with("defaultRuntimeSeccompProfileEnabled", true),
        kind("KubeNetworkConfig")
            .with("dnsDomain", input.dns_domain.as_str())
            .with("podSubnets", Value::texts(&input.pod_subnets))
            .with("serviceSubnets", Value::texts(&input.service_subnets)),
        authority,
        kind("KubePrismConfig").with("port", input.kubeprism_port),
    ]
}

/// Kubernetes on control planes.
fn control_plane(task: &Task<'_>) -> Vec<Map> {
    let input = task.input;
    let paths = ["/livez", "/readyz", "/healthz"].map(|path| Map::new().with("path", path).into()).to_vec();
    let anonymous = Map::new().with("conditions", paths).with("enabled", true);
    let component = |name: &str, document: &str| kind(document).with("image", task.image(name));
    let issuer = Map::new()
        .with("privateKey", task.secrets.service_account_pem().expose_secret())
        .with("issuerURL", input.endpoint.as_str());
    let mut documents = vec![
        kind("KubeAggregatorCAConfig").with("issuingCA", pem_pair(task.secrets.aggregator())),
        kind("KubeAdmissionControlConfig").with("name", "PodSecurity").with("configuration", pod_security()),
        kind("KubeAuditPolicyConfig").with("configuration", audit_policy()),
        kind("KubeAuthenticationConfig")
            .with("configuration", Map::new().with("anonymous", anonymous).with("jwt", Vec::new())),
        kind("KubeAuthorizerConfig").with("name", "node").with("type", "Node"),
        kind("KubeAuthorizerConfig").with("name", "rbac").with("type", "RBAC"),
        kind("KubeEtcdEncryptionConfig").with("config", encryption(task)),
        kind("KubeServiceAccountConfig").with("issuer", issuer),
        component("registry.k8s.io/kube-apiserver", "KubeAPIServerConfig")
            .with_some("apiPort", input.local_api_port)
            .with_some("certExtraSANs", (!input.extra_sans.is_empty()).then(|| Value::texts(&input.extra_sans))),
        component("registry.k8s.io/kube-controller-manager", "KubeControllerManagerConfig"),
        component("registry.k8s.io/kube-scheduler", "KubeSchedulerConfig").with("config", Map::new()),
        component("registry.k8s.io/kube-proxy", "KubeProxyConfig").with("config", Map::new()),
    ];
    if input.cni == Cni::Flannel {
        documents.push(kind("KubeFlannelCNIConfig").with("backendType", "vxlan").with("backendPort", 4789_u32));
    }
    documents.push(kind("KubeCoreDNSConfig").with("enabled", true));
    if let Cni::Custom(urls) = &input.cni {
        for (at, url) in urls.iter().enumerate() {
            let name = if at == 0 { "custom-cni".to_owned() } else { format!("custom-cni-{}", at + 1) };
            documents.push(kind("KubeExternalManifestConfig").with("name", name).with("url", url.as_str()));
        }
    }
    documents
}

/// Providers and key names as older Talos rendered them: etcd's data names the key it was written with.
fn encryption(task: &Task<'_>) -> Map {
    let as_generator = task.input.legacy_encryption == LegacyEncryption::AsGenerator;
    let (provider, name, secret) = match task.secrets.encryption() {
        Encryption::Secretbox(secret) => ("secretbox", "key2", secret),
        Encryption::AesCbc(secret) => (if as_generator { "secretbox" } else { "aescbc" }, "key1", secret),
    };
    let key = Map::new().with("name", name).with("secret", secret.expose_secret());
    let keys = Map::new().with("keys", vec![Value::Map(key)]);
    let mut providers = vec![Value::Map(Map::new().with(provider, keys))];
    if provider == "aescbc" {
        providers.push(Map::new().with("identity", Map::new()).into());
    }
    let resource = Map::new().with("providers", providers).with("resources", Value::texts(["secrets"]));
    Map::new().with("resources", vec![Value::Map(resource)])
}

fn pem_pair(pair: &KeyPair) -> Map {
    Map::new().with("cert", pair.certificate_pem()).with("key", pair.key_pem().expose_secret())
}
