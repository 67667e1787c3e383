//! Where a file holds data.
//!
//! Purpose: whoever copies a disk reads only what was ever written to it. Must not know: disks. Start at [`data_from`].

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

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
