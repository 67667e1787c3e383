//! Changes as they come.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use hyper::body::Frame;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::list::{as_asked, check, shown, version};
use crate::etcd::{Client, Event, EventKind, Kv};
use crate::world::cluster::{self, Entry};

/// Seconds between two bookmarks.
const BOOKMARKS: Duration = Duration::from_mins(1);

/// One line for each change, from the asked revision on, until the asked time is over or nobody listens.
pub(super) fn watch(client: &Client, ask: &Ask) -> Result<Answer, Refusal> {
    check(ask)?;
    let from = version(ask.flag("resourceVersion"))?;
    let kind = &ask.kind;
    let prefix = ask.prefix();
    let initial = ask.is("sendInitialEvents");
    let (mut begin, start) = if initial || from == 0 && ask.flag("sendInitialEvents") != "false" {
        let (entries, revision) = cluster::list(client, &prefix);
        let objects = entries.iter().map(|entry| shown(entry, kind)).filter(|object| ask.wants(object));
        (objects.map(|object| line("ADDED", &as_asked(object, ask))).collect::<Vec<_>>(), revision)
    } else {
        (Vec::new(), if from == 0 { client.view(crate::etcd::Store::revision).unwrap_or_default() } else { from })
    };
    if initial && ask.is("allowWatchBookmarks") {
        begin.push(bookmark(ask, start, Mark::Begun));
    }
    let forgotten = client.view(|store| store.since(start).is_none().then(|| store.revision())).flatten();
    if let Some(now) = forgotten {
        begin = vec![expired(start, now)];
    }
    let ask = Arc::new(ask.clone());
    let changes = client.etcd.changes();
    let client = client.clone();
    let seconds = ask.flag("timeoutSeconds").parse::<u64>().unwrap_or(3600).min(86_400);
    let until = tokio::time::Instant::now() + Duration::from_secs(seconds);
    let follow = stream::unfold(
        (client, changes, start, forgotten.is_none(), next_mark()),
        move |(client, mut changes, last, on, mut marked)| {
            let (ask, prefix) = (ask.clone(), prefix.clone());
            async move {
                if !on {
                    return None;
                }
                loop {
                    let new = client.view(|store| (store.since(last), store.revision()))?;
                    let (Some(new), now) = new else {
                        let lines = vec![expired(last, new.1)];
                        return Some((stream::iter(lines), (client, changes, last, false, marked)));
                    };
                    if !new.is_empty() {
                        let mine = new.iter().filter(|event| event.kv.key.starts_with(prefix.as_bytes()));
                        let lines: Vec<_> = mine.filter_map(|event| tell(event, &ask)).collect();
                        return Some((stream::iter(lines), (client, changes, now, true, marked)));
                    }
                    if ask.is("allowWatchBookmarks") && tokio::time::Instant::now() >= marked {
                        marked = next_mark();
                        return Some((
                            stream::iter(vec![bookmark(&ask, last, Mark::Later)]),
                            (client, changes, last, true, marked),
                        ));
                    }
                    match tokio::time::timeout_at(until.min(marked), changes.changed()).await {
                        Ok(Err(_)) => return None,
                        Err(_) if tokio::time::Instant::now() >= until => return None,
                        _ => {}
                    }
                }
            }
        },
    );
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

fn next_mark() -> tokio::time::Instant {
    tokio::time::Instant::now() + BOOKMARKS
}

type Line = Result<Frame<Bytes>, std::convert::Infallible>;

fn line(kind: &str, object: &Value) -> Frame<Bytes> {
    Frame::data(Bytes::from(format!("{}\n", json!({ "type": kind, "object": object }))))
}

fn expired(asked: u64, now: u64) -> Frame<Bytes> {
    let why = format!("too old resource version: {asked} ({now})");
    line("ERROR", &Refusal::new(http::StatusCode::GONE, "Expired", why).status())
}

/// What a bookmark is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// What was there at the beginning has been told.
    Begun,
    /// To say how far it is.
    Later,
}

fn bookmark(ask: &Ask, revision: u64, mark: Mark) -> Frame<Bytes> {
    let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if mark == Mark::Begun {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    let object = json!({ "kind": ask.kind.kind, "apiVersion": ask.kind.api_version(), "metadata": metadata });
    match ask.shape {
        super::ask::Show::Object => line("BOOKMARK", &object),
        _ => line("BOOKMARK", &as_asked(object, ask)),
    }
}

/// What a watcher is told: an object that begins or ceases to match its selectors appears or disappears.
fn tell(event: &Event, ask: &Ask) -> Option<Frame<Bytes>> {
    let object = |kv: &Kv, revision: u64| {
        let entry = Entry::of(kv)?;
        let object = shown(&Entry { modified: revision, ..entry }, &ask.kind);
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
