//! What differs between Talos versions, as far as a client notices.

use std::fmt;

/// A Talos version, for comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 13 of v1.13.9.
    pub minor: u32,
    /// 9 of v1.13.9.
    pub patch: u32,
}

impl Version {
    /// Reads `v1.13.9`; what can't be read counts as 0.
    pub fn of(text: &str) -> Self {
        let mut parts =
            text.trim_start_matches('v').split(['.', '-', '+']).skip(1).map(|part| part.parse().unwrap_or(0));
        Self { minor: parts.next().unwrap_or(0), patch: parts.next().unwrap_or(0) }
    }

    /// Since 1.13 the ordinary API daemon also serves maintenance mode.
    pub fn full_maintenance_api(self) -> bool {
        self.minor >= 13
    }

    /// Since 1.13 upgrades are made of steps that the client puts together; the older call stays.
    pub fn has_lifecycle(self) -> bool {
        self.minor >= 13
    }

    /// Before 1.8 an upgrade wipes EPHEMERAL unless it is told not to.
    pub fn wipes_on_upgrade(self) -> bool {
        self.minor < 8
    }

    /// Since 1.12.9 `preserve` also skips what an upgrade asks of etcd.
    pub fn preserve_skips_etcd(self) -> bool {
        self >= Self { minor: 12, patch: 9 }
    }

    /// Whether a second configuration that comes while one is applied is refused (1.12.9, 1.13.5).
    pub fn applies_one_by_one(self) -> bool {
        self.minor >= 14 || self.minor == 13 && self.patch >= 5 || self.minor == 12 && self.patch >= 9
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}.{}", self.minor, self.patch)
    }
}

/// Lowest and highest Kubernetes minor of a Talos minor (Talos, pkg/machinery/compatibility).
fn kubernetes_range(talos: u32) -> (u32, u32) {
    match talos {
        0..=5 => (26, 28),
        6 => (24, 29),
        minor => (minor + 18, minor + 23),
    }
}

/// Refuses a Kubernetes version that this Talos can't run.
pub(super) fn check_kubernetes(talos: Version, kubernetes: &str) -> Result<(), String> {
    let minor = kubernetes.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    let (low, high) = kubernetes_range(talos.minor);
    match minor {
        None => Err(format!("invalid kubernetes version \"{kubernetes}\"")),
        Some(minor) if minor > high => {
            Err(format!("version of Kubernetes {kubernetes} is too new to be used with Talos {talos}"))
        }
        Some(minor) if minor < low => {
            Err(format!("version of Kubernetes {kubernetes} is too old to be used with Talos {talos}"))
        }
        Some(_) => Ok(()),
    }
}

/// etcd's version in a Talos.
pub fn etcd(talos: Version) -> &'static str {
    match talos.minor {
        0..=10 => "3.5.26",
        11 => "3.6.5",
        12 => "3.6.11",
        13 => "3.6.12",
        _ => "3.7.1",
    }
}

/// Whether a Talos knows documents of that kind.
pub(super) fn knows_document(talos: Version, kind: &str) -> bool {
    let since = DOCUMENTS.iter().find(|(_, kinds)| kinds.contains(&kind)).map(|(since, _)| *since);
    since.is_some_and(|since| talos.minor >= since)
}

