//! Uploads, read the original's way.
//!
//! Purpose: a `multipart/form-data` body with its fields in their order and the file last (Proxmox VE 8.4,
//! PVE/APIServer/AnyEvent.pm, `file_upload_multipart`). Must not know: storages. Start at [`Upload::read`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

use super::body::piece;

/// A piece that comes so long after the one before it was sent by itself.
const APART: Duration = Duration::from_millis(5);

/// A file that came up, with its fields.
#[derive(Debug)]
pub(super) struct Upload {
    /// Fields before the file.
    pub fields: BTreeMap<String, String>,
    /// The name it is to have.
    pub filename: String,
    /// Where its bytes are.
    pub path: PathBuf,
    /// How many there are.
    pub size: u64,
    /// Whether something came after the end of the form, in a piece of its own. The original's reader hears of it once
    /// more and begins the same work again.
    pub again: bool,
}

/// Why a body is no upload.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// 500 with a text, which is the original's.
    #[error("{0}")]
    Broken(String),
    /// 400 without a word.
    #[error("an unknown field stands before the file")]
    Field,
    /// The connection broke, or nothing came any more.
    #[error("the upload broke off")]
    Silent,
    /// The disk is full.
    #[error("the upload can't be kept")]
    Io(#[from] std::io::Error),
}

/// Fields in the order in which they are looked for.
const FIELDS: [&str; 3] = ["content", "checksum-algorithm", "checksum"];
/// Everything before the file's bytes has to be in that many.
const HEAD: usize = 16 * 1024;

fn broken() -> UploadError {
    UploadError::Broken("upload failed at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1317.\n".to_owned())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len().max(1)).position(|window| window == needle)
}

/// The boundary of a content type, taken as it stands: quotes are part of it.
pub(super) fn boundary(content_type: &str) -> Option<&str> {
    let (_, rest) = content_type.split_once("boundary=")?;
    Some(rest.split(';').next().unwrap_or(rest).trim())
}

enum Head {
    More,
    Done { fields: BTreeMap<String, String>, filename: String, start: usize },
}

fn read_head(buffer: &[u8], delimiter: &str) -> Result<Head, UploadError> {
    let mut before: Vec<(String, String)> = Vec::new();
    let mut at = 0;
    loop {
        let rest = &buffer[at..];
        let open = format!("{delimiter}\r\n");
        if rest.len() < open.len() {
            return if open.as_bytes().starts_with(rest) { Ok(Head::More) } else { Err(broken()) };
        }
        if !rest.starts_with(open.as_bytes()) {
            return Err(broken());
        }
        let Some(end) = find(rest, b"\r\n\r\n") else { return Ok(Head::More) };
        let headers = String::from_utf8_lossy(&rest[open.len()..end]).into_owned();
        let disposition = headers.split("\r\n").next().unwrap_or_default();
        let attribute = |name: &str| {
            let (_, rest) = disposition.split_once(&format!("; {name}=\""))?;
            rest.split_once('"').map(|(value, _)| value.to_owned())
        };
        if !disposition.to_ascii_lowercase().starts_with("content-disposition: form-data") {
            return Err(broken());
        }
        let name = attribute("name").unwrap_or_default();
        let value_at = end + 4;
        if let Some(filename) = attribute("filename") {
            let fields = in_order(before)?;
            if name != "filename" {
                return Err(UploadError::Broken(format!(
                    "wrong field name '{name}' for file upload, expected 'filename' at \
                     /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1281.\n"
                )));
            }
            return Ok(Head::Done { fields, filename, start: at + value_at });
        }
        let stop = format!("\r\n{delimiter}");
        let Some(length) = find(&rest[value_at..], stop.as_bytes()) else { return Ok(Head::More) };
        let value = String::from_utf8_lossy(&rest[value_at..value_at + length]).trim().to_owned();
        before.push((name, value));
        at += value_at + length + 2;
        if buffer[at..].starts_with(format!("{delimiter}--").as_bytes()) {
            return Err(broken());
        }
    }
}

