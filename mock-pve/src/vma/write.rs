//! Writing an archive.

use std::io::{self, Write};

use super::{BLOCK, CLUSTER, CONFIGS, EXTENT, HEADER, Header, PER_EXTENT, at};

/// Writes clusters, in any order and of any device; each of every device has to come once.
#[derive(Debug)]
pub struct Writer<W> {
    inner: W,
    uuid: [u8; 16],
    infos: Vec<u64>,
    blocks: Vec<u8>,
}

/// A block of nothing.
static ZEROS: [u8; BLOCK] = [0; BLOCK];

/// The table of texts and configs in a header. Position 0 means that there is none.
struct Blobs(Vec<u8>);

impl Blobs {
    fn add(&mut self, data: &[u8]) -> io::Result<u32> {
        let length = u16::try_from(data.len()).map_err(|_| io::Error::other("a config is longer than 65535 bytes"))?;
        let at = u32::try_from(self.0.len()).map_err(io::Error::other)?;
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(data);
        Ok(at)
    }

    fn add_text(&mut self, text: &str) -> io::Result<u32> {
        let mut data = text.as_bytes().to_vec();
        data.push(0);
        self.add(&data)
    }
}

fn put(bytes: &mut [u8], at: usize, data: &[u8]) {
    bytes[at..at + data.len()].copy_from_slice(data);
}

fn encoded(header: &Header) -> io::Result<Vec<u8>> {
    if header.configs.len() > CONFIGS {
        return Err(io::Error::other("too many configs"));
    }
    let mut bytes = vec![0_u8; HEADER];
    let mut blobs = Blobs(vec![0]);
    put(&mut bytes, 0, b"VMA\0");
    put(&mut bytes, 4, &1_u32.to_be_bytes());
    put(&mut bytes, at::UUID, &header.uuid);
    put(&mut bytes, at::TIME, &header.ctime.to_be_bytes());
    for (index, (name, data)) in header.configs.iter().enumerate() {
        put(&mut bytes, at::NAMES + 4 * index, &blobs.add_text(name)?.to_be_bytes());
        put(&mut bytes, at::DATA + 4 * index, &blobs.add(data)?.to_be_bytes());
    }
    for (number, device) in &header.devices {
        let entry = at::DEVICES + 32 * usize::from(*number);
        put(&mut bytes, entry, &blobs.add_text(&device.name)?.to_be_bytes());
        put(&mut bytes, entry + 8, &device.size.to_be_bytes());
    }
    let used = u32::try_from(blobs.0.len()).map_err(io::Error::other)?;
    blobs.0.resize(blobs.0.len().next_multiple_of(EXTENT), 0);
    let size = u32::try_from(HEADER + blobs.0.len()).map_err(io::Error::other)?;
    let start = u32::try_from(HEADER).map_err(io::Error::other)?;
    put(&mut bytes, at::BLOBS, &start.to_be_bytes());
    put(&mut bytes, at::BLOBS_SIZE, &used.to_be_bytes());
    put(&mut bytes, at::SIZE, &size.to_be_bytes());
    bytes.extend_from_slice(&blobs.0);
    let sum = md5::compute(&bytes);
    put(&mut bytes, at::SUM, &sum.0);
    Ok(bytes)
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub fn new(mut inner: W, header: &Header) -> io::Result<Self> {
        inner.write_all(&encoded(header)?)?;
        Ok(Self { inner, uuid: header.uuid, infos: Vec::new(), blocks: Vec::new() })
    }

    /// Writes a cluster; the last one of a device may be shorter. Says how many of its bytes were left out as zeros.
    pub fn cluster(&mut self, device: u8, number: u32, bytes: &[u8]) -> io::Result<u64> {
        if bytes.len() > CLUSTER || device == 0 {
            return Err(io::Error::other("no such cluster"));
        }
        if self.infos.len() == PER_EXTENT {
            self.flush()?;
        }
        let mut mask = 0_u16;
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if *block != ZEROS[..block.len()] {
                mask |= 1 << index;
                self.blocks.extend_from_slice(block);
                self.blocks.resize(self.blocks.len().next_multiple_of(BLOCK), 0);
            }
        }
        self.infos.push(u64::from(mask) << 48 | u64::from(device) << 32 | u64::from(number));
        Ok(u64::from(mask.count_zeros()) * BLOCK as u64)
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut head = [0_u8; EXTENT];
        put(&mut head, 0, b"VMAE");
        let count = u16::try_from(self.blocks.len() / BLOCK).map_err(io::Error::other)?;
        put(&mut head, 6, &count.to_be_bytes());
        put(&mut head, 8, &self.uuid);
        for (index, info) in self.infos.iter().enumerate() {
            put(&mut head, at::INFOS + 8 * index, &info.to_be_bytes());
        }
        let sum = md5::compute(head);
        put(&mut head, at::EXTENT_SUM, &sum.0);
        self.inner.write_all(&head)?;
        self.inner.write_all(&self.blocks)?;
        self.infos.clear();
        self.blocks.clear();
        Ok(())
    }

    /// Writes what is left and gives the writer back.
    pub fn finish(mut self) -> io::Result<W> {
        if !self.infos.is_empty() {
            self.flush()?;
        }
        self.inner.flush()?;
        Ok(self.inner)
    }
}
