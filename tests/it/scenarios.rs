//! Rebuilds of the lab at a site where things go wrong on the way: whatever a run ends with, no old machine is destroyed
//! on weak proof, the next command goes on, and nothing that was acknowledged is missing in the end.

use mock_pve::world::deed::Origin;

use crate::kill::{Recast, told};
use crate::lab::{assert_nothing_lost, writer};
use crate::site::{Cluster, Double, End, Folder};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 50.0;

/// How a rebuild may end at its first try.
#[derive(Clone, Copy, PartialEq)]
enum First {
    /// What goes wrong may be got over.
    Any,
    /// It must be seen, and nothing of the old cluster may be gone.
    Stops,
}

async fn meets(first: First, scenario: &str) {
    let folder = Folder::of(Cluster::Lab);
    let double = Double::in_scenario(&folder, TIME_SCALE, scenario);
    let writer = writer(&folder, &double);
    let mut code = Recast::start(folder.recast(double.site(), &Cluster::Lab.rebuild()), &folder).end();
    let story = || format!("{scenario}\n{}", told(&folder));
    if first == First::Stops {
        assert!(matches!(code, Some(4 | 5)), "{code:?}: {}", story());
        let destroyed = double.deeds().into_iter().find(|deed| deed.origin == Origin::Seeded && deed.what == "destroy");
        assert!(destroyed.is_none(), "{destroyed:?} {}", story());
    }
    // What a refusal ended is begun anew; what is parked goes on.
    for _again in 0..2 {
        let again = Cluster::Lab.rebuild();
        code = match code {
            Some(0) => break,
            Some(4) => Recast::start(folder.recast(double.site(), &again), &folder).end(),
            Some(5) => Recast::start(folder.recast(double.site(), &["resume"]), &folder).end(),
            other => panic!("{other:?}: {}", story()),
        };
    }
    assert_eq!(code, Some(0), "{}", story());
    assert_nothing_lost(&writer.finish().await.unwrap(), &story());
    let (end, expected) = (End::of(&folder, double.site()).await, End::rebuilt(Cluster::Lab));
    assert_eq!((end.versions, end.members), (expected.versions, expected.members), "{}", story());
    assert_eq!(double.never_happened(), Vec::<String>::new(), "{}", story());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_snapshot_that_arrives_damaged_destroys_nothing() {
    meets(First::Stops, "faults: [{on: {talos: EtcdSnapshot}, nth: 1, then: {corrupt: 3}}]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_snapshot_that_arrives_damaged_destroys_nothing() {
    meets(First::Any, "faults: [{on: {talos: EtcdSnapshot}, nth: 2, then: {corrupt: 3}}]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_never_comes_is_not_waited_for_forever() {
    meets(First::Any, "faults: [{on: {talos: EtcdSnapshot}, nth: 2, then: {stall: forever}}]").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_server_that_hangs_from_the_freeze_on_loses_nothing() {
    let scenario = "
faults:
  - {on: {talos: EtcdStatus, vm: lab-cp-02}, nth: 4, times: 3, then: {stall: forever}}
  - {on: {kubernetes: 'get /**', vm: lab-cp-01}, nth: 6, times: 5, then: {stall: 100s}}
";
    meets(First::Any, scenario).await;
}
