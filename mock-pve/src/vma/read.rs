//! Reading an archive.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use super::{BLOCK, CLUSTER, CONFIGS, Device, EXTENT, HEADER, Header, PER_EXTENT, VmaError, at};

/// The most that a header may take: the original's writer has room for eight clusters.
const HEADER_MOST: usize = 8 * CLUSTER;

/// An archive whose header was read.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    header: Header,
}

/// What an archive held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bytes of all its clusters.
    pub bytes: u64,
    /// Those that were not stored.
    pub zeros: u64,
    /// Those not stored in clusters that held something.
    pub partial_zeros: u64,
}

fn broken<T>(text: impl Into<String>) -> Result<T, VmaError> {
    Err(VmaError::Broken(text.into()))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn long(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_be_bytes)
}

fn index(word: u32) -> usize {
    usize::try_from(word).unwrap_or(usize::MAX)
}

/// Checks the sum that lies at `place` over bytes in which it counts as zero.
fn sum_fits(bytes: &mut [u8], place: usize) -> bool {
    let mut told = [0; 16];
    told.copy_from_slice(&bytes[place..place + 16]);
    bytes[place..place + 16].fill(0);
    md5::compute(&*bytes).0 == told
}

/// Reads all or nothing: an end where a part may begin is `false`.
fn fill(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut have = 0;
    while have < buffer.len() {
        match inner.read(&mut buffer[have..]) {
            Ok(0) if have == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn need(inner: &mut impl Read, buffer: &mut [u8], what: &'static str) -> Result<(), VmaError> {
    match fill(inner, buffer) {
        Ok(true) => Ok(()),
        Ok(false) => broken(format!("{what} - got EOF")),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => broken(format!("{what} - got EOF")),
        Err(source) => Err(VmaError::Io { what, source }),
    }
}

/// The texts and configs by their position.
fn blobs(bytes: &[u8], start: usize, size: usize) -> Result<BTreeMap<u32, &[u8]>, VmaError> {
    if start < HEADER {
        return broken(format!("wrong vma blob buffer offset {start}"));
    }
    let Some(table) = bytes.get(start..start.saturating_add(size)) else {
        return broken(format!("wrong vma blob buffer size {start}/{size}"));
    };
    let (mut found, mut at) = (BTreeMap::new(), 1);
    while let Some(length) = table.get(at..at + 2) {
        let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
        if let (Some(data), Ok(key)) = (table.get(at + 2..at + 2 + length), u32::try_from(at)) {
            found.insert(key, data);
        }
        at += length + 2;
    }
    Ok(found)
}

fn text(blob: &[u8]) -> Option<String> {
    let (last, text) = blob.split_last()?;
    (*last == 0).then(|| String::from_utf8_lossy(text).into_owned())
}

fn decoded(bytes: &[u8]) -> Result<Header, VmaError> {
    let version = word(bytes, 4);
    if version != 1 {
        return broken(format!("wrong vma version {version}"));
    }
    let blobs = blobs(bytes, index(word(bytes, at::BLOBS)), index(word(bytes, at::BLOBS_SIZE)))?;
    let mut header = Header { ctime: long(bytes, at::TIME), ..Header::default() };
    header.uuid.copy_from_slice(&bytes[at::UUID..at::UUID + 16]);
    for number in 1..=u8::MAX {
        let entry = at::DEVICES + 32 * usize::from(number);
        let name = blobs.get(&word(bytes, entry)).and_then(|blob| text(blob));
        if let (Some(name), size @ 1..) = (name, long(bytes, entry + 8)) {
            header.devices.insert(number, Device { name, size });
        }
    }
    for slot in 0..CONFIGS {
        let (name, data) = (word(bytes, at::NAMES + 4 * slot), word(bytes, at::DATA + 4 * slot));
        if name == 0 || data == 0 {
            continue;
        }
        match (blobs.get(&name).and_then(|blob| text(blob)), blobs.get(&data)) {
            (Some(name), Some(data)) => header.configs.push((name, data.to_vec())),
            _ => return broken("vma contains invalid data pointers"),
        }
    }
    Ok(header)
}

impl<R: Read> Reader<R> {
    /// Reads and checks the header.
    pub fn open(mut inner: R) -> Result<Self, VmaError> {
        let mut bytes = vec![0_u8; HEADER];
        need(&mut inner, &mut bytes, "can't read vma header")?;
        if !bytes.starts_with(b"VMA\0") {
            return broken("not a vma file - wrong magic number");
        }
        let size = index(word(&bytes, at::SIZE));
        if size <= HEADER || size > HEADER_MOST {
            return broken(format!("wrong vma header size {size}"));
        }
        bytes.resize(size, 0);
        need(&mut inner, &mut bytes[HEADER..], "can't read vma header data")?;
        if !sum_fits(&mut bytes, at::SUM) {
            return broken("wrong vma header chechsum");
        }
        let header = decoded(&bytes)?;
        Ok(Self { inner, header })
    }

    /// What the archive says before its data.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Gives everything that isn't zero to `sink`: device, offset, bytes. Every cluster of every device has to be there.
    pub fn restore(&mut self, mut sink: impl FnMut(u8, u64, &[u8]) -> io::Result<()>) -> Result<Totals, VmaError> {
        let mut totals = Totals::default();
        let mut seen: HashSet<(u8, u32)> = HashSet::new();
        let mut head = [0_u8; EXTENT];
        let mut block = [0_u8; BLOCK];
        loop {
            match fill(&mut self.inner, &mut head) {
                Ok(true) => {}
                Ok(false) => break,
                Err(source) => return Err(VmaError::Io { what: "can't read vma extent", source }),
            }
            if !head.starts_with(b"VMAE") {
                return broken("vma extent - wrong magic number");
            }
            if !sum_fits(&mut head, at::EXTENT_SUM) {
                return broken("wrong vma extent header chechsum");
            }
            if head[8..24] != self.header.uuid {
                return broken("wrong vma extent uuid");
            }
            for slot in 0..PER_EXTENT {
                let info = long(&head, at::INFOS + 8 * slot);
                let [upper, lower, _, device, number @ ..] = info.to_be_bytes();
                let (mask, number) = (u16::from_be_bytes([upper, lower]), u32::from_be_bytes(number));
                if device == 0 {
                    continue;
                }
                let Some(known) = self.header.devices.get(&device) else {
                    return broken(format!("got wrong dev id {device}"));
                };
                let start = u64::from(number) * CLUSTER as u64;
                if start >= known.size {
                    return broken("got wrong block address - write bejond end");
                }
                if !seen.insert((device, number)) {
                    return broken(format!("found duplicated cluster {number} for stream {}", known.name));
                }
                let length = (known.size - start).min(CLUSTER as u64);
                let zeros = u64::from(mask.count_zeros()) * BLOCK as u64;
                totals.bytes += CLUSTER as u64;
                totals.zeros += zeros;
                totals.partial_zeros += if mask == 0 { 0 } else { zeros };
                for bit in (0..16_u64).filter(|bit| mask & (1 << bit) != 0) {
                    need(&mut self.inner, &mut block, "short vma extent")?;
                    let offset = bit * BLOCK as u64;
                    if offset >= length {
                        return broken("got wrong block address - write bejond end");
                    }
                    let kept = usize::try_from((length - offset).min(BLOCK as u64)).unwrap_or(BLOCK);
                    sink(device, start + offset, &block[..kept])
                        .map_err(|source| VmaError::Io { what: "can't write to the target", source })?;
                }
            }
        }
        for (number, device) in &self.header.devices {
            let clusters = device.size.div_ceil(CLUSTER as u64);
            let have = seen.iter().filter(|(of, _)| of == number).count() as u64;
            if have < clusters {
                return broken(format!(
                    "restore failed - missing clusters of stream {} ({have} of {clusters})",
                    device.name
                ));
            }
        }
        Ok(totals)
    }
}
