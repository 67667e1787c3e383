//! Walks an image file and hands out the disk's non-zero content.
//!
//! Purpose: whatever the encoding, one stream of [`Extent`]s in ascending order, the disk's size, and a digest of the
//! content that is the same for every encoding. Most of a Talos disk is zeros; nothing after the walker ever sees them.
//! Must not know: where the file came from, where the extents go.
//!
//! # The content digest
//!
//! SHA-256 over, for every 4 KiB block of the disk that isn't all zeros, in ascending order: the block's offset as
//! 64-bit little-endian number, then its bytes (the disk's last block may be shorter than 4 KiB); and at the end the
//! size of the disk as 64-bit little-endian number. So it doesn't depend on how zeros are encoded or runs are cut.

use std::path::{Path, PathBuf};

use sha2::Digest as _;

use super::disk::Disk;
use super::input::Input;
use super::talos_disk::NotTalos;
use crate::types::Sha256;

/// The granularity at which zeros are recognised.
pub(super) const BLOCK: usize = 4096;

/// The longest extent, and the unit in which files are decoded.
const STRIDE: usize = 1 << 20;

static ZEROS: [u8; STRIDE] = [0; STRIDE];

/// A run of the disk that isn't zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent<'a> {
    /// Where it begins on the disk, in bytes; a multiple of 4096.
    pub offset: u64,
    /// Its bytes: whole 4 KiB blocks (but for the disk's end), at most 1 MiB.
    pub bytes: &'a [u8],
}

/// What a disk holds, independent of how its file is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Size of the disk in bytes.
    pub disk_bytes: u64,
    /// Bytes in its non-zero 4 KiB blocks.
    pub data_bytes: u64,
    /// The content digest (see the module's documentation).
    pub sha256: Sha256,
}

/// What a walk accepts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest disk, in bytes: a small file can decode to petabytes.
    pub disk_bytes: u64,
}

impl Default for Limits {
    /// 32 GiB: Talos disks have been 1.2 to 8 GiB.
    fn default() -> Self {
        Self { disk_bytes: 32 << 30 }
    }
}

/// Why an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// The file could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A known container that isn't read.
    #[error("the image is {found}; raw disks and qcow2 images are read, and disks packed by xz, zstd or gzip")]
    Unread {
        /// What it is, as a noun phrase.
        found: &'static str,
    },
    /// Not a known container, nor a disk with a boot sector.
    #[error("the image is neither a disk nor packed in a way that is read: it begins with '{begins}'")]
    Unknown {
        /// Its first bytes, printable ones as they are.
        begins: String,
    },
    /// The content is damaged or cut short.
    #[error("the image is damaged after {decoded} bytes of the disk: {what}")]
    Damaged {
        /// What was noticed.
        what: String,
        /// How many bytes of the disk had been decoded.
        decoded: u64,
    },
    /// It may be sound, but is made in a way that isn't accepted.
    #[error("the image is refused: {why}")]
    Refused {
        /// Why.
        why: &'static str,
    },
    /// The disk is larger than allowed.
    #[error("the disk in the image is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The disk isn't a Talos disk.
    #[error("the disk in the image is not a Talos disk")]
    NotTalos(#[source] NotTalos),
    /// The thread that read it died.
    #[error("reading the image was given up")]
    GivenUp,
}

