//! Verbs, endpoints, envelope.
//!
//! Purpose: send one call and give its `data`, or a [`PveError`] that says whether anything may have happened. Reads go to
//! the next endpoint when one is down and are repeated once on a reset; writes never are. Parameters travel form-encoded
//! (query for GET and DELETE: PVE refuses a body there). Must not know: endpoints' meanings.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue};
use ::http::{Method, Uri};
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::encode::Form;
use super::error::{PveError, Reply};
use super::login::{Auth, Login};
use crate::net::http::{Body, Client, HttpError, Request};
use crate::net::tls::{self, Trust, Versions};
use crate::net::{Connector, Meter, Silent};

/// Larger than any answer: the whole log of a long task.
const ANSWER_LIMIT: usize = 32 << 20;
/// One member of the cluster that answers API calls.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// `host:port`, IPv6 in brackets.
    pub address: String,
    /// Whom to believe there.
    pub trust: Trust,
}

/// What a [`Pve`] goes by.
#[derive(Clone, Debug)]
pub struct Options {
    /// In order of preference, at least one.
    pub endpoints: Vec<Endpoint>,
    /// Who calls.
    pub auth: Auth,
    /// How long an answer may take. PVE itself gives up after 30 seconds.
    pub patience: Duration,
    /// At which age a ticket is renewed.
    pub renew_after: Duration,
}

impl Options {
    /// With the usual times: 45 seconds for an answer, an hour for a ticket.
    pub fn new(endpoints: Vec<Endpoint>, auth: Auth) -> Self {
        Self { endpoints, auth, patience: Duration::from_secs(45), renew_after: Duration::from_hours(1) }
    }
}

struct Member {
    address: String,
    client: Client,
}

pub(super) struct Inner {
    connector: Connector,
    members: Vec<Member>,
    /// The member that answered last.
    preferred: AtomicUsize,
    pub(super) login: Arc<Login>,
    patience: Duration,
    requests: Arc<AtomicU64>,
}

/// A client of a PVE cluster. Clones share connections, session and count.
#[derive(Clone)]
pub struct Pve {
    pub(super) inner: Arc<Inner>,
}

impl std::fmt::Debug for Pve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let members: Vec<&str> = self.inner.members.iter().map(|member| member.address.as_str()).collect();
        f.debug_struct("Pve").field("endpoints", &members).finish_non_exhaustive()
    }
}

/// A call as it goes out.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) form: &'a Form,
    pub(super) effect: Effect,
}

/// Whether a call may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It may be sent again, to any member.
    None,
    /// It is sent once, and without an answer its outcome is unknown.
    Change,
}

impl Call<'_> {
    fn is_read(&self) -> bool {
        self.effect == Effect::None
    }
}

/// An answer as it came in.
pub(super) struct Received {
    status: u16,
    reason: String,
    body: Bytes,
}

/// What to send beside the credentials.
pub(super) struct Parcel {
    /// Path and query.
    pub(super) target: String,
    /// The body's type.
    pub(super) content_type: HeaderValue,
    /// The body.
    pub(super) body: Body,
    /// How long nothing may happen.
    pub(super) patience: Duration,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: T,
}

impl Pve {
    /// A client for a cluster. Nothing is sent yet.
    pub fn new(connector: &Connector, options: Options) -> Result<Self, PveError> {
        let Options { endpoints, auth, patience, renew_after } = options;
        let login = Arc::new(Login::new(auth, renew_after));
        Self::assemble(connector, endpoints, login, patience, Arc::default())
    }

    /// A client with the same credentials that talks to this endpoint alone: uploads aren't forwarded between nodes.
    pub fn at(&self, endpoint: Endpoint) -> Result<Self, PveError> {
        let inner = &self.inner;
        let (login, requests) = (inner.login.clone(), inner.requests.clone());
        Self::assemble(&inner.connector, vec![endpoint], login, inner.patience, requests)
    }

