//! What an update of a config takes, and what it refuses in which words; who sees what of others.

use std::io::Write as _;

use mock_pve::world::PveVersion;
use mock_pve::world::node_files::NodeFile;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::site::{Form, Site, VMS};

#[tokio::test(flavor = "multi_thread")]
async fn values_are_taken_apart_as_by_the_original() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    let config = format!("{VMS}/100/config");
    let unknown = "VM-specific CPU flags must be a subset of: pcid, spec-ctrl";
    let wrong = [
        ("agent", "yes", "agent.enabled: type check ('boolean') failed - got 'yes'"),
        ("agent", "1,0", "duplicate key in comma-separated list property: enabled"),
        ("cpu", "custom-none", "Custom cputype 'none' not found"),
        ("cpu", "flags=+aes", "CPU is missing cputype"),
        ("cpu", "host,flags=+nonsense", unknown),
        ("cpu", "nonsense,phys-bits=7", "cpu.phys-bits: invalid format - value must be an integer between 8 and 64"),
        ("net0", "virtio,virtio=02:00:00:00:00:01", "key alias 'model' is already defined"),
        ("scsi1", "32", "unable to parse volume ID '32'"),
        ("bootdisk", "efidisk1", "invalid boot disk 'efidisk1'"),
        ("startup", "0", "unable to parse startup options"),
    ];
    for (key, value, text) in wrong {
        let (status, _, body) = site.ask("PUT", &config, &[(key, value)]).await;
        let found = body["errors"][key].as_str().unwrap_or_default();
        assert!(status == 400 && found.contains(text), "{key}={value}: {status} {body}");
    }
    let (status, reason, _) = site.ask("PUT", &config, &[("scsi1", "local-lvm:1,media=cdrom")]).await;
    assert_eq!((status, reason.as_str()), (500, "unable to parse lvm volume name '1'"));
    let both = [("cores", "2"), ("delete", "cores"), ("revert", "cores")];
    let (_, _, body) = site.ask("PUT", &config, &both).await;
    assert_eq!(body["errors"]["delete"], "you can't use '-cores' and -revert cores' at the same time");
    let (_, _, body) = site.ask("PUT", &config, &[("delete", "scsi31")]).await;
    assert_eq!(body["errors"]["delete"], "unknown option 'scsi31'");
    let (status, reason, _) = site.ask("PUT", &config, &[("delete", "parent")]).await;
    assert_eq!((status, reason.as_str()), (500, "only root can set 'parent' config"));
    site.fine("PUT", &config, &[("net0", "virtio=02:00:00:00:00:01,bridge=vmbr0,firewall=On")]).await;
    assert_eq!(site.config(100, false).await["net0"], "virtio=02:00:00:00:00:01,bridge=vmbr0,firewall=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_takes_no_more_processors_than_it_may_have() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("cores", "4"), ("vcpus", "2"), ("hotplug", "cpu,memory")]).await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "NUMA needs to be enabled for memory hotplug");
    let config = format!("{VMS}/100/config");
    site.fine("PUT", &config, &[("numa", "1")]).await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "minimum memory must be 1024MB");
    site.fine("PUT", &config, &[("memory", "2048")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let (status, _, body) = site.ask("PUT", &config, &[("vcpus", "5")]).await;
    assert_eq!(
        (status, &body["errors"]["vcpus"]),
        (400, &json!("hotplug problem - you can't add more vcpus than maxcpus\n"))
    );
    site.fine("PUT", &config, &[("vcpus", "4"), ("memory", "4096")]).await;
    let now = site.config(100, true).await;
    assert_eq!((&now["vcpus"], &now["memory"]), (&json!(4), &json!("4096")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_suspended_vm_goes_with_its_lock() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    site.done("POST", &format!("{VMS}/100/status/suspend"), &[("todisk", "1")]).await;
    let config = format!("{VMS}/100/config");
    let (_, reason, _) = site.ask("PUT", &config, &[("cores", "2")]).await;
    assert_eq!(reason, "VM is locked (suspended)");
    let before = site.config(100, true).await;
    assert!(before["vmstate"].is_string() && before["runningmachine"].is_string(), "{before}");
    site.fine("PUT", &config, &[("delete", "vmstate")]).await;
    let after = site.config(100, true).await;
    for key in ["vmstate", "lock", "runningmachine", "runningcpu"] {
        assert_eq!(after[key], Value::Null, "{key}: {after}");
    }
    let content = site.fine("GET", "/nodes/pve1/storage/local-lvm/content", &[]).await;
    assert!(!content.to_string().contains("state-suspend"), "{content}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_kept_as_its_sum() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.log_in("root@pam", "secret").await;
    site.done("POST", VMS, &[("vmid", "100"), ("ide2", "local-lvm:cloudinit")]).await;
    site.fine("PUT", &format!("{VMS}/100/config"), &[("cipassword", "open-sesame")]).await;
    assert_eq!(site.config(100, false).await["cipassword"], "**********");
    let dump = site.fine("GET", &format!("{VMS}/100/cloudinit/dump"), &[("type", "user")]).await;
    let text = dump.as_str().unwrap();
    assert!(text.contains("password: $5$") && !text.contains("open-sesame"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_seen_of_pools_and_who_is_missing() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.log_in("root@pam", "secret").await;
    site.fine("POST", "/pools", &[("poolid", "p1"), ("comment", "one")]).await;
    site.done("POST", VMS, &[("vmid", "100"), ("pool", "p1")]).await;
    for action in ["reset", "reboot", "suspend", "resume"] {
        let (status, reason, _) = site.ask("POST", &format!("{VMS}/199/status/{action}"), &[]).await;
        let text = "unable to find configuration file for VM 199 on node 'pve1'";
        assert_eq!((status, reason.as_str()), (500, text), "{action}");
    }
    let (_, reason, _) = site.ask("POST", &format!("{VMS}/100/snapshot"), &[("snapname", "Pending")]).await;
    assert_eq!(reason, "unable to use snapshot name 'pending' (reserved name)");
    assert_eq!(site.fine("PUT", &format!("{VMS}/100/snapshot/none/config"), &[]).await, Value::Null);
    site.fine("POST", "/access/users", &[("userid", "bob@pve"), ("password", "bobs-secret")]).await;
    site.fine("PUT", "/access/acl", &[("path", "/vms/100"), ("roles", "PVEAuditor"), ("users", "bob@pve")]).await;
    site.log_in("bob@pve", "bobs-secret").await;
    let (status, reason, _) = site.ask("GET", "/pools/p1", &[]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/pool/p1, Pool.Audit)"));
    // By query the original asks for the right, but doesn't listen.
    assert_eq!(site.fine("GET", "/pools", &[("poolid", "p1")]).await[0]["comment"], "one");
    let seen = site.fine("GET", "/cluster/resources", &[("type", "vm")]).await;
    assert_eq!((&seen[0]["vmid"], &seen[0]["pool"]), (&json!(100), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn storages_of_other_nodes_are_named_but_not_enabled() {
    let options = mock_pve::serve::Options { seed: crate::site::two_nodes(), ..mock_pve::serve::Options::default() };
    let mut site = Site::serve(options).await;
    site.log_in("root@pam", "secret").await;
    let form = [("storage", "far"), ("type", "dir"), ("path", "/far"), ("content", "images,iso"), ("nodes", "pve2")];
    site.fine("POST", "/storage", &form).await;
    let of = |list: &Value| list.as_array().unwrap().iter().find(|one| one["storage"] == "far").cloned();
    let all = site.fine("GET", "/nodes/pve1/storage", &[]).await;
    let far = of(&all).unwrap();
    assert_eq!((&far["enabled"], &far["active"], &far["total"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(of(&site.fine("GET", "/nodes/pve1/storage", &[("content", "iso")]).await), None);
    assert_eq!(site.fine("GET", "/nodes/pve1/storage/far/status", &[]).await["enabled"], 0);
    let (status, _, body) = site.ask("GET", "/nodes/pve1/storage", &[("storage", "far"), ("content", "iso")]).await;
    assert_eq!((status, &body["errors"]["storage"]), (400, &json!("No such storage.")));
    assert_eq!(of(&site.fine("GET", "/nodes/pve2/storage", &[("content", "iso")]).await).unwrap()["active"], 1);
    let form = [("filename", "vm-100-disk-0.raw"), ("vmid", "100"), ("size", "4M")];
    let volid = site.fine("POST", "/nodes/pve2/storage/far/content", &form).await;
    assert_eq!(volid, "far:100/vm-100-disk-0.raw");
}

/// One row: what is set, where it is read, and what is found there.
type Kept<'a> = (&'a str, &'a str, Form<'a>, &'a str, &'a str, Value);

async fn each_is_read(site: &Site, rows: &[Kept<'_>]) {
    for (verb, path, form, at, pointer, expected) in rows {
        let made = site.fine(verb, path, form).await;
        if let Some(upid) = made.as_str().filter(|text| text.starts_with("UPID:")) {
            assert_eq!(site.ended(upid).await.0, "OK", "{verb} {path}");
        }
        let mut read = site.fine("GET", at, &[]).await;
        if let Some(object) = read.as_object_mut() {
            object.remove("digest");
        }
        assert_eq!(read.pointer(pointer), Some(expected), "{verb} {path} {form:?}: {read}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_is_read_as_the_file_holds_it() {
    let site = Site::begin_as_root(PveVersion::V9).await;
    let network = "/nodes/pve1/network";
    let job = "/cluster/backup/job";
    let rows: &[Kept<'_>] = &[
        (
            "PUT",
            "/cluster/options",
            &[("crs", "ha=static,ha-rebalance-on-start=on")],
            "/cluster/options",
            "/crs",
            json!({"ha": "static", "ha-rebalance-on-start": 1}),
        ),
        (
            "POST",
            "/cluster/backup",
            &[
                ("id", "job"),
                ("all", "1"),
                ("schedule", "daily"),
                ("storage", "local"),
                ("fleecing", "1,storage=local-lvm"),
            ],
            job,
            "/fleecing",
            json!({"enabled": 1, "storage": "local-lvm"}),
        ),
        ("PUT", job, &[("bwlimit", "7"), ("prune-backups", "keep-last=3")], job, "/bwlimit", json!(7)),
        ("PUT", job, &[("mode", "stop")], job, "/prune-backups", json!({"keep-last": "3"})),
        (
            "POST",
            "/storage",
            &[("storage", "disk"), ("type", "dir"), ("path", "/mnt/d"), ("create-subdirs", "1"), ("content", "iso")],
            "/storage/disk",
            "/create-subdirs",
            json!(1),
        ),
        (
            "POST",
            network,
            &[
                ("iface", "vlan7"),
                ("type", "vlan"),
                ("vlan-raw-device", "vmbr0"),
                ("mtu", "1400"),
                ("comments", "one\ntwo"),
            ],
            "/nodes/pve1/network/vlan7",
            "",
            json!({"type": "vlan", "vlan-id": "7",
            "vlan-raw-device": "vmbr0", "mtu": "1400", "comments": "one\ntwo\n", "method": "manual", "method6": "manual",
            "families": ["inet"], "exists": null, "priority": 4}),
        ),
        (
            "POST",
            network,
            &[
                ("iface", "vmbr7"),
                ("type", "bridge"),
                ("cidr", "10.0.0.1/24"),
                ("autostart", "1"),
                ("bridge_vlan_aware", "1"),
            ],
            "/nodes/pve1/network/vmbr7",
            "",
            json!({"type": "bridge", "autostart": 1,
            "address": "10.0.0.1", "netmask": "24", "cidr": "10.0.0.1/24", "bridge_ports": "", "bridge_stp": "off",
            "bridge_fd": "0", "bridge_vlan_aware": 1, "bridge_vids": "2-4094", "method": "static", "method6": "manual",
            "families": ["inet"], "priority": 5}),
        ),
        (
            "PUT",
            "/nodes/pve1/config",
            &[("description", "a\nb\n\n")],
            "/nodes/pve1/config",
            "/description",
            json!("a\nb\n"),
        ),
    ];
    each_is_read(&site, rows).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_read_without_what_says_nothing() {
    let site = Site::begin_as_root(PveVersion::V9).await;
    let (group, set) = ("/cluster/firewall/groups/web", "/cluster/firewall/ipset/lan");
    let rows: &[Kept<'_>] = &[
        ("POST", "/cluster/firewall/groups", &[("group", "web")], group, "", json!([])),
        // What is empty in a rule isn't said; one rule's place is what was asked for.
        (
            "POST",
            group,
            &[
                ("type", "in"),
                ("action", "DROP"),
                ("source", ""),
                ("dest", ""),
                ("sport", ""),
                ("dport", ""),
                ("proto", ""),
            ],
            &[group, "/0"].concat(),
            "",
            json!({"type": "in", "action": "DROP", "enable": 0,
            "pos": "0"}),
        ),
        (
            "POST",
            "/access/groups",
            &[("groupid", "g"), ("comment", " all of us ")],
            "/access/groups/g",
            "/comment",
            json!("all of us"),
        ),
        (
            "POST",
            "/access/domains",
            &[
                ("realm", "oidc"),
                ("type", "openid"),
                ("issuer-url", "https://x.test"),
                ("client-id", "i"),
                ("scopes", ""),
            ],
            "/access/domains/oidc",
            "",
            json!({"type": "openid", "issuer-url": "https://x.test", "client-id": "i"}),
        ),
        (
            "PUT",
            "/access/users/recast@pve/token/ci",
            &[("comment", " ")],
            "/access/users/recast@pve/token/ci",
            "",
            json!({"privsep": 0, "expire": 0}),
        ),
        (
            "POST",
            VMS,
            &[("vmid", "100"), ("efidisk0", "local-lvm:1,pre-enrolled-keys=0")],
            "/nodes/pve1/qemu/100/config",
            "/efidisk0",
            json!("local-lvm:vm-100-disk-0,pre-enrolled-keys=0,size=4M"),
        ),
        ("POST", "/cluster/firewall/ipset", &[("name", "lan")], set, "", json!([])),
        ("POST", set, &[("cidr", "2001:0DB8::1")], set, "/0/cidr", json!("2001:0DB8::1")),
        ("POST", set, &[("cidr", "192.0.2.9")], set, "/0/cidr", json!("192.0.2.9")),
        ("POST", set, &[("cidr", "192.0.2.7/24")], set, "/0/cidr", json!("192.0.2.0/24")),
    ];
    each_is_read(&site, rows).await;
}

/// Answers every request with the same bytes.
async fn server(body: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {}
            let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            // Whoever hangs up has what he wanted.
            let _ = stream.write_all(&[answer.as_bytes(), &body].concat()).await;
        }
    });
    format!("http://{address}/disk")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_downloaded_is_unpacked_where_that_is_asked() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let image = [vec![7_u8; 1000], vec![0; 3 << 20], vec![7; 1000]].concat();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&image).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&image).unwrap();
    let packed = [
        ("bz2", bzip2.finish().unwrap()),
        ("gz", gzip.finish().unwrap()),
        ("zst", zstd::encode_all(image.as_slice(), 1).unwrap()),
        ("gz", image.clone()),
    ];
    for (number, (compression, body)) in packed.into_iter().enumerate() {
        let (url, name) = (server(body).await, format!("disk{number}.img"));
        let form =
            [("url", url.as_str()), ("filename", name.as_str()), ("content", "iso"), ("compression", compression)];
        let (end, log) = site.task("POST", "/nodes/pve1/storage/local/download-url", &form).await;
        let shown = format!("/var/lib/vz/template/iso/{name}");
        if number == 3 {
            let begin = format!("command 'zcat {shown}.tmp_dwnl.");
            assert!(end.starts_with(&begin) && end.ends_with("' failed: exit code 1"), "{end}");
            continue;
        }
        assert_eq!(end, "OK", "{log:?}");
        assert!(log[3].ends_with("awaiting response... 200 OK"), "{log:?}");
        assert!(log[8].starts_with(&format!("decompressing {shown}.tmp_dwnl.")), "{log:?}");
        let world = site.running.world();
        let Some(NodeFile::File { real, .. }) = world.node_file("pve1", &shown) else { panic!("no file") };
        assert!(std::fs::read(real).unwrap() == image);
    }
    let url = server(image).await;
    for (content, compression, text) in
        [("import", "gz", "decompression not supported for import"), ("iso", "lzo", "command 'lzop -d -c /var/lib/vz/")]
    {
        let name = if content == "iso" { "x.img" } else { "x.qcow2" };
        let form = [("url", url.as_str()), ("filename", name), ("content", content), ("compression", compression)];
        let (end, log) = site.task("POST", "/nodes/pve1/storage/local/download-url", &form).await;
        assert!(end.starts_with(text), "{log:?}");
    }

    // One that would go on for long, and is stopped.
    let world = site.running.world();
    let endless = zstd::encode_all(vec![0; 1 << 20].as_slice(), 1).unwrap().repeat(50_000);
    let url = server(endless).await;
    let form = [("url", url.as_str()), ("filename", "x.img"), ("content", "iso"), ("compression", "zst")];
    let upid = site.fine("POST", "/nodes/pve1/storage/local/download-url", &form).await;
    let upid = upid.as_str().unwrap();
    let left = || std::fs::read_dir(world.dir().join("uploads")).unwrap().flatten().map(|file| file.file_name());
    while !left().any(|name| name.to_string_lossy().ends_with(".unpacked")) {
        assert_eq!(world.state().tasks.by_upid[upid].status, None, "it ended before it was stopped");
        tokio::task::yield_now().await;
    }
    world.stop_task(upid);
    site.ended(upid).await;
    let gone = async {
        while left().next().is_some() {
            tokio::task::yield_now().await;
        }
    };
    let gone = tokio::time::timeout(std::time::Duration::from_secs(5), gone).await;
    assert!(gone.is_ok(), "{:?}", left().collect::<Vec<_>>());
}
