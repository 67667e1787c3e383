//! Which Talos version first reads a key or a document.
//!
//! From the types in siderolabs/talos `pkg/machinery/config/types`, compared at the last release of each minor version from
//! v1.5.6 to v1.13.9 and at v1.14.0-rc.1. Must not know: what became of keys later; that is in `rules`.

/// Keys that came later than Talos 1.5 or than their document, with the first minor version that reads them. Versions
/// before refuse a configuration with one. In paths `[]` is every element of a list, `{}` every entry of a mapping.
pub(super) const KEYS: &[(&str, &str, u32)] = &[
    ("v1alpha1", "cluster.acceptedCAs", 7),
    ("v1alpha1", "cluster.apiServer.authorizationConfig", 9),
    ("v1alpha1", "cluster.network.cni.flannel", 6),
    ("v1alpha1", "cluster.network.cni.flannel.kubeNetworkPoliciesEnabled", 13),
    ("v1alpha1", "cluster.scheduler.config", 6),
    ("v1alpha1", "machine.acceptedCAs", 7),
    ("v1alpha1", "machine.baseRuntimeSpecOverrides", 9),
    ("v1alpha1", "machine.features.hostDNS", 7),
    ("v1alpha1", "machine.features.imageCache", 9),
    ("v1alpha1", "machine.features.nodeAddressSortAlgorithm", 9),
    ("v1alpha1", "machine.install.grubUseUKICmdline", 12),
    ("v1alpha1", "machine.kubelet.credentialProviderConfig", 6),
    ("v1alpha1", "machine.kubelet.extraMounts[].gidMappings", 6),
    ("v1alpha1", "machine.kubelet.extraMounts[].uidMappings", 6),
    ("v1alpha1", "machine.logging.destinations[].extraTags", 7),
    ("v1alpha1", "machine.network.interfaces[].bond.deviceSelectors[].permanentAddr", 9),
    ("v1alpha1", "machine.network.interfaces[].bond.deviceSelectors[].physical", 7),
    ("v1alpha1", "machine.network.interfaces[].bridge.vlan", 8),
    ("v1alpha1", "machine.network.interfaces[].bridgePort", 9),
    ("v1alpha1", "machine.network.interfaces[].deviceSelector.permanentAddr", 9),
    ("v1alpha1", "machine.network.interfaces[].deviceSelector.physical", 7),
    ("v1alpha1", "machine.network.kubespan.filters.excludeAdvertisedNetworks", 12),
    ("v1alpha1", "machine.network.kubespan.harvestExtraEndpoints", 6),
    ("v1alpha1", "machine.network.searchDomains", 9),
    ("v1alpha1", "machine.nodeAnnotations", 8),
    ("v1alpha1", "machine.nodeTaints", 6),
    ("v1alpha1", "machine.registries.mirrors{}.skipFallback", 9),
    ("v1alpha1", "machine.systemDiskEncryption.ephemeral.keys[].tpm.checkSecurebootStatusOnEnroll", 6),
    ("v1alpha1", "machine.systemDiskEncryption.state.keys[].tpm.checkSecurebootStatusOnEnroll", 6),
    ("DHCPv4Config", "ignoreRoutes", 14),
    ("EthernetConfig", "wakeOnLan", 12),
    ("ExistingVolumeConfig", "mount.disableAccessTime", 13),
    ("ExistingVolumeConfig", "mount.secure", 13),
    ("ExistingVolumeConfig", "scrub", 14),
    ("ExistingVolumeConfig", "trim", 14),
    ("RawVolumeConfig", "encryption.allowDiscards", 14),
    ("RawVolumeConfig", "encryption.keys[].tpm.options", 12),
    ("ResolverConfig", "hostDNS", 14),
    ("ResolverConfig", "nameservers[].protocol", 14),
    ("ResolverConfig", "nameservers[].tlsServerName", 14),
    ("SideroLinkConfig", "uniqueToken", 10),
    ("SwapVolumeConfig", "encryption.allowDiscards", 14),
    ("SwapVolumeConfig", "encryption.keys[].tpm.options", 12),
    ("TimeSyncConfig", "ntp.useNTS", 14),
    ("UserVolumeConfig", "encryption.allowDiscards", 14),
    ("UserVolumeConfig", "encryption.keys[].lockToState", 11),
    ("UserVolumeConfig", "encryption.keys[].tpm.options", 12),
    ("UserVolumeConfig", "filesystem.projectQuotaSupport", 11),
    ("UserVolumeConfig", "filesystem.xfs", 14),
    ("UserVolumeConfig", "mount", 13),
    ("UserVolumeConfig", "scrub", 14),
    ("UserVolumeConfig", "trim", 14),
    ("UserVolumeConfig", "volumeType", 12),
    ("VolumeConfig", "encryption", 11),
    ("VolumeConfig", "encryption.allowDiscards", 14),
    ("VolumeConfig", "encryption.keys[].tpm.options", 12),
    ("VolumeConfig", "filesystem", 14),
    ("VolumeConfig", "mount", 13),
    ("VolumeConfig", "mount.disableAccessTime", 14),
    ("VolumeConfig", "scrub", 14),
    ("VolumeConfig", "trim", 14),
];

