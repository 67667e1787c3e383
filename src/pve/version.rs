//! The version of a PVE node, and what depends on it.
//!
//! Purpose: feature questions are asked here, by name. Members of one cluster may differ during an upgrade, so the version
//! is the target node's. Must not know: requests beyond its own.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use super::client::Pve;
use super::encode::{Form, path};
use super::error::PveError;
use crate::types::{Malformed, NodeName};

/// `8.4.21`, or `7.4-20` as old releases spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PveVersion {
    /// Major number: 7, 8, 9.
    pub major: u64,
    /// Minor number.
    pub minor: u64,
    /// The package's patch number.
    pub patch: u64,
}

impl PveVersion {
    /// Whether disk images can be uploaded as content `import` and imported by a token (8.4).
    pub fn imports_images(self) -> bool {
        (self.major, self.minor) >= (8, 4)
    }

    /// Whether `stop` can end a waiting shutdown (`overrule-shutdown`, 8.2).
    pub fn overrules_shutdown(self) -> bool {
        (self.major, self.minor) >= (8, 2)
    }

    /// Whether bridges need the right `SDN.Use` (8.0).
    pub fn checks_bridges(self) -> bool {
        self.major >= 8
    }

    /// Whether HA groups have become rules (9.0).
    pub fn has_ha_rules(self) -> bool {
        self.major >= 9
    }
}

impl FromStr for PveVersion {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a Proxmox VE version such as 8.4.21");
        let mut numbers = text.split(['.', '-', '~']).map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok);
        let (major, minor) = (next().ok_or_else(malformed)?, next().ok_or_else(malformed)?);
        Ok(Self { major, minor, patch: next().unwrap_or_default() })
    }
}

impl fmt::Display for PveVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[derive(Deserialize)]
struct VersionData {
    version: String,
}

impl Pve {
    /// The version of whichever node answers. Needs no right but a valid login: the call that checks credentials.
    pub async fn version(&self) -> Result<PveVersion, PveError> {
        self.version_at("/version").await
    }

    /// A node's version.
    pub async fn node_version(&self, node: &NodeName) -> Result<PveVersion, PveError> {
        self.version_at(&path(&["nodes", node.as_str(), "version"])).await
    }

    async fn version_at(&self, at: &str) -> Result<PveVersion, PveError> {
        let VersionData { version } = self.get(at, &Form::new()).await?;
        version.parse().map_err(|error: Malformed| PveError::Answer {
            path: at.to_owned(),
            source: serde::de::Error::custom(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read_and_compared() {
        let version = |text: &str| text.parse::<PveVersion>().unwrap();
        assert_eq!(version("7.4-20").to_string(), "7.4.20");
        assert!(version("8.4.21").imports_images() && version("9.0.3").imports_images());
        assert!(!version("8.3.5").imports_images());
        assert!("x".parse::<PveVersion>().is_err());
    }
}
