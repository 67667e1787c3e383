//! Request bodies: forms and JSON, as far as they are accepted.
//!
//! Purpose: reads them within bounds. Must not know: which parameters exist. Start at [`read_body`].

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::params::{Params, decode_form, decode_json};
use super::reply::Reply;

/// Bytes of a request body that are accepted.
pub(super) const BODY: usize = 512 * 1024;
/// How long nothing of a body may come. The original waits five seconds; a computer that rehearses may be slow.
const PATIENCE: Duration = Duration::from_secs(15);

/// The next piece of a body; `Err`: it broke off, or nothing comes any more.
pub(super) async fn piece(body: &mut Incoming) -> Result<Option<Bytes>, std::io::Error> {
    loop {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await;
        let frame = frame.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?;
        let Some(frame) = frame else { return Ok(None) };
        // Whatever else comes in frames is no part of it.
        if let Ok(data) = frame.map_err(std::io::Error::other)?.into_data() {
            return Ok(Some(data));
        }
    }
}

/// Reads what a refused request still sends, within reason: a client that is cut off while it writes never sees the
/// refusal.
pub(super) async fn drain(mut body: Incoming) {
    let all = async {
        let mut left = 64 * 1024 * 1024_usize;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Whoever sends slower than that is not waited for.
    let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
}

/// A body that was read, not yet understood.
pub(super) struct Given {
    bytes: Vec<u8>,
    json: bool,
}

impl Given {
    /// The parameters in it; `Err` is the answer to one that can't be understood.
    pub(super) fn decode(&self) -> Result<Params, Reply> {
        if self.json {
            decode_json(&self.bytes).map_err(|text| Reply::text(500, &text))
        } else {
            Ok(decode_form(&String::from_utf8_lossy(&self.bytes)))
        }
    }
}

/// The media type of a content type.
pub(super) fn media_type(content_type: &str) -> &str {
    content_type.split([';', ',']).next().unwrap_or_default().trim()
}

/// A body that is said to be so long; `Err` is the answer to one that isn't taken.
pub(super) async fn read_body(mut body: Incoming, length: u64, content_type: &str) -> Result<Given, Reply> {
    if length > BODY as u64 {
        drain(body).await;
        return Err(Reply::text(501, "for data too large"));
    }
    let mut bytes = Vec::new();
    loop {
        match piece(&mut body).await {
            Ok(Some(more)) => bytes.extend_from_slice(&more),
            Ok(None) => break,
            Err(_) => return Err(Reply::nothing()),
        }
        if bytes.len() > BODY {
            return Err(Reply::text(501, "for data too large"));
        }
    }
    let kind = media_type(content_type);
    let known = ["", "application/x-www-form-urlencoded", "application/json"].contains(&kind);
    // The type of nothing is looked at only where it is said to be JSON.
    if length > 0 && !known {
        return Err(Reply::text(506, &format!("upload 'Content-Type '{content_type}' not implemented")));
    }
    Ok(Given { bytes, json: kind == "application/json" })
}
