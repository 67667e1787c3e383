//! The two places for a Talos on one disk, and META, which says which of them boots.
//!
//! An image fills slot A; an upgrade writes the other one and remembers the old one as the way back until the new one
//! has proven itself (Talos, internal/app/machined/pkg/runtime/v1alpha1/bootloader, META tag `Upgrade`).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::build::{MAGIC, MARKER_BYTES, marker_block};
use super::gpt::{Partition, Table};
use super::noise::Noise;
use super::read::{boots, read_slot};
use super::{DiskError, MIB, Marker, Recipe};

const META_MAGIC: &[u8; 16] = b"TALOS-META-DBL1\n";
const META_BYTES: usize = 64 << 10;
/// Boot files of an upgrade: kernel and initramfs, shrunk.
const UPGRADE_BYTES: u64 = 4 * MIB;

/// One of the two places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Slot {
    /// What an image fills.
    #[default]
    A,
    /// The other one.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// As the boot loader labels it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::B => "B",
        }
    }

    /// First byte of its boot files' entry.
    pub(super) fn start(self, boot: &Partition) -> u64 {
        match self {
            Self::A => boot.start,
            Self::B => boot.start + boot.bytes / 2,
        }
    }
}

/// An upgrade that waits for the next boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// The installer image, as it was named.
    pub image: String,
    /// What that image installs.
    pub recipe: Recipe,
    /// EPHEMERAL is kept.
    pub preserve: bool,
}

/// What META holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Meta {
    /// The slot that boots next.
    pub boot: Slot,
    /// The slot to go back to, while the one that boots hasn't proven itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Slot>,
    /// An upgrade that the next boot carries out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staged: Option<Staged>,
    /// Tags that were written through the API.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<u8, Vec<u8>>,
}

/// Reads META; an image leaves it empty, which means slot A.
pub fn meta(path: &Path) -> Result<Meta, DiskError> {
    let file = File::open(path).map_err(DiskError::io(path))?;
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    let table = Table::read(&file, path, bytes)?;
    parse_meta(&file, path, table.find("META")?)
}

/// What an image leaves empty must arrive empty: a storage that keeps old bytes shows here.
pub(super) fn parse_meta(file: &File, path: &Path, meta: &Partition) -> Result<Meta, DiskError> {
    let broken = |why| DiskError::Record { label: "META", why };
    let mut buffer = vec![0; usize::try_from(meta.bytes).unwrap_or_default()];
    file.read_exact_at(&mut buffer, meta.start).map_err(DiskError::io(path))?;
    let Some(rest) = buffer.strip_prefix(META_MAGIC) else {
        let empty = buffer.iter().all(|byte| *byte == 0);
        return if empty { Ok(Meta::default()) } else { Err(broken("it holds bytes that the image doesn't")) };
    };
    let (length, rest) = rest.split_at(4);
    let length = length.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    let (expected, rest) = rest.split_at(32);
    let json = rest.get(..length).ok_or(broken("it is cut off"))?;
    if Sha256::digest(json)[..] != *expected {
        return Err(broken("its checksum doesn't match"));
    }
    if buffer[META_BYTES..].iter().any(|byte| *byte != 0) {
        return Err(broken("it holds bytes that the image doesn't"));
    }
    serde_json::from_slice(json).map_err(|_| broken("it makes no sense"))
}

/// Writes META.
pub fn store_meta(path: &Path, meta: &Meta) -> Result<(), DiskError> {
    let (file, table) = open(path)?;
    let partition = table.find("META")?;
    let json = serde_json::to_vec(meta).map_err(|_| DiskError::Record { label: "META", why: "it can't be written" })?;
    let mut block = META_MAGIC.to_vec();
    block.extend(u32::try_from(json.len()).unwrap_or_default().to_le_bytes());
    block.extend(Sha256::digest(&json));
    block.extend(json);
    if block.len() > META_BYTES {
        return Err(DiskError::Record { label: "META", why: "no space left on device" });
    }
    block.resize(META_BYTES, 0);
    file.write_all_at(&block, partition.start).map_err(DiskError::io(path))
}

/// What is in a slot; `None` when nothing is, or nothing whole.
pub fn slot(path: &Path, slot: Slot) -> Result<Option<Recipe>, DiskError> {
    let (file, table) = open(path)?;
    Ok(read_slot(&file, path, &table, slot).ok().map(|marker| marker.recipe))
}

/// Whether what is in a slot would boot.
pub fn slot_boots(path: &Path, slot: Slot) -> Result<(), DiskError> {
    let (file, table) = open(path)?;
    boots(&file, path, &read_slot(&file, path, &table, slot)?)
}

/// Writes boot files for `recipe` into a slot, replacing what was there.
pub fn install(path: &Path, slot: Slot, recipe: &Recipe) -> Result<(), DiskError> {
    let (file, table) = open(path)?;
    let start = slot.start(table.find("BOOT")?);
    let mut noise = Noise::new(&format!("{} {} {} upgrade", recipe.schematic, recipe.version, recipe.signed));
    let mut files = vec![0; usize::try_from(UPGRADE_BYTES).unwrap_or_default()];
    noise.fill(&mut files);
    let extents = vec![(start + MARKER_BYTES, UPGRADE_BYTES)];
    let marker = Marker { recipe: recipe.clone(), extents, sha256: hex::encode(Sha256::digest(&files)) };
    // The entry comes last: an upgrade that is interrupted leaves no entry, not a wrong one.
    file.write_all_at(&[0; MAGIC.len()], start).map_err(DiskError::io(path))?;
    file.write_all_at(&files, start + MARKER_BYTES).map_err(DiskError::io(path))?;
    file.write_all_at(&marker_block(&marker)?, start).map_err(DiskError::io(path))
}

/// Damages the boot files in a slot: they are there, and don't boot.
pub fn spoil(path: &Path, slot: Slot) -> Result<(), DiskError> {
    let (file, table) = open(path)?;
    let start = slot.start(table.find("BOOT")?) + MARKER_BYTES;
    file.write_all_at(&[0; 4096], start).map_err(DiskError::io(path))
}

/// The file must exist: a machine whose disk was deleted under it doesn't bring the file back.
fn open(path: &Path) -> Result<(File, Table), DiskError> {
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(DiskError::io(path))?;
    let bytes = file.metadata().map_err(DiskError::io(path))?.len();
    let table = Table::read(&file, path, bytes)?;
    Ok((file, table))
}
