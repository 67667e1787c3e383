//! A minor of Kubernetes over a whole cluster: order, images, manifests.

use std::fs;

use super::{Lab, all_run, changed, changing, heard, order, talos};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_minor_goes_up_component_by_component_and_machine_by_machine() {
    let lab = Lab::new("1.12.4", "1.34.1", "").await;
    let profile = fs::read_to_string(lab.folder.profile()).unwrap();
    assert_eq!(lab.runs(), all_run("1.34.1"));
    let mut answers = lab.double.world().subscribe_answers();

    // Shown only: not one object, machine or file is another afterwards, and nothing was pulled.
    let before = lab.objects();
    let shown = lab.run(&["upgrade", "--kubernetes", "1.35.0", "--dry-run"]).await;
    shown.must(2, &[]);
    for words in [
        "Hop 1: Kubernetes 1.34.1 -> 1.35.0",
        "move lab-cp-03 to registry.k8s.io/kube-scheduler:v1.35.0",
        "move lab-worker-02 to ghcr.io/siderolabs/kubelet:v1.35.0",
        "change DaemonSet kube-system/kube-proxy: spec.template.spec.containers",
    ] {
        assert!(shown.out.contains(words), "{words}: {}", shown.out);
    }
    assert_eq!(changed(&before, &lab.objects()), [""; 0]);
    assert_eq!(changing(&heard(&mut answers)), Vec::<String>::new());
    assert_eq!(fs::read_to_string(lab.folder.profile()).unwrap(), profile);
    assert!(!lab.folder.runs().exists());

    let ran = lab.upgrade("1.35.0", &[]).await;
    ran.must(0, &[]);
    assert_eq!(lab.runs(), all_run("1.35.0"), "{}", ran.err);
    let answers_of_run = heard(&mut answers);
    let applied: Vec<&str> = talos(&answers_of_run, "ApplyConfiguration").map(|answer| answer.at.as_str()).collect();
    assert_eq!(applied, order(), "{}", ran.err);
    // Every image was there before the first configuration changed: three and the kubelet's, or the kubelet's.
    let first = answers_of_run.iter().position(|answer| answer.path == "ApplyConfiguration").unwrap();
    assert_eq!(talos(&answers_of_run[..first], "ImagePull").count(), 3 * 4 + 2);
    assert_eq!(talos(&answers_of_run[first..], "ImagePull").count(), 0);
    let document = ran.document();
    assert_eq!(document["versions"]["after"]["kubernetes"], "1.35.0");
    assert_eq!(document["hops"][0]["to"], "1.35.0");
    assert_eq!(document["regressions"], serde_json::json!([]));
    let edited = fs::read_to_string(lab.folder.profile()).unwrap();
    assert_eq!(edited, profile.replace("kubernetes_version: \"1.34.1\"", "kubernetes_version: \"1.35.0\""));

    // Once more: there is nothing to do.
    lab.quiet().await;
    let before = lab.objects();
    let again = lab.upgrade("1.35.0", &[]).await;
    again.must(0, &[]);
    assert_eq!(again.document()["outcome"], "done");
    assert_eq!(changed(&before, &lab.objects()), [""; 0]);
    assert_eq!(changing(&heard(&mut answers)), Vec::<String>::new());
}

/// An object that is in the inventory and in no manifest.
const LEFT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: left\n  namespace: default\n  annotations:\n    \
                    config.k8s.io/owning-inventory: talos-bootstrap-manifests-inventory\ndata: {a: b}\n---\napiVersion: \
                    v1\nkind: ConfigMap\nmetadata: {name: talos-bootstrap-manifests-inventory, namespace: \
                    kube-system}\ndata: {default_left__ConfigMap: \"\"}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn from_talos_1_13_on_manifests_are_applied_and_what_left_them_is_deleted() {
    let lab = Lab::new("1.13.9", "1.35.0", "").await;
    lab.apply(LEFT).await;
    lab.quiet().await;
    let before = lab.objects();
    let shown = lab.run(&["upgrade", "--kubernetes", "1.36.0", "--dry-run"]).await;
    shown.must(2, &[]);
    assert!(shown.out.contains("delete ConfigMap default/left"), "{}", shown.out);
    assert_eq!(changed(&before, &lab.objects()), [""; 0]);
    let ran = lab.upgrade("1.36.0", &[]).await;
    ran.must(0, &["Deleted: ConfigMap default/left"]);
    assert_eq!(lab.runs(), all_run("1.36.0"), "{}", ran.err);
    assert!(!lab.exists("/api/v1/namespaces/default/configmaps/left").await);
    let (_, inventory) =
        lab.objects().remove("/registry/configmaps/kube-system/talos-bootstrap-manifests-inventory").unwrap();
    let entries: Vec<&String> = inventory["data"].as_object().unwrap().keys().collect();
    assert!(entries.iter().any(|key| *key == "kube-system_kube-proxy_apps_DaemonSet"), "{entries:?}");
    assert!(!entries.iter().any(|key| *key == "default_left__ConfigMap"), "{entries:?}");
    let (_, proxy) = lab.objects().remove("/registry/daemonsets/kube-system/kube-proxy").unwrap();
    let managers = proxy["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|one| one["manager"] == "talos" && one["operation"] == "Apply"), "{managers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_of_another_inventory_is_left_to_it() {
    let lab = Lab::new("1.13.9", "1.35.0", "").await;
    lab.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kubeconfig-in-cluster\n  namespace: kube-system\n  \
         annotations: {config.k8s.io/owning-inventory: someone}\n",
    )
    .await;
    let ran = lab.upgrade("1.36.0", &[]).await;
    ran.must(
        4,
        &[
            "ConfigMap kube-system/kubeconfig-in-cluster belongs to the inventory 'someone'",
            "take these objects out of the machines' manifests",
            "recast resume",
        ],
    );
    // The API gives it up, and the run goes on where it stopped.
    lab.apply(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kubeconfig-in-cluster\n  namespace: kube-system\n  \
         annotations: {config.k8s.io/owning-inventory: talos-bootstrap-manifests-inventory}\n",
    )
    .await;
    let resumed = lab.run(&["resume"]).await;
    resumed.must(0, &[]);
    assert_eq!(lab.runs(), all_run("1.36.0"));
}
