//! Reads an xz file block by block, and decodes no block of zeros twice.
//!
//! Purpose: speed. 19 of 20 blocks of a Talos image are 1 MiB of zeros, and decoding those is nearly all the time that a
//! plain decoder takes. The imager's `xz -0 -T 0` writes independent blocks, and equal blocks are equal byte strings:
//! once a block was decoded, verified and found to be all zeros, every block of the very same bytes is zeros too.
//! Must not know: what the bytes are. Nothing is believed: the file is read from its beginning to its end, so that it can
//! be read while it arrives, and what follows the blocks has to be, byte for byte, the index and the footer of these blocks.
//! Streams may follow each other. Blocks without their sizes in their headers are left to the general decoder.
//!
//! A block whose content is merely stored is taken as it is (see `xz_stored`). Every other block is decoded by liblzma as
//! a stream of its own: the file's stream header, the block as it is, and an index and footer for just this block, so that
//! liblzma verifies its header, its check and both its sizes. CRC64, which is what the imager writes, is verified here,
//! with the processor's carry-less multiplication, which the bundled liblzma does without.

mod layout;
#[cfg(test)]
mod tests;

use std::io::{BufReader, Chain, Cursor, Read};
use std::ops::Range;

use super::input::Input;
use super::xz::{Checks, XzError, XzReader};
use super::xz_stored;
use layout::{CHECK, CRC64, Record, block_of, confirm_header, end_of_stream, padded};

/// The most blocks of one stream: what is known of each is kept until the index was compared.
const BLOCKS: usize = 1 << 20;
/// The longest block that is compared with the known block of zeros; of the imager's encoder that one has 252 bytes.
const SHORT: u64 = 4 << 10;
/// The longest block, in the file, that is held in memory to see whether its content is stored. The imager's have 1 MiB.
const HELD: u64 = 4 << 20;
/// The granularity in which runs of zeros are handed out.
const GRAIN: u64 = 4096;

const ENDS_EARLY: XzError = XzError::Damaged { what: "it ends too early" };
const SOMETHING_FOLLOWS: XzError = XzError::Damaged { what: "a check does not match, or something follows its end" };

type OneBlock = Chain<Chain<Cursor<[u8; 12]>, BufReader<std::io::Take<Input>>>, Cursor<Vec<u8>>>;

enum Current {
    /// So many zeros are still to be handed out.
    Zeros(u64),
    /// A block is being decoded.
    Decoding(Decoding),
    /// A verified block's content is handed out: these pieces of what is held are left, the next one last.
    Stored(Vec<Range<usize>>),
    /// The last byte of the file was seen.
    Ended,
}

/// A block on its way through liblzma.
struct Decoding {
    reader: Box<XzReader<OneBlock>>,
    record: Record,
    /// Where it begins in the file.
    at: u64,
    /// How many bytes are still to come.
    left: u64,
    /// Nothing but zeros came of it so far.
    only_zeros: bool,
    /// The check of what came of it, where it is not liblzma that verifies it.
    crc64: Option<crc64fast::Digest>,
}

/// An xz file whose blocks say how long they are.
pub(super) struct XzBlocks {
    input: Input,
    header: [u8; 12],
    /// Blocks of this stream so far.
    records: Vec<Record>,
    /// Where the next block begins.
    at: u64,
    current: Current,
    /// The bytes of a block that may be stored; kept for the next one's.
    held: Vec<u8>,
    /// The bytes of a block that was found to be zeros, with what they stand for.
    zeros: Option<(Record, Vec<u8>)>,
    #[cfg(test)]
    pub(super) decoded: usize,
}

impl XzBlocks {
    /// Begins to read. Fails with [`XzError::Unsuited`], here or later, where the general decoder has to do it.
    pub(super) fn open(input: Input) -> Result<Self, XzError> {
        let mut blocks = Self {
            input,
            header: [0; 12],
            records: Vec::new(),
            at: 0,
            current: Current::Zeros(0),
            held: Vec::new(),
            zeros: None,
            #[cfg(test)]
            decoded: 0,
        };
        blocks.open_stream()?;
        Ok(blocks)
    }

