//! Reads an image through once: is it whole, is it a Talos disk, where is its data.
//!
//! Purpose: the facts that steps journal (size, content digest) and the map that a qcow2 is laid out from.
//! Must not know: networks, where the image goes.

use std::path::Path;

use super::input::Input;
use super::talos_disk::Probe;
use super::walker::{Content, Extent, Limits, WalkError, walk_input};

/// Size of a cluster in bytes: the unit in which a qcow2 allocates.
pub(super) const CLUSTER: u64 = 64 << 10;

/// Which 64 KiB clusters of a disk hold data. A bit each, so that it stays small for any disk (64 KiB for 32 GiB).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMap {
    words: Vec<u64>,
}

impl ClusterMap {
    /// Marks every cluster that the extent touches.
    pub(super) fn mark(&mut self, extent: Extent<'_>) {
        let end = extent.offset + extent.bytes.len() as u64;
        for cluster in extent.offset / CLUSTER..end.div_ceil(CLUSTER) {
            let (word, bit) = place(cluster);
            if self.words.len() <= word {
                self.words.resize(word + 1, 0);
            }
            self.words[word] |= 1 << bit;
        }
    }

    /// Whether the cluster of this number holds data.
    pub fn has(&self, cluster: u64) -> bool {
        let (word, bit) = place(cluster);
        self.words.get(word).is_some_and(|bits| bits >> bit & 1 == 1)
    }

    /// How many clusters hold data.
    pub fn count(&self) -> u64 {
        self.words.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// The numbers of the clusters that hold data, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.words.len() as u64 * 64).filter(|cluster| self.has(*cluster))
    }
}

fn place(cluster: u64) -> (usize, u64) {
    (usize::try_from(cluster / 64).unwrap_or(usize::MAX), cluster % 64)
}

/// What one reading of an image found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Size, data and digest.
    pub content: Content,
    /// Where the data is.
    pub clusters: ClusterMap,
}

/// Decodes the image at `path` to its end on a blocking thread. An answer means that the container is whole and every
/// check in it matched, and that the disk in it has Talos' partitions.
pub async fn inspect(path: &Path, limits: Limits) -> Result<Inspected, WalkError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read_through(&path, limits)).await.unwrap_or(Err(WalkError::GivenUp))
}

/// [`inspect`], blocking.
pub(super) fn read_through(path: &Path, limits: Limits) -> Result<Inspected, WalkError> {
    let input = Input::open(path).map_err(|source| WalkError::Read { path: path.to_owned(), source })?;
    read_input(input, limits)
}

/// [`inspect`] of a file that may still be growing, blocking.
pub(super) fn read_input(input: Input, limits: Limits) -> Result<Inspected, WalkError> {
    let mut clusters = ClusterMap::default();
    let mut probe = Probe::new();
    let content = walk_input::<WalkError>(input, limits, |extent| {
        clusters.mark(extent);
        probe.see(extent);
        Ok(())
    })?;
    probe.verdict(content.disk_bytes).map_err(WalkError::NotTalos)?;
    Ok(Inspected { content, clusters })
}

#[cfg(test)]
mod tests {
    use super::super::talos_disk::NotTalos;
    use super::super::talos_disk::tests::disk;
    use super::super::walker::tests::{file, odd_disk, xz};
    use super::*;

    #[test]
    fn a_talos_image_is_taken_and_its_data_found() {
        let disk = disk(8, &["EFI", "META"]);
        let found = read_through(file(&xz(&disk)).path(), Limits::default()).unwrap();
        assert_eq!(found.content.disk_bytes, 8 << 20);
        // Both ends of the disk, and 200 kB from the first MiB on.
        assert_eq!(found.clusters.iter().collect::<Vec<_>>(), [0, 16, 17, 18, 19, 127]);
        assert_eq!(found, read_through(file(&disk).path(), Limits::default()).unwrap());
    }

    #[test]
    fn a_sound_image_of_something_else_is_refused() {
        let refused = read_through(file(&xz(&odd_disk())).path(), Limits::default());
        assert!(matches!(refused, Err(WalkError::NotTalos(NotTalos::NoTable))));
    }
}
