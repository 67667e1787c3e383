//! Ways that can not be gone, told before anything is changed.

use std::time::{Duration, Instant};

use super::{Lab, changing, heard, talos, with_argument};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_can_not_be_is_refused_before_anything_is_changed() {
    let lab = Lab::new("1.12.4", "1.34.1", "").await;
    let mut answers = lab.double.world().subscribe_answers();
    let refused = async |args: &[&str], code: i32, words: &[&str]| {
        lab.run(&[&["upgrade", "--confirm", "lab"], args].concat()).await.must(code, words);
    };
    refused(
        &["--kubernetes", "1.33.4"],
        4,
        &["Kubernetes 1.34.1 runs, and 1.33.4 is older: its data never go back", "name Kubernetes 1.34.1 or later"],
    )
    .await;
    refused(&["--kubernetes", "1.34.0"], 4, &["Kubernetes 1.34.1 runs, and 1.34.0 is older"]).await;
    refused(
        &["--kubernetes", "1.36.0"],
        4,
        &[
            "Talos 1.12.4 runs Kubernetes 1.30 to 1.35, and 1.36.0 would run on it",
            "ask for a newer Talos as well with --to",
        ],
    )
    .await;
    refused(&["--kubernetes", "1.36.0", "--to", "1.13.9", "--no-hops"], 4, &["Kubernetes would skip a minor"]).await;
    refused(&["--kubernetes", "1.99.0"], 4, &["would run on it"]).await;
    refused(&["--kubernetes", "1.35.0", "--only", "kubernetes", "--nodes", "lab-cp-01"], 4, &["leave --nodes out"])
        .await;
    refused(&["--kubernetes", "one"], 3, &["'one' is not a version"]).await;
    assert_eq!(changing(&heard(&mut answers)), Vec::<String>::new());

    // A version that nobody published: no machine finds its images, and nothing has changed by then.
    let before = lab.runs();
    lab.upgrade("1.35.99", &[])
        .await
        .must(4, &["kube-apiserver:v1.35.99", "look whether the registry has this image", "nothing changed"]);
    assert_eq!(talos(&heard(&mut answers), "ApplyConfiguration").count(), 0);
    assert_eq!(lab.runs(), before);
    // Nor when a hop of Talos would come first: no machine goes down for an upgrade that can't be ended.
    lab.run(&["upgrade", "--to", "1.13.9", "--kubernetes", "1.36.99", "--confirm", "lab"])
        .await
        .must(4, &["v1.36.99", "look whether the registry has this image"]);
    let after = heard(&mut answers);
    let down = ["Upgrade", "Reboot", "ApplyConfiguration"];
    assert!(!after.iter().any(|answer| down.contains(&answer.path.as_str())), "{after:#?}");
    assert_eq!(lab.runs(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_next_version_no_longer_knows_is_told_for_all_machines_at_once() {
    let lab = Lab::new("1.12.4", "1.34.1", "").await;
    lab.reconfigure(22, |text| with_argument(&text, "kubelet", "pod-infra-container-image", "pause")).await;
    lab.reconfigure(12, |text| {
        with_argument(&text, "apiServer", "feature-gates", "SizeMemoryBackedVolumes=false,Other=true")
    })
    .await;
    lab.api().await;
    let mut answers = lab.double.world().subscribe_answers();
    let since = Instant::now();
    // The flags count once the pod with them runs.
    let ran = loop {
        let ran = lab.upgrade("1.35.0", &["--dry-run"]).await;
        if ran.err.contains("SizeMemoryBackedVolumes") && !ran.err.contains("not healthy") {
            break ran;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{}", ran.err);
    };
    ran.must(
        4,
        &[
            "Kubernetes 1.35.0 no longer knows what is in use",
            "lab-worker-02",
            "pod-infra-container-image",
            "lab-cp-02",
            "SizeMemoryBackedVolumes",
            "take these out of the machines' configurations",
        ],
    );
    assert!(!ran.err.contains("Other"), "{}", ran.err);
    assert_eq!(changing(&heard(&mut answers)), Vec::<String>::new());
}
