//! The way back from an upgrade: of a run, or of machines by name, with the same gates as the way there.

use std::fs;

use super::{LAB, Scene, Shape};
use crate::kill::{Recast, told};

const SMALL: Shape = Shape { control: 1, workers: 2, ..LAB };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrades_run_is_taken_back_machine_by_machine() {
    let shape = Shape { workers: 1, ..LAB };
    let scene = Scene::begin(shape).await;
    let profile = fs::read_to_string(scene.folder.profile()).unwrap();
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let upgraded = scene.boots();
    let run = document["run"].as_str().unwrap().to_owned();

    let shown = scene.run(&["rollback", &run, "--dry-run"]).await;
    assert_eq!(shown.status.code(), Some(2), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(String::from_utf8_lossy(&shown.stdout).contains("lab-cp-03"));
    let (code, _, unasked) = scene.asked(&["rollback", &run]).await;
    assert_eq!(code, 4, "{unasked}");
    assert_eq!(scene.boots(), upgraded);

    // Without a name the newest run is meant.
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!((code, &document["verb"]), (0, &"rollback".into()), "{document:#}\n{story}");
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
    assert!(scene.boots().iter().all(|(name, boot)| upgraded[name] != *boot));
    assert_eq!(fs::read_to_string(scene.folder.profile()).unwrap(), profile);

    // What was taken back is not gone on with, and taking it back twice is nothing.
    assert_eq!(scene.run(&["resume"]).await.status.code(), Some(3));
    let again = scene.run(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_by_name_go_back_and_the_others_stay() {
    let scene = Scene::begin(Shape { talos: "1.13.5", ..SMALL }).await;
    let none = scene.run(&["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]).await;
    let told = String::from_utf8_lossy(&none.stderr).into_owned();
    assert_eq!(none.status.code(), Some(4), "{told}");
    assert!(told.contains("it has no other release to go back to"), "{told}");
    scene.until("it is up", || scene.is_up(Shape { workers: 2, control: 1, ..LAB })).await;
    let nodes = scene.api().await.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| !node.unschedulable), "{nodes:?}");

    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let before = scene.inside();
    let (code, document, story) =
        scene.asked(&["rollback", "--nodes", "stranger,lab-worker-01", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    assert!(document["problems"].to_string().contains("stranger is no machine of the profile"), "{document:#}");
    assert_eq!(scene.inside(), before);
    let (code, document, story) = scene.asked(&["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let after = scene.inside();
    assert_eq!(after["lab-worker-01"].version, "1.13.5", "{story}");
    for name in ["lab-cp-01", "lab-worker-02"] {
        assert_eq!(after[name], before[name], "{story}");
    }
    scene.assert_quorum(&story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_does_not_go_back_below_its_etcd() {
    let shape = Shape { control: 1, workers: 1, talos: "1.10.9", kubernetes: "1.33.6", ..LAB };
    let scene = Scene::begin(shape).await;
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.11.6", "--only", "os", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let before = scene.inside();
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    let told = document["problems"].to_string();
    assert!(told.contains("can't read the data of etcd 3.6") && told.contains("--restore FILE"), "{document:#}");
    assert_eq!(scene.inside(), before);
    let (code, document, story) = scene.asked(&["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    assert_eq!(scene.inside()["lab-worker-01"].version, "1.10.9");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_control_planes_are_refused_and_one_is_warned_about() {
    let scene = Scene::begin(Shape { control: 2, workers: 0, ..LAB }).await;
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    let told = document["problems"].to_string();
    assert!(told.contains("etcd has two members") && told.contains("add a third control plane"), "{document:#}");
    scene.assert_quorum(&story);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_kept_nothing_goes_back_by_the_installer_of_before() {
    for (from, to) in [("1.12.4", "1.12.11"), ("1.13.5", "1.13.9")] {
        let shape = Shape { control: 1, workers: 1, talos: from, ..LAB };
        let scenario = "faults: [{on: {talos: Rollback}, then: {status: 2, reason: 'cannot rollback to \"A\", label does \
                        not exist'}}]";
        let scene = Scene::played(shape, scenario).await;
        let (code, document, story) = scene.asked(&["upgrade", "--to", to, "--confirm", "lab"]).await;
        assert_eq!(code, 0, "{document:#}\n{story}");
        let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
        assert_eq!(code, 0, "{document:#}\n{story}");
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
    let mut recast = Recast::start(scene.folder.recast(scene.double.site(), args), &scene.folder);
    let comes = move || {
        let mut lines = std::iter::from_fn(|| recast.wait_for(0));
        let reached = lines.any(|line| line.contains("\"event\":\"step-started\"") && line.contains(step));
        (recast, reached)
    };
    let (recast, reached) = tokio::task::spawn_blocking(comes).await.unwrap();
    assert!(reached, "{step}: {}", told(&scene.folder));
    recast
}

/// An upgrade dies at its second machine, and is taken back: those that moved go back, and nobody else goes down.
async fn dies_at_the_second_machine(far: Far, moved: &[&str]) {
    let scene = Scene::begin(SMALL).await;
    let (before, profile) = (scene.boots(), fs::read_to_string(scene.folder.profile()).unwrap());
    let args = ["upgrade", "--to", "1.13.9", "--max-parallel", "1", "--confirm", "lab"];
    let step = match far {
        Far::Emptied => "/lab-worker-01/drain\"",
        Far::Rebooted => "/lab-worker-01/upgrade\"",
    };
    let mut recast = begins(&scene, &args, step).await;
    if far == Far::Rebooted {
        let boots_it = || scene.inside().get("lab-worker-01").is_some_and(|inside| inside.version == "1.13.9");
        scene.until("it boots the new release", boots_it).await;
    }
    recast.kill();
    recast.end();
    scene.until("all machines are up", || scene.is_up(SMALL)).await;
    let upgraded = scene.inside().into_iter().filter(|(_, inside)| inside.version == "1.13.9");
    assert_eq!(upgraded.map(|(name, _)| name).collect::<Vec<_>>(), moved, "{}", told(&scene.folder));

    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    let story = format!("{far:?}\n{}\n{story}", told(&scene.folder));
    assert_eq!(code, 0, "{document:#}\n{story}");
    // The node that was cordoned when the process died takes pods again, too.
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
    for (name, boot) in scene.boots() {
        assert_eq!(boot != before[&name], moved.contains(&name.as_str()), "{name}\n{story}");
    }
    assert_eq!(fs::read_to_string(scene.folder.profile()).unwrap(), profile, "{story}");
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
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let upgraded = scene.inside();
    let cordon = |on: bool| {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: lab-worker-02}}, spec: {{unschedulable: {on}}}}}")
    };
    scene.apply(&[&cordon(true)]).await;
    for asked in [&["rollback", "--confirm", "lab"][..], &["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]]
    {
        let (code, document, story) = scene.asked(asked).await;
        assert_eq!(code, 4, "{document:#}\n{story}");
        let told = document["problems"].to_string();
        for words in ["lab-worker-02 takes no new pods", "kubectl uncordon lab-worker-02"] {
            assert!(told.contains(words), "{words}\n{document:#}");
        }
        assert_eq!(scene.inside(), upgraded, "{story}");
    }
    scene.apply(&[&cordon(false)]).await;
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installer_of_before_that_is_gone_is_told_by_name_before_anything_is_drained() {
    let scenario =
        "faults: [{on: {factory: '* /v2/**/manifests/v1.12.4'}, nth: 1, times: 99, then: {status: 404, reason: gone}}]";
    let scene = Scene::played(Shape { control: 1, workers: 1, ..LAB }, scenario).await;
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let upgraded = scene.inside();
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    let told = document["problems"].to_string();
    for words in [":v1.12.4 is not there any more", "lab-cp-01, lab-worker-01 ran Talos 1.12.4", "talosctl rollback"] {
        assert!(told.contains(words), "{words}\n{document:#}");
    }
    assert_eq!(scene.inside(), upgraded, "{story}");
    let nodes = scene.api().await.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| !node.unschedulable), "{nodes:?}\n{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_of_several_hops_is_refused_with_the_commands_that_go_back_one_by_one() {
    let scene = Scene::begin(Shape { control: 1, workers: 1, talos: "1.11.6", ..LAB }).await;
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.13.9", "--only", "os", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let upgraded = scene.inside();
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    let told = document["problems"].to_string();
    for words in [
        "a machine keeps only the last one before: lab-cp-01 (2), lab-worker-01 (2)",
        "`recast rollback --nodes lab-cp-01`, then `recast rollback --nodes lab-worker-01`",
        "`recast rebuild --to 1.11.6`",
    ] {
        assert!(told.contains(words), "{words}\n{document:#}");
    }
    assert_eq!(scene.inside(), upgraded, "{story}");
    // What is named is what goes back.
    let (code, document, story) = scene.asked(&["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let after = scene.inside();
    assert_eq!(after["lab-cp-01"], upgraded["lab-cp-01"], "{story}");
    assert!(after["lab-worker-01"].version.starts_with("1.12."), "{after:?}\n{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_moved_kubernetes_is_refused_and_one_that_had_not_yet_is_taken_back() {
    let shape = Shape { control: 1, workers: 1, kubernetes: "1.35.4", ..LAB };
    let scene = Scene::begin(shape).await;
    let args = ["upgrade", "--to", "1.13.9", "--kubernetes", "1.36.3", "--confirm", "lab"];
    let mut recast = begins(&scene, &args, "kubernetes-1.36.3-images/").await;
    recast.kill();
    recast.end();
    scene.until("all machines are up", || scene.is_up(shape)).await;
    assert!(scene.inside().values().all(|inside| inside.version == "1.13.9"), "{}", told(&scene.folder));
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    let story = format!("{}\n{story}", told(&scene.folder));
    assert_eq!(code, 0, "{document:#}\n{story}");
    scene.assert_runs("1.12.4", "1.35.4", &story).await;

    let (code, document, story) = scene.asked(&args).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let upgraded = scene.inside();
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    let told = document["problems"].to_string();
    for words in [
        "moved Kubernetes (kubernetes-1.36.3/",
        "`recast rebuild --to 1.12.4 --kubernetes 1.35.4 --restore ",
        "`recast rollback --nodes lab-cp-01`, then `recast rollback --nodes lab-worker-01`",
    ] {
        assert!(told.contains(words), "{words}\n{document:#}");
    }
    assert_eq!(scene.inside(), upgraded, "{story}");
}
