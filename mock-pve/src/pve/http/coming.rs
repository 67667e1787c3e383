//! A request on its way in.
//!
//! Purpose: what is known of a request before it is let in. Must not know: what becomes of it.

use ::http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use ::http::{HeaderMap, Method, Version, request};
use percent_encoding::percent_decode_str;

/// A request on its way in.
pub(super) struct Coming {
    pub verb: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    /// Who asks, once that is known.
    pub who: String,
    /// The names of its parameters, once they are read.
    pub keys: Vec<String>,
    /// Bytes of an upload that arrive changed.
    pub corrupt: u64,
    /// Whether another request may follow on the same connection.
    pub goes_on: bool,
}

impl Coming {
    /// The request with that head.
    pub(super) fn new(head: request::Parts) -> Self {
        let asked: Vec<&str> =
            head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).collect();
        let goes_on = if asked.is_empty() {
            head.version >= Version::HTTP_11
        } else {
            !asked.iter().any(|asked| asked.to_ascii_lowercase().contains("close"))
        };
        Self {
            path: percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            verb: head.method,
            headers: head.headers,
            who: String::new(),
            keys: Vec::new(),
            corrupt: 0,
            goes_on,
        }
    }

    /// How long its body is said to be.
    pub(super) fn length(&self) -> u64 {
        self.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0)
    }

    /// What its body is said to be.
    pub(super) fn content_type(&self) -> String {
        self.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    }

    /// The path below the API.
    pub(super) fn below(&self) -> &str {
        self.path.strip_prefix("/api2/json").or(self.path.strip_prefix("/api2/extjs")).unwrap_or(&self.path)
    }

    /// Who it says it is, whether that is true or not.
    pub(super) fn claimed(&self) -> String {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = text("authorization").strip_prefix("PVEAPIToken=").and_then(|token| token.rsplit_once('='));
        let ticket = || percent_decode_str(text("cookie").split_once("PVEAuthCookie=")?.1).decode_utf8().ok();
        let user = || Some(ticket()?.strip_prefix("PVE:")?.split(':').next()?.to_owned());
        token.map(|(id, _)| id.to_owned()).or_else(user).unwrap_or_default()
    }
}
