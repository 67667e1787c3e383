//! Every step is done twice.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use recast::cli::prepare::DataWish;
use recast::engine::{Outcome, Perform, Seen, StepCx, StepError};
use recast::plan::{Output, Planned};
use recast::steps::World;
use recast::types::StepId;

use super::{Case, Death, Ending, applied, each};
use crate::site::Cluster;

/// Performs every step twice, each time as the engine does: look, and apply if it is missing.
struct Twice {
    world: World,
    applied: RefCell<BTreeMap<StepId, u32>>,
}

impl Perform for Twice {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let first = self.world.apply(step, cx).await?;
        *self.applied.borrow_mut().entry(step.id.clone()).or_default() += 1;
        match self.world.probe(step, cx).await? {
            Seen::NotNeeded => Ok(first),
            Seen::Done(output) => Ok(output),
            Seen::Missing => {
                *self.applied.borrow_mut().entry(step.id.clone()).or_default() += 1;
                self.world.apply(step, cx).await
            }
        }
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

#[test]
fn every_step_may_be_done_twice() {
    let images = tempfile::tempdir().unwrap();
    let cases = [
        (Cluster::Single, DataWish::Fresh),
        (Cluster::SingleOverSsh, DataWish::Fresh),
        (Cluster::Single, DataWish::Keep),
    ];
    each("every step twice", &cases, async |(cluster, data)| {
        let case = Case::new(images.path(), *cluster, data).await;
        let world = Twice { world: case.world(), applied: RefCell::default() };
        let ending = case.live(&world, Box::new(case.log.clone()), &Death::default()).await;
        assert_eq!(ending, Ending::Outcome(Outcome::Done), "{}", case.story());
        case.assert_rebuilt("twice").await;
        let done = applied(&case.log.records());
        let applied = world.applied.into_inner();
        assert_eq!(applied.keys().cloned().collect::<BTreeSet<_>>(), done);
        assert!(done.len() + 3 > case.plan.steps().count(), "{done:?}");
        // What looks done when it is done isn't done again; the rest only looks, or is the same when done again.
        let twice: Vec<&StepId> = applied.iter().filter(|(_, times)| **times > 1).map(|(id, _)| id).collect();
        println!("applied twice: {twice:?}");
    });
}
