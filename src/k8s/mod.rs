//! The Kubernetes API, as far as rebuilds and upgrades need it.
//!
//! Purpose: is it there, which version is it, are the nodes Ready and do they stay so; whose data are in it and how far
//! they go; what ran in it; stale Node objects go, and manifests for the bootstrap come. For upgrades: pods leave a node
//! ([`drain`]), what would keep them ([`budget`]), and the objects that Talos bootstraps follow its version ([`bootstrap`]).
//! Must not know: plans, Proxmox VE. Start reading at [`Client`], then [`ready`] and [`objects`].
//!
//! So few calls need no client library: they go through the same HTTPS client as everything else, so that dialling, TLS
//! and the loopback rule are the connector's alone.

pub mod apply;
pub mod bootstrap;
pub mod budget;
pub mod client;
pub mod drain;
pub mod kubeconfig;
pub mod manifest;
pub mod objects;
pub mod pods;
pub mod ready;
pub mod readyz;
pub mod volumes;
#[cfg(test)]
mod wire_tests;
pub mod workloads;

pub use client::{Client, K8sError, Node};
pub use manifest::{Manifest, ManifestError};
pub use ready::{Expected, Steady, Verdict};
pub use readyz::Readyz;
pub use volumes::LocalVolume;
pub use workloads::Workload;
