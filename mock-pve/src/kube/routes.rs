//! Paths: who calls, whether he may, and what he is led to.

use std::time::Duration;

use http::{Method, StatusCode, header};
use http_body_util::BodyExt as _;
use http_body_util::Limited;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::{Ask, Show, parse_query};
use super::rbac::{self, Deed, User};
use super::select::Selector;
use super::tokens::Tokens;
use super::{bind, change, delete, dial, form, kinds, list, logs, own, pages, reviews, scale, watch, write};
use crate::etcd::Client;
use crate::world::machine::Machine;

/// Seconds that a readiness check waits for etcd.
const READY: f64 = 2.0;
/// Largest body (apiserver, `MaxRequestBodyBytes`).
const LIMIT: usize = 3 << 20;

/// What a connection's certificate says about who calls.
#[derive(Clone, Debug)]
pub(super) enum Caller {
    Anonymous,
    Known(User),
    /// A certificate that isn't one of this cluster's, or isn't valid now.
    Invalid,
}

/// An API server.
pub(super) struct Server {
    machine: Machine,
    version: String,
    tokens: Tokens,
}

impl Server {
    pub(super) fn new(machine: Machine) -> Self {
        let (version, key, endpoint) = machine.see(|state| {
            let Some(config) = &state.config else { return Default::default() };
            let image = config.image("kube-apiserver", state.version());
            let tag = image.split('@').next().and_then(|name| name.rsplit_once(':')).map_or("", |(_, tag)| tag);
            let key = config.str("/cluster/serviceAccount/key").unwrap_or_default().to_owned();
            (tag.trim_start_matches('v').to_owned(), key, config.endpoint().to_owned())
        });
        Self { machine, version, tokens: Tokens::new(&key, &endpoint) }
    }

    /// The machine it runs on.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Kubernetes' version, without the `v`.
    pub(super) fn release(&self) -> &str {
        &self.version
    }

    /// The etcd member on the same machine.
    pub(super) fn client(&self) -> Result<Client, Refusal> {
        self.machine.see(|state| state.membership.clone()).ok_or_else(Refusal::no_etcd)
    }

    /// Whether etcd answers in time: a member without a majority doesn't.
    async fn is_ready(&self) -> bool {
        let Ok(client) = self.client() else { return false };
        let patience = self.machine.world().clock().scaled(READY).max(Duration::from_millis(250));
        matches!(tokio::time::timeout(patience, client.catch_up()).await, Ok(Ok(())))
    }

    fn version(&self) -> Value {
        let minor = self.version.split('.').nth(1).unwrap_or_default();
        json!({ "major": "1", "minor": minor, "emulationMajor": "1", "emulationMinor": minor,
            "gitVersion": format!("v{}", self.version), "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26.1", "compiler": "gc", "platform": "linux/amd64" })
    }

    /// `healthz`, `livez` and `readyz`, with their checks one by one where that is asked for.
    async fn health(&self, path: &str, detail: Detail) -> Answer {
        let name = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        let etcd = name == "livez" || self.is_ready().await;
        let only = path.trim_start_matches('/').split_once('/').map(|(_, check)| check);
        let mut checks = vec!["ping", "log", "etcd"];
        if name == "readyz" {
            checks.extend(["etcd-readiness", "informer-sync"]);
        }
        checks.extend([
            "poststarthook/start-apiserver-admission-initializer",
            "poststarthook/generic-apiserver-start-informers",
            "poststarthook/rbac/bootstrap-roles",
            "poststarthook/scheduling/bootstrap-system-priority-classes",
            "poststarthook/apiservice-registration-controller",
            "autoregister-completion",
        ]);
        if name == "readyz" {
            checks.push("shutdown");
        }
        if let Some(only) = only {
            if !checks.contains(&only) {
                return answer::text(
                    StatusCode::NOT_FOUND,
                    "text/plain; charset=utf-8",
                    "404 page not found\n".to_owned(),
                );
            }
            checks = vec![only];
        }
        let fails = |check: &str| !etcd && check.starts_with("etcd");
        if !checks.iter().any(|check| fails(check)) {
            let mut text = "ok".to_owned();
            if detail == Detail::Checks {
                text = checks.iter().map(|check| format!("[+]{check} ok\n")).collect();
                text.push_str(&format!("{name} check passed\n"));
            }
            return answer::text(StatusCode::OK, "text/plain; charset=utf-8", text);
        }
        let mut text: String = checks
            .iter()
            .map(|check| {
                if fails(check) { format!("[-]{check} failed: reason withheld\n") } else { format!("[+]{check} ok\n") }
            })
            .collect();
        text.push_str(&format!("{name} check failed\n"));
        answer::text(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text)
    }
}

/// How much is told of a server that is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    /// That it is.
    Verdict,
    /// What was looked at, too.
    Checks,
}

pub(super) async fn answer(server: &Server, caller: &Caller, request: http::Request<Incoming>) -> Answer {
    let form = form::wanted(&request);
    let answer = route(server, caller, request).await.unwrap_or_else(|refusal| refusal.answer());
    form::rewritten(answer, form).await
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}

