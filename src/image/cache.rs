//! Brings image files here once and keeps them under the digest of their bytes.
//!
//! Purpose: `<cache>/sha256/<digest>` is whole, was verified and never changes, and is hashed again by every use; anything
//! else in the folder is work in progress. `<cache>/address/<key>` remembers which digest an address had, for when none
//! is pinned.
//! Must not know: what is asked of the factory beforehand, locks of profiles, retry policies. A cut download goes on at
//! once as long as every attempt brings something; waiting between attempts is the caller's business.

mod checking;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::Digest as _;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use checking::Checking;

use super::input::Input;
use super::inspect::{Inspected, read_input};
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

/// The most that is kept, in bytes: what was not used for longest goes when a new file comes.
const LIMIT: u64 = 16 << 30;

/// What was used this short a time ago may be in use by another process.
const IN_USE: Duration = Duration::from_hours(1);

/// A file that is kept.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Kept {
    /// Its digest, which is its name.
    pub sha256: Sha256,
    /// Its size in bytes.
    pub bytes: u64,
    /// Where it came from, without the query, if that is still known.
    pub url: Option<String>,
    /// When it was used last.
    pub used: jiff::Timestamp,
}

impl Cache {
    /// The cache in this folder, which is made when the first file comes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The most that it keeps, in bytes.
    pub fn limit(&self) -> u64 {
        LIMIT
    }

    /// What is kept, the one used last first. Blocking.
    pub fn list(&self) -> Result<Vec<Kept>, FetchError> {
        let urls = self.addresses()?;
        let mut kept = Vec::new();
        for (name, path) in entries(&self.folder.join("sha256"))? {
            // What isn't named by a digest isn't ours.
            let Ok(sha256) = name.parse::<Sha256>() else { continue };
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            let used = metadata.modified().ok().and_then(|at| jiff::Timestamp::try_from(at).ok()).unwrap_or_default();
            kept.push(Kept { sha256, bytes: metadata.len(), url: urls.get(&sha256).cloned(), used });
        }
        kept.sort_by(|one, other| other.used.cmp(&one.used).then_with(|| one.sha256.cmp(&other.sha256)));
        Ok(kept)
    }

    /// What has to go for so many bytes to be left at most: what was not used for longest. Blocking.
    pub fn beyond(&self, bytes: u64) -> Result<Vec<Kept>, FetchError> {
        let mut left = bytes;
        let mut doomed = self.list()?;
        doomed.retain(|kept| {
            let stays = kept.bytes <= left;
            left = if stays { left - kept.bytes } else { 0 };
            !stays
        });
        Ok(doomed)
    }

    /// Deletes files; one that is gone already is no error. Blocking.
    pub fn remove(&self, doomed: &[Kept]) -> Result<(), FetchError> {
        for kept in doomed {
            part::remove(&self.path(kept.sha256))?;
        }
        for (_, path) in entries(&self.folder.join("address"))? {
            let digest = read_address(&path).map(|(sha256, _)| sha256);
            if digest.is_some_and(|digest| doomed.iter().any(|kept| kept.sha256 == digest)) {
                part::remove(&path)?;
            }
        }
        Ok(())
    }

    /// Keeps within the limit, but never at the cost of what may be in use. Blocking.
    fn trim(&self) -> Result<(), FetchError> {
        let recently = jiff::Timestamp::now() - IN_USE;
        let mut doomed = self.beyond(LIMIT)?;
        doomed.retain(|kept| kept.used < recently);
        self.remove(&doomed)
    }

    fn addresses(&self) -> Result<BTreeMap<Sha256, String>, FetchError> {
        let known = entries(&self.folder.join("address"))?;
        Ok(known
            .iter()
            .filter_map(|(_, path)| read_address(path))
            .filter_map(|(sha256, url)| Some((sha256, url?)))
            .collect())
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
        // Only for who wants room: that it was used is no part of it.
        let _unmarked = File::options().append(true).open(&path).and_then(|file| file.set_modified(SystemTime::now()));
        let outdated = wanted.sha256.is_none() && wanted.bytes.is_some_and(|expected| expected != bytes);
        Ok((!outdated).then_some(Cached { path, sha256, bytes, fetched: 0 }))
    }

    /// Brings the wanted image here, or finds it here, and reads it through. It appears in the cache only when length,
    /// digest, container and partition table were all found right; otherwise nothing of it stays (but a download that
    /// was merely cut: the next call takes it up). It is read through while it arrives. Bytes that were here already count
    /// as moved at once.
    pub async fn fetch(
        &self,
        client: &Client,
        wanted: &Wanted,
        limits: Limits,
        meters: Meters<'_>,
    ) -> Result<(Cached, Inspected), FetchError> {
        self.bring(client, wanted, move |input| read_input(input, limits), meters).await
    }