/// The first minor version that reads documents of a kind, where that is not all of those this program knows.
pub(super) fn kind_since(kind: &str) -> Option<u32> {
    Some(match kind {
        "v1alpha1" | "KmsgLogConfig" | "SideroLinkConfig" | "EventSinkConfig" => return None,
        "NetworkDefaultActionConfig" | "NetworkRuleConfig" => 6,
        "ExtensionServiceConfig" | "WatchdogTimerConfig" => 7,
        "VolumeConfig" | "KubeSpanEndpointsConfig" | "TrustedRootsConfig" => 8,
        "EthernetConfig" | "UserVolumeConfig" | "PCIDriverRebindConfig" => 10,
        "RawVolumeConfig" | "SwapVolumeConfig" | "ZswapConfig" | "ExistingVolumeConfig" => 11,
        "HostnameConfig"
        | "ResolverConfig"
        | "TimeSyncConfig"
        | "LinkConfig"
        | "LinkAliasConfig"
        | "BondConfig"
        | "BridgeConfig"
        | "VLANConfig"
        | "DHCPv4Config"
        | "DHCPv6Config"
        | "DummyLinkConfig"
        | "WireguardConfig"
        | "Layer2VIPConfig"
        | "HCloudVIPConfig"
        | "StaticHostConfig"
        | "RegistryMirrorConfig"
        | "RegistryAuthConfig"
        | "RegistryTLSConfig"
        | "OOMConfig" => 12,
        "KubeSpanConfig"
        | "EnvironmentConfig"
        | "ImageVerificationConfig"
        | "ExternalVolumeConfig"
        | "TCPProbeConfig"
        | "BlackholeRouteConfig"
        | "RoutingRuleConfig"
        | "VRFConfig" => 13,
        kind if kind.starts_with("Kube") => 14,
        "BGPInstanceConfig"
        | "HTTPProbeConfig"
        | "CRIBaseRuntimeSpecConfig"
        | "ContainerConfig"
        | "CRICustomizationConfig"
        | "DiscoveryIdentityConfig"
        | "DiscoveryServiceConfig"
        | "EtcFileConfig"
        | "FilesystemScrubConfig"
        | "FilesystemTrimConfig"
        | "ImageCacheConfig"
        | "KernelModuleConfig"
        | "LVMLogicalVolumeConfig"
        | "LVMVolumeGroupConfig"
        | "RAIDArrayConfig"
        | "SecurityProfileConfig"
        | "SysctlConfig"
        | "SysfsConfig"
        | "UdevRulesConfig"
        | "UnattendedInstallConfig"
        | "VethConfig" => 14,
        _ => return None,
    })
}
