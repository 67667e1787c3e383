//! What Kubernetes does by itself: controllers and the scheduler.
//!
//! Purpose: from what is there to what is to be written, one step at a time; whoever calls writes it and calls again when
//! something changed or the time has come. Must not know: who calls, and how it is written. Start at [`Controllers::look`].

mod budgets;
mod daemons;
mod garbage;
mod jobs;
mod nodes;
mod ordered;
mod quotas;
mod replicas;
mod schedule;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use super::events::News;
use super::view::{Eyes, Round, Time, View};
use super::{Entry, objects, pods};
use crate::etcd::{Client, Kv};

/// The controllers of one cluster, with what they remember.
#[derive(Debug)]
pub struct Controllers {
    view: View,
    memory: Memory,
    /// When there is something to do although nothing changed.
    next: Option<Instant>,
}

/// What controllers remember from one look to the next.
#[derive(Debug, Default)]
struct Memory {
    /// Of each node's lease: its revision, and since when.
    heard: BTreeMap<String, (u64, Instant)>,
    /// Nodes that are heard of for the first time.
    fresh: Vec<String>,
    /// Since when something is as it is, by a name for it.
    since: BTreeMap<String, Instant>,
    /// The names that were asked for in this look.
    asked: BTreeSet<String>,
}

impl Memory {
    /// Since when something has been so; now, when it is so for the first time.
    fn since(&mut self, name: String) -> Instant {
        self.asked.insert(name.clone());
        *self.since.entry(name).or_insert_with(Instant::now)
    }

    /// Whether something is so for the first time.
    fn is_new(&mut self, name: String) -> bool {
        let known = self.since.contains_key(&name);
        self.since(name);
        !known
    }
}

/// Looks up what isn't in the view.
type LookUp<'a> = &'a dyn Fn(&str) -> Vec<Entry>;

/// One look: what is there, what time it is, and what is to be done about it.
struct Desk<'a> {
    view: &'a View,
    memory: &'a mut Memory,
    time: Time<'a>,
    seed: &'a str,
    look_up: LookUp<'a>,
    round: Round,
}

/// Circumstances of a look.
#[derive(Clone, Copy)]
pub struct Circumstances<'a> {
    /// What time it is.
    pub time: Time<'a>,
    /// Makes the UIDs of new objects.
    pub seed: &'a str,
    /// The cluster's CA, which every namespace is told.
    pub authority: &'a str,
}

impl Default for Controllers {
    fn default() -> Self {
        Self { view: View::new(Eyes::Controllers), memory: Memory::default(), next: None }
    }
}

impl Controllers {
    /// What is to be done now.
    pub fn look(&mut self, client: &Client, now: Circumstances<'_>) -> Round {
        self.view.refresh(client);
        let decode = |found: Vec<std::sync::Arc<Kv>>| found.iter().filter_map(|kv| Entry::of(kv)).collect();
        let look_up = |prefix: &str| -> Vec<Entry> {
            if prefix.ends_with('/') {
                client.view(|store| store.list(prefix.as_bytes())).map(decode).unwrap_or_default()
            } else {
                client
                    .view(|store| store.get(prefix.as_bytes()))
                    .flatten()
                    .map(|kv| decode(vec![kv]))
                    .unwrap_or_default()
            }
        };
        self.work(now, &look_up)
    }

    /// The same over a store that nobody else writes to.
    pub fn look_at(&mut self, store: &crate::etcd::Store, now: Circumstances<'_>) -> Round {
        self.view.follow(store, (0, 1));
        let look_up = |prefix: &str| -> Vec<Entry> {
            if prefix.ends_with('/') {
                super::listed(store, prefix)
            } else {
                store.get(prefix.as_bytes()).and_then(|kv| Entry::of(&kv)).into_iter().collect()
            }
        };
        self.work(now, &look_up)
    }

    /// Forgets what was heard and when: somebody else leads.
    pub fn rest(&mut self) {
        self.memory = Memory::default();
        self.view.again();
    }

    /// Looks at everything once more: not all of what was to be written is.
    pub fn again(&mut self) {
        self.view.again();
    }

