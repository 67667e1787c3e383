//! What an upgrade is refused for: with the reason and the way round, and before anything is touched.

use super::{LAB, Plug, Scene, Shape};

/// Refused by a gate, or as wrong usage, with these words, and nothing was touched.
async fn assert_refused(scene: &Scene, args: &[&str], words: &[&str]) {
    let before = scene.inside();
    let asked = [&["upgrade"][..], args, &["--confirm", "lab"]].concat();
    let (code, document, story) = scene.asked(&asked).await;
    let told = document["problems"].to_string();
    assert_eq!((code, &document["outcome"]), (4, &"refused".into()), "{args:?}\n{document:#}\n{story}");
    for word in words {
        assert!(told.contains(word), "{args:?}: {word}\n{document:#}");
    }
    let every = document["problems"].as_array().unwrap().iter().filter(|problem| problem["kind"] != "warning");
    for problem in every {
        assert!(!problem["hints"].as_array().unwrap().is_empty(), "no way round: {problem:#}");
    }
    assert_eq!(scene.inside(), before, "{args:?}");
    assert!(!scene.folder.runs().exists() || std::fs::read_dir(scene.folder.runs()).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_input_is_refused_with_the_reason_and_the_way_round() {
    let scene = Scene::begin(Shape { control: 1, workers: 1, ..LAB }).await;
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--kubernetes", "1.33.4"],
            &["Kubernetes 1.34.1 runs, and 1.33.4 is older", "name Kubernetes 1.34.1 or later"],
        ),
        (&["--to", "1.11.6"], &["Talos 1.12.4 runs, and 1.11.6 is older", "recast rollback --nodes"]),
        (&["--to", "1.14.0", "--no-hops"], &["would skip a minor", "leave --no-hops out"]),
        (&["--to", "1.13.77"], &["1.13.77", "the Image Factory has no"]),
        (&["--to", "1.44"], &["the Image Factory has no Talos 1.44", "its newest release is"]),
        (&["--kubernetes", "1.44"], &["no release of Kubernetes 1.44 is known"]),
        (&["--kubernetes", "1.36.3"], &["Talos 1.12.4 runs Kubernetes 1.30 to 1.35", "--to"]),
        (
            &["--to", "1.13.9", "--nodes", "lab-cp-01,stranger"],
            &["stranger is no machine of the profile", "lab-worker-01"],
        ),
        (&["--only", "kubernetes", "--nodes", "lab-cp-01"], &["leave --nodes out"]),
        (
            &["--to", "1.13.9", "--extensions", "siderolabs/iscsi-tools"],
            &["would take qemu-guest-agent from lab-cp-01, lab-worker-01", "--extensions"],
        ),
        (
            &["--to", "1.13.9", "--extensions", "siderolabs/qemu-gest-agent"],
            &["did you mean siderolabs/qemu-guest-agent"],
        ),
    ];
    for (args, words) in cases {
        assert_refused(&scene, args, words).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_well_is_not_upgraded() {
    let scene = Scene::begin(LAB).await;
    scene.plug(1202, Plug::Out).await;
    let asked = ["--to", "1.13.9"];
    assert_refused(&scene, &asked, &["the running cluster is not healthy", "lab-cp-03"]).await;
    scene.plug(1202, Plug::In).await;
    scene.settled(LAB).await;

    // Somebody works on a node.
    let cordon = |on: bool| {
        format!("{{apiVersion: v1, kind: Node, metadata: {{name: lab-worker-02}}, spec: {{unschedulable: {on}}}}}")
    };
    scene.apply(&[&cordon(true)]).await;
    assert_refused(&scene, &asked, &["lab-worker-02 takes no new pods", "kubectl uncordon lab-worker-02"]).await;
    scene.apply(&[&cordon(false)]).await;

    // A budget that nothing can satisfy.
    scene.apply(&HOPELESS).await;
    let client = scene.api().await;
    scene
        .until_async("the pod runs", async || {
            let pods = client.pods_on("lab-worker-01").await.unwrap_or_default().len();
            let more = client.pods_on("lab-worker-02").await.unwrap_or_default().len();
            pods + more > 0
        })
        .await;
    assert_refused(&scene, &asked, &["a PodDisruptionBudget will never let pods go", "loosen the budget"]).await;
    scene.assert_quorum("");
}

const HOPELESS: [&str; 2] = [
    "{apiVersion: apps/v1, kind: Deployment, metadata: {name: only, namespace: default}, spec: {replicas: 1, selector: \
     {matchLabels: {app: only}}, template: {metadata: {labels: {app: only}}, spec: {containers: [{name: a, image: \
     a}]}}}}",
    "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: only, namespace: default}, spec: {minAvailable: \
     1, selector: {matchLabels: {app: only}}}}",
];
