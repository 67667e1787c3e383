//! A site to test on: a folder with a profile and its secrets, and a double of everything else.
//!
//! The double runs in this process ([`Double::here`]) or as the program `mock-pve` ([`Double::program`]); both play the
//! cluster of [`Folder::profile`]. [`End`] is what a rebuild must leave behind, read through Proxmox VE's and Talos' APIs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Ready, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::deed::{Deed, Origin};
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use recast::cli::args::Global;
use recast::cli::carry_out::access;
use recast::cli::env::Env;
use recast::cli::session::{Place, Session};
use recast::net::Reach;
use recast::observe::cluster;
use recast::plan::{Plan, PlannedVm, Step};
use recast::pve::vm::VmRef;
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;
use recast::types::{NodeName, Role, StorageId, VmId};

/// The versions that the tests rebuild to, from those in `profiles/single.yaml`.
pub(crate) const TALOS: &str = "1.13.9";
pub(crate) const KUBERNETES: &str = "1.35.0";

/// The arguments of the rebuild that all these tests are about.
pub(crate) const REBUILD: &[&str] =
    &["rebuild", "--to", TALOS, "--kubernetes", KUBERNETES, "--fresh", "--confirm", "single"];

/// The number of the cluster's only VM.
pub(crate) const VM: u32 = 1100;

pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Secrets for all tests of this process: making their RSA key takes seconds without optimisation.
pub(crate) fn secrets() -> &'static str {
    static SECRETS: OnceLock<String> = OnceLock::new();
    SECRETS.get_or_init(|| {
        let contract = Contract::of(&"1.12.4".parse().unwrap()).unwrap();
        let secrets = Secrets::generate(contract, jiff::Timestamp::now()).unwrap();
        secrets.to_yaml().expose_secret().to_owned()
    })
}

/// A folder with a profile and its secrets, and room for all that a run writes.
pub(crate) struct Folder {
    root: TempDir,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self { root: tempfile::Builder::new().prefix("recast-it-").tempdir().unwrap() };
        fs::create_dir_all(folder.path("cluster/single")).unwrap();
        fs::create_dir_all(folder.path("home")).unwrap();
        let profile = fs::read_to_string(repository().join("profiles/single.yaml")).unwrap();
        // What is steady for a second is steady enough for a double.
        fs::write(folder.profile(), format!("{profile}steady: 1s\n")).unwrap();
        fs::write(folder.path("cluster/single/secrets.yaml"), secrets()).unwrap();
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.path("cluster/single.yaml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// The directory of the only run.
    pub(crate) fn run(&self) -> PathBuf {
        let runs: Vec<PathBuf> =
            fs::read_dir(self.path("state/single/runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(runs.len(), 1, "{runs:?}");
        runs[0].clone()
    }

    /// recast, with nothing of this process's surroundings, pointed at this folder and at `site`.
    pub(crate) fn recast(&self, site: &Path, args: &[&str]) -> Command {
        let mut command = program(&self.path("home"));
        command.args(args).arg("--profile").arg(self.profile()).arg("--site").arg(site);
        command.arg("--state-dir").arg(self.state()).arg("--cache-dir").arg(self.path("cache"));
        command.env("KUBECONFIG", self.path("kubeconfig")).env("TALOSCONFIG", self.path("talosconfig"));
        command
    }

    pub(crate) fn global(&self, site: &Path) -> Global {
        Global {
            profile: Some(self.profile()),
            site: Some(site.to_owned()),
            state_dir: Some(self.state()),
            cache_dir: Some(self.path("cache")),
            confirm: Some("single".to_owned()),
            ..Global::default()
        }
    }

    pub(crate) fn place(&self) -> Place {
        let text = |name: &str| self.path(name).display().to_string();
        let env = Env::only([
            ("HOME", text("home")),
            ("KUBECONFIG", text("kubeconfig")),
            ("TALOSCONFIG", text("talosconfig")),
        ]);
        Place { env, reach: Reach::LoopbackOnly }
    }

    pub(crate) fn session(&self, site: &Path) -> Session {
        Session::open(&self.place(), &self.global(site)).unwrap_or_else(|stop| panic!("{stop:?}"))
    }
}

/// The recast program with an environment in which nothing is known but a home.
pub(crate) fn program(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recast"));
    command.env_clear().env("HOME", home).stdin(Stdio::null());
    // Rehearsals hold loopback networks by locks in the folder for temporary files: all must mean the same one.
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// The program `mock-pve` of this build.
fn mock_pve() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let recast = Path::new(env!("CARGO_BIN_EXE_recast"));
        let program = recast.with_file_name("mock-pve");
        // `cargo test --workspace` makes it; `cargo test` of this package alone doesn't.
        if !program.exists() {
            let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.current_dir(repository()).args(["build", "--workspace", "--bin", "mock-pve"]);
            let folder = recast.parent().and_then(Path::file_name).unwrap_or_default();
            if folder != "debug" {
                cargo.arg("--profile").arg(folder);
            }
            assert!(cargo.status().unwrap().success());
        }
        program
    })
}

enum Way {
    Here(Box<Running>, #[expect(dead_code, reason = "held: the loopback networks")] Box<Profiled>),
    Program(Child),
}

/// A double of Proxmox VE, the Image Factory and the machines of a folder's profile. Dropping it ends it.
pub(crate) struct Double {
    way: Way,
    pub(crate) ready: Ready,
    dir: PathBuf,
}

impl Double {
    /// In this process.
    pub(crate) async fn here(folder: &Folder, time_scale: f64) -> Self {
        let profiled = Profiled::load(&folder.profile(), &std::env::temp_dir()).unwrap();
        let dir = folder.path("double");
        let options = serve::Options {
            seed: profiled.seed.clone(),
            state: Some(dir.clone()),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time_scale,
            rng_seed: 1,
            pve: PveVersion::V8,
        };
        let running = serve::start(options).await.unwrap();
        let ready = running.ready.clone();
        Self { way: Way::Here(Box::new(running), Box::new(profiled)), ready, dir }
    }

