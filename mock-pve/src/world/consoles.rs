//! Terminals: serial consoles of VMs, logins on nodes, and where a viewer is waited for.
//!
//! Purpose: connects whoever looks at a terminal with what is behind it (Proxmox VE 8.4, `termproxy`, `qm terminal`). The
//! ports from 5900 on are numbers that viewers name: nothing listens there, since viewers come through the API.
//! Must not know: HTTP, tickets, what a shell does. Start at [`World::wait_for_viewer`].

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::refusal::{Refusal, Rule};
use super::{World, held};

/// The ports of viewers.
const PORTS: RangeInclusive<u16> = 5900..=5999;
/// Lines that a slow viewer may be behind; what is older is lost, as on a wire.
const BEHIND: usize = 256;
/// Bytes between a viewer and a terminal.
const BUFFER: usize = 64 * 1024;

/// The two ends of a terminal, as the program on it sees them.
#[derive(Debug)]
pub struct Terminal {
    /// What is typed.
    pub keys: mpsc::Receiver<Bytes>,
    /// What is shown.
    pub screen: mpsc::Sender<Bytes>,
}

/// What runs on a terminal of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A shell of root's.
    Shell,
    /// Somebody is asked for name and password.
    Login,
    /// One command.
    Command(String),
}

/// Who logs people in on a node is told of them here. (A channel, since who does it holds the world.)
type Logins = mpsc::UnboundedSender<(Program, Terminal)>;

/// Where a viewer's end is sent to by port of a node; nothing any more once there is one.
type Ports = BTreeMap<(String, u16), Option<oneshot::Sender<DuplexStream>>>;

/// What a serial port says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A line of this VM's.
    Line(u32, String),
    /// This VM is off.
    Off(u32),
}

/// All terminals of a world.
#[derive(Debug)]
pub(super) struct Consoles {
    said: broadcast::Sender<Said>,
    logins: Mutex<BTreeMap<String, Logins>>,
    ports: Mutex<Ports>,
    over: CancellationToken,
}

impl Default for Consoles {
    fn default() -> Self {
        Self {
            said: broadcast::channel(BEHIND).0,
            logins: Mutex::default(),
            ports: Mutex::default(),
            over: CancellationToken::new(),
        }
    }
}

impl Consoles {
    /// Whoever looks at serial ports is told.
    pub(super) fn tell(&self, said: Said) {
        // Nobody has to look.
        let _ = self.said.send(said);
    }
}

/// A port of a node at which a viewer is waited for. It is free again when this is dropped.
#[derive(Debug)]
pub struct Waiting {
    world: World,
    node: String,
    port: u16,
    viewer: oneshot::Receiver<DuplexStream>,
}

impl Waiting {
    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The viewer, once there is one.
    pub async fn viewer(&mut self) -> Option<DuplexStream> {
        (&mut self.viewer).await.ok()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        held(&self.world.0.consoles.ports).remove(&(self.node.clone(), self.port));
    }
}

impl World {
    /// Everything that serial ports say from now on.
    pub fn listen_to_serial_ports(&self) -> broadcast::Receiver<Said> {
        self.0.consoles.said.subscribe()
    }

    /// All who want to log in on a node from now on.
    pub fn logins_of(&self, node: &str) -> mpsc::UnboundedReceiver<(Program, Terminal)> {
        let (sender, receiver) = mpsc::unbounded_channel();
        held(&self.0.consoles.logins).insert(node.to_owned(), sender);
        receiver
    }

    /// Runs a program on a terminal of a node, until it ends or nobody looks any more. On a node that has nobody for it, it
    /// has ended.
    pub fn log_in(&self, node: &str, program: Program, terminal: Terminal) {
        if let Some(logins) = held(&self.0.consoles.logins).get(node) {
            // As on a node that goes down.
            let _ = logins.send((program, terminal));
        }
    }

    /// Nobody looks at a terminal any more.
    pub fn hang_up(&self) {
        self.0.consoles.over.cancel();
    }

    /// Waits until nobody may look at a terminal any more.
    pub async fn hung_up(&self) {
        self.0.consoles.over.cancelled().await;
    }

    /// Takes the first free port of a node for one viewer.
    pub fn wait_for_viewer(&self, node: &str) -> Rule<Waiting> {
        let mut ports = held(&self.0.consoles.ports);
        let free = PORTS.into_iter().find(|port| !ports.contains_key(&(node.to_owned(), *port)));
        let port = free.ok_or_else(|| Refusal::failed("unable to find free port (5900-6000)\n"))?;
        let (sender, viewer) = oneshot::channel();
        ports.insert((node.to_owned(), port), Some(sender));
        Ok(Waiting { world: self.clone(), node: node.to_owned(), port, viewer })
    }

    /// A viewer's end of what waits at a port; `None`: nobody waits there.
    pub fn view(&self, node: &str, port: u16) -> Option<DuplexStream> {
        let sender = held(&self.0.consoles.ports).get_mut(&(node.to_owned(), port))?.take()?;
        let (near, far) = tokio::io::duplex(BUFFER);
        sender.send(far).ok()?;
        Some(near)
    }
}
