//! Image files, made on the first request and kept.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{FactoryError, gzip, qcow2, xz};
use crate::disk::{self, IMAGE_BYTES, Recipe};

/// How a disk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Raw,
    Xz,
    Zstd,
    Gzip,
    Qcow2,
}

impl Packing {
    /// All of them; what one ends with is the end of no other.
    pub(super) const ALL: [Self; 5] = [Self::Xz, Self::Zstd, Self::Gzip, Self::Raw, Self::Qcow2];

    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Xz => "raw.xz",
            Self::Zstd => "raw.zst",
            Self::Gzip => "raw.gz",
            Self::Qcow2 => "qcow2",
        }
    }
}

pub(super) struct Images {
    dir: PathBuf,
    building: Mutex<BTreeMap<PathBuf, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub(super) fn new(dir: PathBuf) -> Result<Self, FactoryError> {
        fs::create_dir_all(&dir).map_err(|source| FactoryError::Folder { path: dir.clone(), source })?;
        Ok(Self { dir, building: Mutex::default() })
    }

    /// The file for `recipe`, made now if need be; equal requests share one build, which goes on when they give up.
    pub(super) async fn get(&self, recipe: Recipe, packing: Packing) -> Result<PathBuf, FactoryError> {
        let signed = if recipe.signed { "-secureboot" } else { "" };
        let stem = self.dir.join(format!("{}-{}{signed}", recipe.schematic, recipe.version));
        let path = PathBuf::from(format!("{}.{}", stem.display(), packing.suffix()));
        let turn = {
            let mut building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
            building.entry(stem.clone()).or_default().clone()
        };
        let made = path.clone();
        let build = tokio::task::spawn(async move {
            let _turn = turn.lock().await;
            if made.exists() {
                return Ok(());
            }
            let job = move || make(&recipe, packing, &stem, &made);
            tokio::task::spawn_blocking(job).await.map_err(|_| FactoryError::Interrupted)?
        });
        build.await.map_err(|_| FactoryError::Interrupted)??;
        Ok(path)
    }
}

fn make(recipe: &Recipe, packing: Packing, stem: &Path, path: &Path) -> Result<(), FactoryError> {
    let raw = PathBuf::from(format!("{}.raw", stem.display()));
    let part = PathBuf::from(format!("{}.part", path.display()));
    if !raw.exists() {
        disk::build(recipe, &part)?;
        rename(&part, &raw)?;
    }
    if packing == Packing::Raw {
        return Ok(());
    }
    pack(&raw, &part, packing).map_err(|source| FactoryError::Folder { path: part.clone(), source })?;
    rename(&part, path)
}

fn pack(raw: &Path, part: &Path, packing: Packing) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, File::create(part)?);
    let open = || File::open(raw).map(|file| BufReader::with_capacity(1 << 20, file));
    match packing {
        Packing::Raw => io::copy(&mut open()?, &mut to).map(|_| ())?,
        Packing::Xz => xz::compress(&mut open()?, &mut to)?,
        Packing::Zstd => zstd::stream::copy_encode(open()?, &mut to, 1)?,
        Packing::Gzip => gzip::compress(&mut open()?, &mut to)?,
        Packing::Qcow2 => qcow2::convert(open, IMAGE_BYTES, &mut to)?,
    }
    to.flush()
}

fn rename(from: &Path, to: &Path) -> Result<(), FactoryError> {
    fs::rename(from, to).map_err(|source| FactoryError::Folder { path: to.to_owned(), source })
}
