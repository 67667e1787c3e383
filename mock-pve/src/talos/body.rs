//! Request bodies that say how they ended.
//!
//! A caller that breaks off resets its stream; the gRPC library gives that to a handler as an ordinary end, and half an
//! upload would look like a whole one. The original is told the difference, so this double has to look itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Whether the caller said all that it had to say.
#[derive(Clone, Debug, Default)]
pub(super) struct Ended(Arc<AtomicBool>);

impl Ended {
    pub(super) fn cleanly(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A body, watched.
pub(super) struct Watched {
    body: Incoming,
    ended: Ended,
}

impl Watched {
    pub(super) fn new(body: Incoming) -> (Self, Ended) {
        let ended = Ended::default();
        (Self { body, ended: ended.clone() }, ended)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) {
            self.ended.0.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.body.is_end_stream() {
            self.ended.0.store(true, Ordering::Release);
            return true;
        }
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