/// Decodes the file once, gives every extent to `each` in ascending order, and returns what the disk holds. Blocking.
///
/// Extents are handed out before the end of the file is verified: only when this returns without an error was the
/// whole file sound, so nothing may be published before.
pub(super) fn walk<E: From<WalkError>>(
    path: &Path,
    limits: Limits,
    each: impl FnMut(Extent<'_>) -> Result<(), E>,
) -> Result<Content, E> {
    let read = |source| WalkError::Read { path: path.to_owned(), source };
    walk_input(Input::open(path).map_err(read)?, limits, each)
}

/// The same for a file that may still be growing.
pub(super) fn walk_input<E: From<WalkError>>(
    input: Input,
    limits: Limits,
    mut each: impl FnMut(Extent<'_>) -> Result<(), E>,
) -> Result<Content, E> {
    let mut disk = Disk::open(input, limits)?;
    let mut buffer = vec![0; STRIDE];
    let mut digest = sha2::Sha256::new();
    let (mut offset, mut data_bytes) = (0_u64, 0_u64);
    loop {
        let zeros = disk.zeros()?;
        if zeros > 0 {
            offset += zeros;
            if offset > limits.disk_bytes {
                return Err(WalkError::TooLarge { limit: limits.disk_bytes }.into());
            }
            continue;
        }
        let filled = disk.fill(&mut buffer)?;
        if offset + filled as u64 > limits.disk_bytes {
            return Err(WalkError::TooLarge { limit: limits.disk_bytes }.into());
        }
        for run in runs(&buffer[..filled]) {
            let extent = Extent { offset: offset + run.start as u64, bytes: &buffer[run] };
            for (index, block) in extent.bytes.chunks(BLOCK).enumerate() {
                digest.update((extent.offset + (index * BLOCK) as u64).to_le_bytes());
                digest.update(block);
            }
            data_bytes += extent.bytes.len() as u64;
            each(extent)?;
        }
        offset += filled as u64;
        if filled < buffer.len() {
            break;
        }
    }
    digest.update(offset.to_le_bytes());
    Ok(Content { disk_bytes: offset, data_bytes, sha256: Sha256(digest.finalize().into()) })
}

/// The runs of blocks that aren't all zeros.
fn runs(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut runs: Vec<std::ops::Range<usize>> = Vec::new();
    // Comparing slices is a memcmp, also in builds without optimisation.
    if *bytes == ZEROS[..bytes.len()] {
        return runs;
    }
    let mut start = 0;
    for block in bytes.chunks(BLOCK) {
        let end = start + block.len();
        if *block != ZEROS[..block.len()] {
            match runs.last_mut() {
                Some(run) if run.end == start => run.end = end,
                _ => runs.push(start..end),
            }
        }
        start = end;
    }
    runs
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use proptest::prelude::{any, proptest};

    use super::*;

    /// A disk with a boot sector, scattered data and an odd size.
    pub(crate) fn odd_disk() -> Vec<u8> {
        let mut disk = vec![0; (5 << 20) + 512];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (at, length) in [(100_000, 30_000), ((1 << 20) - 10, 20), (3 << 20, 1), ((5 << 20) + 500, 12)] {
            for (index, byte) in disk[at..at + length].iter_mut().enumerate() {
                *byte = u8::try_from(index % 251).unwrap() + 1;
            }
        }
        disk
    }

    /// Encodes as the imager's `xz -0 -T 0` does: blocks of 1 MiB, each with its sizes in its header.
    pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
        use xz2::stream::{Action, Check, MtStreamBuilder, Status};
        let mut builder = MtStreamBuilder::new();
        let mut stream = builder.preset(0).block_size(1 << 20).threads(1).check(Check::Crc64).encoder().unwrap();
        let mut out = Vec::with_capacity(bytes.len() + (1 << 20));
        loop {
            let done = usize::try_from(stream.total_in()).unwrap();
            match stream.process_vec(&bytes[done..], &mut out, Action::Finish).unwrap() {
                Status::StreamEnd => return out,
                _ => out.reserve(1 << 20),
            }
        }
    }

    pub(crate) fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file.flush().unwrap();
        file
    }

    fn rebuilt(path: &Path) -> Result<(Vec<u8>, Content), WalkError> {
        let mut disk = Vec::new();
        let mut last = 0;
        let content = walk::<WalkError>(path, Limits::default(), |extent| {
            assert!(extent.bytes.len() <= STRIDE && extent.offset % 4096 == 0 && extent.offset >= last);
            last = extent.offset + extent.bytes.len() as u64;
            disk.resize(usize::try_from(extent.offset).unwrap(), 0);
            disk.extend_from_slice(extent.bytes);
            Ok(())
        })?;
        disk.resize(usize::try_from(content.disk_bytes).unwrap(), 0);
        Ok((disk, content))
    }

    #[test]
    fn raw_and_xz_give_the_same_disk_and_digest() {
        let disk = odd_disk();
        let (from_raw, raw) = rebuilt(file(&disk).path()).unwrap();
        let (from_xz, xz) = rebuilt(file(&xz(&disk)).path()).unwrap();
        assert!(from_raw == disk && from_xz == disk);
        assert_eq!(raw, xz);
        assert_eq!(raw.disk_bytes, disk.len() as u64);
        assert!(raw.data_bytes < 60_000, "zeros were handed out: {}", raw.data_bytes);
    }

    /// One block after the other without their sizes, in one thread: not for the walker by blocks.
    fn plain_xz(bytes: &[u8]) -> Vec<u8> {
        use xz2::stream::{Action, Check, Stream};
        let mut stream = Stream::new_easy_encoder(6, Check::Sha256).unwrap();
        let mut out = Vec::with_capacity(bytes.len() + (1 << 20));
        while !matches!(stream.process_vec(bytes, &mut out, Action::Finish).unwrap(), xz2::stream::Status::StreamEnd) {}
        out
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zst(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
        encoder.include_checksum(true).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_encoding_gives_the_same_disk_and_digest() {
        let disk = odd_disk();
        let expected = rebuilt(file(&disk).path()).unwrap();
        let (first, second) = disk.split_at(2 << 20);
        // A stream that says the sizes of its blocks, then one that doesn't.
        let mixed = [xz(first), plain_xz(second)].concat();
        for (name, packed) in [
            ("plain xz", plain_xz(&disk)),
            ("mixed xz", mixed),
            ("two streams", [xz(first), xz(second)].concat()),
            ("gzip", gz(&disk)),
            ("two members", [gz(first), gz(second)].concat()),
            ("zstd", zst(&disk)),
            ("two frames", [zst(first), zst(second)].concat()),
        ] {
            let found = rebuilt(file(&packed).path());
            assert!(found.as_ref().is_ok_and(|found| *found == expected), "{name}: {:?}", found.map(|found| found.1));
        }
    }

    #[test]
    fn damage_in_any_encoding_is_found() {
        let disk = odd_disk();
        for (name, packed) in [("plain xz", plain_xz(&disk)), ("gzip", gz(&disk)), ("zstd", zst(&disk))] {
            for at in [packed.len() / 3, packed.len() / 2, packed.len() - 3] {
                let mut damaged = packed.clone();
                damaged[at] ^= 0x20;
                // In a run of zeros gzip may refer to other zeros as well: then nothing is damaged.
                let found = rebuilt(file(&damaged).path());
                let same = found.is_ok_and(|found| name == "gzip" && found.0 == disk);
                assert!(same || rebuilt(file(&damaged).path()).is_err(), "{name}, a flip at {at} of {}", packed.len());
                assert!(rebuilt(file(&packed[..at]).path()).is_err(), "{name} cut at {at}");
            }
            for tail in [&b"more"[..], &[1; 100]] {
                let longer = [&packed[..], tail].concat();
                assert!(rebuilt(file(&longer).path()).is_err(), "{name} with {} bytes more", tail.len());
            }
        }
    }

    #[test]
    fn hostile_sizes_are_refused_in_any_encoding() {
        let limits = Limits { disk_bytes: 1 << 20 };
        let disk = odd_disk();
        for packed in [plain_xz(&disk), gz(&disk), zst(&disk), disk.clone()] {
            let refused = walk::<WalkError>(file(&packed).path(), limits, |_| Ok(()));
            assert!(matches!(refused, Err(WalkError::TooLarge { .. })));
        }
        // A qcow2 header that promises 2^60 bytes.
        let mut header = vec![0; 65536];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x02");
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[24..32].copy_from_slice(&(1_u64 << 60).to_be_bytes());
        header[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
        let refused = walk::<WalkError>(file(&header).path(), Limits::default(), |_| Ok(()));
        assert!(refused.unwrap_err().to_string().contains("larger than allowed"));
    }

    #[test]
    fn the_digest_is_the_documented_one_and_knows_the_size() {
        let mut disk = vec![0; 3 * BLOCK];
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        let by_hand = [&0_u64.to_le_bytes()[..], &disk[..BLOCK], &(3 * BLOCK as u64).to_le_bytes()].concat();
        assert_eq!(rebuilt(file(&disk).path()).unwrap().1.sha256, Sha256::of(&by_hand));
        disk.extend_from_slice(&[0; BLOCK]);
        assert_ne!(rebuilt(file(&disk).path()).unwrap().1.sha256, Sha256::of(&by_hand));
    }

    #[test]
    fn what_is_no_image_is_refused_by_name() {
        let refused = |bytes: &[u8]| rebuilt(file(bytes).path()).unwrap_err().to_string();
        assert_eq!(
            refused(b"<html>not found"),
            "the image is a web page or XML document; raw disks and qcow2 images are read, and disks packed by xz, zstd or gzip"
        );
        assert!(refused(b"hello\n").ends_with("it begins with 'hello\\n'"));
        assert!(refused(b"").contains("neither a disk nor packed"));
    }

    #[test]
    fn a_disk_beyond_the_limit_is_refused() {
        let limits = Limits { disk_bytes: (5 << 20) + 511 };
        let refused = walk::<WalkError>(file(&xz(&odd_disk())).path(), limits, |_| Ok(()));
        assert!(matches!(refused, Err(WalkError::TooLarge { .. })));
    }

    proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(48))]

        #[test]
        fn no_flip_in_a_file_of_many_blocks_goes_unnoticed(at in any::<proptest::sample::Index>(), bits in 1..=255_u8) {
            let mut bytes = xz(&odd_disk());
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
            proptest::prop_assert!(rebuilt(file(&bytes).path()).is_err());
        }

        #[test]
        fn no_truncation_goes_unnoticed(at in any::<proptest::sample::Index>()) {
            let bytes = xz(&odd_disk());
            let cut = at.index(bytes.len());
            proptest::prop_assert!(rebuilt(file(&bytes[..cut]).path()).is_err());
        }
    }
}
