//! The Kubernetes API of a cluster in the double: as the real kubectl sees it (`RECAST_TEST_CLIENTS=DIR`, where it is), and
//! what it says to requests that make no sense.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::machine::Authority;
use mock_pve::world::machine::pki::{self, Identity, Kind, Subject};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PROFILE: &str = r#"
name: lab
talos: {version: "1.12.4", kubernetes_version: "1.34.1", config_dir: lab, secrets_file: secrets.yaml, vip: {ip: 10.78.0.10}}
network: {api_endpoint: "10.78.0.10:6443", gateway: 10.78.0.1, prefix: 24}
nodes:
  controlplane:
    {count: 1, name_prefix: cp-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: cp-01, node: pve1, vmid: 1200, ip: 10.78.0.11}]}
  workers:
    {count: 2, name_prefix: worker-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: worker-01, node: pve1, vmid: 1210, ip: 10.78.0.21}, {name: worker-02, node: pve1, vmid: 1211, ip: 10.78.0.22}]}
tags: [talos, lab]
"#;

/// Where kubectl is, if it is anywhere.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn kubectl() -> Option<PathBuf> {
    let found =
        std::env::var_os("RECAST_TEST_CLIENTS").map(|dir| Path::new(&dir).join("kubectl")).filter(|path| path.exists());
    if found.is_none() {
        eprintln!("skipped: RECAST_TEST_CLIENTS names no folder with kubectl in it");
        assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "kubectl is required and not here");
    }
    found
}

/// A cluster that runs, and kubectl pointed at it.
struct Lab {
    running: Option<Running>,
    folder: tempfile::TempDir,
    program: PathBuf,
    address: String,
    authority: Authority,
    /// Held as long as the double listens.
    _networks: Vec<Loopback>,
}

