//! What can be done with a volume.
//!
//! Purpose: which types of storage can snapshot, clone, copy, rename and make bases, of which state and in which
//! format. Must not know: requests, how any of it is done. Start at [`State::has_feature`]. Facts after Proxmox VE 8.4
//! (PVE/Storage/*Plugin.pm, `volume_has_feature`).

use super::disks::drive_keys;
use super::drive;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::state::{Config, State, Storage, VolumeKey};
use super::volume::{Family, Named, parse_name};

/// What may be wanted of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// A snapshot in it.
    Snapshot,
    /// A linked clone of it.
    Clone,
    /// A base volume in its place.
    Template,
    /// A full copy of it.
    Copy,
    /// Another owner.
    Rename,
}

impl Feature {
    /// The one that a request names.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "snapshot" => Some(Self::Snapshot),
            "clone" => Some(Self::Clone),
            "copy" => Some(Self::Copy),
            _ => None,
        }
    }
}

/// Which state of a volume is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Base,
    Current,
    Snap,
}

fn of_files(feature: Feature, stage: Stage, format: &str) -> bool {
    match (feature, stage) {
        (Feature::Snapshot, Stage::Current | Stage::Snap) | (Feature::Copy, Stage::Snap) => format == "qcow2",
        (Feature::Clone, Stage::Base)
        | (Feature::Template | Feature::Rename, Stage::Current)
        | (Feature::Copy, Stage::Base | Stage::Current) => matches!(format, "raw" | "qcow2" | "vmdk"),
        _ => false,
    }
}

fn of_btrfs(feature: Feature, stage: Stage, format: &str) -> bool {
    match (feature, stage) {
        (Feature::Snapshot, Stage::Current | Stage::Snap) | (Feature::Copy, Stage::Snap) => {
            matches!(format, "raw" | "qcow2")
        }
        // Any subvolume can be the beginning of another.
        (Feature::Clone, Stage::Current | Stage::Snap) => format == "raw",
        _ => of_files(feature, stage, format),
    }
}

fn of_blocks(kind: &str, feature: Feature, stage: Stage) -> bool {
    match feature {
        Feature::Snapshot => match stage {
            Stage::Base => false,
            Stage::Current => matches!(kind, "lvmthin" | "rbd" | "zfspool" | "zfs"),
            Stage::Snap => matches!(kind, "rbd" | "zfspool" | "zfs"),
        },
        Feature::Clone => match stage {
            Stage::Base => matches!(kind, "lvmthin" | "rbd" | "zfspool" | "zfs"),
            Stage::Current => false,
            Stage::Snap => matches!(kind, "lvmthin" | "rbd"),
        },
        Feature::Template => stage == Stage::Current && matches!(kind, "lvmthin" | "rbd" | "zfspool" | "zfs"),
        Feature::Copy => match stage {
            Stage::Base => matches!(kind, "lvmthin" | "rbd" | "zfspool" | "zfs" | "lvm"),
            Stage::Current => true,
            Stage::Snap => matches!(kind, "lvmthin" | "rbd"),
        },
        Feature::Rename => stage == Stage::Current && matches!(kind, "lvmthin" | "rbd" | "zfspool" | "lvm"),
    }
}

impl Storage {
    /// Whether a volume of it has a feature, at a snapshot if one is named.
    pub fn has_feature(&self, feature: Feature, named: &Named, snapshot: Option<&str>) -> bool {
        let stage = match snapshot {
            Some(_) => Stage::Snap,
            None if named.base => Stage::Base,
            None => Stage::Current,
        };
        match self.family() {
            Family::Files if self.kind == "btrfs" => of_btrfs(feature, stage, &named.format),
            Family::Files => of_files(feature, stage, &named.format),
            Family::Blocks | Family::Thick => of_blocks(&self.kind, feature, stage),
            Family::Backups => false,
        }
    }
}

