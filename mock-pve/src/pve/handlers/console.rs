//! `Q/termproxy`, `N/termproxy`, `Q/vncproxy`, `…/vncwebsocket`: terminals in a browser.
//!
//! Purpose: waits for a viewer as `termproxy` does, and speaks its language: `USER:TICKET` and a line end, `OK`, then
//! `0:LENGTH:KEYS`, `1:COLUMNS:ROWS:` and `2` (it is still there) one way, and what is shown the other (pve-xtermjs). A
//! graphical screen is offered, and there is nothing behind it. Must not know: the connection, what shells do.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, ReadHalf};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::WRONG_TICKET;
use crate::pve::auth::Auth;
use crate::pve::call::{Call, Result};
use crate::world::consoles::{Program, Said, Terminal, Waiting};
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::work::Work;
use crate::world::{PveVersion, World};

/// Seconds that a viewer is waited for.
const PATIENCE: f64 = 10.0;
/// However fast the world's time passes: viewers live in ours.
const AT_LEAST: Duration = Duration::from_secs(3);
/// The longest message of a viewer.
const LONGEST: u64 = 128 * 1024;
/// Chunks that may wait.
const WAITING: usize = 64;

/// What is behind a terminal.
enum Behind {
    /// A serial port of a VM, the first one where none is named.
    Serial { vmid: u32, port: Option<String> },
    /// A node.
    Node { node: String, program: Program },
}

/// Somebody's look at a terminal.
struct Look {
    auth: Arc<Auth>,
    user: String,
    path: String,
    behind: Behind,
}

/// `POST Q/termproxy`
pub(in crate::pve) fn of_vm(call: &Call) -> Result {
    let vmid = call.vmid();
    let screen = serial_screen(call)?;
    let port = call.params.owned("serial").or(screen);
    open(call, "vncproxy", &vmid.to_string(), format!("/vms/{vmid}"), Behind::Serial { vmid, port })
}

/// The serial port that is the screen of the VM in the path, if it is one.
fn serial_screen(call: &Call) -> Rule<Option<String>> {
    let state = call.world.state();
    let vga = state.vm(&call.node(), call.vmid())?.config.get("vga");
    let kind = vga.and_then(|vga| Properties::parse(vga, "type").get("type").map(str::to_owned));
    Ok(kind.filter(|kind| kind.starts_with("serial")))
}

/// `POST Q/vncproxy`
pub(in crate::pve) fn screen_of_vm(call: &Call) -> Result {
    let serial = serial_screen(call)?;
    let mut waiting = call.world.wait_for_viewer(&call.local)?;
    let (user, vmid, port) = (&call.caller.identity, call.vmid().to_string(), waiting.port());
    let mut ticket = call.auth.viewer_ticket(&format!("{user}:/vms/{vmid}:{port}"), call.world.clock().unix());
    let mut answer = json!({"user": user, "port": port.to_string()});
    if call.params.is_on("generate-password") || call.params.is_on("websocket") || serial.is_none() {
        let password = screen_password();
        ticket = format!("{password}:{ticket}");
        answer["password"] = json!(password);
    }
    answer["ticket"] = json!(ticket);
    // Without the certificate a client can still look at what it was told by the server itself.
    answer["cert"] = json!(std::fs::read_to_string(call.world.dir().join("tls/ca.pem")).unwrap_or_default());
    let patience = patience(&call.world);
    let upid = call.world.start_task(&call.caller, &call.local, "vncproxy", &vmid, |_| async move {
        let came = tokio::time::timeout(patience, waiting.viewer()).await;
        Err(Refusal::failed(if came.is_ok() { "Failed to run vncproxy.\n" } else { "connection timed out\n" }))
    });
    answer["upid"] = json!(upid);
    Ok(answer.into())
}

/// What a screen asks its viewer for.
pub(super) fn screen_password() -> String {
    let printable = |byte: &u8| char::from(b'!' + byte % 64);
    Auth::secret().iter().take(8).map(printable).collect()
}

/// How long a viewer is waited for.
pub(super) fn patience(world: &World) -> Duration {
    world.clock().scaled(PATIENCE).max(AT_LEAST)
}

