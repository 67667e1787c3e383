use std::io::{Read as _, Seek as _, SeekFrom};
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::world::seed::{NodeSeed, Seed, StorageSeed, VmSeed};
use crate::world::{PveVersion, Settings};

const WAIT: Duration = Duration::from_secs(20);

fn vm(vmid: u32, node: &str, status: &str, config: &[(&str, &str)]) -> VmSeed {
    VmSeed {
        vmid,
        node: Some(node.to_owned()),
        status: Some(status.to_owned()),
        config: config.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect(),
        ..VmSeed::default()
    }
}

fn storage(name: &str, kind: &str, options: &serde_json::Value) -> StorageSeed {
    StorageSeed {
        storage: name.to_owned(),
        kind: kind.to_owned(),
        capacity_gib: None,
        options: options.as_object().cloned().unwrap_or_default(),
    }
}

fn seed(vms: Vec<VmSeed>) -> Seed {
    let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
    let mut seed = Seed {
        nodes: vec![node("pve1"), node("pve2"), node("pve3")],
        cluster_name: Some("lab".to_owned()),
        vms,
        ..Seed::single_node()
    };
    seed.storages.push(storage("files", "dir", &json!({"path": "/srv/files", "content": "images,iso"})));
    seed.storages.push(storage("nfs", "nfs", &json!({"path": "/mnt/pve/nfs", "content": "images,iso"})));
    seed.storages.push(storage("only1", "lvmthin", &json!({"content": "images", "nodes": "pve1"})));
    seed
}

fn begun(dir: &std::path::Path, seed: Seed) -> World {
    let settings = Settings { dir: dir.to_owned(), time_scale: 500.0, rng_seed: 1, pve: PveVersion::V8 };
    World::new(seed, settings).unwrap()
}

fn world(dir: &std::path::Path, vms: Vec<VmSeed>) -> World {
    begun(dir, seed(vms))
}

fn to(target: &str) -> Migrate {
    Migrate { target: target.to_owned(), ..Migrate::default() }
}

async fn finish(world: &World, upid: &str) -> (String, String) {
    let status = world.task_end(upid, WAIT).await.unwrap();
    (status, world.state().tasks.by_upid[upid].log.join("\n"))
}

#[tokio::test]
async fn local_disks_move_with_a_stopped_vm_and_may_change_their_storage() {
    let dir = tempfile::tempdir().unwrap();
    let config = [
        ("scsi0", "local-lvm:vm-100-disk-0,size=64M"),
        ("unused0", "local-lvm:vm-100-disk-1"),
        ("boot", "order=scsi0"),
    ];
    let world = world(dir.path(), vec![vm(100, "pve1", "stopped", &config)]);
    let root = Caller::root();
    let from = world.boot(100).unwrap().disk.unwrap();
    std::fs::OpenOptions::new()
        .write(true)
        .open(&from)
        .and_then(|mut f| {
            use std::io::Write as _;
            f.write_all(b"marked")
        })
        .unwrap();
    let found = world.migration_preconditions("pve1", 100, None).unwrap();
    assert_eq!((found.allowed.len(), found.disks.len(), found.running), (2, 2, false));
    let upid = world.migrate_vm(&root, "pve1", 100, to("pve2")).unwrap();
    assert!(upid.starts_with("UPID:pve1:") && upid.contains(":qmigrate:100:"));
    let (status, log) = finish(&world, &upid).await;
    assert_eq!(status, "OK", "{log}");
    let disk = world.boot(100).unwrap().disk.unwrap();
    assert!(
        !from.exists() && disk.to_string_lossy().contains("/nodes/pve2/") && world.state().vms[&100].node == "pve2"
    );
    assert!(std::fs::read(&disk).unwrap().starts_with(b"marked"));
    let ask = Migrate { storages: Some("files".to_owned()), ..to("pve3") };
    let (status, log) = finish(&world, &world.migrate_vm(&root, "pve2", 100, ask).unwrap()).await;
    assert_eq!(status, "OK", "{log}");
    assert_eq!(world.state().vms[&100].config["scsi0"], "files:100/vm-100-disk-0.raw,size=64M");
    assert_eq!(world.state().vms[&100].config["unused0"], "files:100/vm-100-disk-1.raw");
}

#[tokio::test]
async fn a_running_guest_keeps_its_disk_open_while_it_moves() {
    let dir = tempfile::tempdir().unwrap();
    let config = [("scsi0", "local-lvm:vm-100-disk-0,size=8M"), ("boot", "order=scsi0")];
    let world = world(dir.path(), vec![vm(100, "pve1", "running", &config)]);
    let root = Caller::root();
    let old = world.boot(100).unwrap().disk.unwrap();
    let refused = world.migrate_vm(&root, "pve1", 100, to("pve2")).unwrap_err();
    assert_eq!(refused.text(), "can't migrate running VM without --online");
    let (status, log) =
        finish(&world, &world.migrate_vm(&root, "pve1", 100, Migrate { online: true, ..to("pve2") }).unwrap()).await;
    assert_eq!(status, "migration aborted");
    assert!(log.contains("without with-local-disks option"), "{log}");
    let ask = Migrate { online: true, local_disks: true, ..to("pve2") };
    let (status, log) = finish(&world, &world.migrate_vm(&root, "pve1", 100, ask).unwrap()).await;
    assert_eq!(status, "OK", "{log}");
    assert!(world.pid_of(100).is_some() && old.is_symlink());
    let mut file = std::fs::File::open(&old).unwrap();
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), 8 << 20);
    assert_eq!(file.read(&mut [0]).unwrap(), 0);
    // And back: the link makes room for the disk.
    let ask = Migrate { online: true, local_disks: true, ..to("pve1") };
    let (status, log) = finish(&world, &world.migrate_vm(&root, "pve2", 100, ask).unwrap()).await;
    assert_eq!(status, "OK", "{log}");
    assert!(old.exists() && !old.is_symlink());
    world.switch_off(100);
    assert!(old.exists() && world.state().vms[&100].trails.is_empty());
}

