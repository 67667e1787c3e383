//! Phase `provision`: the new VMs, cloned, sized and started.

use crate::plan::make::{Draft, planned};
use crate::plan::step::{Hardware, OurVm};
use crate::plan::{Phase, PlannedVm, Step};
use crate::types::{Mac, StepId};

/// Keys that a new VM takes over from the one it replaces, besides its NICs and its pool.
const INHERITED: &[&str] = &["onboot", "startup"];

/// How many clones run at once: a storage's lock makes more of them time out (proxmox storage locks, 10 s).
const WIDTH: usize = 4;

pub(in crate::plan) fn provision(draft: &Draft<'_>) -> Phase {
    let mut steps = Vec::new();
    for vm in &draft.vms {
        let id = |what: &str| format!("provision/{}/{what}", vm.name);
        let ours = new_vm(draft, vm);
        let old = draft.victims.iter().find(|old| Some(old.identity.vmid) == vm.replaces);
        let clone = Step::CloneVm {
            template: draft.templates[&vm.node].vm.vmid,
            vm: ours.clone(),
            storage: draft.wanted.storage.clone(),
            pool: old.and_then(|old| old.pool.clone()),
        };
        let clone = planned(id("clone"), clone, &[]);
        let set = planned(
            id("hardware"),
            Step::SetHardware { vm: ours.clone(), set: hardware(draft, vm), delete: Vec::new() },
            &[&clone.id],
        );
        let grow = planned(
            id("grow"),
            Step::GrowDisk { vm: ours.clone(), disk: "scsi0".to_owned(), gib: vm.disk_gib },
            &[&set.id],
        );
        let start = planned(id("start"), Step::StartVm { vm: ours }, &[&grow.id]);
        steps.extend([clone, set, grow, start]);
    }
    Phase { name: "provision".to_owned(), steps, width: WIDTH }
}

/// The new VM of a row of the plan.
pub(in crate::plan) fn new_vm(draft: &Draft<'_>, vm: &PlannedVm) -> OurVm {
    draft.our_vm(&StepId::new(format!("provision/{}/clone", vm.name)), &vm.node, vm.vmid, &vm.name)
}

fn hardware(draft: &Draft<'_>, vm: &PlannedVm) -> Hardware {
    let wanted = draft.wanted;
    let mut set = Hardware::new();
    set.insert("cores".to_owned(), vm.cores.to_string());
    set.insert("memory".to_owned(), vm.memory_mb.to_string());
    let mut tags: Vec<String> = wanted.tags.iter().cloned().chain([vm.role.to_string()]).collect();
    tags.sort();
    tags.dedup();
    set.insert("tags".to_owned(), tags.join(";"));
    let old = draft.victims.iter().find(|old| Some(old.identity.vmid) == vm.replaces);
    if let Some(old) = old {
        let taken_over =
            |key: &str| INHERITED.contains(&key) || key.strip_prefix("net").is_some_and(|n| n.parse::<u8>().is_ok());
        set.extend(
            old.config.iter().filter(|(key, _)| taken_over(key)).map(|(key, value)| (key.clone(), value.clone())),
        );
    }
    if let Some(mac) = vm.mac {
        let nic = set.get("net0").unwrap_or(&wanted.nic);
        set.insert("net0".to_owned(), net_with_mac(nic, mac));
    }
    if let Some(extra) = wanted.extra.get(&vm.name) {
        set.extend(extra.clone());
    }
    set
}

/// A `netN` value with `mac` as its address. PVE gives a NIC a new MAC on every update that doesn't repeat it
/// (`proxmox/qemu-server`, `parse_net`).
pub(in crate::plan) fn net_with_mac(net: &str, mac: Mac) -> String {
    let (model, rest) = net.split_once(',').unwrap_or((net, ""));
    let model = model.split('=').next().unwrap_or(model);
    let separator = if rest.is_empty() { "" } else { "," };
    format!("{model}={mac}{separator}{rest}")
}

/// The MAC in a `netN` value.
pub(in crate::plan) fn mac_of(net: &str) -> Option<Mac> {
    net.split(',').next()?.split_once('=')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_put_in_and_read_back() {
        let mac: Mac = "BC:24:11:00:12:01".parse().unwrap();
        assert_eq!(net_with_mac("virtio,bridge=vmbr0,tag=20", mac), "virtio=BC:24:11:00:12:01,bridge=vmbr0,tag=20");
        assert_eq!(net_with_mac("virtio=AA:BB:CC:00:00:01,bridge=vmbr0", mac), "virtio=BC:24:11:00:12:01,bridge=vmbr0");
        assert_eq!(mac_of("virtio=BC:24:11:00:12:01,bridge=vmbr0"), Some(mac));
        assert_eq!(mac_of("virtio,bridge=vmbr0"), None);
    }
}
