//! A cluster in the double, and kubectl pointed at it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::machine::Authority;
use mock_pve::world::machine::pki::{self, Identity, Kind, Subject};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PROFILE: &str = r#"
name: lab
talos: {version: "1.12.4", kubernetes_version: "1.34.1", config_dir: lab, secrets_file: secrets.yaml, vip: {ip: 10.78.0.10}}
network: {api_endpoint: "10.78.0.10:6443", gateway: 10.78.0.1, prefix: 24}
nodes:
  controlplane:
    {count: 1, name_prefix: cp-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: cp-01, node: pve1, vmid: 1200, ip: 10.78.0.11}]}
  workers:
    {count: 2, name_prefix: worker-, cores: 2, memory: 4096, disk: 10G, assignments: [
      {name: worker-01, node: pve1, vmid: 1210, ip: 10.78.0.21}, {name: worker-02, node: pve1, vmid: 1211, ip: 10.78.0.22}]}
tags: [talos, lab]
"#;

/// A cluster that runs, and kubectl pointed at it.
pub(crate) struct Lab {
    running: Option<Running>,
    folder: tempfile::TempDir,
    program: PathBuf,
    /// Where its control plane listens.
    pub(crate) address: String,
    authority: Authority,
    /// Held as long as the double listens.
    _networks: Vec<Loopback>,
}

/// What kubectl said.
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Lab {
    pub(crate) async fn begin(program: impl Into<PathBuf>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lab")).unwrap();
        let secrets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/lab/secrets.yaml");
        let text = std::fs::read_to_string(&secrets).unwrap();
        std::fs::copy(secrets, folder.path().join("lab/secrets.yaml")).unwrap();
        std::fs::write(folder.path().join("lab.yaml"), PROFILE).unwrap();
        let Profiled { seed, networks } =
            Profiled::load(&folder.path().join("lab.yaml"), &std::env::temp_dir()).unwrap();
        let options = Options { seed, time_scale: 20.0, rng_seed: 7, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let machine = running.ready.machines.iter().find(|machine| machine.name == "cp-01").unwrap();
        let address = machine.dialled.to_string();
        let secrets: Value = serde_saphyr::from_str(&text).unwrap();
        let decode = |pointer: &str| {
            let text = secrets.pointer(pointer).unwrap().as_str().unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        let authority = Authority { certificate: decode("/certs/k8s/crt"), key: decode("/certs/k8s/key") };
        let lab =
            Self { running: Some(running), folder, program: program.into(), address, authority, _networks: networks };
        lab.identity("admin", &["system:masters"]);
        lab.identity("jane", &["developers"]);
        let began = Instant::now();
        while lab.get("/api/v1/nodes").await["items"].as_array().is_none_or(|nodes| nodes.len() < 3) {
            assert!(began.elapsed() < Duration::from_mins(1), "the API server never answered");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        lab
    }

    /// An answer to a request as it is written here, by somebody with a certificate, or without one.
    pub(crate) async fn raw(&self, certificate: Option<&Identity>, request: &[u8]) -> Option<(u16, Value)> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match certificate {
            Some(made) => config.with_client_auth_cert(vec![made.certificate.clone()], made.key.clone_key()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(format!("{}:6443", self.address)).await.ok()?;
        let name = ServerName::try_from("10.78.0.11").unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()?;
        stream.write_all(request).await.ok()?;
        stream.flush().await.ok()?;
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let _ = tokio::time::timeout(Duration::from_secs(10), read).await.expect("an answer that ends");
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, serde_json::from_str(body.trim()).unwrap_or(Value::String(body.to_owned()))))
    }

    /// An administrator's certificate for so many days.
    pub(crate) fn admin(&self, days: u64) -> Identity {
        let subject = Subject::Client { name: Some("admin"), organizations: &["system:masters"] };
        pki::issue(&self.authority, Kind::P256, subject, days).unwrap()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: \
             {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(Some(&self.admin(1)), request.as_bytes()).await.unwrap_or((0, Value::Null))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, "application/json", "").await.1
    }

    /// A kubeconfig for somebody with a certificate.
    fn identity(&self, name: &str, groups: &[&str]) {
        let subject = Subject::Client { name: Some(name), organizations: groups };
        let made = pki::issue(&self.authority, Kind::P256, subject, 1).unwrap();
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        self.kubeconfig(name, &encode(&made.certificate_pem), &encode(&made.key_pem));
    }

    /// A kubeconfig with a certificate and a key, both in base64.
    pub(crate) fn kubeconfig(&self, name: &str, certificate: &str, key: &str) {
        let authority = base64::engine::general_purpose::STANDARD.encode(&self.authority.certificate);
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n- name: lab\n  cluster:\n    server: \
             https://{}:6443\n    tls-server-name: 10.78.0.11\n    certificate-authority-data: {}\nusers:\n- name: me\n  \
             user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: lab\n  context: \
             {{cluster: lab, user: me}}\n",
            self.address, authority, certificate, key
        );
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn command(&self, who: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KUBECONFIG", self.folder.path().join(who))
            .current_dir(self.folder.path())
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command("admin", args).spawn().unwrap()
    }

    pub(crate) fn run_as(&self, who: &str, args: &[&str]) -> Said {
        let output = self.command(who, args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        self.run_as("admin", args)
    }

    /// What it says when all went well.
    #[track_caller]
    pub(crate) fn says(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!(said.code, 0, "kubectl {}: {}{}", args.join(" "), said.out, said.err);
        said.out
    }

    /// What it says when it didn't.
    #[track_caller]
    pub(crate) fn refuses(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_ne!(said.code, 0, "kubectl {}: {}", args.join(" "), said.out);
        said.err
    }

    pub(crate) fn file(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub(crate) async fn end(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }
}

/// All of these are somewhere in a text.
#[track_caller]
pub(crate) fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "'{part}' is not in:\n{text}");
    }
}
