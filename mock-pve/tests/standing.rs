//! A double that stands for days: restarts, idleness, size, its page, its logs.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_pve::serve::Ready;
use mock_pve::world::seed::{NodeSeed, Seed, VmSeed};
use serde_json::{Value, json};

/// `mock-pve serve`, as a process. Killed when dropped.
struct Served {
    child: Child,
    dir: PathBuf,
    ready: Ready,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(dir: &Path, more: &[&str]) -> Served {
    serve_from(&std::env::current_dir().unwrap(), dir, more)
}

/// The same, started in a folder.
fn serve_from(folder: &Path, dir: &Path, more: &[&str]) -> Served {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mock-pve"));
    command.args(["serve", "--listen", "127.0.0.1:0", "--state"]).arg(dir).args(more).current_dir(folder);
    let dir = folder.join(dir);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // It greets once everything answers.
    let greeted = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("ready"));
    assert!(greeted, "it ended: {:?}", child.try_wait());
    let ready = serde_json::from_slice(&std::fs::read(dir.join("ready.json")).unwrap()).unwrap();
    Served { child, dir, ready }
}

impl Served {
    fn ask(&self, method: &str, path: &str, form: &[&str]) -> Value {
        let (id, secret) = self.ready.tokens.iter().next().unwrap();
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "-m", "30", "-X", method, "--cacert"]).arg(&self.ready.ca_file);
        curl.arg("-H").arg(format!("Authorization: PVEAPIToken={id}={secret}"));
        for pair in form {
            curl.arg("--data-urlencode").arg(pair);
        }
        let output = curl.arg(format!("{}/api2/json{path}", self.ready.pve)).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut body: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {text}"));
        assert!(body["data"] != Value::Null || method == "PUT", "{method} {path}: {body}");
        body["data"].take()
    }

    fn task(&self, method: &str, path: &str, form: &[&str]) -> String {
        let upid = self.ask(method, path, form).as_str().unwrap().to_owned();
        let node = upid.split(':').nth(1).unwrap().to_owned();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.ask("GET", &format!("/nodes/{node}/tasks/{upid}/status"), &[]);
            if status["status"] == "stopped" {
                assert_eq!(status["exitstatus"], "OK");
                return upid;
            }
            assert!(Instant::now() < deadline, "{upid}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn inspect(&self) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mock-pve"));
        let output = command.args(["inspect", "-o", "json", "--state"]).arg(&self.dir).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_mins(1);
        loop {
            let seen = self.inspect();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < deadline, "{what}: {seen:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processor time so far, in seconds.
    fn processor(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        ticks / 100.0
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

#[test]
fn everything_survives_a_kill() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let profile = root().join("profiles/single.yaml");
    let served = serve(&dir, &["--profile", profile.to_str().unwrap(), "--time-scale", "20"]);
    let healthy =
        |seen: &Value| seen["machines"][0]["ready"] == true && seen["etcd"][0]["members"][0]["leader"] == true;
    let before = served.until("the seeded machine is ready", healthy);
    let node = before["nodes"][0]["name"].as_str().unwrap().to_owned();
    let upid = served.task("POST", &format!("/nodes/{node}/qemu"), &["vmid=777", "name=mine", "scsi0=local-lvm:1"]);
    served.ask("PUT", &format!("/nodes/{node}/qemu/777/config"), &["description=kept"]);
    let secret = served.ready.tokens.clone();
    served.until("the state is saved", |_| {
        std::fs::read_to_string(dir.join("state.json")).unwrap().contains("\"description\":\"kept\"")
    });
    drop(served);

    let served = serve(&dir, &["--time-scale", "20"]);
    assert_eq!(served.ready.tokens, secret, "users and tokens are the same");
    assert_eq!(served.ask("GET", &format!("/nodes/{node}/qemu/777/config"), &[])["description"], "kept");
    let status = served.ask("GET", &format!("/nodes/{node}/tasks/{upid}/status"), &[]);
    assert_eq!(status["exitstatus"], "OK", "tasks are the same");
    let after = served.until("the machine is ready again", healthy);
    let names = |seen: &Value| {
        let volumes = seen["volumes"].as_array().unwrap();
        volumes.iter().map(|volume| volume["volid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(names(&after).iter().any(|volid| volid == "local-lvm:vm-777-disk-0"), "{:?}", names(&after));
    assert!(names(&before).iter().all(|volid| names(&after).contains(volid)));
    let number = |seen: &Value, key: &str| seen["etcd"][0][key].as_u64().unwrap();
    assert_eq!(after["etcd"][0]["id"], before["etcd"][0]["id"], "it is the same etcd");
    assert!(number(&after, "revision") >= number(&before, "revision"));
    assert!(number(&after, "keys") >= number(&before, "keys"), "Kubernetes' objects are there");
    assert_eq!(after["machines"][0]["address"], before["machines"][0]["address"]);
}

#[test]
fn a_relative_folder_is_told_absolutely() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve_from(folder.path(), Path::new("a/mock"), &[]);
    let ready = &served.ready;
    for path in [&ready.ca_file, &ready.site_file, &ready.ssh.key, &ready.nodes[0].ssh.key] {
        assert!(path.is_absolute() && path.is_file(), "{}", path.display());
    }
    let site = std::fs::read_to_string(&ready.site_file).unwrap();
    let files = ["ca", "file", "key"].map(|key| {
        let told: Vec<&str> = site
            .lines()
            .filter_map(|line| line.trim().strip_prefix(&format!("{key}: '"))?.strip_suffix('\''))
            .collect();
        assert!(!told.is_empty(), "{key} isn't told: {site}");
        told
    });
    for path in files.concat() {
        assert!(Path::new(path).is_absolute() && Path::new(path).is_file(), "{path}");
    }
}

#[test]
fn an_idle_double_does_nothing() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("state");
    let profile = root().join("profiles/single.yaml");
    let served = serve(&dir, &["--profile", profile.to_str().unwrap()]);
    served.until("the machine is ready", |seen| seen["machines"][0]["ready"] == true);
    let saved = || std::fs::metadata(dir.join("state.json")).unwrap().modified().unwrap();
    // What began with the start is over when nothing was saved for a while.
    let mut last = (saved(), Instant::now());
    while last.1.elapsed() < Duration::from_secs(1) {
        if saved() != last.0 {
            last = (saved(), Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let (before, since) = (served.processor(), Instant::now());
    std::thread::sleep(Duration::from_secs(3));
    let share = (served.processor() - before) / since.elapsed().as_secs_f64();
    let _ = writeln!(std::io::stderr(), "idle: {:.2} % of a core", share * 100.0);
    assert!(share < 0.02, "{share}");
    assert_eq!(saved(), last.0, "nothing changed, and yet it was saved");
}

#[test]
fn five_hundred_vms_on_32_nodes_begin_at_once_and_cost_only_their_real_bytes() {
    use std::os::unix::fs::MetadataExt as _;
    let nodes: Vec<NodeSeed> =
        (1..=32).map(|number| NodeSeed { name: format!("pve{number}"), ..NodeSeed::default() }).collect();
    let vm = |number: u32| VmSeed {
        vmid: 1000 + number,
        node: Some(format!("pve{}", number % 32 + 1)),
        status: Some(if number.is_multiple_of(2) { "running" } else { "stopped" }.to_owned()),
        name: Some(format!("vm-{number}")),
        config: [
            ("scsi0".to_owned(), json!(format!("local-lvm:vm-{}-disk-0,size=4352M", 1000 + number))),
            ("net0".to_owned(), json!("virtio=BC:24:11:00:00:01,bridge=vmbr0")),
        ]
        .into(),
    };
    let seed =
        Seed { nodes, cluster_name: Some("big".to_owned()), vms: (0..500).map(vm).collect(), ..Seed::single_node() };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("seed.json");
    std::fs::write(&file, serde_json::to_vec(&seed).unwrap()).unwrap();
    let since = Instant::now();
    let served = serve(&folder.path().join("state"), &["--seed", file.to_str().unwrap(), "--time-scale", "200"]);
    let took = since.elapsed();
    let _ = writeln!(std::io::stderr(), "500 VMs and 32 nodes: {:.2} s until all of it listens", took.as_secs_f64());
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(served.ready.nodes.len(), 32);
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    // A template of 4.25 GiB with 3 MiB in it, and a full clone of it.
    let disk = |node: &str, name: &str| served.dir.join(format!("nodes/{node}/local-lvm/{name}"));
    let source = disk("pve2", "vm-1001-disk-0");
    let content = std::fs::OpenOptions::new().write(true).open(&source).unwrap();
    for at in [0_u64, 1 << 30, (4 << 30) + (200 << 20)] {
        std::os::unix::fs::FileExt::write_all_at(&content, &vec![7; 1 << 20], at).unwrap();
    }
    served.task("POST", "/nodes/pve2/qemu/1001/template", &[]);
    served.task("POST", "/nodes/pve2/qemu/1001/clone", &["newid=2000", "full=1"]);
    for name in ["base-1001-disk-0", "vm-2000-disk-0"] {
        let meta = std::fs::metadata(disk("pve2", name)).unwrap();
        assert_eq!(meta.len(), 4352 << 20);
        assert!(meta.blocks() * 512 <= 4 << 20, "{name} takes {} bytes", meta.blocks() * 512);
    }
}

#[test]
fn the_auditor_and_the_log_tell_who_did_what_and_no_secret() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (dir, log) = (folder.path().join("state"), folder.path().join("log.jsonl"));
    let vm = VmSeed {
        vmid: 100,
        status: Some("running".to_owned()),
        name: Some("old".to_owned()),
        config: [("scsi0".to_owned(), json!("local-lvm:vm-100-disk-0,size=1G"))].into(),
        ..VmSeed::default()
    };
    let file = folder.path().join("seed.json");
    std::fs::write(&file, serde_json::to_vec(&Seed { vms: vec![vm], ..Seed::single_node() }).unwrap()).unwrap();
    let more = ["--seed", file.to_str().unwrap(), "--time-scale", "200", "--log", log.to_str().unwrap()];
    let served = serve(&dir, &more);
    served.task(
        "POST",
        "/nodes/pve1/qemu",
        &["vmid=200", "name=new", "cipassword=hunter2", "ide2=local-lvm:cloudinit"],
    );
    served.task("POST", "/nodes/pve1/qemu/100/status/stop", &[]);
    served.task("DELETE", "/nodes/pve1/qemu/100", &[]);
    served.task("DELETE", "/nodes/pve1/qemu/200", &[]);
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let deadline = Instant::now() + Duration::from_secs(10);
    let deeds = loop {
        let text = read(&dir.join("audit.jsonl"));
        if text.lines().count() >= 3 {
            break text;
        }
        assert!(Instant::now() < deadline, "{text}");
        std::thread::sleep(Duration::from_millis(10));
    };
    let deeds: Vec<Value> = deeds.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |deed: &Value| format!("{} {} {} {}", deed["what"], deed["vmid"], deed["name"], deed["origin"]);
    let told: Vec<String> = deeds.iter().map(told).collect();
    assert_eq!(
        told,
        [r#""stop" 100 "old" "seeded""#, r#""destroy" 100 "old" "seeded""#, r#""destroy" 200 "new" "created""#]
    );
    assert!(deeds.iter().all(|deed| deed["who"] == "recast@pve!ci" && deed["time"].as_u64().unwrap() > 1_700_000_000));
    let (secret, lines) = (served.ready.tokens["recast@pve!ci"].clone(), read(&log));
    for text in [&lines, &read(&dir.join("requests.jsonl")), &served.inspect().to_string()] {
        assert!(!text.contains(&secret) && !text.contains("hunter2"), "{text}");
    }
    let entry: Value = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|entry| entry["method"] == "DELETE")
        .unwrap();
    assert_eq!((entry["service"].as_str(), entry["path"].as_str()), (Some("pve"), Some("/nodes/pve1/qemu/100")));
    assert_eq!((entry["status"].as_u64(), entry["who"].as_str()), (Some(200), Some("recast@pve!ci")));
    assert!(entry["ms"].is_u64() && entry["bytes"].as_u64().unwrap() > 20 && entry["time"].as_f64().unwrap() > 1e9);
}

#[test]
fn the_page_shows_the_world_in_a_real_browser() {
    if !real_parts::is_here("chromium", "--version") || !real_parts::is_here("curl", "-V") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let profile = root().join("profiles/single.yaml");
    let served = serve(&folder.path().join("state"), &["--profile", profile.to_str().unwrap(), "--time-scale", "100"]);
    served.until("the machine is ready", |seen| seen["machines"][0]["ready"] == true);
    let node = served.inspect()["nodes"][0]["name"].as_str().unwrap().to_owned();
    served.task("POST", &format!("/nodes/{node}/qemu"), &["vmid=777", "scsi0=local-lvm:1"]);
    let mut browser = Command::new("chromium");
    browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"]);
    browser.args(["--ignore-certificate-errors", "--virtual-time-budget=5000", "--dump-dom"]);
    browser.arg(format!("--user-data-dir={}", folder.path().join("browser").display()));
    let output = browser.arg(format!("{}/", served.ready.pve)).env("HOME", folder.path()).output().unwrap();
    let page = String::from_utf8_lossy(&output.stdout);
    for shown in
        ["Virtual machines", "qmcreate", "777", "made since", "192.168.178.41", "leader", "controlplane", "live"]
    {
        assert!(page.contains(shown), "{shown} isn't shown: {page}\n{}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!page.contains("src=\"") && !page.contains("href=\""), "nothing comes from elsewhere");
}
