//! The qcow2 format, as far as images without backing files need it.
//!
//! Purpose: write what a guest sees of a qcow2 image into a raw file, holes kept; tell images apart. Own reader, made
//! from the format's description (QEMU, docs/interop/qcow2.txt). Must not know: volumes. Start at [`convert`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use flate::inflate;

pub use super::sparse::sparse_copy;

/// What an image file claims to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// `raw` or `qcow2`.
    pub format: &'static str,
    /// Size a guest sees, in bytes.
    pub virtual_size: u64,
    /// It needs another file: a backing file or an external data file.
    pub backing: bool,
}

const MAGIC: &[u8; 4] = b"QFI\xfb";

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes)
}

struct Header {
    cluster_bits: u32,
    size: u64,
    l1_size: u32,
    l1_offset: u64,
    backing: bool,
    incompatible: u64,
}

fn header(file: &File) -> io::Result<Option<Header>> {
    let mut head = [0_u8; 104];
    let mut have = 0;
    while have < head.len() {
        match file.read_at(&mut head[have..], have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    if have < 72 || head[..4] != *MAGIC {
        return Ok(None);
    }
    let version = be32(&head, 4);
    if version != 2 && version != 3 {
        return Err(bad("unsupported qcow2 version"));
    }
    Ok(Some(Header {
        backing: be64(&head, 8) != 0,
        cluster_bits: be32(&head, 20),
        size: be64(&head, 24),
        l1_size: be32(&head, 36),
        l1_offset: be64(&head, 40),
        incompatible: if version == 3 { be64(&head, 72) } else { 0 },
    }))
}

/// Sniffs an image file: qcow2 by its magic, everything else is raw.
pub fn info(path: &Path) -> io::Result<Info> {
    let file = File::open(path)?;
    Ok(match header(&file)? {
        Some(header) => {
            Info { format: "qcow2", virtual_size: header.size, backing: header.backing || header.incompatible & 4 != 0 }
        }
        None => Info { format: "raw", virtual_size: file.metadata()?.len(), backing: false },
    })
}

/// Writes what a guest sees of a qcow2 image to a new raw file. Zeros stay holes.
pub fn convert(from: &Path, to: &Path) -> io::Result<u64> {
    let file = File::open(from)?;
    let header = header(&file)?.ok_or_else(|| bad("Image is not in qcow2 format"))?;
    if header.backing || header.incompatible & !0b1_1000 & !0b1 != 0 {
        return Err(bad("the image needs another file or an unsupported feature"));
    }
    if !(9..=21).contains(&header.cluster_bits) {
        return Err(bad("Cluster size must be a power of two between 512 and 2048k"));
    }
    let cluster = 1_u64 << header.cluster_bits;
    let per_table = cluster / 8;
    let tables = header.size.div_ceil(cluster).div_ceil(per_table);
    if u64::from(header.l1_size) < tables || tables > 1 << 22 {
        return Err(bad("L1 table is too small"));
    }
    let out = File::create(to)?;
    out.set_len(header.size)?;
    let read = |offset: u64, length: u64| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| bad("too large"))?];
        file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    };
    let l1 = read(header.l1_offset, tables * 8)?;
    for table in 0..tables {
        let at = usize::try_from(table * 8).map_err(|_| bad("too large"))?;
        let l2_offset = be64(&l1, at) & 0x00ff_ffff_ffff_fe00;
        if l2_offset == 0 {
            continue;
        }
        let l2 = read(l2_offset, cluster)?;
        for (entry, index) in l2.chunks_exact(8).zip(0_u64..) {
            let entry = be64(entry, 0);
            let guest = (table * per_table + index) * cluster;
            if entry == 0 || guest >= header.size {
                continue;
            }
            let bytes = if entry >> 62 & 1 == 1 {
                compressed(&file, entry, header.cluster_bits)?
            } else if entry & 1 == 1 || entry & 0x00ff_ffff_ffff_fe00 == 0 {
                continue;
            } else {
                // The last cluster may be cut short at the end of the file.
                let offset = entry & 0x00ff_ffff_ffff_fe00;
                let there = file.metadata()?.len().saturating_sub(offset).min(cluster);
                if there == 0 {
                    return Err(bad("a cluster lies behind the end of the file"));
                }
                read(offset, there)?
            };
            let wanted = usize::try_from((header.size - guest).min(bytes.len() as u64)).unwrap_or(bytes.len());
            if bytes[..wanted].iter().any(|byte| *byte != 0) {
                out.write_all_at(&bytes[..wanted], guest)?;
            }
        }
    }
    Ok(header.size)
}

