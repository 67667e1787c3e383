//! From disks to a file.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::vma::{CLUSTER, Header, Packing, Writer, pack};
use crate::world::sparse::data_from;

/// An archive that is to be written.
#[derive(Debug)]
pub(super) struct Order {
    /// Where.
    pub target: PathBuf,
    /// Bytes that fit there.
    pub room: u64,
    /// How it is packed.
    pub packing: Packing,
    /// What it says.
    pub header: Header,
    /// The files behind its devices, by number.
    pub disks: Vec<(u8, PathBuf, u64)>,
    /// Set by whoever wants no more of it.
    pub stop: Arc<AtomicBool>,
}

/// A file that ends where its storage is full.
struct Room<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Write for Room<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len() as u64;
        if length > self.left {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "No space left on device"));
        }
        self.left -= length;
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes it. Says how many bytes of the disks are zero.
pub(super) fn write(order: &Order) -> io::Result<u64> {
    if let Some(folder) = order.target.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = Room { inner: File::create(&order.target)?, left: order.room };
    pack(file, order.packing, |out| {
        let mut writer = Writer::new(out, &order.header)?;
        let mut zeros = 0;
        for (device, path, size) in &order.disks {
            zeros += disk(&mut writer, *device, path, *size, &order.stop)?;
        }
        writer.finish()?;
        Ok(zeros)
    })
}

/// Puts a disk into the archive; what was never written to it isn't read.
fn disk<W: Write>(
    writer: &mut Writer<W>,
    device: u8,
    path: &std::path::Path,
    size: u64,
    stop: &AtomicBool,
) -> io::Result<u64> {
    let file = File::open(path)?;
    let mut buffer = vec![0_u8; CLUSTER];
    let (mut zeros, mut at) = (0, 0);
    let mut data = data_from(&file, 0)?;
    for number in 0..u32::try_from(size.div_ceil(CLUSTER as u64)).map_err(io::Error::other)? {
        if number.is_multiple_of(256) && stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let length = usize::try_from((size - at).min(CLUSTER as u64)).unwrap_or(CLUSTER);
        let end = at + length as u64;
        if data.as_ref().is_some_and(|data| data.end <= at) {
            data = data_from(&file, at)?;
        }
        let have = match &data {
            Some(data) if data.start < end => fill(&file, &mut buffer[..length], at)?,
            _ => 0,
        };
        let left_out = writer.cluster(device, number, &buffer[..have])?;
        zeros += left_out.min(length as u64);
        at = end;
    }
    Ok(zeros)
}

/// Reads until the buffer is full or the file ends. Says how much there was.
fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut have = 0;
    while have < buffer.len() {
        match file.read_at(&mut buffer[have..], at + have as u64)? {
            0 => break,
            read => have += read,
        }
    }
    Ok(have)
}
