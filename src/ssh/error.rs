//! What can go wrong with a connection or a command on it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::host_key::NotAKey;
use crate::net::ConnectError;

/// Why there is no connection, or why a command's outcome is not known. A command that ended with an exit code is no
/// error here.
#[derive(Debug, thiserror::Error)]
pub enum SshError {
    /// No TCP connection.
    #[error("no connection for SSH")]
    Connect(#[from] ConnectError),
    /// The two sides did not agree.
    #[error("no SSH session with {host}")]
    Handshake {
        /// Host and port.
        host: String,
        /// What libssh2 says.
        #[source]
        source: ssh2::Error,
    },
    /// Nothing says which key the host has to have.
    #[error("the SSH host key of {host} is not known: it shows {kind} {fingerprint}")]
    UnknownHostKey {
        /// Host and port.
        host: String,
        /// The key's type, `ssh-ed25519`.
        kind: String,
        /// `SHA256:…`, as ssh-keygen prints it.
        fingerprint: String,
        /// What to write into the site file once the fingerprint was compared: `host_key: "…"`.
        line: String,
    },
    /// The host shows another key than it has to.
    #[error("THE SSH HOST KEY OF {host} IS ANOTHER ONE: it has to be {expected} (by {by}), and it shows {found}")]
    ChangedHostKey {
        /// Host and port.
        host: String,
        /// Type and fingerprint of the known keys.
        expected: String,
        /// Type and fingerprint of the shown one.
        found: String,
        /// Who says so: `the site file` or the `known_hosts` file with the line.
        by: String,
    },
    /// The host shows a key that its `known_hosts` file takes back.
    #[error("{by} says that the key {found}, which {host} shows, was revoked")]
    RevokedHostKey {
        /// Host and port.
        host: String,
        /// Type and fingerprint.
        found: String,
        /// File and line.
        by: String,
    },
    /// The file of known hosts can't be used.
    #[error("{} can't be read", path.display())]
    KnownHosts {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line of the file of known hosts speaks of this host and can't be understood.
    #[error("line {line} of {} speaks of {host} and can't be read", path.display())]
    KnownHostsLine {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: NotAKey,
    },
    /// The system's `ssh` does not know the host's key.
    #[error("the key of {host} is not the one that is known: {said}")]
    Unproven {
        /// Host and port.
        host: String,
        /// What it says.
        said: String,
    },
    /// The system's `ssh` does not run.
    #[error("`ssh` can't be run for {host}")]
    Program {
        /// Host and port.
        host: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host let none of the keys in.
    #[error("{login} was not let in: {tried}")]
    Denied {
        /// `user@host`.
        login: String,
        /// Each way that was tried with what came of it.
        tried: String,
    },
    /// The host would not run a command.
    #[error("{host} does not run the command")]
    Exec {
        /// Host and port.
        host: String,
        /// What libssh2 says.
        #[source]
        source: ssh2::Error,
    },
    /// The connection broke. What a command did by then is not known.
    #[error("the connection to {host} was lost")]
    Lost {
        /// Host and port.
        host: String,
        /// What libssh2 or the system says.
        #[source]
        source: io::Error,
    },
    /// Not even keepalives were answered.
    #[error("{host} was silent for {} s", after.as_secs())]
    Silent {
        /// Host and port.
        host: String,
        /// For how long.
        after: Duration,
    },
    /// What the command should read could not be read. The connection was closed.
    #[error("could not read what the command should get")]
    Input(#[source] io::Error),
    /// What the command printed could not be put away. The connection was closed.
    #[error("could not put away what the command printed")]
    Output(#[source] io::Error),
    /// The connection was closed before: an earlier command failed on it, or its thread is gone.
    #[error("the connection to {host} is closed")]
    Closed {
        /// Host and port.
        host: String,
    },
    /// The system denied a thread or a socket.
    #[error("could not set up an SSH connection")]
    Setup(#[source] io::Error),
}

impl SshError {
    /// Whether another try may do better: nothing was decided yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(error) => !matches!(error, ConnectError::OutOfReach { .. } | ConnectError::NoHost { .. }),
            Self::Handshake { .. } | Self::Closed { .. } => true,
            _ => false,
        }
    }

    /// Whether a command may have had an effect although there is no outcome.
    pub fn may_have_run(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Silent { .. })
    }

    /// What a person can do about it, a sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownHostKey { line, .. } => Some(format!(
                "compare the fingerprint on the host's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if it is \
                 the same, add to the node's ssh in the site file: {line}"
            )),
            Self::ChangedHostKey { by, .. } => Some(format!(
                "someone may be in between: compare the fingerprint on the host's console; only if the host was \
                 reinstalled, put its new key in the place of the old one in {by}"
            )),
            Self::Unproven { .. } => Some(
                "connect once with `ssh` and compare the fingerprint, or add the node's ssh.host_key to the site file"
                    .to_owned(),
            ),
            Self::Program { .. } => Some("install OpenSSH's client, or leave out ssh.program".to_owned()),
            Self::RevokedHostKey { .. } => Some("do not connect to it until its keys were made anew".to_owned()),
            Self::Denied { .. } => {
                Some("name a key file (`ssh.key`) or ask the agent (`ssh.agent: true`) in the site file".to_owned())
            }
            _ => None,
        }
    }
}
