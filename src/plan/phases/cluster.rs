//! Phases `configure`, `bootstrap` and `verify`: from booted machines to a healthy cluster.

use crate::plan::make::{Draft, PlanError, planned};
use crate::plan::phases::provision::new_vm;
use crate::plan::step::Discovery;
use crate::plan::{Phase, PlannedVm, Step};
use crate::types::{MachineName, Role, StepId};

fn up(vm: &PlannedVm) -> StepId {
    StepId::new(format!("configure/{}/up", vm.name))
}

/// Finds each machine, applies its configuration and waits for the boot after it.
pub(in crate::plan) fn configure(draft: &Draft<'_>) -> Result<Phase, PlanError> {
    let mut steps = Vec::new();
    for vm in &draft.vms {
        let id = |what: &str| format!("configure/{}/{what}", vm.name);
        let no_config = || PlanError::NoConfig { name: vm.name.clone() };
        let machine = draft.wanted.machines.get(&vm.name.as_str().into()).ok_or_else(no_config)?;
        let reserved = vm.address.map(Discovery::Static);
        let discovery = reserved.into_iter().chain(draft.wanted.discovery.iter().cloned()).collect();
        let find = Step::FindMachine { vm: new_vm(draft, vm), mac: machine.mac, discovery };
        let find = planned(id("find"), find, &[]);
        let apply =
            planned(id("apply"), Step::ApplyConfig { found: find.id.clone(), machine: machine.clone() }, &[&find.id]);
        let wait = Step::AwaitMachine {
            machine: machine.name.clone(),
            found: find.id.clone(),
            address: vm.address,
            version: draft.wanted.talos.clone(),
        };
        let wait = planned(up(vm).as_str(), wait, &[&apply.id]);
        steps.extend([find, apply, wait]);
    }
    Ok(Phase { name: "configure".to_owned(), steps, width: 8 })
}

/// Bootstraps etcd on the first control plane, then fetches the credentials.
pub(in crate::plan) fn bootstrap(draft: &Draft<'_>) -> Phase {
    let mut steps = Vec::new();
    if let Some(first) = draft.vms.iter().find(|vm| vm.role == Role::ControlPlane) {
        let machine = MachineName::new(&first.name);
        let etcd = planned("bootstrap/etcd", Step::BootstrapEtcd { machine: machine.clone(), at: up(first) }, &[]);
        let access = planned("bootstrap/access", Step::SaveAccess { machine, at: up(first) }, &[&etcd.id]);
        steps.extend([etcd, access]);
    }
    Phase { name: "bootstrap".to_owned(), steps, width: 1 }
}

/// Health by Talos' checks, then Kubernetes nodes that are Ready and stay so.
pub(in crate::plan) fn verify(draft: &Draft<'_>) -> Phase {
    let of = |role: Role| draft.vms.iter().filter(|vm| vm.role == role).map(up).collect();
    let health = Step::AwaitHealthy { controlplanes: of(Role::ControlPlane), workers: of(Role::Worker) };
    let health = planned("verify/health", health, &[]);
    let nodes = Step::AwaitNodesReady {
        machines: draft.vms.iter().map(|vm| MachineName::new(&vm.name)).collect(),
        kubernetes: draft.wanted.kubernetes.clone(),
        steady: draft.wanted.limits.steady,
    };
    let nodes = planned("verify/nodes", nodes, &[&health.id]);
    Phase { name: "verify".to_owned(), steps: vec![health, nodes], width: 1 }
}
