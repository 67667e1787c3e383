//! `recast inventory` against doubles: what it writes seeds another one, which writes the same.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use assert_cmd::Command;
use mock_pve::scenario::Scenario;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::seed::Seed;
use serde_json::{Value, json};

fn double(seed: Seed, dir: &Path, scenario: Option<Scenario>) -> (tokio::runtime::Runtime, Running) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let options = Options {
        seed,
        state: Some(dir.to_owned()),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        time_scale: 100.0,
        scenario,
        ..Options::default()
    };
    let running = runtime.block_on(serve::start(options)).unwrap_or_else(|error| panic!("{error}"));
    (runtime, running)
}

fn recast(folder: &Path, running: &Running) -> Command {
    let mut command = Command::cargo_bin("recast").unwrap();
    command.env_clear().env("HOME", folder).current_dir(folder).arg("--site").arg(&running.ready.site_file);
    command
}

fn inventory(folder: &Path, running: &Running, more: &[&str]) -> (Value, String) {
    let output = recast(folder, running).arg("inventory").args(more).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}")), told)
}

/// A site with what sites have: several nodes, shared and local storages, pools, HA, files, a template with a clone.
fn site() -> Seed {
    let mut seed: Value = json!({
        "nodes": [
            {"name": "alpha", "ip": "10.9.0.1", "cpus": 8, "memory_mb": 32768, "network": [
                {"iface": "vmbr0", "type": "bridge", "method": "static", "active": 1, "autostart": 1, "cidr": "10.9.0.1/24",
                 "address": "10.9.0.1", "netmask": "24", "gateway": "10.9.0.254", "bridge_ports": "eno1"},
            ]},
            {"name": "beta", "ip": "10.9.0.2", "cpus": 32, "memory_mb": 131_072},
        ],
        "cluster_name": "basement",
        "storages": [
            {"storage": "local", "type": "dir", "path": "/var/lib/vz", "content": "backup,import,iso,snippets,vztmpl"},
            {"storage": "local-lvm", "type": "lvmthin", "vgname": "pve", "thinpool": "data", "content": "images,rootdir"},
            {"storage": "nas", "type": "nfs", "server": "10.9.0.9", "export": "/srv/vms", "content": "images", "capacity_gib": 2000.0},
        ],
        "pools": [{"poolid": "prod", "comment": "for real", "vms": [100], "storages": ["nas"]}],
        "ha_resources": [{"sid": "vm:100", "state": "ignored", "comment": "by hand"}],
        "volumes": [{"volid": "local:iso/rescue.iso", "node": "beta", "content": "iso", "format": "iso", "virtual_size": 700_000}],
        "vms": [
            {"vmid": 100, "node": "alpha", "status": "running", "config": {"name": "database", "description": "the\nimportant one",
             "memory": "8192", "cores": "4", "tags": "prod;talos", "net0": "virtio=DE:AD:BE:EF:00:01,bridge=vmbr0",
             "scsi0": "nas:100/vm-100-disk-0.qcow2,serial=S3CRET,size=40G", "onboot": "1", "agent": "enabled=1"}},
            {"vmid": 900, "node": "beta", "config": {"name": "golden", "template": "1", "scsi0": "local-lvm:base-900-disk-0,size=4G"}},
            {"vmid": 901, "node": "beta", "config": {"name": "copy", "ide2": "local:iso/rescue.iso,media=cdrom",
             "scsi0": "local-lvm:vm-901-disk-0,size=4G", "unused0": "local-lvm:vm-901-disk-1"}},
        ],
    });
    let standard = serde_json::to_value(Seed::single_node()).unwrap();
    for key in ["users", "roles", "acl", "realms"] {
        seed[key] = standard[key].clone();
    }
    serde_json::from_value(seed).unwrap()
}

#[test]
fn what_it_writes_seeds_a_double_whose_inventory_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (_first_runtime, first) = double(site(), &folder.path().join("first"), None);
    let (written, told) = inventory(folder.path(), &first, &[]);
    assert_eq!(told, "", "nothing was left out");
    let vms = written["vms"].as_array().unwrap();
    assert_eq!(vms.len(), 3);
    assert_eq!((vms[0]["node"].as_str(), vms[0]["status"].as_str()), (Some("alpha"), Some("running")));
    assert_eq!(vms[0]["config"]["description"], "the\nimportant one");
    assert_eq!(written["networks"][0]["subnet"], "10.9.0.0/24");
    assert_eq!(written["nodes"][1]["memory_mb"], 131_072);
    assert_eq!(written["ha_resources"][0]["sid"], "vm:100");
    assert_eq!(written["volumes"][0]["volid"], "local:iso/rescue.iso");
    let changed: Vec<_> = first.audit().deeds();
    assert!(changed.is_empty(), "it reads only: {changed:?}");

    let file = folder.path().join("site.json");
    fs::write(&file, written.to_string()).unwrap();
    let (_second_runtime, second) = double(Seed::load(&file).unwrap(), &folder.path().join("second"), None);
    let (again, _) = inventory(folder.path(), &second, &[]);
    assert_eq!(again, written, "{again:#}");
}

