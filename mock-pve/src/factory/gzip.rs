//! The one member that `pigz` writes: blocks that know nothing of each other, each up to a byte's end.
//!
//! A block of zeros has to be packed only once that way, as in `xz.rs`.

use std::io::{self, Read, Write};

use flate2::{Compress, Compression, FlushCompress};

use super::xz::fill;

const BLOCK: usize = 1 << 20;
/// Deflate, no name, no time, made on Unix.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
/// The last block: one with nothing in it.
const LAST: [u8; 2] = [3, 0];

/// Compresses all of `from` into `to`.
pub(super) fn compress(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut sum = crc32fast::Hasher::new();
    let mut total = 0_u64;
    let mut zeros: Option<(Vec<u8>, crc32fast::Hasher)> = None;
    let mut buffer = vec![0; BLOCK];
    to.write_all(&HEADER)?;
    loop {
        let length = fill(from, &mut buffer)?;
        if length == 0 {
            break;
        }
        let piece = &buffer[..length];
        total += length as u64;
        if length == BLOCK && piece.iter().all(|byte| *byte == 0) {
            let (packed, own) = match &mut zeros {
                Some(known) => known,
                none => none.insert((block(piece)?, hashed(piece))),
            };
            to.write_all(packed)?;
            sum.combine(own);
        } else {
            to.write_all(&block(piece)?)?;
            sum.update(piece);
        }
    }
    to.write_all(&LAST)?;
    to.write_all(&sum.finalize().to_le_bytes())?;
    // The length modulo 2³², as the format has it.
    to.write_all(&total.to_le_bytes()[..4])
}

fn hashed(piece: &[u8]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(piece);
    hasher
}

fn block(piece: &[u8]) -> io::Result<Vec<u8>> {
    let mut packer = Compress::new(Compression::fast(), false);
    // Room for what can't be made smaller, and for the mark at the end.
    let mut packed = Vec::with_capacity(piece.len() + piece.len() / 1000 + 1024);
    packer.compress_vec(piece, &mut packed, FlushCompress::Full).map_err(io::Error::other)?;
    if packer.total_in() == piece.len() as u64 && packed.len() < packed.capacity() {
        Ok(packed)
    } else {
        Err(io::Error::other("a block didn't fit"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_reader_gets_the_same_bytes_back() {
        let noise: Vec<u8> =
            (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
        for content in
            [Vec::new(), b"x".to_vec(), vec![0; 5 * BLOCK + 1], [noise.clone(), vec![0; 4 * BLOCK]].concat(), noise]
        {
            let mut packed = Vec::new();
            compress(&mut content.as_slice(), &mut packed).unwrap();
            let mut back = Vec::new();
            // One member, and nothing behind it.
            let mut reader = flate2::bufread::GzDecoder::new(packed.as_slice());
            reader.read_to_end(&mut back).unwrap();
            assert!(back == content && reader.into_inner().is_empty(), "{} bytes", content.len());
        }
    }
}
