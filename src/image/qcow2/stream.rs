//! Emits the qcow2 file, in order, from a second reading of the image.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::super::fanout::{Fanout, GivenUp};
use super::super::inspect::{CLUSTER, Inspected};
use super::super::walker::{Content, Extent, Limits, WalkError, walk};
use super::layout::Layout;
use crate::types::Sha256;

const CLUSTER_BYTES: usize = 64 << 10;
/// How much is handed over at once.
const HANDFUL: usize = 512 << 10;

/// Why no qcow2 came of an image.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The image could not be decoded.
    #[error("could not decode the image")]
    Walk(#[from] WalkError),
    /// The image isn't the one that was inspected.
    #[error("the image changed between two readings: its content was {first}, then {second}")]
    Changed {
        /// Content digest of the first reading.
        first: Sha256,
        /// Content digest of the second, or what is known of it.
        second: String,
    },
    /// Disks consist of sectors.
    #[error("the disk has {bytes} bytes, which is no multiple of 512")]
    NotSectors {
        /// Its size.
        bytes: u64,
    },
    /// Whoever took the chunks stopped taking them.
    #[error("the upload was given up")]
    GivenUp,
    /// No thread to decode on.
    #[error("could not start a thread")]
    Thread(#[source] io::Error),
}

/// A qcow2 file that exists only while it is sent.
#[derive(Clone, Debug)]
pub struct Qcow2 {
    path: PathBuf,
    limits: Limits,
    inspected: Inspected,
    layout: Layout,
    sha256: Sha256,
}

impl Qcow2 {
    /// Lays the file out and computes its SHA-256 with one reading of the image, on a blocking thread.
    pub async fn prepare(path: &Path, inspected: Inspected, limits: Limits) -> Result<Self, Qcow2Error> {
        let path = path.to_owned();
        let prepared = tokio::task::spawn_blocking(move || Self::prepare_blocking(path, inspected, limits));
        prepared.await.unwrap_or(Err(Qcow2Error::GivenUp))
    }

    /// [`Qcow2::prepare`], blocking.
    pub(super) fn prepare_blocking(path: PathBuf, inspected: Inspected, limits: Limits) -> Result<Self, Qcow2Error> {
        let bytes = inspected.content.disk_bytes;
        if !bytes.is_multiple_of(512) {
            return Err(Qcow2Error::NotSectors { bytes });
        }
        let layout = Layout::new(bytes, &inspected.clusters);
        let mut qcow2 = Self { path, limits, inspected, layout, sha256: Sha256([0; 32]) };
        let mut digest = sha2::Sha256::new();
        qcow2.emit(|chunk| {
            digest.update(&chunk);
            Ok(())
        })?;
        qcow2.sha256 = Sha256(digest.finalize().into());
        Ok(qcow2)
    }

    /// Size of the file in bytes: the exact length of [`Qcow2::stream`].
    pub fn file_bytes(&self) -> u64 {
        self.layout.file_bytes()
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// What is in it.
    pub fn content(&self) -> &Content {
        &self.inspected.content
    }

    /// The file's bytes, in order, for as many as take them at once: a [`Qcow2Stream`] each. The last chunk comes only
    /// after the whole image was verified to be the one that was inspected: otherwise the stream ends with an error, short
    /// of its announced length.
    pub fn fanout(&self, takers: usize) -> Fanout {
        let qcow2 = self.clone();
        Fanout::new(takers, move |each| {
            let mut given_up = false;
            // Clusters are handed out many at a time: each hand-over wakes a thread.
            let mut gathered = Vec::with_capacity(HANDFUL);
            let mut pass_on = |chunk: Bytes| {
                each(chunk).map_err(|GivenUp| {
                    given_up = true;
                    Qcow2Error::GivenUp
                })
            };
            let emitted = qcow2.emit(|chunk| {
                gathered.extend_from_slice(&chunk);
                if gathered.len() < HANDFUL {
                    return Ok(());
                }
                pass_on(std::mem::replace(&mut gathered, Vec::with_capacity(HANDFUL)).into())
            });
            let emitted = emitted.and_then(|()| if gathered.is_empty() { Ok(()) } else { pass_on(gathered.into()) });
            if given_up { Ok(()) } else { emitted.map_err(io::Error::other) }
        })
    }

    /// Decodes the image and gives the file's chunks to `each`, in order, the last one only after the verdict.
    pub(super) fn emit(&self, mut each: impl FnMut(Bytes) -> Result<(), Qcow2Error>) -> Result<(), Qcow2Error> {
        let metadata = Bytes::from(self.layout.metadata(&self.inspected.clusters));
        let mut held = None;
        let mut pass_on = |chunk: Bytes| held.replace(chunk).map_or(Ok(()), &mut each);
        for start in (0..metadata.len()).step_by(CLUSTER_BYTES) {
            pass_on(metadata.slice(start..start + CLUSTER_BYTES))?;
        }
        let mut expected = self.inspected.clusters.iter();
        let mut open: Option<(u64, Vec<u8>)> = None;
        let content = walk::<Qcow2Error>(&self.path, self.limits, |extent| {
            for (cluster, within, bytes) in pieces(extent) {
                if open.as_ref().is_none_or(|(number, _)| *number != cluster) {
                    if expected.next() != Some(cluster) {
                        return Err(self.changed("other data".to_owned()));
                    }
                    if let Some((_, full)) = open.replace((cluster, vec![0; CLUSTER_BYTES])) {
                        pass_on(Bytes::from(full))?;
                    }
                }
                if let Some((_, buffer)) = &mut open {
                    buffer[within..within + bytes.len()].copy_from_slice(bytes);
                }
            }
            Ok(())
        })?;
        if content != self.inspected.content {
            return Err(self.changed(content.sha256.to_string()));
        }
        if let Some((_, full)) = open {
            pass_on(Bytes::from(full))?;
        }
        held.map_or(Ok(()), each)
    }

    fn changed(&self, second: String) -> Qcow2Error {
        Qcow2Error::Changed { first: self.inspected.content.sha256, second }
    }
}

/// Cuts an extent at cluster boundaries: cluster number, offset within it, bytes.
fn pieces(extent: Extent<'_>) -> impl Iterator<Item = (u64, usize, &[u8])> {
    let mut offset = extent.offset;
    let mut rest = extent.bytes;
    std::iter::from_fn(move || {
        let within = usize::try_from(offset % CLUSTER).unwrap_or(0);
        let (piece, after) = rest.split_at(rest.len().min(CLUSTER_BYTES - within));
        let cluster = offset / CLUSTER;
        (offset, rest) = (offset + piece.len() as u64, after);
        (!piece.is_empty()).then_some((cluster, within, piece))
    })
}

/// The bytes of a [`Qcow2`] in order, [`Qcow2::file_bytes`] in all. An error in it tells what a [`Qcow2Error`] did.
#[derive(Debug)]
pub struct Qcow2Stream {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
}

impl Qcow2Stream {
    /// One taker's stream.
    pub fn of(fanout: &Fanout) -> Result<Self, Qcow2Error> {
        let mut taken = fanout.join().map_err(Qcow2Error::Thread)?;
        let (send, chunks) = mpsc::channel(1);
        let work = move || {
            loop {
                let next = taken.next_chunk();
                let over = !matches!(next, Ok(Some(_)));
                let Some(next) = next.transpose() else { return };
                // Nobody listens any more when the upload was given up.
                if send.blocking_send(next).is_err() || over {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("qcow2".to_owned()).spawn(work).map_err(Qcow2Error::Thread)?;
        Ok(Self { chunks })
    }
}

impl Stream for Qcow2Stream {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.chunks.poll_recv(cx)
    }
}
