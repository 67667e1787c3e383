//! Terminals in a browser.

use futures_util::{SinkExt as _, StreamExt as _};
use mock_pve::world::PveVersion;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::site::{Site, VMS, encoded};

/// The key of RFC 6455 §1.3, and what it is answered with.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Somebody who looks at a terminal.
struct Viewer {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    seen: String,
}

/// What a request to go on as a WebSocket is answered with, and the connection.
async fn ask(site: &Site, at: &str, opened: &Value, headers: &str) -> (String, TlsStream<TcpStream>) {
    let (port, ticket) = (opened["port"].as_str().unwrap(), encoded(opened["ticket"].as_str().unwrap()));
    let login = &site.login;
    let request = format!(
        "GET /api2/json{at}/vncwebsocket?port={port}&vncticket={ticket} HTTP/1.1\r\nHost: x\r\n{login}{headers}\r\n"
    );
    let mut stream = site.connect().await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    (String::from_utf8(head).unwrap(), stream)
}

fn upgrade(version: &str) -> String {
    format!(
        "Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: {version}\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: binary\r\n"
    )
}

impl Viewer {
    /// Looks at what was opened, as who opened it.
    async fn at(site: &Site, at: &str, opened: &Value) -> Self {
        let (head, stream) = ask(site, at, opened, &upgrade("13")).await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        let head = head.to_lowercase();
        assert!(head.contains(&format!("sec-websocket-accept: {}\r\n", ACCEPT.to_lowercase())), "{head}");
        assert!(head.contains("sec-websocket-protocol: binary\r\n"), "{head}");
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        let mut viewer = Self { socket, seen: String::new() };
        let (user, ticket) = (opened["user"].as_str().unwrap(), opened["ticket"].as_str().unwrap());
        viewer.send(&format!("{user}:{ticket}\n")).await;
        viewer
    }

    async fn send(&mut self, text: &str) {
        self.socket.send(Message::binary(text.as_bytes().to_vec())).await.unwrap();
    }

    async fn keys(&mut self, keys: &str) {
        self.send(&format!("0:{}:{keys}", keys.len())).await;
    }

