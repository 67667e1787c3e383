//! The real talosctl against machines that `serve` plays: every command that a rebuild's owner types.
//!
//! `RECAST_TEST_CLIENTS` names the folder with the program; without it the tests say that they are skipped (and fail where
//! `RECAST_REQUIRE_REAL_PARTS` is set).

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod lab;

use std::path::Path;
use std::time::{Duration, Instant};

use mock_pve::world::machine::Fault;
use serde_json::Value;

use crate::lab::Lab;

/// A machine that has no configuration and no data any more, and boots.
const FORGET: [&str; 8] = [
    "reset",
    "--graceful=false",
    "--reboot",
    "--wait=false",
    "--system-labels-to-wipe",
    "STATE",
    "--system-labels-to-wipe",
    "EPHEMERAL",
];

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
    for name in ["cp-01", "cp-02", "cp-03", "worker-01", "controlplane", "Talos (v1.13.8)"] {
        assert!(members.contains(name), "{members}");
    }
    let extensions = lab.on(11, &["get", "extensions"]).await;
    assert!(extensions.contains("schematic"), "{extensions}");
    let config = lab.on(11, &["get", "machineconfig", "-o", "yaml"]).await;
    assert!(config.contains("clusterName: lab"), "{config}");
    for (kind, there) in [
        ("machinestatus", "running"),
        ("nodename", "cp-01"),
        ("nodestatus", "true"),
        ("nodes", "true"),
        ("staticpods", "kube-apiserver"),
        ("staticpodstatus", "kube-scheduler-cp-01"),
        ("kubeletspec", "kubelet"),
        ("links", "eth0"),
        ("addresses", "eth0/"),
        ("routes", "eth0"),
        ("disks", "sda"),
        ("systemdisk", "sda"),
        ("discoveredvolumes", "EPHEMERAL"),
        ("volumestatus", "ready"),
        ("etcdmembers", "local"),
        ("endpoints", "kube-apiserver"),
        ("hostname", "cp-01"),
        ("services", "kubelet"),
        ("rd", "members"),
        ("manifests", "10-kube-proxy"),
        ("dv", "EPHEMERAL"),
        ("mc", "persistent"),
        ("addressspecs", "eth0/"),
        ("linkspecs", "eth0"),
        ("routespecs", "inet4/"),
        ("resolverspecs", "resolvers"),
        ("kubeprismconfigs", "7445"),
        ("nodelabelspecs", "node-role.kubernetes.io/control-plane"),
        ("discoveryconfigs", "cluster"),
        ("osrootsecrets", "os"),
        ("certsans", "k8s"),
        ("kubespanpeerstatuses", "LABEL"),
        ("swaps", "DEVICE"),
        ("devices", "Virtio network device"),
        ("blockdevices", "STATE"),
        ("volumeconfig", "EPHEMERAL"),
        ("volumestatus", "/var/lib/kubelet"),
        ("mountstatuses.block", "/system/state"),
        ("volumemountrequests", "sequencer/STATE"),
        ("kernelparams", "proc.sys.net.ipv4.ip_forward"),
        ("kernelparamdefaultspec", "proc.sys.kernel.pid_max"),
        ("env", "machined"),
        ("servicepids", "etcd"),
        ("etcfilespecs", "resolv.conf"),
        ("dnsupstreams", "#000"),
        ("dnsresolvecaches", "running"),
        ("admissioncontrolconfig", "admission-control"),
        ("auditpolicyconfig", "audit-policy"),
        ("authorizationconfig", "authorization"),
        ("kubeletsecrets", "kubelet"),
        ("registryconfig", "registries"),
        ("encryptionsalts", "salt"),
        ("adjtimestatus", "node"),
        ("ethtool", "eth0"),
        ("apiserviceconfigs", "api"),
        ("kubeprismstatuses", "k8s-loadbalancer"),
        ("platformconfigs", "active"),
        ("apicertificates", "api"),
        ("trustdcertificates", "trustd"),
        ("etcdsecrets", "etcd"),
        ("kubernetesdynamiccerts", "k8s-dynamic-certs"),
        ("kubernetessecrets", "k8s-certs"),
        ("extramanifestsconfigs", "extra-manifests"),
        ("routingrules", "inet4/32766"),
        ("sbomitems", "GPL-2.0-only"),
        // Nobody asked for what these would hold.
        ("siderolinkstatus", "CONNECTED"),
        ("seccompprofiles", "VERSION"),
        ("modules", "STATE"),
        ("nftableschain", "HOOK"),
    ] {
        let out = lab.on(11, &["get", kind]).await;
        assert!(out.contains(there), "get {kind}: {out}");
    }
    let json = lab.data(11, &["get", "machinestatus", "-o", "json"]).await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["spec"]["status"]["ready"], true, "{json}");
    // Its certificates are the same until it boots, and fit what they are for.
    let certificate = ["get", "etcdsecrets", "-o", "jsonpath={.spec.etcdAdmin.crt}"];
    let shown = lab.data(11, &certificate).await;
    assert_eq!(lab.data(11, &certificate).await, shown);
    assert_ne!(lab.data(12, &certificate).await, shown);
    let admin = lab.data(11, &["get", "kubernetessecrets", "-o", "jsonpath={.spec.adminKubeconfig}"]).await;
    let file = lab.path("shown-kubeconfig");
    std::fs::write(&file, admin).unwrap();
    assert!(lab.kubectl_as(&file, &["auth", "whoami"]).await.out.contains("talos:admin"));
    // A version counts the changes.
    let version = lab.data(11, &["get", "nodename", "-o", "jsonpath={.metadata.version}"]).await;
    assert_eq!(version.trim(), "1");
    let said = lab.refused(11, &["get", "toasters"]).await;
    assert!(said.contains("not registered"), "{said}");
    // Kinds of later versions aren't there, and readers see no secrets.
    let said = lab.refused(11, &["get", "bootids"]).await;
    assert!(said.contains("not registered"), "{said}");
    let said = lab.as_role("reader", &["-n", &lab.address(11), "get", "kubeletsecrets"]).await;
    assert!(!said.ok && (said.err + &said.out).contains("not authorized"));

    let out = lab.on(11, &["services"]).await;
    assert!(out.contains("etcd") && out.contains("Running") && out.contains("OK"), "{out}");
    let out = lab.on(11, &["service", "kubelet"]).await;
    assert!(out.contains("HEALTH") && out.contains("OK"), "{out}");
    assert!(lab.on(11, &["dmesg"]).await.contains("Linux version"));
    assert!(lab.on(11, &["logs", "etcd"]).await.contains("Health check successful"));
    assert!(lab.on(11, &["logs", "kubelet", "--tail", "1"]).await.lines().count() == 1);
    assert!(lab.refused(11, &["logs", "toaster"]).await.contains("not registered"));
    lab.watched(11, &["events", "--tail", "-1"], &["machine.MachineStatusEvent", "machine.SequenceEvent"]).await;
    lab.watched(11, &["dmesg", "--follow"], &["Linux version", "node cp-01 is ready"]).await;
    lab.watched(11, &["logs", "etcd", "--follow"], &["Health check successful"]).await;
    lab.watched(11, &["get", "services", "--watch"], &["etcd", "kubelet"]).await;
    let out = lab.refused(11, &["events", "--tail", "3", "--duration", "1s"]).await;
    assert!(out.contains("can't be specified at the same time"), "{out}");

    for (args, there) in [
        (vec!["containers"], "kubelet"),
        (vec!["containers", "-k"], "kube-apiserver"),
        (vec!["containers", "-k"], "SANDBOX_READY"),
        (vec!["containers", "-k"], "kube-proxy"),
        (vec!["stats"], "kubelet"),
        (vec!["read", "/proc/meminfo"], "MemAvailable:"),
        (vec!["memory"], "cp-01"),
        (vec!["mounts"], "/var"),
        (vec!["processes"], "containerd"),
        (vec!["read", "/proc/cmdline"], "talos.platform=nocloud"),
        (vec!["list", "/etc"], "os-release"),
        (vec!["list", "-l", "-r", "/etc/kubernetes"], "talos-kube-apiserver.yaml"),
        (vec!["usage", "/etc"], "."),
        (vec!["time"], "time.cloudflare.com"),
        (vec!["image", "list"], "kube-apiserver"),
        (vec!["cgroups", "--preset", "memory"], "podruntime"),
        (vec!["cgroups", "--preset", "cpu"], "kube-apiserver"),
        (vec!["cgroups", "--preset", "cpuset"], "0-1"),
        (vec!["read", "/sys/fs/cgroup/kubepods/cpu.pressure"], "some avg10=0.00"),
        (vec!["netstat"], ":2380"),
        (vec!["netstat", "-l", "-p"], "/etcd"),
        (vec!["inspect", "dependencies"], "cluster.MemberController"),
    ] {
        let address = lab.address(11);
        let said = lab.say(&[&["-n", &address], args.as_slice()].concat()).await;
        let there = if there == "cp-01" { address.as_str() } else { there };
        assert!(said.ok && said.out.contains(there), "{args:?}: {said:?}");
    }
    let worker = lab.on(21, &["containers", "-k"]).await;
    let id = worker.split_whitespace().find(|word| word.contains(":kube-proxy:")).expect(&worker).to_owned();
    assert!(lab.on(21, &["logs", "-k", &id]).await.contains("kube-proxy is ready"));
    let there = lab.path("etc");
    lab.on(11, &["copy", "/etc", &there]).await;
    assert!(Path::new(&there).join("kubernetes/manifests/talos-kube-apiserver.yaml").is_file());
    let said = lab.refused(11, &["pcap", "-i", "eth7"]).await;
    assert!(said.contains("interface \"eth7\" not found"), "{said}");
    let file = lab.path("eth0.pcap");
    lab.on(11, &["pcap", "-i", "eth0", "--duration", "1s", "-o", &file]).await;
    assert_eq!(std::fs::read(&file).unwrap()[..8], [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0]);
    let out = lab.on(11, &["support", "-O", &lab.path("support.zip")]).await;
    assert!(!out.contains("ERROR"), "{out}");

    let out = lab.on(11, &["etcd", "members"]).await;
    assert!(["cp-01", "cp-02", "cp-03"].iter().all(|name| out.contains(name)), "{out}");
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
    let out = lab.on(11, &["health", "--server=false", "--wait-timeout", "20s"]).await;
    assert!(out.contains("waiting for all k8s nodes to report ready: OK"), "{out}");
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
    assert!(lab.say(&["-e", &worker, "-n", &worker, "version"]).await.ok, "what is for itself isn't forwarded");
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_configurations() {
    let Some(lab) = Lab::begin("1.13.8", "1.35.1", 1, 1).await else { return };
    let config = lab.data(21, &["get", "machineconfig", "v1alpha1", "-o", "jsonpath={.spec}"]).await;
    let file = lab.path("worker.yaml");
    let config = format!("{}\n", config.trim_end());
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
    let config = lab.data(11, &["get", "machineconfig", "v1alpha1", "-o", "jsonpath={.spec}"]).await;
    std::fs::write(&file, &config).unwrap();
    let snapshot = lab.path("db.snapshot");
    lab.on(11, &["etcd", "snapshot", &snapshot]).await;
    let out = lab.refused(11, &["reset", "--timeout", "30s"]).await;
    assert!(out.contains("not enough started members"), "the last member can't leave: {out}");
    lab.healthy().await;
    lab.on(11, &FORGET).await;
    // Nobody configured an address, so it is the one that DHCP gives.
    let address = lab.maintenance_address(1100, 0).await;
    lab.until("its API answers", || ["-n", &address, "version", "--insecure"].map(str::to_owned).to_vec()).await;
    let said = lab.say(&["-n", &address, "get", "disks", "--insecure"]).await;
    assert!(said.ok && said.out.contains("sda"), "{said:?}");
    let said = lab.say(&["-n", &address, "reboot", "--insecure"]).await;
    assert!(!said.ok, "{said:?}");
    std::fs::write(lab.path("bad.yaml"), "machine: [").unwrap();
    let said = lab.say(&["-n", &address, "apply-config", "--insecure", "-f", &lab.path("bad.yaml")]).await;
    assert!(!said.ok && said.err.contains("error"), "{said:?}");
    for (how, told) in
        [("--dry-run", "without a reboot (skipped in dry-run)"), ("--mode=staged", "Staged configuration")]
    {
        let said = lab.say(&["-n", &address, "apply-config", "--insecure", "-f", &file, how]).await;
        assert!(said.ok && (said.out.clone() + &said.err).contains(told), "{said:?}");
    }
    let said = lab.say(&["-n", &address, "apply-config", "--insecure", "-f", &file]).await;
    assert!(said.ok, "it still waits: {said:?}");
    let address = lab.address(11);
    lab.until("bootstrapped", || {
        ["-n", &address, "bootstrap", "--recover-from", &snapshot].map(str::to_owned).to_vec()
    })
    .await;
    lab.healthy().await;
    let out = lab.refused(11, &["bootstrap"]).await;
    assert!(out.contains("etcd data directory is not empty"), "{out}");
    let out = lab.refused(21, &["bootstrap"]).await;
    assert!(out.contains("only available on control plane nodes"), "{out}");
    lab.on(21, &["shutdown", "--force", "--timeout", "1m"]).await;
    // It answers until it is off.
    let (since, address) = (std::time::Instant::now(), lab.address(21));
    let mut said = lab.say(&["-n", &address, "version"]).await;
    while said.ok && since.elapsed() < std::time::Duration::from_secs(30) {
        said = lab.say(&["-n", &address, "version"]).await;
    }
    assert!(!said.ok && said.err.contains("connection refused"), "{said:?}");
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_change() {
    let Some(lab) = Lab::begin("1.13.8", "1.35.1", 1, 1).await else { return };
    let (first, second) = (lab.address(11), lab.address(21));
    let nodes = ["--control-plane-nodes", &first, "--worker-nodes", &second];
    // Kubernetes' first, while nobody holds a connection that knows the old one.
    let file = lab.path("old-kubeconfig");
    lab.on(11, &["kubeconfig", "--merge=false", &file]).await;
    let mut watches = lab.start_kubectl(&file, &["get", "nodes", "--watch"]);
    let ask = ["rotate-ca", "--dry-run=false", "--talos=false", "--kubernetes=true"];
    let out = lab.on(11, &[&ask[..], &nodes[..]].concat()).await;
    assert!(out.contains("Removing old Kubernetes CA"), "{out}");
    assert!(lab.kubectl(&["get", "nodes"]).await.contains("worker-01"));
    assert!(!lab.kubectl_as(&file, &["get", "nodes"]).await.ok, "the old authority still counts");
    // Whoever trusts the new authority, and shows a certificate of the old, hears that from the server.
    let part = |text: &str, name: &str| {
        text.lines().find(|line| line.trim_start().starts_with(name)).map(|line| line.trim().to_owned()).unwrap()
    };
    let (old, fresh) =
        (std::fs::read_to_string(&file).unwrap(), std::fs::read_to_string(lab.path("kubeconfig")).unwrap());
    let trusts = "certificate-authority-data:";
    let mixed = lab.path("mixed-kubeconfig");
    std::fs::write(&mixed, old.replace(&part(&old, trusts), &part(&fresh, trusts))).unwrap();
    let said = lab.kubectl_as(&mixed, &["get", "nodes"]).await;
    assert!(!said.ok && said.err.contains("Unauthorized"), "{said:?}");
    // Nor does a connection go on that was open before.
    let since = Instant::now();
    while watches.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < Duration::from_secs(20), "a watch outlived the authority of its connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let new = lab.path("new-admin");
    let ask = ["rotate-ca", "--dry-run=false", "--talos=true", "--kubernetes=false", "--output", &new];
    lab.on(11, &[&ask[..], &nodes[..]].concat()).await;
    let said = lab.say(&["-n", &first, "version"]).await;
    assert!(!said.ok, "the old talosconfig still counts: {said:?}");
    for address in [&first, &second] {
        let said = lab.as_role("new-admin", &["-n", address.as_str(), "version"]).await;
        assert!(said.ok && said.out.contains("v1.13.8"), "{said:?}");
    }
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_anew() {
    let Some(lab) = Lab::begin("1.12.4", "1.34.1", 1, 0).await else { return };
    let file = lab.path("cp.yaml");
    let config = lab.data(11, &["get", "machineconfig", "v1alpha1", "-o", "jsonpath={.spec}"]).await;
    std::fs::write(&file, &config).unwrap();
    let before = lab.kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"]).await;
    lab.on(11, &FORGET).await;
    let address = lab.maintenance_address(1100, 0).await;
    lab.until("its API answers", || ["-n", &address, "get", "links", "--insecure"].map(str::to_owned).to_vec()).await;
    let said = lab.say(&["-n", &address, "version", "--insecure"]).await;
    assert!(!said.ok && said.err.contains("API is not implemented in maintenance mode"), "{said:?}");
    let said = lab.say(&["-n", &address, "apply-config", "--insecure", "-f", &file]).await;
    assert!(said.ok, "{said:?}");
    let address = lab.address(11);
    lab.until("bootstrapped", || ["-n", &address, "bootstrap"].map(str::to_owned).to_vec()).await;
    lab.healthy().await;
    let out = lab.on(11, &["etcd", "members"]).await;
    assert!(out.contains("cp-01"), "{out}");
    let after = lab.kubectl(&["get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"]).await;
    assert_ne!(before, after, "it is another cluster");
    // What was sent is whole, or it isn't taken.
    std::fs::write(lab.path("half"), vec![7; 70_000]).unwrap();
    let out = lab.refused(11, &["bootstrap", "--recover-from", &lab.path("half")]).await;
    assert!(out.contains("invalid database"), "{out}");
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
    // One at a time, nothing was lost; all at once, the double knows who did it.
    assert_eq!(lab.running.world().quorum_losses(), []);
    lab.running.world().machine_fault(2100, Fault::NeverComesBack);
    let out = lab.refused(21, &["reboot", "--timeout", "10s"]).await;
    assert!(out.contains("unavailable") || out.contains("deadline"), "{out}");
    let out = lab.refused(11, &["health", "--wait-timeout", "3s"]).await;
    assert!(out.contains("deadline exceeded"), "{out}");
    for host in [12, 13] {
        lab.on(host, &["shutdown", "--force", "--timeout", "1m"]).await;
    }
    let lost = lab.running.world().quorum_losses();
    assert_eq!(lost.iter().map(|loss| (loss.vmid, loss.left)).collect::<Vec<_>>(), [(1102, 1)]);
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrades_by_the_client() {
    let Some(lab) = Lab::begin("1.13.8", "1.35.1", 3, 2).await else { return };
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
    // What a budget protects keeps a node from going down.
    let budget = |least: &str| format!(r#"{{"spec":{{"minAvailable":{least}}}}}"#);
    lab.kubectl(&["patch", "pdb", "web", "-p", &budget("2")]).await;
    let out = lab.refused(22, &["upgrade", "-i", &image("v1.13.9"), "--drain-timeout", "4s", "--timeout", "1m"]).await;
    assert!(out.contains("disruption budget") || out.contains("drain"), "{out}");
    assert_eq!(lab.runs(22).await, "v1.13.8");
    lab.kubectl(&["patch", "pdb", "web", "-p", &budget("1")]).await;
    // talosctl leaves the node closed.
    assert!(lab.kubectl(&["get", "nodes"]).await.contains("SchedulingDisabled"));
    lab.kubectl(&["uncordon", "worker-02"]).await;
    lab.healthy().await;
    lab.on(22, &["upgrade", "-i", &image("v1.13.9"), "--timeout", "1m"]).await;
    assert_eq!(lab.runs(22).await, "v1.13.9");
    let out = lab.refused(22, &["rollback", "--nodes", "127.0.0.99"]).await;
    assert!(out.contains("connection refused"), "{out}");
    assert_eq!(lab.running.world().quorum_losses(), []);
    lab.running.stop().await;
}

/// Kubernetes goes up by one minor, with the manifests in the way of that Talos.
async fn kubernetes_goes_up(talos: &str) {
    let Some(lab) = Lab::begin(talos, "1.34.1", 1, 1).await else { return };
    let out = lab.on(11, &["upgrade-k8s", "--to", "1.35.0", "--dry-run"]).await;
    assert!(out.contains("update kubelet: 1.34.1 -> 1.35.0") && out.contains("skipped in dry-run"), "{out}");
    assert!(!lab.kubectl(&["get", "nodes"]).await.contains("v1.35.0"));
    let out = lab.refused(11, &["upgrade-k8s", "--to", "1.37.0"]).await;
    assert!(out.contains("unsupported upgrade path"), "{out}");
    let out = lab.refused(11, &["upgrade-k8s", "--to", "1.34.99"]).await;
    assert!(out.contains("not found"), "nothing was changed yet: {out}");
    let out = lab.on(11, &["upgrade-k8s", "--to", "1.35.0"]).await;
    assert!(out.contains("updating kubelet to version \"1.35.0\""), "{out}");
    let nodes = lab.kubectl(&["get", "nodes"]).await;
    assert_eq!(nodes.matches("v1.35.0").count(), 2, "{nodes}");
    let images = "-o=jsonpath={.items[*].spec.containers[*].image}";
    let images = lab.kubectl(&["get", "pods", "-n", "kube-system", images]).await;
    for name in ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        assert!(images.contains(&format!("{name}:v1.35.0")), "{images}");
    }
    assert!(!images.contains("v1.34.1"), "{images}");
    assert!(lab.kubectl(&["version"]).await.contains("Server Version: v1.35.0"));
    lab.healthy().await;
    lab.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_goes_up_with_an_inventory() {
    kubernetes_goes_up("1.13.8").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubernetes_goes_up_without_an_inventory() {
    kubernetes_goes_up("1.12.4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_names_count_without_a_restart() {
    let Some(lab) = Lab::begin("1.13.8", "1.36.1", 1, 0).await else { return };
    lab.kubectl(&["get", "ns"]).await;
    let file = lab.path("kubeconfig");
    let named = ["--tls-server-name", "api.example.org", "get", "ns"];
    let said = lab.kubectl_as(&file, &named).await;
    assert!(!said.ok && said.err.contains("certificate is valid for"), "{said:?}");
    let pods = ["get", "pods", "-n", "kube-system", "kube-apiserver-cp-01", "-o=jsonpath={.metadata.uid}"];
    let before = lab.kubectl(&pods).await;
    lab.on(11, &["patch", "mc", "-p", r#"{"cluster":{"apiServer":{"certSANs":["api.example.org"]}}}"#]).await;
    let began = Instant::now();
    while !lab.kubectl_as(&file, &named).await.ok {
        assert!(began.elapsed() < Duration::from_secs(20), "the API server goes on with its certificate");
    }
    assert_eq!(lab.kubectl(&pods).await, before);
    let names = lab.data(11, &["get", "certsans", "k8s", "-o", "yaml"]).await;
    assert!(names.contains("api.example.org") && names.contains("kubernetes.default.svc.cluster.local"), "{names}");
    lab.running.stop().await;
}
