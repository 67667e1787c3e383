//! Changes as they come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::StatusCode;
use hyper::body::Frame;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::table;
use super::verbs::shown;
use crate::etcd::{Client, Event, EventKind, Kv};
use crate::world::cluster::{self, Entry};

/// One line for each change, from the asked revision on, until the asked time is over or nobody listens.
pub(super) fn watch(client: &Client, ask: &Ask) -> Result<Answer, Refusal> {
    let from = ask.flag("resourceVersion").parse::<u64>().unwrap_or(0);
    let kind = ask.kind;
    let prefix = ask.prefix();
    let (begin, start) = if from == 0 {
        let (entries, revision) = cluster::list(client, &prefix);
        let objects = entries.iter().map(|entry| shown(entry, kind)).filter(|object| ask.wants(object));
        (objects.map(|object| line("ADDED", &as_asked(object, ask))).collect::<Vec<_>>(), revision)
    } else {
        (Vec::new(), from)
    };
    if client.view(|store| store.since(start).is_none()).unwrap_or(true) {
        return Err(Refusal::new(StatusCode::GONE, "Expired", format!("too old resource version: {start}")));
    }
    let ask = Arc::new(ask.clone());
    let changes = client.etcd.changes();
    let client = client.clone();
    let seconds = ask.flag("timeoutSeconds").parse::<u64>().unwrap_or(3600);
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let follow = stream::unfold((client, changes, start, true), move |(client, mut changes, last, first)| {
        let (ask, prefix) = (ask.clone(), prefix.clone());
        async move {
            if !first {
                tokio::time::timeout_at(until, changes.changed()).await.ok()?.ok()?;
            }
            let new: Vec<Event> = client.view(|store| store.since(last))??;
            let last = new.last().map_or(last, |event| event.revision);
            let mine = new.into_iter().filter(|event| event.kv.key.starts_with(prefix.as_bytes()));
            let lines: Vec<_> = mine.filter_map(|event| tell(&event, &ask)).collect();
            Some((stream::iter(lines), (client, changes, last, false)))
        }
    });
    // Bodies must be shareable between threads, which such a stream isn't by itself.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Line>(64);
    tokio::spawn(async move {
        let mut all = std::pin::pin!(stream::iter(begin).chain(follow.flatten()).map(Ok));
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

type Line = Result<Frame<Bytes>, std::convert::Infallible>;

fn line(kind: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{}\n", json!({ "type": kind, "object": object }))))
}

fn as_asked(object: Value, ask: &Ask) -> Value {
    if ask.table { table::of_one(&object, ask.kind) } else { object }
}

/// What a watcher is told: an object that begins or ceases to match its selectors appears or disappears.
fn tell(event: &Event, ask: &Ask) -> Option<Frame<Bytes>> {
    let object = |kv: &Kv, revision: u64| {
        let entry = Entry::of(kv)?;
        let object = shown(&Entry { modified: revision, ..entry }, ask.kind);
        ask.wants(&object).then_some(object)
    };
    let before = event.before.as_deref().and_then(|kv| object(kv, event.revision));
    let now = if event.kind == EventKind::Deleted { None } else { object(&event.kv, event.revision) };
    match (before, now) {
        (None, Some(object)) => Some(line("ADDED", &as_asked(object, ask))),
        (Some(_), Some(object)) => Some(line("MODIFIED", &as_asked(object, ask))),
        (Some(object), None) => Some(line("DELETED", &as_asked(object, ask))),
        (None, None) => None,
    }
}
