//! What a run found out, for its document: the proof of backup, what was restored, what is worse than before.

use std::collections::BTreeMap;

use crate::plan::data::Purpose;
use crate::plan::{Output, Plan, Step};
use crate::types::StepId;

use super::document::{Backup, Input, Proven, Removed, Restored};

/// What the steps found out, beyond the proof of backup and what was restored.
#[derive(Clone, Debug, Default)]
pub struct Found {
    pub(super) backups: Vec<Proven>,
    pub(super) window_revisions: Option<u64>,
    pub(super) removed: Removed,
    pub(super) commit: Option<String>,
}

/// Fills in what the outputs of a run's steps say.
pub(super) fn told<'a>(input: Input<'a>, outputs: &BTreeMap<StepId, Output>) -> Input<'a> {
    let backups = backups(input.plan, outputs);
    let mut found = Found { backups, ..Found::default() };
    for output in outputs.values() {
        match output {
            Output::Window { revisions } => found.window_revisions = Some(*revisions),
            Output::Removed { nodes, members } => {
                found.removed.nodes.extend(nodes.iter().cloned());
                found.removed.members.extend(members.iter().cloned());
            }
            Output::Commit { id } => found.commit = Some(id.clone()),
            _ => {}
        }
    }
    // The last one counts: the final snapshot, else the one from before.
    let backup = found.backups.last().map(|proven| proven.backup.clone());
    Input { backup, restored: restored(outputs), regressions: regressions(outputs), found, ..input }
}

/// Every proof there is, in the plan's order.
fn backups(plan: &Plan, outputs: &BTreeMap<StepId, Output>) -> Vec<Proven> {
    // The only control plane goes on writing until it is shut down.
    let alone = outputs.values().any(|output| matches!(output, Output::Kept { alone: true, .. }));
    let proven = plan.steps().filter_map(|planned| {
        let Step::SaveSnapshot { purpose, .. } = &planned.step else { return None };
        let Output::Snapshot { file, sha256, bytes, revision, keys, taken, machine, .. } = outputs.get(&planned.id)?
        else {
            return None;
        };
        let copies = plan.steps().filter_map(|copy| match (&copy.step, outputs.get(&copy.id)) {
            (Step::CopySnapshot { snapshot, .. }, Some(Output::Copy { place })) if *snapshot == planned.id => {
                Some(place.clone())
            }
            _ => None,
        });
        let backup = Backup {
            revision: *revision,
            keys: *keys,
            sha256: *sha256,
            copies: std::iter::once(file.display().to_string()).chain(copies).collect(),
            frozen: *purpose == Purpose::Final && !alone,
        };
        let (purpose, machine) = (purpose.to_string(), machine.to_string());
        Some(Proven { purpose, taken: *taken, machine, bytes: *bytes, backup })
    });
    proven.collect()
}

fn restored(outputs: &BTreeMap<StepId, Output>) -> Option<Restored> {
    outputs.values().find_map(|output| match output {
        Output::Restored { revision, keys, .. } => Some(Restored { revision: *revision, keys: *keys }),
        _ => None,
    })
}

fn regressions(outputs: &BTreeMap<StepId, Output>) -> Vec<String> {
    let worse = outputs.values().filter_map(|output| match output {
        Output::Workloads { regressions } => Some(regressions.clone()),
        _ => None,
    });
    worse.flatten().collect()
}
