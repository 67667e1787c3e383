//! Brings image files here once and keeps them under the digest of their bytes.
//!
//! Purpose: `<cache>/sha256/<digest>` is whole, was verified and never changes; anything else in the folder is work in
//! progress. `<cache>/address/<key>` remembers which digest an address had, for when none is pinned.
//! Must not know: what is asked of the factory beforehand, locks of profiles, retry policies. A cut download goes on at
//! once as long as every attempt brings something; waiting between attempts is the caller's business.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::inspect::{Inspected, read_through};
use super::part::{self, Known, Part, failed};
use super::source::{self, FetchError, Opened, Resume, Wanted};
use super::walker::{Limits, WalkError};
use crate::net::Meter;
use crate::net::http::{Client, HttpError};
use crate::types::Sha256;

/// Chunks that may wait for the disk.
const AHEAD: usize = 32;

/// A file in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cached {
    /// Where it lies.
    pub path: PathBuf,
    /// Its digest.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub bytes: u64,
    /// How many bytes the call that returned it took from the network; the others were here.
    pub fetched: u64,
}

/// A folder of image files. Several processes may use the same one.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which is made when the first file comes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Where the file of this digest lies, if it is here.
    pub fn path(&self, sha256: Sha256) -> PathBuf {
        self.folder.join("sha256").join(sha256.to_string())
    }

    /// The wanted file if it is here: by the pinned digest, else by what its address had last time, provided that it
    /// still has the wanted size. Its bytes are hashed; a file that rotted is removed.
    pub async fn lookup(&self, wanted: &Wanted) -> Result<Option<Cached>, FetchError> {
        let Some(sha256) = wanted.sha256.or_else(|| self.remembered(wanted)) else { return Ok(None) };
        let path = self.path(sha256);
        let hashed = blocking({
            let path = path.clone();
            move || hash_file(&path)
        });
        let Some((found, bytes)) = hashed.await? else { return Ok(None) };
        if found != sha256 {
            tracing::warn!(file = %path.display(), "a file in the image cache is damaged and is removed");
            part::remove(&path)?;
            return Ok(None);
        }
        let outdated = wanted.sha256.is_none() && wanted.bytes.is_some_and(|expected| expected != bytes);
        Ok((!outdated).then_some(Cached { path, sha256, bytes, fetched: 0 }))
    }

    /// Brings the wanted image here, or finds it here, and reads it through. It appears in the cache only when length,
    /// digest, container and partition table were all found right; otherwise nothing of it stays (but a download that
    /// was merely cut: the next call takes it up). Bytes that were here already count as moved at once.
    pub async fn fetch(
        &self,
        client: &Client,
        wanted: &Wanted,
        limits: Limits,
        meter: &dyn Meter,
    ) -> Result<(Cached, Inspected), FetchError> {
        self.bring(client, wanted, move |path| read_through(path, limits), meter).await
    }

    async fn bring<T: Send + 'static>(
        &self,
        client: &Client,
        wanted: &Wanted,
        check: impl Fn(&Path) -> Result<T, WalkError> + Clone + Send + 'static,
        meter: &dyn Meter,
    ) -> Result<(Cached, T), FetchError> {
        if let Some(cached) = self.lookup(wanted).await? {
            return found(cached, check, meter).await;
        }
        let (folder, key) = (self.folder.join("part"), key(wanted));
        let lock = part::lock(&folder, &key).await?;
        // Another process may have brought it while this one waited.
        if let Some(cached) = self.lookup(wanted).await? {
            return found(cached, check, meter).await;
        }
        let mut part = blocking(move || Part::open(&folder, &key, lock)).await?;
        loop {
            let (whole, fetched) = self.download(client, wanted, part, meter).await?;
            let resumed = fetched < whole.bytes();
            match self.judge(whole, wanted, check.clone()).await? {
                Ok((cached, checked)) => return Ok((Cached { fetched, ..cached }, checked)),
                // What an earlier run left may be damaged, or of another version of the file: the whole gets one chance.
                Err((rejected, error)) if resumed => {
                    tracing::warn!(%error, "the resumed download is not right and starts over");
                    part = rejected;
                    part.restart(Known::default())?;
                }
                Err((rejected, error)) => {
                    rejected.discard()?;
                    return Err(error);
                }
            }
        }
    }

    /// Compares and checks what was downloaded, and publishes it if it is right.
    async fn judge<T: Send + 'static>(
        &self,
        part: Part,
        wanted: &Wanted,
        check: impl FnOnce(&Path) -> Result<T, WalkError> + Send + 'static,
    ) -> Result<Result<(Cached, T), (Part, FetchError)>, FetchError> {
        let (cache, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let (found, bytes) = (part.sha256(), part.bytes());
            if let Some(expected) = wanted.sha256.filter(|expected| *expected != found) {
                return Ok(Err((part, FetchError::WrongDigest { expected, found })));
            }
            let checked = match check(part.path()) {
                Ok(checked) => checked,
                Err(error) => return Ok(Err((part, FetchError::Image(error)))),
            };
            let path = cache.path(found);
            part.publish(&path)?;
            cache.remember(&wanted, found)?;
            Ok(Ok((Cached { path, sha256: found, bytes, fetched: 0 }, checked)))
        })
        .await
    }

    /// Downloads what is missing, in as many attempts as bring something; says how much came over the network.
    async fn download(
        &self,
        client: &Client,
        wanted: &Wanted,
        mut part: Part,
        meter: &dyn Meter,
    ) -> Result<(Part, u64), FetchError> {
        let mut fetched = 0;
        loop {
            let before = part.bytes();
            if before > 0 && part.known().total == Some(before) {
                return Ok((part, fetched));
            }
            let Known { total, etag } = part.known().clone();
            let resume = (before > 0).then_some(Resume { from: before, total, etag: etag.as_deref() });
            let opened = source::open(client, &wanted.url, resume).await?;
            if let Some((expected, found)) =
                wanted.bytes.zip(opened.total).filter(|(expected, found)| expected != found)
            {
                part.discard()?;
                return Err(FetchError::WrongLength { expected, found });
            }
            let total = opened.total.or(wanted.bytes);
            if let Some(total) = total {
                meter.total(total);
            }
            if opened.start == 0 {
                part.restart(Known { total, etag: opened.etag.clone() })?;
                fetched = 0;
            } else if fetched == 0 {
                meter.add(opened.start);
            }
            let (received_part, end) = receive(part, opened, total, meter).await?;
            part = received_part;
            let received = part.bytes();
            fetched += end.bytes;
            match total {
                Some(expected) if received > expected => {
                    part.discard()?;
                    return Err(FetchError::WrongLength { expected, found: received });
                }
                Some(expected) if received == expected => return Ok((part, fetched)),
                None if end.whole => return Ok((part, fetched)),
                Some(expected) if end.whole => {
                    part.discard()?;
                    return Err(FetchError::WrongLength { expected, found: received });
                }
                // Strictly more than ever before: a server that always begins anew and stops at the same byte ends this.
                _ if received > before => tracing::debug!(received, "the download was cut and goes on"),
                _ => return Err(FetchError::Cut { received, expected: total, source: end.error }),
            }
        }
    }

    fn remembered(&self, wanted: &Wanted) -> Option<Sha256> {
        fs::read_to_string(self.folder.join("address").join(key(wanted))).ok()?.trim().parse().ok()
    }

    fn remember(&self, wanted: &Wanted, sha256: Sha256) -> Result<(), FetchError> {
        let folder = self.folder.join("address");
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(key(wanted));
        let written = tempfile::NamedTempFile::new_in(&folder).and_then(|file| {
            fs::write(file.path(), format!("{sha256}\n"))?;
            file.persist(&path).map_err(|error| error.error)
        });
        written.map(drop).map_err(failed("write", &path))
    }
}

