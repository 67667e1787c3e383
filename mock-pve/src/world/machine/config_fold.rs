//! What Talos says in documents of their own since 1.14, put where its configuration of old says it: everything else here
//! reads it there.

use base64::Engine as _;
use serde_json::{Map, Value, json};

/// The taint, and the label, of a node that leads.
const LEADS: &str = "node-role.kubernetes.io/control-plane";

/// A kind of document, a part of it, and where that part was before.
const PLACES: &[(&str, &str, &str)] = &[
    ("DiscoveryIdentityConfig", "/clusterID", "/cluster/id"),
    ("DiscoveryIdentityConfig", "/clusterSecret", "/cluster/secret"),
    ("DiscoveryServiceConfig", "/endpoint", "/cluster/discovery/registries/service/endpoint"),
    ("KubeAPIServerConfig", "/certExtraSANs", "/cluster/apiServer/certSANs"),
    ("KubeAPIServerConfig", "/extraArgs", "/cluster/apiServer/extraArgs"),
    ("KubeAPIServerConfig", "/image", "/cluster/apiServer/image"),
    ("KubeAuditPolicyConfig", "/configuration", "/cluster/apiServer/auditPolicy"),
    ("KubeClusterConfig", "/clusterName", "/cluster/clusterName"),
    ("KubeClusterConfig", "/endpoint", "/cluster/controlPlane/endpoint"),
    ("KubeControllerManagerConfig", "/extraArgs", "/cluster/controllerManager/extraArgs"),
    ("KubeControllerManagerConfig", "/image", "/cluster/controllerManager/image"),
    ("KubeNetworkConfig", "/dnsDomain", "/cluster/network/dnsDomain"),
    ("KubeNetworkConfig", "/podSubnets", "/cluster/network/podSubnets"),
    ("KubeNetworkConfig", "/serviceSubnets", "/cluster/network/serviceSubnets"),
    ("KubeNodeConfig", "/annotations", "/machine/nodeAnnotations"),
    ("KubeNodeConfig", "/skipNodeRegistration", "/machine/kubelet/skipNodeRegistration"),
    ("KubePrismConfig", "/port", "/machine/features/kubePrism/port"),
    ("KubeProxyConfig", "/extraArgs", "/cluster/proxy/extraArgs"),
    ("KubeProxyConfig", "/image", "/cluster/proxy/image"),
    ("KubeSchedulerConfig", "/extraArgs", "/cluster/scheduler/extraArgs"),
    ("KubeSchedulerConfig", "/image", "/cluster/scheduler/image"),
    ("KubeletConfig", "/extraArgs", "/machine/kubelet/extraArgs"),
    ("KubeletConfig", "/image", "/machine/kubelet/image"),
    ("ResolverConfig", "/hostDNS", "/machine/features/hostDNS"),
    ("UnattendedInstallConfig", "/installer/image", "/machine/install/image"),
    ("UnattendedInstallConfig", "/provisioning/wipe", "/machine/install/wipe"),
];

/// The same for PEM, which was base64 before.
const PEM: &[(&str, &str, &str)] = &[
    ("KubeAPIServerCAConfig", "/issuingCA/cert", "/cluster/ca/crt"),
    ("KubeAPIServerCAConfig", "/issuingCA/key", "/cluster/ca/key"),
    ("KubeAggregatorCAConfig", "/issuingCA/cert", "/cluster/aggregatorCA/crt"),
    ("KubeAggregatorCAConfig", "/issuingCA/key", "/cluster/aggregatorCA/key"),
    ("KubeServiceAccountConfig", "/issuer/privateKey", "/cluster/serviceAccount/key"),
];

