//! Phase `canary`: one throw-away VM per template proves that it boots what the configurations expect.

use crate::plan::allocate;
use crate::plan::make::{Draft, PlanError, planned, undone_by};
use crate::plan::phases::provision::net_with_mac;
use crate::plan::step::Hardware;
use crate::plan::{Phase, Step};
use crate::types::StepId;

/// Memory of a canary in MiB at most: enough to boot into maintenance, little enough to fit beside the old cluster.
const MEMORY_CAP: u64 = 2048;

pub(in crate::plan) fn canary(draft: &Draft<'_>) -> Result<Phase, PlanError> {
    let wanted = draft.wanted;
    let mut steps = Vec::new();
    for (node, vmid) in &draft.canaries {
        let id = |what: &str| format!("canary/{node}/{what}");
        let name = format!("{}-canary-{node}", wanted.cluster);
        let vm = draft.our_vm(&StepId::new(id("clone")), node, *vmid, &name);
        let mac = allocate::mac(&wanted.run, &name);
        let members = || draft.vms.iter().filter(|vm| vm.node == *node);
        let mut set = Hardware::new();
        set.insert("cores".to_owned(), members().map(|vm| vm.cores).max().unwrap_or(2).to_string());
        set.insert(
            "memory".to_owned(),
            members().map(|vm| vm.memory_mb).max().unwrap_or(MEMORY_CAP).min(MEMORY_CAP).to_string(),
        );
        set.insert("net0".to_owned(), net_with_mac(&wanted.nic, mac));
        set.insert("tags".to_owned(), "recast-canary".to_owned());
        let mut configs = Vec::new();
        for member in members() {
            let machine = wanted.machines.get(&member.name.as_str().into());
            configs.push(machine.ok_or_else(|| PlanError::NoConfig { name: member.name.clone() })?.clone());
        }
        let template = draft.templates[node].vm.vmid;
        let clone = Step::CloneVm { template, vm: vm.clone(), storage: wanted.storage.clone(), pool: None };
        let clone = undone_by(planned(id("clone"), clone, &[]), Step::DeleteOurVm { vm: vm.clone() });
        let set = planned(id("hardware"), Step::SetHardware { vm: vm.clone(), set, delete: Vec::new() }, &[&clone.id]);
        let start = planned(id("start"), Step::StartVm { vm: vm.clone() }, &[&set.id]);
        let find = Step::FindMachine {
            vm: vm.clone(),
            mac,
            discovery: wanted
                .discovery
                .iter()
                .filter(|way| matches!(way, crate::plan::step::Discovery::Scan(_)))
                .cloned()
                .collect(),
        };
        let find = planned(id("find"), find, &[&start.id]);
        let prove = Step::ProveCanary {
            found: find.id.clone(),
            version: wanted.talos.clone(),
            schematic: wanted.schematic.clone(),
            install_disk: wanted.config.install_disk.clone(),
            configs,
        };
        let prove = planned(id("prove"), prove, &[&find.id]);
        let delete = planned(id("delete"), Step::DeleteOurVm { vm }, &[&prove.id]);
        steps.extend([clone, set, start, find, prove, delete]);
    }
    Ok(Phase { name: "canary".to_owned(), steps, width: 4 })
}
