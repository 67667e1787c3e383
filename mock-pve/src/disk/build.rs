//! An image from a recipe: the same bytes for the same recipe, on any machine.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::gpt::{Partition, Table};
use super::noise::Noise;
use super::{DiskError, IMAGE_BYTES, MIB, Marker, Recipe, minor};

/// Begins the marker; its length (u32) and SHA-256 follow, then the marker as JSON.
pub(super) const MAGIC: &[u8; 16] = b"TALOS-DOUBLE-1\r\n";
/// The marker's block at the beginning of BOOT.
pub(super) const MARKER_BYTES: u64 = 64 << 10;

/// Data in each of EFI (the UKI) and BOOT (kernel and initramfs): dual-boot images hold both.
const DATA_PER_PARTITION: u64 = 8 * MIB;

/// Writes the image for `recipe` as a sparse file of [`IMAGE_BYTES`] at `path`, replacing what is there.
pub fn build(recipe: &Recipe, path: &Path) -> Result<Marker, DiskError> {
    let file = File::create(path).map_err(DiskError::io(path))?;
    file.set_len(IMAGE_BYTES).map_err(DiskError::io(path))?;
    let table = Table { partitions: layout(&recipe.version), end: IMAGE_BYTES };
    table.write(&file, path)?;

    let mut noise = Noise::new(&format!("{} {} {}", recipe.schematic, recipe.version, recipe.signed));
    let mut extents = scatter(&mut noise, table.find("EFI")?, 0);
    extents.extend(scatter(&mut noise, table.find("BOOT")?, MARKER_BYTES));
    let mut digest = Sha256::new();
    let mut buffer = Vec::new();
    for (offset, length) in &extents {
        buffer.resize(usize::try_from(*length).unwrap_or_default(), 0);
        noise.fill(&mut buffer);
        digest.update(&buffer);
        file.write_all_at(&buffer, *offset).map_err(DiskError::io(path))?;
    }
    let marker = Marker { recipe: recipe.clone(), extents, sha256: hex::encode(digest.finalize()) };
    file.write_all_at(&marker_block(&marker)?, table.find("BOOT")?.start).map_err(DiskError::io(path))?;
    Ok(marker)
}

/// A boot loader entry as it lies on the disk.
pub(super) fn marker_block(marker: &Marker) -> Result<Vec<u8>, DiskError> {
    let json = serde_json::to_vec(marker).map_err(|error| DiskError::Boot { why: error.to_string() })?;
    let mut block = MAGIC.to_vec();
    block.extend(u32::try_from(json.len()).unwrap_or_default().to_le_bytes());
    block.extend(Sha256::digest(&json));
    block.extend(json);
    Ok(block)
}

/// Talos' partitions in their order, shrunk. STATE and EPHEMERAL are part of the image before 1.8; later ones make them
/// when they first boot (Talos, pkg/imager).
fn layout(version: &str) -> Vec<Partition> {
    let mut sizes = vec![("EFI", 96), ("BIOS", 1), ("BOOT", 100), ("META", 1)];
    if minor(version) < 8 {
        sizes.extend([("STATE", 16), ("EPHEMERAL", 32)]);
    }
    let mut at = MIB;
    let mut partitions = Vec::new();
    for (label, mib) in sizes {
        partitions.push(Partition { label: label.to_owned(), start: at, bytes: mib * MIB });
        at += mib * MIB;
    }
    partitions
}

/// Files in a file system: pieces of 64 KiB to 1 MiB, most of them next to each other, some with holes between.
fn scatter(noise: &mut Noise, partition: &Partition, reserved: u64) -> Vec<(u64, u64)> {
    const GRAIN: u64 = 4096;
    let mut extents = Vec::new();
    let mut at = partition.start + reserved;
    let mut left = DATA_PER_PARTITION;
    while left > 0 {
        let length = (noise.within(16..257) * GRAIN).min(left);
        extents.push((at, length));
        left -= length;
        at += length;
        if noise.within(0..3) == 0 {
            at += noise.within(1..513) * GRAIN;
        }
    }
    extents
}
