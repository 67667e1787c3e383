//! The nouns every layer shares: ids, versions, digests.
//!
//! Purpose: give each kind of value one type with one spelling, so that a VMID can't be passed where a port is meant.
//! Must not know: files, clocks, networks, or any other module of this crate.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a string had to be and was not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not {expected}")]
pub struct Malformed {
    /// The text as it was given.
    pub given: String,
    /// What would have been right, as a noun phrase.
    pub expected: &'static str,
}

impl Malformed {
    /// Says that `given` is not `expected`.
    pub fn new(given: &str, expected: &'static str) -> Self {
        Self { given: given.to_owned(), expected }
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes the name as it is.
            pub fn new(name: impl Into<String>) -> Self {
                Self(name.into())
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Ok(Self(name.to_owned()))
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.to_owned())
            }
        }
    };
}

name_type!(
    /// A Proxmox VE host, as `GET /nodes` names it.
    NodeName
);
name_type!(
    /// A Proxmox VE storage, as `storage.cfg` names it.
    StorageId
);
name_type!(
    /// A volume of a storage with the storage in front: `local-lvm:vm-100-disk-0`.
    VolumeId
);
name_type!(
    /// The name of a Talos machine: its host name, its VM's name and its Kubernetes node's name.
    MachineName
);
name_type!(
    /// A step's id: a readable path, `provision/single-cp-01/clone`. Unique in a plan, the same in every resume.
    StepId
);
name_type!(
    /// A run's id: its UTC start as `2026-11-20T22-31-05`, with `-2`, `-3` … when two start in one second.
    RunId
);
name_type!(
    /// An Image Factory schematic: 64 lower-case hex digits.
    SchematicId
);

/// A guest's number on Proxmox VE, 100 to 999999999, unique in the PVE cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct VmId(pub u32);

impl fmt::Display for VmId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A SHA-256, shown and stored as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(bytes).into())
    }

    /// The first eight hex digits, for file names and tables.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| Malformed::new(text, "a SHA-256 (64 hex digits)"))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Sha256 {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^[0-9a-f]{64}$" })
    }
}

/// A released version of Talos or Kubernetes, `1.13.9`; shown and stored without the leading `v`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(semver::Version);

impl Version {
    /// `major.minor.patch` without a pre-release.
    pub const fn new(major: u64, minor: u64, patch: u64) -> Self {
        Self(semver::Version::new(major, minor, patch))
    }

    /// The first two numbers: what compatibility rules and version contracts go by.
    pub fn minor(&self) -> (u64, u64) {
        (self.0.major, self.0.minor)
    }

    /// The third number.
    pub fn patch(&self) -> u64 {
        self.0.patch
    }

    /// Whether this is an alpha, beta or release candidate.
    pub fn is_prerelease(&self) -> bool {
        !self.0.pre.is_empty()
    }

    /// With the leading `v`, as tags and image references spell it.
    pub fn tag(&self) -> String {
        format!("v{}", self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for Version {
    type Err = Malformed;

    /// Reads `1.13.9` or `v1.13.9`. A minor alone (`1.13`) is a [`VersionWish`], not a version.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        semver::Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map(Self)
            .map_err(|_| Malformed::new(text, "a version such as 1.13.9"))
    }
}

impl Serialize for Version {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a user may write where a version is wanted: exact, a minor (its newest patch) or `latest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionWish {
    /// `1.13.9` or `v1.13.9`.
    Exact(Version),
    /// `1.13`: the newest patch there is.
    Minor(u64, u64),
    /// `latest`: the newest release there is.
    Latest,
}

impl VersionWish {
    /// The newest release in `available` that fits, pre-releases only when named exactly.
    pub fn resolve(&self, available: &[Version]) -> Option<Version> {
        let fits = |version: &&Version| match self {
            Self::Exact(exact) => *version == exact,
            Self::Minor(major, minor) => !version.is_prerelease() && version.minor() == (*major, *minor),
            Self::Latest => !version.is_prerelease(),
        };
        available.iter().filter(fits).max().cloned()
    }
}

impl fmt::Display for VersionWish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => version.fmt(f),
            Self::Minor(major, minor) => write!(f, "{major}.{minor}"),
            Self::Latest => f.write_str("latest"),
        }
    }
}

impl FromStr for VersionWish {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a version such as 1.13.9, 1.13 or latest");
        if text == "latest" {
            return Ok(Self::Latest);
        }
        let bare = text.strip_prefix('v').unwrap_or(text);
        match bare.split('.').collect::<Vec<_>>()[..] {
            [major, minor] => {
                Ok(Self::Minor(major.parse().map_err(|_| malformed())?, minor.parse().map_err(|_| malformed())?))
            }
            _ => bare.parse().map(Self::Exact).map_err(|_| malformed()),
        }
    }
}

/// An Ethernet address, shown in upper case as PVE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.iter().map(|byte| format!("{byte:02X}")).collect();
        f.pad(&pairs.join(":"))
    }
}

impl FromStr for Mac {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a MAC address such as BC:24:11:00:12:01");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| malformed())?;
        }
        if parts.next().is_some() { Err(malformed()) } else { Ok(Self(bytes)) }
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a machine is in its cluster; spelled as Talos' machine type and as the role tag on its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs etcd and the Kubernetes control plane.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
        })
    }
}

/// Whether a Kubernetes node takes new pods, and if not, who keeps them off it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cordon {
    /// It does.
    #[default]
    Open,
    /// It doesn't, by a run of this program.
    Marked {
        /// Which.
        by: String,
    },
    /// It doesn't, by somebody else: it stays so.
    Theirs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_resolves_to_its_newest_release_and_never_to_a_prerelease() {
        let available: Vec<Version> =
            ["1.12.9", "1.13.2", "1.13.10", "1.14.0-rc.1"].iter().map(|text| text.parse().unwrap()).collect();
        let resolve = |wish: &str| wish.parse::<VersionWish>().unwrap().resolve(&available).map(|found| found.tag());
        assert_eq!(resolve("1.13").as_deref(), Some("v1.13.10"));
        assert_eq!(resolve("latest").as_deref(), Some("v1.13.10"));
        assert_eq!(resolve("v1.14.0-rc.1").as_deref(), Some("v1.14.0-rc.1"));
        assert_eq!(resolve("1.14"), None);
    }

    #[test]
    fn malformed_values_say_what_was_expected() {
        assert_eq!("1.x".parse::<VersionWish>().unwrap_err().expected, "a version such as 1.13.9, 1.13 or latest");
        assert!("BC:24:11:00:12".parse::<Mac>().is_err());
        assert!("abc".parse::<Sha256>().is_err());
    }
}
