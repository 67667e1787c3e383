//! Reads an xz file block by block, and decodes no block of zeros twice.
//!
//! Purpose: speed. 19 of 20 blocks of a Talos image are 1 MiB of zeros, and decoding those is nearly all the time that a
//! plain decoder takes. The imager's `xz -0 -T 0` writes independent blocks, and equal blocks are equal byte strings:
//! once a block was decoded, verified and found to be all zeros, every block of the very same bytes is zeros too.
//! Must not know: what the bytes are. Nothing is believed: what isn't a single stream with a sound index over the whole
//! file is left to the general decoder, which says what is wrong with it.
//!
//! Every other block is decoded by liblzma as a stream of its own: the file's stream header, the block as it is, and an
//! index and footer for just this block, so that liblzma verifies its header, its check and both its sizes.
//!
//! The format: "The .xz File Format" 1.2.1 (tukaani.org/xz/xz-file-format.txt).

use std::fs::File;
use std::io::{BufReader, Chain, Cursor, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use super::xz::{XzError, XzReader};

const HEADER: u64 = 12;
const FOOTER: u64 = 12;
/// The largest index that is read: a million blocks.
const INDEX: u64 = 16 << 20;
/// The longest block that is compared with the known block of zeros; of the imager's encoder that one has 252 bytes.
const SHORT: u64 = 4 << 10;

/// One block, as the index has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    /// Bytes in the file, without the padding to a multiple of four.
    unpadded: u64,
    /// Bytes it decodes to.
    content: u64,
}

/// A part of the file as a reader.
struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let read = self.file.read_at(&mut out[..length], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

type OneBlock = Chain<Chain<Cursor<[u8; 12]>, BufReader<Section>>, Cursor<Vec<u8>>>;

enum Current {
    /// So many zeros are still to be handed out.
    Zeros(u64),
    /// A block is being decoded; nothing but zeros came of it so far, or something else did.
    Decoding { reader: Box<XzReader<OneBlock>>, record: Record, at: u64, only_zeros: bool },
}

/// An xz file of one stream whose blocks are known.
pub(super) struct XzBlocks {
    file: Arc<File>,
    header: [u8; 12],
    records: std::vec::IntoIter<Record>,
    /// Where the next block begins.
    at: u64,
    current: Current,
    /// The bytes of a block that was found to be zeros, with its record.
    zeros: Option<(Record, Vec<u8>)>,
    #[cfg(test)]
    pub(super) decoded: usize,
}

impl XzBlocks {
    /// The file's blocks, if it is a single stream with a sound index; the file itself if not.
    pub(super) fn open(file: File) -> Result<Self, File> {
        let Some((header, records)) = read_records(&file) else { return Err(file) };
        Ok(Self {
            file: Arc::new(file),
            header,
            records: records.into_iter(),
            at: HEADER,
            current: Current::Zeros(0),
            zeros: None,
            #[cfg(test)]
            decoded: 0,
        })
    }

    /// Decodes into `out` and says how many bytes; 0 only after the last block was verified.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, XzError> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.current {
                Current::Zeros(0) => match self.records.next() {
                    None => return Ok(0),
                    Some(record) => self.begin(record)?,
                },
                Current::Zeros(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(out.len());
                    out[..length].fill(0);
                    *left -= length as u64;
                    return Ok(length);
                }
                Current::Decoding { reader, record, at, only_zeros } => {
                    let made = reader.read(out)?;
                    if made > 0 {
                        *only_zeros = *only_zeros && is_zeros(&out[..made]);
                        return Ok(made);
                    }
                    // The block is verified to its end.
                    if *only_zeros && record.unpadded <= SHORT && self.zeros.is_none() {
                        let (record, at) = (*record, *at);
                        self.zeros = Some((record, self.bytes(record, at)?));
                    }
                    self.current = Current::Zeros(0);
                }
            }
        }
    }

    fn begin(&mut self, record: Record) -> Result<(), XzError> {
        let at = self.at;
        self.at += padded(record.unpadded);
        let alike = self.zeros.as_ref().is_some_and(|(zeros, _)| *zeros == record);
        if alike {
            let bytes = self.bytes(record, at)?;
            if self.zeros.as_ref().is_some_and(|(_, zeros)| *zeros == bytes) {
                self.current = Current::Zeros(record.content);
                return Ok(());
            }
        }
        #[cfg(test)]
        {
            self.decoded += 1;
        }
        let section = Section { file: self.file.clone(), at, left: padded(record.unpadded) };
        let block = BufReader::with_capacity(64 << 10, section);
        let stream = Cursor::new(self.header).chain(block).chain(Cursor::new(end_of_stream(record, self.header)));
        let reader = Box::new(XzReader::new(stream)?);
        self.current = Current::Decoding { reader, record, at, only_zeros: true };
        Ok(())
    }

    /// A short block's bytes with their padding.
    fn bytes(&self, record: Record, at: u64) -> Result<Vec<u8>, XzError> {
        let mut bytes = vec![0; usize::try_from(padded(record.unpadded)).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, at).map_err(XzError::Read)?;
        Ok(bytes)
    }
}

fn is_zeros(bytes: &[u8]) -> bool {
    static ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|chunk| *chunk == ZEROS[..chunk.len()])
}

fn padded(unpadded: u64) -> u64 {
    unpadded.next_multiple_of(4)
}

