//! A double, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::seed::Seed;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The VMs of the one node.
pub(crate) const VMS: &str = "/nodes/pve1/qemu";

/// What a form holds.
pub(crate) type Form<'a> = &'a [(&'a str, &'a str)];

/// A double and one connection after the other to it.
pub(crate) struct Site {
    pub(crate) running: Running,
    pub(crate) login: String,
}

/// A text as a form has it.
pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl Site {
    /// With the token of the default world.
    pub(crate) async fn begin(pve: PveVersion) -> Self {
        Self::serve(Options { pve, ..Options::default() }).await
    }

    /// The same with all rights.
    pub(crate) async fn begin_as_root(pve: PveVersion) -> Self {
        let mut site = Self::begin(pve).await;
        site.log_in("root@pam", "secret").await;
        site
    }

    /// With these options, but fast, repeatable, and with a password that is known.
    pub(crate) async fn serve(options: Options) -> Self {
        Self::serve_at(options, 200.0).await
    }

    /// With all rights, and that much faster than the original: what is only there for a moment can be seen.
    pub(crate) async fn slowly(time_scale: f64) -> Self {
        let mut site = Self::serve_at(Options::default(), time_scale).await;
        site.log_in("root@pam", "secret").await;
        site
    }

    async fn serve_at(options: Options, time_scale: f64) -> Self {
        let Options { mut seed, state, pve, .. } = options;
        seed.users[0].password = Some("secret".to_owned());
        let options = Options { seed, state, pve, time_scale, rng_seed: 3, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let mut site = Self { running, login: String::new() };
        let (id, secret) =
            site.running.ready.tokens.iter().next().map(|(id, secret)| (id.clone(), secret.clone())).unwrap();
        site.with_token(&id, &secret);
        site
    }

    /// Asks with a token from now on.
    pub(crate) fn with_token(&mut self, id: &str, secret: &str) {
        self.login = format!("Authorization: PVEAPIToken={id}={secret}\r\n");
    }

    /// Asks with a ticket from now on.
    pub(crate) async fn log_in(&mut self, user: &str, password: &str) {
        let data = self.fine("POST", "/access/ticket", &[("username", user), ("password", password)]).await;
        let (ticket, csrf) = (data["ticket"].as_str().unwrap(), data["CSRFPreventionToken"].as_str().unwrap());
        self.login = format!("Cookie: PVEAuthCookie={}\r\nCSRFPreventionToken: {csrf}\r\n", encoded(ticket));
    }

    /// What comes back for the bytes of a request, as text.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        String::from_utf8_lossy(&self.bytes(request).await).into_owned()
    }

    /// A connection to the API.
    pub(crate) async fn connect(&self) -> TlsStream<TcpStream> {
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
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
    }

    /// What comes back for the bytes of a request.
    pub(crate) async fn bytes(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect().await;
        stream.write_all(request).await.unwrap();
        // TLS may still hold some of it.
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        // A server that closes without a last word has still answered.
        let _ = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.unwrap();
        answer
    }

    /// Status, reason and body of a request with such a path, more headers and a body.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, String) {
        let login = if path.ends_with("/access/ticket") { "" } else { &self.login };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{login}{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        let answer = self.raw(&[head.as_bytes(), body].concat()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut words = head.lines().next().unwrap().splitn(3, ' ').skip(1);
        let status = words.next().unwrap().parse().unwrap();
        (status, words.next().unwrap_or_default().to_owned(), body.to_owned())
    }

    /// Status, reason and body.
    pub(crate) async fn ask(&self, method: &str, path: &str, form: &[(&str, &str)]) -> (u16, String, Value) {
        let pairs: Vec<String> =
            form.iter().map(|(key, value)| format!("{}={}", encoded(key), encoded(value))).collect();
        let form = pairs.join("&");
        let (path, form) = if method == "GET" || method == "DELETE" {
            (format!("/api2/json{path}?{form}"), String::new())
        } else {
            (format!("/api2/json{path}"), form)
        };
        let (status, reason, body) = self.send(method, &path, "", form.as_bytes()).await;
        (status, reason, serde_json::from_str(&body).unwrap_or_default())
    }

    /// The data of an answer that has to be good.
    pub(crate) async fn fine(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Value {
        let (status, reason, body) = self.ask(method, path, form).await;
        assert_eq!(status, 200, "{method} {path} {form:?}: {reason} {body}");
        body["data"].clone()
    }

    /// How the task of a request ends, and its log.
    pub(crate) async fn task(&self, method: &str, path: &str, form: &[(&str, &str)]) -> (String, Vec<String>) {
        let upid = self.fine(method, path, form).await;
        self.ended(upid.as_str().unwrap()).await
    }

    /// How a task ends, and its log.
    pub(crate) async fn ended(&self, upid: &str) -> (String, Vec<String>) {
        let end = self.running.world().task_end(upid, Duration::from_secs(30)).await.unwrap();
        let log = self.running.world().state().tasks.by_upid[upid].log.clone();
        (end, log)
    }

    /// The log of a task that has to end well.
    pub(crate) async fn done(&self, method: &str, path: &str, form: &[(&str, &str)]) -> Vec<String> {
        let (end, log) = self.task(method, path, form).await;
        assert_eq!(end, "OK", "{method} {path}: {log:?}");
        log
    }

    pub(crate) async fn config(&self, vmid: u32, current: bool) -> Value {
        let form: &[(&str, &str)] = if current { &[("current", "1")] } else { &[] };
        self.fine("GET", &format!("{VMS}/{vmid}/config"), form).await
    }

    pub(crate) async fn pending(&self, vmid: u32, key: &str) -> Value {
        let all = self.fine("GET", &format!("{VMS}/{vmid}/pending"), &[]).await;
        all.as_array().unwrap().iter().find(|entry| entry["key"] == key).cloned().unwrap_or_default()
    }
}

/// Two nodes, as a cluster.
pub(crate) fn two_nodes() -> Seed {
    let mut seed = Seed { cluster_name: Some("two".to_owned()), ..Seed::single_node() };
    let mut second = seed.nodes[0].clone();
    "pve2".clone_into(&mut second.name);
    second.ip = Some([192, 0, 2, 3].into());
    seed.nodes.push(second);
    seed
}
