//! Answers: status, reason phrase, envelope.
//!
//! Purpose: how what a method says is put into HTTP (Proxmox VE 8.4, PVE/APIServer/Formatter). Must not know: requests.
//! Start at [`Reply`].

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, DATE, EXPIRES, PRAGMA, SERVER};
use ::http::{HeaderValue, Response, StatusCode};
use bytes::Bytes;
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use serde_json::{Value, json};

use super::call::{Answer, Call};
use super::coding::{Coding, WORTH};
use super::table::Handler;
use crate::world::refusal::Refusal;

/// An answer before it is put into HTTP.
pub(super) struct Reply {
    /// Status code.
    pub status: u16,
    /// Reason phrase; empty: the usual one.
    pub reason: String,
    /// What follows the headers.
    pub body: Body,
}

/// What follows the headers of an answer.
pub(super) enum Body {
    /// Nothing.
    Empty,
    /// Plain text.
    Text(String),
    /// A page.
    Page(String),
    /// Anything else with its type.
    Typed(&'static str, String),
    /// An envelope.
    Json(Value),
}

impl Reply {
    /// An answer without a body.
    pub(super) fn empty(status: u16, reason: &str) -> Self {
        Self { status, reason: reason.to_owned(), body: Body::Empty }
    }

    /// No answer: the connection ends.
    pub(super) fn nothing() -> Self {
        Self::empty(0, "")
    }

    /// Whether there is no answer.
    pub(super) fn is_nothing(&self) -> bool {
        self.status == 0
    }

    /// An error of the HTTP layer: the text is the reason and the body.
    pub(super) fn text(status: u16, text: &str) -> Self {
        let reason = text.lines().next().unwrap_or_default().to_owned();
        Self { status, reason, body: Body::Text(text.to_owned()) }
    }

    /// A refused request.
    pub(super) fn error(status: u16, message: &str, errors: Option<BTreeMap<String, String>>) -> Self {
        let reason = message.lines().next().unwrap_or_default().to_owned();
        let message = if message.ends_with('\n') { message.to_owned() } else { format!("{message}\n") };
        let mut body = json!({"data": null, "message": message});
        if let Some(errors) = errors {
            body["errors"] = json!(errors);
        }
        Self { status, reason, body: Body::Json(body) }
    }

    /// There is no such method: the one message without a line end.
    pub(super) fn not_implemented(verb: &str, path: &str) -> Self {
        let reason = format!("Method '{verb} {path}' not implemented");
        Self { status: 501, body: Body::Json(json!({"data": null, "message": reason})), reason }
    }

    /// What the world refused.
    pub(super) fn refusal(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Failed(text) => Self::error(500, text, None),
            Refusal::Params(errors) => Self::error(400, "Parameter verification failed.", Some(errors.clone())),
            Refusal::Forbidden(_) => Self::error(403, &refusal.to_string(), None),
            Refusal::NotFound(text) => Self::error(404, text, None),
            Refusal::Unfit(text) => Self::error(400, text, None),
        }
    }
}

/// Runs a method and wraps what it says.
pub(super) async fn run(handler: Handler, call: Call) -> Reply {
    let world = call.world.clone();
    let result = match handler {
        Handler::Now(handler) | Handler::Upload(handler) => handler(&call),
        Handler::Later(handler) => handler(call).await,
        Handler::Batch | Handler::Absent => Err(Refusal::failed("this is not played\n")),
    };
    match result {
        Ok(Answer { plain: Some(text), .. }) => Reply { status: 200, reason: String::new(), body: Body::Text(text) },
        Ok(Answer { data, total, changes, .. }) => {
            let mut body = json!({"data": data});
            if let Some(total) = total.filter(|total| *total > 0) {
                body["total"] = json!(total);
            }
            if let Some(changes) = changes {
                body["changes"] = json!(changes);
            }
            Reply { status: 200, reason: String::new(), body: Body::Json(body) }
        }
        Err(Refusal::Failed(text)) if super::handlers::UNAUTHORIZED.contains(&text.as_str()) => {
            let body = json!({"data": null, "message": format!("{text}\n")});
            Reply { status: 401, reason: text, body: Body::Json(body) }
        }
        // A text that isn't ASCII breaks the worker on its way into the status line, and the proxy waits in vain.
        Err(Refusal::Failed(text)) if !text.lines().next().unwrap_or_default().is_ascii() => {
            world.clock().sleep(5.0).await;
            Reply::empty(596, "Broken pipe")
        }
        Err(refusal) => Reply::refusal(&refusal),
    }
}

