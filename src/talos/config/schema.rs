//! What is known of the shape of documents: kinds, keys, their order, and where users put keys of their own.
//!
//! The order is only form, kept so that patched files can be compared with the real tool's line by line; unknown keys and
//! kinds are told to the user, because a node would refuse them. Places are written `kind:path`; a list's elements are
//! `[]`, an entry with a key of the user's choice is `*`. Must not know: how documents were made.

use super::yaml::{Map, Number, Value};

/// Keys in the order of the real tool's types (siderolabs/talos `pkg/machinery/config/types`, v1.13.9 and v1.14.0-rc.1).
/// For `v1alpha1` they are all there are.
const TYPED: &[(&str, &str)] = &[
    ("v1alpha1:", "version debug persist machine cluster"),
    (
        "v1alpha1:machine",
        "type token ca acceptedCAs certSANs controlPlane kubelet pods network disks install files env time sysctls \
         sysfs registries systemDiskEncryption features udev logging kernel seccompProfiles \
         baseRuntimeSpecOverrides nodeLabels nodeAnnotations nodeTaints",
    ),
    ("v1alpha1:machine.ca", "crt key"),
    ("v1alpha1:machine.acceptedCAs[]", "crt key"),
    ("v1alpha1:machine.controlPlane", "controllerManager scheduler"),
    ("v1alpha1:machine.controlPlane.controllerManager", "disabled"),
    ("v1alpha1:machine.controlPlane.scheduler", "disabled"),
    (
        "v1alpha1:machine.kubelet",
        "image clusterDNS extraArgs extraMounts extraConfig credentialProviderConfig \
         defaultRuntimeSeccompProfileEnabled registerWithFQDN nodeIP skipNodeRegistration disableManifestsDirectory",
    ),
    ("v1alpha1:machine.kubelet.extraMounts[]", "destination type source options uidMappings gidMappings"),
    ("v1alpha1:machine.kubelet.nodeIP", "validSubnets"),
    (
        "v1alpha1:machine.network",
        "hostname interfaces nameservers searchDomains extraHostEntries kubespan disableSearchDomain",
    ),
    (
        "v1alpha1:machine.network.kubespan",
        "enabled advertiseKubernetesNetworks allowDownPeerBypass harvestExtraEndpoints mtu filters",
    ),
    (
        "v1alpha1:machine.network.interfaces[]",
        "interface deviceSelector addresses cidr routes bond bridge bridgePort vlans mtu dhcp ignore dummy \
         dhcpOptions wireguard vip",
    ),
    (
        "v1alpha1:machine.network.interfaces[].deviceSelector",
        "busPath hardwareAddr permanentAddr pciID driver physical",
    ),
    ("v1alpha1:machine.network.interfaces[].routes[]", "network gateway source metric mtu"),
    ("v1alpha1:machine.network.interfaces[].vlans[]", "addresses cidr routes dhcp vlanId mtu vip dhcpOptions"),
    ("v1alpha1:machine.network.interfaces[].dhcpOptions", "routeMetric ipv4 ipv6 duidv6"),
    ("v1alpha1:machine.network.interfaces[].vip", "ip equinixMetal hcloud"),
    (
        "v1alpha1:machine.network.interfaces[].bond",
        "interfaces deviceSelectors arpIPTarget mode xmitHashPolicy lacpRate adActorSystem arpValidate \
         arpAllTargets primary primaryReselect failOverMac adSelect miimon updelay downdelay arpInterval resendIgmp \
         minLinks lpInterval packetsPerSlave numPeerNotif tlbDynamicLb allSlavesActive useCarrier adActorSysPrio \
         adUserPortKey peerNotifyDelay",
    ),
    ("v1alpha1:machine.network.interfaces[].bridge", "interfaces stp vlan"),
    ("v1alpha1:machine.network.extraHostEntries[]", "ip aliases"),
    ("v1alpha1:machine.disks[]", "device partitions"),
    ("v1alpha1:machine.disks[].partitions[]", "size mountpoint"),
    (
        "v1alpha1:machine.install",
        "disk diskSelector extraKernelArgs image extensions bootloader wipe legacyBIOSSupport grubUseUKICmdline",
    ),
    ("v1alpha1:machine.install.diskSelector", "size name model serial modalias uuid wwid type busPath"),
    ("v1alpha1:machine.install.extensions[]", "image"),
    ("v1alpha1:machine.files[]", "content permissions path op"),
    ("v1alpha1:machine.time", "disabled servers bootTimeout"),
    ("v1alpha1:machine.registries", "mirrors config"),
    ("v1alpha1:machine.registries.mirrors.*", "endpoints overridePath skipFallback"),
    ("v1alpha1:machine.registries.config.*", "tls auth"),
    ("v1alpha1:machine.registries.config.*.tls", "clientIdentity ca insecureSkipVerify"),
    ("v1alpha1:machine.registries.config.*.auth", "username password auth identityToken"),
    ("v1alpha1:machine.systemDiskEncryption", "state ephemeral"),
    (
        "v1alpha1:machine.features",
        "rbac stableHostname kubernetesTalosAPIAccess apidCheckExtKeyUsage diskQuotaSupport kubePrism hostDNS \
         imageCache nodeAddressSortAlgorithm",
    ),
    ("v1alpha1:machine.features.kubernetesTalosAPIAccess", "enabled allowedRoles allowedKubernetesNamespaces"),
    ("v1alpha1:machine.features.kubePrism", "enabled port"),
    ("v1alpha1:machine.features.hostDNS", "enabled forwardKubeDNSToHost resolveMemberNames"),
    ("v1alpha1:machine.features.imageCache", "localEnabled"),
    ("v1alpha1:machine.udev", "rules"),
    ("v1alpha1:machine.logging", "destinations"),
    ("v1alpha1:machine.logging.destinations[]", "endpoint format extraTags"),
    ("v1alpha1:machine.kernel", "modules"),
    ("v1alpha1:machine.kernel.modules[]", "name parameters"),
    ("v1alpha1:machine.seccompProfiles[]", "name value"),
    (
        "v1alpha1:cluster",
        "id secret controlPlane clusterName network token aescbcEncryptionSecret secretboxEncryptionSecret ca \
         acceptedCAs aggregatorCA serviceAccount apiServer controllerManager proxy scheduler discovery etcd coreDNS \
         externalCloudProvider extraManifests extraManifestHeaders inlineManifests adminKubeconfig \
         allowSchedulingOnMasters allowSchedulingOnControlPlanes",
    ),
    ("v1alpha1:cluster.controlPlane", "endpoint localAPIServerPort"),
    ("v1alpha1:cluster.network", "cni dnsDomain podSubnets serviceSubnets"),
    ("v1alpha1:cluster.network.cni", "name urls flannel"),
    ("v1alpha1:cluster.network.cni.flannel", "extraArgs kubeNetworkPoliciesEnabled"),
    ("v1alpha1:cluster.ca", "crt key"),
    ("v1alpha1:cluster.aggregatorCA", "crt key"),
    ("v1alpha1:cluster.serviceAccount", "key"),
    (
        "v1alpha1:cluster.apiServer",
        "image extraArgs extraVolumes env certSANs disablePodSecurityPolicy admissionControl auditPolicy resources \
         authorizationConfig",
    ),
    ("v1alpha1:cluster.apiServer.extraVolumes[]", "hostPath mountPath readonly"),
    ("v1alpha1:cluster.apiServer.admissionControl[]", "name configuration"),
    ("v1alpha1:cluster.apiServer.resources", "requests limits"),
    ("v1alpha1:cluster.apiServer.authorizationConfig[]", "type name webhook"),
    ("v1alpha1:cluster.controllerManager", "image extraArgs extraVolumes env resources"),
    ("v1alpha1:cluster.proxy", "disabled image mode extraArgs"),
    ("v1alpha1:cluster.scheduler", "image extraArgs extraVolumes env resources config"),
    ("v1alpha1:cluster.discovery", "enabled registries"),
    ("v1alpha1:cluster.discovery.registries", "kubernetes service"),
    ("v1alpha1:cluster.discovery.registries.kubernetes", "disabled"),
    ("v1alpha1:cluster.discovery.registries.service", "disabled endpoint"),
    ("v1alpha1:cluster.etcd", "image ca extraArgs subnet advertisedSubnets listenSubnets"),
    ("v1alpha1:cluster.etcd.ca", "crt key"),
    ("v1alpha1:cluster.coreDNS", "disabled image"),
    ("v1alpha1:cluster.externalCloudProvider", "enabled manifests"),
    ("v1alpha1:cluster.inlineManifests[]", "name contents"),
    ("v1alpha1:cluster.adminKubeconfig", "certLifetime"),
    ("ExtensionServiceConfig:", "apiVersion kind name configFiles environment"),
    ("ExtensionServiceConfig:configFiles[]", "content mountPath"),
    ("UserVolumeConfig:", "apiVersion kind name volumeType provisioning filesystem encryption mount trim scrub"),
    ("UserVolumeConfig:provisioning", "diskSelector grow minSize maxSize"),
    ("VolumeConfig:", "apiVersion kind name provisioning filesystem encryption mount trim scrub"),
    ("VolumeConfig:provisioning", "diskSelector grow minSize maxSize"),
    ("HostnameConfig:", "apiVersion kind auto hostname"),
    ("LinkConfig:", "apiVersion kind name up mtu addresses routes multicast"),
    ("LinkConfig:addresses[]", "address routePriority"),
    ("LinkAliasConfig:", "apiVersion kind name selector"),
    ("ResolverConfig:", "apiVersion kind nameservers searchDomains hostDNS"),
    ("ResolverConfig:nameservers[]", "address protocol tlsServerName"),
    (
        "KubeSpanConfig:",
        "apiVersion kind enabled advertiseKubernetesNetworks allowDownPeerBypass harvestExtraEndpoints mtu filters",
    ),
    ("TimeSyncConfig:", "apiVersion kind enabled bootTimeout ntp ptp"),
    ("RegistryMirrorConfig:", "apiVersion kind name endpoints skipFallback"),
    ("NetworkRuleConfig:", "apiVersion kind name portSelector ingress"),
    ("NetworkRuleConfig:portSelector", "ports protocol"),
    ("UnattendedInstallConfig:", "apiVersion kind reboot installer provisioning"),
    ("UnattendedInstallConfig:provisioning", "diskSelector wipe"),
    ("KubeletConfig:", "apiVersion kind image config extraArgs clusterDNS defaultRuntimeSeccompProfileEnabled"),
    ("KubeNodeConfig:", "apiVersion kind skipNodeRegistration registerWithFQDN nodeIP labels annotations taints"),
    (
        "KubeNetworkConfig:",
        "apiVersion kind dnsDomain podSubnets serviceSubnets nodeCIDRMaskSizeIPv4 nodeCIDRMaskSizeIPv6",
    ),
    ("KubeAPIServerConfig:", "apiVersion kind image extraArgs env resources apiPort certExtraSANs startupProbes"),
    ("KubeControllerManagerConfig:", "apiVersion kind enabled image extraArgs env resources"),
    ("KubeSchedulerConfig:", "apiVersion kind enabled image config extraArgs env resources"),
    ("KubeProxyConfig:", "apiVersion kind enabled image mode config extraArgs resources"),
    (
        "KubeFlannelCNIConfig:",
        "apiVersion kind backendType backendPort backendMTU backendExtraConfig resources extraArgs \
         kubeNetworkPoliciesEnabled",
    ),
    ("KubeCoreDNSConfig:", "apiVersion kind enabled image"),
    ("KubePrismConfig:", "apiVersion kind port tlsServerName"),
    ("KubeServiceAccountConfig:", "apiVersion kind issuer accepted"),
];

