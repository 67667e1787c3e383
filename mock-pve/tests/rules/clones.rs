//! The rules of clones, templates and moved disks over the API: what each kind of storage can, what becomes of a
//! config, and what is left of a clone that fails.

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS, two_nodes};

/// A double with one storage of every kind that holds disks.
async fn with_all_kinds() -> Site {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let kinds: &[Form<'_>] = &[
        &[("storage", "files"), ("type", "dir"), ("path", "/srv/files"), ("content", "images")],
        &[("storage", "tree"), ("type", "btrfs"), ("path", "/srv/tree"), ("content", "images")],
        &[("storage", "tank"), ("type", "zfspool"), ("pool", "tank"), ("content", "images")],
        &[("storage", "ceph"), ("type", "rbd"), ("pool", "vms"), ("content", "images")],
        &[("storage", "thick"), ("type", "lvm"), ("vgname", "old"), ("content", "images")],
    ];
    for form in kinds {
        site.fine("POST", "/storage", form).await;
    }
    site
}

/// The real file of a VM's disk.
fn file_of(site: &Site, volid: &str) -> std::path::PathBuf {
    let world = site.running.world();
    let state = world.state();
    let key = state.volume_key("pve1", volid.split(',').next().unwrap()).unwrap();
    assert!(state.volumes.contains_key(&key), "{volid} is not there");
    state.file_of(world.dir(), &key)
}

