//! One command: its three streams moved side by side until it ends.
//!
//! Purpose: neither side ever waits for a stream that the other does not move. Runs on the connection's thread with
//! libssh2 in non-blocking mode; where nothing moves it waits in poll(2) for the socket or for the news that nobody
//! waits for the command any more.
//!
//! libssh2's rule that shapes the loop: a call that began to send a packet and got `EAGAIN` has to be repeated as it was
//! before anything else is sent (libssh2, `ssh2_transport_send`). [`Pump::whole`] sees to that.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{Channel, Session, Stream};

use super::connection::Job;
use super::error::SshError;
use super::open::{ANSWER_WITHIN, KEEPALIVE, is_sending};
use super::{Done, Input, Login, Sink};

/// libssh2 sends at most 32 700 bytes in a packet; more in hand saves nothing.
const PIECE: usize = 32 << 10;

/// How much of stderr is kept, from its end.
const COMPLAINTS: usize = 64 << 10;

/// Silence after which the host counts as gone: three keepalives without an answer.
const SILENT: Duration = Duration::from_secs(3 * KEEPALIVE as u64);

/// Reads in a row before the other direction gets its turn.
const TURN: usize = 32;

/// Starts the command, moves its streams, waits for its end. Blocking.
pub(super) fn pump(
    session: &Session,
    tcp: &TcpStream,
    woken: &UnixStream,
    login: &Login,
    job: &mut Job,
) -> Result<Done, SshError> {
    session.set_blocking(true);
    session.set_timeout(ANSWER_WITHIN);
    drain(woken);
    let host = login.place();
    let refused = |source: ssh2::Error| match source.code() {
        // LIBSSH2_ERROR_CHANNEL_FAILURE, _CHANNEL_REQUEST_DENIED: an answer. All else is about the connection.
        ssh2::ErrorCode::Session(-21 | -22) => SshError::Exec { host: host.clone(), source },
        _ => SshError::Lost { host: host.clone(), source: io::Error::other(source) },
    };
    let mut channel = session.channel_session().map_err(refused)?;
    channel.exec(&job.command).map_err(refused)?;
    session.set_blocking(false);
    let mut pump = Pump {
        session,
        tcp,
        woken,
        host: &host,
        stderr: channel.stderr(),
        channel: &mut channel,
        complaints: Vec::new(),
        buffer: vec![0; 2 * PIECE],
        quiet: Duration::ZERO,
        asked: Duration::ZERO,
        dropped: job.watch.dropped.clone(),
    };
    pump.all(job)?;
    let complaints = std::mem::take(&mut pump.complaints);
    session.set_blocking(true);
    if let Some(stdout) = &mut job.stdout {
        stdout.flush().map_err(SshError::Output)?;
    }
    let lost = |source: ssh2::Error| SshError::Lost { host: host.clone(), source: io::Error::other(source) };
    // The exit code comes before the channel is closed: only a closed channel's is one (libssh2 says 0 until then).
    channel.close().map_err(lost)?;
    channel.wait_close().map_err(lost)?;
    let signal = channel.exit_signal().ok().and_then(|signal| signal.exit_signal);
    let status = if signal.is_some() { 128 } else { channel.exit_status().map_err(lost)? };
    Ok(Done { status, signal, stderr: String::from_utf8_lossy(&complaints).into_owned() })
}

/// Forgets wake-ups of commands before this one.
fn drain(mut woken: &UnixStream) {
    let mut bytes = [0; 64];
    while woken.read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
}

struct Pump<'a> {
    session: &'a Session,
    tcp: &'a TcpStream,
    woken: &'a UnixStream,
    host: &'a str,
    channel: &'a mut Channel,
    stderr: Stream,
    complaints: Vec<u8>,
    buffer: Vec<u8>,
    /// How long the host was waited for since it last sent anything.
    quiet: Duration,
    /// At which point of that the last keepalive was sent.
    asked: Duration,
    /// Nobody waits for the command any more.
    dropped: Arc<AtomicBool>,
}

/// What is still to be sent.
struct Outgoing {
    reader: Option<Input>,
    piece: Vec<u8>,
    sent: usize,
    /// The command was told that nothing more comes.
    ended: bool,
}

impl Outgoing {
    fn new(reader: Option<Input>) -> Self {
        Self { reader, piece: Vec::with_capacity(PIECE), sent: 0, ended: false }
    }

    /// Has something in hand to send, unless there is no more.
    fn refill(&mut self) -> Result<bool, SshError> {
        if self.sent < self.piece.len() {
            return Ok(true);
        }
        let Some(reader) = &mut self.reader else { return Ok(false) };
        self.piece.resize(PIECE, 0);
        self.sent = 0;
        loop {
            match reader.read(&mut self.piece) {
                Ok(0) => {
                    self.piece.clear();
                    self.reader = None;
                    return Ok(false);
                }
                Ok(read) => {
                    self.piece.truncate(read);
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SshError::Input(error)),
            }
        }
    }
}

