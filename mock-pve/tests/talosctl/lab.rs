//! A cluster in the double, and talosctl pointed at it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::machine::Authority;
use mock_pve::world::machine::pki::{self, Kind, Subject};
use serde_json::Value;

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) ok: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A cluster that runs, and the means to talk to it.
pub(crate) struct Lab {
    program: PathBuf,
    pub(crate) running: Running,
    net: Loopback,
    dir: tempfile::TempDir,
}

impl Lab {
    pub(crate) async fn begin(talos: &str, kubernetes: &str, control_planes: u8, workers: u8) -> Option<Self> {
        let program = real_parts::client("talosctl")?;
        let dir = tempfile::tempdir().unwrap();
        let net =
            Loopback::take(&std::env::temp_dir(), std::process::id().wrapping_mul(31) + u32::from(control_planes))
                .unwrap();
        let base = net.base();
        let secrets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../profiles/single/secrets.yaml");
        std::fs::create_dir(dir.path().join("configs")).unwrap();
        std::fs::copy(&secrets, dir.path().join("configs/secrets.yaml")).unwrap();
        let mut groups = String::new();
        for (group, prefix, first, count) in
            [("controlplane", "cp-", 11, control_planes), ("workers", "worker-", 21, workers)]
        {
            if count > 0 {
                let _ = write!(
                    groups,
                    "  {group}:\n    {{count: {count}, name_prefix: {prefix}, cores: 2, memory: 4096, disk: 10G, assignments: ["
                );
                for number in 0..count {
                    let vmid = u32::from(first) * 100 + u32::from(number);
                    let _ = write!(
                        groups,
                        "{{name: {prefix}{:02}, node: pve1, vmid: {vmid}, ip: {base}.{}}}, ",
                        number + 1,
                        first + number
                    );
                }
                groups.push_str("]}\n");
            }
        }
        let profile = format!(
            "name: lab\ntalos: {{version: \"{talos}\", kubernetes_version: \"{kubernetes}\", config_dir: configs, \
             secrets_file: secrets.yaml}}\nnetwork: {{api_endpoint: \"{base}.11:6443\", gateway: {base}.1, prefix: 24}}\n\
             nodes:\n{groups}tags: [talos, lab]\n"
        );
        std::fs::write(dir.path().join("lab.yaml"), profile).unwrap();
        let seed = Profiled::load(&dir.path().join("lab.yaml"), dir.path()).unwrap().seed;
        // No faster: talosctl waits a second before it looks again, and has to find the machine on its way.
        let options = Options { seed, time_scale: 15.0, rng_seed: 5, ..Options::default() };
        let running = serve::start(options).await.unwrap();
        let lab = Self { program, running, net, dir };
        lab.write_talosconfig("admin", &["os:admin"]);
        lab.write_talosconfig("reader", &["os:reader"]);
        lab.until("the cluster is healthy", || {
            let args = ["-n", &lab.address(11), "health", "--wait-timeout", "20s"].map(str::to_owned);
            args.to_vec()
        })
        .await;
        Some(lab)
    }

