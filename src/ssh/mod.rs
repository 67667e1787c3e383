//! Commands on other hosts over SSH, for templates that go straight into a volume and for copies of backups.
//!
//! Purpose: one connection that was made to the right host (`host_key` decides, nobody is trusted at first sight), and
//! commands on it whose three streams run at wire speed without ever waiting for each other.
//! Must not know: what the commands mean, plans, Proxmox VE. Progress goes to a [`crate::net::Meter`].
//! Start reading at [`Ssh`]; `pump` holds the loop that moves the bytes.
//!
//! With `ssh.program` in the site file the connection is made by the system's own `ssh` (`program`).
//!
//! libssh2 is C that blocks, so each connection has a thread of its own (`connection`), and what is asked of it goes
//! there through a queue. The TCP connection comes from [`crate::net::Connector`] like every other one.

mod connection;
mod error;
mod host_key;
mod open;
mod program;
mod pump;
#[cfg(test)]
mod real;
#[cfg(test)]
mod tests;

use std::io::{Read, Write};
use std::path::PathBuf;

pub use connection::{Collected, Ssh};
pub use error::SshError;
pub use host_key::{HostKey, NotAKey};

/// Whom to reach, as whom, and how both sides prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Name or address, as the site has it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user there.
    pub user: String,
    /// Private key files without passphrase, tried in this order. Keys with one belong into an agent.
    pub keys: Vec<PathBuf>,
    /// The socket of an SSH agent, asked before the key files.
    pub agent: Option<PathBuf>,
    /// The host's pinned keys. With any of these, `known_hosts` isn't read.
    pub host_keys: Vec<HostKey>,
    /// A file in OpenSSH's `known_hosts` format. One that doesn't exist knows no host.
    pub known_hosts: Option<PathBuf>,
    /// The system's `ssh`, where that shall make the connection instead of the built-in client.
    pub program: Option<PathBuf>,
}

impl Login {
    /// `user@host`, with the port where it isn't the usual one.
    pub fn shown(&self) -> String {
        format!("{}@{}", self.user, self.place())
    }

    /// The host, with the port where it isn't the usual one.
    pub(super) fn place(&self) -> String {
        if self.port == 22 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// What a command reads. Blocking reads happen on the connection's thread.
pub type Input = Box<dyn Read + Send>;

/// Where a command's output goes. Blocking writes happen on the connection's thread.
pub type Sink = Box<dyn Write + Send>;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its exit code; 128 when a signal ended it.
    pub status: i32,
    /// The signal that ended it, `KILL`.
    pub signal: Option<String>,
    /// What it complained about: at most 64 KiB, the end of it.
    pub stderr: String,
}

impl Done {
    /// Whether it ended well.
    pub fn is_ok(&self) -> bool {
        self.status == 0 && self.signal.is_none()
    }

    /// How it ended and what it said last, for an error: `exit code 3: no such file`.
    pub fn why(&self) -> String {
        let ended = match &self.signal {
            Some(signal) => format!("ended by signal {signal}"),
            None => format!("exit code {}", self.status),
        };
        match self.stderr.trim() {
            "" => ended,
            said => format!("{ended}: {said}"),
        }
    }
}

/// A word for the shell there, quoted where it needs to be.
pub fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=+,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}