/// Maps with keys of the user's choice, at any depth below.
const FREE: &[&str] = &[
    "v1alpha1:machine.kubelet.extraArgs",
    "v1alpha1:machine.kubelet.extraConfig",
    "v1alpha1:machine.kubelet.credentialProviderConfig",
    "v1alpha1:machine.env",
    "v1alpha1:machine.sysctls",
    "v1alpha1:machine.sysfs",
    "v1alpha1:machine.baseRuntimeSpecOverrides",
    "v1alpha1:machine.pods[]",
    "v1alpha1:machine.seccompProfiles[].value",
    "v1alpha1:machine.nodeLabels",
    "v1alpha1:machine.nodeAnnotations",
    "v1alpha1:machine.nodeTaints",
    "v1alpha1:machine.logging.destinations[].extraTags",
    "v1alpha1:cluster.apiServer.extraArgs",
    "v1alpha1:cluster.apiServer.env",
    "v1alpha1:cluster.apiServer.admissionControl[].configuration",
    "v1alpha1:cluster.apiServer.auditPolicy",
    "v1alpha1:cluster.controllerManager.extraArgs",
    "v1alpha1:cluster.controllerManager.env",
    "v1alpha1:cluster.proxy.extraArgs",
    "v1alpha1:cluster.scheduler.extraArgs",
    "v1alpha1:cluster.scheduler.env",
    "v1alpha1:cluster.scheduler.config",
    "v1alpha1:cluster.etcd.extraArgs",
    "v1alpha1:cluster.extraManifestHeaders",
    "v1alpha1:cluster.apiServer.authorizationConfig[].webhook",
    "SysctlConfig:params",
    "SysfsConfig:params",
    "EnvironmentConfig:variables",
    "KubeletConfig:config",
    "KubeletConfig:extraArgs",
    "KubeNodeConfig:labels",
    "KubeNodeConfig:annotations",
    "KubeNodeConfig:taints",
    "KubeAPIServerConfig:extraArgs",
    "KubeAPIServerConfig:env",
    "KubeControllerManagerConfig:extraArgs",
    "KubeControllerManagerConfig:env",
    "KubeSchedulerConfig:config",
    "KubeSchedulerConfig:extraArgs",
    "KubeSchedulerConfig:env",
    "KubeProxyConfig:config",
    "KubeProxyConfig:extraArgs",
    "KubeAdmissionControlConfig:configuration",
    "KubeAuditPolicyConfig:configuration",
    "KubeAuthenticationConfig:configuration",
    "KubeCredentialProviderConfig:configuration",
    "KubeEtcdEncryptionConfig:config",
    "CRIBaseRuntimeSpecConfig:overrides",
];

