//! Nonsense over the API's socket: it is answered or cut off, and the next request is served.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::sync::Arc;
use std::time::Duration;

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::seed::Seed;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn begin() -> Running {
    let mut seed = Seed::single_node();
    seed.secrets.insert("PVE_PASSWORD".to_owned(), "secret".to_owned());
    serve::start(Options { seed, time_scale: 100.0, rng_seed: 3, ..Options::default() }).await.unwrap()
}

/// The status line of the answer, or nothing where the connection was cut off.
async fn send(running: &Running, request: &[u8]) -> String {
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
    // It may be cut off before all of it went out.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "hangs on {:?}", String::from_utf8_lossy(&request[..request.len().min(120)]));
    String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned()
}

fn authorization(running: &Running) -> String {
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    format!("Authorization: PVEAPIToken={id}={secret}\r\nConnection: close\r\n")
}

async fn still_serves(running: &Running) {
    let request = format!("GET /api2/json/version HTTP/1.1\r\nHost: x\r\n{}\r\n", authorization(running));
    assert_eq!(send(running, request.as_bytes()).await, "HTTP/1.1 200 OK");
}

#[tokio::test]
async fn bad_http_gets_the_originals_errors() {
    let running = begin().await;
    let login = authorization(&running);
    let put = |more: &str, body: &str| {
        format!(
            "PUT /api2/json/nodes/pve1/qemu/100/config HTTP/1.1\r\nHost: x\r\n{login}{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (request, line) in [
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.1 400 bad request"),
        ("GET /\r\n\r\n".to_owned(), "HTTP/1.1 400 bad request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "HTTP/1.1 506 http protocol version 2.0 not supported"),
        ("GET /version HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), "HTTP/1.1 506 unable to parse request header"),
        (
            format!("PATCH /api2/json/version HTTP/1.1\r\nHost: x\r\n{login}\r\n"),
            "HTTP/1.1 501 method 'PATCH' not available",
        ),
        (
            format!("POST /api2/json/pools HTTP/1.1\r\nHost: x\r\n{login}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "HTTP/1.1 501 chunked transfer encoding not supported",
        ),
        (put("Content-Type: text/xml\r\n", "<a/>"), "HTTP/1.1 506 upload 'Content-Type 'text/xml' not implemented"),
        (
            put("Content-Type: application/json\r\n", "[1]"),
            "HTTP/1.1 500 Not a HASH reference at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 957.",
        ),
        (put("", &"a=b&".repeat(200_000)), "HTTP/1.1 501 for data too large"),
        (put("", "cores=%zz%"), "HTTP/1.1 400 Parameter verification failed."),
    ] {
        assert_eq!(send(&running, request.as_bytes()).await, line, "{}", &request[..request.len().min(150)]);
    }
    still_serves(&running).await;
    running.stop().await;
}

/// A small generator: the same requests on every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_makes_it_panic_or_hang() {
    let running = begin().await;
    let login = authorization(&running);
    let mut chance = Chance(1);
    let paths = [
        "/api2/json/nodes/pve1/qemu/100/config",
        "/api2/json/nodes/pve1/storage/local/upload",
        "/api2/json/nodes/pve1/storage/local/content/..%2F..%2Fetc%2Fpasswd",
        "/api2/json/cluster/firewall/rules/18446744073709551616",
        "/api2/json/nodes/pve1/tasks/UPID:pve1:::::::",
        "/api2/json/access/users/%00@%ff",
        "/api2/json/access/acl?path=%2F%2F%2F&roles=a,b;c&users=x@y",
        "/api2/extjs/cluster/nextid?vmid=-1",
        "/api2/json/pools?poolid=a/b/c/d",
        "//////",
        "/api2/json/nodes/%F0%9F%98%80/status",
    ];
    let kinds = [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=B",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "",
    ];
    let bodies = [
        "{\"a\":{\"b\":[[[]]]}}",
        "{\"vmid\":1e400}",
        "[[[[[[",
        "a=1&a=2&=&&;;=%",
        "--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n--B\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"../../x.iso\"\r\n\r\n",
        "--B--",
        "delete=%00&revert=%ff&digest=x",
        "scsi0=,,,=,a=b=c&net0=virtio=&ide2=:::",
    ];
    for round in 0..150 {
        let mut request = Vec::new();
        if chance.below(8) == 0 {
            let count = chance.below(600) + 1;
            request.extend(chance.bytes(count));
            request.extend_from_slice(b"\r\n\r\n");
        } else {
            let method = chance.pick(&["GET", "POST", "PUT", "DELETE", "HEAD", "TRACE"]);
            let mut body = chance.pick(&bodies).as_bytes().to_vec();
            if chance.below(4) == 0 {
                let count = chance.below(200);
                body.extend(chance.bytes(count));
            }
            let head = format!(
                "{method} {} HTTP/1.1\r\nHost: x\r\n{login}Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
                chance.pick(&paths),
                chance.pick(&kinds),
                body.len()
            );
            request.extend_from_slice(head.as_bytes());
            request.extend(body);
        }
        let line = send(&running, &request).await;
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 "), "round {round}: {line}");
    }
    still_serves(&running).await;
    running.stop().await;
}