/// How an answer is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// As it is.
    Json,
    /// With the status in the body.
    Extjs,
    /// The same as a page, for forms that upload.
    HtmlJs,
    /// A page for people.
    Html,
    /// What a viewer is started with.
    Spice,
    /// A picture.
    Png,
}

impl Format {
    /// The formatter of a name in the path.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "json" => Self::Json,
            "extjs" => Self::Extjs,
            "htmljs" => Self::HtmlJs,
            "html" => Self::Html,
            "spiceconfig" => Self::Spice,
            "png" => Self::Png,
            _ => return None,
        })
    }

    /// Wraps an answer. What has no envelope is left as it is: the formatter wasn't reached.
    pub(super) fn wrap(self, reply: Reply) -> Reply {
        if !matches!(reply.body, Body::Json(_)) {
            return reply;
        }
        match self {
            Self::Json => reply,
            Self::Extjs => extjs(reply),
            Self::HtmlJs => escaped(extjs(reply)),
            Self::Html => escaped(reply),
            Self::Spice => by_lines(reply),
            Self::Png => picture(reply),
        }
    }
}

/// The other formatter: always 200, the status is in the body.
fn extjs(reply: Reply) -> Reply {
    let Reply { status, body, .. } = reply;
    match body {
        Body::Json(mut body) => {
            body["success"] = json!(u8::from(status == 200));
            if status != 200 {
                // The original has it as a text where parameters are wrong.
                body["status"] = if status == 400 { json!("400") } else { json!(status) };
            }
            Reply { status: 200, reason: String::new(), body: Body::Json(body) }
        }
        body => Reply { status, reason: reply.reason, body },
    }
}

/// The envelope with everything escaped that means something to a browser.
fn escaped(reply: Reply) -> Reply {
    let Body::Json(body) = &reply.body else { return reply };
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\'' => "&#39;".to_owned(),
        other => other.to_string(),
    };
    let text: String = body.to_string().chars().map(escape).collect();
    Reply { body: Body::Page(text), ..reply }
}

/// One `key=value` a line, as far as there is an object to show.
fn by_lines(reply: Reply) -> Reply {
    let mut text = String::new();
    if let Body::Json(body) = &reply.body
        && let Some(data) = body["data"].as_object()
    {
        text.push_str("[virt-viewer]\n");
        for (key, value) in data.iter().filter(|(_, value)| !value.is_null()) {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            // Writing to a text can't fail.
            let _ = writeln!(text, "{key}={value}");
        }
    }
    Reply { body: Body::Typed("application/x-virt-viewer;charset=UTF-8", text), ..reply }
}

/// Nothing here draws, so there never is a picture in it.
fn picture(reply: Reply) -> Reply {
    Reply { body: Body::Typed(PNG, String::new()), ..reply }
}

/// What there is of an image type is packed already.
const PNG: &str = "image/png";

/// The bytes of an answer, packed if its client takes that and it is worth it.
fn packed(bytes: Bytes, kind: Option<&str>, coding: Option<Coding>) -> (Bytes, Option<Coding>) {
    let coding = coding.filter(|_| bytes.len() > WORTH && kind != Some(PNG));
    match coding.map(|coding| (coding, coding.pack(&bytes))) {
        Some((coding, Ok(packed))) => (Bytes::from(packed), Some(coding)),
        _ => (bytes, None),
    }
}

/// The answer as HTTP, for a client that takes it packed or doesn't.
pub(super) fn respond(reply: Reply, coding: Option<Coding>) -> Response<Full<Bytes>> {
    let Reply { status, reason, body } = reply;
    let (kind, bytes) = match body {
        Body::Empty => (None, Bytes::new()),
        // Errors of the HTTP layer have no type.
        Body::Text(text) => ((status < 400).then_some("text/plain"), Bytes::from(text)),
        Body::Page(text) => (Some("text/html;charset=UTF-8"), Bytes::from(text)),
        Body::Typed(kind, text) => (Some(kind), Bytes::from(text)),
        Body::Json(value) => (Some("application/json;charset=UTF-8"), Bytes::from(value.to_string())),
    };
    let (bytes, coding) = packed(bytes, kind, coding);
    let mut response = Response::new(Full::new(bytes));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = response.headers_mut();
    if let Some(kind) = kind {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Some(coding) = coding {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    }
    headers.insert(SERVER, HeaderValue::from_static("pve-api-daemon/3.0"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=0"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    if let Ok(now) = HeaderValue::from_str(&now) {
        headers.insert(DATE, now.clone());
        headers.insert(EXPIRES, now);
    }
    if status >= 400 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    if !reason.is_empty()
        && let Ok(reason) = ReasonPhrase::try_from(reason.into_bytes())
    {
        response.extensions_mut().insert(reason);
    }
    response
}
