//! What is refused before a method is looked for, and in which order.
//!
//! Purpose: method, encoding, address, login, length, type and format of a request, and its parameters. Must not know:
//! which parameters a method takes. Start at [`Api::dispatch`].

use ::http::Method as Verb;
use hyper::body::Incoming;
use serde_json::Value;

use super::super::auth::{Changes, Identity, Means};
use super::super::body::{drain, read_body};
use super::super::params::{Params, decode_form};
use super::super::reply::{Format, Reply, run};
use super::super::route::Found;
use super::super::table::Handler;
use super::Api;
use super::coming::Coming;
use crate::world::rights::Caller;

impl Api {
    /// What the original looks at before anything of the request is read: method, encoding, address, login, length.
    pub(super) async fn dispatch(&self, coming: &mut Coming, body: Incoming) -> (Format, Reply) {
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
        let length = coming.length();
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
        let reply = self.inside(coming, (format, known), below, body).await;
        (known.unwrap_or(Format::Json), reply)
    }

    /// What it looks at before the method: login, length, type of the body, format, and then what is in the body.
    async fn inside(
        &self,
        coming: &mut Coming,
        (format, known): (&str, Option<Format>),
        path: &str,
        body: Incoming,
    ) -> Reply {
        let (verb, length) = (coming.verb.as_str().to_owned(), coming.length());
        let found = self.find(&verb, path);
        let (caller, means) = match self.log_in(coming, found.as_ref()).await {
            Ok(known) => known,
            Err(reply) => return reply,
        };
        let upload = found.as_ref().filter(|found| matches!(found.handler, Handler::Upload(_)));
        if let Some(found) = upload
            && let Err(reply) = self.may_upload(coming, found, &caller)
        {
            // A refused upload is not read, and the answer has no body.
            drain(body).await;
            return reply;
        }
        if length > 0 && matches!(coming.verb, Verb::GET | Verb::DELETE) {
            return unexpected(&coming.verb);
        }
        coming.who.clone_from(&caller.identity);
        if length > 0
            && let Some(found) = upload.cloned()
        {
            return self.upload(coming, (path, known, format), found, (caller, means), body).await;
        }
        let mut params = Params::default();
        if verb == "POST" || verb == "PUT" {
            let given = match read_body(body, length, &coming.content_type()).await {
                Ok(given) => given,
                Err(reply) => return reply,
            };
            if known.is_none() {
                return no_formatter(path, format);
            }
            params = match given.decode() {
                Ok(params) => params,
                Err(reply) => return reply,
            };
        } else if known.is_none() {
            return no_formatter(path, format);
        }
        // On the same key the query string wins.
        params.0.extend(decode_form(&coming.query).0);
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
        match handler {
            Handler::Batch => self.batch(&call).await,
            handler => run(handler, call).await,
        }
    }

    /// Who asks. Where nobody needs a login, one that doesn't hold is as good as none.
    async fn log_in(&self, coming: &Coming, found: Option<&Found>) -> Result<(Caller, Means), Reply> {
        let verb = coming.verb.as_str();
        let upload = found.is_some_and(|found| matches!(found.handler, Handler::Upload(_)));
        let open = found
            .and_then(|found| self.0.schema.method(verb, &found.pattern))
            .is_some_and(|method| method.perm.get("user").and_then(Value::as_str) == Some("world"));
        let changes = if verb == "GET" || upload { Changes::No } else { Changes::Yes };
        let nobody = || (Caller { identity: String::new() }, Means::Ticket);
        let has_credentials = coming.headers.contains_key("authorization") || coming.headers.contains_key("cookie");
        if open && !has_credentials {
            return Ok(nobody());
        }
        match self.0.auth.identify(&self.0.world, &coming.headers, changes) {
            Identity::Known(caller, means) => Ok((caller, means)),
            Identity::Unknown(_) if open => Ok(nobody()),
            Identity::Unknown(reason) => {
                self.0.world.clock().sleep(3.0).await;
                Err(Reply::empty(401, reason))
            }
        }
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

/// There is no formatter of that name.
pub(super) fn no_formatter(path: &str, format: &str) -> Reply {
    Reply::text(501, &format!("no formatter for uri {path}, {format}"))
}