/// What kubectl said.
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Lab {
    async fn begin(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lab")).unwrap();
        let secrets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/lab/secrets.yaml");
        let text = std::fs::read_to_string(&secrets).unwrap();
        std::fs::copy(secrets, folder.path().join("lab/secrets.yaml")).unwrap();
        std::fs::write(folder.path().join("lab.yaml"), PROFILE).unwrap();
        let Profiled { seed, networks } =
            Profiled::load(&folder.path().join("lab.yaml"), &std::env::temp_dir()).unwrap();
        let options = Options { seed, time_scale: 20.0, rng_seed: 7, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let machine = running.ready.machines.iter().find(|machine| machine.name == "cp-01").unwrap();
        let address = machine.dialled.to_string();
        let secrets: Value = serde_saphyr::from_str(&text).unwrap();
        let decode = |pointer: &str| {
            let text = secrets.pointer(pointer).unwrap().as_str().unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        let authority = Authority { certificate: decode("/certs/k8s/crt"), key: decode("/certs/k8s/key") };
        let lab =
            Self { running: Some(running), folder, program: program.into(), address, authority, _networks: networks };
        lab.identity("admin", &["system:masters"]);
        lab.identity("jane", &["developers"]);
        let began = Instant::now();
        while lab.get("/api/v1/nodes").await["items"].as_array().is_none_or(|nodes| nodes.len() < 3) {
            assert!(began.elapsed() < Duration::from_mins(1), "the API server never answered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lab
    }

    /// An answer to a request as it is written here, by somebody with a certificate, or without one.
    async fn raw(&self, certificate: Option<&Identity>, request: &[u8]) -> Option<(u16, Value)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            Some(made) => config.with_client_auth_cert(vec![made.certificate.clone()], made.key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(format!("{}:6443", self.address)).await.ok()?;
        let name = ServerName::try_from("10.78.0.11").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        stream.write_all(request).await.ok()?;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer that ends");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body.trim()).unwrap_or(Value::String(body.to_owned()))))
    }

    /// An administrator's certificate for so many days.
    fn admin(&self, days: u64) -> Identity {
        let subject = Subject::Client { name: Some("admin"), organizations: &["system:masters"] };
        pki::issue(&self.authority, Kind::P256, subject, days).unwrap()
    }

    async fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: \
             {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(Some(&self.admin(1)), request.as_bytes()).await.unwrap_or((0, Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "application/json", "").await.1
    }

    /// A kubeconfig for somebody with a certificate.
    fn identity(&self, name: &str, groups: &[&str]) {
        let subject = Subject::Client { name: Some(name), organizations: groups };
        let made = pki::issue(&self.authority, Kind::P256, subject, 1).unwrap();
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n- name: lab\n  cluster:\n    server: \
             https://{}:6443\n    tls-server-name: 10.78.0.11\n    certificate-authority-data: {}\nusers:\n- name: me\n  \
             user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: lab\n  context: \
             {{cluster: lab, user: me}}\n",
            self.address,
            encode(&self.authority.certificate),
            encode(&made.certificate_pem),
            encode(&made.key_pem)
        );
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn command(&self, who: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.folder.path().join(who))
            .current_dir(self.folder.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn start(&self, args: &[&str]) -> Child {
        self.command("admin", args).spawn().unwrap()
    }

    fn run_as(&self, who: &str, args: &[&str]) -> Said {
        let output = self.command(who, args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    fn run(&self, args: &[&str]) -> Said {
        self.run_as("admin", args)
    }

    /// What it says when all went well.
    #[track_caller]
    fn says(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "kubectl {}: {}{}", args.join(" "), said.out, said.err);
        said.out
    }

    /// What it says when it didn't.
    #[track_caller]
    fn refuses(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_ne!(said.code, 0, "kubectl {}: {}", args.join(" "), said.out);
        said.err
    }

    fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    async fn end(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
}

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
    let Some(program) = kubectl() else { return };
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
    let Some(program) = kubectl() else { return };
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
    assert_has(&changed.out, &["+        image: registry.example/shop:2"]);
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
    assert_has(
        &lab.refuses(&["create", "cm", "settings"]),
        &["(AlreadyExists): configmaps \"settings\" already exists"],
    );
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
async fn kubectl_drains_a_node_as_far_as_budgets_allow() {
    let Some(program) = kubectl() else { return };
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::too_many_lines, reason = "a list of requests")]
async fn requests_that_make_no_sense_get_an_answer_that_says_so() {
    let lab = Lab::begin("").await;
    let json = "application/json";
    let maps = "/api/v1/namespaces/default/configmaps";
    for (method, path, kind, body, status, part) in [
        ("GET", "/apis/none/v1/things", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/unicorns", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/nodes/a/b/c/d", json, "", 404, "the server could not find the requested resource"),
        ("GET", "/%ff%fe", json, "", 404, "the server could not find the requested resource"),
        ("POST", maps, json, "{", 400, "json parse error"),
        ("POST", maps, json, "[1]", 400, "the body is no object"),
        (
            "POST",
            maps,
            json,
            r#"{"metadata":7}"#,
            400,
            "cannot unmarshal number into Go struct field ConfigMap.metadata",
        ),
        ("POST", maps, json, r#"{"kind":"Pod","apiVersion":"v1"}"#, 400, "cannot be handled as a ConfigMap"),
        ("POST", maps, json, r#"{"metadata":{"name":"a","namespace":"b"}}"#, 400, "does not match the namespace sent"),
        (
            "POST",
            maps,
            json,
            r#"{"metadata":{}}"#,
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        ("POST", maps, "text/plain", "a", 415, "the body of the request was in an unknown format"),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            404,
            "namespaces \"none\" not found",
        ),
        (
            "POST",
            "/api/v1/configmaps",
            json,
            r#"{"metadata":{"name":"a"}}"#,
            405,
            "the server does not allow this method",
        ),
        ("PATCH", "/api/v1/nodes/cp-01", json, "{}", 415, "accepted media types include: application/json-patch+json"),
        (
            "PATCH",
            "/api/v1/nodes/cp-01",
            "application/json-patch+json",
            r#"[{"op":"fly"}]"#,
            422,
            "unexpected kind: fly",
        ),
        ("PATCH", "/api/v1/nodes/cp-01", "application/apply-patch+yaml", "a: b", 422, "fieldManager: Required value"),
        (
            "PATCH",
            "/api/v1/nodes/cp-01?fieldManager=x",
            "application/apply-patch+yaml",
            "a: [",
            400,
            "error decoding YAML",
        ),
        (
            "PATCH",
            "/api/v1/nodes/cp-01",
            "application/merge-patch+json",
            r#"{"spec":[1]}"#,
            400,
            "cannot unmarshal array",
        ),
        (
            "PUT",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"metadata":{"name":"other"}}"#,
            400,
            "does not match the name on the URL",
        ),
        (
            "DELETE",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"propagationPolicy":"Maybe"}"#,
            422,
            "supported values: \"Background\"",
        ),
        (
            "DELETE",
            "/api/v1/nodes/cp-01",
            json,
            r#"{"preconditions":{"uid":"x"}}"#,
            409,
            "Precondition failed: UID in precondition: x",
        ),
        ("DELETE", "/api/v1/namespaces/kube-system", json, "", 403, "this namespace may not be deleted"),
        ("GET", "/api/v1/pods?limit=many", json, "", 400, "strconv.ParseInt"),
        ("GET", "/api/v1/pods?continue=!!", json, "", 400, "continue key is not valid"),
        ("GET", "/api/v1/pods?labelSelector=a%20in%20(", json, "", 400, "unable to parse requirement"),
        ("GET", "/api/v1/pods?resourceVersion=x", json, "", 400, "invalid resource version"),
        ("GET", "/api/v1/pods?resourceVersion=999999999", json, "", 504, "Too large resource version"),
        ("GET", "/api/v1/pods?watch=1&resourceVersion=x", json, "", 400, "invalid resource version"),
        ("POST", "/api/v1/namespaces/default/pods/none/eviction", json, "{}", 404, "pods \"none\" not found"),
        ("BREW", "/api/v1/pods", json, "", 405, "the server does not allow this method"),
    ] {
        let (found, answer) = lab.ask(method, path, kind, body).await;
        assert_eq!(found, status, "{method} {path} {body}: {answer}");
        assert_eq!(
            (&answer["kind"], &answer["status"], &answer["code"]),
            (&json!("Status"), &json!("Failure"), &json!(status))
        );
        assert_has(answer["message"].as_str().unwrap(), &[part]);
    }
    let big = format!(r#"{{"metadata":{{"name":"a"}},"data":{{"a":"{}"}}}}"#, "x".repeat(4 << 20));
    let (found, _) = lab.ask("POST", maps, json, &big).await;
    assert!([0, 413].contains(&found), "{found}");
    // Who isn't known sees how it is, and nothing else; a certificate that isn't valid any more is as good as a wrong one.
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(lab.raw(None, get("/readyz").as_bytes()).await.unwrap(), (200, json!("ok")));
    let (code, answer) = lab.raw(None, get("/api/v1/nodes").as_bytes()).await.unwrap();
    let wanted = "nodes is forbidden: User \"system:anonymous\" cannot list resource \"nodes\" in API group \"\" at the cluster scope";
    assert_eq!((code, answer["message"].as_str()), (403, Some(wanted)));
    let (short, began) = (lab.admin(0), Instant::now());
    loop {
        let (code, answer) = lab.raw(Some(&short), get("/api/v1/nodes").as_bytes()).await.unwrap();
        if code == 401 {
            assert_eq!(answer["message"], "Unauthorized");
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{answer}");
    }
    let token = "GET /api/v1/nodes HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer a.b.c\r\n\r\n";
    assert_eq!(lab.raw(None, token.as_bytes()).await.unwrap().0, 401);
    lab.raw(Some(&lab.admin(1)), b"\x00\x01nonsense\r\n\r\n").await;
    // Pages of a list are of one moment.
    let first = lab.get("/api/v1/namespaces?limit=2").await;
    let next = first["metadata"]["continue"].as_str().unwrap().to_owned();
    assert_eq!(first["metadata"]["remainingItemCount"], 2);
    let made = r#"{"metadata":{"name":"aaa-later"}}"#;
    assert_eq!(lab.ask("POST", "/api/v1/namespaces", json, made).await.0, 201);
    let second = lab.get(&format!("/api/v1/namespaces?limit=10&continue={next}")).await;
    assert_eq!(second["items"].as_array().map(Vec::len), Some(2));
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    lab.end().await;
}
