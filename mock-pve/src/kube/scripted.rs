//! A request on its way through the scenario, the auditor and the log.
//!
//! Must not know: what becomes of objects. Start at [`answer`].

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::answer::{self, Answer, Refusal};
use super::routes::{self, Caller, Server};
use crate::scenario::{Cut, Meeting, Met};
use crate::world::rights;
use crate::world::script::{Answered, Ask, Service, Step};

impl Server {
    fn ask<'a>(&self, step: Step, verb: &'a str, path: &'a str, who: &'a str) -> Ask<'a> {
        Ask { service: Service::Kubernetes, step, verb, path, who, node: "", vmid: Some(self.machine().vmid()) }
    }

    /// What the scenario has in store for somebody who connects.
    pub(super) async fn meets_connection(&self) -> Met {
        Met::with(self.machine().world(), &self.ask(Step::Connect, "", "", "")).await
    }
}

/// What Kubernetes calls a method: it depends on whether one object is meant.
fn verb(request: &http::Request<Incoming>) -> &'static str {
    let path: Vec<&str> = request.uri().path().split('/').filter(|part| !part.is_empty()).collect();
    let below = match path.as_slice() {
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        _ => &[],
    };
    let many = match below {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest.len() == 1,
        rest => rest.len() == 1,
    };
    let watches = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| matches!(pair, "watch" | "watch=true" | "watch=1")));
    match *request.method() {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ if watches => "watch",
        _ if many => "list",
        _ => "get",
    }
}

pub(super) async fn answer(server: &Server, caller: &Caller, request: http::Request<Incoming>, cut: &Cut) -> Answer {
    let world = server.machine().world().clone();
    let mut meeting = Meeting::new(Answered::now(Service::Kubernetes, server.machine().vmid().to_string()));
    let who = match caller {
        Caller::Known(user) => user.name.as_str(),
        Caller::Anonymous | Caller::Invalid => "system:anonymous",
    };
    let (method, path, verb) = (request.method().to_string(), request.uri().path().to_owned(), verb(&request));
    let mut met = Met::with(&world, &server.ask(Step::Request, verb, &path, who)).await;
    if met.breaks_before() {
        return cut.instead_of_an_answer().await;
    }
    let response = match met.status.take() {
        Some((code, reason)) => {
            let code = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let name = match code {
                StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
                StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
                StatusCode::GATEWAY_TIMEOUT => "Timeout",
                StatusCode::CONFLICT => "Conflict",
                StatusCode::FORBIDDEN => "Forbidden",
                StatusCode::NOT_FOUND => "NotFound",
                _ => "InternalError",
            };
            answer::json(code, &Refusal::new(code, name, reason).status())
        }
        None => routes::answer(server, caller, request).await,
    };
    let takes_away = verb == "delete" || path.ends_with("/eviction") && verb == "create";
    if takes_away && response.status().is_success() {
        let deed = if verb == "delete" { "kubernetes-delete" } else { "kubernetes-evict" };
        let who = rights::Caller { identity: who.to_owned() };
        world.tell(&who, deed, None, Some(&path));
    }
    (meeting.record.method, meeting.record.path, meeting.record.who) = (method, path, who.to_owned());
    let bytes = http_body::Body::size_hint(response.body()).lower();
    meeting.ends(&world, response.status().as_u16(), bytes);
    if met.breaks_after() {
        return cut.instead_of_an_answer().await;
    }
    if met.corrupt == 0 {
        return response;
    }
    response.map(|body| body.map_frame(move |frame| frame.map_data(|piece| met.touch(piece))).boxed())
}
