//! The Kubernetes API, as far as a rebuild looks at it.
//!
//! Purpose: is it there, which version is it, are the nodes Ready and do they stay so. All of it reads.
//! Must not know: plans, Talos, Proxmox VE. Start reading at [`Client`], then [`ready`].
//!
//! Four GETs need no client library: they go through the same HTTPS client as everything else, so that dialling, TLS and
//! the loopback rule are the connector's alone.

pub mod client;
pub mod kubeconfig;
pub mod ready;
pub mod readyz;

pub use client::{Client, K8sError, Node};
pub use ready::{Expected, Steady, Verdict};
pub use readyz::Readyz;
