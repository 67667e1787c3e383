use serde_json::{Value, json};

use super::super::{kubelet, objects, values, workloads};
use super::*;
use crate::etcd::Store;

/// A cluster without time: what controllers and kubelets make of it in the end.
struct Lab {
    store: Store,
    nodes: Vec<String>,
}

impl Lab {
    fn new(nodes: &[&str]) -> Self {
        let mut lab = Self { store: Store::default(), nodes: nodes.iter().map(|&name| name.to_owned()).collect() };
        for name in nodes {
            let facts = objects::NodeFacts { name: (*name).to_owned(), ..objects::NodeFacts::sample() };
            lab.put([objects::node(None, &facts, "s")]);
        }
        lab
    }

    fn put(&mut self, objects: impl IntoIterator<Item = objects::Keyed>) {
        workloads::fill(&mut self.store, objects);
    }

    fn change(&mut self, key: &str, change: impl FnOnce(&mut Value)) {
        let mut value = self.get(key);
        change(&mut value);
        self.store.put(bytes::Bytes::copy_from_slice(key.as_bytes()), values::encode(&value));
        self.settle();
    }

    fn get(&self, key: &str) -> Value {
        self.store
            .get(key.as_bytes())
            .and_then(|kv| Entry::of(&kv))
            .unwrap_or_else(|| panic!("{key} is not there"))
            .value
    }

    fn settle(&mut self) {
        let nodes: Vec<kubelet::Place> = self.nodes.iter().map(|name| kubelet::Place::sample(name)).collect();
        workloads::live(&mut self.store, &nodes, "s");
    }

    fn pods(&self, app: &str) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = super::super::listed(&self.store, "/registry/pods/default/")
            .into_iter()
            .filter(|pod| pod.value["metadata"]["labels"]["k8s-app"] == app)
            .map(|pod| {
                (pods::node_of(&pod.value).to_owned(), pods::text(&pod.value, "/spec/containers/0/image").to_owned())
            })
            .collect();
        found.sort();
        found
    }
}

#[test]
fn a_deployment_spreads_over_open_nodes_and_rolls_to_a_new_image() {
    let mut lab = Lab::new(&["a", "b", "c"]);
    lab.change("/registry/minions/c", |node| node["spec"]["unschedulable"] = json!(true));
    lab.put([objects::deployment("default", "web", "web", (2, "one:1"), "s")]);
    lab.settle();
    let on = |image: &str| vec![("a".to_owned(), image.to_owned()), ("b".to_owned(), image.to_owned())];
    assert_eq!(lab.pods("web"), on("one:1"));
    let key = "/registry/deployments/default/web";
    let status = lab.get(key)["status"].clone();
    assert_eq!((&status["readyReplicas"], &status["updatedReplicas"]), (&json!(2), &json!(2)), "{status}");
    lab.change(key, |web| {
        web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("one:2");
        web["metadata"]["generation"] = json!(2);
    });
    assert_eq!(lab.pods("web"), on("one:2"));
    let web = lab.get(key);
    assert_eq!(web["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    assert_eq!(web["status"]["observedGeneration"], 2);
    // Back again: the old set is found and becomes the third revision.
    lab.change(key, |web| web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("one:1"));
    assert_eq!(lab.pods("web"), on("one:1"));
    assert_eq!(lab.get(key)["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(super::super::listed(&lab.store, "/registry/replicasets/default/").len(), 2);
    lab.change(key, |web| web["spec"]["replicas"] = json!(0));
    assert_eq!(lab.pods("web"), []);
    // What it owned goes with it.
    lab.store.delete(key.as_bytes());
    lab.settle();
    assert!(super::super::listed(&lab.store, "/registry/replicasets/").is_empty());
}

#[test]
fn daemons_run_on_cordoned_nodes_and_stateful_pods_keep_their_numbers() {
    let mut lab = Lab::new(&["a", "b"]);
    let mut daemon = objects::workload("DaemonSet", ("default", "agent"), "agent", "x:1", "s");
    daemon["metadata"]["generation"] = json!(1);
    lab.put([("/registry/daemonsets/default/agent".to_owned(), daemon)]);
    lab.put(objects::users("s"));
    lab.change("/registry/minions/b", |node| node["spec"]["unschedulable"] = json!(true));
    assert_eq!(lab.pods("agent").len(), 2);
    lab.change("/registry/daemonsets/default/agent", |set| {
        set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("x:2");
    });
    assert_eq!(lab.pods("agent"), [("a".to_owned(), "x:2".to_owned()), ("b".to_owned(), "x:2".to_owned())]);
    let status = lab.get("/registry/daemonsets/default/agent")["status"].clone();
    assert_eq!((&status["updatedNumberScheduled"], &status["numberReady"]), (&json!(2), &json!(2)), "{status}");
    lab.change("/registry/statefulsets/default/store", |set| set["spec"]["replicas"] = json!(3));
    for number in 0..3 {
        assert!(pods::is_ready(&lab.get(&format!("/registry/pods/default/store-{number}"))));
    }
}

#[test]
fn a_budget_counts_and_an_unfit_pod_says_why() {
    let mut lab = Lab::new(&["a"]);
    lab.put(objects::users("s"));
    lab.settle();
    let status = lab.get("/registry/poddisruptionbudgets/default/web")["status"].clone();
    assert_eq!(
        (&status["currentHealthy"], &status["desiredHealthy"], &status["disruptionsAllowed"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(status["conditions"][0]["reason"], "SufficientPods");
    lab.change("/registry/deployments/default/web", |web| {
        web["spec"]["template"]["spec"]["nodeSelector"] = json!({ "disk": "fast" });
    });
    let pods = super::super::listed(&lab.store, "/registry/pods/default/");
    let why = pods.iter().find(|pod| pods::node_of(&pod.value).is_empty()).unwrap();
    let why =
        why.value["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "PodScheduled").unwrap();
    assert_eq!(why["message"], "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.");
}

#[test]
fn a_namespace_on_its_way_out_is_emptied_first() {
    let mut lab = Lab::new(&["a"]);
    let mut namespace = objects::namespaced("v1", "Namespace", None, "gone", "s");
    namespace["spec"] = json!({ "finalizers": ["kubernetes"] });
    namespace["metadata"]["deletionTimestamp"] = json!(objects::now());
    namespace["status"] = json!({ "phase": "Terminating" });
    lab.put([
        ("/registry/namespaces/gone".to_owned(), namespace),
        objects::deployment("gone", "web", "web", (2, "one:1"), "s"),
    ]);
    lab.settle();
    assert!(super::super::listed(&lab.store, "/registry/").iter().all(|entry| !entry.key.contains("gone")));
}