impl State {
    /// Whether a volume has a feature, at a snapshot if one is named. What no storage manages has none.
    pub fn has_feature(&self, feature: Feature, volid: &str, snapshot: Option<&str>) -> Rule<bool> {
        let Some((id, name)) = VolumeKey::split(volid) else { return Ok(false) };
        let Some(storage) = self.storages.get(id) else {
            return Err(Refusal::failed(format!("storage '{id}' does not exist\n")));
        };
        let named = parse_name(storage, name).map_err(Refusal::Failed)?;
        Ok(storage.has_feature(feature, &named, snapshot))
    }

    /// Whether all disks of a config have a feature; CD-ROMs, cloud-init drives among them, aren't asked.
    pub fn config_has(&self, feature: Feature, config: &Config, snapshot: Option<&str>) -> Rule<bool> {
        let mut has = true;
        for key in drive_keys(config) {
            let options = Properties::parse(&config[&key], "file");
            if !drive::is_cdrom(&options) {
                has &= self.has_feature(feature, options.get("file").unwrap_or_default(), snapshot)?;
            }
        }
        Ok(has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a volume of that name on that kind of storage has the feature, now and at a snapshot.
    fn has(kind: &str, name: &str, feature: Feature) -> (bool, bool) {
        let storage = Storage { kind: kind.to_owned(), options: serde_json::Map::new(), capacity: 0 };
        let named = parse_name(&storage, name).unwrap();
        (storage.has_feature(feature, &named, None), storage.has_feature(feature, &named, Some("one")))
    }

    #[test]
    fn a_linked_clone_needs_a_base_or_a_storage_that_branches_off_snapshots() {
        for (kind, disk, base, of_disk, of_base) in [
            ("dir", "9/vm-9-disk-0.raw", "9/base-9-disk-0.raw", (false, false), (true, false)),
            ("dir", "9/vm-9-disk-0.qcow2", "9/base-9-disk-0.qcow2", (false, false), (true, false)),
            ("btrfs", "9/vm-9-disk-0.raw", "9/base-9-disk-0.raw", (true, true), (true, true)),
            ("lvmthin", "vm-9-disk-0", "base-9-disk-0", (false, true), (true, true)),
            ("rbd", "vm-9-disk-0", "base-9-disk-0", (false, true), (true, true)),
            ("zfspool", "vm-9-disk-0", "base-9-disk-0", (false, false), (true, false)),
            ("lvm", "vm-9-disk-0", "base-9-disk-0", (false, false), (false, false)),
        ] {
            assert_eq!(has(kind, disk, Feature::Clone), of_disk, "{kind} {disk}");
            assert_eq!(has(kind, base, Feature::Clone), of_base, "{kind} {base}");
        }
    }

    #[test]
    fn a_snapshot_is_copied_only_where_it_can_be_read() {
        for (kind, disk, can) in [
            ("dir", "9/vm-9-disk-0.raw", (true, false)),
            ("dir", "9/vm-9-disk-0.qcow2", (true, true)),
            ("btrfs", "9/vm-9-disk-0.raw", (true, true)),
            ("lvmthin", "vm-9-disk-0", (true, true)),
            ("rbd", "vm-9-disk-0", (true, true)),
            ("zfspool", "vm-9-disk-0", (true, false)),
            ("lvm", "vm-9-disk-0", (true, false)),
        ] {
            assert_eq!(has(kind, disk, Feature::Copy), can, "{kind} {disk}");
        }
    }

    #[test]
    fn bases_are_made_and_owners_changed_once() {
        assert_eq!(has("lvm", "vm-9-disk-0", Feature::Template), (false, false));
        assert_eq!(has("dir", "9/vm-9-disk-0.vmdk", Feature::Template), (true, false));
        assert_eq!(has("dir", "9/base-9-disk-0.raw", Feature::Template), (false, false));
        assert_eq!(has("zfs", "vm-9-disk-0", Feature::Rename), (false, false));
        assert_eq!(has("rbd", "base-9-disk-0", Feature::Rename), (false, false));
    }
}