    /// As a program. Answers once it listens.
    pub(crate) fn program(folder: &Folder, time_scale: f64) -> Self {
        let (dir, ready) = (folder.path("double"), folder.path("ready.json"));
        let mut child = Command::new(mock_pve())
            .args(["serve", "--listen", "127.0.0.1:0", "--time-scale", &time_scale.to_string()])
            .arg("--profile")
            .arg(folder.profile())
            .arg("--state")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(folder.path("double.err")).unwrap())
            .spawn()
            .unwrap();
        // It says where it is once it is ready.
        let said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let ended = !said.into_iter().any(|line| line.starts_with("site "));
        let told = fs::read_to_string(folder.path("double.err")).unwrap();
        assert!(!ended, "mock-pve ended: {told}");
        let ready = serde_json::from_str(&fs::read_to_string(&ready).unwrap()).unwrap();
        Self { way: Way::Program(child), ready, dir }
    }

    pub(crate) fn site(&self) -> &Path {
        &self.ready.site_file
    }

    /// Every destructive act so far.
    pub(crate) fn deeds(&self) -> Vec<Deed> {
        match &self.way {
            Way::Here(running, _) => running.audit().deeds(),
            Way::Program(_) => {
                let text = fs::read_to_string(self.dir.join("audit.jsonl")).unwrap_or_default();
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
            }
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        if let Way::Program(child) = &mut self.way {
            let _gone = child.kill();
            let _status = child.wait();
        }
    }
}

/// What there is when nothing goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// `1100 single-cp-01 running`, `100 talos-1-13-9 template`.
    pub(crate) vms: Vec<String>,
    /// How many disks belong to each VM; those of no VM count for number 0.
    pub(crate) disks: BTreeMap<u32, usize>,
    /// Files among the uploads.
    pub(crate) uploads: Vec<String>,
    /// What runs: Talos by machine, and Kubernetes.
    pub(crate) versions: Vec<String>,
    /// Etcd's members.
    pub(crate) members: Vec<String>,
    /// Secrets that the cluster doesn't share with the secrets file.
    pub(crate) differing_secrets: Vec<String>,
    /// The versions and the template in the profile.
    pub(crate) profile: Vec<String>,
}

impl End {
    /// What every rebuild of these tests must end with, however often it was interrupted.
    pub(crate) fn rebuilt() -> Self {
        let text = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        Self {
            vms: text(&["100 talos-1-13-9 template", "101 talos-1-12-4 template", "1100 single-cp-01 running"]),
            disks: BTreeMap::from([(100, 2), (101, 2), (VM, 2)]),
            uploads: Vec::new(),
            versions: text(&["single-cp-01 1.13.9", "kubernetes 1.35.0"]),
            members: text(&["single-cp-01"]),
            differing_secrets: Vec::new(),
            profile: text(&["version: \"1.13.9\"", "kubernetes_version: \"1.35.0\"", "template: 100"]),
        }
    }

