//! Keys that documents took the place of.
//!
//! Must not know: what those documents are made from; that is in `translate`.

use super::{Rule, moved};

pub(super) const MOVED: &[Rule] = &[
    moved(
        "hostname",
        12,
        "machine.network.hostname",
        "write the document\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: off\nhostname: NAME",
    ),
    moved(
        "stable-hostname",
        12,
        "machine.features.stableHostname",
        "leave it out: HostnameConfig with auto: stable is the default (auto: off turns it off)",
    ),
    moved(
        "nameservers",
        14,
        "machine.network.nameservers",
        "write the document ResolverConfig with nameservers: [{address: …}]",
    ),
    moved(
        "search-domains",
        14,
        "machine.network.searchDomains",
        "write the document ResolverConfig with searchDomains: {domains: […]}",
    ),
    moved(
        "disable-search-domain",
        14,
        "machine.network.disableSearchDomain",
        "write the document ResolverConfig with searchDomains: {disableDefault: true}",
    ),
    moved("host-dns", 14, "machine.features.hostDNS", "write the document ResolverConfig with hostDNS"),
    moved(
        "kubeprism",
        14,
        "machine.features.kubePrism",
        "write the document KubePrismConfig with port; delete that document ($patch: delete) to turn it off",
    ),
    moved(
        "install",
        14,
        "machine.install",
        "write the document UnattendedInstallConfig: installer.image, provisioning.diskSelector.match, provisioning.wipe",
    ),
    moved(
        "kubelet",
        14,
        "machine.kubelet",
        "write the document KubeletConfig: image, config, extraArgs, clusterDNS; and KubeNodeConfig: nodeIP, registerWithFQDN",
    ),
    moved("node-labels", 14, "machine.nodeLabels", "write the document KubeNodeConfig with labels"),
    moved("node-annotations", 14, "machine.nodeAnnotations", "write the document KubeNodeConfig with annotations"),
    moved("node-taints", 14, "machine.nodeTaints", "write the document KubeNodeConfig with taints"),
    moved(
        "scheduling",
        14,
        "cluster.allowSchedulingOnControlPlanes",
        "write the document KubeNodeConfig with taints: {node-role.kubernetes.io/control-plane: {$patch: delete}}",
    ),
    moved(
        "scheduling-masters",
        14,
        "cluster.allowSchedulingOnMasters",
        "write the document KubeNodeConfig with taints: {node-role.kubernetes.io/control-plane: {$patch: delete}}",
    ),
    moved(
        "controller-manager-off",
        14,
        "machine.controlPlane.controllerManager",
        "write the document KubeControllerManagerConfig (enabled: false turns it off)",
    ),
    moved(
        "scheduler-off",
        14,
        "machine.controlPlane.scheduler",
        "write the document KubeSchedulerConfig (enabled: false turns it off)",
    ),
    moved(
        "pod-subnets",
        14,
        "cluster.network",
        "write the document KubeNetworkConfig; for no CNI delete KubeFlannelCNIConfig ($patch: delete)",
    ),
    moved("proxy", 14, "cluster.proxy", "write the document KubeProxyConfig (enabled: false turns it off)"),
    moved(
        "api-server",
        14,
        "cluster.apiServer",
        "write the document KubeAPIServerConfig: extraArgs, certExtraSANs, env, resources; admission and audit have their own documents",
    ),
    moved("controller-manager", 14, "cluster.controllerManager", "write the document KubeControllerManagerConfig"),
    moved("scheduler", 14, "cluster.scheduler", "write the document KubeSchedulerConfig"),
    moved("coredns", 14, "cluster.coreDNS", "write the document KubeCoreDNSConfig (enabled: false turns it off)"),
    moved(
        "discovery",
        14,
        "cluster.discovery",
        "write the document DiscoveryServiceConfig, or delete it ($patch: delete)",
    ),
    moved("endpoint", 14, "cluster.controlPlane", "write the document KubeClusterConfig with endpoint"),
    moved("cluster-name", 14, "cluster.clusterName", "write the document KubeClusterConfig with clusterName"),
    moved(
        "identity",
        14,
        "cluster.id",
        "write the document DiscoveryIdentityConfig with clusterID; better leave it to the secrets file",
    ),
    moved(
        "identity",
        14,
        "cluster.secret",
        "write the document DiscoveryIdentityConfig with clusterSecret; better leave it to the secrets file",
    ),
    moved(
        "kubernetes-ca",
        14,
        "cluster.ca",
        "write the document KubeAPIServerCAConfig with issuingCA; better leave it to the secrets file",
    ),
    moved(
        "aggregator-ca",
        14,
        "cluster.aggregatorCA",
        "write the document KubeAggregatorCAConfig with issuingCA; better leave it to the secrets file",
    ),
    moved(
        "service-account",
        14,
        "cluster.serviceAccount",
        "write the document KubeServiceAccountConfig with issuer.privateKey; better leave it to the secrets file",
    ),
    moved(
        "secretbox",
        14,
        "cluster.secretboxEncryptionSecret",
        "write the document KubeEtcdEncryptionConfig with config; better leave it to the secrets file",
    ),
    moved(
        "aescbc",
        14,
        "cluster.aescbcEncryptionSecret",
        "write the document KubeEtcdEncryptionConfig with config; better leave it to the secrets file",
    ),
];
