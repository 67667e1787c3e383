//! What files that come have in common, however they come: a name that fits, a checksum, a volume in the end.

use std::path::Path;

use crate::world::World;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::{Volume, VolumeKey};
use crate::world::volume::parse_name;

/// Whether a name fits a content type; `Err` is the text for `filename`.
pub(super) fn check_name(content: &str, name: &str) -> Rule<()> {
    let lower = name.to_ascii_lowercase();
    // An extension alone is no name.
    let ends = |ends: &[&str]| ends.iter().any(|end| lower.ends_with(end) && lower.len() > end.len());
    let fits = match content {
        "iso" => ends(&[".iso", ".img"]),
        "vztmpl" => ends(&[".tar.gz", ".tar.xz", ".tar.zst", ".tar.bz2"]),
        _ => {
            let known =
                [".ova", ".qcow2", ".raw", ".vmdk"].iter().any(|end| name.ends_with(end) && name.len() > end.len());
            if !known {
                return Err(Refusal::param("filename", "invalid filename or wrong extension"));
            }
            true
        }
    };
    if fits { Ok(()) } else { Err(Refusal::param("filename", "wrong file extension")) }
}

/// Makes the file of a volume known.
pub(super) fn register(world: &World, key: &VolumeKey, size: u64) -> Rule<()> {
    let mut state = world.state();
    let storage = state.storages.get(&key.storage);
    let named = storage.and_then(|storage| parse_name(storage, &key.name).ok());
    let Some(named) = named else { return Err(Refusal::failed("the storage is gone\n")) };
    let volume = Volume {
        content: named.content.to_owned(),
        format: named.format,
        size,
        vmid: None,
        parent: None,
        ctime: world.clock().unix(),
        notes: None,
        protected: false,
        snapshots: std::collections::BTreeSet::new(),
    };
    state.volumes.insert(key.clone(), volume);
    Ok(())
}

/// Does what would hold up others.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Rule<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .and_then(|result| result)
        .map_err(|error| Refusal::failed(format!("{error}\n")))
}

/// The checksum of a file in hexadecimal digits.
pub(super) fn checksum(algorithm: &str, path: &Path) -> std::io::Result<String> {
    fn run<D: sha2::Digest>(path: &Path) -> std::io::Result<String> {
        let (mut hasher, mut file) = (D::new(), std::fs::File::open(path)?);
        let mut buffer = vec![0_u8; 1 << 20];
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                return Ok(hex::encode(hasher.finalize().as_slice()));
            }
            hasher.update(&buffer[..read]);
        }
    }
    match algorithm {
        "sha1" => run::<sha1::Sha1>(path),
        "sha224" => run::<sha2::Sha224>(path),
        "sha384" => run::<sha2::Sha384>(path),
        "sha512" => run::<sha2::Sha512>(path),
        "md5" => {
            let mut hasher = md5::Context::new();
            let mut file = std::fs::File::open(path)?;
            std::io::copy(&mut file, &mut hasher)?;
            Ok(format!("{:x}", hasher.finalize()))
        }
        _ => run::<sha2::Sha256>(path),
    }
}
