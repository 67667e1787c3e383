//! What the runs of this cluster did to its machines, by their plans and journals.
//!
//! Must not know: what runs now.

use std::collections::BTreeMap;

use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::journal::{JournalError, RunDir, RunState, StateDir, StepState};
use crate::plan::compatibility::{Minor, Runs, Table};
use crate::plan::upgrade::past::{Far, Past};
use crate::plan::{Plan, Step};
use crate::types::StepId;

/// What is known of the machines.
pub(super) struct Known {
    /// What they went through.
    pub(super) past: Past,
    /// What goes with what, by what the user's own table said in those runs.
    pub(super) table: Table,
}

/// Reads all runs that brought machines another release, or made them.
pub(super) fn read(session: &Session) -> Result<Known, Stop> {
    let state = StateDir::new(&session.state_root(), &session.profile.value.name);
    let unreadable = |error: &JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    // None is what a run did whose plan can't be read.
    let mut deeds: Vec<(jiff::Timestamp, Option<(Step, Far)>)> = Vec::new();
    let mut carried: BTreeMap<Minor, Runs> = BTreeMap::new();
    for dir in state.list().map_err(|error| unreadable(&error))?.iter().rev() {
        let Ok(plan) = dir.plan() else {
            let last = dir.records().ok().and_then(|records| records.last().map(|record| record.at));
            deeds.extend(last.map(|at| (at, None)));
            continue;
        };
        if !plan.verb.reboots() && !plan.verb.installs() && !plan.verb.destroys() {
            continue;
        }
        let records = dir.records().map_err(|error| unreadable(&error))?;
        let mut last: BTreeMap<&StepId, jiff::Timestamp> = BTreeMap::new();
        for record in &records {
            if let Some(step) = record.entry.step() {
                last.insert(step, record.at);
            }
        }
        let state = state_of(dir, &plan)?;
        for planned in plan.steps() {
            if let Step::ConfirmKubernetes { runs: Some(runs), .. } = &planned.step {
                carried.insert(runs.talos, *runs);
            }
            if let Some(at) = last.get(&planned.id) {
                let done = matches!(state.step(&planned.id), Some(StepState::Succeeded { .. }));
                let far = if done { Far::Done } else { Far::Begun };
                deeds.push((*at, Some((planned.step.clone(), far))));
            }
        }
    }
    // A run that was resumed after a later one goes on after it.
    deeds.sort_by_key(|(at, ..)| *at);
    let mut past = Past::default();
    for (_, deed) in &deeds {
        match deed {
            Some((step, far)) => past.add(step, *far),
            None => past.doubt(),
        }
    }
    Ok(Known { past, table: Table::built_in().clone().with_carried(carried.into_values()) })
}

/// Where a run's steps stand.
pub(super) fn state_of(dir: &RunDir, plan: &Plan) -> Result<RunState, Stop> {
    let records = dir
        .records()
        .map_err(|error| Stop::because(ExitCode::Failed, format!("run {} can't be read", dir.id()), &error))?;
    let mut state = RunState::new(&plan.phases);
    for record in records {
        // A journal that makes no sense is refused when it is opened.
        let _ = state.record(&record.entry);
    }
    Ok(state)
}