/// Who calls: by certificate, else by token.
fn user(server: &Server, caller: &Caller, request: &http::Request<Incoming>) -> Result<User, Refusal> {
    match caller {
        Caller::Known(user) => return Ok(user.clone()),
        Caller::Invalid => return Err(unauthorized()),
        Caller::Anonymous => {}
    }
    let Some(header) = request.headers().get(header::AUTHORIZATION) else { return Ok(User::anonymous()) };
    let token = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let Some((_, token)) = token else { return Err(unauthorized()) };
    server.tokens.user(&server.client()?, token).ok_or_else(unauthorized)
}

/// Somebody with the rights of a user (`Impersonate-User`), if he may.
fn impersonated(client: &Client, user: User, request: &http::Request<Incoming>) -> Result<User, Refusal> {
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let Some(name) = request.headers().get("impersonate-user").map(text) else { return Ok(user) };
    let deed =
        Deed { verb: "impersonate".to_owned(), resource: "users".to_owned(), name: name.clone(), ..Deed::default() };
    if !rbac::may(client, &user, &deed) {
        return Err(forbidden(&user, &deed, &format!("users \"{name}\"")));
    }
    let groups: Vec<String> = request.headers().get_all("impersonate-group").iter().map(text).collect();
    Ok(match name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        Some((namespace, account)) => User::service(namespace, account, ""),
        None => User::known(name, groups),
    })
}

fn forbidden(user: &User, deed: &Deed, of: &str) -> Refusal {
    let why = deed.shown(user);
    let (resource, _) = deed.resource.split_once('/').unwrap_or((&deed.resource, ""));
    let mut details = json!({});
    if deed.path.is_none() {
        details["kind"] = json!(resource);
        for (field, value) in [("name", &deed.name), ("group", &deed.group)] {
            if !value.is_empty() {
                details[field] = json!(value);
            }
        }
    }
    let why = if deed.path.is_some() { format!("forbidden: {why}") } else { format!("{of} is forbidden: {why}") };
    Refusal::new(StatusCode::FORBIDDEN, "Forbidden", why).with(details)
}

async fn route(server: &Server, caller: &Caller, request: http::Request<Incoming>) -> Result<Answer, Refusal> {
    let path = request.uri().path().to_owned();
    let trimmed = path.trim_end_matches('/').to_owned();
    let user = user(server, caller, &request)?;
    let segments: Vec<String> = trimmed
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    // What says how the server is must answer when etcd doesn't: these may be seen by all, or by anybody who is known.
    match segments.as_slice() {
        // For people to read, whoever asks.
        ["version"] => {
            return Ok(answer::text(StatusCode::OK, "application/json", format!("{:#}", server.version())));
        }
        ["healthz" | "livez" | "readyz", ..] => {
            let verbose = parse_query(request.uri().query().unwrap_or_default()).contains_key("verbose");
            let detail = if verbose { Detail::Checks } else { Detail::Verdict };
            return Ok(server.health(&trimmed, detail).await);
        }
        _ => {}
    }
    let client = server.client()?;
    let user = impersonated(&client, user, &request)?;
    let resource = match segments.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => Some(("", *version, rest)),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => Some((*group, *version, rest)),
        _ => None,
    };
    let Some((group, version, rest)) = resource else {
        let verb = request.method().as_str().to_lowercase();
        let deed = Deed { verb, path: Some(path), ..Deed::default() };
        if !rbac::may(&client, &user, &deed) {
            return Err(forbidden(&user, &deed, ""));
        }
        if request.method() != Method::GET {
            return Err(Refusal::no_such_method());
        }
        return pages::page(server, &client, &request, &segments);
    };
    let (namespace, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..] if !["status", "finalize"].contains(plural) => {
            (Some((*namespace).to_owned()), [&[*plural], rest].concat())
        }
        rest => (None, rest.to_vec()),
    };
    let [plural, rest @ ..] = rest.as_slice() else { return Err(Refusal::no_such_path()) };
    let found = kinds::find(&client, group, version, plural);
    let name = rest.first().map(|name| (*name).to_owned()).filter(|name| !name.is_empty());
    let subresource = rest.get(1..).filter(|rest| !rest.is_empty()).map(|rest| match rest {
        ["proxy", ..] => "proxy".to_owned(),
        rest => rest.join("/"),
    });
    let query = parse_query(request.uri().query().unwrap_or_default());
    let header =
        |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let text = |name: &str| query.get(name).cloned().unwrap_or_default();
    let selector = match &found {
        Some(kind) => Selector::parse(kind, &text("labelSelector"), &text("fieldSelector")),
        None => Ok(Selector::default()),
    };
    let accept = header(header::ACCEPT);
    let ask = Ask {
        method: request.method().clone(),
        kind: found.clone().unwrap_or_default(),
        namespace,
        name,
        subresource,
        query,
        content_type: header(header::CONTENT_TYPE),
        shape: Show::of(&accept),
        agent: header(header::USER_AGENT),
        selector: selector.as_ref().map(Clone::clone).unwrap_or_default(),
        user: user.clone(),
    };
    allow(&client, &user, &ask, group, plural)?;
    let Some(kind) = found else {
        let known = kinds::builtin().iter().any(|kind| kind.group == group);
        return if known { Err(Refusal::no_such_path()) } else { Ok(Refusal::no_such_page()) };
    };
    selector?;
    if ask.namespace.is_some() && !kind.namespaced {
        return Err(Refusal::no_such_path());
    }
    if kind.namespaced && ask.namespace.is_none() && (ask.name.is_some() || ask.verb() == "create") {
        return Err(if ask.name.is_some() { Refusal::no_such_path() } else { Refusal::no_such_method() });
    }
    if form::of(&accept).is_none() && ask.subresource.as_deref() != Some("log") {
        let why = "only the following media types are accepted: application/json, application/yaml, \
                   application/vnd.kubernetes.protobuf";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", why));
    }
    let body = body(request).await?;
    let answer = perform(server, &client, &user, &ask, &body).await?;
    let minor = server.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default();
    let outdated: Vec<String> = own::outdated(&kind, minor).into_iter().collect();
    Ok(answer::warn(answer, &outdated))
}

