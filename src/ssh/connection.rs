//! A connection and the thread that it lives on.
//!
//! Purpose: async in front, blocking libssh2 behind, a queue in between. One command at a time; others wait for it.
//! A command whose future is dropped takes the connection with it: nobody knows what of it has happened.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use ssh2::Session;
use tokio::sync::oneshot;

use super::error::SshError;
use super::open::{KEEPALIVE, open};
use super::program::{self, Program};
use super::pump::pump;
use super::{Done, Input, Login, Sink};
use crate::net::{Connector, Meter, Reach};

/// How often a running command's bytes are told to its meter.
const TELL: Duration = Duration::from_millis(100);

/// A command to be run.
pub(super) struct Job {
    pub(super) command: String,
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Option<Sink>,
    pub(super) watch: Watch,
    done: oneshot::Sender<Result<Done, SshError>>,
}

/// What both sides see of a running command.
#[derive(Clone, Default)]
pub(super) struct Watch {
    /// Bytes of stdin and stdout that moved.
    pub(super) moved: Arc<AtomicU64>,
    /// Nobody waits for it any more.
    pub(super) dropped: Arc<AtomicBool>,
}

/// A connection to one host. Clones share it; it ends with the last one.
#[derive(Clone)]
pub struct Ssh {
    login: Arc<Login>,
    by: By,
}

/// What makes the connection.
#[derive(Clone)]
enum By {
    /// The built-in client, on its thread.
    Thread { jobs: mpsc::Sender<Job>, wake: Arc<UnixStream> },
    /// The system's own.
    Program(Arc<Program>),
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ssh").field(&self.login.shown()).finish()
    }
}

/// Ends a connection under a thread that waits on it, unless it was taken off.
struct Hangup(Option<TcpStream>);

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Some(tcp) = self.0.take() {
            // It may be gone already, and then that is done.
            let _gone = tcp.shutdown(Shutdown::Both);
        }
    }
}

/// Tells the thread when nobody waits for a command any more.
struct Waiting<'a> {
    watch: Watch,
    wake: Option<&'a UnixStream>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.watch.dropped.store(true, Ordering::Release);
        // A full pipe wakes as well as a fresh byte.
        let _woken = self.wake.map(|mut wake| wake.write(&[0]));
    }
}

