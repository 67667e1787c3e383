//! Names of snapshot files: what for, when, and by which run.
//!
//! `etcd-<purpose>-<UTC time>-<run>.snapshot`, e.g. `etcd-final-20261120T224501Z-2026-11-20T22-31-05.snapshot`; one that
//! belongs to no run ends after the time. Names sort by age within a purpose.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::types::{Malformed, RunId};

const TIME: &str = "%Y%m%dT%H%M%SZ";

const ENDING: &str = ".snapshot";

/// What a snapshot is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// The first one of a run, while the cluster works.
    Before,
    /// The one that a run restores from, taken when no write could be acknowledged any more.
    Final,
    /// Asked for by a person.
    Manual,
}

impl Purpose {
    /// As file names and documents spell it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Final => "final",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// A snapshot file's name. Times are kept to the second.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotName {
    /// What for.
    pub purpose: Purpose,
    /// When it was begun.
    pub taken: Timestamp,
    /// The run it belongs to.
    pub run: Option<RunId>,
}

impl fmt::Display for SnapshotName {
    /// The file's name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.taken.strftime(TIME).to_string();
        let run = self.run.as_ref().map(|run| format!("-{run}")).unwrap_or_default();
        f.pad(&format!("etcd-{}-{time}{run}{ENDING}", self.purpose))
    }
}

impl FromStr for SnapshotName {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "the name of a snapshot, etcd-<purpose>-<UTC time>-<run>.snapshot");
        let inner = text.strip_prefix("etcd-").and_then(|rest| rest.strip_suffix(ENDING)).ok_or_else(malformed)?;
        let (purpose, rest) = inner.split_once('-').ok_or_else(malformed)?;
        let purpose = [Purpose::Before, Purpose::Final, Purpose::Manual]
            .into_iter()
            .find(|known| known.word() == purpose)
            .ok_or_else(malformed)?;
        let (time, run) = rest.split_once('-').map_or((rest, None), |(time, run)| (time, Some(run)));
        let time = DateTime::strptime(TIME, time).map_err(|_| malformed())?;
        let taken = time.to_zoned(TimeZone::UTC).map_err(|_| malformed())?.timestamp();
        let is_plain = |run: &&str| run.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let run = match run {
            Some(run) => {
                Some(RunId::new(Some(run).filter(is_plain).filter(|run| !run.is_empty()).ok_or_else(malformed)?))
            }
            None => None,
        };
        let name = Self { purpose, taken, run };
        // Only what this program would have written: no second spelling of a name.
        if name.to_string() == text { Ok(name) } else { Err(malformed()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_for_when_and_by_whom() {
        let taken: Timestamp = "2026-11-20T22:45:01.7Z".parse().unwrap();
        let run = Some(RunId::from("2026-11-20T22-31-05-2"));
        let name = SnapshotName { purpose: Purpose::Final, taken, run }.to_string();
        assert_eq!(name, "etcd-final-20261120T224501Z-2026-11-20T22-31-05-2.snapshot");
        let manual = SnapshotName { purpose: Purpose::Manual, taken, run: None }.to_string();
        assert_eq!(manual, "etcd-manual-20261120T224501Z.snapshot");
        for text in [name, manual] {
            let name: SnapshotName = text.parse().unwrap();
            assert_eq!(name.to_string(), text);
            assert_eq!(name.taken, "2026-11-20T22:45:01Z".parse().unwrap());
        }
    }

    #[test]
    fn other_files_are_nobodys() {
        for text in [
            "etcd-final-20261120T224501Z.snapshot.part",
            "etcd-rebuild-20261120T224501Z.snapshot",
            "etcd-final-20261320T224501Z.snapshot",
            "etcd-final-20261120T224501.snapshot",
            "etcd-final-20261120T224501Z-.snapshot",
            "etcd-final-20261120T224501Z-a/b.snapshot",
            "etcd-2026-11-20.snapshot",
            "",
        ] {
            assert!(text.parse::<SnapshotName>().is_err(), "{text}");
        }
    }
}
