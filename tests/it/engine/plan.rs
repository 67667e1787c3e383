//! A plan small enough to be carried out thousands of times.

use std::collections::BTreeMap;

use recast::plan::step::OurVm;
use recast::plan::{Phase, Planned, Step, Undo};
use recast::types::{NodeName, StepId, StorageId, VmId};

pub(super) fn vm(vmid: u32) -> OurVm {
    let name = format!("vm-{vmid}");
    OurVm { node: NodeName::from("pve1"), vmid: VmId(vmid), name: name.clone(), mark: format!("recast: step={name}") }
}

pub(super) fn planned(id: &str, step: Step, after: &[&str], undo: Undo) -> Planned {
    Planned { id: StepId::from(id), step, after: after.iter().map(|id| StepId::from(*id)).collect(), undo }
}

/// Four phases: undoable ones one by one, machines side by side with links between their steps, an irreversible end.
pub(super) fn plan() -> Vec<Phase> {
    let remove = || Step::RemoveUpload {
        node: NodeName::from("pve1"),
        storage: StorageId::from("local"),
        file: "talos.qcow2".to_owned(),
    };
    let delete = |vmid| Undo::By(Box::new(Step::DeleteOurVm { vm: vm(vmid) }));
    let template = vec![
        planned("template/upload", Step::ConfirmFacts, &[], Undo::By(Box::new(remove()))),
        planned("template/create", Step::StartVm { vm: vm(900) }, &[], delete(900)),
        planned(
            "template/hardware",
            Step::GrowDisk { vm: vm(900), disk: "scsi0".to_owned(), gib: 8 },
            &[],
            Undo::Nothing,
        ),
        planned("template/seal", Step::StartVm { vm: vm(900) }, &["template/create"], Undo::Nothing),
    ];
    let retire = vec![planned(
        "retire/101",
        Step::ConfirmGone { vmids: vec![VmId(101)] },
        &[],
        Undo::Irreversible { because: "its disks are gone".to_owned() },
    )];
    let mut provision = Vec::new();
    for (name, vmid) in [("cp-1", 201), ("cp-2", 202), ("worker-1", 203)] {
        let clone = format!("provision/{name}/clone");
        let size = format!("provision/{name}/size");
        provision.push(planned(&clone, Step::StartVm { vm: vm(vmid) }, &[], delete(vmid)));
        let grow = Step::GrowDisk { vm: vm(vmid), disk: "scsi0".to_owned(), gib: 20 };
        provision.push(planned(&size, grow, &[&clone], Undo::Nothing));
        let start = format!("provision/{name}/start");
        provision.push(planned(&start, Step::StartVm { vm: vm(vmid) }, &[&size], Undo::Nothing));
    }
    let finish = vec![
        planned("finish/profile", Step::EditProfile { set: BTreeMap::new() }, &[], Undo::Nothing),
        planned("finish/gone", Step::ConfirmGone { vmids: vec![VmId(101)] }, &[], Undo::Nothing),
    ];
    let phase = |name: &str, width, steps| Phase { name: name.to_owned(), steps, width };
    vec![
        phase("template", 1, template),
        phase("retire", 1, retire),
        phase("provision", 2, provision),
        phase("finish", 1, finish),
    ]
}

pub(super) fn ids(phases: &[Phase]) -> Vec<StepId> {
    phases.iter().flat_map(|phase| &phase.steps).map(|planned| planned.id.clone()).collect()
}
