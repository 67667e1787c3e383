//! A cluster of three nodes, asked by curl: forwarding, nodes that fail, quorum, migration, HA.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::process::Command;
use std::time::{Duration, Instant};

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::members::Outage;
use mock_pve::world::seed::{NodeSeed, Seed, StorageSeed, VmSeed};
use serde_json::{Value, json};

fn vm(vmid: u32, node: &str, status: &str, config: &[(&str, &str)]) -> VmSeed {
    VmSeed {
        vmid,
        node: Some(node.to_owned()),
        status: Some(status.to_owned()),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect(),
        ..VmSeed::default()
    }
}

async fn begin(vms: Vec<VmSeed>) -> Running {
    let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
    let mut seed = Seed {
        nodes: vec![node("pve1"), node("pve2"), node("pve3")],
        cluster_name: Some("lab".to_owned()),
        vms,
        ..Seed::single_node()
    };
    seed.storages.push(StorageSeed {
        storage: "nfs".to_owned(),
        kind: "nfs".to_owned(),
        options: json!({"content": "images"}).as_object().cloned().unwrap(),
        ..StorageSeed::default()
    });
    seed.storages.push(StorageSeed {
        storage: "tank".to_owned(),
        kind: "zfspool".to_owned(),
        options: json!({"pool": "tank", "content": "images"}).as_object().cloned().unwrap(),
        ..StorageSeed::default()
    });
    serve::start(Options { seed, time_scale: 200.0, ..Options::default() }).await.unwrap()
}

struct Answer {
    status: u16,
    reason: String,
    body: Value,
}

/// Asks node number `node`, as its own certificate says; 0 is a connection that failed.
async fn ask(running: &Running, node: usize, method: &str, path: &str, form: &[&str]) -> Answer {
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-D", "/dev/stderr", "--noproxy", "*", "-m", "30", "-X", method]).arg("--cacert");
    curl.arg(&running.ready.ca_file).arg("-H").arg(format!("Authorization: PVEAPIToken={id}={secret}"));
    for pair in form {
        curl.arg("--data-urlencode").arg(pair);
    }
    curl.arg(format!("https://{}/api2/json{path}", running.ready.nodes[node].api));
    let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
    let head = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut words = head.lines().next().unwrap_or_default().splitn(3, ' ').skip(1);
    Answer {
        status: words.next().filter(|_| head.starts_with("HTTP")).and_then(|word| word.parse().ok()).unwrap_or(0),
        reason: words.next().unwrap_or_default().trim_end().to_owned(),
        body: serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |mut body| body["data"].take()),
    }
}

async fn fine(running: &Running, method: &str, path: &str, form: &[&str]) -> Value {
    let answer = ask(running, 0, method, path, form).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.reason);
    answer.body
}

