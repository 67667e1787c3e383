//! Volumes: listing, uploading, deleting.
//!
//! Purpose: what lies on a storage, and the one upload that PVE's hand-made parser takes without a trap. Must not know:
//! what the bytes are. pveproxy reads multipart bodies by hand (pve-http-server, PVE/APIServer/AnyEvent.pm): `content`,
//! `checksum-algorithm`, `checksum`, then the file as the last part; nothing after the closing delimiter, not even a line
//! break, else the upload may be carried out twice and the file be gone although the task ended well.

use std::io;
use std::time::Duration;

use ::http::header::HeaderValue;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use serde::Deserialize;

use super::client::{Parcel, Pve};
use super::decode;
use super::encode::{Form, path};
use super::error::PveError;
use super::task::Upid;
use crate::net::Meter;
use crate::net::http::Body;
use crate::types::{Malformed, NodeName, Sha256, StorageId, VmId, VolumeId};

/// How long an upload may stand still. The server itself drops a body that pauses for five seconds.
const STALLED: Duration = Duration::from_mins(1);

/// A volume in a storage's list.
#[derive(Clone, Debug, Deserialize)]
pub struct Volume {
    /// `local:import/x.qcow2`, `local-lvm:vm-100-disk-0`.
    pub volid: VolumeId,
    /// `images`, `import`, `iso` …
    #[serde(default)]
    pub content: String,
    /// `raw`, `qcow2` …
    #[serde(default)]
    pub format: Option<String>,
    /// Bytes.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub size: Option<u64>,
    #[serde(default, deserialize_with = "decode::maybe_int")]
    vmid: Option<u64>,
    /// The base volume under a linked clone, where PVE keeps one.
    #[serde(default)]
    pub parent: Option<String>,
    /// Unix seconds of its creation.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub ctime: Option<u64>,
}

impl Volume {
    /// The guest that owns it.
    pub fn vmid(&self) -> Option<VmId> {
        self.vmid.and_then(|vmid| u32::try_from(vmid).ok()).map(VmId)
    }
}

/// What an uploaded file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadKind {
    /// A disk image to import from: `.qcow2`, `.raw`, `.vmdk`. PVE 8.4 and later.
    Import,
    /// A CD image: `.iso`, `.img`.
    Iso,
}

impl UploadKind {
    /// The content type, which is the folder too.
    fn as_str(self) -> &'static str {
        match self {
            Self::Import => "import",
            Self::Iso => "iso",
        }
    }
}

/// A file that a node shall fetch.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The node.
    pub node: NodeName,
    /// A file-based storage there that takes the kind.
    pub storage: StorageId,
    /// What it is.
    pub kind: UploadKind,
    /// Its name there.
    pub file: String,
    /// Where it is.
    pub url: String,
    /// What it has to be.
    pub sha256: Sha256,
}

/// What a node learns of a file that it may fetch.
#[derive(Clone, Debug, Deserialize)]
pub struct UrlMetadata {
    /// Bytes.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub size: Option<u64>,
}

/// A file to upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The node to store it on. It must be the one that is asked: uploads aren't forwarded without a detour.
    pub node: NodeName,
    /// A file-based storage there that takes the kind.
    pub storage: StorageId,
    /// What it is.
    pub kind: UploadKind,
    /// Its name there: letters, digits, `_`, `.`, `-`. A file of that name is overwritten.
    pub file: String,
    /// Its exact length in bytes.
    pub size: u64,
    /// What PVE shall compare it with after it arrived.
    pub sha256: Option<Sha256>,
}

impl Upload {
    /// The volume it becomes.
    pub fn volume(&self) -> VolumeId {
        VolumeId::new(format!("{}:{}/{}", self.storage, self.kind.as_str(), self.file))
    }

    /// Derived from what is unique to the upload, so that no file happens to contain it.
    fn boundary(&self) -> String {
        let named = format!("{} {} {} {}", self.node, self.storage, self.file, self.size);
        format!("recast-{}", &Sha256::of(named.as_bytes()).to_string()[..32])
    }

