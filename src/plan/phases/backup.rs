//! Phase `backup`: what may be needed of the old cluster, and the proof that its data can be had back.

use crate::plan::data::{Keep, OldMachine, Purpose, SnapshotFrom};
use crate::plan::make::{Draft, planned};
use crate::plan::{Data, Phase, Planned, Step};
use crate::types::{Role, StepId};

/// The step that saves what may be needed.
pub(super) const STATE: &str = "backup/state";

/// The step whose snapshot is the proof of backup.
pub(super) const SNAPSHOT: &str = "backup/snapshot";

/// Saves the old cluster's state and a first snapshot. Nothing to do where nothing is kept.
pub(in crate::plan) fn backup(draft: &Draft<'_>) -> Option<Phase> {
    let Data::Keep(keep) = &draft.wanted.data else { return None };
    Some(of(keep, &draft.old_machines(None)))
}

/// The same of these machines.
pub(super) fn of(keep: &Keep, machines: &[OldMachine]) -> Phase {
    let state = planned(STATE, Step::SaveBefore { machines: machines.to_vec() }, &[]);
    let control = machines.iter().filter(|old| old.role == Role::ControlPlane).cloned();
    let snapshot = Step::SaveSnapshot {
        purpose: Purpose::Before,
        from: SnapshotFrom::Leader(control.collect()),
        dir: keep.dir.clone(),
        since: None,
    };
    let snapshot = planned(SNAPSHOT, snapshot, &[&state.id]);
    let copies = copies("backup", keep, &snapshot.id);
    let steps = [state, snapshot].into_iter().chain(copies).collect();
    Phase { name: "backup".to_owned(), steps, width: 4 }
}

/// One step per second copy of a snapshot.
pub(super) fn copies(phase: &str, keep: &Keep, snapshot: &StepId) -> Vec<Planned> {
    let copy = |(number, to): (usize, &crate::plan::data::CopyTo)| {
        let step = Step::CopySnapshot { snapshot: snapshot.clone(), to: to.clone() };
        planned(format!("{phase}/copy-{}", number + 1), step, &[snapshot])
    };
    keep.copies.iter().enumerate().map(copy).collect()
}
