//! A TCP connection that can break, and that isn't faster than it is told.
//!
//! Must not know: what is said on it. Start at [`Wire`].

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::world::World;

/// Naps shorter than that are saved up.
const SHORTEST: Duration = Duration::from_millis(5);
/// No nap is longer.
const LONGEST: Duration = Duration::from_secs(5);

/// The handle that breaks a connection; clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct Cut(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    done: AtomicBool,
    told: Notify,
}

impl Cut {
    /// Breaks it.
    pub fn now(&self) {
        self.0.done.store(true, Ordering::Relaxed);
        self.0.told.notify_one();
    }

    /// Waits until it breaks. Whoever serves the connection drops it then.
    pub async fn happens(&self) {
        self.0.told.notified().await;
    }

    /// Breaks it and never returns: what a request does that gets no answer.
    pub async fn instead_of_an_answer<T>(&self) -> T {
        self.now();
        std::future::pending().await
    }
}

/// A TCP connection. When it is dropped after its [`Cut`], the other side sees a reset, not an end.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    cut: Cut,
    reads: Pace,
    writes: Pace,
}

/// Bytes a second in one direction.
#[derive(Debug, Default)]
struct Pace {
    rate: Option<f64>,
    owed: Duration,
    nap: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    fn poll_rested(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Some(nap) = &mut self.nap {
            std::task::ready!(nap.as_mut().poll(context));
            self.nap = None;
        }
        Poll::Ready(())
    }

    fn moved(&mut self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        self.owed += World::flowing(bytes, rate);
        if self.owed >= SHORTEST {
            // Never so long that the other side is taken for silent; the rest is slept off with what comes next.
            let now = self.owed.min(LONGEST);
            self.owed -= now;
            self.nap = Some(Box::pin(tokio::time::sleep(now)));
        }
    }
}

impl Wire {
    /// A connection at full speed.
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, cut: Cut::default(), reads: Pace::default(), writes: Pace::default() }
    }

    /// What it reads comes at so many bytes a second at most.
    #[must_use]
    pub fn reading_at(mut self, rate: Option<f64>) -> Self {
        self.reads.rate = rate;
        self
    }

    /// What it writes goes at so many bytes a second at most.
    #[must_use]
    pub fn writing_at(mut self, rate: Option<f64>) -> Self {
        self.writes.rate = rate;
        self
    }

    /// What breaks it.
    pub fn cut(&self) -> Cut {
        self.cut.clone()
    }

    /// Whether the other side begins as in plain HTTP: how Go's server tells, when it expects TLS (net/http, `server.go`).
    pub async fn begins_as_http(&self) -> bool {
        let mut head = [0; 5];
        let methods = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
        matches!(self.stream.peek(&mut head).await, Ok(5)) && methods.contains(&&head)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.cut.0.done.load(Ordering::Relaxed) {
            // Without it the other side sees an ordinary end, which is nearly as bad.
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        std::task::ready!(self.reads.poll_rested(context));
        let before = buffer.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let bytes = buffer.filled().len() - before;
        self.reads.moved(bytes);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.writes.poll_rested(context));
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        if let Ok(bytes) = &written {
            self.writes.moved(*bytes);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.writes.poll_rested(context));
        let written = std::task::ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        if let Ok(bytes) = &written {
            self.writes.moved(*bytes);
        }
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
