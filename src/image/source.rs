//! Asks for the bytes of a file, from the beginning or from where an earlier download stopped.
//!
//! Purpose: one opened answer with what it is known to be: where it starts, how long the whole is, which version of the
//! file it is. The factory either answers itself, without ranges, or redirects to an object store with a signed address
//! that lives for an hour: so every attempt asks the factory again and takes the fresh address.
//! Must not know: where the bytes are kept.

use std::path::PathBuf;
use std::time::Duration;

use http::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LOCATION, RANGE,
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

use super::walker::WalkError;
use crate::net::http::{Answer, Client, HttpError, Request};
use crate::types::Sha256;

/// How long a first byte may take: the factory builds what it doesn't have, with a budget of 20 minutes.
pub(super) const BUILD: Duration = Duration::from_mins(25);
/// How long the bytes may pause once they flow.
pub(super) const PAUSE: Duration = Duration::from_mins(1);
const HOPS: usize = 5;

/// A file to bring here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where it is, `https`.
    pub url: String,
    /// The digest it must have, where one is pinned.
    pub sha256: Option<Sha256>,
    /// The size it must have in bytes, where a HEAD told.
    pub bytes: Option<u64>,
}

/// Why a file isn't here.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address.
    #[error("'{url}' is not an https address")]
    Url {
        /// What was given.
        url: String,
    },
    /// No answer.
    #[error("could not fetch {url}")]
    Http {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: HttpError,
    },
    /// An answer that isn't the file.
    #[error("{url} answered {status}: {text}")]
    Status {
        /// What was asked for.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of its text.
        text: String,
    },
    /// The redirects lead nowhere.
    #[error("{url} redirects too often, or not to an https address")]
    Redirects {
        /// What was asked for.
        url: String,
    },
    /// The bytes stopped before the end. What came is kept and taken up by the next attempt.
    #[error("the download stopped after {received} bytes{}", expected.map_or_else(String::new, |all| format!(" of {all}")))]
    Cut {
        /// Bytes that are here.
        received: u64,
        /// Bytes of the whole.
        expected: Option<u64>,
        /// What the connection said.
        #[source]
        source: Option<HttpError>,
    },
    /// The file is not as long as it was said to be.
    #[error("the file has {found} bytes, expected were {expected}")]
    WrongLength {
        /// What it had to be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// The file is not the pinned one.
    #[error("the file's SHA-256 is {found}, pinned is {expected}")]
    WrongDigest {
        /// What it had to be.
        expected: Sha256,
        /// What it is.
        found: Sha256,
    },
    /// The file arrived as it was sent, but is no sound image.
    #[error("the file is no sound image")]
    Image(#[source] WalkError),
    /// The thread that worked on the file died.
    #[error("working on the file was given up")]
    GivenUp,
    /// The cache could not be read or written.
    #[error("could not {doing} {}", path.display())]
    Disk {
        /// What was tried, a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl FetchError {
    /// Whether the same call may well succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Cut { .. } => true,
            Self::Http { source, .. } => {
                !matches!(source, HttpError::Pin { .. } | HttpError::Untrusted { .. } | HttpError::Malformed(_))
            }
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

/// An answer whose body is the file from `start` on.
pub(super) struct Opened {
    pub(super) answer: Answer,
    pub(super) start: u64,
    /// Size of the whole file.
    pub(super) total: Option<u64>,
    /// A strong validator of this version of the file.
    pub(super) etag: Option<String>,
}

/// Where an earlier download stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Resume<'a> {
    pub(super) from: u64,
    pub(super) total: Option<u64>,
    pub(super) etag: Option<&'a str>,
}

/// Opens the file; from its beginning when `resume` is nothing, when the server knows no ranges, or when the file is no
/// longer the one that the earlier download began.
pub(super) async fn open(client: &Client, url: &str, resume: Option<Resume<'_>>) -> Result<Opened, FetchError> {
    let Some(earlier) = resume else { return whole(client, url).await };
    let mut headers = HeaderMap::new();
    headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={}-", earlier.from)).map_err(|_| not_an_address(url))?);
    if let Some(etag) = earlier.etag.and_then(|etag| HeaderValue::from_str(etag).ok()) {
        headers.insert(IF_RANGE, etag);
    }
    let answer = get(client, url, headers).await?;
    if answer.status == StatusCode::PARTIAL_CONTENT {
        let etag = strong_etag(&answer.headers);
        let range = content_range(&answer.headers);
        let same_file = etag.as_deref().zip(earlier.etag).is_none_or(|(now, then)| now == then);
        if let Some((start, total)) = range
            && start == earlier.from
            && earlier.total.is_none_or(|then| then == total)
            && same_file
        {
            return Ok(Opened { answer, start, total: Some(total), etag });
        }
        return whole(client, url).await;
    }
    if answer.status == StatusCode::RANGE_NOT_SATISFIABLE {
        return whole(client, url).await;
    }
    beginning(answer, url).await
}

async fn whole(client: &Client, url: &str) -> Result<Opened, FetchError> {
    beginning(get(client, url, HeaderMap::new()).await?, url).await
}

async fn get(client: &Client, url: &str, headers: HeaderMap) -> Result<Answer, FetchError> {
    Ok(follow(client, Ask { method: Method::GET, url, headers, patience: BUILD }).await?.answer)
}

async fn beginning(answer: Answer, url: &str) -> Result<Opened, FetchError> {
    if answer.status != StatusCode::OK {
        let (status, text) = (answer.status.as_u16(), text_of(answer).await);
        return Err(FetchError::Status { url: without_query(url).to_owned(), status, text });
    }
    let (total, etag) = (content_length(&answer.headers), strong_etag(&answer.headers));
    Ok(Opened { answer, start: 0, total, etag })
}

/// One question.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: HeaderMap,
    /// How long an answer may take to begin.
    pub(super) patience: Duration,
}

/// The answer to a question, and whether another address than the one asked gave it.
pub(super) struct Followed {
    pub(super) answer: Answer,
    pub(super) redirected: bool,
}

/// Asks, and follows redirects with the same method and headers. Nothing secret is ever among those.
pub(super) async fn follow(client: &Client, ask: Ask<'_>) -> Result<Followed, FetchError> {
    let Ask { method, url, mut headers, patience } = ask;
    let shown = || without_query(url).to_owned();
    // A browser-like Accept is sent to a login page; an encoding would change length and digest.
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let mut uri = https(url).ok_or_else(|| not_an_address(url))?;
    for hop in 0..=HOPS {
        let request = Request { headers: headers.clone(), patience, ..Request::new(method.clone(), uri.clone()) };
        let answer = client.send(request).await.map_err(|source| FetchError::Http { url: shown(), source })?;
        if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(Followed { answer, redirected: hop > 0 });
        }
        // What the factory gets to identify the request is none of the object store's business.
        headers.remove(REQUEST_ID);
        let location = answer.headers.get(LOCATION).and_then(|location| location.to_str().ok());
        uri = location
            .and_then(|location| resolve(&uri, location))
            .ok_or_else(|| FetchError::Redirects { url: shown() })?;
    }
    Err(FetchError::Redirects { url: shown() })
}

