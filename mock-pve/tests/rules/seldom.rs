//! What is seldom met: batches, metrics, pictures, copies of volumes, addresses of virtual networks, silent agents, uploads
//! that end oddly.

use std::time::Duration;

use mock_pve::world::PveVersion;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::site::{Form, Site};

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_tells_of_each_method_what_came_of_it() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let orders = json!([
        {"path": "version", "method": "GET"},
        {"path": "nosuch", "method": "GET"},
        {"path": "qemu/999/config", "method": "PUT", "args": {"cores": 0}},
        {"path": "qemu/999/config", "method": "GET", "args": {"vmid": 1}},
        {"path": "qemu/999/config", "method": "GET"},
    ]);
    let told = site.fine("POST", "/nodes/pve1/execute", &[("commands", &orders.to_string())]).await;
    let wrong = |key: &str, text: &str| json!({"status": 400, "message": "Parameter verification failed.\n", "errors": {key: text}});
    assert_eq!((&told[0]["status"], &told[0]["data"]["release"]), (&json!(200), &json!("8.4")));
    assert_eq!(told[1], json!({"status": 500, "message": "no handler for 'nodes/pve1/nosuch'\n"}));
    assert_eq!(told[2], wrong("cores", "value must have a minimum value of 1"));
    assert_eq!(told[3], wrong("vmid", "duplicate parameter"));
    let missing = "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist\n";
    assert_eq!(told[4], json!({"status": 500, "message": missing}));
    let (status, _, body) = site.ask("POST", "/nodes/pve1/execute", &[("commands", "[1]")]).await;
    let text = "invalid format - commands is not a valid array of commands: 400 Parameter verification failed.\n\
                [0]: type check ('object') failed\n";
    assert_eq!((status, &body["errors"]["commands"]), (400, &json!(text)));
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_as_numbers_or_as_a_picture() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let told = site.fine("GET", "/cluster/metrics/export", &[]).await;
    let all = told["data"].as_array().unwrap();
    let find = |id: &str, metric: &str| all.iter().find(|one| one["id"] == id && one["metric"] == metric).unwrap();
    assert!(find("node/pve1", "cpu_max")["value"].is_u64());
    assert_eq!(find("node/pve1", "net_in")["type"], "derive");
    assert_eq!(find("storage/pve1/local", "disk_total")["type"], "gauge");
    let late = site.fine("GET", "/cluster/metrics/export", &[("start-time", "9999999999")]).await;
    assert_eq!(late["data"], json!([]));
    let hour = ("timeframe", "hour");
    let drawn = site.fine("GET", "/nodes/pve1/rrd", &[("ds", "cpu,iowait"), hour]).await;
    assert_eq!(drawn["filename"], "/var/lib/rrdcached/db/pve2-node/pve1_cpu_iowait.png");
    assert!(drawn["image"].as_str().unwrap().starts_with("\u{89}PNG\r\n"));
    for (path, source, reason) in [
        ("/nodes/pve1/rrd", "cpux", "RRD error: No DS called 'cpux' in '/var/lib/rrdcached/db/pve2-node/pve1'"),
        (
            "/nodes/pve1/qemu/999/rrd",
            "cpu",
            "RRD error: opening '/var/lib/rrdcached/db/pve2-vm/999': No such file or directory",
        ),
    ] {
        let (status, said, _) = site.ask("GET", path, &[("ds", source), hour]).await;
        assert_eq!((status, said.as_str()), (500, reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_copied_to_a_name_that_is_free() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let files: Form<'_> = &[("storage", "files"), ("type", "dir"), ("path", "/srv/files"), ("content", "images")];
    site.fine("POST", "/storage", files).await;
    let content = "/nodes/pve1/storage/files/content";
    site.fine("POST", content, &[("filename", "vm-100-a.raw"), ("vmid", "100"), ("size", "1M")]).await;
    let from = format!("{content}/files:100/vm-100-a.raw");
    let (_, _, body) = site.ask("POST", &from, &[("target", "other:100/x.raw")]).await;
    assert_eq!(body["errors"]["volume"], "storage ID mismatch (other != files)\n");
    let log = site.done("POST", &from, &[("target", "100/vm-100-b.raw")]).await;
    assert!(log.iter().any(|line| line == "successfully imported 'files:100/vm-100-b.raw'"), "{log:?}");
    assert_eq!(site.fine("GET", content, &[]).await.as_array().unwrap().len(), 2);
    let (end, log) = site.task("POST", &from, &[("target", "100/vm-100-b.raw")]).await;
    assert!(end.ends_with("failed: exit code 255"), "{end}");
    assert!(log.iter().any(|line| line == "file '/srv/files/images/100/vm-100-b.raw' already exists"), "{log:?}");
    let (_, log) = site.task("POST", &from, &[("target", "100/vm-100-c.qcow2")]).await;
    assert!(log.iter().any(|line| line == "cannot import format raw+size into a file of format qcow2"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_network_in_force_are_given_out_once() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let zone: Form<'_> = &[("zone", "z1"), ("type", "simple"), ("ipam", "pve"), ("dhcp", "dnsmasq")];
    site.fine("POST", "/cluster/sdn/zones", zone).await;
    site.fine("POST", "/cluster/sdn/vnets", &[("vnet", "v1"), ("zone", "z1")]).await;
    let subnet: Form<'_> = &[("subnet", "10.9.0.0/24"), ("type", "subnet"), ("gateway", "10.9.0.1")];
    site.fine("POST", "/cluster/sdn/vnets/v1/subnets", subnet).await;
    let ips = "/cluster/sdn/vnets/v1/ips";
    let lease = |ip: &'static str| [("zone", "z1"), ("ip", ip), ("mac", "02:00:00:00:00:01")];
    let (status, reason, _) = site.ask("POST", ips, &lease("10.9.0.5")).await;
    assert!(status == 500 && reason.starts_with("can't find any subnet for ip 10.9.0.5 at "), "{reason}");
    site.done("PUT", "/cluster/sdn", &[]).await;
    site.fine("POST", ips, &lease("10.9.0.5")).await;
    let (status, reason, _) = site.ask("POST", ips, &lease("10.9.0.1")).await;
    assert_eq!((status, reason.as_str()), (500, "IP '10.9.0.1' already exist"));
    site.fine("PUT", ips, &lease("10.9.0.6")).await;
    let told = site.fine("GET", "/cluster/sdn/ipams/pve/status", &[]).await;
    let of = |ip: &str| told.as_array().unwrap().iter().find(|one| one["ip"] == ip).cloned().unwrap_or(Value::Null);
    assert_eq!((&of("10.9.0.1")["gateway"], of("10.9.0.5")), (&json!(1), Value::Null));
    assert_eq!((&of("10.9.0.6")["mac"], &of("10.9.0.6")["vnet"]), (&json!("02:00:00:00:00:01"), &json!("v1")));
    site.fine("DELETE", ips, &lease("10.9.0.6")).await;
    let (status, reason, _) = site.ask("DELETE", ips, &lease("10.9.0.6")).await;
    assert_eq!((status, reason.as_str()), (500, "IP '10.9.0.6' does not exist in IPAM DB"));
    let (status, reason, _) = site.ask("GET", "/cluster/sdn/ipams/other/status", &[]).await;
    assert!(status == 500 && reason.starts_with("Currently only PVE IPAM is supported! at "), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_agent_is_told_of_and_the_power_button_pressed() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let vms = "/nodes/pve1/qemu";
    for (vmid, agent) in [("300", "1"), ("301", "0")] {
        site.done("POST", vms, &[("vmid", vmid), ("agent", agent)]).await;
        let power = |order: &str| format!("{vms}/{vmid}/status/{order}");
        site.done("POST", &power("start"), &[]).await;
        let (end, log) = site.task("POST", &power("shutdown"), &[("timeout", "1")]).await;
        assert_eq!(end, "VM quit/powerdown failed - got timeout", "{log:?}");
        let silent =
            format!("QEMU Guest Agent is not running - VM {vmid} qmp command 'guest-ping' failed - got timeout");
        assert_eq!(log[0] == silent, agent == "1", "{log:?}");
        let (end, log) = site.task("POST", &power("shutdown"), &[("timeout", "1"), ("forceStop", "1")]).await;
        let killed = &log[usize::from(agent == "1")];
        assert_eq!((end.as_str(), killed.as_str()), ("OK", "VM still running - terminating now with SIGTERM"));
        // One that is off has no agent that could be silent.
        assert_eq!(site.task("POST", &power("shutdown"), &[]).await, ("OK".to_owned(), vec!["TASK OK".to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_says_where_it_went_and_metadata_which_file_there_is_none() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let form = [("content", "iso"), ("filename", "x.iso"), ("url", "http://127.0.0.1:1/x.iso")];
    let (end, log) = site.task("POST", "/nodes/pve1/storage/local/download-url", &form).await;
    assert_eq!(end, "download failed: Connecting to 127.0.0.1:1... failed: Connection refused.");
    assert!(log[1].starts_with("--2") && log[1].ends_with("--  http://127.0.0.1:1/x.iso"), "{log:?}");
    let form: Form<'_> = &[("volume", "local:import/x.qcow2")];
    let (_, reason, _) = site.ask("GET", "/nodes/pve1/storage/local/import-metadata", form).await;
    assert_eq!(reason, "unable to parse directory volume name 'local:import/x.qcow2'");
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_tell_each_other_of_tasks_and_nobody_by_his_token() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", "/nodes/pve1/qemu", &[("vmid", "300")]).await;
    let form: Form<'_> = &[("userid", "eve@pve"), ("password", "secret-word")];
    site.fine("POST", "/access/users", form).await;
    site.fine("PUT", "/access/acl", &[("path", "/vms/300"), ("roles", "PVEVMAdmin"), ("users", "eve@pve")]).await;
    let token = site.fine("POST", "/access/users/eve@pve/token/own", &[("privsep", "0")]).await;
    let seen = site.fine("GET", "/cluster/tasks", &[]).await;
    assert_eq!((&seen[0]["type"], &seen[0]["saved"], &seen[0]["pid"]), (&json!("qmcreate"), &json!(1), &Value::Null));
    site.with_token("eve@pve!own", token["value"].as_str().unwrap());
    site.done("POST", "/nodes/pve1/qemu/300/status/start", &[]).await;
    assert_eq!(site.fine("GET", "/cluster/tasks", &[]).await, json!([]));
    assert_eq!(site.fine("GET", "/nodes/pve1/tasks", &[]).await[0]["type"], "qmstart");
    let upid = site.fine("POST", "/nodes/pve1/qemu/300/status/shutdown", &[("timeout", "600")]).await;
    site.log_in("eve@pve", "secret-word").await;
    let seen = site.fine("GET", "/cluster/tasks", &[]).await;
    assert_eq!((&seen[0]["type"], &seen[0]["saved"]), (&json!("qmshutdown"), &Value::Null));
    assert_eq!((seen[0]["pid"].is_u64(), &seen[1]["saved"]), (true, &json!("1")));
    site.fine("DELETE", &format!("/nodes/pve1/tasks/{}", upid.as_str().unwrap()), &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_changes_a_config_waits_for_its_lock_file_whoever_does_the_work() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", "/nodes/pve1/qemu", &[("vmid", "300")]).await;
    site.done("POST", "/nodes/pve1/qemu/300/status/start", &[]).await;
    let upid = site.fine("POST", "/nodes/pve1/qemu/300/status/shutdown", &[("timeout", "600")]).await;
    let held = "can't lock file '/var/lock/qemu-server/lock-300.conf' - got timeout";
    for method in ["PUT", "POST"] {
        let (status, reason, _) = site.ask(method, "/nodes/pve1/qemu/300/config", &[("cores", "2")]).await;
        assert_eq!((status, reason.as_str()), (500, held), "{method}");
    }
    site.fine("DELETE", &format!("/nodes/pve1/tasks/{}", upid.as_str().unwrap()), &[]).await;
}

const UPLOAD: &str = "/api2/json/nodes/pve1/storage/local/upload";
const PARTS: &str = "Content-Type: multipart/form-data; boundary=b\r\n";

/// The body of an upload of an ISO image.
fn upload_of(name: &str) -> String {
    format!(
        "--b\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n--b\r\nContent-Disposition: form-data; \
         name=\"filename\"; filename=\"{name}\"\r\n\r\nx\r\n--b--"
    )
}

/// How the tasks of all uploads end.
async fn ends_of_uploads(site: &Site) -> Vec<String> {
    let tasks = site.fine("GET", "/nodes/pve1/tasks", &[("typefilter", "imgcopy"), ("source", "all")]).await;
    let mut ends = Vec::new();
    for task in tasks.as_array().unwrap() {
        let upid = task["upid"].as_str().unwrap();
        ends.extend(site.running.world().task_end(upid, Duration::from_secs(30)).await);
    }
    ends
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_an_upload_by_itself_begins_it_again_and_loses_it() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let (body, login) = (upload_of("twice.iso"), &site.login);
    let length = body.len() + 2;
    let head = format!("POST {UPLOAD} HTTP/1.1\r\nHost: x\r\n{login}{PARTS}Content-Length: {length}\r\n\r\n");
    let volume = "/api2/json/nodes/pve1/storage/local/content/local:iso/twice.iso";
    // Whoever reads late takes the two pieces for one.
    for _ in 0..20 {
        let mut stream = site.connect().await;
        stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.write_all(b"\r\n").await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"));
        let ends = ends_of_uploads(&site).await;
        if ends.iter().all(|end| end == "OK") {
            assert_eq!(site.send("GET", volume, "", b"").await.0, 200);
            continue;
        }
        let lost = |end: &&String| end.starts_with("import failed: cp: cannot stat '/var/tmp/pveupload-");
        assert_eq!(ends.iter().filter(lost).count(), 1, "{ends:?}");
        let (status, reason, _) = site.send("GET", volume, "", b"").await;
        assert_eq!((status, reason.as_str()), (500, "volume_size_info on 'local:iso/twice.iso' failed - no format"));
        return;
    }
    panic!("it was never begun again");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_with_a_dot_in_front_are_in_no_list() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    for name in [".iso", "..iso", "seen.iso"] {
        let (status, _, _) = site.send("POST", UPLOAD, PARTS, upload_of(name).as_bytes()).await;
        assert_eq!(status, if name == ".iso" { 400 } else { 200 }, "{name}");
    }
    assert_eq!(ends_of_uploads(&site).await, ["OK", "OK"]);
    let list = site.fine("GET", "/nodes/pve1/storage/local/content", &[("content", "iso")]).await;
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|one| one["volid"].as_str()).collect();
    assert_eq!(names, ["local:iso/seen.iso"]);
    let hidden = site.fine("GET", "/nodes/pve1/storage/local/content/local:iso/..iso", &[]).await;
    assert_eq!(hidden["path"], "/var/lib/vz/template/iso/..iso");
}
