//! The profile's VMs with names, numbers and nodes spelled out.
//!
//! Must not know: versions and images.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::plan::PlannedVm;
use crate::profile::Inherit;
use crate::profile::expand::{Taken, WantedVm, expand};
use crate::pve::vm::{Guest, GuestKind};
use crate::types::VmId;

/// The profile's VMs with names, numbers and nodes spelled out.
pub(in crate::cli) fn rows(session: &Session, guests: &[Guest]) -> Result<Vec<WantedVm>, Stop> {
    let profile = &session.profile.value;
    let member = |guest: &&Guest| {
        guest.kind == GuestKind::Qemu
            && guest.template != Some(true)
            && guest.tags().contains_all(profile.tags.iter().map(String::as_str))
    };
    let assignments = profile.nodes.iter().flat_map(|(_, _, group)| &group.assignments);
    let assigned: BTreeSet<VmId> = assignments.filter_map(|assignment| assignment.vmid).collect();
    let taken = Taken {
        // A number that the profile assigns and a stranger has is `check`'s to refuse: it can name the stranger.
        on_pve: guests.iter().map(|guest| guest.vmid).filter(|vmid| !assigned.contains(vmid)).collect(),
        replaced: guests.iter().filter(member).map(|guest| guest.vmid).collect(),
        siblings: BTreeSet::new(),
        room_mb: BTreeMap::new(),
    };
    Ok(expand(profile, &session.site, &taken)?)
}

/// What each VM takes over.
pub(in crate::cli) fn inheritance(rows: &[WantedVm]) -> BTreeMap<String, BTreeSet<Inherit>> {
    rows.iter().map(|vm| (vm.name.to_string(), vm.inherit.clone())).collect()
}

pub(in crate::cli) fn planned_vms(rows: &[WantedVm]) -> Vec<PlannedVm> {
    let planned = rows.iter().map(|vm| PlannedVm {
        name: vm.name.to_string(),
        role: vm.role,
        vmid: vm.vmid,
        node: vm.node.clone(),
        address: vm.address,
        cores: vm.cores,
        memory_mb: vm.memory_mb,
        disk_gib: vm.disk_gib,
        mac: vm.mac,
        replaces: None,
    });
    planned.collect()
}
