//! The node: OpenSSH's own server on loopback, and mock-pve for what goes through the API.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mock_pve::serve::{self, Running};
use mock_pve::world::PveVersion;
use mock_pve::world::seed::Seed;

use crate::Failure;
use crate::disks::shell;

const SSHD: &str = "/usr/sbin/sshd";

/// Both servers; they end when dropped.
pub(crate) struct Node {
    sshd: Child,
    pub(crate) port: u16,
    pub(crate) key: PathBuf,
    pub(crate) host_key: String,
    pub(crate) user: String,
    /// Where its volumes are.
    pub(crate) volumes: PathBuf,
    /// Where the workstation has its files: in memory where that can be, since its disk is another than the node's.
    pub(crate) here: PathBuf,
    /// The double's state.
    state: PathBuf,
    running: Running,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    /// Starts both.
    pub(crate) fn start(folder: &Path) -> Result<Self, Failure> {
        let (ssh, volumes) = (folder.join("ssh"), folder.join("volumes"));
        let memory = Path::new("/dev/shm");
        let here = if memory.is_dir() { memory.join("recast-pipeline") } else { folder.join("here") };
        for dir in [&ssh, &volumes] {
            fs::create_dir_all(dir)?;
        }
        for name in ["host", "key"] {
            let key = ssh.join(name);
            if !key.exists() {
                shell(&format!("ssh-keygen -q -t ed25519 -N '' -C bench -f {}", key.display()))?;
            }
        }
        fs::copy(ssh.join("key.pub"), ssh.join("authorized_keys"))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        // SHLVL: bash reads no ~/.bashrc for a shell within a shell, and this computer's is not what is measured.
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized_keys\nStrictModes no\n\
             UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n\
             MaxSessions 64\nMaxStartups 64\nSubsystem sftp internal-sftp\nSetEnv SHLVL=1\n",
            ssh.display()
        );
        fs::write(ssh.join("sshd_config"), config)?;
        // Where root runs it, it wants this folder, which the init script makes otherwise.
        let _there = fs::create_dir_all("/run/sshd");
        let sshd = Command::new(SSHD)
            .args(["-D", "-e", "-f"])
            .arg(ssh.join("sshd_config"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(ssh.join("log"))?)
            .spawn()?;
        let since = Instant::now();
        while TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
            if since.elapsed() > Duration::from_secs(10) {
                return Err("OpenSSH's server does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let whoami = Command::new("id").arg("-un").output()?;
        let state = folder.join("double");
        if state.exists() {
            fs::remove_dir_all(&state)?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let options = serve::Options {
            seed: Seed::single_node(),
            state: Some(state.clone()),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            // Its own delays are not what is measured.
            time_scale: 100_000.0,
            rng_seed: 1,
            pve: PveVersion::V8,
            scenario: None,
            log: None,
            etcd: None,
        };
        let running = runtime.block_on(serve::start(options))?;
        Ok(Self {
            sshd,
            port,
            key: ssh.join("key"),
            host_key: fs::read_to_string(ssh.join("host.pub"))?.trim().to_owned(),
            user: String::from_utf8(whoami.stdout)?.trim().to_owned(),
            volumes,
            here,
            state,
            running,
            _runtime: runtime,
        })
    }

    /// Address, token and its secret of the API, and its certificate's fingerprint.
    pub(crate) fn api(&self) -> Result<[String; 4], Failure> {
        let ready = &self.running.ready;
        let (id, secret) = ready.tokens.iter().next().ok_or("the double has no token")?;
        let address = ready.nodes.first().map(|node| node.api.clone()).ok_or("the double has no node")?;
        Ok([address, id.clone(), secret.clone(), ready.fingerprint.clone()])
    }

    /// The file of the double that is as large as the disk: its template's volume.
    pub(crate) fn volume_of(&self, bytes: u64) -> Result<PathBuf, Failure> {
        let mut folders = vec![self.state.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if fs::metadata(&path)?.len() == bytes {
                    return Ok(path);
                }
            }
        }
        Err("the double has no volume of that size".into())
    }

    /// What `ssh` and `scp` need to get there.
    pub(crate) fn ssh(&self) -> (String, String) {
        let common = format!(
            "-i {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
            self.key.display()
        );
        let to = format!("{}@127.0.0.1", self.user);
        (format!("ssh {common} -p {} {to}", self.port), format!("scp -q {common} -P {}", self.port))
    }

    /// User and system time of its SSH server and of all that it ran, in ticks; waits for what still ends.
    pub(crate) fn ticks(&self) -> u64 {
        let id = self.sshd.id();
        let since = Instant::now();
        let busy = || fs::read_to_string(format!("/proc/{id}/task/{id}/children")).is_ok_and(|ids| !ids.is_empty());
        while busy() && since.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
        ticks(id)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It ends with this process's group otherwise.
        let _gone = self.sshd.kill();
        let _reaped = self.sshd.wait();
        let _there_or_not = fs::remove_dir_all(&self.here);
    }
}

/// User and system time of a process and of its children that were waited for.
pub(crate) fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    after.split_whitespace().skip(11).take(4).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// User and system time of everything on this computer, in ticks.
pub(crate) fn busy() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let all: Vec<u64> = stat.lines().next().unwrap_or_default().split_whitespace().flat_map(str::parse).collect();
    // user, nice, system, idle, iowait, irq, softirq
    [0, 1, 2, 5, 6].iter().filter_map(|index| all.get(*index)).sum()
}

/// Bytes that went over loopback so far, with their headers.
pub(crate) fn looped() -> u64 {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