/// Stream header and index records, if the whole file is one stream that they describe without a gap.
fn read_records(file: &File) -> Option<([u8; 12], Vec<Record>)> {
    let size = file.metadata().ok()?.len();
    if !size.is_multiple_of(4) || size < HEADER + 8 + FOOTER {
        return None;
    }
    let (mut header, mut footer) = ([0; 12], [0; 12]);
    file.read_exact_at(&mut header, 0).ok()?;
    file.read_exact_at(&mut footer, size - FOOTER).ok()?;
    let sound_header = header[..6] == [0xfd, b'7', b'z', b'X', b'Z', 0] && crc_matches(&header[6..8], &header[8..]);
    let sound_footer = footer[10..] == *b"YZ" && crc_matches(&footer[4..10], &footer[..4]);
    if !sound_header || !sound_footer || footer[8..10] != header[6..8] {
        return None;
    }
    let backward = u32::from_le_bytes([footer[4], footer[5], footer[6], footer[7]]);
    let index_bytes = (u64::from(backward) + 1) * 4;
    let index_at = (size - FOOTER).checked_sub(index_bytes).filter(|at| *at > HEADER && index_bytes <= INDEX)?;
    let mut index = vec![0; usize::try_from(index_bytes).ok()?];
    file.read_exact_at(&mut index, index_at).ok()?;
    let records = parse_index(&index)?;
    let blocks = records.iter().try_fold(HEADER, |at, record| at.checked_add(padded(record.unpadded)))?;
    (blocks == index_at).then_some((header, records))
}

fn crc_matches(bytes: &[u8], crc: &[u8]) -> bool {
    crc32fast::hash(bytes).to_le_bytes() == *crc
}

fn parse_index(index: &[u8]) -> Option<Vec<Record>> {
    let (fields, crc) = index.split_at_checked(index.len().checked_sub(4)?)?;
    if !crc_matches(fields, crc) {
        return None;
    }
    let mut rest = fields.strip_prefix(&[0])?;
    let count = take_number(&mut rest)?;
    // A record takes at least two bytes: no more can be announced than are there.
    let mut records = Vec::with_capacity(usize::try_from(count).ok().filter(|count| *count <= rest.len() / 2)?);
    for _ in 0..count {
        let (unpadded, content) = (take_number(&mut rest)?, take_number(&mut rest)?);
        if !(5..1 << 62).contains(&unpadded) {
            return None;
        }
        records.push(Record { unpadded, content });
    }
    (!records.is_empty() && rest.len() < 4 && is_zeros(rest)).then_some(records)
}

/// A number in the format's encoding: seven bits a byte, the lowest first.
fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            // The shortest form is the only one allowed.
            return (shift == 0 || *byte != 0).then_some(number);
        }
    }
    None
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Index and footer of a stream that has just this block.
fn end_of_stream(record: Record, header: [u8; 12]) -> Vec<u8> {
    let mut end = vec![0, 1];
    put_number(&mut end, record.unpadded);
    put_number(&mut end, record.content);
    end.resize(end.len().next_multiple_of(4), 0);
    end.extend(crc32fast::hash(&end).to_le_bytes());
    let mut fields = u32::try_from(end.len() / 4 - 1).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    fields.extend(&header[6..8]);
    end.extend(crc32fast::hash(&fields).to_le_bytes());
    end.extend(fields);
    end.extend(b"YZ");
    end
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::super::walker::tests::{odd_disk, xz};
    use super::*;

    fn open(bytes: &[u8]) -> Result<XzBlocks, File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        XzBlocks::open(file)
    }

    fn decode(blocks: &mut XzBlocks) -> Result<Vec<u8>, XzError> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 300_000]);
        loop {
            match blocks.read(&mut buffer)? {
                0 => return Ok(all),
                made => all.extend_from_slice(&buffer[..made]),
            }
        }
    }

    /// Twelve MiB, of which three hold something.
    fn mostly_zeros() -> Vec<u8> {
        let mut disk = odd_disk();
        disk.resize(12 << 20, 0);
        disk[(9 << 20) + 77] = 1;
        disk
    }

    #[test]
    fn zeros_are_decoded_once() {
        let disk = mostly_zeros();
        let mut blocks = open(&xz(&disk)).ok().unwrap();
        assert!(decode(&mut blocks).unwrap() == disk);
        let with_data = disk.chunks(1 << 20).filter(|chunk| !is_zeros(chunk)).count();
        assert_eq!(blocks.decoded, with_data + 1);
    }

    #[test]
    fn a_block_that_only_looks_like_the_zeros_is_decoded_and_refused() {
        let file = xz(&mostly_zeros());
        let records = {
            let blocks = open(&file).ok().unwrap();
            blocks.records.as_slice().to_vec()
        };
        let starts = records.iter().scan(12, |at, record| {
            let start = *at;
            *at += usize::try_from(padded(record.unpadded)).unwrap();
            Some(start)
        });
        // The last block, one of zeros: every byte of it counts.
        let start = starts.last().unwrap();
        let length = usize::try_from(padded(records.last().unwrap().unpadded)).unwrap();
        assert!(length < 1000, "the last block was meant to be zeros");
        for at in start..start + length {
            let mut damaged = file.clone();
            damaged[at] ^= 0x10;
            let refused = open(&damaged).ok().map(|mut blocks| decode(&mut blocks));
            assert!(matches!(refused, Some(Err(_))), "a flip at {at} was taken");
        }
    }

    #[test]
    fn what_isnt_one_sound_stream_is_left_to_the_general_decoder() {
        let file = xz(&odd_disk());
        assert!(open(&file).is_ok());
        let last = file.len() - 1;
        assert!(open(&[file.clone(), file.clone()].concat()).is_err(), "two streams");
        assert!(open(&[&file[..], &[0; 4]].concat()).is_err(), "padding");
        assert!(open(&file[..last]).is_err() && open(b"").is_err());
        for at in [0, 7, 9, last, last - 3, last - 7, last - 11, last - 14, last - 20] {
            let mut damaged = file.clone();
            damaged[at] ^= 1;
            assert!(open(&damaged).is_err(), "a flip at {at} of {last}");
        }
    }
}
