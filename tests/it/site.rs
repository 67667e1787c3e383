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

use mock_pve::scenario::Scenario;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Ready, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::deed::{Deed, Origin};
use mock_pve::world::seed::Seed;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use recast::cli::args::Global;
use recast::cli::carry_out::access;
use recast::cli::env::Env;
use recast::cli::session::{Place, Session};
use recast::command::Mode;
use recast::net::Reach;
use recast::observe::cluster;
use recast::plan::{Plan, PlannedVm, Step};
use recast::profile::{Taken, WantedVm, expand};
use recast::pve::vm::VmRef;
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;
use recast::types::StorageId;

/// The versions that the tests rebuild to, from those in `profiles/single.yaml`.
pub(crate) const TALOS: &str = "1.13.9";
pub(crate) const KUBERNETES: &str = "1.35.0";

/// The clusters that the tests rebuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cluster {
    /// One control plane on one PVE node: `profiles/single.yaml`.
    Single,
    /// The same, with images that go straight into volumes over SSH.
    SingleOverSsh,
    /// Three control planes and two workers on three PVE nodes: `profiles/lab.yaml`, with addresses that are mapped, so
    /// that several tests have one at a time.
    Lab,
}

impl Cluster {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Single | Self::SingleOverSsh => "single",
            Self::Lab => "lab",
        }
    }

    /// The arguments of the rebuild that these tests are about.
    pub(crate) fn rebuild(self) -> [&'static str; 7] {
        ["rebuild", "--to", TALOS, "--kubernetes", KUBERNETES, "--confirm", self.name()]
    }

    /// The profile's text.
    fn profile(self) -> String {
        let text = fs::read_to_string(repository().join("profiles").join(self.name()).with_extension("yaml")).unwrap();
        let text = text.replace("127.20.0.", "10.20.0.").replace("site: lab/site.yaml\n", "");
        if self == Self::SingleOverSsh { text + "transport: ssh\n" } else { text }
    }
}

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
    cluster: Cluster,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::of(Cluster::Single)
    }

    pub(crate) fn of(cluster: Cluster) -> Self {
        let root = tempfile::Builder::new().prefix("recast-it-").tempdir().unwrap();
        let folder = Self { root, cluster };
        let configuration = folder.path("cluster").join(cluster.name());
        fs::create_dir_all(&configuration).unwrap();
        fs::create_dir_all(folder.path("home")).unwrap();
        // What is steady for a second is steady enough for a double.
        fs::write(folder.profile(), format!("{}steady: 1s\n", cluster.profile())).unwrap();
        fs::write(configuration.join("secrets.yaml"), secrets()).unwrap();
        folder
    }

    pub(crate) fn cluster(&self) -> Cluster {
        self.cluster
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn profile(&self) -> PathBuf {
        self.path("cluster").join(self.cluster.name()).with_extension("yaml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where the runs' directories are.
    pub(crate) fn runs(&self) -> PathBuf {
        self.state().join(self.cluster.name()).join("runs")
    }

    /// The directory of the only run.
    pub(crate) fn run(&self) -> PathBuf {
        let runs: Vec<PathBuf> = fs::read_dir(self.runs()).unwrap().map(|entry| entry.unwrap().path()).collect();
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
            confirm: Some(self.cluster.name().to_owned()),
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
        Place { env, reach: Reach::LoopbackOnly, commands: Mode::Run }
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
        Self::seeded(folder, time_scale, |_| ()).await
    }

    /// In this process, with a world that is not quite what the profile says.
    pub(crate) async fn seeded(folder: &Folder, time_scale: f64, change: impl FnOnce(&mut Seed)) -> Self {
        Self::played(folder, time_scale, change, None).await
    }

    /// In this process, with a scenario.
    pub(crate) async fn troubled(folder: &Folder, time_scale: f64, scenario: &str) -> Self {
        let scenario = Scenario::parse("scenario", scenario).unwrap();
        Self::played(folder, time_scale, |_| (), Some(scenario)).await
    }

    /// In this process, with a world that is not quite what the profile says, where things happen as in a scenario.
    pub(crate) async fn played(
        folder: &Folder,
        time_scale: f64,
        change: impl FnOnce(&mut Seed),
        scenario: Option<Scenario>,
    ) -> Self {
        Self::over(folder, time_scale, change, scenario, None).await
    }

    /// The same, with that etcd under every control plane's member.
    pub(crate) async fn over(
        folder: &Folder,
        time_scale: f64,
        change: impl FnOnce(&mut Seed),
        scenario: Option<Scenario>,
        etcd: Option<PathBuf>,
    ) -> Self {
        let profiled = Profiled::load(&folder.profile(), &std::env::temp_dir()).unwrap();
        let dir = folder.path("double");
        let mut seed = profiled.seed.clone();
        change(&mut seed);
        let options = serve::Options {
            seed,
            state: Some(dir.clone()),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            time_scale,
            rng_seed: 1,
            pve: PveVersion::V8,
            scenario,
            etcd,
            ..serve::Options::default()
        };
        let running = serve::start(options).await.unwrap();
        let ready = running.ready.clone();
        Self { way: Way::Here(Box::new(running), Box::new(profiled)), ready, dir }
    }

    /// As a program. Answers once it listens.
    pub(crate) fn program(folder: &Folder, time_scale: f64) -> Self {
        Self::program_with(folder, time_scale, &[])
    }

    /// As a program where things happen as this scenario has it.
    pub(crate) fn in_scenario(folder: &Folder, time_scale: f64, scenario: &str) -> Self {
        let file = folder.path("scenario.yaml");
        fs::write(&file, scenario).unwrap();
        Self::program_with(folder, time_scale, &["--scenario", file.to_str().unwrap()])
    }

    /// As a program, with that etcd under every control plane's member.
    pub(crate) fn program_over(folder: &Folder, time_scale: f64, etcd: &str) -> Self {
        Self::program_with(folder, time_scale, &["--etcd", etcd])
    }

    fn program_with(folder: &Folder, time_scale: f64, more: &[&str]) -> Self {
        let (dir, ready) = (folder.path("double"), folder.path("ready.json"));
        let mut child = Command::new(mock_pve())
            .args(["serve", "--listen", "127.0.0.1:0", "--time-scale", &time_scale.to_string()])
            .arg("--profile")
            .arg(folder.profile())
            .arg("--state")
            .arg(&dir)
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
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

    /// What there is, to be changed behind recast's back.
    pub(crate) fn world(&self) -> &mock_pve::world::World {
        match &self.way {
            Way::Here(running, _) => running.world(),
            Way::Program(_) => panic!("another process's world can't be reached into"),
        }
    }

    /// The machines that are up, as only a double can see them.
    pub(crate) fn room(&self) -> &mock_pve::world::machine::Room {
        match &self.way {
            Way::Here(running, _) => running.room(),
            Way::Program(_) => panic!("another process's machines can't be reached into"),
        }
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

    /// Ends it, and names what of its scenario never happened: a test that met nothing has shown nothing.
    pub(crate) fn never_happened(mut self) -> Vec<String> {
        let child = match &mut self.way {
            Way::Here(running, _) => {
                let never = running.tally().into_iter().filter(|one| one.happened == 0);
                return never.map(|one| one.name).collect();
            }
            Way::Program(child) => child,
        };
        // It tells when it is asked to end.
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", child.id())]).status().unwrap();
        assert!(sent.success());
        let _status = child.wait().unwrap();
        let told = fs::read_to_string(self.dir.with_file_name("double.err")).unwrap();
        let tally: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("scenario: ")).collect();
        assert!(!tally.is_empty(), "{told}");
        tally.into_iter().filter(|line| !line.contains(": happened ")).map(str::to_owned).collect()
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
    /// What every rebuild of this cluster must end with, however often it was interrupted.
    pub(crate) fn rebuilt(cluster: Cluster) -> Self {
        let text = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let single = Self {
            vms: text(&["100 talos-1-13-9 template", "101 talos-1-12-4 template", "1100 single-cp-01 running"]),
            disks: BTreeMap::from([(100, 2), (101, 2), (VM, 2)]),
            uploads: Vec::new(),
            versions: text(&["single-cp-01 1.13.9", "kubernetes 1.35.0"]),
            members: text(&["single-cp-01"]),
            differing_secrets: Vec::new(),
            profile: text(&["version: \"1.13.9\"", "kubernetes_version: \"1.35.0\"", "template: 100"]),
        };
        match cluster {
            Cluster::Single | Cluster::SingleOverSsh => single,
            Cluster::Lab => Self {
                vms: text(&[
                    "100 talos-1-13-9 template",
                    "101 talos-1-13-9 template",
                    "102 talos-1-12-4 template",
                    "103 talos-1-13-9 template",
                    "1200 lab-cp-01 running",
                    "1201 lab-cp-02 running",
                    "1202 lab-cp-03 running",
                    "1210 lab-worker-01 running",
                    "1211 lab-worker-02 running",
                ]),
                disks: [100, 101, 102, 103, 1200, 1201, 1202, 1210, 1211].map(|vmid| (vmid, 2)).into(),
                versions: text(&[
                    "lab-cp-01 1.13.9",
                    "lab-cp-02 1.13.9",
                    "lab-cp-03 1.13.9",
                    "lab-worker-01 1.13.9",
                    "lab-worker-02 1.13.9",
                    "kubernetes 1.35.0",
                ]),
                members: text(&["lab-cp-01", "lab-cp-02", "lab-cp-03"]),
                ..single
            },
        }
    }

    /// Looks.
    pub(crate) async fn of(folder: &Folder, site: &Path) -> Self {
        let session = folder.session(site);
        let (mut vms, mut disks, mut uploads) = (Vec::new(), BTreeMap::new(), Vec::new());
        for node in session.pve.nodes().await.unwrap() {
            let node = node.node;
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
            for disk in session.pve.volumes(&node, &StorageId::new("local-lvm"), None, None).await.unwrap() {
                *disks.entry(disk.vmid().map_or(0, |vmid| vmid.0)).or_insert(0) += 1;
            }
            let files = session.pve.volumes(&node, &StorageId::new("local"), Some("import"), None).await.unwrap();
            uploads.extend(files.iter().map(|file| format!("{} on {node}", file.volid)));
        }
        vms.sort();
        let now = jiff::Timestamp::now();
        let secrets = session.secrets(now).unwrap();
        let profile = &session.profile.value;
        let machines: Vec<PlannedVm> =
            expand(profile, &session.site, &Taken::default()).unwrap().iter().map(row).collect();
        let endpoint = profile.network.api_endpoint.as_ref().unwrap().url();
        let access = access(&secrets, now).unwrap();
        let seen = cluster::observe(&session.connector, &secrets, &access, &machines, &endpoint, now).await;
        let mut seen = seen.unwrap_or_default();
        seen.members.sort();
        let mut versions: Vec<String> = seen.talos.iter().map(|(name, version)| format!("{name} {version}")).collect();
        versions.extend(seen.kubernetes.map(|version| format!("kubernetes {version}")));
        let profile = fs::read_to_string(folder.profile()).unwrap();
        let keys = ["version:", "kubernetes_version:", "template:"];
        let line = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
        Self {
            vms: vms.into_iter().map(|(_, text)| text).collect(),
            disks,
            uploads,
            versions,
            members: seen.members,
            differing_secrets: seen.differing_secrets,
            profile: profile.lines().map(line).filter(|line| keys.iter().any(|key| line.starts_with(key))).collect(),
        }
    }
}

fn row(vm: &WantedVm) -> PlannedVm {
    PlannedVm {
        name: vm.name.to_string(),
        role: vm.role,
        vmid: vm.vmid,
        node: vm.node.clone(),
        address: vm.address,
        cores: vm.cores,
        memory_mb: vm.memory_mb,
        disk_gib: vm.disk_gib,
        mac: vm.mac,
        replaces: None,
    }
}

/// Nothing but what the plan names was destroyed or stopped: each old VM once, and VMs that the run itself made.
pub(crate) fn assert_deeds(deeds: &[Deed], plan: &Plan) {
    let ours: Vec<u32> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => Some(vm.vmid.0),
            _ => None,
        })
        .collect();
    let volumes: Vec<&str> = plan
        .steps()
        .filter_map(|planned| match &planned.step {
            Step::AllocateVolume { volume, .. } => Some(volume.volume.as_str()),
            _ => None,
        })
        .collect();
    for deed in deeds.iter().filter(|deed| deed.vmid.is_some()) {
        let allowed = match deed.origin {
            Origin::Seeded => plan.destroys.iter().any(|old| deed.vmid == Some(old.vmid.0)),
            Origin::Created => deed.vmid.is_some_and(|vmid| ours.contains(&vmid)),
            // A volume that was allocated before its VM was made.
            Origin::Unknown => {
                let made = deed.what == "free-volume" || deed.what == "overwrite";
                made && deed.object.as_deref().is_some_and(|id| volumes.contains(&id))
            }
        };
        assert!(allowed, "{deed:?}");
    }
    let retired = deeds.iter().filter(|deed| deed.what == "destroy" && deed.origin == Origin::Seeded);
    assert_eq!(retired.count(), plan.destroys.len(), "{deeds:#?}");
}

/// The plan in a run's directory.
pub(crate) fn plan(run: &Path) -> Plan {
    serde_json::from_str(&fs::read_to_string(run.join("plan.json")).unwrap()).unwrap()
}
