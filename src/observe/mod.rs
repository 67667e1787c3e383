//! The only reader before planning: fills an [`Observed`](crate::plan::Observed) and changes nothing.
//!
//! Purpose: one photograph of PVE, the factory and the running cluster. What can't be seen, or is plainly wrong, becomes
//! a finding, so that everything is reported at once. Must not know: what will be done about it.
//! Start reading at [`Ask`], then [`pve::observe`].

pub mod cluster;
pub mod components;
pub mod identity;
pub mod kubernetes;
pub mod members;
pub mod pve;
pub mod rights;
pub mod route;
pub mod shell;
pub mod status;
pub mod templates;

use std::collections::BTreeSet;

use crate::profile::Inherit;
use crate::types::{StorageId, VmId};

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The cluster's name.
    pub cluster: String,
    /// Its tags, all of which a member carries.
    pub tags: Vec<String>,
    /// Names of its machines.
    pub names: Vec<String>,
    /// Numbers of its machines.
    pub vmids: Vec<VmId>,
    /// Range of templates and canaries.
    pub template_ids: std::ops::RangeInclusive<u32>,
    /// Marks of VMs that a run cloned and may not have given their tags: leftovers, if they have none.
    pub half_made: std::collections::BTreeSet<String>,
    /// PVE nodes that will get machines.
    pub nodes: Vec<crate::types::NodeName>,
    /// Storage for disks.
    pub storage: StorageId,
    /// How images come to the nodes: over SSH no right to upload is needed.
    pub transport: crate::profile::Transport,
    /// Bridge of the first NIC, `vmbr0`, and its VLAN tag.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<u16>,
    /// What some VM of it takes over from the one that it replaces.
    pub inherits: BTreeSet<Inherit>,
    /// The pool of VMs that take none over.
    pub pool: Option<String>,
    /// Whether machines get a cloud-init drive.
    pub cloud_init: bool,
}
