//! `N/query-url-metadata`, `N/storage/{storage}/download-url`, `…/import-metadata`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::arrival::{blocking, check_name, checksum, register};
use super::images::verify;
use super::wget::{Transcript, connecting};
use crate::pve::call::{Call, Result};
use crate::pve::fetch::{Certificates, Fetch, FetchError};
use crate::vma::{Packing, unpack};
use crate::world::refusal::{Refusal, Rule};
use crate::world::sparse::sparse_write;
use crate::world::state::VolumeKey;
use crate::world::volume::{Family, parse_name, shown_path};
use crate::world::work::Work;
use crate::world::{State, World};

type Later = Pin<Box<dyn Future<Output = Result> + Send>>;

fn fetch_of(call: &Call) -> Fetch {
    let ignored = call.params.text("verify-certificates") == Some("0");
    Fetch {
        url: call.text("url").to_owned(),
        certificates: if ignored { Certificates::Ignored } else { Certificates::Checked },
        ca: call.world.dir().join("tls").join("ca.pem"),
    }
}

/// `GET N/query-url-metadata`
pub(in crate::pve) fn query(call: Call) -> Later {
    Box::pin(async move {
        let fetch = fetch_of(&call);
        let found = fetch
            .head()
            .await
            .map_err(|error| Refusal::failed(format!("invalid server response: '{}'\n", error.status_line())))?;
        let by_url = || {
            let path = fetch.url.split('?').next()?;
            let (before, name) = path.rsplit_once('/')?;
            (before.len() > "https:/".len()).then(|| name.to_owned())
        };
        let mut shown = json!({});
        if let Some(name) = found.name.or_else(by_url).filter(|name| !name.is_empty()) {
            shown["filename"] = json!(name);
        }
        if let Some(size) = found.size {
            shown["size"] = json!(size);
        }
        if let Some(kind) = found.kind {
            shown["mimetype"] = json!(kind);
        }
        Ok(shown.into())
    })
}

/// Where a file comes from.
pub(super) enum Origin {
    /// A server.
    Server(Fetch),
    /// What is known of by itself: nobody has to be asked for it.
    Catalogue {
        /// Where the original gets it.
        location: String,
        /// What is in it.
        content: Vec<u8>,
    },
}

impl Origin {
    fn url(&self) -> &str {
        match self {
            Self::Server(fetch) => &fetch.url,
            Self::Catalogue { location, .. } => location,
        }
    }

    /// Writes the file, and says how long it is.
    async fn get(&self, work: &Work, partial: &Path, shown: String) -> Rule<u64> {
        match self {
            Self::Server(fetch) => {
                let mut transcript = Transcript::new(shown, |line| work.log(line));
                let got = fetch.get(partial, &mut |step| transcript.hears(step)).await;
                got.map_err(|error| failed(&error, &fetch.url))
            }
            Self::Catalogue { content, .. } => {
                std::fs::write(partial, content).map_err(|error| Refusal::failed(format!("{error}")))?;
                Ok(u64::try_from(content.len()).unwrap_or(u64::MAX))
            }
        }
    }
}

/// A file that is to become a volume.
pub(super) struct Wanted {
    origin: Origin,
    key: VolumeKey,
    target: PathBuf,
    shown: String,
    node: String,
    checksum: Option<(String, String)>,
    content: String,
    compression: Option<String>,
}

impl Wanted {
    /// A volume of that name on the storage in the path.
    pub(super) fn of(call: &Call, state: &State, node: &str, name: &str, origin: Origin) -> Rule<Self> {
        let id = call.text("storage");
        let storage = state.storage_on(id, node)?;
        let named = parse_name(storage, name).map_err(Refusal::Failed)?;
        let key = state.key_on(node, id, name);
        Ok(Self {
            origin,
            target: state.file_of(call.world.dir(), &key),
            shown: shown_path(id, storage, &named),
            key,
            node: node.to_owned(),
            checksum: None,
            content: named.content.to_owned(),
            compression: None,
        })
    }

    /// The same, with its checksum.
    pub(super) fn with_checksum(self, checksum: Option<(String, String)>) -> Self {
        Self { checksum, ..self }
    }
}

