//! The disk in an image file, whatever the file's encoding.
//!
//! Purpose: picks the decoder by the file's first bytes and hands out the disk in order. Must not know: what the bytes are.

use std::io::{self, BufReader, Read as _};

use flate2::bufread::MultiGzDecoder;

use super::input::Input;
use super::qcow2::{Qcow2Reader, ReadError};
use super::sniff::{self, Container, sniff};
use super::walker::{Limits, WalkError};
use super::xz::XzError;
use super::xz_blocks::XzBlocks;
use super::xz_streams::XzStreams;
use super::zstd_frames::ZstdFrames;

/// How much of a file is read at once.
const AT_ONCE: usize = 128 << 10;

enum Decoder {
    Raw(Input),
    Blocks(Box<XzBlocks>),
    Xz(Box<XzStreams<BufReader<Input>>>),
    Zstd(Box<ZstdFrames<BufReader<Input>>>),
    Gzip(Box<MultiGzDecoder<BufReader<Input>>>),
    Qcow2(Box<Qcow2Reader>),
}

/// A disk that is being decoded.
pub(super) struct Disk {
    input: Input,
    decoder: Decoder,
    decoded: u64,
}

impl Disk {
    /// Looks at the file's first bytes.
    pub(super) fn open(input: Input, limits: Limits) -> Result<Self, WalkError> {
        let mut head = [0; sniff::WANTED];
        let seen = input.fill_at(&mut head, 0);
        let seen = seen.map_err(|source| WalkError::Read { path: input.path().to_owned(), source })?;
        let head = &head[..seen];
        let whole = || BufReader::with_capacity(AT_ONCE, input.from(0));
        let made = match sniff(head) {
            Container::Raw => Ok(Decoder::Raw(input.from(0))),
            Container::Xz => match XzBlocks::open(input.from(0)) {
                Ok(blocks) => Ok(Decoder::Blocks(Box::new(blocks))),
                Err(XzError::Unsuited) => Ok(Decoder::Xz(Box::new(XzStreams::new(whole())))),
                Err(error) => Err(Failed::from(error)),
            },
            Container::Zstd => Ok(Decoder::Zstd(Box::new(ZstdFrames::new(whole())))),
            Container::Gzip => Ok(Decoder::Gzip(Box::new(MultiGzDecoder::new(whole())))),
            Container::Qcow2 => match Qcow2Reader::open(input.from(0), limits.disk_bytes) {
                Ok(reader) => Ok(Decoder::Qcow2(Box::new(reader))),
                Err(error) => Err(error.into()),
            },
            Container::Unread(found) => return Err(WalkError::Unread { found }),
            Container::Unknown => {
                return Err(WalkError::Unknown { begins: head[..head.len().min(24)].escape_ascii().to_string() });
            }
        };
        match made {
            Ok(decoder) => Ok(Self { input, decoder, decoded: 0 }),
            Err(failed) => Err(failed.at(&input, 0)),
        }
    }

    /// How many bytes from here on are known to be zeros, a multiple of 4096; they are skipped. 0 says nothing.
    pub(super) fn zeros(&mut self) -> Result<u64, WalkError> {
        let zeros = match &mut self.decoder {
            Decoder::Blocks(blocks) => blocks.zeros().map_err(Failed::from),
            Decoder::Qcow2(reader) => reader.zeros().map_err(Failed::from),
            _ => Ok(0),
        };
        match zeros {
            Ok(zeros) => {
                self.decoded += zeros;
                Ok(zeros)
            }
            Err(Failed::Unsuited) => self.generally().map(|()| 0),
            Err(failed) => Err(failed.at(&self.input, self.decoded)),
        }
    }

    /// Fills `buffer` as far as the disk goes.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, WalkError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(made) => {
                    filled += made;
                    self.decoded += made as u64;
                }
                Err(Failed::Unsuited) => self.generally()?,
                Err(failed) => return Err(failed.at(&self.input, self.decoded)),
            }
        }
        Ok(filled)
    }

    fn read(&mut self, out: &mut [u8]) -> Result<usize, Failed> {
        let io = |read: io::Result<usize>| read.map_err(Failed::from_decoder);
        match &mut self.decoder {
            Decoder::Raw(input) => input.read(out).map_err(Failed::Read),
            Decoder::Blocks(blocks) => Ok(blocks.read(out)?),
            Decoder::Xz(streams) => Ok(streams.read(out)?),
            Decoder::Zstd(frames) => io(frames.read(out)),
            Decoder::Gzip(members) => io(members.read(out)),
            Decoder::Qcow2(reader) => Ok(reader.read(out)?),
        }
    }

    /// Goes on with the general decoder of xz, which has to begin at the beginning.
    fn generally(&mut self) -> Result<(), WalkError> {
        let mut streams = XzStreams::new(BufReader::with_capacity(AT_ONCE, self.input.from(0)));
        let (mut left, mut scratch) = (self.decoded, vec![0; AT_ONCE]);
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(scratch.len());
            match streams.read(&mut scratch[..length]).map_err(|error| Failed::from(error).at(&self.input, left))? {
                0 => return Err(Failed::Damaged("it ends too early".to_owned()).at(&self.input, self.decoded)),
                made => left -= made as u64,
            }
        }
        self.decoder = Decoder::Xz(Box::new(streams));
        Ok(())
    }
}

/// Why a decoder stopped.
enum Failed {
    Read(io::Error),
    Damaged(String),
    Refused(&'static str),
    Unsuited,
}

impl Failed {
    /// What a decoder that speaks in I/O errors means: its own are about the data.
    fn from_decoder(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends too early".to_owned()),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                Self::Damaged(error.to_string())
            }
            _ => Self::Read(error),
        }
    }

    fn at(self, input: &Input, decoded: u64) -> WalkError {
        match self {
            Self::Read(source) => WalkError::Read { path: input.path().to_owned(), source },
            Self::Damaged(what) => WalkError::Damaged { what, decoded },
            Self::Refused(why) => WalkError::Refused { why },
            Self::Unsuited => WalkError::Refused { why: "its blocks have no sizes" },
        }
    }
}

impl From<XzError> for Failed {
    fn from(error: XzError) -> Self {
        match error {
            XzError::Read(source) => Self::Read(source),
            XzError::Damaged { what } => Self::Damaged(what.to_owned()),
            XzError::Refused { why } => Self::Refused(why),
            XzError::Unsuited => Self::Unsuited,
        }
    }
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Read(source) => Self::Read(source),
            ReadError::Damaged(what) => Self::Damaged(what.to_owned()),
            ReadError::Refused(why) => Self::Refused(why),
        }
    }
}
