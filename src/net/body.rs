//! Bodies on their way out, of exactly known length.
//!
//! Purpose: hyper takes the length from here and writes it as `Content-Length`; a stream that gives more or less than it
//! announced breaks the request off instead of sending a wrong one. Must not know: what is sent.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Frame, SizeHint};

/// A stream of body bytes.
pub type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What a request carries.
pub enum Body {
    /// Nothing.
    Empty,
    /// These bytes.
    Exact(Bytes),
    /// A stream of exactly so many bytes; one more or one less breaks the request off.
    Stream {
        /// Its length in bytes.
        length: u64,
        /// The bytes.
        stream: ByteStream,
    },
}

/// What is known of a body on its way out.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) sent: AtomicU64,
    pub(super) failed: Mutex<Option<io::Error>>,
}

pub(super) enum Outgoing {
    Exact(Bytes),
    Stream { left: u64, stream: ByteStream },
}

impl Outgoing {
    pub(super) fn left(&self) -> u64 {
        match self {
            Self::Exact(bytes) => bytes.len() as u64,
            Self::Stream { left, .. } => *left,
        }
    }
}

impl From<Body> for Outgoing {
    fn from(body: Body) -> Self {
        match body {
            Body::Empty => Self::Exact(Bytes::new()),
            Body::Exact(bytes) => Self::Exact(bytes),
            Body::Stream { length, stream } => Self::Stream { left: length, stream },
        }
    }
}

/// A body of exactly known length.
pub(super) struct Sending {
    pub(super) body: Outgoing,
    pub(super) progress: Arc<Progress>,
}

impl Sending {
    fn fail(&self, kind: io::ErrorKind, text: String) -> io::Error {
        self.note(io::Error::new(kind, text.clone()));
        io::Error::new(kind, text)
    }

    fn note(&self, error: io::Error) {
        *self.progress.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        match &mut this.body {
            Outgoing::Exact(bytes) if bytes.is_empty() => Poll::Ready(None),
            Outgoing::Exact(bytes) => {
                let whole = std::mem::take(bytes);
                this.progress.sent.fetch_add(whole.len() as u64, Ordering::Relaxed);
                Poll::Ready(Some(Ok(Frame::data(whole))))
            }
            Outgoing::Stream { left, stream } => Poll::Ready(match std::task::ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(chunk)) => {
                    let length = chunk.len() as u64;
                    match left.checked_sub(length) {
                        Some(rest) => {
                            *left = rest;
                            this.progress.sent.fetch_add(length, Ordering::Relaxed);
                            Some(Ok(Frame::data(chunk)))
                        }
                        None => Some(Err(this
                            .fail(io::ErrorKind::InvalidData, "there is more to send than was announced".to_owned()))),
                    }
                }
                Some(Err(error)) => {
                    let told = io::Error::new(error.kind(), error.to_string());
                    this.note(error);
                    Some(Err(told))
                }
                None if *left > 0 => {
                    let text = format!("{left} bytes less to send than was announced");
                    Some(Err(this.fail(io::ErrorKind::UnexpectedEof, text)))
                }
                None => None,
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.left())
    }
}
