//! The freeze against a double with three control planes: not one acknowledged write is lost, whatever happens to the
//! old cluster meanwhile, and what can't be frozen is given back.
//!
//! A writer keeps on making `ConfigMaps` through the Kubernetes API while a rebuild goes on. What it was told to be there
//! must be there in the end, in the old cluster or in the new one.

mod scene;
mod trouble;

use std::fs;
use std::sync::atomic::Ordering;

use recast::engine::Outcome;
use recast::plan::Output;

use scene::{OLD, Scene, vm};
use trouble::Trouble;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_the_new_cluster() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 0);
    let outputs = ended.journal.state().outputs().clone();
    let Some(Output::Snapshot { revision: first, .. }) = outputs.get(&"backup/snapshot".into()) else { panic!() };
    let Some(Output::Snapshot { revision: last, file, .. }) = outputs.get(&"freeze/snapshot".into()) else { panic!() };
    assert!(last >= first, "{last} {first}");
    assert!(file.is_file());
    let Some(Output::Restored { revision, .. }) = outputs.get(&"bootstrap/etcd".into()) else { panic!() };
    assert_eq!(revision, last);
    for name in ["members.json", "nodes.json", "workloads.json", "versions.json", "machines/single-cp-01.yaml"] {
        let path = scene.run.join("before").join(name);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

/// A freeze that fails at this step gives the old cluster back and can be done again.
async fn fails_and_is_done_again(step: &'static str) {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Fails(step)).await;
    assert_eq!(ended.outcome, Outcome::Failed, "{:#?}\n{}", ended.failures, scene.story());
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
    scene.over.store(false, Ordering::SeqCst);
    let ended = scene.rebuild(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_ha_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/ha").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_a_worker_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/single-worker-01/shutdown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_without_quorum_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/majority").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_its_snapshot_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/snapshot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_the_last_machine_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_that_was_started_after_the_freeze_is_frozen_again() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Starts("retire/frozen", 1101)).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 1, "{}", scene.story());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_attached_after_the_freeze_is_never_destroyed() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Attaches("retire/frozen", 1102)).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    assert!(format!("{:?}", ended.failures).contains("scsi3"), "{:?}", ended.failures);
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
}

/// A run that froze the old cluster and stopped right before it deletes anything.
async fn stopped_when_frozen() -> Scene {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Fails("retire/frozen")).await;
    assert_eq!(ended.outcome, Outcome::Failed, "{:#?}\n{}", ended.failures, scene.story());
    for vmid in OLD {
        let status = scene.session.pve.vm_status(&vm(vmid)).await.unwrap();
        assert!(status.is_stopped(), "VM {vmid} is {}: {}", status.status, scene.story());
    }
    scene.assert_nothing_destroyed();
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_that_was_started_before_a_resume_is_frozen_again() {
    let scene = stopped_when_frozen().await;
    scene.start(1101).await;
    let ended = scene.live(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 1, "{}", scene.story());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_attached_before_a_resume_is_never_destroyed() {
    let scene = stopped_when_frozen().await;
    scene.attach_disk(1102).await;
    let ended = scene.live(Trouble::Nothing).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    assert!(format!("{:?}", ended.failures).contains("scsi3"), "{:?}", ended.failures);
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_something_is_deleted_a_started_machine_ends_the_run() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::StartsAfter("retire/single-cp-03/delete", 1100, 1102)).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    let told = format!("{:?}", ended.failures);
    assert!(told.contains("deleted already") && told.contains("the final snapshot is"), "{told}");
    assert_eq!(scene.reopened(), 0);
    assert!(!scene.destroyed().contains(&1102));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_changes_all_the_time_is_still_the_one_that_is_kept() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Elections("freeze/majority")).await;
    scene.assert_rebuilt(&ended).await;
}

/// Leadership is handed on while this step goes on: either the cluster is rebuilt, or the old one is there as before.
async fn elections_lose_nothing(step: &'static str) {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Elections(step)).await;
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else {
        let told = format!("{:#?}\n{}", ended.failures, scene.story());
        assert!(matches!(ended.outcome, Outcome::Failed | Outcome::Refused), "{told}");
        scene.assert_given_back().await;
        scene.assert_nothing_lost().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_before_the_freeze_lose_nothing() {
    elections_lose_nothing("freeze/sound").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_a_worker_goes_down_lose_nothing() {
    elections_lose_nothing("freeze/single-worker-01/shutdown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_the_final_snapshot_is_saved_lose_nothing() {
    elections_lose_nothing("freeze/snapshot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_the_last_machine_goes_down_lose_nothing() {
    elections_lose_nothing("freeze/kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_someone_restarts_during_the_freeze_lose_nothing() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Restarts("freeze/majority", 2)).await;
    scene.assert_rebuilt(&ended).await;
    // One that is restarted for ever can't be frozen; the old cluster goes on.
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Restarts("freeze/majority", 30)).await;
    assert!(matches!(ended.outcome, Outcome::Failed | Outcome::Done), "{:#?}\n{}", ended.failures, scene.story());
    if ended.outcome == Outcome::Failed {
        scene.assert_given_back().await;
    }
    scene.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_the_ha_manager_starts_again_loses_nothing() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Manages("freeze/majority", 1101)).await;
    let destroyed: Vec<u32> = scene.destroyed().into_iter().filter(|vmid| OLD.contains(vmid)).collect();
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else if destroyed.is_empty() {
        // One that never stays down can't be frozen: the old cluster goes on.
        scene.assert_nothing_lost().await;
    } else {
        // It was started, or was still in the manager's care, after others were deleted: it is let alone, and named.
        assert!(!destroyed.contains(&1101), "{destroyed:?}\n{}", scene.story());
        let told = format!("{:?}", ended.failures);
        assert!(told.contains("single-cp-02"), "{told}");
        assert!(told.contains("the final snapshot is") || told.contains("ha-manager remove"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_is_never_the_one_whose_data_are_kept() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Lags("freeze/majority", 60.0)).await;
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else {
        scene.assert_given_back().await;
        scene.assert_nothing_lost().await;
    }
}