#[test]
fn a_redacted_one_shows_nothing_of_the_site_and_seeds_a_double_too() {
    let folder = tempfile::tempdir().unwrap();
    let (_first_runtime, first) = double(site(), &folder.path().join("first"), None);
    let (written, _) = inventory(folder.path(), &first, &["--redact"]);
    let text = written.to_string().to_lowercase();
    for word in
        ["alpha", "beta", "basement", "10.9.0", "nas", "prod", "database", "important", "s3cret", "de:ad", "rescue"]
    {
        assert!(!text.contains(word), "{word} is left: {text}");
    }
    let file = folder.path().join("site.json");
    fs::write(&file, written.to_string()).unwrap();
    let (_second_runtime, second) = double(Seed::load(&file).unwrap(), &folder.path().join("second"), None);
    let (again, _) = inventory(folder.path(), &second, &["--redact"]);
    assert_eq!(again["vms"], written["vms"]);
}

#[test]
fn what_a_caller_may_not_see_is_left_out_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let scenario = "faults: [{on: {pve: 'GET /cluster/ha/resources'}, then: {status: 403, reason: 'Permission check failed (/, \
                    Sys.Audit)'}}]";
    let scenario = Scenario::parse("x", scenario).unwrap();
    let (_runtime, running) = double(site(), &folder.path().join("double"), Some(scenario));
    let (written, told) = inventory(folder.path(), &running, &[]);
    assert!(
        told.contains("the HA resources can't be read and are left out: Permission check failed (/, Sys.Audit)"),
        "{told}"
    );
    assert_eq!(written["ha_resources"], json!([]));
    let output = recast(folder.path(), &running).args(["-o", "json", "inventory"]).output().unwrap();
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (document["verb"].as_str(), document["inventory"]["vms"].as_array().map(Vec::len)),
        (Some("inventory"), Some(3))
    );
}

#[test]
fn a_rehearsal_begins_in_it_and_follows_a_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let (_runtime, running) = double(site(), &folder.path().join("double"), None);
    let (mut written, _) = inventory(folder.path(), &running, &[]);
    // The profile's node is one of the site's.
    written["nodes"][0]["name"] = json!("pve1");
    for vm in written["vms"].as_array_mut().unwrap().iter_mut().filter(|vm| vm["node"] == "alpha") {
        vm["node"] = json!("pve1");
    }
    fs::write(folder.path().join("site.json"), written.to_string()).unwrap();
    fs::write(
        folder.path().join("unlucky.yaml"),
        "faults:\n- {name: busy, on: {pve: 'GET /cluster/resources'}, nth: 1, then: {stall: 100ms}}\n- {name: \
         unseen, on: {ssh: 'rm **'}, then: {status: 1}}\n",
    )
    .unwrap();
    let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/single.yaml");
    let rehearse = |more: &[&str]| {
        let mut command = Command::cargo_bin("recast").unwrap();
        command.env_clear().env("HOME", folder.path()).current_dir(folder.path()).arg("-p").arg(&profile);
        command.args(["rehearse", "--inventory", "site.json"]).args(more).args(["--", "status"]);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, shown, told) = rehearse(&["--scenario", "unlucky.yaml"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(shown.contains("single-cp-01"), "{shown}");
    assert!(
        told.contains("Scenario: busy: happened 1 times.") && told.contains("Scenario: unseen: never happened"),
        "{told}"
    );
    fs::write(folder.path().join("unlucky.yaml"), "fault:\n- {on: {ssh: x}, then: reset-befor}\n").unwrap();
    let (code, _, told) = rehearse(&["--scenario", "unlucky.yaml"]);
    assert_eq!(code, Some(3));
    assert!(
        told.contains("line 1, column 1: there is no key `fault` in the scenario (did you mean `faults`?)"),
        "{told}"
    );
}