fn compressed(file: &File, entry: u64, cluster_bits: u32) -> io::Result<Vec<u8>> {
    let shift = 62 - (cluster_bits - 8);
    let offset = entry & ((1 << shift) - 1);
    let sectors = (entry >> shift & ((1 << (cluster_bits - 8)) - 1)) + 1;
    let length = (sectors * 512).saturating_sub(offset & 511);
    let mut packed = Vec::new();
    let mut part = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut have = 0;
    while have < part.len() {
        match file.read_at(&mut part[have..], offset + have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    packed.extend_from_slice(&part[..have]);
    inflate(&packed, 1 << cluster_bits).ok_or_else(|| bad("a compressed cluster can't be unpacked"))
}

/// A qcow2 image of that virtual size whose first sector is `sector` and the rest zeros.
pub fn tiny(virtual_size: u64, sector: &[u8]) -> Vec<u8> {
    const CLUSTER: u64 = 65_536;
    let mut image = vec![0_u8; 6 * 65_536];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let tables = virtual_size.div_ceil(CLUSTER).div_ceil(CLUSTER / 8).clamp(1, 8192);
    put(0, MAGIC);
    put(4, &3_u32.to_be_bytes());
    put(20, &16_u32.to_be_bytes());
    put(24, &virtual_size.to_be_bytes());
    put(36, &u32::try_from(tables).unwrap_or(1).to_be_bytes());
    put(40, &(3 * CLUSTER).to_be_bytes());
    put(48, &CLUSTER.to_be_bytes());
    put(56, &1_u32.to_be_bytes());
    put(96, &4_u32.to_be_bytes());
    put(100, &104_u32.to_be_bytes());
    // Reference counts: one table, one block, six clusters in use once.
    put(65_536, &(2 * CLUSTER).to_be_bytes());
    for cluster in 0..6 {
        put(2 * 65_536 + cluster * 2, &1_u16.to_be_bytes());
    }
    let copied = 1_u64 << 63;
    put(3 * 65_536, &((4 * CLUSTER) | copied).to_be_bytes());
    put(4 * 65_536, &((5 * CLUSTER) | copied).to_be_bytes());
    put(5 * 65_536, &sector[..sector.len().min(65_536)]);
    image
}

/// Raw deflate, as compressed clusters hold it.
mod flate {
    /// Unpacks raw deflate data to at most `limit` bytes.
    pub(super) fn inflate(packed: &[u8], limit: usize) -> Option<Vec<u8>> {
        let mut bits = Bits { bytes: packed, at: 0 };
        let mut out = Vec::new();
        loop {
            let last = bits.take(1)?;
            match bits.take(2)? {
                0 => stored(&mut bits, &mut out, limit)?,
                1 => {
                    let mut lengths = [8_u8; 288];
                    lengths[144..256].fill(9);
                    lengths[256..280].fill(7);
                    block(&mut bits, &mut out, limit, &Code::new(&lengths), &Code::new(&[5; 30]))?;
                }
                2 => {
                    let (literal, distance) = dynamic(&mut bits)?;
                    block(&mut bits, &mut out, limit, &literal, &distance)?;
                }
                _ => return None,
            }
            if last == 1 || out.len() >= limit {
                return Some(out);
            }
        }
    }

    struct Bits<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Bits<'_> {
        fn take(&mut self, count: usize) -> Option<usize> {
            let mut value = 0;
            for bit in 0..count {
                let byte = self.bytes.get(self.at / 8)?;
                value |= usize::from(byte >> (self.at % 8) & 1) << bit;
                self.at += 1;
            }
            Some(value)
        }
    }

    struct Code {
        counts: [usize; 16],
        symbols: Vec<usize>,
    }

    impl Code {
        fn new(lengths: &[u8]) -> Self {
            let mut counts = [0; 16];
            for length in lengths {
                counts[usize::from(*length)] += 1;
            }
            counts[0] = 0;
            let mut symbols = Vec::new();
            for wanted in 1..16_u8 {
                symbols.extend(lengths.iter().enumerate().filter(|(_, length)| **length == wanted).map(|(at, _)| at));
            }
            Self { counts, symbols }
        }

        fn read(&self, bits: &mut Bits) -> Option<usize> {
            let (mut code, mut first, mut index) = (0, 0, 0);
            for count in &self.counts[1..] {
                code |= bits.take(1)?;
                if code < first + count {
                    return self.symbols.get(index + code - first).copied();
                }
                index += count;
                first = (first + count) << 1;
                code <<= 1;
            }
            None
        }
    }

    fn stored(bits: &mut Bits, out: &mut Vec<u8>, limit: usize) -> Option<()> {
        bits.at = bits.at.div_ceil(8) * 8;
        let length = bits.take(16)?;
        bits.take(16)?;
        let from = bits.at / 8;
        let bytes = bits.bytes.get(from..from + length)?;
        out.extend_from_slice(&bytes[..length.min(limit.saturating_sub(out.len()))]);
        bits.at += length * 8;
        Some(())
    }

    fn dynamic(bits: &mut Bits) -> Option<(Code, Code)> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let (literals, distances, codes) = (bits.take(5)? + 257, bits.take(5)? + 1, bits.take(4)? + 4);
        let mut lengths = [0_u8; 19];
        for at in &ORDER[..codes] {
            lengths[*at] = u8::try_from(bits.take(3)?).ok()?;
        }
        let code = Code::new(&lengths);
        let mut all: Vec<u8> = Vec::new();
        while all.len() < literals + distances {
            match code.read(bits)? {
                symbol @ 0..16 => all.push(u8::try_from(symbol).ok()?),
                16 => {
                    let last = *all.last()?;
                    let times = bits.take(2)? + 3;
                    all.extend(std::iter::repeat_n(last, times));
                }
                17 => {
                    let times = bits.take(3)? + 3;
                    all.extend(std::iter::repeat_n(0, times));
                }
                _ => {
                    let times = bits.take(7)? + 11;
                    all.extend(std::iter::repeat_n(0, times));
                }
            }
        }
        Some((Code::new(all.get(..literals)?), Code::new(all.get(literals..literals + distances)?)))
    }

    fn block(bits: &mut Bits, out: &mut Vec<u8>, limit: usize, literal: &Code, distance: &Code) -> Option<()> {
        const BASE: [usize; 29] = [
            3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
            227, 258,
        ];
        const EXTRA: [usize; 29] =
            [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
        loop {
            match literal.read(bits)? {
                symbol @ 0..256 => out.push(u8::try_from(symbol).ok()?),
                256 => return Some(()),
                symbol => {
                    let length = BASE.get(symbol - 257)? + bits.take(*EXTRA.get(symbol - 257)?)?;
                    let code = distance.read(bits)?;
                    let extra = (code / 2).saturating_sub(1);
                    let base = if code < 4 { code + 1 } else { ((2 + code % 2) << extra) + 1 };
                    let back = base + bits.take(extra)?;
                    for _ in 0..length {
                        let byte = *out.get(out.len().checked_sub(back)?)?;
                        out.push(byte);
                    }
                }
            }
            if out.len() >= limit {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_qcow2_becomes_raw_with_its_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.qcow2"), dir.path().join("a.raw"));
        std::fs::write(&from, tiny(64 << 20, b"boot")).unwrap();
        assert_eq!(info(&from).unwrap(), Info { format: "qcow2", virtual_size: 64 << 20, backing: false });
        assert_eq!(convert(&from, &to).unwrap(), 64 << 20);
        let mut head = [0; 8];
        File::open(&to).unwrap().read_exact(&mut head).unwrap();
        assert_eq!(&head, b"boot\0\0\0\0");
        assert_eq!(info(&to).unwrap().format, "raw");
    }

    #[test]
    fn broken_images_are_errors_not_panics() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a.qcow2"), dir.path().join("a.raw"));
        let whole = tiny(64 << 20, b"boot");
        for cut in [10, 100, 3 * 65_536 + 4, 4 * 65_536 + 4] {
            std::fs::write(&from, &whole[..cut]).unwrap();
            assert!(convert(&from, &to).is_err(), "{cut}");
        }
        let mut backed = whole.clone();
        backed[15] = 1;
        std::fs::write(&from, &backed).unwrap();
        assert!(info(&from).unwrap().backing && convert(&from, &to).is_err());
        let mut insane = whole;
        insane[23] = 63;
        std::fs::write(&from, &insane).unwrap();
        assert!(convert(&from, &to).is_err());
    }
}
