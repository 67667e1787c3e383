//! Which Talos version's configuration is written, and what that version knows.
//!
//! A contract is the minor version a configuration is generated for. It must not be newer than the Talos that reads it:
//! a node refuses keys and documents it does not know, while a newer Talos keeps on reading older contracts. Those before
//! 1.5 are written for the verbs in talosctl's place alone ([`Contract::nearest`]): clusters are not built of them.
//! Must not know: documents. Start with [`Feature`].

use std::fmt;
use std::str::FromStr;

use crate::types::{Malformed, Version};

/// A version contract, `1.5` to `1.14`; older ones come of [`nearest`](Self::nearest) alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contract {
    major: u32,
    minor: u32,
}

/// Something in a generated configuration that begins, or ends, with a contract.
///
/// The table is that of siderolabs/talos pkg/machinery/config/contract.go and generate/*.go (v1.14.0-rc.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// The API server's `PodSecurity` admission plugin.
    PodSecurity,
    /// Stable host names, the runtime's seccomp profile for pods, discovery without Kubernetes.
    StableHostname,
    /// The encryption secret is for `secretbox`; audit policy, extended key usage, no folder for static pods. Mirrors of
    /// `k8s.gcr.io` are not needed any more.
    Secretbox,
    /// `machine.features.diskQuotaSupport`.
    DiskQuota,
    /// `machine.features.kubePrism`.
    KubePrism,
    /// `machine.features.hostDNS`.
    HostDns,
    /// New bundles have an RSA service-account key.
    RsaServiceAccount,
    /// `machine.features.hostDNS.forwardKubeDNSToHost`.
    ForwardKubeDns,
    /// Control planes are labelled to stay out of external load balancers.
    ExcludeFromLoadBalancers,
    /// Workers know the cluster's name.
    WorkerClusterName,
    /// `machine.install.grubUseUKICmdline`.
    GrubUkiCmdline,
    /// RBAC, stable host names and extended key usage are no switches any more.
    LockedFeatures,
    /// The endpoint's host and the pod security switch are no longer written to the API server's section.
    LeanApiServer,
    /// The document `HostnameConfig`.
    HostnameDocument,
    /// Registry mirrors are documents.
    RegistryDocuments,
    /// An empty `machine.network` is left out, and `KubeSpan` is a document.
    NetworkDocuments,
    /// Kubernetes, discovery, resolver and installation are documents.
    KubernetesDocuments,
    /// New bundles write the cluster's id in the standard base64 alphabet.
    StandardClusterId,
}

impl Feature {
    /// The first contract with it.
    pub const fn since(self) -> Contract {
        let minor = match self {
            Self::PodSecurity => 1,
            Self::StableHostname => 2,
            Self::Secretbox => 3,
            Self::DiskQuota => 5,
            Self::KubePrism => 6,
            Self::HostDns | Self::RsaServiceAccount => 7,
            Self::ForwardKubeDns | Self::ExcludeFromLoadBalancers | Self::WorkerClusterName => 8,
            Self::GrubUkiCmdline
            | Self::LockedFeatures
            | Self::LeanApiServer
            | Self::HostnameDocument
            | Self::RegistryDocuments => 12,
            Self::NetworkDocuments => 13,
            Self::KubernetesDocuments | Self::StandardClusterId => 14,
        };
        Contract { major: 1, minor }
    }
}

impl Contract {
    /// The oldest contract that can be generated.
    pub const OLDEST: Self = Self { major: 1, minor: 5 };
    /// The newest contract that can be generated, and the one taken when none is given.
    pub const NEWEST: Self = Self { major: 1, minor: 14 };

    /// The contract of a Talos release.
    ///
    /// # Errors
    /// When that release is older or newer than what can be generated.
    pub fn of(version: &Version) -> Result<Self, Malformed> {
        version.tag().parse()
    }

    /// The contract that the real generator takes for a release: of one older than 1.5 its own, of one newer than those
    /// known here the newest, which it still reads.
    ///
    /// # Errors
    /// When the text is no version.
    pub fn nearest(text: &str) -> Result<Self, Malformed> {
        let wanted =
            Self::spelled(text).ok_or_else(|| Malformed::new(text, "a Talos version such as 1.13 or v1.13.9"))?;
        Ok(wanted.min(Self::NEWEST))
    }

    fn spelled(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(3, '.');
        let mut number = || {
            let digits = parts.next().filter(|part| !part.is_empty())?;
            // One that is too large is newer than anything.
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().unwrap_or(u32::MAX))
        };
        Some(Self { major: number()?, minor: number()? })
    }

    /// The contract of a minor version of Talos 1.
    pub const fn minor(minor: u32) -> Self {
        Self { major: 1, minor }
    }

    /// The first release of it.
    pub fn first(self) -> Version {
        Version::new(self.major.into(), self.minor.into(), 0)
    }

    /// Whether configurations of this contract have `feature`.
    pub fn has(self, feature: Feature) -> bool {
        self >= feature.since()
    }
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for Contract {
    type Err = Malformed;

    /// Reads `1.13`, `v1.13`, `v1.13.9` and pre-releases of it. Nothing after the second dot matters, as for talosctl.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let known = Self::spelled(text).filter(|contract| (Self::OLDEST..=Self::NEWEST).contains(contract));
        known.ok_or_else(|| Malformed::new(text, "a Talos version from 1.5 to 1.14"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contracts_come_from_any_spelling_of_a_version() {
        for text in ["1.13", "v1.13", "v1.13.9", "1.13.0-rc.1", "v1.13.x", "1.13.", "01.013"] {
            assert_eq!(text.parse::<Contract>().unwrap().to_string(), "1.13", "{text}");
        }
        for text in ["1.4", "1.15", "one.two", "1", "1.13-alpha", "vv1.13", " 1.13", "1.+13", "V1.13", ""] {
            assert!(text.parse::<Contract>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_release_that_is_not_known_yet_gets_the_newest_contract() {
        assert_eq!(Contract::nearest("v1.99.3"), Ok(Contract::NEWEST));
        assert_eq!(Contract::nearest("1.13.9"), Ok(Contract::minor(13)));
        for newer in ["v2.0", "1.99999999999999999999", "99999999999999999999.1"] {
            assert_eq!(Contract::nearest(newer), Ok(Contract::NEWEST), "{newer}");
        }
    }

    #[test]
    fn older_releases_have_contracts_for_those_who_ask_for_them() {
        assert_eq!(Contract::nearest("v1.4.9"), Ok(Contract::minor(4)));
        assert!(!Contract::nearest("0.14").unwrap().has(Feature::PodSecurity));
        for text in ["", "1", "1.", ".1", "1.x", "vv1.2", "1.13-alpha"] {
            assert!(Contract::nearest(text).is_err(), "{text}");
        }
    }

    #[test]
    fn features_begin_with_their_contract() {
        let contract: Contract = "1.12".parse().unwrap();
        assert!(contract.has(Feature::HostnameDocument));
        assert!(!contract.has(Feature::NetworkDocuments));
    }
}
