//! Which Kubernetes runs on which Talos, and which Talos can follow which: a table kept as data.
//!
//! Purpose: reads `compatibility.json`, and what a user puts over it for releases that this program doesn't know yet.
//! Must not know: files, clients. Start reading at [`Table`].
//!
//! Source: `pkg/machinery/compatibility/talosNNN` of siderolabs/talos, whose rules the nodes and installers themselves
//! enforce; etcd's version from `pkg/machinery/constants`, per release; the last patches from the releases of
//! kubernetes/kubernetes.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::types::{Malformed, Version};

const BUILT_IN: &str = include_str!("compatibility.json");

/// The newest format that this version reads.
const FORMAT: u32 = 1;

/// Major and minor of a release: `1.13`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Minor(pub u64, pub u64);

impl Minor {
    /// The one after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0, self.1 + 1)
    }
}

impl fmt::Display for Minor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}.{}", self.0, self.1))
    }
}

impl FromStr for Minor {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a minor version such as 1.13");
        let (major, minor) = text.trim_start_matches('v').split_once('.').ok_or_else(malformed)?;
        Ok(Self(major.parse().map_err(|_| malformed())?, minor.parse().map_err(|_| malformed())?))
    }
}

impl TryFrom<String> for Minor {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Minor> for String {
    fn from(minor: Minor) -> Self {
        minor.to_string()
    }
}

impl From<&Version> for Minor {
    fn from(version: &Version) -> Self {
        let (major, minor) = version.minor();
        Self(major, minor)
    }
}

/// What one minor of Talos takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// First and last minor of Kubernetes that it runs.
    pub kubernetes: (Minor, Minor),
    /// First and last minor of Talos that its installer upgrades.
    pub upgrades_from: (Minor, Minor),
    /// The minor of the etcd that it brings along.
    pub etcd: Minor,
}

/// What a user's own table says of one Talos. A plan carries it: the table is only at hand when the plan is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// Which Talos.
    pub talos: Minor,
    /// First and last minor of Kubernetes that it runs.
    pub kubernetes: (Minor, Minor),
}

/// The whole table.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    format: u32,
    /// By minor of Talos.
    #[serde(default)]
    pub talos: BTreeMap<Minor, Release>,
    /// The last patch of each minor of Kubernetes.
    #[serde(default)]
    pub kubernetes: BTreeMap<Minor, Version>,
}

/// Why a table can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It isn't one.
    #[error("it is no compatibility table")]
    Malformed(#[source] Box<serde_saphyr::Error>),
    /// A later version's.
    #[error("it has format {found}, and this version of recast reads up to {FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It contradicts itself.
    #[error("{key} of {minor} runs backwards: {first} to {last}")]
    Backwards {
        /// Which of its ranges.
        key: &'static str,
        /// Of which release.
        minor: Minor,
        /// As given.
        first: Minor,
        /// As given.
        last: Minor,
    },
}

static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::read(BUILT_IN).expect("it is part of the program, and a test reads it"));

impl Table {
    /// The table of this program.
    pub fn built_in() -> &'static Self {
        &TABLE
    }

    /// Reads a table: JSON or YAML.
    pub fn read(text: &str) -> Result<Self, TableError> {
        let table: Self = serde_saphyr::from_str(text).map_err(|error| TableError::Malformed(Box::new(error)))?;
        if table.format > FORMAT {
            return Err(TableError::Newer { found: table.format });
        }
        for (minor, release) in &table.talos {
            for (key, (first, last)) in [("kubernetes", release.kubernetes), ("upgrades_from", release.upgrades_from)] {
                if last < first {
                    return Err(TableError::Backwards { key, minor: *minor, first, last });
                }
            }
        }
        Ok(table)
    }

    /// This table with another's entries over its own.
    #[must_use]
    pub fn with(mut self, over: Self) -> Self {
        self.talos.extend(over.talos);
        self.kubernetes.extend(over.kubernetes);
        self
    }

    /// This table with what plans carried of a user's own. Of a Talos that this table doesn't know, it goes on to know
    /// nothing.
    #[must_use]
    pub fn with_carried(mut self, carried: impl IntoIterator<Item = Runs>) -> Self {
        for Runs { talos, kubernetes } in carried {
            if let Some(release) = self.talos.get_mut(&talos) {
                release.kubernetes = kubernetes;
            }
        }
        self
    }

    /// What a plan carries of this table: the Kubernetes that a Talos runs, where the built-in table says otherwise.
    pub fn carried(&self, talos: &Version) -> Option<Runs> {
        let kubernetes = self.release(talos)?.kubernetes;
        let known = Self::built_in().release(talos).map(|release| release.kubernetes);
        (known != Some(kubernetes)).then(|| Runs { talos: talos.into(), kubernetes })
    }

    /// What is known of a Talos.
    pub fn release(&self, talos: &Version) -> Option<&Release> {
        self.talos.get(&talos.into())
    }

    /// Whether this Kubernetes runs on this Talos; none where the table doesn't know the Talos.
    pub fn runs(&self, kubernetes: &Version, talos: &Version) -> Option<bool> {
        let (first, last) = self.release(talos)?.kubernetes;
        Some((first..=last).contains(&kubernetes.into()))
    }

    /// Whether the installer of `to` takes a machine that runs `from`; none where the table doesn't know `to`.
    pub fn takes(&self, to: &Version, from: &Version) -> Option<bool> {
        let (first, last) = self.release(to)?.upgrades_from;
        Some((first..=last).contains(&from.into()))
    }
}

