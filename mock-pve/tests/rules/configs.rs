//! The rules of VM configs and storages over the API: what waits for a stop, what is applied at once, and the original's
//! words where something can't be.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Site, VMS};

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_takes_what_can_be_plugged_and_the_rest_waits() {
    let site = Site::begin(PveVersion::V8).await;
    let disk = [("vmid", "100"), ("scsi0", "local-lvm:1"), ("ide0", "local-lvm:1"), ("boot", "order=scsi0;ide0")];
    site.done("POST", VMS, &disk).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let config = format!("{VMS}/100/config");
    site.fine("PUT", &config, &[("cores", "4"), ("name", "hot"), ("cpulimit", "2")]).await;
    let now = site.config(100, true).await;
    assert_eq!((&now["name"], &now["cpulimit"], &now["cores"]), (&json!("hot"), &json!("2"), &Value::Null));
    assert_eq!(site.config(100, false).await["cores"], 4);
    site.fine("PUT", &config, &[("scsi1", "local-lvm:1"), ("sata0", "local-lvm:1")]).await;
    let now = site.config(100, true).await;
    assert!(now["scsi1"].is_string() && now["sata0"].is_null(), "{now}");
    // A disk that only waits is kept when its turn is taken away.
    site.fine("PUT", &config, &[("revert", "sata0")]).await;
    assert!(site.config(100, false).await["unused0"].is_string());
    site.fine("PUT", &config, &[("delete", "ide0")]).await;
    assert_eq!(site.pending(100, "ide0").await["delete"], 1);
    assert_eq!(site.pending(100, "boot").await["pending"], "order=scsi0");
    let (status, _, body) = site.ask("PUT", &config, &[("delete", "scsi0")]).await;
    assert_eq!(
        (status, body["errors"]["scsi0"].as_str()),
        (400, Some("hotplug problem - can't unplug bootdisk 'scsi0'\n"))
    );
    site.fine("PUT", &config, &[("revert", "scsi0")]).await;
    let (status, _, body) = site.ask("PUT", &config, &[("net0", "virtio,bridge=vmbr77")]).await;
    assert!(status == 400 && body["errors"]["net0"].as_str().unwrap().contains("qmp command 'netdev_add'"), "{body}");
    site.done("POST", &format!("{VMS}/100/status/stop"), &[]).await;
    let after = site.config(100, true).await;
    assert_eq!(after["cores"], 4);
    assert!(after["ide0"].is_null() && after["unused1"].is_string(), "{after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_are_checked_in_the_originals_words() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    let config = format!("{VMS}/100/config");
    let wrong = [
        ("scsi1", "local-lvm:1,import-from=local:import/x.raw", "'import-from' requires special syntax"),
        (
            "efidisk0",
            "local-lvm:0,import-from=local:import/x.raw",
            "need to specify 'efitype' when using 'import-from'",
        ),
        ("virtio1", "none,media=cdrom", "unable to parse drive options"),
        ("scsi1", "local-lvm:1,mbps=5,mbps_rd=5", "unable to parse drive options"),
        ("scsi1", "local-lvm:1,mbps_max=5", "unable to parse drive options"),
        ("scsi1", "/no/such/path.raw", "unable to associate path '/no/such/path.raw' to any storage"),
    ];
    for (key, value, text) in wrong {
        let (status, _, body) = site.ask("PUT", &config, &[(key, value)]).await;
        let found = body["errors"][key].as_str().unwrap_or_default();
        assert!(status == 400 && found.contains(text), "{key}={value}: {status} {body}");
    }
    let refused = [
        ("scsi1", "nosuch:1", "storage 'nosuch' does not exist"),
        ("ide2", "nosuch:cloudinit", "storage 'nosuch' does not exist"),
        ("machine", "viommu=intel", "to use Intel vIOMMU please set the machine type to q35"),
        ("vga", "serial0,clipboard=vnc", "vga type serial0 is not compatible with VNC clipboard"),
        ("scsi1", "local-lvm:vm-100-disk-0,format=qcow2", "'format=qcow2' option different from storage format 'raw'"),
    ];
    for (key, value, text) in refused {
        let (status, reason, body) = site.ask("PUT", &config, &[(key, value)]).await;
        assert!(status == 500 && reason.contains(text), "{key}={value}: {status} {reason} {body}");
    }
    site.fine("PUT", &config, &[("ide2", "local-lvm:cloudinit")]).await;
    let (_, reason, _) = site.ask("PUT", &config, &[("ide3", "local-lvm:cloudinit")]).await;
    assert_eq!(reason, "ide3 - cloud-init drive is already attached at 'ide2'");
    // In place of its drive nothing is left of it.
    site.fine("PUT", &config, &[("ide2", "none,media=cdrom")]).await;
    let content = site.fine("GET", "/nodes/pve1/storage/local-lvm/content", &[]).await;
    assert!(!content.to_string().contains("cloudinit"), "{content}");
    site.fine("PUT", &config, &[("ostype", "win11")]).await;
    assert_eq!(site.config(100, false).await["machine"], "pc-i440fx-10.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_changes_its_owner_and_its_place() {
    let site = Site::begin(PveVersion::V8).await;
    for vmid in ["100", "101"] {
        let form = [("vmid", vmid), ("scsi0", "local-lvm:1"), ("scsi1", "local-lvm:1"), ("ide2", "none,media=cdrom")];
        site.done("POST", VMS, &form).await;
    }
    site.fine("PUT", &format!("{VMS}/100/config"), &[("boot", "order=scsi0;scsi1")]).await;
    let moving = format!("{VMS}/100/move_disk");
    let refused = [
        (&[("disk", "ide2"), ("target-vmid", "101"), ("target-disk", "ide3")][..], "CD drive contents can't be moved"),
        (&[("disk", "scsi1"), ("target-vmid", "101")][..], "Target disk key 'scsi1' is already in use for VM '101'"),
        (&[("disk", "scsi1"), ("target-vmid", "999")][..], "could not find target VM 999"),
        (&[("disk", "scsi0"), ("storage", "local-lvm"), ("format", "raw")][..], "you can't move to the same storage"),
        (&[("disk", "ide2"), ("storage", "local-lvm")][..], "you can't move a cdrom"),
    ];
    for (form, text) in refused {
        let (status, reason, _) = site.ask("POST", &moving, form).await;
        assert!(status == 500 && reason.contains(text), "{form:?}: {status} {reason}");
    }
    let log = site.done("POST", &moving, &[("disk", "scsi1"), ("target-vmid", "101"), ("target-disk", "scsi5")]).await;
    assert_eq!(
        log[..4],
        [
            "moving disk 'scsi1' from VM '100' to '101'",
            "removing disk 'scsi1' from boot order config",
            "removing disk 'scsi1' from VM '100' config",
            "update VM 101: -scsi5 local-lvm:vm-101-disk-2,size=1G",
        ]
    );
    assert_eq!(site.config(101, false).await["scsi5"], "local-lvm:vm-101-disk-2,size=1G");
    assert_eq!(site.config(100, false).await["boot"], "order=scsi0");
}

#[tokio::test(flavor = "multi_thread")]
async fn clones_and_starts_say_what_they_do() {
    let site = Site::begin(PveVersion::V8).await;
    let form = [
        ("vmid", "100"),
        ("scsi0", "local-lvm:1"),
        ("agent", "1"),
        ("bios", "ovmf"),
        ("smbios1", "serial=QQ==,base64=1"),
        ("vmgenid", "1"),
    ];
    let (_, reason, _) = site.ask("POST", VMS, &form).await;
    assert_eq!(reason, "only root can set 'vmgenid' config");
    site.done("POST", VMS, &form[..5]).await;
    assert_eq!(site.config(100, false).await["smbios1"], "serial=QQ==,base64=1");
    let (end, log) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "WARNINGS: 1");
    assert!(log.contains(&"WARN: no efidisk configured! Using temporary efivars disk.".to_owned()), "{log:?}");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("memory", "1024")]).await;
    let log = site.done("POST", &format!("{VMS}/100/clone"), &[("newid", "101")]).await.join("\n");
    for line in ["drive mirror is starting for drive-scsi0", "suspend vm", "drive-scsi0: Done.", "resume vm"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert!(log.contains("found pending changes for 'memory', discarding for clone"), "{log}");
    let clone = site.config(101, false).await;
    assert!(clone["memory"].is_null() && clone["smbios1"].as_str().unwrap().starts_with("base64=1,serial=QQ==,uuid="));
}