/// `POST N/termproxy`
pub(in crate::pve) fn of_node(call: &Call) -> Result {
    let node = call.node();
    let who = &call.caller.identity;
    // A token is no user that could log in; the later release doesn't look.
    if who.contains('!') && call.world.state().pve == PveVersion::V8 {
        return Err(Refusal::failed(format!("value '{who}' does not look like a valid user name\n")));
    }
    // Nobody but root is let in without a password, whatever he may do here.
    let program = match call.params.text("cmd") {
        _ if !call.caller.is_root() => Program::Login,
        Some("upgrade") => Program::Command("/usr/bin/pveupgrade --shell".to_owned()),
        Some("ceph_install") => {
            let arguments = call.params.text("cmd-opts").unwrap_or_default().replace('\0', " ");
            Program::Command(format!("/usr/bin/pveceph install {arguments}"))
        }
        _ => Program::Shell,
    };
    open(call, "vncshell", "", format!("/nodes/{node}"), Behind::Node { node, program })
}

/// `GET Q/vncwebsocket`
pub(in crate::pve) fn look_at_vm(call: &Call) -> Result {
    look(call, &format!("/vms/{}", call.vmid()))?;
    call.world.state().vm(&call.node(), call.vmid())?;
    Ok(json!({"port": call.text("port")}).into())
}

/// `GET N/vncwebsocket`
pub(in crate::pve) fn look_at_node(call: &Call) -> Result {
    look(call, &format!("/nodes/{}", call.text("node")))?;
    Ok(json!({"port": call.text("port")}).into())
}

fn look(call: &Call, path: &str) -> Rule<()> {
    let who = format!("{}:{path}:{}", call.caller.identity, call.text("port"));
    let may = call.auth.may_view(call.text("vncticket"), &who, call.world.clock().unix());
    if may { Ok(()) } else { Err(Refusal::failed(WRONG_TICKET)) }
}

/// Begins to wait for a viewer, on the node that was asked.
fn open(call: &Call, kind: &str, id: &str, path: String, behind: Behind) -> Result {
    let waiting = call.world.wait_for_viewer(&call.local)?;
    let (user, port) = (call.caller.identity.clone(), waiting.port());
    let ticket = call.auth.viewer_ticket(&format!("{user}:{path}:{port}"), call.world.clock().unix());
    let look = Look { auth: Arc::clone(&call.auth), user: user.clone(), path, behind };
    let upid = call
        .world
        .start_task(&call.caller, &call.local, kind, id, |work| async move { look.wait(&work, waiting).await });
    Ok(json!({"user": user, "ticket": ticket, "port": port.to_string(), "upid": upid}).into())
}

impl Look {
    /// The command that the original runs for it.
    fn command(&self, port: u16) -> String {
        let (permission, behind) = match &self.behind {
            Behind::Serial { vmid, port } => {
                let named = port.as_ref().map(|port| format!(" -iface {port}")).unwrap_or_default();
                ("VM.Console", format!("/usr/sbin/qm terminal {vmid} -escape 0{named}"))
            }
            Behind::Node { program, .. } => {
                let program = match program {
                    Program::Shell => "/bin/login -f root",
                    Program::Login => "/bin/login",
                    Program::Command(text) => text,
                };
                ("Sys.Console", program.to_owned())
            }
        };
        let ticket = "--vncticket-endpoint --verify-port --ticket-fd 8";
        format!("/usr/bin/termproxy {port} --path {} --perm {permission} {ticket} -- {behind}", self.path)
    }

