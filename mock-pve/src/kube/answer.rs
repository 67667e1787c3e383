//! Answers: JSON documents, Status objects, streams of watch events.

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::kinds::Kind;

pub(super) type Answer = Response<BoxBody<Bytes, std::convert::Infallible>>;

/// A refusal, as a Status object.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) details: Option<Value>,
}

/// One reason among others why an object is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cause {
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) field: String,
}

impl Cause {
    pub(super) fn required(field: impl Into<String>, why: &str) -> Self {
        let why = if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") };
        Self { reason: "FieldValueRequired", message: why, field: field.into() }
    }

    pub(super) fn invalid(field: impl Into<String>, value: &Value, why: &str) -> Self {
        Self { reason: "FieldValueInvalid", message: format!("Invalid value: {value}: {why}"), field: field.into() }
    }

    pub(super) fn forbidden(field: impl Into<String>, why: &str) -> Self {
        Self { reason: "FieldValueForbidden", message: format!("Forbidden: {why}"), field: field.into() }
    }

    pub(super) fn unsupported(field: impl Into<String>, value: &Value, known: &[&str]) -> Self {
        let known: Vec<String> = known.iter().map(|one| format!("\"{one}\"")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", known.join(", "));
        Self { reason: "FieldValueNotSupported", message, field: field.into() }
    }
}

impl Refusal {
    pub(super) fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn with(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }

    /// An error that the original has no reason for.
    pub(super) fn nameless(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }

    /// A path that no group has: not even a Status object.
    pub(super) fn no_such_page() -> Answer {
        text(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n".to_owned())
    }

    /// A resource version that is still to come.
    pub(super) fn too_large(wanted: u64, now: u64) -> Self {
        let why = format!("Timeout: Too large resource version: {wanted}, current: {now}");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", why).with(json!({ "retryAfterSeconds": 1,
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }] }))
    }

    /// A path that leads nowhere.
    pub(super) fn no_such_path() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource").with(json!({}))
    }

    pub(super) fn no_such_method() -> Self {
        let why = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", why).with(json!({}))
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", kind.qualified()))
            .with(kind.details(name))
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let why = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(StatusCode::CONFLICT, "Conflict", why).with(kind.details(name))
    }

    /// Somebody else was faster.
    pub(super) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// An object that can't be right.
    pub(super) fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        let mut of = kind.kind.clone();
        if !kind.group.is_empty() {
            of = format!("{of}.{}", kind.group);
        }
        Self::invalid_as(&of, (&kind.group, &kind.kind), name, causes)
    }

    pub(super) fn invalid_as(of: &str, (group, kind): (&str, &str), name: &str, causes: &[Cause]) -> Self {
        let each: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let all = if let [one] = each.as_slice() { one.clone() } else { format!("[{}]", each.join(", ")) };
        let causes: Vec<Value> = causes
            .iter()
            .map(|cause| json!({ "reason": cause.reason, "message": cause.message, "field": cause.field }))
            .collect();
        let mut details = json!({ "name": name, "kind": kind, "causes": causes });
        if !group.is_empty() {
            details["group"] = json!(group);
        }
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", format!("{of} \"{name}\" is invalid: {all}"))
            .with(details)
    }

    /// etcd doesn't answer.
    pub(super) fn no_etcd() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "etcdserver: request timed out")
    }

    pub(super) fn status(&self) -> Value {
        let mut status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code.as_u16() });
        if let Some(status) = status.as_object_mut().filter(|_| self.reason.is_empty()) {
            status.remove("reason");
        }
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status
    }

    pub(super) fn answer(&self) -> Answer {
        let mut answer = json(self.code, &self.status());
        let seconds = self.details.as_ref().and_then(|details| details["retryAfterSeconds"].as_u64());
        if let Some(seconds) = seconds {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        answer
    }
}

pub(super) fn json(code: StatusCode, value: &Value) -> Answer {
    text(code, "application/json", format!("{value}\n"))
}

pub(super) fn ok(value: &Value) -> Answer {
    json(StatusCode::OK, value)
}

pub(super) fn text(code: StatusCode, kind: &'static str, body: String) -> Answer {
    bytes(code, kind, body.into_bytes())
}

pub(super) fn bytes(code: StatusCode, kind: &'static str, body: Vec<u8>) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// What the caller should know although it went well.
pub(super) fn warn(mut answer: Answer, warnings: &[String]) -> Answer {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    answer
}

/// One JSON document per line, as they come.
pub(super) fn stream(
    lines: impl Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + Sync + 'static,
) -> Answer {
    let mut response = Response::new(BoxBody::new(StreamBody::new(lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
