//! The only reader before planning: fills an [`Observed`](crate::plan::Observed) and changes nothing.
//!
//! Purpose: one photograph of PVE, the factory and the running cluster. What can't be seen, or is plainly wrong, becomes
//! a finding, so that everything is reported at once. Must not know: what will be done about it.
//! Start reading at [`Ask`], then [`pve::observe`].

pub mod cluster;
pub mod identity;
pub mod pve;
pub mod rights;

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
    /// PVE nodes that will get machines.
    pub nodes: Vec<crate::types::NodeName>,
    /// Storage for disks.
    pub storage: StorageId,
    /// Bridge of the first NIC, `vmbr0`, and its VLAN tag.
    pub bridge: String,
    /// VLAN tag.
    pub vlan: Option<u16>,
}
