//! The way back from an upgrade of one hop: of a run, or of machines by name, with the same gates as the way there.

use super::{LAB, Scene, Shape};
use crate::kill::{Recast, told};

const SMALL: Shape = Shape { control: 1, workers: 2, ..LAB };
const PAIR: Shape = Shape { control: 1, workers: 1, ..LAB };

const BACK: &[&str] = &["rollback"];
const UP: &[&str] = &["upgrade", "--to", "1.13.9"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrades_run_is_taken_back_machine_by_machine() {
    let scene = Scene::begin(Shape { workers: 1, ..LAB }).await;
    let profile = scene.profile();
    let (document, _) = scene.done(UP).await;
    let upgraded = scene.boots();
    let run = document["run"].as_str().unwrap().to_owned();

    let shown = scene.run(&["rollback", &run, "--dry-run"]).await;
    assert_eq!(shown.status.code(), Some(2), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("lab-cp-03"));
    let (code, _, unasked) = scene.asked(&["rollback", &run]).await;
    assert_eq!(code, 4, "{unasked}");
    assert_eq!(scene.boots(), upgraded);

    // Without a name the newest run is meant.
    let (document, story) = scene.done(BACK).await;
    assert_eq!(document["verb"], "rollback", "{document:#}\n{story}");
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
    assert!(scene.boots().iter().all(|(name, boot)| upgraded[name] != *boot));
    assert_eq!(scene.profile(), profile);

    // What was taken back is not gone on with, and taking it back twice is nothing.
    assert_eq!(scene.run(&["resume"]).await.status.code(), Some(3));
    scene.refused(BACK, &["is itself a way back"]).await;
    scene.refused(&["rollback", &run], &["no machine runs what run", "nothing is to be taken back"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_by_name_go_back_and_the_others_stay() {
    let scene = Scene::begin(Shape { talos: "1.13.5", ..SMALL }).await;
    let one = &["rollback", "--nodes", "lab-worker-01"];
    scene.refused(one, &["no run of recast knows a release that lab-worker-01 ran before Talos 1.13.5"]).await;
    scene.assert_open("nothing is known").await;

    let (document, _) = scene.done(UP).await;
    let before = scene.inside();
    scene.refused(&["rollback", "--nodes", "stranger,lab-worker-01"], &["stranger is no machine of the profile"]).await;
    let (_, story) = scene.done(one).await;
    let after = scene.inside();
    assert_eq!(after["lab-worker-01"].version, "1.13.5", "{story}");
    for name in ["lab-cp-01", "lab-worker-02"] {
        assert_eq!(after[name], before[name], "{story}");
    }
    scene.assert_quorum(&story);
    // The other slot holds the newer one now: nothing brings it forward again.
    scene.refused(one, &["lab-worker-01 ran before Talos 1.13.5; its other slot holds Talos 1.13.9"]).await;
    // The run is taken back as far as it is not yet.
    let (_, story) = scene.done(&["rollback", document["run"].as_str().unwrap()]).await;
    scene.assert_runs("1.13.5", "1.34.1", &story).await;
    assert_eq!(scene.inside()["lab-worker-01"], after["lab-worker-01"], "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_does_not_go_back_below_its_etcd() {
    let scene = Scene::begin(Shape { talos: "1.10.9", kubernetes: "1.33.6", ..PAIR }).await;
    scene.done(&["upgrade", "--to", "1.11.6", "--only", "os"]).await;
    scene.refused(BACK, &["can't read the data of etcd 3.6", "--restore FILE", "`recast rebuild --to 1.10.9"]).await;
    scene.done(&["rollback", "--nodes", "lab-worker-01"]).await;
    assert_eq!(scene.inside()["lab-worker-01"].version, "1.10.9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_are_refused_and_one_is_warned_about() {
    let scene = Scene::begin(Shape { control: 2, workers: 0, ..LAB }).await;
    let told = scene.refused(UP, &["etcd has two members", "add a third control plane"]).await;
    scene.assert_quorum(&told);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_kept_nothing_goes_back_by_the_installer_of_before() {
    for (from, to) in [("1.12.4", "1.12.11"), ("1.13.5", "1.13.9")] {
        let scenario = "faults: [{on: {talos: Rollback}, then: {status: 2, reason: 'cannot rollback to \"A\", label does \
                        not exist'}}]";
        let scene = Scene::played(Shape { talos: from, ..PAIR }, scenario).await;
        scene.done(&["upgrade", "--to", to]).await;
        let (_, story) = scene.done(BACK).await;
        assert!(story.contains("keeps no other release any more"), "{story}");
        scene.assert_runs(from, "1.34.1", &story).await;
    }
}

/// How far the second machine has come when the upgrade's process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Far {
    /// Its pods leave.
    Emptied,
    /// It boots the new release.
    Rebooted,
}

/// Begins an upgrade of a run's own process, which goes on until it begins a step whose id holds this.
async fn begins(scene: &Scene, args: &[&str], step: &'static str) -> Recast {
    let args = [args, &["--confirm", "lab"]].concat();
    let mut recast = Recast::start(scene.folder.recast(scene.double.site(), &args), &scene.folder);
    let comes = move || {
        let mut lines = std::iter::from_fn(|| recast.wait_for(0));
        let reached = lines.any(|line| line.contains("\"event\":\"step-started\"") && line.contains(step));
        (recast, reached)
    };
    let (recast, reached) = tokio::task::spawn_blocking(comes).await.unwrap();
    assert!(reached, "{step}: {}", told(&scene.folder));
    recast
}

/// The same, until there.
pub(super) async fn dies(scene: &Scene, shape: Shape, args: &[&str], step: &'static str) {
    let mut recast = begins(scene, args, step).await;
    recast.kill();
    recast.end();
    scene.settled(shape).await;
}

/// An upgrade dies at its second machine, and is taken back: those that moved go back, and nobody else goes down.
async fn dies_at_the_second_machine(far: Far, moved: &[&str]) {
    let scene = Scene::begin(SMALL).await;
    let (before, profile) = (scene.boots(), scene.profile());
    let step = match far {
        Far::Emptied => "/lab-worker-01/drain\"",
        Far::Rebooted => "/lab-worker-01/upgrade\"",
    };
    let mut recast = begins(&scene, UP, step).await;
    if far == Far::Rebooted {
        let boots_it = || scene.inside().get("lab-worker-01").is_some_and(|inside| inside.version == "1.13.9");
        scene.until("it boots the new release", boots_it).await;
    }
    recast.kill();
    recast.end();
    scene.settled(SMALL).await;
    let upgraded = scene.inside().into_iter().filter(|(_, inside)| inside.version == "1.13.9");
    assert_eq!(upgraded.map(|(name, _)| name).collect::<Vec<_>>(), moved, "{}", told(&scene.folder));

    let (_, story) = scene.done(BACK).await;
    let story = format!("{far:?}\n{}\n{story}", told(&scene.folder));
    // The node that was cordoned when the process died takes pods again, too.
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
    for (name, boot) in scene.boots() {
        assert_eq!(boot != before[&name], moved.contains(&name.as_str()), "{name}\n{story}");
    }
    assert_eq!(scene.profile(), profile, "{story}");
    assert_eq!(scene.run(&["resume"]).await.status.code(), Some(3), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_died_before_its_second_machine_went_down_is_taken_back() {
    dies_at_the_second_machine(Far::Emptied, &["lab-cp-01"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_that_died_while_its_second_machine_booted_is_taken_back() {
    dies_at_the_second_machine(Far::Rebooted, &["lab-cp-01", "lab-worker-01"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_person_cordoned_is_not_taken_back_before_they_let_it_go() {
    let scene = Scene::begin(SMALL).await;
    scene.done(UP).await;
    let cordon = |on: bool| {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: lab-worker-02}}, spec: {{unschedulable: {on}}}}}")
    };
    scene.apply(&[&cordon(true)]).await;
    let words = &["lab-worker-02 takes no new pods", "kubectl uncordon lab-worker-02"];
    scene.refused(BACK, words).await;
    scene.refused(&["rollback", "--nodes", "lab-worker-01"], words).await;
    scene.apply(&[&cordon(false)]).await;
    let (_, story) = scene.done(BACK).await;
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installer_of_before_that_is_gone_is_told_by_name_before_anything_is_drained() {
    let scenario =
        "faults: [{on: {factory: '* /v2/**/manifests/v1.12.4'}, nth: 1, times: 99, then: {status: 404, reason: gone}}]";
    let scene = Scene::played(PAIR, scenario).await;
    scene.done(UP).await;
    let words = [":v1.12.4 is not there any more", "lab-cp-01, lab-worker-01 ran Talos 1.12.4", "talosctl rollback"];
    let told = scene.refused(BACK, &words).await;
    scene.assert_open(&told).await;
}