#[tokio::test(flavor = "multi_thread")]
async fn cloud_init_texts_follow_the_config() {
    let site = Site::begin(PveVersion::V8).await;
    let form = [
        ("vmid", "100"),
        ("name", "web"),
        ("ide2", "local-lvm:cloudinit"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
        ("ipconfig0", "ip=10.0.0.5/24,gw=10.0.0.1,ip6=fd00::5/64"),
        ("searchdomain", "example.org"),
        ("nameserver", "10.0.0.2"),
        ("ciupgrade", "0"),
    ];
    site.done("POST", VMS, &form).await;
    let dump = |kind: &'static str| {
        let site = &site;
        async move { site.fine("GET", &format!("{VMS}/100/cloudinit/dump"), &[("type", kind)]).await }
    };
    let user = dump("user").await;
    assert!(user.as_str().unwrap().contains("fqdn: web.example.org\n") && !user.as_str().unwrap().contains("upgrade"));
    let network = dump("network").await;
    let end = "      - type: static6\n        address: 'fd00::5/64'\n    - type: nameserver\n      address:\n      \
               - '10.0.0.2'\n      search:\n      - 'example.org'\n";
    assert!(network.as_str().unwrap().ends_with(end), "{network}");
    let meta = dump("meta").await;
    let log = site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(log[0], "generating cloud-init ISO");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("ciuser", "me"), ("searchdomain", "example.net")]).await;
    assert_ne!(dump("meta").await, meta);
    let list = site.fine("GET", &format!("{VMS}/100/cloudinit"), &[]).await;
    let of = |key: &str| list.as_array().unwrap().iter().find(|entry| entry["key"] == key).cloned().unwrap();
    assert_eq!(of("ciuser"), json!({"key": "ciuser", "pending": "me"}));
    assert_eq!(of("searchdomain")["value"], "example.org");
    assert_eq!(of("searchdomain")["pending"], "example.net");
    site.fine("PUT", &format!("{VMS}/100/cloudinit"), &[]).await;
    let list = site.fine("GET", &format!("{VMS}/100/cloudinit"), &[]).await;
    assert!(!list.to_string().contains("pending"), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn storages_have_the_options_of_their_type() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let dir = [("storage", "extra"), ("type", "dir"), ("path", "/srv/extra"), ("content", "images,iso")];
    let refused = [
        (&[("storage", "x1"), ("type", "dir")][..], "missing value for required option 'path'"),
        (&[("storage", "x1"), ("type", "dir"), ("path", "/x"), ("vgname", "vg0")][..], "unexpected property 'vgname'"),
        (&[("storage", "x1"), ("type", "lvm")][..], "missing value for required option 'vgname'"),
    ];
    for (form, text) in refused {
        let (status, reason, _) = site.ask("POST", "/storage", form).await;
        assert_eq!((status, reason.as_str()), (500, text), "{form:?}");
    }
    site.fine("POST", "/storage", &dir).await;
    for (form, text) in [
        (&[("delete", "path")][..], "update storage failed: unable to delete required option 'path'"),
        (&[("delete", "vgname")][..], "update storage failed: no such option 'vgname'"),
    ] {
        let (status, reason, _) = site.ask("PUT", "/storage/extra", form).await;
        assert_eq!((status, reason.as_str()), (500, text), "{form:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_may_hold_the_memory_and_loses_no_disk() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    let snapshots = format!("{VMS}/100/snapshot");
    let log = site.done("POST", &snapshots, &[("snapname", "cold"), ("vmstate", "1")]).await;
    assert!(!log.iter().any(|line| line.starts_with("saving VM state")), "it didn't run: {log:?}");
    site.fine("PUT", &format!("{VMS}/100/config"), &[("scsi1", "local-lvm:1")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let log = site.done("POST", &snapshots, &[("snapname", "warm"), ("vmstate", "1")]).await;
    assert_eq!(log[0], "saving VM state and RAM using storage 'local-lvm'");
    let volids = async || site.fine("GET", "/nodes/pve1/storage/local-lvm/content", &[]).await.to_string();
    assert!(volids().await.contains("local-lvm:vm-100-state-warm"));
    let list = site.fine("GET", &snapshots, &[]).await;
    let told = |name: &str| list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap()["vmstate"].clone();
    assert_eq!((told("cold"), told("warm")), (json!(0), json!(1)));
    site.done("POST", &format!("{snapshots}/cold/rollback"), &[]).await;
    let now = site.config(100, true).await;
    assert!(now["scsi1"].is_null() && now["unused0"] == "local-lvm:vm-100-disk-1", "{now}");
    let status = async || site.fine("GET", &format!("{VMS}/100/status/current"), &[]).await["status"].clone();
    assert_eq!(status().await, "stopped");
    site.done("POST", &format!("{snapshots}/warm/rollback"), &[]).await;
    assert_eq!(status().await, "running", "what was in memory goes on");
    let now = site.config(100, true).await;
    assert!(now["unused0"].is_null() && now["scsi1"].is_string() && now["runningmachine"].is_null(), "{now}");
    site.done("DELETE", &format!("{snapshots}/warm"), &[]).await;
    assert!(!volids().await.contains("vm-100-state-warm"));
}

#[tokio::test(flavor = "multi_thread")]
async fn task_lists_are_filtered_as_the_archive_is_read() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let count =
        async |form: &[(&str, &str)]| site.fine("GET", "/nodes/pve1/tasks", form).await.as_array().unwrap().len();
    for (form, found) in [
        (&[("userfilter", "RECAST@")][..], 2),
        (&[("userfilter", "recast@pve!ci")][..], 0),
        (&[("typefilter", "qmstart")][..], 1),
        (&[("typefilter", ""), ("userfilter", "")][..], 2),
        (&[("errors", "1")][..], 0),
        (&[("statusfilter", "OK;warning")][..], 2),
        (&[("limit", "0")][..], 0),
        (&[("start", "1"), ("vmid", "100")][..], 1),
        (&[("source", "active")][..], 0),
        (&[("source", "all")][..], 2),
    ] {
        assert_eq!(count(form).await, found, "{form:?}");
    }
}
