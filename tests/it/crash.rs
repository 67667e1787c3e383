//! Crash, fault and repeat tests, generated from the plan of a rebuild: the real steps against a double. All of them on
//! one node with one control plane, without the data and with them, and a sample on the lab's three.
//!
//! `engine.rs` does the same to the engine alone; here a machine must boot in the end. Each case has a double of its own.
//! The journal is in memory: what its file survives is `journal.rs`'s and `kill.rs`'s affair.

mod case;
mod death;
mod faults;
mod killed;
mod repeats;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use tempfile::TempDir;

use recast::cli::prepare::DataWish;
use recast::engine::Outcome;
use recast::event::How;
use recast::journal::{Entry, Record};
use recast::types::StepId;

use crate::kill::Random;
use crate::site::{Cluster, secrets};

pub(crate) use case::{Case, Ending};
pub(crate) use death::{Cut, CutLog, Death, Mortal};
pub(crate) use killed::cuts;

/// How many cases go on at once. They mostly wait.
const AT_ONCE: usize = 8;

/// The phases that are others, or do other things, where the data are kept.
const KEEPING: [&str; 5] = ["backup/", "freeze/", "retire/", "bootstrap/", "verify/"];

/// Runs every case, a few at a time, each on a runtime of its own. Panics with all that failed.
#[expect(clippy::print_stdout, reason = "the counts are what a reader of the test's output wants to know")]
pub(crate) fn each<T: Sync + std::fmt::Debug>(what: &str, cases: &[T], test: impl AsyncFn(&T) + Sync) {
    secrets();
    let since = Instant::now();
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                        runtime.block_on(test(case));
                        runtime.shutdown_background();
                    }));
                    if done.is_err() {
                        failed.lock().unwrap().push(format!("{case:?}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    let (cases, seconds) = (cases.len(), since.elapsed().as_secs_f64());
    println!("{what}: {cases} cases, {} failed, {seconds:.0} s", failed.len());
    assert!(failed.is_empty(), "{what}: {failed:#?}");
}

/// The journal of a run that nothing disturbs.
fn undisturbed(images: &TempDir, cluster: Cluster, data: &DataWish) -> Vec<Record> {
    let records = Mutex::new(Vec::new());
    each("undisturbed", &[()], async |()| {
        let case = Case::new(images.path(), cluster, data).await;
        assert_eq!(case.resume().await, Ending::Outcome(Outcome::Done), "{}", case.story());
        case.assert_rebuilt("undisturbed").await;
        *records.lock().unwrap() = case.log.records();
    });
    records.into_inner().unwrap()
}

/// The steps that had something to do.
fn applied(records: &[Record]) -> BTreeSet<StepId> {
    let applied = records.iter().filter_map(|record| match &record.entry {
        Entry::Succeeded { step, how: How::Applied, .. } => Some(step.clone()),
        _ => None,
    });
    applied.collect()
}

/// So many of these, evenly spread, and others with every seed.
fn spread<T>(all: Vec<T>, most: usize) -> Vec<T> {
    let stride = all.len().div_ceil(most).max(1);
    let first = usize::try_from(Random::new().below(stride as u64)).unwrap();
    all.into_iter().skip(first).step_by(stride).collect()
}

/// The same, or all of them if `RECAST_TEST_ALL_CUTS` is set.
pub(crate) fn sample<T>(all: Vec<T>, most: usize) -> Vec<T> {
    if std::env::var_os("RECAST_TEST_ALL_CUTS").is_some() { all } else { spread(all, most) }
}

/// Whether it matters to this step that the data are kept.
fn is_keeping(step: &StepId) -> bool {
    KEEPING.iter().any(|phase| step.as_str().starts_with(phase))
}
