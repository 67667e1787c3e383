//! The client over real TLS sockets: what is asked in which case, word for word.

use serde_json::{Value, json};

use super::bootstrap::{Change, Entry, Pruned, SyncError, Syncer, Way as SyncWay};
use super::client::Client;
use super::drain::{Cordon, Left, Way, Why};
use super::manifest::{Manifest, of_objects};
use crate::net::testing::{Heard, Reaction, Server, connector};

fn client(server: &Server) -> Client {
    Client::over(&connector(), format!("https://{}", server.address), &server.pinned(), None).unwrap()
}

fn ok(object: &Value) -> Reaction {
    Reaction::Answer("200 OK", object.to_string())
}

fn no(status: &'static str, message: &str) -> Reaction {
    Reaction::Answer(status, json!({"kind": "Status", "message": message}).to_string())
}

/// Request lines, without what pages lists.
fn lines(server: &Server) -> Vec<String> {
    server.lines().into_iter().map(|line| line.replace("&limit=500", "").replace("?limit=500", "")).collect()
}

fn node(spec: &Value, annotations: &Value) -> Value {
    json!({"metadata": {"name": "w-01", "resourceVersion": "7", "annotations": annotations}, "spec": spec})
}

#[tokio::test]
async fn a_cordon_is_marked_and_only_a_marked_one_is_taken_back() {
    let cases = [
        // What is there; what cordon says and sends; what uncordon says and sends.
        (
            node(&json!({}), &json!({})),
            Cordon::Marked { by: "run-2".to_owned() },
            Some(
                json!({"metadata": {"resourceVersion": "7", "annotations": {"recast/cordoned-by": "run-2"}}, "spec": {"unschedulable": true}}),
            ),
            Cordon::Open,
            None,
        ),
        (
            node(&json!({"unschedulable": true}), &json!({"recast/cordoned-by": "run-1"})),
            Cordon::Marked { by: "run-2".to_owned() },
            Some(
                json!({"metadata": {"resourceVersion": "7", "annotations": {"recast/cordoned-by": "run-2"}}, "spec": {"unschedulable": true}}),
            ),
            Cordon::Open,
            Some(
                json!({"metadata": {"resourceVersion": "7", "annotations": {"recast/cordoned-by": null}}, "spec": {"unschedulable": null}}),
            ),
        ),
        (node(&json!({"unschedulable": true}), &json!({})), Cordon::Theirs, None, Cordon::Theirs, None),
    ];
    for (found, cordoned, sent, uncordoned, taken_back) in cases {
        let shown = found.clone();
        let server = Server::start(move |_, _| ok(&found)).await;
        let bodies = |server: &Server| -> Vec<Value> {
            let patches = server.heard().into_iter().filter(|heard| heard.line().starts_with("PATCH"));
            patches
                .map(|heard| {
                    assert_eq!(heard.header("content-type"), Some("application/merge-patch+json"));
                    serde_json::from_str(&heard.body).unwrap()
                })
                .collect()
        };
        assert_eq!(client(&server).cordon("w-01", "run-2").await.unwrap(), cordoned, "{shown}");
        assert_eq!(bodies(&server), sent.clone().into_iter().collect::<Vec<_>>(), "{shown}");
        assert_eq!(client(&server).uncordon("w-01").await.unwrap(), uncordoned, "{shown}");
        assert_eq!(bodies(&server), sent.into_iter().chain(taken_back).collect::<Vec<_>>(), "{shown}");
    }
}

#[tokio::test]
async fn a_cordon_of_the_same_moment_is_not_overwritten() {
    let found = node(&json!({}), &json!({}));
    let server = Server::start(move |heard, _| {
        if heard.line().starts_with("PATCH") { no("409 Conflict", "the object has been modified") } else { ok(&found) }
    })
    .await;
    let error = client(&server).cordon("w-01", "run-2").await.unwrap_err();
    assert!(matches!(error, super::K8sError::Status { status: 409, .. }), "{error}");
}

fn pod(name: &str, owner: Option<&str>, more: &Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {"nodeName": "w-01", "containers": [{"name": "c"}]},
        "status": {"phase": "Running"},
    });
    if let Some(kind) = owner {
        pod["metadata"]["ownerReferences"] = json!([{"kind": kind, "name": "x", "controller": true}]);
    }
    for (key, value) in more.as_object().unwrap() {
        pod["metadata"][key] = value.clone();
    }
    pod
}

fn on_the_node(heard: &Heard) -> Option<Reaction> {
    let pods = json!({"items": [
        pod("web", Some("ReplicaSet"), &json!({})),
        pod("db", Some("StatefulSet"), &json!({})),
        pod("moved", Some("StatefulSet"), &json!({})),
        pod("bare", None, &json!({})),
        pod("leaving", Some("ReplicaSet"), &json!({"deletionTimestamp": "2026-11-20T22:31:05Z"})),
        pod("agent", Some("DaemonSet"), &json!({})),
        pod("static", Some("Node"), &json!({"annotations": {"kubernetes.io/config.mirror": "01"}})),
    ]});
    heard.line().starts_with("GET /api/v1/pods?").then(|| ok(&pods))
}

