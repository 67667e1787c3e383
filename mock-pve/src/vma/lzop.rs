//! What `lzop` writes and reads (its 1.04, and Linux' `lib/decompress_unlzo.c`).
//!
//! A magic number and a header, then blocks of up to 256 KiB: length, packed length, checksum, bytes; a block that would not
//! become shorter is kept as it is. A length of zero ends it. Numbers are big-endian, checksums are Adler-32.

use std::io::{self, Cursor, Read, Write};

const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, b'\r', b'\n', 0x1a, b'\n'];
/// Bytes of a block, but for the last.
const BLOCK: usize = 256 << 10;
/// The longest block that `lzop` takes.
const LONGEST_BLOCK: u32 = 64 << 20;

/// What a header says of its archive.
mod flag {
    pub(super) const ADLER_OF_BYTES: u32 = 0x1;
    pub(super) const ADLER_OF_PACKED: u32 = 0x2;
    pub(super) const STDIN: u32 = 0x4;
    pub(super) const STDOUT: u32 = 0x8;
    pub(super) const EXTRA: u32 = 0x40;
    pub(super) const CRC_OF_BYTES: u32 = 0x100;
    pub(super) const CRC_OF_PACKED: u32 = 0x200;
    pub(super) const MULTIPART: u32 = 0x400;
    pub(super) const FILTER: u32 = 0x800;
    pub(super) const CRC_OF_HEADER: u32 = 0x1000;
    /// The system that wrote it.
    pub(super) const UNIX: u32 = 0x0300_0000;
}

/// The release that writes, the library's, and the oldest that can read.
const VERSIONS: [u16; 3] = [0x1040, 0x20a0, 0x0940];
/// LZO1X-1, at the level that is `lzop`'s default.
const METHOD: [u8; 2] = [1, 5];

/// Packs what is written to it.
pub(super) struct Packer<W> {
    out: W,
    block: Vec<u8>,
}

impl<W: Write> Packer<W> {
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        let mut header: Vec<u8> = VERSIONS.iter().flat_map(|version| version.to_be_bytes()).collect();
        header.extend(METHOD);
        header.extend((flag::ADLER_OF_BYTES | flag::STDIN | flag::STDOUT | flag::UNIX).to_be_bytes());
        // No mode, no time (two words), and a name of no length.
        header.extend([0; 4 + 8 + 1]);
        out.write_all(&MAGIC)?;
        out.write_all(&header)?;
        out.write_all(&adler2::adler32_slice(&header).to_be_bytes())?;
        Ok(Self { out, block: Vec::with_capacity(BLOCK) })
    }

    /// Writes the end, and gives back what it wrote to.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.put()?;
        self.out.write_all(&[0; 4])?;
        Ok(self.out)
    }

    fn put(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let packed =
            lzokay::compress::compress(&self.block).map_err(|_| io::Error::other("a block can't be packed"))?;
        let kept = if packed.len() < self.block.len() { &packed } else { &self.block };
        for number in [length(&self.block)?, length(kept)?, adler2::adler32_slice(&self.block)] {
            self.out.write_all(&number.to_be_bytes())?;
        }
        self.out.write_all(kept)?;
        self.block.clear();
        Ok(())
    }
}

fn length(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(io::Error::other)
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BLOCK - self.block.len());
        self.block.extend(&bytes[..taken]);
        if self.block.len() == BLOCK {
            self.put()?;
        }
        Ok(taken)
    }

    /// What fills no block yet waits for [`Packer::finish`].
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Gives back what was packed.
pub(super) struct Unpacker<R> {
    from: R,
    flags: u32,
    block: Cursor<Vec<u8>>,
    stage: Stage,
}

/// What comes next.
#[derive(PartialEq, Eq)]
enum Stage {
    /// The first header.
    Header,
    /// A block.
    Block,
    /// Another archive, or nothing.
    Another,
    /// Nothing.
    End,
}

