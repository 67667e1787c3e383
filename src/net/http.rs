//! A small HTTPS client: exact bodies out, limited bodies in.
//!
//! Purpose: what PVE and the Image Factory need of HTTP and nothing more. Every body goes out with its exact
//! `Content-Length`, never chunked (PVE refuses chunked bodies, and proxies in front of it do worse). It tells apart what was
//! never sent from what was sent and not answered: whoever writes must know. Must not know: JSON, PVE, credentials.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ::http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use ::http::{Method, StatusCode, Uri};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::body::{Outgoing, Progress, Sending};
use super::connector::Connector;
use super::meter::{Meter, Silent};
use super::tls::{self, AuthorityShown, PinMismatch, Versions};

pub use super::body::{Body, ByteStream};

/// pveproxy closes a connection after five idle seconds; a request sent into that moment would be lost.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// How often progress of a body is reported.
const TICK: Duration = Duration::from_millis(100);

/// One request.
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Absolute, `https`.
    pub uri: Uri,
    /// Headers beside `Host`, `User-Agent` and `Content-Length`, which are set here.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Body,
    /// How long nothing may happen: neither body bytes leaving nor an answer arriving.
    pub patience: Duration,
}

impl Request {
    /// A GET without headers that may take 30 seconds to be answered.
    pub fn get(uri: Uri) -> Self {
        Self::new(Method::GET, uri)
    }

    /// A request without headers and body that may take 30 seconds to be answered.
    pub fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: HeaderMap::new(), body: Body::Empty, patience: Duration::from_secs(30) }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection or no TLS session came about: nothing was sent.
    #[error("could not connect to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// What stood in the way.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server isn't the pinned one: nothing was sent.
    #[error("{host} is not the server that was pinned")]
    Pin {
        /// Host and port.
        host: String,
        /// What was expected and what was found.
        #[source]
        source: PinMismatch,
    },
    /// The server's certificate isn't trusted: nothing was sent.
    #[error("the certificate of {host} is not trusted")]
    Untrusted {
        /// Host and port.
        host: String,
        /// Why not.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The request can't be made.
    #[error("could not make the request")]
    Malformed(#[source] ::http::Error),
    /// Our own body failed half-way.
    #[error("could not read what was to be sent to {host}")]
    Body {
        /// Host and port.
        host: String,
        /// What the stream said.
        #[source]
        source: io::Error,
    },
    /// It was sent, at least in part, and the connection broke before the answer was whole.
    #[error("the connection to {host} broke before the answer")]
    Broken {
        /// Host and port.
        host: String,
        /// How it broke.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Nothing happened for too long.
    #[error("no answer from {host} within {} s", after.as_secs_f32())]
    TimedOut {
        /// Host and port.
        host: String,
        /// How long nothing happened.
        after: Duration,
    },
    /// The answer is larger than it may be.
    #[error("the answer of {host} is larger than {limit} bytes")]
    TooLarge {
        /// Host and port.
        host: String,
        /// The limit.
        limit: usize,
    },
    /// Redirected too often, or to nowhere.
    #[error("{host} redirects without end or to nowhere")]
    Redirects {
        /// Host and port.
        host: String,
    },
}

impl HttpError {
    /// Whether the server may have acted on the request.
    pub fn may_have_arrived(&self) -> bool {
        !matches!(self, Self::Connect { .. } | Self::Pin { .. } | Self::Untrusted { .. } | Self::Malformed(_))
    }
}

/// An HTTPS client with its own pool. Clones share pool and count.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<HttpsConnector<Connector>, Sending>,
    requests: Arc<AtomicU64>,
    /// Host and port with what is said to them, and to nobody else.
    introduced: Option<(String, HeaderValue)>,
}

impl Client {
    /// A client over the connector, trusting as `tls` says.
    pub fn new(connector: &Connector, tls: ClientConfig, versions: Versions) -> Self {
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .build(tls::https(connector, tls, versions));
        Self { inner, requests: Arc::default(), introduced: None }
    }

    /// The same client, which says `authorization` to this host and port and to no other, redirects included.
    #[must_use]
    pub fn introduced(&self, authority: &str, authorization: HeaderValue) -> Self {
        let mut secret = authorization;
        secret.set_sensitive(true);
        Self { introduced: Some((authority.to_owned(), secret)), ..self.clone() }
    }

    /// Whether it says who it is to somebody.
    pub fn is_introduced(&self) -> bool {
        self.introduced.is_some()
    }

    /// How many requests were made so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    pub async fn send(&self, request: Request) -> Result<Answer, HttpError> {
        self.send_metered(request, &Silent).await
    }

    /// As [`Self::send`], telling the meter how many bytes of the body have left.
    pub async fn send_metered(&self, request: Request, meter: &dyn Meter) -> Result<Answer, HttpError> {
        let host = request.uri.authority().map_or_else(String::new, ToString::to_string);
        let patience = request.patience;
        let progress = Arc::new(Progress::default());
        let mut prepared = prepare(request, &progress).map_err(HttpError::Malformed)?;
        if let Some((_, secret)) = self.introduced.as_ref().filter(|(authority, _)| *authority == host) {
            prepared.headers_mut().entry(AUTHORIZATION).or_insert(secret.clone());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);

        let mut answer = pin!(self.inner.request(prepared));
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reported, mut quiet_since) = (0, Instant::now());
        let report = |reported: &mut u64| {
            let sent = progress.sent.load(Ordering::Relaxed);
            let more = sent - *reported;
            if more > 0 {
                meter.add(more);
            }
            *reported = sent;
            more > 0
        };
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut answer => break outcome,
                _ = ticks.tick() => {
                    if report(&mut reported) {
                        quiet_since = Instant::now();
                    } else if quiet_since.elapsed() >= patience {
                        return Err(HttpError::TimedOut { host, after: patience });
                    }
                }
            }
        };
        report(&mut reported);
        match outcome {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                let reason = match head.extensions.get::<ReasonPhrase>() {
                    Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
                    None => head.status.canonical_reason().unwrap_or_default().to_owned(),
                };
                Ok(Answer { status: head.status, reason, headers: head.headers, body, host, patience })
            }
            Err(error) => Err(failure(host, error, &progress)),
        }
    }

    /// Sends a GET and follows up to `hops` redirects. `Authorization` isn't taken along to another host.
    pub async fn get_following(&self, uri: Uri, headers: HeaderMap, hops: usize) -> Result<Answer, HttpError> {
        let (mut uri, mut headers) = (uri, headers);
        for _ in 0..=hops {
            let answer = self.send(Request { headers: headers.clone(), ..Request::get(uri.clone()) }).await?;
            if !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            let host = answer.host.clone();
            let next = answer.headers.get(LOCATION).and_then(|location| resolve(&uri, location));
            let next = next.ok_or_else(|| HttpError::Redirects { host })?;
            if next.authority() != uri.authority() {
                headers.remove(AUTHORIZATION);
            }
            uri = next;
        }
        Err(HttpError::Redirects { host: uri.authority().map_or_else(String::new, ToString::to_string) })
    }
}

