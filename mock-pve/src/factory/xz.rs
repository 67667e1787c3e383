//! The container that `xz -0 -T0` writes: independent blocks of 1 MiB, both sizes in each block's header, CRC64.
//!
//! Written by hand around liblzma's raw LZMA2 coder, because a block of zeros then has to be coded only once, and the
//! bytes don't depend on the number of processors.

#![expect(clippy::cast_possible_truncation, reason = "bytes are cut out of words on purpose")]

use std::io::{self, Read, Write};

use xz2::stream::{Action, Filters, LzmaOptions, Status, Stream};

const BLOCK: usize = 1 << 20;
/// Preset 0's dictionary of 256 KiB as LZMA2 codes it.
const DICTIONARY: u8 = 0x0c;
/// Check id 4: CRC64.
const FLAGS: [u8; 2] = [0, 4];

/// Compresses all of `from` into `to`.
pub(super) fn compress(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut index = Vec::new();
    let mut zeros: Option<(Vec<u8>, u64)> = None;
    let mut buffer = vec![0; BLOCK];
    to.write_all(&[0xfd, b'7', b'z', b'X', b'Z', 0])?;
    to.write_all(&FLAGS)?;
    to.write_all(&crc32fast::hash(&FLAGS).to_le_bytes())?;
    loop {
        let length = fill(from, &mut buffer)?;
        if length == 0 {
            break;
        }
        let piece = &buffer[..length];
        let empty = length == BLOCK && piece.iter().all(|byte| *byte == 0);
        let (block, unpadded) = match zeros.take().filter(|_| empty) {
            Some(known) => known,
            None => block(piece)?,
        };
        to.write_all(&block)?;
        index.push((unpadded, length as u64));
        if empty {
            zeros = Some((block, unpadded));
        }
    }
    finish(&index, to)
}

fn finish(blocks: &[(u64, u64)], to: &mut impl Write) -> io::Result<()> {
    let mut index = vec![0];
    push_vli(&mut index, blocks.len() as u64);
    for (unpadded, length) in blocks {
        push_vli(&mut index, *unpadded);
        push_vli(&mut index, *length);
    }
    pad(&mut index);
    let crc = crc32fast::hash(&index);
    index.extend(crc.to_le_bytes());
    to.write_all(&index)?;
    let backward = u32::try_from(index.len() / 4 - 1).map_err(io::Error::other)?;
    let mut footer = backward.to_le_bytes().to_vec();
    footer.extend(FLAGS);
    to.write_all(&crc32fast::hash(&footer).to_le_bytes())?;
    to.write_all(&footer)?;
    to.write_all(b"YZ")
}

/// One block with header, padding and check, and its unpadded size for the index.
fn block(piece: &[u8]) -> io::Result<(Vec<u8>, u64)> {
    let coded = lzma2(piece)?;
    // The threaded coder reserves room for the largest sizes, so every header has 16 bytes.
    let mut header = vec![3, 0xc0];
    push_vli(&mut header, coded.len() as u64);
    push_vli(&mut header, piece.len() as u64);
    header.extend([0x21, 1, DICTIONARY]);
    header.resize(12, 0);
    let crc = crc32fast::hash(&header);
    let mut block = header;
    block.extend(crc.to_le_bytes());
    block.extend(&coded);
    let unpadded = block.len() as u64 + 8;
    pad(&mut block);
    block.extend(crc64(piece).to_le_bytes());
    Ok((block, unpadded))
}

fn lzma2(piece: &[u8]) -> io::Result<Vec<u8>> {
    let options = LzmaOptions::new_preset(0)?;
    let mut filters = Filters::new();
    filters.lzma2(&options);
    let mut stream = Stream::new_raw_encoder(&filters)?;
    let mut out = Vec::with_capacity(piece.len() + piece.len() / 16 + 1024);
    loop {
        let done = usize::try_from(stream.total_in()).map_err(io::Error::other)?;
        if stream.process_vec(&piece[done..], &mut out, Action::Finish)? == Status::StreamEnd {
            return Ok(out);
        }
        out.reserve(1 << 16);
    }
}

pub(super) fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..])? {
            0 => break,
            more => length += more,
        }
    }
    Ok(length)
}

fn push_vli(to: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        to.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    to.push((value & 0x7f) as u8);
}

fn pad(to: &mut Vec<u8>) {
    to.resize(to.len().next_multiple_of(4), 0);
}

const CRC64: [u64; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xc96c_5795_d787_0f42 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

fn crc64(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(!0, |crc, byte| CRC64[usize::from((crc as u8) ^ byte)] ^ crc >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_decodes_it_and_zero_blocks_are_all_alike() {
        let mut plain = vec![0; 5 * BLOCK + 12345];
        for (at, byte) in plain[BLOCK..BLOCK + 70_000].iter_mut().enumerate() {
            *byte = ((at * at) >> 3) as u8;
        }
        let mut packed = Vec::new();
        compress(&mut plain.as_slice(), &mut packed).unwrap();
        let mut back = Vec::new();
        xz2::read::XzDecoder::new(packed.as_slice()).read_to_end(&mut back).unwrap();
        assert!(back == plain);
        assert_eq!(crc64(b"123456789"), 0x995d_c9bb_df19_39fa);
    }
}
