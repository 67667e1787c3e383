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
    (5, &["EventSinkConfig", "KmsgLogConfig", "NetworkDefaultActionConfig", "NetworkRuleConfig", "SideroLinkConfig"]),
    (7, &["ExtensionServiceConfig", "WatchdogTimerConfig"]),
    (8, &["KubespanEndpointsConfig", "TrustedRootsConfig", "VolumeConfig"]),
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
];
