//! OpenSSH's own server, as the current user, for one test.

use std::fs;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::{HostKey, Login};

const SSHD: &str = "/usr/sbin/sshd";

/// A server on loopback. As under inetd, every connection has a process of its own; the test keeps hold of both.
pub(super) struct Sshd {
    pub(super) dir: TempDir,
    address: SocketAddr,
    connections: Arc<Mutex<Vec<(TcpStream, Child)>>>,
}

impl Sshd {
    /// A server that lets `dir/key` in. None, visibly, where OpenSSH isn't installed.
    pub(super) fn start() -> Option<Self> {
        if !real_parts::is_here(SSHD, "-V") || !real_parts::is_here("ssh-keygen", "-?") {
            return None;
        }
        // Where root runs it, sshd wants its (empty) folder for unprivileged halves; the init script makes it otherwise.
        let _there = fs::create_dir_all("/run/sshd");
        let dir = tempfile::tempdir().unwrap();
        for name in ["host", "key", "stranger"] {
            keygen(&dir.path().join(name));
        }
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::copy(dir.path().join("key.pub"), dir.path().join("authorized_keys")).unwrap();
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPidFile none\nLogLevel DEBUG1\nSetEnv PATH={}:/usr/bin:/bin\n",
            path("host"),
            path("authorized_keys"),
            path("bin"),
        );
        fs::write(dir.path().join("sshd_config"), config).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<Vec<(TcpStream, Child)>>> = Arc::default();
        let (held, config, log) = (connections.clone(), path("sshd_config"), path("log"));
        std::thread::spawn(move || {
            // Ends with the test's process; a connection to a folder that is gone fails, and nobody makes one.
            while let Ok((peer, _)) = listener.accept() {
                let end = |peer: &TcpStream| Stdio::from(OwnedFd::from(peer.try_clone().unwrap()));
                let sshd = Command::new(SSHD)
                    .args(["-i", "-f", &config, "-E", &log])
                    .stdin(end(&peer))
                    .stdout(end(&peer))
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                held.lock().unwrap().push((peer, sshd));
            }
        });
        Some(Self { dir, address, connections })
    }

    /// The right way in.
    pub(super) fn login(&self) -> Login {
        let whoami = Command::new("id").arg("-un").output().unwrap();
        Login {
            host: self.address.ip().to_string(),
            port: self.address.port(),
            user: String::from_utf8(whoami.stdout).unwrap().trim().to_owned(),
            keys: vec![self.dir.path().join("key")],
            agent: None,
            host_keys: vec![self.host_key("host")],
            known_hosts: None,
            program: None,
        }
    }

    /// The public half of a key in the folder.
    pub(super) fn host_key(&self, name: &str) -> HostKey {
        fs::read_to_string(self.dir.path().join(name).with_extension("pub")).unwrap().parse().unwrap()
    }

    /// Cuts every connection, as a switch that is rebooted does.
    pub(super) fn cut(&self) {
        for (peer, _) in self.connections.lock().unwrap().iter() {
            let _gone = peer.shutdown(Shutdown::Both);
        }
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        for (peer, child) in self.connections.lock().unwrap().iter_mut() {
            let _gone = peer.shutdown(Shutdown::Both);
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A key pair without passphrase.
pub(super) fn keygen(path: &Path) {
    let made =
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}
