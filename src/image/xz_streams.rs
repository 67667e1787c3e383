//! Decodes any xz file on several threads, as strictly as [`XzReader`](super::xz::XzReader).
//!
//! Purpose: the general decoder, for files that [`XzBlocks`](super::xz_blocks::XzBlocks) can't walk: blocks without their
//! sizes, other filters. liblzma decodes blocks with sizes side by side, and any other with one thread.
//! Must not know: what the bytes are.
//!
//! liblzma's decoder with threads takes one stream and looks at no flag, so what the flags of the other decoder say is
//! said here: streams may follow each other, with padding between them, and each must have a check that is known.

use std::io::BufRead;

use xz2::stream::{Action, MtStreamBuilder, Status, Stream};

use super::xz::{MEMORY, XzError};

const HEADER: usize = 12;
const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
/// CRC32, CRC64, SHA-256 ("The .xz File Format", 2.1.1.2).
const CHECKS: [u8; 3] = [1, 4, 10];

/// A strict decoder of one stream after the other.
pub(super) struct XzStreams<R> {
    inner: R,
    stream: Option<Stream>,
    /// The header of the stream, as far as it wasn't given to the decoder yet.
    header: Vec<u8>,
    first: bool,
    threads: u32,
}

impl<R: BufRead> XzStreams<R> {
    /// Begins to decode.
    pub(super) fn new(inner: R) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4));
        Self { inner, stream: None, header: Vec::new(), first: true, threads: u32::try_from(threads).unwrap_or(1) }
    }

    /// Decodes into `out` and says how many bytes; 0 only at the proven end of the file.
    #[expect(clippy::cast_possible_truncation, reason = "differences of counters within one call fit the buffers")]
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, XzError> {
        while !out.is_empty() {
            if self.stream.is_none() && !self.open()? {
                return Ok(0);
            }
            let Some(stream) = &mut self.stream else { return Ok(0) };
            let from_header = !self.header.is_empty();
            let input = if from_header { &self.header[..] } else { self.inner.fill_buf().map_err(XzError::Read)? };
            let at_end = input.is_empty();
            let (taken_before, made_before) = (stream.total_in(), stream.total_out());
            let status = stream.process(input, out, if at_end { Action::Finish } else { Action::Run })?;
            let (taken, made) =
                ((stream.total_in() - taken_before) as usize, (stream.total_out() - made_before) as usize);
            if from_header {
                self.header.drain(..taken);
            } else {
                self.inner.consume(taken);
            }
            let ended = matches!(status, Status::StreamEnd);
            if ended {
                self.stream = None;
            }
            if made > 0 {
                return Ok(made);
            }
            if at_end && !ended {
                return Err(XzError::Damaged { what: "it ends too early" });
            }
        }
        Ok(0)
    }

    /// Looks for the next stream; there need not be one after the first.
    fn open(&mut self) -> Result<bool, XzError> {
        let mut header = [0; HEADER];
        loop {
            let filled = self.take(&mut header[..4])?;
            match filled {
                0 if self.first => return Err(XzError::Damaged { what: "it ends too early" }),
                0 => return Ok(false),
                4 if !self.first && header[..4] == [0; 4] => {}
                4 => break,
                _ => return Err(XzError::Damaged { what: "something follows its end" }),
            }
        }
        if self.take(&mut header[4..])? < HEADER - 4 || header[..6] != MAGIC {
            return Err(XzError::Damaged {
                what: if self.first { "not an xz header" } else { "something follows its end" },
            });
        }
        match header[7] & 0x0f {
            0 => return Err(XzError::Refused { why: "it has no integrity check" }),
            check if !CHECKS.contains(&check) => {
                return Err(XzError::Refused { why: "its integrity check is unknown" });
            }
            _ => {}
        }
        let mut decoder = MtStreamBuilder::new();
        decoder.threads(self.threads).memlimit_threading(MEMORY).memlimit_stop(MEMORY);
        self.stream = Some(decoder.decoder()?);
        self.header = header.to_vec();
        self.first = false;
        Ok(true)
    }

    fn take(&mut self, out: &mut [u8]) -> Result<usize, XzError> {
        let mut filled = 0;
        while filled < out.len() {
            let input = self.inner.fill_buf().map_err(XzError::Read)?;
            let length = input.len().min(out.len() - filled);
            if length == 0 {
                break;
            }
            out[filled..filled + length].copy_from_slice(&input[..length]);
            self.inner.consume(length);
            filled += length;
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::super::walker::tests::{odd_disk, xz};
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, XzError> {
        let (mut reader, mut all, mut buffer) = (XzStreams::new(bytes), Vec::new(), vec![0; 300_000]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(all),
                made => all.extend_from_slice(&buffer[..made]),
            }
        }
    }

    #[test]
    fn streams_may_follow_each_other_and_nothing_else_may() {
        let file = xz(&odd_disk());
        let twice = [odd_disk(), odd_disk()].concat();
        assert!(decode(&file).unwrap() == odd_disk());
        assert!(decode(&[&file[..], &file].concat()).unwrap() == twice);
        assert!(decode(&[&file[..], &[0; 8], &file, &[0; 4]].concat()).unwrap() == twice);
        for wrong in [&[0; 3][..], b"xyz!", &file[..11], &file[..file.len() - 1]] {
            assert!(decode(&[&file[..], wrong].concat()).is_err(), "{wrong:?}");
        }
        assert!(decode(b"").is_err());
    }

    #[test]
    fn a_stream_without_a_known_check_is_refused() {
        let mut stream = xz2::stream::Stream::new_easy_encoder(0, xz2::stream::Check::None).unwrap();
        let mut file = Vec::with_capacity(1000);
        stream.process_vec(b"nothing proves this", &mut file, Action::Finish).unwrap();
        assert!(matches!(decode(&file), Err(XzError::Refused { .. })));
    }

    #[test]
    fn no_flipped_byte_of_a_small_file_goes_unnoticed() {
        let file = xz(&odd_disk()[..200_000]);
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x04;
            assert!(decode(&damaged).is_err(), "a flip at {at}");
        }
    }
}
