//! Kubernetes clusters: what their etcd holds, and what their controllers do with it.
//!
//! Purpose: the objects of a cluster as values under keys, and the rules by which they change without anybody asking.
//! Must not know: HTTP, gRPC, how etcd agrees ([`crate::etcd`]). Start at [`get`] and [`put`]; `values.rs` is how objects
//! are stored, `objects.rs` which ones every cluster has, `workloads.rs` what controllers and kubelets make of them.

mod amount;
pub mod controllers;
pub mod defaults;
pub mod events;
pub mod kubelet;
pub mod leases;
pub mod manifests;
pub mod objects;
pub mod pods;
pub mod quota;
mod roles;
pub mod values;
pub mod view;
pub mod workloads;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::World;
use crate::etcd::{Client, Etcd, EtcdError, Kv, Pace, Store};

/// The etcd clusters of a world of which a member runs.
#[derive(Debug, Default)]
pub(super) struct Etcds(Mutex<BTreeMap<u64, Arc<Etcd>>>);

impl World {
    /// All etcd clusters of which a member runs: for tests that make a member lag or force an election.
    pub fn etcds(&self) -> Vec<Arc<Etcd>> {
        self.0.etcds.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The cluster with that id.
    pub(super) fn etcd(&self, id: u64, mark: &str) -> Arc<Etcd> {
        let mut all = self.0.etcds.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(id).or_insert_with(|| Etcd::open(id, mark.to_owned(), Pace(self.clock().scale()))).clone()
    }

    /// A member stopped; with the last one the cluster is only on disks.
    pub(super) fn stop_member(&self, client: &Client) {
        let mut all = self.0.etcds.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !client.etcd.stop(client.id) {
            all.remove(&client.etcd.id());
        }
    }
}

/// An object under its key.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// `/registry/…`.
    pub key: String,
    /// The object.
    pub value: Value,
    /// Revision at which the key was made.
    pub created: u64,
    /// Revision at which it was last changed.
    pub modified: u64,
}

impl Entry {
    /// An object out of etcd; `None` when it is in a form that this double doesn't read.
    pub fn of(kv: &Kv) -> Option<Self> {
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let value = values::decode(&kv.value).filter(|value| value["metadata"].is_object())?;
        Some(Self { key, value, created: kv.created, modified: kv.modified })
    }

    /// The last part of the key.
    pub fn name(&self) -> &str {
        self.key.rsplit('/').next().unwrap_or_default()
    }
}

/// An object as a member has it now.
pub fn get(client: &Client, key: &str) -> Option<Entry> {
    let kv = client.view(|store| store.get(key.as_bytes()))??;
    Entry::of(&kv)
}

/// All objects whose key begins so, as a member has them now, and the revision of that view.
pub fn list(client: &Client, prefix: &str) -> (Vec<Entry>, u64) {
    let found = client.view(|store| (store.list(prefix.as_bytes()), store.revision()));
    let (entries, revision) = found.unwrap_or_default();
    (entries.iter().filter_map(|kv| Entry::of(kv)).collect(), revision)
}

/// All objects in a store whose key begins so.
pub fn listed(store: &Store, prefix: &str) -> Vec<Entry> {
    store.list(prefix.as_bytes()).iter().filter_map(|kv| Entry::of(kv)).collect()
}

/// Writes an object. With `expected`, only if it is still at that revision (0: doesn't exist). The revision since.
pub async fn put(client: &Client, key: &str, value: &Value, expected: Option<u64>) -> Result<u64, EtcdError> {
    client.put(key, values::encode(value), expected).await
}
