//! The Kubernetes API of the clusters in a world, on port 6443 of their control planes and on shared addresses.
//!
//! Purpose: an API server that kubectl and client libraries take for one (Kubernetes API conventions, v1.36), over the
//! objects in etcd. Must not know: how machines live; it sees their state and their etcd; nor what controllers do.
//! Start reading at [`serve`], then `routes.rs` (who calls, paths), `kinds.rs` (what exists), `write.rs`, `change.rs` and
//! `delete.rs` (what becomes of objects), `managed.rs` (server-side apply).

mod answer;
mod ask;
mod bind;
mod change;
mod columns;
mod cron;
mod decode;
mod delete;
mod dial;
mod discovery;
mod events;
mod fill;
mod form;
mod kinds;
mod list;
mod listener;
mod logs;
mod managed;
mod merge;
mod openapi;
mod own;
mod pages;
mod patch;
mod paths;
mod protobuf;
mod quota;
mod rbac;
mod reviews;
mod routes;
mod scale;
mod schema;
mod scripted;
mod select;
mod structural;
mod swagger;
mod table;
mod tokens;
mod validate;
mod watch;
mod write;

pub use listener::serve;
