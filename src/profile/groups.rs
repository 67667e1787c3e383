//! The VMs that are wanted: how many of each role, how large, where, and what is fixed for one of them.
//!
//! Must not know: what runs in them, beyond its role. Start reading at [`Groups`]; `expand` makes a list of VMs of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use schemars::JsonSchema;

use super::{Factory, schema};
use crate::types::{Mac, MachineName, NodeName, Role, VmId};

/// The VMs, by role.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Groups {
    /// Control planes.
    pub controlplane: Option<Group>,
    /// Workers.
    pub workers: Option<Group>,
}

impl Groups {
    /// The groups with their role and their key, control planes first.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &'static str, &Group)> {
        let control = self.controlplane.iter().map(|group| (Role::ControlPlane, "controlplane", group));
        control.chain(self.workers.iter().map(|group| (Role::Worker, "workers", group)))
    }
}

/// VMs of one role.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Group {
    /// How many.
    pub count: u32,
    /// Names are this and a number of two digits from 01.
    pub name_prefix: String,
    /// Cores of each.
    pub cores: u32,
    /// Memory of each, in MB as PVE counts them (MiB).
    #[schemars(rename = "memory")]
    pub memory_mb: u64,
    /// Size of each one's boot disk.
    #[schemars(rename = "disk", with = "schema::DiskText")]
    pub disk_gib: u64,
    /// Where VMIDs start; `auto` (the default) takes the lowest that are free.
    #[schemars(with = "Option<schema::StartText>")]
    pub start_vmid: StartVmId,
    /// How VMs are distributed over the site's nodes; `spread` by default.
    #[schemars(with = "Option<Placement>")]
    pub placement: Placement,
    /// What is fixed for single VMs.
    #[schemars(with = "Option<Vec<Assignment>>")]
    pub assignments: Vec<Assignment>,
    /// What these machines' images are made from, where it isn't `talos.factory`.
    pub factory: Option<Factory>,
    /// PVE configuration keys of each VM, in PVE's own syntax; `inherit` among them is no such key.
    #[schemars(with = "Option<schema::HardwareText>")]
    pub vm: BTreeMap<String, String>,
    /// What a new VM takes over from the one it replaces, `vm.inherit`; everything by default.
    #[schemars(skip)]
    pub inherit: BTreeSet<Inherit>,
}

impl Group {
    /// The name of the VM with this index, from 0.
    pub fn member(&self, index: u32) -> MachineName {
        MachineName::new(format!("{}{:02}", self.name_prefix, index + 1))
    }

    /// The assignment of a name.
    pub fn assignment(&self, name: &MachineName) -> Option<&Assignment> {
        self.assignments.iter().find(|assignment| assignment.name == *name)
    }
}

/// Something that a new VM takes over from the one it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Inherit {
    /// The first NIC's address, unless the profile names one.
    Mac,
    /// All NICs as they are: bridge, VLAN, addresses of the others.
    Nics,
    /// Order and delays at the host's start.
    Startup,
    /// Whether the host starts it.
    Onboot,
    /// The pool it is in.
    Pool,
    /// Its firewall rules and options, and the flag of each NIC.
    Firewall,
    /// Its HA resource: state, group, limits.
    Ha,
    /// Tags beyond the profile's.
    Tags,
    /// The description, beside recast's own mark.
    Description,
}

impl Inherit {
    /// With the words of profiles.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("mac", Self::Mac),
        ("nics", Self::Nics),
        ("startup", Self::Startup),
        ("onboot", Self::Onboot),
        ("pool", Self::Pool),
        ("firewall", Self::Firewall),
        ("ha", Self::Ha),
        ("tags", Self::Tags),
        ("description", Self::Description),
    ];

    /// Everything, the default.
    pub fn all() -> BTreeSet<Self> {
        Self::ALL.iter().map(|(_, what)| *what).collect()
    }
}

/// Where a group's VMIDs start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartVmId {
    /// At this one.
    At(VmId),
    /// At the lowest free one of the site's range.
    #[default]
    Auto,
}

/// How a group's VMs are distributed over the site's nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Placement {
    /// Round-robin in the site's order.
    #[default]
    Spread,
    /// The first node that has room.
    Pack,
}

/// What is fixed for one VM; what is absent follows the group's rules.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Assignment {
    /// One of the group's names.
    pub name: MachineName,
    /// The PVE node.
    pub node: Option<NodeName>,
    /// The VMID.
    pub vmid: Option<VmId>,
    /// The static address; without one it is discovered.
    pub ip: Option<IpAddr>,
    /// The first NIC's address.
    #[schemars(with = "Option<schema::MacText>")]
    pub mac: Option<Mac>,
    /// PVE configuration keys of this VM, over the group's; `inherit` among them is no such key.
    #[schemars(with = "Option<schema::HardwareText>")]
    pub vm: BTreeMap<String, String>,
    /// What this VM takes over, instead of what the group says.
    #[schemars(skip)]
    pub inherit: Option<BTreeSet<Inherit>>,
}