    fn assemble(
        connector: &Connector,
        endpoints: Vec<Endpoint>,
        login: Arc<Login>,
        patience: Duration,
        requests: Arc<AtomicU64>,
    ) -> Result<Self, PveError> {
        let setup = |what: &str, source: Option<Box<dyn std::error::Error + Send + Sync>>| PveError::Setup {
            what: what.to_owned(),
            source,
        };
        let mut members = Vec::new();
        for Endpoint { address, trust } in endpoints {
            let config = tls::client_config(&trust, None).map_err(|error| setup(&address, Some(Box::new(error))))?;
            uri(&address, "/").map_err(|error| setup(&address, Some(Box::new(error))))?;
            members.push(Member { client: Client::new(connector, config, Versions::Http1), address });
        }
        if members.is_empty() {
            return Err(setup("no endpoint is given", None));
        }
        let (connector, preferred) = (connector.clone(), AtomicUsize::new(0));
        Ok(Self { inner: Arc::new(Inner { connector, members, preferred, login, patience, requests }) })
    }

    /// Who calls: `user@realm` or `user@realm!token`.
    pub fn caller(&self) -> &str {
        match &self.inner.login.auth {
            Auth::Token { id, .. } => id,
            Auth::Password { user, .. } => user,
        }
    }

    /// How many requests were sent, by this client and those made from it with [`Self::at`].
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// GET, for the `data` of the answer.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str, query: &Form) -> Result<T, PveError> {
        self.data(Call { method: Method::GET, path, form: query, effect: Effect::None }).await
    }

    /// POST with a form.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, form: &Form) -> Result<T, PveError> {
        self.data(Call { method: Method::POST, path, form, effect: Effect::Change }).await
    }

    /// PUT with a form; its answers are null or not worth reading.
    pub(super) async fn put(&self, path: &str, form: &Form) -> Result<(), PveError> {
        self.data::<Option<IgnoredAny>>(Call { method: Method::PUT, path, form, effect: Effect::Change })
            .await
            .map(drop)
    }

    /// PUT with a form, for the `data` of the answer.
    pub(super) async fn put_for<T: DeserializeOwned>(&self, path: &str, form: &Form) -> Result<T, PveError> {
        self.data(Call { method: Method::PUT, path, form, effect: Effect::Change }).await
    }

    /// DELETE with its parameters in the query: PVE refuses a body.
    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str, query: &Form) -> Result<T, PveError> {
        self.data(Call { method: Method::DELETE, path, form: query, effect: Effect::Change }).await
    }

    async fn data<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<T, PveError> {
        tracing::debug!(method = %call.method, path = call.path, parameters = ?call.form, "PVE call");
        let received = self.authorised(&call).await?;
        open(call.path, &received)
    }

    /// Sends a call with credentials; a ticket that is refused is replaced once (a refused call was not carried out).
    async fn authorised(&self, call: &Call<'_>) -> Result<Received, PveError> {
        let headers = self.credentials(&call.method, None).await?;
        let received = self.carried(call, &headers).await?;
        if received.status == 401 && matches!(self.inner.login.auth, Auth::Password { .. }) {
            let refused = headers.get(COOKIE).cloned();
            let headers = self.credentials(&call.method, refused.as_ref()).await?;
            return self.carried(call, &headers).await.and_then(|received| judge(call, received));
        }
        judge(call, received)
    }

    async fn carried(&self, call: &Call<'_>, headers: &HeaderMap) -> Result<Received, PveError> {
        if call.is_read() { self.read(call, headers).await } else { self.write(call, headers).await }
    }

    /// Asks the members one after the other, beginning with the one that answered last.
    pub(super) async fn read(&self, call: &Call<'_>, headers: &HeaderMap) -> Result<Received, PveError> {
        let members = &self.inner.members;
        let first = self.inner.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for at in (0..members.len()).map(|step| (first + step) % members.len()) {
            for attempt in 0..2 {
                match self.exchange(&members[at], call, headers).await {
                    Ok(received) => {
                        self.inner.preferred.store(at, Ordering::Relaxed);
                        return Ok(received);
                    }
                    // A changed certificate must be seen, not stepped around.
                    Err(error @ (HttpError::Pin { .. } | HttpError::Untrusted { .. })) => {
                        return Err(failure(call.method.as_str(), call.path, error));
                    }
                    // pveproxy closes idle connections and restarts workers: a reset on a read means nothing, once.
                    Err(error @ HttpError::Broken { .. }) if attempt == 0 => last = Some(error),
                    Err(error) => {
                        tracing::warn!(endpoint = members[at].address, error = %error, "PVE endpoint does not answer");
                        last = Some(error);
                        break;
                    }
                }
            }
        }
        match last {
            Some(error) => Err(PveError::Unreachable(error)),
            None => Err(PveError::Setup { what: "no endpoint is given".to_owned(), source: None }),
        }
    }

    async fn write(&self, call: &Call<'_>, headers: &HeaderMap) -> Result<Received, PveError> {
        let sent = self.exchange(self.preferred(), call, headers).await;
        sent.map_err(|error| failure(call.method.as_str(), call.path, error))
    }

    fn preferred(&self) -> &Member {
        let members = &self.inner.members;
        &members[self.inner.preferred.load(Ordering::Relaxed) % members.len()]
    }

    async fn exchange(&self, member: &Member, call: &Call<'_>, headers: &HeaderMap) -> Result<Received, HttpError> {
        let encoded = call.form.encode();
        let in_query = matches!(call.method, Method::GET | Method::DELETE);
        let target =
            if in_query && !encoded.is_empty() { format!("{}?{encoded}", call.path) } else { call.path.to_owned() };
        let mut request = Request::new(call.method.clone(), uri(&member.address, &target)?);
        request.headers = headers.clone();
        request.patience = self.inner.patience;
        if !in_query && !encoded.is_empty() {
            request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            request.body = Body::Exact(encoded.into());
        }
        self.send(member, request, &Silent).await
    }

    async fn send(&self, member: &Member, request: Request, meter: &dyn Meter) -> Result<Received, HttpError> {
        self.inner.requests.fetch_add(1, Ordering::Relaxed);
        let answer = member.client.send_metered(request, meter).await?;
        let (status, reason) = (answer.status.as_u16(), answer.reason.clone());
        Ok(Received { status, reason, body: answer.bytes(ANSWER_LIMIT).await? })
    }

    /// POSTs a body of our own making, for its `data`.
    pub(super) async fn parcel<T: DeserializeOwned>(&self, parcel: Parcel, meter: &dyn Meter) -> Result<T, PveError> {
        let Parcel { target, content_type, body, patience } = parcel;
        tracing::debug!(path = target, "PVE upload");
        let path = target.split('?').next().unwrap_or_default();
        let call = Call { method: Method::POST, path, form: &Form::new(), effect: Effect::Change };
        let member = self.preferred();
        let made = uri(&member.address, &target).map_err(|error| failure("POST", path, error))?;
        let mut request = Request { body, patience, ..Request::new(Method::POST, made) };
        request.headers = self.credentials(&Method::POST, None).await?;
        request.headers.insert(CONTENT_TYPE, content_type);
        let sent = self.send(member, request, meter).await;
        let received = sent.map_err(|error| failure("POST", path, error))?;
        open(path, &judge(&call, received)?)
    }
}

