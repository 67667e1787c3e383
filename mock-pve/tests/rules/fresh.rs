//! What clients and monitoring read of a cluster that nobody has set up much of: histories, corosync, notifications,
//! consoles, and who holds the lock of the virtual networks.

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS, two_nodes};

#[tokio::test(flavor = "multi_thread")]
async fn series_have_their_slots_and_what_is_known() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("memory", "128")]).await;
    let rows = [
        ("/nodes/pve1/rrddata", "hour", 60, "memtotal"),
        ("/nodes/pve1/rrddata", "day", 1800, "time"),
        ("/nodes/pve1/storage/local/rrddata", "hour", 60, "total"),
        ("/nodes/pve1/qemu/100/rrddata", "year", 604_800, "time"),
    ];
    for (path, frame, step, key) in rows {
        let series = site.fine("GET", path, &[("timeframe", frame), ("cf", "AVERAGE")]).await;
        let series = series.as_array().unwrap();
        let times: Vec<u64> = series.iter().map(|slot| slot["time"].as_u64().unwrap()).collect();
        assert_eq!(times.len(), 70, "{path} {frame}");
        assert!(times.iter().all(|time| time % step == 0) && times.is_sorted(), "{path} {frame}: {times:?}");
        assert!(series[69][key].is_number(), "{path} {frame}: {}", series[69]);
    }
    let refused: &[(&str, Form<'_>, u16, &str)] = &[
        ("/nodes/pve1/rrddata", &[], 400, "Parameter verification failed."),
        ("/nodes/pve1/rrddata", &[("timeframe", "decade")], 400, "Parameter verification failed."),
        (
            "/nodes/pve1/qemu/999/rrddata",
            &[("timeframe", "hour")],
            500,
            "RRD error: opening '/var/lib/rrdcached/db/pve2-vm/999': No such file or directory",
        ),
    ];
    for (path, form, status, text) in refused {
        let (got, reason, _) = site.ask("GET", path, form).await;
        assert_eq!((got, reason.as_str()), (*status, *text), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_by_itself_becomes_a_cluster_once() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    assert_eq!(site.fine("GET", "/cluster/config/totem", &[]).await, Value::Null);
    assert_eq!(site.fine("GET", "/cluster/config/qdevice", &[]).await, json!({}));
    assert_eq!(site.ask("GET", "/cluster/config/join", &[]).await.0, 500);
    let form = [("clustername", "lab"), ("link0", "192.0.2.77,priority=3")];
    site.done("POST", "/cluster/config", &form).await;
    assert_eq!(site.fine("GET", "/cluster/config/totem", &[]).await["cluster_name"], "lab");
    let nodes = site.fine("GET", "/cluster/config/nodes", &[]).await;
    assert_eq!((&nodes[0]["ring0_addr"], &nodes[0]["nodeid"]), (&json!("192.0.2.77"), &json!("1")));
    let status = site.fine("GET", "/cluster/status", &[]).await;
    assert_eq!(
        (&status[0]["name"], &status[0]["quorate"], &status[1]["nodeid"]),
        (&json!("lab"), &json!(1), &json!(1))
    );
    let (status, reason, _) = site.ask("POST", "/cluster/config", &form).await;
    assert_eq!((status, reason.as_str()), (500, "cluster config '/etc/pve/corosync.conf' already exists"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_set_up_is_as_it_was_installed() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let names = |list: &Value| -> Vec<String> {
        list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (path, first) in [
        ("/cluster/acme", "account"),
        ("/cluster/acme/directories", "Let's Encrypt V2"),
        ("/cluster/ceph", "metadata"),
        ("/cluster/notifications", "endpoints"),
        ("/cluster/notifications/endpoints", "gotify"),
        ("/cluster/notifications/endpoints/sendmail", "mail-to-root"),
        ("/cluster/notifications/targets", "mail-to-root"),
        ("/cluster/notifications/matchers", "default-matcher"),
    ] {
        assert_eq!(names(&site.fine("GET", path, &[]).await)[0], first, "{path}");
    }
    let fields = site.fine("GET", "/cluster/notifications/matcher-field-values", &[]).await;
    assert!(fields.as_array().unwrap().contains(&json!({"value": "pve1", "field": "hostname"})), "{fields}");
    for (path, text) in [
        ("/cluster/ceph/status", "binary not installed: /usr/bin/ceph-mon"),
        ("/cluster/metrics/server/none", "status server entry 'none' does not exist"),
        ("/cluster/acme/plugins/none", "ACME plugin 'none' not defined"),
    ] {
        let (status, reason, _) = site.ask("GET", path, &[]).await;
        assert_eq!((status, reason.as_str()), (500, text), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_is_offered_and_nobody_comes() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    site.done("POST", VMS, &[("vmid", "101"), ("vga", "serial0"), ("serial0", "socket")]).await;
    let plain = site.fine("POST", &format!("{VMS}/100/vncproxy"), &[]).await;
    let serial = site.fine("POST", &format!("{VMS}/101/vncproxy"), &[]).await;
    let ticket = |answer: &Value| answer["ticket"].as_str().unwrap().to_owned();
    assert!(ticket(&plain).starts_with(&format!("{}:PVEVNC:", plain["password"].as_str().unwrap())), "{plain}");
    assert!(ticket(&serial).starts_with("PVEVNC:") && serial["password"].is_null(), "{serial}");
    assert!(plain["cert"].as_str().unwrap().starts_with("-----BEGIN CERTIFICATE"), "{plain}");
    assert_eq!((&plain["port"], &plain["user"]), (&json!("5900"), &json!("root@pam")));
    assert_eq!(site.ended(plain["upid"].as_str().unwrap()).await.0, "connection timed out");
    let terminal = site.fine("POST", &format!("{VMS}/101/termproxy"), &[]).await;
    let (end, _) = site.ended(terminal["upid"].as_str().unwrap()).await;
    assert!(end.contains("qm terminal 101 -escape 0 -iface serial0' failed: exit code 1"), "{end}");
    let (status, reason, _) = site.ask("POST", &format!("{VMS}/999/termproxy"), &[]).await;
    assert_eq!((status, reason.as_str()), (500, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_the_lock_writes_down_networks_and_takes_them_back() {
    let site = Site::begin_as_root(PveVersion::V9).await;
    let token = site.fine("POST", "/cluster/sdn/lock", &[]).await;
    let token = token.as_str().unwrap();
    let zone = [("zone", "inner"), ("type", "simple")];
    let refused = "invalid lock token provided!";
    let rows: [(&str, &str, Form<'_>); 4] = [
        ("POST", "/cluster/sdn/zones", &zone),
        ("POST", "/cluster/sdn/lock", &[]),
        ("PUT", "/cluster/sdn", &[("lock-token", "another")]),
        ("DELETE", "/cluster/sdn/lock", &[]),
    ];
    for (method, path, form) in rows {
        let (status, reason, _) = site.ask(method, path, form).await;
        assert!(status == 500 && reason.contains(refused), "{method} {path}: {status} {reason}");
    }
    let with_token = [zone[0], zone[1], ("lock-token", token)];
    site.fine("POST", "/cluster/sdn/zones", &with_token).await;
    let back = [("lock-token", token), ("release-lock", "1")];
    site.fine("POST", "/cluster/sdn/rollback", &back).await;
    assert_eq!(site.fine("GET", "/cluster/sdn/zones", &[]).await, json!([]));
    site.fine("POST", "/cluster/sdn/zones", &zone).await;
    let (status, reason, _) = site.ask("POST", "/cluster/sdn/lock", &[]).await;
    assert!(status == 500 && reason.contains("configuration has pending changes"), "{status} {reason}");
    let token = site.fine("POST", "/cluster/sdn/lock", &[("allow-pending", "1")]).await;
    site.done("PUT", "/cluster/sdn", &[("lock-token", token.as_str().unwrap()), ("release-lock", "1")]).await;
    site.fine("POST", "/cluster/sdn/lock", &[]).await;
    site.fine("DELETE", "/cluster/sdn/lock", &[("force", "1")]).await;
    site.fine("DELETE", "/cluster/sdn/zones/inner", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_emptied_and_what_can_not_move_is_named() {
    let mut site = Site::serve(Options { seed: two_nodes(), pve: PveVersion::V8, ..Options::default() }).await;
    site.log_in("root@pam", "secret").await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    site.done("POST", VMS, &[("vmid", "101"), ("memory", "64"), ("scsi0", "local-lvm:1")]).await;
    site.done("POST", &format!("{VMS}/101/status/start"), &[]).await;
    let all = "/nodes/pve1/migrateall";
    let refused: [(Form<'_>, u16, &str); 3] = [
        (&[("target", "pve2")], 500, "either 'maxworkers' parameter or max_workers in datacenter.cfg must be set!"),
        (&[("target", "pve9"), ("maxworkers", "1")], 500, "no such cluster node 'pve9'"),
        (&[("target", "pve1"), ("maxworkers", "1")], 400, "Parameter verification failed."),
    ];
    for (form, status, text) in refused {
        let (got, reason, _) = site.ask("POST", all, form).await;
        assert_eq!((got, reason.as_str()), (status, text), "{form:?}");
    }
    let log = site.done("POST", all, &[("target", "pve2"), ("maxworkers", "2")]).await;
    let told = [
        "Check VM 100: precondition check passed",
        "Migrating VM 100",
        "Check VM 101: skip VM 101 - precondition check failed:",
        "  Has local disks: local-lvm:vm-101-disk-0",
        "All jobs finished, used 1 workers in total.",
    ];
    assert_eq!(log[..told.len()], told);
    let node = |vmid: u32| site.running.world().state().vms[&vmid].node.clone();
    assert_eq!((node(100).as_str(), node(101).as_str()), ("pve2", "pve1"));
    let log = site.done("POST", "/nodes/pve1/suspendall", &[]).await;
    assert_eq!(log[0], "Suspending VM 101");
    assert_eq!(site.config(101, false).await["lock"], "suspended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_stops_and_starts_unless_the_api_stands_on_it() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let service = |name: &str, what: &str| format!("/nodes/pve1/services/{name}/{what}");
    site.done("POST", &service("pvestatd", "stop"), &[]).await;
    let shown = site.fine("GET", &service("pvestatd", "state"), &[]).await;
    assert_eq!((&shown["state"], &shown["active-state"]), (&json!("dead"), &json!("inactive")));
    site.done("POST", &service("pvestatd", "restart"), &[]).await;
    assert_eq!(site.fine("GET", &service("pvestatd", "state"), &[]).await["state"], "running");
    let (end, _) = site.task("POST", &service("pveproxy", "stop"), &[]).await;
    assert_eq!(end, "invalid service cmd 'pveproxy stop': refusing to stop essential service!");
    let huge = [("start", "99999999999999999999999")];
    assert_eq!(site.fine("GET", "/nodes/pve1/tasks", &huge).await, json!([]), "nothing comes after so many");
}
