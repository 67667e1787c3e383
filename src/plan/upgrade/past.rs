//! What machines went through, as runs and their journals tell: what each ran before, and what its other slot holds.
//!
//! Talos keeps two releases on a disk and tells of one. Booting the other without knowing it may bring a machine forward
//! again: after a way back it holds what was left, after a release that was written and not kept it holds that. Must not
//! know: journals, clocks, clients.

use std::collections::BTreeMap;

use super::{By, Release, SeenMember};
use crate::plan::Step;
use crate::types::{MachineName, SchematicId, Version};

/// A release by what it is, wherever its installer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The Talos version.
    pub version: Version,
    /// What its image was made from, where that is known.
    pub schematic: Option<SchematicId>,
}

impl Ran {
    /// What a step brings.
    pub fn of(release: &Release) -> Self {
        Self { version: release.version.clone(), schematic: Some(release.schematic.clone()) }
    }

    /// Whether a machine runs it. Where a schematic can't be told, the version alone tells.
    pub fn is_run_by(&self, seen: &SeenMember) -> bool {
        let same = match (&self.schematic, &seen.schematic) {
            (Some(own), Some(runs)) => own == runs,
            _ => true,
        };
        self.version == seen.version && same
    }

    /// Whether going from `later` to it is a way back: it is older, or made from something else.
    pub fn is_before(&self, later: &Self) -> bool {
        self.version < later.version || (self.version == later.version && self.schematic != later.schematic)
    }
}

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// It was begun, and nobody knows what came of it, or it failed.
    Begun,
    /// Its effect was seen.
    Done,
}

/// How a machine came, or was to come, from one release to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Up,
    /// Back, by what its other slot held.
    Kept,
    /// Back, by an installer.
    Installed,
}

/// What was done to a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Deed {
    /// This was written beside what runs.
    Written(Ran),
    /// It was told to reboot into another release.
    Went { from: Ran, to: Option<Ran>, turn: Turn, far: Far },
    /// Nobody can tell any more.
    Unknown,
}

/// What was done to each machine's disk, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past(BTreeMap<MachineName, Vec<Deed>>);

impl Past {
    /// Adds what a step did, after all that was added.
    pub fn add(&mut self, step: &Step, far: Far) {
        let (machine, deed) = match step {
            Step::WriteRelease { machine, release } => (machine, Deed::Written(Ran::of(release))),
            Step::UpgradeMachine { machine, from, leaves, release, .. } => {
                let from = Ran { version: from.clone(), schematic: leaves.clone() };
                (machine, Deed::Went { from, to: Some(Ran::of(release)), turn: Turn::Up, far })
            }
            Step::RollBackMachine { machine, from, leaves, release, by, .. } => {
                let from = Ran { version: from.clone(), schematic: leaves.clone() };
                let turn = match by {
                    By::OtherSlot => Turn::Kept,
                    By::Installer => Turn::Installed,
                };
                (machine, Deed::Went { from, to: release.as_ref().map(Ran::of), turn, far })
            }
            // The machines are others from here on: what was on the disks is gone with them.
            Step::RetireVm { .. } | Step::BootstrapEtcd { .. } | Step::RecoverEtcd { .. } => {
                if far == Far::Done {
                    self.0.clear();
                }
                return;
            }
            _ => return,
        };
        self.0.entry(machine.name.clone()).or_default().push(deed);
    }

    /// Something was done that can't be read: what any other slot holds is not certain from here on.
    pub fn doubt(&mut self) {
        for deeds in self.0.values_mut() {
            deeds.push(Deed::Unknown);
        }
    }

    fn of(&self, seen: &SeenMember) -> &[Deed] {
        self.0.get(&seen.member.name).map_or(&[], Vec::as_slice)
    }

    /// What a machine's other slot holds, where that is certain.
    pub fn other_slot(&self, seen: &SeenMember) -> Option<&Ran> {
        match self.of(seen).last()? {
            Deed::Went { from, to: Some(to), .. } if to.is_run_by(seen) => Some(from),
            Deed::Went { from, to: None, far: Far::Done, .. } if from.version != seen.version => Some(from),
            // It never went, and nothing was written but what was there.
            Deed::Went { from, to: Some(to), turn: Turn::Kept, .. } if from.is_run_by(seen) => Some(to),
            _ => None,
        }
    }

    /// What was written beside what a machine runs, and may be what it boots next.
    pub fn waits(&self, seen: &SeenMember) -> Option<&Ran> {
        let came_to_nothing = |deed: &&Deed| match deed {
            Deed::Went { from, far, .. } => *far == Far::Begun && from.is_run_by(seen),
            Deed::Written(_) | Deed::Unknown => false,
        };
        match self.of(seen).iter().rev().find(|deed| !came_to_nothing(deed))? {
            Deed::Written(to) if !to.is_run_by(seen) => Some(to),
            _ => None,
        }
    }

    /// What a machine ran before it was brought up to what it runs.
    pub fn before(&self, seen: &SeenMember) -> Option<&Ran> {
        self.of(seen).iter().rev().find_map(|deed| match deed {
            Deed::Went { from, to: Some(to), turn: Turn::Up, .. } if to.is_run_by(seen) && from.is_before(to) => {
                Some(from)
            }
            _ => None,
        })
    }
}