/// A cache hit: counted as moved at once, and read through like a fresh file.
async fn found<T: Send + 'static>(
    cached: Cached,
    check: impl FnOnce(&Path) -> Result<T, WalkError> + Send + 'static,
    meter: &dyn Meter,
) -> Result<(Cached, T), FetchError> {
    meter.total(cached.bytes);
    meter.add(cached.bytes);
    let path = cached.path.clone();
    let checked = blocking(move || check(&path).map_err(FetchError::Image)).await?;
    Ok((cached, checked))
}

/// How a body ended.
struct End {
    /// How many bytes came.
    bytes: u64,
    /// Whether the server said that this was all.
    whole: bool,
    /// What the connection said when it broke; nothing when it fell silent.
    error: Option<HttpError>,
}

/// Writes the answer's body to the part, on a thread of its own.
async fn receive(
    part: Part,
    mut opened: Opened,
    total: Option<u64>,
    meter: &dyn Meter,
) -> Result<(Part, End), FetchError> {
    let (send, chunks) = mpsc::channel(AHEAD);
    let left = total.map_or(u64::MAX, |total| total.saturating_sub(part.bytes()));
    let writer = spawn_blocking(move || part.append(chunks));
    let mut end = End { bytes: 0, whole: false, error: None };
    loop {
        match tokio::time::timeout(source::PAUSE, opened.answer.chunk()).await {
            Err(_) => break,
            Ok(Err(error)) => {
                end.error = Some(error);
                break;
            }
            Ok(Ok(None)) => {
                end.whole = true;
                break;
            }
            Ok(Ok(Some(chunk))) => {
                let length = chunk.len() as u64;
                end.bytes += length;
                // A refused chunk means that the disk failed, which the writer tells. Beyond the announced end one chunk
                // is enough to know: nobody fills our disk.
                if send.send(chunk).await.is_err() || end.bytes > left {
                    break;
                }
                meter.add(length);
            }
        }
    }
    drop(send);
    Ok((joined(writer.await)?, end))
}

/// What names an address in the cache.
fn key(wanted: &Wanted) -> String {
    Sha256::of(source::without_query(&wanted.url).as_bytes()).to_string()
}

/// The digest and size of a file, unless there is none.
fn hash_file(path: &Path) -> Result<Option<(Sha256, u64)>, FetchError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("open", path)(error)),
    };
    let mut digest = sha2::Sha256::new();
    let bytes = part::hash(&mut file, &mut digest).map_err(failed("read", path))?;
    Ok(Some((Sha256(digest.finalize().into()), bytes)))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FetchError> + Send + 'static,
) -> Result<T, FetchError> {
    joined(spawn_blocking(work).await)
}

fn joined<T>(done: Result<Result<T, FetchError>, tokio::task::JoinError>) -> Result<T, FetchError> {
    done.unwrap_or(Err(FetchError::GivenUp))
}

#[cfg(test)]
mod tests;
