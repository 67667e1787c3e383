//! Answers: JSON documents, Status objects, streams of watch events.

use bytes::Bytes;
use futures_util::Stream;
use http::{Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

pub(super) type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

/// A refusal, as a Status object.
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into() }
    }

    /// A path that leads nowhere.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
    }

    /// etcd doesn't answer.
    pub(super) fn no_etcd() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "etcdserver: request timed out")
    }

    pub(super) fn status(&self) -> Value {
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": self.message,
            "reason": self.reason, "code": self.code.as_u16() })
    }
}

pub(super) fn json(code: StatusCode, value: &Value) -> Answer {
    text(code, "application/json", format!("{value}\n"))
}

pub(super) fn text(code: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// One JSON document per line, as they come.
pub(super) fn stream(
    lines: impl Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + Sync + 'static,
) -> Answer {
    let mut response = Response::new(BoxBody::new(StreamBody::new(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
