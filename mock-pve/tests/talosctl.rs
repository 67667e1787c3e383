//! The real talosctl against machines that `serve` plays: every command that a rebuild's owner types.
//!
//! `RECAST_TEST_CLIENTS` names the folder with the program; without it the tests say that they are skipped (and fail where
//! `RECAST_REQUIRE_REAL_PARTS` is set).

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::machine::pki::{self, Kind, Subject};
use mock_pve::world::machine::{Authority, Fault};
use serde_json::Value;

/// The program, if it is anywhere.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
fn program() -> Option<PathBuf> {
    let found = std::env::var_os("RECAST_TEST_CLIENTS").map(|folder| Path::new(&folder).join("talosctl"));
    let found = found.filter(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "talosctl is required and not here");
        eprintln!("skipped: RECAST_TEST_CLIENTS names no folder with talosctl");
    }
    found
}

/// What a command said.
#[derive(Debug)]
struct Said {
    ok: bool,
    out: String,
    err: String,
}

/// A cluster that runs, and the means to talk to it.
struct Lab {
    program: PathBuf,
    running: Running,
    net: Loopback,
    dir: tempfile::TempDir,
}

impl Lab {
    async fn begin(talos: &str, kubernetes: &str, control_planes: u8, workers: u8) -> Option<Self> {
        let program = program()?;
        let dir = tempfile::tempdir().unwrap();
        let net =
            Loopback::take(&std::env::temp_dir(), std::process::id().wrapping_mul(31) + u32::from(control_planes))
                .unwrap();
        let base = net.net().network().to_string();
        let base = base.trim_end_matches(".0").to_owned();
        let secrets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/single/secrets.yaml");
        std::fs::create_dir(dir.path().join("configs")).unwrap();
        std::fs::copy(&secrets, dir.path().join("configs/secrets.yaml")).unwrap();
        let mut groups = String::new();
        for (group, prefix, first, count) in
            [("controlplane", "cp-", 11, control_planes), ("workers", "worker-", 21, workers)]
        {
            if count > 0 {
                let _ = write!(
                    groups,
                    "  {group}:\n    {{count: {count}, name_prefix: {prefix}, cores: 2, memory: 4096, disk: 10G, assignments: ["
                );
                for number in 0..count {
                    let vmid = u32::from(first) * 100 + u32::from(number);
                    let _ = write!(
                        groups,
                        "{{name: {prefix}{}, node: pve1, vmid: {vmid}, ip: {base}.{}}}, ",
                        number + 1,
                        first + number
                    );
                }
                groups.push_str("]}\n");
            }
        }
        let profile = format!(
            "name: lab\ntalos: {{version: \"{talos}\", kubernetes_version: \"{kubernetes}\", config_dir: configs, \
             secrets_file: secrets.yaml}}\nnetwork: {{api_endpoint: \"{base}.11:6443\", gateway: {base}.1, prefix: 24}}\n\
             nodes:\n{groups}tags: [talos, lab]\n"
        );
        std::fs::write(dir.path().join("lab.yaml"), profile).unwrap();
        let seed = Profiled::load(&dir.path().join("lab.yaml"), dir.path()).unwrap().seed;
        let options = Options { seed, time_scale: 40.0, rng_seed: 5, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let lab = Self { program, running, net, dir };
        lab.write_talosconfig("admin", &["os:admin"]);
        lab.write_talosconfig("reader", &["os:reader"]);
        lab.until("the cluster is healthy", || {
            let args = ["-n", &lab.address(11), "health", "--wait-timeout", "20s"].map(str::to_owned);
            args.to_vec()
        })
        .await;
        Some(lab)
    }

    fn address(&self, host: u8) -> String {
        let [a, b, c, _] = self.net.net().network().octets();
        format!("{a}.{b}.{c}.{host}")
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A talosconfig with a certificate for these roles.
    fn write_talosconfig(&self, name: &str, roles: &[&str]) {
        let text = std::fs::read_to_string(self.path("configs/secrets.yaml")).unwrap();
        let secrets: Value = serde_saphyr::from_str(&text).unwrap();
        let decode = |pointer: &str| {
            let text = secrets.pointer(pointer).and_then(Value::as_str).unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        let authority = Authority { certificate: decode("/certs/os/crt"), key: decode("/certs/os/key") };
        let subject = Subject::Client { name: None, organizations: roles };
        let issued = pki::issue(&authority, Kind::Ed25519, subject, 1).unwrap();
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = format!(
            "context: lab\ncontexts:\n    lab:\n        endpoints: [{}]\n        ca: {}\n        crt: {}\n        key: {}\n",
            self.address(11),
            encode(&authority.certificate),
            encode(&issued.certificate_pem),
            encode(&issued.key_pem)
        );
        std::fs::write(self.path(name), config).unwrap();
    }

    /// Runs talosctl with the talosconfig of that name.
    async fn as_role<S: AsRef<OsStr>>(&self, role: &str, args: &[S]) -> Said {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.dir.path()).env_remove("TALOSCONFIG").arg("--talosconfig").arg(self.path(role));
        command.args(args).env("KUBECONFIG", self.path("nobody"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    async fn say(&self, args: &[&str]) -> Said {
        self.as_role("admin", args).await
    }

    /// What a command prints that has to succeed, for the machine with that last octet.
    async fn on(&self, host: u8, args: &[&str]) -> String {
        let address = self.address(host);
        let said = self.say(&[&["-n", &address], args].concat()).await;
        assert!(said.ok, "talosctl {args:?}: {said:?}");
        said.out + &said.err
    }

    /// What a command says that has to fail.
    async fn refused(&self, host: u8, args: &[&str]) -> String {
        let address = self.address(host);
        let said = self.say(&[&["-n", &address], args].concat()).await;
        assert!(!said.ok, "talosctl {args:?} succeeded: {said:?}");
        said.out + &said.err
    }

    async fn until(&self, what: &str, args: impl Fn() -> Vec<String>) {
        let began = Instant::now();
        loop {
            let said = self.as_role("admin", &args()).await;
            if said.ok {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "never: {what}: {said:?}");
        }
    }

    async fn healthy(&self) {
        self.until("healthy again", || {
            ["-n", &self.address(11), "health", "--wait-timeout", "30s"].map(str::to_owned).to_vec()
        })
        .await;
    }

    async fn runs(&self, host: u8) -> String {
        let out = self.on(host, &["version", "--short"]).await;
        let server = out.split("Server:").nth(1).unwrap_or_default();
        server.split_whitespace().find(|word| word.starts_with("v1.")).unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::too_many_lines, reason = "a list of commands")]
async fn what_looks() {
    let Some(lab) = Lab::begin("1.13.8", "1.36.1", 3, 1).await else { return };
    let said = lab.on(11, &["version"]).await;
    assert!(said.contains("Tag:         v1.13.8"), "{said}");
    let several = [&lab.address(11), &lab.address(21)].map(String::as_str).join(",");
    let said = lab.say(&["-n", &several, "version", "--short"]).await;
    assert!(said.ok && said.out.matches("v1.13.8").count() == 2, "{said:?}");

    let members = lab.on(11, &["get", "members"]).await;
    for name in ["cp-1", "cp-2", "cp-3", "worker-1", "controlplane", "Talos (v1.13.8)"] {
        assert!(members.contains(name), "{members}");
    }
    let extensions = lab.on(11, &["get", "extensions"]).await;
    assert!(extensions.contains("schematic"), "{extensions}");
    let config = lab.on(11, &["get", "machineconfig", "-o", "yaml"]).await;
    assert!(config.contains("clusterName: lab"), "{config}");
    for (kind, there) in [
        ("machinestatus", "running"),
        ("nodename", "cp-1"),
        ("nodestatus", "true"),
        ("staticpods", "kube-apiserver"),
        ("staticpodstatus", "kube-scheduler-cp-1"),
        ("kubeletspec", "kubelet"),
        ("links", "eth0"),
        ("addresses", "eth0/"),
        ("routes", "eth0"),
        ("disks", "sda"),
        ("systemdisk", "sda"),
        ("discoveredvolumes", "EPHEMERAL"),
        ("volumestatus", "ready"),
        ("etcdmembers", "local"),
        ("kubernetesendpoints", "kubernetes"),
        ("hostname", "cp-1"),
        ("services", "kubelet"),
        ("rd", "members"),
        ("manifests", "10-kube-proxy"),
    ] {
        let out = lab.on(11, &["get", kind]).await;
        assert!(out.contains(there), "get {kind}: {out}");
    }
    let json = lab.on(11, &["get", "machinestatus", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["spec"]["status"]["ready"], true, "{json}");
    let said = lab.refused(11, &["get", "toasters"]).await;
    assert!(said.contains("not registered"), "{said}");

    let out = lab.on(11, &["services"]).await;
    assert!(out.contains("etcd") && out.contains("Running") && out.contains("OK"), "{out}");
    let out = lab.on(11, &["service", "kubelet"]).await;
    assert!(out.contains("HEALTH") && out.contains("OK"), "{out}");
    assert!(lab.on(11, &["dmesg"]).await.contains("Linux version"));
    assert!(lab.on(11, &["logs", "etcd"]).await.contains("Health check successful"));
    assert!(lab.on(11, &["logs", "kubelet", "--tail", "1"]).await.lines().count() == 1);
    assert!(lab.refused(11, &["logs", "toaster"]).await.contains("not registered"));
    let events = lab.on(11, &["events", "--tail", "-1", "--duration", "1s"]).await;
    assert!(events.contains("machine.MachineStatusEvent") && events.contains("machine.SequenceEvent"), "{events}");

    for (args, there) in [
        (vec!["containers"], "kubelet"),
        (vec!["containers", "-k"], "kube-apiserver"),
        (vec!["stats"], "kubelet"),
        (vec!["memory"], "cp-1"),
        (vec!["mounts"], "/var"),
        (vec!["processes"], "containerd"),
        (vec!["read", "/proc/cmdline"], "talos.platform=nocloud"),
        (vec!["list", "/etc"], "os-release"),
        (vec!["list", "-l", "-r", "/etc/kubernetes"], "talos-kube-apiserver.yaml"),
        (vec!["usage", "/etc"], "."),
        (vec!["time"], "time.cloudflare.com"),
        (vec!["image", "list"], "kube-apiserver"),
        (vec!["netstat"], ""),
        (vec!["inspect", "dependencies"], ""),
    ] {
        let address = lab.address(11);
        let said = lab.say(&[&["-n", &address], args.as_slice()].concat()).await;
        if there.is_empty() {
            // Not part of the double: said so, in Talos' words for an unknown call.
            assert!(!said.ok && said.err.contains("Unimplemented"), "{args:?}: {said:?}");
            continue;
        }
        let there = if there == "cp-1" { address.as_str() } else { there };
        assert!(said.ok && said.out.contains(there), "{args:?}: {said:?}");
    }
    let said = lab.refused(11, &["pcap", "-i", "eth7"]).await;
    assert!(said.contains("interface \"eth7\" not found"), "{said}");

    let out = lab.on(11, &["etcd", "members"]).await;
    assert!(["cp-1", "cp-2", "cp-3"].iter().all(|name| out.contains(name)), "{out}");
    let out = lab.on(11, &["etcd", "status"]).await;
    assert!(out.contains("RAFT TERM"), "{out}");
    lab.on(11, &["etcd", "alarm", "list"]).await;
    lab.on(11, &["etcd", "defrag"]).await;
    let file = lab.path("db.snapshot");
    let out = lab.on(11, &["etcd", "snapshot", &file]).await;
    assert!(out.contains("snapshot info: hash") && Path::new(&file).is_file(), "{out}");
    let out = lab.refused(21, &["etcd", "members"]).await;
    assert!(out.contains("only available on control plane nodes"), "{out}");

    let file = lab.path("kubeconfig");
    lab.on(11, &["kubeconfig", "--merge=false", &file]).await;
    assert!(std::fs::read_to_string(&file).unwrap().contains("admin@lab"));
    let out = lab.on(11, &["health", "--wait-timeout", "20s"]).await;
    assert!(out.contains("waiting for all k8s nodes to report schedulable: OK"), "{out}");
    let new = lab.path("new-talosconfig");
    lab.on(11, &["config", "new", "--roles", "os:reader", &new]).await;
    assert!(std::fs::read_to_string(&new).unwrap().contains("reader@lab"));

    // A reader reads, and no more.
    let address = lab.address(11);
    let said = lab.as_role("reader", &["-n", &address, "services"]).await;
    assert!(said.ok, "{said:?}");
    for args in [vec!["reboot", "--wait=false"], vec!["read", "/proc/cmdline"], vec!["get", "machineconfig"]] {
        let said = lab.as_role("reader", &[&["-n", address.as_str()], args.as_slice()].concat()).await;
        assert!(!said.ok && (said.err + &said.out).contains("not authorized"), "{args:?}");
    }
    // A worker forwards nothing.
    let worker = lab.address(21);
    let said = lab.say(&["-e", &worker, "-n", &address, "version"]).await;
    assert!(!said.ok && said.err.contains("no request forwarding"), "{said:?}");
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_configurations() {
    let Some(lab) = Lab::begin("1.13.8", "1.35.1", 1, 1).await else { return };
    let config = lab.on(21, &["get", "machineconfig", "v1alpha1", "-o", "jsonpath={.spec}"]).await;
    let file = lab.path("worker.yaml");
    std::fs::write(&file, &config).unwrap();
    let out = lab.on(21, &["apply-config", "-f", &file, "--dry-run"]).await;
    assert!(out.contains("No changes."), "{out}");
    let changed = config.replace("kubelet:v1.35.1", "kubelet:v1.35.2");
    assert_ne!(changed, config);
    std::fs::write(&file, &changed).unwrap();
    let out = lab.on(21, &["apply-config", "-f", &file, "--dry-run"]).await;
    assert!(out.contains('+') && out.contains("kubelet:v1.35.2") && out.contains("skipped in dry-run"), "{out}");
    let out = lab.on(21, &["apply-config", "-f", &file, "--mode", "staged"]).await;
    assert!(out.contains("Staged configuration"), "{out}");
    let out = lab.on(21, &["get", "machineconfig", "v1alpha1", "-o", "yaml"]).await;
    assert!(out.contains("kubelet:v1.35.1"), "staged counts only later");
    let out = lab.on(21, &["apply-config", "-f", &file, "--mode", "no-reboot"]).await;
    assert!(out.contains("without a reboot"), "{out}");
    let out = lab.on(21, &["get", "machineconfig", "v1alpha1", "-o", "yaml"]).await;
    assert!(out.contains("kubelet:v1.35.2"), "it counts once the call returns");
    let mut text = changed.replace("type: worker", "type: toaster");
    std::fs::write(&file, &text).unwrap();
    let out = lab.refused(21, &["apply-config", "-f", &file]).await;
    assert!(out.contains("unknown machine type"), "{out}");
    text = changed.replace("machine:", "machine:\n  toaster: 1\n");
    std::fs::write(&file, &text).unwrap();
    assert!(lab.refused(21, &["apply-config", "-f", &file]).await.contains("toaster"));
    // Tried, and taken back.
    std::fs::write(&file, &config).unwrap();
    let out = lab.on(21, &["apply-config", "-f", &file, "--mode", "try", "--timeout", "2s"]).await;
    assert!(out.contains("automatically reverted back in 2s"), "{out}");
    lab.until("the tried configuration is gone", || {
        let wanted = ["-n", &lab.address(21), "get", "machineconfig", "v1alpha1", "-o", "yaml"];
        wanted.map(str::to_owned).to_vec()
    })
    .await;
    let began = Instant::now();
    while !lab.on(21, &["get", "machineconfig", "v1alpha1", "-o", "yaml"]).await.contains("kubelet:v1.35.2") {
        assert!(began.elapsed() < Duration::from_secs(20), "a tried configuration stayed");
    }
    lab.healthy().await;

    // A control plane that is reset and given the same configuration again comes back from its snapshot.
    let config = lab.on(11, &["get", "machineconfig", "v1alpha1", "-o", "jsonpath={.spec}"]).await;
    std::fs::write(&file, &config).unwrap();
    let snapshot = lab.path("db.snapshot");
    lab.on(11, &["etcd", "snapshot", &snapshot]).await;
    let out = lab
        .on(
            11,
            &[
                "reset",
                "--graceful=false",
                "--reboot",
                "--system-labels-to-wipe",
                "STATE",
                "--system-labels-to-wipe",
                "EPHEMERAL",
                "--timeout",
                "1m",
            ],
        )
        .await;
    assert!(!out.contains("error"), "{out}");
    let address = lab.address(11);
    lab.until("maintenance mode", || {
        ["-n", &address, "apply-config", "--insecure", "-f", &file].map(str::to_owned).to_vec()
    })
    .await;
    lab.until("bootstrapped", || {
        ["-n", &address, "bootstrap", "--recover-from", &snapshot].map(str::to_owned).to_vec()
    })
    .await;
    lab.healthy().await;
    let out = lab.refused(11, &["bootstrap"]).await;
    assert!(out.contains("etcd data directory is not empty"), "{out}");
    lab.on(21, &["shutdown", "--force", "--timeout", "1m"]).await;
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_by_the_machine_itself() {
    let Some(lab) = Lab::begin("1.12.4", "1.34.1", 3, 1).await else { return };
    let empty = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    let image = |version: &str| format!("factory.talos.dev/nocloud-installer/{empty}:{version}");
    let out = lab.refused(21, &["upgrade", "-i", &image("v1.13.99"), "--timeout", "1m"]).await;
    assert!(out.contains("error validating installer image") && out.contains("not found"), "{out}");
    assert_eq!(lab.runs(21).await, "v1.12.4");
    for host in [21, 12] {
        lab.on(host, &["upgrade", "-i", &image("v1.13.9"), "--timeout", "1m"]).await;
        assert_eq!(lab.runs(host).await, "v1.13.9");
        lab.healthy().await;
    }
    let schematic = lab.on(21, &["get", "extensions"]).await;
    assert!(schematic.contains(empty), "{schematic}");
    // Back to what booted before.
    lab.on(21, &["rollback"]).await;
    let began = Instant::now();
    while lab.say(&["-n", &lab.address(21), "version", "--short"]).await.out.matches("v1.12.4").count() == 0 {
        assert!(began.elapsed() < Duration::from_secs(40), "never rolled back");
    }
    lab.healthy().await;
    // Staged: two boots, and the new version at the end.
    lab.on(21, &["upgrade", "--stage", "-i", &image("v1.13.9"), "--timeout", "1m"]).await;
    assert_eq!(lab.runs(21).await, "v1.13.9");
    lab.healthy().await;

    // What doesn't boot falls back, and talosctl is none the wiser.
    lab.running.world().machine_fault(1102, Fault::BootFails);
    lab.on(13, &["upgrade", "-i", &image("v1.13.9"), "--timeout", "1m"]).await;
    assert_eq!(lab.runs(13).await, "v1.12.4");
    lab.healthy().await;
    lab.running.world().machine_fault(1100, Fault::DiskBusy);
    let out = lab.refused(11, &["upgrade", "-i", &image("v1.13.9"), "--timeout", "1m"]).await;
    assert!(out.contains("device or resource busy"), "{out}");
    lab.healthy().await;
    assert_eq!(lab.runs(11).await, "v1.12.4");
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_by_the_client() {
    let Some(lab) = Lab::begin("1.13.8", "1.35.1", 3, 1).await else { return };
    let empty = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    let image = |version: &str| format!("factory.talos.dev/nocloud-installer/{empty}:{version}");
    let out = lab.refused(21, &["upgrade", "-i", &image("v1.13.99"), "--timeout", "1m"]).await;
    assert!(out.contains("not found"), "{out}");
    lab.on(21, &["upgrade", "-i", &image("v1.13.9"), "--timeout", "2m"]).await;
    assert_eq!(lab.runs(21).await, "v1.13.9");
    lab.healthy().await;
    lab.running.world().machine_fault(1101, Fault::DiskBusy);
    let out = lab.refused(12, &["upgrade", "-i", &image("v1.13.9"), "--drain=false", "--timeout", "1m"]).await;
    assert!(out.contains("device or resource busy") || out.contains("exit code"), "{out}");
    assert_eq!(lab.runs(12).await, "v1.13.8");
    lab.on(12, &["reboot", "--timeout", "1m"]).await;
    lab.healthy().await;
    let out = lab.on(11, &["upgrade-k8s", "--to", "1.36.1", "--dry-run"]).await;
    assert!(out.contains("1.35.1 -> 1.36.1") || out.contains("v1.36.1"), "{out}");
    lab.running.stop().await;
}
