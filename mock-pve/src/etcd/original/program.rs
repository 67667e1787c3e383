//! One process: started, told to stop, and kept from outliving whoever started it.
//!
//! A shell at the other end of a pipe holds its leash: words that come through the pipe become signals, and the pipe's end
//! means SIGKILL. So a process ends with the double, however that ends.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use super::{CLIENTS, PEERS, url};

/// How long a program may take to say its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// What every etcd says first when it is asked for its version.
const VERSION: &str = "etcd Version: ";

const LEASH: &str = "while read -r word; do kill -s \"$word\" \"$0\"; done; kill -s KILL \"$0\"";

/// Why a program can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It doesn't start.
    #[error("{} can't be started as etcd: install one (Debian's package is etcd-server) or name another", path.display())]
    Start {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not etcd: asked for its version, it said {said:?}", path.display())]
    Other {
        /// Which.
        path: PathBuf,
        /// Its first line.
        said: String,
    },
}

/// A program that is etcd.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    version: String,
}

/// A program with nothing of our surroundings: etcd takes settings from the environment too.
fn bare(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    // Ctrl-C is for us alone.
    command.process_group(0);
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

impl Program {
    /// Makes sure that a program is etcd, by asking for its version.
    pub async fn find(path: &Path) -> Result<Self, ProgramError> {
        let asked = bare(path).arg("--version").stderr(Stdio::null()).output();
        let said = match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(output)) => String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned(),
            Ok(Err(source)) => return Err(ProgramError::Start { path: path.to_owned(), source }),
            Err(_) => String::new(),
        };
        match said.strip_prefix(VERSION) {
            Some(version) => Ok(Self { path: path.to_owned(), version: version.trim().to_owned() }),
            None => Err(ProgramError::Other { path: path.to_owned(), said }),
        }
    }

    /// `3.4.23`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// How a process is to begin.
pub(super) struct Begin<'a> {
    /// The member's name.
    pub(super) name: &'a str,
    /// Where it listens.
    pub(super) address: IpAddr,
    /// Its data.
    pub(super) data: &'a Path,
    /// What it has to tell is added here.
    pub(super) log: &'a Path,
    /// What members of one cluster have in common.
    pub(super) token: &'a str,
    /// Who is in the cluster, as etcd reads it.
    pub(super) initial: &'a str,
    /// Whether that cluster is new, as etcd reads it.
    pub(super) state: &'a str,
}

/// A process that runs. Dropping it cuts it off.
pub(super) struct Process {
    child: Child,
    pub(super) pid: u32,
    leash: Leash,
}

impl Process {
    pub(super) fn spawn(program: &Program, begin: &Begin<'_>) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(begin.log)?;
        let (clients, peers) = (url(begin.address, CLIENTS), url(begin.address, PEERS));
        let mut command = bare(&program.path);
        command.args(["--name", begin.name]).arg("--data-dir").arg(begin.data);
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", begin.initial, "--initial-cluster-state", begin.state]);
        command.args(["--initial-cluster-token", begin.token]);
        // As newer ones do unasked: who comes back disturbs nobody.
        command.arg("--pre-vote=true");
        command.args(["--logger", "zap", "--log-level", "warn"]);
        command.stdout(log.try_clone()?).stderr(log);
        let child = command.spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
        Ok(Self { child, pid, leash: Leash::hold(pid)? })
    }

    /// Until it ends. May be dropped and asked again.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) {
        self.leash.say("TERM");
    }

    /// Ends it.
    pub(super) fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(pid = self.pid, %error, "a process can't be killed");
        }
    }
}

struct Leash {
    shell: std::process::Child,
    pipe: std::process::ChildStdin,
}

impl Leash {
    fn hold(pid: u32) -> io::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new("/bin/sh");
        command.args(["-c", LEASH, &pid.to_string()]).env_clear().process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut shell = command.spawn()?;
        let pipe = shell.stdin.take().ok_or_else(|| io::Error::other("a shell without a pipe"))?;
        Ok(Self { shell, pipe })
    }

    fn say(&mut self, word: &str) {
        if let Err(error) = writeln!(self.pipe, "{word}") {
            tracing::warn!(%error, "a process can't be told to stop");
        }
    }
}

impl Drop for Leash {
    /// Before the pipe ends: the number may be somebody else's by now.
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
