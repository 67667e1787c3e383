//! What controllers and kubelets see of a cluster: decoded once, and brought up to date by what changed since.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::etcd::{Client, Kv, Store};
use crate::world::clock::Clock;

use super::Entry;
use super::events::News;

/// What controllers look at, besides everything that somebody owns.
const WATCHED: &[&str] = &[
    "/registry/apiextensions.k8s.io/",
    "/registry/controllerrevisions/",
    "/registry/daemonsets/",
    "/registry/deployments/",
    "/registry/endpointslices/",
    "/registry/jobs/",
    "/registry/leases/kube-node-lease/",
    "/registry/minions/",
    "/registry/namespaces/",
    "/registry/persistentvolumeclaims/",
    "/registry/persistentvolumes/",
    "/registry/poddisruptionbudgets/",
    "/registry/pods/",
    "/registry/replicasets/",
    "/registry/resourcequotas/",
    "/registry/serviceaccounts/",
    "/registry/services/",
    "/registry/statefulsets/",
];

/// Whose view it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eyes {
    /// The controllers': all that they look after.
    Controllers,
    /// A kubelet's: its node and the pods on it.
    Node(String),
}

/// Objects by key, as they were at one revision.
#[derive(Debug)]
pub struct View {
    eyes: Eyes,
    /// Which etcd cluster, and which member of it, this was seen at.
    from: (u64, u64),
    revision: u64,
    objects: BTreeMap<String, Arc<Entry>>,
    /// Something else than leases is different since somebody asked.
    news: bool,
}

impl View {
    /// Nothing seen yet.
    pub fn new(eyes: Eyes) -> Self {
        Self { eyes, from: (0, 0), revision: 0, objects: BTreeMap::new(), news: true }
    }

    /// Brings it up to date with a member's keys; whether anything is different.
    pub fn refresh(&mut self, client: &Client) -> bool {
        let from = (client.etcd.id(), client.id);
        client.view(|store| self.follow(store, from)).unwrap_or(false)
    }

    /// The same with a store.
    pub fn follow(&mut self, store: &Store, from: (u64, u64)) -> bool {
        let events =
            if self.from == from && store.revision() >= self.revision { store.since(self.revision) } else { None };
        let mut changed = false;
        if let Some(events) = events {
            for event in events {
                let different = match event.kind {
                    crate::etcd::EventKind::Deleted => self.objects.remove(key(&event.kv).as_ref()).is_some(),
                    _ => self.take(&event.kv),
                };
                changed |= different;
                self.news |= different && !event.kv.key.starts_with(b"/registry/leases/");
            }
        } else {
            self.objects.clear();
            for kv in store.list(b"/registry/") {
                self.take(&kv);
            }
            (changed, self.news) = (true, true);
        }
        (self.from, self.revision) = (from, store.revision());
        changed
    }

    fn take(&mut self, kv: &Kv) -> bool {
        let key = key(kv);
        let wanted = match &self.eyes {
            Eyes::Controllers => {
                WATCHED.iter().any(|prefix| key.starts_with(prefix)) || contains(&kv.value, b"\"ownerReferences\"")
            }
            Eyes::Node(name) => {
                key.strip_prefix("/registry/minions/") == Some(name)
                    || key.starts_with("/registry/pods/")
                        && contains(&kv.value, format!("\"nodeName\":\"{name}\"").as_bytes())
            }
        };
        let entry = if wanted { Entry::of(kv) } else { None };
        match entry {
            Some(entry) => {
                self.objects.insert(key.into_owned(), Arc::new(entry));
                true
            }
            None => self.objects.remove(key.as_ref()).is_some(),
        }
    }

    /// Whether anything but leases is different since this was last asked.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// What was seen is news once more: what was done about it failed.
    pub fn again(&mut self) {
        self.news = true;
    }

    /// The revision that it reflects.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// All objects whose key begins so.
    pub fn list<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.objects
            .range(prefix.to_owned()..)
            .map(|(_, entry)| entry)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// All objects.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.objects.values()
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.objects.get(key)
    }
}

fn key(kv: &Kv) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&kv.key)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else { return true };
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(part) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

