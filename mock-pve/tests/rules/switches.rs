//! Nodes and all their guests at once, keys and the monitor.

use std::time::Duration;

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Site, VMS, two_nodes};

/// Asks until the answer is as wanted.
async fn until(site: &Site, path: &str, wanted: impl Fn(u16, &Value) -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let (status, _, body) = site.ask("GET", path, &[]).await;
        if wanted(status, &body["data"]) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path}: {status} {body}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_goes_down_by_request_after_its_guests_and_is_woken_by_another() {
    let options = Options { seed: two_nodes(), ..Options::default() };
    let mut site = Site::serve(options).await;
    site.log_in("root@pam", "secret").await;
    let at = "/nodes/pve2/qemu";
    site.done("POST", at, &[("vmid", "100"), ("onboot", "1")]).await;
    site.done("POST", at, &[("vmid", "101")]).await;
    for vmid in ["100", "101"] {
        site.done("POST", &format!("{at}/{vmid}/status/start"), &[]).await;
    }
    let (status, _, body) = site.ask("POST", "/nodes/pve2/status", &[("command", "halt")]).await;
    assert_eq!(
        (status, &body["errors"]["command"]),
        (400, &json!("value 'halt' does not have a value in the enumeration 'reboot, shutdown'"))
    );
    site.fine("PUT", "/nodes/pve2/config", &[("wakeonlan", "02:00:00:00:00:02")]).await;
    site.fine("POST", "/access/users", &[("userid", "bob@pve"), ("password", "bobs-secret")]).await;
    site.log_in("bob@pve", "bobs-secret").await;
    let (status, reason, _) = site.ask("POST", "/nodes/pve2/status", &[("command", "shutdown")]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/nodes/pve2, Sys.PowerMgmt)"));
    let (status, reason, _) = site.ask("POST", "/nodes/pve2/stopall", &[]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/, VM.PowerMgmt)"));
    site.log_in("root@pam", "secret").await;
    assert_eq!(site.fine("POST", "/nodes/pve2/status", &[("command", "shutdown")]).await, Value::Null);
    until(&site, "/nodes/pve2/version", |status, _| status == 595).await;
    let ends = |kind: &'static str| {
        let state = site.running.world().state();
        let tasks = state.tasks.by_upid.values().filter(|task| task.kind == kind);
        tasks.map(|task| task.status.clone().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!(ends("stopall"), ["OK"]);
    assert_eq!(ends("qmshutdown").len(), 2, "guests are asked, not cut off");
    let (_, reason, _) = site.ask("POST", "/nodes/localhost/wakeonlan", &[]).await;
    assert_eq!(reason, "'localhost' is local node, cannot wake my self!");
    assert_eq!(site.fine("POST", "/nodes/pve2/wakeonlan", &[]).await, "02:00:00:00:00:02");
    until(&site, "/nodes/pve2/qemu/100/status/current", |_, data| data["status"] == "running").await;
    assert_eq!(site.fine("GET", "/nodes/pve2/qemu/101/status/current", &[]).await["status"], "stopped");
    let deeds: Vec<String> = site.running.audit().deeds().into_iter().map(|deed| deed.what).collect();
    assert!(deeds.contains(&"node-shutdown".to_owned()), "{deeds:?}");
    assert_eq!(site.fine("POST", "/nodes/pve2/status", &[("command", "reboot")]).await, Value::Null);
    until(&site, "/nodes/pve2/version", |status, _| status == 595).await;
    until(&site, "/nodes/pve2/qemu/100/status/current", |_, data| data["status"] == "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_guests_of_a_node_start_and_stop_in_their_order() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    for (vmid, startup) in [("100", "order=2"), ("101", "order=1,up=2,down=7"), ("102", "order=3")] {
        site.done("POST", VMS, &[("vmid", vmid), ("onboot", "1")]).await;
        site.fine("PUT", &format!("{VMS}/{vmid}/config"), &[("startup", startup)]).await;
    }
    let log = site.done("POST", "/nodes/pve1/startall", &[("vms", "100,101")]).await;
    assert_eq!(log[..3], ["Starting VM 101", "Waiting for 2 seconds (startup delay)", "Starting VM 100"]);
    let log = site.done("POST", "/nodes/pve1/stopall", &[("timeout", "5")]).await;
    assert_eq!(log[..2], ["Stopping VM 100 (timeout = 5 seconds)", "Stopping VM 101 (timeout = 7 seconds)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_the_monitor_need_a_vm_that_runs() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    let (keys, monitor) = (format!("{VMS}/100/sendkey"), format!("{VMS}/100/monitor"));
    let (status, reason, _) = site.ask("PUT", &keys, &[("key", "ret")]).await;
    assert_eq!((status, reason.as_str()), (500, "VM 100 not running"));
    assert_eq!(site.fine("POST", &monitor, &[("command", "info status")]).await, "ERROR: VM 100 not running\n");
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let (status, reason, _) = site.ask("PUT", &keys, &[("key", "ctrl-nosuch")]).await;
    assert_eq!((status, reason.as_str()), (500, "invalid parameter: nosuch"));
    assert_eq!(site.fine("PUT", &keys, &[("key", "ctrl-alt-delete")]).await, Value::Null);
    assert_eq!(site.fine("POST", &monitor, &[("command", "info status")]).await, "VM status: running\r\n");
    site.fine("POST", &monitor, &[("command", "stop")]).await;
    let current = site.fine("GET", &format!("{VMS}/100/status/current"), &[]).await;
    assert_eq!(current["qmpstatus"], "paused");
    let (status, reason, _) = site.ask("POST", &format!("{VMS}/199/monitor"), &[("command", "info status")]).await;
    assert_eq!((status, reason.as_str()), (500, "Configuration file 'nodes/pve1/qemu-server/199.conf' does not exist"));
}
