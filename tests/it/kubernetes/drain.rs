//! A machine's pods leave before it goes down: what blocks is told by name, what stays anyway is let alone, volumes are
//! detached first, and only what recast cordoned takes pods again.

use std::time::{Duration, Instant};

use mock_pve::world::script::Service;
use recast::k8s::apply::Applier;
use recast::k8s::drain::{Cordon, Way, Why, stays};
use recast::k8s::manifest;

use super::{Lab, heard};
use crate::kill::{Recast, told};

/// Two pods that can only be on the first worker, of which one must be there.
const SHOP: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop, namespace: default}\nspec:\n  replicas: \
                   2\n  selector: {matchLabels: {app: shop}}\n  template:\n    metadata: {labels: {app: shop}}\n    spec:\n      \
                   nodeSelector: {kubernetes.io/hostname: lab-worker-01}\n      containers: [{name: shop, image: \
                   registry.k8s.io/pause:3.10}]\n";
const BUDGET: &str = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: shop-budget, namespace: \
                      default}\nspec: {minAvailable: 1, selector: {matchLabels: {app: shop}}}\n";
const ATTACHMENT: &str = "apiVersion: storage.k8s.io/v1\nkind: VolumeAttachment\nmetadata: {name: csi-data}\nspec: {attacher: \
                          csi.example.com, nodeName: lab-worker-01, source: {persistentVolumeName: data}}\n";

/// Somebody cordons a node.
fn cordoned(node: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {node}}}\nspec: {{unschedulable: true}}\n")
}

impl Lab {
    async fn delete(&self, text: &str) {
        let client = self.api().await;
        for object in manifest::parse(text).unwrap() {
            Applier::new(&client).delete(&object).await.unwrap();
        }
    }

    /// Waits until all its workloads are ready.
    async fn settled(&self) {
        let (client, since) = (self.api().await, Instant::now());
        loop {
            let workloads = client.workloads().await.unwrap();
            let shop = workloads.iter().any(|workload| workload.name == "shop");
            if shop && workloads.iter().all(recast::k8s::Workload::is_ready) {
                return;
            }
            assert!(since.elapsed() < Duration::from_secs(20), "{workloads:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pods_leave_as_far_as_they_can_and_foreign_cordons_stay() {
    let lab = Lab::new("1.12.4", "1.34.1", "").await;
    lab.apply(SHOP).await;
    lab.apply(BUDGET).await;
    lab.apply(ATTACHMENT).await;
    lab.settled().await;
    let client = lab.api().await;
    assert_eq!(client.cordon("lab-worker-01", "a-run").await.unwrap(), Cordon::Marked { by: "a-run".to_owned() });
    // One of the two may go, and is made anew nowhere; the other is held, by a budget with a name.
    let since = Instant::now();
    let left = loop {
        let left = client.drain_round("lab-worker-01", Way::Evict).await.unwrap();
        if let [one] = &left[..]
            && matches!(one.why, Why::Budget(_))
        {
            break left;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{left:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(left[0].to_string().starts_with("default/shop-"), "{left:?}");
    assert!(left[0].to_string().contains("disruption budget shop-budget needs 1 healthy pods"), "{left:?}");
    let staying: Vec<_> = client.pods_on("lab-worker-01").await.unwrap();
    assert!(staying.iter().filter(|pod| stays(pod).is_some()).count() >= 2, "kube-proxy and flannel: {staying:#?}");
    assert_eq!(client.volumes_to_detach("lab-worker-01").await.unwrap(), ["data".to_owned()].into());
    lab.delete(ATTACHMENT).await;
    assert!(client.volumes_to_detach("lab-worker-01").await.unwrap().is_empty());

    // What was cordoned by somebody else stays so, whatever is asked for.
    lab.apply(&cordoned("lab-worker-02")).await;
    assert_eq!(client.cordon("lab-worker-02", "a-run").await.unwrap(), Cordon::Theirs);
    assert_eq!(client.uncordon("lab-worker-02").await.unwrap(), Cordon::Theirs);
    assert_eq!(client.uncordon("lab-worker-01").await.unwrap(), Cordon::Open);
    let nodes = client.nodes().await.unwrap();
    let closed: Vec<&str> = nodes.iter().filter(|node| node.unschedulable).map(|node| node.name.as_str()).collect();
    assert_eq!(closed, ["lab-worker-02"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drain_that_a_budget_blocks_stops_by_name_and_goes_on_when_it_is_gone() {
    let lab = Lab::new("1.13.8", "1.35.1", "timeouts:\n  drain: 3s\n").await;
    lab.apply(SHOP).await;
    lab.apply(BUDGET).await;
    lab.apply(ATTACHMENT).await;
    lab.settled().await;
    let mut answers = lab.double.world().subscribe_answers();
    let args = ["upgrade", "--to", "1.13.9", "--only", "os", "--nodes", "lab-worker-01", "--confirm", "lab"];
    let mut recast = Recast::start(lab.folder.recast(lab.double.site(), &args), &lab.folder);
    let (seen, code) = tokio::task::block_in_place(|| {
        let live = std::iter::from_fn(|| recast.wait_for(0))
            .any(|line| line.contains("\"waiting\"") && line.contains("shop-budget") && line.contains("default/shop-"));
        (live, recast.end())
    });
    let story = told(&lab.folder).split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(code, Some(5), "{story}");
    assert!(seen, "what blocks is seen while it blocks: {story}");
    for words in [
        "drain lab-worker-01",
        "disruption budget shop-budget needs 1 healthy pods",
        "loosen the PodDisruptionBudget",
        "the node stays cordoned meanwhile",
        "recast resume",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }
    let client = lab.api().await;
    assert!(matches!(client.cordon_of("lab-worker-01").await.unwrap(), Cordon::Marked { .. }));

    // Without the budget the pods go; the machine doesn't, before its volume is detached.
    lab.delete(BUDGET).await;
    let mut resumed = Recast::start(lab.folder.recast(lab.double.site(), &["resume"]), &lab.folder);
    let waits = tokio::task::block_in_place(|| {
        std::iter::from_fn(|| resumed.wait_for(0)).any(|line| line.contains("volumes to be detached"))
    });
    assert!(waits, "{}", told(&lab.folder));
    let sent = heard(&mut answers);
    let down = ["Reboot", "Shutdown"];
    let mut talos = sent.iter().filter(|answer| answer.service == Service::Talos);
    assert!(!talos.any(|answer| answer.at == "1210" && down.contains(&answer.path.as_str())), "{sent:#?}");
    lab.delete(ATTACHMENT).await;
    let code = tokio::task::block_in_place(|| resumed.end());
    assert_eq!(code, Some(0), "{}", told(&lab.folder));
    let nodes = lab.api().await.nodes().await.unwrap();
    let closed: Vec<&str> = nodes.iter().filter(|node| node.unschedulable).map(|node| node.name.as_str()).collect();
    assert_eq!(closed, Vec::<&str>::new());
    // No pod of a `DaemonSet` and no mirror of a static pod was asked to go.
    let evicted: Vec<String> = lab
        .double
        .deeds()
        .into_iter()
        .filter(|deed| deed.what == "kubernetes-evict")
        .filter_map(|deed| deed.object)
        .collect();
    assert!(evicted.iter().any(|path| path.contains("/pods/shop-")), "{evicted:?}");
    assert!(!evicted.iter().any(|path| path.contains("/pods/kube-") && !path.contains("kube-dns")), "{evicted:?}");
}