    /// Reads a stream's header.
    fn open_stream(&mut self) -> Result<(), XzError> {
        let header = self.exactly::<12>(self.at)?;
        confirm_header(&header)?;
        self.header = header;
        self.records.clear();
        self.at += self.header.len() as u64;
        Ok(())
    }

    fn exactly<const N: usize>(&self, at: u64) -> Result<[u8; N], XzError> {
        let mut bytes = [0; N];
        if self.input.fill_at(&mut bytes, at).map_err(XzError::Read)? < N {
            return Err(ENDS_EARLY);
        }
        Ok(bytes)
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>, XzError> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| ENDS_EARLY)?];
        if self.input.fill_at(&mut bytes, at).map_err(XzError::Read)? < bytes.len() {
            return Err(ENDS_EARLY);
        }
        Ok(bytes)
    }

    /// How many bytes from here on are known to be zeros, a multiple of 4096; they are skipped.
    pub(super) fn zeros(&mut self) -> Result<u64, XzError> {
        loop {
            match &mut self.current {
                Current::Zeros(0) => self.begin()?,
                Current::Zeros(left) => {
                    let whole = *left / GRAIN * GRAIN;
                    *left -= whole;
                    return Ok(whole);
                }
                Current::Stored(pieces) if pieces.is_empty() => self.begin()?,
                Current::Decoding(decoding) if decoding.left == 0 => {
                    // All of it was handed out: now its check, and what comes behind it.
                    if decoding.reader.read(&mut [0])? > 0 {
                        return Err(XzError::Damaged { what: "a block is longer than its header says" });
                    }
                    self.close_block()?;
                }
                Current::Decoding(_) | Current::Stored(_) | Current::Ended => return Ok(0),
            }
        }
    }

    /// Decodes into `out` and says how many bytes; 0 only after the last byte of the file was verified.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, XzError> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Current::Ended => return Ok(0),
                Current::Zeros(0) => self.begin()?,
                Current::Zeros(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
                    out[..length].fill(0);
                    *left -= length as u64;
                    return Ok(length);
                }
                Current::Stored(pieces) => {
                    let Some(piece) = pieces.last_mut() else {
                        self.begin()?;
                        continue;
                    };
                    let length = piece.len().min(out.len());
                    out[..length].copy_from_slice(&self.held[piece.start..piece.start + length]);
                    piece.start += length;
                    if piece.start == piece.end {
                        pieces.pop();
                    }
                    return Ok(length);
                }
                Current::Decoding(decoding) => {
                    let made = decoding.reader.read(out)?;
                    if made > 0 {
                        decoding.left = decoding.left.saturating_sub(made as u64);
                        decoding.only_zeros = decoding.only_zeros && is_zeros(&out[..made]);
                        if let Some(crc64) = &mut decoding.crc64 {
                            crc64.write(&out[..made]);
                        }
                        return Ok(made);
                    }
                    self.close_block()?;
                }
            }
        }
    }

    /// A block is verified to its end.
    fn close_block(&mut self) -> Result<(), XzError> {
        if let Current::Decoding(Decoding { record, at, only_zeros, crc64, .. }) = &self.current {
            // The check is the last field: what precedes it is padded, and it is a multiple of four long.
            if let Some(crc64) = crc64
                && self.exactly(at + padded(record.unpadded) - 8)? != crc64.sum64().to_le_bytes()
            {
                return Err(XzError::Damaged { what: "the check of a block does not match" });
            }
            if *only_zeros && record.unpadded <= SHORT && self.zeros.is_none() {
                self.zeros = Some((*record, self.bytes(*at, padded(record.unpadded))?));
            }
        }
        self.current = Current::Zeros(0);
        Ok(())
    }

    /// Goes on to what comes next: a block, or the end of the stream.
    fn begin(&mut self) -> Result<(), XzError> {
        let at = self.at;
        // Nearly all blocks are the one of zeros: a single read tells.
        if let Some((record, zeros)) = &self.zeros {
            let mut bytes = vec![0; zeros.len()];
            if self.input.fill_at(&mut bytes, at).map_err(XzError::Read)? == bytes.len() && bytes == *zeros {
                let record = *record;
                self.note(record)?;
                self.current = Current::Zeros(record.content);
                return Ok(());
            }
        }
        let [size] = self.exactly::<1>(at)?;
        if size == 0 {
            return self.end_stream();
        }
        let header = self.bytes(at, (u64::from(size) + 1) * 4)?;
        let record = block_of(&header, self.header[CHECK])?;
        self.note(record)?;
        if let Some(pieces) = self.stored(at, header.len(), record)? {
            self.current = Current::Stored(pieces);
            return Ok(());
        }
        #[cfg(test)]
        {
            self.decoded += 1;
        }
        let block = BufReader::with_capacity(64 << 10, self.input.from(at).take(padded(record.unpadded)));
        let stream = Cursor::new(self.header).chain(block).chain(Cursor::new(end_of_stream(&[record], self.header)));
        let (checks, crc64) = match self.header[CHECK] {
            CRC64 => (Checks::ByCaller, Some(crc64fast::Digest::new())),
            _ => (Checks::Verified, None),
        };
        let reader = Box::new(XzReader::new(stream, checks)?);
        let decoding = Decoding { reader, record, at, left: record.content, only_zeros: true, crc64 };
        self.current = Current::Decoding(decoding);
        Ok(())
    }

    /// The pieces of a block whose content is merely stored, the first one last; they lie in what is held.
    fn stored(&mut self, at: u64, header: usize, record: Record) -> Result<Option<Vec<Range<usize>>>, XzError> {
        let length = padded(record.unpadded);
        // One that gains anything from being packed isn't stored.
        if self.header[CHECK] != CRC64 || length > HELD || record.content >= record.unpadded {
            return Ok(None);
        }
        let mut held = std::mem::take(&mut self.held);
        held.resize(usize::try_from(length).map_err(|_| ENDS_EARLY)?, 0);
        let read = self.input.fill_at(&mut held, at).map_err(XzError::Read)?;
        self.held = held;
        if read < self.held.len() {
            return Err(ENDS_EARLY);
        }
        let compressed = usize::try_from(record.unpadded).map_err(|_| ENDS_EARLY)?.checked_sub(header + 8);
        let found = compressed.and_then(|compressed| xz_stored::pieces(&self.held, header, compressed, record.content));
        Ok(found.map(|mut pieces| {
            pieces.reverse();
            pieces
        }))
    }

    fn note(&mut self, record: Record) -> Result<(), XzError> {
        if self.records.len() >= BLOCKS {
            return Err(XzError::Refused { why: "it has more than a million blocks" });
        }
        self.records.push(record);
        self.at = self.at.checked_add(padded(record.unpadded)).ok_or(ENDS_EARLY)?;
        Ok(())
    }

    /// Compares what follows the blocks with the index and the footer that they must have, then looks for another stream.
    fn end_stream(&mut self) -> Result<(), XzError> {
        let expected = end_of_stream(&self.records, self.header);
        let mut at = self.at;
        let mut buffer = vec![0; 64 << 10];
        for piece in expected.chunks(buffer.len()) {
            let found = &mut buffer[..piece.len()];
            let read = self.input.fill_at(found, at).map_err(XzError::Read)?;
            if read < piece.len() {
                return Err(ENDS_EARLY);
            }
            if *found != *piece {
                return Err(XzError::Damaged { what: "its index is not that of its blocks" });
            }
            at += piece.len() as u64;
        }
        loop {
            let mut next = [0; 4];
            match self.input.fill_at(&mut next, at).map_err(XzError::Read)? {
                0 => {
                    self.at = at;
                    self.current = Current::Ended;
                    return Ok(());
                }
                4 if next == [0; 4] => at += 4,
                4 => break,
                _ => return Err(SOMETHING_FOLLOWS),
            }
        }
        self.at = at;
        self.open_stream().map_err(|error| match error {
            XzError::Damaged { .. } => SOMETHING_FOLLOWS,
            error => error,
        })?;
        // Another stream may have another check: its block of zeros is another one.
        self.zeros = None;
        self.current = Current::Zeros(0);
        Ok(())
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}