    /// Looks.
    pub(crate) async fn of(folder: &Folder, site: &Path) -> Self {
        let session = folder.session(site);
        let node = NodeName::new("pve1");
        let mut vms = Vec::new();
        for vm in session.pve.vms(&node).await.unwrap() {
            let at = VmRef::new(node.clone(), vm.vmid);
            let config = session.pve.vm_config(&at).await.unwrap();
            let status = session.pve.vm_status(&at).await.unwrap();
            let state = match (config.is_template(), status.is_running()) {
                (true, _) => "template",
                (false, true) => "running",
                (false, false) => "stopped",
            };
            vms.push((vm.vmid, format!("{} {} {state}", vm.vmid, config.name().unwrap_or("?"))));
        }
        vms.sort();
        let mut disks = BTreeMap::new();
        for disk in session.pve.volumes(&node, &StorageId::new("local-lvm"), None, None).await.unwrap() {
            *disks.entry(disk.vmid().map_or(0, |vmid| vmid.0)).or_insert(0) += 1;
        }
        let uploads = session.pve.volumes(&node, &StorageId::new("local"), Some("import"), None).await.unwrap();
        let now = jiff::Timestamp::now();
        let secrets = session.secrets(now).unwrap();
        let machine = PlannedVm {
            name: "single-cp-01".to_owned(),
            role: Role::ControlPlane,
            vmid: VmId(VM),
            node,
            address: Some("192.168.178.41".parse().unwrap()),
            cores: 2,
            memory_mb: 4096,
            disk_gib: 32,
            mac: None,
            replaces: None,
        };
        let endpoint = "https://192.168.178.41:6443";
        let access = access(&secrets, now).unwrap();
        let seen = cluster::observe(&session.connector, &secrets, &access, &[machine], endpoint, now).await;
        let seen = seen.unwrap_or_default();
        let mut versions: Vec<String> = seen.talos.iter().map(|(name, version)| format!("{name} {version}")).collect();
        versions.extend(seen.kubernetes.map(|version| format!("kubernetes {version}")));
        let profile = fs::read_to_string(folder.profile()).unwrap();
        let keys = ["version:", "kubernetes_version:", "template:"];
        let line = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
        Self {
            vms: vms.into_iter().map(|(_, text)| text).collect(),
            disks,
            uploads: uploads.iter().map(|upload| upload.volid.to_string()).collect(),
            versions,
            members: seen.members,
            differing_secrets: seen.differing_secrets,
            profile: profile.lines().map(line).filter(|line| keys.iter().any(|key| line.starts_with(key))).collect(),
        }
    }
}

/// Nothing but what the plan names was destroyed or stopped: the old VM once, and VMs that the run itself made.
pub(crate) fn assert_deeds(deeds: &[Deed], plan: &Plan) {
    let ours: Vec<u32> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => Some(vm.vmid.0),
            _ => None,
        })
        .collect();
    for deed in deeds.iter().filter(|deed| deed.vmid.is_some()) {
        let allowed = match deed.origin {
            Origin::Seeded => deed.vmid == Some(VM),
            Origin::Created => deed.vmid.is_some_and(|vmid| ours.contains(&vmid)),
            Origin::Unknown => false,
        };
        assert!(allowed, "{deed:?}");
    }
    let retired = deeds.iter().filter(|deed| deed.what == "destroy" && deed.origin == Origin::Seeded);
    assert_eq!(retired.count(), 1, "{deeds:#?}");
}

/// The plan in a run's directory.
pub(crate) fn plan(run: &Path) -> Plan {
    serde_json::from_str(&fs::read_to_string(run.join("plan.json")).unwrap()).unwrap()
}
