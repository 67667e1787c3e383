//! The HTTP layer.
//!
//! Purpose: what the original's web server does before and after a method runs (Proxmox VE 8.4,
//! PVE/APIServer/AnyEvent.pm). Must not know: what methods do. Start at [`Api::serve`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use ::http::{HeaderValue, Method as Verb, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::auth::{Auth, Changes, Identity, Means};
use super::body::{BODY, drain, read_body};
use super::call::Call;
use super::multipart::{Upload, UploadError, boundary};
use super::params::{Params, Value as Given, decode_form};
use super::permission;
use super::record::Failure;
use super::reply::{Body, Format, Reply, respond, run};
use super::route::{self, Found};
use super::schema::Schema;
use super::screen::{Screened, screen};
use super::table::Handler;
use crate::scenario::{Cut, Meeting, Met};
use crate::world::members::Outage;
use crate::world::refusal::Refusal;
use crate::world::rights::Caller;
use crate::world::script::{Answered, Ask, Service, Step};
use crate::world::{State, World};

/// Inactivity after which a connection is closed.
const IDLE: Duration = Duration::from_secs(5);

/// Why the API can't be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Our own table of parameters can't be read.
    #[error("the table of parameters is malformed")]
    Schema(#[from] serde_json::Error),
}

/// A page beside the API, for a path that begins with it: content type and text.
pub type Pages = Arc<dyn Fn(&str) -> Option<(&'static str, String)> + Send + Sync>;

/// The API of one world.
#[derive(Clone, Debug)]
pub struct Api(Arc<Inner>);

struct Inner {
    world: World,
    local: String,
    schema: Schema,
    auth: Arc<Auth>,
    pages: OnceLock<Pages>,
    count: AtomicU64,
    uploads: AtomicU64,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Api").field("node", &self.local).finish_non_exhaustive()
    }
}

/// A request on its way in.
struct Coming {
    verb: Verb,
    path: String,
    query: String,
    headers: ::http::HeaderMap,
    who: String,
    keys: Vec<String>,
    /// Bytes of an upload that arrive changed.
    corrupt: u64,
}

impl Coming {
    /// The path below the API.
    fn below(&self) -> &str {
        self.path.strip_prefix("/api2/json").or(self.path.strip_prefix("/api2/extjs")).unwrap_or(&self.path)
    }

    /// Who it says it is, whether that is true or not.
    fn claimed(&self) -> String {
        let text = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let token = text("authorization").strip_prefix("PVEAPIToken=").and_then(|token| token.rsplit_once('='));
        let ticket = || percent_decode_str(text("cookie").split_once("PVEAuthCookie=")?.1).decode_utf8().ok();
        let user = || Some(ticket()?.strip_prefix("PVE:")?.split(':').next()?.to_owned());
        token.map(|(id, _)| id.to_owned()).or_else(user).unwrap_or_default()
    }
}

impl Api {
    /// The API of one node of a world. All nodes of a cluster share their tickets.
    pub fn new(world: World, local: String, auth: Arc<Auth>) -> Result<Self, ApiError> {
        let schema = Schema::load(world.state().pve)?;
        Ok(Self(Arc::new(Inner {
            world,
            local,
            schema,
            auth,
            pages: OnceLock::new(),
            count: AtomicU64::new(0),
            uploads: AtomicU64::new(0),
        })))
    }

    /// Answers what isn't below `/api2` from there; only the first call counts.
    pub fn show(&self, pages: Pages) {
        // A second call was a mistake of the one who serves.
        let _ = self.0.pages.set(pages);
    }

