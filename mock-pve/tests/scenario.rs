//! Scenarios against a double that is asked by curl and ssh: each fault as a client sees it, events, and the samples.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mock_pve::scenario::Scenario;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::seed::{NodeSeed, Seed, VmSeed};
use serde_json::{Value, json};

/// Three nodes, the VMs of the lab, and a template.
fn lab() -> Seed {
    let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
    let vm = |vmid: u32, node: &str, status: &str, name: &str| VmSeed {
        vmid,
        node: Some(node.to_owned()),
        status: Some(status.to_owned()),
        name: Some(name.to_owned()),
        config: [("scsi0".to_owned(), json!(format!("local-lvm:vm-{vmid}-disk-0,size=1G")))].into(),
    };
    let mut template = vm(102, "pve1", "stopped", "template");
    template.config =
        [("scsi0".to_owned(), json!("local-lvm:base-102-disk-0,size=1G")), ("template".to_owned(), json!(1))]
            .into_iter()
            .collect();
    Seed {
        nodes: vec![node("pve1"), node("pve2"), node("pve3")],
        cluster_name: Some("lab".to_owned()),
        vms: vec![
            template,
            vm(1200, "pve1", "running", "lab-cp-01"),
            vm(1210, "pve1", "running", "lab-worker-01"),
            vm(1211, "pve2", "stopped", "lab-worker-02"),
        ],
        ..Seed::single_node()
    }
}

async fn begin(scenario: &str) -> Running {
    follow(Scenario::parse("test.yaml", scenario).unwrap_or_else(|error| panic!("{error}")), lab()).await
}

