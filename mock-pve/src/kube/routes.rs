//! Paths, verbs, and what becomes of objects.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::kinds::{self, Kind};
use crate::world::cluster::{Change, ChangeKind, Entry, Etcd, EtcdError, objects};
use crate::world::machine::{Machine, Membership};

/// Who called.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    Anonymous,
    Known { name: String, groups: Vec<String> },
}

/// An API server.
pub(super) struct Server {
    machine: Machine,
}

impl Server {
    pub(super) fn new(machine: Machine) -> Self {
        Self { machine }
    }

    fn etcd(&self) -> Result<Membership, Refusal> {
        let found = self.machine.see(|state| state.membership.clone()).filter(|found| found.etcd.has_quorum());
        found.ok_or_else(Refusal::no_etcd)
    }

    fn version(&self) -> Value {
        let version = self.machine.see(|state| state.config.as_ref().and_then(|config| config.kubernetes()));
        let version = version.unwrap_or_default();
        let minor = version.split('.').nth(1).unwrap_or_default();
        json!({ "major": "1", "minor": minor, "gitVersion": format!("v{version}"), "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26.1", "compiler": "gc",
            "platform": "linux/amd64" })
    }
}

/// A request, taken apart.
struct Ask {
    method: Method,
    kind: &'static Kind,
    namespace: Option<String>,
    name: Option<String>,
    subresource: Option<String>,
    query: BTreeMap<String, String>,
    content_type: String,
}

pub(super) async fn answer(server: &Server, caller: &Caller, request: http::Request<Incoming>) -> Answer {
    route(server, caller, request).await.unwrap_or_else(|refusal| answer::json(refusal.code, &refusal.status()))
}

async fn route(server: &Server, caller: &Caller, request: http::Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().trim_end_matches('/').to_owned();
    let ok = |value: &Value| Ok(answer::json(StatusCode::OK, value));
    match path.as_str() {
        "/version" => return ok(&server.version()),
        "/healthz" | "/livez" => return Ok(answer::text(StatusCode::OK, "text/plain", "ok".to_owned())),
        "/readyz" => {
            let ready = server.etcd().is_ok();
            let (code, text) = if ready {
                (StatusCode::OK, "ok")
            } else {
                (StatusCode::INTERNAL_SERVER_ERROR, "[-]etcd failed: reason withheld\nreadyz check failed\n")
            };
            return Ok(answer::text(code, "text/plain", text.to_owned()));
        }
        _ => {}
    }
    authorize(caller, &request)?;
    let segments: Vec<String> =
        path.split('/').skip(1).map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned()).collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match segments.as_slice() {
        ["api"] => return ok(&json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ["apis"] => return ok(&kinds::groups()),
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(Refusal::no_such_path()),
    };
    if rest.is_empty() {
        return ok(&kinds::resources(group, version).ok_or_else(Refusal::no_such_path)?);
    }
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        rest => (None, rest.to_vec()),
    };
    let [plural, rest @ ..] = rest.as_slice() else { return Err(Refusal::no_such_path()) };
    let kind = Kind::find(group, version, plural).ok_or_else(Refusal::no_such_path)?;
    let query = request.uri().query().unwrap_or_default();
    let header = request.headers().get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let ask = Ask {
        method: request.method().clone(),
        kind,
        namespace,
        name: rest.first().map(|name| (*name).to_owned()),
        subresource: rest.get(1).map(|name| (*name).to_owned()),
        query: parse_query(query),
        content_type: header.unwrap_or("application/json").to_owned(),
    };
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", error.to_string()))?;
    perform(server, &ask, &body.to_bytes())
}

fn authorize(caller: &Caller, request: &http::Request<Incoming>) -> Result<(), Refusal> {
    let name = match caller {
        Caller::Known { groups, .. } if groups.iter().any(|group| group == "system:masters") => return Ok(()),
        Caller::Known { name, .. } => name,
        Caller::Anonymous if request.headers().contains_key(http::header::AUTHORIZATION) => {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"));
        }
        Caller::Anonymous => "system:anonymous",
    };
    let verb = request.method().as_str().to_lowercase();
    let path = request.uri().path();
    let why = format!("forbidden: User \"{name}\" cannot {verb} path \"{path}\"");
    Err(Refusal::new(StatusCode::FORBIDDEN, "Forbidden", why))
}