    /// How many requests were answered.
    pub fn requests(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// What `pveversion` prints.
    pub fn manager_version(&self) -> String {
        super::handlers::cluster::manager_version(&self.0.world.state())
    }

    /// Runs a method on this node as root, as the command line tools do: without HTTP and login, with all checks.
    pub async fn as_root(
        &self,
        verb: &str,
        path: &str,
        given: BTreeMap<String, Vec<String>>,
    ) -> Result<Value, Failure> {
        let reply = match self.find(verb, path) {
            None => Reply::not_implemented(verb, path),
            Some(found) => {
                let mut params = Params::default();
                for (key, mut values) in given {
                    let value = if values.len() == 1 {
                        Given::Text(values.pop().unwrap_or_default())
                    } else {
                        Given::List(values)
                    };
                    params.0.insert(key, value);
                }
                match self.admit(verb, path, found, params, (Caller::root(), Means::Ticket)) {
                    Ok((call, handler)) => run(handler, call).await,
                    Err(reply) => reply,
                }
            }
        };
        let Reply { status, reason, body } = reply;
        match body {
            Body::Json(mut body) if status == 200 => Ok(body["data"].take()),
            Body::Text(text) if status == 200 => Ok(Value::String(text)),
            Body::Json(body) => Err(Failure {
                status,
                text: body["message"].as_str().map_or(reason, str::to_owned),
                errors: body["errors"]
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(key, text)| (key.clone(), text.as_str().unwrap_or_default().to_owned()))
                    .collect(),
            }),
            _ => Err(Failure { status, text: reason, errors: BTreeMap::new() }),
        }
    }