    /// Looks until this is seen.
    async fn sees(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            match self.socket.next().await {
                Some(Ok(Message::Binary(bytes))) => self.seen.push_str(&String::from_utf8_lossy(&bytes)),
                other => panic!("{other:?} after {:?}, which lacks {wanted:?}", self.seen),
            }
        }
    }

    /// Looks until nothing more is shown.
    async fn until_it_ends(mut self) -> String {
        while let Some(Ok(message)) = self.socket.next().await {
            if let Message::Binary(bytes) = message {
                self.seen.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        self.seen
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_opened_a_terminal_sees_it() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("serial0", "socket")]).await;
    site.fine("POST", "/access/users", &[("userid", "bob@pve"), ("password", "bobs-secret")]).await;
    let at = format!("{VMS}/100");
    let opened = site.fine("POST", &format!("{at}/termproxy"), &[]).await;
    assert_eq!((&opened["port"], &opened["user"]), (&Value::from("5900"), &Value::from("root@pam")));
    let port = [("port", "5900"), ("vncticket", "PVEVNC:00000000::AAAA")];
    let (status, reason, _) = site.ask("GET", &format!("{at}/vncwebsocket"), &port).await;
    assert_eq!((status, reason.as_str()), (401, "permission denied - invalid PVEVNC ticket"));
    let mut other = opened.clone();
    other["port"] = Value::from("5901");
    let (head, _) = ask(&site, &at, &other, &upgrade("13")).await;
    assert!(head.starts_with("HTTP/1.1 401 permission denied - invalid PVEVNC ticket\r\n"), "another port: {head}");
    let (head, _) = ask(&site, "/nodes/pve1", &opened, &upgrade("13")).await;
    assert!(head.starts_with("HTTP/1.1 401 permission denied - invalid PVEVNC ticket\r\n"), "{head}");
    for (headers, expected) in [
        (upgrade("8"), "501 unsupported websocket-version '8'"),
        (upgrade("13").replace("Upgrade: websocket", "Upgrade: h2c"), "501 unable to upgrade to protocol 'h2c'"),
        (upgrade("13").replace("Sec-WebSocket-Key", "X-Key"), "501 missing websocket-key"),
    ] {
        let (head, _) = ask(&site, &at, &opened, &headers).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected}\r\n")), "{head}");
    }
    let root = std::mem::take(&mut site.login);
    site.log_in("bob@pve", "bobs-secret").await;
    let (head, _) = ask(&site, &at, &opened, &upgrade("13")).await;
    assert!(head.starts_with("HTTP/1.1 403 Permission check failed (/vms/100, VM.Console)\r\n"), "{head}");
    let (status, reason, _) = site.ask("POST", "/nodes/pve1/termproxy", &[]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/nodes/pve1, Sys.Console)"));
    site.login = root;
    let opened = site.fine("POST", &format!("{at}/termproxy"), &[]).await;
    // A viewer that says something else first is sent away, and the port is free again.
    let (_, stream) = ask(&site, &at, &opened, &upgrade("13")).await;
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let mut viewer = Viewer { socket, seen: String::new() };
    viewer.send("bob@pve:PVEVNC:00000000::AAAA\n").await;
    assert_eq!(viewer.until_it_ends().await, "");
    let (end, _) = site.ended(opened["upid"].as_str().unwrap()).await;
    assert!(end.starts_with("command '/usr/bin/termproxy 590"), "{end}");
    let rest = "-- /usr/sbin/qm terminal 100 -escape 0' failed: exit code 1";
    assert!(end.contains(" --path /vms/100 --perm VM.Console ") && end.ends_with(rest), "{end}");
    let (head, _) = ask(&site, &at, &opened, &upgrade("13")).await;
    assert_eq!(head, "", "nobody waits there any more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_serial_port_shows_what_the_guest_says_until_it_is_off() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let at = format!("{VMS}/100");
    site.done("POST", VMS, &[("vmid", "100")]).await;
    for (options, text) in [
        (&[][..], "unable to find a serial interface\r\n"),
        (&[("serial", "serial1")][..], "serial interface 'serial1' is not configured\r\n"),
        (&[][..], "VM 100 not running\r\n"),
    ] {
        if text.starts_with("VM") {
            site.fine("PUT", &format!("{at}/config"), &[("serial0", "socket"), ("vga", "serial0")]).await;
        }
        let opened = site.fine("POST", &format!("{at}/termproxy"), options).await;
        assert_eq!(Viewer::at(&site, &at, &opened).await.until_it_ends().await, format!("OK{text}"));
        let (end, _) = site.ended(opened["upid"].as_str().unwrap()).await;
        assert_eq!(end, "OK");
    }
    site.done("POST", &format!("{at}/status/start"), &[]).await;
    let opened = site.fine("POST", &format!("{at}/termproxy"), &[]).await;
    let mut viewer = Viewer::at(&site, &at, &opened).await;
    viewer.sees("OKstarting serial terminal on interface serial0\r\n").await;
    viewer.send("2").await;
    viewer.send("1:80:24:").await;
    // Nobody listens, however much is typed.
    for _ in 0..100 {
        viewer.keys("root\r").await;
    }
    site.running.world().console(101, "somebody else's");
    site.running.world().console(100, "hello");
    viewer.sees("hello\r\n").await;
    site.done("POST", &format!("{at}/status/stop"), &[]).await;
    let seen = viewer.until_it_ends().await;
    assert!(!seen.contains("somebody"), "{seen}");
    let (end, _) = site.ended(opened["upid"].as_str().unwrap()).await;
    assert_eq!(end, "OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_has_a_shell_on_a_node_and_others_are_asked_who_they_are() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    let at = "/nodes/pve1";
    let opened = site.fine("POST", "/nodes/pve1/termproxy", &[]).await;
    let mut viewer = Viewer::at(&site, at, &opened).await;
    viewer.sees("OKroot@pve1:~# ").await;
    viewer.keys("hostx\x7fname\r").await;
    viewer.sees("hostx\x08 \x08name\r\npve1\r\nroot@pve1:~# ").await;
    viewer.keys("exit\r").await;
    assert!(viewer.until_it_ends().await.ends_with("exit\r\nlogout\r\n"));
    let (end, _) = site.ended(opened["upid"].as_str().unwrap()).await;
    assert_eq!(end, "OK");

    site.fine("POST", "/access/users", &[("userid", "ann@pve"), ("password", "anns-secret")]).await;
    site.fine("PUT", "/access/acl", &[("path", "/"), ("users", "ann@pve"), ("roles", "Administrator")]).await;
    site.log_in("ann@pve", "anns-secret").await;
    let opened = site.fine("POST", "/nodes/pve1/termproxy", &[]).await;
    let mut viewer = Viewer::at(&site, at, &opened).await;
    viewer.sees("pve1 login: ").await;
    viewer.keys("root\rsecret\r").await;
    viewer.sees("Login incorrect").await;
    assert!(!viewer.seen.contains("secret") && !viewer.seen.contains('#'), "{}", viewer.seen);
}