fn write(site: &Site, volid: &str, text: &str) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(file_of(site, volid)).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn read(site: &Site, volid: &str) -> String {
    let bytes = std::fs::read(file_of(site, volid)).unwrap();
    String::from_utf8_lossy(&bytes[..6]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_cloned_as_its_storage_can() {
    let site = with_all_kinds().await;
    let disks = [
        ("100", "local-lvm:1", "local-lvm:vm-100-disk-0"),
        ("110", "ceph:1", "ceph:vm-110-disk-0"),
        ("120", "files:1,format=qcow2", "files:120/vm-120-disk-0.qcow2"),
        ("130", "tank:1", "tank:vm-130-disk-0"),
    ];
    for (vmid, disk, volid) in disks {
        site.done("POST", VMS, &[("vmid", vmid), ("name", "from"), ("scsi0", disk)]).await;
        write(&site, volid, "before");
        site.done("POST", &format!("{VMS}/{vmid}/snapshot"), &[("snapname", "one")]).await;
        write(&site, volid, "after!");
    }
    let refused: &[(&str, Form<'_>, &str)] = &[
        ("100", &[("snapname", "current")], "snapshot 'current' does not exist"),
        ("100", &[("full", "0")], "Linked clone feature is not supported for 'local-lvm:vm-100-disk-0' (scsi0)"),
        (
            "120",
            &[("snapname", "one"), ("full", "0")],
            "Linked clone feature is not supported for a snapshot of 'files:120/vm-120-disk-0.qcow2' (scsi0)",
        ),
        (
            "130",
            &[("snapname", "one"), ("full", "0")],
            "Linked clone feature is not supported for a snapshot of 'tank:vm-130-disk-0' (scsi0)",
        ),
        (
            "130",
            &[("snapname", "one")],
            "Full clone feature is not supported for a snapshot of 'tank:vm-130-disk-0' (scsi0)",
        ),
        ("100", &[("snapname", "nosuch"), ("full", "0"), ("storage", "files")], "snapshot 'nosuch' does not exist"),
    ];
    for (vmid, form, text) in refused {
        let form = [&[("newid", "200")][..], form].concat();
        let (status, reason, _) = site.ask("POST", &format!("{VMS}/{vmid}/clone"), &form).await;
        assert_eq!((status, reason.as_str()), (500, *text), "{vmid} {form:?}");
    }
    let linked: [(&str, &str, &str, &[&str]); 2] = [
        (
            "100",
            "201",
            "local-lvm:vm-201-disk-0,size=1G",
            &[
                "create linked clone of drive scsi0 (local-lvm:vm-100-disk-0)",
                "  Logical volume \"vm-201-disk-0\" created.",
            ],
        ),
        (
            "110",
            "211",
            "ceph:vm-211-disk-0,size=1G",
            &[
                "create linked clone of drive scsi0 (ceph:vm-110-disk-0)",
                "clone vm-110-disk-0: vm-110-disk-0 snapname one to vm-211-disk-0",
            ],
        ),
    ];
    for (vmid, newid, value, lines) in linked {
        let form = [("newid", newid), ("snapname", "one"), ("full", "0")];
        let log = site.done("POST", &format!("{VMS}/{vmid}/clone"), &form).await;
        assert_eq!(log[..2], *lines);
        let config = site.config(newid.parse().unwrap(), false).await;
        assert_eq!((&config["scsi0"], &config["parent"], &config["lock"]), (&json!(value), &Value::Null, &Value::Null));
        assert_eq!(read(&site, value), "before");
    }
    site.done("POST", &format!("{VMS}/120/clone"), &[("newid", "221"), ("snapname", "one")]).await;
    assert_eq!(read(&site, "files:221/vm-221-disk-0.qcow2"), "before");
    // A clone stands on its own: what it began as may go.
    site.done("DELETE", &format!("{VMS}/100"), &[]).await;
    assert_eq!(read(&site, "local-lvm:vm-201-disk-0"), "before");
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_and_their_clones_are_named_as_their_storage_does() {
    let site = with_all_kinds().await;
    let kinds = [
        ("100", "local-lvm", "local-lvm:base-100-disk-0", Some("local-lvm:vm-101-disk-0")),
        ("110", "ceph", "ceph:base-110-disk-0", Some("ceph:base-110-disk-0/vm-111-disk-0")),
        ("120", "tank", "tank:base-120-disk-0", Some("tank:base-120-disk-0/vm-121-disk-0")),
        (
            "130",
            "files",
            "files:130/base-130-disk-0.raw",
            Some("files:130/base-130-disk-0.raw/131/vm-131-disk-0.qcow2"),
        ),
        ("140", "tree", "tree:140/base-140-disk-0.raw", Some("tree:141/vm-141-disk-0.raw")),
        ("150", "thick", "thick:vm-150-disk-0", None),
    ];
    for (vmid, storage, base, clone) in kinds {
        let disk = format!("{storage}:1");
        site.done("POST", VMS, &[("vmid", vmid), ("scsi0", &disk)]).await;
        let log = site.done("POST", &format!("{VMS}/{vmid}/template"), &[]).await;
        let renamed = "  Renamed \"vm-100-disk-0\" to \"base-100-disk-0\" in volume group \"pve\"";
        assert_eq!(log.iter().any(|line| line == renamed), storage == "local-lvm", "{log:?}");
        let config = site.config(vmid.parse().unwrap(), false).await;
        assert_eq!(config["scsi0"], format!("{base},size=1G"));
        let newid = (vmid.parse::<u32>().unwrap() + 1).to_string();
        let form = [("newid", newid.as_str())];
        let features = [("feature", "clone")];
        let has = site.fine("GET", &format!("{VMS}/{vmid}/feature"), &features).await;
        assert_eq!(has["hasFeature"], u8::from(clone.is_some()), "{storage}");
        let Some(clone) = clone else {
            let (status, reason, _) = site.ask("POST", &format!("{VMS}/{vmid}/clone"), &form).await;
            let text = format!("Linked clone feature is not supported for '{base}' (scsi0)");
            assert_eq!((status, reason), (500, text));
            continue;
        };
        site.done("POST", &format!("{VMS}/{vmid}/clone"), &form).await;
        let config = site.config(newid.parse().unwrap(), false).await;
        assert_eq!(config["scsi0"], format!("{clone},size=1G"));
        // Names that say their base hold it; the others don't know it.
        let (end, _) = site.task("DELETE", &format!("{VMS}/{vmid}"), &[]).await;
        let held = clone.contains("base-");
        let text = format!("base volume '{base}' is still in use by linked cloned");
        assert_eq!(end, if held { text } else { "OK".to_owned() });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_refused_in_the_originals_order() {
    let seed = two_nodes();
    let mut site = Site::serve(Options { seed, ..Options::default() }).await;
    site.log_in("root@pam", "secret").await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    let whole_disk = ("scsi1".to_owned(), "/dev/sdx".to_owned());
    site.running.world().state().vms.get_mut(&100).unwrap().config.extend([whole_disk]);
    site.done("POST", VMS, &[("vmid", "101"), ("ide2", "none,media=cdrom")]).await;
    let refused: &[(&str, Form<'_>, u16, &str)] = &[
        ("999", &[("pool", "nosuch")], 500, "unable to find configuration file for VM 999 on node 'pve1'"),
        (
            "100",
            &[("pool", "nosuch"), ("target", "nosuch")],
            403,
            "Permission check failed (pool 'nosuch' does not exist)",
        ),
        ("100", &[("target", "nosuch"), ("storage", "nosuch")], 500, "no such cluster node 'nosuch'"),
        ("100", &[("target", "pve2"), ("storage", "local-lvm")], 500, "can't clone to non-shared storage 'local-lvm'"),
        ("100", &[], 500, "unable to parse volume ID '/dev/sdx'"),
        ("101", &[("newid", "101")], 500, "unable to create VM 101: config file already exists"),
    ];
    for (vmid, form, status, text) in refused {
        let mut form = form.to_vec();
        if !form.iter().any(|(key, _)| *key == "newid") {
            form.push(("newid", "200"));
        }
        let (got, reason, _) = site.ask("POST", &format!("{VMS}/{vmid}/clone"), &form).await;
        assert_eq!((got, reason.as_str()), (*status, *text), "{vmid} {form:?}");
    }
    site.running.world().state().vms.get_mut(&100).unwrap().config.remove("scsi1");
    let (_, reason, _) = site.ask("POST", &format!("{VMS}/100/clone"), &[("newid", "200"), ("target", "pve2")]).await;
    assert_eq!(reason, "can't clone VM to node 'pve2' (VM uses local storage)");
    // Without a disk there is nothing in the way of another node.
    site.done("POST", &format!("{VMS}/101/clone"), &[("newid", "201"), ("target", "pve2")]).await;
    let name = site.fine("GET", "/nodes/pve2/qemu/201/config", &[]).await["name"].clone();
    assert_eq!(name, "Copy-of-VM-101");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_needs_no_right_of_its_own_where_the_number_has_it() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    site.fine("POST", "/pools", &[("poolid", "crew")]).await;
    site.fine("POST", "/access/users", &[("userid", "one@pve")]).await;
    site.fine("POST", "/access/roles", &[("roleid", "One"), ("privs", "VM.Clone VM.Allocate")]).await;
    site.fine("PUT", "/access/acl", &[("path", "/vms"), ("roles", "One"), ("users", "one@pve")]).await;
    let token = site.fine("POST", "/access/users/one@pve/token/t1", &[("privsep", "0")]).await;
    let root = site.login.clone();
    site.with_token("one@pve!t1", token["value"].as_str().unwrap());
    let form = [("newid", "101"), ("pool", "crew")];
    let (status, reason, _) = site.ask("POST", &format!("{VMS}/100/clone"), &form).await;
    assert_eq!(
        (status, reason.as_str()),
        (403, "Permission check failed (/storage/local-lvm, Datastore.AllocateSpace)")
    );
    let one = std::mem::replace(&mut site.login, root);
    let space = [("path", "/storage"), ("roles", "PVEDatastoreUser"), ("users", "one@pve")];
    site.fine("PUT", "/access/acl", &space).await;
    let root = std::mem::replace(&mut site.login, one);
    let upid = site.fine("POST", &format!("{VMS}/100/clone"), &form).await;
    assert_eq!(site.ended(upid.as_str().unwrap()).await.0, "OK");
    site.login = root;
    let members = site.fine("GET", "/pools/crew", &[]).await;
    assert_eq!(members["members"][0]["vmid"], 101, "{members}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_disks_get_their_own_sizes_and_names() {
    let site = with_all_kinds().await;
    let form = [
        ("vmid", "100"),
        ("bios", "ovmf"),
        ("efidisk0", "local-lvm:1,efitype=4m"),
        ("tpmstate0", "local-lvm:1,version=v2.0"),
        ("ide2", "local-lvm:cloudinit"),
        ("scsi0", "local-lvm:1"),
        ("vmgenid", "0"),
    ];
    site.done("POST", VMS, &form).await;
    assert_eq!(site.config(100, false).await["efidisk0"], "local-lvm:vm-100-disk-0,efitype=4m,size=4M");
    let log = site.done("POST", &format!("{VMS}/100/clone"), &[("newid", "101"), ("storage", "files")]).await;
    let config = site.config(101, false).await;
    for (key, value) in [
        ("efidisk0", "files:101/vm-101-disk-0.raw,efitype=4m,size=528K"),
        ("ide2", "files:101/vm-101-cloudinit.raw,media=cdrom,size=4M"),
        ("scsi0", "files:101/vm-101-disk-1.raw,size=1G"),
        ("tpmstate0", "files:101/vm-101-disk-2.raw,size=4M,version=v2.0"),
        ("vmgenid", "0"),
    ] {
        assert_eq!(config[key], value, "{key}");
    }
    let made = "Formatting '/srv/files/images/101/vm-101-cloudinit.raw', fmt=raw size=4194304 preallocation=off";
    let at = log.iter().position(|line| line == made).unwrap();
    assert_eq!(log[at - 1], "create full clone of drive ide2 (local-lvm:vm-100-cloudinit)");
    // A cloud-init drive that moves keeps its name; a format that can't be had is not asked for twice.
    let form = [("disk", "ide2"), ("storage", "ceph"), ("delete", "1"), ("format", "qcow2")];
    site.done("POST", &format!("{VMS}/101/move_disk"), &form).await;
    assert_eq!(site.config(101, false).await["ide2"], "ceph:vm-101-cloudinit,media=cdrom,size=4M");
    site.done("POST", &format!("{VMS}/101/move_disk"), &[("disk", "efidisk0"), ("storage", "ceph")]).await;
    let config = site.config(101, false).await;
    assert_eq!(config["efidisk0"], "ceph:vm-101-disk-0,efitype=4m,size=1M");
    assert_eq!(config["unused0"], "files:101/vm-101-disk-0.raw");
    site.done("POST", &format!("{VMS}/101/status/start"), &[]).await;
    let clone = [("newid", "102")];
    let (_, reason, _) = site.ask("POST", &format!("{VMS}/101/clone"), &clone).await;
    assert_eq!(reason, "cannot clone TPM state while VM is running");
    let (end, _) =
        site.task("POST", &format!("{VMS}/101/move_disk"), &[("disk", "tpmstate0"), ("storage", "tank")]).await;
    assert_eq!(end, "storage migration failed: cannot move TPM state while VM is running");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_a_clone_that_fails() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1"), ("scsi1", "local-lvm:1")]).await;
    site.fine("PUT", &format!("{VMS}/100/firewall/options"), &[("enable", "1")]).await;
    {
        let mut state = site.running.world().state();
        let gone = state.volume_key("pve1", "local-lvm:vm-100-disk-1").unwrap();
        state.volumes.remove(&gone).unwrap();
    }
    let (end, _) = site.task("POST", &format!("{VMS}/100/clone"), &[("newid", "101")]).await;
    assert_eq!(end, "clone failed: no such logical volume pve/vm-100-disk-1");
    let state = site.running.world().state();
    assert!(!state.vms.contains_key(&101) && !state.firewalls.contains_key("vms/101"));
    assert!(!state.volumes.keys().any(|key| key.name.contains("101")));
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_go_only_where_their_options_go() {
    let site = with_all_kinds().await;
    let form =
        [("vmid", "100"), ("scsi0", "local-lvm:1,ssd=1"), ("scsi1", "files:1,iothread=1"), ("ide2", "files:cloudinit")];
    site.done("POST", VMS, &form).await;
    site.done("POST", VMS, &[("vmid", "101")]).await;
    let moving = format!("{VMS}/100/move_disk");
    for (disk, target) in [("scsi0", "virtio0"), ("scsi1", "sata0")] {
        let form = [("disk", disk), ("target-vmid", "101"), ("target-disk", target)];
        let (status, reason, _) = site.ask("POST", &moving, &form).await;
        let text = "failed to parse source disk for target disk format - format error";
        assert_eq!((status, reason.as_str()), (500, text), "{disk}");
    }
    let virtio = [("disk", "scsi1"), ("target-vmid", "101"), ("target-disk", "virtio0")];
    site.done("POST", &moving, &virtio).await;
    assert_eq!(site.config(101, false).await["virtio0"], "files:101/vm-101-disk-0.raw,iothread=1,size=1G");
    // What grows says so in the words of whoever lets it.
    let log = site.done("PUT", &format!("{VMS}/100/resize"), &[("disk", "scsi0"), ("size", "+1G")]).await;
    assert_eq!(
        log[..2],
        [
            "  Size of logical volume pve/vm-100-disk-0 changed from 1.00 GiB (256 extents) to 2.00 GiB (512 extents).",
            "  Logical volume pve/vm-100-disk-0 successfully resized.",
        ]
    );
    site.done("POST", &format!("{VMS}/101/status/start"), &[]).await;
    let log = site.done("PUT", &format!("{VMS}/101/resize"), &[("disk", "virtio0"), ("size", "2G")]).await;
    assert_eq!(log, ["TASK OK"]);
    let log = site.done("DELETE", &format!("{VMS}/100"), &[]).await;
    assert_eq!(log, ["  Logical volume \"vm-100-disk-0\" successfully removed.", "TASK OK"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_imported_is_named() {
    let site = with_all_kinds().await;
    site.fine("PUT", "/storage/files", &[("content", "images,import")]).await;
    let text = b"no image at all";
    let volume = "files:import/fake.qcow2";
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "files:1")]).await;
    {
        let world = site.running.world();
        let mut state = world.state();
        let like = state.volume_key("pve1", "files:100/vm-100-disk-0.raw").unwrap();
        let fake = state.volume_key("pve1", volume).unwrap();
        let mut entry = state.volumes[&like].clone();
        "import".clone_into(&mut entry.content);
        "qcow2".clone_into(&mut entry.format);
        entry.vmid = None;
        let path = state.file_of(world.dir(), &fake);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        state.volumes.insert(fake, entry);
    }
    let disk = format!("files:0,import-from={volume}");
    let (end, log) = site.task("POST", VMS, &[("vmid", "101"), ("scsi0", &disk)]).await;
    let path = "/srv/files/import/fake.qcow2";
    assert_eq!(
        end,
        format!("unable to create VM 101 - qemu-img: Could not open '{path}': Image is not in qcow2 format")
    );
    assert_eq!(log[0], format!("command '/usr/bin/qemu-img info '--output=json' {path} -f qcow2' failed: exit code 1"));
    let (status, reason, _) = site.ask("POST", VMS, &[("vmid", "101"), ("ide0", "files:8,media=cdrom")]).await;
    assert_eq!((status, reason.as_str()), (500, "unable to parse directory volume name '8'"));
    // A disk of another VM is cloned, a path is read in: the log tells of the one and not of the other.
    let log = site
        .done("POST", VMS, &[("vmid", "101"), ("scsi0", "local-lvm:0,import-from=files:100/vm-100-disk-0.raw")])
        .await;
    assert_eq!(log[0], "create full clone of drive scsi0 (files:100/vm-100-disk-0.raw)");
    let by_path = "files:0,format=qcow2,import-from=/srv/files/images/100/vm-100-disk-0.raw";
    let log = site.done("POST", VMS, &[("vmid", "102"), ("scsi0", by_path)]).await;
    assert!(log[0].starts_with("Formatting '/srv/files/images/102/vm-102-disk-0.qcow2', fmt=qcow2"), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_disks_of_a_template_are_bases_and_sizes_are_whole_kibibytes() {
    let site = with_all_kinds().await;
    let log = site.done("POST", VMS, &[("vmid", "300"), ("template", "1"), ("scsi0", "local-lvm:1")]).await;
    let made = "scsi0: successfully created disk 'local-lvm:base-300-disk-0,size=1G'".to_owned();
    assert!(log.contains(&made), "{log:?}");
    assert_eq!(site.config(300, false).await["scsi0"], "local-lvm:base-300-disk-0,size=1G");
    site.done("POST", VMS, &[("vmid", "301"), ("scsi0", "files:0.001")]).await;
    assert_eq!(site.config(301, false).await["scsi0"], "files:301/vm-301-disk-0.raw,size=1049K");
}