#[tokio::test]
async fn a_round_evicts_what_can_go_by_its_uid_and_tells_what_stays() {
    let server = Server::start(|heard, _| {
        let line = heard.line();
        on_the_node(heard).unwrap_or_else(|| match line {
            line if line.contains("/db/") => {
                no("429 Too Many Requests", "Cannot evict pod as it would violate the pod's disruption budget.")
            }
            line if line.contains("/moved/") => no("409 Conflict", "the UID in the precondition does not match"),
            line if line.contains("/bare/") => no(
                "500 Internal Server Error",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ),
            _ => Reaction::Answer("201 Created", json!({"kind": "Status", "status": "Success"}).to_string()),
        })
    })
    .await;
    let left = client(&server).drain_round("w-01", Way::Evict).await.unwrap();
    let said: Vec<(&str, bool)> =
        left.iter().map(|left: &Left| (left.pod.as_str(), left.why == Why::Leaving)).collect();
    assert_eq!(
        said,
        [("shop/web", true), ("shop/db", false), ("shop/moved", true), ("shop/bare", false), ("shop/leaving", true)]
    );
    assert!(matches!(&left[1].why, Why::Budget(why) if why.contains("disruption budget")));
    assert!(matches!(&left[3].why, Why::Refused(_)));
    assert_eq!(
        lines(&server),
        [
            "GET /api/v1/pods?fieldSelector=spec.nodeName%3Dw-01",
            "POST /api/v1/namespaces/shop/pods/web/eviction",
            "POST /api/v1/namespaces/shop/pods/db/eviction",
            "POST /api/v1/namespaces/shop/pods/moved/eviction",
            "POST /api/v1/namespaces/shop/pods/bare/eviction",
        ]
    );
    let eviction: Value = serde_json::from_str(&server.heard()[1].body).unwrap();
    assert_eq!((&eviction["apiVersion"], &eviction["kind"]), (&json!("policy/v1"), &json!("Eviction")));
    assert_eq!(eviction["deleteOptions"]["preconditions"]["uid"], "uid-web");
    assert_eq!(eviction["deleteOptions"].get("gracePeriodSeconds"), None, "a pod's own grace period holds");
}

#[tokio::test]
async fn a_server_that_is_away_ends_the_round_as_something_that_may_pass() {
    let server =
        Server::start(|heard, _| on_the_node(heard).unwrap_or_else(|| no("503 Service Unavailable", "etcd"))).await;
    assert!(client(&server).drain_round("w-01", Way::Evict).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn only_when_told_are_pods_deleted_without_asking_a_budget() {
    let server = Server::start(|heard, _| on_the_node(heard).unwrap_or_else(|| ok(&json!({})))).await;
    client(&server).drain_round("w-01", Way::Delete).await.unwrap();
    assert_eq!(
        lines(&server)[1..],
        ["web", "db", "moved", "bare"].map(|name| format!("DELETE /api/v1/namespaces/shop/pods/{name}"))
    );
    let options: Value = serde_json::from_str(&server.heard()[1].body).unwrap();
    assert_eq!(options["preconditions"]["uid"], "uid-web");
}

#[tokio::test]
async fn volumes_of_pods_that_stay_are_not_waited_for() {
    let attached = |name: &str, node: &str| json!({"metadata": {"name": name}, "spec": {"nodeName": node, "source": {"persistentVolumeName": name}}});
    let mut agent = pod("agent", Some("DaemonSet"), &json!({}));
    agent["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "cache"}}]);
    let server = Server::start(move |heard, _| {
        let line = heard.line();
        if line.contains("/volumeattachments") {
            ok(&json!({"items": [attached("pv-web", "w-01"), attached("pv-cache", "w-01"), attached("pv-far", "w-02")]}))
        } else if line.contains("/persistentvolumeclaims") {
            ok(&json!({"items": [{"metadata": {"name": "cache", "namespace": "shop"}, "spec": {"volumeName": "pv-cache"}}]}))
        } else {
            ok(&json!({ "items": [agent] }))
        }
    })
    .await;
    let volumes = client(&server).volumes_to_detach("w-01").await.unwrap();
    assert_eq!(volumes.into_iter().collect::<Vec<_>>(), ["pv-web"]);
}

fn daemon_set() -> Manifest {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
        "spec": {"image": "v2"},
    });
    of_objects(vec![object]).unwrap().remove(0)
}

/// A server with one `DaemonSet` as `live`, that would become `tried`.
async fn cluster(live: Option<Value>, tried: Value) -> Server {
    Server::start(move |heard, _| match heard.line() {
        "GET /apis/apps/v1" => {
            ok(&json!({"resources": [{"name": "daemonsets", "kind": "DaemonSet", "namespaced": true}]}))
        }
        "GET /apis/apps" => ok(&json!({"preferredVersion": {"groupVersion": "apps/v1"}})),
        line if line.starts_with("GET") => live.as_ref().map_or_else(|| no("404 Not Found", "not found"), ok),
        _ => ok(&tried),
    })
    .await
}

fn live(image: &str, annotations: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "kube-proxy", "resourceVersion": "9", "annotations": annotations}, "spec": {"image": image}})
}