/// Where a `Location` leads, seen from `base`: absolute, or absolute on the same host.
fn resolve(base: &Uri, location: &HeaderValue) -> Option<Uri> {
    let location = location.to_str().ok()?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Uri::builder()
            .scheme("https")
            .authority(base.authority()?.clone())
            .path_and_query(location)
            .build()
            .ok();
    }
    location.parse().ok().filter(|uri: &Uri| uri.scheme_str() == Some("https"))
}

fn prepare(request: Request, progress: &Arc<Progress>) -> Result<::http::Request<Sending>, ::http::Error> {
    let Request { method, uri, headers, body, .. } = request;
    let carries = !matches!(method, Method::GET | Method::HEAD | Method::DELETE);
    let sending = Sending { body: Outgoing::from(body), progress: progress.clone() };
    let length = sending.body.left();
    let mut prepared = ::http::Request::builder().method(method).uri(uri).body(sending)?;
    *prepared.headers_mut() = headers;
    prepared.headers_mut().remove(HOST);
    prepared
        .headers_mut()
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(concat!("recast/", env!("CARGO_PKG_VERSION"))));
    if carries || length > 0 {
        prepared.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(prepared)
}

fn failure(host: String, error: legacy::Error, progress: &Progress) -> HttpError {
    if let Some(mismatch) = tls::mismatch(&error) {
        return HttpError::Pin { host, source: mismatch.clone() };
    }
    if let Some(refused) = tls::certificate_error(&error) {
        let is_an_authority = tls::is_an_authority(refused);
        let source = Box::new(error);
        return HttpError::Untrusted {
            host,
            source: if is_an_authority { Box::new(AuthorityShown(source)) } else { source },
        };
    }
    if error.is_connect() {
        return HttpError::Connect { host, source: Box::new(error) };
    }
    if let Some(source) = progress.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        return HttpError::Body { host, source };
    }
    HttpError::Broken { host, source: Box::new(error) }
}

/// The head of an answer, with its body still to be read.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The reason phrase as received: PVE puts its error message there.
    pub reason: String,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    host: String,
    patience: Duration,
}

impl Answer {
    /// The announced length of what is still to be read, where there is one.
    pub fn length(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece of the body, `None` at its end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, HttpError> {
        loop {
            let host = || self.host.clone();
            match timeout(self.patience, self.body.frame()).await {
                Err(_) => return Err(HttpError::TimedOut { host: host(), after: self.patience }),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(HttpError::Broken { host: host(), source: Box::new(error) }),
                Ok(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// The whole body, if it has at most `limit` bytes.
    pub async fn bytes(mut self, limit: usize) -> Result<Bytes, HttpError> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(HttpError::TooLarge { host: self.host, limit });
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_never_leave_https() {
        let base: Uri = "https://factory.example/image/x".parse().unwrap();
        let to =
            |location: &'static str| resolve(&base, &HeaderValue::from_static(location)).map(|uri| uri.to_string());
        assert_eq!(to("/y?z=1").as_deref(), Some("https://factory.example/y?z=1"));
        assert_eq!(to("https://store.example/y").as_deref(), Some("https://store.example/y"));
        assert_eq!(to("http://store.example/y"), None);
        assert_eq!(to("//store.example/y"), None);
        assert_eq!(to("y"), None);
    }
}
