//! What each step does: probe → act → confirm.
//!
//! Purpose: the only place where plan, engine and clients meet. `plan/phases/NAME.rs` says which steps a phase has; the
//! files here say what they do, three functions each that can be read alone.
//! Must not know: terminals, arguments. Start reading at [`World`].

mod backup;
mod classify;
mod cluster;
pub mod config;
mod drain;
pub mod errands;
mod facts;
pub mod files;
mod find;
mod finish;
mod freeze;
mod image;
mod kubernetes;
mod machine;
mod old;
mod ours;
mod perform;
mod pull;
mod shell;
mod shipment;
mod taken_over;
mod task;
mod upgrade;
mod verify;
mod volume;

use std::collections::BTreeMap;

use crate::command::Commands;
use crate::image::Cache;
use crate::k8s::Readyz;
use crate::net::Connector;
use crate::net::http::Client;
use crate::plan::Plan;
use crate::pve::Pve;
use crate::talos::client::Access;
use crate::talos::secrets::Secrets;
use crate::types::NodeName;
use files::Files;
pub use shell::Shells;
pub use shipment::Looked;

/// All that steps act on.
pub struct World {
    /// The plan being carried out.
    pub plan: Plan,
    /// The PVE API.
    pub pve: Pve,
    /// Clients for single nodes: uploads go straight to where they are wanted.
    pub nodes: BTreeMap<NodeName, Pve>,
    /// SSH to single nodes.
    pub shells: Shells,
    /// HTTPS for the factory.
    pub http: Client,
    /// The image cache.
    pub cache: Cache,
    /// The one way out.
    pub connector: Connector,
    /// The cluster's secrets.
    pub secrets: Secrets,
    /// An administrator's way into the cluster's machines.
    pub access: Access,
    /// The user's files.
    pub files: Files,
    /// Whether folders on one device count as two places.
    pub devices: crate::backup::Devices,
    /// The way to run programs.
    pub commands: Commands,
    /// Looks whether the Kubernetes API answers; none where nothing can be measured.
    pub readyz: Option<Readyz>,
    /// The images, once they were looked at, and how they travel.
    pub image: Looked,
}

impl World {
    /// Where the cluster's Kubernetes API is to be found.
    fn endpoint(&self) -> Option<&str> {
        self.plan.endpoint.as_deref()
    }

    /// The client that talks to this node itself; any endpoint where the site doesn't name one.
    fn node_client(&self, node: &NodeName) -> &Pve {
        self.nodes.get(node).unwrap_or(&self.pve)
    }
}
