//! Decodes zstd, strictly: every frame must carry the checksum of its content, and nothing but frames is in the file.
//!
//! Must not know: what the bytes are. The format: RFC 8878.

use std::io::{self, BufRead, Chain, Cursor, Read};

use zstd::stream::read::Decoder;

/// A window of 32 MiB at most: `zstd -18` needs 8, and memory stays bounded.
const WINDOW_LOG: u32 = 25;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

type Frame<R> = Chain<Cursor<Vec<u8>>, R>;

/// A strict decoder over a buffered reader.
pub(super) struct ZstdFrames<R: BufRead> {
    state: State<R>,
}

enum State<R: BufRead> {
    /// Between frames.
    Between(R),
    /// In one.
    Within(Decoder<'static, Frame<R>>),
    /// After the last one, or after an error.
    Ended,
}

impl<R: BufRead> ZstdFrames<R> {
    /// Begins to decode.
    pub(super) fn new(inner: R) -> Self {
        Self { state: State::Between(inner) }
    }

    /// Decodes into `out` and says how many bytes; 0 only at the proven end of the file.
    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Ended) {
                State::Ended => return Ok(0),
                State::Between(inner) => match begin(inner)? {
                    Some(decoder) => self.state = State::Within(decoder),
                    None => return Ok(0),
                },
                State::Within(mut decoder) => {
                    let made = decoder.read(out)?;
                    if made > 0 {
                        self.state = State::Within(decoder);
                        return Ok(made);
                    }
                    // The few bytes in front of the rest were read when the frame began.
                    self.state = State::Between(decoder.finish().into_inner().1);
                }
            }
        }
    }
}

/// The next frame; none at the end of the file.
fn begin<R: BufRead>(mut inner: R) -> io::Result<Option<Decoder<'static, Frame<R>>>> {
    let mut head = Vec::with_capacity(5);
    while head.len() < 5 {
        let input = inner.fill_buf()?;
        if input.is_empty() {
            break;
        }
        let length = input.len().min(5 - head.len());
        head.extend_from_slice(&input[..length]);
        inner.consume(length);
    }
    if head.is_empty() {
        return Ok(None);
    }
    // A skippable frame holds no content.
    let skippable = head.len() >= 4 && (0x50..=0x5f).contains(&head[0]) && head[1..4] == [0x2a, 0x4d, 0x18];
    if !skippable {
        if head.len() < 5 || head[..4] != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "something follows its end"));
        }
        if head[4] & 0x04 == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has no integrity check"));
        }
    }
    let mut decoder = Decoder::with_buffer(Cursor::new(head).chain(inner))?.single_frame();
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(Some(decoder))
}

#[cfg(test)]
mod tests {
    use super::super::walker::tests::odd_disk;
    use super::*;

    pub(crate) fn zst(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        io::Write::write_all(&mut encoder, bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (mut reader, mut all, mut buffer) = (ZstdFrames::new(bytes), Vec::new(), vec![0; 300_000]);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(all),
                made => all.extend_from_slice(&buffer[..made]),
            }
        }
    }

    #[test]
    fn frames_may_follow_each_other_and_nothing_else_may() {
        let file = zst(&odd_disk());
        assert!(decode(&file).unwrap() == odd_disk());
        assert!(decode(&[&file[..], &file].concat()).unwrap() == [odd_disk(), odd_disk()].concat());
        for wrong in [&[0; 4][..], b"x", b"some more text", &file[..5], &file[..file.len() - 1]] {
            assert!(decode(&[&file[..], wrong].concat()).is_err(), "{wrong:?}");
        }
        for cut in [1, 4, 5, 9, file.len() / 2, file.len() - 4, file.len() - 1] {
            assert!(decode(&file[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_frame_without_a_checksum_is_refused() {
        let file = zstd::stream::encode_all(&odd_disk()[..], 3).unwrap();
        assert!(decode(&file).unwrap_err().to_string().contains("no integrity check"));
    }
}
