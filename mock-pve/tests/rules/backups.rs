//! Backups, the way back, and the end of older ones.

use std::path::PathBuf;

use mock_pve::world::PveVersion;
use mock_pve::world::backups::schedule::Timetable;
use serde_json::{Value, json};

use super::site::{Site, VMS};

const VZDUMP: &str = "/nodes/pve1/vzdump";
const CONTENT: &str = "/nodes/pve1/storage/local/content";
const PRUNE: &str = "/nodes/pve1/storage/local/prunebackups";

/// The file behind a volume.
fn file(site: &Site, volid: &str) -> PathBuf {
    let world = site.running.world();
    let state = world.state();
    let key = state.volume_key("pve1", volid).unwrap();
    state.file_of(world.dir(), &key)
}

/// A disk of 64 MiB with something in it, most of it nothing.
fn contents() -> Vec<u8> {
    let mut bytes = vec![0_u8; 64 << 20];
    for (at, byte) in [(0, 1), (70_000, 2), (40 << 20, 3), ((64 << 20) - 9_000, 4)] {
        bytes[at..at + 9_000].fill(byte);
    }
    bytes
}

/// A site with VM 100, whose disk holds [`contents`].
async fn site() -> Site {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let form = [
        ("vmid", "100"),
        ("name", "web"),
        ("cores", "2"),
        ("description", "first\nsecond"),
        ("scsi0", "local-lvm:0.0625,discard=on"),
        ("ide2", "local-lvm:cloudinit"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
    ];
    site.done("POST", VMS, &form).await;
    std::fs::write(file(&site, "local-lvm:vm-100-disk-0"), contents()).unwrap();
    site
}

/// Makes a backup. Says its volume id and the log.
async fn back_up(site: &Site, form: &[(&str, &str)]) -> (String, Vec<String>) {
    let known = volids(site).await;
    let log = site.done("POST", VZDUMP, &[&[("vmid", "100"), ("storage", "local")][..], form].concat()).await;
    let new = volids(site).await.into_iter().find(|volid| !known.contains(volid));
    (new.unwrap_or_else(|| panic!("{log:?}")), log)
}

async fn list(site: &Site) -> Vec<Value> {
    site.fine("GET", CONTENT, &[("content", "backup")]).await.as_array().unwrap().clone()
}

async fn volids(site: &Site) -> Vec<String> {
    list(site).await.iter().map(|entry| entry["volid"].as_str().unwrap().to_owned()).collect()
}

async fn as_operator(site: &mut Site, rights: &[(&str, &str)]) {
    site.fine("POST", "/access/users", &[("userid", "op@pve"), ("password", "longenough")]).await;
    for (path, roles) in rights {
        site.fine("PUT", "/access/acl", &[("path", path), ("roles", roles), ("users", "op@pve")]).await;
    }
    site.log_in("op@pve", "longenough").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_backups_are_refused_and_leave_nothing() {
    let mut site = site().await;
    for (form, key, text) in [
        (&[("storage", "local")][..], "vmid", "property is missing"),
        (&[("vmid", "100"), ("all", "1")][..], "all", "option conflicts with option 'vmid'"),
        (&[("vmid", "100"), ("exclude", "101")][..], "exclude", "option conflicts with option 'vmid'"),
        (&[("vmid", "100"), ("mode", "fast")][..], "mode", "does not have a value in the enumeration"),
        (
            &[("vmid", "100"), ("protected", "1")][..],
            "storage",
            "missing property - 'protected' requires this property",
        ),
        (
            &[("vmid", "100"), ("storage", "local"), ("notes-template", "{{nope}}")][..],
            "notes-template",
            "found unknown: variable 'nope' at char 4",
        ),
        (
            &[("vmid", "100"), ("maxfiles", "1"), ("prune-backups", "keep-last=1")][..],
            "prune-backups",
            "option conflicts with option 'maxfiles'",
        ),
    ] {
        let (status, _, body) = site.ask("POST", VZDUMP, form).await;
        let found = body["errors"][key].as_str().unwrap_or_default();
        assert!(status == 400 && found.contains(text), "{form:?}: {status} {body}");
    }
    for (form, end, line) in [
        (
            &[("vmid", "100"), ("storage", "local-lvm")][..],
            "could not get storage information for 'local-lvm': can't use storage 'local-lvm' for backups - wrong content type",
            "",
        ),
        (&[("vmid", "999")][..], "job errors", "ERROR: Backup of VM 999 failed - unable to find VM '999'"),
        (&[("vmid", "100"), ("dumpdir", "/tmp/none")][..], "dumpdir '/tmp/none' does not exist", ""),
        (
            &[("vmid", "100"), ("dumpdir", "/tmp"), ("storage", "local")][..],
            "cannot use options 'storage' and 'dumpdir' at the same time",
            "",
        ),
    ] {
        let (found, log) = site.task("POST", VZDUMP, form).await;
        assert_eq!(found, end, "{log:?}");
        assert!(log.iter().any(|found| found.starts_with(line)), "{log:?}");
    }
    // A VM of another node, or none at all, is nothing to do.
    assert_eq!(site.fine("POST", VZDUMP, &[("stop", "1")]).await, json!("OK"));
    let lock = |lock: Option<&str>| {
        let mut state = site.running.world().state();
        let config = &mut state.vms.get_mut(&100).unwrap().config;
        match lock {
            Some(lock) => config.insert("lock".to_owned(), lock.to_owned()),
            None => config.remove("lock"),
        };
    };
    lock(Some("clone"));
    let (_, log) = site.task("POST", VZDUMP, &[("vmid", "100")]).await;
    assert!(log.contains(&"ERROR: Backup of VM 100 failed - VM is locked (clone)".to_owned()), "{log:?}");
    assert_eq!(site.config(100, false).await["lock"], "clone", "another's lock stays");
    lock(None);
    assert!(volids(&site).await.is_empty());
    as_operator(&mut site, &[("/storage/local", "PVEDatastoreUser")]).await;
    let (end, _) = site.task("POST", VZDUMP, &[("vmid", "100")]).await;
    assert_eq!(end, "403 Permission check failed (/vms/100, VM.Backup)");
    // Of all VMs those that he may back up: none.
    site.done("POST", VZDUMP, &[("all", "1")]).await;
    let (status, reason, _) = site.ask("POST", VZDUMP, &[("vmid", "100"), ("storage", "local-lvm")]).await;
    assert_eq!(
        (status, reason.as_str()),
        (403, "Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)")
    );
    let (_, _, body) = site.ask("POST", VZDUMP, &[("vmid", "100"), ("dumpdir", "/tmp")]).await;
    assert_eq!(body["errors"]["dumpdir"], "Only root may set this option.");
    // Nobody else's backups are stopped.
    let (status, reason, _) = site.ask("POST", VZDUMP, &[("vmid", "100"), ("stop", "1")]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/nodes/pve1, Sys.Modify)"));
    let (status, reason, _) = site.ask("POST", VZDUMP, &[("vmid", "100"), ("prune-backups", "keep-last=1")]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/storage/local, Datastore.Allocate)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_over_the_wrong_vm_is_refused_and_touches_nothing() {
    let mut site = site().await;
    let (archive, _) = back_up(&site, &[]).await;
    std::fs::write(file(&site, "local-lvm:vm-100-disk-0"), [7; 4096]).unwrap();
    let before = site.config(100, false).await;
    let known: &'static str = Box::leak(archive.clone().into_boxed_str());
    let form = |more: &[(&'static str, &'static str)]| [&[("vmid", "100"), ("archive", known)][..], more].concat();
    let (status, reason, _) = site.ask("POST", VMS, &form(&[])).await;
    assert_eq!((status, reason.as_str()), (500, "unable to restore VM 100 - VM 100 already exists on node 'pve1'"));
    let (_, _, body) = site.ask("POST", VMS, &form(&[("force", "1"), ("scsi0", "local-lvm:1")])).await;
    assert_eq!(body["errors"]["scsi0"], "option conflicts with option 'archive'");
    for (archive, text) in [
        (
            "local:backup/vzdump-qemu-100-2020_01_01-00_00_00.vma",
            "volume 'local:backup/vzdump-qemu-100-2020_01_01-00_00_00.vma' does not exist",
        ),
        ("local:iso/x.iso", "unable to use volume local:iso/x.iso - content type needs to be 'backup'"),
        ("/var/lib/vz/dump/none.vma", "can't find file '/var/lib/vz/dump/none.vma'"),
        ("-", "pipe requires cli environment"),
    ] {
        let (status, reason, _) = site.ask("POST", VMS, &[("vmid", "100"), ("archive", archive), ("force", "1")]).await;
        assert_eq!((status, reason.as_str()), (500, text));
    }
    let (end, _) = site.task("POST", VMS, &form(&[("force", "1"), ("live-restore", "1")])).await;
    assert_eq!(end, "live-restore is only compatible with backup images from a Proxmox Backup Server");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("protection", "1")]).await;
    let (end, log) = site.task("POST", VMS, &form(&[("force", "1")])).await;
    assert_eq!(end, "unable to restore VM 100 - - protection mode enabled", "{log:?}");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("delete", "protection")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let (end, log) = site.task("POST", VMS, &form(&[("force", "1")])).await;
    assert_eq!(end, "unable to restore VM 100 - vm is running");
    assert!(log.iter().any(|line| line.contains("VM 100 state is NOT cleaned up.")), "{log:?}");
    site.done("POST", &format!("{VMS}/100/status/stop"), &[]).await;
    // A damaged archive is seen before anything is freed.
    let path = file(&site, &archive);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[2050] ^= 1;
    std::fs::write(&path, bad).unwrap();
    let (end, log) = site.task("POST", VMS, &form(&[("force", "1")])).await;
    assert!(end.starts_with("command 'vma extract -v -r ") && end.ends_with("failed: exit code 1"), "{end}");
    assert!(log.contains(&"vma: wrong vma header chechsum".to_owned()), "{log:?}");
    std::fs::write(path, good).unwrap();
    let rights =
        [("/storage/local", "PVEDatastoreAdmin"), ("/vms/100", "PVEVMUser"), ("/sdn/zones/localnetwork", "PVESDNUser")];
    as_operator(&mut site, &rights).await;
    let (status, reason, _) = site.ask("POST", VMS, &form(&[])).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed"));
    let (end, _) = site.task("POST", VMS, &form(&[("force", "1")])).await;
    let refused = "failed: 403 Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)";
    assert!(end.starts_with("command 'vma extract ") && end.ends_with(refused), "{end}");
    site.log_in("root@pam", "secret").await;
    let mut after = site.config(100, false).await;
    after["digest"] = before["digest"].clone();
    assert_eq!(after, before);
    assert_eq!(std::fs::read(file(&site, "local-lvm:vm-100-disk-0")).unwrap()[..4096], [7; 4096]);
}

#[tokio::test(flavor = "multi_thread")]
async fn real_devices_come_back_for_root_alone() {
    let mut site = site().await;
    site.fine("PUT", &format!("{VMS}/100/config"), &[("usb0", "host=1234:5678")]).await;
    let (archive, _) = back_up(&site, &[]).await;
    as_operator(&mut site, &[("/", "Administrator")]).await;
    let (end, _) = site.task("POST", VMS, &[("vmid", "200"), ("archive", &archive)]).await;
    assert_eq!(end, "only root can set 'usb0' config for real devices");
    site.log_in("root@pam", "secret").await;
    site.done("POST", VMS, &[("vmid", "201"), ("archive", &archive)]).await;
    assert_eq!(site.config(201, false).await["usb0"], "host=1234:5678");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_comes_back_byte_for_byte() {
    let site = site().await;
    let rules = format!("{VMS}/100/firewall");
    site.fine("POST", &format!("{rules}/rules"), &[("type", "in"), ("action", "DROP"), ("comment", "shut")]).await;
    site.fine("PUT", &format!("{rules}/options"), &[("enable", "1")]).await;
    let before = site.config(100, false).await;
    let mut archives = Vec::new();
    for compress in ["0", "gzip", "zstd", "lzo"] {
        let (archive, log) = back_up(&site, &[("compress", compress)]).await;
        assert!(log.iter().any(|line| line.starts_with("INFO: backup is sparse: 63.9")), "{log:?}");
        let real = std::fs::metadata(file(&site, &archive)).unwrap().len();
        assert!(real < 200_000, "{compress}: {real} bytes for 36000");
        archives.push(archive);
    }
    let entry = list(&site).await.into_iter().find(|entry| entry["volid"] == json!(archives[2])).unwrap();
    assert_eq!((&entry["format"], &entry["subtype"], &entry["vmid"]), (&json!("vma.zst"), &json!("qemu"), &json!(100)));
    let text = site.fine("GET", &format!("{VZDUMP}/extractconfig"), &[("volume", &archives[1])]).await;
    let text = text.as_str().unwrap();
    assert!(text.starts_with("#first\n#second\nboot: ") && text.contains("\nname: web\n"), "{text}");
    assert!(text.ends_with("#qmdump#map:scsi0:drive-scsi0:local-lvm:raw:\n"), "{text}");
    for (vmid, archive) in ["201", "202", "203", "205"].into_iter().zip(&archives) {
        let log = site.done("POST", VMS, &[("vmid", vmid), ("archive", archive), ("name", "copy")]).await;
        assert!(log.contains(&format!("new volume ID is 'local-lvm:vm-{vmid}-disk-0'")), "{log:?}");
        let volid = format!("local-lvm:vm-{vmid}-disk-0");
        assert_eq!(std::fs::read(file(&site, &volid)).unwrap(), contents(), "{archive}");
        let config = site.config(vmid.parse().unwrap(), false).await;
        assert_eq!(config["scsi0"], format!("{volid},discard=on,size=64M"));
        assert_eq!(config["ide2"], format!("local-lvm:vm-{vmid}-cloudinit,media=cdrom"));
        assert_eq!((&config["name"], &config["net0"]), (&json!("copy"), &before["net0"]));
        for same in ["description", "cores", "boot", "smbios1", "meta"] {
            assert_eq!(config[same], before[same], "{same}");
        }
        assert_ne!(config["vmgenid"], before["vmgenid"]);
        let copied = site.fine("GET", &format!("{VMS}/{vmid}/firewall/rules"), &[]).await;
        assert_eq!(copied[0]["comment"], "shut");
    }
    let unique = [("vmid", "204"), ("archive", archives[0].as_str()), ("unique", "1"), ("storage", "local-lvm")];
    site.done("POST", VMS, &unique).await;
    let config = site.config(204, false).await;
    assert!(config["net0"] != before["net0"] && config["smbios1"] != before["smbios1"], "{config}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_restore_brings_the_state_of_the_backup() {
    let site = site().await;
    let (archive, _) = back_up(&site, &[("compress", "zstd")]).await;
    let before = site.config(100, false).await;
    site.done("POST", &format!("{VMS}/100/snapshot"), &[("snapname", "later")]).await;
    site.fine("PUT", &format!("{VMS}/100/config"), &[("cores", "8"), ("scsi1", "local-lvm:0.0625")]).await;
    std::fs::write(file(&site, "local-lvm:vm-100-disk-0"), [7; 4096]).unwrap();
    let mut deeds = site.running.world().subscribe_deeds();
    let log = site.done("POST", VMS, &[("vmid", "100"), ("archive", &archive), ("force", "1")]).await;
    let deed = deeds.recv().await.unwrap();
    assert_eq!((deed.what.as_str(), deed.vmid, deed.object.as_deref()), ("restore", Some(100), Some(archive.as_str())));
    let mut after = site.config(100, false).await;
    assert_eq!(after["unused0"], "local-lvm:vm-100-disk-1", "{log:?}");
    for changed in ["digest", "vmgenid", "unused0"] {
        after[changed] = before[changed].clone();
    }
    after.as_object_mut().unwrap().remove("unused0");
    assert_eq!(after, before);
    assert_eq!(std::fs::read(file(&site, "local-lvm:vm-100-disk-0")).unwrap(), contents());
    let snapshots = site.fine("GET", &format!("{VMS}/100/snapshot"), &[]).await;
    assert_eq!(snapshots.as_array().unwrap().len(), 1, "only the present: {snapshots}");
    assert_eq!(log.last().map(String::as_str), Some("TASK OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pruning_never_takes_a_protected_backup() {
    let mut site = site().await;
    let (first, log) =
        back_up(&site, &[("protected", "1"), ("notes-template", "{{guestname}} of {{vmid}}\\nmore")]).await;
    assert!(log.contains(&"INFO: marking backup as protected".to_owned()), "{log:?}");
    let entries = list(&site).await;
    let entry = &entries[0];
    assert_eq!((&entry["notes"], &entry["protected"]), (&json!("web of 100"), &json!(1)));
    let whole = site.fine("GET", &format!("{CONTENT}/{first}"), &[]).await;
    assert_eq!((&whole["notes"], &whole["format"]), (&json!("web of 100\nmore"), &json!("raw")));
    for (beside, text) in [(".notes", "web of 100\nmore"), (".protected", "")] {
        let path = format!("{}{beside}", file(&site, &first).display());
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }
    let (end, _) = site.task("DELETE", &format!("{CONTENT}/{first}"), &[]).await;
    let name = first.strip_prefix("local:").unwrap();
    assert_eq!(end, format!("cannot remove protected volume '{name}' on 'local'"));
    let (status, reason, _) = site.ask("GET", PRUNE, &[]).await;
    assert_eq!((status, reason.as_str()), (500, "no prune-backups options configured for storage 'local'"));
    let (second, _) = back_up(&site, &[]).await;
    let (third, _) = back_up(&site, &[]).await;
    let (end, log) =
        site.task("POST", VZDUMP, &[("vmid", "100"), ("prune-backups", "keep-last=2"), ("remove", "0")]).await;
    assert!(end == "job errors" && log.iter().any(|line| line.contains("max backup limit of 2")), "{log:?}");
    let marks = site.fine("GET", PRUNE, &[("prune-backups", "keep-last=1"), ("vmid", "100")]).await;
    let mark =
        |volid: &str| marks.as_array().unwrap().iter().find(|entry| entry["volid"] == volid).unwrap()["mark"].clone();
    assert_eq!((mark(&first), mark(&second), mark(&third)), (json!("protected"), json!("remove"), json!("keep")));
    let log = site.done("DELETE", PRUNE, &[("prune-backups", "keep-last=1"), ("vmid", "100")]).await;
    assert_eq!(log[0], format!("removing backup '{second}'"));
    assert_eq!(volids(&site).await, [first.clone(), third.clone()]);
    let mut deeds = site.running.world().subscribe_deeds();
    let (fourth, log) = back_up(&site, &[("prune-backups", "keep-last=1")]).await;
    let deed = deeds.recv().await.unwrap();
    assert_eq!((deed.what.as_str(), deed.vmid), ("prune", Some(100)), "the auditor is told");
    assert!(log.contains(&format!("INFO: removing backup '{third}'")), "{log:?}");
    assert_eq!(volids(&site).await, [first.clone(), fourth.clone()]);
    let dump = file(&site, &fourth).parent().unwrap().to_owned();
    let left: Vec<String> =
        std::fs::read_dir(dump).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(
        left.iter().filter(|name| name.strip_suffix(".log").is_some()).count(),
        2,
        "each has its log, nothing else: {left:?}"
    );
    as_operator(&mut site, &[("/storage/local", "PVEDatastoreUser")]).await;
    let (status, reason, _) = site.ask("DELETE", PRUNE, &[("prune-backups", "keep-last=1")]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/storage/local, Datastore.Allocate)"));
    let (status, _, _) = site.ask("DELETE", &format!("{CONTENT}/{fourth}"), &[]).await;
    assert_eq!(status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_is_locked_for_its_backup_and_given_back() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:6")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let world = site.running.world();
    let locked = || world.state().vms[&100].config.get("lock").is_some_and(|lock| lock == "backup");
    let upid = site.fine("POST", VZDUMP, &[("vmid", "100")]).await;
    let upid = upid.as_str().unwrap();
    while !locked() {
        assert!(world.state().tasks.by_upid[upid].status.is_none(), "it ended without a lock");
        tokio::task::yield_now().await;
    }
    let (_, reason, _) = site.ask("PUT", &format!("{VMS}/100/config"), &[("cores", "2")]).await;
    let ended = world.state().tasks.by_upid[upid].status.is_some();
    assert!(ended || reason == "VM is locked (backup)", "{reason}");
    assert_eq!(site.ended(upid).await.0, "OK");
    assert!(!locked());
    let pid = world.pid_of(100);
    for (mode, line) in [("suspend", "INFO: suspending guest"), ("snapshot", "INFO: backup mode: snapshot")] {
        let (_, log) = back_up(&site, &[("mode", mode)]).await;
        assert!(log.contains(&line.to_owned()), "{log:?}");
        assert_eq!(world.pid_of(100), pid, "{mode}: the same process");
        assert!(!world.state().vms[&100].running.as_ref().unwrap().paused);
    }
    let mut deeds = world.subscribe_deeds();
    // There is no guest in it that would hear the button.
    let (end, log) = site.task("POST", VZDUMP, &[("vmid", "100"), ("mode", "stop"), ("stopwait", "1")]).await;
    assert_eq!(deeds.recv().await.unwrap().what, "shutdown");
    assert!(end == "job errors" && log.iter().any(|line| line.contains("qm shutdown 100")), "{log:?}");
    assert!(world.pid_of(100) == pid && !locked());
    site.fine("POST", "/cluster/ha/resources", &[("sid", "vm:100"), ("state", "started")]).await;
    let (_, log) = site.task("POST", VZDUMP, &[("vmid", "100"), ("mode", "stop")]).await;
    assert!(log.iter().any(|line| line.contains("Cannot execute a backup with stop mode on a HA managed")), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_asks_for_what_a_node_understands() {
    let site = site().await;
    for wrong in ["24:00", "x", "mon..never"] {
        let (_, _, body) = site.ask("POST", "/cluster/backup", &[("schedule", wrong), ("vmid", "100")]).await;
        let text = body["errors"]["schedule"].as_str().unwrap_or_default();
        assert!(text.contains(&format!("invalid calendar event '{wrong}'")), "{body}");
    }
    let form = [
        ("id", "nightly"),
        ("schedule", "mon..sun 04:30"),
        ("vmid", "100"),
        ("storage", "local"),
        ("mode", "snapshot"),
        ("compress", "zstd"),
        ("prune-backups", "keep-last=2"),
        ("notes-template", "{{guestname}}"),
        ("comment", "every night"),
        ("repeat-missed", "1"),
    ];
    site.fine("POST", "/cluster/backup", &form).await;
    let jobs = site.fine("GET", "/cluster/backup", &[]).await;
    let next = jobs[0]["next-run"].as_u64().unwrap();
    let analyzed = [("schedule", "mon..sun 04:30"), ("iterations", "3")];
    let turns = site.fine("GET", "/cluster/jobs/schedule-analyze", &analyzed).await;
    let turns: Vec<u64> = turns.as_array().unwrap().iter().map(|turn| turn["timestamp"].as_u64().unwrap()).collect();
    assert_eq!(turns, [next, next + 86_400, next + 2 * 86_400]);
    let mut timetable = Timetable::default();
    let due = {
        let mut state = site.running.world().state();
        assert!(timetable.due(&mut state, next - 60).0.is_empty());
        timetable.due(&mut state, next).0
    };
    let [due] = &due[..] else { panic!("{due:?}") };
    let form: Vec<(&str, &str)> = due.options.iter().map(|(key, values)| (key.as_str(), values[0].as_str())).collect();
    let log = site.done("POST", VZDUMP, &form).await;
    assert!(log.contains(&"INFO: prune older backups with retention: keep-last=2".to_owned()), "{log:?}");
    assert_eq!(list(&site).await[0]["notes"], "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_name_the_program_that_packs() {
    let site = site().await;
    site.done("POST", VMS, &[("vmid", "300")]).await;
    for (options, packer) in [
        (&[][..], "cat"),
        (&[("compress", "lzo")][..], "lzop"),
        (&[("compress", "1")], "lzop"),
        (&[("compress", "gzip")], "gzip --rsyncable"),
        (&[("compress", "gzip"), ("pigz", "3")], "pigz -p 3 --rsyncable"),
        (&[("compress", "zstd")], "zstd --threads=1"),
        (&[("compress", "zstd"), ("zstd", "5")], "zstd --threads=5"),
    ] {
        let form = [&[("vmid", "300"), ("storage", "local")], options].concat();
        let (end, log) = site.task("POST", VZDUMP, &form).await;
        let line = log.iter().find(|line| line.contains("/usr/bin/vma create"));
        assert!(
            end == "OK" && line.is_some_and(|line| line.contains(&format!(" exec:{packer} > "))),
            "{packer}: {log:?}"
        );
    }
}