/// `POST N/storage/{storage}/download-url`
pub(in crate::pve) fn download(call: &Call) -> Result {
    let (node, id, content) = (call.node(), call.text("storage").to_owned(), call.text("content").to_owned());
    let name = super::super::multipart::target_name(call.text("filename"));
    let wanted = {
        let state = call.world.state();
        let storage = state.storage_on(&id, &node)?;
        if storage.family() != Family::Files {
            let text = format!("can't upload to storage type '{}', not a file based storage!\n", storage.kind);
            return Err(Refusal::failed(text));
        }
        if !storage.holds(&content) {
            let text = format!("storage '{id}' is not configured for content-type '{content}'\n");
            return Err(Refusal::failed(text));
        }
        check_name(&content, &name)?;
        let origin = Origin::Server(fetch_of(call));
        let wanted = Wanted::of(call, &state, &node, &format!("{content}/{name}"), origin)?;
        let checksum = call.params.owned("checksum-algorithm").zip(call.params.owned("checksum"));
        let compression = call.params.owned("compression").filter(|text| !text.is_empty());
        Wanted { compression, ..wanted.with_checksum(checksum) }
    };
    // A task's id is part of a list that is split at colons.
    let id: String = name
        .chars()
        .map(|c| if c == ':' || c == '%' { format!("%{:02x}", u32::from(c)) } else { c.to_string() })
        .collect();
    Ok(start(call, &id, wanted).into())
}

/// Begins the task that fetches a file.
pub(super) fn start(call: &Call, id: &str, wanted: Wanted) -> String {
    let node = wanted.node.clone();
    let work = |work: Work| async move { fetch_work(&work, &wanted).await };
    call.world.start_task(&call.caller, &node, "download", id, work)
}

/// What unpacks that which comes, where that is asked (pve-storage, PVE/Storage.pm, `decompressor_info`).
fn packing(wanted: &Wanted) -> Rule<Option<Packing>> {
    let Some(compression) = &wanted.compression else { return Ok(None) };
    if wanted.content != "iso" {
        return Err(Refusal::failed(format!("decompression not supported for {}", wanted.content)));
    }
    let none = || Refusal::failed("no decompression method found");
    Packing::by_extension(compression).ok_or_else(none).map(Some)
}

/// Files that are of no use once the work is over, however it ends.
struct Scratch {
    packed: PathBuf,
    unpacked: PathBuf,
    over: Arc<AtomicBool>,
}

impl Scratch {
    fn new(packed: PathBuf) -> Self {
        Self { unpacked: packed.with_extension("unpacked"), packed, over: Arc::default() }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Whoever still unpacks sees it, and leaves nothing either.
        self.over.store(true, Ordering::SeqCst);
        for file in [&self.packed, &self.unpacked] {
            // Mostly it was moved, or never made.
            let _ = std::fs::remove_file(file);
        }
    }
}

/// A reader that nobody may be waiting for any more.
struct Wasted<R> {
    inner: R,
    over: Arc<AtomicBool>,
}

impl<R: std::io::Read> std::io::Read for Wasted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.over.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("stopped"));
        }
        self.inner.read(buffer)
    }
}

/// What `wget` says last, if that says anything.
fn failed(error: &FetchError, url: &str) -> Refusal {
    Refusal::failed(match error {
        // A blank line comes after the one with the number.
        FetchError::Status { .. } => "download failed: exit code 8".to_owned(),
        FetchError::Unknown { host, .. } => {
            format!("download failed: wget: unable to resolve host address '{host}'")
        }
        FetchError::Connect { host, address, reason } => {
            format!("download failed: {}... failed: {reason}.", connecting(host, *address))
        }
        FetchError::Untrusted { host, .. } => {
            format!("download failed: ERROR: The certificate of '{host}' doesn't have a known issuer.")
        }
        FetchError::Url(_) => {
            let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
            format!("download failed: {url}: Unsupported scheme '{scheme}'.")
        }
        other => format!("download failed: {other}"),
    })
}

async fn sum(algorithm: &str, file: &Path) -> Rule<String> {
    let (algorithm, file) = (algorithm.to_owned(), file.to_owned());
    blocking(move || checksum(&algorithm, &file)).await
}

async fn fetch_work(work: &Work, wanted: &Wanted) -> Rule<()> {
    let world = work.world().clone();
    let (url, shown) = (wanted.origin.url(), &wanted.shown);
    let packing = packing(wanted)?;
    work.log(format!("downloading {url} to {shown}"));
    if world.state().volumes.contains_key(&wanted.key) {
        let Some((algorithm, expected)) = &wanted.checksum else {
            return Err(Refusal::failed(format!("refusing to override existing file '{shown}'")));
        };
        work.log("calculating checksum of existing file...");
        let got = sum(algorithm, &wanted.target).await?;
        if got.eq_ignore_ascii_case(expected) {
            world.state().tasks.amend(work.upid(), "OK, got correct file already, no need to download");
            return Ok(());
        }
        let text = format!("checksum mismatch: got '{got}' != expect '{expected}', aborting");
        return Err(Refusal::failed(text));
    }
    let folder = world.dir().join("uploads");
    let scratch = Scratch::new(folder.join(format!("download-{}", world.random_uuid())));
    keep(work, &world, wanted, packing, &scratch).await?;
    work.log(format!("download of '{url}' to '{shown}' finished"));
    Ok(())
}

