//! The Kubernetes API of the clusters in a world, on port 6443 of their control planes and on shared addresses.
//!
//! Purpose: enough of a Kubernetes API for health, readiness, drains and version changes, over the objects in etcd
//! (Kubernetes API conventions, v1.36). Must not know: how machines live; it sees their state and their etcd.
//! Start reading at [`serve`], then `routes.rs` (paths), `verbs.rs` (what becomes of objects) and `kinds.rs` (what exists).

mod answer;
mod ask;
mod kinds;
mod listener;
mod patch;
mod routes;
mod scripted;
mod table;
mod verbs;
mod watch;

pub use listener::serve;