fn corrupt(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl<R: Read> Unpacker<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, flags: 0, block: Cursor::default(), stage: Stage::Header }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> io::Result<u32> {
        self.bytes().map(u32::from_be_bytes)
    }

    fn header(&mut self) -> io::Result<()> {
        let mut header = self.bytes::<12>()?.to_vec();
        let needed = u16::from_be_bytes([header[4], header[5]]);
        let flags = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let method = header[6];
        if needed > VERSIONS[0] || !(1..=3).contains(&method) || flags & (flag::MULTIPART | flag::FILTER) > 0 {
            return Err(corrupt("unknown kind of lzop archive"));
        }
        header.extend(self.bytes::<12>()?);
        let [name] = self.bytes()?;
        header.push(name);
        let mut rest = vec![0; usize::from(name)];
        self.from.read_exact(&mut rest)?;
        header.extend(rest);
        let sum =
            if flags & flag::CRC_OF_HEADER > 0 { crc32fast::hash(&header) } else { adler2::adler32_slice(&header) };
        if self.number()? != sum {
            return Err(corrupt("header corrupted"));
        }
        if flags & flag::EXTRA > 0 {
            let extra = u64::from(self.number()?) + 4;
            io::copy(&mut self.from.by_ref().take(extra), &mut io::sink())?;
        }
        self.flags = flags;
        self.stage = Stage::Block;
        Ok(())
    }

    fn sum_if(&mut self, flag: u32) -> io::Result<Option<u32>> {
        (self.flags & flag > 0).then(|| self.number()).transpose()
    }

    fn next_block(&mut self) -> io::Result<()> {
        let length = self.number()?;
        if length == 0 {
            self.stage = Stage::Another;
            return Ok(());
        }
        let kept = self.number()?;
        if length > LONGEST_BLOCK || kept == 0 || kept > length {
            return Err(corrupt("lzop file corrupted"));
        }
        let (adler, crc) = (self.sum_if(flag::ADLER_OF_BYTES)?, self.sum_if(flag::CRC_OF_BYTES)?);
        if kept < length {
            self.sum_if(flag::ADLER_OF_PACKED)?;
            self.sum_if(flag::CRC_OF_PACKED)?;
        }
        let mut packed = vec![0; kept as usize];
        self.from.read_exact(&mut packed)?;
        let mut bytes = packed;
        if kept < length {
            let packed = std::mem::replace(&mut bytes, vec![0; length as usize]);
            if lzokay::decompress::decompress(&packed, &mut bytes).ok() != Some(bytes.len()) {
                return Err(corrupt("compressed data violation"));
            }
        }
        if adler.is_some_and(|sum| sum != adler2::adler32_slice(&bytes))
            || crc.is_some_and(|sum| sum != crc32fast::hash(&bytes))
        {
            return Err(corrupt("checksum error"));
        }
        self.block = Cursor::new(bytes);
        Ok(())
    }

    fn advance(&mut self) -> io::Result<()> {
        match self.stage {
            Stage::End => Ok(()),
            Stage::Block => self.next_block(),
            Stage::Header | Stage::Another => {
                let mut magic = Vec::new();
                self.from.by_ref().take(MAGIC.len() as u64).read_to_end(&mut magic)?;
                if magic.is_empty() && self.stage == Stage::Another {
                    self.stage = Stage::End;
                    return Ok(());
                }
                if magic != MAGIC {
                    return Err(corrupt("not a lzop file"));
                }
                self.header()
            }
        }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.block.read(buffer)?;
            if read > 0 || buffer.is_empty() || self.stage == Stage::End {
                return Ok(read);
            }
            self.advance()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut found = Vec::new();
        Unpacker::new(bytes).read_to_end(&mut found).map(|_| found)
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut packer = Packer::new(Vec::new()).unwrap();
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn what_lzop_1_04_wrote_is_read() {
        // `printf 'hello hello hello hello hello hello hello hello hello\n' | lzop`, and `… | lzop --crc32` behind it.
        let written = concat!(
            "894c5a4f000d0a1a0a104020a0094001050300000d000000006b02ccec00000000002e4b03950000003600000023275113bf0368656c6c6f203a140000026f2068656c6c6f2068656c6c6f2068656c6c6f0a11000000000000",
            "894c5a4f000d0a1a0a104020a0100101050300110c000000006b02ccec00000000003dd67cd9000000360000002343df49030368656c6c6f203a140000026f2068656c6c6f2068656c6c6f2068656c6c6f0a11000000000000"
        );
        let bytes = hex::decode(written).unwrap();
        let line = "hello ".repeat(9).trim_end().to_owned() + "\n";
        assert_eq!(unpacked(&bytes).unwrap(), line.repeat(2).into_bytes());
    }

    #[test]
    fn what_is_packed_comes_back_and_takes_less_room() {
        for bytes in [vec![], b"x".to_vec(), vec![7; 3 * BLOCK + 5], (0..=255).collect()] {
            let packed = packed(&bytes);
            assert!(packed.len() < bytes.len() / 50 + 400, "{} of {}", packed.len(), bytes.len());
            assert_eq!(unpacked(&packed).unwrap(), bytes);
        }
    }

    #[test]
    fn a_spoilt_byte_and_a_missing_one_are_errors() {
        let good = packed(&b"some bytes, some bytes, some bytes".repeat(9));
        let end = good.len() - 4;
        for at in (0..9).chain(9..15).chain(34..end) {
            let mut spoilt = good.clone();
            spoilt[at] ^= 0x55;
            assert!(unpacked(&spoilt).is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(unpacked(&good[..length]).is_err(), "{length} bytes");
        }
    }
}