impl Pump<'_> {
    /// Moves bytes until the command has closed its output.
    fn all(&mut self, job: &mut Job) -> Result<(), SshError> {
        let mut outgoing = Outgoing::new(job.stdin.take());
        loop {
            self.wanted()?;
            let mut moved = self.take_output(job.stdout.as_mut(), &job.watch.moved)?;
            moved |= self.take_complaints()?;
            if self.channel.eof() {
                return Ok(());
            }
            moved |= self.give_input(&mut outgoing, &job.watch.moved)?;
            if !moved {
                self.wait(PollFlags::IN)?;
            }
        }
    }

    fn take_output(&mut self, mut sink: Option<&mut Sink>, moved: &AtomicU64) -> Result<bool, SshError> {
        for turn in 0..TURN {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.whole(|pump| pump.channel.read(&mut buffer));
            self.buffer = buffer;
            let Some(read) = read?.filter(|read| *read > 0) else { return Ok(turn > 0) };
            if let Some(sink) = &mut sink {
                sink.write_all(&self.buffer[..read]).map_err(SshError::Output)?;
                moved.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
        Ok(true)
    }

    fn take_complaints(&mut self) -> Result<bool, SshError> {
        let mut any = false;
        for _ in 0..TURN {
            let mut buffer = std::mem::take(&mut self.buffer);
            let read = self.whole(|pump| pump.stderr.read(&mut buffer));
            self.buffer = buffer;
            let Some(read) = read?.filter(|read| *read > 0) else { break };
            any = true;
            self.complaints.extend_from_slice(&self.buffer[..read]);
            let over = self.complaints.len().saturating_sub(COMPLAINTS);
            self.complaints.drain(..over);
        }
        Ok(any)
    }

    fn give_input(&mut self, outgoing: &mut Outgoing, moved: &AtomicU64) -> Result<bool, SshError> {
        let mut any = false;
        for _ in 0..TURN {
            if outgoing.ended {
                break;
            }
            if !outgoing.refill()? {
                if self.whole(|pump| pump.channel.send_eof().map_err(io::Error::from))?.is_none() {
                    break;
                }
                outgoing.ended = true;
                return Ok(true);
            }
            let rest = &outgoing.piece[outgoing.sent..];
            let Some(written) = self.whole(|pump| pump.channel.write(rest))?.filter(|written| *written > 0) else {
                break;
            };
            outgoing.sent += written;
            moved.fetch_add(written as u64, Ordering::Relaxed);
            any = true;
        }
        Ok(any)
    }

    /// Calls libssh2; none when there is nothing to do for it right now. A call that has begun to send is repeated until
    /// all of it is out.
    fn whole<T>(&mut self, mut call: impl FnMut(&mut Self) -> io::Result<T>) -> Result<Option<T>, SshError> {
        loop {
            match call(self) {
                Ok(result) => return Ok(Some(result)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !is_sending(self.session) {
                        return Ok(None);
                    }
                    self.wait(PollFlags::OUT)?;
                }
                Err(source) => return Err(SshError::Lost { host: self.host.to_owned(), source }),
            }
        }
    }

    /// Waits until the socket is ready for `what`, or someone wakes this thread. Sends keepalives meanwhile.
    fn wait(&mut self, what: PollFlags) -> Result<(), SshError> {
        let waiting = Timespec { tv_sec: 1, tv_nsec: 0 };
        let since = Instant::now();
        let mut ends = [PollFd::new(self.tcp, what), PollFd::new(self.woken, PollFlags::IN)];
        match poll(&mut ends, Some(&waiting)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(SshError::Setup(errno.into())),
        }
        if ends[0].revents().intersects(what | PollFlags::ERR | PollFlags::HUP) {
            (self.quiet, self.asked) = (Duration::ZERO, Duration::ZERO);
            return Ok(());
        }
        drain(self.woken);
        self.wanted()?;
        // Only time spent here counts: whoever reads or writes on this thread may take long.
        self.quiet += since.elapsed();
        if self.quiet > SILENT {
            return Err(SshError::Silent { host: self.host.to_owned(), after: SILENT });
        }
        // Only while nothing is half sent: a keepalive in between would tear the packet.
        if what == PollFlags::IN && self.quiet.saturating_sub(self.asked) > Duration::from_secs(u64::from(KEEPALIVE)) {
            self.asked = self.quiet;
            let failed = |source: ssh2::Error| SshError::Lost { host: self.host.to_owned(), source: source.into() };
            self.session.keepalive_send().map_err(failed)?;
        }
        Ok(())
    }

    fn wanted(&self) -> Result<(), SshError> {
        if self.dropped.load(Ordering::Acquire) {
            return Err(SshError::Closed { host: self.host.to_owned() });
        }
        Ok(())
    }
}
