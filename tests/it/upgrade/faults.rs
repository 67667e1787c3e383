//! What goes wrong on a machine in the middle of an upgrade: told by its name with the next command, nothing else goes
//! down meanwhile, and `resume` gets to the end once it is mended.

use mock_pve::world::machine::Fault;
use serde_json::Value;

use super::{LAB, Plug, Scene, Shape};

/// A small cluster whose time limits are short.
const SMALL: Shape = Shape { control: 1, workers: 1, more: "timeouts: {boot: 6s, drain: 4s}\n", ..LAB };

/// The same with a machine that has the services of 1.13.
const NEWER: Shape = Shape { talos: "1.13.5", ..SMALL };

const WORKER: u32 = 1210;

const ASK: [&str; 5] = ["upgrade", "--to", "1.13.9", "--confirm", "lab"];

fn problems(document: &Value) -> String {
    document["problems"].to_string()
}

/// The upgrade fails on the worker with these words and this code, which runs on as it was; resumed, it gets there.
async fn fails_and_goes_on(shape: Shape, fault: Fault, code: i32, words: &[&str]) {
    let scene = Scene::begin(shape).await;
    let before = scene.inside();
    scene.double.world().machine_fault(WORKER, fault);
    let (ended, document, story) = scene.asked(&ASK).await;
    let told = problems(&document);
    assert_eq!(ended, code, "{document:#}\n{story}");
    for word in words {
        assert!(told.contains(word), "{fault:?}: {word}\n{document:#}\n{story}");
    }
    assert_eq!(scene.inside()["lab-worker-01"].version, before["lab-worker-01"].version, "{story}");
    scene.settled(shape).await;
    let nodes = scene.api().await.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| !node.unschedulable), "{nodes:?}\n{story}");

    let (ended, document, more) = scene.asked(&["resume"]).await;
    assert_eq!(ended, 0, "{document:#}\n{story}\n{more}");
    scene.assert_runs("1.13.9", "1.34.1", &format!("{story}\n{more}")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_does_not_boot_is_told_as_a_fallback() {
    let words = ["it fell back", "runs Talos 1.12.4 again", "resume"];
    fails_and_goes_on(SMALL, Fault::BootFails, 5, &words).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_was_written_first_and_does_not_boot_is_written_again() {
    fails_and_goes_on(NEWER, Fault::BootFails, 5, &["it fell back", "runs Talos 1.13.5 again", "resume"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_that_is_not_there_takes_nobody_down_and_a_registry_that_stumbles_is_asked_again() {
    let scenario =
        "faults: [{on: {talos: ImagePull}, times: 1, then: {status: 5, reason: 'failed to pull: not found'}}]";
    let scene = Scene::played(SMALL, scenario).await;
    let before = scene.boots();
    let (code, document, story) = scene.asked(&ASK).await;
    assert_eq!(code, 4, "{document:#}\n{story}");
    assert!(problems(&document).contains("nothing went down"), "{document:#}");
    assert_eq!(scene.boots(), before, "{story}");
    scene.double.world().machine_fault(WORKER, Fault::RegistryDown);
    let (code, document, story) = scene.asked(&["resume"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    scene.assert_runs("1.13.9", "1.34.1", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_installer_that_fails_leaves_the_machine_as_it_was() {
    fails_and_goes_on(NEWER, Fault::InstallerFails, 5, &["the installer ended with 1", "input/output error"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_disk_leads_to_a_staged_upgrade() {
    for shape in [SMALL, NEWER] {
        let scene = Scene::begin(shape).await;
        scene.double.world().machine_fault(WORKER, Fault::DiskBusy);
        let (code, document, story) = scene.asked(&ASK).await;
        // A step that failed and can be resumed, by either call.
        assert_eq!((code, &document["resumable"]), (5, &true.into()), "{document:#}\n{story}");
        let told = problems(&document);
        assert!(told.contains("device or resource busy") && told.contains("recast upgrade --stage"), "{document:#}");
        scene.settled(shape).await;
        // It would be busy again.
        scene.double.world().machine_fault(WORKER, Fault::DiskBusy);
        let (code, document, story) = scene.asked(&[&ASK[..], &["--stage"]].concat()).await;
        assert_eq!(code, 0, "{document:#}\n{story}");
        scene.assert_runs("1.13.9", "1.34.1", &story).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_never_comes_back_stops_the_roll() {
    let shape = Shape { workers: 0, more: SMALL.more, ..LAB };
    let scene = Scene::begin(shape).await;
    let before = scene.boots();
    scene.double.world().machine_fault(1201, Fault::NeverComesBack);
    let (code, document, story) = scene.asked(&ASK).await;
    assert_eq!((code, &document["resumable"]), (5, &true.into()), "{document:#}\n{story}");
    let told = problems(&document);
    assert!(told.contains("does not answer since it went down") && told.contains("resume"), "{document:#}");
    assert_eq!(scene.boots()["lab-cp-03"], before["lab-cp-03"], "{story}");

    // Nobody else is taken down now, whoever asks.
    let args = ["upgrade", "--to", "1.13.9", "--nodes", "lab-cp-03", "--confirm", "lab"];
    let (code, document, more) = scene.asked(&args).await;
    assert_eq!(code, 4, "{document:#}\n{more}");
    assert_eq!(scene.boots()["lab-cp-03"], before["lab-cp-03"], "{more}");

    scene.plug(1201, Plug::Out).await;
    scene.plug(1201, Plug::In).await;
    let (code, document, more) = scene.asked(&["resume"]).await;
    assert_eq!(code, 0, "{document:#}\n{more}");
    scene.assert_runs("1.13.9", "1.34.1", &more).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_hangs_on_its_way_down_is_told_as_not_rebooted() {
    let scene = Scene::begin(NEWER).await;
    let before = scene.boots();
    scene.double.world().machine_fault(WORKER, Fault::Hangs);
    let (code, document, story) = scene.asked(&ASK).await;
    assert_eq!(code, 5, "{document:#}\n{story}");
    assert!(problems(&document).contains("it did not reboot within"), "{document:#}");
    assert_eq!(scene.boots()["lab-worker-01"], before["lab-worker-01"], "{story}");
    scene.plug(WORKER, Plug::Out).await;
    scene.plug(WORKER, Plug::In).await;
    let (code, document, story) = scene.asked(&["resume"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    scene.assert_runs("1.13.9", "1.34.1", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_is_up_and_never_ready_is_told_with_what_is_missing() {
    let scene = Scene::begin(SMALL).await;
    scene.double.world().machine_fault(WORKER, Fault::NeverReady);
    let (code, document, story) = scene.asked(&ASK).await;
    assert_eq!(code, 5, "{document:#}\n{story}");
    let told = problems(&document);
    assert!(told.contains("it runs Talos 1.13.9, and is not ready within") && told.contains("kubelet"), "{document:#}");
    // It goes back, though it is not well and takes no pods: that is what the way back is for.
    let (code, document, story) = scene.asked(&["rollback", "--nodes", "lab-worker-01", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let inside = scene.inside();
    let back: Vec<&str> =
        inside.iter().filter(|(_, one)| one.version == "1.12.4").map(|(name, _)| name.as_str()).collect();
    assert!(back.contains(&"lab-worker-01"), "{inside:?}\n{story}");
    let nodes = scene.api().await.nodes().await.unwrap();
    assert!(nodes.iter().all(|node| node.ready.is_ok() && !node.unschedulable), "{nodes:?}\n{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_taken_back_with_the_machine_that_is_not_well_first() {
    let scene = Scene::begin(SMALL).await;
    scene.double.world().machine_fault(WORKER, Fault::NeverReady);
    let (code, document, story) = scene.asked(&ASK).await;
    assert_eq!(code, 5, "{document:#}\n{story}");
    let (code, document, story) = scene.asked(&["rollback", "--confirm", "lab"]).await;
    assert_eq!(code, 0, "{document:#}\n{story}");
    let phases: Vec<&str> =
        document["phases"].as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    let expected = ["check", "backup", "unwell-workers-back", "controlplanes-back", "verify", "finish"];
    assert_eq!(phases, expected, "{story}");
    scene.assert_runs("1.12.4", "1.34.1", &story).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machines_own_no_is_told_with_its_words() {
    let cases = [
        (
            4,
            "error validating etcd for upgrade: etcd member count(2) is insufficient to maintain quorum if upgrade commences",
            ["error validating etcd for upgrade", "was not changed: settle what it says, then resume"],
        ),
        (
            5,
            "error validating installer image \\\"x\\\": installer help returned non-zero exit. assuming invalid installer",
            ["assuming invalid installer", "was not changed: look whether it reaches the registry"],
        ),
    ];
    // By the call of releases before 1.13, and by the service since.
    for (shape, (expected, reason, words)) in
        [SMALL, NEWER].into_iter().flat_map(|shape| cases.map(|case| (shape, case)))
    {
        let scenario =
            format!("faults: [{{on: {{talos: Upgrade}}, times: 1, then: {{status: 2, reason: \"{reason}\"}}}}]");
        let scene = Scene::played(shape, &scenario).await;
        let before = scene.boots();
        let (code, document, story) = scene.asked(&ASK).await;
        assert_eq!(code, expected, "{document:#}\n{story}");
        for word in words {
            assert!(problems(&document).contains(word), "{word}\n{document:#}");
        }
        assert_eq!(scene.boots(), before, "{story}");
        let nodes = scene.api().await.nodes().await.unwrap();
        assert!(nodes.iter().all(|node| !node.unschedulable), "{nodes:?}\n{story}");
        let (code, document, story) = scene.asked(&["resume"]).await;
        assert_eq!(code, 0, "{document:#}\n{story}");
        scene.assert_runs("1.13.9", "1.34.1", &story).await;
    }
}
