//! What becomes of the things that hang on a VM that is destroyed.
//!
//! Purpose: nothing goes silently (design §4 rules 2 and 3): snapshots, HA resources, replication and backup jobs,
//! further disks and the volumes on them are listed in the plan with what will be done about each.
//! Must not know: clients.

use super::observed::{Observed, SeenVm};
use super::wanted::{DoomedDisk, Wanted};
use super::{Fate, Verb, check};
use crate::profile::Inherit;

/// Everything that goes with the VMs, in their order.
pub(super) fn fates(wanted: &Wanted, victims: &[&SeenVm], seen: &Observed) -> Vec<Fate> {
    let mut fates = Vec::new();
    for old in victims {
        let vmid = old.identity.vmid;
        let mut tell = |what: String| fates.push(Fate { vmid, what });
        if !old.snapshots.is_empty() {
            tell(format!("its snapshots {} are deleted with it", old.snapshots.join(", ")));
        }
        if let Some(care) = &old.ha {
            let heir = heir(wanted, old).filter(|name| wanted.inherits(name, Inherit::Ha));
            let group = care.group.as_ref().map(|group| format!(", group {group}")).unwrap_or_default();
            tell(match heir {
                Some(name) => {
                    format!("its HA resource ({}{group}) is removed and made again for {name}", care.state)
                }
                None => format!("its HA resource ({}{group}) is removed", care.state),
            });
        }
        if !old.replicas.is_empty() {
            tell(format!("its replication is removed with its copies: {}", old.replicas.join(", ")));
        }
        if forgets(old) && !old.backup_jobs.is_empty() {
            tell(format!("backup jobs that name it lose it: {}", old.backup_jobs.join(", ")));
        }
        for (key, volume) in &old.identity.disks {
            if !check::carries_only_the_system(old, key) {
                tell(format!("its disk {key} ({volume}) is destroyed, as --destroy-disk {vmid}:{key} says"));
            }
        }
        for volume in seen.cluster.iter().flat_map(|cluster| cluster.local_volumes.iter().flatten()) {
            if check::lives_on(volume, old) && wanted.destroy_disks.contains(&system_disk(old)) {
                let claim = volume.claim.as_ref().map(|claim| format!(" of {claim}")).unwrap_or_default();
                tell(format!("the local volume {}{claim} ({}) is destroyed with its disk", volume.name, volume.path));
            }
        }
    }
    fates
}

/// Whether PVE has to forget references to a VM (`purge=1`), since it isn't deleted otherwise.
pub(super) fn forgets(old: &SeenVm) -> bool {
    old.ha.is_some() || !old.replicas.is_empty()
}

/// The name that is given for the disk that a VM boots from.
pub(super) fn system_disk(old: &SeenVm) -> DoomedDisk {
    DoomedDisk { vmid: old.identity.vmid, key: check::boot_disk(old) }
}

/// The new VM that replaces an old one.
fn heir<'a>(wanted: &'a Wanted, old: &SeenVm) -> Option<&'a str> {
    if wanted.verb == Verb::Teardown {
        return None;
    }
    let by_name = wanted.vms.iter().find(|vm| vm.name == old.identity.name);
    let heir = by_name.or_else(|| wanted.vms.iter().find(|vm| vm.vmid == old.identity.vmid));
    heir.map(|vm| vm.name.as_str())
}