const ONE: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy";

/// Writes that were meant, and those that were tried.
fn writes(server: &Server) -> (Vec<String>, Vec<String>) {
    let writes = server.lines().into_iter().filter(|line| !line.starts_with("GET"));
    writes.partition(|line| !line.contains("dryRun=All"))
}

#[tokio::test]
async fn an_object_that_is_right_is_only_tried() {
    let owned = json!({"config.k8s.io/owning-inventory": "talos-bootstrap-manifests-inventory"});
    let server = cluster(Some(live("v2", &owned)), live("v2", &owned)).await;
    let client = client(&server);
    assert_eq!(Syncer::new(&client, SyncWay::Apply).bring_up(&daemon_set()).await.unwrap(), Change::Same);
    let tried = format!("PATCH {ONE}?fieldManager=talos&force=true&dryRun=All");
    assert_eq!(writes(&server), (vec![], vec![tried]));
    let body: Value = serde_json::from_str(&server.heard().last().unwrap().body).unwrap();
    assert_eq!(body["metadata"]["annotations"], owned);
    assert_eq!(server.heard().last().unwrap().header("content-type"), Some("application/apply-patch+yaml"));
}

#[tokio::test]
async fn an_object_that_differs_is_applied_once_it_was_tried() {
    let server = cluster(Some(live("v1", &json!({}))), live("v2", &json!({}))).await;
    let client = client(&server);
    let mut syncer = Syncer::new(&client, SyncWay::Apply);
    let expected = Change::Alter(vec!["spec.image: v1 → v2".to_owned()]);
    assert_eq!(syncer.compare(&daemon_set()).await.unwrap(), expected);
    assert_eq!(writes(&server).0, Vec::<String>::new(), "a comparison changes nothing");
    assert_eq!(syncer.bring_up(&daemon_set()).await.unwrap(), expected);
    assert_eq!(writes(&server).0, [format!("PATCH {ONE}?fieldManager=talos&force=true")]);
}

#[tokio::test]
async fn an_object_of_another_inventory_is_left_alone() {
    let foreign = json!({"config.k8s.io/owning-inventory": "flux"});
    let server = cluster(Some(live("v1", &foreign)), live("v2", &foreign)).await;
    let client = client(&server);
    let mut syncer = Syncer::new(&client, SyncWay::Apply);
    let error = syncer.bring_up(&daemon_set()).await.unwrap_err();
    assert!(matches!(error, SyncError::Owned { inventory, .. } if inventory == "flux"));
    assert_eq!(syncer.owner_of(&daemon_set()).await.unwrap().as_deref(), Some("flux"));
    let entry = Entry::of(&daemon_set());
    assert_eq!(syncer.prune(&entry).await.unwrap(), Pruned::Owned { inventory: "flux".to_owned() });
    assert_eq!(writes(&server), (vec![], vec![]));
}

#[tokio::test]
async fn whole_objects_take_the_place_of_the_one_that_was_looked_at() {
    let server = cluster(Some(live("v1", &json!({}))), live("v2", &json!({}))).await;
    let client_of = client(&server);
    Syncer::new(&client_of, SyncWay::Put).bring_up(&daemon_set()).await.unwrap();
    assert_eq!(writes(&server), (vec![format!("PUT {ONE}")], vec![format!("PUT {ONE}?dryRun=All")]));
    let body: Value = serde_json::from_str(&server.heard().last().unwrap().body).unwrap();
    assert_eq!(body["metadata"]["resourceVersion"], "9");
    assert_eq!(body["metadata"].get("annotations"), None, "no inventory before Talos 1.13");
    let server = cluster(None, json!({})).await;
    let client_of = client(&server);
    assert_eq!(Syncer::new(&client_of, SyncWay::Put).bring_up(&daemon_set()).await.unwrap(), Change::Create);
    assert_eq!(writes(&server).0, ["POST /apis/apps/v1/namespaces/kube-system/daemonsets"]);
}

#[tokio::test]
async fn what_left_the_manifests_is_deleted_in_the_version_that_the_server_prefers() {
    let server = cluster(Some(live("v1", &json!({}))), json!({})).await;
    let client_of = client(&server);
    let entry = Entry::of(&daemon_set());
    assert_eq!(Syncer::new(&client_of, SyncWay::Apply).prune(&entry).await.unwrap(), Pruned::Now);
    assert_eq!(writes(&server).0, [format!("DELETE {ONE}")]);
    assert!(server.heard().last().unwrap().body.contains("Background"));
    let server = cluster(None, json!({})).await;
    let client_of = client(&server);
    assert_eq!(Syncer::new(&client_of, SyncWay::Apply).prune(&entry).await.unwrap(), Pruned::NotThere);
    assert_eq!(writes(&server), (vec![], vec![]));
}
