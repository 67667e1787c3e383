//! Blocks of an xz file that hold their content as it is.
//!
//! Purpose: speed. The content of a Talos disk is compressed already, so that `xz -0` stores most of it, and what is stored
//! needs no decoder.
//! Must not know: files, streams. It gives no verdict: whatever it does not know, or finds wrong, is for the decoder.
//!
//! LZMA2: a chunk begins with 0 (the end), 1 (stored, a new dictionary), 2 (stored) or 0x80 and above (compressed); a stored
//! one goes on with its size less one as a big-endian u16, and that many bytes ("The .xz File Format" 1.2.1 §5.3.1;
//! `lzma2_decoder.c` of xz 5.4).

use std::ops::Range;

/// Where the content of a block lies in it, if all of it is stored and its CRC64 is right. `header` is the length of the
/// block's header, which says that `compressed` bytes follow and hold `content` bytes.
pub(super) fn pieces(block: &[u8], header: usize, compressed: usize, content: u64) -> Option<Vec<Range<usize>>> {
    let end = header.checked_add(compressed)?;
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let mut at = header;
    loop {
        match (block.get(at)?, pieces.is_empty()) {
            (0, _) => break,
            (1, _) | (2, false) => {}
            _ => return None,
        }
        let size = block.get(at + 1..at + 3)?;
        let start = at + 3;
        at = start + usize::from(u16::from_be_bytes([size[0], size[1]])) + 1;
        if at >= end {
            return None;
        }
        pieces.push(start..at);
    }
    let padded = end.next_multiple_of(4);
    let filled = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    if at + 1 != end || filled != content || block.get(end..padded)?.iter().any(|byte| *byte != 0) {
        return None;
    }
    let mut crc = crc64fast::Digest::new();
    for piece in &pieces {
        crc.write(&block[piece.clone()]);
    }
    (block.get(padded..)? == crc.sum64().to_le_bytes()).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A block of these chunks, each with its first byte: a header of twelve bytes, the chunks, the end, padding, CRC64.
    fn block(chunks: &[(u8, &[u8])]) -> (Vec<u8>, usize, Vec<u8>) {
        let (mut block, mut content) = (vec![0xee; 12], Vec::new());
        for (kind, bytes) in chunks {
            block.push(*kind);
            block.extend(u16::try_from(bytes.len() - 1).unwrap().to_be_bytes());
            block.extend_from_slice(bytes);
            content.extend_from_slice(bytes);
        }
        block.push(0);
        let compressed = block.len() - 12;
        block.resize(block.len().next_multiple_of(4), 0);
        let mut crc = crc64fast::Digest::new();
        crc.write(&content);
        block.extend(crc.sum64().to_le_bytes());
        (block, compressed, content)
    }

    fn taken(block: &[u8], compressed: usize, content: usize) -> Option<Vec<u8>> {
        let pieces = pieces(block, 12, compressed, content as u64)?;
        Some(pieces.into_iter().flat_map(|piece| block[piece].to_vec()).collect())
    }

    #[test]
    fn stored_chunks_are_taken_as_they_are() {
        let long = vec![7; 65536];
        for chunks in [vec![(1, &b"x"[..])], vec![(1, &long[..]), (2, b"abc"), (1, b"again"), (2, b"end")]] {
            let (block, compressed, content) = block(&chunks);
            assert_eq!(taken(&block, compressed, content.len()), Some(content));
        }
    }

    #[test]
    fn a_compressed_chunk_and_one_without_a_dictionary_are_left_to_the_decoder() {
        for kind in [2, 3, 0x7f, 0x80, 0xe0, 0xff] {
            let (block, compressed, content) = block(&[(kind, b"abc")]);
            assert_eq!(taken(&block, compressed, content.len()), None, "{kind}");
        }
    }

    #[test]
    fn every_bit_behind_the_header_and_every_length_counts() {
        let (block, compressed, content) = block(&[(1, b"some content"), (2, b"and more")]);
        for at in 12..block.len() {
            for bit in 0..8 {
                let mut damaged = block.clone();
                damaged[at] ^= 1 << bit;
                // Both kinds of stored chunk hold the same; only a decoder knows more.
                let same = taken(&damaged, compressed, content.len()).is_none_or(|taken| taken == content);
                assert!(same, "bit {bit} at {at}");
            }
            assert_eq!(taken(&block[..at], compressed, content.len()), None, "cut at {at}");
        }
        assert_eq!(taken(&block, compressed + 1, content.len()), None);
        assert_eq!(taken(&block, compressed - 1, content.len()), None);
        assert_eq!(taken(&block, compressed, content.len() + 1), None);
        assert_eq!(taken(&block, usize::MAX, content.len()), None);
    }
}
