//! The rules of VM configs and storages over the API: what waits for a stop, what is applied at once, and the original's
//! words where something can't be.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::sync::Arc;
use std::time::Duration;

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::seed::Seed;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A double and one connection after the other to it.
struct Site {
    running: Running,
    login: String,
}

impl Site {
    async fn begin(pve: PveVersion) -> Self {
        let mut seed = Seed::single_node();
        seed.users[0].password = Some("secret".to_owned());
        let options = Options { seed, time_scale: 200.0, pve, rng_seed: 3, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let (id, secret) = running.ready.tokens.iter().next().unwrap();
        let login = format!("Authorization: PVEAPIToken={id}={secret}\r\n");
        Self { running, login }
    }

    /// The same with all rights.
    async fn begin_as_root() -> Self {
        let mut site = Self::begin(PveVersion::V8).await;
        let form = [("username", "root@pam"), ("password", "secret")];
        let data = site.fine("POST", "/access/ticket", &form).await;
        let (ticket, csrf) = (data["ticket"].as_str().unwrap(), data["CSRFPreventionToken"].as_str().unwrap());
        let ticket = percent_encoding::utf8_percent_encode(ticket, percent_encoding::NON_ALPHANUMERIC);
        site.login = format!("Cookie: PVEAuthCookie={ticket}\r\nCSRFPreventionToken: {csrf}\r\n");
        site
    }

    /// Status, reason and body.
    async fn ask(&self, method: &str, path: &str, form: &[(&str, &str)]) -> (u16, String, Value) {
        let running = &self.running;
        let mut roots = rustls::RootCertStore::empty();
        let ca = std::fs::read(&running.ready.ca_file).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(running.ready.pve.trim_start_matches("https://")).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let encode =
            |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
        let pairs: Vec<String> = form.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
        let form = pairs.join("&");
        let (path, form) = if method == "GET" || method == "DELETE" {
            (format!("{path}?{form}"), String::new())
        } else {
            (path.to_owned(), form)
        };
        let login = if path == "/access/ticket" { "" } else { &self.login };
        let request = format!(
            "{method} /api2/json{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}Content-Length: {}\r\n\r\n{form}",
            form.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A server that closes without a last word has still answered.
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap();
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut words = head.lines().next().unwrap().splitn(3, ' ').skip(1);
        let status = words.next().unwrap().parse().unwrap();
        (status, words.next().unwrap_or_default().to_owned(), serde_json::from_str(body).unwrap_or_default())
    }

    async fn fine(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let (status, reason, body) = self.ask(method, path, form).await;
        assert_eq!(status, 200, "{method} {path}: {reason} {body}");
        body["data"].clone()
    }

    /// How the task of a request ends, and its log.
    async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> (String, Vec<String>) {
        let upid = self.fine(method, path, form).await;
        let upid = upid.as_str().unwrap().to_owned();
        let end = self.running.world().task_end(&upid, Duration::from_secs(30)).await.unwrap();
        let log = self.running.world().state().tasks.by_upid[&upid].log.clone();
        (end, log)
    }

    async fn done(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Vec<String> {
        let (end, log) = self.task(method, path, form).await;
        assert_eq!(end, "OK", "{method} {path}: {log:?}");
        log
    }

    async fn config(&self, vmid: u32, current: bool) -> Value {
        let form: &[(&str, &str)] = if current { &[("current", "1")] } else { &[] };
        self.fine("GET", &format!("/nodes/pve1/qemu/{vmid}/config"), form).await
    }

    async fn pending(&self, vmid: u32, key: &str) -> Value {
        let all = self.fine("GET", &format!("/nodes/pve1/qemu/{vmid}/pending"), &[]).await;
        all.as_array().unwrap().iter().find(|entry| entry["key"] == key).cloned().unwrap_or_default()
    }
}

const VMS: &str = "/nodes/pve1/qemu";

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
    let site = Site::begin_as_root().await;
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
