//! Phases `configure`, `bootstrap` and `verify`: from booted machines to a healthy cluster.

use crate::plan::data::SnapshotSource;
use crate::plan::make::{Draft, PlanError, planned};
use crate::plan::phases::freeze::FINAL;
use crate::plan::phases::provision::new_vm;
use crate::plan::step::{Discovery, ExpectedMachine};
use crate::plan::{Data, Phase, PlannedVm, Step};
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

/// Brings etcd up on the first control plane, new or from its snapshot, then fetches the credentials.
pub(in crate::plan) fn bootstrap(draft: &Draft<'_>) -> Phase {
    let mut steps = Vec::new();
    if let Some(first) = draft.vms.iter().find(|vm| vm.role == Role::ControlPlane) {
        let (machine, at) = (MachineName::new(&first.name), up(first));
        let from = |snapshot| Step::RecoverEtcd { machine: machine.clone(), at: at.clone(), snapshot };
        let etcd = match &draft.wanted.data {
            Data::Fresh => Step::BootstrapEtcd { machine: machine.clone(), at: at.clone() },
            Data::Keep(_) => from(SnapshotSource::Step(FINAL.into())),
            Data::Restore { file, proof } => from(SnapshotSource::File { path: file.clone(), sha256: proof.sha256 }),
        };
        let etcd = planned("bootstrap/etcd", etcd, &[]);
        let access = planned("bootstrap/access", Step::SaveAccess { machine, at }, &[&etcd.id]);
        let data = (draft.wanted.data != Data::Fresh)
            .then(|| planned("bootstrap/data", Step::ConfirmData { restored: etcd.id.clone() }, &[&access.id]));
        steps.extend([etcd, access].into_iter().chain(data));
    }
    Phase { name: "bootstrap".to_owned(), steps, width: 1 }
}

/// What came back and belongs to nobody goes first, since Talos' health checks stumble over it; then health by these
/// checks, what the machines say of themselves, Kubernetes nodes that are Ready and stay so, and what ran before.
pub(in crate::plan) fn verify(draft: &Draft<'_>) -> Phase {
    let of = |role: Role| draft.vms.iter().filter(|vm| vm.role == role).map(up).collect();
    let health = Step::AwaitHealthy { controlplanes: of(Role::ControlPlane), workers: of(Role::Worker) };
    let names = |role: Option<Role>| -> Vec<MachineName> {
        let members = draft.vms.iter().filter(|vm| role.is_none_or(|role| vm.role == role));
        members.map(|vm| MachineName::new(&vm.name)).collect()
    };
    let first = draft.vms.iter().find(|vm| vm.role == Role::ControlPlane);
    let stale = first.map(|first| {
        let (controlplanes, machines) = (names(Some(Role::ControlPlane)), names(None));
        planned("verify/stale", Step::RemoveStale { at: up(first), controlplanes, machines }, &[])
    });
    let after: Vec<&StepId> = stale.iter().map(|planned| &planned.id).collect();
    let health = planned("verify/health", health, &after);
    let machines = draft.vms.iter().map(|vm| ExpectedMachine {
        machine: MachineName::new(&vm.name),
        at: up(vm),
        version: draft.wanted.talos.clone(),
        schematic: draft.wanted.schematic_of(vm.role).clone(),
    });
    let machines = Step::ConfirmMachines { machines: machines.collect() };
    let machines = planned("verify/machines", machines, &[&health.id]);
    let nodes = Step::AwaitNodesReady {
        machines: draft.vms.iter().map(|vm| MachineName::new(&vm.name)).collect(),
        kubernetes: draft.wanted.kubernetes.clone(),
        steady: draft.wanted.limits.steady,
    };
    let nodes = planned("verify/nodes", nodes, &[&machines.id]);
    let workloads = planned("verify/workloads", Step::CompareWorkloads, &[&nodes.id]);
    let steps = stale.into_iter().chain([health, machines, nodes, workloads]).collect();
    Phase { name: "verify".to_owned(), steps, width: 1 }
}
