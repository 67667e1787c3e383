//! Phase `canary`: one throw-away VM per node and template proves that it boots what the configurations expect.
//!
//! A new template whose canaries were right is marked so, and only a marked one is used by later runs. One that a canary
//! refused stays as it is: this run may be resumed with it, no other chooses it, and it is listed and named by `check`.
//! It isn't deleted, since somebody may have made a linked clone of it, which LVM-thin and btrfs don't show.

use std::collections::BTreeMap;

use crate::plan::make::{Draft, PlanError, label, planned, undone_by};
use crate::plan::phases::provision::{CLOUD_INIT, Cloned, hardware};
use crate::plan::step::{Hardware, OurVm};
use crate::plan::{Phase, PlannedVm, Step, allocate};
use crate::property::{self, Nic};
use crate::types::{Mac, StepId, VmId};

/// Memory of a canary in MiB at most: enough to boot into maintenance, little enough to fit beside the old cluster.
const MEMORY_CAP: u64 = 2048;

pub(in crate::plan) fn canary(draft: &Draft<'_>) -> Result<Phase, PlanError> {
    let wanted = draft.wanted;
    let mut steps = Vec::new();
    let mut passed: BTreeMap<VmId, Vec<StepId>> = BTreeMap::new();
    for (spot, vmid) in &draft.canaries {
        let label = label(wanted, spot);
        let id = |what: &str| format!("canary/{label}/{what}");
        let name = format!("{}-canary-{label}", wanted.cluster);
        let vm = draft.our_vm(&StepId::new(id("clone")), &spot.node, *vmid, &name);
        let mac = allocate::mac(&wanted.run, &name);
        let members: Vec<&PlannedVm> = draft.vms.iter().filter(|vm| draft.spot_of(vm) == *spot).collect();
        let set = hardware_of(draft, &members, &name, mac);
        let mut configs = Vec::new();
        for member in &members {
            let machine = wanted.machines.get(&member.name.as_str().into());
            configs.push(machine.ok_or_else(|| PlanError::NoConfig { name: member.name.clone() })?.clone());
        }
        let (clone, moved) = Cloned { ours: &vm, spot, pool: None }.steps(draft);
        // Until it was moved it is deleted where it was cloned.
        let there = moved.as_ref().map_or(&spot.node, |_| &draft.source(spot).vm.node);
        let away = Step::DeleteOurVm { vm: OurVm { node: there.clone(), ..vm.clone() } };
        let clone = undone_by(planned(id("clone"), clone, &[]), away);
        let moved =
            moved.map(|step| undone_by(planned(id("move"), step, &[&clone.id]), Step::DeleteOurVm { vm: vm.clone() }));
        let made = moved.as_ref().map_or(&clone.id, |moved| &moved.id);
        let set = planned(id("hardware"), Step::SetHardware { vm: vm.clone(), set, delete: Vec::new() }, &[made]);
        let start = planned(id("start"), Step::StartVm { vm: vm.clone() }, &[&set.id]);
        let find = Step::FindMachine { vm: vm.clone(), mac, discovery: wanted.canary_discovery.clone() };
        let find = planned(id("find"), find, &[&start.id]);
        let prove = Step::ProveCanary {
            found: find.id.clone(),
            version: wanted.talos.clone(),
            schematic: spot.schematic.clone(),
            install_disk: wanted.config.install_disk.clone(),
            configs,
        };
        let prove = planned(id("prove"), prove, &[&find.id]);
        let delete = planned(id("delete"), Step::DeleteOurVm { vm }, &[&prove.id]);
        passed.entry(draft.source(spot).vm.vmid).or_default().push(delete.id.clone());
        steps.extend(std::iter::once(clone).chain(moved).chain([set, start, find, prove, delete]));
    }
    for (spot, made) in draft.templates.iter().filter(|(_, template)| !template.reused) {
        let Some(after) = passed.get(&made.vm.vmid) else { continue };
        let id = format!("canary/{}/pass", label(wanted, spot));
        let pass = planned(id, Step::PassTemplate { vm: made.vm.clone() }, &after.iter().collect::<Vec<_>>());
        steps.push(pass);
    }
    Ok(Phase { name: "canary".to_owned(), steps, width: 4 })
}

