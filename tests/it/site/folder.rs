//! A folder with a profile and its secrets, and recast pointed at it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use recast::cli::args::Global;
use recast::cli::env::Env;
use recast::cli::session::{Place, Session};
use recast::command::Mode;
use recast::net::Reach;

use super::{Cluster, secrets};

/// A folder with a profile and its secrets, and room for all that a run writes.
pub(crate) struct Folder {
    root: TempDir,
    cluster: Cluster,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self::of(Cluster::Single)
    }

    /// With a profile of other machines under the same name.
    pub(crate) fn with(profile: &str) -> Self {
        let folder = Self::new();
        fs::write(folder.profile(), profile).unwrap();
        folder
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
