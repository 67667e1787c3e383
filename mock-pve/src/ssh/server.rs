//! SSH itself.
//!
//! Purpose: who may log in, and a shell per channel: for a command, for a script that comes in, or at a terminal. Must not
//! know: commands. Start at [`Sshd::serve`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::keys::PublicKey;
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, Session, VerifiedPublicKey};
use russh::{
    Channel, ChannelId, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, MethodKind, MethodSet, Preferred, cipher,
};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::keys::{KeyError, Keys};
use super::pipe::{Input, Output};
use super::sftp::Transfer;
use super::shell::{Host, Shell, Streams};
use super::terminal::Seat;
use super::visit::Visit;
use crate::pve::Api;
use crate::scenario::{self, Meeting, Met};
use crate::world::World;
use crate::world::consoles::{Program, Terminal};
use crate::world::script::{Answered, Ask, Service, Step};

/// Chunks that may wait for a command: as much as two windows of the client.
const WAITING: usize = 256;

/// How long somebody may take to log in.
const GRACE: Duration = Duration::from_mins(2);

/// The subsystem that carries files.
const SFTP: &str = "sftp";

/// The SSH server of one node.
#[derive(Clone)]
pub struct Sshd {
    config: Arc<Config>,
    host: Host,
    login: PublicKey,
    keys: Keys,
}

impl std::fmt::Debug for Sshd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sshd").field("node", &self.host.node).finish_non_exhaustive()
    }
}

