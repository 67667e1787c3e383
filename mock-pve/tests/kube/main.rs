//! The Kubernetes API of a cluster in the double: as the real kubectl sees it (`RECAST_TEST_CLIENTS=DIR`, where it is), and
//! what it says to requests that make no sense.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod lab;
mod nonsense;
mod quotas;
mod told;

use serde_json::Value;

use crate::lab::{Lab, assert_has};

const APP: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: settings, labels: {app: shop}}
data: {colour: red}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop, labels: {app: shop}}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: shop
        image: registry.example/shop:1
        ports: [{containerPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec: {selector: {app: shop}, ports: [{port: 80, targetPort: 8080}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_reads_what_runs() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    assert_has(&lab.says(&["version"]), &["Server Version: v1.34.1"]);
    assert_has(&lab.says(&["cluster-info"]), &["Kubernetes control plane"]);
    let nodes = lab.says(&["get", "nodes", "-o", "wide"]);
    assert_has(&nodes, &["cp-01", "control-plane", "v1.34.1", "10.78.0.21", "Talos (v1.12.4)", "containerd://"]);
    let pods = lab.says(&["get", "pods", "-A", "-o", "wide"]);
    assert_has(&pods, &["kube-apiserver-cp-01", "coredns-", "kube-proxy-", "NOMINATED NODE", "1/1", "Running"]);
    assert_has(&lab.says(&["get", "nodes", "-o", "yaml"]), &["kind: List", "kubeletVersion: v1.34.1"]);
    let json: Value = serde_json::from_str(&lab.says(&["get", "pods", "-A", "-o", "json"])).unwrap();
    assert!(json["items"].as_array().unwrap().len() >= 3 + 6 + 5);
    let described = lab.says(&["describe", "node", "worker-01"]);
    assert_has(&described, &["KubeletReady", "Non-terminated Pods:", "Allocated resources"]);
    let pod = lab.says(&["get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "-o", "name"]);
    let pod = pod.lines().next().unwrap().to_owned();
    assert_has(
        &lab.says(&["describe", "-n", "kube-system", &pod]),
        &["Controlled By:  ReplicaSet/coredns-", "Running"],
    );
    assert_has(&lab.says(&["logs", "-n", "kube-system", &pod]), &["coredns"]);
    let kinds = lab.says(&["api-resources"]);
    assert_has(&kinds, &["deployments", "poddisruptionbudgets", "pdb", "policy/v1", "selfsubjectaccessreviews"]);
    assert_has(&lab.says(&["api-versions"]), &["apps/v1", "storage.k8s.io/v1"]);
    for kind in [
        "all",
        "cm",
        "secrets",
        "sa",
        "ep",
        "endpointslices",
        "leases",
        "events",
        "ds",
        "rs",
        "sts",
        "jobs",
        "pdb",
        "pv",
        "pvc",
        "volumeattachments",
        "sc",
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "crd",
        "apiservices",
        "priorityclasses",
        "mutatingwebhookconfigurations",
        "validatingwebhookconfigurations",
        "csr",
        "ns",
    ] {
        lab.says(&["get", kind, "-A"]);
    }
    assert_has(&lab.refuses(&["get", "unicorns"]), &["the server doesn't have a resource type \"unicorns\""]);
    assert_has(&lab.refuses(&["get", "pod", "nobody"]), &["Error from server (NotFound): pods \"nobody\" not found"]);
    assert_has(&lab.refuses(&["top", "nodes"]), &["Metrics API not available"]);
    assert_has(
        &lab.refuses(&["get", "pods", "--field-selector", "spec.colour=red"]),
        &["field label not supported: spec.colour"],
    );
    assert_eq!(lab.says(&["get", "--raw", "/readyz"]), "ok");
    assert_has(&lab.says(&["get", "--raw", "/livez?verbose"]), &["[+]etcd ok", "livez check passed"]);
    assert_eq!(lab.says(&["auth", "can-i", "delete", "nodes"]).trim(), "yes");
    assert_has(&lab.says(&["auth", "whoami"]), &["admin", "system:masters"]);
    // Somebody who may nothing, until he is bound.
    let who = |args: &[&str]| lab.run_as("jane", args);
    let refused = who(&["get", "pods"]).err;
    let wanted =
        "pods is forbidden: User \"jane\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_has(&refused, &["Error from server (Forbidden)", wanted]);
    assert_eq!(who(&["auth", "can-i", "get", "pods"]).out.trim(), "no");
    lab.says(&["create", "rolebinding", "readers", "--clusterrole=view", "--group=developers"]);
    assert_eq!(who(&["get", "pods"]).code, 0);
    assert_has(&who(&["delete", "pod", "store-0"]).err, &["cannot delete resource \"pods\""]);
    let token = lab.says(&["create", "token", "default"]);
    let said = lab.run_as("admin", &["auth", "whoami", "--token", token.trim()]);
    assert_eq!(said.code, 0, "{}", said.err);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_changes_what_runs() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    lab.file("app.yaml", APP);
    assert_has(&lab.refuses(&["diff", "-f", "app.yaml"]), &[]);
    assert_has(
        &lab.says(&["apply", "-f", "app.yaml"]),
        &["configmap/settings created", "deployment.apps/shop created"],
    );
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    assert_has(&lab.says(&["apply", "-f", "app.yaml"]), &["deployment.apps/shop unchanged", "service/shop unchanged"]);
    assert_eq!(lab.says(&["diff", "-f", "app.yaml"]), "");
    lab.file("app.yaml", &APP.replace("shop:1", "shop:2").replace("red", "blue"));
    let changed = lab.run(&["diff", "-f", "app.yaml"]);
    assert_eq!(changed.code, 1, "{}", changed.err);
    assert_has(&changed.out, &["+      - image: registry.example/shop:2"]);
    assert_has(&lab.says(&["apply", "-f", "app.yaml"]), &["deployment.apps/shop configured", "service/shop unchanged"]);
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    assert_has(&lab.says(&["rollout", "history", "deployment/shop"]), &["1 ", "2 "]);
    assert_has(
        &lab.says(&["get", "pods", "-l", "app=shop", "-o", "jsonpath={.items[*].spec.containers[0].image}"]),
        &["shop:2"],
    );
    lab.says(&["rollout", "undo", "deployment/shop"]);
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    lab.says(&["scale", "deployment/shop", "--replicas=3"]);
    lab.says(&["wait", "--for=jsonpath={.status.readyReplicas}=3", "deployment/shop", "--timeout=30s"]);
    lab.says(&["label", "cm", "settings", "tier=front"]);
    lab.says(&["annotate", "cm", "settings", "note=kept"]);
    lab.says(&["patch", "cm", "settings", "-p", r#"{"data":{"size":"big"}}"#]);
    lab.says(&["patch", "cm", "settings", "--type=json", "-p", r#"[{"op":"remove","path":"/data/size"}]"#]);
    assert_eq!(lab.says(&["get", "cm", "settings", "-o", "jsonpath={.data}"]), r#"{"colour":"blue"}"#);
    lab.says(&["set", "image", "deployment/shop", "shop=registry.example/shop:3"]);
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    assert_has(&lab.refuses(&["create", "cm", "settings"]), &["configmaps \"settings\" already exists"]);
    // Server side: fields have owners.
    lab.file("mine.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {colour: green}\n");
    let conflict = lab.refuses(&["apply", "--server-side", "-f", "mine.yaml"]);
    let wanted = "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using v1: .data.colour";
    assert_has(&conflict, &[wanted]);
    assert_has(&lab.says(&["apply", "--server-side", "--force-conflicts", "-f", "mine.yaml"]), &["serverside-applied"]);
    let fields = lab.says(&["get", "cm", "settings", "-o", "yaml", "--show-managed-fields"]);
    assert_has(&fields, &["manager: kubectl", "operation: Apply", "colour: green"]);
    assert_has(
        &lab.says(&["apply", "--server-side", "--dry-run=server", "-f", "app.yaml", "--force-conflicts"]),
        &["(server dry run)"],
    );
    assert_eq!(lab.says(&["get", "cm", "settings", "-o", "jsonpath={.data.colour}"]), "green");
    // What can't be right is refused with the reasons.
    lab.file("bad.yaml", &APP.replace("image: registry.example/shop:1", "imag: x"));
    assert_has(
        &lab.refuses(&["apply", "-f", "bad.yaml"]),
        &["unknown field \"spec.template.spec.containers[0].imag\""],
    );
    lab.file(
        "bad.yaml",
        &APP.replace("matchLabels: {app: shop}", "matchLabels: {app: other}").replace("name: shop,", "name: bad,"),
    );
    assert_has(&lab.refuses(&["apply", "-f", "bad.yaml"]), &["`selector` does not match template `labels`"]);
    assert_has(&lab.refuses(&["create", "cm", "Not_A_Name"]), &["a lowercase RFC 1123 subdomain must consist of"]);
    // A kind of its own, and its instances.
    lab.file("kind.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: boats.sea.example}\n\
        spec:\n  group: sea.example\n  scope: Namespaced\n  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt]}\n  \
        versions:\n  - name: v1\n    served: true\n    storage: true\n    schema: {openAPIV3Schema: {type: object, \
        x-kubernetes-preserve-unknown-fields: true}}\n");
    lab.file("boat.yaml", "apiVersion: sea.example/v1\nkind: Boat\nmetadata: {name: one}\nspec: {masts: 2}\n");
    lab.says(&["apply", "-f", "kind.yaml"]);
    lab.says(&["wait", "--for=condition=Established", "crd/boats.sea.example", "--timeout=10s"]);
    lab.says(&["apply", "-f", "boat.yaml"]);
    assert_has(&lab.says(&["get", "bt"]), &["one"]);
    assert_eq!(lab.says(&["get", "boat", "one", "-o", "jsonpath={.spec.masts}"]), "2");
    // What its schema says holds.
    lab.file("kind.yaml", "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: ships.sea.example}\n\
        spec:\n  group: sea.example\n  scope: Namespaced\n  names: {plural: ships, singular: ship, kind: Ship}\n  versions:\n  \
        - name: v1\n    served: true\n    storage: true\n    subresources: {status: {}}\n    schema: {openAPIV3Schema: \
        {type: object, required: [spec], properties: {spec: {type: object, properties: {masts: {type: integer, maximum: 5}, \
        flag: {type: string, default: white}}}, status: {type: object, properties: {at: {type: string}}}}}}\n");
    lab.says(&["apply", "-f", "kind.yaml"]);
    lab.says(&["wait", "--for=condition=Established", "crd/ships.sea.example", "--timeout=10s"]);
    let ship = |spec: &str| format!("apiVersion: sea.example/v1\nkind: Ship\nmetadata: {{name: one}}\nspec: {spec}\n");
    lab.file("ship.yaml", &ship("{masts: 3}\nstatus: {at: sea}"));
    lab.says(&["apply", "-f", "ship.yaml"]);
    let shown = lab.says(&["get", "ship", "one", "-o", "jsonpath={.spec}{.status}"]);
    assert_eq!(shown, r#"{"flag":"white","masts":3}"#);
    for (spec, wanted) in [
        ("{masts: 9}", "spec.masts: Invalid value: 9: spec.masts in body should be less than or equal to 5"),
        (
            "{masts: many}",
            "spec.masts: Invalid value: \"string\": spec.masts in body must be of type integer: \"string\"",
        ),
        ("{mast: 1}", "strict decoding error: unknown field \"spec.mast\""),
    ] {
        lab.file("ship.yaml", &ship(spec));
        assert_has(&lab.refuses(&["apply", "-f", "ship.yaml"]), &[wanted]);
    }
    lab.says(&["apply", "-f", "ship.yaml", "--validate=false"]);
    assert_eq!(lab.says(&["get", "ship", "one", "-o", "jsonpath={.spec}"]), r#"{"flag":"white"}"#);
    // A job ends; a namespace goes with all that is in it.
    lab.says(&["create", "namespace", "side"]);
    lab.says(&["create", "job", "-n", "side", "once", "--image=registry.example/job:1"]);
    lab.says(&["wait", "-n", "side", "--for=condition=complete", "job/once", "--timeout=30s"]);
    lab.says(&["delete", "namespace", "side", "--timeout=30s"]);
    assert_has(&lab.refuses(&["get", "ns", "side"]), &["namespaces \"side\" not found"]);
    assert_has(&lab.says(&["delete", "-f", "app.yaml", "--timeout=30s"]), &["deployment.apps \"shop\" deleted"]);
    lab.says(&["wait", "--for=delete", "pods", "-l", "app=shop", "--timeout=30s"]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_takes_over_plans_and_waits() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    // What the client applied becomes what the server applied: nobody is in the way.
    lab.file("owned.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {colour: red}\n");
    lab.says(&["apply", "-f", "owned.yaml"]);
    let said = lab.run(&["apply", "--server-side", "-f", "owned.yaml"]);
    assert!(said.code == 0 && !said.err.contains("Warning"), "{}", said.err);
    let step = r#"[{"op":"test","path":"/data/colour","value":"green"}]"#;
    assert_has(
        &lab.refuses(&["patch", "cm", "owned", "--type=json", "-p", step]),
        &["The request is invalid: the server rejected our request due to an error in our request"],
    );
    let cron = ["create", "cronjob", "often", "--image=registry.example/job:1"];
    assert_has(
        &lab.refuses(&[&cron[..], &["--schedule=often"]].concat()),
        &["spec.schedule: Invalid value: \"often\": expected exactly 5 fields, found 1: [often]"],
    );
    lab.says(&[&cron[..], &["--schedule=*/5 * * * *"]].concat());
    assert_has(&lab.says(&["get", "cronjobs"]), &["SCHEDULE", "LAST SCHEDULE", "*/5 * * * *", "False"]);
    lab.says(&["create", "ingress", "front", "--class=web", "--rule=shop.example/=shop:80"]);
    assert_has(&lab.says(&["get", "ingress"]), &["CLASS", "HOSTS", "shop.example"]);
    // Who works is elected.
    for (name, holder) in [("kube-scheduler", "cp-0"), ("kube-controller-manager", "cp-0")] {
        lab.says(&["wait", "--for=create", &format!("lease/{name}"), "-n", "kube-system", "--timeout=30s"]);
        let who = lab.says(&["get", "lease", name, "-n", "kube-system", "-o", "jsonpath={.spec.holderIdentity}"]);
        assert_has(&who, &[holder]);
    }
    // Who waits for what he owns waits for what that owns.
    lab.file("app.yaml", APP);
    lab.says(&["apply", "-f", "app.yaml"]);
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    // Who follows a log hears of it until there is no more.
    let mut follows = lab.start(&["logs", "-f", "deployment/shop"]);
    let mut said = std::io::BufReader::new(follows.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_has(&line, &["shop started"]);
    lab.says(&["get", "pods"]);
    assert!(follows.try_wait().unwrap().is_none(), "the log ended although its container runs");
    lab.says(&["delete", "deployment", "shop", "--cascade=foreground", "--timeout=60s"]);
    assert_eq!(lab.says(&["get", "rs,pods", "-l", "app=shop", "-o", "name"]), "");
    assert!(follows.wait().unwrap().success());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_drains_a_node_as_far_as_budgets_allow() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    lab.says(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let mut watch = lab.start(&["get", "nodes", "-w", "--request-timeout=60s"]);
    // As many as there are must stay: nothing may go.
    lab.says(&["patch", "pdb", "web", "-p", r#"{"spec":{"minAvailable":2}}"#]);
    let node = "-o=jsonpath={.items[*].spec.nodeName}";
    let nodes = lab.says(&["get", "pods", "-l", "k8s-app=web", node]);
    let name = nodes.split(' ').next().unwrap().to_owned();
    let drain = ["drain", name.as_str(), "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=4s"];
    let blocked = lab.refuses(&drain);
    assert_has(
        &blocked,
        &["Cannot evict pod as it would violate the pod's disruption budget", "global timeout reached"],
    );
    assert_has(&lab.says(&["get", "nodes"]), &["Ready,SchedulingDisabled"]);
    assert_has(
        &lab.says(&["get", "node", &name, "-o", "jsonpath={.spec.taints}"]),
        &["node.kubernetes.io/unschedulable"],
    );
    // One may go now, and comes up elsewhere before the next.
    lab.says(&["patch", "pdb", "web", "-p", r#"{"spec":{"minAvailable":1}}"#]);
    let drain = ["drain", name.as_str(), "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=60s"];
    assert_has(&lab.says(&drain), &["evicting pod default/web-", "drained"]);
    lab.says(&["rollout", "status", "deployment/web", "--timeout=30s"]);
    let left = lab.says(&["get", "pods", "-A", "--field-selector", &format!("spec.nodeName={name}"), "-o", "name"]);
    assert!(!left.contains("web-") && left.contains("kube-proxy"), "{left}");
    lab.says(&["uncordon", &name]);
    assert!(!lab.says(&["get", "nodes"]).contains("SchedulingDisabled"));
    watch.kill().unwrap();
    let mut seen = String::new();
    std::io::Read::read_to_string(&mut watch.stdout.take().unwrap(), &mut seen).unwrap();
    watch.wait().unwrap();
    assert_has(&seen, &["Ready,SchedulingDisabled"]);
    lab.end().await;
}
