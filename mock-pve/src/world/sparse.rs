//! Files with holes.
//!
//! Purpose: whoever copies or saves a disk reads and writes what is on it, however big it is: holes are passed over. Must
//! not know: volumes, image formats. Start at [`sparse_copy`] and [`data_from`].

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// What is no more than zeros in pieces of that size isn't written.
const BLOCK: usize = 65_536;
/// What is read at once.
const CHUNK: usize = 1 << 20;

/// Copies a file, cut or filled up to `size`; holes and blocks of zeros are not written.
pub fn sparse_copy(from: &Path, to: &Path, size: u64) -> io::Result<()> {
    let source = File::open(from)?;
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let target = File::create(to)?;
    target.set_len(size)?;
    let mut buffer = vec![0_u8; CHUNK];
    let mut at = 0_u64;
    while let Some(data) = data_from(&source, at)?.filter(|data| data.start < size) {
        let end = data.end.min(size);
        at = data.start;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(CHUNK).min(CHUNK);
            let read = source.read_at(&mut buffer[..wanted], at)?;
            if read == 0 {
                // It became shorter meanwhile.
                return Ok(());
            }
            let mut offset = at;
            for block in buffer[..read].chunks(BLOCK) {
                if block.iter().any(|byte| *byte != 0) {
                    target.write_all_at(block, offset)?;
                }
                offset += block.len() as u64;
            }
            at += read as u64;
        }
    }
    Ok(())
}

/// The next part of a file that holds data, at or behind an offset; none: only nothing follows. Where the file system
/// can't tell, everything up to the end is data. The file's position moves.
pub(super) fn data_from(file: &File, offset: u64) -> io::Result<Option<Range<u64>>> {
    let start = match seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(_) => {
            let end = file.metadata()?.len();
            return Ok((offset < end).then_some(offset..end));
        }
    };
    Ok(Some(start..seek(file, SeekFrom::Hole(start))?))
}

/// Writes what comes out of a reader, without its blocks of zeros, until nothing comes any more or `room` is used up.
/// Says how much came.
pub fn sparse_write(from: &mut impl io::Read, to: &Path, room: u64) -> io::Result<u64> {
    let target = File::create(to)?;
    let mut buffer = vec![0_u8; CHUNK];
    let mut at = 0_u64;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            target.set_len(at)?;
            return Ok(at);
        }
        if at + read as u64 > room {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if buffer[..read].iter().any(|byte| *byte != 0) {
            target.write_all_at(&buffer[..read], at)?;
        }
        at += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn what_comes_is_written_without_its_zeros_and_no_more_than_fits() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let source = || io::Cursor::new([1; 10]).chain(io::repeat(0).take(64 << 20)).chain(io::Cursor::new([2; 10]));
        assert_eq!(sparse_write(&mut source(), &to, u64::MAX).unwrap(), (64 << 20) + 20);
        let about = std::fs::metadata(&to).unwrap();
        assert!(about.len() == (64 << 20) + 20 && about.blocks() * 512 < 1 << 20, "{} blocks", about.blocks());
        assert!(std::fs::read(&to).unwrap().ends_with(&[0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]));
        let full = sparse_write(&mut source(), &to, 1 << 20).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn a_copy_has_what_there_is_and_the_holes() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("a/to"));
        let file = File::create(&from).unwrap();
        file.set_len(64 << 30).unwrap();
        let places = [0, (1 << 20) - 3, 5 << 30, (64 << 30) - 6];
        for place in places {
            file.write_all_at(b"block!", place).unwrap();
        }
        for size in [64 << 30, 65 << 30, 6 << 30] {
            sparse_copy(&from, &to, size).unwrap();
            let copy = File::open(&to).unwrap();
            let about = copy.metadata().unwrap();
            assert!(about.len() == size && about.blocks() * 512 < 2 << 20, "{size}: {} blocks", about.blocks());
            for place in places.into_iter().filter(|place| place + 6 <= size) {
                let mut found = [0; 6];
                copy.read_exact_at(&mut found, place).unwrap();
                assert_eq!(&found, b"block!", "{size} {place}");
            }
        }
        std::fs::write(&from, vec![7; 200_000]).unwrap();
        sparse_copy(&from, &to, 200_001).unwrap();
        let copied = std::fs::read(&to).unwrap();
        assert!(copied.len() == 200_001 && copied[199_999] == 7 && copied[200_000] == 0);
    }

    #[test]
    fn nothing_is_data_and_what_was_written_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(64 << 20).unwrap();
        assert_eq!(data_from(&file, 0).unwrap().filter(|found| found.end - found.start < 64 << 20), None);
        file.write_all_at(b"here", 40 << 20).unwrap();
        let mut found = 0;
        let mut at = 0;
        while let Some(part) = data_from(&file, at).unwrap() {
            assert!(part.start >= at && part.end > part.start, "{part:?}");
            found += u64::from(part.contains(&(40 << 20)));
            at = part.end;
        }
        assert_eq!(found, 1);
        assert_eq!(data_from(&file, 64 << 20).unwrap(), None);
    }
}
