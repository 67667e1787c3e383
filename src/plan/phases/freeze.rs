//! Phase `freeze`: the old cluster is stopped in an order that takes quorum away before the final snapshot.

use super::backup::{SNAPSHOT, STATE, copies};
use crate::plan::data::{Keep, OldMachine, Purpose, SnapshotFrom};
use crate::plan::make::{Draft, planned, undone_by};
use crate::plan::{Data, Phase, Planned, Step};
use crate::types::{Role, StepId};

/// The step that keeps etcd's leader.
pub(super) const KEPT: &str = "freeze/majority";

/// The step that saves the final snapshot.
pub(in crate::plan) const FINAL: &str = "freeze/snapshot";

/// How many machines go down at once.
const WIDTH: usize = 8;

/// Shuts the old machines down. Nothing to do where none is there.
pub(in crate::plan) fn freeze(draft: &Draft<'_>) -> Option<Phase> {
    if draft.victims.is_empty() {
        return None;
    }
    let steps = match &draft.wanted.data {
        Data::Keep(keep) => keeping(draft, keep),
        Data::Fresh | Data::Restore { .. } => dropping(draft),
    };
    Some(Phase { name: "freeze".to_owned(), steps, width: WIDTH })
}

/// Where nothing is kept, workers go first only so that their pods end well.
fn dropping(draft: &Draft<'_>) -> Vec<Planned> {
    let mut steps: Vec<Planned> = Vec::new();
    if !draft.seen.ha.is_empty() {
        steps.push(ha(draft, &[], Vec::new()));
    }
    for role in [Role::Worker, Role::ControlPlane] {
        let before: Vec<StepId> = steps.iter().map(|planned| planned.id.clone()).collect();
        steps.extend(draft.old_machines(Some(role)).into_iter().map(|old| shutdown(draft, old, &before)));
    }
    steps
}

/// Design §3: workers, then control planes with etcd's leader kept, then the snapshot, then the leader.
///
/// The gates come first and are undone by nothing; what is undone last waits until the old cluster is healthy.
fn keeping(draft: &Draft<'_>, keep: &Keep) -> Vec<Planned> {
    let (all, grace) = (draft.old_machines(None), draft.wanted.limits.shutdown);
    let control = draft.old_machines(Some(Role::ControlPlane));
    let proof = Step::ConfirmProof { snapshot: SNAPSHOT.into(), max_age: keep.max_age };
    let proof = planned("freeze/proof", proof, &[]);
    let sound = planned("freeze/sound", Step::ConfirmOld { machines: all.clone() }, &[&proof.id]);
    let ha = ha(draft, &[&sound.id], all);
    let mut steps = vec![proof, sound];
    let first = [ha.id.clone()];
    let workers: Vec<Planned> =
        draft.old_machines(Some(Role::Worker)).into_iter().map(|old| shutdown(draft, old, &first)).collect();
    let after: Vec<StepId> = first.iter().cloned().chain(workers.iter().map(|planned| planned.id.clone())).collect();
    steps.push(ha);
    steps.extend(workers);
    let majority = Step::StopMajority { machines: control.clone(), members: STATE.into(), grace };
    let majority = planned(KEPT, majority, &after.iter().collect::<Vec<_>>());
    let majority = undone_by(majority, Step::StartOld { machines: control.clone() });
    let snapshot = Step::SaveSnapshot {
        purpose: Purpose::Final,
        from: SnapshotFrom::Kept(majority.id.clone()),
        dir: keep.dir.clone(),
        since: Some(SNAPSHOT.into()),
    };
    let snapshot = planned(FINAL, snapshot, &[&majority.id]);
    let kept = Step::ShutdownKept {
        kept: majority.id.clone(),
        snapshot: snapshot.id.clone(),
        machines: control.clone(),
        grace,
    };
    let kept = undone_by(planned("freeze/kept", kept, &[&snapshot.id]), Step::StartOld { machines: control });
    let copies = copies("freeze", keep, &snapshot.id);
    steps.extend([majority, snapshot, kept]);
    steps.extend(copies);
    steps
}

fn ha(draft: &Draft<'_>, after: &[&StepId], machines: Vec<OldMachine>) -> Planned {
    let resources = draft.seen.ha.clone();
    let ignore = Step::IgnoreHa { resources: resources.clone(), machines: draft.old_machines(None) };
    undone_by(planned("freeze/ha", ignore, after), Step::RestoreHa { resources, machines })
}

fn shutdown(draft: &Draft<'_>, old: OldMachine, after: &[StepId]) -> Planned {
    let step = Step::ShutdownMachine { vm: old.vm.clone(), address: old.address, grace: draft.wanted.limits.shutdown };
    let id = format!("freeze/{}/shutdown", old.vm.name);
    undone_by(planned(id, step, &after.iter().collect::<Vec<_>>()), Step::StartOld { machines: vec![old] })
}
