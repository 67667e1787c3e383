//! Streams that lack their end.
//!
//! Purpose: what a caller gets whose connection, proxy or server gave up before all was said. Must not know: what is
//! streamed. Start at [`Short::pass`].

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::Frame;

use crate::world::script::Ends;

/// Before every message: whether it is packed, and its length in four bytes.
const PREFIX: usize = 5;

/// A stream on its way, of which the last messages are held back.
pub(super) struct Short {
    messages: usize,
    ends: Ends,
    held: VecDeque<Bytes>,
}

impl Short {
    /// So many messages are missing, and that is how it ends.
    pub(super) fn new(messages: usize, ends: Ends) -> Self {
        Self { messages, ends, held: VecDeque::new() }
    }

    /// What is passed on of a frame (the library puts whole messages into one): all but the last, and what comes behind them.
    pub(super) fn pass(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        match frame.into_data() {
            Ok(mut piece) => {
                while let Some(length) = length(&piece).filter(|length| *length <= piece.len()) {
                    self.held.push_back(piece.split_to(length));
                }
                let free = self.held.len().saturating_sub(self.messages);
                let mut passed = BytesMut::new();
                self.held.drain(..free).for_each(|message| passed.extend_from_slice(&message));
                Frame::data(passed.freeze())
            }
            Err(frame) => match (frame.into_trailers(), self.ends) {
                (Ok(_), Ends::Broken) => {
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("14"));
                    trailers.insert("grpc-message", HeaderValue::from_static("error reading from server: EOF"));
                    Frame::trailers(trailers)
                }
                (Ok(trailers), Ends::Well) => Frame::trailers(trailers),
                (Err(frame), _) => frame,
            },
        }
    }
}

/// How long the first message is, with what stands before it.
fn length(piece: &[u8]) -> Option<usize> {
    let (prefix, _) = piece.split_at_checked(PREFIX)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    usize::try_from(length).ok()?.checked_add(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap();
        [&[0], length.to_be_bytes().as_slice(), text.as_bytes()].concat()
    }

    #[test]
    fn the_last_messages_are_missing_however_they_come() {
        let mut short = Short::new(2, Ends::Well);
        let pieces =
            [[message("a"), message("b")].concat(), message("c"), Vec::new(), [message(""), message("e")].concat()];
        let mut passed = Vec::new();
        for piece in pieces {
            passed.extend(short.pass(Frame::data(piece.into())).into_data().unwrap());
        }
        assert_eq!(passed, [message("a"), message("b"), message("c")].concat());
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        for (ends, code) in [(Ends::Well, "0"), (Ends::Broken, "14")] {
            let frame = Short::new(1, ends).pass(Frame::trailers(trailers.clone()));
            assert_eq!(frame.into_trailers().unwrap()["grpc-status"], code);
        }
    }
}