/// The fields before the file, in the one order that the original reads them in. It takes all that comes before the one it
/// looks for as that one's disposition, and dies of it.
fn in_order(mut before: Vec<(String, String)>) -> Result<BTreeMap<String, String>, UploadError> {
    let mut fields = BTreeMap::new();
    for wanted in FIELDS {
        match before.iter().position(|(name, _)| name == wanted) {
            Some(0) => fields.extend([before.remove(0)]),
            Some(_) => return Err(UploadError::Field),
            None => {}
        }
    }
    if before.is_empty() { Ok(fields) } else { Err(UploadError::Field) }
}

/// The target name: nothing before the last slash, and only harmless characters.
pub(super) fn target_name(given: &str) -> String {
    let last = given.rsplit(['/', '\\']).next().unwrap_or_default();
    last.chars().map(|c| if c.is_ascii_alphanumeric() || "_.-".contains(c) { c } else { '_' }).collect()
}

impl Upload {
    /// Reads a body to its end; the file's bytes go to `path`.
    pub(super) async fn read(body: &mut Incoming, boundary: &str, path: &Path) -> Result<Self, UploadError> {
        let delimiter = format!("--{boundary}");
        let closing = format!("\r\n{delimiter}").into_bytes();
        let mut buffer: Vec<u8> = Vec::new();
        let (fields, filename, start) = loop {
            match read_head(&buffer, &delimiter)? {
                Head::Done { fields, filename, start } => break (fields, filename, start),
                Head::More if buffer.len() > HEAD => return Err(broken()),
                Head::More => {}
            }
            let Some(data) = piece(body).await.map_err(|_| UploadError::Silent)? else { return Err(broken()) };
            buffer.extend_from_slice(&data);
        };
        buffer.drain(..start);
        let mut file = tokio::fs::File::create(path).await?;
        let mut size = 0_u64;
        let (mut closed, mut again) = (None, false);
        loop {
            if closed.is_none() {
                if let Some(end) = find(&buffer, &closing) {
                    file.write_all(&buffer[..end]).await?;
                    size += end as u64;
                    closed = Some(Instant::now());
                } else {
                    // The delimiter may begin in the last bytes.
                    let sure = buffer.len().saturating_sub(closing.len());
                    file.write_all(&buffer[..sure]).await?;
                    size += sure as u64;
                    buffer.drain(..sure);
                }
            }
            let Some(data) = piece(body).await.map_err(|_| UploadError::Silent)? else { break };
            match closed {
                None => buffer.extend_from_slice(&data),
                Some(closed) => again |= !data.is_empty() && closed.elapsed() >= APART,
            }
        }
        file.flush().await?;
        if closed.is_none() {
            return Err(broken());
        }
        Ok(Self { fields, filename, path: path.to_owned(), size, again })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_path_and_odd_characters() {
        assert_eq!(target_name("../../conf-evil.iso"), "conf-evil.iso");
        assert_eq!(target_name("c:\\a b+=.qcow2"), "a_b__.qcow2");
    }

    #[test]
    fn fields_in_another_order_are_refused() {
        let given = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect();
        let names = |names: &[&str]| in_order(given(names)).map(|fields| fields.into_keys().collect::<Vec<_>>()).ok();
        assert_eq!(names(&["content", "checksum-algorithm", "checksum"]).unwrap().len(), 3);
        assert_eq!(names(&["checksum-algorithm", "content"]), None);
        assert_eq!(names(&["nonsense", "content"]), None);
        assert_eq!(names(&["content", "nonsense"]), None);
        assert_eq!(names(&[]).unwrap(), [""; 0]);
    }

    #[test]
    fn a_head_may_come_in_any_pieces() {
        let body = b"--X\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nimport\r\n--X\r\n\
            Content-Disposition: form-data; name=\"filename\"; filename=\"a.raw\"\r\nContent-Type: a/b\r\n\r\nDATA";
        for cut in 0..body.len() - 4 {
            assert!(matches!(read_head(&body[..cut], "--X"), Ok(Head::More)), "{cut}");
        }
        let Ok(Head::Done { fields, filename, start }) = read_head(body, "--X") else { panic!("no head") };
        assert_eq!((fields["content"].as_str(), filename.as_str(), &body[start..]), ("import", "a.raw", &b"DATA"[..]));
        assert!(read_head(b"--Y\r\n\r\n", "--X").is_err());
    }
}
