//! `recast init` on a cluster that runs: what it writes is what runs, and nothing it can't say is guessed.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::seed::{Seed, TokenSeed};
use recast::talos::access::talosconfig::{self, Context};
use recast::talos::access::{AdminCertificate, Roles, YEAR_HOURS};
use recast::talos::secrets::Secrets;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::site::{program, repository, secrets};

/// The lab on loopback addresses of its own, so that no map is needed to reach it.
pub(crate) struct Lab {
    folder: tempfile::TempDir,
    #[expect(dead_code, reason = "held: the network")]
    net: Loopback,
    pub(crate) running: Running,
    /// Dropped last: what runs in it ends with it.
    runtime: tokio::runtime::Runtime,
}

/// What recast said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) document: Value,
    pub(crate) told: String,
}

impl Said {
    pub(crate) fn problems(&self) -> String {
        self.document["problems"].to_string()
    }
}

impl Lab {
    pub(crate) fn new(change: impl FnOnce(&mut Seed)) -> Self {
        let folder = tempfile::Builder::new().prefix("recast-init-").tempdir().unwrap();
        let net = Loopback::take(&std::env::temp_dir(), std::process::id()).unwrap();
        let base = net.net().network().to_string();
        let text = fs::read_to_string(repository().join("profiles/lab.yaml")).unwrap();
        let text = text.replace("127.20.0.", base.strip_suffix('0').unwrap()).replace("site: lab/site.yaml\n", "");
        let source = folder.path().join("source");
        fs::create_dir_all(source.join("lab")).unwrap();
        fs::create_dir_all(folder.path().join("home")).unwrap();
        fs::write(source.join("lab.yaml"), text).unwrap();
        fs::write(source.join("lab/secrets.yaml"), secrets()).unwrap();
        let profiled = Profiled::load(&source.join("lab.yaml"), &std::env::temp_dir()).unwrap();
        let mut seed = profiled.seed.clone();
        change(&mut seed);
        let options = serve::Options {
            seed,
            state: Some(folder.path().join("double")),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time_scale: 100.0,
            pve: PveVersion::V8,
            ..serve::Options::default()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let running = runtime.block_on(serve::start(options)).unwrap_or_else(|error| panic!("{error}"));
        let lab = Self { folder, net, running, runtime };
        lab.runtime.block_on(lab.up());
        lab.talosconfig("talosconfig", Roles::Admin, &["lab-cp-01"]);
        lab
    }

    /// Once every machine listens: seeded ones begin to as the double does.
    async fn up(&self) {
        for machine in &self.running.ready.machines {
            let up = async {
                while tokio::net::TcpStream::connect((machine.dialled, 50000)).await.is_err() {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            let waited = tokio::time::timeout(std::time::Duration::from_mins(1), up).await;
            assert!(waited.is_ok(), "{} doesn't listen", machine.name);
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn address(&self, machine: &str) -> String {
        let machines = &self.running.ready.machines;
        machines.iter().find(|one| one.name == machine).unwrap().address.to_string()
    }

    /// A talosconfig that names these machines.
    pub(crate) fn talosconfig(&self, file: &str, roles: Roles, machines: &[&str]) -> PathBuf {
        let now = jiff::Timestamp::now();
        let secrets = Secrets::load(secrets(), now).unwrap();
        let certificate = AdminCertificate::issue(&secrets, roles, now, YEAR_HOURS).unwrap();
        let endpoints = machines.iter().map(|machine| self.address(machine)).collect();
        let context = Context { name: "lab".to_owned(), endpoints, nodes: Vec::new(), certificate };
        let text = talosconfig::merge(None, &context).unwrap();
        fs::write(self.path(file), text.expose_secret()).unwrap();
        self.path(file)
    }

    /// recast with nothing but a home, a token and a talosconfig.
    pub(crate) fn recast(&self, args: &[&str]) -> Said {
        let (id, secret) = self.running.ready.tokens.iter().find(|(id, _)| id.ends_with("!ci")).unwrap();
        self.recast_as(&format!("{id}={secret}"), args)
    }

    fn recast_as(&self, token: &str, args: &[&str]) -> Said {
        let mut command: Command = program(&self.path("home"));
        command.args(args).args(["-o", "json"]).current_dir(self.folder.path());
        command.env("PROXMOX_VE_API_TOKEN", token).env("TALOSCONFIG", self.path("talosconfig"));
        command.env("RECAST_STATE_DIR", self.path("state")).env("RECAST_CACHE_DIR", self.path("cache"));
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}"));
        Said { code: output.status.code(), document, told }
    }

    fn init(&self, more: &[&str]) -> Said {
        let fingerprint = self.running.ready.fingerprint.clone();
        let mut args = vec!["init", "--url", &self.running.ready.pve, "--fingerprint", &fingerprint];
        args.extend(more);
        self.recast(&args)
    }
}

fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            let name = entry.file_name().unwrap().to_string_lossy().into_owned();
            found.extend(files(&entry).into_iter().map(|file| format!("{name}/{file}")));
        } else {
            found.push(entry.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

#[test]
fn what_it_writes_is_what_runs() {
    let lab = Lab::new(|_| ());
    // Nobody is there to look at a fingerprint: it is shown, and nothing secret is sent.
    let unknown = lab.recast(&["init", "--tags", "talos,lab", "--url", &lab.running.ready.pve, "--out", "new"]);
    assert_eq!(unknown.code, Some(4), "{}", unknown.told);
    assert!(unknown.problems().contains(&lab.running.ready.fingerprint), "{}", unknown.told);
    assert!(!lab.path("new").exists());

    let made = lab.init(&["--tags", "talos,lab", "--out", "new"]);
    assert_eq!(made.code, Some(0), "{}", made.told);
    let new = lab.path("new");
    let written = files(&new);
    assert!(["lab.yaml", "lab/secrets.yaml", "site.yaml"].iter().all(|file| written.contains(&(*file).to_owned())));
    assert_eq!(fs::metadata(new.join("lab/secrets.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(new.join("lab/secrets.yaml")).unwrap(), secrets(), "no value is encoded again");
    assert_eq!(made.document["differences"], Value::Array(Vec::new()), "{}", made.told);
    let text = fs::read_to_string(new.join("lab.yaml")).unwrap();
    let profile = recast::profile::load::profile_file(&new.join("lab.yaml")).unwrap().value;
    assert_eq!(
        (profile.template.map(|vmid| vmid.0), profile.tags.as_slice()),
        (Some(102), &["talos".to_owned(), "lab".to_owned()][..]),
        "{text}"
    );
    assert_eq!(profile.nodes.controlplane.as_ref().unwrap().assignments.len(), 3, "{text}");
    assert_eq!(profile.nodes.workers.as_ref().unwrap().memory_mb, 8192, "{text}");

    let on = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["--profile", "new/lab.yaml"]);
        lab.recast(&all)
    };
    let diff = on(&["config", "diff"]);
    assert_eq!(diff.code, Some(0), "{}\n{text}", diff.document);
    let valid = on(&["config", "check"]);
    assert_eq!(valid.code, Some(0), "{}", valid.told);
    // The double's factory is not the public one.
    let served = fs::read_to_string(&lab.running.ready.site_file).unwrap();
    let from = served.find("factory:").unwrap();
    let site = new.join("site.yaml");
    let own = fs::read_to_string(&site).unwrap();
    fs::write(&site, format!("{own}\n{}", &served[from..])).unwrap();
    let check = on(&["check"]);
    assert_eq!(check.code, Some(0), "{}\n{text}\n{own}", check.told);
    let plan = on(&["rebuild", "--dry-run"]);
    assert_eq!(plan.code, Some(2), "{}", plan.told);
    assert_eq!(plan.document["vms"].as_array().unwrap().len(), 5, "{}", plan.document);

    let before: Vec<(String, Vec<u8>)> =
        files(&new).into_iter().map(|file| (file.clone(), fs::read(new.join(file)).unwrap())).collect();
    let again = lab.init(&["--tags", "talos,lab", "--out", "new"]);
    assert_eq!(again.code, Some(4), "{}", again.told);
    for file in ["new/lab.yaml", "new/lab/secrets.yaml", "new/site.yaml", "new/lab/patches"] {
        assert!(again.problems().contains(&format!("{file} is there already")), "{file}: {}", again.told);
    }
    let after: Vec<(String, Vec<u8>)> =
        files(&new).into_iter().map(|file| (file.clone(), fs::read(new.join(file)).unwrap())).collect();
    assert!(before == after, "nothing was touched");

    // A site that is there is taken as it is, and named.
    let beside = lab.recast(&["init", "--tags", "lab", "--site", "new/site.yaml", "--out", "second"]);
    assert_eq!(beside.code, Some(0), "{}", beside.told);
    assert!(!lab.path("second/site.yaml").exists());
    let second = fs::read_to_string(lab.path("second/lab.yaml")).unwrap();
    assert!(second.contains("site: /") && second.contains("new/site.yaml"), "{second}");
    let valid = lab.recast(&["config", "diff", "--profile", "second/lab.yaml"]);
    assert_eq!(valid.code, Some(0), "{}", valid.told);
    assert!(lab.running.audit().deeds().is_empty(), "it reads only");
}

#[test]
fn what_stands_in_the_way_is_told_at_once_and_nothing_is_written() {
    let lab = Lab::new(|seed| {
        let stranger = |vmid: u32, name: &str, status: &str, seed: &mut Seed| {
            let mut vm = seed.vms.iter().find(|vm| vm.vmid == 1210).unwrap().clone();
            (vm.vmid, vm.name, vm.status) = (vmid, Some(name.to_owned()), Some(status.to_owned()));
            for value in vm.config.values_mut() {
                let text =
                    value.as_str().map(|text| text.replace("1210", &vmid.to_string()).replace("BC:24:11", "BC:24:12"));
                *value = text.map_or_else(|| value.clone(), Into::into);
            }
            vm.config.insert("tags".to_owned(), "talos;odd".into());
            seed.vms.push(vm);
        };
        stranger(1250, "router", "running", seed);
        stranger(1251, "asleep", "stopped", seed);
        for vm in seed.vms.iter_mut().filter(|vm| [1200, 1210].contains(&vm.vmid)) {
            let tags = format!("{};odd", vm.config["tags"].as_str().unwrap());
            vm.config.insert("tags".to_owned(), tags.into());
        }
        let user = seed.users.iter_mut().find(|user| user.userid == "recast@pve").unwrap();
        user.tokens.push(TokenSeed { tokenid: "blind".to_owned(), privsep: Some(1), ..TokenSeed::default() });
    });
    let refused = |said: &Said, words: &[&str]| {
        assert_eq!(said.code, Some(4), "{}", said.told);
        for word in words {
            assert!(said.problems().contains(word), "{word}: {}", said.told);
        }
        assert!(!lab.path("new").exists());
    };
    let unknown = lab.init(&["--tags", "taols,lba", "--out", "new"]);
    refused(&unknown, &["no VM has the tag 'taols'", "'talos'", "no VM has the tag 'lba'", "'lab'"]);
    let none = lab.init(&["--tags", "controlplane,worker", "--out", "new"]);
    refused(&none, &["no VM has all of 'controlplane', 'worker'", "3 have 'controlplane'"]);

    let odd = lab.init(&["--tags", "odd", "--out", "new"]);
    refused(
        &odd,
        &[
            "VM 1250 (router) on pve1 is no machine of the cluster of context 'lab'",
            "VM 1251 (asleep) on pve1 is stopped",
            "lab-cp-02 at",
            "lab-worker-02 at",
            "is of this cluster, and in none of the VMs with the tags",
        ],
    );

    let (id, secret) = lab.running.ready.tokens.iter().find(|(id, _)| id.ends_with("!blind")).unwrap();
    let fingerprint = lab.running.ready.fingerprint.clone();
    let args =
        ["init", "--tags", "lab", "--out", "new", "--url", &lab.running.ready.pve, "--fingerprint", &fingerprint];
    let blind = lab.recast_as(&format!("{id}={secret}"), &args);
    refused(&blind, &["recast@pve!blind lacks VM.Audit on /vms", "pveum acl modify /vms"]);

    let reader = lab.talosconfig("reader", Roles::Reader, &["lab-cp-01", "lab-worker-01"]);
    let reader = lab.init(&["--tags", "lab", "--out", "new", "--talosconfig", reader.to_str().unwrap()]);
    refused(&reader, &["doesn't show its configuration", "os:admin"]);

    for (args, words) in [
        (&["--tags", "lab", "--context", "home"][..], "has no context 'home'"),
        (&["--tags", "lab", "--talosconfig", "nowhere"][..], "can't be read"),
        (&["--tags", "lab", "--token", "recast@pve!ci=hush"][..], ""),
    ] {
        let mut all = vec!["init", "--url", &lab.running.ready.pve, "--fingerprint", &fingerprint];
        all.extend(args);
        let mut command = program(&lab.path("home"));
        let output =
            command.args(&all).env("TALOSCONFIG", lab.path("talosconfig")).current_dir(lab.folder.path()).output();
        let output = output.unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{told}");
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(lab.running.audit().deeds().is_empty(), "it reads only");
}