fn uri(address: &str, target: &str) -> Result<Uri, HttpError> {
    Uri::builder()
        .scheme("https")
        .authority(address)
        .path_and_query(format!("/api2/json{target}"))
        .build()
        .map_err(HttpError::Malformed)
}

/// A write that got no answer: nothing happened only if it never left.
fn failure(method: &str, path: &str, error: HttpError) -> PveError {
    match error {
        HttpError::Pin { host, source } => PveError::Pin { endpoint: host, mismatch: source },
        HttpError::Untrusted { .. } => PveError::Untrusted(error),
        HttpError::Body { .. } => PveError::Upload(error),
        error if error.may_have_arrived() => PveError::Unanswered {
            method: method.to_owned(),
            path: path.to_owned(),
            why: "no answer".to_owned(),
            source: Some(Box::new(error)),
        },
        error => PveError::Unreachable(error),
    }
}

pub(super) fn judge(call: &Call<'_>, received: Received) -> Result<Received, PveError> {
    match received.status {
        200..=299 => Ok(received),
        // The call was handed on and the answer got lost on the way; the work may go on (pve-http-server, AnyEvent.pm).
        status @ 595..=599 if !call.is_read() => Err(PveError::Unanswered {
            method: call.method.to_string(),
            path: call.path.to_owned(),
            why: format!("{status} {}", received.reason),
            source: None,
        }),
        status => {
            let reply = Reply { status, reason: &received.reason, body: &received.body };
            Err(PveError::from_reply(reply))
        }
    }
}

pub(super) fn open<T: DeserializeOwned>(path: &str, received: &Received) -> Result<T, PveError> {
    serde_json::from_slice(&received.body)
        .map(|Envelope { data }| data)
        .map_err(|source| PveError::Answer { path: path.to_owned(), source })
}