/// Maps with keys of the user's choice and entries of a known shape.
const KEYED: &[&str] = &["v1alpha1:machine.registries.mirrors", "v1alpha1:machine.registries.config"];

/// Keys that are written even when nobody set them, once the object around them is there.
const ALWAYS: &[(&str, &str, Always)] = &[
    ("v1alpha1:cluster.network", "dnsDomain", Always::Text),
    ("v1alpha1:cluster.network", "podSubnets", Always::List),
    ("v1alpha1:cluster.network", "serviceSubnets", Always::List),
    ("v1alpha1:cluster.controlPlane", "endpoint", Always::Text),
    ("v1alpha1:machine.install", "wipe", Always::False),
];

#[derive(Clone, Copy)]
enum Always {
    Text,
    List,
    False,
}

/// All kinds of documents beside `v1alpha1`.
const KINDS: &str = "BGPInstanceConfig BlackholeRouteConfig BondConfig BridgeConfig CRIBaseRuntimeSpecConfig CRICustomizationConfig \
     ContainerConfig DHCPv4Config DHCPv6Config DiscoveryIdentityConfig DiscoveryServiceConfig DummyLinkConfig \
     EnvironmentConfig EtcFileConfig EthernetConfig EventSinkConfig ExistingVolumeConfig ExtensionServiceConfig \
     ExternalVolumeConfig FilesystemScrubConfig FilesystemTrimConfig HCloudVIPConfig HTTPProbeConfig HostnameConfig \
     ImageCacheConfig ImageVerificationConfig KernelModuleConfig KmsgLogConfig KubeAPIServerCAConfig \
     KubeAPIServerConfig KubeAdmissionControlConfig KubeAggregatorCAConfig KubeAuditPolicyConfig \
     KubeAuthenticationConfig KubeAuthorizerConfig KubeClusterConfig KubeControllerManagerConfig KubeCoreDNSConfig \
     KubeCredentialProviderConfig KubeEtcdEncryptionConfig KubeExternalManifestConfig KubeFlannelCNIConfig \
     KubeInlineManifestConfig KubeNetworkConfig KubeNodeConfig KubePrismConfig KubeProxyConfig KubeSchedulerConfig \
     KubeServiceAccountConfig KubeSpanConfig KubeSpanEndpoints KubeStaticPodConfig KubeTalosAPIAccessConfig \
     KubeletConfig LVMLogicalVolumeConfig LVMVolumeGroupConfig Layer2VIPConfig LinkAliasConfig LinkConfig \
     NetworkDefaultActionConfig NetworkRuleConfig OOMConfig PCIDriverRebindConfig RAIDArrayConfig RawVolumeConfig \
     RegistryAuthConfig RegistryMirrorConfig RegistryTLSConfig ResolverConfig RoutingRuleConfig \
     SecurityProfileConfig SideroLinkConfig StaticHostConfig SwapVolumeConfig SysctlConfig SysfsConfig \
     TCPProbeConfig TimeSyncConfig TrustedRootsConfig UdevRulesConfig UnattendedInstallConfig UserVolumeConfig \
     VLANConfig VRFConfig VethConfig VolumeConfig WatchdogTimerConfig WireguardConfig ZswapConfig";

