//! What is wrapped around an archive.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};

/// How an archive is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    #[default]
    Plain,
    /// By gzip.
    Gzip,
    /// By zstd.
    Zstd,
}

impl Packing {
    /// What a name ends with, behind `.vma`.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// How an archive of that name is packed; `None`: in a way that isn't known here, or it is no archive of a VM.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Gzip, Self::Zstd, Self::Plain]
            .into_iter()
            .find(|packing| name.ends_with(&format!(".vma{}", packing.suffix())))
    }

    /// The command that unpacks, as the original runs it.
    pub fn unpacker(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("zcat"),
            Self::Zstd => Some("zstd -q -d -c"),
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
        Packing::Zstd => Box::new(BufReader::new(zstd::Decoder::with_buffer(file)?)),
    })
}