#[tokio::test]
async fn what_stands_against_a_migration_is_said_in_the_originals_words() {
    let dir = tempfile::tempdir().unwrap();
    let iso = [("ide2", "files:iso/x.iso,media=cdrom")];
    let vms = vec![
        vm(100, "pve1", "stopped", &[("scsi0", "only1:vm-100-disk-0,size=4M")]),
        vm(101, "pve1", "stopped", &iso),
        vm(102, "pve1", "stopped", &[("hostpci0", "0000:01:00.0")]),
        vm(103, "pve1", "stopped", &[("lock", "backup")]),
        vm(104, "pve1", "stopped", &[("template", "1"), ("scsi0", "files:104/base-104-disk-0.raw,size=4M")]),
        vm(105, "pve1", "stopped", &[("scsi0", "files:104/base-104-disk-0.raw/105/vm-105-disk-0.qcow2,size=4M")]),
        vm(106, "pve1", "stopped", &[("scsi0", "nfs:106/vm-106-disk-0.raw,size=4M")]),
    ];
    let world = world(dir.path(), vms);
    let root = Caller::root();
    let refused = |vmid, target: &str| world.migrate_vm(&root, "pve1", vmid, to(target)).unwrap_err().text();
    assert_eq!(refused(100, "pve2"), "storage 'only1' is not available on node 'pve2'");
    assert_eq!(refused(100, "pve9"), "no such cluster node 'pve9'");
    assert!(refused(100, "pve1").contains("target: target is local node."));
    assert_eq!(refused(103, "pve2"), "VM is locked (backup)");
    for (vmid, why) in [
        (101, "can't migrate local disk 'files:iso/x.iso': local cdrom image"),
        (102, "can't migrate VM which uses local devices: hostpci0"),
        (104, "referenced by linked clone(s)"),
        (105, "it is a linked clone of '104/base-104-disk-0.raw'"),
    ] {
        let (status, log) = finish(&world, &world.migrate_vm(&root, "pve1", vmid, to("pve2")).unwrap()).await;
        assert_eq!(status, "migration aborted", "{vmid}");
        assert!(log.contains(why), "{vmid}: {log}");
        assert_eq!(world.state().vms[&vmid].config.get("lock"), None, "{vmid} stays locked");
    }
    let (status, log) = finish(&world, &world.migrate_vm(&root, "pve1", 106, to("pve2")).unwrap()).await;
    assert_eq!((status.as_str(), world.state().vms[&106].node.as_str()), ("OK", "pve2"), "{log}");
    let found = world.migration_preconditions("pve1", 100, None).unwrap();
    assert!(found.allowed.is_empty() && found.refused["pve2"].contains("only1"), "{found:?}");
}

#[tokio::test]
async fn a_guest_goes_where_it_is_replicated_to_and_its_job_turns_round() {
    let dir = tempfile::tempdir().unwrap();
    let config = [("scsi0", "tank:vm-100-disk-0,size=64M"), ("boot", "order=scsi0")];
    let mut seed = seed(vec![vm(100, "pve1", "running", &config)]);
    seed.storages.push(storage("tank", "zfspool", &json!({"content": "images", "pool": "tank"})));
    let job = json!({"id": "100-0", "type": "local", "guest": 100, "target": "pve2", "source": "pve1"});
    seed.replication_jobs.push(job.as_object().cloned().unwrap());
    let world = begun(dir.path(), seed);
    let root = Caller::root();
    let ends = |world: &World| {
        let state = world.state();
        let job = &state.replication[0];
        (job["source"].as_str().unwrap().to_owned(), job["target"].as_str().unwrap().to_owned())
    };
    let live = |target: &str, force: bool| Migrate { online: true, local_disks: true, force, ..to(target) };
    let upid = world.migrate_vm(&root, "pve1", 100, live("pve2", false)).unwrap();
    let (status, log) = finish(&world, &upid).await;
    assert_eq!(status, "OK", "{log}");
    assert!(log.contains("replicating disk images") && log.contains("full sync 'tank:vm-100-disk-0'"), "{log}");
    assert_eq!(ends(&world), ("pve2".to_owned(), "pve1".to_owned()));

    let upid = world.migrate_vm(&root, "pve2", 100, live("pve3", false)).unwrap();
    let (_, log) = finish(&world, &upid).await;
    let text = "Cannot live-migrate replicated VM to node 'pve3' - not a replication target. Use 'force' to override.";
    assert!(log.contains(text) && world.state().vms[&100].node == "pve2", "{log}");
    let upid = world.migrate_vm(&root, "pve2", 100, live("pve3", true)).unwrap();
    let (status, log) = finish(&world, &upid).await;
    assert_eq!(status, "OK", "{log}");
    assert!(log.contains("WARNING: Node 'pve3' is not a replication target."), "{log}");
    assert_eq!(ends(&world), ("pve3".to_owned(), "pve1".to_owned()));

    world.state().replication[0].insert("remove_job".to_owned(), json!("full"));
    let upid = world.migrate_vm(&root, "pve3", 100, live("pve1", true)).unwrap();
    let (_, log) = finish(&world, &upid).await;
    let text = "refusing to migrate replicated VM whose replication job is marked for removal";
    assert!(log.contains(text) && world.state().vms[&100].node == "pve3", "{log}");
}
