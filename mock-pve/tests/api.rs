//! The API over real TLS sockets, asked by hand-written requests.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::deed::Origin;
use mock_pve::world::seed::{Seed, VmSeed};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

struct Answer {
    status: u16,
    reason: String,
    body: String,
}

impl Answer {
    fn data(&self) -> Value {
        serde_json::from_str::<Value>(&self.body).unwrap()["data"].clone()
    }
}

async fn begin(state: Option<&Path>) -> Running {
    begin_at(100.0, state).await
}

async fn begin_at(time_scale: f64, state: Option<&Path>) -> Running {
    let mut seed = Seed::single_node();
    seed.secrets.insert("PVE_PASSWORD".to_owned(), "secret".to_owned());
    seed.vms.push(VmSeed {
        vmid: 100,
        name: Some("seeded".to_owned()),
        config: [
            ("scsi0", json!("local-lvm:vm-100-disk-0,size=1G")),
            ("net0", json!("virtio=BC:24:11:00:00:01,bridge=vmbr0")),
            ("boot", json!("order=scsi0")),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into(),
        ..VmSeed::default()
    });
    let options = Options { seed, time_scale, state: state.map(Path::to_owned), rng_seed: 7, ..Options::default() };
    serve::start(options).await.unwrap()
}

async fn raw(running: &Running, request: &[u8]) -> Answer {
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(&running.ready.ca_file).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let address = running.ready.pve.trim_start_matches("https://");
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    stream.write_all(request).await.unwrap();
    // TLS may still hold some of it.
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the server hangs on {:?}", String::from_utf8_lossy(&request[..request.len().min(200)]));
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let line = head.lines().next().unwrap_or_default();
    let mut words = line.splitn(3, ' ').skip(1);
    Answer {
        status: words.next().and_then(|word| word.parse().ok()).unwrap_or(0),
        reason: words.next().unwrap_or_default().to_owned(),
        body: body.to_owned(),
    }
}

async fn call(running: &Running, method: &str, path: &str, form: &str) -> Answer {
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    let request = format!(
        "{method} /api2/json{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: PVEAPIToken={id}={secret}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    raw(running, request.as_bytes()).await
}

async fn task(running: &Running, method: &str, path: &str, form: &str) -> String {
    let answer = call(running, method, path, form).await;
    assert_eq!(answer.status, 200, "{method} {path}: {}", answer.reason);
    let upid = answer.data().as_str().unwrap().to_owned();
    running.world().task_end(&upid, Duration::from_secs(20)).await.unwrap()
}

#[tokio::test]
async fn a_template_is_uploaded_imported_cloned_and_destroyed() {
    let running = begin(None).await;
    let image = vec![7_u8; 3 * 65_536 + 5];
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    let mut body = b"--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nimport\r\n--B\r\n\
        Content-Disposition: form-data; name=\"filename\"; filename=\"talos.raw\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n"
        .to_vec();
    body.extend_from_slice(&image);
    body.extend_from_slice(b"\r\n--B--");
    let mut request = format!(
        "POST /api2/json/nodes/pve1/storage/local/upload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: PVEAPIToken={id}={secret}\r\nContent-Type: multipart/form-data; boundary=B\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    let answer = raw(&running, &request).await;
    assert_eq!(answer.status, 200, "{} {}", answer.reason, answer.body);
    let upid = answer.data().as_str().unwrap().to_owned();
    assert_eq!(running.world().task_end(&upid, Duration::from_secs(20)).await.as_deref(), Some("OK"));

    let form = "vmid=9000&name=tmpl&scsihw=virtio-scsi-single&net0=virtio%2Cbridge%3Dvmbr0\
        &scsi0=local-lvm%3A0%2Cimport-from%3Dlocal%3Aimport%2Ftalos.raw%2Cdiscard%3Don";
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu", form).await, "OK");
    assert_eq!(task(&running, "PUT", "/nodes/pve1/qemu/9000/resize", "disk=scsi0&size=64M").await, "OK");
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu/9000/template", "").await, "OK");
    let config = call(&running, "GET", "/nodes/pve1/qemu/9000/config", "").await.data();
    assert_eq!(config["scsi0"], "local-lvm:base-9000-disk-0,discard=on,size=64M");
    assert_eq!(config["template"], 1);

    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu/9000/clone", "newid=101&name=canary").await, "OK");
    let boot = running.world().boot(101).unwrap();
    let copied = std::fs::read(boot.disk.unwrap()).unwrap();
    assert_eq!(copied.len(), 64 << 20);
    assert!(copied.starts_with(&image) && copied[image.len()..image.len() + 4096].iter().all(|byte| *byte == 0));

    assert_eq!(task(&running, "DELETE", "/nodes/pve1/qemu/101", "").await, "OK");
    assert_eq!(call(&running, "GET", "/nodes/pve1/qemu/101/config", "").await.status, 500);
    let destroyed = running.audit().deeds().into_iter().find(|deed| deed.what == "destroy").unwrap();
    assert_eq!((destroyed.vmid, destroyed.origin), (Some(101), Origin::Created));
    assert_eq!(running.requests(), 8);
    running.stop().await;
}

#[tokio::test]
async fn refusals_have_the_originals_words() {
    let running = begin(None).await;
    for (method, path, form, status, reason) in [
        (
            "GET",
            "/nodes/pve1/qemu/999/config",
            "",
            500,
            "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist",
        ),
        ("GET", "/nonsense", "", 501, "Method 'GET /nonsense' not implemented"),
        ("PATCH", "/version", "", 501, "method 'PATCH' not available"),
        (
            "GET",
            "/nodes/nosuch/qemu",
            "",
            500,
            "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
        ),
        ("PUT", "/nodes/pve1/qemu/100/config", "cores=0", 400, "Parameter verification failed."),
        ("PUT", "/nodes/pve1/qemu/100/config", "args=-S", 500, "only root can set 'args' config"),
        ("POST", "/access/roles", "roleid=x", 403, "Permission check failed (/access, Sys.Modify)"),
        ("DELETE", "/version", "a=1", 501, "Unexpected content for method 'DELETE'"),
        (
            "PUT",
            "/nodes/pve1/qemu/100/config",
            "cores=2&digest=00",
            500,
            "checksum mismatch (file change by other user?)",
        ),
    ] {
        let answer = call(&running, method, path, form).await;
        assert_eq!((answer.status, answer.reason.as_str()), (status, reason), "{method} {path} {form}");
    }
    running.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_answered_or_cut_off_and_never_harm() {
    let running = begin(None).await;
    for request in [
        &b"\x16\x03garbage\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api2/json/version HTTP/1.1\r\nAuthorization: PVEAPIToken=\xff\xfe\r\nConnection: close\r\n\r\n",
        b"GET /api2/json/%ff%00/%2e%2e HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{\"a",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nContent-Length: 99999999999999999999\r\nConnection: close\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\nzz\r\n",
    ] {
        let answer = raw(&running, request).await;
        assert!(answer.status == 0 || answer.status >= 400, "{}", answer.status);
    }
    assert_eq!(call(&running, "GET", "/version", "").await.data()["release"], "8.4");
    running.stop().await;
}

#[tokio::test]
async fn a_world_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = begin(Some(dir.path())).await;
    let before = running.ready.fingerprint.clone();
    assert_eq!(call(&running, "PUT", "/nodes/pve1/qemu/100/config", "description=kept").await.status, 200);
    running.stop().await;
    let running = begin(Some(dir.path())).await;
    assert_eq!(running.ready.fingerprint, before);
    let config = call(&running, "GET", "/nodes/pve1/qemu/100/config", "").await.data();
    assert_eq!(config["description"], "kept");
    let site = std::fs::read_to_string(&running.ready.site_file).unwrap();
    assert!(site.contains(&running.ready.pve) && site.contains(&running.ready.fingerprint));
    running.stop().await;
}

#[tokio::test]
async fn a_new_vm_has_no_name_in_the_resources_until_the_next_statistics() {
    // At the pace of life: no statistics round comes in between.
    let running = begin_at(1.0, None).await;
    assert_eq!(task(&running, "POST", "/nodes/pve1/qemu", "vmid=200&name=late").await, "OK");
    let find = |list: Value| list.as_array().unwrap().iter().find(|vm| vm["vmid"] == 200).cloned();
    running.world().state().vms.get_mut(&200).unwrap().seen = None;
    let early = find(call(&running, "GET", "/cluster/resources?type=vm", "").await.data()).unwrap();
    assert!(early["status"] == "unknown" && early.get("name").is_none() && early.get("template").is_none(), "{early}");
    running.world().state().broadcast();
    let late = find(call(&running, "GET", "/cluster/resources?type=vm", "").await.data()).unwrap();
    assert!(late["name"] == "late" && late["template"] == 0, "{late}");
    running.stop().await;
}