impl Ssh {
    /// Connects, compares the host's key, logs in. Nothing is sent to a host with another key than it has to have.
    pub async fn connect(connector: &Connector, login: &Login) -> Result<Self, SshError> {
        if let Some(program) = &login.program {
            if connector.reach() != Reach::Anywhere {
                // Where a program connects to can't be watched: the connector says no.
                connector.tcp(&login.host, login.port).await?;
                return Err(SshError::Closed { host: login.place() });
            }
            let (login, program) = (Arc::new(login.clone()), program.clone());
            let asked = login.clone();
            let connecting = tokio::task::spawn_blocking(move || Program::connect(&asked, program));
            let made = connecting.await.unwrap_or_else(|_| Err(SshError::Closed { host: login.place() }))?;
            return Ok(Self { login, by: By::Program(Arc::new(made)) });
        }
        let tcp = connector.tcp(&login.host, login.port).await?;
        let tcp = tcp.into_std().map_err(SshError::Setup)?;
        tcp.set_nonblocking(false).map_err(SshError::Setup)?;
        let mut hangup = Hangup(Some(tcp.try_clone().map_err(SshError::Setup)?));
        let (wake, woken) = UnixStream::pair().map_err(SshError::Setup)?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(SshError::Setup)?;
        }
        let (jobs, queue) = mpsc::channel();
        let (opened, answer) = oneshot::channel();
        let login = Arc::new(login.clone());
        let work = {
            let (login, tcp) = (login.clone(), tcp);
            move || serve(tcp, &login, &woken, &queue, opened)
        };
        std::thread::Builder::new().name("ssh".to_owned()).spawn(work).map_err(SshError::Setup)?;
        answer.await.unwrap_or_else(|_| Err(SshError::Closed { host: login.place() }))?;
        hangup.0 = None;
        Ok(Self { login, by: By::Thread { jobs, wake: Arc::new(wake) } })
    }

    /// Whom it is connected to.
    pub fn login(&self) -> &Login {
        &self.login
    }

    /// Runs a command by the user's shell there and waits for its end. `stdin` is closed where there is none, `stdout`
    /// thrown away where nobody wants it. `meter` is told of the bytes of both.
    ///
    /// There is no time limit but the host's silence; put one around it. When the future is dropped, the command loses
    /// its connection.
    ///
    /// # Errors
    /// Only when the outcome isn't known: any exit code is a [`Done`]. After an error the connection is closed.
    pub async fn run(
        &self,
        command: &str,
        stdin: Option<Input>,
        stdout: Option<Sink>,
        meter: &dyn Meter,
    ) -> Result<Done, SshError> {
        let closed = || SshError::Closed { host: self.login.place() };
        let (done, mut answer) = oneshot::channel();
        let watch = Watch::default();
        let _waiting;
        match &self.by {
            By::Thread { jobs, wake } => {
                let job = Job { command: command.to_owned(), stdin, stdout, watch: watch.clone(), done };
                _waiting = Waiting { watch: watch.clone(), wake: Some(wake) };
                jobs.send(job).map_err(|_| closed())?;
            }
            By::Program(program) => {
                let (moved, dropped) = (watch.moved.clone(), watch.dropped.clone());
                let session = program::Session { command: command.to_owned(), stdin, stdout, moved, dropped };
                _waiting = Waiting { watch: watch.clone(), wake: None };
                let program = program.clone();
                let run = move || drop(done.send(program.run(session)));
                std::thread::Builder::new().name("ssh".to_owned()).spawn(run).map_err(SshError::Setup)?;
            }
        }
        let mut told = 0;
        let mut tell = || {
            let moved = watch.moved.load(Ordering::Relaxed);
            if moved > told {
                meter.add(moved - told);
                told = moved;
            }
        };
        loop {
            tokio::select! {
                biased;
                ended = &mut answer => {
                    tell();
                    return ended.unwrap_or_else(|_| Err(closed()));
                }
                () = tokio::time::sleep(TELL) => tell(),
            }
        }
    }

    /// Runs a command and returns what it printed, which has to be text of moderate length.
    pub async fn ask(&self, command: &str) -> Result<(Done, String), SshError> {
        let said = Collected::default();
        let done = self.run(command, None, Some(Box::new(said.clone())), &crate::net::Silent).await?;
        Ok((done, said.text()))
    }
}

/// What a command printed, up to 1 MiB.
#[derive(Clone, Default)]
pub struct Collected(Arc<std::sync::Mutex<Vec<u8>>>);

impl Collected {
    const MOST: usize = 1 << 20;

    /// It, as text.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl std::io::Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut held = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if held.len() + bytes.len() > Self::MOST {
            return Err(std::io::Error::other("it printed more than 1 MiB"));
        }
        held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The thread: opens the session, then runs what comes, until nobody can ask any more or something fails.
#[expect(clippy::needless_pass_by_value, reason = "the thread owns the connection: it is closed when the thread ends")]
fn serve(
    tcp: TcpStream,
    login: &Login,
    woken: &UnixStream,
    queue: &mpsc::Receiver<Job>,
    opened: oneshot::Sender<Result<(), SshError>>,
) {
    // libssh2 keeps the connection; this one is for waiting on it.
    let opening = tcp.try_clone().map_err(SshError::Setup).and_then(|tcp| open(tcp, login));
    let session = match opening {
        Ok(session) => session,
        Err(error) => {
            // Whoever asked may be gone; then nobody needs to know.
            let _unheard = opened.send(Err(error));
            return;
        }
    };
    if opened.send(Ok(())).is_err() {
        return;
    }
    loop {
        match queue.recv_timeout(Duration::from_secs(u64::from(KEEPALIVE))) {
            Ok(mut job) if !job.watch.dropped.load(Ordering::Acquire) => {
                let ended = pump(&session, &tcp, woken, login, &mut job);
                let failed = ended.is_err();
                // Before the answer, so that what was written is where it belongs when the answer is there.
                (job.stdin, job.stdout) = (None, None);
                let _unheard = job.done.send(ended);
                if failed {
                    return;
                }
            }
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if session.keepalive_send().is_err() {
                    return;
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                say_goodbye(&session);
                return;
            }
        }
    }
}

fn say_goodbye(session: &Session) {
    // The connection ends either way.
    let _gone = session.disconnect(None, "done", None);
}