async fn task(running: &Running, method: &str, path: &str, form: &[&str]) -> (String, String) {
    let upid = fine(running, method, path, form).await.as_str().unwrap().to_owned();
    (running.world().task_end(&upid, Duration::from_secs(20)).await.unwrap(), upid)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_answers_for_all_until_one_is_down_or_the_majority_is_gone() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let running = begin(vec![vm(100, "pve2", "running", &[])]).await;
    let prints: Vec<&str> = running.ready.nodes.iter().map(|node| node.fingerprint.as_str()).collect();
    assert!(prints[0] != prints[1] && prints[1] != prints[2]);
    for node in 0..3 {
        assert_eq!(ask(&running, node, "GET", "/nodes/pve2/qemu/100/status/current", &[]).await.body["vmid"], 100);
        let own = ask(&running, node, "GET", "/cluster/status", &[]).await.body;
        let local = own.as_array().unwrap().iter().find(|entry| entry["local"] == 1).unwrap();
        assert_eq!(local["name"], running.ready.nodes[node].name);
    }
    running.world().take_down("pve2", Outage::Off);
    assert_eq!(ask(&running, 1, "GET", "/version", &[]).await.status, 0, "it has no power");
    let refused = ask(&running, 0, "GET", "/nodes/pve2/qemu/100/config", &[]).await;
    assert_eq!((refused.status, refused.reason.as_str()), (595, "No route to host"));
    // The schema is looked at by the node, who is not there.
    assert_eq!(ask(&running, 0, "PUT", "/nodes/pve2/qemu/100/config", &["nonsense=1"]).await.status, 595);
    let nodes = fine(&running, "GET", "/nodes", &[]).await;
    let shown = nodes.as_array().unwrap().iter().find(|node| node["node"] == "pve2").unwrap();
    assert!(shown["status"] == "offline" && shown.get("maxmem").is_none(), "{shown}");
    let status = fine(&running, "GET", "/cluster/status", &[]).await;
    let entry = |name: &str| status.as_array().unwrap().iter().find(|entry| entry["name"] == name).cloned().unwrap();
    assert!(entry("lab")["quorate"] == 1 && entry("pve2")["online"] == 0 && entry("pve3")["online"] == 1);
    let vms = fine(&running, "GET", "/cluster/resources?type=vm", &[]).await;
    assert!(vms[0]["status"] == "unknown" && vms[0].get("name").is_none(), "{vms}");

    running.world().take_down("pve3", Outage::Off);
    let refused = ask(&running, 0, "POST", "/nodes/pve1/qemu", &["vmid=200"]).await;
    assert_eq!((refused.status, refused.reason.as_str()), (500, "cluster not ready - no quorum?"));
    assert_eq!(fine(&running, "GET", "/cluster/status", &[]).await[0]["quorate"], 0);
    running.world().bring_up("pve3");
    running.world().bring_up("pve2");
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu", &["vmid=200"]).await.0, "OK");
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(&running, 1, "GET", "/version", &[]).await.status != 200 {
        assert!(Instant::now() < deadline, "pve2 doesn't come back");
    }
    running.world().take_down("pve2", Outage::Hangs);
    let refused = ask(&running, 0, "GET", "/nodes/pve2/status", &[]).await;
    assert_eq!((refused.status, refused.reason.as_str()), (596, "Connection timed out"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_leaves_its_node_over_shared_storage_or_by_migration() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let local = [("template", "1"), ("scsi0", "local-lvm:base-900-disk-0,size=8M"), ("boot", "order=scsi0")];
    let shared = [("template", "1"), ("scsi0", "nfs:901/base-901-disk-0.raw,size=8M"), ("boot", "order=scsi0")];
    let running = begin(vec![vm(900, "pve1", "stopped", &local), vm(901, "pve1", "stopped", &shared)]).await;
    let clone = "/nodes/pve1/qemu/900/clone";
    for (form, reason) in [
        (&["newid=101", "target=pve2"][..], "can't clone VM to node 'pve2' (VM uses local storage)"),
        (&["newid=101", "target=pve2", "full=1", "storage=local-lvm"], "can't clone to non-shared storage 'local-lvm'"),
        (
            &["newid=101", "target=pve2", "full=1", "storage=nfs"],
            "can't clone VM to node 'pve2' (VM uses local storage)",
        ),
        (&["newid=101", "target=pve9"], "no such cluster node 'pve9'"),
        (&["newid=101", "storage=nfs"], "parameter 'storage' not allowed for linked clones"),
    ] {
        let refused = ask(&running, 0, "POST", clone, form).await;
        assert_eq!((refused.status, refused.reason.as_str()), (500, reason), "{form:?}");
    }
    // Another node doesn't have the template at all.
    let refused = ask(&running, 0, "POST", "/nodes/pve2/qemu/900/clone", &["newid=101"]).await;
    assert_eq!(refused.status, 500, "{}", refused.reason);

    let form = ["newid=102", "target=pve2", "full=1", "storage=nfs"];
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu/901/clone", &form).await.0, "OK");
    let config = fine(&running, "GET", "/nodes/pve2/qemu/102/config", &[]).await;
    assert_eq!(config["scsi0"], "nfs:102/vm-102-disk-0.raw,size=8M");
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu/901/clone", &["newid=103", "target=pve3"]).await.0, "OK");
    let config = fine(&running, "GET", "/nodes/pve3/qemu/103/config", &[]).await;
    assert_eq!(config["scsi0"], "nfs:901/base-901-disk-0.raw/103/vm-103-disk-0.qcow2,size=8M");

    assert_eq!(task(&running, "POST", clone, &["newid=101", "full=1"]).await.0, "OK");
    let before = fine(&running, "GET", "/nodes/pve1/qemu/101/migrate?target=pve3", &[]).await;
    assert_eq!(before["allowed_nodes"], json!(["pve2", "pve3"]), "{before}");
    assert_eq!(before["local_disks"][0]["volid"], "local-lvm:vm-101-disk-0");
    let (status, upid) = task(&running, "POST", "/nodes/pve1/qemu/101/migrate", &["target=pve3"]).await;
    assert_eq!(status, "OK");
    assert!(upid.starts_with("UPID:pve1:") && upid.contains(":qmigrate:101:"), "{upid}");
    assert_eq!(
        fine(&running, "GET", "/nodes/pve3/qemu/101/config", &[]).await["scsi0"],
        "local-lvm:vm-101-disk-0,size=8M"
    );
    let content = fine(&running, "GET", "/nodes/pve3/storage/local-lvm/content", &[]).await;
    assert_eq!(content[0]["volid"], "local-lvm:vm-101-disk-0");
    let content = fine(&running, "GET", "/nodes/pve1/storage/local-lvm/content", &[]).await;
    assert_eq!(content.as_array().unwrap().len(), 1, "only the template's is left: {content}");
    assert_eq!(fine(&running, "GET", "/nodes/pve2/storage/local-lvm/content", &[]).await, json!([]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ha_manager_has_its_way_until_it_is_told_otherwise() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let local = vm(101, "pve1", "running", &[("scsi0", "local-lvm:vm-101-disk-0,size=1M")]);
    let running = begin(vec![vm(100, "pve2", "running", &[]), local]).await;
    let world = running.world();
    fine(&running, "POST", "/cluster/ha/groups", &["group=all", "nodes=pve1,pve2:2"]).await;
    fine(&running, "POST", "/cluster/ha/resources", &["sid=100", "group=all", "max_restart=2"]).await;
    let twice = ask(&running, 0, "POST", "/cluster/ha/resources", &["sid=vm:100"]).await;
    assert_eq!(twice.reason, "create resource failed: resource ID 'vm:100' already defined");
    let listed = fine(&running, "GET", "/cluster/ha/resources", &[]).await;
    assert_eq!(
        (&listed[0]["sid"], &listed[0]["state"], &listed[0]["group"]),
        (&json!("vm:100"), &json!(null), &json!("all")),
        "what was not said stays unsaid"
    );

    world.guest_powered_off(100);
    until("the manager doesn't start it again", || world.pid_of(100).is_some()).await;
    let (status, upid) = task(&running, "POST", "/nodes/pve2/qemu/100/status/stop", &[]).await;
    assert!(status == "OK" && upid.contains(":hastop:100:"), "{upid}");
    until("it runs on", || world.pid_of(100).is_none()).await;
    assert_eq!(fine(&running, "GET", "/cluster/ha/resources/vm:100", &[]).await["state"], "stopped");
    let refused = ask(&running, 0, "DELETE", "/nodes/pve2/qemu/100", &[]).await;
    assert_eq!(refused.reason, "unable to remove VM 100 - used in HA resources and purge parameter not set.");
    let refused = ask(&running, 0, "POST", "/nodes/pve2/qemu/100/status/stop", &["overrule-shutdown=1"]).await;
    assert_eq!(refused.status, 400);

    let (_, upid) = task(&running, "POST", "/nodes/pve2/qemu/100/status/start", &[]).await;
    assert!(upid.contains(":hastart:100:"), "{upid}");
    until("it isn't started", || world.pid_of(100).is_some()).await;
    let shown = fine(&running, "GET", "/cluster/ha/status/current", &[]).await;
    let kinds: Vec<&str> = shown.as_array().unwrap().iter().filter_map(|entry| entry["type"].as_str()).collect();
    assert_eq!(kinds, ["quorum", "master", "lrm", "lrm", "lrm", "service"]);
    let (_, upid) = task(&running, "POST", "/nodes/pve2/qemu/100/migrate", &["target=pve1", "online=1"]).await;
    assert!(upid.contains(":hamigrate:100:"), "{upid}");
    until("it isn't moved", || world.state().vms[&100].node == "pve1").await;
    assert!(world.pid_of(100).is_some());
    // What the manager moves takes its local disks along.
    fine(&running, "POST", "/cluster/ha/resources", &["sid=101", "state=started"]).await;
    fine(&running, "POST", "/cluster/ha/resources/vm:101/migrate", &["node=pve3"]).await;
    until("its disk keeps it", || world.state().vms[&101].node == "pve3").await;
    // Whoever is relocated is shut down, moved, and started where he then is.
    let before = world.pid_of(101);
    fine(&running, "POST", "/cluster/ha/resources/vm:101/relocate", &["node=pve1"]).await;
    until("it isn't relocated", || world.state().vms[&101].node == "pve1" && world.pid_of(101).is_some()).await;
    assert_ne!(world.pid_of(101), before);
    let downs = world.state().tasks.by_upid.keys().filter(|upid| upid.contains(":qmshutdown:101:")).count();
    assert_eq!(downs, 1);
    fine(&running, "DELETE", "/cluster/ha/resources/vm:101", &[]).await;

    // A node that burns down: its services come back elsewhere.
    world.take_down("pve1", Outage::Off);
    until("nobody recovers it", || world.state().vms[&100].node != "pve1").await;
    until("it isn't started where it is now", || world.pid_of(100).is_some()).await;
    world.bring_up("pve1");
    let node = world.state().vms[&100].node.clone();
    let deadline = Instant::now() + Duration::from_secs(20);
    while ask(&running, 0, "GET", "/version", &[]).await.status != 200 {
        assert!(Instant::now() < deadline, "pve1 doesn't come back");
    }

    fine(&running, "PUT", "/cluster/ha/resources/vm:100", &["state=ignored"]).await;
    let (_, upid) = task(&running, "POST", &format!("/nodes/{node}/qemu/100/status/stop"), &[]).await;
    assert!(upid.contains(":qmstop:100:"), "{upid}");
    assert_eq!(task(&running, "DELETE", &format!("/nodes/{node}/qemu/100?purge=1"), &[]).await.0, "OK");
    assert_eq!(fine(&running, "GET", "/cluster/ha/resources", &[]).await, json!([]));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_job_is_made_seen_and_goes_some_time_after_it_is_deleted() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let running = begin(vec![vm(100, "pve1", "stopped", &[])]).await;
    let form = ["id=100-0", "type=local", "target=pve2"];
    let refused = ask(&running, 0, "POST", "/cluster/replication", &form).await;
    assert_eq!(refused.reason, "No replicatable volumes found");
    fine(&running, "PUT", "/nodes/pve1/qemu/100/config", &["scsi0=tank:1"]).await;
    fine(&running, "POST", "/cluster/replication", &form).await;
    until("the job doesn't run", || !running.world().state().replication_log("100-0").is_empty()).await;
    let status = fine(&running, "GET", "/nodes/pve1/replication/100-0/status", &[]).await;
    assert!(status["last_sync"].as_u64() > Some(0) && status["fail_count"] == 0, "{status}");
    assert!(status["next_sync"].as_u64() > status["last_sync"].as_u64(), "{status}");
    let jobs = fine(&running, "GET", "/cluster/replication", &[]).await;
    assert_eq!((&jobs[0]["guest"], &jobs[0]["target"]), (&json!(100), &json!("pve2")));
    let refused = ask(&running, 0, "DELETE", "/nodes/pve1/qemu/100", &[]).await;
    assert_eq!(refused.reason, "There is a replication job '100-0' for guest '100' - Please remove that first.");
    fine(&running, "DELETE", "/cluster/replication/100-0", &[]).await;
    until("the job stays", || running.world().state().replication.is_empty()).await;
    assert_eq!(task(&running, "DELETE", "/nodes/pve1/qemu/100", &[]).await.0, "OK");
    running.stop().await;
}