/// The configuration of old, with what the documents say.
pub(super) fn whole(mut main: Value, documents: &[Value]) -> Value {
    let of = |kind: &str| documents.iter().find(|one| one.get("kind").and_then(Value::as_str) == Some(kind));
    for (kind, from, to) in PLACES {
        if let Some(value) = of(kind).and_then(|document| document.pointer(from)) {
            put(&mut main, to, value.clone());
        }
    }
    for (kind, from, to) in PEM {
        if let Some(text) = of(kind).and_then(|document| document.pointer(from)?.as_str()) {
            put(&mut main, to, json!(encode(text)));
        }
    }
    if of("DiscoveryServiceConfig").is_some() {
        put(&mut main, "/cluster/discovery/enabled", json!(true));
    }
    if of("KubePrismConfig").is_some() {
        put(&mut main, "/machine/features/kubePrism/enabled", json!(true));
    }
    if let Some(list) = of("KubeAPIServerCAConfig").and_then(|one| one.get("acceptedCAs")?.as_array()) {
        let all: Vec<Value> =
            list.iter().filter_map(Value::as_str).map(|text| json!({ "crt": encode(text) })).collect();
        put(&mut main, "/cluster/acceptedCAs", json!(all));
    }
    if let Some(node) = of("KubeNodeConfig") {
        let part = |name: &str| -> Map<String, Value> {
            node.get(name).and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let (mut labels, mut taints) = (part("labels"), part("taints"));
        labels.remove(LEADS);
        let closed = taints.remove(LEADS).is_some();
        put(&mut main, "/machine/nodeLabels", json!(labels));
        put(&mut main, "/machine/nodeTaints", json!(taints));
        put(&mut main, "/cluster/allowSchedulingOnControlPlanes", json!(!closed));
    }
    if of("KubeProxyConfig").is_some_and(|one| one.get("enabled") == Some(&json!(false))) {
        put(&mut main, "/cluster/proxy/disabled", json!(true));
    }
    let inline = documents.iter().filter(|one| one["kind"] == "KubeInlineManifestConfig");
    let inline: Vec<Value> = inline.map(|one| json!({ "name": one["name"], "contents": one["manifest"] })).collect();
    if !inline.is_empty() {
        let known = main.pointer("/cluster/inlineManifests").and_then(Value::as_array).cloned().unwrap_or_default();
        put(&mut main, "/cluster/inlineManifests", json!([known, inline].concat()));
    }
    // Once the cluster has its own document, what has none isn't there.
    if of("KubeClusterConfig").is_some() {
        if of("KubeProxyConfig").is_none() {
            put(&mut main, "/cluster/proxy/disabled", json!(true));
        }
        if of("KubeFlannelCNIConfig").is_none() {
            put(&mut main, "/cluster/network/cni/name", json!("none"));
        }
    }
    main
}

fn encode(text: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// Sets a part of a value, and makes what lies above it.
fn put(value: &mut Value, pointer: &str, part: Value) {
    let mut place = value;
    for key in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = part;
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::config::NodeConfig;
    use super::super::versions::Version;

    #[test]
    fn a_configuration_in_documents_is_one() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/talos-configs/cases");
        let file = folder.join("patch-legacy-subnets-replaced-1.14/expected/controlplane.yaml");
        let text = std::fs::read(file).unwrap();
        let config = NodeConfig::parse(&text, Version::of("1.14.0")).unwrap();
        assert_eq!((config.cluster_name(), config.endpoint()), ("lab", "https://10.20.0.10:6443"));
        assert!(config.kubernetes_ca().key.starts_with("-----BEGIN EC PRIVATE KEY-----"));
        assert_eq!(config.strings("/cluster/network/podSubnets"), ["10.244.0.0/16"]);
        assert!(config.discovery() && config.has_proxy() && !config.schedules_on_control_planes());
        // As it was given, it stays.
        assert_eq!(config.text().as_bytes(), text);
        let refused = NodeConfig::parse(&text, Version::of("1.13.9")).unwrap_err().to_string();
        assert!(refused.contains("DiscoveryServiceConfig"), "{refused}");
    }
}