fn parse_query(query: &str) -> BTreeMap<String, String> {
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn perform(server: &Server, ask: &Ask, body: &[u8]) -> Result<Answer, Refusal> {
    let membership = server.etcd()?;
    let etcd = &membership.etcd;
    match (&ask.method, &ask.name) {
        (&Method::GET, None) if ["true", "1"].contains(&ask.flag("watch")) => watch(etcd, ask),
        (&Method::GET, None) => Ok(answer::json(StatusCode::OK, &list(etcd, ask))),
        (&Method::GET, Some(name)) => {
            let entry = find(etcd, ask, name)?;
            Ok(answer::json(StatusCode::OK, &shown(&entry, ask.kind)))
        }
        (&Method::POST, None) => create(etcd, ask, parse(body)?),
        (&Method::POST, Some(name)) if ask.subresource.as_deref() == Some("eviction") => {
            let entry = find(etcd, ask, name)?;
            etcd.delete(&ask.key(name), Some(entry.modified)).map_err(refuse)?;
            Ok(answer::json(StatusCode::CREATED, &json!({ "kind": "Status", "apiVersion": "v1", "status": "Success" })))
        }
        (&Method::PUT, Some(name)) => {
            let entry = find(etcd, ask, name)?;
            let new = parse(body)?;
            let expected = new.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            replace(etcd, ask, name, &entry, new.clone(), expected.and_then(|text| text.parse().ok()))
        }
        (&Method::PATCH, Some(name)) => {
            let entry = find(etcd, ask, name)?;
            if ask.content_type.contains("json-patch") || ask.content_type.contains("apply-patch") {
                let why = format!("the body of the request was in an unknown format - {}", ask.content_type);
                return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", why));
            }
            let mut new = entry.value.clone();
            merge(&mut new, &parse(body)?);
            replace(etcd, ask, name, &entry, new, Some(entry.modified))
        }
        (&Method::DELETE, Some(name)) => {
            let entry = find(etcd, ask, name)?;
            etcd.delete(&ask.key(name), Some(entry.modified)).map_err(refuse)?;
            let details = json!({ "name": name, "kind": ask.kind.plural });
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details });
            Ok(answer::json(StatusCode::OK, &status))
        }
        _ => {
            let why = "the server does not allow this method on the requested resource";
            Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", why))
        }
    }
}

impl Ask {
    fn flag(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn prefix(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("/registry/{}/{namespace}/", self.kind.stored),
            None => format!("/registry/{}/", self.kind.stored),
        }
    }

    fn key(&self, name: &str) -> String {
        objects::key(self.kind.stored, self.namespace.as_deref(), name)
    }

    /// Whether the request's selectors want an object.
    fn wants(&self, object: &Value) -> bool {
        let labels = self.flag("labelSelector").split(',').filter(|term| !term.is_empty()).all(|term| {
            let found = |key: &str| object["metadata"]["labels"].get(key).and_then(Value::as_str);
            match (term.split_once("!="), term.split_once('=')) {
                (Some((key, value)), _) => found(key.trim()) != Some(value.trim()),
                (None, Some((key, value))) => found(key.trim()) == Some(value.trim_start_matches('=').trim()),
                (None, None) => {
                    term.strip_prefix('!').map_or_else(|| found(term).is_some(), |key| found(key).is_none())
                }
            }
        });
        let fields = self.flag("fieldSelector").split(',').filter(|term| !term.is_empty()).all(|term| {
            let Some((path, value)) = term.split_once('=') else { return true };
            let (path, unequal) = path.strip_suffix('!').map_or((path, false), |path| (path, true));
            let found = object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str);
            (found.unwrap_or_default() == value.trim_start_matches('=')) != unequal
        });
        labels && fields
    }
}

fn find(etcd: &Etcd, ask: &Ask, name: &str) -> Result<Entry, Refusal> {
    etcd.get(&ask.key(name)).ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "NotFound", format!("{} \"{name}\" not found", ask.kind.qualified()))
    })
}

/// An object with its kind and resource version.
fn shown(entry: &Entry, kind: &Kind) -> Value {
    let mut object = entry.value.clone();
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    object["metadata"]["resourceVersion"] = json!(entry.modified.to_string());
    object
}

fn list(etcd: &Etcd, ask: &Ask) -> Value {
    let (entries, revision) = etcd.list(&ask.prefix());
    let items: Vec<Value> =
        entries.iter().map(|(_, entry)| shown(entry, ask.kind)).filter(|object| ask.wants(object)).collect();
    json!({ "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(),
        "metadata": { "resourceVersion": revision.to_string() }, "items": items })
}

fn create(etcd: &Etcd, ask: &Ask, mut object: Value) -> Result<Answer, Refusal> {
    let given = object.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
    let name = given.or_else(|| {
        let prefix = object.pointer("/metadata/generateName")?.as_str()?;
        Some(format!("{prefix}{}", &objects::uid(&format!("{}", etcd.summary().revision))[..5]))
    });
    let name = name.ok_or_else(|| {
        let why = format!(
            "{} \"\" is invalid: metadata.name: Required value: name or generateName is required",
            ask.kind.kind
        );
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", why)
    })?;
    let metadata = &mut object["metadata"];
    metadata["name"] = json!(name);
    metadata["creationTimestamp"] = json!(objects::now());
    metadata["uid"] = json!(objects::uid(&format!("{} {} {name}", etcd.summary().cluster_id, etcd.summary().revision)));
    if let Some(namespace) = &ask.namespace {
        metadata["namespace"] = json!(namespace);
        if etcd.get(&objects::key("namespaces", None, namespace)).is_none() {
            let why = format!("namespaces \"{namespace}\" not found");
            return Err(Refusal::new(StatusCode::NOT_FOUND, "NotFound", why));
        }
    }
    forget_version(&mut object);
    let revision = etcd.put(&ask.key(&name), object.clone(), Some(0)).map_err(|error| match error {
        EtcdError::Conflict(_) => {
            let why = format!("{} \"{name}\" already exists", ask.kind.qualified());
            Refusal::new(StatusCode::CONFLICT, "AlreadyExists", why)
        }
        other => refuse(other),
    })?;
    let entry = Entry { value: object, created: revision, modified: revision };
    Ok(answer::json(StatusCode::CREATED, &shown(&entry, ask.kind)))
}

