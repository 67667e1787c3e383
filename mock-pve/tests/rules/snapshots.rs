//! Snapshots: what can be seen while one is taken, gone back to and deleted.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use super::site::{Site, VMS};

/// VM 100 with disks that take a moment each.
async fn with_disks(site: &Site) {
    let disks: Vec<String> = (0..10).map(|number| format!("scsi{number}")).collect();
    let form: Vec<(&str, &str)> = disks.iter().map(|key| (key.as_str(), "local-lvm:1")).collect();
    site.done("POST", VMS, &[&[("vmid", "100"), ("ide2", "local-lvm:cloudinit")][..], &form].concat()).await;
}

/// Begins a task. Says its id and the config once that lock is on it.
async fn locked(site: &Site, (method, path): (&str, &str), form: &[(&str, &str)], lock: &str) -> (String, Value) {
    let upid = site.fine(method, path, form).await.as_str().unwrap().to_owned();
    loop {
        let config = site.config(100, false).await;
        if config["lock"] == lock {
            return (upid, config);
        }
        let status = site.running.world().state().tasks.by_upid[&upid].status.clone();
        assert_eq!(status, None, "it ended without a lock");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_is_locked_and_its_snapshot_says_what_becomes_of_it() {
    let site = Site::slowly(1.0).await;
    with_disks(&site).await;
    let all = format!("{VMS}/100/snapshot");
    let one = format!("{all}/one");
    let state_of = async || {
        let list = site.fine("GET", &all, &[]).await;
        let entry = list.as_array().unwrap().iter().find(|entry| entry["name"] == "one").cloned();
        entry.map(|entry| entry["snapstate"].clone())
    };
    let (upid, config) = locked(&site, ("POST", &all), &[("snapname", "one")], "snapshot").await;
    assert_eq!(config["parent"], Value::Null, "nobody comes from it yet");
    assert_eq!(state_of().await, Some(json!("prepare")));
    let (_, reason, _) = site.ask("PUT", &format!("{VMS}/100/config"), &[("cores", "2")]).await;
    assert_eq!(reason, "VM is locked (snapshot)");
    let (end, _) = site.task("POST", &format!("{one}/rollback"), &[]).await;
    assert_eq!(end, "unable to rollback to incomplete snapshot (snapstate = prepare)");
    let (end, log) = site.ended(&upid).await;
    assert_eq!(end, "OK");
    assert!(!log.iter().any(|line| line.contains("drive-ide2")), "a cloud-init drive is a CD-ROM: {log:?}");
    assert_eq!(state_of().await, Some(Value::Null));
    let config = site.config(100, false).await;
    assert_eq!((&config["parent"], &config["lock"]), (&json!("one"), &Value::Null));

    let (upid, _) = locked(&site, ("POST", &format!("{one}/rollback")), &[], "rollback").await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "VM is locked (rollback)");
    assert_eq!(site.ended(&upid).await.0, "OK");
    assert_eq!(site.config(100, false).await["lock"], Value::Null);

    let (upid, _) = locked(&site, ("DELETE", &one), &[], "snapshot-delete").await;
    assert_eq!(state_of().await, Some(json!("delete")));
    assert_eq!(site.ended(&upid).await.0, "OK");
    assert_eq!(state_of().await, None);
    let config = site.config(100, false).await;
    assert_eq!((&config["parent"], &config["lock"], &config["unused0"]), (&Value::Null, &Value::Null, &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_stopped_is_taken_back() {
    let site = Site::slowly(1.0).await;
    with_disks(&site).await;
    let (upid, _) = locked(&site, ("POST", &format!("{VMS}/100/snapshot")), &[("snapname", "one")], "snapshot").await;
    site.running.world().stop_task(&upid);
    let (end, log) = site.ended(&upid).await;
    assert_eq!(end, "received interrupt", "{log:?}");
    assert!(log.contains(&"snapshot create failed: starting cleanup".to_owned()), "{log:?}");
    let state = site.running.world().state();
    assert!(state.vms[&100].snapshots.is_empty() && !state.vms[&100].config.contains_key("lock"));
    assert!(state.volumes.values().all(|volume| volume.snapshots.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_rule_says_what_can_have_a_snapshot() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.fine("PUT", "/storage/local", &[("content", "images,iso,backup,import,snippets,vztmpl")]).await;
    for (vmid, format, can) in [("100", "raw", false), ("101", "qcow2", true)] {
        let disk = format!("local:1,format={format}");
        site.done("POST", VMS, &[("vmid", vmid), ("scsi0", &disk)]).await;
        let has = site.fine("GET", &format!("{VMS}/{vmid}/feature"), &[("feature", "snapshot")]).await;
        assert_eq!(has["hasFeature"], json!(u8::from(can)), "{format}");
        let (end, _) = site.task("POST", &format!("{VMS}/{vmid}/snapshot"), &[("snapname", "one")]).await;
        assert_eq!(end, if can { "OK" } else { "snapshot feature is not available" }, "{format}");
    }
}
