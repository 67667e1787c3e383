//! Copies in folders of this machine: other disks, mounted shares.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Ask, Copied, CopyError, Counts, Devices, Original};
use crate::backup::store::{Part, StoreError, disk, make_folder};

/// Blocking.
pub(super) fn copy(original: &Original, folder: &Path, devices: Devices, ask: Ask) -> Result<Copied, CopyError> {
    let target = folder.join(&original.name);
    if ask == Ask::Make && target.symlink_metadata().is_err() {
        make_folder(folder)?;
        match write(original, &target) {
            // Somebody was faster: what they put there is compared below.
            Ok(()) | Err(StoreError::Exists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut back = original.sink();
    let mut copy = File::open(&target).map_err(disk("open", &target))?;
    pour(&mut copy, &mut back).map_err(disk("read", &target))?;
    let counts = match devices {
        Devices::AllDiffer => Counts::Yes,
        Devices::Compare => {
            let device = |path: &Path| Ok::<_, StoreError>(fs::metadata(path).map_err(disk("read", path))?.dev());
            if device(&target)? == device(&original.path)? { Counts::SameDevice } else { Counts::Yes }
        }
    };
    original.compare(&target.display().to_string(), back, counts)
}

fn write(original: &Original, target: &Path) -> Result<(), StoreError> {
    let mut from = File::open(&original.path).map_err(disk("open", &original.path))?;
    let mut part = Part::create(target)?;
    let path = part.path().to_owned();
    io::copy(&mut from, part.file())
        .and_then(|_| part.file().flush())
        .and_then(|()| part.file().sync_all())
        .map_err(disk("write", &path))?;
    part.rename(target)
}

/// Reads to the end, or until the sink has seen enough.
fn pour(from: &mut File, to: &mut super::ReadBack) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    while !to.is_too_long() {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
