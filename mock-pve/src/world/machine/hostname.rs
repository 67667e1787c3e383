//! The name that a machine gives itself, and the one that its node has (Talos, controllers/network,
//! `HostnameConfigController` and `HostnameMergeController`; controllers/k8s, `NodenameController`).

use std::net::IpAddr;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::config::NodeConfig;
use super::state::State;

/// Since that minor a configuration without the document of old names a machine, too.
const WITHOUT_MAIN: u32 = 13;
/// What Linux calls a machine that nobody named.
const NOBODY: &str = "(none)";

/// Who named the machine: the later counts more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// Talos itself.
    Default,
    /// The drive that cloud-init would read.
    Platform,
    /// The configuration.
    Configuration,
}

impl Layer {
    /// As resources spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Platform => "platform",
            Self::Configuration => "configuration",
        }
    }
}

/// A name, and who gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hostname {
    /// Without its domain.
    pub name: String,
    /// The domain, often empty.
    pub domain: String,
    /// Who gave it.
    pub layer: Layer,
}

impl Hostname {
    fn of(full: &str, layer: Layer) -> Option<Self> {
        let (name, domain) = full.split_once('.').unwrap_or((full, ""));
        (1..=63).contains(&name.len()).then(|| Self { name: name.to_owned(), domain: domain.to_owned(), layer })
    }

    /// With the domain.
    pub fn full(&self) -> String {
        if self.domain.is_empty() { self.name.clone() } else { format!("{}.{}", self.name, self.domain) }
    }
}

/// How Talos makes a name when nobody gives one.
enum Auto {
    Off,
    Address,
    Stable,
}

impl Auto {
    fn of(config: &NodeConfig) -> Self {
        let stable = match config.document("HostnameConfig") {
            Some(document) => document.get("auto").and_then(Value::as_str) == Some("stable"),
            None if !config.is_whole() => false,
            None if config.main().pointer("/machine/features/stableHostname") == Some(&Value::Bool(true)) => true,
            None => return Self::Address,
        };
        if stable { Self::Stable } else { Self::Off }
    }
}

impl State {
    /// Its name, once somebody gave it one.
    pub fn named(&self) -> Option<Hostname> {
        let counts = |config: &&NodeConfig| config.is_whole() || self.version().minor >= WITHOUT_MAIN;
        let config = self.config.as_deref().or(self.partial.as_deref()).filter(counts);
        let set = config.and_then(|config| Hostname::of(config.hostname()?, Layer::Configuration));
        let platform = || Hostname::of(self.platform_name.as_deref()?, Layer::Platform);
        let made = || {
            let name = match Auto::of(config?) {
                Auto::Off => return None,
                Auto::Address => by_address(self.address()?),
                Auto::Stable => stable(&self.identity?.node_id()),
            };
            Hostname::of(&name, Layer::Default)
        };
        set.or_else(platform).or_else(made)
    }

    /// Its name without the domain, as the kernel has it.
    pub fn hostname(&self) -> String {
        self.named().map_or_else(|| NOBODY.to_owned(), |named| named.name)
    }

    /// Its name with the domain.
    pub fn full_hostname(&self) -> String {
        self.named().map_or_else(|| NOBODY.to_owned(), |named| named.full())
    }

    /// What its node is called.
    pub fn nodename(&self) -> String {
        let flag = "/machine/kubelet/registerWithFQDN";
        let full = self.config.as_ref().is_some_and(|config| config.main().pointer(flag) == Some(&Value::Bool(true)));
        nodename(&if full { self.full_hostname() } else { self.hostname() })
    }
}

/// From its first address; the parts of a long one stand together.
fn by_address(address: IpAddr) -> String {
    format!("talos-{}", address.to_string().replace(':', "").replace('.', "-"))
}

/// From its identity: six letters of a digest.
fn stable(node_id: &str) -> String {
    let digest = Sha256::digest(node_id);
    let text = base36(&digest[..8]);
    format!("talos-{}-{}", &text[1..4], &text[4..7])
}

/// A number of eight bytes in base 36; every byte of nothing at its beginning is one more digit.
fn base36(bytes: &[u8]) -> String {
    let mut rest = bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut digits = Vec::new();
    while rest > 0 {
        let digit = u32::try_from(rest % 36).unwrap_or_default();
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        rest /= 36;
    }
    digits.extend(bytes.iter().take_while(|byte| **byte == 0).map(|_| '0'));
    digits.iter().rev().collect()
}

/// A name as Kubernetes takes it.
fn nodename(name: &str) -> String {
    let letters = name.chars().filter_map(|letter| match letter.to_ascii_lowercase() {
        '_' => Some('-'),
        letter @ ('a'..='z' | '0'..='9' | '-' | '.') => Some(letter),
        _ => None,
    });
    letters.collect::<String>().trim_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_as_in_the_original() {
        for (id, expected) in [
            ("fGdOI05hVrx3YMagLo0Bwxa2Nm9BAswWm8XLeEj0aS4", "talos-hwz-sw5"),
            ("g8hHdwxGakBGXYRFUMhERAxDO0ADLoQCIcgBFQwACEA", "talos-md5-96r"),
        ] {
            assert_eq!(stable(id), expected);
        }
        assert_eq!(by_address("10.5.0.4".parse().unwrap()), "talos-10-5-0-4");
        assert_eq!(by_address("fd00::1:a".parse().unwrap()), "talos-fd001a");
        assert_eq!(base36(&[0, 0, 0, 0, 0, 0, 0, 37]), "000000011");
        for (name, expected) in [("Node_1.Example.org.", "node-1.example.org"), ("-ü-x", "x")] {
            assert_eq!(nodename(name), expected);
        }
        let full = Hostname::of("one.example.org", Layer::Platform).unwrap();
        assert_eq!((full.name.as_str(), full.domain.as_str()), ("one", "example.org"));
        assert_eq!(Hostname::of(".org", Layer::Platform), None);
    }
}
