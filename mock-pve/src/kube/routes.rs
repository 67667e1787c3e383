//! Paths, and who may use them.

use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::{Ask, parse_query};
use super::kinds::{self, Kind};
use super::verbs;
use crate::etcd::Client;
use crate::world::machine::Machine;

/// Seconds that a readiness check waits for etcd.
const READY: f64 = 2.0;

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

    /// The machine it runs on.
    pub(super) fn machine(&self) -> &Machine {
        &self.machine
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
        let version = self.machine.see(|state| state.config.as_ref().and_then(|config| config.kubernetes()));
        let version = version.unwrap_or_default();
        let minor = version.split('.').nth(1).unwrap_or_default();
        json!({ "major": "1", "minor": minor, "gitVersion": format!("v{version}"), "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "2026-01-01T00:00:00Z", "goVersion": "go1.26.1", "compiler": "gc",
            "platform": "linux/amd64" })
    }
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
            let (code, text) = if server.is_ready().await {
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
        ["openapi", "v3"] => return ok(&kinds::schemas()),
        ["openapi", "v3", rest @ ..] => {
            let (group, version) = match rest {
                ["api", version] => ("", *version),
                ["apis", group, version] => (*group, *version),
                _ => return Err(Refusal::no_such_path()),
            };
            return ok(&kinds::schema(group, version).ok_or_else(Refusal::no_such_path)?);
        }
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
    let header = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let ask = Ask {
        method: request.method().clone(),
        kind,
        namespace,
        name: rest.first().map(|name| (*name).to_owned()),
        subresource: rest.get(1).map(|name| (*name).to_owned()),
        query: parse_query(query),
        content_type: header(http::header::CONTENT_TYPE).unwrap_or_else(|| "application/json".to_owned()),
        table: header(http::header::ACCEPT).is_some_and(|accept| accept.contains("as=Table;v=v1;")),
    };
    let body = request.into_body().collect().await;
    let body = body.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", error.to_string()))?;
    verbs::perform(&server.client()?, &ask, &body.to_bytes()).await
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