/// Names one request in the factory's log.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    if location.starts_with('/') && !location.starts_with("//") {
        return https(&format!("https://{}{location}", base.authority()?));
    }
    https(location)
}

/// The address, if it is an absolute one with https.
pub(super) fn https(url: &str) -> Option<Uri> {
    url.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some())
}

fn not_an_address(url: &str) -> FetchError {
    FetchError::Url { url: without_query(url).to_owned() }
}

/// The address without its query, which can hold a token.
pub(super) fn without_query(url: &str) -> &str {
    url.split_once('?').map_or(url, |(bare, _)| bare)
}

/// The beginning of a body that says what went wrong.
pub(super) async fn text_of(answer: Answer) -> String {
    const LIMIT: usize = 16 << 10;
    let reason = answer.reason.clone();
    let body = tokio::time::timeout(PAUSE, answer.bytes(LIMIT)).await.ok().and_then(Result::ok).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&body).trim().chars().take(400).collect();
    if text.is_empty() { reason } else { text }
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn strong_etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    etag.starts_with('"').then(|| etag.to_owned())
}

/// First byte and size of the whole in `Content-Range: bytes 5-9/10`, if the part reaches to the end.
fn content_range(headers: &HeaderMap) -> Option<(u64, u64)> {
    let (range, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
    (last.checked_add(1) == Some(total) && first <= last).then_some((first, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_range_to_the_end_counts() {
        let range = |value: &'static str| {
            content_range(&HeaderMap::from_iter([(CONTENT_RANGE, HeaderValue::from_static(value))]))
        };
        assert_eq!(range("bytes 5-9/10"), Some((5, 10)));
        for wrong in ["bytes 5-8/10", "bytes 5-9/*", "5-9/10", "bytes 9-5/6", "bytes */10"] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn redirects_lead_to_https_only() {
        let base = https("https://factory.example:8443/image/x").unwrap();
        let to = |location| resolve(&base, location).map(|uri| uri.to_string());
        assert_eq!(to("/other?a=b").as_deref(), Some("https://factory.example:8443/other?a=b"));
        assert_eq!(to("https://cdn.example/x").as_deref(), Some("https://cdn.example/x"));
        assert_eq!(to("http://cdn.example/x"), None);
        assert_eq!(to("//cdn.example/x"), None);
    }
}
