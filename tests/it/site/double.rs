//! The double of everything else, in this process or as the program `mock-pve`.

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
use mock_pve::world::deed::Deed;
use mock_pve::world::seed::Seed;

use super::{Folder, repository};

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