/// Whether a document of this kind can be read by the Talos versions this program knows.
pub(super) fn knows_kind(kind: &str) -> bool {
    KINDS.split(' ').any(|known| known == kind)
}

/// The kind that was probably meant.
pub(super) fn nearest_kind(kind: &str) -> Option<String> {
    nearest(kind, KINDS)
}

/// A key that no configuration has.
pub(super) struct Unknown {
    /// Its path.
    pub(super) path: String,
    /// The key there that was probably meant.
    pub(super) nearest: Option<String>,
}

/// The first key of a `v1alpha1` document that is unknown.
pub(super) fn unknown_key(document: &Map) -> Option<Unknown> {
    unknown_in(document, "v1alpha1:", "")
}

fn unknown_in(map: &Map, place: &str, path: &str) -> Option<Unknown> {
    if FREE.contains(&place) {
        return None;
    }
    let known = TYPED.iter().find(|(typed, _)| *typed == place).map(|(_, keys)| *keys);
    map.iter().find_map(|(key, value)| {
        let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match known {
            Some(keys) if key != "$patch" && !keys.split(' ').any(|known| known == key) => {
                Some(Unknown { path, nearest: nearest(key, keys) })
            }
            _ => unknown_below(value, &inner(place, key), &path),
        }
    })
}