    async fn bring<T: Send + 'static>(
        &self,
        client: &Client,
        wanted: &Wanted,
        check: impl Fn(Input) -> Result<T, WalkError> + Clone + Send + 'static,
        meters: Meters<'_>,
    ) -> Result<(Cached, T), FetchError> {
        if let Some(cached) = self.lookup(wanted).await? {
            return found(cached, check, meters).await;
        }
        let (folder, key) = (self.folder.join("part"), key(wanted));
        let lock = part::lock(&folder, &key).await?;
        // Another process may have brought it while this one waited.
        if let Some(cached) = self.lookup(wanted).await? {
            return found(cached, check, meters).await;
        }
        let mut part = blocking(move || Part::open(&folder, &key, lock)).await?;
        loop {
            let mut checking = Checking::start(&part, check.clone());
            let downloading = self.download(client, wanted, part, meters);
            let (whole, fetched) = checking.told(downloading, meters.decode).await?;
            whole.finish();
            let resumed = fetched < whole.bytes();
            // A file that began anew on the way is not the one that was read.
            if checking.growth.is_void() {
                checking = Checking::start(&whole, check.clone());
            }
            let checked = checking.verdict(meters.decode).await;
            match self.judge(whole, wanted, checked).await? {
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
        checked: Result<T, WalkError>,
    ) -> Result<Result<(Cached, T), (Part, FetchError)>, FetchError> {
        let (cache, wanted) = (self.clone(), wanted.clone());
        blocking(move || {
            let (found, bytes) = (part.sha256(), part.bytes());
            if let Some(expected) = wanted.sha256.filter(|expected| *expected != found) {
                return Ok(Err((part, FetchError::WrongDigest { expected, found })));
            }
            let checked = match checked {
                Ok(checked) => checked,
                Err(error) => return Ok(Err((part, FetchError::Image(error)))),
            };
            let path = cache.path(found);
            part.publish(&path)?;
            cache.remember(&wanted, found)?;
            cache.trim()?;
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
        meters: Meters<'_>,
    ) -> Result<(Part, u64), FetchError> {
        let meter = meters.download;
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
                meters.download.total(total);
                meters.decode.total(total);
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
        read_address(&self.folder.join("address").join(key(wanted))).map(|(sha256, _)| sha256)
    }

    fn remember(&self, wanted: &Wanted, sha256: Sha256) -> Result<(), FetchError> {
        let folder = self.folder.join("address");
        fs::create_dir_all(&folder).map_err(failed("create", &folder))?;
        let path = folder.join(key(wanted));
        let written = tempfile::NamedTempFile::new_in(&folder).and_then(|file| {
            fs::write(file.path(), format!("{sha256}\n{}\n", source::without_query(&wanted.url)))?;
            file.persist(&path).map_err(|error| error.error)
        });
        written.map(drop).map_err(failed("write", &path))
    }
}

/// Names and paths of what is in a folder; nothing where there is no such folder.
fn entries(folder: &Path) -> Result<Vec<(String, PathBuf)>, FetchError> {
    let listed = match fs::read_dir(folder) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("read", folder)(error)),
    };
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry.map_err(failed("read", folder))?;
        found.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    Ok(found)
}

/// The digest that an address had, and the address, which older files don't hold.
fn read_address(path: &Path) -> Option<(Sha256, Option<String>)> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines();
    Some((lines.next()?.trim().parse().ok()?, lines.next().map(str::to_owned)))
}

/// Who is told how many bytes came, and how many of them were decoded and found right.
#[derive(Clone, Copy)]
pub struct Meters<'a> {
    /// Of the download.
    pub download: &'a dyn Meter,
    /// Of the decoder, in bytes of the file.
    pub decode: &'a dyn Meter,
}

/// A cache hit: counted as moved at once, and read through like a fresh file.
async fn found<T: Send + 'static>(
    cached: Cached,
    check: impl FnOnce(Input) -> Result<T, WalkError> + Send + 'static,
    meters: Meters<'_>,
) -> Result<(Cached, T), FetchError> {
    meters.download.total(cached.bytes);
    meters.download.add(cached.bytes);
    meters.decode.total(cached.bytes);
    let checked = Checking::of(cached.path.clone(), cached.bytes, check).verdict(meters.decode).await;
    Ok((cached, checked.map_err(FetchError::Image)?))
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
