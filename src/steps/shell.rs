//! Commands on PVE nodes over SSH, one connection per node for the whole run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::World;
use super::classify::{by_ssh, wrong};
use crate::backup::copy::{Ran, Shell, ShellError};
use crate::engine::StepError;
use crate::net::{Connector, Silent};
use crate::ssh::{Done, Login, Ssh, SshError};
use crate::types::NodeName;

/// How nodes and the hosts of backup copies are reached by SSH, and the connections to nodes that are open.
#[derive(Debug, Default)]
pub struct Shells {
    logins: BTreeMap<NodeName, Login>,
    hosts: BTreeMap<String, Login>,
    open: Mutex<BTreeMap<NodeName, Ssh>>,
}

impl Shells {
    /// Nobody is connected to yet.
    pub fn new(logins: BTreeMap<NodeName, Login>, hosts: BTreeMap<String, Login>) -> Self {
        Self { logins, hosts, open: Mutex::default() }
    }

    /// A connection to a host that the profile's `backup.copies` names, as it names it.
    pub async fn host(&self, connector: &Connector, host: &str) -> Result<Remote, SshError> {
        let login = self.hosts.get(host).ok_or_else(|| SshError::Closed { host: host.to_owned() })?;
        Ssh::connect(connector, login).await.map(Remote)
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeName, Ssh>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A host that backups are copied to: commands as the user that the profile names.
#[derive(Clone, Debug)]
pub struct Remote(Ssh);

/// Bytes on their way from the connection's thread to whoever waits for the command.
struct Passing(tokio::sync::mpsc::Sender<Vec<u8>>);

impl Write for Passing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::other("nobody takes the command's output");
        self.0.blocking_send(bytes.to_vec()).map(|()| bytes.len()).map_err(gone)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shell for Remote {
    async fn run(
        &self,
        command: &str,
        stdin: Option<&Path>,
        stdout: Option<&mut (dyn Write + Send)>,
    ) -> Result<Ran, ShellError> {
        let opened = |source| ShellError::Io { doing: "open what the command should get", source };
        let input = stdin.map(|path| File::open(path).map_err(opened)).transpose()?;
        let input = input.map(|file| Box::new(file) as crate::ssh::Input);
        let (send, mut passed) = tokio::sync::mpsc::channel(32);
        let sink = stdout.is_some().then(|| Box::new(Passing(send)) as crate::ssh::Sink);
        let taking = async {
            if let Some(stdout) = stdout {
                while let Some(bytes) = passed.recv().await {
                    stdout.write_all(&bytes).map_err(ShellError::Sink)?;
                }
            }
            Ok(())
        };
        let running = async {
            let ran = self.0.run(command, input, sink, &Silent).await;
            ran.map_err(|error| ShellError::Connection(Box::new(error)))
        };
        let (done, ()) = tokio::try_join!(running, taking)?;
        Ok(Ran { status: done.status, stderr: done.stderr })
    }
}

/// A command as it is sent: PVE's tools are root's.
pub(super) fn as_root(login: &Login, command: &str) -> String {
    if login.user == "root" { command.to_owned() } else { format!("sudo -n {command}") }
}

impl World {
    /// A connection to this node: the open one, or a new one.
    pub(super) async fn shell(&self, doing: &str, node: &NodeName) -> Result<Ssh, StepError> {
        let open = self.shells.held().get(node).cloned();
        if let Some(ssh) = open {
            return Ok(ssh);
        }
        let login = self.shells.logins.get(node);
        let login = login.ok_or_else(|| {
            wrong(doing, format!("the site says nothing about SSH to {node}"))
                .hinted("give the site file `ssh` with a key or an agent, and the node its host key")
        })?;
        let ssh = Ssh::connect(&self.connector, login).await.map_err(|error| by_ssh(doing, error))?;
        self.shells.held().insert(node.clone(), ssh.clone());
        Ok(ssh)
    }

    /// What became of a command on this node. A connection that failed is forgotten: the next attempt makes a new one.
    pub(super) fn outcome<T>(&self, doing: &str, node: &NodeName, result: Result<T, SshError>) -> Result<T, StepError> {
        result.map_err(|error| {
            self.shells.held().remove(node);
            by_ssh(doing, error)
        })
    }

    /// Runs a command as root and returns what it printed; any exit code but 0 is an error.
    pub(super) async fn on_node(&self, doing: &str, node: &NodeName, command: &str) -> Result<String, StepError> {
        let (done, said) = self.ask_node(doing, node, command).await?;
        if done.is_ok() { Ok(said) } else { Err(wrong(doing, format!("`{command}` on {node}: {}", done.why()))) }
    }

    /// The same, for commands whose exit code says something.
    pub(super) async fn ask_node(
        &self,
        doing: &str,
        node: &NodeName,
        command: &str,
    ) -> Result<(Done, String), StepError> {
        let ssh = self.shell(doing, node).await?;
        let asked = ssh.ask(&as_root(ssh.login(), command)).await;
        self.outcome(doing, node, asked)
    }
}
