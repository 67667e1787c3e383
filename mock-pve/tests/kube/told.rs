//! What a cluster tells by itself: its events, how its kinds are described, and how its parts are.

use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::lab::{Lab, assert_has};

const APP: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: shop, image: 'registry.example/shop:1'}]}
";

/// Asks until all of these are in the answer: events are written after what they tell of.
#[track_caller]
fn told(lab: &Lab, args: &[&str], parts: &[&str]) {
    let began = Instant::now();
    loop {
        let said = lab.says(args);
        if parts.iter().all(|part| said.contains(part)) {
            return;
        }
        if began.elapsed() > Duration::from_secs(30) {
            return assert_has(&said, parts);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_is_told_what_happens() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    lab.file("app.yaml", APP);
    lab.says(&["apply", "-f", "app.yaml"]);
    lab.says(&["rollout", "status", "deployment/shop", "--timeout=30s"]);
    let all = ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled", "Pulled", "Created", "Started container shop"];
    told(&lab, &["get", "events"], &all);
    told(
        &lab,
        &["describe", "deployment", "shop"],
        &["deployment-controller", "Scaled up replica set shop-", "from 0 to 2"],
    );
    // kubectl shows events where it describes one thing only.
    let pod = lab.says(&["get", "pods", "-l", "app=shop", "-o=jsonpath={.items[0].metadata.name}"]);
    told(&lab, &["describe", "pod", &pod], &["default-scheduler", "Successfully assigned default/shop-", "kubelet"]);
    told(&lab, &["events", "--for", "deployment/shop"], &["ScalingReplicaSet"]);
    told(&lab, &["get", "events.events.k8s.io"], &["ScalingReplicaSet"]);
    told(&lab, &["get", "events", "-o", "wide"], &["SUBOBJECT", "SOURCE", "spec.containers{shop}", "COUNT"]);
    assert!(lab.says(&["get", "events"]).starts_with("LAST SEEN   TYPE"));
    // Kubelets say when their node is closed; the same news again is counted.
    lab.says(&["cordon", "worker-01"]);
    told(&lab, &["describe", "node", "worker-01"], &["Node worker-01 status is now: NodeNotSchedulable"]);
    lab.says(&["uncordon", "worker-01"]);
    told(&lab, &["describe", "node", "worker-01"], &["Node worker-01 status is now: NodeSchedulable"]);
    lab.says(&["cordon", "worker-01"]);
    let count = ["get", "events", "--field-selector=reason=NodeNotSchedulable", "-o=jsonpath={.items[*].count}"];
    told(&lab, &count, &["2"]);
    lab.says(&["run", "broken", "--image=registry.invalid/a:1"]);
    told(&lab, &["describe", "pod", "broken"], &["Failed to pull image \"registry.invalid/a:1\"", "ImagePullBackOff"]);
    lab.says(&[
        "run",
        "lost",
        "--image=registry.example/a:1",
        r#"--overrides={"spec":{"nodeSelector":{"disk":"fast"}}}"#,
    ]);
    told(&lab, &["describe", "pod", "lost"], &["Warning", "FailedScheduling", "0/3 nodes are available"]);
    let claim = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: disk}\nspec: {accessModes: [ReadWriteOnce], \
                 resources: {requests: {storage: 1Gi}}}\n";
    lab.file("claim.yaml", claim);
    lab.says(&["create", "-f", "claim.yaml"]);
    told(&lab, &["describe", "pvc", "disk"], &["FailedBinding", "no storage class is set"]);
    lab.says(&["scale", "deployment", "shop", "--replicas=1"]);
    told(&lab, &["get", "events"], &["Scaled down replica set shop-", "from 2 to 1", "SuccessfulDelete", "Killing"]);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_explains_kinds_and_asks_how_parts_are() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    let spec = lab.says(&["explain", "node.spec"]);
    assert_has(&spec, &["KIND:       Node", "FIELD: spec <NodeSpec>", "taints\t<[]Taint>", "unschedulable\t<boolean>"]);
    let containers = lab.says(&["explain", "pod.spec.containers", "--recursive"]);
    assert_has(
        &containers,
        &["name\t<string> -required-", "limits\t<map[string]Quantity>", "fieldRef\t<ObjectFieldSelector>"],
    );
    assert_has(
        &lab.says(&["explain", "deploy.spec.strategy.rollingUpdate"]),
        &["GROUP:      apps", "maxSurge\t<IntOrString>"],
    );
    assert_has(&lab.says(&["explain", "lease.metadata.creationTimestamp"]), &["<string>"]);
    assert_has(&lab.refuses(&["explain", "pod.spec.colour"]), &["field \"colour\" does not exist"]);
    lab.file("app.yaml", APP);
    lab.says(&["apply", "-f", "app.yaml"]);
    assert_has(&lab.says(&["apply", "-f", "app.yaml"]), &["deployment.apps/shop unchanged"]);
    lab.file("wrong.yaml", &APP.replace("replicas: 2", "replica: 2"));
    assert_has(
        &lab.refuses(&["apply", "-f", "wrong.yaml"]),
        &["strict decoding error: unknown field \"spec.replica\""],
    );
    // Lists are merged by what the description says: what somebody else added stays.
    lab.says(&["set", "env", "deployment/shop", "A=b"]);
    lab.file("app.yaml", &APP.replace("shop:1", "shop:2"));
    lab.says(&["apply", "-f", "app.yaml"]);
    let container = lab.says(&["get", "deployment", "shop", "-o=jsonpath={.spec.template.spec.containers}"]);
    assert_has(&container, &["registry.example/shop:2", r#"{"name":"A","value":"b"}"#]);
    assert_has(&lab.says(&["get", "deployment", "shop", "--subresource=scale"]), &["DESIRED", "AVAILABLE"]);
    let tried = lab.says(&["create", "configmap", "tried", "--dry-run=server", "-o", "yaml"]);
    assert!(tried.contains("uid:") && !tried.contains("resourceVersion"), "{tried}");
    let parts = lab.run(&["get", "componentstatuses"]);
    assert_has(&parts.out, &["controller-manager", "etcd-0", "Healthy", "ok"]);
    assert_has(&parts.err, &["Warning: v1 ComponentStatus is deprecated in v1.19+"]);
    assert_has(&lab.run(&["get", "endpoints"]).err, &["v1 Endpoints is deprecated in v1.33+"]);
    let metrics = lab.says(&["get", "--raw", "/metrics"]);
    assert_has(&metrics, &["apiserver_storage_objects{resource=\"nodes\"} 3", "git_version=\"v1.34.1\""]);
    assert_has(&lab.says(&["auth", "whoami"]), &["X509SHA256="]);
    assert_has(
        &lab.refuses(&["create", "token", "default", "--duration=5m"]),
        &["spec.expirationSeconds: Invalid value: 300: may not specify a duration less than 10 minutes"],
    );
    // Nothing runs in containers, and nobody pretends that it does.
    let shell = lab.refuses(&["exec", "store-0", "--", "ls"]);
    assert_has(&shell, &["error dialing backend: dial tcp 10.78.0.", ":10250: connect: connection refused"]);
    let pod = lab.says(&["get", "pod", "store-0", "-o", "yaml"]);
    assert_has(
        &pod,
        &["kube-api-access-", "mountPath: /var/run/secrets/kubernetes.io/serviceaccount", "qosClass: BestEffort"],
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_approved_is_issued_and_opens_what_its_group_may() {
    let Some(program) = real_parts::client("kubectl") else { return };
    let lab = Lab::begin(program).await;
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "readers");
    params.distinguished_name.push(rcgen::DnType::CommonName, "bob");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let named = |name: &str, usage: &str| {
        format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec: \
             {{request: {}, signerName: kubernetes.io/kube-apiserver-client, usages: [{usage}], expirationSeconds: 3600}}\n",
            encode(&request)
        )
    };
    lab.file("bob.yaml", &named("bob", "client auth"));
    lab.file("wrong.yaml", &named("wrong", "server auth"));
    lab.says(&["create", "-f", "bob.yaml", "-f", "wrong.yaml"]);
    assert_has(&lab.says(&["get", "csr", "bob"]), &["kube-apiserver-client", "admin", "60m", "Pending"]);
    // What it isn't for is approved in vain.
    lab.says(&["certificate", "approve", "wrong"]);
    told(&lab, &["get", "csr", "wrong"], &["Approved,Failed"]);
    lab.says(&["certificate", "approve", "bob"]);
    told(&lab, &["get", "csr", "bob"], &["Approved,Issued"]);
    let certificate = lab.says(&["get", "csr", "bob", "-o=jsonpath={.status.certificate}"]);
    lab.kubeconfig("bob", &certificate, &encode(&key.serialize_pem()));
    assert_has(&lab.run_as("bob", &["auth", "whoami"]).out, &["bob", "readers"]);
    let refused = lab.run_as("bob", &["get", "nodes"]);
    assert_has(&refused.err, &["User \"bob\" cannot list resource \"nodes\" in API group \"\" at the cluster scope"]);
    lab.says(&["create", "clusterrolebinding", "readers", "--clusterrole=cluster-admin", "--group=readers"]);
    assert_eq!(lab.run_as("bob", &["get", "nodes"]).code, 0);
    lab.end().await;
}