/// The first and last Kubernetes minor of a Talos version, as `1.31` and `1.36`; none for a Talos this table doesn't know.
pub fn kubernetes_range(talos: &Version) -> Option<((u64, u64), (u64, u64))> {
    let (first, last) = Table::built_in().release(talos)?.kubernetes;
    Some(((first.0, first.1), (last.0, last.1)))
}

/// Whether this Kubernetes runs on this Talos; an unknown Talos is let through, since the node itself will say.
pub fn runs_on(kubernetes: &Version, talos: &Version) -> bool {
    Table::built_in().runs(kubernetes, talos).unwrap_or(true)
}

/// Major and minor of the etcd that this Talos brings along; none for a Talos this table doesn't know.
pub fn etcd(talos: &Version) -> Option<(u64, u64)> {
    Table::built_in().release(talos).map(|release| (release.etcd.0, release.etcd.1))
}

/// Why data written by one minor version can't be taken over by another: none for the same and the next.
pub fn jump(from: (u64, u64), to: (u64, u64)) -> Option<&'static str> {
    if to < from {
        return Some("data never go back to an older minor");
    }
    if to.0 != from.0 || to.1 > from.1 + 1 {
        return Some("data go up one minor at a time");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_go_to_the_same_minor_or_the_next() {
        assert_eq!((jump((1, 34), (1, 34)), jump((1, 34), (1, 35))), (None, None));
        assert!(jump((1, 34), (1, 36)).is_some() && jump((1, 35), (1, 34)).is_some() && jump((3, 6), (4, 0)).is_some());
        let etcd = |talos: &str| etcd(&talos.parse().unwrap());
        assert_eq!(
            [etcd("1.10.6"), etcd("1.13.9"), etcd("1.14.0"), etcd("1.99.0")],
            [Some((3, 5)), Some((3, 6)), Some((3, 7)), None]
        );
    }

    #[test]
    fn the_range_has_both_ends() {
        let runs = |kubernetes: &str, talos: &str| runs_on(&kubernetes.parse().unwrap(), &talos.parse().unwrap());
        assert!(runs("1.31.0", "1.13.9") && runs("1.36.3", "1.13.9"));
        assert!(!runs("1.30.9", "1.13.9") && !runs("1.37.0", "1.13.9"));
        assert!(runs("1.99.0", "1.99.0"), "an unknown Talos decides for itself");
        assert_eq!(kubernetes_range(&"1.5.5".parse().unwrap()), Some(((1, 26), (1, 28))));
    }

    #[test]
    fn every_release_of_the_table_takes_the_one_before_it_and_shares_a_kubernetes_with_it() {
        let table = Table::built_in();
        for (minor, release) in table.talos.iter().skip(1) {
            let before = &table.talos[&Minor(minor.0, minor.1 - 1)];
            let (first, last) = release.upgrades_from;
            assert!((first..=last).contains(&Minor(minor.0, minor.1 - 1)), "{minor}");
            assert!(release.kubernetes.0 <= before.kubernetes.1, "{minor}");
        }
        for (minor, patch) in &table.kubernetes {
            assert_eq!(Minor::from(patch), *minor);
        }
    }

    #[test]
    fn a_users_table_lies_over_the_built_in_one() {
        let over = "format: 1\ntalos:\n  \"1.15\": {kubernetes: [\"1.33\", \"1.38\"], upgrades_from: [\"1.13\", \"1.16\"], \
                    etcd: \"3.7\"}\nkubernetes: {\"1.37\": 1.37.2}\n";
        let table = Table::built_in().clone().with(Table::read(over).unwrap());
        let version = |text: &str| -> Version { text.parse().unwrap() };
        assert_eq!(table.takes(&version("1.15.0"), &version("1.14.3")), Some(true));
        assert_eq!(table.runs(&version("1.32.0"), &version("1.15.0")), Some(false));
        assert_eq!(table.kubernetes[&Minor(1, 37)], version("1.37.2"));
        assert_eq!(Table::built_in().takes(&version("1.15.0"), &version("1.14.3")), None);
        let own = Runs { talos: Minor(1, 15), kubernetes: (Minor(1, 33), Minor(1, 38)) };
        assert_eq!((table.carried(&version("1.15.2")), table.carried(&version("1.14.3"))), (Some(own), None));
        let wide = Runs { talos: Minor(1, 12), kubernetes: (Minor(1, 30), Minor(1, 36)) };
        let carried = Table::built_in().clone().with_carried([own, wide]);
        assert_eq!(carried.runs(&version("1.36.0"), &version("1.12.4")), Some(true));
        assert_eq!(carried.runs(&version("1.36.0"), &version("1.15.0")), None);
    }

    #[test]
    fn a_table_that_makes_no_sense_is_refused() {
        assert!(matches!(Table::read("format: 2\n"), Err(TableError::Newer { found: 2 })));
        assert!(matches!(Table::read("format: 1\ntalos: {x: {}}\n"), Err(TableError::Malformed(_))));
        let backwards = "format: 1\ntalos: {\"1.15\": {kubernetes: [\"1.38\", \"1.33\"], \
                         upgrades_from: [\"1.13\", \"1.16\"], etcd: \"3.7\"}}\n";
        assert!(matches!(Table::read(backwards), Err(TableError::Backwards { key: "kubernetes", .. })));
    }
}
