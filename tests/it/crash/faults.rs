//! Every step fails, in every way that there is.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use recast::cli::prepare::DataWish;
use recast::engine::{Class, Outcome, Perform, Seen, StepCx, StepError};
use recast::plan::{Output, Planned};
use recast::steps::World;
use recast::types::StepId;

use super::{Case, Death, Ending, applied, each, is_keeping, sample, undisturbed};
use crate::site::Cluster;

/// How many faults are tried where the data are kept, unless `RECAST_TEST_ALL_CUTS` is set.
const KEPT_FAULTS: usize = 24;

/// Where a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// While it looks.
    Probe,
    /// Before it does anything.
    Before,
    /// After all is done.
    After,
}

/// Every step fails once, in one way.
struct Faulty<'a> {
    world: World,
    /// Only steps whose ids begin so fail.
    steps: &'a str,
    place: Place,
    class: Class,
    failed: RefCell<BTreeSet<StepId>>,
}

impl Faulty<'_> {
    /// The fault, if this is the place and the step's turn. What takes a step back doesn't fail: a run that can't be
    /// taken back is stuck by design.
    fn fault(&self, place: Place, step: &Planned) -> Result<(), StepError> {
        let id = step.id.as_str();
        let due = place == self.place && id.starts_with(self.steps) && !id.ends_with("/undo");
        if due && self.failed.borrow_mut().insert(step.id.clone()) {
            return Err(StepError::new(self.class, format!("do {}", step.id), "the test wants it"));
        }
        Ok(())
    }
}

impl Perform for Faulty<'_> {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        self.fault(Place::Probe, step)?;
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        self.fault(Place::Before, step)?;
        let output = self.world.apply(step, cx).await?;
        self.fault(Place::After, step)?;
        Ok(output)
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

#[test]
fn every_step_may_fail_once_in_every_way() {
    fail_once_in_every_way(Cluster::Single, "");
}

#[test]
fn every_step_of_an_image_over_ssh_may_fail_once_in_every_way() {
    fail_once_in_every_way(Cluster::SingleOverSsh, "template/");
}

/// Every way in which a step may fail.
fn ways_to_fail() -> Vec<(Class, Place)> {
    let classes = [Class::Transient, Class::Permanent, Class::Ambiguous, Class::Refused];
    let places = [Place::Probe, Place::Before, Place::After];
    classes.into_iter().flat_map(|class| places.map(|place| (class, place))).collect()
}

/// One step fails once, in one way.
#[derive(Debug)]
struct Fault {
    step: StepId,
    class: Class,
    place: Place,
}

/// Each by itself: what a failure gives back depends on how far the run was.
#[test]
fn any_step_may_fail_once_where_the_data_are_kept() {
    let images = tempfile::tempdir().unwrap();
    let records = undisturbed(&images, Cluster::Single, &DataWish::Keep);
    let applied = applied(&records);
    let done: BTreeSet<&StepId> = records.iter().filter_map(|record| record.entry.step()).collect();
    let mut faults = Vec::new();
    for (class, place) in ways_to_fail() {
        let steps = done.iter().filter(|step| is_keeping(step));
        // What there is nothing to do about is never applied, so it can't fail there.
        let steps = steps.filter(|step| place == Place::Probe || applied.contains(**step));
        faults.extend(steps.map(|step| Fault { step: (*step).clone(), class, place }));
    }
    println!("{} faults where data are kept", faults.len());
    assert!(faults.len() > 10 * ways_to_fail().len(), "{faults:?}");
    each("faults", &sample(faults, KEPT_FAULTS), async |fault| {
        let Fault { step, class, place } = fault;
        let what = format!("{fault:?}");
        let case = Case::new(images.path(), Cluster::Single, &DataWish::Keep).await;
        let world = Faulty {
            world: case.world(),
            steps: step.as_str(),
            place: *place,
            class: *class,
            failed: RefCell::default(),
        };
        let first = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
        assert!(world.failed.borrow().contains(step), "{what}: {}", case.story());
        drop(world);
        let failed = matches!(first, Ending::Outcome(Outcome::Failed | Outcome::Refused));
        assert!(failed || first == Ending::Outcome(Outcome::Done), "{what}: {first:?}: {}", case.story());
        // Until the first delete is about to begin, a failure leaves the old cluster as it was.
        if failed && ["backup/", "freeze/"].iter().any(|phase| step.as_str().starts_with(phase)) {
            case.assert_given_back(&what).await;
        }
        case.go_on(&what).await;
    });
}

#[expect(clippy::print_stdout, reason = "the counts are what a reader of the test's output wants to know")]
fn fail_once_in_every_way(cluster: Cluster, steps: &'static str) {
    let images = tempfile::tempdir().unwrap();
    let applied = applied(&undisturbed(&images, cluster, &DataWish::Fresh));
    let ways = ways_to_fail();
    let faults = AtomicUsize::new(0);
    each("ways to fail", &ways, async |&(class, place)| {
        let case = Case::new(images.path(), cluster, &DataWish::Fresh).await;
        let mut failed = BTreeSet::new();
        let mut ending = None;
        // Each process of the run meets at least one new fault, or is the last.
        for _ in 0..=case.plan.steps().count() {
            let world = Faulty { world: case.world(), steps, place, class, failed: RefCell::new(failed) };
            let lived = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
            failed = world.failed.into_inner();
            let done = lived == Ending::Outcome(Outcome::Done);
            ending = Some(lived);
            if done || matches!(ending, Some(Ending::Outcome(Outcome::Stuck))) {
                break;
            }
        }
        assert_eq!(ending, Some(Ending::Outcome(Outcome::Done)), "{class:?} {place:?}: {}", case.story());
        // What there is nothing to do about is never applied, so it can't fail there.
        let idle = |planned: &Planned| place != Place::Probe && !applied.contains(&planned.id);
        let meant = || case.plan.steps().filter(|planned| planned.id.as_str().starts_with(steps) && !idle(planned));
        let met = meant().filter(|planned| failed.contains(&planned.id)).count();
        assert_eq!(met, meant().count());
        faults.fetch_add(met, Ordering::Relaxed);
        case.assert_rebuilt(&format!("{class:?} {place:?}")).await;
    });
    println!("faults: {}", faults.into_inner());
}