    /// Answers one connection until it ends or breaks.
    pub async fn serve<S>(&self, stream: S, cut: Cut)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let service = service_fn(|request| {
            let (api, cut) = (self.clone(), cut.clone());
            async move { Ok::<_, Infallible>(api.answer(request, &cut).await) }
        });
        let (mut reading, mut writing) = tokio::io::split(stream);
        let began = match screen(&mut reading, IDLE).await {
            Screened::Pass(began) => began,
            Screened::Nothing => return,
            Screened::Refuse(status, text) => {
                let answer = format!(
                    "HTTP/1.1 {status} {text}\r\nServer: pve-api-daemon/3.0\r\nConnection: close\r\n\
                     Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
                    text.len()
                );
                // Who doesn't listen needn't be told.
                let _ = writing.write_all(answer.as_bytes()).await;
                let _ = writing.shutdown().await;
                return;
            }
        };
        let stream = tokio::io::join(std::io::Cursor::new(began).chain(reading), writing);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(64).keep_alive(true);
        tokio::select! {
            ended = builder.serve_connection(TokioIo::new(stream), service) => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = cut.happens() => {}
        }
    }

    async fn answer(&self, request: hyper::Request<Incoming>, cut: &Cut) -> Response<Full<Bytes>> {
        let mut meeting = Meeting::new(Answered::now(Service::Pve, &self.0.local));
        self.unless_it_hangs().await;
        let (head, body) = request.into_parts();
        let raw = head.uri.path();
        let mut coming = Coming {
            verb: head.method,
            path: percent_decode_str(raw).decode_utf8_lossy().into_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            headers: head.headers,
            who: String::new(),
            keys: Vec::new(),
            corrupt: 0,
        };
        if coming.verb == Verb::GET
            && let Some((kind, text)) = self.0.pages.get().and_then(|pages| pages(&coming.path))
        {
            return page(kind, text);
        }
        let mut met = self.met(&coming).await;
        if met.breaks_before() {
            return cut.instead_of_an_answer().await;
        }
        let (format, reply) = if let Some((code, reason)) = met.status.take() {
            drain(body).await;
            (Format::Json, Reply::error(code, &reason, None))
        } else {
            coming.corrupt = met.corrupt;
            let answered = self.dispatch(&mut coming, body).await;
            met.corrupt = coming.corrupt;
            answered
        };
        if reply.is_nothing() {
            return cut.instead_of_an_answer().await;
        }
        let reply = format.wrap(reply);
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let record = &mut meeting.record;
        (record.method, record.path) = (coming.verb.to_string(), coming.below().to_owned());
        (record.keys, record.who, record.reason) = (coming.keys, coming.who, reply.reason.clone());
        let status = reply.status;
        let mut response = respond(reply);
        let bytes = http_body::Body::size_hint(response.body()).lower();
        meeting.ends(&self.0.world, status, bytes);
        if met.breaks_after() {
            return cut.instead_of_an_answer().await;
        }
        if met.corrupt > 0
            && let Ok(body) = http_body_util::BodyExt::collect(std::mem::take(response.body_mut())).await
        {
            *response.body_mut() = Full::new(met.touch(body.to_bytes()));
        }
        response
    }

    /// What the scenario has in store for a request.
    async fn met(&self, coming: &Coming) -> Met {
        if self.0.world.script().is_none() {
            return Met::default();
        }
        let (verb, path, who) = (coming.verb.as_str(), coming.below(), coming.claimed());
        let (service, step, node) = (Service::Pve, Step::Request, self.0.local.as_str());
        Met::with(&self.0.world, &Ask { service, step, verb, path, who: &who, node, vmid: None }).await
    }

    /// Waits while the node hangs.
    async fn unless_it_hangs(&self) {
        let mut members = self.0.world.watch_members();
        while self.0.world.state().outage(&self.0.local) == Some(Outage::Hangs) {
            if members.changed().await.is_err() {
                return;
            }
        }
    }

    /// What the original looks at before anything of the request is read: method, encoding, address, login, length.
    async fn dispatch(&self, coming: &mut Coming, body: Incoming) -> (Format, Reply) {
        let verb = coming.verb.clone();
        if ![Verb::GET, Verb::POST, Verb::PUT, Verb::DELETE].contains(&verb) {
            return (Format::Json, Reply::empty(501, &format!("method '{verb}' not available")));
        }
        if let Some(encoding) = coming.headers.get("transfer-encoding") {
            let text = match encoding.to_str().unwrap_or_default() {
                chunked if chunked.eq_ignore_ascii_case("chunked") => {
                    "chunked transfer encoding not supported".to_owned()
                }
                other => format!("Unknown transfer encoding '{other}'"),
            };
            return (Format::Json, Reply::text(501, &text));
        }
        let length: u64 =
            coming.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
        let path = coming.path.clone();
        if !path.starts_with("/api2") {
            if length > 0 && matches!(verb, Verb::GET | Verb::DELETE) {
                return (Format::Json, unexpected(&verb));
            }
            drain(body).await;
            return (Format::Json, Reply::text(500, &format!("no such file '{path}'\n")));
        }
        let Some((format, below)) = split(&path) else {
            return (Format::Json, Reply::text(501, "no such uri"));
        };
        let known = Format::named(format);
        let reply = self.inside(coming, (format, known), below, length, body).await;
        (known.unwrap_or(Format::Json), reply)
    }

    async fn inside(
        &self,
        coming: &mut Coming,
        (format, known): (&str, Option<Format>),
        path: &str,
        length: u64,
        body: Incoming,
    ) -> Reply {
        let verb = coming.verb.as_str().to_owned();
        let found = self.find(&verb, path);
        let upload = found.as_ref().is_some_and(|found| matches!(found.handler, Handler::Upload(_)));
        let open = found
            .as_ref()
            .and_then(|found| self.0.schema.method(&verb, &found.pattern))
            .is_some_and(|method| method.perm.get("user").and_then(Value::as_str) == Some("world"));
        let changes = if verb == "GET" || upload { Changes::No } else { Changes::Yes };
        let has_credentials = coming.headers.contains_key("authorization") || coming.headers.contains_key("cookie");
        let (caller, means) = if open && !has_credentials {
            (Caller { identity: String::new() }, Means::Ticket)
        } else {
            match self.0.auth.identify(&self.0.world, &coming.headers, changes) {
                Identity::Known(caller, means) => (caller, means),
                Identity::Unknown(_) if open => (Caller { identity: String::new() }, Means::Ticket),
                Identity::Unknown(reason) => {
                    self.0.world.clock().sleep(3.0).await;
                    return Reply::empty(401, reason);
                }
            }
        };
        if length > 0 && matches!(coming.verb, Verb::GET | Verb::DELETE) {
            return unexpected(&coming.verb);
        }
        coming.who.clone_from(&caller.identity);
        let content_type =
            coming.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        if upload && content_type.starts_with("multipart/form-data") {
            let Some(found) = found else { return Reply::empty(501, "") };
            return self.upload(coming, path, found, (caller, means), &content_type, body).await;
        }
        let mut params = decode_form(&coming.query);
        if verb == "POST" || verb == "PUT" {
            if length > BODY as u64 {
                drain(body).await;
                return Reply::text(501, "for data too large");
            }
            match read_body(body, length, &content_type).await {
                // On the same key the query string wins.
                Ok(from_body) => from_body.0.into_iter().for_each(|(key, value)| {
                    params.0.entry(key).or_insert(value);
                }),
                Err(reply) => return reply,
            }
        }
        if known.is_none() {
            return Reply::text(501, &format!("no formatter for uri {path}, {format}"));
        }
        let Some(found) = found else {
            return Reply::not_implemented(&verb, path);
        };
        coming.keys = params.0.keys().cloned().collect();
        let (call, handler) = match self.admit(&verb, path, found, params, (caller, means)) {
            Ok(admitted) => admitted,
            Err(reply) => {
                // Nobody answers for a while before a proxy gives up.
                let seconds = match reply.status {
                    595 => 3.0,
                    596 => 30.0,
                    _ => 0.0,
                };
                self.0.world.clock().sleep(seconds).await;
                return reply;
            }
        };
        run(handler, call).await
    }

    /// The row that a path means. A method of the original that isn't played is found, too: it is refused only after all
    /// that the original would refuse first.
    fn find(&self, verb: &str, path: &str) -> Option<Found> {
        let played = route::find(verb, path).filter(|found| self.0.schema.method(verb, &found.pattern).is_some());
        played.or_else(|| route::find_among(self.0.schema.patterns(verb), path))
    }

    /// Path parameters, token, permission, node, schema: in the original's order.
    fn admit(
        &self,
        verb: &str,
        path: &str,
        found: Found,
        mut params: Params,
        (caller, means): (Caller, Means),
    ) -> Result<(Call, Handler), Reply> {
        let Some(method) = self.0.schema.method(verb, &found.pattern) else {
            return Err(Reply::not_implemented(verb, path));
        };
        let mut captured = found.captured;
        captured.sort();
        for (name, value) in captured {
            let value = Given::Text(value);
            if params.0.get(&name).is_some_and(|given| *given != value) {
                let text = "duplicate parameter (already defined in URI) with conflicting values!";
                return Err(Reply::refusal(&Refusal::param(&name, text)));
            }
            params.0.insert(name, value);
        }
        if means == Means::Token && !method.token {
            let text =
                format!("Permission check failed (URI '{path}' not available with API token, need proper ticket.\n)");
            return Err(Reply::error(403, &text, None));
        }
        {
            let state = self.0.world.state();
            permission::check(&state, &caller, &method.perm, &params).map_err(|refusal| Reply::refusal(&refusal))?;
            if let Some(node) = params.text("node")
                && node != "localhost"
                && !state.nodes.contains_key(node)
                && method.knows("node")
            {
                // Host names know no case, node names do.
                if state.nodes.keys().any(|known| known.eq_ignore_ascii_case(node)) {
                    return Err(Reply::empty(595, "Connection refused"));
                }
                let text = format!(
                    "hostname lookup '{node}' failed - failed to get address info for: {node}: Name or service not known"
                );
                return Err(Reply::error(500, &text, None));
            }
            // What wakes a node can't run there.
            if method.knows("node") && !found.pattern.ends_with("/wakeonlan") {
                self.forward(&state, found.handler, params.text("node").unwrap_or_default())?;
            }
        }
        Schema::check(method, &mut params)
            .map_err(|errors| Reply::error(400, "Parameter verification failed.", Some(errors)))?;
        if found.pattern != "/nodes/{node}/qemu/{vmid}/config" {
            // What has no value is as good as not given. A config that is to hold nothing is refused where it is written.
            params.0.retain(|_, value| *value != Given::Nothing);
        }
        if matches!(found.handler, Handler::Absent) {
            return Err(Reply::not_implemented(verb, path));
        }
        if verb != "GET" && !found.pattern.starts_with("/access/ticket") && !route::without_quorum(&found.pattern) {
            self.0.world.state().check_quorum().map_err(|refusal| Reply::refusal(&refusal))?;
        }
        let call = Call {
            world: self.0.world.clone(),
            local: self.0.local.clone(),
            caller,
            params,
            upload: None,
            auth: Arc::clone(&self.0.auth),
        };
        Ok((call, found.handler))
    }

    /// Whether a request reaches the node it is for; most methods run there, and any node passes them on.
    fn forward(&self, state: &State, handler: Handler, node: &str) -> Result<(), Reply> {
        if node == "localhost" || node == self.0.local {
            return Ok(());
        }
        match (state.outage(node), handler) {
            (None, _) => Ok(()),
            // A file comes to the contacted node, which copies it on by itself.
            (Some(_), Handler::Upload(_)) => {
                let ip = state.nodes.get(node).map_or("", |node| node.ip.as_str());
                let text = format!(
                    "command '/usr/bin/ssh -o 'BatchMode=yes' {ip} -- /bin/mkdir -p -- ' failed: exit code 255\n"
                );
                Err(Reply::error(500, &text, None))
            }
            (Some(Outage::Off), _) => Err(Reply::empty(595, "No route to host")),
            (Some(Outage::Hangs), _) => Err(Reply::empty(596, "Connection timed out")),
        }
    }

    async fn upload(
        &self,
        coming: &mut Coming,
        path: &str,
        found: Found,
        who: (Caller, Means),
        content_type: &str,
        mut body: Incoming,
    ) -> Reply {
        // Rights come first here: a refused upload is not read (and the answer has no body).
        let Some(method) = self.0.schema.method("POST", &found.pattern) else { return Reply::empty(501, "") };
        let mut params = decode_form(&coming.query);
        for (name, value) in &found.captured {
            params.0.insert(name.clone(), Given::Text(value.clone()));
        }
        let allowed = permission::check(&self.0.world.state(), &who.0, &method.perm, &params);
        if let Err(refusal) = allowed {
            drain(body).await;
            return Reply::empty(403, &refusal.to_string());
        }
        let Some(boundary) = boundary(content_type) else {
            return Reply::text(500, "upload failed at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line 1317.\n");
        };
        let number = self.0.uploads.fetch_add(1, Ordering::Relaxed);
        let folder = self.0.world.dir().join("uploads");
        // Every node has a counter of its own, and all share the folder.
        let file = folder.join(format!("pveupload-{}-{}-{number}", self.0.local, std::process::id()));
        if let Err(error) = std::fs::create_dir_all(&folder) {
            return Reply::text(500, &format!("{error}\n"));
        }
        let upload = match Upload::read(&mut body, boundary, &file).await {
            Ok(upload) => upload,
            Err(error) => {
                // What came so far is of no use.
                let _ = std::fs::remove_file(&file);
                if !matches!(error, UploadError::Silent) {
                    drain(body).await;
                }
                return match error {
                    UploadError::Silent => Reply::nothing(),
                    UploadError::Broken(text) => Reply::text(500, &text),
                    UploadError::Field => Reply::empty(400, "Bad Request"),
                    UploadError::Io(error) => Reply::text(500, &format!("{error}\n")),
                };
            }
        };
        let changed = std::mem::take(&mut coming.corrupt);
        if changed > 0
            && let Err(error) = spoil(&file, upload.size, changed)
        {
            tracing::warn!(%error, "an upload can't be changed on its way");
        }
        for (name, value) in &upload.fields {
            params.0.entry(name.clone()).or_insert_with(|| Given::Text(value.clone()));
        }
        let filename = super::multipart::target_name(&upload.filename);
        params.0.entry("filename".to_owned()).or_insert(Given::Text(filename));
        params.0.entry("tmpfilename".to_owned()).or_insert_with(|| {
            Given::Text(format!(
                "/var/tmp/pveupload-{:032x}",
                u128::from(number) | u128::from(std::process::id()) << 64
            ))
        });
        coming.keys = params.0.keys().cloned().collect();
        let (mut call, handler) = match self.admit("POST", path, found, params, who) {
            Ok(admitted) => admitted,
            Err(reply) => {
                // Nobody will come for it.
                let _ = std::fs::remove_file(&file);
                return reply;
            }
        };
        call.upload = Some(upload);
        run(handler, call).await
    }
}

/// Format and path below it; `None`: that is no address of a method.
fn split(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("/api2")?;
    let word = rest.trim_start_matches('/');
    let (format, below) = word.find('/').map_or((word, "/"), |at| word.split_at(at));
    let fits = rest.len() > word.len()
        && format.len() > 1
        && format.starts_with(|c: char| c.is_ascii_lowercase())
        && format.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        && !below.contains('\n');
    fits.then_some((format, below))
}

fn unexpected(verb: &Verb) -> Reply {
    Reply::text(501, &format!("Unexpected content for method '{verb}'"))
}

/// Changes bytes in the middle of a file that came.
fn spoil(path: &std::path::Path, size: u64, bytes: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let count = usize::try_from(bytes.min(size)).unwrap_or_default();
    let at = (size - count as u64) / 2;
    let mut piece = vec![0; count];
    file.read_exact_at(&mut piece, at)?;
    for byte in &mut piece {
        *byte ^= 0xA5;
    }
    file.write_all_at(&piece, at)
}

/// A page for people.
fn page(kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
