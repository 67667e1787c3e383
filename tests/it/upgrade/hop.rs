//! One hop of Talos over a whole cluster.

use std::fs;

use super::{LAB, SCHEMATIC, Scene};

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
