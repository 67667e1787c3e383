//! Decodes xz, strictly.
//!
//! Purpose: hand out the bytes in an `.xz` file and end without an error only when the whole file was well formed: every
//! block's check verified, index and footer read, nothing but streams in it (several are fine: the format allows it).
//! Must not know: what the bytes are.

use std::io::BufRead;

use xz2::stream::{Action, CONCATENATED, Error, IGNORE_CHECK, Status, Stream, TELL_NO_CHECK, TELL_UNSUPPORTED_CHECK};

/// The most memory a decoder may ask for. The imager's `xz -0` needs 0.3 MiB, `xz -6` 9 MiB, `xz -8` 33 MiB.
pub(super) const MEMORY: u64 = 40 << 20;

/// Why an xz file was refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum XzError {
    /// The file could not be read.
    #[error("could not read it")]
    Read(#[source] std::io::Error),
    /// The content is not what the encoder wrote.
    #[error("the xz data is damaged: {what}")]
    Damaged {
        /// What was noticed.
        what: &'static str,
    },
    /// It is xz, but made in a way that isn't accepted.
    #[error("the xz data is refused: {why}")]
    Refused {
        /// Why.
        why: &'static str,
    },
    /// It may be sound, but not block by block: the general decoder has to say.
    #[error("the xz data has blocks of unknown size")]
    Unsuited,
}

impl From<Error> for XzError {
    fn from(error: Error) -> Self {
        match error {
            Error::Data => Self::Damaged { what: "a check does not match, or something follows its end" },
            Error::Format => Self::Damaged { what: "not an xz header" },
            Error::NoCheck => Self::Refused { why: "it has no integrity check" },
            Error::UnsupportedCheck => Self::Refused { why: "its integrity check is unknown" },
            Error::Options => Self::Refused { why: "it uses an unknown filter or option" },
            Error::MemLimit | Error::Mem => Self::Refused { why: "decoding it takes more than 40 MiB of memory" },
            Error::Program => Self::Refused { why: "the decoder failed" },
        }
    }
}

/// Who verifies the checks of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    /// The reader does.
    Verified,
    /// Whoever reads does.
    ByCaller,
}

/// A strict xz decoder over a buffered reader.
pub(super) struct XzReader<R> {
    inner: R,
    stream: Stream,
    ended: bool,
}

impl<R: BufRead> XzReader<R> {
    /// Begins to decode.
    pub(super) fn new(inner: R, checks: Checks) -> Result<Self, XzError> {
        let checks = match checks {
            Checks::Verified => TELL_NO_CHECK | TELL_UNSUPPORTED_CHECK,
            Checks::ByCaller => IGNORE_CHECK,
        };
        let stream = Stream::new_stream_decoder(MEMORY, CONCATENATED | checks)?;
        Ok(Self { inner, stream, ended: false })
    }

    /// Decodes into `out` and says how many bytes; 0 only at the proven end of the file.
    #[expect(clippy::cast_possible_truncation, reason = "differences of counters within one call fit the buffers")]
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, XzError> {
        while !self.ended && !out.is_empty() {
            let input = self.inner.fill_buf().map_err(XzError::Read)?;
            let at_end = input.is_empty();
            let (taken_before, made_before) = (self.stream.total_in(), self.stream.total_out());
            // The decoder may call the file complete only when it is told that no more comes.
            let status = self.stream.process(input, out, if at_end { Action::Finish } else { Action::Run })?;
            let made = (self.stream.total_out() - made_before) as usize;
            self.inner.consume((self.stream.total_in() - taken_before) as usize);
            self.ended = matches!(status, Status::StreamEnd);
            if made > 0 {
                return Ok(made);
            }
            if at_end && !self.ended {
                return Err(XzError::Damaged { what: "it ends too early" });
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::{any, proptest};
    use xz2::stream::{Check, Filters, LzmaOptions};
    use xz2::write::XzEncoder;

    use super::*;

    fn decode(file: &[u8]) -> Result<Vec<u8>, XzError> {
        let mut reader = XzReader::new(file, Checks::Verified)?;
        let (mut all, mut buffer) = (Vec::new(), [0; 1000]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(all),
                made => all.extend_from_slice(&buffer[..made]),
            }
        }
    }

    fn stream(bytes: &[u8], check: Check) -> Vec<u8> {
        let mut filters = Filters::new();
        filters.lzma2(&LzmaOptions::new_preset(0).unwrap());
        let mut encoder = XzEncoder::new_stream(Vec::new(), Stream::new_stream_encoder(&filters, check).unwrap());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Text, zeros and noise: matches, runs and stored chunks.
    fn content() -> Vec<u8> {
        let mut content: Vec<u8> = b"partition ".iter().copied().cycle().take(2000).collect();
        content.resize(20_000, 0);
        let mut state = 0x9e37_79b9_u32;
        content.extend(
            std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state.to_le_bytes()[0]
            })
            .take(400),
        );
        content
    }

    fn two_streams() -> Vec<u8> {
        let content = content();
        let (first, second) = content.split_at(9000);
        [stream(first, Check::Crc64), stream(second, Check::Crc64)].concat()
    }

    #[test]
    fn several_streams_are_one_content() {
        assert_eq!(decode(&two_streams()).unwrap(), content());
    }

    #[test]
    fn an_empty_file_and_one_without_checks_are_refused() {
        assert!(matches!(decode(b""), Err(XzError::Damaged { .. })));
        assert!(matches!(decode(&stream(&content(), Check::None)), Err(XzError::Refused { .. })));
    }

    #[test]
    fn every_truncation_is_refused_unless_it_is_a_whole_stream() {
        let file = two_streams();
        let first = stream(&content()[..9000], Check::Crc64).len();
        for cut in (0..file.len()).filter(|cut| *cut != first) {
            assert!(decode(&file[..cut]).is_err(), "cut at {cut} of {} was taken", file.len());
        }
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let file = two_streams();
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            assert!(decode(&damaged).is_err(), "a flip at {at} of {} was taken", file.len());
        }
    }

    proptest! {
        #[test]
        fn appended_garbage_is_refused(garbage in proptest::collection::vec(any::<u8>(), 1..64)) {
            // Zeros in fours are stream padding, which the format allows.
            if garbage.iter().any(|byte| *byte != 0) || garbage.len() % 4 != 0 {
                proptest::prop_assert!(decode(&[two_streams(), garbage].concat()).is_err());
            }
        }

        #[test]
        fn any_flip_is_refused(at in any::<proptest::sample::Index>(), bits in 1..=255_u8) {
            let mut file = two_streams();
            let at = at.index(file.len());
            file[at] ^= bits;
            proptest::prop_assert!(decode(&file).is_err());
        }
    }
}