    /// All of the body before the file's bytes.
    fn head(&self, boundary: &str) -> String {
        let mut fields = vec![("content", self.kind.as_str().to_owned())];
        if let Some(sha256) = self.sha256 {
            fields.push(("checksum-algorithm", "sha256".to_owned()));
            fields.push(("checksum", sha256.to_string()));
        }
        let fields = fields.into_iter().fold(String::new(), |head, (name, value)| {
            head + &format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        });
        let file = &self.file;
        format!(
            "{fields}--{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"{file}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
    }
}

impl Pve {
    /// What lies on a storage of a node; `content` and `vmid` narrow it down. What the caller may not see is left out.
    pub async fn volumes(
        &self,
        node: &NodeName,
        storage: &StorageId,
        content: Option<&str>,
        vmid: Option<VmId>,
    ) -> Result<Vec<Volume>, PveError> {
        let query = Form::new().with_some("content", content).with_some("vmid", vmid);
        self.get(&path(&["nodes", node.as_str(), "storage", storage.as_str(), "content"]), &query).await
    }

    /// Deletes a volume; also one that isn't there. `None` when it was done at once.
    pub async fn delete_volume(&self, node: &NodeName, volume: &VolumeId) -> Result<Option<Upid>, PveError> {
        let storage = volume.as_str().split_once(':').map_or("", |(storage, _)| storage);
        let at = path(&["nodes", node.as_str(), "storage", storage, "content", volume.as_str()]);
        self.delete(&at, &Form::new()).await
    }

    /// Has a node fetch a file itself. The task compares the digest before the file gets its name.
    pub async fn download_url(&self, fetch: &Fetch) -> Result<Upid, PveError> {
        let form = Form::new()
            .with("content", fetch.kind.as_str())
            .with("filename", &fetch.file)
            .with("url", &fetch.url)
            .with("checksum", fetch.sha256)
            .with("checksum-algorithm", "sha256");
        self.post(&path(&["nodes", fetch.node.as_str(), "storage", fetch.storage.as_str(), "download-url"]), &form)
            .await
    }

    /// Has a node ask for the head of a file: whether it gets there, and how large the file is.
    pub async fn url_metadata(&self, node: &NodeName, url: &str) -> Result<UrlMetadata, PveError> {
        self.get(&path(&["nodes", node.as_str(), "query-url-metadata"]), &Form::new().with("url", url)).await
    }

    /// Uploads a file, reading it from a stream of exactly `upload.size` bytes. The task copies it into place.
    pub async fn upload<S>(&self, upload: &Upload, bytes: S, meter: &dyn Meter) -> Result<Upid, PveError>
    where
        S: Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        if upload.file.is_empty() || !upload.file.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) {
            let wrong = Malformed::new(&upload.file, "a file name of letters, digits, '_', '.' and '-'");
            return Err(PveError::Setup {
                what: "the upload has a bad name".to_owned(),
                source: Some(Box::new(wrong)),
            });
        }
        let boundary = upload.boundary();
        let head = upload.head(&boundary);
        let tail = format!("\r\n--{boundary}--");
        let length = head.len() as u64 + upload.size + tail.len() as u64;
        let whole = stream::iter([Ok(Bytes::from(head))])
            .chain(exactly(bytes, upload.size))
            .chain(stream::iter([Ok(Bytes::from(tail))]));
        meter.total(length);
        let parcel = Parcel {
            target: path(&["nodes", upload.node.as_str(), "storage", upload.storage.as_str(), "upload"]),
            content_type: HeaderValue::from_str(&format!("multipart/form-data; boundary={boundary}")).map_err(
                |error| PveError::Setup { what: "the upload's boundary".to_owned(), source: Some(Box::new(error)) },
            )?,
            body: Body::Stream { length, stream: Box::pin(whole) },
            patience: STALLED,
        };
        self.parcel(parcel, meter).await
    }
}

/// The stream, which must end after exactly `size` bytes: a wrong length would shift the closing delimiter.
fn exactly<S>(bytes: S, size: u64) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let wrong = move |got: u64| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the file has {got} bytes, expected {size}"))
    };
    stream::unfold(Some((Box::pin(bytes), 0_u64)), move |state| async move {
        let (mut bytes, so_far) = state?;
        match bytes.next().await {
            Some(Ok(chunk)) => {
                let so_far = so_far + chunk.len() as u64;
                Some(if so_far > size { (Err(wrong(so_far)), None) } else { (Ok(chunk), Some((bytes, so_far))) })
            }
            Some(Err(error)) => Some((Err(error), None)),
            None if so_far != size => Some((Err(wrong(so_far)), None)),
            None => None,
        }
    })
}