async fn body(request: http::Request<Incoming>) -> Result<bytes::Bytes, Refusal> {
    let body = Limited::new(request.into_body(), LIMIT).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            let why = format!("Request entity too large: limit is {LIMIT}");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", why)
        } else {
            Refusal::bad(error.to_string())
        }
    })
}

/// Refuses what the caller may not.
fn allow(client: &Client, user: &User, ask: &Ask, group: &str, plural: &str) -> Result<(), Refusal> {
    let resource = match &ask.subresource {
        Some(below) => format!("{plural}/{below}"),
        None => plural.to_owned(),
    };
    let own = || ask.name.clone().filter(|_| plural == "namespaces" && group.is_empty());
    let deed = Deed {
        verb: ask.verb().to_owned(),
        group: group.to_owned(),
        resource,
        namespace: ask.namespace.clone().or_else(own),
        name: ask.name.clone().unwrap_or_default(),
        path: None,
    };
    if rbac::may(client, user, &deed) {
        return Ok(());
    }
    let of = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
    let of = ask.name.as_ref().map_or(of.clone(), |name| format!("{of} \"{name}\""));
    Err(forbidden(user, &deed, &of))
}

async fn perform(server: &Server, client: &Client, user: &User, ask: &Ask, body: &[u8]) -> Result<Answer, Refusal> {
    // Only a list or watch that says that old news will do isn't asked of the majority.
    let stale = ask.method == Method::GET && ask.name.is_none() && ask.flag("resourceVersion") == "0";
    let resumed = ask.is("watch") && !ask.flag("resourceVersion").is_empty();
    if !stale && !resumed {
        client.catch_up().await.map_err(|error| write::refuse(&error))?;
    }
    if !ask.kind.is_stored() {
        return match ask.verb() {
            "get" | "list" if ask.kind.kind == "ComponentStatus" => own::components(ask),
            "create" if ask.name.is_none() && ask.kind.kind != "ComponentStatus" => {
                reviews::ask(client, &server.tokens, user, ask, body)
            }
            _ => Err(Refusal::no_such_method()),
        };
    }
    if let (Some(below), Some(name)) = (&ask.subresource, &ask.name) {
        if !ask.kind.has(below) {
            return Err(Refusal::no_such_path());
        }
        return match (below.as_str(), ask.verb()) {
            ("scale", "get") => Ok(answer::ok(&scale::shown(&list::find(client, ask, name)?, ask))),
            ("scale", "update" | "patch") => scale::rescale(client, ask, name, body).await,
            ("eviction", "create") => delete::evict(client, ask, name, body).await,
            ("binding", "create") => bind::bind(client, ask, name, body).await,
            ("exec" | "attach" | "portforward", "get" | "create") => match dial::stream(client, ask, name)? {},
            ("proxy", _) => match dial::proxy(client, ask, name)? {},
            ("log", "get") => logs::logs(client, ask, name),
            ("token", "create") => reviews::token(client, &server.tokens, ask, name, body),
            ("status" | "approval" | "ephemeralcontainers", "get") => list::get(client, ask, name),
            ("status" | "approval" | "ephemeralcontainers" | "finalize", "update") => {
                write::update(client, ask, name, body).await
            }
            ("status" | "approval" | "ephemeralcontainers", "patch") => change::change(client, ask, name, body).await,
            _ => Err(Refusal::no_such_method()),
        };
    }
    match (ask.verb(), &ask.name) {
        ("watch", _) => watch::watch(client, ask),
        ("list", _) => list::list(client, ask),
        ("get", Some(name)) => list::get(client, ask, name),
        ("create", None) => write::create(client, ask, body).await,
        ("update", Some(name)) => write::update(client, ask, name, body).await,
        ("patch", Some(name)) => change::change(client, ask, name, body).await,
        ("delete", Some(name)) => delete::delete(client, ask, name, body).await,
        ("deletecollection", None) => delete::delete_all(client, ask, body).await,
        _ => Err(Refusal::no_such_method()),
    }
}
