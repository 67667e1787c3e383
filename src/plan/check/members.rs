//! The VMs: whose they are, and whether their numbers and names are free for the new ones.

use std::collections::BTreeSet;

use super::{Scope, victims};
use crate::plan::observed::{Finding, Known, Observed};
use crate::types::VmId;

/// Who belongs to the cluster, and whether that VM may be taken apart.
pub(super) fn members(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    for vm in &seen.vms {
        let identity = &vm.identity;
        let label = format!("VM {} ({}) on {}", identity.vmid, identity.name, identity.node);
        if vm.tagged && vm.template {
            found.push(Finding::warning(
                format!("template {} ({}) carries the cluster's tags and is kept", identity.vmid, identity.name),
                "a template is never part of a cluster",
            ));
            continue;
        }
        if vm.tagged && vm.known == Known::No {
            found.push(Finding::refusal(
                format!(
                    "{label} carries all tags of the cluster ({}) and is not in the profile",
                    scope.tags.join(", ")
                ),
                "take a tag off it, or add it to the profile: nothing unknown is ever deleted",
            ));
            continue;
        }
        if !vm.tagged && vm.known == Known::Profile {
            continue;
        }
        for (key, what) in [("lock", "is locked"), ("protection", "is protected")] {
            if let Some(value) = vm.config.get(key).filter(|value| *value != "0") {
                found.push(Finding::refusal(
                    format!("{label} {what} ({key}: {value})"),
                    "clear it, if nobody needs it any more",
                ));
            }
        }
    }
}

/// Numbers and names that somebody else has.
pub(super) fn numbers(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let leftovers = seen.leftovers.iter().map(|leftover| leftover.vmid);
    let going: BTreeSet<VmId> = victims(seen).map(|vm| vm.identity.vmid).chain(leftovers).collect();
    for vm in scope.vms {
        if seen.vmids.contains(&vm.vmid) && !going.contains(&vm.vmid) {
            let owner = seen.vms.iter().find(|other| other.identity.vmid == vm.vmid);
            let named = owner
                .map_or_else(String::new, |other| format!(" ({} on {})", other.identity.name, other.identity.node));
            found.push(Finding::refusal(
                format!(
                    "number {} of {} is taken by a guest that is not part of this cluster{named}",
                    vm.vmid, vm.name
                ),
                "give the machine another vmid, or give that guest all the cluster's tags if it is the old machine",
            ));
        }
        for other in seen
            .vms
            .iter()
            .filter(|other| other.identity.name == vm.name && !going.contains(&other.identity.vmid) && !other.template)
        {
            if other.identity.vmid != vm.vmid {
                found.push(Finding::refusal(
                    format!("VM {} on {} already has the name {}", other.identity.vmid, other.identity.node, vm.name),
                    "rename it, or give it all the cluster's tags if it is the old machine",
                ));
            }
        }
    }
}

/// The profile's own limit.
pub(super) fn most_destroyed(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let going = victims(seen).count();
    if let Some(most) = scope.max_destroy
        && going > most as usize
    {
        found.push(Finding::refusal(
            format!("{going} VMs would be destroyed and guards.max_destroy is {most}"),
            "raise it if that is what you want",
        ));
    }
}