fn unknown_below(value: &Value, place: &str, path: &str) -> Option<Unknown> {
    match value {
        Value::Map(map) => unknown_in(map, place, path),
        Value::List(list) => list
            .iter()
            .enumerate()
            .find_map(|(at, value)| unknown_below(value, &format!("{place}[]"), &format!("{path}[{at}]"))),
        _ => None,
    }
}

fn nearest(word: &str, known: &str) -> Option<String> {
    known
        .split(' ')
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &word.to_lowercase()), known))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}

/// The place of `key` in the mapping at `place`.
fn inner(place: &str, key: &str) -> String {
    let key = if KEYED.contains(&place) { "*" } else { key };
    if place.ends_with(':') { format!("{place}{key}") } else { format!("{place}.{key}") }
}

/// Writes a document as the real tool would: its keys in order, what it always writes added, file modes in octal.
/// Unknown keys keep their order, behind the known ones.
pub(super) fn arrange(kind: &str, document: &mut Map) {
    arrange_map(document, &format!("{kind}:"));
}

fn arrange_map(map: &mut Map, place: &str) {
    if FREE.contains(&place) {
        sort(map);
        return;
    }
    for (_, key, always) in ALWAYS.iter().filter(|(parent, ..)| *parent == place) {
        if map.get(key).is_some() {
            continue;
        }
        match always {
            Always::Text => map.set(key, ""),
            Always::List => map.set(key, Vec::new()),
            Always::False => map.set(key, false),
        }
    }
    if let Some((_, keys)) = TYPED.iter().find(|(typed, _)| *typed == place) {
        let keys: Vec<&str> = keys.split(' ').collect();
        let mut pairs: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
        pairs.sort_by_key(|(key, _)| keys.iter().position(|known| known == key).unwrap_or(keys.len()));
        *map = pairs.into_iter().collect();
    } else if KEYED.contains(&place) {
        map.sort();
    }
    for (key, value) in map.iter_mut() {
        arrange_value(value, &inner(place, key));
    }
}

fn arrange_value(value: &mut Value, place: &str) {
    match value {
        Value::Map(map) => arrange_map(map, place),
        Value::List(list) => {
            let place = format!("{place}[]");
            for element in list {
                arrange_value(element, &place);
            }
        }
        Value::Number(number) if place == "v1alpha1:machine.files[].permissions" => {
            if let Some(octal) = Number::octal(number.normal()) {
                *number = octal;
            }
        }
        _ => {}
    }
}

fn sort(map: &mut Map) {
    map.sort();
    for (_, value) in map.iter_mut() {
        sort_value(value);
    }
}

/// Sorts the keys of all mappings.
pub(super) fn sort_value(value: &mut Value) {
    match value {
        Value::Map(map) => sort(map),
        Value::List(list) => list.iter_mut().for_each(sort_value),
        _ => {}
    }
}
