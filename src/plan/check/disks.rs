//! Disks and volumes that would go with a VM: none that nobody named (design §4 rule 3).

use super::{Scope, victims};
use crate::plan::observed::{Finding, Observed, SeenVm, SeenVolume};
use crate::plan::wanted::DoomedDisk;
use crate::property::{BootOrder, Disk};

/// Refuses where a VM that goes has a disk, or a volume on one, that is neither the system's nor named.
pub(super) fn disks(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let is_named = |vm: &SeenVm, key: &str| {
        scope.destroy_disks.contains(&DoomedDisk { vmid: vm.identity.vmid, key: key.to_owned() })
    };
    for vm in victims(seen) {
        let identity = &vm.identity;
        let label = format!("VM {} ({}) on {}", identity.vmid, identity.name, identity.node);
        for (key, volume) in &identity.disks {
            if !carries_only_the_system(vm, key) && !is_named(vm, key) {
                found.push(Finding::refusal(
                    format!("{label} has a disk beyond its system: {key} = {volume}"),
                    format!("detach and move it, or destroy it with --destroy-disk {}:{key}", identity.vmid),
                ));
            }
        }
    }
    for doomed in scope.destroy_disks {
        let vm = victims(seen).find(|vm| vm.identity.vmid == doomed.vmid);
        if !vm.is_some_and(|vm| vm.identity.disks.contains_key(&doomed.key)) {
            found.push(Finding::refusal(
                format!("--destroy-disk {doomed} names no disk of a VM that is replaced"),
                "name a VM of the cluster and the key of one of its disks, as `qm config` shows it",
            ));
        }
    }
    volumes(scope, seen, found);
}

/// Volumes of Kubernetes on the machines' own disks. Which of a machine's disks a path is on can't be seen from outside,
/// so they count as the system's: Talos mounts `/var` from there.
fn volumes(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let Some(cluster) = &seen.cluster else { return };
    let Some(volumes) = &cluster.local_volumes else {
        if victims(seen).next().is_some() {
            found.push(Finding::warning(
                "the Kubernetes API does not say which volumes live on the machines' own disks",
                "what is on the disks of deleted VMs is gone: look yourself",
            ));
        }
        return;
    };
    let is_named = |vm: &SeenVm| {
        let key = boot_disk(vm);
        scope.destroy_disks.contains(&DoomedDisk { vmid: vm.identity.vmid, key })
    };
    for volume in volumes {
        let on: Vec<&SeenVm> = victims(seen).filter(|vm| lives_on(volume, vm)).collect();
        // One that names no machine is wherever its pod was: naming one disk shows that it is known.
        let settled = if volume.machines.is_empty() {
            on.iter().any(|vm| is_named(vm))
        } else {
            on.iter().all(|vm| is_named(vm))
        };
        if on.is_empty() || settled {
            continue;
        }
        let claim = volume.claim.as_ref().map(|claim| format!(" of {claim}")).unwrap_or_default();
        let disks: Vec<String> =
            on.iter().map(|vm| format!("--destroy-disk {}:{}", vm.identity.vmid, boot_disk(vm))).collect();
        let at = match on.as_slice() {
            [only] if !volume.machines.is_empty() => {
                let identity = &only.identity;
                format!(
                    "VM {} ({}): local volume {}{claim} ({}) lives on its disk {}",
                    identity.vmid,
                    identity.name,
                    volume.name,
                    volume.path,
                    boot_disk(only)
                )
            }
            _ => format!(
                "local volume {}{claim} ({}) lives on the disk of one or more VMs that are deleted",
                volume.name, volume.path
            ),
        };
        found.push(Finding::refusal(
            at,
            format!(
                "back up and delete the volume, or let it go with {}",
                disks.join(if volume.machines.is_empty() { " or " } else { " " })
            ),
        ));
    }
}

/// Whether a local volume may lie on a VM's disk.
pub fn lives_on(volume: &SeenVolume, vm: &SeenVm) -> bool {
    volume.machines.is_empty() || volume.machines.contains(&vm.identity.name)
}

/// The key of the disk that a VM boots from.
pub fn boot_disk(vm: &SeenVm) -> String {
    let order = vm.config.get("boot").and_then(|boot| boot.parse::<BootOrder>().ok()).unwrap_or_default();
    let is_disk = |key: &&String| vm.identity.disks.contains_key(*key) && !is_cloud_init(vm, key);
    order.0.iter().find(is_disk).cloned().unwrap_or_else(|| "scsi0".to_owned())
}

fn is_cloud_init(vm: &SeenVm, key: &str) -> bool {
    vm.identity
        .disks
        .get(key)
        .is_some_and(|volume| volume.as_str().parse::<Disk>().is_ok_and(|disk| disk.is_cloudinit()))
}

/// Whether a disk key holds what a fresh clone brings anyway: boot disk, EFI variables, TPM state, cloud-init.
pub fn carries_only_the_system(vm: &SeenVm, key: &str) -> bool {
    key == boot_disk(vm) || key.starts_with("efidisk") || key.starts_with("tpmstate") || is_cloud_init(vm, key)
}
