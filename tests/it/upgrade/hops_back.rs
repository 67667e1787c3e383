//! The way back from several hops, and from a run that moved Kubernetes too: hop by hop, as far as that one allows.

use mock_pve::world::machine::{Namespace, State};
use recast::journal::StateDir;

use super::back::dies;
use super::{LAB, Plug, Scene, Shape};
use crate::kill::told;

/// Two hops below 1.13.9, and three below 1.10.9: etcd is of one minor on all of either way.
const TWO: Shape = Shape { control: 1, workers: 1, talos: "1.11.6", ..LAB };
const THREE: Shape = Shape { control: 1, workers: 1, talos: "1.7.7", kubernetes: "1.30.14", ..LAB };

/// An image in a machine's own store.
const KEPT: &str = "registry.example.com/kept:1";

const BACK: &[&str] = &["rollback"];
const WORKER: &[&str] = &["rollback", "--nodes", "lab-worker-01"];

/// Talos alone, to there.
fn up(to: &str) -> Vec<&str> {
    vec!["upgrade", "--to", to, "--only", "os"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kubernetes_forbids_is_told_before_anything_moves_with_how_far_back_is_free() {
    let scene = Scene::begin(TWO).await;
    scene.done(&["upgrade", "--to", "1.13.9", "--kubernetes", "1.35.4"]).await;
    let words = [
        "lab-cp-01 ran Talos 1.11.6 before, which does not run Kubernetes 1.35.4",
        "nothing stands against it as far as Talos 1.12.11",
        "one hop at a time: `recast rollback --nodes lab-cp-01,lab-worker-01`",
        "`recast rebuild --to 1.11.6 --kubernetes 1.34.1 --restore ",
    ];
    let refused = scene.refused(BACK, &words).await;
    scene.assert_open(&refused).await;
    // That far it goes, by what was told.
    let (_, story) = scene.done(&["rollback", "--nodes", "lab-cp-01,lab-worker-01"]).await;
    scene.assert_runs("1.12.11", "1.35.4", &story).await;
    scene.refused(WORKER, &["which does not run Kubernetes 1.35.4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn not_one_hop_back_is_free_where_the_last_one_made_room_for_kubernetes() {
    let scene = Scene::begin(Shape { control: 1, workers: 1, kubernetes: "1.35.4", ..LAB }).await;
    let args = ["upgrade", "--to", "1.13.9", "--kubernetes", "1.36.3"];
    dies(&scene, Shape { control: 1, workers: 1, ..LAB }, &args, "kubernetes-1.36.3-images/").await;
    assert!(scene.inside().values().all(|inside| inside.version == "1.13.9"), "{}", told(&scene.folder));
    // It had not moved Kubernetes yet.
    let (_, story) = scene.done(BACK).await;
    scene.assert_runs("1.12.4", "1.35.4", &format!("{}\n{story}", told(&scene.folder))).await;

    scene.done(&args).await;
    let words = ["does not run Kubernetes 1.36.3", "`recast rebuild --to 1.12.4 --kubernetes 1.35.4 --restore "];
    let told = scene.refused(BACK, &words).await;
    assert!(!told.contains("stands against it as far as"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installer_of_any_hop_that_is_gone_is_told_before_the_first_machine_is_drained() {
    let scenario =
        "faults: [{on: {factory: '* /v2/**/manifests/v1.11.6'}, nth: 1, times: 99, then: {status: 404, reason: gone}}]";
    let scene = Scene::played(TWO, scenario).await;
    scene.done(&up("1.13.9")).await;
    let words = [":v1.11.6 is not there any more", "so they go back by that image alone"];
    let told = scene.refused(BACK, &words).await;
    assert!(!told.contains("talosctl rollback"), "their disks hold another one: {told}");
    scene.assert_open(&told).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_control_planes_go_back_two_hops_the_last_one_first() {
    let scene = Scene::begin(Shape { control: 3, ..TWO }).await;
    let profile = scene.profile();
    scene.done(&up("1.13.9")).await;
    let (code, document, shown) = scene.asked(&["rollback", "--dry-run"]).await;
    assert_eq!(code, 2, "{document:#}\n{shown}");
    let hops: Vec<String> = document["hops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| format!("{} -> {}", hop["from"].as_str().unwrap(), hop["to"].as_str().unwrap()))
        .collect();
    assert_eq!(hops, ["1.13.9 -> 1.12.11", "1.12.11 -> 1.11.6"], "{document:#}");
    let (document, story) = scene.done(BACK).await;
    scene.assert_runs("1.11.6", "1.34.1", &story).await;
    assert_eq!(scene.profile(), profile, "{story}");
    let phases = document["phases"].as_array().unwrap();
    let phases: Vec<&str> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    let expected = [
        "check",
        "backup",
        "pull-ahead",
        "controlplanes-back-from-1.13.9",
        "workers-back-from-1.13.9",
        "pull-back-from-1.12.11",
        "controlplanes-back-from-1.12.11",
        "workers-back-from-1.12.11",
        "verify",
        "finish",
    ];
    assert_eq!(phases, expected, "{story}");
    assert_eq!(scene.run(&["resume"]).await.status.code(), Some(3), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hops_are_taken_back_and_the_installer_of_1_7_wipes_nobody() {
    let scene = Scene::begin(THREE).await;
    let profile = scene.profile();
    // What lies on EPHEMERAL: etcd's data, and on every machine a store of images, with one that nobody pulls again.
    let cluster = scene.api().await.namespace_uid("kube-system").await.unwrap();
    for machine in scene.double.room().machines() {
        machine.import_image(Namespace::Cri, KEPT).unwrap();
    }
    scene.done(&up("1.10.9")).await;
    let (_, story) = scene.done(BACK).await;
    scene.assert_runs("1.7.7", "1.30.14", &story).await;
    assert_eq!(scene.profile(), profile, "{story}");
    assert!(cluster.is_some() && scene.api().await.namespace_uid("kube-system").await.unwrap() == cluster, "{story}");
    for machine in scene.double.room().machines() {
        let name = machine.see(State::hostname);
        assert!(machine.pulled(Namespace::Cri, KEPT).is_some(), "{name} was wiped\n{story}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubernetes_that_runs_on_the_older_talos_stays_and_the_profile_says_so() {
    let scene = Scene::begin(Shape { control: 1, workers: 1, ..LAB }).await;
    let (document, _) = scene.done(&["upgrade", "--to", "1.13.9", "--kubernetes", "1.35.4"]).await;
    assert_eq!(document["versions"]["after"]["kubernetes"], "1.35.4", "{document:#}");
    let (document, story) = scene.done(BACK).await;
    assert!(story.contains("Kubernetes stays at 1.35.4"), "{story}");
    assert!(story.contains("`recast rebuild --to 1.12.4 --kubernetes 1.34.1 --restore "), "{story}");
    assert_eq!(document["versions"]["after"]["kubernetes"], "1.35.4", "{document:#}");
    // The profile is looked at there, too.
    scene.assert_runs("1.12.4", "1.35.4", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_name_a_machine_goes_back_once_for_every_hop_and_never_forward() {
    let scene = Scene::begin(TWO).await;
    let (document, _) = scene.done(&up("1.13.9")).await;
    let upgraded = scene.inside();
    for expected in ["1.12.11", "1.11.6"] {
        let (_, story) = scene.done(WORKER).await;
        let after = scene.inside();
        assert_eq!(after["lab-worker-01"].version, expected, "{story}");
        assert_eq!(after["lab-cp-01"], upgraded["lab-cp-01"], "{story}");
    }
    scene.refused(WORKER, &["its other slot holds Talos 1.12.11"]).await;
    // The whole run, from where each machine stands: the worker is there already.
    let worker = scene.boots()["lab-worker-01"].clone();
    let (_, story) = scene.done(&["rollback", document["run"].as_str().unwrap()]).await;
    scene.assert_runs("1.11.6", "1.34.1", &story).await;
    assert_eq!(scene.boots()["lab-worker-01"], worker, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_runs_brought_goes_back_one_by_one_by_the_newer_services_too() {
    let scene = Scene::begin(Shape { talos: "1.13.5", ..TWO }).await;
    for to in ["1.13.8", "1.13.9"] {
        scene.done(&up(to)).await;
    }
    // The first by what lies on the disk, the second by the installer.
    for expected in ["1.13.8", "1.13.5"] {
        let (_, story) = scene.done(WORKER).await;
        assert_eq!(scene.inside()["lab-worker-01"].version, expected, "{story}");
    }
    scene.refused(WORKER, &["no run of recast knows a release that lab-worker-01 ran before Talos 1.13.5"]).await;
    // It is where neither run left it.
    let newest = scene.refused(&["rollback", "--nodes", "lab-worker-01,lab-cp-01"], &["lab-worker-01"]).await;
    assert!(!newest.contains("lab-cp-01 ran before"), "{newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_wrote_and_never_booted_is_not_booted_later_either() {
    let shape = Shape { control: 1, workers: 1, talos: "1.13.5", ..LAB };
    let scene = Scene::begin(shape).await;
    let before = scene.boots();
    dies(&scene, shape, &up("1.13.9"), "controlplanes-1.13.9/lab-cp-01/drain").await;
    let (_, story) = scene.done(BACK).await;
    let story = format!("{}\n{story}", told(&scene.folder));
    scene.assert_runs("1.13.5", "1.34.1", &story).await;
    assert_eq!(scene.boots(), before, "{story}");
    scene.plug(1200, Plug::Out).await;
    scene.plug(1200, Plug::In).await;
    scene.settled(shape).await;
    assert_eq!(scene.inside()["lab-cp-01"].version, "1.13.5", "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_died_in_its_second_hop_is_taken_back_from_where_each_machine_stands() {
    let scene = Scene::begin(TWO).await;
    let profile = scene.profile();
    dies(&scene, TWO, &up("1.13.9"), "workers-1.13.9/lab-worker-01/drain").await;
    let versions: Vec<String> = scene.inside().into_values().map(|inside| inside.version).collect();
    assert_eq!(versions, ["1.13.9", "1.12.11"], "{}", told(&scene.folder));
    let (_, story) = scene.done(BACK).await;
    let story = format!("{}\n{story}", told(&scene.folder));
    scene.assert_runs("1.11.6", "1.34.1", &story).await;
    assert_eq!(scene.profile(), profile, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_way_back_that_died_is_gone_on_with_and_neither_taken_back_nor_the_run_behind_it() {
    let scene = Scene::begin(TWO).await;
    dies(&scene, TWO, &up("1.13.9"), "workers-1.13.9/lab-worker-01/drain").await;
    let runs = || StateDir::new(&scene.folder.state(), "lab").list().unwrap();
    let upgrade = runs()[0].id().to_string();
    dies(&scene, TWO, BACK, "controlplanes-back-from-1.12.11/lab-cp-01/drain").await;
    let back = runs()[0].id().to_string();
    assert_ne!(upgrade, back, "{}", told(&scene.folder));
    let goes_on = format!("`recast resume {back}` goes on with it");
    scene.refused(BACK, &[&format!("run {back} is itself a way back, and is not done"), &goes_on]).await;
    let words = [&format!("run {back} came after run {upgrade}, takes machines back, and is not done"), &goes_on];
    scene.refused(&["resume", &upgrade], &words.map(String::as_str)).await;
    let (_, story) = scene.done(&["resume"]).await;
    scene.assert_runs("1.11.6", "1.34.1", &format!("{}\n{story}", told(&scene.folder))).await;
}