    async fn wait(self, work: &Work, mut waiting: Waiting) -> Rule<()> {
        let command = self.command(waiting.port());
        let failed = || Refusal::failed(format!("command '{command}' failed: exit code 1\n"));
        let patience = patience(work.world());
        let Ok(Some(viewer)) = tokio::time::timeout(patience, waiting.viewer()).await else { return Err(failed()) };
        let (read, mut shown) = tokio::io::split(viewer);
        let mut read = BufReader::new(read);
        if !self.is_let_in(&mut read, waiting.port(), work.world()).await || shown.write_all(b"OK").await.is_err() {
            return Err(failed());
        }
        let (typed, keys) = mpsc::channel(WAITING);
        let (screen, mut said) = mpsc::channel::<Bytes>(WAITING);
        let terminal = Terminal { keys, screen };
        match self.behind {
            Behind::Serial { vmid, port } => {
                tokio::spawn(serial(work.world().clone(), vmid, port, terminal));
            }
            Behind::Node { node, program } => work.world().log_in(&node, program, terminal),
        }
        let showing = async {
            while let Some(bytes) = said.recv().await {
                if shown.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        };
        // It is over when the program has ended, or nobody looks any more.
        tokio::select! {
            () = showing => {}
            () = listen(&mut read, &typed) => {}
            () = work.world().hung_up() => {}
        }
        Ok(())
    }

    /// Whether the first line is who was expected.
    async fn is_let_in(&self, read: &mut BufReader<ReadHalf<DuplexStream>>, port: u16, world: &World) -> bool {
        let mut line = String::new();
        let read = tokio::time::timeout(patience(world), read.take(LONGEST).read_line(&mut line)).await;
        let now = world.clock().unix();
        let expected = |(user, ticket): (&str, &str)| {
            user == self.user && self.auth.may_view(ticket, &format!("{user}:{}:{port}", self.path), now)
        };
        matches!(read, Ok(Ok(_))) && line.trim_end_matches('\n').split_once(':').is_some_and(expected)
    }
}

/// Passes on what is typed, until the viewer goes or says what no viewer says.
async fn listen(read: &mut BufReader<ReadHalf<DuplexStream>>, typed: &mpsc::Sender<Bytes>) {
    while let Ok(kind) = read.read_u8().await {
        let keys = match kind {
            b'0' => {
                let Some(length) = field(read).await.filter(|length| *length <= LONGEST) else { return };
                let mut keys = vec![0; usize::try_from(length).unwrap_or_default()];
                if read.read_exact(&mut keys).await.is_err() {
                    return;
                }
                keys
            }
            // How large the window is matters to nobody here.
            b'1' if field(read).await.is_some() && number(read).await.is_some() => Vec::new(),
            b'2' => Vec::new(),
            _ => return,
        };
        if !keys.is_empty() {
            // Where nobody listens, what is typed is lost.
            let _ = typed.send(Bytes::from(keys)).await;
        }
    }
}

/// `:NUMBER:`
async fn field(read: &mut BufReader<ReadHalf<DuplexStream>>) -> Option<u64> {
    if read.read_u8().await.ok()? != b':' {
        return None;
    }
    number(read).await
}

/// `NUMBER:`
async fn number(read: &mut BufReader<ReadHalf<DuplexStream>>) -> Option<u64> {
    let mut text = Vec::new();
    read.take(20).read_until(b':', &mut text).await.ok()?;
    std::str::from_utf8(text.strip_suffix(b":")?).ok()?.parse().ok()
}

/// `qm terminal`: what a serial port says from now on.
async fn serial(world: World, vmid: u32, port: Option<String>, terminal: Terminal) {
    let mut said = world.listen_to_serial_ports();
    let Terminal { screen, keys } = terminal;
    // Nobody listens to what is typed.
    drop(keys);
    let began = match begin(&world, vmid, port) {
        Ok(port) => format!("starting serial terminal on interface {port}\r\n"),
        Err(text) => {
            // Whoever is gone doesn't read it; here and below.
            let _ = screen.send(Bytes::from(format!("{text}\r\n"))).await;
            return;
        }
    };
    drop(world);
    if screen.send(Bytes::from(began)).await.is_err() {
        return;
    }
    loop {
        let heard = tokio::select! {
            heard = said.recv() => heard,
            () = screen.closed() => return,
        };
        match heard {
            Ok(Said::Line(whose, line)) if whose == vmid => {
                if screen.send(Bytes::from(format!("{line}\r\n"))).await.is_err() {
                    return;
                }
            }
            Ok(Said::Off(whose)) if whose == vmid => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

/// Which port is looked at, or why none can be.
fn begin(world: &World, vmid: u32, port: Option<String>) -> std::result::Result<String, String> {
    let state = world.state();
    let vm = state.vms.get(&vmid).ok_or_else(|| format!("VM {vmid} not running"))?;
    let kind = |port: &str| vm.config.get(port).map(String::as_str);
    let port = match port {
        Some(port) => match kind(&port) {
            None => return Err(format!("serial interface '{port}' is not configured")),
            Some("socket") => port,
            Some(_) => return Err(format!("wrong serial type on interface '{port}'")),
        },
        None => (0..4)
            .map(|number| format!("serial{number}"))
            .find(|port| kind(port) == Some("socket"))
            .ok_or("unable to find a serial interface")?,
    };
    if vm.running.is_none() {
        return Err(format!("VM {vmid} not running"));
    }
    Ok(port)
}
