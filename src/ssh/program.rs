//! The system's own `ssh`, for people whose way leads through jump hosts, agents and hardware keys.
//!
//! Purpose: the same connection as the built-in client's, made by the program that already knows the way. One master
//! connection, and each command is a session on it. Nobody is trusted at first sight here either, and nothing is ever
//! asked: a key with a passphrase belongs into an agent.
//! Must not know: what the commands mean.

use std::fs;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::SshError;
use super::{Done, Input, Login, Sink};

/// How long the master connection may take: a hardware key may have to be touched.
const CONNECT_WITHIN: Duration = Duration::from_mins(1);
/// How often it is looked whether something ended.
const LOOK: Duration = Duration::from_millis(10);
/// What `ssh` ends with when it is itself what failed.
const OWN_FAILURE: i32 = 255;
/// How long a master connection may take to end after its sessions did.
const SETTLES: Duration = Duration::from_millis(300);
/// How much of stderr is kept, from its end.
const COMPLAINTS: usize = 64 << 10;

/// A master connection of the system's `ssh`. It ends when dropped.
#[derive(Debug)]
pub(super) struct Program {
    login: Arc<Login>,
    executable: PathBuf,
    /// Holds the socket and the pinned keys.
    folder: tempfile::TempDir,
    master: Mutex<Child>,
}

/// A command on it.
pub(super) struct Session {
    pub(super) command: String,
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Option<Sink>,
    pub(super) moved: Arc<AtomicU64>,
    pub(super) dropped: Arc<AtomicBool>,
}

