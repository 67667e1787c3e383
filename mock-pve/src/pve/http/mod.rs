//! The HTTP layer.
//!
//! Purpose: what the original's web server does before and after a method runs (Proxmox VE 8.4,
//! PVE/APIServer/AnyEvent.pm). Must not know: what methods do. Start at [`Api::serve`]; then `answer.rs`, `refusals.rs`
//! and `admission.rs`, in the order in which a request meets them.

mod admission;
mod answer;
mod batch;
mod coming;
mod plain;
mod refusals;
mod upload;
mod websocket;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::auth::{Auth, Means};
use super::params::{Params, Value as Given};
use super::record::Failure;
use super::reply::{Body, Reply, run};
use super::schema::Schema;
use super::screen::{Screened, screen};
use crate::scenario::Cut;
use crate::world::rights::Caller;
use crate::world::{PveVersion, World};

/// Inactivity after which a connection is closed.
const IDLE: Duration = Duration::from_secs(5);

/// Requests that one connection is good for (PVE/Service/pveproxy.pm, `keep_alive`).
const REQUESTS: u32 = 100;

/// Whether another request may follow on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It may, unless the client or the answer says otherwise.
    More,
    /// The connection has had its share.
    Last,
}

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

    /// The node that it is of.
    pub fn node(&self) -> &str {
        &self.0.local
    }

    /// The release that is played.
    pub(super) fn release(&self) -> PveVersion {
        self.0.world.state().pve
    }

    /// The paths of all methods of a verb that are known.
    pub(super) fn patterns(&self, verb: &str) -> impl Iterator<Item = &str> {
        self.0.schema.patterns(verb)
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
        let requests = AtomicU32::new(0);
        let service = service_fn(|request| {
            let (api, cut) = (self.clone(), cut.clone());
            let turn = if requests.fetch_add(1, Ordering::Relaxed) + 1 < REQUESTS { Turn::More } else { Turn::Last };
            async move { Ok::<_, Infallible>(api.answer(request, turn, &cut).await) }
        });
        let (mut reading, mut writing) = tokio::io::split(stream);
        let began = match screen(&mut reading, IDLE).await {
            Screened::Pass(began) => began,
            Screened::Nothing => return,
            Screened::Refuse(refused) => {
                let answer = plain::last_word(&refused, "");
                // Who doesn't listen needn't be told.
                let _ = writing.write_all(answer.as_bytes()).await;
                let _ = writing.shutdown().await;
                return;
            }
        };
        let stream = tokio::io::join(std::io::Cursor::new(began).chain(reading), writing);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(IDLE).max_headers(64).keep_alive(true);
        builder.title_case_headers(true);
        tokio::select! {
            ended = builder.serve_connection(TokioIo::new(stream), service).with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = cut.happens() => {}
        }
    }
}