/// The hardware of the machines that it stands for: the most cores among them, as many NICs on the same bridges, each
/// with a MAC of its own. What can be plugged into one VM only, and what belongs to one VM, is left out.
fn hardware_of(draft: &Draft<'_>, members: &[&PlannedVm], name: &str, mac: Mac) -> Hardware {
    let mut set = Hardware::new();
    // The first one's keys win.
    for member in members.iter().rev() {
        set.extend(hardware(draft, member));
    }
    let own = |key: &str| {
        ["onboot", "startup", "description", "ipconfig0", "nameserver"].contains(&key)
            || key.starts_with("hostpci")
            || key.starts_with("usb")
            || property::is_drive(key)
    };
    set.retain(|key, _| !own(key));
    let most = |of: fn(&PlannedVm) -> u64| members.iter().map(|vm| of(vm)).max();
    set.insert("cores".to_owned(), most(|vm| vm.cores.into()).unwrap_or(2).to_string());
    set.insert("memory".to_owned(), most(|vm| vm.memory_mb).unwrap_or(MEMORY_CAP).min(MEMORY_CAP).to_string());
    set.insert("tags".to_owned(), "recast-canary".to_owned());
    for (key, text) in &mut set {
        if property::is_nic(key)
            && let Ok(nic) = text.parse::<Nic>()
        {
            let address = if key == "net0" { mac } else { allocate::mac(&draft.wanted.run, &format!("{name}/{key}")) };
            *text = nic.addressed(address).to_string();
        }
    }
    if draft.wanted.cloud_init {
        // It has no address of its own: the drive is there as the machines have it, and a DHCP server answers.
        set.insert(CLOUD_INIT.to_owned(), format!("{}:cloudinit", draft.wanted.storage));
        set.insert("ipconfig0".to_owned(), "ip=dhcp".to_owned());
    }
    set
}

#[cfg(test)]
mod tests {
    use super::super::super::make::make;
    use super::super::super::sample::{nodes, seen, wanted};
    use super::*;
    use crate::plan::lint::lint;
    use crate::plan::wanted::OtherImage;
    use crate::types::Role;

    fn keys(plan: &crate::plan::Plan, id: &str) -> Hardware {
        let found = plan.steps().find(|planned| planned.id.as_str() == id);
        let Some(Step::SetHardware { set, .. }) = found.map(|planned| &planned.step) else { panic!("no step {id}") };
        set.clone()
    }

    #[test]
    fn it_has_the_hardware_of_its_machines_but_nothing_of_their_own() {
        let (mut wanted, mut seen) = (wanted(), seen());
        let old = &mut seen.vms[0].config;
        old.insert("net0".to_owned(), "virtio=BC:24:11:00:11:00,bridge=vmbr7,tag=20".to_owned());
        old.insert("net1".to_owned(), "virtio=BC:24:11:00:11:01,bridge=vmbr8".to_owned());
        let extra = [("hostpci0", "0000:01:00"), ("usb0", "host=1-1"), ("numa", "1")];
        let extra = extra.map(|(key, value)| (key.to_owned(), value.to_owned()));
        wanted.extra.insert("single-cp-01".to_owned(), extra.into());
        let set = keys(&make(&wanted, &seen).unwrap(), "canary/pve1/hardware");
        assert_eq!(
            (set["memory"].as_str(), set["numa"].as_str(), set["tags"].as_str()),
            ("2048", "1", "recast-canary")
        );
        for key in ["hostpci0", "usb0", "onboot"] {
            assert_eq!(set.get(key), None, "{key}");
        }
        for (key, bridge) in [("net0", "bridge=vmbr7,tag=20"), ("net1", "bridge=vmbr8")] {
            assert!(set[key].ends_with(bridge) && !set[key].contains("BC:24:11:00:11:0"), "{key}: {}", set[key]);
        }
    }

    #[test]
    fn every_node_and_schematic_has_one_with_its_own_template() {
        let (mut wanted, mut seen) = (wanted(), seen());
        nodes(&mut wanted, &mut seen, &["pve1", "pve1", "pve2"]);
        let gpu = "a".repeat(64);
        for vm in &mut wanted.vms[1..] {
            vm.role = Role::Worker;
        }
        let hardware = wanted.hardware.clone();
        wanted.others.insert(Role::Worker, OtherImage { schematic: gpu.as_str().into(), hardware });
        let mut image = seen.images[0].clone();
        image.schematic = gpu.as_str().into();
        seen.images.push(image);
        let plan = make(&wanted, &seen).unwrap();
        assert_eq!(lint(&plan), []);
        let ids: Vec<&str> = plan
            .steps()
            .map(|planned| planned.id.as_str())
            .filter(|id| id.ends_with("/seal") || id.ends_with("/prove") || id.starts_with("image/"))
            .collect();
        assert_eq!(
            ids,
            [
                "image/fetch-aaaaaaaa",
                "image/fetch",
                "template/pve1-aaaaaaaa/seal",
                "template/pve1/seal",
                "template/pve2-aaaaaaaa/seal",
                "canary/pve1-aaaaaaaa/prove",
                "canary/pve1/prove",
                "canary/pve2-aaaaaaaa/prove",
            ]
        );
        let worker = plan.steps().find_map(|planned| match &planned.step {
            Step::CloneVm { template, vm, .. } if vm.name == "single-cp-02" => Some(*template),
            _ => None,
        });
        let sealed = plan.steps().find(|planned| planned.id.as_str() == "template/pve1-aaaaaaaa/seal").unwrap();
        assert!(matches!(&sealed.step, Step::SealTemplate { vm, .. } if Some(vm.vmid) == worker));
    }
}