impl Program {
    /// Starts the master connection. Blocking.
    pub(super) fn connect(login: &Arc<Login>, program: PathBuf) -> Result<Self, SshError> {
        let folder = tempfile::Builder::new().prefix("recast-ssh-").tempdir().map_err(SshError::Setup)?;
        if !login.host_keys.is_empty() {
            let keys = login.host_keys.iter().map(|key| format!("recast {key}\n")).collect::<String>();
            fs::write(folder.path().join("known_hosts"), keys).map_err(SshError::Setup)?;
        }
        let mut command = base(login, &program, &folder);
        command.args(["-M", "-N", "-T"]).arg(&login.host);
        let master = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut master = master.map_err(|source| SshError::Program { host: login.place(), source })?;
        let complaints = master.stderr.take().map(complaints);
        let since = Instant::now();
        let mut made = Self { login: login.clone(), executable: program, folder, master: Mutex::new(master) };
        loop {
            // The socket is there once it is logged in.
            if made.socket().exists() {
                return Ok(made);
            }
            let ended = made.ended().map_err(SshError::Setup)?;
            if ended || since.elapsed() > CONNECT_WITHIN {
                made.kill();
                let said = complaints.and_then(|reading| reading.join().ok()).unwrap_or_default();
                return Err(failure(login, &said));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("m")
    }

    fn ended(&mut self) -> io::Result<bool> {
        let master = self.master.get_mut().unwrap_or_else(PoisonError::into_inner);
        Ok(master.try_wait()?.is_some())
    }

    /// Whether the master connection is there after a session ended, and the session had no trouble with it.
    fn lives(&self, said: &str) -> bool {
        if said.contains("mux_client") || said.contains("Control socket") {
            return false;
        }
        let since = Instant::now();
        while since.elapsed() < SETTLES {
            let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
            if !matches!(master.try_wait(), Ok(None)) {
                return false;
            }
            drop(master);
            std::thread::sleep(LOOK);
        }
        true
    }

    fn kill(&self) {
        let mut master = self.master.lock().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already.
        let _gone = master.kill();
        let _reaped = master.wait();
    }

    /// Runs a command and waits for its end. Blocking.
    pub(super) fn run(&self, session: Session) -> Result<Done, SshError> {
        let Session { command, stdin, stdout, moved, dropped } = session;
        let mut asked = base(&self.login, &self.executable, &self.folder);
        asked.args(["-T", "-o", "ControlMaster=no"]).arg(&self.login.host).arg("--").arg(command);
        asked.stdin(if stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        asked.stdout(if stdout.is_some() { Stdio::piped() } else { Stdio::null() }).stderr(Stdio::piped());
        let mut child = asked.spawn().map_err(|source| SshError::Program { host: self.login.place(), source })?;
        let giving = child.stdin.take().zip(stdin).map(|(mut pipe, mut input)| {
            let moved = moved.clone();
            std::thread::spawn(move || {
                let mut piece = vec![0; 256 << 10];
                loop {
                    let read = match input.read(&mut piece) {
                        Ok(0) => return Ok(()),
                        Ok(read) => read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                        Err(error) => return Err(error),
                    };
                    // A command that reads no more is no error: its exit code says what it means.
                    if pipe.write_all(&piece[..read]).is_err() {
                        return Ok(());
                    }
                    moved.fetch_add(read as u64, Ordering::Relaxed);
                }
            })
        });
        let taking = child.stdout.take().zip(stdout).map(|(mut pipe, mut sink)| {
            std::thread::spawn(move || {
                let mut piece = vec![0; 64 << 10];
                loop {
                    let read = pipe.read(&mut piece)?;
                    if read == 0 {
                        return sink.flush();
                    }
                    sink.write_all(&piece[..read])?;
                    moved.fetch_add(read as u64, Ordering::Relaxed);
                }
            })
        });
        let complaining = child.stderr.take().map(complaints);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(SshError::Setup)? {
                break status;
            }
            let input_failed = giving.as_ref().is_some_and(JoinHandle::is_finished);
            let output_failed = taking.as_ref().is_some_and(JoinHandle::is_finished);
            if dropped.load(Ordering::Acquire) {
                let _gone = child.kill();
                let _reaped = child.wait();
                return Err(SshError::Closed { host: self.login.place() });
            }
            std::thread::sleep(if input_failed || output_failed { LOOK } else { LOOK / 2 });
        };
        let stderr = complaining.and_then(|reading| reading.join().ok()).unwrap_or_default();
        if let Some(taking) = taking {
            taking.join().unwrap_or(Ok(())).map_err(SshError::Output)?;
        }
        if let Some(giving) = giving.filter(JoinHandle::is_finished) {
            giving.join().unwrap_or(Ok(())).map_err(SshError::Input)?;
        }
        match status.code() {
            // Some commands end with that, too, `pvesm` among them: then the connection is still there.
            Some(OWN_FAILURE) if self.lives(&stderr) => Ok(Done { status: OWN_FAILURE, signal: None, stderr }),
            Some(OWN_FAILURE) | None => Err(failure(&self.login, &stderr)),
            Some(status) => Ok(Done { status, signal: None, stderr }),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What every call has in common.
fn base(login: &Login, program: &PathBuf, folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(program);
    let socket = folder.path().join("m");
    let mut options = vec![
        "BatchMode=yes".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "ServerAliveInterval=15".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "Compression=no".to_owned(),
        // About twice as fast as the default where the processor has AES.
        "Ciphers=^aes128-gcm@openssh.com,aes256-gcm@openssh.com".to_owned(),
        format!("ControlPath={}", socket.display()),
    ];
    if !login.host_keys.is_empty() {
        let keys = folder.path().join("known_hosts");
        options.push("HostKeyAlias=recast".to_owned());
        options.push(format!("UserKnownHostsFile={}", keys.display()));
        options.push("GlobalKnownHostsFile=/dev/null".to_owned());
    } else if let Some(known) = login.known_hosts.as_ref().filter(|known| known.exists()) {
        options.push(format!("UserKnownHostsFile={}", known.display()));
    }
    for option in options {
        command.arg("-o").arg(option);
    }
    command.arg("-l").arg(&login.user);
    if login.port != 22 {
        command.arg("-p").arg(login.port.to_string());
    }
    for key in &login.keys {
        command.arg("-i").arg(key);
    }
    command
}

fn complaints(mut pipe: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let (mut all, mut piece) = (Vec::new(), vec![0; 4096]);
        while let Ok(read) = pipe.read(&mut piece) {
            if read == 0 {
                break;
            }
            all.extend_from_slice(&piece[..read]);
            let over = all.len().saturating_sub(COMPLAINTS);
            all.drain(..over);
        }
        String::from_utf8_lossy(&all).into_owned()
    })
}

/// What `ssh` itself complains about.
fn failure(login: &Login, said: &str) -> SshError {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it ended without a word");
    let tried = format!("`ssh` says: {last}");
    if said.contains("Permission denied") {
        return SshError::Denied { login: login.shown(), tried };
    }
    if said.contains("Host key verification failed") || said.contains("host key is known") {
        return SshError::Unproven { host: login.place(), said: tried };
    }
    SshError::Lost { host: login.place(), source: io::Error::other(tried) }
}
