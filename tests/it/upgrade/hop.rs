//! One hop of Talos over a whole cluster.

use std::fs;
use std::time::Duration;

use mock_pve::world::machine::{Machine, Room, Stage};

use super::{LAB, SCHEMATIC, Scene, Shape};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_up_machine_by_machine_and_files_say_so() {
    let scene = Scene::begin(LAB).await;
    let (before, profile) = (scene.boots(), fs::read_to_string(scene.folder.profile()).unwrap());
    let asked = ["upgrade", "--to", "1.13.9"];

    // First only what would be done: the hops, each with its reason.
    let shown = scene.run(&[&asked[..], &["--dry-run"]].concat()).await;
    let plan = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert_eq!(shown.status.code(), Some(2), "{plan}{}", String::from_utf8_lossy(&shown.stderr));
    for words in ["Hop 1: Talos 1.12.4 -> 1.13.9 (as asked for)", "lab-worker-02"] {
        assert!(plan.contains(words), "{words}:\n{plan}");
    }
    assert_eq!((scene.boots(), scene.folder.state().join("lab").exists()), (before.clone(), false));
    assert_eq!(fs::read_to_string(scene.folder.profile()).unwrap(), profile);

    // Nobody is taken down unasked.
    let unasked = scene.run(&asked).await;
    assert_eq!(unasked.status.code(), Some(4), "{}", String::from_utf8_lossy(&unasked.stderr));
    assert_eq!(scene.boots(), before);

    let (code, document, story) = scene.asked(&[&asked[..], &["--confirm", "lab"]].concat()).await;
    assert_eq!((code, &document["outcome"]), (0, &"done".into()), "{story}\n{document:#}");
    scene.assert_runs("1.13.9", "1.34.1", &story).await;
    assert!(scene.boots().iter().all(|(name, boot)| before[name] != *boot), "{story}");
    assert_eq!(document["versions"]["after"]["talos"], "1.13.9");
    let lock = fs::read_to_string(scene.folder.profile().with_extension("lock")).unwrap();
    assert!(lock.contains(SCHEMATIC) && lock.contains("siderolabs/qemu-guest-agent"), "{lock}");
    let talosconfig = fs::read_to_string(scene.folder.path("talosconfig")).unwrap();
    assert!(talosconfig.contains("10.20.0.13") && talosconfig.contains("10.20.0.22"));

    // There is nothing left to do.
    let (code, document, story) = scene.asked(&asked).await;
    assert_eq!((code, &document["outcome"]), (0, &"done".into()), "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_of_the_command_line_stand_in_the_profile_afterwards_and_go_back_with_the_run() {
    let scene = Scene::begin(Shape { control: 1, workers: 1, ..LAB }).await;
    let profile = || fs::read_to_string(scene.folder.profile()).unwrap();
    let before = profile();
    let names = "siderolabs/qemu-guest-agent,siderolabs/iscsi-tools";
    // Of a part of the machines the profile can't speak.
    let part = ["upgrade", "--extensions", names, "--nodes", "lab-worker-01", "--dry-run"];
    let (code, document, story) = scene.asked(&part).await;
    assert_eq!(code, 2, "{document:#}\n{story}");
    assert!(story.contains("goes on to name another schematic"), "{story}");

    let (code, document, story) = scene.asked(&["upgrade", "--extensions", names, "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    assert!(!story.contains("goes on to name another schematic"), "{story}");
    let schematic = scene.inside()["lab-worker-01"].schematic.clone();
    assert_ne!(schematic, SCHEMATIC, "{story}");
    let list = "[siderolabs/qemu-guest-agent]";
    let both = "[siderolabs/qemu-guest-agent, siderolabs/iscsi-tools]";
    assert_eq!(profile(), before.replace(SCHEMATIC, &schematic).replace(list, both), "{story}");
    let lock = || fs::read_to_string(scene.folder.profile().with_extension("lock")).unwrap();
    assert!(lock().contains(&schematic), "{story}");

    // The next run takes nothing back.
    let (code, document, story) = scene.asked(&["upgrade", "--dry-run"]).await;
    assert_eq!((code, &document["outcome"]), (0, &"done".into()), "{document:#}\n{story}");
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
    assert_eq!(profile(), before.replace(list, both), "{story}");
    assert!(!lock().contains(&schematic), "{story}");
    assert!(story.contains("talos.factory.extensions in the profile may not list"), "{story}");
}

/// The most machines of these that were seen down at once, until told to stop looking.
async fn most_down(room: Room, prefix: &'static str, mut over: tokio::sync::oneshot::Receiver<()>) -> usize {
    let mut most = 0;
    while over.try_recv().is_err() {
        let down = |machine: &Machine| {
            machine.see(|state| state.hostname().starts_with(prefix) && state.stage != Stage::Running)
        };
        let all = room.machines();
        // One that boots has no name yet.
        let nameless = all.iter().filter(|machine| machine.see(|state| state.stage == Stage::Booting)).count();
        most = most.max(all.iter().filter(|machine| down(machine)).count().max(nameless));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_workers_go_down_at_once_as_are_allowed_and_kernels_are_heard() {
    let scene = Scene::begin(Shape { control: 1, workers: 4, talos: "1.13.5", ..LAB }).await;
    for (part, at_once) in [("1", 1), ("50%", 2)] {
        let to = if part == "1" { "1.13.8" } else { "1.13.9" };
        let (stop, over) = tokio::sync::oneshot::channel();
        let watch = tokio::spawn(most_down(scene.double.room().clone(), "lab-worker-", over));
        let asked = ["upgrade", "--to", to, "--max-parallel", part, "--debug", "--reboot-mode", "powercycle"];
        let (code, document, story) = scene.asked(&[&asked[..], &["--confirm", "lab"]].concat()).await;
        stop.send(()).unwrap();
        assert_eq!(code, 0, "{document:#}\n{story}");
        let most = watch.await.unwrap();
        assert!((1..=at_once).contains(&most), "{part}: {most}\n{story}");
        scene.assert_runs(to, "1.34.1", &story).await;
        let run = scene.folder.runs().join(document["run"].as_str().unwrap());
        let kernel = fs::read_to_string(run.join("kernel/lab-worker-03.log")).unwrap();
        assert!(kernel.contains("[talos] task stopAllPods"), "{kernel}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_release_reads_otherwise_in_the_users_patches_is_told_with_the_plan() {
    let scene = Scene::begin(Shape { control: 1, workers: 0, talos: "1.11.6", ..LAB }).await;
    let text = fs::read_to_string(scene.folder.profile()).unwrap();
    let patch = "talos:\n  config_patches: [{inline: \"machine: {features: {rbac: false}}\"}]\n";
    fs::write(scene.folder.profile(), text.replacen("talos:\n", patch, 1)).unwrap();
    let (code, document, story) = scene.asked(&["upgrade", "--to", "1.12.4", "--dry-run"]).await;
    let told = format!("{document:#}\n{story}");
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("RBAC can't be turned off") && told.contains("the only control plane"), "{told}");
}
