//! An archive that is read.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use super::names;
use crate::vma::{Header, Packing, Reader, Totals, VmaError, unpack};
use crate::world::World;
use crate::world::node_files::NodeFile;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::{State, VolumeKey};
use crate::world::volume::parse_name;

/// An archive that was found.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// Where it really is.
    pub real: PathBuf,
    /// What the node calls it.
    pub shown: String,
    /// How it is packed.
    pub packing: Packing,
}

impl State {
    /// Refuses an archive that the caller may not use for a VM.
    pub fn check_archive(&self, caller: &Caller, vmid: Option<u32>, archive: &str) -> Rule<()> {
        if let Some((storage, name)) = VolumeKey::split(archive) {
            let missing = || Refusal::failed(format!("storage '{storage}' does not exist\n"));
            let named = parse_name(self.storages.get(storage).ok_or_else(missing)?, name).map_err(Refusal::Failed)?;
            if named.content != "backup" {
                let text = format!("unable to use volume {archive} - content type needs to be 'backup'\n");
                return Err(Refusal::failed(text));
            }
        }
        self.check_volume(caller, vmid.unwrap_or_default(), archive)
    }
}

pub(super) fn config_text(header: &Header) -> String {
    String::from_utf8_lossy(header.config("qemu-server.conf").unwrap_or_default()).into_owned()
}

pub(super) fn header_of(source: &Source) -> Result<Header, VmaError> {
    let open = |what| move |error| VmaError::Io { what, source: error };
    let file = File::open(&source.real).map_err(open("can't open the archive"))?;
    let unpacked = unpack(file, source.packing).map_err(open("can't unpack the archive"))?;
    Ok(Reader::open(unpacked)?.header().clone())
}

pub(super) fn pour(source: &Source, targets: &BTreeMap<u8, PathBuf>) -> Result<Totals, VmaError> {
    let open = |what| move |error| VmaError::Io { what, source: error };
    let mut files = BTreeMap::new();
    for (device, path) in targets {
        let file = File::options().write(true).open(path).map_err(open("can't open the target"))?;
        files.insert(*device, file);
    }
    let file = File::open(&source.real).map_err(open("can't open the archive"))?;
    let mut reader = Reader::open(unpack(file, source.packing).map_err(open("can't unpack the archive"))?)?;
    reader.restore(|device, offset, bytes| match files.get(&device) {
        Some(file) => file.write_all_at(bytes, offset),
        None => Ok(()),
    })
}

pub(super) async fn apart<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, VmaError> + Send + 'static,
) -> Result<T, VmaError> {
    let joined = tokio::task::spawn_blocking(run).await;
    joined.map_err(|error| VmaError::Broken(format!("the reader ended early: {error}")))?
}

impl World {
    /// The file behind an archive.
    pub(super) fn find_archive(&self, node: &str, archive: &str) -> Rule<Source> {
        let volume = self.state().volume_key(node, archive);
        let (real, shown) = if let Some(key) = &volume {
            let state = self.state();
            state.storage_on(&key.storage, node)?;
            (Some(state.file_of(self.dir(), key)), state.path_of(key))
        } else {
            let file = self.node_file(node, archive);
            (if let Some(NodeFile::File { real, .. }) = file { Some(real) } else { None }, archive.to_owned())
        };
        let Some(real) = real.filter(|real| real.is_file()) else {
            let text = if volume.is_some() {
                format!("volume '{archive}' does not exist\n")
            } else {
                format!("can't find file '{archive}'\n")
            };
            return Err(Refusal::failed(text));
        };
        let name = shown.rsplit('/').next().unwrap_or_default();
        let Some(named) = names::archive(name) else {
            return Err(Refusal::failed(format!("ERROR: couldn't determine archive info from '{shown}'\n")));
        };
        if named.kind != "qemu" {
            return Err(Refusal::failed(format!("'{shown}' is no backup of a VM\n")));
        }
        if let Some(packing) = Packing::of(name) {
            return Ok(Source { real, shown, packing });
        }
        Err(Refusal::failed("unable to find command 'tar'\n"))
    }

    /// The config that an archive holds, as text.
    pub fn archived_config(&self, node: &str, archive: &str) -> Rule<String> {
        let source = self.find_archive(node, archive)?;
        let failed = |error| Refusal::failed(format!("Failed to extract config from VMA archive: vma: {error}\n"));
        Ok(config_text(&header_of(&source).map_err(failed)?))
    }
}
