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

/// What the sender of a request does next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Listens,
    HangsUp,
}

async fn begin() -> Running {
    let mut seed = Seed::single_node();
    seed.secrets.insert("PVE_PASSWORD".to_owned(), "secret".to_owned());
    serve::start(Options { seed, time_scale: 100.0, rng_seed: 3, ..Options::default() }).await.unwrap()
}

/// The status line of the answer, or nothing where the connection was cut off.
async fn send(running: &Running, request: &[u8]) -> String {
    answer(running, &running.ready.pve, request, Then::Listens).await.lines().next().unwrap_or_default().to_owned()
}

/// All that is said to a request.
async fn answer(running: &Running, url: &str, request: &[u8], then: Then) -> String {
    answer_over(&connector(running, &[]), url, request, then).await
}

/// How a client that offers these protocols connects.
fn connector(running: &Running, protocols: &[&str]) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    let ca = std::fs::read(&running.ready.ca_file).unwrap();
    roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn answer_over(connector: &TlsConnector, url: &str, request: &[u8], then: Then) -> String {
    let stream = TcpStream::connect(url.trim_start_matches("https://")).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await.unwrap();
    // It may be cut off before all of it went out.
    let _ = stream.write_all(request).await;
    let _ = stream.flush().await;
    if then == Then::HangsUp {
        let _ = stream.shutdown().await;
    }
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "hangs on {:?}", String::from_utf8_lossy(&request[..request.len().min(120)]));
    String::from_utf8_lossy(&answer).into_owned()
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
        ("nonsense\r\n\r\n".to_owned(), "HTTP/1.0 400 bad request"),
        ("GET /\r\n\r\n".to_owned(), "HTTP/1.0 400 bad request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "HTTP/1.0 506 http protocol version 2.0 not supported"),
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

#[tokio::test]
async fn whoever_speaks_without_tls_is_sent_to_where_it_is() {
    let running = begin().await;
    for (request, said) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: pve:8006\r\n\r\n", "HTTP/1.1 301 Moved Permanently|https://pve:8006/a?b=c"),
        ("POST / HTTP/1.0\r\nhost: pve\r\n\r\n", "HTTP/1.0 308 Permanent Redirect|https://pve/"),
        ("HEAD / HTTP/1.1\r\nHost: pve\r\n\r\n", "HTTP/1.1 501 method 'HEAD' not available|"),
        ("GET / HTTP/1.1\r\n\r\n", "|"),
        ("nonsense\r\n", "HTTP/1.0 400 bad request|"),
    ] {
        let mut stream = TcpStream::connect(running.ready.pve.trim_start_matches("https://")).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let location = answer.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap_or_default();
        let first = answer.lines().next().unwrap_or_default();
        assert_eq!(format!("{first}|{location}"), said, "{request}");
    }
    // Which protocols a client offers there, nobody looks at.
    let offers = connector(&running, &["http/1.0", "h2"]);
    let answer = answer_over(&offers, &running.ready.pve, b"GET /api2/json/version HTTP/1.0\r\n\r\n", Then::Listens);
    assert!(answer.await.starts_with("HTTP/1.0 401 No ticket\r\n"));
    still_serves(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_http_is_answered_or_cut_off() {
    let running = begin().await;
    let login = authorization(&running);
    let get = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n{login}{more}\r\n");
    let many = "X: y\r\n".repeat(70);
    let long = format!("X: {}\r\n", "y".repeat(9000));
    let websocket = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n";
    let vnc = "/api2/json/nodes/pve1/qemu/100/vncwebsocket";
    let deep = format!("{{\"cores\":{}}}", "[".repeat(100_000));
    let json = |body: &str| {
        format!(
            "PUT /api2/json/nodes/pve1/qemu/100/config HTTP/1.1\r\nHost: x\r\n{login}Content-Type: \
             application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let upload = |kind: &str, body: &str| {
        format!(
            "POST /api2/json/nodes/pve1/storage/local/upload HTTP/1.1\r\nHost: x\r\n{login}Content-Type: \
             multipart/form-data{kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let head = "--B\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"x.iso\"\r\n\r\nDATA";
    for (request, expected) in [
        // Too many header lines, too long ones: nobody answers.
        (get("/api2/json/version", &many), ""),
        (get("/api2/json/version", &long), ""),
        (format!("GET /api2/json/version HTTP/1.0\r\n{login}\r\n"), "HTTP/1.0 200 OK"),
        (format!("GET /api2/json/version HTTP/1.1\r\n{login}\r\n"), "HTTP/1.1 200 OK"),
        (get("/api2/json/%ff%fe%00", ""), "HTTP/1.1 501 "),
        (get("/api2/json/a%0d%0ab", ""), "HTTP/1.1 501 no such uri"),
        (get("/api2/json/%zz%", ""), "HTTP/1.1 501 Method 'GET /%zz%' not implemented"),
        (get("/%00", ""), "HTTP/1.1 500 "),
        (get("/api2/json/cluster/nextid?vmid=%00", ""), "HTTP/1.1 400 Parameter verification failed."),
        (get("/api2/json/cluster/nextid?vmid=-100", ""), "HTTP/1.1 400 Parameter verification failed."),
        (get("/api2/json/cluster/nextid?vmid=99999999999999999999", ""), "HTTP/1.1 400 Parameter verification failed."),
        (get(vnc, websocket), "HTTP/1.1 403 Permission check failed (/vms/100, VM.Console)"),
        (get("/api2/json/version", websocket), "HTTP/1.1 200 OK"),
        (json(&deep), "HTTP/1.1 500 json text or perl structure exceeds maximum nesting level"),
        (json("{\"cores\":1e400}"), "HTTP/1.1 400 Parameter verification failed."),
        (json("{\"cores\":-99999999999999999999999}"), "HTTP/1.1 400 Parameter verification failed."),
        (
            json(&format!("{{\"cores\":{}{}}}", "[".repeat(500), "]".repeat(500))),
            "HTTP/1.1 400 Parameter verification failed.",
        ),
        (json("{\"cores\":[[1]]}"), "HTTP/1.1 400 Parameter verification failed."),
        (json("{\"name\":\"\\u0000\"}"), "HTTP/1.1 400 Parameter verification failed."),
        (json("{\"name\":\"\\ud800\"}"), "HTTP/1.1 500 missing low surrogate character in surrogate pair"),
        // An upload that is none is left alone until it goes away.
        (upload("", "--B--"), ""),
        (upload("; boundary=B", head).replace("multipart/form-data", "multipart/mixed"), ""),
        (upload("; boundary=B", head).replace("/upload ", "/upload?tmpfilename=x "), ""),
        (upload("; boundary=B", head), "HTTP/1.1 500 upload failed"),
        (upload("; boundary=B", "--B--"), "HTTP/1.1 500 upload failed"),
        (upload("; boundary=B", &"x".repeat(100_000)), "HTTP/1.1 500 upload failed"),
    ] {
        let line = send(&running, request.as_bytes()).await;
        let shown = &request[..request.len().min(150)];
        assert!(line.starts_with(expected) && (line.is_empty() == expected.is_empty()), "{shown}: {line}");
    }
    still_serves(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_end_the_connection() {
    let running = begin().await;
    let login = authorization(&running);
    let pve = running.ready.pve.as_str();
    let with =
        |headers: &str, body: &str| format!("POST /api2/json/pools HTTP/1.1\r\nHost: x\r\n{login}{headers}\r\n{body}");
    // Less than was said, and then nothing: nobody is answered, and nothing is done.
    let half = with("Content-Length: 100\r\n", "poolid=half");
    assert_eq!(answer(&running, pve, half.as_bytes(), Then::HangsUp).await, "");
    // More than was said: the rest is another request, and none that can be read.
    let more = with("Content-Length: 9\r\n", "poolid=ab&comment=x\r\n\r\n");
    let said = answer(&running, pve, more.as_bytes(), Then::Listens).await;
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
    for lying in ["Content-Length: -5\r\n", "Content-Length: many\r\n", "Content-Length: 5\r\nContent-Length: 6\r\n"] {
        let line = send(&running, with(lying, "poolid=ab").as_bytes()).await;
        assert!(line.is_empty() || line.starts_with("HTTP/1.1 4"), "{lying}: {line}");
    }
    // Two requests at once are two answers.
    let get = |more: &str| format!("GET /api2/json/version HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    let open = login.replace("Connection: close\r\n", "");
    let both = format!("{}{}", get(&open), get(&login));
    let said = answer(&running, pve, both.as_bytes(), Then::Listens).await;
    assert_eq!(said.matches("HTTP/1.1 200 OK").count(), 2, "{said}");
    assert!(running.world().state().pools.is_empty());
    still_serves(&running).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_sockets_survive_nonsense_too() {
    let running = begin().await;
    let factory = running.ready.factory.clone().unwrap();
    let huge = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(200_000)).into_bytes();
    let nonsense: [&[u8]; 6] = [
        b"",
        b"\0\0\0\0",
        b"GET /%ff%00/../.. HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"SSH-2.0-x\r\n\xff\xff\xff\xff\xff\xff",
        &huge,
    ];
    let ssh = (running.ready.ssh.host.as_str(), running.ready.ssh.port);
    for bytes in nonsense {
        answer(&running, &factory, bytes, Then::HangsUp).await;
        let mut stream = TcpStream::connect(ssh).await.unwrap();
        // It may be cut off before all of it went out; either way, it ends.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut said = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut said)).await;
        assert!(read.is_ok(), "SSH hangs on {:?}", &bytes[..bytes.len().min(40)]);
    }
    let ask = b"GET /versions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let versions = answer(&running, &factory, ask, Then::Listens).await;
    assert!(versions.starts_with("HTTP/1.1 200"), "{versions}");
    let mut stream = TcpStream::connect(ssh).await.unwrap();
    let mut greeting = [0; 4];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"SSH-");
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
        assert!(line.is_empty() || line.starts_with("HTTP/1."), "round {round}: {line}");
    }
    still_serves(&running).await;
    running.stop().await;
}
