//! What is wrapped around an archive.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

use super::lzop;

/// How an archive is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    Plain,
    /// By gzip.
    Gzip,
    /// By lzop.
    Lzop,
    /// By zstd.
    Zstd,
    /// By bzip2: nothing of the original's writes it, but it is read.
    Bzip2,
}

impl Packing {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Plain, Self::Gzip, Self::Lzop, Self::Zstd, Self::Bzip2];

    /// What a name ends with, behind `.vma`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Lzop => ".lzo",
            Self::Zstd => ".zst",
            Self::Bzip2 => ".bz2",
        }
    }

    /// How an archive of that name is packed; `None`: in a way that isn't known here, or it is no archive of a VM.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|packing| name.ends_with(&format!(".vma{}", packing.suffix())))
    }

    /// What is packed in the way that a file's extension says: `gz`, `lzo`, `zst` or `bz2`.
    pub fn by_extension(extension: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|packing| packing.suffix().strip_prefix('.') == Some(extension))
    }

    /// The command that unpacks, as the original runs it (pve-storage, PVE/Storage.pm, `decompressor_info`).
    pub fn unpacker(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("zcat"),
            Self::Lzop => Some("lzop -d -c"),
            Self::Zstd => Some("zstd -q -d -c"),
            Self::Bzip2 => Some("bzcat -q"),
        }
    }
}

/// Writes a file through a packer.
pub fn pack<T>(
    file: impl Write,
    packing: Packing,
    write: impl FnOnce(&mut dyn Write) -> io::Result<T>,
) -> io::Result<T> {
    let mut file = BufWriter::with_capacity(1 << 20, file);
    match packing {
        Packing::Plain => {
            let done = write(&mut file)?;
            file.flush()?;
            Ok(done)
        }
        Packing::Gzip => {
            let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
            let done = write(&mut gzip)?;
            gzip.finish()?.flush()?;
            Ok(done)
        }
        Packing::Lzop => {
            let mut lzop = lzop::Packer::new(file)?;
            let done = write(&mut lzop)?;
            lzop.finish()?.flush()?;
            Ok(done)
        }
        Packing::Bzip2 => {
            let mut bzip2 = bzip2::write::BzEncoder::new(file, bzip2::Compression::fast());
            let done = write(&mut bzip2)?;
            bzip2.finish()?.flush()?;
            Ok(done)
        }
        Packing::Zstd => {
            let mut zstd = zstd::Encoder::new(file, 1)?;
            let done = write(&mut zstd)?;
            zstd.finish()?.flush()?;
            Ok(done)
        }
    }
}

/// Reads a file through an unpacker.
pub fn unpack(file: File, packing: Packing) -> io::Result<Box<dyn Read + Send>> {
    let file = BufReader::with_capacity(1 << 20, file);
    Ok(match packing {
        Packing::Plain => Box::new(file),
        Packing::Gzip => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(file))),
        Packing::Lzop => Box::new(BufReader::new(lzop::Unpacker::new(file))),
        Packing::Bzip2 => Box::new(BufReader::new(bzip2::bufread::MultiBzDecoder::new(file))),
        Packing::Zstd => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
    })
}