const DOCUMENTS: &[(u32, &[&str])] = &[
    (5, &["EventSinkConfig", "KmsgLogConfig", "SideroLinkConfig"]),
    (6, &["NetworkDefaultActionConfig", "NetworkRuleConfig"]),
    (7, &["ExtensionServiceConfig", "WatchdogTimerConfig"]),
    (8, &["KubeSpanEndpointsConfig", "TrustedRootsConfig", "VolumeConfig"]),
    (10, &["EthernetConfig", "PCIDriverRebindConfig", "UserVolumeConfig"]),
    (11, &["ExistingVolumeConfig", "RawVolumeConfig", "SwapVolumeConfig", "ZswapConfig"]),
    (
        12,
        &[
            "BondConfig",
            "BridgeConfig",
            "DHCPv4Config",
            "DHCPv6Config",
            "DummyLinkConfig",
            "HCloudVIPConfig",
            "HostnameConfig",
            "Layer2VIPConfig",
            "LinkAliasConfig",
            "LinkConfig",
            "OOMConfig",
            "RegistryAuthConfig",
            "RegistryMirrorConfig",
            "RegistryTLSConfig",
            "ResolverConfig",
            "StaticHostConfig",
            "TimeSyncConfig",
            "VLANConfig",
            "WireguardConfig",
        ],
    ),
    (
        13,
        &[
            "BlackholeRouteConfig",
            "EnvironmentConfig",
            "ExternalVolumeConfig",
            "ImageVerificationConfig",
            "KubeSpanConfig",
            "RoutingRuleConfig",
            "TCPProbeConfig",
            "VRFConfig",
        ],
    ),
    (
        14,
        &[
            "BGPInstanceConfig",
            "CRIBaseRuntimeSpecConfig",
            "CRICustomizationConfig",
            "ContainerConfig",
            "DiscoveryIdentityConfig",
            "DiscoveryServiceConfig",
            "EtcFileConfig",
            "FilesystemScrubConfig",
            "FilesystemTrimConfig",
            "HTTPProbeConfig",
            "ImageCacheConfig",
            "KernelModuleConfig",
            "KubeAPIServerCAConfig",
            "KubeAPIServerConfig",
            "KubeAdmissionControlConfig",
            "KubeAggregatorCAConfig",
            "KubeAuditPolicyConfig",
            "KubeAuthenticationConfig",
            "KubeAuthorizerConfig",
            "KubeClusterConfig",
            "KubeControllerManagerConfig",
            "KubeCoreDNSConfig",
            "KubeCredentialProviderConfig",
            "KubeEtcdEncryptionConfig",
            "KubeExternalManifestConfig",
            "KubeFlannelCNIConfig",
            "KubeInlineManifestConfig",
            "KubeNetworkConfig",
            "KubeNodeConfig",
            "KubePrismConfig",
            "KubeProxyConfig",
            "KubeSchedulerConfig",
            "KubeServiceAccountConfig",
            "KubeStaticPodConfig",
            "KubeTalosAPIAccessConfig",
            "KubeletConfig",
            "LVMLogicalVolumeConfig",
            "LVMVolumeGroupConfig",
            "RAIDArrayConfig",
            "SecurityProfileConfig",
            "SysctlConfig",
            "SysfsConfig",
            "UdevRulesConfig",
            "UnattendedInstallConfig",
            "VethConfig",
        ],
    ),
];

/// The newest Kubernetes that a Talos brings by itself.
pub fn default_kubernetes(talos: Version) -> &'static str {
    match talos.minor {
        0..=5 => "1.28.7",
        6 => "1.29.3",
        7 => "1.30.3",
        8 => "1.31.2",
        9 => "1.32.4",
        10 => "1.33.6",
        11 => "1.34.1",
        12 => "1.35.4",
        13 => "1.36.3",
        _ => "1.37.0",
    }
}

/// The kernel of a Talos.
pub(super) fn kernel(talos: Version) -> String {
    let line = match talos.minor {
        0..=6 => "6.1",
        7..=8 => "6.6",
        9..=13 => "6.12",
        _ => "6.18",
    };
    format!("{line}.{}-talos", 20 + talos.minor * 2 + talos.patch)
}

/// Whether the installer of a Talos lets a host of another version become one (pkg/machinery/compatibility).
pub(super) fn check_upgrade(host: Version, to: Version) -> Result<(), String> {
    let (oldest, newest) = match to.minor {
        2 => (0, 3),
        3 => (0, 5),
        4 => (0, 6),
        5..=8 => (to.minor - 3, to.minor + 2),
        9 => (8, 11),
        10 => (8, 12),
        11..=15 => (to.minor - 2, to.minor + 2),
        _ => return Err(format!("upgrades to version {to} are not supported")),
    };
    if host.minor < oldest {
        return Err(format!("host version {host} is too old to upgrade to Talos {to}"));
    }
    if host.minor >= newest {
        return Err(format!("host version {host} is too new to downgrade to Talos {to}"));
    }
    Ok(())
}