    fn work(&mut self, now: Circumstances<'_>, look_up: LookUp<'_>) -> Round {
        nodes::hear(&self.view, &mut self.memory);
        // Renewed leases are the everyday's noise.
        let due = self.next.is_some_and(|next| Instant::now() >= next);
        if !self.view.take_news() && !due {
            return Round { next: self.next, ..Round::default() };
        }
        let memory = &mut self.memory;
        let mut desk =
            Desk { view: &self.view, memory, time: now.time, seed: now.seed, look_up, round: Round::default() };
        desk.nodes();
        desk.namespaces(now.authority);
        desk.garbage();
        desk.deployments();
        desk.replicasets();
        desk.daemonsets();
        desk.statefulsets();
        desk.jobs();
        desk.volumes();
        desk.schedule();
        desk.budgets();
        desk.services();
        desk.quotas();
        let round = desk.round;
        let asked = std::mem::take(&mut self.memory.asked);
        self.memory.since.retain(|name, _| asked.contains(name));
        self.next = round.next;
        round
    }
}

impl Desk<'_> {
    fn nodes_known(&self) -> Vec<&Entry> {
        self.view.list("/registry/minions/").map(AsRef::as_ref).collect()
    }

    /// The pods of a namespace.
    fn pods_in(&self, namespace: &str) -> Vec<&Entry> {
        let prefix = format!("/registry/pods/{namespace}/");
        self.view.all().filter(|entry| entry.key.starts_with(&prefix)).map(AsRef::as_ref).collect()
    }

    fn all(&self, prefix: &str) -> Vec<std::sync::Arc<Entry>> {
        self.view.list(prefix).cloned().collect()
    }

    /// The objects below a prefix that an object controls.
    fn owned(&self, prefix: &str, owner: &Entry) -> Vec<std::sync::Arc<Entry>> {
        self.view.list(prefix).filter(|entry| pods::is_owned_by(&entry.value, &owner.value)).cloned().collect()
    }

    fn uid(&self, kind: &str, key: &str) -> String {
        objects::uid(&format!("{} {} {kind} {key}", self.seed, self.view.revision()))
    }

    /// Has a pod go, gracefully where it runs.
    fn terminate(&mut self, pod: &Entry) {
        if pods::is_going(&pod.value) {
            return;
        }
        match pods::terminated(&pod.value, None) {
            Some(value) => self.round.update(pod, value),
            None => self.round.remove(pod),
        }
    }

    /// A new pod of an owner's template, named with a suffix of five letters.
    fn make_pod(&mut self, owner: &Entry, template: &Value, number: usize) -> (String, Value) {
        let namespace = pods::namespace(owner);
        let chance = format!("{} {} {number} {}", self.seed, self.view.revision(), owner.key);
        let name = format!("{}-{}", owner.name(), pods::suffix(&chance, 5));
        let key = objects::key("pods", Some(namespace), &name);
        let uid = self.uid("Pod", &key);
        let mut pod = pods::from_template(&owner.value, template, &name, &uid);
        pod["metadata"]["generateName"] = json!(format!("{}-", owner.name()));
        (key, pod)
    }

    /// Writes an object's status if it is different.
    fn set_status(&mut self, entry: &Entry, status: Value) {
        if entry.value["status"] != status {
            let mut value = entry.value.clone();
            value["status"] = status;
            self.round.update(entry, value);
        }
    }
}

/// A pod is available once it is ready and was so for a while.
fn is_available(pod: &Entry) -> bool {
    pods::is_ready(&pod.value) && !pods::is_going(&pod.value)
}

/// A short digest of a template, as names and labels carry it.
fn template_hash(template: &Value) -> String {
    let mut template = template.clone();
    for label in ["pod-template-hash", "controller-revision-hash"] {
        if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.remove(label);
        }
    }
    pods::suffix(&template.to_string(), 10)
}

/// How many desired, where nothing is said.
fn replicas(object: &Value) -> u64 {
    object.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
}

fn generation(object: &Value) -> u64 {
    object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(1)
}

#[cfg(test)]
mod tests;
