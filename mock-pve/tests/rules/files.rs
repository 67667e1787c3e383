//! Files of the cluster and of its nodes: what is written there is read as the file holds it, or refused as its writer
//! refuses it.

use std::os::unix::fs::PermissionsExt as _;

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS, two_nodes};

/// A key that is written, and how it is read; `null`: it isn't.
type Row<'a> = (Form<'a>, &'a str, Value);

/// Writes and reads one path, row by row.
async fn written(site: &Site, path: &str, rows: &[Row<'_>]) {
    for (form, key, expected) in rows {
        site.fine("PUT", path, form).await;
        let read = site.fine("GET", path, &[]).await;
        assert_eq!(read.get(key).unwrap_or(&Value::Null), expected, "{path} {form:?}: {read}");
    }
}

/// What is said of the parameters of a refused request.
async fn errors(site: &Site, method: &str, path: &str, form: Form<'_>) -> Value {
    let (status, reason, body) = site.ask(method, path, form).await;
    assert_eq!(status, 400, "{method} {path} {form:?}: {reason}");
    body["errors"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn options_of_the_datacenter_are_lines_of_a_file() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let path = "/cluster/options";
    let nine = site.fine("GET", path, &[]).await;
    assert_eq!((&nine["mac_prefix"], &nine["description"]), (&json!("BC:24:11"), &json!("")));
    let rows: &[Row<'_>] = &[
        (&[("description", "one\n\ntwo")], "description", json!("one\n\ntwo\n")),
        (&[("description", "")], "description", json!("")),
        (&[("max_workers", "4")], "max_workers", json!("4")),
        (&[("mac_prefix", "bc:24:11")], "mac_prefix", json!("BC:24:11")),
        (&[("mac_prefix", "02:00")], "mac_prefix", json!("02:00")),
        (&[("delete", "mac_prefix")], "mac_prefix", json!("BC:24:11")),
        (&[("email_from", "")], "email_from", json!("")),
        (&[("crs", "")], "crs", json!("")),
        (&[("consent-text", " read \nno more ")], "consent-text", json!("read")),
        // A list is put in order by the next one who writes.
        (&[("registered-tags", "b;a")], "registered-tags", json!(["b", "a"])),
        (&[("language", "de")], "registered-tags", json!(["a", "b"])),
        (&[("migration_unsecure", "1")], "migration", json!({"type": "insecure"})),
        (&[("migration_unsecure", "0")], "migration_unsecure", json!(0)),
        (&[("migration_unsecure", "0"), ("delete", "migration")], "migration", json!({"type": "secure"})),
        (&[("next-id", "lower=500")], "next-id", json!({"lower": "500"})),
    ];
    written(&site, path, rows).await;
    let (status, reason, _) = site.ask("PUT", path, &[("next-id", "lower=300,upper=200")]).await;
    assert_eq!((status, reason.as_str()), (500, "lower (300) <= upper (200) boundary rule broken"));
    assert_eq!(
        site.fine("GET", path, &[]).await["next-id"],
        json!({"lower": "500"}),
        "what is refused changes nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_a_node_are_its_files() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let (dns, time, hosts, config) = ("/nodes/pve1/dns", "/nodes/pve1/time", "/nodes/pve1/hosts", "/nodes/pve1/config");
    let search = ("search", "lab.example other.example");
    let servers = [search, ("dns1", "0.0.0.0"), ("dns2", "192.0.2.1"), ("dns3", "192.0.2.1")];
    site.fine("PUT", dns, &servers).await;
    assert_eq!(site.fine("GET", dns, &[]).await, json!({"search": "lab.example", "dns1": "192.0.2.1"}));

    site.fine("PUT", time, &[("timezone", "Asia/Tokyo")]).await;
    let read = site.fine("GET", time, &[]).await;
    let ahead = read["localtime"].as_u64().unwrap() - read["time"].as_u64().unwrap();
    assert_eq!((&read["timezone"], ahead), (&json!("Asia/Tokyo"), 9 * 3600));
    for wrong in ["Europe/Nowhere", "europe/berlin", "../passwd"] {
        let said = errors(&site, "PUT", time, &[("timezone", wrong)]).await;
        assert_eq!(said["timezone"], "No such timezone", "{wrong}");
    }

    for (text, said) in [
        ("# x\n\n192.0.2.300 a\n", "Invalid IP '192.0.2.300'"),
        (" 192.0.2.3 a\n", "Invalid IP ''"),
        ("192.0.2.3 a b_c\n", "Invalid Hostname 'b_c'"),
        ("192.0.2.3 a # b\n", "Invalid Hostname '#'"),
    ] {
        assert_eq!(errors(&site, "POST", hosts, &[("data", text)]).await["data"], said, "{text}");
    }
    site.fine("POST", hosts, &[("data", "# x\n192.0.2.3\ta.b a-b\n::1 six\n")]).await;

    assert_eq!(site.fine("GET", config, &[]).await, json!({}));
    // Nobody has a digest of a file that isn't there.
    written(
        &site,
        config,
        &[(&[("startall-onboot-delay", "5"), ("digest", "00")], "startall-onboot-delay", json!("5"))],
    )
    .await;
    written(&site, config, &[(&[("description", "a  \nb")], "description", json!("a\nb\n"))]).await;
    written(&site, config, &[(&[("delete", "description")], "description", json!(""))]).await;
    let (status, reason, _) = site.ask("PUT", config, &[("description", "x"), ("digest", "00")]).await;
    assert_eq!(
        (status, reason.as_str()),
        (500, "detected modified configuration - file changed by other user? Try again.")
    );
    site.fine("PUT", config, &[("acme", "domains=a.example"), ("acmedomain0", "b.example")]).await;
    for (form, text) in [
        (("acme", "domains=a.example;A.example"), "duplicate domain 'a.example' in ACME config properties"),
        (
            ("acmedomain1", "B.example"),
            "duplicate domain 'b.example' in ACME config properties 'acmedomain1' and 'acmedomain0'",
        ),
        (("acmedomain1", "c.example,plugin=none"), "plugin 'none' for domain 'c.example' not found!"),
    ] {
        let (status, reason, _) = site.ask("PUT", config, &[form]).await;
        assert_eq!((status, reason.as_str()), (500, text));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_are_lengths_and_what_plugins_are_told_is_unpacked() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let bridge: Form<'_> =
        &[("iface", "vmbr5"), ("type", "bridge"), ("address", "192.0.2.65"), ("netmask", "255.255.255.192")];
    site.fine("POST", "/nodes/pve1/network", bridge).await;
    let read = site.fine("GET", "/nodes/pve1/network/vmbr5", &[]).await;
    assert_eq!((&read["cidr"], &read["netmask"]), (&json!("192.0.2.65/26"), &json!("26")));

    let both: Form<'_> =
        &[("iface", "vmbr6"), ("cidr", "192.0.2.1/24"), ("address", "192.0.2.1"), ("netmask", "255.0.0.0")];
    let said = errors(&site, "POST", "/nodes/pve1/network", &[both, &[("type", "bridge")]].concat()).await;
    assert_eq!(said, json!({"address": "address conflicts with cidr"}));
    // Whoever names addresses of one family only takes those of the other away.
    let six: Form<'_> = &[("type", "bridge"), ("cidr6", "fd00::1/64")];
    site.fine("PUT", "/nodes/pve1/network/vmbr5", six).await;
    let read = site.fine("GET", "/nodes/pve1/network/vmbr5", &[]).await;
    let shown = ["address", "cidr", "netmask", "address6", "families"].map(|key| read[key].clone());
    assert_eq!(json!(shown), json!([null, null, null, "fd00::1", ["inet6"]]));

    let plugin = "/cluster/acme/plugins";
    for (packed, plain) in
        [("YT0/Pj4K", "a=?>>\n"), ("YT0_Pj4K", "a=?>>\n"), ("YT0x\nYg==", "a=1b"), ("YT0xYg", "a=1b")]
    {
        site.fine("DELETE", &format!("{plugin}/p1"), &[]).await;
        let form = [("id", "p1"), ("type", "dns"), ("api", "cf"), ("data", packed)];
        site.fine("POST", plugin, &form).await;
        assert_eq!(site.fine("GET", &format!("{plugin}/p1"), &[]).await["data"], plain, "{packed}");
    }
    site.fine("PUT", &format!("{plugin}/p1"), &[("data", "Yj0y")]).await;
    assert_eq!(site.fine("GET", &format!("{plugin}/p1"), &[]).await["data"], "b=2");
}

/// The beginning of a qcow2 image that stands on another one.
fn on_another() -> Vec<u8> {
    let mut head = b"QFI\xfb\0\0\0\x02".to_vec();
    head.resize(512, 0);
    head[15] = 104;
    head
}

/// Uploads bytes, and says the UPID.
async fn uploaded(site: &Site, node: &str, (content, name): (&str, &str), bytes: &[u8]) -> String {
    let head = format!(
        "--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\n{content}\r\n--B\r\nContent-Disposition: \
         form-data; name=\"filename\"; filename=\"{name}\"\r\n\r\n"
    );
    let body = [head.as_bytes(), bytes, b"\r\n--B--"].concat();
    let path = format!("/api2/json/nodes/{node}/storage/local/upload");
    let kind = "Content-Type: multipart/form-data; boundary=B\r\n";
    let (status, reason, said) = site.send("POST", &path, kind, &body).await;
    assert_eq!(status, 200, "{reason} {said}");
    serde_json::from_str::<Value>(&said).unwrap()["data"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_is_the_work_of_the_node_that_got_it() {
    let mut site = Site::serve(Options { seed: two_nodes(), pve: PveVersion::V8, ..Options::default() }).await;
    site.log_in("root@pam", "secret").await;
    let upid = uploaded(&site, "pve2", ("iso", "far.iso"), b"DATA").await;
    assert!(upid.starts_with("UPID:pve1:"), "{upid}");
    let (end, log) = site.ended(&upid).await;
    assert_eq!(end, "OK", "{log:?}");
    let file = log[0].strip_prefix("starting file import from: ").unwrap();
    let known = "UserKnownHostsFile=/etc/pve/nodes/pve2/ssh_known_hosts -o GlobalKnownHostsFile=none";
    let target = "/var/lib/vz/template/iso/far.iso";
    let command = format!(
        "command: /usr/bin/scp -o BatchMode=yes -o HostKeyAlias=pve2 -o {known} -p -- {file} [192.0.2.3]:{target}"
    );
    assert_eq!(log[1..5], ["target node: pve2", &format!("target file: {target}"), "file size is: 4", &command]);
    let there = site.fine("GET", "/nodes/pve2/storage/local/content", &[]).await;
    assert_eq!(there[0]["volid"], "local:iso/far.iso");
    assert_eq!(site.fine("GET", "/nodes/pve1/storage/local/content", &[]).await, json!([]));

    // Neither may an image stand on another, whatever it is called.
    for kind in [("iso", "near.iso"), ("import", "near.qcow2")] {
        let (end, log) = site.ended(&uploaded(&site, "localhost", kind, &on_another()).await).await;
        let file = log[0].strip_prefix("starting file import from: ").unwrap();
        assert_eq!(end, format!("backing file not allowed for untrusted image '{file}'!"));
    }
    let (_, log) = site.ended(&uploaded(&site, "localhost", ("iso", "here.iso"), b"DATA").await).await;
    assert_eq!(log[1], "target node: localhost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_is_a_script_that_can_run() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    uploaded(&site, "pve1", ("iso", "x.iso"), b"DATA").await;
    let world = site.running.world().clone();
    let path = "/var/lib/vz/snippets/hook.sh";
    let Some(mock_pve::world::node_files::NodeFile::File { real }) = world.node_file("pve1", path) else {
        panic!("no file")
    };
    let write = |mode: u32| {
        std::fs::write(&real, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
        world.notice_file("pve1", path);
    };
    let config = format!("{VMS}/100/config");
    let script = "local:snippets/hook.sh";
    for (mode, volid, text) in [
        (None, script, "script 'local:snippets/hook.sh' does not exist\n"),
        (Some(0o644), script, "script 'local:snippets/hook.sh' is not executable\n"),
        (None, "local:iso/x.iso", "'local:iso/x.iso' is not in the snippets directory\n"),
        (None, "never:snippets/x", "storage 'never' does not exist\n"),
    ] {
        if let Some(mode) = mode {
            write(mode);
        }
        assert_eq!(errors(&site, "PUT", &config, &[("hookscript", volid)]).await["hookscript"], text);
    }
    write(0o755);
    site.fine("PUT", &config, &[("hookscript", script)]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    std::fs::remove_file(&real).unwrap();
    world.notice_file("pve1", path);
    // One that is gone keeps nobody from stopping.
    let log = site.done("POST", &format!("{VMS}/100/status/stop"), &[]).await;
    let gone = |phase: &str| format!("hookscript error for 100 on {phase}: script '{script}' does not exist");
    assert_eq!(log, [&gone("pre-stop"), "", "TASK OK"]);
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, gone("pre-start"));
}