async fn follow(scenario: Scenario, seed: Seed) -> Running {
    let options = Options { seed, time_scale: 100.0, scenario: Some(scenario), ..Options::default() };
    serve::start(options).await.unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

#[derive(Debug)]
struct Answer {
    /// 0: none came.
    status: u16,
    reason: String,
    /// curl's own exit code: 35 TLS broke, 52 empty reply, 56 reset.
    exit: i32,
    body: Value,
}

async fn curl(arguments: Vec<String>) -> Answer {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-D", "/dev/stderr", "--noproxy", "*", "-m", "20"]).args(arguments);
    let output = tokio::task::spawn_blocking(move || curl.output().unwrap()).await.unwrap();
    let head = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut words = head.lines().next().unwrap_or_default().splitn(3, ' ').skip(1);
    Answer {
        status: words.next().filter(|_| head.starts_with("HTTP")).and_then(|word| word.parse().ok()).unwrap_or(0),
        reason: words.next().unwrap_or_default().trim_end().to_owned(),
        exit: output.status.code().unwrap(),
        body: serde_json::from_slice::<Value>(&output.stdout).map_or(Value::Null, |mut body| body["data"].take()),
    }
}

async fn ask_at(running: &Running, node: usize, method: &str, path: &str, form: &[&str]) -> Answer {
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    let mut arguments = vec!["-X".to_owned(), method.to_owned(), "--cacert".to_owned()];
    arguments.push(running.ready.ca_file.display().to_string());
    arguments.extend(["-H".to_owned(), format!("Authorization: PVEAPIToken={id}={secret}")]);
    arguments.extend(form.iter().flat_map(|pair| ["--data-urlencode".to_owned(), (*pair).to_owned()]));
    arguments.push(format!("https://{}/api2/json{path}", running.ready.nodes[node].api));
    curl(arguments).await
}

async fn ask(running: &Running, method: &str, path: &str, form: &[&str]) -> Answer {
    ask_at(running, 0, method, path, form).await
}

async fn task(running: &Running, method: &str, path: &str, form: &[&str]) -> String {
    let answer = ask(running, method, path, form).await;
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    running.world().task_end(answer.body.as_str().unwrap(), Duration::from_secs(20)).await.unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn config(running: &Running, vmid: u32, key: &str) -> Option<String> {
    running.world().state().vms.get(&vmid)?.config.get(key).cloned()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_fail_as_they_are_told_to_and_the_rest_goes_on() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let running = begin(
        "faults:\n- {name: cut, on: {pve: 'GET /version'}, nth: 2, then: reset-before}\n- {name: unheard, on: {pve: 'PUT \
         /nodes/*/qemu/1200/config'}, nth: 1, then: reset-after}\n- {name: proxy, on: {pve: 'GET /nodes', user: \
         'recast@pve!*'}, nth: 1, then: {status: 596, reason: Connection timed out}}\n- {name: slow, on: {pve: 'GET \
         /cluster/status'}, then: {stall: 30s}}\n- {name: away, on: {connect: pve, node: pve2}, times: 1, then: refuse}\n",
    )
    .await;
    assert_eq!(ask(&running, "GET", "/version", &[]).await.status, 200);
    let cut = ask(&running, "GET", "/version", &[]).await;
    assert!(cut.status == 0 && [52, 56].contains(&cut.exit), "{cut:?}");
    assert_eq!(ask(&running, "GET", "/version", &[]).await.status, 200);
    let unheard = ask(&running, "PUT", "/nodes/pve1/qemu/1200/config", &["description=done"]).await;
    assert_eq!(unheard.status, 0, "{unheard:?}");
    assert_eq!(config(&running, 1200, "description").as_deref(), Some("done"), "it was done all the same");
    let proxy = ask(&running, "GET", "/nodes", &[]).await;
    assert_eq!((proxy.status, proxy.reason.as_str()), (596, "Connection timed out"));
    assert_eq!(ask(&running, "GET", "/nodes", &[]).await.status, 200, "nth alone means once");
    let since = Instant::now();
    assert_eq!(ask(&running, "GET", "/cluster/status", &[]).await.status, 200);
    assert!(since.elapsed() >= Duration::from_millis(300), "30 s at 100 times the speed");
    let away = ask_at(&running, 1, "GET", "/version", &[]).await;
    // The reset may come before curl knows that it was connected (7), or while it shakes hands (35).
    assert!(away.status == 0 && [7, 35].contains(&away.exit), "{away:?}");
    assert_eq!(ask_at(&running, 1, "GET", "/version", &[]).await.status, 200);
    let tally: Vec<(String, u64)> = running.tally().into_iter().map(|one| (one.name, one.happened)).collect();
    let once = |name: &str| (name.to_owned(), 1);
    assert_eq!(tally, ["cut", "unheard", "proxy", "slow", "away"].map(once));
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_fail_with_and_without_their_work_done_and_copies_take_as_long_as_they_are_told_to() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let running = begin(
        "latency: {clone: 60s}\nstorages: {local-lvm: 3GiB}\nfaults:\n- {on: {task: qmclone}, nth: 1, then: {task-error: \
         'clone failed: it stuttered'}}\n- {on: {task: qmstart, vm: lab-worker-02}, then: {task-error-after: 'start failed: \
         got timeout'}}\n",
    )
    .await;
    let clone = "/nodes/pve1/qemu/102/clone";
    assert_eq!(task(&running, "POST", clone, &["newid=300", "full=1"]).await, "clone failed: it stuttered");
    assert!(!running.world().state().vms.contains_key(&300), "what was begun is taken back");
    let since = Instant::now();
    assert_eq!(task(&running, "POST", clone, &["newid=301", "full=1"]).await, "OK");
    assert!(since.elapsed() >= Duration::from_millis(600), "60 s at 100 times the speed");
    assert_eq!(task(&running, "POST", "/nodes/pve2/qemu/1211/status/start", &[]).await, "start failed: got timeout");
    assert!(running.world().pid_of(1211).is_some(), "it runs all the same");
    let storages = ask(&running, "GET", "/nodes/pve1/storage", &[]).await.body;
    let total = storages.as_array().unwrap().iter().find(|one| one["storage"] == "local-lvm").unwrap()["total"].clone();
    assert_eq!(total, 3_u64 << 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_happen_at_their_time_or_after_a_match() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let running = begin(
        "events:\n- {at: 5s, do: {vm-changes: {vm: lab-cp-01, set: {scsi1: 'local-lvm:1', description: mine}}}}\n- {after: \
         {pve: 'GET /nodes/*/qemu/1210/config'}, nth: 2, do: {vm-vanishes: 1210}}\n- {after: {pve: 'GET /version'}, do: \
         {vm-starts: lab-worker-02}}\n- {after: {task: qmstart, vm: 1211}, wait: 20s, do: {node-dies: pve2}}\n- {after: \
         {task: qmstart, vm: 1211}, wait: 90s, do: {node-returns: pve2}}\n- {at: 1s, do: {request: {call: 'POST \
         /pools', with: {poolid: theirs}}}}\n- {name: nobody, at: 1s, do: {vm-stops: 9999}}\n",
    )
    .await;
    let world = running.world();
    until("a disk is attached", || config(&running, 1200, "scsi1").is_some()).await;
    assert_eq!(config(&running, 1200, "description").as_deref(), Some("mine"));
    until("somebody made a pool", || world.state().pools.contains_key("theirs")).await;
    let path = "/nodes/pve1/qemu/1210/config";
    assert_eq!(ask(&running, "GET", path, &[]).await.status, 200);
    assert!(world.state().vms.contains_key(&1210));
    assert_eq!(ask(&running, "GET", path, &[]).await.status, 200);
    until("the VM is gone", || !world.state().vms.contains_key(&1210)).await;
    assert!(world.pid_of(1211).is_none());
    ask(&running, "GET", "/version", &[]).await;
    until("the node is down", || !world.state().is_online("pve2")).await;
    until("the node is back", || world.state().is_online("pve2")).await;
    let failed = || running.tally().iter().find(|one| one.name == "nobody").unwrap().failed.clone();
    until("it is told what couldn't happen", || failed().is_some()).await;
    assert_eq!(failed().unwrap(), "there is no VM 9999");
    let deeds: Vec<String> = running.audit().deeds().iter().map(|deed| format!("{} {}", deed.who, deed.what)).collect();
    assert!(deeds.contains(&"root@pam destroy".to_owned()), "{deeds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scenario_that_names_nothing_of_this_world_is_refused() {
    let text = "storages: {nowhere: 1GiB}\nevents: [{at: 1s, do: {node-dies: pve9}}]";
    let scenario = Scenario::parse("x", text).unwrap();
    let error = serve::start(Options { scenario: Some(scenario), ..Options::default() }).await.unwrap_err();
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(why, "the scenario doesn't fit this world: there is no storage nowhere; there is no node pve9");
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_and_commands_are_spoiled_or_refused_on_their_way() {
    if !real_parts::is_here("curl", "-V") || !real_parts::is_here("ssh", "-V") {
        return;
    }
    let running = begin(
        "faults:\n- {on: {pve: 'POST /nodes/*/storage/local/upload'}, nth: 1, then: {corrupt: 3}}\n- {on: {ssh: 'pvesm \
         **'}, nth: 1, then: {status: 5, reason: 'pvesm: no'}}\n- {on: {ssh: 'hostname'}, nth: 1, then: reset-after}\n\
         - {on: {ssh: 'cat'}, then: {corrupt: 1}}\n",
    )
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.iso");
    std::fs::write(&file, vec![0_u8; 100_000]).unwrap();
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    for (name, changed) in [("a.iso", 3), ("b.iso", 0)] {
        let answer = curl(vec![
            "--cacert".to_owned(),
            running.ready.ca_file.display().to_string(),
            "-H".to_owned(),
            format!("Authorization: PVEAPIToken={id}={secret}"),
            "-F".to_owned(),
            "content=iso".to_owned(),
            "-F".to_owned(),
            format!("filename=@{};filename={name}", file.display()),
            format!("{}/api2/json/nodes/pve1/storage/local/upload", running.ready.pve),
        ])
        .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let upid = answer.body.as_str().unwrap();
        assert_eq!(running.world().task_end(upid, Duration::from_secs(10)).await.unwrap(), "OK");
        let stored = running.world().dir().join("nodes/pve1/local/template/iso").join(name);
        let bytes = std::fs::read(stored).unwrap();
        assert_eq!((bytes.len(), bytes.iter().filter(|byte| **byte != 0).count()), (100_000, changed));
    }
    let ssh = running.ready.ssh.clone();
    let known = folder.path().join("known_hosts");
    std::fs::write(&known, format!("[{}]:{} {}\n", ssh.host, ssh.port, ssh.host_key)).unwrap();
    let run = |command: &'static str, input: &'static [u8]| {
        let (ssh, known) = (ssh.clone(), known.clone());
        tokio::task::spawn_blocking(move || {
            let mut client = Command::new("ssh");
            client.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(&ssh.key);
            client.arg("-o").arg(format!("UserKnownHostsFile={}", known.display())).args(["-p", &ssh.port.to_string()]);
            client.args([&format!("root@{}", ssh.host), command]);
            client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = client.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            child.wait_with_output().unwrap()
        })
    };
    let refused = run("pvesm status", b"").await.unwrap();
    assert_eq!((refused.status.code(), refused.stderr.as_slice()), (Some(5), b"pvesm: no\n".as_slice()));
    assert_eq!(run("pvesm status", b"").await.unwrap().status.code(), Some(0));
    assert_eq!(run("hostname", b"").await.unwrap().status.code(), Some(255), "the connection broke");
    let heard = run("hostname", b"").await.unwrap();
    assert_eq!(heard.stdout, b"pve1\n");
    assert_eq!(run("cat", b"abcd").await.unwrap().stdout, [b"abc".as_slice(), &[b'd' ^ 0xA5]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_break_off_and_arrive_wrong() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/broken-download.yaml");
    let running = follow(Scenario::load(&path).unwrap(), Seed::single_node()).await;
    let factory = running.ready.factory.clone().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let fetch = async |name: &str| {
        let file = folder.path().join(name);
        let id = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
        let arguments =
            ["-L", "-o", &file.display().to_string(), "--cacert", &running.ready.ca_file.display().to_string()]
                .map(str::to_owned);
        let url = format!("{factory}/image/{id}/v1.13.9/nocloud-amd64.qcow2");
        let answer = curl(arguments.into_iter().chain([url]).collect()).await;
        (answer.exit, std::fs::read(file).unwrap_or_default())
    };
    // curl itself tries once more when a connection breaks that it used before.
    assert_ne!(fetch("1").await.0, 0);
    assert_eq!(running.tally()[0].happened, 2);
    let (exit, wrong) = fetch("2").await;
    let (fine, right) = fetch("3").await;
    assert_eq!((exit, fine), (0, 0));
    assert_eq!(wrong.len(), right.len());
    assert_eq!(wrong.iter().zip(&right).filter(|(one, other)| one != other).count(), 3);
    let post = ["-X", "POST", "--data-binary", "customization: {}", "--cacert"].map(str::to_owned);
    let post: Vec<String> = post
        .into_iter()
        .chain([running.ready.ca_file.display().to_string(), format!("{factory}/schematics")])
        .collect();
    assert_eq!(curl(post.clone()).await.status, 429);
    assert_eq!(curl(post).await.status, 201);
}

/// Every sample that is about the PVE API, against requests that a rebuild makes.
#[tokio::test(flavor = "multi_thread")]
async fn the_samples_do_what_they_say() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let sample = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios").join(name);
        Scenario::load(&path).unwrap_or_else(|error| panic!("{error}"))
    };
    let clone = "/nodes/pve1/qemu/102/clone";

    let running = follow(sample("flaky-api.yaml"), lab()).await;
    assert_eq!(ask(&running, "GET", "/version", &[]).await.status, 0);
    for (newid, status) in [("newid=301", 200), ("newid=302", 200), ("newid=303", 0)] {
        assert_eq!(ask(&running, "POST", clone, &[newid, "full=1"]).await.status, status);
    }
    until("the third clone was ordered all the same", || running.world().state().vms.contains_key(&303)).await;

    let running = follow(sample("clone-fails-once.yaml"), lab()).await;
    assert_eq!(task(&running, "POST", clone, &["newid=301", "full=1"]).await, "OK");
    assert!(task(&running, "POST", clone, &["newid=302", "full=1"]).await.starts_with("clone failed: "));
    assert!(task(&running, "POST", "/nodes/pve1/qemu/301/status/start", &[]).await.starts_with("start failed: "));
    assert!(running.world().pid_of(301).is_some());

    let running = follow(sample("node-dies.yaml"), lab()).await;
    let (up, form) = ("/nodes/pve2/qemu/1211/clone", ["newid=301", "full=1"]);
    assert_eq!(task(&running, "POST", up, &form).await, "unexpected status");
    assert!(!running.world().state().is_online("pve2"));
    until("it is back", || running.world().state().is_online("pve2")).await;

    let running = follow(sample("colleague.yaml"), lab()).await;
    until("a disk is attached", || config(&running, 1210, "scsi1").is_some()).await;
    until("a note is written", || config(&running, 1200, "description").is_some()).await;
    for _ in 0..3 {
        ask(&running, "GET", "/nodes/pve1/qemu/102/config", &[]).await;
    }
    until("the template is gone", || !running.world().state().vms.contains_key(&102)).await;

    let running = follow(sample("full-storage.yaml"), lab()).await;
    let full = task(&running, "POST", "/nodes/pve1/qemu/1210/config", &["scsi1=local-lvm:8"]).await;
    assert_eq!(full, "OK", "thin storages promise more than they have");
    let total = ask(&running, "GET", "/nodes/pve1/storage/local-lvm/status", &[]).await.body["total"].clone();
    assert_eq!(total, 2_u64 << 30);

    let running = follow(sample("slow-site.yaml"), lab()).await;
    let since = Instant::now();
    assert_eq!(task(&running, "POST", clone, &["newid=301", "full=1"]).await, "OK");
    assert!(since.elapsed() >= Duration::from_millis(256), "1 GiB at 40 MiB/s, 100 times as fast");
}