fn replace(
    etcd: &Etcd,
    ask: &Ask,
    name: &str,
    old: &Entry,
    mut new: Value,
    expected: Option<u64>,
) -> Result<Answer, Refusal> {
    for field in ["uid", "creationTimestamp", "name", "namespace"] {
        if let Some(kept) = old.value["metadata"].get(field) {
            new["metadata"][field] = kept.clone();
        }
    }
    forget_version(&mut new);
    let revision = etcd.put(&ask.key(name), new.clone(), expected).map_err(|error| match error {
        EtcdError::Conflict(_) => {
            let why = format!(
                "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes \
                 to the latest version and try again",
                ask.kind.qualified()
            );
            Refusal::new(StatusCode::CONFLICT, "Conflict", why)
        }
        other => refuse(other),
    })?;
    let entry = Entry { value: new, created: old.created, modified: revision };
    Ok(answer::json(StatusCode::OK, &shown(&entry, ask.kind)))
}

fn forget_version(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
}

fn refuse(error: EtcdError) -> Refusal {
    match error {
        EtcdError::NoQuorum => Refusal::no_etcd(),
        other => Refusal::new(StatusCode::CONFLICT, "Conflict", other.to_string()),
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    let broken = |why: String| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", why);
    let value: Value = serde_json::from_slice(body).map_err(|error| broken(error.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(broken("the body is no object".to_owned())) }
}

/// JSON merge patch (RFC 7386); a strategic merge patch is read as one.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            if let Some(object) = into.as_object_mut() {
                object.remove(key);
            }
        } else {
            merge(&mut into[key.as_str()], value);
        }
    }
}

fn watch(etcd: &std::sync::Arc<Etcd>, ask: &Ask) -> Result<Answer, Refusal> {
    let from = ask.flag("resourceVersion").parse::<u64>().unwrap_or(0);
    let kind = ask.kind;
    let prefix = ask.prefix();
    let line = |kind: &str, object: Value| {
        Ok(Frame::data(Bytes::from(format!("{}\n", json!({ "type": kind, "object": object })))))
    };
    let (begin, start) = if from == 0 {
        let (entries, revision) = etcd.list(&prefix);
        let objects = entries.iter().map(|(_, entry)| shown(entry, kind)).filter(|object| ask.wants(object));
        (objects.map(|object| line("ADDED", object)).collect::<Vec<_>>(), revision)
    } else {
        (Vec::new(), from)
    };
    if etcd.since(start).is_none() {
        return Err(Refusal::new(StatusCode::GONE, "Expired", format!("too old resource version: {start}")));
    }
    let selector = Ask {
        method: Method::GET,
        kind,
        namespace: ask.namespace.clone(),
        name: None,
        subresource: None,
        query: ask.query.clone(),
        content_type: String::new(),
    };
    let selector = std::sync::Arc::new(selector);
    let changes = etcd.watch();
    let etcd = etcd.clone();
    let seconds = ask.flag("timeoutSeconds").parse::<u64>().unwrap_or(3600);
    let until = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
    let follow = stream::unfold((etcd, changes, start, true), move |(etcd, mut changes, last, first)| {
        let (selector, prefix) = (selector.clone(), prefix.clone());
        async move {
            if !first {
                tokio::time::timeout_at(until, changes.changed()).await.ok()?.ok()?;
            }
            let new: Vec<Change> = etcd.since(last)?;
            let last = new.last().map_or(last, |change| change.revision);
            let lines: Vec<_> = new
                .into_iter()
                .filter(|change| change.key.starts_with(&prefix))
                .map(|change| (change.kind, shown(&change.entry, selector.kind)))
                .filter(|(_, object)| selector.wants(object))
                .map(|(kind, object)| {
                    line(
                        match kind {
                            ChangeKind::Created => "ADDED",
                            ChangeKind::Modified => "MODIFIED",
                            ChangeKind::Deleted => "DELETED",
                        },
                        object,
                    )
                })
                .collect();
            Some((stream::iter(lines), (etcd, changes, last, false)))
        }
    });
    // Bodies must be shareable between threads, which such a stream isn't by itself.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::convert::Infallible>>(64);
    tokio::spawn(async move {
        let mut all = std::pin::pin!(stream::iter(begin).chain(follow.flatten()));
        loop {
            tokio::select! {
                item = all.next() => {
                    let Some(item) = item else { return };
                    if sender.send(item).await.is_err() {
                        return;
                    }
                }
                () = sender.closed() => return,
            }
        }
    });
    Ok(answer::stream(tokio_stream::wrappers::ReceiverStream::new(receiver)))
}