async fn keep(work: &Work, world: &World, wanted: &Wanted, packing: Option<Packing>, scratch: &Scratch) -> Rule<()> {
    let partial = scratch.packed.as_path();
    let io = |error: std::io::Error| Refusal::failed(format!("{error}"));
    if let Some(folder) = partial.parent() {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let size = wanted.origin.get(work, partial, format!("{}.tmp_dwnl.{}", wanted.shown, pid(work))).await?;
    if size > world.available(&wanted.node, &wanted.key.storage) {
        return Err(Refusal::failed("download failed: Cannot write to file (No space left on device)."));
    }
    if let Some((algorithm, expected)) = &wanted.checksum {
        work.log("calculating checksum...");
        let got = sum(algorithm, partial).await?;
        if !got.eq_ignore_ascii_case(expected) {
            return Err(Refusal::failed(format!("checksum mismatch: got '{got}' != expect '{expected}'")));
        }
        world.state().tasks.amend(work.upid(), "OK, checksum verified");
    }
    let unpacks = packing.is_some();
    let (size, partial) = match packing {
        None => (size, partial.to_owned()),
        Some(packing) => (unpacked(work, world, wanted, scratch, packing).await?, scratch.unpacked.clone()),
    };
    let step = if unpacks { "dcom" } else { "dwnl" };
    let shown = format!("{}.tmp_{step}.{}", wanted.shown, pid(work));
    verify(work, &wanted.key, &partial, &shown).await.map_err(|refusal| match refusal {
        Refusal::Failed(text) => Refusal::failed(format!("failed to verify file: {text}")),
        other => other,
    })?;
    let (from, to) = (partial, wanted.target.clone());
    blocking(move || {
        if let Some(parent) = to.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(&from, &to)
    })
    .await?;
    register(world, &wanted.key, size)
}

/// The process of a task, which names its temporary files.
fn pid(work: &Work) -> u32 {
    work.upid().split(':').nth(2).and_then(|pid| u32::from_str_radix(pid, 16).ok()).unwrap_or_default()
}

/// Unpacks a file beside it, and says how big it is then.
async fn unpacked(work: &Work, world: &World, wanted: &Wanted, scratch: &Scratch, packing: Packing) -> Rule<u64> {
    let pid = pid(work);
    let temporary = format!("{}.tmp_dwnl.{pid}", wanted.shown);
    work.log(format!("decompressing {temporary} to {}.tmp_dcom.{pid}", wanted.shown));
    let room = world.available(&wanted.node, &wanted.key.storage);
    let (from, to, over) = (scratch.packed.clone(), scratch.unpacked.clone(), scratch.over.clone());
    let written = tokio::task::spawn_blocking(move || {
        let mut reader = Wasted { inner: unpack(std::fs::File::open(from)?, packing)?, over };
        let written = sparse_write(&mut reader, &to, room);
        if written.is_err() {
            // Half of it is nothing, and nobody may be left to remove it.
            let _ = std::fs::remove_file(&to);
        }
        written
    });
    if let Ok(Ok(size)) = written.await {
        return Ok(size);
    }
    Err(Refusal::failed(format!(
        "command '{} {temporary}' failed: exit code 1",
        packing.unpacker().unwrap_or_default()
    )))
}

/// `GET N/storage/{storage}/import-metadata`: no storage holds whole guests.
pub(in crate::pve) fn metadata(call: &Call) -> Result {
    let (node, id) = (call.node(), call.text("storage"));
    let state = call.world.state();
    let storage = state.storage_on(id, &node)?;
    let name = call.text("volume");
    let named = parse_name(storage, name).map_err(Refusal::Failed)?;
    state.check_any(&call.caller, &format!("/storage/{id}"), &["Datastore.AllocateSpace", "Datastore.Audit"])?;
    if storage.family() != Family::Files {
        return Err(Refusal::failed("storage does not support the importer API\n"));
    }
    let text = match (named.content, named.format.as_str()) {
        ("import", "ova" | "ovf") => format!("cannot read the description in '{id}:{name}'\n"),
        ("import", _) => format!("can't import '{id}:{name}': no guest description\n"),
        _ => format!("volume '{id}:{name}' does not have type 'import'\n"),
    };
    Err(Refusal::failed(text))
}
