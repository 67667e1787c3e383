//! What holds between documents: none twice, none that says what another one says, each where it belongs.

use super::{Check, Findings, Mode};
use crate::talos::config::decode::clashes;
use crate::talos::config::kind_of;
use crate::talos::config::schema::shapes;
use crate::talos::config::yaml::{Document, Map, Value};

/// A document's kind and the part of the main document that it takes the place of.
const INSTEAD: &[(&str, &str)] = &[
    ("HostnameConfig", "machine.network.hostname"),
    ("HostnameConfig", "machine.features.stableHostname"),
    ("KubeSpanConfig", "machine.network.kubespan"),
    ("ResolverConfig", "machine.network.nameservers"),
    ("ResolverConfig", "machine.network.searchDomains"),
    ("ResolverConfig", "machine.network.disableSearchDomain"),
    ("ResolverConfig", "machine.features.hostDNS"),
    ("KubePrismConfig", "machine.features.kubePrism"),
    ("UnattendedInstallConfig", "machine.install"),
    ("TimeSyncConfig", "machine.time.disabled"),
    ("TimeSyncConfig", "machine.time.servers"),
    ("TimeSyncConfig", "machine.time.bootTimeout"),
    ("KubeletConfig", "machine.kubelet"),
    ("KubeNodeConfig", "machine.nodeLabels"),
    ("KubeNodeConfig", "machine.nodeAnnotations"),
    ("KubeNodeConfig", "machine.nodeTaints"),
    ("KubeNodeConfig", "cluster.allowSchedulingOnControlPlanes"),
    ("KubeNodeConfig", "cluster.allowSchedulingOnMasters"),
    ("KubeNodeConfig", "machine.kubelet.skipNodeRegistration"),
    ("KubeNodeConfig", "machine.kubelet.registerWithFQDN"),
    ("KubeNodeConfig", "machine.kubelet.nodeIP"),
    ("KubeCredentialProviderConfig", "machine.kubelet"),
    ("KubeTalosAPIAccessConfig", "machine.features.kubernetesTalosAPIAccess"),
    ("ImageCacheConfig", "machine.features.imageCache"),
    ("CRIBaseRuntimeSpecConfig", "machine.baseRuntimeSpecOverrides"),
    ("KubeNetworkConfig", "cluster.network"),
    ("KubeFlannelCNIConfig", "cluster.network"),
    ("KubeProxyConfig", "cluster.proxy"),
    ("KubeAPIServerConfig", "cluster.apiServer"),
    ("KubeAPIServerConfig", "cluster.controlPlane.localAPIServerPort"),
    ("KubeAuditPolicyConfig", "cluster.apiServer.auditPolicy"),
    ("KubeAdmissionControlConfig", "cluster.apiServer.admissionControl"),
    ("KubeAuthorizerConfig", "cluster.apiServer.admissionControl"),
    ("KubeControllerManagerConfig", "cluster.controllerManager"),
    ("KubeControllerManagerConfig", "machine.controlPlane.controllerManager"),
    ("KubeSchedulerConfig", "cluster.scheduler"),
    ("KubeSchedulerConfig", "machine.controlPlane.scheduler"),
    ("KubeCoreDNSConfig", "cluster.coreDNS"),
    ("DiscoveryServiceConfig", "cluster.discovery"),
    ("DiscoveryIdentityConfig", "cluster.id"),
    ("DiscoveryIdentityConfig", "cluster.secret"),
    ("KubeClusterConfig", "cluster.clusterName"),
    ("KubeClusterConfig", "cluster.controlPlane.endpoint"),
    ("KubeAPIServerCAConfig", "cluster.ca"),
    ("KubeAggregatorCAConfig", "cluster.aggregatorCA"),
    ("KubeServiceAccountConfig", "cluster.serviceAccount"),
    ("KubeEtcdEncryptionConfig", "cluster.secretboxEncryptionSecret"),
    ("KubeEtcdEncryptionConfig", "cluster.aescbcEncryptionSecret"),
];

/// No two documents of one kind and name, and none that exclude each other.
pub(super) fn duplicates(documents: &[Document], found: &mut Findings) {
    let roots: Vec<Value> = documents.iter().map(|document| document.root.clone()).collect();
    for (at, what) in clashes(&roots) {
        let document = &documents[at];
        Check { document, kind: kind_of(&document.root), found }.error("", format!("there are {what}"));
    }
}

/// Whether a part of the main document says anything.
fn says(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Text(text) => !text.is_empty(),
        Value::List(list) => !list.is_empty(),
        Value::Map(map) => !map.is_empty(),
        _ => true,
    }
}

pub(super) fn between(documents: &[Document], mode: Mode, found: &mut Findings) {
    let has = |kind: &str| documents.iter().any(|document| kind_of(&document.root) == kind);
    // A resolver without host DNS leaves that to the main document.
    let resolves = documents.iter().any(|document| {
        kind_of(&document.root) == "ResolverConfig" && document.root.at(&["hostDNS"]).is_some_and(says)
    });
    let main = documents.iter().find(|document| kind_of(&document.root) == "v1alpha1");
    for document in documents {
        let kind = kind_of(&document.root);
        let worker =
            main.is_some_and(|main| main.root.at(&["machine", "type"]).and_then(Value::as_text) == Some("worker"));
        if worker && shapes::document(kind).is_some_and(|kind| kind.control_plane) {
            Check { document, kind, found }.error("kind", "is for control planes only");
        }
        // Machines before 1.14, where the main document says who the cluster is, don't look.
        let discovers = has("DiscoveryServiceConfig")
            || main.is_some_and(|main| main.root.at(&["cluster", "discovery", "enabled"]) == Some(&Value::from(true)));
        // Where no document says it, the main one's old key does.
        let path = match kind {
            "KubeSpanConfig" => "enabled",
            "v1alpha1" if !has("KubeSpanConfig") => "machine.network.kubespan.enabled",
            _ => continue,
        };
        let spans = document.root.at(&path.split('.').collect::<Vec<_>>()) == Some(&Value::from(true));
        if spans && has("KubeClusterConfig") && !discovers {
            Check { document, kind, found }.error(path, "needs cluster discovery: a document DiscoveryServiceConfig");
        }
    }
    let Some(main) = main else { return };
    let mut check = Check { document: main, kind: "v1alpha1", found };
    for (kind, path) in INSTEAD {
        let counts = match *path {
            "machine.features.hostDNS" => resolves,
            // A switch that is off says nothing.
            "machine.features.stableHostname" => !check.is_false(path),
            _ => true,
        };
        if has(kind) && counts && check.at(path).is_some_and(says) {
            check.error(path, format!("the document {kind} says this already: keep it in one place"));
        }
    }
    if mode == Mode::Metal && !has("UnattendedInstallConfig") && check.at("machine").is_some() {
        let selector =
            check.at("machine.install.diskSelector").and_then(Value::as_map).is_some_and(|map| !Map::is_empty(map));
        if check.at("machine.install").is_none() {
            check.error("machine.install", "is missing: Talos doesn't know what to install to");
        } else if check.text("machine.install.disk").is_none() && !selector {
            check.error("machine.install", "needs a disk or a diskSelector");
        }
    }
}