    pub(crate) fn address(&self, host: u8) -> String {
        let [a, b, c, _] = self.net.net().network().octets();
        format!("{a}.{b}.{c}.{host}")
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A talosconfig with a certificate for these roles.
    fn write_talosconfig(&self, name: &str, roles: &[&str]) {
        let text = std::fs::read_to_string(self.path("configs/secrets.yaml")).unwrap();
        let secrets: Value = serde_saphyr::from_str(&text).unwrap();
        let decode = |pointer: &str| {
            let text = secrets.pointer(pointer).and_then(Value::as_str).unwrap();
            String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
        };
        let authority = Authority { certificate: decode("/certs/os/crt"), key: decode("/certs/os/key") };
        let subject = Subject::Client { name: None, organizations: roles };
        let issued = pki::issue(&authority, Kind::Ed25519, subject, 1).unwrap();
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let config = format!(
            "context: lab\ncontexts:\n    lab:\n        endpoints: [{}]\n        ca: {}\n        crt: {}\n        key: {}\n",
            self.address(11),
            encode(&authority.certificate),
            encode(&issued.certificate_pem),
            encode(&issued.key_pem)
        );
        std::fs::write(self.path(name), config).unwrap();
    }

    /// Runs talosctl with the talosconfig of that name.
    pub(crate) async fn as_role<S: AsRef<OsStr>>(&self, role: &str, args: &[S]) -> Said {
        let mut command = Command::new(&self.program);
        command.env("HOME", self.dir.path()).env_remove("TALOSCONFIG").arg("--talosconfig").arg(self.path(role));
        command.args(args).env("KUBECONFIG", self.path("nobody"));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub(crate) async fn say(&self, args: &[&str]) -> Said {
        self.as_role("admin", args).await
    }

    /// What a command prints that has to succeed, for the machine with that last octet.
    pub(crate) async fn on(&self, host: u8, args: &[&str]) -> String {
        let address = self.address(host);
        let said = self.say(&[&["-n", &address], args].concat()).await;
        assert!(said.ok, "talosctl {args:?}: {said:?}");
        said.out + &said.err
    }

    /// The data that a command prints, without what it says beside.
    pub(crate) async fn data(&self, host: u8, args: &[&str]) -> String {
        let address = self.address(host);
        let said = self.say(&[&["-n", &address], args].concat()).await;
        assert!(said.ok, "talosctl {args:?}: {said:?}");
        said.out
    }

    /// What a command says that has to fail.
    pub(crate) async fn refused(&self, host: u8, args: &[&str]) -> String {
        let address = self.address(host);
        let said = self.say(&[&["-n", &address], args].concat()).await;
        assert!(!said.ok, "talosctl {args:?} succeeded: {said:?}");
        said.out + &said.err
    }

    /// Reads what a command that doesn't end by itself says, until all of that was said.
    pub(crate) async fn watched(&self, host: u8, args: &[&str], parts: &[&str]) {
        use std::io::{BufRead as _, BufReader};
        let mut command = Command::new(&self.program);
        command.env("HOME", self.dir.path()).arg("--talosconfig").arg(self.path("admin")).arg("-n");
        command.arg(self.address(host)).args(args).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let reads = tokio::task::spawn_blocking(move || {
            let mut said = String::new();
            for line in out.lines().map_while(Result::ok) {
                said.push_str(&line);
                said.push('\n');
                if parts.iter().all(|part| said.contains(part)) {
                    return Ok(());
                }
            }
            Err(said)
        });
        let read = tokio::time::timeout(Duration::from_secs(20), reads).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(read.expect("it was said in time").unwrap(), Ok(()), "{args:?}");
    }

    /// Runs the kubectl beside it, with the kubeconfig that talosctl fetched.
    pub(crate) async fn kubectl(&self, args: &[&str]) -> String {
        let file = self.path("kubeconfig");
        if !Path::new(&file).exists() {
            self.on(11, &["kubeconfig", "--merge=false", &file]).await;
        }
        let said = self.kubectl_as(&file, args).await;
        assert!(said.ok, "kubectl {args:?}: {said:?}");
        said.out
    }

    fn kubectl_command(&self, file: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.program.with_file_name("kubectl"));
        command.env("HOME", self.dir.path()).env("KUBECONFIG", file).args(args);
        command
    }

    /// What kubectl says to whoever has this kubeconfig.
    pub(crate) async fn kubectl_as(&self, file: &str, args: &[&str]) -> Said {
        let mut command = self.kubectl_command(file, args);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said { ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// The same, without waiting for its end; once it has begun to say something.
    pub(crate) fn start_kubectl(&self, file: &str, args: &[&str]) -> std::process::Child {
        use std::io::{BufRead as _, BufReader};
        let mut child = self.kubectl_command(file, args).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        assert!(said.read_line(&mut String::new()).unwrap() > 0);
        // What it says later must have somebody to go to.
        std::thread::spawn(move || said.lines().map_while(Result::ok).count());
        child
    }

    /// Where a machine that has forgotten everything waits for its configuration: its console says so.
    pub(crate) async fn maintenance_address(&self, vmid: u32, times: usize) -> String {
        let began = Instant::now();
        loop {
            let console = std::fs::read_to_string(self.running.world().console_path(vmid)).unwrap_or_default();
            let said: Vec<&str> = console.split("this machine is reachable at:").skip(times).collect();
            let address = said.last().and_then(|text| text.split_whitespace().find(|word| word.starts_with("127.")));
            if let Some(address) = address {
                return address.to_owned();
            }
            assert!(began.elapsed() < Duration::from_mins(1), "never in maintenance: {console}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until(&self, what: &str, args: impl Fn() -> Vec<String>) {
        let began = Instant::now();
        loop {
            let said = self.as_role("admin", &args()).await;
            if said.ok {
                return;
            }
            assert!(began.elapsed() < Duration::from_mins(1), "never: {what}: {said:?}");
        }
    }

    pub(crate) async fn healthy(&self) {
        self.until("healthy again", || {
            ["-n", &self.address(11), "health", "--wait-timeout", "30s"].map(str::to_owned).to_vec()
        })
        .await;
    }

    pub(crate) async fn runs(&self, host: u8) -> String {
        let out = self.on(host, &["version", "--short"]).await;
        let server = out.split("Server:").nth(1).unwrap_or_default();
        server.split_whitespace().find(|word| word.starts_with("v1.")).unwrap_or_default().to_owned()
    }
}