impl Sshd {
    /// The server of a node; `api` is that node's.
    pub fn new(world: World, node: String, api: Api, keys: Keys) -> Result<Self, KeyError> {
        let host_key = keys.host(&node)?;
        let login = keys.login()?.public_key().clone();
        let config = Config {
            methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]),
            auth_rejection_time: Duration::from_millis(300),
            auth_rejection_time_initial: Some(Duration::ZERO),
            keys: vec![host_key],
            // Zeros travel too: half the work on machines with AES instructions, as OpenSSH's own servers offer it.
            preferred: Preferred {
                cipher: std::borrow::Cow::Borrowed(&[
                    cipher::AES_256_GCM,
                    cipher::CHACHA20_POLY1305,
                    cipher::AES_256_CTR,
                    cipher::AES_128_CTR,
                ]),
                ..Preferred::default()
            },
            inactivity_timeout: None,
            nodelay: true,
            ..Config::default()
        };
        let runtime = tokio::runtime::Handle::current();
        Ok(Self {
            config: Arc::new(config),
            host: Host { world, node, api, runtime, visit: Visit::default() },
            login,
            keys,
        })
    }

    /// The host key as `known_hosts` and `authorized_keys` have it: `ssh-ed25519 AAAA…`.
    pub fn host_key(&self) -> String {
        let key = self.config.keys.first().and_then(|key| key.public_key().to_openssh().ok()).unwrap_or_default();
        // Without the comment.
        key.split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// Runs a program on a terminal of this node, away from the caller's thread.
    pub fn seat(&self, program: Program, terminal: Terminal) {
        let mut host = self.host.clone();
        host.visit = host.visit.inner();
        let (visit, screen) = (host.visit.clone(), terminal.screen.clone());
        let over = visit.clone();
        self.host.runtime.spawn(async move {
            tokio::select! {
                () = screen.closed() => visit.end(),
                () = visit.over() => {}
            }
        });
        self.host.runtime.spawn_blocking(move || {
            let (keys, screen) = (Input::piped(terminal.keys), Output::Pipe(terminal.screen));
            // Nobody asks for the exit code of a terminal's program.
            let _ = Seat::new(keys, screen).run(host, program);
            over.end();
        });
    }

    /// Answers one connection until it ends; the connection breaks when the future is dropped.
    pub async fn serve(mut self, stream: TcpStream) {
        self.host.visit = self.host.visit.inner();
        let _gone = self.host.visit.end_with();
        let Ok(stream) = stream.into_std() else { return };
        let Ok(cut) = stream.try_clone().map(Cut) else { return };
        let Ok(stream) = TcpStream::from_std(stream) else { return };
        let ask = scripted(&self.host, Step::Connect, "");
        if Met::with(&self.host.world, &ask).await.breaks_before() {
            return drop(cut);
        }
        let hang_up = scenario::Cut::default();
        let admitted = Arc::new(AtomicBool::new(false));
        let visitor = Visitor {
            host: self.host,
            login: self.login,
            keys: self.keys,
            hang_up: hang_up.clone(),
            admitted: Arc::clone(&admitted),
        };
        let out_of_time = async {
            tokio::time::sleep(GRACE).await;
            if admitted.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let visit = async {
            match russh::server::run_stream(self.config, stream, visitor).await {
                Ok(session) => tokio::select! {
                    ended = session => if let Err(error) = ended {
                        tracing::debug!(%error, "an SSH session ended early");
                    },
                    () = hang_up.happens() => {}
                },
                Err(error) => tracing::debug!(%error, "an SSH session didn't begin"),
            }
        };
        tokio::select! {
            () = visit => {}
            () = out_of_time => tracing::debug!("nobody logged in"),
        }
        drop(cut);
    }
}

/// Sessions run on their own: what ends them is their socket.
struct Cut(std::net::TcpStream);

impl Drop for Cut {
    fn drop(&mut self) {
        // Closed already is as good as closed now.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

/// Somebody who connected.
struct Visitor {
    host: Host,
    login: PublicKey,
    keys: Keys,
    hang_up: scenario::Cut,
    admitted: Arc<AtomicBool>,
}

impl Handler for Visitor {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        let same = |known: &PublicKey| known.key_data() == key.public_key.key_data();
        let known = same(&self.login) || self.keys.authorized().iter().any(same);
        let admitted = user == "root" && known;
        self.admitted.fetch_or(admitted, Ordering::Relaxed);
        Ok(if admitted { Auth::Accept } else { Auth::reject() })
    }

    /// As the original's nodes have it, root may also come with a password: that of `root@pam`. PAM
    /// knows nothing of users whom the API refuses.
    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        let admitted = user == "root" && {
            let state = self.host.world.state();
            state.access.users.get("root@pam").is_some_and(|root| root.has_password(password))
        };
        self.admitted.fetch_or(admitted, Ordering::Relaxed);
        Ok(if admitted { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        reply.accept().await;
        let (mut host, handle, hang_up) = (self.host.clone(), session.handle(), self.hang_up.clone());
        host.visit = host.visit.inner();
        tokio::spawn(async move {
            let (read, write) = channel.split();
            attend(host, read, write, handle, hang_up).await;
        });
        Ok(())
    }

    /// Variables are taken, as the original's configuration says (`LANG`, `LC_*`), and mean nothing here. It is answered at
    /// once: clients ask for the command without waiting, and would take a late answer for that to the command.
    async fn env_request(
        &mut self,
        channel: ChannelId,
        _name: &str,
        _value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        session.channel_success(channel)
    }
}

/// What is wanted of a channel.
enum Wanted {
    /// A command's work, with what comes in as its input.
    Command(String),
    /// A shell that reads its commands.
    Script,
    /// A program on a terminal.
    Seat(Program),
    /// Files.
    Files,
}

impl Wanted {
    /// The method and the word that a record has.
    fn named(&self) -> (&'static str, String) {
        match self {
            // Arguments may hold what isn't for a log.
            Self::Command(text) | Self::Seat(Program::Command(text)) => {
                ("exec", text.split_ascii_whitespace().next().unwrap_or_default().to_owned())
            }
            Self::Script | Self::Seat(_) => ("shell", String::new()),
            Self::Files => ("subsystem", SFTP.to_owned()),
        }
    }

    /// The command, as scenarios name it.
    fn text(&self) -> &str {
        match self {
            Self::Command(text) | Self::Seat(Program::Command(text)) => text,
            Self::Script | Self::Seat(_) => "",
            Self::Files => SFTP,
        }
    }

    /// Does it, on an ordinary thread, and says the exit code.
    fn run(self, host: Host, streams: Streams) -> u8 {
        match self {
            Self::Command(text) => Shell::new(host).run(&text, streams),
            Self::Seat(program) => Seat::new(streams.input, streams.output).run(host, program),
            Self::Files => Transfer::serve(host, streams),
            Self::Script => Shell::new(host).read(streams),
        }
    }
}

/// One channel: waits for what is wanted, does it, says how it ended.
async fn attend(
    host: Host,
    mut read: ChannelReadHalf,
    write: ChannelWriteHalf<Msg>,
    handle: russh::server::Handle,
    hang_up: scenario::Cut,
) {
    let id = write.id();
    let mut terminal = false;
    let wanted = loop {
        match read.wait().await {
            Some(ChannelMsg::Exec { command, .. }) => {
                let text = String::from_utf8_lossy(&command).into_owned();
                break if terminal { Wanted::Seat(Program::Command(text)) } else { Wanted::Command(text) };
            }
            Some(ChannelMsg::RequestShell { .. }) => {
                break if terminal { Wanted::Seat(Program::Shell) } else { Wanted::Script };
            }
            Some(ChannelMsg::RequestPty { want_reply, .. }) => {
                terminal = true;
                if want_reply {
                    // The session is gone when nobody takes the answer; here and below.
                    let _ = handle.channel_success(id).await;
                }
            }
            Some(ChannelMsg::RequestSubsystem { name, .. }) if name == SFTP => break Wanted::Files,
            Some(ChannelMsg::RequestSubsystem { want_reply: true, .. }) => {
                let _ = handle.channel_failure(id).await;
            }
            Some(ChannelMsg::Close) | None => return,
            Some(_) => {}
        }
    };
    let _ = handle.channel_success(id).await;
    tracing::debug!(node = host.node, "a command over SSH");
    let world = host.world.clone();
    let mut meeting = Meeting::new(Answered::now(Service::Ssh, &host.node));
    let (method, word) = wanted.named();
    (meeting.record.method, meeting.record.path, meeting.record.who) = (method.into(), word, "root".into());
    let mut met = Met::with(&world, &scripted(&host, Step::Request, wanted.text())).await;
    if met.breaks_before() {
        return hang_up.now();
    }
    if let Some((code, reason)) = met.status.take() {
        // Whoever hung up doesn't hear it; here and below.
        let _ = write.extended_data_bytes(1, Bytes::from(format!("{reason}\n"))).await;
        let _ = write.exit_status(u32::from(code)).await;
        let _ = write.eof().await;
        let _ = write.close().await;
        return meeting.ends(&world, code, 0);
    }
    let breaks = met.breaks_after();
    let (into, input) = mpsc::channel::<Bytes>(WAITING);
    let (output, mut from) = mpsc::channel::<Bytes>(WAITING);
    let (error, mut complaints) = mpsc::channel::<Bytes>(WAITING);
    let visit = host.visit.clone();
    let (left, thread) = (visit.clone(), visit);
    let feeding = tokio::spawn(async move {
        feed(read, into, met).await;
        left.end();
    });
    let working = tokio::task::spawn_blocking(move || {
        let streams = Streams { input: Input::piped(input), output: Output::Pipe(output), error: Output::Pipe(error) };
        // A shell needs a larger stack than this thread has.
        thread.spawn(move || wanted.run(host, streams)).and_then(|working| working.join().ok()).unwrap_or(255)
    });
    let mut sent_bytes = 0;
    loop {
        let sent = tokio::select! {
            Some(bytes) = from.recv() => {
                sent_bytes += bytes.len() as u64;
                write.data_bytes(bytes).await
            }
            Some(bytes) = complaints.recv() => write.extended_data_bytes(1, bytes).await,
            else => break,
        };
        if sent.is_err() {
            break;
        }
    }
    drop((from, complaints));
    let code = working.await.unwrap_or(255);
    feeding.abort();
    meeting.ends(&world, u16::from(code), sent_bytes);
    if breaks {
        return hang_up.now();
    }
    // Whoever hung up doesn't hear the end.
    let _ = write.exit_status(u32::from(code)).await;
    let _ = write.eof().await;
    let _ = write.close().await;
}

/// A connection or a command, as the scenario sees it.
fn scripted<'a>(host: &'a Host, step: Step, command: &'a str) -> Ask<'a> {
    Ask { service: Service::Ssh, step, verb: "", path: command, who: "root", node: &host.node, vmid: None }
}

/// The client's bytes for the command's input.
async fn feed(mut read: ChannelReadHalf, into: mpsc::Sender<Bytes>, mut met: Met) {
    let mut into = Some(into);
    while let Some(message) = read.wait().await {
        match message {
            ChannelMsg::Data { data } => {
                let data = met.touch(data);
                if let Some(open) = &into
                    && open.send(data).await.is_err()
                {
                    // The command reads no more; the rest is thrown away, so that the session goes on.
                    into = None;
                }
            }
            ChannelMsg::Eof => into = None,
            ChannelMsg::Close => return,
            _ => {}
        }
    }
}
