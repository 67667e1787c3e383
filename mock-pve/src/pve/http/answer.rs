//! One request, one answer.
//!
//! Purpose: what a scenario does to a request before and after it is answered, the record of it, and the pages beside
//! the API. Must not know: what may be asked. Start at [`Api::answer`].

use std::sync::atomic::Ordering;

use ::http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use ::http::{HeaderValue, Method as Verb, Response};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::io::DuplexStream;

use super::super::body::drain;
use super::super::coding::Coding;
use super::super::reply::{Body, Format, Reply, respond};
use super::coming::Coming;
use super::websocket::Upgrade;
use super::{Api, Turn};
use crate::scenario::{Cut, Meeting, Met};
use crate::world::members::Outage;
use crate::world::script::{Answered, Ask, Service, Step};

impl Api {
    pub(super) async fn answer(
        &self,
        mut request: hyper::Request<Incoming>,
        turn: Turn,
        cut: &Cut,
    ) -> Response<Full<Bytes>> {
        let mut meeting = Meeting::new(Answered::now(Service::Pve, &self.0.local));
        self.unless_it_hangs().await;
        let upgrade = Upgrade::asked(&mut request);
        let (head, body) = request.into_parts();
        let mut coming = Coming::new(head);
        coming.goes_on &= turn == Turn::More;
        if coming.verb == Verb::GET
            && let Some((kind, text)) = self.0.pages.get().and_then(|pages| pages(&coming.path))
        {
            return page(kind, text);
        }
        let mut met = self.met(&coming).await;
        if met.breaks_before() {
            return cut.instead_of_an_answer().await;
        }
        let (format, mut reply) = if let Some((code, reason)) = met.status.take() {
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
        let mut switched = None;
        if let Some(upgrade) = upgrade {
            if let Some(refused) = upgrade.refused() {
                reply = refused;
            } else if reply.status == 200 {
                let Some(behind) = self.viewed(&reply) else { return cut.instead_of_an_answer().await };
                switched = Some(upgrade.follow(behind));
            }
        }
        let reply = format.wrap(reply);
        self.0.count.fetch_add(1, Ordering::Relaxed);
        let record = &mut meeting.record;
        (record.method, record.path) = (coming.verb.to_string(), coming.below().to_owned());
        (record.keys, record.who, record.reason) = (coming.keys, coming.who, reply.reason.clone());
        let status = if switched.is_some() { 101 } else { reply.status };
        let mut response = switched.unwrap_or_else(|| respond(reply, Coding::accepted(&coming.headers)));
        // An error has said already that it is the last word.
        let next = if coming.goes_on { "Keep-Alive" } else { "close" };
        response.headers_mut().entry(CONNECTION).or_insert(HeaderValue::from_static(next));
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

    /// What waits at the port that an answer names.
    fn viewed(&self, reply: &Reply) -> Option<DuplexStream> {
        let Body::Json(body) = &reply.body else { return None };
        let port = body.pointer("/data/port")?.as_str()?.parse().ok()?;
        self.0.world.view(&self.0.local, port)
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
}

/// A page for people.
fn page(kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