/// How things that take their time know what time it is.
#[derive(Clone, Copy, Debug)]
pub enum Time<'a> {
    /// It passes.
    Runs(&'a Clock),
    /// All that takes time has happened already: how a cluster looks that has lived for a while.
    Over,
}

impl Time<'_> {
    /// Whether that many seconds of real life passed since; else when they will have.
    pub fn passed(self, since: Instant, seconds: f64) -> Result<(), Instant> {
        match self {
            Self::Over => Ok(()),
            Self::Runs(clock) => self.waited(since, clock.scaled(seconds)),
        }
    }

    /// Whether so much time passed on the wall since; else when it will have.
    pub fn waited(self, since: Instant, wait: Duration) -> Result<(), Instant> {
        let until = since + wait;
        if matches!(self, Self::Over) || Instant::now() >= until { Ok(()) } else { Err(until) }
    }
}

/// A write that holds only if the object is still as it was seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The key.
    pub key: String,
    /// The object; `None`: it goes.
    pub value: Option<serde_json::Value>,
    /// The revision it was seen at; 0: it must not exist.
    pub expected: u64,
    /// What is told once it is written.
    pub news: Vec<News>,
}

/// What one look led to.
#[derive(Debug, Default)]
pub struct Round {
    /// What is to be written now.
    pub writes: Vec<Write>,
    /// What is told whatever becomes of them.
    pub news: Vec<News>,
    /// When to look again although nothing changed.
    pub next: Option<Instant>,
}

impl Round {
    /// A new object.
    pub fn create(&mut self, key: String, value: serde_json::Value) {
        self.writes.push(Write { key, value: Some(value), expected: 0, news: Vec::new() });
    }

    /// An object gets a new value.
    pub fn update(&mut self, entry: &Entry, value: serde_json::Value) {
        let (key, expected) = (entry.key.clone(), entry.modified);
        self.writes.push(Write { key, value: Some(value), expected, news: Vec::new() });
    }

    /// An object goes.
    pub fn remove(&mut self, entry: &Entry) {
        let (key, expected) = (entry.key.clone(), entry.modified);
        self.writes.push(Write { key, value: None, expected, news: Vec::new() });
    }

    /// Has something told once the last of the writes so far is done.
    pub fn tell(&mut self, news: News) {
        match self.writes.last_mut() {
            Some(write) => write.news.push(news),
            None => self.news.push(news),
        }
    }

    /// Looks again at that time, or before.
    pub fn wake(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |known| known.min(at)));
    }

    /// Whether a time has come; if not, looks again when it has.
    pub fn due(&mut self, time: Result<(), Instant>) -> bool {
        match time {
            Ok(()) => true,
            Err(at) => {
                self.wake(at);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::cluster::values;

    #[test]
    fn a_view_follows_what_changes_and_leaves_out_what_nobody_looks_at() {
        let mut store = Store::default();
        let put = |store: &mut Store, key: &str, value: &serde_json::Value| {
            store.put(bytes::Bytes::copy_from_slice(key.as_bytes()), values::encode(value));
        };
        let pod = |node: &str| json!({ "metadata": { "name": "a" }, "spec": { "nodeName": node } });
        put(&mut store, "/registry/pods/x/a", &pod("one"));
        put(&mut store, "/registry/secrets/x/a", &json!({ "metadata": { "name": "a" } }));
        let mut all = View::new(Eyes::Controllers);
        let mut one = View::new(Eyes::Node("one".to_owned()));
        assert!(all.follow(&store, (1, 1)) && one.follow(&store, (1, 1)));
        assert_eq!((all.all().count(), one.all().count()), (1, 1));
        assert!(!all.follow(&store, (1, 1)));
        put(&mut store, "/registry/pods/x/a", &pod("two"));
        put(&mut store, "/registry/secrets/x/b", &json!({ "metadata": { "name": "b", "ownerReferences": [] } }));
        assert!(all.follow(&store, (1, 1)) && one.follow(&store, (1, 1)));
        assert_eq!((all.all().count(), one.all().count()), (2, 0));
        store.delete(b"/registry/pods/x/a");
        assert!(all.follow(&store, (1, 1)) && !one.follow(&store, (1, 1)));
        assert_eq!(all.all().count(), 1);
    }
}
